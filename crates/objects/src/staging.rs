//! Staging: a body on its way into the store. Cut in parts, hashed and written at the same time.
//!
//! A part is filled (copied, so that what an upload pins is exactly what it counts), then hashed on a blocking thread
//! while the store writes it and the next part fills. At most [`MAX_PARTS_IN_FLIGHT`] parts are being written and one
//! fills: that bounds the memory of an upload. A body of at most one part is written at once. In a local folder the file
//! is synced now and then while it grows, so that the disk is not idle until the end and then all that is waited for.
//!
//! A [`Staging`] or [`Staged`] that is dropped takes its object away in the background, as far as the runtime still
//! lives; [`crate::Blobs::sweep_staging`] finds the rest.

use std::mem;
use std::sync::Arc;

use api::Digest;
use api::slices::ChainingValue;
use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use uuid::Uuid;

use crate::hashing::{Hashes, Wanted};
use crate::{BlobError, Blobs, Inner, list_location, staging_location};

/// Bytes of one part: the smallest that S3 takes, and a whole number of slices.
pub const PART_BYTES: usize = 5 << 20;
/// Parts of one upload that are being written at the same time, beside the one that fills.
pub const MAX_PARTS_IN_FLIGHT: usize = 2;

/// After how many bytes a growing local file is synced, if the sync before has ended.
const SYNC_EVERY_BYTES: u64 = 32 << 20;

const _: () = assert!((PART_BYTES as u64).is_multiple_of(api::SLICE_BYTES));

/// Parts that are being written.
type Writes = JoinSet<object_store::Result<()>>;

/// A body that is being uploaded. After an error, or a call that was cancelled, it can only be dropped or aborted.
#[derive(Debug)]
pub struct Staging {
    object: Object,
    size: u64,
    part: BytesMut,
    upload: Option<Box<dyn MultipartUpload>>,
    writes: Writes,
    /// The hashes of all parts but the one that fills. Each part is hashed after the one before.
    hashing: JoinHandle<Hashes>,
    /// The sync in progress, or the last one. Each result is looked at: the system reports a failed write only once.
    syncing: Option<JoinHandle<Result<(), BlobError>>>,
    /// Bytes sent since that sync began.
    unsynced: u64,
}

/// A body that was uploaded whole: its bytes are durable, and not yet a blob.
#[derive(Debug)]
pub struct Staged {
    /// BLAKE3 of the body.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The chaining value of each slice; none when there is at most one slice.
    pub values: Vec<ChainingValue>,
    /// SHA-256, where it was wanted.
    pub sha256: Option<[u8; 32]>,
    /// SHA-512, where it was wanted.
    pub sha512: Option<[u8; 64]>,
    object: Object,
}

impl Blobs {
    /// Begins an upload. Must be called within a tokio runtime.
    pub fn stage(&self, wanted: Wanted) -> Staging {
        Staging {
            object: Object { inner: Arc::clone(&self.inner), name: Uuid::now_v7().to_string(), kept: true },
            size: 0,
            part: BytesMut::new(),
            upload: None,
            writes: Writes::new(),
            hashing: spawn_blocking(move || Hashes::new(wanted)),
            syncing: None,
            unsynced: 0,
        }
    }

    /// Puts a staged body in place as the blob of its digest: when it returns, the blob is durable. It may be repeated,
    /// and a blob of this digest that is there already is replaced by the same bytes, fresh.
    ///
    /// # Errors
    /// [`BlobError::Full`], or the folder or store failed.
    pub async fn place(&self, staged: &Staged) -> Result<(), BlobError> {
        if !staged.values.is_empty() {
            self.write_list(staged.digest, &staged.values).await?;
        }
        if self.inner.folder.is_none() {
            let (from, to) = (staging_location(&staged.object.name), crate::blob_location(staged.digest));
            return Ok(self.store().copy(&from, &to).await?);
        }
        let (name, digest) = (staged.object.name.clone(), staged.digest);
        self.inner.in_folder(move |folder| folder.publish(&name, digest)).await
    }

    /// Takes the staging object away, once the blob is committed or not wanted.
    ///
    /// # Errors
    /// The folder or store failed; the object will be swept later.
    pub async fn discard(&self, mut staged: Staged) -> Result<(), BlobError> {
        staged.object.kept = false;
        self.inner.remove_staged(&staged.object.name).await
    }

    /// Keeps the chaining values beside their blob. Not synced: it is checked when read and can be made again.
    pub(crate) async fn write_list(&self, digest: Digest, values: &[ChainingValue]) -> Result<(), BlobError> {
        let payload = PutPayload::from(values.concat());
        if self.inner.folder.is_none() {
            self.store().put(&list_location(digest), payload).await?;
            return Ok(());
        }
        // A local put goes through a temporary name beside the target, and those belong in `staging/`.
        let name = format!("{}.slices", Uuid::now_v7());
        let written = async {
            self.store().put(&staging_location(&name), payload).await?;
            self.store().rename(&staging_location(&name), &list_location(digest)).await
        };
        let result = written.await;
        if result.is_err() {
            self.inner.remove_staged(&name).await?;
        }
        Ok(result?)
    }
}

impl Staging {
    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes, and waits while too many parts are being written.
    ///
    /// # Errors
    /// [`BlobError::Full`], or the store failed.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), BlobError> {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PART_BYTES - self.part.len()));
            // Beyond one slice the first buffer grows to a whole part at once, and never above it by doubling.
            if self.part.len() + piece.len() > api::SLICE_BYTES as usize {
                self.part.reserve(PART_BYTES - self.part.len());
            }
            self.part.extend_from_slice(&piece);
            if self.part.len() == PART_BYTES {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Ends the body: when it returns, all bytes are durable and their digests known.
    ///
    /// # Errors
    /// [`BlobError::Full`], or the store failed; nothing stays behind.
    pub async fn finish(mut self) -> Result<Staged, BlobError> {
        match self.complete().await {
            Ok(staged) => Ok(staged),
            Err(error) => {
                // What made this fail may make that fail too, and is what the caller wants to know.
                let _ = self.abort().await;
                Err(error)
            }
        }
    }

    async fn complete(&mut self) -> Result<Staged, BlobError> {
        let location = staging_location(&self.object.name);
        if self.upload.is_none() {
            let part = mem::take(&mut self.part).freeze();
            self.hash(part.clone()).await?;
            self.object.inner.store.put(&location, part.into()).await?;
        } else {
            if !self.part.is_empty() {
                self.send_part().await?;
            }
            self.wait_for_writes(0).await?;
            self.wait_for_sync().await?;
            if let Some(upload) = &mut self.upload {
                upload.complete().await?;
            }
            self.upload = None;
        }
        if self.object.inner.folder.is_some() {
            let name = self.object.name.clone();
            self.object.inner.in_folder(move |folder| folder.sync_staged(&name)).await?;
        }
        let hashed = self.hashes().await?.finish();
        Ok(Staged {
            digest: hashed.digest,
            size: self.size,
            values: hashed.values,
            sha256: hashed.sha256,
            sha512: hashed.sha512,
            object: self.object.take(),
        })
    }

    /// Gives the upload up and waits until nothing is left of it.
    ///
    /// # Errors
    /// The folder or store failed; the object will be swept later.
    pub async fn abort(mut self) -> Result<(), BlobError> {
        let (upload, writes) = (self.upload.take(), mem::take(&mut self.writes));
        self.object.kept = false;
        clean_up(Arc::clone(&self.object.inner), self.object.name.clone(), upload, writes).await
    }

    /// Sends the part that has filled to the hasher and to the store.
    async fn send_part(&mut self) -> Result<(), BlobError> {
        if self.upload.is_none() {
            let location = staging_location(&self.object.name);
            self.upload = Some(self.object.inner.store.put_multipart(&location).await?);
        }
        self.wait_for_writes(MAX_PARTS_IN_FLIGHT - 1).await?;
        self.sync_now_and_then().await?;
        let part = mem::replace(&mut self.part, BytesMut::with_capacity(PART_BYTES)).freeze();
        if let Some(upload) = &mut self.upload {
            self.writes.spawn(upload.put_part(part.clone().into()));
        }
        self.unsynced += part.len() as u64;
        self.hash(part).await
    }

    /// Begins to sync the local file when much was written since the last time.
    async fn sync_now_and_then(&mut self) -> Result<(), BlobError> {
        let busy = self.syncing.as_ref().is_some_and(|syncing| !syncing.is_finished());
        if busy || self.unsynced < SYNC_EVERY_BYTES || self.object.inner.folder.is_none() {
            return Ok(());
        }
        self.wait_for_sync().await?;
        self.unsynced = 0;
        let (inner, name) = (Arc::clone(&self.object.inner), self.object.name.clone());
        self.syncing =
            Some(tokio::spawn(async move { inner.in_folder(move |folder| folder.sync_growing(&name)).await }));
        Ok(())
    }

    async fn wait_for_sync(&mut self) -> Result<(), BlobError> {
        match self.syncing.take() {
            Some(syncing) => syncing.await.map_err(object_store::Error::from)?,
            None => Ok(()),
        }
    }

    /// Waits until at most `left` parts are being written.
    async fn wait_for_writes(&mut self, left: usize) -> Result<(), BlobError> {
        while self.writes.len() > left {
            if let Some(written) = self.writes.join_next().await {
                written.map_err(object_store::Error::from)??;
            }
        }
        Ok(())
    }

    /// Begins to hash a part, once the part before it is hashed.
    async fn hash(&mut self, part: Bytes) -> Result<(), BlobError> {
        let mut hashes = self.hashes().await?;
        self.hashing = spawn_blocking(move || {
            hashes.update(&part);
            hashes
        });
        Ok(())
    }

    async fn hashes(&mut self) -> Result<Hashes, BlobError> {
        Ok((&mut self.hashing).await.map_err(object_store::Error::from)?)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let (upload, writes) = (self.upload.take(), mem::take(&mut self.writes));
        self.object.remove_in_background(upload, writes);
    }
}

/// The object in `staging/`. Dropped while it is kept, it is removed in the background.
#[derive(Debug)]
struct Object {
    inner: Arc<Inner>,
    name: String,
    kept: bool,
}

impl Object {
    /// Passes the duty to remove the object on to the value returned.
    fn take(&mut self) -> Object {
        Object { inner: Arc::clone(&self.inner), name: self.name.clone(), kept: mem::take(&mut self.kept) }
    }

    fn remove_in_background(&mut self, upload: Option<Box<dyn MultipartUpload>>, writes: Writes) {
        if let (true, Ok(runtime)) = (mem::take(&mut self.kept), Handle::try_current()) {
            // The task holds no `Object`: a runtime that shuts down drops it at once, and that must not spawn another.
            runtime.spawn(clean_up(Arc::clone(&self.inner), self.name.clone(), upload, writes));
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.remove_in_background(None, Writes::new());
    }
}

/// Ends what still writes, then removes what was written.
async fn clean_up(
    inner: Arc<Inner>,
    name: String,
    upload: Option<Box<dyn MultipartUpload>>,
    mut writes: Writes,
) -> Result<(), BlobError> {
    writes.shutdown().await;
    if let Some(mut upload) = upload {
        // Fails when the upload was completed already, or its file is gone: either way the next line is what counts.
        let _ = upload.abort().await;
    }
    let removed = inner.remove_staged(&name).await;
    if let Err(error) = &removed {
        tracing::warn!(%error, name, "a staging object stays behind until it is swept");
    }
    removed
}

impl Inner {
    /// Removes what is left of a staging object.
    async fn remove_staged(self: &Arc<Self>, name: &str) -> Result<(), BlobError> {
        if self.folder.is_some() {
            let name = name.to_owned();
            return self.in_folder(move |folder| folder.remove_staged(&name)).await;
        }
        match self.store.delete(&staging_location(name)).await {
            Err(error) if !matches!(error, object_store::Error::NotFound { .. }) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Does blocking work with the local folder, off the runtime's threads. Without a folder there is nothing to do.
    pub(crate) async fn in_folder<T: Default + Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&crate::Folder) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let inner = Arc::clone(self);
        let done = spawn_blocking(move || inner.folder.as_ref().map(work).transpose()).await;
        Ok(done.map_err(object_store::Error::from)??.unwrap_or_default())
    }
}

//! A disk that is full at any step of an upload: the error says so, and nothing is left behind. And one that hangs: an
//! upload takes in no more than its bound.

#![cfg(test)]

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use objects::{BlobError, Blobs, MAX_PARTS_IN_FLIGHT, PART_BYTES, Wanted};

/// Which step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Put,
    Begin,
    Part,
    Complete,
    Copy,
    /// A part that is never written, without an error.
    Hang,
}

/// A store in memory in which one step fails as long as it is armed.
#[derive(Debug, Clone)]
struct Faulty {
    inner: Arc<InMemory>,
    step: Step,
    kind: io::ErrorKind,
    armed: Arc<AtomicBool>,
}

impl Faulty {
    fn check(&self, step: Step) -> Result<()> {
        if step != self.step || !self.armed.load(Ordering::SeqCst) {
            return Ok(());
        }
        // Wrapped twice, as the local store does it.
        let source = io::Error::other(io::Error::from(self.kind));
        Err(object_store::Error::Generic { store: "Faulty", source: Box::new(source) })
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.check(Step::Put)?;
        self.inner.put_opts(location, payload, opts).await
    }
    async fn put_multipart_opts(&self, at: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.check(Step::Begin)?;
        let upload = self.inner.put_multipart_opts(at, opts).await?;
        Ok(Box::new(FaultyUpload { upload, faulty: self.clone() }))
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.check(Step::Copy)?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    faulty: Faulty,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        if self.faulty.step == Step::Hang {
            return Box::pin(std::future::pending());
        }
        match self.faulty.check(Step::Part) {
            Ok(()) => self.upload.put_part(data),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }
    async fn complete(&mut self) -> Result<PutResult> {
        self.faulty.check(Step::Complete)?;
        self.upload.complete().await
    }
    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

async fn upload(blobs: &Blobs, size: usize) -> Result<(), BlobError> {
    let mut staging = blobs.stage(Wanted::default());
    let chunk = Bytes::from(vec![7; 1 << 20]);
    for _ in 0..size / chunk.len() {
        if let Err(error) = staging.write(chunk.clone()).await {
            staging.abort().await.expect("abort");
            return Err(error);
        }
    }
    let staged = staging.finish().await?;
    let placed = blobs.place(&staged).await;
    blobs.discard(staged).await.expect("discard");
    placed
}

#[tokio::test]
async fn a_full_disk_at_any_step_leaves_nothing_behind() {
    let (one, many) = (1 << 20, 4 * PART_BYTES);
    let cases = [
        (Step::Put, one),
        (Step::Begin, many),
        (Step::Part, many),
        (Step::Complete, many),
        (Step::Copy, one),
        (Step::Copy, many),
    ];
    for (step, size) in cases {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
            let armed = Arc::new(AtomicBool::new(true));
            let store = Arc::new(Faulty { inner: Arc::new(InMemory::new()), step, kind, armed: armed.clone() });
            let blobs = Blobs::new(store.clone());
            let error = upload(&blobs, size).await.expect_err("full");
            assert!(matches!(error, BlobError::Full(_)), "{step:?} {size} {kind:?}: {error}");
            let left: Vec<_> = store.list(None).map_ok(|object| object.location).try_collect().await.expect("list");
            // A list of chaining values without its blob is an unreferenced blob to the collector.
            let left: Vec<_> = left.iter().filter(|at| !at.as_ref().ends_with(".slices")).collect();
            assert!(left.is_empty(), "{step:?} {size} {kind:?}: {left:?}");

            armed.store(false, Ordering::SeqCst);
            upload(&blobs, size).await.expect("there is room again");
        }
    }
}

#[tokio::test]
async fn other_failures_are_not_taken_for_a_full_disk() {
    let armed = Arc::new(AtomicBool::new(true));
    let kind = io::ErrorKind::PermissionDenied;
    let store = Faulty { inner: Arc::new(InMemory::new()), step: Step::Put, kind, armed };
    let error = upload(&Blobs::new(Arc::new(store)), 1 << 20).await.expect_err("denied");
    assert!(matches!(error, BlobError::Store(_)), "{error}");
}

#[tokio::test]
async fn an_upload_takes_in_no_more_than_its_bound() {
    let (kind, armed) = (io::ErrorKind::Other, Arc::new(AtomicBool::new(true)));
    let store = Faulty { inner: Arc::new(InMemory::new()), step: Step::Hang, kind, armed };
    let mut staging = Blobs::new(Arc::new(store)).stage(Wanted::default());
    let chunk = Bytes::from(vec![7; 1 << 18]);
    let mut taken = 0;
    // The wait only ends the test: were it too short, less would be taken, and the lower bound would say so.
    while tokio::time::timeout(Duration::from_secs(2), staging.write(chunk.clone())).await.is_ok() {
        taken += chunk.len();
        assert!(taken <= (MAX_PARTS_IN_FLIGHT + 1) * PART_BYTES, "{taken} bytes are held");
    }
    assert!(taken >= MAX_PARTS_IN_FLIGHT * PART_BYTES, "{taken} bytes were taken");
}

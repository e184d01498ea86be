//! What a collector needs: which blobs have been there for a while, taking one away, and sweeping leftovers.
//!
//! Whether a blob is still referred to is not known here; the collector asks the catalog between the two.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use api::Digest;
use futures_util::TryStreamExt;
use object_store::path::Path as Location;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::{BlobError, Blobs, LIST_SUFFIX, blob_location, list_location};

impl Blobs {
    /// The blobs whose digest begins with the byte `prefix` and whose objects were all written longer than `age` ago,
    /// in order of digest. Also names a digest of which only the chaining values are left.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list_old(&self, prefix: u8, age: Duration) -> Result<Vec<Digest>, BlobError> {
        let Some(before) = SystemTime::now().checked_sub(age) else { return Ok(Vec::new()) };
        let mut newest: BTreeMap<[u8; 32], SystemTime> = BTreeMap::new();
        let mut objects = self.store().list(Some(&Location::from(format!("blobs/{prefix:02x}"))));
        while let Some(object) = objects.try_next().await? {
            let Some(digest) = digest_of(&object) else {
                tracing::warn!(location = %object.location, "an object below blobs/ is not named by a digest; it is left alone");
                continue;
            };
            let written = SystemTime::from(object.last_modified);
            newest.entry(digest.0).and_modify(|known| *known = written.max(*known)).or_insert(written);
        }
        Ok(newest.into_iter().filter(|(_, written)| *written <= before).map(|(digest, _)| Digest(digest)).collect())
    }

    /// Takes a blob away, with its chaining values. One that is not there is no error.
    ///
    /// # Errors
    /// The store failed; it may be repeated.
    pub async fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        for location in [blob_location(digest), list_location(digest)] {
            match self.store().delete(&location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes what uploads have left in `staging/` and not written to for longer than `age`, and answers how many
    /// objects that were. `age` must be longer than an upload can stand still.
    ///
    /// # Errors
    /// The folder or store failed; it may be repeated.
    pub async fn sweep_staging(&self, age: Duration) -> Result<u64, BlobError> {
        if self.inner.folder.is_some() {
            return self.inner.in_folder(move |folder| folder.sweep(age)).await;
        }
        let Some(before) = SystemTime::now().checked_sub(age) else { return Ok(0) };
        let mut removed = 0;
        let mut objects = self.store().list(Some(&Location::from("staging")));
        while let Some(object) = objects.try_next().await? {
            if SystemTime::from(object.last_modified) <= before {
                match self.store().delete(&object.location).await {
                    Ok(()) => removed += 1,
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(removed)
    }
}

/// The digest that an object below `blobs/` is named by.
fn digest_of(object: &ObjectMeta) -> Option<Digest> {
    let name = object.location.filename()?;
    name.strip_suffix(LIST_SUFFIX).unwrap_or(name).parse().ok()
}

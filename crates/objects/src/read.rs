//! Reading blobs: never a byte that was not verified against the digest.
//!
//! Each slice is checked against its chaining value, and the list of chaining values against the digest when it is
//! read. Checked lists of the blobs read last are kept in memory, at most [`MAX_CACHED_VALUES`] values in all. A list
//! that is missing or wrong is computed again from the blob, by one reader at a time, and written back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use api::Digest;
use api::slices::{ChainingValue, chaining_value, merge, parse_values, slice_count, slice_range, value_count, verify};
use bytes::Bytes;
use object_store::{GetOptions, GetRange, ObjectStoreExt};
use tokio::task::spawn_blocking;

use crate::{BlobError, Blobs, blob_location, list_location};

/// Chaining values kept in memory, of all blobs together: 8 MiB, enough for 256 GiB of content.
const MAX_CACHED_VALUES: usize = 1 << 18;

/// The chaining values of one blob, checked.
type List = Arc<[ChainingValue]>;

impl Blobs {
    /// The size of a blob in bytes, as stored.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], or the store failed.
    pub async fn head(&self, digest: Digest) -> Result<u64, BlobError> {
        let head = self.store().head(&blob_location(digest)).await;
        Ok(head.map_err(|error| BlobError::reading(digest, error))?.size)
    }

    /// The slice `index` of a blob that is to have `size` bytes, verified. An empty blob has one empty slice 0 here.
    ///
    /// # Errors
    /// [`BlobError::Corrupt`] when the bytes or the size are not what they should be, [`BlobError::NotFound`], or the
    /// store failed.
    pub async fn slice(&self, digest: Digest, size: u64, index: u64) -> Result<Bytes, BlobError> {
        let list = self.slices(digest, size).await?;
        let bytes = self.read(digest, size, index).await?;
        let checked = spawn_blocking(move || verify(digest, size, &list, index, &bytes).then_some(bytes)).await;
        checked.map_err(object_store::Error::from)?.ok_or(BlobError::Corrupt { digest, slice: Some(index) })
    }

    /// The chaining values of a blob that is to have `size` bytes, checked; none when it has at most one slice (then
    /// nothing is read).
    ///
    /// # Errors
    /// As for [`Blobs::slice`].
    pub async fn slices(&self, digest: Digest, size: u64) -> Result<List, BlobError> {
        if value_count(size) == 0 {
            return Ok(List::default());
        }
        if let Some(list) = self.inner.lists.get(digest) {
            return Ok(list);
        }
        if let Some(list) = self.stored_list(digest, size).await? {
            return Ok(list);
        }
        // One at a time: a thousand readers of a blob without its list read it once.
        let _one = self.inner.lists.rebuilding.lock().await;
        match self.inner.lists.get(digest) {
            Some(list) => Ok(list),
            None => self.rebuild_list(digest, size).await,
        }
    }

    /// The list as it is stored, when it is there and right.
    async fn stored_list(&self, digest: Digest, size: u64) -> Result<Option<List>, BlobError> {
        let raw = match self.store().get(&list_location(digest)).await {
            // Not read when it cannot be right, so that a wrong file cannot fill the memory.
            Ok(found) if found.meta.size == value_count(size) * api::slices::CHAINING_VALUE_BYTES as u64 => {
                found.bytes().await?
            }
            Ok(_) | Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let values = spawn_blocking(move || parse_values(digest, size, &raw)).await;
        let values = values.map_err(object_store::Error::from)?;
        Ok(values.map(|values| self.inner.lists.insert(digest, values)))
    }

    /// Computes the list from the blob and keeps it.
    async fn rebuild_list(&self, digest: Digest, size: u64) -> Result<List, BlobError> {
        let mut values = Vec::new();
        for index in 0..slice_count(size) {
            let bytes = self.read(digest, size, index).await?;
            let value = spawn_blocking(move || chaining_value(index, &bytes)).await;
            values.extend(value.map_err(object_store::Error::from)?);
        }
        if merge(&values) != Some(digest) {
            return Err(BlobError::Corrupt { digest, slice: None });
        }
        if let Err(error) = self.write_list(digest, &values).await {
            tracing::warn!(%error, %digest, "the chaining values of a blob were lost and cannot be written back");
        }
        Ok(self.inner.lists.insert(digest, values))
    }

    /// The bytes of a slice as stored, of the right length but not verified.
    async fn read(&self, digest: Digest, size: u64, index: u64) -> Result<Bytes, BlobError> {
        let range = slice_range(size, index);
        let corrupt = BlobError::Corrupt { digest, slice: Some(index) };
        if range.is_empty() {
            return if self.head(digest).await? == size { Ok(Bytes::new()) } else { Err(corrupt) };
        }
        let expected = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let read = match self.store().get_opts(&blob_location(digest), options).await {
            Ok(found) if found.meta.size != size => return Err(corrupt),
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match read {
            Ok(bytes) if bytes.len() as u64 == expected => Ok(bytes),
            Ok(_) => Err(corrupt),
            // A range beyond the end is an error that each store words in its own way: ask for the size instead.
            Err(error) => match self.head(digest).await {
                Ok(stored) if stored != size => Err(corrupt),
                _ => Err(BlobError::reading(digest, error)),
            },
        }
    }
}

/// The lists read last.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// Newest last. The lock is held for a search of a short queue, never during I/O.
    kept: Mutex<VecDeque<(Digest, List)>>,
    /// Held while a list is computed again.
    rebuilding: tokio::sync::Mutex<()>,
}

impl Lists {
    fn get(&self, digest: Digest) -> Option<List> {
        let mut kept = self.lock();
        let at = kept.iter().position(|(of, _)| *of == digest)?;
        let found = kept.remove(at)?;
        let list = Arc::clone(&found.1);
        kept.push_back(found);
        Some(list)
    }

    /// Keeps a list, at the cost of those not read for longest. One that is longer than the bound is not kept.
    fn insert(&self, digest: Digest, values: Vec<ChainingValue>) -> List {
        let list = List::from(values);
        let mut kept = self.lock();
        kept.retain(|(of, _)| *of != digest);
        kept.push_back((digest, Arc::clone(&list)));
        let mut total: usize = kept.iter().map(|(_, list)| list.len()).sum();
        while total > MAX_CACHED_VALUES {
            let Some((_, dropped)) = kept.pop_front() else { break };
            total -= dropped.len();
        }
        list
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Digest, List)>> {
        // The queue is whole after every operation, also one that panicked; what it holds is only a cache.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_read_last_are_kept_within_the_bound() {
        let lists = Lists::default();
        let digest = |n: u8| Digest([n; 32]);
        let half = vec![[0; 32]; MAX_CACHED_VALUES / 2];
        lists.insert(digest(1), half.clone());
        lists.insert(digest(2), half.clone());
        assert!(lists.get(digest(1)).is_some());
        lists.insert(digest(3), half);
        assert!(lists.get(digest(2)).is_none(), "the one not read for longest goes");
        assert!(lists.get(digest(1)).is_some() && lists.get(digest(3)).is_some());
        let too_long = lists.insert(digest(4), vec![[0; 32]; MAX_CACHED_VALUES + 1]);
        assert_eq!(too_long.len(), MAX_CACHED_VALUES + 1);
        assert!(lists.lock().is_empty());
    }
}

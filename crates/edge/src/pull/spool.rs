//! The disk under a body that grows: where a body goes whose length nobody knows and which is too large for memory.
//!
//! It begins in memory like any other. Once it is more than memory may hold, an entry without a length is made for it, and
//! every slice that is whole is written there and leaves memory (`growing.rs`). At its end the entry learns its length and is
//! like any other then. One that never ends is never found: an entry without a length is no variant (`frozen.rs`), and the
//! next start removes it.
//!
//! It has no lock. The file stays open, so that who follows can read on when the entry is purged or evicted meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use shelf::disk::{EntryId, New, ReadError, Reader, WriteError};

use crate::disk::Looks;
use crate::node::Node;
use crate::pull::frozen::{Ice, freeze};
use crate::pull::stored::{PageKey, Variant};

/// The open file of a body that grows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Spool {
    looks: Looks,
    reader: Reader,
}

impl Spool {
    /// Makes an entry for a variant whose body grows, for at most so many bytes. Nothing: it is not going to be on disk.
    pub(crate) async fn open(node: &Node, key: &PageKey, variant: &Arc<Variant>, most_bytes: u64) -> Option<Self> {
        let tier = node.disk.as_ref().filter(|_| variant.on_disk.claim())?;
        let (key_hash, key) = key.on_disk();
        let (place, length) = (Arc::clone(&variant.on_disk), variant.length);
        let Ice { meta, stamp, expires_s } = freeze(variant)?;
        let made = tier.blocking(move |disk| {
            let new = New { key_hash, key, meta, stamp, expires_s };
            let entry = disk.create(&new, length, most_bytes)?;
            let reader = disk.reader(entry).map_err(WriteError::from);
            match reader {
                Ok(reader) if place.came(entry) => Ok(reader),
                reader => {
                    disk.remove(entry); // it has been purged meanwhile, or cannot be read
                    reader.and(Err(WriteError::Gone))
                }
            }
        });
        let made = made.await.unwrap_or(Err(WriteError::OutOfUse));
        match made {
            Ok(reader) => {
                node.metrics.disk_admitted.inc();
                Some(Self { looks: tier.looks(), reader })
            }
            Err(error) => {
                tracing::debug!(%error, "a body that is too large for memory is not written to disk");
                node.metrics.disk_not_admitted.inc();
                variant.on_disk.refused();
                None
            }
        }
    }

    fn entry(&self) -> EntryId {
        self.reader.id()
    }

    /// Writes a slice. False: it is not there, and the body cannot be kept.
    pub(crate) async fn write(&self, number: u32, pieces: Vec<Bytes>) -> bool {
        let entry = self.entry();
        let written = self.looks.blocking(move |disk| disk.write_slice(entry, number, &pieces)).await;
        if let Some(Err(error)) = &written {
            tracing::debug!(number, %error, "a slice of a body that grows is not written");
        }
        matches!(written, Some(Ok(())))
    }

    /// Says that all of it is there. False: it is not, or the entry is gone.
    pub(crate) async fn finish(&self, length: u64) -> bool {
        let entry = self.entry();
        matches!(self.looks.blocking(move |disk| disk.finish(entry, length)).await, Some(Ok(true)))
    }

    /// A slice that was written.
    ///
    /// # Errors
    /// The word for why it cannot be had: the origin cannot be asked for it again within this transfer.
    pub(crate) async fn slice(&self, number: u32) -> Result<Bytes, &'static str> {
        let reader = self.reader.clone();
        match self.looks.blocking(move |_| reader.slice(number)).await {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(ReadError::Corrupt(_))) => Err("damaged"),
            Some(Err(_)) => Err("overtaken"),
            None => Err("disk-timeout"),
        }
    }
}

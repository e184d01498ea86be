//! Files of store zones in the disk tier: heads and bodies, each an entry by itself.
//!
//! A head stands under the era and its address (zone and path, or id); its meta is [`Frozen`] as JSON, its body the chaining
//! values that prove the slices, one after the other, and its stamp [`FORMAT`] and the two numbers of when its fetch began,
//! little-endian. A body stands under its digest, so that all addresses of a file share it, and no purge makes it wrong.
//!
//! As with pages, what is asked for a second time is brought to disk behind the answer.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use api::SLICE_BYTES;
use api::names::{Digest, FileId, FilePath, Tag, ZoneName};
use api::slices::{CHAINING_VALUE_BYTES, ChainingValue, slice_count};
use bytes::Bytes;
use http::HeaderValue;
use http_cache::Storable;
use serde::{Deserialize, Serialize};
use shelf::disk::{Disk, EntryId, KeyHash, New, ReadError, STAMP_BYTES, WriteError};

use crate::disk::{OnDisk, Opened, key_hash};
use crate::head::Head;
use crate::node::{BodyId, FileKey, HeadKey, Node};

/// What the stamp of an entry of this form begins with.
const FORMAT: u64 = 1;

/// What is kept of a head beside the chaining values.
#[derive(Serialize, Deserialize)]
struct Frozen {
    zone: ZoneName,
    path: FilePath,
    id: FileId,
    version: u64,
    digest: Digest,
    size: u64,
    media_type: String,
    cache_control: Option<String>,
    last_modified: Option<String>,
    tags: Vec<Tag>,
    fetched_ms: u64,
    storable: Storable,
}

impl HeadKey {
    /// The key of its head on disk.
    pub(crate) fn on_disk(&self) -> (KeyHash, Bytes) {
        let era = self.era;
        let key = match &self.file {
            FileKey::Path(zone, path) => format!("file\0{era:016x}\0{zone}\0{path}"),
            FileKey::Id(id) => format!("id\0{era:016x}\0{id}"),
        };
        (key_hash(key.as_bytes()), Bytes::from(key))
    }

    /// The file of a key on disk, if it is one of a head.
    pub(crate) fn from_disk(key: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(key).ok()?.splitn(4, '\0');
        let (kind, era) = (parts.next()?, u64::from_str_radix(parts.next()?, 16).ok()?);
        let file = match kind {
            "file" => FileKey::Path(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?),
            "id" => FileKey::Id(parts.next()?.parse().ok()?),
            _ => return None,
        };
        Some(Self { era, file })
    }
}

fn body_key(digest: Digest) -> (KeyHash, Bytes) {
    let key = format!("body\0{digest}");
    (key_hash(key.as_bytes()), Bytes::from(key))
}

/// The entries of the body of a file, also where nobody has looked yet. Blocks.
fn bodies_of(disk: &Disk, digest: Digest) -> Vec<EntryId> {
    let (hash, _) = body_key(digest);
    if disk.is_scanned(hash) { disk.find(hash) } else { disk.seek(hash) }
}

impl Node {
    /// Brings the head of a file back into memory that is only on disk.
    pub(crate) async fn find_head(&self, key: &HeadKey) {
        let Some(tier) = self.disk.as_ref().filter(|_| !self.has_head(key)) else { return };
        let (hash, on_disk) = key.on_disk();
        if tier.disk.find(hash).is_empty() && tier.disk.is_scanned(hash) {
            return;
        }
        let found = tier.blocking(move |disk| load(disk, &disk.seek(hash), &on_disk)).await.flatten();
        if let Some(head) = found
            && !self.has_head(key)
        {
            self.keep_head(key.clone(), &head);
        }
    }

    /// A head has come: the second time that its file is asked for, it is brought to disk.
    pub(crate) fn offer_file(self: &Arc<Self>, key: &HeadKey, head: &Arc<Head>) {
        if let Some(tier) = &self.disk
            && tier.seen_before(key.on_disk().0)
        {
            self.bring_file_to_disk(key, head);
        }
    }

    /// Brings a file to disk that has been asked for again, unless it is there or on its way: its head, and what there is in
    /// memory of its body. What comes later follows.
    pub(crate) fn bring_file_to_disk(self: &Arc<Self>, key: &HeadKey, head: &Arc<Head>) {
        let Some(tier) = &self.disk else { return };
        if head.storable.is_none() || !head.on_disk.claim() {
            return;
        }
        let (node, key, moved) = (Arc::clone(self), key.clone(), Arc::clone(head));
        let queued = tier.try_later(head.weight(), move |disk| match write_head(disk, &key, &moved) {
            Ok(entry) if moved.on_disk.came(entry) => {
                node.metrics.disk_admitted.inc();
                node.write_body(disk, &moved);
            }
            Ok(entry) => {
                disk.remove(entry); // it has been forgotten meanwhile
            }
            Err(error) => {
                tracing::debug!(path = %moved.path, %error, "not written to disk");
                node.metrics.disk_not_admitted.inc();
                moved.on_disk.refused();
            }
        });
        if !queued {
            self.metrics.disk_not_admitted.inc();
            head.on_disk.refused();
        }
    }

    /// An entry on disk gets what its head says now.
    pub(crate) fn rewrite_head(&self, head: &Arc<Head>) {
        let (Some(tier), Some(entry), Some((meta, stamp))) = (&self.disk, head.on_disk.entry(), freeze(head)) else {
            return;
        };
        let (place, expires_s) = (Arc::clone(&head.on_disk), head.useless_from_s());
        tier.surely(move |disk| {
            if disk.replace_meta(entry, meta, stamp, expires_s).is_err() {
                disk.remove(entry); // what it says of itself is not true any more
                place.lost(entry);
            }
        });
    }

    /// A head that is not stored any more leaves the disk. Its body leaves with it, unless that is the body of `instead`: who
    /// has the same asks for it again.
    pub(crate) fn remove_file(&self, head: &Head, instead: Option<&Head>) {
        if let (Some(tier), Some(entry)) = (&self.disk, head.on_disk.leave()) {
            let digest = Some(head.digest).filter(|digest| instead.is_none_or(|head| head.digest != *digest));
            tier.surely(move |disk| {
                disk.remove(entry);
                for body in digest.iter().flat_map(|digest| bodies_of(disk, *digest)) {
                    disk.remove(body);
                }
            });
        }
    }

    /// Removes heads of a file on disk that memory does not know: older ones, which would come back when it forgets this.
    pub(crate) fn weed_heads(&self, key: &HeadKey, head: &Head) {
        let Some(tier) = &self.disk else { return };
        let unknown: Vec<EntryId> =
            tier.disk.find(key.on_disk().0).into_iter().filter(|entry| Some(*entry) != head.on_disk.entry()).collect();
        let fetched_ms = head.fetched_ms;
        if !unknown.is_empty() {
            tier.surely(move |disk| {
                for entry in unknown {
                    let Ok((described, values)) = read(disk, entry) else { continue };
                    if thaw(&described, &values, entry).is_some_and(|old| old.fetched_ms < fetched_ms) {
                        disk.remove(entry);
                    }
                }
            });
        }
    }

    /// A slice of a file that lies on disk.
    pub(crate) async fn shelved_slice(&self, head: &Head, index: u64) -> Option<Bytes> {
        let tier = self.disk.as_ref()?;
        let (hash, _) = body_key(head.digest);
        let entry = match tier.disk.find(hash).first() {
            Some(entry) => *entry,
            None if tier.disk.is_scanned(hash) => return None,
            None => *tier.blocking(move |disk| disk.seek(hash)).await?.first()?,
        };
        let bytes = tier.slice(&OnDisk::at(entry), &mut Opened::default(), index).await?;
        // Of the very length: a digest's entry could be of another one only if it were no digest.
        let range = api::slices::slice_range(head.size, index);
        (bytes.len() as u64 == range.end - range.start).then_some(bytes)
    }

    /// Whether the body of a file is on disk, as far as that is known without a look there.
    pub(crate) fn is_shelved(&self, digest: Digest) -> bool {
        self.disk.as_ref().is_some_and(|tier| !tier.disk.find(body_key(digest).0).is_empty())
    }

    /// Puts a slice that has come from the origin where its file is: on disk or in memory.
    pub(crate) async fn keep_file_slice(&self, head: &Head, index: u64, bytes: Bytes) {
        if let (Some(tier), Ok(number)) = (&self.disk, u32::try_from(index))
            && let Some(entry) = tier.disk.find(body_key(head.digest).0).first().copied()
        {
            let body = bytes.clone();
            let written = tier.blocking(move |disk| disk.write_slice(entry, number, &[body])).await;
            // Small files belong into memory, too; large ones are the business of the operating system's page cache.
            if matches!(written, Some(Ok(()))) && head.size > SLICE_BYTES {
                return;
            }
        }
        self.keep_slice(Some(&head.zone), (BodyId::File(head.digest), index), bytes);
    }

    /// Makes an entry for the body of a file, unless there is one, with the slices that are in memory.
    fn write_body(&self, disk: &Disk, head: &Head) {
        let (key_hash, key) = body_key(head.digest);
        if head.size == 0 || !bodies_of(disk, head.digest).is_empty() {
            return;
        }
        let new = New { key_hash, key, meta: Bytes::new(), stamp: stamp(0, 0), expires_s: None };
        let result = (0..slice_count(head.size)).try_fold(None, |entry: Option<EntryId>, index| {
            let Some(bytes) = self.peek_slice(&(BodyId::File(head.digest), index)) else { return Ok(entry) };
            if head.size <= SLICE_BYTES {
                return disk.write(&new, &[bytes]).map(Some);
            }
            let entry = match entry {
                Some(entry) => entry,
                None => disk.create(&new, Some(head.size), head.size)?,
            };
            disk.write_slice(entry, u32::try_from(index).unwrap_or(u32::MAX), &[bytes])?;
            self.drop_slice(&(BodyId::File(head.digest), index));
            Ok(Some(entry))
        });
        if let Err::<_, WriteError>(error) = result {
            tracing::debug!(path = %head.path, %error, "a body is not written to disk");
        }
    }
}

fn write_head(disk: &Disk, key: &HeadKey, head: &Head) -> Result<EntryId, WriteError> {
    let (key_hash, key) = key.on_disk();
    let (meta, stamp) = freeze(head).ok_or(WriteError::Gone)?;
    let new = New { key_hash, key, meta, stamp, expires_s: head.useless_from_s() };
    disk.write(&new, &[Bytes::from(head.values.concat())])
}

/// Meta and stamp of a head's entry.
fn freeze(head: &Head) -> Option<(Bytes, [u8; STAMP_BYTES])> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let frozen = Frozen {
        zone: head.zone.clone(),
        path: head.path.clone(),
        id: head.id,
        version: head.version,
        digest: head.digest,
        size: head.size,
        media_type: text(&head.media_type)?,
        cache_control: head.cache_control.as_ref().and_then(text),
        last_modified: head.last_modified.as_ref().and_then(text),
        tags: head.tags.clone(),
        fetched_ms: head.fetched_ms,
        storable: head.storable?,
    };
    Some((Bytes::from(serde_json::to_vec(&frozen).ok()?), stamp(head.began, head.local)))
}

fn stamp(event: u64, local: u64) -> [u8; STAMP_BYTES] {
    let mut stamp = [0; STAMP_BYTES];
    for (place, number) in stamp.chunks_exact_mut(8).zip([FORMAT, event, local]) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    stamp
}

/// The head that lies on disk under a key. What cannot be read is not there.
fn load(disk: &Disk, entries: &[EntryId], key: &Bytes) -> Option<Arc<Head>> {
    let mut found = None;
    for entry in entries {
        let Ok((described, values)) = read(disk, *entry) else { continue };
        if described.key != *key {
            continue; // another key with the same hash
        }
        match thaw(&described, &values, *entry) {
            Some(head) if found.is_none() => found = Some(Arc::new(head)),
            Some(_) => {
                disk.remove(*entry); // older than the first
            }
            None => {} // of a form that this program does not read
        }
    }
    found
}

/// What an entry of a head holds; of a small file, no chaining values.
fn read(disk: &Disk, entry: EntryId) -> Result<(shelf::disk::Head, Bytes), ReadError> {
    disk.head_and_first(entry).or_else(|_| Ok((disk.head(entry)?, Bytes::new())))
}

fn thaw(described: &shelf::disk::Head, values: &Bytes, entry: EntryId) -> Option<Head> {
    thaw_with(described, values, entry).filter(|head| head.values.len() as u64 == api::slices::value_count(head.size))
}

/// Removes the body of the file whose head an entry is, if it is one.
pub(crate) fn remove_body_of(disk: &Disk, entry: EntryId) {
    let head = disk.head(entry).ok().and_then(|described| thaw_for_tools(&described, entry));
    for body in head.iter().flat_map(|head| bodies_of(disk, head.digest)) {
        disk.remove(body);
    }
}

/// The head of an entry, with nothing to prove slices by: for tools.
pub(crate) fn thaw_for_tools(described: &shelf::disk::Head, entry: EntryId) -> Option<Head> {
    thaw_with(described, &Bytes::new(), entry)
}

fn thaw_with(described: &shelf::disk::Head, values: &Bytes, entry: EntryId) -> Option<Head> {
    let number = |at: usize| Some(u64::from_le_bytes(described.stamp.get(at * 8..at * 8 + 8)?.try_into().ok()?));
    let (format, began, local) = (number(0)?, number(1)?, number(2)?);
    if format != FORMAT {
        return None;
    }
    let frozen: Frozen = serde_json::from_slice(&described.meta).ok()?;
    let value = |text: Option<String>| text.and_then(|text| HeaderValue::try_from(text).ok());
    let values: Vec<ChainingValue> =
        values.chunks_exact(CHAINING_VALUE_BYTES).filter_map(|value| value.try_into().ok()).collect();
    Some(Head {
        etag: HeaderValue::try_from(frozen.digest.etag()).ok()?,
        zone: frozen.zone,
        path: frozen.path,
        id: frozen.id,
        version: frozen.version,
        digest: frozen.digest,
        size: frozen.size,
        media_type: HeaderValue::try_from(frozen.media_type).ok()?,
        cache_control: value(frozen.cache_control),
        last_modified: value(frozen.last_modified),
        tags: frozen.tags,
        values,
        began,
        local,
        fetched_ms: frozen.fetched_ms,
        storable: Some(frozen.storable),
        // No event has this number: nothing is known yet about purges since.
        checked: AtomicU64::new(u64::MAX),
        on_disk: OnDisk::at(entry),
        has_forms: OnceLock::new(),
    })
}

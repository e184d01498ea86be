//! Pages in the tiers: how they are found, changed and brought to disk.
//!
//! A page that is not in memory may be on disk: [`Node::find_page`] brings the heads of its variants back, whose bodies stay
//! there. Every change of a page goes through [`Node::change_page`], which sees what has left the page: that leaves the tiers,
//! too, so that neither a purge nor a newer version leaves a slice behind. What memory evicts only leaves memory.

use std::sync::Arc;

use bytes::Bytes;
use shelf::disk::{Disk, EntryId, New, WriteError};

use crate::disk::OnDisk;
use crate::node::Node;
use crate::pull::frozen::{Ice, freeze, thaw};
use crate::pull::sliced::Sliced;
use crate::pull::stored::{Content, Page, PageKey, Part, Variant};
use crate::purges::Verdict;

impl Node {
    /// Brings what is under a key back into memory, where it is only on disk.
    pub(crate) async fn find_page(&self, key: &PageKey) -> Option<Arc<Page>> {
        if let Some(page) = self.page(key) {
            return Some(page);
        }
        let tier = self.disk.as_ref()?;
        let (hash, on_disk) = key.on_disk();
        if tier.disk.find(hash).is_empty() && tier.disk.is_scanned(hash) {
            return None;
        }
        let variants = tier.blocking(move |disk| load(disk, &disk.seek(hash), &on_disk, true)).await?;
        if variants.is_empty() {
            return None;
        }
        let _lock = self.pull.page_lock(key);
        if let Some(page) = self.page(key) {
            return Some(page); // somebody else was quicker
        }
        let page = Page { variants, ..Page::default() };
        self.keep_page(key.clone(), page.clone());
        Some(Arc::new(page))
    }

    /// What is under a key, wherever it is, for who only wants to know: that is no use of it.
    pub(crate) async fn look_at_page(&self, key: &PageKey) -> Option<Arc<Page>> {
        if let Some(page) = self.page(key) {
            return Some(page);
        }
        let (hash, on_disk) = key.on_disk();
        let tier = self.disk.as_ref()?;
        let variants = tier.blocking(move |disk| load(disk, &disk.seek(hash), &on_disk, false)).await?;
        (!variants.is_empty()).then(|| Arc::new(Page { variants, ..Page::default() }))
    }

    /// Changes the page of a key, in one step. False: it does not fit into the store.
    pub(crate) fn change_page(&self, key: &PageKey, change: impl FnOnce(&mut Page)) -> bool {
        let _lock = self.pull.page_lock(key);
        let before = self.page(key);
        let mut page = before.as_deref().cloned().unwrap_or_default();
        change(&mut page);
        if before.is_none() && page.is_empty() {
            // Such as a body that has come for what memory has refused or evicted: an entry for nothing would be a use of it.
            return true;
        }
        page.fit(self.most_page_bytes());
        let now = page.variants.clone();
        let kept = self.keep_page(key.clone(), page);
        let came = now.iter().any(|variant| {
            let known = |old: &Arc<Variant>| Arc::ptr_eq(&variant.on_disk, &old.on_disk);
            !before.iter().flat_map(|page| &page.variants).any(known)
        });
        for old in before.iter().flat_map(|page| &page.variants) {
            match now.iter().find(|variant| variant.on_disk.is(&old.on_disk)) {
                // It has other fields now.
                Some(variant) if !Arc::ptr_eq(variant, old) && !variant.same_head(old) => self.write_head(variant),
                Some(_) => {}
                None => self.leave(old),
            }
        }
        if kept {
            for variant in &now {
                variant.on_disk.adopt();
                if let Some(body) = variant.sliced() {
                    body.adopt();
                }
            }
        }
        if came {
            self.weed(key, &now);
        }
        if !kept {
            // What is on disk stays there, and what is not is gone.
            now.iter().filter(|variant| variant.on_disk.entry().is_none()).for_each(|variant| self.leave(variant));
        }
        kept
    }

    /// Takes a variant out of its page, if it is still there.
    pub(crate) fn forget_variant(&self, key: &PageKey, variant: &Arc<Variant>) {
        let has_it = |page: &Page| page.variants.iter().any(|stored| Arc::ptr_eq(stored, variant));
        if self.page(key).is_some_and(|page| has_it(&page)) {
            self.change_page(key, |page| page.variants.retain(|stored| !Arc::ptr_eq(stored, variant)));
        }
    }

    /// Takes every variant with this body out of its page.
    pub(crate) fn forget_body(&self, key: &PageKey, body: &Arc<Sliced>) {
        let has_it = |variant: &Arc<Variant>| variant.sliced().is_some_and(|other| Arc::ptr_eq(other, body));
        if self.page(key).is_some_and(|page| page.variants.iter().any(has_it)) {
            self.change_page(key, |page| page.variants.retain(|variant| !has_it(variant)));
        }
    }

    /// Memory has evicted a page: what only it led to goes with it.
    pub(crate) fn page_evicted(&self, page: &Page) {
        for variant in &page.variants {
            if let Some(body) = variant.sliced() {
                if variant.on_disk.entry().is_none() {
                    body.let_go();
                }
                self.drop_slices(body);
            }
        }
    }

    /// Removes entries on disk that the page does not know and that its variants replace: older ones, which would come back
    /// when memory forgets the newer.
    fn weed(&self, key: &PageKey, now: &[Arc<Variant>]) {
        let Some(tier) = &self.disk else { return };
        let (hash, on_disk) = key.on_disk();
        let known: Vec<EntryId> = now.iter().filter_map(|variant| variant.on_disk.entry()).collect();
        let unknown: Vec<EntryId> = tier.disk.find(hash).into_iter().filter(|entry| !known.contains(entry)).collect();
        if unknown.is_empty() {
            return;
        }
        let now = now.to_vec();
        tier.surely(move |disk| {
            for entry in unknown {
                let Ok(head) = disk.head(entry) else { continue };
                let Some(old) = thaw(&head, entry, None).filter(|_| head.key == on_disk) else { continue };
                let newer = |variant: &Arc<Variant>| variant.replaces(&old) && variant.answered_ms > old.answered_ms;
                if now.iter().any(newer) {
                    disk.remove(entry);
                }
            }
        });
    }

    /// What has left its page leaves the tiers.
    fn leave(&self, variant: &Variant) {
        if let Some(body) = variant.sliced() {
            body.let_go();
            self.drop_slices(body);
        }
        self.leave_place(&variant.on_disk);
    }

    /// What lies at a place on disk leaves it.
    pub(crate) fn leave_place(&self, place: &OnDisk) {
        if let (Some(tier), Some(entry)) = (&self.disk, place.leave()) {
            tier.surely(move |disk| {
                disk.remove(entry);
            });
        }
    }

    /// A response has come that may be stored: the second time that its key is asked for, it is brought to disk.
    pub(crate) fn offer(self: &Arc<Self>, key: &PageKey, variant: &Arc<Variant>) {
        if let Some(tier) = &self.disk
            && tier.seen_before(key.on_disk().0)
        {
            self.bring_to_disk(key, variant);
        }
    }

    /// Brings a variant to disk that has been asked for again, unless it is there or on its way.
    pub(crate) fn bring_to_disk(self: &Arc<Self>, key: &PageKey, variant: &Arc<Variant>) {
        let Some(tier) = &self.disk else { return };
        if matches!(variant.content, Content::Growing(_)) {
            tier.seen_before(key.on_disk().0); // it is offered when it has come, and this is the second time that it is asked for
            return;
        }
        if !variant.can_be_frozen() || !variant.on_disk.claim() {
            return;
        }
        let bytes = if variant.sliced().is_some() { 1 } else { variant.weight() };
        let (node, key, moved) = (Arc::clone(self), key.clone(), Arc::clone(variant));
        let queued = tier.try_later(bytes, move |disk| {
            match write(&node, disk, &key, &moved) {
                Ok(entry) if moved.on_disk.came(entry) => {
                    node.metrics.disk_admitted.inc();
                    if let Some(body) = moved.sliced() {
                        node.move_slices(disk, entry, body);
                    }
                    // It may have got other fields while it was written.
                    let now = node.page(&key).and_then(|page| {
                        page.variants.iter().find(|other| Arc::ptr_eq(&other.on_disk, &moved.on_disk)).cloned()
                    });
                    if let Some(now) = now.filter(|now| !Arc::ptr_eq(now, &moved)) {
                        node.write_head(&now);
                    }
                }
                Ok(entry) => {
                    disk.remove(entry); // it has been forgotten meanwhile
                }
                Err(error) => {
                    tracing::debug!(url = key.shown(), %error, "not written to disk");
                    node.metrics.disk_not_admitted.inc();
                    moved.on_disk.refused();
                }
            }
        });
        if !queued {
            self.metrics.disk_not_admitted.inc();
            variant.on_disk.refused();
        }
    }

    /// An entry on disk gets the fields that its variant has now; where they do not fit in place, it leaves the disk.
    fn write_head(&self, variant: &Arc<Variant>) {
        let (Some(tier), Some(entry), Some(ice)) = (&self.disk, variant.on_disk.entry(), freeze(variant)) else {
            return;
        };
        let place = Arc::clone(&variant.on_disk);
        tier.surely(move |disk| {
            let Ice { meta, stamp, expires_s } = ice;
            if let Err(error) = disk.replace_meta(entry, meta, stamp, expires_s) {
                tracing::debug!(%error, "the head of an entry on disk is not brought up to date: it is dropped");
                // What it says of itself is not true any more, so that it must not be found again.
                disk.remove(entry);
                place.lost(entry);
            }
        });
    }

    /// Brings the slices that are in memory to the entry that was made for them.
    fn move_slices(&self, disk: &Disk, entry: EntryId, body: &Sliced) {
        for index in body.leave_memory() {
            let (Some(bytes), Ok(number)) = (self.peek_slice(&body.key(index)), u32::try_from(index)) else { continue };
            match disk.write_slice(entry, number, &[bytes]) {
                Ok(()) => {
                    body.written(index);
                    self.drop_slice(&body.key(index));
                }
                Err(error) => {
                    tracing::debug!(index, %error, "a slice is not written to disk");
                    body.still_in_memory(index);
                }
            }
        }
    }

    /// Makes an entry on disk for a body that has begun to come and cannot be asked for in parts: memory may not hold it.
    pub(crate) async fn make_room_on_disk(self: &Arc<Self>, key: &PageKey, variant: &Arc<Variant>) -> bool {
        let (Some(tier), true) = (&self.disk, variant.on_disk.claim()) else { return false };
        let (node, key, made) = (Arc::clone(self), key.clone(), Arc::clone(variant));
        let entry = tier.blocking(move |disk| write(&node, disk, &key, &made)).await;
        match entry {
            Some(Ok(entry)) => {
                self.metrics.disk_admitted.inc();
                variant.on_disk.came(entry)
            }
            _ => {
                self.metrics.disk_not_admitted.inc();
                variant.on_disk.refused();
                false
            }
        }
    }
}

impl Variant {
    /// Whether it can be kept on disk: all of its body is here, or can be had.
    fn can_be_frozen(&self) -> bool {
        match &self.content {
            Content::Growing(_) => false,
            Content::Parts(_) => self.whole(),
            Content::Sliced(_) => true,
        }
    }
}

/// Writes a variant; of a body in slices, only the head.
fn write(node: &Node, disk: &Disk, key: &PageKey, variant: &Variant) -> Result<EntryId, WriteError> {
    // A purge that came meanwhile is found when it is read; this spares the writing.
    if node.verdict_on_variant(key, variant) == Verdict::Hard {
        return Err(WriteError::Gone);
    }
    let (key_hash, key) = key.on_disk();
    let Some(Ice { meta, stamp, expires_s }) = freeze(variant) else { return Err(WriteError::Gone) };
    let new = New { key_hash, key, meta, stamp, expires_s };
    match &variant.content {
        Content::Growing(_) => Err(WriteError::Gone),
        Content::Sliced(body) => disk.create(&new, Some(body.length), body.length),
        Content::Parts(parts) => {
            let pieces = parts.first().map(|part| part.pieces.as_slice()).unwrap_or_default();
            let length = parts.first().map_or(0, Part::length);
            if length <= shelf::disk::SLICE_BYTES {
                return disk.write(&new, pieces);
            }
            let entry = disk.create(&new, Some(length), length)?;
            let mut number = 0;
            let written = slices_of(pieces).try_for_each(|slice| {
                number += 1;
                disk.write_slice(entry, number - 1, &slice)
            });
            written.map(|()| entry).inspect_err(|_| {
                disk.remove(entry);
            })
        }
    }
}

/// A body cut into slices, each in pieces.
pub(crate) fn slices_of(pieces: &[Bytes]) -> impl Iterator<Item = Vec<Bytes>> {
    let mut rest = pieces.iter().cloned();
    let mut begun: Option<Bytes> = None;
    std::iter::from_fn(move || {
        let (mut slice, mut room) = (Vec::new(), usize::try_from(shelf::disk::SLICE_BYTES).unwrap_or(usize::MAX));
        while room > 0 {
            let Some(mut piece) = begun.take().or_else(|| rest.next()) else { break };
            let taken = piece.split_to(room.min(piece.len()));
            room -= taken.len();
            slice.push(taken);
            begun = Some(piece).filter(|piece| !piece.is_empty());
        }
        (!slice.is_empty()).then_some(slice)
    })
}

/// The variants of a key that lie on disk, newest first. What cannot be read is not there. `used`: that is a use of them, and
/// older ones are removed.
fn load(disk: &Disk, entries: &[EntryId], key: &Bytes, used: bool) -> Vec<Arc<Variant>> {
    let mut variants: Vec<Arc<Variant>> = Vec::new();
    for entry in entries {
        let Ok(head) = disk.head(*entry) else { continue };
        if head.key != *key {
            continue; // another key with the same hash
        }
        let present = if head.complete { None } else { disk.present(*entry).ok() };
        if !head.complete && present.is_none() {
            continue;
        }
        let Some(variant) = thaw(&head, *entry, present.as_ref()) else {
            continue; // of a form that this program does not read
        };
        let outdated = variants.iter().any(|newer| newer.replaces(&variant));
        if used && outdated {
            disk.remove(*entry);
        } else if used {
            disk.touch(*entry);
        }
        if !outdated {
            variants.push(variant);
        }
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_cut_into_slices_wherever_their_pieces_end() {
        let slice = usize::try_from(shelf::disk::SLICE_BYTES).expect("small");
        for lengths in
            [vec![], vec![10], vec![slice], vec![slice + 1], vec![7, slice, slice - 7, 2 * slice + 3], vec![0, 5]]
        {
            let pieces: Vec<Bytes> = lengths.iter().map(|length| Bytes::from(vec![7; *length])).collect();
            let total: usize = lengths.iter().sum();
            let cut: Vec<usize> = slices_of(&pieces).map(|slice| slice.iter().map(Bytes::len).sum()).collect();
            assert_eq!(cut.iter().sum::<usize>(), total, "{lengths:?}");
            assert!(cut.iter().rev().skip(1).all(|length| *length == slice), "{lengths:?}: {cut:?}");
        }
    }
}

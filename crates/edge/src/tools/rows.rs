//! What is stored as a row of a listing: variants and files, in memory and on disk.

use api::cache::{CacheDetails, CacheEntry, CacheState, CacheTier, MAX_SLICE_RANGES};
use http::header;
use http_cache::Freshness;
use shelf::disk::{Disk, Head as DiskHead, KeyHash, Present, Summary};

use crate::head::Head;
use crate::node::{BodyId, FileKey, HeadKey, Node};
use crate::pull::sliced::Sliced;
use crate::pull::stored::{Content, PageKey, Variant};
use crate::pull::{as_text, thaw};
use crate::purges::Verdict;
use crate::shelved::thaw_for_tools;

/// A key as texts show it.
pub(super) fn key_text(key: KeyHash) -> String {
    format!("{:032x}", key.0)
}

/// A variant in memory. `bytes`: what of it counts there.
pub(super) fn variant(node: &Node, key: &PageKey, variant: &Variant, with_details: bool) -> CacheEntry {
    let mut entry = of_variant(node, key, variant, with_details);
    entry.bytes = variant.weight();
    if let (Some(details), Some(body)) = (&mut entry.details, variant.sliced()) {
        details.present = ranges(body.slices(), |index| body.has(node, index));
    }
    entry.complete = match variant.sliced() {
        Some(body) => (0..body.slices()).all(|index| body.has(node, index)),
        None => variant.whole() && !matches!(variant.content, Content::Growing(_)),
    };
    entry
}

/// An entry on disk.
pub(super) fn on_disk(
    node: &Node,
    one: &Summary,
    head: &DiskHead,
    present: Option<&Present>,
    with_details: bool,
) -> CacheEntry {
    let key = PageKey::from_disk(&head.key);
    let variant = key.as_ref().zip(thaw(head, one.id, present));
    let of_file = || HeadKey::from_disk(&head.key).zip(thaw_for_tools(head, one.id));
    let shelved = if variant.is_none() { of_file() } else { None };
    let mut entry = match (&variant, &shelved) {
        (Some((key, variant)), _) => of_variant(node, key, variant, with_details),
        (None, Some((key, head))) => {
            let mut entry = file(node, key, head, with_details);
            entry.tier = CacheTier::Disk;
            entry.key = key_text(one.key_hash);
            (entry.bytes, entry.complete) = (one.bytes, node.is_shelved(head.digest));
            if let Some(details) = &mut entry.details {
                (details.folder, details.uses) = (Some(one.folder), Some(one.uses));
            }
            return entry;
        }
        // The body of a file, which has its own entry, or something of a form that this program does not read.
        (None, None) => CacheEntry {
            tier: CacheTier::Disk,
            key: String::new(),
            zone: String::new(),
            url: String::from_utf8_lossy(&head.key).replace('\0', " "),
            status: 0,
            media_type: None,
            length: one.length,
            bytes: 0,
            complete: false,
            tags: Vec::new(),
            stored_ms: one.stored_ms,
            age_s: node.now_ms().saturating_sub(one.stored_ms) / 1_000,
            state: CacheState::Unsure,
            details: with_details.then(CacheDetails::default),
        },
    };
    entry.tier = CacheTier::Disk;
    entry.key = key_text(one.key_hash);
    (entry.bytes, entry.complete) = (one.bytes, one.complete);
    if let Some(details) = &mut entry.details {
        (details.folder, details.uses) = (Some(one.folder), Some(one.uses));
        let slices = one.length.unwrap_or(0).div_ceil(api::SLICE_BYTES);
        details.slices = Some(slices);
        let is_there =
            |index| present.is_none_or(|present| u32::try_from(index).is_ok_and(|number| present.contains(number)));
        details.present = ranges(slices, is_there);
    }
    entry
}

/// Which slices of an entry are there, where not all are. Blocks.
pub(super) fn present(disk: &Disk, one: &Summary) -> Option<Present> {
    if one.complete { None } else { Some(disk.present(one.id).unwrap_or_default()) }
}

fn of_variant(node: &Node, key: &PageKey, variant: &Variant, with_details: bool) -> CacheEntry {
    let now_ms = node.now_ms();
    let age_s = variant.age_s(now_ms);
    let times = variant.terms.storable;
    let media_type = variant.fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let (fields, selected_by) = if with_details { as_text(variant, text) } else { Default::default() };
    let details = || CacheDetails {
        fields,
        selected_by,
        lifetime_s: times.lifetime_s,
        stale_while_revalidate_s: times.stale_while_revalidate_s,
        stale_if_error_s: times.stale_if_error_s,
        began_event: variant.began.event,
        began_local: variant.began.local,
        slices: variant.sliced().map(|body: &std::sync::Arc<Sliced>| body.slices()),
        useless_from_s: variant.useless_from_s(),
        ..CacheDetails::default()
    };
    CacheEntry {
        tier: CacheTier::Memory,
        key: key_text(key.on_disk().0),
        zone: key.zone.to_string(),
        url: key.url.to_string(),
        status: variant.status.as_u16(),
        media_type: media_type.map(str::to_owned),
        length: variant.length,
        bytes: 0,
        complete: false,
        tags: variant.tags.clone(),
        stored_ms: variant.answered_ms,
        age_s,
        state: if is_outdated(node, key) {
            CacheState::Outdated
        } else {
            state(node.verdict_on_variant(key, variant), times.at(age_s))
        },
        details: with_details.then(details),
    }
}

/// A file in memory.
pub(super) fn file(node: &Node, key: &HeadKey, head: &Head, with_details: bool) -> CacheEntry {
    let age_s = head.age_s(node.now_ms());
    let slices = api::slices::slice_count(head.size);
    let details = || CacheDetails {
        fields: [
            ("content-type", Some(&head.media_type)),
            ("etag", Some(&head.etag)),
            ("cache-control", head.cache_control.as_ref()),
            ("last-modified", head.last_modified.as_ref()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), text(value?.as_bytes()))))
        .collect(),
        lifetime_s: head.storable.map_or(0, |storable| storable.lifetime_s),
        stale_while_revalidate_s: head.storable.map_or(0, |storable| storable.stale_while_revalidate_s),
        stale_if_error_s: head.storable.map_or(0, |storable| storable.stale_if_error_s),
        began_event: head.began,
        began_local: head.local,
        slices: Some(slices),
        present: ranges(slices, |index| node.has_slice(&(BodyId::File(head.digest), index))),
        ..CacheDetails::default()
    };
    let fresh = head.storable.map(|storable| storable.at(age_s));
    let stale = Freshness::Stale { by_s: 0, while_revalidate: false, if_error: false };
    CacheEntry {
        tier: CacheTier::Memory,
        key: key_text(key.on_disk().0),
        zone: head.zone.to_string(),
        url: match &key.file {
            FileKey::Path(..) => format!("/{}", head.path.as_str().trim_start_matches('/')),
            FileKey::Id(id) => format!("id:{id}"),
        },
        status: 200,
        media_type: head.media_type.to_str().ok().map(str::to_owned),
        length: Some(head.size),
        bytes: head.weight(),
        complete: (0..slices).all(|index| node.has_slice(&(BodyId::File(head.digest), index))),
        tags: head.tags.clone(),
        stored_ms: head.fetched_ms,
        age_s,
        state: if key.era == node.marks.era() {
            state(node.verdict_on(head), fresh.unwrap_or(stale))
        } else {
            CacheState::Outdated
        },
        details: with_details.then(details),
    }
}

/// Whether nobody can ask for it any more: it is of another catalog, or its zone has another policy now, or is gone.
fn is_outdated(node: &Node, key: &PageKey) -> bool {
    let fingerprint = node.view().and_then(|view| view.pulls.get(&key.zone).map(|zone| zone.fingerprint));
    key.era != node.marks.era() || fingerprint != Some(key.fingerprint)
}

fn state(verdict: Verdict, freshness: Freshness) -> CacheState {
    match (verdict, freshness) {
        (Verdict::Hard, _) => CacheState::Purged,
        (Verdict::Soft, _) => CacheState::SoftPurged,
        (Verdict::Unknown, _) => CacheState::Unsure,
        (Verdict::Clean, Freshness::Fresh { .. }) => CacheState::Fresh,
        (Verdict::Clean, Freshness::Stale { .. }) => CacheState::Stale,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The numbers below `count` that are there, as ranges with both ends.
fn ranges(count: u64, is_there: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for index in (0..count).filter(|index| is_there(*index)) {
        let full = ranges.len() == MAX_SLICE_RANGES;
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ if full => break,
            _ => ranges.push((index, index)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_told_as_ranges() {
        let of = |there: &[u64]| ranges(10, |index| there.contains(&index));
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[0, 1, 2, 5, 8, 9]), [(0, 2), (5, 5), (8, 9)]);
        let odd = ranges(10 * MAX_SLICE_RANGES as u64, |index| index % 2 == 1);
        assert_eq!((odd.len(), odd.last()), (MAX_SLICE_RANGES, Some(&(1_999, 1_999))));
    }

    #[test]
    fn a_purge_outweighs_freshness() {
        let fresh = Freshness::Fresh { ttl_s: 1 };
        let stale = Freshness::Stale { by_s: 1, while_revalidate: true, if_error: true };
        for (verdict, freshness, expected) in [
            (Verdict::Clean, fresh, CacheState::Fresh),
            (Verdict::Clean, stale, CacheState::Stale),
            (Verdict::Soft, fresh, CacheState::SoftPurged),
            (Verdict::Unknown, fresh, CacheState::Unsure),
            (Verdict::Hard, stale, CacheState::Purged),
        ] {
            assert_eq!(state(verdict, freshness), expected);
        }
    }
}

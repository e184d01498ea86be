//! What goes through everything that is stored, a step at a time: listing, showing, evicting.
//!
//! Memory comes first, then disk. A cursor says where to go on: in memory a step of slots and how many rows of it were
//! given already, on disk a place in the index. Each answer looks at no more than [`MAX_STEPS`] steps of memory and
//! [`DISK_STEP`] entries on disk, whose heads have to be read to know what they are.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use api::addressing::request_host;
use api::cache::{CacheEntry, CacheEvict, CacheEvicted, CachePage, CacheQuery, CacheTier, MAX_CACHE_PAGE};
use api::{ExplainRequest, Problem};
use shelf::disk::{Disk, EntryId, KeyHash, Summary};

use crate::head::Head;
use crate::node::{FileKey, HeadKey, Held, Node};
use crate::pull::stored::{Page, PageKey, Variant};
use crate::pull::{self, Asked};
use crate::shelved::remove_body_of;
use crate::sweep::remove;
use crate::tools::filter::{Filter, key_of};
use crate::tools::{ending, invalid, rows};

/// Steps of memory that one answer looks at, at most.
const MAX_STEPS: usize = 64;
/// Entries on disk that one answer looks at, at most.
const DISK_STEP: usize = 500;

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    Memory { step: shelf::Cursor, skip: usize },
    Disk(shelf::disk::Cursor),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { step, skip } => write!(f, "m.{}.{skip}", step.to_number()),
            Self::Disk(cursor) => write!(f, "d.{}.{}", cursor.folder, cursor.slot),
        }
    }
}

impl FromStr for Cursor {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let read = || {
            let mut parts = text.splitn(3, '.');
            let (tier, first, second) = (parts.next()?, parts.next()?, parts.next()?);
            match tier {
                "m" => {
                    let step = shelf::Cursor::from_number(first.parse().ok()?);
                    Some(Self::Memory { step, skip: second.parse().ok()? })
                }
                "d" => {
                    Some(Self::Disk(shelf::disk::Cursor { folder: first.parse().ok()?, slot: second.parse().ok()? }))
                }
                _ => None,
            }
        };
        read().ok_or_else(|| invalid(format!("{text:?} is not a cursor; take it from `next` of the answer before")))
    }
}

impl Cursor {
    fn begin(node: &Node, filter: &Filter) -> Option<Self> {
        if filter.takes(CacheTier::Memory) {
            Some(Self::Memory { step: shelf::Cursor::default(), skip: 0 })
        } else {
            Self::after_memory(node, filter)
        }
    }

    fn after_memory(node: &Node, filter: &Filter) -> Option<Self> {
        (node.disk.is_some() && filter.takes(CacheTier::Disk)).then(|| Self::Disk(shelf::disk::Cursor::default()))
    }
}

/// What a walk has found.
struct Found {
    entry: CacheEntry,
    place: Place,
}

/// Where it was found.
enum Place {
    Page(PageKey, Arc<Page>, Arc<Variant>),
    File(HeadKey, Arc<Head>),
    Disk(EntryId, Option<PageKey>, Option<HeadKey>),
}

/// Entries for which the filter holds, at most `limit` of them, and where to go on. Without a limit, all of a step of memory
/// is taken, so that whatever is done with it does not move what comes next.
async fn walk(
    node: &Arc<Node>,
    filter: &Filter,
    from: Option<Cursor>,
    limit: Option<usize>,
) -> Result<(Vec<Found>, Option<Cursor>), Problem> {
    let now_ms = node.now_ms();
    let (mut found, mut at) = (Vec::new(), from);
    for _ in 0..MAX_STEPS {
        let Some(Cursor::Memory { step, skip }) = at else { break };
        let most = limit.map_or(usize::MAX, |limit| limit - found.len());
        let (held, next) = node.held(step);
        let rows = held.into_iter().flat_map(|held| in_memory(node, held)).filter(|one| filter.has(&one.entry, now_ms));
        let mut rows: Vec<Found> = rows.skip(skip).take(most.saturating_add(1)).collect();
        if rows.len() > most {
            rows.truncate(most);
            found.extend(rows);
            return Ok((found, Some(Cursor::Memory { step, skip: skip + most })));
        }
        found.extend(rows);
        at = match next {
            Some(step) => Some(Cursor::Memory { step, skip: 0 }),
            None => Cursor::after_memory(node, filter),
        };
        if limit.is_none() && found.len() >= MAX_CACHE_PAGE as usize {
            return Ok((found, at));
        }
        tokio::task::yield_now().await;
    }
    let room = limit.unwrap_or(MAX_CACHE_PAGE as usize).saturating_sub(found.len());
    if let (Some(Cursor::Disk(cursor)), Some(tier), true) = (at, &node.disk, room > 0) {
        let reader = Arc::clone(node);
        tier.recalled().await;
        let step = tier.blocking(move |disk| {
            let (page, next) = disk.list(cursor, DISK_STEP.min(room));
            (page.iter().filter_map(|one| on_disk(&reader, disk, one, false)).collect::<Vec<_>>(), next)
        });
        let (page, next) = step.await.ok_or_else(ending)?;
        found.extend(page.into_iter().filter(|one| filter.has(&one.entry, now_ms)));
        at = next.map(Cursor::Disk);
    }
    Ok((found, at))
}

fn in_memory(node: &Node, held: Held) -> Vec<Found> {
    match held {
        Held::Page(key, page) => {
            let row = |variant: &Arc<Variant>| Found {
                entry: rows::variant(node, &key, variant, false),
                place: Place::Page(key.clone(), Arc::clone(&page), Arc::clone(variant)),
            };
            page.variants.iter().map(row).collect()
        }
        Held::File(key, head) => {
            vec![Found { entry: rows::file(node, &key, &head, false), place: Place::File(key, head) }]
        }
    }
}

/// Reads the head of an entry; blocks. What is gone meanwhile, or cannot be read, is left out.
fn on_disk(node: &Node, disk: &Disk, one: &Summary, with_details: bool) -> Option<Found> {
    let head = disk.head(one.id).ok()?;
    let present = if with_details { rows::present(disk, one) } else { None };
    let entry = rows::on_disk(node, one, &head, present.as_ref(), with_details);
    Some(Found { entry, place: Place::Disk(one.id, PageKey::from_disk(&head.key), HeadKey::from_disk(&head.key)) })
}

/// A page of a listing.
pub(super) async fn list(node: &Arc<Node>, query: CacheQuery) -> Result<CachePage, Problem> {
    if !(1..=MAX_CACHE_PAGE).contains(&query.limit) {
        return Err(invalid(format!("limit: {} is not from 1 to {MAX_CACHE_PAGE}", query.limit)));
    }
    let filter = Filter::new(query.filter, node.view().as_deref())?;
    let from = match query.cursor {
        Some(cursor) => Some(cursor.parse()?),
        None => Cursor::begin(node, &filter),
    };
    let (found, next) = walk(node, &filter, from, Some(query.limit as usize)).await?;
    let entries = found.into_iter().map(|found| found.entry).collect();
    Ok(CachePage { entries, next: next.map(|cursor| cursor.to_string()) })
}

/// What a tool means with a URL.
enum Meant {
    Page(PageKey),
    File(HeadKey),
}

impl Meant {
    /// What a plain GET of a URL would look for.
    fn by(node: &Node, url: &str) -> Result<Self, Problem> {
        let view = node.view().ok_or_else(|| invalid("this edge has no configuration yet"))?;
        let what =
            ExplainRequest { url: url.to_owned(), method: "GET".to_owned(), headers: Vec::new(), client_ip: None };
        let parts = pull::imagined(&what, None)?;
        let host = request_host(&parts.uri, &parts.headers);
        let zone = view.zones.by_host(host);
        match zone.and_then(|zone| view.pulls.get(&zone.name)) {
            Some(zone) => Ok(Self::Page(node.page_key(zone, &Asked::read(zone, &parts, false, &node.pull.id)?))),
            None => Ok(Self::File(node.head_key(FileKey::of(&view.zones.target(host, parts.uri.path())?)))),
        }
    }

    fn hash(&self) -> KeyHash {
        match self {
            Self::Page(key) => key.on_disk().0,
            Self::File(key) => key.on_disk().0,
        }
    }

    fn rows(&self, node: &Node) -> Vec<CacheEntry> {
        match self {
            Self::Page(key) => {
                let row = |variant: &Arc<Variant>| rows::variant(node, key, variant, true);
                node.page(key).map(|page| page.variants.iter().map(row).collect()).unwrap_or_default()
            }
            Self::File(key) => node.head(key).map(|head| rows::file(node, key, &head, true)).into_iter().collect(),
        }
    }
}

/// Everything under one key, with details.
pub(super) async fn show(node: &Arc<Node>, what: &str) -> Result<CachePage, Problem> {
    let (hash, meant) = match key_of(what) {
        Some(hash) => (hash, search(node, hash).await),
        None => {
            let meant = Meant::by(node, what)?;
            (meant.hash(), Some(meant))
        }
    };
    let mut entries = meant.map(|meant| meant.rows(node)).unwrap_or_default();
    if let Some(tier) = &node.disk {
        let reader = Arc::clone(node);
        let read = tier.blocking(move |disk| {
            let summaries = disk.find(hash).into_iter().filter_map(|id| disk.summary(id));
            summaries.filter_map(|one| Some(on_disk(&reader, disk, &one, true)?.entry)).collect::<Vec<_>>()
        });
        entries.extend(read.await.ok_or_else(ending)?);
    }
    Ok(CachePage { entries, next: None })
}

/// What memory has under a key. There is no index by it, so everything is looked at.
async fn search(node: &Node, hash: KeyHash) -> Option<Meant> {
    let mut at = Some(shelf::Cursor::default());
    while let Some(step) = at {
        let (held, next) = node.held(step);
        let mut meant = held.into_iter().map(|held| match held {
            Held::Page(key, _) => Meant::Page(key),
            Held::File(key, _) => Meant::File(key),
        });
        if let Some(meant) = meant.find(|meant| meant.hash() == hash) {
            return Some(meant);
        }
        at = next;
        tokio::task::yield_now().await;
    }
    None
}

/// Lets entries leave the tiers, a step of them.
pub(super) async fn evict(node: &Arc<Node>, what: CacheEvict) -> Result<CacheEvicted, Problem> {
    if what.filter.is_everything() && !what.all {
        return Err(invalid("the filter leaves nothing out; if everything is meant, say `\"all\": true`"));
    }
    let (only, everything) = (what.filter.tier, what.filter.is_everything());
    let filter = Filter::new(what.filter, node.view().as_deref())?;
    let from = match what.cursor {
        Some(cursor) => Some(cursor.parse()?),
        None => Cursor::begin(node, &filter),
    };
    let (found, next) = walk(node, &filter, from, None).await?;
    let done = CacheEvicted {
        entries: found.len() as u64,
        bytes: found.iter().map(|one| one.entry.bytes).sum(),
        next: next.map(|cursor| cursor.to_string()),
    };
    if what.count {
        return Ok(done);
    }
    let mut on_disk = Vec::new();
    for one in found {
        match one.place {
            Place::Page(key, page, _) if only == Some(CacheTier::Memory) => node.evict_page(&key, &page),
            Place::Page(key, _, variant) => node.forget_variant(&key, &variant),
            Place::File(key, head) if only == Some(CacheTier::Memory) => node.evict_file(&key, &head),
            Place::File(key, head) => node.forget_file(&key, &head),
            Place::Disk(id, page, file) => on_disk.push((id, page, file)),
        }
    }
    let memory_is_done = |cursor: &Option<Cursor>| !matches!(cursor, Some(Cursor::Memory { .. }));
    if everything && memory_is_done(&next) && !memory_is_done(&from) {
        node.drop_all_slices();
    }
    if let (Some(tier), false) = (&node.disk, on_disk.is_empty()) {
        let at = Arc::clone(node);
        let removed = tier.blocking(move |disk| {
            for (id, page, file) in on_disk {
                if file.is_some() {
                    remove_body_of(disk, id);
                }
                remove(&at, disk, id, page.as_ref(), file.as_ref());
            }
        });
        removed.await.ok_or_else(ending)?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let step = shelf::Cursor::from_number(3 << 32 | 2_048);
        for cursor in
            [Cursor::Memory { step, skip: 7 }, Cursor::Disk(shelf::disk::Cursor { folder: 2, slot: u32::MAX })]
        {
            assert_eq!(cursor.to_string().parse::<Cursor>().expect("cursor"), cursor);
        }
        for wrong in ["", "m", "m.1", "x.1.2", "d.65536.1", "d.1.4294967296", "m.-1.2", "m.1.2.3"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }
}

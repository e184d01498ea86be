//! What has been purged, as numbers: the heart of «no stale after purge».
//!
//! Every event that names something leaves a *mark*: the number of the newest event for that URL, id, prefix, tag or
//! zone. What is stored carries the number of the newest event that was applied when its fetch began. A lookup compares
//! the two: no scan, and right for whatever is still in flight when the event arrives.
//!
//! Marks are kept under a 64-bit hash of what they name, with a random key of this process. Two names with one hash
//! would share a mark, which can only purge too much, never too little.
//!
//! The table is bounded ([`MAX_MARKS`]). When it is full the oldest mark is dropped and the *floor* rises to its number:
//! whatever was fetched before the floor is revalidated before its next use, because nobody can tell any more whether it
//! was purged. So nothing wrong is served, at the price of a conditional request.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use api::names::{FileId, FilePath, Tag, ZoneName};
use api::{Change, FileRef, PurgeTargets};

/// Marks that are kept: about 12 MiB.
pub const MAX_MARKS: usize = 250_000;

/// What a stored thing is known under.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Its zone and where it lies in it, where known.
    pub at: Option<(&'a ZoneName, At<'a>)>,
    /// Its id, where known.
    pub id: Option<FileId>,
    /// Its tags.
    pub tags: &'a [Tag],
}

/// Where in its zone something lies.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// A file of a store zone.
    File(&'a FilePath),
    /// A URL of a pull zone: `host/path?query`.
    Page(&'a str),
}

/// Whether something stored may still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing has named it since.
    Clean,
    /// A soft purge named it: revalidate; it may be served stale while the origin is away.
    Soft,
    /// It is older than the floor: revalidate; not to be served before that.
    Unknown,
    /// A purge, update or deletion named it: forget it.
    Hard,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    hard: u64,
    soft: u64,
}

impl Mark {
    fn newest(self) -> u64 {
        self.hard.max(self.soft)
    }
    fn max(self, other: Mark) -> Mark {
        Mark { hard: self.hard.max(other.hard), soft: self.soft.max(other.soft) }
    }
}

/// The kinds of names, so that a path and a tag of the same text do not share a mark.
#[derive(Hash)]
enum Name<'a> {
    Url(&'a str, &'a str),
    Page(&'a str, &'a str),
    Host(&'a str, &'a str),
    Id(FileId),
    Prefix(&'a str, &'a str),
    Tag(Option<&'a str>, &'a str),
    Zone(&'a str),
}

/// The marks of one edge.
pub struct Purges {
    hasher: RandomState,
    marks: HashMap<u64, Mark>,
    /// Every mark once, about in order, for dropping the oldest: its hash, and its number when it was put there.
    order: VecDeque<(u64, u64)>,
    /// The lengths of prefixes to look for.
    prefix_lengths: BTreeSet<usize>,
    floor: u64,
    capacity: usize,
}

impl Default for Purges {
    fn default() -> Self {
        Self::with_capacity(MAX_MARKS)
    }
}

impl Purges {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            marks: HashMap::new(),
            order: VecDeque::new(),
            prefix_lengths: BTreeSet::new(),
            floor: 0,
            capacity,
        }
    }

    /// Whatever was fetched before event `number` is to be revalidated: for an edge that cannot know what it missed.
    pub fn raise_floor(&mut self, number: u64) {
        self.floor = self.floor.max(number);
    }

    /// Applies event `number`.
    pub fn apply(&mut self, number: u64, change: &Change) {
        match change {
            Change::FileUpdated(file) | Change::FileDeleted(file) => self.mark_file(number, file),
            Change::FileMoved { file, old_path } => {
                self.mark_file(number, file);
                self.mark(number, false, &Name::Url(file.zone.as_str(), old_path.as_str()));
            }
            Change::Purge(targets) => self.mark_targets(number, targets),
            Change::Config { .. } => {}
        }
    }

    fn mark_file(&mut self, number: u64, file: &FileRef) {
        self.mark(number, false, &Name::Url(file.zone.as_str(), file.path.as_str()));
        self.mark(number, false, &Name::Id(file.id));
    }

    fn mark_targets(&mut self, number: u64, targets: &PurgeTargets) {
        let soft = targets.soft;
        for url in &targets.urls {
            self.mark(number, soft, &Name::Url(url.zone.as_str(), url.path.as_str()));
        }
        for page in &targets.pages {
            self.mark(number, soft, &Name::Page(page.zone.as_str(), &page.url));
        }
        for host in &targets.hosts {
            self.mark(number, soft, &Name::Host(host.zone.as_str(), &host.host));
        }
        for id in &targets.ids {
            self.mark(number, soft, &Name::Id(*id));
        }
        for prefix in &targets.prefixes {
            self.prefix_lengths.insert(prefix.prefix.len());
            self.mark(number, soft, &Name::Prefix(prefix.zone.as_str(), &prefix.prefix));
        }
        for tag in &targets.tags {
            self.mark(number, soft, &Name::Tag(tag.zone.as_ref().map(ZoneName::as_str), tag.tag.as_str()));
        }
        for zone in &targets.zones {
            self.mark(number, soft, &Name::Zone(zone.as_str()));
        }
    }

    fn mark(&mut self, number: u64, soft: bool, name: &Name<'_>) {
        let hash = self.hasher.hash_one(name);
        let is_new = !self.marks.contains_key(&hash);
        let mark = self.marks.entry(hash).or_default();
        *mark = mark.max(if soft { Mark { hard: 0, soft: number } } else { Mark { hard: number, soft: 0 } });
        if is_new {
            self.order.push_back((hash, number));
        }
        while self.order.len() > self.capacity {
            let Some((hash, number)) = self.order.pop_front() else { break };
            match self.marks.get(&hash).map(|mark| mark.newest()) {
                // Renewed since: it is not the oldest any more. Each such line is younger after this, so this ends.
                Some(newest) if newest > number => self.order.push_back((hash, newest)),
                newest => {
                    self.marks.remove(&hash);
                    self.raise_floor(newest.unwrap_or(number));
                }
            }
        }
    }

    /// The marks of everything that `identity` is known under.
    fn marks_of(&self, identity: Identity<'_>) -> Mark {
        let mark = |name: Name<'_>| self.marks.get(&self.hasher.hash_one(&name)).copied().unwrap_or_default();
        let mut newest = identity.id.map(|id| mark(Name::Id(id))).unwrap_or_default();
        let zone = identity.at.map(|(zone, _)| zone.as_str());
        if let Some((zone, at)) = identity.at {
            let zone = zone.as_str();
            newest = newest.max(mark(Name::Zone(zone)));
            newest = newest.max(match at {
                At::File(path) => mark(Name::Url(zone, path.as_str())).max(self.prefixes_of(zone, path.as_str())),
                At::Page(url) => {
                    // A prefix may begin with a host, or with the path at any host.
                    let (host, path) = url.split_at_checked(url.find('/').unwrap_or(url.len())).unwrap_or((url, ""));
                    let named = mark(Name::Page(zone, url)).max(mark(Name::Host(zone, host)));
                    named.max(self.prefixes_of(zone, url)).max(self.prefixes_of(zone, path))
                }
            });
        }
        for tag in identity.tags {
            newest = newest.max(mark(Name::Tag(None, tag.as_str())));
            if zone.is_some() {
                newest = newest.max(mark(Name::Tag(zone, tag.as_str())));
            }
        }
        newest
    }

    /// The marks of every prefix of `text`.
    fn prefixes_of(&self, zone: &str, text: &str) -> Mark {
        let mut newest = Mark::default();
        for length in &self.prefix_lengths {
            // A length inside a character is no prefix of this text; beyond its end, neither are all that follow.
            if *length > text.len() {
                break;
            }
            if let Some(prefix) = text.get(..*length) {
                let hash = self.hasher.hash_one(Name::Prefix(zone, prefix));
                newest = newest.max(self.marks.get(&hash).copied().unwrap_or_default());
            }
        }
        newest
    }

    /// Whether what was fetched from event number `began` on, and is known under `identity`, may be used.
    pub fn verdict(&self, identity: Identity<'_>, began: u64) -> Verdict {
        let mark = self.marks_of(identity);
        if mark.hard > began {
            Verdict::Hard
        } else if self.floor > began {
            Verdict::Unknown
        } else if mark.soft > began {
            Verdict::Soft
        } else {
            Verdict::Clean
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{ZonePath, ZonePrefix, ZoneTag};

    fn zone(name: &str) -> ZoneName {
        name.parse().expect(name)
    }
    fn path(text: &str) -> FilePath {
        text.parse().expect(text)
    }

    fn verdict(purges: &Purges, at: &str, tags: &[&str], began: u64) -> Verdict {
        let (zone_name, text) = at.split_once(':').expect("zone:path");
        let (zone_name, text) = (zone(zone_name), path(text));
        let tags: Vec<Tag> = tags.iter().map(|t| t.parse().expect("tag")).collect();
        purges.verdict(Identity { at: Some((&zone_name, At::File(&text))), id: None, tags: &tags }, began)
    }

    fn purge(targets: PurgeTargets) -> Change {
        Change::Purge(targets)
    }

    #[test]
    fn each_kind_of_purge_hits_what_it_names_and_nothing_else() {
        let targets: [(PurgeTargets, &[&str], &[&str]); 6] = [
            (
                PurgeTargets { urls: vec![ZonePath { zone: zone("a"), path: path("x/y") }], ..Default::default() },
                &["a:x/y"],
                &["a:x/yz", "b:x/y", "a:x"],
            ),
            (
                PurgeTargets {
                    prefixes: vec![ZonePrefix { zone: zone("a"), prefix: "x/".into() }],
                    ..Default::default()
                },
                &["a:x/y", "a:x/z/q"],
                &["a:xy", "b:x/y", "a:x"],
            ),
            (
                PurgeTargets {
                    prefixes: vec![ZonePrefix { zone: zone("a"), prefix: String::new() }],
                    ..Default::default()
                },
                &["a:x/y", "a:q"],
                &["b:x/y"],
            ),
            (
                // Two bytes of a three-byte character: not a prefix of any path, and no reason to panic.
                PurgeTargets {
                    prefixes: vec![ZonePrefix { zone: zone("a"), prefix: "ab".into() }],
                    ..Default::default()
                },
                &["a:ab日"],
                &["a:日本"],
            ),
            (PurgeTargets { zones: vec![zone("a")], ..Default::default() }, &["a:x"], &["b:x"]),
            (PurgeTargets::default(), &[], &["a:x"]),
        ];
        for (targets, hit, missed) in targets {
            for soft in [false, true] {
                let mut purges = Purges::default();
                purges.apply(5, &purge(PurgeTargets { soft, ..targets.clone() }));
                for at in hit {
                    let expected = if soft { Verdict::Soft } else { Verdict::Hard };
                    assert_eq!(verdict(&purges, at, &[], 4), expected, "{at} {targets:?}");
                    assert_eq!(verdict(&purges, at, &[], 5), Verdict::Clean, "{at} {targets:?}");
                }
                for at in missed {
                    assert_eq!(verdict(&purges, at, &[], 4), Verdict::Clean, "{at} {targets:?}");
                }
            }
        }
    }

    #[test]
    fn pages_of_a_pull_zone() {
        let page = |url: &str| api::ZonePage { zone: zone("a"), url: url.to_owned() };
        let host = |host: &str| api::ZoneHost { zone: zone("a"), host: host.to_owned() };
        let prefix = |prefix: &str| ZonePrefix { zone: zone("a"), prefix: prefix.to_owned() };
        for (targets, hit) in [
            (PurgeTargets { pages: vec![page("h/x?q")], ..Default::default() }, "h/x?q"),
            (PurgeTargets { hosts: vec![host("h")], ..Default::default() }, "h/x?q h/x h/ h/y"),
            (PurgeTargets { prefixes: vec![prefix("/x")], ..Default::default() }, "h/x?q h/x g/x"),
            (PurgeTargets { prefixes: vec![prefix("h/x")], ..Default::default() }, "h/x?q h/x"),
            (PurgeTargets { prefixes: vec![prefix("")], ..Default::default() }, "h/x?q h/x g/x h/ h/y"),
            (PurgeTargets { zones: vec![zone("a")], ..Default::default() }, "h/x?q h/x g/x h/ h/y"),
        ] {
            let mut purges = Purges::default();
            purges.apply(5, &purge(targets.clone()));
            for url in ["h/x?q", "h/x", "g/x", "h/", "h/y"] {
                let zone = zone("a");
                let verdict = purges.verdict(Identity { at: Some((&zone, At::Page(url))), id: None, tags: &[] }, 4);
                let expected = hit.split(' ').any(|hit| hit == url);
                assert_eq!(verdict == Verdict::Hard, expected, "{url} {targets:?}");
            }
        }
    }

    #[test]
    fn tags_in_one_zone_or_in_all() {
        let mut purges = Purges::default();
        let tag =
            |zone_name: Option<&str>, tag: &str| ZoneTag { zone: zone_name.map(zone), tag: tag.parse().expect("tag") };
        purges.apply(3, &purge(PurgeTargets { tags: vec![tag(None, "t"), tag(Some("a"), "u")], ..Default::default() }));
        assert_eq!(verdict(&purges, "a:x", &["s", "t"], 2), Verdict::Hard);
        assert_eq!(verdict(&purges, "b:x", &["t"], 2), Verdict::Hard);
        assert_eq!(verdict(&purges, "a:x", &["u"], 2), Verdict::Hard);
        assert_eq!(verdict(&purges, "b:x", &["u"], 2), Verdict::Clean);
        assert_eq!(verdict(&purges, "a:t", &[], 2), Verdict::Clean);
    }

    #[test]
    fn files_are_named_by_path_old_path_and_id() {
        let file = FileRef {
            zone: zone("a"),
            path: path("new"),
            id: "019a9f3e-0000-7000-8000-000000000000".parse().expect("id"),
            version: 1,
            digest: api::Digest([0; 32]),
            size: 0,
        };
        let id = file.id;
        let mut purges = Purges::default();
        purges.apply(9, &Change::FileMoved { file, old_path: path("old") });
        assert_eq!(verdict(&purges, "a:new", &[], 8), Verdict::Hard);
        assert_eq!(verdict(&purges, "a:old", &[], 8), Verdict::Hard);
        assert_eq!(purges.verdict(Identity { at: None, id: Some(id), tags: &[] }, 8), Verdict::Hard);
        assert_eq!(purges.verdict(Identity { at: None, id: Some(id), tags: &[] }, 9), Verdict::Clean);
    }

    #[test]
    fn a_full_table_forgets_marks_but_never_that_something_was_purged() {
        let mut purges = Purges::with_capacity(3);
        for number in 1..=4 {
            let target = ZonePath { zone: zone("a"), path: path(&format!("p{number}")) };
            purges.apply(number, &purge(PurgeTargets { urls: vec![target], ..Default::default() }));
        }
        assert_eq!((purges.marks.len(), purges.order.len(), purges.floor), (3, 3, 1));
        assert_eq!(verdict(&purges, "a:p1", &[], 0), Verdict::Unknown);
        assert_eq!(verdict(&purges, "a:other", &[], 0), Verdict::Unknown);
        assert_eq!(verdict(&purges, "a:p4", &[], 3), Verdict::Hard);
        assert_eq!(verdict(&purges, "a:p1", &[], 1), Verdict::Clean);
    }

    #[test]
    fn the_same_purge_again_and_again_costs_nothing_else_its_freshness() {
        let mut purges = Purges::with_capacity(3);
        for number in 1..=100 {
            let target = ZonePath { zone: zone("a"), path: path("p") };
            purges.apply(number, &purge(PurgeTargets { urls: vec![target], ..Default::default() }));
        }
        assert_eq!((purges.marks.len(), purges.order.len(), purges.floor), (1, 1, 0));
        assert_eq!(verdict(&purges, "a:other", &[], 0), Verdict::Clean);
        assert_eq!(verdict(&purges, "a:p", &[], 99), Verdict::Hard);
    }

    proptest::proptest! {
        /// Whatever the order and the capacity: what a purge named after the fetch began is never clean.
        #[test]
        fn never_clean_after_a_purge(purged in proptest::collection::vec((0_u8..6, proptest::bool::ANY), 1..60), capacity in 1_usize..8) {
            let mut purges = Purges::with_capacity(capacity);
            let mut newest: HashMap<u8, u64> = HashMap::new();
            for (number, (which, soft)) in (1_u64..).zip(purged) {
                let target = ZonePath { zone: zone("a"), path: path(&format!("p{which}")) };
                purges.apply(number, &purge(PurgeTargets { urls: vec![target], soft, ..Default::default() }));
                newest.insert(which, number);
                for (which, last) in &newest {
                    let at = format!("a:p{which}");
                    proptest::prop_assert_ne!(verdict(&purges, &at, &[], last - 1), Verdict::Clean);
                    proptest::prop_assert_eq!(verdict(&purges, &at, &[], number), Verdict::Clean);
                }
            }
        }
    }
}

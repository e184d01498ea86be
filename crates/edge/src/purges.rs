//! What has been purged, as numbers: the heart of «no stale after purge».
//!
//! Every event that names something leaves a *mark*: the number of the newest event for that URL, id, prefix, tag or
//! zone. What is stored carries the number of the newest event that was applied when its fetch began. A lookup compares
//! the two: no scan, and right for whatever is still in flight when the event arrives.
//!
//! Marks are kept under a 64-bit hash of what they name: SipHash-1-3 with a random key that is kept with the marks, over
//! bytes that are laid down here, so that a mark still means the same after a restart, by another build. Two names with
//! one hash would share a mark, which can only purge too much, never too little.
//!
//! The table is bounded ([`MAX_MARKS`]). When it is full the oldest mark is dropped and the *floor* rises to its number:
//! whatever was fetched before the floor is revalidated before its next use, because nobody can tell any more whether it
//! was purged. So nothing wrong is served, at the price of a conditional request.
//!
//! How marks outlive the process is in [`crate::marks`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hasher as _;

use api::names::{FileId, FilePath, Tag, ZoneName};
use api::{Change, FileRef, PurgeTargets};
use siphasher::sip::SipHasher13;

/// Marks that are kept: about 12 MiB.
pub(crate) const MAX_MARKS: usize = 250_000;

/// What a stored thing is known under.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    /// Its zone and where it lies in it, where known.
    pub(crate) at: Option<(&'a ZoneName, At<'a>)>,
    /// Its id, where known.
    pub(crate) id: Option<FileId>,
    /// Its tags.
    pub(crate) tags: &'a [Tag],
}

/// Where in its zone something lies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At<'a> {
    /// A file of a store zone.
    File(&'a FilePath),
    /// A URL of a pull zone: `host/path?query`.
    Page(&'a str),
}

/// Whether something stored may still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
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

/// A name as a mark is kept under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) hash: u64,
    /// Stale instead of gone.
    pub(crate) soft: bool,
    /// It is a prefix, of so many bytes.
    pub(crate) prefix_length: Option<u32>,
}

/// The kinds of names, so that a path and a tag of the same text do not share a mark.
enum Name<'a> {
    Url(&'a str, &'a str),
    Page(&'a str, &'a str),
    Host(&'a str, &'a str),
    Id(FileId),
    Prefix(&'a str, &'a str),
    Tag(Option<&'a str>, &'a str),
    Zone(&'a str),
}

/// Turns names into hashes. Cloning shares the key.
#[derive(Clone, Copy)]
pub(crate) struct Names(SipHasher13);

impl Names {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(key))
    }

    /// Everything that a change names.
    pub(crate) fn of(&self, change: &Change) -> Vec<Named> {
        match change {
            Change::FileUpdated(file) | Change::FileDeleted(file) => self.of_file(file).to_vec(),
            Change::FileMoved { file, old_path } => {
                let mut named = self.of_file(file).to_vec();
                named.push(self.named(false, &Name::Url(file.zone.as_str(), old_path.as_str())));
                named
            }
            Change::Purge(targets) => self.of_targets(targets),
            Change::Config { .. } => Vec::new(),
        }
    }

    fn of_file(&self, file: &FileRef) -> [Named; 2] {
        let path = Name::Url(file.zone.as_str(), file.path.as_str());
        [self.named(false, &path), self.named(false, &Name::Id(file.id))]
    }

    fn of_targets(&self, targets: &PurgeTargets) -> Vec<Named> {
        let urls = targets.urls.iter().map(|url| Name::Url(url.zone.as_str(), url.path.as_str()));
        let pages = targets.pages.iter().map(|page| Name::Page(page.zone.as_str(), &page.url));
        let hosts = targets.hosts.iter().map(|host| Name::Host(host.zone.as_str(), &host.host));
        let ids = targets.ids.iter().map(|id| Name::Id(*id));
        let prefixes = targets.prefixes.iter().map(|prefix| Name::Prefix(prefix.zone.as_str(), &prefix.prefix));
        let tags = targets.tags.iter().map(|tag| Name::Tag(tag.zone.as_ref().map(ZoneName::as_str), tag.tag.as_str()));
        let zones = targets.zones.iter().map(|zone| Name::Zone(zone.as_str()));
        let all = urls.chain(pages).chain(hosts).chain(ids).chain(prefixes).chain(tags).chain(zones);
        all.map(|name| self.named(targets.soft, &name)).collect()
    }

    fn named(&self, soft: bool, name: &Name<'_>) -> Named {
        let prefix_length = match name {
            Name::Prefix(_, prefix) => Some(u32::try_from(prefix.len()).unwrap_or(u32::MAX)),
            _ => None,
        };
        Named { hash: self.hash(name), soft, prefix_length }
    }

    /// The bytes that are hashed: the number of the kind, the length of the first text (four bytes, little-endian) where
    /// there are two, and the texts. These numbers stay as they are: marks on disk were made with them.
    fn hash(&self, name: &Name<'_>) -> u64 {
        let mut hasher = self.0;
        let mut pair = |kind: u8, first: &str, second: &str| {
            hasher.write(&[kind]);
            hasher.write(&u32::try_from(first.len()).unwrap_or(u32::MAX).to_le_bytes());
            hasher.write(first.as_bytes());
            hasher.write(second.as_bytes());
        };
        match name {
            Name::Url(zone, path) => pair(1, zone, path),
            Name::Page(zone, url) => pair(2, zone, url),
            Name::Host(zone, host) => pair(3, zone, host),
            Name::Prefix(zone, prefix) => pair(4, zone, prefix),
            Name::Tag(Some(zone), tag) => pair(5, zone, tag),
            Name::Tag(None, tag) => pair(6, "", tag),
            Name::Zone(zone) => pair(7, zone, ""),
            Name::Id(id) => {
                hasher.write(&[8]);
                hasher.write(id.0.as_bytes());
            }
        }
        hasher.finish()
    }
}

/// The marks of one edge, of one series of numbers.
pub(crate) struct Purges {
    names: Names,
    marks: HashMap<u64, Mark>,
    /// Every mark once, about in order, for dropping the oldest: its hash, and its number when it was put there.
    order: VecDeque<(u64, u64)>,
    /// The lengths of prefixes to look for.
    prefix_lengths: BTreeSet<usize>,
    floor: u64,
    capacity: usize,
}

impl Purges {
    /// None yet. `capacity`: marks that are kept.
    pub(crate) fn new(names: Names, capacity: usize) -> Self {
        Self {
            names,
            marks: HashMap::new(),
            order: VecDeque::new(),
            prefix_lengths: BTreeSet::new(),
            floor: 0,
            capacity,
        }
    }

    /// Marks that are kept.
    pub(crate) fn len(&self) -> usize {
        self.marks.len()
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn prefix_lengths(&self) -> impl ExactSizeIterator<Item = u32> {
        self.prefix_lengths.iter().map(|length| u32::try_from(*length).unwrap_or(u32::MAX))
    }

    /// Every mark: its hash, and the newest numbers of what is gone and of what is stale.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.marks.iter().map(|(hash, mark)| (*hash, mark.hard, mark.soft))
    }

    /// The table that [`Self::floor`], [`Self::prefix_lengths`] and [`Self::marks`] were read from.
    pub(crate) fn restored(
        names: Names,
        capacity: usize,
        floor: u64,
        prefix_lengths: &[u32],
        mut marks: Vec<(u64, u64, u64)>,
    ) -> Self {
        let mut purges = Self::new(names, capacity);
        purges.floor = floor;
        purges.prefix_lengths = prefix_lengths.iter().filter_map(|length| usize::try_from(*length).ok()).collect();
        purges.marks.reserve(marks.len().min(capacity));
        marks.sort_unstable_by_key(|(_, hard, soft)| *hard.max(soft));
        for (hash, hard, soft) in marks {
            purges.put(hash, Mark { hard, soft });
        }
        purges
    }

    /// Whatever was fetched before event `number` is to be revalidated: for an edge that cannot know what it missed.
    pub(crate) fn raise_floor(&mut self, number: u64) {
        self.floor = self.floor.max(number);
    }

    /// Applies what event `number` names. Doing so again, in the same order, changes nothing.
    pub(crate) fn apply(&mut self, number: u64, named: &[Named]) {
        for Named { hash, soft, prefix_length } in named {
            self.prefix_lengths.extend(prefix_length.and_then(|length| usize::try_from(length).ok()));
            let mark = if *soft { Mark { hard: 0, soft: number } } else { Mark { hard: number, soft: 0 } };
            // Below the floor it could only say again that nobody may trust what is older.
            if number > self.floor {
                self.put(*hash, mark);
            }
        }
    }

    fn put(&mut self, hash: u64, new: Mark) {
        let is_new = !self.marks.contains_key(&hash);
        let mark = self.marks.entry(hash).or_default();
        *mark = mark.max(new);
        if is_new {
            self.order.push_back((hash, new.newest()));
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
        let mark = |name: Name<'_>| self.marks.get(&self.names.hash(&name)).copied().unwrap_or_default();
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
                let hash = self.names.hash(&Name::Prefix(zone, prefix));
                newest = newest.max(self.marks.get(&hash).copied().unwrap_or_default());
            }
        }
        newest
    }

    /// Whether what was fetched from event number `began` on, and is known under `identity`, may be used.
    pub(crate) fn verdict(&self, identity: Identity<'_>, began: u64) -> Verdict {
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

    /// The table and its names at once.
    struct Table(Purges);

    impl Table {
        fn of(capacity: usize) -> Self {
            Self(Purges::new(Names::new(b"a key of 16 byte"), capacity))
        }
        fn apply(&mut self, number: u64, change: &Change) {
            let named = self.0.names.of(change);
            self.0.apply(number, &named);
        }
    }

    fn zone(name: &str) -> ZoneName {
        name.parse().expect(name)
    }
    fn path(text: &str) -> FilePath {
        text.parse().expect(text)
    }

    fn verdict(purges: &Table, at: &str, tags: &[&str], began: u64) -> Verdict {
        let (zone_name, text) = at.split_once(':').expect("zone:path");
        let (zone_name, text) = (zone(zone_name), path(text));
        let tags: Vec<Tag> = tags.iter().map(|t| t.parse().expect("tag")).collect();
        purges.0.verdict(Identity { at: Some((&zone_name, At::File(&text))), id: None, tags: &tags }, began)
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
                let mut purges = Table::of(MAX_MARKS);
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
            let mut purges = Table::of(MAX_MARKS);
            purges.apply(5, &purge(targets.clone()));
            for url in ["h/x?q", "h/x", "g/x", "h/", "h/y"] {
                let zone = zone("a");
                let verdict = purges.0.verdict(Identity { at: Some((&zone, At::Page(url))), id: None, tags: &[] }, 4);
                let expected = hit.split(' ').any(|hit| hit == url);
                assert_eq!(verdict == Verdict::Hard, expected, "{url} {targets:?}");
            }
        }
    }

    #[test]
    fn tags_in_one_zone_or_in_all() {
        let mut purges = Table::of(MAX_MARKS);
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
        let mut purges = Table::of(MAX_MARKS);
        purges.apply(9, &Change::FileMoved { file, old_path: path("old") });
        assert_eq!(verdict(&purges, "a:new", &[], 8), Verdict::Hard);
        assert_eq!(verdict(&purges, "a:old", &[], 8), Verdict::Hard);
        assert_eq!(purges.0.verdict(Identity { at: None, id: Some(id), tags: &[] }, 8), Verdict::Hard);
        assert_eq!(purges.0.verdict(Identity { at: None, id: Some(id), tags: &[] }, 9), Verdict::Clean);
    }

    #[test]
    fn a_full_table_forgets_marks_but_never_that_something_was_purged() {
        let mut purges = Table::of(3);
        for number in 1..=4 {
            let target = ZonePath { zone: zone("a"), path: path(&format!("p{number}")) };
            purges.apply(number, &purge(PurgeTargets { urls: vec![target], ..Default::default() }));
        }
        assert_eq!((purges.0.marks.len(), purges.0.order.len(), purges.0.floor), (3, 3, 1));
        assert_eq!(verdict(&purges, "a:p1", &[], 0), Verdict::Unknown);
        assert_eq!(verdict(&purges, "a:other", &[], 0), Verdict::Unknown);
        assert_eq!(verdict(&purges, "a:p4", &[], 3), Verdict::Hard);
        assert_eq!(verdict(&purges, "a:p1", &[], 1), Verdict::Clean);
    }

    #[test]
    fn the_same_purge_again_and_again_costs_nothing_else_its_freshness() {
        let mut purges = Table::of(3);
        for number in 1..=100 {
            let target = ZonePath { zone: zone("a"), path: path("p") };
            purges.apply(number, &purge(PurgeTargets { urls: vec![target], ..Default::default() }));
        }
        assert_eq!((purges.0.marks.len(), purges.0.order.len(), purges.0.floor), (1, 1, 0));
        assert_eq!(verdict(&purges, "a:other", &[], 0), Verdict::Clean);
        assert_eq!(verdict(&purges, "a:p", &[], 99), Verdict::Hard);
    }

    proptest::proptest! {
        /// Whatever the order and the capacity: what a purge named after the fetch began is never clean.
        #[test]
        fn never_clean_after_a_purge(purged in proptest::collection::vec((0_u8..6, proptest::bool::ANY), 1..60), capacity in 1_usize..8) {
            let mut purges = Table::of(capacity);
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

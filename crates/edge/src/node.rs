//! The state that all requests of an edge share: configuration, what is stored, what was purged, what is in flight.
//!
//! Nothing is awaited under a lock. One is taken under another only in this order: flights or a page's lock, then the marks,
//! the store or the placements. The number of the newest applied event is published *after* its marks are in [`Marks`], so
//! that whoever reads number N sees the marks of N.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use api::addressing::{Target, Zones};
use api::names::{Digest, FileId, FilePath, ZoneName};
use api::node::{Placement, Placements, Snapshot};
use api::{Event, NodeDoc, PurgeTargets, SLICE_BYTES, TokenHash, TokenSecret};
use bytes::Bytes;
use client::Client;
use http_cache::Coding;
use net::{HttpClient, ServerLimits};
use pages::Pool;
use shelf::{Class, Counters, Curve, Memory, PolicyChoice};
use tokio::sync::{Semaphore, watch};

use crate::Clock;
use crate::access_log::AccessLog;
use crate::classes::Classes;
use crate::disk::DiskTier;
use crate::fetch::{FetchError, Fetched};
use crate::flights::Flights;
use crate::head::Head;
use crate::marks::{Began, Marks};
use crate::metrics::NodeMetrics;
use crate::pull::sliced::Sliced;
use crate::pull::stored::{Page, PageKey, Variant};
use crate::pull::zone::{PullZone, PullZones};
use crate::pull::{Asked, PullState};
use crate::purges::{At, Identity, Verdict};
use crate::sweep::Sweeps;
use crate::tools::ToolsState;

/// Fetches from the origin at once; further ones wait.
pub(crate) const MAX_FETCHES: usize = 256;
/// Bytes of slices that may be on their way in at once. Together with what readers hold, and what is being compressed
/// (`pull/packed.rs`), this is what an edge uses beyond its memory tier.
pub(crate) const MAX_INCOMING_BYTES: usize = 24 << 20;
/// Of the memory tier's size, the share that bodies of pull zones may take beyond it on their way in: one in so many.
const INCOMING_SHARE: u64 = 4;
/// Placement changes kept for the next report; beyond it changes are dropped, which costs a longer way for somebody.
const MAX_PENDING_PLACEMENTS: usize = 50_000;
/// What a page needs beside a body, in bytes, in what fits into the store.
const PAGE_OVERHEAD_BYTES: u64 = 128 << 10;
/// What the heap keeps of a key, in bytes, on average.
const KEY_HEAP_BYTES: u64 = 64;

/// What a response takes beside its body, in bytes, about: in the estimate of what other sizes would hit.
const CURVE_OVERHEAD_BYTES: u64 = 1 << 10;

/// Which file, however it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum FileKey {
    Path(ZoneName, FilePath),
    Id(FileId),
}

impl FileKey {
    pub(crate) fn of(target: &Target) -> Self {
        match target {
            Target::Path { zone, path } => Self::Path(zone.name.clone(), path.clone()),
            Target::Id { id, .. } => Self::Id(*id),
        }
    }

    fn identity(&self) -> Identity<'_> {
        match self {
            Self::Path(zone, path) => Identity { at: Some((zone, At::File(path))), id: None, tags: &[] },
            Self::Id(id) => Identity { at: None, id: Some(*id), tags: &[] },
        }
    }
}

/// A file in one era. The era changes when event numbers begin anew (another catalog), so that nothing that was
/// numbered in the old one is ever found again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HeadKey {
    pub(crate) era: u64,
    pub(crate) file: FileKey,
}

/// What the slices of a body are stored under. No two versions share one, so a slice can never be another version's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum BodyId {
    /// A file's: its digest.
    File(Digest),
    /// A compressed form of a file: the file's digest.
    Form(Digest, Coding),
    /// A response's: a random number.
    Page(u128),
}

/// A slice of a body.
pub(crate) type SliceKey = (BodyId, u64);

/// Keys of the memory tier.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Head(HeadKey),
    Slice(SliceKey),
    Page(PageKey),
}

#[derive(Clone)]
enum Item {
    Head(Arc<Head>),
    /// There is no such file: until then, and fetched from that event on.
    Absent {
        until_ms: u64,
        began: u64,
    },
    Slice(Bytes),
    Page(Arc<Page>),
}

/// Something in memory that tools can name.
pub(crate) enum Held {
    Page(PageKey, Arc<Page>),
    File(HeadKey, Arc<Head>),
}

/// Where a page was when a request for it came.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    pub(crate) in_memory: bool,
    pub(crate) on_disk: bool,
    /// The second-hit filter of the disk lets it through.
    pub(crate) seen: bool,
}

/// Memory in numbers.
pub(crate) struct MemoryNow {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) counters: Counters,
}

impl Item {
    /// From which second on it is of no use, not even stale.
    fn useless_from_s(&self) -> Option<u32> {
        match self {
            Self::Head(head) => head.useless_from_s(),
            Self::Absent { until_ms, .. } => u32::try_from(until_ms / 1_000 + 1).ok(),
            Self::Slice(_) => None,
            Self::Page(page) => page.useless_from_s(),
        }
    }
}

/// What the store has for a file.
pub(crate) enum Lookup {
    Nothing,
    Fresh(Arc<Head>),
    /// To be asked about before it is used. `if_error`: it may be served if nobody can be asked.
    Stale {
        head: Arc<Head>,
        if_error: bool,
    },
    Absent,
}

/// How the edge stands with control's event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// The stream is not open. What is stored is served: nothing stops because control is away.
    Away,
    /// Control answers again, and there are events to be applied before stored bytes count as fresh.
    CatchingUp,
    /// Every event is applied as it comes.
    Live,
}

/// The configuration as requests need it.
pub(crate) struct View {
    /// Counts the configurations of this edge.
    pub(crate) number: u64,
    pub(crate) snapshot: Snapshot,
    pub(crate) zones: Zones,
    pub(crate) pulls: PullZones,
    readers: HashMap<TokenHash, Option<u64>>,
}

impl View {
    /// `before`: the one in use, whose connections to origins are taken over. Second come the pull zones whose stored
    /// responses mean nothing any more.
    fn new(snapshot: Snapshot, before: Option<&View>) -> (Self, Vec<ZoneName>) {
        let zones = Zones::new(&snapshot.zones);
        let (pulls, outdated) = PullZones::new(&snapshot.zones, before.map(|view| &view.pulls));
        let readers = snapshot.readers.iter().map(|reader| (reader.hash.clone(), reader.expires_ms)).collect();
        let number = before.map_or(0, |before| before.number) + 1;
        (Self { number, snapshot, zones, pulls, readers }, outdated)
    }

    /// Whether a token may read private zones now.
    pub(crate) fn may_read(&self, token: &TokenSecret, now_ms: u64) -> bool {
        self.readers.get(&token.hash()).is_some_and(|expires| expires.is_none_or(|at| at > now_ms))
    }
}

/// What an edge is, with or without control.
pub(crate) struct NodeConfig {
    pub(crate) node: NodeDoc,
    pub(crate) memory_bytes: u64,
    pub(crate) policy: PolicyChoice,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) limits: ServerLimits,
    pub(crate) clock: Clock,
}

/// The way to control.
pub(crate) struct Control {
    pub(crate) client: Client,
    pub(crate) token: TokenSecret,
}

/// Edges made in this process.
static NODES: AtomicU64 = AtomicU64::new(0);

/// A page's key, ready to look for it in memory.
pub(crate) struct StoredAs {
    key: Key,
    hash: u64,
    /// Where it was found the last time, and what; it keeps the page's place, and so its address, but nothing of it.
    found: Option<(u32, Weak<Page>)>,
}

impl StoredAs {
    pub(crate) fn key(&self) -> Option<&PageKey> {
        match &self.key {
            Key::Page(key) => Some(key),
            Key::Head(_) | Key::Slice(_) => None,
        }
    }

    /// Whether what it names may still be found.
    pub(crate) fn in_era(&self, node: &Node) -> bool {
        self.key().is_some_and(|key| key.era == node.marks.era())
    }
}

pub(crate) struct Node {
    pub(crate) config: NodeConfig,
    /// Nothing: this edge stands alone.
    pub(crate) control: Option<Control>,
    pub(crate) origin: HttpClient,
    pub(crate) metrics: NodeMetrics,
    pub(crate) link: watch::Sender<Link>,
    pub(crate) heads: Arc<Flights<HeadKey, Result<Arc<Fetched>, FetchError>>>,
    pub(crate) slices: Arc<Flights<SliceKey, Result<Bytes, FetchError>>>,
    pub(crate) fetches: Arc<Semaphore>,
    pub(crate) incoming: Arc<Semaphore>,
    pub(crate) pull: PullState,
    /// Where large bodies lie in memory.
    pub(crate) pages: Arc<Pool>,
    /// Nothing: there is no disk tier.
    pub(crate) disk: Option<DiskTier>,
    /// Which part of memory a zone's entries go to.
    pub(crate) classes: Classes,
    /// What memory would hit if it had another size.
    pub(crate) curve: Curve,
    pub(crate) tools: ToolsState,
    pub(crate) sweeps: Sweeps,
    view: RwLock<Option<Arc<View>>>,
    /// Of `view`; set after it.
    view_number: AtomicU64,
    /// Tells the edges of a process apart.
    pub(crate) number: u64,
    store: Memory<Key, Item>,
    /// What has been purged.
    pub(crate) marks: Arc<Marks>,
    placements: Mutex<HashMap<FileId, Option<u64>>>,
    /// The newest event that this process may acknowledge: every process that serves as this edge has applied it. 0: none.
    pub(crate) acknowledgeable: watch::Sender<u64>,
    /// Whether the files of its state, and its name with control, were left to another process.
    pub(crate) left: AtomicBool,
    /// Where this edge speaks TLS.
    pub(crate) https_port: OnceLock<u16>,
}

impl Node {
    pub(crate) fn new(
        config: NodeConfig,
        control: Option<Control>,
        origin: HttpClient,
        metrics: NodeMetrics,
        marks: Marks,
        disk: Option<DiskTier>,
    ) -> Self {
        Self {
            marks: Arc::new(marks),
            // For what is stored, and what is on its way in or, evicted, on its way out.
            pages: Pool::new(config.memory_bytes.saturating_add(config.memory_bytes / INCOMING_SHARE)),
            disk,
            store: Memory::with_policy(config.memory_bytes, config.policy),
            classes: Classes::new(config.policy),
            curve: Curve::new(
                config.memory_bytes,
                config.policy,
                Memory::<Key, Item>::ENTRY_BYTES + KEY_HEAP_BYTES + CURVE_OVERHEAD_BYTES,
            ),
            tools: ToolsState::default(),
            https_port: OnceLock::new(),
            sweeps: Sweeps::default(),
            pull: PullState::new(config.memory_bytes / INCOMING_SHARE),
            config,
            control,
            origin,
            metrics,
            link: watch::Sender::new(Link::Away),
            heads: Flights::new(),
            slices: Flights::new(),
            fetches: Arc::new(Semaphore::new(MAX_FETCHES)),
            incoming: Arc::new(Semaphore::new(MAX_INCOMING_BYTES)),
            view: RwLock::new(None),
            view_number: AtomicU64::new(0),
            number: NODES.fetch_add(1, Ordering::Relaxed),
            placements: Mutex::new(HashMap::new()),
            acknowledgeable: watch::Sender::new(u64::MAX),
            left: AtomicBool::new(false),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        (self.config.clock)()
    }

    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up a configuration.
    pub(crate) fn configure(&self, snapshot: Snapshot) {
        let (view, zones) = View::new(snapshot, self.view().as_deref());
        self.classes.configure(&view.snapshot.zones, |choice| self.store.class_for(choice));
        let number = view.number;
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(view));
        self.view_number.store(number, Ordering::Release);
        if !zones.is_empty() {
            self.mark(PurgeTargets { zones, ..PurgeTargets::default() });
        }
    }

    /// Purges here, and returns the number of that.
    pub(crate) fn mark(&self, targets: PurgeTargets) -> u64 {
        let number = self.marks.mark(targets.clone());
        self.sweeps.ask_for(&targets);
        number
    }

    /// Whether there is no control.
    pub(crate) fn standalone(&self) -> bool {
        self.control.is_none()
    }

    pub(crate) fn applied(&self) -> u64 {
        self.marks.applied()
    }

    /// What names the page that a request asks for.
    pub(crate) fn page_key(&self, zone: &PullZone, asked: &Asked) -> PageKey {
        PageKey {
            era: self.marks.era(),
            zone: zone.name.clone(),
            fingerprint: zone.fingerprint,
            url: Arc::clone(&asked.url),
            more: Arc::clone(&asked.more),
        }
    }

    /// What memory has under a key of a pull zone. Not a use of it.
    pub(crate) fn page(&self, key: &PageKey) -> Option<Arc<Page>> {
        match self.store.peek(&Key::Page(key.clone())) {
            Some(Item::Page(page)) => Some(page),
            _ => None,
        }
    }

    /// The same, as a use of it.
    pub(crate) fn use_page(&self, key: &PageKey) -> Option<Arc<Page>> {
        match self.store.get(&Key::Page(key.clone())) {
            Some(Item::Page(page)) => Some(page),
            _ => None,
        }
    }

    /// How a page is looked for in memory.
    pub(crate) fn stored_as(&self, key: PageKey) -> StoredAs {
        let key = Key::Page(key);
        StoredAs { hash: self.store.hash(&key), key, found: None }
    }

    /// [`Self::use_page`].
    pub(crate) fn use_stored(&self, stored_as: &mut StoredAs) -> Option<Arc<Page>> {
        let StoredAs { key, hash, found } = stored_as;
        if let Some((place, before)) = found {
            let same =
                |item: &Item| matches!(item, Item::Page(page) if std::ptr::eq(Arc::as_ptr(page), before.as_ptr()));
            if let Some(Item::Page(page)) = self.store.get_at(*hash, *place, same) {
                return Some(page);
            }
        }
        let (Item::Page(page), place) = self.store.get_placed(*hash, key)? else { return None };
        *found = Some((place, Arc::downgrade(&page)));
        Some(page)
    }

    /// [`Self::count_use`] of what memory had.
    pub(crate) fn count_stored_use(&self, stored_as: &StoredAs, bytes: u64) {
        self.curve.record(stored_as.hash, bytes, true);
    }

    /// The number of the configuration in use.
    pub(crate) fn view_number(&self) -> u64 {
        self.view_number.load(Ordering::Acquire)
    }

    /// Stores a page; called with its lock. False: it does not fit.
    pub(crate) fn keep_page(&self, key: PageKey, page: Page) -> bool {
        let weight = page.weight() + (key.url.len() + key.more.len()) as u64;
        for body in page.variants.iter().filter_map(|variant| variant.sliced()) {
            body.zone.get_or_init(|| key.zone.clone());
        }
        let class = self.classes.of(&key.zone);
        self.keep(Key::Page(key), Item::Page(Arc::new(page)), weight, class)
    }

    /// Counts a request for a page, and where it was when the request came, in the estimates of what other sizes of the
    /// tiers would hit.
    pub(crate) fn count_use(&self, key: &PageKey, variant: &Variant, found: Found) {
        let (hash, bytes) = (self.store.hash(&Key::Page(key.clone())), variant.length.unwrap_or(0));
        self.curve.record(hash, bytes, found.in_memory);
        let Some(tier) = &self.disk else { return };
        // The slices of what is large are read from disk, also where memory has the head.
        let slices_there = bytes > SLICE_BYTES && variant.on_disk.entry().is_some();
        match found {
            _ if found.in_memory && !slices_there => {}
            Found { in_memory: false, on_disk: false, seen: false } => tier.curve.pass(bytes),
            _ => tier.curve.record(hash, bytes, found.on_disk || found.in_memory),
        }
    }

    /// The next entries of memory that are responses or files, for tools, and where to go on.
    pub(crate) fn held(&self, from: shelf::Cursor) -> (Vec<Held>, Option<shelf::Cursor>) {
        let mut held = Vec::new();
        let next = self.store.page(from, |key, item, _| match (key, item) {
            (Key::Page(key), Item::Page(page)) => held.push(Held::Page(key.clone(), Arc::clone(page))),
            (Key::Head(key), Item::Head(head)) => held.push(Held::File(key.clone(), Arc::clone(head))),
            _ => {}
        });
        (held, next)
    }

    /// What memory has of a file. Not a use of it.
    pub(crate) fn head(&self, key: &HeadKey) -> Option<Arc<Head>> {
        match self.store.peek(&Key::Head(key.clone())) {
            Some(Item::Head(head)) => Some(head),
            _ => None,
        }
    }

    /// Memory in numbers.
    pub(crate) fn memory(&self) -> MemoryNow {
        let store = &self.store;
        MemoryNow { entries: store.len() as u64, bytes: store.bytes(), counters: store.counters() }
    }

    /// Takes a page out of memory, as if it had been evicted.
    pub(crate) fn evict_page(&self, key: &PageKey, page: &Arc<Page>) {
        let same = |item: &Item| matches!(item, Item::Page(stored) if Arc::ptr_eq(stored, page));
        if self.store.remove_if(&Key::Page(key.clone()), same).is_some() {
            self.page_evicted(page);
            self.show_size();
        }
    }

    /// Takes a file out of memory, with its slices.
    pub(crate) fn forget_file(&self, key: &HeadKey, head: &Arc<Head>) {
        self.forget(&Key::Head(key.clone()), head);
    }

    /// Takes all slices out of memory, also those that nothing leads to any more, and what is known not to be there.
    pub(crate) fn drop_all_slices(&self) {
        let is_slice = |key: &Key, item: &Item| matches!((key, item), (Key::Slice(_), _) | (_, Item::Absent { .. }));
        self.store.remove_where(|key, item, _| is_slice(key, item), |_, _| {});
        self.show_size();
    }

    /// The largest page that the store takes, in bytes.
    pub(crate) fn most_page_bytes(&self) -> u64 {
        self.store.max_item_bytes().saturating_sub(PAGE_OVERHEAD_BYTES / 2)
    }

    /// The largest body that the store takes, in bytes.
    pub(crate) fn most_body_bytes(&self) -> u64 {
        self.store.max_item_bytes().saturating_sub(PAGE_OVERHEAD_BYTES)
    }

    pub(crate) fn head_key(&self, file: FileKey) -> HeadKey {
        HeadKey { era: self.marks.era(), file }
    }

    /// Begins anew at event `number` of a catalog: nothing stored before is found again.
    pub(crate) fn start_over(&self, catalog_id: &str, number: u64) {
        self.marks.start_over(catalog_id, number);
        self.sweeps.ask();
        self.show_applied();
    }

    /// Continues at event `number` without knowing what happened before: everything is revalidated at its next use.
    pub(crate) fn skip_to(&self, number: u64) {
        self.marks.skip_to(number);
        self.show_applied();
    }

    /// Applies an event. Once this returns, nothing that it names and that was fetched before is served as fresh.
    pub(crate) fn apply(&self, event: &Event) {
        self.marks.apply(event);
        self.sweeps.ask_after(&event.change);
        self.show_applied();
        self.metrics.events.inc();
    }

    pub(crate) fn show_applied(&self) {
        self.metrics.applied_event.set(i64::try_from(self.applied()).unwrap_or(i64::MAX));
    }

    /// Whether no purge that is known yet names this file by what can be known before its head is.
    pub(crate) fn still_good(&self, file: &FileKey, began: u64) -> bool {
        // What is in flight, or that there is nothing, is known to this life only, which began with what is trusted.
        let began = Began { event: began, local: u64::MAX };
        self.marks.verdict_on_file(file.identity(), began) == Verdict::Clean
    }

    /// The verdict on a head, remembered in it until the next event.
    pub(crate) fn verdict_on(&self, head: &Head) -> Verdict {
        let applied = self.applied();
        if head.checked.load(Ordering::Acquire) == applied {
            return Verdict::Clean;
        }
        let began = Began { event: head.began, local: head.local };
        let verdict = self.marks.verdict_on_file(head.identity(), began);
        if verdict == Verdict::Clean {
            // `applied` was read before the marks were, so this never claims more than was looked at.
            head.checked.store(applied, Ordering::Release);
        }
        verdict
    }

    /// What the store has for a file now.
    pub(crate) fn lookup(&self, key: &HeadKey) -> Lookup {
        let store_key = Key::Head(key.clone());
        let now_ms = self.now_ms();
        match self.store.get(&store_key) {
            Some(Item::Absent { until_ms, began }) if now_ms < until_ms && self.still_good(&key.file, began) => {
                Lookup::Absent
            }
            Some(Item::Head(head)) => {
                let (size, found) = (head.size, self.judge(&store_key, head, now_ms));
                if !matches!(found, Lookup::Nothing) {
                    self.curve.record(self.store.hash(&store_key), size, true);
                }
                found
            }
            _ => Lookup::Nothing,
        }
    }

    fn judge(&self, key: &Key, head: Arc<Head>, now_ms: u64) -> Lookup {
        let verdict = self.verdict_on(&head);
        if verdict == Verdict::Hard {
            self.forget(key, &head);
            return Lookup::Nothing;
        }
        let freshness = head.storable.map(|storable| storable.at(head.age_s(now_ms)));
        match (freshness, verdict) {
            (Some(http_cache::Freshness::Fresh { .. }), Verdict::Clean) => Lookup::Fresh(head),
            (Some(http_cache::Freshness::Stale { if_error, .. }), _) => {
                Lookup::Stale { head, if_error: if_error && verdict != Verdict::Unknown }
            }
            (_, verdict) => Lookup::Stale { if_error: verdict == Verdict::Soft, head },
        }
    }

    /// Drops a head and its slices: what nobody will ask for again should not wait to be evicted.
    fn forget(&self, key: &Key, head: &Arc<Head>) {
        let same = |item: &Item| matches!(item, Item::Head(stored) if Arc::ptr_eq(stored, head));
        if self.store.remove_if(key, same).is_some() {
            self.drop_body(head);
            self.remove_file(head, None);
            self.placed(head.id, None);
            self.show_size();
        }
    }

    /// Takes the slices of a file out of memory, and its forms.
    fn drop_body(&self, head: &Head) {
        for index in 0..api::slices::slice_count(head.size) {
            self.drop_slice(&(BodyId::File(head.digest), index));
        }
        for coding in Coding::ALL {
            self.drop_slice(&(BodyId::Form(head.digest, coding), 0));
        }
    }

    /// Takes the head of a file out of memory with its slices there, as if they had been evicted.
    pub(crate) fn evict_file(&self, key: &HeadKey, head: &Arc<Head>) {
        let same = |item: &Item| matches!(item, Item::Head(stored) if Arc::ptr_eq(stored, head));
        if self.store.remove_if(&Key::Head(key.clone()), same).is_some() {
            self.drop_body(head);
            if head.on_disk.entry().is_none() {
                self.placed(head.id, None);
            }
            self.show_size();
        }
    }

    /// Whether anything is known of a file in memory. Not a use of it.
    pub(crate) fn has_head(&self, key: &HeadKey) -> bool {
        self.store.peek(&Key::Head(key.clone())).is_some()
    }

    pub(crate) fn keep_head(&self, key: HeadKey, head: &Arc<Head>) -> bool {
        self.weed_heads(&key, head);
        let class = self.classes.of(&head.zone);
        let key = Key::Head(key);
        if let Some(Item::Head(before)) = self.store.peek(&key) {
            if !before.on_disk.is(&head.on_disk) {
                self.remove_file(&before, Some(head));
            } else if !Arc::ptr_eq(&before, head) {
                self.rewrite_head(head);
            }
        } else {
            let (hash, on_disk) = (self.store.hash(&key), head.on_disk.entry().is_some());
            if !on_disk {
                self.curve.record(hash, head.size, false);
            }
            if let Some(tier) = &self.disk {
                tier.curve.record(hash, head.size, on_disk);
            }
        }
        let kept = self.keep(key, Item::Head(Arc::clone(head)), head.weight(), class);
        if kept {
            self.placed(head.id, Some(head.version));
        }
        kept
    }

    pub(crate) fn keep_absent(&self, key: HeadKey, until_ms: u64, began: u64) {
        self.keep(Key::Head(key), Item::Absent { until_ms, began }, 0, Class::default());
    }

    /// Puts a slice of a body of a zone into memory. False: it is not kept.
    pub(crate) fn keep_slice(&self, zone: Option<&ZoneName>, key: SliceKey, bytes: Bytes) -> bool {
        let bytes = self.pages.own(bytes);
        let weight = bytes.len() as u64;
        let class = zone.map_or(Class::default(), |zone| self.classes.of(zone));
        self.keep(Key::Slice(key), Item::Slice(bytes), weight, class)
    }

    pub(crate) fn stored_slice(&self, key: &SliceKey) -> Option<Bytes> {
        match self.store.get(&Key::Slice(*key)) {
            Some(Item::Slice(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// Takes the slices of a response out of memory.
    pub(crate) fn drop_slices(&self, body: &Sliced) {
        for index in body.leave_memory() {
            self.drop_slice(&body.key(index));
        }
    }

    pub(crate) fn drop_slice(&self, key: &SliceKey) {
        self.store.remove(&Key::Slice(*key));
    }

    /// A slice in memory. Not a use of it.
    pub(crate) fn peek_slice(&self, key: &SliceKey) -> Option<Bytes> {
        match self.store.peek(&Key::Slice(*key)) {
            Some(Item::Slice(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// Whether a slice is stored. Not a use of it.
    pub(crate) fn has_slice(&self, key: &SliceKey) -> bool {
        self.peek_slice(key).is_some()
    }

    fn keep(&self, key: Key, item: Item, weight: u64, class: Class) -> bool {
        self.store.set_now(u32::try_from(self.now_ms() / 1_000).unwrap_or(u32::MAX));
        let useless_from_s = item.useless_from_s();
        let insertion = self.store.insert_in(class, key, item, weight + KEY_HEAP_BYTES, useless_from_s);
        self.show_size();
        let (kept, evicted) = match insertion {
            shelf::Insertion::Stored { evicted, .. } => (true, evicted),
            shelf::Insertion::Refused { evicted, .. } => (false, evicted),
            shelf::Insertion::TooLarge { .. } => return false,
        };
        for (_, item) in evicted {
            match item {
                Item::Head(head) if head.on_disk.entry().is_some() => {}
                Item::Head(head) => self.placed(head.id, None),
                Item::Page(page) => self.page_evicted(&page),
                Item::Absent { .. } | Item::Slice(_) => {}
            }
        }
        kept
    }

    fn show_size(&self) {
        self.metrics.memory_bytes.set(i64::try_from(self.store.bytes()).unwrap_or(i64::MAX));
        self.metrics.entries.set(i64::try_from(self.store.len()).unwrap_or(i64::MAX));
    }

    /// Notes for the next report that a version of a file is held, or that none is any more.
    fn placed(&self, id: FileId, version: Option<u64>) {
        let mut placements = self.placements.lock().unwrap_or_else(PoisonError::into_inner);
        if placements.len() < MAX_PENDING_PLACEMENTS || placements.contains_key(&id) {
            placements.insert(id, version);
        }
    }

    /// Takes the placement changes since the last report, at most as many as one report may carry.
    pub(crate) fn take_placements(&self) -> Placements {
        let mut placements = self.placements.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<FileId> = placements.keys().copied().take(api::node::MAX_PLACEMENTS_PER_REPORT).collect();
        let mut report = Placements::default();
        for id in ids {
            match placements.remove(&id).flatten() {
                Some(version) => report.added.push(Placement { id, version }),
                None => report.removed.push(id),
            }
        }
        report
    }
}

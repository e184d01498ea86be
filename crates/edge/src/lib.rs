//! The edge role: the cache that serves people.
//!
//! A request goes through [`serve`](mod@serve), stage by stage; what is stored, purged and in flight is in [`node`]; [`fetch`] gets
//! what is missing from the origin and proves it; [`reader`] streams it, and [`forms`] compresses it; [`purges`] decides what may still be used, and [`marks`] keeps
//! that across restarts;
//! [`sync`] keeps in step with control; [`tools`] answers who looks after the cache. Zones whose content comes from any HTTP origin are in [`pull`]. Absent on purpose: any knowledge of other edges, and of where clients are.

mod access_log;
mod classes;
mod disk;
mod fetch;
mod flights;
mod forms;
mod head;
mod https;
mod marks;
mod metrics;
mod node;
mod persist;
mod pull;
mod purges;
mod reader;
mod serve;
mod shelved;
mod sweep;
mod sync;
mod tiers_metrics;
mod tools;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::names::{NodeName, Place};
use api::node::{SNAPSHOT_FORMAT, Snapshot};
use api::{Hello, NodeDoc, PurgeTargets, TokenSecret, ZoneDoc};
use bytes::Bytes;
use client::Client;
use http::{Method, Request, Response};
use net::{Body, ClientLimits, Doors, HttpClient, Incoming, ReadyAnswers, ServerLimits};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use access_log::AccessLog;
pub use access_log::AccessLogConfig;
use marks::Marks;
pub use marks::{NotConfirmed, PurgeListener};
pub use metrics::EdgeMetrics;
pub use shelf;
use shelf::PolicyChoice;
use shelf::disk::{Disk, DiskConfig, Faults, FolderConfig, OpenError};

/// A clock: milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Least memory tier, in bytes: below it not even a few slices fit.
pub const MIN_MEMORY_BYTES: u64 = 16 << 20;

/// What an edge needs to know.
#[derive(Clone)]
pub struct EdgeConfig {
    /// Its name, its place, and where others reach it.
    pub node: NodeDoc,
    /// Where control is.
    pub control_url: String,
    /// The token of this node.
    pub token: TokenSecret,
    /// Size of the memory tier in bytes; at least [`MIN_MEMORY_BYTES`].
    pub memory_bytes: u64,
    /// How the tiers are kept.
    pub cache: CacheConfig,
    /// The edge's own folder.
    pub data_dir: PathBuf,
    /// Time between heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// Its access log; nothing: there is none.
    pub access_log: Option<AccessLogConfig>,
    /// Limits of its listener.
    pub limits: ServerLimits,
    /// The time.
    pub clock: Clock,
}

/// What an edge without control needs to know: one that stands in front of one website.
#[derive(Clone)]
pub struct StandaloneConfig {
    /// Its only zone, a pull zone, which takes every host.
    pub zone: ZoneDoc,
    /// What it calls itself, in `Via` and `Cache-Status`.
    pub name: NodeName,
    /// Size of the memory tier in bytes; at least [`MIN_MEMORY_BYTES`].
    pub memory_bytes: u64,
    /// How the tiers are kept.
    pub cache: CacheConfig,
    /// A folder of its own for what it has to know after a restart; nothing: it keeps nothing.
    pub state_dir: Option<PathBuf>,
    /// Its access log; nothing: there is none.
    pub access_log: Option<AccessLogConfig>,
    /// Limits of its listener.
    pub limits: ServerLimits,
    /// The time.
    pub clock: Clock,
}

/// How an edge keeps what it stores.
#[derive(Clone, Default)]
pub struct CacheConfig {
    /// Who leaves when room is needed, where a zone does not say otherwise.
    pub policy: PolicyChoice,
    /// The folders of the disk tier; none: there is no disk tier. What they hold means nothing without the folder of the
    /// edge's state, and is asked about then.
    pub folders: Vec<FolderConfig>,
    /// Faults of the file system, for tests.
    pub faults: Arc<Faults>,
}

impl CacheConfig {
    fn open(&self, clock: &Clock) -> Result<Option<disk::DiskTier>, EdgeError> {
        if self.folders.is_empty() {
            return Ok(None);
        }
        let (folders, faults) = (self.folders.clone(), Arc::clone(&self.faults));
        let disk = Disk::open(DiskConfig { folders, choice: self.policy, clock: Arc::clone(clock), faults })?;
        disk::DiskTier::new(disk, self.policy).map(Some).map_err(|error| EdgeError::Thread { error })
    }
}

/// Why an edge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// Its folder cannot be used.
    #[error("cannot use the folder {path}: {why}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        why: std::io::Error,
    },
    /// The disk tier cannot be used as it is configured.
    #[error(transparent)]
    Disk(#[from] OpenError),
    /// The access log cannot be opened.
    #[error("cannot open the access log: {why}")]
    AccessLog {
        /// What the operating system said, with the path.
        why: std::io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {error}")]
    Thread {
        /// Why not.
        error: std::io::Error,
    },
    /// The memory tier is too small.
    #[error("a memory tier of {given} bytes is too small; give at least {MIN_MEMORY_BYTES}")]
    Memory {
        /// What was asked for.
        given: u64,
    },
}

/// An edge that is ready to run.
pub struct Edge {
    node: Arc<node::Node>,
    /// Nothing: it stands alone.
    control: Option<ControlJobs>,
    /// Where an edge that stands alone keeps its configuration.
    alone: Option<persist::Folder>,
}

/// What keeps an edge in step with control.
struct ControlJobs {
    client: Client,
    token: TokenSecret,
    folder: persist::Folder,
    heartbeat_ms: u64,
}

/// A look at a running edge. Cloning shares it.
#[derive(Clone)]
pub struct EdgeView(Arc<node::Node>, Option<persist::Folder>);

impl EdgeView {
    /// The number of the newest event applied.
    pub fn applied(&self) -> u64 {
        self.0.applied()
    }
    /// Whether the event stream is open and caught up.
    pub fn live(&self) -> bool {
        *self.0.link.borrow() == node::Link::Live
    }
    /// Whether a restart now would know everything that has been purged. If not, it would revalidate everything.
    pub fn trusted(&self) -> bool {
        self.0.marks.trusted()
    }
    /// Entries that were brought to the disk tier so far.
    pub fn disk_admissions(&self) -> u64 {
        self.0.metrics.disk_admitted.get()
    }
    /// Opens the file of its access log anew, where there is one: somebody has moved it away.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.0.config.access_log {
            log.reopen();
        }
    }
    /// Gives an edge without control another zone instead of its own. What was stored under another policy is not used any
    /// more. Blocks.
    pub fn replace_zone(&self, zone: ZoneDoc) {
        if let Some(view) = self.0.view().filter(|_| self.0.standalone()) {
            let zones = vec![ZoneDoc { catch_all: true, ..zone }];
            let snapshot = Snapshot { zones, ..view.snapshot.clone() };
            sync::replace_alone(&self.0, self.1.as_ref(), snapshot);
        }
    }
    /// Leaves the files of its state and its disk tier to another process, in order, and goes on without writing: what it
    /// purges from now on only [`Self::on_purge`] hears of. Blocks for as long as it takes to write what is on its way.
    pub fn leave_disk(&self) {
        // First: what is acknowledged must be in the files that are left.
        self.0.left.store(true, Ordering::Release);
        self.0.acknowledgeable.send_replace(0);
        if self.0.marks.leave() {
            tracing::info!(node = %self.name(), "left its state and its disk tier to another process");
        }
        if let Some(disk) = &self.0.disk {
            disk.close();
        }
    }
    /// Whoever was to have the files of the state did not come, and nobody keeps what is purged from now on: the next start
    /// revalidates everything that is stored. Blocks.
    pub fn distrust_disk(&self) {
        if let Some(folder) = &self.1
            && let Err(error) = marks::distrust(folder.path())
        {
            // So nothing is acknowledged any more, either.
            tracing::error!(node = %self.name(), %error, "a restart is not safe");
            return;
        }
        self.0.left.store(false, Ordering::Release);
        self.0.acknowledgeable.send_replace(u64::MAX);
    }
    /// Whether its configuration and its purges come from control.
    pub fn has_control(&self) -> bool {
        !self.0.standalone()
    }
    /// Another process serves as this edge, and has applied events up to this one; nothing: it is gone. What it has not applied
    /// is not acknowledged here.
    pub fn accompanied(&self, applied: Option<u64>) {
        self.0.acknowledgeable.send_replace(applied.unwrap_or(u64::MAX));
    }
    /// From now on `listener` hears of everything that is purged here without control, and a `PURGE` is answered when it says
    /// that others have that, too. To be called once, before the edge runs.
    pub fn on_purge(&self, listener: Arc<dyn PurgeListener>) {
        self.0.marks.tell(listener);
    }
    /// Purges what another process has purged that serves the same; nobody hears of it.
    pub fn purge(&self, targets: PurgeTargets) {
        self.0.sweeps.ask_for(&targets);
        self.0.marks.mark_unheard(targets);
    }
    /// Returns when what was purged here before outlives the machine; false: it does not.
    pub async fn sync_purges(&self) -> bool {
        let kept = self.0.marks.sync().await;
        kept.inspect_err(|error| tracing::error!(node = %self.name(), %error, "purges are not kept")).is_ok()
    }
    /// Its zones.
    pub fn zones(&self) -> Vec<api::ZoneName> {
        self.0.view().map_or_else(Vec::new, |view| view.snapshot.zones.iter().map(|zone| zone.name.clone()).collect())
    }
    /// Its name.
    pub fn name(&self) -> &NodeName {
        &self.0.config.node.name
    }
    /// Answers what tools ask about its cache: see [`api::cache`]. `action` is what follows the edge's name in the path. Only
    /// for who administers this machine: it shows URLs, and empties caches.
    pub async fn answer_tool(&self, method: &Method, action: &str, body: &Bytes) -> Response<Body> {
        tools::answer(&self.0, method, action, body).await
    }
    /// Whether it can serve: it has a configuration, from control or from its disk.
    pub fn ready(&self) -> bool {
        self.0.view().is_some()
    }
}

impl Edge {
    /// Prepares an edge: takes up the configuration and the event number that its folder holds from a former life.
    ///
    /// # Errors
    /// See [`EdgeError`].
    pub fn new(config: EdgeConfig, http: HttpClient, metrics: &EdgeMetrics) -> Result<Self, EdgeError> {
        let EdgeConfig {
            node,
            control_url,
            token,
            memory_bytes,
            cache,
            data_dir,
            heartbeat_ms,
            access_log,
            limits,
            clock,
        } = config;
        check_memory(memory_bytes)?;
        let folder =
            persist::Folder::open(&data_dir).map_err(|why| EdgeError::Folder { path: data_dir.clone(), why })?;
        let client = Client::new(http.clone(), &control_url, Some(&token));
        let access_log = open_log(access_log.as_ref(), metrics)?;
        let (metrics, tiers) = (metrics.of(node.name.as_str()), metrics.tiers.clone());
        let control = node::Control { client: client.clone(), token: token.clone() };
        let disk = cache.open(&clock)?;
        let config = node::NodeConfig { node, memory_bytes, policy: cache.policy, access_log, limits, clock };
        let marks = Marks::open(&data_dir, (config.clock)(), metrics.marks.clone());
        let node = Arc::new(node::Node::new(config, Some(control), http, metrics, marks, disk));
        tiers.show(&node);
        sync::resume(&node, &folder);
        if node.view().is_some() {
            // What has happened since it ended is not known yet. It is away when control turns out not to answer.
            node.link.send_replace(node::Link::CatchingUp);
        }
        Ok(Self { node, control: Some(ControlJobs { client, token, folder, heartbeat_ms }), alone: None })
    }

    /// Prepares an edge that stands alone, in front of one origin.
    ///
    /// # Errors
    /// See [`EdgeError`].
    pub fn standalone(config: StandaloneConfig, metrics: &EdgeMetrics) -> Result<Self, EdgeError> {
        let StandaloneConfig { zone, name, memory_bytes, cache, state_dir, access_log, limits, clock } = config;
        check_memory(memory_bytes)?;
        let open =
            |path: &PathBuf| persist::Folder::open(path).map_err(|why| EdgeError::Folder { path: path.clone(), why });
        let folder = state_dir.as_ref().map(open).transpose()?;
        let place = Place { lat: 0.0, lng: 0.0 };
        let access_log = open_log(access_log.as_ref(), metrics)?;
        let (metrics, tiers) = (metrics.of(name.as_str()), metrics.tiers.clone());
        let node = NodeDoc { name, place, url: String::new(), https_url: None };
        let disk = cache.open(&clock)?;
        let config = node::NodeConfig { node, memory_bytes, policy: cache.policy, access_log, limits, clock };
        let http = HttpClient::new(ClientLimits::default());
        let now_ms = (config.clock)();
        let marks = match &state_dir {
            Some(path) => Marks::open(path, now_ms, metrics.marks.clone()),
            None => Marks::in_memory(now_ms, metrics.marks.clone()),
        };
        let node = Arc::new(node::Node::new(config, None, http, metrics, marks, disk));
        tiers.show(&node);
        let snapshot = Snapshot {
            format: SNAPSHOT_FORMAT,
            at: Hello { catalog_id: String::new(), head: 0, oldest: 1, generation: 0 },
            zones: vec![ZoneDoc { catch_all: true, ..zone }],
            nodes: Vec::new(),
            origin: api::node::Upstream { url: String::new(), place },
            monitor: None,
            readers: Vec::new(),
        };
        match &folder {
            Some(folder) => sync::resume_alone(&node, folder, snapshot),
            None => node.configure(snapshot),
        }
        Ok(Self { node, control: None, alone: folder })
    }

    /// A look at it while it runs.
    pub fn view(&self) -> EdgeView {
        let folder = self.control.as_ref().map(|control| control.folder.clone());
        EdgeView(Arc::clone(&self.node), folder.or_else(|| self.alone.clone()))
    }

    /// Serves on these listeners until `shutdown`, then drains and returns.
    pub async fn run(self, doors: impl Into<Doors> + Send, shutdown: CancellationToken) {
        let doors: Doors = doors.into();
        let Self { node, control, .. } = self;
        if let Some(port) = doors.https_port() {
            // Run once, so it is set once.
            let _ = node.https_port.set(port);
        }
        // Dropped with this future, so that whoever ends the edge ends its jobs, too.
        let mut jobs = JoinSet::new();
        // Whoever is still served during the drain is served nothing that is purged meanwhile.
        let drained = CancellationToken::new();
        if let Some(ControlJobs { client, token, folder, heartbeat_ms }) = control {
            jobs.spawn(sync::follow(Arc::clone(&node), client.clone(), folder, drained.clone()));
            jobs.spawn(sync::report_placements(Arc::clone(&node), client, drained.clone()));
            jobs.spawn(sync::beat(Arc::clone(&node), token, heartbeat_ms, shutdown.clone()));
        }
        let marks = Arc::clone(&node.marks);
        jobs.spawn(Arc::clone(&marks).keep(shutdown.clone()));
        jobs.spawn(sweep::run(Arc::clone(&node), shutdown.clone()));
        let limits = node.config.limits.clone();
        let served = Arc::clone(&node);
        let service = net::service(move |request: Request<Incoming>| serve::serve(Arc::clone(&served), request));
        let ready: Arc<dyn ReadyAnswers> = Arc::new(pull::Ready(Arc::clone(&node)));
        net::serve_doors(doors, service, Some(ready), limits, shutdown).await;
        drained.cancel();
        while jobs.join_next().await.is_some() {}
        // What went wrong has been said in the log.
        let close = move || {
            marks.close();
            if let Some(disk) = &node.disk {
                disk.close();
            }
            if let Some(log) = &node.config.access_log {
                log.close();
            }
        };
        let _ = tokio::task::spawn_blocking(close).await;
    }
}

fn open_log(config: Option<&AccessLogConfig>, metrics: &EdgeMetrics) -> Result<Option<Arc<AccessLog>>, EdgeError> {
    let log = config.map(|config| AccessLog::open(config, metrics.access_log.clone())).transpose();
    log.map(|log| log.map(Arc::new)).map_err(|why| EdgeError::AccessLog { why })
}

fn check_memory(given: u64) -> Result<(), EdgeError> {
    if given < MIN_MEMORY_BYTES { Err(EdgeError::Memory { given }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marks::Began;
    use crate::purges::{At, Identity, Verdict};
    use api::{PullDoc, ZonePage};

    const URL: &str = "h/x";

    fn alone(state_dir: Option<PathBuf>, default_ttl_s: u32) -> Edge {
        let pull = PullDoc { default_ttl_s: Some(default_ttl_s), ..PullDoc::new(Vec::new()) };
        let zone = ZoneDoc { pull: Some(Box::new(pull)), ..ZoneDoc::new("shop".parse().expect("zone")) };
        let (name, limits) = ("edge".parse().expect("name"), ServerLimits::default());
        let clock: Clock = Arc::new(|| 1_000);
        let config = StandaloneConfig {
            zone,
            name,
            memory_bytes: MIN_MEMORY_BYTES,
            cache: CacheConfig::default(),
            state_dir,
            access_log: None,
            limits,
            clock,
        };
        Edge::standalone(config, &EdgeMetrics::new(&mut prometheus_client::registry::Registry::default()))
            .expect("edge")
    }

    fn verdict(edge: &Edge, url: &str, began: Began) -> Verdict {
        let zone = "shop".parse().expect("zone");
        edge.node.marks.verdict(Identity { at: Some((&zone, At::Page(url))), id: None, tags: &[] }, began)
    }

    #[tokio::test]
    async fn an_edge_alone_knows_after_a_restart_what_was_purged_and_that_its_policy_has_changed() {
        let folder = tempfile::tempdir().expect("folder");
        let state = || Some(folder.path().join("state"));
        let edge = alone(state(), 60);
        let (began, era) = (edge.node.marks.began(), edge.node.marks.era());
        let page = ZonePage { zone: "shop".parse().expect("zone"), url: URL.to_owned() };
        edge.node.marks.mark(PurgeTargets { pages: vec![page], ..PurgeTargets::default() });

        let edge = alone(state(), 60);
        assert!(edge.view().trusted());
        assert_eq!(edge.node.marks.era(), era);
        assert_eq!((verdict(&edge, URL, began), verdict(&edge, "h/y", began)), (Verdict::Hard, Verdict::Clean));
        for _ in 0..2 {
            let edge = alone(state(), 61);
            assert_eq!(edge.node.marks.era(), era);
            assert_eq!(verdict(&edge, "h/y", began), Verdict::Hard, "made under another policy");
        }

        std::fs::remove_file(folder.path().join("state/marks.snapshot")).expect("removed");
        let edge = alone(state(), 61);
        assert_eq!((edge.node.marks.era(), verdict(&edge, "h/z", began)), (era, Verdict::Unknown));

        // Without its configuration it cannot tell what its zone was like.
        std::fs::remove_file(folder.path().join("state/snapshot.json")).expect("removed");
        assert_ne!(alone(state(), 61).node.marks.era(), era);
    }

    #[tokio::test]
    async fn an_edge_without_a_folder_begins_anew_each_time() {
        assert_ne!(alone(None, 60).node.marks.era(), alone(None, 60).node.marks.era());
    }
}

//! From settings and sockets to running roles. Everything that starts a role goes through here: `up`, the role commands
//! and the testbed.
//!
//! A [`Process`] holds what roles of one process share (metrics, the admin listener, readiness) and what runs. Roles are
//! stopped in the reverse of the order in which they were started.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use api::{NodeDoc, NodeName, Place, TokenSecret, ZoneDoc};
use control::{Control, ControlConfig};
use edge::{AccessLogConfig, CacheConfig, Clock, Edge, EdgeConfig, EdgeMetrics, EdgeView, StandaloneConfig};
use monitor::{Monitor, MonitorConfig};
use net::{ClientLimits, Doors, HttpClient, Listener, ServerLimits, Tls};
use objects::Blobs;
use origin::{Origin, OriginConfig};
use prometheus_client::registry::Registry;
use router::{Router, RouterConfig};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Ready};
use crate::cli::error::CliError;
use crate::config::Threads;
use crate::handover::Inherited;
use crate::roles::{bind_admin, bind_workers};
use crate::tls_metrics::TlsMetrics;

/// Time between an edge's heartbeats, in milliseconds.
pub const HEARTBEAT_MS: u64 = 500;

/// Why a role cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{role} cannot start: {why}")]
pub struct StartError {
    /// Which role.
    pub role: String,
    /// What it said.
    pub why: Box<dyn std::error::Error + Send + Sync>,
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(role: impl Into<String>) -> impl FnOnce(E) -> StartError {
    let role = role.into();
    move |why| StartError { role, why: why.into() }
}

/// A role that runs.
pub struct Running {
    name: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Its name: the role, and for an edge its own.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks it to stop, and waits until it has drained.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(role = self.name, %error, "ended badly");
        }
    }

    /// Ends it at once, in the middle of whatever it does. For tests of what others do then.
    pub async fn kill(self) {
        self.task.abort();
        // Cancelled, as asked for.
        let _ = self.task.await;
    }
}

/// The time of this machine, in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// The clock of this machine.
pub fn wall_clock() -> Clock {
    Arc::new(now_ms)
}

/// What an edge is started with.
pub struct EdgeStart {
    /// Its name, its place, and where others reach it.
    pub node: NodeDoc,
    /// Where control is.
    pub control_url: String,
    /// The node token.
    pub token: TokenSecret,
    /// Size of its memory tier in bytes.
    pub memory_bytes: u64,
    /// How its tiers are kept.
    pub cache: CacheConfig,
    /// Its access log.
    pub access_log: Option<AccessLogConfig>,
    /// Its own folder.
    pub data_dir: PathBuf,
    /// The time it goes by.
    pub clock: Clock,
}

/// What an edge in front of a website is started with.
pub struct FrontStart {
    /// Its only zone, validated, with a policy.
    pub zone: ZoneDoc,
    /// Its name, for metrics and `Cache-Status`.
    pub name: NodeName,
    /// Size of its memory tier in bytes.
    pub memory_bytes: u64,
    /// How its tiers are kept.
    pub cache: CacheConfig,
    /// Its access log.
    pub access_log: Option<AccessLogConfig>,
    /// Where it keeps its state; nothing: it begins anew with each start.
    pub state_dir: Option<PathBuf>,
    /// The time it goes by.
    pub clock: Clock,
}

/// The roles of one process.
#[derive(Default)]
pub struct Process {
    registry: Registry,
    edge_metrics: Option<EdgeMetrics>,
    ready: Vec<(String, Ready)>,
    edges: Vec<EdgeView>,
    tls_metrics: Option<TlsMetrics>,
    certificates: Vec<Arc<Tls>>,
    running: Vec<Running>,
    /// What the listeners of edges and routers allow.
    pub limits: ServerLimits,
    /// What a former process has left, for what is opened next.
    pub inherited: Inherited,
    /// The sockets of the doors and the lock of the data folder, to be left to the next process; nothing: they are not kept.
    pub sockets: Option<Vec<(String, OwnedFd)>>,
}

impl Process {
    /// Starts control on `listener`. `prepare` runs first, on the opened catalog: tokens, zones.
    ///
    /// # Errors
    /// The catalog cannot be opened, or `prepare` fails.
    pub async fn control<F>(
        &mut self,
        config: ControlConfig,
        listener: TcpListener,
        prepare: F,
    ) -> Result<(), StartError>
    where
        F: AsyncFnOnce(&Control) -> Result<(), control::ControlError>,
    {
        let control = Control::open(config, &mut self.registry).await.map_err(failed("control"))?;
        prepare(&control).await.map_err(failed("control"))?;
        self.spawn("control", Box::new(|| true), |stop| control.run(listener, stop));
        Ok(())
    }

    /// Starts an origin on `listener`, with its blobs in the folder `objects`.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn origin(
        &mut self,
        config: OriginConfig,
        objects: &std::path::Path,
        listener: TcpListener,
    ) -> Result<(), StartError> {
        let blobs = Blobs::folder(objects).map_err(failed("origin"))?;
        let http = HttpClient::new(ClientLimits::default());
        let origin = Origin::new(config, blobs, http, &mut self.registry);
        self.spawn("origin", Box::new(|| true), |stop| async move { origin.run(listener, stop).await });
        Ok(())
    }

    /// Starts a monitor on `socket`.
    pub fn monitor(&mut self, config: MonitorConfig, socket: UdpSocket) {
        let monitor = Monitor::new(config, &mut self.registry);
        self.spawn("monitor", Box::new(|| true), |stop| monitor.run(socket, stop));
    }

    /// Starts a router behind these doors.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub fn router(&mut self, config: RouterConfig, doors: impl Into<Doors>) -> Result<(), StartError> {
        if let Some(folder) = &config.data_dir {
            std::fs::create_dir_all(folder).map_err(failed("router"))?;
        }
        let doors = doors.into();
        let router = Router::new(config, &mut self.registry);
        let (ready, is_ready) = (router.ready(), Arc::new(AtomicBool::new(false)));
        let shown = Arc::clone(&is_ready);
        tokio::spawn(async move {
            ready.await;
            is_ready.store(true, Ordering::Relaxed);
        });
        self.spawn("router", Box::new(move || shown.load(Ordering::Relaxed)), |stop| router.run(doors, stop));
        Ok(())
    }

    /// Starts an edge behind these doors; answers a look at it. `prepare` has one before it serves.
    ///
    /// # Errors
    /// Its folder cannot be used, or its memory tier is too small.
    pub fn edge(
        &mut self,
        start: EdgeStart,
        doors: impl Into<Doors>,
        prepare: impl FnOnce(&EdgeView),
    ) -> Result<EdgeView, StartError> {
        let metrics = self.edge_metrics.get_or_insert_with(|| EdgeMetrics::new(&mut self.registry));
        let name = format!("edge {}", start.node.name);
        let config = EdgeConfig {
            node: start.node,
            control_url: start.control_url,
            token: start.token,
            memory_bytes: start.memory_bytes,
            cache: start.cache,
            access_log: start.access_log,
            data_dir: start.data_dir,
            heartbeat_ms: HEARTBEAT_MS,
            limits: self.limits.clone(),
            clock: start.clock,
        };
        let edge =
            Edge::new(config, HttpClient::new(ClientLimits::default()), metrics).map_err(failed(name.clone()))?;
        Ok(self.serve(name, edge, doors.into(), prepare))
    }

    /// Starts an edge in front of a website, without control, behind these doors; answers a look at it. `prepare` has one
    /// before it serves.
    ///
    /// # Errors
    /// Its memory tier is too small, or its policy cannot be used (certificates that are none, for example).
    pub fn front(
        &mut self,
        start: FrontStart,
        doors: impl Into<Doors>,
        prepare: impl FnOnce(&EdgeView),
    ) -> Result<EdgeView, StartError> {
        let metrics = self.edge_metrics.get_or_insert_with(|| EdgeMetrics::new(&mut self.registry));
        let name = format!("edge {}", start.name);
        let edge = standalone(start, self.limits.clone(), metrics).map_err(failed(name.clone()))?;
        Ok(self.serve(name, edge, doors.into(), prepare))
    }

    fn serve(&mut self, name: String, edge: Edge, doors: Doors, prepare: impl FnOnce(&EdgeView)) -> EdgeView {
        let view = edge.view();
        prepare(&view);
        self.edges.push(view.clone());
        let ready = view.clone();
        self.spawn(&name, Box::new(move || ready.ready()), |stop| edge.run(doors, stop));
        view
    }

    /// Keeps certificates in step with their files for as long as the process runs, and shows them in the metrics. Once for
    /// all that is opened together.
    pub fn watch(&mut self, tls: &Arc<Tls>) {
        let metrics = self.tls_metrics.get_or_insert_with(|| TlsMetrics::new(&mut self.registry));
        metrics.show(tls);
        self.certificates.push(Arc::clone(tls));
        let tls = Arc::clone(tls);
        self.spawn("certificates", Box::new(|| true), |stop| tls.watch(stop));
    }

    /// The certificates that are watched, to have them read again at once.
    pub fn certificates(&self) -> &[Arc<Tls>] {
        &self.certificates
    }

    /// What SIGHUP is for: certificates are read again, and access logs opened anew. Blocks.
    pub fn reloads(&self) -> impl Fn() + Clone + Send + 'static {
        let (certificates, edges) = (self.certificates.clone(), self.edges.clone());
        move || {
            for tls in &certificates {
                let (served, bad) = tls.reload();
                tracing::info!(served, bad, "certificates read again");
            }
            edges.iter().for_each(EdgeView::reopen_log);
        }
    }

    /// The sockets of a door: those that a former process has left, or new ones.
    ///
    /// # Errors
    /// An address that is in use.
    pub async fn listen(
        &mut self,
        kind: &str,
        address: SocketAddr,
        threads: Option<Threads>,
    ) -> Result<Listener, CliError> {
        let name = format!("{kind} {address}");
        let inherited = self.inherited.listeners(&name);
        let listener = match inherited.len() {
            0 => bind_workers(address, threads).await?,
            sockets => {
                if threads.is_some_and(|threads| threads.0.get() != sockets) {
                    tracing::warn!(
                        sockets,
                        "a handover keeps the number of threads; --threads counts at the next start"
                    );
                }
                Listener::Workers(inherited)
            }
        };
        if let Listener::Workers(sockets) = &listener {
            sockets.iter().try_for_each(|socket| self.keep(&name, socket))?;
        }
        Ok(listener)
    }

    /// The socket of the admin listener.
    ///
    /// # Errors
    /// An address that is in use.
    pub async fn listen_admin(&mut self, address: SocketAddr) -> Result<TcpListener, CliError> {
        let name = format!("admin {address}");
        let listener = match self.inherited.listeners(&name).pop() {
            Some(socket) => TcpListener::from_std(socket).map_err(|error| CliError::failed(error.to_string()))?,
            None => bind_admin(address).await?,
        };
        self.keep(&name, &listener)?;
        Ok(listener)
    }

    /// Keeps a descriptor for the process that comes next, under its name.
    ///
    /// # Errors
    /// There are no descriptors left, for example.
    pub fn keep(&mut self, name: &str, socket: &impl AsFd) -> Result<(), CliError> {
        if let Some(sockets) = &mut self.sockets {
            let kept = net::keep_open(socket).map_err(|error| CliError::failed(error.to_string()))?;
            sockets.push((name.to_owned(), kept));
        }
        Ok(())
    }

    /// Opens the admin listener. Call it last: roles started later would not be seen in it.
    pub fn admin(&mut self, listener: TcpListener) {
        let admin = Admin {
            registry: std::mem::take(&mut self.registry),
            ready: std::mem::take(&mut self.ready),
            edges: self.edges.clone(),
        };
        self.spawn("admin", Box::new(|| true), |stop| admin::run(admin, listener, stop));
    }

    fn spawn<F>(&mut self, name: &str, ready: Ready, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        self.ready.push((name.to_owned(), ready));
        self.running.push(Running { name: name.to_owned(), stop, task });
    }

    /// Takes a running role out of the process, to stop or kill it alone.
    pub fn take(&mut self, name: &str) -> Option<Running> {
        let at = self.running.iter().position(|running| running.name == name)?;
        Some(self.running.remove(at))
    }

    /// Stops every role, the last one first, each drained before the next is asked.
    pub async fn stop(self) {
        for running in self.running.into_iter().rev() {
            running.stop().await;
        }
    }
}

fn standalone(start: FrontStart, limits: ServerLimits, metrics: &EdgeMetrics) -> Result<Edge, String> {
    let FrontStart { zone, name, memory_bytes, cache, access_log, state_dir, clock } = start;
    let config = StandaloneConfig { zone, name, memory_bytes, cache, state_dir, access_log, limits, clock };
    Edge::standalone(config, metrics).map_err(|error| error.to_string())
}

/// The URL of a socket: `http://ADDRESS:PORT`.
pub fn url_of(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Where the origin stands under `up`, and where clients are whose place is not known: Frankfurt.
pub fn default_origin_place() -> Place {
    Place { lat: 50.11, lng: 8.68 }
}

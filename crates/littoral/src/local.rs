//! A whole CDN in one process: control, origin, monitor, edges and router, meeting over loopback as they would over a
//! network. `up` is a command around this; the testbed builds its clusters with it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::names::{NodeName, Place, ZoneName};
use api::token::{Scope, TokenKind};
use api::{NodeDoc, TokenSecret, ZoneDoc};
use control::ControlConfig;
use edge::{CacheConfig, Clock, EdgeView};
use monitor::MonitorConfig;
use net::{CertificateError, Door, Doors, Listener, ServerLimits, Tls};
use origin::{CollectorConfig, OriginConfig, OriginLimits};
use router::{Mode, RouterConfig};
use tokio::net::{TcpListener, UdpSocket};

use crate::assembly::{EdgeStart, Process, StartError, url_of};
use crate::authority::{self, AuthorityError};
use crate::datadir::{DataDir, DataDirError};
use crate::tiers;

/// The first port, if nothing else is asked for.
pub const DEFAULT_PORT_BASE: u16 = 8600;
/// Router over TLS. See [`API_OFFSET`].
pub const ROUTER_HTTPS_OFFSET: u16 = 5;
/// The first edge over TLS; the others follow. See [`API_OFFSET`].
pub const EDGE_HTTPS_OFFSET: u16 = 60;
/// Offsets from the first port.
pub const API_OFFSET: u16 = 0;
/// See [`API_OFFSET`].
pub const CONTROL_OFFSET: u16 = 1;
/// See [`API_OFFSET`].
pub const ROUTER_OFFSET: u16 = 2;
/// UDP. See [`API_OFFSET`].
pub const MONITOR_OFFSET: u16 = 3;
/// See [`API_OFFSET`].
pub const ADMIN_OFFSET: u16 = 4;
/// The first edge; the others follow. See [`API_OFFSET`].
pub const EDGE_OFFSET: u16 = 10;
/// Edges in one process.
pub const MAX_EDGES: usize = 50;
/// How long a start waits for every edge to be in step and known to be alive, in milliseconds.
const READY_MS: u64 = 10_000;
/// The zone that answers for every host that no zone names.
pub const DEFAULT_ZONE: &str = "files";

/// An edge of a local CDN.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalEdge {
    /// Its name.
    pub name: NodeName,
    /// Where it is taken to stand.
    pub place: Place,
}

/// What a local CDN is made of.
#[derive(Clone)]
pub struct LocalConfig {
    /// The address that everything listens on.
    pub listen: IpAddr,
    /// The first port; 0: any free ports.
    pub port_base: u16,
    /// 1 to [`MAX_EDGES`], each name once.
    pub edges: Vec<LocalEdge>,
    /// Size of each edge's memory tier in bytes.
    pub memory_bytes: u64,
    /// Size of each edge's disk tier in bytes; 0: it has none.
    pub disk_bytes: u64,
    /// What the router does.
    pub router_mode: Mode,
    /// Where the origin stands.
    pub origin_place: Place,
    /// Where clients are taken to be whose place is not known.
    pub default_place: Place,
    /// When blobs are collected.
    pub collector: CollectorConfig,
    /// How long an edge counts as alive after its last heartbeat, in milliseconds.
    pub dead_after_ms: u64,
    /// The time that edges go by.
    pub clock: Clock,
    /// Whether edges and router speak TLS, too, with certificates of the development authority.
    pub https: bool,
}

impl LocalConfig {
    /// How an edge keeps its tiers that has this folder.
    fn cache_in(&self, folder: &Path) -> CacheConfig {
        let folders = (self.disk_bytes > 0).then(|| tiers::files(folder, self.disk_bytes));
        CacheConfig { folders: folders.into_iter().collect(), ..CacheConfig::default() }
    }
}

/// Why a local CDN cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A port.
    #[error("port {port} ({what}) cannot be used on {listen}: {why}")]
    Port {
        /// Which.
        port: u16,
        /// Whose it would be.
        what: String,
        /// The address.
        listen: IpAddr,
        /// What the operating system said.
        why: io::Error,
    },
    /// Too many ports above the first.
    #[error("the ports from {base} on do not suffice: {what} would be port {base} + {offset}, above 65535")]
    PortsRunOut {
        /// The first port.
        base: u16,
        /// Whose port is too high.
        what: String,
        /// Its offset.
        offset: u16,
    },
    /// The development authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The certificates.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// A role.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Everything runs, but not together.
    #[error("not ready within {READY_MS} ms: {what}")]
    NotReady {
        /// What is missing.
        what: String,
    },
}

/// A running local CDN.
pub struct Local {
    /// The roles, to stop or kill one by one.
    pub process: Process,
    /// The api address.
    pub api: String,
    /// Control's own address.
    pub control: String,
    /// The router.
    pub router: String,
    /// The router over TLS.
    pub router_https: Option<String>,
    /// The admin listener.
    pub admin: String,
    /// The edges: as they introduce themselves, and a look at each.
    pub edges: Vec<(NodeDoc, EdgeView)>,
    /// The administrator's token.
    pub admin_token: TokenSecret,
    /// The nodes' token.
    pub node_token: TokenSecret,
    /// The data folder, held.
    pub data_dir: DataDir,
}

/// The sockets of a local CDN. All are bound before anything starts, so that a taken port leaves nothing half started.
struct Sockets {
    api: TcpListener,
    control: TcpListener,
    router: Listener,
    monitor: UdpSocket,
    admin: TcpListener,
    edges: Vec<Listener>,
    /// Of the router, then of the edges in their order; none: plain HTTP only.
    secure: Vec<Listener>,
}

/// Starts a local CDN in `data_dir`, and returns once every edge is in step and known to be alive.
///
/// # Errors
/// See [`LocalError`].
pub async fn start(config: LocalConfig, data_dir: DataDir) -> Result<Local, LocalError> {
    let sockets = bind(&config).await?;
    let unbound = |why| LocalError::Port { port: 0, what: "a socket".to_owned(), listen: config.listen, why };
    let address = |bound: io::Result<SocketAddr>| bound.map_err(unbound);
    let (api, control) = (url_of(address(sockets.api.local_addr())?), url_of(address(sockets.control.local_addr())?));
    let (router, admin) = (url_of(address(sockets.router.local_addr())?), url_of(address(sockets.admin.local_addr())?));
    let secure: Vec<String> = sockets
        .secure
        .iter()
        .map(|listener| Ok(format!("https://{}", address(listener.local_addr())?)))
        .collect::<Result<_, LocalError>>()?;
    let monitor_address = sockets.monitor.local_addr().map_err(unbound)?;
    let admin_token = data_dir.secret("admin.token")?;
    let node_token = data_dir.secret("node.token")?;

    let mut process = Process::default();
    let tls = if config.https {
        let tls = Tls::open(authority::certificate_for(&data_dir, config.listen, &[])?)?;
        process.watch(&tls);
        Some(tls)
    } else {
        None
    };
    // Every role of the two that speak to people: plain, and secure if there is a listener for that.
    let doors = |plain: Listener, secure: Option<Listener>| {
        let secure = secure.map(|listener| (listener, Door { tls: tls.clone(), ..Door::default() }));
        Doors(std::iter::once((plain, Door::default())).chain(secure).collect())
    };
    let mut secure_listeners = sockets.secure.into_iter();
    let router_doors = doors(sockets.router, secure_listeners.next());
    let upstream = api::node::Upstream { url: api.clone(), place: config.origin_place };
    let settings = ControlConfig {
        default_place: config.default_place,
        monitor: Some(monitor_address),
        ..ControlConfig::new(catalog_in(&data_dir)?, router.clone(), upstream)
    };
    let secrets = (admin_token.clone(), node_token.clone());
    process.control(settings, sockets.control, async |control| prepare(control, &secrets.0, &secrets.1).await).await?;
    let origin = OriginConfig {
        control_url: control.clone(),
        node_token: node_token.clone(),
        limits: OriginLimits::default(),
        collector: config.collector.clone(),
    };
    process.origin(origin, &data_dir.join("objects"), sockets.api)?;
    let monitor = MonitorConfig {
        dead_after_ms: config.dead_after_ms,
        ..MonitorConfig::new(control.clone(), node_token.clone())
    };
    process.monitor(monitor, sockets.monitor);
    let mut edges = Vec::new();
    for (at, (edge, listener)) in config.edges.iter().zip(sockets.edges).enumerate() {
        let url = url_of(address(listener.local_addr())?);
        let https_url = secure.get(at + 1).cloned();
        let node = NodeDoc { name: edge.name.clone(), place: edge.place, url, https_url };
        let start = EdgeStart {
            node: node.clone(),
            control_url: control.clone(),
            token: node_token.clone(),
            memory_bytes: config.memory_bytes,
            access_log: None,
            cache: config.cache_in(&data_dir.join("edges").join(edge.name.as_str())),
            data_dir: data_dir.join("edges").join(edge.name.as_str()),
            clock: config.clock.clone(),
        };
        edges.push((node, process.edge(start, doors(listener, secure_listeners.next()), |_| {})?));
    }
    let settings = RouterConfig {
        control_url: control.clone(),
        token: node_token.clone(),
        mode: config.router_mode,
        default_place: config.default_place,
        data_dir: Some(data_dir.join("router")),
        server: ServerLimits::default(),
    };
    process.router(settings, router_doors)?;
    process.admin(sockets.admin);
    let router_https = secure.first().cloned();
    let local = Local { process, api, control, router, router_https, admin, edges, admin_token, node_token, data_dir };
    local.wait_until_ready().await?;
    Ok(local)
}

/// At the first start: the two tokens and the zone for everything. At later ones: nothing.
///
/// # Errors
/// The catalog cannot be changed.
pub async fn prepare(
    control: &control::Control,
    admin_token: &TokenSecret,
    node_token: &TokenSecret,
) -> Result<(), control::ControlError> {
    control.ensure_token("admin", TokenKind::User, &[Scope::Admin], admin_token).await?;
    control.ensure_token("nodes", TokenKind::Node, &[], node_token).await?;
    if let Ok(name) = DEFAULT_ZONE.parse::<ZoneName>() {
        let zone = ZoneDoc { catch_all: true, index: Some("index.html".to_owned()), ..ZoneDoc::new(name) };
        control.ensure_zone(&zone).await?;
    }
    Ok(())
}

/// The file of the catalog in a data folder; its own folder is made if need be.
///
/// # Errors
/// The folder cannot be made.
pub fn catalog_in(data_dir: &DataDir) -> Result<PathBuf, DataDirError> {
    let folder = data_dir.join("catalog");
    std::fs::create_dir_all(&folder).map_err(|why| DataDirError::Io { path: folder.clone(), why })?;
    Ok(folder.join("catalog.db"))
}

impl Local {
    /// A client of the api address with the administrator's token.
    pub fn client(&self) -> client::Client {
        let http = net::HttpClient::new(net::ClientLimits::default());
        client::Client::new(http, &self.api, Some(&self.admin_token))
    }

    /// Makes the certificate of the development authority be for the hosts of the zones that there are now, if they can be
    /// asked for; renews it when it is near its end. What is served changes once the files are looked at again.
    ///
    /// # Errors
    /// The authority, or its files.
    pub async fn renew_certificate(&self, listen: IpAddr) -> Result<(), LocalError> {
        let Ok(list) = self.client().zones().await else { return Ok(()) };
        let hosts: Vec<String> = list.zones.into_iter().flat_map(|zone| zone.hosts).collect();
        authority::certificate_for(&self.data_dir, listen, &hosts)?;
        Ok(())
    }

    async fn wait_until_ready(&self) -> Result<(), LocalError> {
        let client = self.client();
        let mut missing = "nothing was asked yet".to_owned();
        let poll = async {
            let mut rest_ms = 2;
            loop {
                match client.nodes().await {
                    Err(error) => missing = error.to_string(),
                    Ok(list) => {
                        let late: Vec<&str> = self
                            .edges
                            .iter()
                            .filter(|(node, view)| {
                                let alive = list.nodes.iter().any(|n| n.node.name == node.name && n.alive);
                                !alive || !view.live()
                            })
                            .map(|(node, _)| node.name.as_str())
                            .collect();
                        if late.is_empty() {
                            return;
                        }
                        missing = format!("no heartbeat or event stream from {}", late.join(", "));
                    }
                }
                tokio::time::sleep(Duration::from_millis(rest_ms)).await;
                rest_ms = (rest_ms * 2).min(50);
            }
        };
        match tokio::time::timeout(Duration::from_millis(READY_MS), poll).await {
            Ok(()) => Ok(()),
            Err(_) => Err(LocalError::NotReady { what: missing }),
        }
    }
}

async fn bind(config: &LocalConfig) -> Result<Sockets, LocalError> {
    // In the order of their ports: the first that is taken is named.
    let api = bind_tcp(config, API_OFFSET, "api").await?;
    let control = bind_tcp(config, CONTROL_OFFSET, "control").await?;
    let router = bind_worker(config, ROUTER_OFFSET, "router").await?;
    let mut edges = Vec::new();
    for (offset, edge) in (EDGE_OFFSET..).zip(&config.edges) {
        edges.push(bind_worker(config, offset, &format!("edge {}", edge.name)).await?);
    }
    let mut secure = Vec::new();
    if config.https {
        secure.push(bind_worker(config, ROUTER_HTTPS_OFFSET, "router, TLS").await?);
        for (offset, edge) in (EDGE_HTTPS_OFFSET..).zip(&config.edges) {
            secure.push(bind_worker(config, offset, &format!("edge {}, TLS", edge.name)).await?);
        }
    }
    let monitor_address = address(config, MONITOR_OFFSET, "monitor")?;
    let monitor = net::bind_udp(monitor_address).await;
    let port = monitor_address.port();
    Ok(Sockets {
        api,
        control,
        router,
        monitor: monitor.map_err(|why| LocalError::Port {
            port,
            what: "monitor, UDP".to_owned(),
            listen: config.listen,
            why,
        })?,
        admin: bind_tcp(config, ADMIN_OFFSET, "admin").await?,
        edges,
        secure,
    })
}

async fn bind_tcp(config: &LocalConfig, offset: u16, what: &str) -> Result<TcpListener, LocalError> {
    let at = address(config, offset, what)?;
    let (port, listen) = (at.port(), config.listen);
    net::bind(at).await.map_err(|why| LocalError::Port { port, what: what.to_owned(), listen, why })
}

/// A data path of one thread: there are several of them in this process.
async fn bind_worker(config: &LocalConfig, offset: u16, what: &str) -> Result<Listener, LocalError> {
    let at = address(config, offset, what)?;
    let (port, listen) = (at.port(), config.listen);
    let bound = net::bind_workers(at, NonZeroUsize::MIN).await;
    bound.map_err(|why| LocalError::Port { port, what: what.to_owned(), listen, why })
}

fn address(config: &LocalConfig, offset: u16, what: &str) -> Result<SocketAddr, LocalError> {
    let base = config.port_base;
    if base == 0 {
        return Ok(SocketAddr::new(config.listen, 0));
    }
    let port =
        base.checked_add(offset).ok_or_else(|| LocalError::PortsRunOut { base, what: what.to_owned(), offset })?;
    Ok(SocketAddr::new(config.listen, port))
}

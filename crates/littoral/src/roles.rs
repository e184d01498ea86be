//! `littoral control|origin|edge|router|monitor|run`: roles one by one, or any set of them in one process, as a
//! configuration file says.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::names::{NodeName, Place};
use api::{NodeDoc, TokenSecret};
use clap::Args;
use control::ControlConfig;
use edge::AccessLogConfig;
use edge::shelf::PolicyChoice;
use monitor::MonitorConfig;
use net::ServerLimits;
use origin::{CollectorConfig, OriginConfig, OriginLimits};
use router::{Mode, RouterConfig};

use crate::assembly::{EdgeStart, Process, StartError, url_of, wall_clock};
use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::https::HttpsArgs;
use crate::cli::human;
use crate::cli::output::Out;
use crate::cli::policy::PolicyArgs;
use crate::config::{
    self, AdminSection, Config, DEFAULT_MEMORY, EdgeSection, PlaceText, Rate, RouterMode, Size, Threads,
};
use crate::datadir::DataDir;
use crate::doors::{self, DoorArgs};
use crate::handover::Succession;
use crate::local::{catalog_in, prepare};
use crate::tiers::{self, TierArgs};
use crate::up::{data_dir_error, on_hangup, stop_signal};
use crate::{descriptors, front, notify};

/// How long a role waits for a token file that control is about to make, in milliseconds.
const TOKEN_WAIT_MS: u64 = 5_000;
/// How long idle connections of clients are kept at the end, in milliseconds: whoever asks meanwhile is answered, and told to
/// come again on another one.
const DRAIN_IDLE_MS: u64 = 1_000;

impl From<RouterMode> for Mode {
    fn from(mode: RouterMode) -> Mode {
        match mode {
            RouterMode::Redirect => Mode::Redirect,
            RouterMode::Proxy => Mode::Proxy,
        }
    }
}

/// What the role commands other than `edge` take.
#[derive(Debug, Clone, Args)]
pub struct RoleArgs {
    /// Configuration file; docs/littoral.example.toml names every setting
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Address of the admin listener, instead of the file's (processes that share a file need one each)
    #[arg(long, value_name = "IP:PORT")]
    pub admin: Option<SocketAddr>,
}

/// What `router` takes.
#[derive(Debug, Clone, Args)]
pub struct RouterArgs {
    /// As for every role
    #[command(flatten)]
    pub role: RoleArgs,
    /// Socket at which a process started with the same PATH takes this one's place, without losing a request
    #[arg(long, value_name = "PATH")]
    pub handover: Option<PathBuf>,
}

/// What `edge` takes: a configuration file, or all that an edge needs to join, or the website that it is to stand in front of.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  littoral edge --upstream http://127.0.0.1:3000 --listen 127.0.0.1:8080      a cache in front of a website
  littoral edge --zone-file shop.toml --listen 0.0.0.0:80 --memory 1GiB       the same, with its policy in a file
  littoral edge --upstream http://127.0.0.1:3000 --disk /var/cache/littoral=100GiB    the same, and warm after a restart
  littoral edge --upstream http://127.0.0.1:3000 --listen 0.0.0.0:80 --tls-listen 0.0.0.0:443 --cert site.crt --key site.key
  littoral edge --config edge.toml
  littoral edge --control http://10.0.0.1:8601 --token-file node.token --name oslo --place 59.91,10.75 --listen 10.0.0.7:8610")]
pub struct EdgeArgs {
    /// Configuration file; docs/littoral.example.toml names every setting
    #[arg(long, value_name = "FILE", conflicts_with_all = ["control", "name", "place", "listen", "url", "threads", "memory", "access_log", "disk", "eviction", "objective", "upstreams", "zone_file", "tls_listen", "proxy_protocol_from"])]
    pub config: Option<PathBuf>,
    /// Address of control; --token-file names the file with the node token
    #[arg(long, value_name = "URL", conflicts_with_all = ["upstreams", "zone_file"])]
    pub control: Option<String>,
    /// Name of this edge
    #[arg(long, value_name = "NAME")]
    pub name: Option<NodeName>,
    /// Where this edge stands
    #[arg(long, value_name = "LAT,LNG", conflicts_with_all = ["upstreams", "zone_file"], allow_hyphen_values = true)]
    pub place: Option<Place>,
    /// Address to listen on
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8610")]
    pub listen: SocketAddr,
    /// Where clients and other nodes reach it [default: http:// and --listen]
    #[arg(long, value_name = "URL", conflicts_with_all = ["upstreams", "zone_file"])]
    pub url: Option<String>,
    /// Where clients reach it over TLS [default: none]
    #[arg(long, value_name = "URL", conflicts_with_all = ["upstreams", "zone_file"])]
    pub https_url: Option<String>,
    /// TLS, and proxies in front
    #[command(flatten)]
    pub doors: DoorArgs,
    /// Threads that serve requests [default: one for each core]
    #[arg(long, value_name = "N")]
    pub threads: Option<Threads>,
    /// Size of the memory tier
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_MEMORY)]
    pub memory: Size,
    /// The tiers
    #[command(flatten)]
    pub tiers: TierArgs,
    /// Its access log
    #[command(flatten)]
    pub access_log: AccessLogArgs,
    /// Address of the admin listener [default: the file's, or none]
    #[arg(long, value_name = "IP:PORT")]
    pub admin: Option<SocketAddr>,
    /// Client connections at once; further ones wait [default: what the limit of open files allows]
    #[arg(long, value_name = "N", conflicts_with = "config")]
    pub connections: Option<NonZeroUsize>,
    /// Socket at which a process started with the same PATH takes this one's place, without losing a request
    #[arg(long, value_name = "PATH")]
    pub handover: Option<PathBuf>,
    /// Zone to serve without control, in TOML or JSON; flags go over it
    #[arg(long, value_name = "FILE")]
    pub zone_file: Option<PathBuf>,
    /// In front of a website: print one JSON object when ready
    #[arg(long)]
    pub json: bool,
    /// How the website is reached over TLS
    #[command(flatten)]
    pub https: HttpsArgs,
    /// The website and its policy
    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// The access log of an edge.
#[derive(Debug, Clone, Args)]
pub struct AccessLogArgs {
    /// File for a line of JSON about each request; `-` is standard output [default: none]
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// The part of the requests that is logged, 0 to 1, picked by chance
    #[arg(long, value_name = "RATE", default_value = "1", requires = "access_log")]
    pub access_log_sample: Rate,
}

impl AccessLogArgs {
    /// What the edge is told.
    pub fn config(&self) -> Option<AccessLogConfig> {
        access_log(self.access_log.as_deref(), self.access_log_sample)
    }
}

fn access_log(file: Option<&Path>, Rate(sample): Rate) -> Option<AccessLogConfig> {
    let file = file?;
    Some(AccessLogConfig { file: (file != Path::new("-")).then(|| file.to_owned()), sample })
}

/// Which sections of a file are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All that are there.
    All,
    /// Only this one.
    Control,
    /// Only this one.
    Origin,
    /// Only this one.
    Monitor,
    /// Only this one.
    Router,
    /// Only these.
    Edge,
}

/// Runs roles of a configuration file until SIGINT or SIGTERM, or, of an edge or a router, until another process has taken
/// its place at the path `handover`.
///
/// # Errors
/// The file, the data folder, a token file, a socket or a role; several edges that are to be replaced together.
pub async fn run(which: Which, args: &RoleArgs, handover: Option<&Path>, globals: &Globals) -> Result<(), CliError> {
    let mut config = config::read(&args.config)?;
    let missing = match which {
        Which::All => {
            config.control.is_none()
                && config.origin.is_none()
                && config.monitor.is_none()
                && config.router.is_none()
                && config.edge.is_empty()
        }
        Which::Control => config.control.is_none(),
        Which::Origin => config.origin.is_none(),
        Which::Monitor => config.monitor.is_none(),
        Which::Router => config.router.is_none(),
        Which::Edge => config.edge.is_empty(),
    };
    if missing {
        let file = human::file_name(&args.config);
        return Err(CliError::usage(format!("{file} has no section for what is to be run"))
            .with_hint("a role is run by its section: [control], [origin], [monitor], [router], [[edge]]"));
    }
    if which != Which::All {
        config.control = config.control.filter(|_| which == Which::Control);
        config.origin = config.origin.filter(|_| which == Which::Origin);
        config.monitor = config.monitor.filter(|_| which == Which::Monitor);
        config.router = config.router.filter(|_| which == Which::Router);
        if which != Which::Edge {
            config.edge.clear();
        }
    }
    config.admin = args.admin.map(|listen| AdminSection { listen }).or(config.admin);
    if handover.is_some() && config.edge.len() > 1 {
        return Err(CliError::usage(format!("{} edges in one process cannot be replaced", config.edge.len()))
            .with_hint("--handover is for one edge: give each a file, and a process, of its own"));
    }
    run_config(config, None, handover, globals).await
}

/// Runs an edge, from a file or from flags, until SIGINT or SIGTERM.
///
/// # Errors
/// See [`run`].
pub async fn run_edge(args: EdgeArgs, globals: &Globals) -> Result<(), CliError> {
    if args.zone_file.is_some() || !args.policy.upstreams.is_empty() {
        return front::run(args, globals).await;
    }
    let joins = args.config.is_some() || args.control.is_some();
    if joins && (!args.policy.is_empty() || !args.https.is_empty() || args.json) {
        return Err(CliError::usage("an edge of control gets its policies from control")
            .with_hint("'littoral zone set' changes them there; or name a website with --upstream"));
    }
    let (control_url, name, place) = match (args.config, args.control, args.name, args.place) {
        (Some(config), ..) => {
            let role = RoleArgs { config, admin: args.admin };
            return run(Which::Edge, &role, args.handover.as_deref(), globals).await;
        }
        (None, Some(control), Some(name), Some(place)) => (control, name, place),
        _ => {
            return Err(CliError::usage("it is not said what the edge is to serve").with_hint(
                "name a website with --upstream or --zone-file, a configuration with --config, or a CDN with --control, \
                 --token-file, --name and --place",
            ));
        }
    };
    let edge = EdgeSection {
        name,
        place: PlaceText(place),
        listen: args.listen,
        url: args.url,
        https_url: args.https_url,
        tls: args.doors.section(),
        proxy_protocol_from: args.doors.proxy_protocol_from.clone(),
        control_url,
        token_file: globals.token_file.clone(),
        threads: args.threads,
        memory: Some(args.memory),
        access_log: args.access_log.access_log.clone(),
        access_log_sample: Some(args.access_log.access_log_sample),
        disk: args.tiers.disk.clone(),
        eviction: Some(config::Eviction(args.tiers.eviction)),
        objective: Some(config::ObjectiveText(args.tiers.objective)),
    };
    let admin = args.admin.map(|listen| AdminSection { listen });
    let config = Config { edge: vec![edge], admin, ..Config::default() };
    run_config(config, args.connections, args.handover.as_deref(), globals).await
}

async fn run_config(
    config: Config,
    connections: Option<NonZeroUsize>,
    handover: Option<&Path>,
    globals: &Globals,
) -> Result<(), CliError> {
    let out = globals.out();
    crate::logging::start(out.color)?;
    let shutdown = stop_signal()?;
    let named = if globals.data_dir.is_some() { None } else { config.data_dir.clone() };
    let mut process = Process::default();
    process.limits = limits(connections);
    let mut succession = Succession::begin(handover, &mut process).await?;
    let path = named.unwrap_or_else(|| globals.data_dir());
    let data_dir = DataDir::open_after(&path, |name| process.inherited.take(name).pop()).map_err(data_dir_error)?;
    let (name, lock) = data_dir.lock();
    process.keep(&name, lock)?;
    let mut started = start(config, &data_dir, &mut process, &mut succession, &out).await;
    if started.is_ok() {
        started = succession.ready().await;
    }
    if started.is_ok() {
        process.inherited.close_rest();
        notify::ready();
        let sockets = process.sockets.take().unwrap_or_default();
        tokio::select! {
            replaced = succession.replaced(sockets, &shutdown) => if !replaced {
                notify::stopping();
            },
            failed = on_hangup(process.reloads()) => failed?,
        }
        out.note("stopping: requests in progress are finished first (Ctrl-C again stops at once)");
    }
    process.stop().await;
    started
}

/// What the listeners of a process allow.
pub(crate) fn limits(connections: Option<NonZeroUsize>) -> ServerLimits {
    let enough = descriptors::connections();
    let connections = connections.map_or(enough, NonZeroUsize::get);
    if connections > enough {
        tracing::warn!(connections, enough, "the limit of open files is not enough for so many connections");
    }
    ServerLimits { connections, drain_idle_ms: DRAIN_IDLE_MS, ..ServerLimits::default() }
}

async fn start(
    config: Config,
    data_dir: &DataDir,
    process: &mut Process,
    succession: &mut Succession,
    out: &Out,
) -> Result<(), CliError> {
    let cannot = |error: StartError| CliError::failed(error.to_string());
    // Before a former process is asked to leave anything.
    let admin = match config.admin {
        Some(AdminSection { listen }) => Some((listen, process.listen_admin(listen).await?)),
        None => None,
    };
    if let Some(section) = config.control {
        let admin_token = data_dir.secret("admin.token").map_err(data_dir_error)?;
        let node_token = data_dir.secret("node.token").map_err(data_dir_error)?;
        let listener = bind(section.listen).await?;
        let origin_place = section.origin_place.0;
        let origin_url = http_url("control.origin_url", &section.origin_url)?;
        let upstream = api::node::Upstream { url: origin_url, place: origin_place };
        let public_url = http_url("control.public_url", &section.public_url)?;
        let settings = ControlConfig {
            default_place: section.default_place.map_or(origin_place, |place| place.0),
            monitor: section.monitor,
            ..ControlConfig::new(catalog_in(data_dir).map_err(data_dir_error)?, public_url, upstream)
        };
        process
            .control(settings, listener, async |control| prepare(control, &admin_token, &node_token).await)
            .await
            .map_err(cannot)?;
        out.note(format!("control on {}", section.listen));
    }
    if let Some(section) = config.origin {
        let listener = bind(section.listen).await?;
        let settings = OriginConfig {
            control_url: http_url("origin.control_url", &section.control_url)?,
            node_token: token(data_dir, section.token_file.as_deref()).await?,
            limits: OriginLimits::default(),
            collector: CollectorConfig::default(),
        };
        let objects = section.objects.unwrap_or_else(|| data_dir.join("objects"));
        process.origin(settings, &objects, listener).map_err(cannot)?;
        out.note(format!("origin (api) on {}", section.listen));
    }
    if let Some(section) = config.monitor {
        let socket = net::bind_udp(section.listen).await.map_err(|error| CliError::failed(error.to_string()))?;
        let control_url = http_url("monitor.control_url", &section.control_url)?;
        let mut settings = MonitorConfig::new(control_url, token(data_dir, section.token_file.as_deref()).await?);
        settings.dead_after_ms = section.dead_after_ms.unwrap_or(settings.dead_after_ms);
        process.monitor(settings, socket);
        out.note(format!("monitor on {} (UDP)", section.listen));
    }
    for section in config.edge {
        let proxies = &section.proxy_protocol_from;
        let opened = doors::open(section.listen, section.threads, section.tls.as_ref(), proxies, process).await?;
        let (name, listen) = (section.name.clone(), section.listen);
        let start = edge_start(section, data_dir).await?;
        succession.enter().await?;
        process.edge(start, opened.doors, |view| succession.prepare(view)).map_err(cannot)?;
        out.note(format!("edge {name} on {listen}{}", and_tls(opened.tls_address)));
    }
    if let Some(section) = config.router {
        let proxies = &section.proxy_protocol_from;
        let opened = doors::open(section.listen, section.threads, section.tls.as_ref(), proxies, process).await?;
        let settings = RouterConfig {
            control_url: http_url("router.control_url", &section.control_url)?,
            token: token(data_dir, section.token_file.as_deref()).await?,
            mode: section.mode.into(),
            default_place: section.default_place.0,
            data_dir: Some(data_dir.join("router")),
            server: process.limits.clone(),
        };
        succession.enter().await?;
        process.router(settings, opened.doors).map_err(cannot)?;
        out.note(format!("router on {}{}", section.listen, and_tls(opened.tls_address)));
    }
    if let Some((listen, listener)) = admin {
        process.admin(listener);
        out.note(format!("admin on {listen}"));
    }
    Ok(())
}

async fn edge_start(section: EdgeSection, data_dir: &DataDir) -> Result<EdgeStart, CliError> {
    let url = section.url.unwrap_or_else(|| url_of(section.listen));
    Ok(EdgeStart {
        control_url: http_url("edge.control_url", &section.control_url)?,
        token: token(data_dir, section.token_file.as_deref()).await?,
        memory_bytes: match section.memory {
            Some(size) => size.0,
            None => DEFAULT_MEMORY.parse::<Size>().map_err(CliError::usage)?.0,
        },
        cache: tiers::config(
            &section.disk,
            PolicyChoice {
                policy: section.eviction.unwrap_or_default().0,
                objective: section.objective.unwrap_or_default().0,
            },
        ),
        access_log: access_log(section.access_log.as_deref(), section.access_log_sample.unwrap_or_default()),
        data_dir: data_dir.join("edges").join(section.name.as_str()),
        node: NodeDoc {
            name: section.name,
            place: section.place.0,
            url: http_url("edge.url", &url)?,
            https_url: section.https_url.map(|url| https_url("edge.https_url", &url)).transpose()?,
        },
        clock: wall_clock(),
    })
}

pub(crate) async fn bind_admin(address: SocketAddr) -> Result<tokio::net::TcpListener, CliError> {
    net::bind(address).await.map_err(|error| {
        CliError::failed(format!("the admin listener {error}"))
            .with_hint("give this process one of its own with --admin IP:PORT")
    })
}

async fn bind(address: SocketAddr) -> Result<tokio::net::TcpListener, CliError> {
    net::bind(address).await.map_err(not_bound)
}

/// Sockets of a data path, one for each thread.
pub(crate) async fn bind_workers(address: SocketAddr, threads: Option<Threads>) -> Result<net::Listener, CliError> {
    let threads = threads.map_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN), |n| n.0);
    net::bind_workers(address, threads).await.map_err(not_bound)
}

fn not_bound(error: std::io::Error) -> CliError {
    CliError::failed(error.to_string()).with_hint("give the role another address: `listen` in its section, or --listen")
}

/// Where TLS is spoken, for people.
pub(crate) fn and_tls(address: Option<SocketAddr>) -> String {
    address.map_or_else(String::new, |address| format!(", TLS on {address}"))
}

/// A URL without a trailing slash.
fn http_url(setting: &str, url: &str) -> Result<String, CliError> {
    url_with_scheme(setting, url, "http")
}

/// The same for TLS.
fn https_url(setting: &str, url: &str) -> Result<String, CliError> {
    url_with_scheme(setting, url, "https")
}

fn url_with_scheme(setting: &str, url: &str, scheme: &str) -> Result<String, CliError> {
    let trimmed = url.trim_end_matches('/');
    let uri =
        trimmed.parse::<http::Uri>().ok().filter(|uri| uri.scheme_str() == Some(scheme) && uri.authority().is_some());
    match uri {
        Some(uri) if uri.path().len() <= 1 && uri.query().is_none() => Ok(trimmed.to_owned()),
        _ => Err(CliError::usage(format!("{setting}: {url:?} is not of the form {scheme}://HOST:PORT"))),
    }
}

/// The node token: in the file that is named, else in the data folder. Waits a little for control to make it.
async fn token(data_dir: &DataDir, file: Option<&Path>) -> Result<TokenSecret, CliError> {
    let path = file.map_or_else(|| data_dir.join("node.token"), Path::to_owned);
    let shown = human::file_name(&path);
    let mut waited_ms = 0;
    let text = loop {
        match std::fs::read_to_string(&path) {
            Ok(text) => break text,
            Err(error) if waited_ms >= TOKEN_WAIT_MS || error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CliError::failed(format!("cannot read the node token {shown}: {error}"))
                    .with_hint("control writes node.token into its data folder: copy it here and name it with --token-file or token_file"));
            }
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                waited_ms += 100;
            }
        }
    };
    TokenSecret::parse(text.trim()).map_err(|error| CliError::failed(format!("{shown}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_roles() {
        assert_eq!(http_url("x", "http://10.0.0.1:8601/").expect("good"), "http://10.0.0.1:8601");
        for bad in ["", "10.0.0.1:8601", "https://x", "http://x/path", "http://x?y", "ftp://x"] {
            let error = http_url("origin.control_url", bad).expect_err(bad).to_string();
            assert!(error.contains("origin.control_url"), "{error}");
        }
    }
}

//! `littoral up`: a whole CDN on this machine, from one command.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::names::{FilePath, NodeName, Place, ZoneName};
use clap::Args;
use client::{StreamItem, Upload, UploadMeta};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::assembly::{default_origin_place, wall_clock};
use crate::authority;
use crate::cli::error::CliError;
use crate::cli::globals::{ADMIN_TOKEN_FILE, Globals, RUN_FILE, RunFile};
use crate::cli::human;
use crate::cli::output::Out;
use crate::config::{DEFAULT_DISK, RouterMode, Size};
use crate::connection::Connection;
use crate::datadir::{DataDir, DataDirError};
use crate::local::{
    DEFAULT_PORT_BASE, DEFAULT_ZONE, EDGE_HTTPS_OFFSET, EDGE_OFFSET, Local, LocalConfig, LocalEdge, LocalError,
    MAX_EDGES, ROUTER_HTTPS_OFFSET, start,
};
use crate::notify;
use crate::publish::{self, SyncOptions};
use crate::sample_site;

/// The edges when nobody names any.
const DEFAULT_EDGES: [&str; 3] = ["lisbon@38.72,-9.14", "virginia@38.95,-77.45", "singapore@1.35,103.82"];
/// Rest before the event stream is opened again, in milliseconds.
const REOPEN_MS: u64 = 500;
/// How often the certificate is compared with the hosts of the zones, in milliseconds.
const CERTIFICATE_MS: u64 = 10_000;

/// What `up` takes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Ports: api N, control N+1, router N+2, monitor N+3 (UDP), admin N+4, edges from N+10 on;
over TLS: router N+5, edges from N+60 on.

Examples:
  littoral up                        a CDN with a small sample site
  littoral up ./public               a CDN that publishes a folder
  littoral up --edge oslo@59.91,10.75 --edge cairo@30.04,31.24")]
pub struct UpArgs {
    /// Folder to publish in the zone 'files'; without one, a small sample site (if the zone is empty)
    pub dir: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub listen: IpAddr,
    /// First port; 0 takes any free ports
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PORT_BASE)]
    pub port_base: u16,
    /// An edge and where it is taken to stand (repeatable) [default: lisbon, virginia and singapore]
    #[arg(long = "edge", value_name = "NAME@LAT,LNG", value_parser = parse_edge)]
    pub edges: Vec<LocalEdge>,
    /// Size of each edge's memory tier
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub memory: Size,
    /// Size of each edge's disk tier, in the data folder; 0 for none
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_DISK)]
    pub disk: Size,
    /// What the router does with a request
    #[arg(long, value_name = "MODE", value_enum, default_value = "redirect")]
    pub router: RouterMode,
    /// Speak no TLS (else with a certificate of a development authority, which 'littoral ca' shows)
    #[arg(long)]
    pub no_https: bool,
    /// Print one JSON object when ready, then each event as JSON
    #[arg(long)]
    pub json: bool,
}

fn parse_edge(text: &str) -> Result<LocalEdge, String> {
    let (name, place) = text.split_once('@').ok_or("write it like lisbon@38.72,-9.14")?;
    let name = name.parse::<NodeName>().map_err(|error| error.to_string())?;
    let place = place.parse::<Place>().map_err(|error| error.to_string())?;
    Ok(LocalEdge { name, place })
}

/// Runs until the first SIGINT or SIGTERM, then drains.
///
/// # Errors
/// Ports, the data folder, a role or the folder to publish.
pub async fn run(args: UpArgs, globals: &Globals) -> Result<(), CliError> {
    let begun = Instant::now();
    let out = Out { quiet: globals.quiet || args.json, ..globals.out() };
    crate::logging::start(out.color)?;
    let shutdown = stop_signal()?;
    if let Some(dir) = &args.dir
        && !dir.is_dir()
    {
        return Err(CliError::failed(format!("{} is not a folder", human::file_name(dir))));
    }
    let edges = edges(&args)?;
    // A client whose place is not known is taken to stand where the first edge does, so that it gets an edge.
    let default_place = edges.first().map_or_else(default_origin_place, |edge| edge.place);
    let data_dir = DataDir::open(&globals.data_dir()).map_err(data_dir_error)?;
    let config = LocalConfig {
        listen: args.listen,
        port_base: args.port_base,
        edges,
        memory_bytes: args.memory.0,
        disk_bytes: args.disk.0,
        router_mode: args.router.into(),
        origin_place: default_origin_place(),
        default_place,
        collector: origin::CollectorConfig::default(),
        dead_after_ms: monitor::DEAD_AFTER_MS,
        clock: wall_clock(),
        https: !args.no_https,
    };
    let local = tokio::select! {
        started = start(config, data_dir) => started.map_err(start_error)?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let run = RunFile {
        api: local.api.clone(),
        router: local.router.clone(),
        admin: local.admin.clone(),
        pid: std::process::id(),
    };
    let text = serde_json::to_string(&run).map_err(|error| CliError::failed(error.to_string()))?;
    local.data_dir.write(RUN_FILE, &text, 0o644).map_err(data_dir_error)?;
    out.note(format!("accepting requests after {}", human::elapsed(begun.elapsed())));

    let ended = serve(&args, &local, &out, &shutdown).await;
    out.note("stopping: requests in progress are finished first (Ctrl-C again stops at once)");
    local.data_dir.remove(RUN_FILE);
    local.process.stop().await;
    ended
}

/// Everything between «it runs» and «stop».
async fn serve(args: &UpArgs, local: &Local, out: &Out, shutdown: &CancellationToken) -> Result<(), CliError> {
    tokio::select! {
        published = publish(args, local, out) => published?,
        () = shutdown.cancelled() => return Ok(()),
    }
    if args.json {
        out.json(&ready_document(local))?;
    } else {
        out.text(&welcome(local))?;
    }
    tokio::select! {
        ended = show_events(args.json, local, out) => ended,
        () = keep_certificate(args, local) => Ok(()),
        failed = on_hangup(local.process.reloads()) => failed,
        () = shutdown.cancelled() => Ok(()),
    }
}

/// Keeps the certificate in step with the hosts of the zones. Never ends.
async fn keep_certificate(args: &UpArgs, local: &Local) {
    if args.no_https {
        return std::future::pending().await;
    }
    loop {
        if let Err(error) = local.renew_certificate(args.listen).await {
            tracing::error!(%error, "the certificate stays as it is");
        }
        tokio::time::sleep(Duration::from_millis(CERTIFICATE_MS)).await;
    }
}

fn edges(args: &UpArgs) -> Result<Vec<LocalEdge>, CliError> {
    let mut edges = args.edges.clone();
    if edges.is_empty() {
        edges = DEFAULT_EDGES.iter().filter_map(|text| parse_edge(text).ok()).collect();
    }
    if edges.len() > MAX_EDGES {
        return Err(CliError::usage(format!("{} edges; at most {MAX_EDGES} run in one process", edges.len())));
    }
    for (at, edge) in edges.iter().enumerate() {
        if edges.iter().take(at).any(|other| other.name == edge.name) {
            return Err(CliError::usage(format!("two edges are named {}", edge.name))
                .with_hint("give each --edge its own name"));
        }
        if edge.name.as_str() == routing::ORIGIN {
            return Err(CliError::usage("an edge cannot be named 'origin'"));
        }
    }
    Ok(edges)
}

pub(crate) fn data_dir_error(error: DataDirError) -> CliError {
    let hint = match &error {
        DataDirError::InUse { .. } => "stop the other process, or give this one a folder of its own with --data-dir",
        DataDirError::Newer { .. } => "run that newer version, or use another folder with --data-dir",
        DataDirError::Damaged { .. } => "put the file back as it was, or remove it to have it made anew",
        DataDirError::Io { .. } => {
            "check that the folder exists and may be written, or use another one with --data-dir"
        }
    };
    CliError::failed(error.to_string()).with_hint(hint)
}

fn start_error(error: LocalError) -> CliError {
    match error {
        LocalError::DataDir(error) => data_dir_error(error),
        LocalError::Port { .. } | LocalError::PortsRunOut { .. } => {
            let hint = format!(
                "choose other ports with --port-base N (used: N to N+{ROUTER_HTTPS_OFFSET}, and one for each edge from N+{EDGE_OFFSET} and from N+{EDGE_HTTPS_OFFSET} on)"
            );
            CliError::failed(error.to_string()).with_hint(hint)
        }
        LocalError::Start(_) | LocalError::Authority(_) | LocalError::Certificates(_) | LocalError::NotReady { .. } => {
            CliError::failed(error.to_string())
        }
    }
}

async fn publish(args: &UpArgs, local: &Local, out: &Out) -> Result<(), CliError> {
    let zone: ZoneName = DEFAULT_ZONE.parse()?;
    let connection = Connection::new(&local.api, Some(&local.admin_token));
    let Some(dir) = &args.dir else { return publish_sample(&connection, &zone, out).await };
    let progress = out.progress();
    let mut on_change = |change: publish::Change<'_>| match change {
        publish::Change::Skipped(name, why) => progress.pause(|| out.warn(format!("{name}: {why}"))),
        publish::Change::Failed(name, why) => progress.pause(|| out.fault(format!("{name}: {why}"))),
        _ => {}
    };
    let options = SyncOptions::default();
    let report = publish::sync(&connection, &zone, dir, "", &options, &progress, &mut on_change).await;
    let report =
        report.map_err(|error| CliError::failed(format!("cannot publish {}: {error}", human::file_name(dir))))?;
    out.note(format!(
        "published {}: {} ({}) uploaded in {}; {} unchanged; {} failed",
        human::file_name(dir),
        human::count(report.uploaded, "file"),
        human::size(report.uploaded_bytes),
        human::elapsed(report.elapsed),
        report.unchanged,
        report.failed
    ));
    Ok(())
}

async fn publish_sample(connection: &Connection, zone: &ZoneName, out: &Out) -> Result<(), CliError> {
    let failed = |error: client::ClientError| CliError::failed(format!("cannot publish the sample site: {error}"));
    let there = connection.calls.files(zone, "", 1, None).await.map_err(failed)?;
    if !there.files.is_empty() {
        return Ok(());
    }
    for (path, bytes) in sample_site::FILES {
        let target = Upload::Path(zone.clone(), path.parse::<FilePath>()?);
        let meta = UploadMeta { size: Some(bytes.len() as u64), ..UploadMeta::default() };
        connection.uploads.upload(&target, &meta, net::Body::full(*bytes)).await.map_err(failed)?;
    }
    out.note(format!("published the sample site ({})", human::count(sample_site::FILES.len() as u64, "file")));
    Ok(())
}

fn ready_document(local: &Local) -> serde_json::Value {
    let edges: Vec<_> = local
        .edges
        .iter()
        .map(|(node, _)| json!({"name": node.name, "url": node.url, "https_url": node.https_url, "lat": node.place.lat, "lng": node.place.lng}))
        .collect();
    json!({
        "ready": true,
        "api": local.api,
        "router": local.router,
        "router_https": local.router_https,
        "ca_file": local.router_https.as_ref().map(|_| local.data_dir.join(authority::CA_FILE)),
        "admin": local.admin,
        "edges": edges,
        "data_dir": local.data_dir.path(),
        "token_file": local.data_dir.join(ADMIN_TOKEN_FILE),
    })
}

fn welcome(local: &Local) -> String {
    let mut text = format!(
        "\nLittoral is running.\n\n  api      {}   upload, purge, administer\n  router   {}   sends each reader to an edge\n",
        local.api, local.router
    );
    if let Some(https) = &local.router_https {
        text.push_str(&format!("           {https}\n"));
    }
    for (node, _) in &local.edges {
        text.push_str(&format!("  edge     {}   {} at {}\n", node.url, node.name, node.place));
        if let Some(https) = &node.https_url {
            text.push_str(&format!("           {https}\n"));
        }
    }
    let data = human::file_name(local.data_dir.path());
    let token = human::file_name(&local.data_dir.join(ADMIN_TOKEN_FILE));
    text.push_str(&format!(
        "  admin    {}   /metrics /readyz /livez /version\n\n  data     {data}\n  token    {token}\n",
        local.admin
    ));
    if local.router_https.is_some() {
        let ca = human::file_name(&local.data_dir.join(authority::CA_FILE));
        text.push_str(&format!("  https    curl --cacert {ca} …; 'littoral ca trust' for this machine\n"));
    }
    text.push('\n');
    let flag = if std::path::Path::new(crate::cli::globals::DEFAULT_DATA_DIR).canonicalize().ok().as_deref()
        == Some(local.data_dir.path())
    {
        String::new()
    } else {
        format!(" --data-dir {data}")
    };
    text.push_str(&format!(
        "Try next, in another terminal:\n  curl -iL {}/index.html\n  echo hello | littoral put - hello.txt --wait{flag}\n  littoral locate index.html --lat 1.3 --lng 103.8{flag}\n\n",
        local.router
    ));
    text
}

/// Prints a line for each event, and for each edge that comes or goes, for as long as it can be asked.
async fn show_events(as_json: bool, local: &Local, out: &Out) -> Result<(), CliError> {
    let client = local.client();
    let mut after = None;
    let mut alive: HashMap<NodeName, bool> = local.edges.iter().map(|(node, _)| (node.name.clone(), true)).collect();
    loop {
        let Ok(mut stream) = client.events(after, true).await else {
            tokio::time::sleep(Duration::from_millis(REOPEN_MS)).await;
            continue;
        };
        while let Ok(Some(item)) = stream.next().await {
            match item {
                StreamItem::Hello(hello) => after = after.or(Some(hello.head)),
                StreamItem::Event(event) => {
                    after = Some(event.seq);
                    if as_json { out.json(&event)? } else { out.line(human::event(&event))? }
                }
                StreamItem::Health(health) => {
                    for node in health.nodes {
                        if alive.insert(node.name.clone(), node.alive) != Some(node.alive) {
                            let state = if node.alive { "is alive" } else { "is dead: no heartbeat" };
                            if as_json { out.json(&node)? } else { out.line(format!("edge {} {state}", node.name))? }
                        }
                    }
                }
                StreamItem::Ping => {}
            }
        }
    }
}

/// Cancelled by the first SIGINT or SIGTERM; the second ends the process.
pub(crate) fn stop_signal() -> Result<CancellationToken, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| CliError::failed(format!("cannot listen for signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        for code in [None, Some(130)] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match code {
                None => cancel.cancel(),
                Some(code) => std::process::exit(code),
            }
        }
    });
    Ok(token)
}

/// Calls `reload`, which may block, at each SIGHUP. Never returns, unless it cannot listen.
pub(crate) async fn on_hangup(reload: impl Fn() + Clone + Send + 'static) -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())
        .map_err(|error| CliError::failed(format!("cannot listen for signals: {error}")))?;
    while hangup.recv().await.is_some() {
        notify::reloading();
        // It says itself what goes wrong.
        let _ = tokio::task::spawn_blocking(reload.clone()).await;
        notify::ready();
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_named_once_and_placed() {
        assert!(DEFAULT_EDGES.iter().all(|text| parse_edge(text).is_ok()));
        for (text, why) in
            [("lisbon", "like lisbon@"), ("Lisbon@1,2", "a-z"), ("a@91,0", "-90 to 90"), ("a@1", "LAT,LNG")]
        {
            let error = parse_edge(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

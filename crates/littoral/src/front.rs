//! `littoral edge --upstream URL`: an edge in front of a website, without control, catalog or any other role.

use std::net::SocketAddr;

use api::{CachePolicy, PullDoc, ZoneDoc};
use edge::EdgeView;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::assembly::{FrontStart, Process, url_of, wall_clock};
use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::output::Out;
use crate::cli::zone_file;
use crate::doors;
use crate::handover::Succession;
use crate::notify;
use crate::roles::{EdgeArgs, limits};
use crate::up::{on_hangup, stop_signal};

/// Name of the zone when no file gives it another.
const ZONE: &str = "site";
/// Name of the edge when nothing else is said.
const EDGE: &str = "edge";

/// Runs an edge in front of a website until SIGINT or SIGTERM.
///
/// # Errors
/// The zone file, the policy, a port that is in use, or the edge.
pub async fn run(args: EdgeArgs, globals: &Globals) -> Result<(), CliError> {
    let out = Out { quiet: globals.quiet || args.json, ..globals.out() };
    let (zone, pull) = zone(&args)?;
    crate::logging::start(out.color)?;
    let shutdown = stop_signal()?;
    let mut process = Process::default();
    process.limits = limits(args.connections);
    let started = start(&args, zone, &pull, &mut process, &out).await;
    let ended = match started {
        Ok(running) => keep_running(running, args, &mut process, &shutdown).await,
        Err(error) => Err(error),
    };
    if ended.is_ok() {
        out.note("stopping: requests in progress are finished first (Ctrl-C again stops at once)");
    }
    process.stop().await;
    ended
}

/// Returns when the edge is to end: it is told to, or another process has its place.
async fn keep_running(
    Running { view, succession }: Running,
    args: EdgeArgs,
    process: &mut Process,
    shutdown: &CancellationToken,
) -> Result<(), CliError> {
    notify::ready();
    let (changed, reload) = (view.clone(), process.reloads());
    let reload = move || {
        reload();
        read_again(&args, &changed);
    };
    let sockets = process.sockets.take().unwrap_or_default();
    tokio::select! {
        replaced = succession.replaced(sockets, shutdown) => if !replaced {
            notify::stopping();
        },
        failed = on_hangup(reload) => failed?,
    }
    Ok(())
}

/// An edge that runs.
struct Running {
    view: EdgeView,
    succession: Succession,
}

/// Reads the zone file again, and takes the zone as a whole or not at all.
fn read_again(args: &EdgeArgs, view: &EdgeView) {
    let Some(file) = &args.zone_file else { return };
    match zone(args) {
        Ok((zone, _)) => {
            tracing::info!(file = %file.display(), zone = %zone.name, "zone file read again");
            view.replace_zone(zone);
        }
        Err(error) => {
            tracing::error!(file = %file.display(), error = %error.report(false), "the zone stays as it was");
        }
    }
}

async fn start(
    args: &EdgeArgs,
    zone: ZoneDoc,
    pull: &PullDoc,
    process: &mut Process,
    out: &Out,
) -> Result<Running, CliError> {
    let mut succession = Succession::begin(args.handover.as_deref(), process).await?;
    let opened =
        doors::open(args.listen, args.threads, args.doors.section().as_ref(), &args.doors.proxy_protocol_from, process)
            .await?;
    let address =
        |bound: std::io::Result<SocketAddr>| bound.map(url_of).map_err(|error| CliError::failed(error.to_string()));
    let url =
        opened.doors.0.first().map(|(listener, _)| address(listener.local_addr())).transpose()?.unwrap_or_default();
    let https = opened.tls_address.map(|address| format!("https://{address}"));
    let name = match &args.name {
        Some(name) => name.clone(),
        None => EDGE.parse()?,
    };
    let zone_name = zone.name.clone();
    let (cache, state_dir) = (args.tiers.config(), args.tiers.state_dir());
    let (memory_bytes, access_log) = (args.memory.0, args.access_log.config());
    let start = FrontStart { zone, name, memory_bytes, cache, access_log, state_dir, clock: wall_clock() };
    let admin = match args.admin {
        Some(listen) => Some(process.listen_admin(listen).await?),
        None => None,
    };
    // What can fail does so before anybody is served: the old process takes its place again then.
    succession.enter().await?;
    let view = process
        .front(start, opened.doors, |view| succession.prepare(view))
        .map_err(|error| CliError::failed(error.to_string()))?;
    let admin = match admin {
        Some(listener) => {
            let url = address(listener.local_addr())?;
            process.admin(listener);
            Some(url)
        }
        None => None,
    };
    succession.ready().await?;
    process.inherited.close_rest();
    let running = Running { view, succession };
    let upstreams: Vec<_> = pull.upstreams.iter().map(|upstream| upstream.url.as_str()).collect();
    if args.json {
        let ready = json!({
            "ready": true, "url": url, "https": https, "admin": admin, "zone": zone_name, "policy": pull.policy, "upstreams": upstreams
        });
        // Whoever does not listen to it has the edge all the same.
        if let Err(error) = out.json(&ready) {
            tracing::warn!(error = %error.report(false), "nobody hears that it is ready");
        }
        return Ok(running);
    }
    let policy = match pull.policy {
        CachePolicy::Safe => "safe",
        CachePolicy::Rfc => "rfc",
    };
    out.note(format!("edge on {url} in front of {} (policy {policy})", upstreams.join(", ")));
    if let Some(https) = https {
        out.note(format!("the same on {https}"));
    }
    if let Some(admin) = admin {
        out.note(format!("admin on {admin}"));
    }
    Ok(running)
}

/// The zone of the flags and the file, checked, and its policy.
fn zone(args: &EdgeArgs) -> Result<(ZoneDoc, PullDoc), CliError> {
    let mut zone = match &args.zone_file {
        Some(file) => zone_file::read(file)?,
        None => ZoneDoc::new(ZONE.parse()?),
    };
    // There is no other zone, so that a request for an unknown host could only be refused.
    zone.catch_all |= zone.hosts.is_empty();
    zone.tls = args.https.clone().apply(zone.tls.take())?;
    zone.pull = args.policy.clone().apply(zone.pull)?;
    zone.validate().map_err(CliError::usage)?;
    match zone.pull.as_deref().cloned() {
        Some(pull) => Ok((zone, pull)),
        None => Err(CliError::usage("there is no website to stand in front of")
            .with_hint("name its server with --upstream URL, or as [[pull.upstreams]] in the zone file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: EdgeArgs,
    }

    fn zone_of(line: &str) -> Result<(ZoneDoc, PullDoc), String> {
        let line = Line::try_parse_from(std::iter::once("edge").chain(line.split(' '))).expect(line);
        zone(&line.args).map_err(|error| error.report(false))
    }

    #[test]
    fn one_command_is_a_zone() {
        let (zone, pull) = zone_of("--upstream http://127.0.0.1:3000/ --policy rfc").expect("good");
        assert!(zone.catch_all && zone.hosts.is_empty());
        assert_eq!((zone.name.as_str(), pull.policy), ("site", CachePolicy::Rfc));
        assert_eq!(pull.upstreams[0].url, "http://127.0.0.1:3000");
    }

    #[test]
    fn a_file_and_flags_on_top() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("zone.toml");
        std::fs::write(
            &file,
            "name = \"shop\"\nhosts = [\"shop.example\"]\n[pull]\nupstreams = [{ url = \"http://a\" }]\nmax_tags = 5\n",
        )
        .expect("write");
        let (zone, pull) = zone_of(&format!("--zone-file {} --upstream http://b", file.display())).expect("good");
        assert_eq!((zone.name.as_str(), zone.catch_all, pull.max_tags), ("shop", false, 5));
        assert_eq!(pull.upstreams.len(), 1);
        assert_eq!(pull.upstreams[0].url, "http://b");
        std::fs::write(&file, "name = \"shop\"").expect("write");
        let error = zone_of(&format!("--zone-file {}", file.display())).expect_err("no upstream");
        assert!(error.contains("no website") && error.contains("--upstream"), "{error}");
    }

    #[test]
    fn wrong_servers_are_named() {
        for (line, word) in [
            ("--upstream 127.0.0.1:3000", "does not begin with http://"),
            ("--upstream http://127.0.0.1:3000/shop", "a path or query"),
            ("--upstream http://a --max-connections 0", "pull.max_connections: 0"),
        ] {
            let error = zone_of(line).expect_err(line);
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}

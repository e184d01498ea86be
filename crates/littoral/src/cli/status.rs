//! `status`: the state of the whole in a few numbers.

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::nodes::print_nodes;
use crate::connection::retry;

const EXAMPLES: &str = "\
Examples:
  littoral status
  littoral status -o json | jq .event";

/// The arguments of `status`: none of its own.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {}

/// Runs `status`.
pub(super) async fn run(_: StatusArgs, globals: &Globals) -> Result<(), CliError> {
    let (session, out) = (globals.session()?, globals.out());
    let calls = session.calls();
    let status = retry(|| calls.status()).await.map_err(|error| session.failed("cannot ask for the state", &error))?;
    if out.is_json() {
        return out.json(&status);
    }
    let alive = status.nodes.iter().filter(|view| view.alive).count();
    for (name, value) in [
        ("api", calls.base_url().to_owned()),
        ("version", status.version.clone()),
        ("catalog", status.catalog_id.clone()),
        ("zones", status.zones.to_string()),
        ("files", format!("{} ({})", status.files, human::size(status.bytes))),
        ("event", status.event.to_string()),
        ("generation", status.generation.to_string()),
        ("edges", format!("{} ({alive} alive)", status.nodes.len())),
    ] {
        out.line(format!("{name:<12}{value}"))?;
    }
    if status.nodes.is_empty() {
        return Ok(());
    }
    out.line("")?;
    print_nodes(&out, &status.nodes)
}

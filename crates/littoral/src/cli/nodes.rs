//! `nodes`: shows the edges, and forgets one.

use api::{NodeName, NodeView};
use clap::{Args, Subcommand};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::output::Out;
use crate::connection::retry;

const EXAMPLES: &str = "\
Examples:
  littoral nodes
  littoral nodes rm lisbon    forget an edge that is gone for good; one that runs comes back by itself";

/// The arguments of `nodes`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct NodesArgs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the edges (what happens without a word)
    Ls,
    /// Forget an edge
    Rm {
        /// Its name
        name: NodeName,
    },
}

/// Runs `nodes`.
pub(super) async fn run(args: NodesArgs, globals: &Globals) -> Result<(), CliError> {
    let (session, out) = (globals.session()?, globals.out());
    let calls = session.calls();
    match args.action.unwrap_or(Action::Ls) {
        Action::Ls => {
            let list =
                retry(|| calls.nodes()).await.map_err(|error| session.failed("cannot show the edges", &error))?;
            if out.is_json() { out.json(&list) } else { print_nodes(&out, &list.nodes) }
        }
        Action::Rm { name } => {
            let removed = calls.delete_node(&name).await;
            removed.map_err(|error| session.failed(&format!("cannot forget the edge {name}"), &error))?;
            out.note(format!("the edge {name} is forgotten"));
            Ok(())
        }
    }
}

/// Prints the edges as a table.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn print_nodes(out: &Out, nodes: &[NodeView]) -> Result<(), CliError> {
    let rows = nodes.iter().map(|view| {
        let heartbeat = view.last_heartbeat_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms ago"));
        vec![
            view.node.name.to_string(),
            view.node.place.to_string(),
            view.node.url.clone(),
            if view.alive { "alive" } else { "dead" }.to_owned(),
            heartbeat,
            view.load.to_string(),
            view.applied.to_string(),
            view.files.to_string(),
        ]
    });
    out.table(&["EDGE", "PLACE", "URL", "STATE", "HEARTBEAT", "LOAD", "EVENT", "FILES"], rows)
}

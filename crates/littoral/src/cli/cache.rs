//! `cache`: what can be asked about caches, of a running edge or of a trace. The actions stand in files of their own.

mod entries;
mod simulate;
mod stats;
mod tool;
mod trace;

use clap::{Args, Subcommand};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;

const EXAMPLES: &str = "\
All but 'simulate' ask a running edge, through the admin listener of its process, from the same machine.

Examples:
  littoral cache stats
  littoral cache ls --zone shop --tier disk --limit 20
  littoral cache show https://shop.example/img/a.png
  littoral cache evict --prefix https://shop.example/img/
  littoral cache verify --rate 20MiB
  littoral cache simulate requests.trace --sizes 1%,5%,10%,20% --policies lru,auto --objective bytes -o json";

/// The arguments of `cache`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CacheArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what an edge has stored
    Ls(entries::LsArgs),
    /// Show everything that is known of a stored response or file
    Show(entries::ShowArgs),
    /// Show the tiers of an edge in numbers
    Stats(stats::StatsArgs),
    /// Read everything on an edge's disk again, and drop what is damaged
    Verify(stats::VerifyArgs),
    /// Let an edge forget some of what it has stored, to be fetched again
    Evict(entries::EvictArgs),
    /// Replay a trace of requests through eviction policies, and show what they would miss
    Simulate(simulate::SimulateArgs),
}

/// Runs `cache`.
pub(super) async fn run(args: CacheArgs, globals: &Globals) -> Result<(), CliError> {
    match args.action {
        Action::Ls(args) => entries::ls(args, globals).await,
        Action::Show(args) => entries::show(args, globals).await,
        Action::Stats(args) => stats::stats(args, globals).await,
        Action::Verify(args) => stats::verify(args, globals).await,
        Action::Evict(args) => entries::evict(args, globals).await,
        Action::Simulate(args) => simulate::run(args, globals).await,
    }
}

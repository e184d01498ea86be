//! `cache`: what can be asked about caches. Each action stands in a file of its own.

mod simulate;
mod trace;

use clap::{Args, Subcommand};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;

const EXAMPLES: &str = "\
Examples:
  littoral cache simulate requests.trace.xz --sizes 64MiB,256MiB,1GiB
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
    /// Replay a trace of requests through eviction policies, and show what they would miss
    Simulate(simulate::SimulateArgs),
}

/// Runs `cache`.
pub(super) async fn run(args: CacheArgs, globals: &Globals) -> Result<(), CliError> {
    match args.action {
        Action::Simulate(args) => simulate::run(args, globals).await,
    }
}

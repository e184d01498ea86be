//! `completions` and `version`: what needs no CDN.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::output::Out;

const EXAMPLES: &str = "\
Examples:
  littoral completions bash > ~/.local/share/bash-completion/completions/littoral
  littoral completions fish > ~/.config/fish/completions/littoral.fish";

/// The arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Runs `completions`.
pub(super) fn run(args: &CompletionsArgs, out: &Out) -> Result<(), CliError> {
    // Into memory first: the generator panics where it cannot write, and standard output may be closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "littoral", &mut script);
    out.text(&String::from_utf8_lossy(&script))
}

/// Runs `version`.
pub(super) fn version(out: &Out) -> Result<(), CliError> {
    let version = env!("CARGO_PKG_VERSION");
    if out.is_json() { out.json(&json!({ "version": version })) } else { out.line(format!("littoral {version}")) }
}

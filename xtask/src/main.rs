//! Developer commands: `cargo xtask test`, `cargo xtask browse`, `cargo xtask wordpress`, `cargo xtask conformance`,
//! `cargo xtask torture`, `cargo xtask takeover`, `cargo xtask bench`, `cargo xtask promises`.
#![expect(clippy::print_stdout, reason = "a developer command that prints what it does")]

mod bench;
mod browse;
mod conformance;
mod disk_hits;
mod herd;
mod many_entries;
mod promises;
mod replay;
mod shell;
mod takeover;
mod torture;
mod up;
mod wordpress;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::shell::{Failed, cargo, install, step};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Littoral's developer commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests need from Debian and npm, then run every check there is
    Test {
        /// Leave out what takes a browser
        #[arg(long)]
        quick: bool,
    },
    /// Publish a site of over 1,000 files with `up` and read it through each edge in headless Chromium
    Browse {
        /// Pages to open through each edge; 0 opens all
        #[arg(long, default_value_t = 40)]
        pages: usize,
    },
    /// Browse WordPress through an edge in headless Chromium, logged in and not, and compare with WordPress itself
    Wordpress,
    /// Run the public test suite for HTTP caches, and compare the score with what is expected
    Conformance(conformance::Options),
    /// Damage the disk tier of a running edge, and kill it, while readers check every byte
    Torture(torture::Options),
    /// Replace an edge under load by a new process again and again, and count requests that fail
    Takeover(takeover::Options),
    /// Measure the edge beside nginx, HAProxy, Varnish and Traffic Server
    Bench(bench::Options),
    /// The origin of `bench`
    #[command(hide = true)]
    BenchOrigin,
    /// A load of `bench`
    #[command(hide = true)]
    BenchLoad(bench::LoadOptions),
    /// Measure what is promised, and print it beside its bound
    Promises {
        /// Smaller bodies and fewer rounds
        #[arg(long)]
        quick: bool,
        /// Only the row about thousands of clients for one cold object
        #[arg(long)]
        herd: bool,
        /// Only the rows about large objects on disk, beside nginx
        #[arg(long)]
        shelf: bool,
        /// Only the rows about so many entries on disk: what they cost in memory, and how long a start takes
        #[arg(long, value_name = "ENTRIES")]
        entries: Option<u64>,
        #[command(flatten)]
        replay: promises::ReplayOptions,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Test { quick } => test(quick),
        Command::Browse { pages } => browse::run(pages),
        Command::Wordpress => wordpress::run(),
        Command::Conformance(options) => conformance::run(&options),
        Command::Torture(options) => torture::run(&options),
        Command::Takeover(options) => takeover::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::BenchOrigin => bench::origin(),
        Command::BenchLoad(options) => bench::load(&options),
        Command::Promises { entries: Some(entries), replay, .. } => promises::entries(&replay, entries),
        Command::Promises { shelf: true, replay, .. } => promises::shelf(&replay),
        Command::Promises { quick, herd, replay, .. } => promises::run(quick, herd, &replay),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(why)) => {
            println!("FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

fn test(quick: bool) -> Result<(), Failed> {
    step("format", || cargo(&["fmt", "--all", "--check"]))?;
    step("lints", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    step("clients", || install(&["curl", "nghttp2-client"]))?;
    step("tests", || cargo(&["test", "--workspace"]))?;
    step("conformance", || conformance::run(&conformance::Options::default()))?;
    step("torture", torture::short)?;
    if !quick {
        step("browser", || browse::run(12))?;
        step("wordpress", wordpress::run)?;
    }
    println!("all steps passed");
    Ok(())
}

//! The command line: what there is to say, and how a run ends.
//!
//! Data goes to standard output, as tables or JSON; progress, summaries, warnings and errors go to standard error. The
//! exit code is 0, or 1 when something was tried and failed, or 2 when what was asked for cannot be meant.

pub mod error;
pub mod globals;
pub mod https;
pub mod human;
pub mod output;
pub mod policy;
pub mod policy_values;
pub mod session;
pub mod values;
pub mod zone_file;

mod ca;
mod cache;
mod completions;
mod download;
mod events;
mod explain;
mod fetch;
mod get;
mod locate;
mod ls;
mod mv;
mod nodes;
mod purge;
mod put;
mod put_plan;
mod report;
mod rm;
mod status;
mod sync;
mod tokens;
mod zone_show;
mod zones;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::CliError;
pub use globals::{ADMIN_TOKEN_FILE, DEFAULT_DATA_DIR, Globals, RUN_FILE, RunFile};
pub use output::{Format, Out};
pub use session::Session;

use crate::roles::{self, EdgeArgs, RoleArgs, RouterArgs, Which};
use crate::up::{self, UpArgs};

/// A content delivery network in one binary.
#[derive(Debug, Parser)]
#[command(name = "littoral", version, arg_required_else_help = true, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole CDN on this machine
    Up(UpArgs),
    /// Run the roles that a configuration file names
    #[command(after_help = "Example:\n  littoral run --config littoral.toml")]
    Run(RoleArgs),
    /// Run only the control role of a configuration file
    #[command(after_help = "Example:\n  littoral control --config littoral.toml")]
    Control(RoleArgs),
    /// Run only the origin role of a configuration file
    #[command(after_help = "Example:\n  littoral origin --config littoral.toml")]
    Origin(RoleArgs),
    /// Run only the monitor role of a configuration file
    #[command(after_help = "Example:\n  littoral monitor --config littoral.toml")]
    Monitor(RoleArgs),
    /// Run only the router role of a configuration file
    #[command(after_help = "Example:\n  littoral router --config littoral.toml")]
    Router(RouterArgs),
    /// Run an edge: in front of a website, or as part of a CDN
    Edge(Box<EdgeArgs>),
    #[command(flatten)]
    Client(ClientCommand),
}

/// The commands that speak to a CDN that runs already, or to none.
#[derive(Debug, Subcommand)]
enum ClientCommand {
    /// Upload files, a folder, or standard input
    Put(put::PutArgs),
    /// Download a file and verify it
    Get(get::GetArgs),
    /// List files
    Ls(ls::LsArgs),
    /// Delete files
    Rm(rm::RmArgs),
    /// Rename a file; its URL by id stays
    Mv(mv::MvArgs),
    /// Make a zone the same as a folder, uploading only what differs
    Sync(sync::SyncArgs),
    /// Make the edges forget what they have cached
    Purge(purge::PurgeArgs),
    /// Show the edges
    Nodes(nodes::NodesArgs),
    /// Show, make, change and delete zones
    #[command(visible_alias = "zone")]
    Zones(zones::ZonesArgs),
    /// Show, make and delete tokens
    Tokens(tokens::TokensArgs),
    /// Show where a file is read from at some place, and why
    Locate(locate::LocateArgs),
    /// Show what an edge would do with a request, and why
    Explain(explain::ExplainArgs),
    /// Show the log of changes
    Events(events::EventsArgs),
    /// Show the state of the whole
    Status(status::StatusArgs),
    /// Look into the cache of an edge, change it, and replay traces
    Cache(cache::CacheArgs),
    /// Show the development authority that 'up' makes, and make this machine trust it
    Ca(ca::CaArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the version
    Version,
}

/// Runs the program: reads the command line, does what it says, and answers the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads to its end is no error.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let color = cli.globals.color.on_stderr();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::to_stderr(&error.report(color));
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(cli: Cli) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(run(cli));
    // A thread that waits for standard input or a disk must not keep the program from ending.
    runtime.shutdown_background();
    result
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let Cli { globals, command } = cli;
    let command = match command {
        // These listen for signals themselves, and drain.
        Command::Up(args) => return up::run(args, &globals).await,
        Command::Run(args) => return roles::run(Which::All, &args, None, &globals).await,
        Command::Control(args) => return roles::run(Which::Control, &args, None, &globals).await,
        Command::Origin(args) => return roles::run(Which::Origin, &args, None, &globals).await,
        Command::Monitor(args) => return roles::run(Which::Monitor, &args, None, &globals).await,
        Command::Router(args) => {
            return roles::run(Which::Router, &args.role, args.handover.as_deref(), &globals).await;
        }
        Command::Edge(args) => return roles::run_edge(*args, &globals).await,
        Command::Client(command) => command,
    };
    tokio::select! {
        result = command.run(&globals) => result,
        // What is dropped here cleans up after itself (a half-written file, for example).
        _ = tokio::signal::ctrl_c() => Err(CliError::failed("interrupted")),
    }
}

impl ClientCommand {
    async fn run(self, globals: &Globals) -> Result<(), CliError> {
        match self {
            Self::Put(args) => put::run(args, globals).await,
            Self::Get(args) => get::run(args, globals).await,
            Self::Ls(args) => ls::run(args, globals).await,
            Self::Rm(args) => rm::run(args, globals).await,
            Self::Mv(args) => mv::run(args, globals).await,
            Self::Sync(args) => sync::run(args, globals).await,
            Self::Purge(args) => purge::run(args, globals).await,
            Self::Nodes(args) => nodes::run(args, globals).await,
            Self::Zones(args) => zones::run(args, globals).await,
            Self::Tokens(args) => tokens::run(args, globals).await,
            Self::Locate(args) => locate::run(args, globals).await,
            Self::Explain(args) => explain::run(args, globals).await,
            Self::Events(args) => events::run(args, globals).await,
            Self::Status(args) => status::run(args, globals).await,
            Self::Cache(args) => cache::run(args, globals).await,
            Self::Ca(args) => ca::run(args, globals),
            Self::Completions(args) => completions::run(&args, &globals.out()),
            Self::Version => completions::version(&globals.out()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_consistent_and_each_has_a_line_and_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} does not say what it does");
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(name == "version" || example.contains(&format!("littoral {name}")), "{name} has no example");
        }
    }

    /// The exit code and the message for a command line that is refused.
    fn refused(line: &str) -> (i32, String) {
        let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
        (error.exit_code(), error.to_string())
    }

    #[test]
    fn wrong_command_lines_are_refused_with_what_would_be_right() {
        for (line, expected) in [
            ("littoral putt x", "'put'"),
            ("littoral ls --zone Bad_Name", "use 1 to 63 of a-z"),
            ("littoral ls --zone", "<ZONE>"),
            ("littoral tokens add x --scope reed", "use read, write, purge or admin"),
            ("littoral tokens add x --scope read --expires soon", "like 45s, 30m, 12h, 30d or 2w"),
            ("littoral tokens add x", "--scope"),
            ("littoral locate a --lat 1", "--lng"),
            ("littoral sync . --jobs 65", "1..=64"),
            ("littoral put a --tag a,b", "without spaces or commas"),
            ("littoral put a --if-match x", "64 hexadecimal digits"),
            ("littoral put a --if-new --if-match *", "cannot be used with"),
            ("littoral rm", "<PATH"),
            ("littoral ls --outptu json", "--output"),
            ("littoral cache simulate x", "--sizes"),
            ("littoral zones set a --eviction fifo", "lru, lfu, s3fifo, sieve, gdsf or auto"),
            ("littoral zones set a --objective speed", "requests or bytes"),
            ("littoral cache ls --tier tape", "--tier"),
            ("littoral cache ls --older soon", "like 45s, 30m, 12h, 30d or 2w"),
            ("littoral cache ls --limit 0", "--limit"),
            ("littoral cache ls --zone Bad_Name", "use 1 to 63 of a-z"),
            ("littoral cache ls --edge Bad_Name", "--edge"),
            ("littoral cache show", "<WHAT>"),
            ("littoral cache verify --rate 1GB", "512KiB, 64MiB or 2GiB"),
            ("littoral cache simulate x --sizes 1GB", "512KiB, 64MiB or 2GiB"),
            ("littoral cache simulate x --sizes 0", "at least 1 byte"),
            ("littoral cache simulate x --sizes 101%", "from 0.0001% to 100%"),
            ("littoral cache simulate x --sizes 1 --policies lru,fifo", "lru, lfu, s3fifo, sieve, gdsf, auto, none"),
            ("littoral cache simulate x --sizes 1 --objective speed", "requests or bytes"),
        ] {
            let (code, message) = refused(line);
            assert_eq!(code, 2, "{line}");
            assert!(message.contains(expected), "{line}: {message}");
        }
    }
}

//! `locate`: where a file is read from, and why.

use api::docs::Candidate;
use api::{Locate, Place, ZoneName};
use clap::Args;

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::output::Out;
use crate::cli::values::Remote;
use crate::connection::retry;

const EXAMPLES: &str = "\
Examples:
  littoral locate index.html
  littoral locate docs:index.html --lat 1.35 --lng 103.82";

/// The arguments of `locate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LocateArgs {
    /// The file: PATH or ZONE:PATH
    path: String,
    /// The zone [default: files]
    #[arg(long)]
    zone: Option<ZoneName>,
    /// The reader's latitude in degrees, north positive
    #[arg(long, value_name = "DEGREES", allow_negative_numbers = true, requires = "lng")]
    lat: Option<f64>,
    /// The reader's longitude in degrees, east positive
    #[arg(long, value_name = "DEGREES", allow_negative_numbers = true, requires = "lat")]
    lng: Option<f64>,
}

/// Runs `locate`.
pub(super) async fn run(args: LocateArgs, globals: &Globals) -> Result<(), CliError> {
    let remote = Remote::parse(&args.path, args.zone.as_ref())?;
    let path = remote.path()?;
    let place = args.lat.zip(args.lng).map(|(lat, lng)| Place::new(lat, lng)).transpose()?;
    let (session, out) = (globals.session()?, globals.out());
    let calls = session.calls();
    let answer = retry(|| calls.locate(&remote.zone, &path, place)).await;
    let answer = answer.map_err(|error| session.failed(&format!("cannot locate {path}"), &error))?;
    if out.is_json() { out.json(&answer) } else { print(&out, &answer) }
}

fn print(out: &Out, answer: &Locate) -> Result<(), CliError> {
    out.line(format!("{}:{} read from {}", answer.zone, answer.path, answer.client))?;
    out.line(format!("{}: {}", answer.chosen, answer.reason))?;
    out.line(format!("{}\n", answer.url))?;
    out.table(&["", "FROM", "DISTANCE", "STATE", "FILE", "WHY"], answer.candidates.iter().map(row))
}

fn row(candidate: &Candidate) -> Vec<String> {
    vec![
        if candidate.chosen { "*" } else { "" }.to_owned(),
        candidate.name.clone(),
        format!("{:.0} km", candidate.distance_km),
        if candidate.alive { "alive" } else { "dead" }.to_owned(),
        if candidate.has_file { "has it" } else { "-" }.to_owned(),
        candidate.reason.clone(),
    ]
}

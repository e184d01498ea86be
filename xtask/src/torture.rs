//! `cargo xtask torture`: a running edge with a disk tier, whose files are damaged, or which is killed, while readers check every
//! byte that they get. Ends with 1 when anything wrong was served, or a fault was not counted.

mod damage;
pub(crate) mod edge;
mod faults;
mod kills;
pub(crate) mod reader;
pub(crate) mod world;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use self::edge::Setup;
use self::world::World;
use crate::shell::{Failed, cargo, release_binary, target};

/// What may lie on disk: more than there is.
const DISK: &str = "1GiB";
/// The part of the time that goes to faults where both are wanted: one in so many.
const FAULTS_PART: u32 = 2;
/// The seed where none is given.
const SEED: u64 = 4;

#[derive(Args)]
pub(crate) struct Options {
    /// How long, in seconds; what is begun is brought to its end
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// What is done to it
    #[arg(long, value_enum, default_value_t = What::All)]
    kind: What,
    /// The seed of everything that is random here
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// How the outcome is printed
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
    /// The program to torture; without it, the release build
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Faults,
    Kills,
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

/// The short form, as a step of the tests: with the profile that they have built.
pub(crate) fn short() -> Result<(), Failed> {
    cargo(&["build", "--package", "littoral"])?;
    let binary = Some(target("debug")?.join("littoral"));
    run(&Options { seconds: 10, kind: What::All, seed: SEED, output: Form::Table, binary })
}

pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => release_binary()?,
    };
    let time = Duration::from_secs(options.seconds.into());
    let share = if options.kind == What::All { time / FAULTS_PART } else { time };
    let runtime = tokio::runtime::Runtime::new()?;
    let (mut good, mut printed) = (true, serde_json::Map::new());
    if options.kind != What::Kills {
        let outcome = runtime.block_on(faults(binary.clone(), share, options.seed))?;
        good &= outcome.is_good();
        if options.output == Form::Table {
            print_faults(&outcome);
        }
        printed.insert("faults".to_owned(), with_sum(&outcome)?);
    }
    if options.kind != What::Faults {
        let outcome = runtime.block_on(kills(binary, share, options.seed))?;
        good &= outcome.is_good();
        if options.output == Form::Table {
            print_kills(&outcome);
        }
        printed.insert("kills".to_owned(), serde_json::to_value(&outcome)?);
    }
    if options.output == Form::Json {
        printed.insert("good".to_owned(), json!(good));
        println!("{}", Value::Object(printed));
    }
    if good { Ok(()) } else { Err(Failed(format!("something was wrong; the seed was {}", options.seed))) }
}

async fn faults(binary: PathBuf, time: Duration, seed: u64) -> Result<faults::Outcome, Failed> {
    let folder = tempfile::tempdir_in(target("torture")?)?;
    let world = World::start(&faults::sizes(&mut fastrand::Rng::with_seed(seed))).await?;
    let setup = Setup { binary, folder: folder.path().join("disk"), disk: DISK, origin: world.origin, eviction: "lru" };
    faults::run(setup, world, time, seed).await
}

async fn kills(binary: PathBuf, time: Duration, seed: u64) -> Result<kills::Outcome, Failed> {
    let folder = tempfile::tempdir_in(target("torture")?)?;
    let world = World::start(&kills::sizes(&mut fastrand::Rng::with_seed(seed))).await?;
    let setup =
        Setup { binary, folder: folder.path().join("disk"), disk: DISK, origin: world.origin, eviction: "auto" };
    kills::run(setup, world, time, seed).await
}

fn with_sum(outcome: &faults::Outcome) -> Result<Value, Failed> {
    let mut value = serde_json::to_value(outcome)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("faults".to_owned(), json!(outcome.faults()));
    }
    Ok(value)
}

fn print_faults(outcome: &faults::Outcome) {
    println!("\n| faults | |\n| --- | --- |");
    for (kind, count) in &outcome.by_kind {
        println!("| {kind} | {count} |");
    }
    let rows = [
        ("**faults in all**", outcome.faults()),
        ("files damaged", outcome.files_damaged),
        ("met by a read, and counted", outcome.met),
        ("not met (purged, replaced or held open)", outcome.not_met),
        ("**not counted**", outcome.uncounted),
        ("counted by the edge (/metrics)", outcome.counted),
        ("restarts with a damaged index", outcome.restarts),
        ("answers checked", outcome.requests),
        ("bytes checked", outcome.read_bytes),
        ("**wrong answers**", outcome.wrong),
        ("failed answers", outcome.failed),
    ];
    rows.iter().for_each(|(what, count)| println!("| {what} | {count} |"));
    outcome.told.iter().for_each(|line| println!("{line}"));
}

fn print_kills(outcome: &kills::Outcome) {
    println!("\n| kills | |\n| --- | --- |");
    let rows = [
        ("kill -9 under load", outcome.kills.to_string()),
        ("whole on disk at a kill", outcome.whole.to_string()),
        ("of these, hits after the start", format!("{} ({:.2} %)", outcome.hits, 100.0 * outcome.kept())),
        (
            "start to first hit",
            format!("median {} ms, most {} ms", outcome.first_hit_median_ms, outcome.first_hit_most_ms),
        ),
        ("purges answered", outcome.purges.to_string()),
        ("answers checked", outcome.requests.to_string()),
        ("**wrong answers**", outcome.wrong.to_string()),
        ("failed answers after a start", outcome.failed.to_string()),
        ("damaged files found", outcome.damaged.to_string()),
    ];
    rows.iter().for_each(|(what, value)| println!("| {what} | {value} |"));
    outcome.told.iter().for_each(|line| println!("{line}"));
}

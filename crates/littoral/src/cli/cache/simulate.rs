//! `cache simulate`: replays a trace through the policies, with the very code that the tiers of an edge run.
//!
//! The trace is in memory once, 16 bytes for a request; a run holds beside it only the index of one simulated cache.
//! Runs follow each other in the order in which policies and sizes were named.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde::Serialize;
use shelf::simulate::Simulation;
use shelf::{Objective, PolicyChoice, PolicyName};

use crate::cli::cache::trace::{self, TraceRequest};
use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::output::Out;
use crate::config::Size;

const EXAMPLES: &str = "\
A trace has a line for each request: 'time id size', with white space between; it may be compressed with xz. What is \
asked for and not there is kept at once, if it fits. An object has its last size throughout. An edge counts some hundred bytes more for each object than its body: see --overhead.

Examples:
  littoral cache simulate requests.trace.xz --sizes 64MiB,256MiB,1GiB
  littoral cache simulate requests.trace --sizes 1%,5%,10%,20% --policies lru,gdsf,auto
  littoral cache simulate requests.trace --sizes 1GiB --objective bytes --overhead 600 -o json";

/// The arguments of `cache simulate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SimulateArgs {
    /// File with the trace
    trace: PathBuf,
    /// Sizes of the cache: in bytes, like 512MiB, or in parts of all objects together, like 5%
    #[arg(long, value_name = "BYTES", value_delimiter = ',', required = true, num_args = 1)]
    sizes: Vec<CacheSize>,
    /// Policies to compare [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 1)]
    policies: Vec<PolicyName>,
    /// What policies that can choose aim at: requests or bytes
    #[arg(long, value_name = "WORD", default_value_t)]
    objective: Objective,
    /// What each object weighs in the cache beside its size
    #[arg(long, value_name = "BYTES", default_value = "0")]
    overhead: Size,
}

/// The size of a cache, as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum CacheSize {
    Bytes(u64),
    /// Of the footprint of the trace.
    Percent(f64),
}

/// The least part of the footprint that can be written.
const MIN_PERCENT: f64 = 0.0001;

impl FromStr for CacheSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else {
            let Size(bytes) = text.parse().map_err(|why| format!("{why}, or like 5%"))?;
            return if bytes > 0 { Ok(Self::Bytes(bytes)) } else { Err("a cache has at least 1 byte".to_owned()) };
        };
        let right = |percent: &f64| (MIN_PERCENT..=100.0).contains(percent);
        let percent = percent.parse().ok().filter(right);
        percent.map(Self::Percent).ok_or_else(|| format!("{text:?} is not a part; use from {MIN_PERCENT}% to 100%"))
    }
}

impl CacheSize {
    fn bytes(self, footprint_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (footprint_bytes as f64 * percent / 100.0) as u64,
        }
    }
}

/// What came out for a policy and a size.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    policy: &'static str,
    /// In bytes.
    size: u64,
    request_miss_ratio: f64,
    byte_miss_ratio: f64,
}

/// Runs `cache simulate`.
pub(super) async fn run(args: SimulateArgs, globals: &Globals) -> Result<(), CliError> {
    let out = globals.out();
    let failed = |error| CliError::failed(format!("the simulation broke off: {error}"));
    let rows = tokio::task::spawn_blocking(move || simulate(&args, &out)).await.map_err(failed)??;
    let out = globals.out();
    if out.is_json() {
        return out.json(&rows);
    }
    out.table(&["POLICY", "SIZE", "BYTES", "REQUESTS MISSED", "BYTES MISSED"], rows.iter().map(cells))
}

fn simulate(args: &SimulateArgs, out: &Out) -> Result<Vec<Row>, CliError> {
    let mut requests = trace::read(&args.trace).map_err(|error| CliError::failed(error.to_string()))?;
    let footprint_bytes = trace::settle_sizes(&mut requests);
    out.note(format_args!(
        "{} for {} of objects",
        human::count(requests.len() as u64, "request"),
        human::size(footprint_bytes)
    ));
    // Eviction that is off is compared with by those who ask for it.
    let evicting = || PolicyName::ALL.into_iter().filter(|policy| *policy != PolicyName::None).collect();
    let policies = if args.policies.is_empty() { evicting() } else { args.policies.clone() };
    let mut rows = Vec::new();
    for policy in policies {
        for size in &args.sizes {
            let choice = PolicyChoice { policy, objective: args.objective };
            rows.push(replay(&requests, choice, size.bytes(footprint_bytes), args.overhead.0));
        }
    }
    Ok(rows)
}

fn replay(requests: &[TraceRequest], choice: PolicyChoice, size: u64, overhead_bytes: u64) -> Row {
    let mut simulation = Simulation::new(size, choice);
    for request in requests {
        simulation.request(request.id, request.bytes, overhead_bytes);
    }
    let outcome = simulation.outcome();
    Row {
        policy: choice.policy.as_str(),
        size,
        request_miss_ratio: outcome.request_miss_ratio(),
        byte_miss_ratio: outcome.byte_miss_ratio(),
    }
}

fn cells(row: &Row) -> Vec<String> {
    vec![
        row.policy.to_owned(),
        human::size(row.size),
        row.size.to_string(),
        format!("{:.4}", row.request_miss_ratio),
        format!("{:.4}", row.byte_miss_ratio),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_parts() {
        for (text, bytes) in [("1", 1), ("2MiB", 2 << 20), ("5%", 50), ("100%", 1000), ("0.26%", 2)] {
            assert_eq!(text.parse::<CacheSize>().expect(text).bytes(1000), bytes, "{text}");
        }
        for text in ["", "%", "0", "0%", "0.00001%", "101%", "-1%", "nan%", "5 %x", "1.5GiB", "99999999999TiB"] {
            assert!(text.parse::<CacheSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn rows_are_what_the_policies_do() {
        // Three objects in turn through a cache for two: LRU never hits.
        let requests: Vec<TraceRequest> = (0..30).map(|n| TraceRequest { id: n % 3, bytes: 10 }).collect();
        let lru = PolicyChoice { policy: PolicyName::Lru, objective: Objective::Requests };
        let row = |size, overhead| {
            let row = replay(&requests, lru, size, overhead);
            ((row.request_miss_ratio * 30.0).round(), (row.byte_miss_ratio * 300.0).round())
        };
        assert_eq!(
            (row(20, 0), row(30, 0), row(30, 1), row(33, 1)),
            ((30.0, 300.0), (3.0, 30.0), (30.0, 300.0), (3.0, 30.0))
        );
    }
}

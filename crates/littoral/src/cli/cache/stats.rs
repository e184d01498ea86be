//! `cache stats` and `cache verify`: the tiers in numbers, and whether what is on disk is whole.

use std::time::Instant;

use api::cache::{CacheStats, CacheVerified, CacheVerify, CurvePoint, DiskFolderState, DiskFolderStats};
use clap::Args;
use serde_json::json;

use crate::cli::cache::tool::{Tool, ToolArgs};
use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::config::Size;

const STATS_EXAMPLES: &str = "\
What is counted is counted since the edge was started. The curve says which part of the recent requests for what can be
stored, and of their bytes, memory would answer if it were half, twice or four times as large: an estimate from a sample.
That of the disk says the same of the requests that memory did not answer.

Examples:
  littoral cache stats
  littoral cache stats --admin http://127.0.0.1:9100 --edge oslo -o json";

const VERIFY_EXAMPLES: &str = "\
Everything on disk is read and compared with its checksums. What is damaged is dropped, counted, and fetched again when
it is asked for. The exit code is 1 if something was damaged or cannot be read.

Examples:
  littoral cache verify
  littoral cache verify --rate 20MiB -o json";

/// The arguments of `cache stats`.
#[derive(Debug, Args)]
#[command(after_help = STATS_EXAMPLES)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    tool: ToolArgs,
}

/// The arguments of `cache verify`.
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(super) struct VerifyArgs {
    /// How much is read in a second, at most; at least 1MiB [default: 100MiB]
    #[arg(long, value_name = "SIZE")]
    rate: Option<Size>,
    #[command(flatten)]
    tool: ToolArgs,
}

/// Runs `cache stats`.
pub(super) async fn stats(args: StatsArgs, globals: &Globals) -> Result<(), CliError> {
    let (tool, out) = (Tool::find(&args.tool, globals).await?, globals.out());
    let stats: CacheStats = tool.get("stats").await?;
    if out.is_json() { out.json(&stats) } else { out.text(&human::plain_lines(&lines(&stats))) }
}

fn lines(stats: &CacheStats) -> Vec<String> {
    let memory = &stats.memory;
    let mut facts = vec![
        ("edge", stats.node.to_string()),
        ("memory", used(memory.entries, memory.bytes, memory.limit_bytes)),
        ("", ratio(memory.hits, memory.misses)),
        (
            "",
            format!(
                "{} put in, {} left for others, {} had expired, {} refused",
                memory.admissions, memory.evictions, memory.expired, memory.refused
            ),
        ),
        ("policy", format!("{}, for {}", memory.eviction, memory.objective)),
    ];
    for class in &memory.classes {
        let zones = class.zones.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        facts.push(("", format!("{}, for {}: zones {zones}", class.eviction, class.objective)));
    }
    let of = |curve: &[CurvePoint]| curve.iter().enumerate().map(point).collect::<Vec<_>>();
    facts.extend(of(&memory.curve));
    match &stats.disk {
        None => facts.push(("disk", "none".to_owned())),
        Some(disk) => {
            facts.push(("disk", ratio(disk.hits, disk.misses)));
            facts.extend(of(&disk.curve));
            facts.extend(disk.folders.iter().flat_map(folder));
        }
    }
    facts.into_iter().map(|(name, value)| format!("{name:<9}{value}")).collect()
}

fn used(entries: u64, bytes: u64, limit_bytes: u64) -> String {
    format!("{entries} entries, {} of {}", human::size(bytes), human::size(limit_bytes))
}

fn ratio(hits: u64, misses: u64) -> String {
    let all = hits.saturating_add(misses);
    let percent = if all == 0 { 0.0 } else { hits as f64 * 100.0 / all as f64 };
    format!("{hits} hits, {misses} misses ({percent:.1} % hits)")
}

fn point((at, point): (usize, &CurvePoint)) -> (&'static str, String) {
    let text = format!(
        "at {} × its size: {:.1} % of requests, {:.1} % of bytes",
        point.factor,
        point.requests * 100.0,
        point.bytes * 100.0
    );
    (if at == 0 { "curve" } else { "" }, text)
}

fn folder(folder: &DiskFolderStats) -> Vec<(&'static str, String)> {
    let state = match folder.state {
        DiskFolderState::Ok => "in use",
        DiskFolderState::ReadOnly => "only read",
        DiskFolderState::Gone => "out of use",
    };
    let reason = folder.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let damaged: Vec<String> =
        folder.damaged.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{count} {kind}")).collect();
    let mut facts = vec![
        ("folder", folder.path.clone()),
        ("", format!("{state}{reason}")),
        ("", used(folder.entries, folder.bytes, folder.limit_bytes)),
        (
            "",
            format!(
                "{} written ({} failed, {} refused), {} read ({} failed)",
                human::size(folder.written_bytes),
                folder.write_errors,
                folder.refused,
                human::size(folder.read_bytes),
                folder.read_errors
            ),
        ),
        ("", format!("{} left for others, {} had expired", folder.evictions, folder.expired)),
    ];
    if !damaged.is_empty() {
        facts.push(("", format!("damaged: {}", damaged.join(", "))));
    }
    if folder.scanned_permille < 1_000 {
        facts.push(("", format!("being looked through: {} %", folder.scanned_permille / 10)));
    }
    facts
}

/// Runs `cache verify`.
pub(super) async fn verify(args: VerifyArgs, globals: &Globals) -> Result<(), CliError> {
    let (tool, out) = (Tool::find(&args.tool, globals).await?, globals.out());
    let mut step = CacheVerify { bytes_per_s: args.rate.map(|Size(bytes)| bytes), cursor: None };
    let (mut all, mut shown) = (CacheVerified::default(), Instant::now());
    loop {
        let done: CacheVerified = tool.post("verify", &step).await?;
        all.entries += done.entries;
        all.bytes += done.bytes;
        all.unreadable += done.unreadable;
        for found in &done.findings {
            let slice = found.slice.map_or_else(String::new, |slice| format!(", slice {slice}"));
            if out.is_json() {
                out.json(found)?;
            } else {
                out.line(format_args!("{} in folder {}{slice}: {}", found.key, found.folder, found.what))?;
            }
        }
        all.findings.extend(done.findings);
        step.cursor = done.next;
        if step.cursor.is_none() {
            break;
        }
        if shown.elapsed().as_secs() >= 1 {
            out.note(format_args!("{} read, {} damaged", human::size(all.bytes), all.findings.len()));
            shown = Instant::now();
        }
    }
    let damaged = all.findings.len() as u64;
    if out.is_json() {
        out.json(&json!({"edge": tool.edge, "entries": all.entries, "bytes": all.bytes, "damaged": damaged, "unreadable": all.unreadable}))?;
    }
    let read = format!("{} entries read ({})", all.entries, human::size(all.bytes));
    if damaged + all.unreadable > 0 {
        return Err(CliError::failed(format!(
            "{read}: {damaged} damaged and dropped, {} cannot be read",
            all.unreadable
        ))
        .with_hint("look after the disk; what was dropped is fetched again when it is asked for"));
    }
    out.note(format_args!("{read}, all of them whole"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let stats: CacheStats = serde_json::from_value(json!({
            "node": "oslo",
            "memory": {
                "entries": 3, "bytes": 1024, "limit_bytes": 4096, "hits": 3, "misses": 1, "admissions": 5, "evictions": 1,
                "expired": 1, "refused": 0, "eviction": "auto", "objective": "requests",
                "classes": [{"eviction": "lru", "objective": "bytes", "zones": ["a", "b"]}],
                "curve": [{"factor": 0.5, "requests": 0.5, "bytes": 0.25}]
            },
            "disk": {
                "hits": 0, "misses": 0, "open_files": 0, "eviction": "auto", "objective": "requests",
                "curve": [{"factor": 4.0, "requests": 0.75, "bytes": 1.0}],
                "folders": [{
                    "path": "/c", "state": "read_only", "reason": "full", "entries": 1, "bytes": 4096, "limit_bytes": 8192,
                    "index_bytes": 1, "scanned_permille": 250, "reads": 0, "read_bytes": 0, "read_errors": 0, "writes": 0,
                    "written_bytes": 0, "write_errors": 2, "refused": 0, "evictions": 0, "expired": 0,
                    "damaged": [["slice", 2], ["head", 0]]
                }]
            }
        }))
        .expect("stats");
        let text = lines(&stats).join("\n");
        for expected in [
            "3 hits, 1 misses (75.0 % hits)",
            "lru, for bytes: zones a, b",
            "curve    at 0.5 × its size: 50.0 % of requests, 25.0 % of bytes",
            "curve    at 4 × its size: 75.0 % of requests, 100.0 % of bytes",
            "disk     0 hits, 0 misses (0.0 % hits)",
            "only read: full",
            "damaged: 2 slice",
            "being looked through: 25 %",
        ] {
            assert!(text.contains(expected), "{expected}:\n{text}");
        }
    }
}

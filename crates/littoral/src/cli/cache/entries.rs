//! `cache ls`, `cache show` and `cache evict`: what an edge has stored.

use api::cache::{
    CacheEntry, CacheEvict, CacheEvicted, CacheFilter, CachePage, CacheQuery, CacheShow, CacheState, CacheTier,
    MAX_CACHE_PAGE,
};
use api::names::{Tag, ZoneName};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::cache::tool::{Tool, ToolArgs};
use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::values::seconds;

const LS_EXAMPLES: &str = "\
Without --limit everything is listed, one page after the other. What lies in memory and on disk is listed twice.

Examples:
  littoral cache ls --limit 20
  littoral cache ls https://shop.example/img/ --tier disk
  littoral cache ls --zone shop --tag product-42 --older 1d -o json";

const SHOW_EXAMPLES: &str = "\
A URL shows what a plain GET of it would find. What depends on headers or cookies in the key is found by its key.

Examples:
  littoral cache show https://shop.example/img/a.png
  littoral cache show 6f1c0a44e0d34a0f7d0b5e9c8a172b33 -o json";

const EVICT_EXAMPLES: &str = "\
What is evicted is fetched again when it is asked for. To end what is stale everywhere, use 'littoral purge'.
Bytes that are being fetched now may be stored afterwards.

Examples:
  littoral cache evict --prefix https://shop.example/img/
  littoral cache evict --zone shop --older 30d --tier disk
  littoral cache evict --all --tier memory --yes";

/// A tier, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TierText {
    Memory,
    Disk,
}

/// Which entries are meant.
#[derive(Debug, Clone, Default, Args)]
struct FilterArgs {
    /// Only of this zone
    #[arg(long, value_name = "ZONE")]
    zone: Option<ZoneName>,
    /// Only with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<Tag>,
    /// Only in this tier: memory or disk
    #[arg(long, value_name = "TIER", hide_possible_values = true)]
    tier: Option<TierText>,
    /// Only what was fetched or confirmed longer ago, like 12h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    older: Option<u64>,
    /// Only what was fetched or confirmed since, like 10m
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    younger: Option<u64>,
    /// Only with this key, as a listing in JSON shows it
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl FilterArgs {
    fn filter(self, prefix: Option<String>) -> CacheFilter {
        CacheFilter {
            key: self.key,
            prefix,
            zone: self.zone,
            tag: self.tag,
            tier: self.tier.map(|tier| match tier {
                TierText::Memory => CacheTier::Memory,
                TierText::Disk => CacheTier::Disk,
            }),
            older_s: self.older,
            younger_s: self.younger,
        }
    }
}

/// The arguments of `cache ls`.
#[derive(Debug, Args)]
#[command(after_help = LS_EXAMPLES)]
pub(super) struct LsArgs {
    /// What URLs begin with: https://host/path, or /path on any host
    prefix: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// How many entries at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    tool: ToolArgs,
}

/// The arguments of `cache show`.
#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(super) struct ShowArgs {
    /// A URL, or a key as a listing in JSON shows it
    what: String,
    #[command(flatten)]
    tool: ToolArgs,
}

/// The arguments of `cache evict`.
#[derive(Debug, Args)]
#[command(after_help = EVICT_EXAMPLES)]
pub(super) struct EvictArgs {
    /// What URLs begin with: https://host/path, or /path on any host
    #[arg(long, value_name = "URL")]
    prefix: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Everything, or everything in a tier
    #[arg(long)]
    all: bool,
    /// With --all: do it, and do not only count
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    tool: ToolArgs,
}

/// Runs `cache ls`.
pub(super) async fn ls(args: LsArgs, globals: &Globals) -> Result<(), CliError> {
    let (tool, out) = (Tool::find(&args.tool, globals).await?, globals.out());
    let mut left = args.limit.unwrap_or(u64::MAX);
    let filter = args.filter.filter(args.prefix);
    let mut query = CacheQuery { filter, limit: MAX_CACHE_PAGE, cursor: None };
    let mut first = true;
    loop {
        query.limit = u32::try_from(left).unwrap_or(MAX_CACHE_PAGE).min(MAX_CACHE_PAGE);
        let page: CachePage = tool.post("list", &query).await?;
        left = left.saturating_sub(page.entries.len() as u64);
        if out.is_json() {
            page.entries.iter().try_for_each(|entry| out.json(entry))?;
        } else if !page.entries.is_empty() || (first && page.next.is_none()) {
            out.table(&HEADINGS, page.entries.iter().map(cells))?;
            first = false;
        }
        query.cursor = page.next;
        if left == 0 || query.cursor.is_none() {
            return Ok(());
        }
    }
}

const HEADINGS: [&str; 8] = ["TIER", "STATE", "STATUS", "AGE", "LENGTH", "STORED", "ZONE", "URL"];

fn cells(entry: &CacheEntry) -> Vec<String> {
    let part = if entry.complete { "" } else { " (part)" };
    vec![
        tier(entry.tier).to_owned(),
        state(entry.state).to_owned(),
        entry.status.to_string(),
        format!("{} s", entry.age_s),
        entry.length.map_or_else(|| "-".to_owned(), human::size),
        format!("{}{part}", human::size(entry.bytes)),
        human::plain(&entry.zone),
        human::plain(&entry.url),
    ]
}

fn tier(tier: CacheTier) -> &'static str {
    match tier {
        CacheTier::Memory => "memory",
        CacheTier::Disk => "disk",
    }
}

fn state(state: CacheState) -> &'static str {
    match state {
        CacheState::Fresh => "fresh",
        CacheState::Stale => "stale",
        CacheState::SoftPurged => "soft purged",
        CacheState::Purged => "purged",
        CacheState::Unsure => "unsure",
        CacheState::Outdated => "outdated",
    }
}

/// Runs `cache show`.
pub(super) async fn show(args: ShowArgs, globals: &Globals) -> Result<(), CliError> {
    let (tool, out) = (Tool::find(&args.tool, globals).await?, globals.out());
    let page: CachePage = tool.post("show", &CacheShow { what: args.what.clone() }).await?;
    if page.entries.is_empty() {
        let what = human::plain(&args.what);
        return Err(CliError::failed(format!("edge '{}' has nothing stored for {what}", tool.edge)).with_hint(
            "'littoral explain URL' tells under which key it would be; 'littoral cache ls PREFIX' lists what is near",
        ));
    }
    if out.is_json() {
        return out.json(&page.entries);
    }
    let blocks: Vec<Vec<String>> = page.entries.iter().map(lines).collect();
    out.text(&human::plain_lines(&blocks.join(&String::new())))
}

/// An entry, a fact on each line.
fn lines(entry: &CacheEntry) -> Vec<String> {
    let tags = entry.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>().join(" ");
    let mut facts = vec![
        ("url", entry.url.clone()),
        ("key", entry.key.clone()),
        ("zone", entry.zone.clone()),
        ("tier", tier(entry.tier).to_owned()),
        ("state", state(entry.state).to_owned()),
        ("age", format!("{} s, since {}", entry.age_s, human::time(entry.stored_ms))),
        ("status", entry.status.to_string()),
        ("length", entry.length.map_or_else(|| "not known".to_owned(), human::size)),
        ("stored", format!("{}{}", human::size(entry.bytes), if entry.complete { "" } else { ", not all of it" })),
        ("tags", tags),
    ];
    if let Some(details) = &entry.details {
        facts.push((
            "lifetime",
            format!(
                "{} s, then {} s while it is asked about, {} s while the origin fails",
                details.lifetime_s, details.stale_while_revalidate_s, details.stale_if_error_s
            ),
        ));
        facts.push(("fetch began", format!("at event {}, own {}", details.began_event, details.began_local)));
        if let Some(slices) = details.slices {
            let range = |(first, last): &(u64, u64)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            };
            let present = details.present.iter().map(range).collect::<Vec<_>>().join(" ");
            facts.push(("slices", format!("{slices}; there are: {present}")));
        }
        if let (Some(folder), Some(uses)) = (details.folder, details.uses) {
            facts.push(("disk", format!("folder {folder}, used {}", human::count(uses.into(), "time"))));
        }
        for (name, value) in &details.selected_by {
            facts.push(("selected by", format!("{name}: {}", value.as_deref().unwrap_or("(none)"))));
        }
        facts.extend(details.fields.iter().map(|(name, value)| ("field", format!("{name}: {value}"))));
    }
    facts.into_iter().map(|(name, value)| format!("{name:<13}{value}")).collect()
}

/// Runs `cache evict`.
pub(super) async fn evict(args: EvictArgs, globals: &Globals) -> Result<(), CliError> {
    let filter = args.filter.filter(args.prefix);
    let everything = filter.is_everything();
    if everything && !args.all {
        return Err(CliError::usage("it is not said what is to be evicted")
            .with_hint("say it with --prefix, --zone, --tag, --older, --younger or --key; or everything with --all"));
    }
    if !everything && args.all {
        return Err(CliError::usage("--all means everything, and something else says that not everything is meant")
            .with_hint("leave --all away; only --tier goes with it"));
    }
    let (tool, out) = (Tool::find(&args.tool, globals).await?, globals.out());
    let count = args.all && !args.yes;
    let what = CacheEvict { filter, all: args.all, count, cursor: None };
    let (entries, bytes) = evict_all(&tool, what).await?;
    if out.is_json() {
        out.json(&json!({"edge": tool.edge, "entries": entries, "bytes": bytes, "evicted": !count}))?;
    }
    let what = format!("{} ({})", human::count(entries, "stored response"), human::size(bytes));
    if count {
        return Err(CliError::usage(format!("{what} would leave edge '{}'; nothing was done", tool.edge))
            .with_hint("if that is meant, say it again with --yes"));
    }
    out.note(format_args!("{what} left edge '{}'", tool.edge));
    Ok(())
}

async fn evict_all(tool: &Tool, mut what: CacheEvict) -> Result<(u64, u64), CliError> {
    let (mut entries, mut bytes) = (0, 0);
    loop {
        let step: CacheEvicted = tool.post("evict", &what).await?;
        entries += step.entries;
        bytes += step.bytes;
        what.cursor = step.next;
        if what.cursor.is_none() {
            return Ok((entries, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::cache::CacheDetails;

    fn entry() -> CacheEntry {
        CacheEntry {
            tier: CacheTier::Disk,
            key: "00".repeat(16),
            zone: "shop".to_owned(),
            url: "shop.example/a\u{1b}[2J".to_owned(),
            status: 200,
            media_type: Some("text/html".to_owned()),
            length: Some(3 << 20),
            bytes: 2 << 20,
            complete: false,
            tags: vec!["red".parse().expect("tag"), "blue".parse().expect("tag")],
            stored_ms: 0,
            age_s: 7,
            state: CacheState::SoftPurged,
            details: Some(CacheDetails {
                fields: vec![("etag".to_owned(), "\"x\"".to_owned())],
                selected_by: vec![("accept-language".to_owned(), None)],
                slices: Some(3),
                present: vec![(0, 0), (2, 3)],
                folder: Some(1),
                uses: Some(1),
                ..CacheDetails::default()
            }),
        }
    }

    #[test]
    fn rows_say_what_people_need_and_hold_no_control_characters() {
        let cells = cells(&entry());
        assert_eq!(cells[..4], ["disk", "soft purged", "200", "7 s"]);
        assert!(cells[5].ends_with("(part)"), "{}", cells[5]);
        assert!(!cells[7].contains('\u{1b}'), "{}", cells[7]);
    }

    #[test]
    fn an_entry_is_shown_whole() {
        let lines = lines(&entry());
        for expected in [
            "tags         red blue",
            "slices       3; there are: 0 2-3",
            "disk         folder 1, used 1 time",
            "selected by  accept-language: (none)",
            "field        etag: \"x\"",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected}: {lines:#?}");
        }
    }
}

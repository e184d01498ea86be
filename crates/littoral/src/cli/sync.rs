//! `sync`: makes a zone the same as a folder.

use std::path::PathBuf;

use api::ZoneName;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::report::{print_change, summary, summary_of_dry_run, sync_failed};
use crate::cli::values::Remote;
use crate::publish::{self, Change, DEFAULT_JOBS, MAX_JOBS, SyncOptions, SyncReport};

const EXAMPLES: &str = "\
Examples:
  littoral sync site/                       what is in site/, into the zone files
  littoral sync site/ docs:v2 --delete      below v2/ of the zone docs; deletes there what site/ does not have
  littoral sync site/ --delete --dry-run    only shows what would be done

Files are compared by digest, not by time. Hidden files are taken; a symlink is followed only to a file inside the folder.";

/// The arguments of `sync`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SyncArgs {
    /// The folder whose content is published
    dir: PathBuf,
    /// Where to: PREFIX or ZONE:PREFIX
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// The zone [default: files]
    #[arg(long)]
    zone: Option<ZoneName>,
    /// Delete files of the zone, below the prefix, that the folder does not have
    #[arg(long)]
    delete: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Uploads at once
    #[arg(long, value_name = "N", default_value_t = DEFAULT_JOBS,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=MAX_JOBS as u64))]
    jobs: usize,
}

/// Runs `sync`.
pub(super) async fn run(args: SyncArgs, globals: &Globals) -> Result<(), CliError> {
    let to = Remote::parse(&args.prefix, args.zone.as_ref())?;
    let (session, out) = (globals.session()?, globals.out());
    let options = SyncOptions { delete: args.delete, dry_run: args.dry_run, jobs: args.jobs };
    let progress = out.progress();
    let mut document = Document::default();
    let mut printed = Ok(());
    let mut on_change = |change: Change<'_>| {
        print_change(&out, &progress, &change);
        if out.is_json() {
            document.hear(&change);
        } else if let Some(line) = dry_run_line(&change)
            && printed.is_ok()
        {
            printed = out.line(line);
        }
    };
    let synced =
        publish::sync(session.connection(), &to.zone, &args.dir, &to.text, &options, &progress, &mut on_change).await;
    progress.finish();
    let report = synced.map_err(|error| sync_failed(&session, &error))?;
    if out.is_json() {
        out.json(&document.with(&report, args.dry_run))?;
    }
    out.note(if args.dry_run { summary_of_dry_run(&report) } else { summary(&report) });
    if report.failed > 0 {
        return Err(CliError::failed(format!("{} could not be synced", human::count(report.failed, "thing"))));
    }
    printed
}

fn dry_run_line(change: &Change<'_>) -> Option<String> {
    match change {
        Change::WouldUpload(path) => Some(format!("upload  {path}")),
        Change::WouldDelete(path) => Some(format!("delete  {path}")),
        _ => None,
    }
}

/// What `-o json` prints.
#[derive(Debug, Default, Serialize)]
struct Document {
    dry_run: bool,
    uploaded: Vec<String>,
    uploaded_bytes: u64,
    deleted: Vec<String>,
    unchanged: u64,
    skipped: Vec<String>,
    failed: Vec<Failed>,
    elapsed_ms: u64,
}

#[derive(Debug, Serialize)]
struct Failed {
    name: String,
    why: String,
}

impl Document {
    fn hear(&mut self, change: &Change<'_>) {
        match change {
            Change::Uploaded(file) => self.uploaded.push(file.path.to_string()),
            Change::WouldUpload(path) => self.uploaded.push(path.to_string()),
            Change::Deleted(path, _) | Change::WouldDelete(path) => self.deleted.push(path.to_string()),
            Change::Skipped(name, _) => self.skipped.push((*name).to_owned()),
            Change::Failed(name, why) => {
                self.failed.push(Failed { name: (*name).to_owned(), why: (*why).to_owned() });
            }
        }
    }

    fn with(mut self, report: &SyncReport, dry_run: bool) -> Self {
        // They were heard of as they were done, in any order.
        self.uploaded.sort();
        self.deleted.sort();
        let elapsed_ms = u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX);
        Self { dry_run, uploaded_bytes: report.uploaded_bytes, unchanged: report.unchanged, elapsed_ms, ..self }
    }
}

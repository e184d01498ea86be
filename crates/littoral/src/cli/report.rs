//! How work on many files is told: what happened to single ones, and the line at the end.

use crate::cli::error::CliError;
use crate::cli::human;
use crate::cli::output::Out;
use crate::cli::session::Session;
use crate::progress::Progress;
use crate::publish::{Change, SyncError, SyncReport};

/// The line at the end: «3 files, 12.4 MiB uploaded in 0.8 s (15.5 MiB/s); 997 unchanged».
pub(super) fn summary(report: &SyncReport) -> String {
    let (files, bytes) = (human::count(report.uploaded, "file"), report.uploaded_bytes);
    let mut text = format!("{files}, {} uploaded in {}", human::size(bytes), human::elapsed(report.elapsed));
    if bytes > 0 {
        text.push_str(&format!(" ({})", human::rate(bytes, report.elapsed)));
    }
    text + &rest(report)
}

/// The line at the end of what was only looked at.
pub(super) fn summary_of_dry_run(report: &SyncReport) -> String {
    let files = human::count(report.uploaded, "file");
    format!("would upload {files}, {}{}", human::size(report.uploaded_bytes), rest(report))
}

fn rest(report: &SyncReport) -> String {
    let numbers = [(report.unchanged, "unchanged"), (report.deleted, "deleted"), (report.failed, "failed")];
    numbers.into_iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("; {number} {what}")).collect()
}

/// Names on standard error what failed or was left alone; says nothing of what went well.
pub(super) fn print_change(out: &Out, progress: &Progress, change: &Change<'_>) {
    match change {
        Change::Failed(name, why) => progress.pause(|| out.fault(format!("{name}: {why}"))),
        Change::Skipped(name, why) => progress.pause(|| out.warn(format!("{name} is left out: {why}"))),
        Change::Uploaded(_) | Change::WouldUpload(_) | Change::Deleted(..) | Change::WouldDelete(_) => {}
    }
}

/// Publishing that could not begin or ended early, as the end of a command.
pub(super) fn sync_failed(session: &Session, error: &SyncError) -> CliError {
    match error {
        SyncError::List { zone, source } => session.failed(&format!("cannot list the files of zone '{zone}'"), source),
        SyncError::Stopped { doing, name, source } => session.failed(&format!("cannot {doing} {name}"), source),
        SyncError::Folder(_) => CliError::failed(error.to_string()),
        SyncError::Prefix(_) => CliError::usage(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn summaries() {
        let report = SyncReport {
            uploaded: 3,
            uploaded_bytes: 13_002_342,
            unchanged: 997,
            elapsed: Duration::from_millis(800),
            ..SyncReport::default()
        };
        assert_eq!(summary(&report), "3 files, 12.4 MiB uploaded in 0.8 s (15.5 MiB/s); 997 unchanged");
        let report = SyncReport { deleted: 2, failed: 1, ..SyncReport::default() };
        assert_eq!(summary(&report), "0 files, 0 B uploaded in 0 ms; 2 deleted; 1 failed");
        assert_eq!(summary_of_dry_run(&report), "would upload 0 files, 0 B; 2 deleted; 1 failed");
    }
}

//! `rm`: deletes files by path, by id, or by the beginning of their paths.

use std::io::{self, BufRead, IsTerminal};

use api::{FileId, FilePath, Receipt, ReceiptState, ZoneName};
use clap::{ArgGroup, Args};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::output::{Out, to_stderr};
use crate::cli::report::{print_change, sync_failed};
use crate::cli::session::{Session, check_receipts};
use crate::cli::values::Remote;
use crate::connection::retry;
use crate::publish::{Batch, Change, DEFAULT_JOBS};

const EXAMPLES: &str = "\
Examples:
  littoral rm img/photo.jpg notes/today.txt
  littoral rm --id 019a9f3e-0000-7000-8000-000000000000
  littoral rm --prefix docs:v1/ --yes";

/// The arguments of `rm`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("what").required(true))]
pub(super) struct RmArgs {
    /// Files: PATH or ZONE:PATH
    #[arg(group = "what", value_name = "PATH")]
    paths: Vec<String>,
    /// The file with this id
    #[arg(long, group = "what")]
    id: Option<FileId>,
    /// Every file whose path begins so: PREFIX or ZONE:PREFIX; asks first
    #[arg(long, group = "what", value_name = "PREFIX")]
    prefix: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// The zone [default: files]
    #[arg(long)]
    zone: Option<ZoneName>,
    /// Return once every edge has taken note
    #[arg(long)]
    wait: bool,
}

/// Runs `rm`.
pub(super) async fn run(args: RmArgs, globals: &Globals) -> Result<(), CliError> {
    let out = globals.out();
    if let Some(id) = args.id {
        return by_id(id, args.wait, &globals.session()?, &out).await;
    }
    if let Some(prefix) = &args.prefix {
        let below = Remote::parse(prefix, args.zone.as_ref())?;
        if !args.yes && !io::stdin().is_terminal() {
            return Err(CliError::usage("cannot ask whether to delete: standard input is not a terminal")
                .with_hint("say --yes to delete without being asked, after looking with 'littoral ls'"));
        }
        let session = globals.session()?;
        let files = list(&below, &session).await?;
        if files.is_empty() {
            out.note("0 files deleted: no path begins so");
            return Ok(());
        }
        if !args.yes && !confirmed(&below, files.len() as u64) {
            return Err(CliError::failed("nothing was deleted"));
        }
        return delete(vec![(below.zone, files)], args.wait, &session, &out).await;
    }
    let mut batches: Vec<(ZoneName, Vec<FilePath>)> = Vec::new();
    for text in &args.paths {
        let remote = Remote::parse(text, args.zone.as_ref())?;
        let path = remote.path()?;
        match batches.iter_mut().find(|(zone, _)| *zone == remote.zone) {
            Some((_, paths)) => paths.push(path),
            None => batches.push((remote.zone, vec![path])),
        }
    }
    delete(batches, args.wait, &globals.session()?, &out).await
}

async fn by_id(id: FileId, wait: bool, session: &Session, out: &Out) -> Result<(), CliError> {
    let answer = session.calls().delete_file_by_id(id, wait).await;
    let answer = answer.map_err(|error| session.failed(&format!("cannot delete the file {id}"), &error))?;
    if out.is_json() {
        out.json(&answer)?;
    }
    out.note("1 file deleted");
    check_receipts("deleted", &answer.receipts)
}

async fn list(below: &Remote, session: &Session) -> Result<Vec<FilePath>, CliError> {
    let (calls, mut files, mut cursor) = (session.calls(), Vec::new(), None::<String>);
    loop {
        let page = retry(|| calls.files(&below.zone, &below.text, api::MAX_PAGE_FILES, cursor.as_deref())).await;
        let page =
            page.map_err(|error| session.failed(&format!("cannot list the files of zone '{}'", below.zone), &error))?;
        files.extend(page.files.into_iter().map(|file| file.path));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(files);
        }
    }
}

fn confirmed(below: &Remote, number: u64) -> bool {
    let where_to = match below.text.as_str() {
        "" => "all of it".to_owned(),
        text => format!("every path that begins with '{}'", human::plain(text)),
    };
    let files = human::count(number, "file");
    to_stderr(&format!("Delete {files} of zone '{}' ({where_to})? [y/N] ", below.zone));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

async fn delete(
    batches: Vec<(ZoneName, Vec<FilePath>)>,
    wait: bool,
    session: &Session,
    out: &Out,
) -> Result<(), CliError> {
    let progress = out.progress();
    let (mut printed, mut missing) = (Ok(()), Vec::<Receipt>::new());
    let mut on_change = |change: Change<'_>| {
        print_change(out, &progress, &change);
        let Change::Deleted(_, answer) = change else { return };
        for receipt in answer.receipts.iter().filter(|receipt| receipt.state != ReceiptState::Applied) {
            if missing.iter().all(|known| known.node != receipt.node) {
                missing.push(receipt.clone());
            }
        }
        if out.is_json() && printed.is_ok() {
            printed = progress.pause(|| out.json(answer));
        }
    };
    let mut batch = Batch::new(session.connection(), DEFAULT_JOBS, &progress, &mut on_change);
    let mut done = Ok(());
    for (zone, paths) in batches {
        let files = paths.into_iter().map(|path| (path, None)).collect();
        done = batch.delete(&zone, files, wait).await;
        if done.is_err() {
            break;
        }
    }
    let report = batch.report;
    progress.finish();
    out.note(format!("{} deleted", human::count(report.deleted, "file")));
    done.map_err(|error| sync_failed(session, &error))?;
    if report.failed > 0 {
        return Err(CliError::failed(format!("{} could not be deleted", human::count(report.failed, "file"))));
    }
    printed?;
    check_receipts("deleted", &missing)
}

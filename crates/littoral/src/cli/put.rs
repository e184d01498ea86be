//! `put`: uploads files, folders and standard input.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use api::{FileDoc, FileId, NodeName, Receipt, ReceiptState, Tag, ZoneName};
use clap::Args;
use client::{Upload, UploadMeta};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::output::Out;
use crate::cli::put_plan::{Kind, Task, Wishes, plan};
use crate::cli::report::{print_change, summary, sync_failed};
use crate::cli::session::{Session, check_receipts};
use crate::cli::values;
use crate::progress::Progress;
use crate::publish::{
    Batch, Change, DEFAULT_JOBS, Item, SyncError, SyncReport, UploadError, folder_prefix, upload_file, upload_stream,
    walk,
};

const EXAMPLES: &str = "\
Examples:
  littoral put photo.jpg                    as photo.jpg
  littoral put photo.jpg img/photo.jpg      under another path
  littoral put *.jpg img/ --wait            into a folder; returns once every edge knows
  littoral put site/ docs:v2                what is in a folder, below v2/ of the zone docs
  date | littoral put - notes/today.txt     standard input

Without --to, the last argument is the destination if it ends in '/', names a zone (ZONE:PATH), \
or is the second of two and does not exist here.";

/// The arguments of `put`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PutArgs {
    /// Files, a folder, or - for standard input; then, if need be, where to: PATH, FOLDER/ or ZONE:PATH
    #[arg(required = true, value_name = "FILE|FOLDER|-|DEST")]
    sources: Vec<OsString>,
    /// Where to: PATH, FOLDER/ or ZONE:PATH
    #[arg(long, value_name = "DEST")]
    to: Option<String>,
    /// The zone [default: files]
    #[arg(long)]
    zone: Option<ZoneName>,
    /// Give the file a path that nobody can guess
    #[arg(long, conflicts_with = "id")]
    generate: bool,
    /// Upload a new version of the file with this id
    #[arg(long, conflicts_with_all = ["to", "zone"])]
    id: Option<FileId>,
    /// The media type it is served with [default: guessed from the name]
    #[arg(long = "type", value_name = "MEDIA/TYPE")]
    media_type: Option<String>,
    /// The Cache-Control it is served with
    #[arg(long, value_name = "VALUE")]
    cache_control: Option<String>,
    /// A tag to purge it by; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
    /// Only if the file there has this digest or ETag
    #[arg(long, value_name = "DIGEST", value_parser = values::if_match, conflicts_with = "if_new")]
    if_match: Option<String>,
    /// Only if there is no file there yet
    #[arg(long)]
    if_new: bool,
    /// Return once every edge has taken note
    #[arg(long)]
    wait: bool,
}

impl PutArgs {
    fn meta(&self) -> UploadMeta {
        let tags: Vec<&str> = self.tags.iter().map(Tag::as_str).collect();
        UploadMeta {
            media_type: self.media_type.clone(),
            cache_control: self.cache_control.clone(),
            tags: (!tags.is_empty()).then(|| tags.join(" ")),
            if_match: self.if_match.clone(),
            if_none_match: self.if_new.then(|| "*".to_owned()),
            wait: self.wait,
            ..UploadMeta::default()
        }
    }
}

/// Runs `put`.
pub(super) async fn run(args: PutArgs, globals: &Globals) -> Result<(), CliError> {
    let wishes = Wishes { to: args.to.as_deref(), zone: args.zone.as_ref(), generate: args.generate, id: args.id };
    let mut tasks = plan(&args.sources, &wishes, &kind)?;
    let single = matches!(tasks.as_slice(), [Task::File(..) | Task::Stdin(_)]);
    if args.if_match.is_some() && !single {
        return Err(CliError::usage("--if-match takes one file"));
    }
    let (session, out, meta) = (globals.session()?, globals.out(), args.meta());
    match tasks.pop() {
        Some(task) if single => put_one(task, &meta, &session, &out).await,
        last => {
            tasks.extend(last);
            put_many(tasks, &meta, &session, &out).await
        }
    }
}

fn kind(path: &Path) -> Kind {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Kind::Folder,
        Err(error) if error.kind() == ErrorKind::NotFound => Kind::Missing,
        // What exists but cannot be looked at fails later, with the reason.
        _ => Kind::File,
    }
}

async fn put_one(task: Task, meta: &UploadMeta, session: &Session, out: &Out) -> Result<(), CliError> {
    let (progress, begun) = (out.progress(), Instant::now());
    let (name, answer) = upload_one(task, meta, session, &progress).await;
    progress.finish();
    let file = answer.map_err(|error| match error {
        UploadError::Call(error) => session.failed(&format!("cannot upload {name}"), &error),
        error => CliError::failed(format!("cannot upload {name}: {error}")),
    })?;
    let elapsed = begun.elapsed();
    let report = SyncReport { uploaded: 1, uploaded_bytes: file.size, elapsed, ..SyncReport::default() };
    if out.is_json() {
        out.json(&file)?;
    } else {
        print_files(out, std::slice::from_ref(&file))?;
    }
    out.note(summary(&report));
    check_receipts("uploaded", &file.receipts)
}

/// Uploads one file, or standard input. Answers its name for messages, too.
async fn upload_one(
    task: Task,
    meta: &UploadMeta,
    session: &Session,
    progress: &Progress,
) -> (String, Result<FileDoc, UploadError>) {
    let connection = session.connection();
    match task {
        Task::Stdin(to) => {
            progress.begin_bytes("uploading", None);
            let stdin = Box::new(std::io::stdin());
            ("standard input".to_owned(), upload_stream(connection, stdin, &to, meta, progress).await)
        }
        Task::File(disk, to) => {
            let item = item(disk, to);
            progress.begin_bytes("uploading", Some(item.size));
            let answer = upload_file(connection, &item, meta, progress).await;
            (item.name, answer)
        }
        Task::Folder(disk, ..) => (human::file_name(&disk), Err(UploadError::Open(ErrorKind::IsADirectory.into()))),
    }
}

fn item(disk: PathBuf, to: Upload) -> Item {
    let size = disk.metadata().map_or(0, |metadata| metadata.len());
    Item { name: human::file_name(&disk), disk, size, to, digest: None }
}

async fn put_many(tasks: Vec<Task>, meta: &UploadMeta, session: &Session, out: &Out) -> Result<(), CliError> {
    let (progress, begun) = (out.progress(), Instant::now());
    // What was named file by file is listed; what is in folders is only counted.
    let list = !out.is_json() && tasks.iter().all(|task| matches!(task, Task::File(..)));
    let mut told =
        Told { out, progress: &progress, list, files: Vec::new(), missing: BTreeMap::new(), printed: Ok(()) };
    let mut on_change = |change: Change<'_>| told.hear(&change);
    let mut batch = Batch::new(session.connection(), DEFAULT_JOBS, &progress, &mut on_change);
    let done = upload_many(tasks, meta, &mut batch, &progress).await;
    let report = SyncReport { elapsed: begun.elapsed(), ..batch.report };
    progress.finish();
    if list {
        print_files(out, &told.files)?;
    }
    out.note(summary(&report));
    done.map_err(|error| sync_failed(session, &error))?;
    if report.failed > 0 {
        return Err(CliError::failed(format!("{} could not be uploaded", human::count(report.failed, "file"))));
    }
    told.printed?;
    check_receipts("uploaded", &told.missing.into_values().collect::<Vec<_>>())
}

async fn upload_many(
    tasks: Vec<Task>,
    meta: &UploadMeta,
    batch: &mut Batch<'_>,
    progress: &Progress,
) -> Result<(), SyncError> {
    progress.begin_files("reading", None);
    let mut items = Vec::new();
    for task in tasks {
        match task {
            Task::File(disk, to) => items.push(item(disk, to)),
            Task::Folder(disk, zone, prefix) => {
                let walked = walk(&disk, &folder_prefix(&prefix)?).await?;
                batch.report_walk(&walked);
                items.extend(walked.files.into_iter().map(|file| Item::found(&zone, file)));
            }
            // Standard input never comes with others.
            Task::Stdin(_) => {}
        }
    }
    batch.upload(items, meta).await
}

/// What was heard of the files so far.
struct Told<'a> {
    out: &'a Out,
    progress: &'a Progress,
    /// Whether to keep `files`.
    list: bool,
    files: Vec<FileDoc>,
    /// Edges that did not acknowledge some file.
    missing: BTreeMap<NodeName, Receipt>,
    printed: Result<(), CliError>,
}

impl Told<'_> {
    fn hear(&mut self, change: &Change<'_>) {
        let Change::Uploaded(file) = change else { return print_change(self.out, self.progress, change) };
        let missing = file.receipts.iter().filter(|receipt| receipt.state != ReceiptState::Applied);
        self.missing.extend(missing.map(|receipt| (receipt.node.clone(), receipt.clone())));
        if self.list {
            self.files.push((*file).clone());
        }
        if self.out.is_json() && self.printed.is_ok() {
            self.printed = self.progress.pause(|| self.out.json(file));
        }
    }
}

fn print_files(out: &Out, files: &[FileDoc]) -> Result<(), CliError> {
    if files.is_empty() {
        return Ok(());
    }
    let rows = files
        .iter()
        .map(|file| vec![file.path.to_string(), file.version.to_string(), human::size(file.size), file.url.clone()]);
    out.table(&["PATH", "VERSION", "SIZE", "URL"], rows)
}

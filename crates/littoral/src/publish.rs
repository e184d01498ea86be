//! Bringing whole folders and many files into a zone: what `put`, `sync` and `up` share.
//!
//! The life of a [`sync`]: [`walk`] the folder → hash its files while the zone is listed → [`plan`](Plan) which differ →
//! upload those, each guarded by its digest → delete what the folder does not have. A file that cannot be taken is
//! reported and the rest goes on; what would fail for every file alike ends the run.

mod body;
mod hash;
mod upload;
mod walk;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::{Digest, FileDoc, FilePath, InvalidName, Receipt, ZoneName};
use client::{Client, ClientError, Upload, UploadMeta};
use futures_util::{StreamExt, TryFutureExt, stream};

use crate::connection::{Connection, retry};
use crate::progress::Progress;

pub use body::PIECE_BYTES;
pub use hash::{Hashed, hash_all};
pub use upload::{Item, UploadError, upload_file, upload_stream};
pub use walk::{Found, Rejected, WalkError, Walked, walk};

/// Uploads at once, unless somebody says otherwise.
pub const DEFAULT_JOBS: usize = 8;
/// Uploads at once, at most.
pub const MAX_JOBS: usize = 64;

/// How a [`sync`] is done.
#[derive(Debug, Clone)]
pub struct SyncOptions {
    /// Delete files of the zone (below the prefix) that the folder does not have.
    pub delete: bool,
    /// Change nothing, only say what would be done.
    pub dry_run: bool,
    /// Uploads and deletions at once, 1 to [`MAX_JOBS`].
    pub jobs: usize,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self { delete: false, dry_run: false, jobs: DEFAULT_JOBS }
    }
}

/// Something that happened to one file.
#[derive(Debug)]
pub enum Change<'a> {
    /// It was uploaded.
    Uploaded(&'a FileDoc),
    /// It would have been uploaded.
    WouldUpload(&'a FilePath),
    /// It was deleted from the zone.
    Deleted(&'a FilePath, &'a [Receipt]),
    /// It would have been deleted.
    WouldDelete(&'a FilePath),
    /// It was left alone on purpose; why.
    Skipped(&'a str, &'a str),
    /// It could not be dealt with; why.
    Failed(&'a str, &'a str),
}

/// Hears of each [`Change`] as it happens.
pub type OnChange<'a> = &'a mut (dyn FnMut(Change<'_>) + Send);

/// What was done in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Files uploaded (or that would have been).
    pub uploaded: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
    /// Files that were the same already.
    pub unchanged: u64,
    /// Files deleted from the zone (or that would have been).
    pub deleted: u64,
    /// Things that could not be dealt with.
    pub failed: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why publishing could not begin, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The folder itself cannot be read.
    #[error(transparent)]
    Folder(#[from] WalkError),
    /// The prefix cannot begin a path.
    #[error(transparent)]
    Prefix(#[from] InvalidName),
    /// The files of the zone cannot be listed.
    #[error("cannot list the files of zone '{zone}': {source}")]
    List {
        /// The zone.
        zone: ZoneName,
        /// Why.
        source: ClientError,
    },
    /// What befell one file would befall every other.
    #[error("cannot {doing} {name}: {source}")]
    Stopped {
        /// `upload` or `delete`.
        doing: &'static str,
        /// The file it happened to.
        name: String,
        /// Why.
        source: ClientError,
    },
}

impl SyncError {
    /// The failed call, where it was one.
    pub fn call(&self) -> Option<&ClientError> {
        match self {
            Self::Folder(_) | Self::Prefix(_) => None,
            Self::List { source, .. } | Self::Stopped { source, .. } => Some(source),
        }
    }
}

/// Makes the files of `zone` below `prefix` the same as those of the folder `dir`, comparing by digest: uploads what is
/// new or differs and, if asked to, deletes what the folder does not have.
///
/// # Errors
/// See [`SyncError`]. What only concerns single files is not an error here: it is told to `on_change` and counted.
pub async fn sync(
    connection: &Connection,
    zone: &ZoneName,
    dir: &Path,
    prefix: &str,
    options: &SyncOptions,
    progress: &Progress,
    on_change: OnChange<'_>,
) -> Result<SyncReport, SyncError> {
    let begun = Instant::now();
    let prefix = folder_prefix(prefix)?;
    progress.begin_files("reading", None);
    let walked = walk(dir, &prefix).await?;
    let mut report = SyncReport::default();
    report_walk(&walked, &mut report, on_change);

    progress.begin_files("comparing", Some(walked.files.len() as u64));
    let (hashed, remote) = tokio::join!(
        hash_all(walked.files, progress),
        list(&connection.calls, zone, &prefix)
            .map_err(|source| SyncError::List { zone: zone.clone(), source }),
    );
    let plan = Plan::new(hashed, remote?, &walked.rejected);
    report.unchanged = plan.unchanged;
    for (name, why) in &plan.unreadable {
        report.failed += 1;
        on_change(Change::Failed(name, why));
    }

    let to_delete = if options.delete { plan.to_delete } else { Vec::new() };
    if options.dry_run {
        for item in &plan.to_upload {
            report.uploaded += 1;
            report.uploaded_bytes += item.size;
            on_change(Change::WouldUpload(&item.path));
        }
    } else {
        let items = plan.to_upload.into_iter().map(|file| Item::guarded(zone, file)).collect();
        upload_all(connection, items, &UploadMeta::default(), options.jobs, progress, &mut report, on_change).await?;
    }
    if !to_delete.is_empty() && !walked.whole {
        report.failed += 1;
        on_change(Change::Failed(
            &walk::shown(dir),
            "nothing was deleted from the zone, because not every folder could be read",
        ));
    } else if options.dry_run {
        report.deleted = to_delete.len() as u64;
        to_delete.iter().for_each(|(path, _)| on_change(Change::WouldDelete(path)));
    } else {
        delete_all(connection, zone, to_delete, options.jobs, progress, &mut report, on_change).await?;
    }
    progress.finish();
    report.elapsed = begun.elapsed();
    Ok(report)
}

/// The prefix as it begins every path below it: empty, or with one slash at its end.
///
/// # Errors
/// It cannot begin a path.
pub fn folder_prefix(prefix: &str) -> Result<String, InvalidName> {
    match prefix.trim_matches('/') {
        "" => Ok(String::new()),
        folder => {
            // Some file below it stands for all: the rules look at segments.
            format!("{folder}/x").parse::<FilePath>()?;
            Ok(format!("{folder}/"))
        }
    }
}

/// Tells of what a walk has left out.
pub fn report_walk(walked: &Walked, report: &mut SyncReport, on_change: OnChange<'_>) {
    for name in &walked.skipped {
        on_change(Change::Skipped(name, "it holds the data and the secrets of a CDN, which are never published"));
    }
    for rejected in &walked.rejected {
        report.failed += 1;
        on_change(Change::Failed(&rejected.name, &rejected.why));
    }
}

/// What is to be done, decided: no I/O.
struct Plan {
    to_upload: Vec<Hashed>,
    to_delete: Vec<(FilePath, Digest)>,
    unchanged: u64,
    /// Name and reason.
    unreadable: Vec<(String, String)>,
}

impl Plan {
    /// Compares the files of the folder with those of the zone. What is there but was rejected is not deleted.
    fn new(
        hashed: Vec<Result<Hashed, Rejected>>,
        mut remote: HashMap<FilePath, Digest>,
        rejected: &[Rejected],
    ) -> Self {
        let mut plan = Self { to_upload: Vec::new(), to_delete: Vec::new(), unchanged: 0, unreadable: Vec::new() };
        for result in hashed {
            match result {
                Ok(file) => match remote.remove(&file.path) {
                    Some(digest) if digest == file.digest => plan.unchanged += 1,
                    _ => plan.to_upload.push(file),
                },
                Err(rejected) => {
                    rejected.path.as_ref().map(|path| remote.remove(path));
                    plan.unreadable.push((rejected.name, rejected.why));
                }
            }
        }
        let kept: HashSet<&FilePath> = rejected.iter().filter_map(|rejected| rejected.path.as_ref()).collect();
        plan.to_delete = remote.into_iter().filter(|(path, _)| !kept.contains(path)).collect();
        plan.to_upload.sort_by(|a, b| a.path.cmp(&b.path));
        plan.to_delete.sort_by(|(a, _), (b, _)| a.cmp(b));
        plan
    }
}

/// The digest of every file of `zone` below `prefix`.
async fn list(calls: &Client, zone: &ZoneName, prefix: &str) -> Result<HashMap<FilePath, Digest>, ClientError> {
    let mut files = HashMap::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = retry(|| calls.files(zone, prefix, api::MAX_PAGE_FILES, cursor.as_deref())).await?;
        files.extend(page.files.into_iter().map(|file| (file.path, file.digest)));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(files);
        }
    }
}

/// Uploads `items`, `jobs` at once, adding to `report`. `meta` goes with each.
///
/// # Errors
/// [`SyncError::Stopped`].
pub async fn upload_all(
    connection: &Connection,
    items: Vec<Item>,
    meta: &UploadMeta,
    jobs: usize,
    progress: &Progress,
    report: &mut SyncReport,
    on_change: OnChange<'_>,
) -> Result<(), SyncError> {
    progress.begin_bytes(uploading(items.len()), Some(items.iter().map(|item| item.size).sum()));
    let uploads = stream::iter(items).map(|item| async move {
        let answer = upload_file(connection, &item, meta, progress).await;
        (item, answer)
    });
    let mut uploads = std::pin::pin!(uploads.buffer_unordered(jobs.clamp(1, MAX_JOBS)));
    while let Some((item, answer)) = uploads.next().await {
        match answer {
            Ok(file) => {
                report.uploaded += 1;
                report.uploaded_bytes += file.size;
                progress.pause(|| on_change(Change::Uploaded(&file)));
            }
            Err(UploadError::Call(source)) if concerns_all(&source) => {
                return Err(SyncError::Stopped { doing: "upload", name: item.name, source });
            }
            Err(error) => {
                report.failed += 1;
                progress.pause(|| on_change(Change::Failed(&item.name, &error.to_string())));
            }
        }
    }
    Ok(())
}

fn uploading(files: usize) -> String {
    format!("uploading {files} {}", if files == 1 { "file" } else { "files" })
}

/// Deletes files that still have the digest they were listed with.
async fn delete_all(
    connection: &Connection,
    zone: &ZoneName,
    files: Vec<(FilePath, Digest)>,
    jobs: usize,
    progress: &Progress,
    report: &mut SyncReport,
    on_change: OnChange<'_>,
) -> Result<(), SyncError> {
    progress.begin_files("deleting", Some(files.len() as u64));
    let deletions = stream::iter(files).map(|(path, digest)| async move {
        let answer = connection.calls.delete_file(zone, &path, Some(digest), false).await;
        (path, answer)
    });
    let mut deletions = std::pin::pin!(deletions.buffer_unordered(jobs.clamp(1, MAX_JOBS)));
    while let Some((path, answer)) = deletions.next().await {
        progress.done(1);
        match answer {
            Ok(answer) => {
                report.deleted += 1;
                progress.pause(|| on_change(Change::Deleted(&path, &answer.receipts)));
            }
            Err(source) if concerns_all(&source) => {
                return Err(SyncError::Stopped { doing: "delete", name: path.to_string(), source });
            }
            Err(error) => {
                report.failed += 1;
                progress.pause(|| on_change(Change::Failed(path.as_str(), &error.to_string())));
            }
        }
    }
    Ok(())
}

/// Whether a failure would befall every other file, too.
pub fn concerns_all(error: &ClientError) -> bool {
    use api::ErrorCode::{Forbidden, StorageFull, TokenExpired, Unauthorized, UnknownZone};
    match error {
        ClientError::Net(net::NetError::Connect { .. }) => true,
        ClientError::Net(_) | ClientError::Unexpected { .. } => false,
        ClientError::Problem(problem) => {
            matches!(problem.code, Unauthorized | TokenExpired | Forbidden | UnknownZone | StorageFull)
        }
    }
}

#[cfg(test)]
mod tests;

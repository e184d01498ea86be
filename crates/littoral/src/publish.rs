//! Bringing whole folders and many files into a zone: what `put`, `sync` and `up` share.
//!
//! The life of a [`sync`]: [`walk`] the folder → hash its files while the zone is listed → [`plan`](Plan) which differ →
//! upload those, each guarded by its digest → delete what the folder does not have. A file that cannot be taken is
//! reported and the rest goes on; what would fail for every file alike ends the run.

mod batch;
mod body;
mod hash;
mod upload;
mod walk;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use api::{Digest, FileDoc, FilePath, InvalidName, PurgeAnswer, ZoneName};
use client::{Client, ClientError, UploadMeta};

use crate::connection::{Connection, retry};
use crate::progress::Progress;

pub use batch::Batch;
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
    /// It was deleted from the zone; what the API answered.
    Deleted(&'a FilePath, &'a PurgeAnswer),
    /// It would have been deleted.
    WouldDelete(&'a FilePath),
    /// It was left alone on purpose; why.
    Skipped(&'a str, &'a str),
    /// It could not be dealt with; why.
    Failed(&'a str, &'a str),
}

/// Hears of each [`Change`] as it happens. Whoever prints it does so within [`Progress::pause`].
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
    let mut batch = Batch::new(connection, options.jobs, progress, on_change);
    progress.begin_files("reading", None);
    let walked = walk(dir, &prefix).await?;
    batch.report_walk(&walked);

    progress.begin_files("comparing", Some(walked.files.len() as u64));
    let hashing = async { Ok(hash_all(walked.files, progress).await) };
    let (hashed, remote) = tokio::try_join!(hashing, list(&connection.calls, zone, &prefix))?;
    let plan = Plan::new(hashed, remote, &walked.rejected);
    batch.report.unchanged = plan.unchanged;
    plan.unreadable.iter().for_each(|rejected| batch.fail(&rejected.name, &rejected.why));

    let mut to_delete = if options.delete { plan.to_delete } else { Vec::new() };
    if !to_delete.is_empty() && !walked.whole {
        to_delete.clear();
        batch.fail(&walk::shown(dir), "nothing is deleted from the zone, because not every folder could be read");
    }
    if options.dry_run {
        progress.finish();
        batch.pretend(&plan.to_upload, &to_delete);
    } else {
        let items = plan.to_upload.into_iter().map(|file| Item::guarded(zone, file)).collect();
        batch.upload(items, &UploadMeta::default()).await?;
        let files = to_delete.into_iter().map(|(path, digest)| (path, Some(digest))).collect();
        batch.delete(zone, files, false).await?;
    }
    progress.finish();
    Ok(SyncReport { elapsed: begun.elapsed(), ..batch.report })
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

/// What is to be done, decided: no I/O.
struct Plan {
    to_upload: Vec<Hashed>,
    to_delete: Vec<(FilePath, Digest)>,
    unchanged: u64,
    unreadable: Vec<Rejected>,
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
                    if let Some(path) = &rejected.path {
                        remote.remove(path);
                    }
                    plan.unreadable.push(rejected);
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
async fn list(calls: &Client, zone: &ZoneName, prefix: &str) -> Result<HashMap<FilePath, Digest>, SyncError> {
    let mut files = HashMap::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = retry(|| calls.files(zone, prefix, api::MAX_PAGE_FILES, cursor.as_deref())).await;
        let page = page.map_err(|source| SyncError::List { zone: zone.clone(), source })?;
        files.extend(page.files.into_iter().map(|file| (file.path, file.digest)));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(files);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FilePath {
        text.parse().expect(text)
    }

    fn hashed(name: &str, content: &str) -> Result<Hashed, Rejected> {
        let digest = Digest::of(content.as_bytes());
        Ok(Hashed { disk: name.into(), path: path(name), size: content.len() as u64, digest })
    }

    fn rejected(name: &str) -> Rejected {
        Rejected { name: name.to_owned(), why: "no".to_owned(), path: Some(path(name)) }
    }

    #[test]
    fn only_what_differs_is_uploaded_and_only_what_is_gone_is_deleted() {
        let local = vec![
            hashed("z-new", "1"),
            hashed("same", "1"),
            hashed("changed", "2"),
            Err(rejected("unreadable")),
            hashed("a-new", "1"),
        ];
        let remote = ["same", "changed", "gone", "unreadable", "socket", "also-gone"];
        let remote = remote.into_iter().map(|name| (path(name), Digest::of(b"1"))).collect();
        let plan = Plan::new(local, remote, &[rejected("socket")]);
        let uploads: Vec<&str> = plan.to_upload.iter().map(|file| file.path.as_str()).collect();
        let deletions: Vec<&str> = plan.to_delete.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(uploads, ["a-new", "changed", "z-new"]);
        assert_eq!(deletions, ["also-gone", "gone"], "what is there but cannot be read is not gone");
        assert_eq!(plan.unchanged, 1);
        assert_eq!(plan.unreadable, [rejected("unreadable")]);
    }

    #[test]
    fn prefixes() {
        for (prefix, expected) in [("", ""), ("/", ""), ("a", "a/"), ("/a/b/", "a/b/")] {
            assert_eq!(folder_prefix(prefix).as_deref(), Ok(expected), "{prefix}");
        }
        for bad in ["..", "a/../b", "a//b", "-", "-/x"] {
            assert!(folder_prefix(bad).is_err(), "{bad}");
        }
    }

    /// What `up` spawns on other threads has to be allowed there.
    #[test]
    fn a_sync_may_move_between_threads() {
        fn check<T: Send>(_: &T) {}
        let connection = Connection::new("http://127.0.0.1:1", None);
        let zone = "files".parse().expect("zone");
        let (options, progress) = (SyncOptions::default(), Progress::hidden());
        let mut on_change = |_: Change<'_>| {};
        check(&sync(&connection, &zone, Path::new("."), "", &options, &progress, &mut on_change));
    }
}

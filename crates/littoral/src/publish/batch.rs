//! Uploading and deleting many files, a bounded number at once, telling of each.

use api::{Digest, FilePath, ZoneName};
use client::{ClientError, UploadMeta};
use futures_util::{StreamExt, stream};

use crate::connection::Connection;
use crate::progress::Progress;
use crate::publish::hash::Hashed;
use crate::publish::upload::{Item, UploadError, upload_file};
use crate::publish::walk::Walked;
use crate::publish::{Change, MAX_JOBS, OnChange, SyncError, SyncReport};

/// Why a folder with the data of a CDN is left alone.
const HOLDS_SECRETS: &str = "it holds the data and the secrets of a CDN, which are never published";

/// Work on many files: where, how many at once, and what came of it so far.
pub struct Batch<'a> {
    connection: &'a Connection,
    jobs: usize,
    progress: &'a Progress,
    on_change: OnChange<'a>,
    /// What was done so far; `elapsed` is for whoever began.
    pub report: SyncReport,
}

impl<'a> Batch<'a> {
    /// A batch of `jobs` (1 to [`MAX_JOBS`]) at once. Each change is told to `on_change`.
    pub fn new(connection: &'a Connection, jobs: usize, progress: &'a Progress, on_change: OnChange<'a>) -> Self {
        let jobs = jobs.clamp(1, MAX_JOBS);
        Self { connection, jobs, progress, on_change, report: SyncReport::default() }
    }

    /// Uploads `items`. `meta` goes with each. What only concerns one of them is counted, and the rest goes on.
    ///
    /// # Errors
    /// [`SyncError::Stopped`].
    pub async fn upload(&mut self, items: Vec<Item>, meta: &UploadMeta) -> Result<(), SyncError> {
        let (connection, progress) = (self.connection, self.progress);
        progress.begin_bytes(uploading(items.len()), Some(items.iter().map(|item| item.size).sum()));
        let uploads = stream::iter(items).map(|item| async move {
            let answer = upload_file(connection, &item, meta, progress).await;
            (item, answer)
        });
        let mut uploads = std::pin::pin!(uploads.buffer_unordered(self.jobs));
        while let Some((item, answer)) = uploads.next().await {
            match answer {
                Ok(file) => {
                    self.report.uploaded += 1;
                    self.report.uploaded_bytes += file.size;
                    self.tell(Change::Uploaded(&file));
                }
                Err(UploadError::Call(source)) if concerns_all(&source) => {
                    return Err(SyncError::Stopped { doing: "upload", name: item.name, source });
                }
                Err(error) => self.fail(&item.name, &error.to_string()),
            }
        }
        Ok(())
    }

    /// Deletes files of `zone`, those with a digest only if they still have it. `wait`s for the edges if asked to.
    ///
    /// # Errors
    /// [`SyncError::Stopped`].
    pub async fn delete(
        &mut self,
        zone: &ZoneName,
        files: Vec<(FilePath, Option<Digest>)>,
        wait: bool,
    ) -> Result<(), SyncError> {
        let (connection, progress) = (self.connection, self.progress);
        progress.begin_files("deleting", Some(files.len() as u64));
        let deletions = stream::iter(files).map(|(path, digest)| async move {
            let answer = connection.calls.delete_file(zone, &path, digest, wait).await;
            (path, answer)
        });
        let mut deletions = std::pin::pin!(deletions.buffer_unordered(self.jobs));
        while let Some((path, answer)) = deletions.next().await {
            progress.done(1);
            match answer {
                Ok(answer) => {
                    self.report.deleted += 1;
                    self.tell(Change::Deleted(&path, &answer));
                }
                Err(source) if concerns_all(&source) => {
                    return Err(SyncError::Stopped { doing: "delete", name: path.to_string(), source });
                }
                Err(error) => self.fail(path.as_str(), &error.to_string()),
            }
        }
        Ok(())
    }

    /// Tells what would be uploaded and deleted.
    pub(super) fn pretend(&mut self, uploads: &[Hashed], deletions: &[(FilePath, Digest)]) {
        for file in uploads {
            self.report.uploaded += 1;
            self.report.uploaded_bytes += file.size;
            self.tell(Change::WouldUpload(&file.path));
        }
        for (path, _) in deletions {
            self.report.deleted += 1;
            self.tell(Change::WouldDelete(path));
        }
    }

    /// Tells of what a walk has left out.
    pub fn report_walk(&mut self, walked: &Walked) {
        walked.skipped.iter().for_each(|name| self.tell(Change::Skipped(name, HOLDS_SECRETS)));
        walked.rejected.iter().for_each(|rejected| self.fail(&rejected.name, &rejected.why));
    }

    /// Counts something that could not be dealt with, and tells why.
    pub fn fail(&mut self, name: &str, why: &str) {
        self.report.failed += 1;
        self.tell(Change::Failed(name, why));
    }

    fn tell(&mut self, change: Change<'_>) {
        (self.on_change)(change);
    }
}

fn uploading(files: usize) -> String {
    format!("uploading {files} {}", if files == 1 { "file" } else { "files" })
}

/// Whether a failure would befall every other file, too.
fn concerns_all(error: &ClientError) -> bool {
    use api::ErrorCode::{Forbidden, StorageFull, TokenExpired, Unauthorized, UnknownZone};
    match error {
        ClientError::Net(net::NetError::Connect { .. }) => true,
        ClientError::Net(_) | ClientError::Unexpected { .. } => false,
        ClientError::Problem(problem) => {
            matches!(problem.code, Unauthorized | TokenExpired | Forbidden | UnknownZone | StorageFull)
        }
    }
}

//! Changing files: new content, deletion, renaming, other metadata. Each is one transaction with its event and version.

use api::node::{Conditions, UploadCommit, UploadTarget};
use api::{Change as Says, Digest, FileId, FilePatch, FilePath, ZoneName};
use uuid::{NoContext, Timestamp, Uuid};

use crate::rows::{StoredFile, integer};
use crate::write::Change;
use crate::{Catalog, CatalogError, VERSIONS_KEPT, blobs, conditions, error, files};

/// What a file is served as that nobody gave a media type.
const DEFAULT_MEDIA_TYPE: &str = "application/octet-stream";

/// The answer to a committed upload.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedFile {
    /// Whether the file is new, rather than a new version.
    pub created: bool,
    /// The file as it is now.
    pub file: StoredFile,
}

impl Catalog {
    /// Whether an upload there, under those conditions, would be committed as things stand. Changes nothing.
    /// Answers the file's path and the sweep to commit with.
    ///
    /// # Errors
    /// `UnknownZone`, `PullZone`, `UnknownFile` (an id), `PreconditionFailed`, `Invalid` (a condition).
    pub async fn begin_upload(
        &self,
        target: &UploadTarget,
        conditions: &Conditions,
    ) -> Result<(FilePath, u64), CatalogError> {
        let mut reader = self.readers().acquire().await?;
        let before = match target {
            UploadTarget::Path { .. } => files::find(&mut reader, target).await?,
            UploadTarget::Id { .. } => Some(files::existing(&mut reader, target).await?),
        };
        conditions::check(conditions, before.as_ref().map(|file| &file.digest))?;
        let sweep = blobs::sweep(&mut reader).await?;
        let path = match (before, target) {
            (Some(file), _) => file.path,
            (None, UploadTarget::Path { path, .. }) => path.clone(),
            (None, UploadTarget::Id { id }) => return Err(files::unknown_id(*id)),
        };
        Ok((path, sweep))
    }

    /// Makes a blob that is in place the newest version of a file.
    ///
    /// `commit.sweep` was answered by [`Self::begin_upload`] before the blob was placed. If the blob has been condemned
    /// and not forgotten, or forgotten after that answer, the collector may have deleted what was placed: the uploader
    /// begins again, places the blob again and commits with the new number.
    ///
    /// # Errors
    /// `UnknownZone`, `PullZone`, `UnknownFile` (an id), `PreconditionFailed`, `Invalid` (a condition), `BlobCondemned`.
    pub async fn commit_upload(&self, commit: UploadCommit, now_ms: u64) -> Result<CommittedFile, CatalogError> {
        self.change(now_ms, |change| Box::pin(change.commit_upload(commit))).await
    }

    /// Deletes a file. Answers the file that was, and the number of the event. A file that is put there later is
    /// another one, with another id.
    ///
    /// # Errors
    /// `UnknownZone`, `PullZone`, `UnknownFile`, `PreconditionFailed`, `Invalid` (a condition).
    pub async fn delete_file(
        &self,
        target: UploadTarget,
        conditions: Conditions,
        now_ms: u64,
    ) -> Result<(StoredFile, u64), CatalogError> {
        self.change(now_ms, |change| Box::pin(change.delete_file(target, conditions))).await
    }

    /// Renames a file or changes what goes with it. A patch that changes nothing makes no version and no event.
    ///
    /// # Errors
    /// `UnknownFile`, or `Conflict` when another file has the new path.
    pub async fn patch_file(&self, id: FileId, patch: FilePatch, now_ms: u64) -> Result<StoredFile, CatalogError> {
        self.change(now_ms, move |change| Box::pin(change.patch_file(id, patch))).await
    }
}

impl Change<'_> {
    async fn commit_upload(&mut self, commit: UploadCommit) -> Result<CommittedFile, CatalogError> {
        let before = match &commit.target {
            UploadTarget::Path { .. } => files::find(self.sql(), &commit.target).await?,
            UploadTarget::Id { .. } => Some(files::existing(self.sql(), &commit.target).await?),
        };
        conditions::check(&commit.conditions, before.as_ref().map(|file| &file.digest))?;
        self.blob_is_in_place(&commit.digest, commit.sweep).await?;
        let created = before.is_none();
        let base = match (before, commit.target) {
            (Some(file), _) => file,
            (None, UploadTarget::Path { zone, path }) => self.new_file(zone, path),
            (None, UploadTarget::Id { id }) => return Err(files::unknown_id(id)),
        };
        let file = StoredFile {
            digest: commit.digest,
            size: commit.size,
            media_type: commit.media_type.unwrap_or(base.media_type),
            cache_control: commit.cache_control,
            tags: commit.tags,
            ..base
        };
        let file = self.store_version(file, Says::FileUpdated).await?;
        Ok(CommittedFile { created, file })
    }

    async fn delete_file(
        &mut self,
        target: UploadTarget,
        conditions: Conditions,
    ) -> Result<(StoredFile, u64), CatalogError> {
        // A condition on a file that is not there fails before the lack of the file does (RFC 9110 § 13.1.1).
        let before = files::find(self.sql(), &target).await?;
        conditions::check(&conditions, before.as_ref().map(|file| &file.digest))?;
        let file = match before {
            Some(file) => file,
            None => files::existing(self.sql(), &target).await?,
        };
        // Its versions and placements go with it.
        let delete = sqlx::query("DELETE FROM files WHERE id = $1").bind(file.id.0.as_bytes().as_slice());
        delete.execute(self.sql()).await?;
        let event = self.append(&Says::FileDeleted(file.to_ref())).await?;
        Ok((file, event))
    }

    async fn patch_file(&mut self, id: FileId, patch: FilePatch) -> Result<StoredFile, CatalogError> {
        let before = files::existing(self.sql(), &UploadTarget::Id { id }).await?;
        let cache_control = match patch.cache_control {
            Some(value) if value.is_empty() => None,
            Some(value) => Some(value),
            None => before.cache_control.clone(),
        };
        let file = StoredFile {
            path: patch.path.unwrap_or_else(|| before.path.clone()),
            media_type: patch.media_type.unwrap_or_else(|| before.media_type.clone()),
            cache_control,
            tags: patch.tags.unwrap_or_else(|| before.tags.clone()),
            ..before.clone()
        };
        if file == before {
            return Ok(file);
        }
        if file.path == before.path {
            return self.store_version(file, Says::FileUpdated).await;
        }
        let target = UploadTarget::Path { zone: file.zone.clone(), path: file.path.clone() };
        if let Some(other) = files::find(self.sql(), &target).await? {
            let detail = format!("the path '{}' is taken by the file {}; delete that first", other.path, other.id);
            return Err(CatalogError::Conflict(detail));
        }
        self.store_version(file, |file| Says::FileMoved { file, old_path: before.path }).await
    }

    fn new_file(&self, zone: ZoneName, path: FilePath) -> StoredFile {
        let sub_second_ns = u32::try_from(self.now_ms % 1_000).unwrap_or_default() * 1_000_000;
        let at = Timestamp::from_unix(NoContext, self.now_ms / 1_000, sub_second_ns);
        StoredFile {
            id: FileId(Uuid::new_v7(at)),
            zone,
            path,
            version: 0,
            digest: Digest([0; 32]),
            size: 0,
            media_type: DEFAULT_MEDIA_TYPE.to_owned(),
            cache_control: None,
            tags: Vec::new(),
            event: 0,
            modified_ms: 0,
        }
    }

    /// Stores `file` as its next version, made now by the event that `says` makes of it, and forgets old versions.
    async fn store_version(
        &mut self,
        mut file: StoredFile,
        says: impl FnOnce(api::FileRef) -> Says + Send,
    ) -> Result<StoredFile, CatalogError> {
        file.version += 1;
        file.modified_ms = self.now_ms;
        file.event = self.append(&says(file.to_ref())).await?;
        self.write_file(&file).await?;
        self.write_version(&file).await?;
        Ok(file)
    }

    async fn write_file(&mut self, file: &StoredFile) -> Result<(), CatalogError> {
        let tags = serde_json::to_string(&file.tags).map_err(|why| error::corrupt("tags", why))?;
        let upsert = sqlx::query(
            "INSERT INTO files \
             (id, zone, path, version, digest, size, media_type, cache_control, tags, event, modified_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (id) DO UPDATE SET path = excluded.path, version = excluded.version, \
             digest = excluded.digest, size = excluded.size, media_type = excluded.media_type, \
             cache_control = excluded.cache_control, tags = excluded.tags, event = excluded.event, \
             modified_ms = excluded.modified_ms",
        );
        let upsert = upsert.bind(file.id.0.as_bytes().as_slice()).bind(file.zone.as_str()).bind(file.path.as_str());
        let upsert = upsert.bind(integer(file.version)).bind(file.digest.0.as_slice()).bind(integer(file.size));
        let upsert = upsert.bind(&file.media_type).bind(&file.cache_control).bind(tags);
        upsert.bind(integer(file.event)).bind(integer(file.modified_ms)).execute(self.sql()).await?;
        Ok(())
    }

    async fn write_version(&mut self, file: &StoredFile) -> Result<(), CatalogError> {
        let insert = sqlx::query(
            "INSERT INTO versions (file_id, version, digest, size, event, created_ms) VALUES ($1, $2, $3, $4, $5, $6)",
        );
        let insert = insert.bind(file.id.0.as_bytes().as_slice()).bind(integer(file.version));
        let insert = insert.bind(file.digest.0.as_slice()).bind(integer(file.size));
        insert.bind(integer(file.event)).bind(integer(file.modified_ms)).execute(self.sql()).await?;
        if file.version > VERSIONS_KEPT {
            let delete = sqlx::query("DELETE FROM versions WHERE file_id = $1 AND version <= $2");
            let delete = delete.bind(file.id.0.as_bytes().as_slice()).bind(integer(file.version - VERSIONS_KEPT));
            delete.execute(self.sql()).await?;
        }
        Ok(())
    }
}

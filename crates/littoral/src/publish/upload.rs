//! One upload: from a file on this machine, or from a stream.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use api::{Digest, ErrorCode, FileDoc, FilePath, ZoneName};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use client::{ClientError, Upload, UploadMeta};

use crate::connection::Connection;
use crate::progress::Progress;
use crate::publish::body::{Fault, Source, Watch, body};
use crate::publish::hash::Hashed;
use crate::publish::walk::{Found, shown};

/// A file to be uploaded.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it is on this machine.
    pub disk: PathBuf,
    /// Its name for messages.
    pub name: String,
    /// Bytes, as far as is known; for the progress bar.
    pub size: u64,
    /// Where to.
    pub to: Upload,
    /// What it must still be when it is uploaded.
    pub digest: Option<Digest>,
}

impl Item {
    /// A file that was hashed, for its path: stored only if it still has this digest.
    pub fn guarded(zone: &ZoneName, file: Hashed) -> Self {
        let digest = Some(file.digest);
        Self { digest, ..Self::at(zone, file.path, file.disk, file.size) }
    }

    /// A file that was found, for its path.
    pub fn found(zone: &ZoneName, file: Found) -> Self {
        Self::at(zone, file.path, file.disk, file.size)
    }

    fn at(zone: &ZoneName, path: FilePath, disk: PathBuf, size: u64) -> Self {
        Self { name: shown(&disk), disk, size, to: Upload::Path(zone.clone(), path), digest: None }
    }
}

/// Why something was not uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// It cannot be opened, or is not a file.
    #[error("cannot be read: {0}")]
    Open(#[from] io::Error),
    /// It cannot be read to its end, or changed meanwhile.
    #[error(transparent)]
    Source(#[from] Fault),
    /// The file is not any more what it was when it was hashed.
    #[error("it changed between being compared and being uploaded; nothing was stored")]
    Changed,
    /// The other side makes no progress.
    #[error("the upload made no progress for {seconds} s")]
    Stalled {
        /// How long was waited at least.
        seconds: u64,
    },
    /// The other side refused, or was lost.
    #[error(transparent)]
    Call(#[from] ClientError),
}

/// Uploads a file. `meta` goes with it; its length and digest are filled in here.
///
/// # Errors
/// See [`UploadError`]. Whatever the error, the zone has either the old version or the whole new one.
pub async fn upload_file(
    connection: &Connection,
    item: &Item,
    meta: &UploadMeta,
    progress: &Progress,
) -> Result<FileDoc, UploadError> {
    let disk = item.disk.clone();
    let opened = tokio::task::spawn_blocking(move || open(&disk)).await;
    let (source, size) = opened.map_err(|_| io::Error::other("opening it broke off"))??;
    let meta = UploadMeta { size: Some(size), repr_digest: item.digest.map(repr_digest), ..meta.clone() };
    match send(connection, &item.to, &meta, body(source, progress)).await {
        Err(UploadError::Call(error)) if item.digest.is_some() && error.code() == Some(ErrorCode::DigestMismatch) => {
            Err(UploadError::Changed)
        }
        answer => answer,
    }
}

/// Uploads what `reader` gives, to its end. `meta` goes with it.
///
/// # Errors
/// See [`UploadError`].
pub async fn upload_stream(
    connection: &Connection,
    reader: Box<dyn Read + Send>,
    to: &Upload,
    meta: &UploadMeta,
    progress: &Progress,
) -> Result<FileDoc, UploadError> {
    send(connection, to, meta, body(Source::Stream(reader), progress)).await
}

async fn send(
    connection: &Connection,
    to: &Upload,
    meta: &UploadMeta,
    (body, watch): (net::Body, Watch),
) -> Result<FileDoc, UploadError> {
    let answer = tokio::select! {
        answer = connection.uploads.upload(to, meta, body) => answer,
        seconds = watch.stalled() => return Err(UploadError::Stalled { seconds }),
    };
    match answer {
        Ok((_created, file)) => Ok(file),
        Err(error) => Err(watch.fault().map_or_else(|| error.into(), UploadError::from)),
    }
}

/// Opens a file. What is not a file is not even opened: opening a pipe waits for somebody to write to it.
fn open(path: &Path) -> io::Result<(Source, u64)> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Source::file(File::open(path)?)
}

/// The value of `Repr-Digest` (RFC 9530 § 3).
fn repr_digest(digest: Digest) -> String {
    format!("blake3=:{}:", BASE64_STANDARD.encode(digest.0))
}

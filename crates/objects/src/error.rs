//! What can go wrong with blobs, and how a full disk is told from the rest.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use api::Digest;

/// What can go wrong with blobs.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No room left: ENOSPC, EDQUOT or EFBIG.
    #[error("the storage has no room left")]
    Full(#[source] Box<dyn Error + Send + Sync>),
    /// There is no such blob.
    #[error("there is no blob {digest}")]
    NotFound {
        /// The blob that was asked for.
        digest: Digest,
    },
    /// The stored bytes are not those of the digest, or not of the expected size.
    #[error("the blob {digest} is corrupt (slice {})", slice.map_or_else(|| "unknown".to_owned(), |s| s.to_string()))]
    Corrupt {
        /// The blob.
        digest: Digest,
        /// The slice that is wrong; absent when the list of chaining values is lost too, so that it cannot be told.
        slice: Option<u64>,
    },
    /// The local folder cannot be used.
    #[error("the folder {} cannot be used: {source}", path.display())]
    Folder {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The object store failed.
    #[error("the object store failed: {0}")]
    Store(#[source] object_store::Error),
}

impl BlobError {
    /// An error of the operating system at `path`.
    pub(crate) fn folder(path: impl Into<PathBuf>, source: io::Error) -> Self {
        match no_room(&source) {
            true => Self::Full(Box::new(source)),
            false => Self::Folder { path: path.into(), source },
        }
    }

    /// An error of the store while reading the blob `digest`.
    pub(crate) fn reading(digest: Digest, error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound { digest },
            other => other.into(),
        }
    }
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        match no_room(&error) {
            true => Self::Full(Box::new(error)),
            false => Self::Store(error),
        }
    }
}

/// Whether a full disk, quota or file size limit is somewhere in the chain of causes: stores wrap the error of the
/// operating system more than once.
fn no_room(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
        if io.is_some_and(|io| full.contains(&io.kind())) {
            return true;
        }
        // The `source` of an `io::Error` that wraps another error is the source of that other one, which is left out.
        cause = match io.and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

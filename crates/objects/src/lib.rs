//! Object storage: immutable blobs named by the BLAKE3 of their bytes, over any `object_store`.
//!
//! Layout, the same in a folder, in memory and on S3:
//! - `staging/<uuid>`: a body while it is uploaded, and until its commit is acknowledged;
//! - `blobs/ab/cd/<digest>`: a blob; it appears whole and synced or not at all;
//! - `blobs/ab/cd/<digest>.slices`: of blobs longer than one slice, the chaining values of the slices ([`api::slices`])
//!   one after the other. It can be computed again from the blob, so it is checked when read and never trusted.
//!
//! Life of a blob: [`Blobs::stage`] → [`Staging::write`]… → [`Staging::finish`] → [`Blobs::place`] → (the catalog
//! commits) → [`Blobs::discard`]. Nothing is ever written in place, no conditional write is needed, and nothing
//! temporary is ever below `blobs/`: whatever a crash leaves behind is in `staging/`, where [`Blobs::sweep_staging`]
//! finds it. A blob that nothing refers to is removed by a collector through [`Blobs::list_old`] and [`Blobs::delete`].

mod collect;
mod error;
mod folder;
mod hashing;
mod read;
mod staging;

use std::path::Path;
use std::sync::Arc;

use api::Digest;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Location;

pub use error::BlobError;
pub use hashing::Wanted;
pub use staging::{MAX_PARTS_IN_FLIGHT, PART_BYTES, Staged, Staging};

use folder::Folder;
use read::Lists;

/// The end of the name of a list of chaining values.
const LIST_SUFFIX: &str = ".slices";

/// A store of blobs. Clones are handles to the same store.
#[derive(Debug, Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    /// Present when the store is a local folder, which makes nothing durable by itself.
    folder: Option<Folder>,
    lists: Lists,
}

impl Blobs {
    /// Blobs in a local folder, which is made when it is not there. Does blocking I/O: call it at start.
    ///
    /// # Errors
    /// The folder cannot be made, read or synced.
    pub fn folder(root: &Path) -> Result<Self, BlobError> {
        let folder = Folder::open(root)?;
        // Its own `with_fsync` is not used: it takes a directory that exists for one that is durable (it may have been
        // made by an upload that has not synced it yet, or by a process that died), and syncs `staging/` for nothing.
        let store = LocalFileSystem::new_with_prefix(root)?;
        Ok(Self::assemble(Arc::new(store), Some(folder)))
    }

    /// Blobs in memory, for tests.
    pub fn memory() -> Self {
        Self::new(Arc::new(InMemory::new()))
    }

    /// Blobs in a store whose writes are durable when they return, such as S3.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self::assemble(store, None)
    }

    fn assemble(store: Arc<dyn ObjectStore>, folder: Option<Folder>) -> Self {
        Self { inner: Arc::new(Inner { store, folder, lists: Lists::default() }) }
    }

    fn store(&self) -> &dyn ObjectStore {
        &*self.inner.store
    }
}

/// Where a blob is.
fn blob_location(digest: Digest) -> Location {
    let [a, b, ..] = digest.0;
    Location::from(format!("blobs/{a:02x}/{b:02x}/{digest}"))
}

/// Where the chaining values of a blob are.
fn list_location(digest: Digest) -> Location {
    let [a, b, ..] = digest.0;
    Location::from(format!("blobs/{a:02x}/{b:02x}/{digest}{LIST_SUFFIX}"))
}

/// Where something temporary is.
fn staging_location(name: &str) -> Location {
    Location::from(format!("staging/{name}"))
}

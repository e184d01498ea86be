//! Looks into files: on threads that may block, a bounded number at once, and with a bounded patience.
//!
//! A folder that lets several in a row run out of patience is out of use until it answers ([`Disk::gave_up`]).
//!
//! It has no lock of its own. What has begun goes on to its end, however long that takes, and holds its place meanwhile.

use std::sync::Arc;
use std::time::Duration;

use shelf::disk::Disk;
use tokio::sync::Semaphore;

/// Looks into files at once; further ones wait.
const MAX_READS: usize = 128;
/// How long a look into a file may take before the request goes on without, in milliseconds.
const PATIENCE_MS: u64 = 2_000;

/// The way to the disk for whoever may not block. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Looks {
    disk: Arc<Disk>,
    places: Arc<Semaphore>,
}

impl Looks {
    pub(crate) fn new(disk: Arc<Disk>) -> Self {
        Self { disk, places: Arc::new(Semaphore::new(MAX_READS)) }
    }

    /// Runs something that blocks, with the disk. Nothing: it takes too long, as on a disk that hangs. What has begun goes on.
    pub(crate) async fn blocking<T, F>(&self, work: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Disk>) -> T + Send + 'static,
    {
        let (places, disk, waited_for) = (Arc::clone(&self.places), Arc::clone(&self.disk), Arc::clone(&self.disk));
        let done = async move {
            let place = places.acquire_owned().await.ok()?;
            let work = move || {
                let _place = place; // for as long as it really takes
                work(&disk)
            };
            tokio::task::spawn_blocking(work).await.ok()
        };
        let waited = tokio::time::timeout(Duration::from_millis(PATIENCE_MS), done).await;
        waited.inspect_err(|_| waited_for.gave_up()).ok().flatten()
    }
}

//! The origin role: the address of the API. It takes the bodies of uploads, serves content to edges on a miss, and hands
//! everything else on to control.
//!
//! Without state of its own: content is in the blob store ([`objects`]), what it means is control's. Absent on purpose:
//! a catalog, a cache, knowledge of edges. See `service.rs` for what is served, `upload.rs` for the life of an upload and
//! `collector.rs` for the end of blobs.

mod collector;
mod config;
mod content;
mod forward;
mod media;
mod metrics;
mod repr_digest;
mod respond;
mod service;
mod slices_body;
mod upload;
mod upload_head;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::{ErrorCode, Problem, TokenHash};
use client::Client;
use net::HttpClient;
use objects::{BlobError, Blobs};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use collector::{CollectError, Collected};
pub use config::{CollectorConfig, OriginConfig, OriginLimits};

use metrics::Metrics;

/// Between two lines in the log about corrupt blobs, in milliseconds. The metric counts every read.
const CORRUPT_LOG_MS: u64 = 10_000;
/// For uploads that have arrived whole when the origin is told to stop, in milliseconds.
const FINISH_MS: u64 = 5_000;

/// An origin. Clones are the same one.
#[derive(Clone)]
pub struct Origin {
    shared: Arc<Shared>,
    config: Arc<OriginConfig>,
}

/// What every request needs.
pub(crate) struct Shared {
    control: Client,
    blobs: Blobs,
    limits: OriginLimits,
    node_token_hash: TokenHash,
    metrics: Metrics,
    uploads: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    /// Uploads that have arrived whole and are being published.
    tasks: TaskTracker,
    /// When a corrupt blob was last logged. Held for a comparison.
    corrupt_logged: Mutex<Option<Instant>>,
}

impl Origin {
    /// An origin over `blobs` that asks control through `http`. Its metrics go to `registry`.
    pub fn new(config: OriginConfig, blobs: Blobs, http: HttpClient, registry: &mut Registry) -> Self {
        let shared = Shared {
            control: Client::new(http, &config.control_url, Some(&config.node_token)),
            blobs,
            node_token_hash: config.node_token.hash(),
            metrics: Metrics::register(registry),
            uploads: Arc::new(Semaphore::new(config.limits.uploads)),
            reads: Arc::new(Semaphore::new(config.limits.reads)),
            limits: config.limits.clone(),
            tasks: TaskTracker::new(),
            corrupt_logged: Mutex::default(),
        };
        Self { shared: Arc::new(shared), config: Arc::new(config) }
    }

    /// Serves `listener` and collects blobs, until `shutdown`; returns when what was in progress has ended.
    pub async fn run(&self, listener: TcpListener, shutdown: CancellationToken) {
        let (shared, config) = (Arc::clone(&self.shared), self.config.collector.clone());
        let collector = tokio::spawn(collector::run(shared, config, shutdown.clone()));
        let shared = Arc::clone(&self.shared);
        let service = net::service(move |request| service::handle(Arc::clone(&shared), request));
        net::serve(listener, service, self.config.limits.server.clone(), shutdown).await;

        self.shared.tasks.close();
        if tokio::time::timeout(Duration::from_millis(FINISH_MS), self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("uploads that were not answered yet are cut off; whether they took effect is not known");
        }
        if collector.await.is_err() {
            tracing::error!("the collector has panicked");
        }
    }

    /// One round of the collector, which [`Origin::run`] also runs every so often.
    ///
    /// # Errors
    /// Control or the store failed; the next round takes up what this one has left.
    pub async fn collect_once(&self) -> Result<Collected, CollectError> {
        collector::run_once(&self.shared, &self.config.collector).await
    }
}

impl Shared {
    fn upload_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        permit(&self.uploads, self.limits.uploads, "uploads")
    }

    fn read_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        permit(&self.reads, self.limits.reads, "downloads")
    }

    /// Counts a read of bytes that are wrong, and logs it if nothing of the kind was logged lately.
    fn note_read_error(&self, error: &BlobError) {
        if !matches!(error, BlobError::Corrupt { .. }) {
            return;
        }
        self.metrics.corrupt_slices.inc();
        let mut logged = self.corrupt_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= Duration::from_millis(CORRUPT_LOG_MS)) {
            *logged = Some(Instant::now());
            tracing::error!(%error, "stored bytes are wrong; uploading the file again repairs it");
        }
    }
}

fn permit(places: &Arc<Semaphore>, limit: usize, what: &str) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        Problem::new(
            ErrorCode::Overloaded,
            format!("{limit} {what} are in progress, which is the limit; try again soon"),
        )
    })
}

//! Collecting blobs that no file refers to any more. One origin of a deployment does this at a time.
//!
//! A round: finish what an earlier one has left → list old blobs, prefix by prefix → ask control which of them nothing
//! refers to; control *condemns* those → delete them → tell control to *forget* them → sweep old staging objects.
//!
//! It cannot take away what an upload has just put there:
//! - a commit of a blob that is condemned is refused, from the moment that control answers until it forgets;
//! - a commit also says how many times control had forgotten blobs *before* the blob was placed
//!   ([`api::node::UploadCommit::sweep`]), and is refused when this blob was forgotten since: it may have been deleted
//!   after it was placed;
//! - an upload keeps its staging object until its commit is answered, so that it can place the blob again, and again;
//! - nothing is deleted that is not condemned: not later than [`DELETE_WITHIN_MS`] after control was asked (a process that
//!   slept must not wake up deleting), and what is not deleted by then stays condemned for the next round.
//!
//! A crash at any point leaves blobs condemned, deleted or not; the next round deletes them (again) and has them
//! forgotten. Until then only uploads of exactly that content are refused, with the advice to repeat them.

use std::sync::Arc;
use std::time::Duration;

use api::Digest;
use api::node::MAX_BLOBS_PER_CALL;
use client::ClientError;
use objects::BlobError;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::Shared;
use crate::config::CollectorConfig;

/// How long after control was asked a blob may still be deleted, in milliseconds.
const DELETE_WITHIN_MS: u64 = 30_000;
/// Before the first round, in milliseconds: a start is busy enough.
const FIRST_ROUND_MS: u64 = 5_000;

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs taken away, with those that an earlier round had left.
    pub blobs: u64,
    /// Staging objects taken away.
    pub staging: u64,
}

/// Why a round ended early. The next one takes up what it has left.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Control could not be asked.
    #[error("control: {0}")]
    Control(#[from] ClientError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] BlobError),
}

/// Runs a round every so often, until `shutdown`.
pub(crate) async fn run(shared: Arc<Shared>, config: CollectorConfig, shutdown: CancellationToken) {
    let mut wait = Duration::from_millis(FIRST_ROUND_MS.min(config.every_ms));
    loop {
        tokio::select! {
            () = sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            result = run_once(&shared, &config) => match result {
                Ok(done) if done == Collected::default() => tracing::debug!("nothing to collect"),
                Ok(done) => tracing::info!(blobs = done.blobs, staging = done.staging, "collected"),
                Err(error) => tracing::warn!(%error, "collecting ended early"),
            },
            // Cut off anywhere, like a crash: the next round takes it up.
            () = shutdown.cancelled() => return,
        }
        wait = Duration::from_millis(config.every_ms);
    }
}

/// One round.
pub(crate) async fn run_once(shared: &Arc<Shared>, config: &CollectorConfig) -> Result<Collected, CollectError> {
    let mut done = Collected::default();
    let asked = Instant::now();
    let left = shared.control.blobs_condemned().await?;
    done.blobs += remove(shared, left, asked).await?;

    let mut batch: Vec<Digest> = Vec::new();
    for prefix in 0..=u8::MAX {
        batch.extend(shared.blobs.list_old(prefix, Duration::from_millis(config.grace_ms)).await?);
        while batch.len() >= MAX_BLOBS_PER_CALL {
            let rest = batch.split_off(MAX_BLOBS_PER_CALL);
            done.blobs += condemn(shared, std::mem::replace(&mut batch, rest)).await?;
        }
    }
    done.blobs += condemn(shared, batch).await?;
    done.staging = shared.blobs.sweep_staging(Duration::from_millis(config.staging_ms)).await?;
    Ok(done)
}

/// Takes away those of `digests` that nothing refers to, and answers how many.
async fn condemn(shared: &Arc<Shared>, digests: Vec<Digest>) -> Result<u64, CollectError> {
    if digests.is_empty() {
        return Ok(0);
    }
    let asked = Instant::now();
    let condemned = shared.control.blobs_condemn(digests).await?;
    remove(shared, condemned, asked).await
}

/// Deletes blobs that control has condemned when it was asked, and has them forgotten.
async fn remove(shared: &Arc<Shared>, condemned: Vec<Digest>, asked: Instant) -> Result<u64, CollectError> {
    let mut deleted = Vec::with_capacity(condemned.len());
    let mut failed = None;
    for digest in condemned {
        if asked.elapsed() > Duration::from_millis(DELETE_WITHIN_MS) {
            tracing::warn!("deleting takes long; the rest of the condemned blobs is left for the next round");
            break;
        }
        match shared.blobs.delete(digest).await {
            Ok(()) => deleted.push(digest),
            Err(error) => failed = Some(error),
        }
    }
    let count = deleted.len() as u64;
    if count > 0 {
        shared.control.blobs_forget(deleted).await?;
        shared.metrics.blobs_collected.inc_by(count);
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(count),
    }
}

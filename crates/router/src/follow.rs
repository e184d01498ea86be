//! Keeps the view up to date: the stored snapshot first, then control's, then its stream, again and again.
//!
//! Nothing a request does depends on this loop: while control is away the view stays as it is.

use std::sync::Arc;
use std::time::Duration;

use api::node::{SNAPSHOT_FORMAT, Snapshot};
use api::{Change, Health};
use client::{ClientError, StreamItem};

use crate::Shared;
use crate::stored::Stored;
use crate::view::View;

/// First and longest wait before control is tried again, in milliseconds. It doubles from one to the other.
const BACKOFF_MS: (u64, u64) = (50, 2_000);

/// Takes up what a former life has stored.
pub(crate) async fn recall(shared: &Shared, stored: Option<Stored>) {
    if let Some(stored) = stored
        && let Ok(Some(snapshot)) = tokio::task::spawn_blocking(move || stored.load()).await
    {
        install(shared, snapshot);
    }
}

/// Follows control. Never returns.
pub(crate) async fn follow(shared: &Shared, stored: Option<Stored>) {
    let mut backoff_ms = BACKOFF_MS.0;
    loop {
        match follow_once(shared, stored.as_ref(), &mut backoff_ms).await {
            Ok(()) => tracing::info!("control ended the event stream"),
            Err(error) => tracing::warn!(%error, "control is away; going on with what is known"),
        }
        shared.metrics.connected.set(0);
        tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
    }
}

/// Fetches a snapshot and follows the stream from there, until that ends.
async fn follow_once(shared: &Shared, stored: Option<&Stored>, backoff_ms: &mut u64) -> Result<(), ClientError> {
    let mut at = refresh(shared, stored).await?;
    let mut stream = shared.control.events(Some(at.head), true).await?;
    while let Some(item) = stream.next().await? {
        // What the stream says of the configuration may be in the snapshot already.
        let newer = match item {
            StreamItem::Hello(hello) => {
                shared.metrics.connected.set(1);
                shared.metrics.connects.inc();
                *backoff_ms = BACKOFF_MS.0;
                hello.catalog_id != at.catalog_id || hello.generation > at.generation
            }
            StreamItem::Event(event) => {
                matches!(event.change, Change::Config { generation } if generation > at.generation)
            }
            StreamItem::Health(health) => {
                take_health(shared, health);
                false
            }
            StreamItem::Ping => false,
        };
        if newer {
            at = refresh(shared, stored).await?;
        }
    }
    Ok(())
}

/// Fetches the snapshot, takes it and stores it; answers what it is a snapshot of.
async fn refresh(shared: &Shared, stored: Option<&Stored>) -> Result<api::Hello, ClientError> {
    let snapshot = shared.control.snapshot().await?;
    let at = snapshot.at.clone();
    if snapshot.format > SNAPSHOT_FORMAT {
        let why = format!("snapshots have form {}; this program reads up to {SNAPSHOT_FORMAT}", snapshot.format);
        return Err(ClientError::Unexpected { url: shared.control.base_url().to_owned(), status: 200, why });
    }
    let Some(view) = install(shared, snapshot) else { return Ok(at) };
    if let Some(stored) = stored.cloned() {
        let saved = tokio::task::spawn_blocking(move || stored.save(&view.snapshot)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the snapshot could not be stored; a start without control would be without it");
        }
    }
    Ok(at)
}

/// Puts a snapshot in place, where it is not older than the one there.
fn install(shared: &Shared, snapshot: Snapshot) -> Option<Arc<View>> {
    let current = shared.view.borrow().clone();
    let generation = snapshot.at.generation;
    let view = match current {
        Some(current) => current.with_snapshot(snapshot),
        None => Some(View::new(snapshot)),
    };
    let Some(view) = view.map(Arc::new) else {
        tracing::warn!(generation, "control sent a snapshot that is older than the one in use");
        return None;
    };
    shared.metrics.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    shared.view.send_replace(Some(view.clone()));
    Some(view)
}

fn take_health(shared: &Shared, health: Health) {
    let current = shared.view.borrow().clone();
    // An older verdict is left aside: control itself may have restarted and not have heard the monitor yet.
    if let Some(view) = current.and_then(|current| current.with_health(health)) {
        shared.view.send_replace(Some(Arc::new(view)));
    }
}

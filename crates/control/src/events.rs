//! The event stream: `GET /v1/events`, as server-sent events.
//!
//! A stream reads the catalog, not a channel: a reader that is slow or far behind costs nothing but its position. It is
//! woken by the number of the newest event, and says something each second so that both sides notice a dead connection.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api::{ErrorCode, Health, Hello};
use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header;
use net::BodyError;
use prometheus_client::metrics::gauge::Gauge;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use crate::State;
use crate::access::MayFollow;
use crate::input::Params;
use crate::problem::Failure;

/// Event streams at once.
pub(crate) const MAX_EVENT_STREAMS: usize = 2_000;
/// Events read from the catalog at a time.
const BATCH: u32 = 500;
/// A quiet stream says so this often, in milliseconds.
const PING_MS: u64 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FollowParams {
    after: Option<u64>,
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

pub(crate) async fn follow(
    _: MayFollow,
    Shared(state): Shared<Arc<State>>,
    Params(params): Params<FollowParams>,
) -> Result<Response, Failure> {
    let Ok(place) = Arc::clone(&state.streams).try_acquire_owned() else {
        let detail = format!("{MAX_EVENT_STREAMS} event streams are open already");
        return Err(Failure::new(ErrorCode::Overloaded, detail));
    };
    // The receivers first: what happens after this is not missed.
    let (head, told) = (state.catalog.watch_head(), state.verdicts.told());
    let hello = state.catalog.head().await?;
    let after = params.after.unwrap_or(hello.head);
    // What cannot be read is a clean error now, not a stream that breaks off.
    state.catalog.events_after(after, 1).await?;
    let stream = Stream {
        greeting: Some(hello),
        after,
        follow: params.follow,
        head,
        told,
        ending: state.ending.clone(),
        _open: Open::new(&state, place),
        state,
    };
    let body = stream::unfold(stream, |mut stream| async move {
        let text = stream.next().await?;
        Some((Ok::<_, BodyError>(Bytes::from(text)), stream))
    });
    let mut response = Response::new(Body::new(net::Body::stream(body)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Counts a stream for as long as it is open.
struct Open {
    gauge: Gauge,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(state: &State, place: OwnedSemaphorePermit) -> Self {
        let gauge = state.metrics.streams.clone();
        gauge.inc();
        Self { gauge, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

struct Stream {
    greeting: Option<Hello>,
    after: u64,
    follow: bool,
    head: watch::Receiver<u64>,
    told: watch::Receiver<Arc<Health>>,
    ending: CancellationToken,
    _open: Open,
    state: Arc<State>,
}

impl Stream {
    /// The next piece of text; nothing at the end.
    async fn next(&mut self) -> Option<String> {
        if let Some(hello) = self.greeting.take() {
            let mut text = String::new();
            message(&mut text, None, "hello", &hello);
            let health = Arc::clone(&self.told.borrow_and_update());
            message(&mut text, None, "health", &*health);
            return Some(text);
        }
        loop {
            if self.ending.is_cancelled() {
                return None;
            }
            self.head.mark_unchanged();
            let events = match self.state.catalog.events_after(self.after, BATCH).await {
                Ok(events) => events,
                Err(error) => {
                    // The reader comes back, and is told then what it is.
                    tracing::warn!(%error, "an event stream ends");
                    return None;
                }
            };
            if let Some(last) = events.last() {
                self.after = last.seq;
                let mut text = String::new();
                for event in &events {
                    message(&mut text, Some(event.seq), event.change.kind(), event);
                }
                return Some(text);
            }
            if !self.follow {
                return None;
            }
            tokio::select! {
                changed = self.head.changed() => if changed.is_err() { return None },
                changed = self.told.changed() => {
                    if changed.is_err() { return None }
                    let mut text = String::new();
                    let health = Arc::clone(&self.told.borrow_and_update());
                    message(&mut text, None, "health", &*health);
                    return Some(text);
                }
                () = tokio::time::sleep(Duration::from_millis(PING_MS)) => return Some(": ping\n\n".to_owned()),
                () = self.ending.cancelled() => return None,
            }
        }
    }
}

/// Appends one message. JSON has no line breaks, so `data` is always one line.
fn message(text: &mut String, id: Option<u64>, event: &str, data: &impl Serialize) {
    let Ok(data) = serde_json::to_string(data) else { return };
    // Writing to a String cannot fail.
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    let _ = write!(text, "event: {event}\ndata: {data}\n\n");
}

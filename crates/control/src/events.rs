//! `GET /v1/events`: the event log as server-sent events (HTML standard § 9.2).
//!
//! First `hello`, then the monitor's verdict if there is one, then each event as it is committed, `health` when a
//! verdict brings news, and a comment each second when there is nothing to say. Every reader reads the log from the
//! catalog by itself, in batches, when the head moves: a slow reader holds one batch in memory and nobody else up. One that
//! is so slow that its next event is no longer kept is cut off, and told so when it asks again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api::{ErrorCode, Event, Health, Hello};
use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use prometheus_client::metrics::gauge::Gauge;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use crate::State;
use crate::access::MayFollow;
use crate::health::Verdict;
use crate::input::Params;
use crate::problem::Failure;

/// Event streams open at the same time.
pub(crate) const MAX_EVENT_STREAMS: usize = 1_024;
/// Events read from the catalog at once, at most.
pub(crate) const BATCH_EVENTS: u32 = 500;
/// Longest silence of a stream, in milliseconds.
const PING_MS: u64 = 1_000;

/// The query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FollowParams {
    /// Events after this number; absent: from now on.
    after: Option<u64>,
    /// Whether to go on at the newest event.
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

/// `GET /v1/events`.
pub(crate) async fn follow(
    _: MayFollow,
    Shared(state): Shared<Arc<State>>,
    Params(asked): Params<FollowParams>,
) -> Result<Response, Failure> {
    let Ok(permit) = Arc::clone(&state.streams).try_acquire_owned() else {
        let detail = format!("{MAX_EVENT_STREAMS} event streams are open already; try again later");
        return Err(Failure::new(ErrorCode::Overloaded, detail));
    };
    // Watched before the head is read, so that nothing in between is slept through.
    let (head, verdicts) = (state.catalog.watch_head(), state.verdicts.watch());
    let hello = state.catalog.head().await?;
    let after = asked.after.unwrap_or(hello.head);
    // Refused now, with a status, rather than by an end of the stream.
    state.catalog.events_after(after, 1).await?;
    let tail = Tail {
        after,
        end: if asked.follow { None } else { Some(hello.head) },
        head,
        verdicts,
        news: 0,
        ready: VecDeque::new(),
        ping_at: Instant::now(),
        _open: Open::new(permit, &state.metrics.streams),
        state,
    };
    let body = Body::from_stream(stream::unfold(tail.greet(&hello), |mut tail| async move {
        let message = tail.next().await?;
        Some((Ok::<_, Infallible>(message), tail))
    }));
    Ok(([(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")], body).into_response())
}

/// One reader's place in the log.
struct Tail {
    state: Arc<State>,
    /// The newest event it was sent.
    after: u64,
    /// Where it ends, if it does not follow.
    end: Option<u64>,
    head: watch::Receiver<u64>,
    verdicts: watch::Receiver<Option<Arc<Verdict>>>,
    /// The news of the last verdict it was sent.
    news: u64,
    /// What is to be sent before anything else.
    ready: VecDeque<Bytes>,
    ping_at: Instant,
    _open: Open,
}

impl Tail {
    /// Puts the first messages in place. Where there is no verdict to send a comment says so at once.
    fn greet(mut self, hello: &Hello) -> Self {
        self.ready.push_back(message(None, "hello", hello).into());
        let verdict = self.verdict().unwrap_or_else(ping);
        self.ready.push_back(verdict);
        self
    }

    /// The next piece of the stream, whenever there is one; nothing at its end.
    async fn next(&mut self) -> Option<Bytes> {
        let piece = match self.ready.pop_front() {
            Some(piece) => piece,
            None => self.wait().await?,
        };
        self.ping_at = Instant::now() + Duration::from_millis(PING_MS);
        Some(piece)
    }

    async fn wait(&mut self) -> Option<Bytes> {
        loop {
            if *self.head.borrow_and_update() > self.after && self.end.is_none_or(|end| self.after < end) {
                return self.batch().await;
            }
            if self.end.is_some() {
                return None;
            }
            if let Some(verdict) = self.verdict() {
                return Some(verdict);
            }
            tokio::select! {
                changed = self.head.changed() => changed.ok()?,
                changed = self.verdicts.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.ping_at) => return Some(ping()),
                () = self.state.ending.cancelled() => return None,
            }
        }
    }

    /// The next events as one piece; nothing, which ends the stream, when they cannot be had.
    async fn batch(&mut self) -> Option<Bytes> {
        match self.state.catalog.events_after(self.after, BATCH_EVENTS).await {
            Ok(events) => {
                let mut text = String::new();
                for event in events.iter().filter(|event| self.end.is_none_or(|end| event.seq <= end)) {
                    text.push_str(&event_message(event));
                    self.after = event.seq;
                }
                Some(text.into())
            }
            Err(error) => {
                tracing::warn!(%error, after = self.after, "an event stream ends");
                None
            }
        }
    }

    /// The verdict, if it brings news to this reader.
    fn verdict(&mut self) -> Option<Bytes> {
        let verdict = self.verdicts.borrow_and_update().clone()?;
        if verdict.news == self.news {
            return None;
        }
        self.news = verdict.news;
        Some(message::<Health>(None, "health", &verdict.health).into())
    }
}

fn event_message(event: &Event) -> String {
    message(Some(event.seq), event.change.kind(), event)
}

/// One message. JSON has no line breaks, so its data is one line.
fn message<T: Serialize>(id: Option<u64>, event: &str, data: &T) -> String {
    let mut text = String::new();
    if let Some(id) = id {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "id: {id}");
    }
    // Documents of the API always serialise.
    let data = serde_json::to_string(data).unwrap_or_default();
    let _ = write!(text, "event: {event}\ndata: {data}\n\n");
    text
}

fn ping() -> Bytes {
    Bytes::from_static(b": ping\n\n")
}

/// A stream's place among those that are open, counted as long as it is.
struct Open {
    gauge: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(permit: OwnedSemaphorePermit, gauge: &Gauge) -> Self {
        gauge.inc();
        Self { gauge: gauge.clone(), _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

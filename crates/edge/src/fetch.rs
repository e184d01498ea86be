//! Fetching from the origin: the head of a file with its first slice in one exchange, and single slices after it.
//!
//! Whatever arrives is proved against the file's digest before anything else sees it ([`api::slices`]). A fetch runs in a
//! task of its own ([`crate::flights`]), holds one of [`MAX_FETCHES`](crate::node::MAX_FETCHES) places, and counts its
//! slice against [`MAX_INCOMING_BYTES`](crate::node::MAX_INCOMING_BYTES) until it is handed on.

use std::sync::Arc;
use std::time::Duration;

use api::names::Digest;
use api::slices::{self, CHAINING_VALUE_BYTES, ChainingValue};
use api::{ErrorCode, Problem, SLICE_BYTES, headers};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use net::{Body, NetError};
use tokio::sync::OwnedSemaphorePermit;

use crate::head::{Head, describe, text};
use crate::marks::Began;
use crate::node::{BodyId, FileKey, HeadKey, Node};

/// How long a fetch waits for a place, in milliseconds.
const PLACE_WAIT_MS: u64 = 10_000;
/// How often a fetch is tried when the origin cannot be reached or breaks off.
const TRIES: u32 = 3;
/// Rest before the second try, in milliseconds; doubles after that.
const RETRY_REST_MS: u64 = 50;
/// How long «there is no such file» is believed, in milliseconds. An upload at that path ends it at once.
const ABSENT_MS: u64 = 10_000;
/// Longest list of chaining values, in bytes: enough for a file of 2 TiB.
const MAX_VALUES_BYTES: usize = 64 << 20;
/// Longest problem document that is read from an origin, in bytes.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// What a fetch of a head brought.
pub(crate) enum Fetched {
    /// The file, with its first slice unless it was only revalidated (or is empty).
    File {
        head: Arc<Head>,
        first: Option<Bytes>,
        /// The origin said that what was stored still holds.
        revalidated: bool,
        /// It is in the store now.
        stored: bool,
    },
    /// There is no such file.
    Absent,
}

/// Why a fetch failed. Cloned to everyone who waits for it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the origin cannot be reached: {0}")]
    Unreachable(String),
    #[error("the origin did not answer in time: {0}")]
    Timeout(String),
    #[error("{0}")]
    Refused(Problem),
    #[error("the origin's answer cannot be used: {0}")]
    Unusable(String),
    #[error("slice {index} of {digest} does not prove to belong to it")]
    Corrupt { digest: Digest, index: u64 },
    #[error("too much is being fetched already; try again")]
    Overloaded,
    #[error("this edge has no configuration yet")]
    NoConfiguration,
}

impl FetchError {
    pub(crate) fn to_problem(&self) -> Problem {
        let code = match self {
            Self::Unreachable(_) | Self::Unusable(_) => ErrorCode::UpstreamUnreachable,
            Self::Timeout(_) => ErrorCode::UpstreamTimeout,
            Self::Refused(problem) => return problem.clone(),
            Self::Corrupt { .. } => ErrorCode::BlobCorrupt,
            Self::Overloaded | Self::NoConfiguration => ErrorCode::Overloaded,
        };
        Problem::new(code, self.to_string())
    }

    /// Whether trying again could help.
    fn passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Unusable(_) | Self::Corrupt { .. })
    }
}

/// Fetches the head of a file and its first slice; `stored`, if there is one, is offered for revalidation.
pub(crate) async fn fetch_head(
    node: Arc<Node>,
    key: HeadKey,
    began: u64,
    stored: Option<Arc<Head>>,
) -> Result<Arc<Fetched>, FetchError> {
    let result = retried(|| head_once(&node, &key, began, stored.as_ref())).await;
    count(&node, &result, || format!("{:?}", key.file));
    result.map(Arc::new)
}

/// Fetches one slice of a body.
pub(crate) async fn fetch_slice(node: Arc<Node>, head: Arc<Head>, index: u64) -> Result<Bytes, FetchError> {
    if let Some(bytes) = node.shelved_slice(&head, index).await {
        if head.size <= SLICE_BYTES {
            node.keep_slice(Some(&head.zone), (BodyId::File(head.digest), index), bytes.clone());
        }
        return Ok(bytes);
    }
    let result = retried(|| slice_once(&node, &head, index)).await;
    count(&node, &result, || format!("slice {index} of {}/{}", head.zone, head.path));
    if let Ok(bytes) = &result
        && head.storable.is_some()
    {
        node.keep_file_slice(&head, index, bytes.clone()).await;
    }
    result
}

async fn retried<T, F, R>(mut attempt: F) -> Result<T, FetchError>
where
    F: FnMut() -> R,
    R: Future<Output = Result<T, FetchError>>,
{
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(error) if error.passing() && tries < TRIES => {
                tokio::time::sleep(Duration::from_millis(RETRY_REST_MS << (tries - 1))).await;
                tries += 1;
            }
            result => return result,
        }
    }
}

fn count<T>(node: &Node, result: &Result<T, FetchError>, what: impl FnOnce() -> String) {
    match result {
        Ok(_) => {
            node.metrics.fetched.inc();
        }
        Err(error) => {
            node.metrics.fetch_failed.inc();
            tracing::warn!(node = %node.config.node.name, what = what(), %error, "fetch failed");
        }
    }
}

async fn head_once(
    node: &Arc<Node>,
    key: &HeadKey,
    began: u64,
    stored: Option<&Arc<Head>>,
) -> Result<Fetched, FetchError> {
    let _place = place(node).await?;
    let path = match &key.file {
        FileKey::Path(zone, path) => format!("/-/content/{zone}/{}", path.to_url()),
        FileKey::Id(id) => format!("/-/content-id/{id}"),
    };
    let mut ask = HeaderMap::new();
    if let Some(stored) = stored {
        ask.insert(header::IF_NONE_MATCH, stored.etag.clone());
    }
    let first_slice = header::HeaderValue::from_static("bytes=0-1048575");
    ask.insert(header::RANGE, first_slice);
    let mut response = send(node, &path, &ask).await?;
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        // An empty file has no first byte to ask for.
        drain(response).await;
        ask.remove(header::RANGE);
        response = send(node, &path, &ask).await?;
    }
    let (parts, body) = response.into_parts();
    match (parts.status, stored) {
        (StatusCode::NOT_MODIFIED, Some(stored)) => {
            revalidated(node, key, began, stored, &parts.headers).map_err(FetchError::Unusable)
        }
        (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) => new_file(node, key, began, &parts, body).await,
        _ => match problem(node, parts.status, body).await {
            FetchError::Refused(problem) if problem.code == ErrorCode::UnknownFile => {
                node.keep_absent(key.clone(), node.now_ms() + ABSENT_MS, began);
                Ok(Fetched::Absent)
            }
            error => Err(error),
        },
    }
}

async fn new_file(
    node: &Arc<Node>,
    key: &HeadKey,
    began: u64,
    parts: &http::response::Parts,
    body: Body,
) -> Result<Fetched, FetchError> {
    let size = total_size(parts).map_err(FetchError::Unusable)?;
    let mut head = describe_for(node, &parts.headers, size, Vec::new(), began).map_err(FetchError::Unusable)?;
    let length = usize::try_from(size.min(SLICE_BYTES)).unwrap_or(usize::MAX);
    let _room = room(node, length).await?;
    let first = net::read_to_end(body, length).await.map_err(|error| FetchError::Unreachable(error.to_string()))?;
    if size > SLICE_BYTES {
        head.values = fetch_values(node, head.digest, size).await?;
    }
    prove(node, &head, 0, &first)?;
    let head = Arc::new(head);
    let stored = head.storable.is_some() && node.keep_head(key.clone(), &head);
    let first = (!first.is_empty()).then_some(first);
    if stored && let Some(first) = &first {
        node.keep_file_slice(&head, 0, first.clone()).await;
    }
    if stored {
        node.offer_file(key, &head);
    }
    Ok(Fetched::File { head, first, revalidated: false, stored })
}

/// A 304: the bytes are the same, what else is said about them may be new.
fn revalidated(node: &Node, key: &HeadKey, began: u64, stored: &Head, fields: &HeaderMap) -> Result<Fetched, String> {
    let mut head = describe_for(node, fields, stored.size, stored.values.clone(), began)?;
    head.on_disk = Arc::clone(&stored.on_disk);
    if head.digest != stored.digest {
        return Err("a 304 for another digest than the one that was asked about".to_owned());
    }
    let head = Arc::new(head);
    let stored = head.storable.is_some() && node.keep_head(key.clone(), &head);
    Ok(Fetched::File { head, first: None, revalidated: true, stored })
}

fn describe_for(
    node: &Node,
    fields: &HeaderMap,
    size: u64,
    values: Vec<ChainingValue>,
    began: u64,
) -> Result<Head, String> {
    let view = node.view();
    let began = Began { event: began, ..node.marks.began() };
    describe(fields, size, values, began, node.now_ms(), |zone| {
        let zone = view.as_ref()?.zones.by_name(zone)?;
        Some((zone.ttl_s, zone.stale_if_error_s))
    })
}

async fn slice_once(node: &Node, head: &Head, index: u64) -> Result<Bytes, FetchError> {
    let _place = place(node).await?;
    let range = slices::slice_range(head.size, index);
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut ask = HeaderMap::new();
    let value = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
    ask.insert(header::RANGE, value.try_into().map_err(|_| FetchError::Unusable("no range".to_owned()))?);
    let response = send(node, &format!("/-/blob/{}", head.digest), &ask).await?;
    let (parts, body) = response.into_parts();
    if parts.status != StatusCode::PARTIAL_CONTENT {
        return Err(problem(node, parts.status, body).await);
    }
    let _room = room(node, length).await?;
    let bytes = net::read_to_end(body, length).await.map_err(|error| FetchError::Unreachable(error.to_string()))?;
    prove(node, head, index, &bytes)?;
    Ok(bytes)
}

async fn fetch_values(node: &Node, digest: Digest, size: u64) -> Result<Vec<ChainingValue>, FetchError> {
    let length = usize::try_from(slices::value_count(size)).ok().and_then(|n| n.checked_mul(CHAINING_VALUE_BYTES));
    let Some(length) = length.filter(|length| *length <= MAX_VALUES_BYTES) else {
        return Err(FetchError::Unusable(format!("a file of {size} bytes is larger than this edge can prove")));
    };
    let response = send(node, &format!("/-/blob/{digest}/slices"), &HeaderMap::new()).await?;
    let (parts, body) = response.into_parts();
    if parts.status != StatusCode::OK {
        return Err(problem(node, parts.status, body).await);
    }
    let raw = net::read_to_end(body, length).await.map_err(|error| FetchError::Unreachable(error.to_string()))?;
    slices::parse_values(digest, size, &raw).ok_or_else(|| {
        node.metrics.corrupt_slices.inc();
        FetchError::Corrupt { digest, index: 0 }
    })
}

fn prove(node: &Node, head: &Head, index: u64, bytes: &[u8]) -> Result<(), FetchError> {
    if slices::verify(head.digest, head.size, &head.values, index, bytes) {
        return Ok(());
    }
    node.metrics.corrupt_slices.inc();
    Err(FetchError::Corrupt { digest: head.digest, index })
}

async fn send(node: &Node, path: &str, ask: &HeaderMap) -> Result<Response<Body>, FetchError> {
    let view = node.view().ok_or(FetchError::NoConfiguration)?;
    let mut request = Request::get(format!("{}{path}", view.snapshot.origin.url));
    if let Some(fields) = request.headers_mut() {
        fields.clone_from(ask);
    }
    let request = match &node.control {
        Some(control) => request.header(headers::NODE_TOKEN, control.token.reveal()),
        None => request,
    };
    let request = request.body(Body::empty());
    let request = request.map_err(|error| FetchError::Unusable(error.to_string()))?;
    node.origin.send(request).await.map_err(|error| match error {
        NetError::Timeout { .. } => FetchError::Timeout(error.to_string()),
        _ => FetchError::Unreachable(error.to_string()),
    })
}

/// What an answer that brings no file says.
async fn problem(node: &Node, status: StatusCode, body: Body) -> FetchError {
    let text = net::read_to_end(body, MAX_PROBLEM_BYTES).await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&text) {
        // What went wrong between edge and origin is nothing that a client could put right.
        Ok(problem) if matches!(problem.code, ErrorCode::Unauthorized | ErrorCode::Forbidden) => {
            tracing::error!(node = %node.config.node.name, detail = problem.detail, "the origin refuses this node");
            FetchError::Unusable(format!("it refuses this edge ({status})"))
        }
        Ok(problem) if status.is_server_error() && problem.code != ErrorCode::BlobCorrupt => {
            FetchError::Unreachable(problem.detail)
        }
        Ok(problem) => FetchError::Refused(problem),
        Err(_) => FetchError::Unusable(format!("status {status}")),
    }
}

/// The size of the whole file: of the end of `Content-Range`, or of the body.
fn total_size(parts: &http::response::Parts) -> Result<u64, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a size"));
    if parts.status == StatusCode::PARTIAL_CONTENT {
        let range = text(&parts.headers, "content-range")?;
        let (span, size) = range.rsplit_once('/').ok_or("Content-Range without a size")?;
        let size = number(size)?;
        let expected = format!("bytes 0-{}", size.min(SLICE_BYTES).saturating_sub(1));
        return if span == expected { Ok(size) } else { Err(format!("asked for the first slice and got {range:?}")) };
    }
    let size = number(text(&parts.headers, "content-length")?)?;
    if size > SLICE_BYTES {
        return Err(format!("asked for the first slice and got all {size} bytes"));
    }
    Ok(size)
}

async fn place(node: &Node) -> Result<OwnedSemaphorePermit, FetchError> {
    let place = Arc::clone(&node.fetches).acquire_owned();
    match tokio::time::timeout(Duration::from_millis(PLACE_WAIT_MS), place).await {
        Ok(Ok(place)) => Ok(place),
        _ => Err(FetchError::Overloaded),
    }
}

async fn room(node: &Node, bytes: usize) -> Result<OwnedSemaphorePermit, FetchError> {
    let permits = u32::try_from(bytes).map_err(|_| FetchError::Overloaded)?;
    let room = Arc::clone(&node.incoming).acquire_many_owned(permits);
    match tokio::time::timeout(Duration::from_millis(PLACE_WAIT_MS), room).await {
        Ok(Ok(room)) => Ok(room),
        _ => Err(FetchError::Overloaded),
    }
}

async fn drain(response: Response<Body>) {
    // Only so that the connection can be used again; what it says is not needed.
    let _ = net::read_to_end(response.into_body(), MAX_PROBLEM_BYTES).await;
}

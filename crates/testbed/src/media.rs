//! An origin with bodies of any size, which it makes up as it sends them.
//!
//! `/ranged/NAME/SIZE` can be asked for by range, `/whole/NAME/SIZE` cannot, `/chunked/NAME/SIZE` does not tell its length, and
//! `/bare/NAME/SIZE` has no `ETag`.
//! What a body holds is known from its path and the version of the origin, so that a test can check any part of it without
//! keeping the whole.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode, header};
use net::{Body, Incoming, ServerLimits};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes that are sent at a time.
const CHUNK_BYTES: u64 = 64 << 10;

/// The origin. It ends when it is dropped.
pub struct Media {
    /// Where it answers: `http://…`.
    pub url: String,
    state: Arc<State>,
    _stop: DropGuard,
}

struct State {
    version: AtomicU64,
    requests: Mutex<Vec<Arc<Sent>>>,
    /// Bodies stop after so many bytes, until more are allowed.
    allowed: watch::Sender<u64>,
    /// How far its clock is ahead, in seconds.
    ahead_s: AtomicU64,
    /// Sent with every response, if any.
    cache_control: Mutex<String>,
}

/// A request that was made, and how much of its answer was sent.
pub struct Sent {
    /// Path and query.
    pub target: String,
    /// `Range`, as it was asked for.
    pub range: Option<String>,
    /// Bytes of the body that went out so far.
    pub bytes: AtomicU64,
}

impl Media {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// There is none.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            version: AtomicU64::new(1),
            requests: Mutex::default(),
            allowed: watch::Sender::new(u64::MAX),
            ahead_s: AtomicU64::new(0),
            cache_control: Mutex::new("max-age=86400".to_owned()),
        });
        let stop = CancellationToken::new();
        let service = {
            let state = Arc::clone(&state);
            net::service(move |request: Request<Incoming>| {
                let state = Arc::clone(&state);
                async move { answer(&state, &request) }
            })
        };
        tokio::spawn(net::serve(listener, service, ServerLimits::default(), stop.clone()));
        Self { url, state, _stop: stop.drop_guard() }
    }

    /// From now on every body is another one.
    pub fn change(&self) {
        self.state.version.fetch_add(1, Ordering::SeqCst);
    }

    /// What its bodies are made of now.
    pub fn version(&self) -> u64 {
        self.state.version.load(Ordering::SeqCst)
    }

    /// No body goes on beyond so many bytes of an answer, until this is called again.
    pub fn allow(&self, bytes: u64) {
        self.state.allowed.send_replace(bytes);
    }

    /// What `Cache-Control` says from now on.
    pub fn cache_control(&self, value: &str) {
        value.clone_into(&mut self.state.cache_control.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets time pass at the origin, in seconds.
    pub fn advance(&self, seconds: u64) {
        self.state.ahead_s.fetch_add(seconds, Ordering::SeqCst);
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Arc<Sent>> {
        self.state.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of bodies that were sent so far.
    pub fn sent(&self) -> u64 {
        self.requests().iter().map(|sent| sent.bytes.load(Ordering::SeqCst)).sum()
    }
}

/// Some bytes of the body at a path, in a version.
pub fn content(path: &str, version: u64, range: Range<u64>) -> Bytes {
    let seed = path.bytes().fold(version ^ 0x9e37_79b9_7f4a_7c15, |seed, byte| mix(seed ^ u64::from(byte)));
    let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0) + 16);
    let mut word = range.start / 8;
    while word * 8 < range.end {
        bytes.extend_from_slice(&mix(seed ^ word).to_le_bytes());
        word += 1;
    }
    let skip = usize::try_from(range.start % 8).unwrap_or(0);
    let length = usize::try_from(range.end - range.start).unwrap_or(0);
    Bytes::from(bytes).slice(skip..skip + length)
}

/// SplitMix64's finalizer.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn answer(state: &Arc<State>, request: &Request<Incoming>) -> Response<Body> {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let path = request.uri().path().to_owned();
    let mut words = path.split('/').skip(1);
    let (kind, size) = (words.next().unwrap_or_default(), words.nth(1).and_then(|size| size.parse::<u64>().ok()));
    let Some(size) = size else { return status(StatusCode::NOT_FOUND) };
    let version = state.version.load(Ordering::SeqCst);
    let etag = format!("\"{version}\"");
    let field = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let sent = Arc::new(Sent { target, range: field(header::RANGE), bytes: AtomicU64::new(0) });
    state.requests.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&sent));
    if field(header::IF_NONE_MATCH).is_some_and(|tag| tag == etag) {
        return described(status(StatusCode::NOT_MODIFIED), state, kind, &etag);
    }
    let ranged = kind == "ranged" && field(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let range = sent.range.as_deref().filter(|_| ranged).map(|range| parse(range, size));
    let (range, mut response) = match range {
        Some(None) => {
            let mut response = status(StatusCode::RANGE_NOT_SATISFIABLE);
            set(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
            return described(response, state, kind, &etag);
        }
        Some(Some(range)) => {
            let mut response = status(StatusCode::PARTIAL_CONTENT);
            let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            set(response.headers_mut(), header::CONTENT_RANGE, &value);
            (range, response)
        }
        None => (0..size, status(StatusCode::OK)),
    };
    if kind == "ranged" {
        set(response.headers_mut(), header::ACCEPT_RANGES, "bytes");
    }
    if kind != "chunked" {
        set(response.headers_mut(), header::CONTENT_LENGTH, &(range.end - range.start).to_string());
    }
    if request.method() != http::Method::HEAD {
        *response.body_mut() = body(Arc::clone(state), sent, path.clone(), version, range);
    }
    described(response, state, kind, &etag)
}

fn body(state: Arc<State>, sent: Arc<Sent>, path: String, version: u64, range: Range<u64>) -> Body {
    let allowed = state.allowed.subscribe();
    let first = range.start;
    Body::stream(stream::unfold((range.start, allowed), move |(at, mut allowed)| {
        let (sent, path, end) = (Arc::clone(&sent), path.clone(), range.end);
        async move {
            if at >= end {
                return None;
            }
            let limit = *allowed.wait_for(|limit| at - first < *limit).await.ok()?;
            let to = end.min(at + CHUNK_BYTES).min(first.saturating_add(limit));
            sent.bytes.fetch_add(to - at, Ordering::SeqCst);
            Some((Ok(content(&path, version, at..to)), (to, allowed)))
        }
    }))
}

/// One range of a body of `size` bytes; nothing where it cannot be satisfied.
fn parse(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) => first..size,
        (Err(_), Ok(suffix)) => size.saturating_sub(suffix)..size,
        _ => return None,
    };
    (range.start < range.end).then_some(range)
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn described(mut response: Response<Body>, state: &State, kind: &str, etag: &str) -> Response<Body> {
    let fields = response.headers_mut();
    if kind != "bare" {
        set(fields, header::ETAG, etag);
    }
    set(fields, header::CONTENT_TYPE, "video/mp4");
    let ahead = Duration::from_secs(state.ahead_s.load(Ordering::SeqCst));
    set(fields, header::DATE, &httpdate::fmt_http_date(SystemTime::now() + ahead));
    let cache_control = state.cache_control.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !cache_control.is_empty() {
        set(fields, header::CACHE_CONTROL, &cache_control);
    }
    response
}

fn set(fields: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = value.parse() {
        fields.insert(name, value);
    }
}

//! The origin of a torture run, and what a reader may get from behind the edge.
//!
//! A body is a function of its object and its version, so that every byte that comes back can be checked. A version is the
//! entity tag. An object changes at the origin first and is purged then; from the moment that the purge is answered, no reader
//! that asks may get an older version. Nothing expires.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use net::{Body, Incoming, ServerLimits};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::shell::Failed;

/// The host of all objects.
pub(crate) const HOST: &str = "torture.test";

/// Everything that can be asked for. The origin ends when it is dropped.
pub(crate) struct World {
    pub(crate) objects: Arc<Vec<Object>>,
    pub(crate) origin: SocketAddr,
    _stop: DropGuard,
}

/// Something that can be asked for.
pub(crate) struct Object {
    pub(crate) path: String,
    pub(crate) size: u64,
    number: u64,
    version: AtomicU64,
    least: AtomicU64,
    purged_ms: AtomicU64,
}

impl World {
    /// Objects of these sizes, all in version 1.
    pub(crate) async fn start(sizes: &[u64]) -> Result<Self, Failed> {
        let object = |(number, size): (usize, &u64)| Object {
            path: format!("/{number}"),
            size: *size,
            number: number as u64,
            version: AtomicU64::new(1),
            least: AtomicU64::new(1),
            purged_ms: AtomicU64::new(0),
        };
        let objects: Arc<Vec<Object>> = Arc::new(sizes.iter().enumerate().map(object).collect());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = listener.local_addr()?;
        let stop = CancellationToken::new();
        let served = Arc::clone(&objects);
        let service = net::service(move |request: Request<Incoming>| {
            let response = answer(&served, &request);
            async move { response }
        });
        tokio::spawn(net::serve(listener, service, ServerLimits::default(), stop.clone()));
        Ok(Self { objects, origin, _stop: stop.drop_guard() })
    }
}

impl Object {
    /// The version that the origin has now.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// The oldest version that somebody may get who asks now.
    pub(crate) fn least(&self) -> u64 {
        self.least.load(Ordering::SeqCst)
    }

    /// Another version, from now on. Returns what is to be told [`Self::purged`].
    pub(crate) fn change(&self) -> u64 {
        self.purged_ms.store(now_ms(), Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A purge was answered that was asked for after the change to this version.
    pub(crate) fn purged(&self, version: u64) {
        self.least.fetch_max(version, Ordering::SeqCst);
        self.purged_ms.store(now_ms(), Ordering::SeqCst);
    }

    /// When it was last changed or purged: Unix time in milliseconds; 0 = never.
    pub(crate) fn purged_ms(&self) -> u64 {
        self.purged_ms.load(Ordering::SeqCst)
    }

    /// Bytes of a version of its body.
    pub(crate) fn content(&self, version: u64, from: u64, to: u64) -> Vec<u8> {
        let seed = mix(self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.rotate_left(32));
        let mut bytes = Vec::with_capacity((to - from + 16) as usize);
        for word in from / 8..to.div_ceil(8) {
            bytes.extend_from_slice(&mix(seed ^ word).to_le_bytes());
        }
        bytes.drain(..(from % 8) as usize);
        bytes.truncate((to - from) as usize);
        bytes
    }
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// SplitMix64's finalizer.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn answer(objects: &[Object], request: &Request<Incoming>) -> Response<Body> {
    let number = request.uri().path().strip_prefix('/').and_then(|number| number.parse::<usize>().ok());
    let Some(object) = number.and_then(|number| objects.get(number)) else { return with(StatusCode::NOT_FOUND) };
    let version = object.version();
    let etag = format!("\"{version}\"");
    let field = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let mut range = field(header::RANGE).and_then(parse).filter(|(first, _)| *first < object.size);
    if field(header::IF_RANGE).is_some_and(|tag| tag != etag) {
        range = None;
    }
    let mut response = if field(header::IF_NONE_MATCH).is_some_and(|tag| tag == etag) {
        with(StatusCode::NOT_MODIFIED)
    } else if let Some((first, last)) = range {
        let last = last.min(object.size - 1);
        let mut response = with(StatusCode::PARTIAL_CONTENT);
        set(&mut response, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{}", object.size));
        *response.body_mut() = Body::full(Bytes::from(object.content(version, first, last + 1)));
        response
    } else {
        let mut response = with(StatusCode::OK);
        *response.body_mut() = Body::full(Bytes::from(object.content(version, 0, object.size)));
        response
    };
    set(&mut response, header::ETAG, &etag);
    set(&mut response, header::CACHE_CONTROL, "public, max-age=864000");
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
    response
}

/// `bytes=first-last`.
fn parse(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let last = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    Some((first.parse().ok()?, last))
}

fn with(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn set(response: &mut Response<Body>, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

//! The access log: a line of JSON for each request, or for a part of them, in a file or on standard output.
//!
//! Requests never wait for it. A line is written into a buffer in memory, one of [`BUFFERS`] that threads share by number;
//! the lock covers one buffer for the copy of one line. A thread of its own takes the buffers every [`FLUSH_MS`] and writes
//! them out. Where it cannot keep up, or the disk takes nothing, a buffer is full at [`BUFFER_BYTES`], and further lines
//! are counted as dropped. A buffer whose lock was poisoned is used on: at worst a line is cut.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use net::{Body, BodyError, Peer};
use prometheus_client::metrics::counter::Counter;

use crate::pull::answer::X_CACHE;

/// Buffers that threads write into.
const BUFFERS: usize = 16;
/// Bytes that a buffer holds.
const BUFFER_BYTES: usize = 1 << 20;
/// How often the buffers are written out, in milliseconds.
const FLUSH_MS: u64 = 200;
/// Bytes of a host, path or user agent that are written; the rest is left out.
const TEXT_BYTES: usize = 1_024;

/// What is logged, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLogConfig {
    /// The file, to which lines are appended; nothing: standard output.
    pub file: Option<PathBuf>,
    /// The part of the requests that is logged, 0 to 1, picked by chance.
    pub sample: f64,
}

/// What an access log counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct AccessLogMetrics {
    pub(crate) lines: Counter,
    pub(crate) dropped: Counter,
}

/// An open access log.
pub(crate) struct AccessLog {
    shared: Arc<Shared>,
    /// A request is logged where a random number is not above it.
    threshold: u32,
    orders: SyncSender<Order>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    buffers: [Mutex<Buffer>; BUFFERS],
    metrics: AccessLogMetrics,
}

#[derive(Default)]
struct Buffer {
    lines: u64,
    text: Vec<u8>,
}

enum Order {
    /// Opens the file anew: somebody has moved it away.
    Reopen,
    End,
}

impl AccessLog {
    /// Opens the log and starts its thread.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not started.
    pub(crate) fn open(config: &AccessLogConfig, metrics: AccessLogMetrics) -> io::Result<Self> {
        let shared = Arc::new(Shared { buffers: Default::default(), metrics });
        let (orders, taken) = sync_channel(16);
        let mut out = Out::open(config.file.as_deref())?;
        let (written, file) = (Arc::clone(&shared), config.file.clone());
        let write = move || {
            loop {
                let order = taken.recv_timeout(Duration::from_millis(FLUSH_MS));
                for buffer in &written.buffers {
                    let Buffer { lines, text } = std::mem::take(&mut *lock(buffer));
                    match out.write(&text) {
                        Ok(()) => written.metrics.lines.inc_by(lines),
                        Err(error) => {
                            tracing::warn!(%error, lines, "the access log cannot be written");
                            written.metrics.dropped.inc_by(lines)
                        }
                    };
                }
                match order {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(Order::Reopen) => match Out::open(file.as_deref()) {
                        Ok(new) => out = new,
                        Err(error) => {
                            tracing::warn!(%error, "the access log cannot be opened anew; the old file is kept")
                        }
                    },
                    Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(write)?;
        let threshold = (config.sample.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32;
        Ok(Self { shared, threshold, orders, writer: Mutex::new(Some(writer)) })
    }

    /// Whether the next request is to be logged.
    pub(crate) fn picks(&self) -> bool {
        self.threshold == u32::MAX || fastrand::u32(..) < self.threshold
    }

    /// Adds a line, or counts it as dropped.
    pub(crate) fn add(&self, line: &Line<'_>) {
        let number = crate::metrics::thread_number() % BUFFERS;
        let Some(buffer) = self.shared.buffers.get(number) else { return };
        let mut buffer = lock(buffer);
        if buffer.text.len() >= BUFFER_BYTES {
            self.shared.metrics.dropped.inc();
            return;
        }
        buffer.lines += 1;
        line.write(&mut buffer.text);
    }

    /// Opens the file anew.
    pub(crate) fn reopen(&self) {
        // A full queue holds the same order already.
        let _ = self.orders.try_send(Order::Reopen);
    }

    /// Writes out what is there, and ends the thread.
    pub(crate) fn close(&self) {
        let _ = self.orders.send(Order::End);
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Its last words are in the log.
            let _ = writer.join();
        }
    }
}

fn lock(buffer: &Mutex<Buffer>) -> std::sync::MutexGuard<'_, Buffer> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where lines go.
enum Out {
    File(File),
    Stdout,
}

impl Out {
    fn open(file: Option<&Path>) -> io::Result<Self> {
        let Some(path) = file else { return Ok(Self::Stdout) };
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.map(Self::File).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            _ if text.is_empty() => Ok(()),
            Self::File(file) => file.write_all(text),
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(text)?;
                out.flush()
            }
        }
    }
}

/// What is said of a request.
pub(crate) struct Line<'a> {
    /// When it came, in milliseconds since the Unix epoch.
    pub(crate) time_ms: u64,
    pub(crate) node: &'a str,
    pub(crate) client: IpAddr,
    pub(crate) secure: bool,
    pub(crate) version: Version,
    pub(crate) method: &'a str,
    pub(crate) host: &'a [u8],
    /// The target; its query, in which secrets stand, is left out.
    pub(crate) target: &'a [u8],
    pub(crate) user_agent: &'a [u8],
    pub(crate) status: u16,
    /// Of the body.
    pub(crate) bytes: u64,
    /// Whether that was all of it.
    pub(crate) complete: bool,
    /// `X-Cache`; empty: the cache has nothing to do with it.
    pub(crate) cache: &'a [u8],
    /// Until the head of the response.
    pub(crate) took: Duration,
}

impl Line<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let path = self.target.split(|&byte| byte == b'?').next().unwrap_or_default();
        // Writing to a vector cannot fail.
        let _ = write!(
            out,
            "{{\"time\":\"{}\",\"node\":\"{}\",\"client\":\"{}\",\"tls\":{},\"protocol\":\"{:?}\",\"method\":\"",
            Rfc3339(self.time_ms),
            self.node,
            self.client,
            self.secure,
            self.version,
        );
        escape(out, self.method.as_bytes());
        for (name, text) in
            [("host", self.host), ("path", path), ("user_agent", self.user_agent), ("cache", self.cache)]
        {
            out.extend_from_slice(b"\",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":\"");
            escape(out, text);
        }
        let _ = writeln!(
            out,
            "\",\"status\":{},\"bytes\":{},\"complete\":{},\"seconds\":{:.6}}}",
            self.status,
            self.bytes,
            self.complete,
            self.took.as_secs_f64()
        );
    }
}

/// Writes what stands between the quotation marks of a JSON string. What is not ASCII is taken for Latin-1.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text.get(..TEXT_BYTES).unwrap_or(text) {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
    }
}

/// A time in UTC as RFC 3339 writes it.
struct Rfc3339(u64);

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        // Years that begin in March have the leap day at their end; 400 of them have 146,097 days.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1_000)
    }
}

/// What is known of a request before it is answered.
pub(crate) struct Entry {
    log: Arc<AccessLog>,
    started: Instant,
    time_ms: u64,
    node: String,
    peer: Option<Peer>,
    version: Version,
    method: Method,
    host: Vec<u8>,
    target: String,
    user_agent: Vec<u8>,
}

impl Entry {
    /// Of a request that is to be logged.
    pub(crate) fn of<B>(log: &Arc<AccessLog>, node: &str, request: &Request<B>, time_ms: u64) -> Self {
        let field =
            |fields: &HeaderMap, name| fields.get(name).map_or_else(Vec::new, |value| value.as_bytes().to_vec());
        Self {
            log: Arc::clone(log),
            started: Instant::now(),
            time_ms,
            node: node.to_owned(),
            peer: request.extensions().get::<Peer>().copied(),
            version: request.version(),
            method: request.method().clone(),
            host: field(request.headers(), header::HOST),
            target: request.uri().path().to_owned(),
            user_agent: field(request.headers(), header::USER_AGENT),
        }
    }

    /// Sees to it that the request is logged: now, where the whole body is here, else at its end.
    pub(crate) fn follow(self, response: Response<Body>) -> Response<Body> {
        let (parts, body) = response.into_parts();
        let cache = parts.headers.get(X_CACHE).map_or_else(Vec::new, |value| value.as_bytes().to_vec());
        let sent = Sent { took: self.started.elapsed(), entry: self, status: parts.status.as_u16(), cache };
        if let Some(bytes) = body.size_hint().exact().filter(|_| body.is_here()) {
            sent.log(bytes, true);
            return Response::from_parts(parts, body);
        }
        Response::from_parts(parts, Body::wrap(Followed { body, sent, bytes: 0, complete: false }))
    }
}

struct Sent {
    entry: Entry,
    took: Duration,
    status: u16,
    cache: Vec<u8>,
}

impl Sent {
    fn log(&self, bytes: u64, complete: bool) {
        let Entry { log, time_ms, node, peer, version, method, host, target, user_agent, .. } = &self.entry;
        log.add(&Line {
            time_ms: *time_ms,
            node,
            client: peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.address.ip().to_canonical()),
            secure: peer.is_some_and(|peer| peer.secure),
            version: *version,
            method: method.as_str(),
            host,
            target: target.as_bytes(),
            user_agent,
            status: self.status,
            bytes,
            complete,
            cache: &self.cache,
            took: self.took,
        });
    }
}

/// A body that is logged when it has been sent, or given up.
struct Followed {
    body: Body,
    sent: Sent,
    bytes: u64,
    complete: bool,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.complete = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.complete = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // A body that a length ends is not asked for more.
        let whole = self.complete || self.body.size_hint().exact() == Some(0);
        self.sent.log(self.bytes, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: &[u8]) -> Line<'_> {
        Line {
            time_ms: 951_782_400_123,
            node: "edge",
            client: IpAddr::from([127, 0, 0, 1]),
            secure: true,
            version: Version::HTTP_2,
            method: "GET",
            host: b"a.example",
            target,
            user_agent: b"x\"\\\n\xe4",
            status: 200,
            bytes: 7,
            complete: false,
            cache: b"HIT",
            took: Duration::from_micros(1_234),
        }
    }

    fn open(file: &Path, sample: f64) -> (AccessLog, AccessLogMetrics) {
        let metrics = AccessLogMetrics::default();
        let config = AccessLogConfig { file: Some(file.to_owned()), sample };
        (AccessLog::open(&config, metrics.clone()).expect("open"), metrics)
    }

    #[test]
    fn a_line_is_json_without_the_query() {
        let mut text = Vec::new();
        line(b"/p?token=secret").write(&mut text);
        let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let expected = serde_json::json!({
            "time": "2000-02-29T00:00:00.123Z", "node": "edge", "client": "127.0.0.1", "tls": true, "protocol": "HTTP/2.0",
            "method": "GET", "host": "a.example", "path": "/p", "user_agent": "x\"\\\n\u{e4}", "cache": "HIT",
            "status": 200, "bytes": 7, "complete": false, "seconds": 0.001234
        });
        assert_eq!(json, expected);
        assert!(text.ends_with(b"\n"));
    }

    #[test]
    fn times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_795_305_600_000, "2026-11-22T00:00:00.000Z"),
        ] {
            assert_eq!(Rfc3339(ms).to_string(), text);
        }
    }

    #[test]
    fn lines_reach_the_file_and_a_moved_file_is_begun_anew() {
        let folder = tempfile::tempdir().expect("folder");
        let (file, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let (log, metrics) = open(&file, 1.0);
        log.add(&line(b"/1"));
        while metrics.lines.get() < 1 {
            std::thread::yield_now();
        }
        std::fs::rename(&file, &moved).expect("moved");
        log.reopen();
        while !file.exists() {
            std::thread::yield_now();
        }
        log.add(&line(b"/2"));
        log.close();
        let read = |path| std::fs::read_to_string(path).expect("text");
        assert!(read(&moved).contains("\"/1\"") && read(&file).contains("\"/2\""));
        assert_eq!((metrics.lines.get(), metrics.dropped.get()), (2, 0));
        assert!(
            AccessLog::open(&AccessLogConfig { file: Some("/no/such/folder/log".into()), sample: 1.0 }, metrics)
                .is_err()
        );
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let folder = tempfile::tempdir().expect("folder");
        let (log, metrics) = open(&folder.path().join("log"), 1.0);
        let host = [b'h'; 2 * TEXT_BYTES];
        let mut added = 0;
        while metrics.dropped.get() == 0 {
            log.add(&Line { host: &host, ..line(b"/") });
            added += 1;
            assert!(added < 10_000_000, "the writer is faster than memory");
        }
        log.close();
        assert_eq!(metrics.lines.get() + metrics.dropped.get(), added);
    }

    #[test]
    fn samples() {
        let folder = tempfile::tempdir().expect("folder");
        for (sample, least, most) in [(0.0, 0, 0), (0.1, 500, 1_500), (1.0, 10_000, 10_000)] {
            let (log, _) = open(&folder.path().join("log"), sample);
            let picked = (0..10_000).filter(|_| log.picks()).count();
            assert!((least..=most).contains(&picked), "{sample}: {picked}");
        }
    }
}

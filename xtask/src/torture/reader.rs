//! Somebody who reads from the edge and checks everything that comes.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::shell::Failed;
use crate::torture::world::{HOST, Object};

/// The longest head of a response, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Things gone wrong that are told in full.
const MAX_TOLD: usize = 20;

/// A connection that stays open.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response, whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    fields: Vec<(String, String)>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.field("x-cache") == Some("HIT")
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failed> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Asks, and reads the whole answer. A body that is shorter than it was announced is an error here.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, more: &str) -> Result<Answer, Failed> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if self.buffer.len() > MAX_HEAD_BYTES || self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Failed("the connection ended within a head".to_owned()));
            }
        };
        let head: Vec<u8> = self.buffer.drain(..head_end).collect();
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| Failed("no status line".to_owned()))?;
        let fields: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer { status, body: Vec::new(), fields };
        let length = answer.field("content-length").and_then(|length| length.parse::<usize>().ok());
        let length = length.ok_or_else(|| Failed("an answer without Content-Length".to_owned()))?;
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Failed("the connection ended within a body".to_owned()));
            }
        }
        answer.body = self.buffer.drain(..length).collect();
        Ok(answer)
    }
}

/// What readers have met.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) requests: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Answers that were not what was asked for: other bytes, another length, an old version.
    pub(crate) wrong: AtomicU64,
    /// Answers that say that they failed, and transfers that broke.
    pub(crate) failed: AtomicU64,
    told: Mutex<Vec<String>>,
}

impl Tally {
    /// Reads an object, or a part of it, and checks what comes. True: it was a hit.
    pub(crate) async fn read(
        &self,
        connection: &mut Connection,
        object: &Object,
        range: Option<(u64, u64)>,
    ) -> Result<bool, Failed> {
        let least = object.least();
        let more = range.map_or(String::new(), |(first, last)| format!("Range: bytes={first}-{last}\r\n"));
        let answer = match connection.ask("GET", &object.path, &more).await {
            Ok(answer) => answer,
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        };
        let newest = object.version();
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(answer.body.len() as u64, Ordering::Relaxed);
        if answer.status >= 500 {
            self.failed.fetch_add(1, Ordering::Relaxed);
            self.tell(format!("GET {} {range:?}: status {}", object.path, answer.status));
            return Ok(false);
        }
        if let Err(why) = check(object, range, least, newest, &answer) {
            self.wrong.fetch_add(1, Ordering::Relaxed);
            let cache = answer.field("cache-status").unwrap_or_default();
            self.tell(format!("WRONG: GET {} {range:?}: {why} ({cache})", object.path));
        }
        Ok(answer.is_hit())
    }

    pub(crate) fn tell(&self, what: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MAX_TOLD {
            told.push(what);
        }
    }

    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn check(object: &Object, range: Option<(u64, u64)>, least: u64, newest: u64, answer: &Answer) -> Result<(), String> {
    let version = answer.field("etag").and_then(|tag| tag.trim_matches('"').parse::<u64>().ok());
    let version = version.ok_or("no entity tag")?;
    if !(least..=newest).contains(&version) {
        return Err(format!("version {version}, where {least} to {newest} are allowed"));
    }
    let (first, end) = match (range, answer.status) {
        (_, 200) => (0, object.size),
        (Some((first, last)), 206) => {
            let expected = format!("bytes {first}-{last}/{}", object.size);
            if answer.field("content-range") != Some(&expected) {
                return Err(format!("Content-Range {:?}, not {expected}", answer.field("content-range")));
            }
            (first, last + 1)
        }
        (_, status) => return Err(format!("status {status}")),
    };
    if answer.body.len() as u64 != end - first {
        return Err(format!("{} bytes, not {}", answer.body.len(), end - first));
    }
    let right = object.content(version, first, end);
    if answer.body == right {
        return Ok(());
    }
    match answer.body.iter().zip(&right).position(|(one, other)| one != other) {
        Some(at) => Err(format!("the byte at {} is not that of version {version}", first + at as u64)),
        None => Ok(()),
    }
}

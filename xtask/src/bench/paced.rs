//! Requests over HTTP/1.1 at a pace, for the time that they take: each has a moment at which it is due, and its time counts from
//! then, whether a connection was free or not.
//!
//! One thread that never sleeps: timers of the system are late by more than a hit takes, and whoever is late sends several
//! requests at once, and then measures how a server deals with a burst that nobody asked for.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::bench::fetch::{self, HEAD_MAX_BYTES, READ_BYTES};
use crate::bench::own::{SILENCE_MS, Stream, connect};
use crate::shell::Failed;

/// What is asked for, and how often.
pub(crate) struct Pace<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) config: Option<&'a Arc<ClientConfig>>,
    /// In turn; an `N` is replaced by the number of the request.
    pub(crate) paths: &'a [String],
    pub(crate) connections: usize,
    /// Requests a second, of all connections.
    pub(crate) rate: u64,
    pub(crate) seconds: u64,
}

/// A connection and what is on its way to it.
struct Connection {
    stream: Box<dyn Stream>,
    due: Instant,
    response: Response,
}

/// What came of a response.
#[derive(Default)]
struct Response {
    head: Vec<u8>,
    /// Bytes of the body that are still to come, once the head is there.
    left: Option<usize>,
}

/// Asks until the time is over, and answers how long each request took, in microseconds.
pub(crate) fn run(pace: &Pace) -> Result<Vec<u64>, Failed> {
    let host = pace.address;
    let request = |turn: u64| {
        let path = pace.paths.get(turn as usize % pace.paths.len().max(1)).map_or("/", String::as_str);
        format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", path.replace('N', &turn.to_string()))
    };
    let mut connections = Vec::new();
    for _ in 0..pace.connections {
        let stream = connect(host, pace.config)?;
        stream.socket().set_nonblocking(true)?;
        connections.push(Connection { stream, due: Instant::now(), response: Response::default() });
    }
    let (mut free, mut busy): (VecDeque<_>, Vec<usize>) = ((0..connections.len()).collect(), Vec::new());
    let (mut times, mut buffer, mut turn) = (Vec::new(), vec![0; READ_BYTES], 0_u64);
    let (begun, total) = (Instant::now(), pace.rate * pace.seconds);
    let due_of = |turn: u64| begun + Duration::from_secs_f64(turn as f64 / pace.rate as f64);
    let limit = Duration::from_secs(pace.seconds) + Duration::from_millis(SILENCE_MS);
    while turn < total || !busy.is_empty() {
        let now = Instant::now();
        if now.duration_since(begun) > limit {
            return Err(Failed(format!("{} of {total} requests were answered in time", times.len())));
        }
        while turn < total
            && due_of(turn) <= now
            && let Some(at) = free.pop_front()
        {
            if let Some(connection) = connections.get_mut(at) {
                connection.due = due_of(turn);
                connection.stream.write_all(request(turn).as_bytes())?;
            }
            busy.push(at);
            turn += 1;
        }
        let mut left = 0;
        while let Some(&at) = busy.get(left) {
            let done = connections.get_mut(at).map_or(Ok(true), |connection| connection.read(&mut buffer))?;
            if done {
                times.extend(connections.get(at).map(|connection| connection.due.elapsed().as_micros() as u64));
                busy.swap_remove(left);
                free.push_back(at);
            } else {
                left += 1;
            }
        }
        // For servers that share the core.
        std::thread::yield_now();
    }
    Ok(times)
}

impl Connection {
    /// Reads what there is; whether that was the end of the response.
    fn read(&mut self, buffer: &mut [u8]) -> Result<bool, Failed> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(Failed("the server closed a connection".to_owned())),
                Ok(read) => {
                    if self.response.take(buffer.get(..read).unwrap_or_default()).map_err(Failed)? {
                        self.response = Response::default();
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Response {
    /// Whether it is whole now.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, String> {
        let came = match self.left {
            Some(_) => bytes.len(),
            None => {
                self.head.extend_from_slice(bytes);
                let Some(at) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                    let too_long = self.head.len() > HEAD_MAX_BYTES;
                    return if too_long { Err("the head of an answer does not end".to_owned()) } else { Ok(false) };
                };
                let came = self.head.len() - at - 4;
                self.head.truncate(at + 4);
                self.left = Some(fetch::content_length(&String::from_utf8_lossy(&self.head))?);
                came
            }
        };
        let left = self.left.unwrap_or(0).checked_sub(came).ok_or("more bytes came than were announced")?;
        self.left = Some(left);
        Ok(left == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::Response;

    #[test]
    fn a_response_is_whole_however_it_is_cut() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 1..whole.len() {
            let mut response = Response::default();
            assert_eq!(response.take(&whole[..cut]), Ok(false), "{cut}");
            assert_eq!(response.take(&whole[cut..]), Ok(true), "{cut}");
        }
        assert_eq!(Response::default().take(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), Ok(true));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (bytes, expected) in [
            (&b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"[..], "503"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "Content-Length"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "more bytes"),
            (&[b'x'; super::HEAD_MAX_BYTES + 1], "does not end"),
        ] {
            let error = Response::default().take(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}

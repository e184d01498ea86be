//! The origin of all servers that are compared: `/BYTES/NAME` answers a body of so many bytes that may be kept for a day, or a
//! range of it, and `/count` how many of those it was asked for. A thread for each connection: a cache has few, and hits need none.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bench::fetch;
use crate::bench::server::pinned;
use crate::shell::Failed;

/// The largest body that it makes.
const BODY_MAX_BYTES: usize = 1 << 30;
/// What it writes at once.
const PIECE_BYTES: usize = 1 << 20;
/// The path that tells how often it was asked.
const COUNT: &str = "/count";

/// An origin in a process of its own, pinned; killed when dropped.
pub(crate) struct Origin {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Origin {
    pub(crate) fn start(cores: &str) -> Result<Self, Failed> {
        let mut command = pinned(cores);
        command.arg(std::env::current_exe()?).arg("bench-origin");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().parse().map_err(|_| Failed(format!("the origin said {line:?} and no address")));
        Ok(Self { child, address: address? })
    }

    /// How many bodies it was asked for so far.
    pub(crate) fn asked(&self) -> Result<u64, Failed> {
        let body = fetch::body(&mut TcpStream::connect(self.address)?, self.address, COUNT)?;
        String::from_utf8_lossy(&body).parse().map_err(|_| Failed("the origin's count is no number".to_owned()))
    }

    /// Moves it to other cores.
    pub(crate) fn pin(&self, cores: &str) -> Result<(), Failed> {
        let id = self.child.id().to_string();
        let status = Command::new("taskset").args(["-a", "-c", "-p", cores, &id]).stdout(Stdio::null()).status()?;
        if status.success() { Ok(()) } else { Err(Failed(format!("the origin cannot run on cores {cores}"))) }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself: prints its address, and serves until it is killed.
pub(crate) fn serve() -> Result<(), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (asked, piece) = (Arc::new(AtomicU64::new(0)), Arc::new(piece()));
    for stream in listener.incoming() {
        let (stream, asked, piece) = (stream?, Arc::clone(&asked), Arc::clone(&piece));
        std::thread::spawn(move || connection(stream, &asked, &piece));
    }
    Ok(())
}

fn piece() -> Vec<u8> {
    (0..PIECE_BYTES).map(|at| (at % 251) as u8).collect()
}

/// Serves a connection until its client leaves it.
fn connection(stream: TcpStream, asked: &AtomicU64, piece: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::new(stream.try_clone()?), stream);
    while let Some((path, range)) = read_head(&mut reader)? {
        if path == COUNT {
            let count = asked.load(Ordering::SeqCst).to_string();
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{count}", count.len())?;
            continue;
        }
        let Some(bytes) = body_bytes(&path) else {
            writer.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        };
        asked.fetch_add(1, Ordering::SeqCst);
        let part = range.as_deref().and_then(|range| part(range, bytes));
        let mut out = head(bytes, part.as_ref()).into_bytes();
        let part = part.unwrap_or(0..bytes);
        let mut at = part.start;
        while at < part.end || !out.is_empty() {
            let offset = at % PIECE_BYTES;
            let now = piece.get(offset..PIECE_BYTES.min(offset + part.end - at)).unwrap_or_default();
            out.extend_from_slice(now);
            at += now.len();
            writer.write_all(&out)?;
            out.clear();
        }
    }
    Ok(())
}

/// The head of an answer with the whole body of so many bytes, or with a part of it.
fn head(bytes: usize, part: Option<&Range<usize>>) -> String {
    let status = match part {
        None => format!("200 OK\r\nContent-Length: {bytes}"),
        Some(Range { start, end }) => format!(
            "206 Partial Content\r\nContent-Range: bytes {start}-{}/{bytes}\r\nContent-Length: {}",
            end - 1,
            end - start
        ),
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nCache-Control: public, max-age=86400\r\n\
         ETag: \"{bytes}\"\r\nAccept-Ranges: bytes\r\n\r\n"
    )
}

/// The part of a body of so many bytes that `bytes=FIRST-LAST` names. Anything else names all of it.
fn part(range: &str, bytes: usize) -> Option<Range<usize>> {
    let (first, last) = range.trim().strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse::<usize>().ok()?);
    let end = last.saturating_add(1).min(bytes);
    (first < end).then_some(first..end)
}

/// The path of the next request and its `Range`, when its head is read to its end; `None` when the client has left.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<(String, Option<String>)>> {
    let (mut line, mut path, mut range) = (String::new(), None, None);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match path {
            None => path = Some(line.split(' ').nth(1).unwrap_or_default().to_owned()),
            Some(path) if line == "\r\n" => return Ok(Some((path, range))),
            Some(_) => {
                let field = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("range"));
                range = field.map(|(_, value)| value.to_owned()).or(range);
            }
        }
    }
}

/// How many bytes a path asks for.
fn body_bytes(path: &str) -> Option<usize> {
    let (bytes, _) = path.strip_prefix('/')?.split_once('/')?;
    bytes.parse().ok().filter(|bytes| *bytes <= BODY_MAX_BYTES)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::{AtomicU64, BODY_MAX_BYTES, Ordering, body_bytes, connection, head, part, piece};
    use crate::bench::fetch;

    #[test]
    fn paths() {
        for (path, expected) in [
            ("/1024/a", Some(1_024)),
            ("/0/", Some(0)),
            ("/1073741824/most", Some(BODY_MAX_BYTES)),
            ("/1073741825/more", None),
            ("/1024", None),
            ("/x/y", None),
            ("1024/a", None),
        ] {
            assert_eq!(body_bytes(path), expected, "{path}");
        }
    }

    #[test]
    fn parts() {
        for (range, expected) in [
            (" bytes=0-9\r\n", Some(0..10)),
            ("bytes=99-99", Some(99..100)),
            ("bytes=90-18446744073709551615", Some(90..100)),
            ("bytes=100-200", None),
            ("bytes=5-", None),
            ("bytes=-5", None),
            ("bytes=0-1,5-6", None),
        ] {
            assert_eq!(part(range, 100), expected, "{range}");
        }
        assert!(
            head(100, Some(&(10..20))).starts_with(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 10-19/100\r\nContent-Length: 10\r\n"
            )
        );
    }

    #[test]
    fn bodies_are_whole_and_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(host).unwrap();
        let server = std::thread::spawn(move || {
            let asked = AtomicU64::new(0);
            let (stream, _) = listener.accept().unwrap();
            connection(stream, &asked, &piece()).unwrap();
            asked.load(Ordering::SeqCst)
        });
        for bytes in [0, 1, 1_024, (1 << 20) + 1] {
            assert_eq!(fetch::body(&mut client, host, &format!("/{bytes}/x")).unwrap().len(), bytes);
        }
        assert_eq!(fetch::body(&mut client, host, "/count").unwrap(), b"4");
        assert!(fetch::body(&mut client, host, "/lost").is_err());
        drop(client);
        assert_eq!(server.join().unwrap(), 4);
    }
}

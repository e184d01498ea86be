//! The origin of all servers that are compared: `/BYTES/NAME` answers a body of so many bytes that may be kept for a day, and
//! `/count` how many of those it was asked for. A thread for each connection: a cache has few, and hits need none.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
    while let Some(path) = read_head(&mut reader)? {
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
        let mut out = head(bytes).into_bytes();
        let mut left = bytes;
        while left > 0 || !out.is_empty() {
            let now = piece.get(..left.min(PIECE_BYTES)).unwrap_or_default();
            out.extend_from_slice(now);
            left -= now.len();
            writer.write_all(&out)?;
            out.clear();
        }
    }
    Ok(())
}

fn head(bytes: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nCache-Control: public, max-age=86400\r\n\
         ETag: \"{bytes}\"\r\nContent-Length: {bytes}\r\n\r\n"
    )
}

/// The path of the next request, whose head is read to its end; `None` when the client has left.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let (mut line, mut path) = (String::new(), None);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match path {
            None => path = Some(line.split(' ').nth(1).unwrap_or_default().to_owned()),
            Some(path) if line == "\r\n" => return Ok(Some(path)),
            Some(_) => {}
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

    use super::{AtomicU64, BODY_MAX_BYTES, Ordering, body_bytes, connection, piece};
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

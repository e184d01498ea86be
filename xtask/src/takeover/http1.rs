//! Clients of `cargo xtask takeover` that speak HTTP/1.1, and one that purges: what it has purged nobody may be served any
//! more, neither by the old process nor by the new one.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::ClientConfig;

use crate::bench::own::{Stream, connect};
use crate::shell::Failed;
use crate::takeover::process::{BODY_BYTES, VERSION_PATH, Website, body_of};
use crate::takeover::{Load, PATHS};

/// Connections that the purger keeps beside those that it opens: one is asked after each purge, so that some of them are of the
/// old process still.
const WATCHING: usize = 16;

type Connection = BufReader<Box<dyn Stream>>;

/// Where to, and whether with TLS.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<&'a Arc<ClientConfig>>,
}

impl Way<'_> {
    fn open(self) -> Result<Connection, Failed> {
        Ok(BufReader::new(connect(self.address, self.tls)?))
    }
}

/// Asks until it is told to stop. Even numbers keep their connection.
pub(crate) fn client(way: Way<'_>, number: usize, load: &Load) {
    let (keeps, mut kept, mut at) = (number.is_multiple_of(2), None, number);
    while load.goes_on(kept.is_some()) {
        at += 1;
        let path = (at % PATHS).to_string();
        let asked = kept.take().map_or_else(|| way.open(), Ok).and_then(|stream| {
            let (body, stream) = ask(stream, "GET", &path, keeps)?;
            if body == body_of(&path, 0) { Ok(stream) } else { Err(Failed("another body".to_owned())) }
        });
        match asked {
            Ok(stream) => {
                load.done.fetch_add(1, Ordering::Relaxed);
                load.last.fetch_add((keeps && stream.is_none()).into(), Ordering::Relaxed);
                kept = stream;
            }
            Err(Failed(why)) => {
                load.fails(&format!("a request on a {} connection", if keeps { "kept" } else { "new" }), &why)
            }
        }
    }
}

/// Changes the website, purges, and looks whether what it gets then is new.
pub(crate) fn purger(way: Way<'_>, website: &Website, load: &Load) {
    let mut kept: Vec<Option<Connection>> = (0..WATCHING).map(|_| None).collect();
    let mut turn = 0;
    while load.goes_on(false) {
        turn = (turn + 1) % WATCHING;
        let mut round = || {
            // Everybody has the old one in memory.
            get(way.open()?, false)?;
            let version = website.change();
            ask(way.open()?, "PURGE", VERSION_PATH, false)?;
            // An idle one may have been closed.
            let watched = kept.get_mut(turn).and_then(Option::take).and_then(|kept| get(kept, true).ok());
            let (seen_kept, still) = watched.map_or_else(|| get(way.open()?, true), Ok)?;
            let (seen_new, _) = get(way.open()?, false)?;
            Ok((version, seen_kept, seen_new, still))
        };
        match round() {
            Ok((version, seen_kept, seen_new, still)) => {
                load.purges.fetch_add(1, Ordering::Relaxed);
                if let Some(place) = kept.get_mut(turn) {
                    *place = still;
                }
                if seen_kept < version || seen_new < version {
                    let why = format!("{seen_kept} on a kept connection, {seen_new} on a new one");
                    load.fails(&format!("after the purge of version {version}"), &why);
                }
            }
            Err(Failed(why)) => load.fails("a purge, or a read after it", &why),
        }
    }
}

/// The version that is served.
fn get(stream: Connection, keeps: bool) -> Result<(u64, Option<Connection>), Failed> {
    let (body, stream) = ask(stream, "GET", VERSION_PATH, keeps)?;
    Ok((body.parse()?, stream))
}

/// One request; its body, and the connection where it may be used again.
fn ask(mut stream: Connection, method: &str, path: &str, keeps: bool) -> Result<(String, Option<Connection>), Failed> {
    let close = if keeps { "" } else { "Connection: close\r\n" };
    let request = format!("{method} /{path} HTTP/1.1\r\nHost: site.example\r\n{close}\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    stream.get_mut().flush()?;
    let (mut line, mut status, mut again, mut length) = (String::new(), String::new(), keeps, BODY_BYTES);
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(Failed(format!("the connection ended after {status:?}")));
        }
        match line.trim_end() {
            "" => break,
            text if status.is_empty() => status = text.to_owned(),
            text => {
                again &= !text.eq_ignore_ascii_case("connection: close");
                if let Some(bytes) = text.strip_prefix("content-length: ") {
                    length = bytes.parse()?;
                }
            }
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8(body)?;
    if status != "HTTP/1.1 200 OK" {
        return Err(Failed(format!("{status:?}: {body}")));
    }
    Ok((body, Some(stream).filter(|_| again)))
}

//! One request at a time over a stream that stays open: for warming caches, for seeing that answers are right, and for the loads
//! that neither wrk nor h2load makes.

use std::io::{Read, Write};
use std::net::SocketAddr;

use crate::shell::Failed;

/// What is read at once.
pub(crate) const READ_BYTES: usize = 256 << 10;
/// The longest head of a response.
pub(crate) const HEAD_MAX_BYTES: usize = 16 << 10;

/// Asks a host for a path and answers the body of a 200.
pub(crate) fn body(stream: &mut (impl Read + Write), host: SocketAddr, path: &str) -> Result<Vec<u8>, Failed> {
    let mut body = Vec::new();
    get(stream, host, path, "", |piece| body.extend_from_slice(piece))?;
    Ok(body)
}

/// Asks a host for a path, with more header lines (each with its line end), and answers how long the body of the 200 was.
pub(crate) fn length(
    stream: &mut (impl Read + Write),
    host: SocketAddr,
    path: &str,
    more: &str,
) -> Result<usize, Failed> {
    get(stream, host, path, more, |_| ())
}

fn get(
    stream: &mut (impl Read + Write),
    host: SocketAddr,
    path: &str,
    more: &str,
    mut take: impl FnMut(&[u8]),
) -> Result<usize, Failed> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n").as_bytes())?;
    stream.flush()?;
    let (mut buffer, mut filled) = (vec![0; READ_BYTES], 0);
    let head_bytes = loop {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        let read = stream.read(room)?;
        filled += read;
        let so_far = buffer.get(..filled).unwrap_or_default();
        if let Some(at) = so_far.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if read == 0 || filled > HEAD_MAX_BYTES {
            return Err(Failed(format!("{path}: {filled} bytes came and no whole head")));
        }
    };
    let head = String::from_utf8_lossy(buffer.get(..head_bytes).unwrap_or_default()).into_owned();
    let length = content_length(&head).map_err(|why| Failed(format!("{path}: {why}")))?;
    let first = buffer.get(head_bytes..filled).unwrap_or_default();
    take(first);
    let mut came = first.len();
    while came < length {
        let room = READ_BYTES.min(length - came);
        let read = stream.read(buffer.get_mut(..room).unwrap_or_default())?;
        if read == 0 {
            return Err(Failed(format!("{path}: {came} of {length} bytes came")));
        }
        take(buffer.get(..read).unwrap_or_default());
        came += read;
    }
    if came > length { Err(Failed(format!("{path}: {came} bytes came instead of {length}"))) } else { Ok(length) }
}

/// The length of the body, by a head that must be a 200's.
pub(crate) fn content_length(head: &str) -> Result<usize, String> {
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("the answer is '{status}' and not a 200"));
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    length.ok_or_else(|| "the answer has no Content-Length".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read, Result, Write};

    use super::length;

    /// Answers what it was made with, so many bytes at once.
    struct Canned(Cursor<&'static [u8]>, usize);

    impl Read for Canned {
        fn read(&mut self, room: &mut [u8]) -> Result<usize> {
            let most = self.1.min(room.len());
            self.0.read(&mut room[..most])
        }
    }

    impl Write for Canned {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn answers() {
        let cases: [(&'static [u8], _); 7] = [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", Ok(3)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok(0)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", Err("/: 3 of 4 bytes came")),
            (b"HTTP/1.1 200 OK\r\n\r\nabc", Err("/: the answer has no Content-Length")),
            (
                b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
                Err("/: the answer is 'HTTP/1.1 503 Busy' and not a 200"),
            ),
            (b"HTTP/1.1 200 OK\r\n", Err("/: 17 bytes came and no whole head")),
            (b"", Err("/: 0 bytes came and no whole head")),
        ];
        for (answer, expected) in cases {
            for at_once in [1, 1_000] {
                let host = ([127, 0, 0, 1], 80).into();
                let got = length(&mut Canned(Cursor::new(answer), at_once), host, "/", "").map_err(|why| why.0);
                assert_eq!(got, expected.map_err(str::to_owned));
            }
        }
    }
}

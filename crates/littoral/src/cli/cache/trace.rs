//! Reading traces: lines of `time id size`, plain or compressed with xz.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use lzma_rust2::XzReader;

use crate::cli::human;

/// Longest line, in bytes with its end.
const MAX_LINE_BYTES: usize = 1_024;
/// Most requests of a trace; each takes 16 bytes of memory while it is replayed.
const MAX_REQUESTS: usize = 100_000_000;
/// Memory that the unpacking of xz may take, in KiB: twice what `xz -9` needs.
const MAX_XZ_KIB: u32 = 128 << 10;
/// What an xz file begins with (xz file format 1.2.1, 2.1.1.1).
const XZ_MAGIC: [u8; 6] = [0xFD, b'7', b'z', b'X', b'Z', 0];

/// A request of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceRequest {
    /// The object.
    pub(super) id: u64,
    /// Its size in bytes, as this request knows it.
    pub(super) bytes: u64,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraceError {
    #[error("cannot read {file}: {why}")]
    Unreadable { file: String, why: io::Error },
    #[error("{file}, line {line}: {why}; a line is 'time id size', like '1605.2 48213 7454'")]
    BadLine { file: String, line: usize, why: BadLine },
    #[error("{file} has more than {most} requests; cut it into parts of at most that many lines")]
    TooLong { file: String, most: usize },
    #[error("{file} has no requests; it needs lines of 'time id size'")]
    Empty { file: String },
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLine {
    #[error("it is longer than {MAX_LINE_BYTES} bytes")]
    Long,
    #[error("it is not text")]
    NotText,
    #[error("it has {0} words, not 3")]
    Words(usize),
    #[error("the time {0:?} is not a number of seconds, 0 or more")]
    Time(String),
    #[error("the id {0:?} is not a whole number from 0 to 18446744073709551615")]
    Id(String),
    #[error("the size {0:?} is not a whole number of bytes, 0 or more")]
    Size(String),
}

/// All requests of the trace in a file.
pub(super) fn read(path: &Path) -> Result<Vec<TraceRequest>, TraceError> {
    let file = human::file_name(path);
    let unreadable = |why| TraceError::Unreadable { file: file.clone(), why };
    let mut plain = BufReader::new(File::open(path).map_err(unreadable)?);
    if plain.fill_buf().map_err(unreadable)?.starts_with(&XZ_MAGIC) {
        lines(&mut BufReader::new(XzReader::new_mem_limit(plain, true, MAX_XZ_KIB)), &file, MAX_REQUESTS)
    } else {
        lines(&mut plain, &file, MAX_REQUESTS)
    }
}

/// Gives every object its last size throughout, as the published tables of such traces do: a cache of responses has one
/// size of an object at a time, too. Returns the size of all objects together, in bytes.
pub(super) fn settle_sizes(requests: &mut [TraceRequest]) -> u64 {
    let last: HashMap<u64, u64> = requests.iter().map(|request| (request.id, request.bytes)).collect();
    for request in requests {
        request.bytes = last.get(&request.id).copied().unwrap_or(request.bytes);
    }
    last.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes))
}

fn lines(from: &mut impl BufRead, file: &str, most: usize) -> Result<Vec<TraceRequest>, TraceError> {
    let (mut requests, mut line, mut number) = (Vec::new(), Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        let read = from.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line);
        if read.map_err(|why| TraceError::Unreadable { file: file.to_owned(), why })? == 0 {
            break;
        }
        let request = request(&line).map_err(|why| TraceError::BadLine { file: file.to_owned(), line: number, why })?;
        if request.is_some() && requests.len() >= most {
            return Err(TraceError::TooLong { file: file.to_owned(), most });
        }
        requests.extend(request);
    }
    if requests.is_empty() { Err(TraceError::Empty { file: file.to_owned() }) } else { Ok(requests) }
}

/// The request in a line; none in an empty one.
fn request(line: &[u8]) -> Result<Option<TraceRequest>, BadLine> {
    if line.len() > MAX_LINE_BYTES {
        return Err(BadLine::Long);
    }
    let line = std::str::from_utf8(line).map_err(|_| BadLine::NotText)?;
    let mut words = line.split_ascii_whitespace();
    let (time, id, size) = match (words.next(), words.next(), words.next(), words.next()) {
        (None, ..) => return Ok(None),
        (Some(time), Some(id), Some(size), None) => (time, id, size),
        _ => return Err(BadLine::Words(line.split_ascii_whitespace().count())),
    };
    if !time.parse().is_ok_and(|seconds: f64| seconds.is_finite() && seconds >= 0.0) {
        return Err(BadLine::Time(human::plain(time)));
    }
    let id = id.parse().map_err(|_| BadLine::Id(human::plain(id)))?;
    let bytes = size.parse().map_err(|_| BadLine::Size(human::plain(size)))?;
    Ok(Some(TraceRequest { id, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Vec<(u64, u64)>, String> {
        let requests = lines(&mut &*text, "x.trace", 4).map_err(|error| error.to_string())?;
        Ok(requests.into_iter().map(|request| (request.id, request.bytes)).collect())
    }

    #[test]
    fn lines_of_time_id_and_size() {
        let text = b"0 1 2\n1.5\t18446744073709551615  0\r\n\n 7 3 9 \n8 1 4";
        assert_eq!(parse(text), Ok(vec![(1, 2), (u64::MAX, 0), (3, 9), (1, 4)]));
        let longest = format!("0 1 2{}\n", " ".repeat(MAX_LINE_BYTES - 6));
        assert_eq!(parse(longest.as_bytes()), Ok(vec![(1, 2)]));
    }

    #[test]
    fn bad_lines_are_named() {
        let long = format!("0 1 2{}\n", " ".repeat(MAX_LINE_BYTES - 5));
        for (text, expected) in [
            ("0 1 2\n0 1\n", "line 2: it has 2 words, not 3; a line is 'time id size'"),
            ("0 1 2 3\n", "line 1: it has 4 words, not 3"),
            ("x 1 2\n", "the time \"x\" is not"),
            ("-1 1 2\n", "the time \"-1\" is not"),
            ("inf 1 2\n", "the time \"inf\" is not"),
            ("0 -1 2\n", "the id \"-1\" is not"),
            ("0 18446744073709551616 2\n", "the id \"18446744073709551616\" is not"),
            ("0 1 2.5\n", "the size \"2.5\" is not"),
            ("\n0 1 1KiB\n", "line 2: the size \"1KiB\" is not"),
            ("\n\n", "x.trace has no requests"),
            ("0 1 2\n0 1 2\n0 1 2\n0 1 2\n0 1 2\n", "more than 4 requests; cut it"),
            (&long, "line 1: it is longer than 1024 bytes"),
        ] {
            let error = parse(text.as_bytes()).expect_err(text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        assert!(parse(b"0 1 2\n\xFF 1 2\n").expect_err("not text").contains("line 2: it is not text"));
    }

    #[test]
    fn the_footprint_counts_last_sizes() {
        let requests = [(1, 10), (2, 5), (1, 30)].map(|(id, bytes)| TraceRequest { id, bytes });
        let mut requests = requests;
        assert_eq!(settle_sizes(&mut requests), 35);
        assert_eq!(requests.map(|request| request.bytes), [30, 5, 30]);
    }

    /// `printf '1 2 3\n4 5 6\n' | xz`
    const PACKED: &[u8] = &[
        0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00, 0x00, 0x04, 0xE6, 0xD6, 0xB4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x16, 0x00,
        0x00, 0x00, 0x74, 0x2F, 0xE5, 0xA3, 0x01, 0x00, 0x0B, 0x31, 0x20, 0x32, 0x20, 0x33, 0x0A, 0x34, 0x20, 0x35,
        0x20, 0x36, 0x0A, 0x00, 0x46, 0x1C, 0xDB, 0x13, 0x72, 0xCC, 0xAD, 0xE5, 0x00, 0x01, 0x24, 0x0C, 0xA6, 0x18,
        0xD8, 0xD8, 0x1F, 0xB6, 0xF3, 0x7D, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5A,
    ];

    /// `printf '1 2 3\n' | xz --lzma2=dict=256MiB`
    const GREEDY: &[u8] = &[
        0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00, 0x00, 0x04, 0xE6, 0xD6, 0xB4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x20, 0x00,
        0x00, 0x00, 0x09, 0x88, 0xA5, 0x76, 0x01, 0x00, 0x05, 0x31, 0x20, 0x32, 0x20, 0x33, 0x0A, 0x00, 0x00, 0x00,
        0xE3, 0x4D, 0x3A, 0x5D, 0x05, 0xC7, 0x88, 0x46, 0x00, 0x01, 0x1E, 0x06, 0xC1, 0x2F, 0xA4, 0x1D, 0x1F, 0xB6,
        0xF3, 0x7D, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5A,
    ];

    #[test]
    fn xz_is_known_by_its_first_bytes_and_broken_ones_are_errors() {
        let folder = tempfile::tempdir().expect("folder");
        let file = |bytes: &[u8]| {
            let path = folder.path().join("trace");
            std::fs::write(&path, bytes).expect("write");
            read(&path)
        };
        let expected = vec![TraceRequest { id: 2, bytes: 3 }, TraceRequest { id: 5, bytes: 6 }];
        assert_eq!(file(b"1 2 3\n4 5 6\n").expect("plain"), expected);
        assert_eq!(file(PACKED).expect("xz"), expected);
        for end in [XZ_MAGIC.len(), PACKED.len() / 2, PACKED.len() - 1] {
            assert!(matches!(file(&PACKED[..end]), Err(TraceError::Unreadable { .. })), "{end}");
        }
        let error = file(GREEDY).expect_err("a dictionary of 256 MiB").to_string();
        assert!(error.contains("memory"), "{error}");
        for at in 0..PACKED.len() {
            let mut flipped = PACKED.to_vec();
            flipped[at] ^= 1;
            assert!(file(&flipped).is_err(), "byte {at}");
        }
        assert!(matches!(read(Path::new("/nowhere/trace")), Err(TraceError::Unreadable { .. })));
    }
}

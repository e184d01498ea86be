//! The chunked transfer coding (RFC 9112 section 7.1), decoded byte for byte, without allocating.
//!
//! Stricter than the grammar: no whitespace beside the size, lines end with CRLF only. Extensions and trailers are
//! checked, bounded for the whole body, and dropped.

use bytes::{Buf, Bytes, BytesMut};

use super::refusal::Refusal;
use super::scan::is_token;

/// Digits of a chunk size: as many as 64 bits need.
const SIZE_DIGITS: u8 = 16;
/// Bytes of all chunk extensions of a body.
pub(crate) const EXTENSION_BYTES: usize = 16 << 10;
/// Bytes of the trailer section.
pub(crate) const TRAILER_BYTES: usize = 8 << 10;

/// What a step of decoding found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Bytes of the body; never empty.
    Data(Bytes),
    /// Nothing: more input is needed.
    More,
    /// The end; what is left in the input is the next request.
    End,
}

/// The place in a chunked body.
#[derive(Debug)]
pub(crate) struct Chunked {
    at: At,
    extension_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Size { size: u64, digits: u8 },
    Extension { size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    LineStart,
    Name,
    Value,
    ValueLf,
    LastLf,
    End,
}

const NEXT_SIZE: At = At::Size { size: 0, digits: 0 };

impl Chunked {
    pub(crate) fn new() -> Self {
        Self { at: NEXT_SIZE, extension_bytes: 0, trailer_bytes: 0 }
    }

    /// Takes the next piece of the body, of at most `max_bytes` (above 0), out of `input`.
    ///
    /// # Errors
    /// What makes the body malformed. The body cannot be read further then.
    pub(crate) fn step(&mut self, input: &mut BytesMut, max_bytes: usize) -> Result<Step, Refusal> {
        loop {
            match self.at {
                At::End => return Ok(Step::End),
                At::Data { left } => {
                    if input.is_empty() {
                        return Ok(Step::More);
                    }
                    let wanted = usize::try_from(left).unwrap_or(usize::MAX);
                    let data = input.split_to(wanted.min(input.len()).min(max_bytes)).freeze();
                    let left = left - data.len() as u64;
                    self.at = if left == 0 { At::DataCr } else { At::Data { left } };
                    return Ok(Step::Data(data));
                }
                _ => {
                    let Some(&byte) = input.first() else { return Ok(Step::More) };
                    input.advance(1);
                    self.at = self.after(byte)?;
                }
            }
        }
    }

    /// The place after one byte of framing.
    fn after(&mut self, byte: u8) -> Result<At, Refusal> {
        Ok(match (self.at, byte) {
            (At::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                At::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (At::Size { size, digits: 1.. }, b'\r') => At::SizeLf { size },
            (At::Size { size, digits: 1.. }, b';') => At::Extension { size },
            (At::Extension { size }, b'\r') => At::SizeLf { size },
            (At::Extension { size }, _) if is_text(byte) => {
                self.extension_bytes += 1;
                if self.extension_bytes > EXTENSION_BYTES {
                    return Err(Refusal::ExtensionsTooLong);
                }
                At::Extension { size }
            }
            (At::SizeLf { size: 0 }, b'\n') => At::LineStart,
            (At::SizeLf { size }, b'\n') => At::Data { left: size },
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => NEXT_SIZE,
            (At::LineStart, b'\r') => At::LastLf,
            (At::LastLf, b'\n') => At::End,
            (At::LineStart | At::Name | At::Value | At::ValueLf, _) => self.trailer(byte)?,
            _ => return Err(Refusal::Chunk),
        })
    }

    fn trailer(&mut self, byte: u8) -> Result<At, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES {
            return Err(Refusal::TrailersTooLong);
        }
        Ok(match (self.at, byte) {
            (At::LineStart | At::Name, _) if is_token(byte) => At::Name,
            (At::Name, b':') => At::Value,
            (At::Value, b'\r') => At::ValueLf,
            (At::Value, _) if is_text(byte) => At::Value,
            (At::ValueLf, b'\n') => At::LineStart,
            _ => return Err(Refusal::Trailer),
        })
    }
}

/// What may stand in values: anything but control characters, and the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<(String, String), Refusal> {
        let (mut input, mut chunked, mut body) = (BytesMut::from(text), Chunked::new(), Vec::new());
        loop {
            match chunked.step(&mut input, 3)? {
                Step::Data(data) => {
                    assert!((1..=3).contains(&data.len()));
                    body.extend_from_slice(&data);
                }
                Step::More => return Ok((String::from_utf8(body).expect("text"), "(more)".to_owned())),
                Step::End => {
                    let rest = String::from_utf8(input.to_vec()).expect("text");
                    return Ok((String::from_utf8(body).expect("text"), rest));
                }
            }
        }
    }

    #[test]
    fn bodies() {
        let cases = [
            ("0\r\n\r\n", "", ""),
            ("5\r\nhello\r\n0\r\n\r\nGET", "hello", "GET"),
            ("A;a=b; c=\"d\"\r\n0123456789\r\n000\r\n\r\n", "0123456789", ""),
            ("1\r\na\r\n0;x\r\nt: v\r\nu:\r\n\r\n", "a", ""),
            ("5\r\nhel", "hel", "(more)"),
            ("0000000000000001\r\na\r\n0\r\n\r\n", "a", ""),
        ];
        for (text, body, rest) in cases {
            assert_eq!(decode(text), Ok((body.to_owned(), rest.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn bodies_that_are_malformed() {
        let bad = [
            "\r\n",
            ";\r\n",
            "0x5\r\n",
            "+5\r\n",
            "-1\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\t;a\r\n",
            "g\r\n",
            "5\n",
            "5\r5",
            "5;a\n",
            "5;\0\r\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "00000000000000001\r\n",
            "5\r\r\n",
            "1\r\na0\r\n",
        ];
        for bad in bad {
            assert_eq!(decode(bad), Err(Refusal::Chunk), "{bad:?}");
        }
        for bad in [" a: b\r\n", ": b\r\n", "a : b\r\n", "a\r\n", "a: b\n", "a: b\rc", "a: \0\r\n", "a: b\r\n c\r\n"] {
            assert_eq!(decode(&format!("0\r\n{bad}")), Err(Refusal::Trailer), "{bad:?}");
        }
        assert_eq!(decode("0\r\n\rx"), Err(Refusal::Chunk));
        assert_eq!(decode("0\r\n\n"), Err(Refusal::Trailer));
    }

    #[test]
    fn extensions_and_trailers_end_at_their_bounds() {
        let half = "e".repeat(EXTENSION_BYTES / 2);
        assert!(decode(&format!("1;{half}\r\na\r\n1;{half}\r\nb\r\n0\r\n\r\n")).is_ok());
        assert_eq!(decode(&format!("1;{half}\r\na\r\n1;{half}e\r\nb\r\n")), Err(Refusal::ExtensionsTooLong));
        let fits = "t".repeat(TRAILER_BYTES - 3);
        assert!(decode(&format!("0\r\n{fits}:\r\n\r\n")).is_ok());
        assert_eq!(decode(&format!("0\r\n{fits}t:\r\n\r\n")), Err(Refusal::TrailersTooLong));
    }
}

//! Finds the head of a request in the bytes read so far. It looks at each byte once, however the bytes were split into
//! reads, and its answer does not depend on the split: it depends only on positions.

use std::ops::Range;

use super::refusal::Refusal;

/// Empty lines that are skipped before a request line (RFC 9112 section 2.2): some old clients end a body with one.
pub(crate) const EMPTY_LINES: usize = 2;

/// Bytes of a method.
pub(crate) const METHOD_BYTES: usize = 32;

/// What the request line needs besides method and target: two spaces, the version, CRLF.
const REQUEST_LINE_REST_BYTES: usize = 2 + 8 + 2;

/// Bounds of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes of the whole head.
    pub(crate) bytes: usize,
    /// Field lines.
    pub(crate) fields: usize,
    /// Bytes of the request target.
    pub(crate) target_bytes: usize,
}

/// How far a head was read. A new one for each request.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// Where the head begins: after the empty lines.
    start: usize,
    /// Where the line that is not complete yet begins.
    line: usize,
    /// Up to where there is no further LF.
    scanned: usize,
    /// Complete lines.
    lines: usize,
    empty_lines: usize,
}

impl Scanner {
    /// Where the head stands in `bytes`, its last empty line included; `None` while it is not complete.
    ///
    /// `bytes` begin where they began at the last call, and may have grown.
    ///
    /// # Errors
    /// The head is beyond its limits, a line ends with LF alone, or what comes is no request at all.
    pub(crate) fn advance(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<Range<usize>>, Refusal> {
        loop {
            if self.lines == 0 && bytes.get(self.start).is_some_and(|&first| !begins_a_request(first)) {
                return Err(Refusal::RequestLine);
            }
            let last = self.start + self.allowed(limits);
            let window = bytes.get(self.scanned..bytes.len().min(last)).unwrap_or_default();
            let Some(found) = memchr::memchr(b'\n', window) else {
                self.scanned = self.scanned.max(bytes.len().min(last));
                return if bytes.len() >= last { Err(self.too_long()) } else { Ok(None) };
            };
            let end = self.scanned + found + 1;
            let line = bytes.get(self.line..end).unwrap_or_default();
            if !line.ends_with(b"\r\n") {
                return Err(Refusal::BareLf);
            }
            let empty = line.len() == 2;
            (self.line, self.scanned) = (end, end);
            match (empty, self.lines) {
                (true, 0) => {
                    self.start = end;
                    self.empty_lines += 1;
                    if self.empty_lines > EMPTY_LINES {
                        return Err(Refusal::EmptyLines);
                    }
                }
                (true, _) => return Ok(Some(self.start..end)),
                (false, lines) => {
                    // The request line and the fields.
                    self.lines = lines + 1;
                    if self.lines > limits.fields + 1 {
                        return Err(Refusal::TooManyFields);
                    }
                }
            }
        }
    }

    /// How many field lines there are.
    pub(crate) fn fields(&self) -> usize {
        self.lines.saturating_sub(1)
    }

    fn allowed(&self, limits: &HeadLimits) -> usize {
        match self.lines {
            0 => limits.bytes.min(METHOD_BYTES + limits.target_bytes + REQUEST_LINE_REST_BYTES),
            _ => limits.bytes,
        }
    }

    fn too_long(&self) -> Refusal {
        if self.lines == 0 { Refusal::TargetTooLong } else { Refusal::HeadTooLong }
    }
}

/// A method begins with a token character; CR may begin an empty line, and LF one that is refused as such.
fn begins_a_request(first: u8) -> bool {
    is_token(first) || first == b'\r' || first == b'\n'
}

/// A character of a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 100, fields: 2, target_bytes: 20 };

    fn scan(text: &str) -> Result<Option<Range<usize>>, Refusal> {
        Scanner::default().advance(text.as_bytes(), &LIMITS)
    }

    #[test]
    fn finds_the_head() {
        assert_eq!(scan("GET / HTTP/1.1\r\n\r\nrest"), Ok(Some(0..18)));
        assert_eq!(scan("\r\n\r\nGET / HTTP/1.1\r\na: b\r\n\r\n"), Ok(Some(4..28)));
        for part in ["", "\r", "\r\n", "G", "GET / HTTP/1.1\r", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n\r"] {
            assert_eq!(scan(part), Ok(None), "{part:?}");
        }
    }

    #[test]
    fn refuses_at_the_edges() {
        assert_eq!(scan("\r\n\r\n\r\nGET"), Err(Refusal::EmptyLines));
        assert_eq!(scan("\nGET"), Err(Refusal::BareLf));
        assert_eq!(scan("GET / HTTP/1.1\n"), Err(Refusal::BareLf));
        assert_eq!(scan("\u{16}\u{3}\u{1}"), Err(Refusal::RequestLine));
        assert_eq!(scan("G / HTTP/1.1\r\na:\r\nb:\r\nc:\r\n"), Err(Refusal::TooManyFields));
        let head = |bytes: usize| format!("G / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(bytes - 21));
        assert_eq!(scan(&head(100)), Ok(Some(0..100)));
        assert_eq!(scan(&head(101)), Err(Refusal::HeadTooLong));
        let line = METHOD_BYTES + LIMITS.target_bytes + REQUEST_LINE_REST_BYTES;
        assert_eq!(scan(&"x".repeat(line - 1)), Ok(None));
        assert_eq!(scan(&"x".repeat(line)), Err(Refusal::TargetTooLong));
    }
}

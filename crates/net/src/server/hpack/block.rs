//! The fields of one request as they were decoded, judged as far as RFC 9113 section 8 judges single fields.
//!
//! Names and values stand one behind the other in one text, so that a block costs no allocation once its memory is there.
//! What is known of a field ([`Kind`]) is worked out where it comes as a literal, and kept in the table with it.

use std::ops::Range;

use bytes::Bytes;

use super::HpackError;
use super::table::ENTRY_BYTES;
use crate::server::plain::is_plain_field;

/// So many times what is taken a block may have: it is answered with 431. Beyond that its connection ends.
const BOMB: usize = 4;
/// Bytes of text that are kept for the next block.
const KEPT_BYTES: usize = 16 << 10;

/// What a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Authority,
    Method,
    Path,
    Scheme,
    /// See [`is_plain_field`].
    Plain,
    Other,
    /// One that makes its request malformed.
    Malformed,
}

/// What a field with this name and value is.
pub(crate) fn kind(name: &[u8], value: &[u8]) -> Kind {
    match name {
        _ if !is_value(value) => Kind::Malformed,
        [b':', rest @ ..] => match rest {
            b"authority" => Kind::Authority,
            b"method" => Kind::Method,
            b"path" => Kind::Path,
            b"scheme" => Kind::Scheme,
            // Those of responses, of extensions that we do not have, and inventions.
            _ => Kind::Malformed,
        },
        // About the connection (RFC 9113 section 8.2.2).
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => Kind::Malformed,
        b"te" if value != b"trailers" => Kind::Malformed,
        _ if name.is_empty() || !name.iter().all(|&byte| is_name(byte)) => Kind::Malformed,
        _ if is_plain_field(name) => Kind::Plain,
        _ => Kind::Other,
    }
}

/// A token without upper case (RFC 9113 section 8.2.1).
fn is_name(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-') || b"!#$%&'*+.^_`|~".contains(&byte)
}

/// No control characters but tabs, and no white space around it.
fn is_value(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_text = |byte: &u8| (*byte >= b' ' && *byte != 0x7f) || *byte == b'\t';
    value.iter().all(is_text) && !is_space(value.first()) && !is_space(value.last())
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(super) text: Vec<u8>,
    fields: Vec<Field>,
    method: Option<Range<usize>>,
    scheme: Option<Range<usize>>,
    authority: Option<Range<usize>>,
    path: Option<Range<usize>>,
    /// What the fields count (RFC 9113 section 6.5.2).
    bytes: usize,
    /// What they may count.
    max: usize,
    oversize: bool,
    malformed: bool,
    has_others: bool,
}

#[derive(Debug)]
struct Field {
    start: usize,
    name_end: usize,
    end: usize,
}

impl Block {
    /// Begins a new one, of which `max` bytes are kept.
    pub(super) fn clear(&mut self, max: usize) {
        self.text.clear();
        self.text.shrink_to(KEPT_BYTES);
        self.fields.clear();
        self.fields.shrink_to(KEPT_BYTES / ENTRY_BYTES);
        (self.method, self.scheme, self.authority, self.path) = (None, None, None, None);
        (self.bytes, self.max) = (0, max);
        (self.oversize, self.malformed, self.has_others) = (false, false, false);
    }

    /// Takes the field that stands in the text from `start` on.
    ///
    /// # Errors
    /// [`HpackError::Bomb`].
    pub(super) fn take(&mut self, start: usize, name_end: usize, kind: Kind) -> Result<(), HpackError> {
        let end = self.text.len();
        self.bytes += end - start + ENTRY_BYTES;
        if self.bytes > self.max {
            self.oversize = true;
            self.text.truncate(start);
            return if self.bytes > self.max.saturating_mul(BOMB) { Err(HpackError::Bomb) } else { Ok(()) };
        }
        let place = match kind {
            Kind::Method => &mut self.method,
            Kind::Scheme => &mut self.scheme,
            Kind::Authority => &mut self.authority,
            Kind::Path => &mut self.path,
            Kind::Plain | Kind::Other => {
                self.has_others |= kind == Kind::Other;
                self.fields.push(Field { start, name_end, end });
                return Ok(());
            }
            Kind::Malformed => {
                self.malformed = true;
                return Ok(());
            }
        };
        // Once each, and before all others (RFC 9113 section 8.3).
        self.malformed |= place.replace(name_end..end).is_some() || !self.fields.is_empty();
        Ok(())
    }

    /// Whether something in it makes a request malformed. In trailers (`is_trailers`) every pseudo-field does.
    pub(crate) fn is_malformed(&self, is_trailers: bool) -> bool {
        let pseudo = [&self.method, &self.scheme, &self.authority, &self.path];
        self.malformed || (is_trailers && pseudo.into_iter().any(Option::is_some))
    }

    /// Whether it is larger than what is kept of it.
    pub(crate) fn is_oversize(&self) -> bool {
        self.oversize
    }

    /// Whether its fields, but for pseudo-fields, are all plain (see [`is_plain_field`]).
    pub(crate) fn is_plain(&self) -> bool {
        !self.malformed && !self.oversize && !self.has_others
    }

    /// All of its text, of which the following are parts.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// `:method`.
    pub(crate) fn method(&self) -> Option<&[u8]> {
        self.text.get(self.method.clone()?)
    }

    /// `:scheme`.
    pub(crate) fn scheme(&self) -> Option<&[u8]> {
        self.text.get(self.scheme.clone()?)
    }

    /// `:authority`.
    pub(crate) fn authority(&self) -> Option<&[u8]> {
        self.text.get(self.authority.clone()?)
    }

    /// `:path`.
    pub(crate) fn path(&self) -> Option<&[u8]> {
        self.text.get(self.path.clone()?)
    }

    /// How many fields there are beside the pseudo-fields.
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Names of those, and values as parts of `text`, a copy of this block's.
    pub(crate) fn fields_in<'a>(&'a self, text: &'a Bytes) -> impl Iterator<Item = (&'a [u8], Bytes)> {
        self.fields.iter().map(|field| {
            (self.text.get(field.start..field.name_end).unwrap_or_default(), text.slice(field.name_end..field.end))
        })
    }

    /// `:authority` as a part of such a copy.
    pub(crate) fn authority_in(&self, text: &Bytes) -> Option<Bytes> {
        Some(text.slice(self.authority.clone()?))
    }

    /// `:path` as a part of such a copy.
    pub(crate) fn path_in(&self, text: &Bytes) -> Option<Bytes> {
        Some(text.slice(self.path.clone()?))
    }

    /// Names and values.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| {
            let part = |range| self.text.get::<Range<usize>>(range).unwrap_or_default();
            (part(field.start..field.name_end), part(field.name_end..field.end))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (name, value, expected) in [
            (":method", "GET", Kind::Method),
            (":scheme", "https", Kind::Scheme),
            (":authority", "", Kind::Authority),
            (":path", "/", Kind::Path),
            (":status", "200", Kind::Malformed),
            (":protocol", "websocket", Kind::Malformed),
            (":", "", Kind::Malformed),
            ("accept", "*/*", Kind::Plain),
            ("te", "trailers", Kind::Plain),
            ("te", "gzip", Kind::Malformed),
            ("keep-alive", "", Kind::Malformed),
            ("connection", "close", Kind::Malformed),
            ("proxy-connection", "", Kind::Malformed),
            ("transfer-encoding", "chunked", Kind::Malformed),
            ("upgrade", "x", Kind::Malformed),
            ("cookie", "a=b", Kind::Other),
            ("x", "a\tb \u{e4}", Kind::Other),
            ("x", "", Kind::Other),
            ("X", "", Kind::Malformed),
            ("x y", "", Kind::Malformed),
            ("x:", "", Kind::Malformed),
            ("\u{e4}", "", Kind::Malformed),
            ("", "", Kind::Malformed),
            ("x", " a", Kind::Malformed),
            ("x", "a\t", Kind::Malformed),
            ("x", "a\rb", Kind::Malformed),
            ("x", "a\0", Kind::Malformed),
            ("x", "\u{7f}", Kind::Malformed),
            (":path", "/\n", Kind::Malformed),
        ] {
            assert_eq!(kind(name.as_bytes(), value.as_bytes()), expected, "{name}: {value:?}");
        }
    }

    fn block(fields: &[(&str, &str)]) -> Block {
        let mut block = Block::default();
        block.clear(1_000);
        for (name, value) in fields {
            let start = block.text.len();
            block.text.extend_from_slice(name.as_bytes());
            block.text.extend_from_slice(value.as_bytes());
            block.take(start, start + name.len(), kind(name.as_bytes(), value.as_bytes())).expect("small");
        }
        block
    }

    #[test]
    fn pseudo_fields_stand_once_and_first() {
        let good = block(&[(":path", "/a"), (":method", "GET"), ("accept", "x"), ("cookie", "y")]);
        assert!(!good.is_malformed(false) && good.is_malformed(true) && !good.is_plain());
        assert_eq!((good.path(), good.method(), good.scheme()), (Some(&b"/a"[..]), Some(&b"GET"[..]), None));
        assert_eq!(good.fields().collect::<Vec<_>>(), [(&b"accept"[..], &b"x"[..]), (b"cookie", b"y")]);
        assert!(block(&[(":path", "/"), (":path", "/")]).is_malformed(false));
        assert!(block(&[("accept", "x"), (":path", "/")]).is_malformed(false));
        assert!(!block(&[("accept", "x")]).is_malformed(true));
    }

    #[test]
    fn sizes_count_as_the_rfc_counts_them() {
        let mut block = Block::default();
        for (max, oversize) in [(102, false), (101, true)] {
            block.clear(max);
            for _ in 0..3 {
                let start = block.text.len();
                block.text.extend_from_slice(b"ab");
                block.take(start, start + 1, Kind::Other).expect("not much");
            }
            assert_eq!(block.is_oversize(), oversize, "{max}");
            assert_eq!(block.len(), if oversize { 2 } else { 3 });
        }
        block.clear(33);
        for count in 0..5 {
            block.text.push(b'a');
            let taken = block.take(0, 1, Kind::Other);
            block.text.clear();
            assert_eq!(taken, if count < BOMB { Ok(()) } else { Err(HpackError::Bomb) }, "{count}");
        }
    }
}

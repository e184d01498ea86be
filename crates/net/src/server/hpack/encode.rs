//! Encodes the fields of responses: indexes of the static table, literals, and the Huffman code where it is shorter. Nothing is
//! put into the client's table, so that there is nothing to be remembered, and an encoded block can be sent to anybody.

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION, SET_COOKIE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::table::STATIC;
use super::{huffman, push_integer};

/// At the beginning of a block: the table may be given up, for nothing is in it (RFC 7541 section 4.2).
pub(crate) const EMPTY_TABLE: u8 = 0x20;
/// The first index of the static table that is no pseudo-field of requests or responses.
const FIRST_FIELD: usize = 15;

/// How a literal is marked (sections 6.2.2 and 6.2.3).
const NOT_INDEXED: u8 = 0x00;
const NEVER_INDEXED: u8 = 0x10;

/// Appends `:status`.
pub(crate) fn status(block: &mut Vec<u8>, status: StatusCode) {
    let indexed = match status.as_u16() {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => {
            push_integer(block, NOT_INDEXED, 4, 8);
            return push_string(block, status.as_str().as_bytes());
        }
    };
    block.push(0x80 | indexed);
}

/// Appends all of these.
pub(crate) fn fields<'a>(block: &mut Vec<u8>, fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>) {
    for (name, value) in fields {
        let is_secret = value.is_sensitive() || [SET_COOKIE, AUTHORIZATION, PROXY_AUTHORIZATION].contains(name);
        push_name(block, if is_secret { NEVER_INDEXED } else { NOT_INDEXED }, name.as_str());
        push_string(block, value.as_bytes());
    }
}

/// Appends a field to a block of HPACK (RFC 7541 section 6.2.2), for who answers before requests are parsed
/// ([`crate::ReadyAnswers`]). `name` is in lower case.
pub fn field(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    push_name(block, NOT_INDEXED, name);
    push_string(block, value);
}

/// The same of a field with this name, up to where the bytes of its value follow as they are; there are `length` of them.
pub fn literal(block: &mut Vec<u8>, name: &str, length: usize) {
    push_name(block, NOT_INDEXED, name);
    push_integer(block, 0, 7, length);
}

fn push_name(block: &mut Vec<u8>, mark: u8, name: &str) {
    // A few dozens of comparisons, most of them of lengths only.
    let found = STATIC.iter().skip(FIRST_FIELD - 1).position(|(known, _)| *known == name);
    match found {
        Some(place) => push_integer(block, mark, 4, place + FIRST_FIELD),
        None => {
            block.push(mark);
            push_string(block, name.as_bytes());
        }
    }
}

fn push_string(block: &mut Vec<u8>, text: &[u8]) {
    let coded = huffman::length(text);
    if coded < text.len() {
        push_integer(block, 0x80, 7, coded);
        huffman::encode(text, block);
    } else {
        push_integer(block, 0, 7, text.len());
        block.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::hpack::Decoder;
    use crate::server::hpack::block::{self, Kind};
    use http::HeaderMap;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    #[test]
    fn statuses() {
        for (status, expected) in
            [(200, &[0x88][..]), (206, &[0x8a]), (500, &[0x8e]), (302, &[0x08, 0x82, 0x64, 0x02]), (431, &[0x08, 3])]
        {
            let mut block = Vec::new();
            super::status(&mut block, StatusCode::from_u16(status).expect("status"));
            assert!(block.starts_with(&expected[..2.min(expected.len())]), "{status}: {block:x?}");
        }
    }

    #[test]
    fn literals() {
        let mut block = Vec::new();
        field(&mut block, "age", b"7");
        field(&mut block, "x", b"\"\"");
        literal(&mut block, "server-timing", 3);
        block.extend_from_slice(b"abc");
        assert!(block.starts_with(&[0x0f, 21 - 15, 1, b'7', 0, 1, b'x', 2, b'"', b'"', 0]), "{block:x?}");
        let mut decoder = Decoder::default();
        decoder.decode(&block, 1_000).expect("a block");
        assert!(decoder.block().fields().eq([(&b"age"[..], &b"7"[..]), (b"x", b"\"\""), (b"server-timing", b"abc")]));
        let (mut block, mut fields) = (Vec::new(), HeaderMap::new());
        fields.insert(SET_COOKIE, HeaderValue::from_static("a"));
        super::fields(&mut block, &fields);
        assert_eq!(block, [0x1f, 55 - 15, 1, b'a']);
    }

    fn some_fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        let value = proptest::collection::vec(any::<u8>(), 0..40);
        proptest::collection::vec(("[a-z][a-z0-9-]{0,20}|age|etag|vary|server", value), 0..20)
    }

    proptest! {
        #[test]
        fn there_and_back(pairs in some_fields()) {
            let mut headers = HeaderMap::new();
            for (name, value) in &pairs {
                // The decoder is one for requests, which must not have everything.
                let is_field = matches!(block::kind(name.as_bytes(), value), Kind::Plain | Kind::Other);
                if let (true, Ok(name), Ok(value)) = (is_field, name.parse::<HeaderName>(), HeaderValue::from_bytes(value)) {
                    headers.append(name, value);
                }
            }
            let mut block = Vec::new();
            fields(&mut block, &headers);
            let mut decoder = Decoder::default();
            decoder.decode(&block, usize::MAX).expect("a block");
            prop_assert!(!decoder.block().is_oversize());
            let expected: Vec<_> = headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
            prop_assert_eq!(decoder.block().fields().collect::<Vec<_>>(), expected);
        }
    }
}

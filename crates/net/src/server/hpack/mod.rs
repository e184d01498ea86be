//! HPACK (RFC 7541): how HTTP/2 packs fields. Pure: bytes in, fields out, and the other way round.
//!
//! `huffman.rs` codes strings, `table.rs` has the static and the dynamic table, `block.rs` is what was decoded, `decode.rs`
//! decodes, `encode.rs` encodes. A decoder is for one connection, whose blocks it has to see all and in their order. The
//! encoder has no state: what changes from answer to answer is not worth a table that both sides keep.

mod block;
mod decode;
mod encode;
mod huffman;
mod table;

pub(crate) use block::Block;
pub(crate) use decode::Decoder;
pub(crate) use encode::{EMPTY_TABLE, fields, status};
pub use encode::{field, literal};

/// Bytes of the dynamic table of a client's fields (RFC 7541 section 4.1): what applies where nobody says anything else.
pub(crate) const TABLE_BYTES: usize = 4_096;

/// What is wrong with a block. After any of them the two sides no longer have the same table: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HpackError {
    #[error("a block of fields ends in the middle of a field")]
    Truncated,
    #[error("an integer in a block of fields is larger than any that could be meant there")]
    Integer,
    #[error("a string in a block of fields is not in HPACK's Huffman code, or not padded with ones")]
    Huffman,
    #[error("a block of fields refers to entry {0}, which its table does not have")]
    Index(usize),
    #[error("the table of fields is to have {0} bytes: it may have up to {TABLE_BYTES}")]
    TableSize(usize),
    #[error(
        "the size of the table changes behind a field, or a third time: it may change twice at the beginning of a block"
    )]
    TableSizeLate,
    #[error("the fields of a block are several times as large as what is taken")]
    Bomb,
}

/// Bytes of an integer behind its prefix: what 28 bits take.
const INTEGER_BYTES: u32 = 4;

/// Takes an integer whose first `prefix` bits stand in the first byte (section 5.1).
fn take_integer(input: &mut &[u8], prefix: u32) -> Result<usize, HpackError> {
    let (first, mut rest) = input.split_first().ok_or(HpackError::Truncated)?;
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        let mut more = true;
        let mut count = 0;
        while more {
            if count == INTEGER_BYTES {
                return Err(HpackError::Integer);
            }
            let (byte, after) = rest.split_first().ok_or(HpackError::Truncated)?;
            value += usize::from(byte & 0x7f) << (7 * count);
            more = byte & 0x80 != 0;
            count += 1;
            rest = after;
        }
    }
    *input = rest;
    Ok(value)
}

/// Appends an integer; `first` has the bits before its prefix.
fn push_integer(out: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let most = (1_usize << prefix) - 1;
    let low = |value: usize| u8::try_from(value & 0x7f).unwrap_or(0);
    if value < most {
        out.push(first | low(value));
        return;
    }
    out.push(first | u8::try_from(most).unwrap_or(u8::MAX));
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(0x80 | low(rest));
        rest >>= 7;
    }
    out.push(low(rest));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        // The examples of section C.1, and the edges.
        for (value, prefix, bytes) in [
            (10, 5, &[10][..]),
            (1337, 5, &[31, 0x9a, 0x0a]),
            (42, 7, &[42]),
            (126, 7, &[126]),
            (127, 7, &[127, 0]),
            (254, 7, &[127, 127]),
            (255, 7, &[127, 0x80, 1]),
            ((1 << 28) + 126, 7, &[127, 0xff, 0xff, 0xff, 0x7f]),
        ] {
            let mut out = Vec::new();
            push_integer(&mut out, 0, prefix, value);
            assert_eq!(out, bytes, "{value}");
            let mut input = bytes;
            assert_eq!((take_integer(&mut input, prefix), input.len()), (Ok(value), 0), "{value}");
        }
        for (bytes, error) in [
            (&[][..], HpackError::Truncated),
            (&[31], HpackError::Truncated),
            (&[31, 0x80], HpackError::Truncated),
            (&[31, 0x80, 0x80, 0x80, 0x80, 0], HpackError::Integer),
        ] {
            assert_eq!(take_integer(&mut &*bytes, 5), Err(error), "{bytes:?}");
        }
    }
}

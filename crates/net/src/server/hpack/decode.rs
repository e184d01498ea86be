//! Decodes blocks of fields (RFC 7541 sections 3 and 6).

use super::block::{self, Block};
use super::table::Table;
use super::{HpackError, huffman, take_integer};

/// Changes of the table's size at the beginning of a block (section 4.2).
const RESIZES: u32 = 2;

/// What decodes the blocks of one connection.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    table: Table,
    block: Block,
}

impl Decoder {
    /// What was decoded last.
    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// Decodes a whole block, of which fields that count `max` bytes (RFC 9113 section 6.5.2) are kept.
    ///
    /// # Errors
    /// What is wrong with it. What its requests are then nobody knows any more.
    pub(crate) fn decode(&mut self, mut input: &[u8], max: usize) -> Result<(), HpackError> {
        let Self { table, block } = self;
        block.clear(max);
        let (mut resizes, mut begun) = (0, false);
        while let Some(&first) = input.first() {
            if first & 0xe0 == 0x20 {
                if begun || resizes == RESIZES {
                    return Err(HpackError::TableSizeLate);
                }
                resizes += 1;
                table.resize(take_integer(&mut input, 5)?)?;
                continue;
            }
            begun = true;
            let start = block.text.len();
            if first & 0x80 != 0 {
                let (name, value, kind) = table.get(take_integer(&mut input, 7)?)?;
                block.text.extend_from_slice(name);
                block.text.extend_from_slice(value);
                block.take(start, start + name.len(), kind)?;
                continue;
            }
            let (is_kept, prefix) = if first & 0x40 != 0 { (true, 6) } else { (false, 4) };
            match take_integer(&mut input, prefix)? {
                0 => take_string(&mut input, &mut block.text)?,
                index => block.text.extend_from_slice(table.get(index)?.0),
            }
            let name_end = block.text.len();
            take_string(&mut input, &mut block.text)?;
            let name = block.text.get(start..name_end).unwrap_or_default();
            let value = block.text.get(name_end..).unwrap_or_default();
            let kind = block::kind(name, value);
            if is_kept {
                table.insert(name, value, kind);
            }
            block.take(start, name_end, kind)?;
        }
        Ok(())
    }
}

/// Takes a string (section 5.2) and appends what it says.
fn take_string(input: &mut &[u8], text: &mut Vec<u8>) -> Result<(), HpackError> {
    let coded = input.first().is_some_and(|first| first & 0x80 != 0);
    let length = take_integer(input, 7)?;
    let (string, rest) = input.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *input = rest;
    if coded {
        return huffman::decode(string, text);
    }
    text.extend_from_slice(string);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::hpack::TABLE_BYTES;
    use proptest::prelude::{any, prop_assert, proptest};

    /// Pseudo-fields in this order, then the others.
    fn decode(decoder: &mut Decoder, input: &[u8]) -> Result<String, HpackError> {
        decoder.decode(input, 1 << 16)?;
        let block = decoder.block();
        let mut text = String::new();
        for part in [block.method(), block.scheme(), block.path(), block.authority()] {
            text += std::str::from_utf8(part.unwrap_or_default()).expect("text");
            text += " ";
        }
        for (name, value) in block.fields() {
            text += &format!("{}={} ", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        }
        Ok(text)
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let hex = hex.replace(' ', "");
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    }

    /// Sections C.3 and C.4: three requests on a connection, without and with the Huffman code.
    #[test]
    fn the_examples_of_the_rfc() {
        for requests in [
            [
                "828684410f7777772e6578616d706c652e636f6d",
                "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ],
            [
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ],
        ] {
            let mut decoder = Decoder::default();
            for (request, expected) in requests.into_iter().zip([
                "GET http / www.example.com ",
                "GET http / www.example.com cache-control=no-cache ",
                "GET https /index.html www.example.com custom-key=custom-value ",
            ]) {
                assert_eq!(decode(&mut decoder, &bytes(request)).as_deref(), Ok(expected));
            }
        }
        // Section C.2: kept, not kept, never to be kept, indexed.
        let mut decoder = Decoder::default();
        for (field, expected) in [
            ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", "    custom-key=custom-header "),
            ("040c2f73616d706c652f70617468", "  /sample/path  "),
            ("100870617373776f726406736563726574", "    password=secret "),
            ("82", "GET    "),
            ("be", "    custom-key=custom-header "),
        ] {
            assert_eq!(decode(&mut decoder, &bytes(field)).as_deref(), Ok(expected), "{field}");
        }
        assert_eq!(decode(&mut decoder, &[0xbf]), Err(HpackError::Index(63)));
    }

    #[test]
    fn what_is_wrong() {
        for (hex, error) in [
            ("80", HpackError::Index(0)),
            ("be", HpackError::Index(62)),
            ("7e01", HpackError::Index(62)),
            ("ffffffffffff", HpackError::Integer),
            ("40", HpackError::Truncated),
            ("4001", HpackError::Truncated),
            ("400161", HpackError::Truncated),
            ("4001617f", HpackError::Truncated),
            ("40016105", HpackError::Truncated),
            ("40016181ff", HpackError::Huffman),
            ("3fe21f", HpackError::TableSize(TABLE_BYTES + 1)),
            ("8220", HpackError::TableSizeLate),
            ("202020", HpackError::TableSizeLate),
        ] {
            assert_eq!(decode(&mut Decoder::default(), &bytes(hex)), Err(error), "{hex}");
        }
    }

    #[test]
    fn the_size_of_the_table_follows_the_client() {
        let mut decoder = Decoder::default();
        decode(&mut decoder, &bytes("4001610162")).expect("kept");
        assert_eq!(decode(&mut decoder, &bytes("be")).as_deref(), Ok("    a=b "));
        // To nothing and back: it is gone.
        assert_eq!(decode(&mut decoder, &bytes("203fe11fbe")), Err(HpackError::Index(62)));
        decode(&mut decoder, &bytes("3fe11f4001610162")).expect("as large as allowed");
    }

    #[test]
    fn what_is_too_large_still_teaches_the_table() {
        let mut decoder = Decoder::default();
        let field = [&[0x40, 1, b'a', 100][..], &[b'x'; 100]].concat();
        decoder.decode(&field, 40).expect("decoded");
        assert!(decoder.block().is_oversize() && decoder.block().len() == 0);
        decoder.decode(&[0xbe], 200).expect("decoded");
        assert_eq!(decoder.block().fields().next().map(|(_, value)| value.len()), Some(100));
        // One byte for each hundred: a bomb.
        assert_eq!(decoder.decode(&[0xbe; 100], 1_000), Err(HpackError::Bomb));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_grows(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8)) {
            let mut decoder = Decoder::default();
            for block in blocks {
                if decoder.decode(&block, 500).is_err() {
                    break;
                }
                prop_assert!(decoder.block().text().len() <= 500);
            }
        }
    }
}

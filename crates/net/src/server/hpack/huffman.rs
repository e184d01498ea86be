//! The Huffman code of strings (RFC 7541 section 5.2, appendix B).
//!
//! The code is a canonical one, so the lengths say all of it: codes of one length follow each other in the order of what
//! they stand for. What texts mostly consist of is decoded with one look into a table; the rest by length.

use super::HpackError;

/// Bits of the code of each byte, and of the end of a string (RFC 7541 appendix B).
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];
/// What stands for the end of a string, and in no string.
const END: usize = 256;
/// Bits of the longest code.
const LONGEST: usize = 30;
/// Bits of the codes that are found with one look.
const SHORT_BITS: usize = 10;

struct Code {
    codes: [u32; 257],
    /// What the codes stand for, in their order.
    sorted: [u16; 257],
    /// For each length: its first code, where that stands in `sorted`, and how many there are.
    first: [u32; LONGEST + 1],
    index: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    /// For the next bits: a byte, and the length of its code; 0 where that is longer.
    short: [(u8, u8); 1 << SHORT_BITS],
}

static CODE: Code = code();

#[expect(clippy::indexing_slicing, reason = "runs when this is compiled, where no index can be wrong unseen")]
const fn code() -> Code {
    let mut made = Code {
        codes: [0; 257],
        sorted: [0; 257],
        first: [0; LONGEST + 1],
        index: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        short: [(0, 0); 1 << SHORT_BITS],
    };
    let (mut next, mut at, mut length) = (0_u32, 0_usize, 1);
    while length <= LONGEST {
        next <<= 1;
        made.first[length] = next;
        made.index[length] = at as u32;
        let mut symbol = 0;
        while symbol <= END {
            if LENGTHS[symbol] as usize == length {
                made.codes[symbol] = next;
                made.sorted[at] = symbol as u16;
                made.count[length] += 1;
                if length <= SHORT_BITS {
                    let spare = SHORT_BITS - length;
                    let mut rest = 0;
                    while rest < 1 << spare {
                        made.short[((next as usize) << spare) + rest] = (symbol as u8, length as u8);
                        rest += 1;
                    }
                }
                at += 1;
                next += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    made
}

/// Appends what `input` stands for.
///
/// # Errors
/// [`HpackError::Huffman`]: it holds the end of a string, or does not end with fewer than eight ones.
pub(crate) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let mut input = input.iter();
    // The next bits, from the highest on, and how many of them.
    let (mut window, mut have) = (0_u64, 0_u32);
    loop {
        while have <= 56
            && let Some(byte) = input.next()
        {
            window |= u64::from(*byte) << (56 - have);
            have += 8;
        }
        let next = usize::try_from(window >> (64 - SHORT_BITS)).unwrap_or(0);
        let (byte, length) = match CODE.short.get(next) {
            Some((byte, length)) if *length > 0 => (Some(*byte), u32::from(*length)),
            _ => long(window),
        };
        if length > have {
            let padded = have < 8 && window.leading_ones() >= have;
            return if padded { Ok(()) } else { Err(HpackError::Huffman) };
        }
        out.push(byte.ok_or(HpackError::Huffman)?);
        window <<= length;
        have -= length;
    }
}

/// What the code at the beginning of `window` stands for, and its length. Nothing: the end of a string.
#[cold]
fn long(window: u64) -> (Option<u8>, u32) {
    let lengths = CODE.first.iter().zip(&CODE.index).zip(&CODE.count);
    for (length, ((first, index), count)) in (0_u32..).zip(lengths).skip(SHORT_BITS + 1) {
        let code = u32::try_from(window >> (64 - length)).unwrap_or(u32::MAX);
        if let Some(place) = code.checked_sub(*first).filter(|place| place < count) {
            let symbol = CODE.sorted.get((index + place) as usize);
            return (symbol.and_then(|symbol| u8::try_from(*symbol).ok()), length);
        }
    }
    (None, 0)
}

/// Bytes of `text` in the code.
pub(crate) fn length(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| usize::from(*LENGTHS.get(usize::from(byte)).unwrap_or(&0))).sum();
    bits.div_ceil(8)
}

/// Appends `text` in the code.
pub(crate) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut window, mut have) = (0_u64, 0_u32);
    let low = |bits: u64| u8::try_from(bits & 0xff).unwrap_or(0);
    for &byte in text {
        let symbol = usize::from(byte);
        let (Some(code), Some(length)) = (CODE.codes.get(symbol), LENGTHS.get(symbol)) else { continue };
        window = window << *length | u64::from(*code);
        have += u32::from(*length);
        while have >= 8 {
            have -= 8;
            out.push(low(window >> have));
        }
    }
    if have > 0 {
        out.push(low(window << (8 - have) | 0xff >> have));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    fn decoded(input: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        for (text, code) in [
            ("www.example.com", &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..]),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("custom-key", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f]),
            ("302", &[0x64, 0x02]),
            ("", &[]),
        ] {
            let mut out = Vec::new();
            encode(text.as_bytes(), &mut out);
            assert_eq!((out.as_slice(), length(text.as_bytes())), (code, code.len()), "{text}");
            assert_eq!(decoded(code).as_deref(), Ok(text.as_bytes()));
        }
    }

    #[test]
    fn codes_are_those_of_the_appendix() {
        for (symbol, code) in
            [(b'0', 0), (b'a', 3), (b' ', 0x14), (b'?', 0x3fc), (0, 0x1ff8), (9, 0xff_ffea), (255, 0x3ff_ffee)]
        {
            assert_eq!(CODE.codes[usize::from(symbol)], code, "{symbol}");
        }
        assert_eq!(CODE.codes[END], 0x3fff_ffff);
    }

    #[test]
    fn padding_is_of_ones_and_short() {
        assert_eq!(decoded(&[0b0000_0111]).as_deref(), Ok(&b"0"[..]));
        for bad in [&[0b0000_0110][..], &[0b0000_0000], &[0xff], &[0b0000_0111, 0xff], &[0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(decoded(bad), Err(HpackError::Huffman), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(text: Vec<u8>) {
            let mut code = Vec::new();
            encode(&text, &mut code);
            prop_assert_eq!(code.len(), length(&text));
            prop_assert_eq!(decoded(&code), Ok(text));
        }

        #[test]
        fn what_is_decoded_is_encoded_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(text) = decoded(&bytes) {
                let mut code = Vec::new();
                encode(&text, &mut code);
                prop_assert_eq!(code, bytes);
            }
        }
    }
}

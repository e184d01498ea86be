//! Slices and the proof that each of them belongs to a body, as pure functions for whoever stores or fetches bodies.
//!
//! A body is cut into slices of [`SLICE_BYTES`]; the last may be short and an empty body has none. BLAKE3 is a tree over
//! chunks of 1 KiB, so a slice of 1 MiB at an offset of n MiB is a whole subtree with a *chaining value* of 32 bytes
//! (`blake3::hazmat`). The chaining values of all slices, merged pairwise up to the root, give exactly the digest that
//! `b3sum` prints: whoever has that list and the digest can prove every slice by itself.
//!
//! A body of at most one slice has no list: its slice hashes to the digest directly.

use std::ops::Range;

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::SLICE_BYTES;
use crate::names::Digest;

/// The hash of a slice as a subtree of its body: not the root, so not comparable with a [`Digest`].
pub type ChainingValue = [u8; 32];

/// Length of a [`ChainingValue`] in bytes.
pub const CHAINING_VALUE_BYTES: usize = 32;

/// How many slices a body of `size` bytes has. An empty body has none.
pub fn slice_count(size: u64) -> u64 {
    size.div_ceil(SLICE_BYTES)
}

/// How many chaining values prove a body of `size` bytes: one per slice, and none for at most one slice.
pub fn value_count(size: u64) -> u64 {
    match slice_count(size) {
        0 | 1 => 0,
        many => many,
    }
}

/// Which bytes of a body of `size` bytes slice `index` holds; an empty range at its end when it has no such slice.
pub fn slice_range(size: u64, index: u64) -> Range<u64> {
    let start = index.saturating_mul(SLICE_BYTES).min(size);
    start..start.saturating_add(SLICE_BYTES).min(size)
}

/// The chaining value of the slice `index`. Nothing for what is not a slice: no bytes, or more than [`SLICE_BYTES`].
pub fn chaining_value(index: u64, bytes: &[u8]) -> Option<ChainingValue> {
    if bytes.is_empty() || bytes.len() as u64 > SLICE_BYTES {
        return None;
    }
    let offset = index.checked_mul(SLICE_BYTES)?;
    Some(blake3::Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root())
}

/// The digest of the body whose slices have these chaining values, in order. Nothing for fewer than two of them: the
/// root of one subtree alone cannot be told from its chaining value.
pub fn merge(values: &[ChainingValue]) -> Option<Digest> {
    if values.len() < 2 {
        return None;
    }
    let (left, right) = values.split_at(left_len(values.len()));
    Some(Digest(*merge_subtrees_root(&subtree(left)?, &subtree(right)?, Mode::Hash).as_bytes()))
}

/// The chaining values of the body `digest` of `size` bytes from their concatenation, as it is stored and sent.
/// Nothing when their number does not fit the size or when they do not merge to the digest.
pub fn parse_values(digest: Digest, size: u64, raw: &[u8]) -> Option<Vec<ChainingValue>> {
    let (values, rest) = raw.as_chunks::<CHAINING_VALUE_BYTES>();
    if !rest.is_empty() || values.len() as u64 != value_count(size) {
        return None;
    }
    if !values.is_empty() && merge(values) != Some(digest) {
        return None;
    }
    Some(values.to_vec())
}

/// Whether `bytes` are the slice `index` of the body `digest` of `size` bytes. `values` comes from [`parse_values`] or
/// was checked with [`merge`]; it is not looked at when the body has at most one slice.
pub fn verify(digest: Digest, size: u64, values: &[ChainingValue], index: u64, bytes: &[u8]) -> bool {
    let range = slice_range(size, index);
    if bytes.len() as u64 != range.end - range.start || index >= slice_count(size).max(1) {
        return false;
    }
    if size <= SLICE_BYTES {
        return Digest::of(bytes) == digest;
    }
    let expected = usize::try_from(index).ok().and_then(|index| values.get(index));
    expected.is_some_and(|expected| chaining_value(index, bytes).as_ref() == Some(expected))
}

/// BLAKE3's tree is left-balanced: of `count` slices (at least two), the left subtree takes the largest power of two
/// that leaves something for the right one.
fn left_len(count: usize) -> usize {
    count.next_power_of_two() / 2
}

/// Merges one or more chaining values below the root. Recursion ends after log2 of their number.
fn subtree(values: &[ChainingValue]) -> Option<ChainingValue> {
    match values {
        [] => None,
        [one] => Some(*one),
        many => {
            let (left, right) = many.split_at(left_len(many.len()));
            Some(merge_subtrees_non_root(&subtree(left)?, &subtree(right)?, Mode::Hash))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(size: u64) -> Vec<u8> {
        (0..size).map(|at| (at.wrapping_mul(31) ^ (at >> 10) ^ (at >> 20)) as u8).collect()
    }

    fn values(body: &[u8]) -> Vec<ChainingValue> {
        let slices = body.chunks(SLICE_BYTES as usize);
        (0..).zip(slices).map(|(index, slice)| chaining_value(index, slice).expect("a slice")).collect()
    }

    #[test]
    fn merged_values_are_the_digest_for_every_shape_of_tree() {
        let s = SLICE_BYTES;
        for size in [0, 1, 1 << 10, s - 1, s, s + 1, 2 * s, 2 * s + 1, 3 * s, 4 * s, 5 * s + s / 2, 7 * s + 5, 17 * s] {
            let body = body(size);
            let digest = Digest::of(&body);
            let values = values(&body);
            assert_eq!(values.len() as u64, slice_count(size), "{size}");
            if values.len() < 2 {
                assert_eq!(merge(&values), None, "{size}");
                assert_eq!(parse_values(digest, size, &[]), Some(vec![]), "{size}");
                assert!(verify(digest, size, &[], 0, &body), "{size}");
                continue;
            }
            assert_eq!(merge(&values), Some(digest), "{size}");
            let raw = values.concat();
            assert_eq!(parse_values(digest, size, &raw).as_ref(), Some(&values), "{size}");
            for (index, slice) in (0..).zip(body.chunks(s as usize)) {
                assert!(verify(digest, size, &values, index, slice), "{size} {index}");
                let range = slice_range(size, index);
                assert_eq!(&body[range.start as usize..range.end as usize], slice);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let size = 3 * SLICE_BYTES + 7;
        let body = body(size);
        let digest = Digest::of(&body);
        let good = values(&body);
        let raw = good.concat();

        let mut flipped = raw.clone();
        flipped[40] ^= 1;
        let refused = [
            ("a flipped bit", size, flipped.as_slice()),
            ("cut", size, &raw[..raw.len() - 1]),
            ("one missing", size, &raw[..raw.len() - 32]),
            ("another size", size + SLICE_BYTES, &raw),
            ("a list for one slice", 5, &raw[..32]),
        ];
        for (why, size, raw) in refused {
            assert_eq!(parse_values(digest, size, raw), None, "{why}");
        }

        let first = &body[..SLICE_BYTES as usize];
        let last = &body[3 * SLICE_BYTES as usize..];
        assert!(!verify(digest, size, &good, 1, first), "at another index");
        assert!(!verify(digest, size, &good, 0, &first[1..]), "short");
        assert!(!verify(digest, size, &good, 3, first), "long");
        assert!(!verify(digest, size, &good, 4, &[]), "no such slice");
        assert!(!verify(digest, size, &good[..3], 3, last), "no value for it");
        let mut bad = last.to_vec();
        bad[0] ^= 1;
        assert!(!verify(digest, size, &good, 3, &bad), "a flipped bit");
        assert!(!verify(Digest::of(b"x"), 0, &[], 0, &[]), "an empty body has one digest");

        assert_eq!(chaining_value(0, &[]), None);
        assert_eq!(chaining_value(0, &vec![0; SLICE_BYTES as usize + 1]), None);
        assert_eq!(chaining_value(u64::MAX, &[1]), None);
        assert_eq!(slice_range(10, u64::MAX), 10..10);
    }
}

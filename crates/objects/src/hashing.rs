//! Hashing a body part by part while it is written: BLAKE3 slice by slice, and SHA-2 where it was asked for.

use api::Digest;
use api::slices::{ChainingValue, chaining_value, merge};
use sha2::{Digest as _, Sha256, Sha512};

/// Which digests a body needs besides BLAKE3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// SHA-256.
    pub sha256: bool,
    /// SHA-512.
    pub sha512: bool,
}

/// The hashes of a body so far. Every part but the last is a whole number of slices.
#[derive(Debug)]
pub(crate) struct Hashes {
    values: Vec<ChainingValue>,
    /// The digest of a body that has ended within its first slice.
    whole: Digest,
    sha256: Option<Sha256>,
    sha512: Option<Sha512>,
}

/// The hashes of a whole body.
#[derive(Debug)]
pub(crate) struct Hashed {
    pub(crate) digest: Digest,
    /// One per slice; none when there is at most one slice.
    pub(crate) values: Vec<ChainingValue>,
    pub(crate) sha256: Option<[u8; 32]>,
    pub(crate) sha512: Option<[u8; 64]>,
}

impl Hashes {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            values: Vec::new(),
            whole: Digest::of(&[]),
            sha256: wanted.sha256.then(Sha256::new),
            sha512: wanted.sha512.then(Sha512::new),
        }
    }

    pub(crate) fn update(&mut self, part: &[u8]) {
        for slice in part.chunks(api::SLICE_BYTES as usize) {
            let index = self.values.len() as u64;
            if index == 0 && part.len() == slice.len() {
                self.whole = Digest::of(slice);
            }
            // There is no value only for an empty or too long slice, which `chunks` does not make.
            self.values.extend(chaining_value(index, slice));
        }
        if let Some(sha) = &mut self.sha256 {
            sha.update(part);
        }
        if let Some(sha) = &mut self.sha512 {
            sha.update(part);
        }
    }

    pub(crate) fn finish(self) -> Hashed {
        let sha256 = self.sha256.map(|sha| sha.finalize().into());
        let sha512 = self.sha512.map(|sha| sha.finalize().into());
        match merge(&self.values) {
            Some(digest) => Hashed { digest, values: self.values, sha256, sha512 },
            None => Hashed { digest: self.whole, values: Vec::new(), sha256, sha512 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hash_like_the_whole() {
        let part = 2 * api::SLICE_BYTES as usize;
        for size in [0, 1, 1_000_000, part / 2, part / 2 + 1, part, part + 1, 3 * part, 3 * part + 5] {
            let body: Vec<u8> = (0..size).map(|at| (at * 7 + (at >> 12)) as u8).collect();
            let mut hashes = Hashes::new(Wanted { sha256: true, sha512: true });
            for part in body.chunks(part) {
                hashes.update(part);
            }
            let hashed = hashes.finish();
            assert_eq!(hashed.digest, Digest::of(&body), "{size}");
            assert_eq!(hashed.values.len() as u64, api::slices::value_count(size as u64), "{size}");
            assert_eq!(hashed.sha256, Some(Sha256::digest(&body).into()), "{size}");
            assert_eq!(hashed.sha512, Some(Sha512::digest(&body).into()), "{size}");
        }
        assert_eq!(Hashes::new(Wanted::default()).finish().sha256, None);
    }
}

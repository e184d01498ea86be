//! The file of an entry, byte by byte: format version 1.
//!
//! One file holds one entry and says everything about it, so that an index can be made from the files alone. Numbers are
//! little-endian. A file is named `<three hex digits>/<key hash, 32 hex digits>-<nonce, 16 hex digits>`; the three
//! digits are the first of the key hash. The nonce is drawn for each file, and is never used twice.
//!
//! ```text
//!   at  bytes  what
//!    0      8  magic: "LITSHELF"
//!    8      4  format version: 1
//!   12      4  head bytes: where the head ends; a multiple of 8
//!   16     16  key hash, the same as in the name
//!   32      8  nonce, the same as in the name
//!   40      8  length of the body in bytes; all ones while it is not known
//!   48      8  when the entry was stored: Unix time in milliseconds
//!   56      4  when it stops being of any use: Unix time in seconds; 0 = never
//!   60      4  places in the slice table; 0 = the body follows the head
//!   64      4  bytes of the key
//!   68      4  bytes of the meta
//!   72     32  stamp of the caller
//!  104     16  digest of the body, where it follows the head; else 0
//!  120     16  digest of the head: of all head bytes, these sixteen taken as 0
//!  136      …  key, then meta, then zeros up to the head bytes (room for a longer meta)
//! ```
//!
//! - **Without a slice table** (a body of at most one slice) the body follows the head and the file ends with it.
//! - **With one** the table follows the head. A place has 24 bytes: digest of the slice (16), bytes of the slice (4),
//!   check (4). In a place whose slice is absent, digest and bytes are 0; the check never is left out. Zeros fill the
//!   table up to a multiple of 4096, where slice 0 begins; slice `i` begins `i` MiB later. A file whose length is known
//!   has exactly that size, with holes for what is absent.
//!
//! Digests are XXH3-128, seeded with a hash of key hash, nonce and what they are of (head, body, table or the number of
//! the slice), so that bytes of another file, another version of the same key or another place never pass. The check of
//! a place is the low half of XXH3-64 over number, digest and bytes, seeded in the same way: a damaged place is told
//! from an absent slice. XXH3 finds accidents; it is no defence against somebody who can write to the folder.

use bytes::Bytes;
use thiserror::Error;
use twox_hash::{XxHash3_64, XxHash3_128};

/// Bytes of a slice: of every slice of a body but its last, which may be shorter.
pub const SLICE_BYTES: u64 = 1 << 20;
/// The unit in which file systems give out space, in bytes.
pub const BLOCK_BYTES: u64 = 4096;
/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 64 << 10;
/// The longest meta, in bytes.
pub const MAX_META_BYTES: usize = 512 << 10;
/// The longest body, in bytes: 64 GiB, a slice table of 1.5 MiB.
pub const MAX_LENGTH_BYTES: u64 = 64 << 30;
/// Bytes of the caller's stamp.
pub const STAMP_BYTES: usize = 32;
/// Bytes before the key.
pub(crate) const FIXED_BYTES: usize = 136;
/// Bytes of a place in the slice table.
pub(crate) const PLACE_BYTES: u64 = 24;
/// Room that a head keeps so that its meta may grow in place, in bytes,
const SPARE_BYTES: usize = 128;
/// and where a slice table follows: what is large is not given up for a few more fields.
pub(crate) const LARGE_SPARE_BYTES: usize = 8 << 10;
/// The longest head, in bytes.
pub(crate) const MAX_HEAD_BYTES: usize = FIXED_BYTES + MAX_KEY_BYTES + MAX_META_BYTES + LARGE_SPARE_BYTES + 8;
const MAGIC: &[u8; 8] = b"LITSHELF";
const VERSION: u32 = 1;
const LENGTH_UNKNOWN: u64 = u64::MAX;
const HEAD_DIGEST_AT: usize = 120;

/// The hash of a key, made by the caller. Several entries may have the same key: variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub u128);

/// What was wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Flaw {
    /// The file is not there, though the index has it and its folder is there.
    #[error("the file is missing")]
    Missing,
    /// It does not begin as a file of format version 1 does.
    #[error("not a file of format version 1")]
    Format,
    /// The head's digest, or a number in it, is wrong.
    #[error("the head is damaged")]
    Head,
    /// The file is shorter or longer than its head says.
    #[error("the file has another length than its head says")]
    Length,
    /// The head belongs under another name.
    #[error("the file is another's")]
    Swapped,
    /// A place in the slice table is damaged.
    #[error("the slice table is damaged")]
    Table,
    /// A slice does not have its digest.
    #[error("a slice is damaged")]
    Slice,
    /// The snapshot of the index does not have its digest, or is of another version.
    #[error("the index is damaged")]
    Index,
}

impl Flaw {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 8] =
        [Self::Missing, Self::Format, Self::Head, Self::Length, Self::Swapped, Self::Table, Self::Slice, Self::Index];

    /// One word, for a metric's label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Format => "format",
            Self::Head => "head",
            Self::Length => "length",
            Self::Swapped => "swapped",
            Self::Table => "table",
            Self::Slice => "slice",
            Self::Index => "index",
        }
    }
}

/// Which file: what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) key_hash: KeyHash,
    pub(crate) nonce: u64,
}

/// What a digest is of.
#[derive(Debug, Clone, Copy)]
enum Part {
    Head,
    Body,
    Place(u32),
    Slice(u32),
}

impl Name {
    /// The file name, without its folder.
    pub(crate) fn file_name(self) -> String {
        format!("{:032x}-{:016x}", self.key_hash.0, self.nonce)
    }

    /// What [`Self::file_name`] has written, and nothing else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (hash, nonce) = text.split_once('-')?;
        if hash.len() != 32 || nonce.len() != 16 {
            return None;
        }
        let name = Self {
            key_hash: KeyHash(u128::from_str_radix(hash, 16).ok()?),
            nonce: u64::from_str_radix(nonce, 16).ok()?,
        };
        (name.file_name() == text).then_some(name)
    }

    fn seed(self, part: Part) -> u64 {
        let (kind, number) = match part {
            Part::Head => (1, 0),
            Part::Body => (2, 0),
            Part::Place(number) => (3, number),
            Part::Slice(number) => (4, number),
        };
        let mut bytes = [0; 36];
        put(&mut bytes, 0, &self.key_hash.0.to_le_bytes());
        put(&mut bytes, 16, &self.nonce.to_le_bytes());
        put(&mut bytes, 24, &VERSION.to_le_bytes());
        put(&mut bytes, 28, &u32::to_le_bytes(kind));
        put(&mut bytes, 32, &number.to_le_bytes());
        XxHash3_64::oneshot(&bytes)
    }

    fn digest<'a>(self, part: Part, chunks: impl IntoIterator<Item = &'a [u8]>) -> u128 {
        let mut hasher = XxHash3_128::with_seed(self.seed(part));
        chunks.into_iter().for_each(|chunk| hasher.write(chunk));
        hasher.finish_128()
    }

    /// The digest of a body that follows its head.
    pub(crate) fn body_digest<'a>(self, chunks: impl IntoIterator<Item = &'a [u8]>) -> u128 {
        self.digest(Part::Body, chunks)
    }

    /// The digest of a slice.
    pub(crate) fn slice_digest<'a>(self, number: u32, chunks: impl IntoIterator<Item = &'a [u8]>) -> u128 {
        self.digest(Part::Slice(number), chunks)
    }
}

/// A place in the slice table: of a slice that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) digest: u128,
    pub(crate) bytes: u32,
}

impl Place {
    /// The bytes of a place; `None` is a slice that is absent.
    pub(crate) fn encode(place: Option<Self>, name: Name, number: u32) -> [u8; PLACE_BYTES as usize] {
        let Self { digest, bytes } = place.unwrap_or(Self { digest: 0, bytes: 0 });
        let mut out = [0; PLACE_BYTES as usize];
        put(&mut out, 0, &digest.to_le_bytes());
        put(&mut out, 16, &bytes.to_le_bytes());
        let check = XxHash3_64::oneshot_with_seed(name.seed(Part::Place(number)), out.get(..20).unwrap_or_default());
        put(&mut out, 20, &(check as u32).to_le_bytes());
        out
    }

    /// What [`Self::encode`] has made.
    pub(crate) fn decode(bytes: &[u8], name: Name, number: u32) -> Result<Option<Self>, Flaw> {
        let place = Self {
            digest: u128::from_le_bytes(array(bytes, 0).ok_or(Flaw::Table)?),
            bytes: u32::from_le_bytes(array(bytes, 16).ok_or(Flaw::Table)?),
        };
        let place = (place != Self { digest: 0, bytes: 0 }).then_some(place);
        if Self::encode(place, name, number) != bytes || place.is_some_and(|place| u64::from(place.bytes) > SLICE_BYTES)
        {
            return Err(Flaw::Table);
        }
        Ok(place)
    }
}

/// The head of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: Name,
    pub(crate) length: Option<u64>,
    pub(crate) stored_ms: u64,
    pub(crate) expires_s: Option<u32>,
    /// Places in the slice table; 0 = the body follows the head.
    pub(crate) places: u32,
    pub(crate) stamp: [u8; STAMP_BYTES],
    pub(crate) body_digest: u128,
    pub(crate) key: Bytes,
    pub(crate) meta: Bytes,
    /// Where the head ends.
    pub(crate) head_bytes: u32,
}

impl Header {
    /// The bytes that a head with such a key and meta gets, room to grow in place included. `places`: of the slice table.
    pub(crate) fn room(key: &[u8], meta: &[u8], places: u32) -> u32 {
        let spare = if places > 0 { LARGE_SPARE_BYTES } else { SPARE_BYTES };
        (FIXED_BYTES + key.len() + meta.len() + spare).next_multiple_of(8) as u32
    }

    /// Whether key and meta fit into the head bytes.
    pub(crate) fn fits(&self) -> bool {
        FIXED_BYTES + self.key.len() + self.meta.len() <= self.head_bytes as usize
    }

    /// Exactly the head bytes. The caller has made sure that everything fits.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.head_bytes as usize);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(self.head_bytes.to_le_bytes());
        out.extend(self.name.key_hash.0.to_le_bytes());
        out.extend(self.name.nonce.to_le_bytes());
        out.extend(self.length.unwrap_or(LENGTH_UNKNOWN).to_le_bytes());
        out.extend(self.stored_ms.to_le_bytes());
        out.extend(self.expires_s.unwrap_or(0).to_le_bytes());
        out.extend(self.places.to_le_bytes());
        out.extend((self.key.len() as u32).to_le_bytes());
        out.extend((self.meta.len() as u32).to_le_bytes());
        out.extend(self.stamp);
        out.extend(self.body_digest.to_le_bytes());
        out.extend([0; 16]);
        out.extend(&self.key);
        out.extend(&self.meta);
        out.resize(self.head_bytes as usize, 0);
        let digest = self.name.digest(Part::Head, [out.as_slice()]);
        put(&mut out, HEAD_DIGEST_AT, &digest.to_le_bytes());
        out
    }

    /// How many bytes the head has, told from its first [`FIXED_BYTES`] and not yet proved.
    pub(crate) fn head_bytes(fixed: &[u8]) -> Result<usize, Flaw> {
        if fixed.get(..8) != Some(MAGIC) || array(fixed, 8).map(u32::from_le_bytes) != Some(VERSION) {
            return Err(Flaw::Format);
        }
        let bytes = array(fixed, 12).map(u32::from_le_bytes).ok_or(Flaw::Head)? as usize;
        if (FIXED_BYTES..=MAX_HEAD_BYTES).contains(&bytes) { Ok(bytes) } else { Err(Flaw::Head) }
    }

    /// What [`Self::encode`] has made, out of exactly the head bytes, of the file that is named `name`.
    pub(crate) fn decode(head: &[u8], name: Name) -> Result<Self, Flaw> {
        if Self::head_bytes(head)? != head.len() {
            return Err(Flaw::Head);
        }
        let u32_at = |at| array(head, at).map(u32::from_le_bytes).ok_or(Flaw::Head);
        let u64_at = |at| array(head, at).map(u64::from_le_bytes).ok_or(Flaw::Head);
        let u128_at = |at| array(head, at).map(u128::from_le_bytes).ok_or(Flaw::Head);
        let own = Name { key_hash: KeyHash(u128_at(16)?), nonce: u64_at(32)? };
        let (before, after) = head.split_at_checked(HEAD_DIGEST_AT).ok_or(Flaw::Head)?;
        let after = after.get(16..).ok_or(Flaw::Head)?;
        if own.digest(Part::Head, [before, &[0; 16], after]) != u128_at(HEAD_DIGEST_AT)? {
            return Err(Flaw::Head);
        }
        if own != name {
            return Err(Flaw::Swapped);
        }
        let length = Some(u64_at(40)?).filter(|&length| length != LENGTH_UNKNOWN);
        let places = u32_at(60)?;
        let most = if places == 0 { SLICE_BYTES } else { u64::from(places).saturating_mul(SLICE_BYTES) };
        if length.is_some_and(|length| length > most.min(MAX_LENGTH_BYTES))
            || u64::from(places) > MAX_LENGTH_BYTES / SLICE_BYTES
            || (places == 0 && length.is_none())
        {
            return Err(Flaw::Head);
        }
        let (key_bytes, meta_bytes) = (u32_at(64)? as usize, u32_at(68)? as usize);
        let rest = Bytes::copy_from_slice(head.get(FIXED_BYTES..).ok_or(Flaw::Head)?);
        if key_bytes.checked_add(meta_bytes).is_none_or(|both| both > rest.len()) {
            return Err(Flaw::Head);
        }
        Ok(Self {
            name,
            length,
            stored_ms: u64_at(48)?,
            expires_s: Some(u32_at(56)?).filter(|&expires| expires != 0),
            places,
            stamp: array(head, 72).ok_or(Flaw::Head)?,
            body_digest: u128_at(104)?,
            key: rest.slice(..key_bytes),
            meta: rest.slice(key_bytes..key_bytes + meta_bytes),
            head_bytes: head.len() as u32,
        })
    }

    /// Where place `number` of the slice table is.
    pub(crate) fn place_at(&self, number: u32) -> u64 {
        u64::from(self.head_bytes) + u64::from(number) * PLACE_BYTES
    }

    /// Where the body begins.
    pub(crate) fn body_at(&self) -> u64 {
        if self.places == 0 {
            return self.head_bytes.into();
        }
        self.place_at(self.places).next_multiple_of(BLOCK_BYTES)
    }

    /// Where slice `number` begins.
    pub(crate) fn slice_at(&self, number: u32) -> u64 {
        self.body_at() + u64::from(number) * SLICE_BYTES
    }

    /// The bytes of slice `number`; `None` where it is beyond the end, or the length is not known.
    pub(crate) fn slice_bytes(&self, number: u32) -> Option<u64> {
        slice_bytes(self.length?, number)
    }

    /// The size of the file, where it is known.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        Some(self.body_at() + self.length?)
    }
}

/// Slices of a body of `length` bytes: at most 65,536.
pub fn slices(length: u64) -> u32 {
    length.min(MAX_LENGTH_BYTES).div_ceil(SLICE_BYTES) as u32
}

/// The bytes of slice `number` of a body of `length` bytes; `None` beyond its end. The one slice of an empty body has 0.
pub fn slice_bytes(length: u64, number: u32) -> Option<u64> {
    let before = u64::from(number) * SLICE_BYTES;
    (before < length || number == 0).then(|| (length - before).min(SLICE_BYTES))
}

/// Blocks that `bytes` take.
pub(crate) fn blocks(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BLOCK_BYTES)).unwrap_or(u32::MAX)
}

/// `N` bytes at `at`, if they are there.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Overwrites the bytes at `at`, which are there.
fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

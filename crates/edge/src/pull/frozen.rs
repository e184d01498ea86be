//! A variant as it stands on disk: what [`shelf::disk`] calls key, meta and stamp.
//!
//! The key is `page`, the era, the fingerprint of the zone's policy, the zone, the URL and what else is in the cache key, with
//! zero bytes between; all variants of a page have it. The meta is [`Frozen`] as JSON: to add a member with a default is no new
//! format; to change the meaning of one is, and gets another [`FORMAT`], which older programs leave alone. The stamp holds
//! [`FORMAT`] and the two numbers of [`Began`], little-endian, eight bytes each.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_cache::response::Terms;
use serde::{Deserialize, Serialize};
use shelf::disk::{EntryId, Head, KeyHash, Present, STAMP_BYTES};

use crate::disk::{OnDisk, key_hash};
use crate::marks::Began;
use crate::pull::by_range;
use crate::pull::packed::Forms;
use crate::pull::sliced::Sliced;
use crate::pull::stored::{Content, PageKey, Variant};

/// What the stamp of an entry of this form begins with.
const FORMAT: u64 = 1;

/// What is kept of a variant beside its body.
#[derive(Serialize, Deserialize)]
struct Frozen {
    status: u16,
    /// Names and values; each byte of a value is the character of that number.
    fields: Vec<(String, String)>,
    selected_by: Vec<(String, Option<String>)>,
    terms: Terms,
    answered_ms: u64,
    tags: Vec<api::Tag>,
    /// See [`Sliced::by_range`].
    by_range: bool,
}

impl PageKey {
    /// The key of its variants on disk.
    pub(crate) fn on_disk(&self) -> (KeyHash, Bytes) {
        let key =
            format!("page\0{:016x}\0{:016x}\0{}\0{}\0{}", self.era, self.fingerprint, self.zone, self.url, self.more);
        (key_hash(key.as_bytes()), Bytes::from(key))
    }

    /// The page of a key on disk, if it is one.
    pub(crate) fn from_disk(key: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(key).ok()?.strip_prefix("page\0")?.splitn(5, '\0');
        let number = |text: Option<&str>| u64::from_str_radix(text?, 16).ok();
        Some(Self {
            era: number(parts.next())?,
            fingerprint: number(parts.next())?,
            zone: parts.next()?.parse().ok()?,
            url: parts.next()?.into(),
            more: parts.next()?.into(),
        })
    }
}

/// What stands on disk for a variant.
pub(crate) struct Ice {
    pub(crate) meta: Bytes,
    pub(crate) stamp: [u8; STAMP_BYTES],
    pub(crate) expires_s: Option<u32>,
}

/// Freezes a variant.
pub(crate) fn freeze(variant: &Variant) -> Option<Ice> {
    let (fields, selected_by) = as_text(variant, |bytes| bytes.iter().map(|byte| char::from(*byte)).collect());
    let frozen = Frozen {
        status: variant.status.as_u16(),
        fields,
        selected_by,
        terms: variant.terms,
        answered_ms: variant.answered_ms,
        tags: variant.tags.clone(),
        by_range: match variant.sliced() {
            Some(sliced) => sliced.by_range,
            None => {
                let large = variant.length.is_none_or(|length| length > api::SLICE_BYTES);
                large && by_range::takes_ranges(&variant.fields, variant.answered_ms)
            }
        },
    };
    let mut stamp = [0; STAMP_BYTES];
    for (place, number) in stamp.chunks_exact_mut(8).zip([FORMAT, variant.began.event, variant.began.local]) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let meta = serde_json::to_vec(&frozen).ok()?;
    Some(Ice { meta: Bytes::from(meta), stamp, expires_s: variant.useless_from_s() })
}

/// The fields of a variant, and what selects it.
type Texts = (Vec<(String, String)>, Vec<(String, Option<String>)>);

/// The fields of a variant and what selects it, with their bytes made text.
pub(crate) fn as_text(variant: &Variant, text: impl Fn(&[u8]) -> String) -> Texts {
    let fields = variant.fields.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    let selected = |(name, value): &(HeaderName, Option<Box<[u8]>>)| (name.to_string(), value.as_deref().map(&text));
    (fields.collect(), variant.selected_by.iter().map(selected).collect())
}

/// The variant of an entry, if it is one. `present`: the slices that are there, where not all are.
pub(crate) fn thaw(head: &Head, entry: EntryId, present: Option<&Present>) -> Option<Arc<Variant>> {
    let number = |at: usize| Some(u64::from_le_bytes(head.stamp.get(at * 8..at * 8 + 8)?.try_into().ok()?));
    let (format, began) = (number(0)?, Began { event: number(1)?, local: number(2)? });
    if format != FORMAT {
        return None;
    }
    let frozen: Frozen = serde_json::from_slice(&head.meta).ok()?;
    let length = head.length?;
    let bytes = |text: &str| text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<Vec<u8>>>();
    let mut fields = HeaderMap::with_capacity(frozen.fields.len());
    for (name, value) in &frozen.fields {
        fields.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_bytes(&bytes(value)?).ok()?);
    }
    let mut selected_by = Vec::new();
    for (name, value) in &frozen.selected_by {
        let value = match value {
            Some(value) => Some(bytes(value)?.into_boxed_slice()),
            None => None,
        };
        selected_by.push((name.parse().ok()?, value));
    }
    let on_disk = OnDisk::at(entry);
    Some(Arc::new(Variant {
        status: StatusCode::from_u16(frozen.status).ok()?,
        fields,
        content: match length {
            0 => Content::Parts(Vec::new()),
            _ => Content::Sliced(Sliced::on_disk(length, frozen.by_range, &on_disk, |index| {
                present.is_none_or(|present| u32::try_from(index).is_ok_and(|number| present.contains(number)))
            })),
        },
        body: OnceLock::new(),
        forms: Forms::default(),
        length: Some(length),
        announced: None,
        selected_by,
        terms: frozen.terms,
        answered_ms: frozen.answered_ms,
        tags: frozen.tags,
        began,
        // Nothing is known yet about purges since.
        checked: (AtomicU64::new(0), AtomicU64::new(0)),
        on_disk,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        for (url, more) in [("shop.example/a?b", ""), ("h/", "port\0x")] {
            let zone = "shop".parse().expect("zone");
            let key = PageKey { era: u64::MAX, zone, fingerprint: 7, url: url.into(), more: more.into() };
            assert_eq!(PageKey::from_disk(&key.on_disk().1), Some(key));
        }
        for wrong in ["", "page", "page\0x\x001\0shop\0h/\0", "page\x001\x001\0shop\0h/", "file\x001\x001\0shop\0h/\0"]
        {
            assert_eq!(PageKey::from_disk(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}

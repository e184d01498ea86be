//! Compressed forms of stored responses: made once for each coding, kept with the variant that they are of.
//!
//! A form is begun by the first hit whose request accepts its coding, on a thread for blocking work, [`MAX_PACKING`] at
//! once; nobody waits for it. Until it is there, and wherever only the bytes as they came will do (ranges, `no-transform`),
//! the response goes out as it is. Forms are part of their variant: a purge, a 304 or a newer version means them as well, and
//! they count in what the page weighs. On disk there are none; they are made anew.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use api::pull::{CompressionDoc, Encoding, PullDoc};
use bytes::Bytes;
use http::{StatusCode, header};
use http_cache::coding::{self, Accepted, Coding};
use tokio::sync::OwnedSemaphorePermit;

use crate::disk::Opened;
use crate::node::Node;
use crate::pull::asked::Asked;
use crate::pull::stored::{Content, PageKey, Variant};
use crate::pull::zone::PullZone;

/// Forms that an edge makes at once; a hit that would begin another one leaves that to a later hit.
pub(crate) const MAX_PACKING: usize = 2;
/// A form is kept if it is smaller than the body by at least one in so many bytes.
const MIN_SAVED_SHARE: u64 = 20;
/// Each response is compressed once and sent often, so these are above what servers use for each request; and below the
/// highest, which take many times as long for a few percent.
const ZSTD_LEVEL: i32 = 12;
/// See [`ZSTD_LEVEL`].
const BROTLI_QUALITY: i32 = 7;
/// See [`ZSTD_LEVEL`].
const GZIP_LEVEL: u32 = 8;
/// The window of Brotli, as a power of two: 4 MiB, as Zstandard's is at its level.
const BROTLI_WINDOW_BITS: i32 = 22;

/// What a zone compresses.
pub(crate) struct Compression {
    doc: CompressionDoc,
    /// Preferred first.
    order: Vec<Coding>,
}

impl Compression {
    /// Nothing, where a zone compresses nothing: because it says so, or because it makes one of the fields itself that tell
    /// the forms apart.
    pub(crate) fn of(policy: &PullDoc) -> Option<Self> {
        let doc = policy.compression();
        let apart = [header::CONTENT_ENCODING, header::VARY];
        let of_the_zone = policy.response_headers.iter().any(|change| {
            let named = |name: &http::HeaderName| change.name.eq_ignore_ascii_case(name.as_str());
            apart.iter().any(named) || (change.value.is_some() && named(&header::ETAG))
        });
        let order: Vec<Coding> = doc.encodings.iter().map(|encoding| coding_of(*encoding)).collect();
        (!order.is_empty() && !of_the_zone).then_some(Self { doc, order })
    }

    /// Whether a variant has compressed forms, or may have some.
    fn is_about(&self, variant: &Variant) -> bool {
        let media_type = variant.fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        variant.status == StatusCode::OK
            && coding::may_be_coded(&variant.fields)
            && variant.length.is_none_or(|bytes| self.doc.has_length(bytes))
            && media_type.is_some_and(|media_type| self.doc.has_type(media_type))
    }

    /// The codings that are made here, preferred first.
    pub(crate) fn codings(&self) -> impl Iterator<Item = Coding> {
        self.order.iter().copied()
    }

    /// The form of a variant that is liked best among those that are here.
    pub(crate) fn form<'a>(&self, variant: &'a Variant, accepted: &Accepted) -> Option<(Coding, &'a Bytes)> {
        let coding = accepted.best(self.codings().filter(|coding| variant.forms.get(*coding).is_some()))?;
        Some((coding, variant.forms.get(coding)?))
    }
}

fn coding_of(encoding: Encoding) -> Coding {
    match encoding {
        Encoding::Zstd => Coding::Zstd,
        Encoding::Br => Coding::Brotli,
        Encoding::Gzip => Coding::Gzip,
    }
}

impl PullZone {
    /// How the zone compresses a variant, if it does.
    pub(crate) fn compresses(&self, variant: &Variant) -> Option<&Compression> {
        self.compression.as_ref().filter(|compression| compression.is_about(variant))
    }

    /// The compressed form of a variant that answers a request, if one does: not where a range is asked for, whose bytes are
    /// those of the response as it came.
    pub(crate) fn form_for<'a>(&self, asked: &Asked, variant: &'a Variant) -> Option<(Coding, &'a Bytes)> {
        if variant.forms.is_empty() || !takes_forms(asked) {
            return None;
        }
        self.compresses(variant)?.form(variant, &Accepted::of(&asked.fields))
    }
}

/// Whether a compressed form may be the answer to a request at all.
fn takes_forms(asked: &Asked) -> bool {
    asked.is_read() && !asked.fields.contains_key(header::RANGE) && !coding::forbids(&asked.fields)
}

/// The compressed forms of one body.
#[derive(Clone, Default)]
pub(crate) struct Forms {
    /// In the order of [`Coding::ALL`].
    bytes: [Option<Bytes>; Coding::ALL.len()],
    /// A bit for each that is being made, is made, or is not worth it. Shared by all variants with the same body, and so
    /// also what tells that they have the same.
    tried: Arc<AtomicU8>,
}

impl Forms {
    pub(crate) fn get(&self, coding: Coding) -> Option<&Bytes> {
        self.bytes.get(coding.index())?.as_ref()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.iter().all(Option::is_none)
    }

    /// What they weigh, in bytes.
    pub(crate) fn weight(&self) -> u64 {
        self.bytes.iter().flatten().map(|bytes| bytes.len() as u64).sum()
    }

    fn set(&mut self, coding: Coding, bytes: Bytes) {
        if let Some(place) = self.bytes.get_mut(coding.index()) {
            *place = Some(bytes);
        }
    }

    fn of_same_body(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tried, &other.tried)
    }

    fn tried(&self, coding: Coding) -> bool {
        self.tried.load(Ordering::Relaxed) & bit(coding) != 0
    }

    /// True for one caller, until [`Self::give_up`].
    fn claim(&self, coding: Coding) -> bool {
        self.tried.fetch_or(bit(coding), Ordering::Relaxed) & bit(coding) == 0
    }

    fn give_up(&self, coding: Coding) {
        self.tried.fetch_and(!bit(coding), Ordering::Relaxed);
    }
}

fn bit(coding: Coding) -> u8 {
    1 << coding.index()
}

impl Node {
    /// Begins what a hit wants that is not there yet.
    pub(crate) fn pack_for(self: &Arc<Self>, zone: &PullZone, asked: &Asked, key: &PageKey, variant: &Arc<Variant>) {
        if !takes_forms(asked) {
            return;
        }
        if let Some(compression) = zone.compresses(variant)
            && let Some(coding) = Accepted::of(&asked.fields).best(compression.codings())
        {
            self.pack(key, variant, coding);
        }
    }

    /// Begins to make a form of a variant, unless that was tried before. The zone [compresses](PullZone::compresses) it.
    pub(crate) fn pack(self: &Arc<Self>, key: &PageKey, variant: &Arc<Variant>, coding: Coding) {
        if variant.forms.tried(coding) || variant.length.is_none() || !self.is_here(variant) {
            return;
        }
        let Ok(place) = Arc::clone(&self.pull.packing).try_acquire_owned() else { return };
        if !variant.forms.claim(coding) {
            return;
        }
        let (node, key, variant) = (Arc::clone(self), key.clone(), Arc::clone(variant));
        tokio::spawn(async move {
            let Some(bytes) = node.whole_body(&variant).await else {
                variant.forms.give_up(coding);
                return;
            };
            if let Some(form) = node.compress(coding, bytes, place, key.shown()).await {
                node.keep_form(&key, &variant.forms, coding, form);
            }
        });
    }

    /// Compresses, on a thread for blocking work, in a place of [`MAX_PACKING`]. Nothing: it is not worth it, or did not work.
    pub(crate) async fn compress(
        &self,
        coding: Coding,
        bytes: Bytes,
        place: OwnedSemaphorePermit,
        url: impl fmt::Display,
    ) -> Option<Bytes> {
        let before = bytes.len() as u64;
        let made = tokio::task::spawn_blocking(move || {
            let _place = place;
            packed(coding, &bytes)
        });
        let Ok(Ok(form)) = made.await else {
            tracing::warn!(%url, coding = coding.word(), "not compressed");
            return None;
        };
        let after = form.len() as u64;
        if !worth(before, after) {
            self.metrics.not_packed.inc();
            return None;
        }
        self.metrics.packed.inc();
        self.metrics.packed_before_bytes.inc_by(before);
        self.metrics.packed_after_bytes.inc_by(after);
        Some(form)
    }

    /// Whether all of a body is stored, as far as memory knows.
    fn is_here(&self, variant: &Variant) -> bool {
        match &variant.content {
            Content::Growing(_) => false,
            Content::Parts(_) => variant.whole(),
            Content::Sliced(sliced) => (0..sliced.slices()).all(|index| sliced.has(self, index)),
        }
    }

    /// All of a body in one piece. Nothing: it is not here.
    async fn whole_body(&self, variant: &Variant) -> Option<Bytes> {
        match &variant.content {
            Content::Growing(_) => None,
            Content::Parts(parts) => Some(joined(&parts.first()?.pieces)),
            Content::Sliced(sliced) => {
                let (mut opened, mut slices) = (Opened::default(), Vec::new());
                for index in 0..sliced.slices() {
                    slices.push(sliced.read(self, &mut opened, index).await?);
                }
                Some(joined(&slices))
            }
        }
    }

    /// Puts a form beside the body that it was made of, where that is still stored and there is room.
    fn keep_form(&self, key: &PageKey, of: &Forms, coding: Coding, form: Bytes) {
        let form = self.pages.own(form);
        let same = |variant: &Arc<Variant>| variant.forms.of_same_body(of);
        if !self.page(key).is_some_and(|page| page.variants.iter().any(same)) {
            return;
        }
        self.change_page(key, |page| {
            if page.weight() + form.len() as u64 > self.most_page_bytes() {
                return;
            }
            for variant in page.variants.iter_mut().filter(|variant| same(variant)) {
                *variant = variant.with(|variant| variant.forms.set(coding, form.clone()));
            }
        });
    }
}

/// These pieces as one.
pub(crate) fn joined(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [only] => only.clone(),
        pieces => pieces.concat().into(),
    }
}

/// Whether a form of so many bytes is kept.
fn worth(before: u64, after: u64) -> bool {
    after + before.div_ceil(MIN_SAVED_SHARE) <= before
}

/// Compresses. A MiB takes some 70 ms.
fn packed(coding: Coding, bytes: &[u8]) -> std::io::Result<Bytes> {
    let made = match coding {
        Coding::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL)?,
        Coding::Brotli => {
            let mut made = Vec::new();
            let params = brotli::enc::BrotliEncoderParams {
                quality: BROTLI_QUALITY,
                lgwin: BROTLI_WINDOW_BITS,
                size_hint: bytes.len(),
                ..Default::default()
            };
            brotli::BrotliCompress(&mut &*bytes, &mut made, &params)?;
            made
        }
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL));
            encoder.write_all(bytes)?;
            encoder.finish()?
        }
    };
    // What was reserved and not needed would be there as long as the form is, and not be counted.
    Ok(made.into_boxed_slice().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coding_gives_back_what_went_in() {
        let long: Vec<u8> = (0..1_u32 << 18).flat_map(|number| (number % 1_021).to_le_bytes()).collect();
        for body in [&b""[..], b"a", &b"to be or not to be ".repeat(500), &long] {
            for coding in Coding::ALL {
                let form = packed(coding, body).expect("compressed");
                let mut back = Vec::new();
                match coding {
                    Coding::Zstd => back = zstd::bulk::decompress(&form, body.len()).expect("zstd"),
                    Coding::Brotli => brotli::BrotliDecompress(&mut &*form, &mut back).expect("brotli"),
                    Coding::Gzip => {
                        let mut decoder = flate2::write::GzDecoder::new(&mut back);
                        decoder.write_all(&form).and_then(|()| decoder.finish().map(drop)).expect("gzip");
                    }
                }
                assert!(back == body, "{coding:?} {}", body.len());
                assert!(body.len() < 1_000 || form.len() < body.len() / 2, "{coding:?} {}", form.len());
            }
        }
    }

    #[test]
    fn what_is_worth_it() {
        for (before, after, expected) in
            [(100, 95, true), (100, 96, false), (100, 120, false), (101, 95, true), (101, 96, false), (1, 1, false)]
        {
            assert_eq!(worth(before, after), expected, "{before} {after}");
        }
    }

    #[test]
    fn one_makes_a_form_and_all_with_the_same_body_know() {
        let forms = Forms::default();
        let mut other = forms.clone();
        assert!(forms.claim(Coding::Gzip) && !other.claim(Coding::Gzip) && other.claim(Coding::Zstd));
        forms.give_up(Coding::Gzip);
        assert!(!other.tried(Coding::Gzip) && forms.tried(Coding::Zstd) && other.claim(Coding::Gzip));
        assert!(forms.of_same_body(&other) && !forms.of_same_body(&Forms::default()));
        other.set(Coding::Gzip, Bytes::from_static(b"abc"));
        assert_eq!((other.weight(), other.is_empty(), forms.is_empty()), (3, false, true));
        assert_eq!((other.get(Coding::Gzip).map(Bytes::len), other.get(Coding::Zstd)), (Some(3), None));
    }

    #[test]
    fn zones_that_make_the_fields_themselves_compress_nothing() {
        let with = |name: &str, value: Option<&str>| {
            let mut policy = PullDoc::new(Vec::new());
            let value = value.map(str::to_owned);
            policy.response_headers.push(api::pull::HeaderChange { name: name.to_owned(), value });
            Compression::of(&policy).is_some()
        };
        for (name, value, expected) in [
            ("X-A", Some("1"), true),
            ("etag", None, true),
            ("ETag", Some("\"1\""), false),
            ("Vary", Some("Cookie"), false),
            ("vary", None, false),
            ("Content-Encoding", Some("gzip"), false),
        ] {
            assert_eq!(with(name, value), expected, "{name} {value:?}");
        }
    }
}

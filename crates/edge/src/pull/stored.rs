//! What the store holds of a URL of a pull zone: a [`Page`] with its [`Variant`]s.
//!
//! A page is replaced as a whole, under the lock of its key ([`super::PullState::page_lock`]); readers hold what they got.
//! A variant is in its page from the moment that its head has arrived, with a body that is still growing; when that is
//! complete the variant is replaced by one with the bytes, and when it breaks off it is taken out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use api::names::{Tag, ZoneName};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use http_cache::response::Terms;
use http_cache::{ByteRange, NotStorable, vary};

use crate::disk::OnDisk;
use crate::marks::Began;
use crate::pull::growing::Growing;
use crate::pull::packed::Forms;
use crate::pull::sliced::Sliced;

/// Variants of one URL that are kept; the oldest goes.
pub(crate) const MAX_VARIANTS: usize = 64;
/// Separate parts of one representation that are kept; one that would be more is not.
pub(crate) const MAX_PARTS: usize = 32;

/// What names a page in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PageKey {
    /// See [`crate::node::HeadKey`].
    pub(crate) era: u64,
    pub(crate) zone: ZoneName,
    /// See [`crate::pull::PullZone::fingerprint`].
    pub(crate) fingerprint: u64,
    /// `host/path?query`: what purges name.
    pub(crate) url: Arc<str>,
    /// What else tells pages apart: port, scheme, keyed headers and cookies. Purges take all of them.
    pub(crate) more: Arc<str>,
}

impl PageKey {
    /// For the log: without the query, in which secrets stand.
    pub(crate) fn shown(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }
}

/// Everything that is known about a URL.
#[derive(Clone, Default)]
pub(crate) struct Page {
    /// Newest first.
    pub(crate) variants: Vec<Arc<Variant>>,
    /// Its responses are not stored: nobody waits for anybody until then (hit-for-miss).
    pub(crate) pass: Option<Pass>,
    /// The same for requests that may be one person's: its responses to them are theirs.
    pub(crate) personal_until_ms: u64,
    /// The origin failed: what is stale is served without asking until then.
    pub(crate) down_until_ms: u64,
}

/// Why and until when the responses of a URL are not waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    pub(crate) until_ms: u64,
    pub(crate) why: NotStorable,
}

/// One stored response.
pub(crate) struct Variant {
    pub(crate) status: StatusCode,
    /// As they go out, without `Age` and `Content-Length`.
    pub(crate) fields: HeaderMap,
    pub(crate) content: Content,
    /// The same, where it is a 200 that is here as a whole and in one piece; see `ready.rs`.
    pub(crate) body: OnceLock<Option<Bytes>>,
    /// The body compressed, where that was done. They are of this very body: who changes that, begins anew with them.
    pub(crate) forms: Forms,
    /// Of the whole representation, in bytes, where known.
    pub(crate) length: Option<u64>,
    /// What the origin said that it sends, while a part is on its way.
    pub(crate) announced: Option<Announced>,
    /// The fields that `Vary` names, and what the request had in them, in the form in which they are compared.
    pub(crate) selected_by: Vec<(HeaderName, Option<Box<[u8]>>)>,
    pub(crate) terms: Terms,
    /// When its head arrived, or was last confirmed, in milliseconds since the Unix epoch.
    pub(crate) answered_ms: u64,
    pub(crate) tags: Vec<Tag>,
    pub(crate) began: Began,
    /// The newest numbers up to which no purge is known to name it.
    pub(crate) checked: (AtomicU64, AtomicU64),
    /// Where it lies on disk. Shared by all that have the same body.
    pub(crate) on_disk: Arc<OnDisk>,
}

/// A part as a 206 announces it.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    pub(crate) range: ByteRange,
    /// `Content-Range`, as it came.
    pub(crate) content_range: http::HeaderValue,
    /// `Content-Length`, where there was one.
    pub(crate) body_length: Option<u64>,
    /// The origin was asked for whole slices in the place of the client's range.
    pub(crate) aligned: bool,
}

/// The bytes of a variant.
#[derive(Clone)]
pub(crate) enum Content {
    /// They are on their way.
    Growing(Arc<Growing>),
    /// These parts are there, in order, without overlaps; all of it is one part.
    Parts(Vec<Part>),
    /// It lies in slices, and those that are missing can be had.
    Sliced(Arc<Sliced>),
}

/// Consecutive bytes of a representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) first: u64,
    pub(crate) pieces: Vec<Bytes>,
}

impl Part {
    pub(crate) fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// The offset after its last byte.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.length()
    }

    fn has(&self, range: ByteRange) -> bool {
        self.first <= range.first && range.last < self.end()
    }

    /// The bytes of a range that it has.
    fn bytes(&self, range: ByteRange) -> Vec<Bytes> {
        let (mut at, mut found) = (self.first, Vec::new());
        for piece in &self.pieces {
            let end = at + piece.len() as u64;
            let (from, to) = (range.first.max(at), (range.last + 1).min(end));
            if from < to
                && let (Ok(from), Ok(to)) = (usize::try_from(from - at), usize::try_from(to - at))
            {
                found.push(piece.slice(from..to));
            }
            at = end;
        }
        found
    }
}

impl Variant {
    /// Its age, in seconds (RFC 9111 § 4.2.3).
    pub(crate) fn age_s(&self, now_ms: u64) -> u64 {
        self.terms.initial_age_s.saturating_add(now_ms.saturating_sub(self.answered_ms) / 1_000)
    }

    fn date_s(&self) -> Option<u64> {
        http_cache::date::parse(self.fields.get(header::DATE)?.to_str().ok()?, self.answered_ms / 1_000)
    }

    /// Whether a request selects it (§ 4.1). `by_language`: also where what the request likes best is the language of this
    /// response, whatever else it would take.
    pub(crate) fn selected(&self, request: &HeaderMap, by_language: bool) -> bool {
        self.selected_by.iter().all(|(name, value)| {
            vary::selecting_value(name, request) == *value
                || (by_language
                    && *name == header::ACCEPT_LANGUAGE
                    && self.language().is_some_and(|language| vary::favourite_language(request) == Some(language)))
        })
    }

    fn language(&self) -> Option<String> {
        Some(self.fields.get(header::CONTENT_LANGUAGE)?.to_str().ok()?.trim().to_ascii_lowercase())
    }

    /// Whether `other` is selected by exactly the same requests.
    pub(crate) fn replaces(&self, other: &Variant) -> bool {
        self.selected_by == other.selected_by
    }

    /// Whether all of the representation is here or on its way.
    pub(crate) fn whole(&self) -> bool {
        match &self.content {
            Content::Growing(_) => self.announced.is_none(),
            Content::Parts(parts) => match parts.as_slice() {
                [] => self.length == Some(0),
                [part] => part.first == 0 && Some(part.length()) == self.length,
                _ => false,
            },
            Content::Sliced(_) => true,
        }
    }

    /// Whether both have the very same body on its way.
    pub(crate) fn grows_with(&self, other: &Variant) -> bool {
        match (&self.content, &other.content) {
            (Content::Growing(one), Content::Growing(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Whether it is `growing`, all of whose body has come.
    pub(crate) fn is_done_of(&self, growing: &Variant) -> bool {
        let same =
            self.began == growing.began && self.answered_ms == growing.answered_ms && self.status == growing.status;
        same && matches!(self.content, Content::Parts(_)) && self.whole()
    }

    /// Whether it can be read from its beginning, and did not break off.
    pub(crate) fn readable(&self) -> bool {
        match &self.content {
            Content::Growing(growing) => growing.joinable(),
            Content::Parts(_) | Content::Sliced(_) => true,
        }
    }

    /// Whether the bytes of a range are here, or on their way.
    pub(crate) fn has(&self, range: ByteRange) -> bool {
        match &self.content {
            Content::Growing(_) => self.announced.is_none(),
            Content::Parts(parts) => parts.iter().any(|part| part.has(range)),
            Content::Sliced(_) => true,
        }
    }

    /// Its body, where it lies in slices.
    pub(crate) fn sliced(&self) -> Option<&Arc<Sliced>> {
        match &self.content {
            Content::Sliced(sliced) => Some(sliced),
            Content::Growing(_) | Content::Parts(_) => None,
        }
    }

    /// From which second on it is of no use, not even stale or to be asked about.
    pub(crate) fn useless_from_s(&self) -> Option<u32> {
        let times = self.terms.storable;
        if times.lifetime_s == 0 {
            return None; // it lives by being asked about
        }
        let more_s = times.stale_while_revalidate_s.max(times.stale_if_error_s).saturating_add(times.lifetime_s);
        let left_s = more_s.saturating_sub(self.terms.initial_age_s);
        u32::try_from((self.answered_ms / 1_000).saturating_add(left_s)).ok()
    }

    /// The bytes of a range, if all of them are here.
    pub(crate) fn bytes(&self, range: ByteRange) -> Option<Vec<Bytes>> {
        let Content::Parts(parts) = &self.content else { return None };
        parts.iter().find(|part| part.has(range)).map(|part| part.bytes(range))
    }

    /// A strong entity tag (RFC 9110 § 8.8.3), with its quotes.
    pub(crate) fn strong_etag(&self) -> Option<&[u8]> {
        self.fields.get(header::ETAG).map(http::HeaderValue::as_bytes).filter(|tag| tag.starts_with(b"\""))
    }

    /// Whether what stands on disk of both beside the body is the same.
    pub(crate) fn same_head(&self, other: &Variant) -> bool {
        self.fields == other.fields
            && self.terms == other.terms
            && self.answered_ms == other.answered_ms
            && self.began == other.began
            && self.tags == other.tags
    }

    /// What it costs in memory, in bytes, beside the tier's own overhead.
    pub(crate) fn weight(&self) -> u64 {
        let fields: usize = self.fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        let selected: usize = self
            .selected_by
            .iter()
            .map(|(name, value)| name.as_str().len() + value.as_ref().map_or(0, |v| v.len()))
            .sum();
        let tags: usize = self.tags.iter().map(|tag| tag.as_str().len() + size_of::<Tag>()).sum();
        let bytes: u64 = match &self.content {
            // As much as it will be, so that it has its room when it is there.
            Content::Growing(_) => self.length.unwrap_or(0),
            Content::Sliced(_) => size_of::<Sliced>() as u64, // its slices count by themselves
            Content::Parts(parts) => parts.iter().map(Part::length).sum(),
        };
        (size_of::<Variant>() + fields + selected + tags) as u64 + bytes + self.forms.weight()
    }

    /// The same response with other fields, terms or bytes.
    pub(crate) fn with(&self, change: impl FnOnce(&mut Variant)) -> Arc<Variant> {
        let mut variant = Variant {
            status: self.status,
            fields: self.fields.clone(),
            content: self.content.clone(),
            body: OnceLock::new(),
            forms: self.forms.clone(),
            length: self.length,
            announced: self.announced.clone(),
            selected_by: self.selected_by.clone(),
            terms: self.terms,
            answered_ms: self.answered_ms,
            tags: self.tags.clone(),
            began: self.began,
            on_disk: Arc::clone(&self.on_disk),
            checked: (
                AtomicU64::new(self.checked.0.load(Ordering::Acquire)),
                AtomicU64::new(self.checked.1.load(Ordering::Acquire)),
            ),
        };
        change(&mut variant);
        Arc::new(variant)
    }
}

impl Page {
    /// The newest variant, by its `Date`, that a request selects among those that can be read (RFC 9111 § 4).
    pub(crate) fn select(&self, request: &HeaderMap, by_language: bool) -> Option<&Arc<Variant>> {
        let mut selected =
            self.variants.iter().filter(|variant| variant.readable() && variant.selected(request, by_language));
        let first = selected.next()?;
        // Rarely is there more than one: only where responses of one URL vary by different fields. Of equals, the last that
        // was stored, which is the first here.
        Some(selected.fold(first, |best, next| if next.date_s() > best.date_s() { next } else { best }))
    }

    /// Puts a variant in, in the place of the one that the same requests select.
    pub(crate) fn put(&mut self, variant: Arc<Variant>) {
        self.variants.retain(|other| !variant.replaces(other));
        self.variants.insert(0, variant);
        self.variants.truncate(MAX_VARIANTS);
        self.pass = None;
        self.down_until_ms = 0;
    }

    /// Drops the oldest variants until it weighs no more than `most_bytes`, but for the newest.
    pub(crate) fn fit(&mut self, most_bytes: u64) {
        while self.variants.len() > 1 && self.weight() > most_bytes {
            self.variants.pop();
        }
    }

    /// From which second on none of it is of any use; nothing: that is not known.
    pub(crate) fn useless_from_s(&self) -> Option<u32> {
        let each = self.variants.iter().map(|variant| variant.useless_from_s());
        each.reduce(|one, other| one.zip(other).map(|(one, other)| one.max(other))).flatten()
    }

    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { variants, pass, personal_until_ms, down_until_ms } = self;
        variants.is_empty() && pass.is_none() && (*personal_until_ms, *down_until_ms) == (0, 0)
    }

    /// What it costs in memory, in bytes.
    pub(crate) fn weight(&self) -> u64 {
        size_of::<Page>() as u64 + self.variants.iter().map(|variant| variant.weight()).sum::<u64>()
    }

    /// The names of all fields that select among its variants, each once.
    pub(crate) fn selecting_names(&self) -> Vec<&HeaderName> {
        let mut names: Vec<&HeaderName> =
            self.variants.iter().flat_map(|variant| variant.selected_by.iter().map(|(name, _)| name)).collect();
        names.sort_by_key(|name| name.as_str());
        names.dedup();
        names
    }
}

/// The parts of two responses about the same representation, as one list; nothing where it would have too many parts.
/// Where both have a byte, the one of `newer` counts: they are the same.
pub(crate) fn combined(older: &[Part], newer: Part) -> Option<Vec<Part>> {
    let (first, end) = (newer.first, newer.end());
    let mut parts = vec![newer];
    for part in older {
        if part.first < first {
            let last = first.min(part.end()) - 1;
            parts.push(Part { first: part.first, pieces: part.bytes(ByteRange { first: part.first, last }) });
        }
        if part.end() > end {
            let from = end.max(part.first);
            parts.push(Part { first: from, pieces: part.bytes(ByteRange { first: from, last: part.end() - 1 }) });
        }
    }
    parts.sort_by_key(|part| part.first);
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if last.end() == part.first => last.pieces.extend(part.pieces),
            _ => joined.push(part),
        }
    }
    (joined.len() <= MAX_PARTS).then_some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, text: &'static str) -> Part {
        Part { first, pieces: vec![Bytes::from_static(text.as_bytes())] }
    }

    fn shown(parts: &[Part]) -> String {
        let one = |part: &Part| format!("{}:{}", part.first, String::from_utf8_lossy(&part.pieces.concat()));
        parts.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn parts_are_combined_without_gaps_or_overlaps() {
        for (older, newer, expected) in [
            (vec![], part(2, "cd"), "2:cd"),
            (vec![part(0, "ab")], part(2, "cd"), "0:abcd"),
            (vec![part(4, "ef")], part(2, "cd"), "2:cdef"),
            (vec![part(0, "ab")], part(4, "ef"), "0:ab 4:ef"),
            (vec![part(0, "ab"), part(4, "ef")], part(1, "bcde"), "0:abcdef"),
            (vec![part(0, "abcdef")], part(2, "cd"), "0:abcdef"),
            (vec![part(2, "cd")], part(0, "abcdef"), "0:abcdef"),
            (vec![part(2, "cd")], part(2, "cd"), "2:cd"),
        ] {
            assert_eq!(shown(&combined(&older, newer).expect("few")), expected);
        }
        let many: Vec<Part> = (0..MAX_PARTS as u64).map(|n| part(n * 10, "x")).collect();
        assert!(combined(&many[1..], part(0, "x")).is_some());
        assert!(combined(&many, part(5, "x")).is_none());
    }

    #[test]
    fn ranges_of_parts() {
        let part = Part { first: 4, pieces: vec![Bytes::from_static(b"01"), Bytes::from_static(b"234")] };
        assert_eq!(part.bytes(ByteRange { first: 5, last: 7 }).concat(), b"123");
        assert!(part.has(ByteRange { first: 4, last: 8 }) && !part.has(ByteRange { first: 4, last: 9 }));
        assert!(!part.has(ByteRange { first: 3, last: 4 }));
    }
}

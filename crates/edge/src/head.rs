//! What an edge keeps of a file besides its bytes, and how it reads that from an origin's answer.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use api::names::{Digest, FileId, FilePath, Tag, ZoneName};
use api::slices::ChainingValue;
use api::{ZoneDoc, headers};
use http::{HeaderMap, HeaderValue, header};
use http_cache::{CacheControl, Decision, Defaults, Storable, freshness};

use crate::disk::OnDisk;
use crate::marks::Began;
use crate::purges::{At, Identity};

/// The head of a stored file: everything about it but its bytes. Never changed once made; a revalidation makes a new one.
pub(crate) struct Head {
    pub(crate) zone: ZoneName,
    pub(crate) path: FilePath,
    pub(crate) id: FileId,
    pub(crate) version: u64,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) etag: HeaderValue,
    pub(crate) media_type: HeaderValue,
    pub(crate) cache_control: Option<HeaderValue>,
    pub(crate) last_modified: Option<HeaderValue>,
    pub(crate) tags: Vec<Tag>,
    /// Prove the slices; empty for at most one slice.
    pub(crate) values: Vec<ChainingValue>,
    /// The newest event that was applied when the fetch began.
    pub(crate) began: u64,
    /// The newest mark of the edge's own then: tells what was fetched before marks were lost.
    pub(crate) local: u64,
    /// When the answer arrived, in milliseconds since the Unix epoch.
    pub(crate) fetched_ms: u64,
    /// How long it may be used; nothing: it is not to be kept.
    pub(crate) storable: Option<Storable>,
    /// The newest event up to which no purge is known to name it: spares the look into the marks.
    pub(crate) checked: AtomicU64,
    /// Where it lies on disk. Shared by all heads of the same version.
    pub(crate) on_disk: Arc<OnDisk>,
    /// Whether the file has compressed forms; see `forms.rs`.
    pub(crate) has_forms: OnceLock<bool>,
}

impl Head {
    /// What a purge can name it by.
    pub(crate) fn identity(&self) -> Identity<'_> {
        Identity { at: Some((&self.zone, At::File(&self.path))), id: Some(self.id), tags: &self.tags }
    }

    /// What it costs in memory, in bytes, beside the tier's own overhead.
    pub(crate) fn weight(&self) -> u64 {
        let texts =
            self.path.as_str().len() + self.media_type.len() + self.cache_control.as_ref().map_or(0, |v| v.len());
        let tags: usize = self.tags.iter().map(|tag| tag.as_str().len() + size_of::<Tag>()).sum();
        (size_of::<Head>() + texts + tags + self.values.len() * size_of::<ChainingValue>()) as u64
    }

    /// From which second on it is of no use, not even stale; nothing: it lives by being asked about.
    pub(crate) fn useless_from_s(&self) -> Option<u32> {
        let times = self.storable.filter(|times| times.lifetime_s > 0)?;
        let more_s = times.stale_while_revalidate_s.max(times.stale_if_error_s).saturating_add(times.lifetime_s);
        u32::try_from((self.fetched_ms / 1_000).saturating_add(more_s)).ok()
    }

    /// Seconds since it was fetched.
    pub(crate) fn age_s(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.fetched_ms) / 1_000
    }
}

/// Reads the head out of the headers of a 200, 206 or 304.
///
/// # Errors
/// Names the header that is missing or cannot be read.
pub(crate) fn describe(
    headers: &HeaderMap,
    size: u64,
    values: Vec<ChainingValue>,
    began: Began,
    now_ms: u64,
    zone_settings: impl FnOnce(&ZoneName) -> Option<(u32, u32)>,
) -> Result<Head, String> {
    let zone: ZoneName = parsed(headers, headers::ZONE)?;
    let path = FilePath::from_url(text(headers, headers::PATH)?).map_err(|error| error.to_string())?;
    let digest: Digest = parsed(headers, headers::DIGEST)?;
    let tags = match headers.get("surrogate-key") {
        Some(value) => Tag::parse_list(value.to_str().map_err(|e| e.to_string())?).map_err(|e| e.to_string())?,
        None => Vec::new(),
    };
    let default = ZoneDoc::new(zone.clone());
    let (ttl_s, stale_if_error_s) = zone_settings(&zone).unwrap_or((default.ttl_s, default.stale_if_error_s));
    let defaults = Defaults { ttl_s: ttl_s.into(), stale_if_error_s: stale_if_error_s.into() };
    let storable = match freshness::decide(&CacheControl::of(headers), defaults) {
        Decision::Storable(storable) => Some(storable),
        Decision::NotStorable(_) => None,
    };
    let octets = HeaderValue::from_static("application/octet-stream");
    Ok(Head {
        zone,
        path,
        id: parsed(headers, headers::ID)?,
        version: text(headers, headers::VERSION)?.parse().map_err(|_| "the version is not a number".to_owned())?,
        digest,
        size,
        etag: HeaderValue::try_from(digest.etag()).map_err(|error| error.to_string())?,
        media_type: headers.get(header::CONTENT_TYPE).cloned().unwrap_or(octets),
        cache_control: headers.get(header::CACHE_CONTROL).cloned(),
        last_modified: headers.get(header::LAST_MODIFIED).cloned(),
        tags,
        values,
        began: began.event,
        local: began.local,
        fetched_ms: now_ms,
        storable,
        checked: AtomicU64::new(began.event),
        on_disk: Arc::default(),
        has_forms: OnceLock::new(),
    })
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, String> {
    let value = headers.get(name).ok_or_else(|| format!("the header {name} is missing"))?;
    value.to_str().map_err(|_| format!("the header {name} is not text"))
}

pub(crate) fn parsed<T: std::str::FromStr<Err = api::InvalidName>>(
    headers: &HeaderMap,
    name: &str,
) -> Result<T, String> {
    text(headers, name)?.parse().map_err(|error: api::InvalidName| error.to_string())
}

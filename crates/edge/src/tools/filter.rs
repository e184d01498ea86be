//! Which entries a tool means: [`CacheFilter`], ready to be compared.

use api::Problem;
use api::addressing::host_name;
use api::cache::{CacheEntry, CacheFilter, CacheTier};
use api::names::ZoneName;
use shelf::disk::KeyHash;

use crate::node::View;
use crate::tools::invalid;

/// A filter. Everything of it must hold.
pub(super) struct Filter {
    said: CacheFilter,
    prefix: Option<Prefix>,
}

struct Prefix {
    /// Without a scheme.
    text: String,
    /// Where that names a host: the zone that answers for it, and the rest, for files of that zone.
    file: Option<(ZoneName, String)>,
}

impl Filter {
    /// # Errors
    /// The key is not one.
    pub(super) fn new(said: CacheFilter, view: Option<&View>) -> Result<Self, Problem> {
        if let Some(text) = said.key.as_ref().filter(|text| key_of(text).is_none()) {
            return Err(invalid(format!(
                "{text:?} is not a key; one has 32 hexadecimal digits, as a listing shows it"
            )));
        }
        let prefix = said.prefix.as_deref().map(|prefix| Prefix::new(prefix, view));
        Ok(Self { said, prefix })
    }

    /// Whether entries of a tier may be meant.
    pub(super) fn takes(&self, tier: CacheTier) -> bool {
        self.said.tier.is_none_or(|only| only == tier)
    }

    /// Whether an entry is meant.
    pub(super) fn has(&self, entry: &CacheEntry, now_ms: u64) -> bool {
        let said = &self.said;
        let age_s = now_ms.saturating_sub(entry.stored_ms) / 1_000;
        self.takes(entry.tier)
            && said.key.as_ref().is_none_or(|key| key.eq_ignore_ascii_case(&entry.key))
            && said.zone.as_ref().is_none_or(|zone| *zone.as_str() == *entry.zone)
            && said.tag.as_ref().is_none_or(|tag| entry.tags.contains(tag))
            && said.older_s.is_none_or(|least| age_s >= least)
            && said.younger_s.is_none_or(|most| age_s < most)
            && self.prefix.as_ref().is_none_or(|prefix| prefix.has(entry))
    }
}

/// The hash in a text of 32 hexadecimal digits.
pub(super) fn key_of(text: &str) -> Option<KeyHash> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok().map(KeyHash)).flatten()
}

impl Prefix {
    fn new(prefix: &str, view: Option<&View>) -> Self {
        let text = ["https://", "http://"].iter().find_map(|scheme| prefix.strip_prefix(scheme)).unwrap_or(prefix);
        let file = text.find('/').filter(|at| *at > 0).and_then(|at| {
            let (host, path) = text.split_at_checked(at)?;
            Some((view?.zones.by_host(&host_name(host))?.name.clone(), path.to_owned()))
        });
        Self { text: text.to_owned(), file }
    }

    fn has(&self, entry: &CacheEntry) -> bool {
        if self.text.starts_with('/') {
            let path = entry.url.find('/').and_then(|at| entry.url.get(at..)).unwrap_or_default();
            return path.starts_with(&self.text);
        }
        let of_file = |(zone, path): &(ZoneName, String)| {
            entry.url.starts_with('/') && *zone.as_str() == *entry.zone && entry.url.starts_with(path.as_str())
        };
        entry.url.starts_with(&self.text) || self.file.as_ref().is_some_and(of_file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::cache::CacheState;

    const KEY: &str = "00112233445566778899aabbccddeeff";

    fn entry(zone: &str, url: &str, stored_ms: u64) -> CacheEntry {
        CacheEntry {
            tier: CacheTier::Disk,
            key: KEY.to_owned(),
            zone: zone.to_owned(),
            url: url.to_owned(),
            status: 200,
            media_type: None,
            length: None,
            bytes: 1,
            complete: true,
            tags: vec!["red".parse().expect("tag")],
            stored_ms,
            age_s: 0,
            state: CacheState::Fresh,
            details: None,
        }
    }

    #[test]
    fn everything_that_is_said_must_hold() {
        let entry = entry("shop", "shop.example/img/a.png?x", 5_000);
        for (json, expected) in [
            ("{}", true),
            (r#"{"key": "00112233445566778899AABBCCDDEEFF"}"#, true),
            (r#"{"key": "10112233445566778899aabbccddeeff"}"#, false),
            (r#"{"zone": "shop", "tag": "red", "tier": "disk"}"#, true),
            (r#"{"zone": "other", "tag": "red"}"#, false),
            (r#"{"zone": "shop", "tag": "blue"}"#, false),
            (r#"{"tier": "memory"}"#, false),
            (r#"{"prefix": "https://shop.example/img/"}"#, true),
            (r#"{"prefix": "shop.example/img/a.png?"}"#, true),
            (r#"{"prefix": "/img/"}"#, true),
            (r#"{"prefix": "/a.png"}"#, false),
            (r#"{"prefix": "http://shop.example/js/"}"#, false),
            (r#"{"older_s": 10}"#, true),
            (r#"{"older_s": 11}"#, false),
            (r#"{"younger_s": 11}"#, true),
            (r#"{"younger_s": 10}"#, false),
        ] {
            let filter = Filter::new(serde_json::from_str(json).expect(json), None).expect(json);
            assert_eq!(filter.has(&entry, 15_999), expected, "{json}");
        }
        let wrong = CacheFilter { key: Some("abc".to_owned()), ..CacheFilter::default() };
        assert!(Filter::new(wrong, None).is_err());
    }

    #[test]
    fn keys_are_exact() {
        assert_eq!(key_of(KEY), Some(KeyHash(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)));
        for wrong in ["", "+0112233445566778899aabbccddeeff", "0112233445566778899aabbccddeeff", &format!("{KEY}0")] {
            assert_eq!(key_of(wrong), None, "{wrong}");
        }
    }
}

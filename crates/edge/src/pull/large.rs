//! Landings of large bodies: those that come into the store slice by slice.

use std::ops::Range;
use std::sync::Arc;

use api::SLICE_BYTES;
use http::response::Parts;
use http::{StatusCode, header};
use http_cache::response::Terms;
use net::Body;

use crate::pull::fetch::{Landing, Order};
use crate::pull::runs;
use crate::pull::sliced::Sliced;
use crate::pull::stored::{Content, Variant};
use crate::purges::Verdict;

impl Order {
    /// A variant whose body goes to disk as it comes: one that the origin cannot be asked for in parts, and that is no small
    /// one.
    pub(super) async fn spooled(
        &mut self,
        parts: &Parts,
        terms: Terms,
        length: u64,
        answered_ms: u64,
    ) -> Option<Arc<Variant>> {
        let large = parts.status == StatusCode::OK && length > SLICE_BYTES && length <= self.zone.doc.max_object_bytes;
        if !large || self.background || self.node.disk.is_none() {
            return None;
        }
        let rules = self.rules(parts.status, &parts.headers);
        let variant = self.variant(parts, terms, rules.strip_set_cookie, answered_ms, |variant| {
            variant.content = Content::Sliced(Sliced::new(length, false, &variant.on_disk));
            variant.length = Some(length);
        });
        self.node.make_room_on_disk(&self.key, &variant).await.then_some(variant)
    }

    /// Makes a response known whose body lies in slices, and lets those come that are on their way.
    pub(super) fn land_sliced(
        &mut self,
        variant: Arc<Variant>,
        status: StatusCode,
        bytes: Range<u64>,
        body: Body,
    ) -> Landing {
        let (kept, made) = (self.keep_or_join(&variant), Arc::clone(&variant.on_disk));
        let (variant, stored) = kept.map_or((variant, false), |variant| (variant, true));
        if !stored || !Arc::ptr_eq(&made, &variant.on_disk) {
            self.node.leave_place(&made); // an entry that was made for it belongs to nobody
        }
        self.node.offer(&self.key, &variant);
        // Who seeks far ahead asks for that itself.
        let asked =
            self.asked.fields.get(header::RANGE).and_then(http_cache::range::single).map_or(0, |(first, _)| first);
        let ahead =
            variant.sliced().is_some_and(|body| body.by_range) && asked > bytes.start.saturating_add(runs::AHEAD_BYTES);
        // In the background nobody reads it: what is wanted later is asked for then.
        if let (Some(sliced), false) = (variant.sliced(), self.background || ahead) {
            let (node, begun) = (Arc::clone(&self.node), sliced.begin(bytes));
            if !stored {
                sliced.let_go();
            }
            let handling = runs::Handling { stored: true, compared: false };
            tokio::spawn(async move { runs::pump(&node, &begun, body, handling, || ()).await });
        }
        Landing::Ready { variant, status, stored }
    }

    /// Puts a variant in slices into the store, unless one with the very same body is there: then its fields are the new
    /// ones and its slices are kept. Returns what is stored now; nothing: it does not fit, or a purge has named it.
    fn keep_or_join(&self, variant: &Arc<Variant>) -> Option<Arc<Variant>> {
        if self.node.verdict_on_variant(&self.key, variant) == Verdict::Hard {
            return None;
        }
        let mut stored = Arc::clone(variant);
        let kept = self.node.change_page(&self.key, |page| {
            let same = |old: &&Arc<Variant>| {
                variant.replaces(old)
                    && old.length == variant.length
                    && old.status == variant.status
                    && old.strong_etag().is_some()
                    && old.strong_etag() == variant.strong_etag()
                    && old.fields.get(header::CONTENT_ENCODING) == variant.fields.get(header::CONTENT_ENCODING)
                    && self.node.verdict_on_variant(&self.key, old) == Verdict::Clean
            };
            if let Some(body) = page.variants.iter().find(same).and_then(|old| old.sliced().cloned()) {
                let place = Arc::clone(body.place());
                stored = variant.with(|variant| {
                    variant.content = Content::Sliced(body);
                    variant.on_disk = place;
                });
            }
            page.put(Arc::clone(&stored));
        });
        kept.then_some(stored)
    }
}

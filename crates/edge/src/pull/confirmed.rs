//! What the origin says about what is stored: a 304 to our own question, and the answer to a HEAD.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::response::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use http_cache::{NotStorable, update};

use crate::pull::fetch::{Again, Exclusive, Landing, Order, date, strip};
use crate::pull::stored::Variant;
use crate::purges::Verdict;

impl Order {
    /// A 304 to our own question: what is stored still holds (RFC 9111 § 4.3.4).
    pub(super) fn confirmed(
        &mut self,
        stale: &Arc<Variant>,
        parts: &Parts,
        asked_ms: u64,
        answered_ms: u64,
    ) -> Result<Landing, Again> {
        if !update::is_about(&stale.fields, &parts.headers) {
            return Err(Again);
        }
        let rules = self.rules(stale.status, &stale.fields);
        // In a 304, `Content-Range` describes nothing; and of a confirmation for everybody not even one client gets a cookie,
        // which would be the next one's, too.
        let keep = match (rules.strict, rules.strip_set_cookie) {
            (true, _) => &[header::CONTENT_RANGE, header::SET_COOKIE][..],
            (false, true) => &[header::SET_COOKIE][..],
            (false, false) => &[],
        };
        let (variant, judged) = self.freshened(stale, &parts.headers, keep, asked_ms, answered_ms);
        Ok(match judged {
            Ok(()) => {
                let stored = self.keep_instead(stale, &variant);
                Landing::Ready { variant, status: parts.status, stored }
            }
            Err(why) => {
                if !why.is_about_request() {
                    self.forget_stale();
                }
                self.hand_over(Exclusive::Confirmed(variant));
                Landing::Alone(why)
            }
        })
    }

    /// What is stored, with the fields of a newer answer about it, and whether it may be kept so (§ 3.2).
    fn freshened(
        &self,
        stored: &Arc<Variant>,
        newer: &HeaderMap,
        keep: &[HeaderName],
        asked_ms: u64,
        answered_ms: u64,
    ) -> (Arc<Variant>, Result<(), NotStorable>) {
        let mut fields = update::freshened(&stored.fields, newer, keep);
        if !newer.contains_key(header::DATE) {
            // Without one of its own, the old one would make it as old as before (RFC 9110 § 6.6.1).
            date(&mut fields, answered_ms);
        }
        let judged = self.judge(&Method::GET, stored.status, &fields, asked_ms, answered_ms);
        let tags = self.tags_after(&stored.tags, newer);
        let selected_by = self.selected_by(&fields);
        strip(&mut fields);
        let variant = stored.with(|variant| {
            variant.fields = fields;
            variant.tags = tags;
            variant.selected_by = selected_by;
            variant.answered_ms = answered_ms;
            variant.began = self.began;
            variant.checked = (AtomicU64::new(self.began.event), AtomicU64::new(self.began.local));
            if let Ok(terms) = judged {
                variant.terms = terms;
            }
        });
        (variant, judged.map(|_| ()))
    }

    /// Puts a variant in the place of an older one, also where other requests select it now.
    fn keep_instead(&self, older: &Arc<Variant>, variant: &Arc<Variant>) -> bool {
        if self.node.verdict_on_variant(&self.key, variant) == Verdict::Hard {
            return false;
        }
        self.node.change_page(&self.key, |page| {
            page.variants.retain(|stored| !Arc::ptr_eq(stored, older));
            page.put(Arc::clone(variant));
        })
    }

    /// The answer to a HEAD freshens what is stored, or ends it where it tells of something else (§ 4.3.5).
    pub(super) fn learn_from_head(&self, parts: &Parts, asked_ms: u64, answered_ms: u64) {
        if parts.status != StatusCode::OK || self.pass.is_some() {
            return;
        }
        let Some(page) = self.node.page(&self.key) else { return };
        let Some(stored) = page.select(&self.asked.fields, !self.zone.strict()).filter(|v| v.status == StatusCode::OK)
        else {
            return;
        };
        let agrees = stored.length.is_some_and(|length| update::head_agrees(&stored.fields, length, &parts.headers));
        let keep = [header::CONTENT_RANGE, header::SET_COOKIE];
        let (variant, judged) = self.freshened(stored, &parts.headers, &keep, asked_ms, answered_ms);
        match judged {
            Ok(()) if agrees => drop(self.keep_instead(stored, &variant)),
            Err(why) if why.is_about_request() => {}
            _ => self.node.forget_variant(&self.key, stored),
        }
    }
}

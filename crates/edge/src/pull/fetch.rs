//! Asking the origin of a pull zone.
//!
//! One exchange: request → head → *landing*, which everybody learns who waits for it → body, copied by a task of its own
//! into a [`Growing`] that everybody reads. What may not be stored is handed to the one request that started the fetch, as
//! it comes and at its pace; everybody else is let go at the head.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::names::Tag;
use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_cache::response::{Exchange, Terms, judge};
use http_cache::vary::{self, Vary};
use http_cache::{NotStorable, hop, targeted, update};
use net::{Body, OnInformational, UpstreamError};
use tokio::sync::oneshot;

use crate::marks::Began;
use crate::node::Node;
use crate::pull::asked::Asked;
use crate::pull::by_range;
use crate::pull::copying::Copying;
use crate::pull::decide::Fetch;
use crate::pull::growing::Growing;
use crate::pull::packed::Forms;
use crate::pull::sliced::Sliced;
use crate::pull::stored::{Content, PageKey, Pass, Variant};
use crate::pull::zone::PullZone;
use crate::purges::Verdict;

/// How long a URL whose response was not storable is not waited for, in milliseconds.
pub(crate) const HIT_FOR_MISS_MS: u64 = 10_000;
/// How long what is stale is served without asking after the origin has failed, in milliseconds.
const DOWN_MS: u64 = 1_000;

/// A body of at most this size, in bytes, is waited for before its head is made known,
const SMALL_BODY_BYTES: u64 = 64 << 10;
/// for at most so long, in milliseconds.
const SMALL_BODY_MS: u64 = 2;

/// How a fetch ended, for everybody who waited for its head.
#[derive(Clone)]
pub(crate) enum Landing {
    /// This response may be used by everybody whose request selects it.
    Ready {
        variant: Arc<Variant>,
        /// The status of the origin's answer.
        status: StatusCode,
        /// It is in the store.
        stored: bool,
    },
    /// The response is for one request only, because it may not be stored.
    Alone(NotStorable),
    /// There is none.
    Failed(Failed),
    /// The store has changed since this fetch was decided upon: decide anew.
    Outdated,
}

/// Why there is no response.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    /// One word for metrics and `Cache-Status`.
    pub(crate) word: &'static str,
    /// For people.
    pub(crate) text: String,
    /// The status of an error of the origin's, in whose place what is stale may be served.
    pub(crate) status: Option<StatusCode>,
    pub(crate) timeout: bool,
    /// The origin may have seen the request: how that asked may have been the reason.
    pub(crate) reached: bool,
}

impl Failed {
    pub(crate) fn of(error: &UpstreamError) -> Self {
        let timeout = matches!(
            error,
            UpstreamError::ConnectTimeout { .. }
                | UpstreamError::FirstByteTimeout { .. }
                | UpstreamError::BodyTimeout { .. }
                | UpstreamError::Busy { .. }
        );
        let reached = error.reached_origin() && !timeout;
        Self { word: error.word(), text: error.to_string(), status: None, timeout, reached }
    }

    fn because(word: &'static str, text: impl Into<String>) -> Self {
        Self { word, text: text.into(), status: None, timeout: false, reached: false }
    }
}

/// What only the request gets that started a fetch.
pub(crate) enum Exclusive {
    /// The origin's response, as it comes.
    Response(Response<Body>),
    /// What was stored, confirmed by the origin, and not to be stored any longer.
    Confirmed(Arc<Variant>),
    /// 101: the connection to the origin, to speak another protocol on.
    Upgraded(Response<Body>, net::UpstreamUpgraded),
}

/// A fetch that is to be made.
pub(crate) struct Order {
    pub(crate) node: Arc<Node>,
    pub(crate) zone: Arc<PullZone>,
    pub(crate) asked: Arc<Asked>,
    pub(crate) key: PageKey,
    pub(crate) began: Began,
    pub(crate) fetch: Fetch,
    /// Nothing of it is to be stored, and this is why.
    pub(crate) pass: Option<NotStorable>,
    /// Whether what others do afterwards may be learnt from how it ends: not from requests that are like no other.
    pub(crate) typical: bool,
    /// The client's conditions go to the origin, because nobody else waits for the answer.
    pub(crate) conditional: bool,
    /// Nobody waits: what is stored is served until all of the new is there, and until then nobody else asks.
    pub(crate) background: bool,
    /// Of the request.
    pub(crate) body: Option<Body>,
    pub(crate) leader: Option<oneshot::Sender<Exclusive>>,
    pub(crate) informational: Option<OnInformational>,
}

impl Order {
    /// Makes the fetch. Returns at the head of the response.
    pub(crate) async fn carry_out(mut self) -> Landing {
        let first = self.once().await;
        let landing = match first {
            Ok(landing) => landing,
            // What is stored, or what the origin said about it, was of no use: ask for the whole thing, once.
            Err(Again) => {
                self.forget_stale();
                self.fetch.stale = None;
                self.fetch.missing_from = None;
                self.once().await.unwrap_or_else(|Again| {
                    Landing::Failed(Failed::because("bad-response", "the origin's answers contradict each other"))
                })
            }
        };
        match &landing {
            Landing::Ready { .. } => {
                self.node.metrics.fetched.inc();
            }
            Landing::Alone(why) => {
                self.node.metrics.fetched.inc();
                self.node.metrics.count_not_stored(*why);
                if *why == NotStorable::Cookie {
                    let until_ms = self.node.now_ms() + HIT_FOR_MISS_MS;
                    self.node.change_page(&self.key, |page| page.personal_until_ms = until_ms);
                } else if self.typical && !why.is_about_request() {
                    let pass = Pass { until_ms: self.node.now_ms() + HIT_FOR_MISS_MS, why: *why };
                    self.node.change_page(&self.key, |page| page.pass = Some(pass));
                }
            }
            Landing::Failed(failed) => {
                self.node.metrics.fetch_failed.inc();
                tracing::warn!(zone = %self.zone.name, url = self.key.shown(), why = failed.word, error = failed.text, "fetch failed");
                if self.fetch.stale.is_some() {
                    let until_ms = self.node.now_ms() + DOWN_MS;
                    self.node.change_page(&self.key, |page| page.down_until_ms = until_ms);
                }
            }
            Landing::Outdated => {}
        }
        landing
    }

    /// Makes the fetch, unless somebody else's has just ended and stored something: between the look into the store and the
    /// start of a fetch there is time for that.
    pub(crate) async fn carry_out_if_due(self) -> Landing {
        let page = self.node.page(&self.key);
        let now = page.as_deref().and_then(|page| page.select(&self.asked.fields, !self.zone.strict()));
        let unchanged = match (now, &self.fetch.seen) {
            (None, None) => true,
            (Some(now), Some(seen)) => Arc::ptr_eq(now, seen),
            // What was seen has left the store, which leaves no less to be fetched.
            (None, Some(_)) => true,
            (Some(_), None) => false,
        };
        if unchanged { self.carry_out().await } else { Landing::Outdated }
    }

    async fn once(&mut self) -> Result<Landing, Again> {
        let fields = self.question();
        let asked_ms = self.node.now_ms();
        let name = self.node.config.node.name.as_str();
        let body = self.body.take().unwrap_or_default();
        let request = match self.asked.to_origin(&self.zone, fields, body, name, &self.node.pull.id) {
            Ok(request) => request,
            Err(problem) => return Ok(Landing::Failed(Failed::because("bad-request", problem.detail))),
        };
        let upstream = match &self.zone.upstream {
            Ok(upstream) => upstream,
            Err(why) => return Ok(Landing::Failed(Failed::because("bad-upstream", why.clone()))),
        };
        let answer = match upstream.send(request, self.informational.clone()).await {
            Ok(answer) => answer,
            Err(error) => return Ok(Landing::Failed(Failed::of(&error))),
        };
        if let Some(upgraded) = answer.upgraded {
            self.hand_over(Exclusive::Upgraded(answer.response, upgraded));
            return Ok(Landing::Alone(NotStorable::Method));
        }
        let (parts, body) = answer.response.into_parts();
        let answered_ms = self.node.now_ms();
        // A 304 to the client's own question says nothing about what others would get.
        self.typical &= parts.status != StatusCode::NOT_MODIFIED || self.fetch.stale.is_some();
        if self.asked.method == Method::HEAD {
            self.learn_from_head(&parts, asked_ms, answered_ms);
        }
        if !update::is_safe(&self.asked.method) {
            let host = &self.asked.authority;
            for target in update::invalidated(host, &self.asked.target, parts.status, &parts.headers) {
                self.node.invalidate(&self.key.zone, self.zone.doc.key.url_key(host, &target));
            }
            // What this very response brings is newer than what it has ended.
            self.began = self.node.began();
        }
        if is_failure(parts.status) && self.fetch.stale.is_some() && self.fetch.if_error {
            let text = format!("the origin answered {}", parts.status);
            let failed = Failed { status: Some(parts.status), ..Failed::because("origin-error", text) };
            return Ok(Landing::Failed(failed));
        }
        match (parts.status, self.fetch.stale.clone()) {
            (StatusCode::NOT_MODIFIED, Some(stale)) => self.confirmed(&stale, &parts, asked_ms, answered_ms),
            (StatusCode::NOT_MODIFIED, None) if !self.conditional => Err(Again),
            (StatusCode::RANGE_NOT_SATISFIABLE, _) if self.fetch.missing_from.is_some() => Err(Again),
            (StatusCode::PARTIAL_CONTENT, _) if self.pass.is_none() => {
                self.part(parts, body, asked_ms, answered_ms).await
            }
            _ => Ok(self.whole(parts, body, asked_ms, answered_ms).await),
        }
    }

    /// The fields of the request to the origin.
    fn question(&self) -> HeaderMap {
        let mut fields = self.asked.fields.clone();
        if !self.conditional {
            for name in
                [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE]
            {
                fields.remove(name);
            }
        }
        if !self.conditional {
            // What it is true for is judged here, with what comes for everybody.
            fields.remove(header::IF_RANGE);
        }
        if let Some(stale) = &self.fetch.stale {
            fields.remove(header::RANGE);
            copy(&stale.fields, header::ETAG, &mut fields, header::IF_NONE_MATCH);
            copy(&stale.fields, header::LAST_MODIFIED, &mut fields, header::IF_MODIFIED_SINCE);
        }
        if let Some(range) = self.aligned() {
            fields.insert(header::RANGE, range);
        }
        if let Some(from) = self.fetch.missing_from
            && let Ok(range) = HeaderValue::try_from(format!("bytes={from}-"))
        {
            fields.insert(header::RANGE, range);
            if let Some(part) = self.stored_part().filter(|part| part.strong_etag().is_some()) {
                copy(&part.fields, header::ETAG, &mut fields, header::IF_RANGE);
            }
        }
        fields
    }

    /// The range that the origin is asked for in the place of the client's: whole slices, where others may want them.
    pub(super) fn aligned(&self) -> Option<HeaderValue> {
        let shared = !self.conditional && self.asked.method == Method::GET;
        self.fetch.aligned(self.asked.fields.get(header::RANGE).filter(|_| shared)?)
    }

    pub(super) fn stored_part(&self) -> Option<Arc<Variant>> {
        let page = self.node.page(&self.key)?;
        let part = page.select(&self.asked.fields, !self.zone.strict())?;
        (self.node.verdict_on_variant(&self.key, part) == Verdict::Clean).then(|| Arc::clone(part))
    }

    /// Any response that is not a part.
    async fn whole(&mut self, parts: Parts, body: Body, asked_ms: u64, answered_ms: u64) -> Landing {
        let rules = self.rules(parts.status, &parts.headers);
        let judged = self.judge(&self.asked.method, parts.status, &parts.headers, asked_ms, answered_ms);
        let announced = http_body::Body::size_hint(&body).exact();
        let get = self.asked.method == Method::GET;
        let sliced = announced.filter(|length| {
            get && parts.status == StatusCode::OK && by_range::can_be_sliced(&parts.headers, *length, answered_ms)
        });
        // An error that one client's way of asking can cause does not take the place of something good.
        let good = self.fetch.stale.as_ref().is_some_and(|stale| stale.status.as_u16() < 400);
        let judged = match (judged, self.pass) {
            (_, Some(why)) => Err(why),
            (Ok(_), None) if good && api::pull::CAUSED_BY_REQUEST.contains(&parts.status.as_u16()) => {
                Err(NotStorable::Status)
            }
            (judged, None) => judged,
        };
        let mut spooled = None;
        if let (Ok(terms), Some(length)) = (&judged, announced.filter(|_| get && sliced.is_none())) {
            spooled = self.spooled(&parts, *terms, length, answered_ms).await;
        }
        let most_bytes = if sliced.or(spooled.as_ref().and(announced)).is_some() {
            self.zone.doc.max_object_bytes
        } else {
            self.most_bytes()
        };
        let judged = judged.and_then(|terms| {
            if announced.is_some_and(|bytes| bytes > most_bytes) { Err(NotStorable::TooLarge) } else { Ok(terms) }
        });
        let terms = match judged {
            Ok(terms) => terms,
            Err(why) => {
                // It is a newer answer than what is stored, unless it is an error: that may be about this request only.
                let gone = matches!(parts.status, StatusCode::NOT_FOUND | StatusCode::GONE);
                if (parts.status.is_success() || parts.status.is_redirection() || gone) && !why.is_about_request() {
                    self.forget_stale();
                }
                self.hand_over(Exclusive::Response(Response::from_parts(parts, body)));
                return Landing::Alone(why);
            }
        };
        if let (Some(variant), Some(length)) = (spooled, announced) {
            return self.land_sliced(variant, parts.status, 0..length, body);
        }
        if let Some(length) = sliced {
            let variant = self.variant(&parts, terms, rules.strip_set_cookie, answered_ms, |variant| {
                variant.content = Content::Sliced(Sliced::new(length, true, &variant.on_disk));
                variant.length = sliced;
            });
            return self.land_sliced(variant, parts.status, 0..length, body);
        }
        let growing = Growing::new(0, &self.node.pull.budget);
        let variant = self.variant(&parts, terms, rules.strip_set_cookie, answered_ms, |variant| {
            variant.content = Content::Growing(Arc::clone(&growing));
            variant.length = announced;
        });
        self.land(variant, &growing, parts.status, body, None).await
    }

    /// Makes a storable response known, and lets its body grow. `begin`: its first bytes, where they are stored already.
    pub(super) async fn land(
        &mut self,
        variant: Arc<Variant>,
        growing: &Arc<Growing>,
        status: StatusCode,
        body: Body,
        begin: Option<Vec<Bytes>>,
    ) -> Landing {
        // A part comes into the store at its end: until then it serves nobody but who asked for it.
        let at_end = self.background || variant.announced.is_some();
        let stored = at_end || self.keep(&variant);
        // What was not asked for by GET, or is no whole, has nothing that slices could be taken of.
        let whole = variant.announced.is_none() && variant.status == StatusCode::OK;
        let for_disk = whole && self.asked.method == Method::GET;
        let copy = Copying {
            node: Arc::clone(&self.node),
            key: self.key.clone(),
            growing: Arc::clone(growing),
            variant: Arc::clone(&variant),
            most_bytes: self.most_bytes(),
            most_on_disk: if for_disk { self.zone.doc.max_object_bytes } else { 0 },
            lenient: !self.zone.strict(),
            at_end,
            spool: None,
        };
        let small = http_body::Body::size_hint(&body).exact().is_some_and(|bytes| bytes <= SMALL_BODY_BYTES);
        let run = copy.run(body, begin.unwrap_or_default());
        if self.background {
            run.await;
        } else {
            let copying = tokio::spawn(run);
            if small && !at_end {
                // Most likely it has come with the head: then everybody gets it in one piece. The copying goes on by itself
                // where it has not.
                let _ = tokio::time::timeout(Duration::from_millis(SMALL_BODY_MS), copying).await;
                if let Some(whole) = self.node.page(&self.key).and_then(|page| {
                    let same = |stored: &&Arc<Variant>| stored.replaces(&variant) && stored.is_done_of(&variant);
                    page.variants.iter().find(same).cloned()
                }) {
                    return Landing::Ready { variant: whole, status, stored };
                }
            }
        }
        Landing::Ready { variant, status, stored }
    }

    pub(super) fn variant(
        &self,
        parts: &Parts,
        terms: Terms,
        strip_set_cookie: bool,
        answered_ms: u64,
        change: impl FnOnce(&mut Variant),
    ) -> Arc<Variant> {
        let mut fields = parts.headers.clone();
        strip(&mut fields);
        if strip_set_cookie {
            fields.remove(header::SET_COOKIE);
        }
        if !fields.contains_key(header::DATE) {
            date(&mut fields, answered_ms);
        }
        let selected_by = self.selected_by(&parts.headers);
        let mut variant = Variant {
            status: parts.status,
            tags: self.tags(&parts.headers),
            fields,
            content: Content::Parts(Vec::new()),
            body: OnceLock::new(),
            forms: Forms::default(),
            length: None,
            announced: None,
            selected_by,
            terms,
            answered_ms,
            began: self.began,
            checked: (AtomicU64::new(self.began.event), AtomicU64::new(self.began.local)),
            on_disk: Arc::default(),
        };
        change(&mut variant);
        Arc::new(variant)
    }

    /// What of the request has selected a response with these fields.
    pub(super) fn selected_by(&self, fields: &HeaderMap) -> Vec<(HeaderName, Option<Box<[u8]>>)> {
        match Vary::of(fields) {
            Vary::Fields(names) => {
                let value = |name: HeaderName| (vary::selecting_value(&name, &self.asked.fields), name);
                names.into_iter().map(value).map(|(value, name)| (name, value)).collect()
            }
            Vary::Any => Vec::new(), // not storable, so it is not looked at
        }
    }

    /// The tags of a response that was known by `before`, after an answer that may leave them out.
    pub(super) fn tags_after(&self, before: &[Tag], fields: &HeaderMap) -> Vec<Tag> {
        if fields.contains_key(SURROGATE_KEY) || fields.contains_key(CACHE_TAG) {
            self.tags(fields)
        } else {
            before.to_vec()
        }
    }

    /// Puts a variant into the store, unless a purge has named it since its fetch began.
    fn keep(&self, variant: &Arc<Variant>) -> bool {
        if self.node.verdict_on_variant(&self.key, variant) == Verdict::Hard {
            return false;
        }
        self.node.change_page(&self.key, |page| page.put(Arc::clone(variant)))
    }

    /// Takes what is stale, or a part that turned out useless, out of the store.
    pub(super) fn forget_stale(&self) {
        if let Some(stale) =
            self.fetch.stale.clone().or_else(|| self.fetch.missing_from.and_then(|_| self.stored_part()))
        {
            self.node.forget_variant(&self.key, &stale);
        }
    }

    pub(super) fn hand_over(&mut self, exclusive: Exclusive) {
        // A client that has gone away wants nothing; with it the connection to the origin is let go.
        if let Some(leader) = self.leader.take() {
            let _ = leader.send(exclusive);
        }
    }

    pub(super) fn rules(&self, status: StatusCode, fields: &HeaderMap) -> http_cache::response::Rules {
        rules_for(&self.zone, &self.asked, status, fields)
    }

    pub(super) fn judge(
        &self,
        method: &Method,
        status: StatusCode,
        fields: &HeaderMap,
        asked_ms: u64,
        answered_ms: u64,
    ) -> Result<Terms, NotStorable> {
        judge_for(&self.zone, &self.asked, method, (status, fields), asked_ms, answered_ms)
    }

    pub(super) fn tags(&self, fields: &HeaderMap) -> Vec<Tag> {
        let most = usize::try_from(self.zone.doc.max_tags).unwrap_or(usize::MAX);
        let (tags, left_out) = read_tags(fields, most);
        if left_out > 0 {
            self.node.metrics.tags_left_out.inc_by(left_out);
        }
        tags
    }

    pub(super) fn most_bytes(&self) -> u64 {
        self.zone.doc.max_object_bytes.min(self.node.most_body_bytes())
    }
}

/// The fetch has to be made once more, for the whole thing.
pub(super) struct Again;

/// What a zone's policy says about a response to a request.
fn rules_for(zone: &PullZone, asked: &Asked, status: StatusCode, fields: &HeaderMap) -> http_cache::response::Rules {
    let media_type = fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let personal = asked.may_be_personal(media_type);
    let rules = zone.rules(asked.path(), status, media_type, personal);
    let never = rules.never || zone.rules(&asked.plain_path(), status, media_type, personal).never;
    http_cache::response::Rules { never, ..rules }
}

/// On which terms a response to a request may be stored.
pub(crate) fn judge_for(
    zone: &PullZone,
    asked: &Asked,
    method: &Method,
    (status, fields): (StatusCode, &HeaderMap),
    asked_ms: u64,
    answered_ms: u64,
) -> Result<Terms, NotStorable> {
    let exchange = Exchange {
        method,
        request: &asked.fields,
        status,
        response: fields,
        own_location: update::is_own_location(&asked.authority, &asked.target, fields),
        // So that the time between is whole seconds, and not one more where a second has just begun.
        asked_s: (answered_ms / 1_000).saturating_sub(answered_ms.saturating_sub(asked_ms) / 1_000),
        answered_s: answered_ms / 1_000,
    };
    judge(&exchange, &rules_for(zone, asked, status, fields))
}

/// Says when a response arrived that does not say when it was made.
pub(super) fn date(fields: &mut HeaderMap, now_ms: u64) {
    if let Ok(date) = HeaderValue::try_from(http_cache::date::format(now_ms / 1_000)) {
        fields.insert(header::DATE, date);
    }
}

/// Removes what ends here, and what is for us or said anew at each answer.
pub(crate) fn strip(fields: &mut HeaderMap) {
    hop::strip(fields);
    for name in [targeted::SURROGATE_CONTROL, SURROGATE_KEY, CACHE_TAG, header::AGE, header::CONTENT_LENGTH] {
        fields.remove(name);
    }
}

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// The tags in `Surrogate-Key` (by spaces) and `Cache-Tag` (by commas), at most `most`; and how many were left out.
fn read_tags(fields: &HeaderMap, most: usize) -> (Vec<Tag>, u64) {
    let (mut tags, mut left_out): (Vec<Tag>, u64) = (Vec::new(), 0);
    for (name, separator) in [(SURROGATE_KEY, ' '), (CACHE_TAG, ',')] {
        for line in fields.get_all(name) {
            let text = String::from_utf8_lossy(line.as_bytes()).into_owned();
            for word in text.split(separator).map(str::trim).filter(|word| !word.is_empty()) {
                match word.parse::<Tag>() {
                    Ok(tag) if tags.contains(&tag) => {}
                    Ok(tag) if tags.len() < most => tags.push(tag),
                    _ => left_out += 1,
                }
            }
        }
    }
    (tags, left_out)
}

/// The errors in whose place what is stale may be served (RFC 5861 § 4).
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

fn copy(from: &HeaderMap, name: HeaderName, to: &mut HeaderMap, as_name: HeaderName) {
    if let Some(value) = from.get(name) {
        to.insert(as_name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_both_fields_are_bounded() {
        let mut fields = HeaderMap::new();
        fields.append(SURROGATE_KEY, HeaderValue::from_static("a b  c"));
        fields.append(CACHE_TAG, HeaderValue::from_static("c, d,e"));
        let (tags, left_out) = read_tags(&fields, 4);
        assert_eq!((tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(" "), left_out), ("a b c d".to_owned(), 1));
    }
}

//! What is done with a request: the one function behind serving and behind `explain`.
//!
//! Pure but for reading what is stored: it starts nothing and changes nothing. Every decision is told to a [`Trace`], which
//! forgets it when serving and keeps it when explaining.

use std::sync::Arc;

use api::{ExplainStep, SLICE_BYTES};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_cache::plan::{self, Plan};
use http_cache::response::{self, Use, Why};
use http_cache::{Forward, Outcome, Piece, Validators, date};

use crate::pull::asked::Asked;
use crate::pull::by_range;
use crate::pull::sliced::Sliced;
use crate::pull::stored::{Page, PageKey, Variant};
use crate::pull::zone::PullZone;
use crate::purges::Verdict;

/// Slices that are looked for before a response is called a hit: 1 GiB.
const MAX_SLICES_LOOKED_AT: usize = 1_024;

/// What is done with a request.
pub(crate) enum Decision {
    /// It is answered with what is stored. `refresh`: and that is asked about meanwhile.
    Answer { variant: Arc<Variant>, outcome: Outcome, refresh: bool },
    /// The origin is asked, together with everybody else who wants the same.
    Fetch(Fetch),
    /// The origin is asked for this request alone, and what it answers may be stored for others.
    Alone(Fetch),
    /// The origin is asked for this request alone, and what it answers is not stored.
    Pass { forward: Forward, why: &'static str },
    /// The client only wants what is stored, and it is not (RFC 9111 § 5.2.1.7).
    NotCached,
}

/// What a fetch starts from.
#[derive(Clone)]
pub(crate) struct Fetch {
    /// Why the request goes on.
    pub(crate) forward: Forward,
    /// What is stored and has to be asked about.
    pub(crate) stale: Option<Arc<Variant>>,
    /// It may be served if the origin fails.
    pub(crate) if_error: bool,
    /// A part of what is wanted is stored: from this byte on it is missing.
    pub(crate) missing_from: Option<u64>,
    /// What this was decided from: the stored variant that the request selects.
    pub(crate) seen: Option<Arc<Variant>>,
}

impl Fetch {
    /// The range that the origin is asked for in the place of the client's: whole slices, where nothing of it is stored yet
    /// or what is stored lies in slices.
    pub(crate) fn aligned(&self, range: &HeaderValue) -> Option<HeaderValue> {
        let unknown = self.stale.as_ref().is_none_or(|stale| stale.sliced().is_some());
        by_range::aligned(range).filter(|_| unknown && self.missing_from.is_none() && self.forward != Forward::Partial)
    }

    /// From nothing that is stored.
    pub(crate) fn afresh(forward: Forward) -> Self {
        Self { forward, stale: None, if_error: false, missing_from: None, seen: None }
    }
}

/// Who wants to know what was decided.
pub(crate) struct Trace(Option<Vec<ExplainStep>>);

impl Trace {
    /// Nobody.
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// `explain`.
    pub(crate) fn on() -> Self {
        Self(Some(Vec::new()))
    }

    /// Tells a decision; `what` is only called where somebody wants to know.
    pub(crate) fn step(&mut self, stage: &str, what: impl FnOnce() -> (String, Vec<(&'static str, String)>)) {
        if let Some(steps) = &mut self.0 {
            let (decision, facts) = what();
            let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            steps.push(ExplainStep { stage: stage.to_owned(), decision, facts });
        }
    }

    pub(crate) fn steps(self) -> Vec<ExplainStep> {
        self.0.unwrap_or_default()
    }
}

/// What is known when a request is decided about.
pub(crate) struct Known<'a> {
    pub(crate) page: Option<&'a Page>,
    /// What purges say about a variant.
    pub(crate) verdict: &'a dyn Fn(&Variant) -> Verdict,
    /// Whether a slice is stored.
    pub(crate) has_slice: &'a dyn Fn(&Sliced, u64) -> bool,
    /// Everything that control knows has been applied.
    pub(crate) caught_up: bool,
    pub(crate) now_ms: u64,
}

/// Decides.
pub(crate) fn decide(zone: &PullZone, asked: &Asked, key: &PageKey, known: &Known<'_>, trace: &mut Trace) -> Decision {
    trace.step("key", || {
        let mut facts = vec![("url", key.url.to_string())];
        if !key.more.is_empty() {
            facts.push(("more", key.more.to_string()));
        }
        if asked.target != asked.url.split_at_checked(asked.url.find('/').unwrap_or(0)).map_or("", |(_, target)| target)
        {
            facts.push(("asked", asked.target.clone()));
        }
        (format!("stored responses are looked for under {}", key.url), facts)
    });
    let bypass = asked.bypass(zone);
    if !asked.is_read() && bypass.is_none() {
        let why = if asked.upgrade.is_some() { "upgrade" } else { "method" };
        trace.step("method", || (format!("{} goes to the origin and is not stored", asked.method), Vec::new()));
        return Decision::Pass { forward: Forward::Method, why };
    }
    if let Some(entry) = bypass {
        trace.step("bypass", || {
            let rule = serde_json::to_string(entry).unwrap_or_default();
            ("a bypass rule of the zone fits: the cache is neither read nor written".to_owned(), vec![("rule", rule)])
        });
        return Decision::Pass { forward: Forward::Bypass, why: "bypass-rule" };
    }
    // What only the origin may judge (RFC 9111 § 4.3.2), it is asked.
    if asked.fields.contains_key(header::IF_MATCH) || asked.fields.contains_key(header::IF_UNMODIFIED_SINCE) {
        trace.step("precondition", || {
            ("the request has a condition that only the origin may judge".to_owned(), Vec::new())
        });
        return Decision::Pass { forward: Forward::Request, why: "precondition" };
    }
    let directives = response::asked(&asked.fields);
    let only_if_cached = directives.only_if_cached;
    let found = lookup(zone, asked, known, trace);
    if only_if_cached && !matches!(found, Decision::Answer { outcome, .. } if outcome != Outcome::Partial) {
        trace.step("answer", || ("the client only wants what is stored, and it is not".to_owned(), Vec::new()));
        return Decision::NotCached;
    }
    // A stored part, or nothing: the origin has to be asked, and for some requests by themselves.
    match found {
        Decision::Fetch(fetch) | Decision::Alone(fetch) if asked.has_body => {
            trace.step("answer", || ("a read with a body is not stored".to_owned(), Vec::new()));
            Decision::Pass { forward: fetch.forward, why: "request-body" }
        }
        Decision::Fetch(fetch) if directives.no_store => {
            trace.step("no-store", || {
                ("the request says no-store: it is asked for by itself, and nothing is stored".to_owned(), Vec::new())
            });
            Decision::Alone(fetch)
        }
        Decision::Fetch(fetch) if asked.fields.contains_key(header::AUTHORIZATION) => {
            trace.step("authorization", || {
                ("the request has Authorization: it is asked for by itself".to_owned(), Vec::new())
            });
            Decision::Alone(fetch)
        }
        found => found,
    }
}

fn lookup(zone: &PullZone, asked: &Asked, known: &Known<'_>, trace: &mut Trace) -> Decision {
    let miss = Fetch::afresh;
    let Some(page) = known.page else {
        trace.step("lookup", || ("nothing is stored under this key".to_owned(), Vec::new()));
        return Decision::Fetch(miss(Forward::UriMiss));
    };
    let passing = page.pass.filter(|pass| known.now_ms < pass.until_ms);
    let selected = page.select(&asked.fields, !zone.strict());
    trace.step("lookup", || {
        ("something is stored under this key".to_owned(), vec![("variants", page.variants.len().to_string())])
    });
    let Some(variant) = selected else {
        if let Some(pass) = passing {
            trace.step("pass", || {
                let left_ms = pass.until_ms - known.now_ms;
                let what = "a response under this key was not storable a short while ago: nobody waits for anybody";
                (what.to_owned(), vec![("why", pass.why.word().to_owned()), ("for_ms", left_ms.to_string())])
            });
            return Decision::Alone(miss(Forward::Miss));
        }
        if asked.personal && known.now_ms < page.personal_until_ms {
            trace.step("cookies", || {
                let what = "a response to a request with such a cookie was one person's a short while ago: nobody waits for it";
                (what.to_owned(), Vec::new())
            });
            return Decision::Alone(miss(Forward::Request));
        }
        let forward = if page.variants.is_empty() { Forward::Miss } else { Forward::VaryMiss };
        trace.step("variant", || {
            let names = page.selecting_names().iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            ("no stored variant is selected by this request".to_owned(), vec![("vary", names)])
        });
        return Decision::Fetch(miss(forward));
    };
    trace.step("variant", || {
        let selected_by = variant
            .selected_by
            .iter()
            .map(|(name, value)| match value {
                Some(value) => format!("{name}: {}", value.escape_ascii()),
                None => format!("{name} absent"),
            })
            .collect::<Vec<_>>()
            .join("; ");
        let facts = vec![
            ("status", variant.status.as_u16().to_string()),
            ("selected_by", if selected_by.is_empty() { "everything".to_owned() } else { selected_by }),
            ("bytes", variant.length.map_or_else(|| "not known yet".to_owned(), |length| length.to_string())),
            ("whole", variant.whole().to_string()),
            ("tier", if variant.on_disk.entry().is_some() { "disk" } else { "memory" }.to_owned()),
        ];
        ("this request selects a stored variant".to_owned(), facts)
    });
    if asked.personal && !variant.terms.shared {
        trace.step("cookies", || {
            let what = "the request has a cookie that may mark a person, and the response does not say that it is for everyone";
            (what.to_owned(), Vec::new())
        });
        return Decision::Alone(miss(Forward::Request));
    }
    judge(zone, asked, known, page, variant, trace)
}

/// A variant is selected: may it be used?
fn judge(
    zone: &PullZone,
    asked: &Asked,
    known: &Known<'_>,
    page: &Page,
    variant: &Arc<Variant>,
    trace: &mut Trace,
) -> Decision {
    let verdict = (known.verdict)(variant);
    trace.step("purge", || {
        let decision = match verdict {
            Verdict::Clean => "no purge has named it since it was fetched",
            Verdict::Soft => "a soft purge has named it: it is stale",
            Verdict::Unknown => "nobody can tell any more whether it was purged: it is asked about",
            Verdict::Hard => "a purge has named it: it is as if it were not there",
        };
        let tags = variant.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>().join(" ");
        let mut facts = vec![("fetched_at_event", variant.began.event.to_string())];
        if !tags.is_empty() {
            facts.push(("tags", tags));
        }
        (decision.to_owned(), facts)
    });
    if verdict == Verdict::Hard {
        return Decision::Fetch(Fetch { seen: Some(Arc::clone(variant)), ..Fetch::afresh(Forward::Miss) });
    }
    let age_s = variant.age_s(known.now_ms);
    let directives = (!zone.strict()).then(|| response::asked(&asked.fields));
    let usable = response::reuse(&variant.terms, age_s, directives.as_ref());
    trace.step("freshness", || {
        let terms = &variant.terms;
        let decision = match usable {
            Use::Fresh { ttl_s } => {
                format!(
                    "fresh for {ttl_s} s more: a lifetime of {} s less an age of {age_s} s",
                    terms.storable.lifetime_s
                )
            }
            Use::StaleAccepted { by_s } => format!("stale for {by_s} s, which the request accepts"),
            Use::WhileRevalidating { by_s } => format!("stale for {by_s} s, and served while it is asked about"),
            Use::Validate { why: Why::Stale, .. } => {
                format!("stale for {} s: it has to be asked about", age_s.saturating_sub(terms.storable.lifetime_s))
            }
            Use::Validate { why: Why::Request, .. } => "the request wants it newer".to_owned(),
        };
        let facts = vec![
            ("age_s", age_s.to_string()),
            ("age_when_it_arrived_s", terms.initial_age_s.to_string()),
            ("lifetime_s", terms.storable.lifetime_s.to_string()),
            ("lifetime_from", terms.lifetime_from.word().to_owned()),
            ("governed_by", terms.source.field().to_owned()),
            ("stale_while_revalidate_s", terms.storable.stale_while_revalidate_s.to_string()),
            ("stale_if_error_s", terms.storable.stale_if_error_s.to_string()),
        ];
        (decision, facts)
    });
    let certain = verdict == Verdict::Clean && known.caught_up;
    let stale = |forward, if_error| {
        let (stale, seen) = (Some(Arc::clone(variant)), Some(Arc::clone(variant)));
        Fetch { forward, stale, if_error, missing_from: None, seen }
    };
    match usable {
        Use::Fresh { .. } | Use::StaleAccepted { .. } | Use::WhileRevalidating { .. } if !certain => {
            let if_error = verdict == Verdict::Soft || !known.caught_up && verdict == Verdict::Clean;
            Decision::Fetch(stale(Forward::Stale, if_error && !variant.terms.never_stale))
        }
        Use::Fresh { .. } => covered(zone, asked, known, variant, Outcome::Hit, trace),
        Use::StaleAccepted { .. } => covered(zone, asked, known, variant, Outcome::Stale, trace),
        Use::WhileRevalidating { .. } => covered(zone, asked, known, variant, Outcome::Updating, trace),
        Use::Validate { if_error, .. }
            if if_error && verdict == Verdict::Clean && known.now_ms < page.down_until_ms =>
        {
            trace.step("answer", || {
                let left_ms = page.down_until_ms - known.now_ms;
                let what = "the origin has just failed: what is stale is served without asking";
                (what.to_owned(), vec![("for_ms", left_ms.to_string())])
            });
            covered(zone, asked, known, variant, Outcome::Stale, trace)
        }
        Use::Validate { why, if_error } => {
            let forward = if why == Why::Request { Forward::Request } else { Forward::Stale };
            let fetch = stale(forward, if_error && verdict != Verdict::Unknown);
            // What is never fresh answers nobody but who has asked about it: to wait for another's answer is of no use.
            if variant.terms.storable.lifetime_s == 0 { Decision::Alone(fetch) } else { Decision::Fetch(fetch) }
        }
    }
}

/// It may be used: are all the bytes here that are asked for?
fn covered(
    zone: &PullZone,
    asked: &Asked,
    known: &Known<'_>,
    variant: &Arc<Variant>,
    outcome: Outcome,
    trace: &mut Trace,
) -> Decision {
    let form = zone.form_for(asked, variant);
    if zone.compresses(variant).is_some() {
        trace.step("compression", || match form {
            Some((coding, bytes)) => {
                let facts = vec![("encoding", coding.word().to_owned()), ("bytes", bytes.len().to_string())];
                ("it is answered in a compressed form".to_owned(), facts)
            }
            None => ("it may be compressed; to this request it goes out as it came".to_owned(), Vec::new()),
        });
    }
    if form.is_some() {
        return Decision::Answer { variant: Arc::clone(variant), outcome, refresh: outcome == Outcome::Updating };
    }
    if let Some(missing) = variant.sliced().and_then(|sliced| missing_slice(asked, variant, sliced, known)) {
        if missing.ranges > 1 && missing.beyond > SLICE_BYTES {
            trace.step("slices", || {
                let what = "the slices of the ranges that are not stored are much more than the ranges: the origin is asked as the client asks";
                let facts = vec![("missing", missing.ranges.to_string()), ("bytes_more", missing.beyond.to_string())];
                (what.to_owned(), facts)
            });
            return Decision::Pass { forward: Forward::Partial, why: "several-ranges" };
        }
        trace.step("slices", || {
            let facts = vec![("slice", missing.first.to_string()), ("ranges", missing.ranges.to_string())];
            ("a slice that is asked for is not stored: it is fetched".to_owned(), facts)
        });
        let refresh = outcome == Outcome::Updating;
        return Decision::Answer { variant: Arc::clone(variant), outcome: Outcome::Partial, refresh };
    }
    if variant.whole() || has_all(asked, variant, known.now_ms) {
        let refresh = outcome == Outcome::Updating;
        return Decision::Answer { variant: Arc::clone(variant), outcome, refresh };
    }
    // What begins at the first byte can be completed; the rest is asked for as it is wanted. Without a strong validator the
    // origin's answer is most likely of no use (RFC 9111 § 3.4), and a strict zone does not try.
    let whole = asked.method == Method::GET
        && !asked.fields.contains_key(header::RANGE)
        && (variant.strong_etag().is_some() || !zone.strict());
    let missing_from = whole.then(|| variant.stored_from_start()).flatten();
    trace.step("parts", || {
        let what = "not all the bytes that are asked for are stored";
        (what.to_owned(), missing_from.map(|from| ("asked_for_from_byte", from.to_string())).into_iter().collect())
    });
    Decision::Fetch(Fetch { missing_from, seen: Some(Arc::clone(variant)), ..Fetch::afresh(Forward::Partial) })
}

/// Whether the stored parts hold every byte that the request asks for.
fn has_all(asked: &Asked, variant: &Variant, now_ms: u64) -> bool {
    let Some(length) = variant.length else { return false };
    match planned(asked, variant, length, now_ms, "") {
        Plan::Body { pieces, .. } if asked.method != Method::HEAD => pieces.iter().all(|piece| match piece {
            Piece::Text(_) => true,
            Piece::Span(range) => variant.has(*range),
        }),
        _ => true,
    }
}

/// What a request asks for and is not stored.
struct Missing {
    /// The first slice.
    first: u64,
    /// Ranges of which something is missing.
    ranges: usize,
    /// Bytes of their slices that are not asked for.
    beyond: u64,
}

fn missing_slice(asked: &Asked, variant: &Variant, sliced: &Sliced, known: &Known<'_>) -> Option<Missing> {
    let Plan::Body { pieces, .. } = planned(asked, variant, sliced.length, known.now_ms, "") else { return None };
    let mut missing: Option<Missing> = None;
    for piece in pieces {
        let Piece::Span(range) = piece else { continue };
        let (from, to) = (range.first / SLICE_BYTES, range.last / SLICE_BYTES + 1);
        let Some(first) = (from..to).take(MAX_SLICES_LOOKED_AT).find(|index| !(known.has_slice)(sliced, *index)) else {
            continue;
        };
        let end = to.saturating_mul(SLICE_BYTES).min(sliced.length);
        let beyond = end.saturating_sub(from * SLICE_BYTES).saturating_sub(range.len());
        let missing = missing.get_or_insert(Missing { first, ranges: 0, beyond: 0 });
        missing.ranges += 1;
        missing.beyond = missing.beyond.saturating_add(beyond);
    }
    missing
}

/// The answer to a request out of a stored representation of so many bytes.
pub(crate) fn planned(asked: &Asked, variant: &Variant, length: u64, now_ms: u64, boundary: &str) -> Plan {
    let media_type = text(&variant.fields, &header::CONTENT_TYPE).unwrap_or("application/octet-stream");
    let validators = validators(&variant.fields, now_ms);
    plan::plan(&asked.method, &asked.fields, &validators, length, media_type, boundary)
}

/// What identifies the state of a response.
pub(crate) fn validators(fields: &HeaderMap, now_ms: u64) -> Validators<'_> {
    let now_s = now_ms / 1_000;
    Validators {
        etag: text(fields, &header::ETAG).unwrap_or_default(),
        last_modified_s: text(fields, &header::LAST_MODIFIED).and_then(|text| date::parse(text, now_s)),
        now_s,
    }
}

fn text<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    fields.get(name)?.to_str().ok()
}

impl Variant {
    /// How many bytes are stored from the first one on, where that is less than all.
    fn stored_from_start(&self) -> Option<u64> {
        let last = self.length?.checked_sub(1)?;
        let crate::pull::stored::Content::Parts(parts) = &self.content else { return None };
        let part = parts.first().filter(|part| part.first == 0)?;
        (part.end() <= last).then(|| part.end())
    }
}

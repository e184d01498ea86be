//! Pull zones: a cache in front of an HTTP origin that knows nothing of us.
//!
//! Life of a request: read and made canonical (`asked.rs`) → decided (`decide.rs`, the same for `explain`) → answered with
//! what is stored (`answer.rs`), or asked of the origin (`fetch.rs`), together with everybody who wants the same
//! ([`crate::flights`]) → answered out of a body that may still be growing (`growing.rs`).
//!
//! What is stored (`stored.rs`) lies in the edge's memory tier; purges and invalidations are marks ([`crate::marks`]), of
//! control's events and of this edge's own, that every lookup compares with when a fetch began.

pub(crate) mod answer;
mod asked;
mod by_range;
mod confirmed;
mod copying;
mod decide;
mod explain;
mod fetch;
mod frozen;
mod growing;
mod keeping;
mod large;
mod packed;
mod partial;
mod purge;
mod ready;
mod runs;
mod slice_reader;
pub(crate) mod sliced;
mod spool;
pub(crate) mod stored;
mod upgrade;
pub(crate) mod zone;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::names::ZoneName;
use api::{ErrorCode, Problem, PurgeTargets, ZonePage};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_cache::response::Use;
use http_cache::{NotStorable, Outcome};
use net::{Body, Informational, OnInformational, Peer};
use tokio::sync::{Semaphore, oneshot};

use crate::flights::Flights;
use crate::marks::Began;
use crate::node::{Found, Link, Node};
use crate::pull::answer::Told;
pub(crate) use crate::pull::asked::Asked;
use crate::pull::by_range::Origin;
use crate::pull::decide::{Decision, Fetch, Known, Trace, decide};
pub(crate) use crate::pull::explain::{explain, imagined};
use crate::pull::fetch::{Exclusive, Failed, Landing, Order};
pub(crate) use crate::pull::frozen::{as_text, thaw};
use crate::pull::growing::Budget;
pub(crate) use crate::pull::packed::joined;
use crate::pull::ready::Lesson;
pub(crate) use crate::pull::ready::Ready;
use crate::pull::stored::{Page, PageKey, Variant};
use crate::pull::upgrade::Tunnel;
pub(crate) use crate::pull::zone::PullZone;
use crate::purges::Verdict;
use crate::serve::refuse;

/// Locks of pages: changes of pages that share one wait for each other.
const PAGE_LOCKS: usize = 64;
/// How often a request joins a fetch that turns out not to be for it, before it asks by itself.
const ROUNDS: u32 = 3;

/// What makes two fetches the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FlightKey {
    page: PageKey,
    /// What selects among the variants, as far as that is known.
    selecting: Vec<Option<Box<[u8]>>>,
    /// `Range`, as the origin is asked for it.
    range: Option<HeaderValue>,
    missing_from: Option<u64>,
    /// It serves nobody before its end, so nobody who has to wait waits for it.
    background: bool,
    /// What is fetched for somebody with a session is seldom for others, so nobody without one waits for it.
    personal: bool,
}

/// What the pull zones of an edge share.
pub(crate) struct PullState {
    /// Names this process in `CDN-Loop`.
    pub(crate) id: String,
    flights: Arc<Flights<FlightKey, Landing, Began>>,
    locks: [Mutex<()>; PAGE_LOCKS],
    hasher: RandomState,
    /// What growing bodies hold.
    pub(crate) budget: Arc<Budget>,
    /// Places for making compressed forms.
    pub(crate) packing: Arc<Semaphore>,
    /// From when on those of files are made again.
    pub(crate) packing_from_ms: AtomicU64,
}

impl PullState {
    /// `most_bytes`: of growing bodies at once; what would be more is passed through and not stored.
    pub(crate) fn new(most_bytes: u64) -> Self {
        Self {
            id: format!("{:016x}", fastrand::u64(..)),
            flights: Flights::new(),
            locks: std::array::from_fn(|_| Mutex::new(())),
            hasher: RandomState::new(),
            budget: Budget::new(most_bytes),
            packing: Arc::new(Semaphore::new(packed::MAX_PACKING)),
            packing_from_ms: AtomicU64::new(0),
        }
    }

    /// The lock under which the page of a key is changed.
    pub(crate) fn page_lock(&self, key: &PageKey) -> Option<MutexGuard<'_, ()>> {
        let index = self.hasher.hash_one(key) % PAGE_LOCKS as u64;
        let lock = self.locks.get(usize::try_from(index).ok()?)?;
        Some(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Node {
    /// The numbers that a fetch which begins now carries.
    pub(crate) fn began(&self) -> Began {
        self.marks.began()
    }

    /// Ends what is stored of a URL, because it was changed through here (RFC 9111 § 4.4).
    pub(crate) fn invalidate(&self, zone: &ZoneName, url: String) {
        self.marks.mark(PurgeTargets { pages: vec![ZonePage { zone: zone.clone(), url }], ..PurgeTargets::default() });
    }

    /// The worst that purges say about something under this key with these tags, fetched when `began`.
    fn verdict_since(&self, key: &PageKey, tags: &[api::Tag], began: Began) -> Verdict {
        let identity =
            crate::purges::Identity { at: Some((&key.zone, crate::purges::At::Page(&key.url))), id: None, tags };
        self.marks.verdict(identity, began)
    }

    /// The verdict on a variant, remembered in it until the next event.
    pub(crate) fn verdict_on_variant(&self, key: &PageKey, variant: &Variant) -> Verdict {
        let now = self.began();
        let checked = Began {
            event: variant.checked.0.load(Ordering::Acquire),
            local: variant.checked.1.load(Ordering::Acquire),
        };
        if checked == now {
            return Verdict::Clean;
        }
        let verdict = self.verdict_since(key, &variant.tags, variant.began);
        if verdict == Verdict::Clean {
            // `now` was read before the marks were, so this never claims more than was looked at.
            variant.checked.0.store(now.event, Ordering::Release);
            variant.checked.1.store(now.local, Ordering::Release);
        }
        verdict
    }
}

/// What a request's zone is part of.
pub(crate) struct Site {
    /// The number of the configuration.
    pub(crate) view: u64,
    /// What responses say of `Strict-Transport-Security`, where the origin says nothing.
    pub(crate) hsts: Option<HeaderValue>,
}

/// Answers a request to a pull zone.
pub(crate) async fn serve(
    node: &Arc<Node>,
    zone: &Arc<PullZone>,
    of: Site,
    mut parts: Parts,
    body: Body,
) -> Response<Body> {
    let started = Instant::now();
    let method = parts.method.clone();
    let has_body = !http_body::Body::is_end_stream(&body);
    match Asked::read(zone, &parts, has_body, &node.pull.id) {
        Ok(asked) if asked.method.as_str() == "PURGE" => {
            purge::serve(node, zone, &asked, &parts).await.unwrap_or_else(|problem| refuse(node, &method, &problem))
        }
        Ok(asked) if asked.method == Method::TRACE || asked.method == Method::CONNECT => {
            let detail = format!("an edge does not pass {} on", asked.method);
            refuse(node, &method, &Problem::new(ErrorCode::MethodNotAllowed, detail))
        }
        Ok(asked) if asked.method == Method::OPTIONS && forwards_left(&asked.fields) == Some(0) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, PURGE");
            response.headers_mut().insert(header::ALLOW, allowed);
            response
        }
        Ok(mut asked) => {
            if let Some(left) = forwards_left(&asked.fields).filter(|_| asked.method == Method::OPTIONS) {
                asked.fields.insert(header::MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1)));
            }
            let visit = Visit {
                node: Arc::clone(node),
                zone: Arc::clone(zone),
                asked: Arc::new(asked),
                started,
                informational: parts.extensions.remove::<Informational>().map(relay),
                found: Found::default(),
                lesson: Lesson::of(zone, of, &parts, has_body),
            };
            let on_upgrade = parts.extensions.remove::<net::OnUpgrade>().filter(|_| visit.asked.upgrade.is_some());
            let tunnel = match on_upgrade.map(|on_upgrade| (on_upgrade, Arc::clone(&zone.tunnels).try_acquire_owned()))
            {
                None => None,
                Some((on_upgrade, Ok(place))) => Some(Tunnel { on_upgrade, place }),
                Some((_, Err(_))) => {
                    let detail = "too many connections of this zone speak another protocol already";
                    return refuse(node, &method, &Problem::new(ErrorCode::Overloaded, detail));
                }
            };
            visit.serve(body, tunnel).await
        }
        Err(problem) => refuse(node, &method, &problem),
    }
}

/// How often a request may still be passed on (RFC 9110 § 7.6.2).
fn forwards_left(fields: &HeaderMap) -> Option<u32> {
    fields.get(header::MAX_FORWARDS)?.to_str().ok()?.trim().parse().ok()
}

/// Tells a client what the origin says before its response.
fn relay(informational: Informational) -> OnInformational {
    Arc::new(move |status, fields| {
        let mut fields = fields.clone();
        http_cache::hop::strip(&mut fields);
        informational.send(status, &fields);
    })
}

/// One request on its way through.
struct Visit {
    node: Arc<Node>,
    zone: Arc<PullZone>,
    asked: Arc<Asked>,
    started: Instant,
    informational: Option<OnInformational>,
    /// Where its page was when it came.
    found: Found,
    /// What may be learnt from it for the next of its kind.
    lesson: Option<Lesson>,
}

impl Visit {
    async fn serve(mut self, body: Body, tunnel: Option<Tunnel>) -> Response<Body> {
        let caught_up = crate::serve::catch_up(&self.node).await;
        let key = self.node.page_key(&self.zone, &self.asked);
        let mut from_disk = None;
        if self.asked.is_read() {
            self.found.in_memory = self.node.use_page(&key).is_some_and(|page| !page.variants.is_empty());
            if !self.found.in_memory {
                from_disk = self.node.find_page(&key).await;
                self.found.on_disk = from_disk.as_ref().is_some_and(|page| !page.variants.is_empty());
                self.found.seen = self.node.disk.as_ref().is_some_and(|tier| tier.was_seen(key.on_disk().0));
            }
        }
        let mut body = self.asked.has_body.then_some(body);
        for round in 1..=ROUNDS {
            match self.decide(&key, from_disk.take(), caught_up, &mut Trace::off()) {
                Decision::Answer { variant, outcome, refresh } => {
                    if refresh {
                        self.refresh(&key, &variant);
                    }
                    self.node.bring_to_disk(&key, &variant);
                    let away = !self.node.standalone() && *self.node.link.borrow() == Link::Away;
                    let forward = (outcome == Outcome::Partial).then_some(http_cache::Forward::Partial);
                    let stored = forward.is_some();
                    let told = Told { detail: away.then_some("disconnected"), forward, stored, ..Told::of(outcome) };
                    if let Some(response) = self.answer(&key, &variant, &told, false).await {
                        if let Some(lesson) = self.lesson.take_if(|_| outcome == Outcome::Hit) {
                            lesson.learn(&self.node, &self.zone, self.node.stored_as(key));
                        }
                        return response;
                    }
                }
                Decision::NotCached => {
                    let detail = "the request says only-if-cached, and there is nothing that may be used for it";
                    return self.refuse(&Problem::new(ErrorCode::NotCached, detail));
                }
                Decision::Pass { forward, why } => {
                    let fetch = Fetch::afresh(forward);
                    let how = How { pass: Some((NotStorable::Bypass, why)), typical: false };
                    return self.alone(&key, fetch, how, body.take(), tunnel).await;
                }
                Decision::Alone(fetch) => {
                    let typical = !self.asked.personal && !self.asked.fields.contains_key(header::AUTHORIZATION);
                    return self.alone(&key, fetch, How { pass: None, typical }, body.take(), tunnel).await;
                }
                // A HEAD does not bring what others want, so nobody waits for it.
                Decision::Fetch(fetch) if self.asked.method == Method::HEAD => {
                    let how = How { pass: None, typical: false };
                    return self.alone(&key, fetch, how, None, tunnel).await;
                }
                Decision::Fetch(fetch) => {
                    if let Some(response) = self.together(&key, fetch, round).await {
                        // It is most likely there now, and wanted again.
                        if let Some(lesson) = self.lesson.take_if(|_| self.node.page(&key).is_some()) {
                            lesson.learn(&self.node, &self.zone, self.node.stored_as(key));
                        }
                        return response;
                    }
                }
            }
        }
        // Whatever it joined was not for it: it asks by itself.
        let fetch = Fetch::afresh(http_cache::Forward::Miss);
        self.alone(&key, fetch, How { pass: None, typical: true }, body.take(), None).await
    }

    /// `from_disk`: what was found there, which memory may have refused.
    fn decide(&self, key: &PageKey, from_disk: Option<Arc<Page>>, caught_up: bool, trace: &mut Trace) -> Decision {
        let page = self.node.page(key).or(from_disk);
        let known = Known {
            page: page.as_deref(),
            verdict: &|variant| self.node.verdict_on_variant(key, variant),
            has_slice: &|body, index| body.has(&self.node, index),
            caught_up,
            now_ms: self.node.now_ms(),
        };
        decide(&self.zone, &self.asked, key, &known, trace)
    }

    /// Asks the origin together with everybody who wants the same. Nothing: it was not for this request after all.
    async fn together(&self, key: &PageKey, fetch: Fetch, round: u32) -> Option<Response<Body>> {
        let began = self.node.began();
        let flight = self.flight(key, &fetch);
        let (leader, exclusive) = oneshot::channel();
        // The first round joins any flight that no known purge makes useless. Tags are only known from the head, so a flight
        // can turn out useless at its end; the next round then takes none that began before this request did.
        let good_enough = |flight: Began| {
            if round == 1 { self.node.verdict_since(key, &[], flight) == Verdict::Clean } else { flight == began }
        };
        let order = |leader| self.order(key, began, fetch.clone(), leader);
        let seat = self.node.pull.flights.join(&flight, began, good_enough, || {
            let order = order(Some(leader));
            async move { order.carry_out_if_due().await }
        });
        let Some(seat) = seat else {
            let detail = "too many requests wait for the same already";
            return Some(self.refuse(&Problem::new(ErrorCode::Overloaded, detail)));
        };
        let collapsed = seat.collapsed;
        let landing = if collapsed {
            let wait = Duration::from_millis(self.zone.doc.timeouts.wait_ms.into());
            match tokio::time::timeout(wait, seat.result()).await {
                Ok(landing) => landing?,
                Err(_) => {
                    self.node.metrics.waits_ended.inc();
                    return Some(self.alone(key, fetch, How { pass: None, typical: false }, None, None).await);
                }
            }
        } else {
            seat.result().await?
        };
        match landing {
            Landing::Ready { variant, status, stored } => {
                let verdict = self.node.verdict_on_variant(key, &variant);
                let useless = collapsed && verdict != Verdict::Clean && variant.began != began;
                let not_for_me = self.asked.personal && !variant.terms.shared;
                let directives = None; // what it asks for is on its way to it, as new as can be
                let reusable = !matches!(
                    http_cache::response::reuse(&variant.terms, variant.age_s(self.node.now_ms()), directives),
                    Use::Validate { .. }
                );
                if collapsed && !reusable {
                    // It may be stored, but it answers no second request without being asked about (RFC 9111 § 4).
                    return Some(self.alone(key, fetch, How { pass: None, typical: true }, None, None).await);
                }
                if useless || not_for_me || !variant.selected(&self.asked.fields, !self.zone.strict()) {
                    return None;
                }
                self.ready(key, &fetch, &variant, status, stored, collapsed).await
            }
            // The one who asked was not like others, so this says nothing about what others get: one of them asks anew.
            Landing::Alone(why) if collapsed && why.is_about_request() && !self.asked.personal => None,
            Landing::Alone(_) if collapsed => {
                Some(self.alone(key, fetch, How { pass: None, typical: true }, None, None).await)
            }
            Landing::Alone(why) => self.exclusive(key, exclusive.await.ok()?, &fetch, why.word(), false, None).await,
            // It may have been how the other one asked.
            Landing::Failed(failed) if collapsed && round == 1 && failed.reached => None,
            Landing::Failed(failed) => Some(self.failed(key, &fetch, &failed).await),
            Landing::Outdated => None,
        }
    }

    /// Asks the origin for this request by itself.
    async fn alone(
        &self,
        key: &PageKey,
        fetch: Fetch,
        how: How,
        body: Option<Body>,
        tunnel: Option<Tunnel>,
    ) -> Response<Body> {
        let (leader, mut exclusive) = oneshot::channel();
        let mut order = self.order(key, self.node.began(), fetch.clone(), Some(leader));
        let conditional = fetch.stale.is_none() && fetch.missing_from.is_none();
        order.conditional = conditional;
        // The answer to a POST may be stored where it says so itself.
        let may_store = how.pass.is_some_and(|(_, word)| word == "method") && self.asked.method == Method::POST;
        order.pass = how.pass.map(|(why, _)| why).filter(|_| !may_store);
        order.typical = how.typical;
        order.body = body;
        let landing = order.carry_out().await;
        let response = match landing {
            Landing::Ready { variant, status, stored } => {
                self.ready(key, &fetch, &variant, status, stored, false).await
            }
            Landing::Alone(why) => match exclusive.try_recv() {
                Ok(exclusive) => {
                    let word = how.pass.map_or(why.word(), |(_, word)| word);
                    self.exclusive(key, exclusive, &fetch, word, conditional, tunnel).await
                }
                Err(_) => None,
            },
            Landing::Failed(failed) => return self.failed(key, &fetch, &failed).await,
            Landing::Outdated => None,
        };
        response.unwrap_or_else(|| {
            self.refuse(&Problem::new(ErrorCode::Overloaded, "the response was given up; try again"))
        })
    }

    fn order(&self, key: &PageKey, began: Began, fetch: Fetch, leader: Option<oneshot::Sender<Exclusive>>) -> Order {
        Order {
            node: Arc::clone(&self.node),
            zone: Arc::clone(&self.zone),
            asked: Arc::clone(&self.asked),
            key: key.clone(),
            began,
            fetch,
            pass: None,
            typical: !self.asked.personal,
            conditional: false,
            background: false,
            body: None,
            leader,
            informational: self.informational.clone(),
        }
    }

    fn flight(&self, key: &PageKey, fetch: &Fetch) -> FlightKey {
        let page = self.node.page(key);
        let names = page.as_deref().map(Page::selecting_names).unwrap_or_default();
        let selecting = names.iter().map(|name| http_cache::vary::selecting_value(name, &self.asked.fields)).collect();
        let field = |name| self.asked.fields.get(name).cloned();
        let range = field(header::RANGE).filter(|_| fetch.stale.is_none()).map(|range| {
            // Whoever wants other bytes of the same slices shares the fetch.
            fetch.aligned(&range).unwrap_or(range)
        });
        FlightKey {
            page: key.clone(),
            selecting,
            range,
            missing_from: fetch.missing_from,
            personal: self.asked.personal,
            background: false,
        }
    }

    /// Asks about what is served stale meanwhile, unless somebody does already.
    fn refresh(&self, key: &PageKey, variant: &Arc<Variant>) {
        let forward = http_cache::Forward::Stale;
        let (stale, seen) = (Some(Arc::clone(variant)), Some(Arc::clone(variant)));
        let fetch = Fetch { forward, stale, if_error: true, missing_from: None, seen };
        let began = self.node.began();
        let mut order = self.order(key, began, fetch.clone(), None);
        order.informational = None;
        order.background = true;
        order.asked = Arc::new(self.asked.as_get());
        let flight = FlightKey { background: true, ..self.flight(key, &fetch) };
        drop(self.node.pull.flights.join(&flight, began, |_| true, || async move { order.carry_out_if_due().await }));
    }

    /// The answer out of what a fetch brought.
    async fn ready(
        &self,
        key: &PageKey,
        fetch: &Fetch,
        variant: &Arc<Variant>,
        status: StatusCode,
        stored: bool,
        collapsed: bool,
    ) -> Option<Response<Body>> {
        let outcome = match (&fetch.stale, status) {
            (Some(_), StatusCode::NOT_MODIFIED) => Outcome::Revalidated,
            (Some(_), _) => Outcome::Expired,
            (None, _) if fetch.forward == http_cache::Forward::Partial => Outcome::Partial,
            (None, _) => Outcome::Miss,
        };
        let told = Told { forward: Some(fetch.forward), status: Some(status), stored, collapsed, ..Told::of(outcome) };
        let if_range = self.asked.fields.contains_key(header::IF_RANGE);
        let as_it_came = variant.announced.as_ref().is_some_and(|part| !part.aligned && !if_range);
        self.answer(key, variant, &told, as_it_came).await
    }

    /// The answer out of a variant. Nothing: it does not have what is asked for, or not any more.
    async fn answer(
        &self,
        key: &PageKey,
        variant: &Arc<Variant>,
        told: &Told,
        as_it_came: bool,
    ) -> Option<Response<Body>> {
        let origin = Origin {
            node: Arc::clone(&self.node),
            zone: Arc::clone(&self.zone),
            asked: Arc::clone(&self.asked),
            key: key.clone(),
            variant: Arc::clone(variant),
        };
        match answer::from_variant(&origin, variant, as_it_came).await {
            Ok(response) => {
                let mut response = response?;
                // What is asked for once is not worth the work.
                if !matches!(told.outcome, Outcome::Miss | Outcome::Expired) {
                    self.node.pack_for(&self.zone, &self.asked, key, variant);
                }
                self.finish(&mut response, Some(variant), told);
                if self.asked.method == Method::GET && (self.found.in_memory || told.stored || told.forward.is_none()) {
                    self.node.count_use(key, variant, self.found);
                }
                Some(response)
            }
            Err(sliced::CHANGED) => None,
            Err(word) => {
                let detail = format!("the origin gave no usable answer ({word})");
                Some(self.refuse(&Problem::new(ErrorCode::UpstreamUnreachable, detail)))
            }
        }
    }

    /// The response that is for this request only.
    async fn exclusive(
        &self,
        key: &PageKey,
        exclusive: Exclusive,
        fetch: &Fetch,
        why: &'static str,
        conditional: bool,
        tunnel: Option<Tunnel>,
    ) -> Option<Response<Body>> {
        let outcome = match fetch.forward {
            http_cache::Forward::Bypass | http_cache::Forward::Method => Outcome::Bypass,
            _ if fetch.stale.is_some() => Outcome::Expired,
            _ => Outcome::Miss,
        };
        let told = Told { forward: Some(fetch.forward), detail: Some(why), ..Told::of(outcome) };
        let mut response = match exclusive {
            Exclusive::Confirmed(variant) => {
                let told = Told { outcome: Outcome::Revalidated, status: Some(StatusCode::NOT_MODIFIED), ..told };
                return self.answer(key, &variant, &told, false).await;
            }
            Exclusive::Upgraded(response, upstream) => upgrade::switch(response, upstream, tunnel?),
            Exclusive::Response(response) => {
                let told = Told { status: Some(response.status()), ..told };
                let mut response = answer::from_origin(&self.node, &self.asked, response, conditional);
                self.finish(&mut response, None, &told);
                return Some(response);
            }
        };
        self.finish(&mut response, None, &told);
        Some(response)
    }

    /// The origin could not be asked, or failed: what is stale, where that is allowed, else an error.
    async fn failed(&self, key: &PageKey, fetch: &Fetch, failed: &Failed) -> Response<Body> {
        // A purge may have come while the origin was asked.
        let usable =
            |stale: &&Arc<Variant>| fetch.if_error && self.node.verdict_on_variant(key, stale) <= Verdict::Soft;
        if let Some(stale) = fetch.stale.as_ref().filter(usable) {
            let told = Told {
                forward: Some(fetch.forward),
                status: failed.status,
                detail: Some(failed.word),
                ..Told::of(Outcome::Stale)
            };
            if let Some(response) = self.answer(key, stale, &told, false).await {
                return response;
            }
        }
        // A stale response that must never be used leaves a gateway timeout (RFC 9111 § 5.2.2.2).
        let code = if failed.timeout || fetch.stale.as_ref().is_some_and(|stale| stale.terms.never_stale) {
            ErrorCode::UpstreamTimeout
        } else {
            ErrorCode::UpstreamUnreachable
        };
        // Where the origin is and what exactly it did is for the log, not for the world.
        self.refuse(&Problem::new(code, format!("the origin gave no usable answer ({})", failed.word)))
    }

    fn refuse(&self, problem: &Problem) -> Response<Body> {
        // Without `Cache-Status`: it is of no cached response (RFC 9211 § 2).
        refuse(&self.node, &self.asked.method, problem)
    }

    fn finish(&self, response: &mut Response<Body>, variant: Option<&Variant>, told: &Told) {
        answer::finish(&self.node, &self.zone, response, variant, told, self.started.elapsed());
    }
}

/// How the origin is asked for one request alone.
struct How {
    /// Nothing is stored, and why, with the word for `Cache-Status`.
    pass: Option<(NotStorable, &'static str)>,
    /// See [`Order::typical`].
    typical: bool,
}

/// Whether who asks may purge and explain without a token.
pub(crate) fn may_operate(node: &Node, zone: &PullZone, peer: Option<&Peer>, fields: &HeaderMap) -> bool {
    let Some(address) = peer.map(|peer| peer.address.ip().to_canonical()) else { return false };
    // Behind a proxy on this machine everybody comes from here.
    let through_proxy = ["x-forwarded-for", "forwarded", "via"].iter().any(|name| fields.contains_key(*name));
    !through_proxy
        && (asked::contains(&zone.doc.purge_networks, address)
            || (node.standalone() && zone.doc.purge_networks.is_empty() && address.is_loopback()))
}

//! A request, stage by stage: method → target → access → head (store or fetch) → plan → body → response.
//!
//! Each stage is a function; what the cache did is one [`Outcome`], the same in `Cache-Status`, `X-Cache` and the metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::addressing::{Target, request_host};
use api::{Access, ErrorCode, ExplainRequest, Problem, TokenSecret, ZoneDoc, problem};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_cache::{CacheStatus, Freshness, Outcome, Plan, Validators, coding, plan};
use net::{Body, Incoming};

use crate::access_log::Entry;
use crate::fetch::{FetchError, Fetched, fetch_head};
use crate::forms::Wanted;
use crate::head::Head;
use crate::https;
use crate::node::{FileKey, Link, Lookup, Node, View};
use crate::pull::answer::{CACHE_STATUS, SERVER_TIMING, X_CACHE};
use crate::pull::{self, PullZone, Site};
use crate::purges::Verdict;
use crate::reader;

/// How long a request waits for an edge that is catching up, in milliseconds. After that, what is stored is revalidated.
const CATCH_UP_WAIT_MS: u64 = 2_000;
/// Fetches that one request may start or join before it takes what it got: a purge by tag can make the first useless.
const FETCHES_PER_REQUEST: u32 = 2;

/// Longest body of a request to explain something, in bytes.
const MAX_EXPLAIN_BYTES: usize = 256 << 10;

/// Answers a request. Never fails: what goes wrong is a problem document.
pub(crate) async fn serve(node: Arc<Node>, request: Request<Incoming>) -> Response<Body> {
    let log = node.config.access_log.as_ref().filter(|log| log.picks());
    let entry = log.map(|log| Entry::of(log, node.config.node.name.as_str(), &request, node.now_ms()));
    let response = serve_unlogged(node, request).await;
    match entry {
        Some(entry) => entry.follow(response),
        None => response,
    }
}

async fn serve_unlogged(node: Arc<Node>, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let _active = node.metrics.begin();
    let (mut parts, body) = request.into_parts();
    let view = node.view();
    let zone = view.as_ref().and_then(|view| view.zones.by_host(request_host(&parts.uri, &parts.headers)));
    let wants_tls = zone.filter(|zone| zone.tls.is_some() && !operates(&parts));
    if let Some(response) = wants_tls.and_then(|zone| https::redirect(zone, &parts, node.https_port.get().copied())) {
        return response;
    }
    let secure = wants_tls.is_some() && https::is_secure(&parts);
    let pulled = view.as_ref().zip(zone).and_then(|(view, zone)| Some((zone, view.pulls.get(&zone.name)?)));
    let mut response = if let (Method::POST, api::explain::EXPLAIN_PATH) = (parts.method.clone(), parts.uri.path()) {
        explain(&node, &parts, body).await.unwrap_or_else(|problem| refuse(&node, &Method::POST, &problem))
    } else if let (Some(view), Some((doc, zone))) = (&view, pulled) {
        let admitted = admit(&node, view, doc, &parts);
        if doc.access == Access::Private && parts.method.as_str() != "PURGE" {
            // It has served its purpose; what it opens here is no business of the origin's.
            parts.headers.remove(header::AUTHORIZATION);
        }
        let of = Site { view: view.number, hsts: https::hsts(doc, secure) };
        let mut response = match admitted {
            Ok(()) => pull::serve(&node, zone, of, parts, Body::wrap(body)).await,
            Err(problem) => refuse(&node, &parts.method, &problem),
        };
        node.metrics.observe(started.elapsed());
        https::tell(doc, secure, response.headers_mut());
        return response;
    } else {
        answer(&node, &parts).await.unwrap_or_else(|problem| refuse(&node, &parts.method, &problem))
    };
    node.metrics.observe(started.elapsed());
    finish(&node, response.headers_mut(), started.elapsed());
    if let Some(zone) = wants_tls {
        https::tell(zone, secure, response.headers_mut());
    }
    response
}

/// Whether a request comes from an operator, who is not led anywhere.
fn operates(request: &Parts) -> bool {
    request.method.as_str() == "PURGE" || request.uri.path() == api::explain::EXPLAIN_PATH
}

/// The pull zone that a request is for, if it is for one.
fn pull_zone<'a>(view: &'a View, request: &Parts) -> Option<(&'a ZoneDoc, &'a Arc<PullZone>)> {
    let doc = view.zones.by_host(request_host(&request.uri, &request.headers))?;
    Some((doc, view.pulls.get(&doc.name)?))
}

/// Answers `POST /-/explain`.
async fn explain(node: &Arc<Node>, request: &Parts, body: Incoming) -> Result<Response<Body>, Problem> {
    let invalid = |detail: String| Problem::new(ErrorCode::InvalidRequest, detail);
    let view = node.view().ok_or_else(|| FetchError::NoConfiguration.to_problem())?;
    let body = net::read_to_end(body, MAX_EXPLAIN_BYTES).await.map_err(|error| invalid(error.to_string()))?;
    let what: ExplainRequest = serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
    let mut imagined = pull::imagined(&what, request.extensions.get())?;
    let Some((doc, zone)) = pull_zone(&view, &imagined) else {
        return Err(Problem::new(ErrorCode::UnknownZone, "no pull zone answers for this host"));
    };
    if !pull::may_operate(node, zone, request.extensions.get(), &request.headers)
        && !presents_token(node, &view, request)
    {
        let detail = "explain needs a token with the scope 'read', or an address in the zone's purge_networks";
        return Err(Problem::new(ErrorCode::Unauthorized, detail));
    }
    if doc.access == Access::Private {
        imagined.headers.remove(header::AUTHORIZATION); // it would end at this edge
    }
    let explanation = pull::explain(node, zone, &imagined).await?;
    let json =
        serde_json::to_vec(&explanation).map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    let mut response = Response::new(Body::full(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn presents_token(node: &Node, view: &View, request: &Parts) -> bool {
    let token =
        request.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = token.and_then(|token| TokenSecret::parse(token).ok());
    token.is_some_and(|token| view.may_read(&token, node.now_ms()))
}

async fn answer(node: &Arc<Node>, request: &Parts) -> Result<Response<Body>, Problem> {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Err(Problem::new(
            ErrorCode::MethodNotAllowed,
            format!("an edge answers GET and HEAD, not {}", request.method),
        ));
    }
    let view = node.view().ok_or_else(|| FetchError::NoConfiguration.to_problem())?;
    let raw_path = request.uri.path();
    let target = view.zones.target(request_host(&request.uri, &request.headers), raw_path)?;
    if let Target::Path { zone, .. } = &target {
        admit(node, &view, zone, request)?;
    }
    let mut found = obtain(node, FileKey::of(&target)).await?;
    if let Target::Id { .. } = target {
        let zone = view.zones.by_name(&found.head.zone).ok_or_else(not_found)?;
        admit(node, &view, zone, request)?;
    }
    respond(node, request, &mut found).await
}

fn not_found() -> Problem {
    Problem::new(ErrorCode::UnknownFile, "there is no file at this address")
}

/// Access: anyone reads a public zone; a private one, who presents a token with the scope `read`.
fn admit(node: &Node, view: &View, zone: &ZoneDoc, request: &Parts) -> Result<(), Problem> {
    if zone.access == Access::Public {
        return Ok(());
    }
    let Some(value) = request.headers.get(header::AUTHORIZATION) else {
        let detail = format!(
            "zone '{}' is private: present a token with the scope 'read' as «Authorization: Bearer …»",
            zone.name
        );
        return Err(Problem::new(ErrorCode::Unauthorized, detail));
    };
    let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).map(TokenSecret::parse);
    match token {
        Some(Ok(token)) if view.may_read(&token, node.now_ms()) => Ok(()),
        Some(_) => Err(Problem::new(
            ErrorCode::Unauthorized,
            "the token is not known here, has expired, or lacks the scope 'read'",
        )),
        None => Err(Problem::new(ErrorCode::Unauthorized, "the Authorization header must be «Bearer TOKEN»")),
    }
}

/// A head to answer with, and how it was come by.
struct Found {
    head: Arc<Head>,
    /// The first slice, where it came with the head.
    first: Option<Bytes>,
    outcome: Outcome,
    forward_status: Option<u16>,
    stored: bool,
    collapsed: bool,
    detail: Option<&'static str>,
}

impl Found {
    fn stored(head: Arc<Head>, outcome: Outcome, detail: Option<&'static str>) -> Self {
        Self { head, first: None, outcome, forward_status: None, stored: false, collapsed: false, detail }
    }
}

/// The head of a file: from the store where it may be used, else from the origin.
async fn obtain(node: &Arc<Node>, file: FileKey) -> Result<Found, Problem> {
    let caught_up = catch_up(node).await;
    let asked_at = node.applied();
    let key = node.head_key(file);
    node.find_head(&key).await;
    let (stale, if_error) = match node.lookup(&key) {
        Lookup::Fresh(head) if caught_up => {
            node.bring_file_to_disk(&key, &head);
            let away = *node.link.borrow() == Link::Away;
            return Ok(Found::stored(head, Outcome::Hit, away.then_some("disconnected")));
        }
        Lookup::Fresh(head) => (Some(head), true),
        Lookup::Stale { head, if_error } => (Some(head), if_error),
        Lookup::Absent if caught_up => return Err(not_found()),
        Lookup::Absent | Lookup::Nothing => (None, false),
    };
    let mut last = Err(FetchError::Overloaded);
    for round in 1..=FETCHES_PER_REQUEST {
        // The first round joins any flight that no known purge makes useless. Tags are only known from the head, so a flight
        // can turn out useless at its end; the second round then takes none that began before this request did.
        let good_enough = |began| if round == 1 { node.still_good(&key.file, began) } else { began >= asked_at };
        let began = node.applied();
        let start = || fetch_head(Arc::clone(node), key.clone(), began, stale.clone());
        let Some(seat) = node.heads.join(&key, began, good_enough, start) else { break };
        let collapsed = seat.collapsed;
        last = seat.result().await.unwrap_or(Err(FetchError::Overloaded)).map(|fetched| (fetched, collapsed));
        let useless = match &last {
            Ok((fetched, _)) => match &**fetched {
                Fetched::File { head, .. } => head.began < asked_at && node.verdict_on(head) != Verdict::Clean,
                Fetched::Absent => false,
            },
            Err(_) => false,
        };
        if !useless {
            break;
        }
    }
    match last {
        Ok((fetched, collapsed)) => match &*fetched {
            Fetched::Absent => Err(not_found()),
            Fetched::File { head, first, revalidated, stored } => {
                let outcome = match (revalidated, &stale) {
                    (true, _) => Outcome::Revalidated,
                    (false, Some(_)) => Outcome::Expired,
                    (false, None) => Outcome::Miss,
                };
                let forward_status = Some(if *revalidated { 304 } else { 200 });
                let head = Arc::clone(head);
                Ok(Found {
                    head,
                    first: first.clone(),
                    outcome,
                    forward_status,
                    stored: *stored,
                    collapsed,
                    detail: None,
                })
            }
        },
        Err(FetchError::Refused(problem)) => Err(problem),
        Err(error) => match stale {
            Some(head) if if_error => Ok(Found::stored(head, Outcome::Stale, Some("origin-unreachable"))),
            _ => Err(error.to_problem()),
        },
    }
}

/// Waits until the events that are known to be missing are applied. False: it took too long.
pub(crate) async fn catch_up(node: &Node) -> bool {
    if *node.link.borrow() != Link::CatchingUp {
        return true;
    }
    let mut link = node.link.subscribe();
    let over = link.wait_for(|link| *link != Link::CatchingUp);
    tokio::time::timeout(Duration::from_millis(CATCH_UP_WAIT_MS), over).await.is_ok()
}

/// Plans the answer, makes sure of its first slice, and builds the response.
async fn respond(node: &Arc<Node>, request: &Parts, found: &mut Found) -> Result<Response<Body>, Problem> {
    let head = Arc::clone(&found.head);
    let wanted = Wanted::of(&request.headers, &head);
    let form = node.form_of_file(&wanted, &head);
    let etag = head.etag.to_str().unwrap_or_default();
    let size = form.as_ref().map_or(head.size, |(_, form)| form.len() as u64);
    let now_s = node.now_ms() / 1_000;
    let last_modified_s =
        head.last_modified.as_ref().and_then(|value| http_cache::date::parse(value.to_str().ok()?, now_s));
    let validators = Validators { etag, last_modified_s, now_s };
    let media_type = head.media_type.to_str().unwrap_or("application/octet-stream");
    // No body holds a boundary that is part of its own digest, short of breaking BLAKE3.
    let boundary = format!("littoral-{}", head.digest);
    let conditions = wanted.conditions(&request.headers);
    let planned = plan::plan(&request.method, &conditions, &validators, size, media_type, &boundary);
    let mut fields = described(&head);
    if !matches!(wanted, Wanted::Nothing) {
        coding::vary_by_coding(&mut fields);
    }
    let planned = match (planned, &wanted) {
        (Plan::Body { .. }, Wanted::Has(tag)) => {
            fields.insert(header::ETAG, tag.clone());
            Plan::NotModified
        }
        (planned, _) => planned,
    };
    let (status, body) = match planned {
        Plan::Body { status, content_range, content_type, length, pieces } => {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            set(&mut fields, header::CONTENT_RANGE, content_range);
            set(&mut fields, header::CONTENT_TYPE, content_type);
            if found.outcome == Outcome::Hit && status == StatusCode::OK && request.method == Method::GET {
                node.pack_file(&wanted, &head, form.as_ref().map(|(coding, _)| *coding));
            }
            let body = match form {
                Some((coding, form)) => {
                    coding.describe(&mut fields);
                    // Of a HEAD there are none.
                    if pieces.is_empty() { Body::empty() } else { reader::whole(node, form) }
                }
                None => {
                    let first = first_bytes(node, found, &pieces).await?;
                    reader::body(Arc::clone(node), head, pieces, first)
                }
            };
            (status, body)
        }
        Plan::NotModified => {
            fields.remove(header::CONTENT_TYPE);
            (StatusCode::NOT_MODIFIED, Body::empty())
        }
        Plan::PreconditionFailed => {
            return Err(Problem::new(
                ErrorCode::PreconditionFailed,
                "the file is not in the state that If-Match or If-Unmodified-Since asks for",
            ));
        }
        Plan::NotSatisfiable { content_range, too_many } => {
            let problem = not_satisfiable(head.size, too_many);
            node.metrics.refused.inc();
            let mut response = problem_response(&request.method, &problem);
            set(response.headers_mut(), header::CONTENT_RANGE, Some(content_range));
            return Ok(response);
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    tell(node, found, response.headers_mut());
    node.metrics.count(found.outcome);
    Ok(response)
}

fn not_satisfiable(size: u64, too_many: bool) -> Problem {
    if too_many {
        let detail = format!("at most {} ranges in one request", http_cache::range::MAX_RANGES);
        return Problem::new(ErrorCode::TooManyRanges, detail);
    }
    Problem::new(ErrorCode::RangeNotSatisfiable, format!("no part of the range lies in the {size} bytes of the file"))
}

/// The slice that the answer begins with, before its head is sent: what cannot be had is a clean error then.
async fn first_bytes(
    node: &Arc<Node>,
    found: &mut Found,
    pieces: &[http_cache::Piece],
) -> Result<Option<Bytes>, Problem> {
    let Some(index) = reader::first_slice(pieces) else { return Ok(None) };
    if let Some(first) = found.first.take()
        && index == 0
    {
        return Ok(Some(first));
    }
    if found.forward_status.is_none() && found.outcome == Outcome::Hit && !reader::all_stored(node, &found.head, pieces)
    {
        found.outcome = Outcome::Partial;
    }
    match reader::slice(node, &found.head, index).bytes().await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => Err(error.to_problem()),
    }
}

/// What a response says about the file.
fn described(head: &Head) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(16);
    fields.insert(header::CONTENT_TYPE, head.media_type.clone());
    fields.insert(header::ETAG, head.etag.clone());
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(value) = &head.last_modified {
        fields.insert(header::LAST_MODIFIED, value.clone());
    }
    if let Some(value) = &head.cache_control {
        fields.insert(header::CACHE_CONTROL, value.clone());
    }
    fields
}

/// What a response says about the cache.
fn tell(node: &Node, found: &Found, fields: &mut HeaderMap) {
    let age_s = found.head.age_s(node.now_ms());
    let ttl_s = found.head.storable.map(|storable| match storable.at(age_s) {
        Freshness::Fresh { ttl_s } => i64::try_from(ttl_s).unwrap_or(i64::MAX),
        Freshness::Stale { by_s, .. } => i64::try_from(by_s).map_or(i64::MIN, |by_s| -by_s),
    });
    let status = CacheStatus {
        node: node.config.node.name.as_str(),
        outcome: found.outcome,
        forward: None,
        ttl_s,
        forward_status: found.forward_status,
        stored: found.stored,
        collapsed: found.collapsed,
        detail: found.detail,
    };
    fields.insert(header::AGE, HeaderValue::from(age_s));
    fields.insert(X_CACHE, HeaderValue::from_static(found.outcome.x_cache()));
    set(fields, CACHE_STATUS, Some(status.to_string()));
}

/// What every response says.
fn finish(node: &Node, fields: &mut HeaderMap, took: Duration) {
    set(fields, header::VIA, Some(format!("1.1 littoral-{}", node.config.node.name)));
    set(fields, SERVER_TIMING, Some(format!("edge;dur={:.3}", took.as_secs_f64() * 1_000.0)));
}

fn set(fields: &mut HeaderMap, name: HeaderName, value: Option<String>) {
    // Every value here is made of visible ASCII, so it is always one.
    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
        fields.insert(name, value);
    }
}

pub(crate) fn refuse(node: &Node, method: &Method, problem: &Problem) -> Response<Body> {
    let counter = match problem.http_status() {
        StatusCode::NOT_FOUND => &node.metrics.not_found,
        status if status.is_server_error() => &node.metrics.failed,
        _ => &node.metrics.refused,
    };
    counter.inc();
    problem_response(method, problem)
}

fn problem_response(method: &Method, problem: &Problem) -> Response<Body> {
    let json = problem.to_json();
    let length = json.len();
    let body = if method == Method::HEAD { Body::empty() } else { Body::full(json) };
    let mut response = Response::new(body);
    *response.status_mut() = problem.http_status();
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::PROBLEM_JSON));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match problem.code {
        ErrorCode::MethodNotAllowed => fields.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD")),
        ErrorCode::Unauthorized => fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        ErrorCode::Overloaded => fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1")),
        _ => None,
    };
    response
}

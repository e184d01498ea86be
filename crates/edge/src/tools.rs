//! What tools ask of a running edge: [`api::cache`], behind the admin listener of its process.
//!
//! Every answer is a bounded piece of work, and whoever asked goes on with the cursor that it got: nothing goes on here
//! when a tool has gone. Memory is looked at in steps of [`shelf::memory::STEP_SLOTS`] slots under one lock, and outside
//! of it everything is judged. What reads files does so on threads that may block.

mod filter;
mod listing;
mod rows;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use api::cache::{CACHE_PATH, CacheFinding, CacheShow, CacheVerified, CacheVerify, DEFAULT_VERIFY_BYTES_PER_S};
use api::{ErrorCode, Problem, problem};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use net::Body;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::node::Node;
use crate::tools::listing::Cursor;

/// Bytes that a step of a verification reads, about.
const VERIFY_STEP_BYTES: u64 = 16 << 20;
/// The lowest rate of a verification, in bytes for a second: a step takes less than half a minute.
const MIN_VERIFY_BYTES_PER_S: u64 = 1 << 20;

/// What tools of one edge share.
#[derive(Default)]
pub(crate) struct ToolsState {
    /// Held by the step of a verification, the pause after it included: together, all read no faster than one.
    verifying: tokio::sync::Mutex<()>,
}

/// Answers a request for what stands behind `CACHE_PATH/EDGE`: `action` is the rest of its path.
pub(crate) async fn answer(node: &Arc<Node>, method: &Method, action: &str, body: &Bytes) -> Response<Body> {
    let answered = match (method, action) {
        (&Method::GET, "stats") => json(&stats::of(node)),
        (&Method::POST, "list") => match read(body) {
            Ok(query) => listing::list(node, query).await.and_then(|page| json(&page)),
            Err(problem) => Err(problem),
        },
        (&Method::POST, "show") => match read::<CacheShow>(body) {
            Ok(show) => listing::show(node, &show.what).await.and_then(|page| json(&page)),
            Err(problem) => Err(problem),
        },
        (&Method::POST, "evict") => match read(body) {
            Ok(evict) => listing::evict(node, evict).await.and_then(|evicted| json(&evicted)),
            Err(problem) => Err(problem),
        },
        (&Method::POST, "verify") => match read(body) {
            Ok(step) => verify(node, step).await.and_then(|verified| json(&verified)),
            Err(problem) => Err(problem),
        },
        (_, "stats" | "list" | "show" | "evict" | "verify") => Err(Problem::new(
            ErrorCode::MethodNotAllowed,
            format!("{action} takes {}", if action == "stats" { "GET" } else { "POST" }),
        )),
        _ => Err(Problem::new(
            ErrorCode::UnknownEndpoint,
            format!("below {CACHE_PATH}/EDGE there are stats, list, show, evict and verify"),
        )),
    };
    answered.unwrap_or_else(|problem| refused(&problem))
}

/// A problem as a response.
fn refused(problem: &Problem) -> Response<Body> {
    response(problem.http_status(), problem::PROBLEM_JSON, problem.to_json())
}

fn response(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))
}

fn json(document: &impl Serialize) -> Result<Response<Body>, Problem> {
    let json = serde_json::to_vec(document).map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    Ok(response(StatusCode::OK, "application/json", json))
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, detail)
}

fn ending() -> Problem {
    Problem::new(ErrorCode::Overloaded, "the edge is ending")
}

/// A step of reading the disk again, and the pause that its rate asks for.
async fn verify(node: &Arc<Node>, step: CacheVerify) -> Result<CacheVerified, Problem> {
    let tier = node.disk.as_ref().ok_or_else(|| invalid("this edge has no disk tier"))?;
    let from = match step.cursor.as_deref().map(str::parse).transpose()? {
        None => shelf::disk::Cursor::default(),
        Some(Cursor::Disk(cursor)) => cursor,
        Some(Cursor::Memory { .. }) => return Err(invalid("the cursor is not one of a verification")),
    };
    let rate = step.bytes_per_s.unwrap_or(DEFAULT_VERIFY_BYTES_PER_S).max(MIN_VERIFY_BYTES_PER_S);
    let _turn = node.tools.verifying.lock().await;
    let begun = Instant::now();
    let done = tier.blocking(move |disk| disk.verify(from, VERIFY_STEP_BYTES)).await.ok_or_else(ending)?;
    let due = Duration::from_millis(done.bytes.saturating_mul(1_000) / rate);
    if done.next.is_some() {
        tokio::time::sleep_until(begun + due).await;
    }
    let finding = |found: shelf::disk::Finding| CacheFinding {
        key: rows::key_text(found.key_hash),
        folder: found.folder,
        slice: found.slice,
        kind: found.flaw.word().to_owned(),
        what: found.flaw.to_string(),
    };
    Ok(CacheVerified {
        entries: done.entries,
        bytes: done.bytes,
        unreadable: done.unreadable,
        findings: done.findings.into_iter().map(finding).collect(),
        next: done.next.map(|cursor| Cursor::Disk(cursor).to_string()),
    })
}

//! A stand-in for control: it keeps files in memory, knows one zone and two tokens, and can be told to misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use api::node::{Blobs, Committed, Resolved, UploadBegin, UploadCommit, UploadReady, UploadTarget};
use api::{Access, Digest, ErrorCode, FileDoc, FilePath, Problem};
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode};
use tokio::sync::Notify;

pub(crate) const NODE_TOKEN: &str = "lit_node";
pub(crate) const USER: &str = "Bearer lit_user";

/// What a test asks of the next commit, before the rules of control apply to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum OnCommit {
    #[default]
    Obey,
    /// Break the connection without an answer.
    Break,
    /// Act as if a collector condemned, deleted and forgot the blob just before.
    CollectFirst,
    /// Refuse it as condemned, for ever.
    Condemned,
}

#[derive(Default)]
pub(crate) struct Records {
    pub(crate) files: BTreeMap<FilePath, FileDoc>,
    pub(crate) access: Access,
    pub(crate) begins: Vec<UploadBegin>,
    pub(crate) commits: Vec<UploadCommit>,
    pub(crate) on_commit: OnCommit,
    pub(crate) condemned: BTreeSet<[u8; 32]>,
    /// When each blob was forgotten, in forgettings.
    pub(crate) forgotten: BTreeMap<[u8; 32], u64>,
    pub(crate) sweeps: u64,
}

pub(crate) struct Control {
    pub(crate) records: Mutex<Records>,
    pub(crate) blobs: objects::Blobs,
    /// Lets the second event of the stream out.
    pub(crate) next_event: Notify,
}

type Shared = State<Arc<Control>>;

pub(crate) fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/v1/node/uploads/begin", post(begin))
        .route("/v1/node/uploads/commit", post(commit))
        .route("/v1/node/resolve", get(resolve))
        .route("/v1/node/blobs/condemned", get(condemned))
        .route("/v1/node/blobs/condemn", post(condemn))
        .route("/v1/node/blobs/forget", post(forget))
        .route("/v1/events", get(events))
        .fallback(echo)
        .with_state(control)
}

pub(crate) fn file(path: &FilePath, digest: Digest, size: u64, version: u64) -> FileDoc {
    FileDoc {
        id: "019a9f3e-0000-7000-8000-000000000000".parse().expect("id"),
        zone: "files".parse().expect("zone"),
        path: path.clone(),
        version,
        digest,
        size,
        media_type: "text/plain".to_owned(),
        cache_control: Some("max-age=60".to_owned()),
        tags: vec!["a".parse().expect("tag"), "b".parse().expect("tag")],
        url: format!("http://files.example/{}", path.to_url()),
        id_url: "http://files.example/-/019a9f3e-0000-7000-8000-000000000000".to_owned(),
        event: 7,
        modified_ms: 1_700_000_000_123,
        receipts: Vec::new(),
    }
}

fn no(code: ErrorCode, detail: &str) -> Response {
    let problem = Problem::new(code, detail);
    (problem.http_status(), [(http::header::CONTENT_TYPE, api::problem::PROBLEM_JSON)], problem.to_json())
        .into_response()
}

fn is_node(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|value| value == &format!("Bearer {NODE_TOKEN}"))
}

async fn begin(State(control): Shared, headers: HeaderMap, Json(begin): Json<UploadBegin>) -> Response {
    assert!(is_node(&headers));
    let mut records = control.records.lock().expect("lock");
    let path = match &begin.target {
        UploadTarget::Path { zone, .. } if zone.as_str() != "files" => {
            return no(ErrorCode::UnknownZone, "no such zone");
        }
        UploadTarget::Path { path, .. } => path.clone(),
        UploadTarget::Id { .. } => "by/id.css".parse().expect("path"),
    };
    if begin.authorization.as_deref() != Some(USER) {
        return no(ErrorCode::Unauthorized, "show a token");
    }
    if begin.conditions.if_none_match.is_some() && records.files.contains_key(&path) {
        return no(ErrorCode::PreconditionFailed, "it is there");
    }
    records.begins.push(begin);
    Json(UploadReady { path, sweep: records.sweeps }).into_response()
}

async fn commit(State(control): Shared, Json(commit): Json<UploadCommit>) -> Response {
    let digest = commit.digest;
    let asked = std::mem::take(&mut control.records.lock().expect("lock").on_commit);
    match asked {
        OnCommit::Obey => {}
        OnCommit::Break => panic!("as asked: the connection breaks"),
        OnCommit::CollectFirst => {
            control.blobs.delete(digest).await.expect("delete");
            let mut records = control.records.lock().expect("lock");
            records.sweeps += 1;
            let sweep = records.sweeps;
            records.forgotten.insert(digest.0, sweep);
        }
        OnCommit::Condemned => {
            control.records.lock().expect("lock").on_commit = OnCommit::Condemned;
            return no(ErrorCode::BlobCondemned, "condemned");
        }
    }
    let size = commit.size;
    let committed = match accept(&mut control.records.lock().expect("lock"), commit) {
        Some(committed) => committed,
        None => return no(ErrorCode::BlobCondemned, "condemned"),
    };
    // What all of this is for. From here on something refers to the blob, so no collector may take it away.
    assert_eq!(control.blobs.head(digest).await.expect("an accepted blob is in place"), size);
    Json(committed).into_response()
}

/// The rules of control for blobs that are being collected.
fn accept(records: &mut Records, commit: UploadCommit) -> Option<Committed> {
    let digest = commit.digest;
    let forgotten_since = records.forgotten.get(&digest.0).is_some_and(|at| *at > commit.sweep);
    if records.condemned.contains(&digest.0) || forgotten_since {
        return None;
    }
    let path = match &commit.target {
        UploadTarget::Path { path, .. } => path.clone(),
        UploadTarget::Id { .. } => "by/id.css".parse().expect("path"),
    };
    let version = records.files.get(&path).map_or(1, |before| before.version + 1);
    let file = file(&path, digest, commit.size, version);
    records.files.insert(path, file.clone());
    records.commits.push(commit);
    Some(Committed { created: version == 1, file })
}

async fn resolve(
    State(control): Shared,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    assert!(is_node(&headers));
    let records = control.records.lock().expect("lock");
    let may_read = records.access == Access::Public
        || query.get("as_node").is_some_and(|value| value == "true")
        || headers.get(api::headers::CLIENT_AUTHORIZATION).is_some_and(|value| value == USER);
    if !may_read {
        return no(ErrorCode::Unauthorized, "show a token");
    }
    let by_id = query.contains_key("id");
    let file = records.files.values().find(|file| by_id || query.get("path").is_some_and(|p| p == file.path.as_str()));
    match file {
        Some(file) => Json(Resolved { file: file.clone(), access: records.access }).into_response(),
        None => no(ErrorCode::UnknownFile, "no such file"),
    }
}

async fn condemned(State(control): Shared) -> Json<Blobs> {
    let records = control.records.lock().expect("lock");
    Json(Blobs { digests: records.condemned.iter().map(|digest| Digest(*digest)).collect() })
}

async fn condemn(State(control): Shared, Json(asked): Json<Blobs>) -> Json<Blobs> {
    let mut records = control.records.lock().expect("lock");
    let used: BTreeSet<[u8; 32]> = records.files.values().map(|file| file.digest.0).collect();
    let digests: Vec<Digest> = asked.digests.into_iter().filter(|digest| !used.contains(&digest.0)).collect();
    records.condemned.extend(digests.iter().map(|digest| digest.0));
    Json(Blobs { digests })
}

async fn forget(State(control): Shared, Json(deleted): Json<Blobs>) -> StatusCode {
    let mut records = control.records.lock().expect("lock");
    records.sweeps += 1;
    let sweep = records.sweeps;
    for digest in deleted.digests {
        assert!(records.condemned.remove(&digest.0), "only what is condemned is forgotten");
        records.forgotten.insert(digest.0, sweep);
    }
    StatusCode::NO_CONTENT
}

async fn events(State(control): Shared) -> Response {
    let first = stream::once(async { Ok::<_, std::io::Error>("event: hello\n\n") });
    let second = stream::once(async move {
        control.next_event.notified().await;
        Ok("event: config\n\n")
    });
    ([("content-type", "text/event-stream")], Body::from_stream(first.chain(second))).into_response()
}

/// Says what arrived.
async fn echo(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("body");
    let headers: BTreeMap<String, String> =
        head.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().expect("ascii").to_owned())).collect();
    let seen = serde_json::json!({
        "method": head.method.as_str(),
        "target": head.uri.path_and_query().map(|target| target.as_str()),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    (StatusCode::ACCEPTED, [("x-from", "control"), ("connection", "x-hop"), ("x-hop", "1")], Json(seen)).into_response()
}

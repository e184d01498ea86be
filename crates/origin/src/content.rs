//! Reading: `GET` and `HEAD` of files by path or id, and of blobs for nodes.
//!
//! A node shows the deployment's node token in [`api::headers::NODE_TOKEN`] and then also sees what is not meant for
//! clients (`Surrogate-Key`, blobs by digest, private zones: it has checked its own client). Without that token control
//! decides by the client's `Authorization`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::names::FilePath;
use api::{Digest, ErrorCode, FileDoc, Problem, TokenSecret, headers as own};
use client::node::FileKey;
use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, LAST_MODIFIED, RANGE,
};
use http::{HeaderValue, Method, Response, StatusCode, request};
use http_cache::{Plan, Validators, date, plan};
use net::Body;
use objects::BlobError;
use uuid::Uuid;

use crate::Shared;
use crate::respond::{blob_problem, method_not_allowed, problem, set};
use crate::slices_body::body;

const OCTETS: &str = "application/octet-stream";

/// Answers `/-/<what>`.
pub(crate) async fn serve(shared: &Arc<Shared>, head: &request::Parts, what: &str) -> Response<Body> {
    if head.method != Method::GET && head.method != Method::HEAD {
        return method_not_allowed("GET, HEAD");
    }
    let answer = match what.split_once('/') {
        Some(("content", rest)) => match key_of_path(rest) {
            Ok(key) => file(shared, head, &key).await,
            Err(error) => Err(error),
        },
        Some(("content-id", id)) => match id.parse() {
            Ok(id) => file(shared, head, &FileKey::Id(id)).await,
            Err(error) => Err(Problem::from(error)),
        },
        Some(("blob", rest)) => blob(shared, head, rest).await,
        _ => Err(crate::service::unknown_endpoint()),
    };
    answer.unwrap_or_else(|error| problem(&error))
}

fn key_of_path(rest: &str) -> Result<FileKey, Problem> {
    let (zone, path) = rest.split_once('/').unwrap_or((rest, ""));
    Ok(FileKey::Path(zone.parse()?, FilePath::from_url(path)?))
}

/// A file of the catalog.
async fn file(shared: &Arc<Shared>, head: &request::Parts, key: &FileKey) -> Result<Response<Body>, Problem> {
    let is_node = shows_node_token(shared, &head.headers)?;
    let authorization = match head.headers.get(AUTHORIZATION) {
        Some(value) => Some(value.to_str().map_err(|_| {
            Problem::new(ErrorCode::Unauthorized, "Authorization holds characters that are not visible ASCII")
        })?),
        None => None,
    };
    let resolved =
        shared.control.resolve(key, authorization, is_node).await.map_err(client::ClientError::into_problem)?;
    let file = resolved.file;
    let mut headers = describe(&file);
    if is_node && !file.tags.is_empty() {
        let tags: Vec<&str> = file.tags.iter().map(api::Tag::as_str).collect();
        set(&mut headers, HeaderName::from_static("surrogate-key"), &tags.join(" "));
    }
    let what = What { digest: file.digest, size: file.size, media_type: &file.media_type, is_node };
    answer(shared, head, &what, Some(file.modified_ms / 1_000), headers).await
}

/// A blob, or its chaining values, by digest: for nodes only.
async fn blob(shared: &Arc<Shared>, head: &request::Parts, rest: &str) -> Result<Response<Body>, Problem> {
    if !shows_node_token(shared, &head.headers)? {
        let detail = format!("blobs are for nodes: send the node token in {}", own::NODE_TOKEN);
        return Err(Problem::new(ErrorCode::Unauthorized, detail));
    }
    let (digest, slices) = match rest.strip_suffix("/slices") {
        Some(digest) => (digest, true),
        None => (rest, false),
    };
    let digest: Digest = digest.parse()?;
    let size = match shared.blobs.head(digest).await {
        Ok(size) => size,
        Err(error @ BlobError::NotFound { .. }) => {
            return Err(Problem::new(ErrorCode::UnknownFile, error.to_string()));
        }
        Err(error) => return Err(blob_problem(&error)),
    };
    if slices {
        let list = shared.blobs.slices(digest, size).await.map_err(|error| {
            shared.note_read_error(&error);
            blob_problem(&error)
        })?;
        let mut response = Response::new(Body::full(list.concat()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
        return Ok(response);
    }
    let mut headers = HeaderMap::new();
    set(&mut headers, HeaderName::from_static(own::DIGEST), &digest.to_string());
    let what = What { digest, size, media_type: OCTETS, is_node: true };
    answer(shared, head, &what, None, headers).await
}

/// What is to be answered with.
struct What<'a> {
    digest: Digest,
    size: u64,
    media_type: &'a str,
    is_node: bool,
}

/// Decides by conditions and ranges, and answers. `headers` are those of every successful answer.
async fn answer(
    shared: &Arc<Shared>,
    head: &request::Parts,
    what: &What<'_>,
    last_modified_s: Option<u64>,
    mut headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let etag = what.digest.etag();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set(&mut headers, ETAG, &etag);
    if let Some(second) = last_modified_s {
        set(&mut headers, LAST_MODIFIED, &date::format(second));
    }
    let mut asked = head.headers.clone();
    if what.is_node && what.size == 0 {
        // A node asks for the first slice before it knows that there is none; it wants the file and not a 416.
        asked.remove(RANGE);
    }
    let boundary = format!("littoral-{}", Uuid::now_v7().simple());
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let validators = Validators { etag: &etag, last_modified_s, now_s };
    match plan::plan(&head.method, &asked, &validators, what.size, what.media_type, &boundary) {
        Plan::Body { status, content_range, content_type, length, pieces } => {
            set(&mut headers, CONTENT_TYPE, content_type.as_deref().unwrap_or(what.media_type));
            if let Some(range) = content_range {
                set(&mut headers, CONTENT_RANGE, &range);
            }
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            let body = match pieces.is_empty() {
                true => Body::empty(),
                false => {
                    let permit = shared.read_permit()?;
                    let body = body(shared, what.digest, what.size, pieces, permit).await;
                    body.map_err(|error| blob_problem(&error))?
                }
            };
            Ok(respond(status, headers, body))
        }
        Plan::NotModified => Ok(respond(StatusCode::NOT_MODIFIED, headers, Body::empty())),
        Plan::PreconditionFailed => {
            Err(Problem::new(ErrorCode::PreconditionFailed, format!("the condition does not hold: this is {etag}")))
        }
        Plan::NotSatisfiable { content_range, too_many } => {
            let size = what.size;
            let error = match too_many {
                true => {
                    let max = http_cache::range::MAX_RANGES;
                    Problem::new(ErrorCode::TooManyRanges, format!("more than {max} ranges; ask for fewer at a time"))
                }
                false => {
                    let detail = format!("no part of the range lies in the {size} bytes of this file");
                    Problem::new(ErrorCode::RangeNotSatisfiable, detail)
                }
            };
            let mut response = problem(&error);
            set(response.headers_mut(), CONTENT_RANGE, &content_range);
            Ok(response)
        }
    }
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The headers that say which file this is.
fn describe(file: &FileDoc) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (own::ZONE, file.zone.to_string()),
        (own::PATH, file.path.to_url()),
        (own::ID, file.id.to_string()),
        (own::VERSION, file.version.to_string()),
        (own::DIGEST, file.digest.to_string()),
    ] {
        set(&mut headers, HeaderName::from_static(name), &value);
    }
    if let Some(value) = &file.cache_control {
        set(&mut headers, CACHE_CONTROL, value);
    }
    headers
}

/// Whether a request comes from a node. A token that is shown and wrong is an error: a node that is set up wrongly must
/// not quietly be served as a client.
fn shows_node_token(shared: &Shared, headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(value) = headers.get(own::NODE_TOKEN) else { return Ok(false) };
    let shown = value.to_str().ok().and_then(|text| TokenSecret::parse(text).ok());
    // What is compared are digests of random secrets: how long that takes says nothing about the secret.
    match shown.is_some_and(|shown| shown.hash() == shared.node_token_hash) {
        true => Ok(true),
        false => Err(Problem::new(ErrorCode::Unauthorized, format!("{} is not the node token", own::NODE_TOKEN))),
    }
}

//! What this address serves: one match on the path.
//!
//! - `PUT /v1/zones/{zone}/files/{path}`, `POST /v1/zones/{zone}/files`, `PUT /v1/files/{id}`: uploads, taken here
//! - `/-/content/…`, `/-/content-id/…`, `/-/blob/…`: content, served from here
//! - every other `/v1/…`: control's, handed on; but not `/v1/node/…`, which nodes ask control for directly

use std::sync::Arc;

use api::names::FilePath;
use api::{ErrorCode, Problem};
use http::{Method, Request, Response};
use net::{Body, Incoming};

use crate::respond::problem;
use crate::upload::{Destination, upload};
use crate::{Shared, content, forward};

/// Answers one request.
pub(crate) async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if let Some(what) = path.strip_prefix("/-/") {
        return content::serve(&shared, &head, what).await;
    }
    let Some(rest) = path.strip_prefix("/v1/") else { return problem(&unknown_endpoint()) };
    if rest == "node" || rest.starts_with("node/") {
        let detail = "the endpoints between nodes are not served here; a node asks control directly";
        return problem(&Problem::new(ErrorCode::UnknownEndpoint, detail));
    }
    match destination(&head.method, rest) {
        Some(destination) => upload(&shared, head, body, destination).await,
        None => forward::forward(&shared, head, body).await.unwrap_or_else(|error| problem(&error)),
    }
}

/// Where an upload goes; nothing where the request is none. The path is decoded once, here.
fn destination(method: &Method, rest: &str) -> Option<Result<Destination, Problem>> {
    let (first, rest) = rest.split_once('/')?;
    let parsed = match (method, first) {
        (&Method::PUT, "files") if !rest.contains('/') => rest.parse().map(Destination::Id),
        (&Method::PUT, "zones") => {
            let (zone, path) = rest.split_once("/files/")?;
            // Not `/v1/zones/x/y/files/z`: a zone is one segment.
            if zone.contains('/') {
                return None;
            }
            zone.parse().and_then(|zone| Ok(Destination::Path(zone, FilePath::from_url(path)?)))
        }
        (&Method::POST, "zones") => {
            let zone = rest.strip_suffix("/files").filter(|zone| !zone.contains('/'))?;
            zone.parse().map(Destination::Generated)
        }
        _ => return None,
    };
    Some(parsed.map_err(Problem::from))
}

/// What to say of an address where there is nothing.
pub(crate) fn unknown_endpoint() -> Problem {
    Problem::new(
        ErrorCode::UnknownEndpoint,
        "there is nothing here; this address serves the API below /v1/ (described at /v1/openapi.json) and content at \
         /-/content/ZONE/PATH and /-/content-id/ID",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &Method, rest: &str, expected: &str) {
        let found = match destination(method, rest) {
            None => "forward".to_owned(),
            Some(Ok(Destination::Path(zone, path))) => format!("{zone}:{path}"),
            Some(Ok(Destination::Id(id))) => id.to_string(),
            Some(Ok(Destination::Generated(zone))) => format!("{zone}:*"),
            Some(Err(problem)) => problem.detail,
        };
        assert!(found.contains(expected), "{method} {rest}: {found}");
    }

    #[test]
    fn addresses() {
        let id = "019a9f3e-0000-7000-8000-000000000000";
        check(&Method::PUT, "zones/files/files/a/b.txt", "files:a/b.txt");
        check(&Method::PUT, "zones/z/files/files/files/x", "z:files/files/x");
        check(&Method::PUT, "zones/z/files/a%20b%2520", "z:a b%20");
        check(&Method::PUT, &format!("files/{id}"), id);
        check(&Method::POST, "zones/z/files", "z:*");
        for (rest, why) in [
            ("zones/z/files/", "empty"),
            ("zones/z/files//etc/passwd", "absolute"),
            ("zones/z/files/../x", "'.' and '..'"),
            ("zones/z/files/%2e%2e/x", "'.' and '..'"),
            ("zones/z/files/a%00", "control character"),
            ("zones/z/files/%ff", "not UTF-8"),
            ("zones/z/files/-/x", "reserved"),
            ("zones/Z/files/x", "zone name"),
            ("files/7", "file id"),
        ] {
            check(&Method::PUT, rest, why);
        }
        for (method, rest) in [
            (&Method::GET, "zones/z/files/a"),
            (&Method::DELETE, "zones/z/files/a"),
            (&Method::PUT, "zones/z"),
            (&Method::PUT, "zones/z/files"),
            (&Method::PUT, "zones/a/b/files/c"),
            (&Method::POST, "zones/z/files/a"),
            (&Method::PUT, &format!("files/{id}/versions")),
            (&Method::PATCH, &format!("files/{id}")),
            (&Method::POST, "purge"),
            (&Method::GET, "events"),
        ] {
            check(method, rest, "forward");
        }
    }
}

//! Making responses: problems, JSON, and headers from checked values.

use api::problem::PROBLEM_JSON;
use api::{ErrorCode, Problem};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use net::Body;
use objects::BlobError;

/// After how many seconds something that was overloaded may be tried again.
const RETRY_AFTER_S: u64 = 1;

/// A problem as a response, with the header that its status calls for.
pub(crate) fn problem(problem: &Problem) -> Response<Body> {
    let mut response = Response::new(Body::full(problem.to_json()));
    *response.status_mut() = problem.http_status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match problem.http_status() {
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    response
}

/// The answer to a method that an address does not take.
pub(crate) fn method_not_allowed(allow: &'static str) -> Response<Body> {
    let detail = format!("this address takes {allow}");
    let mut response = problem(&Problem::new(ErrorCode::MethodNotAllowed, detail));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// Sets a header to a value that was checked when it came in: one that is no header value after all is left out.
pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// What a reader or an uploader is told of a failure of the store.
pub(crate) fn blob_problem(error: &BlobError) -> Problem {
    match error {
        BlobError::Full(_) => {
            Problem::new(ErrorCode::StorageFull, "the storage has no room left for this file; nothing was changed")
        }
        BlobError::NotFound { .. } => Problem::new(ErrorCode::BlobCorrupt, format!("{error}, though there should be")),
        BlobError::Corrupt { .. } => {
            Problem::new(ErrorCode::BlobCorrupt, format!("{error}; uploading the file again repairs it"))
        }
        BlobError::Folder { .. } | BlobError::Store(_) => {
            tracing::error!(%error, "the blob store failed");
            Problem::new(ErrorCode::Internal, "the blob store failed; the origin's log says how")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_carry_what_their_status_calls_for() {
        for (code, header) in [
            (ErrorCode::Overloaded, Some(("retry-after", "1"))),
            (ErrorCode::Unauthorized, Some(("www-authenticate", "Bearer"))),
            (ErrorCode::StorageFull, None),
        ] {
            let response = problem(&Problem::new(code, "x"));
            assert_eq!(response.status(), code.status());
            assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
            if let Some((name, value)) = header {
                assert_eq!(response.headers()[name], value);
            }
        }
        assert_eq!(method_not_allowed("GET").headers()[ALLOW], "GET");
    }

    #[test]
    fn failures_of_the_store_are_told_apart() {
        let digest = api::Digest::of(b"");
        let full = BlobError::Full(Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull)));
        assert_eq!(blob_problem(&full).status, 507);
        assert_eq!(blob_problem(&BlobError::Corrupt { digest, slice: Some(1) }).code, ErrorCode::BlobCorrupt);
        assert_eq!(blob_problem(&BlobError::NotFound { digest }).code, ErrorCode::BlobCorrupt);
    }
}

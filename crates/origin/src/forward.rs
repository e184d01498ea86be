//! Everything of the API that is not a body of a file: handed on to control as it is, and its answer handed back as it
//! comes, so that event streams flow.

use std::sync::Arc;
use std::time::Duration;

use api::{ErrorCode, MAX_JSON_BODY_BYTES, Problem, headers as own};
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, VIA};
use http::{HeaderValue, Request, Response, request};
use http_cache::hop;
use net::{Body, Incoming, NetError, ReadError};

use crate::Shared;

/// Hands a request on to control.
pub(crate) async fn forward(
    shared: &Arc<Shared>,
    head: request::Parts,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    let body = Body::wrap(body).with_idle_timeout(Duration::from_millis(shared.limits.body_idle_ms));
    let body = net::read_to_end(body, MAX_JSON_BODY_BYTES).await.map_err(|error| match error {
        ReadError::TooLong { max_bytes } => Problem::new(
            ErrorCode::TooLarge,
            format!("the body is longer than the {max_bytes} bytes that are read here"),
        ),
        error => Problem::new(ErrorCode::BodyMismatch, error.to_string()),
    })?;
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::new(Body::full(body));
    *request.method_mut() = head.method;
    *request.uri_mut() = format!("{}{target}", shared.control.base_url()).parse().map_err(|error| {
        Problem::new(ErrorCode::InvalidRequest, format!("{target:?} cannot be handed on to control: {error}"))
    })?;
    *request.headers_mut() = inbound(head.headers);

    let mut response = shared.control.http().send(request).await.map_err(unreachable)?;
    hop::strip(response.headers_mut());
    Ok(response)
}

/// The headers that go on to control. What only nodes may say does not: this is where clients come in.
fn inbound(mut headers: HeaderMap) -> HeaderMap {
    hop::strip(&mut headers);
    // The length is set from the body as it was read, and its expectation was met by reading it.
    for name in [HOST, CONTENT_LENGTH, EXPECT] {
        headers.remove(name);
    }
    headers.remove(own::NODE_TOKEN);
    headers.remove(own::CLIENT_AUTHORIZATION);
    headers.append(VIA, HeaderValue::from_static("1.1 littoral-origin"));
    headers
}

fn unreachable(error: NetError) -> Problem {
    let code = match &error {
        NetError::Timeout { .. } => ErrorCode::UpstreamTimeout,
        _ => ErrorCode::UpstreamUnreachable,
    };
    let outcome = if error.reached_peer() { "whether it acted is not known" } else { "nothing was changed" };
    Problem::new(code, format!("control cannot be reached: {error}; {outcome}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    #[test]
    fn clients_cannot_speak_as_nodes_and_hops_end_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "a"),
            ("connection", "x-mine, close"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("content-length", "5"),
            ("authorization", "Bearer x"),
            ("accept", "*/*"),
            ("via", "1.0 before"),
            (own::NODE_TOKEN, "x"),
            (own::CLIENT_AUTHORIZATION, "Bearer y"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let headers = inbound(headers);
        let mut names: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        names.sort_unstable();
        let expected: [(&str, &[u8]); 4] = [
            ("accept", b"*/*"),
            ("authorization", b"Bearer x"),
            ("via", b"1.0 before"),
            ("via", b"1.1 littoral-origin"),
        ];
        assert_eq!(names, expected);
    }
}

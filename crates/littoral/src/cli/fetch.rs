//! Fetching a file as a reader does: from its URL on, wherever redirects lead.
//!
//! Where the host of the URL cannot be reached from this machine (a zone may have a hostname that only others resolve), an
//! edge is asked by its own address, with the file's id. A token is shown only when a reader without one is turned away,
//! only for a file that was named by path or id, and only to hosts that the API names: its own, the one in the file's URL,
//! and those of the edges.

use std::collections::HashSet;

use api::{ErrorCode, FileDoc, NodeView, Problem, TokenSecret};
use client::ClientError;
use http::header::{AUTHORIZATION, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode, Uri};
use net::{Body, HttpClient, NetError};

use crate::cli::human;
use crate::cli::session::Session;
use crate::connection::retry;

/// Redirects that are followed.
const MAX_REDIRECTS: u32 = 5;
/// Longest answer that is read for the reason of a failure, in bytes.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// The answer that carries a file, and where it came from in the end.
pub(super) type Fetched = Result<(Response<Body>, Uri), ClientError>;

/// Fetches what is at `url`, showing nobody a token.
pub(super) async fn fetch_url(http: &HttpClient, url: &Uri) -> Fetched {
    retry(|| follow(http, url, None)).await
}

/// Fetches `file`, whose URL is `url`.
pub(super) async fn fetch_file(http: &HttpClient, url: &Uri, file: &FileDoc, session: &Session) -> Fetched {
    let unreachable = match fetch_with_token(http, url, session).await {
        Err(error @ ClientError::Net(NetError::Connect { .. })) => error,
        answer => return answer,
    };
    let edges = edges(session).await?;
    let by_edge = edges.iter().find(|view| view.alive).map(|view| format!("{}/-/{}", view.node.url, file.id));
    let Some(by_edge) = by_edge.and_then(|url| url.parse::<Uri>().ok()) else { return Err(unreachable) };
    match fetch_with_token(http, &by_edge, session).await {
        // What the edge says is news; that it cannot be reached either is not.
        Err(ClientError::Net(_)) => Err(unreachable),
        answer => answer,
    }
}

/// Fetches what is at `url`, with the token if without it one is turned away.
async fn fetch_with_token(http: &HttpClient, url: &Uri, session: &Session) -> Fetched {
    match (fetch_url(http, url).await, session.token()) {
        (Err(ClientError::Problem(problem)), Some(token)) if problem.code == ErrorCode::Unauthorized => {
            let pass = Pass::new(token, url, session, &edges(session).await?)?;
            retry(|| follow(http, url, Some(&pass))).await
        }
        (answer, _) => answer,
    }
}

async fn edges(session: &Session) -> Result<Vec<NodeView>, ClientError> {
    Ok(retry(|| session.calls().nodes()).await?.nodes)
}

/// A token, and the hosts (with port) that may see it.
struct Pass {
    value: HeaderValue,
    hosts: HashSet<String>,
}

impl Pass {
    fn new(token: &TokenSecret, url: &Uri, session: &Session, edges: &[NodeView]) -> Result<Self, ClientError> {
        let value = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
        let mut value = value.map_err(|_| unexpected(url, 0, "the token cannot be sent".to_owned()))?;
        value.set_sensitive(true);
        let urls = edges.iter().map(|view| view.node.url.as_str()).chain([session.calls().base_url()]);
        let hosts = urls.filter_map(|url| url.parse::<Uri>().ok()?.authority().map(ToString::to_string));
        Ok(Self { value, hosts: hosts.chain(url.authority().map(ToString::to_string)).collect() })
    }
}

/// Asks at `from`, and again wherever the answer redirects to.
async fn follow(http: &HttpClient, from: &Uri, pass: Option<&Pass>) -> Fetched {
    let mut at = from.clone();
    for _ in 0..=MAX_REDIRECTS {
        let mut request = Request::get(at.clone());
        if let Some(pass) = pass
            && at.authority().is_some_and(|host| pass.hosts.contains(host.as_str()))
        {
            request = request.header(AUTHORIZATION, &pass.value);
        }
        let request = request.body(Body::empty()).map_err(|error| unexpected(&at, 0, error.to_string()))?;
        let response = http.send(request).await?;
        if response.status() == StatusCode::OK {
            return Ok((response, at));
        }
        if !response.status().is_redirection() {
            return Err(problem(&at, response).await);
        }
        at = redirected(&at, &response)?;
    }
    Err(unexpected(&at, 0, format!("it redirected more than {MAX_REDIRECTS} times")))
}

/// Where an answer from `at` redirects to.
fn redirected(at: &Uri, response: &Response<Body>) -> Result<Uri, ClientError> {
    let status = response.status().as_u16();
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| unexpected(at, status, "a redirect without a Location".to_owned()))?;
    let absolute = match (location.starts_with('/') && !location.starts_with("//"), at.authority()) {
        (true, Some(host)) => format!("http://{host}{location}"),
        _ => location.to_owned(),
    };
    match absolute.parse::<Uri>() {
        Ok(to) if to.scheme_str() == Some("http") && to.authority().is_some() => Ok(to),
        _ => {
            Err(unexpected(at, status, format!("a redirect to {:?}, which cannot be followed", human::plain(location))))
        }
    }
}

async fn problem(at: &Uri, response: Response<Body>) -> ClientError {
    let status = response.status();
    let text = net::read_to_end(response.into_body(), MAX_PROBLEM_BYTES).await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&text) {
        Ok(problem) => problem.into(),
        Err(_) => unexpected(at, status.as_u16(), status.canonical_reason().unwrap_or("an unknown status").to_owned()),
    }
}

fn unexpected(at: &Uri, status: u16, why: String) -> ClientError {
    ClientError::Unexpected { url: at.to_string(), status, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_taken_apart() {
        let at: Uri = "http://router:1/a".parse().expect("URI");
        let to = |location: &str| {
            let response = Response::builder().status(307).header(LOCATION, location).body(Body::empty());
            redirected(&at, &response.expect("response")).map(|uri| uri.to_string())
        };
        assert_eq!(to("http://edge:2/a?b").expect("absolute"), "http://edge:2/a?b");
        assert_eq!(to("/c").expect("relative"), "http://router:1/c");
        for bad in ["//edge/a", "https://edge/a", "ftp://x/", "c", "http://", ""] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }
}

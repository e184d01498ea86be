//! The typed client of Littoral's API: one method for each endpoint, over [`net`].
//!
//! Used by the nodes towards control and by the command line towards the api address. [`events`] follows the event
//! stream. Nothing here retries: who calls knows what may be repeated.

pub mod events;
mod files;
pub mod node;

use std::fmt::Write as _;

use api::{Problem, TokenSecret};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use net::{Body, HttpClient, NetError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use events::{EventStream, StreamItem};
pub use files::{Upload, UploadMeta};

/// Longest JSON answer that is read, in bytes: a page of 1,000 files with long paths and tags fits.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The other side answered with a problem.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// There was no answer.
    #[error(transparent)]
    Net(#[from] NetError),
    /// There was an answer that this program does not understand.
    #[error("{url} answered {status} with something unexpected: {why}")]
    Unexpected {
        /// What was asked.
        url: String,
        /// The status of the answer.
        status: u16,
        /// What was wrong with it.
        why: String,
    },
}

impl ClientError {
    /// The problem's code, where the other side answered with a problem.
    pub fn code(&self) -> Option<api::ErrorCode> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            _ => None,
        }
    }

    /// The same as a problem to pass on: what the other side said, or that it could not be reached.
    pub fn into_problem(self) -> Problem {
        match self {
            Self::Problem(problem) => problem,
            Self::Net(error @ NetError::Timeout { .. }) => {
                Problem::new(api::ErrorCode::UpstreamTimeout, error.to_string())
            }
            Self::Net(error) => Problem::new(api::ErrorCode::UpstreamUnreachable, error.to_string()),
            Self::Unexpected { .. } => Problem::new(api::ErrorCode::UpstreamUnreachable, self.to_string()),
        }
    }
}

/// A client of one address. Cloning shares the connections.
#[derive(Clone)]
pub struct Client {
    http: HttpClient,
    base: String,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of `base_url` (`http://host:port`) that presents `token`.
    pub fn new(http: HttpClient, base_url: &str, token: Option<&TokenSecret>) -> Self {
        let authorization = token.and_then(|token| {
            // A TokenSecret is visible ASCII, so this is always a header value.
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { http, base: base_url.trim_end_matches('/').to_owned(), authorization }
    }

    /// The same address for somebody else.
    #[must_use]
    pub fn with_token(&self, token: &TokenSecret) -> Self {
        Self::new(self.http.clone(), &self.base, Some(token))
    }

    /// The address, without a trailing slash.
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// The connections below it.
    pub fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Sends a request to `path_and_query`; an answer that is not 2xx becomes an error.
    async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Body>, ClientError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path_and_query}", self.base));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        self.execute(request, body.map_or_else(Body::empty, Body::full)).await
    }

    async fn execute(&self, request: http::request::Builder, body: Body) -> Result<Response<Body>, ClientError> {
        let mut request = request.header(ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(body).map_err(|error| {
            ClientError::from(NetError::Exchange {
                peer: self.base.clone(),
                why: format!("not a usable request: {error}"),
            })
        })?;
        let url = request.uri().to_string();
        let response = self.http.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let text = net::read_to_end(response.into_body(), MAX_ANSWER_BYTES).await;
        let text =
            text.map_err(|error| ClientError::Unexpected { url: url.clone(), status, why: error.to_string() })?;
        match serde_json::from_slice::<Problem>(&text) {
            Ok(problem) => Err(problem.into()),
            Err(_) => {
                let why = String::from_utf8_lossy(&text).chars().take(200).collect();
                Err(ClientError::Unexpected { url, status, why })
            }
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let response = self.send(method, path_and_query, body).await?;
        self.decode(path_and_query, response).await
    }

    async fn decode<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        response: Response<Body>,
    ) -> Result<T, ClientError> {
        let status = response.status().as_u16();
        let fail = |why: String| ClientError::Unexpected { url: format!("{}{path_and_query}", self.base), status, why };
        let bytes = net::read_to_end(response.into_body(), MAX_ANSWER_BYTES).await.map_err(|e| fail(e.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|e| fail(e.to_string()))
    }

    async fn get<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path_and_query, None).await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        self.json(Method::POST, path, Some(encode(body)?)).await
    }

    /// For endpoints that answer 204.
    async fn tell<B: Serialize>(&self, method: Method, path: &str, body: Option<&B>) -> Result<(), ClientError> {
        let body = body.map(encode).transpose()?;
        let response = self.send(method, path, body).await?;
        // The connection can only be used again once the (empty) body has been read.
        let _ = net::read_to_end(response.into_body(), MAX_ANSWER_BYTES).await;
        Ok(())
    }
}

fn encode<B: Serialize>(body: &B) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body).map_err(|error| {
        ClientError::from(NetError::Exchange { peer: "(not sent)".to_owned(), why: format!("not JSON: {error}") })
    })
}

/// Everything but RFC 3986 § 2.3 unreserved characters is escaped in a query value.
const QUERY_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Builds `?a=b&c=d` of the pairs that have a value; nothing if none has.
fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            let separator = if text.is_empty() { '?' } else { '&' };
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}{name}={}", utf8_percent_encode(&value, QUERY_ESCAPES));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped_and_empty_ones_vanish() {
        assert_eq!(query([("a", None), ("b", None)]), "");
        assert_eq!(
            query([("a", Some("x y&z=ä".into())), ("b", None), ("c", Some("1".into()))]),
            "?a=x%20y%26z%3D%C3%A4&c=1"
        );
    }

    #[test]
    fn the_token_is_marked_sensitive() {
        let token = TokenSecret::parse("lit_secret").expect("token");
        let client = Client::new(HttpClient::new(net::ClientLimits::default()), "http://x/", Some(&token));
        assert_eq!(client.base_url(), "http://x");
        assert!(client.authorization.is_some_and(|value| value.is_sensitive()));
    }
}

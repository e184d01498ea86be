//! Reading requests: bodies, queries and parts of the path, each bounded, each failing with a sentence of what is wrong.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use api::node::Conditions;
use api::{ErrorCode, FilePath, InvalidName, MAX_JSON_BODY_BYTES, ZoneName, names};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, Uri};
use net::ReadError;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::problem::Failure;

/// How long the whole of a JSON body may take to arrive, in milliseconds.
const BODY_MS: u64 = 30_000;

/// A JSON body of at most [`MAX_JSON_BODY_BYTES`], whatever its declared type.
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let reading = net::read_to_end(request.into_body(), MAX_JSON_BODY_BYTES);
        let body = match tokio::time::timeout(Duration::from_millis(BODY_MS), reading).await {
            Ok(Ok(body)) => body,
            Ok(Err(error @ ReadError::TooLong { .. })) => {
                return Err(Failure::new(ErrorCode::TooLarge, error.to_string()));
            }
            Ok(Err(error)) => return Err(Failure::new(ErrorCode::BodyMismatch, error.to_string())),
            Err(_) => {
                return Err(Failure::new(
                    ErrorCode::BodyMismatch,
                    format!("the body did not arrive within {BODY_MS} ms"),
                ));
            }
        };
        // serde_json adds the line and the column.
        serde_json::from_slice(&body)
            .map(Json)
            .map_err(|why| Failure::invalid(format!("the JSON body is wrong: {why}")))
    }
}

/// The query of the URL.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = Query::try_from_uri(&parts.uri);
        query
            .map(|Query(query)| Self(query))
            .map_err(|why| Failure::invalid(format!("the query is wrong: {}", Causes(&why))))
    }
}

/// An error with everything that caused it: axum names the parameter in one link of the chain and the reason in another.
struct Causes<'a>(&'a dyn std::error::Error);

impl Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut innermost = self.0;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Display::fmt(innermost, f)
    }
}

/// The only variable part of the path, decoded: an id or a name.
pub(crate) struct Named<T>(pub(crate) T);

impl<S: Send + Sync, T: FromStr<Err: Into<Failure>> + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|why| Failure::new(ErrorCode::InvalidName, why.body_text()))?;
        text.parse().map(Self).map_err(Into::into)
    }
}

/// `/v1/zones/{zone}/files/{path}`, read from the URL as it came, so that the path is decoded exactly once.
pub(crate) struct FileAt {
    pub(crate) zone: ZoneName,
    pub(crate) path: FilePath,
}

impl<S: Send + Sync> FromRequestParts<S> for FileAt {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(file_at(&parts.uri)?)
    }
}

fn file_at(uri: &Uri) -> Result<FileAt, InvalidName> {
    let rest = uri.path().strip_prefix("/v1/zones/").unwrap_or_default();
    let (zone, path) = rest.split_once("/files/").unwrap_or((rest, ""));
    Ok(FileAt { zone: names::decode_url(zone)?.parse()?, path: FilePath::from_url(path)? })
}

/// `?wait=edges`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaitParam {
    wait: Option<WaitFor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WaitFor {
    Edges,
}

impl WaitParam {
    /// Whether the answer is to wait for the edges.
    pub(crate) fn edges(&self) -> bool {
        matches!(self.wait, Some(WaitFor::Edges))
    }
}

/// `If-Match` and `If-None-Match`, a field that is repeated taken as one list (RFC 9110 § 5.3).
///
/// # Errors
/// A value that is not visible ASCII.
pub(crate) fn conditions(headers: &HeaderMap) -> Result<Conditions, Failure> {
    let joined = |name: HeaderName| -> Result<Option<String>, Failure> {
        let mut list: Option<String> = None;
        for value in headers.get_all(&name) {
            let value = value.to_str().map_err(|_| Failure::invalid(format!("{name} is not visible ASCII")))?;
            list = Some(list.map_or_else(|| value.to_owned(), |list| format!("{list}, {value}")));
        }
        Ok(list)
    };
    Ok(Conditions { if_match: joined(IF_MATCH)?, if_none_match: joined(IF_NONE_MATCH)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once() {
        let check = |uri: &str, expected: &str| {
            let shown = match file_at(&uri.parse().expect(uri)) {
                Ok(file) => format!("{}:{}", file.zone, file.path),
                Err(error) => error.why,
            };
            assert!(shown.contains(expected), "{uri}: {shown}");
        };
        check("/v1/zones/z/files/a/b.txt?x=/files/", "z:a/b.txt");
        check("/v1/zones/z/files/a%20b%2Fc", "z:a b/c");
        check("/v1/zones/z/files/files/x", "z:files/x");
        check("/v1/zones/z/files/%2561", "z:%61");
        check("/v1/zones/z/files/%C3%A4", "z:ä");
        check("/v1/zones/z/files/", "empty");
        check("/v1/zones/z/files//a", "absolute");
        check("/v1/zones/z/files/a/../b", "'.' and '..'");
        check("/v1/zones/z/files/%2e%2e/b", "'.' and '..'");
        check("/v1/zones/z/files/a%00", "control character");
        check("/v1/zones/z/files/%ff", "not UTF-8");
        check("/v1/zones/z/files/-/x", "reserved");
        check("/v1/zones/Z/files/a", "a-z");
        check("/v1/zones/%7A/files/a", "z:a");
    }

    #[test]
    fn repeated_conditions_are_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(conditions(&headers).expect("none"), Conditions::default());
        headers.append(IF_MATCH, "\"a\"".parse().expect("value"));
        headers.append(IF_MATCH, "\"b\"".parse().expect("value"));
        assert_eq!(conditions(&headers).expect("two").if_match.as_deref(), Some("\"a\", \"b\""));
        headers.append(IF_NONE_MATCH, http::HeaderValue::from_bytes(b"\"\xff\"").expect("value"));
        assert!(conditions(&headers).is_err());
    }
}

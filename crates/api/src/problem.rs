//! Errors as `application/problem+json` (RFC 9457): one list of codes, one map from code to HTTP status.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::names::InvalidName;

/// What went wrong, as a stable word. The list is the contract: programs match on it, people read `detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A path, name, tag, place or other word breaks its rule.
    InvalidName,
    /// A header, query parameter or JSON body cannot be understood.
    InvalidRequest,
    /// The request body ended early, ran over, or does not have the declared digest.
    BodyMismatch,
    /// The body does not have the digest that `Repr-Digest` declared.
    DigestMismatch,
    /// No token was given, or one that is not known.
    Unauthorized,
    /// The token was known once and has expired.
    TokenExpired,
    /// The token lacks the scope that this needs.
    Forbidden,
    /// There is no zone of this name.
    UnknownZone,
    /// There is no file at this path or of this id.
    UnknownFile,
    /// There is no node of this name.
    UnknownNode,
    /// There is no such token.
    UnknownToken,
    /// There is nothing at this address of the API.
    UnknownEndpoint,
    /// The method is not one that this address takes.
    MethodNotAllowed,
    /// `If-Match` or `If-None-Match` did not hold.
    PreconditionFailed,
    /// The change collides with what is there: a path that is taken, a zone that holds files.
    Conflict,
    /// The blob is being collected; the uploader places it again and repeats the commit.
    BlobCondemned,
    /// A body, header or list is larger than its bound.
    TooLarge,
    /// No part of the range lies in the body (RFC 9110 § 15.5.17).
    RangeNotSatisfiable,
    /// More ranges than the bound.
    TooManyRanges,
    /// The events asked for are no longer kept: start from a snapshot.
    EventsGone,
    /// The storage has no room left.
    StorageFull,
    /// The stored bytes do not have the digest they were stored under.
    BlobCorrupt,
    /// A bound on work at the same time was reached; try again later.
    Overloaded,
    /// A role that is needed for this could not be reached.
    UpstreamUnreachable,
    /// A role that is needed for this did not answer in time.
    UpstreamTimeout,
    /// The request has come back to a node that had sent it on.
    LoopDetected,
    /// The client only wants what is cached (`only-if-cached`), and it is not.
    NotCached,
    /// A fault of ours.
    Internal,
}

impl ErrorCode {
    /// The one map from code to status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidName | Self::InvalidRequest | Self::BodyMismatch | Self::DigestMismatch => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthorized | Self::TokenExpired => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::UnknownZone | Self::UnknownFile | Self::UnknownNode | Self::UnknownToken | Self::UnknownEndpoint => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::Conflict | Self::BlobCondemned => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RangeNotSatisfiable | Self::TooManyRanges => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::EventsGone => StatusCode::GONE,
            Self::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::BlobCorrupt | Self::UpstreamUnreachable => StatusCode::BAD_GATEWAY,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout | Self::NotCached => StatusCode::GATEWAY_TIMEOUT,
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The code as it stands in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::InvalidName => "invalid_name",
            Self::InvalidRequest => "invalid_request",
            Self::BodyMismatch => "body_mismatch",
            Self::DigestMismatch => "digest_mismatch",
            Self::Unauthorized => "unauthorized",
            Self::TokenExpired => "token_expired",
            Self::Forbidden => "forbidden",
            Self::UnknownZone => "unknown_zone",
            Self::UnknownFile => "unknown_file",
            Self::UnknownNode => "unknown_node",
            Self::UnknownToken => "unknown_token",
            Self::UnknownEndpoint => "unknown_endpoint",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PreconditionFailed => "precondition_failed",
            Self::Conflict => "conflict",
            Self::BlobCondemned => "blob_condemned",
            Self::TooLarge => "too_large",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::TooManyRanges => "too_many_ranges",
            Self::EventsGone => "events_gone",
            Self::StorageFull => "storage_full",
            Self::BlobCorrupt => "blob_corrupt",
            Self::Overloaded => "overloaded",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::LoopDetected => "loop_detected",
            Self::NotCached => "not_cached",
            Self::Internal => "internal",
        }
    }
}

/// An error as it is sent: `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// `urn:littoral:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The reason phrase of the status.
    pub title: String,
    /// The HTTP status, again, for readers who only have the body.
    pub status: u16,
    /// The stable word.
    pub code: ErrorCode,
    /// What was wrong with this request, and what would be right.
    pub detail: String,
}

/// The media type of [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

impl Problem {
    /// A problem with its status and title filled in from `code`.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let status = code.status();
        Self {
            kind: format!("urn:littoral:problem:{}", code.word()),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            code,
            detail: detail.into(),
        }
    }

    /// The status to answer with.
    pub fn http_status(&self) -> StatusCode {
        self.code.status()
    }

    /// The JSON that is sent.
    pub fn to_json(&self) -> Vec<u8> {
        // A struct of strings and a number always serialises; an empty object is the worst that could be sent.
        serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec())
    }
}

impl From<InvalidName> for Problem {
    fn from(error: InvalidName) -> Self {
        Problem::new(ErrorCode::InvalidName, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_what_serde_writes() {
        for code in
            [ErrorCode::InvalidName, ErrorCode::BlobCondemned, ErrorCode::RangeNotSatisfiable, ErrorCode::Internal]
        {
            assert_eq!(serde_json::to_value(code).expect("json"), code.word());
        }
        let problem = Problem::new(ErrorCode::UnknownZone, "there is no zone 'x'");
        assert_eq!(problem.status, 404);
        assert!(String::from_utf8_lossy(&problem.to_json()).contains("urn:littoral:problem:unknown_zone"));
    }
}

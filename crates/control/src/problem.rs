//! From whatever went wrong to the problem document that is sent. The only place that knows the codes of catalog errors.

use api::{ErrorCode, InvalidName, Problem};
use axum::response::{IntoResponse, Response};
use catalog::CatalogError;
use http::{HeaderValue, Method, StatusCode, Uri, header};

/// An error on its way out. Handlers fail with it through `?`.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Problem);

impl Failure {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(Problem::new(code, detail))
    }

    /// A request that cannot be understood.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, detail)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Self {
        Self(error.into())
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        let code = match &error {
            CatalogError::UnknownZone(_) => ErrorCode::UnknownZone,
            CatalogError::UnknownFile(_) => ErrorCode::UnknownFile,
            CatalogError::UnknownNode(_) => ErrorCode::UnknownNode,
            CatalogError::UnknownToken(_) => ErrorCode::UnknownToken,
            CatalogError::PreconditionFailed(_) => ErrorCode::PreconditionFailed,
            CatalogError::Invalid(_) => ErrorCode::InvalidRequest,
            CatalogError::Conflict(_) | CatalogError::PullZone(_) => ErrorCode::Conflict,
            CatalogError::BlobCondemned(_) => ErrorCode::BlobCondemned,
            CatalogError::EventsGone { .. } => ErrorCode::EventsGone,
            CatalogError::Full => ErrorCode::StorageFull,
            CatalogError::Busy => ErrorCode::Overloaded,
            CatalogError::Database(_) => ErrorCode::Internal,
        };
        if code == ErrorCode::Internal {
            // What the database says may hold names and values; it is for the log, not for whoever asked.
            tracing::error!(%error, "the catalog failed");
            return Self::new(code, "the catalog failed; the log of control says how");
        }
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.0.http_status(), self.0.to_json()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(api::problem::PROBLEM_JSON));
        if self.0.http_status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.0.code == ErrorCode::Overloaded {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Where no route matches.
pub(crate) async fn unknown_endpoint(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    Failure::new(
        ErrorCode::UnknownEndpoint,
        format!("there is nothing at {path}; /v1/openapi.json lists what there is"),
    )
}

/// Where a route matches and its methods do not.
pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    Failure::new(
        ErrorCode::MethodNotAllowed,
        format!("{path} does not take {method}; the Allow header lists what it takes"),
    )
}

//! What can go wrong between a request and the last byte of its response, each with one word for metrics and
//! `Cache-Status`.

/// A request that got no response, or a response that broke off. In the latter case it is found in the body's error by
/// downcast.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// The server's name has no address.
    #[error("the name of {server} cannot be resolved: {why}")]
    Dns {
        /// Host and port.
        server: String,
        /// What the resolver said.
        why: String,
    },
    /// Nobody listens.
    #[error("{server} refused the connection")]
    ConnectRefused {
        /// Host and port.
        server: String,
    },
    /// No connection within the time allowed.
    #[error("no connection to {server} within {ms} ms")]
    ConnectTimeout {
        /// Host and port.
        server: String,
        /// The time allowed.
        ms: u64,
    },
    /// No connection for another reason, such as no route.
    #[error("cannot connect to {server}: {why}")]
    Connect {
        /// Host and port.
        server: String,
        /// What the operating system said.
        why: String,
    },
    /// The TLS handshake failed, or did not agree on the HTTP that was asked for.
    #[error("no TLS with {server}: {why}")]
    Tls {
        /// Host and port.
        server: String,
        /// What is wrong.
        why: String,
    },
    /// Too many requests wait for a connection already, or this one has waited too long.
    #[error("all connections to {server} are busy, and {why}")]
    Busy {
        /// Host and port.
        server: String,
        /// Which of the two.
        why: &'static str,
    },
    /// The server closed the connection before anything of the request was sent, or said that it had not looked at it.
    #[error("{server} closed the connection before the request was sent: {why}")]
    Unsent {
        /// Host and port.
        server: String,
        /// What was seen.
        why: String,
    },
    /// The server did not take the request's body.
    #[error("{server} took nothing more of the request's body for {ms} ms")]
    UploadStalled {
        /// Host and port.
        server: String,
        /// How long was waited.
        ms: u64,
    },
    /// The request's body did not come. The client's fault, not the server's.
    #[error("the request's body broke off or stood still")]
    RequestBody,
    /// The request cannot be written as HTTP. The caller's fault, not the server's.
    #[error("the request cannot be sent: {why}")]
    Request {
        /// What is wrong with it.
        why: String,
    },
    /// The head of the response did not come in time.
    #[error("{server} did not answer within {ms} ms")]
    FirstByteTimeout {
        /// Host and port.
        server: String,
        /// How long was waited, from the end of the request.
        ms: u64,
    },
    /// The connection ended after the request was sent, and before the response was whole.
    #[error("{server} closed the connection too early: {why}")]
    ClosedEarly {
        /// Host and port.
        server: String,
        /// What was seen.
        why: String,
    },
    /// What came back is not a response to this request.
    #[error("the response of {server} is broken: {why}")]
    BadResponse {
        /// Host and port.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// The response's body stood still.
    #[error("{server} sent nothing more of the response's body for {ms} ms")]
    BodyTimeout {
        /// Host and port.
        server: String,
        /// How long was waited.
        ms: u64,
    },
}

impl UpstreamError {
    /// One fixed word, for metrics and the detail of `Cache-Status`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns-failed",
            Self::ConnectRefused { .. } => "connect-refused",
            Self::ConnectTimeout { .. } => "connect-timeout",
            Self::Connect { .. } => "connect-failed",
            Self::Tls { .. } => "tls-failed",
            Self::Busy { .. } => "too-many-requests-waiting",
            Self::Unsent { .. } => "closed-unsent",
            Self::UploadStalled { .. } => "upload-stalled",
            Self::RequestBody => "request-body-failed",
            Self::Request { .. } => "bad-request",
            Self::FirstByteTimeout { .. } => "first-byte-timeout",
            Self::ClosedEarly { .. } => "closed-early",
            Self::BadResponse { .. } => "bad-response",
            Self::BodyTimeout { .. } => "body-timeout",
        }
    }

    /// Whether a server may have seen something of the request, and acted on it.
    pub fn reached_origin(&self) -> bool {
        match self {
            Self::Dns { .. }
            | Self::ConnectRefused { .. }
            | Self::ConnectTimeout { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Busy { .. }
            | Self::Unsent { .. }
            | Self::Request { .. } => false,
            Self::UploadStalled { .. }
            | Self::RequestBody
            | Self::FirstByteTimeout { .. }
            | Self::ClosedEarly { .. }
            | Self::BadResponse { .. }
            | Self::BodyTimeout { .. } => true,
        }
    }

    /// Whether no connection could be made: another server may do better, the same one will not.
    pub(super) fn is_connect(&self) -> bool {
        matches!(
            self,
            Self::Dns { .. }
                | Self::ConnectRefused { .. }
                | Self::ConnectTimeout { .. }
                | Self::Connect { .. }
                | Self::Tls { .. }
        )
    }

    /// Whether it speaks against the server, rather than against the client or the load.
    pub(super) fn blames_server(&self) -> bool {
        !matches!(self, Self::Busy { .. } | Self::Unsent { .. } | Self::RequestBody | Self::Request { .. })
    }
}

/// The deepest cause: «connection reset by peer» instead of «connection error».
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

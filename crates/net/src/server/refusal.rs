//! Everything that makes this server refuse a request, with the status and the text of the answer.

use http::StatusCode;

/// Why a request is refused. The connection is closed after each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the first line is not a request line: write METHOD SP TARGET SP HTTP/1.1 CRLF")]
    RequestLine,
    #[error("a line ends with LF alone: end each line with CRLF")]
    BareLf,
    #[error("more than a few empty lines stand before the request")]
    EmptyLines,
    #[error("the method is not a token, or longer than 32 bytes")]
    Method,
    #[error("this server does not tunnel: CONNECT is not supported")]
    Connect,
    #[error("the version of HTTP is not supported: use HTTP/1.1 or HTTP/2")]
    Version,
    #[error("the request target is not one: percent-encode what is not a URI character, and send no fragment")]
    Target,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the head of the request is too long")]
    HeadTooLong,
    #[error("the head of the request has too many fields")]
    TooManyFields,
    #[error("a field continues on a second line: this is obsolete, write it on one line")]
    Folding,
    #[error("a field line has no colon, or its name is not a token directly before the colon")]
    FieldName,
    #[error("the value of a field holds control characters")]
    FieldValue,
    #[error("Host is missing: send it exactly once")]
    HostMissing,
    #[error("Host occurs twice: send it exactly once")]
    HostTwice,
    #[error("Host is not a host name or address, with or without a port")]
    Host,
    #[error("Host contradicts the authority of the request target: send the same in both")]
    HostContradicts,
    #[error("Content-Length is not one decimal number: send it once, digits only")]
    ContentLength,
    #[error("Content-Length and Transfer-Encoding exclude each other")]
    LengthAndEncoding,
    #[error("Transfer-Encoding is not «chunked»: it has to be that, once, and last")]
    Encoding,
    #[error("this server knows no transfer coding but chunked")]
    UnknownEncoding,
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    EncodingInOldVersion,
    #[error("the only expectation that can be met is 100-continue")]
    Expectation,
    #[error("a chunk of the body is not framed as size in hexadecimal digits, CRLF, data, CRLF")]
    Chunk,
    #[error("the chunk extensions of the body are too long")]
    ExtensionsTooLong,
    #[error("a trailer field is malformed")]
    Trailer,
    #[error("the trailer section is too long")]
    TrailersTooLong,
    #[error("the head of the request did not arrive in time")]
    HeadTooSlow,
    #[error("the body of the request stopped arriving")]
    BodyTooSlow,
}

impl Refusal {
    /// The status of the answer (RFC 9110 section 15, RFC 6585 section 5).
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLong | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Connect | Self::UnknownEncoding => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::HeadTooSlow | Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

//! The head of a response, and how its body is framed: pure. Framing is ours alone; what the service says about it is
//! taken as a wish (`Content-Length`, `Connection: close`) or left out.

use std::io::Write;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, StatusCode, Version, response};
use http_body::SizeHint;

use super::refusal::Refusal;
use super::wire::{COPY_BYTES, Outbox};
use super::{head, hpack};

/// What has to be known of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) is_head: bool,
    pub(crate) version: Version,
    /// Whether client and server want to go on with the connection.
    pub(crate) keep_alive: bool,
}

/// How the body of a response is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    framing: Framing,
    /// Whether the connection goes on afterwards; the head says so.
    pub(crate) keep_alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    /// Bytes that are still to come.
    Length(u64),
    Chunked,
    UntilClose,
}

/// The service's body does not keep to its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LengthFault {
    #[error("the body of the response is shorter than its Content-Length by {left} bytes")]
    Short { left: u64 },
    #[error("the body of the response is longer than its Content-Length")]
    Long,
}

/// Writes the head of a final response. `hint` is the size of its body, `date` the current date.
pub(crate) fn head(out: &mut Vec<u8>, parts: &response::Parts, hint: &SizeHint, asked: Asked, date: &[u8]) -> Plan {
    let (status, headers) = (parts.status, &parts.headers);
    let wished = head::content_length(headers).ok().flatten();
    let (framing, length) = match status {
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT => (Framing::None, None),
        StatusCode::NOT_MODIFIED => (Framing::None, wished),
        _ if asked.is_head => (Framing::None, wished),
        _ => match wished.or_else(|| hint.exact()) {
            Some(length) => (Framing::Length(length), Some(length)),
            None if asked.version == Version::HTTP_11 => (Framing::Chunked, None),
            None => (Framing::UntilClose, None),
        },
    };
    let keep_alive = asked.keep_alive && framing != Framing::UntilClose && !head::asks_to_close(headers);
    let upgrade = matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
    status_line(out, status);
    for (name, value) in headers {
        let left_out =
            is_about_the_connection(name, headers) || name == CONTENT_LENGTH || (name == UPGRADE && !upgrade);
        if !left_out {
            field(out, name.as_str(), value.as_bytes());
        }
    }
    if !headers.contains_key(DATE) {
        field(out, "date", date);
    }
    if let Some(length) = length {
        field_of_number(out, "content-length", length);
    }
    if framing == Framing::Chunked {
        field(out, "transfer-encoding", b"chunked");
    }
    match (status, keep_alive, asked.version) {
        (StatusCode::SWITCHING_PROTOCOLS, ..) => field(out, "connection", b"upgrade"),
        (StatusCode::UPGRADE_REQUIRED, true, _) => field(out, "connection", b"upgrade"),
        (StatusCode::UPGRADE_REQUIRED, false, _) => field(out, "connection", b"close, upgrade"),
        (_, false, _) => field(out, "connection", b"close"),
        (_, true, Version::HTTP_10) => field(out, "connection", b"keep-alive"),
        (_, true, _) => {}
    }
    out.extend_from_slice(b"\r\n");
    Plan { framing, keep_alive }
}

/// The head of a 200 response whose body has this length, without its empty line: for who answers before requests are parsed
/// ([`super::plain::ReadyAnswers`]), and adds what changes from answer to answer. `fields` have a `Date`.
pub fn ready_head(fields: &HeaderMap, length: u64) -> Vec<u8> {
    let mut head = Vec::new();
    let mut parts = http::Response::new(()).into_parts().0;
    parts.headers.clone_from(fields);
    let asked = Asked { is_head: false, version: Version::HTTP_11, keep_alive: true };
    self::head(&mut head, &parts, &SizeHint::with_exact(length), asked, b"");
    head.truncate(head.len().saturating_sub(2));
    head
}

/// The same as a block of HPACK, whole but for what changes.
pub fn ready_block(fields: &HeaderMap, length: u64) -> Vec<u8> {
    let mut block = Vec::new();
    hpack::status(&mut block, StatusCode::OK);
    let stays =
        |name: &HeaderName| !is_about_the_connection(name, fields) && *name != UPGRADE && *name != CONTENT_LENGTH;
    hpack::fields(&mut block, fields.iter().filter(|(name, _)| stays(name)));
    hpack::field(&mut block, "content-length", length.to_string().as_bytes());
    block
}

/// Writes an informational response.
pub(crate) fn informational(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    status_line(out, status);
    for (name, value) in headers {
        field(out, name.as_str(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the whole answer to a request that is refused: it says why, and that the connection ends. (Nothing follows on
/// the connection, so the text cannot be taken for another response where the request was a HEAD.)
pub(crate) fn refusal(out: &mut Vec<u8>, refusal: Refusal, date: &[u8]) {
    let text = refusal.to_string();
    status_line(out, refusal.status());
    field(out, "date", date);
    field(out, "content-type", b"text/plain; charset=utf-8");
    field_of_number(out, "content-length", text.len() as u64 + 1);
    field(out, "connection", b"close");
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

/// Whether a field of a response speaks about the connection only (RFC 9110 section 7.6.1), or about framing.
pub(crate) fn is_about_the_connection(name: &HeaderName, headers: &HeaderMap) -> bool {
    is_about_any_connection(name)
        // Upgrade is always named there; whether it stays is the status's matter.
        || (name != UPGRADE && head::is_named_in_connection(headers, name))
}

/// The same of fields that always do, wherever they stand.
pub(crate) fn is_about_any_connection(name: &HeaderName) -> bool {
    [CONNECTION, TRANSFER_ENCODING, TRAILER].contains(name)
        || ["keep-alive", "proxy-connection"].contains(&name.as_str())
}

impl Plan {
    /// Whether nothing (more) of the service's body is sent.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// Whether there is a length to keep to.
    pub(crate) fn has_length(&self) -> bool {
        matches!(self.framing, Framing::Length(_))
    }

    /// Whether a clean end of the connection would end the body.
    pub(crate) fn ends_with_the_connection(&self) -> bool {
        self.framing == Framing::UntilClose
    }

    /// Frames a piece, `last` if it is surely the last one.
    ///
    /// # Errors
    /// [`LengthFault::Long`]; nothing of this piece must be sent then.
    pub(crate) fn push(&mut self, out: &mut Outbox, data: Bytes, last: bool) -> Result<(), LengthFault> {
        let bytes = data.len() as u64;
        if bytes == 0 {
            return if last { self.finish(out) } else { Ok(()) };
        }
        match self.framing {
            Framing::None => {}
            Framing::UntilClose => out.push(data, b""),
            Framing::Length(left) => {
                self.framing = Framing::Length(left.checked_sub(bytes).ok_or(LengthFault::Long)?);
                out.push(data, b"");
            }
            Framing::Chunked => {
                // Writing to a vector cannot fail.
                let _ = write!(out.staged(), "{bytes:x}\r\n");
                out.push(data, if last { b"\r\n0\r\n\r\n" } else { b"\r\n" });
                if last {
                    self.framing = Framing::None;
                }
            }
        }
        Ok(())
    }

    /// The service's body has ended.
    ///
    /// # Errors
    /// [`LengthFault::Short`].
    pub(crate) fn finish(&mut self, out: &mut Outbox) -> Result<(), LengthFault> {
        match std::mem::replace(&mut self.framing, Framing::None) {
            Framing::Length(left @ 1..) => Err(LengthFault::Short { left }),
            Framing::Chunked => {
                out.staged().extend_from_slice(b"0\r\n\r\n");
                Ok(())
            }
            Framing::None | Framing::Length(0) | Framing::UntilClose => Ok(()),
        }
    }
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.reserve(COPY_BYTES);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn field_of_number(out: &mut Vec<u8>, name: &str, value: u64) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{name}: {value}\r\n");
}

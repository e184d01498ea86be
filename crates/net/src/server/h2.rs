//! HTTP/2 with prior knowledge, over the `h2` crate: a task for each connection, and one for each of its streams.
//!
//! `h2` refuses what RFC 9113 calls malformed (order of pseudo-fields, upper case, fields about the connection, a length
//! that does not match). Here stands what it leaves open: the same judgement of target, host and length as in HTTP/1, and
//! bounds on what a client may make us do.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, SendResponse};
use http::{Request, Response};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::body::Incoming;
use super::rewound::Rewound;
use super::stream;
use super::wire::Transport;
use crate::body::BodyError;
use crate::serve::ServerLimits;

/// Bytes of a request body that its client may send ahead: the window of a stream.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of responses that are buffered for one stream.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Streams that the client reset and we have not looked at yet.
const UNSEEN_RESETS: usize = 20;
/// Streams that we reset because of the client's mistakes.
const MISTAKES: usize = 100;

/// Serves a connection that began with HTTP/2's preface, all of it in `io`.
pub(crate) async fn run<T, S, B>(
    io: Rewound<T>,
    peer: SocketAddr,
    service: S,
    limits: ServerLimits,
    shutdown: CancellationToken,
) where
    T: Transport,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let idle_wait = Duration::from_millis(limits.head_ms);
    let handshake = builder(&limits).handshake::<_, Bytes>(io);
    let Ok(Ok(mut connection)) = tokio::time::timeout(idle_wait, handshake).await else { return };
    // Dropped with this future: streams end with their connection.
    let mut streams = JoinSet::new();
    let mut resets = 0_usize;
    let mut draining = false;
    loop {
        let idle = streams.is_empty();
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let respond: SendResponse<Bytes> = respond;
                    streams.spawn(stream::run(request, respond, peer, service.clone(), limits.clone()));
                }
                Some(Err(error)) => {
                    tracing::debug!(%peer, %error, "connection ended");
                    return;
                }
                None => return,
            },
            Some(ended) = streams.join_next() => {
                // Each stream that ends well forgives a reset: who resets more than that is attacking (CVE-2023-44487).
                match ended {
                    Ok(stream::End::Reset) => resets += 1,
                    Ok(stream::End::Answered) | Err(_) => resets = resets.saturating_sub(1),
                }
                if resets > limits.h2_resets {
                    tracing::debug!(%peer, "too many streams reset");
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    resets = 0;
                }
            }
            () = shutdown.cancelled(), if !draining => {
                draining = true;
                connection.graceful_shutdown();
            }
            () = tokio::time::sleep(idle_wait), if idle => {
                if draining {
                    return;
                }
                draining = true;
                connection.graceful_shutdown();
            }
        }
    }
}

fn builder(limits: &ServerLimits) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(MISTAKES));
    builder
}

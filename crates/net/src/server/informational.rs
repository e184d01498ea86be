//! [`Informational`]: how a service sends 102 and 103 before its response.
//!
//! A queue for each connection (HTTP/1.1) or stream (HTTP/2), behind a lock that is held for a few instructions. `exchange`
//! numbers the requests of a connection, so that a handle that outlives its request cannot write into the next one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, StatusCode};

use super::body::wake;

/// Informational responses to one request.
pub(crate) const INFORMATIONAL_RESPONSES: usize = 16;
/// Bytes of the fields of one informational response.
pub(crate) const INFORMATIONAL_BYTES: usize = 16 << 10;

/// Sends informational responses (RFC 9110 section 15.2) to the client of one request, before its final response.
///
/// In the extensions of each request. Clones send to the same client.
#[derive(Debug, Clone)]
pub struct Informational {
    queue: Arc<Mutex<Queue>>,
    exchange: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// The request that is being answered, until the head of its final response.
    open: Option<u64>,
    taken: usize,
    waiting: VecDeque<(StatusCode, HeaderMap)>,
    sender: Option<Waker>,
}

impl Informational {
    /// Sends `status`, one of 102, 103 and other 1xx but 100 (sent by itself, when a body is first polled) and 101 (a final
    /// response here), with `headers`; fields about framing are left out.
    ///
    /// Nothing is sent to HTTP/1.0 clients, after the head of the final response, beyond 16 for a request, or beyond 16 KiB
    /// of fields: informational responses are hints, and losing one harms nobody.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let own = status == StatusCode::CONTINUE || status == StatusCode::SWITCHING_PROTOCOLS;
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if own || !status.is_informational() || bytes > INFORMATIONAL_BYTES {
            tracing::debug!(%status, bytes, "informational response left out");
            return;
        }
        let mut headers = headers.clone();
        for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE] {
            headers.remove(name);
        }
        for name in ["keep-alive", "proxy-connection"] {
            headers.remove(name);
        }
        self.enqueue(status, headers);
    }

    /// Sends 100. It is bounded by being sent at most once.
    pub(crate) fn send_continue(&self) {
        self.enqueue(StatusCode::CONTINUE, HeaderMap::new());
    }

    fn enqueue(&self, status: StatusCode, headers: HeaderMap) {
        let mut queue = self.lock();
        if queue.open == Some(self.exchange) && queue.taken < INFORMATIONAL_RESPONSES {
            queue.taken += 1;
            queue.waiting.push_back((status, headers));
            wake(queue.sender.take());
        }
    }

    /// A queue that is closed.
    pub(crate) fn new() -> Self {
        Self { queue: Arc::default(), exchange: 0 }
    }

    /// The handle for the next request of this connection, and opens the queue for it unless its client knows nothing of
    /// informational responses.
    pub(crate) fn next(&mut self, understood: bool) -> Self {
        self.exchange += 1;
        let mut queue = self.lock();
        queue.open = understood.then_some(self.exchange);
        queue.taken = 0;
        queue.waiting.clear();
        drop(queue);
        self.clone()
    }

    /// Hands all that waits to `send`, and remembers to wake `cx` for more.
    pub(crate) fn take(&self, cx: &mut Context<'_>, send: impl FnMut((StatusCode, HeaderMap))) {
        let mut queue = self.lock();
        queue.sender = Some(cx.waker().clone());
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        waiting.into_iter().for_each(send);
    }

    /// Hands what still waits to `send`, and takes no more: the final response follows.
    pub(crate) fn close(&self, send: impl FnMut((StatusCode, HeaderMap))) {
        let mut queue = self.lock();
        queue.open = None;
        queue.sender = None;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        waiting.into_iter().for_each(send);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock can panic half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(connection: &Informational) -> Vec<u16> {
        let mut taken = Vec::new();
        connection.take(&mut Context::from_waker(Waker::noop()), |(status, _)| taken.push(status.as_u16()));
        taken
    }

    #[test]
    fn only_its_own_request_and_only_before_the_final_head() {
        let mut connection = Informational::new();
        let (early_hints, none) = (StatusCode::EARLY_HINTS, HeaderMap::new());
        let first = connection.next(true);
        for status in
            [StatusCode::PROCESSING, early_hints, StatusCode::SWITCHING_PROTOCOLS, StatusCode::OK, StatusCode::CONTINUE]
        {
            first.send(status, &none);
        }
        assert_eq!(taken(&connection), [102, 103]);
        connection.close(|_| panic!("nothing waits"));
        first.send(early_hints, &none);
        let second = connection.next(true);
        first.send(early_hints, &none);
        assert!(taken(&connection).is_empty());
        second.send(early_hints, &none);
        assert_eq!(taken(&connection), [103]);
        let old = connection.next(false);
        old.send(early_hints, &none);
        assert!(taken(&connection).is_empty());
    }

    #[test]
    fn bounded_in_number_and_size() {
        let mut connection = Informational::new();
        let request = connection.next(true);
        let mut headers = HeaderMap::new();
        headers.insert("link", "x".repeat(INFORMATIONAL_BYTES).parse().expect("value"));
        request.send(StatusCode::EARLY_HINTS, &headers);
        for _ in 0..INFORMATIONAL_RESPONSES + 1 {
            request.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        }
        assert_eq!(taken(&connection).len(), INFORMATIONAL_RESPONSES);
    }
}

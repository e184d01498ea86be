//! The loop of a connection: head, exchange, head, exchange, until one side has enough.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use bytes::Buf;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::date::DateText;
use super::exchange::{Exchanges, Next};
use super::head::{self, Head};
use super::informational::Informational;
use super::plain::{Plain, ReadyAnswers};
use super::reading::Fault;
use super::refusal::Refusal;
use super::scan::{HeadLimits, Scanner};
use super::wire::{Transport, Wire};
use super::{encode, http2};
use crate::door::TLS_HANDSHAKE;
use crate::serve::{HttpService, Peer, ServerLimits};

/// What an HTTP/2 connection begins with (RFC 9113 section 3.4). No HTTP/1 request does: its version would be refused.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// To whoever begins a handshake of TLS where plain HTTP is spoken: the alert `handshake_failure`, fatal (RFC 8446 section 6).
const NO_TLS: [u8; 7] = [21, 3, 1, 0, 2, 2, 40];

/// After a refusal the client gets this long to read the answer and to close, in milliseconds: closing at once, with bytes
/// unread, would reset the connection and destroy the answer on its way.
const LINGER_MS: u64 = 1_000;
/// Bytes that are read and dropped meanwhile.
const LINGER_BYTES: usize = 1 << 20;

/// Serves one connection: HTTP/1.x, or HTTP/2 if it begins with that protocol's preface.
pub(crate) async fn run<T: Transport, S: HttpService>(
    io: T,
    peer: SocketAddr,
    mut service: S,
    ready: Option<Arc<dyn ReadyAnswers>>,
    limits: ServerLimits,
    shutdown: CancellationToken,
) {
    let exchanges = Exchanges {
        wire: Wire::new(io),
        peer: Peer { address: peer, secure: T::SECURE },
        date: DateText::new(),
        informational: Informational::new(),
        shutdown: shutdown.clone(),
        silence: Duration::from_millis(limits.stall_ms),
    };
    let head_limits =
        HeadLimits { bytes: limits.head_bytes, fields: limits.head_fields, target_bytes: limits.target_bytes };
    let timer = Timer::new(limits.head_ms);
    let drain = Drain::new(shutdown.clone(), limits.drain_idle_ms.min(limits.drain_ms));
    let mut connection = Connection { exchanges, ready: ready.clone(), limits: head_limits, timer, drain, first: true };
    loop {
        let next = match connection.next_head().await {
            Ok(Begins::Answered { closes: false }) => {
                connection.exchanges.wire.flush().await.map(|()| Next::Request).map_err(|_| Fault::Gone)
            }
            Ok(Begins::Answered { closes: true }) => Ok(Next::Close { unread: false }),
            // In a box, so that a connection that waits for a request is not as large as one that has it.
            Ok(Begins::Request(head)) => Box::pin(connection.exchanges.run(*head, &mut service)).await,
            Ok(Begins::Http2) => {
                let io = connection.exchanges.wire.into_rewound();
                return Box::pin(http2::run(io, peer, service, ready, limits, shutdown)).await;
            }
            Ok(Begins::Tls) => {
                tracing::debug!(%peer, "TLS on a port of plain HTTP");
                connection.exchanges.wire.output.staged().extend_from_slice(&NO_TLS);
                return Box::pin(connection.close(true)).await;
            }
            Ok(Begins::Nothing) => return,
            // It was not a request's fault: over TLS the client is told that this is the end, and not a cut.
            Ok(Begins::Silence) => Ok(Next::Close { unread: false }),
            Err(refusal) => Err(Fault::Refused(refusal)),
        };
        match next {
            Ok(Next::Request) => {}
            Ok(Next::Close { unread }) => return Box::pin(connection.close(unread)).await,
            Ok(Next::Upgrade(fulfil)) => {
                return Box::pin(fulfil.run(connection.exchanges.wire.into_rewound())).await;
            }
            Err(Fault::Refused(refusal)) => return Box::pin(connection.refuse(refusal)).await,
            Err(Fault::Gone) => return,
            Err(Fault::Cut(why)) => {
                tracing::debug!(%peer, why, "response cut");
                return;
            }
        }
    }
}

struct Connection<T> {
    exchanges: Exchanges<T>,
    ready: Option<Arc<dyn ReadyAnswers>>,
    limits: HeadLimits,
    timer: Timer,
    drain: Drain,
    /// Whether no request came yet.
    first: bool,
}

/// What comes next on a connection.
enum Begins {
    Request(Box<Head>),
    /// A request whose answer was ready, and is staged now. `closes`: it was the last one.
    Answered {
        closes: bool,
    },
    Http2,
    /// A handshake of TLS, which is spoken elsewhere.
    Tls,
    /// It ended.
    Nothing,
    /// It was idle for too long, or idle at shutdown.
    Silence,
}

impl<T: Transport> Connection<T> {
    async fn next_head(&mut self) -> Result<Begins, Refusal> {
        let mut scanner = Scanner::default();
        self.timer.restart();
        let mut idle = self.exchanges.wire.input.is_empty();
        let mut begun = false;
        loop {
            let input = &mut self.exchanges.wire.input;
            if self.first && input.first() == Some(&TLS_HANDSHAKE) {
                return Ok(Begins::Tls);
            }
            let preface = self.first && (input.starts_with(PREFACE) || PREFACE.starts_with(input));
            if preface && input.len() >= PREFACE.len() {
                return Ok(Begins::Http2);
            }
            if !preface && let Some(found) = scanner.advance(input, &self.limits)? {
                self.first = false;
                if let Some(closes) = self.answered(found.clone()) {
                    return Ok(Begins::Answered { closes });
                }
                let input = &mut self.exchanges.wire.input;
                input.advance(found.start);
                let bytes = input.split_to(found.len()).freeze();
                return head::parse(&bytes, scanner.fields(), &self.limits).map(|head| Begins::Request(Box::new(head)));
            }
            if std::mem::take(&mut begun) {
                // From its first byte on a head has its whole time; most heads come at once and need no clock.
                self.timer.restart();
            }
            match self.fill(idle).await {
                Filled::More => begun = std::mem::take(&mut idle),
                Filled::Nothing => return Ok(Begins::Nothing),
                Filled::TooSlow if idle => return Ok(Begins::Silence),
                Filled::TooSlow => return Err(Refusal::HeadTooSlow),
            }
        }
    }

    /// Answers the request whose head stands there, if the answer is ready: it is staged then, and the head is taken.
    /// Whether that was the last request.
    fn answered(&mut self, found: Range<usize>) -> Option<bool> {
        let Exchanges { wire, shutdown, peer, .. } = &mut self.exchanges;
        let ready = self.ready.as_deref().filter(|_| !shutdown.is_cancelled())?;
        let plain = Plain::read(wire.input.get(found.clone())?, *peer)?;
        let staged = wire.output.staged();
        let body = ready.answer(&plain, staged)?;
        let closes = plain.closes;
        staged.extend_from_slice(if closes { b"connection: close\r\n\r\n" } else { b"\r\n" });
        wire.input.advance(found.end);
        wire.output.push(body, b"");
        Some(closes)
    }

    async fn fill(&mut self, idle: bool) -> Filled {
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.exchanges.wire.poll_fill(cx) {
                return Poll::Ready(if matches!(read, Ok(1..)) { Filled::More } else { Filled::Nothing });
            }
            if idle && self.drain.poll(cx).is_ready() {
                self.timer.shorten(self.drain.idle);
            }
            self.timer.poll(cx).map(|()| Filled::TooSlow)
        })
        .await
    }

    /// Answers a request that is refused, and ends the connection.
    async fn refuse(mut self, refusal: Refusal) {
        tracing::debug!(peer = %self.exchanges.peer.address, %refusal, "request refused");
        let Exchanges { wire, date, informational, .. } = &mut self.exchanges;
        informational.close(|_| {});
        encode::refusal(wire.output.staged(), refusal, date.at(SystemTime::now()));
        self.close(true).await;
    }

    /// Writes what is staged and ends the connection, so that the client can read what was sent.
    async fn close(mut self, unread: bool) {
        let wire = &mut self.exchanges.wire;
        let is_said = wire.output.is_empty();
        let end = poll_fn(|cx| wire.poll_end(cx));
        // An answer may take as long as others do, a farewell alone may not.
        let ended = match is_said {
            true => tokio::time::timeout(Duration::from_millis(LINGER_MS), end).await.is_ok_and(|end| end.is_ok()),
            false => end.await.is_ok(),
        };
        if !ended || (!unread && wire.input.is_empty()) {
            return;
        }
        let linger = async {
            let mut dropped = 0;
            while dropped < LINGER_BYTES {
                wire.input.clear();
                match poll_fn(|cx| wire.poll_fill(cx)).await {
                    Ok(read @ 1..) => dropped += read,
                    Ok(0) | Err(_) => return,
                }
            }
        };
        // Whoever is still sending then is cut off.
        let _ = tokio::time::timeout(Duration::from_millis(LINGER_MS), linger).await;
    }
}

enum Filled {
    More,
    Nothing,
    TooSlow,
}

/// Waits for the shutdown, once for the whole connection: to begin anew with each request would take locks each time.
struct Drain {
    token: CancellationToken,
    waiting: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Who is woken by `waiting`.
    woken: Option<Waker>,
    /// How long an idle connection stays then.
    idle: Duration,
}

impl Drain {
    fn new(token: CancellationToken, idle_ms: u64) -> Self {
        let idle = Duration::from_millis(idle_ms);
        Self { waiting: Box::pin(token.clone().cancelled_owned()), token, woken: None, idle }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.woken.as_ref().is_some_and(|woken| woken.will_wake(cx.waker())) {
            return if self.token.is_cancelled() { Poll::Ready(()) } else { Poll::Pending };
        }
        self.woken = Some(cx.waker().clone());
        self.waiting.as_mut().poll(cx)
    }
}

/// A deadline that is moved for each request, and that nearly never passes: moving it touches no timer, the timer that
/// goes off too early is set anew.
pub(crate) struct Timer {
    wait: Duration,
    deadline: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    pub(crate) fn new(wait_ms: u64) -> Self {
        let wait = Duration::from_millis(wait_ms);
        let deadline = Instant::now() + wait;
        Self { wait, deadline, sleep: Box::pin(tokio::time::sleep_until(deadline)) }
    }

    pub(crate) fn restart(&mut self) {
        self.deadline = Instant::now() + self.wait;
    }

    /// Brings the deadline nearer: not later than `wait` from now. Not for each request: it touches the timer.
    fn shorten(&mut self, wait: Duration) {
        let deadline = Instant::now() + wait;
        if deadline < self.deadline {
            self.deadline = deadline;
            self.sleep.as_mut().reset(deadline);
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.deadline);
        }
        Poll::Pending
    }
}

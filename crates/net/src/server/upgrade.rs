//! Switching protocols: how a service gets the connection after its 101 (RFC 9110 section 7.8).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::rewound::Rewound;
use super::wire::Transport;

/// In the extensions of a request that asks for another protocol: HTTP/1.1, `Connection: upgrade`, `Upgrade`, no body.
///
/// The service answers 101 with `Upgrade` and, in a task of its own, waits for the connection.
#[derive(Debug, Clone)]
pub struct OnUpgrade(Arc<Mutex<Option<oneshot::Receiver<Upgraded>>>>);

/// Why there is no upgraded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// The response was not 101, or the connection broke before it.
    #[error("the connection was not upgraded")]
    NotUpgraded,
    /// A clone of the handle has waited for it already.
    #[error("the upgraded connection was taken already")]
    Taken,
}

/// The other end of an [`OnUpgrade`].
pub(crate) struct Fulfil(oneshot::Sender<Upgraded>);

impl OnUpgrade {
    pub(crate) fn new() -> (Self, Fulfil) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(receiver)))), Fulfil(sender))
    }

    /// The connection, once the 101 is sent.
    ///
    /// # Errors
    /// See [`UpgradeError`].
    pub async fn upgraded(self) -> Result<Upgraded, UpgradeError> {
        let receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        receiver.ok_or(UpgradeError::Taken)?.await.map_err(|_| UpgradeError::NotUpgraded)
    }
}

impl Fulfil {
    /// Hands the connection over, and returns when it is dropped. If this future is dropped before, the connection is cut.
    pub(crate) async fn run<T: Transport>(self, io: Rewound<T>) {
        let cut = CancellationToken::new();
        let (open, closed) = oneshot::channel();
        let upgraded = Upgraded {
            io: Box::new(io),
            cut_reads: Box::pin(cut.clone().cancelled_owned()),
            cut_writes: Box::pin(cut.clone().cancelled_owned()),
            _open: open,
        };
        let _cut = cut.drop_guard();
        // Whoever does not want it any more drops it, which closes it.
        let _ = self.0.send(upgraded);
        let _ = closed.await;
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection after 101: the client's bytes as they are. Dropping it closes it.
///
/// Writes that stall are errors, as with every connection of this server; how long to wait for reads is the service's
/// matter. At shutdown it is cut after the drain time.
pub struct Upgraded {
    io: Box<dyn Duplex>,
    /// Two, because each wakes one task, and reader and writer may be two.
    cut_reads: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_writes: Pin<Box<WaitForCancellationFutureOwned>>,
    _open: oneshot::Sender<()>,
}

impl std::fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgraded").finish_non_exhaustive()
    }
}

impl Upgraded {
    fn writer(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut dyn Duplex>> {
        check(&mut self.cut_writes, cx)?;
        Ok(Pin::new(&mut *self.io))
    }
}

fn check(cut: &mut Pin<Box<WaitForCancellationFutureOwned>>, cx: &mut Context<'_>) -> io::Result<()> {
    match cut.as_mut().poll(cx) {
        Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server shuts down")),
        Poll::Pending => Ok(()),
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        check(&mut this.cut_reads, cx)?;
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writer(cx)?.poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writer(cx)?.poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer(cx)?.poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer(cx)?.poll_shutdown(cx)
    }
}

//! A connection that speaks TLS, from its first byte on: rustls over a socket.
//!
//! What differs from a plain adapter is when bytes go out, because each write to a socket costs more than encrypting a small
//! response. The tickets that follow a handshake of TLS 1.3 wait for the first answer, and the farewell (close_notify) goes
//! out with the last one. No state but rustls's own, and no lock.

use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::server::Transport;

/// Bytes of encrypted data of one connection that wait for its socket: a response of 64 KiB with its head goes out at once.
const SEND_BUFFER_BYTES: usize = 96 << 10;

/// Bytes of a hello, as far as it has come without being whole: a generous one has three thousand. It is all that a client of
/// TLS can make an edge keep before it has done something itself.
const HELLO_BYTES: usize = 16 << 10;

/// A client that has not said yet what it wants.
pub(super) struct Hello<T> {
    pub(super) io: T,
    acceptor: Acceptor,
    /// The first byte that came.
    pub(super) first: Option<u8>,
    bytes: usize,
}

impl<T: Transport> Hello<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, acceptor: Acceptor::default(), first: None, bytes: 0 }
    }

    /// Waits for something of it.
    ///
    /// # Errors
    /// Those of the socket; `UnexpectedEof` at its end; `InvalidData` beyond [`HELLO_BYTES`].
    pub(super) async fn more(&mut self) -> io::Result<()> {
        let Self { io, acceptor, first, bytes } = self;
        if *bytes > HELLO_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a hello of more than 16 KiB"));
        }
        let read = poll_fn(|cx| {
            let mut seen = None;
            let read = acceptor.read_tls(&mut Bridge { io, cx, first: &mut seen });
            *first = first.or(seen);
            of_blocking(read)
        });
        match read.await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                *bytes += read;
                Ok(())
            }
        }
    }

    /// What it wants, once all of that has come.
    ///
    /// # Errors
    /// What came is no hello. The client was told so.
    pub(super) async fn accepted(&mut self) -> io::Result<Option<Accepted>> {
        match self.acceptor.accept() {
            Ok(accepted) => Ok(accepted),
            Err((error, alert)) => Err(refused(&mut self.io, error, alert).await),
        }
    }
}

/// See the head of this file.
pub(crate) struct TlsStream<T> {
    io: T,
    session: ServerConnection,
    /// The end follows what is written from now on: it waits for that, as far as there is room.
    ending: bool,
    /// The farewell was said.
    ended: bool,
}

impl<T: Transport> TlsStream<T> {
    /// Shakes hands with a client whose hello has come.
    ///
    /// # Errors
    /// Those of the socket, and `InvalidData` with rustls's reason. The client was told.
    pub(super) async fn shake_hands(mut io: T, accepted: Accepted, config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut session = match accepted.into_connection(config) {
            Ok(session) => session,
            Err((error, alert)) => return Err(refused(&mut io, error, alert).await),
        };
        session.set_buffer_limit(Some(SEND_BUFFER_BYTES));
        let mut stream = Self { io, session, ending: false, ended: false };
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    pub(super) fn session(&self) -> &ServerConnection {
        &self.session
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            ready!(self.poll_write_out(cx))?;
            if ready!(self.poll_read_in(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        // In TLS 1.3 the client has the last word, and only tickets wait; before, we have.
        if self.session.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            return Poll::Ready(Ok(()));
        }
        self.poll_write_out(cx)
    }

    /// One read of the socket; 0 at its end.
    fn poll_read_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = self.session.read_tls(&mut Bridge { io: &mut self.io, cx, first: &mut None });
        let read = ready!(of_blocking(read))?;
        if let Err(error) = self.session.process_new_packets() {
            // Its alert; whoever does not read it sees the connection end.
            let _ = self.poll_write_out(cx);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(read))
    }

    /// Writes everything that is encrypted.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let written = self.session.write_tls(&mut Bridge { io: &mut self.io, cx, first: &mut None });
            if ready!(of_blocking(written))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts what there is room for, and writes it.
    fn poll_encrypt(
        &mut self,
        cx: &mut Context<'_>,
        encrypt: impl Fn(&mut rustls::Writer<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let mut taken = encrypt(&mut self.session.writer())?;
        if taken == 0 {
            // No room: something waits.
            ready!(self.poll_write_out(cx))?;
            taken = encrypt(&mut self.session.writer())?;
        }
        if self.ending {
            return Poll::Ready(Ok(taken));
        }
        match self.poll_write_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What does not go out now waits, as far as there is room for it.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }
}

impl<T: Transport> Transport for TlsStream<T> {
    const SECURE: bool = true;

    fn reset_on_close(&mut self) {
        self.io.reset_on_close();
    }

    fn end_follows(&mut self) {
        self.ending = true;
    }
}

impl<T: Transport> AsyncRead for TlsStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut reader = self.session.reader();
            match reader.fill_buf() {
                Ok(plain) => {
                    let taken = plain.len().min(buf.remaining());
                    buf.put_slice(plain.get(..taken).unwrap_or_default());
                    reader.consume(taken);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            // The end of the socket is found by the reader, which knows whether it was announced.
            ready!(self.poll_read_in(cx))?;
        }
    }
}

impl<T: Transport> AsyncWrite for TlsStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_encrypt(cx, |writer| writer.write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_encrypt(cx, |writer| writer.write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ended, true) {
            self.session.send_close_notify();
        }
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Tells the client why not.
async fn refused<T: Transport>(io: &mut T, error: rustls::Error, mut alert: AcceptedAlert) -> io::Error {
    let mut bytes = Vec::new();
    if alert.write_all(&mut bytes).is_ok() {
        // Whoever does not read it sees the connection end.
        let _ = io.write_all(&bytes).await;
    }
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A socket as rustls wants it: what is pending is `WouldBlock`.
struct Bridge<'a, 'b, T> {
    io: &'a mut T,
    cx: &'a mut Context<'b>,
    /// Of what is read.
    first: &'a mut Option<u8>,
}

impl<T: AsyncRead + Unpin> Read for Bridge<'_, '_, T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        match Pin::new(&mut *self.io).poll_read(self.cx, &mut buf) {
            Poll::Ready(read) => {
                *self.first = self.first.or(buf.filled().first().copied());
                read.map(|()| buf.filled().len())
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<T: AsyncWrite + Unpin> Write for Bridge<'_, '_, T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        of_poll(Pin::new(&mut *self.io).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        of_poll(Pin::new(&mut *self.io).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        of_poll(Pin::new(&mut *self.io).poll_flush(self.cx))
    }
}

fn of_poll<R>(poll: Poll<io::Result<R>>) -> io::Result<R> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn of_blocking<R>(result: io::Result<R>) -> Poll<io::Result<R>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

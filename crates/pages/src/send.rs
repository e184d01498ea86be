//! Handing a block to a socket: its pages go into a pipe (`vmsplice`), and from there into the socket's queue (`splice`).
//! Neither copies them. The head before it is sent as ever, and waits in the queue for what follows (`MSG_MORE`): that costs
//! less than a page of the pipe.
//!
//! A thread has one pipe for all of its sockets. It is empty between calls: what a socket does not take is thrown away, and
//! handed over anew when it takes more.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::pipe::{
    IoSliceRaw, PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice, vmsplice,
};

use crate::arena::holds;

/// Bytes that a pipe is to hold; where a user's pipes hold too much already, it holds 64 KiB. More costs more than it spares
/// where a socket takes little at a time.
const PIPE_BYTES: usize = 256 << 10;
/// Below this a pipe is of no use: a user whose pipes hold far too much gets pipes of two pages.
const LEAST_PIPE_BYTES: usize = 64 << 10;
/// How long a thread writes where there is no pipe, or the kernel does not do this, before it tries again, in milliseconds.
const REST_MS: u64 = 10_000;

thread_local! {
    static PIPE: RefCell<State> = const { RefCell::new(State::New) };
}

/// Why nothing was sent.
#[derive(Debug)]
pub enum SendError {
    /// It has to be written: the body is not in a block, or the machine does not do this.
    Write,
    /// The socket's error; [`io::ErrorKind::WouldBlock`] where it takes nothing now.
    Socket(io::Error),
}

impl SendError {
    /// Whether the socket takes nothing now, and will again.
    fn is_full(&self) -> bool {
        matches!(self, Self::Socket(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// So many bytes, at least one.
    pub bytes: usize,
    /// The socket takes no more now. (Else there may be more to send only because it was more than goes at once.)
    pub full: bool,
}

/// Sends `head`, copied, and after it `body`, as it lies there. `more`: something follows, so that what does not fill a packet
/// may wait for that. The socket is one that does not block.
///
/// # Errors
/// See [`SendError`]. Then nothing was sent.
pub fn send(socket: impl AsFd, head: &[u8], body: &Bytes, more: bool) -> Result<Sent, SendError> {
    if body.is_empty() || !holds(body) {
        return Err(SendError::Write);
    }
    PIPE.with_borrow_mut(|state| {
        if state.open().is_none() {
            return Err(SendError::Write);
        }
        let headed = send_head(socket.as_fd(), head)?;
        if headed < head.len() {
            return Ok(Sent { bytes: headed, full: true });
        }
        match send_body(state, socket.as_fd(), body, more) {
            Ok(sent) => Ok(Sent { bytes: headed + sent.bytes, ..sent }),
            // What has gone has gone. Whoever comes for the rest meets the error.
            Err(error) if headed > 0 => Ok(Sent { bytes: headed, full: error.is_full() }),
            Err(error) => Err(error),
        }
    })
}

/// Answers how much of it the socket took, where it waits for what follows at once.
fn send_head(socket: BorrowedFd<'_>, head: &[u8]) -> Result<usize, SendError> {
    if head.is_empty() {
        return Ok(0);
    }
    loop {
        match rustix::net::send(socket, head, SendFlags::MORE | SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map_err(|errno| SendError::Socket(errno.into())),
        }
    }
}

fn send_body(state: &mut State, socket: BorrowedFd<'_>, body: &[u8], more: bool) -> Result<Sent, SendError> {
    let pipe = state.open().ok_or(SendError::Write)?;
    let Ok(filled) = pipe.fill(body) else {
        *state = State::rest();
        return Err(SendError::Write);
    };
    let sent = pipe.empty_into(socket, filled, more || filled < body.len());
    let left = filled - *sent.as_ref().unwrap_or(&0);
    if left > 0 && !pipe.throw_away(left) {
        *state = State::New;
    }
    match sent {
        Ok(0) => Err(SendError::Socket(io::ErrorKind::WriteZero.into())),
        Ok(bytes) => Ok(Sent { bytes, full: bytes < filled }),
        Err(errno) => Err(SendError::Socket(errno.into())),
    }
}

enum State {
    New,
    /// The machine does not do this. Not tried again before then.
    Rests(Instant),
    Open(Pipe),
}

impl State {
    fn open(&mut self) -> Option<&mut Pipe> {
        let tries = match self {
            Self::New => true,
            Self::Rests(until) => Instant::now() >= *until,
            Self::Open(_) => false,
        };
        if tries {
            *self = Pipe::new().map_or_else(Self::rest, Self::Open);
        }
        match self {
            Self::Open(pipe) => Some(pipe),
            Self::New | Self::Rests(_) => None,
        }
    }

    fn rest() -> Self {
        Self::Rests(Instant::now() + Duration::from_millis(REST_MS))
    }
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Takes what is thrown away.
    null: Option<File>,
}

impl Pipe {
    fn new() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Where that is refused, it may be large enough as it is.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        if fcntl_getpipe_size(&write).ok()? < LEAST_PIPE_BYTES {
            return None;
        }
        let null = OpenOptions::new().write(true).open("/dev/null").ok();
        Some(Self { read, write, null })
    }

    /// Puts in as much of the body as there is room for. Says how many bytes went in.
    fn fill(&self, body: &[u8]) -> Result<usize, Errno> {
        let slice = [IoSliceRaw::from_slice(body)];
        #[expect(unsafe_code, reason = "pages are shown to the kernel")]
        // SAFETY: This end of the pipe is the one for writing, so the memory is only read. It is a slice that is borrowed, and
        // its pages are not given away (`GIFT`). Whoever refers to them afterwards sees what is in them now: they are a
        // frozen block's, which nobody writes, and when it goes they are not used again by this process.
        unsafe {
            vmsplice(&self.write, &slice, SpliceFlags::NONBLOCK)
        }
    }

    fn empty_into(&self, socket: BorrowedFd<'_>, filled: usize, more: bool) -> Result<usize, Errno> {
        let flags = if more { SpliceFlags::NONBLOCK | SpliceFlags::MORE } else { SpliceFlags::NONBLOCK };
        loop {
            match splice(&self.read, None, socket, None, filled, flags) {
                Err(Errno::INTR) => {}
                sent => return sent,
            }
        }
    }

    /// Whether it is empty now.
    fn throw_away(&self, mut left: usize) -> bool {
        let Some(null) = &self.null else { return false };
        while left > 0 {
            match splice(&self.read, None, null, None, left, SpliceFlags::NONBLOCK) {
                Ok(gone @ 1..) => left = left.saturating_sub(gone),
                Ok(0) | Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LEAST_BYTES, Pool};
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        server.set_nonblocking(true).unwrap();
        (server, client)
    }

    /// Sends until the socket takes no more, and says how much it has taken.
    fn fill(server: &TcpStream, head: &[u8], body: &Bytes) -> usize {
        let (mut sent, all) = (0, head.len() + body.len());
        while sent < all {
            let (head, body) = (head.get(sent..).unwrap_or_default(), body.slice(sent.saturating_sub(head.len())..));
            match send(server, head, &body, false) {
                Ok(more) => {
                    sent += more.bytes;
                    assert!(more.full || sent == all || more.bytes >= LEAST_PIPE_BYTES - 4096, "{more:?}");
                }
                Err(SendError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error:?}"),
            }
        }
        sent
    }

    fn random(bytes: usize) -> Bytes {
        std::iter::repeat_with(|| fastrand::u8(..)).take(bytes).collect()
    }

    #[test]
    fn what_is_in_flight_does_not_change_when_its_block_goes_and_its_addresses_are_used_again() {
        let pool = Pool::new(64 << 20);
        for length in [LEAST_BYTES, 64 << 10, (1 << 20) + 5] {
            let (server, mut client) = connected();
            let bytes = random(length);
            let block = pool.own(bytes.clone());
            let at = block.as_ptr().addr();
            let sent = fill(&server, b"head ", &block);
            assert!(sent > LEAST_BYTES / 2, "{sent}");
            drop(block);
            // Somebody gets its pages' addresses, and writes there. (Other tests may have them for a while.)
            let overlaps = |other: &Bytes| (at..at + length).contains(&other.as_ptr().addr());
            let mut others = Vec::new();
            while !others.iter().any(overlaps) {
                others.clear();
                others.extend((0..32).map(|_| pool.own(Bytes::from(vec![0xEE; length]))));
            }
            let mut got = vec![0; sent];
            client.read_exact(&mut got).unwrap();
            assert!(got == [b"head ", &bytes[..sent - 5]].concat(), "{length}: other bytes than were sent");
        }
    }

    #[test]
    fn a_body_arrives_whole_from_anywhere_in_it_however_slowly_it_is_read() {
        let pool = Pool::new(64 << 20);
        let bytes = random(3 << 20);
        let block = pool.own(bytes.clone());
        assert!(holds(&block) && !holds(&bytes));
        for (from, to) in [(0, 3 << 20), (1, 2), (4095, 4097), (4096, 8192), (1_000_001, 2_999_999)] {
            let (server, client) = connected();
            let reader = std::thread::spawn(move || {
                let (mut client, mut got, mut buffer) = (client, Vec::new(), [0; 30_000]);
                loop {
                    match client.read(&mut buffer).unwrap() {
                        0 => return got,
                        read => got.extend_from_slice(&buffer[..read]),
                    }
                }
            });
            let mut rest = block.slice(from..to);
            while !rest.is_empty() {
                let sent = fill(&server, b"", &rest);
                rest = rest.slice(sent..);
                std::thread::yield_now();
            }
            drop(server);
            assert!(reader.join().unwrap() == bytes[from..to], "{from}..{to}");
        }
    }

    #[test]
    fn what_is_in_no_block_is_to_be_written() {
        let pool = Pool::new(1 << 20);
        let (server, mut client) = connected();
        let (heap, block) = (random(LEAST_BYTES), pool.own(random(LEAST_BYTES)));
        for body in [&heap, &block.slice(..0)] {
            assert!(matches!(send(&server, b"head", body, false), Err(SendError::Write)));
        }
        // And nothing of it was sent.
        assert_eq!(fill(&server, b"", &block), LEAST_BYTES);
        let mut got = vec![0; LEAST_BYTES];
        client.read_exact(&mut got).unwrap();
        assert!(got == block);
    }

    #[test]
    fn a_head_is_sent_up_to_where_the_socket_is_full() {
        let pool = Pool::new(1 << 20);
        let (server, mut client) = connected();
        let (head, block) = (random(16 << 20), pool.own(random(LEAST_BYTES)));
        let first = send(&server, &head, &block, false).unwrap();
        assert!(first.full && first.bytes < head.len(), "{first:?}");
        assert!(
            matches!(send(&server, b"", &block, false), Err(SendError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock)
        );
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            got
        });
        let mut sent = first.bytes;
        while sent < head.len() + block.len() {
            sent +=
                fill(&server, head.get(sent..).unwrap_or_default(), &block.slice(sent.saturating_sub(head.len())..));
            std::thread::yield_now();
        }
        drop(server);
        assert!(reader.join().unwrap() == [head, block].concat());
    }

    #[test]
    fn a_socket_that_has_gone_is_an_error_and_the_next_one_gets_nothing_of_it() {
        let pool = Pool::new(1 << 20);
        let (one, two) = (pool.own(random(LEAST_BYTES)), pool.own(random(LEAST_BYTES)));
        let (server, client) = connected();
        server.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(matches!(send(&server, b"x", &one, false), Err(SendError::Socket(_))));
        drop(client);
        let (server, mut client) = connected();
        assert_eq!(fill(&server, b"y", &two), LEAST_BYTES + 1);
        let mut got = vec![0; LEAST_BYTES + 1];
        client.read_exact(&mut got).unwrap();
        assert!(got == [b"y", &two[..]].concat());
    }
}

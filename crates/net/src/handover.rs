//! Giving listening sockets to another process of the same user, over a socket in the file system.
//!
//! A process that may be replaced waits at a path ([`HandoverPoint`]); its successor [asks](ask) there. Between them then is a
//! [`HandoverLink`]: messages, each with at most one descriptor (SCM_RIGHTS, unix(7)). What they say to each other is not
//! known here. Both ends have to belong to one user: whoever gets such a socket gets the connections of others.
//!
//! A message on the wire: its length (4 bytes, big-endian), with which the descriptor comes, and its bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

/// Bytes of a message.
pub const HANDOVER_MESSAGE_BYTES: usize = 256 << 10;
/// Bytes for the control message that carries one descriptor.
const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(1));

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Something else has the name.
    #[error("{} is no socket; name a path for one that is not there yet", .0.display())]
    NoSocket(PathBuf),
    /// The other end is not ours.
    #[error("{} belongs to a process of another user (id {uid}): only processes of one user hand sockets over", path.display())]
    OtherUser {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// The operating system's word.
    #[error("cannot use {}: {why}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        why: io::Error,
    },
}

/// Where a process waits for its successor. The name stays when this is dropped: it may be the successor's by then.
#[derive(Debug)]
pub struct HandoverPoint {
    listener: UnixListener,
    path: PathBuf,
}

impl HandoverPoint {
    /// Waits at `path` from now on, instead of whoever did before.
    ///
    /// # Errors
    /// See [`HandoverError`].
    pub fn bind(path: &Path) -> Result<Self, HandoverError> {
        let failed = |why| HandoverError::Io { path: path.to_owned(), why };
        check_name(path)?;
        // Under another name first, so that it is never there with the rights of others, and never not there.
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}", std::process::id()));
        let new = PathBuf::from(new);
        let _ = std::fs::remove_file(&new);
        let listener = UnixListener::bind(&new).map_err(failed)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        std::fs::rename(&new, path).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Waits at the same path again, where somebody else may have done so since.
    ///
    /// # Errors
    /// See [`HandoverError`]; then it waits where it did.
    pub fn bind_again(&mut self) -> Result<(), HandoverError> {
        *self = Self::bind(&self.path)?;
        Ok(())
    }

    /// The next process that asks.
    ///
    /// # Errors
    /// See [`HandoverError`]; the next one may be asked for all the same.
    pub async fn next(&self) -> Result<HandoverLink, HandoverError> {
        let accepted = self.listener.accept().await;
        let (stream, _) = accepted.map_err(|why| HandoverError::Io { path: self.path.clone(), why })?;
        HandoverLink::of(stream, &self.path)
    }
}

/// Asks the process that waits at `path`; nothing: there is none.
///
/// # Errors
/// See [`HandoverError`].
pub async fn ask(path: &Path) -> Result<Option<HandoverLink>, HandoverError> {
    check_name(path)?;
    match UnixStream::connect(path).await {
        Ok(stream) => HandoverLink::of(stream, path).map(Some),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(why) => Err(HandoverError::Io { path: path.to_owned(), why }),
    }
}

fn check_name(path: &Path) -> Result<(), HandoverError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(HandoverError::NoSocket(path.to_owned())),
        _ => Ok(()),
    }
}

/// Between a process and its successor. One task may send while another receives.
#[derive(Debug)]
pub struct HandoverLink(UnixStream);

impl HandoverLink {
    fn of(stream: UnixStream, path: &Path) -> Result<Self, HandoverError> {
        let other = stream.peer_cred().map_err(|why| HandoverError::Io { path: path.to_owned(), why })?;
        if other.uid() != rustix::process::geteuid().as_raw() {
            return Err(HandoverError::OtherUser { path: path.to_owned(), uid: other.uid() });
        }
        Ok(Self(stream))
    }

    /// Sends a message of at most [`HANDOVER_MESSAGE_BYTES`]. Not to be cancelled in between.
    ///
    /// # Errors
    /// The operating system's; the link is of no use then.
    pub async fn send(&self, message: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let length = u32::try_from(message.len()).ok().filter(|_| message.len() <= HANDOVER_MESSAGE_BYTES);
        let length = length.ok_or(io::ErrorKind::InvalidInput)?.to_be_bytes();
        let socket = &self.0;
        let sent = socket.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors = descriptor.as_slice();
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            Ok(rustix::net::sendmsg(socket, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?)
        });
        let sent = sent.await?;
        self.write_all(length.get(sent..).unwrap_or_default()).await?;
        self.write_all(message).await
    }

    /// The next message, with what came with it; nothing: the other end is gone. Not to be cancelled in between.
    ///
    /// # Errors
    /// The operating system's, or a message that is too long.
    pub async fn receive(&self) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
        let mut length = [0; 4];
        let socket = &self.0;
        let received = socket.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut pieces = [IoSliceMut::new(&mut length)];
            let received = rustix::net::recvmsg(socket, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let descriptor = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            Ok((received.bytes, descriptor))
        });
        let (received, descriptor) = received.await?;
        if received == 0 {
            return Ok(None);
        }
        self.read_exact(length.get_mut(received..).unwrap_or_default()).await?;
        let length = u32::from_be_bytes(length) as usize;
        if length > HANDOVER_MESSAGE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
        }
        let mut message = vec![0; length];
        self.read_exact(&mut message).await?;
        Ok(Some((message, descriptor)))
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read_exact(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            self.0.readable().await?;
            match self.0.try_read(rest) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => at += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A second descriptor of a listening socket, which keeps it from closing.
///
/// # Errors
/// The operating system's: there are no descriptors left, for example.
pub fn keep_open(socket: &impl AsFd) -> io::Result<OwnedFd> {
    socket.as_fd().try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_crosses_with_its_queue() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("point");
        assert!(ask(&path).await.expect("nobody").is_none());
        let point = HandoverPoint::bind(&path).expect("bound");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("address");
        let queued = std::net::TcpStream::connect(address).expect("queued");
        let (new, old) = tokio::join!(ask(&path), point.next());
        let (new, old) = (new.expect("asked").expect("somebody"), old.expect("asked"));
        let kept = keep_open(&listener).expect("kept");
        drop(listener);
        old.send(b"socket", Some(kept.as_fd())).await.expect("sent");
        old.send(b"", None).await.expect("sent");
        drop((kept, old));
        let (message, socket) = new.receive().await.expect("received").expect("a message");
        assert_eq!(message, b"socket");
        let taken = std::net::TcpListener::from(socket.expect("a socket"));
        let (_, client) = taken.accept().expect("who waited");
        assert_eq!(client, queued.local_addr().expect("address"));
        let (message, none) = new.receive().await.expect("received").expect("a message");
        assert!(message.is_empty() && none.is_none());
        assert!(new.receive().await.expect("the end").is_none());
    }

    #[tokio::test]
    async fn what_is_no_point_is_said() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "mine").expect("written");
        assert!(matches!(ask(&file).await, Err(HandoverError::NoSocket(_))));
        assert!(matches!(HandoverPoint::bind(&file), Err(HandoverError::NoSocket(_))));
        assert_eq!(std::fs::read(&file).expect("still there"), b"mine");
        // Left behind by a process that ended: as good as nothing, and taken over.
        let path = folder.path().join("point");
        drop(HandoverPoint::bind(&path).expect("bound"));
        assert!(ask(&path).await.expect("nobody").is_none());
        let point = HandoverPoint::bind(&path).expect("bound again");
        let (new, old) = tokio::join!(ask(&path), point.next());
        let (new, old) = (new.expect("asked").expect("somebody"), old.expect("asked"));
        let long = vec![0; HANDOVER_MESSAGE_BYTES];
        let (sent, received) = tokio::join!(old.send(&long, None), new.receive());
        sent.expect("sent");
        assert_eq!(received.expect("received").expect("a message").0.len(), HANDOVER_MESSAGE_BYTES);
        assert!(old.send(&[&long[..], b"."].concat(), None).await.is_err());
    }
}

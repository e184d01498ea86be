//! Binding sockets, with errors that name the address.
//!
//! A data path has one socket for each of its workers ([`bind_workers`]): the kernel spreads the connections over them
//! (SO_REUSEPORT), so that no two threads wait for the same queue. Such sockets would also share their port with any other
//! process of the same user, without a word; so it is tried first whether the port is free.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::OnceLock;

use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// Most workers of one listener.
pub const MAX_WORKERS: usize = 256;
/// How connections from this machine are controlled: by the first of these that the kernel has and allows us.
const LOOPBACK_CONGESTION: [&str; 2] = ["cubic", "reno"];
/// Connections that wait to be accepted, for each socket; the kernel may allow fewer.
pub(crate) const BACKLOG: u32 = 4_096;

/// What to serve on, and by whom.
#[derive(Debug)]
pub enum Listener {
    /// On the caller's own runtime.
    Here(TcpListener),
    /// Each socket on a thread of its own, which does nothing else. There is at least one.
    Workers(Vec<std::net::TcpListener>),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Here(listener)
    }
}

impl Listener {
    /// The address that it listens on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Here(listener) => listener.local_addr(),
            Self::Workers(sockets) => {
                sockets.first().map_or(Err(io::ErrorKind::NotConnected.into()), std::net::TcpListener::local_addr)
            }
        }
    }
}

/// Binds a TCP listener.
///
/// # Errors
/// The operating system's, with the address in front.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| name(address, &error))
}

/// Binds a TCP listener whose connections are served by `workers` threads, at most [`MAX_WORKERS`], each with a socket of
/// its own.
///
/// # Errors
/// The operating system's, with the address in front; also when another process listens there already.
pub async fn bind_workers(address: SocketAddr, workers: NonZeroUsize) -> io::Result<Listener> {
    // Whoever shares ports would not be noticed otherwise. Port 0 is nobody's.
    if address.port() != 0 {
        drop(bind(address).await?);
    }
    let mut sockets = Vec::new();
    let mut at = address;
    for _ in 0..workers.get().min(MAX_WORKERS) {
        let socket = shared(at).map_err(|error| name(address, &error))?;
        at = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(Listener::Workers(sockets))
}

/// Binds a UDP socket.
///
/// # Errors
/// The operating system's, with the address in front.
pub async fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(address).await.map_err(|error| name(address, &error))
}

/// A listening socket that shares its port with others like it.
fn shared(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// For a client with a loopback address (a proxy, a tunnel) the congestion control is one that waits for losses, which loopback does not
/// have. One that models the path, such as BBR, models noise there: it paces and resends, and a large body costs several times
/// as much. What is asked for is found out with the first such client.
pub(crate) fn for_this_machine(stream: &TcpStream, peer: SocketAddr) {
    static WANTED: OnceLock<Option<&str>> = OnceLock::new();
    if peer.ip().to_canonical().is_loopback()
        && let Some(name) = WANTED.get_or_init(|| congestion_here(stream))
    {
        // As with the default, which it has else.
        let _ = set_tcp_congestion(stream, name);
    }
}

/// What to ask for instead of what the stream has; nothing where that is as good, or the kernel allows none of ours. The stream
/// may have it afterwards.
fn congestion_here(stream: &TcpStream) -> Option<&'static str> {
    let has = tcp_congestion(stream).ok()?;
    if LOOPBACK_CONGESTION.contains(&has.as_str()) {
        return None;
    }
    LOOPBACK_CONGESTION.into_iter().find(|name| set_tcp_congestion(stream, name).is_ok())
}

fn name(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_connections_from_this_machine_have_their_own_congestion_control() {
        let listener = bind("127.0.0.1:0".parse().expect("address")).await.expect("bound");
        let address = listener.local_addr().expect("address");
        let congestion = |stream: &TcpStream| tcp_congestion(stream).expect("a name");
        for (peer, here) in
            [("192.0.2.1:1", false), ("[2001:db8::1]:1", false), ("[::ffff:127.0.0.1]:1", true), ("[::1]:1", true)]
        {
            let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (_client, accepted) = (client.expect("connected"), accepted.expect("accepted").0);
            let before = congestion(&accepted);
            for_this_machine(&accepted, peer.parse().expect("address"));
            let now = congestion(&accepted);
            // BBR, or what else the machine has; Reno every kernel has and allows.
            let ours = LOOPBACK_CONGESTION.contains(&now.as_str());
            assert!(if here { ours } else { now == before }, "{peer}: {before}, then {now}");
        }
    }

    #[tokio::test]
    async fn what_waits_for_losses_already_is_left_alone() {
        let listener = bind("127.0.0.1:0".parse().expect("address")).await.expect("bound");
        let address = listener.local_addr().expect("address");
        let stream = TcpStream::connect(address).await.expect("connected");
        set_tcp_congestion(&stream, "reno").expect("every kernel has it");
        assert_eq!(congestion_here(&stream), None);
        assert_eq!(tcp_congestion(&stream).expect("a name"), "reno");
    }

    #[tokio::test]
    async fn workers_share_a_port_and_nobody_else_does() {
        let three = NonZeroUsize::new(3).expect("three");
        let listener = bind_workers("127.0.0.1:0".parse().expect("address"), three).await.expect("bound");
        let address = listener.local_addr().expect("address");
        let Listener::Workers(sockets) = &listener else { panic!("no workers") };
        assert!(sockets.iter().all(|socket| socket.local_addr().expect("address") == address));
        assert_eq!(sockets.len(), 3);
        let error = bind_workers(address, three).await.expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        let error = bind(address).await.expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}

//! Binding sockets, with errors that name the address.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, UdpSocket};

/// Binds a TCP listener.
///
/// # Errors
/// The operating system's, with the address in front.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| name(address, &error))
}

/// Binds a UDP socket.
///
/// # Errors
/// The operating system's, with the address in front.
pub async fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(address).await.map_err(|error| name(address, &error))
}

fn name(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

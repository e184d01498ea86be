//! Telling systemd how a service is (sd_notify(3)): a datagram to the socket that `NOTIFY_SOCKET` names. Without it, nothing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// It serves. After a handover another process is the service's main one.
pub(crate) fn ready() {
    send(&format!("READY=1\nMAINPID={}", std::process::id()));
}

/// It reads its settings again; to be followed by [`ready`].
pub(crate) fn reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
    send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// It drains.
pub(crate) fn stopping() {
    send("STOPPING=1");
}

fn send(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send_to(name.as_encoded_bytes(), state) {
        tracing::warn!(%error, ?name, "cannot tell systemd");
    }
}

/// `@` stands for an address that is no file.
fn send_to(name: &[u8], state: &str) -> std::io::Result<()> {
    let address = match name.split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(String::from_utf8_lossy(name).as_ref())?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_arrive_at_files_and_at_abstract_names() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("notify");
        let file = UnixDatagram::bind(&path).expect("bound");
        let name = format!("littoral-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("address");
        let unnamed = UnixDatagram::bind_addr(&address).expect("bound");
        for (socket, name) in [(&file, path.to_str().expect("text").to_owned()), (&unnamed, format!("@{name}"))] {
            send_to(name.as_bytes(), "READY=1").expect("sent");
            let mut bytes = [0; 20];
            let read = socket.recv(&mut bytes).expect("received");
            assert_eq!(&bytes[..read], b"READY=1", "{name}");
        }
        assert!(send_to(b"/nowhere/at/all", "READY=1").is_err());
    }
}

//! A connection that changes its protocol (RFC 9110 § 7.8): WebSocket and the like. From the 101 on, bytes go through as they
//! are, both ways, until one side has ended or nothing was said for [`IDLE_MS`].
//!
//! A tunnel holds a connection to the origin for as long as it lasts, so a zone's tunnels may only take half of them.

use std::time::Duration;

use http::{HeaderValue, Response, header};
use http_cache::hop;
use net::{Body, OnUpgrade, UpstreamUpgraded};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// How long a tunnel lives in which nobody says anything, in milliseconds.
const IDLE_MS: u64 = 300_000;
/// Bytes that are on their way in one direction.
const BUFFER_BYTES: usize = 16 << 10;

/// What a request that asks for another protocol brings along.
pub(crate) struct Tunnel {
    pub(crate) on_upgrade: OnUpgrade,
    pub(crate) place: OwnedSemaphorePermit,
}

/// The 101 to the client; behind it the two connections are joined.
pub(crate) fn switch(response: Response<Body>, upstream: UpstreamUpgraded, tunnel: Tunnel) -> Response<Body> {
    let Tunnel { on_upgrade, place } = tunnel;
    tokio::spawn(async move {
        match on_upgrade.upgraded().await {
            Ok(client) => join(client, upstream, Duration::from_millis(IDLE_MS)).await,
            Err(error) => tracing::debug!(%error, "the client did not change protocols after all"),
        }
        drop(place);
    });
    let protocol = response.headers().get(header::UPGRADE).cloned();
    let mut response = response.map(|_| Body::empty());
    hop::strip(response.headers_mut());
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        response.headers_mut().insert(header::UPGRADE, protocol);
    }
    response
}

/// Passes bytes on in both directions until both have ended, one breaks off, or neither says anything for `idle`.
async fn join<C, O>(client: C, origin: O, idle: Duration)
where
    C: AsyncRead + AsyncWrite,
    O: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = tokio::io::split(client);
    let (from_origin, to_origin) = tokio::io::split(origin);
    let last = std::sync::Mutex::new(Instant::now());
    let touch = || {
        if let Ok(mut last) = last.lock() {
            *last = Instant::now();
        }
    };
    let both = async { tokio::try_join!(copy(from_client, to_origin, &touch), copy(from_origin, to_client, &touch)) };
    let silence = async {
        loop {
            let until = last.lock().map_or_else(|_| Instant::now(), |last| *last + idle);
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    };
    tokio::select! {
        ended = both => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection with another protocol broke off");
            }
        }
        () = silence => tracing::debug!("a connection with another protocol was silent for too long"),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    touch: &impl Fn(),
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        touch();
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_go_both_ways_and_silence_ends_it() {
        let ((mut client, near), (far, mut origin)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let joined = tokio::spawn(join(near, far, Duration::from_secs(10)));
        for _ in 0..5 {
            // Each word keeps it alive: 30 s in all.
            tokio::time::sleep(Duration::from_secs(6)).await;
            client.write_all(b"ping").await.expect("write");
            let mut heard = [0; 4];
            origin.read_exact(&mut heard).await.expect("read");
            origin.write_all(b"pong").await.expect("write");
            client.read_exact(&mut heard).await.expect("read");
            assert_eq!(&heard, b"pong");
        }
        let quiet_since = Instant::now();
        joined.await.expect("ended");
        assert_eq!(quiet_since.elapsed().as_secs(), 10);
    }
}

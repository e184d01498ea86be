//! Abuse of TLS: before a handshake is over, and behind it.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::edge::SHORT_MS;
use crate::http1::{DRIP, connect, connect_narrow, ending};
use crate::measure::{Bounds, PATIENCE, cost, cost_at};

/// What an edge says to what is no hello: an alert, and the end; or a reset, where something unread was on its way.
const ALERTED: [&str; 3] = ["7 bytes end", "7 bytes reset", "0 bytes reset"];

fn config(trusted: Option<&CertificateDer<'static>>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    trusted.into_iter().for_each(|certificate| roots.add(certificate.clone()).expect("a certificate"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.expect("versions").with_root_certificates(roots).with_no_client_auth())
}

fn name() -> ServerName<'static> {
    ServerName::try_from("x").expect("a name")
}

async fn shake_hands(config: Arc<ClientConfig>, stream: TcpStream) -> TlsStream<TcpStream> {
    TlsConnector::from(config).connect(name(), stream).await.expect("shaken hands")
}

/// Says this, and waits for the end.
async fn say(to: SocketAddr, bytes: Arc<[u8]>) -> String {
    let mut stream = connect(to).await;
    stream.write_all(&bytes).await.expect("written");
    ending(&mut stream).await
}

fn hello() -> Vec<u8> {
    let mut hello = Vec::new();
    ClientConnection::new(config(None), name()).expect("a client").write_tls(&mut hello).expect("written");
    hello
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_stop() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 500, bytes: 24 << 10, cpu_us: 5_000 };
    let half: Arc<[u8]> = hello()[..100].into();
    cost_at("handshakes that stop", bounds, &["0 bytes end"], |edge| say(edge.secure, Arc::clone(&half))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hellos_that_are_none() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 500, bytes: 48 << 10, cpu_us: 5_000 };
    // With a name that has a zero byte in it.
    let mut invalid = hello();
    let at = invalid.windows(5).position(|bytes| bytes == [0, 4, 0, 0, 1]).expect("a name of one byte") + 5;
    invalid[at] = 0;
    let invalid: Arc<[u8]> = invalid.into();
    cost_at("hellos that are none", bounds, &ALERTED, |edge| say(edge.secure, Arc::clone(&invalid))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_port() {
    let bounds = || Bounds { patience_ms: SHORT_MS, connections: 500, bytes: 48 << 10, cpu_us: 5_000 };
    let plain: Arc<[u8]> = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..].into();
    cost_at("HTTP where TLS is spoken", bounds(), &["400 whole end"], |edge| say(edge.secure, Arc::clone(&plain)))
        .await;
    let hello: Arc<[u8]> = hello().into();
    cost("TLS where HTTP is spoken", bounds(), &ALERTED, |to| say(to, Arc::clone(&hello))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_stop_over_tls() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 200, bytes: 64 << 10, cpu_us: 20_000 };
    cost_at("heads that stop, over TLS", bounds, &["408 whole end"], |edge| {
        let (to, config) = (edge.secure, config(Some(&edge.certificate)));
        async move {
            let mut stream = shake_hands(config, connect(to).await).await;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\na: ").await.expect("written");
            ending(&mut stream).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_over_tls() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 100, bytes: 256 << 10, cpu_us: 60_000 };
    cost_at("readers that stop, over TLS", bounds, &["cut off"], |edge| {
        let (to, config) = (edge.secure, config(Some(&edge.certificate)));
        async move {
            let mut stream = shake_hands(config, connect_narrow(to).await).await;
            stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
            // What is sent on a connection that is gone is refused.
            let waited = std::time::Instant::now();
            while stream.write_all(b"y").await.is_ok() && stream.flush().await.is_ok() {
                assert!(waited.elapsed() < PATIENCE, "not cut off");
                tokio::time::sleep(DRIP).await;
            }
            "cut off".to_owned()
        }
    })
    .await;
}

//! Abuse of TLS: before a handshake is over, and behind it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::edge::SHORT_MS;
use crate::http1::{DRIP, connect, connect_narrow, ending};
use crate::measure::{Bounds, PATIENCE, cost, cost_at};

/// What an edge says to what is no hello: an alert, and the end; or a reset, where something unread was on its way.
const ALERTED: [&str; 3] = ["7 bytes end", "7 bytes reset", "0 bytes reset"];

/// Whoever abuses an edge trusts everybody.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn config() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let trusting = builder.dangerous().with_custom_certificate_verifier(Arc::new(Trusting));
    Arc::new(trusting.with_no_client_auth())
}

fn name() -> ServerName<'static> {
    ServerName::try_from("x").expect("a name")
}

async fn shake_hands(config: Arc<ClientConfig>, stream: TcpStream) -> TlsStream<TcpStream> {
    TlsConnector::from(config).connect(name(), stream).await.expect("shaken hands")
}

fn hello() -> Vec<u8> {
    let mut hello = Vec::new();
    ClientConnection::new(config(), name()).expect("a client").write_tls(&mut hello).expect("written");
    hello
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_stop() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 500, bytes: 24 << 10, cpu_us: 5_000 };
    let half: Arc<[u8]> = hello()[..100].into();
    cost_at("handshakes that stop", bounds, &["0 bytes end"], |edge| {
        let (to, half) = (edge.secure, Arc::clone(&half));
        async move {
            let mut stream = connect(to).await;
            stream.write_all(&half).await.expect("written");
            ending(&mut stream).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hellos_that_are_none() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 500, bytes: 48 << 10, cpu_us: 5_000 };
    // With a name that has a zero byte in it.
    let mut invalid = hello();
    let at = invalid.windows(5).position(|bytes| bytes == [0, 4, 0, 0, 1]).expect("a name of one byte") + 5;
    invalid[at] = 0;
    let invalid: Arc<[u8]> = invalid.into();
    cost_at("hellos that are none", bounds, &ALERTED, |edge| {
        let (to, invalid) = (edge.secure, Arc::clone(&invalid));
        async move {
            let mut stream = connect(to).await;
            stream.write_all(&invalid).await.expect("written");
            ending(&mut stream).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_port() {
    let bounds = || Bounds { patience_ms: SHORT_MS, connections: 500, bytes: 48 << 10, cpu_us: 5_000 };
    cost_at("HTTP where TLS is spoken", bounds(), &["400 whole end"], |edge| {
        let to = edge.secure;
        async move {
            let mut stream = connect(to).await;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
            ending(&mut stream).await
        }
    })
    .await;
    let hello: Arc<[u8]> = hello().into();
    cost("TLS where HTTP is spoken", bounds(), &ALERTED, |to| {
        let hello = Arc::clone(&hello);
        async move {
            let mut stream = connect(to).await;
            stream.write_all(&hello).await.expect("written");
            ending(&mut stream).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_stop_over_tls() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 200, bytes: 64 << 10, cpu_us: 20_000 };
    let config = config();
    cost_at("heads that stop, over TLS", bounds, &["408 whole end"], |edge| {
        let (to, config) = (edge.secure, Arc::clone(&config));
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
    let config = config();
    cost_at("readers that stop, over TLS", bounds, &["cut off"], |edge| {
        let (to, config) = (edge.secure, Arc::clone(&config));
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

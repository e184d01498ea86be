//! Versions, protocols, sessions that are taken up again, and clients that are wrong here.

use net::{Door, ServerLimits};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::kit::{Authority, PATIENCE, ask, connect, curl, exchange, exchange_and_end, secure, start};

#[tokio::test]
async fn curl_speaks_every_version_and_protocol() {
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    let server = secure(&authority.tls()).await;
    let ca = authority.ca_file();
    for (arguments, expected) in [
        (&["--http1.1"][..], "127.0.0.1 TLS HTTP/1.1"),
        (&["--http2"], "127.0.0.1 TLS HTTP/2.0"),
        (&["--http1.1", "--tls-max", "1.2"], "127.0.0.1 TLS HTTP/1.1"),
        (&["--http2", "--tls-max", "1.2"], "127.0.0.1 TLS HTTP/2.0"),
        (&["--no-alpn"], "127.0.0.1 TLS HTTP/1.1"),
        (&["--tls-max", "1.1"], "curl: (35)"),
    ] {
        let answer = curl(&server, &ca, &[arguments, &["https://a.example:PORT/"]].concat()).await;
        assert!(answer.contains(expected), "{arguments:?}: {answer}");
    }
    for protocol in ["--http1.1", "--http2"] {
        let large = curl(&server, &ca, &[protocol, "https://a.example:PORT/large"]).await;
        assert_eq!(large.len(), 300_000, "{protocol}");
    }
}

#[tokio::test]
async fn sessions_are_taken_up_again() {
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    let tls = authority.tls();
    let server = secure(&tls).await;
    for (round, version) in (1..).zip([&TLS12, &TLS13]) {
        let client = authority.client(&[version], &["http/1.1"]);
        let mut first = connect(&server, &client, "a.example").await.expect("first");
        // The tickets come with the answer.
        assert!(ask(&mut first).await.contains("TLS"));
        assert_eq!(first.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        let mut second = connect(&server, &client, "a.example").await.expect("second");
        assert!(ask(&mut second).await.contains("TLS"));
        assert_eq!(second.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        assert_eq!((tls.state().full_handshakes, tls.state().resumed_handshakes), (round, round));
    }
}

#[tokio::test]
async fn the_short_key_is_preferred_but_by_clients_without_aes() {
    use CipherSuite as Suite;
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    let server = secure(&authority.tls()).await;
    for (offered, expected) in [
        (&[Suite::TLS13_AES_256_GCM_SHA384, Suite::TLS13_AES_128_GCM_SHA256][..], Suite::TLS13_AES_128_GCM_SHA256),
        (&[Suite::TLS13_AES_256_GCM_SHA384, Suite::TLS13_CHACHA20_POLY1305_SHA256], Suite::TLS13_AES_256_GCM_SHA384),
        (
            &[Suite::TLS13_CHACHA20_POLY1305_SHA256, Suite::TLS13_AES_128_GCM_SHA256],
            Suite::TLS13_CHACHA20_POLY1305_SHA256,
        ),
        (
            &[
                Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ],
            Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ),
    ] {
        let client = authority.client_of(&[&TLS12, &TLS13], &["http/1.1"], Some(offered));
        let stream = connect(&server, &client, "a.example").await.expect("connected");
        let chosen = stream.get_ref().1.negotiated_cipher_suite().expect("a cipher").suite();
        assert_eq!(chosen, expected, "of {offered:?}");
    }
}

#[tokio::test]
async fn the_last_answer_ends_with_a_farewell() {
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    let server = secure(&authority.tls()).await;
    for (version, path, length) in [(&TLS12, "/", 22), (&TLS13, "/", 22), (&TLS13, "/large", 300_000)] {
        let client = authority.client(&[version], &["http/1.1"]);
        let mut stream = connect(&server, &client, "a.example").await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        // An end without close_notify would be an error here.
        stream.read_to_end(&mut answer).await.expect("a farewell");
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an empty line");
        assert_eq!(answer.len() - head - 4, length, "{version:?} {path}");
    }
}

#[tokio::test]
async fn who_is_idle_for_too_long_gets_a_farewell_and_no_cut() {
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    let limits = ServerLimits { head_ms: 100, ..ServerLimits::default() };
    let server = start(Door { tls: Some(authority.tls()), ..Door::default() }, limits).await;
    for version in [&TLS12, &TLS13] {
        for asks in [false, true] {
            let client = authority.client(&[version], &["http/1.1"]);
            let mut stream = connect(&server, &client, "a.example").await.expect("connected");
            if asks {
                ask(&mut stream).await;
            }
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("in time");
            assert_eq!((ended.expect("a farewell"), rest.len()), (0, 0), "{version:?} {asks}");
        }
    }
}

#[tokio::test]
async fn a_hello_may_come_byte_by_byte() {
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    let server = secure(&authority.tls()).await;
    let client = authority.client(&[&TLS13], &["http/1.1"]);
    let name = ServerName::try_from("a.example").expect("name");
    let mut hello = Vec::new();
    rustls::ClientConnection::new(client, name).expect("client").write_tls(&mut hello).expect("written");
    let mut stream = tokio::net::TcpStream::connect(server.address).await.expect("connect");
    stream.set_nodelay(true).expect("set");
    for byte in hello {
        stream.write_all(&[byte]).await.expect("written");
        tokio::task::yield_now().await;
    }
    // A handshake, not an alert.
    let answer = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("in time");
    assert_eq!(answer.expect("an answer"), 22);
}

#[tokio::test]
async fn plain_http_on_a_port_of_tls_is_told_so() {
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    let server = secure(&authority.tls()).await;
    for request in ["GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = String::from_utf8(exchange(server.address, request.as_bytes()).await).expect("text");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("use https://"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    // What is neither gets an alert, and the end.
    let answer = exchange(server.address, b"\x80\x2e\x01\x00\x02nonsense").await;
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
    assert!(curl(&server, &authority.ca_file(), &["https://a.example:PORT/"]).await.contains("TLS"));
}

#[tokio::test]
async fn a_handshake_that_is_not_one_is_closed() {
    let authority = Authority::new();
    authority.good("default", &["a.example"]);
    let tls = authority.tls();
    let server = secure(&tls).await;
    // A hello that says it is 16 MiB long, one of an unknown version, and one with a name that is none.
    let names = [hello(b"a\0.example"), hello(b"")];
    for (bytes, alert) in [
        (&[&[22, 3, 1, 0, 4, 1, 255, 255, 255][..], &[0; 20]].concat()[..], false),
        (&[22, 9, 9, 0, 4, 1, 0, 0, 0], true),
        (&[22, 3, 1, 255, 255], true),
        (&names[0], true),
        (&names[1], true),
    ] {
        let answer = exchange(server.address, bytes).await;
        assert_eq!(answer.first(), alert.then_some(&21), "{bytes:?}: {answer:?}");
    }
    assert_eq!(tls.state().failed_handshakes, 5);
}

/// A hello of TLS 1.2 with this name.
fn hello(name: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).expect("short").to_be_bytes();
    let name = [&[0][..], &length(name.len()), name].concat();
    hello_with(&[(0, &[&length(name.len())[..], &name].concat())])
}

/// A hello of TLS 1.2 with these extensions, in as many records as it takes.
fn hello_with(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).expect("short").to_be_bytes();
    let extension = |(kind, data): &(u16, &[u8])| [&kind.to_be_bytes()[..], &length(data.len()), data].concat();
    let extensions: Vec<u8> = extensions.iter().flat_map(extension).collect();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0], &length(extensions.len()), &extensions].concat();
    let message = [&[1, 0][..], &length(body.len()), &body].concat();
    message.chunks(16_000).flat_map(|part| [&[22, 3, 1][..], &length(part.len()), part].concat()).collect()
}

#[tokio::test]
async fn a_hello_has_a_size() {
    let authority = Authority::new();
    authority.good("default", &["a.example"]);
    let tls = authority.tls();
    let server = secure(&tls).await;
    // Padded (RFC 7685): what is short enough is read as a whole and refused as what it is, with an alert.
    for (padding, alert) in [(12_000, true), (16_000, true), (40_000, false)] {
        let padding = vec![0; padding];
        let answer = exchange(server.address, &hello_with(&[(21, &padding)])).await;
        assert_eq!(answer.first(), alert.then_some(&21), "{}: {answer:?}", padding.len());
    }
    assert_eq!(tls.state().failed_handshakes, 3);
}

/// Who says nothing has not failed at anything.
#[tokio::test]
async fn silence_is_no_failed_handshake() {
    let authority = Authority::new();
    authority.good("default", &["a.example"]);
    let tls = authority.tls();
    let server = secure(&tls).await;
    assert_eq!(exchange_and_end(server.address, b"").await, b"");
    assert!(exchange_and_end(server.address, b"GET ").await.starts_with(b"HTTP/1.1 400 "));
    assert_eq!(exchange_and_end(server.address, &[22, 3, 1]).await, b"");
    assert_eq!(tls.state().failed_handshakes, 1);
}

#[tokio::test]
async fn plain_and_secure_doors_stand_side_by_side() {
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    let (plain, secure) = (start(Door::default(), ServerLimits::default()).await, secure(&authority.tls()).await);
    let ca = authority.ca_file();
    assert_eq!(curl(&plain, &ca, &["http://a.example:PORT/"]).await, "127.0.0.1 plain HTTP/1.1");
    assert_eq!(curl(&secure, &ca, &["https://a.example:PORT/"]).await, "127.0.0.1 TLS HTTP/2.0");
    assert!(curl(&plain, &ca, &["https://a.example:PORT/"]).await.contains("curl: (35)"));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off() {
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    let limits = ServerLimits { connections: 1, stall_ms: 100, ..ServerLimits::default() };
    let server = start(Door { tls: Some(authority.tls()), ..Door::default() }, limits).await;
    let client = authority.client(&[&TLS13], &["http/1.1"]);
    let mut lazy = connect(&server, &client, "a.example").await.expect("connected");
    let request = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    tokio::io::AsyncWriteExt::write_all(&mut lazy, &request).await.expect("written");
    // There is one place only: somebody else is served once the lazy one has lost it.
    let mut other = connect(&server, &client, "a.example").await.expect("connected");
    assert!(ask(&mut other).await.contains("TLS"));
}

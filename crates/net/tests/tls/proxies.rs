//! The PROXY protocol: who is believed, and what is closed.

use net::{Door, ServerLimits};
use rustls::version::TLS13;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::kit::{Authority, Server, ask, connect, exchange, start};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

async fn behind(networks: &[&str]) -> Server {
    let proxies = networks.iter().map(|network| network.parse().expect("network")).collect();
    start(Door { proxies, ..Door::default() }, ServerLimits::default()).await
}

async fn answer(server: &Server, header: &[u8]) -> String {
    String::from_utf8(exchange(server.address, &[header, REQUEST].concat()).await).expect("text")
}

#[tokio::test]
async fn listed_proxies_are_believed() {
    let server = behind(&["10.0.0.0/8", "127.0.0.0/8"]).await;
    let four = [&[0x21, 0x11, 0, 15][..], &[192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb], &[4, 0, 0]].concat();
    let mut six = vec![0x21, 0x21, 0, 36, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    six.extend_from_slice(&[0; 20]);
    for (header, client) in [
        (&b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"[..], "192.0.2.7 plain"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n", "2001:db8::7 plain"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1 plain"),
        (&[V2, &four].concat(), "192.0.2.7 plain"),
        (&[V2, &six].concat(), "2001:db8::7 plain"),
        (&[V2, &[0x20, 0, 0, 0]].concat(), "127.0.0.1 plain"),
    ] {
        let answer = answer(&server, header).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(client), "{header:?}: {answer}");
    }
}

#[tokio::test]
async fn what_is_malformed_or_missing_is_closed_without_a_word() {
    let server = behind(&["127.0.0.1/32"]).await;
    let endless = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
    for header in [
        &b""[..],
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n",
        b"proxy TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
        &endless,
        &[V2, &[0x31, 0x11, 0, 12], &[0; 12][..]].concat(),
        &[V2, &[0x21, 0x11, 0, 3], &[0; 3][..]].concat(),
        &[V2, &[0x21, 0x11, 255, 255]].concat(),
    ] {
        assert_eq!(answer(&server, header).await, "", "{header:?}");
    }
}

#[tokio::test]
async fn from_others_it_is_not_looked_for() {
    let server = behind(&["10.0.0.0/8", "::1/128"]).await;
    let refused = answer(&server, b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert!(answer(&server, b"").await.contains("127.0.0.1 plain"));
}

#[tokio::test]
async fn in_single_bytes_and_in_front_of_tls() {
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    let proxies = ["127.0.0.0/8".parse().expect("network")].into();
    let server = start(Door { tls: Some(authority.tls()), proxies }, ServerLimits::default()).await;
    let client = authority.client(&[&TLS13], &[]);
    assert!(connect(&server, &client, "a.example").await.is_err(), "without a header");
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.set_nodelay(true).expect("set");
    for byte in b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n" {
        stream.write_all(&[*byte]).await.expect("written");
        tokio::task::yield_now().await;
    }
    let connector = tokio_rustls::TlsConnector::from(client);
    let mut stream = connector.connect("a.example".try_into().expect("name"), stream).await.expect("connected");
    assert!(ask(&mut stream).await.contains("192.0.2.7 TLS"));
}

//! TLS: whose certificate is taken, which name is asked for, and which HTTP is agreed on.

use std::sync::{Arc, Mutex};

use http::{Request, Version};
use net::{Body, HealthCheck, Upstream, UpstreamConfig, UpstreamProtocol};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

use crate::fake::{Fake, config, fetch, get, ok, read_head, until};
use crate::http2::{say, serve};

/// A server with a certificate of its own for `names`; it notes the name in each handshake.
struct Secure {
    fake: Fake,
    ca_pem: String,
    asked: Arc<Mutex<Vec<Option<String>>>>,
}

async fn secure(names: &[&str], protocols: &[&str]) -> Secure {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut settings = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], key)
        .expect("key");
    settings.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let (acceptor, asked) = (TlsAcceptor::from(Arc::new(settings)), Arc::new(Mutex::new(Vec::new())));
    let note = Arc::clone(&asked);
    let mut fake = Fake::start(move |_, stream| {
        let (acceptor, note) = (acceptor.clone(), Arc::clone(&note));
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            note.lock().expect("lock").push(stream.get_ref().1.server_name().map(str::to_owned));
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                return serve(stream, |_, request, respond| async move {
                    say(respond, format!("{:?} {}", Version::HTTP_2, request.uri()));
                })
                .await;
            }
            while let Some(head) = read_head(&mut stream).await {
                let upgrade = "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n".to_owned();
                let answer = if head.contains("upgrade: echo") { upgrade } else { ok("HTTP/1.1") };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    fake.url = fake.url.replace("http://", "https://");
    Secure { fake, ca_pem: made.cert.pem(), asked }
}

#[tokio::test]
async fn certificates_are_checked_as_the_settings_say() {
    for (names, sni, trusted, verify, expected, asked) in [
        (["127.0.0.1"], None, true, true, "none", None),
        (["127.0.0.1"], None, false, true, "tls-failed", None),
        (["127.0.0.1"], None, false, false, "none", None),
        (["shop.example"], None, true, true, "tls-failed", None),
        (["shop.example"], None, true, false, "none", None),
        (["shop.example"], Some("shop.example"), true, true, "none", Some("shop.example")),
        (["shop.example"], Some("other.example"), true, true, "tls-failed", None),
        (["shop.example"], Some("other.example"), true, false, "none", Some("other.example")),
    ] {
        let secure = secure(&names, &["http/1.1"]).await;
        let settings = UpstreamConfig {
            sni: sni.map(str::to_owned),
            ca_pem: trusted.then(|| secure.ca_pem.clone()),
            verify,
            ..config(&[&secure.fake.url])
        };
        let upstream = Upstream::new(settings).expect("settings");
        let case = format!("{names:?} {sni:?} trusted {trusted} verify {verify}");
        match upstream.send(get("/"), None).await {
            Ok(_) => assert_eq!(expected, "none", "{case}"),
            Err(error) => assert_eq!((error.word(), error.reached_origin()), (expected, false), "{case}: {error}"),
        }
        if expected == "none" {
            assert_eq!(*secure.asked.lock().expect("lock"), [asked.map(str::to_owned)], "{case}");
        }
    }
}

#[tokio::test]
async fn the_protocol_is_agreed_on() {
    for (protocol, offered, expected) in [
        (UpstreamProtocol::Auto, &["h2", "http/1.1"][..], Ok("HTTP/2.0 https://shop.example/")),
        (UpstreamProtocol::Auto, &["http/1.1"], Ok("HTTP/1.1")),
        (UpstreamProtocol::Auto, &[], Ok("HTTP/1.1")),
        (UpstreamProtocol::Http1, &["h2", "http/1.1"], Ok("HTTP/1.1")),
        (UpstreamProtocol::Http2, &["h2", "http/1.1"], Ok("HTTP/2.0 https://shop.example/")),
        (UpstreamProtocol::Http2, &["http/1.1"], Err("tls-failed")),
        (UpstreamProtocol::Http2, &[], Err("tls-failed")),
    ] {
        let secure = secure(&["127.0.0.1"], offered).await;
        let settings = UpstreamConfig { ca_pem: Some(secure.ca_pem.clone()), protocol, ..config(&[&secure.fake.url]) };
        let upstream = Upstream::new(settings).expect("settings");
        match expected {
            Ok(answer) => assert_eq!(fetch(&upstream, get("/")).await.1, answer, "{protocol:?} {offered:?}"),
            Err(word) => {
                let error = upstream.send(get("/"), None).await.err().expect("an error");
                assert_eq!(error.word(), word, "{protocol:?} {offered:?}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn an_upgrade_gets_http1_where_everything_else_gets_http2() {
    let secure = secure(&["127.0.0.1"], &["h2", "http/1.1"]).await;
    let upstream = Upstream::new(UpstreamConfig {
        ca_pem: Some(secure.ca_pem.clone()),
        max_connections: 1,
        ..config(&[&secure.fake.url])
    })
    .expect("settings");
    assert!(fetch(&upstream, get("/")).await.1.starts_with("HTTP/2"));
    let request = Request::get("/").header("connection", "upgrade").header("upgrade", "echo");
    // The only place is taken by an idle HTTP/2 connection, which gives way.
    let response = upstream.send(request.body(Body::empty()).expect("request"), None).await.expect("response");
    assert!(response.upgraded.is_some());
    drop(response);
    until("its place is free", || upstream.state()[0].connections == 0).await;
    assert!(fetch(&upstream, get("/")).await.1.starts_with("HTTP/2"));
}

#[tokio::test]
async fn simultaneous_first_requests_make_one_connection_where_http2_is_spoken() {
    let secure = secure(&["127.0.0.1"], &["h2"]).await;
    let settings = UpstreamConfig { ca_pem: Some(secure.ca_pem.clone()), ..config(&[&secure.fake.url]) };
    let upstream = Upstream::new(settings).expect("settings");
    let answers = futures_util::future::join_all((0..20).map(|_| fetch(&upstream, get("/")))).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    assert_eq!(secure.fake.accepted(), 1);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_the_reason() {
    let good = || config(&["https://a.example"]);
    let health = |path: &str| HealthCheck {
        path: path.to_owned(),
        host: None,
        interval_ms: 1,
        timeout_ms: 1,
        statuses: vec![(200, 299)],
        healthy_after: 1,
        unhealthy_after: 1,
    };
    for (settings, expected) in [
        (config(&[]), "no server"),
        (config(&["ftp://a.example"]), "ftp://a.example"),
        (config(&["/path"]), "/path names no server"),
        (UpstreamConfig { connect_ms: 0, ..good() }, "connect_ms"),
        (UpstreamConfig { max_connections: 0, ..good() }, "max_connections"),
        (UpstreamConfig { sni: Some("not a name".to_owned()), ..good() }, "\"not a name\""),
        (UpstreamConfig { ca_pem: Some("nothing".to_owned()), ..good() }, "no certificate"),
        (UpstreamConfig { health: Some(health("no slash here")), ..good() }, "health check"),
        (UpstreamConfig { health: Some(HealthCheck { interval_ms: 0, ..health("/") }), ..good() }, "interval_ms"),
    ] {
        let error = Upstream::new(settings).err().expect(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

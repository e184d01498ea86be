//! Which certificate is served, and its exchange while connections are open.

use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};

use super::kit::{Authority, ask, connect, secure};

#[tokio::test]
async fn by_name() {
    let authority = Authority::new();
    authority.good("shop", &["shop.example", "www.shop.example"]);
    authority.good("wild", &["*.wild.example", "wild.example"]);
    let tls = authority.tls();
    let server = secure(&tls).await;
    let client = authority.client(&[&TLS12, &TLS13], &[]);
    for (name, expected) in [
        ("shop.example", Ok(())),
        ("WWW.Shop.example", Ok(())),
        ("a.wild.example", Ok(())),
        ("wild.example", Ok(())),
        ("a.b.wild.example", Err("UnrecognisedName")),
        ("other.example", Err("UnrecognisedName")),
        ("127.0.0.1", Err("UnrecognisedName")),
    ] {
        match (connect(&server, &client, name).await, expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.contains(part), "{name}: {error}"),
            (other, _) => panic!("{name}: {:?}", other.err()),
        }
    }
    assert_eq!(tls.state().unknown_names, 3);
    // With a default there is an answer for every name; whether it fits is the client's to judge.
    authority.good("default", &["127.0.0.1"]);
    assert_eq!(tls.reload(), (3, 0));
    assert!(connect(&server, &client, "127.0.0.1").await.is_ok());
    let wrong = connect(&server, &client, "other.example").await.expect_err("not for this name");
    assert!(wrong.contains("not valid for name"), "{wrong}");
}

#[tokio::test]
async fn exchanged_while_connections_are_open() {
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    let tls = authority.tls();
    let server = secure(&tls).await;
    let served = async || {
        let client = authority.client(&[&TLS13], &[]);
        let stream = connect(&server, &client, "a.example").await.expect("connected");
        let chain = stream.get_ref().1.peer_certificates().expect("a certificate").to_vec();
        (stream, chain.first().expect("one").clone())
    };
    let (mut open, first): (_, CertificateDer<'static>) = served().await;
    authority.good("a", &["a.example"]);
    assert_eq!(tls.reload(), (1, 0));
    let (_, second) = served().await;
    assert_ne!(first, second);
    assert!(ask(&mut open).await.contains("TLS"));

    // A key that does not fit, an expired certificate, half a file, none: what is served stays, and the log says why.
    let (key, cert) = (authority.path("a.key"), authority.path("a.crt"));
    let good = std::fs::read(&key).expect("key");
    std::fs::write(&key, &good[..good.len() / 2]).expect("written");
    assert_eq!(tls.reload(), (1, 1));
    authority.sign("a", &["a.example"], (-9, -1));
    assert_eq!(tls.reload(), (1, 1));
    std::fs::remove_file(&key).expect("removed");
    assert_eq!(tls.reload(), (1, 1));
    assert_eq!(served().await.1, second);
    assert_eq!(tls.state().reload_failures, 3);
    // One that is bad does not hold up the others.
    authority.good("b", &["b.example"]);
    assert_eq!(tls.reload(), (2, 1));
    assert!(connect(&server, &authority.client(&[&TLS13], &[]), "b.example").await.is_ok());
    // What is taken away is gone.
    std::fs::remove_file(&cert).expect("removed");
    assert_eq!(tls.reload(), (1, 0));
    assert!(connect(&server, &authority.client(&[&TLS13], &[]), "a.example").await.is_err());
    assert!(ask(&mut open).await.contains("TLS"));
    assert_eq!(tls.state().certificates.len(), 1);
}

#[tokio::test]
async fn an_ocsp_response_is_stapled() {
    let authority = Authority::new();
    authority.good("a", &["a.example"]);
    std::fs::write(authority.path("a.ocsp"), b"an answer of the authority").expect("written");
    let server = secure(&authority.tls()).await;
    let mut child = tokio::process::Command::new("openssl")
        .args(["s_client", "-status", "-servername", "a.example", "-connect", &server.address.to_string(), "-msg"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl runs");
    let mut text = String::new();
    let mut output = child.stdout.take().expect("output");
    tokio::io::AsyncReadExt::read_to_string(&mut output, &mut text).await.expect("read");
    // It is given on as it is: that it is no answer of an authority is seen by the client only.
    let hex: String = text.split_whitespace().filter(|word| word.len() == 2).collect();
    let sent: String = b"an answer of the authority".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(hex.contains(&sent), "{text}");
    child.wait().await.expect("ended");
}

//! What is refused at the start, and how.

use net::{CertificateSources, Tls};

use super::kit::Authority;

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    let authority = Authority::new();
    let write = |name: &str, text: &str| std::fs::write(authority.path(name), text).expect("written");
    authority.good("a", &["a.example"]);
    authority.good("b", &["b.example"]);
    authority.sign("old", &["a.example"], (-9, -1));
    authority.sign("new", &["a.example"], (1, 9));
    write("empty", "");
    write("garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    write("torn", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    write("huge", &"x".repeat((256 << 10) + 1));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    write("encrypted", encrypted);
    for (cert, key, expected) in [
        ("a.crt", "b.key", "b.key does not belong to the certificate"),
        ("old.crt", "old.key", "old.crt has expired on"),
        ("new.crt", "new.key", "new.crt is not valid before"),
        ("empty", "a.key", "empty is not a certificate chain"),
        ("garbage", "a.key", "garbage is not a certificate chain"),
        ("torn", "a.key", "torn is not a certificate chain"),
        ("a.key", "a.key", "a.key is not a certificate chain"),
        ("a.crt", "a.crt", "a.crt is not a private key"),
        ("a.crt", "encrypted", "encrypted is not a private key"),
        ("a.crt", "empty", "empty is not a private key"),
        ("huge", "a.key", "huge has more than"),
        ("none", "a.key", "cannot read"),
        ("a.crt", "none", "cannot read"),
    ] {
        let error = Tls::open(authority.pair(cert, key)).expect_err(cert).to_string();
        assert!(error.contains(expected), "{cert} {key}: {error}");
    }
    assert!(Tls::open(authority.pair("a.crt", "a.key")).is_ok());
}

#[test]
fn folders() {
    let authority = Authority::new();
    let open = |sources: CertificateSources| Tls::open(sources).map(|tls| tls.state().certificates.len());
    let refused = |expected: &str| {
        let error = open(authority.folder()).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused("there is no certificate");
    std::fs::write(authority.path("notes.txt"), "not looked at").expect("written");
    authority.good("a", &["a.example"]);
    authority.good("b", &["b.example"]);
    assert_eq!(open(authority.folder()).expect("good"), 2);
    let both = CertificateSources { folder: authority.folder().folder, ..authority.pair("a.crt", "a.key") };
    assert_eq!(open(both).expect("good"), 2, "named twice, served once");
    // Names no host: only as the default one.
    authority.good("default", &["127.0.0.1"]);
    assert_eq!(open(authority.folder()).expect("good"), 3);
    authority.good("address", &["127.0.0.1"]);
    refused("address.crt names no host");
    std::fs::remove_file(authority.path("address.crt")).expect("removed");
    std::fs::remove_file(authority.path("b.key")).expect("removed");
    refused("b.key");
    let nowhere = CertificateSources { folder: Some(authority.path("nowhere")), default: None };
    assert!(open(nowhere).expect_err("no folder").to_string().contains("nowhere"));
}

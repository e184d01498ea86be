//! Clients that nobody here wrote: nghttp and h2load (Debian: nghttp2-client), and curl.

use std::process::Command;

use crate::edge::{Authority, Edge, Website, ask, connect};

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (cargo xtask test installs it): {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn nghttp_h2load_and_curl_are_served_over_http2() {
    let (website, authority) = (Website::start(), Authority::new());
    authority.sign();
    let flags = authority.flags();
    let flags: Vec<&str> =
        flags.iter().map(String::as_str).chain(["--listen", "127.0.0.1:0", "--upstream", &website.url]).collect();
    let edge = Edge::start(&flags);
    let (plain, secure) = (format!("http://{}/page", edge.plain()), format!("https://{}/page", edge.tls()));
    assert_eq!(ask(&mut connect(edge.plain()).expect("connected"), "GET", "/page").expect("an answer").status, 200);
    for url in [&plain, &secure] {
        let said = run("h2load", &["--requests=5000", "--clients=10", "--max-concurrent-streams=32", url]);
        assert!(said.contains("Application protocol: h2"), "{said}");
        assert!(said.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
        assert!(said.contains("status codes: 5000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}");
        let said = run("nghttp", &["--verbose", "--no-dep", url]);
        assert!(said.contains(":status: 200"), "{said}");
        assert!(said.contains("x-cache: HIT") && !said.contains("RST_STREAM"), "{said}");
    }
    let curl =
        |more: &[&str]| run("curl", &[&["--silent", "--insecure", "--noproxy", "*", "--include"], more].concat());
    for (protocol, url, expected) in [
        ("--http1.1", &plain, "HTTP/1.1 200"),
        ("--http2-prior-knowledge", &plain, "HTTP/2 200"),
        ("--http1.1", &secure, "HTTP/1.1 200"),
        ("--http2", &secure, "HTTP/2 200"),
    ] {
        let said = curl(&[protocol, url]);
        assert!(said.starts_with(expected) && said.contains("x-cache: HIT"), "{said}");
    }
}

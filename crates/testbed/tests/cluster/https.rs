//! TLS from end to end: certificates of the development authority, redirects, HSTS, and what origins are told.

use std::path::Path;

use api::{HstsDoc, PullDoc, TlsDoc, ZoneDoc};
use router::Mode;
use testbed::{Cluster, Settings, eventually};

/// What curl prints: heads and bodies of all answers.
async fn curl(ca: &Path, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--include", "--cacert"])
        .arg(ca)
        .args(arguments)
        .output()
        .await
        .expect("curl runs");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// `--resolve HOST:PORT:127.0.0.1` for the port of a URL, and that host's URL.
fn at(host: &str, url: &str, path: &str) -> (String, String) {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (_, port) = rest.rsplit_once(':').expect("a port");
    (format!("{host}:{port}:127.0.0.1"), format!("{scheme}://{host}:{port}{path}"))
}

async fn secure(mode: Mode) -> (Cluster, std::path::PathBuf) {
    let settings = Settings { edges: vec!["frankfurt@50.11,8.68"], https: true, mode, ..Settings::default() };
    let cluster = Cluster::with(settings).await;
    let ca = cluster.folder().join(littoral::authority::CA_FILE);
    (cluster, ca)
}

fn redirecting() -> TlsDoc {
    let hsts = HstsDoc { max_age_s: 600, include_subdomains: false, preload: false };
    TlsDoc { redirect: true, port: None, hsts: Some(hsts) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_works_at_once_on_the_router_and_on_every_edge() {
    let (cluster, ca) = secure(Mode::Redirect).await;
    cluster.put("a", "hello").await;
    let (node, _) = &cluster.local.edges[0];
    let edge = node.https_url.clone().expect("an address");
    let router = cluster.local.router_https.clone().expect("an address");
    for protocol in ["--http1.1", "--http2"] {
        let answer = curl(&ca, &[protocol, &format!("{edge}/a")]).await;
        assert!(answer.starts_with("HTTP/") && answer.contains(" 200") && answer.ends_with("hello"), "{answer}");
    }
    // Who came over TLS is sent on over TLS, who did not is not.
    let answer = curl(&ca, &["--location", &format!("{router}/a")]).await;
    assert!(answer.contains(&format!("location: {edge}/a")) && answer.ends_with("hello"), "{answer}");
    let answer = curl(&ca, &[&format!("{}/a", cluster.local.router)]).await;
    assert!(answer.contains(&format!("location: {}/a", node.url)), "{answer}");
    assert!(!answer.contains("strict-transport-security"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zones_that_want_tls_get_it() {
    let (cluster, ca) = secure(Mode::Proxy).await;
    let zone = ZoneDoc { tls: Some(redirecting()), ..cluster.client().zone(&cluster.zone()).await.expect("zone") };
    cluster.client().put_zone(&zone).await.expect("zone");
    cluster.put("a", "hello").await;
    let (node, _) = &cluster.local.edges[0];
    let edge = node.https_url.clone().expect("an address");
    let router = cluster.local.router_https.clone().expect("an address");
    for (plain, secure) in [(&node.url, &edge), (&cluster.local.router, &router)] {
        let url = format!("{plain}/a?b=c");
        eventually("the zone is known", || async { curl(&ca, &[&url]).await.contains(" 301") }).await;
        let answer = curl(&ca, &[&url]).await;
        assert!(answer.contains(&format!("location: {secure}/a?b=c\r\n")), "{answer}");
        assert!(!answer.contains("strict-transport-security"), "{answer}");
        let answer = curl(&ca, &["--location", &url]).await;
        assert!(answer.ends_with("hello") && answer.contains("strict-transport-security: max-age=600"), "{answer}");
    }
    let posted = curl(&ca, &["--data", "x", &format!("{}/a", node.url)]).await;
    assert!(posted.contains(" 308"), "{posted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websites_are_told_the_scheme_and_hosts_get_into_the_certificate() {
    let (cluster, ca) = secure(Mode::Redirect).await;
    let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("address"));
    let answer = net::service(|request: http::Request<net::Incoming>| async move {
        let proto = request.headers()["x-forwarded-proto"].to_str().expect("text").to_owned();
        http::Response::new(net::Body::full(format!("asked over {proto}")))
    });
    let stop = tokio_util::sync::CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(net::serve(listener, answer, net::ServerLimits::default(), stop));
    let pull = PullDoc::new(vec![api::pull::UpstreamDoc { url: origin, weight: 1 }]);
    let shop = ZoneDoc {
        hosts: vec!["shop.example".to_owned()],
        pull: Some(Box::new(pull)),
        ..ZoneDoc::new("shop".parse().expect("zone"))
    };
    cluster.client().put_zone(&shop).await.expect("zone");
    cluster.local.renew_certificate("127.0.0.1".parse().expect("address")).await.expect("renewed");
    for tls in cluster.local.process.certificates() {
        assert_eq!(tls.reload(), (1, 0));
    }
    let (node, _) = &cluster.local.edges[0];
    for (url, scheme) in [(node.https_url.as_ref().expect("an address"), "https"), (&node.url, "http")] {
        let (resolve, url) = at("shop.example", url, "/page");
        let ask = async || curl(&ca, &["--resolve", &resolve, &url]).await;
        eventually("the zone is known", || async { ask().await.contains("asked over") }).await;
        let answer = ask().await;
        assert!(answer.ends_with(&format!("asked over {scheme}")), "{answer}");
    }
}

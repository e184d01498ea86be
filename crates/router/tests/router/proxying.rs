//! Mode proxy: what arrives at the edge, what comes back, and what happens when an edge does not answer.

use std::sync::Arc;

use http::{Method, Request, Response};
use net::{Body, ClientLimits, HttpClient, Incoming};
use router::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::fakes::{BERLIN, Control, LISBON, Running, TOKYO, broken_body, echo, nobody, node, serve};

async fn router_of(edges: &[(&str, (f64, f64), &str)], origin: &str) -> (Control, Running) {
    let nodes = edges.iter().map(|(name, place, url)| node(name, *place, url)).collect();
    let control = Control::start(nodes, origin).await;
    let running = Running::start(Mode::Proxy, &control.url, None).await;
    (control, running)
}

#[tokio::test]
async fn requests_arrive_as_they_were_sent_less_what_ends_here() {
    let (lisbon, _stop) = echo("lisbon").await;
    let (_control, router) = router_of(&[("lisbon", LISBON, &lisbon)], &nobody().await).await;
    let headers = [
        ("host", "img.example:99"),
        ("range", "bytes=0-1"),
        ("if-none-match", "\"x\""),
        ("authorization", "Bearer me"),
        ("connection", "x-mine"),
        ("x-mine", "1"),
        ("te", "trailers"),
        ("x-forwarded-for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("littoral-node-token", "guess"),
    ];
    let (status, answer, body) = router.ask(Method::GET, "/a%20b?lat=38&v=1&lng=-9", &headers).await;
    assert_eq!(status, 200);
    let mut lines: Vec<&str> = body.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "authorization: Bearer me",
            "host: img.example:99",
            "if-none-match: \"x\"",
            "lisbon GET /a%20b?v=1",
            "range: bytes=0-1",
            "via: 1.1 littoral-router",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: img.example:99",
            "x-forwarded-proto: http",
        ]
    );
    assert_eq!(answer["x-edge"], "lisbon");
    assert_eq!(answer["via"], "1.1 littoral-router");
    assert!(answer["littoral-route"].to_str().expect("text").starts_with("lisbon; reason=\"the nearest live edge"));
    assert!(answer.get("x-hop").is_none());

    // A client that names no host means the zone that catches all, whatever zone the edge's own host leads to.
    let mut stream = TcpStream::connect(router.url.trim_start_matches("http://")).await.expect("connect");
    stream.write_all(b"GET /a HTTP/1.0\r\n\r\n").await.expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(answer.contains("lisbon GET /-/content/files/a\n"), "{answer}");

    let (status, answer, body) = router.ask(Method::HEAD, "/a", &[]).await;
    assert_eq!((status.as_u16(), body.as_str()), (200, ""));
    assert!(answer["content-length"].to_str().expect("text").parse::<u64>().expect("number") > 0);
    assert_eq!(router.metric("littoral_router_requests_total{answer=\"carried\"}"), 3);
}

#[tokio::test]
async fn statuses_and_large_bodies_come_back() {
    const SIZE: usize = 20 << 20;
    let (lisbon, _stop) = serve(|request: Request<Incoming>| async move {
        let status = request.uri().path().trim_start_matches('/').parse().unwrap_or(200);
        let body = if status == 200 { Body::full(vec![b'x'; SIZE]) } else { Body::empty() };
        Response::builder().status(status).header("content-range", "bytes */5").body(body).expect("response")
    })
    .await;
    let (_control, router) = router_of(&[("lisbon", LISBON, &lisbon)], &nobody().await).await;
    for code in [206, 304, 404, 416, 503] {
        let (status, answer, _) = router.ask(Method::GET, &format!("/{code}"), &[]).await;
        assert_eq!(status, code);
        assert_eq!(answer["content-range"], "bytes */5");
    }
    let (status, answer, body) = router.ask(Method::GET, "/large", &[]).await;
    assert_eq!((status.as_u16(), body.len()), (200, SIZE));
    assert_eq!(answer["content-length"], SIZE.to_string());
}

#[tokio::test]
async fn the_next_one_is_tried() {
    // An edge that hangs up before it answers, one that is gone, one that works.
    let hangs_up = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
    let hanging = format!("http://{}", hangs_up.local_addr().expect("address"));
    tokio::spawn(async move {
        loop {
            drop(hangs_up.accept().await);
        }
    });
    let (tokyo, _stop) = echo("tokyo").await;
    let nodes = [("lisbon", LISBON, hanging.as_str()), ("berlin", BERLIN, &nobody().await), ("tokyo", TOKYO, &tokyo)];
    // The origin is between berlin and tokyo, and away.
    let (_control, router) = router_of(&nodes[..2], &tokyo).await;
    let (status, answer, body) = router.ask(Method::GET, "/a", &[]).await;
    assert_eq!(status, 200);
    assert!(body.starts_with("tokyo GET /-/content/files/a"), "{body}");
    assert_eq!(answer["littoral-route"], "origin; reason=\"lisbon and berlin could not be reached\"");
    assert_eq!(router.metric("littoral_router_passed_over_total"), 2);
    // For a moment they are not tried first again.
    let (_, answer, _) = router.ask(Method::GET, "/a", &[]).await;
    assert_eq!(answer["littoral-route"], "origin; reason=\"lisbon could not be reached a moment ago\"");
    assert_eq!(router.metric("littoral_router_passed_over_total"), 2);

    // Beyond an origin that is away there may be an edge.
    let (_control, router) = router_of(&[nodes[0], nodes[2]], &nobody().await).await;
    let (_, answer, body) = router.ask(Method::GET, "/a", &[]).await;
    assert!(body.starts_with("tokyo GET /a"), "{body}");
    assert_eq!(answer["littoral-route"], "tokyo; reason=\"lisbon and origin could not be reached\"");
}

#[tokio::test]
async fn when_nobody_answers_that_is_said() {
    let gone = nobody().await;
    let (_control, router) = router_of(&[("lisbon", LISBON, &gone), ("berlin", BERLIN, &gone)], &gone).await;
    let (status, answer, body) = router.ask(Method::GET, "/a", &[]).await;
    assert_eq!(status, 502);
    assert_eq!(answer["content-type"], "application/problem+json");
    assert!(body.contains("lisbon, berlin, origin could not be reached"), "{body}");
    assert_eq!(router.metric("littoral_router_requests_total{answer=\"failed\"}"), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_broken_transfer() {
    let cut = Arc::new(Notify::new());
    let edge_cut = cut.clone();
    let (lisbon, _stop) = serve(move |_| {
        let cut = edge_cut.clone();
        async move { Response::new(broken_body(cut)) }
    })
    .await;
    let (_control, router) = router_of(&[("lisbon", LISBON, &lisbon)], &nobody().await).await;
    let request = Request::get(format!("{}/a", router.url)).body(Body::empty()).expect("request");
    let response = HttpClient::new(ClientLimits::default()).send(request).await.expect("a head");
    assert_eq!(response.status(), 200);
    cut.notify_one();
    assert!(net::read_to_end(response.into_body(), 100).await.is_err());
}

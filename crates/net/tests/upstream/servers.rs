//! Several servers: shares, ejection and return, and health checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use net::{HealthCheck, Upstream, UpstreamConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::fake::{Fake, answer_all, config, fetch, get, nobody, ok, read_head, until, upstream, word};

async fn named(name: &'static str) -> Fake {
    Fake::start(move |_, stream| async move { answer_all(stream, &ok(name)).await }).await
}

#[tokio::test]
async fn requests_are_shared_by_weight() {
    let (a, b) = (named("a").await, named("b").await);
    let mut settings = config(&[&a.url, &b.url]);
    settings.servers[0].weight = 3;
    let upstream = Upstream::new(settings).expect("settings");
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(fetch(&upstream, get("/")).await.1);
    }
    assert_eq!(answers.concat(), "aabaaaba");
}

#[tokio::test]
async fn a_server_that_fails_is_left_out_until_it_is_well_again() {
    let address = nobody().await;
    let good = named("good").await;
    let upstream = upstream(&[&address, &good.url]);
    for _ in 0..10 {
        assert_eq!(fetch(&upstream, get("/")).await.1, "good", "no request suffers");
    }
    let state = upstream.state();
    assert!(!state[0].usable && state[0].why.contains("refused"), "{state:?}");
    assert_eq!(state[0].failures, 3, "it is not asked any more");
    let listener = TcpListener::bind(address.trim_start_matches("http://")).await.expect("bind again");
    let back = Fake::on(listener, |_, stream| async move { answer_all(stream, &ok("back")).await });
    until("it is tried again", || upstream.state()[0].usable).await;
    while back.accepted() == 0 {
        fetch(&upstream, get("/")).await;
    }
    assert_eq!(upstream.state()[0].failures, 0);
}

#[tokio::test]
async fn when_no_server_is_usable_all_are_tried() {
    let address = nobody().await;
    let upstream = upstream(&[&address]);
    for _ in 0..3 {
        assert_eq!(word(&upstream, get("/")).await, "connect-refused");
    }
    assert!(!upstream.state()[0].usable);
    let listener = TcpListener::bind(address.trim_start_matches("http://")).await.expect("bind again");
    let _back = Fake::on(listener, |_, stream| async move { answer_all(stream, &ok("back")).await });
    assert_eq!(fetch(&upstream, get("/")).await.1, "back");
}

#[tokio::test]
async fn health_checks_take_a_server_out_and_bring_it_back() {
    let sick = Arc::new(AtomicBool::new(false));
    let look = Arc::clone(&sick);
    let fake = Fake::start(move |_, mut stream| {
        let look = Arc::clone(&look);
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let well = head.starts_with("GET /health?x HTTP/1.1\r\nhost: check.example\r\n");
                let answer = match (well, look.load(Ordering::SeqCst)) {
                    (true, false) => "HTTP/1.1 204 Well\r\n\r\n".to_owned(),
                    (true, true) => "HTTP/1.1 503 Sick\r\ncontent-length: 0\r\n\r\n".to_owned(),
                    (false, _) => ok("served"),
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    let health = HealthCheck {
        path: "/health?x".to_owned(),
        host: Some("check.example".to_owned()),
        interval_ms: 10,
        timeout_ms: 5_000,
        statuses: vec![(204, 204)],
        healthy_after: 2,
        unhealthy_after: 2,
    };
    let settings = UpstreamConfig { health: Some(health), ..config(&[&fake.url]) };
    let upstream = Upstream::new(settings).expect("settings");
    until("it was asked", || fake.accepted() > 3).await;
    assert!(upstream.state()[0].usable);
    sick.store(true, Ordering::SeqCst);
    until("it is out", || !upstream.state()[0].usable).await;
    assert!(upstream.state()[0].why.contains("status 503"), "{:?}", upstream.state());
    assert_eq!(fetch(&upstream, get("/")).await.1, "served", "health never refuses");
    sick.store(false, Ordering::SeqCst);
    until("it is back", || upstream.state()[0].usable).await;
    drop(upstream);
    let mut before = fake.accepted();
    // The checks end with the upstream; one may have been under way.
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        if fake.accepted() == before {
            break;
        }
        before = fake.accepted();
    }
}

//! Bounds, reuse and the queue.

use std::sync::Arc;

use net::{QUEUE_MAX, Upstream, UpstreamConfig};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::fake::{Fake, answer_all, config, fetch, get, idle, ok, read_head, until, word};

/// A server that answers a request for each permit.
async fn gated() -> (Fake, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let fake = Fake::start(move |_, mut stream| {
        let open = Arc::clone(&open);
        async move {
            while read_head(&mut stream).await.is_some() {
                open.acquire().await.expect("open").forget();
                let _ = stream.write_all(ok("hi").as_bytes()).await;
            }
        }
    })
    .await;
    (fake, gate)
}

fn bounded(url: &str, max_connections: u32) -> Upstream {
    Upstream::new(UpstreamConfig { max_connections, ..config(&[url]) }).expect("settings")
}

#[tokio::test]
async fn connections_are_bounded_and_reused_and_the_queue_is_served_in_full() {
    let (fake, gate) = gated().await;
    let upstream = bounded(&fake.url, 3);
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let upstream = upstream.clone();
        requests.spawn(async move { fetch(&upstream, get("/")).await });
    }
    until("three connections", || fake.accepted() == 3).await;
    until("all are active", || upstream.state()[0].active == 20).await;
    gate.add_permits(20);
    while let Some(answer) = requests.join_next().await {
        assert_eq!(answer.expect("answer").1, "hi");
    }
    idle(&upstream, 3).await;
    assert_eq!((fake.accepted(), upstream.state()[0].active), (3, 0));
}

#[tokio::test]
async fn the_queue_is_bounded_in_length_and_time() {
    let (fake, _gate) = gated().await;
    let upstream = bounded(&fake.url, 1);
    let mut requests = JoinSet::new();
    for _ in 0..=QUEUE_MAX {
        let upstream = upstream.clone();
        requests.spawn(async move { word(&upstream, get("/")).await });
    }
    until("all wait", || upstream.state()[0].active == QUEUE_MAX + 1).await;
    let error = upstream.send(get("/"), None).await.err().expect("one too many");
    assert_eq!((error.word(), error.reached_origin()), ("too-many-requests-waiting", false));
    // Those that go away make room.
    requests.shutdown().await;
    until("nobody waits", || upstream.state()[0].active == 0).await;
    let impatient =
        Upstream::new(UpstreamConfig { max_connections: 1, first_byte_ms: 100, ..config(&[&fake.url]) }).expect("ok");
    let (first, second) = tokio::join!(word(&impatient, get("/")), word(&impatient, get("/")));
    let mut words = [first, second];
    words.sort_unstable();
    assert_eq!(words[0], "first-byte-timeout");
}

#[tokio::test]
async fn a_request_that_is_given_up_frees_its_connection_for_those_who_wait() {
    let (fake, gate) = gated().await;
    let upstream = bounded(&fake.url, 1);
    let first = tokio::spawn({
        let upstream = upstream.clone();
        async move { fetch(&upstream, get("/")).await }
    });
    until("the first is there", || fake.accepted() == 1).await;
    let second = tokio::spawn({
        let upstream = upstream.clone();
        async move { fetch(&upstream, get("/")).await }
    });
    until("the second waits", || upstream.state()[0].active == 2).await;
    first.abort();
    until("a second connection", || fake.accepted() == 2).await;
    // The first connection's script may take a permit, too.
    gate.add_permits(2);
    assert_eq!(second.await.expect("answer").1, "hi");
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_idle_connections() {
    let closed = Arc::new(Semaphore::new(0));
    let count = Arc::clone(&closed);
    let fake = Fake::start(move |_, stream| {
        let count = Arc::clone(&count);
        async move {
            answer_all(stream, &ok("hi")).await;
            count.add_permits(1);
        }
    })
    .await;
    let upstream = bounded(&fake.url, 2);
    fetch(&upstream, get("/")).await;
    idle(&upstream, 1).await;
    drop(upstream.clone());
    assert_eq!(closed.available_permits(), 0);
    drop(upstream);
    until("the server sees the end", || closed.available_permits() == 1).await;
}

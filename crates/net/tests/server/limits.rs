//! Limits at their edges, slow clients, and the drain.

use net::{Body, ClientLimits, HttpClient, ServerLimits};
use tokio::net::TcpStream;

use super::kit::{PATIENCE, Raw, start};

async fn status(server: &super::kit::Server, request: &str) -> u16 {
    let mut raw = Raw::connect(server).await;
    raw.write(request).await;
    raw.answer().await.expect("an answer").status
}

#[tokio::test]
async fn heads_are_bounded_exactly() {
    let limits = ServerLimits { head_bytes: 8 << 10, head_fields: 10, target_bytes: 100, ..ServerLimits::default() };
    let server = start(limits).await;
    let fields = |count: usize| "a: b\r\n".repeat(count - 1);
    for (count, expected) in [(10, 200), (11, 431)] {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", fields(count));
        assert_eq!(status(&server, &request).await, expected, "{count} fields");
    }
    let head = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: x\r\na: {}\r\n\r\n", "y".repeat(bytes - 32));
    assert_eq!(head(8 << 10).len(), 8 << 10);
    for (bytes, expected) in [(8 << 10, 200), ((8 << 10) + 1, 431), (100_000, 431)] {
        assert_eq!(status(&server, &head(bytes)).await, expected, "{bytes} bytes");
    }
    for (bytes, expected) in [(100, 200), (101, 414), (5_000, 414)] {
        let request = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "p".repeat(bytes - 1));
        assert_eq!(status(&server, &request).await, expected, "{bytes} bytes of target");
    }
    for (bytes, expected) in [(32, 200), (33, 400)] {
        let request = format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n", "M".repeat(bytes));
        assert_eq!(status(&server, &request).await, expected, "{bytes} bytes of method");
    }
}

/// Slow loris: a byte now and then does not prolong the time for a head.
#[tokio::test]
async fn a_head_has_its_time_in_all() {
    let server = start(ServerLimits { head_ms: 200, ..ServerLimits::default() }).await;
    let raw = Raw::connect(&server).await;
    let (read, mut write) = raw.0.into_split();
    let drip = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(10));
        let _ = tokio::io::AsyncWriteExt::write_all(&mut write, b"GET / HTTP/1.1\r\nHost: x\r\na: ").await;
        loop {
            ticks.tick().await;
            if tokio::io::AsyncWriteExt::write_all(&mut write, b"y").await.is_err() {
                return;
            }
        }
    });
    let mut bytes = vec![0; 12];
    let mut read = read;
    tokio::time::timeout(PATIENCE, tokio::io::AsyncReadExt::read_exact(&mut read, &mut bytes))
        .await
        .expect("refused in time")
        .expect("an answer");
    assert_eq!(bytes, b"HTTP/1.1 408");
    tokio::time::timeout(PATIENCE, drip).await.expect("cut off in time").expect("ended");
    // An idle connection just ends.
    assert_eq!(Raw::connect(&server).await.rest().await, (String::new(), true));
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let server = start(ServerLimits { stall_ms: 100, connections: 1, ..ServerLimits::default() }).await;
    let mut lazy = Raw::connect(&server).await;
    lazy.write("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await;
    // There is one place only: somebody else is served once the lazy one has lost it.
    assert_eq!(status(&server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await, 200);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    let server = start(ServerLimits { connections: 1, ..ServerLimits::default() }).await;
    let mut raw = Raw::connect(&server).await;
    raw.write("GET /forever HTTP/1.1\r\nHost: x\r\n\r\n").await;
    drop(raw);
    assert_eq!(status(&server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await, 200);
}

#[tokio::test]
async fn drains_and_returns() {
    let server = start(ServerLimits::default()).await;
    let client = HttpClient::new(ClientLimits::default());
    let request =
        http::Request::post(format!("http://{}/seen", server.address)).body(Body::full("hello")).expect("request");
    let response = client.send(request).await.expect("response");
    assert!(net::read_to_end(response.into_body(), 1000).await.expect("body").ends_with(b"hello"));
    let mut idle = Raw::connect(&server).await;
    assert!(idle.is_open().await);
    // Busy: its response comes, and says that it is the last one.
    let mut busy = Raw::connect(&server).await;
    busy.write("POST /seen HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    busy.head().await.expect("continue");
    server.shutdown.cancel();
    assert_eq!(idle.rest().await, (String::new(), true));
    busy.write("ok").await;
    let answer = busy.answer().await.expect("an answer");
    assert!(answer.body.ends_with("ok") && answer.head.contains("connection: close\r\n"));
    tokio::time::timeout(PATIENCE, server.task).await.expect("in time").expect("drained");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_drain_is_cut_off() {
    let server = start(ServerLimits { drain_ms: 50, ..ServerLimits::default() }).await;
    let mut raw = Raw::connect(&server).await;
    raw.write("GET /forever HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.shutdown.cancel();
    tokio::time::timeout(PATIENCE, server.task).await.expect("in time").expect("drained");
    assert_eq!(raw.rest().await.0, "");
}

#[tokio::test]
async fn a_client_that_stops_in_its_body_is_cut_off() {
    let server = start(ServerLimits { stall_ms: 100, ..ServerLimits::default() }).await;
    let mut raw = Raw::connect(&server).await;
    raw.write("POST /seen HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel").await;
    let answer = raw.answer().await.expect("an answer");
    assert!(answer.status == 408 && answer.head.contains("connection: close\r\n"), "{answer:?}");
    assert!(!raw.is_open().await);
}

#[tokio::test]
async fn an_idle_connection_may_ask_once_more_at_shutdown() {
    let server = start(ServerLimits { drain_idle_ms: 60_000, drain_ms: 60_000, ..ServerLimits::default() }).await;
    let mut idle = Raw::connect(&server).await;
    assert!(idle.is_open().await);
    server.shutdown.cancel();
    // Only who is refused a new connection knows that the server has seen it.
    while TcpStream::connect(server.address).await.is_ok() {}
    idle.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = idle.answer().await.expect("an answer");
    assert!(answer.status == 200 && answer.head.contains("connection: close\r\n"), "{answer:?}");
    assert_eq!(idle.rest().await, (String::new(), true));
    let few = start(ServerLimits { drain_idle_ms: 20, ..ServerLimits::default() }).await;
    let mut idle = Raw::connect(&few).await;
    assert!(idle.is_open().await);
    few.shutdown.cancel();
    assert_eq!(idle.rest().await, (String::new(), true));
    tokio::time::timeout(PATIENCE, few.task).await.expect("in time").expect("drained");
}

/// A socket that closes takes its queue with it; so what waits there is taken before.
#[tokio::test]
async fn who_waits_in_the_queue_at_shutdown_is_served() {
    let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
    let address = listener.local_addr().expect("address");
    let shutdown = tokio_util::sync::CancellationToken::new();
    shutdown.cancel();
    let mut queued = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw(TcpStream::connect(address).await.expect("queued"));
        raw.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        queued.push(raw);
    }
    // Fewer places than connections: they are served one after the other.
    let limits = ServerLimits { connections: 3, ..ServerLimits::default() };
    let service = net::service(async |_| http::Response::new(Body::full("ok")));
    let server = tokio::spawn(net::serve(listener, service, limits, shutdown));
    for mut raw in queued {
        let answer = raw.answer().await.expect("an answer");
        assert!(answer.status == 200 && answer.head.contains("connection: close\r\n"), "{answer:?}");
    }
    tokio::time::timeout(PATIENCE, server).await.expect("in time").expect("drained");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn one_connection_more_than_there_may_be_waits_until_one_leaves() {
    let server = start(ServerLimits { connections: 2, ..ServerLimits::default() }).await;
    let (mut first, mut second) = (Raw::connect(&server).await, Raw::connect(&server).await);
    assert!(first.is_open().await && second.is_open().await);
    let mut third = Raw::connect(&server).await;
    third.write("GET /still-open HTTP/1.1\r\nHost: x\r\n\r\n").await;
    // The others are served meanwhile, and it is not.
    for _ in 0..20 {
        assert!(first.is_open().await && second.is_open().await);
    }
    assert_eq!(third.0.try_read(&mut [0]).map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock));
    drop(first);
    assert_eq!(third.answer().await.expect("an answer").body, "ok");
    assert!(second.is_open().await);
}

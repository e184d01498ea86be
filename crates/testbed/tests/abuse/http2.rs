//! Abuse of HTTP/2 (with prior knowledge: TLS would only hide it). Where a flood goes on, the farewell may be lost behind it:
//! a connection that is closed while something comes is reset by the kernel.

use crate::edge::SHORT_MS;
use crate::frames::{
    CONTINUATION, Client, END_STREAM, HEADERS, NO_WINDOW, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get,
    request,
};
use crate::measure::{Bounds, cost};

const FLOODED: [&str; 2] = ["enhance your calm", "cut off"];
/// Rounds of a flood at most: far more than any bound.
const ENDLESS: u32 = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 200, bytes: 64 << 10, cpu_us: 10_000 };
    cost("rapid reset", bounds, &FLOODED, |to| async move {
        let mut client = Client::connect(to, &[]).await;
        for stream in (1..ENDLESS).step_by(2) {
            // Never stored, so that it goes to the origin.
            let asked = request(stream, &get("/large?not-kept"));
            let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
            if !client.send(&[asked, reset].concat()).await {
                break;
            }
        }
        client.goodbye().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuation_without_end() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 200, bytes: 96 << 10, cpu_us: 10_000 };
    cost("CONTINUATION flood", bounds, &FLOODED, |to| async move {
        let mut client = Client::connect(to, &[]).await;
        client.send(&frame(HEADERS, END_STREAM, 1, &get("/page"))).await;
        let fields = [0, 1, b'a', 0].repeat(100);
        for _ in 0..ENDLESS {
            if !client.send(&frame(CONTINUATION, 0, 1, &fields)).await {
                break;
            }
        }
        client.goodbye().await
    })
    .await;
}

async fn flood(what: &str, piece: Vec<u8>) {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 200, bytes: 64 << 10, cpu_us: 30_000 };
    let piece: &'static [u8] = piece.repeat(100).leak();
    cost(what, bounds, &FLOODED, |to| async move {
        let mut client = Client::connect(to, &[]).await;
        for _ in 0..ENDLESS {
            if !client.send(piece).await {
                break;
            }
        }
        client.goodbye().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_without_end() {
    flood("settings flood", frame(SETTINGS, 0, 0, &[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_without_end() {
    flood("ping flood", frame(PING, 0, 0, &[0; 8])).await;
}

/// A field of 4,000 bytes that is sent once, and a byte for each copy of it; and nothing of the answers is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_are_small_on_the_wire_alone() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 100, bytes: 384 << 10, cpu_us: 150_000 };
    let ends = ["enhance your calm", "cut off"];
    cost("indexed-field bombs with a closed window", bounds, &ends, |to| async move {
        let mut client = Client::connect(to, NO_WINDOW).await;
        // Into the table: a literal of 4,000 bytes (RFC 7541 §§ 5.1, 6.2.1).
        let field = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4_000]].concat();
        client.send(&request(1, &[get("/page"), field].concat())).await;
        for stream in (3..ENDLESS).step_by(2) {
            if !client.send(&request(stream, &[&*get("/page"), &[0xbe; 15]].concat())).await {
                break;
            }
        }
        client.goodbye().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 200, bytes: 96 << 10, cpu_us: 10_000 };
    cost("a response that is not taken", bounds, &["cancel"], |to| async move {
        let mut client = Client::connect(to, NO_WINDOW).await;
        client.send(&request(1, &get("/large"))).await;
        client.reset().await
    })
    .await;
}

/// As many responses as there may be at once, none of which is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_responses_that_are_not_taken() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 50, bytes: 1_536 << 10, cpu_us: 200_000 };
    cost("128 responses that are not taken", bounds, &FLOODED, |to| async move {
        let mut client = Client::connect(to, NO_WINDOW).await;
        for stream in (1..257).step_by(2) {
            client.send(&request(stream, &get("/large"))).await;
        }
        client.goodbye().await
    })
    .await;
}

/// A byte for each update of its window: for ever, if nobody minded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_byte_at_a_time() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 100, bytes: 96 << 10, cpu_us: 40_000 };
    cost("a byte of window at a time", bounds, &["cancel", "enhance your calm", "cut off"], |to| async move {
        let mut client = Client::connect(to, NO_WINDOW).await;
        client.send(&request(1, &get("/large"))).await;
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            ticks.tick().await;
            if client.has_reset() || !client.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await {
                return client.reset().await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 500, bytes: 72 << 10, cpu_us: 10_000 };
    cost("an idle connection", bounds, &["no error"], |to| async move {
        let mut client = Client::connect(to, &[]).await;
        client.send(&request(1, &get("/page"))).await;
        client.goodbye().await
    })
    .await;
}

//! Large bodies of pull zones: slices are storage only, and what HTTP sees is the object.

use std::ops::Range;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use testbed::eventually;
use testbed::front::Front;
use testbed::media::content;

use crate::films::{GIB, S, asked, both, rests};

async fn check(front: &Front, target: &str, version: u64, range: Range<u64>, x_cache: &str) {
    let mut answer = front.range(target, range.start, range.end - 1).await;
    // A slice is in the store when all of it has come, which may be after those of its bytes that were asked for.
    for _ in 0..1_000 {
        if x_cache != "HIT" || answer.x_cache() == "HIT" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        answer = front.range(target, range.start, range.end - 1).await;
    }
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range:?}");
    assert_eq!(answer.x_cache(), x_cache, "{range:?}: {}", answer.header("cache-status"));
    assert!(*answer.bytes() == content(target, version, range.clone()), "{range:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_video_is_seekable_at_once_and_costs_what_is_watched() {
    let (front, media) = both().await;
    let target = format!("/ranged/film/{}", 20 * GIB);
    check(&front, &target, 1, 15 * GIB + 5..15 * GIB + 100, "MISS").await;
    check(&front, &target, 1, 15 * GIB + S - 50..15 * GIB + S, "HIT").await;
    check(&front, &target, 1, 15 * GIB + S - 1..15 * GIB + S + 1, "MISS").await; // of two slices one is there
    check(&front, &target, 1, 15 * GIB + S..15 * GIB + S + 1, "HIT").await;
    check(&front, &target, 1, 20 * GIB - 7..20 * GIB, "MISS").await;
    let head = front.ask(Method::HEAD, &target, &[]).await;
    assert_eq!((head.x_cache(), head.header("content-length")), ("HIT", (20 * GIB).to_string().as_str()));
    let slices = [15 * GIB, 15 * GIB + S, 20 * GIB - S].map(|first| format!("bytes={first}-{}", first + S - 1));
    assert_eq!(asked(&media), slices);
    assert_eq!(media.sent(), 3 * S);
    let beyond = front.range(&target, 20 * GIB, 20 * GIB).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let several = front
        .ask(Method::GET, &target, &[("range", &format!("bytes={}-{},{}-", 15 * GIB, 15 * GIB + 1, 20 * GIB - 2))])
        .await;
    assert_eq!((several.status, several.x_cache()), (StatusCode::PARTIAL_CONTENT, "HIT"));
    assert!(several.header("content-type").starts_with("multipart/byteranges"));
    assert_eq!(media.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_watching_stops_the_fetch() {
    let (front, media) = both().await;
    let target = format!("/ranged/film/{}", 20 * GIB);
    let mut body = front.open(Method::GET, &target, &[]).await.into_body();
    let mut read = 0;
    while read < 2 * S {
        read += body.frame().await.expect("more").expect("bytes").into_data().map_or(0, |bytes| bytes.len() as u64);
    }
    drop(body);
    // What was sent until everybody noticed: some slices, and what lies in the buffers of sockets.
    rests(&media).await;
    let sent = media.sent();
    assert!(sent < 24 * S, "{sent}");
    check(&front, &target, 1, 0..S, "HIT").await;
    assert_eq!(media.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_the_same_slices_share_their_fetch() {
    let (front, media) = both().await;
    let target = format!("/ranged/film/{}", 100 * S);
    media.allow(300_000);
    let early: Vec<_> = (0..20_u64).map(|n| front.range(&target, 10 * S + n * 1_000, 10 * S + 250_000)).collect();
    for answer in futures_util::future::join_all(early).await {
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
    }
    assert_eq!(media.requests().len(), 1, "{:?}", asked(&media));
    // The rest of that slice waits for the same exchange, a slice elsewhere does not.
    let rest = front.range(&target, 10 * S + 300_000, 11 * S - 1);
    let elsewhere = front.range(&target, 50 * S, 50 * S + 9);
    let (rest, elsewhere, ()) = tokio::join!(rest, elsewhere, async {
        eventually("the other slice is asked for", || async { media.requests().len() == 2 }).await;
        media.allow(u64::MAX);
    });
    assert!(*rest.bytes() == content(&target, 1, 10 * S + 300_000..11 * S));
    assert!(*elsewhere.bytes() == content(&target, 1, 50 * S..50 * S + 10));
    assert_eq!(asked(&media), [10, 50].map(|n| format!("bytes={}-{}", n * S, (n + 1) * S - 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_served_while_it_comes_and_sought_in_meanwhile() {
    let (front, media) = both().await;
    let target = format!("/ranged/film/{}", 12 * S + 77);
    media.allow(S + 5);
    let mut body = front.open(Method::GET, &target, &[]).await.into_body();
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < S + 5 {
        bytes.extend_from_slice(&body.frame().await.expect("more").expect("bytes").into_data().unwrap_or_default());
    }
    // A seek beyond what has come is a fetch of its own, for that slice only.
    media.allow(u64::MAX);
    check(&front, &target, 1, 12 * S..12 * S + 77, "MISS").await;
    while let Some(frame) = body.frame().await {
        bytes.extend_from_slice(&frame.expect("bytes").into_data().unwrap_or_default());
    }
    assert!(bytes == content(&target, 1, 0..12 * S + 77));
    assert_eq!(front.get(&target).await.x_cache(), "HIT");
    assert!(*front.get(&target).await.bytes() == bytes);
    let asked = asked(&media);
    assert_eq!(asked[..1], ["whole"]);
    assert!(asked.len() <= 2, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slices_of_two_versions_are_never_mixed() {
    let (front, media) = both().await;
    let target = format!("/ranged/film/{}", 8 * S);
    check(&front, &target, 1, 0..S, "MISS").await;
    media.change();
    // What is stored is fresh; what is missing of it has changed: nothing of the old is used any more.
    check(&front, &target, 1, 5..10, "HIT").await;
    check(&front, &target, 2, 3 * S..3 * S + 10, "MISS").await;
    check(&front, &target, 2, 0..S, "MISS").await;
    // In the middle of a transfer that can only be a broken one.
    let mut body = front.open(Method::GET, &target, &[]).await.into_body();
    let mut bytes = Vec::new();
    media.change();
    let broken = loop {
        match body.frame().await {
            Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(broken || bytes.len() as u64 == 8 * S);
    let wrong = bytes.iter().zip(content(&target, 2, 0..bytes.len() as u64)).position(|(got, right)| *got != right);
    assert_eq!(wrong, None, "of {} bytes; {:?}", bytes.len(), asked(&media));
    // Where all of it had come before the change, it is stored, and fresh.
    let version = if broken { 3 } else { 2 };
    assert!(*front.get(&target).await.bytes() == content(&target, version, 0..8 * S), "broken: {broken}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_leaves_no_slice_behind() {
    let (front, media) = both().await;
    let target = format!("/ranged/film/{}", 8 * S);
    assert!(*front.get(&target).await.bytes() == content(&target, 1, 0..8 * S));
    let full = front.metric("littoral_edge_memory_bytes");
    assert!(full > (8 * S) as f64);
    let purged = front.ask("PURGE".parse().expect("method"), &target, &[]).await;
    assert_eq!(purged.status, StatusCode::OK);
    media.change();
    check(&front, &target, 2, 7 * S..8 * S, "MISS").await;
    for index in 0..7 {
        check(&front, &target, 2, index * S..(index + 1) * S, "MISS").await;
    }
    assert!(front.metric("littoral_edge_memory_bytes") <= full + 4_096.0, "the old slices have left the store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_or_grows_stale_keeps_its_slices() {
    let (front, media) = both().await;
    media.cache_control("max-age=10");
    let target = format!("/ranged/film/{}", 8 * S);
    check(&front, &target, 1, 0..S, "MISS").await;
    front.advance(Duration::from_secs(20));
    media.advance(20);
    let confirmed = front.range(&target, 0, S - 1).await;
    assert_eq!(confirmed.x_cache(), "REVALIDATED");
    assert!(*confirmed.bytes() == content(&target, 1, 0..S));
    check(&front, &target, 1, 0..S, "HIT").await;
    front.advance(Duration::from_secs(20));
    media.advance(20);
    media.change();
    let changed = front.range(&target, 0, S - 1).await;
    assert_eq!(changed.x_cache(), "EXPIRED");
    assert!(*changed.bytes() == content(&target, 2, 0..S));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_ranges_it_is_fetched_once_from_the_start_with_readers_following() {
    for kind in ["whole", "chunked"] {
        let (front, media) = both().await;
        let target = format!("/{kind}/film/{}", 6 * S + 3);
        media.allow(4 * S);
        let late = async {
            eventually("the fetch is under way", || async { media.sent() >= 4 * S }).await;
            let late = front.range(&target, 5 * S, 5 * S + 99);
            let (late, ()) = tokio::join!(late, async {
                tokio::task::yield_now().await;
                media.allow(u64::MAX);
            });
            late
        };
        let (first, late) = tokio::join!(front.get(&target), late);
        assert!(*first.bytes() == content(&target, 1, 0..6 * S + 3), "{kind}");
        if late.status == StatusCode::PARTIAL_CONTENT {
            assert!(*late.bytes() == content(&target, 1, 5 * S..5 * S + 100), "{kind}");
        } else {
            assert!(*late.bytes() == content(&target, 1, 0..6 * S + 3), "{kind}");
        }
        assert_eq!(media.requests().len(), 1, "{kind}");
        check(&front, &target, 1, 3 * S..3 * S + 5, "HIT").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_costs_little_and_stops_nobody() {
    let (front, media) = both().await;
    let target = format!("/ranged/film/{}", 200 * S);
    let slow = front.open(Method::GET, &target, &[]).await.into_body();
    // Nobody reads: what the edge holds for it is a window, and not 200 slices.
    rests(&media).await;
    let sent = media.sent();
    assert!(sent < 40 * S, "{sent}");
    let quick = front.range(&target, 150 * S, 160 * S - 1).await;
    assert!(*quick.bytes() == content(&target, 1, 150 * S..160 * S));
    drop(slow);
}

//! What an edge keeps, for how long, and what it says about it.

use std::time::Duration;

use api::SLICE_BYTES;
use client::UploadMeta;
use http::{Method, StatusCode};
use testbed::{Cluster, Settings};

/// Bytes that differ from slice to slice.
fn body(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(size as u64);
    let mut bytes = vec![0; size];
    random.fill(&mut bytes);
    bytes
}

async fn one_edge() -> (Cluster, String) {
    let cluster = Cluster::with(Settings { edges: vec!["lisbon@38.72,-9.14"], ..Settings::default() }).await;
    let edge = cluster.edge_url("lisbon");
    (cluster, edge)
}

/// How many exchanges the edge has had with the origin, out of the metrics.
async fn fetches(cluster: &Cluster) -> u64 {
    let metrics = cluster.get(&format!("{}/metrics", cluster.local.admin)).await.text();
    let line =
        metrics.lines().find(|line| line.starts_with("littoral_edge_origin_fetches_total{") && line.contains("\"ok\""));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn miss_then_hit_and_how_they_say_so() {
    let (cluster, edge) = one_edge().await;
    cluster.put("a.css", "body {}").await;
    let url = format!("{edge}/a.css");
    let miss = cluster.get(&url).await;
    assert_eq!((miss.status, miss.x_cache()), (StatusCode::OK, "MISS"));
    assert_eq!(miss.header("cache-status"), "littoral-lisbon; fwd=miss; fwd-status=200; stored; ttl=3600");
    cluster.advance(Duration::from_secs(7));
    let hit = cluster.get(&url).await;
    assert_eq!((hit.status, hit.x_cache(), hit.text().as_str()), (StatusCode::OK, "HIT", "body {}"));
    assert_eq!(hit.header("cache-status"), "littoral-lisbon; hit; ttl=3593");
    assert_eq!(hit.header("age"), "7");
    assert_eq!(hit.header("via"), "1.1 littoral-lisbon");
    assert_eq!(hit.header("accept-ranges"), "bytes");
    assert!(hit.header("content-type").starts_with("text/css"));
    assert!(!hit.header("last-modified").is_empty() && !hit.header("server-timing").is_empty());
    let head = cluster.ask(Method::HEAD, &url, &[]).await;
    assert_eq!(
        (head.status, head.x_cache(), head.header("content-length"), head.bytes().len()),
        (StatusCode::OK, "HIT", "7", 0)
    );
    let head = cluster.ask(Method::HEAD, &format!("{edge}/none"), &[]).await;
    assert_eq!((head.status, head.bytes().len()), (StatusCode::NOT_FOUND, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn freshness_ends_and_revalidation_renews_it() {
    let (cluster, edge) = one_edge().await;
    let minute = UploadMeta { cache_control: Some("max-age=60".into()), ..UploadMeta::default() };
    cluster.put_with("a", "1", &minute).await;
    let url = format!("{edge}/a");
    assert_eq!(cluster.get(&url).await.x_cache(), "MISS");
    cluster.advance(Duration::from_secs(59));
    assert_eq!(cluster.get(&url).await.x_cache(), "HIT");
    cluster.advance(Duration::from_secs(1));
    let renewed = cluster.get(&url).await;
    assert_eq!((renewed.x_cache(), renewed.text().as_str(), renewed.header("age")), ("REVALIDATED", "1", "0"));
    assert_eq!(cluster.get(&url).await.x_cache(), "HIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_kept_is_not() {
    let (cluster, edge) = one_edge().await;
    for directive in ["no-store", "private"] {
        let meta = UploadMeta { cache_control: Some(directive.into()), ..UploadMeta::default() };
        cluster.put_with(directive, "x", &meta).await;
        for _ in 0..2 {
            let answer = cluster.get(&format!("{edge}/{directive}")).await;
            assert_eq!((answer.x_cache(), answer.text().as_str()), ("MISS", "x"), "{directive}");
            assert!(!answer.header("cache-status").contains("stored"), "{directive}");
        }
    }
    let meta = UploadMeta { cache_control: Some("no-cache".into()), ..UploadMeta::default() };
    cluster.put_with("always", "x", &meta).await;
    assert_eq!(cluster.get(&format!("{edge}/always")).await.x_cache(), "MISS");
    assert_eq!(cluster.get(&format!("{edge}/always")).await.x_cache(), "REVALIDATED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fetch_for_everyone_who_asks_at_once() {
    let (cluster, edge) = one_edge().await;
    let bytes = body(3 * SLICE_BYTES as usize + 5);
    cluster.put("big", bytes.clone()).await;
    let before = fetches(&cluster).await;
    let url = format!("{edge}/big");
    let answers = futures_util::future::join_all((0..50).map(|_| cluster.get(&url))).await;
    assert!(answers.iter().all(|answer| answer.bytes() == &bytes));
    // The head with the first slice, and the three other slices: each once.
    assert_eq!(fetches(&cluster).await - before, 4);
    assert!(answers.iter().any(|answer| answer.header("cache-status").contains("collapsed")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_around_the_slice_come_back_whole() {
    let (cluster, edge) = one_edge().await;
    let slice = SLICE_BYTES as usize;
    for size in [0, 1, slice - 1, slice, slice + 1, 2 * slice, 5 * slice + 17] {
        let bytes = body(size);
        cluster.put(&format!("size-{size}"), bytes.clone()).await;
        for expected in ["MISS", "HIT"] {
            let answer = cluster.get(&format!("{edge}/size-{size}")).await;
            assert_eq!((answer.status, answer.x_cache(), answer.bytes().len()), (StatusCode::OK, expected, size));
            assert!(answer.bytes() == &bytes, "size {size}");
            assert_eq!(answer.header("content-length"), size.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_larger_than_the_memory_tier_comes_through() {
    let settings = Settings { edges: vec!["lisbon@38.72,-9.14"], memory_bytes: 16 << 20, ..Settings::default() };
    let cluster = Cluster::with(settings).await;
    let bytes = body(40 << 20);
    cluster.put("huge", bytes.clone()).await;
    for _ in 0..2 {
        let answer = cluster.get(&format!("{}/huge", cluster.edge_url("lisbon"))).await;
        assert!(answer.bytes() == &bytes);
    }
    let metrics = cluster.get(&format!("{}/metrics", cluster.local.admin)).await.text();
    let line = metrics.lines().find(|line| line.starts_with("littoral_edge_memory_bytes{")).expect("the gauge");
    let held: u64 = line.rsplit(' ').next().expect("a value").parse().expect("a number");
    assert!(held <= 16 << 20, "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_from_any_place() {
    let (cluster, edge) = one_edge().await;
    let slice = SLICE_BYTES as usize;
    let bytes = body(3 * slice + 100);
    let size = bytes.len();
    cluster.put("v.mp4", bytes.clone()).await;
    let url = format!("{edge}/v.mp4");
    let before = fetches(&cluster).await;
    let check = async |range: String, from: usize, to: usize| {
        let answer = cluster.ask(Method::GET, &url, &[("range", &range)]).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {from}-{}/{size}", to - 1), "{range}");
        assert!(answer.bytes()[..] == bytes[from..to], "{range}");
    };
    check(format!("bytes={}-{}", 2 * slice + 3, 2 * slice + 9), 2 * slice + 3, 2 * slice + 10).await;
    assert_eq!(fetches(&cluster).await - before, 2, "the head with its slice, and the one slice that was asked for");
    check("bytes=0-0".into(), 0, 1).await;
    check(format!("bytes={}-{}", slice - 1, slice), slice - 1, slice + 1).await;
    check("bytes=-1".into(), size - 1, size).await;
    check(format!("bytes={}-", slice / 2), slice / 2, size).await;
    check(format!("bytes=5-{}", u64::MAX), 5, size).await;

    let parts = cluster.ask(Method::GET, &url, &[("range", "bytes=0-1,10-12")]).await;
    assert_eq!(parts.status, StatusCode::PARTIAL_CONTENT);
    assert!(parts.header("content-type").starts_with("multipart/byteranges; boundary="));
    assert_eq!(parts.header("content-length"), parts.bytes().len().to_string());
    let none = cluster.ask(Method::GET, &url, &[("range", &format!("bytes={size}-"))]).await;
    assert_eq!(
        (none.status, none.header("content-range")),
        (StatusCode::RANGE_NOT_SATISFIABLE, format!("bytes */{size}").as_str())
    );
    assert!(none.text().contains("range_not_satisfiable"));
    let thousand = (0..1_000).map(|n| format!("{}-{}", n * 3, n * 3)).collect::<Vec<_>>().join(",");
    let many = cluster.ask(Method::GET, &url, &[("range", &format!("bytes={thousand}"))]).await;
    assert_eq!(many.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert!(many.text().contains("too_many_ranges"), "{}", many.text());
    for ignored in ["lines=1-2", "bytes=5-2", "bytes=x", "bytes="] {
        assert_eq!(cluster.ask(Method::GET, &url, &[("range", ignored)]).await.status, StatusCode::OK, "{ignored}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditional_requests() {
    let (cluster, edge) = one_edge().await;
    let doc = cluster.put("a", "12345").await;
    let url = format!("{edge}/a");
    let (etag, modified) = (doc.digest.etag(), cluster.get(&url).await.header("last-modified").to_owned());
    let status = async |headers: &[(&str, &str)]| cluster.ask(Method::GET, &url, headers).await.status.as_u16();
    assert_eq!(status(&[("if-none-match", &etag)]).await, 304);
    assert_eq!(status(&[("if-none-match", &format!("\"x\", W/{etag}"))]).await, 304);
    assert_eq!(status(&[("if-none-match", "\"x\"")]).await, 200);
    assert_eq!(status(&[("if-modified-since", &modified)]).await, 304);
    assert_eq!(status(&[("if-match", "\"x\"")]).await, 412);
    assert_eq!(status(&[("range", "bytes=1-2"), ("if-range", &etag)]).await, 206);
    assert_eq!(status(&[("range", "bytes=1-2"), ("if-range", "\"x\"")]).await, 200);
    let answer = cluster.ask(Method::GET, &url, &[("if-none-match", &etag)]).await;
    assert_eq!((answer.header("etag"), answer.bytes().len()), (etag.as_str(), 0));
}

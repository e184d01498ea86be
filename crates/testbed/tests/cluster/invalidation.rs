//! No stale after purge: by URL, prefix, tag and zone, hard and soft, stored and in flight.

use api::{PurgeRequest, ReceiptState};
use client::UploadMeta;
use http::StatusCode;
use testbed::{Cluster, Settings};

async fn purge(cluster: &Cluster, request: PurgeRequest) {
    let answer = cluster.client().purge(&PurgeRequest { wait: true, ..request }).await.expect("purged");
    assert_eq!(answer.receipts.len(), cluster.local.edges.len());
    assert!(answer.receipts.iter().all(|receipt| receipt.state == ReceiptState::Applied), "{:?}", answer.receipts);
}

/// Which of the paths are hits at the edge, without anything being fetched in between.
async fn x_caches(cluster: &Cluster, edge: &str, paths: &[&str]) -> Vec<String> {
    let mut states = Vec::new();
    for path in paths {
        states.push(cluster.get(&format!("{edge}/{path}")).await.x_cache().to_owned());
    }
    states
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_purge_takes_what_it_names_at_every_edge() {
    let cluster = Cluster::start().await;
    let paths = ["img/a.png", "img/b.png", "css/a.css"];
    for (path, tags) in paths.iter().zip(["red big", "red", "blue"]) {
        let meta = UploadMeta { tags: Some(tags.into()), ..UploadMeta::default() };
        cluster.put_with(path, *path, &meta).await;
    }
    let zone = Some(cluster.zone());
    let cases: [(&str, PurgeRequest, [&str; 3]); 7] = [
        (
            "url",
            PurgeRequest { zone: zone.clone(), urls: vec!["/img/a.png".into()], ..Default::default() },
            ["MISS", "HIT", "HIT"],
        ),
        (
            "absolute url",
            PurgeRequest { urls: vec!["http://whatever.example/img/b.png?x=1".into()], ..Default::default() },
            ["HIT", "MISS", "HIT"],
        ),
        (
            "prefix",
            PurgeRequest { zone: zone.clone(), prefixes: vec!["/img/".into()], ..Default::default() },
            ["MISS", "MISS", "HIT"],
        ),
        (
            "prefix inside a name",
            PurgeRequest { zone: zone.clone(), prefixes: vec!["/css/a".into()], ..Default::default() },
            ["HIT", "HIT", "MISS"],
        ),
        (
            "tag",
            PurgeRequest { tags: vec!["red".parse().expect("tag")], ..Default::default() },
            ["MISS", "MISS", "HIT"],
        ),
        (
            "tag in a zone",
            PurgeRequest { zone, tags: vec!["big".parse().expect("tag")], ..Default::default() },
            ["MISS", "HIT", "HIT"],
        ),
        ("zone", PurgeRequest { zones: vec![cluster.zone()], ..Default::default() }, ["MISS", "MISS", "MISS"]),
    ];
    for edge in cluster.edge_urls() {
        x_caches(&cluster, &edge, &paths).await;
    }
    for (name, request, expected) in cases {
        for soft in [false, true] {
            purge(&cluster, PurgeRequest { soft, ..request.clone() }).await;
            let expected = expected.map(|state| if soft && state == "MISS" { "REVALIDATED" } else { state });
            for edge in cluster.edge_urls() {
                assert_eq!(x_caches(&cluster, &edge, &paths).await, expected, "{name}, soft: {soft}, {edge}");
                assert_eq!(x_caches(&cluster, &edge, &paths).await, ["HIT"; 3], "{name}: fetched again");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_by_id_url_takes_the_copy_by_id() {
    let cluster = Cluster::with(Settings { edges: vec!["a@0,0"], ..Settings::default() }).await;
    let doc = cluster.put("x", "x").await;
    let url = format!("{}/-/{}", cluster.edge_url("a"), doc.id);
    assert_eq!((cluster.get(&url).await.x_cache(), cluster.get(&url).await.x_cache()), ("MISS", "HIT"));
    purge(&cluster, PurgeRequest { urls: vec![doc.id_url], ..Default::default() }).await;
    assert_eq!(cluster.get(&url).await.x_cache(), "MISS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_update_that_waited_no_edge_serves_the_old_bytes() {
    let cluster = Cluster::start().await;
    let edges = cluster.edge_urls();
    for round in 0..60 {
        let body = format!("version {round}");
        cluster.put("hot", body.clone()).await;
        for edge in &edges {
            assert_eq!(cluster.get(&format!("{edge}/hot")).await.text(), body, "round {round} at {edge}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_in_flight_during_updates_never_bring_old_bytes_back() {
    let cluster = Cluster::with(Settings { edges: vec!["a@0,0", "b@1,1"], ..Settings::default() }).await;
    cluster.put("hot", "0").await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let newest = std::sync::atomic::AtomicU64::new(0);
    use std::sync::atomic::Ordering::SeqCst;
    // Readers keep fetches in flight all the time: purges by tag and URL make them miss again and again.
    let readers = cluster.edge_urls().into_iter().flat_map(|edge| [edge.clone(), edge]).map(|edge| {
        let (cluster, stop, newest) = (&cluster, &stop, &newest);
        async move {
            let mut reads = 0_u64;
            while !stop.load(SeqCst) {
                let acknowledged = newest.load(SeqCst);
                let seen: u64 = cluster.get(&format!("{edge}/hot")).await.text().parse().expect("a number");
                assert!(seen >= acknowledged, "{edge} served {seen} after {acknowledged} was acknowledged everywhere");
                reads += 1;
            }
            reads
        }
    });
    let writer = async {
        for version in 1..=80_u64 {
            cluster.put("hot", version.to_string()).await;
            newest.store(version, SeqCst);
            if version % 3 == 0 {
                purge(&cluster, PurgeRequest { zones: vec![cluster.zone()], ..Default::default() }).await;
            }
        }
        stop.store(true, SeqCst);
    };
    let (reads, ()) = futures_util::future::join(futures_util::future::join_all(readers), writer).await;
    assert!(reads.iter().all(|reads| *reads > 10), "{reads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remembered_absence_ends_with_the_upload() {
    let cluster = Cluster::start().await;
    for edge in cluster.edge_urls() {
        assert_eq!(cluster.get(&format!("{edge}/soon")).await.status, StatusCode::NOT_FOUND);
    }
    cluster.put("soon", "here").await;
    for edge in cluster.edge_urls() {
        assert_eq!(cluster.get(&format!("{edge}/soon")).await.text(), "here");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_that_make_no_sense_are_refused() {
    let cluster = Cluster::with(Settings { edges: vec!["a@0,0"], ..Settings::default() }).await;
    let before = cluster.client().status().await.expect("status").event;
    let token = cluster.admin_token();
    let url = "https://x.example/a".to_owned();
    let many = serde_json::json!({"urls": vec![url; api::MAX_PURGE_TARGETS + 1]}).to_string();
    for (body, code) in [
        ("{}", "invalid_request"),
        ("{\"urls\":[\"/a\"]}", "invalid_request"),
        ("{\"urls\":[\"ftp://x/a\"]}", "invalid_request"),
        ("{\"urls\":[\"http://x/%2e%2e/a\"]}", "invalid_name"),
        ("{\"zones\":[\"nope\"]}", "unknown_zone"),
        ("{\"tags\":[\"\"]}", "invalid_request"),
        ("{\"url\":[\"http://x/a\"]}", "invalid_request"),
        ("{", "invalid_request"),
        (&many, "too_large"),
    ] {
        let answer = cluster
            .api(
                http::Method::POST,
                "/v1/purge",
                Some(&token),
                &[("content-type", "application/json")],
                body.to_owned(),
            )
            .await;
        assert!(answer.status.is_client_error(), "{body:.80}: {}", answer.status);
        assert!(answer.text().contains(code), "{body:.80}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    assert_eq!(cluster.client().status().await.expect("status").event, before);
}

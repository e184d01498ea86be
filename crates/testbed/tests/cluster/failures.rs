//! What goes on when something dies, and what is caught up afterwards.

use std::time::Duration;

use api::{ReceiptState, SLICE_BYTES};
use client::UploadMeta;
use http::StatusCode;
use testbed::{Cluster, Link, Settings, eventually};

fn two_edges() -> Settings {
    Settings { edges: vec!["near@0,0", "other@5,5"], ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_serves_what_it_has_when_everything_else_is_gone() {
    let mut cluster = Cluster::with(two_edges()).await;
    let meta = UploadMeta { cache_control: Some("max-age=60".into()), wait: true, ..UploadMeta::default() };
    cluster.put_with("kept", "kept", &meta).await;
    cluster.put("never read", "x").await;
    let edge = cluster.edge_url("near");
    assert_eq!(cluster.get(&format!("{edge}/kept")).await.x_cache(), "MISS");
    for role in ["router", "monitor", "origin", "control"] {
        cluster.kill(role).await;
    }
    let view = cluster.edge_view("near");
    eventually("the edge notices that control is gone", || async { !view.live() }).await;
    let hit = cluster.get(&format!("{edge}/kept")).await;
    assert_eq!((hit.x_cache(), hit.text().as_str()), ("HIT", "kept"));
    assert!(hit.header("cache-status").contains("detail=disconnected"));
    cluster.advance(Duration::from_secs(61));
    let stale = cluster.get(&format!("{edge}/kept")).await;
    assert_eq!((stale.x_cache(), stale.text().as_str()), ("STALE", "kept"));
    assert!(stale.header("cache-status").contains("ttl=-"), "{}", stale.header("cache-status"));
    let missing = cluster.get(&format!("{edge}/never%20read")).await;
    assert_eq!((missing.status, missing.header("content-type")), (StatusCode::BAD_GATEWAY, "application/problem+json"));
    cluster.advance(Duration::from_secs(100_000));
    assert_eq!(cluster.get(&format!("{edge}/kept")).await.status, StatusCode::BAD_GATEWAY, "too stale for that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_starts_from_its_disk_when_control_is_gone() {
    let mut cluster = Cluster::with(two_edges()).await;
    let applied = cluster.put("a", "x").await.event;
    cluster.stop("edge near").await;
    cluster.kill("control").await;
    cluster.start_edge("near@0,0").await;
    let view = cluster.edge_view("near");
    assert!(view.ready() && view.applied() >= applied, "{}", view.applied());
    // It knows its zones; only the origin cannot look up the file.
    let answer = cluster.get(&format!("{}/a", cluster.edge_url("near"))).await;
    assert!(answer.status.is_server_error(), "{}", answer.status);
    assert_eq!(answer.header("via"), "1.1 littoral-near");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_was_cut_off_is_named_and_catches_up_before_it_serves_again() {
    let mut cluster = Cluster::with(two_edges()).await;
    let link = Link::to(&cluster.local.control).await;
    cluster.start_edge_at("far@10,10", link.url.clone()).await;
    let view = cluster.edge_view("far");
    eventually("the far edge is in step", || async { view.live() }).await;
    let client = cluster.client();
    eventually("the far edge is known to be alive", || async {
        client.nodes().await.expect("nodes").nodes.iter().any(|node| node.node.name.as_str() == "far" && node.alive)
    })
    .await;
    cluster.put("a", "old").await;
    let url = format!("{}/a", cluster.edge_url("far"));
    assert_eq!(cluster.get(&url).await.text(), "old");

    link.cut();
    eventually("the far edge notices", || async { !view.live() }).await;
    let updated = cluster.put("a", "new").await;
    let far = updated.receipts.iter().find(|receipt| receipt.node.as_str() == "far").expect("named");
    assert_eq!(far.state, ReceiptState::Timeout, "it is alive, and did not answer: {:?}", updated.receipts);
    assert!(far.ms >= 4_999.0, "{}", far.ms);
    assert_eq!(cluster.get(&url).await.text(), "old", "cut off, it serves what it has");
    // A burst of other events that it has to catch up with.
    for n in 0..30 {
        cluster.put_unseen(&format!("other/{n}"), "x").await;
    }
    link.mend();
    eventually("the far edge is in step again", || async { view.live() }).await;
    for _ in 0..5 {
        assert_eq!(cluster.get(&url).await.text(), "new");
    }
    assert!(view.applied() >= updated.event + 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_rot_in_the_object_store_are_never_served() {
    let cluster = Cluster::with(Settings { edges: vec!["a@0,0"], ..Settings::default() }).await;
    let edge = cluster.edge_url("a");
    let small = cluster.put("small", "0123456789").await;
    let mut bytes = vec![7_u8; 2 * SLICE_BYTES as usize + 10];
    bytes[0] = 1;
    let large = cluster.put("large", bytes).await;
    let cut = cluster.put("cut", "0123456789").await;
    let blob = |digest: &api::Digest| {
        let hex = digest.to_string();
        cluster.folder().join("objects/blobs").join(&hex[..2]).join(&hex[2..4]).join(&hex)
    };
    assert_eq!(small.digest, cut.digest);
    let damage = |path: std::path::PathBuf, at: u64| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("the blob");
        file.write_at(b"X", at).expect("damaged");
    };
    damage(blob(&small.digest), 3);
    damage(blob(&large.digest), SLICE_BYTES + 5);
    let answer = cluster.get(&format!("{edge}/small")).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.text().contains("blob_corrupt"), "{}", answer.text());
    let answer = cluster.get(&format!("{edge}/large")).await;
    assert_eq!(answer.status, StatusCode::OK, "the first slice is good");
    assert!(answer.body.is_err(), "the transfer breaks where the bytes are wrong");
    let answer = cluster.ask(http::Method::GET, &format!("{edge}/large"), &[("range", "bytes=0-99")]).await;
    assert_eq!((answer.status, answer.bytes().len()), (StatusCode::PARTIAL_CONTENT, 100));
    let direct = cluster.get(&format!("{}/-/content/files/small", cluster.local.api)).await;
    assert_eq!(direct.status, StatusCode::BAD_GATEWAY, "nor by the origin itself");

    // Shorter than it was.
    let short = cluster.put("short", "a file that will be cut").await;
    std::fs::OpenOptions::new().write(true).open(blob(&short.digest)).expect("the blob").set_len(5).expect("cut");
    assert_eq!(cluster.get(&format!("{edge}/short")).await.status, StatusCode::BAD_GATEWAY);
    // Uploading the right bytes again puts it right.
    cluster.put("short", "a file that will be cut").await;
    assert_eq!(cluster.get(&format!("{edge}/short")).await.text(), "a file that will be cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_of_another_catalog_starts_over() {
    let first = Cluster::with(Settings { edges: vec!["a@0,0"], ..Settings::default() }).await;
    first.put("x", "of the first").await;
    let mut second = Cluster::with(Settings { edges: vec!["b@0,0"], ..Settings::default() }).await;
    second.put("x", "of the second").await;
    // The folder of an edge of the first, moved to the second: its numbers mean nothing there.
    let (from, to) = (first.folder().join("edges/a"), second.folder().join("edges/a"));
    let applied = first.local.edges[0].1.applied();
    first
        .shut_down_keeping(|| {
            std::fs::create_dir_all(&to).expect("folder");
            for entry in std::fs::read_dir(&from).expect("its folder") {
                let entry = entry.expect("entry");
                // What it had in its disk tier stays where it is.
                if entry.file_type().expect("type").is_file() {
                    std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
                }
            }
        })
        .await;
    second.start_edge("a@0,0").await;
    let view = second.edge_view("a");
    eventually("the edge is in step with the second", || async { view.live() }).await;
    assert_eq!(second.get(&format!("{}/x", second.edge_url("a"))).await.text(), "of the second");
    second.put("x", "newer").await;
    assert_eq!(second.get(&format!("{}/x", second.edge_url("a"))).await.text(), "newer");
    assert!(applied > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_edge_has_acknowledged_it_knows_after_it_was_killed() {
    let mut cluster = Cluster::with(two_edges()).await;
    cluster.put("a", "x").await;
    let applied = cluster.put("a", "y").await.event;
    let folder = cluster.folder().join("edges/near");
    // With control gone, the edge itself is the only one that could tell it.
    cluster.kill("edge near").await;
    cluster.kill("control").await;
    cluster.start_edge("near@0,0").await;
    let view = cluster.edge_view("near");
    assert!(view.ready() && view.trusted() && view.applied() >= applied, "{}", view.applied());
    // Without its marks it goes on as well, with nothing of what was stored before to be trusted.
    cluster.kill("edge near").await;
    std::fs::remove_file(folder.join("marks.snapshot")).expect("removed");
    cluster.start_edge("near@0,0").await;
    let view = cluster.edge_view("near");
    assert!(view.ready() && view.trusted());
}

//! Rounds of the collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{Digest, SLICE_BYTES};
use origin::Collected;

use crate::kit::{Kit, body};

#[tokio::test]
async fn what_nothing_refers_to_goes_and_the_rest_stays() {
    let kit = Kit::with(|config| config.collector.staging_ms = 0).await;
    let used = kit.publish("a", b"used").await.digest;
    let unused = kit.store(b"unused").await;
    let large = kit.store(&body(3 * SLICE_BYTES as usize)).await;
    std::fs::write(kit.dir.path().join("staging/left#1"), "x").expect("write");

    let done = kit.origin.collect_once().await.expect("a round");
    assert_eq!(done, Collected { blobs: 2, staging: 1 });
    assert!(kit.blobs.head(used).await.is_ok());
    for gone in [unused, large] {
        assert!(kit.blobs.head(gone).await.is_err());
    }
    assert!(kit.records(|records| records.condemned.is_empty()), "all are forgotten");
    assert_eq!(kit.metric("littoral_origin_blobs_collected_total"), 2);
    assert_eq!(kit.origin.collect_once().await.expect("a round"), Collected::default());
}

#[tokio::test]
async fn what_is_young_is_left_alone() {
    let kit = Kit::with(|config| config.collector.grace_ms = 3_600_000).await;
    let young = kit.store(b"young").await;
    std::fs::write(kit.dir.path().join("staging/x"), "x").expect("write");
    assert_eq!(kit.origin.collect_once().await.expect("a round"), Collected::default());
    assert!(kit.blobs.head(young).await.is_ok());
}

#[tokio::test]
async fn what_a_collector_that_died_has_left_is_finished() {
    let kit = Kit::with(|config| config.collector.grace_ms = 3_600_000).await;
    let condemned = kit.store(b"condemned").await;
    let deleted = Digest::of(b"deleted, not forgotten");
    kit.records(|records| records.condemned.extend([condemned.0, deleted.0]));
    assert_eq!(kit.origin.collect_once().await.expect("a round").blobs, 2);
    assert!(kit.blobs.head(condemned).await.is_err());
    assert!(kit.records(|records| records.condemned.is_empty()));
}

#[tokio::test]
async fn an_upload_of_a_condemned_blob_waits_for_the_collector_and_wins() {
    let kit = Kit::new().await;
    let digest = kit.store(b"wanted again").await;
    kit.records(|records| records.condemned.insert(digest.0));
    // The upload's commit is refused until the round below has deleted the blob and had it forgotten.
    let upload = kit.put("a", &[], "wanted again");
    let round = async {
        crate::kit::until(|| kit.records(|records| records.begins.len()) >= 2).await;
        kit.origin.collect_once().await.expect("a round")
    };
    let (answer, _) = tokio::join!(upload, round);
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    assert_eq!(kit.blobs.head(digest).await.expect("it is there"), 12);
    assert_eq!(kit.origin.collect_once().await.expect("a round").blobs, 0, "and it stays");
}

#[tokio::test]
async fn more_blobs_than_fit_into_one_call() {
    let kit = Kit::new().await;
    let count = api::node::MAX_BLOBS_PER_CALL as u64 + 5;
    for n in 0..count {
        let digest = Digest::of(&n.to_le_bytes());
        let file = kit.blob(digest);
        std::fs::create_dir_all(file.parent().expect("folder")).expect("folder");
        std::fs::write(file, n.to_le_bytes()).expect("write");
    }
    assert_eq!(kit.origin.collect_once().await.expect("a round").blobs, count);
    assert_eq!(kit.records(|records| records.sweeps), 2, "two calls");
}

/// Uploads of the same few contents, deletions of those files and rounds without any grace, all at once. That every
/// accepted commit has its blob in place is asserted where commits are accepted; here, that it stays.
#[tokio::test]
async fn collecting_never_takes_away_what_an_upload_has_committed() {
    let kit = Arc::new(Kit::new().await);
    let over = Arc::new(AtomicBool::new(false));
    let rounds = {
        let (kit, over) = (Arc::clone(&kit), Arc::clone(&over));
        tokio::spawn(async move {
            let mut collected = 0;
            while !over.load(Ordering::SeqCst) {
                collected += kit.origin.collect_once().await.expect("a round").blobs;
            }
            collected
        })
    };
    let uploads: Vec<_> = (0..4)
        .map(|n| {
            let kit = Arc::clone(&kit);
            tokio::spawn(async move {
                for round in 0..40 {
                    let (path, content) = (format!("{n}"), format!("content {}", round % 3));
                    let answer = kit.put(&path, &[], content.clone()).await;
                    assert!(answer.status.is_success(), "{:?}", answer.body);
                    let (digest, size) = (Digest::of(content.as_bytes()), content.len() as u64);
                    assert_eq!(kit.blobs.slice(digest, size, 0).await.expect("it is there"), content);
                    kit.records(|records| records.files.remove(&path.parse().expect("path")));
                }
            })
        })
        .collect();
    for upload in uploads {
        upload.await.expect("ended");
    }
    over.store(true, Ordering::SeqCst);
    assert!(rounds.await.expect("ended") > 0, "something was collected meanwhile");
}

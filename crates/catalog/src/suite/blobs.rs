//! Collecting blobs: only what nothing refers to, and never from under an upload.

use api::Digest;
use api::node::{Conditions, UploadCommit};

use super::{Home, NOW_MS, at, commit, head, parse, put, upload, with_zone};
use crate::{Catalog, CatalogError};

pub(super) async fn only_what_nothing_refers_to_is_condemned(home: &impl Home) {
    let catalog = with_zone(home).await;
    let (old, new, never) = (Digest::of(b"old"), Digest::of(b"new"), Digest::of(b"never"));
    put(&catalog, "a", "old").await;
    put(&catalog, "a", "new").await;
    put(&catalog, "b", "new").await;
    let events = head(&catalog).await;
    let mut condemned = condemn(&catalog, &[old, new, never, never]).await;
    condemned.sort_unstable_by_key(|blob| *blob != old);
    assert_eq!(condemned, [old, never], "a version that is not the current one keeps no content");
    let mut listed = catalog.condemned_blobs(10).await.expect("list");
    listed.sort_unstable_by_key(|blob| *blob != old);
    assert_eq!(listed, condemned);
    assert_eq!(catalog.condemned_blobs(1).await.expect("list").len(), 1);
    // After a crash the collector asks again.
    assert_eq!(condemn(&catalog, &[old, new]).await, [old]);
    catalog.forget_blobs(vec![old, never], NOW_MS).await.expect("forget");
    assert_eq!(catalog.condemned_blobs(10).await.expect("list"), []);
    catalog.delete_file(at("a"), Conditions::default(), NOW_MS).await.expect("delete");
    assert_eq!(condemn(&catalog, &[new]).await, [], "b still has it");
    catalog.delete_file(at("b"), Conditions::default(), NOW_MS).await.expect("delete");
    assert_eq!(condemn(&catalog, &[new]).await, [new]);
    assert_eq!(head(&catalog).await, events + 2, "collecting is no event");
    assert_eq!(condemn(&catalog, &[]).await, []);
}

pub(super) async fn an_upload_that_a_collection_may_have_robbed_is_refused(home: &impl Home) {
    let catalog = with_zone(home).await;
    let blob = Digest::of(b"x");
    let begin = || async { catalog.begin_upload(&at("a"), &Conditions::default()).await.expect("begin").1 };
    let finish = |sweep| commit(&catalog, UploadCommit { sweep, ..upload(at("a"), "x") });
    let refused = |result: Result<_, CatalogError>| {
        assert!(matches!(result, Err(CatalogError::BlobCondemned(digest)) if digest == blob));
    };
    let early = begin().await;
    assert_eq!(condemn(&catalog, &[blob]).await, [blob]);
    refused(finish(early).await);
    let meanwhile = begin().await;
    refused(finish(meanwhile).await);
    catalog.forget_blobs(vec![blob], NOW_MS).await.expect("forget");
    // Both placed their blob before it was forgotten, so it may have been deleted after that.
    refused(finish(early).await);
    refused(finish(meanwhile).await);
    let late = begin().await;
    assert!(finish(late).await.expect("placed after the collection").created);
    assert_eq!(condemn(&catalog, &[blob]).await, [], "referred to now");

    // What is remembered of collections is bounded; an upload that began before all of it has to place again.
    let other = UploadCommit { sweep: late, ..upload(at("b"), "y") };
    for n in 0..150_u32 {
        let passing = Digest::of(&n.to_le_bytes());
        condemn(&catalog, &[passing]).await;
        catalog.forget_blobs(vec![passing], NOW_MS).await.expect("forget");
    }
    assert!(matches!(commit(&catalog, other.clone()).await, Err(CatalogError::BlobCondemned(_))));
    let sweep = begin().await;
    commit(&catalog, UploadCommit { sweep, ..other }).await.expect("begun anew");
}

/// Uploaders and a collector on the same few blobs, with a set standing in for the object store: whatever is committed
/// must be in it.
pub(super) async fn no_commit_is_left_without_its_blob(home: &impl Home) {
    let catalog = with_zone(home).await;
    let store = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    let uploaders: Vec<_> = (0..4)
        .map(|n| {
            let (catalog, store) = (catalog.clone(), store.clone());
            tokio::spawn(async move {
                for round in 0..30 {
                    let (path, content) = (format!("{n}"), format!("content {}", round % 3));
                    let blob = Digest::of(content.as_bytes());
                    loop {
                        let (_, sweep) = catalog.begin_upload(&at(&path), &Conditions::default()).await.expect("begin");
                        store.lock().expect("store").insert(blob);
                        tokio::task::yield_now().await;
                        match commit(&catalog, UploadCommit { sweep, ..upload(at(&path), &content) }).await {
                            Ok(_) => break,
                            Err(CatalogError::BlobCondemned(_)) => tokio::task::yield_now().await,
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            })
        })
        .collect();
    let collector = {
        let (catalog, store) = (catalog.clone(), store.clone());
        tokio::spawn(async move {
            for _ in 0..60 {
                let there: Vec<_> = store.lock().expect("store").iter().copied().collect();
                let condemned = condemn(&catalog, &there).await;
                store.lock().expect("store").retain(|blob| !condemned.contains(blob));
                catalog.forget_blobs(condemned, NOW_MS).await.expect("forget");
            }
        })
    };
    for task in uploaders.into_iter().chain([collector]) {
        task.await.expect("task");
    }
    for n in 0..4 {
        let file = catalog.file(&parse("files"), &parse(&n.to_string())).await.expect("file");
        assert!(store.lock().expect("store").contains(&file.digest), "file {n} has lost its blob");
    }
}

async fn condemn(catalog: &Catalog, digests: &[Digest]) -> Vec<Digest> {
    catalog.condemn_blobs(digests.to_vec(), NOW_MS).await.expect("condemn")
}

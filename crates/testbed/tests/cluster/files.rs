//! The files API: upload, versions, conditions, listing, renaming, deleting, by path and by id.

use api::{ErrorCode, FilePatch};
use client::{Upload, UploadMeta};
use http::{Method, StatusCode};
use net::Body;
use serde_json::Value;
use testbed::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_up_is_read_everywhere_is_updated_and_deleted() {
    let cluster = Cluster::start().await;
    let token = cluster.admin_token();
    let headers = [("cache-control", "max-age=60"), ("surrogate-key", "greeting text")];
    let answer =
        cluster.api(Method::PUT, "/v1/zones/files/files/docs/hello.txt", Some(&token), &headers, "hello").await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    let doc: Value = serde_json::from_slice(answer.bytes()).expect("json");
    let digest = blake3::hash(b"hello").to_hex().to_string();
    assert_eq!(doc["digest"], digest.as_str());
    assert_eq!((doc["version"].as_u64(), doc["size"].as_u64()), (Some(1), Some(5)));
    assert_eq!((doc["zone"].as_str(), doc["path"].as_str()), (Some("files"), Some("docs/hello.txt")));
    assert!(doc["media_type"].as_str().expect("text").starts_with("text/plain"));
    assert!(doc["event"].as_u64().expect("a number") > 0);
    assert_eq!(doc["url"], format!("{}/docs/hello.txt", cluster.local.router));
    assert_eq!(doc["id_url"], format!("{}/-/{}", cluster.local.router, doc["id"].as_str().expect("id")));
    assert_eq!(answer.header("location"), doc["url"]);

    let id = doc["id"].as_str().expect("id").to_owned();
    for edge in cluster.edge_urls() {
        for url in [format!("{edge}/docs/hello.txt"), format!("{edge}/-/{id}")] {
            let read = cluster.get(&url).await;
            assert_eq!((read.status, read.text().as_str()), (StatusCode::OK, "hello"), "{url}");
            assert_eq!(read.header("etag"), format!("\"{digest}\""));
            assert_eq!(read.header("cache-control"), "max-age=60");
            assert_eq!(read.header("surrogate-key"), "", "tags are not shown to clients");
        }
    }

    let answer =
        cluster.api(Method::PUT, "/v1/zones/files/files/docs/hello.txt?wait=edges", Some(&token), &[], "again").await;
    assert_eq!(answer.status, StatusCode::OK);
    let doc: Value = serde_json::from_slice(answer.bytes()).expect("json");
    assert_eq!((doc["version"].as_u64(), doc["id"].as_str()), (Some(2), Some(id.as_str())));
    let receipts = doc["receipts"].as_array().expect("receipts");
    assert_eq!(receipts.len(), 3);
    assert!(
        receipts.iter().all(|r| r["state"] == "applied" && r["ms"].as_f64().is_some_and(|ms| ms < 5_000.0)),
        "{receipts:?}"
    );
    for edge in cluster.edge_urls() {
        assert_eq!(cluster.get(&format!("{edge}/docs/hello.txt")).await.text(), "again");
        assert_eq!(cluster.get(&format!("{edge}/-/{id}")).await.text(), "again");
    }

    let answer =
        cluster.api(Method::DELETE, "/v1/zones/files/files/docs/hello.txt?wait=edges", Some(&token), &[], "").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    for edge in cluster.edge_urls() {
        for url in [format!("{edge}/docs/hello.txt"), format!("{edge}/-/{id}")] {
            let read = cluster.get(&url).await;
            assert_eq!(read.status, StatusCode::NOT_FOUND, "{url}");
            assert_eq!(read.header("content-type"), "application/problem+json");
        }
    }
    let answer = cluster.api(Method::GET, &format!("/v1/files/{id}"), Some(&token), &[], "").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_id_and_renamed() {
    let cluster = Cluster::start().await;
    let client = cluster.client();
    let target = Upload::Generated(cluster.zone(), Some("cat.png".into()));
    let (created, doc) = client.upload(&target, &UploadMeta::default(), Body::full("picture")).await.expect("uploaded");
    assert!(created && doc.path.as_str().ends_with(".png"), "{}", doc.path);
    assert_eq!(doc.media_type, "image/png");
    let (_, other) = client.upload(&target, &UploadMeta::default(), Body::full("picture")).await.expect("uploaded");
    assert_ne!((doc.id, &doc.path), (other.id, &other.path), "each gets a URL of its own");

    let wait = UploadMeta { wait: true, ..UploadMeta::default() };
    let (created, updated) = client.upload(&Upload::Id(doc.id), &wait, Body::full("picture 2")).await.expect("updated");
    assert!(!created);
    assert_eq!((updated.version, &updated.path, updated.media_type.as_str()), (2, &doc.path, "image/png"));

    let edge = cluster.edge_url("lisbon");
    let by_id = format!("{edge}/-/{}", doc.id);
    let (old, new) = (format!("{edge}/{}", doc.path), format!("{edge}/animals/cat.png"));
    assert_eq!(cluster.get(&by_id).await.text(), "picture 2");
    assert_eq!(cluster.get(&old).await.text(), "picture 2");
    assert_eq!(cluster.get(&new).await.status, StatusCode::NOT_FOUND);
    let patch = FilePatch { path: Some("animals/cat.png".parse().expect("path")), ..FilePatch::default() };
    let renamed = client.patch_file(doc.id, &patch, true).await.expect("renamed");
    assert_eq!((renamed.id, renamed.path.as_str()), (doc.id, "animals/cat.png"));
    assert_eq!(cluster.get(&by_id).await.text(), "picture 2", "the URL by id survives");
    assert_eq!(cluster.get(&new).await.text(), "picture 2", "not the remembered 404");
    assert_eq!(cluster.get(&old).await.status, StatusCode::NOT_FOUND);
    let versions = client.versions(doc.id).await.expect("versions").versions;
    assert_eq!(versions.iter().map(|v| v.version).collect::<Vec<_>>(), [3, 2, 1]);

    let taken = FilePatch { path: Some(other.path.clone()), ..FilePatch::default() };
    let error = client.patch_file(doc.id, &taken, false).await.expect_err("taken");
    assert_eq!(error.code(), Some(ErrorCode::Conflict));
    client.delete_file_by_id(doc.id, true).await.expect("deleted");
    assert_eq!(cluster.get(&by_id).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_decide_and_change_nothing_when_they_fail() {
    let cluster = Cluster::start().await;
    let client = cluster.client();
    let target = Upload::Path(cluster.zone(), "a".parse().expect("path"));
    let if_new = UploadMeta { if_none_match: Some("*".into()), ..UploadMeta::default() };
    let (_, first) = client.upload(&target, &if_new, Body::full("1")).await.expect("new");
    let error = client.upload(&target, &if_new, Body::full("2")).await.expect_err("it is there");
    assert_eq!(error.code(), Some(ErrorCode::PreconditionFailed));
    let matching = UploadMeta { if_match: Some(first.digest.etag()), ..UploadMeta::default() };
    client.upload(&target, &matching, Body::full("2")).await.expect("it was the first");
    let error = client.upload(&target, &matching, Body::full("3")).await.expect_err("it is the second");
    assert_eq!(error.code(), Some(ErrorCode::PreconditionFailed));
    let error =
        client.delete_file(&cluster.zone(), &first.path, Some(first.digest), false).await.expect_err("the second");
    assert_eq!(error.code(), Some(ErrorCode::PreconditionFailed));
    assert_eq!(cluster.get(&format!("{}/a", cluster.edge_url("lisbon"))).await.text(), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_bytes_are_kept_once_and_collected_when_nobody_has_them() {
    let collector = origin::CollectorConfig { every_ms: 50, grace_ms: 0, staging_ms: 60_000 };
    let cluster = Cluster::with(testbed::Settings { collector, ..testbed::Settings::default() }).await;
    for path in ["a", "b", "dir/c"] {
        cluster.put(path, "the same bytes").await;
    }
    let count = || {
        let mut folders = vec![cluster.folder().join("objects/blobs")];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files += 1 }
            }
        }
        files
    };
    assert_eq!(count(), 1);
    let zone = cluster.zone();
    for path in ["a", "b"] {
        cluster.client().delete_file(&zone, &path.parse().expect("path"), None, true).await.expect("deleted");
    }
    cluster.put("other", "other bytes").await;
    cluster.put("other", "and others").await;
    eventually("the collector takes what nobody has", || async { count() == 2 }).await;
    let edge = cluster.edge_url("lisbon");
    assert_eq!(cluster.get(&format!("{edge}/dir/c")).await.text(), "the same bytes");
    assert_eq!(cluster.get(&format!("{edge}/other")).await.text(), "and others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_never_rests_loses_no_upload() {
    let collector = origin::CollectorConfig { every_ms: 1, grace_ms: 0, staging_ms: 60_000 };
    let cluster =
        Cluster::with(testbed::Settings { collector, edges: vec!["a@0,0"], ..testbed::Settings::default() }).await;
    let edge = cluster.edge_url("a");
    // The same few contents come and go, so that blobs are collected just as they are needed again.
    let workers = (0..4_u64).map(|worker| {
        let (cluster, edge) = (&cluster, &edge);
        async move {
            let mut random = fastrand::Rng::with_seed(worker);
            for _ in 0..25 {
                let body = format!("content {}", random.u8(0..3));
                let path = format!("file-{worker}");
                cluster.put(&path, body.clone()).await;
                assert_eq!(cluster.get(&format!("{edge}/{path}")).await.text(), body);
            }
        }
    });
    futures_util::future::join_all(workers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_pages_through_everything() {
    let cluster = Cluster::start().await;
    for n in 0..25 {
        cluster.put(&format!("list/{n:02}"), format!("{n}")).await;
    }
    cluster.put("other", "x").await;
    let (client, zone) = (cluster.client(), cluster.zone());
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = client.files(&zone, "list/", 10, cursor.as_deref()).await.expect("page");
        assert!(page.files.len() <= 10);
        seen.extend(page.files.into_iter().map(|file| file.path.to_string()));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(|n| format!("list/{n:02}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart() {
    let cluster = Cluster::start().await;
    let doc = cluster.put("kept.txt", "kept").await;
    let status = cluster.client().status().await.expect("status");
    let token = cluster.admin_token();
    let cluster = cluster.restart().await;
    assert_eq!(cluster.admin_token(), token);
    let after = cluster.client().status().await.expect("status");
    assert_eq!((after.catalog_id, after.files, after.bytes), (status.catalog_id, status.files, status.bytes));
    assert!(after.event >= status.event);
    let kept = cluster.client().file_by_id(doc.id).await.expect("kept");
    assert_eq!((kept.digest, kept.version, kept.event), (doc.digest, doc.version, doc.event));
    assert_eq!(cluster.get(&format!("{}/kept.txt", cluster.edge_url("singapore"))).await.text(), "kept");
    cluster.shut_down().await;
}

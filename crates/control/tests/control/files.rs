//! Files and purges as people use them.

use api::names::Digest;
use api::node::UploadTarget;
use api::{Change, ErrorCode, FilePatch, PurgeRequest, Scope, ZoneDoc};
use client::StreamItem;
use http::Method;

use crate::kit::{ADMIN, Kit, NODE, parse, upload};

#[tokio::test]
async fn a_file_from_its_upload_to_its_end() {
    let kit = Kit::new().await;
    let (reader, _) = kit.user(&[Scope::Read], None).await;
    let (writer, _) = kit.user(&[Scope::Write], None).await;
    let zone = parse("files");
    let first = kit.put("files", "größe/a b.txt", "one", false).await;
    assert!(first.created && first.file.receipts.is_empty());
    assert_eq!(first.file.url, "http://127.0.0.1:8600/gr%C3%B6%C3%9Fe/a%20b.txt");
    assert_eq!(first.file.id_url, format!("http://127.0.0.1:8600/-/{}", first.file.id));
    let second = kit.put("files", "größe/a b.txt", "two", false).await;
    assert!(!second.created && second.file.version == 2 && second.file.id == first.file.id);
    assert_eq!(reader.file(&zone, &second.file.path).await.expect("by path"), second.file);
    assert_eq!(reader.file_by_id(second.file.id).await.expect("by id"), second.file);
    assert_eq!(reader.versions(second.file.id).await.expect("versions").versions.len(), 2);

    let patch = FilePatch { path: Some(parse("b.txt")), ..FilePatch::default() };
    let moved = writer.patch_file(second.file.id, &patch, false).await.expect("rename");
    assert_eq!((moved.id_url.as_str(), moved.url.as_str()), (&*second.file.id_url, "http://127.0.0.1:8600/b.txt"));
    kit.put("files", "taken", "x", false).await;
    let taken = FilePatch { path: Some(parse("taken")), ..FilePatch::default() };
    let error = writer.patch_file(moved.id, &taken, false).await.expect_err("taken");
    assert_eq!(error.code(), Some(ErrorCode::Conflict));

    let stale = writer.delete_file(&zone, &moved.path, Some(Digest::of(b"one")), false).await;
    assert_eq!(stale.expect_err("changed since").code(), Some(ErrorCode::PreconditionFailed));
    let gone = writer.delete_file(&zone, &moved.path, Some(Digest::of(b"two")), false).await.expect("delete");
    assert_eq!(reader.file_by_id(moved.id).await.expect_err("gone").code(), Some(ErrorCode::UnknownFile));
    let status = reader.status().await.expect("status");
    assert_eq!((status.event, status.files, status.bytes, status.zones), (gone.event, 1, 1, 1));
}

#[tokio::test]
async fn urls_follow_the_zone() {
    let kit = Kit::new().await;
    let zone = ZoneDoc { hosts: vec!["img.example".to_owned()], ..ZoneDoc::new(parse("img")) };
    let answer =
        kit.send(Method::PUT, "/v1/zones/img", Some(ADMIN), &serde_json::to_string(&zone).expect("json")).await;
    assert_eq!(answer.status, 201);
    assert_eq!(kit.put("img", "a", "1", false).await.file.url, "http://img.example:8600/a");
    let zone = ZoneDoc { base_url: Some("https://cdn.example".to_owned()), ..zone };
    let answer =
        kit.send(Method::PUT, "/v1/zones/img", Some(ADMIN), &serde_json::to_string(&zone).expect("json")).await;
    assert_eq!(answer.status, 200);
    let page = kit.admin().files(&zone.name, "", 10, None).await.expect("page");
    assert_eq!(page.files[0].url, "https://cdn.example/a");
    assert_eq!(kit.admin().zones().await.expect("zones").zones.len(), 2);
}

#[tokio::test]
async fn listings_go_page_by_page() {
    let kit = Kit::new().await;
    for path in ["a%", "a_", "a/1", "a/2", "b", "ä"] {
        kit.put("files", path, "x", false).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = kit.admin().files(&parse("files"), "a", 3, cursor.as_deref()).await.expect("page");
        seen.extend(page.files.into_iter().map(|file| file.path.to_string()));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a%", "a/1", "a/2", "a_"]);
}

#[tokio::test]
async fn a_commit_checks_what_will_be_served() {
    let kit = Kit::new().await;
    let target = UploadTarget::Path { zone: parse("files"), path: parse("a") };
    for (media_type, cache_control) in [(Some("x"), None), (Some("a/b\nc: d"), None), (None, Some("a\r\nb: c"))] {
        let commit = api::node::UploadCommit {
            media_type: media_type.map(str::to_owned),
            cache_control: cache_control.map(str::to_owned),
            ..upload(target.clone(), "1", false)
        };
        let error = kit.node().upload_commit(&commit).await.expect_err("refused");
        assert_eq!(error.code(), Some(ErrorCode::InvalidRequest));
    }
    // A blob that is being collected cannot be committed, and can again once it is placed anew.
    let blob = Digest::of(b"1");
    assert_eq!(kit.node().blobs_condemn(vec![blob]).await.expect("condemn"), [blob]);
    assert_eq!(kit.node().blobs_condemned().await.expect("condemned"), [blob]);
    let refused = kit.node().upload_commit(&upload(target.clone(), "1", false)).await.expect_err("condemned");
    assert_eq!(refused.code(), Some(ErrorCode::BlobCondemned));
    kit.node().blobs_forget(vec![blob]).await.expect("forget");
    let authorization = Some(format!("Bearer {ADMIN}"));
    let begin = api::node::UploadBegin { authorization, target: target.clone(), conditions: Default::default() };
    let sweep = kit.node().upload_begin(&begin).await.expect("ready").sweep;
    let commit = api::node::UploadCommit { sweep, ..upload(target, "1", false) };
    assert!(kit.node().upload_commit(&commit).await.expect("placed anew").created);
}

#[tokio::test]
async fn a_purge_becomes_one_event() {
    let kit = Kit::new().await;
    let (purger, _) = kit.user(&[Scope::Purge], None).await;
    let id = kit.put("files", "a", "1", false).await.file.id;
    let before = kit.admin().status().await.expect("status").event;
    let request = PurgeRequest {
        zone: Some(parse("files")),
        urls: vec!["/docs/".to_owned(), format!("http://x.example/-/{id}"), "https://any.example/b?c".to_owned()],
        prefixes: vec!["http://any.example/img/".to_owned()],
        tags: vec![parse("t")],
        zones: vec![parse("files")],
        soft: true,
        wait: false,
        ..PurgeRequest::default()
    };
    let answer = purger.purge(&request).await.expect("purge");
    assert_eq!((answer.event, answer.receipts.len()), (before + 1, 0));
    let mut stream = kit.client(Some(NODE)).events(Some(before), false).await.expect("events");
    let mut purges = Vec::new();
    while let Some(item) = crate::kit::next(&mut stream).await {
        if let StreamItem::Event(event) = item {
            purges.push(event);
        }
    }
    let [event] = purges.as_slice() else { panic!("{purges:?}") };
    let Change::Purge(targets) = &event.change else { panic!("{event:?}") };
    let urls: Vec<_> = targets.urls.iter().map(|url| format!("{}:{}", url.zone, url.path)).collect();
    assert_eq!(urls, ["files:docs/index.html", "files:b"]);
    assert_eq!((targets.ids.as_slice(), targets.prefixes[0].prefix.as_str(), targets.len()), (&[id][..], "img/", 6));
    assert!(targets.soft && event.seq == answer.event);
}

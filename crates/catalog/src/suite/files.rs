//! Files: uploads, conditions, deletion, patches, history, listings.

use api::node::Conditions;
use api::{Change, Digest, FileId, FilePatch, FilePath};

use super::{Home, NOW_MS, at, by_id, commit, head, parse, put, upload, with_zone};
use crate::{Catalog, CatalogError, VERSIONS_KEPT};

pub(super) async fn an_upload_makes_a_file_then_versions(home: &impl Home) {
    let catalog = with_zone(home).await;
    let mut first = upload(at("a/b.txt"), "one");
    first.media_type = Some("text/plain".to_owned());
    first.cache_control = Some("max-age=5".to_owned());
    first.tags = vec![parse("t1"), parse("t2")];
    let first = commit(&catalog, first).await.expect("first");
    assert!(first.created);
    assert_eq!((first.file.version, first.file.size, first.file.event), (1, 3, 2));
    assert_eq!((first.file.digest, first.file.modified_ms), (Digest::of(b"one"), NOW_MS));
    assert_eq!(first.file.id.0.get_version_num(), 7);
    assert_eq!(catalog.file(&parse("files"), &parse("a/b.txt")).await.expect("by path"), first.file);
    assert_eq!(catalog.file_by_id(first.file.id).await.expect("by id"), first.file);

    let second = commit(&catalog, upload(by_id(first.file.id), "two!")).await.expect("second");
    assert!(!second.created);
    assert_eq!((second.file.id, second.file.version, second.file.size), (first.file.id, 2, 4));
    assert_eq!(second.file.media_type, "text/plain", "the media type stays, the rest is declared anew");
    assert_eq!((second.file.cache_control.as_deref(), second.file.tags.len()), (None, 0));
    assert_eq!(catalog.file(&parse("files"), &parse("a/b.txt")).await.expect("by path"), second.file);

    let versions = catalog.versions(first.file.id).await.expect("versions");
    let shown: Vec<_> = versions.iter().map(|v| (v.version, v.digest, v.size, v.event, v.created_ms)).collect();
    assert_eq!(shown, [(2, Digest::of(b"two!"), 4, 3, NOW_MS), (1, Digest::of(b"one"), 3, 2, NOW_MS)]);
    let events = catalog.events_after(1, 10).await.expect("events");
    let [Change::FileUpdated(one), Change::FileUpdated(two)] = [&events[0].change, &events[1].change] else {
        panic!("{events:?}");
    };
    assert_eq!((one.version, two.version, two.path.as_str(), two.digest), (1, 2, "a/b.txt", Digest::of(b"two!")));
    assert_eq!(put(&catalog, "plain", "").await.media_type, "application/octet-stream");
}

pub(super) async fn what_is_not_there_is_named(home: &impl Home) {
    let catalog = with_zone(home).await;
    let nowhere = api::node::UploadTarget::Path { zone: parse("nope"), path: parse("a") };
    let nobody = FileId(uuid::Uuid::nil());
    let none = Conditions::default();
    let zone =
        |error: CatalogError| assert!(matches!(&error, CatalogError::UnknownZone(name) if name == "nope"), "{error}");
    zone(commit(&catalog, upload(nowhere.clone(), "x")).await.expect_err("upload"));
    zone(catalog.begin_upload(&nowhere, &none).await.expect_err("begin"));
    zone(catalog.delete_file(nowhere, none.clone(), NOW_MS).await.expect_err("delete"));
    zone(catalog.file(&parse("nope"), &parse("a")).await.expect_err("file"));
    zone(catalog.list(&parse("nope"), "", 1, None).await.expect_err("list"));
    zone(catalog.holders(&parse("nope"), &parse("a")).await.expect_err("holders"));
    let file = |error: CatalogError| assert!(matches!(error, CatalogError::UnknownFile(_)), "{error}");
    file(commit(&catalog, upload(by_id(nobody), "x")).await.expect_err("upload"));
    file(catalog.begin_upload(&by_id(nobody), &none).await.expect_err("begin"));
    file(catalog.delete_file(by_id(nobody), none.clone(), NOW_MS).await.expect_err("delete by id"));
    file(catalog.delete_file(at("a"), none, NOW_MS).await.expect_err("delete"));
    file(catalog.file(&parse("files"), &parse("a")).await.expect_err("file"));
    file(catalog.file_by_id(nobody).await.expect_err("by id"));
    file(catalog.versions(nobody).await.expect_err("versions"));
    file(catalog.patch_file(nobody, FilePatch::default(), NOW_MS).await.expect_err("patch"));
    assert_eq!(head(&catalog).await, 1, "refusals make no events");
}

pub(super) async fn conditions_are_checked_in_the_transaction(home: &impl Home) {
    let catalog = with_zone(home).await;
    let only_new = Conditions { if_match: None, if_none_match: Some("*".to_owned()) };
    let only_over = |digest: Digest| Conditions { if_match: Some(digest.etag()), if_none_match: None };
    let refused = |error: CatalogError| assert!(matches!(error, CatalogError::PreconditionFailed(_)), "{error}");
    let attempt = |content: &str, conditions: &Conditions| {
        commit(&catalog, api::node::UploadCommit { conditions: conditions.clone(), ..upload(at("a"), content) })
    };
    refused(attempt("1", &only_over(Digest::of(b"0"))).await.expect_err("nothing there"));
    assert!(attempt("1", &only_new).await.expect("new").created);
    refused(attempt("2", &only_new).await.expect_err("there already"));
    refused(catalog.begin_upload(&at("a"), &only_new).await.expect_err("begin says so as well"));
    assert_eq!(attempt("2", &only_over(Digest::of(b"1"))).await.expect("over 1").file.version, 2);
    refused(attempt("3", &only_over(Digest::of(b"1"))).await.expect_err("is 2 by now"));
    refused(catalog.delete_file(at("a"), only_over(Digest::of(b"1")), NOW_MS).await.expect_err("is 2"));
    refused(catalog.delete_file(at("b"), only_over(Digest::of(b"1")), NOW_MS).await.expect_err("is not there"));
    let nonsense = Conditions { if_match: Some("2".to_owned()), if_none_match: None };
    assert!(matches!(attempt("3", &nonsense).await, Err(CatalogError::Invalid(_))));
    catalog.delete_file(at("a"), only_over(Digest::of(b"2")), NOW_MS).await.expect("delete 2");

    // Of many who all want to be the first, one is.
    let rush = (0..8).map(|n| attempt(if n % 2 == 0 { "x" } else { "y" }, &only_new));
    let mut won = 0;
    for result in run_all(rush).await {
        match result {
            Ok(_) => won += 1,
            Err(error) => refused(error),
        }
    }
    assert_eq!(won, 1);
}

pub(super) async fn a_path_that_is_used_again_holds_another_file(home: &impl Home) {
    let catalog = with_zone(home).await;
    let old = put(&catalog, "a", "1").await;
    put(&catalog, "a", "2").await;
    let (gone, event) = catalog.delete_file(by_id(old.id), Conditions::default(), NOW_MS).await.expect("delete");
    assert_eq!((gone.id, gone.version, event), (old.id, 2, 4));
    let events = catalog.events_after(3, 10).await.expect("events");
    assert!(matches!(&events[0].change, Change::FileDeleted(file) if file.version == 2 && file.path.as_str() == "a"));
    assert!(matches!(catalog.versions(old.id).await, Err(CatalogError::UnknownFile(_))));
    let new = put(&catalog, "a", "1").await;
    assert_eq!(new.version, 1);
    assert_ne!(new.id, old.id);
}

pub(super) async fn patches_rename_and_relabel(home: &impl Home) {
    let catalog = with_zone(home).await;
    let file = put(&catalog, "a", "1").await;
    let other = put(&catalog, "taken", "2").await;
    let patch = |patch: FilePatch| catalog.patch_file(file.id, patch, NOW_MS + 1);
    let to = |path: &str| FilePatch { path: Some(parse(path)), ..FilePatch::default() };

    assert_eq!(patch(FilePatch::default()).await.expect("nothing"), file);
    assert_eq!(patch(to("a")).await.expect("to itself"), file);
    let error = patch(to("taken")).await.expect_err("taken").to_string();
    assert!(error.contains("'taken'") && error.contains(&other.id.to_string()), "{error}");
    assert_eq!(head(&catalog).await, 3);

    let moved = patch(FilePatch { tags: Some(vec![parse("t")]), ..to("b/c") }).await.expect("moved");
    assert_eq!((moved.id, moved.version, moved.path.as_str(), moved.event), (file.id, 2, "b/c", 4));
    assert_eq!((moved.digest, moved.modified_ms, moved.tags.len()), (file.digest, NOW_MS + 1, 1));
    let events = catalog.events_after(3, 10).await.expect("events");
    let Change::FileMoved { file: says, old_path } = &events[0].change else { panic!("{events:?}") };
    assert_eq!((says.path.as_str(), says.version, old_path.as_str()), ("b/c", 2, "a"));
    assert!(matches!(catalog.file(&parse("files"), &parse("a")).await, Err(CatalogError::UnknownFile(_))));
    assert_eq!(catalog.file(&parse("files"), &parse("b/c")).await.expect("there"), moved);

    let labels = FilePatch {
        media_type: Some("text/html".to_owned()),
        cache_control: Some("no-cache".to_owned()),
        ..FilePatch::default()
    };
    let labelled = patch(labels).await.expect("labels");
    assert_eq!((labelled.version, labelled.cache_control.as_deref()), (3, Some("no-cache")));
    assert_eq!((labelled.media_type.as_str(), &labelled.tags), ("text/html", &moved.tags));
    let bare = patch(FilePatch { cache_control: Some(String::new()), ..FilePatch::default() }).await.expect("bare");
    assert_eq!((bare.version, bare.cache_control), (4, None));
    let events = catalog.events_after(4, 10).await.expect("events");
    assert!(events.iter().all(|event| matches!(event.change, Change::FileUpdated(_))), "{events:?}");
    assert_eq!(catalog.versions(file.id).await.expect("versions").len(), 4);
}

pub(super) async fn the_history_of_a_file_is_bounded(home: &impl Home) {
    let catalog = with_zone(home).await;
    let mut id = None;
    for n in 0..VERSIONS_KEPT + 5 {
        id = Some(put(&catalog, "a", &n.to_string()).await.id);
    }
    let versions = catalog.versions(id.expect("id")).await.expect("versions");
    assert_eq!(versions.len() as u64, VERSIONS_KEPT);
    assert_eq!((versions[0].version, versions[99].version), (VERSIONS_KEPT + 5, 6));
}

pub(super) async fn prefixes_mean_their_letters_and_order_is_by_bytes(home: &impl Home) {
    let catalog = with_zone(home).await;
    let mut paths =
        ["a", "a%", "a%b", "a/b", "a/b/c", "a0", "aB", "a_", "a_b", "ab", "b", "ä", "äb", "z", "\u{10ffff}", "日本/x"];
    for path in paths {
        put(&catalog, path, path).await;
    }
    catalog.put_zone(api::ZoneDoc::new(parse("other")), NOW_MS).await.expect("other zone");
    paths.sort_unstable();
    for prefix in ["", "a", "a%", "a_", "a/", "a/b", "A", "ä", "b", "日", "\u{10ffff}", "%", "_", "zz", "a\0", "'"] {
        let expected: Vec<_> = paths.iter().copied().filter(|path| path.starts_with(prefix)).collect();
        assert_eq!(listed(&catalog, prefix, 100).await, [expected], "{prefix:?}");
    }
    let empty = catalog.list(&parse("other"), "", 10, None).await.expect("empty");
    assert_eq!((empty.files.len(), empty.next_cursor), (0, None));
}

pub(super) async fn pages_end_exactly_where_the_files_do(home: &impl Home) {
    let catalog = with_zone(home).await;
    for n in 0..6 {
        put(&catalog, &format!("d/{n}"), "x").await;
    }
    put(&catalog, "c", "x").await;
    put(&catalog, "e", "x").await;
    for (limit, sizes) in
        [(1, vec![1; 6]), (2, vec![2, 2, 2]), (4, vec![4, 2]), (5, vec![5, 1]), (6, vec![6]), (7, vec![6])]
    {
        let pages = listed(&catalog, "d/", limit).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), sizes, "{limit}");
        let all: Vec<_> = pages.concat();
        assert_eq!(all, ["d/0", "d/1", "d/2", "d/3", "d/4", "d/5"], "{limit}");
    }
    // A cursor stays good when its file goes and others come.
    let page = catalog.list(&parse("files"), "d/", 3, None).await.expect("page");
    catalog.delete_file(at("d/2"), Conditions::default(), NOW_MS).await.expect("delete");
    put(&catalog, "d/21", "x").await;
    let next = catalog.list(&parse("files"), "d/", 1, page.next_cursor.as_deref()).await.expect("next");
    assert_eq!(next.files[0].path.as_str(), "d/21");
    assert!(matches!(catalog.list(&parse("files"), "", 3, Some("*")).await, Err(CatalogError::Invalid(_))));
}

pub(super) async fn totals_count_everything(home: &impl Home) {
    let catalog = home.open().await;
    let totals = catalog.totals().await.expect("totals");
    assert_eq!((totals.zones, totals.files, totals.bytes), (0, 0, 0));
    catalog.put_zone(api::ZoneDoc::new(parse("files")), NOW_MS).await.expect("zone");
    put(&catalog, "a", "123").await;
    put(&catalog, "b", "1234").await;
    put(&catalog, "b", "12345").await;
    let totals = catalog.totals().await.expect("totals");
    assert_eq!((totals.zones, totals.files, totals.bytes), (1, 2, 8));
}

/// The paths of all pages.
async fn listed(catalog: &Catalog, prefix: &str, limit: u32) -> Vec<Vec<String>> {
    let (mut pages, mut cursor) = (Vec::new(), None);
    loop {
        let page = catalog.list(&parse("files"), prefix, limit, cursor.as_deref()).await.expect(prefix);
        pages.push(page.files.iter().map(|file| FilePath::to_string(&file.path)).collect());
        cursor = page.next_cursor;
        if cursor.is_none() {
            return pages;
        }
    }
}

/// Runs futures side by side and collects what they answer.
async fn run_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut answers = Vec::new();
    std::future::poll_fn(|context| {
        running.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    answers
}

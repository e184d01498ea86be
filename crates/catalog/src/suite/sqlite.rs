//! The suite on SQLite, and what only a file can get wrong.

use std::path::PathBuf;

use tempfile::TempDir;

use super::{Home, NOW_MS, at, commit, parse, put, upload, with_zone};
use crate::{Catalog, CatalogError, OpenError, Settings};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("folder"))
    }
    fn file(&self) -> PathBuf {
        self.0.path().join("catalog.db")
    }
}

impl Home for Folder {
    async fn open_with(&self, settings: Settings) -> Catalog {
        Catalog::open(&self.file(), settings).await.expect("open")
    }
}

super::behaviours! {
    Folder::new();
    files:
        an_upload_makes_a_file_then_versions,
        what_is_not_there_is_named,
        conditions_are_checked_in_the_transaction,
        a_path_that_is_used_again_holds_another_file,
        patches_rename_and_relabel,
        the_history_of_a_file_is_bounded,
        prefixes_mean_their_letters_and_order_is_by_bytes,
        pages_end_exactly_where_the_files_do,
        totals_count_everything;
    log:
        numbers_have_no_gaps_under_concurrent_writers,
        old_events_go_and_readers_that_need_them_are_told,
        batches_are_bounded_in_bytes,
        a_change_is_announced_though_nobody_waits_for_it,
        opening_again_finds_everything;
    config:
        zones_are_kept_as_they_are_put,
        a_zone_with_files_stays,
        a_pull_zone_holds_no_files,
        a_join_that_says_nothing_new_makes_no_event,
        holders_have_the_current_version,
        tokens_are_found_by_hash_and_readers_are_announced;
    blobs:
        only_what_nothing_refers_to_is_condemned,
        an_upload_that_a_collection_may_have_robbed_is_refused,
        no_commit_is_left_without_its_blob;
}

async fn open_error(path: PathBuf) -> OpenError {
    match Catalog::open(&path, Settings { busy_timeout_ms: 1, ..Settings::default() }).await {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_catalog_of_a_newer_version_is_refused() {
    let folder = Folder::new();
    let catalog = folder.open().await;
    let future = sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', TRUE, X'00', 0)",
    );
    future.execute(&catalog.shared.writer).await.expect("insert");
    catalog.close().await;
    let error = open_error(folder.file()).await;
    assert!(matches!(error, OpenError::NewerSchema { found: 9999, .. }), "{error}");
    assert!(error.to_string().contains("was written by a newer Littoral"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_opened_is_said() {
    let folder = Folder::new();
    std::fs::write(folder.file(), "not a database, but long enough to look like one. ".repeat(100)).expect("write");
    assert!(matches!(open_error(folder.file()).await, OpenError::NotADatabase { .. }));
    let nowhere = open_error(folder.0.path().join("missing/catalog.db")).await;
    assert!(matches!(nowhere, OpenError::Unwritable { .. }), "{nowhere}");
    let a_folder = open_error(folder.0.path().to_owned()).await;
    assert!(matches!(a_folder, OpenError::Unwritable { .. }), "{a_folder}");
}

#[tokio::test]
async fn another_process_that_writes_is_named_busy() {
    let folder = Folder::new();
    let impatient = Settings { busy_timeout_ms: 1, ..Settings::default() };
    let (ours, theirs) = (folder.open_with(impatient).await, folder.open().await);
    let held = theirs.shared.writer.begin_with("BEGIN IMMEDIATE").await.expect("lock");
    let error = ours.put_zone(api::ZoneDoc::new(parse("files")), NOW_MS).await.expect_err("busy");
    assert!(matches!(error, CatalogError::Busy), "{error}");
    held.rollback().await.expect("rollback");
    ours.put_zone(api::ZoneDoc::new(parse("files")), NOW_MS).await.expect("free again");
}

#[tokio::test]
async fn a_full_disk_changes_nothing() {
    let folder = Folder::new();
    let catalog = with_zone(&folder).await;
    // It cannot shrink below what is there, so this allows nothing more. It goes with the connection.
    sqlx::query("PRAGMA max_page_count = 1").execute(&catalog.shared.writer).await.expect("limit");
    let mut stored = Vec::new();
    let error = loop {
        let path = format!("{}/{}", "x".repeat(900), stored.len());
        match commit(&catalog, upload(at(&path), "x")).await {
            Ok(answer) => stored.push(answer.file),
            Err(error) => break error,
        }
        assert!(stored.len() < 1_000, "the limit has no effect");
    };
    assert!(matches!(error, CatalogError::Full), "{error}");
    let hello = catalog.head().await.expect("head");
    assert_eq!(hello.head, 1 + stored.len() as u64, "the number of the failed change is free");
    assert_eq!(put(&catalog, "after", "x").await.event, hello.head + 1);
}

/// `fixtures/catalog_v1.sql` is what this version writes. It stays as it is for ever: every later version must read it.
#[tokio::test]
async fn the_first_form_of_the_catalog_is_read() {
    let folder = Folder::new();
    let catalog = folder.open().await;
    let rows = sqlx::raw_sql(include_str!("../../fixtures/catalog_v1.sql"));
    rows.execute(&catalog.shared.writer).await.expect("fixture");
    catalog.close().await;
    let catalog = folder.open().await;
    let zones = catalog.zones().await.expect("zones");
    assert_eq!((zones.len(), zones[0].ttl_s, zones[0].hosts[0].as_str()), (1, 60, "img.example"));
    assert_eq!(catalog.nodes().await.expect("nodes")[0].url, "http://127.0.0.1:8610");
    let events = catalog.events_after(0, 100).await.expect("events");
    let kinds: Vec<_> = events.iter().map(|event| event.change.kind()).collect();
    assert_eq!(kinds, ["config", "file_updated", "file_moved", "file_deleted", "purge"]);
    let file = catalog.file(&parse("img"), &parse("a/b.txt")).await.expect("file");
    assert_eq!((file.version, file.tags.len(), file.cache_control.as_deref()), (2, 2, Some("max-age=5")));
    assert_eq!(catalog.versions(file.id).await.expect("versions").len(), 2);
    assert_eq!(catalog.holders(&file.zone, &file.path).await.expect("holders").len(), 1);
    let tokens = catalog.tokens().await.expect("tokens");
    assert_eq!((tokens.len(), tokens[1].scopes.len(), tokens[1].expires_ms), (2, 4, Some(9_000)));
    assert_eq!(catalog.condemned_blobs(10).await.expect("blobs").len(), 1);
}

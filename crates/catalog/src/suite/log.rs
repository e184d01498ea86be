//! The event log: numbers without gaps, pruning, wake-ups, and what is there after opening again.

use api::{Change, PurgeTargets, ZoneDoc};

use super::{Home, NOW_MS, at, head, parse, put, upload, with_zone};
use crate::{Catalog, CatalogError, Settings};

const WRITERS: u64 = 8;
const COMMITS_PER_WRITER: u64 = 40;

pub(super) async fn numbers_have_no_gaps_under_concurrent_writers(home: &impl Home) {
    let catalog = with_zone(home).await;
    let end = 1 + WRITERS * COMMITS_PER_WRITER;
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write_many(catalog.clone(), writer))).collect();
    let pollers: Vec<_> = (0..2).map(|_| tokio::spawn(poll_until(catalog.clone(), end))).collect();
    let follower = tokio::spawn(follow_until(catalog.clone(), end));
    for task in writers.into_iter().chain(pollers).chain([follower]) {
        task.await.expect("no gap");
    }
    assert_eq!(head(&catalog).await, end);
}

async fn write_many(catalog: Catalog, writer: u64) {
    for n in 0..COMMITS_PER_WRITER {
        // Some transactions fail after they took a number: that number must be given again.
        let taken = catalog.put_zone(ZoneDoc { catch_all: true, ..ZoneDoc::new(parse(&format!("w{writer}"))) }, NOW_MS);
        if n == 0 && writer < 2 {
            let _ = taken.await;
            continue;
        }
        put(&catalog, &format!("{writer}/{n}"), "x").await;
    }
    // Of the two zones that want all hosts only one got its event; the other writer makes up for it.
    if writer == 0 {
        let zones = catalog.zones().await.expect("zones").len() as u64;
        for n in zones..3 {
            put(&catalog, &format!("extra/{n}"), "x").await;
        }
    }
}

async fn poll_until(catalog: Catalog, end: u64) {
    let mut seen = 0;
    while seen < end {
        for event in catalog.events_after(seen, 7).await.expect("events") {
            assert_eq!(event.seq, seen + 1, "a number was skipped");
            seen = event.seq;
        }
        tokio::task::yield_now().await;
    }
}

/// The wake-up never comes before the events that it promises.
async fn follow_until(catalog: Catalog, end: u64) {
    let mut wake = catalog.watch_head();
    let mut seen = 0;
    while seen < end {
        let promised = *wake.borrow_and_update();
        while seen < promised {
            let events = catalog.events_after(seen, 100).await.expect("events");
            assert!(!events.is_empty(), "{promised} was announced, {seen} is the newest that can be read");
            seen += events.len() as u64;
        }
        if seen < end {
            wake.changed().await.expect("wake");
        }
    }
}

pub(super) async fn old_events_go_and_readers_that_need_them_are_told(home: &impl Home) {
    let catalog = home.open_with(Settings { events_kept: 10, ..Settings::default() }).await;
    for n in 1..=10 {
        assert_eq!(purge(&catalog).await, n);
    }
    assert_eq!(catalog.head().await.expect("head").oldest, 1);
    assert_eq!(catalog.events_after(0, 100).await.expect("all").len(), 10);
    purge(&catalog).await;
    purge(&catalog).await;
    let hello = catalog.head().await.expect("head");
    assert_eq!((hello.oldest, hello.head), (3, 12));
    assert_eq!(catalog.events_after(2, 100).await.expect("all that are kept").len(), 10);
    for gone in [0, 1] {
        let error = catalog.events_after(gone, 100).await.expect_err("gone");
        assert!(matches!(error, CatalogError::EventsGone { oldest: 3, .. }), "{error}");
    }
    assert_eq!(catalog.events_after(12, 100).await.expect("nothing new").len(), 0);
    let error = catalog.events_after(13, 100).await.expect_err("never given");
    assert!(matches!(error, CatalogError::EventsGone { after: 13, .. }), "{error}");
    assert!(catalog.events_after(u64::MAX, 100).await.is_err());

    // A log that is far too long shrinks step by step.
    catalog.close().await;
    let catalog = home.open_with(Settings { events_kept: 1, ..Settings::default() }).await;
    for _ in 0..3 {
        purge(&catalog).await;
    }
    let hello = catalog.head().await.expect("head");
    assert_eq!((hello.oldest, hello.head), (15, 15));
}

async fn purge(catalog: &Catalog) -> u64 {
    let targets = PurgeTargets { zones: vec![parse("files")], ..PurgeTargets::default() };
    catalog.append_purge(targets, NOW_MS).await.expect("purge")
}

pub(super) async fn batches_are_bounded_in_bytes(home: &impl Home) {
    let catalog = with_zone(home).await;
    let path = "x".repeat(1_000);
    let urls = vec![api::ZonePath { zone: parse("files"), path: parse(&path) }; 300];
    for _ in 0..8 {
        let targets = PurgeTargets { urls: urls.clone(), ..PurgeTargets::default() };
        catalog.append_purge(targets, NOW_MS).await.expect("purge");
    }
    let (mut seen, mut batches) = (1, 0);
    while seen < 9 {
        seen += catalog.events_after(seen, 500).await.expect("batch").len() as u64;
        batches += 1;
    }
    assert_eq!((seen, batches), (9, 2), "about 300 KB each, and a batch ends with the one that reaches 1 MiB");
}

pub(super) async fn a_change_is_announced_though_nobody_waits_for_it(home: &impl Home) {
    let catalog = with_zone(home).await;
    let mut wake = catalog.watch_head();
    let mut upload = Box::pin(catalog.commit_upload(upload(at("a"), "x"), NOW_MS));
    // The caller starts it and goes away at once, as a client does that hangs up.
    let started = std::future::poll_fn(|context| std::task::Poll::Ready(upload.as_mut().poll(context)));
    assert!(started.await.is_pending());
    drop(upload);
    let announced = tokio::time::timeout(std::time::Duration::from_secs(20), wake.wait_for(|head| *head == 2)).await;
    assert!(announced.is_ok_and(|head| head.is_ok()));
    assert_eq!(catalog.file(&parse("files"), &parse("a")).await.expect("committed").version, 1);
}

pub(super) async fn opening_again_finds_everything(home: &impl Home) {
    let catalog = with_zone(home).await;
    let file = put(&catalog, "a", "1").await;
    let node = api::NodeDoc {
        name: parse("lisbon"),
        place: api::Place::new(38.72, -9.14).expect("place"),
        url: "http://127.0.0.1:1".to_owned(),
        https_url: Some("https://lisbon.example".to_owned()),
    };
    catalog.join(node.clone(), true, NOW_MS).await.expect("join");
    let hello = catalog.head().await.expect("head");
    let events = catalog.events_after(0, 100).await.expect("events");
    catalog.close().await;

    let again = home.open().await;
    assert_eq!(*again.watch_head().borrow(), hello.head);
    assert_eq!(again.head().await.expect("head"), hello);
    assert_eq!(again.events_after(0, 100).await.expect("events"), events);
    assert_eq!(again.file_by_id(file.id).await.expect("file"), file);
    assert_eq!(again.nodes().await.expect("nodes"), [node]);
    assert_eq!(again.zones().await.expect("zones").len(), 1);
    let next = put(&again, "b", "2").await;
    assert_eq!(next.event, hello.head + 1);
    assert!(matches!(&events[0].change, Change::Config { generation: 1 }));
}

//! Memory over disk: what comes back after a restart, and what does not.

use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode};
use testbed::front::{Front, FrontSettings};
use testbed::media::{Media, content};
use testbed::{Cluster, Settings, eventually};

const S: u64 = 1 << 20;

async fn front(media: &Media, folder: &Path) -> Front {
    Front::start(FrontSettings::with_disk(&media.url, folder)).await
}

/// Asks until the second-hit filter has let so many entries through, and they are written.
async fn written(front: &Front, entries: f64) {
    eventually("it is written to disk", || async { front.metric("littoral_edge_disk_admissions_total") >= entries })
        .await;
}

async fn hit(front: &Front, target: &str, version: u64, length: u64) {
    let answer = front.get(target).await;
    assert_eq!(answer.x_cache(), "HIT", "{target}: {}", answer.header("cache-status"));
    assert!(*answer.bytes() == content(target, version, 0..length), "{target}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_and_a_kill_leave_a_warm_cache() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let sizes = [0, 1, 900, S - 1, S, S + 1, 5 * S + 7];
    let targets: Vec<(String, u64)> = ["ranged", "whole", "chunked"]
        .iter()
        .flat_map(|kind| sizes.iter().map(move |size| (format!("/{kind}/a/{size}"), *size)))
        .collect();
    let edge = front(&media, folder.path()).await;
    for (target, size) in &targets {
        for _ in 0..2 {
            let answer = edge.get(target).await;
            assert!(*answer.bytes() == content(target, 1, 0..*size), "{target}");
        }
    }
    written(&edge, targets.len() as f64).await;
    let asked = media.requests().len();
    edge.kill().await;
    let edge = front(&media, folder.path()).await;
    for (target, size) in &targets {
        hit(&edge, target, 1, *size).await;
    }
    edge.stop().await;
    let edge = front(&media, folder.path()).await;
    for (target, size) in &targets {
        hit(&edge, target, 1, *size).await;
        hit(&edge, target, 1, *size).await;
    }
    let range = edge.range("/ranged/a/5242887", 4 * S + 5, 5 * S + 6).await;
    assert_eq!((range.status, range.x_cache()), (StatusCode::PARTIAL_CONTENT, "HIT"));
    assert!(*range.bytes() == content("/ranged/a/5242887", 1, 4 * S + 5..5 * S + 7));
    assert_eq!(media.requests().len(), asked, "nothing was asked for again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_stays_purged() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let edge = front(&media, folder.path()).await;
    let targets = [format!("/ranged/a/{}", 3 * S), "/whole/b/500".to_owned(), "/whole/c/500".to_owned()];
    for target in targets.iter().chain(&targets) {
        edge.get(target).await.bytes();
    }
    written(&edge, 3.0).await;
    let purge: Method = "PURGE".parse().expect("method");
    for target in &targets[..2] {
        assert_eq!(edge.ask(purge.clone(), target, &[]).await.status, StatusCode::OK);
    }
    media.change();
    edge.kill().await;
    let edge = front(&media, folder.path()).await;
    for target in &targets[..2] {
        let answer = edge.get(target).await;
        assert_eq!(answer.x_cache(), "MISS", "{target}");
        let length = answer.bytes().len() as u64;
        assert!(*answer.bytes() == content(target, 2, 0..length), "{target}");
    }
    hit(&edge, &targets[2], 1, 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_marks_everything_is_asked_about_and_nothing_thrown_away() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let edge = front(&media, folder.path()).await;
    let target = format!("/ranged/a/{}", 3 * S);
    edge.get(&target).await.bytes();
    edge.get(&target).await.bytes();
    written(&edge, 1.0).await;
    edge.stop().await;
    for name in ["marks.snapshot", "marks.log"] {
        let _ = std::fs::remove_file(folder.path().join("state").join(name));
    }
    let sent = media.sent();
    let edge = front(&media, folder.path()).await;
    let answer = edge.get(&target).await;
    assert_eq!(answer.x_cache(), "REVALIDATED", "{}", answer.header("cache-status"));
    assert!(*answer.bytes() == content(&target, 1, 0..3 * S));
    assert_eq!(media.sent(), sent, "a 304 has no body");
    hit(&edge, &target, 1, 3 * S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_origin_confirms_keeps_its_place_on_disk() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    media.cache_control("max-age=10");
    let edge = front(&media, folder.path()).await;
    edge.get("/whole/a/500").await.bytes();
    edge.get("/whole/a/500").await.bytes();
    written(&edge, 1.0).await;
    edge.advance(Duration::from_secs(20));
    media.advance(20);
    assert_eq!(edge.get("/whole/a/500").await.x_cache(), "REVALIDATED");
    edge.stop().await;
    let edge = front(&media, folder.path()).await;
    edge.advance(Duration::from_secs(25));
    hit(&edge, "/whole/a/500", 1, 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_come_back_from_disk_and_updates_are_not_forgotten() {
    let mut cluster = Cluster::with(Settings { edges: vec!["a@0,0"], ..Settings::default() }).await;
    let large: Vec<u8> = (0..3 * S + 5).map(|at| (at % 251) as u8).collect();
    cluster.put("large.bin", large.clone()).await;
    cluster.put("small.txt", "as it was").await;
    cluster.put("empty", "").await;
    let paths = ["large.bin", "small.txt", "empty"];
    let url = |cluster: &Cluster, path: &str| format!("{}/{path}", cluster.edge_url("a"));
    let host = [("host", "files.localhost")];
    for path in paths.iter().chain(&paths) {
        let answer = cluster.ask(Method::GET, &url(&cluster, path), &host).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    }
    let admitted = |cluster: &Cluster| cluster.edge_view("a").disk_admissions();
    eventually("they are written", || async { admitted(&cluster) >= 3 }).await;
    cluster = cluster.restart().await;
    // With the origin away there is only what the edge has.
    cluster.stop("origin").await;
    for (path, expected) in [("large.bin", large.as_slice()), ("small.txt", b"as it was"), ("empty", b"")] {
        let answer = cluster.ask(Method::GET, &url(&cluster, path), &host).await;
        assert_eq!(answer.x_cache(), "HIT", "{path}: {}", answer.header("cache-status"));
        assert!(*answer.bytes() == expected, "{path}");
    }
    cluster = cluster.restart().await;
    cluster.put("small.txt", "as it is").await;
    cluster = cluster.restart().await;
    let answer = cluster.ask(Method::GET, &url(&cluster, "small.txt"), &host).await;
    assert_eq!((answer.x_cache(), answer.text().as_str()), ("MISS", "as it is"));
    let answer = cluster.ask(Method::GET, &url(&cluster, "large.bin"), &host).await;
    assert_eq!(answer.x_cache(), "HIT");
    assert!(*answer.bytes() == large);
}

/// All files of entries below a folder.
fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(entries(&entry.path())),
            Ok(_) if entry.metadata().is_ok_and(|meta| meta.len() > 256) => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rots_on_disk_is_fetched_again_for_the_same_request() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let targets: Vec<(String, u64)> =
        [("ranged", 3 * S + 9), ("whole", 3 * S + 9), ("bare", 700), ("bare", 3 * S), ("whole", 5_000)]
            .map(|(kind, size)| (format!("/{kind}/a/{size}"), size))
            .to_vec();
    let edge = front(&media, folder.path()).await;
    for (target, _) in targets.iter().chain(&targets) {
        edge.get(target).await.bytes();
    }
    written(&edge, targets.len() as f64).await;
    edge.stop().await;
    // Damage of each kind, in every file: at its end, in its middle, in its head, and half of it gone.
    for round in 0..4 {
        let edge = front(&media, folder.path()).await;
        for (target, size) in targets.iter().chain(&targets) {
            let answer = edge.get(target).await;
            assert_eq!(answer.status, StatusCode::OK, "{round} {target}");
            assert!(*answer.bytes() == content(target, 1, 0..*size), "{round} {target}");
        }
        edge.stop().await;
        let files = entries(&folder.path().join("cache"));
        assert!(round == 3 || files.len() >= 2, "{round}: {files:?}");
        for path in files {
            let mut bytes = std::fs::read(&path).expect("read");
            let length = bytes.len();
            match round {
                0 => bytes[length - 1] ^= 1,
                1 => bytes[length / 2] ^= 0x80,
                2 => bytes[40] ^= 4,
                _ => bytes.truncate(length / 2),
            }
            std::fs::write(&path, bytes).expect("written");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_stops_nothing() {
    use edge::shelf::disk::{Failure, Operation, Rule};
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let settings = FrontSettings::with_disk(&media.url, folder.path());
    let faults = std::sync::Arc::clone(&settings.cache.faults);
    let edge = Front::start(settings).await;
    let sizes = [700, 2 * S + 5];
    let mut number = 0;
    let operations = [
        Operation::Open,
        Operation::Create,
        Operation::Read,
        Operation::Write,
        Operation::Rename,
        Operation::Reserve,
        Operation::Remove,
        Operation::List,
    ];
    for operation in operations {
        for failure in [Failure::Full, Failure::ReadOnly, Failure::Io, Failure::TooManyFiles, Failure::Missing] {
            faults.add(Rule { operation: Some(operation), folder: None, failure, after: 0, times: u32::MAX });
            for kind in ["ranged", "whole"] {
                for size in sizes {
                    number += 1;
                    let target = format!("/{kind}/{number}/{size}");
                    for _ in 0..3 {
                        let answer = edge.get(&target).await;
                        assert_eq!(answer.status, StatusCode::OK, "{operation:?} {failure:?} {target}");
                        assert!(*answer.bytes() == content(&target, 1, 0..size), "{operation:?} {failure:?} {target}");
                    }
                }
            }
            faults.clear();
        }
    }
    // Once the cause is gone, it is used again without a restart.
    let before = edge.metric("littoral_edge_disk_admissions_total");
    eventually("entries are written again", || {
        number += 1;
        let (edge, target) = (&edge, format!("/whole/{number}/700"));
        async move {
            edge.get(&target).await.bytes();
            edge.get(&target).await.bytes();
            edge.metric("littoral_edge_disk_admissions_total") > before + 5.0
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_purge_of_much_has_named_leaves_the_disk_unasked() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let edge = front(&media, folder.path()).await;
    let targets = |kind: &str| (0..150).map(|n| format!("/whole/{kind}{n}/700")).collect::<Vec<_>>();
    let (purged, kept) = (targets("old"), targets("new"));
    for target in purged.iter().chain(&kept).chain(&purged).chain(&kept) {
        edge.get(target).await.bytes();
    }
    written(&edge, 300.0).await;
    let purge: Method = "PURGE".parse().expect("method");
    // A soft one leaves what is stale; one URL is not worth a sweep.
    edge.ask(purge.clone(), "/whole/new", &[("littoral-purge", "prefix"), ("fastly-soft-purge", "1")]).await.bytes();
    edge.ask(purge.clone(), &kept[0], &[]).await.bytes();
    edge.ask(purge, "/whole/old", &[("littoral-purge", "prefix")]).await.bytes();
    let sweeps = edge.metric("littoral_edge_disk_sweeps_total");
    eventually("it is swept", || async { edge.metric("littoral_edge_disk_sweeps_total") > sweeps }).await;
    assert_eq!(edge.metric("littoral_edge_disk_swept_total"), 151.0);
    assert_eq!(edge.metric("littoral_edge_disk_entries"), 149.0);
    let before = media.requests().len();
    let stale = edge.get(&kept[1]).await;
    assert_eq!(stale.x_cache(), "REVALIDATED");
    assert_eq!((edge.get(&purged[0]).await.x_cache(), media.requests().len()), ("MISS", before + 2));
    // What is asked for again comes to disk again.
    edge.get(&purged[0]).await.bytes();
    written(&edge, 301.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_a_restart_cuts_off_is_begun_anew() {
    use edge::shelf::disk::{Failure, Operation, Rule};
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let settings = FrontSettings::with_disk(&media.url, folder.path());
    let faults = std::sync::Arc::clone(&settings.cache.faults);
    let edge = Front::start(settings).await;
    let targets: Vec<String> = (0..5).map(|n| format!("/whole/{n}/700")).collect();
    for target in targets.iter().chain(&targets) {
        edge.get(target).await.bytes();
    }
    written(&edge, 5.0).await;
    let note = folder.path().join("state/sweep.due");
    // An edge that is new may sweep once: its policy is another one than none.
    eventually("no sweep is due", || async { !note.exists() }).await;
    // While it is under way a file says so.
    let operation = Some(Operation::Open);
    faults.add(Rule { operation, folder: None, failure: Failure::Hang, after: 0, times: u32::MAX });
    let purge: Method = "PURGE".parse().expect("method");
    edge.ask(purge.clone(), "/other", &[("littoral-purge", "prefix")]).await.bytes();
    eventually("a sweep is due", || async { note.exists() }).await;
    faults.clear();
    eventually("it is swept", || async { !note.exists() }).await;
    // As if the process had died in the middle of one.
    edge.ask(purge, &targets[0], &[]).await.bytes();
    edge.stop().await;
    std::fs::write(&note, "").expect("written");
    let edge = front(&media, folder.path()).await;
    eventually("it is swept again", || async { edge.metric("littoral_edge_disk_swept_total") == 1.0 }).await;
    eventually("and to its end", || async { !note.exists() }).await;
    hit(&edge, &targets[1], 1, 700).await;
    edge.stop().await;
    // A policy that is another one since the restart names all that was stored under the one before.
    let change = |pull: &mut api::pull::PullDoc| pull.key.query = api::pull::QueryKey::None;
    let edge = Front::start(FrontSettings { change, ..FrontSettings::with_disk(&media.url, folder.path()) }).await;
    eventually("all of it leaves", || async { edge.metric("littoral_edge_disk_entries") == 0.0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_costs_a_few_requests_and_then_nobody_until_it_answers() {
    use edge::shelf::disk::{Failure, Operation, Rule};
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let edge = front(&media, folder.path()).await;
    let targets: Vec<String> = (0..30).map(|n| format!("/whole/a{n}/700")).collect();
    for target in targets.iter().chain(&targets) {
        edge.get(target).await.bytes();
    }
    written(&edge, 30.0).await;
    edge.stop().await;
    let settings = FrontSettings::with_disk(&media.url, folder.path());
    let faults = std::sync::Arc::clone(&settings.cache.faults);
    let edge = Front::start(settings).await;
    hit(&edge, &targets[0], 1, 700).await;
    eventually("it is scanned", || async { edge.metric("littoral_edge_disk_scanned_ratio") == 1.0 }).await;
    let (operation, failure) = (Some(Operation::Open), Failure::Hang);
    faults.add(Rule { operation, folder: None, failure, after: 0, times: u32::MAX });
    let first = targets[1..5].iter().map(|target| edge.get(target));
    for answer in futures_util::future::join_all(first).await {
        assert_eq!(answer.bytes().len(), 700);
    }
    let waited = edge.metric("littoral_edge_disk_timeouts_total");
    assert!((3.0..=4.0).contains(&waited), "{waited}");
    assert_eq!(edge.metric("littoral_edge_disk_folder_state"), 0.0, "neither for reading nor for writing");
    for target in &targets[5..25] {
        assert_eq!(edge.get(target).await.x_cache(), "MISS");
    }
    assert_eq!(edge.metric("littoral_edge_disk_timeouts_total"), waited, "nobody else has waited for it");
    faults.clear();
    eventually("it is in use again", || async { edge.metric("littoral_edge_disk_folder_state") == 2.0 }).await;
    let asked = media.requests().len();
    hit(&edge, &targets[25], 1, 700).await;
    assert_eq!(media.requests().len(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_stays_when_its_head_grows() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    media.cache_control("max-age=10");
    let edge = front(&media, folder.path()).await;
    let target = format!("/whole/film/{}", 3 * S);
    eventually("all is stored", || async { edge.get(&target).await.x_cache() == "HIT" }).await;
    let asked = media.requests().len();
    let old = Duration::from_secs(20);
    edge.advance(old);
    media.advance(20);
    media.cache_control(&format!("max-age=86400, x=\"{}\"", "y".repeat(6_000)));
    assert_eq!(edge.get(&target).await.x_cache(), "REVALIDATED");
    hit(&edge, &target, 1, 3 * S).await;
    edge.stop().await;
    let edge = front(&media, folder.path()).await;
    edge.advance(old);
    hit(&edge, &target, 1, 3 * S).await;
    assert_eq!(media.requests().len(), asked + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_explain_is_no_use_of_what_is_explained() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let edge = front(&media, folder.path()).await;
    for _ in 0..2 {
        edge.get("/whole/a/700").await.bytes();
    }
    written(&edge, 1.0).await;
    edge.stop().await;
    let edge = front(&media, folder.path()).await;
    let body = serde_json::json!({ "url": "http://site.example/whole/a/700" }).to_string();
    let request = http::Request::post(format!("{}/-/explain", edge.url)).header("host", "site.example");
    let request = request.header("content-type", "application/json").body(net::Body::full(body)).expect("a request");
    let answer = net::HttpClient::new(net::ClientLimits::default()).send(request).await.expect("an answer");
    let told = net::read_to_end(answer.into_body(), 1 << 20).await.expect("a body");
    let told: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
    // Decided with what lies on disk, though memory has nothing of it: the same goes for serving what memory refuses.
    assert_eq!(told["outcome"], "hit", "{told}");
    assert_eq!(edge.metric("littoral_edge_entries"), 0.0, "memory is as it was");
    let (_, listed) = edge.tool("/front/list", Some(serde_json::json!({ "limit": 10 }))).await;
    assert_eq!(listed["entries"].as_array().map(Vec::len), Some(1), "{listed}");
}

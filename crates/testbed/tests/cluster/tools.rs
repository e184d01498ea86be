//! What tools see of a running edge's cache, and do to it.

use std::path::Path;
use std::time::Duration;

use api::cache::CACHE_PATH;
use api::{Eviction, Objective, ZoneDoc};
use http::{Method, Request, StatusCode};
use net::{Body, ClientLimits, HttpClient};
use serde_json::{Value, json};
use testbed::front::{Front, FrontSettings};
use testbed::media::{Media, content};
use testbed::{Cluster, Settings, eventually};

const S: u64 = 1 << 20;

/// An edge with these responses in memory and on disk.
async fn warm(media: &Media, folder: &Path, targets: &[&str]) -> Front {
    let edge = Front::start(FrontSettings::with_disk(&media.url, folder)).await;
    for target in targets.iter().chain(targets) {
        edge.get(target).await.bytes();
    }
    let wanted = targets.len() as f64;
    eventually("it is on disk", || async { edge.metric("littoral_edge_disk_admissions_total") >= wanted }).await;
    // The slices of what is large follow.
    eventually("all of it", || async {
        let (_, page) = edge.tool("/front/list", Some(json!({"filter": {"tier": "disk"}}))).await;
        page["entries"].as_array().is_some_and(|entries| entries.iter().all(|entry| entry["complete"] == true))
    })
    .await;
    edge
}

/// Does a step after the other; the answers.
async fn steps(edge: &Front, action: &str, mut what: Value) -> Vec<Value> {
    let mut answers = Vec::new();
    loop {
        let (status, answer) = edge.tool(&format!("/front/{action}"), Some(what.clone())).await;
        assert_eq!(status, StatusCode::OK, "{action} {what}: {answer}");
        what["cursor"] = answer["next"].clone();
        answers.push(answer);
        if what["cursor"].is_null() {
            return answers;
        }
        assert!(answers.len() < 1_000, "{action} does not end");
    }
}

/// The URLs, each with its tier, of a listing.
async fn listed(edge: &Front, filter: Value, limit: u32) -> Vec<String> {
    let mut urls = Vec::new();
    for page in steps(edge, "list", json!({"filter": filter, "limit": limit})).await {
        let entries = page["entries"].as_array().expect("entries").clone();
        assert!(entries.len() <= limit as usize);
        let one = |entry: &Value| {
            format!("{} {}", entry["tier"].as_str().expect("tier"), entry["url"].as_str().expect("url"))
        };
        urls.extend(entries.iter().map(one));
    }
    urls.sort();
    urls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_is_listed_and_shown() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let large = format!("/ranged/large/{}", 3 * S + 5);
    let edge = warm(&media, folder.path(), &["/whole/a/500", "/whole/b/700", &large]).await;
    assert_eq!(edge.tool("", None).await.1, json!({"edges": ["front"]}));
    let everything = [
        "disk site.example/ranged/large/3145733",
        "disk site.example/whole/a/500",
        "disk site.example/whole/b/700",
        "memory site.example/ranged/large/3145733",
        "memory site.example/whole/a/500",
        "memory site.example/whole/b/700",
    ];
    for limit in [1, 2, 5, 1_000] {
        assert_eq!(listed(&edge, json!({}), limit).await, everything, "{limit} on a page");
    }
    assert_eq!(listed(&edge, json!({"tier": "disk"}), 1_000).await, everything[..3]);
    assert_eq!(
        listed(&edge, json!({"prefix": "http://site.example/whole/", "tier": "memory"}), 9).await,
        everything[4..]
    );
    assert_eq!(listed(&edge, json!({"prefix": "/ranged/"}), 9).await, [everything[0], everything[3]]);
    for nothing in
        [json!({"zone": "other"}), json!({"tag": "red"}), json!({"older_s": 60}), json!({"key": "0".repeat(32)})]
    {
        assert_eq!(listed(&edge, nothing.clone(), 9).await, [""; 0], "{nothing}");
    }
    edge.advance(Duration::from_secs(100));
    assert_eq!(listed(&edge, json!({"older_s": 60}), 9).await, everything);
    assert_eq!(listed(&edge, json!({"younger_s": 60}), 9).await, [""; 0]);

    let url = format!("http://site.example{large}");
    let (status, shown) = edge.tool("/front/show", Some(json!({"what": url}))).await;
    assert_eq!((status, shown["entries"].as_array().map(Vec::len)), (StatusCode::OK, Some(2)), "{shown}");
    let entry = &shown["entries"][1];
    assert_eq!(
        (&entry["tier"], &entry["length"], &entry["complete"]),
        (&json!("disk"), &json!(3 * S + 5), &json!(true))
    );
    assert_eq!((&entry["details"]["slices"], &entry["details"]["present"]), (&json!(4), &json!([[0, 3]])));
    assert_eq!(edge.tool("/front/show", Some(json!({"what": entry["key"]}))).await.1, shown, "by its key");

    let purge: Method = "PURGE".parse().expect("method");
    assert_eq!(edge.ask(purge, "/whole/a/500", &[]).await.status, StatusCode::OK);
    let (_, shown) = edge.tool("/front/show", Some(json!({"what": "http://site.example/whole/a/500"}))).await;
    assert!(
        shown["entries"].as_array().is_some_and(|all| all.iter().all(|entry| entry["state"] == "purged")),
        "{shown}"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_memory_gives_up_while_it_grows_leaves_no_entry_for_nothing() {
    let media = Media::start().await;
    let mut settings = FrontSettings { memory_bytes: 16 << 20, ..FrontSettings::of(&media.url) };
    settings.cache.policy = "lru".parse().expect("a policy");
    let edge = Front::start(settings).await;
    media.allow(900_000);
    let entries = || edge.metric("littoral_edge_entries");
    let giving_up = async {
        eventually("it is on its way", || async { entries() == 1.0 }).await;
        // Memory has room for no more than 19 of them.
        for number in 0..25 {
            edge.get(&format!("/whole/{number}/850000")).await.bytes();
        }
        media.allow(u64::MAX);
    };
    let (answer, ()) = tokio::join!(edge.get("/whole/a/1000000"), giving_up);
    assert!(*answer.bytes() == content("/whole/a/1000000", 1, 0..1_000_000));
    eventually("another one is stored", || async { edge.get("/whole/b/500").await.x_cache() == "HIT" }).await;
    let urls = listed(&edge, json!({}), 99).await;
    assert!(!urls.is_empty() && entries() == urls.len() as f64, "{} for {urls:?}", entries());
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_evicted_is_gone_from_where_it_was_meant_and_fetched_again() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let large = format!("/ranged/large/{}", 2 * S);
    let edge = warm(&media, folder.path(), &["/whole/a/500", "/whole/b/700", &large]).await;
    let evicted = async |what: Value| {
        let answers = steps(&edge, "evict", what).await;
        answers.iter().map(|answer| answer["entries"].as_u64().expect("entries")).sum::<u64>()
    };
    assert_eq!(evicted(json!({"all": true, "count": true})).await, 6);
    assert_eq!(listed(&edge, json!({}), 9).await.len(), 6, "counting takes nothing away");

    assert_eq!(evicted(json!({"filter": {"tier": "memory"}, "all": true})).await, 3);
    assert_eq!(listed(&edge, json!({"tier": "memory"}), 9).await, [""; 0]);
    assert_eq!(listed(&edge, json!({"tier": "disk"}), 9).await.len(), 3);
    let asked = media.requests().len();
    assert_eq!(edge.get("/whole/a/500").await.x_cache(), "HIT", "it is still on disk");
    assert_eq!(edge.get(&large).await.bytes().len() as u64, 2 * S);
    assert_eq!(media.requests().len(), asked);

    assert_eq!(evicted(json!({"filter": {"tier": "disk", "prefix": "/whole/"}})).await, 2);
    assert_eq!(edge.get("/whole/a/500").await.x_cache(), "HIT", "it is still in memory");
    assert_eq!(edge.get("/whole/b/700").await.x_cache(), "MISS");
    assert!(evicted(json!({"filter": {"prefix": "http://site.example/ranged/"}})).await >= 1);
    eventually("it is gone from disk, too", || async {
        listed(&edge, json!({"prefix": "/ranged/"}), 9).await.is_empty()
    })
    .await;
    assert_eq!(edge.get(&large).await.x_cache(), "MISS");
    assert_eq!(edge.get("/whole/a/500").await.x_cache(), "HIT");
    evicted(json!({"all": true})).await;
    assert_eq!(edge.get("/whole/a/500").await.x_cache(), "MISS");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_finds_what_is_damaged() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let edge = warm(&media, folder.path(), &["/whole/a/5000", "/whole/b/7000"]).await;
    let verified = async || {
        let answers = steps(&edge, "verify", json!({})).await;
        let sum = |name: &str| answers.iter().map(|answer| answer[name].as_u64().expect("number")).sum::<u64>();
        let findings: Vec<Value> =
            answers.iter().flat_map(|a| a["findings"].as_array().expect("findings").clone()).collect();
        (sum("entries"), findings)
    };
    assert_eq!(verified().await, (2, vec![]));
    let mut files: Vec<_> =
        walk(&folder.path().join("cache")).into_iter().filter(|(_, length)| *length >= 5_000).collect();
    files.sort_by_key(|(_, length)| *length);
    let (damaged, length) = &files[0];
    let mut bytes = std::fs::read(damaged).expect("file");
    let at = usize::try_from(*length).expect("small") / 2;
    bytes[at..at + 512].iter_mut().for_each(|byte| *byte ^= 0xff);
    std::fs::write(damaged, bytes).expect("file");
    let (_, findings) = verified().await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(edge.metric("littoral_edge_disk_corrupt_total"), 1.0);
    assert_eq!(verified().await.1, [] as [Value; 0], "it was dropped");
    edge.stop().await;
}

/// All files below a folder, with their lengths.
fn walk(folder: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path());
    let below = |path: std::path::PathBuf| {
        if path.is_dir() { walk(&path) } else { vec![(path.clone(), path.metadata().map_or(0, |data| data.len()))] }
    };
    entries.flat_map(below).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tiers_are_told_in_numbers() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let edge = warm(&media, folder.path(), &["/whole/a/500", "/whole/b/700"]).await;
    for _ in 0..6 {
        edge.get("/whole/a/500").await.bytes();
    }
    let (status, stats) = edge.tool("/front/stats", None).await;
    assert_eq!(status, StatusCode::OK);
    let memory = &stats["memory"];
    assert_eq!(
        (&memory["entries"], &memory["eviction"], &memory["limit_bytes"]),
        (&json!(2), &json!("auto"), &json!(64 << 20))
    );
    let disk = &stats["disk"]["folders"][0];
    assert_eq!((&disk["state"], &disk["entries"], &disk["write_errors"]), (&json!("ok"), &json!(2), &json!(0)));
    let curve = memory["curve"].as_array().expect("curve");
    let factors: Vec<f64> = curve.iter().filter_map(|point| point["factor"].as_f64()).collect();
    assert_eq!(factors, [0.5, 1.0, 2.0, 4.0]);
    // Two of the ten requests were the first for their URL.
    assert_eq!(curve[1]["requests"], json!(0.8), "{curve:?}");
    for (name, expected) in [
        ("littoral_edge_memory_limit_bytes", (64 << 20) as f64),
        ("littoral_edge_memory_evictions_total", 0.0),
        ("littoral_edge_disk_entries", 2.0),
        ("littoral_edge_disk_folder_state", 2.0),
        ("littoral_edge_disk_write_errors_total", 0.0),
        ("littoral_edge_disk_corrupt_total", 0.0),
        ("littoral_edge_disk_scanned_ratio", 1.0),
    ] {
        assert_eq!(edge.metric(name), expected, "{name}");
    }
    assert!(edge.metric("littoral_edge_disk_bytes") >= 8192.0);
    assert!(edge.metric("littoral_edge_memory_hits_total") >= 8.0);
    assert!(edge.metric("littoral_edge_curve_hit_ratio") > 0.8);
    edge.stop().await;
    // After a restart memory has nothing: each of the two is read from disk once, and there is nothing of a third.
    let edge = Front::start(FrontSettings::with_disk(&media.url, folder.path())).await;
    for target in ["/whole/a/500", "/whole/b/700", "/whole/a/500", "/whole/c/700"] {
        edge.get(target).await.bytes();
    }
    let (_, stats) = edge.tool("/front/stats", None).await;
    let curve = stats["disk"]["curve"].as_array().expect("curve");
    assert!((curve[1]["requests"].as_f64().expect("a ratio") - 2.0 / 3.0).abs() < 1e-9, "{curve:?}");
    assert!(edge.metric("littoral_edge_disk_curve_hit_ratio") > 0.6);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_seen_too_and_zones_have_policies_of_their_own() {
    let cluster = Cluster::with(Settings { edges: vec!["a@0,0"], ..Settings::default() }).await;
    let client = cluster.client();
    let files = client.zone(&cluster.zone()).await.expect("zone");
    let changed = ZoneDoc { eviction: Some(Eviction::Gdsf), objective: Some(Objective::Bytes), ..files.clone() };
    client.put_zone(&changed).await.expect("zone");
    let (tools, http) = (format!("{}{CACHE_PATH}/a", cluster.local.admin), HttpClient::new(ClientLimits::default()));
    let ask = async |action: &str, what: Value| {
        let request = Request::post(format!("{tools}/{action}")).header("content-type", "application/json");
        let response = http.send(request.body(Body::full(what.to_string())).expect("request")).await.expect("answer");
        let status = response.status();
        let body = net::read_to_end(response.into_body(), 1 << 20).await.expect("body");
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(status, StatusCode::OK, "{action} {what}: {answer}");
        answer
    };
    let stats = async || -> Value {
        serde_json::from_slice(cluster.get(&format!("{tools}/stats")).await.bytes()).expect("JSON")
    };
    let class = json!([{"eviction": "gdsf", "objective": "bytes", "zones": [cluster.zone()]}]);
    eventually("the edge knows the policy", || async { stats().await["memory"]["classes"] == class }).await;

    cluster.put("img/a.png", vec![7; 3 << 20]).await;
    let url = format!("{}/img/a.png", cluster.edge_url("a"));
    for _ in 0..2 {
        assert_eq!(cluster.get(&url).await.bytes().len(), 3 << 20);
    }
    eventually("it is on disk", || async { cluster.edge_view("a").disk_admissions() >= 1 }).await;
    let filter = json!({"filter": {"zone": cluster.zone(), "prefix": "/img/"}});
    let tiers = async || {
        let page = ask("list", filter.clone()).await;
        page["entries"].as_array().expect("entries").iter().map(|entry| entry["tier"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(tiers().await, ["memory", "disk"]);
    let shown = ask("show", json!({"what": url})).await;
    assert_eq!(shown["entries"].as_array().map(Vec::len), Some(2), "{shown}");
    assert_eq!(shown["entries"][0]["state"], "fresh", "{shown}");

    // Another policy: what is stored stays.
    client.put_zone(&files).await.expect("zone");
    eventually("the edge knows", || async { stats().await["memory"]["classes"] == json!([]) }).await;
    assert_eq!(cluster.get(&url).await.x_cache(), "HIT");
    ask("evict", filter.clone()).await;
    eventually("it has left both", || async { tiers().await.is_empty() }).await;
    assert_eq!(cluster.get(&url).await.x_cache(), "MISS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_meant_is_refused() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let edge = warm(&media, folder.path(), &[]).await;
    for (path, what, status, word) in [
        ("/front/evict", Some(json!({})), 400, "all"),
        ("/front/evict", Some(json!({"filter": {"tier": "disk"}})), 400, "all"),
        ("/front/list", Some(json!({"limit": 1001})), 400, "1 to 1000"),
        ("/front/list", Some(json!({"limit": 0})), 400, "1 to 1000"),
        ("/front/list", Some(json!({"cursor": "x"})), 400, "cursor"),
        ("/front/list", Some(json!({"filters": {}})), 400, "filters"),
        ("/front/list", Some(json!({"filter": {"key": "x"}})), 400, "32 hexadecimal"),
        ("/front/verify", Some(json!({"cursor": "m.0.0"})), 400, "cursor"),
        ("/front/show", Some(json!({"what": "/a"})), 400, "host"),
        ("/front/list", None, 405, "POST"),
        ("/front/nothing", None, 404, "stats, list"),
        ("/oslo/stats", None, 404, "oslo"),
        ("/front", None, 404, "EDGE"),
    ] {
        let (got, problem) = edge.tool(path, what.clone()).await;
        assert_eq!(got.as_u16(), status, "{path} {what:?}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{path} {what:?}: {problem}");
    }
    // Where the public asks there is none of this.
    assert_ne!(edge.get("/v1/cache").await.header("content-type"), "application/json");
    edge.stop().await;
}

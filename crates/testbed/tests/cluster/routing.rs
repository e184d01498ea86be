//! Which edge a reader is sent to: three tiers, places, dead edges, redirect and proxy.

use api::{Place, ZoneDoc};
use http::{Method, StatusCode};
use router::Mode;
use testbed::{Cluster, Settings, eventually};

const NEAR_SINGAPORE: Place = Place { lat: 1.3, lng: 103.8 };
const NEAR_LISBON: Place = Place { lat: 38.7, lng: -9.2 };
/// Where the origin stands.
const FRANKFURT: Place = Place { lat: 50.11, lng: 8.68 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_tiers_and_an_answer_that_explains_itself() {
    let cluster = Cluster::start().await;
    let doc = cluster.put("a", "x").await;
    let (client, zone, path) = (cluster.client(), cluster.zone(), doc.path.clone());
    let locate = async |place| client.locate(&zone, &path, Some(place)).await.expect("located");

    // Nobody has it: the nearest edge, which fetches it once.
    let nobody = locate(NEAR_SINGAPORE).await;
    assert_eq!(nobody.chosen, "singapore");
    assert_eq!(nobody.candidates.len(), 4);
    assert!(nobody.candidates.iter().all(|candidate| !candidate.has_file || candidate.name == "origin"));
    assert!(nobody.candidates.is_sorted_by(|a, b| a.distance_km <= b.distance_km));
    assert!(nobody.candidates.iter().all(|candidate| !candidate.reason.is_empty()));
    assert_eq!(nobody.candidates.iter().filter(|candidate| candidate.chosen).count(), 1);

    // Lisbon has it and is nearer to New York than the origin is, but farther than Virginia.
    assert_eq!(cluster.get(&format!("{}/a", cluster.edge_url("lisbon"))).await.status, StatusCode::OK);
    let new_york = Place { lat: 40.7, lng: -74.0 };
    eventually("Lisbon is known to hold the file", || async { locate(new_york).await.chosen == "lisbon" }).await;
    let held = locate(new_york).await;
    assert!(held.reason.contains("has the file"), "{}", held.reason);
    let virginia = held.candidates.iter().find(|candidate| candidate.name == "virginia").expect("a candidate");
    assert!(virginia.distance_km < 500.0 && !virginia.chosen && !virginia.has_file);
    assert_eq!(held.url, format!("{}/a", cluster.edge_url("lisbon")));

    // At the origin's door no edge is as near.
    let origin = locate(FRANKFURT).await;
    assert_eq!(
        (origin.chosen.as_str(), origin.url.as_str()),
        ("origin", format!("{}/-/content/files/a", cluster.local.api).as_str())
    );
    assert_eq!(cluster.get(&origin.url).await.text(), "x");

    // An update takes the file away from those who had it.
    cluster.put("a", "y").await;
    assert_eq!(locate(new_york).await.chosen, "virginia");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_redirects_by_place() {
    let cluster = Cluster::start().await;
    let zone =
        ZoneDoc { place_header: Some("X-Place".into()), ..cluster.client().zone(&cluster.zone()).await.expect("zone") };
    cluster.client().put_zone(&zone).await.expect("zone");
    cluster.put("dir/a b.txt", "x").await;
    let router = cluster.local.router.clone();
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        cluster.ask(Method::GET, &format!("{router}{path}"), headers).await
    };

    let answer = ask("/dir/a%20b.txt?lat=1.3&lng=103.8", &[]).await;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    let location = answer.header("location");
    assert_eq!(location, format!("{}/dir/a%20b.txt", cluster.edge_url("singapore")));
    assert!(answer.header("littoral-route").starts_with("singapore"), "{}", answer.header("littoral-route"));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(cluster.get(location).await.text(), "x");

    eventually("the router knows the zone's header", || async {
        ask("/dir/a%20b.txt", &[("x-place", "38.7,-9.2")])
            .await
            .header("location")
            .starts_with(&cluster.edge_url("lisbon"))
    })
    .await;
    let origin = ask("/dir/a%20b.txt", &[]).await;
    assert!(origin.header("location").starts_with(&cluster.local.api), "the default place is the origin's");
    for (path, status) in
        [("/dir/a?lat=1", 400), ("/dir/a?lat=91&lng=0", 400), ("/dir/a?lat=x&lng=0", 400), ("/%2e%2e/a", 400)]
    {
        let answer = ask(path, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (status, "application/problem+json"),
            "{path}"
        );
    }
    let answer = cluster.ask(Method::DELETE, &format!("{router}/dir/a"), &[]).await;
    assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_proxies_and_survives_a_dead_edge() {
    let mut cluster = Cluster::with(Settings { mode: Mode::Proxy, ..Settings::default() }).await;
    let doc = cluster.put("a", "0123456789").await;
    let router = cluster.local.router.clone();
    let url = format!("{router}/a?lat=38.7&lng=-9.2");
    let answer = cluster.ask(Method::GET, &url, &[("range", "bytes=2-4")]).await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::PARTIAL_CONTENT, "234"));
    assert!(answer.header("via").contains("littoral-lisbon"), "{}", answer.header("via"));
    assert!(!answer.header("cache-status").is_empty());
    let by_id = cluster.get(&format!("{router}/-/{}?lat=1.3&lng=103.8", doc.id)).await;
    assert_eq!(by_id.text(), "0123456789");

    cluster.kill("edge lisbon").await;
    // At once, before anybody has noticed: the next candidate answers.
    let answer = cluster.get(&url).await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "0123456789"));
    assert!(!answer.header("via").contains("littoral-lisbon"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_edge_is_noticed_not_chosen_and_comes_back() {
    let mut cluster = Cluster::start().await;
    let doc = cluster.put("a", "x").await;
    cluster.kill("edge singapore").await;
    let (client, zone) = (cluster.client(), cluster.zone());
    let chosen = async || client.locate(&zone, &doc.path, Some(NEAR_SINGAPORE)).await.expect("located");
    eventually("the dead edge is noticed", || async { chosen().await.chosen != "singapore" }).await;
    let candidates = chosen().await.candidates;
    let dead = candidates.iter().find(|candidate| candidate.name == "singapore").expect("named");
    assert!(!dead.alive && !dead.chosen && dead.reason == "not alive", "{}", dead.reason);
    eventually("the router does not send anyone there", || async {
        let answer = cluster.get(&format!("{}/a?lat=1.3&lng=103.8", cluster.local.router)).await;
        !answer.header("littoral-route").starts_with("singapore")
    })
    .await;

    let updated = cluster.put("a", "y").await;
    let state =
        |name: &str| updated.receipts.iter().find(|receipt| receipt.node.as_str() == name).expect("named").state;
    assert_eq!(state("singapore"), api::ReceiptState::Dead);
    assert_eq!(state("lisbon"), api::ReceiptState::Applied);

    cluster.start_edge("singapore@1.35,103.82").await;
    eventually("the edge is back", || async { chosen().await.chosen == "singapore" }).await;
    assert_eq!(cluster.get(&format!("{}/a", cluster.edge_url("singapore"))).await.text(), "y");
    assert_eq!(client.locate(&zone, &doc.path, Some(NEAR_LISBON)).await.expect("located").chosen, "lisbon");
}

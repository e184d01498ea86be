//! Pull zones in a cluster: control hands them to the edges, purges reach every one, and an edge goes on without control.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::pull::{PullDoc, QueryKey, UpstreamDoc};
use api::{PurgeRequest, ReceiptState, ZoneDoc};
use http::{Method, Request, Response, StatusCode};
use net::{Body, Incoming, ServerLimits};
use testbed::{Answer, Cluster, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const HOST: &str = "shop.example";

/// An origin that counts what it is asked for, and tags what lies below `/img/` as `pictures`.
struct Shop {
    url: String,
    asked: Arc<Mutex<HashMap<String, usize>>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Shop {
    async fn open() -> Self {
        let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let (counts, stop) = (Arc::clone(&asked), CancellationToken::new());
        let service = net::service(move |request: Request<Incoming>| {
            let counts = Arc::clone(&counts);
            async move {
                let target = request.uri().path_and_query().expect("target").to_string();
                let count = {
                    let mut counts = counts.lock().expect("counts");
                    let count = counts.entry(target.clone()).or_insert(0);
                    *count += 1;
                    *count
                };
                let host = request.headers()["host"].to_str().expect("host").to_owned();
                let mut response =
                    Response::builder().header("cache-control", "max-age=600").header("etag", format!("\"{count}\""));
                if target.starts_with("/img/") {
                    response = response.header("surrogate-key", "pictures all");
                }
                response.body(Body::full(format!("{host}{target} {count}"))).expect("response")
            }
        });
        tokio::spawn(net::serve(listener, service, ServerLimits::default(), stop.clone()));
        Self { url, asked, _stop: stop.drop_guard() }
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("counts").values().sum()
    }
}

/// The zone `shop`, at two hosts, in front of an origin.
fn zone(url: &str, change: impl FnOnce(&mut PullDoc)) -> ZoneDoc {
    let mut pull = PullDoc::new(vec![UpstreamDoc { url: url.to_owned(), weight: 1 }]);
    change(&mut pull);
    let hosts = vec![HOST.to_owned(), "other.example".to_owned()];
    ZoneDoc { hosts, pull: Some(Box::new(pull)), ..ZoneDoc::new("shop".parse().expect("name")) }
}

async fn put_zone(cluster: &Cluster, zone: &ZoneDoc) {
    cluster.client().put_zone(zone).await.expect("zone");
    // An edge acknowledges an event once it has taken up the configuration that came before.
    let nothing = PurgeRequest { urls: vec!["http://other.example/nothing".into()], wait: true, ..Default::default() };
    let answer = cluster.client().purge(&nothing).await.expect("purged");
    assert!(answer.receipts.iter().all(|receipt| receipt.state == ReceiptState::Applied), "{:?}", answer.receipts);
}

async fn get(cluster: &Cluster, edge: &str, host: &str, target: &str) -> Answer {
    cluster.ask(Method::GET, &format!("{edge}{target}"), &[("host", host)]).await
}

/// What each edge does with the paths, as `HIT` and the like.
async fn x_caches(cluster: &Cluster, targets: &[&str]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for edge in cluster.edge_urls() {
        let mut states = Vec::new();
        for target in targets {
            states.push(get(cluster, &edge, HOST, target).await.x_cache().to_owned());
        }
        all.push(states);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_purge_takes_what_it_names_at_every_edge() {
    let (cluster, shop) = (Cluster::start().await, Shop::open().await);
    put_zone(&cluster, &zone(&shop.url, |_| {})).await;
    let targets = ["/img/a.png?v=1", "/img/a.png?v=2", "/page"];
    let none = || PurgeRequest { wait: true, ..PurgeRequest::default() };
    let zone_name = "shop".parse().ok();
    let (hit, miss, expired) = ("HIT", "MISS", "EXPIRED");
    let cases: [(&str, PurgeRequest, [&str; 3]); 8] = [
        ("nothing", none(), [hit, hit, hit]),
        ("url", PurgeRequest { urls: vec![format!("http://{HOST}/img/a.png?v=1")], ..none() }, [miss, hit, hit]),
        ("prefix", PurgeRequest { prefixes: vec![format!("http://{HOST}/img/")], ..none() }, [miss, miss, hit]),
        ("path", PurgeRequest { zone: zone_name.clone(), urls: vec!["/page".into()], ..none() }, [hit, hit, miss]),
        (
            "tag",
            PurgeRequest { zone: zone_name.clone(), tags: vec!["pictures".parse().expect("tag")], ..none() },
            [miss, miss, hit],
        ),
        ("host", PurgeRequest { hosts: vec![HOST.into()], ..none() }, [miss, miss, miss]),
        ("zone", PurgeRequest { zones: zone_name.clone().into_iter().collect(), ..none() }, [miss, miss, miss]),
        ("other host", PurgeRequest { hosts: vec!["other.example".into()], ..none() }, [hit, hit, hit]),
    ];
    x_caches(&cluster, &targets).await;
    for (name, request, expected) in cases {
        for soft in [false, true] {
            if name != "nothing" {
                let answer = cluster.client().purge(&PurgeRequest { soft, ..request.clone() }).await.expect(name);
                assert!(answer.receipts.iter().all(|receipt| receipt.state == ReceiptState::Applied), "{name}");
            }
            // The origin's entity tag counts up, so what is asked about has always changed.
            let expected: Vec<&str> =
                expected.iter().map(|&state| if soft && state == miss { expired } else { state }).collect();
            for states in x_caches(&cluster, &targets).await {
                assert_eq!(states, expected, "{name} soft={soft}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_as_a_method_reaches_every_edge_and_needs_a_token() {
    let (cluster, shop) = (Cluster::start().await, Shop::open().await);
    put_zone(&cluster, &zone(&shop.url, |_| {})).await;
    x_caches(&cluster, &["/page"]).await;
    let purge: Method = "PURGE".parse().expect("method");
    let url = format!("{}/page", cluster.edge_urls()[0]);
    let refused = cluster.ask(purge.clone(), &url, &[("host", HOST)]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text());
    let wrong = cluster.ask(purge.clone(), &url, &[("host", HOST), ("authorization", "Bearer nonsense")]).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    for states in x_caches(&cluster, &["/page"]).await {
        assert_eq!(states, ["HIT"]);
    }
    let bearer = format!("Bearer {}", cluster.admin_token());
    let done = cluster.ask(purge, &url, &[("host", HOST), ("authorization", &bearer)]).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text());
    for states in x_caches(&cluster, &["/page"]).await {
        assert_eq!(states, ["MISS"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_control_an_edge_serves_what_it_has_and_fetches_what_it_has_not() {
    let (mut cluster, shop) = (Cluster::start().await, Shop::open().await);
    put_zone(&cluster, &zone(&shop.url, |_| {})).await;
    let edge = cluster.edge_urls()[0].clone();
    get(&cluster, &edge, HOST, "/page").await;
    cluster.kill("control").await;
    let view = cluster.local.edges[0].1.clone();
    eventually("the edge has noticed", || async { !view.live() }).await;
    let answer = get(&cluster, &edge, HOST, "/page").await;
    assert_eq!((answer.x_cache(), answer.text().as_str()), ("HIT", "shop.example/page 1"));
    assert!(answer.header("cache-status").contains("detail=disconnected"), "{}", answer.header("cache-status"));
    let answer = get(&cluster, &edge, HOST, "/new").await;
    assert_eq!((answer.x_cache(), answer.text().as_str()), ("MISS", "shop.example/new 1"));
    assert_eq!(shop.asked(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_policy_forgets_what_was_stored_under_the_old_one() {
    let (cluster, shop) = (Cluster::start().await, Shop::open().await);
    put_zone(&cluster, &zone(&shop.url, |_| {})).await;
    let edge = cluster.edge_urls()[0].clone();
    get(&cluster, &edge, HOST, "/page?a=1").await;
    put_zone(&cluster, &zone(&shop.url, |pull| pull.max_connections = 7)).await;
    assert_eq!(get(&cluster, &edge, HOST, "/page?a=1").await.x_cache(), "HIT", "the way to the origin changes nothing");
    put_zone(&cluster, &zone(&shop.url, |pull| pull.key.query = QueryKey::None)).await;
    let answer = get(&cluster, &edge, HOST, "/page?a=1").await;
    assert_eq!((answer.x_cache(), answer.text().as_str()), ("MISS", "shop.example/page 1"));
    assert_eq!(get(&cluster, &edge, HOST, "/page?a=2").await.x_cache(), "HIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_needs_a_token_and_takes_the_decisions_of_serving() {
    let (cluster, shop) = (Cluster::start().await, Shop::open().await);
    put_zone(&cluster, &zone(&shop.url, |_| {})).await;
    let edge = cluster.edge_urls()[0].clone();
    let ask = |token: Option<String>| {
        let body = serde_json::json!({ "url": format!("http://{HOST}/img/a.png") }).to_string();
        let (cluster, url) = (&cluster, format!("{edge}/-/explain"));
        async move {
            let bearer = token.map(|token| format!("Bearer {token}")).unwrap_or_default();
            let headers = [("authorization", bearer.as_str())];
            cluster.try_ask(Method::POST, &url, &headers, Body::full(body)).await.expect("answer")
        }
    };
    assert_eq!(ask(None).await.status, StatusCode::UNAUTHORIZED);
    let outcome =
        |answer: &Answer| serde_json::from_str::<api::Explanation>(&answer.text()).expect("explanation").outcome;
    let token = Some(cluster.admin_token());
    let before = ask(token.clone()).await;
    assert_eq!((before.status, outcome(&before).as_str()), (StatusCode::OK, "miss"));
    assert_eq!(shop.asked(), 0, "nothing was fetched for it");
    get(&cluster, &edge, HOST, "/img/a.png").await;
    let after = ask(token).await;
    assert_eq!(outcome(&after), "hit");
    assert!(after.text().contains("pictures"), "the tags that a purge could name: {}", after.text());
}

/// An origin that answers every request with 101 and echoes what comes then.
async fn echo_after_upgrade() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = head_of(&mut stream).await;
                assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
                let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-Kept: 1\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.expect("write");
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    url
}

async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_changes_its_protocol_goes_through() {
    let cluster = Cluster::start().await;
    put_zone(&cluster, &zone(&echo_after_upgrade().await, |_| {})).await;
    let address = cluster.edge_urls()[0].replace("http://", "");
    let mut stream = TcpStream::connect(address).await.expect("connect");
    let request =
        format!("GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst");
    stream.write_all(request.as_bytes()).await.expect("write");
    let head = head_of(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("upgrade: websocket") && head.contains('1'), "{head}");
    let mut echoed = [0; 11];
    stream.write_all(b" second").await.expect("write");
    stream.read_exact(&mut echoed[..11]).await.expect("echo");
    assert_eq!(&echoed, b"first secon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_takes_nobody_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let (asked, mut asked_so_far) = tokio::sync::watch::channel(0);
    let (release, released) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut released = released.clone();
            asked.send_modify(|asked| *asked += 1);
            tokio::spawn(async move {
                head_of(&mut stream).await;
                released.wait_for(|released| *released).await.expect("released");
                let answer = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\r\none";
                stream.write_all(answer.as_bytes()).await.expect("write");
            });
        }
    });
    let cluster = Cluster::start().await;
    put_zone(&cluster, &zone(&url, |_| {})).await;
    let edge = cluster.edge_urls()[0].clone();
    let mut leader = TcpStream::connect(edge.replace("http://", "")).await.expect("connect");
    leader.write_all(format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.expect("write");
    asked_so_far.wait_for(|asked| *asked == 1).await.expect("asked");
    drop(leader);
    let waiting = get(&cluster, &edge, HOST, "/a");
    let (answer, _) = tokio::join!(waiting, async { release.send_replace(true) });
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "one"));
    assert_eq!(*asked_so_far.borrow(), 1, "the fetch went on without the client that had begun it");
    assert_eq!(get(&cluster, &edge, HOST, "/a").await.x_cache(), "HIT");
}

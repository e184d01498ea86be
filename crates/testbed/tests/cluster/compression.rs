//! Compressed forms of stored responses: what is compressed, for whom, and that every form is the same response.

use std::io::Read;
use std::sync::{Arc, Mutex};

use client::UploadMeta;
use http::{Method, Request, Response, StatusCode};
use net::{Body, Incoming, ServerLimits};
use testbed::front::{Front, FrontSettings};
use testbed::{Answer, Cluster, eventually};
use tokio_util::sync::{CancellationToken, DropGuard};

const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

/// An origin of texts: `/KIND/…/SIZE`. It knows no compression.
struct Texts {
    url: String,
    /// `If-Match` of the newest request.
    if_match: Arc<Mutex<Option<String>>>,
    _stop: DropGuard,
}

fn text(size: usize) -> String {
    (0..)
        .map(|line| format!("<p>the line with number {line}</p>\n"))
        .flat_map(String::into_bytes)
        .take(size)
        .map(char::from)
        .collect()
}

fn noise(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..size).map(|_| random.u8(..)).collect()
}

fn answer(request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let kind = path.split('/').nth(1).expect("a kind");
    let size = path.rsplit('/').next().and_then(|size| size.parse().ok()).expect("a size");
    let mut response = Response::builder().header("last-modified", "Fri, 20 Nov 2020 00:00:00 GMT");
    for (name, value, of) in [
        ("cache-control", "max-age=600, no-transform", "fixed"),
        ("content-encoding", "br", "encoded"),
        ("content-type", "image/png", "picture"),
        ("vary", "Accept-Language", "vary"),
        ("etag", "W/\"tag\"", "weak"),
        ("repr-digest", "sha-256=:AAAA:", "digest"),
    ] {
        if kind == of {
            response = response.header(name, value);
        }
    }
    for (name, value) in
        [("cache-control", "max-age=600"), ("content-type", "text/html; charset=utf-8"), ("etag", "\"tag\"")]
    {
        if !response.headers_ref().expect("fields").contains_key(name) && (name, kind) != ("etag", "bare") {
            response = response.header(name, value);
        }
    }
    let tag = response.headers_ref().and_then(|fields| fields.get("etag")).cloned();
    if tag.is_some() && request.headers().get("if-none-match") == tag.as_ref() {
        return response.status(304).body(Body::empty()).expect("response");
    }
    let body = if kind == "noise" { noise(size) } else { text(size).into_bytes() };
    response.body(Body::full(body)).expect("response")
}

impl Texts {
    async fn open() -> Self {
        let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let (stop, if_match) = (CancellationToken::new(), Arc::new(Mutex::new(None)));
        let seen = Arc::clone(&if_match);
        let service = net::service(move |request: Request<Incoming>| {
            let value = request.headers().get("if-match").map(|value| value.to_str().expect("text").to_owned());
            *seen.lock().expect("seen") = value;
            async move { answer(&request) }
        });
        tokio::spawn(net::serve(listener, service, ServerLimits::default(), stop.clone()));
        Self { url, if_match, _stop: stop.drop_guard() }
    }
}

async fn front(texts: &Texts) -> Front {
    Front::start(FrontSettings::of(&texts.url)).await
}

async fn get(front: &Front, target: &str, accept: &str) -> Answer {
    front.ask(Method::GET, target, &[("accept-encoding", accept)]).await
}

/// Asks until it comes in a coding.
async fn packed(front: &Front, target: &str, coding: &str) -> Answer {
    eventually("it is compressed", || async { get(front, target, coding).await.header("content-encoding") == coding })
        .await;
    get(front, target, coding).await
}

fn unpacked(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut back = Vec::new();
    match coding {
        "zstd" => back = zstd::decode_all(bytes).expect("zstd"),
        "br" => brotli::BrotliDecompress(&mut &*bytes, &mut back).expect("brotli"),
        "gzip" => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut back).expect("gzip")),
        other => panic!("{other}"),
    }
    back
}

async fn compressions(front: &Front) -> f64 {
    front.metric("littoral_edge_compressions_total")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_form_is_the_same_response() {
    let texts = Texts::open().await;
    let front = front(&texts).await;
    for size in [1_024, 30_000, 1 << 20, 3_000_000] {
        let target = format!("/page/a/{size}");
        let miss = get(&front, &target, "zstd, br, gzip").await;
        assert_eq!(
            (miss.x_cache(), miss.header("vary"), miss.header("content-encoding")),
            ("MISS", "Accept-Encoding", "")
        );
        for coding in CODINGS {
            let answer = packed(&front, &target, coding).await;
            assert_eq!((answer.status, answer.x_cache()), (StatusCode::OK, "HIT"), "{target} {coding}");
            assert_eq!(unpacked(coding, answer.bytes()), text(size).as_bytes(), "{target} {coding}");
            assert_eq!(answer.header("etag"), format!("\"tag-{coding}\""));
            assert_eq!(answer.header("content-length"), answer.bytes().len().to_string());
            assert_eq!((answer.header("vary"), answer.header("accept-ranges")), ("Accept-Encoding", ""));
            let head = front.ask(Method::HEAD, &target, &[("accept-encoding", coding)]).await;
            for name in ["content-length", "content-encoding", "etag", "vary", "content-type"] {
                assert_eq!(head.header(name), answer.header(name), "{name}");
            }
            // Not a plain read: it goes the whole way, to the same answer.
            let whole = front.ask(Method::GET, &target, &[("accept-encoding", coding), ("x-other", "1")]).await;
            assert_eq!((whole.bytes(), whole.header("etag")), (answer.bytes(), answer.header("etag")));
        }
        for (accept, coding, etag) in [
            ("", "", "\"tag\""),
            ("deflate", "", "\"tag\""),
            ("gzip;q=0, identity", "", "\"tag\""),
            ("gzip, br, zstd", "zstd", "\"tag-zstd\""),
            ("gzip;q=1.0, br;q=0.5", "gzip", "\"tag-gzip\""),
        ] {
            for more in [&[][..], &[("x-other", "1")]] {
                let fields = [&[("accept-encoding", accept)], more].concat();
                let answer = front.ask(Method::GET, &target, &fields).await;
                assert_eq!((answer.header("content-encoding"), answer.header("etag")), (coding, etag), "{accept}");
                assert_eq!(answer.header("vary"), "Accept-Encoding", "{accept}");
                let plain = if coding.is_empty() { answer.bytes().to_vec() } else { unpacked(coding, answer.bytes()) };
                assert_eq!(plain, text(size).as_bytes(), "{accept}");
            }
        }
    }
    assert_eq!(compressions(&front).await, 12.0, "each was made once");
    assert!(front.metric("littoral_edge_ready_answers_total") > 0.0, "and plain reads were answered at once");
    let (from, to) = ("littoral_edge_compressed_bytes_total", "littoral_edge_compressed_to_bytes_total");
    assert!(front.metric(from) > 3.0 * front.metric(to) && front.metric(to) > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploaded_files_have_forms_of_their_own() {
    let cluster = Cluster::start().await;
    let edge = cluster.edge_url("lisbon");
    let body = text(30_000);
    let doc = cluster.put("app.js", body.clone()).await;
    let (url, by_id, tag) = (format!("{edge}/app.js"), format!("{edge}/-/{}", doc.id), format!("\"{}\"", doc.digest));
    let ask = async |url: &str, fields: &[(&str, &str)]| cluster.ask(Method::GET, url, fields).await;
    let miss = ask(&url, &[("accept-encoding", "zstd, br, gzip")]).await;
    assert_eq!((miss.header("vary"), miss.header("content-encoding")), ("Accept-Encoding", ""));
    assert_eq!((miss.text(), miss.header("etag")), (body.clone(), tag.as_str()));
    for coding in CODINGS {
        let accept = ("accept-encoding", coding);
        eventually("it is compressed", || async { ask(&url, &[accept]).await.header("content-encoding") == coding })
            .await;
        let form_tag = format!("\"{}-{coding}\"", doc.digest);
        for url in [&url, &by_id] {
            let answer = ask(url, &[accept]).await;
            // By its id it may be a miss: the head is another one, the form is the same.
            assert_eq!(answer.status, StatusCode::OK, "{coding}");
            assert_eq!(unpacked(coding, answer.bytes()), body.as_bytes(), "{coding}");
            assert_eq!((answer.header("etag"), answer.header("vary")), (form_tag.as_str(), "Accept-Encoding"));
            assert_eq!(answer.header("content-length"), answer.bytes().len().to_string());
            let head = cluster.ask(Method::HEAD, url, &[accept]).await;
            assert!(head.bytes().is_empty());
            for name in ["content-length", "content-encoding", "etag", "vary", "content-type"] {
                assert_eq!(head.header(name), answer.header(name), "{name}");
            }
        }
        for (more, status, etag, bytes) in [
            (&[("if-none-match", form_tag.as_str())][..], 304, &form_tag, 0..0),
            (&[("if-none-match", tag.as_str())], 304, &tag, 0..0),
            (&[("if-match", form_tag.as_str())], 200, &form_tag, 0..0),
            (&[("if-match", tag.as_str())], 200, &form_tag, 0..0),
            (&[("if-match", form_tag.as_str()), ("range", "bytes=0-4")], 206, &tag, 0..5),
            (&[("if-match", "\"x\"")], 412, &String::new(), 0..0),
            (&[("range", "bytes=10-19")], 206, &tag, 10..20),
            (&[("range", "bytes=10-19"), ("if-range", tag.as_str())], 206, &tag, 10..20),
            (&[("range", "bytes=10-19"), ("if-range", form_tag.as_str())], 200, &tag, 0..30_000),
            (&[("cache-control", "no-transform")], 200, &tag, 0..30_000),
        ] {
            let answer = ask(&url, &[&[accept], more].concat()).await;
            assert_eq!((answer.status.as_u16(), answer.header("etag")), (status, etag.as_str()), "{coding} {more:?}");
            if etag == &tag {
                assert_eq!(answer.header("content-encoding"), "", "{more:?}");
                assert_eq!(**answer.bytes(), body.as_bytes()[bytes], "{more:?}");
            }
        }
    }
    let plain = ask(&url, &[]).await;
    assert_eq!((plain.text(), plain.header("etag"), plain.header("vary")), (body, tag.as_str(), "Accept-Encoding"));

    // A new version has none of the old one's forms.
    let newer = cluster.put("app.js", text(20_000)).await;
    let gzip = ("accept-encoding", "gzip");
    let old_form = format!("\"{}-gzip\"", doc.digest);
    let answer = ask(&url, &[gzip, ("if-none-match", &old_form)]).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, text(20_000)));
    eventually("it is compressed", || async { ask(&url, &[gzip]).await.header("content-encoding") == "gzip" }).await;
    let answer = ask(&url, &[gzip]).await;
    assert_eq!(answer.header("etag"), format!("\"{}-gzip\"", newer.digest));
    assert_eq!(unpacked("gzip", answer.bytes()), text(20_000).as_bytes());

    // Of several slices, which have to be there.
    cluster.put("large.json", text(3_000_000)).await;
    let large = format!("{edge}/large.json");
    eventually("it is compressed", || async { ask(&large, &[gzip]).await.header("content-encoding") == "gzip" }).await;
    assert_eq!(unpacked("gzip", ask(&large, &[gzip]).await.bytes()), text(3_000_000).as_bytes());

    // What is not to be changed, is compressed already or does not get smaller goes out as it was uploaded.
    let fixed = UploadMeta { cache_control: Some("max-age=60, no-transform".to_owned()), ..UploadMeta::default() };
    cluster.put_with("fixed.js", text(5_000), &fixed).await;
    cluster.put("picture.png", text(5_000)).await;
    cluster.put("noise.txt", noise(5_000)).await;
    for (file, vary) in [("fixed.js", ""), ("picture.png", ""), ("noise.txt", "Accept-Encoding")] {
        for _ in 0..3 {
            let answer = ask(&format!("{edge}/{file}"), &[gzip]).await;
            assert_eq!((answer.status, answer.header("content-encoding")), (StatusCode::OK, ""), "{file}");
            assert_eq!((answer.header("vary"), answer.bytes().len()), (vary, 5_000), "{file}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_and_no_transform_get_it_as_it_came() {
    let texts = Texts::open().await;
    let front = front(&texts).await;
    let target = "/page/a/5000";
    get(&front, target, "gzip").await;
    packed(&front, target, "gzip").await;
    let ask = async |fields: &[(&str, &str)]| {
        front.ask(Method::GET, target, &[&[("accept-encoding", "gzip")], fields].concat()).await
    };
    for (fields, status, bytes) in [
        (&[("range", "bytes=10-19")][..], 206, 10..20),
        (&[("range", "bytes=10-19"), ("if-range", "\"tag\"")], 206, 10..20),
        // What it has a part of is not what the range would be of.
        (&[("range", "bytes=10-19"), ("if-range", "\"tag-gzip\"")], 200, 0..5_000),
        (&[("range", "lines=1-2")], 200, 0..5_000),
        (&[("cache-control", "no-transform")], 200, 0..5_000),
    ] {
        let answer = ask(fields).await;
        assert_eq!((answer.status.as_u16(), answer.header("etag")), (status, "\"tag\""), "{fields:?}");
        assert_eq!((answer.header("content-encoding"), answer.header("vary")), ("", "Accept-Encoding"), "{fields:?}");
        assert_eq!(**answer.bytes(), text(5_000).as_bytes()[bytes], "{fields:?}");
    }
    assert_eq!(ask(&[("range", "bytes=5000-")]).await.status, StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_hold_for_each_tag() {
    let texts = Texts::open().await;
    let front = front(&texts).await;
    let ask = async |target: &str, accept: &str, name: &str, value: &str| {
        front.ask(Method::GET, target, &[("accept-encoding", accept), (name, value)]).await
    };
    let table = [
        ("gzip", "if-none-match", "\"tag-gzip\"", 304, "\"tag-gzip\""),
        ("gzip", "if-none-match", "\"x\", W/\"tag-gzip\"", 304, "\"tag-gzip\""),
        ("gzip", "if-none-match", "\"tag\"", 304, "\"tag\""),
        ("gzip", "if-none-match", "\"tag-br\"", 200, ""),
        ("", "if-none-match", "\"tag-gzip\"", 200, "\"tag\""),
        ("gzip, br", "if-none-match", "\"tag-br\"", 304, "\"tag-br\""),
        ("gzip", "if-none-match", "\"other\"", 200, ""),
        ("gzip", "if-none-match", "*", 304, "\"tag\""),
        ("gzip", "if-modified-since", "Fri, 20 Nov 2020 00:00:00 GMT", 304, ""),
        ("gzip", "if-modified-since", "Fri, 20 Nov 2020 00:00:01 GMT", 304, ""),
        ("gzip", "if-modified-since", "Thu, 19 Nov 2020 00:00:00 GMT", 200, ""),
    ];
    let target = "/page/a/5000";
    get(&front, target, "").await;
    // What is named need not be here; and it may be.
    for made in [false, true] {
        if made {
            packed(&front, target, "gzip").await;
        }
        for (accept, name, value, status, etag) in table {
            let answer = ask(target, accept, name, value).await;
            let told = answer.header("etag").to_owned();
            assert_eq!(
                (answer.status.as_u16(), answer.header("vary")),
                (status, "Accept-Encoding"),
                "{accept} {value}"
            );
            assert!(etag.is_empty() || told == etag, "{accept} {value}: {told}");
            assert!(status == 200 || answer.header("content-encoding").is_empty(), "{value}");
        }
    }
    let dated = ask(target, "gzip", "if-modified-since", "Fri, 20 Nov 2020 00:00:00 GMT").await;
    assert_eq!(dated.header("etag"), "\"tag-gzip\"");
    // A weak tag means the same in every form.
    get(&front, "/weak/a/5000", "gzip").await;
    assert_eq!(packed(&front, "/weak/a/5000", "gzip").await.header("etag"), "W/\"tag\"");
    assert_eq!(ask("/weak/a/5000", "gzip", "if-none-match", "W/\"tag\"").await.status, StatusCode::NOT_MODIFIED);
    get(&front, "/bare/a/5000", "gzip").await;
    let bare = packed(&front, "/bare/a/5000", "gzip").await;
    assert_eq!((bare.header("etag"), bare.header("accept-ranges")), ("", "none"));
    // To the origin there is one tag.
    front.ask(Method::PUT, target, &[("if-match", "\"tag-gzip\"")]).await;
    assert_eq!(texts.if_match.lock().expect("seen").as_deref(), Some("\"tag-gzip\", \"tag\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_alone() {
    let texts = Texts::open().await;
    let front = front(&texts).await;
    for (target, vary) in [
        ("/page/a/1023", ""),
        ("/page/a/0", ""),
        ("/page/a/4194305", ""),
        ("/picture/a/5000", ""),
        ("/encoded/a/5000", ""),
        ("/fixed/a/5000", ""),
        ("/noise/a/5000", "Accept-Encoding"),
    ] {
        let first = get(&front, target, "gzip, br, zstd").await;
        for _ in 0..3 {
            let answer = get(&front, target, "gzip, br, zstd").await;
            assert_eq!(
                (answer.x_cache(), answer.header("etag"), answer.header("vary")),
                ("HIT", "\"tag\"", vary),
                "{target}"
            );
            assert_eq!(answer.header("content-encoding"), first.header("content-encoding"), "{target}");
            assert!(answer.bytes() == first.bytes(), "{target}");
        }
    }
    eventually("noise was found not to be worth it", || async { compressions(&front).await == 1.0 }).await;
    assert_eq!(get(&front, "/noise/a/5000", "zstd").await.header("content-encoding"), "");
    get(&front, "/vary/a/5000", "gzip").await;
    let answer = packed(&front, "/vary/a/5000", "gzip").await;
    assert_eq!(answer.headers.get_all("vary").iter().collect::<Vec<_>>(), ["Accept-Language", "Accept-Encoding"]);
    get(&front, "/digest/a/5000", "gzip").await;
    assert_eq!(packed(&front, "/digest/a/5000", "gzip").await.header("repr-digest"), "", "it is of the other bytes");
    assert_eq!(get(&front, "/digest/a/5000", "").await.header("repr-digest"), "sha-256=:AAAA:");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_may_compress_less_or_nothing() {
    let texts = Texts::open().await;
    let mut settings = FrontSettings::of(&texts.url);
    settings.change = |pull| pull.policy = api::pull::CachePolicy::Rfc;
    let plain = Front::start(settings).await;
    let mut settings = FrontSettings::of(&texts.url);
    settings.change = |pull| {
        let doc = pull.compression.insert(api::pull::CompressionDoc::default());
        (doc.encodings, doc.min_bytes, doc.max_bytes) = (vec![api::pull::Encoding::Gzip], 10, 20);
    };
    let small = Front::start(settings).await;
    for target in ["/page/a/5000", "/page/a/9", "/page/a/10", "/page/a/20", "/page/a/21"] {
        for front in [&plain, &small] {
            for _ in 0..3 {
                let vary = get(front, target, "gzip, br").await.header("vary").to_owned();
                let within = ["/page/a/10", "/page/a/20"].contains(&target) && std::ptr::eq(front, &raw const small);
                assert_eq!(vary == "Accept-Encoding", within, "{target}");
            }
        }
    }
    assert_eq!(compressions(&plain).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_and_confirmations_mean_every_form() {
    let texts = Texts::open().await;
    let front = front(&texts).await;
    let target = "/page/a/5000";
    get(&front, target, "gzip").await;
    packed(&front, target, "gzip").await;
    // A 304 keeps the forms.
    front.advance(std::time::Duration::from_secs(700));
    let answer = get(&front, target, "gzip").await;
    assert_eq!((answer.x_cache(), answer.header("content-encoding")), ("REVALIDATED", "gzip"));
    assert_eq!(unpacked("gzip", answer.bytes()), text(5_000).as_bytes());
    assert_eq!(compressions(&front).await, 1.0);
    let purge: Method = "PURGE".parse().expect("method");
    assert_eq!(front.ask(purge, target, &[]).await.status, StatusCode::OK);
    let answer = get(&front, target, "gzip").await;
    assert_eq!((answer.x_cache(), answer.header("content-encoding")), ("MISS", ""));
    packed(&front, target, "gzip").await;
    assert_eq!(compressions(&front).await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_from_disk_is_compressed_anew() {
    let (texts, folder) = (Texts::open().await, tempfile::tempdir().expect("folder"));
    let (target, settings) = ("/page/a/300000", || FrontSettings::with_disk(&texts.url, folder.path()));
    let front = Front::start(settings()).await;
    get(&front, target, "gzip").await;
    packed(&front, target, "gzip").await;
    eventually("it is on disk", || async { front.metric("littoral_edge_disk_admissions_total") >= 1.0 }).await;
    front.stop().await;
    let front = Front::start(settings()).await;
    let answer = get(&front, target, "gzip").await;
    assert_eq!(
        (answer.x_cache(), answer.header("content-encoding"), answer.header("vary")),
        ("HIT", "", "Accept-Encoding")
    );
    assert_eq!(**answer.bytes(), *text(300_000).as_bytes());
    for coding in CODINGS {
        let answer = packed(&front, target, coding).await;
        assert_eq!((answer.x_cache(), unpacked(coding, answer.bytes())), ("HIT", text(300_000).into_bytes()));
    }
    let range = front.range(target, 5, 9).await;
    assert_eq!((range.status.as_u16(), &**range.bytes()), (206, &text(300_000).as_bytes()[5..10]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_tells_the_form() {
    let texts = Texts::open().await;
    let front = front(&texts).await;
    get(&front, "/page/a/5000", "gzip").await;
    packed(&front, "/page/a/5000", "gzip").await;
    let http = net::HttpClient::new(net::ClientLimits::default());
    for (accept, expected) in [("gzip", Some("gzip")), ("br", None)] {
        let asked = serde_json::json!({
            "url": "http://site.example/page/a/5000", "headers": [["accept-encoding", accept]],
        });
        let request = Request::post(format!("{}/-/explain", front.url)).body(Body::full(asked.to_string()));
        let response = http.send(request.expect("request")).await.expect("answer");
        let body = net::read_to_end(response.into_body(), 1 << 16).await.expect("body");
        let told: api::Explanation = serde_json::from_slice(&body).expect("an explanation");
        let step = told.steps.iter().find(|step| step.stage == "compression").expect("a step");
        let encoding = step.facts.iter().find(|(name, _)| name == "encoding").map(|(_, coding)| coding.as_str());
        assert_eq!(encoding, expected, "{}", step.decision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_place_is_compressed_later() {
    let texts = Texts::open().await;
    let front = front(&texts).await;
    let targets: Vec<String> = (0..9).map(|number| format!("/page/{number}/300000")).collect();
    for target in &targets {
        get(&front, target, "gzip").await;
    }
    // More hits at once than forms are made at once.
    let hits = targets.iter().map(|target| get(&front, target, "gzip"));
    for hit in futures_util::future::join_all(hits).await {
        assert_eq!((hit.x_cache(), hit.status), ("HIT", StatusCode::OK));
    }
    for target in &targets {
        assert_eq!(unpacked("gzip", packed(&front, target, "gzip").await.bytes()), text(300_000).as_bytes());
    }
    assert_eq!(compressions(&front).await, 9.0);
}

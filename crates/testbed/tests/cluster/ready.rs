//! Answers that are ready before a request is taken apart are the answers that it would get otherwise.

use std::time::Duration;

use http::Method;
use testbed::Answer;
use testbed::front::{Front, FrontSettings};
use testbed::media::{Media, content};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Fields of a response, without what is different each time.
fn fields(answer: &Answer) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "server-timing")
        .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()))
        .collect();
    fields.sort();
    fields
}

async fn ready(front: &Front) -> f64 {
    front.metric("littoral_edge_ready_answers_total")
}

/// Asks as a plain read, which must (not) be answered at once.
async fn ask(front: &Front, target: &str, at_once: bool) -> Answer {
    let before = ready(front).await;
    let answer = front.get(target).await;
    assert_eq!(ready(front).await > before, at_once, "{target}: {}", answer.header("cache-status"));
    answer
}

/// Asks until the answer is ready: once what came is whole in memory, and one hit at the latest has taught where it is.
async fn until_ready(front: &Front, target: &str) -> Answer {
    for _ in 0..100 {
        let before = ready(front).await;
        let answer = front.get(target).await;
        if ready(front).await > before {
            return answer;
        }
    }
    panic!("{target} is never answered at once");
}

#[tokio::test]
async fn a_ready_answer_is_the_answer_of_the_whole_way() {
    let media = Media::start().await;
    let front = Front::start(FrontSettings::of(&media.url)).await;
    for size in [0_u64, 1, 700, 4_096, 4_097, 300_000] {
        let path = format!("/whole/a/{size}");
        let target = format!("{path}?q={size}");
        assert_eq!(ask(&front, &target, false).await.x_cache(), "MISS");
        assert_eq!(until_ready(&front, &target).await.x_cache(), "HIT");
        // A field that is not plain.
        let whole = front.ask(Method::GET, &target, &[("x-other", "1")]).await;
        let plain = ask(&front, &target, true).await;
        assert_eq!((plain.status, fields(&plain)), (whole.status, fields(&whole)), "{target}");
        assert!(*plain.bytes() == content(&path, 1, 0..size) && *whole.bytes() == *plain.bytes(), "{target}");
        // Not plain: the same as ever.
        let head = front.ask(Method::HEAD, &target, &[]).await;
        assert_eq!((head.header("content-length"), head.bytes().len()), (size.to_string().as_str(), 0));
        if size > 1 {
            assert_eq!(front.range(&target, 0, 0).await.status.as_u16(), 206);
        }
    }
    assert_eq!(media.requests().len(), 6);
}

#[tokio::test]
async fn the_last_answer_on_a_connection_is_ready_too() {
    let media = Media::start().await;
    let front = Front::start(FrontSettings::of(&media.url)).await;
    let address = front.url.strip_prefix("http://").expect("an address");
    for size in [0_u64, 700, 300_000] {
        let path = format!("/whole/a/{size}");
        until_ready(&front, &path).await;
        let mut answers = Vec::new();
        for (field, at_once) in [("Accept: */*", 1.0), ("X-Other: 1", 0.0)] {
            let before = ready(&front).await;
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("connect");
            let request = format!("GET {path} HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n{field}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("written");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("a clean end");
            let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an empty line") + 4;
            let body = answer.split_off(end);
            assert!(body == content(&path, 1, 0..size), "{size}");
            let head = String::from_utf8(answer).expect("text");
            let mut fields: Vec<String> =
                head.lines().filter(|line| !line.starts_with("server-timing")).map(str::to_owned).collect();
            fields.sort();
            assert!(fields.iter().any(|line| line == "connection: close"), "{head}");
            answers.push(fields);
            assert_eq!((ready(&front).await - before), at_once, "{field}");
        }
        assert_eq!(answers[0], answers[1]);
    }
}

/// Asks over HTTP/2, with prior knowledge.
async fn ask_http2(client: &h2::client::SendRequest<bytes::Bytes>, target: &str, fields: &[(&str, &str)]) -> Answer {
    let request = http::Request::get(format!("http://site.example{target}"));
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut client = client.clone().ready().await.expect("ready");
    let (response, _) = client.send_request(request.body(()).expect("request"), true).expect("sent");
    let (parts, mut body) = response.await.expect("a response").into_parts();
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("no reset");
        body.flow_control().release_capacity(data.len()).expect("released");
        whole.extend_from_slice(&data);
    }
    Answer { status: parts.status, headers: parts.headers, body: Ok(whole.into()) }
}

#[tokio::test]
async fn the_same_over_http2() {
    let media = Media::start().await;
    let front = Front::start(FrontSettings::of(&media.url)).await;
    let address = front.url.strip_prefix("http://").expect("an address");
    let stream = tokio::net::TcpStream::connect(address).await.expect("connect");
    let (client, connection) = h2::client::handshake(stream).await.expect("handshake");
    tokio::spawn(connection);
    for size in [0_u64, 1, 700, 40_000, 300_000] {
        let path = format!("/whole/a/{size}");
        let target = format!("{path}?q={size}");
        assert_eq!(ask_http2(&client, &target, &[("accept", "*/*")]).await.x_cache(), "MISS");
        let mut plain = None;
        for _ in 0..100 {
            let before = ready(&front).await;
            let answer = ask_http2(&client, &target, &[("accept", "*/*"), ("user-agent", "x")]).await;
            if ready(&front).await > before {
                plain = Some(answer);
                break;
            }
        }
        let plain = plain.expect("answered at once");
        let whole = ask_http2(&client, &target, &[("x-other", "1")]).await;
        assert_eq!((plain.status, fields(&plain)), (whole.status, fields(&whole)), "{target}");
        assert!(*plain.bytes() == content(&path, 1, 0..size) && *whole.bytes() == *plain.bytes(), "{target}");
        let timing = plain.header("server-timing");
        assert!(timing.starts_with("edge;dur=") && plain.header("cache-status").contains("; hit; ttl="), "{timing}");
    }
    assert_eq!(media.requests().len(), 5);
}

#[tokio::test]
async fn what_is_purged_changed_or_stale_is_not_ready_any_more() {
    let media = Media::start().await;
    let front = Front::start(FrontSettings::of(&media.url)).await;
    let (target, size) = ("/whole/a/900", 900);
    assert!(*until_ready(&front, target).await.bytes() == content(target, 1, 0..size));
    media.change();
    let purge: Method = "PURGE".parse().expect("method");
    assert_eq!(front.ask(purge.clone(), target, &[]).await.status.as_u16(), 200);
    assert_ne!(ask(&front, target, false).await.x_cache(), "HIT");
    assert!(*until_ready(&front, target).await.bytes() == content(target, 2, 0..size));
    // Soft: it is asked about.
    assert_eq!(front.ask(purge, target, &[("fastly-soft-purge", "1")]).await.status.as_u16(), 200);
    assert_ne!(ask(&front, target, false).await.x_cache(), "HIT");
    let age = until_ready(&front, target).await.header("age").parse::<u64>().expect("a number");
    front.advance(Duration::from_secs(7));
    let older = ask(&front, target, true).await.header("age").parse::<u64>().expect("a number");
    assert!((age + 7..=age + 9).contains(&older), "{age} {older}");
    front.advance(Duration::from_secs(400 * 24 * 3_600));
    assert_ne!(ask(&front, target, false).await.x_cache(), "HIT");
}

#[tokio::test]
async fn zones_that_look_at_plain_fields_have_no_ready_answers() {
    let media = Media::start().await;
    let mut settings = FrontSettings::of(&media.url);
    settings.change = |pull| pull.key.headers = vec!["User-Agent".to_owned()];
    let front = Front::start(settings).await;
    for _ in 0..4 {
        ask(&front, "/whole/a/10", false).await;
    }
    for agent in ["one", "two"] {
        assert_eq!(front.ask(Method::GET, "/whole/a/10", &[("user-agent", agent)]).await.x_cache(), "MISS");
    }
}

#[tokio::test]
async fn each_request_is_a_line_of_the_access_log() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let file = folder.path().join("access.json");
    let front = Front::start(FrontSettings { access_log: Some(file.clone()), ..FrontSettings::of(&media.url) }).await;
    ask(&front, "/whole/a/100?token=secret", false).await;
    until_ready(&front, "/whole/a/100?token=secret").await;
    front.range("/ranged/b/3000000", 1_500_000, 2_999_999).await.bytes();
    front.ask(Method::from_bytes(b"TRACE").expect("method"), "/whole/a/100", &[("user-agent", "\"x")]).await;
    front.stop().await;
    let text = std::fs::read_to_string(file).expect("log");
    assert!(!text.contains("secret"));
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let said = |line: &serde_json::Value| {
        ["method", "path", "status", "bytes", "cache", "complete"].map(|name| line[name].to_string()).join(" ")
    };
    let mut said: Vec<String> = lines.iter().map(said).collect();
    said.sort();
    said.dedup();
    let expected = [
        r#""GET" "/ranged/b/3000000" 206 1500000 "MISS" true"#,
        r#""GET" "/whole/a/100" 200 100 "HIT" true"#,
        r#""GET" "/whole/a/100" 200 100 "MISS" true"#,
    ];
    assert_eq!(said[..expected.len()], expected);
    assert!(said.last().is_some_and(|line| line.starts_with(r#""TRACE" "/whole/a/100" 405"#)), "{said:?}");
    assert!(lines.iter().all(|line| line["host"] == "site.example" && line["client"] == "127.0.0.1"));
}

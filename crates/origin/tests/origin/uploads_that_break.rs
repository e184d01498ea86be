//! Uploads that are cut off, stall, come too many at once, or lose control on the way.

use std::sync::Arc;

use api::{Digest, SLICE_BYTES};
use bytes::Bytes;
use http::Request;
use net::{Body, ClientLimits, HttpClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::control::{OnCommit, USER};
use crate::kit::{Kit, body, until};

fn head(more: &str) -> String {
    format!("PUT /v1/zones/files/files/a HTTP/1.1\r\nhost: x\r\nauthorization: {USER}\r\n{more}\r\n\r\n")
}

#[tokio::test]
async fn a_body_shorter_than_declared_is_a_problem() {
    let kit = Kit::new().await;
    for more in ["content-length: 10", "transfer-encoding: chunked"] {
        let sent = if more.starts_with("content") { "abc".to_owned() } else { "3\r\nabc\r\n".to_owned() };
        let answer = kit.raw(&[head(more), sent].concat().into_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{more}: {answer}");
        assert!(answer.contains("body_mismatch") && answer.contains("after 3 bytes"), "{more}: {answer}");
    }
    kit.nothing_is_staged().await;
    assert!(kit.records(|records| records.commits.is_empty()));
    assert_eq!(kit.metric("littoral_origin_uploads_total{outcome=\"aborted\"}"), 2);
}

#[tokio::test]
async fn bytes_beyond_the_declared_length_are_not_part_of_the_file() {
    let kit = Kit::new().await;
    let answer = kit.raw(&[head("content-length: 3"), "abc and more".to_owned()].concat().into_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.contains("HTTP/1.1 400"), "the rest is no request: {answer}");
    assert_eq!(kit.records(|records| records.commits.remove(0)).digest, Digest::of(b"abc"));
}

#[tokio::test]
async fn framing_that_cannot_be_right_is_refused() {
    let kit = Kit::new().await;
    for (more, body) in [
        ("content-length: 3\r\ncontent-length: 4", "abcd"),
        ("content-length: x", "abc"),
        ("transfer-encoding: chunked", "zz\r\nabc\r\n0\r\n\r\n"),
    ] {
        let answer = kit.raw(&[head(more), body.to_owned()].concat().into_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{more}: {answer}");
    }
    kit.nothing_is_staged().await;
    assert!(kit.records(|records| records.commits.is_empty()));
}

#[tokio::test]
async fn a_client_that_vanishes_midway_leaves_nothing() {
    let kit = Kit::new().await;
    let mut stream = TcpStream::connect(kit.address).await.expect("connect");
    let half = body(12 * SLICE_BYTES as usize);
    stream.write_all(head(&format!("content-length: {}", 2 * half.len())).as_bytes()).await.expect("write");
    stream.write_all(&half).await.expect("write");
    let staging = kit.dir.path().join("staging");
    until(|| std::fs::read_dir(&staging).expect("read").next().is_some()).await;
    drop(stream);
    kit.nothing_is_staged().await;
    until(|| kit.metric("littoral_origin_uploads_total{outcome=\"aborted\"}") == 1).await;
    assert_eq!(kit.metric("littoral_origin_uploads_in_progress"), 0);
    assert!(kit.records(|records| records.commits.is_empty()));
}

#[tokio::test]
async fn a_client_that_falls_silent_is_told_so() {
    let kit = Kit::with(|config| config.limits.body_idle_ms = 100).await;
    let mut stream = TcpStream::connect(kit.address).await.expect("connect");
    stream.write_all([head("content-length: 10"), "abc".to_owned()].concat().as_bytes()).await.expect("write");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("no bytes arrived for 100 ms"), "{answer}");
    kit.nothing_is_staged().await;
}

#[tokio::test]
async fn uploads_at_the_same_time_are_bounded() {
    let kit = Kit::with(|config| config.limits.uploads = 1).await;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, net::BodyError>>(1);
    let slow = Body::stream(futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    }));
    let first = kit.send("PUT", "/v1/zones/files/files/slow", &[], slow);
    let second = async {
        until(|| kit.records(|records| records.begins.len()) == 1).await;
        let answer = kit.put("b", &[], "b").await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
        assert!(answer.problem().detail.contains("1 uploads"), "{answer:?}");
        sender.send(Ok(Bytes::from_static(b"end"))).await.expect("send");
        drop(sender);
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(first.status, 201);
    assert_eq!(kit.put("b", &[], "b").await.status, 201, "there is room again");
}

#[tokio::test]
async fn a_refused_upload_is_answered_though_nobody_wants_its_body() {
    let kit = Kit::new().await;
    let mut stream = TcpStream::connect(kit.address).await.expect("connect");
    let body = vec![7; 16 << 20];
    let head = format!("PUT /v1/zones/files/files/a HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    // A client that reads nothing before it has written everything.
    stream.write_all(head.as_bytes()).await.expect("write");
    stream.write_all(&body).await.expect("the body is taken, if only to be dropped");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 401");
    kit.nothing_is_staged().await;
}

#[tokio::test]
async fn the_body_is_only_asked_for_once_the_upload_may_begin() {
    let kit = Kit::new().await;
    for (authorization, expected) in [("Bearer wrong", "HTTP/1.1 401"), (USER, "HTTP/1.1 100")] {
        let mut stream = TcpStream::connect(kit.address).await.expect("connect");
        let head = format!(
            "PUT /v1/zones/files/files/a HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\
             content-length: 3\r\nexpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("write");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), expected);
    }
}

#[tokio::test]
async fn a_commit_whose_outcome_is_not_known_says_so_and_takes_nothing_away() {
    let kit = Kit::new().await;
    kit.records(|records| records.on_commit = OnCommit::Break);
    let problem = kit.put("a", &[], "abc").await.problem();
    assert_eq!((problem.status, problem.code.word()), (502, "upstream_unreachable"));
    assert!(problem.detail.contains("not known") && problem.detail.contains("repeated"), "{}", problem.detail);
    assert_eq!(kit.blobs.head(Digest::of(b"abc")).await.expect("the blob stays"), 3);
    kit.nothing_is_staged().await;
    assert_eq!(kit.metric("littoral_origin_uploads_total{outcome=\"failed\"}"), 1);
    assert_eq!(kit.put("a", &[], "abc").await.status, 201, "and it may be repeated");
}

#[tokio::test]
async fn without_control_nothing_is_taken() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = gone.local_addr().expect("address");
    drop(gone);
    let kit = Kit::with(|config| config.control_url = format!("http://{address}")).await;
    let problem = kit.put("a", &[], "abc").await.problem();
    assert_eq!(problem.code.word(), "upstream_unreachable");
    let problem = kit.get("/v1/status", &[]).await.problem();
    assert!(problem.detail.contains("nothing was changed"), "{}", problem.detail);
    assert_eq!(kit.get("/-/content/files/a", &[]).await.problem().code.word(), "upstream_unreachable");
    kit.nothing_is_staged().await;
}

#[tokio::test]
async fn many_uploads_of_the_same_bytes_end_in_one_blob() {
    let kit = Arc::new(Kit::new().await);
    let body = Bytes::from(body(3 << 20));
    let uploads: Vec<_> = (0..8)
        .map(|n| {
            let (kit, body) = (Arc::clone(&kit), body.clone());
            tokio::spawn(async move { kit.put(&format!("{n}"), &[], body).await.status })
        })
        .collect();
    for upload in uploads {
        assert_eq!(upload.await.expect("ended"), 201);
    }
    assert_eq!(kit.records(|records| records.files.len()), 8);
    let file = kit.blob(Digest::of(&body));
    assert_eq!(std::fs::metadata(&file).expect("blob").len(), 3 << 20);
    let folder = file.parent().expect("folder");
    assert_eq!(std::fs::read_dir(folder).expect("read").count(), 2, "the blob and its chaining values");
    kit.nothing_is_staged().await;
}

#[tokio::test]
async fn an_upload_that_is_being_published_when_the_client_goes_is_published() {
    let kit = Kit::new().await;
    kit.records(|records| records.on_commit = OnCommit::Condemned);
    // A client with little patience: it is gone while the commit is still being refused.
    let http = HttpClient::new(ClientLimits { head_ms: 300, ..ClientLimits::default() });
    let request = Request::put(format!("http://{}/v1/zones/files/files/a", kit.address)).header("authorization", USER);
    let sent = http.send(request.body(Body::full("abc")).expect("request")).await;
    assert!(sent.is_err());
    drop(http);
    kit.records(|records| records.on_commit = OnCommit::Obey);
    until(|| kit.records(|records| records.commits.len()) == 1).await;
    kit.nothing_is_staged().await;
}

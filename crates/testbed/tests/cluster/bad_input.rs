//! Bad input through the api address and at the edges: a clear problem each time, and nothing changed or left behind.

use std::time::Duration;

use client::UploadMeta;
use http::{Method, StatusCode};
use testbed::{Cluster, Settings, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn one_edge() -> Cluster {
    Cluster::with(Settings { edges: vec!["a@0,0"], ..Settings::default() }).await
}

/// Sends bytes to a server as they are and reads until it closes or answers.
async fn raw(url: &str, bytes: &[u8], then_close: bool) -> String {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").expect("http")).await.expect("connect");
    // A server that has seen enough may close while we still write.
    let _ = stream.write_all(bytes).await;
    if then_close {
        return String::new();
    }
    let mut answer = vec![0; 64 << 10];
    let read =
        tokio::time::timeout(Duration::from_secs(40), stream.read(&mut answer)).await.expect("an answer").unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

fn staged(cluster: &Cluster) -> usize {
    std::fs::read_dir(cluster.folder().join("objects/staging")).map_or(0, |entries| entries.flatten().count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths() {
    let cluster = one_edge().await;
    let before = cluster.client().status().await.expect("status");
    let token = cluster.admin_token();
    let long = "x".repeat(1_025);
    for path in [
        "../etc/passwd",
        "%2e%2e/a",
        "a/%2e%2e/b",
        "%2Fetc/passwd",
        "a%00b",
        "a//b",
        "a/",
        "",
        "%ff%fe",
        "a%5cb",
        "%zz",
        "-/x",
        &long,
    ] {
        for method in ["PUT", "GET", "DELETE"] {
            let request = format!(
                "{method} /v1/zones/files/files/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx"
            );
            let answer = raw(&cluster.local.api, request.as_bytes(), false).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{method} {path:.40}: {answer}");
            assert!(
                answer.contains("application/problem+json") && answer.contains("invalid_name"),
                "{path:.40}: {answer}"
            );
        }
        if !path.is_empty() && path != "a/" {
            let request = format!("GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            for url in [&cluster.edge_url("a"), &cluster.local.router] {
                let answer = raw(url, request.as_bytes(), false).await;
                assert!(answer.starts_with("HTTP/1.1 4"), "{url} {path:.40}: {answer}");
            }
        }
    }
    let after = cluster.client().status().await.expect("status");
    assert_eq!((after.files, after.event, staged(&cluster)), (before.files, before.event, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_not_what_was_declared() {
    let cluster = one_edge().await;
    cluster.put("a", "good").await;
    let before = cluster.client().status().await.expect("status").event;
    let token = cluster.admin_token();
    let head = |fields: &str| {
        format!("PUT /v1/zones/files/files/a HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{fields}\r\n")
    };
    // A client that vanishes midway, with a declared length and in the middle of a chunk.
    raw(&cluster.local.api, format!("{}only a part", head("content-length: 1000\r\n")).as_bytes(), true).await;
    raw(&cluster.local.api, format!("{}ff\r\nonly a part", head("transfer-encoding: chunked\r\n")).as_bytes(), true)
        .await;
    // A chunk size that is none.
    let answer = raw(
        &cluster.local.api,
        format!("{}zz\r\nx\r\n0\r\n\r\n", head("transfer-encoding: chunked\r\n")).as_bytes(),
        false,
    )
    .await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    eventually("nothing is left behind", || async { staged(&cluster) == 0 }).await;

    let api = async |headers: &[(&str, &str)], query: &str| {
        cluster.api(Method::PUT, &format!("/v1/zones/files/files/a{query}"), Some(&token), headers, "body").await
    };
    let wrong = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
    for (headers, query, code) in [
        (vec![("repr-digest", wrong)], "", "digest_mismatch"),
        (vec![("repr-digest", "md5=:AAAA:")], "", "invalid_request"),
        (vec![("repr-digest", "nonsense")], "", "invalid_request"),
        (vec![("content-range", "bytes 0-3/10")], "", "invalid_request"),
        (vec![("content-type", "nonsense")], "", "invalid_request"),
        (vec![("surrogate-key", "a,b")], "", "invalid_name"),
        (vec![("if-match", "nonsense")], "", "invalid_request"),
        (vec![], "?wait=for-ever", "invalid_request"),
        (vec![], "?nonsense=1", "invalid_request"),
    ] {
        let answer = api(&headers, query).await;
        assert!(answer.status == StatusCode::BAD_REQUEST, "{headers:?} {query}: {} {}", answer.status, answer.text());
        assert!(answer.text().contains(code), "{headers:?} {query}: {}", answer.text());
    }
    let good = "sha-256=:Iw2DWNyOiH5bHHYN+Pf4r2qQgY4FSxHB5Bl1/EWjf3Y=:";
    assert_eq!(cluster.client().status().await.expect("status").event, before, "nothing was committed");
    assert_eq!(cluster.get(&format!("{}/a", cluster.edge_url("a"))).await.text(), "good");
    assert_eq!(staged(&cluster), 0);
    assert!(good.len() > wrong.len() - 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_things_are_named() {
    let cluster = one_edge().await;
    let token = cluster.admin_token();
    for (method, path, body, status, code) in [
        (Method::PUT, "/v1/zones/nope/files/a", "x", 404, "unknown_zone"),
        (Method::POST, "/v1/zones/nope/files", "x", 404, "unknown_zone"),
        (Method::GET, "/v1/zones/nope/files", "", 404, "unknown_zone"),
        (Method::GET, "/v1/zones/files/files/nope", "", 404, "unknown_file"),
        (Method::DELETE, "/v1/zones/files/files/nope", "", 404, "unknown_file"),
        (Method::GET, "/v1/files/019a9f3e-0000-7000-8000-000000000000", "", 404, "unknown_file"),
        (Method::PUT, "/v1/files/019a9f3e-0000-7000-8000-000000000000", "x", 404, "unknown_file"),
        (Method::GET, "/v1/files/nonsense", "", 400, "invalid_name"),
        (Method::DELETE, "/v1/nodes/nope", "", 404, "unknown_node"),
        (Method::DELETE, "/v1/tokens/nope", "", 404, "unknown_token"),
        (Method::GET, "/v1/nonsense", "", 404, "unknown_endpoint"),
        (Method::POST, "/v1/zones/files/files/a", "x", 405, "method_not_allowed"),
        (Method::DELETE, "/v1/zones", "", 405, "method_not_allowed"),
        (Method::GET, "/v1/zones/files/files?limit=0", "", 400, "invalid_request"),
        (Method::GET, "/v1/zones/files/files?limit=1001", "", 400, "invalid_request"),
        (Method::GET, "/v1/zones/files/files?cursor=nonsense", "", 400, "invalid_request"),
        (Method::GET, "/v1/events?after=999999&follow=false", "", 410, "events_gone"),
        (Method::GET, "/v1/locate?zone=files&path=nope", "", 404, "unknown_file"),
        (Method::GET, "/v1/locate?zone=files&path=a&lat=1", "", 400, "invalid_request"),
        (Method::PUT, "/v1/zones/UPPER", "{\"name\":\"UPPER\"}", 400, "invalid"),
        (Method::PUT, "/v1/zones/a", "{\"name\":\"b\"}", 400, "invalid_request"),
        (Method::PUT, "/v1/zones/a", "{\"name\":\"a\",\"tll_s\":1}", 400, "tll_s"),
        (Method::PUT, "/v1/zones/a", "{\"name\":\"a\",\"catch_all\":true}", 409, "files"),
        (Method::DELETE, "/v1/zones/nope", "", 404, "unknown_zone"),
        (Method::POST, "/v1/tokens", "{\"label\":\"\",\"scopes\":[\"read\"]}", 400, "label"),
        (Method::POST, "/v1/tokens", "{\"label\":\"x\",\"scopes\":[\"fly\"]}", 400, "fly"),
    ] {
        let answer = cluster.api(method.clone(), path, Some(&token), &[], body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text());
        assert!(answer.text().contains(code), "{method} {path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_with_files_is_not_deleted_and_headers_cannot_be_smuggled() {
    let cluster = one_edge().await;
    let meta = UploadMeta { cache_control: Some("max-age=1".into()), ..UploadMeta::default() };
    let doc = cluster.put_with("a", "x", &meta).await;
    let error = cluster.client().delete_zone(&cluster.zone()).await.expect_err("it has files");
    assert_eq!(error.code(), Some(api::ErrorCode::Conflict));
    let patch = api::FilePatch { cache_control: Some("x\r\nset-cookie: a=b".into()), ..api::FilePatch::default() };
    let error = cluster.client().patch_file(doc.id, &patch, false).await.expect_err("two lines");
    assert_eq!(error.code(), Some(api::ErrorCode::InvalidRequest));
    let token = cluster.admin_token();
    let huge = "x".repeat(api::MAX_JSON_BODY_BYTES + 1);
    let answer = cluster.api(Method::POST, "/v1/purge", Some(&token), &[], huge).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.text());
}

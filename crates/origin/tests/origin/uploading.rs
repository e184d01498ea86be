//! Uploads that are well: and those that are refused for what they say.

use api::node::UploadTarget;
use api::{Digest, SLICE_BYTES};
use bytes::Bytes;
use futures_util::stream;
use net::Body;

use crate::control::OnCommit;
use crate::kit::{Kit, body};

const SLICE: usize = SLICE_BYTES as usize;

#[tokio::test]
async fn a_new_file_and_a_new_version() {
    let kit = Kit::new().await;
    let fields = [("cache-control", "max-age=9"), ("surrogate-key", "x y"), ("if-match", "\"e\"")];
    let answer = kit.put("a%20b/%C3%BC.html?wait=edges", &fields, "one").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (201, "http://files.example/a%20b/%C3%BC.html"));
    let file = answer.file();
    assert_eq!(answer.header("etag"), file.digest.etag());
    assert_eq!((file.digest, file.size, file.path.as_str()), (Digest::of(b"one"), 3, "a b/ü.html"));
    let (begin, commit) = kit.records(|records| (records.begins.remove(0), records.commits.remove(0)));
    assert_eq!(begin.target, commit.target);
    assert_eq!(begin.conditions, commit.conditions);
    assert_eq!(commit.conditions.if_match.as_deref(), Some("\"e\""));
    assert_eq!(commit.media_type.as_deref(), Some("text/html; charset=utf-8"));
    assert_eq!(commit.cache_control.as_deref(), Some("max-age=9"));
    assert_eq!((commit.tags.len(), commit.wait), (2, true));

    let answer = kit.put("a%20b/%C3%BC.html", &[("content-type", "text/x-mine")], "two").await;
    assert_eq!((answer.status.as_u16(), answer.header("location"), answer.file().version), (200, "", 2));
    assert_eq!(kit.records(|records| records.commits.remove(0)).media_type.as_deref(), Some("text/x-mine"));
    assert_eq!(kit.blobs.head(Digest::of(b"two")).await.expect("in place"), 3);
    kit.nothing_is_staged().await;
    assert_eq!(kit.metric("littoral_origin_uploads_total{outcome=\"created\"}"), 1);
    assert_eq!(kit.metric("littoral_origin_uploads_total{outcome=\"updated\"}"), 1);
    assert_eq!(kit.metric("littoral_origin_received_bytes_total"), 6);
}

#[tokio::test]
async fn by_id_and_with_a_generated_path() {
    let kit = Kit::new().await;
    let id = "019a9f3e-0000-7000-8000-000000000000";
    let answer = kit.send("PUT", &format!("/v1/files/{id}"), &[], Body::full("x")).await;
    assert_eq!(answer.status, 201);
    let commit = kit.records(|records| records.commits.remove(0));
    assert_eq!(commit.target, UploadTarget::Id { id: id.parse().expect("id") });
    assert_eq!(commit.media_type.as_deref(), Some("text/css; charset=utf-8"), "guessed from the path of the file");

    let mut paths = Vec::new();
    for query in ["?name=photo.JPG", "?name=photo.JPG&wait=edges", ""] {
        let fields = [("content-type", "image/jpeg")];
        let answer = kit.send("POST", &format!("/v1/zones/files/files{query}"), &fields, Body::full("x")).await;
        assert_eq!(answer.status, 201, "{query}");
        let path = answer.file().path.to_string();
        let (stem, extension) = path.rsplit_once('.').expect("an extension");
        assert_eq!((stem.len(), extension), (36, "jpg"), "{path}");
        paths.push(path);
    }
    paths.dedup();
    assert_eq!(paths.len(), 3);
}

#[tokio::test]
async fn bodies_of_every_size_and_framing() {
    let kit = Kit::new().await;
    for size in [0, 1, SLICE, SLICE + 1, 3 * SLICE, 100 * SLICE + 7] {
        let body = body(size);
        let digest = Digest::of(&body);
        let answer = kit.put(&format!("{size}"), &[], body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.file().digest), (201, digest), "{size}");
        let pieces = Bytes::from(body);
        let chunks: Vec<_> = (0..size).step_by(50_000).map(|at| Ok(pieces.slice(at..size.min(at + 50_000)))).collect();
        let chunked = Body::stream(stream::iter(chunks));
        let answer = kit.send("PUT", &format!("/v1/zones/files/files/{size}"), &[], chunked).await;
        assert_eq!((answer.status.as_u16(), answer.file().digest), (200, digest), "{size} chunked");
        let last = api::slices::slice_count(size as u64).saturating_sub(1);
        kit.blobs.slice(digest, size as u64, last).await.expect("a good blob");
    }
    kit.nothing_is_staged().await;
}

#[tokio::test]
async fn declared_digests_are_verified() {
    let kit = Kit::new().await;
    let sha256 = "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:";
    let sha512 = "sha-512=:3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==:";
    let blake3 = "blake3=:ZDezrDhGUTP/tjt1JzqNtUjFWEZdedsD/TWcbNW9nYU=:";
    for value in [sha256, sha512, blake3, &format!("{sha256}, {sha512},{blake3}, md5=:AAAA:")] {
        let answer = kit.put("a", &[("repr-digest", value)], "abc").await;
        assert!(answer.status.is_success(), "{value}: {:?}", answer.body);
    }
    kit.records(|records| records.commits.clear());
    for (value, body, code, why) in [
        (sha256, "abd", "digest_mismatch", "sha-256"),
        (sha512, "abd", "digest_mismatch", "sha-512"),
        (blake3, "abd", "digest_mismatch", "blake3"),
        (&format!("{sha256}, blake3=:{}=:", "A".repeat(43)), "abc", "digest_mismatch", "blake3"),
        ("md5=:kAFQmDzST7DWlj99KOF/cg==:", "abc", "invalid_request", "use sha-256, sha-512 or blake3"),
        ("sha-256=abc", "abc", "invalid_request", "sha-256=:BASE64:"),
    ] {
        let problem = kit.put("a", &[("repr-digest", value)], body).await.problem();
        assert_eq!((problem.status, problem.code.word()), (400, code), "{value}");
        assert!(problem.detail.contains(why), "{value}: {}", problem.detail);
    }
    kit.nothing_is_staged().await;
    assert!(kit.records(|records| records.commits.is_empty()));
    assert!(kit.blobs.head(Digest::of(b"abd")).await.is_err(), "nothing was stored");
}

#[tokio::test]
async fn bad_input_is_a_clear_problem_and_changes_nothing() {
    let kit = Kit::new().await;
    let long = "a".repeat(api::names::MAX_PATH_BYTES + 1);
    let long_value = "x".repeat(api::MAX_CACHE_CONTROL_BYTES + 1);
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        // Paths.
        ("/v1/zones/files/files/../x", &[], "invalid_name", "'.' and '..'"),
        ("/v1/zones/files/files/a/%2e%2e/x", &[], "invalid_name", "'.' and '..'"),
        ("/v1/zones/files/files/a/%2E%2e%2fx", &[], "invalid_name", "'.' and '..'"),
        ("/v1/zones/files/files/", &[], "invalid_name", "empty"),
        ("/v1/zones/files/files/a//b", &[], "invalid_name", "empty segment"),
        ("/v1/zones/files/files//etc/passwd", &[], "invalid_name", "absolute"),
        ("/v1/zones/files/files/%2fetc/passwd", &[], "invalid_name", "absolute"),
        ("/v1/zones/files/files/a%00b", &[], "invalid_name", "control character"),
        ("/v1/zones/files/files/%ff%fe", &[], "invalid_name", "not UTF-8"),
        ("/v1/zones/files/files/a%2", &[], "invalid_name", "two hexadecimal digits"),
        ("/v1/zones/files/files/a%5cb", &[], "invalid_name", "backslash"),
        ("/v1/zones/files/files/-/x", &[], "invalid_name", "reserved"),
        (&format!("/v1/zones/files/files/{long}"), &[], "invalid_name", "at most 1024"),
        ("/v1/zones/FILES/files/x", &[], "invalid_name", "zone name"),
        ("/v1/files/7", &[], "invalid_name", "file id"),
        // What control says.
        ("/v1/zones/other/files/x", &[], "unknown_zone", "no such zone"),
        ("/v1/zones/files/files/x", &[("authorization", "")], "unauthorized", "token"),
        ("/v1/zones/files/files/x", &[("authorization", "Bearer wrong")], "unauthorized", "token"),
        ("/v1/zones/files/files/there", &[("if-none-match", "*")], "precondition_failed", "there"),
        // What goes with the body.
        ("/v1/zones/files/files/x", &[("content-type", "text")], "invalid_request", "media type"),
        ("/v1/zones/files/files/x", &[("content-encoding", "gzip")], "invalid_request", "content-encoding"),
        ("/v1/zones/files/files/x", &[("content-range", "bytes 0-2/9")], "invalid_request", "content-range"),
        ("/v1/zones/files/files/x", &[("cache-control", &long_value)], "invalid_request", "at most 1024"),
        ("/v1/zones/files/files/x", &[("surrogate-key", "a,b")], "invalid_name", "commas"),
        ("/v1/zones/files/files/x?wait=all", &[], "invalid_request", "wait=edges"),
        ("/v1/zones/files/files/x?weight=1", &[], "invalid_request", "\"weight\""),
        ("/v1/zones/files/files/x?name=y", &[], "invalid_request", "\"name\""),
    ];
    kit.publish("there", b"x").await;
    for (path, fields, code, why) in cases {
        let answer = kit.send("PUT", path, fields, Body::full("abc")).await;
        let problem = answer.problem();
        assert_eq!(problem.code.word(), *code, "{path} {fields:?}");
        assert!(problem.detail.contains(why), "{path} {fields:?}: {}", problem.detail);
        if answer.status == 401 {
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    kit.nothing_is_staged().await;
    assert!(kit.records(|records| records.commits.is_empty()));
    assert!(kit.blobs.head(Digest::of(b"abc")).await.is_err(), "nothing was stored");
    assert_eq!(kit.metric("littoral_origin_uploads_total{outcome=\"refused\"}"), cases.len() as u64);
}

#[tokio::test]
async fn a_blob_collected_between_place_and_commit_is_placed_again() {
    let kit = Kit::new().await;
    kit.records(|records| records.on_commit = OnCommit::CollectFirst);
    let answer = kit.put("a", &[], "abc").await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    assert_eq!(kit.blobs.head(Digest::of(b"abc")).await.expect("it is there"), 3);
    kit.records(|records| {
        assert_eq!(records.begins.len(), 2, "asked again for the number of sweeps");
        assert_eq!(records.commits[0].sweep, 1);
    });
    kit.nothing_is_staged().await;
}

#[tokio::test]
async fn a_blob_that_stays_condemned_is_given_up_within_the_bound() {
    let kit = Kit::with(|config| config.limits.condemned_ms = 250).await;
    kit.records(|records| records.on_commit = OnCommit::Condemned);
    let answer = kit.put("a", &[], "abc").await;
    assert_eq!((answer.status.as_u16(), answer.problem().code.word()), (503, "overloaded"));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(kit.records(|records| records.begins.len()), 3);
    kit.nothing_is_staged().await;
}

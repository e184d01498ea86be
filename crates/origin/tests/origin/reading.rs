//! Content for nodes and for people, and blobs for nodes.

use api::{Access, Digest, SLICE_BYTES, headers as own, slices};
use http_cache::date;
use net::Body;

use crate::control::USER;
use crate::kit::{Kit, body};

const SLICE: usize = SLICE_BYTES as usize;
const NOBODY: (&str, &str) = ("authorization", "");

#[tokio::test]
async fn a_file_with_everything_that_is_known_of_it() {
    let kit = Kit::new().await;
    let bytes = body(2 * SLICE + 5);
    let file = kit.publish("a b/ü.txt", &bytes).await;
    let id = file.id;
    for path in ["/-/content/files/a%20b/%C3%BC.txt".to_owned(), format!("/-/content-id/{id}")] {
        let answer = kit.node_get(&path, &[]).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == bytes && !answer.broken);
        for (name, expected) in [
            ("content-type", "text/plain"),
            ("content-length", &*bytes.len().to_string()),
            ("cache-control", "max-age=60"),
            ("surrogate-key", "a b"),
            ("accept-ranges", "bytes"),
            ("etag", &*file.digest.etag()),
            ("last-modified", &*date::format(1_700_000_000)),
            (own::ZONE, "files"),
            (own::PATH, "a%20b/%C3%BC.txt"),
            (own::ID, &*id.to_string()),
            (own::VERSION, "3"),
            (own::DIGEST, &*file.digest.to_string()),
        ] {
            assert_eq!(answer.header(name), expected, "{name}");
        }
        let client = kit.get(&path, &[NOBODY]).await;
        assert!(client.body == bytes);
        assert_eq!(client.header("surrogate-key"), "", "tags are not for clients");

        let head = kit.send("HEAD", &path, &[], Body::empty()).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), bytes.len().to_string());
    }
    assert_eq!(kit.metric("littoral_origin_sent_bytes_total"), 4 * bytes.len() as u64);
}

#[tokio::test]
async fn ranges_and_conditions() {
    let kit = Kit::new().await;
    let bytes = body(3 * SLICE + 9);
    let size = bytes.len();
    let file = kit.publish("a", &bytes).await;
    let etag = file.digest.etag();
    let path = "/-/content/files/a";
    for (first, last) in [(0, SLICE - 1), (SLICE - 1, SLICE), (5, size - 1), (size - 1, size - 1)] {
        let answer = kit.node_get(path, &[("range", &format!("bytes={first}-{last}"))]).await;
        assert_eq!(answer.status, 206);
        assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/{size}"));
        assert!(answer.body == bytes[first..=last], "{first}-{last}");
    }

    let answer = kit.get(path, &[("range", "bytes=0-1,1048576-1048577,-1")]).await;
    assert_eq!(answer.status, 206);
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").expect("several");
    let mut expected = Vec::new();
    for (first, last) in [(0, 1), (SLICE, SLICE + 1), (size - 1, size - 1)] {
        expected.extend_from_slice(
            format!(
                "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
            )
            .as_bytes(),
        );
        expected.extend_from_slice(&bytes[first..=last]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(answer.body == expected);
    assert_eq!(answer.header("content-length"), expected.len().to_string());

    for (name, value) in [("if-none-match", etag.as_str()), ("if-modified-since", &date::format(1_700_000_000))] {
        let answer = kit.node_get(path, &[(name, value)]).await;
        assert_eq!((answer.status.as_u16(), answer.body.len(), answer.header("etag")), (304, 0, etag.as_str()));
        assert_eq!(answer.header(own::VERSION), "3");
    }
    let answer = kit.get(path, &[("range", "bytes=0-1"), ("if-range", "\"other\"")]).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, size));
    assert_eq!(kit.get(path, &[("if-match", "\"other\"")]).await.problem().code.word(), "precondition_failed");
    let answer = kit.get(path, &[("range", &format!("bytes={size}-"))]).await;
    assert_eq!((answer.status.as_u16(), answer.problem().code.word()), (416, "range_not_satisfiable"));
    assert_eq!(answer.header("content-range"), format!("bytes */{size}"));
    let thousand = (0..1_000).map(|n| format!("{n}-{n},")).collect::<String>();
    let answer = kit.get(path, &[("range", &format!("bytes={thousand}"))]).await;
    assert_eq!((answer.status.as_u16(), answer.problem().code.word()), (416, "too_many_ranges"));
}

#[tokio::test]
async fn an_empty_file() {
    let kit = Kit::new().await;
    kit.publish("a", b"").await;
    let answer = kit.get("/-/content/files/a", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-length")), (200, "0"));
    let range = [("range", "bytes=0-1048575")];
    assert_eq!(kit.get("/-/content/files/a", &range).await.status, 416);
    let answer = kit.node_get("/-/content/files/a", &range).await;
    assert_eq!((answer.status.as_u16(), answer.header(own::VERSION)), (200, "3"), "a node wants to know what it is");
}

#[tokio::test]
async fn what_may_not_be_read_or_is_not_there() {
    let kit = Kit::new().await;
    kit.publish("a", b"x").await;
    let a = "/-/content/files/a";
    for (path, fields, status, code) in [
        ("/-/content/files/b", &[][..], 404, "unknown_file"),
        ("/-/content/files/", &[], 400, "invalid_name"),
        ("/-/content/files", &[], 400, "invalid_name"),
        ("/-/content/files/../a", &[], 400, "invalid_name"),
        ("/-/content/FILES/a", &[], 400, "invalid_name"),
        ("/-/content-id/x", &[], 400, "invalid_name"),
        ("/-/other/a", &[], 404, "unknown_endpoint"),
        ("/-/", &[], 404, "unknown_endpoint"),
        (a, &[(own::NODE_TOKEN, "lit_wrong")], 401, "unauthorized"),
        (a, &[(own::NODE_TOKEN, "")], 401, "unauthorized"),
    ] {
        let problem = kit.get(path, fields).await.problem();
        assert_eq!((problem.status, problem.code.word()), (status, code), "{path}");
    }
    let answer = kit.send("DELETE", a, &[], Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET, HEAD"));

    kit.records(|records| records.access = Access::Private);
    assert_eq!(kit.get(a, &[NOBODY]).await.problem().code.word(), "unauthorized");
    assert_eq!(kit.get(a, &[("authorization", "Bearer wrong")]).await.status, 401);
    assert_eq!(kit.get(a, &[("authorization", USER)]).await.status, 200);
    assert_eq!(kit.node_get(a, &[NOBODY]).await.status, 200, "a node has checked its own client");
}

#[tokio::test]
async fn blobs_and_their_chaining_values_are_for_nodes() {
    let kit = Kit::new().await;
    let bytes = body(5 * SLICE + 1);
    let digest = kit.store(&bytes).await;
    let path = format!("/-/blob/{digest}");
    let answer = kit.node_get(&path, &[("range", "bytes=1048576-3145727")]).await;
    assert_eq!((answer.status.as_u16(), answer.header(own::DIGEST)), (206, &*digest.to_string()));
    assert!(answer.body == bytes[SLICE..3 * SLICE]);
    assert!(kit.node_get(&path, &[]).await.body == bytes);

    let raw = kit.node_get(&format!("{path}/slices"), &[]).await;
    assert_eq!(raw.header("content-type"), "application/octet-stream");
    let values = slices::parse_values(digest, bytes.len() as u64, &raw.body).expect("they prove the blob");
    assert!(slices::verify(digest, bytes.len() as u64, &values, 1, &bytes[SLICE..2 * SLICE]));
    let small = kit.store(b"small").await;
    let answer = kit.node_get(&format!("/-/blob/{small}/slices"), &[]).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "one slice needs no proof but the digest");

    for path in [path.clone(), format!("{path}/slices")] {
        assert_eq!(kit.get(&path, &[]).await.problem().code.word(), "unauthorized");
        assert_eq!(kit.get(&path, &[(own::NODE_TOKEN, "lit_wrong")]).await.status, 401);
    }
    let nowhere = Digest::of(b"nowhere");
    for path in [format!("/-/blob/{nowhere}"), format!("/-/blob/{nowhere}/slices")] {
        assert_eq!(kit.node_get(&path, &[]).await.problem().code.word(), "unknown_file");
    }
    assert_eq!(kit.node_get("/-/blob/abc", &[]).await.problem().code.word(), "invalid_name");
}

#[tokio::test]
async fn bytes_that_are_wrong_are_never_served_whole() {
    let kit = Kit::new().await;
    let good = body(4 * SLICE);
    let file = kit.publish("a", &good).await;
    let blob = kit.blob(file.digest);

    let mut bad = good.clone();
    bad[7] ^= 1;
    std::fs::write(&blob, &bad).expect("write");
    let answer = kit.get("/-/content/files/a", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.problem().code.word()), (502, "blob_corrupt"));
    let later = kit.node_get("/-/content/files/a", &[("range", "bytes=1048576-")]).await;
    assert!(later.body == good[SLICE..], "slices that are good are served");

    let mut bad = good.clone();
    bad[2 * SLICE] ^= 1;
    std::fs::write(&blob, &bad).expect("write");
    let answer = kit.get("/-/content/files/a", &[]).await;
    assert_eq!(answer.status, 200);
    assert!(answer.broken, "the transfer breaks");
    assert!(answer.body == good[..answer.body.len()] && answer.body.len() <= 2 * SLICE, "and nothing wrong is sent");
    let multipart = kit.get("/-/content/files/a", &[("range", "bytes=2097152-2097153,5-6")]).await;
    assert_eq!(multipart.problem().code.word(), "blob_corrupt");

    for bad in [&good[..good.len() - 1], &[]] {
        std::fs::write(&blob, bad).expect("write");
        assert_eq!(kit.get("/-/content/files/a", &[]).await.problem().code.word(), "blob_corrupt");
    }
    std::fs::remove_file(&blob).expect("remove");
    assert_eq!(kit.get("/-/content/files/a", &[]).await.problem().code.word(), "blob_corrupt");
    assert!(kit.metric("littoral_origin_corrupt_slices_total") >= 5);
}

#[tokio::test]
async fn downloads_at_the_same_time_are_bounded() {
    let kit = Kit::with(|config| config.limits.reads = 0).await;
    kit.publish("a", b"x").await;
    let answer = kit.get("/-/content/files/a", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    assert_eq!(kit.send("HEAD", "/-/content/files/a", &[], Body::empty()).await.status, 200, "a head costs nothing");
}

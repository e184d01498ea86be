//! Each kind of nonsense gets a problem document that says what was wrong.

use http::Method;

use crate::kit::{ADMIN, Kit, NODE};

/// Sends it as the administrator, or as a node to the endpoints between nodes.
async fn check(kit: &Kit, method: Method, target: &str, body: &str, expected: &[&str]) {
    let token = if target.starts_with("/v1/node/") { NODE } else { ADMIN };
    let shown = kit.send(method.clone(), target, Some(token), body).await.shown();
    for part in expected {
        assert!(shown.contains(part), "{method} {target} {body:.80}\n  {shown}\n  lacks {part:?}");
    }
}

#[tokio::test]
async fn addresses_and_methods() {
    let kit = Kit::new().await;
    check(&kit, Method::GET, "/", "", &["404 unknown_endpoint", "nothing at /"]).await;
    check(&kit, Method::GET, "/v1/zonez", "", &["404 unknown_endpoint", "/v1/zonez"]).await;
    check(&kit, Method::PUT, "/v1/zones/files/files/a", "x", &["405 method_not_allowed", "PUT"]).await;
    let answer = kit.send(Method::POST, "/v1/zones", Some(ADMIN), "").await;
    assert!(answer.shown().contains("405 method_not_allowed"));
    assert_eq!(answer.headers["allow"], "GET,HEAD");
    let head = kit.send(Method::HEAD, "/v1/zones", Some(ADMIN), "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
}

#[tokio::test]
async fn paths_and_names() {
    let kit = Kit::new().await;
    let long = "x".repeat(1_025);
    for (path, why) in [
        ("..", "'.' and '..'"),
        ("%2e%2e/a", "'.' and '..'"),
        ("a/%2E%2E/b", "'.' and '..'"),
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("%2Fetc/passwd", "absolute"),
        ("a%00b", "control character"),
        ("%ff", "not UTF-8"),
        ("a%2", "hexadecimal"),
        ("a//b", "empty segment"),
        ("-/a", "reserved"),
        (&long, "at most 1024"),
    ] {
        check(&kit, Method::GET, &format!("/v1/zones/files/files/{path}"), "", &["400 invalid_name", why]).await;
        check(&kit, Method::DELETE, &format!("/v1/zones/files/files/{path}"), "", &["400 invalid_name", why]).await;
    }
    check(&kit, Method::GET, "/v1/zones/files/files/%2561", "", &["404 unknown_file", "'%61'"]).await;
    check(&kit, Method::GET, "/v1/zones/FILES", "", &["400 invalid_name", "zone name"]).await;
    check(&kit, Method::GET, "/v1/zones/nope/files/a", "", &["404 unknown_zone", "'nope'"]).await;
    check(&kit, Method::GET, "/v1/zones/nope", "", &["404 unknown_zone", "'nope'"]).await;
    check(&kit, Method::GET, "/v1/files/17", "", &["400 invalid_name", "UUID"]).await;
    check(&kit, Method::DELETE, "/v1/nodes/a_b", "", &["400 invalid_name", "node name"]).await;
    check(&kit, Method::DELETE, "/v1/nodes/nope", "", &["404 unknown_node", "'nope'"]).await;
    check(&kit, Method::DELETE, "/v1/tokens/nope", "", &["404 unknown_token", "'nope'"]).await;
}

#[tokio::test]
async fn queries() {
    let kit = Kit::new().await;
    let list = "/v1/zones/files/files";
    check(&kit, Method::GET, &format!("{list}?limit=0"), "", &["400 invalid_request", "1 to 1000"]).await;
    check(&kit, Method::GET, &format!("{list}?limit=1001"), "", &["400 invalid_request", "1 to 1000"]).await;
    check(&kit, Method::GET, &format!("{list}?limit=x"), "", &["400 invalid_request", "invalid digit"]).await;
    check(&kit, Method::GET, &format!("{list}?prefx=a"), "", &["400 invalid_request", "unknown field `prefx`"]).await;
    check(&kit, Method::GET, &format!("{list}?cursor=%2a"), "", &["400 invalid_request", "cursor"]).await;
    check(&kit, Method::DELETE, &format!("{list}/a?wait=nodes"), "", &["400 invalid_request", "edges"]).await;
    check(&kit, Method::GET, "/v1/locate?zone=files", "", &["400 invalid_request", "path"]).await;
    check(&kit, Method::GET, "/v1/locate?zone=files&path=a&lat=1", "", &["400", "both lat and lng"]).await;
    check(&kit, Method::GET, "/v1/locate?zone=files&path=a&lat=91&lng=0", "", &["400 invalid_name", "-90 to 90"]).await;
    check(&kit, Method::GET, "/v1/locate?zone=files&path=a&lat=NaN&lng=0", "", &["400 invalid_name"]).await;
    check(&kit, Method::GET, "/v1/locate?zone=nope&path=a", "", &["404 unknown_zone"]).await;
    check(&kit, Method::GET, "/v1/locate?zone=files&path=a", "", &["404 unknown_file"]).await;
    check(&kit, Method::GET, "/v1/events?after=-1", "", &["400 invalid_request"]).await;
    check(&kit, Method::GET, "/v1/node/resolve?zone=files", "", &["400 invalid_request", "by zone and path, or by id"])
        .await;
    check(&kit, Method::GET, "/v1/node/holders", "", &["400 invalid_request", "by zone and path, or by id"]).await;
}

#[tokio::test]
async fn bodies() {
    let kit = Kit::new().await;
    let zone = "/v1/zones/files";
    check(&kit, Method::PUT, zone, "", &["400 invalid_request", "JSON", "line 1"]).await;
    check(
        &kit,
        Method::PUT,
        zone,
        "{\n  \"name\": \"files\",\n  \"tll_s\": 5\n}",
        &["unknown field `tll_s`", "line 3 column"],
    )
    .await;
    check(&kit, Method::PUT, zone, "{\"name\":\"other\"}", &["400 invalid_request", "'files'", "'other'"]).await;
    check(&kit, Method::PUT, zone, "{\"name\":\"files\",\"hosts\":[\"A.example\"]}", &["400", "not a hostname"]).await;
    check(&kit, Method::PUT, "/v1/zones/x", "{\"name\":\"x\",\"catch_all\":true}", &["409 conflict", "'files'"]).await;
    let id = kit.put("files", "a", "1", false).await.file.id;
    check(&kit, Method::DELETE, zone, "", &["409 conflict", "1 file"]).await;
    let patch = format!("/v1/files/{id}");
    check(&kit, Method::PATCH, &patch, "{}", &["400 invalid_request", "changes nothing"]).await;
    check(&kit, Method::PATCH, &patch, "{\"path\":\"../x\"}", &["400 invalid_request", "'.' and '..'"]).await;
    check(&kit, Method::PATCH, &patch, "{\"media_type\":\"x\"}", &["400 invalid_request", "media_type"]).await;
    check(&kit, Method::PATCH, &patch, "{\"cache_control\":\"a\\nb\"}", &["400 invalid_request", "cache_control"])
        .await;
    let tags: Vec<String> = (0..129).map(|n| format!("\"t{n}\"")).collect();
    check(&kit, Method::PATCH, &patch, &format!("{{\"tags\":[{}]}}", tags.join(",")), &["413 too_large", "128"]).await;
    check(&kit, Method::POST, "/v1/purge", "{}", &["400 invalid_request", "must name something"]).await;
    check(&kit, Method::POST, "/v1/purge", "{\"urls\":[\"/a\"]}", &["400", "urls[0] \"/a\"", "zone"]).await;
    check(&kit, Method::POST, "/v1/tokens", "{\"label\":\"\",\"scopes\":[\"read\"]}", &["400", "label"]).await;
    check(&kit, Method::POST, "/v1/tokens", "{\"label\":\"x\"}", &["400", "scopes"]).await;
    check(
        &kit,
        Method::POST,
        "/v1/tokens",
        "{\"label\":\"x\",\"kind\":\"node\",\"scopes\":[\"read\"]}",
        &["400", "takes none"],
    )
    .await;
    check(
        &kit,
        Method::POST,
        "/v1/tokens",
        "{\"label\":\"x\",\"scopes\":[\"read\"],\"expires_in_s\":0}",
        &["400", "expires_in_s"],
    )
    .await;
    let over = format!("{{\"urls\":[\"{}\"]}}", "x".repeat(api::MAX_JSON_BODY_BYTES));
    check(&kit, Method::POST, "/v1/purge", &over, &["413 too_large", "1048576"]).await;
}

#[tokio::test]
async fn nodes_are_held_to_their_bounds() {
    let kit = Kit::new().await;
    let join = |name: &str, url: &str| {
        format!(
            "{{\"node\":{{\"name\":\"{name}\",\"place\":{{\"lat\":0,\"lng\":0}},\"url\":\"{url}\"}},\"keeps_placements\":true}}"
        )
    };
    check(&kit, Method::POST, "/v1/node/join", &join("a", "a.example"), &["400 invalid_request", "http://HOST:PORT"])
        .await;
    check(&kit, Method::POST, "/v1/node/join", &join("origin", "http://a"), &["400", "origin"]).await;
    check(&kit, Method::POST, "/v1/node/ack", "{\"node\":\"a\",\"applied\":1}", &["404 unknown_node", "join"]).await;
    check(
        &kit,
        Method::POST,
        "/v1/node/placements?node=a",
        "{\"added\":[],\"removed\":[\"019a9f3e-0000-7000-8000-000000000000\"]}",
        &["404 unknown_node"],
    )
    .await;
    let id = "\"019a9f3e-0000-7000-8000-000000000000\"";
    let many = format!("{{\"added\":[],\"removed\":[{}]}}", vec![id; 5_001].join(","));
    check(&kit, Method::POST, "/v1/node/placements?node=a", &many, &["413 too_large", "5000"]).await;
    let digest = format!("\"{}\"", "ab".repeat(32));
    let many = format!("{{\"digests\":[{}]}}", vec![&*digest; 1_001].join(","));
    check(&kit, Method::POST, "/v1/node/blobs/condemn", &many, &["413 too_large", "1000"]).await;
    check(&kit, Method::POST, "/v1/node/blobs/forget", &many, &["413 too_large", "1000"]).await;
    check(
        &kit,
        Method::PUT,
        "/v1/node/health",
        "{\"generation\":1,\"nodes\":[]}",
        &["400 invalid_request", "empty membership"],
    )
    .await;
}

//! Every endpoint with every kind of token, and private zones.

use std::sync::atomic::Ordering;

use api::names::FilePath;
use api::node::{UploadBegin, UploadTarget};
use api::{Access, ErrorCode, Scope, ZoneDoc};
use client::node::FileKey;
use http::Method;

use crate::kit::{ADMIN, Kit, NODE, NOW_MS, parse, secret};

const ID: &str = "019a9f3e-0000-7000-8000-000000000000";

/// Every endpoint, with the words of who may use it. `all` is everyone, also without a token.
const ENDPOINTS: &[(&str, &str, &str)] = &[
    ("GET", "/v1/zones/files/files/a", "read"),
    ("DELETE", "/v1/zones/files/files/a", "write"),
    ("GET", "/v1/zones/files/files", "read"),
    ("GET", "/v1/files/{id}", "read"),
    ("PATCH", "/v1/files/{id}", "write"),
    ("DELETE", "/v1/files/{id}", "write"),
    ("GET", "/v1/files/{id}/versions", "read"),
    ("POST", "/v1/purge", "purge"),
    ("GET", "/v1/zones", "read"),
    ("GET", "/v1/zones/files", "read"),
    ("PUT", "/v1/zones/files", "admin"),
    ("DELETE", "/v1/zones/nope", "admin"),
    ("GET", "/v1/nodes", "read"),
    ("DELETE", "/v1/nodes/nope", "admin"),
    ("GET", "/v1/events?follow=false", "read node"),
    ("GET", "/v1/locate?zone=files&path=a", "all"),
    ("GET", "/v1/tokens", "admin"),
    ("POST", "/v1/tokens", "admin"),
    ("DELETE", "/v1/tokens/nope", "admin"),
    ("GET", "/v1/status", "read"),
    ("GET", "/v1/openapi.json", "all"),
    ("POST", "/v1/node/join", "node"),
    ("GET", "/v1/node/snapshot", "node"),
    ("POST", "/v1/node/ack", "node"),
    ("POST", "/v1/node/placements?node=a", "node"),
    ("GET", "/v1/node/holders?zone=files&path=a", "node"),
    ("GET", "/v1/node/resolve?zone=files&path=a", "node"),
    ("PUT", "/v1/node/health", "node"),
    ("POST", "/v1/node/uploads/begin", "node"),
    ("POST", "/v1/node/uploads/commit", "node"),
    ("POST", "/v1/node/blobs/condemn", "node"),
    ("POST", "/v1/node/blobs/forget", "node"),
    ("GET", "/v1/node/blobs/condemned", "node"),
];

#[tokio::test]
async fn every_endpoint_opens_to_whom_it_should() {
    let kit = Kit::new().await;
    let mut holders = vec![("admin", ADMIN.to_owned()), ("node", NODE.to_owned())];
    for scope in [Scope::Read, Scope::Write, Scope::Purge] {
        holders.push((scope.word(), kit.user(&[scope], None).await.1));
    }
    let (_, expired) = kit.user(&[Scope::Admin], Some(1)).await;
    kit.clock_ms.store(NOW_MS + 1_000, Ordering::Relaxed);
    for &(method, target, who) in ENDPOINTS {
        let target = target.replace("{id}", ID);
        let ask = async |token: Option<&str>| {
            kit.send(Method::from_bytes(method.as_bytes()).expect("method"), &target, token, "?").await
        };
        let open = who == "all";
        for (token, code) in
            [(None, "unauthorized"), (Some("lit_unknown"), "unauthorized"), (Some(&*expired), "token_expired")]
        {
            let answer = ask(token).await;
            if open {
                assert!(answer.status != 401 && answer.status != 403, "{method} {target}: {}", answer.status);
                continue;
            }
            assert_eq!((answer.status.as_u16(), answer.problem().code.word()), (401, code), "{method} {target}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
        for (name, token) in &holders {
            let may = open || who.split(' ').any(|word| word == *name) || (*name == "admin" && who != "node");
            let answer = ask(Some(token)).await;
            assert!(answer.status != 401, "{method} {target} as {name}");
            assert_eq!(answer.status != 403, may, "{method} {target} as {name}: {}", answer.status);
            let missing = who.split(' ').next().expect("word");
            if !may && *name != "node" && missing != "node" {
                let detail = answer.problem().detail;
                assert!(detail.contains(&format!("lacks the scope '{missing}'")), "{detail}");
            }
        }
    }
    // Nothing that is described to the public is missing above, but uploads, which the origin takes.
    let described: serde_json::Value = serde_json::from_str(&api::openapi::json()).expect("json");
    for (path, methods) in described["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys().map(|method| method.to_uppercase()) {
            let uploads = [
                ("PUT", "/v1/zones/{zone}/files/{path}"),
                ("POST", "/v1/zones/{zone}/files"),
                ("PUT", "/v1/files/{id}"),
            ];
            let shape = |target: &str| {
                let target = target.split('?').next().unwrap_or_default();
                target
                    .replace("/zones/files", "/zones/{zone}")
                    .replace("/files/a", "/files/{path}")
                    .replace("nope", "*")
            };
            let path = path.replace("/nodes/{name}", "/nodes/*").replace("/tokens/{id}", "/tokens/*");
            let known = ENDPOINTS.iter().any(|(m, target, _)| {
                *m == method && (shape(target) == path || shape(target).replace('*', "{zone}") == path)
            });
            assert!(known || uploads.contains(&(&*method, &*path)), "{method} {path} is not in the table");
        }
    }
}

#[tokio::test]
async fn uploads_begin_with_the_scope_write_of_the_client() {
    let kit = Kit::new().await;
    let (_, reader) = kit.user(&[Scope::Read], None).await;
    let (_, writer) = kit.user(&[Scope::Write], None).await;
    let begin = async |authorization: Option<String>| {
        let target = UploadTarget::Path { zone: parse("files"), path: parse("a") };
        let begin = UploadBegin { authorization, target, conditions: Default::default() };
        kit.node().upload_begin(&begin).await.map_err(|error| error.code().expect("code"))
    };
    let code = async |authorization: Option<String>| begin(authorization).await.expect_err("refused");
    assert_eq!(code(None).await, ErrorCode::Unauthorized);
    assert_eq!(code(Some("Basic x".to_owned())).await, ErrorCode::Unauthorized);
    assert_eq!(code(Some(format!("Bearer {NODE}"))).await, ErrorCode::Forbidden);
    assert_eq!(code(Some(format!("Bearer {reader}"))).await, ErrorCode::Forbidden);
    assert_eq!(begin(Some(format!("Bearer {writer}"))).await.expect("ready").path.as_str(), "a");
}

#[tokio::test]
async fn a_private_zone_tells_nothing_to_strangers() {
    let kit = Kit::new().await;
    let private = ZoneDoc { access: Access::Private, ..ZoneDoc::new(parse("secret")) };
    kit.admin().put_zone(&private).await.expect("zone");
    let file = kit.put("secret", "a", "1", false).await.file;
    kit.put("files", "a", "1", false).await;
    let (_, reader) = kit.user(&[Scope::Read], None).await;
    let (_, writer) = kit.user(&[Scope::Write], None).await;
    let bearer = |token: &str| format!("Bearer {token}");
    let key = |path: &str| FileKey::Path(parse("secret"), parse::<FilePath>(path));

    let ask = async |key: &FileKey, client: Option<&str>, as_node| {
        let answer = kit.node().resolve(key, client, as_node).await;
        answer.map(|resolved| resolved.access).map_err(|error| error.code().expect("code"))
    };
    for key in [key("a"), FileKey::Id(file.id)] {
        assert_eq!(ask(&key, None, false).await, Err(ErrorCode::Unauthorized));
        assert_eq!(ask(&key, Some(&bearer(&writer)), false).await, Err(ErrorCode::Forbidden));
        assert_eq!(ask(&key, Some(&bearer(NODE)), false).await, Err(ErrorCode::Forbidden));
        assert_eq!(ask(&key, Some(&bearer(&reader)), false).await, Ok(Access::Private));
        assert_eq!(ask(&key, None, true).await, Ok(Access::Private));
    }
    assert_eq!(ask(&key("missing"), None, false).await, Err(ErrorCode::Unauthorized), "not whether it is there");
    assert_eq!(ask(&key("missing"), None, true).await, Err(ErrorCode::UnknownFile));
    let public = FileKey::Path(parse("files"), parse("a"));
    assert_eq!(ask(&public, None, false).await, Ok(Access::Public));

    let locate = async |token: Option<&str>, zone: &str| {
        kit.client(token).locate(&parse(zone), &parse("a"), None).await.map_err(|error| error.code().expect("code"))
    };
    assert_eq!(locate(None, "secret").await, Err(ErrorCode::Unauthorized));
    assert_eq!(locate(Some(&writer), "secret").await, Err(ErrorCode::Forbidden));
    assert!(locate(Some(&reader), "secret").await.is_ok());
    assert!(locate(None, "files").await.is_ok());

    let snapshot = kit.node().snapshot().await.expect("snapshot");
    let hashes: Vec<_> = snapshot.readers.iter().map(|reader| reader.hash.clone()).collect();
    assert_eq!(hashes, [ADMIN, &*reader].map(|token| secret(token).hash()), "who may read, and nobody else");
}

//! Who may do what: tokens with scopes, private zones, tokens of nodes.

use api::{NewToken, Scope, TokenKind, ZoneDoc};
use client::UploadMeta;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use testbed::{Cluster, Settings, eventually};

async fn one_edge() -> Cluster {
    Cluster::with(Settings { edges: vec!["a@0,0"], ..Settings::default() }).await
}

async fn token(cluster: &Cluster, scopes: &[Scope], expires_in_s: Option<u64>) -> String {
    let token = NewToken { label: "test".into(), kind: TokenKind::User, scopes: scopes.to_vec(), expires_in_s };
    cluster.client().create_token(&token).await.expect("a token").token
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_endpoint_wants_its_scope() {
    let cluster = one_edge().await;
    let doc = cluster.put("a", "x").await;
    let by_id = format!("/v1/files/{}", doc.id);
    let cases: &[(Method, &str, &str, &str)] = &[
        (Method::PUT, "/v1/zones/files/files/b", "write", "body"),
        (Method::POST, "/v1/zones/files/files", "write", "body"),
        (Method::PUT, &by_id, "write", "body"),
        (Method::PATCH, &by_id, "write", "{\"media_type\":\"text/css\"}"),
        (Method::GET, "/v1/zones/files/files/a", "read", ""),
        (Method::GET, "/v1/zones/files/files", "read", ""),
        (Method::GET, &by_id, "read", ""),
        (Method::GET, "/v1/zones", "read", ""),
        (Method::GET, "/v1/nodes", "read", ""),
        (Method::GET, "/v1/status", "read", ""),
        (Method::GET, "/v1/events?after=0&follow=false", "read", ""),
        (Method::POST, "/v1/purge", "purge", "{\"zones\":[\"files\"]}"),
        (Method::PUT, "/v1/zones/new", "admin", "{\"name\":\"new\"}"),
        (Method::DELETE, "/v1/zones/new", "admin", ""),
        (Method::GET, "/v1/tokens", "admin", ""),
        (Method::POST, "/v1/tokens", "admin", "{\"label\":\"x\",\"scopes\":[\"read\"]}"),
        (Method::DELETE, "/v1/nodes/gone", "admin", ""),
        (Method::DELETE, "/v1/zones/files/files/b", "write", ""),
    ];
    let mut tokens = Vec::new();
    for scope in [Scope::Read, Scope::Write, Scope::Purge] {
        tokens.push((scope.word(), token(&cluster, &[scope], None).await));
    }
    let node = cluster.local.node_token.reveal().to_owned();
    for (method, path, scope, body) in cases {
        let ask = async |token: Option<&str>| {
            let answer = cluster.api(method.clone(), path, token, &[], body.to_string()).await;
            (answer.status, answer.text())
        };
        let (status, text) = ask(None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}: {text}");
        let (status, text) = ask(Some("lit_nonsense")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}: {text}");
        assert!(!text.contains("lit_nonsense"));
        for (has, token) in &tokens {
            if has != scope {
                let (status, text) = ask(Some(token)).await;
                assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path} with {has}: {text}");
                assert!(text.contains(&format!("'{scope}'")), "{text}");
            }
        }
        if !path.starts_with("/v1/events") {
            assert_eq!(ask(Some(&node)).await.0, StatusCode::FORBIDDEN, "{method} {path} with a node's token");
        }
    }
    let status = cluster.client().status().await.expect("status");
    assert_eq!((status.files, status.zones), (1, 1), "nothing was changed by any of these");
    for (method, path, scope, body) in cases {
        let right = tokens
            .iter()
            .find(|(has, _)| has == scope)
            .map_or_else(|| cluster.admin_token(), |(_, token)| token.clone());
        let answer = cluster.api(method.clone(), path, Some(&right), &[], body.to_string()).await;
        assert!(answer.status.is_success() || path.ends_with("/gone"), "{method} {path}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_expire_and_are_deleted() {
    let cluster = one_edge().await;
    let secret = token(&cluster, &[Scope::Read], Some(1)).await;
    let ask = async || cluster.api(Method::GET, "/v1/zones", Some(&secret), &[], "").await;
    eventually("a token of one second expires", || async { ask().await.status == StatusCode::UNAUTHORIZED }).await;
    let text = ask().await.text();
    assert!(text.contains("token_expired") && !text.contains(&secret), "{text}");

    let secret = token(&cluster, &[Scope::Read], None).await;
    let tokens = cluster.client().tokens().await.expect("tokens");
    assert!(!serde_json::to_string(&tokens).expect("json").contains(&secret));
    let id = &tokens.tokens.last().expect("the new one").id;
    cluster.client().delete_token(id).await.expect("deleted");
    assert_eq!(cluster.api(Method::GET, "/v1/zones", Some(&secret), &[], "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_between_nodes_is_open_to_others() {
    let cluster = one_edge().await;
    let admin = cluster.admin_token();
    for path in ["/v1/node/snapshot", "/v1/node/blobs/condemned", "/v1/node/resolve?zone=files&path=a"] {
        assert_eq!(
            cluster.api(Method::GET, path, Some(&admin), &[], "").await.status,
            StatusCode::NOT_FOUND,
            "{path} at the api address"
        );
        let direct = cluster.get(&format!("{}{path}", cluster.local.control)).await;
        assert_eq!(direct.status, StatusCode::UNAUTHORIZED);
        let bearer = format!("Bearer {admin}");
        let direct =
            cluster.ask(Method::GET, &format!("{}{path}", cluster.local.control), &[("authorization", &bearer)]).await;
        assert_eq!(direct.status, StatusCode::FORBIDDEN);
    }
    let doc = cluster.put("a", "x").await;
    for path in [format!("/-/blob/{}", doc.digest), format!("/-/blob/{}/slices", doc.digest)] {
        let answer = cluster.get(&format!("{}{path}", cluster.local.api)).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_zone_is_read_with_a_token_and_only_then() {
    let cluster = one_edge().await;
    let zone: ZoneDoc =
        serde_json::from_value(json!({"name": "secret", "hosts": ["secret.example"], "access": "private"}))
            .expect("zone");
    cluster.client().put_zone(&zone).await.expect("zone");
    let target = client::Upload::Path(zone.name.clone(), "a".parse().expect("path"));
    let meta = UploadMeta { wait: true, ..UploadMeta::default() };
    let (_, doc) = cluster.client().upload(&target, &meta, net::Body::full("hidden")).await.expect("uploaded");
    let reader = token(&cluster, &[Scope::Read], None).await;
    let writer = token(&cluster, &[Scope::Write], None).await;
    let edge = cluster.edge_url("a");
    let urls = [
        (format!("{edge}/a"), "secret.example"),
        (format!("{edge}/-/content/secret/a"), "x"),
        (format!("{edge}/-/{}", doc.id), "x"),
        (format!("{}/-/content/secret/a", cluster.local.api), "x"),
        (format!("{}/-/content-id/{}", cluster.local.api, doc.id), "x"),
    ];
    for (url, host) in &urls {
        let ask = async |token: Option<&str>| {
            let bearer = token.map(|token| format!("Bearer {token}")).unwrap_or_default();
            let mut headers = vec![("host", *host)];
            if token.is_some() {
                headers.push(("authorization", bearer.as_str()));
            }
            cluster.ask(Method::GET, url, &headers).await
        };
        eventually("the edge knows the reader's token", || async { ask(Some(&reader)).await.status == StatusCode::OK })
            .await;
        assert_eq!(ask(Some(&reader)).await.text(), "hidden", "{url}");
        for token in [None, Some("lit_nonsense"), Some(writer.as_str())] {
            let answer = ask(token).await;
            assert!(
                matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
                "{url} {token:?}: {}",
                answer.status
            );
            assert!(!answer.text().contains("hidden"));
        }
    }
    let locate = cluster.api(Method::GET, "/v1/locate?zone=secret&path=a", None, &[], "").await;
    assert_eq!(locate.status, StatusCode::UNAUTHORIZED);
    let answer: Value = serde_json::from_str(&locate.text()).expect("json");
    assert_eq!(answer["code"], "unauthorized");
}

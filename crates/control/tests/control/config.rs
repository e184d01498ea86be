//! Tokens, what is counted, and what a restart keeps.

use api::{ErrorCode, NewToken, Scope, TokenKind};
use http::Method;

use crate::kit::{ADMIN, Kit, parse};

#[tokio::test]
async fn a_secret_is_shown_once_and_dies_with_its_token() {
    let kit = Kit::new().await;
    let scopes = vec![Scope::Read, Scope::Read];
    let new = NewToken { label: "ci".to_owned(), kind: TokenKind::User, scopes, expires_in_s: Some(60) };
    let answer = kit.admin().create_token(&new).await.expect("token");
    assert_eq!((answer.doc.label.as_str(), answer.doc.expires_ms.is_some()), ("ci", true));
    let list = kit.send(Method::GET, "/v1/tokens", Some(ADMIN), "").await.text();
    assert!(list.contains(&answer.doc.id) && !list.contains(&answer.token) && !list.contains(ADMIN), "{list}");
    let client = kit.client(Some(&answer.token));
    client.status().await.expect("it opens what it should");
    kit.admin().delete_token(&answer.doc.id).await.expect("delete");
    assert_eq!(client.status().await.expect_err("deleted").code(), Some(ErrorCode::Unauthorized));
}

#[tokio::test]
async fn a_restart_keeps_everything_and_first_steps_change_nothing() {
    let kit = Kit::new().await;
    let file = kit.put("files", "a", "1", false).await.file;
    let (_, token) = kit.user(&[Scope::Read], None).await;
    kit.join("lisbon", 0.0, 0.0).await;
    let before = kit.admin().status().await.expect("status");
    let kit = kit.restart().await;
    assert_eq!(kit.client(Some(&token)).status().await.expect("status"), before);
    assert_eq!(kit.admin().file(&parse("files"), &parse("a")).await.expect("file"), file);
    assert_eq!(kit.admin().tokens().await.expect("tokens").tokens.len(), 3);
}

#[tokio::test]
async fn requests_are_counted_without_their_urls() {
    let kit = Kit::new().await;
    kit.put("files", "secret-name", "1", false).await;
    kit.send(Method::GET, "/v1/zones/files/files/secret-name", Some(ADMIN), "").await;
    kit.send(Method::GET, "/v1/other-secret", Some(ADMIN), "").await;
    let metrics = kit.metrics();
    assert!(metrics.contains("littoral_control_requests_total{"), "{metrics}");
    assert!(!metrics.contains("secret"), "{metrics}");
    assert!(metrics.contains("status=\"2xx\"") && metrics.contains("status=\"4xx\""), "{metrics}");
    assert!(metrics.contains("littoral_control_commit_seconds_count 1\n"), "{metrics}");
}

#[tokio::test]
async fn the_description_is_served_to_everyone() {
    let kit = Kit::new().await;
    let answer = kit.send(Method::GET, "/v1/openapi.json", None, "").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, api::openapi::json()));
}

//! Who may do what. Each handler that is not open to everyone begins with one of the extractors here, so that its need
//! stands in its signature and nothing of the request is read before it is met.

use std::sync::Arc;

use api::{ErrorCode, Problem, Scope, TokenDoc, TokenKind, TokenSecret};
use axum::extract::FromRequestParts;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::State;
use crate::problem::Failure;

/// What a token must be to open an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A user's, with this scope.
    Scope(Scope),
    /// A node's.
    Node,
    /// A node's, or a user's with this scope.
    NodeOr(Scope),
}

/// Whether `token`, which was found for what the client presented (nothing: `presented` is false), meets `need`.
///
/// # Errors
/// `Unauthorized`, `TokenExpired` or `Forbidden`, each saying what would be right.
fn judge(need: Need, presented: bool, token: Option<&TokenDoc>, now_ms: u64) -> Result<(), Problem> {
    let Some(token) = token else {
        let detail = if presented {
            "the token is not known; it may have been deleted, or belong to another installation"
        } else {
            "this needs a token: present it as 'Authorization: Bearer TOKEN'"
        };
        return Err(Problem::new(ErrorCode::Unauthorized, detail));
    };
    if token.expired(now_ms) {
        let detail = format!("the token '{}' has expired; ask for a new one", token.label);
        return Err(Problem::new(ErrorCode::TokenExpired, detail));
    }
    let forbidden = |detail: String| Err(Problem::new(ErrorCode::Forbidden, detail));
    match (need, token.kind) {
        (Need::Node | Need::NodeOr(_), TokenKind::Node) => Ok(()),
        (Need::Scope(_), TokenKind::Node) => {
            forbidden("a node's token opens only /v1/node/ and /v1/events; this needs a user's token".to_owned())
        }
        (Need::Node, TokenKind::User) => forbidden("this is between nodes, and needs a node's token".to_owned()),
        (Need::Scope(scope) | Need::NodeOr(scope), TokenKind::User) if token.permits(scope) => Ok(()),
        (Need::Scope(scope) | Need::NodeOr(scope), TokenKind::User) => {
            forbidden(format!("the token '{}' lacks the scope '{}', which this needs", token.label, scope.word()))
        }
    }
}

/// That the `Authorization` value of a request (`None`: it has none) meets `need`.
///
/// # Errors
/// Those of [`judge`], and `Unauthorized` for a value of another form.
pub(crate) async fn admit(state: &State, authorization: Option<&str>, need: Need) -> Result<(), Failure> {
    let token = match authorization {
        None => None,
        Some(value) => {
            let secret = bearer(value)?;
            state.catalog.token_by_hash(&secret.hash()).await?
        }
    };
    Ok(judge(need, authorization.is_some(), token.as_ref(), state.now_ms())?)
}

/// The secret in `Bearer TOKEN` (RFC 6750 § 2.1; the scheme in any case, RFC 9110 § 11.1).
fn bearer(value: &str) -> Result<TokenSecret, Problem> {
    let secret = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let secret = secret.and_then(|(_, secret)| TokenSecret::parse(secret.trim()).ok());
    secret.ok_or_else(|| Problem::new(ErrorCode::Unauthorized, "the Authorization header must be 'Bearer TOKEN'"))
}

/// Makes an extractor that only succeeds where a need is met.
macro_rules! permission {
    ($(#[$doc:meta])* $name:ident, $need:expr) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl FromRequestParts<Arc<State>> for $name {
            type Rejection = Failure;

            async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Failure> {
                // What is not visible ASCII is no token, but something was presented.
                let value = parts.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
                admit(state, value, $need).await.map(|()| Self)
            }
        }
    };
}

permission!(/** The client may read. */ MayRead, Need::Scope(Scope::Read));
permission!(/** The client may change files. */ MayWrite, Need::Scope(Scope::Write));
permission!(/** The client may purge. */ MayPurge, Need::Scope(Scope::Purge));
permission!(/** The client may administer. */ MayAdminister, Need::Scope(Scope::Admin));
permission!(/** The client is a node. */ IsNode, Need::Node);
permission!(/** The client may follow the events. */ MayFollow, Need::NodeOr(Scope::Read));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_and_every_token() {
        let token = |kind, scopes: &[Scope], expires_ms| TokenDoc {
            id: "1".to_owned(),
            label: "ci".to_owned(),
            kind,
            scopes: scopes.to_vec(),
            created_ms: 0,
            expires_ms,
        };
        let (user, node) = (TokenKind::User, TokenKind::Node);
        let reader = token(user, &[Scope::Read], Some(10));
        let writer = token(user, &[Scope::Write, Scope::Purge], None);
        let admin = token(user, &[Scope::Admin], None);
        let edge = token(node, &[], None);
        let check = |need, token: Option<&TokenDoc>, now_ms, expected: &str| {
            let shown = match judge(need, true, token, now_ms) {
                Ok(()) => "ok".to_owned(),
                Err(problem) => format!("{} {}", problem.code.word(), problem.detail),
            };
            assert!(shown.starts_with(expected), "{need:?} {token:?}: {shown}");
        };
        for scope in Scope::ALL {
            check(Need::Scope(scope), None, 0, "unauthorized");
            check(Need::Scope(scope), Some(&edge), 0, "forbidden a node's token");
            check(Need::Scope(scope), Some(&admin), 0, "ok");
            check(Need::NodeOr(scope), Some(&admin), 0, "ok");
            check(Need::NodeOr(scope), Some(&edge), 0, "ok");
        }
        check(Need::Node, Some(&edge), 0, "ok");
        check(Need::Node, Some(&admin), 0, "forbidden this is between nodes");
        check(Need::Node, None, 0, "unauthorized");
        check(Need::Scope(Scope::Read), Some(&reader), 9, "ok");
        check(Need::Scope(Scope::Read), Some(&reader), 10, "token_expired the token 'ci'");
        check(Need::Scope(Scope::Admin), Some(&reader), 10, "token_expired");
        check(Need::Scope(Scope::Write), Some(&reader), 9, "forbidden the token 'ci' lacks the scope 'write'");
        check(Need::Scope(Scope::Read), Some(&writer), 0, "forbidden the token 'ci' lacks the scope 'read'");
        check(Need::NodeOr(Scope::Read), Some(&writer), 0, "forbidden the token 'ci' lacks the scope 'read'");
        check(Need::Scope(Scope::Purge), Some(&writer), 0, "ok");
        check(Need::Scope(Scope::Admin), Some(&writer), 0, "forbidden the token 'ci' lacks the scope 'admin'");
        let nothing = judge(Need::Node, false, None, 0).expect_err("nothing").detail;
        assert!(nothing.contains("Authorization: Bearer"), "{nothing}");
    }

    #[test]
    fn bearer_values() {
        assert_eq!(bearer("Bearer lit_x").expect("plain").reveal(), "lit_x");
        assert_eq!(bearer("bearer  lit_x ").expect("spaces").reveal(), "lit_x");
        for bad in ["", "lit_x", "Basic lit_x", "Bearer", "Bearer ", "Bearer a b"] {
            let problem = bearer(bad).expect_err(bad);
            assert_eq!(problem.code, ErrorCode::Unauthorized);
            assert!(!problem.detail.contains("lit_x"));
        }
    }
}

//! Tokens: who may do what. A secret is 256 random bits; only its hash is ever stored.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::names::InvalidName;

/// What a token permits. `admin` permits everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Read private zones, listings, events and nodes.
    Read,
    /// Upload, change and delete files.
    Write,
    /// Purge.
    Purge,
    /// Zones, nodes, tokens, and all of the above.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Scope; 4] = [Scope::Read, Scope::Write, Scope::Purge, Scope::Admin];

    /// As it stands in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Purge => "purge",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Scope::ALL.into_iter().find(|scope| scope.word() == text).ok_or_else(|| InvalidName {
            what: "scope",
            shown: text.chars().take(80).collect(),
            why: "use read, write, purge or admin".to_owned(),
        })
    }
}

/// Who a token is for. A node's token opens the endpoints between nodes and nothing else; a user's, the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// A person or a program.
    User,
    /// A node of the CDN.
    Node,
}

/// The secret part of a token: `lit_` and 43 characters of base64url. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(String);

impl TokenSecret {
    /// A new secret of 256 bits from the operating system.
    ///
    /// # Errors
    /// The operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bits = [0_u8; 32];
        getrandom::fill(&mut bits)?;
        Ok(Self(format!("lit_{}", BASE64_URL_SAFE_NO_PAD.encode(bits))))
    }

    /// Takes a secret that somebody presents. Anything without spaces and of at most 256 bytes is worth looking up.
    ///
    /// # Errors
    /// Text that cannot be a token; the error does not repeat it.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > 256 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidName {
                what: "token",
                shown: "(not shown)".to_owned(),
                why: "use the text that was printed when the token was made; it begins with 'lit_'".to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret in clear, for an `Authorization` header or a file of mode 0600. Never for a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it. The secret has 256 random bits, so one pass of BLAKE3 is as good as any slow hash.
    pub fn hash(&self) -> TokenHash {
        TokenHash(blake3::hash(self.0.as_bytes()).to_hex().to_string())
    }

    /// A key for [`crate::heartbeat`] that says nothing about the secret.
    pub fn heartbeat_key(&self) -> [u8; 32] {
        blake3::derive_key("littoral 2026 heartbeat v1", self.0.as_bytes())
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

/// BLAKE3 of a [`TokenSecret`], hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct TokenHash(pub String);

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// A label for people, 1 to 100 characters.
    pub label: String,
    /// Who it is for.
    #[serde(default = "user")]
    pub kind: TokenKind,
    /// What it permits. A node's token takes none.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// Seconds until it expires; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

fn user() -> TokenKind {
    TokenKind::User
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenDoc {
    /// Names the token in `DELETE /v1/tokens/{id}`.
    pub id: String,
    /// Its label.
    pub label: String,
    /// Who it is for.
    pub kind: TokenKind,
    /// What it permits.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_ms: u64,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

impl TokenDoc {
    /// Whether it permits `scope`.
    pub fn permits(&self, scope: Scope) -> bool {
        self.kind == TokenKind::User && (self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin))
    }
    /// Whether it has expired at `now_ms`.
    pub fn expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }
}

/// The answer to a new token: the only time that its secret is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenAnswer {
    /// The token.
    #[serde(flatten)]
    pub doc: TokenDoc,
    /// The secret.
    pub token: String,
}

/// All tokens, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// Oldest first.
    pub tokens: Vec<TokenDoc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_unique_and_silent() {
        let (a, b) = (TokenSecret::generate().expect("random"), TokenSecret::generate().expect("random"));
        assert_ne!(a, b);
        assert_eq!(a.reveal().len(), 4 + 43);
        assert!(!format!("{a:?}").contains(a.reveal()));
        assert_eq!(TokenSecret::parse(a.reveal()).expect("parse").hash(), a.hash());
        for bad in ["", "a b", &"x".repeat(257)] {
            let error = TokenSecret::parse(bad).expect_err(bad).to_string();
            assert!(bad.is_empty() || !error.contains(bad));
        }
    }

    #[test]
    fn admin_permits_all_and_a_node_nothing() {
        let mut doc = TokenDoc {
            id: "1".into(),
            label: "x".into(),
            kind: TokenKind::User,
            scopes: vec![Scope::Admin],
            created_ms: 0,
            expires_ms: Some(10),
        };
        assert!(Scope::ALL.into_iter().all(|s| doc.permits(s)));
        assert!(doc.expired(10) && !doc.expired(9));
        doc.kind = TokenKind::Node;
        assert!(!Scope::ALL.into_iter().any(|s| doc.permits(s)));
    }
}

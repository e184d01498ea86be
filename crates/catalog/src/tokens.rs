//! Tokens, by the hash of their secret. The secret itself is never here.

use api::node::Reader;
use api::{NewToken, Scope, TokenDoc, TokenHash, TokenKind};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::rows::{integer, json, unsigned};
use crate::write::Change;
use crate::{Catalog, CatalogError, MAX_TOKENS, error};

impl Catalog {
    /// Keeps a new token. One that may read makes a `config` event, because edges keep the hashes of those.
    ///
    /// # Errors
    /// `Conflict` for a secret that is in use already, or when there are too many tokens.
    pub async fn create_token(&self, token: NewToken, hash: TokenHash, now_ms: u64) -> Result<TokenDoc, CatalogError> {
        self.change(now_ms, |change| Box::pin(change.create_token(token, hash))).await
    }

    /// The token whose secret has this hash, also when it has expired.
    ///
    /// # Errors
    /// The database failed.
    pub async fn token_by_hash(&self, hash: &TokenHash) -> Result<Option<TokenDoc>, CatalogError> {
        let select = sqlx::query("SELECT id, label, kind, scopes, created_ms, expires_ms FROM tokens WHERE hash = $1");
        let row = select.bind(&hash.0).fetch_optional(self.readers()).await?;
        row.as_ref().map(token).transpose()
    }

    /// All tokens, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tokens(&self) -> Result<Vec<TokenDoc>, CatalogError> {
        let select =
            sqlx::query("SELECT id, label, kind, scopes, created_ms, expires_ms FROM tokens ORDER BY created_ms, id");
        let rows = select.fetch_all(self.readers()).await?;
        rows.iter().map(token).collect()
    }

    /// Deletes a token. One that could read makes a `config` event.
    ///
    /// # Errors
    /// `UnknownToken`.
    pub async fn delete_token(&self, id: String, now_ms: u64) -> Result<(), CatalogError> {
        self.change(now_ms, |change| Box::pin(change.delete_token(id))).await
    }

    /// The tokens that may read private zones, as edges check them.
    ///
    /// # Errors
    /// The database failed.
    pub async fn readers_of_private_zones(&self) -> Result<Vec<Reader>, CatalogError> {
        let select = sqlx::query(
            "SELECT hash, id, label, kind, scopes, created_ms, expires_ms FROM tokens ORDER BY created_ms, id",
        );
        let mut readers = Vec::new();
        for row in &select.fetch_all(self.readers()).await? {
            let token = token(row)?;
            if token.permits(Scope::Read) {
                readers.push(Reader { hash: TokenHash(row.try_get("hash")?), expires_ms: token.expires_ms });
            }
        }
        Ok(readers)
    }
}

impl Change<'_> {
    async fn create_token(&mut self, new: NewToken, hash: TokenHash) -> Result<TokenDoc, CatalogError> {
        let count = sqlx::query("SELECT COUNT(*) AS tokens, COUNT(CASE WHEN hash = $1 THEN 1 END) AS same FROM tokens");
        let count = count.bind(&hash.0).fetch_one(self.sql()).await?;
        if unsigned(&count, "same")? > 0 {
            return Err(CatalogError::Conflict("there is a token with this secret already".to_owned()));
        }
        if unsigned(&count, "tokens")? >= MAX_TOKENS as u64 {
            return Err(CatalogError::Conflict(format!("there are {MAX_TOKENS} tokens already, which is the most")));
        }
        let expires_ms = new.expires_in_s.map(|s| self.now_ms.saturating_add(s.saturating_mul(1_000)));
        let token = TokenDoc {
            id: Uuid::now_v7().to_string(),
            label: new.label,
            kind: new.kind,
            scopes: new.scopes,
            created_ms: self.now_ms,
            expires_ms,
        };
        let scopes = serde_json::to_string(&token.scopes).map_err(|why| error::corrupt("scopes", why))?;
        let insert = sqlx::query(
            "INSERT INTO tokens (id, hash, label, kind, scopes, created_ms, expires_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        );
        let insert = insert.bind(&token.id).bind(&hash.0).bind(&token.label).bind(kind_word(token.kind)).bind(scopes);
        let insert = insert.bind(integer(token.created_ms)).bind(token.expires_ms.map(integer));
        insert.execute(self.sql()).await?;
        if token.permits(Scope::Read) {
            self.append_config().await?;
        }
        Ok(token)
    }

    async fn delete_token(&mut self, id: String) -> Result<(), CatalogError> {
        let delete =
            sqlx::query("DELETE FROM tokens WHERE id = $1 RETURNING id, label, kind, scopes, created_ms, expires_ms");
        let Some(row) = delete.bind(&id).fetch_optional(self.sql()).await? else {
            return Err(CatalogError::UnknownToken(id));
        };
        if token(&row)?.permits(Scope::Read) {
            self.append_config().await?;
        }
        Ok(())
    }
}

fn token(row: &SqliteRow) -> Result<TokenDoc, CatalogError> {
    let kind = match row.try_get("kind")? {
        "user" => TokenKind::User,
        "node" => TokenKind::Node,
        other => return Err(error::corrupt("kind", format!("{other:?} is no kind of token"))),
    };
    let expires_ms: Option<i64> = row.try_get("expires_ms")?;
    Ok(TokenDoc {
        id: row.try_get("id")?,
        label: row.try_get("label")?,
        kind,
        scopes: json(row, "scopes")?,
        created_ms: unsigned(row, "created_ms")?,
        expires_ms: expires_ms.map(|_| unsigned(row, "expires_ms")).transpose()?,
    })
}

fn kind_word(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::User => "user",
        TokenKind::Node => "node",
    }
}

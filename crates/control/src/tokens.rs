//! Tokens. A secret is in one answer, once; what is stored is its hash.

use std::sync::Arc;

use api::{ErrorCode, NewToken, TokenAnswer, TokenKind, TokenList, TokenSecret};
use axum::Json as Answer;
use axum::extract::{Path, State as Shared};
use http::StatusCode;

use crate::State;
use crate::access::MayAdminister;
use crate::input::Json;
use crate::problem::Failure;

/// Longest label in characters.
const MAX_LABEL_CHARS: usize = 100;

pub(crate) async fn list(_: MayAdminister, Shared(state): Shared<Arc<State>>) -> Result<Answer<TokenList>, Failure> {
    Ok(Answer(TokenList { tokens: state.catalog.tokens().await? }))
}

pub(crate) async fn create(
    _: MayAdminister,
    Shared(state): Shared<Arc<State>>,
    Json(token): Json<NewToken>,
) -> Result<(StatusCode, Answer<TokenAnswer>), Failure> {
    check(&token)?;
    let secret = TokenSecret::generate()
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("no randomness to make a secret of: {error}")))?;
    let doc = state.commit(state.catalog.create_token(token, secret.hash(), state.now_ms())).await?;
    Ok((StatusCode::CREATED, Answer(TokenAnswer { doc, token: secret.reveal().to_owned() })))
}

fn check(token: &NewToken) -> Result<(), Failure> {
    let label = token.label.chars().count();
    if !(1..=MAX_LABEL_CHARS).contains(&label) || token.label.chars().any(char::is_control) {
        return Err(Failure::invalid(format!("label: use 1 to {MAX_LABEL_CHARS} characters on one line")));
    }
    match (token.kind, token.scopes.is_empty()) {
        (TokenKind::User, true) => Err(Failure::invalid("scopes: name at least one of read, write, purge, admin")),
        (TokenKind::Node, false) => Err(Failure::invalid("scopes: a node's token takes none")),
        _ if token.expires_in_s == Some(0) => Err(Failure::invalid("expires_in_s: use at least 1, or leave it out")),
        _ => Ok(()),
    }
}

pub(crate) async fn remove(
    _: MayAdminister,
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    state.commit(state.catalog.delete_token(id, state.now_ms())).await?;
    Ok(StatusCode::NO_CONTENT)
}

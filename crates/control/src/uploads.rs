//! The two halves of an upload that are control's: may it begin, and make it so.

use std::sync::Arc;
use std::time::Instant;

use api::Scope;
use api::node::{Committed, UploadBegin, UploadCommit, UploadReady};
use axum::Json as Answer;
use axum::extract::State as Shared;

use crate::State;
use crate::access::{IsNode, Need, admit};
use crate::input::Json;
use crate::problem::Failure;

pub(crate) async fn begin(
    _: IsNode,
    Shared(state): Shared<Arc<State>>,
    Json(begin): Json<UploadBegin>,
) -> Result<Answer<UploadReady>, Failure> {
    admit(&state, begin.authorization.as_deref(), Need::Scope(Scope::Write)).await?;
    let (path, sweep) = state.catalog.begin_upload(&begin.target, &begin.conditions).await?;
    Ok(Answer(UploadReady { path, sweep }))
}

pub(crate) async fn commit(
    _: IsNode,
    Shared(state): Shared<Arc<State>>,
    Json(commit): Json<UploadCommit>,
) -> Result<Answer<Committed>, Failure> {
    let wait = commit.wait;
    let done = state.catalog.commit_upload(commit, state.now_ms()).await?;
    let committed = Instant::now();
    let file = state.document(done.file, wait.then_some(committed)).await?;
    Ok(Answer(Committed { created: done.created, file }))
}

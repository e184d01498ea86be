//! The two halves of an upload that are control's: may it begin, and make it so.

use std::sync::Arc;

use api::Scope;
use api::node::{Committed, UploadBegin, UploadCommit, UploadReady};
use axum::Json as Answer;
use axum::extract::State as Shared;

use crate::access::{IsNode, Need, admit};
use crate::files::check_served;
use crate::input::Json;
use crate::problem::Failure;
use crate::{State, wait};

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
    check_served(commit.media_type.as_deref(), commit.cache_control.as_deref(), &commit.tags)?;
    let place = state.acks.place(commit.wait)?;
    let done = state.commit(state.catalog.commit_upload(commit, state.now_ms())).await?;
    let receipts = wait::for_edges(&state, place, done.file.event).await?;
    let file = state.document(done.file, receipts).await?;
    Ok(Answer(Committed { created: done.created, file }))
}

//! Files: their documents, listings, renaming and deletion. Contents go through the origin.

use std::sync::Arc;

use api::node::{Conditions, UploadTarget};
use api::{
    ErrorCode, FileDoc, FileId, FileList, FilePatch, MAX_CACHE_CONTROL_BYTES, MAX_MEDIA_TYPE_BYTES, MAX_PAGE_FILES,
    MAX_TAGS_PER_FILE, PurgeAnswer, Receipt, Tag, VersionList, ZoneName,
};
use axum::Json as Answer;
use axum::extract::State as Shared;
use catalog::StoredFile;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;

use crate::access::{MayRead, MayWrite};
use crate::input::{FileAt, Json, Named, Params, WaitParam, conditions};
use crate::problem::Failure;
use crate::{State, wait};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    #[serde(default)]
    prefix: String,
    limit: Option<u32>,
    cursor: Option<String>,
}

impl State {
    /// The document of a file, with what the edges did if somebody waited for them.
    pub(crate) async fn document(&self, file: StoredFile, receipts: Vec<Receipt>) -> Result<FileDoc, Failure> {
        let zone = self.catalog.zone(&file.zone).await?;
        Ok(self.public_url.document(&zone, file, receipts))
    }
}

pub(crate) async fn list(
    _: MayRead,
    Shared(state): Shared<Arc<State>>,
    Named(zone): Named<ZoneName>,
    Params(params): Params<ListParams>,
) -> Result<Answer<FileList>, Failure> {
    let limit = params.limit.unwrap_or(MAX_PAGE_FILES);
    if !(1..=MAX_PAGE_FILES).contains(&limit) {
        return Err(Failure::invalid(format!("limit={limit} is out of bounds; use 1 to {MAX_PAGE_FILES}")));
    }
    let zone = state.catalog.zone(&zone).await?;
    let page = state.catalog.list(&zone.name, &params.prefix, limit, params.cursor.as_deref()).await?;
    let document = |file| state.public_url.document(&zone, file, Vec::new());
    Ok(Answer(FileList { files: page.files.into_iter().map(document).collect(), next_cursor: page.next_cursor }))
}

pub(crate) async fn read(
    _: MayRead,
    Shared(state): Shared<Arc<State>>,
    at: FileAt,
) -> Result<Answer<FileDoc>, Failure> {
    let file = state.catalog.file(&at.zone, &at.path).await?;
    state.document(file, Vec::new()).await.map(Answer)
}

pub(crate) async fn read_by_id(
    _: MayRead,
    Shared(state): Shared<Arc<State>>,
    Named(id): Named<FileId>,
) -> Result<Answer<FileDoc>, Failure> {
    let file = state.catalog.file_by_id(id).await?;
    state.document(file, Vec::new()).await.map(Answer)
}

pub(crate) async fn versions(
    _: MayRead,
    Shared(state): Shared<Arc<State>>,
    Named(id): Named<FileId>,
) -> Result<Answer<VersionList>, Failure> {
    Ok(Answer(VersionList { versions: state.catalog.versions(id).await? }))
}

pub(crate) async fn patch(
    _: MayWrite,
    Shared(state): Shared<Arc<State>>,
    Named(id): Named<FileId>,
    Params(wait): Params<WaitParam>,
    Json(patch): Json<FilePatch>,
) -> Result<Answer<FileDoc>, Failure> {
    if patch == FilePatch::default() {
        return Err(Failure::invalid("the patch changes nothing; give path, media_type, cache_control or tags"));
    }
    check_served(
        patch.media_type.as_deref(),
        patch.cache_control.as_deref(),
        patch.tags.as_deref().unwrap_or_default(),
    )?;
    let place = state.acks.place(wait.edges())?;
    let file = state.commit(state.catalog.patch_file(id, patch, state.now_ms())).await?;
    let receipts = wait::for_edges(&state, place, file.event).await?;
    state.document(file, receipts).await.map(Answer)
}

/// That a file can be served with these.
///
/// # Errors
/// `InvalidRequest`: one of them is too long, or cannot stand in a header.
pub(crate) fn check_served(media_type: Option<&str>, cache_control: Option<&str>, tags: &[Tag]) -> Result<(), Failure> {
    check_value("media_type", media_type, MAX_MEDIA_TYPE_BYTES)?;
    if media_type.is_some_and(|value| !value.contains('/')) {
        return Err(Failure::invalid("media_type is not a media type; use something like text/plain"));
    }
    check_value("cache_control", cache_control, MAX_CACHE_CONTROL_BYTES)?;
    if tags.len() > MAX_TAGS_PER_FILE {
        let detail = format!("{} tags; at most {MAX_TAGS_PER_FILE} are allowed", tags.len());
        return Err(Failure::new(ErrorCode::TooLarge, detail));
    }
    Ok(())
}

/// That a text can be served as a header's value.
fn check_value(name: &str, value: Option<&str>, max_bytes: usize) -> Result<(), Failure> {
    let Some(value) = value else { return Ok(()) };
    if value.len() > max_bytes {
        return Err(Failure::invalid(format!("{name} has {} bytes; at most {max_bytes} are allowed", value.len())));
    }
    if !value.is_ascii() || HeaderValue::from_str(value).is_err() {
        return Err(Failure::invalid(format!("{name} cannot be the value of a header: use visible ASCII")));
    }
    Ok(())
}

pub(crate) async fn remove(
    _: MayWrite,
    Shared(state): Shared<Arc<State>>,
    at: FileAt,
    Params(wait): Params<WaitParam>,
    headers: HeaderMap,
) -> Result<Answer<PurgeAnswer>, Failure> {
    let target = UploadTarget::Path { zone: at.zone, path: at.path };
    delete(&state, target, conditions(&headers)?, &wait).await
}

pub(crate) async fn remove_by_id(
    _: MayWrite,
    Shared(state): Shared<Arc<State>>,
    Named(id): Named<FileId>,
    Params(wait): Params<WaitParam>,
    headers: HeaderMap,
) -> Result<Answer<PurgeAnswer>, Failure> {
    delete(&state, UploadTarget::Id { id }, conditions(&headers)?, &wait).await
}

async fn delete(
    state: &State,
    target: UploadTarget,
    conditions: Conditions,
    wait: &WaitParam,
) -> Result<Answer<PurgeAnswer>, Failure> {
    let place = state.acks.place(wait.edges())?;
    let (_, event) = state.commit(state.catalog.delete_file(target, conditions, state.now_ms())).await?;
    Ok(Answer(PurgeAnswer { event, receipts: wait::for_edges(state, place, event).await? }))
}

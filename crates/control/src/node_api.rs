//! What nodes call: joining, configuration, acknowledgements, placements, resolving, health, blobs.

use std::sync::Arc;

use api::node::{
    Ack, Blobs, Holders, Join, MAX_BLOBS_PER_CALL, MAX_PLACEMENTS_PER_REPORT, Placements, Resolved, SNAPSHOT_FORMAT,
    Snapshot,
};
use api::{Access, ErrorCode, FileId, FilePath, Health, NodeName, Scope, ZoneDoc, ZoneName, headers};
use axum::Json as Answer;
use axum::extract::State as Shared;
use catalog::StoredFile;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::access::{IsNode, Need, admit};
use crate::input::{Json, Params};
use crate::problem::Failure;
use crate::{State, urls};

/// The name of the origin among the candidates of a choice: no edge can have it.
const ORIGIN: &str = routing::ORIGIN;

pub(crate) async fn join(
    _: IsNode,
    Shared(state): Shared<Arc<State>>,
    Json(join): Json<Join>,
) -> Result<Answer<Snapshot>, Failure> {
    urls::check_node(&join.node).map_err(Failure::invalid)?;
    let name = join.node.name.clone();
    if name.as_str() == ORIGIN {
        return Err(Failure::invalid("an edge cannot be named 'origin'"));
    }
    state.commit(state.catalog.join(join.node, join.keeps_placements, state.now_ms())).await?;
    state.acks.join(name);
    take_snapshot(&state).await.map(Answer)
}

pub(crate) async fn snapshot(_: IsNode, Shared(state): Shared<Arc<State>>) -> Result<Answer<Snapshot>, Failure> {
    take_snapshot(&state).await.map(Answer)
}

/// The numbers are read first: what is read after them can only be newer than they say, and then an event says so.
async fn take_snapshot(state: &State) -> Result<Snapshot, Failure> {
    let at = state.catalog.head().await?;
    Ok(Snapshot {
        format: SNAPSHOT_FORMAT,
        at,
        zones: state.catalog.zones().await?,
        nodes: state.catalog.nodes().await?,
        origin: state.origin.clone(),
        monitor: state.monitor,
        readers: state.catalog.readers_of_private_zones().await?,
    })
}

pub(crate) async fn ack(
    _: IsNode,
    Shared(state): Shared<Arc<State>>,
    Json(ack): Json<Ack>,
) -> Result<StatusCode, Failure> {
    if state.acks.acknowledge(&ack.node, ack.applied) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Failure::new(ErrorCode::UnknownNode, format!("the edge '{}' has not joined; join again", ack.node)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeParam {
    node: NodeName,
}

pub(crate) async fn placements(
    _: IsNode,
    Shared(state): Shared<Arc<State>>,
    Params(params): Params<NodeParam>,
    Json(placements): Json<Placements>,
) -> Result<StatusCode, Failure> {
    let count = placements.added.len() + placements.removed.len();
    if count > MAX_PLACEMENTS_PER_REPORT {
        let detail = format!("{count} placements; at most {MAX_PLACEMENTS_PER_REPORT} in one report");
        return Err(Failure::new(ErrorCode::TooLarge, detail));
    }
    state.commit(state.catalog.apply_placements(&params.node, placements, state.now_ms())).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileParams {
    zone: Option<ZoneName>,
    path: Option<FilePath>,
    id: Option<FileId>,
    #[serde(default)]
    as_node: bool,
}

impl FileParams {
    async fn find(&self, state: &State) -> Result<StoredFile, Failure> {
        match (&self.zone, &self.path, self.id) {
            (Some(zone), Some(path), None) => Ok(state.catalog.file(zone, path).await?),
            (None, None, Some(id)) => Ok(state.catalog.file_by_id(id).await?),
            _ => Err(Failure::invalid("name the file by zone and path, or by id")),
        }
    }
}

pub(crate) async fn holders(
    _: IsNode,
    Shared(state): Shared<Arc<State>>,
    Params(params): Params<FileParams>,
) -> Result<Answer<Holders>, Failure> {
    let file = params.find(&state).await?;
    Ok(Answer(Holders { nodes: state.catalog.holders(&file.zone, &file.path).await? }))
}

pub(crate) async fn resolve(
    _: IsNode,
    Shared(state): Shared<Arc<State>>,
    Params(params): Params<FileParams>,
    fields: HeaderMap,
) -> Result<Answer<Resolved>, Failure> {
    let client = fields.get(headers::CLIENT_AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    // Where the zone is named, access comes first: what is in a private zone is nobody's business.
    if let Some(zone) = &params.zone {
        readable(&state, zone, params.as_node, client).await?;
    }
    let file = params.find(&state).await?;
    let zone = readable(&state, &file.zone, params.as_node, client).await?;
    let file = state.public_url.document(&zone, file, Vec::new());
    Ok(Answer(Resolved { file, access: zone.access }))
}

/// The zone, if a node asks for itself or `client`, the `Authorization` of whom it asks for, may read it.
async fn readable(state: &State, zone: &ZoneName, as_node: bool, client: Option<&str>) -> Result<ZoneDoc, Failure> {
    let zone = state.catalog.zone(zone).await?;
    if zone.access == Access::Private && !as_node {
        admit(state, client, Need::Scope(Scope::Read)).await?;
    }
    Ok(zone)
}

pub(crate) async fn health(
    _: IsNode,
    Shared(state): Shared<Arc<State>>,
    Json(health): Json<Health>,
) -> Result<StatusCode, Failure> {
    state.verdicts.take(health)?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_count(blobs: &Blobs) -> Result<(), Failure> {
    if blobs.digests.len() <= MAX_BLOBS_PER_CALL {
        return Ok(());
    }
    let detail = format!("{} blobs; at most {MAX_BLOBS_PER_CALL} in one call", blobs.digests.len());
    Err(Failure::new(ErrorCode::TooLarge, detail))
}

pub(crate) async fn condemn(
    _: IsNode,
    Shared(state): Shared<Arc<State>>,
    Json(blobs): Json<Blobs>,
) -> Result<Answer<Blobs>, Failure> {
    check_count(&blobs)?;
    Ok(Answer(Blobs { digests: state.commit(state.catalog.condemn_blobs(blobs.digests, state.now_ms())).await? }))
}

pub(crate) async fn forget(
    _: IsNode,
    Shared(state): Shared<Arc<State>>,
    Json(blobs): Json<Blobs>,
) -> Result<StatusCode, Failure> {
    check_count(&blobs)?;
    state.commit(state.catalog.forget_blobs(blobs.digests, state.now_ms())).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn condemned(_: IsNode, Shared(state): Shared<Arc<State>>) -> Result<Answer<Blobs>, Failure> {
    let limit = u32::try_from(MAX_BLOBS_PER_CALL).unwrap_or(u32::MAX);
    Ok(Answer(Blobs { digests: state.catalog.condemned_blobs(limit).await? }))
}

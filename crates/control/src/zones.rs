//! Zones.

use std::sync::Arc;

use api::{ZoneDoc, ZoneList, ZoneName};
use axum::Json as Answer;
use axum::extract::State as Shared;
use catalog::ZonePut;
use http::StatusCode;

use crate::State;
use crate::access::{MayAdminister, MayRead};
use crate::input::{Json, Named};
use crate::problem::Failure;

pub(crate) async fn list(_: MayRead, Shared(state): Shared<Arc<State>>) -> Result<Answer<ZoneList>, Failure> {
    Ok(Answer(ZoneList { zones: state.catalog.zones().await? }))
}

pub(crate) async fn read(
    _: MayRead,
    Shared(state): Shared<Arc<State>>,
    Named(name): Named<ZoneName>,
) -> Result<Answer<ZoneDoc>, Failure> {
    Ok(Answer(state.catalog.zone(&name).await?))
}

pub(crate) async fn replace(
    _: MayAdminister,
    Shared(state): Shared<Arc<State>>,
    Named(name): Named<ZoneName>,
    Json(zone): Json<ZoneDoc>,
) -> Result<(StatusCode, Answer<ZoneDoc>), Failure> {
    if zone.name != name {
        return Err(Failure::invalid(format!("the URL names the zone '{name}' and the document '{}'", zone.name)));
    }
    zone.validate().map_err(Failure::invalid)?;
    let put = state.commit(state.catalog.put_zone(zone.clone(), state.now_ms())).await?;
    let status = if put == ZonePut::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(zone)))
}

pub(crate) async fn remove(
    _: MayAdminister,
    Shared(state): Shared<Arc<State>>,
    Named(name): Named<ZoneName>,
) -> Result<StatusCode, Failure> {
    state.commit(state.catalog.delete_zone(name, state.now_ms())).await?;
    Ok(StatusCode::NO_CONTENT)
}

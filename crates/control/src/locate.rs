//! `GET /v1/locate`: where a client reads a file, and why there.

use std::sync::Arc;

use api::{Access, FilePath, Locate, NodeDoc, Place, Scope, ZoneName, Zones};
use axum::Json as Answer;
use axum::extract::State as Shared;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::Deserialize;

use crate::access::{Need, admit};
use crate::input::Params;
use crate::problem::Failure;
use crate::{State, urls};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocateParams {
    zone: ZoneName,
    path: FilePath,
    lat: Option<f64>,
    lng: Option<f64>,
}

pub(crate) async fn locate(
    Shared(state): Shared<Arc<State>>,
    Params(params): Params<LocateParams>,
    headers: HeaderMap,
) -> Result<Answer<Locate>, Failure> {
    let client = match (params.lat, params.lng) {
        (Some(lat), Some(lng)) => Place::new(lat, lng)?,
        (None, None) => state.default_place,
        _ => return Err(Failure::invalid("give both lat and lng, or neither")),
    };
    let zones = state.catalog.zones().await?;
    let zone = zones.iter().find(|zone| zone.name == params.zone);
    if zone.is_none_or(|zone| zone.access == Access::Private) {
        // An unknown zone is not told from a private one to whoever may not read.
        let value = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        admit(&state, value, Need::Scope(Scope::Read)).await?;
    }
    let file = state.catalog.file(&params.zone, &params.path).await?;
    let holders = state.catalog.holders(&params.zone, &params.path).await?;
    let nodes = state.catalog.nodes().await?;
    let edges: Vec<_> = nodes.iter().map(|node| state.candidate(node, holders.contains(&node.name))).collect();
    let choice = routing::choose(client, &edges, state.origin.place);
    let url = match choice.edge() {
        Some(node) => urls::at_node(&node.url, &file, &Zones::new(&zones)),
        None => format!("{}/-/content/{}/{}", state.origin.url, file.zone, file.path.to_url()),
    };
    Ok(Answer(Locate {
        zone: params.zone,
        path: params.path,
        client,
        chosen: choice.name().to_owned(),
        url,
        reason: choice.why.sentence().to_owned(),
        candidates: choice.candidates(),
    }))
}

impl State {
    fn candidate<'a>(&self, node: &'a NodeDoc, has_file: bool) -> routing::Edge<'a> {
        let health = self.verdicts.of(&node.name);
        let (alive, load) = health.map_or((false, 0), |health| (health.alive, health.load));
        routing::Edge { node, alive, load, has_file }
    }
}

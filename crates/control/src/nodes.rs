//! Edges as people see them, and the state of the whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{NodeDoc, NodeList, NodeName, NodeView, Status};
use axum::Json as Answer;
use axum::extract::State as Shared;
use http::{StatusCode, header};

use crate::State;
use crate::access::{MayAdminister, MayRead};
use crate::input::Named;
use crate::problem::Failure;

impl State {
    /// All edges with what is known of their health.
    async fn node_views(&self) -> Result<Vec<NodeView>, Failure> {
        let files = self.catalog.held_files().await?;
        Ok(self.catalog.nodes().await?.into_iter().map(|node| self.node_view(node, &files)).collect())
    }

    fn node_view(&self, node: NodeDoc, files: &BTreeMap<NodeName, u64>) -> NodeView {
        let health = self.verdicts.of(&node.name);
        let acknowledged = self.acks.applied(&node.name);
        NodeView {
            alive: health.as_ref().is_some_and(|health| health.alive),
            last_heartbeat_ms: health.as_ref().map(|health| health.last_heartbeat_ms),
            load: health.as_ref().map_or(0, |health| health.load),
            applied: acknowledged.max(health.map_or(0, |health| health.applied)),
            files: files.get(&node.name).copied().unwrap_or(0),
            node,
        }
    }
}

pub(crate) async fn list(_: MayRead, Shared(state): Shared<Arc<State>>) -> Result<Answer<NodeList>, Failure> {
    Ok(Answer(NodeList { nodes: state.node_views().await? }))
}

pub(crate) async fn remove(
    _: MayAdminister,
    Shared(state): Shared<Arc<State>>,
    Named(name): Named<NodeName>,
) -> Result<StatusCode, Failure> {
    state.commit(state.catalog.remove_node(name.clone(), state.now_ms())).await?;
    state.acks.remove(&name);
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn status(_: MayRead, Shared(state): Shared<Arc<State>>) -> Result<Answer<Status>, Failure> {
    let (totals, head) = (state.catalog.totals().await?, state.catalog.head().await?);
    Ok(Answer(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        catalog_id: head.catalog_id,
        event: head.head,
        generation: head.generation,
        zones: totals.zones,
        files: totals.files,
        bytes: totals.bytes,
        nodes: state.node_views().await?,
    }))
}

pub(crate) async fn openapi() -> ([(header::HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "application/json")], api::openapi::json())
}

//! Which address is answered by which handler.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post, put};

use crate::{State, events, files, locate, metrics, node_api, nodes, problem, purge, tokens, uploads, zones};

/// Everything that control answers.
pub(crate) fn router(state: Arc<State>) -> Router {
    let public = Router::new()
        .route("/v1/zones", get(zones::list))
        .route("/v1/zones/{zone}", get(zones::read).put(zones::replace).delete(zones::remove))
        .route("/v1/zones/{zone}/files", get(files::list))
        .route("/v1/zones/{zone}/files/{*path}", get(files::read).delete(files::remove))
        .route("/v1/zones/{zone}/files/", get(files::read).delete(files::remove))
        .route("/v1/files/{id}", get(files::read_by_id).patch(files::patch).delete(files::remove_by_id))
        .route("/v1/files/{id}/versions", get(files::versions))
        .route("/v1/purge", post(purge::purge))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{name}", delete(nodes::remove))
        .route("/v1/events", get(events::follow))
        .route("/v1/locate", get(locate::locate))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{id}", delete(tokens::remove))
        .route("/v1/status", get(nodes::status))
        .route("/v1/openapi.json", get(nodes::openapi));
    let between_nodes = Router::new()
        .route("/v1/node/join", post(node_api::join))
        .route("/v1/node/snapshot", get(node_api::snapshot))
        .route("/v1/node/ack", post(node_api::ack))
        .route("/v1/node/placements", post(node_api::placements))
        .route("/v1/node/holders", get(node_api::holders))
        .route("/v1/node/resolve", get(node_api::resolve))
        .route("/v1/node/health", put(node_api::health))
        .route("/v1/node/uploads/begin", post(uploads::begin))
        .route("/v1/node/uploads/commit", post(uploads::commit))
        .route("/v1/node/blobs/condemn", post(node_api::condemn))
        .route("/v1/node/blobs/forget", post(node_api::forget))
        .route("/v1/node/blobs/condemned", get(node_api::condemned));
    public
        .merge(between_nodes)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::unknown_endpoint)
        .layer(from_fn_with_state(Arc::clone(&state), metrics::count))
        .with_state(state)
}

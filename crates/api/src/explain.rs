//! What an edge would do with a request, decision by decision: the dry run behind `littoral explain`.
//!
//! `POST /-/explain` at an edge takes an [`ExplainRequest`] and answers with an [`Explanation`]. It is allowed from the
//! zone's `purge_networks`, and with a token that has the scope `read`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Where an edge takes explain requests.
pub const EXPLAIN_PATH: &str = "/-/explain";

/// A request to be explained, not to be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The absolute URL.
    pub url: String,
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// Header fields, in order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The address that the request is to come from; absent: the one that asks for the explanation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<IpAddr>,
}

fn get() -> String {
    "GET".to_owned()
}

/// What the edge would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The edge.
    pub node: String,
    /// Every decision, in the order in which serving takes them.
    pub steps: Vec<ExplainStep>,
    /// What would happen, in the word that `X-Cache` and the metrics use: `hit`, `miss`, `stale`, `bypass` …
    pub outcome: String,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainStep {
    /// Of what: `zone`, `key`, `lookup`, `variant`, `freshness` …
    pub stage: String,
    /// What was decided, in a sentence.
    pub decision: String,
    /// What it was decided from: names and values.
    #[serde(default)]
    pub facts: Vec<(String, String)>,
}

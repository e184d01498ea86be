//! How the actions of `cache` speak to a running edge: through the admin listener of its process.

use api::Problem;
use api::cache::{CACHE_PATH, CacheEdges};
use api::names::NodeName;
use clap::Args;
use http::{Method, Request, StatusCode, header};
use net::{Body, ClientLimits, HttpClient};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::output::json_line;

/// Longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// How long an answer may take, in milliseconds: a step of a slow verification.
const ANSWER_MS: u64 = 120_000;

/// Which edge is meant.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ToolArgs {
    /// Address of the edge's admin listener [default: that of 'littoral up', else http://127.0.0.1:8604]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Name of the edge, where a process runs several
    #[arg(long, value_name = "NAME")]
    edge: Option<NodeName>,
}

/// A way to the cache of one edge.
pub(super) struct Tool {
    http: HttpClient,
    admin: String,
    from: String,
    pub(super) edge: NodeName,
}

impl Tool {
    /// Finds the edge.
    pub(super) async fn find(args: &ToolArgs, globals: &Globals) -> Result<Self, CliError> {
        let (admin, from) = globals.admin(args.admin.as_deref())?;
        let http = HttpClient::new(ClientLimits { head_ms: ANSWER_MS, ..ClientLimits::default() });
        let edges: CacheEdges = exchange(&http, &admin, &from, Method::GET, "", None).await?;
        let edge = choose(args.edge.as_ref(), edges.edges)?;
        Ok(Self { http, admin, from, edge })
    }

    /// Asks it for something.
    pub(super) async fn get<T: DeserializeOwned>(&self, action: &str) -> Result<T, CliError> {
        let path = format!("/{}/{action}", self.edge);
        exchange(&self.http, &self.admin, &self.from, Method::GET, &path, None).await
    }

    /// Asks it to do something.
    pub(super) async fn post<T: DeserializeOwned>(&self, action: &str, what: &impl Serialize) -> Result<T, CliError> {
        let path = format!("/{}/{action}", self.edge);
        exchange(&self.http, &self.admin, &self.from, Method::POST, &path, Some(json_line(what)?)).await
    }
}

/// The edge that is meant among those that there are.
fn choose(named: Option<&NodeName>, edges: Vec<NodeName>) -> Result<NodeName, CliError> {
    let names = edges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut fitting = edges.into_iter().filter(|edge| named.is_none_or(|name| name == edge));
    match (fitting.next(), fitting.next(), named) {
        (Some(edge), None, _) => Ok(edge),
        (None, _, Some(name)) if !names.is_empty() => {
            Err(CliError::failed(format!("no edge '{name}' runs there")).with_hint(format!("there are: {names}")))
        }
        (None, ..) => {
            Err(CliError::failed("no edge runs in that process").with_hint("name the process of an edge with --admin"))
        }
        (Some(_), ..) => Err(CliError::usage("it is not said which edge is meant")
            .with_hint(format!("several run there; name one of them with --edge: {names}"))),
    }
}

async fn exchange<T: DeserializeOwned>(
    http: &HttpClient,
    admin: &str,
    from: &str,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<T, CliError> {
    let failed = |why: &dyn std::fmt::Display| CliError::failed(format!("cannot ask about the cache: {why}"));
    let mut request = Request::builder().method(method).uri(format!("{admin}{CACHE_PATH}{path}"));
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(body.map_or_else(Body::empty, Body::full)).map_err(|error| failed(&error))?;
    let response = http.send(request).await.map_err(|error| {
        failed(&error).with_hint(format!(
            "the admin listener was looked for at {admin} ({from}); an edge has one with --admin IP:PORT, and a command \
             finds it with --admin URL"
        ))
    })?;
    let status = response.status();
    let body = net::read_to_end(response.into_body(), MAX_ANSWER_BYTES).await.map_err(|error| failed(&error))?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|error| {
            failed(&format!("the answer cannot be understood ({error})")).with_hint("is it an edge of this version?")
        });
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(failed(&human::plain(&problem.detail))),
        Err(_) => Err(failed(&format!("{admin} answered {status}"))
            .with_hint("is it the admin listener of an edge of this version? Name it with --admin")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_is_chosen_or_asked_for() {
        let name = |text: &str| text.parse::<NodeName>().expect("name");
        let choose = |named: Option<&str>, edges: &[&str]| {
            choose(named.map(name).as_ref(), edges.iter().map(|edge| name(edge)).collect())
                .map(|edge| edge.to_string())
                .map_err(|error| error.report(false))
        };
        assert_eq!(choose(None, &["oslo"]), Ok("oslo".to_owned()));
        assert_eq!(choose(Some("rome"), &["oslo", "rome"]), Ok("rome".to_owned()));
        for (named, edges, word) in [
            (None, &["oslo", "rome"][..], "--edge: oslo, rome"),
            (Some("bonn"), &["oslo", "rome"], "there are: oslo, rome"),
            (None, &[], "no edge runs"),
            (Some("bonn"), &[], "no edge runs"),
        ] {
            let error = choose(named, edges).expect_err(word);
            assert!(error.contains(word), "{error}");
        }
    }
}

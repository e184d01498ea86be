//! The OpenAPI 3.1 description of the public API, as it is served at `/v1/openapi.json`.
//!
//! The functions below are never called: each stands for an endpoint, whoever serves it, and carries its description.
//! `openapi.json` beside this crate is the committed output; a test compares the two, and another (in the testbed) asks a
//! running CDN for every endpoint that is described here.
#![expect(dead_code, reason = "the functions carry descriptions and are never called")]

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::docs::{
    FileDoc, FileList, FilePatch, Locate, NodeList, PurgeAnswer, PurgeRequest, Status, VersionList, ZoneDoc, ZoneList,
};
use crate::event::Event;
use crate::problem::Problem;
use crate::token::{NewToken, TokenAnswer, TokenList};

/// The description as pretty-printed JSON with a line break at its end.
pub fn json() -> String {
    let mut text = Description::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Littoral", description = "Files, purges, zones, nodes and events of a Littoral content delivery network. Errors are application/problem+json (RFC 9457) with a stable `code`.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    paths(
        put_file, create_file, get_file, delete_file, list_files, put_file_by_id, get_file_by_id, patch_file,
        delete_file_by_id, list_versions, purge, list_zones, get_zone, put_zone, delete_zone, list_nodes, delete_node,
        follow_events, locate, list_tokens, create_token, delete_token, status, openapi_document
    ),
    modifiers(&BearerToken),
    security(("token" = []))
)]
struct Description;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token with the scope that the endpoint names."))
            .build();
        openapi.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Upload a file to a path (scope `write`).
///
/// Streams a body of any size. A new path makes a new file; a known one, a new version. Acknowledged means durable.
#[utoipa::path(put, path = "/v1/zones/{zone}/files/{path}", tag = "files",
    params(
        ("zone" = String, Path), ("path" = String, Path, description = "May contain slashes."),
        ("wait" = Option<String>, Query, description = "`edges`: answer once every live edge has applied the event, with a receipt for each."),
        ("Content-Type" = Option<String>, Header, description = "Kept; guessed from the name where absent."),
        ("Cache-Control" = Option<String>, Header, description = "Kept and served with the file."),
        ("Surrogate-Key" = Option<String>, Header, description = "Tags, separated by spaces."),
        ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no such file."),
        ("Repr-Digest" = Option<String>, Header, description = "RFC 9530: sha-256, sha-512, and blake3 as an extension. Verified."),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "New", body = FileDoc), (status = 200, description = "New version", body = FileDoc),
        (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn put_file() {}

/// Upload a file with a generated unique URL (scope `write`).
#[utoipa::path(post, path = "/v1/zones/{zone}/files", tag = "files",
    params(("zone" = String, Path), ("name" = Option<String>, Query, description = "Lends its extension to the generated path."), ("wait" = Option<String>, Query)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "New", body = FileDoc), (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn create_file() {}

/// The file at a path (scope `read`).
#[utoipa::path(get, path = "/v1/zones/{zone}/files/{path}", tag = "files", params(("zone" = String, Path), ("path" = String, Path)),
    responses((status = 200, description = "The file", body = FileDoc), (status = "default", description = "Problem", body = Problem, content_type = "application/problem+json")))]
fn get_file() {}

/// Delete the file at a path (scope `write`).
#[utoipa::path(delete, path = "/v1/zones/{zone}/files/{path}", tag = "files",
    params(("zone" = String, Path), ("path" = String, Path), ("wait" = Option<String>, Query), ("If-Match" = Option<String>, Header)),
    responses((status = 200, description = "Gone", body = PurgeAnswer), (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn delete_file() {}

/// Files of a zone in order of path, page by page (scope `read`).
#[utoipa::path(get, path = "/v1/zones/{zone}/files", tag = "files",
    params(("zone" = String, Path), ("prefix" = Option<String>, Query), ("limit" = Option<u32>, Query, description = "1 to 1000."), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page", body = FileList), (status = "default", description = "Problem", body = Problem, content_type = "application/problem+json")))]
fn list_files() {}

/// Upload a new version of a file (scope `write`).
#[utoipa::path(put, path = "/v1/files/{id}", tag = "files", params(("id" = String, Path), ("wait" = Option<String>, Query)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "New version", body = FileDoc), (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn put_file_by_id() {}

/// The file of an id (scope `read`).
#[utoipa::path(get, path = "/v1/files/{id}", tag = "files", params(("id" = String, Path)),
    responses((status = 200, description = "The file", body = FileDoc), (status = "default", description = "Problem", body = Problem, content_type = "application/problem+json")))]
fn get_file_by_id() {}

/// Rename a file or change what goes with it (scope `write`). Its id and its URL by id stay.
#[utoipa::path(patch, path = "/v1/files/{id}", tag = "files", params(("id" = String, Path), ("wait" = Option<String>, Query)), request_body = FilePatch,
    responses((status = 200, description = "The file", body = FileDoc), (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn patch_file() {}

/// Delete the file of an id (scope `write`).
#[utoipa::path(delete, path = "/v1/files/{id}", tag = "files", params(("id" = String, Path), ("wait" = Option<String>, Query)),
    responses((status = 200, description = "Gone", body = PurgeAnswer), (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn delete_file_by_id() {}

/// The newest versions of a file (scope `read`).
#[utoipa::path(get, path = "/v1/files/{id}/versions", tag = "files", params(("id" = String, Path)),
    responses((status = 200, description = "Newest first", body = VersionList), (status = "default", description = "Problem", body = Problem, content_type = "application/problem+json")))]
fn list_versions() {}

/// Purge URLs, prefixes, tags or zones, hard or soft (scope `purge`).
#[utoipa::path(post, path = "/v1/purge", tag = "purge", request_body = PurgeRequest,
    responses((status = 200, description = "Purged", body = PurgeAnswer), (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn purge() {}

/// All zones (scope `read`).
#[utoipa::path(get, path = "/v1/zones", tag = "zones",
    responses((status = 200, description = "In order of name", body = ZoneList), (status = "default", description = "Problem", body = Problem, content_type = "application/problem+json")))]
fn list_zones() {}

/// One zone (scope `read`).
#[utoipa::path(get, path = "/v1/zones/{zone}", tag = "zones", params(("zone" = String, Path)),
    responses((status = 200, description = "The zone", body = ZoneDoc), (status = "default", description = "Problem", body = Problem, content_type = "application/problem+json")))]
fn get_zone() {}

/// Make a zone, or replace its document as a whole (scope `admin`).
#[utoipa::path(put, path = "/v1/zones/{zone}", tag = "zones", params(("zone" = String, Path)), request_body = ZoneDoc,
    responses((status = 201, description = "New", body = ZoneDoc), (status = 200, description = "Replaced", body = ZoneDoc), (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn put_zone() {}

/// Delete a zone that has no files (scope `admin`).
#[utoipa::path(delete, path = "/v1/zones/{zone}", tag = "zones", params(("zone" = String, Path)),
    responses((status = 204, description = "Gone"), (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn delete_zone() {}

/// All edges and their health (scope `read`).
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes",
    responses((status = 200, description = "In order of name", body = NodeList), (status = "default", description = "Problem", body = Problem, content_type = "application/problem+json")))]
fn list_nodes() {}

/// Forget an edge (scope `admin`). It comes back if it joins again.
#[utoipa::path(delete, path = "/v1/nodes/{name}", tag = "nodes", params(("name" = String, Path)),
    responses((status = 204, description = "Gone"), (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn delete_node() {}

/// The event log as server-sent events (scope `read`, or a node's token).
///
/// First `hello`, then each event with its number as `id`, and `health` when it changes.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(("after" = Option<u64>, Query, description = "Events after this number; absent: from now on."), ("follow" = Option<bool>, Query, description = "`false`: end at the newest event.")),
    responses((status = 200, description = "A stream", body = Event, content_type = "text/event-stream"), (status = 410, description = "Those events are no longer kept", body = Problem, content_type = "application/problem+json"), (status = "default", description = "Problem", body = Problem, content_type = "application/problem+json")))]
fn follow_events() {}

/// Where a client at a place reads a file, and why there. Public zones need no token.
#[utoipa::path(get, path = "/v1/locate", tag = "routing",
    params(("zone" = String, Query), ("path" = String, Query), ("lat" = Option<f64>, Query), ("lng" = Option<f64>, Query)),
    responses((status = 200, description = "The choice, with every candidate", body = Locate), (status = "default", description = "Problem", body = Problem, content_type = "application/problem+json")))]
fn locate() {}

/// All tokens, without secrets (scope `admin`).
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens",
    responses((status = 200, description = "Oldest first", body = TokenList), (status = "default", description = "Problem", body = Problem, content_type = "application/problem+json")))]
fn list_tokens() {}

/// Make a token (scope `admin`). Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, description = "New", body = TokenAnswer), (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn create_token() {}

/// Delete a token (scope `admin`).
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)),
    responses((status = 204, description = "Gone"), (status = "default", description = "Nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn delete_token() {}

/// The state of the whole in a few numbers (scope `read`).
#[utoipa::path(get, path = "/v1/status", tag = "nodes",
    responses((status = 200, description = "Now", body = Status), (status = "default", description = "Problem", body = Problem, content_type = "application/problem+json")))]
fn status() {}

/// This document. Needs no token.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "meta", security(()), responses((status = 200, description = "OpenAPI 3.1")))]
fn openapi_document() {}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_document_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let now = super::json();
        if std::env::var_os("LITTORAL_BLESS").is_some() {
            std::fs::write(path, &now).expect("write");
        }
        let committed = std::fs::read_to_string(path).expect("openapi.json");
        assert!(now.contains("\"openapi\": \"3.1"), "not 3.1");
        assert_eq!(committed, now, "run LITTORAL_BLESS=1 cargo test -p api");
    }
}

//! Scenario files: an origin, a pull zone, requests and what is expected of each, in about 20 lines of TOML. A bug report becomes
//! a file in `scenarios/<topic>/`, and each topic is a test of the `cluster` binary.
//!
//! ```toml
//! # The first line says which rule this is about.
//! [zone]                            # members of api::PullDoc; its upstream is filled in. May be left out
//! policy = "rfc"
//!
//! [[origin]]                        # an answer, given once. The first that fits is given; where all are used up, the last again
//! path = "/a"                       # fits this path and query only
//! method = "GET"                    # fits this method only
//! when = ["If-None-Match: \"v1\""]  # fits where the request's headers are so; see below
//! status = 200
//! headers = ["Cache-Control: max-age=60", "Last-Modified: {now-60}"]  # a date relative to the clock, in seconds
//! date = false                      # without the Date header that is else added
//! body = "one"
//! body_bytes = 100                  # or so many bytes: abc…zabc…
//! chunked = true                    # in chunks, without Content-Length
//! interim = ["103 Link: </a.css>"]  # informational responses before it, each with one header
//! hold = true                       # not before all clients of the step have sent their requests
//! until_asked = 5                   # not before the origin has been asked so often
//! pause_after = 10                  # the rest of the body not before all clients of the step have these bytes
//! break_after = 10                  # the connection is cut after so many bytes of body; 0: before the head
//! raw = "HTTP/1.1 200 OK\r\n\r\n"   # these bytes and nothing else, then the connection is closed
//!
//! [[step]]                          # what a client does. A step without `request` and `raw` only sets the clock forward
//! advance_s = 10                    # first, the clock is set forward. It never moves by itself
//! request = "GET /a"
//! headers = ["Accept: text/html"]   # `Host: shop.example` is added, unless there is a Host
//! body = "x"
//! raw = "GET / HTTP/1.1\r\n\r\n"    # these bytes instead of a request
//! from = "127.0.0.2"                # the client's address
//! parallel = 10                     # so many clients at once, each with the same expectations
//! eventually = true                 # asks again until the expectations hold
//! status = 200                      # from here on: what is expected. What is left out may be anything
//! expect = ["Age: 10", "Vary", "!Set-Cookie", "Via ~ littoral"]
//! cache = "hit"                     # X-Cache, in lower case
//! text = "one"                      # the whole body
//! text_bytes = 100                  # its length
//! interim = ["103 link: </a.css>"]  # the informational responses, names in lower case
//! broken = true                     # the transfer breaks off; else it must not
//! closed = true                     # the server closes the connection after the response
//! origin_requests = 1               # what the origin has been asked so far
//! origin_line = "GET /a"            # the last request that it got
//! origin_saw = ["!Accept"]          # its headers
//! origin_body = "x"
//! ```
//!
//! Headers are expected in five forms: `Name: value` (all its lines, joined by `, `), `Name` (is there), `!Name` (is not
//! there), `Name ~ text` (holds the text), `Name !~ text` (does not, or is not there). In all texts of headers `{now}`, `{now+60}` and `{now-60}` are dates; in those that
//! a client sends, `{saw Name}` is what the origin last saw of a header.

mod client;
mod expect;
mod origin;
mod run;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use run::run;

/// A scenario file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    #[serde(default)]
    zone: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    origin: Vec<Answer>,
    step: Vec<Step>,
}

/// An answer of the origin.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Answer {
    path: Option<String>,
    method: Option<String>,
    when: Vec<String>,
    status: Option<u16>,
    headers: Vec<String>,
    date: Option<bool>,
    body: String,
    body_bytes: Option<usize>,
    chunked: bool,
    interim: Vec<String>,
    hold: bool,
    until_asked: usize,
    pause_after: Option<usize>,
    break_after: Option<usize>,
    raw: Option<String>,
}

/// What clients do, and what is expected then.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Step {
    advance_s: u64,
    request: Option<String>,
    headers: Vec<String>,
    body: Option<String>,
    raw: Option<String>,
    from: Option<IpAddr>,
    parallel: Option<usize>,
    eventually: bool,
    status: Option<u16>,
    expect: Vec<String>,
    cache: Option<String>,
    text: Option<String>,
    text_bytes: Option<usize>,
    interim: Option<Vec<String>>,
    broken: bool,
    closed: Option<bool>,
    origin_requests: Option<usize>,
    origin_line: Option<String>,
    origin_saw: Vec<String>,
    origin_body: Option<String>,
}

/// The folder of all scenarios.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// The names in a folder, in order.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The topics: the folders of scenarios.
pub fn topics() -> Vec<String> {
    names_in(&folder())
}

/// Runs every scenario of a topic; panics with all that went wrong.
pub async fn topic(name: &str) {
    let folder = folder().join(name);
    let mut wrong = Vec::new();
    let files = names_in(&folder);
    assert!(!files.is_empty(), "{name} has no scenarios");
    for file in &files {
        let text = std::fs::read_to_string(folder.join(file)).expect("a readable scenario");
        wrong.extend(run(&text).await.err().map(|why| format!("{name}/{file}: {why}")));
    }
    assert!(wrong.is_empty(), "{} of {} scenarios fail:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}

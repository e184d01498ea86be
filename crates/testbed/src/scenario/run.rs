//! Runs a scenario: an edge that stands alone before the scenario's origin, and its steps one after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::ZoneDoc;
use edge::Clock;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::client::{Response, closes, read, send};
use super::expect::{mismatch, with_dates, with_seen};
use super::origin::{Gate, Origin};
use super::{Scenario, Step};
use crate::EVENTUALLY_MS;

/// Where the clock of every scenario stands at first: 2026-01-01, in milliseconds.
const BEGIN_MS: u64 = 1_767_225_600_000;
/// The edge's memory tier, in bytes.
const MEMORY_BYTES: u64 = 64 << 20;
/// Rest between two tries of a step that is to hold eventually, in milliseconds.
const REST_MS: u64 = 5;

/// Runs a scenario file; an error says which step went wrong, what was expected and what came.
pub async fn run(text: &str) -> Result<(), String> {
    let scenario: Scenario = toml::from_str(text).map_err(|error| error.to_string())?;
    let now_ms = Arc::new(AtomicU64::new(BEGIN_MS));
    let clock: Clock = {
        let now_ms = Arc::clone(&now_ms);
        Arc::new(move || now_ms.load(Ordering::SeqCst))
    };
    let gate = Gate::new();
    let origin = Origin::start(scenario.origin, gate.clone(), Arc::clone(&clock)).await;
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    let edge = start_edge(zone(scenario.zone, origin.address)?, Arc::clone(&clock), shutdown).await?;
    for (index, step) in scenario.step.iter().enumerate() {
        now_ms.fetch_add(step.advance_s * 1_000, Ordering::SeqCst);
        let run = Run { step, edge, origin: &origin, gate: &gate, now_ms: clock() };
        let doing = step.request.as_deref().or(step.raw.as_deref()).unwrap_or("the clock");
        run.hold().await.map_err(|why| format!("step {} ({}): {why}", index + 1, doing.escape_debug()))?;
    }
    Ok(())
}

/// The catch-all pull zone that a scenario describes.
fn zone(mut pull: serde_json::Map<String, Value>, origin: SocketAddr) -> Result<ZoneDoc, String> {
    pull.insert("upstreams".to_owned(), json!([{"url": format!("http://{origin}")}]));
    let zone = json!({"name": "shop", "catch_all": true, "pull": pull});
    serde_json::from_value(zone).map_err(|error| format!("[zone]: {error}"))
}

/// One step.
struct Run<'a> {
    step: &'a Step,
    edge: SocketAddr,
    origin: &'a Origin,
    gate: &'a Gate,
    now_ms: u64,
}

impl Run<'_> {
    /// Carries the step out, and again where it is to hold eventually.
    async fn hold(&self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let tried = tokio::time::timeout(Duration::from_millis(EVENTUALLY_MS), self.once()).await;
            let tried = tried.unwrap_or_else(|_| Err(format!("no end after {EVENTUALLY_MS} ms")));
            if tried.is_ok() || !self.step.eventually || begun.elapsed() > Duration::from_millis(EVENTUALLY_MS) {
                return tried;
            }
            tokio::time::sleep(Duration::from_millis(REST_MS)).await;
        }
    }

    async fn once(&self) -> Result<(), String> {
        let clients = self.step.parallel.unwrap_or(1);
        self.gate.begin(clients);
        if let Some(bytes) = self.bytes() {
            let asked = join_all((0..clients).map(|_| self.client(&bytes))).await;
            asked.into_iter().collect::<Result<(), String>>()?;
        }
        self.check_origin()
    }

    /// What each client sends; nothing where the step asks nothing.
    fn bytes(&self) -> Option<Vec<u8>> {
        if let Some(raw) = &self.step.raw {
            return Some(raw.clone().into_bytes());
        }
        let mut bytes = format!("{} HTTP/1.1\r\n", self.step.request.as_ref()?);
        let seen = self.origin.asked().pop().unwrap_or_default().fields;
        let line = |line: &String| with_seen(&with_dates(line, self.now_ms), &seen);
        let mut lines: Vec<String> = self.step.headers.iter().map(line).collect();
        if !lines.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
            lines.insert(0, "Host: shop.example".to_owned());
        }
        if let Some(body) = &self.step.body {
            lines.push(format!("Content-Length: {}", body.len()));
        }
        for line in lines {
            bytes.push_str(&format!("{line}\r\n"));
        }
        bytes.push_str("\r\n");
        bytes.push_str(self.step.body.as_deref().unwrap_or_default());
        Some(bytes.into_bytes())
    }

    async fn client(&self, bytes: &[u8]) -> Result<(), String> {
        let sent = send(self.edge, self.step.from, bytes).await;
        self.gate.sent();
        let mut stream = sent.map_err(|error| format!("cannot ask the edge: {error}"))?;
        let response = read(&mut stream, bytes.starts_with(b"HEAD "), self.gate).await?;
        self.check(&response)?;
        match self.step.closed {
            Some(closed) => equal("closed", &closed, &closes(&mut stream).await),
            None => Ok(()),
        }
    }

    fn check(&self, response: &Response) -> Result<(), String> {
        let step = self.step;
        let text = String::from_utf8_lossy(&response.body);
        let wrong = |why: String| format!("{why}\n    {} {:?}\n    {text:.200}", response.status, response.fields.0);
        let checks = || {
            expected("status", &step.status, &response.status)?;
            for line in &step.expect {
                mismatch(&with_dates(line, self.now_ms), &response.fields).map_or(Ok(()), Err)?;
            }
            let cache = response.fields.get("x-cache").unwrap_or_default().to_ascii_lowercase();
            expected("cache", &step.cache, &cache)?;
            expected("text", &step.text, &text.clone().into_owned())?;
            expected("text_bytes", &step.text_bytes, &response.body.len())?;
            expected("interim", &step.interim, &response.interim)?;
            equal("broken", &step.broken, &response.broken)
        };
        checks().map_err(wrong)
    }

    fn check_origin(&self) -> Result<(), String> {
        let asked = self.origin.asked();
        expected("origin_requests", &self.step.origin_requests, &asked.len())?;
        let last = asked.last().cloned().unwrap_or_default();
        let line = last.line.strip_suffix(" HTTP/1.1").unwrap_or(&last.line).to_owned();
        expected("origin_line", &self.step.origin_line, &line)?;
        expected("origin_body", &self.step.origin_body, &last.body)?;
        for line in &self.step.origin_saw {
            let wrong = mismatch(&with_dates(line, self.now_ms), &last.fields);
            wrong.map_or(Ok(()), |why| Err(format!("origin_saw: {why}")))?;
        }
        Ok(())
    }
}

fn expected<T: PartialEq + std::fmt::Debug>(what: &str, expected: &Option<T>, got: &T) -> Result<(), String> {
    expected.as_ref().map_or(Ok(()), |expected| equal(what, expected, got))
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, got: &T) -> Result<(), String> {
    if expected == got { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {got:?}")) }
}

/// Starts an edge for one zone, and answers its address.
async fn start_edge(zone: ZoneDoc, clock: Clock, shutdown: CancellationToken) -> Result<SocketAddr, String> {
    let listener = net::bind(([127, 0, 0, 1], 0).into()).await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let name = "edge".parse().map_err(|error: api::InvalidName| error.to_string())?;
    let limits = net::ServerLimits::default();
    let cache = edge::CacheConfig::default();
    let config = edge::StandaloneConfig {
        zone,
        name,
        memory_bytes: MEMORY_BYTES,
        cache,
        state_dir: None,
        access_log: None,
        limits,
        clock,
    };
    let metrics = edge::EdgeMetrics::new(&mut prometheus_client::registry::Registry::default());
    let edge = edge::Edge::standalone(config, &metrics).map_err(|error| error.to_string())?;
    tokio::spawn(edge.run(listener, shutdown));
    Ok(address)
}

//! A running `littoral up`, as a person would start it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::TokenSecret;
use client::Client;
use net::{ClientLimits, HttpClient};
use serde_json::Value;

use crate::shell::Failed;

/// Killed with SIGKILL when dropped.
pub(crate) struct Up {
    child: Child,
    pub(crate) ready: Value,
    /// From the start of the process to its ready line.
    pub(crate) took: Duration,
}

impl Up {
    pub(crate) fn start(binary: &Path, data_dir: &Path, more: &[&str]) -> Result<Self, Failed> {
        let begun = Instant::now();
        let mut command = Command::new(binary);
        command.args(["up", "--json", "--port-base", "0", "--data-dir"]).arg(data_dir).args(more);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or_else(|| Failed("no standard output".to_owned()))?;
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line)?;
        let took = begun.elapsed();
        // The events that follow are read and thrown away, so that the process never waits for us.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        let ready =
            serde_json::from_str(&line).map_err(|error| Failed(format!("{line:?} is no ready line: {error}")))?;
        Ok(Self { child, ready, took })
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, Failed> {
        let value = self.ready.get(name).and_then(Value::as_str);
        value.ok_or_else(|| Failed(format!("the ready line has no {name}")))
    }

    pub(crate) fn edges(&self) -> Vec<String> {
        let edges = self.ready.get("edges").and_then(Value::as_array);
        let url = |edge: &Value| edge.get("url").and_then(Value::as_str).map(str::to_owned);
        edges.into_iter().flatten().filter_map(url).collect()
    }

    pub(crate) fn token(&self) -> Result<TokenSecret, Failed> {
        let text = std::fs::read_to_string(self.text("token_file")?)?;
        Ok(TokenSecret::parse(text.trim())?)
    }

    pub(crate) fn client(&self) -> Result<Client, Failed> {
        // Uploads of gigabytes take their time.
        let limits = ClientLimits { head_ms: 3_600_000, ..ClientLimits::default() };
        Ok(Client::new(HttpClient::new(limits), self.text("api")?, Some(&self.token()?)))
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1_024
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // SIGKILL: whatever starts next finds what a crash leaves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

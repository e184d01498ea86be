//! The edge under torture: a process of its own, that can be killed and started again on the same folder.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::shell::Failed;
use crate::torture::reader::Connection;

/// Longest wait for an edge to end when it is told to, in milliseconds.
const END_MS: u64 = 30_000;

/// How an edge is started.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) binary: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) disk: &'static str,
    pub(crate) origin: SocketAddr,
    pub(crate) eviction: &'static str,
}

/// What the log says about damaged files: how often each was named.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<HashMap<String, u64>>>);

impl Log {
    pub(crate) fn times(&self, file: &str) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(file).copied().unwrap_or(0)
    }

    pub(crate) fn lines(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    fn take(&self, line: &str) {
        if !line.contains("dropped a damaged") {
            return;
        }
        if let Some(file) = line.split("file=\"").nth(1).and_then(|rest| rest.split('"').next()) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(file.to_owned()).or_insert(0) += 1;
        }
    }
}

/// Killed with SIGKILL when dropped.
pub(crate) struct Edge {
    child: Child,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    /// When it was started.
    pub(crate) begun: Instant,
    logging: Option<JoinHandle<()>>,
}

impl Setup {
    /// The folder in which the tier has its files.
    pub(crate) fn files(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// Starts the edge and waits until it listens.
    pub(crate) fn start(&self, log: &Log) -> Result<Edge, Failed> {
        let begun = Instant::now();
        let mut command = Command::new(&self.binary);
        let disk = format!("{}={}", self.folder.display(), self.disk);
        command.args(["edge", "--json", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--memory", "16MiB"]);
        command.args(["--upstream", &format!("http://{}", self.origin), "--disk", &disk, "--eviction", self.eviction]);
        command.env("LITTORAL_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = stdout.zip(stderr).ok_or_else(|| Failed("no output".to_owned()))?;
        let kept = log.clone();
        let logging = std::thread::spawn(move || {
            let mut lines = BufReader::new(stderr).lines();
            while let Some(Ok(line)) = lines.next() {
                kept.take(&line);
            }
        });
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line).map_err(|_| {
            let _ = child.kill();
            Failed(format!("the edge did not start: {line:?}"))
        })?;
        let address = |name: &str| {
            let url = ready.get(name).and_then(Value::as_str).unwrap_or_default();
            url.trim_start_matches("http://").parse().map_err(|_| Failed(format!("{line:?} has no {name}")))
        };
        Ok(Edge { address: address("url")?, admin: address("admin")?, child, begun, logging: Some(logging) })
    }
}

impl Edge {
    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1_024
    }

    /// kill -9.
    pub(crate) fn kill(mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.end()
    }

    /// Ends it as an operator does.
    pub(crate) fn stop(mut self) -> Result<(), Failed> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > Duration::from_millis(END_MS) {
                return Err(Failed("the edge does not end on SIGTERM".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end()
    }

    fn end(&mut self) -> Result<(), Failed> {
        self.child.wait()?;
        // Its log is read to the end.
        self.logging.take().map_or(Ok(()), JoinHandle::join).map_err(|_| Failed("the log was not read".to_owned()))
    }

    /// The sum of a metric over its labels, where one of them has this text.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Result<u64, Failed> {
        let answer = Connection::open(self.admin).await?.ask("GET", "/metrics", "").await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(lines.map(value).sum::<f64>() as u64)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The files of a tier, in the folders of its entries.
pub(crate) fn files(tier: &Path) -> Vec<PathBuf> {
    let Ok(fans) = std::fs::read_dir(tier) else { return Vec::new() };
    let fans = fans.flatten().filter(|fan| fan.file_name().len() == 3 && fan.path().is_dir());
    fans.flat_map(|fan| std::fs::read_dir(fan.path()).into_iter().flatten().flatten()).map(|file| file.path()).collect()
}

//! Where and when it was measured, and with which versions.

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::bench::peers::Peer;
use crate::shell::{Failed, output_of, root};

/// What a reader must know to judge numbers.
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    kernel: String,
    congestion: String,
    date: String,
    commit: String,
    versions: Vec<String>,
}

impl Machine {
    /// This machine, now, with this edge, built from this commit or not, and these servers.
    pub(crate) fn here(binary: &Path, built: bool, peers: &[Peer]) -> Result<Self, Failed> {
        let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
        let processor = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let git = |arguments: &[&str]| output_of(Command::new("git").current_dir(root()).args(arguments));
        let changed = match (built, git(&["status", "--porcelain", "-uno"])?.is_empty()) {
            (false, _) => " (the edge is another program, by --binary)",
            (true, true) => "",
            (true, false) => " with changes",
        };
        let mut versions = Vec::new();
        for peer in peers.iter().filter(|peer| !matches!(peer, Peer::NginxCopy | Peer::LittoralKeeps)) {
            versions.push(peer.version(binary)?);
        }
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            processor: processor.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.to_owned()),
            kernel: output_of(Command::new("uname").arg("-sr"))?.trim().to_owned(),
            congestion: std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?.trim().to_owned(),
            date: output_of(Command::new("date").arg("+%Y-%m-%d"))?.trim().to_owned(),
            commit: format!("{}{changed}", git(&["rev-parse", "--short", "HEAD"])?.trim()),
            versions,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, processor, kernel, congestion, date, commit, versions } = self;
        let versions = versions.join(", ");
        writeln!(
            f,
            "{date}, commit {commit}, {cores} cores of {processor}, {kernel}, TCP with {congestion}; {versions}."
        )
    }
}

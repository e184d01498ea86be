//! A server under measurement: a process, and those that it starts, pinned to cores; what they cost in CPU time and memory; and
//! how they end, whatever becomes of us.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::bench::{descriptors, stopped};
use crate::shell::Failed;

/// Longest wait for a server to listen, in milliseconds.
const START_MS: u64 = 60_000;
/// Longest wait for a server to end when it is asked to, in milliseconds.
const STOP_MS: u64 = 5_000;
/// How often it is looked at meanwhile, in milliseconds.
const POLL_MS: u64 = 20;
/// Lines of its log that a failure shows.
const LOG_LINES: usize = 15;

/// A command for a program on these cores, which ends when we do. What it is to run is its next argument.
pub(crate) fn pinned(cores: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "-c", cores]);
    command
}

/// Stopped when dropped.
pub(crate) struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a program and waits until it listens on all of these addresses.
    pub(crate) fn start(
        name: &str,
        cores: &str,
        program: &Command,
        folder: &Path,
        listens: &[SocketAddr],
    ) -> Result<Self, Failed> {
        let log = folder.join("log");
        let (out, err) = (File::create(&log)?, File::options().append(true).open(&log)?);
        let mut command = pinned(cores);
        command.arg("prlimit").arg(format!("--nofile={}:", descriptors()?)).arg(program.get_program());
        command.args(program.get_args()).current_dir(folder);
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()?;
        let mut server = Self { name: name.to_owned(), child, log };
        let begun = Instant::now();
        for address in listens {
            while TcpStream::connect(address).is_err() {
                if let Some(status) = server.child.try_wait()? {
                    return Err(server.failed(&format!("ended with {status}")));
                }
                if begun.elapsed() > Duration::from_millis(START_MS) {
                    return Err(server.failed(&format!("does not listen on {address} after {START_MS} ms")));
                }
                stopped()?;
                std::thread::sleep(Duration::from_millis(POLL_MS));
            }
        }
        Ok(server)
    }

    /// A failure of this server, with the last lines of its log.
    pub(crate) fn failed(&self, why: &str) -> Failed {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        Failed(format!("{} {why}; the end of its log:\n    {}", self.name, last.join("\n    ")))
    }

    /// CPU time so far in nanoseconds, of all threads of all its processes.
    pub(crate) fn cpu_ns(&self) -> u64 {
        let threads = self.processes().into_iter().flat_map(threads);
        let spent = threads.filter_map(|thread| on_cpu_ns(&std::fs::read_to_string(thread.join("schedstat")).ok()?));
        spent.sum()
    }

    /// Memory in bytes: of each page that processes share, each has its part.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let maps = self.processes().into_iter().map(|id| format!("/proc/{id}/smaps_rollup"));
        maps.filter_map(|path| pss_bytes(&std::fs::read_to_string(path).ok()?)).sum()
    }

    /// It, its children, and theirs.
    fn processes(&self) -> Vec<u32> {
        let (mut found, mut at) = (vec![self.child.id()], 0);
        while let Some(id) = found.get(at).copied() {
            for thread in threads(id) {
                let children = std::fs::read_to_string(thread.join("children")).unwrap_or_default();
                found.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
            at += 1;
        }
        found
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first: a master that is killed leaves its workers behind. What it leaves all the same is killed.
        let all = self.processes();
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).stderr(Stdio::null()).status();
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_millis(STOP_MS) {
            std::thread::sleep(Duration::from_millis(POLL_MS));
        }
        let mut kill = Command::new("kill");
        kill.arg("-KILL").args(all.iter().map(u32::to_string)).stderr(Stdio::null());
        let _ = kill.status();
        let _ = self.child.wait();
    }
}

/// The folders of a process's threads.
fn threads(id: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// The first number of `schedstat`: time on a CPU, in nanoseconds.
fn on_cpu_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// The line `Pss:` of `smaps_rollup`.
fn pss_bytes(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;

    use super::{Server, on_cpu_ns, pss_bytes};

    #[test]
    fn what_the_kernel_tells() {
        assert_eq!(on_cpu_ns("123456789 42 7\n"), Some(123_456_789));
        assert_eq!(on_cpu_ns(""), None);
        let rollup = "aaaa-bbbb ---p 00000000 00:00 0 [rollup]\nRss:            2000 kB\nPss:            1024 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(pss_bytes(rollup), Some(1 << 20));
        assert_eq!(pss_bytes("Rss: 1 kB\n"), None);
    }

    #[test]
    fn processes_of_a_process_count_and_end_with_it() {
        let (folder, listener) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 1000 & wait"]);
        let server = Server::start("it", "0", &shell, folder.path(), &[listener.local_addr().unwrap()]).unwrap();
        while server.processes().len() < 2 || server.cpu_ns() < 1_000_000 {
            std::thread::yield_now();
        }
        assert!(server.memory_bytes() > 0);
        let id = server.child.id();
        drop(server);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_server_that_ends_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "seq 100; echo 'no such directive' >&2; exit 3"]);
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Err(why) = Server::start("it", "0", &shell, folder.path(), &[address]) else { panic!("it listens") };
        assert!(why.0.starts_with("it ended with exit status: 3; the end of its log:\n    87\n"), "{}", why.0);
        assert!(why.0.ends_with("no such directive"), "{}", why.0);
    }
}

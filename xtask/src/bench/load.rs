//! What asks the servers: wrk and h2load, which people know, and our own process (`own.rs`) for what neither does. Each load comes
//! in two kinds: as fast as it goes, for requests a second and CPU time, and paced below that, for the time that requests take.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bench::rows::{Load, ZIPF_BODY_BYTES, ZIPF_DRAWS, ZIPF_EXPONENT, ZIPF_OBJECTS};
use crate::bench::server::pinned;
use crate::bench::stats::{percentile, zipf};
use crate::shell::{Failed, output_of};

/// Connections of a load that our own process makes.
const OWN_CONNECTIONS: usize = 64;
/// Connections that read a large body at once.
const LARGE_CONNECTIONS: usize = 4;
/// Connections, and streams on each, of the HTTP/2 load.
const H2_CONNECTIONS: usize = 8;
const H2_STREAMS: usize = 32;
/// Connections of the Zipf load.
const ZIPF_CONNECTIONS: usize = 64;
/// Connections that do handshakes at once.
const HANDSHAKES: usize = 16;
/// Slowest pace in requests a second, for all connections together.
const RATE_MIN: u64 = 1;

/// Where a load goes, and from where.
pub(crate) struct Target<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
    /// The generator's cores, and how many threads it has.
    pub(crate) cores: &'a str,
    pub(crate) threads: usize,
    pub(crate) seconds: u64,
    /// What no other load of this run has: misses ask for what has it in its name.
    pub(crate) turn: u64,
    /// What `prepare` wrote.
    pub(crate) files: &'a Files,
}

/// What the generators read.
pub(crate) struct Files {
    folder: PathBuf,
    pub(crate) cert: PathBuf,
}

/// What a load did. Times are there if it was paced.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
}

impl Files {
    pub(crate) fn write(folder: &Path, cert: &Path) -> Result<Self, Failed> {
        let files = Self { folder: folder.to_owned(), cert: cert.to_owned() };
        let draws = zipf(ZIPF_OBJECTS, ZIPF_EXPONENT, ZIPF_DRAWS, 1);
        let paths: String = draws.iter().map(|n| format!("/{ZIPF_BODY_BYTES}/{n}\n")).collect();
        std::fs::write(files.paths(), &paths)?;
        std::fs::write(files.script(), ZIPF_SCRIPT.replace("PATHS", &files.paths().display().to_string()))?;
        Ok(files)
    }

    /// The paths of the Zipf load in the order of its requests.
    fn paths(&self) -> PathBuf {
        self.folder.join("zipf.txt")
    }

    /// wrk's script that asks for them.
    fn script(&self) -> PathBuf {
        self.folder.join("zipf.lua")
    }
}

/// Each thread of wrk starts at a place of its own.
const ZIPF_SCRIPT: &str = r#"
local requests, order, at, threads = {}, {}, 0, 0
function setup(thread) thread:set("start", threads * 30011); threads = threads + 1 end
function init()
  for path in io.lines("PATHS") do
    requests[path] = requests[path] or wrk.format("GET", path)
    order[#order + 1] = requests[path]
  end
  at = start % #order
end
function request() at = at % #order + 1; return order[at] end
"#;

/// Asks as fast as it goes.
pub(crate) fn saturate(load: Load, target: &Target) -> Result<Done, Failed> {
    match load {
        Load::Small { bytes, connections } => {
            wrk(target, connections, &[], &format!("/{bytes}/hit")).and_then(|text| parse_wrk(&text))
        }
        Load::Zipf => {
            let script = ["-s".to_owned(), target.files.script().display().to_string()];
            wrk(target, ZIPF_CONNECTIONS, &script, "/").and_then(|text| parse_wrk(&text))
        }
        Load::Streams { bytes } => {
            let arguments = [format!("-D{}", target.seconds), format!("-m{H2_STREAMS}")];
            let url = url(target, &format!("/{bytes}/hit"));
            parse_h2load(&h2load(target, H2_CONNECTIONS, &arguments, &url)?, "h2")
        }
        Load::Large { .. } | Load::Handshakes { .. } | Load::Misses { .. } => own(load, target, None),
        Load::Idle => Err(Failed("idle connections are not asked".to_owned())),
    }
}

/// Asks so many times a second.
pub(crate) fn pace(load: Load, target: &Target, rate: u64) -> Result<Done, Failed> {
    let rate = rate.max(RATE_MIN);
    match load {
        Load::Streams { bytes } => paced_h2load(target, rate, &url(target, &format!("/{bytes}/hit"))),
        Load::Idle => Err(Failed("idle connections are not asked".to_owned())),
        _ => own(load, target, Some(rate)),
    }
}

fn url(target: &Target, path: &str) -> String {
    format!("{}://{}{path}", if target.tls { "https" } else { "http" }, target.address)
}

fn wrk(target: &Target, connections: usize, more: &[String], path: &str) -> Result<String, Failed> {
    let mut command = pinned(target.cores);
    command.args(["wrk", "-t", &target.threads.to_string(), "-c", &connections.to_string()]);
    command.args(["-d", &format!("{}s", target.seconds)]);
    command.args(more).arg(url(target, path));
    output_of(&mut command)
}

fn h2load(target: &Target, connections: usize, more: &[String], url: &str) -> Result<String, Failed> {
    let mut command = pinned(target.cores);
    command.args(["h2load", "-t", &target.threads.to_string(), "-c", &connections.to_string()]);
    output_of(command.args(more).arg(url))
}

/// h2load at a pace, and what its log tells about each request.
fn paced_h2load(target: &Target, rate: u64, url: &str) -> Result<Done, Failed> {
    let log = target.files.folder.join("requests.tsv");
    let _ = std::fs::remove_file(&log);
    let each = rate as f64 / H2_CONNECTIONS as f64;
    let mut arguments = vec![format!("-D{}", target.seconds), format!("--rps={each:.3}")];
    arguments.push(format!("--log-file={}", log.display()));
    let text = h2load(target, H2_CONNECTIONS, &arguments, url)?;
    let done = parse_h2load(&text, "h2")?;
    let mut times = parse_log(&std::fs::read_to_string(&log)?)?;
    times.sort_unstable();
    Ok(Done { p50_us: percentile(&times, 0.5), p99_us: percentile(&times, 0.99), ..done })
}

/// Our own process.
fn own(load: Load, target: &Target, rate: Option<u64>) -> Result<Done, Failed> {
    let (kind, connections, path) = match load {
        Load::Small { bytes, connections } => ("paced", connections, format!("/{bytes}/hit")),
        Load::Zipf => ("paced", ZIPF_CONNECTIONS, String::new()),
        Load::Handshakes { bytes } => ("handshakes", HANDSHAKES, format!("/{bytes}/hit")),
        Load::Large { bytes } => ("bodies", LARGE_CONNECTIONS, format!("/{bytes}/hit")),
        Load::Misses { bytes } => ("bodies", OWN_CONNECTIONS, format!("/{bytes}/{}-N", target.turn)),
        Load::Streams { .. } | Load::Idle => return Err(Failed("other programs make this load".to_owned())),
    };
    // A handshake is worth a thread; what is paced otherwise has one for all connections.
    let kind = if rate.is_some() && kind == "bodies" { "paced" } else { kind };
    let mut command = pinned(target.cores);
    command.arg(std::env::current_exe()?).args(["bench-load", kind, "--address", &target.address.to_string()]);
    command.args(["--path", &path, "--connections", &connections.to_string()]);
    command.args(["--seconds", &target.seconds.to_string()]);
    if load == Load::Zipf {
        command.arg("--paths").arg(target.files.paths());
    }
    if target.tls {
        command.arg("--cert").arg(&target.files.cert);
    }
    if let Some(rate) = rate {
        command.args(["--rate", &rate.to_string()]);
    }
    Ok(serde_json::from_str(&output_of(&mut command)?)?)
}

/// What wrk says. Any error makes the whole a failure.
fn parse_wrk(text: &str) -> Result<Done, Failed> {
    let wrong = |why: &str| Failed(format!("{why}: wrk said\n{text}"));
    for line in text.lines() {
        if line.contains("Socket errors:") || line.contains("Non-2xx") {
            return Err(wrong(line.trim()));
        }
    }
    let line = text.lines().find(|line| line.contains(" requests in ")).ok_or_else(|| wrong("no requests"))?;
    let (requests, rest) = line.trim().split_once(" requests in ").ok_or_else(|| wrong("no requests"))?;
    let requests = requests.parse().map_err(|_| wrong("no number of requests"))?;
    let time = rest.split(',').next().unwrap_or_default();
    let seconds = match (time.strip_suffix("s"), time.strip_suffix("m")) {
        (Some(seconds), _) => seconds.parse().ok(),
        (_, Some(minutes)) => minutes.parse::<f64>().ok().map(|minutes| 60.0 * minutes),
        _ => None,
    };
    let seconds = seconds.ok_or_else(|| wrong("no duration"))?;
    if requests == 0 {
        Err(wrong("no request was answered"))
    } else {
        Ok(Done { requests, seconds, p50_us: None, p99_us: None })
    }
}

/// What h2load says. Any error, and another protocol, makes the whole a failure.
fn parse_h2load(text: &str, protocol: &str) -> Result<Done, Failed> {
    let wrong = |why: &str| Failed(format!("{why}: h2load said\n{text}"));
    let starting = |with: &str| text.lines().find_map(|line| line.strip_prefix(with)).map(str::trim);
    if let Some(spoken) = starting("Application protocol:")
        && spoken != protocol
    {
        return Err(wrong(&format!("{spoken} was spoken instead of {protocol}")));
    }
    let counts = starting("requests:").ok_or_else(|| wrong("no requests"))?;
    let count = |name: &str| {
        let number = counts.split(", ").find_map(|count| count.strip_suffix(name));
        number.and_then(|number| number.trim().parse::<u64>().ok()).ok_or_else(|| wrong(name))
    };
    let requests = count("succeeded")?;
    let bad = [count("failed")?, count("errored")?, count("timeout")?];
    let statuses = starting("status codes:").ok_or_else(|| wrong("no status codes"))?;
    let others = statuses.split(", ").skip(1).any(|status| !status.starts_with("0 "));
    if bad != [0; 3] || others || requests == 0 {
        return Err(wrong("not every request was answered with 200"));
    }
    let time = starting("finished in").and_then(|rest| rest.split(',').next()).unwrap_or_default();
    let seconds = match (time.strip_suffix("ms"), time.strip_suffix("s")) {
        (Some(ms), _) => ms.parse::<f64>().ok().map(|ms| ms / 1_000.0),
        (_, Some(seconds)) => seconds.parse().ok(),
        _ => None,
    };
    let seconds = seconds.ok_or_else(|| wrong("no duration"))?;
    Ok(Done { requests, seconds, p50_us: None, p99_us: None })
}

/// The times in h2load's log of requests, in microseconds.
fn parse_log(log: &str) -> Result<Vec<u64>, Failed> {
    let mut times = Vec::new();
    for line in log.lines() {
        match *line.split('\t').collect::<Vec<_>>().as_slice() {
            [_, "200", time] => times.push(time.parse()?),
            _ => return Err(Failed(format!("h2load's log has the line {line:?}"))),
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::{Done, parse_h2load, parse_log, parse_wrk};

    const WRK: &str = "Running 2s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n\
                       \x20 Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.00ms    2.00ms   9.00ms   90.00%\n\
                       \x20 123456 requests in 2.10s, 150.23MB read\nRequests/sec:  58788.57\nTransfer/sec:     71.54MB\n";
    const H2LOAD: &str = "starting benchmark...\nApplication protocol: h2\n\n\
                          finished in 2.00s, 1000.00 req/s, 1.05MB/s\n\
                          requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout\n\
                          status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    #[test]
    fn wrk_says() {
        let done = |requests, seconds| Some(Done { requests, seconds, p50_us: None, p99_us: None });
        let errors = "  Socket errors: connect 0, read 1, write 0, timeout 0\nRequests/sec";
        for (text, expected) in [
            (WRK.to_owned(), done(123_456, 2.1)),
            (WRK.replace("2.10s,", "1.50m,"), done(123_456, 90.0)),
            (WRK.replace("Requests/sec", errors), None),
            (WRK.replace("Requests/sec", "  Non-2xx or 3xx responses: 7\nRequests/sec"), None),
            (WRK.replace("123456", "0"), None),
            ("unable to connect\n".to_owned(), None),
        ] {
            assert_eq!(parse_wrk(&text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn h2load_says() {
        let done = |requests, seconds| Some(Done { requests, seconds, p50_us: None, p99_us: None });
        for (text, expected) in [
            (H2LOAD.to_owned(), done(2_000, 2.0)),
            (H2LOAD.replace("finished in 2.00s", "finished in 250.50ms"), done(2_000, 0.2505)),
            (H2LOAD.replace("protocol: h2", "protocol: http/1.1"), None),
            (H2LOAD.replace("0 errored", "3 errored"), None),
            (H2LOAD.replace("2000 2xx, 0 3xx, 0 4xx", "1999 2xx, 0 3xx, 1 4xx"), None),
            (H2LOAD.replace("2000", "0"), None),
            (String::new(), None),
        ] {
            assert_eq!(parse_h2load(&text, "h2").ok(), expected, "{text}");
        }
    }

    #[test]
    fn the_log_of_h2load_says() {
        assert_eq!(parse_log("1000\t200\t345\n1001\t200\t12\n").unwrap(), [345, 12]);
        for log in ["1000\t-1\t345\n", "1000\t503\t345\n", "1000\t200\tx\n", "1000\t200\n"] {
            assert!(parse_log(log).is_err(), "{log}");
        }
    }
}

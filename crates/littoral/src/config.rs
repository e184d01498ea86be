//! The configuration file of a process: TOML, a section for each role that it may run.
//!
//! Unknown settings are errors with line and column and, where one is near enough, the name that was meant. What is
//! absent has a default, or is asked for by name. `docs/littoral.example.toml` names every setting; a test reads it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use api::names::{NodeName, Place};
use edge::shelf::{Objective, PolicyName};
use ipnet::IpNet;
use serde::Deserialize;

use crate::cli::error::CliError;
use crate::doors::TlsSection;
use crate::tiers::DiskFolder;

/// Default size of an edge's memory tier.
pub const DEFAULT_MEMORY: &str = "64MiB";
/// Default size of the disk tier of each edge that `up` runs.
pub const DEFAULT_DISK: &str = "1GiB";
/// Longest configuration file, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A whole file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The data folder of the process.
    pub data_dir: Option<PathBuf>,
    /// The admin listener.
    pub admin: Option<AdminSection>,
    /// Control.
    pub control: Option<ControlSection>,
    /// Origin.
    pub origin: Option<OriginSection>,
    /// Monitor.
    pub monitor: Option<MonitorSection>,
    /// Router.
    pub router: Option<RouterSection>,
    /// Edges: `[[edge]]`, once for each.
    #[serde(default)]
    pub edge: Vec<EdgeSection>,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSection {
    /// Where it listens.
    pub listen: SocketAddr,
}

/// `[control]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlSection {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What the URLs of zones without hostnames begin with: the router's address.
    pub public_url: String,
    /// Where edges find the origin.
    pub origin_url: String,
    /// Where the origin stands.
    pub origin_place: PlaceText,
    /// Where clients are taken to be whose place is not known. Default: where the origin stands.
    pub default_place: Option<PlaceText>,
    /// Where edges send their heartbeats.
    pub monitor: Option<SocketAddr>,
}

/// `[origin]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginSection {
    /// Where it listens: the api address.
    pub listen: SocketAddr,
    /// Where control is.
    pub control_url: String,
    /// The file with the node token. Default: `node.token` in the data folder.
    pub token_file: Option<PathBuf>,
    /// The folder of the blobs. Default: `objects` in the data folder.
    pub objects: Option<PathBuf>,
}

/// `[monitor]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorSection {
    /// Where it listens, UDP.
    pub listen: SocketAddr,
    /// Where control is.
    pub control_url: String,
    /// The file with the node token. Default: `node.token` in the data folder.
    pub token_file: Option<PathBuf>,
    /// How long a node counts as alive after its last heartbeat.
    pub dead_after_ms: Option<u64>,
}

/// `[router]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterSection {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where control is.
    pub control_url: String,
    /// The file with the node token. Default: `node.token` in the data folder.
    pub token_file: Option<PathBuf>,
    /// Threads that serve requests. Default: one for each core.
    pub threads: Option<Threads>,
    /// What it does with a request.
    #[serde(default)]
    pub mode: RouterMode,
    /// Where clients are taken to be whose place is not known.
    pub default_place: PlaceText,
    /// TLS, beside `listen`.
    pub tls: Option<TlsSection>,
    /// Proxies whose connections begin with a PROXY header.
    #[serde(default)]
    pub proxy_protocol_from: Vec<IpNet>,
}

/// What a router does with a request once it knows the edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RouterMode {
    /// Sends the client there (307).
    #[default]
    Redirect,
    /// Fetches the answer for the client.
    Proxy,
}

/// `[[edge]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeSection {
    /// Its name.
    pub name: NodeName,
    /// Where it stands.
    pub place: PlaceText,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where others reach it. Default: `http://` and `listen`.
    pub url: Option<String>,
    /// Where clients reach it over TLS. Default: nowhere.
    pub https_url: Option<String>,
    /// TLS, beside `listen`.
    pub tls: Option<TlsSection>,
    /// Proxies whose connections begin with a PROXY header.
    #[serde(default)]
    pub proxy_protocol_from: Vec<IpNet>,
    /// Where control is.
    pub control_url: String,
    /// The file with the node token. Default: `node.token` in the data folder.
    pub token_file: Option<PathBuf>,
    /// Threads that serve requests. Default: one for each core.
    pub threads: Option<Threads>,
    /// Size of the memory tier, like `256MiB`.
    pub memory: Option<Size>,
    /// File for a line of JSON about each request; `-` is standard output. Default: none.
    pub access_log: Option<PathBuf>,
    /// The part of the requests that is logged, 0 to 1. Default: all.
    pub access_log_sample: Option<Rate>,
    /// Folders of the disk tier with their sizes, like `/var/cache/littoral=100GiB`; none: there is no disk tier.
    #[serde(default)]
    pub disk: Vec<DiskFolder>,
    /// Who leaves when the cache is full; `auto` when it is not said.
    pub eviction: Option<Eviction>,
    /// What is worth most: `requests` (when it is not said) or `bytes`.
    pub objective: Option<ObjectiveText>,
}

/// A place as text: `LAT,LNG`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct PlaceText(pub Place);

impl TryFrom<String> for PlaceText {
    type Error = api::InvalidName;
    fn try_from(text: String) -> Result<Self, api::InvalidName> {
        text.parse().map(Self)
    }
}

/// The name of an eviction policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Eviction(pub PolicyName);

impl TryFrom<String> for Eviction {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse::<PolicyName>().map(Self).map_err(|error| error.to_string())
    }
}

/// The name of an objective.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ObjectiveText(pub Objective);

impl TryFrom<String> for ObjectiveText {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse::<Objective>().map(Self).map_err(|error| error.to_string())
    }
}

/// A part of a whole: 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Rate(pub f64);

impl Default for Rate {
    fn default() -> Self {
        Self(1.0)
    }
}

impl TryFrom<f64> for Rate {
    type Error = String;
    fn try_from(rate: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&rate) { Ok(Self(rate)) } else { Err(format!("{rate} is not a part; give 0 to 1")) }
    }
}

impl std::str::FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let rate: f64 = text.parse().map_err(|_| format!("{text:?} is not a number from 0 to 1"))?;
        Self::try_from(rate)
    }
}

/// A number of threads: at least one, at most [`net::MAX_WORKERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub struct Threads(pub NonZeroUsize);

impl TryFrom<usize> for Threads {
    type Error = String;
    fn try_from(number: usize) -> Result<Self, String> {
        let most = net::MAX_WORKERS;
        NonZeroUsize::new(number)
            .filter(|number| number.get() <= most)
            .map(Self)
            .ok_or_else(|| format!("{number} threads; give 1 to {most}"))
    }
}

impl std::str::FromStr for Threads {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number: usize = text.parse().map_err(|_| format!("{text:?} is not a number of threads"))?;
        Self::try_from(number)
    }
}

/// A number of bytes: `1048576`, `512KiB`, `64MiB`, `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

impl std::str::FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a size; write it like 512KiB, 64MiB or 2GiB");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let shift = match unit.trim() {
            "" | "B" => 0,
            "KiB" | "K" | "k" => 10,
            "MiB" | "M" => 20,
            "GiB" | "G" => 30,
            "TiB" | "T" => 40,
            _ => return Err(wrong()),
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Size {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Reads a configuration file.
///
/// # Errors
/// It cannot be read, is not TOML, or holds something that is not a setting.
pub fn read(path: &Path) -> Result<Config, CliError> {
    let shown = path.display();
    let cannot = |why: &dyn std::fmt::Display| CliError::usage(format!("cannot read the configuration {shown}: {why}"));
    let length = std::fs::metadata(path).map_err(|error| cannot(&error))?.len();
    if length > MAX_CONFIG_BYTES {
        return Err(cannot(&format!("it has {length} bytes; at most {MAX_CONFIG_BYTES} are allowed")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
    parse(&text).map_err(|(why, hint)| {
        let error = CliError::usage(format!("the configuration {shown} is not valid\n{why}"));
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    })
}

/// The configuration in `text`, or what is wrong with it and perhaps what was meant.
fn parse(text: &str) -> Result<Config, (String, Option<String>)> {
    toml::from_str(text).map_err(|error| {
        let hint = did_you_mean(error.message());
        (error.to_string().trim_end().to_owned(), hint)
    })
}

/// How alike two names must be for one to be offered for the other: Jaro-Winkler, 1 is equal.
const ALIKE: f64 = 0.8;

/// Reads «unknown field `x`, expected one of `a`, `b`» and offers the nearest.
pub(crate) fn did_you_mean(message: &str) -> Option<String> {
    let mut names = message.strip_prefix("unknown ")?.split('`').skip(1).step_by(2);
    let given = names.next()?;
    let alike = |name: &str| strsim::jaro_winkler(given, name);
    let nearest = names.max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    (alike(nearest) >= ALIKE).then(|| format!("did you mean `{nearest}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_names_every_setting() {
        let config = parse(include_str!("../../../docs/littoral.example.toml")).expect("valid");
        assert!(config.data_dir.is_some() && config.admin.is_some() && config.monitor.is_some());
        assert!(config.control.is_some_and(|c| c.default_place.is_some() && c.monitor.is_some()));
        assert!(config.origin.is_some_and(|o| o.token_file.is_some() && o.objects.is_some()));
        assert!(config.router.is_some_and(|r| r.mode == RouterMode::Proxy && r.tls.is_some_and(|t| t.certs.is_some())));
        let edge = config.edge.first().expect("an edge");
        assert!(edge.tls.as_ref().is_some_and(|t| t.cert.is_some() && t.key.is_some()));
        assert!(edge.https_url.is_some() && edge.proxy_protocol_from.len() == 2);
        assert!(config.edge.iter().any(|e| e.memory == Some(Size(256 << 20)) && e.url.is_some()));
    }

    #[test]
    fn mistakes_are_placed_and_named() {
        let check = |text: &str, parts: &[&str]| {
            let (why, hint) = parse(text).expect_err(text);
            let whole = format!("{why} {}", hint.unwrap_or_default());
            for part in parts {
                assert!(whole.contains(part), "{part:?} not in {whole}");
            }
        };
        check(
            "[origin]\nlisten = \"127.0.0.1:1\"\nconrol_url = \"x\"",
            &["line 3, column 1", "conrol_url", "did you mean `control_url`?"],
        );
        check("[edges]\n", &["line 1", "did you mean `edge`?"]);
        check("[admin]\nlisten = \"nonsense\"", &["line 2", "invalid socket address"]);
        check("[admin]\n", &["missing field `listen`"]);
        check("x", &["line 1"]);
        let edge = "[[edge]]\nname = \"a\"\nplace = \"91,0\"\nlisten = \"127.0.0.1:1\"\ncontrol_url = \"http://x\"";
        check(edge, &["line 3", "-90 to 90"]);
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("1048576", 1 << 20), ("512KiB", 512 << 10), ("64MiB", 64 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "64 parsecs", "99999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}

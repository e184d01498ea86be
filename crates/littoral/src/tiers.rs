//! How the tiers of an edge's cache are set: the flags of `edge`, and the settings of `[[edge]]`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use edge::CacheConfig;
use edge::shelf::disk::FolderConfig;
use edge::shelf::{Objective, PolicyChoice, PolicyName};
use serde::Deserialize;

use crate::config::Size;

/// The folder, below one that is given for the cache, in which the disk tier has its files.
const FILES: &str = "cache";
/// The folder beside it in which an edge without a data folder keeps its state.
const STATE: &str = "state";

/// A folder for the disk tier, and how much may lie in it: `PATH=SIZE`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DiskFolder {
    /// Where.
    pub path: PathBuf,
    /// How much, in bytes.
    pub bytes: u64,
}

impl FromStr for DiskFolder {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, size) = text
            .rsplit_once('=')
            .filter(|(path, _)| !path.is_empty())
            .ok_or_else(|| format!("{text:?} is no folder with a size; write it like /var/cache/littoral=100GiB"))?;
        Ok(Self { path: path.into(), bytes: size.parse::<Size>()?.0 })
    }
}

impl TryFrom<String> for DiskFolder {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Flags for the tiers of an edge.
#[derive(Debug, Clone, Default, Args)]
pub struct TierArgs {
    /// Folder for a disk tier, and its size, like /var/cache/littoral=100GiB; may be given several times
    #[arg(long, value_name = "PATH=SIZE")]
    pub disk: Vec<DiskFolder>,
    /// Who leaves when the cache is full: auto, lru, lfu, s3fifo, sieve, gdsf, or none (what finds no room is not kept)
    #[arg(long, value_name = "POLICY", default_value = "auto")]
    pub eviction: PolicyName,
    /// What is worth most, for auto and gdsf: requests served, or bytes
    #[arg(long, value_name = "requests|bytes", default_value = "requests")]
    pub objective: Objective,
}

impl TierArgs {
    /// The settings of the tiers.
    pub fn config(&self) -> CacheConfig {
        config(&self.disk, PolicyChoice { policy: self.eviction, objective: self.objective })
    }

    /// Where an edge without a data folder keeps its state; nothing without a disk tier.
    pub fn state_dir(&self) -> Option<PathBuf> {
        self.disk.first().map(|folder| folder.path.join(STATE))
    }
}

/// The settings of tiers with these folders.
pub fn config(folders: &[DiskFolder], policy: PolicyChoice) -> CacheConfig {
    let folder = |folder: &DiskFolder| files(&folder.path, folder.bytes);
    CacheConfig { policy, folders: folders.iter().map(folder).collect(), ..CacheConfig::default() }
}

/// The disk tier's folder below `path`.
pub fn files(path: &Path, limit_bytes: u64) -> FolderConfig {
    FolderConfig { path: path.join(FILES), limit_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_with_sizes() {
        for (text, expected) in [
            ("/a=1GiB", Some(("/a", 1 << 30))),
            ("a=b=5", Some(("a=b", 5))),
            ("/a", None),
            ("=1GiB", None),
            ("/a=", None),
            ("/a=1XB", None),
        ] {
            let read = text.parse::<DiskFolder>().ok();
            let expected = expected.map(|(path, bytes)| DiskFolder { path: path.into(), bytes });
            assert_eq!(read, expected, "{text}");
        }
    }
}

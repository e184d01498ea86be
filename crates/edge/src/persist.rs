//! What an edge knows across restarts: the last configuration and the number of the newest applied event.
//!
//! Layout: `snapshot.json` is the whole [`Snapshot`] as control sent it; `applied.json` is [`Applied`]. Each is written to
//! a temporary name, synced and renamed, so a file is the old one or the new one, never half of one. A file that cannot be
//! read is as good as none: the edge then starts as if it were new, and says so in the log.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use api::node::{SNAPSHOT_FORMAT, Snapshot};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Up to which event of which catalog an edge has applied everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) format: u32,
    pub(crate) catalog_id: String,
    pub(crate) number: u64,
}

/// The form of [`Applied`] that this program writes and reads.
pub(crate) const APPLIED_FORMAT: u32 = 1;

/// The folder of an edge.
#[derive(Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self(path.to_owned()))
    }

    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.read("snapshot.json").filter(|snapshot: &Snapshot| snapshot.format == SNAPSHOT_FORMAT)
    }

    pub(crate) fn applied(&self) -> Option<Applied> {
        self.read("applied.json").filter(|applied: &Applied| applied.format == APPLIED_FORMAT)
    }

    pub(crate) fn write_snapshot(&self, snapshot: &Snapshot) -> io::Result<()> {
        self.write("snapshot.json", snapshot)
    }

    pub(crate) fn write_applied(&self, applied: &Applied) -> io::Result<()> {
        self.write("applied.json", applied)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.0.join(name);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read; starting without it");
                return None;
            }
        };
        match serde_json::from_slice(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "not understood; starting without it");
                None
            }
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let (path, temporary) = (self.0.join(name), self.0.join(format!("{name}.new")));
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        std::fs::File::open(&self.0)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back_and_damage_is_as_good_as_nothing() {
        let temporary = tempfile::tempdir().expect("folder");
        let folder = Folder::open(temporary.path()).expect("open");
        assert_eq!(folder.applied(), None);
        let applied = Applied { format: APPLIED_FORMAT, catalog_id: "c".into(), number: 7 };
        folder.write_applied(&applied).expect("write");
        assert_eq!(folder.applied(), Some(applied.clone()));
        folder.write_applied(&Applied { format: APPLIED_FORMAT + 1, ..applied }).expect("write");
        assert_eq!(folder.applied(), None);
        std::fs::write(temporary.path().join("applied.json"), "{\"format\":1").expect("write");
        assert_eq!(folder.applied(), None);
    }
}

//! The configuration that an edge keeps across restarts, and how it replaces files.
//!
//! Layout: `snapshot.json` is the whole [`Snapshot`], as control sent it, or as an edge without control was given it. One
//! that cannot be read is as good as none: the edge then starts as if it were new, and says so in the log. What else the
//! folder holds is in [`crate::marks`], and one file in [`crate::sweep`].

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use api::node::{SNAPSHOT_FORMAT, Snapshot};

const CONFIGURATION: &str = "snapshot.json";

/// The folder of an edge.
#[derive(Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self(path.to_owned()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let path = self.0.join(CONFIGURATION);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read; starting without it");
                return None;
            }
        };
        match serde_json::from_slice(&text) {
            Ok(snapshot) => Some(snapshot).filter(|snapshot: &Snapshot| snapshot.format == SNAPSHOT_FORMAT),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "not understood; starting without it");
                None
            }
        }
    }

    pub(crate) fn write_snapshot(&self, snapshot: &Snapshot) -> io::Result<()> {
        replace(&self.0, CONFIGURATION, &serde_json::to_vec(snapshot)?)
    }
}

/// Replaces a file in a folder by one of these bytes. They are written to a temporary name, synced and renamed, and the
/// folder is synced, so that the file is the old one or the new one, never half of one. Blocks.
pub(crate) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (path, temporary) = (folder.join(name), folder.join(format!("{name}.new")));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Hello;
    use api::names::Place;
    use api::node::Upstream;

    #[test]
    fn what_is_written_comes_back_and_damage_is_as_good_as_nothing() {
        let temporary = tempfile::tempdir().expect("folder");
        let folder = Folder::open(temporary.path()).expect("open");
        assert!(folder.snapshot().is_none());
        let snapshot = Snapshot {
            format: SNAPSHOT_FORMAT,
            at: Hello { catalog_id: "c".into(), head: 7, oldest: 1, generation: 3 },
            zones: Vec::new(),
            nodes: Vec::new(),
            origin: Upstream { url: String::new(), place: Place { lat: 0.0, lng: 0.0 } },
            monitor: None,
            readers: Vec::new(),
        };
        folder.write_snapshot(&snapshot).expect("write");
        assert_eq!(folder.snapshot(), Some(snapshot.clone()));
        folder.write_snapshot(&Snapshot { format: SNAPSHOT_FORMAT + 1, ..snapshot }).expect("write");
        assert!(folder.snapshot().is_none());
        std::fs::write(temporary.path().join("snapshot.json"), "{\"format\":1").expect("write");
        assert!(folder.snapshot().is_none());
    }
}

//! The last snapshot, on disk: one file of JSON, `router-snapshot.json`, replaced as a whole.
//!
//! A new one is written beside it, synced, and renamed over it, and then the folder is synced: after a crash there is the
//! old one or the new one. One that cannot be read, or is of a newer form, counts as absent: control has it again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use api::node::{SNAPSHOT_FORMAT, Snapshot};

/// Longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone)]
pub(crate) struct Stored {
    folder: PathBuf,
    file: PathBuf,
}

impl Stored {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: folder.join("router-snapshot.json") }
    }

    /// Reads the snapshot, where there is a usable one. Blocks.
    pub(crate) fn load(&self) -> Option<Snapshot> {
        match self.read() {
            Ok(snapshot) => Some(snapshot),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %self.file.display(), %error, "the stored snapshot is not usable");
                None
            }
        }
    }

    fn read(&self) -> io::Result<Snapshot> {
        if fs::metadata(&self.file)?.len() > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("it is larger than {MAX_FILE_BYTES} bytes")));
        }
        let snapshot: Snapshot = serde_json::from_slice(&fs::read(&self.file)?)?;
        if snapshot.format > SNAPSHOT_FORMAT {
            let why = format!("it has form {}, and this program reads up to {SNAPSHOT_FORMAT}", snapshot.format);
            return Err(io::Error::other(why));
        }
        Ok(snapshot)
    }

    /// Replaces the snapshot. Blocks.
    pub(crate) fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        // Two processes may follow control for a moment, when one takes the other's place.
        let beside = self.file.with_extension(format!("json.new.{}", std::process::id()));
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(snapshot)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.file)?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::snapshot;

    #[test]
    fn the_last_one_is_read_and_nonsense_is_not() {
        let folder = tempfile::tempdir().expect("folder");
        let stored = Stored::in_folder(folder.path());
        assert_eq!(stored.load(), None);
        stored.save(&snapshot("c", 1, &["a"])).expect("save");
        stored.save(&snapshot("c", 2, &["b"])).expect("save");
        assert_eq!(stored.load(), Some(snapshot("c", 2, &["b"])));
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);

        let newer = Snapshot { format: SNAPSHOT_FORMAT + 1, ..snapshot("c", 3, &[]) };
        stored.save(&newer).expect("save");
        assert_eq!(stored.load(), None);
        fs::write(&stored.file, "{").expect("write");
        assert_eq!(stored.load(), None);
        File::create(&stored.file).and_then(|file| file.set_len(MAX_FILE_BYTES + 1)).expect("grow");
        assert_eq!(stored.load(), None);
        assert!(Stored::in_folder(&folder.path().join("absent")).save(&newer).is_err());
    }
}

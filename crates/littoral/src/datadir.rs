//! The data folder of a process: one process at a time, one format, secrets with mode 0600.
//!
//! Layout: `lock` (held for the life of the process), `format` (the number of the layout), `admin.token` and `node.token`
//! (secrets), `tls/` (the development authority), `run.json` (the addresses of what runs), `catalog/` (SQLite), `objects/` (blobs), `edges/<name>/`,
//! `router/`. Every file here is written to a temporary name, synced and renamed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use api::TokenSecret;

/// The layout that this program writes and reads.
pub const FORMAT: u32 = 1;

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("the data folder {path} is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It is of a newer version.
    #[error("the data folder {path} was written by a newer Littoral (format {found}; this one reads up to {FORMAT})")]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A file in it makes no sense.
    #[error("{path} is not what Littoral writes there: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system refuses.
    #[error("cannot use {path} in the data folder: {why}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        why: io::Error,
    },
}

/// A data folder that this process holds.
pub struct DataDir {
    path: PathBuf,
    /// Unlocked by the operating system when the process ends, however it ends, and whoever it was handed to.
    lock: File,
}

impl DataDir {
    /// Opens the folder, making it if need be, and takes hold of it.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        Self::open_after(path, |_| None)
    }

    /// The same, with the lock of a process whose place this one takes, if `former` has one of this name.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open_after(path: &Path, former: impl FnOnce(&str) -> Option<OwnedFd>) -> Result<Self, DataDirError> {
        let io = |at: &Path| {
            let at = at.to_owned();
            move |why| DataDirError::Io { path: at, why }
        };
        std::fs::create_dir_all(path).map_err(io(path))?;
        let path = path.canonicalize().map_err(io(path))?;
        let lock_path = path.join("lock");
        let lock = match former(&lock_name(&path)) {
            Some(lock) => File::from(lock),
            None => {
                OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(io(&lock_path))?
            }
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { path }),
            Err(TryLockError::Error(why)) => return Err(DataDirError::Io { path: lock_path, why }),
        }
        let folder = Self { path, lock };
        folder.check_format()?;
        Ok(folder)
    }

    /// What holds the folder, and its name, for [`Self::open_after`].
    pub fn lock(&self) -> (String, &File) {
        (lock_name(&self.path), &self.lock)
    }

    fn check_format(&self) -> Result<(), DataDirError> {
        let Some(text) = self.read("format")? else {
            return self.write("format", &format!("{FORMAT}\n"), 0o644);
        };
        match text.trim().parse::<u32>() {
            Ok(found) if found > FORMAT => Err(DataDirError::Newer { path: self.path.clone(), found }),
            Ok(_) => Ok(()),
            Err(_) => Err(DataDirError::Damaged {
                path: self.path.join("format"),
                why: "it should hold the number of the folder's format".to_owned(),
            }),
        }
    }

    /// The folder, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The secret in `name`; made, and written with mode 0600, if there is none yet.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn secret(&self, name: &str) -> Result<TokenSecret, DataDirError> {
        let path = self.path.join(name);
        if let Some(text) = self.read(name)? {
            return TokenSecret::parse(text.trim())
                .map_err(|error| DataDirError::Damaged { path, why: error.to_string() });
        }
        let secret = TokenSecret::generate()
            .map_err(|error| DataDirError::Io { path, why: io::Error::other(error.to_string()) })?;
        self.write(name, &format!("{}\n", secret.reveal()), 0o600)?;
        Ok(secret)
    }

    /// Writes a small file, durably.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), DataDirError> {
        let (path, temporary) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let written = || {
            // A leftover of a crash may have another mode.
            match std::fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            File::open(&self.path)?.sync_all()
        };
        written().map_err(|why| DataDirError::Io { path: path.clone(), why })
    }

    /// Removes a small file, if it is there.
    pub fn remove(&self, name: &str) {
        // Only called for `run.json`, which is a convenience: a stale one gives «connection refused».
        let _ = std::fs::remove_file(self.path.join(name));
    }

    /// Makes a folder in it, if need be.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn folder(&self, name: &str) -> Result<PathBuf, DataDirError> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).map_err(|why| DataDirError::Io { path: path.clone(), why })?;
        Ok(path)
    }

    /// A small file, if it is there.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn read(&self, name: &str) -> Result<Option<String>, DataDirError> {
        let path = self.path.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(DataDirError::Io { path, why }),
        }
    }
}

fn lock_name(path: &Path) -> String {
    format!("lock of {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn one_process_at_a_time_and_the_same_secret_again() {
        let temporary = tempfile::tempdir().expect("folder");
        let path = temporary.path().join("new/data");
        let folder = DataDir::open(&path).expect("open");
        let secret = folder.secret("admin.token").expect("secret");
        let mode = std::fs::metadata(path.join("admin.token")).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse { .. })));
        drop(folder);
        let folder = DataDir::open(&path).expect("open again");
        assert_eq!(folder.secret("admin.token").expect("secret"), secret);
    }

    #[test]
    fn newer_damaged_and_unusable_folders_say_so() {
        let temporary = tempfile::tempdir().expect("folder");
        let check = |format: &str, expected: &str| {
            std::fs::write(temporary.path().join("format"), format).expect("write");
            let error = DataDir::open(temporary.path()).err().expect("refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("2\n", "newer Littoral (format 2; this one reads up to 1)");
        check("x", "the number of the folder's format");
        std::fs::write(temporary.path().join("format"), "1").expect("write");
        std::fs::write(temporary.path().join("node.token"), "a b").expect("write");
        let error = DataDir::open(temporary.path()).expect("open").secret("node.token").expect_err("damaged");
        assert!(!error.to_string().contains("a b"), "{error}");
        let file = temporary.path().join("file");
        std::fs::write(&file, "").expect("write");
        assert!(matches!(DataDir::open(&file.join("data")), Err(DataDirError::Io { .. })));
    }
}

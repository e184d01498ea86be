//! What is in a folder, and which path each file would have in a zone.
//!
//! Files are taken, hidden ones too. A symlink is followed only to a file inside the folder; a symlink to anything else,
//! and what is neither file nor folder, is reported. A folder that holds the data of a CDN (one of [`SECRETS`] is in it) is
//! left alone: publishing it would publish its tokens.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use api::FilePath;

use crate::cli::globals::ADMIN_TOKEN_FILE;
use crate::cli::human;

/// Files by which the data folder of a CDN is known.
const SECRETS: [&str; 2] = [ADMIN_TOKEN_FILE, "node.token"];

/// Why a folder cannot be walked at all.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// It cannot be read.
    #[error("cannot read the folder {name}: {source}")]
    Read {
        /// The folder.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It holds the data of a CDN.
    #[error("{name} holds the data and the secrets of a CDN, which are never published")]
    DataFolder {
        /// The folder.
        name: String,
    },
    /// The thread that walked has died.
    #[error("reading the folder {name} broke off")]
    BrokeOff {
        /// The folder.
        name: String,
    },
}

/// A file that can be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is on this machine.
    pub disk: PathBuf,
    /// Its path in the zone.
    pub path: FilePath,
    /// Bytes, when it was seen.
    pub size: u64,
}

/// Something that cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its local name, for messages.
    pub name: String,
    /// Why.
    pub why: String,
    /// The path that it would have in the zone, where it would be one.
    pub path: Option<FilePath>,
}

/// What a walk has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// In order of path.
    pub files: Vec<Found>,
    /// In order of name.
    pub rejected: Vec<Rejected>,
    /// Names of folders left alone because they hold the data of a CDN.
    pub skipped: Vec<String>,
    /// Whether everything was seen. If not, a file that was not found may exist all the same.
    pub whole: bool,
}

/// Walks `dir`; `prefix` (empty, or ending in a slash) begins every path.
///
/// # Errors
/// `dir` itself cannot be walked. What is below it and cannot be taken is in [`Walked::rejected`].
pub async fn walk(dir: &Path, prefix: &str) -> Result<Walked, WalkError> {
    let (dir, prefix) = (dir.to_owned(), prefix.to_owned());
    let name = shown(&dir);
    let walked = tokio::task::spawn_blocking(move || Walk::run(&dir, prefix)).await;
    walked.unwrap_or(Err(WalkError::BrokeOff { name }))
}

pub(crate) use human::file_name as shown;

/// A walk under way.
struct Walk {
    /// The folder without symlinks.
    root: PathBuf,
    /// Folders still to be read, with the beginning of the paths in them.
    folders: Vec<(PathBuf, String)>,
    walked: Walked,
}

impl Walk {
    fn run(dir: &Path, prefix: String) -> Result<Walked, WalkError> {
        let unreadable = |source| WalkError::Read { name: shown(dir), source };
        let walked = Walked { files: Vec::new(), rejected: Vec::new(), skipped: Vec::new(), whole: true };
        let mut walk = Self { root: fs::canonicalize(dir).map_err(unreadable)?, folders: Vec::new(), walked };
        let entries = entries(dir).map_err(unreadable)?;
        if holds_cdn_data(dir) {
            return Err(WalkError::DataFolder { name: shown(dir) });
        }
        entries.iter().for_each(|entry| walk.entry(entry, &prefix));
        while let Some((folder, prefix)) = walk.folders.pop() {
            walk.folder(&folder, &prefix);
        }
        walk.walked.files.sort_by(|a, b| a.path.cmp(&b.path));
        walk.walked.rejected.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(walk.walked)
    }

    fn folder(&mut self, folder: &Path, prefix: &str) {
        if holds_cdn_data(folder) {
            self.walked.skipped.push(shown(folder));
            return;
        }
        match entries(folder) {
            Ok(entries) => entries.iter().for_each(|entry| self.entry(entry, prefix)),
            Err(error) => self.reject_folder(folder, format!("cannot be read: {error}")),
        }
    }

    fn entry(&mut self, entry: &DirEntry, prefix: &str) {
        let disk = entry.path();
        let path = match entry.file_name().to_str() {
            Some(name) => format!("{prefix}{name}").parse::<FilePath>().map_err(|error| error.to_string()),
            None => Err("its name is not UTF-8".to_owned()),
        };
        let path = match path {
            Ok(path) => path,
            // What has no path cannot be in the zone either: nothing is hidden by leaving it away.
            Err(why) => return self.walked.rejected.push(Rejected { name: shown(&disk), why, path: None }),
        };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => self.folders.push((disk, format!("{path}/"))),
            Ok(kind) if kind.is_file() => match entry.metadata() {
                Ok(metadata) => self.walked.files.push(Found { disk, path, size: metadata.len() }),
                Err(error) => self.reject_file(&disk, path, format!("cannot be read: {error}")),
            },
            Ok(kind) if kind.is_symlink() => self.symlink(disk, path),
            Ok(_) => self.reject_file(&disk, path, "is neither a file nor a folder".to_owned()),
            Err(error) => self.reject_folder(&disk, format!("cannot be read: {error}")),
        }
    }

    fn symlink(&mut self, disk: PathBuf, path: FilePath) {
        let target = fs::canonicalize(&disk).and_then(|target| Ok((fs::metadata(&target)?, target)));
        match target {
            Err(error) => self.reject_file(&disk, path, format!("is a symlink that leads nowhere: {error}")),
            Ok((metadata, _)) if metadata.is_dir() => {
                self.reject_folder(&disk, "is a symlink to a folder, which is not followed".to_owned());
            }
            Ok((_, target)) if !self.may_follow(&target) => {
                self.reject_file(&disk, path, "is a symlink to something outside the folder".to_owned());
            }
            Ok((metadata, _)) if metadata.is_file() => {
                self.walked.files.push(Found { disk, path, size: metadata.len() });
            }
            Ok(_) => self.reject_file(&disk, path, "is a symlink to something that is not a file".to_owned()),
        }
    }

    /// Whether `target` (without symlinks) is inside the folder and not in the data of a CDN.
    fn may_follow(&self, target: &Path) -> bool {
        target.starts_with(&self.root)
            && target
                .ancestors()
                .skip(1)
                .take_while(|folder| folder.starts_with(&self.root))
                .all(|f| !holds_cdn_data(f))
    }

    fn reject_file(&mut self, disk: &Path, path: FilePath, why: String) {
        self.walked.rejected.push(Rejected { name: shown(disk), why, path: Some(path) });
    }

    /// Leaves away something that may have files below it, so that nothing can be said to be missing.
    fn reject_folder(&mut self, disk: &Path, why: String) {
        self.walked.whole = false;
        self.walked.rejected.push(Rejected { name: shown(disk), why, path: None });
    }
}

fn entries(folder: &Path) -> io::Result<Vec<DirEntry>> {
    fs::read_dir(folder)?.collect()
}

fn holds_cdn_data(folder: &Path) -> bool {
    SECRETS.iter().any(|name| folder.join(name).symlink_metadata().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    #[test]
    fn files_links_and_the_rest() {
        let outside = tempfile::tempdir().expect("folder");
        fs::write(outside.path().join("secret"), "s").expect("write");
        let root = tempfile::tempdir().expect("folder");
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("a/b")).expect("folder");
        fs::create_dir_all(at("data")).expect("folder");
        for (name, text) in [("a/b/1.txt", "one"), (".hidden", ""), ("z", "zz"), ("back\\slash", "x")] {
            fs::write(at(name), text).expect("write");
        }
        fs::write(at("data/admin.token"), "lit_x").expect("write");
        symlink("a/b/1.txt", at("inside")).expect("symlink");
        symlink(outside.path().join("secret"), at("outside")).expect("symlink");
        symlink("..", at("a/up")).expect("symlink");
        symlink("nothing", at("broken")).expect("symlink");
        symlink("data/admin.token", at("token")).expect("symlink");
        fs::write(root.path().join(OsStr::from_bytes(b"\xff.txt")), "x").expect("write");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("socket");

        let walked = Walk::run(root.path(), "p/".to_owned()).expect("walk");
        let files: Vec<(&str, u64)> = walked.files.iter().map(|file| (file.path.as_str(), file.size)).collect();
        assert_eq!(files, [("p/.hidden", 0), ("p/a/b/1.txt", 3), ("p/inside", 3), ("p/z", 2)]);
        let whys = [
            ("a/up", "symlink to a folder", None),
            ("back\\slash", "backslash", None),
            ("broken", "leads nowhere", Some("p/broken")),
            ("outside", "outside the folder", Some("p/outside")),
            ("socket", "neither a file nor a folder", Some("p/socket")),
            ("token", "outside the folder", Some("p/token")),
            ("\u{fffd}.txt", "not UTF-8", None),
        ];
        assert_eq!(walked.rejected.len(), whys.len(), "{:?}", walked.rejected);
        for (rejected, (name, why, path)) in walked.rejected.iter().zip(whys) {
            assert!(rejected.name.ends_with(name) && rejected.why.contains(why), "{rejected:?}");
            assert_eq!(rejected.path.as_ref().map(FilePath::as_str), path, "{rejected:?}");
        }
        assert_eq!(walked.skipped, [shown(&at("data"))]);
        assert!(!walked.whole, "a folder behind a symlink was not seen");
    }

    #[test]
    fn folders_that_cannot_be_walked() {
        let root = tempfile::tempdir().expect("folder");
        let missing = Walk::run(&root.path().join("no"), String::new()).expect_err("missing").to_string();
        assert!(missing.contains("cannot read the folder"), "{missing}");
        fs::write(root.path().join("file"), "x").expect("write");
        assert!(matches!(Walk::run(&root.path().join("file"), String::new()), Err(WalkError::Read { .. })));
        assert!(Walk::run(root.path(), String::new()).expect("walk").whole);
        fs::write(root.path().join(ADMIN_TOKEN_FILE), "lit_x").expect("write");
        assert!(matches!(Walk::run(root.path(), String::new()), Err(WalkError::DataFolder { .. })));
    }
}

//! Where a download goes: a thread that hashes and writes what arrives, and a file that appears whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use api::Digest;
use bytes::Bytes;
use http_body_util::BodyExt;
use net::Body;
use tokio::sync::mpsc;

use crate::progress::Progress;

/// Pieces that wait to be written while the next ones arrive.
const PIECES_WAITING: usize = 8;

/// Why a download did not come whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum DownloadError {
    /// It cannot be written.
    #[error("cannot write {name}: {source}")]
    Write {
        /// Where to.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The transfer broke off.
    #[error("the transfer broke off after {bytes} bytes: {why}")]
    BrokeOff {
        /// Bytes that had arrived.
        bytes: u64,
        /// Why.
        why: String,
    },
    /// Other bytes arrived than were announced.
    #[error("what arrived is damaged: its digest is {found}, and {expected} was announced")]
    Damaged {
        /// Of what arrived.
        found: Digest,
        /// As announced.
        expected: Digest,
    },
}

/// Where a download goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Standard output.
    Stdout,
    /// A file of this name.
    File(PathBuf),
}

/// What came.
#[derive(Debug)]
pub(super) struct Received {
    /// Of all of it.
    pub(super) digest: Digest,
    /// Bytes.
    pub(super) size: u64,
}

/// Writes `body` to `target`, where it shows only if it came whole and, where `expected` is known, has that digest.
/// (Standard output shows all the same what came.)
///
/// # Errors
/// See [`DownloadError`]. A file that was there before is as it was, then.
pub(super) async fn receive(
    body: Body,
    target: &Target,
    expected: Option<Digest>,
    progress: &Progress,
) -> Result<Received, DownloadError> {
    let (name, failed) = match target {
        Target::Stdout => ("standard output".to_owned(), None),
        Target::File(path) => (crate::cli::human::file_name(path), Some(path.clone())),
    };
    let write_error = |source| DownloadError::Write { name: name.clone(), source };
    let (partial, output): (_, Box<dyn Write + Send>) = match failed {
        None => (None, Box::new(io::stdout())),
        Some(path) => {
            let (partial, file) = Partial::create(&path).map_err(write_error)?;
            (Some(partial), Box::new(file))
        }
    };
    let received = transfer(body, output, progress).await.map_err(|error| match error {
        Ended::Write(source) => write_error(source),
        Ended::BrokeOff { bytes, why } => DownloadError::BrokeOff { bytes, why },
    })?;
    if let Some(expected) = expected.filter(|expected| *expected != received.digest) {
        return Err(DownloadError::Damaged { found: received.digest, expected });
    }
    if let Some(partial) = partial {
        partial.keep().map_err(write_error)?;
    }
    Ok(received)
}

enum Ended {
    Write(io::Error),
    BrokeOff { bytes: u64, why: String },
}

async fn transfer(mut body: Body, output: Box<dyn Write + Send>, progress: &Progress) -> Result<Received, Ended> {
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
    let writer = tokio::task::spawn_blocking(move || write_all(waiting, output));
    let (mut bytes, mut broke) = (0_u64, None);
    while let Some(frame) = body.frame().await {
        let piece = match frame.map(|frame| frame.into_data()) {
            Ok(Ok(piece)) => piece,
            // Trailers.
            Ok(Err(_)) => continue,
            Err(error) => {
                broke = Some(Ended::BrokeOff { bytes, why: error.to_string() });
                break;
            }
        };
        bytes += piece.len() as u64;
        progress.done(piece.len() as u64);
        if pieces.send(piece).await.is_err() {
            // The writer has given up; it says why.
            break;
        }
    }
    drop(pieces);
    let written = writer.await.unwrap_or_else(|_| Err(io::Error::other("the writing thread broke off")));
    match broke {
        Some(broke) => Err(broke),
        None => written.map_err(Ended::Write),
    }
}

fn write_all(mut pieces: mpsc::Receiver<Bytes>, mut output: Box<dyn Write + Send>) -> io::Result<Received> {
    let mut hasher = blake3::Hasher::new();
    while let Some(piece) = pieces.blocking_recv() {
        hasher.update(&piece);
        output.write_all(&piece)?;
    }
    output.flush()?;
    Ok(Received { digest: Digest(*hasher.finalize().as_bytes()), size: hasher.count() })
}

/// A file under a temporary name beside its target; removed unless it is kept.
struct Partial {
    /// Nothing when the target is written directly.
    temporary: Option<PathBuf>,
    target: PathBuf,
}

impl Partial {
    /// Opens a file for what is to become `target`. What exists and is no regular file (`/dev/null`, a pipe) is written
    /// directly: renaming would replace it.
    fn create(target: &Path) -> io::Result<(Self, File)> {
        // Through a symlink, the file it leads to is replaced, not the symlink.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        if target.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let file = OpenOptions::new().write(true).open(&target)?;
            return Ok((Self { temporary: None, target }, file));
        }
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let temporary = target.with_file_name(format!(".littoral-{:016x}.part", u64::from_ne_bytes(random)));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        Ok((Self { temporary: Some(temporary), target }, file))
    }

    fn keep(mut self) -> io::Result<()> {
        if let Some(temporary) = self.temporary.take() {
            fs::rename(&temporary, &self.target).inspect_err(|_| self.temporary = Some(temporary.clone()))?;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nothing else can be done about it.
            let _ = fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};

    fn pieces(pieces: &'static [Result<&'static str, &'static str>]) -> Body {
        Body::stream(stream::iter(pieces.iter().map(|piece| match piece {
            Ok(text) => Ok(Bytes::from_static(text.as_bytes())),
            Err(why) => Err((*why).into()),
        })))
    }

    async fn get(body: Body, path: &Path, expected: Option<Digest>) -> Result<Received, DownloadError> {
        receive(body, &Target::File(path.to_owned()), expected, &Progress::hidden()).await
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.txt");
        let digest = Digest::of(b"hello");
        let received = get(pieces(&[Ok("hel"), Ok("lo")]), &path, Some(digest)).await.expect("whole");
        assert_eq!((received.digest, received.size), (digest, 5));
        assert_eq!(fs::read(&path).expect("read"), b"hello");

        let broken = get(pieces(&[Ok("new"), Err("reset")]), &path, None).await.expect_err("broken");
        assert_eq!(broken.to_string(), "the transfer broke off after 3 bytes: reset");
        let damaged = get(pieces(&[Ok("help!")]), &path, Some(digest)).await.expect_err("damaged");
        assert!(damaged.to_string().contains(&digest.to_string()), "{damaged}");
        assert_eq!(fs::read(&path).expect("read"), b"hello", "the file is as it was");
        assert_eq!(names(folder.path()), ["a.txt"], "nothing is left over");

        let nowhere = get(pieces(&[Ok("x")]), &folder.path().join("no/a.txt"), None).await.expect_err("no folder");
        assert!(matches!(nowhere, DownloadError::Write { .. }), "{nowhere}");
    }

    #[tokio::test]
    async fn a_transfer_that_is_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.txt");
        let endless = Body::stream(stream::iter([Ok(Bytes::from_static(b"x"))]).chain(stream::pending()));
        let mut download = Box::pin(get(endless, &path, None));
        assert!(futures_util::poll!(&mut download).is_pending());
        assert_eq!(names(folder.path()).len(), 1);
        drop(download);
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn symlinks_and_devices_stay_what_they_are() {
        let folder = tempfile::tempdir().expect("folder");
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "old").expect("write");
        std::os::unix::fs::symlink("real", &link).expect("symlink");
        get(pieces(&[Ok("new")]), &link, None).await.expect("written");
        assert_eq!(fs::read(&real).expect("read"), b"new");
        assert!(link.is_symlink());
        get(pieces(&[Ok("x")]), Path::new("/dev/null"), None).await.expect("swallowed");
        assert!(!fs::metadata("/dev/null").expect("still there").is_file());
    }
}

//! BLAKE3 of many local files at once, on the threads for blocking work.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use api::{Digest, FilePath};
use futures_util::{StreamExt, stream};

use crate::progress::Progress;
use crate::publish::body::PIECE_BYTES;
use crate::publish::walk::{Found, Rejected, shown};

/// Files hashed at once when the machine does not say how many processors it has.
const DEFAULT_HASH_JOBS: usize = 4;

/// A file with the digest that it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// Where it is on this machine.
    pub disk: PathBuf,
    /// Its path in the zone.
    pub path: FilePath,
    /// Bytes, as hashed.
    pub size: u64,
    /// Of these bytes.
    pub digest: Digest,
}

/// Hashes all `files`, in any order. A file that cannot be read is rejected.
pub async fn hash_all(files: Vec<Found>, progress: &Progress) -> Vec<Result<Hashed, Rejected>> {
    let jobs = std::thread::available_parallelism().map_or(DEFAULT_HASH_JOBS, |processors| processors.get() * 2);
    let hashing = stream::iter(files).map(|found| async move {
        let name = shown(&found.disk);
        let path = found.path.clone();
        let hashed = tokio::task::spawn_blocking(move || hash(found)).await;
        progress.done(1);
        let why = match hashed {
            Ok(Ok(hashed)) => return Ok(hashed),
            Ok(Err(error)) => format!("cannot be read: {error}"),
            Err(_) => "reading it broke off".to_owned(),
        };
        Err(Rejected { name, why, path: Some(path) })
    });
    hashing.buffer_unordered(jobs).collect().await
}

fn hash(found: Found) -> io::Result<Hashed> {
    let (digest, size) = hash_file(&found.disk, found.size)?;
    Ok(Hashed { disk: found.disk, path: found.path, size, digest })
}

/// The digest and the length of a file that is expected to be of `size` bytes.
fn hash_file(path: &Path, size: u64) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    // One byte more than expected: the end of a small file is seen without a second, empty piece.
    let piece = usize::try_from(size).map_or(PIECE_BYTES, |size| PIECE_BYTES.min(size + 1));
    let mut piece = vec![0; piece];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => hasher.update(piece.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
    Ok((Digest(*hasher.finalize().as_bytes()), hasher.count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_of_every_size_and_one_that_is_gone() {
        let folder = tempfile::tempdir().expect("folder");
        let sizes = [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7];
        let found = |name: String, size: u64| Found {
            disk: folder.path().join(&name),
            path: name.parse().expect("path"),
            size,
        };
        let mut files = vec![found("gone".to_owned(), 0)];
        for size in sizes {
            let file = found(format!("f{size}"), size as u64 / 2);
            std::fs::write(&file.disk, vec![7; size]).expect("write");
            files.push(file);
        }
        let mut hashed = hash_all(files, &Progress::hidden()).await;
        hashed.sort_by_key(|result| result.as_ref().map_or(0, |hashed| hashed.size + 1));
        let gone = hashed.remove(0).expect_err("gone");
        assert!(gone.why.contains("cannot be read") && gone.path.is_some(), "{gone:?}");
        for (result, size) in hashed.into_iter().zip(sizes) {
            let hashed = result.expect("readable");
            assert_eq!((hashed.size, hashed.digest), (size as u64, Digest::of(&vec![7; size])), "{size}");
        }
    }
}

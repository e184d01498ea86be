//! What every store of blobs does, run against a folder and against memory.

#![cfg(test)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::slices::{self, slice_count};
use api::{Digest, SLICE_BYTES};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt};
use objects::{BlobError, Blobs, PART_BYTES, Staged, Wanted};

const SLICE: usize = SLICE_BYTES as usize;

/// A store under test, and a way around it.
struct Kit {
    blobs: Blobs,
    raw: Arc<dyn ObjectStore>,
    dir: Option<tempfile::TempDir>,
}

impl Kit {
    fn folder() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::folder(dir.path()).expect("blobs");
        let raw = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).expect("raw"));
        Self { blobs, raw, dir: Some(dir) }
    }

    fn every() -> [Self; 2] {
        let raw = Arc::new(InMemory::new());
        [Self::folder(), Self { blobs: Blobs::new(raw.clone()), raw, dir: None }]
    }

    async fn stage(&self, body: &[u8]) -> Staged {
        let mut staging = self.blobs.stage(Wanted::default());
        // Pieces of an odd length, so that parts and slices begin anywhere in them.
        for piece in body.chunks(77_777) {
            staging.write(Bytes::copy_from_slice(piece)).await.expect("write");
        }
        staging.finish().await.expect("finish")
    }

    async fn put(&self, body: &[u8]) -> Digest {
        let staged = self.stage(body).await;
        let digest = staged.digest;
        self.blobs.place(&staged).await.expect("place");
        self.blobs.discard(staged).await.expect("discard");
        digest
    }

    async fn read(&self, digest: Digest, size: usize) -> Result<Vec<u8>, BlobError> {
        let mut body = Vec::new();
        for index in 0..slice_count(size as u64).max(1) {
            body.extend_from_slice(&self.blobs.slice(digest, size as u64, index).await?);
        }
        Ok(body)
    }

    /// Every name there is; in a folder also those that `object_store` hides.
    async fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.dir {
            Some(dir) => files(dir.path().to_owned())
                .into_iter()
                .map(|file| file.strip_prefix(dir.path()).expect("below").to_string_lossy().into_owned())
                .collect(),
            None => self.raw.list(None).map_ok(|o| o.location.to_string()).try_collect().await.expect("list"),
        };
        names.sort();
        names
    }

    async fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        self.raw.put(&Location::from(name), bytes.into()).await.expect("overwrite");
    }

    /// The same store as another process would open it, with nothing in memory.
    fn reopen(self) -> Self {
        let blobs = match &self.dir {
            Some(dir) => Blobs::folder(dir.path()).expect("again"),
            None => Blobs::new(self.raw.clone()),
        };
        Self { blobs, ..self }
    }
}

fn files(dir: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("read").map(|entry| entry.expect("entry").path());
    entries.flat_map(|path| if path.is_dir() { files(path) } else { vec![path] }).collect()
}

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|at| ((at * 31) ^ (at >> 9) ^ (at >> 18)) as u8).collect()
}

fn blob(digest: Digest) -> String {
    let hex = digest.to_string();
    format!("blobs/{}/{}/{hex}", &hex[..2], &hex[2..4])
}

#[tokio::test]
async fn bodies_of_every_shape_come_back_as_they_went_in() {
    for kit in Kit::every() {
        let sizes =
            [0, 1, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 17 * SLICE + 9];
        for size in sizes {
            let body = body(size);
            let digest = kit.put(&body).await;
            assert_eq!(digest, Digest::of(&body), "{size}");
            assert_eq!(kit.blobs.head(digest).await.expect("head"), size as u64);
            assert!(kit.read(digest, size).await.expect("read") == body, "{size}");
            let list = kit.blobs.slices(digest, size as u64).await.expect("slices");
            assert_eq!(list.len() as u64, slices::value_count(size as u64), "{size}");
        }
        assert!(kit.names().await.iter().all(|name| name.starts_with("blobs/")), "nothing is left in staging");
    }
}

#[tokio::test]
async fn the_same_bytes_are_kept_once_and_heal_a_bad_copy() {
    for kit in Kit::every() {
        let body = body(2 * SLICE);
        let digest = kit.put(&body).await;
        let mut bad = body.clone();
        bad[SLICE] ^= 1;
        kit.overwrite(&blob(digest), bad).await;
        assert!(kit.read(digest, body.len()).await.is_err());

        let staged = kit.stage(&body).await;
        for _ in 0..3 {
            kit.blobs.place(&staged).await.expect("repeated");
        }
        kit.blobs.discard(staged).await.expect("discard");
        assert_eq!(kit.names().await, [blob(digest), format!("{}.slices", blob(digest))]);
        assert!(kit.read(digest, body.len()).await.expect("healed") == body);
    }
}

#[tokio::test]
async fn a_blob_that_is_not_what_it_should_be_is_never_read() {
    for kit in Kit::every() {
        for size in [5, 3 * SLICE + 5] {
            let good = body(size);
            let digest = kit.put(&good).await;
            let last = slice_count(size as u64) - 1;
            let flipped = good.iter().enumerate().map(|(at, b)| if at == size - 1 { b ^ 1 } else { *b }).collect();
            let grown = [good.as_slice(), b"x"].concat();
            let cases = [("flipped", flipped), ("cut", good[..size - 1].to_vec()), ("grown", grown), ("empty", vec![])];
            for (what, bad) in cases {
                kit.overwrite(&blob(digest), bad).await;
                let error = kit.blobs.slice(digest, size as u64, last).await.expect_err(what);
                assert!(
                    matches!(error, BlobError::Corrupt { digest: d, slice: Some(s) } if d == digest && s == last),
                    "{what}: {error}"
                );
            }
            kit.overwrite(&blob(digest), good.clone()).await;
            assert!(kit.read(digest, size).await.expect("good again") == good);
        }
    }
}

#[tokio::test]
async fn a_list_that_is_lost_or_wrong_is_made_again() {
    for mut kit in Kit::every() {
        let body = body(4 * SLICE + 1);
        let digest = kit.put(&body).await;
        let name = format!("{}.slices", blob(digest));
        let good = kit.raw.get(&Location::from(name.as_str())).await.expect("list").bytes().await.expect("list");
        let mut flipped = good.to_vec();
        flipped[3] ^= 1;
        for bad in [Some(flipped), Some(vec![]), Some(good[..64].to_vec()), None] {
            match bad {
                Some(bad) => kit.overwrite(&name, bad).await,
                None => kit.raw.delete(&Location::from(name.as_str())).await.expect("delete"),
            }
            kit = kit.reopen();
            assert!(kit.read(digest, body.len()).await.expect("read") == body);
            let again = kit.raw.get(&Location::from(name.as_str())).await.expect("list").bytes().await.expect("list");
            assert_eq!(again, good);
        }

        // Without a list nobody can tell which slice is wrong; that one is, can still be told.
        kit.raw.delete(&Location::from(name.as_str())).await.expect("delete");
        kit.overwrite(&blob(digest), vec![0; body.len()]).await;
        kit = kit.reopen();
        let error = kit.blobs.slice(digest, body.len() as u64, 0).await.expect_err("corrupt");
        assert!(matches!(error, BlobError::Corrupt { slice: None, .. }), "{error}");
        assert!(!kit.names().await.contains(&name), "a list of a corrupt blob is not kept");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    for kit in Kit::every() {
        let digest = Digest::of(b"nowhere");
        assert!(matches!(kit.blobs.head(digest).await, Err(BlobError::NotFound { .. })));
        assert!(matches!(kit.blobs.slice(digest, 0, 0).await, Err(BlobError::NotFound { .. })));
        assert!(matches!(kit.blobs.slice(digest, 7, 0).await, Err(BlobError::NotFound { .. })));
        assert!(matches!(kit.blobs.slices(digest, 5 * SLICE_BYTES).await, Err(BlobError::NotFound { .. })));
        kit.blobs.delete(digest).await.expect("deleting it is no error");
    }
}

#[tokio::test]
async fn uploads_given_up_leave_nothing() {
    for kit in Kit::every() {
        for size in [0, 10, PART_BYTES + 10, 3 * PART_BYTES] {
            let mut staging = kit.blobs.stage(Wanted::default());
            staging.write(body(size).into()).await.expect("write");
            assert_eq!(staging.size(), size as u64);
            staging.abort().await.expect("abort");
            assert_eq!(kit.names().await, [""; 0], "aborted at {size}");

            let mut staging = kit.blobs.stage(Wanted::default());
            staging.write(body(size).into()).await.expect("write");
            drop(staging);
            drop(kit.stage(&body(size)).await);
            for _ in 0..1_000 {
                if kit.names().await.is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(kit.names().await, [""; 0], "dropped at {size}");
        }
    }
}

#[tokio::test]
async fn leftovers_are_swept_and_uploads_in_progress_are_not() {
    for kit in Kit::every() {
        kit.overwrite("staging/a", b"a".to_vec()).await;
        if let Some(dir) = &kit.dir {
            // What a process leaves that dies while it writes, and while it places.
            fs::write(dir.path().join("staging/b#1"), "b").expect("write");
            fs::write(dir.path().join("staging/b.link"), "b").expect("write");
        }
        let left = kit.names().await.len() as u64;
        assert_eq!(kit.blobs.sweep_staging(Duration::from_secs(60)).await.expect("sweep"), 0);
        assert_eq!(kit.blobs.sweep_staging(Duration::ZERO).await.expect("sweep"), left);
        assert_eq!(kit.names().await, [""; 0]);
    }
}

#[tokio::test]
async fn old_blobs_are_listed_and_deleted() {
    for kit in Kit::every() {
        let digest = kit.put(&body(2 * SLICE)).await;
        let [prefix, ..] = digest.0;
        let minute = Duration::from_secs(60);
        assert_eq!(kit.blobs.list_old(prefix, minute).await.expect("list"), []);
        assert_eq!(kit.blobs.list_old(prefix, Duration::ZERO).await.expect("list"), [digest]);
        assert_eq!(kit.blobs.list_old(prefix.wrapping_add(1), Duration::ZERO).await.expect("list"), []);

        // Of a blob whose deletion was cut short, the list of its slices may be left.
        kit.raw.delete(&Location::from(blob(digest))).await.expect("delete");
        assert_eq!(kit.blobs.list_old(prefix, Duration::ZERO).await.expect("list"), [digest]);
        kit.blobs.delete(digest).await.expect("delete");
        kit.blobs.delete(digest).await.expect("again");
        assert_eq!(kit.names().await, [""; 0]);
    }
}

#[tokio::test]
async fn sha2_is_computed_where_it_is_wanted() {
    let kit = Kit::folder();
    let mut staging = kit.blobs.stage(Wanted { sha256: true, sha512: false });
    staging.write(Bytes::from_static(b"abc")).await.expect("write");
    let staged = staging.finish().await.expect("finish");
    let sha = staged.sha256.expect("wanted").map(|byte| format!("{byte:02x}")).concat();
    assert_eq!(sha, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(staged.sha512, None);
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    fs::write(&file, "x").expect("write");
    let error = Blobs::folder(&file).expect_err("a file is not a folder").to_string();
    assert!(error.contains(&*file.to_string_lossy()), "{error}");
}

//! The body of an upload: pieces of a file or of a stream, read ahead by a thread of their own while earlier ones are sent.
//!
//! A file is uploaded as it was when it was opened or not at all: if it changes while it is read, the last piece is never
//! handed out, so that the server sees a body that broke off, and the reason is kept in [`Watch`].

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use net::{Body, BodyError};
use tokio::sync::mpsc;

use crate::progress::Progress;

/// Length of the pieces in which files are read, in bytes.
pub const PIECE_BYTES: usize = 256 << 10;
/// Pieces read ahead of the network.
const PIECES_AHEAD: usize = 4;
/// How long the other side may take no bytes, or give no answer after the last, before the upload is given up, in
/// milliseconds at least; twice that at most. Syncing a large file to a slow disk has to fit.
const STALL_MS: u64 = 300_000;

/// Why a source could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The operating system said no.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A file is not what it was when it was opened.
    #[error("it changed while it was read: {0}")]
    Changed(String),
}

/// What an upload reads.
pub(super) enum Source {
    /// A file, with what was known of it when it was opened.
    File {
        /// Open, at its beginning.
        file: File,
        /// When opened.
        before: Stamp,
        /// Bytes still to be read.
        left: u64,
    },
    /// Something without known length.
    Stream(Box<dyn Read + Send>),
}

/// What tells a file from a changed one without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl Source {
    /// A file that was just opened, and how many bytes it has.
    pub(super) fn file(file: File) -> io::Result<(Self, u64)> {
        let before = Stamp::of(&file.metadata()?);
        let size = before.size;
        Ok((Self::File { file, before, left: size }, size))
    }

    /// The next piece; nothing at the end.
    fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        match self {
            Self::Stream(reader) => Ok(read_piece(reader, PIECE_BYTES)?),
            Self::File { left: 0, .. } => Ok(None),
            Self::File { file, before, left } => {
                let want = usize::try_from(*left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
                let Some(piece) = read_piece(file, want)? else {
                    let size = before.size;
                    return Err(Fault::Changed(format!("it had {size} bytes and ended after {}", size - *left)));
                };
                *left = left.saturating_sub(piece.len() as u64);
                if *left == 0 {
                    unchanged(before, &Stamp::of(&file.metadata()?))?;
                }
                Ok(Some(piece))
            }
        }
    }
}

fn unchanged(before: &Stamp, after: &Stamp) -> Result<(), Fault> {
    if before.size != after.size {
        return Err(Fault::Changed(format!("it had {} bytes and now has {}", before.size, after.size)));
    }
    if before.modified != after.modified {
        return Err(Fault::Changed("it was written to".to_owned()));
    }
    Ok(())
}

/// At most `want` bytes; nothing at the end.
fn read_piece(reader: &mut impl Read, want: usize) -> io::Result<Option<Bytes>> {
    let mut piece = vec![0; want];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(length) => {
                piece.truncate(length);
                return Ok(Some(piece.into()));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Looks on while a body is sent.
pub(super) struct Watch {
    /// Set at most once, before the body breaks. Held for a single assignment.
    fault: Arc<Mutex<Option<Fault>>>,
    taken: Arc<AtomicU64>,
    pieces: mpsc::WeakSender<Result<Bytes, BodyError>>,
}

/// A body made of `source`, read as it is sent. Each piece taken is told to `progress`.
pub(super) fn body(mut source: Source, progress: &Progress) -> (Body, Watch) {
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let watch = Watch { fault: Arc::default(), taken: Arc::default(), pieces: sender.downgrade() };
    let fault = Arc::clone(&watch.fault);
    tokio::task::spawn_blocking(move || {
        loop {
            let piece = match source.next() {
                Ok(Some(piece)) => Ok(piece),
                Ok(None) => return,
                Err(error) => {
                    let text = error.to_string();
                    // Kept before the body breaks, so that whoever sees it broken finds the reason.
                    if let Ok(mut fault) = fault.lock() {
                        *fault = Some(error);
                    }
                    Err(text.into())
                }
            };
            let last = piece.is_err();
            if sender.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    let (taken, progress) = (Arc::clone(&watch.taken), progress.clone());
    let pieces =
        stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) });
    let pieces = pieces.inspect(move |piece| {
        if let Ok(piece) = piece {
            let length = piece.len() as u64;
            taken.fetch_add(length, Ordering::Relaxed);
            progress.done(length);
        }
    });
    (Body::stream(pieces), watch)
}

impl Watch {
    /// Why the body broke off, if it was our side's fault.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.lock().ok()?.take()
    }

    /// Returns, with the seconds that were waited at least, once the other side makes no progress any more. Waiting for a
    /// slow source does not count.
    pub(super) async fn stalled(&self) -> u64 {
        let mut seen = None;
        loop {
            tokio::time::sleep(Duration::from_millis(STALL_MS)).await;
            // Without a sender everything has been read, and either pieces or the answer are awaited.
            let waiting = self.pieces.upgrade().is_none_or(|sender| sender.capacity() < sender.max_capacity());
            let taken = waiting.then(|| self.taken.load(Ordering::Relaxed));
            if taken.is_some() && taken == seen {
                return STALL_MS / 1_000;
            }
            seen = taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    const MAX_BYTES: usize = 16 << 20;

    #[tokio::test]
    async fn files_come_whole() {
        for size in [0, 1, PIECE_BYTES, 9 * PIECE_BYTES + 1] {
            let mut file = tempfile::NamedTempFile::new().expect("file");
            file.write_all(&vec![3; size]).expect("write");
            let (source, found) = Source::file(file.reopen().expect("open")).expect("source");
            assert_eq!(found, size as u64);
            let (body, watch) = body(source, &Progress::hidden());
            assert_eq!(net::read_to_end(body, MAX_BYTES).await.expect("whole").len(), size);
            assert!(watch.fault().is_none(), "{size}");
        }
    }

    /// Changes a file of twice what is read ahead after its first piece, and gives the reason that is kept.
    async fn changed(change: impl FnOnce(&mut File)) -> String {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        file.write_all(&vec![3; 2 * PIECES_AHEAD * PIECE_BYTES]).expect("write");
        let (mut source, _) = Source::file(file.reopen().expect("open")).expect("source");
        assert!(source.next().expect("first piece").is_some());
        change(file.as_file_mut());
        let (body, watch) = body(source, &Progress::hidden());
        net::read_to_end(body, MAX_BYTES).await.expect_err("changed");
        watch.fault().expect("a reason").to_string()
    }

    #[tokio::test]
    async fn files_that_change_break_the_body() {
        let grown = changed(|file| file.write_all(b"more").expect("write")).await;
        assert!(grown.contains("it had 2097152 bytes and now has 2097156"), "{grown}");
        let shrunk = changed(|file| file.set_len(PIECE_BYTES as u64 + 1).expect("cut")).await;
        assert!(shrunk.contains("it had 2097152 bytes and ended after 262145"), "{shrunk}");
        let touched = changed(|file| file.set_modified(SystemTime::UNIX_EPOCH).expect("touch")).await;
        assert!(touched.contains("it was written to"), "{touched}");
    }

    #[tokio::test]
    async fn streams_come_whole_and_their_errors_are_kept() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("pulled out"))
            }
        }
        let (good, _watch) = body(Source::Stream(Box::new(Cursor::new("hello"))), &Progress::hidden());
        assert_eq!(net::read_to_end(good, MAX_BYTES).await.expect("whole"), "hello");
        let (bad, watch) = body(Source::Stream(Box::new(Cursor::new("x").chain(Broken))), &Progress::hidden());
        net::read_to_end(bad, MAX_BYTES).await.expect_err("broken");
        assert!(watch.fault().expect("a reason").to_string().contains("pulled out"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_takes_is_given_up() {
        let (_body, watch) = body(Source::Stream(Box::new(Cursor::new("hello"))), &Progress::hidden());
        assert_eq!(watch.stalled().await, STALL_MS / 1_000);
    }
}

//! A new process in the place of an old one, without closing a socket (`edge --handover PATH`).
//!
//! ```text
//! new ── take ─────▶ old      it serves on, and sends its listening sockets
//! new ◀─ sockets ── old
//! new ── leave ────▶ old      its certificates are good: the old one ends its state and its disk tier in order, serves on
//! new ◀─ left ───── old       from memory, and reads what is on disk
//! new ── ready ────▶ old      it serves, on the same sockets; the old one drains and ends
//!     ◀─ purged ──▶           what is purged at one of them, until then
//! ```
//!
//! A successor that goes away before it is ready leaves the old one serving; what is on disk is not trusted at the next start
//! then, because nobody has kept the purges of that time.

use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::PurgeTargets;
use edge::EdgeView;
use net::{HANDOVER_MESSAGE_BYTES, HandoverError, HandoverLink, HandoverPoint};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// What both ends have to speak.
const VERSION: u32 = 1;
/// For the next word of the other end, in milliseconds: a disk tier has to be written out, or read in.
const WORD_MS: u64 = 60_000;
/// Purges that wait to be told to the other end. Where there are more, the whole zone is purged there.
const PURGES_QUEUED: usize = 4_096;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Take {
        version: u32,
    },
    /// With a descriptor.
    Socket {
        name: String,
    },
    /// After the last socket.
    All,
    Leave,
    Left,
    Ready,
    Purged(PurgeTargets),
}

/// Why a handover did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// There is no link.
    #[error(transparent)]
    Link(#[from] HandoverError),
    /// It broke.
    #[error("the other process: {0}")]
    Io(#[from] std::io::Error),
    /// It is gone.
    #[error("the other process ended before it was ready")]
    Gone,
    /// It says nothing.
    #[error("the other process said nothing for {WORD_MS} ms")]
    Silent,
    /// It says something else.
    #[error("the other process is of a version that hands over in another way: stop it and start this one ({0})")]
    Strange(String),
}

async fn say(link: &HandoverLink, word: &Word, socket: Option<&OwnedFd>) -> Result<(), Failed> {
    let text = serde_json::to_vec(word).map_err(std::io::Error::other)?;
    Ok(link.send(&text, socket.map(AsFd::as_fd)).await?)
}

async fn hear(link: &HandoverLink) -> Result<(Word, Option<OwnedFd>), Failed> {
    let heard = tokio::time::timeout(Duration::from_millis(WORD_MS), link.receive()).await;
    let (text, socket) = heard.map_err(|_| Failed::Silent)??.ok_or(Failed::Gone)?;
    let word = serde_json::from_slice(&text).map_err(|error| Failed::Strange(error.to_string()))?;
    Ok((word, socket))
}

fn strange(word: &Word) -> Failed {
    Failed::Strange(format!("{word:?} was not expected"))
}

/// Listening sockets of a former process by the name of their door, each with a place in it.
#[derive(Debug, Default)]
pub struct Inherited(HashMap<String, Vec<TcpListener>>);

impl Inherited {
    /// Those of a door; none: it has to bind its own.
    pub fn take(&mut self, name: &str) -> Vec<TcpListener> {
        self.0.remove(name).unwrap_or_default()
    }
}

/// The process that is replaced, as its successor sees it.
pub struct Predecessor(HandoverLink);

impl Predecessor {
    /// Asks whoever waits at `path` for its sockets; nothing: nobody does.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn ask(path: &Path) -> Result<Option<(Self, Inherited)>, Failed> {
        let Some(link) = net::ask(path).await? else { return Ok(None) };
        say(&link, &Word::Take { version: VERSION }, None).await?;
        let mut inherited = Inherited::default();
        loop {
            match hear(&link).await? {
                (Word::Socket { name }, Some(socket)) => {
                    inherited.0.entry(name).or_default().push(TcpListener::from(socket));
                }
                (Word::All, _) => return Ok(Some((Self(link), inherited))),
                (word, _) => return Err(strange(&word)),
            }
        }
    }

    /// Returns when its state and its disk tier may be used.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn leave(&self) -> Result<(), Failed> {
        say(&self.0, &Word::Leave, None).await?;
        match hear(&self.0).await? {
            (Word::Left, _) => Ok(()),
            (word, _) => Err(strange(&word)),
        }
    }

    /// Tells it to drain and end. Until then it hears of what is purged here, and the other way round.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn ready(self, view: EdgeView, purges: &Purges) -> Result<(), Failed> {
        let told = purges.begin();
        say(&self.0, &Word::Ready, None).await?;
        tokio::spawn(exchange(self.0, view, told));
        Ok(())
    }
}

/// What is purged here and has to be told to the process that serves the same for the moment, if there is one.
#[derive(Clone, Default)]
pub struct Purges(Arc<Mutex<Option<mpsc::Sender<PurgeTargets>>>>);

impl Purges {
    /// Listens to an edge. Once for each.
    pub fn of(view: &EdgeView) -> Self {
        let purges = Self::default();
        let heard = purges.clone();
        view.on_purge(Box::new(move |targets| heard.add(targets)));
        purges
    }

    fn add(&self, targets: &PurgeTargets) {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.as_ref().is_some_and(|sender| sender.try_send(targets.clone()).is_err()) {
            // The other end takes what is left, and then knows that it is not all.
            *sender = None;
        }
    }

    fn begin(&self) -> mpsc::Receiver<PurgeTargets> {
        let (sender, receiver) = mpsc::channel(PURGES_QUEUED);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }
}

/// Tells purges to the other end, and takes its own, until it is gone.
async fn exchange(link: HandoverLink, view: EdgeView, mut told: mpsc::Receiver<PurgeTargets>) {
    let tell = async {
        while let Some(targets) = told.recv().await {
            let word = Word::Purged(targets);
            let fits = serde_json::to_vec(&word).is_ok_and(|text| text.len() <= HANDOVER_MESSAGE_BYTES);
            let word = if fits { word } else { Word::Purged(everything(&view)) };
            say(&link, &word, None).await?;
        }
        // Too many to be queued.
        say(&link, &Word::Purged(everything(&view)), None).await
    };
    let take = async {
        while let Some((text, _)) = link.receive().await? {
            match serde_json::from_slice(&text) {
                Ok(Word::Purged(targets)) => view.purge(targets),
                other => tracing::warn!(?other, "the other process says what was not expected"),
            }
        }
        Ok::<_, Failed>(())
    };
    tokio::pin!(take);
    // Where telling has come to its end, there may still be something to take.
    tokio::select! {
        told = tell => if told.is_ok() { drop(take.await) },
        _ = &mut take => {}
    }
}

fn everything(view: &EdgeView) -> PurgeTargets {
    PurgeTargets { zones: view.only_zone().into_iter().collect(), ..PurgeTargets::default() }
}

/// An edge that can be replaced.
pub struct Handover {
    /// Where a successor asks.
    pub point: HandoverPoint,
    /// What it gets, by the name of the door.
    pub sockets: Vec<(String, OwnedFd)>,
    /// The edge.
    pub view: EdgeView,
    /// What is purged at it.
    pub purges: Purges,
}

impl Handover {
    /// Returns when a successor serves. The edge then hears of its purges for as long as it lives.
    pub async fn replaced(self) {
        loop {
            let link = match self.point.next().await {
                Ok(link) => link,
                Err(error) => {
                    tracing::warn!(%error, "nothing is handed over");
                    continue;
                }
            };
            let mut left = None;
            match self.hand_over(&link, &mut left).await {
                Ok(()) => {
                    tracing::info!("replaced by a new process; requests in progress are finished here");
                    let told = left.unwrap_or_else(|| self.purges.begin());
                    drop(tokio::spawn(exchange(link, self.view.clone(), told)));
                    return;
                }
                Err(error) if left.is_some() => {
                    tracing::error!(%error, "not replaced; serving on, and writing nothing to the disk tier until a restart");
                    let view = self.view.clone();
                    // It says itself what goes wrong.
                    let _ = tokio::task::spawn_blocking(move || view.distrust_disk()).await;
                }
                Err(error) => tracing::warn!(%error, "not replaced; serving on"),
            }
        }
    }

    /// `left`: what is purged since the files of the state are left to the successor.
    async fn hand_over(
        &self,
        link: &HandoverLink,
        left: &mut Option<mpsc::Receiver<PurgeTargets>>,
    ) -> Result<(), Failed> {
        match hear(link).await? {
            (Word::Take { version: VERSION }, _) => {}
            (word, _) => return Err(strange(&word)),
        }
        for (name, socket) in &self.sockets {
            say(link, &Word::Socket { name: name.clone() }, Some(socket)).await?;
        }
        say(link, &Word::All, None).await?;
        match hear(link).await? {
            (Word::Leave, _) => {}
            (word, _) => return Err(strange(&word)),
        }
        *left = Some(self.purges.begin());
        let view = self.view.clone();
        // If it panics, the successor finds the folders locked, and says so.
        let _ = tokio::task::spawn_blocking(move || view.leave_disk()).await;
        say(link, &Word::Left, None).await?;
        match hear(link).await? {
            (Word::Ready, _) => Ok(()),
            (word, _) => Err(strange(&word)),
        }
    }
}

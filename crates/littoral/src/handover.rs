//! A new process in the place of an old one, without closing a socket (`edge --handover PATH`).
//!
//! ```text
//! new ── take ─────▶ old      it serves on, and sends its listening sockets
//! new ◀─ sockets ── old
//! new ── leave ────▶ old      its certificates are good: the old one ends its state and its disk tier in order, serves on
//! new ◀─ left ───── old       from memory, and reads what is on disk
//! new ── ready ────▶ old      it serves, on the same sockets; the old one drains and ends
//!     ◀─ purged ──▶           what is purged at one of them, until the old one has ended
//! ```
//!
//! A successor that goes away before it is ready leaves the old one serving; what is on disk is not trusted at the next start
//! then, because nobody has kept the purges of that time.
//!
//! What was purged before `leave` is in the files. From then on each tells the other what is purged at it, and a `PURGE` is
//! answered when the other has confirmed that: nobody who has that answer is served by either what was purged.

use std::collections::{HashMap, VecDeque};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::PurgeTargets;
use edge::{EdgeView, NotConfirmed, PurgeListener};
use futures_util::future::BoxFuture;
use net::{HANDOVER_MESSAGE_BYTES, HandoverError, HandoverLink, HandoverPoint};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

/// What both ends have to speak.
const VERSION: u32 = 2;
/// For the next word of the other end, in milliseconds: a disk tier has to be written out, or read in.
const WORD_MS: u64 = 60_000;
/// Purges, and requests to confirm them, that wait to be told to the other end. Where purges are more, the whole zone is
/// purged there.
const TOLD_QUEUED: usize = 4_096;
/// For the other end to confirm a purge, in milliseconds; while it starts, that includes what it has to read.
const CONFIRM_MS: u64 = 10_000;

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
    /// To be answered when what was purged before is so there, and outlives the machine.
    Confirm,
    /// The answer to so many of them, counted from the first.
    Confirmed {
        requests: u64,
    },
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

    /// Tells it to drain and end. Until then it hears of what is purged here, and the other way round. `told`: what was
    /// purged here so far.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn ready(self, view: EdgeView, purges: Purges, told: Told) -> Result<(), Failed> {
        let said = say(&self.0, &Word::Ready, None).await;
        tokio::spawn(async move {
            let mut told = told;
            exchange(&self.0, &view, &mut told, &purges).await;
            // It serves no more, so that nobody has to hear of anything.
            purges.alone(told);
        });
        said
    }
}

/// For the process that serves the same for the moment: something that was purged here.
enum Tell {
    Purged(PurgeTargets),
    /// Whether it has taken up what was told before.
    Confirm(oneshot::Sender<()>),
}

/// What is to be told, and who waits until it is confirmed.
pub struct Told {
    tells: mpsc::Receiver<Tell>,
    /// In the order in which the other process was asked.
    waiting: Mutex<VecDeque<oneshot::Sender<()>>>,
}

/// What is purged here and has to be told to the process that serves the same for the moment, if there is one.
#[derive(Clone, Default)]
pub struct Purges(Arc<Queue>);

#[derive(Default)]
struct Queue {
    /// Nothing: this process serves alone.
    sender: Mutex<Option<mpsc::Sender<Tell>>>,
    /// Something had no place in the queue: everything counts as purged, before what is told next.
    overflowed: AtomicBool,
}

impl Purges {
    fn sender(&self) -> MutexGuard<'_, Option<mpsc::Sender<Tell>>> {
        self.0.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on there is another process.
    pub fn begin(&self) -> Told {
        let (sender, tells) = mpsc::channel(TOLD_QUEUED);
        self.0.overflowed.store(false, Ordering::Relaxed);
        *self.sender() = Some(sender);
        Told { tells, waiting: Mutex::default() }
    }

    /// From now on there is none: whoever waits for it need not.
    fn alone(&self, Told { mut tells, waiting }: Told) {
        *self.sender() = None;
        tells.close();
        let mut waiting = waiting.into_inner().unwrap_or_else(PoisonError::into_inner);
        while let Ok(tell) = tells.try_recv() {
            if let Tell::Confirm(sender) = tell {
                waiting.push_back(sender);
            }
        }
        waiting.into_iter().for_each(tell_confirmed);
    }

    async fn confirm(&self, sender: mpsc::Sender<Tell>) -> Result<(), NotConfirmed> {
        let (confirmed, is_confirmed) = oneshot::channel();
        if sender.send(Tell::Confirm(confirmed)).await.is_ok() && is_confirmed.await.is_ok() {
            return Ok(());
        }
        // It is gone. Before it served: nothing has changed. While this one drains: what it had on disk is in doubt.
        if self.sender().is_none() { Ok(()) } else { Err(NotConfirmed) }
    }
}

impl PurgeListener for Purges {
    fn purged(&self, targets: &PurgeTargets) {
        if let Some(sender) = &*self.sender()
            && let Err(TrySendError::Full(_)) = sender.try_send(Tell::Purged(targets.clone()))
        {
            self.0.overflowed.store(true, Ordering::Relaxed);
        }
    }

    fn confirmed(&self) -> BoxFuture<'_, Result<(), NotConfirmed>> {
        let sender = self.sender().clone();
        Box::pin(async move {
            let Some(sender) = sender else { return Ok(()) };
            let confirmed = tokio::time::timeout(Duration::from_millis(CONFIRM_MS), self.confirm(sender)).await;
            confirmed.unwrap_or(Err(NotConfirmed))
        })
    }
}

fn tell_confirmed(asked: oneshot::Sender<()>) {
    // Whoever asked may have left.
    let _ = asked.send(());
}

/// Tells purges to the other end, and takes its own, until it is gone.
async fn exchange(link: &HandoverLink, view: &EdgeView, told: &mut Told, purges: &Purges) {
    let Told { tells, waiting } = told;
    let waiting: &Mutex<_> = waiting;
    let waiting = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    // Requests of the other end that can be answered.
    let (asked, mut confirmed) = watch::channel(0_u64);
    let tell = async {
        loop {
            let word = tokio::select! {
                _ = confirmed.changed() => Word::Confirmed { requests: *confirmed.borrow_and_update() },
                tell = tells.recv() => match tell {
                    Some(Tell::Purged(targets)) => Word::Purged(targets),
                    Some(Tell::Confirm(sender)) => {
                        waiting().push_back(sender);
                        Word::Confirm
                    }
                    None => return Ok(()),
                },
            };
            if purges.0.overflowed.swap(false, Ordering::Relaxed) {
                say(link, &Word::Purged(everything(view)), None).await?;
            }
            let fits = serde_json::to_vec(&word).is_ok_and(|text| text.len() <= HANDOVER_MESSAGE_BYTES);
            let word = if fits { word } else { Word::Purged(everything(view)) };
            say(link, &word, None).await?;
        }
    };
    let take = async {
        let (mut heard, mut answered) = (0, 0);
        while let Some((text, _)) = link.receive().await? {
            match serde_json::from_slice(&text) {
                Ok(Word::Purged(targets)) => view.purge(targets),
                Ok(Word::Confirm) => {
                    heard += 1;
                    if view.sync_purges().await {
                        asked.send_replace(heard);
                    }
                }
                Ok(Word::Confirmed { requests }) => {
                    let count = requests.saturating_sub(std::mem::replace(&mut answered, requests));
                    let count = usize::try_from(count).unwrap_or(usize::MAX);
                    let mut waiting = waiting();
                    let count = count.min(waiting.len());
                    waiting.drain(..count).for_each(tell_confirmed);
                }
                other => tracing::warn!(?other, "the other process says what was not expected"),
            }
        }
        Ok::<_, Failed>(())
    };
    let ended = tokio::select! {
        told = tell => told,
        taken = take => taken,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "the other process is gone");
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
    pub async fn replaced(mut self) {
        loop {
            let link = match self.point.next().await {
                Ok(link) => link,
                Err(error) => {
                    tracing::warn!(%error, "nothing is handed over");
                    continue;
                }
            };
            let mut left = None;
            match (self.hand_over(&link, &mut left).await, left) {
                (Ok(()), left) => {
                    tracing::info!("replaced by a new process; requests in progress are finished here");
                    let Self { view, purges, .. } = self;
                    let mut told = left.unwrap_or_else(|| purges.begin());
                    drop(tokio::spawn(async move { exchange(&link, &view, &mut told, &purges).await }));
                    return;
                }
                (Err(error), Some(told)) => {
                    tracing::error!(%error, "not replaced; serving on, and writing nothing to the disk tier until a restart");
                    let view = self.view.clone();
                    // It says itself what goes wrong.
                    let _ = tokio::task::spawn_blocking(move || view.distrust_disk()).await;
                    self.purges.alone(told);
                    // Its successor may have waited there already.
                    if let Err(error) = self.point.bind_again() {
                        tracing::error!(%error, "nobody can take over from here any more");
                    }
                }
                (Err(error), None) => tracing::warn!(%error, "not replaced; serving on"),
            }
        }
    }

    /// `left`: what is purged since the files of the state are left to the successor.
    async fn hand_over(&self, link: &HandoverLink, left: &mut Option<Told>) -> Result<(), Failed> {
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

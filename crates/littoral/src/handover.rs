//! A new process in the place of an old one, without closing a socket (`edge --handover PATH`, `router --handover PATH`).
//!
//! ```text
//! new ── take ─────▶ old      it serves on, and sends its listening sockets, and the lock of its data folder
//! new ◀─ sockets ── old
//! new ── leave ────▶ old      its certificates are good: the old one ends its state and its disk tier in order, serves on
//! new ◀─ left ───── old       from memory, and reads what is on disk
//! new ── ready ────▶ old      it serves, on the same sockets
//! new ◀─ yours ──── old       the old one drains and ends
//!     ◀─ purged ──▶           what is purged at one of them, until the old one has ended
//! ```
//!
//! A successor that goes away before it is ready, or is too slow, leaves the old one serving; what is on disk is not trusted at
//! the next start then, because nobody has kept the purges of that time. One that is too slow is told, and ends.
//!
//! Who is replaced hands over to nobody before the one that it has replaced itself is gone: there are never three.
//!
//! What was purged before `leave` is in the files. From then on each tells the other what is purged at it, and a `PURGE` is
//! answered when the other has confirmed that: nobody who has that answer is served by either what was purged.
//!
//! Of a CDN's edge, which has its purges from control, both processes follow the event stream. From `leave` on the old one
//! acknowledges nothing, but tells the new one how far it is, which acknowledges what both have applied.

use std::collections::{HashMap, VecDeque};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
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
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::assembly::Process;
use crate::cli::error::CliError;

/// What both ends have to speak.
const VERSION: u32 = 3;
/// For the next word of the other end, in milliseconds: a disk tier has to be written out, or read in.
const WORD_MS: u64 = 60_000;
/// Purges, and requests to confirm them, that wait to be told to the other end. Where purges are more, everything is
/// purged there.
const TOLD_QUEUED: usize = 4_096;
/// How often the old process looks how far it is with the events of control, in milliseconds.
const APPLIED_MS: u64 = 20;
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
    /// The answer: the old process drains and ends.
    Yours,
    /// The answer to whoever was too slow: the old process serves on.
    ServingOn,
    Purged(PurgeTargets),
    /// Everything was.
    PurgedAll,
    /// The newest event that the old process has applied.
    Applied {
        event: u64,
    },
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
    /// It has taken its place again.
    #[error("the other process serves on: this one took too long to start")]
    Late,
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

/// Descriptors of a former process by their names: listening sockets by that of their door, each with a place in it, and the
/// lock of the data folder.
#[derive(Debug, Default)]
pub struct Inherited(HashMap<String, Vec<OwnedFd>>);

impl Inherited {
    /// Those of a name; none: there is nothing to inherit.
    pub fn take(&mut self, name: &str) -> Vec<OwnedFd> {
        self.0.remove(name).unwrap_or_default()
    }

    /// The listening sockets of a door; none: it has to bind its own.
    pub fn listeners(&mut self, name: &str) -> Vec<TcpListener> {
        self.take(name).into_iter().map(TcpListener::from).collect()
    }

    /// Closes what nobody has taken: with it open, clients of an address that is not served any more would wait for nothing.
    pub fn close_rest(&mut self) {
        for name in std::mem::take(&mut self.0).into_keys() {
            tracing::warn!(name, "closed: the process before had it, and this one has been told of another or of none");
        }
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
                (Word::Socket { name }, Some(socket)) => inherited.0.entry(name).or_default().push(socket),
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

    /// Tells it to drain and end. Until then it hears of what is purged at `edge`, and the other way round; `told` is what was
    /// purged there so far. Answers what ends when the other process does.
    ///
    /// # Errors
    /// [`Failed::Late`], [`Failed::Silent`] and [`Failed::Strange`]: it serves, and this one must not.
    pub async fn ready(self, edge: Option<(EdgeView, Told)>, purges: Purges) -> Result<JoinHandle<()>, Failed> {
        let answer = match say(&self.0, &Word::Ready, None).await {
            Ok(()) => hear(&self.0).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok((Word::Yours, _)) => {}
            Ok((Word::ServingOn, _)) => return Err(Failed::Late),
            Ok((word, _)) => return Err(strange(&word)),
            Err(error @ (Failed::Silent | Failed::Strange(_))) => return Err(error),
            Err(error) => tracing::warn!(%error, "the old process has ended by itself"),
        }
        Ok(tokio::spawn(async move {
            let Some((view, mut told)) = edge else { return };
            exchange(&self.0, &view, &mut told, &purges, End::New).await;
            // It serves no more, so that nobody has to hear of anything.
            view.accompanied(None);
            purges.alone(told);
        }))
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

/// Which process this is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Old,
    New,
}

/// Tells purges to the other end, and takes its own, until it is gone.
async fn exchange(link: &HandoverLink, view: &EdgeView, told: &mut Told, purges: &Purges, end: End) {
    let Told { tells, waiting } = told;
    let waiting: &Mutex<_> = waiting;
    let waiting = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    // Requests of the other end that can be answered.
    let (asked, mut confirmed) = watch::channel(0_u64);
    let tell = async {
        let (mut look, mut applied) = (tokio::time::interval(Duration::from_millis(APPLIED_MS)), None);
        loop {
            let word = tokio::select! {
                _ = look.tick(), if end == End::Old && view.has_control() => {
                    let now = view.applied();
                    if applied.replace(now) == Some(now) {
                        continue;
                    }
                    Word::Applied { event: now }
                }
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
                say(link, &Word::PurgedAll, None).await?;
            }
            let fits = serde_json::to_vec(&word).is_ok_and(|text| text.len() <= HANDOVER_MESSAGE_BYTES);
            let word = if fits { word } else { Word::PurgedAll };
            say(link, &word, None).await?;
        }
    };
    let take = async {
        let (mut heard, mut answered) = (0, 0);
        while let Some((text, _)) = link.receive().await? {
            match serde_json::from_slice(&text) {
                Ok(Word::Purged(targets)) => view.purge(targets),
                Ok(Word::PurgedAll) => {
                    view.purge(PurgeTargets { zones: view.zones(), ..PurgeTargets::default() });
                }
                Ok(Word::Applied { event }) if end == End::New => view.accompanied(Some(event)),
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

/// A process that takes the place of another one, and can be replaced itself; without a path, neither.
#[derive(Default)]
pub struct Succession {
    path: Option<PathBuf>,
    predecessor: Option<Predecessor>,
    /// Where a successor asks.
    point: Option<HandoverPoint>,
    /// What is purged here.
    purges: Purges,
    /// The edge, and what was purged at it that the predecessor has not heard of.
    edge: Option<(EdgeView, Option<Told>)>,
    /// Ends with the predecessor.
    accompanied: Option<JoinHandle<()>>,
}

impl Succession {
    /// Asks whoever waits at `path` for its descriptors, for what `process` opens next.
    ///
    /// # Errors
    /// See [`Failed`]; the other process serves on.
    pub async fn begin(path: Option<&Path>, process: &mut Process) -> Result<Self, CliError> {
        let Some(path) = path else { return Ok(Self::default()) };
        process.sockets = Some(Vec::new());
        let mut predecessor = None;
        if let Some((found, inherited)) = Predecessor::ask(path).await.map_err(not_handed)? {
            (predecessor, process.inherited) = (Some(found), inherited);
        }
        Ok(Self { path: Some(path.to_owned()), predecessor, ..Self::default() })
    }

    /// Returns when the state and the disk tier of the other process may be used. What can fail should have done so before.
    ///
    /// # Errors
    /// See [`Failed`]; the other process serves on.
    pub async fn enter(&mut self) -> Result<(), CliError> {
        if let Some(predecessor) = &self.predecessor {
            predecessor.leave().await.map_err(not_handed)?;
        }
        if let Some(path) = &self.path {
            self.point = Some(HandoverPoint::bind(path).map_err(|error| not_handed(error.into()))?);
        }
        Ok(())
    }

    /// Makes an edge ready for it, before its first request, so that nothing that is purged is missed.
    pub fn prepare(&mut self, view: &EdgeView) {
        if self.path.is_none() {
            return;
        }
        view.on_purge(Arc::new(self.purges.clone()));
        let mut told = None;
        if self.predecessor.is_some() {
            view.accompanied(Some(0));
            told = Some(self.purges.begin());
        }
        self.edge = Some((view.clone(), told));
    }

    /// Tells the other process to drain and end. From here on nothing may fail: there is nobody else who serves.
    ///
    /// # Errors
    /// The other process serves on, and this one must not.
    pub async fn ready(&mut self) -> Result<(), CliError> {
        if let Some(predecessor) = self.predecessor.take() {
            let edge = self.edge.as_mut().and_then(|(view, told)| Some((view.clone(), told.take()?)));
            match predecessor.ready(edge, self.purges.clone()).await {
                Ok(accompanied) => self.accompanied = Some(accompanied),
                Err(error) => {
                    if let Some((view, _)) = self.edge.take() {
                        // What the other process purges is not in these files.
                        let give_up = move || {
                            view.leave_disk();
                            view.distrust_disk();
                        };
                        let _ = tokio::task::spawn_blocking(give_up).await;
                    }
                    return Err(not_handed(error));
                }
            }
        }
        Ok(())
    }

    /// Returns true when a successor serves, with these descriptors by their names; the edge then hears of its purges for as
    /// long as it lives. Returns false at `shutdown`, but not in the middle of a handover: a successor that has the files must
    /// not be left alone with what is purged here meanwhile. Without a path it only waits for that.
    pub async fn replaced(self, sockets: Vec<(String, OwnedFd)>, shutdown: &CancellationToken) -> bool {
        let Self { point: Some(mut point), purges, edge, accompanied, .. } = self else {
            shutdown.cancelled().await;
            return false;
        };
        let view = edge.map(|(view, _)| view);
        if let Some(accompanied) = accompanied {
            tokio::select! {
                _ = accompanied => {}
                () = shutdown.cancelled() => return false,
            }
        }
        loop {
            let link = tokio::select! {
                link = point.next() => link,
                () = shutdown.cancelled() => return false,
            };
            let link = match link {
                Ok(link) => link,
                Err(error) => {
                    tracing::warn!(%error, "nothing is handed over");
                    continue;
                }
            };
            let mut left = None;
            match (hand_over(&link, &sockets, view.as_ref(), &purges, &mut left).await, left) {
                (Ok(()), left) => {
                    tracing::info!("replaced by a new process; requests in progress are finished here");
                    if let Some(view) = view {
                        let mut told = left.unwrap_or_else(|| purges.begin());
                        drop(tokio::spawn(async move { exchange(&link, &view, &mut told, &purges, End::Old).await }));
                    }
                    return true;
                }
                (Err(error), Some(told)) => {
                    tracing::error!(%error, "not replaced; serving on, and writing nothing to the disk tier until a restart");
                    // Whoever was only slow has to know. Mostly there is nobody any more.
                    let _ = say(&link, &Word::ServingOn, None).await;
                    if let Some(view) = view.clone() {
                        // It says itself what goes wrong.
                        let _ = tokio::task::spawn_blocking(move || view.distrust_disk()).await;
                    }
                    purges.alone(told);
                    // Its successor may have waited there already.
                    if let Err(error) = point.bind_again() {
                        tracing::error!(%error, "nobody can take over from here any more");
                    }
                }
                (Err(error), None) => tracing::warn!(%error, "not replaced; serving on"),
            }
        }
    }
}

/// `left`: what is purged since the files of the state are left to the successor.
async fn hand_over(
    link: &HandoverLink,
    sockets: &[(String, OwnedFd)],
    view: Option<&EdgeView>,
    purges: &Purges,
    left: &mut Option<Told>,
) -> Result<(), Failed> {
    match hear(link).await? {
        (Word::Take { version: VERSION }, _) => {}
        (word, _) => return Err(strange(&word)),
    }
    for (name, socket) in sockets {
        say(link, &Word::Socket { name: name.clone() }, Some(socket)).await?;
    }
    say(link, &Word::All, None).await?;
    match hear(link).await? {
        (Word::Leave, _) => {}
        (word, _) => return Err(strange(&word)),
    }
    *left = Some(purges.begin());
    if let Some(view) = view.cloned() {
        // If it panics, the successor finds the folders locked, and says so.
        let _ = tokio::task::spawn_blocking(move || view.leave_disk()).await;
    }
    say(link, &Word::Left, None).await?;
    match hear(link).await? {
        (Word::Ready, _) => say(link, &Word::Yours, None).await,
        (word, _) => Err(strange(&word)),
    }
}

fn not_handed(error: Failed) -> CliError {
    CliError::failed(format!("nothing is handed over: {error}")).with_hint(
        "where the old process lives it serves on: stop it first, or give this one another --handover PATH; where it \
             has ended, start this one again",
    )
}

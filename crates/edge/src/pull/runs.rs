//! Runs: exchanges with the origin that bring consecutive slices of a body.
//!
//! Each slice is a [`Growing`] while it comes, which everybody who wants its bytes follows, and goes into the store when it is
//! whole. A run keeps a window of [`WINDOW_SLICES`] for its readers and is never further ahead of the slowest of them; one that
//! nobody reads any more ends with the slice that it is at. (Where the origin cannot be asked for a part and the slices go to
//! disk, it waits for nobody: who is behind reads from there.)
//!
//! The mutex of a run covers positions only; nothing is awaited under it.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::SLICE_BYTES;
use bytes::Bytes;
use http_body_util::BodyExt;
use net::{Body, UpstreamError};
use tokio::sync::{Notify, watch};

use crate::disk::Opened;
use crate::node::Node;
use crate::pull::growing::{Budget, Growing};
use crate::pull::sliced::{CHANGED, Sliced};

/// Slices that a run holds for its readers, the one that is coming among them.
const WINDOW_SLICES: usize = 3;
/// How far from its beginning a reader has to be for a run to be of no use to it, in bytes.
pub(crate) const AHEAD_BYTES: u64 = WINDOW_SLICES as u64 * SLICE_BYTES;
/// How long the slowest of several readers may stop the others, and how long a run waits for its first, in milliseconds.
const LAGGARD_MS: u64 = 5_000;

/// Consecutive slices on their way.
pub(crate) struct Run {
    /// Of the body. The first byte begins a slice; the last may lie within one, which is then not stored.
    bytes: Range<u64>,
    /// The slice for which it was begun.
    wanted_from: u64,
    state: Mutex<State>,
    /// Changes whenever a slice begins, and at the end.
    changed: watch::Sender<()>,
    /// A reader has moved on, come or left.
    moved: Notify,
}

struct State {
    /// The newest slices, in order; the last is the one that is coming.
    window: VecDeque<(u64, Arc<Growing>)>,
    /// The slice that comes after the window.
    next: u64,
    ended: Option<&'static str>,
    /// Where each reader is.
    readers: HashMap<u64, u64>,
    next_reader: u64,
}

impl Run {
    pub(crate) fn new(bytes: Range<u64>, wanted_from: u64) -> Arc<Self> {
        let state = State {
            window: VecDeque::new(),
            next: bytes.start / SLICE_BYTES,
            ended: None,
            readers: HashMap::new(),
            next_reader: 0,
        };
        Arc::new(Self {
            bytes,
            wanted_from,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            moved: Notify::new(),
        })
    }

    /// The bytes that it is to bring.
    pub(crate) fn bytes(&self) -> Range<u64> {
        self.bytes.clone()
    }

    /// Whether a slice is in its window, or is going to be, for who sits in it.
    pub(crate) fn has_for_reader(&self, index: u64) -> bool {
        let state = self.lock();
        let first = state.window.front().map_or(state.next, |(first, _)| *first);
        let coming = state.ended.is_none() && index.saturating_mul(SLICE_BYTES) < self.bytes.end;
        index >= first && (index < state.next || coming)
    }

    /// Whether it brings a slice, up to the byte `upto`, to who is not in it yet. `near`: soon enough, that is.
    pub(crate) fn brings(&self, index: u64, upto: u64, near: bool) -> bool {
        let soon = !near || index < self.lock().next.saturating_add(WINDOW_SLICES as u64);
        soon && upto <= self.bytes.end && self.has_for_reader(index) && self.lock().ended.is_none()
    }

    /// A slice, once it has begun to come. Nothing: it has passed, or the run has ended; why, where that is known.
    pub(crate) async fn slice(&self, index: u64) -> Result<Arc<Growing>, &'static str> {
        let mut changed = self.changed.subscribe();
        loop {
            {
                changed.borrow_and_update();
                let state = self.lock();
                if let Some((_, growing)) = state.window.iter().find(|(at, _)| *at == index) {
                    return Ok(Arc::clone(growing));
                }
                match state.ended {
                    Some(why) => return Err(why),
                    None if index < state.next => return Err("passed"),
                    None => {}
                }
            }
            if changed.changed().await.is_err() {
                return Err("abandoned");
            }
        }
    }

    /// Makes room in the window for the next slice. Nothing: nobody wants it. `hurry`: what has passed can be had from the
    /// store, and cannot be asked for again, so that nobody is waited for.
    async fn advance(&self, budget: &Arc<Budget>, hurry: bool) -> Option<Arc<Growing>> {
        let mut slow = std::pin::pin!(tokio::time::sleep(Duration::from_millis(LAGGARD_MS)));
        loop {
            let moved = self.moved.notified();
            {
                let mut state = self.lock();
                let slowest = state.readers.values().min().copied();
                // Little before anybody has come, and where there is much on its way already.
                let narrow = state.next_reader == 0 || budget.exceeded();
                let window = if narrow { 1 } else { WINDOW_SLICES };
                // Before the first reader has come, what there is waits for it.
                if slowest.is_none() && state.next_reader > 0 && !hurry {
                    return None;
                }
                while hurry && state.window.len() >= window {
                    state.window.pop_front();
                }
                while state.window.len() >= window
                    && state.window.front().zip(slowest).is_some_and(|((first, _), slowest)| *first < slowest)
                {
                    state.window.pop_front();
                }
                if state.window.len() < window {
                    let index = state.next;
                    let growing = Growing::new(index.saturating_mul(SLICE_BYTES), budget);
                    state.window.push_back((index, Arc::clone(&growing)));
                    state.next += 1;
                    drop(state);
                    self.changed.send_replace(());
                    return Some(growing);
                }
            }
            tokio::select! {
                () = moved => {}
                () = &mut slow => {
                    let mut state = self.lock();
                    if state.readers.is_empty() {
                        return None;
                    }
                    // Alone, a slow reader harms nobody but itself. Others go on, and it gets the rest by itself.
                    let slowest = state.readers.values().min().copied().unwrap_or_default();
                    if state.readers.values().any(|at| *at > slowest) {
                        state.readers.retain(|_, at| *at > slowest);
                    }
                    slow.set(tokio::time::sleep(Duration::from_millis(LAGGARD_MS)));
                }
            }
        }
    }

    /// It brings nothing more, and why; what has begun is told the same. Only the first word counts.
    pub(crate) fn end(&self, why: &'static str) {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.ended = Some(why);
            if let Some((_, growing)) = state.window.back() {
                growing.fail(why); // says nothing where it is whole
            }
        }
        drop(state);
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader's place in a run.
pub(crate) struct Seat {
    pub(crate) run: Arc<Run>,
    id: u64,
}

impl Seat {
    pub(crate) fn take(run: &Arc<Run>, index: u64) -> Self {
        let mut state = run.lock();
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, index);
        drop(state);
        run.moved.notify_one();
        Self { run: Arc::clone(run), id }
    }

    pub(crate) fn move_to(&self, index: u64) {
        if let Some(at) = self.run.lock().readers.get_mut(&self.id) {
            *at = index;
        }
        self.run.moved.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.run.lock().readers.remove(&self.id);
        self.run.moved.notify_one();
    }
}

/// A run that was begun, and that ends with this, however that comes about.
pub(crate) struct Begun {
    pub(crate) sliced: Arc<Sliced>,
    pub(crate) run: Arc<Run>,
}

impl Begun {
    /// It brings nothing, and why.
    pub(crate) fn give_up(&self, why: &'static str) {
        self.sliced.end(&self.run);
        self.run.end(why);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.give_up("abandoned");
    }
}

/// What is done with the slices of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Handling {
    /// They may be stored.
    pub(crate) stored: bool,
    /// Nothing but their bytes tells that they are of what is stored: those that are there have to be the same, and nothing of
    /// the run is stored.
    pub(crate) compared: bool,
}

/// Copies the body of an exchange into a run. `forget`: has the store forget the body that the run belongs to, which is done
/// before anybody is told that a run has ended after which it is of no use: who asks again at once must not find it.
pub(crate) async fn pump(node: &Arc<Node>, begun: &Begun, body: Body, handling: Handling, forget: impl Fn()) {
    if let Err(word) = copy(node, &begun.sliced, &begun.run, body, handling, &forget).await {
        tracing::debug!(word, "a run of slices ended early");
        // What could only be compared is not whole, and is asked for anew the next time.
        if handling.compared || word == CHANGED {
            forget();
        }
        begun.give_up(word);
    }
}

/// The same, but for what is told.
///
/// # Errors
/// The word for why it ended early; [`CHANGED`]: it is of something else than what is stored.
async fn copy(
    node: &Arc<Node>,
    sliced: &Arc<Sliced>,
    run: &Arc<Run>,
    body: Body,
    handling: Handling,
    forget: &impl Fn(),
) -> Result<(), &'static str> {
    let mut opened = Opened::default();
    let mut at = run.bytes.start;
    let mut body = std::pin::pin!(body);
    let mut coming: Option<Arc<Growing>> = None;
    // What is stored of the slice that is compared.
    let mut before: Option<(u64, Option<Bytes>)> = None;
    let mut kept = true;
    while at < run.bytes.end {
        let frame = body.frame().await.ok_or("closed-early")?.map_err(|error| {
            let word = error.downcast_ref::<UpstreamError>().map_or("closed-early", UpstreamError::word);
            tracing::warn!(%error, "a body from the origin broke off");
            word
        })?;
        let Ok(mut bytes) = frame.into_data() else { continue };
        while !bytes.is_empty() && at < run.bytes.end {
            let growing = match coming.take() {
                Some(growing) => growing,
                None => run.advance(&node.pull.budget, !sliced.by_range && kept).await.ok_or("abandoned")?,
            };
            let index = at / SLICE_BYTES;
            let whole = sliced.bytes_of(index);
            let end = whole.end.min(run.bytes.end);
            let take = usize::try_from(end - at).unwrap_or(usize::MAX).min(bytes.len());
            let piece = bytes.split_to(take);
            if handling.compared {
                // Who follows this run has got nothing but what is the same in both, so that what it gets is whole.
                let from = usize::try_from(at - whole.start).unwrap_or(usize::MAX);
                if before.as_ref().is_none_or(|(of, _)| *of != index) {
                    before = Some((index, sliced.read(node, &mut opened, index).await));
                }
                match before.as_ref().and_then(|(_, before)| before.as_ref()) {
                    Some(before) if before.get(from..from.saturating_add(take)) == Some(&piece[..]) => {}
                    None if index >= run.wanted_from => {}
                    _ => return Err(CHANGED),
                }
                if at + piece.len() as u64 == run.bytes.end {
                    forget();
                }
            }
            growing.push(&piece).await;
            at += piece.len() as u64;
            if at < end {
                coming = Some(growing);
                continue;
            }
            growing.finish();
            // The rest of a slice may not be part of the run.
            if at < whole.end || !handling.stored || handling.compared {
                continue;
            }
            let pieces = growing.pieces();
            let bytes = match sliced.place().entry() {
                // It is not to stay in memory.
                Some(_) => pieces.concat().into(),
                None => node.pages.join(&pieces),
            };
            kept = sliced.keep(node, index, bytes).await;
        }
    }
    if !sliced.by_range && coming.is_none() {
        ends(body).await?;
    }
    Ok(())
}

/// A body that did not say how long it is has to end where what is stored does.
async fn ends(mut body: std::pin::Pin<&mut Body>) -> Result<(), &'static str> {
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(|_| "closed-early")?.into_data();
        if data.is_ok_and(|bytes| !bytes.is_empty()) {
            return Err(CHANGED);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = SLICE_BYTES;

    fn budget() -> Arc<Budget> {
        Budget::new(u64::MAX)
    }

    /// The next slice, if it begins without anybody moving.
    async fn at_once(run: &Run, hurry: bool) -> Option<u64> {
        let budget = budget();
        tokio::select! {
            biased;
            begun = run.advance(&budget, hurry) => begun.map(|growing| growing.first() / S),
            () = tokio::task::yield_now() => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_ahead_of_its_slowest_reader_by_a_window_and_of_nobody_by_more_than_a_slice() {
        let run = Run::new(0..10 * S, 0);
        assert_eq!((at_once(&run, false).await, at_once(&run, false).await), (Some(0), None), "nobody has come yet");
        let (slow, quick) = (Seat::take(&run, 0), Seat::take(&run, 0));
        assert_eq!((at_once(&run, false).await, at_once(&run, false).await), (Some(1), Some(2)));
        quick.move_to(2);
        assert_eq!(at_once(&run, false).await, None);
        slow.move_to(1);
        assert_eq!((at_once(&run, false).await, at_once(&run, false).await), (Some(3), None));
        assert_eq!(run.slice(0).await.err(), Some("passed"));
        assert_eq!(run.slice(1).await.expect("in the window").first(), S);
        let tight = Budget::new(0);
        let held = Growing::new(0, &tight);
        assert!(held.push(&Bytes::from_static(b"x")).await && tight.exceeded());
        slow.move_to(3);
        quick.move_to(3);
        let begun = run.advance(&tight, false);
        assert!(
            tokio::time::timeout(Duration::from_millis(1), begun).await.is_err(),
            "where much is on its way already"
        );
        assert_eq!(at_once(&run, false).await, Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_without_readers_ends_and_one_that_hurries_waits_for_nobody() {
        let run = Run::new(0..10 * S, 0);
        drop(Seat::take(&run, 0));
        assert!(run.advance(&budget(), false).await.is_none());
        let run = Run::new(0..10 * S, 0);
        let stuck = Seat::take(&run, 0);
        for index in 0..10 {
            assert_eq!(at_once(&run, true).await, Some(index));
        }
        assert!(!run.has_for_reader(6) && run.has_for_reader(7), "a window is left");
        drop(stuck);
        // The first reader is waited for, and not for ever.
        let nobody = Run::new(0..10 * S, 0);
        assert_eq!(at_once(&nobody, false).await, Some(0));
        assert!(nobody.advance(&budget(), false).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_the_others_back_gets_the_rest_by_itself() {
        let run = Run::new(0..10 * S, 0);
        let (_stuck, quick) = (Seat::take(&run, 0), Seat::take(&run, 0));
        for index in 0..3 {
            assert_eq!(at_once(&run, false).await, Some(index));
        }
        quick.move_to(2);
        let next = run.advance(&budget(), false).await.expect("after a while");
        assert_eq!((next.first() / S, run.has_for_reader(0)), (3, false));
        // Alone, it is waited for.
        let alone = Run::new(0..10 * S, 0);
        let _slow = Seat::take(&alone, 0);
        for index in 0..3 {
            assert_eq!(at_once(&alone, false).await, Some(index));
        }
        let budget = budget();
        let patient = alone.advance(&budget, false);
        assert!(tokio::time::timeout(Duration::from_millis(10 * LAGGARD_MS), patient).await.is_err());
    }

    #[tokio::test]
    async fn what_a_run_brings_to_whom() {
        let run = Run::new(2 * S..8 * S + 5, 2);
        let _seat = Seat::take(&run, 2);
        for (index, upto, near, expected) in [
            (1, 2 * S, false, false),
            (2, 3 * S, true, true),
            (4, 5 * S, true, true),
            (5, 6 * S, true, false),
            (5, 6 * S, false, true),
            (8, 8 * S + 5, false, true),
            (8, 8 * S + 6, false, false),
            (9, 9 * S, false, false),
        ] {
            assert_eq!(run.brings(index, upto, near), expected, "{index} {upto} {near}");
        }
        let coming = run.advance(&budget(), false).await.expect("begun");
        let waiting = tokio::spawn({
            let run = Arc::clone(&run);
            async move { run.slice(7).await.err() }
        });
        run.end("closed-early");
        run.end("abandoned");
        assert_eq!(waiting.await.expect("task"), Some("closed-early"), "only the first word counts");
        let mut reader = coming.read(0).expect("there");
        assert_eq!(reader.next(1).await, Err("closed-early"));
        assert!(!run.brings(3, 4 * S, false) && run.has_for_reader(2) && !run.has_for_reader(3));
    }
}

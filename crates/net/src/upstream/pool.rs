//! The connections to one server: at most so many, kept while they are idle, and handed to requests that wait in line.
//!
//! A place in the pool is a [`Slot`]; it belongs to the connection's task and to whoever still uses the connection, and
//! is free again when all have let go. The lock covers the lists and the counts. Nothing is dropped under it that takes
//! it again: senders only wake their tasks, leases and slots are dropped outside.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::lease::{Http1, Http2, Lease};

/// Requests that may wait for a connection to one server. One more is refused at once.
pub const QUEUE_MAX: usize = 1_024;
/// How long an idle connection is kept, in milliseconds. Shorter than most servers keep theirs (5 s), so that they rarely close
/// under us.
pub(super) const POOL_IDLE_MS: u64 = 4_000;
/// Requests at once on one HTTP/2 connection, where the server allows more.
pub(super) const STREAMS_MAX: usize = 100;

/// What a request needs of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Any,
    /// An upgrade: HTTP/2 has none.
    Http1,
}

/// What a request gets.
pub(super) enum Grant {
    /// A connection that was used before, or is used by others, too.
    Reuse(Lease),
    /// The right to open one.
    Open(Slot),
}

/// Why it gets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    QueueFull,
    WaitedTooLong,
}

pub(super) struct Pool {
    limit: usize,
    state: Mutex<State>,
}

struct State {
    idle: Vec<(Http1, Instant)>,
    shared: Vec<Shared>,
    open: usize,
    connecting: usize,
    /// Connections are likely to be shared: while one is being made, nobody makes a second one.
    multiplexes: bool,
    waiting: VecDeque<(Want, oneshot::Sender<Grant>)>,
    /// The upstream is gone; nothing is kept any more.
    closed: bool,
}

impl State {
    /// Those who wait, in line: the first one of each want. What it cannot get, nobody behind it can who wants the same.
    fn first_of_each(&self) -> Vec<(usize, Want)> {
        let first = |wanted| self.waiting.iter().position(|(want, _)| *want == wanted).map(|index| (index, wanted));
        let mut found: Vec<_> = [Want::Any, Want::Http1].into_iter().filter_map(first).collect();
        found.sort_unstable_by_key(|(index, _)| *index);
        found
    }
}

/// A connection that carries several requests at once.
struct Shared {
    connection: Http2,
    streams: usize,
    used: Instant,
}

impl Pool {
    pub(super) fn new(limit: usize, multiplexes: bool) -> Arc<Self> {
        let state = State {
            idle: Vec::new(),
            shared: Vec::new(),
            open: 0,
            connecting: 0,
            multiplexes,
            waiting: VecDeque::new(),
            closed: false,
        };
        Arc::new(Self { limit, state: Mutex::new(state) })
    }

    /// A connection, or the right to open one; waits for it in line for at most `wait`.
    pub(super) async fn acquire(self: &Arc<Self>, want: Want, wait: Duration) -> Result<Grant, Refused> {
        let granted = {
            let mut state = self.state();
            // A request whose client went away no longer counts.
            state.waiting.retain(|(_, waiter)| !waiter.is_closed());
            let first = state.waiting.is_empty();
            match first.then(|| self.grant(&mut state, want)).flatten() {
                Some(grant) => return Ok(grant),
                None if state.waiting.len() >= QUEUE_MAX => return Err(Refused::QueueFull),
                None => {
                    let (sender, receiver) = oneshot::channel();
                    state.waiting.push_back((want, sender));
                    receiver
                }
            }
        };
        // Those before may want something else than what is there.
        self.dispatch();
        match tokio::time::timeout(wait, granted).await {
            Ok(Ok(grant)) => Ok(grant),
            Ok(Err(_)) | Err(_) => Err(Refused::WaitedTooLong),
        }
    }

    /// Takes a connection back that is ready for the next request.
    pub(super) fn give_back(self: &Arc<Self>, connection: Http1) {
        {
            let mut state = self.state();
            if state.closed {
                return;
            }
            state.idle.push((connection, Instant::now()));
        }
        self.dispatch();
    }

    /// Adds a connection that others may use, too; the caller's request is its first.
    pub(super) fn share(self: &Arc<Self>, connection: Http2) {
        {
            let mut state = self.state();
            state.multiplexes = true;
            if !state.closed {
                state.shared.push(Shared { connection, streams: 1, used: Instant::now() });
            }
        }
        self.dispatch();
    }

    /// One request less on a shared connection.
    pub(super) fn stream_ended(self: &Arc<Self>, id: u64) {
        if let Some(shared) = self.state().shared.iter_mut().find(|shared| shared.connection.id == id) {
            shared.streams = shared.streams.saturating_sub(1);
            shared.used = Instant::now();
        }
        self.dispatch();
    }

    /// Lets go of a shared connection that takes no more requests.
    pub(super) fn forget(self: &Arc<Self>, id: u64) {
        self.state().shared.retain(|shared| shared.connection.id != id);
        self.dispatch();
    }

    /// A new connection speaks HTTP/1.1: each request needs its own.
    pub(super) fn does_not_multiplex(self: &Arc<Self>) {
        self.state().multiplexes = false;
        self.dispatch();
    }

    /// Closes the idle connections: the server has closed one of them, and with it probably all.
    pub(super) fn close_idle(&self) {
        self.state().idle.clear();
    }

    /// Lets go of what was closed, or has been idle for too long.
    pub(super) fn sweep(&self) {
        let mut state = self.state();
        state.idle.retain(|(connection, used)| connection.is_ready() && !is_expired(*used));
        state.shared.retain(|shared| !shared.connection.is_closed());
        state.shared.retain(|shared| shared.streams > 0 || !is_expired(shared.used));
    }

    /// Keeps nothing any more; what is in use goes on.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.idle.clear();
        state.shared.clear();
    }

    /// Connections that are open or being opened.
    pub(super) fn connections(&self) -> usize {
        self.state().open
    }

    /// Connections that nobody uses.
    pub(super) fn idle(&self) -> usize {
        let state = self.state();
        state.idle.len() + state.shared.iter().filter(|shared| shared.streams == 0).count()
    }

    /// Serves those who wait, first come first served, as far as there is something for them.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let (waiter, grant) = {
                let mut state = self.state();
                state.waiting.retain(|(_, waiter)| !waiter.is_closed());
                let found = state.first_of_each().into_iter().find_map(|(index, want)| {
                    let grant = self.grant(&mut state, want)?;
                    Some((state.waiting.remove(index)?.1, grant))
                });
                match found {
                    Some(found) => found,
                    None => return,
                }
            };
            // What nobody takes goes back by itself, when it is dropped.
            drop(waiter.send(grant));
        }
    }

    /// What there is for a request now.
    fn grant(self: &Arc<Self>, state: &mut State, want: Want) -> Option<Grant> {
        while let Some((connection, used)) = state.idle.pop() {
            if connection.is_ready() && !is_expired(used) {
                return Some(Grant::Reuse(Lease::http1(Arc::clone(self), connection, true)));
            }
        }
        if want == Want::Any {
            state.shared.retain(|shared| !shared.connection.is_closed());
            let room = |shared: &&mut Shared| shared.streams < shared.connection.streams_max();
            if let Some(shared) = state.shared.iter_mut().find(room) {
                shared.streams += 1;
                return Some(Grant::Reuse(Lease::http2(Arc::clone(self), shared.connection.clone(), true)));
            }
            if state.multiplexes && state.connecting > 0 {
                return None;
            }
        }
        if state.open >= self.limit {
            // A shared connection that nobody uses gives way; its task frees the slot.
            if want == Want::Http1 {
                state.shared.retain(|shared| shared.streams > 0);
            }
            return None;
        }
        state.open += 1;
        state.connecting += 1;
        Some(Grant::Open(Slot { pool: Arc::clone(self), connecting: true }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for one connection.
pub(super) struct Slot {
    pool: Arc<Pool>,
    connecting: bool,
}

impl Slot {
    /// The connection is made.
    pub(super) fn connected(&mut self) {
        if std::mem::take(&mut self.connecting) {
            let mut state = self.pool.state();
            state.connecting = state.connecting.saturating_sub(1);
        }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut state = self.pool.state();
            state.open = state.open.saturating_sub(1);
            if self.connecting {
                state.connecting = state.connecting.saturating_sub(1);
                // Those who waited for this connection try by themselves, all at once rather than one by one.
                state.multiplexes = false;
            }
        }
        self.pool.dispatch();
    }
}

fn is_expired(used: Instant) -> bool {
    used.elapsed() >= Duration::from_millis(POOL_IDLE_MS)
}

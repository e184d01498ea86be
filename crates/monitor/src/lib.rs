//! The monitor role: heartbeats in, who is alive out.
//!
//! Two loops share the table of nodes. One receives datagrams and waits for nothing else; the other decides and tells
//! control: at once when a node comes or goes, and otherwise every [`REPORT_EVERY_MS`]. The mutex around the table is held
//! for one heartbeat or one verdict, never across a wait. The table is in memory only. A monitor that starts asks
//! control for the last verdict and gives every node that was alive then the full time to be heard, so that its restart
//! makes nobody dead; while control is away it goes on listening and tells the newest verdict when control is back.

mod metrics;
mod table;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::heartbeat::{Heartbeat, MAX_HEARTBEAT_BYTES};
use api::{Health, TokenSecret};
use client::{Client, ClientError, StreamItem};
use net::{ClientLimits, HttpClient};
use prometheus_client::registry::Registry;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use metrics::Metrics;
use table::{Heard, Table};

/// How long a node counts as alive after its last heartbeat, if nothing else is configured, in milliseconds.
pub const DEAD_AFTER_MS: u64 = 2_500;
/// Longest time between two verdicts that control is told, in milliseconds.
pub const REPORT_EVERY_MS: u64 = 1_000;
/// How long control may take to answer, in milliseconds.
const CONTROL_MS: u64 = 2_000;
/// First and longest wait after control could not be told, in milliseconds. It doubles from one to the other.
const BACKOFF_MS: (u64, u64) = (50, 1_000);
/// How long to rest after receiving failed, in milliseconds.
const RECEIVE_REST_MS: u64 = 50;
/// A wait that lasts this much longer than planned means that the monitor itself stood still, in milliseconds.
const STALL_MS: u64 = 500;
/// Messages of the event stream among which the last verdict is looked for.
const MAX_GREETINGS: usize = 4;

/// What a monitor needs to know.
#[derive(Debug, Clone)]
pub struct MonitorConfig {
    /// Where control is, `http://HOST:PORT`.
    pub control_url: String,
    /// The node token: opens control, and its key authenticates heartbeats.
    pub token: TokenSecret,
    /// How long a node counts as alive after its last heartbeat, in milliseconds.
    pub dead_after_ms: u64,
}

impl MonitorConfig {
    /// A configuration with the default times.
    pub fn new(control_url: String, token: TokenSecret) -> Self {
        Self { control_url, token, dead_after_ms: DEAD_AFTER_MS }
    }
}

/// A monitor, not yet running.
pub struct Monitor {
    key: [u8; 32],
    client: Client,
    table: Mutex<Table>,
    changed: Notify,
    started: Instant,
    metrics: Metrics,
}

impl Monitor {
    /// Makes a monitor and registers its metrics.
    pub fn new(config: MonitorConfig, registry: &mut Registry) -> Self {
        let limits = ClientLimits { connect_ms: CONTROL_MS, head_ms: CONTROL_MS, ..ClientLimits::default() };
        Self {
            key: config.token.heartbeat_key(),
            client: Client::new(HttpClient::new(limits), &config.control_url, Some(&config.token)),
            table: Mutex::new(Table::new(config.dead_after_ms)),
            changed: Notify::new(),
            started: Instant::now(),
            metrics: Metrics::new(registry),
        }
    }

    /// Listens on `socket` and tells control, until `shutdown`.
    pub async fn run(self, socket: UdpSocket, shutdown: CancellationToken) {
        tokio::select! {
            () = self.receive(&socket) => {}
            () = self.report() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn receive(&self, socket: &UdpSocket) {
        // One byte more than a heartbeat has, so that a longer datagram is not cut into one.
        let mut buffer = [0; MAX_HEARTBEAT_BYTES + 1];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((length, _)) => self.take(buffer.get(..length).unwrap_or_default()),
                Err(error) => {
                    tracing::warn!(%error, "receiving heartbeats failed");
                    tokio::time::sleep(Duration::from_millis(RECEIVE_REST_MS)).await;
                }
            }
        }
    }

    fn take(&self, datagram: &[u8]) {
        let Some(beat) = Heartbeat::decode(datagram, &self.key) else {
            self.metrics.rejected("unauthentic");
            return;
        };
        let node = beat.node.clone();
        let heard = self.table().hear(beat, self.now_ms());
        match heard {
            Heard::Replayed => return self.metrics.rejected("replayed"),
            Heard::Full => return self.metrics.rejected("too_many_nodes"),
            Heard::Same => {}
            Heard::Changed => {
                tracing::info!(%node, "alive");
                self.changed.notify_one();
            }
        }
        self.metrics.heartbeats.inc();
    }

    async fn report(&self) {
        let mut told = self.adopt().await;
        let mut told_at: Option<Instant> = None;
        let mut backoff_ms = BACKOFF_MS.0;
        loop {
            let verdict = self.table().verdict(self.now_ms());
            self.metrics.nodes(&verdict.nodes);
            let due_ms = match told_at {
                // Nobody was ever heard: an empty membership is never published.
                _ if verdict.nodes.is_empty() => REPORT_EVERY_MS,
                Some(at) if table::same_states(&told.nodes, &verdict.nodes) => {
                    REPORT_EVERY_MS.saturating_sub(millis(at.elapsed()))
                }
                _ => 0,
            };
            if due_ms > 0 {
                self.wait(verdict.next_death_ms.unwrap_or(due_ms).min(due_ms)).await;
                continue;
            }
            let health = Health { generation: wall_ms().max(told.generation + 1), nodes: verdict.nodes };
            match self.client.put_health(&health).await {
                Ok(()) => {
                    table::newly_dead(&told.nodes, &health.nodes).for_each(|node| tracing::warn!(%node, "dead"));
                    self.metrics.reports.inc();
                    (told, told_at) = (health, Some(Instant::now()));
                    backoff_ms = BACKOFF_MS.0;
                }
                Err(error) => {
                    self.metrics.report_failures.inc();
                    tracing::warn!(%error, "control could not be told who is alive");
                    tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
                    backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
                }
            }
        }
    }

    /// Waits for a node to come, at most `wait_ms`. If the monitor itself stood still meanwhile (a stopped process or
    /// machine), unread heartbeats are no sign of anything, and every node gets the full time again.
    async fn wait(&self, wait_ms: u64) {
        let began = Instant::now();
        let _ = tokio::time::timeout(Duration::from_millis(wait_ms), self.changed.notified()).await;
        if millis(began.elapsed()) > wait_ms + STALL_MS {
            tracing::warn!(ms = millis(began.elapsed()), "the monitor stood still");
            self.table().excuse(self.now_ms());
        }
    }

    /// Learns the last verdict from control, however long that takes; answers it.
    async fn adopt(&self) -> Health {
        let mut backoff_ms = BACKOFF_MS.0;
        loop {
            let asked = tokio::time::timeout(Duration::from_millis(CONTROL_MS), self.last_verdict()).await;
            match asked {
                Ok(Ok(health)) => {
                    self.table().adopt(&health, self.now_ms());
                    return health;
                }
                Ok(Err(error)) => tracing::warn!(%error, "control did not say who was alive"),
                Err(_) => tracing::warn!("control did not say within {CONTROL_MS} ms who was alive"),
            }
            tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
            backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
        }
    }

    /// The verdict that control knows: it stands at the beginning of the event stream, or there is none yet.
    async fn last_verdict(&self) -> Result<Health, ClientError> {
        let mut stream = self.client.events(None, true).await?;
        for _ in 0..MAX_GREETINGS {
            match stream.next().await? {
                Some(StreamItem::Health(health)) => return Ok(health),
                Some(StreamItem::Hello(_) | StreamItem::Event(_)) => {}
                Some(StreamItem::Ping) | None => break,
            }
        }
        Ok(Health::default())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock, only to make generations that grow over restarts.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(millis).unwrap_or(0)
}

//! Staying in step with control: joining, catching up, applying events, acknowledging them, reporting placements.
//!
//! An edge that starts again begins as [`Link::CatchingUp`], too: its disk may hold what has been purged while it was down.
//!
//! One session: join (control answers with the configuration) → from here on, what is stored may be behind, so the link is
//! [`Link::CatchingUp`] → open the event stream after the last applied number → apply everything up to the head that the
//! stream began with → [`Link::Live`]. Whatever goes wrong ends the session; the link is [`Link::Away`] and the edge
//! serves what it has until the next session.
//!
//! Numbers only mean something within one catalog. Another catalog, or one whose numbers lie behind ours (a restored
//! backup), makes the edge start over: nothing stored before is used again.
//!
//! What is acknowledged is on the disk ([`crate::marks`]): after each batch the marks are synced, and where that fails the
//! edge goes on applying events and acknowledges them when it succeeds again, at the next message; control pings every
//! second.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::heartbeat::Heartbeat;
use api::node::{Join, SNAPSHOT_FORMAT, Snapshot};
use api::{Hello, TokenSecret};
use client::{Client, ClientError, EventStream, StreamItem};
use net::NetError;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::node::{Link, Node};
use crate::persist::Folder;

/// A stream that is silent for so long is broken: control pings every second.
const SILENCE_MS: u64 = 4_000;
/// Rest before a new session, in milliseconds: doubles up to the maximum, and starts again after a session that was live.
const REST_MIN_MS: u64 = 50;
const REST_MAX_MS: u64 = 1_000;
/// Rest between reports of placements, in milliseconds.
const PLACEMENTS_MS: u64 = 300;
/// Events that are synced and acknowledged together, at most.
const MAX_BATCH_EVENTS: u64 = 500;

/// Holds sessions with control until `shutdown`.
pub(crate) async fn follow(node: Arc<Node>, client: Client, folder: Folder, shutdown: CancellationToken) {
    let mut rest_ms = REST_MIN_MS;
    let mut joined_before = false;
    let mut last_error = String::new();
    while !shutdown.is_cancelled() {
        let session = session(&node, &client, &folder, &mut joined_before);
        let ended = tokio::select! {
            ended = session => ended,
            () = shutdown.cancelled() => return,
        };
        let was_live = node.link.send_replace(Link::Away) == Link::Live;
        node.metrics.live.set(0);
        if was_live {
            rest_ms = REST_MIN_MS;
            last_error.clear();
        }
        match ended {
            Ok(()) => tracing::info!(node = %node.config.node.name, "the event stream has ended"),
            // Said once, not at every try.
            Err(error) if error.to_string() == last_error => {
                tracing::debug!(node = %node.config.node.name, %error, "still not connected to control");
            }
            Err(error) => {
                tracing::warn!(node = %node.config.node.name, %error, "not connected to control");
                last_error = error.to_string();
            }
        }
        let jitter_ms = rest_ms / 2 + node.now_ms() % (rest_ms / 2 + 1);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(jitter_ms)) => {}
            () = shutdown.cancelled() => return,
        }
        rest_ms = (rest_ms * 2).min(REST_MAX_MS);
    }
}

async fn session(node: &Node, client: &Client, folder: &Folder, joined_before: &mut bool) -> Result<(), ClientError> {
    // Whoever has left its place to another process is not known to control any more, and follows all the same.
    let snapshot = if node.left.load(Ordering::Acquire) {
        client.snapshot().await?
    } else {
        let join = Join { node: node.config.node.clone(), keeps_placements: *joined_before };
        client.join(&join).await?
    };
    *joined_before = true;
    node.link.send_replace(Link::CatchingUp);
    let head = snapshot.at.head;
    adopt(node, folder, snapshot).await?;
    let mut stream = match client.events(Some(node.applied()), true).await {
        Err(error) if error.code() == Some(api::ErrorCode::EventsGone) => {
            tracing::warn!(node = %node.config.node.name, after = node.applied(), head, "too far behind: revalidating everything");
            node.skip_to(head);
            client.events(Some(head), true).await?
        }
        opened => opened?,
    };
    node.metrics.reconnects.inc();
    let Some(StreamItem::Hello(hello)) = next(&mut stream).await? else {
        return Err(unexpected(client, "the event stream does not begin with hello"));
    };
    if start_over_if_foreign(node, &hello) {
        return Err(unexpected(client, "the catalog has changed; joining again"));
    }
    let (mut acknowledged, mut acknowledgeable) = (None, node.acknowledgeable.subscribe());
    loop {
        let caught_up = node.applied() >= hello.head;
        let applied = node.applied().min(*acknowledgeable.borrow_and_update());
        if caught_up && applied > 0 && acknowledged < Some(applied) {
            acknowledged = acknowledge(node, client, applied).await?.or(acknowledged);
        }
        if caught_up && *node.link.borrow() == Link::CatchingUp {
            node.link.send_replace(Link::Live);
            node.metrics.live.set(1);
        }
        let item = tokio::select! {
            item = next(&mut stream) => item?,
            _ = acknowledgeable.changed() => continue,
        };
        let Some(item) = item else { return Ok(()) };
        let before = node.applied();
        let mut new_configuration = apply(node, client, &item)?;
        // What arrived together is applied together and acknowledged once.
        while node.applied() - before < MAX_BATCH_EVENTS
            && let Some(item) = stream.next_ready()?
        {
            new_configuration |= apply(node, client, &item)?;
        }
        if new_configuration {
            adopt(node, folder, client.snapshot().await?).await?;
        }
        if node.applied() > before {
            // Also while catching up, so that the log of marks never holds more than a batch that is not on the disk.
            keep_marks(node).await;
        }
    }
}

/// Tells control how far this edge is, once it will remember that. Nothing: it cannot be sure to remember it now, or has been
/// told meanwhile that it may not say so.
async fn acknowledge(node: &Node, client: &Client, applied: u64) -> Result<Option<u64>, ClientError> {
    if !keep_marks(node).await || applied > *node.acknowledgeable.borrow() {
        return Ok(None);
    }
    client.ack(&node.config.node.name, applied).await?;
    Ok(Some(applied))
}

/// Whether everything applied so far outlives this machine.
async fn keep_marks(node: &Node) -> bool {
    let kept = node.marks.sync().await;
    if let Err(error) = &kept {
        tracing::warn!(node = %node.config.node.name, %error, "events are applied and not acknowledged");
    }
    kept.is_ok()
}

async fn next(stream: &mut EventStream) -> Result<Option<StreamItem>, ClientError> {
    match tokio::time::timeout(Duration::from_millis(SILENCE_MS), stream.next()).await {
        Ok(item) => item,
        Err(_) => Err(NetError::Timeout { peer: "the event stream".to_owned(), ms: SILENCE_MS }.into()),
    }
}

/// Applies one message. True: there is a new configuration to fetch.
fn apply(node: &Node, client: &Client, item: &StreamItem) -> Result<bool, ClientError> {
    let StreamItem::Event(event) = item else { return Ok(false) };
    let applied = node.applied();
    if event.seq <= applied {
        return Ok(false);
    }
    if event.seq != applied + 1 {
        return Err(unexpected(client, &format!("event {} after event {applied}: one is missing", event.seq)));
    }
    node.apply(event);
    Ok(matches!(event.change, api::Change::Config { .. }))
}

/// Takes up a configuration as a whole, unless it is older than the one in use.
async fn adopt(node: &Node, folder: &Folder, snapshot: Snapshot) -> Result<(), ClientError> {
    let refuse = |why: String| ClientError::Unexpected { url: "/v1/node/snapshot".to_owned(), status: 200, why };
    if snapshot.format != SNAPSHOT_FORMAT {
        return Err(refuse(format!("snapshot of format {}; this program reads {SNAPSHOT_FORMAT}", snapshot.format)));
    }
    let foreign = start_over_if_foreign(node, &snapshot.at);
    let older = node.view().is_some_and(|view| view.snapshot.at.generation > snapshot.at.generation);
    if older && !foreign {
        return Err(refuse(format!("generation {} is older than the one in use", snapshot.at.generation)));
    }
    configure(node, folder, snapshot).await;
    Ok(())
}

/// Puts a configuration to use, and keeps it for the next start.
async fn configure(node: &Node, folder: &Folder, snapshot: Snapshot) {
    node.configure(snapshot.clone());
    // What the change has made useless is marked now. These marks first: with the new configuration on the disk and
    // without them, the next start would not see that anything has changed.
    keep_marks(node).await;
    keep_configuration(node, folder, &snapshot);
}

fn keep_configuration(node: &Node, folder: &Folder, snapshot: &Snapshot) {
    if !node.marks.kept() {
        return;
    }
    if let Err(error) = folder.write_snapshot(snapshot) {
        // The edge works with it all the same; only a restart without control would start from the one before.
        tracing::warn!(node = %node.config.node.name, %error, "cannot keep the configuration on disk");
    }
}

/// Forgets everything if `hello` is of another catalog, or of one that has been set back.
fn start_over_if_foreign(node: &Node, hello: &Hello) -> bool {
    let known = node.view().map(|view| view.snapshot.at.catalog_id.clone());
    let other = known.as_ref().is_some_and(|known| *known != hello.catalog_id);
    let foreign = other || hello.head < node.applied();
    if foreign {
        tracing::warn!(node = %node.config.node.name, head = hello.head, applied = node.applied(), other, "another catalog: starting over");
    }
    // A first start has nothing to forget and nothing to catch up with either.
    if foreign || known.is_none() {
        node.start_over(&hello.catalog_id, hello.head);
    }
    foreign
}

fn unexpected(client: &Client, why: &str) -> ClientError {
    ClientError::Unexpected { url: format!("{}/v1/events", client.base_url()), status: 200, why: why.to_owned() }
}

/// Takes up the configuration that a former life of this edge had.
pub(crate) fn resume(node: &Node, folder: &Folder) {
    let Some(snapshot) = folder.snapshot() else { return };
    let (known, at) = (node.marks.catalog_id(), &snapshot.at);
    if known.as_ref() != Some(&at.catalog_id) {
        node.start_over(&at.catalog_id, at.head);
    } else if node.marks.lost() {
        // Nothing stored is trusted, so it is enough that no event is missed from here on.
        node.skip_to(at.head);
    }
    node.show_applied();
    node.configure(snapshot);
}

/// The same for an edge without control, which is given its configuration at its start. Blocks.
pub(crate) fn resume_alone(node: &Node, folder: &Folder, snapshot: Snapshot) {
    // With the one before first, so that what has changed since is seen.
    resume(node, folder);
    if node.view().is_none() {
        node.start_over(&snapshot.at.catalog_id, snapshot.at.head);
    }
    replace_alone(node, Some(folder), snapshot);
}

/// Gives an edge without control another configuration. Blocks.
pub(crate) fn replace_alone(node: &Node, folder: Option<&Folder>, snapshot: Snapshot) {
    node.configure(snapshot.clone());
    if let Err(error) = node.marks.sync_blocking() {
        tracing::warn!(node = %node.config.node.name, %error, "a restart is not safe");
    }
    if let Some(folder) = folder {
        keep_configuration(node, folder, &snapshot);
    }
}

/// Reports what is held, until `shutdown`. A report that fails is lost: placements are hints.
pub(crate) async fn report_placements(node: Arc<Node>, client: Client, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(PLACEMENTS_MS)) => {}
            () = shutdown.cancelled() => return,
        }
        if *node.link.borrow() == Link::Away {
            continue;
        }
        let placements = node.take_placements();
        if placements.added.is_empty() && placements.removed.is_empty() {
            continue;
        }
        if let Err(error) = client.placements(&node.config.node.name, &placements).await {
            tracing::debug!(node = %node.config.node.name, %error, "placements not reported");
        }
    }
}

/// Sends heartbeats to the monitor that the configuration names, until `shutdown`.
pub(crate) async fn beat(node: Arc<Node>, token: TokenSecret, rest_ms: u64, shutdown: CancellationToken) {
    let (key, started_ms) = (token.heartbeat_key(), node.now_ms());
    let mut socket: Option<UdpSocket> = None;
    for seq in 0.. {
        if let Some(monitor) = node.view().and_then(|view| view.snapshot.monitor) {
            if socket.is_none() {
                let any = if monitor.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                socket = UdpSocket::bind(any).await.ok();
            }
            let beat = Heartbeat {
                node: node.config.node.name.clone(),
                started_ms,
                seq,
                applied: node.applied(),
                load: node.metrics.load(),
            };
            if let Some(socket) = &socket
                && let Err(error) = socket.send_to(&beat.encode(&key), monitor).await
            {
                tracing::debug!(node = %node.config.node.name, %error, "heartbeat not sent");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(rest_ms)) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

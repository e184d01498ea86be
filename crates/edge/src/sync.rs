//! Staying in step with control: joining, catching up, applying events, acknowledging them, reporting placements.
//!
//! One session: join (control answers with the configuration) → from here on, what is stored may be behind, so the link is
//! [`Link::CatchingUp`] → open the event stream after the last applied number → apply everything up to the head that the
//! stream began with → [`Link::Live`]. Whatever goes wrong ends the session; the link is [`Link::Away`] and the edge
//! serves what it has until the next session.
//!
//! Numbers only mean something within one catalog. Another catalog, or one whose numbers lie behind ours (a restored
//! backup), makes the edge start over: nothing stored before is used again.

use std::sync::Arc;
use std::time::Duration;

use api::heartbeat::Heartbeat;
use api::node::{Join, SNAPSHOT_FORMAT, Snapshot};
use api::{Hello, TokenSecret};
use client::{Client, ClientError, EventStream, StreamItem};
use net::NetError;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::node::{Link, Node};
use crate::persist::{APPLIED_FORMAT, Applied, Folder};

/// A stream that is silent for so long is broken: control pings every second.
const SILENCE_MS: u64 = 4_000;
/// Rest before a new session, in milliseconds: doubles up to the maximum, and starts again after a session that was live.
const REST_MIN_MS: u64 = 50;
const REST_MAX_MS: u64 = 1_000;
/// Rest between reports of placements, in milliseconds.
const PLACEMENTS_MS: u64 = 300;
/// Rest between writings of the applied number, in milliseconds.
const PERSIST_MS: u64 = 200;

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
    let join = Join { node: node.config.node.clone(), keeps_placements: *joined_before };
    let snapshot = client.join(&join).await?;
    *joined_before = true;
    node.link.send_replace(Link::CatchingUp);
    let head = snapshot.at.head;
    adopt(node, folder, snapshot)?;
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
    loop {
        if node.applied() >= hello.head && *node.link.borrow() == Link::CatchingUp {
            client.ack(&node.config.node.name, node.applied()).await?;
            node.link.send_replace(Link::Live);
            node.metrics.live.set(1);
        }
        let Some(item) = next(&mut stream).await? else { return Ok(()) };
        let before = node.applied();
        let mut new_configuration = apply(node, client, &item)?;
        // What arrived together is applied together and acknowledged once.
        while let Some(item) = stream.next_ready()? {
            new_configuration |= apply(node, client, &item)?;
        }
        if new_configuration {
            adopt(node, folder, client.snapshot().await?)?;
        }
        if node.applied() > before && *node.link.borrow() == Link::Live {
            client.ack(&node.config.node.name, node.applied()).await?;
        }
    }
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
fn adopt(node: &Node, folder: &Folder, snapshot: Snapshot) -> Result<(), ClientError> {
    let refuse = |why: String| ClientError::Unexpected { url: "/v1/node/snapshot".to_owned(), status: 200, why };
    if snapshot.format != SNAPSHOT_FORMAT {
        return Err(refuse(format!("snapshot of format {}; this program reads {SNAPSHOT_FORMAT}", snapshot.format)));
    }
    let foreign = start_over_if_foreign(node, &snapshot.at);
    let older = node.view().is_some_and(|view| view.snapshot.at.generation > snapshot.at.generation);
    if older && !foreign {
        return Err(refuse(format!("generation {} is older than the one in use", snapshot.at.generation)));
    }
    if let Err(error) = folder.write_snapshot(&snapshot) {
        // The edge works with it all the same; only a restart without control would start from the one before.
        tracing::warn!(node = %node.config.node.name, %error, "cannot keep the configuration on disk");
    }
    node.configure(snapshot);
    Ok(())
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
        node.start_over(hello.head);
    }
    foreign
}

fn unexpected(client: &Client, why: &str) -> ClientError {
    ClientError::Unexpected { url: format!("{}/v1/events", client.base_url()), status: 200, why: why.to_owned() }
}

/// Takes up what a former life of this edge knew.
pub(crate) fn resume(node: &Node, folder: &Folder) {
    let Some(snapshot) = folder.snapshot() else { return };
    match folder.applied() {
        Some(applied) if applied.catalog_id == snapshot.at.catalog_id => node.resume_at(applied.number),
        _ => node.resume_at(snapshot.at.head),
    }
    node.configure(snapshot);
}

/// Writes the applied number to disk when it has changed, until `shutdown`, and once more then.
pub(crate) async fn persist(node: Arc<Node>, folder: Folder, shutdown: CancellationToken) {
    let mut written = None;
    loop {
        let last = tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(PERSIST_MS)) => false,
            () = shutdown.cancelled() => true,
        };
        if let Some(view) = node.view() {
            let catalog_id = view.snapshot.at.catalog_id.clone();
            let applied = Applied { format: APPLIED_FORMAT, catalog_id, number: node.applied() };
            if written.as_ref() != Some(&applied) {
                let (folder, copy) = (folder.clone(), applied.clone());
                match tokio::task::spawn_blocking(move || folder.write_applied(&copy)).await {
                    Ok(Ok(())) => written = Some(applied),
                    Ok(Err(error)) => {
                        tracing::warn!(node = %node.config.node.name, %error, "cannot keep the applied number on disk")
                    }
                    Err(_) => {}
                }
            }
        }
        if last {
            return;
        }
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

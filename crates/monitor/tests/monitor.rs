//! A monitor on real sockets, against a control that keeps what it is told.

#![cfg(test)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::heartbeat::Heartbeat;
use api::{Health, Hello, NodeHealth, TokenSecret};
use http::{Method, Response, StatusCode};
use monitor::{Monitor, MonitorConfig};
use net::{Body, ServerLimits};
use prometheus_client::registry::Registry;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// A condition that does not come true for this long fails the test.
const PATIENCE: Duration = Duration::from_secs(20);

/// A control that answers the event stream with a last verdict, and keeps each new one.
#[derive(Clone, Default)]
struct Control {
    last: Health,
    told: Arc<Mutex<Vec<Health>>>,
    away: Arc<AtomicBool>,
}

impl Control {
    async fn start(&self, shutdown: &CancellationToken) -> String {
        let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let control = self.clone();
        let service = net::service(move |request| {
            let control = control.clone();
            async move { control.answer(request).await }
        });
        tokio::spawn(net::serve(listener, service, ServerLimits::default(), shutdown.clone()));
        url
    }

    async fn answer(&self, request: http::Request<net::Incoming>) -> Response<Body> {
        if self.away.load(Ordering::SeqCst) {
            let answer = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(Body::empty());
            return answer.expect("response");
        }
        assert_eq!(request.headers().get("authorization").expect("token"), "Bearer lit_node");
        if request.method() == Method::GET {
            let hello = Hello { catalog_id: "c".into(), head: 0, oldest: 1, generation: 1 };
            let (hello, last) = (serde_json::to_string(&hello), serde_json::to_string(&self.last));
            return Response::new(Body::full(format!(
                "event: hello\ndata: {}\n\nevent: health\ndata: {}\n\n",
                hello.expect("json"),
                last.expect("json")
            )));
        }
        let body = net::read_to_end(request.into_body(), 1 << 20).await.expect("body");
        self.told.lock().expect("lock").push(serde_json::from_slice(&body).expect("health"));
        Response::builder().status(StatusCode::NO_CONTENT).body(Body::empty()).expect("response")
    }

    /// The newest verdict, as `a b!` where `!` is dead.
    fn newest(&self) -> String {
        self.told.lock().expect("lock").last().map(shown).unwrap_or_default()
    }

    /// Whether there was ever such a verdict.
    fn ever(&self, verdict: &str) -> bool {
        self.told.lock().expect("lock").iter().any(|health| shown(health) == verdict)
    }
}

fn shown(health: &Health) -> String {
    let nodes = health.nodes.iter().map(|n| format!("{}{}", n.name, if n.alive { "" } else { "!" }));
    nodes.collect::<Vec<_>>().join(" ")
}

struct Edge {
    socket: UdpSocket,
    key: [u8; 32],
    seq: u64,
}

impl Edge {
    /// Sends heartbeats until `done`.
    async fn beat_until(&mut self, name: &str, done: impl Fn() -> bool) {
        let started = tokio::time::Instant::now();
        while !done() {
            assert!(started.elapsed() < PATIENCE, "waited too long while {name} beat");
            self.seq += 1;
            let beat = Heartbeat {
                node: name.parse().expect("name"),
                started_ms: 1,
                seq: self.seq,
                applied: self.seq,
                load: 2,
            };
            self.socket.send(&beat.encode(&self.key)).await.expect("send");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn wait_until(what: &str, done: impl Fn() -> bool) {
    let started = tokio::time::Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn metric(registry: &Registry, line: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("encode");
    let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("number"))
}

#[tokio::test]
async fn nodes_come_and_go_and_control_is_told() {
    let old = NodeHealth { name: "old".parse().expect("name"), alive: true, last_heartbeat_ms: 1, load: 0, applied: 0 };
    // The monitor before had a clock that was far ahead.
    let last = Health { generation: 1 << 50, nodes: vec![old] };
    let control = Control { last, ..Control::default() };
    let shutdown = CancellationToken::new();
    let token = TokenSecret::parse("lit_node").expect("token");
    let mut config = MonitorConfig::new(control.start(&shutdown).await, token.clone());
    config.dead_after_ms = 500;
    let mut registry = Registry::default();
    let monitor = Monitor::new(config, &mut registry);
    let socket = net::bind_udp("127.0.0.1:0".parse().expect("address")).await.expect("bind");
    let address = socket.local_addr().expect("address");
    let running = tokio::spawn(monitor.run(socket, shutdown.clone()));

    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.connect(address).await.expect("connect");
    let mut edge = Edge { socket, key: token.heartbeat_key(), seq: 0 };

    edge.beat_until("a", || control.ever("a old")).await;
    edge.beat_until("a", || control.ever("a old!")).await;
    wait_until("a is dead", || control.newest() == "a! old!").await;

    // Neither another key, nor something longer, nor a repetition brings it back.
    let beat = |seq| Heartbeat { node: "a".parse().expect("name"), started_ms: 1, seq, applied: 0, load: 0 };
    let mut long = beat(u64::MAX).encode(&edge.key);
    long.push(0);
    for datagram in [beat(u64::MAX).encode(&[9; 32]), long, vec![], vec![0; 2_000]] {
        edge.socket.send(&datagram).await.expect("send");
    }
    edge.socket.send(&beat(1).encode(&edge.key)).await.expect("send");
    wait_until("datagrams are rejected", || {
        metric(&registry, "littoral_monitor_rejected_heartbeats_total{reason=\"unauthentic\"}") == 4
            && metric(&registry, "littoral_monitor_rejected_heartbeats_total{reason=\"replayed\"}") == 1
    })
    .await;
    assert_eq!(control.newest(), "a! old!");

    // With control away heartbeats are still heard, and afterwards the newest verdict arrives.
    control.away.store(true, Ordering::SeqCst);
    edge.beat_until("b", || metric(&registry, "littoral_monitor_report_failures_total") >= 2).await;
    control.away.store(false, Ordering::SeqCst);
    edge.beat_until("b", || control.ever("a! b old!")).await;
    edge.beat_until("b", || metric(&registry, "littoral_monitor_nodes_dead") == 2).await;

    let generations: Vec<u64> = control.told.lock().expect("lock").iter().map(|health| health.generation).collect();
    assert!(generations.is_sorted_by(|a, b| a < b) && generations[0] > 1 << 50, "{generations:?}");
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("stops").expect("no panic");
}

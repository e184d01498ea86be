//! No descriptor is left: an edge serves those who are there, takes nobody for the moment, and does not spin.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::edge::{Edge, Website, answer, ask, connect, until};

/// Descriptors beyond those in use.
const SPARE: u64 = 3;
/// Clients that come then.
const CLIENTS: usize = 20;
/// How long the edge is watched meanwhile.
const WATCHED: Duration = Duration::from_millis(1_000);
/// Between two requests of somebody who is there.
const PACE: Duration = Duration::from_millis(20);
/// Processor time of the edge in that time, at most; two threads that spin would take four times as much.
const MOST_CPU_MS: u64 = 500;
/// Of the processor time in `/proc`, in milliseconds.
const TICK_MS: u64 = 10;

fn cpu_ms(edge: &Edge) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", edge.child.id())).expect("it runs");
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number") * TICK_MS).sum()
}

/// Lets it have so many.
fn allow(edge: &Edge, descriptors: Option<u64>) {
    let pid = Pid::from_raw(edge.child.id().try_into().expect("a number"));
    // That of its parent, as far as it goes.
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: descriptors.or(maximum), maximum }).expect("limited");
}

#[test]
fn without_descriptors_an_edge_serves_who_is_there_and_takes_others_later() {
    let website = Website::start();
    let edge = Edge::start(&["--listen", "127.0.0.1:0", "--upstream", &website.url]);
    let mut kept = connect(edge.plain()).expect("connected");
    assert_eq!(ask(&mut kept, "GET", "/").expect("an answer").status, 200);
    let open = std::fs::read_dir(format!("/proc/{}/fd", edge.child.id())).expect("it runs").count() as u64;
    allow(&edge, Some(open + SPARE));
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(edge.plain()).expect("queued")).collect();
    for client in &mut clients {
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
    }
    edge.says("no connection can be accepted", 1);
    let (begun, cpu) = (Instant::now(), cpu_ms(&edge));
    while begun.elapsed() < WATCHED {
        assert_eq!(ask(&mut kept, "GET", "/").expect("an answer").x_cache(), "HIT");
        std::thread::sleep(PACE);
    }
    let cpu = cpu_ms(&edge) - cpu;
    assert!(cpu <= MOST_CPU_MS, "{cpu} ms");
    // It is said once, and not each time.
    assert!(edge.log().matches("no connection can be accepted").count() <= 4, "{}", edge.log());
    allow(&edge, None);
    for mut client in clients {
        assert_eq!(answer(&mut client).expect("an answer").status, 200);
    }
    until("the end of it in the log", || edge.log().contains("connections are accepted again"));
}

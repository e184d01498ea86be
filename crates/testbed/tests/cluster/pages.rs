//! Large bodies in memory, which lie in pages that sockets are given as they are: right bytes over every protocol, also where
//! the body leaves the cache while they are on their way.

use std::process::Stdio;

use testbed::front::{Front, FrontSettings};
use testbed::media::{Media, content};
use testbed::{Cluster, Settings, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What does not repeat within a body.
fn numbers(bytes: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_be_bytes).take(bytes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_the_same_over_every_protocol() {
    let settings = Settings { edges: vec!["frankfurt@50.11,8.68"], https: true, ..Settings::default() };
    let cluster = Cluster::with(settings).await;
    let ca = cluster.folder().join(littoral::authority::CA_FILE);
    let (node, _) = &cluster.local.edges[0];
    let secure = node.https_url.clone().expect("an address");
    for bytes in [40 << 10, 64 << 10, (3 << 20) + 5] {
        let (name, body) = (bytes.to_string(), numbers(bytes));
        cluster.put(&name, body.clone()).await;
        for (protocol, url) in [("--http1.1", &node.url), ("--http1.1", &secure), ("--http2", &secure)] {
            // The first one may be a miss, the second is a hit.
            for _ in 0..2 {
                let output = tokio::process::Command::new("curl")
                    .args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", protocol, "--cacert"])
                    .arg(&ca)
                    .arg(format!("{url}/{name}"))
                    .stderr(Stdio::inherit())
                    .output()
                    .await
                    .expect("curl runs");
                assert!(output.stdout == body, "{bytes} {protocol} {url}: {} bytes", output.stdout.len());
            }
        }
    }
}

/// A request over a socket of its own, whose answer is read later.
async fn ask(front: &Front, target: &str, range: Option<(u64, u64)>) -> TcpStream {
    let mut stream = TcpStream::connect(front.url.trim_start_matches("http://")).await.expect("connected");
    let range = range.map_or(String::new(), |(first, last)| format!("Range: bytes={first}-{last}\r\n"));
    let request = format!("GET {target} HTTP/1.1\r\nHost: site.example\r\n{range}\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    stream
}

async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    let head = String::from_utf8(head).expect("text");
    let (_, rest) = head.split_once("content-length: ").expect("a length");
    let mut body = vec![0; rest.split("\r\n").next().expect("a line").parse().expect("a number")];
    stream.read_exact(&mut body).await.expect("a whole body");
    body
}

/// Hits whose readers are slow stay what they were, while everything that they read leaves memory and others take its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_stays_right_when_the_cache_forgets_it() {
    let media = Media::start().await;
    let front = Front::start(FrontSettings { memory_bytes: 16 << 20, ..FrontSettings::of(&media.url) }).await;
    let held = || front.metric("littoral_edge_pages_bytes");
    // In one piece, in slices, and in pieces of unknown length.
    let bodies = [("whole", 200_000), ("whole", 1 << 20), ("ranged", 6_000_000), ("chunked", 3_000_000)];
    let target = |kind: &str, name: &str, bytes: u64| format!("/{kind}/{name}/{bytes}");
    for turn in 0..3 {
        let mut readers = Vec::new();
        for (kind, bytes) in bodies {
            let target = target(kind, &format!("slow{turn}"), bytes);
            eventually("it is a hit", || async { front.get(&target).await.x_cache() == "HIT" }).await;
            readers.push((ask(&front, &target, None).await, target.clone(), 0..bytes));
            let range = bytes / 3..bytes - 1;
            readers.push((ask(&front, &target, Some((range.start, range.end - 1))).await, target, range));
        }
        assert!(held() > 4e6, "{}", held());
        for number in 0..40 {
            let target = target("whole", &format!("other{turn}-{number}"), 900_000);
            assert!(*front.get(&target).await.bytes() == content(&target, 1, 0..900_000));
        }
        for (mut stream, target, range) in readers {
            assert!(read(&mut stream).await == content(&target, 1, range.clone()), "{target} {range:?}");
        }
    }
    assert!(front.metric("littoral_edge_memory_evictions_total") > 40.0);
    // Never more than the tier may hold and what is on its way.
    assert!(held() > 8e6 && held() <= (20 << 20) as f64, "{}", held());
}

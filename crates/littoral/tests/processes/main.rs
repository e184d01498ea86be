//! The program as a process: what `up` prints, what it refuses, and what is left after kill -9.

#![cfg(test)]

mod clients;
mod descriptors;
mod edge;
mod load;
mod nodes;
mod reload;
mod takeover;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::TokenSecret;
use bytes::Bytes;
use client::{Client, Upload, UploadMeta};
use http::Request;
use net::{Body, ClientLimits, HttpClient};
use serde_json::Value;

/// A running `littoral up`, killed when dropped.
struct Up {
    child: Child,
    stdout: BufReader<ChildStdout>,
    ready: Value,
}

fn command(data_dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
    command.arg("up").arg("--data-dir").arg(data_dir).args(more);
    for name in ["LITTORAL_API", "LITTORAL_TOKEN", "LITTORAL_TOKEN_FILE", "LITTORAL_DATA_DIR"] {
        command.env_remove(name);
    }
    command
}

impl Up {
    fn start(data_dir: &Path, more: &[&str]) -> Self {
        let mut command = command(data_dir, &["--json", "--port-base", "0"]);
        let mut child = command.args(more).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
        let mut stdout = BufReader::new(child.stdout.take().expect("standard output"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the ready line");
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        Self { child, stdout, ready }
    }

    fn text(&self, name: &str) -> &str {
        self.ready.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no {name} in {}", self.ready))
    }

    fn client(&self) -> Client {
        let token = std::fs::read_to_string(self.text("token_file")).expect("the token");
        let token = TokenSecret::parse(token.trim()).expect("a token");
        Client::new(HttpClient::new(ClientLimits::default()), self.text("api"), Some(&token))
    }

    fn edges(&self) -> Vec<String> {
        let edges = self.ready.get("edges").and_then(Value::as_array).expect("edges");
        edges.iter().map(|edge| edge.get("url").and_then(Value::as_str).expect("url").to_owned()).collect()
    }

    /// Waits for a line with a word in it.
    fn says(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert!(self.stdout.read_line(&mut line).expect("output") > 0, "it ended without {word}");
        }
    }

    /// SIGINT, and what it prints until it ends.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("output");
        (self.child.wait().expect("ended").code(), rest)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refused(data_dir: &Path, more: &[&str]) -> String {
    let Output { status, stderr, .. } = command(data_dir, more).output().expect("ran");
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "{text}");
    text
}

async fn get(url: &str) -> (u16, Bytes) {
    let request = Request::get(url).body(Body::empty()).expect("request");
    let response = HttpClient::new(ClientLimits::default()).send(request).await.expect("an answer");
    let status = response.status().as_u16();
    (status, net::read_to_end(response.into_body(), 64 << 20).await.expect("whole"))
}

fn target() -> Upload {
    Upload::Path("files".parse().expect("zone"), "file".parse().expect("path"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_says_where_it_is_drains_on_ctrl_c_and_finds_everything_again() {
    let folder = tempfile::tempdir().expect("folder");
    let site = tempfile::tempdir().expect("folder");
    std::fs::create_dir(site.path().join("sub")).expect("folder");
    std::fs::write(site.path().join("index.html"), "<h1>home</h1>").expect("write");
    std::fs::write(site.path().join("sub/a b.txt"), "spaced").expect("write");
    let dir = site.path().to_str().expect("UTF-8");
    let data = folder.path().join("data");
    let mut up = Up::start(&data, &[dir, "--edge", "oslo@59.91,10.75", "--edge", "lima@-12.05,-77.04"]);
    assert_eq!(up.ready.get("ready"), Some(&Value::Bool(true)));
    assert_eq!(up.edges().len(), 2);
    assert!(up.text("router").starts_with("http://127.0.0.1:") && up.text("admin").starts_with("http://127.0.0.1:"));
    for edge in up.edges() {
        assert_eq!(get(&format!("{edge}/")).await, (200, Bytes::from("<h1>home</h1>")));
        assert_eq!(get(&format!("{edge}/sub/a%20b.txt")).await, (200, Bytes::from("spaced")));
    }
    let second = refused(&data, &["--port-base", "0"]);
    assert!(second.contains("in use by another process") && second.contains("--data-dir"), "{second}");
    let client = up.client();
    client.upload(&target(), &UploadMeta::default(), Body::full("kept")).await.expect("uploaded");
    up.says("file_updated");
    let (code, _) = up.interrupt();
    assert_eq!(code, Some(0));
    assert!(!data.join("run.json").exists());

    let up = Up::start(&data, &[]);
    assert_eq!(up.edges().len(), 3, "the default ones");
    for edge in up.edges() {
        assert_eq!(get(&format!("{edge}/file")).await, (200, Bytes::from("kept")));
        assert_eq!(get(&format!("{edge}/sub/a%20b.txt")).await, (200, Bytes::from("spaced")));
    }
}

#[test]
fn what_cannot_work_is_refused_with_a_reason_and_a_way_out() {
    let folder = tempfile::tempdir().expect("folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("address").port();
    let text = refused(&folder.path().join("a"), &["--port-base", &port.to_string()]);
    assert!(text.contains(&port.to_string()) && text.contains("--port-base") && text.contains("(api)"), "{text}");
    let text = refused(&folder.path().join("b"), &["--port-base", "65530"]);
    assert!(text.contains("65535") && text.contains("--port-base"), "{text}");
    std::fs::write(folder.path().join("file"), "").expect("write");
    let text = refused(&folder.path().join("file/data"), &["--port-base", "0"]);
    assert!(text.contains("data folder") && text.contains("--data-dir"), "{text}");
    let newer = folder.path().join("newer");
    std::fs::create_dir(&newer).expect("folder");
    std::fs::write(newer.join("format"), "999").expect("write");
    let text = refused(&newer, &["--port-base", "0"]);
    assert!(text.contains("newer Littoral"), "{text}");
    let text = refused(&folder.path().join("c"), &["/no/such/folder", "--port-base", "0"]);
    assert!(text.contains("/no/such/folder"), "{text}");
    for (edge, why) in [("lisbon", "lisbon@"), ("a@100,0", "-90 to 90"), ("A@0,0", "a-z"), ("origin@0,0", "origin")] {
        let text = refused(&folder.path().join("d"), &["--edge", edge, "--port-base", "0"]);
        assert!(text.contains(why), "{edge}: {text}");
    }
}

/// When to kill: in the middle of the body, or this long after its last byte was handed over.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Chunk(usize),
    After(Duration),
}

const CHUNKS: usize = 40;
const CHUNK_BYTES: usize = 64 << 10;

/// The content of a version: every chunk says which version it is.
fn content(version: u8) -> Vec<u8> {
    vec![version; CHUNKS * CHUNK_BYTES]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_dash_nine_at_any_moment_of_an_upload_leaves_the_old_version_or_the_new_one() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().join("data");
    let after = |micros| Moment::After(Duration::from_micros(micros));
    let moments = [
        Moment::Chunk(0),
        Moment::Chunk(CHUNKS / 2),
        Moment::Chunk(CHUNKS - 1),
        after(0),
        after(200),
        after(500),
        after(1_000),
        after(2_000),
        after(4_000),
        after(8_000),
    ];
    let mut acknowledged = 0;
    for (version, moment) in (1_u8..).zip(moments) {
        let up = Up::start(&data, &[]);
        let (client, edges) = (up.client(), up.edges());
        if version == 1 {
            client.upload(&target(), &UploadMeta::default(), Body::full(content(0))).await.expect("uploaded");
        }
        let process = Arc::new(Mutex::new(up));
        let kill = {
            let process = Arc::clone(&process);
            move || drop(process.lock().expect("not poisoned").child.kill())
        };
        let body = futures_util::stream::unfold(0, move |at| {
            let kill = kill.clone();
            async move {
                match moment {
                    Moment::Chunk(chunk) if chunk == at => kill(),
                    Moment::After(rest) if at == CHUNKS => drop(std::thread::spawn(move || {
                        std::thread::sleep(rest);
                        kill();
                    })),
                    _ => {}
                }
                (at < CHUNKS).then(|| (Ok(Bytes::from(vec![version; CHUNK_BYTES])), at + 1))
            }
        });
        let meta = UploadMeta { size: Some((CHUNKS * CHUNK_BYTES) as u64), ..UploadMeta::default() };
        if client.upload(&target(), &meta, Body::stream(body)).await.is_ok() {
            acknowledged = version;
        }
        drop((process, edges));

        let up = Up::start(&data, &[]);
        let mut seen = Vec::new();
        for edge in up.edges() {
            let (status, bytes) = get(&format!("{edge}/file")).await;
            assert_eq!((status, bytes.len()), (200, CHUNKS * CHUNK_BYTES), "{moment:?}");
            let found = *bytes.first().expect("not empty");
            assert!(bytes.iter().all(|byte| *byte == found), "{moment:?}: two versions mixed");
            assert!(found == version || found == acknowledged, "{moment:?}: {found}, acknowledged was {acknowledged}");
            seen.push(found);
        }
        assert!(seen.windows(2).all(|pair| pair.first() == pair.last()), "{moment:?}: {seen:?}");
        acknowledged = *seen.first().expect("an edge");
    }
}

fn refused_edge(more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
    let Output { status, stderr, .. } = command.arg("edge").args(more).output().expect("ran");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn an_edge_in_front_of_a_website_is_refused_with_a_reason_and_a_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("address").to_string();
    let good = ["--upstream", "http://127.0.0.1:3000"];
    for (more, code, words) in [
        (&["--listen", &*address][..], 1, &[&*address, "--listen"][..]),
        (&["--upstream", "http://127.0.0.1:3000/"], 2, &["upstreams[1].url", "twice"]),
        (&["--upstream", "127.0.0.1:3000"], 2, &["upstreams[1].url", "http://HOST[:PORT]"]),
        (&["--zone-file", "/nowhere/zone.toml"], 2, &["/nowhere/zone.toml"]),
        (&["--control", "http://127.0.0.1:1"], 2, &["--control", "--upstream"]),
        (&["--policy", "fast"], 2, &["safe, rfc"]),
    ] {
        let (ended, text) = refused_edge(&[&good, more].concat());
        assert_eq!(ended, Some(code), "{more:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{more:?}: {word:?} is not in {text}");
        }
    }
    for (more, words) in [
        (&[][..], &["--upstream", "--config", "--control"][..]),
        (&["--policy", "rfc"], &["--upstream"]),
        (&["--control", "http://127.0.0.1:1", "--policy", "rfc"], &["from control", "zone set"]),
    ] {
        let (ended, text) = refused_edge(more);
        assert_eq!(ended, Some(2), "{more:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{more:?}: {word:?} is not in {text}");
        }
    }
}

//! Successors of an edge and of a router of a CDN: no request fails, and no update is confirmed that the process which goes does
//! not have, too.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use api::TokenSecret;
use client::{Client, ClientError, Upload, UploadMeta};
use net::{Body, ClientLimits, HttpClient};
use tempfile::TempDir;

use crate::edge::{answer, ask, connect, until};

/// A process of some roles, killed when dropped.
struct Node {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Node {
    /// Returns when it has said `word`.
    fn start(arguments: &[&str], word: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
        command.args(arguments).env("LITTORAL_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("started");
        let (log, errors) = (Arc::new(Mutex::new(String::new())), child.stderr.take().expect("errors"));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                kept.lock().expect("not poisoned").push_str(&format!("{line}\n"));
            }
        });
        let node = Self { child, log };
        node.says(word);
        node
    }

    fn says(&self, word: &str) {
        until(&format!("{word:?} in {}", self.said()), || self.said().contains(word));
    }

    fn said(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    /// Waits for its end, which has to be a good one.
    fn ended(mut self) {
        until("the end of the old process", || self.child.try_wait().expect("its end").is_some());
        assert!(self.child.wait().expect("ended").success(), "{}", self.said());
    }
}

impl Drop for Node {
    #[expect(clippy::print_stderr, reason = "a test that has failed shows what its process has said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the process said:\n{}", self.said());
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Control and an origin, and places for an edge and a router.
struct Cdn {
    folder: TempDir,
    control: SocketAddr,
    api: SocketAddr,
    edge: SocketAddr,
    router: SocketAddr,
    _roles: Node,
}

impl Cdn {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let held: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let ports: Vec<_> = held.iter().map(|socket| socket.local_addr().expect("address")).collect();
        let [control, api, edge, router] = ports[..] else { panic!("{ports:?}") };
        drop(held);
        let file = folder.path().join("cdn.toml");
        let data = folder.path().join("data");
        let text = format!(
            "data_dir = {data:?}\n[control]\nlisten = \"{control}\"\npublic_url = \"http://{router}\"\n\
             origin_url = \"http://{api}\"\norigin_place = \"50.11,8.68\"\n\
             [origin]\nlisten = \"{api}\"\ncontrol_url = \"http://{control}\"\n"
        );
        std::fs::write(&file, text).expect("write");
        let roles = Node::start(&["run", "--config", &text_of(&file)], "origin (api) on");
        Self { folder, control, api, edge, router, _roles: roles }
    }

    fn path(&self, name: &str) -> String {
        text_of(&self.folder.path().join(name))
    }

    fn start_edge(&self) -> Node {
        let disk = format!("{}=64MiB", self.path("disk"));
        let arguments = ["edge", "--control", &format!("http://{}", self.control), "--name", "porto"];
        let more = ["--token-file", &self.path("data/node.token"), "--place", "41.15,-8.61", "--disk", &disk];
        let place = ["--listen", &self.edge.to_string(), "--data-dir", &self.path("edge"), "--threads", "2"];
        let handover = ["--handover", &self.path("edge.socket")];
        Node::start(&[&arguments[..], &more, &place, &handover].concat(), "edge porto on")
    }

    fn start_router(&self) -> Node {
        let file = self.folder.path().join("router.toml");
        let text = format!(
            "data_dir = {:?}\n[router]\nlisten = \"{}\"\ncontrol_url = \"http://{}\"\ntoken_file = {:?}\nthreads = 2\n\
             default_place = \"41.15,-8.61\"\n",
            self.path("router"),
            self.router,
            self.control,
            self.path("data/node.token")
        );
        std::fs::write(&file, text).expect("write");
        let arguments = ["router", "--config", &text_of(&file), "--handover", &self.path("router.socket")];
        Node::start(&arguments, "router on")
    }

    fn client(&self) -> Client {
        let token = std::fs::read_to_string(self.path("data/admin.token")).expect("the token");
        let token = TokenSecret::parse(token.trim()).expect("a token");
        Client::new(HttpClient::new(ClientLimits::default()), &format!("http://{}", self.api), Some(&token))
    }
}

fn text_of(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// A new version of the only file; answered when every edge has it.
async fn update(client: &Client, body: &'static str) -> Result<(), ClientError> {
    let target = Upload::Path("files".parse().expect("zone"), "file".parse().expect("path"));
    let meta = UploadMeta { wait: true, ..UploadMeta::default() };
    let (_, doc) = client.upload(&target, &meta, Body::full(body)).await?;
    let states: Vec<_> = doc.receipts.iter().map(|receipt| format!("{:?}", receipt.state)).collect();
    assert_eq!(states, ["Applied"], "{body}");
    Ok(())
}

fn file(address: SocketAddr) -> String {
    let got = ask(&mut connect(address).expect("connected"), "GET", "/file").expect("an answer");
    assert_eq!(got.status, 200, "{got:?}");
    got.body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_confirmed_when_the_old_edge_and_the_new_one_have_it() {
    let cdn = Cdn::start();
    let client = cdn.client();
    let old = cdn.start_edge();
    update(&client, "one").await.expect("updated");
    assert_eq!(file(cdn.edge), "one");
    // A request that has begun: the old process waits for the rest of it.
    let mut kept = connect(cdn.edge).expect("connected");
    assert_eq!(ask(&mut kept, "GET", "/file").expect("an answer").body, "one");
    kept.write_all(b"GET /file HTTP/1.1\r\n").expect("written");

    let new = cdn.start_edge();
    old.says("replaced by a new process");
    update(&client, "two").await.expect("updated");
    assert_eq!(file(cdn.edge), "two");
    // While the old one stands still, nobody says that the edge has anything.
    old.signal("-STOP");
    let updating = tokio::spawn({
        let client = client.clone();
        async move { update(&client, "three").await }
    });
    until("the new process has it", || file(cdn.edge) == "three");
    for _ in 0..100 {
        assert_eq!(file(cdn.edge), "three");
    }
    assert!(!updating.is_finished(), "confirmed while a process has the old version");
    old.signal("-CONT");
    updating.await.expect("done").expect("updated");
    // The next one waits until the first has ended: there are never three.
    let newest = std::thread::scope(|scope| {
        let newest = scope.spawn(|| cdn.start_edge());
        for _ in 0..100 {
            assert_eq!(file(cdn.edge), "three");
        }
        assert!(!new.said().contains("replaced by a new process"));
        kept.write_all(b"Host: localhost\r\n\r\n").expect("written");
        assert_eq!(answer(&mut kept).expect("an answer").body, "three");
        old.ended();
        newest.join().expect("started")
    });
    new.ended();

    // Alone, and from its disk.
    update(&client, "four").await.expect("updated");
    assert_eq!(file(cdn.edge), "four");
    drop(newest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_is_replaced_and_nobody_notices() {
    let cdn = Cdn::start();
    let _edge = cdn.start_edge();
    update(&cdn.client(), "one").await.expect("updated");
    let mut old = cdn.start_router();
    let leads = |address| {
        let got = ask(&mut connect(address).ok()?, "GET", "/file").ok()?;
        Some(got.status)
    };
    until("it leads to the edge", || leads(cdn.router) == Some(307));
    let (stop, asked, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    failed.fetch_add(u64::from(leads(cdn.router) != Some(307)), Ordering::Relaxed);
                }
            });
        }
        for _ in 0..3 {
            let new = cdn.start_router();
            std::mem::replace(&mut old, new).ended();
            let before = asked.load(Ordering::Relaxed);
            until("requests go on", || asked.load(Ordering::Relaxed) > before + 100);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(failed.into_inner(), 0, "of {}", asked.into_inner());
}

#[test]
fn several_edges_of_one_process_are_not_replaced() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("two.toml");
    let edge = |name| {
        format!(
            "[[edge]]\nname = \"{name}\"\nplace = \"1,1\"\nlisten = \"127.0.0.1:0\"\ncontrol_url = \"http://127.0.0.1:1\"\n"
        )
    };
    std::fs::write(&file, format!("{}{}", edge("a"), edge("b"))).expect("write");
    let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
    let handover = text_of(&folder.path().join("socket"));
    let output = command.args(["edge", "--config", &text_of(&file), "--handover", &handover]).output().expect("ran");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && text.contains("2 edges") && text.contains("--handover"), "{text}");
}

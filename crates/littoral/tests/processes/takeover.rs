//! A new process in the place of an old one, under load: it comes, it fails on the way, and purges cross.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use net::HandoverLink;
use serde_json::{Value, json};

use crate::edge::{Authority, Edge, Website, answer, ask, connect};
use crate::load::Load;

/// Flags of an edge that can be replaced; it keeps what it has in a folder.
fn flags(folder: &Path, website: &Website, more: &[&str]) -> Vec<String> {
    let disk = format!("{}=64MiB", folder.join("disk").display());
    let handover = folder.join("handover").display().to_string();
    let flags = ["--listen", "127.0.0.1:0", "--upstream", &website.url, "--disk", &disk, "--handover", &handover];
    flags.iter().chain(more).map(|&flag| flag.to_owned()).collect()
}

fn start(flags: &[String]) -> Edge {
    Edge::start(&flags.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_new_process_takes_the_sockets_and_the_folders_of_the_old_one() {
    let (website, folder) = (Website::start(), tempfile::tempdir().expect("folder"));
    let flags = flags(folder.path(), &website, &[]);
    let mut old = start(&flags);
    let address = old.plain();
    let mut kept = connect(address).expect("connected");
    assert_eq!(ask(&mut kept, "GET", "/").expect("an answer").status, 200);
    for _ in 0..3 {
        let new = start(&flags);
        assert_eq!(new.plain(), address);
        // The kept connection is one of the first process, which answers it once more, or closes it in order.
        std::mem::replace(&mut old, new).ended();
        let mut fresh = connect(address).expect("connected");
        assert_eq!(ask(&mut fresh, "GET", "/").expect("an answer").status, 200);
    }
    drop(old);
    // Nobody answers there any more: the next one starts by itself.
    drop(start(&flags));
}

#[test]
fn a_new_process_that_listens_elsewhere_leaves_nobody_waiting_at_the_old_address() {
    let (website, folder) = (Website::start(), tempfile::tempdir().expect("folder"));
    let flags = flags(folder.path(), &website, &["--admin", "127.0.0.1:0"]);
    let old = start(&flags);
    let address = old.plain();
    let elsewhere: Vec<String> = flags.iter().map(|flag| flag.replace("127.0.0.1:0", "127.0.0.2:0")).collect();
    let new = start(&elsewhere);
    old.ended();
    new.says("closed: the process before had it", 2);
    assert_eq!(connect(address).expect_err("closed").kind(), std::io::ErrorKind::ConnectionRefused);
    let mut fresh = connect(new.plain()).expect("connected");
    assert_eq!(ask(&mut fresh, "GET", "/").expect("an answer").status, 200);
}

/// A successor that is no good, up to where it is told to stop.
struct Fake(HandoverLink);

impl Fake {
    async fn come(folder: &Path) -> Self {
        let link = net::ask(&folder.join("handover")).await.expect("asked").expect("somebody is there");
        Self(link)
    }

    async fn say(&self, word: Value) {
        self.0.send(word.to_string().as_bytes(), None).await.expect("said");
    }

    async fn hear(&self) -> Value {
        let heard = tokio::time::timeout(crate::edge::PATIENCE, self.0.receive()).await.expect("a word in time");
        let (text, _) = heard.expect("heard").expect("it goes on");
        serde_json::from_slice(&text).expect("a word")
    }

    /// Takes the sockets, and lets go of them.
    async fn take(&self) {
        self.say(json!({"take": {"version": 3}})).await;
        while self.hear().await != json!("all") {}
    }

    async fn ready(&self) {
        self.say(json!("ready")).await;
        assert_eq!(self.hear().await, json!("yours"));
    }

    async fn leave(&self) {
        self.take().await;
        self.say(json!("leave")).await;
        assert_eq!(self.hear().await, json!("left"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_fails_anywhere_leaves_the_old_process_serving() {
    let (website, authority, folder) = (Website::start(), Authority::new(), tempfile::tempdir().expect("folder"));
    authority.sign();
    let tls = authority.flags();
    let more: Vec<&str> = tls.iter().map(String::as_str).chain(["--admin", "127.0.0.1:0"]).collect();
    let flags = flags(folder.path(), &website, &more);
    let edge = start(&flags);
    let load = Load::start(edge.plain(), edge.tls(), &authority.client("http/1.1"));
    load.goes_on(200);

    // What is wrong with it shows before it says a word, or before the old one leaves anything to it.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("address").to_string();
    let nowhere = folder.path().join("nowhere.crt").display().to_string();
    for (flag, value, code, word) in [
        ("--fast", "1", 2, "--fast"),
        ("--admin", &*taken, 1, "--admin"),
        ("--cert", &*nowhere, 1, "nowhere.crt"),
        ("--policy", "fast", 2, "safe, rfc"),
    ] {
        let mut wrong: Vec<&str> = flags.iter().map(String::as_str).collect();
        match wrong.iter().position(|known| *known == flag) {
            Some(at) => *wrong.get_mut(at + 1).expect("a value") = value,
            None => wrong.extend([flag, value]),
        }
        let (status, said) = Edge::refused(&wrong);
        assert_eq!(status.code(), Some(code), "{flag}: {said}");
        assert!(said.contains(word), "{flag}: {said}");
        load.goes_on(50);
    }
    // It dies on the way, or says what it should not.
    let fake = Fake::come(folder.path()).await;
    drop(fake);
    let fake = Fake::come(folder.path()).await;
    fake.say(json!({"take": {"version": 1_000}})).await;
    edge.says("was not expected", 1);
    let fake = Fake::come(folder.path()).await;
    fake.take().await;
    fake.say(json!("ready")).await;
    edge.says("was not expected", 2);
    let fake = Fake::come(folder.path()).await;
    fake.take().await;
    drop(fake);
    load.goes_on(50);
    let fake = Fake::come(folder.path()).await;
    fake.leave().await;
    drop(fake);
    edge.says("writing nothing to the disk tier until a restart", 1);
    load.goes_on(50);

    // It has waited there for its own successor already.
    let fake = Fake::come(folder.path()).await;
    fake.leave().await;
    let path = folder.path().join("handover");
    let other = net::HandoverPoint::bind(&path).expect("bound");
    drop((fake, other));
    edge.says("writing nothing to the disk tier until a restart", 2);
    load.goes_on(50);

    // The next one has everything.
    let new = start(&flags);
    assert_eq!((new.plain(), new.tls()), (edge.plain(), edge.tls()));
    load.goes_on(50);
    edge.ended();
    load.goes_on(200);
    load.end();
}

/// The body of a page, on a new connection.
fn page(address: SocketAddr) -> String {
    ask(&mut connect(address).expect("connected"), "GET", "/page").expect("an answer").body
}

fn is_answered(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("set");
    let answered = stream.peek(&mut [0]).is_ok();
    stream.set_nonblocking(false).expect("set");
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_is_answered_when_the_old_process_and_the_new_one_have_it() {
    let (website, folder) = (Website::start(), tempfile::tempdir().expect("folder"));
    let edge = start(&flags(folder.path(), &website, &[]));
    assert_eq!(page(edge.plain()), "1");
    // Alone, it answers by itself.
    let mut kept = connect(edge.plain()).expect("connected");
    website.change();
    assert_eq!(ask(&mut kept, "PURGE", "/page").expect("an answer").status, 200);
    assert_eq!(page(edge.plain()), "2");

    // The new one has the files: what is purged from here on it has to be told.
    let fake = Fake::come(folder.path()).await;
    fake.leave().await;
    website.change();
    kept.write_all(b"PURGE /page HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
    fake.ready().await;
    let purged = fake.hear().await;
    assert_eq!(purged["purged"]["pages"][0]["url"], "localhost/page", "{purged}");
    assert_eq!(fake.hear().await, json!("confirm"));
    assert!(!is_answered(&kept));
    fake.say(json!({"confirmed": {"requests": 1}})).await;
    assert_eq!(answer(&mut kept).expect("an answer").status, 200);
    edge.ended();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_purged_at_the_new_process_the_old_one_serves_no_more() {
    let (website, folder) = (Website::start(), tempfile::tempdir().expect("folder"));
    let edge = start(&flags(folder.path(), &website, &[]));
    assert_eq!(page(edge.plain()), "1");
    let mut kept = connect(edge.plain()).expect("connected");
    assert_eq!(ask(&mut kept, "GET", "/page").expect("an answer").x_cache(), "HIT");
    let fake = Fake::come(folder.path()).await;
    fake.leave().await;
    // A request that has begun: the old process waits for the rest of it.
    kept.write_all(b"GET /page HTTP/1.1\r\n").expect("written");
    fake.ready().await;
    website.change();
    let page = json!({"zone": "site", "url": "localhost/page"});
    fake.say(json!({"purged": {"pages": [page], "soft": false}})).await;
    fake.say(json!("confirm")).await;
    assert_eq!(fake.hear().await, json!({"confirmed": {"requests": 1}}));
    kept.write_all(b"Host: localhost\r\n\r\n").expect("written");
    let last = answer(&mut kept).expect("an answer");
    assert_eq!((last.status, &*last.body), (200, "2"), "{}", last.head);
    edge.ended();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_the_new_process_does_not_live_to_confirm() {
    let (website, folder) = (Website::start(), tempfile::tempdir().expect("folder"));
    let edge = start(&flags(folder.path(), &website, &[]));
    assert_eq!(page(edge.plain()), "1");
    let purge = |stream: &mut TcpStream| {
        stream.write_all(b"PURGE /page HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
    };
    // It has not served: the old one goes on, and has it.
    let fake = Fake::come(folder.path()).await;
    fake.leave().await;
    let mut kept = connect(edge.plain()).expect("connected");
    website.change();
    purge(&mut kept);
    drop(fake);
    assert_eq!(answer(&mut kept).expect("an answer").status, 200);
    assert_eq!(page(edge.plain()), "2");
    // It has served, and nobody knows what its files say.
    let fake = Fake::come(folder.path()).await;
    fake.leave().await;
    website.change();
    purge(&mut kept);
    fake.ready().await;
    assert!(fake.hear().await.get("purged").is_some());
    drop(fake);
    let refused = answer(&mut kept).expect("an answer");
    assert!(refused.status == 504 && refused.body.contains("ask once more"), "{refused:?}");
    edge.ended();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_to_stop_in_a_handover_brings_it_to_its_end() {
    let (website, folder) = (Website::start(), tempfile::tempdir().expect("folder"));
    let edge = start(&flags(folder.path(), &website, &[]));
    assert_eq!(page(edge.plain()), "1");
    let fake = Fake::come(folder.path()).await;
    fake.leave().await;
    edge.signal("-TERM");
    // It is there for the purges of the other, and for its own, until that one serves.
    assert_eq!(page(edge.plain()), "1");
    fake.ready().await;
    edge.ended();
}

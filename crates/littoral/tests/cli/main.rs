//! The built program against a stand-in for the API: what it asks for, prints, leaves on disk, and how it ends.

#![cfg(test)]

mod fake;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use api::{Digest, Scope, ZoneName};
use client::{Upload, UploadMeta};
use fake::{Fake, TOKEN};
use littoral::connection::Connection;
use littoral::progress::Progress;
use littoral::publish::{Item, UploadError, upload_file};
use tempfile::TempDir;

/// A stand-in and a folder to work in.
struct World {
    fake: Fake,
    home: TempDir,
}

/// How a run of the program ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// What was printed, if all went well.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Checks that it failed with this code, and that every one of `words` is in what was said.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
        assert!(!self.stderr.contains(TOKEN) && !self.stdout.contains(TOKEN), "the secret was printed");
    }
}

impl World {
    async fn new() -> Self {
        Self { fake: Fake::start().await, home: tempfile::tempdir().expect("folder") }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("folder")).expect("folder");
        fs::write(path, text).expect("write");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).expect(name)
    }

    /// Runs the program with these arguments (divided by spaces), address and token in its environment.
    async fn run(&self, arguments: &str) -> Ran {
        let env = [("LITTORAL_API", self.fake.url.as_str()), ("LITTORAL_TOKEN", TOKEN)];
        self.run_with(arguments, &env, "").await
    }

    async fn run_with(&self, arguments: &str, env: &[(&str, &str)], stdin: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
        command.args(arguments.split(' ')).current_dir(self.home.path());
        for name in ["LITTORAL_API", "LITTORAL_TOKEN", "LITTORAL_TOKEN_FILE", "LITTORAL_DATA_DIR", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.envs(env.iter().copied());
        let (input, stdin) = (self.home.path().join(".stdin"), stdin.to_owned());
        let input = if stdin.is_empty() {
            Stdio::null()
        } else {
            fs::write(&input, &stdin).expect("write");
            let file = fs::File::open(&input).expect("open");
            fs::remove_file(&input).expect("remove");
            file.into()
        };
        command.stdin(input);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("thread").expect("start");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ran { code: output.status.code().expect("a code"), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn last_answer(&self) -> String {
        self.fake.state.lock().expect("lock").last_answer.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_up_and_down_and_away() {
    let world = World::new().await;
    world.write("photo 1.jpg", "pixels");
    fs::rename(world.at("photo 1.jpg"), world.at("photo.jpg")).expect("rename");

    let shown = world.run("put photo.jpg img/").await;
    assert!(shown.stderr.starts_with("1 file, 6 B uploaded in "), "{shown:?}");
    assert!(shown.ok().contains(&format!("img/photo.jpg  1        6 B   {}/img/photo.jpg", world.fake.url)));
    let json = world.run("put photo.jpg img/photo.jpg -o json -q").await;
    assert_eq!(json.stderr, "");
    assert_eq!(json.ok(), world.last_answer() + "\n", "JSON is what the API answered, to the byte");

    assert_eq!(world.run("get img/photo.jpg copy.jpg -q").await.ok(), "");
    assert_eq!(world.read("copy.jpg"), "pixels");
    assert_eq!(world.run("get img/photo.jpg -").await.ok(), "pixels");
    assert_eq!(world.run("ls").await.ok(), "img/photo.jpg\n");

    let moved = world.run("mv img/photo.jpg archive/").await.ok();
    assert!(moved.contains("archive/photo.jpg"), "{moved}");
    world.run("mv archive/photo.jpg docs:x").await.fails(2, &["is in zone 'files'"]);
    assert_eq!(world.fake.paths("files"), ["archive/photo.jpg"]);
    world.run("rm archive/photo.jpg").await.ok();
    world.run("rm archive/photo.jpg").await.fails(1, &["archive/photo.jpg: there is no file", "1 file could not"]);
    world.run("get archive/photo.jpg").await.fails(1, &["there is no file", "'littoral ls'"]);
    assert!(world.fake.paths("files").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_with_an_upload() {
    let world = World::new().await;
    world.write("a.txt", "hello");
    let line = "put a.txt docs:b.txt --type text/x --cache-control max-age=5 --tag one --tag two --if-new";
    world.run(line).await.ok();
    let asked = world.fake.take_requests().pop().expect("a request");
    assert_eq!(
        asked,
        "PUT /v1/zones/docs/files/b.txt content-length=5 content-type=text/x cache-control=max-age=5 \
         surrogate-key=one two if-none-match=* +token"
    );
    world.run(line).await.fails(1, &["cannot upload a.txt: the precondition does not hold"]);
    let digest = Digest::of(b"hello");
    world.run(&format!("put a.txt docs:b.txt --if-match {digest}")).await.ok();
    world.run(&format!("put a.txt docs:b.txt --if-match {}", Digest::of(b"x"))).await.fails(1, &["precondition"]);

    let generated = world.run("put a.txt --generate -o json").await.ok();
    assert!(generated.contains("\"path\":\"generated.txt\""), "{generated}");
    let env = [("LITTORAL_API", world.fake.url.as_str()), ("LITTORAL_TOKEN", TOKEN)];
    world.run_with("put - notes/today.txt", &env, "from a pipe").await.ok();
    world.run("put a.txt notes/today.txt.sum").await.ok();
    assert_eq!(world.run("get notes/today.txt -").await.ok(), "from a pipe");
    let requests = world.fake.take_requests();
    assert!(requests.contains(&"PUT /v1/zones/files/files/notes/today.txt +token".to_owned()), "chunked: {requests:?}");

    let id = generated.split('"').nth(3).expect("id").to_owned();
    world.write("a.txt", "again");
    let updated = world.run(&format!("put a.txt --id {id}")).await.ok();
    assert!(updated.contains("generated.txt  2 "), "{updated}");
    assert_eq!(world.run(&format!("get {id} -")).await.ok(), "again");
    world.run(&format!("rm --id {id}")).await.ok();
    world.run(&format!("get {id}")).await.fails(1, &["there is no file of that id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_and_folders() {
    let world = World::new().await;
    for name in ["site/index.html", "site/img/a.png", "site/.well-known/x", "b.txt", "c.txt"] {
        world.write(name, name);
    }
    let put = world.run("put site").await;
    assert!(put.stderr.contains("3 files, "), "{put:?}");
    assert_eq!(world.fake.paths("files"), [".well-known/x", "img/a.png", "index.html"]);
    let listed = world.run("put b.txt c.txt site docs:v/ -o json -q").await.ok();
    assert_eq!(listed.lines().count(), 5);
    let docs = world.fake.paths("docs");
    assert_eq!(docs, ["v/b.txt", "v/c.txt", "v/site/.well-known/x", "v/site/img/a.png", "v/site/index.html"]);
    world.write("v", "in the way");
    world.run("put b.txt nothing.txt c.txt missing.txt").await.fails(2, &["missing.txt", "--to"]);
    world.run("put b.txt missing.txt gone/").await.fails(1, &["there is no file missing.txt"]);
    world.run("put site unknown:x").await.fails(1, &["there is no zone 'unknown'", "'littoral zones' lists"]);

    // Three files are on a page: all five come.
    assert_eq!(world.run("ls docs:").await.ok().lines().count(), 5);
    let long = world.run("ls docs:v/b --long").await;
    assert_eq!(long.stderr, "1 file, 5 B\n");
    let line = "       5 B  2026-01-01 00:00:00Z  v1      application/octet-stream        v/b.txt\n";
    assert_eq!(long.ok(), line);
    let json = world.run("ls docs:v/b -o json -q").await.ok();
    let answer = world.last_answer();
    assert!(answer.contains(json.trim_end()) && json.starts_with("{\"id\":"), "{json} is not in {answer}");

    world.run("rm --prefix docs:v/site/").await.fails(2, &["--yes"]);
    world.run("rm --prefix docs:v/site/ --yes").await.ok();
    assert_eq!(world.fake.paths("docs"), ["v/b.txt", "v/c.txt"]);
    world.run("rm docs:v/b.txt docs:v/c.txt index.html").await.ok();
    assert!(world.fake.paths("docs").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_uploads_what_differs_and_deletes_what_is_gone() {
    let world = World::new().await;
    for number in 0..10 {
        world.write(&format!("site/d{}/{number}.txt", number % 3), &format!("content {number}"));
    }
    let first = world.run("sync site docs:v1").await;
    assert!(first.stderr.starts_with("10 files, 90 B uploaded in "), "{first:?}");
    world.fake.take_requests();
    let again = world.run("sync site/ docs:v1/ --delete").await;
    assert!(again.stderr.starts_with("0 files, 0 B uploaded in "), "{again:?}");
    assert!(again.stderr.ends_with("; 10 unchanged\n"), "{again:?}");
    assert!(world.fake.take_requests().iter().all(|asked| asked.starts_with("GET ")));

    world.write("site/d0/0.txt", "changed!!!");
    world.write("site/new.txt", "new");
    fs::remove_dir_all(world.at("site/d1")).expect("remove");
    let before = world.fake.paths("docs");
    let dry = world.run("sync site docs:v1 --delete --dry-run").await;
    assert_eq!(dry.stderr, "would upload 2 files, 13 B; 6 unchanged; 3 deleted\n");
    assert_eq!(
        dry.ok(),
        "upload  v1/d0/0.txt\nupload  v1/new.txt\ndelete  v1/d1/1.txt\ndelete  v1/d1/4.txt\ndelete  v1/d1/7.txt\n"
    );
    assert_eq!(world.fake.paths("docs"), before);

    let json = world.run("sync site docs:v1 --delete -o json -q").await.ok();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["deleted"], serde_json::json!(["v1/d1/1.txt", "v1/d1/4.txt", "v1/d1/7.txt"]));
    assert_eq!((json["unchanged"].as_u64(), json["uploaded_bytes"].as_u64()), (Some(6), Some(13)));
    assert_eq!(world.fake.paths("docs").len(), 8);
    world.run("sync site docs:v1 --jobs 1").await.ok();
    world.run("sync nowhere").await.fails(1, &["cannot read the folder nowhere"]);
    world.run("sync site unknown:").await.fails(1, &["there is no zone 'unknown'"]);
    world.run("sync site ../x").await.fails(2, &["'.' and '..'"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_reports_what_cannot_be_taken_and_goes_on() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new().await;
    world.write("site/good.txt", "good");
    world.write("site/back\\slash", "x");
    world.write("site/data/admin.token", "lit_secret");
    world.write("secret", "s");
    fs::write(world.at("site").join(std::ffi::OsStr::from_bytes(b"\xff")), "x").expect("write");
    for (target, name) in [("good.txt", "link"), ("../secret", "escape"), ("data/admin.token", "token")] {
        std::os::unix::fs::symlink(target, world.at("site").join(name)).expect("symlink");
    }
    world.write("old.txt", "old");
    world.run("put old.txt").await.ok();
    let ran = world.run("sync site --delete").await;
    ran.fails(1, &["back\\slash", "not UTF-8", "escape: is a symlink", "token: is a symlink", "4 failed", "4 things"]);
    assert!(ran.stderr.contains("warning: site/data is left out"), "{ran:?}");
    assert_eq!(world.fake.paths("files"), ["good.txt", "link"]);

    // A folder that was not looked into may hold files: nothing is said to be gone.
    std::os::unix::fs::symlink("/", world.at("site/root")).expect("symlink");
    world.run("put old.txt").await.ok();
    world.run("sync site --delete").await.fails(1, &["not every folder could be read"]);
    assert_eq!(world.fake.paths("files"), ["good.txt", "link", "old.txt"]);
    world.run("sync site/data").await.fails(1, &["never published"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_is_never_stored_wrongly() {
    let world = World::new().await;
    world.write("a.txt", "after");
    let zone: ZoneName = "files".parse().expect("zone");
    let token = api::TokenSecret::parse(TOKEN).expect("token");
    let connection = Connection::new(&world.fake.url, Some(&token));
    let item = |digest| Item {
        disk: world.at("a.txt"),
        name: "a.txt".to_owned(),
        size: 5,
        to: Upload::Path(zone.clone(), "a.txt".parse().expect("path")),
        digest,
    };
    let (meta, progress) = (UploadMeta::default(), Progress::hidden());
    let hashed_before = item(Some(Digest::of(b"before")));
    let changed = upload_file(&connection, &hashed_before, &meta, &progress).await.expect_err("changed");
    assert!(matches!(changed, UploadError::Changed), "{changed}");
    assert!(world.fake.paths("files").is_empty());
    let stored = upload_file(&connection, &item(Some(Digest::of(b"after"))), &meta, &progress).await.expect("same");
    assert_eq!(stored.digest, Digest::of(b"after"));
    let folder = Item { disk: world.home.path().to_owned(), ..item(None) };
    let refused = upload_file(&connection, &folder, &meta, &progress).await.expect_err("a folder");
    assert!(refused.to_string().contains("not a regular file"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_are_followed_verified_and_never_half() {
    let world = World::new().await;
    for name in ["ok", "damaged", "short", "plain", "private", "loop", "far"] {
        world.write(name, "0123456789");
        world.run(&format!("put {name} -q")).await.ok();
        fs::remove_file(world.at(name)).expect("remove");
    }
    let json: serde_json::Value = serde_json::from_str(&world.run("get ok -o json -q").await.ok()).expect("JSON");
    assert_eq!(json["url"], format!("{}/-/edge/ok", world.fake.url), "the redirect was followed");
    assert_eq!((&json["size"], &json["verified"]), (&10.into(), &true.into()));
    assert_eq!(json["digest"], Digest::of(b"0123456789").to_string());
    let url = &world.fake.url;
    assert_eq!(world.run(&format!("get {url}/ok -")).await.ok(), "0123456789");
    let unverified = world.run(&format!("get {url}/plain -")).await;
    assert!(unverified.stderr.contains("was not verified"), "{unverified:?}");
    assert!(!world.run("get plain -").await.stderr.contains("not verified"), "the API knows the digest");

    world.run("get damaged").await.fails(1, &["damaged", "digest"]);
    world.run("get short").await.fails(1, &["broke off after 1 bytes"]);
    world.run("get loop").await.fails(1, &["redirected more than 5 times"]);
    world.run(&format!("get {url}/far")).await.fails(1, &["far.invalid", "is the address right"]);
    assert_eq!(world.run("get far -").await.ok(), "0123456789", "an edge has it under its id");
    world.run(&format!("get {url}/nothing")).await.fails(1, &["there is no such file"]);
    world.run(&format!("get {url}/")).await.fails(2, &["gives no name"]);
    world.run("get https://localhost/x").await.fails(2, &["https"]);
    let names: Vec<_> =
        fs::read_dir(world.home.path()).expect("folder").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["ok"], "only what came whole is here");

    // The token is shown only where a reader without one is turned away.
    world.fake.take_requests();
    world.run("get ok -").await.ok();
    let asked = world.fake.take_requests();
    assert!(asked.iter().filter(|a| !a.contains("/v1/")).all(|a| !a.contains("+token")), "{asked:?}");
    assert_eq!(world.run("get private -").await.ok(), "0123456789");
    world.run(&format!("get {url}/private -")).await.fails(1, &["this zone is private", "by its path or id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_does_not_answer_is_named() {
    let world = World::new().await;
    world.write("a.txt", "a");
    world.run("put a.txt --wait").await.ok();
    let purged = world.run("purge a.txt --wait").await.ok();
    assert_eq!(purged, "EDGE    STATE    TIME\nlisbon  applied  1.5 ms\noslo    applied  1.5 ms\n");
    world.fake.state.lock().expect("lock").deaf_edge = true;
    for command in ["put a.txt --wait", "purge a.txt --wait", "mv a.txt b.txt --wait", "rm b.txt --wait"] {
        world.run(command).await.fails(1, &["not acknowledged by oslo", "littoral nodes"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_tokens_nodes_and_the_rest() {
    let world = World::new().await;
    world.write("a.txt", "a");
    world.run("put a.txt").await.ok();

    let made = world.run("zones add img --host img.example --index index.html --ttl 1h --private").await.ok();
    assert!(made.contains("ttl             3600 s") && made.contains("access          private"), "{made}");
    world.run("zones add img").await.fails(1, &["there is a zone 'img' already", "zones set img"]);
    world.run("zones set img --private false --index=").await.ok();
    let set = world.fake.state.lock().expect("lock").zones["img"].clone();
    assert_eq!((set.index, set.ttl_s, set.hosts), (None, 3_600, vec!["img.example".to_owned()]));
    world.run("zones add bad --host HTTP://X").await.fails(2, &["is not a hostname"]);
    assert!(world.run("zones").await.ok().contains("img.example"));
    assert_eq!(world.run("zones show img -o json").await.ok(), world.last_answer() + "\n");
    world.run("zones rm img").await.ok();
    world.run("zones rm img").await.fails(1, &["there is no zone 'img'"]);

    let token = world.run("tokens add deploy --scope write --scope purge --expires 30d").await;
    assert!(!token.stderr.contains("lit_new-secret"), "{token:?}");
    assert_eq!(token.ok(), "lit_new-secret\n", "nothing but the secret");
    let known = world.fake.state.lock().expect("lock").tokens[0].clone();
    assert_eq!((known.scopes, known.expires_in_s), (vec![Scope::Write, Scope::Purge], Some(2_592_000)));
    let listed = world.run("tokens").await.ok();
    assert!(listed.contains("write purge  2026-01-01 00:00:00Z  2026-01-31 00:00:00Z  deploy"), "{listed}");
    world.run("tokens rm token-1").await.ok();
    world.run("tokens rm token-2").await.fails(1, &["there is no token", "'littoral tokens'"]);
    world.run("tokens rm ../nodes/lisbon").await.fails(2, &["is not the id"]);

    assert!(world.run("nodes").await.ok().contains("38.72,-9.14"));
    world.run("nodes rm lisbon").await.ok();
    assert!(world.run("status").await.ok().contains("edges       1 (1 alive)"));
    assert_eq!(world.run("status -o json").await.ok(), world.last_answer() + "\n");
    let located = world.run("locate a.txt --lat 1 --lng -2").await.ok();
    assert!(located.contains("*  lisbon  1234 km") || located.contains("*  lisbon  1235 km"), "{located}");
    let asked = world.fake.take_requests().pop().expect("a request");
    assert!(asked.contains("lat=1&lng=-2"), "{asked}");
    world.run("locate a.txt --lat 91 --lng 0").await.fails(2, &["-90 to 90"]);

    let events = world.run("events").await.ok();
    assert_eq!(events, "1  2026-01-01 00:00:00Z  file_updated  files:a.txt version 1, 1 B\n");
    let json = world.run("events --after 0 -o json").await.ok();
    assert!(world.last_answer().contains(&format!("data: {json}")), "{json}");
    assert_eq!(world.run("version").await.ok(), format!("littoral {}\n", env!("CARGO_PKG_VERSION")));
    assert!(world.run("completions bash").await.ok().contains("littoral"));
    let purge = world.run("purge --tag t --all-of-zone docs --soft -o json").await.ok();
    assert_eq!(purge, world.last_answer() + "\n");
    let asked = world.fake.state.lock().expect("lock").purges[0].clone();
    assert!(asked.soft && !asked.wait && asked.tags.len() == 1 && asked.zones.len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_in_front_of_a_website() {
    let world = World::new().await;
    let made = world
        .run(
            "zone add shop --host shop.example --upstream https://10.0.0.5:8443/,weight=2 --upstream http://10.0.0.6 \
             --policy rfc --ttl path=/img/*,ttl=1d --ttl status=404,ttl=10s --bypass cookie=session* --query sorted",
        )
        .await
        .ok();
    for (name, value) in [
        ("upstream", "https://10.0.0.5:8443 weight 2"),
        ("policy", "rfc"),
        ("rule", "path=/img/*,ttl=86400s"),
        ("rule", "status=404,ttl=10s"),
        ("bypass", "cookie=session*"),
        ("query", "sorted"),
    ] {
        let line = made.lines().any(|line| line.starts_with(name) && line.ends_with(value));
        assert!(line, "{name} {value} is not in {made}");
    }
    assert!(!made.contains("index"), "{made}");
    let known = |name: &str| world.fake.state.lock().expect("lock").zones[name].clone();
    let before = known("shop");
    world.run("zone set shop --stale-if-error 0s --default-ttl 5m").await.ok();
    let pull = known("shop").pull.expect("a policy");
    assert_eq!((pull.stale_if_error_s, pull.default_ttl_s, pull.rules.len()), (0, Some(300), 2));
    assert_eq!((known("shop").stale_if_error_s, known("shop").ttl_s), (before.stale_if_error_s, before.ttl_s));
    assert!(world.run("zones").await.ok().contains("https://10.0.0.5:8443 +1"));

    let json = world.run("zone show shop -o json").await.ok();
    world.write("shop.json", &json);
    world.run("zone set shop --max-tags 1").await.ok();
    world.run("zone set shop --from-file shop.json --max-connections 9").await.ok();
    let pull = known("shop").pull.expect("a policy");
    assert_eq!((pull.max_tags, pull.max_connections), (128, 9), "the file, and flags over it");
    world.run("zone add other --from-file shop.json").await.fails(2, &["is about zone 'shop'", "'other'"]);
    world.write("wrong.toml", "name = \"x\"\n[pull]\nupstream = []");
    world.run("zone add x --from-file wrong.toml").await.fails(2, &["line 3", "did you mean `upstreams`?"]);

    world.run("zone set docs --ttl 2h --stale-if-error 3h").await.ok();
    assert_eq!((known("docs").ttl_s, known("docs").stale_if_error_s), (7_200, 10_800));
    world.run("zone set docs --policy rfc").await.fails(2, &["no server is named", "--upstream"]);
    world.run("zone set docs --ttl path=/a,ttl=1s").await.fails(2, &["rules need --upstream"]);
    world.run("zone set shop --ttl 1h").await.fails(2, &["--default-ttl"]);
    world.run("zone set shop --index index.html").await.fails(2, &["about zones of files"]);
    world.run("zone set shop --upstream http://x/path").await.fails(2, &["zone 'shop': pull.upstreams[0].url"]);
    world.run("zone set shop --alias www.shop.example=shop.example").await.fails(2, &["name it in hosts"]);
    world.run("zone set shop --upstream=").await.ok();
    assert_eq!(known("shop").pull, None);

    world.run("purge --host shop.example --zone shop").await.ok();
    let asked = world.fake.state.lock().expect("lock").purges[0].clone();
    assert_eq!((asked.hosts, asked.zone), (vec!["shop.example".to_owned()], Some("shop".parse().expect("zone"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_explains() {
    let world = World::new().await;
    let url = format!("{}/a?b=1", world.fake.url);
    let shown = world.run(&format!("explain {url} -X HEAD -H Cookie:a=1 --client-ip 203.0.113.9")).await.ok();
    assert_eq!(
        shown,
        format!(
            "zone     shop\n           url     {url}\n           method  HEAD\n           Cookie  a=1\n           \
             client  203.0.113.9\noutcome  miss (at edge oslo)\n"
        )
    );
    assert_eq!(world.run(&format!("explain {url} -o json")).await.ok(), world.last_answer() + "\n");
    let elsewhere = format!("explain https://shop.example/ --edge {} -o json", world.fake.url);
    assert!(world.run(&elsewhere).await.ok().contains("https://shop.example/"));
    let stranger = world.run_with(&format!("explain {url}"), &[], "").await;
    stranger.fails(1, &["cannot explain: explaining takes a token", "purge_networks", "--token-file"]);
    world.run("explain https://shop.example/").await.fails(2, &["--edge http://IP:PORT"]);
    world.run("explain http://127.0.0.1:1/").await.fails(1, &["cannot connect to 127.0.0.1:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn address_and_token_are_found_and_their_absence_is_explained() {
    let world = World::new().await;
    let nothing = world.run_with("ls", &[], "").await;
    nothing.fails(1, &["--api", "LITTORAL_API", "./littoral-data/run.json", "littoral up"]);

    let run = format!(r#"{{"api":"{0}","router":"{0}","admin":"{0}","pid":1}}"#, world.fake.url);
    world.write("littoral-data/run.json", &run);
    let places = ["--token-file", "LITTORAL_TOKEN", "LITTORAL_TOKEN_FILE", "./littoral-data/admin.token"];
    world.run_with("ls", &[], "").await.fails(1, &places);
    world.write("littoral-data/admin.token", &format!("{TOKEN}\n"));
    world.run_with("ls", &[], "").await.ok();
    let elsewhere = world.at("littoral-data");
    fs::rename(&elsewhere, world.at("moved")).expect("rename");
    world.run_with("ls --data-dir moved", &[], "").await.ok();
    world.run_with("ls", &[("LITTORAL_DATA_DIR", "moved")], "").await.ok();

    let wrong = world.run_with("ls --data-dir moved", &[("LITTORAL_TOKEN", "lit_wrong")], "").await;
    wrong.fails(1, &["a token is needed", "the token comes from LITTORAL_TOKEN"]);
    assert!(!wrong.stderr.contains("lit_wrong"), "{wrong:?}");
    let spaces = [("LITTORAL_TOKEN", "two words")];
    let bad = world.run_with("ls --data-dir moved", &spaces, "").await;
    bad.fails(1, &["LITTORAL_TOKEN: token"]);
    assert!(!bad.stderr.contains("two words"), "{bad:?}");
    world.run_with("ls --data-dir moved --token-file none", &[], "").await.fails(1, &["there is no file none"]);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let refused = world.run_with(&format!("ls --api http://{address}"), &[], "").await;
    refused.fails(1, &["cannot connect to", &address.to_string(), "comes from --api", "littoral up"]);
    world.run_with("ls --api localhost:1", &[], "").await.fails(2, &["write it like http://"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_ends_with_2() {
    let world = World::new().await;
    for (line, word) in [
        ("putt a", "'put'"),
        ("ls --zone Bad_Name", "use 1 to 63 of a-z"),
        ("ls Bad_Name:x", "use 1 to 63 of a-z"),
        ("tokens add x --scope read --expires tomorrow", "like 45s, 30m"),
        ("purge", "nothing to purge"),
        ("put -", "standard input has no name"),
        ("rm a/../b", "'.' and '..'"),
        ("get a//b", "empty segment"),
        ("ls -o yaml", "table, json"),
    ] {
        world.run(line).await.fails(2, &[word]);
    }
    assert!(world.fake.take_requests().is_empty(), "nothing was tried");
    let help = world.run("put --help").await.ok();
    assert!(help.contains("littoral put photo.jpg"), "{help}");
    let colored = world.run("ls nope: --color always").await;
    colored.fails(1, &["\u{1b}[31;1merror:\u{1b}[0m"]);
    assert!(!world.run("ls nope:").await.stderr.contains('\u{1b}'));
    let closed = Path::new("/dev/full");
    if closed.exists() {
        let full = Command::new(env!("CARGO_BIN_EXE_littoral"))
            .arg("version")
            .stdout(fs::OpenOptions::new().write(true).open(closed).expect("open"))
            .output()
            .expect("run");
        assert_eq!(full.status.code(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_replayed() {
    let world = World::new().await;
    // Three objects in turn, in a cache for two of them: LRU never finds one.
    world.write("loop.trace", &(0..30).map(|n| format!("{n} {} 1000\n", n % 3)).collect::<String>());
    let shown = world.run("cache simulate loop.trace --sizes 2000,100% --policies lru").await;
    assert_eq!(shown.stderr, "30 requests for 2.9 KiB of objects\n");
    assert_eq!(
        shown.ok(),
        "POLICY  SIZE     BYTES  REQUESTS MISSED  BYTES MISSED\n\
         lru     2.0 KiB  2000   1.0000           1.0000\n\
         lru     2.9 KiB  3000   0.1000           0.1000\n"
    );
    let json = world.run("cache simulate loop.trace --sizes 3000 --policies lru,sieve --overhead 1 -o json -q").await;
    assert_eq!(json.stderr, "");
    let rows: serde_json::Value = serde_json::from_str(&json.ok()).expect("JSON");
    assert_eq!(
        rows[0],
        serde_json::json!({"policy": "lru", "size": 3000, "request_miss_ratio": 1.0, "byte_miss_ratio": 1.0})
    );
    assert_eq!((rows.as_array().map(Vec::len), &rows[1]["policy"]), (Some(2), &serde_json::json!("sieve")));
    let all = world.run("cache simulate loop.trace --sizes 2000 -o json -q").await.ok();
    assert_eq!(all.matches("\"policy\"").count(), 6);

    world.write("bad.trace", "0 1 2\n1 2\n");
    world.run("cache simulate bad.trace --sizes 1").await.fails(1, &["bad.trace, line 2: it has 2 words, not 3"]);
    world.run("cache simulate none.trace --sizes 1").await.fails(1, &["cannot read", "none.trace"]);
}

//! `cargo xtask conformance`: the public test suite for HTTP caches, http-cache-tests, against a real `littoral edge` in front of
//! the suite's own origin. What is expected stands in `conformance/expected.toml`.
//!
//! The origin of the suite listens on every interface, so everything runs in a network namespace that has only loopback (and in
//! a process namespace, so that nothing outlives it). `conformance/drive.mjs` is what runs in there.

mod score;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use self::score::{Kind, Test, Verdict, counts, verdicts};
use crate::shell::{Failed, alone, install, release_binary, root, run as run_program, target};

/// The npm package, and the digest of its archive.
const PACKAGE: &str = "http-cache-tests@0.4.5";
const PACKAGE_INTEGRITY: &str =
    "sha512-DjuwN9nUZXLTW+wav1LRESCZNVxl8SshwOy4z1pxuWbWt5/ay6sM9QQ1lebBaDO6P1IMBoK6mdf+PuVP/QNL8A==";
const EXPECTED: &str = include_str!("../conformance/expected.toml");
/// Ports in the namespace, where nobody else has any.
const ORIGIN_PORT: u16 = 8_000;
const CACHE_PORT: u16 = 8_001;
/// Tests that run at once. They mostly wait.
const AT_ONCE: usize = 100;
/// Longest time for all tests, in milliseconds.
const LIMIT_MS: u64 = 300_000;

#[derive(Args)]
pub(crate) struct Options {
    /// A checkout of the suite; without it, the npm package is installed
    #[arg(long, value_name = "CHECKOUT")]
    suite: Option<PathBuf>,
    /// What is tested
    #[arg(long, value_enum, default_value_t = Target::Littoral)]
    target: Target,
    /// The policy of the edge; only `rfc` is compared with what is expected
    #[arg(long, value_enum, default_value_t = Policy::Rfc)]
    policy: Policy,
    /// Write the score and each test to a file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run only these tests, whatever they depend on, and print every request and response
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// The release binary, which is built
    Littoral,
    /// Debian's nginx, to see that the command counts as others do
    Nginx,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    Rfc,
    Safe,
}

impl Default for Options {
    /// What `cargo xtask test` runs.
    fn default() -> Self {
        Self { suite: None, target: Target::Littoral, policy: Policy::Rfc, json: None, only: Vec::new() }
    }
}

/// A cut of the suite: its place, and how it is driven.
struct Suite {
    folder: PathBuf,
    /// The folder of the engine in it, with a slash at its end.
    engine: &'static str,
    /// What the engine fetches with.
    fetch: &'static str,
    /// Its name in `expected.toml`.
    cut: &'static str,
}

/// What `expected.toml` says of one cut.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    required: usize,
    optimal: usize,
    /// Tests that are not passed, with the reason.
    missing: BTreeMap<String, String>,
}

pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    install(&["iproute2"])?;
    let folder = target("conformance")?;
    let suite = prepare(options.suite.as_deref(), &folder)?;
    let cache = cache_command(options, &folder)?;
    let mut tests = run_tests(&suite, &cache, &options.only, &folder)?;
    if !options.only.is_empty() {
        tests.retain(|test| options.only.contains(&test.id));
        if tests.len() < options.only.len() {
            return Err(Failed(format!("only {} of these tests are in the suite", tests.len())));
        }
        tests.iter_mut().for_each(|test| test.depends_on.clear());
    }
    let verdicts = verdicts(&tests);
    print(&verdicts);
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", json!({"score": counts(&verdicts), "tests": verdicts})))?;
    }
    if options.target != Target::Littoral || options.policy != Policy::Rfc || !options.only.is_empty() {
        return Ok(());
    }
    let mut expected: BTreeMap<String, Expected> = toml::from_str(EXPECTED)?;
    let expected = expected.remove(suite.cut).ok_or_else(|| Failed(format!("nothing is expected of {}", suite.cut)))?;
    compare(&verdicts, &expected)
}

/// Copies the suite below `target/`, beside the packages that its engine imports, so that a checkout stays as it is.
fn prepare(checkout: Option<&Path>, folder: &Path) -> Result<Suite, Failed> {
    let own = root().join("xtask/conformance");
    for file in ["package.json", "package-lock.json", "drive.mjs"] {
        std::fs::copy(own.join(file), folder.join(file))?;
    }
    let prefix = folder.display().to_string();
    run_program("npm", &["ci", "--prefix", &prefix, "--silent", "--no-audit", "--no-fund", "--ignore-scripts"])?;
    let into = folder.join("suite");
    if into.exists() {
        std::fs::remove_dir_all(&into)?;
    }
    std::fs::create_dir(&into)?;
    let to = into.display().to_string();
    let Some(checkout) = checkout else {
        run_program("tar", &["-xzf", &download(folder)?, "--strip-components=1", "-C", &to])?;
        return Ok(Suite { folder: into, engine: "", fetch: "node-fetch", cut: "npm" });
    };
    for part in ["test-engine", "tests"] {
        let from = checkout.join(part);
        if !from.is_dir() {
            return Err(Failed(format!(
                "{} has no folder {part}: it is no checkout of cache-tests",
                checkout.display()
            )));
        }
        run_program("cp", &["-r", &from.display().to_string(), &to])?;
    }
    Ok(Suite { folder: into, engine: "test-engine/", fetch: "built in", cut: "newest" })
}

/// Downloads the package, proves its archive and answers where that is. Its own dependencies are left out: they are npm
/// itself, and what draws the results page.
fn download(folder: &Path) -> Result<String, Failed> {
    let output = Command::new("npm").args(["pack", PACKAGE, "--json", "--pack-destination"]).arg(folder).output()?;
    if !output.status.success() {
        return Err(Failed(format!("npm pack {PACKAGE}: {}", String::from_utf8_lossy(&output.stderr))));
    }
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let text = |name: &str| said.pointer(&format!("/0/{name}")).and_then(Value::as_str).unwrap_or_default();
    if text("integrity") != PACKAGE_INTEGRITY {
        return Err(Failed(format!("{PACKAGE} has the digest {}, not {PACKAGE_INTEGRITY}", text("integrity"))));
    }
    Ok(folder.join(text("filename")).display().to_string())
}

/// How the cache is started that listens on [`CACHE_PORT`] and asks [`ORIGIN_PORT`].
fn cache_command(options: &Options, folder: &Path) -> Result<Vec<String>, Failed> {
    if options.target == Target::Nginx {
        install(&["nginx-light"])?;
        return nginx(folder);
    }
    let policy = if options.policy == Policy::Rfc { "rfc" } else { "safe" };
    let (origin, own) = (format!("http://127.0.0.1:{ORIGIN_PORT}"), format!("127.0.0.1:{CACHE_PORT}"));
    let binary = release_binary()?.display().to_string();
    let arguments = ["edge", "--upstream", &origin, "--listen", &own, "--policy", policy];
    Ok(std::iter::once(binary).chain(arguments.map(str::to_owned)).collect())
}

/// nginx, configured as in the suite's own image.
fn nginx(folder: &Path) -> Result<Vec<String>, Failed> {
    let home = folder.join("nginx");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir(&home)?;
    let (file, home) = (home.join("nginx.conf"), home.display().to_string());
    let config = format!(
        "daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;\n\
         events {{ worker_connections 2048; }}\n\
         http {{\n\
         access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;\n\
         fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;\n\
         proxy_cache_path {home}/cache levels=1:2 keys_zone=my-cache:8m max_size=1000m inactive=600m;\n\
         server {{ listen 127.0.0.1:{CACHE_PORT}; location / {{\n\
         proxy_pass http://127.0.0.1:{ORIGIN_PORT}; proxy_cache my-cache; proxy_cache_revalidate on;\n\
         proxy_http_version 1.1;\n\
         }} }} }}\n"
    );
    std::fs::write(&file, config)?;
    Ok(vec!["/usr/sbin/nginx".to_owned(), "-c".to_owned(), file.display().to_string()])
}

/// Runs the suite's tests in namespaces of their own, and answers all that apply to a shared cache.
fn run_tests(suite: &Suite, cache: &[String], only: &[String], folder: &Path) -> Result<Vec<Test>, Failed> {
    let result = folder.join("result.json");
    let server = suite.folder.join(format!("{}server/server.mjs", suite.engine));
    let settings = json!({
        "suite": suite.folder, "engine": suite.engine, "fetch": suite.fetch, "only": only, "result": result,
        "at_once": AT_ONCE, "limit_ms": LIMIT_MS, "origin_port": ORIGIN_PORT, "cache_port": CACHE_PORT,
        "origin": {
            "command": ["node", server],
            "env": {
                "npm_config_protocol": "http", "npm_config_port": ORIGIN_PORT.to_string(),
                "npm_config_pidfile": folder.join("origin.pid"),
            },
            "log": folder.join("origin.log"),
        },
        "cache": {"command": cache, "env": {}, "log": folder.join("cache.log")},
    });
    let drive = folder.join("drive.mjs");
    let status = alone(&drive, ("CONFORMANCE", settings.to_string()))?;
    if !status.success() {
        return Err(Failed(format!("the suite ended with {status}; its logs are in {}", folder.display())));
    }
    Ok(serde_json::from_slice(&std::fs::read(&result)?)?)
}

/// Prints each test that has not passed below the title of its part of the suite, then the score.
fn print(verdicts: &[Verdict]) {
    let mut title = "";
    for verdict in verdicts {
        let Some(reason) = &verdict.failure else { continue };
        if verdict.suite != title {
            title = &verdict.suite;
            println!("\n{title}");
        }
        println!("  {} {}: {}\n      {reason}", word(verdict.kind), verdict.id, verdict.name);
    }
    println!();
    for (kind, count) in counts(verdicts) {
        println!("{}: {} of {}", word(kind), count.passed, count.of);
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Required => "required",
        Kind::Optimal => "optimal",
        Kind::Check => "check",
    }
}

/// An error unless exactly the tests are missing that are expected to be. What a `check` says is nobody's fault.
fn compare(verdicts: &[Verdict], expected: &Expected) -> Result<(), Failed> {
    let counts = counts(verdicts);
    let of = |kind| counts.get(&kind).map_or(0, |count| count.of);
    if (of(Kind::Required), of(Kind::Optimal)) != (expected.required, expected.optimal) {
        return Err(Failed(format!(
            "the suite has {} required and {} optimal tests; expected.toml is about {} and {}",
            of(Kind::Required),
            of(Kind::Optimal),
            expected.required,
            expected.optimal
        )));
    }
    let failed = verdicts.iter().filter(|verdict| verdict.kind != Kind::Check && verdict.failure.is_some());
    let failed: BTreeSet<&str> = failed.map(|verdict| verdict.id.as_str()).collect();
    let allowed: BTreeSet<&str> = expected.missing.keys().map(String::as_str).collect();
    let list = |from: &BTreeSet<&str>, without| from.difference(without).copied().collect::<Vec<_>>().join(", ");
    let (worse, better) = (list(&failed, &allowed), list(&allowed, &failed));
    match (worse.is_empty(), better.is_empty()) {
        (true, true) => Ok(()),
        (false, _) => Err(Failed(format!("not passed, though expected.toml does not list them: {worse}"))),
        (true, false) => Err(Failed(format!("passed, though expected.toml lists them as missing: {better}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(id: &str, kind: Kind, passed: bool) -> Verdict {
        let failure = (!passed).then(|| "no".to_owned());
        Verdict { id: id.to_owned(), name: String::new(), suite: String::new(), kind, failure }
    }

    #[test]
    fn exactly_the_expected_tests_may_be_missing() {
        let missing = BTreeMap::from([("a".to_owned(), "because".to_owned())]);
        let expected = Expected { required: 2, optimal: 1, missing };
        for (a, b, c, error) in [
            (false, true, true, None),
            (false, false, true, Some("not passed, though expected.toml does not list them: b")),
            (false, true, false, Some("not passed, though expected.toml does not list them: c")),
            (true, true, true, Some("passed, though expected.toml lists them as missing: a")),
        ] {
            let verdicts = [
                verdict("a", Kind::Required, a),
                verdict("b", Kind::Required, b),
                verdict("c", Kind::Optimal, c),
                verdict("d", Kind::Check, false),
            ];
            assert_eq!(compare(&verdicts, &expected).err().map(|Failed(why)| why).as_deref(), error);
        }
        let fewer = [verdict("a", Kind::Required, false)];
        let Err(Failed(why)) = compare(&fewer, &expected) else { panic!("another suite is not the one that is known") };
        assert_eq!(why, "the suite has 1 required and 0 optimal tests; expected.toml is about 2 and 1");
    }

    #[test]
    fn the_expectations_are_the_published_scores() {
        let expected: BTreeMap<String, Expected> = toml::from_str(EXPECTED).unwrap();
        assert_eq!(expected["newest"].missing.keys().collect::<Vec<_>>(), ["conditional-lm-fresh-no-lm"]);
        // 19 required tests, and the same optimal one.
        assert_eq!(expected["npm"].missing.len(), 20);
        assert!(expected.values().flat_map(|cut| cut.missing.values()).all(|reason| !reason.is_empty()));
    }
}

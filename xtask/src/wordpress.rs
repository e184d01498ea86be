//! `cargo xtask wordpress`: WordPress, as Debian packages it, behind `littoral edge --upstream`, browsed in headless Chromium by
//! somebody who is logged in and by others who are not, one after the other and at the same time.
//!
//! Debian's packages are unpacked below `target/` and not installed: a database and a web server that start by themselves are
//! not what somebody wants who runs a check. Everything runs in a network namespace that has only loopback, and in a process
//! namespace, so that nothing outlives it. `wordpress/drive.mjs` is what runs in there.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::browse::browser;
use crate::shell::{Failed, alone, install, output_of, release_binary, root, run as run_program, target};

/// What is unpacked, beside what of its dependencies is not installed.
const PACKAGES: [&str; 8] = [
    "mariadb-client-core",
    "mariadb-server-core",
    "php8.2-cli",
    "php8.2-common",
    "php8.2-mysql",
    "libjs-cropper",
    "libjs-underscore",
    "php-getid3",
];
/// WordPress itself, whose dependencies would bring a web server.
const SITE: [&str; 2] = ["wordpress", "wordpress-theme-twentytwentythree"];
/// Ports in the namespace, where nobody else has any.
const ORIGIN_PORT: u16 = 8_000;
const EDGE_PORT: u16 = 8_001;
/// How the edge is told to deal with WordPress: its pages do not say how long they are fresh.
const POLICY: [&str; 2] = ["--default-ttl", "60s"];
/// Longest time for everything, in milliseconds.
const LIMIT_MS: u64 = 300_000;

pub(crate) fn run() -> Result<(), Failed> {
    install(&["iproute2"])?;
    let folder = target("wordpress")?;
    let debian = unpacked(&folder)?;
    let (tools, binary) = (browser()?, release_binary()?);
    let state = tempfile::tempdir()?;
    let result = state.path().join("result.json");
    let settings = json!({
        "debian": debian, "state": state.path(), "result": result, "limit_ms": LIMIT_MS,
        "origin_port": ORIGIN_PORT, "edge_port": EDGE_PORT, "binary": binary, "policy": POLICY,
        "chromium": "/usr/bin/chromium",
        "playwright": tools.join("node_modules/playwright-core/package.json"),
        "shots": folder,
    });
    let drive = root().join("xtask/wordpress/drive.mjs");
    let status = alone(&drive, ("WORDPRESS", settings.to_string()))?;
    let Ok(text) = std::fs::read(&result) else {
        return Err(Failed(format!("there is no result: the drive ended with {status}")));
    };
    report(&serde_json::from_slice(&text)?)
}

/// Downloads the packages and unpacks them below `folder`, unless they are there. Answers where that is.
fn unpacked(folder: &Path) -> Result<PathBuf, Failed> {
    let into = folder.join("debian");
    if into.exists() {
        return Ok(into);
    }
    let (archives, half) = (folder.join("archives"), folder.join("half"));
    for folder in [&archives, &half] {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir(folder)?;
    }
    let plan = || {
        let simulate = ["-s", "--no-install-recommends", "install"];
        output_of(Command::new("apt-get").args(simulate).args(PACKAGES))
    };
    // Where that fails, the lists of packages are missing.
    let plan = plan().or_else(|_| run_program("apt-get", &["-q", "update"]).and_then(|()| plan()))?;
    let missing = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    let mut names: Vec<&str> = missing.chain(PACKAGES).chain(SITE).collect();
    names.sort_unstable();
    names.dedup();
    println!("unpacking {}", names.join(", "));
    output_of(Command::new("apt-get").args(["-q", "download"]).args(&names).current_dir(&archives))?;
    for archive in std::fs::read_dir(&archives)? {
        output_of(Command::new("dpkg").arg("-x").arg(archive?.path()).arg(&half))?;
    }
    std::fs::remove_dir_all(&archives)?;
    std::fs::rename(&half, &into)?;
    Ok(into)
}

/// Prints what was read by whom, and what was wrong.
fn report(result: &Value) -> Result<(), Failed> {
    let list = |name: &str| result.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let number = |row: &Value, name: &str| row.get(name).and_then(Value::as_u64).unwrap_or(0);
    for step in list("steps") {
        println!("  {}", step.as_str().unwrap_or_default());
    }
    println!("\n{:<16}{:>8}{:>9}{:>8}{:>12}", "reader", "pages", "answers", "hits", "as origin's");
    for row in list("readers") {
        let name = row.get("name").and_then(Value::as_str).unwrap_or_default();
        println!(
            "{name:<16}{:>8}{:>9}{:>8}{:>12}",
            number(&row, "pages"),
            number(&row, "answers"),
            number(&row, "hits"),
            number(&row, "compared")
        );
    }
    let wrong = list("wrong");
    println!("wrong: {}", wrong.len());
    for why in &wrong {
        println!("  {}", why.as_str().unwrap_or_default());
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failed(format!("{} wrong answers", wrong.len()))) }
}

//! `cargo xtask browse`: a real site of over 1,000 files (the HTML of Debian's python3-doc) is published with `up` and read
//! through each edge in headless Chromium; then an update, a deletion, a purge, and kill -9.

use std::path::{Path, PathBuf};
use std::process::Command;

use api::{FilePath, PurgeRequest, ReceiptState, ZoneName};
use client::{Upload, UploadMeta};
use http::Request;
use net::{Body, ClientLimits, HttpClient};
use serde_json::{Value, json};

use crate::shell::{Failed, install, release_binary, root, run as run_program, target};
use crate::up::Up;

const SITE: &str = "/usr/share/doc/python3.11/html";
/// Fewest files that the site must have for the check to mean anything.
const MIN_FILES: usize = 1_000;
const PLAYWRIGHT: &str = "playwright-core@1.64.1";
/// Longest body that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 << 20;

fn check(what: &str, holds: bool) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed(what.to_owned())) }
}

pub(crate) fn run(pages: usize) -> Result<(), Failed> {
    install(&["chromium", "python3-doc", "libjs-jquery", "libjs-underscore"])?;
    let tools = target("browser")?;
    let prefix = tools.display().to_string();
    if !tools.join("node_modules/playwright-core").exists() {
        run_program("npm", &["install", "--prefix", &prefix, "--no-save", "--no-audit", "--no-fund", PLAYWRIGHT])?;
    }
    let binary = release_binary()?;
    let folder = tempfile::tempdir()?;
    let site = folder.path().join("site");
    // Some of its files are links to other packages.
    run_program("cp", &["-rL", SITE, &site.display().to_string()])?;
    let (files, html) = files_in(&site)?;
    check(&format!("{SITE} has {files} files; at least {MIN_FILES} are needed"), files >= MIN_FILES)?;
    let count = if pages == 0 { html.len() } else { pages.min(html.len()) };
    // Evenly spread over the site, always the same ones.
    let chosen: Vec<&String> = (0..count).filter_map(|at| html.get(at * html.len() / count)).collect();

    let data = folder.path().join("data");
    let sample = Up::start(&binary, &folder.path().join("sample"), &[])?;
    // The whole site fits into each edge's memory, so that every second read is a hit.
    let up = Up::start(&binary, &data, &[&site.display().to_string(), "--memory", "256MiB"])?;
    println!("published {files} files; ready after {:.1} s", up.took.as_secs_f64());
    let shot = json!({"url": sample.edges().first(), "file": tools.join("sample.png")});
    let settings = json!({
        "chromium": "/usr/bin/chromium",
        "playwright": tools.join("node_modules/playwright-core/package.json"),
        "edges": up.edges(), "pages": chosen, "shot": shot,
    });
    let script = root().join("xtask/browser/browse.mjs");
    let output = Command::new("node").arg(script).env("BROWSE", settings.to_string()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let result: Value = serde_json::from_str(&text).map_err(|error| {
        Failed(format!("the browser said {text:?} ({error}): {}", String::from_utf8_lossy(&output.stderr)))
    })?;
    let wrong = result.get("wrong").and_then(Value::as_array).map_or(usize::MAX, Vec::len);
    check(&format!("{wrong} wrong answers: {:.2000}", result.to_string()), wrong == 0)?;
    println!("browser: {result}");

    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(changes(&up))?;
    let known = runtime.block_on(async { up.client()?.status().await.map_err(Failed::from) })?;
    drop(up);
    let up = Up::start(&binary, &data, &[])?;
    let found = runtime.block_on(async { up.client()?.status().await.map_err(Failed::from) })?;
    let same = (found.files, found.bytes, found.event >= known.event) == (known.files, known.bytes, true);
    check(&format!("after kill -9: {} files, {} before", found.files, known.files), same)?;
    runtime.block_on(async {
        for edge in up.edges() {
            for page in &chosen {
                let (status, _) = get(&format!("{edge}/{page}")).await?;
                check(
                    &format!("after kill -9: {edge}/{page} is {status}"),
                    status == 200 || page.as_str() == "about.html",
                )?;
            }
        }
        Ok::<(), Failed>(())
    })?;
    println!("an update, a deletion and a purge were seen at every edge; kill -9 and start again lost nothing");
    Ok(())
}

/// An update, a deletion and a purge, each seen at every edge.
async fn changes(up: &Up) -> Result<(), Failed> {
    let (client, zone) = (up.client()?, "files".parse::<ZoneName>()?);
    let (index, about): (FilePath, FilePath) = ("index.html".parse()?, "about.html".parse()?);
    let meta = UploadMeta { wait: true, ..UploadMeta::default() };
    let target = Upload::Path(zone.clone(), index.clone());
    client.upload(&target, &meta, Body::full("<!doctype html><title>new</title>")).await?;
    client.delete_file(&zone, &about, None, true).await?;
    for edge in up.edges() {
        let (_, body) = get(&format!("{edge}/index.html")).await?;
        check(&format!("{edge} serves the old index.html"), body.contains("<title>new</title>"))?;
        let (status, _) = get(&format!("{edge}/about.html")).await?;
        check(&format!("{edge} still serves about.html"), status == 404)?;
        check(&format!("{edge}: not a hit before the purge"), x_cache(&format!("{edge}/index.html")).await? == "HIT")?;
    }
    let purge = PurgeRequest { zones: vec![zone], wait: true, ..PurgeRequest::default() };
    let answer = client.purge(&purge).await?;
    check("an edge did not acknowledge", answer.receipts.iter().all(|receipt| receipt.state == ReceiptState::Applied))?;
    for edge in up.edges() {
        check(&format!("{edge}: a hit after the purge"), x_cache(&format!("{edge}/index.html")).await? == "MISS")?;
    }
    Ok(())
}

async fn ask(url: &str) -> Result<http::Response<Body>, Failed> {
    let request = Request::get(url).body(Body::empty())?;
    Ok(HttpClient::new(ClientLimits::default()).send(request).await?)
}

async fn get(url: &str) -> Result<(u16, String), Failed> {
    let response = ask(url).await?;
    let status = response.status().as_u16();
    let body = net::read_to_end(response.into_body(), MAX_BODY_BYTES).await?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

async fn x_cache(url: &str) -> Result<String, Failed> {
    let response = ask(url).await?;
    Ok(response.headers().get("x-cache").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned())
}

/// How many files there are below `site`, and the paths of its HTML pages in order.
fn files_in(site: &Path) -> Result<(usize, Vec<String>), Failed> {
    let (mut files, mut html) = (0, Vec::new());
    let mut folders: Vec<PathBuf> = vec![site.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let relative = path.strip_prefix(site)?.to_string_lossy().into_owned();
            if relative.ends_with(".html") {
                html.push(relative);
            }
        }
    }
    html.sort();
    Ok((files, html))
}

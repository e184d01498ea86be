//! `cargo xtask browse`: a real site of over 1,000 files (the HTML of Debian's python3-doc) is published with `up` and read
//! through each edge in headless Chromium, over HTTP/1.1 and over HTTP/2; then an update, a deletion, a purge, and kill -9.

use std::path::{Path, PathBuf};
use std::process::Command;

use api::{FilePath, PurgeRequest, Receipt, ReceiptState, ZoneName};
use bytes::Bytes;
use client::{Upload, UploadMeta};
use http::Request;
use net::{Body, ClientLimits, HttpClient};
use serde_json::{Value, json};

use crate::shell::{Failed, install, release_binary, root, run as run_program, target};
use crate::up::Up;

const SITE: &str = "/usr/share/doc/python3.11/html";
/// Fewest files that the site must have for the check to mean anything.
const MIN_FILES: usize = 1_000;
/// The page that is given new content, and what that is.
const UPDATED: &str = "index.html";
const NEW_INDEX: &str = "<!doctype html><title>new</title>";
/// The page that is deleted.
const DELETED: &str = "about.html";
const PLAYWRIGHT: &str = "playwright-core@1.64.1";
/// Longest body that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 << 20;

fn check(what: &str, holds: bool) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed(what.to_owned())) }
}

/// Installs Chromium and what drives it, and answers the folder below which `node_modules` has that.
pub(crate) fn browser() -> Result<PathBuf, Failed> {
    install(&["chromium"])?;
    let tools = target("browser")?;
    let prefix = tools.display().to_string();
    if !tools.join("node_modules/playwright-core").exists() {
        run_program("npm", &["install", "--prefix", &prefix, "--no-save", "--no-audit", "--no-fund", PLAYWRIGHT])?;
    }
    Ok(tools)
}

pub(crate) fn run(pages: usize) -> Result<(), Failed> {
    install(&["python3-doc", "libjs-jquery", "libjs-underscore"])?;
    let tools = browser()?;
    let binary = release_binary()?;
    let folder = tempfile::tempdir()?;
    let site = folder.path().join("site");
    // Some of its files are links to other packages.
    run_program("cp", &["-rL", SITE, &site.display().to_string()])?;
    let files = files_in(&site)?;
    let html: Vec<&String> = files.iter().filter(|path| path.ends_with(".html")).collect();
    check(&format!("{SITE} has {} files; at least {MIN_FILES} are needed", files.len()), files.len() >= MIN_FILES)?;
    let count = if pages == 0 { html.len() } else { pages.min(html.len()) };
    // Evenly spread over the site, always the same ones.
    let mut chosen: Vec<&String> = (0..count).filter_map(|at| html.get(at * html.len() / count)).copied().collect();
    // What is changed later has to be in every edge's cache before.
    for path in &files {
        if [UPDATED, DELETED].contains(&path.as_str()) && !chosen.contains(&path) {
            chosen.push(path);
        }
    }

    let data = folder.path().join("data");
    let sample = Up::start(&binary, &folder.path().join("sample"), &[])?;
    // The whole site fits into each edge's memory, so that every second read is a hit.
    let up = Up::start(&binary, &data, &[&site.display().to_string(), "--memory", "256MiB"])?;
    println!("published {} files; ready after {:.1} s", files.len(), up.took.as_secs_f64());
    let shot = json!({"url": sample.edges().first(), "file": tools.join("sample.png")});
    let settings = json!({
        "chromium": "/usr/bin/chromium",
        "playwright": tools.join("node_modules/playwright-core/package.json"),
        "edges": up.ready.get("edges"), "pages": chosen, "shot": shot,
    });
    let script = root().join("xtask/browser/browse.mjs");
    let output = Command::new("node").arg(script).env("BROWSE", settings.to_string()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let result: Value = serde_json::from_str(&text).map_err(|error| {
        Failed(format!("the browser said {text:?} ({error}): {}", String::from_utf8_lossy(&output.stderr)))
    })?;
    let wrong = result.get("wrong").and_then(Value::as_array).map_or(usize::MAX, Vec::len);
    check(&format!("{wrong} wrong answers: {:.2000}", result.to_string()), wrong == 0)?;
    let seen = |name: &str| result.get(name).and_then(Value::as_u64).unwrap_or(0);
    let expected = (3 * up.edges().len() * chosen.len()) as u64;
    check(&format!("{} pages were opened, not {expected}", seen("pages")), seen("pages") == expected)?;
    check(&format!("{} answers for {expected} pages", seen("answers")), seen("answers") > expected)?;
    for protocol in ["http/1.1", "h2"] {
        let count = result.get("protocols").and_then(|counts| counts.get(protocol)).and_then(Value::as_u64);
        check(&format!("{count:?} answers over {protocol}"), count.unwrap_or(0) >= expected / 3)?;
    }
    println!("browser: {result}");

    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(changes(&up))?;
    let known = runtime.block_on(async { up.client()?.status().await.map_err(Failed::from) })?;
    drop(up);
    let up = Up::start(&binary, &data, &[])?;
    let found = runtime.block_on(async { up.client()?.status().await.map_err(Failed::from) })?;
    let same = (found.files, found.bytes, found.event >= known.event) == (known.files, known.bytes, true);
    check(&format!("after kill -9: {} files, {} before", found.files, known.files), same)?;
    runtime.block_on(whole(&up, &site, &files))?;
    println!("an update, a deletion and a purge were seen at every edge; kill -9 and start again lost nothing");
    Ok(())
}

/// Whether every edge serves every file of `site` as it is there, but for the one that was updated and the one that was deleted.
async fn whole(up: &Up, site: &Path, files: &[String]) -> Result<(), Failed> {
    let http = HttpClient::new(ClientLimits::default());
    for edge in up.edges() {
        for file in files {
            let (status, body) = get(&http, &edge, file).await?;
            let right = match file.as_str() {
                DELETED => status == 404,
                UPDATED => status == 200 && body == NEW_INDEX,
                _ => status == 200 && body == std::fs::read(site.join(file))?,
            };
            check(&format!("after kill -9: {edge}/{file} is {status} with {} bytes", body.len()), right)?;
        }
    }
    Ok(())
}

/// An update, a deletion and a purge, each seen at every edge.
async fn changes(up: &Up) -> Result<(), Failed> {
    let (client, zone) = (up.client()?, "files".parse::<ZoneName>()?);
    let http = HttpClient::new(ClientLimits::default());
    for edge in up.edges() {
        for file in [UPDATED, DELETED] {
            check(&format!("{edge}/{file}: a hit before it changes"), x_cache(&http, &edge, file).await? == "HIT")?;
        }
    }
    let meta = UploadMeta { wait: true, ..UploadMeta::default() };
    let target = Upload::Path(zone.clone(), UPDATED.parse()?);
    let (_, doc) = client.upload(&target, &meta, Body::full(NEW_INDEX)).await?;
    all_applied("the update", up, &doc.receipts)?;
    let answer = client.delete_file(&zone, &DELETED.parse::<FilePath>()?, None, true).await?;
    all_applied("the deletion", up, &answer.receipts)?;
    for edge in up.edges() {
        let (_, body) = get(&http, &edge, UPDATED).await?;
        check(&format!("{edge} serves the new {UPDATED}"), body == NEW_INDEX)?;
        let (status, _) = get(&http, &edge, DELETED).await?;
        check(&format!("{edge} no longer serves {DELETED}, but {status}"), status == 404)?;
        check(&format!("{edge}/{UPDATED}: a hit before the purge"), x_cache(&http, &edge, UPDATED).await? == "HIT")?;
    }
    let purge = PurgeRequest { zones: vec![zone], wait: true, ..PurgeRequest::default() };
    all_applied("the purge", up, &client.purge(&purge).await?.receipts)?;
    for edge in up.edges() {
        check(&format!("{edge}/{UPDATED}: a miss after the purge"), x_cache(&http, &edge, UPDATED).await? == "MISS")?;
    }
    Ok(())
}

fn all_applied(what: &str, up: &Up, receipts: &[Receipt]) -> Result<(), Failed> {
    let applied = receipts.iter().filter(|receipt| receipt.state == ReceiptState::Applied).count();
    check(&format!("{what} was acknowledged by every edge, not by {applied}"), applied == up.edges().len())
}

async fn ask(http: &HttpClient, edge: &str, path: &str) -> Result<http::Response<Body>, Failed> {
    let path = path.parse::<FilePath>()?.to_url();
    Ok(http.send(Request::get(format!("{edge}/{path}")).body(Body::empty())?).await?)
}

async fn get(http: &HttpClient, edge: &str, path: &str) -> Result<(u16, Bytes), Failed> {
    let response = ask(http, edge, path).await?;
    let status = response.status().as_u16();
    Ok((status, net::read_to_end(response.into_body(), MAX_BODY_BYTES).await?))
}

async fn x_cache(http: &HttpClient, edge: &str, path: &str) -> Result<String, Failed> {
    let response = ask(http, edge, path).await?;
    let cache = response.headers().get("x-cache").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    // The connection can only be used again once the body has been read.
    net::read_to_end(response.into_body(), MAX_BODY_BYTES).await?;
    Ok(cache)
}

/// The paths of the files below `site`, in order.
fn files_in(site: &Path) -> Result<Vec<String>, Failed> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![site.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(site)?.to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

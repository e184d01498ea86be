//! `get`: downloads a file as a reader would, and verifies it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::{Digest, ErrorCode, FileDoc, FilePath, ZoneName, names};
use clap::Args;
use client::ClientError;
use http::header::{CONTENT_LENGTH, ETAG};
use http::{Response, Uri};
use net::{Body, ClientLimits, HttpClient, NetError};
use serde::Serialize;

use crate::cli::download::{DownloadError, Target, receive};
use crate::cli::error::CliError;
use crate::cli::fetch::{fetch_file, fetch_url};
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::output::output_error;
use crate::cli::session::Session;
use crate::cli::values::{Remote, file_id, last_segment};
use crate::connection::retry;

const EXAMPLES: &str = "\
Examples:
  littoral get img/photo.jpg                     into photo.jpg here
  littoral get img/photo.jpg /tmp/p.jpg          into another file
  littoral get docs:index.html - | less          to standard output
  littoral get 019a9f3e-0000-7000-8000-000000000000
  littoral get http://127.0.0.1:8602/a.txt";

/// The arguments of `get`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct GetArgs {
    /// The file: PATH, ZONE:PATH, its id, or a URL
    #[arg(value_name = "PATH|ID|URL")]
    from: String,
    /// Where to: a file, a folder, or - for standard output [default: its own name, here]
    #[arg(value_name = "FILE|FOLDER|-")]
    to: Option<PathBuf>,
    /// The zone [default: files]
    #[arg(long)]
    zone: Option<ZoneName>,
}

/// What is to be fetched.
struct Wanted {
    url: Uri,
    /// The last part of its name, where it has one.
    name: Option<String>,
    /// The file as the API knows it, unless only a URL was named.
    file: Option<FileDoc>,
}

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct Document {
    /// Where it was written.
    file: String,
    /// From where it came in the end.
    url: String,
    size: u64,
    digest: Digest,
    /// Whether the digest is the one that was announced.
    verified: bool,
}

/// Runs `get`.
pub(super) async fn run(args: GetArgs, globals: &Globals) -> Result<(), CliError> {
    let out = globals.out();
    let is_url = args.from.contains("://");
    // A URL can be read without knowing any API.
    let session = if is_url { None } else { Some(globals.session()?) };
    let wanted = match &session {
        Some(session) => wanted(&args, session).await?,
        None => Wanted { url: url(&args.from)?, name: name_in_url(&args.from), file: None },
    };
    let target = target(args.to.as_deref(), wanted.name.as_deref())?;
    let begun = Instant::now();
    let http = HttpClient::new(ClientLimits::default());
    let doing = format!("cannot get {}", args.from);
    let (response, from) = match (&session, &wanted.file) {
        (Some(session), Some(file)) => {
            let fetched = fetch_file(&http, &wanted.url, file, session).await;
            fetched.map_err(|error| session.failed(&doing, &error))?
        }
        _ => fetch_url(&http, &wanted.url).await.map_err(|error| without_session(&doing, &error))?,
    };

    let expected = etag_digest(&response).or(wanted.file.as_ref().map(|file| file.digest));
    let size = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let progress = out.progress();
    progress.begin_bytes("downloading", size);
    let received = receive(response.into_body(), &target, expected, &progress).await;
    progress.finish();
    let received = received.map_err(|error| download_failed(&args.from, &target, &error))?;
    if expected.is_none() {
        out.warn(format!("{from} announces no digest, so what came was not verified"));
    }
    let file = match &target {
        Target::Stdout => "-".to_owned(),
        Target::File(path) => human::file_name(path),
    };
    out.note(summary(&file, received.size, begun.elapsed()));
    if out.is_json() && target != Target::Stdout {
        let (size, digest) = (received.size, received.digest);
        out.json(&Document { file, url: from.to_string(), size, digest, verified: expected.is_some() })?;
    }
    Ok(())
}

fn download_failed(from: &str, target: &Target, error: &DownloadError) -> CliError {
    let failed = CliError::failed(format!("cannot download {from}: {error}"));
    match (target, error) {
        (Target::Stdout, DownloadError::Write { source, .. }) => output_error(source),
        (Target::Stdout, _) => failed,
        (Target::File(_), _) => failed.with_hint("nothing of it was kept"),
    }
}

fn summary(file: &str, bytes: u64, elapsed: Duration) -> String {
    let (size, time) = (human::size(bytes), human::elapsed(elapsed));
    format!("{file}: {size} downloaded in {time} ({})", human::rate(bytes, elapsed))
}

async fn wanted(args: &GetArgs, session: &Session) -> Result<Wanted, CliError> {
    let calls = session.calls();
    let file = match file_id(&args.from) {
        Some(id) => retry(|| calls.file_by_id(id)).await,
        None => {
            let remote = Remote::parse(&args.from, args.zone.as_ref())?;
            let path = remote.path()?;
            retry(|| calls.file(&remote.zone, &path)).await
        }
    };
    let file = file.map_err(|error| session.failed(&format!("cannot get {}", args.from), &error))?;
    Ok(Wanted { url: url(&file.url)?, name: Some(last_segment(&file.path).to_owned()), file: Some(file) })
}

fn url(text: &str) -> Result<Uri, CliError> {
    let shown = human::plain(text);
    match text.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        Ok(uri) if uri.scheme_str() == Some("https") => {
            Err(CliError::usage(format!("{shown}: https is not spoken by this version")))
        }
        _ => Err(CliError::usage(format!("{shown:?} is not a URL"))
            .with_hint("write it like http://127.0.0.1:8602/img/photo.jpg, with what is special percent-encoded")),
    }
}

/// The name that a URL gives its file: its last segment, decoded, if that can be the name of a file here.
fn name_in_url(text: &str) -> Option<String> {
    let path = text.split_once("://")?.1.split(['?', '#']).next()?.split_once('/')?.1;
    let name = names::decode_url(path.rsplit('/').next()?).ok()?;
    name.parse::<FilePath>().ok().filter(|name| !name.as_str().contains('/'))?;
    Some(name)
}

fn target(to: Option<&Path>, name: Option<&str>) -> Result<Target, CliError> {
    let folder = match to {
        Some(path) if path == Path::new("-") => return Ok(Target::Stdout),
        Some(path) if !path.is_dir() => return Ok(Target::File(path.to_owned())),
        Some(folder) => folder,
        None => Path::new(""),
    };
    let name = name.ok_or_else(|| {
        CliError::usage("the URL gives no name to write to").with_hint("name a file, or - for standard output")
    })?;
    Ok(Target::File(folder.join(name)))
}

/// The digest that the entity tag of an answer is made of, where it is.
fn etag_digest(response: &Response<Body>) -> Option<Digest> {
    let tag = response.headers().get(ETAG)?.to_str().ok()?;
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// A failed fetch of a URL that nobody but the user knows.
fn without_session(doing: &str, error: &ClientError) -> CliError {
    let failed = CliError::failed(format!("{doing}: {error}"));
    match error {
        ClientError::Problem(problem) if problem.code == ErrorCode::Unauthorized => failed
            .with_hint("name the file by its path or id instead of its URL: then a token is shown where one is needed"),
        ClientError::Net(NetError::Connect { .. }) => {
            failed.with_hint("is the address right, and is 'littoral up' running?")
        }
        _ => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_urls_give() {
        for (url, name) in [
            ("http://h/a/b.txt", Some("b.txt")),
            ("http://h/a/b%20c.txt?x=/y#z", Some("b c.txt")),
            ("http://h/a/", None),
            ("http://h", None),
            ("http://h/..%2fetc%2fpasswd", None),
            ("http://h/%2e%2e", None),
            ("http://h/%00", None),
            ("http://h/%zz", None),
        ] {
            assert_eq!(name_in_url(url).as_deref(), name, "{url}");
        }
    }

    #[test]
    fn where_a_download_goes() {
        let folder = tempfile::tempdir().expect("folder");
        let file = |path: &Path| Target::File(path.to_owned());
        assert_eq!(target(None, Some("a")).expect("here"), file(Path::new("a")));
        assert_eq!(target(Some(Path::new("-")), None).expect("stdout"), Target::Stdout);
        assert_eq!(target(Some(Path::new("b")), Some("a")).expect("file"), file(Path::new("b")));
        assert_eq!(target(Some(folder.path()), Some("a")).expect("folder"), file(&folder.path().join("a")));
        assert!(target(None, None).is_err());
    }

    #[test]
    fn only_a_strong_tag_of_64_digits_is_a_digest() {
        let digest = Digest::of(b"x");
        let of = |tag: &str| {
            let response = Response::builder().header(ETAG, tag).body(Body::empty()).expect("response");
            etag_digest(&response)
        };
        assert_eq!(of(&digest.etag()), Some(digest));
        assert_eq!(of(&format!("W/{}", digest.etag())), None);
        assert_eq!(of("\"5f3\""), None);
    }
}

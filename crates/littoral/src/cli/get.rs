//! `get`: downloads a file as a reader would, and verifies it.
//!
//! The API says where the file is read; from there on every redirect is followed, at most [`MAX_REDIRECTS`]. A token is
//! shown only when a reader without one is turned away, only for a file that was named by path or id, and only to hosts
//! that the API names: its own, the one in the file's URL, and those of the edges.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::{Digest, ErrorCode, FileDoc, FilePath, Problem, ZoneName, names};
use clap::Args;
use client::ClientError;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode, Uri};
use net::{Body, ClientLimits, HttpClient, NetError};
use serde::Serialize;

use crate::cli::download::{Target, receive};
use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::session::Session;
use crate::cli::values::{Remote, file_id, last_segment};
use crate::connection::retry;

/// Redirects that are followed.
const MAX_REDIRECTS: u32 = 5;
/// Longest answer that is read for the reason of a failure, in bytes.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

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
    let fetcher =
        Fetcher { http: HttpClient::new(ClientLimits::default()), session: session.as_ref(), wanted: &wanted };
    let (response, from) = fetcher.fetch(&args.from).await?;

    let expected = etag_digest(&response).or(wanted.file.as_ref().map(|file| file.digest));
    let size = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let progress = out.progress();
    progress.begin_bytes("downloading", size);
    let received = receive(response.into_body(), &target, expected, &progress).await;
    progress.finish();
    let received = received.map_err(|error| {
        let failed = CliError::failed(format!("cannot download {}: {error}", args.from));
        if target == Target::Stdout { failed } else { failed.with_hint("nothing of it was kept; try again") }
    })?;
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

/// Fetches what is wanted, from wherever redirects lead.
struct Fetcher<'a> {
    http: HttpClient,
    session: Option<&'a Session>,
    wanted: &'a Wanted,
}

impl Fetcher<'_> {
    /// The answer that carries the file, and where it came from.
    async fn fetch(&self, shown: &str) -> Result<(Response<Body>, Uri), CliError> {
        let doing = format!("cannot get {shown}");
        let failed = |error: ClientError| match self.session {
            Some(session) => session.failed(&doing, &error),
            None => without_session(&doing, &error),
        };
        let answer = retry(|| self.follow(None)).await;
        let turned_away = matches!(&answer, Err(error) if error.code() == Some(ErrorCode::Unauthorized));
        match self.session.and_then(Session::token) {
            Some(token) if turned_away && self.wanted.file.is_some() => {
                let trusted = self.trusted_hosts().await.map_err(failed)?;
                let value = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
                let mut value = value.map_err(|_| CliError::failed("the token cannot be sent"))?;
                value.set_sensitive(true);
                retry(|| self.follow(Some((&value, &trusted)))).await.map_err(failed)
            }
            _ => answer.map_err(failed),
        }
    }

    /// Hosts (with port) that may see the token.
    async fn trusted_hosts(&self) -> Result<HashSet<String>, ClientError> {
        let Some(session) = self.session else { return Ok(HashSet::new()) };
        let nodes = retry(|| session.calls().nodes()).await?.nodes;
        let urls = nodes.iter().map(|view| view.node.url.as_str()).chain([session.calls().base_url()]);
        let hosts = urls.filter_map(|url| url.parse::<Uri>().ok()?.authority().map(ToString::to_string));
        Ok(hosts.chain(self.wanted.url.authority().map(ToString::to_string)).collect())
    }

    /// Asks for the file, and again wherever the answer redirects to.
    async fn follow(
        &self,
        token: Option<(&HeaderValue, &HashSet<String>)>,
    ) -> Result<(Response<Body>, Uri), ClientError> {
        let mut at = self.wanted.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::get(at.clone());
            if let Some((value, trusted)) = token
                && at.authority().is_some_and(|host| trusted.contains(host.as_str()))
            {
                request = request.header(AUTHORIZATION, value);
            }
            let request = request.body(Body::empty()).map_err(|error| unexpected(&at, 0, error.to_string()))?;
            let response = self.http.send(request).await?;
            if response.status() == StatusCode::OK {
                return Ok((response, at));
            }
            if !response.status().is_redirection() {
                return Err(problem(&at, response).await);
            }
            at = redirected(&at, &response)?;
        }
        Err(unexpected(&at, 0, format!("it redirected more than {MAX_REDIRECTS} times")))
    }
}

/// Where an answer from `at` redirects to.
fn redirected(at: &Uri, response: &Response<Body>) -> Result<Uri, ClientError> {
    let status = response.status().as_u16();
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| unexpected(at, status, "a redirect without a Location".to_owned()))?;
    let absolute = match (location.starts_with('/') && !location.starts_with("//"), at.authority()) {
        (true, Some(host)) => format!("http://{host}{location}"),
        _ => location.to_owned(),
    };
    match absolute.parse::<Uri>() {
        Ok(to) if to.scheme_str() == Some("http") && to.authority().is_some() => Ok(to),
        _ => {
            Err(unexpected(at, status, format!("a redirect to {:?}, which cannot be followed", human::plain(location))))
        }
    }
}

async fn problem(at: &Uri, response: Response<Body>) -> ClientError {
    let status = response.status();
    let text = net::read_to_end(response.into_body(), MAX_PROBLEM_BYTES).await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&text) {
        Ok(problem) => problem.into(),
        Err(_) => unexpected(at, status.as_u16(), status.canonical_reason().unwrap_or("an unknown status").to_owned()),
    }
}

fn unexpected(at: &Uri, status: u16, why: String) -> ClientError {
    ClientError::Unexpected { url: at.to_string(), status, why }
}

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
    fn redirects_are_taken_apart() {
        let at: Uri = "http://router:1/a".parse().expect("URI");
        let to = |location: &str| {
            let response = Response::builder().status(307).header(LOCATION, location).body(Body::empty());
            redirected(&at, &response.expect("response")).map(|uri| uri.to_string())
        };
        assert_eq!(to("http://edge:2/a?b").expect("absolute"), "http://edge:2/a?b");
        assert_eq!(to("/c").expect("relative"), "http://router:1/c");
        for bad in ["//edge/a", "https://edge/a", "ftp://x/", "c", "http://", ""] {
            assert!(to(bad).is_err(), "{bad}");
        }
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

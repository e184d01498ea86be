//! A small stand-in for the API, the router and an edge, on one address: it keeps files in memory and answers with the
//! documents of the contract.
//!
//! Readers are redirected from `/<path>` to `/-/edge/<path>`. Some paths misbehave: see [`content`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::docs::Candidate;
use api::{
    Change, Digest, ErrorCode, Event, ExplainRequest, ExplainStep, Explanation, FileDoc, FileId, FileList, FilePatch,
    FilePath, FileRef, Hello, Locate, NewToken, NodeDoc, NodeList, NodeView, Place, Problem, PurgeAnswer, PurgeRequest,
    Receipt, ReceiptState, Status, TokenAnswer, TokenDoc, TokenList, ZoneDoc, ZoneList,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response};
use net::{Body, Incoming, ServerLimits};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The token that permits everything.
pub(crate) const TOKEN: &str = "lit_token-of-the-test";
/// Files on a page, whatever was asked for.
const PAGE_FILES: usize = 3;
const MAX_BODY_BYTES: usize = 64 << 20;

/// The stand-in.
#[derive(Clone)]
pub(crate) struct Fake {
    /// `http://host:port`.
    pub(crate) url: String,
    /// What it knows. Held while one answer is made.
    pub(crate) state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    /// By zone and path.
    pub(crate) files: BTreeMap<(String, String), (FileDoc, Bytes)>,
    pub(crate) zones: BTreeMap<String, ZoneDoc>,
    pub(crate) tokens: Vec<NewToken>,
    pub(crate) purges: Vec<PurgeRequest>,
    /// `METHOD target`, and the headers that matter.
    pub(crate) requests: Vec<String>,
    /// The last answer in JSON.
    pub(crate) last_answer: String,
    /// Whether one of the two edges is deaf.
    pub(crate) deaf_edge: bool,
    event: u64,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let mut state = State::default();
        for name in ["files", "docs"] {
            state.zones.insert(name.to_owned(), ZoneDoc::new(name.parse().expect("zone")));
        }
        let fake = Self { url, state: Arc::new(Mutex::new(state)) };
        let service = fake.clone();
        let service = net::service(move |request| {
            let fake = service.clone();
            async move { fake.answer(request).await }
        });
        tokio::spawn(net::serve(
            listener,
            service,
            ServerLimits::default(),
            tokio_util::sync::CancellationToken::new(),
        ));
        fake
    }

    /// The paths of a zone's files.
    pub(crate) fn paths(&self, zone: &str) -> Vec<String> {
        let state = self.state.lock().expect("lock");
        state.files.keys().filter(|(z, _)| z == zone).map(|(_, path)| path.clone()).collect()
    }

    /// Forgets what was asked so far, and answers it.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().expect("lock").requests)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let header = |name: &str| head.headers.get(name).map(|value| value.to_str().expect("text").to_owned());
        let mut line = format!("{} {}", head.method, head.uri);
        for name in ["content-length", "content-type", "cache-control", "surrogate-key", "if-match", "if-none-match"] {
            if let Some(value) = header(name) {
                line.push_str(&format!(" {name}={value}"));
            }
        }
        if header("authorization").is_some() {
            line.push_str(" +token");
        }
        self.state.lock().expect("lock").requests.push(line);

        let authorized = header("authorization").as_deref() == Some(&format!("Bearer {TOKEN}"));
        let path = head.uri.path().to_owned();
        if path == api::explain::EXPLAIN_PATH {
            return self.explain(body, authorized).await;
        }
        if !path.starts_with("/v1/") {
            return self.content(&path, authorized);
        }
        if !authorized {
            return problem(Problem::new(ErrorCode::Unauthorized, "a token is needed"));
        }
        let Ok(body) = net::read_to_end(body, MAX_BODY_BYTES).await else {
            return problem(Problem::new(ErrorCode::BodyMismatch, "the body ended early"));
        };
        let upload = Upload {
            body,
            media_type: header("content-type"),
            cache_control: header("cache-control"),
            tags: header("surrogate-key").unwrap_or_default(),
            if_match: header("if-match"),
            if_none_match: header("if-none-match"),
            repr_digest: header("repr-digest"),
        };
        let mut state = self.state.lock().expect("lock");
        let answer = state.api(&self.url, &head.method, &path, head.uri.query().unwrap_or_default(), upload);
        match answer {
            Ok((status, text)) => {
                state.last_answer.clone_from(&text);
                let kind = if text.starts_with("event:") { "text/event-stream" } else { "application/json" };
                let response = Response::builder().status(status).header("content-type", kind);
                response.body(Body::full(text)).expect("response")
            }
            Err(error) => problem(error),
        }
    }

    /// Answers as an edge: with what it was asked.
    async fn explain(&self, body: Incoming, authorized: bool) -> Response<Body> {
        if !authorized {
            return problem(Problem::new(ErrorCode::Unauthorized, "explaining takes a token"));
        }
        let body = net::read_to_end(body, MAX_BODY_BYTES).await.expect("a body");
        let asked: ExplainRequest = serde_json::from_slice(&body).expect("a request to be explained");
        let mut facts = vec![("url".to_owned(), asked.url), ("method".to_owned(), asked.method)];
        facts.extend(asked.headers);
        facts.extend(asked.client_ip.map(|ip| ("client".to_owned(), ip.to_string())));
        let step = ExplainStep { stage: "zone".to_owned(), decision: "shop".to_owned(), facts };
        let explanation = Explanation { node: "oslo".to_owned(), steps: vec![step], outcome: "miss".to_owned() };
        let text = serde_json::to_string(&explanation).expect("JSON");
        self.state.lock().expect("lock").last_answer.clone_from(&text);
        Response::new(Body::full(text))
    }

    fn path_of(&self, id: FileId) -> String {
        let state = self.state.lock().expect("lock");
        let found = state.files.values().find(|(doc, _)| doc.id == id);
        found.map_or_else(|| "nothing".to_owned(), |(doc, _)| doc.path.to_string())
    }

    /// What a reader gets. `loop` redirects for ever, `far` to a host that nobody knows, `damaged` has other bytes than
    /// announced, `short` breaks off, `plain` has no digest, `private` needs the token.
    fn content(&self, path: &str, authorized: bool) -> Response<Body> {
        let own = path.strip_prefix("/-/").and_then(|id| id.parse().ok());
        let path = match (path.strip_prefix("/-/edge/"), own) {
            (Some(path), _) => FilePath::from_url(path).expect("path").to_string(),
            (None, Some(id)) => self.path_of(id),
            (None, None) => {
                let to = match path {
                    "/loop" => path.to_owned(),
                    "/far" => "http://far.invalid/".to_owned(),
                    path => format!("{}/-/edge{path}", self.url),
                };
                return Response::builder().status(307).header("location", to).body(Body::empty()).expect("response");
            }
        };
        if path == "private" && !authorized {
            return problem(Problem::new(ErrorCode::Unauthorized, "this zone is private"));
        }
        let state = self.state.lock().expect("lock");
        let Some((doc, bytes)) = state.files.get(&("files".to_owned(), path.clone())) else {
            return problem(Problem::new(ErrorCode::UnknownFile, "there is no such file"));
        };
        let response = Response::builder().header("content-length", bytes.len());
        let response = if path == "plain" { response } else { response.header("etag", doc.digest.etag()) };
        let bytes = match path.as_str() {
            "damaged" => Bytes::from(vec![b'x'; bytes.len()]),
            "short" => {
                let first = futures_util::stream::iter([Ok(bytes.slice(..1))]);
                let then = futures_util::stream::once(async {
                    // Lets what came before be sent.
                    tokio::task::yield_now().await;
                    Err("cut off".into())
                });
                return response.body(Body::stream(first.chain(then))).expect("response");
            }
            _ => bytes.clone(),
        };
        response.body(Body::full(bytes)).expect("response")
    }
}

struct Upload {
    body: Bytes,
    media_type: Option<String>,
    cache_control: Option<String>,
    tags: String,
    if_match: Option<String>,
    if_none_match: Option<String>,
    repr_digest: Option<String>,
}

type Answer = Result<(u16, String), Problem>;

impl State {
    fn api(&mut self, url: &str, method: &Method, path: &str, query: &str, upload: Upload) -> Answer {
        let parts: Vec<&str> = path.trim_start_matches("/v1/").splitn(4, '/').collect();
        let wait = query.contains("wait=edges");
        match (method.as_str(), parts.as_slice()) {
            ("PUT", ["zones", zone, "files", path]) => {
                let path = FilePath::from_url(path)?;
                self.put(url, zone, path, upload, wait)
            }
            ("POST", ["zones", zone, "files"]) => {
                let extension = query.split('.').nth(1).map_or_else(String::new, |rest| format!(".{rest}"));
                self.put(url, zone, format!("generated{extension}").parse()?, upload, wait)
            }
            ("GET", ["zones", zone, "files"]) => self.list(zone, query),
            ("GET", ["zones", zone, "files", path]) => {
                self.zone(zone)?;
                json(200, &self.file(zone, FilePath::from_url(path)?.as_str())?.0)
            }
            ("DELETE", ["zones", zone, "files", path]) => {
                let path = FilePath::from_url(path)?;
                let doc = self.file(zone, path.as_str())?.0.clone();
                if upload.if_match.is_some_and(|tag| tag != doc.digest.etag()) {
                    return Err(Problem::new(ErrorCode::PreconditionFailed, "it has another digest"));
                }
                self.files.remove(&((*zone).to_owned(), path.to_string()));
                json(200, &self.purged(wait))
            }
            ("PUT", ["files", id]) => {
                let doc = self.by_id(id)?;
                self.put(url, doc.zone.as_str(), doc.path, upload, wait)
            }
            ("GET", ["files", id]) => json(200, &self.by_id(id)?),
            ("DELETE", ["files", id]) => {
                let doc = self.by_id(id)?;
                self.files.remove(&(doc.zone.to_string(), doc.path.to_string()));
                json(200, &self.purged(wait))
            }
            ("PATCH", ["files", id]) => {
                let doc = self.by_id(id)?;
                let patch: FilePatch = read(&upload.body)?;
                let (_, bytes) = self.files.remove(&(doc.zone.to_string(), doc.path.to_string())).expect("known");
                let path = patch.path.unwrap_or(doc.path);
                let doc = FileDoc { url: format!("{url}/{}", path.to_url()), path, version: doc.version + 1, ..doc };
                self.files.insert((doc.zone.to_string(), doc.path.to_string()), (doc.clone(), bytes));
                json(200, &FileDoc { receipts: self.receipts(wait), ..doc })
            }
            ("POST", ["purge"]) => {
                let request: PurgeRequest = read(&upload.body)?;
                let wait = request.wait;
                self.purges.push(request);
                json(200, &self.purged(wait))
            }
            ("GET", ["zones"]) => json(200, &ZoneList { zones: self.zones.values().cloned().collect() }),
            ("GET", ["zones", name]) => json(200, &self.zone(name)?),
            ("PUT", ["zones", name]) => {
                let zone: ZoneDoc = read(&upload.body)?;
                self.zones.insert((*name).to_owned(), zone.clone());
                json(200, &zone)
            }
            ("DELETE", ["zones", name]) => {
                self.zone(name)?;
                self.zones.remove(*name);
                Ok((204, String::new()))
            }
            ("GET", ["tokens"]) => json(200, &TokenList { tokens: self.tokens.iter().map(token_doc).collect() }),
            ("POST", ["tokens"]) => {
                let token: NewToken = read(&upload.body)?;
                self.tokens.push(token.clone());
                json(201, &TokenAnswer { doc: token_doc(&token), token: "lit_new-secret".to_owned() })
            }
            ("DELETE", ["tokens", "token-1"] | ["nodes", "lisbon"]) => Ok((204, String::new())),
            ("DELETE", ["tokens", id]) => Err(Problem::new(ErrorCode::UnknownToken, format!("there is no token {id}"))),
            ("GET", ["nodes"]) => json(200, &NodeList { nodes: vec![node(url)] }),
            ("GET", ["status"]) => json(200, &self.status(url)),
            ("GET", ["locate"]) => json(200, &locate(url)),
            ("GET", ["events"]) => Ok((200, self.events(query))),
            _ => Err(Problem::new(ErrorCode::UnknownEndpoint, "nothing here")),
        }
    }

    fn zone(&self, name: &str) -> Result<ZoneDoc, Problem> {
        let unknown = || Problem::new(ErrorCode::UnknownZone, format!("there is no zone '{name}'"));
        self.zones.get(name).cloned().ok_or_else(unknown)
    }

    fn file(&self, zone: &str, path: &str) -> Result<&(FileDoc, Bytes), Problem> {
        let unknown = || Problem::new(ErrorCode::UnknownFile, format!("there is no file '{path}' in zone '{zone}'"));
        self.files.get(&(zone.to_owned(), path.to_owned())).ok_or_else(unknown)
    }

    fn by_id(&self, id: &str) -> Result<FileDoc, Problem> {
        let id: FileId = id.parse()?;
        let found = self.files.values().find(|(doc, _)| doc.id == id).map(|(doc, _)| doc.clone());
        found.ok_or_else(|| Problem::new(ErrorCode::UnknownFile, "there is no file of that id"))
    }

    fn put(&mut self, url: &str, zone: &str, path: FilePath, upload: Upload, wait: bool) -> Answer {
        let zone = self.zone(zone)?.name;
        let digest = Digest::of(&upload.body);
        let key = (zone.to_string(), path.to_string());
        let there = self.files.get(&key).map(|(doc, _)| doc.clone());
        let matches = |tag: &String| there.as_ref().is_some_and(|doc| *tag == doc.digest.etag() || tag == "*");
        if upload.if_none_match.as_ref().is_some_and(matches)
            || upload.if_match.as_ref().is_some_and(|tag| !matches(tag))
        {
            return Err(Problem::new(ErrorCode::PreconditionFailed, "the precondition does not hold"));
        }
        let declared = upload.repr_digest.as_deref().and_then(|v| v.strip_prefix("blake3=:")?.strip_suffix(':'));
        if declared.is_some_and(|declared| declared != BASE64_STANDARD.encode(digest.0)) {
            return Err(Problem::new(ErrorCode::DigestMismatch, "the body has another digest"));
        }
        self.event += 1;
        let id = there.as_ref().map_or_else(|| FileId(uuid::Uuid::now_v7()), |doc| doc.id);
        let doc = FileDoc {
            id,
            url: format!("{url}/{}", path.to_url()),
            id_url: format!("{url}/-/{id}"),
            zone,
            path,
            version: there.as_ref().map_or(1, |doc| doc.version + 1),
            digest,
            size: upload.body.len() as u64,
            media_type: upload.media_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
            cache_control: upload.cache_control,
            tags: api::Tag::parse_list(&upload.tags)?,
            event: self.event,
            modified_ms: 1_767_225_600_000,
            receipts: Vec::new(),
        };
        self.files.insert(key, (doc.clone(), upload.body));
        json(if there.is_some() { 200 } else { 201 }, &FileDoc { receipts: self.receipts(wait), ..doc })
    }

    fn list(&self, zone: &str, query: &str) -> Answer {
        self.zone(zone)?;
        let value = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.map_or_else(String::new, |value| api::names::decode_url(value).expect("escaped"))
        };
        let (prefix, cursor) = (value("prefix"), value("cursor"));
        let all = self.files.iter().filter(|((z, path), _)| z == zone && path.starts_with(&prefix) && *path > cursor);
        let mut files: Vec<FileDoc> = all.map(|(_, (doc, _))| doc.clone()).take(PAGE_FILES + 1).collect();
        let more = files.len() > PAGE_FILES;
        files.truncate(PAGE_FILES);
        let next_cursor = more.then(|| files.last().expect("a full page").path.to_string());
        json(200, &FileList { files, next_cursor })
    }

    fn purged(&mut self, wait: bool) -> PurgeAnswer {
        self.event += 1;
        PurgeAnswer { event: self.event, receipts: self.receipts(wait) }
    }

    fn receipts(&self, wait: bool) -> Vec<Receipt> {
        let receipt = |node: &str, state| Receipt { node: node.parse().expect("name"), state, ms: 1.5 };
        let second = if self.deaf_edge { ReceiptState::Timeout } else { ReceiptState::Applied };
        let both = vec![receipt("lisbon", ReceiptState::Applied), receipt("oslo", second)];
        if wait { both } else { Vec::new() }
    }

    fn status(&self, url: &str) -> Status {
        Status {
            version: "0.1.0".to_owned(),
            catalog_id: "catalog-1".to_owned(),
            event: self.event,
            generation: 2,
            zones: self.zones.len() as u64,
            files: self.files.len() as u64,
            bytes: self.files.values().map(|(doc, _)| doc.size).sum(),
            nodes: vec![node(url)],
        }
    }

    fn events(&self, query: &str) -> String {
        let hello = Hello { catalog_id: "catalog-1".to_owned(), head: self.event, oldest: 1, generation: 2 };
        let mut text = format!("event: hello\ndata: {}\n\n", serde_json::to_string(&hello).expect("JSON"));
        let after = query.split('&').find_map(|pair| pair.strip_prefix("after=")?.parse::<u64>().ok());
        for (doc, _) in self.files.values().filter(|(doc, _)| after.is_some_and(|after| doc.event > after)) {
            let file = FileRef {
                zone: doc.zone.clone(),
                path: doc.path.clone(),
                id: doc.id,
                version: doc.version,
                digest: doc.digest,
                size: doc.size,
            };
            let event = Event { seq: doc.event, at_ms: doc.modified_ms, change: Change::FileUpdated(file) };
            let data = serde_json::to_string(&event).expect("JSON");
            text.push_str(&format!("id: {}\nevent: file_updated\ndata: {data}\n\n", doc.event));
        }
        text
    }
}

fn token_doc(token: &NewToken) -> TokenDoc {
    TokenDoc {
        id: "token-1".to_owned(),
        label: token.label.clone(),
        kind: token.kind,
        scopes: token.scopes.clone(),
        created_ms: 1_767_225_600_000,
        expires_ms: token.expires_in_s.map(|s| 1_767_225_600_000 + s * 1_000),
    }
}

fn node(url: &str) -> NodeView {
    let name = "lisbon".parse().expect("name");
    NodeView {
        node: NodeDoc { name, place: Place { lat: 38.72, lng: -9.14 }, url: url.to_owned(), https_url: None },
        alive: true,
        last_heartbeat_ms: Some(12),
        load: 0,
        applied: 1,
        files: 1,
    }
}

fn locate(url: &str) -> Locate {
    let candidate = |name: &str, chosen: bool| Candidate {
        name: name.to_owned(),
        distance_km: 1_234.5,
        alive: true,
        has_file: chosen,
        chosen,
        reason: "because".to_owned(),
    };
    Locate {
        zone: "files".parse().expect("zone"),
        path: "a.txt".parse().expect("path"),
        client: Place { lat: 1.0, lng: -2.0 },
        chosen: "lisbon".to_owned(),
        url: format!("{url}/a.txt"),
        reason: "it has the file".to_owned(),
        candidates: vec![candidate("lisbon", true), candidate("origin", false)],
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::new(ErrorCode::InvalidRequest, error.to_string()))
}

fn json(status: u16, document: &impl Serialize) -> Answer {
    Ok((status, serde_json::to_string(document).expect("JSON")))
}

fn problem(problem: Problem) -> Response<Body> {
    let response = Response::builder().status(problem.status).header("content-type", api::problem::PROBLEM_JSON);
    response.body(Body::full(problem.to_json())).expect("response")
}

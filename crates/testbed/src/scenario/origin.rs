//! The origin of a scenario: says what the file tells it to over raw TCP, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Answer;
use super::client::{chunk_size, head, read_bytes};
use super::expect::{Fields, field, mismatch, with_dates};
use crate::EVENTUALLY_MS;

/// What an origin was asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) fields: Fields,
    pub(super) body: String,
}

/// How far the clients of a step are: what `hold` and `pause_after` wait for.
#[derive(Clone)]
pub(super) struct Gate(Arc<watch::Sender<Progress>>);

#[derive(Default)]
struct Progress {
    clients: usize,
    sent: usize,
    /// Bytes of body that each client has read that has read any.
    read: Vec<usize>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Progress::default())))
    }
    /// A step begins that has so many clients.
    pub(super) fn begin(&self, clients: usize) {
        self.0.send_replace(Progress { clients, ..Progress::default() });
    }
    /// A client has sent its request.
    pub(super) fn sent(&self) {
        self.0.send_modify(|progress| progress.sent += 1);
    }
    /// A client begins to read a body.
    pub(super) fn client(&self) -> GateReader<'_> {
        GateReader { gate: self, index: None }
    }
    async fn all_sent(&self) {
        self.wait(|progress| progress.sent >= progress.clients).await;
    }
    async fn all_read(&self, bytes: usize) {
        self.wait(|progress| progress.read.iter().filter(|&&read| read >= bytes).count() >= progress.clients).await;
    }
    async fn wait(&self, done: impl FnMut(&Progress) -> bool) {
        within_bound(self.0.subscribe().wait_for(done)).await;
    }
}

/// One client's part in a gate.
pub(super) struct GateReader<'a> {
    gate: &'a Gate,
    index: Option<usize>,
}

impl GateReader<'_> {
    /// It has read so many bytes more.
    pub(super) fn read(&mut self, bytes: usize) {
        self.gate.0.send_modify(|progress| {
            let index = *self.index.get_or_insert_with(|| {
                progress.read.push(0);
                progress.read.len() - 1
            });
            if let Some(read) = progress.read.get_mut(index) {
                *read += bytes;
            }
        });
    }
}

/// A running origin; it ends with its scenario's runtime.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    answers: Vec<Answer>,
    state: Mutex<State>,
    gate: Gate,
    clock: edge::Clock,
    /// How often it has been asked.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    /// Which answers have been given.
    given: Vec<usize>,
}

impl Origin {
    pub(super) async fn start(answers: Vec<Answer>, gate: Gate, clock: edge::Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { answers, state: Mutex::default(), gate, clock, count: watch::Sender::new(0) });
        let own = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&own);
                tokio::spawn(async move { shared.serve(stream).await });
            }
        });
        Self { address, shared, task }
    }

    /// What it has been asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.shared.state.lock().expect("no panic").asked.clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// One request for each connection, so that no connection is reused, and none is closed at a bad moment.
    async fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let Some((line, fields)) = head(&mut stream).await else { return };
        let body = request_body(&mut stream, &fields).await;
        let Some(answer) = self.choose(Asked { line: line.clone(), fields, body }) else {
            let text = "HTTP/1.1 599 No Answer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(text.as_bytes()).await;
            return;
        };
        let _ = self.answer(&answer, line.starts_with("HEAD "), &mut stream).await;
        let _ = stream.shutdown().await;
    }

    /// The first answer that fits and has not been given; else the last that fits.
    fn choose(&self, asked: Asked) -> Option<Answer> {
        let now_ms = (self.clock)();
        let (method, rest) = asked.line.split_once(' ').unwrap_or_default();
        let target = rest.split(' ').next().unwrap_or_default();
        let fits = |answer: &Answer| {
            answer.path.as_deref().is_none_or(|path| path == target)
                && answer.method.as_deref().is_none_or(|known| known == method)
                && answer.when.iter().all(|line| mismatch(&with_dates(line, now_ms), &asked.fields).is_none())
        };
        let fitting: Vec<usize> =
            self.answers.iter().enumerate().filter(|(_, answer)| fits(answer)).map(|(index, _)| index).collect();
        let mut state = self.state.lock().expect("no panic");
        let fresh = fitting.iter().find(|index| !state.given.contains(index));
        let index = fresh.or(fitting.last()).copied();
        state.given.extend(index);
        state.asked.push(asked);
        self.count.send_replace(state.asked.len());
        self.answers.get(index?).cloned()
    }

    async fn answer(&self, answer: &Answer, to_head: bool, stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
        if answer.hold {
            self.gate.all_sent().await;
        }
        within_bound(self.count.subscribe().wait_for(|&count| count >= answer.until_asked)).await;
        if let Some(raw) = &answer.raw {
            return stream.write_all(raw.as_bytes()).await;
        }
        for line in &answer.interim {
            let (status, header) = line.split_once(' ').unwrap_or((line, ""));
            stream.write_all(format!("HTTP/1.1 {status} Interim\r\n{header}\r\n\r\n").as_bytes()).await?;
        }
        if answer.break_after == Some(0) {
            return Ok(());
        }
        let body = body_of(answer);
        stream.write_all(self.head_of(answer, body.len()).as_bytes()).await?;
        if to_head || [204, 304].contains(&answer.status.unwrap_or(200)) {
            return stream.flush().await;
        }
        let cut = answer.break_after.or(answer.pause_after).unwrap_or(body.len()).min(body.len());
        let (first, rest) = body.split_at(cut);
        write_piece(stream, first, answer.chunked).await?;
        if answer.break_after.is_some() {
            return Ok(());
        }
        if let Some(bytes) = answer.pause_after {
            self.gate.all_read(bytes).await;
        }
        write_piece(stream, rest, answer.chunked).await?;
        if answer.chunked {
            stream.write_all(b"0\r\n\r\n").await?;
        }
        stream.flush().await
    }

    fn head_of(&self, answer: &Answer, length: usize) -> String {
        let now_ms = (self.clock)();
        let status = answer.status.unwrap_or(200);
        let mut head = format!("HTTP/1.1 {status} Answer\r\nConnection: close\r\n");
        for line in &answer.headers {
            head.push_str(&format!("{}\r\n", with_dates(line, now_ms)));
        }
        let names: Vec<String> = answer.headers.iter().map(|line| field(line).0.to_ascii_lowercase()).collect();
        let said = |name: &str| names.iter().any(|known| known == name);
        if answer.date != Some(false) && !said("date") {
            head.push_str(&with_dates("Date: {now}\r\n", now_ms));
        }
        if answer.chunked {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else if ![204, 304].contains(&status) && !said("content-length") && !said("transfer-encoding") {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        head + "\r\n"
    }
}

/// Waits longer than a step takes: where what was to be shown does not happen, the step ends with an error.
async fn within_bound(done: impl Future) {
    let _ = tokio::time::timeout(Duration::from_millis(2 * EVENTUALLY_MS), done).await;
}

fn body_of(answer: &Answer) -> Vec<u8> {
    match answer.body_bytes {
        Some(length) => (b'a'..=b'z').cycle().take(length).collect(),
        None => answer.body.clone().into_bytes(),
    }
}

async fn write_piece(stream: &mut BufReader<TcpStream>, bytes: &[u8], chunked: bool) -> std::io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    if !chunked {
        return stream.write_all(bytes).await;
    }
    stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.write_all(b"\r\n").await
}

async fn request_body(stream: &mut BufReader<TcpStream>, fields: &Fields) -> String {
    let mut body = Vec::new();
    if fields.get("transfer-encoding").is_some() {
        while let Some(size) = chunk_size(stream).await.filter(|&size| size > 0) {
            // The line end after the chunk is read with it.
            read_bytes(stream, size + 2, &mut body, |_| ()).await;
            body.truncate(body.len().saturating_sub(2));
        }
    } else if let Some(length) = fields.get("content-length").and_then(|text| text.parse().ok()) {
        read_bytes(stream, length, &mut body, |_| ()).await;
    }
    String::from_utf8_lossy(&body).into_owned()
}

//! The edge of `cargo xtask takeover`, as a process, and the website behind it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::bench::own::HOST;
use crate::shell::Failed;
use crate::takeover::SILENCE_MS;

/// Bytes of a page.
pub(crate) const BODY_BYTES: usize = 1_000;
/// Where a page is that says how often the website has been changed.
pub(crate) const VERSION_PATH: &str = "version";

/// What a page has in it; that of [`VERSION_PATH`] has its version, with zeros in front.
pub(crate) fn body_of(path: &str, version: u64) -> String {
    match path.parse::<usize>() {
        Ok(number) => char::from(b'a' + (number % 26) as u8).to_string().repeat(BODY_BYTES),
        Err(_) => format!("{version:0BODY_BYTES$}"),
    }
}

/// A website whose pages may be kept.
pub(crate) struct Website {
    address: SocketAddr,
    version: Arc<AtomicU64>,
}

impl Website {
    pub(crate) fn start() -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let version = Arc::new(AtomicU64::new(1));
        let shown = Arc::clone(&version);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shown = Arc::clone(&shown);
                std::thread::spawn(move || serve(stream, &shown));
            }
        });
        Ok(Self { address, version })
    }

    /// Changes it; the new version.
    pub(crate) fn change(&self) -> u64 {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// Until the edge leaves; an error is its matter, too.
fn serve(mut stream: TcpStream, version: &AtomicU64) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut first, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if first.is_empty() {
                first.clone_from(&line);
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
        let body = body_of(path, version.load(Ordering::SeqCst));
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes())?;
    }
}

/// What every process of the edge is started with.
pub(crate) struct Setup {
    pub(crate) binary: PathBuf,
    pub(crate) website: Website,
    folder: tempfile::TempDir,
}

impl Setup {
    /// Makes a certificate, too.
    pub(crate) fn new(binary: PathBuf) -> Result<Self, Failed> {
        let setup = Self { binary, website: Website::start()?, folder: tempfile::tempdir()? };
        let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()])?;
        std::fs::write(setup.cert(), made.cert.pem())?;
        std::fs::write(setup.key(), made.signing_key.serialize_pem())?;
        Ok(setup)
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.folder.path().join("site.crt")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("site.key")
    }
}

/// A process, killed when dropped.
pub(crate) struct Edge {
    child: Child,
    /// Where it speaks plainly, and where it speaks TLS.
    pub(crate) addresses: [SocketAddr; 2],
}

impl Edge {
    /// Returns when it serves.
    pub(crate) fn start(setup: &Setup) -> Result<Self, Failed> {
        let folder: &Path = setup.folder.path();
        let mut command = Command::new(&setup.binary);
        command.args(["edge", "--json", "--threads", "2", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"]);
        command.arg("--upstream").arg(format!("http://{}", setup.website.address));
        command.arg("--cert").arg(setup.cert()).arg("--key").arg(setup.key());
        command.arg("--disk").arg(format!("{}=1GiB", folder.join("disk").display()));
        command.arg("--handover").arg(folder.join("handover")).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let mut edge = Self { child, addresses: [SocketAddr::from(([127, 0, 0, 1], 0)); 2] };
        let ready: serde_json::Value =
            serde_json::from_str(&line).map_err(|error| Failed(format!("the edge said {line:?}: {error}")))?;
        for (address, (name, scheme)) in edge.addresses.iter_mut().zip([("url", "http://"), ("https", "https://")]) {
            let url = ready.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
            let parsed = url.trim_start_matches(scheme).parse();
            *address = parsed.map_err(|_| Failed(format!("no {name} in {line:?}")))?;
        }
        Ok(edge)
    }

    /// Waits for its end, which has to be a good one.
    pub(crate) fn ended(mut self) -> Result<(), Failed> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2 * SILENCE_MS) {
            if let Some(status) = self.child.try_wait()? {
                return if status.success() { Ok(()) } else { Err(Failed(format!("the edge ended with {status}"))) };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(Failed("the edge does not end".to_owned()))
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn terminate(self) -> Result<(), Failed> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        self.ended()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // Most have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

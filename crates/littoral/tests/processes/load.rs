//! Clients that go on asking while something happens to an edge, and to whom nothing may happen.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::edge::{ask, connect, connect_tls, until};

/// Pages that they ask for.
const PAGES: u64 = 20;
/// A process that is replaced keeps idle connections for a second more. A client that the machine has not let ask for half of
/// that has to expect that its connection is gone.
const IDLE: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    failed: Mutex<Vec<String>>,
}

/// Clients of four kinds: with and without TLS, with a connection that they keep and with one for each request.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(plain: SocketAddr, tls: SocketAddr, client: &Arc<ClientConfig>) -> Self {
        let shared = Arc::new(Shared::default());
        let clients = [(false, true), (false, false), (true, true), (true, false)].map(|(secure, keeps)| {
            let (shared, client) = (Arc::clone(&shared), Arc::clone(client));
            std::thread::spawn(move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    let on = if secure {
                        connect_tls(tls, &client).and_then(|stream| ask_on(stream, keeps, &shared))
                    } else {
                        connect(plain).and_then(|stream| ask_on(stream, keeps, &shared))
                    };
                    if let Err(error) = on {
                        let mut failed = shared.failed.lock().expect("not poisoned");
                        failed.push(format!("secure: {secure}, kept: {keeps}: {error}"));
                        return;
                    }
                }
            })
        });
        Self { shared, clients: clients.into() }
    }

    /// Waits until so many more requests have been answered.
    pub(crate) fn goes_on(&self, more: u64) {
        let wanted = self.shared.done.load(Ordering::Relaxed) + more;
        until("requests under load", || {
            let failed = self.shared.failed.lock().expect("not poisoned");
            assert!(failed.is_empty(), "{failed:?}");
            self.shared.done.load(Ordering::Relaxed) >= wanted
        });
    }

    /// Ends it: none may have failed.
    pub(crate) fn end(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().expect("no panic"));
        let failed = self.shared.failed.lock().expect("not poisoned");
        assert!(failed.is_empty(), "{failed:?}");
    }
}

/// Asks once, or until an answer is the last one of the connection.
fn ask_on<T: std::io::Read + std::io::Write>(mut stream: T, keeps: bool, shared: &Shared) -> std::io::Result<()> {
    let (mut answered, mut again) = (Instant::now(), false);
    loop {
        let number = shared.done.fetch_add(1, Ordering::Relaxed);
        let idle = answered.elapsed();
        let answer = match ask(&mut stream, "GET", &format!("/{}", number % PAGES)) {
            Err(_) if again && idle > IDLE => return Ok(()),
            answer => answer?,
        };
        (answered, again) = (Instant::now(), true);
        if answer.status != 200 {
            return Err(std::io::Error::other(answer.head));
        }
        if !keeps || !answer.keeps() || shared.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

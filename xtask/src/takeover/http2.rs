//! Clients of `cargo xtask takeover` that speak HTTP/2 over TLS: each has several streams at once on a connection, and opens
//! another one when it is told goodbye (GOAWAY). A stream that was begun before that has to be answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::bench::own::HOST;
use crate::shell::Failed;
use crate::takeover::process::body_of;
use crate::takeover::{Load, PATHS, SILENCE_MS};

/// Streams of a connection at once.
const STREAMS: usize = 16;

/// The clients, until they are told to stop.
pub(crate) fn clients(address: SocketAddr, config: &ClientConfig, count: usize, load: &Load) -> Result<(), Failed> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(join_all((0..count).map(|number| client(address, &config, number, load))));
    Ok(())
}

async fn client(address: SocketAddr, config: &Arc<ClientConfig>, number: usize, load: &Load) {
    let (mut kept, mut at) = (None, number);
    while load.goes_on(kept.is_some()) {
        let asked = async {
            let connection = match kept.take() {
                Some(connection) => connection,
                None => open(address, config).await?,
            };
            // It is there until a goodbye has come.
            let Ok(connection) = connection.ready().await else { return Ok(None) };
            let streams = (0..STREAMS).map(|stream| ask(connection.clone(), at + stream));
            let answers = join_all(streams).await;
            Ok::<_, Failed>(Some((connection, answers)))
        };
        match tokio::time::timeout(Duration::from_millis(SILENCE_MS), asked).await {
            Ok(Ok(Some((connection, answers)))) => {
                at += STREAMS;
                let mut again = true;
                for answer in answers {
                    match answer {
                        Ok(true) => drop(load.done.fetch_add(1, Ordering::Relaxed)),
                        Ok(false) => {
                            again = false;
                            load.refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(Failed(why)) => {
                            again = false;
                            load.fails("a stream of HTTP/2", &why);
                        }
                    }
                }
                load.last.fetch_add((!again).into(), Ordering::Relaxed);
                kept = Some(connection).filter(|_| again);
            }
            Ok(Ok(None)) => drop(load.last.fetch_add(1, Ordering::Relaxed)),
            Ok(Err(Failed(why))) => load.fails("a connection of HTTP/2", &why),
            Err(_) => load.fails("a connection of HTTP/2", "silence"),
        }
    }
}

async fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<SendRequest<Bytes>, Failed> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from(HOST)?, stream).await?;
    let (requests, connection) = h2::client::handshake(stream).await?;
    // Its end shows in the requests.
    tokio::spawn(async move { drop(connection.await) });
    Ok(requests)
}

/// False: nobody has looked at it, because the other end has said goodbye.
async fn ask(connection: SendRequest<Bytes>, at: usize) -> Result<bool, Failed> {
    let path = (at % PATHS).to_string();
    let request = Request::get(format!("https://site.example/{path}")).body(())?;
    let Ok(mut connection) = connection.ready().await else { return Ok(false) };
    let (response, _) = match connection.send_request(request, true) {
        Ok(sent) => sent,
        Err(error) if error.is_go_away() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let response = match response.await {
        Ok(response) => response,
        // Sent while the goodbye came: it has the number of the last stream that was looked at (RFC 9113 § 6.8), and this one
        // has a higher one. What every client may do is to ask again.
        Err(error) if error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR) => {
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let (status, mut body, mut bytes) = (response.status(), response.into_body(), Vec::new());
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    if status == StatusCode::OK && bytes == body_of(&path, 0).as_bytes() {
        return Ok(true);
    }
    Err(Failed(format!("{status} with another body")))
}

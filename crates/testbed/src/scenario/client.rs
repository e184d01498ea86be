//! A client that says exactly the bytes that it is told to, and sees everything that comes back: informational responses, how a
//! transfer ends, whether the connection is closed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use super::expect::{Fields, field};
use super::origin::Gate;

/// Longest head or body of a scenario, in bytes.
const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Longest wait for the server to close a connection, in milliseconds, where the answer may be that it does not. A server that
/// closes does it at once; one that is found open too early only makes a `closed = false` pass.
const CLOSE_MS: u64 = 500;

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Response {
    pub(super) interim: Vec<String>,
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    /// The transfer ended before the message did.
    pub(super) broken: bool,
}

/// Sends `bytes` from an address of one's own, and answers the connection.
pub(super) async fn send(to: SocketAddr, from: Option<IpAddr>, bytes: &[u8]) -> std::io::Result<BufReader<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind((from, 0).into())?;
    }
    let mut stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    stream.write_all(bytes).await?;
    Ok(BufReader::new(stream))
}

/// Reads one response. `gate` is told of each byte of the body.
pub(super) async fn read(stream: &mut BufReader<TcpStream>, to_head: bool, gate: &Gate) -> Result<Response, String> {
    let mut response = Response::default();
    loop {
        let (line, fields) = head(stream).await.ok_or("the connection was closed without a response")?;
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status: u16 = status.ok_or_else(|| format!("{line:?} is no status line"))?;
        if (100..200).contains(&status) && status != 101 {
            let named: Vec<String> =
                fields.0.iter().map(|(name, value)| format!(" {}: {value}", name.to_ascii_lowercase())).collect();
            response.interim.push(format!("{status}{}", named.concat()));
            continue;
        }
        (response.status, response.fields) = (status, fields);
        break;
    }
    if to_head || [101, 204, 304].contains(&response.status) {
        return Ok(response);
    }
    let mut reader = gate.client();
    if response.fields.get("transfer-encoding").is_some() {
        while let Some(size) = chunk_size(stream).await {
            if size == 0 {
                // Trailers are no part of any scenario.
                response.broken = line(stream).await.as_deref() != Some("");
                return Ok(response);
            }
            let whole = read_bytes(stream, size, &mut response.body, |bytes| reader.read(bytes)).await;
            if !whole || line(stream).await.as_deref() != Some("") {
                break;
            }
        }
        response.broken = true;
        return Ok(response);
    }
    let length = response.fields.get("content-length").map(|text| text.parse::<usize>());
    let length = length.transpose().map_err(|error| format!("Content-Length: {error}"))?;
    let whole = read_bytes(stream, length.unwrap_or(MAX_MESSAGE_BYTES), &mut response.body, |bytes| reader.read(bytes));
    response.broken = !whole.await && length.is_some();
    Ok(response)
}

/// Whether the server closes the connection.
pub(super) async fn closes(stream: &mut BufReader<TcpStream>) -> bool {
    let mut rest = [0; 1];
    let read = tokio::time::timeout(Duration::from_millis(CLOSE_MS), stream.read(&mut rest)).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

/// The first line and the fields of a message; nothing if the connection ends before.
pub(super) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Fields)> {
    let first = line(stream).await?;
    let mut fields = Fields::default();
    loop {
        let next = line(stream).await?;
        if next.is_empty() {
            return Some((first, fields));
        }
        fields.0.push(field(&next));
    }
}

/// A line without its end; nothing if the connection ends within it.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_MESSAGE_BYTES {
        match stream.read_u8().await.ok()? {
            b'\n' => return Some(String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned()),
            byte => bytes.push(byte),
        }
    }
    None
}

/// The size of the next chunk.
pub(super) async fn chunk_size(stream: &mut (impl AsyncRead + Unpin)) -> Option<usize> {
    let text = line(stream).await?;
    usize::from_str_radix(text.split(';').next()?.trim(), 16).ok()
}

/// Reads up to `length` bytes to the end of `into`; whether all came.
pub(super) async fn read_bytes(
    stream: &mut (impl AsyncRead + Unpin),
    length: usize,
    into: &mut Vec<u8>,
    mut seen: impl FnMut(usize),
) -> bool {
    let end = into.len() + length;
    let mut piece = [0; 4_096];
    while into.len() < end {
        let most = piece.len().min(end - into.len());
        let Some(room) = piece.get_mut(..most) else { return false };
        match stream.read(room).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => {
                into.extend_from_slice(room.get(..count).unwrap_or_default());
                seen(count);
            }
        }
    }
    true
}

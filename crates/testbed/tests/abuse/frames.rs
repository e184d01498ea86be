//! HTTP/2 by hand (RFC 9113): frames as bytes, and a client that does not keep to anything.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::measure::PATIENCE;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Settings: no response may be sent until a window is opened.
pub(crate) const NO_WINDOW: &[u8] = &[0, 4, 0, 0, 0, 0];

/// A frame on the wire.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The fields of `GET http://x/PATH`, none of which is put into the table.
pub(crate) fn get(path: &str) -> Vec<u8> {
    [&[0x82, 0x86, 0x04, u8::try_from(path.len()).expect("short")][..], path.as_bytes(), &[0x01, 1, b'x']].concat()
}

/// A request without a body.
pub(crate) fn request(stream: u32, fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, fields)
}

pub(crate) struct Client {
    stream: TcpStream,
    /// What has come and was not looked at.
    came: Vec<u8>,
}

impl Client {
    /// Connects, with these settings.
    pub(crate) async fn connect(address: SocketAddr, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await.expect("written");
        Self { stream, came: Vec::new() }
    }

    /// Sends, and takes what has come. False: the edge has ended the connection.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        let (mut read, mut write) = self.stream.split();
        let mut writing = std::pin::pin!(write.write_all(bytes));
        loop {
            let mut buffer = [0; 16 << 10];
            tokio::select! {
                written = &mut writing => return written.is_ok(),
                count = read.read(&mut buffer) => match count {
                    Ok(count @ 1..) => self.came.extend_from_slice(&buffer[..count]),
                    _ => return false,
                },
            }
        }
    }

    /// How it ends: the reason of GOAWAY, or `cut off` where that was lost behind what was still sent (a reset).
    pub(crate) async fn goodbye(mut self) -> String {
        let _ = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut self.came)).await.expect("ended in time");
        let mut goodbyes = self.frames().into_iter().filter(|(kind, ..)| *kind == GOAWAY);
        goodbyes.next_back().map_or("cut off".to_owned(), |(.., payload)| reason(payload.get(4..).unwrap_or_default()))
    }

    /// Reads until a stream is reset: the reason. `cut off`: the connection ended instead.
    pub(crate) async fn reset(&mut self) -> String {
        let reading = async {
            loop {
                if let Some((.., payload)) = self.frames().into_iter().find(|(kind, ..)| *kind == RST_STREAM) {
                    return reason(&payload);
                }
                if !matches!(self.stream.read_buf(&mut self.came).await, Ok(1..)) {
                    return "cut off".to_owned();
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("reset in time")
    }

    /// Whether a stream was reset by what has come so far.
    pub(crate) fn has_reset(&mut self) -> bool {
        while matches!(self.stream.try_read_buf(&mut self.came), Ok(1..)) {}
        self.frames().iter().any(|(kind, ..)| *kind == RST_STREAM)
    }

    /// Kind, stream and payload of the whole frames that came.
    fn frames(&self) -> Vec<(u8, u32, Vec<u8>)> {
        let (mut rest, mut frames) = (&*self.came, Vec::new());
        while let Some((head, after)) = rest.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            frames.push((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload.to_vec()));
            rest = after;
        }
        frames
    }
}

/// RFC 9113 § 7.
fn reason(code: &[u8]) -> String {
    match code.get(..4) {
        Some([0, 0, 0, 0]) => "no error".to_owned(),
        Some([0, 0, 0, 1]) => "protocol error".to_owned(),
        Some([0, 0, 0, 8]) => "cancel".to_owned(),
        Some([0, 0, 0, 11]) => "enhance your calm".to_owned(),
        other => format!("{other:?}"),
    }
}

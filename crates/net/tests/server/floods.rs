//! HTTP/2 from those who mean no good: raw frames, and how the connection ends.

use bytes::{BufMut, BytesMut};
use net::ServerLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::kit::{PATIENCE, Raw, Server, start};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// `GET http://x/`, of indexed fields but for the authority, which stays out of the table.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 1, b'x'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_uint(payload.len() as u64, 3);
    frame.put_u8(kind);
    frame.put_u8(flags);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame.to_vec()
}

fn request(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, block)
}

/// `GET http://x/PATH`.
fn get(path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).expect("short");
    [&[0x82, 0x86, 0x04, length][..], path.as_bytes(), &[0x01, 1, b'x']].concat()
}

/// Settings: no response may be sent until the window is opened.
fn no_window() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])
}

struct Client(TcpStream);

impl Client {
    async fn connect(server: &Server) -> Self {
        let mut stream = TcpStream::connect(server.address).await.expect("connect");
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.expect("written");
        Self(stream)
    }

    /// That the server has had enough is no failure.
    async fn write(&mut self, bytes: &[u8]) {
        let _ = tokio::time::timeout(PATIENCE, self.0.write_all(bytes)).await.expect("written in time");
    }

    /// The next frame: kind, flags, stream, payload. Nothing at the end.
    async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let read = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
        };
        tokio::time::timeout(PATIENCE, read).await.expect("a frame in time")
    }

    /// Reads to the end of the connection. The reasons of GOAWAY frames.
    async fn goodbye(mut self) -> Vec<u32> {
        let mut reasons = Vec::new();
        while let Some((kind, _, _, payload)) = self.frame().await {
            if kind == GOAWAY {
                reasons.push(u32::from_be_bytes(payload[4..8].try_into().expect("four")));
            }
        }
        reasons
    }

    /// Reads until this stream is reset, for which reason.
    async fn reset(&mut self, stream: u32) -> Option<u32> {
        loop {
            match self.frame().await? {
                (RST_STREAM, _, of, payload) if of == stream => {
                    return Some(u32::from_be_bytes(payload.try_into().expect("four")));
                }
                _ => {}
            }
        }
    }
}

/// The others are served as before.
async fn serves_others(server: &Server) {
    assert!(Raw::connect(server).await.is_open().await);
}

#[tokio::test]
async fn floods_of_control_frames_end_the_connection() {
    let server = start(ServerLimits::default()).await;
    let window_update = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    for (what, frame) in [
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("ping", frame(PING, 0, 0, &[0; 8])),
        ("priority", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1])),
        ("unknown", frame(0xbe, 0, 0, b"what is this")),
        ("window", window_update),
        ("acknowledgements of pings", frame(PING, 1, 0, &[0; 8])),
    ] {
        let client = Client::connect(&server).await;
        let (read, mut write) = client.0.into_split();
        // Without end: the server has to end it.
        let flood = frame.repeat(1_000);
        let writing = tokio::spawn(async move { while write.write_all(&flood).await.is_ok() {} });
        let mut read = read;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, read.read_to_end(&mut answer)).await.expect("ended in time");
        tokio::time::timeout(PATIENCE, writing).await.expect("cut off in time").expect("ended");
        // Whether the farewell gets through a connection that is full of the flood is chance.
        assert!(answer.len() < 1 << 20, "{what}: {} bytes in answer", answer.len());
    }
    serves_others(&server).await;
}

#[tokio::test]
async fn a_flood_that_stops_hears_why() {
    let server = start(ServerLimits::default()).await;
    let mut client = Client::connect(&server).await;
    client.write(&frame(PING, 0, 0, &[0; 8]).repeat(1_100)).await;
    assert_eq!(client.goodbye().await, [ENHANCE_YOUR_CALM]);
}

#[tokio::test]
async fn those_who_ask_for_something_may_send_more() {
    let server = start(ServerLimits::default()).await;
    let mut client = Client::connect(&server).await;
    for stream in (1..2_000).step_by(2) {
        let control = [frame(PING, 0, 0, &[0; 8]), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 9])].concat();
        client.write(&[request(stream, GET), control].concat()).await;
        loop {
            let (kind, flags, ..) = client.frame().await.expect("not closed");
            if kind == DATA && flags & END_STREAM != 0 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn continuation_without_end() {
    let server = start(ServerLimits::default()).await;
    let mut client = Client::connect(&server).await;
    client.write(&frame(HEADERS, END_STREAM, 1, GET)).await;
    // A field with a name of one letter and an empty value, again and again.
    client.write(&frame(CONTINUATION, 0, 1, &[0, 1, b'a', 0].repeat(10)).repeat(1_000)).await;
    let reasons = client.goodbye().await;
    assert!(reasons.is_empty() || reasons == [ENHANCE_YOUR_CALM], "{reasons:?}");
    serves_others(&server).await;
}

#[tokio::test]
async fn heads_are_bounded_however_small_they_are_on_the_wire() {
    let limits = ServerLimits { head_bytes: 8 << 10, ..ServerLimits::default() };
    let server = start(limits).await;
    let mut client = Client::connect(&server).await;
    // A field of 4,000 bytes goes into the table once; each byte after that is a copy of it.
    let value = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4_000]].concat();
    client.write(&request(1, &[GET, &value].concat())).await;
    client.write(&request(3, &[GET, &[0xbe; 3]].concat())).await;
    let mut statuses = Vec::new();
    while statuses.len() < 2 {
        let (kind, _, stream, payload) = client.frame().await.expect("not closed");
        if kind == HEADERS {
            // The status is the first field: indexed if it is 200, else a literal.
            statuses.push((stream, payload[0] == 0x88));
        }
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [(1, true), (3, false)]);
    // What is many times too large is no mistake any more.
    client.write(&request(5, &[GET, &[0xbe; 1_000]].concat())).await;
    let reasons = client.goodbye().await;
    assert!(matches!(reasons.as_slice(), [1 | ENHANCE_YOUR_CALM]), "{reasons:?}");
}

#[tokio::test]
async fn the_table_cannot_be_used_to_fill_memory() {
    let server = start(ServerLimits::default()).await;
    let mut client = Client::connect(&server).await;
    client.write(&no_window()).await;
    let value = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4_000]].concat();
    client.write(&request(1, &[GET, &value].concat())).await;
    // 15 copies of it are within the bounds of one request, and nothing of the answers can be sent.
    for stream in (3..40_000).step_by(2) {
        client.write(&request(stream, &[GET, &[0xbe; 15]].concat())).await;
        if stream % 100 == 1 {
            // Streams beyond those at once are refused; so many refusals are more than mistakes.
            let refused = tokio::time::timeout(std::time::Duration::from_millis(1), client.0.readable()).await;
            let mut buffer = [0; 64 << 10];
            if refused.is_ok() && matches!(client.0.try_read(&mut buffer), Ok(0)) {
                break;
            }
        }
    }
    let reasons = client.goodbye().await;
    assert!(reasons.iter().all(|&reason| reason == ENHANCE_YOUR_CALM || reason == 0), "{reasons:?}");
    serves_others(&server).await;
}

#[tokio::test]
async fn a_response_that_nobody_takes_is_given_up() {
    let server = start(ServerLimits { stall_ms: 100, h2_resets: 2, ..ServerLimits::default() }).await;
    let mut client = Client::connect(&server).await;
    client.write(&[no_window(), request(1, GET), request(3, &get("/endless"))].concat()).await;
    assert_eq!(client.reset(1).await, Some(CANCEL));
    // A byte now and then is not enough.
    let (mut read, mut write) = client.0.into_split();
    let drip = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(10));
        loop {
            ticks.tick().await;
            let more = [frame(WINDOW_UPDATE, 0, 5, &[0, 0, 0, 1]), request(7, &get("/endless"))].concat();
            if write.write_all(&[request(5, &get("/endless")), more].concat()).await.is_err() {
                return;
            }
        }
    });
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, read.read_to_end(&mut rest)).await.expect("ended in time");
    tokio::time::timeout(PATIENCE, drip).await.expect("cut off in time").expect("ended");
}

#[tokio::test]
async fn who_takes_a_byte_now_and_then_is_too_slow() {
    let server = start(ServerLimits { stall_ms: 200, ..ServerLimits::default() }).await;
    let mut client = Client::connect(&server).await;
    client.write(&[no_window(), request(1, &get("/endless"))].concat()).await;
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
    loop {
        tokio::select! {
            _ = ticks.tick() => client.write(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await,
            frame = async {
                let mut head = [0; 9];
                client.0.peek(&mut head).await.map(|_| ())
            } => {
                frame.expect("not closed");
                let (kind, _, _, payload) = client.frame().await.expect("not closed");
                match kind {
                    RST_STREAM => return assert_eq!(payload, CANCEL.to_be_bytes()),
                    DATA => assert_eq!(payload.len(), 1),
                    _ => {}
                }
            }
        }
    }
}

#[tokio::test]
async fn who_lets_many_responses_stand_still_is_disconnected() {
    let server = start(ServerLimits { stall_ms: 50, h2_resets: 5, ..ServerLimits::default() }).await;
    let mut client = Client::connect(&server).await;
    client.write(&no_window()).await;
    for stream in (1..21).step_by(2) {
        client.write(&request(stream, &get("/endless"))).await;
    }
    assert_eq!(client.goodbye().await, [ENHANCE_YOUR_CALM]);
}

#[tokio::test]
async fn windows_are_not_opened_beyond_their_size() {
    let server = start(ServerLimits::default()).await;
    let mut client = Client::connect(&server).await;
    client.write(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)).await;
    assert_eq!(client.goodbye().await, [FLOW_CONTROL_ERROR]);
}

#[tokio::test]
async fn rapid_resets_on_the_wire() {
    let server = start(ServerLimits { h2_resets: 50, ..ServerLimits::default() }).await;
    let mut client = Client::connect(&server).await;
    for stream in (1..10_000).step_by(2) {
        let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        client.write(&[request(stream, &get("/forever")), reset].concat()).await;
    }
    let reasons = client.goodbye().await;
    assert!(reasons.iter().all(|&reason| reason == ENHANCE_YOUR_CALM), "{reasons:?}");
    serves_others(&server).await;
}

#[tokio::test]
async fn streams_beyond_those_at_once_are_refused_to_be_tried_again() {
    const REFUSED_STREAM: u32 = 7;
    let server = start(ServerLimits { h2_streams: 3, ..ServerLimits::default() }).await;
    let mut client = Client::connect(&server).await;
    for stream in (1..9).step_by(2) {
        client.write(&request(stream, &get("/forever"))).await;
    }
    assert_eq!(client.reset(7).await, Some(REFUSED_STREAM));
}

#[tokio::test]
async fn a_client_that_sends_and_never_reads_is_cut_off() {
    let server = start(ServerLimits { stall_ms: 100, connections: 1, ..ServerLimits::default() }).await;
    let mut client = Client::connect(&server).await;
    client.write(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await;
    client.write(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0])).await;
    for stream in (1..200).step_by(2) {
        client.write(&request(stream, &get("/endless"))).await;
    }
    // There is one place only: somebody else is served once the lazy one has lost it.
    serves_others(&server).await;
}

#[tokio::test]
async fn nonsense_ends_with_a_reason() {
    let server = start(ServerLimits::default()).await;
    for nonsense in [
        frame(DATA, 0, 1, b"no stream"),
        frame(HEADERS, END_HEADERS, 2, GET),
        frame(CONTINUATION, END_HEADERS, 1, GET),
        frame(SETTINGS, 0, 1, &[]),
    ] {
        let mut client = Client::connect(&server).await;
        client.write(&nonsense).await;
        assert_eq!(client.goodbye().await, [PROTOCOL_ERROR], "{nonsense:?}");
    }
}

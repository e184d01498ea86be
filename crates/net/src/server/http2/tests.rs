//! What frames do to a connection, case by case: each limit at its edge, and each mistake with what it ends.

use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;

use super::connection::{CONNECTION_WINDOW_BYTES, Core, STREAM_WINDOW_BYTES, Step};
use super::frame::{HEAD_BYTES, Head, PAYLOAD_BYTES, Reason, flag, kind};
use super::requests::Asked;
use super::streams::{Handle, Room, lock};
use crate::server::hpack::{self, TABLE_BYTES};
use crate::{Peer, ServerLimits};

const ENDS: u8 = flag::END_HEADERS | flag::END_STREAM;
/// `GET http://x/`.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 1, b'x'];
/// Bytes of the list of fields that are taken.
const LIST_BYTES: usize = 1_000;

/// A connection with its client, and what was asked on it.
struct Talk {
    core: Arc<Mutex<Core>>,
    input: BytesMut,
    asked: Vec<(Handle, Box<Asked>)>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&Head { length: payload.len(), kind, flags, stream }.bytes(), payload].concat()
}

fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, block)
}

/// A request with these fields besides those of [`GET`].
fn get(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = GET.to_vec();
    for (name, value) in fields {
        hpack::field(&mut block, name, value.as_bytes());
    }
    headers(stream, flags, &block)
}

fn number(kind: u8, stream: u32, number: u32) -> Vec<u8> {
    frame(kind, 0, stream, &number.to_be_bytes())
}

fn setting(name: u8, value: u32) -> Vec<u8> {
    frame(kind::SETTINGS, 0, 0, &[&[0, name][..], &value.to_be_bytes()].concat())
}

impl Talk {
    /// One whose settings are exchanged.
    fn new() -> Self {
        let peer = Peer { address: "127.0.0.1:1".parse().expect("address"), secure: false };
        let limits = ServerLimits { head_bytes: LIST_BYTES, h2_streams: 4, ..ServerLimits::default() };
        let core = Arc::new(Mutex::new(Core::new(peer, None, limits)));
        let mut talk = Self { core, input: BytesMut::new(), asked: Vec::new() };
        let first = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(kind::SETTINGS, 0, 0, &[])[..]].concat();
        assert_eq!(talk.say(&first), Ok("settings window:0:983041 settings-ack".to_owned()));
        talk
    }

    /// What is answered to these frames, or what the connection ends with. No request is answered.
    fn say(&mut self, frames: &[u8]) -> Result<String, Reason> {
        self.input.extend_from_slice(frames);
        loop {
            let step = lock(&self.core).advance(&mut self.input)?;
            match step {
                Step::More => return Ok(self.heard()),
                Step::Request(asked) => self.asked.push((Handle::new(&self.core, asked.stream), asked)),
                Step::Reset => self.asked.retain(|(handle, _)| handle.poll_reset(&mut noop()).is_pending()),
                Step::Full | Step::Body(..) => panic!("none of this is asked for here"),
            }
        }
    }

    fn heard(&mut self) -> String {
        lock(&self.core).give_windows(&mut noop());
        let bytes = lock(&self.core).to_write().to_vec();
        lock(&self.core).wrote(bytes.len());
        let (mut rest, mut heard) = (bytes.as_slice(), Vec::new());
        while let Some(head) = Head::read(rest) {
            let payload = &rest[HEAD_BYTES..HEAD_BYTES + head.length];
            let last = payload.last_chunk::<4>().map(|number| u32::from_be_bytes(*number)).unwrap_or_default();
            heard.push(match head.kind {
                kind::SETTINGS => if head.has(flag::ACK) { "settings-ack" } else { "settings" }.to_owned(),
                kind::PING => if head.has(flag::ACK) { "ping-ack" } else { "ping" }.to_owned(),
                kind::RST_STREAM => format!("reset:{}:{last}", head.stream),
                kind::WINDOW_UPDATE => format!("window:{}:{last}", head.stream),
                kind::GOAWAY => format!("goaway:{}:{last}", u32::from_be_bytes(*payload.first_chunk().expect("four"))),
                kind::HEADERS => format!("headers:{}:{:02x}", head.stream, payload[0]),
                kind::DATA => format!("data:{}:{}:{}", head.stream, payload.len(), head.flags),
                other => format!("{other}:{}:{}", head.stream, payload.len()),
            });
            rest = &rest[HEAD_BYTES + head.length..];
        }
        heard.join(" ")
    }

    /// What the last request came to: its method and path, or why it is refused.
    fn last(&self) -> String {
        match &self.asked.last().expect("a request").1.request {
            Ok(request) => format!("{} {}", request.method(), request.uri()),
            Err(refusal) => refusal.to_string(),
        }
    }

    /// Takes what there is of the body of the last request, and how it goes on.
    fn body(&mut self) -> (usize, &'static str) {
        let Ok(request) = &mut self.asked.last_mut().expect("a request").1.request else { panic!("refused") };
        let mut taken = 0;
        loop {
            match std::pin::Pin::new(request.body_mut()).poll_frame(&mut noop()) {
                std::task::Poll::Ready(Some(Ok(frame))) => taken += frame.into_data().expect("data").len(),
                std::task::Poll::Ready(Some(Err(_))) => return (taken, "broken"),
                std::task::Poll::Ready(None) => return (taken, "whole"),
                std::task::Poll::Pending => return (taken, "open"),
            }
        }
    }
}

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[test]
fn mistakes_that_end_the_connection() {
    let open = get(1, flag::END_HEADERS, &[]);
    let with = |more: Vec<u8>| [open.clone(), more].concat();
    let cases = [
        ("DATA without a stream", frame(kind::DATA, 0, 0, b"x"), Reason::Protocol),
        ("DATA before its request", frame(kind::DATA, 0, 1, b"x"), Reason::Protocol),
        ("more padding than there is", with(frame(kind::DATA, flag::PADDED, 1, &[2, 0])), Reason::Protocol),
        ("a request without a stream", headers(0, ENDS, GET), Reason::Protocol),
        ("a request on our side's stream", headers(2, ENDS, GET), Reason::Protocol),
        (
            "a stream that was passed over",
            [headers(3, ENDS, GET), headers(1, ENDS, GET)].concat(),
            Reason::StreamClosed,
        ),
        ("priority in too few bytes", headers(1, ENDS | flag::PRIORITY, &[0; 4]), Reason::Protocol),
        ("a block that goes on elsewhere", [headers(1, 1, GET), frame(9, 4, 3, &[])].concat(), Reason::Protocol),
        (
            "a block in two with a ping",
            [headers(1, 1, GET), frame(kind::PING, 0, 0, &[0; 8])].concat(),
            Reason::Protocol,
        ),
        ("the rest of no block", frame(kind::CONTINUATION, 4, 1, GET), Reason::Protocol),
        ("priority of nothing", frame(kind::PRIORITY, 0, 0, &[0; 5]), Reason::Protocol),
        ("a reset of nothing", number(kind::RST_STREAM, 0, 8), Reason::Protocol),
        ("a reset before its request", number(kind::RST_STREAM, 1, 8), Reason::Protocol),
        ("a short reset", with(frame(kind::RST_STREAM, 0, 1, &[0; 3])), Reason::FrameSize),
        ("settings of a stream", frame(kind::SETTINGS, 0, 1, &[]), Reason::Protocol),
        ("settings cut off", frame(kind::SETTINGS, 0, 0, &[0; 5]), Reason::FrameSize),
        ("an acknowledgement with settings", frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]), Reason::FrameSize),
        ("a window too large", setting(4, 1 << 31), Reason::FlowControl),
        ("a promise", frame(kind::PUSH_PROMISE, 4, 1, &[0; 4]), Reason::Protocol),
        ("a ping of a stream", frame(kind::PING, 0, 1, &[0; 8]), Reason::Protocol),
        ("a short ping", frame(kind::PING, 0, 0, &[0; 7]), Reason::FrameSize),
        ("a farewell to a stream", frame(kind::GOAWAY, 0, 1, &[0; 8]), Reason::Protocol),
        ("a short farewell", frame(kind::GOAWAY, 0, 0, &[0; 7]), Reason::FrameSize),
        ("a window opened by nothing", number(kind::WINDOW_UPDATE, 0, 0), Reason::Protocol),
        ("a window before its request", number(kind::WINDOW_UPDATE, 1, 1), Reason::Protocol),
        ("a short window", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]), Reason::FrameSize),
        ("a window beyond its end", number(kind::WINDOW_UPDATE, 0, 0x7fff_ffff), Reason::FlowControl),
        (
            "a stream's window beyond its end, by settings",
            with([number(kind::WINDOW_UPDATE, 1, 0x7fff_0000), setting(4, 0x1_0000)].concat()),
            Reason::FlowControl,
        ),
        ("a large frame", frame(0xbe, 0, 0, &vec![0; PAYLOAD_BYTES + 1]), Reason::FrameSize),
        ("nonsense for fields", headers(1, ENDS, &[0x80]), Reason::Compression),
        ("a table too large", headers(1, ENDS, &[&[0x3f, 0xe2, 0x1f][..], GET].concat()), Reason::Compression),
        (
            "DATA on a stream that was never refused",
            [headers(3, ENDS, GET), frame(0, 0, 1, b"x")].concat(),
            Reason::StreamClosed,
        ),
    ];
    for (what, frames, reason) in cases {
        assert_eq!(Talk::new().say(&frames), Err(reason), "{what}");
    }
    let peer = Peer { address: "127.0.0.1:1".parse().expect("address"), secure: false };
    for (what, bytes) in [
        ("another preface", b"PRI * HTTP/3".to_vec()),
        ("no settings", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &headers(1, ENDS, GET)[..]].concat()),
        ("taken settings first", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(kind::SETTINGS, 1, 0, &[])[..]].concat()),
    ] {
        let ended = Core::new(peer, None, ServerLimits::default()).advance(&mut BytesMut::from(bytes.as_slice()));
        assert_eq!(ended.err(), Some(Reason::Protocol), "{what}");
    }
}

#[test]
fn mistakes_that_end_a_stream() {
    let body = |more: Vec<u8>| [get(1, flag::END_HEADERS, &[]), more].concat();
    let sized = |length: &str, more: Vec<u8>| [get(1, flag::END_HEADERS, &[("content-length", length)]), more].concat();
    let upper = [GET, &[0, 1, b'A', 1, b'b']].concat();
    for (what, frames, answer) in [
        ("upper case", headers(1, ENDS, &upper), "reset:1:1"),
        ("no path", headers(1, ENDS, &[0x82, 0x86]), "reset:1:1"),
        ("a method behind a field", headers(1, ENDS, &[0x86, 0x84, 0, 1, b'a', 0, 0x82]), "reset:1:1"),
        ("a field about the connection", get(1, ENDS, &[("connection", "close")]), "reset:1:1"),
        ("a length and nothing", get(1, ENDS, &[("content-length", "1")]), "reset:1:1"),
        ("more than the length", sized("1", frame(0, 0, 1, b"ab")), "reset:1:1"),
        ("less than the length", sized("2", frame(0, flag::END_STREAM, 1, b"a")), "reset:1:1"),
        ("trailers before the length", sized("2", headers(1, ENDS, &[])), "reset:1:1"),
        ("trailers that are not the end", body(headers(1, flag::END_HEADERS, &[])), "reset:1:1"),
        ("trailers with a method", body(headers(1, ENDS, &[0x82])), "reset:1:1"),
        ("a window opened by nothing", body(number(kind::WINDOW_UPDATE, 1, 0)), "reset:1:1"),
        ("a window beyond its end", body(number(kind::WINDOW_UPDATE, 1, 0x7fff_ffff)), "reset:1:3"),
        ("priority of a wrong size", body(frame(kind::PRIORITY, 0, 1, &[0; 4])), "reset:1:6"),
        ("DATA behind the end", [headers(1, ENDS, GET), frame(0, 0, 1, b"x")].concat(), "reset:1:5"),
        ("trailers behind the end", [headers(1, ENDS, GET), headers(1, ENDS, &[])].concat(), "reset:1:5"),
        // What is still on its way when a stream is reset is borne.
        ("DATA behind a reset", sized("1", frame(0, 0, 1, b"ab").repeat(3)), "reset:1:1"),
        ("trailers behind a reset", sized("1", [frame(0, 0, 1, b"ab"), headers(1, ENDS, &[])].concat()), "reset:1:1"),
        ("a reset behind a reset", sized("1", [frame(0, 0, 1, b"ab"), number(3, 1, 8)].concat()), "reset:1:1"),
    ] {
        let mut talk = Talk::new();
        assert_eq!(talk.say(&frames), Ok(answer.to_owned()), "{what}");
        // And no other.
        assert_eq!(talk.say(&headers(3, ENDS, GET)), Ok(String::new()), "{what}");
        assert_eq!(talk.last(), "GET http://x/", "{what}");
    }
}

#[test]
fn what_is_no_mistake() {
    let mut talk = Talk::new();
    for (what, frames, answer) in [
        ("a frame that nobody knows", frame(0xbe, 0xff, 7, b"?"), ""),
        ("a setting that nobody knows", setting(99, 1), "settings-ack"),
        ("a farewell", frame(kind::GOAWAY, 0, 0, &[0; 8]), ""),
        ("a ping", frame(kind::PING, 0, 0, &[7; 8]), "ping-ack"),
        ("an answer to no ping", frame(kind::PING, flag::ACK, 0, &[7; 8]), ""),
        (
            "a stream that depends on itself",
            headers(1, ENDS | flag::PRIORITY, &[&[0, 0, 0, 1, 0][..], GET].concat()),
            "",
        ),
        ("priority of a stream that is to come", frame(kind::PRIORITY, 0, 9, &[0, 0, 0, 9, 0]), ""),
        (
            "a block in pieces",
            [headers(3, 1, &GET[..2]), frame(9, 0, 3, &GET[2..3]), frame(9, 4, 3, &GET[3..])].concat(),
            "",
        ),
        ("a padded request", headers(5, ENDS | flag::PADDED, &[&[2][..], GET, &[0, 0]].concat()), ""),
        ("a reset", number(kind::RST_STREAM, 5, 8), ""),
        ("a window of a stream that is gone", number(kind::WINDOW_UPDATE, 5, 9), ""),
        ("a reset of it", number(kind::RST_STREAM, 5, 8), ""),
        ("priority of it", frame(kind::PRIORITY, 0, 5, &[0; 5]), ""),
        ("streams passed over", headers(11, flag::END_HEADERS, GET), ""),
        ("an empty body", frame(kind::DATA, flag::END_STREAM, 11, b""), ""),
    ] {
        assert_eq!(talk.say(&frames), Ok(answer.to_owned()), "{what}");
    }
    assert_eq!(talk.asked.len(), 3);
    assert_eq!((talk.last(), talk.body()), ("GET http://x/".to_owned(), (0, "whole")));
}

#[test]
fn continuations_and_blocks_are_bounded() {
    let cut = |frames: usize| {
        let middle = frame(kind::CONTINUATION, 0, 1, &[]).repeat(frames - 1);
        [headers(1, flag::END_STREAM, GET), middle, frame(kind::CONTINUATION, flag::END_HEADERS, 1, &[])].concat()
    };
    assert_eq!(Talk::new().say(&cut(16)), Ok(String::new()));
    assert_eq!(Talk::new().say(&cut(17)), Err(Reason::Calm));
    let long = |bytes: usize| {
        let mut block = GET.to_vec();
        hpack::literal(&mut block, "x", bytes - GET.len() - 6);
        block.resize(bytes, b'y');
        let (first, second) = block.split_at(300);
        [headers(1, flag::END_STREAM, first), frame(9, flag::END_HEADERS, 1, second)].concat()
    };
    let mut talk = Talk::new();
    assert_eq!(talk.say(&long(2 * LIST_BYTES)), Ok(String::new()));
    assert!(talk.last().contains("too long"), "{}", talk.last());
    assert_eq!(Talk::new().say(&long(2 * LIST_BYTES + 1)), Err(Reason::Calm));
}

#[test]
fn lists_of_fields_are_bounded() {
    // The four of GET count 42, 43, 38 and 43 bytes.
    let value = |list: usize| "y".repeat(list - 166 - 33);
    for (list, refused) in [(LIST_BYTES, false), (LIST_BYTES + 1, true)] {
        let mut talk = Talk::new();
        assert_eq!(talk.say(&get(1, ENDS, &[("x", &value(list))])), Ok(String::new()));
        assert_eq!(talk.last().contains("too long"), refused, "{list}");
    }
    // The table's largest entry, again and again: a few bytes that would be many.
    let mut block = GET.to_vec();
    block.extend_from_slice(&[0x40, 1, b'x']);
    let length = LIST_BYTES - 100;
    block.extend_from_slice(&[0x7f, u8::try_from((length - 127) & 0x7f | 0x80).expect("seven bits")]);
    block.push(u8::try_from((length - 127) >> 7).expect("seven bits"));
    block.resize(block.len() + length, b'y');
    assert!(length + 33 < TABLE_BYTES);
    for (copies, outcome) in [(2, Ok(String::new())), (4, Err(Reason::Calm))] {
        let bomb = [&block[..], &vec![0xbe; copies]].concat();
        assert_eq!(Talk::new().say(&headers(1, ENDS, &bomb)), outcome, "{copies}");
    }
}

#[test]
fn streams_at_once_are_bounded() {
    let mut talk = Talk::new();
    for stream in [1, 3, 5, 7] {
        assert_eq!(talk.say(&headers(stream, ENDS, GET)), Ok(String::new()));
    }
    assert_eq!(talk.say(&headers(9, ENDS, GET)), Ok("reset:9:7".to_owned()));
    // One that is taken back makes room in the same breath.
    assert_eq!(talk.say(&[number(3, 1, 8), headers(11, ENDS, GET)].concat()), Ok(String::new()));
    assert_eq!(talk.say(&headers(13, flag::END_HEADERS, GET)), Ok("reset:13:7".to_owned()));
    assert_eq!(talk.say(&frame(kind::DATA, 0, 13, b"on its way")), Ok(String::new()));
    talk.asked.clear();
    talk.heard();
    assert_eq!(talk.say(&headers(15, ENDS, GET)), Ok(String::new()));
    // Asking for what will be refused is work, too.
    let mut talk = Talk::new();
    let flood: Vec<u8> = (0..2_000).flat_map(|n| headers(2 * n + 1, ENDS, GET)).collect();
    assert_eq!(talk.say(&flood), Err(Reason::Calm));
}

/// Streams that we reset because of what the client does to them (CVE-2025-8671).
#[test]
fn mistakes_are_bounded() {
    let mut talk = Talk::new();
    for stream in (1..201).step_by(2) {
        let mistake = [headers(stream, ENDS, GET), number(kind::WINDOW_UPDATE, stream, 0)].concat();
        assert_eq!(talk.say(&mistake), Ok(format!("reset:{stream}:1")));
        talk.asked.clear();
    }
    assert_eq!(talk.say(&[headers(201, ENDS, GET), number(8, 201, 0)].concat()), Err(Reason::Calm));
}

#[test]
fn empty_data_is_bounded() {
    let mut talk = Talk::new();
    assert_eq!(talk.say(&get(1, flag::END_HEADERS, &[])), Ok(String::new()));
    assert_eq!(talk.say(&frame(kind::DATA, 0, 1, &[]).repeat(999)), Ok(String::new()));
    assert_eq!(talk.say(&frame(kind::DATA, 0, 1, b"x").repeat(2_000)), Ok(String::new()), "others bring something");
    assert_eq!(talk.say(&frame(kind::DATA, flag::PADDED, 1, &[1, 0]).repeat(2)), Err(Reason::Calm));
}

#[test]
fn windows_of_bodies_open_as_they_are_taken() {
    let mut talk = Talk::new();
    talk.say(&get(1, flag::END_HEADERS, &[])).expect("a request");
    let full = frame(kind::DATA, 0, 1, &vec![b'x'; PAYLOAD_BYTES]);
    let window = STREAM_WINDOW_BYTES as usize;
    assert_eq!(talk.say(&full.repeat(window / PAYLOAD_BYTES)), Ok(String::new()));
    assert_eq!(talk.body(), (window, "open"));
    assert_eq!(talk.heard(), format!("window:1:{window}"));
    assert_eq!(talk.say(&full.repeat(4)), Ok(String::new()));
    // One byte more than there is room for.
    assert_eq!(talk.say(&frame(kind::DATA, 0, 1, b"x")), Ok("reset:1:3".to_owned()));
    assert_eq!(talk.body(), (window, "broken"));
    // The connection's window opens by all of that, whoever took it.
    let mut sent = 2 * window + 1;
    let mut opened = String::new();
    while opened.is_empty() {
        talk.say(&frame(kind::DATA, 0, 1, &vec![b'x'; PAYLOAD_BYTES])).map(|heard| opened = heard).expect("borne");
        sent += PAYLOAD_BYTES;
    }
    assert_eq!(opened, format!("window:0:{sent}"));
    assert!(sent >= CONNECTION_WINDOW_BYTES as usize / 2);
}

#[test]
fn bodies_that_nobody_takes_fill_the_connection_and_no_more() {
    let mut talk = Talk::new();
    {
        let mut core = lock(&talk.core);
        core.limits.h2_streams = 100;
    }
    let streams = CONNECTION_WINDOW_BYTES / STREAM_WINDOW_BYTES;
    for stream in 0..streams {
        talk.say(&get(2 * stream + 1, flag::END_HEADERS, &[])).expect("a request");
        let data = frame(kind::DATA, 0, 2 * stream + 1, &vec![b'x'; PAYLOAD_BYTES]);
        assert_eq!(talk.say(&data.repeat(4)), Ok(String::new()));
    }
    let stream = 2 * streams + 1;
    talk.say(&get(stream, flag::END_HEADERS, &[])).expect("a request");
    assert_eq!(talk.say(&frame(kind::DATA, 0, stream, b"x")), Err(Reason::FlowControl));
}

#[test]
fn who_does_not_want_the_rest_of_a_body_says_so_at_the_end() {
    let mut talk = Talk::new();
    talk.say(&get(1, flag::END_HEADERS, &[])).expect("a request");
    let (handle, asked) = talk.asked.pop().expect("a request");
    drop(asked);
    assert_eq!(talk.say(&frame(kind::DATA, 0, 1, b"abc")), Ok(String::new()));
    handle.respond(StatusCode::OK, &HeaderMap::new(), true).expect("open");
    drop(handle);
    assert_eq!(talk.heard(), "headers:1:88 reset:1:0");
    assert_eq!(talk.say(&frame(kind::DATA, 0, 1, b"on its way")), Ok(String::new()));
    assert!(lock(&talk.core).has_no_streams());
    // And who still has it gets it, after the answer.
    talk.say(&get(3, flag::END_HEADERS, &[])).expect("a request");
    talk.asked[0].0.respond(StatusCode::OK, &HeaderMap::new(), true).expect("open");
    assert_eq!(talk.say(&frame(kind::DATA, flag::END_STREAM, 3, b"late")), Ok("headers:3:88".to_owned()));
    assert_eq!(talk.body(), (4, "whole"));
}

#[test]
fn answers_keep_to_the_windows() {
    let mut talk = Talk::new();
    talk.say(&[setting(4, 10), headers(1, ENDS, GET), headers(3, ENDS, GET)].concat()).expect("requests");
    let room = |talk: &Talk, at: usize| talk.asked[at].0.poll_room(&mut noop()).expect("open");
    assert_eq!(room(&talk, 0), Room::Bytes(10));
    let text = |bytes| Bytes::from(vec![b'x'; bytes]);
    talk.asked[0].0.data(&text(10), false).expect("open");
    assert_eq!((room(&talk, 0), room(&talk, 1)), (Room::Window, Room::Bytes(10)));
    // Settings change the windows of open streams, below nothing, too.
    talk.say(&setting(4, 7)).expect("settings");
    assert_eq!((room(&talk, 0), room(&talk, 1)), (Room::Window, Room::Bytes(7)));
    talk.say(&number(kind::WINDOW_UPDATE, 1, 3)).expect("a window");
    assert_eq!(room(&talk, 0), Room::Window);
    talk.say(&number(kind::WINDOW_UPDATE, 1, 1_000_000)).expect("a window");
    assert_eq!(room(&talk, 0), Room::Bytes(PAYLOAD_BYTES));
    // The connection's window: 65,535 in all. What waits to be written comes before.
    for _ in 0..3 {
        talk.asked[0].0.data(&text(PAYLOAD_BYTES), false).expect("open");
    }
    assert_eq!(room(&talk, 0), Room::Bytes(PAYLOAD_BYTES - 11));
    talk.asked[0].0.data(&text(PAYLOAD_BYTES - 11), false).expect("open");
    assert_eq!((room(&talk, 0), room(&talk, 1)), (Room::Window, Room::Window));
    talk.heard();
    talk.say(&number(kind::WINDOW_UPDATE, 0, 1_000_000)).expect("a window");
    assert_eq!(room(&talk, 0), Room::Bytes(PAYLOAD_BYTES));
    for _ in 0..4 {
        talk.asked[0].0.data(&text(PAYLOAD_BYTES), false).expect("open");
    }
    assert_eq!((room(&talk, 0), room(&talk, 1)), (Room::Turn, Room::Turn));
    talk.heard();
    assert_eq!(room(&talk, 1), Room::Bytes(7));
    talk.asked[1].0.data(&text(7), true).expect("open");
    assert_eq!(talk.heard(), "data:3:7:1");
}

#[test]
fn a_smaller_table_is_said_once() {
    let mut talk = Talk::new();
    let respond = |talk: &mut Talk, stream: u32| {
        talk.say(&headers(stream, ENDS, GET)).expect("a request");
        let (handle, _) = talk.asked.pop().expect("a request");
        handle.respond(StatusCode::OK, &HeaderMap::new(), true).expect("open");
        drop(handle);
        talk.heard()
    };
    assert_eq!(respond(&mut talk, 1), "headers:1:88");
    talk.say(&setting(1, 4_095)).expect("settings");
    assert_eq!(respond(&mut talk, 3), "headers:3:20");
    assert_eq!(respond(&mut talk, 5), "headers:5:88");
    talk.say(&setting(1, 100_000)).expect("settings");
    assert_eq!(respond(&mut talk, 7), "headers:7:88");
}

#[test]
fn the_end_is_announced_and_then_said() {
    let mut talk = Talk::new();
    talk.say(&headers(1, ENDS, GET)).expect("a request");
    lock(&talk.core).drain();
    assert_eq!(talk.heard(), "goaway:2147483647:0 ping");
    // What was on its way is answered; what begins when the client has heard of the end is not.
    talk.say(&headers(3, ENDS, GET)).expect("a request");
    assert_eq!(talk.say(&frame(kind::PING, flag::ACK, 0, b"farewell")), Ok("goaway:3:0".to_owned()));
    let late = [headers(5, flag::END_HEADERS, GET), frame(kind::DATA, flag::END_STREAM, 5, b"late")].concat();
    assert_eq!(talk.say(&late), Ok(String::new()));
    assert_eq!(talk.asked.len(), 2);
    assert!(!lock(&talk.core).is_done());
    talk.asked.clear();
    assert!(lock(&talk.core).is_done());
}

#[test]
fn nothing_is_read_while_much_waits_to_be_written() {
    let talk = Talk::new();
    let mut core = lock(&talk.core);
    core.out.resize(super::connection::OUT_BYTES, 0);
    let mut input = BytesMut::from(headers(1, ENDS, GET).as_slice());
    assert!(matches!(core.advance(&mut input), Ok(Step::Full)));
    let waiting = core.to_write().len();
    core.wrote(waiting);
    assert!(matches!(core.advance(&mut input), Ok(Step::Request(_))));
}

#[test]
fn large_heads_of_answers_are_cut() {
    let mut talk = Talk::new();
    talk.say(&headers(1, ENDS, GET)).expect("a request");
    let mut fields = HeaderMap::new();
    fields.insert("x", "\"".repeat(2 * PAYLOAD_BYTES).parse().expect("value"));
    talk.asked[0].0.respond(StatusCode::OK, &fields, false).expect("open");
    assert_eq!(talk.heard(), format!("headers:1:88 9:1:{PAYLOAD_BYTES} 9:1:8"));
}

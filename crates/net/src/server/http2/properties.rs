//! Properties of HTTP/2's connection: whatever frames come, cut however, nothing panics, what is answered is that to the uncut
//! bytes, and nothing grows; and another implementation's client gets what was sent, whatever its windows.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use tokio_util::sync::CancellationToken;

use super::connection::{Core, OUT_BYTES, Step};
use super::frame::{Head, PAYLOAD_BYTES, Reason, flag, kind};
use super::streams::{Handle, lock};
use crate::server::{Incoming, Plain, ReadyAnswers, block_field, ready_block};
use crate::{Body, Peer, ServerLimits};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_LIST_BYTES: usize = 512;
const STREAMS: u32 = 5;

/// `/ready/N` and, with a body from the service, `/N`.
struct Ready;

fn text(bytes: usize) -> Bytes {
    (0..bytes).map(|at| u8::try_from(at % 251).expect("small")).collect()
}

impl ReadyAnswers for Ready {
    fn answer(&self, _: &Plain<'_>, _: &mut Vec<u8>) -> Option<Bytes> {
        None
    }

    fn answer_block(&self, asked: &Plain<'_>, block: &mut Vec<u8>) -> Option<Bytes> {
        let bytes = std::str::from_utf8(asked.target).ok()?.strip_prefix("/ready/")?.parse().ok()?;
        block.extend_from_slice(&ready_block(&HeaderMap::new(), bytes as u64));
        block_field(block, "x-ready", b"yes");
        Some(text(bytes))
    }
}

fn core(ready: bool) -> Arc<Mutex<Core>> {
    let peer = Peer { address: "127.0.0.1:1".parse().expect("address"), secure: false };
    let limits = ServerLimits { head_bytes: HEAD_LIST_BYTES, h2_streams: STREAMS, ..ServerLimits::default() };
    let ready: Option<Arc<dyn ReadyAnswers>> = if ready { Some(Arc::new(Ready)) } else { None };
    Arc::new(Mutex::new(Core::new(peer, ready, limits)))
}

/// What is answered to these pieces. The service answers each request at once, but for every third: that one it never does.
fn answered<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<Reason>) {
    let core = core(true);
    let (mut input, mut answer, mut held, mut count) = (BytesMut::new(), Vec::new(), Vec::new(), 0);
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let step = lock(&core).advance(&mut input);
            let room = lock(&core).out.len();
            assert!(room <= OUT_BYTES + (64 << 10), "{room}");
            let written = lock(&core).to_write().len();
            answer.extend_from_slice(lock(&core).to_write());
            lock(&core).wrote(written);
            match step {
                Ok(Step::More) => break,
                Ok(Step::Full | Step::Reset) => {
                    held.retain(|handle: &Handle| handle.poll_reset(&mut noop()).is_pending());
                }
                Ok(Step::Request(asked)) => {
                    let handle = Handle::new(&core, asked.stream);
                    count += 1;
                    if count % 3 == 0 {
                        held.push(handle);
                    } else {
                        let _ = handle.respond(StatusCode::OK, &HeaderMap::new(), true);
                    }
                }
                Ok(Step::Body(stream, _)) => Handle::new(&core, stream).reset(Reason::Cancel),
                Err(reason) => return (answer, Some(reason)),
            }
            assert!(lock(&core).streams.len() <= STREAMS as usize + 1);
        }
        assert!(input.len() < 2 * PAYLOAD_BYTES);
    }
    (answer, None)
}

fn noop() -> std::task::Context<'static> {
    std::task::Context::from_waker(std::task::Waker::noop())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&Head { length: payload.len(), kind, flags, stream }.bytes(), payload].concat()
}

/// A block of fields, mostly of a request.
fn block() -> impl Strategy<Value = Vec<u8>> {
    let field = prop_oneof![
        4 => Just(vec![0x82]),
        4 => Just(vec![0x84]),
        4 => Just(vec![0x86]),
        4 => Just(vec![0x01, 1, b'x']),
        1 => Just(vec![0x83]),
        1 => Just([&[0x04, 9][..], b"/ready/99"].concat()),
        1 => Just(vec![0x40, 1, b'a', 1, b'b']),
        1 => Just(vec![0xbe]),
        1 => Just(vec![0x0f, 0x0d, 1, b'3']),
        1 => vec(any::<u8>(), 0..6),
    ];
    prop_oneof![
        4 => Just([&[0x82, 0x86, 0x84, 0x01, 1, b'x'][..]].concat()),
        1 => Just([&[0x82, 0x86, 0x04, 9][..], b"/ready/99", &[0x01, 1, b'x']].concat()),
        2 => vec(field, 0..8).prop_map(|fields| fields.concat()),
    ]
}

/// What connections and attacks are made of.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![
        6 => Just(flag::END_HEADERS | flag::END_STREAM),
        3 => Just(flag::END_HEADERS),
        1 => any::<u8>(),
    ];
    let headers = (block(), flags).prop_map(|(block, flags)| (kind::HEADERS, flags, block));
    let number = prop_oneof![any::<u32>(), 0_u32..70_000].prop_map(|number| number.to_be_bytes().to_vec());
    let other = prop_oneof![
        3 => (Just(kind::DATA), 0_u8..2, vec(any::<u8>(), 0..300)),
        1 => (Just(kind::DATA), Just(0), Just(vec![0; PAYLOAD_BYTES])),
        1 => (Just(kind::DATA), Just(flag::PADDED), vec(0_u8..4, 0..9)),
        2 => (Just(kind::WINDOW_UPDATE), Just(0), number.clone()),
        2 => (Just(kind::RST_STREAM), Just(0), number.clone()),
        1 => (Just(kind::SETTINGS), 0_u8..2, vec(0_u8..6, 0..13)),
        1 => (Just(kind::PING), 0_u8..2, Just(b"farewell".to_vec())),
        1 => (Just(kind::CONTINUATION), prop_oneof![Just(0), Just(flag::END_HEADERS)], block()),
        1 => (Just(kind::PRIORITY), Just(0), Just(vec![0; 5])),
        1 => (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..12)),
    ];
    let stream = prop_oneof![1 => Just(0_u32), 8 => (0_u32..20).prop_map(|n| 2 * n + 1), 1 => 0_u32..20];
    let each =
        (prop_oneof![3 => headers, 4 => other], stream).prop_map(|((kind, flags, payload), stream)| match kind {
            kind::SETTINGS | kind::PING => frame(kind, flags, 0, &payload),
            _ => frame(kind, flags, stream, &payload),
        });
    let first =
        prop_oneof![9 => Just([PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat()), 1 => vec(any::<u8>(), 0..40)];
    (first, vec(each, 0..40)).prop_map(|(first, frames)| [first, frames.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_make_no_difference(bytes in frames(), size in prop_oneof![Just(1_usize), 1_usize..40, 8_000_usize..9_000]) {
        let whole = answered(std::iter::once(bytes.as_slice()));
        // We speak first, also where nothing comes.
        prop_assert_eq!(answered(std::iter::once(&[][..]).chain(bytes.chunks(size))), whole);
    }
}

/// What a client asks for.
#[derive(Debug, Clone)]
struct Wish {
    path: &'static str,
    bytes: usize,
    upload: usize,
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let size = prop_oneof![Just(0_usize), 1_usize..3_000, 3_000_usize..200_000];
    let wish = (prop_oneof![Just("ready/"), Just("")], size.clone(), prop_oneof![2 => Just(0), 1 => size]);
    vec(wish.prop_map(|(path, bytes, upload)| Wish { path, bytes, upload }), 1..12)
}

/// Asks for all of these at once, with `h2`'s client and these windows.
async fn asked(wishes: Vec<Wish>, piece: usize, window: u32, connection_window: u32) {
    let (client, server) = tokio::io::duplex(4_000);
    let service = crate::service(move |request: Request<Incoming>| async move {
        let bytes = request.uri().path().trim_start_matches("/ready/").trim_start_matches('/').parse().expect("a size");
        let upload = crate::read_to_end(request.into_body(), 1 << 20).await.expect("the upload");
        let pieces: Vec<_> = text(bytes).chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut response = Response::new(Body::stream(futures_util::stream::iter(pieces)));
        response.headers_mut().insert("x-upload", upload.len().into());
        response
    });
    let (peer, limits) = ("127.0.0.1:1".parse().expect("address"), ServerLimits::default());
    let ready: Option<Arc<dyn ReadyAnswers>> = Some(Arc::new(Ready));
    let serving = tokio::spawn(super::run(server, peer, service, ready, limits, CancellationToken::new()));
    let mut settings = h2::client::Builder::new();
    settings.initial_window_size(window).initial_connection_window_size(connection_window.max(65_535));
    let (client, connection) = settings.handshake::<_, Bytes>(client).await.expect("handshake");
    let driven = tokio::spawn(connection);
    let each = wishes.into_iter().map(|wish| {
        let client = client.clone();
        async move {
            let request = Request::get(format!("http://x/{}{}", wish.path, wish.bytes)).body(()).expect("request");
            let mut client = client.ready().await.expect("ready");
            let (response, mut sending) = client.send_request(request, wish.upload == 0).expect("sent");
            if wish.upload > 0 {
                sending.send_data(text(wish.upload), true).expect("sent");
            }
            let (head, mut body) = response.await.expect("a response").into_parts();
            let is_ready = wish.upload == 0 && !wish.path.is_empty();
            assert_eq!(head.headers.contains_key("x-ready"), is_ready);
            assert!(is_ready || head.headers["x-upload"] == wish.upload.to_string());
            let mut whole = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.expect("no reset");
                body.flow_control().release_capacity(data.len()).expect("released");
                whole.extend_from_slice(&data);
            }
            assert!(whole == text(wish.bytes), "{wish:?}: {}", whole.len());
        }
    });
    futures_util::future::join_all(each).await;
    drop(client);
    driven.await.expect("no panic").expect("a clean end");
    serving.await.expect("no panic");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn another_client_gets_what_was_sent(
        wishes in wishes(),
        piece in 1_000_usize..40_000,
        window in prop_oneof![1_u32..100, 100_u32..100_000],
        connection_window in 65_535_u32..200_000,
    ) {
        // Many small windows are a flood.
        let wishes = wishes.into_iter().map(|wish| Wish { bytes: wish.bytes.min(window as usize * 30), ..wish }).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let all = asked(wishes, piece, window, connection_window);
        let in_time = async { tokio::time::timeout(Duration::from_secs(3_600), all).await.expect("no hang") };
        runtime.expect("runtime").block_on(in_time);
    }
}

//! The attacks on HTTP/2 of the last years, frame by frame, and what they cost us: a bounded number of frames, a bounded number
//! of requests, a bounded time; and nobody else notices.
//!
//! Not here: malformed requests that are meant for upstream (`smuggling`).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use sentrybox::config::load::defaults;
use sentrybox::metrics::exposition::Exposition;
use sentrybox::metrics::{LabelValues, Metrics};
use sentrybox::peer::Peer;
use sentrybox::server::{Server, ServerSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::support::frames::{DATA, Ends, GO_AWAY, HEADERS, PREFACE, RESET, block, frame, headers, read};

const CONTINUATION: u8 = 9;
const PING: u8 = 6;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
/// A kind that nobody knows.
const UNKNOWN: u8 = 0xbb;

/// More frames than any attack may get through.
const MANY: u32 = 200_000;

/// A request for a path.
const ASK: &[(&[u8], &[u8])] =
    &[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")];

/// A server whose requests are counted, and take some time.
struct House {
    server: Server,
    metrics: Arc<Metrics>,
    asked: Arc<AtomicUsize>,
}

impl House {
    fn new() -> Self {
        let config = defaults();
        let metrics = Arc::new(Metrics::new(UNIX_EPOCH, &LabelValues::default()));
        let settings = ServerSettings::for_clients(&config.listen, config.shutdown);
        Self { server: Server::new(settings, Arc::clone(&metrics)), metrics, asked: Arc::default() }
    }

    fn connect(&self) -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = duplex(64 * 1024);
        let (server, asked) = (self.server.clone(), Arc::clone(&self.asked));
        let handler = move |request: Request<Incoming>, _: Peer| {
            asked.fetch_add(1, Ordering::Relaxed);
            async move {
                if request.uri().path() == "/large" {
                    return Response::new(Full::new(Bytes::from(vec![b'x'; 1024 * 1024])));
                }
                sleep(Duration::from_secs(1)).await;
                Response::new(Full::new(Bytes::from_static(b"hello")))
            }
        };
        let peer = Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 7)));
        (far, tokio::spawn(async move { server.serve_connection(near, peer, handler).await }))
    }

    fn ended(&self, cause: &str) -> bool {
        let sample = format!("sentrybox_connections_ended_total{{cause=\"{cause}\"}} 1\n");
        self.metrics.encode(Exposition::Text).contains(&sample)
    }

    /// Sends a beginning, and then frame after frame, until the connection is at its end; returns how many got through.
    async fn flood(&self, beginning: &[u8], next: impl Fn(u32) -> Vec<u8>) -> u32 {
        let (stream, serving) = self.connect();
        let (mut reader, mut writer) = split(stream);
        let reading = tokio::spawn(async move {
            let mut sink = Vec::new();
            let _ = reader.read_to_end(&mut sink).await;
        });
        writer.write_all(&[PREFACE, beginning].concat()).await.unwrap();
        let mut sent = 0;
        while sent < MANY && writer.write_all(&next(sent)).await.is_ok() {
            sent += 1;
        }
        assert!(sent < MANY, "nobody stops it");
        timeout(Duration::from_secs(5), serving).await.expect("the connection is at its end").unwrap();
        reading.await.unwrap();
        sent
    }

    /// Asks as anybody would, on a connection of their own.
    async fn serves_others(&self) -> bool {
        let (mut stream, _serving) = self.connect();
        stream.write_all(&[PREFACE, &headers(1, ASK, Ends::Yes)].concat()).await.unwrap();
        loop {
            match read(&mut stream).await {
                Some((DATA, _, 1, body)) => return body == b"hello",
                Some((RESET | GO_AWAY, ..)) | None => return false,
                Some(_) => {}
            }
        }
    }
}

/// Floods a server with one kind of frame. At most `most` frames and `asked` requests may get through before the connection
/// ends, for this `cause`.
async fn check(
    name: &str,
    (beginning, next): (&[u8], &dyn Fn(u32) -> Vec<u8>),
    (most, asked): (u32, usize),
    cause: &str,
) {
    let house = House::new();
    let sent = house.flood(beginning, next).await;
    let requests = house.asked.load(Ordering::Relaxed);
    assert!(sent <= most, "{name}: {sent} frames");
    assert!(requests <= asked, "{name}: {requests} requests");
    assert!(house.ended(cause), "{name}: {}", house.metrics.encode(Exposition::Text));
    assert!(house.serves_others().await, "{name}");
}

fn odd(number: u32) -> u32 {
    2 * number + 1
}

#[tokio::test(start_paused = true)]
async fn floods_of_frames_that_carry_nothing_end_their_connection() {
    // What is in the pipe between us when the end comes counts as sent: 64 KiB each way.
    const PIPE: u32 = 64 * 1024 / 9;
    let open = headers(1, &[ASK, &[(b"x", b"y")]].concat(), Ends::No);
    let one = 1_u32.to_be_bytes();
    let ping = frame(PING, 0, 0, b"12345678");
    let rows: [(&str, &[u8], Vec<u8>, &str); 7] = [
        ("PING", b"", ping, "flooded"),                           // CVE-2019-9512
        ("SETTINGS", b"", frame(SETTINGS, 0, 0, b""), "flooded"), // CVE-2019-9515
        ("PRIORITY", b"", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9]), "flooded"), // CVE-2019-9513
        ("empty DATA", &open, frame(DATA, 0, 1, b""), "broken"),  // CVE-2019-9518: h2 counts these itself
        ("WINDOW_UPDATE by one", b"", frame(WINDOW_UPDATE, 0, 0, &one), "flooded"), // CVE-2019-9511
        ("frames of no kind", b"", frame(UNKNOWN, 0, 0, b""), "flooded"),
        // What we have not asked for is an error from the first on.
        ("SETTINGS acknowledged", b"", frame(SETTINGS, 1, 0, b""), "broken"),
    ];
    for (name, beginning, repeated, cause) in rows {
        check(name, (beginning, &|_| repeated.clone()), (1000 + PIPE, 1), cause).await;
    }
}

#[tokio::test(start_paused = true)]
async fn rapid_reset_ends_its_connection_after_a_bounded_number_of_requests() {
    // CVE-2023-44487: ask and take back, as fast as it goes.
    let pair =
        |number| [headers(odd(number), ASK, Ends::Yes), frame(RESET, 0, odd(number), &[0, 0, 0, 8])].concat();
    let house = House::new();
    let sent = house.flood(b"", pair).await;
    assert!(sent < 2000, "{sent}");
    assert!(house.asked.load(Ordering::Relaxed) <= 200);
    assert!(house.ended("flooded") || house.ended("broken"));
    assert!(house.serves_others().await);
}

#[tokio::test(start_paused = true)]
async fn streams_that_we_are_made_to_reset_end_their_connection_too() {
    // CVE-2025-8671: requests that are wrong in themselves, so that the resets are ours.
    let wrong = |number| headers(odd(number), &[(b":method", b"GET"), (b":path", b"")], Ends::Yes);
    let house = House::new();
    let sent = house.flood(b"", wrong).await;
    assert!(sent < 5000, "{sent}");
    assert_eq!(house.asked.load(Ordering::Relaxed), 0);
    assert!(house.serves_others().await);
}

#[tokio::test(start_paused = true)]
async fn a_head_without_end_ends_its_connection() {
    // CVE-2024-27316: HEADERS, and CONTINUATION for ever; with content, and without.
    let begin = frame(HEADERS, 0, 1, &block(ASK));
    let full = frame(CONTINUATION, 0, 1, &block(&[(b"x-long", &[b'x'; 8000])]));
    check("full", (&begin, &|_| full.clone()), (200, 0), "broken").await;
    let empty = frame(CONTINUATION, 0, 1, b"");
    let house = House::new();
    let sent = house.flood(&begin, |_| empty.clone()).await;
    assert!(sent < 10_000, "{sent}");
    assert_eq!(house.asked.load(Ordering::Relaxed), 0);
    assert!(house.serves_others().await);
}

#[tokio::test(start_paused = true)]
async fn fields_that_grow_when_they_are_unpacked_are_refused() {
    // One long field in the table of HPACK, and then a byte for each time it is to be repeated.
    let mut bomb = vec![0x40, 1, b'x', 127, 129, 31];
    bomb.extend_from_slice(&[b'y'; 4096]);
    bomb.extend(std::iter::repeat_n(0xbe, 10_000));
    let bomb = [block(ASK), bomb].concat();
    let house = House::new();
    let (mut stream, _serving) = house.connect();
    let (first, rest) = bomb.split_at(8000);
    let frames = [frame(HEADERS, 1, 1, first), frame(CONTINUATION, 4, 1, rest)].concat();
    stream.write_all(&[PREFACE, &frames].concat()).await.unwrap();
    loop {
        match read(&mut stream).await {
            Some((HEADERS, _, 1, _) | (RESET | GO_AWAY, ..)) | None => break,
            Some(_) => {}
        }
    }
    assert_eq!(house.asked.load(Ordering::Relaxed), 0);
    assert!(house.serves_others().await);
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_which_no_window_is_opened_is_given_up() {
    // CVE-2019-9517 and its kin: a window of nothing, large answers, and then silence; PING is answered all the while.
    hold_answers(0, "stalled").await;
    // A window of one byte takes the answers off our hands, and they lie in the library's.
    hold_answers(1, "idle-timeout").await;
}

/// Asks for large answers with a first window of so many bytes, and opens it no further.
async fn hold_answers(window: u8, cause: &str) {
    let house = House::new();
    let (mut stream, serving) = house.connect();
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, window]);
    let large: Vec<(&[u8], &[u8])> = ASK
        .iter()
        .map(|(name, value)| if *name == b":path" { (*name, &b"/large"[..]) } else { (*name, *value) })
        .collect();
    let asks: Vec<u8> = (0..100).flat_map(|number| headers(odd(number), &large, Ends::Yes)).collect();
    stream.write_all(&[PREFACE, &no_window, &asks].concat()).await.unwrap();
    let answering = async {
        while let Some((kind, flags, _, payload)) = read(&mut stream).await {
            if kind == PING && flags & 1 == 0 {
                let _ = stream.write_all(&frame(PING, 1, 0, &payload)).await;
            }
        }
    };
    timeout(Duration::from_mins(5), answering).await.expect("it does not last for ever");
    serving.await.unwrap();
    assert_eq!(house.asked.load(Ordering::Relaxed), 100);
    assert!(house.ended(cause), "{window}");
    assert!(house.serves_others().await);
}

#[tokio::test(start_paused = true)]
async fn windows_and_frames_beyond_what_there_may_be_end_their_connection() {
    let large = frame(UNKNOWN, 0, 0, &vec![0; 20_000]);
    let rows: [(&str, Vec<u8>); 8] = [
        ("a window beyond 2^31", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("a first window beyond 2^31", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("settings that are half there", frame(SETTINGS, 0, 0, &[0, 4, 0])),
        ("a frame that is too large", large),
        ("a stream of ours", headers(2, ASK, Ends::Yes)),
        ("no stream at all", headers(0, ASK, Ends::Yes)),
        ("CONTINUATION of nothing", frame(CONTINUATION, 4, 1, &block(ASK))),
        ("DATA of nothing", frame(DATA, 0, 1, b"x")),
    ];
    for (name, frames) in rows {
        let house = House::new();
        let (mut stream, serving) = house.connect();
        stream.write_all(&[PREFACE, &frames, &frames].concat()).await.unwrap();
        let ending = async { while read(&mut stream).await.is_some() {} };
        timeout(Duration::from_secs(10), ending).await.unwrap_or_else(|_| panic!("{name} goes on"));
        serving.await.unwrap();
        assert_eq!(house.asked.load(Ordering::Relaxed), 0, "{name}");
        assert!(house.serves_others().await, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_beyond_the_limit_are_refused_and_the_others_are_served() {
    let house = House::new();
    let (mut stream, _serving) = house.connect();
    let asks: Vec<u8> = (0..400).flat_map(|number| headers(odd(number), ASK, Ends::Yes)).collect();
    stream.write_all(&[PREFACE, &asks].concat()).await.unwrap();
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < 400 {
        match read(&mut stream).await.expect("the connection goes on") {
            (HEADERS, ..) => answered += 1,
            // REFUSED_STREAM: it may be sent again.
            (RESET, _, _, code) => {
                assert_eq!(code, [0, 0, 0, 7]);
                refused += 1;
            }
            _ => {}
        }
    }
    assert_eq!((answered, refused), (256, 144));
}

//! What is said on a connection: the first byte says in which pieces the rest arrives, HTTP/1.1 or HTTP/2 by how it begins.
//!
//! Holds: the server neither panics nor stays, whatever it is told; a request never has two lengths; over HTTP/1.1 the pieces
//! mean nothing: the same requests with the same bodies are seen, however the bytes arrive. That is what smuggling needs.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::Incoming;
use sentrybox::metrics::{LabelValues, Metrics};
use sentrybox::peer::Peer;
use sentrybox::server::{Server, ServerSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::time::{sleep, timeout};

/// By when a connection is over whose client has gone, however slow it was.
const DEADLINE: Duration = Duration::from_mins(30);

/// Most of a body that is read.
const MOST_BODY: usize = 64 * 1024;

static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(|| {
    let labels = LabelValues { routes: Vec::new(), classes: Vec::new() };
    Arc::new(Metrics::new(std::time::UNIX_EPOCH, &labels))
});

/// A request as its handler sees it.
#[derive(Debug, PartialEq)]
struct Seen {
    method: Method,
    target: Uri,
    fields: HeaderMap,
    /// `None` where it broke off.
    body: Option<Bytes>,
}

/// Tries one input.
pub fn run(input: &[u8]) {
    let Some((pieces, said)) = input.split_first() else { return };
    let at_once = crate::paused_runtime().block_on(converse(said, said.len().max(1)));
    let piece = usize::from(*pieces).max(1);
    let bit_by_bit = crate::paused_runtime().block_on(converse(said, piece));
    if !said.starts_with(b"PRI * HTTP/2.0") {
        assert_eq!(at_once, bit_by_bit, "it matters in which pieces the bytes arrive");
    }
    for seen in at_once.iter().chain(&bit_by_bit) {
        let has = |name| seen.fields.contains_key(name);
        assert!(!(has(header::CONTENT_LENGTH) && has(header::TRANSFER_ENCODING)), "two lengths: {seen:?}");
        assert!(seen.fields.get_all(header::CONTENT_LENGTH).iter().count() < 2, "two lengths: {seen:?}");
        let is_odd = |byte: &u8| byte.is_ascii_control() || *byte == b' ';
        assert!(!seen.target.to_string().as_bytes().iter().any(is_odd), "{seen:?}");
    }
}

/// Says it to a server, in pieces, and returns the requests that were seen.
async fn converse(said: &[u8], piece: usize) -> Vec<Seen> {
    let config = &*crate::DEFAULTS;
    let server =
        Server::new(ServerSettings::for_clients(&config.listen, config.shutdown), Arc::clone(&METRICS));
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let handler = {
        let seen = Arc::clone(&seen);
        move |request: Request<Incoming>, _: Peer| answer(request, Arc::clone(&seen))
    };
    let (client, stream) = duplex(16 * 1024);
    let (mut answers, mut sender) = tokio::io::split(client);
    let serving = tokio::spawn(async move {
        server.serve_connection(stream, Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 7))), handler).await;
    });
    let reading = tokio::spawn(async move {
        let mut answered = Vec::new();
        let _ = answers.read_to_end(&mut answered).await;
    });
    for piece in said.chunks(piece) {
        // A server may have hung up before.
        if sender.write_all(piece).await.is_err() {
            break;
        }
        if piece.len() < said.len() {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let _ = sender.shutdown().await;
    drop(sender);
    let ended = timeout(DEADLINE, serving).await.expect("a connection stays");
    ended.expect("the server panics");
    let _ = reading.await;
    std::mem::take(&mut *seen.lock().unwrap())
}

async fn answer(request: Request<Incoming>, seen: Arc<Mutex<Vec<Seen>>>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = http_body_util::Limited::new(body, MOST_BODY);
    let body = body.collect().await.ok().map(Collected::to_bytes);
    seen.lock().unwrap().push(Seen { method: head.method, target: head.uri, fields: head.headers, body });
    Response::new(Full::new(Bytes::from_static(b"{}")))
}

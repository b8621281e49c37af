//! Accepts connections, speaks HTTP/1.1 and HTTP/2 on them, and hands requests to a handler.
//!
//! The room knows who is connected and for how long they may be silent; what a request means is the handler's. Connections
//! come in at an [`endpoint`], over TCP, [`tls`] or a Unix domain socket; [`accept`] finds each a place in the [`crowd`], and
//! [`connection`] carries it. The protocol is chosen by its first bytes, which are read under a deadline of ours.
//!
//! The end has three phases. *Serving*. *Draining*: whatever waits in the kernel's queue is still accepted, then
//! nobody else; answers say `Connection: close` (or `GOAWAY`); a connection that is idle stays open for a
//! moment longer, because a request may be on its way on it. *Over*: requests still in work are
//! answered with 503, and what is not flushed a second later is dropped.
//!
//! Invariants: a request that was accepted is answered, even if its work panics or does not end; no connection
//! may be silent for ever; no more than `max_connections` are open, but for what waits in the queue at the shutdown: who
//! idles makes room for who does not.
//! Not here: admission, anything about caching.

use std::error::Error;
use std::fmt;
use std::future::{Future, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::config::ShutdownConfig;
use crate::config::listen::ListenConfig;
use crate::metrics::Metrics;
use crate::metrics::connections::Listener;
use crate::peer::Peer;
use crate::server::accept::{Accepted, Acceptor, next_of};
use crate::server::connection::converse;
use crate::server::crowd::CrowdLimits;
use crate::server::endpoint::{Arrival, Endpoint, Socket};
use crate::server::lifecycle::{Lifecycle, Phase, Work};

pub mod accept;
pub mod coalesce;
pub mod connection;
pub mod crowd;
pub mod endpoint;
pub mod frames;
pub mod interim;
pub mod lifecycle;
pub mod request;
pub mod stalls;
pub mod tls;
pub mod transport;
pub mod unreadable;

/// How long answers may take to leave once the grace is over.
const FLUSH: Duration = Duration::from_secs(1);

/// Answers requests; any `Fn(Request<Incoming>, Peer) -> Future<Output = Response<_>>` does.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Body of the answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static;
    /// The answer to be.
    type Answer: Future<Output = Response<Self::Body>> + Send + 'static;

    /// Answers one request of a peer.
    fn answer(&self, request: Request<Incoming>, peer: Peer) -> Self::Answer;
}

impl<F, A, B> Handler for F
where
    F: Fn(Request<Incoming>, Peer) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    type Body = B;
    type Answer = A;

    fn answer(&self, request: Request<Incoming>, peer: Peer) -> A {
        self(request, peer)
    }
}

/// Why the server answers a request instead of its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The handler's work panicked.
    Panicked,
    /// The shutdown's deadline passed.
    ShuttingDown,
}

/// Renders the answer to a request whose handler failed.
pub type RenderFailure = fn(Failure) -> Response<Full<Bytes>>;

/// How a server behaves.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Under which label connections are counted.
    pub listener: Listener,
    /// How long a new connection may take to show which protocol it speaks.
    pub first_byte_timeout: Duration,
    /// How long a request's head may take, once it has begun.
    pub header_read_timeout: Duration,
    /// How long a connection may idle.
    pub idle_timeout: Duration,
    /// How old a connection may become; zero means any age.
    pub max_age: Duration,
    /// Most fields of a request.
    pub max_header_count: usize,
    /// Largest head of a request, in bytes.
    pub max_header_bytes: usize,
    /// Most requests at a time on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Most requests that an HTTP/2 peer may take back in a second.
    pub max_resets_per_second: u32,
    /// How many may be connected.
    pub crowd: CrowdLimits,
    /// How long requests in work may take after the shutdown's signal.
    pub grace: Duration,
    /// Renders the answer to a request whose handler failed.
    pub render_failure: RenderFailure,
}

impl ServerSettings {
    /// Returns the settings of the listeners for clients.
    pub fn for_clients(listen: &ListenConfig, shutdown: ShutdownConfig) -> Self {
        Self {
            listener: Listener::Clients,
            first_byte_timeout: listen.first_byte_timeout,
            header_read_timeout: listen.header_read_timeout,
            idle_timeout: listen.idle_timeout,
            max_age: listen.max_connection_age,
            max_header_count: listen.max_header_count,
            max_header_bytes: usize::try_from(listen.max_header_bytes.as_u64()).unwrap_or(usize::MAX),
            max_concurrent_streams: listen.max_concurrent_streams,
            max_resets_per_second: listen.max_resets_per_second,
            crowd: CrowdLimits {
                most: listen.max_connections,
                most_per_peer: listen.max_connections_per_peer,
                exempt: listen.trusted_proxies.clone(),
            },
            grace: shutdown.grace,
            render_failure: plain_failure,
        }
    }

    /// Returns the settings of the listener for operators, whose requests are few and short.
    pub fn for_operators() -> Self {
        Self {
            listener: Listener::Admin,
            first_byte_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            max_age: Duration::ZERO,
            max_header_count: 96,
            max_header_bytes: 64 * 1024,
            max_concurrent_streams: 32,
            max_resets_per_second: 32,
            crowd: CrowdLimits { most: 64, ..CrowdLimits::default() },
            grace: Duration::from_secs(1),
            render_failure: plain_failure,
        }
    }

    /// Returns the settings of a listener for webhooks alone. They come from outside, and whole or not at all.
    pub fn for_webhooks() -> Self {
        Self {
            listener: Listener::Webhooks,
            idle_timeout: Duration::from_secs(10),
            crowd: CrowdLimits { most: 1024, ..CrowdLimits::default() },
            ..Self::for_operators()
        }
    }
}

/// Renders a failure in the shape of Sentry's errors, and says nothing about its cause.
pub fn plain_failure(failure: Failure) -> Response<Full<Bytes>> {
    let (status, detail) = match failure {
        Failure::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, r#"{"detail":"Internal error"}"#),
        Failure::ShuttingDown => (
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"detail":"The proxy is shutting down and could not wait for this request"}"#,
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(detail.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// How many requests were still in work at the deadline: answered with 503, or cut off in their body.
    pub cut: usize,
}

/// A stream to be, with TLS where it is spoken.
type Entering = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>>;

/// A server for one kind of peers; cheap to clone.
#[derive(Clone)]
pub struct Server {
    life: Arc<Lifecycle>,
}

impl Server {
    /// Creates a server; nothing runs yet.
    pub fn new(settings: ServerSettings, metrics: Arc<Metrics>) -> Self {
        Self { life: Arc::new(Lifecycle::new(settings, metrics)) }
    }

    /// Serves what comes in at `endpoints` until `shutdown` resolves, then drains.
    pub async fn serve<H: Handler>(
        &self,
        endpoints: Vec<Endpoint>,
        handler: H,
        shutdown: impl Future<Output = ()>,
    ) -> Drained {
        let mut shutdown = pin!(shutdown);
        let mut connections = JoinSet::new();
        let mut acceptors: Vec<_> =
            endpoints.into_iter().map(|endpoint| Acceptor::new(endpoint, &self.life)).collect();
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(ended) = connections.join_next() => self.note(ended),
                accepted = next_of(&mut acceptors) => self.spawn(&mut connections, accepted, &handler),
            }
        }
        for accepted in acceptors.into_iter().flat_map(Acceptor::into_backlog) {
            self.spawn(&mut connections, accepted, &handler);
        }
        self.run_down(connections).await
    }

    /// Serves one connection, over any stream, until it ends.
    pub async fn serve_connection<S, H>(&self, stream: S, peer: Peer, handler: H)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        H: Handler,
    {
        let work = Arc::new(Work::new(Arc::clone(&self.life)));
        let open = self.life.metrics().connections.opened(self.life.settings().listener);
        open.end(converse(work, ready(Ok(stream)), peer, handler).await);
    }

    /// Serves one connection that came in at an endpoint.
    async fn serve_accepted<H: Handler>(&self, accepted: Accepted, handler: H) {
        let Accepted { arrival, work, place } = accepted;
        let open = self.life.metrics().connections.opened(self.life.settings().listener);
        let Arrival { socket, peer, tls } = arrival;
        // A handshake needs much room for a short time.
        let entering: Entering = match tls {
            Some(tls) => Box::pin(socket.secured(tls)),
            None => Box::pin(ready(Ok(socket))),
        };
        open.end(converse(work, entering, peer, handler).await);
        drop(place);
    }

    /// Starts draining: connections that are served end when they have nothing more to say.
    pub fn drain(&self) {
        self.life.advance(Phase::Draining);
    }

    /// Ends the grace: requests still in work are answered with 503.
    pub fn give_up(&self) {
        self.life.advance(Phase::Over);
    }

    fn spawn<H: Handler>(&self, connections: &mut JoinSet<()>, accepted: Accepted, handler: &H) {
        let (server, handler) = (self.clone(), handler.clone());
        connections.spawn(async move { server.serve_accepted(accepted, handler).await });
    }

    async fn run_down(&self, mut connections: JoinSet<()>) -> Drained {
        self.drain();
        if timeout(self.life.settings().grace, self.ended(&mut connections)).await.is_err() {
            self.give_up();
            // What is left after this is dropped; whether it was in time is told by what is still in work.
            let _ = timeout(FLUSH, self.ended(&mut connections)).await;
        }
        let cut = self.life.cut();
        connections.shutdown().await;
        Drained { cut }
    }

    async fn ended(&self, connections: &mut JoinSet<()>) {
        while let Some(ended) = connections.join_next().await {
            self.note(ended);
        }
    }

    /// Counts a connection's task that panicked: a body of the handler's did.
    fn note(&self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.life.metrics().panicked();
            tracing::error!("a connection's work panicked");
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("settings", self.life.settings()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;
    use std::time::UNIX_EPOCH;

    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;
    use crate::config::load;
    use crate::metrics::LabelValues;
    use crate::metrics::exposition::Exposition;

    use crate::testing::PEER;

    const TICK: Duration = Duration::from_millis(50);

    async fn respond(request: Request<Incoming>, _peer: Peer) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/slow" => sleep(Duration::from_secs(5)).await,
            "/never" => std::future::pending().await,
            "/panic" => panic!("as the test wants it"),
            "/echo" => {
                let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
                return Response::new(Full::new(body.unwrap_or_default()));
            }
            _ => {}
        }
        Response::new(Full::new(Bytes::from(format!("this is {path}"))))
    }

    fn server() -> Server {
        with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ServerSettings)) -> Server {
        let mut settings = ServerSettings {
            grace: Duration::from_secs(30),
            ..ServerSettings::for_clients(&load::defaults().listen, load::defaults().shutdown)
        };
        change(&mut settings);
        Server::new(settings, Arc::new(Metrics::new(UNIX_EPOCH, &LabelValues::default())))
    }

    pub(crate) fn life() -> Arc<Lifecycle> {
        server().life
    }

    fn connect(server: &Server) -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = duplex(64 * 1024);
        let server = server.clone();
        (far, tokio::spawn(async move { server.serve_connection(near, PEER, respond).await }))
    }

    async fn connect_http2(server: &Server) -> (http2::SendRequest<Empty<Bytes>>, JoinHandle<()>) {
        let (far, serving) = connect(server);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(far)).await.unwrap();
        tokio::spawn(connection);
        (sender, serving)
    }

    fn request(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
    }

    fn request_http2(path: &str) -> Request<Empty<Bytes>> {
        Request::get(format!("http://a{path}")).body(Empty::new()).unwrap()
    }

    /// Writes, and reads until the server closes.
    async fn converse_raw(server: &Server, bytes: &[u8]) -> String {
        let (mut stream, serving) = connect(server);
        stream.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serving.await.unwrap();
        answer
    }

    /// Awaits what must be ready at `expected`, give or take a little.
    async fn at<F: Future>(expected: Duration, future: F) -> F::Output {
        let mut future = pin!(future);
        assert!(timeout(expected.saturating_sub(TICK), &mut future).await.is_err(), "too early");
        timeout(2 * TICK, future).await.expect("not too late")
    }

    /// Reads until `needle` has come.
    async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), needle: &str) -> String {
        let mut answer = String::new();
        while !answer.contains(needle) {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "ended before {needle}: {answer}");
            answer.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_closed() {
        let server = server();
        assert_eq!(at(Duration::from_secs(10), converse_raw(&server, b"")).await, "");
        let rendered = server.life.metrics().encode(Exposition::Text);
        assert!(rendered.contains("sentrybox_connections_ended_total{cause=\"first-byte-timeout\"} 1\n"));
        assert!(rendered.contains("sentrybox_connections_open{listener=\"clients\"} 0\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_is_not_waited_for_longer() {
        assert_eq!(at(Duration::from_secs(10), converse_raw(&server(), b"PRI * HT")).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_answered_with_the_reason() {
        for (bytes, status) in [
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_vec(), "400 Bad Request"),
            (b"\x16\x03\x01 is no HTTP\r\n\r\n".to_vec(), "400 Bad Request"),
            (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)).into_bytes(), "431 "),
        ] {
            let answer = converse_raw(&server(), &bytes).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(
                answer.contains("content-type: application/json") && answer.contains(r#"{"detail":"#),
                "{answer}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_is_not_waited_for_longer() {
        at(Duration::from_secs(15), converse_raw(&server(), b"GET / HTTP/1.1\r\nHost:")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_connection_serves_many_requests_and_idles_no_longer_than_allowed() {
        let (mut stream, serving) = connect(&server());
        for path in ["/one", "/two"] {
            stream.write_all(request(path).as_bytes()).await.unwrap();
            let answer = read_until(&mut stream, &format!("this is {path}")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("connection:"), "{answer}");
            sleep(Duration::from_secs(55)).await;
        }
        assert_eq!(at(Duration::from_secs(5), stream.read(&mut [0; 16])).await.unwrap(), 0);
        serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn pipelined_requests_are_answered_in_order_and_none_waits_for_a_half_sent_one() {
        let (mut stream, _serving) = connect(&server());
        let both = [request("/slow"), request("/fast"), "GET /half HTTP/1.1\r\n".to_owned()].concat();
        stream.write_all(both.as_bytes()).await.unwrap();
        let answers = read_until(&mut stream, "this is /fast").await;
        assert!(answers.find("this is /slow") < answers.find("this is /fast"), "{answers}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_finished_sending_still_gets_its_answer() {
        let (mut stream, _serving) = connect(&server());
        stream.write_all(request("/slow").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("this is /slow"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn http2_is_served_to_clients_that_start_with_it() {
        let (mut sender, _serving) = connect_http2(&server()).await;
        let answers = (0..100).map(|_| sender.send_request(request_http2("/slow"))).collect::<Vec<_>>();
        for answer in answers {
            let answer = answer.await.unwrap();
            assert_eq!((answer.version(), answer.status()), (http::Version::HTTP_2, StatusCode::OK));
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "this is /slow");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_connection_without_requests_idles_no_longer_than_allowed() {
        let (sender, serving) = connect_http2(&server()).await;
        at(Duration::from_mins(1), serving).await.unwrap();
        drop(sender);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_head_has_a_length_and_no_body() {
        let head = "HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = converse_raw(&server(), head.as_bytes()).await;
        assert!(answer.contains("content-length: 10\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        let (mut sender, _serving) = connect_http2(&server()).await;
        let mut head = request_http2("/x");
        *head.method_mut() = http::Method::HEAD;
        let answer = sender.send_request(head).await.unwrap();
        assert_eq!(answer.headers()["content-length"], "10");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_500_for_its_request_alone() {
        let server = server();
        let (mut stream, _serving) = connect(&server);
        stream.write_all(request("/panic").as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, r#"{"detail":"Internal error"}"#).await;
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("application/json"), "{answer}");
        stream.write_all(request("/next").as_bytes()).await.unwrap();
        read_until(&mut stream, "this is /next").await;
        assert!(server.life.metrics().encode(Exposition::Text).contains("sentrybox_panics_total 1\n"));

        let (mut sender, _serving) = connect_http2(&server).await;
        let (other, failed) = tokio::join!(sender.clone().send_request(request_http2("/slow")), async move {
            sender.send_request(request_http2("/panic")).await
        });
        assert_eq!(failed.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(other.unwrap().status(), StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_work_is_finished_while_draining_and_its_connection_closed() {
        let server = server();
        let (mut stream, serving) = connect(&server);
        stream.write_all(request("/slow").as_bytes()).await.unwrap();
        sleep(TICK).await;
        server.drain();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("this is /slow"), "{answer}");
        serving.await.unwrap();
        assert_eq!(server.life.cut(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_request_in_work_is_finished_while_draining_and_its_connection_closed() {
        let server = server();
        let (mut sender, serving) = connect_http2(&server).await;
        let answer = sender.send_request(request_http2("/slow"));
        sleep(TICK).await;
        server.drain();
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
        serving.await.unwrap();
        assert!(sender.ready().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_on_its_way_on_an_idle_connection_is_answered_while_draining() {
        let server = server();
        let (mut stream, _serving) = connect(&server);
        stream.write_all(request("/one").as_bytes()).await.unwrap();
        read_until(&mut stream, "this is /one").await;
        server.drain();
        sleep(TICK).await;
        stream.write_all(request("/two").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("this is /two"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn connections_with_nothing_to_say_do_not_hold_up_the_shutdown() {
        let server = server();
        let (silent, idle, half) = (connect(&server), connect(&server), connect(&server));
        let (mut idle_stream, mut half_stream) = (idle.0, half.0);
        idle_stream.write_all(request("/one").as_bytes()).await.unwrap();
        read_until(&mut idle_stream, "this is /one").await;
        half_stream.write_all(b"GET /half HTTP/1.1\r\n").await.unwrap();
        let (_sender, http2_serving) = connect_http2(&server).await;
        sleep(TICK).await;
        server.drain();
        timeout(Duration::from_millis(1100), async {
            for serving in [silent.1, idle.1, half.1, http2_serving] {
                serving.await.unwrap();
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_deadline_requests_in_work_are_answered_with_503_and_counted() {
        let server = server();
        let mut connections = JoinSet::new();
        let (near, mut stream) = duplex(1024);
        let clone = server.clone();
        connections.spawn(async move { clone.serve_connection(near, PEER, respond).await });
        stream.write_all(request("/never").as_bytes()).await.unwrap();
        let (near, far) = duplex(1024);
        let clone = server.clone();
        connections.spawn(async move { clone.serve_connection(near, PEER, respond).await });
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(far)).await.unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(request_http2("/never"));
        sleep(TICK).await;

        let drained = tokio::spawn(async move { server.run_down(connections).await });
        let mut raw = String::new();
        at(Duration::from_secs(30), stream.read_to_string(&mut raw)).await.unwrap();
        assert!(raw.starts_with("HTTP/1.1 503 ") && raw.contains(r#"{"detail":"#), "{raw}");
        assert_eq!(answer.await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(drained.await.unwrap(), Drained { cut: 2 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_by_the_deadline_is_cut_and_counted() {
        let server = server();
        let mut connections = JoinSet::new();
        let (near, mut stream) = duplex(1024);
        let clone = server.clone();
        // The sender of the rest lives in the handler, and never sends it.
        let endless = |_request: Request<Incoming>, _peer: Peer| async {
            let (sender, body) = http_body_util::channel::Channel::<Bytes>::new(1);
            tokio::spawn(async move {
                let mut sender = sender;
                let _ = sender.send_data(Bytes::from_static(b"start")).await;
                std::future::pending::<()>().await;
            });
            Response::new(body)
        };
        connections.spawn(async move { clone.serve_connection(near, PEER, endless).await });
        stream.write_all(request("/").as_bytes()).await.unwrap();
        read_until(&mut stream, "start").await;
        assert_eq!(server.run_down(connections).await, Drained { cut: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_requests_body_is_read_whole() {
        let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        assert!(converse_raw(&server(), post.as_bytes()).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn what_waits_in_the_kernels_queue_at_the_signal_is_still_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request("/queued").as_bytes()).await.unwrap();
            waiting.push(stream);
        }
        let server = server();
        let serving = tokio::spawn(async move {
            server.serve(vec![listener.into()], respond, std::future::ready(())).await
        });
        for stream in &mut waiting {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("this is /queued"), "{answer}");
        }
        assert_eq!(serving.await.unwrap(), Drained { cut: 0 });
    }

    /// A server that listens on loopback until this is told to stop.
    struct Listening {
        server: Server,
        address: SocketAddr,
        stop: tokio::sync::oneshot::Sender<()>,
        serving: JoinHandle<Drained>,
    }

    impl Listening {
        async fn start(server: Server) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let clone = server.clone();
            let serving = tokio::spawn(async move {
                clone.serve(vec![listener.into()], respond, async { drop(stopped.await) }).await
            });
            Self { server, address, stop, serving }
        }

        async fn connect(&self, bytes: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            stream
        }

        fn measures(&self, sample: &str) -> bool {
            let rendered = self.server.life.metrics().encode(Exposition::Text);
            rendered.contains(&format!("{sample}\n"))
        }

        async fn end(self) {
            self.stop.send(()).unwrap();
            self.serving.await.unwrap();
        }
    }

    #[tokio::test]
    async fn when_all_places_are_taken_who_idles_makes_room() {
        let listening = Listening::start(with(|settings| settings.crowd.most = 1)).await;
        let mut before: Option<TcpStream> = None;
        for path in ["/first", "/second", "/third"] {
            let mut stream = listening.connect(&request(path)).await;
            read_until(&mut stream, &format!("this is {path}")).await;
            if let Some(mut before) = before.replace(stream) {
                assert_eq!(before.read(&mut [0; 16]).await.unwrap(), 0);
            }
        }
        assert!(listening.measures("sentrybox_connections_ended_total{cause=\"made-room\"} 2"));
        assert!(listening.measures("sentrybox_connections_total{listener=\"clients\"} 3"));
        listening.end().await;
    }

    #[tokio::test]
    async fn when_nobody_idles_a_newcomer_is_told_so() {
        let listening = Listening::start(with(|settings| settings.crowd.most = 1)).await;
        let busy = listening.connect(&request("/never")).await;
        let mut newcomer = listening.connect("").await;
        let mut answer = String::new();
        newcomer.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"), "{answer}");
        assert!(answer.contains(r#"{"detail":"The proxy has too many connections"#), "{answer}");
        assert!(listening.measures("sentrybox_connections_turned_away_total{cause=\"full\"} 1"));
        drop(busy);
        listening.end().await;
    }

    #[tokio::test]
    async fn one_peer_has_no_more_connections_than_its_share() {
        let listening = Listening::start(with(|settings| settings.crowd.most_per_peer = 1)).await;
        let mut own = listening.connect(&request("/own")).await;
        read_until(&mut own, "this is /own").await;
        let mut other = listening.connect("").await;
        let mut answer = String::new();
        other.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(listening.measures("sentrybox_connections_turned_away_total{cause=\"peer\"} 1"));
        listening.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_too_old_ends_with_its_next_answer() {
        let server = with(|settings| {
            settings.max_age = Duration::from_secs(30);
            settings.idle_timeout = Duration::from_hours(1);
        });
        let (mut stream, _serving) = connect(&server);
        stream.write_all(request("/one").as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "this is /one").await;
        assert!(!answer.contains("connection: close"), "{answer}");
        sleep(Duration::from_secs(34)).await;
        stream.write_all(request("/two").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("this is /two"), "{answer}");

        let (mut sender, serving) = connect_http2(&server).await;
        sender.send_request(request_http2("/one")).await.unwrap();
        sleep(Duration::from_secs(34)).await;
        serving.await.unwrap();
        assert!(sender.ready().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dawdling_head_ends_its_connection_whatever_came_before() {
        let server = server();
        let (mut stream, serving) = connect(&server);
        stream.write_all(request("/one").as_bytes()).await.unwrap();
        read_until(&mut stream, "this is /one").await;
        sleep(Duration::from_secs(20)).await;
        let dribbling = async {
            for byte in request("/two").bytes() {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        };
        at(Duration::from_secs(16), dribbling).await;
        serving.await.unwrap();
        let rendered = server.life.metrics().encode(Exposition::Text);
        assert!(rendered.contains("connections_ended_total{cause=\"header-timeout\"} 1\n"), "{rendered}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_and_a_slow_body_are_no_slow_head() {
        let (mut stream, _serving) = connect(&with(|settings| {
            settings.header_read_timeout = Duration::from_secs(1);
        }));
        stream.write_all(request("/slow").as_bytes()).await.unwrap();
        read_until(&mut stream, "this is /slow").await;
        stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n").await.unwrap();
        for byte in [b"h", b"i"] {
            sleep(Duration::from_secs(5)).await;
            stream.write_all(byte).await.unwrap();
        }
        assert!(read_until(&mut stream, "hi").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn tls_is_spoken_in_both_protocols_and_the_handler_knows() {
        let (certificates, trust) = testing::certificates();
        let address = "tls:127.0.0.1:0".parse().unwrap();
        let endpoint =
            Endpoint::bind(&address, "0600".parse().unwrap(), Some(&Arc::new(certificates))).await.unwrap();
        let port = endpoint.address().unwrap().socket_address().unwrap();
        let tell = |_: Request<Incoming>, peer: Peer| async move {
            Response::new(Full::new(Bytes::from(format!("{:?}", peer.channel))))
        };
        let server = server();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve(vec![endpoint], tell, async { drop(stopped.await) }).await }
        });
        for protocol in ["http/1.1", "h2"] {
            let stream = testing::connect_tls(port, &trust, protocol).await;
            let answer = if protocol == "h2" {
                let (mut sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request_http2("/")).await.unwrap()
            } else {
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                sender
                    .send_request(Request::get("/").header("host", "a").body(Empty::<Bytes>::new()).unwrap())
                    .await
                    .unwrap()
            };
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "Tls", "{protocol}");
        }
        let mut plain = TcpStream::connect(port).await.unwrap();
        plain.write_all(request("/").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
        let rendered = server.life.metrics().encode(Exposition::Text);
        assert!(rendered.contains("connections_ended_total{cause=\"tls-failed\"} 1\n"), "{rendered}");
        stop.send(()).unwrap();
        serving.await.unwrap();
    }

    /// Asks on one connection until the server says that it closes it; returns whether every request was answered.
    async fn ask_until_closed(address: SocketAddr) -> bool {
        let mut stream = TcpStream::connect(address).await.unwrap();
        loop {
            if stream.write_all(request("/load").as_bytes()).await.is_err() {
                return false;
            }
            let mut answer = Vec::new();
            while !answer.ends_with(b"this is /load") {
                if !stream.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {
                    return false;
                }
            }
            if String::from_utf8_lossy(&answer).contains("connection: close\r\n") {
                return true;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn under_load_every_request_is_answered_through_the_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, mut counted) = tokio::sync::watch::channel(0);
        let counting = move |request: Request<Incoming>, peer: Peer| {
            count.send_modify(|count| *count += 1);
            respond(request, peer)
        };
        let counting = Arc::new(counting);
        let counting = move |request: Request<Incoming>, peer: Peer| counting(request, peer);
        let shutdown = async move { drop(counted.wait_for(|count| 2000 < *count).await) };
        let serving =
            tokio::spawn(async move { server().serve(vec![listener.into()], counting, shutdown).await });
        let clients: Vec<_> = (0..32).map(|_| tokio::spawn(ask_until_closed(address))).collect();
        for client in clients {
            assert!(client.await.unwrap());
        }
        assert_eq!(serving.await.unwrap(), Drained { cut: 0 });
    }
}

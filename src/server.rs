//! Accepts connections, speaks HTTP/1.1 and HTTP/2 on them, and hands requests to a handler.
//!
//! The room knows who is connected and for how long they may be silent; what a request means is the handler's.
//! The protocol is chosen by a connection's first bytes, which are read under a deadline of ours.
//!
//! The end has three phases. *Serving*. *Draining*: whatever waits in the kernel's queue is still accepted, then
//! nobody else; answers say `Connection: close` (or `GOAWAY`); a connection that is idle stays open for a
//! moment longer, because a request may be on its way on it. *Over*: requests still in work are
//! answered with 503, and what is not flushed a second later is dropped.
//!
//! Invariants: a request that was accepted is answered, even if its work panics or does not end; no connection
//! may be silent for ever; no more than `max_connections` are open, the rest wait in the kernel's queue.
//! Not here: TLS, admission, anything about caching.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::config::{ListenConfig, ShutdownConfig};
use crate::metrics::Metrics;
use crate::metrics::connections::Listener;
use crate::peer::Peer;
use crate::server::accept::{Accepted, Acceptor};
use crate::server::connection::converse;
use crate::server::lifecycle::{Lifecycle, Phase};

pub mod accept;
pub mod coalesce;
pub mod connection;
pub mod interim;
pub mod lifecycle;
pub mod request;
pub mod transport;

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
#[derive(Debug, Clone, Copy)]
pub struct ServerSettings {
    /// Under which label connections are counted.
    pub listener: Listener,
    /// How long a new connection may take to show which protocol it speaks.
    pub first_byte_timeout: Duration,
    /// How long a request's head may take, and how long a connection may idle.
    pub header_read_timeout: Duration,
    /// Most connections at a time.
    pub max_connections: usize,
    /// How long requests in work may take after the shutdown's signal.
    pub grace: Duration,
    /// Renders the answer to a request whose handler failed.
    pub render_failure: RenderFailure,
}

impl ServerSettings {
    /// Returns the settings of the listener for clients.
    pub fn for_clients(listen: &ListenConfig, shutdown: ShutdownConfig) -> Self {
        Self {
            listener: Listener::Clients,
            first_byte_timeout: listen.first_byte_timeout,
            header_read_timeout: listen.header_read_timeout,
            max_connections: listen.max_connections,
            grace: shutdown.grace,
            render_failure: plain_failure,
        }
    }

    /// Returns the settings of the listener for operators, whose requests are few and short.
    pub fn for_operators() -> Self {
        Self {
            listener: Listener::Admin,
            first_byte_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_mins(1),
            max_connections: 64,
            grace: Duration::from_secs(1),
            render_failure: plain_failure,
        }
    }

    /// Returns the settings of a listener for webhooks alone. They come from outside, and whole or not at all.
    pub fn for_webhooks() -> Self {
        Self {
            listener: Listener::Webhooks,
            header_read_timeout: Duration::from_secs(10),
            max_connections: 1024,
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

/// A server for one listener; cheap to clone.
#[derive(Clone)]
pub struct Server {
    life: Arc<Lifecycle>,
}

impl Server {
    /// Creates a server; nothing runs yet.
    pub fn new(settings: ServerSettings, metrics: Arc<Metrics>) -> Self {
        Self { life: Arc::new(Lifecycle::new(settings, metrics)) }
    }

    /// Serves a listener until `shutdown` resolves, then drains.
    pub async fn serve<H: Handler>(
        &self,
        listener: TcpListener,
        handler: H,
        shutdown: impl Future<Output = ()>,
    ) -> Drained {
        let mut shutdown = pin!(shutdown);
        let mut connections = JoinSet::new();
        let mut acceptor = Acceptor::new(listener, &self.life);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(ended) = connections.join_next() => self.note(ended),
                accepted = acceptor.next() => self.spawn(&mut connections, accepted, &handler),
            }
        }
        for accepted in acceptor.into_backlog() {
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
        let open = self.life.metrics().connections.opened(self.life.settings().listener);
        open.end(converse(&self.life, stream, peer, handler).await);
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
        connections.spawn(async move {
            let Accepted { stream, peer, permit } = accepted;
            server.serve_connection(stream, peer, handler).await;
            drop(permit);
        });
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
mod tests {
    use std::net::SocketAddr;
    use std::time::UNIX_EPOCH;

    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;
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
        let settings = ServerSettings {
            listener: Listener::Clients,
            first_byte_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_mins(1),
            max_connections: 100,
            grace: Duration::from_secs(30),
            render_failure: plain_failure,
        };
        Server::new(settings, Arc::new(Metrics::new(UNIX_EPOCH, &LabelValues::default())))
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
    async fn half_a_head_is_not_waited_for_longer() {
        at(Duration::from_mins(1), converse_raw(&server(), b"GET / HTTP/1.1\r\nHost:")).await;
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
        let serving =
            tokio::spawn(async move { server.serve(listener, respond, std::future::ready(())).await });
        for stream in &mut waiting {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("this is /queued"), "{answer}");
        }
        assert_eq!(serving.await.unwrap(), Drained { cut: 0 });
    }

    #[tokio::test]
    async fn when_all_places_are_taken_the_next_connection_waits_for_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings = ServerSettings { max_connections: 1, ..*server().life.settings() };
        let server = Server::new(settings, Arc::new(Metrics::new(UNIX_EPOCH, &LabelValues::default())));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve(listener, respond, async { drop(stopped.await) }).await }
        });
        let mut waiting = Vec::new();
        for path in ["/first", "/second", "/third"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request(path).as_bytes()).await.unwrap();
            waiting.push((path, stream));
        }
        for (served, (path, mut stream)) in waiting.into_iter().enumerate() {
            read_until(&mut stream, &format!("this is {path}")).await;
            let rendered = server.life.metrics().encode(Exposition::Text);
            let accepted = format!("sentrybox_connections_total{{listener=\"clients\"}} {}\n", served + 1);
            assert!(rendered.contains(&accepted), "{rendered}");
        }
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
        let serving = tokio::spawn(async move { server().serve(listener, counting, shutdown).await });
        let clients: Vec<_> = (0..32).map(|_| tokio::spawn(ask_until_closed(address))).collect();
        for client in clients {
            assert!(client.await.unwrap());
        }
        assert_eq!(serving.await.unwrap(), Drained { cut: 0 });
    }
}

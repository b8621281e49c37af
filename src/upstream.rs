//! Sends one request to upstream and brings back one answer, each within its deadlines.
//!
//! [`Upstream`] is the seam: [`HttpUpstream`] speaks HTTP/1.1 and HTTP/2 over TCP and TLS, tests script their own.
//! [`connector`] opens connections, [`environment`] says through which proxy, [`tls`] whom to trust, [`body`]
//! watches what flows, [`framing`] how long an answer says it is, [`facts`] keeps book on a connection, [`lanes`] spreads
//! exchanges over several, [`pool`] sets the client up, [`error`] names what went wrong.
//!
//! Invariants: the target reaches the wire byte for byte as it was given; `Host` is always upstream's own; a
//! request is sent a second time only when it is safe, has no body, and went to a pooled connection that died
//! before the first byte of an answer; what may not be sent twice goes on a connection that is new or was used within
//! the last second, so that it hardly ever meets a dead one; a body that broke off or timed out ends in an error, never in an end; every
//! wait has a bound; a redirect is an answer like any other.
//! Not here: which upstream, which fields, how many requests at a time, counting.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, TRANSFER_ENCODING};
use http::{Extensions, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::ext::on_informational;
use hyper_util::client::legacy::Error as ClientError;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

use crate::config::UpstreamConfig;
use crate::upstream::body::{Download, RequestBodyStalled, Upload, UploadStage, measure};
use crate::upstream::connector::{ConnectTimedOut, Connector, Dial, NetworkDial};
use crate::upstream::environment::{Proxies, ProxyEnvironment, Route};
use crate::upstream::error::{TimeoutPhase, UpstreamError, UpstreamSetupError};
use crate::upstream::facts::ConnectionFacts;
use crate::upstream::framing::Framing;
use crate::upstream::lanes::{Lanes, StreamLimit};
use crate::upstream::pool::{HttpClient, Keep};

pub mod body;
pub mod connector;
pub mod environment;
pub mod error;
pub mod facts;
pub mod framing;
pub mod lanes;
pub mod pool;
pub mod tls;

/// Any error, as it comes out of a body or a connector.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request on its way to upstream.
pub type OutgoingBody = UnsyncBoxBody<Bytes, BoxError>;
/// The body of an answer on its way from upstream.
pub type IncomingBody = UnsyncBoxBody<Bytes, UpstreamError>;
/// An exchange under way.
pub type Sending<'a> =
    Pin<Box<dyn Future<Output = Result<Response<IncomingBody>, UpstreamError>> + Send + 'a>>;

/// How long a connection stays good for what may not be sent twice: less than any server in use waits before it closes
/// an idle connection (gunicorn's default is 2 s, Node's 5 s), whose end may be on its way when the request leaves.
const SURE_OF_LIFE: Duration = Duration::from_secs(1);

/// Something that answers requests in Sentry's place.
pub trait Upstream: Send + Sync + fmt::Debug {
    /// Sends a request whose URI is absolute. Dropping the answer's body, or this before it is done, gives the
    /// exchange up.
    fn send(&self, request: Request<OutgoingBody>) -> Sending<'_>;
}

/// How many times a request was put on a wire, in the extensions of its answer: 2 after the one retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts(pub u8);

/// What is done with each interim response, in the extensions of a request. Those of HTTP/2 are not heard.
#[derive(Clone)]
pub struct OnInterim(pub Arc<dyn Fn(StatusCode, HeaderMap) + Send + Sync>);

impl fmt::Debug for OnInterim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OnInterim")
    }
}

/// Upstream as reached over the network.
#[derive(Debug)]
pub struct HttpUpstream {
    pooled: Lanes<HttpClient>,
    /// As `pooled`, for what may not be sent twice: its connections idle for a moment only.
    recent: Lanes<HttpClient>,
    /// As `pooled`, but every request dials: for the retry, which must not meet a second dead connection.
    fresh: HttpClient,
    proxies: Proxies,
    limits: Limits,
}

/// How long each part of an exchange may take; connecting is bounded by the connector.
#[derive(Debug, Clone, Copy)]
struct Limits {
    first_byte: Duration,
    idle: Duration,
    total: Duration,
}

/// An attempt that brought no answer.
struct Failure {
    error: UpstreamError,
    repeat: Repeat,
}

/// Whether the failed attempt's connection allows another one.
#[derive(Clone, Copy)]
enum Repeat {
    /// It had served before, and died without a byte of an answer.
    MayHelp,
    /// Anything else.
    Never,
}

impl HttpUpstream {
    /// Prepares to reach upstream; connects to nothing yet.
    ///
    /// # Errors
    ///
    /// When root certificates cannot be loaded or the environment names a proxy that cannot be used.
    pub fn new(config: &UpstreamConfig, environment: &ProxyEnvironment) -> Result<Self, UpstreamSetupError> {
        let proxies = Proxies::new(environment)?;
        let dial = NetworkDial::new(config, proxies.clone())?;
        Ok(Self::over(Arc::new(dial), config, proxies))
    }

    fn over(dial: Arc<dyn Dial>, config: &UpstreamConfig, proxies: Proxies) -> Self {
        let streams = StreamLimit::default();
        let connector = Connector::new(dial, config.connect_timeout, streams.clone());
        let limits = Limits {
            first_byte: config.first_byte_timeout,
            idle: config.idle_timeout,
            total: config.total_timeout,
        };
        let lanes = |idle: Duration| {
            Lanes::new(streams.clone(), || pool::client(connector.clone(), idle, Keep::Idle))
        };
        Self {
            pooled: lanes(config.pool_idle_timeout),
            recent: lanes(config.pool_idle_timeout.min(SURE_OF_LIFE)),
            fresh: pool::client(connector.clone(), config.pool_idle_timeout, Keep::Nothing),
            proxies,
            limits,
        }
    }

    async fn exchange(
        &self,
        request: Request<OutgoingBody>,
    ) -> Result<Response<IncomingBody>, UpstreamError> {
        let mut deadline = Box::pin(sleep(self.limits.total));
        let mut request = self.measured(self.addressed(request), deadline.as_mut()).await?;
        framing::announce_nothing(&mut request);
        let again = repeatable(&request);
        let lanes = if again.is_some() { &self.pooled } else { &self.recent };
        let (first, berth) = lanes.board();
        let (outcome, attempts) = match (self.attempt(first, request, deadline.as_mut()).await, again) {
            (Err(Failure { repeat: Repeat::MayHelp, .. }), Some(again)) => {
                (self.attempt(&self.fresh, again, deadline.as_mut()).await, Attempts(2))
            }
            (outcome, _) => (outcome, Attempts(1)),
        };
        let mut response = outcome.map_err(|failure| failure.error)?;
        response.extensions_mut().clear();
        response.extensions_mut().insert(attempts);
        let version = response.version();
        Ok(response.map(|body| {
            Download::new((version, body), self.limits.idle, deadline).aboard(berth).boxed_unsync()
        }))
    }

    /// Makes the request one for upstream: `Host` from the URI, and our credential for a forwarding proxy.
    fn addressed(&self, mut request: Request<OutgoingBody>) -> Request<OutgoingBody> {
        // The client would refuse another version on a connection that speaks HTTP/1.1.
        *request.version_mut() = Version::HTTP_11;
        let interim = request.extensions_mut().remove();
        request.extensions_mut().clear();
        if let Some(OnInterim(tell)) = interim {
            on_informational(&mut request, move |interim| tell(interim.status(), interim.headers().clone()));
        }
        request.headers_mut().remove(HOST);
        if let Route::Forward(proxy) = self.proxies.route(request.uri())
            && let Some(credential) = proxy.basic_auth()
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, credential.clone());
        }
        request
    }

    /// Reads a body of unknown length ahead, so that a small one goes out with `Content-Length`.
    async fn measured(
        &self,
        request: Request<OutgoingBody>,
        deadline: Pin<&mut Sleep>,
    ) -> Result<Request<OutgoingBody>, UpstreamError> {
        // One that is said to be empty, and has not ended, may be malformed (RFC 9113 §8.1.1).
        let is_ended = request.body().is_end_stream();
        if is_ended || request.body().size_hint().exact().is_some_and(|length| 0 < length) {
            return Ok(request);
        }
        let (mut head, body) = request.into_parts();
        head.headers.remove(TRANSFER_ENCODING);
        tokio::select! {
            biased;
            measured = measure(body, self.limits.idle) => {
                let body = measured?;
                // hyper would take a GET whose length nobody tells for one without a body.
                if body.size_hint().exact().is_none() {
                    head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                Ok(Request::from_parts(head, body))
            }
            // Nothing was sent yet.
            () = deadline => Err(UpstreamError::request_body(RequestBodyStalled)),
        }
    }

    async fn attempt(
        &self,
        client: &HttpClient,
        request: Request<OutgoingBody>,
        mut deadline: Pin<&mut Sleep>,
    ) -> Result<Response<Incoming>, Failure> {
        let (upload, mut progress) = watch::channel(UploadStage::Taken);
        let total = self.limits.total;
        let mut request = request.map(|body| Upload::new(body, upload, total));
        let connection = capture_connection(&mut request);
        let boarding = board(connection.clone(), request.method().clone());
        let mut answer = client.request(request);
        tokio::select! {
            biased;
            outcome = &mut answer => return conclude(outcome, &progress, &connection),
            () = deadline.as_mut() => return Err(progress.borrow().expired().into()),
            () = boarding => {}
        }
        loop {
            let stage = progress.borrow_and_update().clone();
            tokio::select! {
                biased;
                outcome = &mut answer => return conclude(outcome, &progress, &connection),
                () = deadline.as_mut() => return Err(stage.expired().into()),
                Ok(()) = progress.changed() => {}
                () = sleep(self.limits.of(&stage)) => return Err(stage.stalled().into()),
            }
        }
    }
}

impl Upstream for HttpUpstream {
    fn send(&self, request: Request<OutgoingBody>) -> Sending<'_> {
        Box::pin(self.exchange(request))
    }
}

impl Limits {
    /// Returns how long the exchange may rest in this stage.
    fn of(&self, stage: &UploadStage) -> Duration {
        match stage {
            UploadStage::Taken | UploadStage::Awaited => self.idle,
            UploadStage::Complete | UploadStage::Failed(_) => self.first_byte,
        }
    }
}

impl Failure {
    fn timeout(phase: TimeoutPhase) -> Self {
        UpstreamError::Timeout { phase }.into()
    }
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        Self { error, repeat: Repeat::Never }
    }
}

/// Returns a second copy of a request that may be sent twice.
fn repeatable(request: &Request<OutgoingBody>) -> Option<Request<OutgoingBody>> {
    // "A proxy MUST NOT automatically retry non-idempotent requests" (RFC 9110 §9.2.2); we keep to safe ones.
    if !request.method().is_safe() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Waits until the request has a connection.
async fn board(mut connection: CaptureConnection, method: Method) {
    if let Some(connected) = connection.wait_for_connection_metadata().await.as_ref() {
        let mut extras = Extensions::new();
        connected.get_extras(&mut extras);
        if let Some(facts) = extras.get::<ConnectionFacts>() {
            facts.await_answer();
        }
    }
    // uwsgi answers HEAD with a body. What is left of it on an HTTP/1.1 connection must not meet the next request.
    if method == Method::HEAD {
        leave(&connection);
    }
}

fn conclude(
    outcome: Result<Response<Incoming>, ClientError>,
    progress: &watch::Receiver<UploadStage>,
    connection: &CaptureConnection,
) -> Result<Response<Incoming>, Failure> {
    let mut response = outcome.map_err(|error| failure_of(error, &progress.borrow()))?;
    if let Some(facts) = response.extensions().get::<ConnectionFacts>() {
        facts.note_answer();
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // "A server MUST NOT switch to a protocol that was not indicated by the client" (RFC 9110 §7.8).
        return Err(UpstreamError::broken("switched protocols without being asked").into());
    }
    let framed = framing::settle(&mut response);
    // Whoever answers before the end of a request may never read the rest of it.
    let is_early = !matches!(*progress.borrow(), UploadStage::Complete);
    if is_early || !matches!(framed, Ok(Framing::Plain)) {
        leave(connection);
    }
    framed.map(|_| response).map_err(|error| UpstreamError::broken(error).into())
}

/// Sees to it that an HTTP/1.1 connection serves no other request.
fn leave(connection: &CaptureConnection) {
    if let Some(connected) = connection.connection_metadata().as_ref()
        && !connected.is_negotiated_h2()
    {
        connected.poison();
    }
}

fn failure_of(error: ClientError, stage: &UploadStage) -> Failure {
    if let UploadStage::Failed(cause) = stage {
        return cause.clone().into();
    }
    if !error.is_connect() {
        let repeat = repeat_after(&error);
        return Failure { error: UpstreamError::broken(error), repeat };
    }
    if ConnectTimedOut::is_cause_of(&error) {
        return Failure::timeout(TimeoutPhase::Connect);
    }
    UpstreamError::unreachable(error).into()
}

fn repeat_after(error: &ClientError) -> Repeat {
    let mut extras = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extras);
    }
    match extras.get::<ConnectionFacts>() {
        Some(facts) if facts.has_died_unanswered() => Repeat::MayHelp,
        Some(_) | None => Repeat::Never,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use http_body::Frame;
    use http_body_util::{Channel, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::sync::mpsc;

    use hyper_util::rt::TokioExecutor;

    use super::*;
    use crate::config::Roots;
    use crate::upstream::connector::{Dialing, Dialled, Protocol};
    use crate::upstream::error::UpstreamFault;
    use crate::upstream::pool::MAX_FIELDS;

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const CONNECT: Duration = Duration::from_secs(5);
    const FIRST_BYTE: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(20);
    const TOTAL: Duration = Duration::from_secs(100);

    fn config() -> UpstreamConfig {
        UpstreamConfig {
            region: String::new(),
            url: String::new(),
            regions: std::collections::BTreeMap::new(),
            control: String::new(),
            routing: crate::config::Routing::Pinned,
            link_hosts: Vec::new(),
            roots: Roots::Bundled,
            ca_file: PathBuf::new(),
            connect_timeout: CONNECT,
            first_byte_timeout: FIRST_BYTE,
            idle_timeout: IDLE,
            total_timeout: TOTAL,
            pool_idle_timeout: Duration::from_mins(1),
        }
    }

    /// Hands the far end of each connection to the test.
    #[derive(Debug)]
    struct PipeDial {
        dialled: mpsc::UnboundedSender<DuplexStream>,
        protocol: Protocol,
    }

    impl Dial for PipeDial {
        fn dial(&self, _: http::Uri) -> Dialing {
            let (near, far) = tokio::io::duplex(1024);
            let is_listening = self.dialled.send(far).is_ok();
            let protocol = self.protocol;
            Box::pin(async move {
                if !is_listening {
                    std::future::pending::<()>().await;
                }
                Ok(Dialled { stream: Box::new(near), protocol })
            })
        }
    }

    struct Peer {
        accepted: mpsc::UnboundedReceiver<DuplexStream>,
    }

    impl Peer {
        async fn accept(&mut self) -> DuplexStream {
            self.accepted.recv().await.unwrap()
        }

        /// Accepts a connection and answers one request on it.
        async fn serve(&mut self, answer: &str) -> DuplexStream {
            let mut connection = self.accept().await;
            read_head(&mut connection).await;
            connection.write_all(answer.as_bytes()).await.unwrap();
            connection
        }
    }

    fn pair() -> (Arc<HttpUpstream>, Peer) {
        pair_speaking(Protocol::Http1)
    }

    fn pair_speaking(protocol: Protocol) -> (Arc<HttpUpstream>, Peer) {
        let (dialled, accepted) = mpsc::unbounded_channel();
        let proxies = Proxies::new(&ProxyEnvironment::default()).unwrap();
        (
            Arc::new(HttpUpstream::over(Arc::new(PipeDial { dialled, protocol }), &config(), proxies)),
            Peer { accepted },
        )
    }

    async fn read_head(connection: &mut DuplexStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    fn full(text: &'static str) -> OutgoingBody {
        Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
    }

    fn request(method: Method, uri: &str, body: OutgoingBody) -> Request<OutgoingBody> {
        Request::builder().method(method).uri(uri).body(body).unwrap()
    }

    fn of(method: Method) -> Request<OutgoingBody> {
        request(method, "http://sentry.test/api/0/", full(""))
    }

    type Answer = Result<Response<IncomingBody>, UpstreamError>;

    /// Sends in a task of its own, as the flights do.
    fn spawn(
        upstream: &Arc<HttpUpstream>,
        request: Request<OutgoingBody>,
    ) -> tokio::task::JoinHandle<Answer> {
        let upstream = Arc::clone(upstream);
        tokio::spawn(async move { upstream.send(request).await })
    }

    async fn text(answer: Answer) -> Result<String, UpstreamError> {
        let body = answer?.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    async fn fault(answer: Answer) -> UpstreamFault {
        text(answer).await.unwrap_err().fault()
    }

    async fn phase(answer: Answer) -> TimeoutPhase {
        match text(answer).await {
            Err(UpstreamError::Timeout { phase }) => phase,
            other => panic!("no timeout: {other:?}"),
        }
    }

    async fn check_head(uri: &str, target: &str, host: &str) {
        let (upstream, mut peer) = pair();
        let mut request = request(Method::GET, uri, full(""));
        request.headers_mut().insert(HOST, HeaderValue::from_static("downstream.test"));
        *request.version_mut() = Version::HTTP_2;
        let answer = spawn(&upstream, request);
        let mut connection = peer.accept().await;
        let head = read_head(&mut connection).await;
        connection.write_all(OK.as_bytes()).await.unwrap();
        assert_eq!(text(answer.await.unwrap()).await.unwrap(), "ok");
        assert_eq!(head, format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_target_reaches_the_wire_byte_for_byte_and_host_is_upstreams_own() {
        let odd = "/api/0/organizations/a/releases/web%2Fapp@1.0+b/?&cursor=0%3A100:0&query=a+b%20c&x=%c3%A4";
        check_head(&format!("http://sentry.test:8080{odd}"), odd, "sentry.test:8080").await;
        check_head("http://sentry.test:80/api/0/", "/api/0/", "sentry.test").await;
        check_head("http://[::1]:9000/api/0/?", "/api/0/?", "[::1]:9000").await;
    }

    #[tokio::test(start_paused = true)]
    async fn connecting_is_bounded() {
        let (upstream, peer) = pair();
        drop(peer);
        assert_eq!(phase(upstream.send(of(Method::GET)).await).await, TimeoutPhase::Connect);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_the_first_byte_is_bounded() {
        let (upstream, mut peer) = pair();
        let answer = spawn(&upstream, of(Method::GET));
        let mut connection = peer.accept().await;
        read_head(&mut connection).await;
        assert_eq!(phase(answer.await.unwrap()).await, TimeoutPhase::FirstByte);
        // The connection is given up with the request: nothing late can meet another one.
        assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_in_the_answer_is_bounded() {
        let (upstream, mut peer) = pair();
        let answer = spawn(&upstream, of(Method::GET));
        let mut connection = peer.serve("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na").await;
        let answer = answer.await.unwrap();
        let late = tokio::spawn(async move {
            sleep(IDLE.checked_sub(Duration::from_secs(1)).unwrap()).await;
            connection.write_all(b"b").await.unwrap();
            connection
        });
        assert_eq!(phase(answer).await, TimeoutPhase::IdleBody);
        assert_eq!(late.await.unwrap().read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_exchange_is_bounded_though_every_part_is_in_time() {
        let (upstream, mut peer) = pair();
        let answer = spawn(&upstream, of(Method::GET));
        let mut connection = peer.serve("HTTP/1.1 200 OK\r\n\r\n").await;
        tokio::spawn(async move {
            while connection.write_all(b"drip").await.is_ok() {
                sleep(Duration::from_secs(7)).await;
            }
        });
        assert_eq!(phase(answer.await.unwrap()).await, TimeoutPhase::WholeExchange);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_upload_that_moves_does_not_start_the_clock_for_the_answer() {
        let (upstream, mut peer) = pair();
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
        tokio::spawn(async move {
            // Longer than may be read ahead, so that it streams; then slower than the first byte may be.
            sender.send(Frame::data(Bytes::from(vec![b'x'; 2 * 1024 * 1024]))).await.unwrap();
            for _ in 0..3 {
                sleep(FIRST_BYTE + Duration::from_secs(5)).await;
                sender.send(Frame::data(Bytes::from_static(b"last"))).await.unwrap();
            }
        });
        let answer = spawn(&upstream, request(Method::PUT, "http://sentry.test/", body.boxed_unsync()));
        let mut connection = peer.accept().await;
        assert!(read_head(&mut connection).await.contains("transfer-encoding: chunked"));
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n0\r\n\r\n") {
            assert_ne!(connection.read_buf(&mut seen).await.unwrap(), 0);
        }
        connection.write_all(OK.as_bytes()).await.unwrap();
        assert_eq!(text(answer.await.unwrap()).await.unwrap(), "ok");
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_upstream_does_not_take_times_out() {
        let (upstream, mut peer) = pair();
        let (mut sender, body) = announced(1 << 30);
        tokio::spawn(async move { while sender.send(data(&[b'x'; 8192])).await.is_ok() {} });
        let answer = spawn(&upstream, request(Method::PUT, "http://sentry.test/", body));
        let _unread = peer.accept().await;
        assert_eq!(phase(answer.await.unwrap()).await, TimeoutPhase::IdleRequestBody);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_whose_client_stalls_is_not_upstreams_fault() {
        let (upstream, mut peer) = pair();
        let (mut sender, body) = announced(8);
        let answer = spawn(&upstream, request(Method::PUT, "http://sentry.test/", body));
        sender.send(data(b"half")).await.unwrap();
        let _connection = peer.accept().await;
        assert_eq!(fault(answer.await.unwrap()).await, UpstreamFault::RequestBody);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_its_client_drags_out_is_not_upstreams_fault_either() {
        let (upstream, mut peer) = pair();
        let (mut sender, body) = announced(1 << 20);
        let answer = spawn(&upstream, request(Method::PUT, "http://sentry.test/", body));
        let mut connection = peer.accept().await;
        tokio::spawn(async move { while connection.read_u8().await.is_ok() {} });
        // A byte now and then, until the whole exchange has taken too long.
        while sender.send(data(b"x")).await.is_ok() && !answer.is_finished() {
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(fault(answer.await.unwrap()).await, UpstreamFault::RequestBody);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_of_unknown_length_that_its_client_drags_out_is_not_upstreams_fault_either() {
        let (upstream, _peer) = pair();
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
        let answer = spawn(&upstream, request(Method::PUT, "http://sentry.test/", body.boxed_unsync()));
        while sender.send(data(b"x")).await.is_ok() && !answer.is_finished() {
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(fault(answer.await.unwrap()).await, UpstreamFault::RequestBody);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_breaks_off_never_looks_complete() {
        let (upstream, mut peer) = pair();
        let (mut sender, body) = announced(8);
        let answer = spawn(&upstream, request(Method::PUT, "http://sentry.test/", body));
        sender.send(data(b"half")).await.unwrap();
        sender.abort("the client left".into());
        let mut connection = peer.accept().await;
        let mut seen = Vec::new();
        connection.read_to_end(&mut seen).await.unwrap();
        assert!(!seen.ends_with(b"0\r\n\r\n"));
        let error = text(answer.await.unwrap()).await.unwrap_err();
        assert_eq!(error.fault(), UpstreamFault::RequestBody);
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the client left");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_before_the_end_of_the_upload_is_delivered() {
        let (upstream, mut peer) = pair();
        let (mut sender, body) = announced(8);
        let answer = spawn(&upstream, request(Method::PUT, "http://sentry.test/", body));
        sender.send(data(b"half")).await.unwrap();
        let _connection = peer.serve("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await;
        let answer = answer.await.unwrap();
        assert_eq!(answer.as_ref().unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(text(answer).await.unwrap(), "no");
        drop(sender);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_body_of_unknown_length_goes_out_with_content_length() {
        let (upstream, mut peer) = pair();
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(2);
        sender.send(data(b"ha")).await.unwrap();
        sender.send(data(b"lf")).await.unwrap();
        drop(sender);
        let answer = spawn(&upstream, request(Method::PUT, "http://sentry.test/", body.boxed_unsync()));
        let mut connection = peer.accept().await;
        let head = read_head(&mut connection).await;
        assert!(head.contains("content-length: 4\r\n") && !head.contains("chunked"), "{head}");
        let mut sent = [0; 4];
        connection.read_exact(&mut sent).await.unwrap();
        connection.write_all(OK.as_bytes()).await.unwrap();
        assert_eq!((&sent, text(answer.await.unwrap()).await.unwrap().as_str()), (b"half", "ok"));
    }

    async fn check_broken(answer: &str) {
        let (upstream, mut peer) = pair();
        let sending = spawn(&upstream, of(Method::GET));
        // Upstream may be cut off before it has said everything: that is what some cases are about.
        let mut connection = peer.accept().await;
        read_head(&mut connection).await;
        let _ = connection.write_all(answer.as_bytes()).await;
        drop(connection);
        assert_eq!(fault(sending.await.unwrap()).await, UpstreamFault::Broken, "{answer:.60}");
        assert!(peer.accepted.try_recv().is_err(), "a fresh connection's failure is not repeated");
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_answer_never_looks_complete() {
        check_broken("").await;
        check_broken("HTTP/1.1 200").await;
        check_broken("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").await;
        check_broken("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n").await;
        check_broken("{\"detail\":\"no HTTP at all\"}\r\n\r\n").await;
        check_broken("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_head_of_an_answer_is_bounded() {
        check_broken(&format!("HTTP/1.1 200 OK\r\nLink: {}\r\n\r\n", "x".repeat(1 << 20))).await;
        check_broken(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1))).await;
    }

    async fn check_carried(answer: &str, status: u16, body: &str) {
        let (upstream, mut peer) = pair();
        let sending = spawn(&upstream, of(Method::GET));
        drop(peer.serve(answer).await);
        let answer = sending.await.unwrap();
        let response = answer.as_ref().unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.extensions().get(), Some(&Attempts(1)));
        assert_eq!(text(answer).await.unwrap(), body);
    }

    #[tokio::test(start_paused = true)]
    async fn interim_answers_are_told_to_whoever_wants_to_hear_them() {
        let (upstream, mut peer) = pair();
        let (told, mut heard) = mpsc::unbounded_channel();
        let mut request = of(Method::GET);
        request.extensions_mut().insert(OnInterim(Arc::new(move |status, fields| {
            told.send((status, fields)).unwrap();
        })));
        let answer = spawn(&upstream, request);
        let _connection = peer
            .serve(&format!(
                "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}"
            ))
            .await;
        assert_eq!(text(answer.await.unwrap()).await.unwrap(), "ok");
        assert_eq!(heard.recv().await.unwrap().0, StatusCode::PROCESSING);
        let (status, fields) = heard.recv().await.unwrap();
        assert_eq!((status, &fields["link"]), (StatusCode::EARLY_HINTS, &HeaderValue::from_static("</a>")));
    }

    #[tokio::test(start_paused = true)]
    async fn interim_answers_are_skipped_and_redirects_are_not_followed() {
        check_carried(&format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}"), 200, "ok").await;
        check_carried("HTTP/1.1 302 Found\r\nLocation: /b/\r\nContent-Length: 0\r\n\r\n", 302, "").await;
        check_carried("HTTP/1.1 200 OK\r\n\r\nup to the end", 200, "up to the end").await;
    }

    /// Serves one request, so that the connection is a pooled one, and returns it.
    async fn pooled(upstream: &Arc<HttpUpstream>, peer: &mut Peer, method: Method) -> DuplexStream {
        let answer = spawn(upstream, of(method));
        let connection = peer.serve(OK).await;
        assert_eq!(text(answer.await.unwrap()).await.unwrap(), "ok");
        connection
    }

    /// Sends on a pooled connection that says `last` and dies.
    async fn on_dying(last: &str, request: Request<OutgoingBody>) -> (tokio::task::JoinHandle<Answer>, Peer) {
        let (upstream, mut peer) = pair();
        let method = if repeatable(&request).is_some() { Method::GET } else { Method::POST };
        let mut connection = pooled(&upstream, &mut peer, method).await;
        let answer = spawn(&upstream, request);
        read_head(&mut connection).await;
        connection.write_all(last.as_bytes()).await.unwrap();
        (answer, peer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_safe_request_is_sent_once_more_when_its_pooled_connection_was_dead() {
        for method in [Method::GET, Method::OPTIONS] {
            let (answer, mut peer) = on_dying("", of(method)).await;
            let _fresh = peer.serve(OK).await;
            let answer = answer.await.unwrap();
            assert_eq!(answer.as_ref().unwrap().extensions().get(), Some(&Attempts(2)));
            assert_eq!(text(answer).await.unwrap(), "ok");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_safe_request_is_not_sent_a_third_time() {
        let (answer, mut peer) = on_dying("", of(Method::GET)).await;
        drop(peer.serve("").await);
        assert_eq!(fault(answer.await.unwrap()).await, UpstreamFault::Broken);
        assert!(peer.accepted.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_else_is_sent_twice() {
        let with_body = request(Method::GET, "http://sentry.test/api/0/", full("body"));
        for (last, request) in [("", of(Method::POST)), ("", with_body), ("HTTP/1.1 2", of(Method::GET))] {
            let (answer, mut peer) = on_dying(last, request).await;
            assert_eq!(fault(answer.await.unwrap()).await, UpstreamFault::Broken);
            assert!(peer.accepted.try_recv().is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_closed_while_idle_costs_no_request() {
        let (upstream, mut peer) = pair();
        // uwsgi closes after each answer without saying so.
        drop(pooled(&upstream, &mut peer, Method::POST).await);
        let answer = spawn(&upstream, request(Method::POST, "http://sentry.test/", full("body")));
        let _connection = peer.serve(OK).await;
        assert_eq!(text(answer.await.unwrap()).await.unwrap(), "ok");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_sent_twice_goes_on_a_connection_that_was_used_a_moment_ago_or_on_a_new_one() {
        let (upstream, mut peer) = pair();
        let mut connection = pooled(&upstream, &mut peer, Method::POST).await;
        sleep(SURE_OF_LIFE / 2).await;
        let answer = spawn(&upstream, of(Method::POST));
        read_head(&mut connection).await;
        connection.write_all(OK.as_bytes()).await.unwrap();
        assert_eq!(text(answer.await.unwrap()).await.unwrap(), "ok");
        sleep(SURE_OF_LIFE * 2).await;
        let answer = spawn(&upstream, of(Method::POST));
        let _another = peer.serve(OK).await;
        assert_eq!(text(answer.await.unwrap()).await.unwrap(), "ok");
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_the_answer_to_a_head_request_meets_no_other_request() {
        let (upstream, mut peer) = pair();
        let answer = spawn(&upstream, of(Method::HEAD));
        let mut first = peer.serve("HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n").await;
        let head = answer.await.unwrap().unwrap();
        assert_eq!(head.headers()["content-length"], "42");
        let answer = spawn(&upstream, of(Method::GET));
        let mut seen = Vec::new();
        first.read_to_end(&mut seen).await.unwrap();
        assert!(seen.is_empty(), "the next request came where a stray body may follow");
        let _second = peer.serve(OK).await;
        assert_eq!(text(answer.await.unwrap()).await.unwrap(), "ok");
    }

    /// Serves HTTP/2 until the request of the given number is there, and then drops the connection.
    async fn serve_http_2(connection: DuplexStream, until: u32) {
        let (seen, mut count) = watch::channel(0);
        let service = hyper::service::service_fn(move |_: Request<Incoming>| {
            seen.send_modify(|count| *count += 1);
            let is_last = *seen.borrow() == until;
            async move {
                if is_last {
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("ok")))
            }
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let connection = hyper_util::rt::TokioIo::new(connection);
        tokio::select! {
            _ = server.serve_connection(connection, service) => {}
            _ = count.wait_for(|count| *count == until) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_http_2_connection_is_replaced_once_for_a_safe_request_only() {
        for (method, expected) in [(Method::GET, Ok(Attempts(2))), (Method::POST, Err(UpstreamFault::Broken))]
        {
            let (upstream, mut peer) = pair_speaking(Protocol::Http2);
            let first = spawn(&upstream, of(method.clone()));
            let dying = tokio::spawn(serve_http_2(peer.accept().await, 2));
            assert_eq!(text(first.await.unwrap()).await.unwrap(), "ok");
            let second = spawn(&upstream, of(method));
            dying.await.unwrap();
            tokio::spawn(async move { serve_http_2(peer.accept().await, u32::MAX).await });
            let outcome = second.await.unwrap().map_err(|error| error.fault());
            assert_eq!(outcome.map(|response| *response.extensions().get::<Attempts>().unwrap()), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_http_2_connection_does_not_take_goes_over_another_one() {
        let (upstream, mut peer) = pair_speaking(Protocol::Http2);
        let together = Arc::new(tokio::sync::Barrier::new(10));
        tokio::spawn(async move {
            while let Some(connection) = peer.accepted.recv().await {
                let together = Arc::clone(&together);
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let together = Arc::clone(&together);
                    async move {
                        if request.uri().path() == "/api/0/" {
                            together.wait().await;
                        }
                        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("ok")))
                    }
                });
                let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                server.max_concurrent_streams(4);
                tokio::spawn(server.serve_connection(hyper_util::rt::TokioIo::new(connection), service));
            }
        });
        // It tells how many it takes.
        let first = request(Method::GET, "http://sentry.test/first", full(""));
        assert_eq!(text(upstream.send(first).await).await.unwrap(), "ok");
        let answers: Vec<_> = (0..10).map(|_| spawn(&upstream, of(Method::GET))).collect();
        for answer in answers {
            assert_eq!(text(answer.await.unwrap()).await.unwrap(), "ok");
        }
    }

    fn data(bytes: &[u8]) -> Frame<Bytes> {
        Frame::data(Bytes::copy_from_slice(bytes))
    }

    /// A body that is sent by and by, but says beforehand how long it will be.
    fn announced(length: u64) -> (http_body_util::channel::Sender<Bytes, BoxError>, OutgoingBody) {
        let (sender, body) = Channel::new(1);
        (sender, Announced { body, left: length }.boxed_unsync())
    }

    struct Announced {
        body: Channel<Bytes, BoxError>,
        left: u64,
    }

    impl Body for Announced {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let polled = Pin::new(&mut self.body).poll_frame(context);
            if let std::task::Poll::Ready(Some(Ok(frame))) = &polled {
                self.left -= frame.data_ref().unwrap().len() as u64;
            }
            polled
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(self.left)
        }
    }
}

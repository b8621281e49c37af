//! Opens connections to upstream and keeps book on each: did it ever serve, is it dead, did it begin to answer.
//!
//! [`NetworkDial`] goes over TCP, through a proxy where the environment says so, and speaks TLS where the scheme does;
//! tests dial in-memory pipes instead. [`Connector`] puts the deadline around either.
//!
//! Invariants: connecting is bounded, with all that belongs to it (name, proxy, TLS); so is what comes before an answer; a connection's
//! [`ConnectionFacts`] follow from what its reads and writes returned, not from a guess at an error's text.
//! Not here: keeping connections for the next request (hyper-util's pool).

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::config::UpstreamConfig;
use crate::upstream::BoxError;
use crate::upstream::environment::{Proxies, Route};
use crate::upstream::error::UpstreamSetupError;
use crate::upstream::facts::ConnectionFacts;
use crate::upstream::lanes::{FirstSettings, StreamLimit};
use crate::upstream::tls;

/// How long a connection may be silent before the kernel asks whether it still lives, how often, how many times.
const KEEPALIVE: Duration = Duration::from_mins(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;

/// A connection being opened.
pub type Dialing = Pin<Box<dyn Future<Output = Result<Dialled, BoxError>> + Send>>;

/// Something that opens connections.
pub trait Dial: Send + Sync + fmt::Debug {
    /// Opens a connection for requests to the scheme and authority of `destination`.
    fn dial(&self, destination: Uri) -> Dialing;
}

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection just opened.
#[expect(missing_debug_implementations, reason = "a stream has nothing to show")]
pub struct Dialled {
    /// What carries the requests.
    pub stream: Box<dyn Stream>,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 with upstream itself, or through a tunnel.
    Http1,
    /// HTTP/1.1 with a proxy that forwards.
    Http1ToProxy,
    /// HTTP/2, chosen by ALPN.
    Http2,
}

/// Connecting took longer than `upstream.connect_timeout`.
#[derive(Debug, Clone, Copy, Error)]
#[error("connecting took too long")]
pub struct ConnectTimedOut;

impl ConnectTimedOut {
    /// Returns whether an error is at bottom a timeout of connecting, ours or the kernel's.
    pub fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(cause) = next {
            let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            if cause.is::<Self>() || kind == Some(io::ErrorKind::TimedOut) {
                return true;
            }
            next = cause.source();
        }
        false
    }
}

/// Opens connections for the client, within a deadline.
#[derive(Debug, Clone)]
pub struct Connector {
    dial: Arc<dyn Dial>,
    timeout: Duration,
    streams: StreamLimit,
}

impl Connector {
    /// Puts a deadline around a way to dial. What connections say of their streams is noted in `streams`.
    pub const fn new(dial: Arc<dyn Dial>, timeout: Duration, streams: StreamLimit) -> Self {
        Self { dial, timeout, streams }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TrackedStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let dialing = tokio::time::timeout(self.timeout, self.dial.dial(destination));
        let streams = self.streams.clone();
        Box::pin(async move {
            let dialled = dialing.await.map_err(|_elapsed| ConnectTimedOut)??;
            Ok(TokioIo::new(TrackedStream::new(dialled, streams)))
        })
    }
}

/// A connection that keeps book on itself.
#[expect(missing_debug_implementations, reason = "a stream has nothing to show")]
pub struct TrackedStream {
    stream: Box<dyn Stream>,
    facts: ConnectionFacts,
    /// What an HTTP/2 connection says first.
    settings: Option<FirstSettings>,
}

impl TrackedStream {
    fn new(dialled: Dialled, streams: StreamLimit) -> Self {
        let is_http2 = dialled.protocol == Protocol::Http2;
        Self {
            stream: dialled.stream,
            facts: ConnectionFacts::new(dialled.protocol),
            settings: is_http2.then(|| FirstSettings::new(streams)),
        }
    }
}

impl Connection for TrackedStream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.facts.clone());
        match self.facts.protocol() {
            Protocol::Http1 => connected,
            Protocol::Http1ToProxy => connected.proxy(true),
            Protocol::Http2 => connected.negotiated_h2(),
        }
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        polled.map(|read| {
            if let Some(settings) = &mut self.settings {
                settings.read(buffer.filled().get(before..).unwrap_or_default());
            }
            let read = read.and_then(|()| self.facts.spend(buffer.filled().len().saturating_sub(before)));
            self.facts.note_read(&read);
            read.map(|_| ())
        })
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.facts.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.facts.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Dials over the network.
#[derive(Debug, Clone)]
pub struct NetworkDial {
    connector: HttpsConnector<RoutedConnector>,
    proxies: Proxies,
}

impl NetworkDial {
    /// Prepares TCP, TLS and proxies.
    ///
    /// # Errors
    ///
    /// When root certificates cannot be loaded.
    pub fn new(config: &UpstreamConfig, proxies: Proxies) -> Result<Self, UpstreamSetupError> {
        let tls = tls::client_config(config)?;
        let tcp = tcp(config.connect_timeout);
        let to_proxy = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp.clone());
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(RoutedConnector { tcp, to_proxy, proxies: proxies.clone() });
        Ok(Self { connector, proxies })
    }
}

impl Dial for NetworkDial {
    fn dial(&self, destination: Uri) -> Dialing {
        let mut connector = self.connector.clone();
        let route = self.proxies.route(&destination);
        Box::pin(async move {
            poll_fn(|context| connector.poll_ready(context)).await?;
            let stream = connector.call(destination).await?;
            let protocol = match route {
                Route::Forward(_) => Protocol::Http1ToProxy,
                Route::Direct | Route::Tunnel(_) if stream.connected().is_negotiated_h2() => Protocol::Http2,
                Route::Direct | Route::Tunnel(_) => Protocol::Http1,
            };
            Ok(Dialled { stream: Box::new(TokioIo::new(stream)), protocol })
        })
    }
}

fn tcp(timeout: Duration) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Divided among the addresses of a name, so that the second one still gets its turn.
    tcp.set_connect_timeout(Some(timeout));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    tcp
}

/// Brings a connection as far as TLS with upstream can start: TCP, or a tunnel through a proxy.
#[derive(Debug, Clone)]
pub struct RoutedConnector {
    tcp: HttpConnector,
    to_proxy: HttpsConnector<HttpConnector>,
    proxies: Proxies,
}

/// A TCP connection, with TLS as far as a proxy wants it.
type ProxyStream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Service<Uri> for RoutedConnector {
    type Response = ProxyStream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<ProxyStream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        match self.proxies.route(&destination) {
            Route::Direct => {
                let connecting = self.tcp.call(destination);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            Route::Forward(proxy) => self.to_proxy.call(proxy.uri().clone()),
            Route::Tunnel(proxy) => {
                let connecting = self.tunnel(&proxy).call(destination);
                Box::pin(async move { Ok(connecting.await?) })
            }
        }
    }
}

impl RoutedConnector {
    fn tunnel(&self, proxy: &Intercept) -> Tunnel<HttpsConnector<HttpConnector>> {
        let tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        match proxy.basic_auth() {
            Some(credential) => tunnel.with_auth(credential.clone()),
            None => tunnel,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{Request, Response, Version};
    use http_body_util::{BodyExt, Empty, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioExecutor;
    use rcgen::CertifiedKey;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::config::Roots;
    use crate::upstream::environment::ProxyEnvironment;
    use crate::upstream::error::{UpstreamError, UpstreamFault};
    use crate::upstream::{HttpUpstream, Upstream};

    /// A TLS server's side, and the file that makes a client trust it.
    struct Authority {
        acceptor: TlsAcceptor,
        ca_file: tempfile::NamedTempFile,
    }

    fn authority(protocol: &str) -> Authority {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "sentry.test".to_owned()])
                .unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let ca_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca_file.path(), cert.pem()).unwrap();
        Authority { acceptor: TlsAcceptor::from(Arc::new(config)), ca_file }
    }

    impl Authority {
        fn config(&self, roots: Roots) -> UpstreamConfig {
            let long = Duration::from_mins(1);
            UpstreamConfig {
                region: String::new(),
                url: String::new(),
                regions: std::collections::BTreeMap::new(),
                control: String::new(),
                routing: crate::config::Routing::Pinned,
                link_hosts: Vec::new(),
                roots,
                ca_file: self.ca_file.path().to_owned(),
                connect_timeout: long,
                first_byte_timeout: long,
                idle_timeout: long,
                total_timeout: long,
                pool_idle_timeout: long,
            }
        }

        /// Speaks TLS and the protocol it was made for, on one connection.
        async fn serve(&self, connection: TcpStream) {
            let Ok(stream) = self.acceptor.accept(connection).await else { return };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let stream = TokioIo::new(stream);
            // A client that is done closes the connection as it likes.
            let _ = if is_http2 {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                server.serve_connection(stream, service_fn(describe)).await
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                server.serve_connection(stream, service_fn(describe)).await
            };
        }
    }

    async fn describe(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
        let text = format!("{:?} {} {host:?}", request.version(), request.uri());
        Ok(Response::new(Full::from(text)))
    }

    async fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn proxied(variable: &'static str, proxy: &str) -> ProxyEnvironment {
        ProxyEnvironment::read(&|name| (name == variable).then(|| proxy.to_owned()))
    }

    async fn ask(upstream: &HttpUpstream, uri: &str) -> Result<(Version, String), UpstreamError> {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let response = upstream.send(Request::get(uri).body(body).unwrap()).await?;
        let version = response.version();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((version, String::from_utf8(body.to_vec()).unwrap()))
    }

    async fn check_tls(protocol: &str, roots: Roots) -> (u16, Version, String) {
        let authority = authority(protocol);
        let upstream = HttpUpstream::new(&authority.config(roots), &ProxyEnvironment::default()).unwrap();
        let (listener, port) = listen().await;
        let server = async { authority.serve(listener.accept().await.unwrap().0).await };
        let uri = format!("https://localhost:{port}/api/0/a%2Fb/?&cursor=0:1:0&q=a+b");
        tokio::select! {
            () = server => panic!("the server went away first"),
            answer = ask(&upstream, &uri) => {
                let (version, text) = answer.unwrap();
                (port, version, text)
            }
        }
    }

    #[tokio::test]
    async fn http_2_is_spoken_where_upstream_chooses_it() {
        for roots in [Roots::System, Roots::Bundled] {
            let (port, version, text) = check_tls("h2", roots).await;
            assert_eq!(version, Version::HTTP_2);
            let uri = format!("https://localhost:{port}/api/0/a%2Fb/?&cursor=0:1:0&q=a+b");
            assert_eq!(text, format!("HTTP/2.0 {uri} None"));
        }
    }

    #[tokio::test]
    async fn http_1_is_spoken_over_tls_where_upstream_chooses_it() {
        let (port, version, text) = check_tls("http/1.1", Roots::Bundled).await;
        assert_eq!(version, Version::HTTP_11);
        assert_eq!(text, format!("HTTP/1.1 /api/0/a%2Fb/?&cursor=0:1:0&q=a+b Some(\"localhost:{port}\")"));
    }

    #[tokio::test]
    async fn an_upstream_that_nobody_vouches_for_is_unreachable() {
        let (ours, theirs) = (authority("h2"), authority("h2"));
        let upstream = HttpUpstream::new(&ours.config(Roots::Bundled), &ProxyEnvironment::default()).unwrap();
        let (listener, port) = listen().await;
        let server = async { theirs.serve(listener.accept().await.unwrap().0).await };
        let uri = format!("https://localhost:{port}/");
        let ((), answer) = tokio::join!(server, ask(&upstream, &uri));
        assert_eq!(answer.unwrap_err().fault(), UpstreamFault::Unreachable);
    }

    #[tokio::test]
    async fn a_refused_connection_is_unreachable() {
        let upstream =
            HttpUpstream::new(&authority("h2").config(Roots::Bundled), &ProxyEnvironment::default()).unwrap();
        let (listener, port) = listen().await;
        drop(listener);
        let error = ask(&upstream, &format!("http://127.0.0.1:{port}/?token=hush")).await.unwrap_err();
        assert_eq!(error.fault(), UpstreamFault::Unreachable);
        assert!(!format!("{error} {error:?}").contains("hush"));
    }

    async fn read_head(connection: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    #[tokio::test]
    async fn an_https_upstream_is_reached_through_a_tunnel() {
        let authority = authority("h2");
        let (listener, port) = listen().await;
        let environment = proxied("HTTPS_PROXY", &format!("http://user:hush@127.0.0.1:{port}"));
        let upstream = HttpUpstream::new(&authority.config(Roots::Bundled), &environment).unwrap();
        let proxy = async {
            let mut connection = listener.accept().await.unwrap().0;
            let head = read_head(&mut connection).await;
            assert!(head.starts_with("CONNECT sentry.test:443 HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("Proxy-Authorization: Basic dXNlcjpodXNo\r\n"), "{head}");
            connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            authority.serve(connection).await;
        };
        tokio::select! {
            () = proxy => panic!("the proxy went away first"),
            answer = ask(&upstream, "https://sentry.test/api/0/") => {
                let text = "HTTP/2.0 https://sentry.test/api/0/ None".to_owned();
                assert_eq!(answer.unwrap(), (Version::HTTP_2, text));
            }
        }
    }

    #[tokio::test]
    async fn an_http_upstream_is_reached_in_absolute_form() {
        let (listener, port) = listen().await;
        let environment = proxied("HTTP_PROXY", &format!("http://user:hush@127.0.0.1:{port}"));
        let upstream = HttpUpstream::new(&authority("h2").config(Roots::Bundled), &environment).unwrap();
        let proxy = async {
            let mut connection = listener.accept().await.unwrap().0;
            let head = read_head(&mut connection).await;
            assert!(head.starts_with("GET http://sentry.test/a%2Fb/?&cursor= HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("host: sentry.test\r\n"), "{head}");
            assert!(head.contains("proxy-authorization: Basic dXNlcjpodXNo\r\n"), "{head}");
            connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        };
        let ((), answer) = tokio::join!(proxy, ask(&upstream, "http://sentry.test/a%2Fb/?&cursor="));
        assert_eq!(answer.unwrap().1, "ok");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_makes_upstream_unreachable() {
        let (listener, port) = listen().await;
        let environment = proxied("ALL_PROXY", &format!("http://user:hush@127.0.0.1:{port}"));
        let upstream = HttpUpstream::new(&authority("h2").config(Roots::Bundled), &environment).unwrap();
        let proxy = async {
            let mut connection = listener.accept().await.unwrap().0;
            read_head(&mut connection).await;
            connection.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
        };
        let ((), answer) = tokio::join!(proxy, ask(&upstream, "https://sentry.test/"));
        let error = answer.unwrap_err();
        assert_eq!(error.fault(), UpstreamFault::Unreachable);
        assert!(!format!("{error:?}").contains("hush"));
    }
}

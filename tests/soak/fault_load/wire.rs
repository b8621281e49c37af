//! A client's connections: through which door, by which protocol, and what becomes of one request on it.
//!
//! A client of ours does what any client may: it uses a connection again unless that is closed, and asks again on another one
//! what was certainly not served (RFC 9113 §6.8, §8.7). Nothing else is repeated behind the judge's back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header, response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ask::Ask;
use crate::authority::{Authority, NAME};
use crate::told;

/// Longest that connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A stream of any kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Where the proxy can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Tcp,
    Tls,
    Unix,
}

/// How to speak to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    One,
    Two,
}

/// The addresses behind the doors.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    pub(crate) tcp: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) unix: PathBuf,
    one: Arc<ClientConfig>,
    two: Arc<ClientConfig>,
}

impl Doors {
    pub(crate) fn new((tcp, tls): (SocketAddr, SocketAddr), unix: PathBuf, authority: &Authority) -> Self {
        Self { tcp, tls, unix, one: authority.client(b"http/1.1"), two: authority.client(b"h2") }
    }

    /// Connects, and shakes hands where that is the custom.
    pub(crate) async fn connect(&self, door: Door, protocol: Protocol) -> Result<Box<dyn Stream>, Trouble> {
        match timeout(CONNECT, self.connected(door, protocol)).await {
            Ok(result) => result,
            Err(_) => Err(Trouble::Late(format!("connecting by {door:?}"))),
        }
    }

    async fn connected(&self, door: Door, protocol: Protocol) -> Result<Box<dyn Stream>, Trouble> {
        let refused = |error: std::io::Error| Trouble::NotConnected(error.to_string());
        match door {
            Door::Tcp => {
                let stream = TcpStream::connect(self.tcp).await.map_err(refused)?;
                stream.set_nodelay(true).map_err(refused)?;
                Ok(Box::new(stream))
            }
            Door::Tls => Ok(Box::new(self.secured(protocol).await?)),
            Door::Unix => Ok(Box::new(UnixStream::connect(&self.unix).await.map_err(refused)?)),
        }
    }

    /// Connects by TLS.
    pub(crate) async fn secured(&self, protocol: Protocol) -> Result<TlsStream<TcpStream>, Trouble> {
        let stream = TcpStream::connect(self.tls).await;
        let stream = stream.map_err(|error| Trouble::NotConnected(error.to_string()))?;
        // What was refused has not connected yet; who ends a handshake drops somebody.
        let config = match protocol {
            Protocol::One => &self.one,
            Protocol::Two => &self.two,
        };
        let name = ServerName::try_from(NAME).unwrap();
        let secured = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
        secured.map_err(|error| Trouble::Dropped(format!("TLS: {error}")))
    }
}

/// Why there is no answer, or not all of it.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nobody listens.
    NotConnected(String),
    /// It was certainly not served: to be asked again.
    NotSent(String),
    /// The connection ended before an answer began.
    Dropped(String),
    /// It ended before the answer's end.
    Cut(String),
    /// It took too long.
    Late(String),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: response::Parts,
    pub(crate) body: Bytes,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// A connection.
pub(crate) struct Line {
    sender: Sender,
    door: Door,
}

impl Line {
    pub(crate) async fn open(doors: &Doors, door: Door, protocol: Protocol) -> Result<Self, Trouble> {
        let stream = TokioIo::new(doors.connect(door, protocol).await?);
        let broken = |error: hyper::Error| Trouble::Dropped(format!("{error:?}"));
        let sender = match protocol {
            Protocol::One => {
                let (sender, connection) = http1::handshake(stream).await.map_err(broken)?;
                tokio::spawn(connection);
                Sender::One(sender)
            }
            Protocol::Two => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), stream).await.map_err(broken)?;
                tokio::spawn(connection);
                Sender::Two(sender)
            }
        };
        Ok(Self { sender, door })
    }

    /// Asks, and waits for all of the answer.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<Answer, Trouble> {
        let began = format!("{} {}", ask.method, ask.target);
        match timeout(ask.patience, self.answer(ask)).await {
            Ok(result) => result,
            Err(_) => Err(Trouble::Late(began)),
        }
    }

    async fn answer(&mut self, ask: &Ask) -> Result<Answer, Trouble> {
        let request = self.request(ask);
        let response: Result<Response<Incoming>, hyper::Error> = match &mut self.sender {
            Sender::One(sender) => {
                let ready = sender.ready().await;
                ready.map_err(|error| Trouble::NotSent(format!("{error:?}")))?;
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                let ready = sender.ready().await;
                ready.map_err(|error| Trouble::NotSent(format!("{error:?}")))?;
                sender.send_request(request).await
            }
        };
        let (head, body) = response.map_err(|error| lost(&error))?.into_parts();
        let body = body.collect().await.map_err(|error| Trouble::Cut(format!("{error:?}")))?;
        Ok(Answer { head, body: body.to_bytes() })
    }

    fn request(&self, ask: &Ask) -> Request<Full<Bytes>> {
        let scheme = if self.door == Door::Tls { "https" } else { "http" };
        let builder = Request::builder().method(&ask.method);
        let builder = match &self.sender {
            Sender::One(_) => builder.uri(&ask.target).header(header::HOST, NAME),
            Sender::Two(_) => builder.uri(format!("{scheme}://{NAME}{}", ask.target)),
        };
        let authorization = format!("Bearer {}", told::token(ask.mark));
        let mut builder = builder.header(header::AUTHORIZATION, authorization);
        if let Some(etag) = &ask.etag {
            builder = builder.header(header::IF_NONE_MATCH, etag);
        }
        if !ask.body.is_empty() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        builder.body(Full::new(Bytes::from(ask.body.clone()))).unwrap()
    }
}

/// Tells what was certainly not served from what may have been.
fn lost(error: &hyper::Error) -> Trouble {
    let what = format!("{error:?}");
    let is_refused = what.contains("REFUSED_STREAM") || what.contains("GoAway") && what.contains("NO_ERROR");
    if error.is_canceled() || is_refused { Trouble::NotSent(what) } else { Trouble::Dropped(what) }
}

//! Asks our own admin listener: one request, one answer, for the commands that need a running proxy.
//!
//! Invariants: ends within the deadline that it is given; nothing that is sent shows in an error.
//! Not here: what is asked (`cli::healthcheck`, `cli::purge`, `cli::explain`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::AdminConfig;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// The listener's port is chosen at start and not known here.
    #[error("the admin listener has port 0, which says nothing about where it listens")]
    UnknownPort,
    /// Nobody listens.
    #[error("could not connect to the admin listener at {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What answers does not speak HTTP.
    #[error("the admin listener gave no proper answer")]
    Exchange(#[from] hyper::Error),
    /// There was no answer.
    #[error("the admin listener did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The admin token cannot be sent.
    #[error("could not send the admin token: it holds what no field may hold")]
    AdminToken,
    /// The answer is a refusal.
    #[error("the admin listener answered {status}: {detail}")]
    Refused {
        /// With this status.
        status: StatusCode,
        /// For this reason.
        detail: String,
    },
}

impl OperatorError {
    /// Returns whether the caller can set it right.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::AdminToken => true,
            Self::Refused { status, .. } => *status == StatusCode::BAD_REQUEST,
            Self::UnknownPort | Self::Connect { .. } | Self::Exchange(_) | Self::Timeout(_) => false,
        }
    }
}

/// What is ordered of the admin listener.
#[derive(Debug)]
pub struct Order {
    /// The endpoint.
    pub path: &'static str,
    /// The type of the answer.
    pub accept: &'static str,
    /// What is ordered, as JSON.
    pub body: Bytes,
}

/// Sends an order to the configured admin listener, with its token, and returns what that answers.
///
/// # Errors
/// Anything but a success within the deadline.
pub async fn order(admin: &AdminConfig, order: Order, deadline: Duration) -> Result<String, OperatorError> {
    let (status, answer) = ask(admin.address, request(admin, order)?, deadline).await?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    if status == StatusCode::OK {
        return Ok(text);
    }
    let detail = serde_json::from_slice::<Value>(&answer).ok();
    let detail = detail.and_then(|answer| answer.get("detail")?.as_str().map(str::to_owned));
    Err(OperatorError::Refused { status, detail: detail.unwrap_or(text) })
}

fn request(admin: &AdminConfig, order: Order) -> Result<Request<Full<Bytes>>, OperatorError> {
    let mut request = Request::new(Full::new(order.body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(order.path);
    let fields = request.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(header::ACCEPT, HeaderValue::from_static(order.accept));
    if !admin.token.is_empty() {
        let token = HeaderValue::from_str(&format!("Bearer {}", admin.token.expose()));
        let mut token = token.map_err(|_| OperatorError::AdminToken)?;
        token.set_sensitive(true);
        fields.insert(header::AUTHORIZATION, token);
    }
    Ok(request)
}

/// Asks the admin listener that is configured at `address`.
///
/// # Errors
/// Anything but an answer within the deadline.
pub async fn ask(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
    deadline: Duration,
) -> Result<(StatusCode, Bytes), OperatorError> {
    let address = reachable(address);
    if address.port() == 0 {
        return Err(OperatorError::UnknownPort);
    }
    let exchange = async {
        let connected = TcpStream::connect(address).await;
        let stream = connected.map_err(|source| OperatorError::Connect { address, source })?;
        exchange(stream, address, request).await
    };
    timeout(deadline, exchange).await.map_err(|_| OperatorError::Timeout(deadline))?
}

/// Sends a request over a connection of its own, and reads the answer.
///
/// # Errors
/// What answers does not speak HTTP.
pub async fn exchange<S>(
    stream: S,
    address: SocketAddr,
    mut request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), OperatorError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Always: an address is a valid field value.
    if let Ok(host) = HeaderValue::from_str(&address.to_string()) {
        request.headers_mut().insert(header::HOST, host);
    }
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The connection has to be driven while the answer is awaited; its own errors come with the answer.
    let driver = tokio::spawn(connection);
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok((head.status, body.collect().await?.to_bytes()))
    };
    let answer = answer.await;
    driver.abort();
    answer
}

/// Returns whether what is sent to a listener on `address` stays on this machine.
pub fn is_here(address: SocketAddr) -> bool {
    reachable(address).ip().to_canonical().is_loopback()
}

/// Returns where a listener on `address` can be reached from the same machine: an unspecified address is every one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::{Secret, load};

    /// Asks a peer that answers with `bytes`, and returns what it was asked too.
    async fn check(bytes: &'static str) -> (Result<(StatusCode, Bytes), OperatorError>, String) {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let peer = tokio::spawn(async move {
            let mut request = vec![0; 4096];
            let length = theirs.read(&mut request).await.unwrap();
            theirs.write_all(bytes.as_bytes()).await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let request = Request::get("/livez").body(Full::default()).unwrap();
        let result = exchange(ours, SocketAddr::from(([127, 0, 0, 1], 9001)), request).await;
        (result, peer.await.unwrap())
    }

    #[tokio::test]
    async fn an_answer_is_read_whole_whatever_its_status() {
        let (result, request) = check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(result.unwrap(), (StatusCode::OK, Bytes::from_static(b"ok")));
        assert!(request.starts_with("GET /livez HTTP/1.1\r\n"), "{request}");
        assert!(request.to_ascii_lowercase().contains("host: 127.0.0.1:9001\r\n"), "{request}");
        let (result, _) = check("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(result.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn what_does_not_speak_http_is_no_answer() {
        for bytes in ["hello", "", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"] {
            let (result, _) = check(bytes).await;
            assert!(matches!(result, Err(OperatorError::Exchange(_))), "{bytes}: {result:?}");
        }
    }

    #[test]
    fn the_admin_token_is_sent_and_not_shown() {
        let mut admin = load::defaults().admin;
        let order = || Order { path: "/purge", accept: "*/*", body: Bytes::new() };
        assert!(request(&admin, order()).unwrap().headers().get(header::AUTHORIZATION).is_none());
        admin.token = Secret::new("canary of sixteen letters".to_owned());
        let sent = request(&admin, order()).unwrap();
        assert_eq!(sent.headers()[header::AUTHORIZATION], "Bearer canary of sixteen letters");
        assert!(!format!("{sent:?}").contains("canary"));
        admin.token = Secret::new("canary of sixteen\nletters".to_owned());
        let error = request(&admin, order()).unwrap_err();
        assert!(error.is_usage() && !error.to_string().contains("canary"));
    }

    #[test]
    fn what_goes_to_loopback_stays_here() {
        for (address, expected) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", true),
            ("10.0.0.1:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            assert_eq!(is_here(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn an_unspecified_address_is_reached_over_loopback() {
        for (listening, reached) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(reachable(listening.parse().unwrap()), reached.parse().unwrap());
        }
    }
}

//! Asks our own admin listener: one request, one answer, for the commands that need a running proxy.
//!
//! Invariants: ends within the deadline that it is given; nothing that is sent shows in an error.
//! Not here: what is asked (`cli::healthcheck`, `cli::purge`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

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

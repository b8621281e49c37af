//! `sentrybox healthcheck`: one `GET /livez` to the admin listener, for containers without a shell.
//!
//! Invariant: ends within `DEADLINE`. Not here: what makes a process healthy (`admin`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the admin listener may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// Why the process is not known to live.
#[derive(Debug, Error)]
pub enum HealthcheckError {
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
    /// The answer is a bad one.
    #[error("the admin listener answered {0}")]
    Status(StatusCode),
    /// There was no answer.
    #[error("the admin listener did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
}

/// Asks the admin listener that is configured at `address`.
///
/// # Errors
/// Anything but an answer of 200 within the deadline.
pub async fn ask(address: SocketAddr) -> Result<(), HealthcheckError> {
    let address = reachable(address);
    if address.port() == 0 {
        return Err(HealthcheckError::UnknownPort);
    }
    let exchange = async {
        let connected = TcpStream::connect(address).await;
        let stream = connected.map_err(|source| HealthcheckError::Connect { address, source })?;
        livez(stream, address).await
    };
    timeout(DEADLINE, exchange).await.map_err(|_| HealthcheckError::Timeout)?
}

/// Sends the request and judges the answer's status.
async fn livez<S>(stream: S, address: SocketAddr) -> Result<(), HealthcheckError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/livez")
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("the parts of the request are valid");
    // The connection has to be driven while the answer is awaited; its own errors come with the answer.
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    driver.abort();
    let status = answer?.status();
    if status == StatusCode::OK { Ok(()) } else { Err(HealthcheckError::Status(status)) }
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
    async fn check(bytes: &'static str) -> (Result<(), HealthcheckError>, String) {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let peer = tokio::spawn(async move {
            let mut request = vec![0; 4096];
            let length = theirs.read(&mut request).await.unwrap();
            theirs.write_all(bytes.as_bytes()).await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let result = livez(ours, SocketAddr::from(([127, 0, 0, 1], 9001))).await;
        (result, peer.await.unwrap())
    }

    #[tokio::test]
    async fn a_200_is_health_and_nothing_else_is() {
        let (result, request) = check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert!(result.is_ok() && request.starts_with("GET /livez HTTP/1.1\r\n"), "{result:?} {request}");
        let (result, _) = check("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert!(
            matches!(result, Err(HealthcheckError::Status(StatusCode::SERVICE_UNAVAILABLE))),
            "{result:?}"
        );
        let (result, _) = check("hello").await;
        assert!(matches!(result, Err(HealthcheckError::Exchange(_))), "{result:?}");
        let (result, _) = check("").await;
        assert!(result.is_err());
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

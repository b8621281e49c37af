//! A small HTTP/1.1 client: one request, one connection, the whole answer.
//!
//! Deliberately not here: pools, retries, redirects and content codings. A test sees what was on the wire.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest that one exchange may take.
const LIMIT: Duration = Duration::from_mins(1);

/// Request fields, in the order in which they are sent.
pub(crate) type Fields<'a> = &'a [(&'a str, &'a str)];

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Returns the value of the field `name`; empty when there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Sends a GET for `target` (path and query) to `address`.
pub(crate) async fn get(address: SocketAddr, target: &str, fields: Fields<'_>) -> Answer {
    send(address, request(Method::GET, target, fields, "")).await.unwrap()
}

/// Sends a HEAD for `target` to `address`.
pub(crate) async fn head(address: SocketAddr, target: &str, fields: Fields<'_>) -> Answer {
    send(address, request(Method::HEAD, target, fields, "")).await.unwrap()
}

/// Sends a PUT of a JSON `body` for `target` to `address`.
pub(crate) async fn put(address: SocketAddr, target: &str, fields: Fields<'_>, body: &'static str) -> Answer {
    let mut request = request(Method::PUT, target, fields, body);
    request.headers_mut().append("content-type", "application/json".parse().unwrap());
    send(address, request).await.unwrap()
}

/// Builds a request; a `Host` among `fields` is the one that is sent.
pub(crate) fn request(
    method: Method,
    target: &str,
    fields: Fields<'_>,
    body: &'static str,
) -> Request<Full<Bytes>> {
    let request =
        fields.iter().fold(Request::builder().method(method).uri(target), |request, (name, value)| {
            request.header(*name, *value)
        });
    request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
}

/// Sends `request` to `address` over a connection of its own.
///
/// # Errors
/// Whatever keeps the whole answer from arriving: a refused or reset connection, a broken body, [`LIMIT`].
pub(crate) async fn send(
    address: SocketAddr,
    mut request: Request<Full<Bytes>>,
) -> Result<Answer, Box<dyn Error + Send + Sync>> {
    if !request.headers().contains_key(HOST) {
        request.headers_mut().insert(HOST, address.to_string().parse()?);
    }
    timeout(LIMIT, exchange(address, request)).await?
}

/// Sends `request` and collects the answer.
async fn exchange(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Box<dyn Error + Send + Sync>> {
    let (mut sender, connection) = handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Answer { status: head.status, fields: head.headers, body: body.collect().await?.to_bytes() })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;

    /// Answers with what it was asked.
    async fn echo(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let host = head.headers.get(HOST).unwrap();
        let answer =
            Response::builder().header("x-host", host).header("x-token", &head.headers["authorization"]);
        Ok(answer.body(format!("{} {} {body}", head.method, head.uri)).unwrap())
    }

    async fn serve_three(listener: TcpListener) {
        for _ in 0..3 {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(echo)));
        }
    }

    #[tokio::test]
    async fn what_is_asked_arrives_and_the_whole_answer_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_three(listener));
        let token = ("authorization", "Bearer x");

        let answer = get(address, "/a?b=c", &[token, ("host", "other.example:8080")]).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "GET /a?b=c "));
        assert_eq!((answer.field("x-host"), answer.field("x-token")), ("other.example:8080", "Bearer x"));
        let answer = put(address, "/a", &[token], "{}").await;
        assert_eq!((answer.text(), answer.field("x-host")), ("PUT /a {}", address.to_string().as_str()));
        let answer = head(address, "/a", &[token]).await;
        assert_eq!((answer.text(), answer.field("content-length"), answer.field("x-none")), ("", "8", ""));
    }
}

//! Plain HTTP to loopback: what the test asks of the proxy, and what the WebDriver crate says to chromedriver.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use thirtyfour::error::{WebDriverError, WebDriverResult};
use thirtyfour::session::http::{Body, HttpClient};
use tokio::time::timeout;

/// Longest that an answer may take: the browser's own deadlines are shorter.
const PATIENCE: Duration = Duration::from_mins(2);

/// A client; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client(Pool<HttpConnector, Full<Bytes>>);

/// An answer, whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Returns the value of a field; empty where there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    /// Returns what the proxy says it did.
    pub(crate) fn cache_status(&self) -> &str {
        self.field("cache-status")
    }

    /// Returns whether it came from the store.
    pub(crate) fn is_hit(&self) -> bool {
        self.cache_status().contains("; hit")
    }
}

impl Client {
    pub(crate) fn new() -> Self {
        Self(Pool::builder(TokioExecutor::new()).build_http())
    }

    /// Asks with `GET` and perhaps a token.
    pub(crate) async fn get(&self, url: &str, token: &str) -> Answer {
        let mut request = Request::get(url);
        if !token.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        self.send(request.body(Full::default()).unwrap()).await.unwrap()
    }

    /// Sends a request and reads the answer to its end.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let asked = async {
            let (head, body) = self.0.request(request).await.map_err(|error| error.to_string())?.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok(Answer { status: head.status, fields: head.headers, body })
        };
        timeout(PATIENCE, asked).await.map_err(|elapsed| elapsed.to_string())?
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send(&self, request: Request<Body<'_>>) -> WebDriverResult<Response<Bytes>> {
        let (mut head, body) = request.into_parts();
        let body = match body {
            Body::Json(value) => Full::from(value.to_string()),
            // A command without parameters is an empty object.
            Body::Empty if head.method == Method::POST => Full::from("{}"),
            Body::Empty => {
                head.headers.remove(CONTENT_TYPE);
                Full::default()
            }
        };
        let answer =
            self.send(Request::from_parts(head, body)).await.map_err(WebDriverError::RequestFailed)?;
        let mut response = Response::new(answer.body);
        *response.status_mut() = answer.status;
        Ok(response)
    }

    async fn new(&self) -> Arc<dyn HttpClient> {
        Arc::new(Self::new())
    }
}

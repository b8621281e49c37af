//! What the answers on the operators' listener look like.
//!
//! Invariant: an error is JSON in the shape of Sentry's own, `{"detail": "…"}`. Not here: which answer is given, and the fields
//! that all of them have (`admin`).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// Plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// JSON.
pub const JSON: &str = "application/json";

/// An answer, whole.
pub type Reply = Response<Full<Bytes>>;

/// Makes an answer.
pub fn answer(status: StatusCode, content_type: &'static str, body: String) -> Reply {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Makes an error in the shape of Sentry's own.
pub fn error(status: StatusCode, detail: &str) -> Reply {
    answer(status, JSON, serde_json::json!({ "detail": detail }).to_string())
}

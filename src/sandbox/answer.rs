//! The fields around a body: which ones every answer of Sentry's carries, and in which order.
//!
//! Invariants: the order is that of a real server's answers; a refused request (429) and an unknown route
//! carry neither `Allow` nor `Access-Control-*`.
//! Not here: bodies (`sandbox::shapes`, `sandbox::failure`).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS, X_XSS_PROTECTION,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use crate::sandbox::failure::Language;
use crate::sandbox::json::quoted;
use crate::sandbox::limits::Quota;

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const ALLOWED_HEADERS: &str = "X-Sentry-Auth, X-Requested-With, Origin, Accept, Content-Type, Authentication, \
                               Authorization, Content-Encoding, sentry-trace, baggage, X-CSRFToken";
const EXPOSED_HEADERS: &str = "X-Sentry-Error, Retry-After";

/// A status, a body, and the fields that only this answer has.
#[derive(Debug, Clone)]
pub struct Answer {
    status: StatusCode,
    content_type: Option<&'static str>,
    fields: Vec<(HeaderName, HeaderValue)>,
    allow: Option<&'static str>,
    body: Bytes,
}

/// What the fields around an answer depend on besides the answer.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Who may read the answer: the value of `Access-Control-Allow-Origin`.
    pub origin: HeaderValue,
    /// The language of its texts.
    pub language: Language,
    /// What is left of the caller's limits, where there are any.
    pub quota: Option<Quota>,
}

impl Answer {
    /// Returns an answer with a JSON body.
    pub fn json(status: StatusCode, body: String) -> Self {
        Self::new(status, Some(JSON), body)
    }

    /// Returns an answer with a body of plain text.
    pub fn plain(status: StatusCode, body: String) -> Self {
        Self::new(status, Some("text/plain"), body)
    }

    /// Returns an answer with a body that is called HTML, which Sentry says of some that are none.
    pub fn html(status: StatusCode, body: String) -> Self {
        Self::new(status, Some(HTML), body)
    }

    /// Returns 204.
    pub fn no_content() -> Self {
        Self::new(StatusCode::NO_CONTENT, None, String::new())
    }

    /// Returns the answer to OPTIONS.
    pub fn options() -> Self {
        Self::html(StatusCode::OK, String::new()).with(ACCESS_CONTROL_MAX_AGE, "3600")
    }

    /// Returns 429: a bare JSON text that is called HTML.
    pub fn too_many_requests(quota: Quota) -> Self {
        let text = format!(
            "You are attempting to use this endpoint too frequently. Limit is {} requests in 1 seconds",
            quota.limit
        );
        Self::html(StatusCode::TOO_MANY_REQUESTS, quoted(&text))
    }

    fn new(status: StatusCode, content_type: Option<&'static str>, body: String) -> Self {
        Self { status, content_type, fields: Vec::new(), allow: None, body: Bytes::from(body) }
    }

    /// Adds a field; a value that is none is left out.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.fields.push((name, value));
        }
        self
    }

    /// Says which methods the route has; it then also has fields for web pages.
    #[must_use]
    pub fn allowing(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// Returns the whole response.
    pub fn dress(self, surroundings: &Surroundings, ending: Ending) -> Response<AnswerBody> {
        let mut fields = HeaderMap::with_capacity(24);
        if let Some(content_type) = self.content_type {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        for (name, value) in self.fields {
            fields.append(name, value);
        }
        if let Some(methods) = self.allow {
            add_access(&mut fields, methods, &surroundings.origin);
        }
        if let Some(quota) = surroundings.quota {
            add_quota(&mut fields, quota);
        }
        fields.insert(VARY, HeaderValue::from_static("Accept-Language, Cookie"));
        fields.insert(CONTENT_LANGUAGE, HeaderValue::from_static(surroundings.language.tag()));
        if self.status != StatusCode::NO_CONTENT {
            fields.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        fields.insert(X_FRAME_OPTIONS, HeaderValue::from_static("deny"));
        fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        fields.insert(X_XSS_PROTECTION, HeaderValue::from_static("1; mode=block"));
        let mut response = Response::new(AnswerBody::new(&self.body, ending));
        *response.status_mut() = self.status;
        *response.headers_mut() = fields;
        response
    }
}

fn add_access(fields: &mut HeaderMap, methods: &'static str, origin: &HeaderValue) {
    fields.insert(ALLOW, HeaderValue::from_static(methods));
    fields.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
    fields.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
}

fn add_quota(fields: &mut HeaderMap, quota: Quota) {
    let mut add =
        |name: &'static str, value: HeaderValue| fields.insert(HeaderName::from_static(name), value);
    add("x-sentry-rate-limit-remaining", HeaderValue::from(quota.remaining));
    add("x-sentry-rate-limit-limit", HeaderValue::from(quota.limit));
    add("x-sentry-rate-limit-reset", HeaderValue::from(quota.reset));
    let places = quota.concurrent_remaining.map_or(HeaderValue::from_static("None"), HeaderValue::from);
    add("x-sentry-rate-limit-concurrentremaining", places);
    add("x-sentry-rate-limit-concurrentlimit", HeaderValue::from(quota.concurrent_limit));
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// After its last byte.
    Whole,
    /// After half of its bytes, with the connection.
    Broken,
    /// Never: after half of its bytes nothing more comes.
    Stalled,
}

/// The body of an answer.
#[derive(Debug)]
pub struct AnswerBody {
    bytes: Option<Bytes>,
    promised: u64,
    ending: Ending,
}

/// The body was broken off on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the body was broken off on purpose")
    }
}

impl std::error::Error for BrokenOff {}

impl AnswerBody {
    fn new(bytes: &Bytes, ending: Ending) -> Self {
        let promised = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let sent = match ending {
            Ending::Whole => bytes.len(),
            Ending::Broken | Ending::Stalled => bytes.len() / 2,
        };
        Self { bytes: Some(bytes.slice(..sent)).filter(|bytes| !bytes.is_empty()), promised, ending }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match self.ending {
            Ending::Whole => Poll::Ready(None),
            Ending::Broken => Poll::Ready(Some(Err(BrokenOff))),
            Ending::Stalled => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.ending == Ending::Whole
    }

    fn size_hint(&self) -> SizeHint {
        match (self.ending, &self.bytes) {
            (Ending::Whole, None) => SizeHint::with_exact(0),
            (Ending::Whole | Ending::Broken | Ending::Stalled, _) => SizeHint::with_exact(self.promised),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(answer: Answer, quota: Option<Quota>) -> Vec<String> {
        let origin = HeaderValue::from_static("*");
        let surroundings = Surroundings { origin, language: Language::English, quota };
        let response = answer.dress(&surroundings, Ending::Whole);
        response.headers().keys().map(|name| name.as_str().to_owned()).collect()
    }

    fn quota() -> Quota {
        Quota { remaining: 0, limit: 40, reset: 1, concurrent_remaining: None, concurrent_limit: 25 }
    }

    #[test]
    fn fields_stand_in_the_order_of_a_real_server() {
        let answer =
            Answer::json(StatusCode::OK, "[]".to_owned()).with(http::header::LINK, "<x>").allowing("GET");
        let expected = [
            "content-type",
            "link",
            "allow",
            "access-control-allow-methods",
            "access-control-allow-headers",
            "access-control-expose-headers",
            "access-control-allow-origin",
            "x-sentry-rate-limit-remaining",
            "x-sentry-rate-limit-limit",
            "x-sentry-rate-limit-reset",
            "x-sentry-rate-limit-concurrentremaining",
            "x-sentry-rate-limit-concurrentlimit",
            "vary",
            "content-language",
            "content-length",
            "x-frame-options",
            "x-content-type-options",
            "x-xss-protection",
        ];
        assert_eq!(names(answer, Some(quota())), expected);
    }

    #[test]
    fn without_limits_there_is_no_limit_field() {
        let names = names(Answer::json(StatusCode::OK, "[]".to_owned()), None);
        assert!(names.iter().all(|name| !name.starts_with("x-sentry-rate-limit")));
    }

    #[test]
    fn a_refused_request_gets_a_bare_text_and_the_word_none() {
        let origin = HeaderValue::from_static("*");
        let surroundings = Surroundings { origin, language: Language::English, quota: Some(quota()) };
        let response = Answer::too_many_requests(quota()).dress(&surroundings, Ending::Whole);
        let field = |name: &str| response.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(field("content-type"), "text/html; charset=utf-8");
        assert_eq!(field("x-sentry-rate-limit-concurrentremaining"), "None");
        assert!(!response.headers().contains_key(ALLOW));
        assert_eq!(
            response.body().bytes.as_deref(),
            Some(&b"\"You are attempting to use this endpoint too frequently. Limit is 40 requests in 1 seconds\""[..])
        );
    }
}

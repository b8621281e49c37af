//! Webhooks: the fields of a POST, an empty line, its body. Where the first line is `signed`, what follows is signed by
//! whoever knows the secret, and dated now.
//!
//! Holds: what is not signed changes nothing; what is signed is let in once, and purges names that are names; neither the
//! secret nor a signature is told, in an answer or in the log.

use std::sync::{Arc, LazyLock, Mutex};

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use sentrybox::clock::Clock;
use sentrybox::config::Secret;
use sentrybox::metrics::{LabelValues, Metrics};
use sentrybox::routes::tags::Tag;
use sentrybox::webhooks::{PATH, Purge, Webhooks};
use tokio::runtime::Runtime;

use crate::support::kept_log::KeptLog;
use crate::text;

const SECRET: &str = "hunter2hunter2hunter2hunter2hunter2";
const SIGNATURE: &str = "sentry-hook-signature";

static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(|| {
    let labels = LabelValues { routes: Vec::new(), classes: Vec::new() };
    Arc::new(Metrics::new(std::time::UNIX_EPOCH, &labels))
});

thread_local! {
    static RUNTIME: Runtime = crate::paused_runtime();
}

/// Tries one input.
pub fn run(input: &[u8]) {
    RUNTIME.with(|runtime| runtime.block_on(post(input)));
}

async fn post(input: &[u8]) {
    let log = KeptLog::begin();
    let clock = Clock::start();
    let purged: Arc<Mutex<Vec<Tag>>> = Arc::default();
    let purge = {
        let purged = Arc::clone(&purged);
        Purge::new(move |tags: &[Tag]| purged.lock().unwrap().extend_from_slice(tags))
    };
    let secret = Secret::new(SECRET.to_owned());
    let webhooks = Webhooks::new(&secret, clock.clone(), Arc::clone(&METRICS), purge);
    let is_signed = input.starts_with(b"signed\n");
    let input = input.strip_prefix(b"signed\n").unwrap_or(input);
    let (fields, body) = text::first_part(input);
    let mut fields = text::fields(fields);
    let signature = signature(body);
    if is_signed {
        let now = clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        fields.insert(SIGNATURE, signature.parse().unwrap());
        fields.insert("sentry-hook-timestamp", now.into());
    }
    let is_lucky = fields.get(SIGNATURE).is_some_and(|given| given == signature.as_str());
    let first = answer(&webhooks, &fields, body).await;
    let subjects = std::mem::take(&mut *purged.lock().unwrap());
    let again = answer(&webhooks, &fields, body).await;
    assert!(purged.lock().unwrap().is_empty(), "the same body purges twice");
    assert_eq!(first.0 == StatusCode::OK, !subjects.is_empty());
    assert!(is_lucky || first.0 != StatusCode::OK, "whoever cannot sign is let in");
    if is_signed {
        let is_json = serde_json::from_slice::<serde_json::Value>(body).is_ok();
        let expected = if is_json { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        assert_eq!((first.0, again.0), (expected, StatusCode::CONFLICT));
    }
    subjects.iter().for_each(check);
    for told in [first.1, again.1, log.text()] {
        assert!(!told.contains("hunter2") && !told.contains(&signature), "a secret is told: {told}");
    }
}

/// A subject holds names and nothing else of the body.
fn check(subject: &Tag) {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || " :/-_*.".contains(letter);
    let text = subject.to_string();
    assert!(text.chars().all(is_plain) && text.len() < 300, "{text:?}");
}

async fn answer(webhooks: &Webhooks, fields: &HeaderMap, body: &[u8]) -> (StatusCode, String) {
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = PATH.parse().unwrap();
    *request.headers_mut() = fields.clone();
    let (head, body) = webhooks.answer(request).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, format!("{:?} {}", head.headers, String::from_utf8_lossy(&body)))
}

fn signature(body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let digits = |byte: u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap());
    hmac::sign(&key, body).as_ref().iter().copied().flat_map(digits).collect()
}

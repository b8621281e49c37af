//! What became of a request, as its client sees it.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};

use crate::ask::Ask;
use crate::fault::Promise;
use crate::told;
use crate::wire::{Answer, Trouble};

/// The field that says that an error is upstream's own.
pub(crate) const UPSTREAMS_OWN: &str = "x-soak-upstream";

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A whole and right answer.
    Whole(StatusCode),
    /// An error, as it was promised for some faults.
    Excusable(Promise, String),
    /// Something that nothing excuses.
    Wrong(String),
}

impl Outcome {
    /// Reads an answer to what was asked, at `now`.
    pub(crate) fn of(ask: &Ask, answer: &Answer, now: Duration) -> Self {
        let status = answer.head.status;
        match status {
            StatusCode::OK if ask.method == Method::HEAD => Self::Whole(status),
            StatusCode::OK => match told::check(&answer.body, ask.mark, &ask.target) {
                Ok(made) if made + ask.keeps < now => {
                    let age = now.saturating_sub(made).as_secs();
                    Self::Wrong(format!(
                        "content that is {age} s old, {}",
                        cache_status(&answer.head.headers)
                    ))
                }
                Ok(_) => Self::Whole(status),
                Err(wrong) => Self::Wrong(wrong),
            },
            StatusCode::NOT_MODIFIED if ask.etag.is_some() => Self::Whole(status),
            _ if answer.head.headers.contains_key(UPSTREAMS_OWN) => {
                Self::Excusable(Promise::Passed(status.as_u16()), String::new())
            }
            _ => Self::of_own(ask, answer),
        }
    }

    /// Reads an error of the proxy's own.
    fn of_own(ask: &Ask, answer: &Answer) -> Self {
        let (status, fields) = (answer.head.status, &answer.head.headers);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let is_told = serde_json::from_slice::<serde_json::Value>(&answer.body)
            .is_ok_and(|body| body.get("detail").is_some_and(serde_json::Value::is_string));
        if !is_told && ask.method != Method::HEAD {
            return Self::Wrong(format!("{status} without a detail: {text}"));
        }
        let may_come_back = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        if may_come_back && !fields.contains_key(header::RETRY_AFTER) {
            return Self::Wrong(format!("{status} without a Retry-After: {text}"));
        }
        Self::Excusable(Promise::Own(status.as_u16()), format!("{text} {}", cache_status(fields)))
    }

    /// Reads what went wrong on the way.
    pub(crate) fn of_trouble(ask: &Ask, trouble: Trouble) -> Self {
        match trouble {
            Trouble::NotConnected(what) => Self::Excusable(Promise::NotConnected, what),
            // A body that is passed on as it comes and breaks off at once takes along a head that had not left yet.
            Trouble::Dropped(what) if ask.is_streamed() => {
                Self::Excusable(Promise::Cut, format!("with its head: {what}"))
            }
            Trouble::NotSent(what) | Trouble::Dropped(what) => Self::Excusable(Promise::Dropped, what),
            Trouble::Cut(what) => Self::Excusable(Promise::Cut, what),
            Trouble::Late(what) => Self::Wrong(format!("no answer in time: {what}")),
        }
    }

    /// Returns what it is called where it is counted.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Whole(status) => status.as_u16().to_string(),
            Self::Excusable(Promise::Own(status), _) => format!("own {status}"),
            Self::Excusable(Promise::Passed(status), _) => format!("upstream's {status}"),
            Self::Excusable(Promise::Cut, _) => "cut off".to_owned(),
            Self::Excusable(Promise::NotConnected, _) => "not connected".to_owned(),
            Self::Excusable(Promise::Dropped, _) => "dropped".to_owned(),
            Self::Wrong(_) => "WRONG".to_owned(),
        }
    }
}

/// Returns what an answer says of the cache.
fn cache_status(fields: &HeaderMap) -> &str {
    fields.get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

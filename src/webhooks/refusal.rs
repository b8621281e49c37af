//! Every way in which a webhook is refused: under which label, with which status code, and in which words.
//!
//! Sentry sends again what was answered with 503, for published integrations, and nothing that was answered with 4xx.
//!
//! Invariant: the words say nothing of secret, signature or body. Not here: deciding (`webhooks`).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::metrics::webhooks::WebhookOutcome;

/// Why a webhook is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is not a POST.
    WrongMethod,
    /// Its signature is missing, or not that of its body.
    BadSignature,
    /// It does not say when it was sent, or not in seconds.
    NoTime,
    /// It says that it was sent too long ago, or that it will be.
    Outdated,
    /// Its body is too large.
    TooLarge,
    /// Its body did not arrive whole, or not in time.
    Incomplete,
    /// Its body was let in before.
    Replayed,
    /// There are too many at the moment.
    RateLimited {
        /// After how long it may be sent again.
        retry_after: Duration,
    },
    /// No more bodies can be remembered.
    MemoryFull {
        /// After how long it may be sent again.
        retry_after: Duration,
    },
    /// Its body is not JSON.
    NotJson,
}

impl Refusal {
    /// Returns how it is counted and logged.
    pub const fn outcome(self) -> WebhookOutcome {
        match self {
            Self::WrongMethod => WebhookOutcome::WrongMethod,
            Self::BadSignature => WebhookOutcome::BadSignature,
            Self::NoTime | Self::NotJson => WebhookOutcome::Malformed,
            Self::Outdated => WebhookOutcome::Outdated,
            Self::TooLarge => WebhookOutcome::TooLarge,
            Self::Incomplete => WebhookOutcome::Incomplete,
            Self::Replayed => WebhookOutcome::Replayed,
            Self::RateLimited { .. } => WebhookOutcome::RateLimited,
            Self::MemoryFull { .. } => WebhookOutcome::MemoryFull,
        }
    }

    /// Returns whether the body may not have been read to its end.
    pub const fn leaves_body(self) -> bool {
        match self {
            Self::WrongMethod | Self::BadSignature | Self::TooLarge | Self::Incomplete => true,
            Self::NoTime
            | Self::Outdated
            | Self::Replayed
            | Self::RateLimited { .. }
            | Self::MemoryFull { .. }
            | Self::NotJson => false,
        }
    }

    /// Returns what it is answered with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            // Not 401: there is no challenge that a signature answers.
            Self::BadSignature => StatusCode::FORBIDDEN,
            Self::NoTime | Self::Outdated | Self::NotJson => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Incomplete => StatusCode::REQUEST_TIMEOUT,
            Self::Replayed => StatusCode::CONFLICT,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::MemoryFull { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns what the sender is told.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::WrongMethod => "Webhooks come by POST",
            Self::BadSignature => "Sentry-Hook-Signature is missing, or not that of the body",
            Self::NoTime => "Sentry-Hook-Timestamp is missing, or not a number of seconds",
            Self::Outdated => "Sentry-Hook-Timestamp is more than ten minutes from the time here",
            Self::TooLarge => "The body is larger than 1 MiB",
            Self::Incomplete => "The body did not arrive, or not within three seconds",
            Self::Replayed => "The same body has been here within the last ten minutes",
            Self::RateLimited { .. } => "Too many webhooks; see Retry-After",
            Self::MemoryFull { .. } => "Too many webhooks in the last ten minutes; see Retry-After",
            Self::NotJson => "The body is not JSON",
        }
    }

    /// Returns after how many seconds it makes sense to send it again.
    pub fn retry_after(self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after } | Self::MemoryFull { retry_after } => {
                let rest = u64::from(retry_after.subsec_nanos() > 0);
                Some((retry_after.as_secs() + rest).max(1))
            }
            Self::WrongMethod
            | Self::BadSignature
            | Self::NoTime
            | Self::Outdated
            | Self::TooLarge
            | Self::Incomplete
            | Self::Replayed
            | Self::NotJson => None,
        }
    }

    /// Renders the answer.
    pub fn render(self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({ "detail": self.detail() }).to_string();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status();
        let fields = response.headers_mut();
        if self == Self::WrongMethod {
            fields.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        if let Some(seconds) = self.retry_after() {
            fields.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_wait_is_told_in_whole_seconds_that_are_not_too_few() {
        for (milliseconds, seconds) in [(0, 1), (1, 1), (50, 1), (1_000, 1), (1_001, 2), (599_999, 600)] {
            let retry_after = Duration::from_millis(milliseconds);
            for refusal in [Refusal::RateLimited { retry_after }, Refusal::MemoryFull { retry_after }] {
                assert_eq!(refusal.retry_after(), Some(seconds), "{milliseconds}");
                assert_eq!(refusal.render().headers()["retry-after"], seconds.to_string());
            }
        }
        assert_eq!(Refusal::Replayed.retry_after(), None);
        assert!(!Refusal::Replayed.render().headers().contains_key("retry-after"));
    }

    #[test]
    fn only_the_wrong_method_is_told_the_right_one() {
        assert_eq!(Refusal::WrongMethod.render().headers()["allow"], "POST");
        assert!(!Refusal::NotJson.render().headers().contains_key("allow"));
    }
}

//! Names every way a request can go, once.
//!
//! A request is reused, forwarded, passed through or refused; why is one closed enum each, and its `label()`
//! is the only spelling of it: in `Cache-Status` ([RFC 9211]), in the metrics and in the log.
//!
//! Invariant: a label is a token of [RFC 8941], so that it needs no quoting anywhere.
//! Not here: deciding (`cache::freshness`, `admission`), rendering (`headers`, `metrics`, `proxy`).
//!
//! [RFC 9211]: https://www.rfc-editor.org/rfc/rfc9211
//! [RFC 8941]: https://www.rfc-editor.org/rfc/rfc8941#section-3.3.4

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

pub mod bearing;
pub mod hold;

/// What the proxy does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// Answered with a fresh stored response, without asking upstream.
    Reuse,
    /// Answered with a stale stored response at once; upstream is asked in the background ([RFC 5861 §3]).
    ///
    /// [RFC 5861 §3]: https://www.rfc-editor.org/rfc/rfc5861#section-3
    ReuseThenRevalidate,
    /// Answered with a stored response for longer than it would be fresh, or without refreshing it, because upstream's
    /// limit runs low.
    ReuseUnderPressure,
    /// Answered with a fresh stored response; upstream is asked in the background before it goes stale.
    RefreshAhead,
    /// Asked upstream, because of the reason.
    Forward(ForwardReason),
    /// Answered by the proxy itself.
    Refuse(RefusalReason),
}

impl Handling {
    /// The ways to be answered from the store without waiting for upstream.
    pub const REUSES: [Self; 4] =
        [Self::Reuse, Self::ReuseThenRevalidate, Self::ReuseUnderPressure, Self::RefreshAhead];

    /// Returns the label of the handling alone: a small closed set, for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Reuse => "reuse",
            Self::ReuseThenRevalidate => "reuse-then-revalidate",
            Self::ReuseUnderPressure => "reuse-under-pressure",
            Self::RefreshAhead => "refresh-ahead",
            Self::Forward(_) => "forward",
            Self::Refuse(_) => "refuse",
        }
    }

    /// Returns the label of the reason behind the handling; for a reuse there is none but the handling itself.
    pub const fn reason_label(self) -> &'static str {
        match self {
            Self::Reuse | Self::ReuseThenRevalidate | Self::ReuseUnderPressure | Self::RefreshAhead => {
                self.label()
            }
            Self::Forward(reason) => reason.label(),
            Self::Refuse(reason) => reason.label(),
        }
    }
}

impl fmt::Display for Handling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

/// Why a request goes to upstream.
///
/// RFC 9211 knows fewer reasons than we have; [`ForwardReason::rfc9211`] maps ours to its registry and
/// [`ForwardReason::label`] goes into `detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ForwardReason {
    /// Nothing is stored under the primary key.
    UriMiss,
    /// Something is stored, but for other values of the fields that `Vary` nominates.
    VaryMiss,
    /// What is stored is stale, and may not be reused without asking.
    Stale,
    /// What was stored became unusable: by a write, or because upstream refused it to this credential.
    Invalidated,
    /// What is stored was purged softly: it is stale, and not reused but where upstream fails.
    Purged,
    /// The client's own directives forbid reuse ([RFC 9111 §5.2.1]).
    ///
    /// [RFC 9111 §5.2.1]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1
    ClientDirective,
    /// The stored response says `no-cache`, or its rule says `fresh_for = "0s"`.
    AlwaysValidate,
    /// Upstream has rejected the credential, and not accepted it since.
    CredentialSuspended,
    /// Upstream has not seen the credential for `cache.max_unverified`.
    CredentialUnverified,
    /// The method is not one that may be answered from the cache.
    Method,
    /// The path is passed through, outside what the cache is responsible for.
    PassThrough,
    /// A rule says that this route is never stored.
    RouteNever,
    /// The request carries no credential.
    NoCredential,
    /// The credential's scheme is one that the cache does not know.
    UnknownScheme,
    /// The request carries a `Cookie` that is passed on.
    Cookie,
    /// The request carries a body.
    RequestBody,
    /// The request carries a field that changes the answer in ways no key can hold.
    UncacheableField,
}

impl ForwardReason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 17] = [
        Self::UriMiss,
        Self::VaryMiss,
        Self::Stale,
        Self::Invalidated,
        Self::Purged,
        Self::ClientDirective,
        Self::AlwaysValidate,
        Self::CredentialSuspended,
        Self::CredentialUnverified,
        Self::Method,
        Self::PassThrough,
        Self::RouteNever,
        Self::NoCredential,
        Self::UnknownScheme,
        Self::Cookie,
        Self::RequestBody,
        Self::UncacheableField,
    ];

    /// Returns the one spelling of the reason.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Invalidated => "invalidated",
            Self::Purged => "purged",
            Self::ClientDirective => "client-directive",
            Self::AlwaysValidate => "always-validate",
            Self::CredentialSuspended => "credential-suspended",
            Self::CredentialUnverified => "credential-unverified",
            Self::Method => "method",
            Self::PassThrough => "pass-through",
            Self::RouteNever => "route-never",
            Self::NoCredential => "no-credential",
            Self::UnknownScheme => "unknown-scheme",
            Self::Cookie => "cookie",
            Self::RequestBody => "request-body",
            Self::UncacheableField => "uncacheable-field",
        }
    }

    /// Returns the value of the `fwd` parameter ([RFC 9211 §2.2]).
    ///
    /// [RFC 9211 §2.2]: https://www.rfc-editor.org/rfc/rfc9211#section-2.2
    pub const fn rfc9211(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale
            | Self::Invalidated
            | Self::Purged
            | Self::AlwaysValidate
            | Self::CredentialUnverified => "stale",
            Self::ClientDirective => "request",
            Self::Method => "method",
            Self::CredentialSuspended
            | Self::PassThrough
            | Self::RouteNever
            | Self::NoCredential
            | Self::UnknownScheme
            | Self::Cookie
            | Self::RequestBody
            | Self::UncacheableField => "bypass",
        }
    }
}

impl fmt::Display for ForwardReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

/// Why the proxy answers a request itself, with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalReason {
    /// The path is none that this proxy serves.
    UnknownPath,
    /// The path could be read in two ways: dot segments, doubled slashes, bad escapes.
    UnsafePath,
    /// The request names no authority, or two, or a broken one.
    BadAuthority,
    /// The request carries more than one credential.
    BadCredential,
    /// The client's address lies in none of `access.networks`.
    NetworkNotServed,
    /// The request does not carry the deployment's shared secret.
    SharedSecret,
    /// The request's credential is none of `access.credentials`.
    CredentialNotServed,
    /// The method is one that a reverse proxy does not forward.
    MethodNotAllowed,
    /// The request target is longer than `listen.max_target_bytes`.
    TargetTooLong,
    /// The request has more fields than `listen.max_header_count`, or larger ones than `listen.max_header_bytes`.
    HeadTooLarge,
    /// The request's body is larger than `listen.max_body_bytes`.
    BodyTooLarge,
    /// The request has been here before.
    Loop,
    /// `only-if-cached`, and nothing stored may be reused ([RFC 9111 §5.2.1.7]).
    ///
    /// [RFC 9111 §5.2.1.7]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.7
    OnlyIfCached,
    /// As many requests wait for upstream as `listen.max_pending_requests` allows.
    Overloaded,
    /// Upstream's capacity stayed taken for `budget.max_wait`.
    UpstreamBusy,
    /// Sentry's limit is used up for longer than a request may wait.
    LimitReached,
    /// Upstream failed again and again, and is left alone for a while.
    UpstreamSuspended,
    /// Upstream could not be reached.
    UpstreamUnreachable,
    /// Upstream was reached but its answer was broken.
    UpstreamBroken,
    /// Upstream did not answer in time.
    UpstreamTimeout,
    /// The request's body broke off, or is framed in a way that is not plain.
    BadRequestBody,
    /// The proxy is shutting down and its deadline has passed.
    ShuttingDown,
    /// A defect of ours: the request's work panicked.
    InternalError,
}

impl RefusalReason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 23] = [
        Self::UnknownPath,
        Self::UnsafePath,
        Self::BadAuthority,
        Self::BadCredential,
        Self::NetworkNotServed,
        Self::SharedSecret,
        Self::CredentialNotServed,
        Self::MethodNotAllowed,
        Self::TargetTooLong,
        Self::HeadTooLarge,
        Self::BodyTooLarge,
        Self::Loop,
        Self::OnlyIfCached,
        Self::Overloaded,
        Self::UpstreamBusy,
        Self::LimitReached,
        Self::UpstreamSuspended,
        Self::UpstreamUnreachable,
        Self::UpstreamBroken,
        Self::UpstreamTimeout,
        Self::BadRequestBody,
        Self::ShuttingDown,
        Self::InternalError,
    ];

    /// Returns the one spelling of the reason.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownPath => "unknown-path",
            Self::UnsafePath => "unsafe-path",
            Self::BadAuthority => "bad-authority",
            Self::BadCredential => "bad-credential",
            Self::NetworkNotServed => "network-not-served",
            Self::SharedSecret => "shared-secret",
            Self::CredentialNotServed => "credential-not-served",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::TargetTooLong => "target-too-long",
            Self::HeadTooLarge => "head-too-large",
            Self::BodyTooLarge => "body-too-large",
            Self::Loop => "loop",
            Self::OnlyIfCached => "only-if-cached",
            Self::Overloaded => "overloaded",
            Self::UpstreamBusy => "upstream-busy",
            Self::LimitReached => "limit-reached",
            Self::UpstreamSuspended => "upstream-suspended",
            Self::UpstreamUnreachable => "upstream-unreachable",
            Self::UpstreamBroken => "upstream-broken",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::BadRequestBody => "bad-request-body",
            Self::ShuttingDown => "shutting-down",
            Self::InternalError => "internal-error",
        }
    }

    /// Returns the status code of the refusal ([RFC 9110 §15]).
    ///
    /// [RFC 9110 §15]: https://www.rfc-editor.org/rfc/rfc9110#section-15
    pub const fn status(self) -> StatusCode {
        match self {
            Self::UnsafePath | Self::BadAuthority | Self::BadCredential | Self::BadRequestBody => {
                StatusCode::BAD_REQUEST
            }
            Self::NetworkNotServed | Self::SharedSecret | Self::CredentialNotServed => StatusCode::FORBIDDEN,
            Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::OnlyIfCached | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::LimitReached => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::UpstreamBusy | Self::UpstreamSuspended | Self::ShuttingDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UpstreamUnreachable | Self::UpstreamBroken => StatusCode::BAD_GATEWAY,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

/// An answer of our own: why, and what to tell the client. Becomes `{"detail": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// One sentence for the client; never the cause's own words, never a secret.
    pub detail: Cow<'static, str>,
    /// When to come again, where that is known.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Returns a refusal.
    pub const fn new(reason: RefusalReason, detail: &'static str) -> Self {
        Self { reason, detail: Cow::Borrowed(detail), retry_after: None }
    }

    /// Returns the same refusal, and when to come again.
    #[must_use]
    pub fn until(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_token(label: &str) -> bool {
        label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    }

    #[test]
    fn every_label_is_a_token_and_stands_for_one_reason() {
        let mut labels: Vec<_> = ForwardReason::ALL.iter().map(|reason| reason.label()).collect();
        labels.extend(RefusalReason::ALL.iter().map(|reason| reason.label()));
        assert!(labels.iter().all(|label| is_token(label)));
        let count = labels.len();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), count);
    }

    #[test]
    fn every_forward_reason_maps_to_the_registry_of_rfc_9211() {
        let registry = ["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"];
        assert!(ForwardReason::ALL.iter().all(|reason| registry.contains(&reason.rfc9211())));
    }

    #[test]
    fn every_refusal_has_an_error_status() {
        assert!(RefusalReason::ALL.iter().all(|reason| reason.status().as_u16() >= 400));
    }
}

//! Says in a sentence why a request would be handled so.
//!
//! Invariant: there is a sentence for every handling and every reason; what a client is told itself (`handling::Refusal`) has
//! its own. Not here: deciding.

use crate::cache::freshness::Freshness;
use crate::handling::{ForwardReason, Handling};

/// A refusal that is told again.
pub const REMEMBERED: &str =
    "Sentry has just refused this to this credential, and that is told again for a moment without asking.";

/// A forward that cannot be sent, and need not be.
pub const STANDS_IN: &str = "It may not be asked now, so what is stored stands in.";

/// Says why what is stored goes out unasked.
pub const fn of_reuse(handling: Handling, freshness: Freshness) -> &'static str {
    match (handling, freshness) {
        (Handling::Reuse, Freshness::Fresh { .. }) => "What is stored is fresh, so Sentry is not asked.",
        (Handling::Reuse | Handling::Forward(_) | Handling::Refuse(_), _) => {
            "What is stored is stale, but the request takes it so: max-stale, or only-if-cached."
        }
        (Handling::ReuseThenRevalidate, _) => {
            "What is stored is stale, but may go out while it is refreshed in the background."
        }
        (Handling::ReuseUnderPressure, _) => {
            "Sentry's limit runs low, so what is stored goes out for longer, and is not refreshed."
        }
        (Handling::RefreshAhead, _) => {
            "What is stored is fresh, often asked for and soon stale, so it is refreshed in the background now."
        }
    }
}

/// Says why upstream is asked.
pub const fn of_forward(reason: ForwardReason) -> &'static str {
    match reason {
        ForwardReason::UriMiss => "Nothing is stored for this request.",
        ForwardReason::VaryMiss => {
            "What is stored is for requests with other values of the fields that its Vary names."
        }
        ForwardReason::Stale => "What is stored is stale, for longer than it may go out without asking.",
        ForwardReason::Invalidated => {
            "What was stored became unusable: by a write or a purge, or because Sentry refused it since."
        }
        ForwardReason::Purged => "What is stored was purged: Sentry is asked for it anew.",
        ForwardReason::ClientDirective => "The request's own Cache-Control does not take what is stored.",
        ForwardReason::AlwaysValidate => {
            "What is stored is validated before each reuse: by its own no-cache, or a rule without a lifetime."
        }
        ForwardReason::CredentialSuspended => {
            "Sentry has rejected this credential: nothing stored for it goes out until it is accepted again."
        }
        ForwardReason::CredentialUnverified => {
            "Sentry has not seen this credential for cache.max_unverified, so it is asked."
        }
        ForwardReason::Method => "Only GET and HEAD are answered from the cache.",
        ForwardReason::PassThrough => {
            "The path is none of /api/0/organizations/ and no rule names it: it is passed through."
        }
        ForwardReason::RouteNever => "A rule says that answers of this route are never stored.",
        ForwardReason::NoCredential => "The request has no credential, and cache.anonymous is off.",
        ForwardReason::UnknownScheme => "The scheme of the credential is none that the cache knows.",
        ForwardReason::Cookie => "The request has a cookie, which is passed on.",
        ForwardReason::RequestBody => "The request has a body.",
        ForwardReason::UncacheableField => {
            "The request has a field that no key can hold: X-Sentry-Replay-Request, or a range with a condition."
        }
    }
}

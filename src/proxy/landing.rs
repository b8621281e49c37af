//! What a flight brings home: a response to share, a parcel for exactly one passenger, or the failure.
//!
//! Invariant: a parcel is taken once, and by nobody who may not have it. Not here: how it came about (`proxy::flight`), what each
//! passenger makes of it (`proxy::boarding`).

use std::sync::{Arc, Mutex, PoisonError};

use http::header::{HeaderMap, HeaderName};
use http::{Response, StatusCode};

use crate::admission::sizes::BODY_TOO_LARGE;
use crate::budget::Refused;
use crate::cache::generations::Stamp;
use crate::cache::key::CacheKey;
use crate::cache::single_flight::Boarding;
use crate::cache::stored_response::StoredResponse;
use crate::cache::terms::Trouble;
use crate::handling::hold::Hold;
use crate::handling::{Refusal, RefusalReason};
use crate::proxy::body::ReplyBody;
use crate::proxy::provenance::is_absence;
use crate::traces::Trace;
use crate::upstream::error::UpstreamFault;

/// What a flight brings, for every passenger.
#[derive(Debug, Clone)]
pub struct Landing {
    /// The response, or why there is none.
    pub cargo: Cargo,
    /// What upstream answered; `None` when it was not asked, or did not.
    pub upstream: Option<StatusCode>,
    /// Upstream's limit fields, true for the moment of landing.
    pub limits: Arc<HeaderMap>,
    /// Fields that only the passenger gets for whom it took off: those that are kept from reuse.
    pub withheld: Arc<HeaderMap>,
    /// The place in a trace where it was fetched, which may be another request's.
    pub trace: Trace,
}

/// The response that a flight brings.
#[derive(Debug, Clone)]
pub enum Cargo {
    /// A response that every passenger of this variant may have.
    Shared {
        /// The response.
        response: Arc<StoredResponse>,
        /// Who may have it.
        audience: Audience,
        /// Whether it was stored.
        storage: Storage,
    },
    /// An answer for exactly one passenger, of those who may have it.
    Parcel(Arc<Parcel>, Audience),
    /// Upstream was not asked, or did not answer.
    Failed(ForwardFailure),
}

/// Who of those aboard may have what was brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Nobody but the one for whom it took off: upstream keeps it from caches, or gives it to one client.
    Owner,
    /// Whoever asked with the same values of the fields that it nominates.
    Variant {
        /// Those fields.
        nominated: Arc<[HeaderName]>,
        /// The variant that it was fetched for.
        key: CacheKey,
    },
}

/// Whether a response is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// The flight has just stored it.
    Stored,
    /// It was in the store when the flight looked once more.
    Found,
    /// It may be shared by those who waited, but not kept.
    NotStored,
}

/// An answer that can be taken once.
#[derive(Debug)]
pub struct Parcel(Mutex<Option<Response<ReplyBody>>>);

impl Parcel {
    /// Packs an answer.
    pub fn new(response: Response<ReplyBody>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(response))))
    }

    /// Takes the answer; `None` for everybody but the first.
    pub fn take(&self) -> Option<Response<ReplyBody>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Why a forward brought no answer. The cause itself is only logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardFailure {
    /// It was not sent, because it would have been refused, or there was no capacity.
    NotSent(Refused),
    /// It was not sent, and nobody was waiting for it: whoever is now asks anew.
    Postponed(Refused),
    /// Upstream failed.
    Upstream(UpstreamFault),
    /// The flight was lost: a defect of ours.
    Lost,
}

impl ForwardFailure {
    /// Returns what the failure means for a stale response that could stand in.
    pub fn trouble(self) -> Trouble {
        trouble_of(self.refusal().reason)
    }

    /// Returns the refusal that a client gets.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::NotSent(refused) | Self::Postponed(refused) => refusal_of(refused),
            Self::Lost => Refusal::new(RefusalReason::InternalError, "The request's work was lost."),
            Self::Upstream(UpstreamFault::Unreachable) => {
                Refusal::new(RefusalReason::UpstreamUnreachable, "Sentry could not be reached.")
            }
            Self::Upstream(UpstreamFault::Timeout) => {
                Refusal::new(RefusalReason::UpstreamTimeout, "Sentry did not answer in time.")
            }
            Self::Upstream(UpstreamFault::Broken) => {
                Refusal::new(RefusalReason::UpstreamBroken, "Sentry's answer was broken.")
            }
            Self::Upstream(UpstreamFault::RequestBody) => {
                Refusal::new(RefusalReason::BadRequestBody, "The request's body broke off.")
            }
            Self::Upstream(UpstreamFault::OversizedRequest) => BODY_TOO_LARGE,
        }
    }
}

/// Returns the refusal of a request that may not be sent, in the words of Sentry's own.
fn refusal_of(refused: Refused) -> Refusal {
    let (reason, detail) = match refused.hold {
        Hold::Learning => (
            RefusalReason::LimitReached,
            "What Sentry allows this caller is not known yet: its first request is being answered. Try again in a moment.",
        ),
        Hold::Window | Hold::Concurrency | Hold::Gate => (
            RefusalReason::LimitReached,
            "You are attempting to use this endpoint too frequently. Sentry's limit is used up, so it was not asked.",
        ),
        Hold::Breaker => (
            RefusalReason::UpstreamSuspended,
            "Sentry has failed again and again, and is not asked for a moment.",
        ),
        Hold::Capacity | Hold::Rate => {
            (RefusalReason::UpstreamBusy, "No capacity for Sentry came free in time. Try again in a moment.")
        }
    };
    Refusal::new(reason, detail).until(refused.retry_after)
}

/// Returns what a refusal means for a stale response that could stand in.
pub const fn trouble_of(reason: RefusalReason) -> Trouble {
    match reason {
        RefusalReason::UpstreamUnreachable
        | RefusalReason::UpstreamBroken
        | RefusalReason::UpstreamTimeout
        | RefusalReason::UpstreamSuspended => Trouble::Disconnected,
        RefusalReason::UnknownPath
        | RefusalReason::UnsafePath
        | RefusalReason::BadAuthority
        | RefusalReason::BadCredential
        | RefusalReason::NetworkNotServed
        | RefusalReason::SharedSecret
        | RefusalReason::CredentialNotServed
        | RefusalReason::MethodNotAllowed
        | RefusalReason::TargetTooLong
        | RefusalReason::HeadTooLarge
        | RefusalReason::BodyTooLarge
        | RefusalReason::Loop
        | RefusalReason::OnlyIfCached
        | RefusalReason::Overloaded
        | RefusalReason::UpstreamBusy
        | RefusalReason::LimitReached
        | RefusalReason::BadRequestBody
        | RefusalReason::ShuttingDown
        | RefusalReason::InternalError => Trouble::Failing,
    }
}

impl Landing {
    /// Returns whether the store holds a fresh response again.
    pub fn is_fresh_again(&self) -> bool {
        matches!(self.cargo, Cargo::Shared { storage: Storage::Stored | Storage::Found, .. })
    }

    /// Returns whether it says that there is nothing, and took off before the latest making that its passenger knows of. Of a
    /// parcel nobody knows when it took off: it is only for whom it did.
    pub fn is_overtaken(&self, latest_making: Stamp, boarding: Boarding) -> bool {
        match &self.cargo {
            Cargo::Shared { response, .. } => {
                is_absence(response.status()) && response.provenance().stamp < latest_making
            }
            Cargo::Parcel(..) => boarding == Boarding::Collapsed && self.upstream.is_some_and(is_absence),
            Cargo::Failed(_) => false,
        }
    }

    /// Returns the fields by which what it brings was selected; `None` where that is for one passenger alone, or nothing.
    pub fn nominated(&self) -> Option<&[HeaderName]> {
        match &self.cargo {
            Cargo::Shared { audience: Audience::Variant { nominated, .. }, .. }
            | Cargo::Parcel(_, Audience::Variant { nominated, .. }) => Some(nominated),
            Cargo::Shared { .. } | Cargo::Parcel(..) | Cargo::Failed(_) => None,
        }
    }

    /// Makes a landing that brings nothing.
    pub fn failed(failure: ForwardFailure) -> Self {
        Self::bringing(Cargo::Failed(failure), None)
    }

    /// Makes a landing with no fields beside the response's own.
    pub fn bringing(cargo: Cargo, upstream: Option<StatusCode>) -> Self {
        Self { cargo, upstream, limits: Arc::default(), withheld: Arc::default(), trace: Trace::default() }
    }
}

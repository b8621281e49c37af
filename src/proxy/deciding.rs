//! What is decided of a request before anything is done about it: the look of the way ahead, without a step on it.
//!
//! Whoever serves a request (`proxy`, `proxy::boarding`) and whoever only explains it (`proxy::explaining`) ask here, so that
//! the two cannot disagree.
//!
//! Invariant: nothing here has an effect: nothing is sent, stored, counted or learned. Not here: weighing ages and directives
//! (`cache::freshness`), doing what was decided.

use std::sync::Arc;

use crate::admission::{AdmittedRequest, Eligibility};
use crate::cache::directives::{Storing, Validation};
use crate::cache::freshness::{self, Decision, Freshness};
use crate::cache::key::PrimaryKey;
use crate::cache::stored_response::Found;
use crate::cache::terms::Trouble;
use crate::handling::ForwardReason;
use crate::proxy::flight::Demand;
use crate::proxy::{Miss, Proxy, Target};
use crate::regions::DirectedRequest;

/// What was decided of an eligible request.
#[derive(Debug)]
pub struct Decided {
    /// What is asked for.
    pub target: Target,
    /// What was found in the store, as far as its credential may have it.
    pub found: Found,
    /// What is to be done.
    pub decision: Decision,
}

impl Proxy {
    /// Decides what is to be done with an eligible request, given what was found for it.
    pub fn decide(&self, request: Arc<DirectedRequest>, primary: PrimaryKey, found: Found) -> Decided {
        let headroom = self.headroom_of(&request);
        let policy = self.policy().under(headroom.pressure);
        let decision = freshness::decide(&request, &found, &policy, self.clock().now());
        let (found, decision) = self.with_trust(&request, found, decision);
        Decided { target: Target { request, primary, headroom }, found, decision }
    }

    /// Returns whether a request that must be forwarded may share its forward with others.
    pub fn may_share(&self, request: &AdmittedRequest) -> bool {
        // `HEAD` and a range bring nothing that could be stored; what a client forbids to store is for it alone.
        let may_store = self.policy().directives(request).storing == Storing::Allowed;
        request.eligibility() == Eligibility::Cacheable && may_store
    }

    /// Returns whether the client wants to hear from upstream, whatever is known.
    pub fn is_validation_demanded(&self, request: &AdmittedRequest) -> bool {
        self.policy().directives(request).validation == Validation::Demanded
    }

    /// Returns what a request that must be forwarded wants of a flight.
    pub fn demand_of(&self, miss: &Miss) -> Demand {
        let must_ask = self.is_validation_demanded(&miss.target.request)
            || matches!(
                miss.reason,
                ForwardReason::ClientDirective
                    | ForwardReason::AlwaysValidate
                    | ForwardReason::CredentialSuspended
                    | ForwardReason::CredentialUnverified
            );
        if must_ask { Demand::Validation } else { Demand::Freshness }
    }

    /// Returns the freshness with which what was found may stand in because upstream fails in this way; `None` where it may
    /// not.
    pub fn stand_in(&self, request: &AdmittedRequest, found: &Found, trouble: Trouble) -> Option<Freshness> {
        let present = (self.policy(), self.clock().now());
        let freshness = freshness::reuse_on_error(request, found, trouble, present)?;
        let Found::Stored(stored, _) = found else { return None };
        // A 401 or a purge may have come since the look-up. A write may have, too: it means "mandatory validation before
        // they can be sent in response to a subsequent request" (RFC 9111 §4.4), which this one is not.
        let provenance = stored.provenance();
        let is_lost = self.credentials().is_suspended(request.partition())
            || self.generations().is_dropped(&provenance.slots, provenance.stamp);
        (!is_lost).then_some(freshness)
    }
}

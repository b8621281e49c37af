//! Foresees what would become of a request after it was decided: when it would be sent, with whom, and what if not.
//!
//! Beyond its being sent nothing can be foreseen: what upstream answers, only upstream knows. So a forward is told as one that
//! succeeds, beside what would go out if it did not.
//!
//! Invariant: nothing here has an effect. Not here: deciding (`proxy::deciding`), doing it (`proxy::boarding`,
//! `proxy::forward`), the words (`explaining::wording`).

use crate::budget::Prospect;
use crate::budget::ask::Patience;
use crate::cache::freshness::{Decision, Freshness};
use crate::cache::key::CacheKey;
use crate::cache::stored_response::Found;
use crate::cache::terms::Trouble;
use crate::handling::{ForwardReason, Handling, RefusalReason};
use crate::headers::{CacheOutcome, CacheStatus};
use crate::proxy::deciding::Decided;
use crate::proxy::explaining::foreseen::{
    Company, Foreseen, ForwardPlan, Refreshing, Sending, Substitute, Turn,
};
use crate::proxy::explaining::wording;
use crate::proxy::flight::Demand;
use crate::proxy::landing::ForwardFailure;
use crate::proxy::rejections::REMEMBERED;
use crate::proxy::{Miss, NOTHING_STORED, Proxy, Target};
use crate::proxy::{forward, reply};
use crate::regions::DirectedRequest;

/// A forward that lies ahead.
#[derive(Clone, Copy)]
struct Ahead<'a> {
    request: &'a DirectedRequest,
    reason: ForwardReason,
    /// What may stand in for it.
    found: &'a Found,
    plan: ForwardPlan,
    prospect: Prospect,
}

impl Proxy {
    /// Foresees what would become of a request that the cache may not answer.
    pub fn foresee_forward(&self, request: &DirectedRequest, reason: ForwardReason) -> Foreseen {
        self.foresee_alone(request, (reason, Patience::Full), &Found::Nothing)
    }

    /// Foresees what would become of an eligible request. `key` is that of what is `present` in the store, whoever may have
    /// it.
    pub fn foresee(&self, decided: Decided, (key, present): (CacheKey, &Found)) -> Foreseen {
        let Decided { target, found, decision } = decided;
        match decision {
            Decision::Reuse(freshness) => reused(Handling::Reuse, freshness),
            Decision::ReuseUnderPressure(freshness) => reused(Handling::ReuseUnderPressure, freshness),
            Decision::ReuseThenRevalidate(freshness) => {
                let refresh = Some(self.foresee_refresh(&target, key, Demand::Refreshment));
                Foreseen { refresh, ..reused(Handling::ReuseThenRevalidate, freshness) }
            }
            Decision::RefreshAhead(freshness) => {
                let refresh = Some(self.foresee_refresh(&target, key, Demand::RefreshAhead));
                Foreseen { refresh, ..reused(Handling::RefreshAhead, freshness) }
            }
            Decision::Forward(reason) => self.foresee_fetch(&Miss { target, found, reason }, (key, present)),
            Decision::OnlyIfCached => Foreseen::new(
                Handling::Refuse(RefusalReason::OnlyIfCached),
                CacheStatus::refused(RefusalReason::OnlyIfCached),
                NOTHING_STORED.detail.into_owned(),
            ),
        }
    }

    fn foresee_fetch(&self, miss: &Miss, (key, present): (CacheKey, &Found)) -> Foreseen {
        let Miss { target, found, reason } = miss;
        if self.may_share(&target.request) {
            if !self.is_validation_demanded(&target.request) && self.rejection_of(target).is_some() {
                return Foreseen::new(Handling::Reuse, REMEMBERED, wording::REMEMBERED.to_owned());
            }
            if !self.is_grounded(target) {
                return self.foresee_flight(miss, (key, present));
            }
        }
        let patience = self.patience_with(&target.request, found);
        self.foresee_alone(&target.request, (*reason, patience), found)
    }

    fn foresee_flight(&self, miss: &Miss, (key, present): (CacheKey, &Found)) -> Foreseen {
        let request = &miss.target.request;
        let is_aloft = self.is_aloft(&miss.target, key, self.demand_of(miss));
        let prospect = if is_aloft {
            Prospect::Sent
        } else {
            let patience = self.patience_with(request, present);
            self.budget().prospect(&self.ask_for(request, &http::Method::GET, patience))
        };
        let plan = ForwardPlan {
            company: if is_aloft { Company::Joins } else { Company::TakesOff },
            conditional: matches!(present, Found::Stored(stored, _) if stored.has_validator()),
            sending: if is_aloft { Sending::UnderWay } else { Sending::from(prospect) },
            turn: self.foresee_turn(request),
            on_failure: self.substitute(request, &miss.found),
        };
        self.conclude(Ahead { request, reason: miss.reason, found: &miss.found, plan, prospect })
    }

    fn foresee_alone(
        &self,
        request: &DirectedRequest,
        (reason, patience): (ForwardReason, Patience),
        found: &Found,
    ) -> Foreseen {
        let prospect = self.budget().prospect(&self.ask_for(request, request.method(), patience));
        let plan = ForwardPlan {
            company: Company::Alone,
            conditional: false,
            sending: Sending::from(prospect),
            turn: self.foresee_turn(request),
            on_failure: self.substitute(request, found),
        };
        self.conclude(Ahead { request, reason, found, plan, prospect })
    }

    /// Says what comes of a forward, or of its not being sent.
    fn conclude(&self, ahead: Ahead<'_>) -> Foreseen {
        let Ahead { request, reason, found, plan, prospect } = ahead;
        let why = wording::of_forward(reason);
        let Prospect::Refused(refused) = prospect else {
            let collapsed = plan.company == Company::Joins;
            let outcome = CacheOutcome::Forwarded { reason, status: None, stored: false, collapsed };
            let status = CacheStatus { outcome, ttl: None, detail: None };
            let foreseen = Foreseen::new(Handling::Forward(reason), status, why.to_owned());
            return Foreseen { forward: Some(plan), ..foreseen };
        };
        let failure = ForwardFailure::NotSent(refused);
        let foreseen = if let Some(freshness) = self.stand_in(request, found, failure.trouble()) {
            let status = reply::standing_in(reason, None, freshness);
            Foreseen::new(Handling::Forward(reason), status, format!("{why} {}", wording::STANDS_IN))
        } else {
            let reply = forward::failed(failure, reason, None);
            let why = format!("{why} {}", failure.refusal().detail);
            Foreseen::new(reply.handling, reply.status, why)
        };
        Foreseen { forward: Some(plan), ..foreseen }
    }

    fn foresee_turn(&self, request: &DirectedRequest) -> Turn {
        match (self.needs_turn(request), self.credentials().is_turn_taken(request.partition())) {
            (false, _) => Turn::NotNeeded,
            (true, false) => Turn::Free,
            (true, true) => Turn::Taken,
        }
    }

    fn substitute(&self, request: &DirectedRequest, found: &Found) -> Substitute {
        if self.stand_in(request, found, Trouble::Failing).is_some() {
            Substitute::Stored
        } else if self.stand_in(request, found, Trouble::Disconnected).is_some() {
            Substitute::StoredIfDisconnected
        } else {
            Substitute::Failure
        }
    }

    fn foresee_refresh(&self, target: &Target, key: CacheKey, demand: Demand) -> Refreshing {
        if self.refresh_pauses().holds(target.primary.key(), self.clock().now()) {
            return Refreshing::Paused;
        }
        if self.is_aloft(target, key, demand) {
            return Refreshing::UnderWay;
        }
        let ask = self.ask_for(&target.request, &http::Method::GET, Patience::None);
        match self.budget().prospect(&ask) {
            Prospect::Sent => Refreshing::Starts,
            Prospect::Waiting { hold, .. } => Refreshing::Held { hold: hold.label() },
            Prospect::Refused(refused) => Refreshing::Held { hold: refused.hold.label() },
        }
    }

    /// Returns whether the flight is in the air in which a request would find what it wants.
    fn is_aloft(&self, target: &Target, key: CacheKey, demand: Demand) -> bool {
        self.flights().is_aloft(&self.flight_key(key, &target.request, demand))
    }
}

fn reused(handling: Handling, freshness: Freshness) -> Foreseen {
    let why = wording::of_reuse(handling, freshness);
    Foreseen::new(handling, reply::reused(handling, freshness), why.to_owned())
}

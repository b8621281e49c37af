//! What is known of one route of one caller, and where a request to it was counted. Pure.
//!
//! Invariant: what a request went to see about is told to exactly those gates.
//! Not here: which routes share a limit (`budget::account`), counting (`budget::meter`).

use std::time::{Duration, SystemTime};

use crate::budget::gate::{Errand, Gate};
use crate::budget::learning::Learning;
use crate::budget::observation::{Observation, Outcome};
use crate::routes::RouteLabel;

/// One route.
#[derive(Debug, Default)]
pub struct RouteState {
    /// Its limit.
    pub limit: RouteLimit,
    /// What it alone is refused or fails by.
    pub gate: Gate,
}

/// What is known of one route's limit.
#[derive(Debug)]
pub enum RouteLimit {
    /// Nothing yet; so many requests are under way to find out.
    Unknown {
        /// How many may go.
        learning: Learning,
        /// How many are under way.
        in_flight: u32,
    },
    /// This one.
    Of(usize),
    /// None: its answers say nothing of limits.
    Unlimited,
    /// Any: the name stands for many routes.
    Various,
}

impl Default for RouteLimit {
    fn default() -> Self {
        Self::Unknown { learning: Learning::default(), in_flight: 0 }
    }
}

/// Where a request was counted, and which gates it went to see about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Where it was counted.
    pub counted: Counted,
    /// About the limit that it was counted in.
    pub meter: Errand,
    /// About its route.
    pub route: Errand,
    /// About upstream as a whole.
    pub breaker: Errand,
}

impl Charge {
    /// Returns the same charge, of a request that was sent to see about upstream as a whole, or not.
    #[must_use]
    pub fn with_breaker(self, breaker: Errand) -> Self {
        Self { breaker, ..self }
    }
}

/// Where a request was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// In this limit.
    In(usize),
    /// Nowhere: the route has no limit.
    Nowhere,
    /// Nowhere any more: it has taken so long that it is not waited for.
    Lapsed,
}

impl RouteState {
    /// Returns what is known of a route before its first answer.
    pub fn of(route: &RouteLabel) -> Self {
        match route {
            RouteLabel::Template(_) => Self::default(),
            RouteLabel::Other => Self { limit: RouteLimit::Various, gate: Gate::default() },
        }
    }

    /// Closes and opens the route's own gate.
    pub fn note(
        &mut self,
        seen: &Observation,
        errand: Errand,
        (at_upstream, jitter): (Option<SystemTime>, Duration),
    ) {
        let is_limit = seen.fields.is_some_and(|fields| fields.is_exhausted());
        match seen.outcome {
            // That is the limit's, which other routes may share.
            Outcome::Refused if is_limit => self.gate.abandon(errand, seen.received),
            Outcome::Refused => {
                self.gate.refuse(errand, (seen.received, seen.told_wait(at_upstream)), jitter);
            }
            Outcome::Failed => self.gate.fail(errand, seen.received, jitter),
            Outcome::Answered | Outcome::Denied => self.gate.succeed(errand),
        }
    }

    /// Learns from an answer that says nothing of limits, where others do.
    pub fn note_silence(&mut self, seen: &Observation) {
        let is_silent = seen.fields.is_none() && seen.outcome == Outcome::Answered;
        if let RouteLimit::Unknown { learning, .. } = &mut self.limit
            && is_silent
        {
            learning.note_silence();
            if learning.is_over() {
                self.limit = RouteLimit::Unlimited;
            }
        }
    }

    /// Notes that a request is not under way any more.
    pub fn note_end(&mut self, charge: Charge) {
        if let (RouteLimit::Unknown { in_flight, .. }, Counted::In(_)) = (&mut self.limit, charge.counted) {
            *in_flight = in_flight.saturating_sub(1);
        }
    }
}

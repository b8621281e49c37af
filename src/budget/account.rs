//! What one caller may ask by one method: the limit that its routes share, and those that routes have for themselves. Pure.
//!
//! Sentry counts most endpoints of a caller together, and some apart, and does not say which (`sentry-api.md` §2). So every
//! route is taken to share the common limit until its first answer states another one; the first request to a route is
//! answered before a second one is sent to it. When a route that shared it states another limit, the common limit has
//! changed, or the route was given its own: the next answer of another route tells. A refusal that says that the limit is
//! used up closes the limit; any other, and a run of failures, the route alone.
//!
//! Invariant: a limit that several routes might share is never counted for each of them alone.
//! Not here: counting (`budget::meter`), who waits (`budget::scheduler`).

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::budget::gate::{Gate, Passage};
use crate::budget::learning::Learning;
use crate::budget::limit_fields::LimitFields;
use crate::budget::meter::Meter;
use crate::budget::observation::{Limits, Moment, Observation, Outcome, Verdict};
use crate::handling::Hold;
use crate::pressure::Pressure;
use crate::routes::RouteLabel;

/// The limits of one caller and method.
#[derive(Debug, Default)]
pub struct Account {
    common: Meter,
    routes: HashMap<RouteLabel, RouteState>,
    /// The route that stated another limit last, and what the common one was until then.
    suspect: Option<(RouteLabel, u32)>,
}

/// Where a request was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// With the caller's other routes.
    Common,
    /// Against the route's own limit.
    Own,
    /// Nowhere: the route has none.
    Nothing,
}

/// How a request ended that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Upstream failed.
    Failed {
        /// By how much a gate that this closes opens later than it could.
        jitter: Duration,
    },
    /// It was given up, which says nothing.
    GivenUp,
}

/// One route.
#[derive(Debug, Default)]
struct RouteState {
    limit: RouteLimit,
    gate: Gate,
}

/// What is known of one route's limit.
#[derive(Debug)]
enum RouteLimit {
    /// Nothing yet; so many requests are under way to find out.
    Unknown { learning: Learning, in_flight: u32 },
    /// It shares the common one.
    Common,
    /// Its own.
    Own(Box<Meter>),
    /// None: its answers say nothing of limits.
    Unlimited,
}

impl Default for RouteLimit {
    fn default() -> Self {
        Self::Unknown { learning: Learning::default(), in_flight: 0 }
    }
}

impl Account {
    /// Says whether a request to this route may be sent.
    pub fn verdict(&self, route: &RouteLabel, moment: &Moment) -> Verdict {
        let Some(state) = self.routes.get(route) else { return self.common.verdict(moment) };
        match state.gate.passage(moment.now) {
            Passage::Closed(wait, hold) => return Verdict::Wait(wait, hold),
            Passage::Probing(hold) => return Verdict::AwaitAnswer(hold),
            Passage::Free => {}
        }
        match &state.limit {
            RouteLimit::Own(meter) => meter.verdict(moment),
            RouteLimit::Unlimited => Verdict::Spend,
            RouteLimit::Unknown { learning, in_flight }
                if moment.limits == Limits::Possible && self.common.limits().is_some() =>
            {
                match learning.hold(*in_flight, moment.now) {
                    Some(wait) => Verdict::Wait(wait, Hold::Learning),
                    None => self.common.verdict(moment),
                }
            }
            RouteLimit::Unknown { .. } | RouteLimit::Common => self.common.verdict(moment),
        }
    }

    /// Counts a request that is sent now, and says where.
    pub fn take_off(&mut self, route: &RouteLabel, now: SystemTime) -> Charge {
        let state = self.routes.entry(route.clone()).or_default();
        state.gate.take_off();
        match &mut state.limit {
            RouteLimit::Own(meter) => {
                meter.take_off(now);
                return Charge::Own;
            }
            RouteLimit::Unlimited => return Charge::Nothing,
            RouteLimit::Unknown { learning, in_flight } => {
                learning.take_off(now);
                *in_flight += 1;
            }
            RouteLimit::Common => {}
        }
        self.common.take_off(now);
        Charge::Common
    }

    /// Notes that a request to this route, which was counted there, has been answered.
    pub fn settle(
        &mut self,
        (route, charge): (&RouteLabel, Charge),
        seen: &Observation,
        (at_upstream, jitter): (Option<SystemTime>, Duration),
    ) {
        let common = self.common.limits();
        let state = self.routes.entry(route.clone()).or_default();
        state.note(seen, at_upstream, jitter);
        state.learn(seen, common);
        match &mut state.limit {
            RouteLimit::Own(meter) => {
                // It was counted with the others before it was known to have a limit of its own.
                if charge == Charge::Common {
                    self.common.forget();
                }
                if charge != Charge::Own {
                    meter.take_off(seen.received);
                }
                meter.settle(seen, at_upstream, jitter);
            }
            RouteLimit::Unlimited if charge == Charge::Common => self.common.forget(),
            RouteLimit::Unlimited => {}
            RouteLimit::Unknown { .. } | RouteLimit::Common => {
                if charge != Charge::Common {
                    self.common.take_off(seen.received);
                }
                self.common.settle(seen, at_upstream, jitter);
                self.find_suspect(route, seen, common.and_then(|(window, _)| window));
            }
        }
    }

    /// Tells a common limit that has changed from a route that was given one of its own.
    fn find_suspect(&mut self, route: &RouteLabel, seen: &Observation, common: Option<u32>) {
        let (Some(stated), Some(before)) = (seen.fields.and_then(|fields| fields.limit), common) else {
            return;
        };
        match self.suspect.take() {
            Some((suspect, former)) if stated == former && suspect != *route => {
                // The others still have the old one: it is the suspect's own that was stated.
                self.common.restore(former);
                self.routes.entry(suspect).or_default().limit = RouteLimit::Own(Box::default());
            }
            _ if stated != before => self.suspect = Some((route.clone(), before)),
            _ => {}
        }
    }

    /// Notes that a request to this route, which was counted there, ended without an answer.
    pub fn lose(&mut self, (route, charge): (&RouteLabel, Charge), loss: Loss, now: SystemTime) {
        let state = self.routes.entry(route.clone()).or_default();
        match loss {
            Loss::Failed { jitter } => state.gate.fail(now, jitter),
            Loss::GivenUp => state.gate.abandon(now),
        }
        match (&mut state.limit, charge) {
            (RouteLimit::Own(meter), Charge::Own) => return meter.lose(now),
            (RouteLimit::Unknown { in_flight, .. }, _) => *in_flight = in_flight.saturating_sub(1),
            (RouteLimit::Own(_) | RouteLimit::Common | RouteLimit::Unlimited, _) => {}
        }
        if charge == Charge::Common {
            self.common.lose(now);
        }
    }

    /// Returns the limit that a route counts against; `None` where it has none.
    fn meter_of(&self, route: &RouteLabel) -> Option<&Meter> {
        match self.routes.get(route).map(|state| &state.limit) {
            Some(RouteLimit::Own(meter)) => Some(meter),
            Some(RouteLimit::Unlimited) => None,
            Some(RouteLimit::Unknown { .. } | RouteLimit::Common) | None => Some(&self.common),
        }
    }

    /// Returns whether two routes count against the same limit.
    pub fn shares_limit(&self, one: &RouteLabel, other: &RouteLabel) -> bool {
        match (self.meter_of(one), self.meter_of(other)) {
            (Some(one), Some(other)) => std::ptr::eq(one, other),
            (None | Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Returns what the five fields would say of this route at this moment; `None` where nothing is known.
    pub fn present(&self, route: &RouteLabel, moment: &Moment) -> Option<LimitFields> {
        self.meter_of(route)?.present(moment)
    }

    /// Returns how much of the route's limit is in use.
    pub fn pressure(&self, route: &RouteLabel, moment: &Moment) -> Pressure {
        if self.routes.get(route).is_some_and(|state| state.gate.is_closed()) {
            return Pressure::FULL;
        }
        self.meter_of(route).map_or(Pressure::NONE, |meter| meter.pressure(moment))
    }

    /// Returns how long a further request to this route will wait at the least when so many wait before it.
    pub fn wait_behind(&self, route: &RouteLabel, waiting: usize) -> Duration {
        self.meter_of(route).map_or(Duration::ZERO, |meter| meter.wait_behind(waiting))
    }

    /// Returns how many gates are closed.
    pub fn closed(&self) -> usize {
        let is_closed = |state: &&RouteState| {
            let own = match &state.limit {
                RouteLimit::Own(meter) => meter.is_closed(),
                RouteLimit::Unknown { .. } | RouteLimit::Common | RouteLimit::Unlimited => false,
            };
            own || state.gate.is_closed()
        };
        self.routes.values().filter(is_closed).count() + usize::from(self.common.is_closed())
    }

    /// Returns whether nothing is under way and nothing is closed at `now`, so that it can be forgotten.
    pub fn is_idle(&self, now: SystemTime) -> bool {
        let is_idle = |state: &RouteState| {
            let meter = match &state.limit {
                RouteLimit::Own(meter) => meter.is_idle(now),
                RouteLimit::Unknown { .. } | RouteLimit::Common | RouteLimit::Unlimited => true,
            };
            meter && state.gate.is_idle(now)
        };
        self.common.is_idle(now) && self.routes.values().all(is_idle)
    }
}

impl RouteState {
    /// Closes and opens the route's own gate.
    fn note(&mut self, seen: &Observation, at_upstream: Option<SystemTime>, jitter: Duration) {
        let is_limit = seen.fields.is_some_and(|fields| fields.is_exhausted());
        match seen.outcome {
            // That is the limit's, which other routes may share.
            Outcome::Refused if is_limit => self.gate.abandon(seen.received),
            Outcome::Refused => self.gate.refuse(seen.received, seen.told_wait(at_upstream), jitter),
            Outcome::Failed => self.gate.fail(seen.received, jitter),
            Outcome::Answered => self.gate.succeed(),
        }
    }

    /// Learns whose limit it is.
    fn learn(&mut self, seen: &Observation, common: Option<(Option<u32>, Option<u32>)>) {
        if let RouteLimit::Unknown { in_flight, .. } = &mut self.limit {
            *in_flight = in_flight.saturating_sub(1);
        }
        match (&mut self.limit, seen.fields) {
            (RouteLimit::Unknown { learning, .. }, None) => {
                // What fails on the way says nothing of limits; and where nobody knows any, there is nothing to tell apart.
                if seen.outcome == Outcome::Answered && common.is_some() && learning.is_over_after_silence() {
                    self.limit = RouteLimit::Unlimited;
                }
            }
            (RouteLimit::Unknown { .. }, Some(fields)) => {
                let differs = stated(&fields).zip(common).is_some_and(|(stated, common)| stated != common);
                self.limit = if differs { RouteLimit::Own(Box::default()) } else { RouteLimit::Common };
            }
            (RouteLimit::Unlimited, Some(_)) => self.limit = RouteLimit::Own(Box::default()),
            // The common limit may have changed to what was taken for the route's own.
            (RouteLimit::Own(_), Some(fields)) if common.is_some() && stated(&fields) == common => {
                self.limit = RouteLimit::Common;
            }
            (RouteLimit::Unlimited | RouteLimit::Common | RouteLimit::Own(_), _) => {}
        }
    }
}

/// Returns the limits that an answer states, in the form in which a meter knows them.
fn stated(fields: &LimitFields) -> Option<(Option<u32>, Option<u32>)> {
    fields.limit.map(|limit| (Some(limit), fields.concurrent_limit))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000) + Duration::from_millis(milliseconds)
    }

    /// Upstream's clock is ours.
    fn moment(milliseconds: u64) -> Moment {
        let now = at(milliseconds);
        Moment { now, at_upstream: Some(now), limits: Limits::Possible }
    }

    fn route(name: &str) -> RouteLabel {
        RouteLabel::Template(name.into())
    }

    fn seen(limit: u32, remaining: u32, received: u64) -> Observation {
        let fields = LimitFields {
            limit: Some(limit),
            remaining: Some(remaining),
            reset: Some(1_001 + received / 1_000),
            ..LimitFields::default()
        };
        let date = Some(at(received - received % 1_000));
        let fields = Some(fields);
        Observation { fields, outcome: Outcome::Answered, date, retry_after: None, received: at(received) }
    }

    /// Asks once for a route, which states this limit.
    fn ask(account: &mut Account, name: &str, (limit, remaining): (u32, u32), now: u64) {
        assert_eq!(account.verdict(&route(name), &moment(now)), Verdict::Spend, "{name} at {now}");
        let charge = account.take_off(&route(name), at(now));
        let observation = seen(limit, remaining, now);
        account.settle((&route(name), charge), &observation, (Some(at(now)), Duration::ZERO));
    }

    fn verdict(account: &Account, name: &str, now: u64) -> Verdict {
        account.verdict(&route(name), &moment(now))
    }

    #[test]
    fn routes_that_state_the_same_limit_are_counted_together() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (3, 2), 10);
        ask(&mut account, "/b/", (3, 1), 20);
        ask(&mut account, "/c/", (3, 0), 30);
        for name in ["/a/", "/b/", "/c/", "/d/"] {
            assert!(matches!(verdict(&account, name, 40), Verdict::Wait(..)), "{name}");
        }
    }

    #[test]
    fn a_route_that_states_another_limit_at_first_has_its_own() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        ask(&mut account, "/own/", (1, 0), 20);
        assert!(matches!(verdict(&account, "/own/", 30), Verdict::Wait(..)));
        assert_eq!(verdict(&account, "/a/", 30), Verdict::Spend);
        assert_eq!(account.present(&route("/own/"), &moment(30)).unwrap().limit, Some(1));
        assert_eq!(account.present(&route("/a/"), &moment(30)).unwrap().remaining, Some(39));
    }

    #[test]
    fn a_route_of_which_nothing_is_known_has_one_request_under_way() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        let charge = account.take_off(&route("/b/"), at(20));
        assert_eq!(verdict(&account, "/b/", 30), Verdict::Wait(Duration::from_millis(990), Hold::Learning));
        assert_eq!(verdict(&account, "/c/", 30), Verdict::Spend);
        account.lose((&route("/b/"), charge), Loss::GivenUp, at(40));
        assert_eq!(verdict(&account, "/b/", 50), Verdict::Spend);
    }

    #[test]
    fn what_was_counted_with_the_others_is_taken_back_when_its_route_turns_out_to_have_its_own_limit() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (2, 1), 10);
        let first = account.take_off(&route("/a/"), at(1_010));
        ask(&mut account, "/own/", (7, 6), 1_020);
        account.settle((&route("/a/"), first), &seen(2, 1, 1_030), (Some(at(1_030)), Duration::ZERO));
        assert_eq!(account.present(&route("/a/"), &moment(1_040)).unwrap().remaining, Some(1));
        assert!(account.is_idle(at(1_040)));
    }

    #[test]
    fn a_common_limit_that_changes_is_followed_by_all_its_routes() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        ask(&mut account, "/b/", (40, 38), 20);
        ask(&mut account, "/a/", (5, 0), 30);
        assert!(matches!(verdict(&account, "/b/", 40), Verdict::Wait(..)));
        ask(&mut account, "/b/", (5, 4), 1_010);
        assert_eq!(account.present(&route("/a/"), &moment(1_020)).unwrap().limit, Some(5));
    }

    #[test]
    fn a_route_that_is_given_its_own_limit_is_told_from_a_change_of_the_common_one() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        ask(&mut account, "/b/", (40, 38), 20);
        ask(&mut account, "/a/", (5, 4), 30);
        ask(&mut account, "/b/", (40, 37), 40);
        assert_eq!(account.present(&route("/b/"), &moment(50)).unwrap().limit, Some(40));
        ask(&mut account, "/a/", (5, 3), 60);
        assert_eq!(account.present(&route("/a/"), &moment(70)).unwrap().limit, Some(5));
        assert_eq!(account.present(&route("/b/"), &moment(70)).unwrap().limit, Some(40));
    }

    #[test]
    fn a_route_whose_answers_say_nothing_of_limits_has_none_after_three() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (1, 0), 10);
        for now in [1_010, 2_010, 3_010] {
            let charge = account.take_off(&route("/silent/"), at(now));
            let silent = Observation { fields: None, ..seen(1, 0, now) };
            account.settle((&route("/silent/"), charge), &silent, (Some(at(now)), Duration::ZERO));
        }
        ask(&mut account, "/a/", (1, 0), 4_010);
        assert_eq!(verdict(&account, "/silent/", 4_020), Verdict::Spend);
        assert!(account.present(&route("/silent/"), &moment(4_020)).is_none());
    }

    #[test]
    fn a_common_limit_that_changes_while_routes_are_new_is_still_one_for_all() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        ask(&mut account, "/new/", (5, 3), 1_020);
        ask(&mut account, "/a/", (5, 2), 1_030);
        ask(&mut account, "/new/", (5, 1), 1_040);
        ask(&mut account, "/a/", (5, 0), 1_050);
        assert!(matches!(verdict(&account, "/new/", 1_060), Verdict::Wait(_, Hold::Window)));
    }

    /// A refusal that says this of the limit.
    fn refuse(account: &mut Account, name: &str, fields: Option<LimitFields>, now: u64) {
        let charge = account.take_off(&route(name), at(now));
        let refused = Observation { fields, outcome: Outcome::Refused, ..seen(1, 0, now) };
        account.settle((&route(name), charge), &refused, (Some(at(now)), Duration::ZERO));
    }

    #[test]
    fn a_refusal_because_the_limit_is_used_up_closes_it_for_all_its_routes() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        refuse(&mut account, "/b/", seen(40, 0, 20).fields, 20);
        for name in ["/a/", "/b/"] {
            assert!(matches!(verdict(&account, name, 30), Verdict::Wait(_, Hold::Gate)), "{name}");
        }
        assert_eq!(account.closed(), 1);
    }

    #[test]
    fn any_other_refusal_closes_the_route_that_complained_alone() {
        for fields in [None, Some(LimitFields::default()), seen(40, 7, 20).fields] {
            let mut account = Account::default();
            ask(&mut account, "/a/", (40, 39), 10);
            refuse(&mut account, "/b/", fields, 20);
            assert!(matches!(verdict(&account, "/b/", 30), Verdict::Wait(_, Hold::Gate)), "{fields:?}");
            assert_eq!(verdict(&account, "/a/", 30), Verdict::Spend);
            assert_eq!(account.pressure(&route("/b/"), &moment(30)), Pressure::FULL);
        }
    }

    #[test]
    fn a_run_of_failures_closes_the_route_alone() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        for _ in 0..5 {
            let charge = account.take_off(&route("/b/"), at(20));
            let loss = Loss::Failed { jitter: Duration::ZERO };
            account.lose((&route("/b/"), charge), loss, at(30));
        }
        assert_eq!(verdict(&account, "/b/", 30), Verdict::Wait(Duration::from_secs(1), Hold::Breaker));
        assert_eq!(verdict(&account, "/a/", 30), Verdict::Spend);
        ask(&mut account, "/b/", (40, 30), 1_030);
        assert_eq!(account.closed(), 0);
    }
}

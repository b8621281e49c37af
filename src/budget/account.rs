//! What one caller may ask by one method: its limits, and which routes count against which. Pure.
//!
//! Sentry counts most endpoints of a caller together, and some apart, and does not say which (`sentry-api.md` §2). Routes that
//! state the same numbers are taken to share a limit. A route of which nothing is known goes only where every known limit
//! would let it, and has one request answered before a second one is sent. When a route states other numbers than before,
//! the limit has changed for all that share it, or the route was given its own: the next answer of another route tells. A
//! refusal that says that the limit is used up closes the limit; any other, and a run of failures, the route alone.
//!
//! Invariants: a limit that several routes might share is never counted for each of them alone; what was counted is taken
//! back where it was counted. Not here: counting (`budget::meter`), who waits (`budget::scheduler`).

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::budget::gate::{Errand, Passage};
use crate::budget::limit_fields::{LimitFields, Stated};
use crate::budget::meter::Meter;
use crate::budget::observation::{Limits, Moment, Observation, Verdict};
use crate::budget::route_state::{Charge, Counted, RouteLimit, RouteState};
use crate::handling::hold::Hold;
use crate::pressure::Pressure;
use crate::routes::RouteLabel;

pub mod onlooking;

/// Most limits that one caller's routes are told apart by.
const MOST_LIMITS: usize = 8;

/// The limits of one caller and method.
#[derive(Debug)]
pub struct Account {
    /// The first one is what everything counts against while nothing is known.
    limits: Vec<SharedLimit>,
    routes: HashMap<RouteLabel, RouteState>,
    suspect: Option<Suspect>,
}

/// A limit, and from which other one it was told apart, if it was.
#[derive(Debug, Default)]
struct SharedLimit {
    meter: Meter,
    split_from: Option<usize>,
}

/// A route that stated other numbers than those it shared a limit with, which may have changed for all.
#[derive(Debug)]
struct Suspect {
    route: RouteLabel,
    limit: usize,
    former: Stated,
}

/// How a request ended that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Upstream failed.
    Failed {
        /// By how much a gate that this closes opens later than it could.
        jitter: Duration,
        /// Whether it was reached at all.
        reach: Reach,
    },
    /// It was given up, which says nothing.
    GivenUp,
    /// It was not sent after all.
    Unsent,
}

impl Loss {
    /// Returns whether Sentry may have counted the request.
    fn may_have_counted(self) -> bool {
        match self {
            Self::Failed { reach: Reach::Reached, .. } | Self::GivenUp => true,
            Self::Failed { reach: Reach::Unreachable, .. } | Self::Unsent => false,
        }
    }
}

/// Whether upstream was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It was, and something went wrong then.
    Reached,
    /// It was not.
    Unreachable,
}

impl Default for Account {
    fn default() -> Self {
        Self { limits: vec![SharedLimit::default()], routes: HashMap::new(), suspect: None }
    }
}

impl Account {
    /// Says whether a request to this route may be sent.
    pub fn verdict(&self, route: &RouteLabel, moment: &Moment) -> Verdict {
        let Some(state) = self.routes.get(route) else { return self.strictest(moment) };
        match state.gate.passage(moment.now) {
            Passage::Closed(wait, hold) | Passage::Probing(wait, hold) => return Verdict::Wait(wait, hold),
            Passage::Free => {}
        }
        match &state.limit {
            RouteLimit::Of(limit) => {
                self.limits.get(*limit).map_or(Verdict::Spend, |limit| limit.meter.verdict(moment))
            }
            RouteLimit::Unlimited => Verdict::Spend,
            RouteLimit::Unknown { learning, in_flight }
                if moment.limits == Limits::Possible && self.is_anything_known() =>
            {
                match learning.hold(*in_flight, moment.now) {
                    Some(wait) => Verdict::Wait(wait, Hold::Learning),
                    None => self.strictest(moment),
                }
            }
            RouteLimit::Unknown { .. } | RouteLimit::Various => self.strictest(moment),
        }
    }

    /// Returns the verdict of the first limit that holds.
    fn strictest(&self, moment: &Moment) -> Verdict {
        let mut verdicts = self.limits.iter().map(|limit| limit.meter.verdict(moment));
        verdicts.find(|verdict| *verdict != Verdict::Spend).unwrap_or(Verdict::Spend)
    }

    fn is_anything_known(&self) -> bool {
        self.limits.iter().any(|limit| limit.meter.limits().is_some())
    }

    /// Counts a request that is sent now, and says where.
    pub fn take_off(&mut self, route: &RouteLabel, now: SystemTime) -> Charge {
        let presumed = self.presumed();
        let state = self.routes.entry(route.clone()).or_insert_with(|| RouteState::of(route));
        let gate = state.gate.take_off(now);
        let limit = match &mut state.limit {
            RouteLimit::Of(limit) => Some(*limit),
            RouteLimit::Unlimited => None,
            RouteLimit::Various => Some(presumed),
            RouteLimit::Unknown { learning, in_flight } => {
                learning.take_off(now);
                *in_flight += 1;
                Some(presumed)
            }
        };
        let counted = limit.and_then(|index| Some((index, self.limits.get_mut(index)?)));
        match counted {
            Some((index, limit)) => {
                let meter = limit.meter.take_off(now);
                Charge { counted: Counted::In(index), meter, route: gate, breaker: Errand::Plain }
            }
            None => Charge {
                counted: Counted::Nowhere,
                meter: Errand::Plain,
                route: gate,
                breaker: Errand::Plain,
            },
        }
    }

    /// Returns the limit that most routes share.
    fn presumed(&self) -> usize {
        let sharing = |index: usize| {
            self.routes
                .values()
                .filter(|state| matches!(state.limit, RouteLimit::Of(of) if of == index))
                .count()
        };
        // Of those that are shared alike, the first.
        (0..self.limits.len()).rev().max_by_key(|index| sharing(*index)).unwrap_or(0)
    }

    /// Notes that a request to this route, which was counted there, has been answered.
    pub fn settle(
        &mut self,
        (route, charge): (&RouteLabel, Charge),
        seen: &Observation,
        (at_upstream, jitter): (Option<SystemTime>, Duration),
    ) {
        let is_anything_known = self.is_anything_known();
        let state = self.routes.entry(route.clone()).or_insert_with(|| RouteState::of(route));
        state.note(seen, charge.route, (at_upstream, jitter));
        state.note_end(charge);
        if is_anything_known {
            state.note_silence(seen);
        }
        let stated = seen.fields.and_then(|fields| fields.stated());
        let place = match (stated, charge.counted) {
            (Some(stated), counted) => Some(self.place(route, stated, counted)),
            (None, _)
                if matches!(
                    self.routes.get(route),
                    Some(RouteState { limit: RouteLimit::Unlimited, .. })
                ) =>
            {
                None
            }
            (None, Counted::In(counted)) => Some(counted),
            (None, Counted::Nowhere | Counted::Lapsed) => None,
        };
        let errand = match (charge.counted, place) {
            (Counted::In(counted), place) if place == Some(counted) => charge.meter,
            (counted, place) => {
                self.take_back(counted, charge.meter, seen.received);
                if let Some(limit) = place.and_then(|index| self.limits.get_mut(index)) {
                    limit.meter.count_in(seen.received);
                }
                Errand::Plain
            }
        };
        if let Some(limit) = place.and_then(|index| self.limits.get_mut(index)) {
            limit.meter.settle(seen, errand, (at_upstream, jitter));
        }
    }

    fn take_back(&mut self, counted: Counted, errand: Errand, now: SystemTime) {
        if let Counted::In(index) = counted
            && let Some(limit) = self.limits.get_mut(index)
        {
            limit.meter.forget(errand, now);
        }
    }

    /// Finds the limit that an answer of this route is counted in, and remembers it for the route.
    fn place(&mut self, route: &RouteLabel, stated: Stated, counted: Counted) -> usize {
        let index = match self.routes.get(route).map(|state| &state.limit) {
            Some(RouteLimit::Of(of)) => self.place_known(route, *of, stated),
            Some(RouteLimit::Various | RouteLimit::Unknown { .. } | RouteLimit::Unlimited) | None => {
                self.find_or_add(stated, counted)
            }
        };
        if let Some(state) = self.routes.get_mut(route) {
            match state.limit {
                RouteLimit::Various => {}
                RouteLimit::Of(_) | RouteLimit::Unknown { .. } | RouteLimit::Unlimited => {
                    state.limit = RouteLimit::Of(index);
                }
            }
        }
        index
    }

    /// Places an answer of a route that shared a limit until now.
    fn place_known(&mut self, route: &RouteLabel, of: usize, stated: Stated) -> usize {
        let known = self.limits.get(of).and_then(|limit| limit.meter.limits());
        let suspect = self.suspect.take_if(|suspect| suspect.limit == of && suspect.route != *route);
        if known == Some(stated) {
            // What the suspect said holds for the others, too: the limit has changed.
            return of;
        }
        if let Some(suspect) = suspect.filter(|suspect| suspect.former == stated) {
            self.tell_apart(suspect, known);
            return of;
        }
        if let Some(index) = self.find(stated) {
            if self.limits.get(index).is_some_and(|limit| limit.split_from == Some(of)) {
                // A second one states what only one did: the limit has changed for all.
                self.merge(of, index);
            }
            return index;
        }
        // Its meter learns the new numbers from this answer.
        self.suspect = known.map(|former| Suspect { route: route.clone(), limit: of, former });
        of
    }

    /// The others still have the former limit: what the suspect stated is its own.
    fn tell_apart(&mut self, suspect: Suspect, stated: Option<Stated>) {
        if let Some(limit) = self.limits.get_mut(suspect.limit) {
            limit.meter.restate(suspect.former);
        }
        let Some(stated) = stated.filter(|_| self.limits.len() < MOST_LIMITS) else { return };
        let mut meter = Meter::default();
        meter.restate(stated);
        self.limits.push(SharedLimit { meter, split_from: Some(suspect.limit) });
        let index = self.limits.len() - 1;
        self.routes.entry(suspect.route).or_default().limit = RouteLimit::Of(index);
    }

    fn merge(&mut self, from: usize, into: usize) {
        for state in self.routes.values_mut() {
            if matches!(state.limit, RouteLimit::Of(of) if of == from) {
                state.limit = RouteLimit::Of(into);
            }
        }
    }

    fn find(&self, stated: Stated) -> Option<usize> {
        self.limits.iter().position(|limit| limit.meter.limits() == Some(stated))
    }

    /// Finds the limit with these numbers, or adds it; the first that is stated is the one that everything counted against.
    fn find_or_add(&mut self, stated: Stated, counted: Counted) -> usize {
        if let Some(index) = self.find(stated) {
            return index;
        }
        if let Some(index) = self.limits.iter().position(|limit| limit.meter.limits().is_none()) {
            return index;
        }
        if self.limits.len() < MOST_LIMITS {
            self.limits.push(SharedLimit::default());
            return self.limits.len() - 1;
        }
        match counted {
            Counted::In(index) => index,
            Counted::Nowhere | Counted::Lapsed => 0,
        }
    }

    /// Notes that a request to this route, which was counted there, ended without an answer.
    pub fn lose(&mut self, (route, charge): (&RouteLabel, Charge), loss: Loss, now: SystemTime) {
        let state = self.routes.entry(route.clone()).or_insert_with(|| RouteState::of(route));
        match loss {
            Loss::Failed { jitter, .. } => state.gate.fail(charge.route, now, jitter),
            Loss::GivenUp | Loss::Unsent => state.gate.abandon(charge.route, now),
        }
        state.note_end(charge);
        if let RouteLimit::Unknown { learning, .. } = &mut state.limit
            && loss.may_have_counted()
        {
            learning.lose(now);
        }
        let Counted::In(index) = charge.counted else { return };
        if let Some(limit) = self.limits.get_mut(index) {
            if loss.may_have_counted() {
                limit.meter.lose(charge.meter, now);
            } else {
                limit.meter.forget(charge.meter, now);
            }
        }
    }

    /// Stops waiting for a request that goes at its client's pace; returns what is left to be settled.
    pub fn lapse(&mut self, (route, charge): (&RouteLabel, Charge), now: SystemTime) -> Charge {
        if let Some(state) = self.routes.get_mut(route) {
            state.gate.abandon(charge.route, now);
            state.note_end(charge);
        }
        self.take_back(charge.counted, charge.meter, now);
        Charge {
            counted: Counted::Lapsed,
            meter: Errand::Plain,
            route: Errand::Plain,
            breaker: Errand::Plain,
        }
    }

    /// Returns the limit that a route counts against, where that is known.
    fn meter_of(&self, route: &RouteLabel) -> Option<&Meter> {
        match self.routes.get(route).map(|state| &state.limit) {
            Some(RouteLimit::Of(index)) => self.limits.get(*index).map(|limit| &limit.meter),
            Some(RouteLimit::Unlimited | RouteLimit::Unknown { .. } | RouteLimit::Various) | None => None,
        }
    }

    /// Returns whether two routes count against the same limit, or might.
    pub fn may_share_limit(&self, one: &RouteLabel, other: &RouteLabel) -> bool {
        let limit = |route| self.routes.get(route).map(|state| &state.limit);
        match (limit(one), limit(other)) {
            (Some(RouteLimit::Unlimited), _) | (_, Some(RouteLimit::Unlimited)) => false,
            (Some(RouteLimit::Of(one)), Some(RouteLimit::Of(other))) => one == other,
            (Some(_) | None, Some(_) | None) => true,
        }
    }

    /// Returns what the five fields would say of this route at this moment; `None` where nothing is known.
    pub fn present(&self, route: &RouteLabel, moment: &Moment) -> Option<LimitFields> {
        self.meter_of(route)?.present(moment)
    }

    /// Returns how much of the route's limit is in use.
    pub fn pressure(&self, route: &RouteLabel, moment: &Moment) -> Pressure {
        if self.routes.get(route).is_some_and(|state| !state.gate.is_free(moment.now)) {
            return Pressure::FULL;
        }
        self.meter_of(route).map_or(Pressure::NONE, |meter| meter.pressure(moment))
    }

    /// Returns how long a further request to this route will wait at the least when so many wait before it.
    pub fn wait_behind(&self, route: &RouteLabel, waiting: usize) -> Duration {
        self.meter_of(route).map_or(Duration::ZERO, |meter| meter.wait_behind(waiting))
    }

    /// Returns whether nothing would be lost if it were forgotten.
    pub fn is_idle(&self, moment: &Moment) -> bool {
        self.limits.iter().all(|limit| limit.meter.is_idle(moment))
            && self.routes.values().all(|state| state.gate.is_free(moment.now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::budget::observation::Outcome;
    use crate::metrics::budget_levels::ClosedGates;

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
        account.lose((&route("/b/"), charge), Loss::Unsent, at(40));
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
        assert!(account.is_idle(&moment(2_040)));
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
        assert_eq!(account.closed(at(30)), ClosedGates { limits: 1, ..ClosedGates::default() });
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
    fn a_limit_is_told_with_its_routes_and_what_is_left_of_it() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        ask(&mut account, "/b/", (40, 30), 20);
        ask(&mut account, "/own/", (10, 1), 30);
        let mut left = Vec::new();
        account.remaining(&moment(40), |route, share| left.push((route.clone(), share)));
        left.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(left, [(route("/a/"), 0.75), (route("/b/"), 0.75), (route("/own/"), 0.1)]);
        let shortages: Vec<_> = account.shortages(&moment(40)).collect();
        let (shortest, _) = shortages.iter().max_by_key(|(_, shortage)| *shortage).unwrap();
        let own = account.known_limit(*shortest, &moment(40)).unwrap();
        assert_eq!((own.routes, own.fields.remaining), (vec![route("/own/")], Some(1)));
        assert_eq!(own.closed, None);
    }

    #[test]
    fn a_run_of_failures_closes_the_route_alone() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        for _ in 0..5 {
            let charge = account.take_off(&route("/b/"), at(20));
            let loss = Loss::Failed { jitter: Duration::ZERO, reach: Reach::Reached };
            account.lose((&route("/b/"), charge), loss, at(30));
        }
        assert_eq!(verdict(&account, "/b/", 30), Verdict::Wait(Duration::from_secs(1), Hold::Breaker));
        assert_eq!(verdict(&account, "/a/", 30), Verdict::Spend);
        ask(&mut account, "/b/", (40, 30), 1_030);
        assert_eq!(account.closed(at(1_040)), ClosedGates::default());
    }

    #[test]
    fn the_order_in_which_routes_are_asked_first_does_not_matter() {
        let mut account = Account::default();
        ask(&mut account, "/own/", (10, 9), 10);
        for (number, name) in ["/a/", "/b/", "/c/"].into_iter().enumerate() {
            let left = 2 - u32::try_from(number).unwrap();
            ask(&mut account, name, (3, left), 20);
        }
        for name in ["/a/", "/b/", "/c/", "/new/"] {
            assert!(matches!(verdict(&account, name, 40), Verdict::Wait(_, Hold::Window)), "{name}");
        }
        assert_eq!(verdict(&account, "/own/", 40), Verdict::Spend);
    }

    #[test]
    fn a_probe_whose_route_turns_out_to_have_its_own_limit_leaves_the_others_their_gate() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        refuse(&mut account, "/a/", seen(40, 0, 20).fields, 20);
        ask(&mut account, "/own/", (10, 9), 1_010);
        ask(&mut account, "/a/", (40, 39), 1_020);
        assert_eq!(account.closed(at(1_040)), ClosedGates::default());
    }

    #[test]
    fn a_name_that_stands_for_many_routes_counts_each_answer_where_it_belongs() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        for (limit, left) in [((40, 38), 38), ((60, 59), 38), ((40, 37), 37), ((60, 58), 37)] {
            assert_eq!(account.verdict(&RouteLabel::Other, &moment(20)), Verdict::Spend);
            let charge = account.take_off(&RouteLabel::Other, at(20));
            let observation = seen(limit.0, limit.1, 20);
            account.settle((&RouteLabel::Other, charge), &observation, (Some(at(20)), Duration::ZERO));
            let present = account.present(&route("/a/"), &moment(30)).unwrap();
            assert_eq!((present.limit, present.remaining), (Some(40), Some(left)));
        }
    }

    #[test]
    fn a_request_that_lapses_is_taken_back_and_its_answer_still_counts() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (2, 1), 10);
        let slow = account.take_off(&route("/a/"), at(20));
        let slower = account.take_off(&route("/a/"), at(20));
        assert_eq!(verdict(&account, "/a/", 1_010), Verdict::AwaitAnswer(Hold::Window));
        let lapsed = account.lapse((&route("/a/"), slow), at(1_020));
        account.lapse((&route("/a/"), slower), at(1_020));
        assert_eq!(verdict(&account, "/a/", 1_020), Verdict::Spend);
        account.settle((&route("/a/"), lapsed), &seen(2, 0, 1_030), (Some(at(1_030)), Duration::ZERO));
        assert!(matches!(verdict(&account, "/a/", 1_040), Verdict::Wait(_, Hold::Window)));
    }

    #[test]
    fn a_first_request_that_was_lost_holds_the_next_for_a_second() {
        let mut account = Account::default();
        let charge = account.take_off(&route("/a/"), at(0));
        let loss = Loss::Failed { jitter: Duration::ZERO, reach: Reach::Reached };
        account.lose((&route("/a/"), charge), loss, at(100));
        let held = |milliseconds| Verdict::Wait(Duration::from_millis(milliseconds), Hold::Learning);
        assert_eq!(verdict(&account, "/a/", 200), held(900));
        assert_eq!(verdict(&account, "/b/", 200), held(900));
    }

    #[test]
    fn a_first_request_to_a_route_that_was_lost_holds_the_next_to_it_for_a_second() {
        let mut account = Account::default();
        ask(&mut account, "/a/", (40, 39), 10);
        let charge = account.take_off(&route("/b/"), at(20));
        let loss = Loss::Failed { jitter: Duration::ZERO, reach: Reach::Reached };
        account.lose((&route("/b/"), charge), loss, at(100));
        let held = Verdict::Wait(Duration::from_millis(900), Hold::Learning);
        assert_eq!(verdict(&account, "/b/", 200), held);
        assert_eq!(verdict(&account, "/a/", 200), Verdict::Spend);
    }
}

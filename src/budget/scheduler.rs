//! Decides who may be sent upstream next: by the callers' accounts, upstream's health, the caps, and in fair order. Pure.
//!
//! Whenever something may have changed, the heads of the line are looked at in their order, and everybody who may go, goes.
//! When a request that went to see whether upstream works again has failed, those who were waiting for that are sent away.
//!
//! Invariants: the caps hold, for each upstream; who would wait in vain does not wait; the tables are bounded: accounts in
//! which nothing happens are forgotten when there are too many.
//! Not here: waiting itself, deadlines and clocks (`budget`); `now` and jitter are arguments.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use crate::budget::account::{Account, Loss, Reach};
use crate::budget::ask::{Ask, Limit, Load, Patience, Payer};
use crate::budget::gate::Errand;
use crate::budget::line::{Crowded, Line, Place, Waiting};
use crate::budget::observation::{
    Forecast, Headroom, Limits, Moment, Observation, Outcome, Outlook, Verdict,
};
use crate::budget::route_state::Charge;
use crate::budget::upstream_state::{Caps, Failure, UpstreamState};
use crate::config::budget::BudgetConfig;
use crate::handling::hold::Hold;
use crate::pressure::Pressure;
use crate::routes::RouteLabel;

pub mod onlooking;

/// Most accounts that are kept in mind.
const MOST_ACCOUNTS: usize = 10_000;

/// What stands before whoever finds the line full.
const CROWDED: Outlook = Outlook::WhenOneEnds(Hold::Capacity);

/// Who may go because of what has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affected<'a> {
    /// Nobody more.
    Nobody,
    /// Those who count against the same limits.
    Payer(&'a Payer),
    /// Anybody.
    Everybody,
}

/// How a request came in.
#[derive(Debug)]
pub enum Entry {
    /// It may be sent.
    Taken(Charge),
    /// It is held by this, and stands in the line until it is called or leaves.
    InLine(Place, oneshot::Receiver<Charge>, Hold),
    /// It is not let in, because it would wait for too long, as far as that is known.
    Refused(Outlook),
}

/// The line, and what it depends on.
#[derive(Debug)]
pub struct Scheduler {
    accounts: HashMap<Payer, Account>,
    upstreams: HashMap<Arc<str>, UpstreamState>,
    line: Line,
    caps: Caps,
}

impl Scheduler {
    /// Takes the caps from the configuration.
    pub fn new(config: &BudgetConfig) -> Self {
        Self {
            accounts: HashMap::new(),
            upstreams: HashMap::new(),
            line: Line::new(config.max_waiting),
            caps: Caps::new(config),
        }
    }

    /// Says whether a request may be sent at `now`, whoever else waits.
    pub fn outlook(&self, ask: &Ask, now: SystemTime) -> Outlook {
        let payer = &ask.limit.payer;
        if let Some(outlook) =
            self.upstreams.get(&payer.upstream).and_then(|upstream| upstream.hold(ask.load, &self.caps, now))
        {
            return outlook;
        }
        let account = self.accounts.get(payer);
        match account.map(|account| account.verdict(&ask.limit.route, &self.moment(&payer.upstream, now))) {
            Some(Verdict::Spend) | None => Outlook::Now,
            Some(Verdict::Wait(wait, hold)) => Outlook::Later(wait, hold),
            Some(Verdict::AwaitAnswer(hold)) => Outlook::WhenOneEnds(hold),
        }
    }

    fn moment(&self, upstream: &str, now: SystemTime) -> Moment {
        self.upstreams
            .get(upstream)
            .map_or(Moment { now, at_upstream: None, limits: Limits::Possible }, |upstream| {
                upstream.moment(now)
            })
    }

    /// Lets a request go, puts it in the line, or refuses it at once. It may wait for `within` at the most.
    pub fn enter(&mut self, ask: &Ask, within: Duration, now: SystemTime) -> Entry {
        let hold = match self.judge(ask, within, now) {
            Forecast::Sent => return Entry::Taken(self.take(ask, now)),
            Forecast::Refused(outlook) => return Entry::Refused(outlook),
            Forecast::Waiting(hold, _) => hold,
        };
        let (call, called) = oneshot::channel();
        match self.line.join(ask.clone(), call) {
            Ok(place) => Entry::InLine(place, called, hold),
            Err(Crowded) => Entry::Refused(CROWDED),
        }
    }

    /// Says what would become of a request that came in now, and leaves everything as it is.
    pub fn forecast(&self, ask: &Ask, within: Duration, now: SystemTime) -> Forecast {
        match self.judge(ask, within, now) {
            Forecast::Waiting(..) if !self.line.has_room_for(ask.partition) => Forecast::Refused(CROWDED),
            forecast @ (Forecast::Sent | Forecast::Waiting(..) | Forecast::Refused(_)) => forecast,
        }
    }

    /// Says what is to become of a request, as long as there is room in the line.
    fn judge(&self, ask: &Ask, within: Duration, now: SystemTime) -> Forecast {
        let outlook = self.outlook(ask, now);
        if outlook == Outlook::Now && !self.is_behind_others(&ask.limit) {
            return Forecast::Sent;
        }
        let hold = match outlook {
            // Somebody who stands before it is held.
            Outlook::Now => Hold::Window,
            Outlook::Later(_, hold) | Outlook::WhenOneEnds(hold) => hold,
        };
        match (ask.patience, hold) {
            (Patience::None, _) | (Patience::Brief, Hold::Gate | Hold::Breaker) => Forecast::Refused(outlook),
            (Patience::Brief | Patience::Full, _) => match self.known_wait(ask, outlook) {
                wait if wait <= within => Forecast::Waiting(hold, wait),
                _ => Forecast::Refused(outlook),
            },
        }
    }

    /// Returns whether somebody waits who might count against the same limit.
    fn is_behind_others(&self, limit: &Limit) -> bool {
        if self.line.is_empty() {
            return false;
        }
        let account = self.accounts.get(&limit.payer);
        let shares =
            |route: &RouteLabel| account.is_none_or(|account| account.may_share_limit(route, &limit.route));
        self.line.is_waited_for(&limit.payer, shares)
    }

    /// Returns how long a request will wait at the least, as far as that is known.
    pub fn known_wait(&self, ask: &Ask, outlook: Outlook) -> Duration {
        let for_itself = match outlook {
            // It ends with the answer that everybody waits for.
            Outlook::Later(_, Hold::Learning) | Outlook::Now | Outlook::WhenOneEnds(_) => Duration::ZERO,
            Outlook::Later(wait, _) => wait,
        };
        let Some(account) = self.accounts.get(&ask.limit.payer) else { return for_itself };
        let place = self.line.next_place(ask.partition);
        let shares = |route: &RouteLabel| account.may_share_limit(route, &ask.limit.route);
        let ahead = self.line.ahead(&ask.limit.payer, place, shares);
        for_itself.saturating_add(account.wait_behind(&ask.limit.route, ahead))
    }

    /// Takes what a request needs, which may be sent now.
    fn take(&mut self, ask: &Ask, now: SystemTime) -> Charge {
        let payer = &ask.limit.payer;
        let upstream = self.upstreams.entry(Arc::clone(&payer.upstream)).or_default();
        let breaker = upstream.take_off(ask.load, self.line.next_number(), (&self.caps, now));
        if MOST_ACCOUNTS <= self.accounts.len() && !self.accounts.contains_key(payer) {
            self.forget_idle_accounts(now);
        }
        let charge = self.accounts.entry(payer.clone()).or_default().take_off(&ask.limit.route, now);
        charge.with_breaker(breaker)
    }

    fn forget_idle_accounts(&mut self, now: SystemTime) {
        let upstreams = &self.upstreams;
        self.accounts.retain(|payer, account| {
            let moment = upstreams.get(&payer.upstream).map(|upstream| upstream.moment(now));
            moment.is_none_or(|moment| !account.is_idle(&moment))
        });
    }

    /// Gives back a place among the requests at a time; who may go by that.
    pub fn give_back(&mut self, upstream: &str, load: Load) -> Affected<'static> {
        let Some(upstream) = self.upstreams.get_mut(upstream) else { return Affected::Nobody };
        let was_full = upstream.is_full(load, &self.caps);
        upstream.give_back(load);
        if was_full { Affected::Everybody } else { Affected::Nobody }
    }

    /// Stops waiting for a request that goes at its client's pace; returns what is left to be settled.
    pub fn lapse(&mut self, (ask, charge): (&Ask, Charge), now: SystemTime) -> Charge {
        let payer = &ask.limit.payer;
        if let Some(upstream) = self.upstreams.get_mut(&payer.upstream) {
            upstream.abandon(charge.breaker, now);
        }
        match self.accounts.get_mut(payer) {
            Some(account) => account.lapse((&ask.limit.route, charge), now),
            None => charge,
        }
    }

    /// Notes that a request has been answered; who may go by that.
    pub fn settle<'a>(
        &mut self,
        (ask, charge): (&'a Ask, Charge),
        seen: &Observation,
        jitter: Duration,
    ) -> Affected<'a> {
        let payer = &ask.limit.payer;
        let upstream = self.upstreams.entry(Arc::clone(&payer.upstream)).or_default();
        let was_broken = upstream.is_broken();
        upstream.listen(seen, charge.breaker);
        if seen.outcome == Outcome::Failed {
            self.note_failure((ask, charge), Reach::Reached, (seen.received, jitter));
        }
        let at_upstream = self.moment(&payer.upstream, seen.received).at_upstream;
        if let Some(account) = self.accounts.get_mut(payer) {
            account.settle((&ask.limit.route, charge), seen, (at_upstream, jitter));
        }
        if was_broken { Affected::Everybody } else { Affected::Payer(payer) }
    }

    /// Notes that a request ended without an answer; who may go by that.
    pub fn lose<'a>(
        &mut self,
        (ask, charge): (&'a Ask, Charge),
        loss: Loss,
        now: SystemTime,
    ) -> Affected<'a> {
        let payer = &ask.limit.payer;
        match loss {
            Loss::Failed { jitter, reach } => self.note_failure((ask, charge), reach, (now, jitter)),
            Loss::GivenUp | Loss::Unsent => {
                if let Some(upstream) = self.upstreams.get_mut(&payer.upstream) {
                    upstream.abandon(charge.breaker, now);
                }
            }
        }
        if let Some(account) = self.accounts.get_mut(payer) {
            account.lose((&ask.limit.route, charge), loss, now);
        }
        if charge.breaker == Errand::Probe { Affected::Everybody } else { Affected::Payer(payer) }
    }

    fn note_failure(&mut self, (ask, charge): (&Ask, Charge), reach: Reach, moment: (SystemTime, Duration)) {
        let name = &ask.limit.payer.upstream;
        let upstream = self.upstreams.entry(Arc::clone(name)).or_default();
        match upstream.fail((&ask.limit, reach), charge.breaker, moment) {
            Failure::OfProbe => {
                // Upstream has failed since they came: that is their answer.
                let before = upstream.next_at_probe();
                self.line.send_away(name, before);
            }
            Failure::OfRequest => {}
        }
    }

    /// Takes a request out of the line; whether it was still there.
    pub fn leave(&mut self, limit: &Limit, place: Place) -> bool {
        self.line.take(limit, place).is_some()
    }

    /// Calls those who may go of whom something has affected. Returns how long until somebody else may without anything ending.
    pub fn call(&mut self, affected: Affected<'_>, now: SystemTime) -> Option<Duration> {
        match affected {
            Affected::Nobody => None,
            _ if self.line.is_empty() => None,
            Affected::Payer(payer) => self.call_payer(payer, now),
            Affected::Everybody => self.call_everybody(now),
        }
    }

    fn call_payer(&mut self, payer: &Payer, now: SystemTime) -> Option<Duration> {
        let mut soonest = None;
        let mut heads = self.line.heads_of(payer);
        while let Some((place, route)) = heads.pop_first() {
            let limit = Limit { payer: payer.clone(), route };
            if self.call_head((place, &limit), &mut soonest, now)
                && let Some(next) = self.line.head(&limit)
            {
                heads.insert(next, limit.route);
            }
        }
        soonest
    }

    fn call_everybody(&mut self, now: SystemTime) -> Option<Duration> {
        let mut soonest = None;
        let mut place = None;
        while let Some((head, limit)) = self.line.head_after(place) {
            let upstream = self.upstreams.get(&limit.payer.upstream);
            let held = upstream.and_then(|upstream| upstream.hold(Load::Bare, &self.caps, now));
            if let (Some(outlook), 1) = (held, self.upstreams.len()) {
                // Nobody may go, whoever it is.
                return nearer(soonest, outlook);
            }
            self.call_head((head, &limit), &mut soonest, now);
            place = Some(head);
        }
        soonest
    }

    /// Calls the first of a queue if it may go; whether it was.
    fn call_head(
        &mut self,
        (place, limit): (Place, &Limit),
        soonest: &mut Option<Duration>,
        now: SystemTime,
    ) -> bool {
        let Some(ask) = self.line.ask(limit, place) else { return false };
        let outlook = self.outlook(ask, now);
        if outlook == Outlook::Now {
            self.call_one(limit, place, now);
            return true;
        }
        *soonest = nearer(*soonest, outlook);
        false
    }

    fn call_one(&mut self, limit: &Limit, place: Place, now: SystemTime) {
        let Some(Waiting { ask, called }) = self.line.call(limit, place) else { return };
        let charge = self.take(&ask, now);
        if called.send(charge).is_err() {
            // They left at this very moment.
            self.give_back(&ask.limit.payer.upstream, ask.load);
            self.lose((&ask, charge), Loss::Unsent, now);
        }
    }

    /// Returns how many places among the requests at a time are taken.
    pub fn taken(&self) -> usize {
        self.upstreams.values().map(UpstreamState::taken).sum()
    }

    /// Returns how many wait.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// Returns what is known of a limit at `now`.
    pub fn headroom(&self, limit: &Limit, now: SystemTime) -> Headroom {
        let Some(upstream) = self.upstreams.get(&limit.payer.upstream) else { return Headroom::default() };
        let moment = upstream.moment(now);
        let account = self.accounts.get(&limit.payer);
        let pressure = match account {
            _ if upstream.is_shut(now) || self.is_behind_others(limit) => Pressure::FULL,
            Some(account) => account.pressure(&limit.route, &moment),
            None => Pressure::NONE,
        };
        Headroom { fields: account.and_then(|account| account.present(&limit.route, &moment)), pressure }
    }
}

/// Returns the shorter wait.
fn nearer(soonest: Option<Duration>, outlook: Outlook) -> Option<Duration> {
    match (outlook, soonest) {
        (Outlook::Later(wait, _), Some(known)) => Some(known.min(wait)),
        (Outlook::Later(wait, _), None) => Some(wait),
        (Outlook::Now | Outlook::WhenOneEnds(_), soonest) => soonest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::limit_fields::LimitFields;
    use http::Method;

    use crate::config::load;
    use crate::credential::BudgetIdentity;
    use crate::testing::{SUBJECT, asked, start};

    const LONG: Duration = Duration::from_secs(10);

    fn scheduler(change: impl FnOnce(&mut BudgetConfig)) -> Scheduler {
        let mut config = load::defaults().budget;
        change(&mut config);
        Scheduler::new(&config)
    }

    /// What a token asks of an upstream, on a route.
    fn ask(token: &str, upstream: &str, route: &str) -> Ask {
        let credential = format!("Bearer sntryu_{token}");
        let partition = asked(SUBJECT, &[("authorization", &credential)]).partition();
        let identity = BudgetIdentity::Credential(partition);
        let payer = Payer { upstream: upstream.into(), identity, method: Method::GET };
        let limit = Limit { payer, route: RouteLabel::Template(route.into()) };
        Ask { limit, partition, load: Load::Bare, patience: Patience::Full }
    }

    fn at(milliseconds: u64) -> SystemTime {
        start() + Duration::from_millis(milliseconds)
    }

    fn taken(entry: &Entry) -> Charge {
        match entry {
            Entry::Taken(charge) => *charge,
            Entry::InLine(..) | Entry::Refused(_) => panic!("not taken: {entry:?}"),
        }
    }

    fn called(entry: Entry) -> oneshot::Receiver<Charge> {
        match entry {
            Entry::InLine(_, called, _) => called,
            Entry::Taken(_) | Entry::Refused(_) => panic!("not in line: {entry:?}"),
        }
    }

    /// An answer at that moment, in the window of its second, of which so much is left.
    fn answer(limit: u32, remaining: u32, milliseconds: u64) -> Observation {
        let received = at(milliseconds);
        let second = at(milliseconds - milliseconds % 1_000);
        let reset = second.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
        let fields = LimitFields {
            limit: Some(limit),
            remaining: Some(remaining),
            reset: Some(reset),
            ..LimitFields::default()
        };
        let date = Some(second);
        Observation { fields: Some(fields), outcome: Outcome::Answered, date, retry_after: None, received }
    }

    fn failed(milliseconds: u64) -> Observation {
        Observation { fields: None, outcome: Outcome::Failed, ..answer(1, 1, milliseconds) }
    }

    /// Sends a request and has it answered.
    fn exchange(scheduler: &mut Scheduler, ask: &Ask, seen: &Observation) {
        let charge = taken(&scheduler.enter(ask, LONG, seen.received));
        scheduler.settle((ask, charge), seen, Duration::ZERO);
        scheduler.give_back(&ask.limit.payer.upstream, ask.load);
    }

    #[test]
    fn the_caps_are_each_upstreams_own() {
        let mut scheduler = scheduler(|config| config.max_concurrent = 1);
        taken(&scheduler.enter(&ask("a", "one", "/a/"), LONG, at(0)));
        called(scheduler.enter(&ask("b", "one", "/a/"), LONG, at(0)));
        taken(&scheduler.enter(&ask("b", "two", "/a/"), LONG, at(0)));
    }

    #[test]
    fn who_waits_for_one_limit_does_not_hold_up_another() {
        let mut scheduler = scheduler(|_| {});
        exchange(&mut scheduler, &ask("a", "one", "/a/"), &answer(1, 0, 0));
        called(scheduler.enter(&ask("a", "one", "/a/"), LONG, at(10)));
        taken(&scheduler.enter(&ask("b", "one", "/a/"), LONG, at(10)));
        assert_eq!(scheduler.waiting(), 1);
    }

    #[test]
    fn a_known_wait_counts_those_who_stand_before_and_share_the_limit() {
        let mut scheduler = scheduler(|_| {});
        for (route, left) in [("/a/", 1), ("/b/", 0)] {
            exchange(&mut scheduler, &ask("a", "one", route), &answer(2, left, 0));
        }
        let second = Duration::from_secs(1);
        let mut line = Vec::new();
        for number in 0..6 {
            let route = if number % 2 == 0 { "/a/" } else { "/b/" };
            line.push(called(scheduler.enter(&ask("a", "one", route), LONG, at(10))));
        }
        let next = ask("a", "one", "/a/");
        let outlook = scheduler.outlook(&next, at(10));
        let wait = scheduler.known_wait(&next, outlook);
        assert!(3 * second < wait && wait <= 5 * second, "{wait:?}");
        assert!(matches!(scheduler.enter(&next, 2 * second, at(10)), Entry::Refused(_)));
    }

    #[test]
    fn credentials_that_share_a_limit_take_turns() {
        let mut scheduler = scheduler(|_| {});
        let shared = |token: &str| {
            let mut ask = ask(token, "one", "/a/");
            ask.limit.payer.identity = BudgetIdentity::Alias(0);
            ask
        };
        exchange(&mut scheduler, &shared("noisy"), &answer(1, 0, 0));
        let mut noisy: Vec<_> =
            (0..5).map(|_| called(scheduler.enter(&shared("noisy"), LONG, at(10)))).collect();
        let mut quiet = called(scheduler.enter(&shared("quiet"), LONG, at(20)));
        for (second, is_quiet_called) in [(1, false), (2, true)] {
            scheduler.call(Affected::Everybody, at(second * 1_000 + 500));
            assert_eq!(quiet.try_recv().is_ok(), is_quiet_called, "{second}");
            let charge = noisy[0].try_recv();
            if let Ok(charge) = charge {
                noisy.remove(0);
                let seen = answer(1, 0, second * 1_000 + 600);
                scheduler.settle((&shared("noisy"), charge), &seen, Duration::ZERO);
            }
        }
    }

    #[test]
    fn when_a_probe_has_failed_those_are_sent_away_who_came_before_it() {
        let mut scheduler = scheduler(|_| {});
        for number in 0..5 {
            exchange(&mut scheduler, &ask(&number.to_string(), "one", "/a/"), &failed(0));
        }
        assert_eq!(scheduler.line_levels(at(10)).0.closed.upstreams, 1);
        let mut before = called(scheduler.enter(&ask("a", "one", "/a/"), LONG, at(10)));
        let mut elsewhere = called(scheduler.enter(&ask("a", "one", "/a/"), LONG, at(20)));
        scheduler.call(Affected::Everybody, at(1_500));
        let charge = before.try_recv().unwrap();
        let mut after = called(scheduler.enter(&ask("b", "one", "/a/"), LONG, at(1_600)));
        scheduler.settle((&ask("a", "one", "/a/"), charge), &failed(1_700), Duration::ZERO);
        assert_eq!(elsewhere.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(after.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(scheduler.waiting(), 1);
    }

    #[test]
    fn an_upstream_that_never_speaks_of_limits_has_none_for_anybody() {
        let mut scheduler = scheduler(|_| {});
        let silent = Observation { fields: None, ..answer(1, 1, 0) };
        for token in ["a", "b", "c"] {
            exchange(&mut scheduler, &ask(token, "one", "/a/"), &silent);
        }
        for _ in 0..50 {
            taken(&scheduler.enter(&ask("new", "one", "/a/"), LONG, at(10)));
        }
        taken(&scheduler.enter(&ask("new", "two", "/a/"), LONG, at(10)));
        called(scheduler.enter(&ask("new", "two", "/a/"), LONG, at(10)));
    }

    #[test]
    fn accounts_in_which_nothing_happens_are_forgotten_when_there_are_too_many() {
        let mut scheduler = scheduler(|_| {});
        let busy = ask("busy", "one", "/a/");
        taken(&scheduler.enter(&busy, LONG, at(0)));
        for number in 0..MOST_ACCOUNTS + 10 {
            exchange(&mut scheduler, &ask(&number.to_string(), "one", "/a/"), &answer(9, 9, 0));
        }
        assert!(scheduler.accounts.len() <= MOST_ACCOUNTS);
        assert!(scheduler.accounts.contains_key(&busy.limit.payer));
    }

    #[test]
    fn a_line_that_is_full_takes_nobody_in() {
        let mut scheduler = scheduler(|config| config.max_waiting = 1);
        exchange(&mut scheduler, &ask("a", "one", "/a/"), &answer(1, 0, 0));
        let _first = called(scheduler.enter(&ask("a", "one", "/a/"), LONG, at(10)));
        let refused = scheduler.enter(&ask("a", "one", "/a/"), LONG, at(10));
        assert!(matches!(refused, Entry::Refused(Outlook::WhenOneEnds(Hold::Capacity))), "{refused:?}");
    }
}

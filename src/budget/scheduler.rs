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

use http::Method;
use tokio::sync::oneshot;

use crate::budget::account::{Account, Charge, Loss};
use crate::budget::limit_fields::LimitFields;
use crate::budget::line::{Crowded, Line, Place, Waiting};
use crate::budget::observation::{Limits, Moment, Observation, Outcome, Verdict};
use crate::budget::upstream_state::{Caps, UpstreamState};
use crate::config::budget::BudgetConfig;
use crate::credential::{BudgetIdentity, CredentialPartition};
use crate::handling::Hold;
use crate::pressure::Pressure;
use crate::routes::RouteLabel;

/// Most accounts that are kept in mind.
const MOST_ACCOUNTS: usize = 10_000;

/// How long a request waits at the most whose client could be given something stale.
pub const BRIEF: Duration = Duration::from_secs(1);

/// What is asked for: one request upstream.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What it counts against.
    pub limit: Limit,
    /// Whose turn it is.
    pub partition: CredentialPartition,
    /// What it brings.
    pub load: Load,
    /// How long it may wait.
    pub patience: Patience,
}

/// What a request counts against, as far as that is known beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Whose limit it is.
    pub payer: Payer,
    /// Which of its limits.
    pub route: RouteLabel,
}

/// Whose limit a request counts against, as Sentry counts (`sentry-api.md` §2): by upstream, identity and method.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Payer {
    /// The authority of the upstream.
    pub upstream: Arc<str>,
    /// The caller.
    pub identity: BudgetIdentity,
    /// The method.
    pub method: Method,
}

/// What a request will ask of its permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Nothing but an answer.
    Bare,
    /// A body has to be read from its client first.
    WithBody,
}

/// How long a request may wait before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: nobody needs the answer now.
    None,
    /// For a moment, and not for what is closed: its client could be given something stale.
    Brief,
    /// As long as the configuration lets it.
    Full,
}

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// Now.
    Now,
    /// When one of the requests under way has ended.
    WhenOneEnds(Hold),
    /// Not before so long.
    Later(Duration, Hold),
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
        let outlook = self.outlook(ask, now);
        if outlook == Outlook::Now && !self.line.is_waited_for(&ask.limit) {
            return Entry::Taken(self.take(ask, now));
        }
        let hold = match outlook {
            // Somebody who stands before it is held.
            Outlook::Now => Hold::Window,
            Outlook::Later(_, hold) | Outlook::WhenOneEnds(hold) => hold,
        };
        if !self.may_wait(ask, (outlook, hold), within) {
            return Entry::Refused(outlook);
        }
        let (call, called) = oneshot::channel();
        match self.line.join(ask.clone(), call) {
            Ok(place) => Entry::InLine(place, called, hold),
            Err(Crowded) => Entry::Refused(Outlook::WhenOneEnds(Hold::Capacity)),
        }
    }

    fn may_wait(&self, ask: &Ask, (outlook, hold): (Outlook, Hold), within: Duration) -> bool {
        match (ask.patience, hold) {
            (Patience::None, _) | (Patience::Brief, Hold::Gate | Hold::Breaker) => false,
            (Patience::Brief, _) => self.known_wait(ask, outlook) <= BRIEF.min(within),
            (Patience::Full, _) => self.known_wait(ask, outlook) <= within,
        }
    }

    /// Returns how long a request will wait at the least, as far as that is known.
    pub fn known_wait(&self, ask: &Ask, outlook: Outlook) -> Duration {
        let for_itself = match outlook {
            Outlook::Later(wait, _) => wait,
            Outlook::Now | Outlook::WhenOneEnds(_) => Duration::ZERO,
        };
        let Some(account) = self.accounts.get(&ask.limit.payer) else { return for_itself };
        let place = self.line.next_place(ask.partition);
        let shares = |limit: &Limit| {
            limit.payer == ask.limit.payer && account.shares_limit(&limit.route, &ask.limit.route)
        };
        for_itself.saturating_add(account.wait_behind(&ask.limit.route, self.line.ahead(place, shares)))
    }

    /// Takes what a request needs, which may be sent now.
    pub fn take(&mut self, ask: &Ask, now: SystemTime) -> Charge {
        let payer = &ask.limit.payer;
        let upstream = self.upstreams.entry(Arc::clone(&payer.upstream)).or_default();
        upstream.take_off(ask.load, self.line.next_number(), (&self.caps, now));
        if MOST_ACCOUNTS <= self.accounts.len() && !self.accounts.contains_key(payer) {
            self.accounts.retain(|_, account| !account.is_idle(now));
        }
        self.accounts.entry(payer.clone()).or_default().take_off(&ask.limit.route, now)
    }

    /// Gives back a place among the requests at a time.
    pub fn give_back(&mut self, upstream: &str, load: Load) {
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.give_back(load);
        }
    }

    /// Notes that a request has been answered.
    pub fn settle(&mut self, (ask, charge): (&Ask, Charge), seen: &Observation, jitter: Duration) {
        let payer = &ask.limit.payer;
        self.upstreams.entry(Arc::clone(&payer.upstream)).or_default().listen(seen);
        if seen.outcome == Outcome::Failed {
            self.note_failure(&payer.upstream, seen.received, jitter);
        }
        let at_upstream = self.moment(&payer.upstream, seen.received).at_upstream;
        if let Some(account) = self.accounts.get_mut(payer) {
            account.settle((&ask.limit.route, charge), seen, (at_upstream, jitter));
        }
    }

    /// Notes that a request ended without an answer.
    pub fn lose(&mut self, (ask, charge): (&Ask, Charge), loss: Loss, now: SystemTime) {
        let payer = &ask.limit.payer;
        match loss {
            Loss::Failed { jitter } => self.note_failure(&payer.upstream, now, jitter),
            Loss::GivenUp => {
                if let Some(upstream) = self.upstreams.get_mut(&payer.upstream) {
                    upstream.abandon(now);
                }
            }
        }
        if let Some(account) = self.accounts.get_mut(payer) {
            account.lose((&ask.limit.route, charge), loss, now);
        }
    }

    fn note_failure(&mut self, name: &Arc<str>, now: SystemTime, jitter: Duration) {
        let upstream = self.upstreams.entry(Arc::clone(name)).or_default();
        let was_probing = upstream.is_probing();
        upstream.fail(now, jitter);
        if was_probing {
            // Upstream has failed since they came: that is their answer.
            let before = upstream.probed_at();
            self.line.send_away(name, before);
        }
    }

    /// Takes a request out of the line; whether it was still there.
    pub fn leave(&mut self, limit: &Limit, place: Place) -> bool {
        self.line.take(limit, place).is_some()
    }

    /// Calls everybody who may go. Returns how long until somebody else may without anything ending.
    pub fn call(&mut self, now: SystemTime) -> Option<Duration> {
        let mut soonest: Option<Duration> = None;
        let mut heads = self.line.heads();
        while let Some((place, limit)) = heads.pop_first() {
            let Some(ask) = self.line.ask(&limit, place) else { continue };
            match self.outlook(ask, now) {
                Outlook::Now => {
                    self.call_one(&limit, place, now);
                    if let Some(next) = self.line.head(&limit) {
                        heads.insert(next, limit);
                    }
                }
                Outlook::WhenOneEnds(_) => {}
                Outlook::Later(wait, _) => soonest = Some(soonest.map_or(wait, |known| known.min(wait))),
            }
        }
        soonest
    }

    fn call_one(&mut self, limit: &Limit, place: Place, now: SystemTime) {
        let Some(Waiting { ask, called }) = self.line.call(limit, place) else { return };
        let charge = self.take(&ask, now);
        if called.send(charge).is_err() {
            // They left at this very moment.
            self.give_back(&ask.limit.payer.upstream, ask.load);
            self.lose((&ask, charge), Loss::GivenUp, now);
        }
    }

    /// Returns whether nobody waits.
    pub fn is_nobody_waiting(&self) -> bool {
        self.line.is_empty()
    }

    /// Returns how many places among the requests at a time are taken.
    pub fn taken(&self) -> usize {
        self.upstreams.values().map(UpstreamState::taken).sum()
    }

    /// Returns how many wait.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// Returns how many gates are closed, those of whole upstreams included.
    pub fn closed_gates(&self) -> usize {
        let upstreams = self.upstreams.values().filter(|upstream| upstream.is_broken()).count();
        upstreams + self.accounts.values().map(Account::closed).sum::<usize>()
    }

    /// Returns what is known of a limit at this moment: what the fields of an answer would say, and how short it is.
    pub fn present(&self, limit: &Limit, now: SystemTime) -> (Option<LimitFields>, Pressure) {
        let upstream = self.upstreams.get(&limit.payer.upstream);
        let is_broken = upstream.is_some_and(UpstreamState::is_broken);
        let moment = self.moment(&limit.payer.upstream, now);
        let account = self.accounts.get(&limit.payer);
        let pressure = match account {
            _ if is_broken || self.line.is_waited_for(limit) => Pressure::FULL,
            Some(account) => account.pressure(&limit.route, &moment),
            None => Pressure::NONE,
        };
        (account.and_then(|account| account.present(&limit.route, &moment)), pressure)
    }
}

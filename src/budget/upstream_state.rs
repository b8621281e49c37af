//! What is known of one upstream as a whole, and how much it is being asked. Pure.
//!
//! Invariants: what is taken is given back by its owner; only what another limit fails by than the one before, or cannot reach,
//! counts against the whole.
//! Not here: what its answers say of one caller's limits (`budget::account`), who is next (`budget::scheduler`).

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::budget::account::Reach;
use crate::budget::ask::{Limit, Load};
use crate::budget::gate::{Errand, Gate, Passage};
use crate::budget::learning::SILENT_ANSWERS;
use crate::budget::observation::{Limits, Moment, Observation, Outcome, Outlook};
use crate::budget::upstream_clock::UpstreamClock;
use crate::config::budget::BudgetConfig;
use crate::handling::hold::Hold;

/// The operator's caps, for each upstream.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    concurrent: usize,
    with_body: usize,
    per_second: usize,
}

/// One upstream.
#[derive(Debug, Default)]
pub struct UpstreamState {
    clock: UpstreamClock,
    breaker: Gate,
    /// What failed last, without an answer since.
    last_failed: Option<Limit>,
    /// The number in the line that was next when the latest request went to see.
    next_at_probe: u64,
    voice: Voice,
    taken: usize,
    taken_with_body: usize,
    /// When the requests of the last second were sent; empty where no rate is set.
    sent: VecDeque<SystemTime>,
}

/// What a failure shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// That upstream still does not work: those who waited to hear have their answer.
    OfProbe,
    /// Nothing more than itself.
    OfRequest,
}

/// Whether an upstream speaks of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    /// So many answers have not.
    Silent(u32),
    /// It has.
    Heard,
}

impl Default for Voice {
    fn default() -> Self {
        Self::Silent(0)
    }
}

impl Caps {
    /// Takes the caps from the configuration.
    pub fn new(config: &BudgetConfig) -> Self {
        Self {
            concurrent: config.max_concurrent,
            with_body: config.max_concurrent.div_ceil(2),
            per_second: config.max_per_second,
        }
    }
}

impl UpstreamState {
    /// Returns the present moment, as far as limits are concerned.
    pub fn moment(&self, now: SystemTime) -> Moment {
        let limits = match self.voice {
            Voice::Silent(answers) if SILENT_ANSWERS <= answers => Limits::Absent,
            Voice::Silent(_) | Voice::Heard => Limits::Possible,
        };
        Moment { now, at_upstream: self.clock.earliest(now), limits }
    }

    /// Says what holds every request to this upstream.
    pub fn hold(&self, load: Load, caps: &Caps, now: SystemTime) -> Option<Outlook> {
        match self.breaker.passage(now) {
            Passage::Closed(wait, hold) | Passage::Probing(wait, hold) => {
                return Some(Outlook::Later(wait, hold));
            }
            Passage::Free => {}
        }
        if self.is_full(load, caps) {
            return Some(Outlook::WhenOneEnds(Hold::Capacity));
        }
        if caps.per_second == 0 || self.sent.len() < caps.per_second {
            return None;
        }
        let next = *self.sent.front()? + Duration::from_secs(1);
        let wait = next.duration_since(now).ok().filter(|wait| !wait.is_zero())?;
        Some(Outlook::Later(wait, Hold::Rate))
    }

    /// Returns whether as many requests are under way as may be.
    pub fn is_full(&self, load: Load, caps: &Caps) -> bool {
        caps.concurrent <= self.taken || (load == Load::WithBody && caps.with_body <= self.taken_with_body)
    }

    /// Counts a request that is sent now, and says what for; `next_number` is that of whoever comes next to the line.
    pub fn take_off(&mut self, load: Load, next_number: u64, (caps, now): (&Caps, SystemTime)) -> Errand {
        let errand = self.breaker.take_off(now);
        if errand == Errand::Probe {
            self.next_at_probe = next_number;
        }
        self.taken += 1;
        self.taken_with_body += usize::from(load == Load::WithBody);
        if caps.per_second > 0 {
            if self.sent.len() == caps.per_second {
                self.sent.pop_front();
            }
            self.sent.push_back(now);
        }
        errand
    }

    /// Gives back a place among the requests at a time.
    pub fn give_back(&mut self, load: Load) {
        self.taken = self.taken.saturating_sub(1);
        self.taken_with_body = self.taken_with_body.saturating_sub(usize::from(load == Load::WithBody));
    }

    /// Learns from an answer what it tells of the upstream as a whole.
    pub fn listen(&mut self, seen: &Observation, errand: Errand) {
        if seen.outcome != Outcome::Failed {
            self.breaker.succeed(errand);
            self.last_failed = None;
        }
        // Only who counts by a clock is asked what it says.
        if let Some(reset) = seen.fields.and_then(|fields| fields.reset) {
            self.clock.observe(seen.date, reset, seen.received);
        }
        self.voice = match (self.voice, seen.fields, seen.outcome) {
            (_, Some(_), _) | (Voice::Heard, ..) => Voice::Heard,
            (Voice::Silent(answers), None, Outcome::Answered) => Voice::Silent(answers.saturating_add(1)),
            // Sentry counts only what reaches one of its endpoints.
            (silent @ Voice::Silent(_), None, Outcome::Refused | Outcome::Failed | Outcome::Denied) => silent,
        };
    }

    /// Notes that a request has failed; whether that shows that upstream as a whole still does. One endpoint that fails again
    /// and again shows nothing: its own gate closes. `jitter` is by how much later than it could it is asked again.
    pub fn fail(
        &mut self,
        (limit, reach): (&Limit, Reach),
        errand: Errand,
        (now, jitter): (SystemTime, Duration),
    ) -> Failure {
        let is_new = self.last_failed.as_ref() != Some(limit) || reach == Reach::Unreachable;
        self.last_failed = Some(limit.clone());
        if is_new {
            self.breaker.fail(errand, now, jitter);
        } else {
            self.breaker.abandon(errand, now);
        }
        if is_new && errand == Errand::Probe { Failure::OfProbe } else { Failure::OfRequest }
    }

    /// Notes that a request was given up.
    pub fn abandon(&mut self, errand: Errand, now: SystemTime) {
        self.breaker.abandon(errand, now);
    }

    /// Returns whether it is left alone after failures.
    pub fn is_broken(&self) -> bool {
        self.breaker.is_closed()
    }

    /// Returns whether nothing may be sent at `now` because of failures.
    pub fn is_shut(&self, now: SystemTime) -> bool {
        !self.breaker.is_free(now)
    }

    /// Returns its gate.
    pub fn gate(&self) -> Gate {
        self.breaker
    }

    /// Returns the number in the line that was next when the latest request went to see.
    pub fn next_at_probe(&self) -> u64 {
        self.next_at_probe
    }

    /// Returns how many requests are under way.
    pub fn taken(&self) -> usize {
        self.taken
    }
}

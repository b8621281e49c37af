//! What is known of one upstream as a whole, and how much it is being asked. Pure.
//!
//! Not here: what its answers say of one caller's limits (`budget::account`), who is next (`budget::scheduler`).

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::budget::gate::{Errand, Gate, Passage};
use crate::budget::learning::SILENT_ANSWERS;
use crate::budget::observation::{Limits, Moment, Observation, Outcome};
use crate::budget::scheduler::{Load, Outlook};
use crate::budget::upstream_clock::UpstreamClock;
use crate::config::budget::BudgetConfig;
use crate::handling::Hold;

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
    /// The number in the line that was next when the latest request went to see.
    probed_at: u64,
    voice: Voice,
    taken: usize,
    taken_with_body: usize,
    /// When the requests of the last second were sent; empty where no rate is set.
    sent: VecDeque<SystemTime>,
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
            Passage::Closed(wait, hold) => return Some(Outlook::Later(wait, hold)),
            Passage::Probing(hold) => return Some(Outlook::WhenOneEnds(hold)),
            Passage::Free => {}
        }
        let is_full = caps.concurrent <= self.taken
            || (load == Load::WithBody && caps.with_body <= self.taken_with_body);
        if is_full {
            return Some(Outlook::WhenOneEnds(Hold::Capacity));
        }
        if caps.per_second == 0 || self.sent.len() < caps.per_second {
            return None;
        }
        let next = *self.sent.front()? + Duration::from_secs(1);
        let wait = next.duration_since(now).ok().filter(|wait| !wait.is_zero())?;
        Some(Outlook::Later(wait, Hold::Rate))
    }

    /// Counts a request that is sent now; `next_number` is that of whoever comes next to the line.
    pub fn take_off(&mut self, load: Load, next_number: u64, (caps, now): (&Caps, SystemTime)) {
        if self.breaker.take_off() == Errand::Probe {
            self.probed_at = next_number;
        }
        self.taken += 1;
        self.taken_with_body += usize::from(load == Load::WithBody);
        if caps.per_second > 0 {
            if self.sent.len() == caps.per_second {
                self.sent.pop_front();
            }
            self.sent.push_back(now);
        }
    }

    /// Gives back a place among the requests at a time.
    pub fn give_back(&mut self, load: Load) {
        self.taken = self.taken.saturating_sub(1);
        self.taken_with_body = self.taken_with_body.saturating_sub(usize::from(load == Load::WithBody));
    }

    /// Learns from an answer what it tells of the upstream as a whole.
    pub fn listen(&mut self, seen: &Observation) {
        if seen.outcome != Outcome::Failed {
            self.breaker.succeed();
        }
        self.clock.observe(seen.date, seen.received);
        self.voice = match (self.voice, seen.fields, seen.outcome) {
            (_, Some(_), _) | (Voice::Heard, ..) => Voice::Heard,
            (Voice::Silent(answers), None, Outcome::Answered) => Voice::Silent(answers.saturating_add(1)),
            (silent @ Voice::Silent(_), None, Outcome::Refused | Outcome::Failed) => silent,
        };
    }

    /// Notes that a request has failed. `jitter` is by how much later than it could it is asked again.
    pub fn fail(&mut self, now: SystemTime, jitter: Duration) {
        self.breaker.fail(now, jitter);
    }

    /// Notes that a request was given up.
    pub fn abandon(&mut self, now: SystemTime) {
        self.breaker.abandon(now);
    }

    /// Returns whether it is left alone after failures.
    pub fn is_broken(&self) -> bool {
        self.breaker.is_closed()
    }

    /// Returns whether a request has gone to see whether it works again.
    pub fn is_probing(&self) -> bool {
        self.breaker.is_probing()
    }

    /// Returns the number in the line that was next when the latest request went to see.
    pub fn probed_at(&self) -> u64 {
        self.probed_at
    }

    /// Returns how many requests are under way.
    pub fn taken(&self) -> usize {
        self.taken
    }
}

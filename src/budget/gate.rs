//! Closes what has been refused or keeps failing, and finds out when it works again. Pure.
//!
//! A 429 closes a gate until it is over; a run of failures closes it for a while. Then one request goes to see, and the
//! others wait for what becomes of it. The same gate stands before one limit, one route, and one upstream as a whole.
//!
//! Invariants: while it is closed nothing passes, and never more than one request goes to see.
//! Not here: what counts as a failure, and for which gate (`budget::account`, `budget::scheduler`).

use std::time::{Duration, SystemTime};

use crate::handling::Hold;

/// Failures in a row that close it.
const RUN: u32 = 5;

/// How long it is closed that nobody told the end of: the first time, and at the most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_AFTER_FAILURES: Duration = Duration::from_secs(5);
const LONGEST_AFTER_REFUSALS: Duration = Duration::from_secs(30);

/// A gate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gate(State);

#[derive(Debug, Clone, Copy)]
enum State {
    Open { failures: u32 },
    Closed { until: SystemTime, strikes: u32, hold: Hold },
    Probing { strikes: u32, hold: Hold },
}

impl Default for State {
    fn default() -> Self {
        Self::Open { failures: 0 }
    }
}

/// Whether a request may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// It may.
    Free,
    /// Not before so long.
    Closed(Duration, Hold),
    /// Not before the one that went to see is back.
    Probing(Hold),
}

impl Gate {
    /// Says whether a request may pass at `now`.
    pub fn passage(&self, now: SystemTime) -> Passage {
        match self.0 {
            State::Open { .. } => Passage::Free,
            State::Closed { until, hold, .. } => match until.duration_since(now) {
                Ok(left) if !left.is_zero() => Passage::Closed(left, hold),
                Ok(_) | Err(_) => Passage::Free,
            },
            State::Probing { hold, .. } => Passage::Probing(hold),
        }
    }

    /// Notes that a request passes; whether it goes to see.
    pub fn take_off(&mut self) -> Errand {
        match self.0 {
            State::Closed { strikes, hold, .. } => {
                self.0 = State::Probing { strikes, hold };
                Errand::Probe
            }
            State::Open { .. } | State::Probing { .. } => Errand::Plain,
        }
    }

    /// Notes that a request was answered. One that passed before it was closed does not open it.
    pub fn succeed(&mut self) {
        match self.0 {
            State::Open { .. } | State::Probing { .. } => self.0 = State::default(),
            State::Closed { .. } => {}
        }
    }

    /// Notes that a request has failed. `jitter` is by how much later than it could it opens.
    pub fn fail(&mut self, now: SystemTime, jitter: Duration) {
        let close = |strikes| State::Closed {
            until: now + pause(strikes).min(LONGEST_AFTER_FAILURES) + jitter,
            strikes,
            hold: Hold::Breaker,
        };
        self.0 = match self.0 {
            State::Open { failures } if failures + 1 < RUN => State::Open { failures: failures + 1 },
            State::Open { .. } => close(0),
            State::Probing { strikes, .. } => close(strikes.saturating_add(1)),
            // One that was under way before.
            still @ State::Closed { .. } => still,
        };
    }

    /// Notes that a request was refused, for as long as `told` where that is known.
    pub fn refuse(&mut self, now: SystemTime, told: Option<Duration>, jitter: Duration) {
        let strikes = match self.0 {
            State::Open { .. } => 0,
            State::Closed { strikes, .. } => strikes,
            State::Probing { strikes, .. } => strikes.saturating_add(1),
        };
        let wait = told.unwrap_or_else(|| pause(strikes).min(LONGEST_AFTER_REFUSALS));
        let until = match self.0 {
            // Those that were under way together are refused together: the latest end counts.
            State::Closed { until, .. } => until.max(now + wait + jitter),
            State::Open { .. } | State::Probing { .. } => now + wait + jitter,
        };
        self.0 = State::Closed { until, strikes, hold: Hold::Gate };
    }

    /// Notes that a request was given up, which says nothing: if it went to see, another one may.
    pub fn abandon(&mut self, now: SystemTime) {
        if let State::Probing { strikes, hold } = self.0 {
            self.0 = State::Closed { until: now, strikes, hold };
        }
    }

    /// Returns whether it is closed, or somebody has gone to see.
    pub fn is_closed(&self) -> bool {
        !matches!(self.0, State::Open { .. })
    }

    /// Returns whether somebody has gone to see.
    pub fn is_probing(&self) -> bool {
        matches!(self.0, State::Probing { .. })
    }

    /// Returns whether it can be forgotten at `now`: it is open, or would let somebody go to see.
    pub fn is_idle(&self, now: SystemTime) -> bool {
        self.passage(now) == Passage::Free
    }
}

/// What a request that passes a gate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Itself.
    Plain,
    /// To see whether the gate can be opened.
    Probe,
}

fn pause(strikes: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << strikes.min(8))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000 + seconds)
    }

    fn closed_for(seconds: u64, hold: Hold) -> Passage {
        Passage::Closed(Duration::from_secs(seconds), hold)
    }

    fn failed() -> Gate {
        let mut gate = Gate::default();
        (0..RUN).for_each(|_| gate.fail(at(0), Duration::ZERO));
        gate
    }

    #[test]
    fn a_run_of_failures_closes_it_and_an_answer_between_ends_the_run() {
        let mut gate = Gate::default();
        for _ in 0..3 {
            (1..RUN).for_each(|_| gate.fail(at(0), Duration::ZERO));
            assert_eq!(gate.passage(at(0)), Passage::Free);
            gate.succeed();
        }
        assert_eq!(failed().passage(at(0)), closed_for(1, Hold::Breaker));
    }

    #[test]
    fn one_request_goes_to_see_and_the_pauses_grow() {
        let mut gate = failed();
        let mut now = 1;
        for pause in [2, 4, 5, 5] {
            assert_eq!(gate.passage(at(now)), Passage::Free);
            assert_eq!(gate.take_off(), Errand::Probe);
            assert_eq!(gate.passage(at(now)), Passage::Probing(Hold::Breaker));
            gate.fail(at(now), Duration::ZERO);
            assert_eq!(gate.passage(at(now)), closed_for(pause, Hold::Breaker));
            now += pause;
        }
        gate.take_off();
        gate.succeed();
        assert!(!gate.is_closed());
        assert_eq!((gate.passage(at(now)), gate.take_off()), (Passage::Free, Errand::Plain));
    }

    #[test]
    fn a_refusal_closes_it_at_once_until_it_is_over_and_the_jitter_too() {
        let mut gate = Gate::default();
        gate.refuse(at(0), Some(Duration::from_secs(3)), Duration::from_secs(1));
        assert_eq!(gate.passage(at(0)), closed_for(4, Hold::Gate));
        assert_eq!(gate.passage(at(4)), Passage::Free);
    }

    #[test]
    fn of_those_that_are_refused_together_the_latest_end_counts() {
        let mut gate = Gate::default();
        gate.refuse(at(0), Some(Duration::from_secs(3)), Duration::ZERO);
        gate.refuse(at(1), Some(Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(gate.passage(at(1)), closed_for(2, Hold::Gate));
    }

    #[test]
    fn refusals_of_which_nobody_tells_the_end_close_it_ever_longer_up_to_half_a_minute() {
        let mut gate = Gate::default();
        let mut now = 0;
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(gate.passage(at(now)), Passage::Free);
            gate.take_off();
            gate.refuse(at(now), None, Duration::ZERO);
            assert_eq!(gate.passage(at(now)), closed_for(pause, Hold::Gate));
            now += pause;
        }
    }

    #[test]
    fn what_passed_before_neither_opens_it_nor_closes_it_longer() {
        let mut gate = failed();
        gate.succeed();
        gate.fail(at(0), Duration::ZERO);
        assert_eq!(gate.passage(at(0)), closed_for(1, Hold::Breaker));
    }

    #[test]
    fn when_the_request_that_went_to_see_is_given_up_another_one_goes() {
        let mut gate = failed();
        gate.take_off();
        gate.abandon(at(1));
        assert_eq!((gate.passage(at(1)), gate.take_off()), (Passage::Free, Errand::Probe));
    }
}

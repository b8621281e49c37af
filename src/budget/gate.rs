//! Closes what has been refused or keeps failing, and finds out when it works again. Pure.
//!
//! A 429 closes a gate until it is over; a run of failures closes it for a while. Then one request goes to see, and the
//! others wait for what becomes of it. The same kind of gate stands before one limit, one route, and one upstream as a whole.
//!
//! Invariants: while it is closed nothing passes; who went to see is told from whoever was under way before, and alone decides
//! whether it opens; one that takes long does not hold up everybody: after a while another one goes.
//! Not here: what counts as a failure, and for which gate (`budget::account`, `budget::scheduler`).

use std::time::{Duration, SystemTime};

use crate::handling::hold::Hold;

/// Failures in a row that close it.
const RUN: u32 = 5;

/// How long it is closed that nobody told the end of: the first time, and at the most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_AFTER_FAILURES: Duration = Duration::from_secs(5);
const LONGEST_AFTER_REFUSALS: Duration = Duration::from_secs(30);

/// How long one request that went to see is waited for before another one goes.
const PATIENCE: Duration = Duration::from_secs(2);

/// A gate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gate(State);

#[derive(Debug, Clone, Copy)]
enum State {
    Open { failures: u32 },
    Closed { until: SystemTime, strikes: u32, hold: Hold },
    Probing { since: SystemTime, strikes: u32, hold: Hold },
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
    /// Not before the one that went to see is back, or so long.
    Probing(Duration, Hold),
}

/// How a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateState {
    /// It is open.
    Open,
    /// It is closed for so long.
    Closed(Duration, Hold),
    /// It was closed for long enough: the next one goes to see.
    Due(Hold),
    /// One has gone to see, and is waited for, for so long at the most.
    Probing(Duration, Hold),
}

/// What a request that passes a gate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Itself.
    Plain,
    /// To see whether the gate can be opened.
    Probe,
}

impl Gate {
    /// Says whether a request may pass at `now`.
    pub fn passage(&self, now: SystemTime) -> Passage {
        let left = |until: SystemTime| until.duration_since(now).ok().filter(|left| !left.is_zero());
        match self.0 {
            State::Open { .. } => Passage::Free,
            State::Closed { until, hold, .. } => {
                left(until).map_or(Passage::Free, |left| Passage::Closed(left, hold))
            }
            State::Probing { since, hold, .. } => {
                left(since + PATIENCE).map_or(Passage::Free, |left| Passage::Probing(left, hold))
            }
        }
    }

    /// Says how it stands at `now`.
    pub fn state(&self, now: SystemTime) -> GateState {
        match (self.passage(now), self.0) {
            (Passage::Closed(left, hold), _) => GateState::Closed(left, hold),
            (Passage::Probing(left, hold), _) => GateState::Probing(left, hold),
            (Passage::Free, State::Open { .. }) => GateState::Open,
            (Passage::Free, State::Closed { hold, .. } | State::Probing { hold, .. }) => GateState::Due(hold),
        }
    }

    /// Notes that a request passes at `now`, and says what for.
    pub fn take_off(&mut self, now: SystemTime) -> Errand {
        let is_free = self.passage(now) == Passage::Free;
        match self.0 {
            State::Closed { strikes, hold, .. } | State::Probing { strikes, hold, .. } if is_free => {
                self.0 = State::Probing { since: now, strikes, hold };
                Errand::Probe
            }
            State::Open { .. } | State::Closed { .. } | State::Probing { .. } => Errand::Plain,
        }
    }

    /// Notes that a request was answered. One that passed before it was closed does not open it.
    pub fn succeed(&mut self, errand: Errand) {
        match (self.0, errand) {
            (State::Open { .. }, _) | (State::Closed { .. } | State::Probing { .. }, Errand::Probe) => {
                self.0 = State::default();
            }
            (State::Closed { .. } | State::Probing { .. }, Errand::Plain) => {}
        }
    }

    /// Notes that a request has failed. `jitter` is by how much later than it could it opens.
    pub fn fail(&mut self, errand: Errand, now: SystemTime, jitter: Duration) {
        let close = |strikes| State::Closed {
            until: now + pause(strikes).min(LONGEST_AFTER_FAILURES) + jitter,
            strikes,
            hold: Hold::Breaker,
        };
        self.0 = match (self.0, errand) {
            (State::Open { failures }, _) if failures + 1 < RUN => State::Open { failures: failures + 1 },
            (State::Open { .. }, _) => close(0),
            (State::Probing { strikes, .. }, Errand::Probe) => close(strikes.saturating_add(1)),
            // Those that were under way before.
            (still @ (State::Probing { .. } | State::Closed { .. }), _) => still,
        };
    }

    /// Notes that a request was refused, for as long as `told` where that is known.
    pub fn refuse(&mut self, errand: Errand, (now, told): (SystemTime, Option<Duration>), jitter: Duration) {
        let strikes = match (self.0, errand) {
            (State::Open { .. }, _) => 0,
            (State::Closed { strikes, .. }, _) => strikes,
            (State::Probing { strikes, .. }, Errand::Probe) => strikes.saturating_add(1),
            // It was under way before.
            (State::Probing { .. }, Errand::Plain) => return,
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
    pub fn abandon(&mut self, errand: Errand, now: SystemTime) {
        if let (State::Probing { strikes, hold, .. }, Errand::Probe) = (self.0, errand) {
            self.0 = State::Closed { until: now, strikes, hold };
        }
    }

    /// Returns whether it is closed, or somebody has gone to see.
    pub fn is_closed(&self) -> bool {
        !matches!(self.0, State::Open { .. })
    }

    /// Returns whether somebody may pass at `now`: it is open, or would let somebody go to see.
    pub fn is_free(&self, now: SystemTime) -> bool {
        self.passage(now) == Passage::Free
    }
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
        (0..RUN).for_each(|_| gate.fail(Errand::Plain, at(0), Duration::ZERO));
        gate
    }

    #[test]
    fn it_tells_how_it_stands_at_every_moment() {
        let mut gate = Gate::default();
        assert_eq!(gate.state(at(0)), GateState::Open);
        gate.refuse(Errand::Plain, (at(0), Some(Duration::from_secs(9))), Duration::ZERO);
        assert_eq!(gate.state(at(4)), GateState::Closed(Duration::from_secs(5), Hold::Gate));
        assert_eq!(gate.state(at(9)), GateState::Due(Hold::Gate));
        assert_eq!(gate.take_off(at(9)), Errand::Probe);
        assert_eq!(gate.state(at(10)), GateState::Probing(Duration::from_secs(1), Hold::Gate));
        assert_eq!(gate.state(at(11)), GateState::Due(Hold::Gate));
        gate.succeed(Errand::Probe);
        assert_eq!(gate.state(at(11)), GateState::Open);
    }

    #[test]
    fn a_run_of_failures_closes_it_and_an_answer_between_ends_the_run() {
        let mut gate = Gate::default();
        for _ in 0..3 {
            (1..RUN).for_each(|_| gate.fail(Errand::Plain, at(0), Duration::ZERO));
            assert_eq!(gate.passage(at(0)), Passage::Free);
            gate.succeed(Errand::Plain);
        }
        assert_eq!(failed().passage(at(0)), closed_for(1, Hold::Breaker));
    }

    #[test]
    fn one_request_goes_to_see_and_the_pauses_grow() {
        let mut gate = failed();
        let mut now = 1;
        for pause in [2, 4, 5, 5] {
            assert_eq!(gate.passage(at(now)), Passage::Free);
            assert_eq!(gate.take_off(at(now)), Errand::Probe);
            assert!(matches!(gate.passage(at(now)), Passage::Probing(_, Hold::Breaker)));
            gate.fail(Errand::Probe, at(now), Duration::ZERO);
            assert_eq!(gate.passage(at(now)), closed_for(pause, Hold::Breaker));
            now += pause;
        }
        gate.take_off(at(now));
        gate.succeed(Errand::Probe);
        assert!(!gate.is_closed());
        assert_eq!((gate.passage(at(now)), gate.take_off(at(now))), (Passage::Free, Errand::Plain));
    }

    #[test]
    fn a_refusal_closes_it_at_once_until_it_is_over_and_the_jitter_too() {
        let mut gate = Gate::default();
        gate.refuse(Errand::Plain, (at(0), Some(Duration::from_secs(3))), Duration::from_secs(1));
        assert_eq!(gate.passage(at(0)), closed_for(4, Hold::Gate));
        assert_eq!(gate.passage(at(4)), Passage::Free);
    }

    #[test]
    fn of_those_that_are_refused_together_the_latest_end_counts() {
        let mut gate = Gate::default();
        gate.refuse(Errand::Plain, (at(0), Some(Duration::from_secs(3))), Duration::ZERO);
        gate.refuse(Errand::Plain, (at(1), Some(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(gate.passage(at(1)), closed_for(2, Hold::Gate));
    }

    #[test]
    fn refusals_of_which_nobody_tells_the_end_close_it_ever_longer_up_to_half_a_minute() {
        let mut gate = Gate::default();
        let mut now = 0;
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(gate.passage(at(now)), Passage::Free);
            let errand = gate.take_off(at(now));
            gate.refuse(errand, (at(now), None), Duration::ZERO);
            assert_eq!(gate.passage(at(now)), closed_for(pause, Hold::Gate));
            now += pause;
        }
    }

    #[test]
    fn what_passed_before_neither_opens_it_nor_closes_it_longer() {
        let mut gate = failed();
        gate.succeed(Errand::Plain);
        gate.fail(Errand::Plain, at(0), Duration::ZERO);
        assert_eq!(gate.passage(at(0)), closed_for(1, Hold::Breaker));
    }

    #[test]
    fn when_the_request_that_went_to_see_is_given_up_another_one_goes() {
        let mut gate = failed();
        let errand = gate.take_off(at(1));
        gate.abandon(errand, at(1));
        assert_eq!((gate.passage(at(1)), gate.take_off(at(1))), (Passage::Free, Errand::Probe));
    }

    #[test]
    fn while_somebody_has_gone_to_see_those_that_were_under_way_before_decide_nothing() {
        let mut gate = failed();
        gate.take_off(at(1));
        gate.succeed(Errand::Plain);
        gate.fail(Errand::Plain, at(1), Duration::ZERO);
        gate.refuse(Errand::Plain, (at(1), None), Duration::ZERO);
        gate.abandon(Errand::Plain, at(1));
        assert!(matches!(gate.passage(at(1)), Passage::Probing(..)));
    }

    #[test]
    fn one_that_takes_long_is_followed_by_another_and_whichever_is_answered_opens_it() {
        let mut gate = failed();
        assert_eq!(gate.take_off(at(1)), Errand::Probe);
        assert_eq!(gate.passage(at(2)), Passage::Probing(Duration::from_secs(1), Hold::Breaker));
        assert_eq!(gate.take_off(at(2)), Errand::Plain);
        assert_eq!((gate.passage(at(3)), gate.take_off(at(3))), (Passage::Free, Errand::Probe));
        gate.fail(Errand::Probe, at(3), Duration::ZERO);
        gate.succeed(Errand::Probe);
        assert!(!gate.is_closed());
    }
}

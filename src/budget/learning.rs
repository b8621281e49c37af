//! How many requests may go while nobody knows whether there is a limit. Pure.
//!
//! One goes, and the others wait for its answer. An answer that says nothing of limits lets four times as many go; three of
//! them mean that there is no limit (self-hosted Sentry). One goes every second in any case: that is within the smallest
//! limit that Sentry is known to have (`sentry-api.md` §2), and one slow answer does not hold up all that a caller asks.
//!
//! Invariant: whoever is held is held for a second at most. Not here: what a known limit allows (`budget::meter`).

use std::time::{Duration, SystemTime};

/// Answers that say nothing of limits, after which there are none.
pub const SILENT_ANSWERS: u32 = 3;

/// How long after the latest request another one goes all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was learned so far: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Learning {
    silent: u32,
    latest: Option<SystemTime>,
    /// Whether the latest was lost, which may have been counted.
    is_lost: bool,
}

impl Learning {
    /// Returns for how long another request is held while so many are under way; `None` where it may go.
    pub fn hold(&self, in_flight: u32, now: SystemTime) -> Option<Duration> {
        if in_flight < 1 << (2 * self.silent) && !self.is_lost {
            return None;
        }
        let waited = now.duration_since(self.latest?).unwrap_or_default();
        PATIENCE.checked_sub(waited).filter(|rest| !rest.is_zero())
    }

    /// Notes that a request is sent.
    pub fn take_off(&mut self, now: SystemTime) {
        self.latest = Some(now);
        self.is_lost = false;
    }

    /// Notes that a request was lost: it may have been counted until now, and nothing was learned.
    pub fn lose(&mut self, now: SystemTime) {
        self.is_lost = true;
        self.latest = Some(now);
    }

    /// Notes an answer that says nothing of limits.
    pub fn note_silence(&mut self) {
        self.silent += 1;
    }

    /// Returns whether enough was silent to know that there are no limits.
    pub fn is_over(&self) -> bool {
        SILENT_ANSWERS <= self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn one_request_goes_and_the_others_are_held_until_it_is_answered_or_takes_long() {
        let mut learning = Learning::default();
        assert_eq!(learning.hold(0, start()), None);
        learning.take_off(start());
        let moment = |milliseconds| start() + Duration::from_millis(milliseconds);
        assert_eq!(learning.hold(1, moment(500)), Some(Duration::from_millis(500)));
        assert_eq!(learning.hold(1, moment(1_000)), None);
        learning.take_off(moment(1_000));
        assert_eq!(learning.hold(2, moment(1_001)), Some(Duration::from_millis(999)));
    }

    #[test]
    fn after_one_that_was_lost_the_next_goes_when_a_second_is_over() {
        let mut learning = Learning::default();
        learning.take_off(start());
        let moment = |milliseconds| start() + Duration::from_millis(milliseconds);
        learning.lose(moment(300));
        assert_eq!(learning.hold(0, moment(400)), Some(Duration::from_millis(900)));
        assert_eq!(learning.hold(0, moment(1_300)), None);
        learning.take_off(moment(1_300));
        assert_eq!(learning.hold(0, moment(1_301)), None);
    }

    #[test]
    fn every_silent_answer_lets_four_times_as_many_go_and_the_third_ends_it() {
        let mut learning = Learning::default();
        learning.take_off(start());
        for allowed in [4, 16] {
            learning.note_silence();
            assert!(!learning.is_over());
            assert_eq!(learning.hold(allowed - 1, start()), None);
            assert_eq!(learning.hold(allowed, start()), Some(PATIENCE));
        }
        learning.note_silence();
        assert!(learning.is_over());
    }
}

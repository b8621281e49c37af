//! A token bucket without tokens: the moment at which it would be full again says all (the generic cell rate algorithm).
//!
//! Invariants: over any time, at most [`BURST`] and one more for each [`INTERVAL`] go through; whoever is turned away
//! takes nothing, and goes through after the time it is told, if nobody else comes.
//! Not here: the clock (`now` is handed in), what counts (`webhooks::intake`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time between two at a steady rate: 20 in a second. A busy organization's issues change some times in a second; what
/// comes oftener is every single error, which nobody reads as fast as that.
pub const INTERVAL: Duration = Duration::from_millis(50);

/// How many may come at once: what Sentry sends when somebody selects a page of issues and resolves them all.
pub const BURST: u32 = 100;

/// How many may go through, and when.
#[derive(Debug)]
pub struct Bucket {
    full_again: SystemTime,
}

impl Bucket {
    /// Makes a full one.
    pub const fn full() -> Self {
        Self { full_again: UNIX_EPOCH }
    }

    /// Lets one through at `now`.
    ///
    /// # Errors
    /// After how long the next one may go through.
    pub fn take(&mut self, now: SystemTime) -> Result<(), Duration> {
        let full_again = self.full_again.max(now) + INTERVAL;
        let missing = full_again.duration_since(now).unwrap_or_default();
        let wait = missing.saturating_sub(INTERVAL * BURST);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.full_again = full_again;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_hours(1) + Duration::from_millis(milliseconds)
    }

    fn drained() -> Bucket {
        let mut bucket = Bucket::full();
        for number in 0..BURST {
            assert_eq!(bucket.take(at(0)), Ok(()), "{number}");
        }
        bucket
    }

    #[test]
    fn a_burst_goes_through_and_the_next_one_waits_for_its_interval() {
        let mut bucket = drained();
        assert_eq!(bucket.take(at(0)), Err(INTERVAL));
        assert_eq!(bucket.take(at(20)), Err(Duration::from_millis(30)));
        assert_eq!(bucket.take(at(50)), Ok(()));
        assert_eq!(bucket.take(at(50)), Err(INTERVAL));
    }

    #[test]
    fn whoever_is_turned_away_takes_nothing() {
        let mut bucket = drained();
        for _ in 0..1_000 {
            assert_eq!(bucket.take(at(10)), Err(Duration::from_millis(40)));
        }
        assert_eq!(bucket.take(at(50)), Ok(()));
    }

    #[test]
    fn it_is_full_again_after_some_time_and_never_more_than_full() {
        let mut bucket = drained();
        let later = at(24 * 3_600 * 1_000);
        for _ in 0..BURST {
            assert_eq!(bucket.take(later), Ok(()));
        }
        assert_eq!(bucket.take(later), Err(INTERVAL));
    }

    #[test]
    fn a_steady_rate_goes_through_for_ever() {
        let mut bucket = drained();
        for number in 1..10_000 {
            assert_eq!(bucket.take(at(50 * number)), Ok(()), "{number}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_lets_nobody_through_early() {
        let mut bucket = drained();
        assert_eq!(bucket.take(UNIX_EPOCH), Err(Duration::from_hours(1) + INTERVAL));
    }
}

//! Has what is stored refreshed in the background, and leaves alone for a while what could not be.
//!
//! A refresh starts only from a live request, once per key at a time. When it brings nothing fresh, the next one waits: a
//! second, doubling up to half a minute. Whoever waits for an answer is not held by that.
//!
//! Invariant: bounded; when there are too many, all pauses are forgotten, which costs a request each.
//! Not here: when a refresh is of use (`cache::freshness`), flying (`proxy::flight`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::cache::key::{CacheKey, KeyHashBuilder};
use crate::metrics::store::RefreshOutcome;
use crate::proxy::flight::{Demand, Itinerary};
use crate::proxy::{Proxy, Target};

/// How long a key is left alone whose refresh has failed: the first time, and at the most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Most keys remembered.
const MOST: usize = 8_192;

/// Keys whose refreshes have failed.
#[derive(Debug, Default)]
pub struct RefreshPauses(Mutex<HashMap<CacheKey, Pause, KeyHashBuilder>>);

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: SystemTime,
    failures: u32,
}

impl RefreshPauses {
    /// Returns whether a key is left alone at `now`.
    pub fn holds(&self, key: CacheKey, now: SystemTime) -> bool {
        let pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.get(&key).is_some_and(|pause| now < pause.until)
    }

    /// Notes how a refresh ended.
    pub fn note(&self, key: CacheKey, outcome: RefreshOutcome, now: SystemTime) {
        let mut pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            RefreshOutcome::Ok => drop(pauses.remove(&key)),
            RefreshOutcome::Failed => {
                if MOST <= pauses.len() {
                    pauses.clear();
                }
                let failures = pauses.get(&key).map_or(0, |pause| pause.failures);
                let wait = FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
                pauses.insert(key, Pause { until: now + wait, failures: failures.saturating_add(1) });
            }
        }
    }
}

impl Proxy {
    /// Has a stored response refreshed, if nobody does already, and it has not just failed. The flight counts how it went.
    pub async fn refresh(&self, target: &Target, demand: Demand) {
        if !self.refresh_pauses().holds(target.primary.key(), self.clock().now()) {
            // The flight needs nobody who waits: leaving the seat cancels nothing.
            drop(self.take_seat(target, demand, None).await);
        }
    }

    /// Notes how a refresh ended.
    fn note_refresh(&self, target: &Target, outcome: RefreshOutcome) {
        self.refresh_pauses().note(target.primary.key(), outcome, self.clock().now());
    }
}

/// A flight, as far as it is a refresh; one that panics has failed, and the key is left alone as after any other failure.
#[derive(Debug)]
pub struct Refresh<'a> {
    proxy: &'a Proxy,
    itinerary: &'a Itinerary,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    InTheAir,
    Landed,
}

impl<'a> Refresh<'a> {
    /// Begins with a flight's taking off.
    pub const fn begin(proxy: &'a Proxy, itinerary: &'a Itinerary) -> Self {
        Self { proxy, itinerary, stage: Stage::InTheAir }
    }

    /// Counts how it ended, where it was one.
    pub fn end(mut self, outcome: RefreshOutcome) {
        self.note(outcome);
    }

    fn note(&mut self, outcome: RefreshOutcome) {
        self.stage = Stage::Landed;
        let flights = &self.proxy.metrics().flights;
        match self.itinerary.demand {
            Demand::Refreshment => flights.refreshed(outcome),
            Demand::RefreshAhead => flights.refreshed_ahead(outcome),
            Demand::Freshness | Demand::Validation => return,
        }
        self.proxy.note_refresh(&self.itinerary.target, outcome);
    }
}

impl Drop for Refresh<'_> {
    fn drop(&mut self) {
        if self.stage == Stage::InTheAir && thread::panicking() {
            self.note(RefreshOutcome::Failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::{KeyHasher, PrimaryKey};
    use crate::testing::{SUBJECT, TOKEN, asked, start};

    #[test]
    fn what_could_not_be_refreshed_is_left_alone_ever_longer_until_it_is() {
        let key = PrimaryKey::of(&asked(SUBJECT, &[TOKEN]), "sentry.io", &KeyHasher::new([3; 16])).key();
        let pauses = RefreshPauses::default();
        let mut now = start();
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert!(!pauses.holds(key, now));
            pauses.note(key, RefreshOutcome::Failed, now);
            let end = now + Duration::from_secs(seconds);
            assert!(pauses.holds(key, end - Duration::from_millis(1)) && !pauses.holds(key, end));
            now = end;
        }
        pauses.note(key, RefreshOutcome::Failed, now);
        pauses.note(key, RefreshOutcome::Ok, now);
        assert!(!pauses.holds(key, now));
    }
}

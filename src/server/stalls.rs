//! Finds answers that an HTTP/2 peer does not let go out: it opens no window for them, and holds them for as long as it likes
//! (CVE-2019-9517).
//!
//! Time is cut into periods. Each answer belongs to the period in which it last went on, or to none while it waits for what
//! is still to come from upstream. An answer of the period before last has stood still for a whole one.
//!
//! Invariants: an answer that waits for upstream never counts; nothing is kept but numbers. Not here: the length of a period,
//! what follows (`server::connection`); HTTP/1.1, whose writes are watched where they happen (`server::transport`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Periods that are told apart: this one, the last one, the one before, and the next one.
const PERIODS: usize = 4;

/// The answers of one connection.
#[derive(Debug, Default)]
pub struct Stalls {
    period: AtomicUsize,
    answers: [AtomicUsize; PERIODS],
}

impl Stalls {
    /// Begins another period; returns whether an answer has stood still through all of the last one.
    pub fn advance(&self) -> bool {
        let ended = self.period.fetch_add(1, Ordering::Relaxed);
        let before = ended.wrapping_sub(1);
        self.of(before).load(Ordering::Relaxed) > 0
    }

    fn of(&self, period: usize) -> &AtomicUsize {
        let [first, second, third, fourth] = &self.answers;
        match period % PERIODS {
            0 => first,
            1 => second,
            2 => third,
            _ => fourth,
        }
    }
}

/// How one answer goes on.
#[derive(Debug)]
pub struct Progress {
    stalls: Arc<Stalls>,
    /// The period it belongs to.
    period: Option<usize>,
}

impl Progress {
    /// Begins with an answer that is ready to go out.
    pub fn begin(stalls: Arc<Stalls>) -> Self {
        let mut progress = Self { stalls, period: None };
        progress.go_on();
        progress
    }

    /// Notes that some of the answer goes out.
    pub fn go_on(&mut self) {
        let now = self.stalls.period.load(Ordering::Relaxed);
        if self.period != Some(now) {
            self.leave();
            self.stalls.of(now).fetch_add(1, Ordering::Relaxed);
            self.period = Some(now);
        }
    }

    /// Notes that the answer waits for more of itself.
    pub fn wait(&mut self) {
        self.leave();
    }

    fn leave(&mut self) {
        if let Some(period) = self.period.take() {
            self.stalls.of(period).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_stands_still_for_a_whole_period_is_found() {
        let stalls = Arc::new(Stalls::default());
        let answer = Progress::begin(Arc::clone(&stalls));
        assert!(!stalls.advance(), "it began in this period");
        assert!(stalls.advance());
        drop(answer);
        assert!(!stalls.advance());
    }

    #[test]
    fn an_answer_that_goes_on_or_waits_for_upstream_is_not() {
        let stalls = Arc::new(Stalls::default());
        let (mut going, mut waiting) =
            (Progress::begin(Arc::clone(&stalls)), Progress::begin(Arc::clone(&stalls)));
        waiting.wait();
        for _ in 0..10 {
            assert!(!stalls.advance());
            going.go_on();
        }
        waiting.go_on();
        assert!(!stalls.advance());
        going.go_on();
        assert!(stalls.advance(), "now it waits for its peer");
    }
}

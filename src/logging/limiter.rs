//! Lets at most so many lines of each kind through, and counts the rest. Pure: the time is handed in.
//!
//! Each kind has a token bucket without tokens: the moment at which it would be full again says all.
//!
//! Invariants: over any time, a kind gets at most `BURST`'s worth of lines and its rate; at most `MOST_KINDS` kinds
//! are told apart, the rest share one bucket; what is left out is counted until it is told.
//! Not here: what makes a kind (`logging::limit`), telling what was left out (`logging::control`).

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

/// How much of its rate a kind may use at once.
pub const BURST: Duration = Duration::from_secs(5);

/// Most kinds that are told apart. There are some hundred in all: messages, and reasons from closed sets.
const MOST_KINDS: usize = 512;

/// What kinds are called that are not told apart.
const FURTHER: &str = "further kinds of lines";

/// What lines of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LineKind {
    /// Where in the source they come from.
    pub place: &'static str,
    /// Why they are written, where they say so; empty where they do not.
    pub reason: String,
}

/// Lines of one kind that were left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suppressed {
    /// Their message.
    pub of: String,
    /// Their reason, or nothing.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// What was let through, and what was not.
#[derive(Debug, Default)]
pub struct Limiter {
    kinds: HashMap<LineKind, Tally>,
    further: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    message: String,
    full_again: Duration,
    suppressed: u64,
}

impl Tally {
    /// Lets one through at `now`, or counts it.
    fn take(&mut self, most_per_second: NonZeroU32, now: Duration) -> bool {
        let full_again = self.full_again.max(now) + Duration::from_secs(1) / most_per_second.get();
        let is_admitted = full_again.saturating_sub(now) <= BURST;
        if is_admitted {
            self.full_again = full_again;
        } else {
            self.suppressed += 1;
        }
        is_admitted
    }

    fn is_idle(&self, now: Duration) -> bool {
        self.full_again <= now && self.suppressed == 0
    }

    /// Takes the count, if there is one.
    fn told(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.suppressed)).filter(|count| *count > 0)
    }
}

impl Limiter {
    /// Returns whether a line may be written at `now`, the time since some moment. `message` is asked once per kind.
    pub fn admits(
        &mut self,
        kind: LineKind,
        most_per_second: NonZeroU32,
        now: Duration,
        message: impl FnOnce() -> String,
    ) -> bool {
        if let Some(tally) = self.kinds.get_mut(&kind) {
            return tally.take(most_per_second, now);
        }
        if MOST_KINDS <= self.kinds.len() {
            self.kinds.retain(|_, tally| !tally.is_idle(now));
        }
        if MOST_KINDS <= self.kinds.len() {
            return self.further.take(most_per_second, now);
        }
        let tally = self.kinds.entry(kind).or_default();
        tally.message = message();
        tally.take(most_per_second, now)
    }

    /// Returns what was left out since it was last asked, by message and reason.
    pub fn take_suppressed(&mut self) -> Vec<Suppressed> {
        let of_kind = |(kind, tally): (&LineKind, &mut Tally)| {
            let count = tally.told()?;
            Some(Suppressed { of: tally.message.clone(), reason: kind.reason.clone(), count })
        };
        let further = self.further.told();
        let further =
            further.map(|count| Suppressed { of: FURTHER.to_owned(), reason: String::new(), count });
        let mut suppressed: Vec<_> = self.kinds.iter_mut().filter_map(of_kind).chain(further).collect();
        suppressed.sort();
        suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: NonZeroU32 = NonZeroU32::new(20).unwrap();

    /// A limiter, and how late it is.
    struct Bench(Limiter, Duration);

    impl Bench {
        fn new() -> Self {
            Self(Limiter::default(), Duration::ZERO)
        }

        /// Writes lines; returns how many went through.
        fn write(&mut self, lines: usize, place: &'static str, reason: &str) -> usize {
            let mut write = || {
                let kind = LineKind { place, reason: reason.to_owned() };
                self.0.admits(kind, RATE, self.1, || format!("message of {place}"))
            };
            (0..lines).map(|_| write()).filter(|admitted| *admitted).count()
        }

        fn wait(&mut self, milliseconds: u64) {
            self.1 += Duration::from_millis(milliseconds);
        }
    }

    fn suppressed(of: &str, reason: &str, count: u64) -> Suppressed {
        Suppressed { of: of.to_owned(), reason: reason.to_owned(), count }
    }

    #[test]
    fn a_burst_goes_through_and_then_the_rate() {
        let mut bench = Bench::new();
        assert_eq!(bench.write(1_000, "a", ""), 100);
        bench.wait(1_000);
        assert_eq!(bench.write(1_000, "a", ""), 20);
        bench.wait(49);
        assert_eq!(bench.write(1, "a", ""), 0);
        bench.wait(1);
        assert_eq!(bench.write(2, "a", ""), 1);
        bench.wait(3_600_000);
        assert_eq!(bench.write(1_000, "a", ""), 100, "never more than the burst");
    }

    #[test]
    fn a_steady_rate_goes_through_for_ever() {
        let mut bench = Bench::new();
        for number in 0..10_000 {
            assert_eq!(bench.write(1, "a", ""), 1, "{number}");
            bench.wait(50);
        }
    }

    #[test]
    fn one_kind_takes_nothing_from_another() {
        let mut bench = Bench::new();
        assert_eq!(bench.write(1_000, "a", "timeout"), 100);
        assert_eq!(bench.write(1_000, "a", "broken"), 100);
        assert_eq!(bench.write(1_000, "b", "timeout"), 100);
    }

    #[test]
    fn what_is_left_out_is_counted_by_kind_and_told_once() {
        let mut bench = Bench::new();
        bench.write(107, "b", "timeout");
        bench.write(103, "a", "timeout");
        bench.write(101, "a", "broken");
        bench.write(100, "c", "");
        let told = [
            suppressed("message of a", "broken", 1),
            suppressed("message of a", "timeout", 3),
            suppressed("message of b", "timeout", 7),
        ];
        assert_eq!(bench.0.take_suppressed(), told);
        assert_eq!(bench.0.take_suppressed(), []);
        bench.write(1, "a", "broken");
        assert_eq!(bench.0.take_suppressed(), [suppressed("message of a", "broken", 1)]);
    }

    #[test]
    fn the_table_is_bounded_and_what_does_not_fit_shares_one_bucket() {
        let mut bench = Bench::new();
        for number in 0..MOST_KINDS {
            assert_eq!(bench.write(1, "a", &number.to_string()), 1);
        }
        let further: usize = (0..1_000).map(|number| bench.write(1, "b", &number.to_string())).sum();
        assert_eq!((further, bench.0.kinds.len()), (100, MOST_KINDS));
        assert_eq!(bench.0.take_suppressed(), [suppressed(FURTHER, "", 900)]);
    }

    #[test]
    fn kinds_that_are_idle_make_room_unless_something_is_to_be_told_of_them() {
        let mut bench = Bench::new();
        bench.write(101, "a", "told");
        for number in 1..MOST_KINDS {
            bench.write(1, "a", &number.to_string());
        }
        bench.wait(60_000);
        assert_eq!(bench.write(1, "b", "new"), 1);
        assert_eq!(bench.0.kinds.len(), 2);
        assert_eq!(bench.0.take_suppressed(), [suppressed("message of a", "told", 1)]);
    }
}

//! The last hours, in a fixed amount of memory: what was counted in each interval, and the sums of any stretch of them.
//!
//! Invariant: the memory is taken when the history begins and never grows.
//! Not here: when samples are taken (`admin::dashboard`), how they are drawn (`admin::dashboard::panels`). `now` is an argument.

use std::time::{Duration, SystemTime};

use crate::admin::dashboard::reading::{BUCKET_COUNT, Reading};
use crate::handling::Handling;
use crate::metrics::BUCKETS;
use crate::metrics::closed::ClosedLabel as _;
use crate::metrics::upstream::UpstreamOutcome;

/// How long one interval is.
pub const INTERVAL: Duration = Duration::from_secs(INTERVAL_SECONDS as u64);

/// How many intervals are kept: six hours of them.
pub const KEPT: usize = 6 * 3_600 / INTERVAL_SECONDS;

const INTERVAL_SECONDS: usize = 5;

/// What was counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Requests answered from the store.
    pub reused: u64,
    /// Requests forwarded.
    pub forwarded: u64,
    /// Requests that the proxy answered with an error of its own.
    pub refused: u64,
    /// Requests answered without one upstream.
    pub saved: u64,
    /// Requests sent upstream.
    pub upstream: u64,
    /// Those of them that were refused by a 429.
    pub upstream_refused: u64,
    /// Those of them that failed.
    pub upstream_failed: u64,
    /// How long what was reused took.
    pub reuse: Latency,
    /// How long what was forwarded took.
    pub forward: Latency,
}

/// How many took how long, by the buckets of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency([u64; BUCKET_COUNT]);

impl Totals {
    /// Reads what was counted.
    pub fn of(reading: &Reading) -> Self {
        let handled = |handling| reading.count("sentrybox_requests_total", &[("handling", handling)]);
        let sent = |outcome: UpstreamOutcome| {
            reading.count("sentrybox_upstream_requests_total", &[("outcome", outcome.label())])
        };
        let took = |handling| {
            Latency(reading.buckets("sentrybox_request_duration_seconds", &[("handling", handling)]))
        };
        let (forwarded, refused) = (handled("forward"), handled("refuse"));
        let answered = reading.count("sentrybox_requests_total", &[]);
        Self {
            reused: answered.saturating_sub(forwarded).saturating_sub(refused),
            forwarded,
            refused,
            saved: reading.count("sentrybox_saved_requests_total", &[]),
            upstream: reading.count("sentrybox_upstream_requests_total", &[]),
            upstream_refused: sent(UpstreamOutcome::RateLimited),
            upstream_failed: UpstreamOutcome::FAILURES.into_iter().map(sent).sum(),
            reuse: Handling::REUSES
                .into_iter()
                .fold(Latency::default(), |sum, reuse| sum.plus(took(reuse.label()))),
            forward: took("forward"),
        }
    }

    /// Returns all that were answered.
    pub fn answered(&self) -> u64 {
        self.reused + self.forwarded + self.refused
    }

    /// Combines each count with that of another one.
    fn combined(self, other: Self, combine: impl Fn(u64, u64) -> u64 + Copy) -> Self {
        Self {
            reused: combine(self.reused, other.reused),
            forwarded: combine(self.forwarded, other.forwarded),
            refused: combine(self.refused, other.refused),
            saved: combine(self.saved, other.saved),
            upstream: combine(self.upstream, other.upstream),
            upstream_refused: combine(self.upstream_refused, other.upstream_refused),
            upstream_failed: combine(self.upstream_failed, other.upstream_failed),
            reuse: self.reuse.combined(other.reuse, combine),
            forward: self.forward.combined(other.forward, combine),
        }
    }

    /// Returns what was counted since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.combined(earlier, u64::saturating_sub)
    }

    /// Returns the sum of both.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        self.combined(more, u64::saturating_add)
    }
}

impl Latency {
    fn combined(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let mut combined = [0; BUCKET_COUNT];
        let pairs = self.0.into_iter().zip(other.0);
        for (sum, (one, another)) in combined.iter_mut().zip(pairs) {
            *sum = combine(one, another);
        }
        Self(combined)
    }

    fn plus(self, more: Self) -> Self {
        self.combined(more, u64::saturating_add)
    }

    /// Returns the duration that so many in a thousand did not exceed, in seconds: evenly spread within a bucket, as
    /// Prometheus takes them to be. `None` where nothing was counted.
    pub fn quantile(&self, per_mille: u32) -> Option<f64> {
        let all: u64 = self.0.iter().sum();
        let rank = float(all) * f64::from(per_mille) / 1000.0;
        let mut below = 0;
        let bounds = [0.0].into_iter().chain(BUCKETS).zip(BUCKETS);
        for ((lower, upper), count) in bounds.zip(self.0) {
            if count > 0 && float(below + count) >= rank {
                return Some(lower + (upper - lower) * (rank - float(below)).max(0.0) / float(count));
            }
            below += count;
        }
        // Longer than the last bound: nobody knows by how much.
        (all > 0).then_some(BUCKETS.last().copied()).flatten()
    }
}

/// Returns a count as a number to reckon with; beyond 2³² the first digits have to do.
pub fn float(count: u64) -> f64 {
    let upper = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let lower = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(upper) * 4_294_967_296.0 + f64::from(lower)
}

/// What was counted in one interval.
#[derive(Debug, Clone, Copy)]
struct Sample {
    end: SystemTime,
    counted: Totals,
}

/// The last hours.
#[derive(Debug)]
pub struct History {
    samples: Vec<Sample>,
    /// Where the next one goes, once all places are taken.
    next: usize,
    last: Totals,
}

/// What was counted in a part of a stretch of time.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// When the part ends.
    pub end: SystemTime,
    /// What was counted; nothing where no sample was taken.
    pub counted: Option<Totals>,
}

impl History {
    /// Begins with what is counted already.
    pub fn begin(totals: Totals) -> Self {
        Self { samples: Vec::with_capacity(KEPT), next: 0, last: totals }
    }

    /// Adds what was counted since the last time.
    pub fn note(&mut self, totals: Totals, now: SystemTime) {
        let sample = Sample { end: now, counted: totals.since(self.last) };
        self.last = totals;
        if self.samples.len() < KEPT {
            self.samples.push(sample);
        } else if let Some(oldest) = self.samples.get_mut(self.next) {
            *oldest = sample;
            self.next = (self.next + 1) % KEPT;
        }
    }

    /// Divides the time from `span` ago until `now` into `count` columns.
    pub fn columns(&self, span: Duration, count: u32, now: SystemTime) -> Vec<Column> {
        let width = span / count.max(1);
        let begin = now.checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH);
        let column = |number: u32| Column { end: begin + width * (number + 1), counted: None };
        let mut columns: Vec<Column> = (0..count).map(column).collect();
        for sample in &self.samples {
            // What ended just when the first part begins was counted before it.
            let since = sample.end.duration_since(begin).unwrap_or_default().as_nanos().checked_sub(1);
            let number = since.and_then(|since| usize::try_from(since / width.as_nanos().max(1)).ok());
            if let Some(column) = number.and_then(|number| columns.get_mut(number)) {
                let sum = column.counted.unwrap_or_default().plus(sample.counted);
                column.counted = Some(sum);
            }
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn reused(count: u64) -> Totals {
        Totals { reused: count, ..Totals::default() }
    }

    #[test]
    fn each_interval_holds_what_was_counted_in_it() {
        let mut history = History::begin(reused(100));
        for (seconds, total) in [(5, 110), (10, 110), (15, 140)] {
            history.note(reused(total), at(seconds));
        }
        let counted = |span: u64, count| {
            let columns = history.columns(Duration::from_secs(span), count, at(15));
            columns.iter().map(|column| column.counted.map(|sum| sum.reused)).collect::<Vec<_>>()
        };
        assert_eq!(counted(15, 3), [Some(10), Some(0), Some(30)]);
        assert_eq!(counted(30, 2), [None, Some(40)]);
        assert_eq!(counted(10, 1), [Some(30)]);
    }

    #[test]
    fn the_oldest_makes_room_and_the_memory_stays_the_same() {
        let mut history = History::begin(Totals::default());
        let capacity = history.samples.capacity();
        for number in 1..=u64::try_from(KEPT).unwrap() + 3 {
            history.note(reused(number), at(number * 5));
        }
        assert_eq!((history.samples.len(), history.samples.capacity()), (KEPT, capacity));
        let now = at((u64::try_from(KEPT).unwrap() + 3) * 5);
        let [all] = history.columns(Duration::from_hours(7), 1, now)[..] else { panic!("one column") };
        assert_eq!(all.counted.unwrap().reused, u64::try_from(KEPT).unwrap());
        let bytes = KEPT * size_of::<Sample>();
        assert!(bytes < 2 * 1024 * 1024, "{bytes}");
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(500), None);
        latency.0[1] = 100;
        let micros =
            |latency: &Latency, per_mille| latency.quantile(per_mille).map(|seconds| (seconds * 1e6).round());
        assert_eq!(micros(&latency, 500), Some(75.0));
        latency.0[BUCKET_COUNT - 1] = 100;
        assert_eq!(micros(&latency, 990), Some(60_000_000.0));
        assert_eq!(micros(&latency, 500), Some(100.0));
    }
}

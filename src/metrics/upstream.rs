//! Counts what upstream was asked.
//!
//! Invariant: [`InFlight`] gives its place back however the request ends.
//! Not here: limits (`budget`), sending (`upstream`).

use std::time::Duration;

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::metrics::closed::{ClosedLabel, PerValue};
use crate::metrics::{counter, durations};

/// How a request sent upstream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamOutcome {
    /// An answer with a 2xx status code, or an interim one.
    Success,
    /// An answer with a 3xx status code.
    Redirection,
    /// An answer with a 4xx status code other than 429.
    ClientError,
    /// 429: upstream's limit was reached.
    RateLimited,
    /// An answer with a 5xx status code.
    ServerError,
    /// No connection could be made.
    Unreachable,
    /// No answer came in time.
    Timeout,
    /// The answer, or the connection under it, was broken.
    Broken,
}

impl UpstreamOutcome {
    /// How a request fails, as opposed to being refused or answered.
    pub const FAILURES: [Self; 4] = [Self::ServerError, Self::Unreachable, Self::Timeout, Self::Broken];

    /// Returns the outcome of a request that was answered with `status`.
    pub fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            0..300 => Self::Success,
            300..400 => Self::Redirection,
            429 => Self::RateLimited,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }
}

impl ClosedLabel for UpstreamOutcome {
    const NAME: &'static str = "outcome";
    const ALL: &'static [Self] = &[
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::RateLimited,
        Self::ServerError,
        Self::Unreachable,
        Self::Timeout,
        Self::Broken,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::RateLimited => "429",
            Self::ServerError => "5xx",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        }
    }
}

/// What upstream was asked.
#[derive(Debug)]
pub struct UpstreamMetrics {
    requests: PerValue<UpstreamOutcome, Counter>,
    in_flight: Gauge,
    duration: Histogram,
    wait: Histogram,
    retries: Counter,
    repeats: Counter,
}

impl UpstreamMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "Requests sent upstream, and how their answers began";
        let requests = PerValue::register(registry, "upstream_requests", help);
        let in_flight = Gauge::default();
        registry.register("upstream_in_flight", "Requests upstream at this moment", in_flight.clone());
        let duration = durations();
        let help = "Time from sending upstream to its answer's head";
        registry.register_with_unit("upstream_duration", help, Unit::Seconds, duration.clone());
        let wait = durations();
        let help = "Time queued for upstream capacity";
        registry.register_with_unit("upstream_wait", help, Unit::Seconds, wait.clone());
        let retries =
            counter(registry, "upstream_retries", "Requests sent again after a pooled connection was dead");
        let help = "Requests sent again after upstream refused or failed";
        let repeats = counter(registry, "upstream_repeats", help);
        Self { requests, in_flight, duration, wait, retries, repeats }
    }

    /// Counts a request as upstream until the returned guard is dropped.
    pub fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Records how a request sent upstream ended, and how long its answer's head took.
    pub fn observe(&self, outcome: UpstreamOutcome, elapsed: Duration) {
        self.requests.increment(outcome);
        self.duration.observe(elapsed.as_secs_f64());
    }

    /// Records how long a request queued for upstream capacity.
    pub fn waited(&self, elapsed: Duration) {
        self.wait.observe(elapsed.as_secs_f64());
    }

    /// Counts a request that is sent again because upstream refused or failed.
    pub fn repeated(&self) {
        self.repeats.inc();
    }

    /// Counts a request that was sent again after a pooled connection was dead.
    pub fn retried(&self) {
        self.retries.inc();
    }
}

/// A request that is upstream for as long as this lives.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_follows_the_status_and_429_stands_apart() {
        let outcome = |code| UpstreamOutcome::of_status(StatusCode::from_u16(code).unwrap());
        assert_eq!(outcome(204), UpstreamOutcome::Success);
        assert_eq!(outcome(304), UpstreamOutcome::Redirection);
        assert_eq!(outcome(404), UpstreamOutcome::ClientError);
        assert_eq!(outcome(429), UpstreamOutcome::RateLimited);
        assert_eq!(outcome(503), UpstreamOutcome::ServerError);
    }

    #[test]
    fn a_request_leaves_upstream_when_its_guard_is_dropped() {
        let metrics = UpstreamMetrics::register(&mut Registry::default());
        let guard = metrics.begin();
        assert_eq!(metrics.in_flight.get(), 1);
        drop(guard);
        assert_eq!(metrics.in_flight.get(), 0);
    }
}

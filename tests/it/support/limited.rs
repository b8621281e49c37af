//! A Sentry that counts: so many requests per fixed second and so many at a time, for each credential and method.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sentrybox::clock::Clock;
use tokio::time::sleep;

use crate::support::scripted::{Act, Received};

/// The Sentry; clones are the same.
#[derive(Clone)]
pub(crate) struct LimitedSentry(Arc<Mutex<State>>);

struct State {
    clock: Clock,
    /// By how much its clock is ahead of ours.
    ahead: Duration,
    dates: Dates,
    per_second: u32,
    at_once: usize,
    latency: Duration,
    buckets: HashMap<(String, String), Bucket>,
    refused: Vec<SystemTime>,
}

#[derive(Default)]
struct Bucket {
    window: u64,
    counted: u32,
    ends: Vec<SystemTime>,
}

/// Whether it says what time it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Dates {
    Sent,
    NotSent,
}

impl LimitedSentry {
    /// Makes one that allows so much and takes so long.
    pub(crate) fn new(per_second: u32, at_once: usize, latency: Duration) -> Self {
        Self(Arc::new(Mutex::new(State {
            clock: Clock::start(),
            ahead: Duration::ZERO,
            dates: Dates::Sent,
            per_second,
            at_once,
            latency,
            buckets: HashMap::new(),
            refused: Vec::new(),
        })))
    }

    /// Lives by a clock that is so far ahead, and may keep that to itself.
    pub(crate) fn with_clock(self, ahead: Duration, dates: Dates) -> Self {
        {
            let mut state = self.0.lock().unwrap();
            (state.ahead, state.dates) = (ahead, dates);
        }
        self
    }

    /// Waits until one of its windows has just begun: real time knows when it is, and tests should not.
    pub(crate) async fn begin_a_window(&self) {
        let now = {
            let state = self.0.lock().unwrap();
            (state.clock.now() + state.ahead).duration_since(UNIX_EPOCH).unwrap()
        };
        let into = Duration::from_nanos(now.subsec_nanos().into());
        sleep(Duration::from_millis(1_005).saturating_sub(into)).await;
    }

    /// Allows so much from now on.
    pub(crate) fn allow(&self, per_second: u32) {
        self.0.lock().unwrap().per_second = per_second;
    }

    /// Returns how many requests it has refused since some moment.
    pub(crate) fn refused_since(&self, moment: SystemTime) -> usize {
        self.0.lock().unwrap().refused.iter().filter(|at| moment <= **at).count()
    }

    /// Returns how many requests it has refused.
    pub(crate) fn refused(&self) -> usize {
        self.refused_since(UNIX_EPOCH)
    }

    /// Answers a request, or refuses it.
    pub(crate) fn answer(&self, received: &Received) -> Act {
        let mut state = self.0.lock().unwrap();
        let now = state.clock.now();
        let at_sentry = (now + state.ahead).duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (per_second, at_once, latency) = (state.per_second, state.at_once, state.latency);
        let key = (received.field("authorization").to_owned(), received.method.to_string());
        let bucket = state.buckets.entry(key).or_default();
        if bucket.window != at_sentry {
            (bucket.window, bucket.counted) = (at_sentry, 0);
        }
        bucket.counted += 1;
        bucket.ends.retain(|end| now < *end);
        let is_refused = per_second < bucket.counted || at_once <= bucket.ends.len();
        if !is_refused {
            bucket.ends.push(now + latency);
        }
        let remaining = per_second.saturating_sub(bucket.counted);
        let places = at_once - bucket.ends.len();
        let act = if is_refused {
            state.refused.push(now);
            let detail = format!(
                "You are attempting to use this endpoint too frequently. Limit is {per_second} requests in 1 seconds"
            );
            Act::status(429, serde_json::json!({ "detail": detail }).to_string())
        } else {
            Act::json(format!("\"{}\"", received.target())).after(latency)
        };
        let made = UNIX_EPOCH + Duration::from_secs(at_sentry);
        let act = match state.dates {
            Dates::Sent => act.with("date", &httpdate::fmt_http_date(made)),
            Dates::NotSent => act,
        };
        act.with("x-sentry-rate-limit-limit", &per_second.to_string())
            .with("x-sentry-rate-limit-remaining", &remaining.to_string())
            .with("x-sentry-rate-limit-reset", &(at_sentry + 1).to_string())
            .with("x-sentry-rate-limit-concurrentlimit", &at_once.to_string())
            .with("x-sentry-rate-limit-concurrentremaining", &places.to_string())
    }
}

//! Sentry's limits: so many requests per window of a second, and so many at once, per caller and method.
//!
//! Invariants: a permit gives its place back when dropped; the table holds only buckets of the present window
//! and of requests still in flight. Pure but for the lock: `now` is an argument.
//! Not here: who the caller is (`sandbox::people`), the 429 itself (`sandbox::answer`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;

/// How much a caller may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Requests per window of one second; 0 switches all limiting off, as on a self-hosted server.
    pub per_second: u32,
    /// Requests at once.
    pub at_once: u32,
}

/// Whom a request counts for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Payer {
    /// A user, whichever token is used.
    User(u64),
    /// An address, where no valid token is sent.
    Address(IpAddr),
}

/// The limits and their counters; clones share them.
#[derive(Debug, Clone)]
pub struct Limits {
    ledger: Arc<Mutex<Ledger>>,
}

#[derive(Debug)]
struct Ledger {
    allowance: Allowance,
    buckets: HashMap<Key, Bucket>,
}

type Key = (Payer, Method);

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    window: u64,
    counted: u32,
    in_flight: u32,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// There are no limits, and no fields about them.
    Unlimited,
    /// It may go on; its place is kept as long as the permit lives.
    Admitted(Quota, Permit),
    /// It is one too many.
    Refused(Quota),
}

/// What the five `X-Sentry-Rate-Limit-*` fields say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests left in this window.
    pub remaining: u32,
    /// Requests per window.
    pub limit: u32,
    /// Seconds since the epoch at which the next window starts.
    pub reset: u64,
    /// Places left; absent where the window refused before they were looked at.
    pub concurrent_remaining: Option<u32>,
    /// Places in all.
    pub concurrent_limit: u32,
}

/// A place among the requests at once.
#[derive(Debug)]
pub struct Permit {
    key: Key,
    ledger: Arc<Mutex<Ledger>>,
}

impl Limits {
    /// Starts with nothing counted.
    pub fn new(allowance: Allowance) -> Self {
        Self { ledger: Arc::new(Mutex::new(Ledger { allowance, buckets: HashMap::new() })) }
    }

    /// Changes how much a caller may ask from now on; what is counted stays counted.
    pub fn allow(&self, allowance: Allowance) {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).allowance = allowance;
    }

    /// Counts a request at `now` and says whether it may go on.
    pub fn enter(&self, payer: Payer, method: &Method, now: SystemTime) -> Verdict {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let Ledger { allowance, buckets } = &mut *ledger;
        if allowance.per_second == 0 {
            return Verdict::Unlimited;
        }
        let window = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let key = (payer, method.clone());
        buckets.retain(|_, bucket| bucket.window == window || bucket.in_flight > 0);
        let bucket = buckets.entry(key.clone()).or_default();
        if bucket.window != window {
            (bucket.window, bucket.counted) = (window, 0);
        }
        bucket.counted = bucket.counted.saturating_add(1);
        let quota = allowance.quota(*bucket);
        if bucket.counted > allowance.per_second || bucket.in_flight >= allowance.at_once {
            return Verdict::Refused(quota);
        }
        bucket.in_flight += 1;
        let taken = quota.concurrent_remaining.map(|places| places.saturating_sub(1));
        let quota = Quota { concurrent_remaining: taken, ..quota };
        Verdict::Admitted(quota, Permit { key, ledger: Arc::clone(&self.ledger) })
    }
}

impl Allowance {
    fn quota(self, bucket: Bucket) -> Quota {
        let Self { per_second, at_once } = self;
        let places = at_once.saturating_sub(bucket.in_flight);
        Quota {
            remaining: per_second.saturating_sub(bucket.counted),
            limit: per_second,
            reset: bucket.window.saturating_add(1),
            // The places are looked at only when the window has room.
            concurrent_remaining: (bucket.counted <= per_second).then_some(places),
            concurrent_limit: at_once,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = ledger.buckets.get_mut(&self.key) {
            bucket.in_flight = bucket.in_flight.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    fn limits(per_second: u32, at_once: u32) -> Limits {
        Limits::new(Allowance { per_second, at_once })
    }

    fn quota(verdict: &Verdict) -> Quota {
        match verdict {
            Verdict::Admitted(quota, _) | Verdict::Refused(quota) => *quota,
            Verdict::Unlimited => panic!("limited"),
        }
    }

    #[test]
    fn the_window_is_fixed_and_resets_at_the_full_second() {
        let limits = limits(2, 25);
        let enter = |seconds| limits.enter(Payer::User(1), &Method::GET, at(seconds));
        assert_eq!(quota(&enter(7.2)).remaining, 1);
        assert_eq!(quota(&enter(7.3)).remaining, 0);
        let refused = enter(7.9);
        assert!(matches!(refused, Verdict::Refused(_)));
        let expected =
            Quota { remaining: 0, limit: 2, reset: 8, concurrent_remaining: None, concurrent_limit: 25 };
        assert_eq!(quota(&refused), expected);
        assert!(matches!(enter(8.0), Verdict::Admitted(..)));
    }

    #[test]
    fn places_are_given_back_when_the_permit_is_dropped() {
        let limits = limits(1000, 1);
        let enter = || limits.enter(Payer::User(1), &Method::GET, at(7.0));
        let first = enter();
        assert_eq!(quota(&first).concurrent_remaining, Some(0));
        let second = enter();
        assert!(matches!(second, Verdict::Refused(_)));
        assert_eq!((quota(&second).remaining, quota(&second).concurrent_remaining), (998, Some(0)));
        drop(first);
        assert!(matches!(enter(), Verdict::Admitted(..)));
    }

    #[test]
    fn callers_and_methods_count_apart() {
        let limits = limits(1, 25);
        let enter = |payer, method| limits.enter(payer, &method, at(7.0));
        let address = Payer::Address(IpAddr::from([127, 0, 0, 1]));
        assert!(matches!(enter(Payer::User(1), Method::GET), Verdict::Admitted(..)));
        assert!(matches!(enter(Payer::User(1), Method::GET), Verdict::Refused(_)));
        assert!(matches!(enter(Payer::User(1), Method::PUT), Verdict::Admitted(..)));
        assert!(matches!(enter(Payer::User(2), Method::GET), Verdict::Admitted(..)));
        assert!(matches!(enter(address, Method::GET), Verdict::Admitted(..)));
    }

    #[test]
    fn an_allowance_that_changes_holds_at_once_and_forgets_nothing() {
        let limits = limits(2, 25);
        let enter = || limits.enter(Payer::User(1), &Method::GET, at(7.0));
        let _first = enter();
        limits.allow(Allowance { per_second: 1, at_once: 25 });
        assert!(matches!(enter(), Verdict::Refused(_)));
        limits.allow(Allowance { per_second: 3, at_once: 1 });
        assert!(matches!(enter(), Verdict::Refused(_)));
        limits.allow(Allowance { per_second: 0, at_once: 0 });
        assert!(matches!(enter(), Verdict::Unlimited));
    }

    #[test]
    fn zero_switches_limiting_off() {
        let limits = limits(0, 25);
        assert!(matches!(limits.enter(Payer::User(1), &Method::GET, at(7.0)), Verdict::Unlimited));
    }
}

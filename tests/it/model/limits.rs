//! Sentry's limiter: fixed windows by its own clock, then how many at a time, for each user and method (`sentry-api.md` §2).

use std::collections::HashMap;
use std::time::Duration;

use super::nature::LimitNature;

/// What is counted together: the user (`None` for an address), by method, and whether a route is counted apart.
pub(crate) type BucketName = (Option<usize>, http::Method, bool);

/// A request as the limiter sees it.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    pub(crate) bucket: BucketName,
    pub(crate) limit: LimitNature,
    /// Its number, and which proxy it comes from.
    pub(crate) number: usize,
    pub(crate) epoch: usize,
}

/// What the limiter says.
#[derive(Debug, Clone)]
pub(crate) struct Ruling {
    /// The five fields.
    pub(crate) fields: Vec<(&'static str, String)>,
    /// Whether the request goes on.
    pub(crate) is_admitted: bool,
    /// The other requests that were counted, and their proxies.
    pub(crate) company: Vec<(usize, usize)>,
    /// How many there may be, this one included.
    pub(crate) most: u32,
}

#[derive(Debug, Default)]
struct Bucket {
    window: u64,
    /// The requests that were counted in this window, and their proxies.
    counted: Vec<(usize, usize)>,
    /// The requests under way, and their proxies.
    under_way: Vec<(usize, usize)>,
}

/// All buckets.
#[derive(Debug, Default)]
pub(crate) struct Limiter(HashMap<BucketName, Bucket>);

impl Limiter {
    /// Counts a request that arrives at this moment by Sentry's clock.
    pub(crate) fn count(&mut self, request: &Counted, at: Duration) -> Ruling {
        let Counted { limit, number, epoch, .. } = *request;
        let bucket = self.0.entry(request.bucket.clone()).or_default();
        let window = at.as_secs() / limit.seconds;
        if bucket.window != window {
            (bucket.window, bucket.counted) = (window, Vec::new());
        }
        let company = bucket.counted.clone();
        bucket.counted.push((number, epoch));
        let used = u32::try_from(bucket.counted.len()).unwrap();
        let mut fields = vec![
            ("x-sentry-rate-limit-limit", limit.window.to_string()),
            ("x-sentry-rate-limit-remaining", limit.window.saturating_sub(used).to_string()),
            ("x-sentry-rate-limit-reset", ((window + 1) * limit.seconds).to_string()),
        ];
        if let Some(concurrent) = limit.concurrent {
            fields.push(("x-sentry-rate-limit-concurrentlimit", concurrent.to_string()));
        }
        if used > limit.window {
            return Ruling { fields, is_admitted: false, company, most: limit.window };
        }
        let company = bucket.under_way.clone();
        let present = u32::try_from(company.len()).unwrap() + 1;
        let most = limit.concurrent.unwrap_or(u32::MAX);
        if limit.concurrent.is_some() {
            let left = most.saturating_sub(present).to_string();
            fields.push(("x-sentry-rate-limit-concurrentremaining", left));
        }
        if present <= most {
            bucket.under_way.push((number, epoch));
        }
        Ruling { fields, is_admitted: present <= most, company, most }
    }

    /// Notes that a request has been answered.
    pub(crate) fn release(&mut self, request: &Counted) {
        if let Some(bucket) = self.0.get_mut(&request.bucket) {
            bucket.under_way.retain(|(number, _)| *number != request.number);
        }
    }

    /// Forgets the windows, as after a step of the clock.
    pub(crate) fn forget_windows(&mut self) {
        for bucket in self.0.values_mut() {
            bucket.counted.clear();
        }
    }
}

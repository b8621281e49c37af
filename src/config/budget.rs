//! `[budget]`: how much upstream may be asked. Plain data.
//!
//! Not here: ranges (`config::validate`), what it all does (`budget`, `cache::freshness`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much upstream may be asked.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    /// Whether forwards are limited at all.
    pub enabled: bool,
    /// Longest a request may queue before it is sent upstream.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// Most requests at a time, for each upstream.
    pub max_concurrent: usize,
    /// Most requests that are sent in a second, for each upstream; 0 for any number.
    pub max_per_second: usize,
    /// Most requests that queue.
    pub max_waiting: usize,
    /// How often a safe request is sent again after upstream has failed.
    pub retries: u32,
    /// How many times its lifetime a response may be reused when the budget runs low; 1 for no longer than ever.
    pub max_stretch: u32,
    /// Whether what is asked for again and again is refreshed before it goes stale.
    pub refresh_ahead: bool,
    /// Credentials that Sentry counts together: a name, and their fingerprints.
    pub aliases: BTreeMap<String, Vec<String>>,
}

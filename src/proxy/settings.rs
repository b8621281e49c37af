//! What the operator decided, as far as the corridor itself needs it.
//!
//! Invariant: fixed at the start. Not here: what the other rooms take of the configuration for themselves.

use std::time::Duration;

use crate::cache::policy::FreshnessPolicy;
use crate::config::Config;
use crate::config::cache::{Downstream, InvalidationScope};

/// What the operator decided, as far as the corridor itself needs it.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How freshness is decided.
    pub freshness: FreshnessPolicy,
    /// What clients are told about reuse.
    pub downstream: Downstream,
    /// What a write makes unusable.
    pub invalidation: InvalidationScope,
    /// How long a passenger waits.
    pub flight_timeout: Duration,
    /// How long a credential is believed without a word of upstream.
    pub max_unverified: Duration,
    /// How long a refusal is remembered.
    pub rejection_memory: Duration,
    /// How often a safe request is sent again after upstream has failed.
    pub retries: u32,
    /// Whether region URLs in bodies point back here.
    pub region_urls: bool,
}

impl Settings {
    /// Takes the operator's decisions from the configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            freshness: FreshnessPolicy::new(config),
            downstream: config.cache.downstream,
            invalidation: config.cache.invalidation,
            flight_timeout: config.cache.flight_timeout,
            max_unverified: config.cache.max_unverified,
            rejection_memory: config.cache.rejection_memory,
            retries: config.budget.retries,
            region_urls: config.rewrite.region_urls,
        }
    }
}

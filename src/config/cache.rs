//! `[cache]`: what is stored, and for how long. Plain data.
//!
//! Not here: ranges (`config::validate`), what a class means for a response (`cache::terms`), rules (`routes`).

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::config::size;

/// What is stored, and for how long.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// Most bytes of stored responses, keys and indexes included.
    #[serde(serialize_with = "size::serialize")]
    pub max_bytes: ByteSize,
    /// Largest body that is stored.
    #[serde(serialize_with = "size::serialize")]
    pub max_response_bytes: ByteSize,
    /// Most bytes of bodies on their way into the store at a time.
    #[serde(serialize_with = "size::serialize")]
    pub max_in_flight_bytes: ByteSize,
    /// Which stored response makes room when the store is full.
    pub eviction: Eviction,
    /// Whether requests without a credential share one partition.
    pub anonymous: bool,
    /// Whether clients' `Cache-Control` counts.
    pub client_directives: ClientDirectives,
    /// What clients are told about reuse.
    pub downstream: Downstream,
    /// Whether the built-in rules follow the configured ones.
    pub default_rules: bool,
    /// What an unsafe request invalidates.
    pub invalidation: InvalidationScope,
    /// How long after a write its subjects are fresh for at most a second.
    #[serde(with = "humantime_serde")]
    pub settle: Duration,
    /// How long a 404 or 410 on a route with a class is fresh.
    #[serde(with = "humantime_serde")]
    pub negative_fresh_for: Duration,
    /// How long a credential lives on hits alone before upstream is asked about it.
    #[serde(with = "humantime_serde")]
    pub max_unverified: Duration,
    /// How long a 401 or 403 is told again without asking upstream.
    #[serde(with = "humantime_serde")]
    pub rejection_memory: Duration,
    /// How long a passenger waits for a flight.
    #[serde(with = "humantime_serde")]
    pub flight_timeout: Duration,
    /// Named sets of lifetimes.
    pub classes: BTreeMap<String, ClassConfig>,
    /// Ordered rules: the first whose route matches decides.
    #[serde(default)]
    pub rules: Vec<RuleConfig>,
}

/// Which stored response makes room when the store is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Eviction {
    /// The least recently used one.
    Lru,
    /// The least frequently used one; newcomers may be turned away.
    TinyLfu,
}

/// Whether clients' `Cache-Control` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientDirectives {
    /// RFC 9111 §5.2.1 is obeyed.
    Honour,
    /// They are read as absent.
    Ignore,
}

/// What clients are told about reuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Downstream {
    /// `private, no-cache`: come back and get a cheap 304.
    Revalidate,
    /// `private, max-age` of what is left of the lifetime.
    Lifetime,
}

/// What an unsafe request invalidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InvalidationScope {
    /// What Sentry's writes are known to change, for every credential.
    Sentry,
    /// Only the target, `Location` and `Content-Location` (RFC 9111 §4.4).
    Rfc,
}

/// A named set of lifetimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClassConfig {
    /// Freshness lifetime where upstream states none; absent means RFC 9111 alone, heuristics included.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub fresh_for: Option<Duration>,
    /// How long past its lifetime a response is reused while it is refreshed in the background.
    #[serde(default, with = "humantime_serde")]
    pub stale_while_revalidate: Duration,
    /// How long past its lifetime a response is reused when upstream fails. Absent: not at all, or beside an absent
    /// `fresh_for` RFC 9111 alone, which allows it while upstream is out of reach.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub stale_if_error: Option<Duration>,
}

/// A rule: which routes, and what holds for them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Route template: `{name}` stands for one segment, `{*rest}` for the rest.
    pub route: String,
    /// Class that applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Neither stored nor collapsed.
    #[serde(default)]
    pub never: bool,
    /// Whether the class wins over upstream's own directives.
    #[serde(default, rename = "override")]
    pub overrides: bool,
}

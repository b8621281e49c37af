//! Counts what is stored, what is not, and what was collapsed.
//!
//! Invariant: levels are read from the store itself at each scrape, so they cannot drift.
//! Not here: storing (`cache::store`), flying (`cache::single_flight`).

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

use crate::metrics::closed::{ClosedLabel, PerValue};
use crate::metrics::counter;
use crate::metrics::levels::Levels;

/// Why a stored response left the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionCause {
    /// The store was full.
    Size,
    /// It could not be of use any more: past its lifetime and its stale windows.
    Retention,
    /// A newer one took its place.
    Replaced,
    /// It was removed: unusable, or purged.
    Removed,
}

impl ClosedLabel for EvictionCause {
    const NAME: &'static str = "cause";
    const ALL: &'static [Self] = &[Self::Size, Self::Retention, Self::Replaced, Self::Removed];

    fn label(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Retention => "retention",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
        }
    }
}

/// Why an answer was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStoredReason {
    /// Its body is larger than `cache.max_response_bytes`.
    TooLarge,
    /// `cache.max_in_flight_bytes` was taken.
    NoBudget,
    /// The rules forbid it.
    NotStorable,
    /// Its body broke off.
    Broken,
}

impl ClosedLabel for NotStoredReason {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &[Self::TooLarge, Self::NoBudget, Self::NotStorable, Self::Broken];

    fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::NoBudget => "no-budget",
            Self::NotStorable => "not-storable",
            Self::Broken => "broken",
        }
    }
}

/// Why stored responses became unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidationCause {
    /// An unsafe request.
    Write,
    /// An operator's purge.
    Purge,
    /// A webhook of Sentry's.
    Webhook,
}

impl ClosedLabel for InvalidationCause {
    const NAME: &'static str = "cause";
    const ALL: &'static [Self] = &[Self::Write, Self::Purge, Self::Webhook];

    fn label(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Purge => "purge",
            Self::Webhook => "webhook",
        }
    }
}

/// How a refresh behind a stale answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// What is stored is fresh again.
    Ok,
    /// What is stored stays as it was.
    Failed,
}

impl ClosedLabel for RefreshOutcome {
    const NAME: &'static str = "outcome";
    const ALL: &'static [Self] = &[Self::Ok, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
    }
}

/// What the store holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreLevels {
    /// Weight of all stored responses, keys and indexes included, in bytes.
    pub bytes: u64,
    /// Most that it may be.
    pub max_bytes: u64,
    /// How many responses are stored.
    pub responses: u64,
}

/// Reads the store's levels.
pub type ReadLevels = Box<dyn Fn() -> StoreLevels + Send + Sync>;

/// What is stored.
#[derive(Debug)]
pub struct StoreMetrics {
    levels: Levels<3>,
    insertions: Counter,
    evictions: PerValue<EvictionCause, Counter>,
    not_stored: PerValue<NotStoredReason, Counter>,
    invalidations: PerValue<InvalidationCause, Counter>,
    purged: Counter,
}

impl StoreMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let levels = Levels::register(
            registry,
            [
                ("store", "Weight of what is stored.", Some(Unit::Bytes)),
                ("store_max", "Most weight that may be stored.", Some(Unit::Bytes)),
                ("store_responses", "Responses stored.", None),
            ],
        );
        let help = "Responses that left the store";
        let evictions = PerValue::register(registry, "store_evictions", help);
        Self {
            levels,
            insertions: counter(registry, "store_insertions", "Responses put into the store"),
            evictions,
            not_stored: PerValue::register(registry, "not_stored", "Answers that were not stored"),
            invalidations: PerValue::register(registry, "invalidations", "Invalidations"),
            purged: counter(
                registry,
                "purged",
                "Stored responses that operators' purges made stale or unusable",
            ),
        }
    }

    /// Sets where the levels are read from at each scrape; the first call wins.
    pub fn measure_with(&self, read: ReadLevels) {
        self.levels.read_with(Box::new(move || {
            let StoreLevels { bytes, max_bytes, responses } = read();
            [bytes, max_bytes, responses]
        }));
    }

    /// Counts a response put into the store.
    pub fn inserted(&self) {
        self.insertions.inc();
    }

    /// Counts a response that left the store.
    pub fn evicted(&self, cause: EvictionCause) {
        self.evictions.increment(cause);
    }

    /// Counts an answer that was not stored.
    pub fn not_stored(&self, reason: NotStoredReason) {
        self.not_stored.increment(reason);
    }

    /// Counts stored responses that a purge made stale or unusable.
    pub fn purged(&self, responses: u64) {
        self.purged.inc_by(responses);
    }

    /// Counts an invalidation.
    pub fn invalidated(&self, cause: InvalidationCause) {
        self.invalidations.increment(cause);
    }
}

/// What was collapsed.
#[derive(Debug)]
pub struct FlightMetrics {
    flights: Counter,
    passengers: Counter,
    lost: Counter,
    refreshes: PerValue<RefreshOutcome, Counter>,
    refreshes_ahead: PerValue<RefreshOutcome, Counter>,
}

impl FlightMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "Refreshes behind a stale answer";
        let ahead = "Refreshes of what was still fresh";
        Self {
            flights: counter(registry, "flights", "Forwards that any number of requests may share"),
            passengers: counter(registry, "passengers", "Requests that joined a flight already in the air"),
            lost: counter(registry, "flights_lost", "Flights that never landed"),
            refreshes: PerValue::register(registry, "background_refreshes", help),
            refreshes_ahead: PerValue::register(registry, "upstream_refreshes_ahead", ahead),
        }
    }

    /// Counts a flight that took off.
    pub fn took_off(&self) {
        self.flights.inc();
    }

    /// Counts a request that joined a flight already in the air.
    pub fn joined(&self) {
        self.passengers.inc();
    }

    /// Counts a flight that never landed.
    pub fn lost(&self) {
        self.lost.inc();
    }

    /// Counts a refresh behind a stale answer.
    pub fn refreshed(&self, outcome: RefreshOutcome) {
        self.refreshes.increment(outcome);
    }

    /// Counts a refresh of what was still fresh.
    pub fn refreshed_ahead(&self, outcome: RefreshOutcome) {
        self.refreshes_ahead.increment(outcome);
    }
}

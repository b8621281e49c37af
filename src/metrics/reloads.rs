//! Counts how often the configuration was read anew, and says how that went last.
//!
//! Not here: reading it (`reload`), the clock (moments are handed in).

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::metrics::closed::{ClosedLabel, PerValue};

/// What became of a configuration that was read anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// It holds, as far as it can without a restart.
    Accepted,
    /// Something is wrong with it, and nothing has changed.
    Rejected,
}

impl ClosedLabel for ReloadOutcome {
    const NAME: &'static str = "outcome";
    const ALL: &'static [Self] = &[Self::Accepted, Self::Rejected];

    fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// The configuration that runs, and what became of those that were read after it.
#[derive(Debug)]
pub struct ReloadMetrics {
    generation: Gauge,
    last_was_accepted: Gauge,
    last_accepted: Gauge<f64, AtomicU64>,
    outcomes: PerValue<ReloadOutcome, Counter>,
    certificates: PerValue<ReloadOutcome, Counter>,
}

impl ReloadMetrics {
    /// Registers the metrics; the process was started at `started`, with its first configuration.
    pub fn register(registry: &mut Registry, started: SystemTime) -> Self {
        let metrics = Self {
            generation: Gauge::default(),
            last_was_accepted: Gauge::default(),
            last_accepted: Gauge::default(),
            outcomes: PerValue::register(registry, "config_reloads", "Configurations that were read anew"),
            certificates: PerValue::register(
                registry,
                "certificate_reloads",
                "Certificates of the listener that were read anew",
            ),
        };
        let help = "Configurations that have held since the start";
        registry.register("config_generation", help, metrics.generation.clone());
        let help = "Whether the last reload was accepted";
        registry.register("config_last_reload_successful", help, metrics.last_was_accepted.clone());
        let name = "config_last_reload_success_timestamp";
        let help = "Last reload that was accepted, or the start";
        registry.register_with_unit(name, help, Unit::Seconds, metrics.last_accepted.clone());
        metrics.holds_since(started);
        metrics
    }

    /// Counts a reload that was accepted at `now`.
    pub fn accepted(&self, now: SystemTime) {
        self.outcomes.increment(ReloadOutcome::Accepted);
        self.holds_since(now);
    }

    /// Counts a reload that was rejected.
    pub fn rejected(&self) {
        self.outcomes.increment(ReloadOutcome::Rejected);
        self.last_was_accepted.set(0);
    }

    /// Counts a certificate of the listener that was read anew.
    pub fn certificate(&self, outcome: ReloadOutcome) {
        self.certificates.increment(outcome);
    }

    fn holds_since(&self, now: SystemTime) {
        self.last_accepted.set(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        self.last_was_accepted.set(1);
        self.generation.inc();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn a_rejected_reload_is_told_until_one_is_accepted() {
        let mut registry = Registry::default();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let metrics = ReloadMetrics::register(&mut registry, at(100));
        let check = |generation: u64, successful: u64, timestamp: &str, counts: (u64, u64)| {
            let mut rendered = String::new();
            text::encode(&mut rendered, &registry).unwrap();
            for line in [
                format!("config_generation {generation}\n"),
                format!("config_last_reload_successful {successful}\n"),
                format!("config_last_reload_success_timestamp_seconds {timestamp}\n"),
                format!("config_reloads_total{{outcome=\"accepted\"}} {}\n", counts.0),
                format!("config_reloads_total{{outcome=\"rejected\"}} {}\n", counts.1),
            ] {
                assert!(rendered.contains(&line), "{line}{rendered}");
            }
        };
        check(1, 1, "100.0", (0, 0));
        metrics.rejected();
        check(1, 0, "100.0", (0, 1));
        metrics.accepted(at(200));
        check(2, 1, "200.0", (1, 1));
    }
}

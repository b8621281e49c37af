//! Counts webhooks, and what became of them.
//!
//! Not here: why one is refused, and how that is answered (`webhooks`).

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::metrics::closed::{ClosedLabel, PerValue};

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// It purged what it was about.
    Accepted,
    /// It was sent by another method than POST.
    WrongMethod,
    /// Its signature was missing, or not that of its body.
    BadSignature,
    /// Its time could not be read, or its body was not JSON.
    Malformed,
    /// Its time was too far from ours.
    Outdated,
    /// Its body was too large.
    TooLarge,
    /// Its body did not arrive whole, or not in time.
    Incomplete,
    /// Its body had been seen before.
    Replayed,
    /// There were too many.
    RateLimited,
    /// No more bodies could be remembered.
    MemoryFull,
}

impl ClosedLabel for WebhookOutcome {
    const NAME: &'static str = "outcome";
    const ALL: &'static [Self] = &[
        Self::Accepted,
        Self::WrongMethod,
        Self::BadSignature,
        Self::Malformed,
        Self::Outdated,
        Self::TooLarge,
        Self::Incomplete,
        Self::Replayed,
        Self::RateLimited,
        Self::MemoryFull,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::WrongMethod => "wrong-method",
            Self::BadSignature => "bad-signature",
            Self::Malformed => "malformed",
            Self::Outdated => "outdated",
            Self::TooLarge => "too-large",
            Self::Incomplete => "incomplete",
            Self::Replayed => "replayed",
            Self::RateLimited => "rate-limited",
            Self::MemoryFull => "memory-full",
        }
    }
}

/// Webhooks, and what became of them.
#[derive(Debug)]
pub struct WebhookMetrics {
    outcomes: PerValue<WebhookOutcome, Counter>,
}

impl WebhookMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "Webhooks, and what became of them";
        Self { outcomes: PerValue::register(registry, "webhooks", help) }
    }

    /// Counts a webhook.
    pub fn observe(&self, outcome: WebhookOutcome) {
        self.outcomes.increment(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn every_outcome_has_a_series_of_its_own_from_the_start() {
        let mut registry = Registry::default();
        let metrics = WebhookMetrics::register(&mut registry);
        let labels: BTreeSet<_> = WebhookOutcome::ALL.iter().map(|outcome| outcome.label()).collect();
        assert_eq!(labels.len(), WebhookOutcome::ALL.len());
        let check = |count: u64| {
            let mut rendered = String::new();
            text::encode(&mut rendered, &registry).unwrap();
            for label in &labels {
                let line = format!("webhooks_total{{outcome=\"{label}\"}} {count}\n");
                assert!(rendered.contains(&line), "{line}{rendered}");
            }
        };
        check(0);
        for outcome in WebhookOutcome::ALL {
            metrics.observe(*outcome);
        }
        check(1);
    }
}

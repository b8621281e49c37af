//! Counts what became of spans.
//!
//! Invariant: every span that ended is counted once. Not here: what is traced (`traces`), sending (`exporter`).

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::metrics::closed::{ClosedLabel, PerValue};

/// What became of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanOutcome {
    /// The collector took it.
    Exported,
    /// There was no room for it in the queue.
    Dropped,
    /// The collector could not be reached, or refused it.
    Failed,
}

impl ClosedLabel for SpanOutcome {
    const NAME: &'static str = "outcome";
    const ALL: &'static [Self] = &[Self::Exported, Self::Dropped, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
        }
    }
}

/// What became of spans.
#[derive(Debug)]
pub struct TraceMetrics {
    spans: PerValue<SpanOutcome, Counter>,
}

impl TraceMetrics {
    /// Registers the metric.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "Spans that ended, and what became of them";
        Self { spans: PerValue::register(registry, "trace_spans", help) }
    }

    /// Counts spans.
    pub fn count(&self, outcome: SpanOutcome, spans: u64) {
        self.spans.increment_by(outcome, spans);
    }
}

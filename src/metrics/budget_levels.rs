//! The budget's gauges, read from the budget itself at each scrape, so that they cannot drift.
//!
//! Invariant: the label `route` is a route template of the configuration, or `other`; there are as many series as there are
//! routes. Not here: what the levels are read from (handed in by `assembly`), what the budget does (`metrics::budget`).

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// How long the line is, what is closed, and what is left by route.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BudgetLevels {
    /// Requests that wait.
    pub waiting: u64,
    /// Most requests that may wait.
    pub max_waiting: u64,
    /// Closed gates, by what they stand before.
    pub closed_gates: [(GateKind, u64); 3],
    /// One row for each route of which something is known.
    pub routes: Vec<RouteLevels>,
}

/// What a gate stands before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GateKind {
    /// One limit, which a 429 has closed.
    #[default]
    Limit,
    /// One route of one caller, which is refused or fails.
    Route,
    /// One upstream as a whole, which fails.
    Upstream,
}

impl GateKind {
    /// Returns the one spelling of the kind.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Route => "route",
            Self::Upstream => "upstream",
        }
    }
}

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteLevels {
    /// Its template, or `other`.
    pub route: String,
    /// The least share of a window that is left to anybody; `None` where no limit is known.
    pub remaining: Option<f64>,
    /// Requests that wait.
    pub waiting: u64,
}

/// Reads the budget's levels.
pub type ReadLevels = Box<dyn Fn() -> BudgetLevels + Send + Sync>;

/// The gauges; clones are the same. They are left out until somebody says where they are read from.
#[derive(Clone, Default)]
pub struct LevelGauges(Arc<OnceLock<ReadLevels>>);

impl LevelGauges {
    /// Registers the gauges.
    pub fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        registry.register_collector(Box::new(gauges.clone()));
        gauges
    }

    /// Sets where they are read from; the first call wins.
    pub fn read_with(&self, read: ReadLevels) {
        let _ = self.0.set(read);
    }
}

impl fmt::Debug for LevelGauges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LevelGauges").finish_non_exhaustive()
    }
}

impl Collector for LevelGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(read) = self.0.get() else { return Ok(()) };
        let levels = read();
        let plain = [
            ("budget_waiting", "Requests that wait before they are sent.", levels.waiting),
            ("budget_max_waiting", "Most requests that may wait.", levels.max_waiting),
        ];
        for (name, help, level) in plain {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(level).encode(metric)?;
        }
        let help = "Limits, routes and upstreams that are not asked after refusals or failures.";
        let mut metric = encoder.encode_descriptor("budget_gates_closed", help, None, MetricType::Gauge)?;
        for (kind, closed) in levels.closed_gates {
            ConstGauge::new(closed).encode(metric.encode_family(&[("kind", kind.label())])?)?;
        }
        let help = "Least share of a limit that is left to anybody.";
        let name = "budget_remaining_ratio";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for RouteLevels { route, remaining, .. } in &levels.routes {
            if let Some(remaining) = remaining {
                ConstGauge::new(*remaining).encode(metric.encode_family(&[("route", route.as_str())])?)?;
            }
        }
        let name = "budget_waiting_by_route";
        let mut metric =
            encoder.encode_descriptor(name, "Requests that wait, by route.", None, MetricType::Gauge)?;
        for RouteLevels { route, waiting, .. } in &levels.routes {
            ConstGauge::new(*waiting).encode(metric.encode_family(&[("route", route.as_str())])?)?;
        }
        Ok(())
    }
}

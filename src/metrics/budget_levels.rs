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
    pub waiting: usize,
    /// Most requests that may wait.
    pub max_waiting: usize,
    /// Gates that let nothing pass now.
    pub closed: ClosedGates,
    /// One row for each route of which something is known.
    pub routes: Vec<RouteLevel>,
}

/// Gates that let nothing pass now, by what they stand before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClosedGates {
    /// Limits that a 429 has closed.
    pub limits: usize,
    /// Routes of one caller that are refused or fail.
    pub routes: usize,
    /// Upstreams that fail as a whole.
    pub upstreams: usize,
}

impl ClosedGates {
    /// Returns how many there are by the values of the label `kind`.
    fn by_kind(self) -> [(&'static str, usize); 3] {
        [("limit", self.limits), ("route", self.routes), ("upstream", self.upstreams)]
    }
}

/// One route, over all callers.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteLevel {
    /// Its template, or `other`.
    pub route: String,
    /// The least share of a window that is left to anybody, from 0 to 1; `None` where no limit is known.
    pub remaining: Option<f64>,
    /// Requests that wait.
    pub waiting: usize,
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
            gauge(level).encode(metric)?;
        }
        let help = "Limits, routes and upstreams that are not asked after refusals or failures.";
        let mut metric = encoder.encode_descriptor("budget_gates_closed", help, None, MetricType::Gauge)?;
        for (kind, closed) in levels.closed.by_kind() {
            gauge(closed).encode(metric.encode_family(&[("kind", kind)])?)?;
        }
        let help = "Least share of a limit that is left to anybody.";
        let name = "budget_remaining_ratio";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for RouteLevel { route, remaining, .. } in &levels.routes {
            if let Some(remaining) = remaining {
                ConstGauge::new(*remaining).encode(metric.encode_family(&[("route", route.as_str())])?)?;
            }
        }
        let name = "budget_waiting_by_route";
        let mut metric =
            encoder.encode_descriptor(name, "Requests that wait, by route.", None, MetricType::Gauge)?;
        for RouteLevel { route, waiting, .. } in &levels.routes {
            gauge(*waiting).encode(metric.encode_family(&[("route", route.as_str())])?)?;
        }
        Ok(())
    }
}

fn gauge(level: usize) -> ConstGauge<u64> {
    ConstGauge::new(u64::try_from(level).unwrap_or(u64::MAX))
}

//! Gauges that are read where they are, at each scrape, so that they cannot drift.
//!
//! Not here: what they are read from (handed in by `assembly`).

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// The name of a gauge, what it says, and its unit.
pub type Named = (&'static str, &'static str, Option<Unit>);

/// Reads all of them at once.
pub type Read<const N: usize> = Box<dyn Fn() -> [u64; N] + Send + Sync>;

/// Some gauges; clones are the same.
#[derive(Clone)]
pub struct Levels<const N: usize>(Arc<Gauges<N>>);

struct Gauges<const N: usize> {
    names: [Named; N],
    read: OnceLock<Read<N>>,
}

impl<const N: usize> Levels<N> {
    /// Registers the gauges; they are left out until somebody says where they are read from.
    pub fn register(registry: &mut Registry, names: [Named; N]) -> Self {
        let levels = Self(Arc::new(Gauges { names, read: OnceLock::new() }));
        registry.register_collector(Box::new(levels.clone()));
        levels
    }

    /// Sets where they are read from; the first call wins.
    pub fn read_with(&self, read: Read<N>) {
        let _ = self.0.read.set(read);
    }
}

impl<const N: usize> fmt::Debug for Levels<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Levels").finish_non_exhaustive()
    }
}

impl<const N: usize> Collector for Levels<N> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(read) = self.0.read.get() else { return Ok(()) };
        for ((name, help, unit), level) in self.0.names.iter().zip(read()) {
            let metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            ConstGauge::new(level).encode(metric)?;
        }
        Ok(())
    }
}

//! Counters and gauges whose only label is a closed set.
//!
//! Invariant: every value of the set has its series from the start, at zero, so that a rate sees the first event.
//! Not here: sets that a configuration makes (`metrics::requests`).

use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry, Unit};

/// A closed set of values of one label.
pub trait ClosedLabel: Copy + PartialEq + 'static {
    /// Name of the label.
    const NAME: &'static str;
    /// Every value.
    const ALL: &'static [Self];

    /// Returns the one spelling of the value.
    fn label(self) -> &'static str;
}

type ByValue<M> = Family<[(&'static str, &'static str); 1], M>;

/// One metric per value of a closed set, resolved at start.
#[derive(Debug)]
pub struct PerValue<V, M>(Vec<(V, M)>);

impl<V: ClosedLabel, M: Clone + Default + Metric + TypedMetric> PerValue<V, M> {
    /// Registers the family with a series for every value.
    pub fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let (family, handles) = Self::resolved();
        registry.register(name, help, family);
        handles
    }

    /// As [`PerValue::register`], for a metric with a unit.
    pub fn register_with_unit(registry: &mut Registry, (name, help): (&str, &str), unit: Unit) -> Self {
        let (family, handles) = Self::resolved();
        registry.register_with_unit(name, help, unit, family);
        handles
    }

    fn resolved() -> (ByValue<M>, Self) {
        let family = ByValue::<M>::default();
        let resolve = |value: &V| (*value, family.get_or_create_owned(&[(V::NAME, value.label())]));
        let handles = Self(V::ALL.iter().map(resolve).collect());
        (family, handles)
    }

    /// Returns the metric of a value.
    pub fn of(&self, value: V) -> Option<&M> {
        self.0.iter().find(|(known, _)| *known == value).map(|(_, handle)| handle)
    }
}

impl<V: ClosedLabel> PerValue<V, Counter> {
    /// Counts one event.
    pub fn increment(&self, value: V) {
        self.increment_by(value, 1);
    }

    /// Counts so many events.
    pub fn increment_by(&self, value: V, events: u64) {
        if let Some(counter) = self.of(value) {
            counter.inc_by(events);
        }
    }
}

impl<V: ClosedLabel> PerValue<V, Gauge> {
    /// Moves the level by `difference`.
    pub fn shift(&self, value: V, difference: i64) {
        if let Some(gauge) = self.of(value) {
            gauge.inc_by(difference);
        }
    }
}

//! Counts what was held or not sent, by what held it, and what upstream and clients were spared, by class of routes.
//!
//! Invariants: levels are read from the budget itself at each scrape; the label `class` is one of the classes given at start,
//! or `other`. Not here: deciding (`budget`), what is sent (`metrics::upstream`), who was spared (`proxy::ledger`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use crate::handling::hold::Hold;
use crate::metrics::budget_levels::{LevelGauges, ReadLevels};
use crate::metrics::closed::{ClosedLabel, PerValue};

/// The class of whatever has none of the known ones.
const OTHER: &str = "other";

impl ClosedLabel for Hold {
    const NAME: &'static str = "hold";
    const ALL: &'static [Self] = &Self::ALL;

    fn label(self) -> &'static str {
        self.label()
    }
}

type Label = [(&'static str, Cow<'static, str>); 1];
type Seconds = Counter<f64, std::sync::atomic::AtomicU64>;

/// What the budget spared upstream.
#[derive(Debug)]
pub struct BudgetMetrics {
    levels: LevelGauges,
    held: PerValue<Hold, Counter>,
    not_sent: PerValue<Hold, Counter>,
    classes: HashMap<String, ClassLedger>,
    other: ClassLedger,
}

/// What was spared in one class of routes.
#[derive(Debug)]
pub struct ClassLedger {
    saved: Counter,
    averted: Counter,
    stale: Counter,
    waited: Seconds,
}

impl BudgetMetrics {
    /// Registers the metrics; `classes` are the only values of the label `class`, besides `other`.
    pub fn register(registry: &mut Registry, classes: &[String]) -> Self {
        let levels = LevelGauges::register(registry);
        let families = Families::register(registry);
        Self {
            levels,
            held: PerValue::register(
                registry,
                "budget_held",
                "Requests that had to wait before they were sent",
            ),
            not_sent: PerValue::register(registry, "budget_not_sent", "Requests that were not sent upstream"),
            classes: classes.iter().map(|class| (class.clone(), families.of(class))).collect(),
            other: families.of(OTHER),
        }
    }

    /// Sets where the levels are read from at each scrape; the first call wins.
    pub fn measure_with(&self, read: ReadLevels) {
        self.levels.read_with(read);
    }

    /// Counts a request that had to wait, and was sent.
    pub fn held(&self, hold: Hold) {
        self.held.increment(hold);
    }

    /// Counts a request that was not sent.
    pub fn not_sent(&self, hold: Hold) {
        self.not_sent.increment(hold);
    }

    /// Returns the ledger of a class; none, or one that was not given at start, is `other`.
    pub fn of(&self, class: Option<&str>) -> &ClassLedger {
        class.and_then(|class| self.classes.get(class)).unwrap_or(&self.other)
    }
}

impl ClassLedger {
    /// Counts a request that was answered without one upstream.
    pub fn saved(&self) {
        self.saved.inc();
    }

    /// Counts a request that Sentry would have refused, had it been sent at once.
    pub fn averted(&self) {
        self.averted.inc();
    }

    /// Counts a stale response that went out.
    pub fn stale(&self) {
        self.stale.inc();
    }

    /// Counts the time that a request waited before it was sent, or was not.
    pub fn waited(&self, elapsed: Duration) {
        self.waited.inc_by(elapsed.as_secs_f64());
    }
}

/// The families of the ledgers.
struct Families {
    saved: Family<Label, Counter>,
    averted: Family<Label, Counter>,
    stale: Family<Label, Counter>,
    waited: Family<Label, Seconds>,
}

impl Families {
    fn register(registry: &mut Registry) -> Self {
        let families = Self {
            saved: Family::default(),
            averted: Family::default(),
            stale: Family::default(),
            waited: Family::default(),
        };
        let help = "Requests answered without one upstream";
        registry.register("saved_requests", help, families.saved.clone());
        let help = "Requests that Sentry would have refused, had they been sent at once";
        registry.register("averted_refusals", help, families.averted.clone());
        registry.register("stale_responses", "Stale responses that went out", families.stale.clone());
        let help = "Time that requests waited for the budget";
        registry.register_with_unit("budget_waited", help, Unit::Seconds, families.waited.clone());
        families
    }

    fn of(&self, class: &str) -> ClassLedger {
        let label: Label = [("class", Cow::Owned(class.to_owned()))];
        ClassLedger {
            saved: self.saved.get_or_create_owned(&label),
            averted: self.averted.get_or_create_owned(&label),
            stale: self.stale.get_or_create_owned(&label),
            waited: self.waited.get_or_create_owned(&label),
        }
    }
}

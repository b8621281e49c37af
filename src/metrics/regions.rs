//! Counts where requests go, and what was learned and ignored of that.
//!
//! Not here: deciding (`regions`), learning (`proxy::directions`).

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::handling::bearing::Bearing;
use crate::metrics::closed::{ClosedLabel, PerValue};
use crate::metrics::levels::Levels;

impl ClosedLabel for Bearing {
    const NAME: &'static str = "bearing";
    const ALL: &'static [Self] = &Self::ALL;

    fn label(self) -> &'static str {
        self.label()
    }
}

/// Where the URL of a region was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimSource {
    /// In the body of an answer.
    Body,
    /// In an organization token.
    Token,
}

impl ClosedLabel for ClaimSource {
    const NAME: &'static str = "source";
    const ALL: &'static [Self] = &[Self::Body, Self::Token];

    fn label(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Token => "token",
        }
    }
}

/// A change of what is known of where organizations live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionChange {
    /// An answer said where one lives that was not known to live there.
    Learned,
    /// A region did not know one that was thought to live there.
    Forgotten,
    /// A token was accepted where it says.
    Proven,
    /// A token was refused where it says.
    Refuted,
}

impl ClosedLabel for RegionChange {
    const NAME: &'static str = "change";
    const ALL: &'static [Self] = &[Self::Learned, Self::Forgotten, Self::Proven, Self::Refuted];

    fn label(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Forgotten => "forgotten",
            Self::Proven => "proven",
            Self::Refuted => "refuted",
        }
    }
}

/// Reads how many organizations are known.
pub type ReadCount = Box<dyn Fn() -> u64 + Send + Sync>;

/// Where requests go, and what was learned of that.
#[derive(Debug)]
pub struct RegionMetrics {
    directed: PerValue<Bearing, Counter>,
    changes: PerValue<RegionChange, Counter>,
    ignored: PerValue<ClaimSource, Counter>,
    organizations: Levels<1>,
}

impl RegionMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let ignored = "URLs of regions that are not configured, and changed nothing";
        let changes = "Changes of what is known of where organizations live";
        let organizations = ("organizations_known", "Organizations whose names are known.", None);
        Self {
            directed: PerValue::register(
                registry,
                "directed_requests",
                "Requests, by why they go where they go",
            ),
            changes: PerValue::register(registry, "regions_changes", changes),
            ignored: PerValue::register(registry, "regions_ignored", ignored),
            organizations: Levels::register(registry, [organizations]),
        }
    }

    /// Sets where the count of organizations is read from at each scrape; the first call wins.
    pub fn measure_with(&self, read: ReadCount) {
        self.organizations.read_with(Box::new(move || [read()]));
    }

    /// Counts a request.
    pub fn directed(&self, bearing: Bearing) {
        self.directed.increment(bearing);
    }

    /// Counts a change of what is known.
    pub fn changed(&self, change: RegionChange) {
        self.changes.increment(change);
    }

    /// Counts the URL of a region that is not configured.
    pub fn ignored(&self, source: ClaimSource) {
        self.ignored.increment(source);
    }
}

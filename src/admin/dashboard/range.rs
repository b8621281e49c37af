//! How much time the dashboard shows, and in how many columns.
//!
//! Invariant: a range is one of a closed set, whatever a query says. Not here: what was counted in it
//! (`admin::dashboard::history`).

use std::time::Duration;

/// How many columns the charts have.
pub const COLUMNS: u32 = 90;

/// A stretch of time until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Range {
    /// A quarter of an hour.
    #[default]
    Quarter,
    /// An hour.
    Hour,
    /// Six hours: all that is kept.
    SixHours,
}

impl Range {
    /// Every range, in the order in which they are offered.
    pub const ALL: [Self; 3] = [Self::Quarter, Self::Hour, Self::SixHours];

    /// Reads the `range` of a query; the first one where it says nothing that is known.
    pub fn of(query: Option<&str>) -> Self {
        let mut pairs = query.unwrap_or_default().split('&');
        let named = pairs.find_map(|pair| pair.strip_prefix("range="));
        Self::ALL.into_iter().find(|range| named == Some(range.label())).unwrap_or_default()
    }

    /// Returns the one spelling of the range.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Quarter => "15m",
            Self::Hour => "1h",
            Self::SixHours => "6h",
        }
    }

    /// Returns what people read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quarter => "15 minutes",
            Self::Hour => "1 hour",
            Self::SixHours => "6 hours",
        }
    }

    /// Returns how long it is.
    pub const fn span(self) -> Duration {
        match self {
            Self::Quarter => Duration::from_mins(15),
            Self::Hour => Duration::from_hours(1),
            Self::SixHours => Duration::from_hours(6),
        }
    }

    /// Returns how long one column is.
    pub fn column(self) -> Duration {
        self.span() / COLUMNS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_the_first_one_stands_for_what_is_not_known() {
        assert_eq!(Range::of(Some("a=b&range=6h")), Range::SixHours);
        assert_eq!(Range::of(Some("range=1h")), Range::Hour);
        for query in [None, Some(""), Some("range="), Some("range=2d")] {
            assert_eq!(Range::of(query), Range::Quarter);
        }
    }
}

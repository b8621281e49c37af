//! How much of what upstream allows is in use, and what follows for how long responses are good for. Pure.
//!
//! Invariants: a lifetime never becomes shorter by pressure, nor longer than the configured number of times itself.
//! Not here: measuring it (`budget`), which lifetimes may be stretched (`cache::terms`).

use std::time::Duration;

/// Up to this much, requests may be spent on what will be wanted soon.
const SPARE: u8 = 50;

/// From this much on, requests are kept for those that somebody waits for.
const SCARCE: u8 = 80;

/// How much of a budget is in use, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Pressure(u8);

impl Pressure {
    /// Nothing is in use, or nothing is limited.
    pub const NONE: Self = Self(0);

    /// Nothing is left.
    pub const FULL: Self = Self(100);

    /// Returns the pressure of so many used of so many.
    pub fn of(used: u32, limit: u32) -> Self {
        let percent = u64::from(used) * 100 / u64::from(limit.max(1));
        Self(u8::try_from(percent).unwrap_or(u8::MAX).min(Self::FULL.0))
    }

    /// Returns it in percent.
    pub fn percent(self) -> u8 {
        self.0
    }

    /// Returns whether there is budget to spare.
    pub fn is_spare(self) -> bool {
        self.0 < SPARE
    }

    /// Returns whether the budget runs low.
    pub fn is_scarce(self) -> bool {
        SCARCE <= self.0
    }

    /// Returns how long a response is fresh under this pressure: its lifetime, growing evenly from where the budget runs
    /// low up to `times` as much where nothing is left.
    pub fn stretched(self, lifetime: Duration, times: u32) -> Duration {
        let above = u32::from(self.0.saturating_sub(SCARCE));
        let range = u32::from(Self::FULL.0 - SCARCE);
        let further = lifetime.saturating_mul(times.saturating_sub(1));
        lifetime.saturating_add(further.saturating_mul(above) / range)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_share_in_use_is_told_in_percent_and_ends_at_a_hundred() {
        assert_eq!(Pressure::of(0, 40), Pressure::NONE);
        assert_eq!(Pressure::of(20, 40), Pressure(50));
        assert_eq!(Pressure::of(41, 40), Pressure::FULL);
        assert_eq!(Pressure::of(u32::MAX, 0), Pressure::FULL);
    }

    #[test]
    fn lifetimes_grow_where_the_budget_runs_low_up_to_the_bound() {
        let minute = Duration::from_mins(1);
        for (used, expected) in [(0, 60), (80, 60), (90, 90), (100, 120)] {
            let stretched = Pressure::of(used, 100).stretched(minute, 2);
            assert_eq!(stretched, Duration::from_secs(expected), "{used} %");
        }
        assert_eq!(Pressure::FULL.stretched(minute, 1), minute);
        assert!(Duration::MAX / 20 <= Pressure::FULL.stretched(Duration::MAX / 20, 2));
    }

    proptest! {
        #[test]
        fn more_pressure_never_makes_a_lifetime_shorter(
            used in 0u32..200, more in 0u32..200, seconds in 0u64..1_000_000, times in 0u32..10,
        ) {
            let lifetime = Duration::from_secs(seconds);
            let stretched = |used| Pressure::of(used, 100).stretched(lifetime, times);
            prop_assert!(lifetime <= stretched(used));
            prop_assert!(stretched(used) <= stretched(used + more));
            prop_assert!(stretched(used) <= lifetime * times.max(1));
        }
    }
}

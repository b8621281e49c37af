//! Knows how late it is at upstream at the least: Sentry's windows end by its own clock, not by ours. Pure.
//!
//! An answer's `Date` was true when it was made, so upstream's clock is ahead of ours by at least that, less our time when
//! it arrived. The greatest of these is the closest, since `Date` has whole seconds and answers travel. Older ones are
//! forgotten when answers have come for a minute or two, because clocks drift and step. Where upstream sends no `Date`, its clock is taken to
//! agree with ours.
//!
//! Invariant: what is told here is never later than it is at upstream, unless its clock has stepped back since.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long an observation counts at the least; it is forgotten after twice as long.
const MEMORY: Duration = Duration::from_mins(1);

/// By how much the clocks of upstream's own machines may differ: a window is over a little later than it says.
const MARGIN: i128 = 20_000;

/// What was observed of upstream's clock.
#[derive(Debug, Clone, Default)]
pub struct UpstreamClock {
    /// By how many microseconds upstream is ahead at the least, as seen since `since`, and as seen before.
    recent: Option<i128>,
    former: Option<i128>,
    since: Option<SystemTime>,
    source: Source,
}

/// What the observations are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Source {
    #[default]
    OurClock,
    Date,
}

impl UpstreamClock {
    /// Notes that an answer arrived at `received`, made at this `Date` by upstream's clock, or later, in a window that ends at
    /// `reset`. A `Date` after that is of another clock.
    pub fn observe(&mut self, date: Option<SystemTime>, reset: u64, received: SystemTime) {
        if date.is_some_and(|date| micros(date) > i128::from(reset) * 1_000_000) {
            return;
        }
        match (date, self.source) {
            (Some(_), Source::OurClock) => *self = Self { source: Source::Date, ..Self::default() },
            (None, Source::Date) => return,
            (Some(_), Source::Date) | (None, Source::OurClock) => {}
        }
        let is_over =
            self.since.is_none_or(|since| received.duration_since(since).unwrap_or_default() >= MEMORY);
        if is_over {
            self.former = self.recent.take();
            self.since = Some(received);
        }
        let ahead = micros(date.unwrap_or(received)) - micros(received);
        self.recent = Some(self.recent.map_or(ahead, |known| known.max(ahead)));
    }

    /// Returns how late it is at upstream at the least; `None` where nothing is known.
    pub fn earliest(&self, now: SystemTime) -> Option<SystemTime> {
        let ahead = self.recent.into_iter().chain(self.former).max()?;
        let earliest = u64::try_from((micros(now) + ahead - MARGIN).max(0)).unwrap_or(u64::MAX >> 1);
        Some(UNIX_EPOCH + Duration::from_micros(earliest))
    }
}

fn micros(moment: SystemTime) -> i128 {
    let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    i128::try_from(since_epoch).unwrap_or(i128::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window whose end does not matter.
    const FAR: u64 = 1_000_000_000;

    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000) + Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_closest_of_several_observations_counts_less_a_margin() {
        let mut clock = UpstreamClock::default();
        assert_eq!(clock.earliest(at(0)), None);
        // Upstream is exactly in step; `Date` loses the fraction, and the answer travels for 50 ms.
        clock.observe(Some(at(0)), FAR, at(950));
        assert_eq!(clock.earliest(at(1_000)), Some(at(30)));
        clock.observe(Some(at(1_000)), FAR, at(1_060));
        assert_eq!(clock.earliest(at(1_100)), Some(at(1_020)));
        clock.observe(Some(at(1_000)), FAR, at(1_900));
        assert_eq!(clock.earliest(at(2_000)), Some(at(1_920)));
    }

    #[test]
    fn a_clock_that_is_hours_ahead_or_behind_is_followed() {
        const HOUR: u64 = 3_600_000;
        for (stated, now, expected) in [(2 * HOUR, HOUR, 2 * HOUR), (HOUR, 2 * HOUR, HOUR)] {
            let mut clock = UpstreamClock::default();
            clock.observe(Some(at(stated)), FAR, at(now));
            assert_eq!(clock.earliest(at(now)), Some(at(expected - 20)));
        }
    }

    #[test]
    fn an_observation_is_forgotten_so_that_a_step_is_followed() {
        let mut clock = UpstreamClock::default();
        clock.observe(Some(at(5_000)), FAR, at(0));
        for minute in 1..=2 {
            clock.observe(Some(at(minute * 60_000)), FAR, at(minute * 60_000));
        }
        assert_eq!(clock.earliest(at(120_000)), Some(at(119_980)));
    }

    #[test]
    fn without_a_date_upstream_is_taken_to_agree_with_us_until_it_sends_one() {
        let mut clock = UpstreamClock::default();
        clock.observe(None, FAR, at(0));
        assert_eq!(clock.earliest(at(1_000)), Some(at(980)));
        clock.observe(Some(at(8_000)), FAR, at(2_000));
        clock.observe(None, FAR, at(3_000));
        assert_eq!(clock.earliest(at(3_000)), Some(at(8_980)));
    }

    #[test]
    fn a_date_after_the_end_of_its_window_is_of_another_clock() {
        let mut clock = UpstreamClock::default();
        clock.observe(Some(at(1_000)), 1_000_002, at(1_000));
        clock.observe(Some(at(3_600_000)), 1_000_003, at(2_000));
        assert_eq!(clock.earliest(at(2_000)), Some(at(1_980)));
    }
}

//! The only reader of time.
//!
//! [`Clock`] is wall time anchored to the runtime's monotonic clock, so that tokio's paused clock moves it too.
//! Every 10 s the anchor is compared with the system's wall clock: a forward jump (a suspended machine) moves
//! this clock forward and ages everything; a backward one is ignored until real time has caught up.
//!
//! Invariant: [`Clock::now`] never goes backwards, so nothing ever becomes younger.
//! Not here: lifetimes and ages (`cache::freshness`); deadlines, which are tokio's timers.
#![expect(clippy::disallowed_methods, reason = "this is the one file that reads time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// How often the anchor is compared with the system's wall clock.
const ANCHOR_INTERVAL: Duration = Duration::from_secs(10);

/// Wall time that never goes backwards; cheap to clone and to read.
#[derive(Debug, Clone)]
pub struct Clock {
    shared: Arc<Anchor>,
}

#[derive(Debug)]
struct Anchor {
    origin: Instant,
    /// The same moment, on the system's own monotonic clock.
    system_origin: std::time::Instant,
    /// Microseconds since the Unix epoch at `origin`; only ever grows.
    epoch_at_origin: AtomicU64,
    /// Microseconds since `origin` when the system's clock was last read.
    last_check: AtomicU64,
}

impl Clock {
    /// Starts a clock at the system's present wall time.
    pub fn start() -> Self {
        let epoch = micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        Self {
            shared: Arc::new(Anchor {
                origin: Instant::now(),
                system_origin: std::time::Instant::now(),
                epoch_at_origin: AtomicU64::new(epoch),
                last_check: AtomicU64::new(0),
            }),
        }
    }

    /// Returns the present wall time, with a resolution of a microsecond.
    pub fn now(&self) -> SystemTime {
        let elapsed = self.elapsed();
        let last = self.shared.last_check.load(Ordering::Relaxed);
        if elapsed.saturating_sub(last) >= micros(ANCHOR_INTERVAL) {
            self.anchor(elapsed, SystemTime::now());
        }
        let epoch = self.shared.epoch_at_origin.load(Ordering::Relaxed);
        UNIX_EPOCH + Duration::from_micros(epoch.saturating_add(elapsed))
    }

    /// Returns what the system's clock shows, which may go back: for comparing with what other machines' clocks show, where
    /// [`Clock::now`] would be ahead for as long as a backward step was.
    pub fn system(&self) -> SystemTime {
        // Nothing but under tests, where the runtime's time is not the system's.
        let ahead = self.shared.origin.elapsed().saturating_sub(self.shared.system_origin.elapsed());
        SystemTime::now() + ahead
    }

    /// Compares the anchor with what the system's clock shows.
    fn anchor(&self, elapsed: u64, wall: SystemTime) {
        self.shared.last_check.store(elapsed, Ordering::Relaxed);
        let wall = micros(wall.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.shared.epoch_at_origin.fetch_max(wall.saturating_sub(elapsed), Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        micros(self.shared.origin.elapsed())
    }

    /// Moves the anchor as a forward jump of the system's clock would.
    #[cfg(test)]
    pub(crate) fn jump(&self, forward: Duration) {
        self.shared.epoch_at_origin.fetch_add(micros(forward), Ordering::Relaxed);
    }
}

/// Starts measuring how long something takes.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts the watch.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time since the start.
    pub fn read(self) -> Duration {
        self.0.elapsed()
    }
}

/// Returns `duration` in whole microseconds, saturating.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_paused_clock_of_tokio_moves_it() {
        let clock = Clock::start();
        let before = clock.now();
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert!(clock.now().duration_since(before).unwrap() >= Duration::from_hours(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_backward_step_of_the_system_clock_makes_nothing_younger() {
        // Paused time runs far ahead of the system's clock: to the anchor check this looks like a backward step.
        let clock = Clock::start();
        let mut last = clock.now();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_mins(1)).await;
            let now = clock.now();
            assert!(now.duration_since(last).unwrap() >= Duration::from_mins(1));
            last = now;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_forward_jump_ages_everything() {
        let clock = Clock::start();
        let before = clock.now();
        clock.jump(Duration::from_hours(2));
        assert!(clock.now().duration_since(before).unwrap() >= Duration::from_hours(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_systems_clock_is_shown_as_it_is_although_ours_is_ahead() {
        let clock = Clock::start();
        let before = clock.system();
        clock.jump(Duration::from_hours(2));
        tokio::time::sleep(Duration::from_mins(1)).await;
        let passed = clock.system().duration_since(before).unwrap();
        assert!(Duration::from_secs(59) < passed && passed < Duration::from_hours(1), "{passed:?}");
        assert!(clock.system() < clock.now());
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_the_system_clock_does_time_goes_on() {
        const HOUR: Duration = Duration::from_hours(1);
        let clock = Clock::start();
        let start = clock.now();
        let shown = |step: Duration| {
            clock.anchor(clock.elapsed(), start + step);
            clock.now().duration_since(start).unwrap()
        };
        assert_eq!(shown(2 * HOUR), 2 * HOUR, "forward it goes at once");
        for step in [2 * HOUR, HOUR, Duration::ZERO] {
            assert_eq!(shown(step), 2 * HOUR, "and never back");
        }
        clock.anchor(clock.elapsed(), UNIX_EPOCH);
        assert_eq!(shown(3 * HOUR), 3 * HOUR);
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(clock.now().duration_since(start).unwrap(), 3 * HOUR + Duration::from_secs(9));
    }
}

//! The process's log while it runs: its level, how many lines of a kind are written, and telling what was left out.
//!
//! Invariants: a change of the level, and what was left out, is told whatever the level is, and is never left out itself;
//! errors are limited like everything else, for a defect in a loop fills a disk as well, but each place that panics counts
//! for itself.
//! Not here: which requests get a line (`proxy::lines`), the arithmetic of the limit (`logging::limiter`).

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time;
use tracing::{Event, warn};

use crate::clock::Stopwatch;
use crate::config::log::{LogConfig, LogLevel};
use crate::logging::limit;
use crate::logging::limiter::Limiter;
use crate::logging::writing::LineWriter;

/// The target of this file's lines: they are about the log itself, and always written.
pub const TARGET: &str = module_path!();

/// How often is told what was left out.
const TELLING: Duration = Duration::from_secs(10);

/// The log of a process; clones are the same.
#[derive(Clone)]
pub struct LogControl(Arc<Shared>);

struct Shared {
    level: Mutex<LogLevel>,
    /// What turns the log to another level, once there is one.
    dial: OnceLock<Dial>,
    /// 0: any number.
    max_per_second: AtomicU32,
    limiter: Mutex<Limiter>,
    watch: Stopwatch,
    count: OnceLock<Count>,
    writer: OnceLock<LineWriter>,
}

type Dial = Box<dyn Fn(LogLevel) + Send + Sync>;
type Count = Box<dyn Fn() + Send + Sync>;

impl LogControl {
    /// Begins as configured.
    pub fn new(config: &LogConfig) -> Self {
        Self(Arc::new(Shared {
            level: Mutex::new(config.level),
            dial: OnceLock::new(),
            max_per_second: AtomicU32::new(config.max_per_second),
            limiter: Mutex::new(Limiter::default()),
            watch: Stopwatch::start(),
            count: OnceLock::new(),
            writer: OnceLock::new(),
        }))
    }

    /// Has a log turned to another level by `dial`; the first call wins.
    pub fn turned_by(&self, dial: impl Fn(LogLevel) + Send + Sync + 'static) {
        let _ = self.0.dial.set(Box::new(dial));
    }

    /// Has every line that is left out counted by `count`; the first call wins.
    pub fn counted_by(&self, count: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.count.set(Box::new(count));
    }

    /// Says what writes the lines; the first call wins.
    pub fn written_by(&self, writer: LineWriter) {
        let _ = self.0.writer.set(writer);
    }

    /// Has every line counted that cannot be written.
    pub fn losses_counted_by(&self, count: impl Fn(u64) + Send + Sync + 'static) {
        if let Some(writer) = self.0.writer.get() {
            writer.losses_counted_by(count);
        }
    }

    /// Returns the least severe level that is logged.
    pub fn level(&self) -> LogLevel {
        *self.locked_level()
    }

    /// Sets the least severe level that is logged.
    pub fn set_level(&self, level: LogLevel) {
        let former = std::mem::replace(&mut *self.locked_level(), level);
        if former == level {
            return;
        }
        if let Some(turn) = self.0.dial.get() {
            turn(level);
        }
        warn!(from = former.label(), to = level.label(), "log level changed");
    }

    /// Goes on as configured anew.
    pub fn apply(&self, config: &LogConfig) {
        self.0.max_per_second.store(config.max_per_second, Ordering::Relaxed);
        self.set_level(config.level);
    }

    /// Returns whether a line may be written; counts it where it may not.
    pub fn admits(&self, event: &Event<'_>) -> bool {
        let limited = NonZeroU32::new(self.0.max_per_second.load(Ordering::Relaxed));
        let Some(most_per_second) = limited.filter(|_| event.metadata().target() != TARGET) else {
            return true;
        };
        // Read before anything is locked: it may panic, and a panic is logged.
        let (kind, message) = (limit::kind_of(event), limit::message_of(event));
        let is_admitted = self.limiter().admits(kind, most_per_second, self.0.watch.read(), || message);
        if !is_admitted && let Some(count) = self.0.count.get() {
            count();
        }
        is_admitted
    }

    /// Tells which lines were left out, a line for each kind of them.
    pub fn tell_suppressed(&self) {
        // Nothing is held while it is told: that makes lines, too.
        let suppressed = self.limiter().take_suppressed();
        for kind in suppressed {
            let reason = Some(kind.reason.as_str()).filter(|reason| !reason.is_empty());
            let (of, suppressed) = (kind.of.as_str(), kind.count);
            warn!(of, reason, suppressed, "log lines suppressed");
        }
    }

    /// Tells how many lines could not be written, once some can be again.
    fn tell_lost(&self) {
        let lost = self.0.writer.get().map(LineWriter::take_lost).unwrap_or_default();
        if lost > 0 {
            warn!(lost, "log lines lost");
        }
    }

    /// Tells now and then which lines were left out, and how many were lost. Never ends.
    pub async fn keep_telling(self) {
        loop {
            time::sleep(TELLING).await;
            self.tell_suppressed();
            self.tell_lost();
        }
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.0.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked_level(&self) -> MutexGuard<'_, LogLevel> {
        self.0.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LogControl").field("level", &self.level()).finish_non_exhaustive()
    }
}

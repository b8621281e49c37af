//! What has happened lately: the few things that an operator asks for first.
//!
//! Most are read off the metrics, from one sample to the next, so that nothing on a request's way has to tell them.
//!
//! Invariants: bounded; of a kind that goes on there is one entry, which counts; no credential stands in any.
//! Not here: how they are shown (`admin::dashboard::panels`). `now` is an argument.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::admin::dashboard::history::Totals;
use crate::admin::dashboard::reading::Reading;

/// Most entries.
const MOST: usize = 50;

/// How long after its last occurrence something is taken to go on.
const GOES_ON: Duration = Duration::from_mins(1);

/// What kind of thing has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The process began.
    Started,
    /// Sentry refused requests with 429.
    UpstreamRefused,
    /// Requests to Sentry failed.
    UpstreamFailed,
    /// An upstream is left alone because it fails.
    OutageBegan,
    /// No upstream is left alone any more.
    OutageEnded,
    /// An operator purged something.
    Purged,
    /// Sentry said that something has changed.
    Webhook,
    /// A configuration was read anew and accepted.
    ConfigurationAccepted,
    /// A configuration was read anew and rejected.
    ConfigurationRejected,
    /// Requests panicked.
    Panicked,
}

impl EventKind {
    /// Returns the one spelling of the kind.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::UpstreamRefused => "429",
            Self::UpstreamFailed => "upstream failed",
            Self::OutageBegan => "outage",
            Self::OutageEnded => "outage over",
            Self::Purged => "purge",
            Self::Webhook => "webhook",
            Self::ConfigurationAccepted => "reload",
            Self::ConfigurationRejected => "reload rejected",
            Self::Panicked => "panic",
        }
    }

    /// Returns whether somebody should look.
    pub const fn is_trouble(self) -> bool {
        match self {
            Self::UpstreamRefused
            | Self::UpstreamFailed
            | Self::OutageBegan
            | Self::ConfigurationRejected
            | Self::Panicked => true,
            Self::Started
            | Self::OutageEnded
            | Self::Purged
            | Self::Webhook
            | Self::ConfigurationAccepted => false,
        }
    }
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What kind of thing.
    pub kind: EventKind,
    /// When it happened last.
    pub last: SystemTime,
    /// How often.
    pub count: u64,
    /// More about it; nothing where the kind says all.
    pub detail: String,
}

/// What the metrics say of what has happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Marks {
    upstream_refused: u64,
    upstream_failed: u64,
    broken_upstreams: u64,
    webhooks: u64,
    accepted: u64,
    rejected: u64,
    panics: u64,
}

impl Marks {
    fn of(reading: &Reading) -> Self {
        let totals = Totals::of(reading);
        let reloads = |outcome| reading.count("sentrybox_config_reloads_total", &[("outcome", outcome)]);
        Self {
            upstream_refused: totals.upstream_refused,
            upstream_failed: totals.upstream_failed,
            broken_upstreams: reading.count("sentrybox_budget_gates_closed", &[("kind", "upstream")]),
            webhooks: reading.count("sentrybox_invalidations_total", &[("cause", "webhook")]),
            accepted: reloads("accepted"),
            rejected: reloads("rejected"),
            panics: reading.count("sentrybox_panics_total", &[]),
        }
    }
}

/// What has happened lately.
#[derive(Debug)]
pub struct Events {
    entries: VecDeque<Event>,
    marks: Marks,
}

impl Events {
    /// Begins with the start of the process.
    pub fn begin(reading: &Reading, now: SystemTime) -> Self {
        let mut events = Self { entries: VecDeque::new(), marks: Marks::of(reading) };
        events.note(EventKind::Started, env!("CARGO_PKG_VERSION").to_owned(), now);
        events
    }

    /// Notes something.
    pub fn note(&mut self, kind: EventKind, detail: String, now: SystemTime) {
        if self.entries.len() == MOST {
            self.entries.pop_front();
        }
        self.entries.push_back(Event { kind, last: now, count: 1, detail });
    }

    /// Notes that something has happened so many times more.
    fn count(&mut self, kind: EventKind, times: u64, now: SystemTime) {
        if times == 0 {
            return;
        }
        let ongoing = self.entries.iter_mut().rev().find(|event| event.kind == kind);
        let goes_on = |event: &&mut Event| now.duration_since(event.last).unwrap_or_default() <= GOES_ON;
        if let Some(event) = ongoing.filter(goes_on) {
            event.count += times;
            event.last = now;
            return;
        }
        self.note(kind, String::new(), now);
        if let Some(event) = self.entries.back_mut() {
            event.count = times;
        }
    }

    /// Notes what the metrics say has happened since the last time.
    pub fn read(&mut self, reading: &Reading, now: SystemTime) {
        let (before, after) = (self.marks, Marks::of(reading));
        self.marks = after;
        let counted = [
            (EventKind::UpstreamRefused, before.upstream_refused, after.upstream_refused),
            (EventKind::UpstreamFailed, before.upstream_failed, after.upstream_failed),
            (EventKind::Webhook, before.webhooks, after.webhooks),
            (EventKind::ConfigurationAccepted, before.accepted, after.accepted),
            (EventKind::ConfigurationRejected, before.rejected, after.rejected),
            (EventKind::Panicked, before.panics, after.panics),
        ];
        for (kind, before, after) in counted {
            self.count(kind, after.saturating_sub(before), now);
        }
        match (before.broken_upstreams, after.broken_upstreams) {
            (0, 1..) => self.note(EventKind::OutageBegan, String::new(), now),
            (1.., 0) => self.note(EventKind::OutageEnded, String::new(), now),
            (0, 0) | (1.., 1..) => {}
        }
    }

    /// Returns them, the latest first.
    pub fn latest(&self) -> impl Iterator<Item = &Event> {
        self.entries.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::metrics::upstream::UpstreamOutcome;
    use crate::metrics::{LabelValues, Metrics};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn refuse(metrics: &Metrics, times: usize) {
        (0..times).for_each(|_| metrics.upstream.observe(UpstreamOutcome::RateLimited, Duration::ZERO));
    }

    fn kinds(events: &Events) -> Vec<(EventKind, u64)> {
        events.latest().map(|event| (event.kind, event.count)).collect()
    }

    #[test]
    fn what_goes_on_has_one_entry_that_counts() {
        let metrics = Metrics::new(UNIX_EPOCH, &LabelValues::default());
        let mut events = Events::begin(&Reading::take(&metrics), at(0));
        for (seconds, times) in [(5, 2), (10, 0), (60, 3), (200, 1)] {
            refuse(&metrics, times);
            events.read(&Reading::take(&metrics), at(seconds));
        }
        let expected =
            [(EventKind::UpstreamRefused, 1), (EventKind::UpstreamRefused, 5), (EventKind::Started, 1)];
        assert_eq!(kinds(&events), expected);
    }

    #[test]
    fn an_outage_begins_and_ends() {
        let reading = |broken| {
            Reading::from_lines(&format!("sentrybox_budget_gates_closed{{kind=\"upstream\"}} {broken}\n"))
        };
        let mut events = Events::begin(&reading(0), at(0));
        for (seconds, broken) in [(5, 0), (10, 1), (15, 2), (20, 0), (25, 0)] {
            events.read(&reading(broken), at(seconds));
        }
        let kinds: Vec<_> = events.latest().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::OutageEnded, EventKind::OutageBegan, EventKind::Started]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let metrics = Metrics::new(UNIX_EPOCH, &LabelValues::default());
        let mut events = Events::begin(&Reading::take(&metrics), at(0));
        (1..100).for_each(|number| events.note(EventKind::Purged, number.to_string(), at(number)));
        assert_eq!(events.latest().count(), MOST);
        assert_eq!(events.latest().next().unwrap().detail, "99");
    }
}

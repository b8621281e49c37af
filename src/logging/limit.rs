//! Stands between the lines and where they are written: reads of what kind each is, and asks whether it may pass.
//!
//! Not here: how many may pass (`logging::limiter`), the levels (`logging`).

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

use crate::logging::control::LogControl;
use crate::logging::limiter::LineKind;

/// The fields that tell apart lines of one message. Each has a value from a closed set.
const REASONS: [&str; 3] = ["reason", "hold", "location"];

/// The field that holds the message.
const MESSAGE: &str = "message";

/// Lets through what the process's control of its log lets through.
#[derive(Debug)]
pub struct Limit(pub LogControl);

impl<S: Subscriber> Filter<S> for Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    /// An event is filtered in two passes or in none; `always` would leave out the first one.
    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.0.admits(event)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}

/// Returns what kind of line an event makes.
pub fn kind_of(event: &Event<'_>) -> LineKind {
    // A callsite's name is its place in the source.
    LineKind { place: event.metadata().name(), reason: value_of(event, &REASONS) }
}

/// Returns an event's message.
pub fn message_of(event: &Event<'_>) -> String {
    value_of(event, &[MESSAGE])
}

/// Returns the first of some fields that an event has; nothing where it has none.
fn value_of(event: &Event<'_>, names: &'static [&'static str]) -> String {
    let mut reading = Reading { names, value: String::new() };
    event.record(&mut reading);
    reading.value
}

struct Reading {
    names: &'static [&'static str],
    value: String,
}

impl Visit for Reading {
    fn record_str(&mut self, field: &Field, value: &str) {
        if self.names.contains(&field.name()) && self.value.is_empty() {
            value.clone_into(&mut self.value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.names.contains(&field.name()) && self.value.is_empty() {
            self.value = format!("{value:?}");
        }
    }
}

//! Where log lines go and what they look like: standard error, text on a terminal, JSON otherwise.
//!
//! Invariants: a panic's own message is never logged, because it may quote what it was working on; a log that cannot
//! be written stops nothing. Dependencies speak only when something is wrong.
//! Not here: what is logged, which each room decides; `log.requests`, which `proxy` obeys.

use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Subscriber, dispatcher, error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// The target prefix of our own lines.
const OWN_TARGET: &str = "sentrybox";

/// Why the log could not be set up.
#[derive(Debug, Error)]
#[error("could not set up the log")]
pub struct LoggingError(#[from] SetGlobalDefaultError);

/// The shape of the lines, once it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    ColouredText,
    Text,
    Json,
}

impl Shape {
    fn of(format: LogFormat, is_terminal: impl FnOnce() -> bool) -> Self {
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Auto => {
                if is_terminal() {
                    Self::ColouredText
                } else {
                    Self::Json
                }
            }
            LogFormat::Text => {
                if is_terminal() {
                    Self::ColouredText
                } else {
                    Self::Text
                }
            }
        }
    }
}

/// Sets up the process's log on standard error.
///
/// # Errors
/// It is set up already.
pub fn init(config: &LogConfig) -> Result<(), LoggingError> {
    let shape = Shape::of(config.format, || io::stderr().is_terminal());
    tracing::subscriber::set_global_default(subscriber(config.level, shape, io::stderr))?;
    Ok(())
}

/// Makes panics log where they happened, and nothing of what they say.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    if dispatcher::has_been_set() {
        error!(location, "a task panicked; this is a defect of sentrybox");
    } else {
        // Nothing is left to tell it to if this fails.
        drop(writeln!(io::stderr(), "sentrybox: panicked at {location}; this is a defect of sentrybox"));
    }
}

fn subscriber<W>(level: LogLevel, shape: Shape, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Registry::default().with(lines(shape, writer).with_filter(filter(level)))
}

fn lines<S, W>(shape: Shape, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Without this, a closed standard error makes the log panic.
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    match shape {
        // NO_COLOR is honoured as long as nothing is said about colours.
        Shape::ColouredText => lines.boxed(),
        Shape::Text => lines.with_ansi(false).boxed(),
        Shape::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    }
}

fn filter(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    Targets::new().with_default(own.min(LevelFilter::WARN)).with_target(OWN_TARGET, own)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{debug, info, warn};

    use super::*;

    /// Collects what is written.
    #[derive(Debug, Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(level: LogLevel, shape: Shape, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        tracing::subscriber::with_default(subscriber(level, shape, move || writer.clone()), log);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn auto_is_text_on_a_terminal_and_json_otherwise() {
        assert_eq!(Shape::of(LogFormat::Auto, || true), Shape::ColouredText);
        assert_eq!(Shape::of(LogFormat::Auto, || false), Shape::Json);
        assert_eq!(Shape::of(LogFormat::Text, || false), Shape::Text);
        assert_eq!(Shape::of(LogFormat::Json, || true), Shape::Json);
    }

    #[test]
    fn a_json_line_has_the_facts_at_its_top() {
        let line = written(LogLevel::Info, Shape::Json, || info!(status = 200, "request served"));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["status"]),
            (&"INFO".into(), &"request served".into(), &200.into())
        );
    }

    #[test]
    fn dependencies_speak_only_when_something_is_wrong() {
        let lines = written(LogLevel::Debug, Shape::Text, || {
            debug!("ours");
            info!(target: "hyper::proto", "chatter");
            warn!(target: "rustls", "trouble");
        });
        assert!(lines.contains("ours") && lines.contains("trouble") && !lines.contains("chatter"), "{lines}");
    }

    #[test]
    fn the_level_bounds_what_is_logged() {
        let lines = written(LogLevel::Error, Shape::Text, || {
            warn!("ours");
            warn!(target: "rustls", "trouble");
        });
        assert_eq!(lines, "");
    }
}

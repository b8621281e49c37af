//! Where log lines go and what they look like: standard error, text on a terminal, JSON otherwise.
//!
//! A line passes the level first, then the limit of its kind, so that an outage does not fill the disk ([`limiter`]).
//! Both may be changed while the process runs ([`control`]).
//!
//! Invariants: a panic's own message is never logged, because it may quote what it was working on; a log that cannot
//! be written, or that nobody reads, stops nothing and nobody ([`writing`]). Dependencies speak only when something is wrong.
//! Not here: what is logged, which each room decides; which requests get a line (`proxy::lines`).

use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;
use std::time::Duration;

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Subscriber, dispatcher, error};
use tracing_subscriber::filter::{FilterExt, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::log::{LogConfig, LogFormat, LogLevel};
use crate::logging::control::{LogControl, TARGET};
use crate::logging::limit::Limit;
use crate::logging::writing::LineWriter;

pub mod control;
pub mod limit;
pub mod limiter;
pub mod writing;

/// The target prefix of our own lines.
const OWN_TARGET: &str = "sentrybox";

/// How long the end of the process waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What writes the process's log.
static WRITER: OnceLock<LineWriter> = OnceLock::new();

/// Why the log could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// There is one already.
    #[error("could not set up the log")]
    Another(#[from] SetGlobalDefaultError),
    /// There is no thread to write it.
    #[error("could not start the thread that writes the log")]
    Thread(#[from] io::Error),
}

/// The shape of the lines, once it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Text in colours, for a terminal.
    ColouredText,
    /// Text.
    Text,
    /// One JSON object per line.
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

/// Sets up the process's log on standard error, and returns the control of it.
///
/// # Errors
/// It is set up already, or the system gives no thread to write it.
pub fn init(config: &LogConfig) -> Result<LogControl, LoggingError> {
    let shape = Shape::of(config.format, || io::stderr().is_terminal());
    let control = LogControl::new(config);
    let writer = LineWriter::start(io::stderr())?;
    let lines = writer.clone();
    tracing::subscriber::set_global_default(subscriber(&control, shape, move || lines.clone()))?;
    control.written_by(writer.clone());
    // Fails only where one is set up already, and then this is not reached.
    drop(WRITER.set(writer));
    Ok(control)
}

/// Lets what was logged be written before the process ends; not for long, for perhaps nobody reads it.
pub fn finish() {
    if let Some(writer) = WRITER.get() {
        writer.flush_within(LAST_LINES);
    }
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

/// Returns what writes lines of a shape to `writer`, as `control` lets it; no other one may have it yet.
pub fn subscriber<W>(control: &LogControl, shape: Shape, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (level, handle) = reload::Layer::new(filter(control.level()));
    // Fails only where the subscriber is gone, and then nothing is logged at all.
    control.turned_by(move |level| drop(handle.reload(filter(level))));
    Registry::default().with(lines(shape, writer).with_filter(level.and(Limit(control.clone()))))
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
    Targets::new()
        .with_default(own.min(LevelFilter::WARN))
        .with_target(OWN_TARGET, own)
        .with_target(TARGET, own.max(LevelFilter::WARN))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use tracing::{debug, info, warn};

    use super::*;
    use crate::config::load;

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

    /// A log that is kept.
    struct Bench {
        control: LogControl,
        sink: Sink,
    }

    impl Bench {
        fn new(level: LogLevel, max_per_second: u32) -> Self {
            let control = LogControl::new(&LogConfig { level, max_per_second, ..load::defaults().log });
            Self { control, sink: Sink::default() }
        }

        fn written(&self, shape: Shape, log: impl FnOnce()) -> String {
            let writer = self.sink.clone();
            let subscriber = subscriber(&self.control, shape, move || writer.clone());
            tracing::subscriber::with_default(subscriber, log);
            String::from_utf8(self.sink.0.lock().unwrap().clone()).unwrap()
        }

        /// Returns the lines that are written, as JSON.
        fn lines(&self, log: impl FnOnce()) -> Vec<serde_json::Value> {
            let written = self.written(Shape::Json, log);
            written.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    fn written(level: LogLevel, shape: Shape, log: impl FnOnce()) -> String {
        Bench::new(level, 0).written(shape, log)
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

    #[test]
    fn the_level_may_change_while_it_runs_and_that_is_told_whatever_the_level() {
        let bench = Bench::new(LogLevel::Error, 0);
        let lines = bench.lines(|| {
            let step = |level: LogLevel| {
                debug!("a debug line");
                warn!("a warning");
                bench.control.set_level(level);
                assert_eq!(bench.control.level(), level);
            };
            for level in [LogLevel::Debug, LogLevel::Debug, LogLevel::Warn, LogLevel::Error, LogLevel::Error]
            {
                step(level);
            }
        });
        let told: Vec<_> = lines
            .iter()
            .map(|line| (&line["message"], &line["to"]))
            .map(|(message, to)| format!("{} {}", message.as_str().unwrap(), to.as_str().unwrap_or_default()))
            .collect();
        let expected = [
            "log level changed debug",
            "a debug line ",
            "a warning ",
            "a debug line ",
            "a warning ",
            "log level changed warn",
            "a warning ",
            "log level changed error",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn lines_of_one_kind_are_limited_counted_and_told() {
        let bench = Bench::new(LogLevel::Info, 1);
        let counted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&counted);
        bench.control.counted_by(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let lines = bench.lines(|| {
            for number in 0..1_000 {
                let reason = if number % 2 == 0 { "timeout" } else { "broken" };
                info!(number, reason, "request failed");
            }
            info!("something else");
            bench.control.tell_suppressed();
            bench.control.tell_suppressed();
        });
        let messages = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
        let told: u64 = lines.iter().filter_map(|line| line["suppressed"].as_u64()).sum();
        assert_eq!((messages("something else"), messages("log lines suppressed")), (1, 2));
        assert_eq!(messages("request failed") + usize::try_from(told).unwrap(), 1_000);
        assert_eq!(counted.load(Ordering::Relaxed), usize::try_from(told).unwrap());
        assert!((10..900).contains(&messages("request failed")), "{}", messages("request failed"));
        let last = lines.last().unwrap();
        assert_eq!((&last["of"], &last["reason"]), (&"request failed".into(), &"timeout".into()));
    }

    #[test]
    fn without_a_limit_every_line_is_written() {
        let lines = Bench::new(LogLevel::Info, 0).lines(|| (0..1_000).for_each(|_| info!("request served")));
        assert_eq!(lines.len(), 1_000);
    }

    #[test]
    fn what_the_level_leaves_out_is_not_counted() {
        let bench = Bench::new(LogLevel::Warn, 1);
        let lines = bench.lines(|| {
            (0..100).for_each(|_| debug!("a step"));
            bench.control.tell_suppressed();
        });
        assert!(lines.is_empty(), "{lines:?}");
    }

    #[test]
    fn what_is_configured_anew_holds_from_then_on() {
        let bench = Bench::new(LogLevel::Warn, 1);
        let lines = bench.lines(|| {
            let config = LogConfig { level: LogLevel::Info, max_per_second: 0, ..load::defaults().log };
            bench.control.apply(&config);
            (0..100).for_each(|_| info!("request served"));
        });
        assert_eq!(lines.len(), 101);
    }
}

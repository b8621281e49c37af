//! A log that is kept: what this thread's corridor says, line by line.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::{Arc, LazyLock, Mutex};

use sentrybox::config::load::defaults;
use sentrybox::config::log::{LogConfig, LogLevel};
use sentrybox::logging::control::LogControl;
use sentrybox::logging::{Shape, subscriber};
use serde_json::Value;
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, set_default};
use tracing_subscriber::Registry;

/// Another log beside the one that is kept. With one alone, a line that a test without any says first counts as unwanted for
/// good, and for everybody.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Registry::default()));

static DEFAULTS: LazyLock<LogConfig> = LazyLock::new(|| defaults().log);

/// What was said, as long as this lives.
pub(crate) struct KeptLog {
    sink: Sink,
    /// How much of it was taken.
    taken: Cell<usize>,
    _guard: DefaultGuard,
}

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

impl KeptLog {
    /// Keeps everything that is said from now on, as talkative as it gets.
    pub(crate) fn begin() -> Self {
        LazyLock::force(&ANOTHER);
        let config = LogConfig { level: LogLevel::Debug, max_per_second: 0, ..*DEFAULTS };
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(&LogControl::new(&config), Shape::Json, move || writer.clone());
        Self { sink, taken: Cell::new(0), _guard: set_default(subscriber) }
    }

    /// Returns all that was said.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.sink.0.lock().unwrap().clone()).unwrap()
    }

    /// Returns the lines with this message that were said since lines were last taken.
    pub(crate) fn take(&self, message: &str) -> Vec<Value> {
        let text = self.text();
        let lines =
            text[self.taken.replace(text.len())..].lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line: &Value| line["message"] == message).collect()
    }
}

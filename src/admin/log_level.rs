//! The log's level, read and set: the JSON of `/log`.
//!
//! Invariant: what cannot be understood is refused with what was expected, and changes nothing.
//! Not here: what a level means (`config::log`), turning the log (`logging::control`).

use serde::Deserialize;

use crate::config::log::LogLevel;
use crate::logging::control::LogControl;

/// Why the level was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a JSON object with exactly one key, level, and as its value one of \"error\", \"warn\", \"info\" and \
    \"debug\": line {line}, column {column}"
)]
pub struct LevelRefusal {
    line: usize,
    column: usize,
}

/// The body of a request, as it is spelled.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    level: LogLevel,
}

/// Returns the level as JSON, in one line.
pub fn tell(log: &LogControl) -> String {
    format!(r#"{{"level":"{}"}}"#, log.level().label())
}

/// Sets the level that the body of a request asks for, and returns it as JSON.
///
/// # Errors
/// What is asked for cannot be understood.
pub fn set(log: &LogControl, body: &[u8]) -> Result<String, LevelRefusal> {
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| LevelRefusal { line: error.line(), column: error.column() })?;
    log.set_level(body.level);
    Ok(tell(log))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn a_level_that_is_set_is_told() {
        let log = LogControl::new(&load::defaults().log);
        assert_eq!(tell(&log), r#"{"level":"info"}"#);
        for level in ["error", "warn", "info", "debug"] {
            let body = format!(r#"{{"level":"{level}"}}"#);
            assert_eq!(set(&log, body.as_bytes()).as_deref(), Ok(body.as_str()));
            assert_eq!(tell(&log), body);
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_was_expected_and_changes_nothing() {
        let log = LogControl::new(&load::defaults().log);
        for body in [
            "",
            "debug",
            r#""debug""#,
            "{}",
            r#"{"level":"trace"}"#,
            r#"{"level":"DEBUG"}"#,
            r#"{"level":null}"#,
            r#"{"level":"debug","for":"10m"}"#,
            r#"{"level":"debug"} x"#,
        ] {
            let refusal = set(&log, body.as_bytes()).unwrap_err().to_string();
            assert!(refusal.contains("exactly one key, level") && refusal.contains("\"debug\""), "{refusal}");
            assert_eq!(log.level(), LogLevel::Info, "{body}");
        }
    }
}

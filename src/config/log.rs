//! `[log]`: what is logged, and how.
//!
//! Invariant: a [`SampleRate`] lies between 0 and 1. Not here: obeying any of it (`logging`, `proxy::lines`).

use serde::{Deserialize, Serialize};

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Least severe level that is logged.
    pub level: LogLevel,
    /// Shape of a line.
    pub format: LogFormat,
    /// Which requests get a line.
    pub requests: LogRequests,
    /// The share of hits that get a line although not every request does.
    pub hit_sample_rate: SampleRate,
    /// Whether lines about a request tell its path.
    pub paths: LogPaths,
    /// Most lines of one kind in a second; 0: any number.
    pub max_per_second: u32,
}

/// Least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures that need somebody.
    Error,
    /// And what is wrong but handled.
    Warn,
    /// And forwards, writes, refusals, start and stop.
    Info,
    /// And each step.
    Debug,
}

impl LogLevel {
    /// Returns the one spelling of the level.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Which requests get a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogRequests {
    /// Forwards, refusals and errors; hits are only counted.
    Forwards,
    /// Every request.
    All,
}

/// Whether lines about a request tell its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogPaths {
    /// Only the template of its route.
    Template,
    /// The path too, and never its query.
    Full,
}

/// A share of requests: from 0, none, to 1, all.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct SampleRate(f64);

impl SampleRate {
    /// Returns the share.
    pub const fn share(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for SampleRate {
    type Error = &'static str;

    fn try_from(share: f64) -> Result<Self, Self::Error> {
        if (0.0..=1.0).contains(&share) { Ok(Self(share)) } else { Err("a share from 0 to 1, such as 0.01") }
    }
}

impl From<SampleRate> for f64 {
    fn from(rate: SampleRate) -> Self {
        rate.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_rate_is_a_share() {
        for share in [0.0, 0.01, 1.0] {
            assert_eq!(SampleRate::try_from(share).map(f64::from), Ok(share));
        }
        for share in [-0.01, 1.01, f64::NAN, f64::INFINITY] {
            assert!(SampleRate::try_from(share).is_err(), "{share}");
        }
    }
}

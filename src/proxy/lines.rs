//! Which requests get a line in the log, and whether it tells their path.
//!
//! Hits are the many: whether one gets a line is read at each of them, and may be changed while the proxy runs. A share
//! of them is spread evenly, by a count that walks the golden ratio: no clients that take turns fall in step with it.
//!
//! Invariants: no query is ever told, nor in a path the request's own credential, nor a part that looks like a token.
//! Not here: what else a line says (`proxy::record`), how many are written (`logging`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::request::Parts;

use crate::config::log::{LogConfig, LogPaths, LogRequests};
use crate::proxy::Proxy;
use crate::proxy::explaining::redaction::Redaction;
use crate::routes::spelling::normalized_path;

/// 2^64 divided by the golden ratio: its multiples fill the circle evenly, however few there are.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Longest path that is told, in bytes.
const LONGEST_PATH: usize = 1_024;

/// What stands for a part of a path that looks like a token.
const REDACTED: &str = "[redacted]";

/// Digits of a token of the old kind.
const TOKEN_DIGITS: usize = 64;

/// What the operator wants to read of requests.
#[derive(Debug)]
pub struct LineChoices {
    /// Hits that get a line, of 2^64; the largest number means all.
    sampled: AtomicU64,
    hits: AtomicU64,
    tells_paths: AtomicBool,
}

impl LineChoices {
    /// Begins as configured.
    pub fn new(config: &LogConfig) -> Self {
        let choices =
            Self { sampled: AtomicU64::new(0), hits: AtomicU64::new(0), tells_paths: AtomicBool::new(false) };
        choices.apply(config);
        choices
    }

    /// Goes on as configured anew.
    pub fn apply(&self, config: &LogConfig) {
        let sampled = match config.requests {
            LogRequests::All => u64::MAX,
            LogRequests::Forwards => of_all(config.hit_sample_rate.share()),
        };
        self.sampled.store(sampled, Ordering::Relaxed);
        self.tells_paths.store(config.paths == LogPaths::Full, Ordering::Relaxed);
    }

    /// Returns whether the next hit gets a line.
    pub fn wants_hit(&self) -> bool {
        match self.sampled.load(Ordering::Relaxed) {
            0 => false,
            u64::MAX => true,
            sampled => self.hits.fetch_add(1, Ordering::Relaxed).wrapping_mul(STRIDE) < sampled,
        }
    }

    /// Returns what lines tell of a request's path; `None` where its route must do.
    pub fn told_path(&self, head: &Parts) -> Option<String> {
        let told = || printable(&Redaction::of(&head.headers).apply(head.uri.path()));
        self.tells_paths.load(Ordering::Relaxed).then(told)
    }
}

impl Proxy {
    /// Returns which requests get a log line.
    pub fn lines(&self) -> &LineChoices {
        &self.0.lines
    }
}

/// Returns a share of 2^64.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share lies between 0 and 1, and the cast saturates"
)]
fn of_all(share: f64) -> u64 {
    (share * u64::MAX as f64) as u64
}

/// Returns a path without what looks like a token in it, however that is escaped, and not longer than anybody reads.
fn printable(path: &str) -> String {
    let parts = path.split('/').map(|part| if is_token(&normalized_path(part)) { REDACTED } else { part });
    let mut told = parts.collect::<Vec<_>>().join("/");
    if LONGEST_PATH < told.len() {
        told.truncate(told.floor_char_boundary(LONGEST_PATH));
        told.push('…');
    }
    told
}

/// Returns whether a part of a path holds what may be one of Sentry's tokens: `sntry` and what follows it, or 64 digits.
fn is_token(part: &str) -> bool {
    let part = part.to_ascii_lowercase();
    let runs = part.split(|letter: char| !letter.is_ascii_hexdigit());
    part.contains("sntry") || runs.into_iter().any(|run| TOKEN_DIGITS <= run.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::config::log::SampleRate;
    use crate::testing::head;

    fn choices(change: impl FnOnce(&mut LogConfig)) -> LineChoices {
        let mut config = load::defaults().log;
        change(&mut config);
        LineChoices::new(&config)
    }

    fn sampled(share: f64, hits: usize) -> Vec<bool> {
        let choices = choices(|config| config.hit_sample_rate = SampleRate::try_from(share).unwrap());
        (0..hits).map(|_| choices.wants_hit()).collect()
    }

    fn count(hits: impl IntoIterator<Item = bool>) -> usize {
        hits.into_iter().filter(|hit| *hit).count()
    }

    #[test]
    fn hits_get_no_line_unless_all_or_a_share_of_them_do() {
        assert_eq!(count(sampled(0.0, 1_000)), 0);
        assert_eq!(count(sampled(1.0, 1_000)), 1_000);
        let all = choices(|config| config.requests = LogRequests::All);
        assert!((0..1_000).all(|_| all.wants_hit()));
    }

    #[test]
    fn a_share_of_hits_is_met_and_spread() {
        for (share, expected) in [(0.5, 5_000), (0.1, 1_000), (0.01, 100), (0.001, 10)] {
            let hits = sampled(share, 10_000);
            let found = count(hits.iter().copied());
            assert!(found.abs_diff(expected) <= 3, "{share}: {found}");
            for part in hits.chunks(1_000) {
                assert!(count(part.iter().copied()).abs_diff(expected / 10) <= 3, "{share}");
            }
        }
    }

    #[test]
    fn whoever_comes_every_tenth_time_is_sampled_like_anybody() {
        let hits = sampled(0.1, 10_000);
        for first in 0..10 {
            let found = count(hits.iter().copied().skip(first).step_by(10));
            assert!(found.abs_diff(100) <= 10, "{first}: {found}");
        }
    }

    #[test]
    fn a_choice_may_change() {
        let choices = choices(|_| {});
        let head = head("GET /api/0/abc/?abc", &[("authorization", "Bearer abc")]);
        assert!(!choices.wants_hit() && choices.told_path(&head).is_none());
        let mut config = load::defaults().log;
        (config.requests, config.paths) = (LogRequests::All, LogPaths::Full);
        choices.apply(&config);
        assert!(choices.wants_hit());
        assert_eq!(choices.told_path(&head).as_deref(), Some("/api/0/[redacted]/"));
    }

    #[test]
    fn what_looks_like_a_token_in_a_path_is_not_told() {
        let digits = "0123456789abcdef".repeat(4);
        for token in [
            "sntryu_canary",
            "SNTRYS_canary_x",
            "%73ntryu_canary",
            "x:sntrya_canary",
            &digits,
            &format!("a={digits}"),
        ] {
            assert_eq!(printable(&format!("/api/0/{token}/x/")), "/api/0/[redacted]/x/", "{token}");
        }
    }

    #[test]
    fn any_other_path_is_told_as_it_was_spelled() {
        let event = "0123456789abcdef0123456789abcdef";
        for path in ["/", "", "/api/0/organizations/acme/releases/web%401.0/", &format!("/api/0/x/{event}/")]
        {
            assert_eq!(printable(path), path);
        }
        assert!(printable(&"/ä".repeat(1_000)).len() < 1_030);
    }
}

//! `[access]`: who is served at all. Plain data, and what it must satisfy.
//!
//! Invariant: what stands where a fingerprint belongs may be a token, and is never repeated.
//! Not here: deciding (`admission::access`).

use std::path::PathBuf;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use crate::config::Secret;
use crate::config::listen::Neighbour;
use crate::config::validate::{Finding, MIN_SECRET, is_fingerprint};

/// Shortest shared secret, in characters.
const MIN_SHARED_SECRET: usize = 16;

/// How the name of the shared secret's field begins: then it can be none that HTTP or Sentry know.
const FIELD_PREFIX: &str = "x-";

/// Beginnings of names that have a meaning already, here or at Sentry's.
const TAKEN: [&str; 4] = ["x-request-id", "x-forwarded-", "x-real-ip", "x-sentry-"];

/// Who is served at all.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AccessConfig {
    /// Networks whose clients are served; empty means every one.
    pub networks: Vec<Neighbour>,
    /// Fingerprints of the credentials that are served; empty means every one, and none.
    pub credentials: Vec<String>,
    /// Text that every request must carry; empty means none.
    pub shared_secret: Secret,
    /// File that holds the shared secret instead.
    pub shared_secret_file: PathBuf,
    /// Name of the field that carries it.
    pub shared_secret_header: String,
}

impl AccessConfig {
    /// Returns every rule that the section breaks, beside the deployment's own secret.
    pub fn findings(&self, secret: &Secret) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.credentials.is_empty() && secret.is_empty() {
            // Fingerprints change with each start then.
            let expected = format!(
                "expected a secret of at least {MIN_SECRET} characters, because access.credentials names fingerprints"
            );
            findings.push(Finding::of(&["secret", "secret_file"], expected));
        }
        for (index, _) in self.credentials.iter().enumerate().filter(|(_, text)| !is_fingerprint(text)) {
            let expected =
                "expected a fingerprint of 16 hexadecimal digits, as `sentrybox fingerprint` tells it";
            findings.push(Finding::of(&[&format!("access.credentials.{index}")], expected.to_owned()));
        }
        let shared = self.shared_secret.expose();
        let is_sendable = shared.bytes().all(|byte| byte.is_ascii_graphic());
        if !shared.is_empty() && (shared.len() < MIN_SHARED_SECRET || !is_sendable) {
            let expected = format!(
                "expected a secret of at least {MIN_SHARED_SECRET} visible ASCII characters without spaces, or an empty one"
            );
            findings.push(Finding::of(&["access.shared_secret", "access.shared_secret_file"], expected));
        }
        if !self.is_field_free() {
            let expected = "expected the name of a field of your own that begins with X-, and has no meaning to Sentry or \
                            to proxies, such as \"X-Sentrybox-Secret\"";
            findings.push(Finding::of(&["access.shared_secret_header"], expected.to_owned()));
        }
        findings
    }

    /// Returns whether the field's name is one, and means nothing else to anybody.
    fn is_field_free(&self) -> bool {
        HeaderName::from_bytes(self.shared_secret_header.as_bytes()).is_ok_and(|name| {
            let name = name.as_str();
            name.len() > FIELD_PREFIX.len()
                && name.starts_with(FIELD_PREFIX)
                && !TAKEN.iter().any(|taken| name.starts_with(taken))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::defaults;

    #[track_caller]
    fn check(change: impl FnOnce(&mut AccessConfig), keys: &[&str]) {
        let mut access = defaults().access;
        change(&mut access);
        let findings = access.findings(&Secret::new("s".repeat(MIN_SECRET)));
        let found: Vec<_> = findings.iter().map(|finding| finding.keys[0].as_str()).collect();
        assert_eq!(found, keys, "{access:?}");
        assert!(!format!("{findings:?} {access:?}").contains("canary"), "{findings:?}");
    }

    #[test]
    fn credentials_are_fingerprints_and_need_a_secret() {
        let listed = |text: &str| AccessConfig { credentials: vec![text.to_owned()], ..defaults().access };
        check(|access| *access = listed("0123456789ABCdef"), &[]);
        for odd in ["", "0123456789abcde", "0123456789abcdefg", "0123456789abcdeg"] {
            check(|access| *access = listed(odd), &["access.credentials.0"]);
        }
        let findings = listed("sntryu_canary").findings(&Secret::new("s".repeat(MIN_SECRET)));
        assert!(!format!("{findings:?}").contains("canary"), "{findings:?}");
        let findings = listed("0123456789abcdef").findings(&Secret::new(String::new()));
        assert_eq!(findings[0].keys[0], "secret");
    }

    #[test]
    fn a_shared_secret_is_long_and_can_be_sent() {
        let shared = |text: &str| {
            let secret = Secret::new(text.to_owned());
            move |access: &mut AccessConfig| access.shared_secret = secret
        };
        check(shared(""), &[]);
        check(shared("canary-canary-16"), &[]);
        for odd in ["canary-canary-1", "canary canary 16", "canary-canary-é-16", "canary\ncanary-16"] {
            check(shared(odd), &["access.shared_secret"]);
        }
    }

    #[test]
    fn the_secrets_field_is_none_that_means_something_else() {
        let named = |name: &str| {
            let name = name.to_owned();
            move |access: &mut AccessConfig| access.shared_secret_header = name
        };
        for name in ["X-Sentrybox-Secret", "x-gateway-key"] {
            check(named(name), &[]);
        }
        for odd in [
            "",
            "X-",
            "X Y",
            "Authorization",
            "Cookie",
            "Host",
            "X-Request-Id",
            "X-Forwarded-For",
            "X-Sentry-Replay-Request",
        ] {
            check(named(odd), &["access.shared_secret_header"]);
        }
    }
}

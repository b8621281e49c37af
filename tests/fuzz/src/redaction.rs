//! What is told of a request that is explained, and of a path that is logged: the value of `Authorization`, and on the next
//! line a target.
//!
//! Holds: the credential is not told in any spelling that a target shows it in, nor anything that begins like a token of
//! Sentry's, once the target is in its normal spelling.

use http::header::{self, HeaderMap};
use sentrybox::proxy::explaining::redaction::Redaction;
use sentrybox::routes::spelling::normalized_path;

use crate::meaning::decoded;
use crate::text;

/// Shorter credentials stand by chance anywhere.
const SHORTEST: usize = 12;

/// What stands in the place of a credential begins and ends so; a credential that holds these may be made of it.
const BRACKETS: [u8; 2] = *b"[]";

/// How tokens of Sentry's begin.
const PREFIXES: [&str; 4] = ["sntryu_", "sntrya_", "sntryi_", "sntrys_"];

/// Tries one input.
pub fn run(input: &[u8]) {
    let (credential, target) = text::first_line(input);
    let Ok(target) = std::str::from_utf8(target) else { return };
    let mut fields = HeaderMap::new();
    let credential = text::value(credential.trim_ascii());
    fields.insert(header::AUTHORIZATION, credential.clone());
    let redaction = Redaction::of(&fields);
    let told = redaction.apply(target);
    let secret = bare(credential.as_bytes());
    if SHORTEST <= secret.len() && !secret.iter().any(|byte| BRACKETS.contains(byte)) {
        assert!(!shows(&told, &secret), "{told} tells the credential");
    }
    let told = redaction.apply(&normalized_path(target));
    assert!(!PREFIXES.iter().any(|prefix| told.contains(prefix)), "{told} tells a token");
}

/// Returns the credential without its scheme.
fn bare(value: &[u8]) -> Vec<u8> {
    let scheme = value.iter().position(u8::is_ascii_whitespace).unwrap_or_default();
    value[scheme..].trim_ascii().to_vec()
}

/// Returns whether a target stands for a text that holds the secret, a plus being a space or not.
fn shows(told: &str, secret: &[u8]) -> bool {
    let plain =
        |text: &[u8]| text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect::<Vec<_>>();
    plain(&decoded(told)).windows(secret.len()).any(|window| window == plain(secret))
}

//! Keeps credentials out of what is told of a request that is explained, and of paths that are logged: people paste tokens
//! anywhere.
//!
//! Invariant: neither the request's own credential, in any spelling in which a target shows it, nor anything that looks like
//! a token of Sentry's is told. Not here: whether paths are logged (`proxy::lines`).

use std::fmt;
use std::ops::Range;

use http::header::{self, HeaderMap};

use crate::routes::spelling::escape;

/// What stands in the place of a credential.
const REDACTED: &str = "[redacted]";

/// How tokens of Sentry's begin (`sentry-api.md` §5), but for old ones, which look like anything.
const PREFIXES: [&str; 4] = ["sntryu_", "sntrya_", "sntryi_", "sntrys_"];

/// Knows what must not be told.
pub struct Redaction(Vec<Vec<u8>>);

impl Redaction {
    /// Learns from the fields of a request what must not be told.
    pub fn of(fields: &HeaderMap) -> Self {
        let bare = |value: &[u8]| {
            let value = value.trim_ascii();
            let scheme = value.iter().position(u8::is_ascii_whitespace).unwrap_or_default();
            value.get(scheme..).unwrap_or_default().trim_ascii().iter().map(|byte| folded(*byte)).collect()
        };
        let values = fields.get_all(header::AUTHORIZATION).iter();
        Self(values.map(|value| bare(value.as_bytes())).filter(|bare: &Vec<u8>| !bare.is_empty()).collect())
    }

    /// Returns the text without what must not be told.
    pub fn apply(&self, text: &str) -> String {
        let without_own = self.0.iter().fold(text.to_owned(), |text, secret| without(&text, secret));
        PREFIXES.iter().fold(without_own, |text, prefix| without_tokens(&text, prefix))
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Redaction([redacted])")
    }
}

/// Returns the text without a secret, however that is escaped.
fn without(text: &str, secret: &[u8]) -> String {
    let letters = letters(text);
    let (mut clean, mut kept, mut at) = (Vec::with_capacity(text.len()), 0, 0);
    while let Some(window) = letters.get(at..at + secret.len()) {
        let is_secret = window.iter().map(|(letter, _)| letter).eq(secret);
        let (Some((_, first)), Some((_, last)), true) = (window.first(), window.last(), is_secret) else {
            at += 1;
            continue;
        };
        clean.extend_from_slice(text.as_bytes().get(kept..first.start).unwrap_or_default());
        clean.extend_from_slice(REDACTED.as_bytes());
        kept = last.end;
        at += secret.len();
    }
    clean.extend_from_slice(text.as_bytes().get(kept..).unwrap_or_default());
    String::from_utf8_lossy(&clean).into_owned()
}

/// Returns what a text stands for, letter by letter, and where each of them is spelled.
fn letters(text: &str) -> Vec<(u8, Range<usize>)> {
    let bytes = text.as_bytes();
    let mut letters = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some((&first, after)) = bytes.get(at..).and_then(<[u8]>::split_first) {
        let (letter, length) = escape(first, after).map_or((first, 1), |letter| (letter, 3));
        letters.push((folded(letter), at..at + length));
        at += length;
    }
    letters
}

/// A plus and a space are the same to whoever reads a query.
fn folded(byte: u8) -> u8 {
    if byte == b'+' { b' ' } else { byte }
}

/// Returns the text without the words that begin like a token.
fn without_tokens(text: &str, prefix: &str) -> String {
    let ends = |letter: char| !letter.is_ascii_alphanumeric() && !"_-+/=.~%".contains(letter);
    let mut parts = text.split(prefix);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean.push_str(REDACTED);
        clean.push_str(part.find(ends).and_then(|end| part.get(end..)).unwrap_or_default());
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;

    #[track_caller]
    fn check(authorization: &str, text: &str, expected: &str) {
        let redaction = Redaction::of(&fields(&[("authorization", authorization)]));
        assert_eq!(redaction.apply(text), expected);
    }

    #[test]
    fn the_credential_is_not_told_wherever_and_however_it_is_spelled() {
        check(
            "Bearer abc",
            "/api/0/abc/?a=1&b=abc&c=abcd",
            "/api/0/[redacted]/?a=1&b=[redacted]&c=[redacted]d",
        );
        check("Basic YTo=", "/x/YTo=/?k=YTo%3D", "/x/[redacted]/?k=[redacted]");
        check("Bearer a/b+c", "/a%2fb%2Bc/?%61/b+c=a%2Fb%20c", "/[redacted]/?[redacted]=[redacted]");
        check("Bearer aa", "aaaaa%", "[redacted][redacted]a%");
        check("DSN https://key@host/1", "?d=https://key@host/1", "?d=[redacted]");
        check("lonely", "?d=lonely", "?d=[redacted]");
        check("", "/api/0/", "/api/0/");
    }

    #[test]
    fn whatever_looks_like_a_token_of_sentrys_is_not_told() {
        check("Bearer abc", "/?a=sntryu_canary&b=2", "/?a=[redacted]&b=2");
        check("Bearer abc", "/?a=sntrys_eyJp%3D_x,sntrya_y&b", "/?a=[redacted],[redacted]&b");
        check("Bearer abc", "sntryi_", "[redacted]");
    }
}

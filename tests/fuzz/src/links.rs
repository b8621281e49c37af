//! `Link` and `Location`: the value is the input.
//!
//! Holds: only the scheme and authority of known API URLs change, every other byte stays; rewriting twice is rewriting once.

use http::HeaderValue;
use sentrybox::links::{KnownHosts, rewrite_link, rewrite_location};

use crate::text;

/// Where the proxy is; no input that holds it says anything.
const BASE: &str = "http://box.example:9000";

/// Whether what a URL names is ours to change.
type Paths = &'static [&'static [u8]];

/// Tries one input.
pub fn run(input: &[u8]) {
    let known =
        KnownHosts::new(["sentry.acme.example:8443", "[::1]:9000"].into_iter().map(ToOwned::to_owned));
    if input.windows(BASE.len()).any(|window| window.eq_ignore_ascii_case(BASE.as_bytes())) {
        return;
    }
    let value = text::value(input);
    check(&value, &known, &rewrite_link, &[b"/api/0/"]);
    check(&value, &known, &rewrite_location, &[b"/api/0/", b"/oauth/"]);
    // A base that is a known host itself.
    let upon_itself = |value: &HeaderValue| rewrite_link(value, "https://sentry.io", &known);
    if let Some(once) = upon_itself(&value) {
        assert_eq!(upon_itself(&once), None, "rewriting twice is not rewriting once");
    }
}

fn check(
    value: &HeaderValue,
    known: &KnownHosts,
    rewrite: &dyn Fn(&HeaderValue, &str, &KnownHosts) -> Option<HeaderValue>,
    paths: Paths,
) {
    let Some(rewritten) = rewrite(value, BASE, known) else { return };
    assert_eq!(rewrite(&rewritten, BASE, known), None, "rewriting twice is not rewriting once");
    let mut original = value.as_bytes();
    let mut pieces = split(rewritten.as_bytes(), BASE.as_bytes()).into_iter();
    original = original.strip_prefix(pieces.next().unwrap()).expect("what stands before the first URL stays");
    for piece in pieces {
        assert!(paths.iter().any(|path| piece.starts_with(path)), "no path of the API: {piece:?}");
        let (origin, rest) = split_origin(original);
        assert!(known.is_known(origin), "{origin:?} is not known");
        original = rest.strip_prefix(piece).expect("what follows an origin stays");
    }
    assert_eq!(original, b"", "nothing is lost at the end");
}

/// Splits a URL into its authority and what follows.
fn split_origin(url: &[u8]) -> (&str, &[u8]) {
    let scheme = if url[..8].eq_ignore_ascii_case(b"https://") { 8 } else { 7 };
    assert!(
        url[..scheme].eq_ignore_ascii_case(&b"https://"[..scheme])
            || url[..7].eq_ignore_ascii_case(b"http://")
    );
    let rest = &url[scheme..];
    let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    (std::str::from_utf8(&rest[..end]).unwrap(), &rest[end..])
}

fn split<'a>(mut text: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while let Some(place) = text.windows(by.len()).position(|window| window == by) {
        pieces.push(&text[..place]);
        text = &text[place + by.len()..];
    }
    pieces.push(text);
    pieces
}

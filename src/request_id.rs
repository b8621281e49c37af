//! The name of one request, by which its lines in the client's log, in ours and in upstream's are found together.
//!
//! A client's own is taken where it is a short plain word that is no credential; otherwise one is made here.
//!
//! Invariants: no two ids that one process makes are the same; nothing of Sentry's tokens' shapes becomes an id
//! (64 hexadecimal digits are too long, `sntry…` is refused), since ids are logged.
//! Not here: where ids are told (`proxy`).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The field that carries the id, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken from a client, in bytes: shorter than a token of 64 digits.
const LONGEST: usize = 48;

/// What every token of Sentry's begins with, but for those of 64 digits.
const TOKEN_PREFIX: &str = "sntry";

/// The name of one request; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Origin);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// The client's own.
    Given(HeaderValue),
    /// Ours: the number that its digits spell.
    Made(u64),
}

impl RequestId {
    /// Takes a client's own id, if it may be one.
    pub fn given(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let begins_a_token = bytes
            .get(..TOKEN_PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(TOKEN_PREFIX.as_bytes()));
        let may_be_one =
            (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(is_plain) && !begins_a_token;
        may_be_one.then(|| Self(Origin::Given(value.clone())))
    }

    /// Makes an id of a number.
    pub const fn made(number: u64) -> Self {
        Self(Origin::Made(number))
    }

    /// Returns the id as the value of a field.
    #[expect(clippy::missing_panics_doc, reason = "hexadecimal digits are a field value")]
    pub fn field_value(&self) -> HeaderValue {
        match &self.0 {
            Origin::Given(value) => value.clone(),
            Origin::Made(_) => {
                HeaderValue::try_from(self.to_string()).expect("hexadecimal digits are a field value")
            }
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            // An id is ASCII: nothing else is taken.
            Origin::Given(value) => formatter.write_str(value.to_str().unwrap_or_default()),
            Origin::Made(number) => write!(formatter, "{number:016x}"),
        }
    }
}

/// Gives every request its id.
#[derive(Debug)]
pub struct RequestIds {
    next: AtomicU64,
}

impl RequestIds {
    /// Begins at a number that is another one for each process.
    pub const fn starting_at(number: u64) -> Self {
        Self { next: AtomicU64::new(number) }
    }

    /// Takes the id out of a request's fields, or makes one. Two ids are none.
    pub fn take(&self, fields: &mut HeaderMap) -> RequestId {
        let mut values = fields.get_all(X_REQUEST_ID).iter();
        let given = match (values.next(), values.next()) {
            (Some(value), None) => RequestId::given(value),
            (_, _) => None,
        };
        fields.remove(X_REQUEST_ID);
        given.unwrap_or_else(|| RequestId::made(mixed(self.next.fetch_add(1, Ordering::Relaxed))))
    }
}

/// Mixes a number so that neighbours look nothing alike (the finalizer of `SplitMix64`): each number has its own result.
const fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::testing::fields;

    fn taken(pairs: &[(&str, &str)]) -> String {
        let mut fields = fields(pairs);
        let id = RequestIds::starting_at(7).take(&mut fields);
        assert!(!fields.contains_key(X_REQUEST_ID));
        assert_eq!(id.field_value(), id.to_string());
        id.to_string()
    }

    fn is_made(id: &str) -> bool {
        id.len() == 16 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }

    #[test]
    fn a_short_plain_word_is_taken() {
        let longest = "a".repeat(48);
        for id in [
            "a",
            "7",
            "3f2c9a1e-6b1d-4b0e-9a53-0d8a1c7e2f55",
            "Build_7.step-2",
            "_",
            "sntr",
            longest.as_str(),
        ] {
            assert_eq!(taken(&[("x-request-id", id)]), id);
        }
    }

    #[test]
    fn anything_else_gets_one_of_ours() {
        let too_long = "a".repeat(49);
        for id in ["", "two words", "a,b", "a/b", "\"a\"", "ä", "a=b", "{\"a\":1}", too_long.as_str()] {
            assert!(is_made(&taken(&[("x-request-id", id)])), "{id}");
        }
        assert!(is_made(&taken(&[])));
        assert!(is_made(&taken(&[("x-request-id", "one"), ("x-request-id", "two")])));
    }

    #[test]
    fn what_looks_like_a_token_is_never_taken() {
        let digits = "0123456789abcdef".repeat(4);
        for token in
            ["sntryu_canary", "sntrys_eyJpYXQiOjE3MDAwMDAwMDB9_canary", "SNTRYU_canary", "sntry", &digits]
        {
            assert!(is_made(&taken(&[("x-request-id", token)])), "{token}");
        }
    }

    #[test]
    fn no_two_that_are_made_are_the_same() {
        let ids = RequestIds::starting_at(u64::MAX - 100);
        let made: HashSet<_> = (0..10_000).map(|_| ids.take(&mut HeaderMap::new()).to_string()).collect();
        assert_eq!(made.len(), 10_000);
        assert!(made.iter().all(|id| is_made(id)));
    }
}

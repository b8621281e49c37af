//! Reads what Sentry says of its limits in an answer (`sentry-api.md` §2), and writes it anew. Pure.
//!
//! Invariants: reading never fails; what is missing, `None`, negative or no number is absent, and an absent number is
//! never guessed. Not here: what follows from the numbers (`budget::meter`).

use http::header::{HeaderMap, HeaderName, HeaderValue};

const LIMIT: HeaderName = HeaderName::from_static("x-sentry-rate-limit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-sentry-rate-limit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-sentry-rate-limit-reset");
const CONCURRENT_LIMIT: HeaderName = HeaderName::from_static("x-sentry-rate-limit-concurrentlimit");
const CONCURRENT_REMAINING: HeaderName = HeaderName::from_static("x-sentry-rate-limit-concurrentremaining");
const NAMES: [HeaderName; 5] = [LIMIT, REMAINING, RESET, CONCURRENT_LIMIT, CONCURRENT_REMAINING];

/// The end of the year 9999: whatever ends later is no window.
const LATEST_RESET: u64 = 253_402_300_799;

/// The five fields `X-Sentry-Rate-Limit-*`, as far as they can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitFields {
    /// Requests per window.
    pub limit: Option<u32>,
    /// Requests left in the window.
    pub remaining: Option<u32>,
    /// When the window ends, in seconds since the Unix epoch.
    pub reset: Option<u64>,
    /// Requests at a time.
    pub concurrent_limit: Option<u32>,
    /// Requests that may still come at this moment.
    pub concurrent_remaining: Option<u32>,
}

/// Limits, as far as they are stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stated {
    /// Requests per window.
    pub window: Option<u32>,
    /// Requests at a time.
    pub concurrent: Option<u32>,
}

impl LimitFields {
    /// Reads the fields of an answer; `None` where it has none of them, readable or not.
    pub fn read(fields: &HeaderMap) -> Option<Self> {
        NAMES.iter().any(|name| fields.contains_key(name)).then(|| Self {
            // A limit of nothing would be one that no request ever passes; it tells nothing.
            limit: number(fields, &LIMIT).filter(|limit| *limit > 0),
            remaining: number(fields, &REMAINING),
            reset: number(fields, &RESET).filter(|reset| *reset <= LATEST_RESET),
            concurrent_limit: number(fields, &CONCURRENT_LIMIT).filter(|limit| *limit > 0),
            concurrent_remaining: number(fields, &CONCURRENT_REMAINING),
        })
    }

    /// Returns the limits that are stated: per window, at a time; `None` where neither is.
    pub fn stated(&self) -> Option<Stated> {
        let stated = Stated { window: self.limit, concurrent: self.concurrent_limit };
        (stated != Stated::default()).then_some(stated)
    }

    /// Returns whether nothing is left of one of the limits.
    pub fn is_exhausted(&self) -> bool {
        self.remaining == Some(0) || self.concurrent_remaining == Some(0)
    }

    /// Writes the fields that are there.
    pub fn write(&self, fields: &mut HeaderMap) {
        let values = [
            (LIMIT, self.limit.map(HeaderValue::from)),
            (REMAINING, self.remaining.map(HeaderValue::from)),
            (RESET, self.reset.map(HeaderValue::from)),
            (CONCURRENT_LIMIT, self.concurrent_limit.map(HeaderValue::from)),
            (CONCURRENT_REMAINING, self.concurrent_remaining.map(HeaderValue::from)),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                fields.insert(name, value);
            }
        }
    }
}

/// Reads the one value of a field as a number.
fn number<N: std::str::FromStr>(fields: &HeaderMap, name: &HeaderName) -> Option<N> {
    let mut values = fields.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let text = value.to_str().ok()?.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;

    #[test]
    fn the_five_fields_are_read_and_written_anew() {
        let sent = fields(&[
            ("X-Sentry-Rate-Limit-Limit", "40"),
            ("X-Sentry-Rate-Limit-Remaining", "39"),
            ("X-Sentry-Rate-Limit-Reset", "1795460514"),
            ("X-Sentry-Rate-Limit-ConcurrentLimit", "25"),
            ("X-Sentry-Rate-Limit-ConcurrentRemaining", " 24 "),
        ]);
        let read = LimitFields::read(&sent).unwrap();
        let expected = LimitFields {
            limit: Some(40),
            remaining: Some(39),
            reset: Some(1_795_460_514),
            concurrent_limit: Some(25),
            concurrent_remaining: Some(24),
        };
        assert_eq!(read, expected);
        let mut written = HeaderMap::new();
        read.write(&mut written);
        assert_eq!(LimitFields::read(&written), Some(expected));
    }

    #[test]
    fn what_is_no_number_is_absent() {
        let far = fields(&[("x-sentry-rate-limit-reset", "18446744073709551615")]);
        assert_eq!(LimitFields::read(&far), Some(LimitFields::default()));
        let nothing = Some(LimitFields::default());
        for value in ["None", "", "-1", "+1", "1.5", "forty", "99999999999999999999999", "1, 2"] {
            let name = "x-sentry-rate-limit-limit";
            assert_eq!(LimitFields::read(&fields(&[(name, value)])), nothing, "{value}");
            let both = fields(&[(name, "40"), (name, value)]);
            assert_eq!(LimitFields::read(&both), nothing, "several say nothing: {value}");
        }
        assert_eq!(LimitFields::read(&fields(&[("x-sentry-rate-limit-limit", "0")])), nothing);
        assert_eq!(LimitFields::read(&HeaderMap::new()), None);
    }
}

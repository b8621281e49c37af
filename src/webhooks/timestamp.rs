//! Checks when a webhook says that it was sent. Pure.
//!
//! The time is not signed: whoever has got hold of a webhook can write any. So it keeps out what lay about somewhere, and
//! shows clocks that differ; it proves nothing. Not here: replays (`webhooks::intake`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

use crate::webhooks::refusal::Refusal;

/// The field that carries the time, in seconds since the Unix epoch.
const FIELD: &str = "sentry-hook-timestamp";

/// How far from now it may be, either way.
const TOLERANCE: Duration = Duration::from_mins(10);

/// Checks the time of a webhook against `now`.
///
/// # Errors
/// It says no time, or one that is too far away.
pub fn check(fields: &HeaderMap, now: SystemTime) -> Result<(), Refusal> {
    let sent = read(fields).ok_or(Refusal::NoTime)?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if sent.abs_diff(now) > TOLERANCE { Err(Refusal::Outdated) } else { Ok(()) }
}

/// Returns the time since the Unix epoch that exactly one field says.
fn read(fields: &HeaderMap) -> Option<Duration> {
    let mut values = fields.get_all(FIELD).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn verdict(values: &[&[u8]]) -> Result<(), Refusal> {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(FIELD, HeaderValue::from_bytes(value).unwrap());
        }
        check(&fields, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn a_time_may_be_ten_minutes_from_now_either_way() {
        for (sent, expected) in [
            (NOW, Ok(())),
            (NOW - 600, Ok(())),
            (NOW + 600, Ok(())),
            (NOW - 601, Err(Refusal::Outdated)),
            (NOW + 601, Err(Refusal::Outdated)),
            (0, Err(Refusal::Outdated)),
            (u64::MAX, Err(Refusal::Outdated)),
        ] {
            assert_eq!(verdict(&[sent.to_string().as_bytes()]), expected, "{sent}");
        }
    }

    #[test]
    fn a_fraction_of_a_second_counts() {
        let mut fields = HeaderMap::new();
        fields.append(FIELD, HeaderValue::from(NOW - 600));
        let now = UNIX_EPOCH + Duration::from_secs(NOW) + Duration::from_millis(1);
        assert_eq!(check(&fields, now), Err(Refusal::Outdated));
    }

    #[test]
    fn what_is_no_number_of_seconds_or_not_one_is_no_time() {
        let now = NOW.to_string();
        for values in [
            &[][..],
            &[&b""[..]],
            &[b"+1700000000"],
            &[b"-1"],
            &[b"1700000000.5"],
            &[b"17000000000000000000000"],
            &[b"2023-11-14T22:13:20Z"],
            &[b"\xff"],
            &[now.as_bytes(), now.as_bytes()],
        ] {
            assert_eq!(verdict(values), Err(Refusal::NoTime), "{values:?}");
        }
    }
}

//! What upstream's bodies say, so that a client can tell whether one is whole, for its token, and for its URL.
//!
//! Not here: who has which token is no secret here, but no body and no log line may hold one.

use std::time::Duration;

use serde_json::Value;

/// How many tokens there are.
pub(crate) const MARKS: u64 = 8;

/// What every token, the proxy's own secrets included, begins with: none of the proxy's lines may hold it.
pub(crate) const TRACER: &str = "50aced0c0ffee50a";

/// Returns the token of a mark.
pub(crate) fn token(mark: u64) -> String {
    format!("sntryu_{TRACER}{mark:048x}")
}

/// Returns the mark of the token in an `Authorization` field.
pub(crate) fn mark_of(authorization: &str) -> Option<u64> {
    let digits = authorization.strip_prefix("Bearer sntryu_")?.strip_prefix(TRACER)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Makes a body for a mark and a target, with as many bytes of filling.
pub(crate) fn body(mark: u64, target: &str, made: Duration, filling: usize) -> String {
    let made = made.as_millis();
    let filling = "f".repeat(filling);
    let said = format!(r#"{{"mark":{mark},"target":"{target}","made":{made},"filling":"{filling}""#);
    let sum = sum_of(said.as_bytes());
    format!(r#"{said},"sum":"{sum:016x}"}}"#)
}

/// Returns when a body was made.
///
/// # Errors
/// It is not whole, or not for this mark and target.
pub(crate) fn check(body: &[u8], mark: u64, target: &str) -> Result<Duration, String> {
    let Ok(text) = std::str::from_utf8(body) else { return Err("a body that is no text".to_owned()) };
    let excerpt = || text.chars().take(120).collect::<String>();
    let Some((said, rest)) = text.rsplit_once(r#","sum":""#) else {
        return Err(format!("a body of {} bytes without a sum: {}", body.len(), excerpt()));
    };
    if rest != format!("{:016x}\"}}", sum_of(said.as_bytes())) {
        return Err(format!("a body whose sum is wrong: {}", excerpt()));
    }
    let value: Value = serde_json::from_slice(body).map_err(|_| format!("no JSON: {}", excerpt()))?;
    let (whose, which) = (value.get("mark"), value.get("target"));
    if whose.and_then(Value::as_u64) != Some(mark) {
        return Err(format!("the body of token {whose:?}, asked for with token {mark}"));
    }
    if which.and_then(Value::as_str) != Some(target) {
        return Err(format!("the body of {which:?}, asked for was {target}"));
    }
    Ok(Duration::from_millis(value.get("made").and_then(Value::as_u64).unwrap_or_default()))
}

/// Returns a sum that changes with every byte (FNV-1a).
pub(crate) fn sum_of(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

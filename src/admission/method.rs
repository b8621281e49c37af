//! Checks which methods go on, and how far. Pure.
//!
//! Invariant: whatever has an effect beyond upstream ends here. Not here: which methods the cache may answer (`admission`).

use http::Method;
use http::header::{self, HeaderMap};

use crate::handling::{Refusal, RefusalReason};

/// Longest name of a method, in bytes: those that are registered have up to 17 (`UPDATEREDIRECTREF`).
const LONGEST: usize = 32;

/// Refuses a method that a reverse proxy does not forward.
pub fn check(method: &Method) -> Result<(), Refusal> {
    // CONNECT asks for a tunnel; TRACE would show the credential to whoever can make a browser send it.
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(Refusal::new(
            RefusalReason::MethodNotAllowed,
            "This proxy does not forward this method.",
        ));
    }
    if LONGEST < method.as_str().len() {
        return Err(Refusal::new(RefusalReason::MethodNotAllowed, "The method's name is too long."));
    }
    Ok(())
}

/// "Each intermediary that receives a TRACE or OPTIONS request containing a Max-Forwards header field MUST check and
/// update its value prior to forwarding the request" ([RFC 9110 §7.6.2]).
///
/// [RFC 9110 §7.6.2]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.2
pub fn check_max_forwards(fields: &mut HeaderMap) -> Result<(), Refusal> {
    let left =
        fields.get(header::MAX_FORWARDS).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    match left {
        // "If the received value is zero (0), the intermediary MUST NOT forward the request".
        Some(0) => Err(Refusal::new(
            RefusalReason::MethodNotAllowed,
            "Max-Forwards is 0: the request ends at this proxy.",
        )),
        Some(left) => {
            fields.insert(header::MAX_FORWARDS, (left - 1).into());
            Ok(())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_is_not_taken() {
        let named = |length| check(&Method::from_bytes("M".repeat(length).as_bytes()).unwrap());
        assert_eq!(named(32), Ok(()));
        assert_eq!(named(33).unwrap_err().reason, RefusalReason::MethodNotAllowed);
    }
}

//! Checks that nobody on the way can take a request's body for longer or shorter than we do. Pure.
//!
//! The HTTP library has read the framing already, and refused what contradicts itself; where two readings of it are known,
//! it has taken one. Here everything is refused that has two.
//!
//! Invariant: a body that passes is framed by `chunked` alone, by one length, or by HTTP/2. Not here: reading it.

use http::header::{self, HeaderMap};

use crate::handling::{Refusal, RefusalReason};

/// Refuses a request whose transfer coding is anything but `chunked`, once.
pub fn check(fields: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = fields.get_all(header::TRANSFER_ENCODING).iter();
    let is_plain = match (codings.next(), codings.next()) {
        (None, _) => true,
        // A list that ends in it would be read by its end alone, and the codings before it would reach upstream untold.
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if is_plain {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalReason::BadRequestBody,
        "The only transfer coding that is taken here is chunked, once.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;

    #[test]
    fn a_body_is_chunked_once_or_not_at_all() {
        let check = |values: &[&str], expected: bool| {
            let pairs: Vec<_> = values.iter().map(|value| ("transfer-encoding", *value)).collect();
            assert_eq!(check(&fields(&pairs)).is_ok(), expected, "{values:?}");
        };
        check(&[], true);
        check(&["chunked"], true);
        check(&["Chunked"], true);
        for values in [
            &["gzip, chunked"][..],
            &["identity, chunked"],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["identity", "chunked"],
            &[", chunked"],
            &["chunked;q=1"],
            &[""],
        ] {
            check(values, false);
        }
    }
}

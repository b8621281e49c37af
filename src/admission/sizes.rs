//! Decides how large a request may be: its fields and its body. Pure.
//!
//! Over HTTP/1.1 the server's parser has bounds of its own, a little above these, so that mostly we are the ones who say no,
//! and why. Invariant: what is not known to be too large yet is bounded while it is sent (`proxy::forward`).
//! Not here: the request target (`admission`), because its length is refused with a status of its own.

use http::header::HeaderMap;

use crate::admission::BodyFraming;
use crate::config::listen::ListenConfig;
use crate::handling::{Refusal, RefusalReason};

/// The answer to a request whose body is too large.
pub const BODY_TOO_LARGE: Refusal = Refusal::new(
    RefusalReason::BodyTooLarge,
    "The request's body is larger than this proxy takes (listen.max_body_bytes).",
);

/// How many bytes a field takes besides its name and its value, as HTTP/2 counts ([RFC 9113 §6.5.2]).
///
/// [RFC 9113 §6.5.2]: https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2
const FIELD_OVERHEAD: usize = 32;

/// How large a request may be.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    fields: usize,
    field_bytes: u64,
    body_bytes: u64,
}

impl Sizes {
    /// Takes the limits from the configuration.
    pub fn new(listen: &ListenConfig) -> Self {
        Self {
            fields: listen.max_header_count,
            field_bytes: listen.max_header_bytes.as_u64(),
            body_bytes: listen.max_body_bytes.as_u64(),
        }
    }

    /// Returns the most bytes of a body.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Checks the fields, and the body as far as its length is known.
    ///
    /// # Errors
    /// When either is too large.
    pub fn check(&self, fields: &HeaderMap, body: BodyFraming) -> Result<(), Refusal> {
        if self.fields < fields.len() {
            return Err(Refusal::new(
                RefusalReason::HeadTooLarge,
                "The request has more fields than this proxy takes (listen.max_header_count).",
            ));
        }
        let sizes = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD);
        // What there is in memory can be counted.
        if self.field_bytes < sizes.sum::<usize>() as u64 {
            return Err(Refusal::new(
                RefusalReason::HeadTooLarge,
                "The request's fields are larger than this proxy takes (listen.max_header_bytes).",
            ));
        }
        match body {
            BodyFraming::Known(length) if self.body_bytes < length => Err(BODY_TOO_LARGE),
            BodyFraming::Absent | BodyFraming::Known(_) | BodyFraming::Unknown => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;
    use crate::config::load;
    use crate::testing::fields;

    fn check(pairs: &[(&str, &str)], body: BodyFraming) -> Option<RefusalReason> {
        let mut listen = load::defaults().listen;
        listen.max_header_count = 2;
        listen.max_header_bytes = ByteSize::b(100);
        listen.max_body_bytes = ByteSize::b(10);
        Sizes::new(&listen).check(&fields(pairs), body).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn what_is_larger_than_allowed_is_refused_and_what_is_as_large_is_not() {
        let (a, b) = (("a", "1"), ("b", "2"));
        assert_eq!(check(&[a, b], BodyFraming::Known(10)), None);
        assert_eq!(check(&[a, b, b], BodyFraming::Absent), Some(RefusalReason::HeadTooLarge));
        let long = "x".repeat(100 - FIELD_OVERHEAD - 1);
        assert_eq!(check(&[("a", &long)], BodyFraming::Unknown), None);
        assert_eq!(check(&[("ab", &long)], BodyFraming::Unknown), Some(RefusalReason::HeadTooLarge));
        assert_eq!(check(&[], BodyFraming::Known(11)), Some(RefusalReason::BodyTooLarge));
    }
}

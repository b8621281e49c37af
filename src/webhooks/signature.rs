//! Tells whether a body is signed by whoever knows the secret: HMAC-SHA256, in lower-case hexadecimal digits.
//!
//! Sentry signs the body and nothing else ([`Sentry-Hook-Signature`]).
//!
//! Invariants: signatures are compared in constant time; neither secret nor signature is ever printed.
//! Not here: what a wrong one is answered with (`webhooks::refusal`).
//!
//! [`Sentry-Hook-Signature`]: https://docs.sentry.io/integrations/integration-platform/webhooks/

use std::fmt;

use aws_lc_rs::hmac;
use http::HeaderMap;

use crate::config::Secret;

/// The field that carries the signature.
const FIELD: &str = "sentry-hook-signature";

/// How many bytes a signature has.
const LENGTH: usize = 32;

/// A signature that has the right form, whatever it signs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; LENGTH]);

impl Signature {
    /// Reads the signature of a webhook: the value of exactly one field.
    pub fn read(fields: &HeaderMap) -> Option<Self> {
        let mut values = fields.get_all(FIELD).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let (pairs, []) = value.as_bytes().as_chunks::<2>() else { return None };
        let pairs = <&[[u8; 2]; LENGTH]>::try_from(pairs).ok()?;
        let mut signature = [0; LENGTH];
        for (byte, [high, low]) in signature.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(signature))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Signature([redacted])")
    }
}

/// Returns the value of a lower-case hexadecimal digit.
const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Knows the secret.
pub struct Verifier(hmac::Key);

impl Verifier {
    /// Creates the verifier.
    pub fn new(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()))
    }

    /// Returns whether the signature is that of the body.
    pub fn accepts(&self, signature: Signature, body: &[u8]) -> bool {
        hmac::verify(&self.0, body, &signature.0).is_ok()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Verifier([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// HMAC-SHA256 of [`BODY`] under [`SECRET`], as `openssl dgst -sha256 -hmac` tells it.
    const SIGNATURE: &str = "d24ab1e8400329ff5ac4d52e33e447c1690aca74ae8b8cb3885b3744662da7b0";
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const BODY: &[u8] = br#"{"action":"resolved"}"#;

    fn read(values: &[&str]) -> Option<Signature> {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(FIELD, HeaderValue::from_str(value).unwrap());
        }
        Signature::read(&fields)
    }

    fn verifier() -> Verifier {
        Verifier::new(&Secret::new(SECRET.to_owned()))
    }

    #[test]
    fn the_signature_of_the_body_is_accepted() {
        assert!(verifier().accepts(read(&[SIGNATURE]).unwrap(), BODY));
    }

    #[test]
    fn a_body_that_differs_by_one_byte_is_not() {
        let signature = read(&[SIGNATURE]).unwrap();
        for index in 0..BODY.len() {
            let mut body = BODY.to_vec();
            body[index] ^= 1;
            assert!(!verifier().accepts(signature, &body), "{index}");
        }
        assert!(!verifier().accepts(signature, &[BODY, b" "].concat()));
        assert!(!verifier().accepts(signature, &[]));
    }

    #[test]
    fn a_signature_that_differs_by_one_digit_is_not() {
        for index in 0..SIGNATURE.len() {
            let mut digits = SIGNATURE.as_bytes().to_vec();
            digits[index] = if digits[index] == b'0' { b'1' } else { b'0' };
            let signature = read(&[std::str::from_utf8(&digits).unwrap()]).unwrap();
            assert!(!verifier().accepts(signature, BODY), "{index}");
        }
    }

    #[test]
    fn the_signature_under_another_secret_is_not() {
        let other = Verifier::new(&Secret::new("another secret of the right length".to_owned()));
        assert!(!other.accepts(read(&[SIGNATURE]).unwrap(), BODY));
    }

    #[test]
    fn what_has_another_form_is_no_signature() {
        let upper = SIGNATURE.to_uppercase();
        let (short, long) = (&SIGNATURE[2..], format!("{SIGNATURE}00"));
        let prefixed = format!("sha256={SIGNATURE}");
        for values in [
            &[][..],
            &[""],
            &[&upper],
            &[short],
            &[&SIGNATURE[1..]],
            &[&long],
            &[&prefixed],
            &[&"g".repeat(64)],
            &[SIGNATURE, SIGNATURE],
        ] {
            assert_eq!(read(values), None, "{values:?}");
        }
    }

    #[test]
    fn neither_secret_nor_signature_is_printed() {
        let printed = format!("{:?} {:?}", verifier(), read(&[SIGNATURE]));
        assert_eq!(printed, "Verifier([redacted]) Some(Signature([redacted]))");
    }
}

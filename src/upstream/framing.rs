//! Checks how an answer says how long it is, before anybody passes that on, and has a request without a body say so. Pure.
//!
//! The HTTP library has read the framing and takes one of two readings where there are two; what it does not do is take the
//! other one out of the fields.
//!
//! Invariant: an answer that leaves here has at most one `Content-Length`, which is a number, and then no transfer coding.
//! Not here: reading the body.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use thiserror::Error;

/// Says that a request has no body, where its method would have one.
pub fn announce_nothing<B: Body>(request: &mut Request<B>) {
    // "A user agent SHOULD send Content-Length in a request when the method defines a meaning for enclosed content" (RFC 9110
    // §8.6): without it, some servers answer 411.
    let may_have_one = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if may_have_one && request.body().is_end_stream() {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

/// How an answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As it should be.
    Plain,
    /// As if a body followed where none may: one may come all the same.
    Suspect,
}

/// Why an answer's length cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadFraming {
    /// "Such a message might indicate an attempt to perform request smuggling or response splitting and ought to be handled
    /// as an error" (RFC 9112 §6.3).
    #[error("the answer has both a transfer coding and a length")]
    Both,
    /// We ask for no transfer coding, and what is coded so is of no use to anybody here.
    #[error("the answer has a transfer coding that is not taken here")]
    WrongCoding,
    /// Several lengths, or something that is none.
    #[error("the answer's length is no number")]
    BadLength,
}

/// Leaves one length at most, or says why there can be none.
///
/// # Errors
/// When the answer can be read in two ways.
pub fn settle<B>(response: &mut Response<B>) -> Result<Framing, BadFraming> {
    let is_bodiless = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let fields = response.headers_mut();
    let coding = coding(fields)?;
    let length = length(fields)?;
    let framing = match (coding, length) {
        (Coding::Chunked | Coding::Nonsense, Some(_)) => return Err(BadFraming::Both),
        (Coding::Chunked | Coding::Nonsense, None) if is_bodiless => Framing::Suspect,
        (Coding::None, Some(length)) if is_bodiless && length > 0 => Framing::Suspect,
        (_, _) => Framing::Plain,
    };
    if coding == Coding::Nonsense {
        fields.remove(TRANSFER_ENCODING);
    }
    if let Some(length) = length {
        fields.insert(CONTENT_LENGTH, length.into());
    }
    Ok(framing)
}

/// How an answer says that it is coded for the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    /// By a word that stands for nothing, and is no more than a word: the answer ends with its connection.
    Nonsense,
}

/// Codings that there are ([RFC 9112 §7.2]): what they code is not what it says.
///
/// [RFC 9112 §7.2]: https://www.rfc-editor.org/rfc/rfc9112#section-7.2
const CODINGS: [&str; 7] = ["gzip", "x-gzip", "compress", "x-compress", "deflate", "br", "zstd"];

/// Returns how the answer is coded for the transfer.
fn coding(fields: &HeaderMap) -> Result<Coding, BadFraming> {
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let coding = match (codings.next(), codings.next()) {
        (None, _) => return Ok(Coding::None),
        (Some(coding), None) => coding.to_str().map_err(|_| BadFraming::WrongCoding)?.to_ascii_lowercase(),
        (Some(_), Some(_)) => return Err(BadFraming::WrongCoding),
    };
    // "If a Transfer-Encoding header field is present in a response and the chunked transfer coding is not the final encoding,
    // the message body length is determined by reading the connection until it is closed" (RFC 9112 §6.3).
    let is_word =
        !coding.is_empty() && coding.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    match coding.as_str() {
        "chunked" => Ok(Coding::Chunked),
        word if is_word && !word.contains("chunk") && !CODINGS.contains(&word) => Ok(Coding::Nonsense),
        _ => Err(BadFraming::WrongCoding),
    }
}

/// Returns the length that is told, perhaps several times.
fn length(fields: &HeaderMap) -> Result<Option<u64>, BadFraming> {
    let mut told = None;
    for value in fields.get_all(CONTENT_LENGTH) {
        for member in value.to_str().map_err(|_| BadFraming::BadLength)?.split(',') {
            let length = digits(member.trim()).ok_or(BadFraming::BadLength)?;
            if told.replace(length).is_some_and(|before| before != length) {
                return Err(BadFraming::BadLength);
            }
        }
    }
    Ok(told)
}

/// Reads a number that has no sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;

    fn settled(status: u16, pairs: &[(&str, &str)]) -> (Result<Framing, BadFraming>, HeaderMap) {
        let mut response = Response::builder().status(status).body(()).unwrap();
        *response.headers_mut() = fields(pairs);
        (settle(&mut response), response.into_parts().0.headers)
    }

    const CHUNKED: (&str, &str) = ("transfer-encoding", "chunked");

    #[test]
    fn rfc9110_8_6_a_request_that_could_have_a_body_says_when_it_has_none() {
        let told = |method: &str, body: &'static str| {
            let mut request = Request::builder().method(method).body(body.to_owned()).unwrap();
            announce_nothing(&mut request);
            request.headers().get(CONTENT_LENGTH).cloned()
        };
        for method in ["POST", "PUT", "PATCH"] {
            assert_eq!(told(method, "").unwrap(), "0");
            assert_eq!(told(method, "body"), None, "the library tells it");
        }
        assert!(["GET", "HEAD", "DELETE", "post"].iter().all(|method| told(method, "").is_none()));
    }

    #[test]
    fn rfc9112_6_3_one_length_is_left() {
        for lengths in
            [&[("content-length", "5")][..], &[("content-length", "5, 05")], &[("content-length", "5"); 2]]
        {
            let (framing, left) = settled(200, lengths);
            assert_eq!(
                (framing, left),
                (Ok(Framing::Plain), fields(&[("content-length", "5")])),
                "{lengths:?}"
            );
        }
        assert_eq!(settled(200, &[]), (Ok(Framing::Plain), HeaderMap::new()));
        assert_eq!(settled(200, &[CHUNKED]), (Ok(Framing::Plain), fields(&[CHUNKED])));
    }

    #[test]
    fn rfc9112_6_3_what_can_be_read_in_two_ways_is_an_error() {
        let check =
            |pairs: &[(&str, &str)], error| assert_eq!(settled(200, pairs).0, Err(error), "{pairs:?}");
        check(&[CHUNKED, ("content-length", "5")], BadFraming::Both);
        for coding in ["gzip", "gzip, chunked", "chunked, chunked", "a, b", "xchunked", ""] {
            check(&[("transfer-encoding", coding)], BadFraming::WrongCoding);
        }
        check(&[("transfer-encoding", "identity"), ("content-length", "5")], BadFraming::Both);
        check(&[CHUNKED, CHUNKED], BadFraming::WrongCoding);
        for length in ["+5", "-0", "0x5", "", "5,", "5, 6", "18446744073709551616", "five"] {
            check(&[("content-length", length)], BadFraming::BadLength);
        }
        check(&[("content-length", "5"), ("content-length", "6")], BadFraming::BadLength);
    }

    #[test]
    fn rfc9112_6_3_a_coding_that_is_none_ends_with_the_connection_and_is_told_to_nobody() {
        for word in ["identity", "AbC123", "x-none"] {
            assert_eq!(settled(200, &[("transfer-encoding", word)]), (Ok(Framing::Plain), HeaderMap::new()));
        }
    }

    #[test]
    fn a_body_where_none_may_be_is_not_trusted_to_be_absent() {
        for status in [204, 304] {
            assert_eq!(settled(status, &[]).0, Ok(Framing::Plain));
            assert_eq!(settled(status, &[("content-length", "0")]).0, Ok(Framing::Plain));
            assert_eq!(settled(status, &[("content-length", "5")]).0, Ok(Framing::Suspect));
            assert_eq!(settled(status, &[CHUNKED]).0, Ok(Framing::Suspect));
        }
    }
}

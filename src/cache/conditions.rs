//! Answers a client's own preconditions and ranges from a response that is at hand ([RFC 9110 §13], [§14],
//! [RFC 9111 §4.3.2]). Pure.
//!
//! Invariants: a 304 is for those who asked conditionally, of a successful response; a part is cut from one complete
//! response and never put together from several; what cannot be read as a range asks for the whole.
//! Not here: `If-Match` and `If-Unmodified-Since`, which "are not applicable to a cache"; our conditions towards upstream
//! (`cache::stored_response`); several ranges at once ("a server MAY ignore the Range header field").
//!
//! [RFC 9110 §13]: https://www.rfc-editor.org/rfc/rfc9110#section-13
//! [§14]: https://www.rfc-editor.org/rfc/rfc9110#section-14
//! [RFC 9111 §4.3.2]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.2

use std::ops::RangeInclusive;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use crate::headers::dates;

/// A `Last-Modified` this much older than `Date` is a strong validator ([RFC 9110 §8.8.2.2]).
///
/// [RFC 9110 §8.8.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.2.2
const STRONG_AFTER: Duration = Duration::from_secs(1);

/// The response that a client would get without conditions.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'a> {
    /// Its status code.
    pub status: StatusCode,
    /// Its fields, with the validators that this client sees.
    pub fields: &'a HeaderMap,
    /// The length of its content in bytes.
    pub length: usize,
}

/// What a client gets of the selected representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of it.
    Whole,
    /// What the client has is still it.
    NotModified,
    /// The bytes in this range.
    Part(RangeInclusive<usize>),
    /// Nothing: the range begins beyond its end.
    Unsatisfiable,
}

/// Evaluates the preconditions of a request in the order of [RFC 9110 §13.2.2], then its range.
///
/// [RFC 9110 §13.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-13.2.2
pub fn select(method: &Method, request: &HeaderMap, selected: Selected<'_>) -> Selection {
    // "A server MUST ignore all received preconditions if its response to the same request without those conditions
    // … would have been a status code other than a 2xx (Successful) or 412" (RFC 9110 §13.2.1).
    if !selected.status.is_success() {
        return Selection::Whole;
    }
    if is_not_modified(request, selected.fields) {
        return Selection::NotModified;
    }
    // "A server MUST ignore a Range header field received with a request method that is unrecognized or for which range
    // handling is not defined. For this specification, GET is the only method for which range handling is defined"
    // (RFC 9110 §14.2), and 200 the only answer that it makes a 206 of.
    if *method != Method::GET || selected.status != StatusCode::OK || !allows_range(request, selected.fields)
    {
        return Selection::Whole;
    }
    range_of(request, selected.length)
}

/// Returns whether the client has the selected response already.
fn is_not_modified(request: &HeaderMap, selected: &HeaderMap) -> bool {
    if request.contains_key(header::IF_NONE_MATCH) {
        // "A recipient MUST use the weak comparison function when comparing entity tags for If-None-Match."
        let tag = selected.get(header::ETAG).map(|tag| opaque_tag(tag.as_bytes()));
        let mut values = request.get_all(header::IF_NONE_MATCH).iter().map(HeaderValue::as_bytes);
        return values
            .any(|value| value.trim_ascii() == b"*" || tag.is_some_and(|tag| lists_tag(value, tag)));
    }
    // "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match header field."
    let Some(since) = dates::field(request, &header::IF_MODIFIED_SINCE) else { return false };
    // "If the selected representation's last modification date is earlier or equal to the date provided in the field
    // value, the condition is false"; a cache without that date uses `Date`.
    dates::field(selected, &header::LAST_MODIFIED)
        .or_else(|| dates::field(selected, &header::DATE))
        .is_some_and(|modified| modified <= since)
}

/// Evaluates `If-Range` ([RFC 9110 §13.1.5]): the range counts only if the client's part is of this very response.
///
/// [RFC 9110 §13.1.5]: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
fn allows_range(request: &HeaderMap, selected: &HeaderMap) -> bool {
    let mut values = request.get_all(header::IF_RANGE).iter().map(HeaderValue::as_bytes);
    let condition = match (values.next(), values.next()) {
        (None, _) => return true,
        (Some(condition), None) => condition.trim_ascii(),
        (Some(_), Some(_)) => return false,
    };
    if condition.ends_with(b"\"") {
        // "… exactly matches the ETag field value … using the strong comparison function": a weak one never does.
        return !condition.starts_with(b"W/")
            && selected.get(header::ETAG).map(HeaderValue::as_bytes) == Some(condition);
    }
    let (Some(modified), Some(date)) =
        (dates::field(selected, &header::LAST_MODIFIED), dates::field(selected, &header::DATE))
    else {
        return false;
    };
    // "If the HTTP-date validator provided is not a strong validator …, the condition is false"; else "exactly matches".
    let is_strong = date.duration_since(modified).is_ok_and(|age| STRONG_AFTER <= age);
    is_strong && selected.get(header::LAST_MODIFIED).map(HeaderValue::as_bytes) == Some(condition)
}

/// Reads `Range` for a content of this length ([RFC 9110 §14.1.2]).
///
/// [RFC 9110 §14.1.2]: https://www.rfc-editor.org/rfc/rfc9110#section-14.1.2
fn range_of(request: &HeaderMap, length: usize) -> Selection {
    let mut values = request.get_all(header::RANGE).iter();
    let (Some(Ok(value)), None) = (values.next().map(HeaderValue::to_str), values.next()) else {
        return Selection::Whole;
    };
    let Some((unit, set)) = value.split_once('=') else { return Selection::Whole };
    let Some((first, last)) =
        set.trim().split_once('-').filter(|_| unit.trim().eq_ignore_ascii_case("bytes"))
    else {
        return Selection::Whole;
    };
    // "A server that supports range requests MAY ignore or reject a Range header field that contains an invalid
    // ranges-specifier" (§14.2): ignored here. A comma is no digit, so several ranges are the whole.
    match (position(first), position(last)) {
        (Position::Absent, Position::At(suffix)) => suffix_of(suffix, length),
        (Position::At(first), Position::Absent) => part(first, usize::MAX, length),
        (Position::At(first), Position::At(last)) if first <= last => part(first, last, length),
        (Position::Absent | Position::Invalid | Position::At(_), _) => Selection::Whole,
    }
}

/// One end of a range as it is written.
enum Position {
    Absent,
    At(usize),
    Invalid,
}

fn position(text: &str) -> Position {
    match text {
        "" => Position::Absent,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Position::At(digits.parse().unwrap_or(usize::MAX))
        }
        _ => Position::Invalid,
    }
}

/// "If the selected representation is shorter than the specified suffix-length, the entire representation is used."
fn suffix_of(suffix: usize, length: usize) -> Selection {
    if suffix == 0 {
        return Selection::Unsatisfiable;
    }
    part(length.saturating_sub(suffix), usize::MAX, length)
}

/// "If the last-pos value is absent, or if the value is greater than or equal to the current length …, the byte range is
/// interpreted as the remainder of the representation"; one that begins beyond it is unsatisfiable.
fn part(first: usize, last: usize, length: usize) -> Selection {
    match length.checked_sub(1) {
        Some(end) if first <= end => Selection::Part(first..=last.min(end)),
        Some(_) | None => Selection::Unsatisfiable,
    }
}

/// Returns whether a list of entity tags holds this one. Tags may hold commas.
fn lists_tag(list: &[u8], wanted: &[u8]) -> bool {
    let mut rest = list.trim_ascii();
    while !rest.is_empty() {
        let start = opaque_tag(rest);
        let Some(length) = start.get(1..).and_then(|inner| inner.iter().position(|byte| *byte == b'"'))
        else {
            return false;
        };
        let Some((tag, after)) = start.split_at_checked(length + 2) else { return false };
        if tag == wanted {
            return true;
        }
        let Some(comma) = after.iter().position(|byte| *byte == b',') else { return false };
        rest = after.get(comma + 1..).unwrap_or_default().trim_ascii();
    }
    false
}

/// Returns an entity tag without its weakness mark ([RFC 9110 §8.8.3]).
///
/// [RFC 9110 §8.8.3]: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3
pub fn opaque_tag(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const TAG: (&str, &str) = ("etag", "\"a,b\"");
    const LENGTH: usize = 10;

    fn selected(asks: &[(&str, &str)], has: &[(&str, &str)], status: u16) -> Selection {
        let (fields, request) = (fields(has), fields(asks));
        let status = StatusCode::from_u16(status).unwrap();
        select(&Method::GET, &request, Selected { status, fields: &fields, length: LENGTH })
    }

    fn is_304(asks: &[(&str, &str)], has: &[(&str, &str)]) -> bool {
        selected(asks, has, 200) == Selection::NotModified
    }

    #[test]
    fn rfc9110_13_1_2_if_none_match_compares_weakly_over_lists() {
        let check = |condition: &str, expected: bool| {
            assert_eq!(is_304(&[("if-none-match", condition)], &[TAG]), expected, "{condition}");
        };
        check("\"a,b\"", true);
        check("W/\"a,b\"", true);
        check("\"x\", W/\"a,b\" , \"y\"", true);
        check(" * ", true);
        check("\"a\"", false);
        check("a,b", false);
        check("\"unterminated", false);
        check("\"x\" \"a,b\"", false);
        assert!(is_304(&[("if-none-match", "\"x\""), ("if-none-match", "\"a,b\"")], &[TAG]));
        assert!(is_304(&[("if-none-match", "\"a\"")], &[("etag", "W/\"a\"")]));
        assert!(is_304(&[("if-none-match", "*")], &[]));
        assert!(!is_304(&[("if-none-match", "\"\"")], &[]));
    }

    #[test]
    fn rfc9110_13_1_3_if_modified_since_counts_only_without_if_none_match() {
        let since = |text: &str| is_304(&[("if-modified-since", text)], &[("last-modified", MODIFIED)]);
        assert!(since(MODIFIED));
        assert!(since("Sunday, 06-Nov-94 08:49:38 GMT"));
        assert!(!since("Sun Nov  6 08:49:36 1994"));
        assert!(!since("yesterday"));
        assert!(!is_304(&[("if-none-match", "\"other\""), ("if-modified-since", MODIFIED)], &[TAG]));
    }

    #[test]
    fn rfc9111_4_3_2_without_last_modified_the_date_counts() {
        let dated = [("date", MODIFIED)];
        assert!(is_304(&[("if-modified-since", MODIFIED)], &dated));
        assert!(!is_304(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], &dated));
        assert!(!is_304(&[("if-modified-since", MODIFIED)], &[]));
    }

    #[test]
    fn rfc9110_13_2_1_conditions_and_ranges_are_ignored_where_the_answer_is_no_success() {
        let asks = [("if-none-match", "*"), ("range", "bytes=0-1")];
        for status in [301, 404, 500] {
            assert_eq!(selected(&asks, &[TAG], status), Selection::Whole, "{status}");
        }
        assert_eq!(selected(&[("range", "bytes=0-1")], &[], 203), Selection::Whole);
    }

    #[test]
    fn rfc9110_13_2_2_a_condition_comes_before_a_range() {
        let asks = [("if-none-match", "\"a,b\""), ("range", "bytes=0-1")];
        assert_eq!(selected(&asks, &[TAG], 200), Selection::NotModified);
    }

    #[test]
    fn rfc9110_14_1_2_a_range_of_bytes_is_cut_to_what_there_is() {
        let check = |range: &str, expected: Selection| {
            assert_eq!(selected(&[("range", range)], &[], 200), expected, "{range}");
        };
        check("bytes=0-1", Selection::Part(0..=1));
        check("Bytes = 3-3", Selection::Part(3..=3));
        check("bytes=9-", Selection::Part(9..=9));
        check("bytes=0-", Selection::Part(0..=9));
        check("bytes=5-10", Selection::Part(5..=9));
        check("bytes=5-99999999999999999999999", Selection::Part(5..=9));
        check("bytes=-1", Selection::Part(9..=9));
        check("bytes=-10", Selection::Part(0..=9));
        check("bytes=-11", Selection::Part(0..=9));
        for beyond in ["bytes=10-", "bytes=10-12", "bytes=99999999999999999999999-", "bytes=-0"] {
            check(beyond, Selection::Unsatisfiable);
        }
        for unreadable in [
            "bytes=2-1",
            "bytes=-",
            "bytes=",
            "bytes",
            "bytes=a-b",
            "bytes=1-b",
            "bytes=--1",
            "bytes=+1-2",
            "lines=0-1",
        ] {
            check(unreadable, Selection::Whole);
        }
        for several in ["bytes=0-1,3-4", "bytes=0-1, -1", "bytes=0-1,"] {
            check(several, Selection::Whole);
        }
        assert_eq!(selected(&[("range", "bytes=0-1"), ("range", "bytes=2-3")], &[], 200), Selection::Whole);
    }

    #[test]
    fn a_range_of_nothing_is_unsatisfiable_and_one_of_a_head_is_ignored() {
        let none = HeaderMap::new();
        let request = fields(&[("range", "bytes=0-")]);
        let ask = |method, length| {
            select(&method, &request, Selected { status: StatusCode::OK, fields: &none, length })
        };
        assert_eq!(ask(Method::GET, 0), Selection::Unsatisfiable);
        assert_eq!(ask(Method::GET, 1), Selection::Part(0..=0));
        assert_eq!(ask(Method::HEAD, 1), Selection::Whole);
    }

    #[test]
    fn rfc9110_13_1_5_if_range_compares_strongly() {
        let check = |condition: &str, has: &[(&str, &str)], expected: Selection| {
            let asks = [("range", "bytes=0-1"), ("if-range", condition)];
            assert_eq!(selected(&asks, has, 200), expected, "{condition} for {has:?}");
        };
        let later = ("date", "Sun, 06 Nov 1994 08:49:38 GMT");
        let modified = ("last-modified", MODIFIED);
        check("\"a,b\"", &[TAG], Selection::Part(0..=1));
        check("\"a\"", &[TAG], Selection::Whole);
        check("W/\"a,b\"", &[TAG], Selection::Whole);
        check("W/\"a\"", &[("etag", "W/\"a\"")], Selection::Whole);
        check("\"a\"", &[], Selection::Whole);
        check(MODIFIED, &[modified, later], Selection::Part(0..=1));
        check(MODIFIED, &[modified, ("date", MODIFIED)], Selection::Whole);
        check(MODIFIED, &[modified], Selection::Whole);
        check("Sun, 06 Nov 1994 08:49:36 GMT", &[modified, later], Selection::Whole);
        check("Sun, 06 Nov 1994 08:49:38 GMT", &[modified, later], Selection::Whole);
        let twice = [("range", "bytes=0-1"), ("if-range", "\"a,b\""), ("if-range", "\"a,b\"")];
        assert_eq!(selected(&twice, &[TAG], 200), Selection::Whole);
    }
}

//! Conditions and ranges: the request's fields, an empty line, the selected response's fields, an empty line, its body.
//!
//! Holds: a part lies within the content and is what an independent reading of `Range` says; nothing but a condition that the
//! client has set makes a 304; an answer that is no success is always whole.

use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use sentrybox::cache::conditions::{Selected, Selection, select};
use sentrybox::headers::dates;

use crate::text;

/// Tries one input.
pub fn run(input: &[u8]) {
    let (request, rest) = text::first_part(input);
    let (selected, content) = text::first_part(rest);
    let (request, fields) = (text::fields(request), text::fields(selected));
    let of = |status, method: &Method| {
        select(method, &request, Selected { status, fields: &fields, length: content.len() })
    };
    let whole = of(StatusCode::NOT_FOUND, &Method::GET);
    assert_eq!(whole, Selection::Whole, "conditions are for a success");
    let head = of(StatusCode::OK, &Method::HEAD);
    assert!(matches!(head, Selection::Whole | Selection::NotModified), "a range is for GET: {head:?}");
    let selection = of(StatusCode::OK, &Method::GET);
    assert_eq!(selection == Selection::NotModified, head == Selection::NotModified);
    check(&selection, &request, &fields, content.len());
    for (_, value) in request.iter().chain(&fields) {
        value.to_str().map(check_date).unwrap_or_default();
    }
}

fn check(selection: &Selection, request: &HeaderMap, fields: &HeaderMap, length: usize) {
    match selection {
        Selection::Whole => {
            let tag = fields.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
            let asked = request.get(header::IF_NONE_MATCH);
            let is_plain = |tag: &[u8]| tag.len() > 1 && !tag[1..tag.len() - 1].contains(&b'"');
            if let (Some(tag), Some(asked)) = (tag, asked)
                && tag.as_bytes().ends_with(b"\"")
                && is_plain(tag.as_bytes())
            {
                assert_ne!(tag, asked, "the very tag is not recognized");
            }
        }
        Selection::NotModified => {
            let conditions = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];
            assert!(conditions.iter().any(|name| request.contains_key(name)), "nobody asked");
        }
        Selection::Part(range) => {
            assert!(range.start() <= range.end() && *range.end() < length, "{range:?} of {length}");
            let told = text_of(request);
            let ends: Vec<_> =
                told.split(['=', '-']).skip(1).map(|end| end.trim().parse::<usize>().ok()).collect();
            let expected = match ends.as_slice() {
                [Some(first), last] => *first..=last.unwrap_or(usize::MAX).min(length - 1),
                [None, Some(suffix)] => length.saturating_sub(*suffix)..=length - 1,
                // Numbers beyond all bounds, which mean the end.
                _ => return,
            };
            assert_eq!(*range, expected, "{told}");
        }
        Selection::Unsatisfiable => assert!(request.contains_key(header::RANGE)),
    }
}

fn text_of(request: &HeaderMap) -> String {
    request.get(header::RANGE).map(|value| value.to_str().unwrap().to_owned()).unwrap()
}

/// A date that is read is the same when it is written and read again.
fn check_date(text: &str) {
    if let Some(moment) = dates::parse(text) {
        assert_eq!(dates::parse(&httpdate::fmt_http_date(moment)), Some(moment), "{text}");
    }
}

//! How the targets read their inputs: as text, so that a corpus can be read, written and understood by people.
//!
//! Fields stand one on a line, `name: value`, up to an empty line; what is no field is skipped, so that every input is one.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Splits off the first line; both without its end.
pub(crate) fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    split_at(input, b"\n")
}

/// Splits at the first empty line.
pub(crate) fn first_part(input: &[u8]) -> (&[u8], &[u8]) {
    match input.strip_prefix(b"\n") {
        Some(rest) => (&[], rest),
        None => split_at(input, b"\n\n"),
    }
}

fn split_at<'a>(input: &'a [u8], mark: &[u8]) -> (&'a [u8], &'a [u8]) {
    match input.windows(mark.len()).position(|window| window == mark) {
        Some(place) => (&input[..place], &input[place + mark.len()..]),
        None => (input, &[]),
    }
}

/// Reads fields, in their order.
pub(crate) fn fields(lines: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    fields
}

/// Returns a value of a field made of bytes, with a dash for each that no field may hold.
pub(crate) fn value(bytes: &[u8]) -> HeaderValue {
    let allowed = |byte: &u8| if *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f) { *byte } else { b'-' };
    HeaderValue::from_bytes(&bytes.iter().map(allowed).collect::<Vec<_>>()).unwrap()
}

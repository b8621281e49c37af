//! `Via` ([RFC 9110 §7.6.3]): by which proxies a request has come, and how often by us.
//!
//! The comment tells instances apart, so that one knows itself.
//!
//! Invariants: what stands in a comment is no proxy; no value hides the members of another field, nor, by a comment that
//! does not end, those of its own. Not here: what follows from it (`admission`).
//!
//! [RFC 9110 §7.6.3]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.3

use http::Version;
use http::header::{self, HeaderMap, HeaderValue};

use crate::headers::PSEUDONYM;

/// Appends this proxy, to which a request came by this version.
pub fn append(fields: &mut HeaderMap, version: Version, instance: &str) {
    let protocol = match version {
        Version::HTTP_09 | Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    };
    if let Ok(value) = HeaderValue::from_str(&format!("{protocol} {PSEUDONYM} ({instance})")) {
        fields.append(header::VIA, value);
    }
}

/// How often a request has passed a proxy of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passages {
    /// Members with our pseudonym.
    pub by_name: usize,
    /// Members with our pseudonym and this very instance.
    pub by_instance: usize,
}

/// Counts the members that are ours.
pub fn passages(fields: &HeaderMap, instance: &str) -> Passages {
    let mut passages = Passages { by_name: 0, by_instance: 0 };
    for value in fields.get_all(header::VIA) {
        for comment in members(value.as_bytes()).into_iter().filter_map(comment_of_ours) {
            passages.by_name += 1;
            if comment == instance.as_bytes() {
                passages.by_instance += 1;
            }
        }
    }
    passages
}

/// Splits a value at the commas that stand outside comments; at every comma where a comment does not end.
fn members(value: &[u8]) -> Vec<&[u8]> {
    let mut nesting = Nesting::default();
    let members = value.split(|byte| nesting.step(*byte) == 0 && *byte == b',').collect();
    if nesting.depth == 0 { members } else { value.split(|byte| *byte == b',').collect() }
}

/// How many comments are open.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    is_escaped: bool,
}

impl Nesting {
    /// Takes the next byte, and returns how many are open then.
    fn step(&mut self, byte: u8) -> usize {
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' => self.is_escaped = 0 < self.depth,
            b'(' => self.depth += 1,
            b')' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth
    }
}

/// Returns what the comment of a member says, if the member is a proxy of our name.
fn comment_of_ours(member: &[u8]) -> Option<&[u8]> {
    // "received-protocol RWS received-by [ RWS comment ]".
    let member = member.trim_ascii();
    let after_protocol = member.iter().position(u8::is_ascii_whitespace)?;
    let (_, rest) = member.split_at_checked(after_protocol)?;
    let rest = rest.trim_ascii_start();
    let end = rest.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'(').unwrap_or(rest.len());
    let (name, comment) = rest.split_at_checked(end)?;
    let comment = comment.trim_ascii();
    let comment =
        comment.strip_prefix(b"(").and_then(|comment| comment.strip_suffix(b")")).unwrap_or(comment);
    name.eq_ignore_ascii_case(PSEUDONYM.as_bytes()).then_some(comment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;

    fn count(values: &[&str]) -> (usize, usize) {
        let pairs: Vec<_> = values.iter().map(|value| ("via", *value)).collect();
        let Passages { by_name, by_instance } = passages(&fields(&pairs), "here");
        (by_name, by_instance)
    }

    #[test]
    fn our_passages_are_counted_by_name_and_by_instance() {
        let mut map = fields(&[("via", "1.1 edge, 1.1 sentrybox (aa)")]);
        append(&mut map, Version::HTTP_2, "bb");
        assert_eq!(passages(&map, "bb"), Passages { by_name: 2, by_instance: 1 });
        assert_eq!(passages(&map, "cc"), Passages { by_name: 2, by_instance: 0 });
    }

    #[test]
    fn a_member_is_found_in_every_spelling() {
        for value in [
            "1.1 sentrybox (here)",
            "HTTP/1.1 SentryBox  (here)",
            "1.1\tsentrybox(here)",
            ",, 2 edge , 1.1 sentrybox (here),",
            "1.1 edge (a, (nested, b) \\), still), 1.1 sentrybox (here)",
            // A comment that does not end hides nothing.
            "1.1 edge (oops, 1.1 sentrybox (here)",
            "1.1 edge oops), 1.1 sentrybox (here)",
        ] {
            assert_eq!(count(&[value]), (1, 1), "{value}");
        }
        assert_eq!(count(&["1.1 edge (", "1.1 sentrybox (here)"]), (1, 1));
        let mut map = HeaderMap::new();
        map.append(header::VIA, HeaderValue::from_bytes(b"1.1 edge (\xfc), 1.1 sentrybox (here)").unwrap());
        assert_eq!(passages(&map, "here"), Passages { by_name: 1, by_instance: 1 });
    }

    #[test]
    fn what_only_looks_like_a_member_is_none() {
        for value in [
            "1.1 x (sentrybox)",
            "1.1 x (by way of, 1.1 sentrybox (here), 1.1 sentrybox (here))",
            "sentrybox",
            "1.1 sentrybox2 (here)",
            "1.1 not-sentrybox (here)",
            "1.1 sentrybox.example (here)",
            "",
        ] {
            assert_eq!(count(&[value]), (0, 0), "{value}");
        }
        assert_eq!(count(&["1.1 sentrybox (there)", "1.1 sentrybox"]), (2, 0));
    }
}

//! Takes `Cache-Control` and its targeted variants apart: names in lower case, arguments without their quotes.
//!
//! Invariant: what cannot be read could mean anything, and reads as [`UNREADABLE`]. Not here: what directives mean.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// Stands in for what cannot be read: the name of no directive.
pub const UNREADABLE: &str = "";

/// Hands over the members of every field of this name.
pub fn for_each(fields: &HeaderMap, field: &HeaderName, mut take: impl FnMut(&str, Option<&str>)) {
    for value in fields.get_all(field) {
        // Bytes outside ASCII can only stand in an argument that no directive of ours has.
        for (name, argument) in Members::of(&String::from_utf8_lossy(value.as_bytes())) {
            take(&name, argument.as_deref());
        }
    }
}

/// Reads a targeted field, which is a dictionary of structured values (RFC 9213 §2.1). `None` where it is absent, empty or
/// none.
pub fn targeted(fields: &HeaderMap, field: &HeaderName) -> Option<Vec<(String, Option<String>)>> {
    let lines: Vec<_> = fields.get_all(field).iter().map(HeaderValue::as_bytes).collect();
    let members: Dictionary = Parser::new(&lines.join(&b", "[..])).parse().ok()?;
    let read = |(name, member): (&sfv::Key, &ListEntry)| directive_of(name.as_str(), member);
    (!members.is_empty()).then(|| members.iter().filter_map(read).collect())
}

/// Reads a member of a targeted field as a directive with its argument; `None` where it says that it is none. Where the
/// value has another type than the directive's own, nobody knows what was meant: that is unreadable.
fn directive_of(name: &str, member: &ListEntry) -> Option<(String, Option<String>)> {
    let value = match member {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    };
    let argument = match (name, value) {
        (
            "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error",
            Some(BareItem::Integer(seconds)),
        ) => Some(seconds.to_string()),
        ("no-cache" | "private", Some(BareItem::String(list))) => Some(list.as_str().to_owned()),
        (
            "no-cache" | "private" | "no-store" | "public" | "must-revalidate" | "proxy-revalidate"
            | "must-understand" | "immutable",
            Some(BareItem::Boolean(holds)),
        ) => holds.then_some(None)?,
        (
            "max-age"
            | "s-maxage"
            | "stale-while-revalidate"
            | "stale-if-error"
            | "no-cache"
            | "private"
            | "no-store"
            | "public"
            | "must-revalidate"
            | "proxy-revalidate"
            | "must-understand"
            | "immutable",
            _,
        ) => return Some((UNREADABLE.to_owned(), None)),
        // An extension has a type of its own, and no meaning here.
        (_, _) => None,
    };
    Some((name.to_owned(), argument))
}

/// The members of one `Cache-Control` value. What is none is unreadable: `no-store` may be hidden in it, as in
/// `max-age=60; no-store` or behind a quote that does not end.
struct Members<'a> {
    rest: &'a str,
}

impl<'a> Members<'a> {
    fn of(value: &'a str) -> impl Iterator<Item = (String, Option<String>)> + use<'a> {
        Members { rest: value }
    }

    /// Takes everything up to the next comma off the front.
    fn word(&mut self) -> &'a str {
        let (word, rest) = self.rest.split_at(self.rest.find(',').unwrap_or(self.rest.len()));
        self.rest = rest;
        word.trim_matches([' ', '\t'])
    }

    /// Takes an argument off the front: a quoted string with nothing behind it, or one word. `None` where it is neither.
    fn argument(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let word = self.word();
            return (!word.contains([' ', '\t', '"', ';'])).then(|| word.to_owned());
        };
        let mut argument = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = quoted.get(at + 1..).unwrap_or_default();
                    return self.word().is_empty().then_some(argument);
                }
                '\\' => argument.extend(characters.next().map(|(_, escaped)| escaped)),
                other => argument.push(other),
            }
        }
        self.rest = "";
        None
    }
}

impl Iterator for Members<'_> {
    type Item = (String, Option<String>);

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_start_matches([',', ' ', '\t']);
        if self.rest.is_empty() {
            return None;
        }
        let (name, rest) = self.rest.split_at(self.rest.find(['=', ',']).unwrap_or(self.rest.len()));
        self.rest = rest;
        let name = name.trim_matches([' ', '\t']).to_ascii_lowercase();
        let is_readable = is_token(&name);
        let Some(after) = rest.strip_prefix('=') else {
            return Some((if is_readable { name } else { UNREADABLE.to_owned() }, None));
        };
        self.rest = after;
        Some(match self.argument() {
            Some(argument) if is_readable => (name, Some(argument)),
            Some(_) | None => (UNREADABLE.to_owned(), None),
        })
    }
}

/// Returns whether this is a token: "1*tchar" (RFC 9110 §5.6.2), as the names of methods are.
fn is_token(name: &str) -> bool {
    http::Method::from_bytes(name.as_bytes()).is_ok()
}

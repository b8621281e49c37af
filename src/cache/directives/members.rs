//! Takes `Cache-Control` and its targeted variants apart: names in lower case, arguments without their quotes.
//!
//! Invariant: what cannot be read could mean anything, and reads as `no-store`. Not here: what directives mean.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

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
/// value has another type than the directive's own, nobody knows what was meant: that reads as `no-store`.
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
            | "must-understand",
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
            | "must-understand",
            _,
        ) => return Some(("no-store".to_owned(), None)),
        // An extension has a type of its own, and no meaning here.
        (_, _) => None,
    };
    Some((name.to_owned(), argument))
}

/// The members of one `Cache-Control` value. Where a quoted string does not end, nobody knows what else was said: the last
/// member is `no-store`.
struct Members<'a> {
    rest: &'a str,
    ending: Ending,
}

/// How a value ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Whole,
    BrokenOff,
}

impl<'a> Members<'a> {
    fn of(value: &'a str) -> impl Iterator<Item = (String, Option<String>)> + use<'a> {
        Members { rest: value, ending: Ending::Whole }
    }

    /// Takes an argument off the front: a quoted string, or everything up to the next comma.
    fn argument(&mut self) -> String {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find(',').unwrap_or(self.rest.len());
            let (argument, rest) = self.rest.split_at(end);
            self.rest = rest;
            return argument.trim().to_owned();
        };
        let mut argument = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = quoted.get(at + 1..).unwrap_or_default();
                    return argument;
                }
                '\\' => argument.extend(characters.next().map(|(_, escaped)| escaped)),
                other => argument.push(other),
            }
        }
        self.rest = "";
        self.ending = Ending::BrokenOff;
        argument
    }
}

impl Iterator for Members<'_> {
    type Item = (String, Option<String>);

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_start_matches([',', ' ', '\t']);
        if self.rest.is_empty() {
            let ending = std::mem::replace(&mut self.ending, Ending::Whole);
            return (ending == Ending::BrokenOff).then(|| ("no-store".to_owned(), None));
        }
        let end = self.rest.find(['=', ',']).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        let name = name.trim().to_ascii_lowercase();
        self.rest = rest;
        let argument = match rest.strip_prefix('=') {
            Some(after) => {
                self.rest = after;
                Some(self.argument())
            }
            None => None,
        };
        // Whatever stands between an argument's end and the next comma is no part of the grammar.
        self.rest = self.rest.find(',').and_then(|at| self.rest.get(at..)).unwrap_or_default();
        Some((name, argument))
    }
}

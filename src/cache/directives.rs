//! Reads `Cache-Control` and `Pragma` once, into plain data ([RFC 9111 §5.2], [RFC 5861]).
//!
//! Invariants: reading never fails. What is malformed gets the reading that stores and reuses less ("a cache
//! … is encouraged to consider responses that have invalid freshness information … to be stale", RFC 9111
//! §4.2.1); unknown directives are skipped; names are compared without case; quoted values are understood.
//! Not here: what the directives lead to (`cache::freshness`, `cache::storing`).
//!
//! [RFC 9111 §5.2]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2
//! [RFC 5861]: https://www.rfc-editor.org/rfc/rfc5861

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};

/// "If a cache receives a delta-seconds value greater than the greatest integer it can represent, or if any of
/// its subsequent calculations overflows, the cache MUST consider the value to be 2147483648" (RFC 9111 §1.2.2).
const GREATEST_DELTA: u64 = 2_147_483_648;

/// What a response says about storing and reusing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseDirectives {
    /// Boolean directives.
    pub flags: ResponseFlags,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `s-maxage`: for shared caches.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate`.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error`.
    pub stale_if_error: Option<Duration>,
}

/// The boolean directives of a response, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseFlags(u16);

impl ResponseFlags {
    /// `no-store`: "a cache MUST NOT store any part of either the immediate request or the response".
    pub const NO_STORE: Self = Self(1);
    /// `no-cache`, qualified or not: not reused without validation.
    pub const NO_CACHE: Self = Self(1 << 1);
    /// `private`, qualified or not: not for a shared cache.
    pub const PRIVATE: Self = Self(1 << 2);
    /// `public`.
    pub const PUBLIC: Self = Self(1 << 3);
    /// `must-revalidate`: not reused stale.
    pub const MUST_REVALIDATE: Self = Self(1 << 4);
    /// `proxy-revalidate`: not reused stale by a shared cache.
    pub const PROXY_REVALIDATE: Self = Self(1 << 5);
    /// `must-understand`: stored only with a status code whose caching we understand.
    pub const MUST_UNDERSTAND: Self = Self(1 << 6);

    /// Returns whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl ResponseDirectives {
    /// Reads the directives of a response from every `Cache-Control` field it has.
    pub fn read(fields: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for value in fields.get_all(header::CACHE_CONTROL) {
            // Bytes outside ASCII can only stand in an argument that no directive of ours has.
            for (name, argument) in Members::of(&String::from_utf8_lossy(value.as_bytes())) {
                directives.apply(&name, argument.as_deref());
            }
        }
        directives
    }

    /// Returns whether a flag is set.
    pub const fn has(&self, flag: ResponseFlags) -> bool {
        self.flags.contains(flag)
    }

    fn apply(&mut self, name: &str, argument: Option<&str>) {
        match name {
            "no-store" => self.flags.insert(ResponseFlags::NO_STORE),
            "no-cache" => self.flags.insert(ResponseFlags::NO_CACHE),
            "private" => self.flags.insert(ResponseFlags::PRIVATE),
            "public" => self.flags.insert(ResponseFlags::PUBLIC),
            "must-revalidate" => self.flags.insert(ResponseFlags::MUST_REVALIDATE),
            "proxy-revalidate" => self.flags.insert(ResponseFlags::PROXY_REVALIDATE),
            "must-understand" => self.flags.insert(ResponseFlags::MUST_UNDERSTAND),
            "max-age" => agree(&mut self.max_age, delta_seconds(argument)),
            "s-maxage" => agree(&mut self.s_maxage, delta_seconds(argument)),
            "stale-while-revalidate" => agree(&mut self.stale_while_revalidate, delta_seconds(argument)),
            "stale-if-error" => agree(&mut self.stale_if_error, delta_seconds(argument)),
            _ => {}
        }
    }
}

/// What a request says about how it may be answered ([RFC 9111 §5.2.1]).
///
/// [RFC 9111 §5.2.1]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestDirectives {
    /// `no-cache`, or `Pragma: no-cache` where there is no `Cache-Control`.
    pub validation: Validation,
    /// `no-store`.
    pub storing: Storing,
    /// `only-if-cached`.
    pub asking: Asking,
    /// `max-age`: the greatest current age that the client accepts.
    pub max_age: Option<Duration>,
    /// `min-fresh`: how long the response must stay fresh.
    pub min_fresh: Option<Duration>,
    /// `max-stale`: how stale it may be; without an argument, any.
    pub max_stale: Option<Duration>,
}

/// Whether the client demands validation before reuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validation {
    /// Only where the response needs it.
    #[default]
    WhenNeeded,
    /// Always.
    Demanded,
}

/// Whether the client lets the answer be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storing {
    /// It does.
    #[default]
    Allowed,
    /// It does not.
    Forbidden,
}

/// Whether upstream may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asking {
    /// It may.
    #[default]
    Allowed,
    /// It may not.
    Forbidden,
}

impl RequestDirectives {
    /// Reads the directives of a request.
    pub fn read(fields: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for value in fields.get_all(header::CACHE_CONTROL) {
            for (name, argument) in Members::of(&String::from_utf8_lossy(value.as_bytes())) {
                directives.apply(&name, argument.as_deref());
            }
        }
        // "When the Cache-Control header field is also present and understood in a request, Pragma is ignored"
        // (RFC 7234 §5.4; RFC 9111 §5.4 only deprecates it).
        if !fields.contains_key(header::CACHE_CONTROL) && pragma_no_cache(fields) {
            directives.validation = Validation::Demanded;
        }
        directives
    }

    fn apply(&mut self, name: &str, argument: Option<&str>) {
        match name {
            "no-cache" => self.validation = Validation::Demanded,
            "no-store" => self.storing = Storing::Forbidden,
            "only-if-cached" => self.asking = Asking::Forbidden,
            "max-age" => agree(&mut self.max_age, delta_seconds(argument)),
            // What cannot be read asks for freshness that nothing has.
            "min-fresh" => {
                self.min_fresh = Some(parsed_delta(argument).unwrap_or(Duration::from_secs(GREATEST_DELTA)));
            }
            "max-stale" => {
                self.max_stale =
                    Some(argument.map_or(Duration::from_secs(GREATEST_DELTA), |_| delta_seconds(argument)));
            }
            _ => {}
        }
    }
}

fn pragma_no_cache(fields: &HeaderMap) -> bool {
    fields.get_all(HeaderName::from_static("pragma")).iter().any(|value| {
        Members::of(&String::from_utf8_lossy(value.as_bytes())).any(|(name, _)| name == "no-cache")
    })
}

/// Reads delta-seconds; what is missing, negative or no number reads as zero, which is stale.
fn delta_seconds(argument: Option<&str>) -> Duration {
    parsed_delta(argument).unwrap_or_default()
}

fn parsed_delta(argument: Option<&str>) -> Option<Duration> {
    let digits = argument?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = digits.parse::<u64>().unwrap_or(GREATEST_DELTA).min(GREATEST_DELTA);
    Some(Duration::from_secs(seconds))
}

/// Sets a lifetime; a second, different one makes it zero: "either the first occurrence should be used or the
/// response should be considered stale" (RFC 9111 §4.2.1).
fn agree(slot: &mut Option<Duration>, value: Duration) {
    *slot = match *slot {
        Some(first) if first != value => Some(Duration::ZERO),
        Some(_) | None => Some(value),
    };
}

/// The members of one `Cache-Control` value: names in lower case, arguments without their quotes.
struct Members<'a> {
    rest: &'a str,
}

impl<'a> Members<'a> {
    fn of(value: &'a str) -> impl Iterator<Item = (String, Option<String>)> + use<'a> {
        Members { rest: value }
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
        argument
    }
}

impl Iterator for Members<'_> {
    type Item = (String, Option<String>);

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_start_matches([',', ' ', '\t']);
        if self.rest.is_empty() {
            return None;
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn response(values: &[&str]) -> ResponseDirectives {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(header::CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
        }
        ResponseDirectives::read(&fields)
    }

    fn request(values: &[&str]) -> RequestDirectives {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(header::CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
        }
        RequestDirectives::read(&fields)
    }

    fn delta(lifetime: Option<Duration>) -> Option<u64> {
        lifetime.map(|lifetime| lifetime.as_secs())
    }

    #[test]
    fn rfc9111_5_2_names_are_read_without_case_and_over_several_fields() {
        let directives = response(&["No-Store, MAX-AGE=60", "private"]);
        assert!(directives.has(ResponseFlags::NO_STORE));
        assert!(directives.has(ResponseFlags::PRIVATE));
        assert_eq!(delta(directives.max_age), Some(60));
    }

    #[test]
    fn rfc9111_5_2_quoted_arguments_and_commas_inside_them_are_one_argument() {
        let directives = response(&[r#"private="set-cookie, max-age=5", x="a\",no-store", max-age="7""#]);
        assert!(directives.has(ResponseFlags::PRIVATE));
        assert!(!directives.has(ResponseFlags::NO_STORE));
        assert_eq!(delta(directives.max_age), Some(7));
    }

    #[test]
    fn rfc9111_4_2_1_malformed_lifetimes_read_as_stale() {
        for value in ["max-age=", "max-age", "max-age=-1", "max-age=1.5", "max-age=abc", "max-age=0x3"] {
            assert_eq!(delta(response(&[value]).max_age), Some(0), "{value}");
        }
        assert_eq!(delta(response(&["max-age=10, max-age=20"]).max_age), Some(0));
        assert_eq!(delta(response(&["max-age=10", "max-age=10"]).max_age), Some(10));
        assert_eq!(response(&["amax-age=10"]).max_age, None);
    }

    #[test]
    fn rfc9111_1_2_2_overflowing_lifetimes_are_the_greatest() {
        assert_eq!(delta(response(&["max-age=99999999999999999999999"]).max_age), Some(GREATEST_DELTA));
        assert_eq!(delta(response(&["max-age=4294967296"]).max_age), Some(GREATEST_DELTA));
    }

    #[test]
    fn rfc9111_5_2_1_request_directives_are_read() {
        let directives = request(&["max-age=5, min-fresh=3, max-stale, only-if-cached, no-store"]);
        assert_eq!(delta(directives.max_age), Some(5));
        assert_eq!(delta(directives.min_fresh), Some(3));
        assert_eq!(delta(directives.max_stale), Some(GREATEST_DELTA));
        assert_eq!(directives.asking, Asking::Forbidden);
        assert_eq!(directives.storing, Storing::Forbidden);
        assert_eq!(delta(request(&["max-stale=junk"]).max_stale), Some(0));
        assert_eq!(delta(request(&["min-fresh=junk"]).min_fresh), Some(GREATEST_DELTA));
    }

    #[test]
    fn rfc9111_5_4_pragma_counts_only_without_cache_control() {
        let mut fields = HeaderMap::new();
        fields.insert("pragma", HeaderValue::from_static("no-cache"));
        assert_eq!(RequestDirectives::read(&fields).validation, Validation::Demanded);
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
        assert_eq!(RequestDirectives::read(&fields).validation, Validation::WhenNeeded);
    }

    #[test]
    fn broken_lists_end_and_lose_nothing_that_can_be_read() {
        let directives = response(&[",, max-age = 5 ,, no-store\t, =, x=\"unterminated, public"]);
        assert_eq!(delta(directives.max_age), Some(5));
        assert!(directives.has(ResponseFlags::NO_STORE));
        assert!(!directives.has(ResponseFlags::PUBLIC));
    }
}

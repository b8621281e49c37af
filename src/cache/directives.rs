//! Reads `Cache-Control`, its targeted variants and `Pragma` once, into plain data ([RFC 9111 §5.2], [RFC 5861],
//! [RFC 9213]).
//!
//! Invariants: reading never fails. What is malformed gets the reading that stores and reuses less ("Caches
//! are encouraged to consider responses that have invalid freshness information … to be stale", RFC 9111 §4.2.1); unknown directives are skipped; names are compared without case; quoted values are understood.
//! Not here: what the directives lead to (`cache::terms`, `cache::freshness`, `cache::storing`).
//!
//! [RFC 9111 §5.2]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2
//! [RFC 5861]: https://www.rfc-editor.org/rfc/rfc5861
//! [RFC 9213]: https://www.rfc-editor.org/rfc/rfc9213

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};

pub mod members;

/// "A target list is an ordered list of the targeted field names that it uses for caching policy, with the order
/// reflecting priority from most applicable to least" (RFC 9213 §2.2).
const TARGET_LIST: [HeaderName; 2] =
    [HeaderName::from_static("sentrybox-cache-control"), HeaderName::from_static("cdn-cache-control")];

/// Fields without which what is left of a response would be misread: a list that names one is not followed, and its
/// directive counts for the whole response.
const ESSENTIAL: [HeaderName; 9] = [
    header::AGE,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::DATE,
    header::EXPIRES,
    header::TRANSFER_ENCODING,
    header::VARY,
];

/// The fields by which [Fetch] tells that a program made its request conditional.
///
/// [Fetch]: https://fetch.spec.whatwg.org/#http-network-or-cache-fetch
const FETCH_CONDITIONS: [HeaderName; 5] = [
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_RANGE,
];

/// "If a cache receives a delta-seconds value greater than the greatest integer it can represent, or if any of
/// its subsequent calculations overflows, the cache MUST consider the value to be 2147483648" (RFC 9111 §1.2.2).
const GREATEST_DELTA: u64 = 2_147_483_648;

/// What a response says about storing and reusing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseDirectives {
    /// Which field says it.
    pub source: DirectiveSource,
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

/// Which field of a response says how it may be stored and reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DirectiveSource {
    /// `Cache-Control`, and `Expires` beside it.
    #[default]
    CacheControl,
    /// A targeted field alone, `Cache-Control` and `Expires` being ignored ([RFC 9213 §2.2]).
    ///
    /// [RFC 9213 §2.2]: https://www.rfc-editor.org/rfc/rfc9213#section-2.2
    Targeted,
}

/// The boolean directives of a response, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseFlags(u16);

impl ResponseFlags {
    /// `no-store`: "a cache MUST NOT store any part of either the immediate request or the response".
    pub const NO_STORE: Self = Self(1);
    /// `no-cache` without a list of fields: not reused without validation.
    pub const NO_CACHE: Self = Self(1 << 1);
    /// `private` without a list of fields: not for a shared cache.
    pub const PRIVATE: Self = Self(1 << 2);
    /// `public`.
    pub const PUBLIC: Self = Self(1 << 3);
    /// `must-revalidate`: not reused stale.
    pub const MUST_REVALIDATE: Self = Self(1 << 4);
    /// `proxy-revalidate`: not reused stale by a shared cache.
    pub const PROXY_REVALIDATE: Self = Self(1 << 5);
    /// `must-understand`: stored only with a status code whose caching we understand.
    pub const MUST_UNDERSTAND: Self = Self(1 << 6);
    /// `immutable`: not validated while it is fresh, unless the client demands it ([RFC 8246]).
    ///
    /// [RFC 8246]: https://www.rfc-editor.org/rfc/rfc8246
    pub const IMMUTABLE: Self = Self(1 << 8);
    /// Something that cannot be read. It counts as a `no-store` that nothing takes back.
    pub const UNREADABLE: Self = Self(1 << 7);

    /// Returns whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl ResponseDirectives {
    /// Reads the directives of a response: of the first targeted field that is valid, or else of `Cache-Control`.
    pub fn read(fields: &HeaderMap) -> Self {
        let mut directives = Self::default();
        directives.source = for_each_directive(fields, |name, argument| directives.apply(name, argument));
        directives
    }

    /// Returns whether a flag is set.
    pub const fn has(&self, flag: ResponseFlags) -> bool {
        self.flags.contains(flag)
    }

    fn apply(&mut self, name: &str, argument: Option<&str>) {
        match name {
            "no-store" => self.flags.insert(ResponseFlags::NO_STORE),
            members::UNREADABLE => {
                self.flags.insert(ResponseFlags::NO_STORE);
                self.flags.insert(ResponseFlags::UNREADABLE);
            }
            "no-cache" if listed(argument).is_none() => self.flags.insert(ResponseFlags::NO_CACHE),
            "private" if listed(argument).is_none() => self.flags.insert(ResponseFlags::PRIVATE),
            "public" => self.flags.insert(ResponseFlags::PUBLIC),
            "must-revalidate" => self.flags.insert(ResponseFlags::MUST_REVALIDATE),
            "proxy-revalidate" => self.flags.insert(ResponseFlags::PROXY_REVALIDATE),
            "must-understand" => self.flags.insert(ResponseFlags::MUST_UNDERSTAND),
            "immutable" => self.flags.insert(ResponseFlags::IMMUTABLE),
            "max-age" => agree(&mut self.max_age, delta_seconds(argument)),
            "s-maxage" => agree(&mut self.s_maxage, delta_seconds(argument)),
            "stale-while-revalidate" => agree(&mut self.stale_while_revalidate, delta_seconds(argument)),
            "stale-if-error" => agree(&mut self.stale_if_error, delta_seconds(argument)),
            _ => {}
        }
    }
}

/// A directive whose qualified form lists fields of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qualified {
    /// `no-cache="…"`: those fields are not reused without validation ([RFC 9111 §5.2.2.4]).
    ///
    /// [RFC 9111 §5.2.2.4]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.4
    NoCache,
    /// `private="…"`: those fields are not for a shared cache ([RFC 9111 §5.2.2.7]).
    ///
    /// [RFC 9111 §5.2.2.7]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.7
    Private,
}

impl Qualified {
    const fn name(self) -> &'static str {
        match self {
            Self::NoCache => "no-cache",
            Self::Private => "private",
        }
    }
}

/// Returns the fields that a directive of a response lists.
pub fn listed_fields(fields: &HeaderMap, directive: Qualified) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for_each_directive(fields, |name, argument| {
        if name == directive.name() {
            names.extend(listed(argument).unwrap_or_default());
        }
    });
    names
}

/// Reads the argument of a qualified directive; `None` where it is no list that can be followed.
fn listed(argument: Option<&str>) -> Option<Vec<HeaderName>> {
    let names = argument?.split(',').map(|name| HeaderName::from_bytes(name.trim().as_bytes()));
    let names: Vec<_> = names.collect::<Result<_, _>>().ok()?;
    names.iter().all(|name| !ESSENTIAL.contains(name)).then_some(names)
}

/// Hands over the directives that count for a response: "the cache MUST select the first (in target-list order) field with
/// a valid, non-empty value" (RFC 9213 §2.2), or else `Cache-Control`.
fn for_each_directive(fields: &HeaderMap, mut take: impl FnMut(&str, Option<&str>)) -> DirectiveSource {
    if let Some(directives) = TARGET_LIST.iter().find_map(|name| members::targeted(fields, name)) {
        for (name, argument) in &directives {
            take(name, argument.as_deref());
        }
        return DirectiveSource::Targeted;
    }
    members::for_each(fields, &header::CACHE_CONTROL, take);
    DirectiveSource::CacheControl
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
        members::for_each(fields, &header::CACHE_CONTROL, |name, argument| directives.apply(name, argument));
        // "When the Cache-Control header field is also present and understood in a request, Pragma is ignored"
        // (RFC 7234 §5.4; RFC 9111 §5.4 only deprecates it).
        if !fields.contains_key(header::CACHE_CONTROL) && pragma_no_cache(fields) {
            directives.validation = Validation::Demanded;
        }
        if is_conditional_fetch(fields) {
            directives.validation = Validation::WhenNeeded;
        }
        directives
    }

    fn apply(&mut self, name: &str, argument: Option<&str>) {
        match name {
            "no-cache" => self.validation = Validation::Demanded,
            "no-store" | members::UNREADABLE => self.storing = Storing::Forbidden,
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
    let mut is_demanded = false;
    members::for_each(fields, &header::PRAGMA, |name, _| is_demanded |= name == "no-cache");
    is_demanded
}

/// Returns whether a `no-cache` was added by an implementation of [Fetch], a browser's or that of Node.js, because the
/// program made its request conditional. It does so to keep its own cache out of it; the program has asked for nothing but
/// the condition.
///
/// "If httpRequest's cache mode is "default" and httpRequest's header list contains `If-Modified-Since`, `If-None-Match`,
/// `If-Unmodified-Since`, `If-Match`, or `If-Range`, then set httpRequest's cache mode to "no-store"", and with that mode
/// "append (`Pragma`, `no-cache`)" and "(`Cache-Control`, `no-cache`)" where there are none. Who wants to reload sets no
/// condition.
///
/// [Fetch]: https://fetch.spec.whatwg.org/#http-network-or-cache-fetch
fn is_conditional_fetch(fields: &HeaderMap) -> bool {
    let is_no_cache = |name: HeaderName| {
        let mut values = fields.get_all(name).iter();
        values.next().is_some_and(|value| value == "no-cache") && values.next().is_none()
    };
    fields.contains_key("sec-fetch-mode")
        && is_no_cache(header::CACHE_CONTROL)
        && is_no_cache(header::PRAGMA)
        && FETCH_CONDITIONS.iter().any(|name| fields.contains_key(name))
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
        assert!(directives.has(ResponseFlags::PRIVATE), "what lists no fields is for the whole response");
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
    fn what_fetch_adds_to_a_conditional_request_is_nobodys_wish() {
        let check = |without: &str, validation| {
            let pairs = [
                ("sec-fetch-mode", "cors"),
                ("if-none-match", "\"a\""),
                ("pragma", "no-cache"),
                ("cache-control", "no-cache"),
            ];
            let left: Vec<_> = pairs.into_iter().filter(|(name, _)| *name != without).collect();
            let fields = crate::testing::fields(&left);
            assert_eq!(RequestDirectives::read(&fields).validation, validation, "without {without}");
        };
        check("nothing", Validation::WhenNeeded);
        for wish in ["sec-fetch-mode", "if-none-match", "pragma", "cache-control"] {
            check(wish, Validation::Demanded);
        }
        let more = [
            ("sec-fetch-mode", "cors"),
            ("if-match", "*"),
            ("pragma", "no-cache"),
            ("cache-control", "no-cache, max-age=0"),
        ];
        let read = RequestDirectives::read(&crate::testing::fields(&more));
        assert_eq!(read.validation, Validation::Demanded);
    }

    /// Reads a response by the names and values of its fields.
    fn fielded(pairs: &[(&str, &str)]) -> (ResponseDirectives, HeaderMap) {
        let fields = crate::testing::fields(pairs);
        (ResponseDirectives::read(&fields), fields)
    }

    #[test]
    fn rfc9213_2_2_the_first_valid_targeted_field_counts_alone() {
        let check = |pairs: &[(&str, &str)], source, max_age| {
            let (directives, _) = fielded(pairs);
            assert_eq!((directives.source, delta(directives.max_age)), (source, max_age), "{pairs:?}");
        };
        let plain = ("cache-control", "max-age=1, no-store");
        let (cdn, own) = (("cdn-cache-control", "max-age=2"), ("sentrybox-cache-control", "max-age=3"));
        check(&[plain], DirectiveSource::CacheControl, Some(1));
        check(&[plain, cdn], DirectiveSource::Targeted, Some(2));
        check(&[plain, cdn, own], DirectiveSource::Targeted, Some(3));
        check(&[plain, ("cdn-cache-control", "foo=(1 2);a")], DirectiveSource::Targeted, None);
        check(
            &[("cdn-cache-control", "foo"), ("cdn-cache-control", "max-age=5")],
            DirectiveSource::Targeted,
            Some(5),
        );
        let (directives, _) = fielded(&[plain, cdn]);
        assert!(!directives.has(ResponseFlags::NO_STORE));
        let (directives, _) = fielded(&[("cdn-cache-control", "no-store, private, no-cache=?1")]);
        for flag in [ResponseFlags::NO_STORE, ResponseFlags::PRIVATE, ResponseFlags::NO_CACHE] {
            assert!(directives.has(flag));
        }
    }

    #[test]
    fn rfc9213_2_1_a_targeted_field_that_is_not_valid_is_ignored() {
        for broken in ["", "max-age=10, &&&", "MaX-aGe=10", "max-age =10"] {
            let (directives, _) = fielded(&[("cache-control", "max-age=1"), ("cdn-cache-control", broken)]);
            assert_eq!(directives.source, DirectiveSource::CacheControl, "{broken}");
            assert_eq!(delta(directives.max_age), Some(1), "{broken}");
        }
        let (directives, _) = fielded(&[("cdn-cache-control", "max-age=-1, s-maxage=99999999999")]);
        assert_eq!((delta(directives.max_age), delta(directives.s_maxage)), (Some(0), Some(GREATEST_DELTA)));
    }

    #[test]
    fn rfc9213_2_1_a_value_of_another_type_could_mean_anything_and_keeps_the_response_out_of_the_store() {
        let read = |value| {
            let (directives, _) = fielded(&[("cache-control", "max-age=60"), ("cdn-cache-control", value)]);
            assert_eq!(directives.source, DirectiveSource::Targeted, "{value}");
            directives
        };
        for value in [
            "max-age=\"10\"",
            "max-age",
            "max-age=(10)",
            "max-age=1.5",
            "no-store=1",
            "no-store, max-age=\"0\"",
            "private=1, max-age=60",
            "must-understand=1, no-store",
        ] {
            assert!(read(value).has(ResponseFlags::NO_STORE), "{value}");
        }
        assert!(
            read("immutable=1").has(ResponseFlags::NO_STORE)
                && read("immutable").has(ResponseFlags::IMMUTABLE)
        );
        let none = read("max-age=1, private=?0, no-store=?0, foo=1.5, bar=(1 2)");
        assert!(!none.has(ResponseFlags::PRIVATE) && !none.has(ResponseFlags::NO_STORE));
    }

    #[test]
    fn rfc9111_5_2_2_4_a_list_of_fields_takes_the_place_of_the_whole_response() {
        for field in ["cache-control", "cdn-cache-control"] {
            let (directives, fields) = fielded(&[(field, r#"no-cache="x-a, X-B", private="x-c""#)]);
            assert!(!directives.has(ResponseFlags::NO_CACHE) && !directives.has(ResponseFlags::PRIVATE));
            assert_eq!(listed_fields(&fields, Qualified::NoCache), ["x-a", "x-b"]);
            assert_eq!(listed_fields(&fields, Qualified::Private), ["x-c"]);
        }
        for whole in
            ["no-cache=\"\"", "no-cache=\"vary, x-a\"", "no-cache=\"x a\"", "no-cache=\"x-a\", no-cache"]
        {
            let (directives, _) = fielded(&[("cache-control", whole)]);
            assert!(directives.has(ResponseFlags::NO_CACHE), "{whole}");
        }
    }

    #[test]
    fn what_stands_behind_a_quote_that_does_not_end_could_be_anything() {
        for value in [r#"max-age=60, private="x-a, no-store"#, r#"max-age=60, x="y"#, r#"max-age=60, x="\"#] {
            assert!(response(&[value]).has(ResponseFlags::NO_STORE), "{value}");
        }
        assert!(!response(&[r#"max-age=60, x="y""#]).has(ResponseFlags::NO_STORE));
    }

    #[test]
    fn what_is_no_member_of_a_list_could_be_anything() {
        for value in [
            "no-store; private",
            "no-cache; no-store",
            "max-age=60; no-store",
            "max-age=60 no-store",
            "max-age=\"60\" no-store",
            "public, max-age=60, private=\"x-a\" no-store",
            "max-age=60, \"no-store\"",
            "max-age=60, no-store\"",
            "max-age=60, =no-store",
            "max-age=60, (no-store)",
        ] {
            assert!(response(&[value]).has(ResponseFlags::NO_STORE), "{value}");
        }
        for value in
            ["max-age = 60 , x", "max-age='60'", "x=a/b:c, max-age=60", "x=\"a b\"\t, public", ",, ,"]
        {
            assert!(!response(&[value]).has(ResponseFlags::NO_STORE), "{value}");
        }
    }

    #[test]
    fn broken_lists_end_and_lose_nothing_that_can_be_read() {
        let directives = response(&[",, max-age = 5 ,, no-store\t, =, x=\"unterminated, public"]);
        assert_eq!(delta(directives.max_age), Some(5));
        assert!(directives.has(ResponseFlags::NO_STORE));
        assert!(!directives.has(ResponseFlags::PUBLIC));
    }
}

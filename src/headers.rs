//! Field hygiene, both ways: what a proxy must not carry on, and what it must add.
//!
//! Requests lose what is hop-by-hop, what speaks of the path to us and what would be ours to say; answers lose
//! what is hop-by-hop and what would lead clients around us. `Via`, `Age` and `Cache-Status` are rendered here.
//!
//! Invariants: cleaning twice is the same as cleaning once; nothing here reads a clock or a configuration.
//! Not here: `Link` and `Location` (`links`), conditions and directives (`cache`), what is stored
//! (`cache::stored_response`).

use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::handling::{ForwardReason, RefusalReason};

pub mod dates;
pub mod via;

/// The name under which this cache speaks of itself in `Via` and `Cache-Status`.
pub const PSEUDONYM: &str = "sentrybox";

/// `Cache-Status` ([RFC 9211]).
///
/// [RFC 9211]: https://www.rfc-editor.org/rfc/rfc9211
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Fields about one connection only ([RFC 9110 §7.6.1]).
///
/// [RFC 9110 §7.6.1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Request fields that say how the request reached us, or claim what only Sentry's own edge may claim.
/// Sentry takes the first `X-Forwarded-For` address for the caller's (`sentry-api.md` §2), so a client that
/// could set it would choose its own rate-limit bucket.
const SPOOFABLE: [HeaderName; 6] = [
    header::FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-apigateway"),
    HeaderName::from_static("x-host"),
    HeaderName::from_static("x-original-host"),
    // CGI makes the variable HTTP_PROXY of it (CVE-2016-5385).
    HeaderName::from_static("proxy"),
];

/// Prefixes of such fields; by the second one Sentry's edge tells its address ranges.
const SPOOFABLE_PREFIXES: [&str; 2] = ["x-forwarded-", "x-sentry-subnet-"];

/// Request fields by which some servers take a request for another one than its first line says. What was admitted, and
/// perhaps answered from the store, is what the first line says.
const OVERRIDING: [HeaderName; 5] = [
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];

/// Prefix of the rate-limit fields (`sentry-api.md` §2): true at the moment they are sent, and never again.
const LIMIT_PREFIX: &str = "x-sentry-rate-limit-";

/// Removes the fields that concern one connection, including those that `Connection` nominates.
fn remove_hop_by_hop(fields: &mut HeaderMap) {
    // "Intermediaries MUST parse a received Connection header field before a message is forwarded and, for each
    // connection-option in this field, remove any header or trailer field(s) from the message with the same name
    // as the connection-option" (RFC 9110 §7.6.1).
    let nominated: Vec<HeaderName> = members(fields, &header::CONNECTION)
        .filter_map(|option| HeaderName::from_bytes(option.as_bytes()).ok())
        .collect();
    for name in nominated {
        fields.remove(name);
    }
    for name in &HOP_BY_HOP {
        fields.remove(name);
    }
}

/// Removes what a client may not tell upstream, and what the proxy says itself: `Host`, the length, `Expect`.
pub fn clean_request(fields: &mut HeaderMap) {
    remove_hop_by_hop(fields);
    for name in SPOOFABLE.iter().chain(&OVERRIDING) {
        fields.remove(name);
    }
    for prefix in SPOOFABLE_PREFIXES {
        remove_all(fields, |name| name.starts_with(prefix));
    }
    // WSGI and CGI tell no `X_Forwarded_For` from `X-Forwarded-For`, nor `Content_Length` from `Content-Length`: what is removed
    // by one spelling must not come back by the other. nginx drops such fields, too.
    remove_all(fields, |name| name.contains('_'));
    join_cookies(fields);
    fields.remove(header::HOST);
    fields.remove(header::CONTENT_LENGTH);
    // Answered on the client's connection when the body is first read; upstream gives no 100 (`wire-dumps.md`).
    fields.remove(header::EXPECT);
}

/// Joins the cookies of several fields, as HTTP/2 may have them.
fn join_cookies(fields: &mut HeaderMap) {
    // "If there are multiple Cookie header fields after decompression, these MUST be concatenated into a single octet string
    // using the two-octet delimiter of 0x3b, 0x20 (the ASCII string "; ") before being passed into a non-HTTP/2 context"
    // (RFC 9113 §8.2.3).
    let cookies: Vec<&[u8]> = fields.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if 1 < cookies.len()
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        fields.insert(header::COOKIE, joined);
    }
}

/// Removes from an answer what concerns one connection, and `Alt-Svc`, which would lead clients around us.
pub fn clean_response(fields: &mut HeaderMap) {
    remove_hop_by_hop(fields);
    fields.remove(header::ALT_SVC);
}

/// Moves the rate-limit fields out of `fields`.
pub fn take_limit_fields(fields: &mut HeaderMap) -> HeaderMap {
    let mut taken = HeaderMap::new();
    for name in named(fields, |name| name.starts_with(LIMIT_PREFIX)) {
        if let Some(value) = fields.remove(&name) {
            taken.insert(name, value);
        }
    }
    taken
}

/// Returns the comma-separated members of every field of this name, trimmed, without empty ones. For fields
/// whose grammar has no quoted strings.
pub fn members<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    fields
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
}

/// Returns whether an answer says anything about whether, or for how long, it may be stored.
pub fn speaks_of_storing(fields: &HeaderMap) -> bool {
    let names = [header::CACHE_CONTROL, header::EXPIRES, header::LAST_MODIFIED, header::ETAG];
    names.iter().any(|name| fields.contains_key(name))
}

/// Returns whether a media type is JSON: `application/json` or anything with the suffix `+json`.
pub fn is_json(fields: &HeaderMap) -> bool {
    let essence = media_type(fields);
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}

/// Returns whether a media type is HTML.
pub fn is_html(fields: &HeaderMap) -> bool {
    media_type(fields).eq_ignore_ascii_case("text/html")
}

/// Returns the media type without its parameters; nothing where there is none.
fn media_type(fields: &HeaderMap) -> &str {
    let value = fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split(';').next()).unwrap_or_default().trim()
}

/// The content coding of an answer, as far as it can be undone here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCoding {
    /// None.
    Identity,
    /// gzip: "a recipient SHOULD consider "x-gzip" to be equivalent to "gzip"" ([RFC 9110 §8.4.1.3]).
    ///
    /// [RFC 9110 §8.4.1.3]: https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1.3
    Gzip,
    /// Another one, or several.
    Other,
}

/// Returns the content coding that `Content-Encoding` names.
pub fn content_coding(fields: &HeaderMap) -> ContentCoding {
    let mut codings = members(fields, &header::CONTENT_ENCODING);
    let is = |coding: &str, known: &[&str]| known.iter().any(|known| coding.eq_ignore_ascii_case(known));
    match (codings.next(), codings.next()) {
        (None, _) => ContentCoding::Identity,
        (Some(coding), None) if is(coding, &["identity"]) => ContentCoding::Identity,
        (Some(coding), None) if is(coding, &["gzip", "x-gzip"]) => ContentCoding::Gzip,
        (Some(_), _) => ContentCoding::Other,
    }
}

/// Returns whether the client takes gzip ([RFC 9110 §12.5.3]).
///
/// [RFC 9110 §12.5.3]: https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3
pub fn accepts_gzip(fields: &HeaderMap) -> bool {
    let mut any = None;
    for member in members(fields, &header::ACCEPT_ENCODING) {
        let (coding, weight) = weighted(member);
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            return weight > 0.0;
        }
        if coding == "*" {
            any = Some(weight > 0.0);
        }
    }
    any.unwrap_or(false)
}

/// Splits a member of an `Accept*` field into its value and its weight, which is 1 where it is absent or broken.
pub fn weighted(member: &str) -> (&str, f32) {
    let mut parts = member.split(';').map(str::trim);
    let value = parts.next().unwrap_or_default();
    let weight = parts
        .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
        .and_then(|weight| weight.trim().parse().ok())
        .unwrap_or(1.0);
    (value, weight)
}

/// What `Cache-Status` says of one answer ([RFC 9211 §2]).
///
/// [RFC 9211 §2]: https://www.rfc-editor.org/rfc/rfc9211#section-2
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStatus {
    /// How the answer came about.
    pub outcome: CacheOutcome,
    /// What is left of the freshness lifetime, in seconds; negative when stale.
    pub ttl: Option<i64>,
    /// More than the registry's words tell: one of our own labels.
    pub detail: Option<&'static str>,
}

/// How an answer came about, as far as the cache is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheOutcome {
    /// From the store, without asking upstream.
    Hit,
    /// By asking upstream.
    Forwarded {
        /// Why.
        reason: ForwardReason,
        /// What upstream answered; absent when it did not.
        status: Option<StatusCode>,
        /// Whether the answer was stored.
        stored: bool,
        /// Whether the request was collapsed into one already in flight.
        collapsed: bool,
    },
    /// By the proxy itself.
    #[default]
    Own,
}

impl CacheStatus {
    /// Returns the status of a request that was forwarded for itself alone, and not stored.
    pub const fn forwarded(reason: ForwardReason, status: Option<StatusCode>) -> Self {
        let outcome = CacheOutcome::Forwarded { reason, status, stored: false, collapsed: false };
        Self { outcome, ttl: None, detail: None }
    }

    /// Returns the status of a refusal before any cache was asked.
    pub const fn refused(reason: RefusalReason) -> Self {
        Self { outcome: CacheOutcome::Own, ttl: None, detail: Some(reason.label()) }
    }

    /// Renders the list member, as in `sentrybox; fwd=uri-miss; fwd-status=200; stored; ttl=120`.
    pub fn render(&self) -> HeaderValue {
        let mut text = String::with_capacity(96);
        text.push_str(PSEUDONYM);
        match self.outcome {
            CacheOutcome::Hit => text.push_str("; hit"),
            CacheOutcome::Forwarded { reason, status, stored, collapsed } => {
                text.push_str("; fwd=");
                text.push_str(reason.rfc9211());
                if let Some(status) = status {
                    // Writing to a `String` cannot fail.
                    let _ = write!(text, "; fwd-status={}", status.as_u16());
                }
                text.push_str(if stored { "; stored" } else { "" });
                text.push_str(if collapsed { "; collapsed" } else { "" });
            }
            CacheOutcome::Own => {}
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(text, "; ttl={ttl}");
        }
        if let Some(detail) = self.detail() {
            text.push_str("; detail=");
            text.push_str(detail);
        }
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(PSEUDONYM))
    }

    /// Returns the detail, which falls back to our own name for the reason where that says more than RFC 9211's.
    fn detail(&self) -> Option<&'static str> {
        match self.outcome {
            CacheOutcome::Forwarded { reason, .. } => {
                self.detail.or_else(|| (reason.label() != reason.rfc9211()).then(|| reason.label()))
            }
            CacheOutcome::Hit | CacheOutcome::Own => self.detail,
        }
    }
}

/// Renders an age in whole seconds ([RFC 9111 §5.1]).
///
/// [RFC 9111 §5.1]: https://www.rfc-editor.org/rfc/rfc9111#section-5.1
pub fn render_seconds(duration: Duration) -> HeaderValue {
    HeaderValue::from(duration.as_secs())
}

fn remove_all(fields: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    for name in named(fields, is_meant) {
        fields.remove(name);
    }
}

fn named(fields: &HeaderMap, is_meant: impl Fn(&str) -> bool) -> Vec<HeaderName> {
    fields.keys().filter(|name| is_meant(name.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::fields;

    #[test]
    fn fields_nominated_by_connection_are_removed() {
        let mut map = fields(&[
            ("connection", "TE, x-private"),
            ("te", "trailers"),
            ("x-private", "1"),
            ("x-kept", "1"),
            ("transfer-encoding", "chunked"),
        ]);
        remove_hop_by_hop(&mut map);
        assert_eq!(map, fields(&[("x-kept", "1")]));
    }

    #[test]
    fn a_request_tells_upstream_nothing_of_its_way_here() {
        let mut map = fields(&[
            ("host", "proxy.example"),
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("x-sentry-subnet-organization", "x"),
            ("x-forwarded-prefix", "/x"),
            ("x_forwarded_for", "1.2.3.4"),
            ("content_length", "0"),
            ("proxy", "http://evil.example"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ]);
        clean_request(&mut map);
        assert_eq!(map, fields(&[("accept", "*/*")]));
    }

    #[test]
    fn rfc9113_8_2_3_cookies_travel_in_one_field() {
        let mut map = fields(&[("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2; c=3")]);
        clean_request(&mut map);
        assert_eq!(map, fields(&[("cookie", "a=1; b=2; c=3"), ("accept", "*/*")]));
    }

    #[test]
    fn nothing_says_that_the_request_is_another_one() {
        let mut map = fields(&[
            ("x-http-method-override", "DELETE"),
            ("X-HTTP-Method", "DELETE"),
            ("x-method-override", "DELETE"),
            ("x-original-url", "/api/0/elsewhere/"),
            ("x-rewrite-url", "/api/0/elsewhere/"),
            ("x-http-methods", "kept"),
        ]);
        clean_request(&mut map);
        assert_eq!(map, fields(&[("x-http-methods", "kept")]));
    }

    #[test]
    fn limit_fields_are_taken_out_whatever_their_spelling() {
        let mut map = fields(&[
            ("X-Sentry-Rate-Limit-ConcurrentLimit", "25"),
            ("x-sentry-rate-limit-remaining", "None"),
            ("x-hits", "3"),
        ]);
        let taken = take_limit_fields(&mut map);
        assert_eq!(taken.len(), 2);
        assert_eq!(map, fields(&[("x-hits", "3")]));
    }

    #[test]
    fn gzip_is_accepted_only_when_the_client_says_so() {
        let check = |value: &str, expected: bool| {
            assert_eq!(accepts_gzip(&fields(&[("accept-encoding", value)])), expected, "{value}");
        };
        check("gzip, deflate", true);
        check("gzip;q=0", false);
        check("gzip; q=0.0, *", false);
        check("*", true);
        check("br, *;q=0", false);
        check("identity", false);
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn rfc9110_8_4_1_3_the_coding_is_told_whatever_its_spelling() {
        let check = |value: &str| content_coding(&fields(&[("content-encoding", value)]));
        assert_eq!(check("GZIP"), ContentCoding::Gzip);
        assert_eq!(check("x-gzip"), ContentCoding::Gzip);
        assert_eq!(check("identity"), ContentCoding::Identity);
        assert_eq!(check("notgzip"), ContentCoding::Other);
        assert_eq!(check("gzip, gzip"), ContentCoding::Other);
        assert_eq!(content_coding(&HeaderMap::new()), ContentCoding::Identity);
    }

    #[test]
    fn json_is_told_by_its_media_type() {
        let check = |value: &str| is_json(&fields(&[("content-type", value)]));
        assert!(check("application/json"));
        assert!(check("Application/JSON; charset=utf-8"));
        assert!(check("application/problem+json"));
        assert!(!check("text/html; charset=application/json"));
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn cache_status_is_a_structured_field_that_says_what_happened() {
        let check = |status: CacheStatus, expected: &str| {
            let rendered = status.render();
            let text = rendered.to_str().unwrap();
            assert_eq!(text, expected);
            sfv::Parser::new(text).parse::<sfv::List>().unwrap();
        };
        let forwarded = |reason, stored, collapsed| CacheOutcome::Forwarded {
            reason,
            status: Some(StatusCode::OK),
            stored,
            collapsed,
        };
        check(
            CacheStatus { outcome: CacheOutcome::Hit, ttl: Some(7), detail: None },
            "sentrybox; hit; ttl=7",
        );
        check(
            CacheStatus {
                outcome: forwarded(ForwardReason::UriMiss, true, false),
                ttl: Some(120),
                detail: None,
            },
            "sentrybox; fwd=uri-miss; fwd-status=200; stored; ttl=120",
        );
        check(
            CacheStatus {
                outcome: forwarded(ForwardReason::RouteNever, false, true),
                ttl: None,
                detail: None,
            },
            "sentrybox; fwd=bypass; fwd-status=200; collapsed; detail=route-never",
        );
        check(CacheStatus::refused(RefusalReason::UnknownPath), "sentrybox; detail=unknown-path");
    }

    proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(
            names in proptest::collection::vec("(connection|te|via|x-[a-c]|x_a|host|keep-alive|x-forwarded-for)", 0..8),
            options in "(x-a|te|close|x-b|host)(, (x-a|x-c|close)){0,2}",
        ) {
            let mut once = HeaderMap::new();
            for name in &names {
                let value = HeaderValue::from_str(if name == "connection" { &options } else { "1" }).unwrap();
                once.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
            clean_request(&mut once);
            let mut twice = once.clone();
            clean_request(&mut twice);
            prop_assert_eq!(once, twice);
        }
    }
}

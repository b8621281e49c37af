//! Decides what may be stored: [RFC 9111 §3], clause by clause, and our own policy where upstream says nothing.
//!
//! Invariants: what an RFC forbids is never stored, whatever a rule says; cookies are never stored at all; a
//! broken or partial body never gets here. Pure.
//! Not here: for how long (`cache::freshness`), how large (`proxy`).
//!
//! [RFC 9111 §3]: https://www.rfc-editor.org/rfc/rfc9111#section-3

use http::StatusCode;
use http::header::{self, HeaderMap};

use crate::admission::AdmittedRequest;
use crate::cache::directives::{ResponseDirectives, ResponseFlags, Storing};
use crate::cache::policy::{CacheKind, FreshnessPolicy, is_heuristically_cacheable};
use crate::headers;
use crate::routes::{Route, RoutePolicy};

/// Why an answer is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStorable {
    /// The status code is none that is stored.
    Status,
    /// Upstream or the client says `no-store`.
    NoStore,
    /// `private`, in the shared partition.
    Private,
    /// Upstream states no lifetime, and neither does a rule.
    NoLifetime,
    /// `Vary: *`.
    VaryAnything,
    /// It sets a cookie.
    SetCookie,
    /// It is not JSON, and upstream states no lifetime.
    NotJson,
    /// Its content coding is one that cannot be undone here.
    Coding,
}

/// Decides whether the answer to a request may be stored ([RFC 9111 §3]).
///
/// # Errors
/// Says why not.
///
/// [RFC 9111 §3]: https://www.rfc-editor.org/rfc/rfc9111#section-3
pub fn check_storable(
    request: &AdmittedRequest,
    status: StatusCode,
    fields: &HeaderMap,
    policy: &FreshnessPolicy,
) -> Result<(), NotStorable> {
    let kind = CacheKind::of(request.partition());
    let directives = ResponseDirectives::read(fields);
    // "the response status code is final"; "if the response status code is 206 or 304 …, the cache understands the
    // response status code": a 206 is never stored, a 304 freshens. 429: "MUST NOT be stored" (RFC 6585 §4).
    if status.is_informational()
        || matches!(
            status,
            StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::TOO_MANY_REQUESTS
        )
    {
        return Err(NotStorable::Status);
    }
    // "the no-store cache directive is not present in the response", "or the must-understand cache directive is
    // present and the cache understands and conforms to the requirements of the response status code".
    let is_understood = directives.has(ResponseFlags::MUST_UNDERSTAND) && is_understood(status);
    if directives.has(ResponseFlags::MUST_UNDERSTAND) && !is_understood {
        return Err(NotStorable::Status);
    }
    let client_allows = policy.directives(request).storing == Storing::Allowed;
    if !client_allows || (directives.has(ResponseFlags::NO_STORE) && !is_understood) {
        return Err(NotStorable::NoStore);
    }
    // "if the cache is shared: the private response directive is either not present or allows …".
    if kind == CacheKind::Shared && directives.has(ResponseFlags::PRIVATE) {
        return Err(NotStorable::Private);
    }
    // "A stored response with a Vary header field value containing a member "*" always fails to match" (§4.1).
    if headers::members(fields, &header::VARY).any(|member| member == "*") {
        return Err(NotStorable::VaryAnything);
    }
    check_coding(fields)?;
    if states_lifetime(fields, &directives, kind) {
        return check_shared_cookies(fields, kind);
    }
    // Cookies are never stored; without a lifetime from upstream, neither is an answer that sets one.
    if fields.contains_key(header::SET_COOKIE) {
        return Err(NotStorable::SetCookie);
    }
    check_class(request.route(), status, fields, &directives)
}

/// What is stored must be decodable for whoever does not take its coding.
fn check_coding(fields: &HeaderMap) -> Result<(), NotStorable> {
    let mut codings = headers::members(fields, &header::CONTENT_ENCODING);
    let is_known = codings.next().is_none_or(|coding| {
        ["gzip", "x-gzip", "identity"].iter().any(|known| coding.eq_ignore_ascii_case(known))
    });
    if is_known && codings.next().is_none() { Ok(()) } else { Err(NotStorable::Coding) }
}

/// An answer that sets a cookie is stored without it, but not for everybody together.
fn check_shared_cookies(fields: &HeaderMap, kind: CacheKind) -> Result<(), NotStorable> {
    if kind == CacheKind::Shared && fields.contains_key(header::SET_COOKIE) {
        return Err(NotStorable::SetCookie);
    }
    Ok(())
}

/// Where upstream states no lifetime, our rules decide; "the response contains at least one of" what RFC 9111 §3
/// lists only where a rule leaves it to the RFC.
fn check_class(
    route: &Route,
    status: StatusCode,
    fields: &HeaderMap,
    directives: &ResponseDirectives,
) -> Result<(), NotStorable> {
    let RoutePolicy::Class { class, .. } = &route.policy else { return Err(NotStorable::NoLifetime) };
    if class.fresh_for.is_none() {
        // "a public response directive"; "a private response directive, if the cache is not shared"; "a status code
        // that is defined as heuristically cacheable".
        let is_marked = directives.has(ResponseFlags::PUBLIC) || directives.has(ResponseFlags::PRIVATE);
        let is_storable = is_marked || is_heuristically_cacheable(status);
        return if is_storable { Ok(()) } else { Err(NotStorable::NoLifetime) };
    }
    if !matches!(status, StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::GONE) {
        return Err(NotStorable::Status);
    }
    if !headers::is_json(fields) {
        return Err(NotStorable::NotJson);
    }
    Ok(())
}

/// Returns whether upstream itself says how long the answer is fresh.
fn states_lifetime(fields: &HeaderMap, directives: &ResponseDirectives, kind: CacheKind) -> bool {
    directives.max_age.is_some()
        || fields.contains_key(header::EXPIRES)
        || (kind == CacheKind::Shared && directives.s_maxage.is_some())
}

/// Status codes whose caching this cache knows to be no different from any other's (RFC 9110 §15, RFC 6585).
fn is_understood(status: StatusCode) -> bool {
    let is_known = matches!(
        status.as_u16(),
        201 | 202 | 205 | 302 | 303 | 307 | 400..=417 | 421 | 422 | 426 | 428 | 431 | 451 | 500..=505 | 511
    );
    is_known || is_heuristically_cacheable(status)
}

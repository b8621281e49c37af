//! Decides what may be stored: [RFC 9111 §3], clause by clause, and our own policy where upstream says nothing.
//!
//! Invariants: what an RFC forbids is never stored, whatever a rule says; cookies are never stored at all; a
//! broken or partial body never gets here. Pure.
//! Not here: for how long (`cache::terms`), how large (`proxy`).
//!
//! [RFC 9111 §3]: https://www.rfc-editor.org/rfc/rfc9111#section-3

use http::StatusCode;
use http::header::{self, HeaderMap};

use crate::admission::AdmittedRequest;
use crate::cache::directives::{DirectiveSource, ResponseDirectives, ResponseFlags, Storing};
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
    /// `private`, in the shared cache.
    Private,
    /// Upstream states no lifetime, and neither does a rule.
    NoLifetime,
    /// `Vary: *`.
    VaryAnything,
    /// It sets a cookie.
    SetCookie,
    /// It is not JSON, and upstream states no lifetime.
    NotJson,
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
    // response status code": a 206 is never stored, a 304 freshens. 429: "MUST NOT be stored" (RFC 6585 §4). A 401 says of
    // the credential that it is none any more, which is for upstream to say each time.
    if status.is_informational()
        || matches!(
            status,
            StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_MODIFIED
                | StatusCode::UNAUTHORIZED
                | StatusCode::TOO_MANY_REQUESTS
        )
    {
        return Err(NotStorable::Status);
    }
    // "the no-store cache directive is not present in the response"; "the cache SHOULD ignore the no-store directive if
    // it understands and implements the status code's caching requirements" (§5.2.2.3, `must-understand`).
    let must_understand =
        directives.has(ResponseFlags::MUST_UNDERSTAND) && !directives.has(ResponseFlags::UNREADABLE);
    if must_understand && !is_understood(status) {
        return Err(NotStorable::Status);
    }
    let client_allows = policy.directives(request).storing == Storing::Allowed;
    if !client_allows || (directives.has(ResponseFlags::NO_STORE) && !must_understand) {
        return Err(NotStorable::NoStore);
    }
    // "if the cache is shared: the private response directive is either not present or allows a shared cache to store
    // a modified response": without the fields that it lists (`CacheKind::withheld`).
    if kind == CacheKind::Shared && directives.has(ResponseFlags::PRIVATE) {
        return Err(NotStorable::Private);
    }
    // "A stored response with a Vary header field value containing a member "*" always fails to match" (§4.1).
    if headers::members(fields, &header::VARY).any(|member| member == "*") {
        return Err(NotStorable::VaryAnything);
    }
    if states_lifetime(fields, &directives, kind) {
        return check_shared_cookies(fields, kind);
    }
    // Cookies are never stored; without a lifetime from upstream, neither is an answer that sets one.
    if fields.contains_key(header::SET_COOKIE) {
        return Err(NotStorable::SetCookie);
    }
    check_class(request.route(), status, fields, &directives)
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
        || (directives.source == DirectiveSource::CacheControl && fields.contains_key(header::EXPIRES))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cache::{ClassConfig, ClientDirectives, RuleConfig};
    use crate::config::{Config, load};
    use crate::testing::{SUBJECT, TOKEN, admitted, fields};

    const JSON: (&str, &str) = ("content-type", "application/json");
    const HTML: (&str, &str) = ("content-type", "text/html");

    /// Who asks, under which rule, and what upstream answers besides its status.
    struct Scene {
        config: Config,
        asks: Vec<(&'static str, &'static str)>,
        says: Vec<(&'static str, &'static str)>,
    }

    /// A private partition and a class with a lifetime.
    fn scene(says: &[(&'static str, &'static str)]) -> Scene {
        let mut config = load::defaults();
        config.cache.default_rules = false;
        config.cache.rules.push(RuleConfig {
            route: "/api/0/organizations/{organization}/subject/".to_owned(),
            class: Some("slow".to_owned()),
            never: false,
            overrides: false,
        });
        Scene { config, asks: vec![TOKEN], says: says.to_vec() }
    }

    /// The same without a rule, and with `Cache-Control`.
    fn unruled(directives: &'static str) -> Scene {
        let mut scene = scene(&[JSON, ("cache-control", directives)]);
        scene.config.cache.rules.clear();
        scene
    }

    impl Scene {
        fn in_the_shared_cache(mut self) -> Self {
            self.config.cache.anonymous = true;
            self.asks.clear();
            self
        }

        /// Under a class that leaves lifetimes to RFC 9111.
        fn without_fresh_for(mut self) -> Self {
            let class = ClassConfig { fresh_for: None, ..self.config.cache.classes["slow"] };
            self.config.cache.classes.insert("slow".to_owned(), class);
            self
        }

        fn overridden(mut self) -> Self {
            self.config.cache.rules[0].overrides = true;
            self
        }

        fn asked(mut self, name: &'static str, value: &'static str) -> Self {
            self.asks.push((name, value));
            self
        }
    }

    /// Holds whether answers with these status codes may be stored, or why not.
    fn check(scene: &Scene, statuses: &[u16], expected: Result<(), NotStorable>) {
        let request = admitted(&scene.config, SUBJECT, &scene.asks);
        let policy = FreshnessPolicy::new(&scene.config);
        for status in statuses {
            let status = StatusCode::from_u16(*status).unwrap();
            let verdict = check_storable(&request, status, &fields(&scene.says), &policy);
            assert_eq!(verdict, expected, "asks {:?}, answered {status} {:?}", scene.asks, scene.says);
        }
    }

    #[test]
    fn where_upstream_states_no_lifetime_only_a_json_success_or_absence_is_stored() {
        check(&scene(&[JSON]), &[200, 404, 410], Ok(()));
        check(&scene(&[JSON]), &[201, 204, 301, 302, 400, 401, 403, 500, 503], Err(NotStorable::Status));
        check(&scene(&[HTML]), &[200, 404], Err(NotStorable::NotJson));
        check(&scene(&[]), &[200], Err(NotStorable::NotJson));
        check(&scene(&[JSON, ("set-cookie", "a=1")]), &[200], Err(NotStorable::SetCookie));
    }

    #[test]
    fn without_a_rule_only_an_explicit_lifetime_lets_an_answer_be_stored() {
        for directives in ["public", "private", "no-cache", "must-revalidate", "stale-if-error=60"] {
            check(&unruled(directives), &[200, 404, 301], Err(NotStorable::NoLifetime));
        }
        check(&unruled("max-age=60"), &[200], Ok(()));
        check(&unruled("max-age=0"), &[200], Ok(()));
        let mut expires = unruled("");
        expires.says.push(("expires", "0"));
        check(&expires, &[200], Ok(()));
    }

    #[test]
    fn rfc9111_3_an_explicit_lifetime_lets_any_final_status_and_type_be_stored() {
        for stated in [("cache-control", "max-age=5"), ("expires", "Fri, 15 Jan 2027 08:00:00 GMT")] {
            check(&scene(&[HTML, stated]), &[200, 203, 204, 301, 302, 400, 403, 405, 500, 503, 599], Ok(()));
        }
    }

    #[test]
    fn rfc9111_3_a_206_a_304_a_401_and_a_429_are_never_stored() {
        let stated = ("cache-control", "max-age=60, public");
        for scene in [scene(&[JSON, stated]), scene(&[JSON, stated]).overridden(), scene(&[JSON])] {
            check(&scene, &[100, 103, 206, 304, 401, 429], Err(NotStorable::Status));
        }
    }

    #[test]
    fn rfc9111_3_s_maxage_states_a_lifetime_only_in_the_shared_cache() {
        check(&unruled("s-maxage=60").in_the_shared_cache(), &[200, 500], Ok(()));
        check(&unruled("s-maxage=60"), &[200, 500], Err(NotStorable::NoLifetime));
        check(&scene(&[HTML, ("cache-control", "s-maxage=60")]), &[200], Err(NotStorable::NotJson));
        check(&scene(&[JSON, ("cache-control", "s-maxage=60")]), &[500], Err(NotStorable::Status));
        check(&scene(&[JSON, ("cache-control", "s-maxage=60")]), &[200], Ok(()));
    }

    #[test]
    fn rfc9111_5_2_2_7_private_keeps_an_answer_out_of_the_shared_cache_alone() {
        for directives in ["private, max-age=60", "private=\"\", max-age=60", "private=\"vary\", max-age=60"]
        {
            check(&unruled(directives).in_the_shared_cache(), &[200], Err(NotStorable::Private));
            check(&unruled(directives), &[200], Ok(()));
        }
        check(&unruled("private=\"x-a\", max-age=60").in_the_shared_cache(), &[200], Ok(()));
    }

    #[test]
    fn rfc9111_5_2_2_5_no_store_wins_over_everything_even_a_rule_that_says_override() {
        for directives in ["no-store", "no-store, max-age=60", "No-Store, public"] {
            let scene = || scene(&[JSON, ("cache-control", directives)]);
            check(&scene(), &[200, 404, 500], Err(NotStorable::NoStore));
            check(&scene().overridden(), &[200, 404, 500], Err(NotStorable::NoStore));
        }
    }

    #[test]
    fn rfc9111_5_2_2_3_must_understand_stands_in_for_no_store_where_the_status_is_understood() {
        let understood = || unruled("must-understand, no-store, max-age=60");
        check(&understood(), &[200, 301, 404, 500], Ok(()));
        check(&understood(), &[299, 399, 418, 499, 599, 206], Err(NotStorable::Status));
        check(&unruled("must-understand, max-age=60"), &[499], Err(NotStorable::Status));
        for unreadable in
            ["must-understand, max-age=60, private=\"x-a", "must-understand, max-age=60; no-store"]
        {
            check(&unruled(unreadable), &[200], Err(NotStorable::NoStore));
        }
        let targeted = [JSON, ("cdn-cache-control", "must-understand, max-age=60, private=1")];
        check(&scene(&targeted), &[200], Err(NotStorable::NoStore));
    }

    #[test]
    fn rfc9111_5_2_1_5_what_the_client_forbids_to_store_is_not_stored() {
        let asking = || scene(&[JSON]).asked("cache-control", "no-store");
        check(&asking(), &[200], Err(NotStorable::NoStore));
        let mut ignored = asking();
        ignored.config.cache.client_directives = ClientDirectives::Ignore;
        check(&ignored, &[200], Ok(()));
        check(&scene(&[JSON]).asked("cache-control", "no-cache, max-age=0"), &[200], Ok(()));
    }

    #[test]
    fn rfc9111_4_1_what_varies_by_anything_is_not_stored() {
        for vary in ["*", "accept, *", "*, x-a"] {
            let says = [JSON, ("vary", vary), ("cache-control", "max-age=60")];
            check(&scene(&says), &[200], Err(NotStorable::VaryAnything));
        }
        check(&scene(&[JSON, ("vary", "x-a"), ("vary", "*")]), &[200], Err(NotStorable::VaryAnything));
        check(&scene(&[JSON, ("vary", "x-a, cookie")]), &[200], Ok(()));
    }

    #[test]
    fn rfc9111_3_a_class_without_a_lifetime_leaves_storing_to_the_rfc() {
        let scene = |directives| scene(&[HTML, ("cache-control", directives)]).without_fresh_for();
        check(&scene(""), &[200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501], Ok(()));
        check(&scene(""), &[201, 302, 400, 403, 500, 503], Err(NotStorable::NoLifetime));
        check(&scene("public"), &[302, 403, 500], Ok(()));
        check(&scene("private"), &[302, 403, 500], Ok(()));
        check(&scene("private").in_the_shared_cache(), &[200], Err(NotStorable::Private));
    }

    #[test]
    fn an_answer_that_sets_a_cookie_is_stored_only_with_a_lifetime_of_upstreams_and_never_for_everybody() {
        let cookie = ("set-cookie", "a=1");
        let stated = [JSON, cookie, ("cache-control", "max-age=60")];
        check(&scene(&stated), &[200], Ok(()));
        check(&scene(&stated).in_the_shared_cache(), &[200], Err(NotStorable::SetCookie));
        check(&scene(&[JSON, cookie]), &[200], Err(NotStorable::SetCookie));
        check(&scene(&[JSON, cookie]).without_fresh_for(), &[200], Err(NotStorable::SetCookie));
        let shared_only = [JSON, cookie, ("cache-control", "s-maxage=60")];
        check(&scene(&shared_only), &[200], Err(NotStorable::SetCookie));
    }

    #[test]
    fn rfc9213_2_2_a_targeted_field_stands_in_for_cache_control_and_expires() {
        let targeted = |directives, others: &[(&'static str, &'static str)]| {
            let mut scene = unruled("no-store");
            scene.says.push(("cdn-cache-control", directives));
            scene.says.extend(others);
            scene
        };
        check(&targeted("max-age=60", &[]), &[200, 500], Ok(()));
        check(&targeted("no-store", &[("expires", "0")]), &[200], Err(NotStorable::NoStore));
        check(
            &targeted("public", &[("expires", "Fri, 15 Jan 2027 09:00:00 GMT")]),
            &[200],
            Err(NotStorable::NoLifetime),
        );
        check(&targeted("private, max-age=60", &[]).in_the_shared_cache(), &[200], Err(NotStorable::Private));
        check(&targeted("max-age=\"60\"", &[]), &[200], Err(NotStorable::NoStore));
    }

    #[test]
    fn rfc9110_8_4_any_content_coding_is_stored_as_it_came() {
        for coding in ["gzip", "identity", "br", "gzip, br", "unheard-of"] {
            check(&scene(&[JSON, ("content-encoding", coding)]), &[200], Ok(()));
        }
    }
}

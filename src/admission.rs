//! Decides whether a request may enter, and turns it into an [`AdmittedRequest`] once and for all. Pure.
//!
//! Checked here, in this order: the framing, who is served at all, the method, the path (guarded, never "fixed"), the sizes, the
//! authority, loops, the credential.
//! Taken out here: what is hop-by-hop, what a client could spoof, cookies, the credential. Said here: whether the
//! cache may answer at all ([`Eligibility`]).
//!
//! Invariants: only [`Admission::admit`] makes an [`AdmittedRequest`], so a key, a decision or an invalidation
//! exists only for a request that passed; the client's spelling of the target is kept to the byte.
//! Not here: keys (`cache::key`), lifetimes (`cache::terms`), where it goes (`regions`).

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Method, Version};

use crate::admission::access::{Access, take_credential};
use crate::admission::aliases::Aliases;
use crate::admission::base::{Bases, PublicBase};
use crate::admission::sizes::Sizes;
use crate::config::{Config, Cookies, PassThrough};
use crate::credential::{BudgetIdentity, Credential, CredentialKeys, CredentialPartition, Fingerprint};
use crate::handling::{ForwardReason, Refusal, RefusalReason};
use crate::headers;
use crate::headers::via;
use crate::peer::{InterimTicket, Peer};
use crate::request_id::RequestId;
use crate::routes::{Route, RoutePolicy, RouteTable, Rule};

pub mod access;
pub mod aliases;
pub mod base;
pub mod client;
pub mod eligibility;
pub mod framing;
pub mod method;
pub mod path;
pub mod sizes;

/// The prefix that the proxy exists for.
const ORGANIZATIONS: &str = "/api/0/organizations/";
const API: &str = "/api/0/";
const OAUTH: &str = "/oauth/";

/// The rules of entry, fixed by the configuration.
#[derive(Debug)]
pub struct Admission {
    routes: RouteTable,
    keys: CredentialKeys,
    bases: Bases,
    pass_through: PassThrough,
    cookies: Cookies,
    anonymous: AnonymousRequests,
    max_target_bytes: usize,
    sizes: Sizes,
    instance: String,
    aliases: Aliases,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnonymousRequests {
    Cached,
    Forwarded,
}

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is none.
    Absent,
    /// Its length in bytes is known.
    Known(u64),
    /// It ends when it ends: chunked, or HTTP/2 without a length.
    Unknown,
}

/// Whether the cache may answer a request, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eligibility {
    /// A stored response may be reused, and the answer stored.
    Cacheable,
    /// A stored response may be reused, but the answer is not stored: `HEAD`, and a range.
    ReuseOnly,
    /// The request is forwarded as it is.
    Forward(ForwardReason),
}

/// A request that passed admission.
#[derive(Debug)]
pub struct AdmittedRequest {
    id: RequestId,
    method: Method,
    path: String,
    query: Option<String>,
    fields: HeaderMap,
    credential: Option<Credential>,
    partition: CredentialPartition,
    budget_identity: BudgetIdentity,
    base: PublicBase,
    route: Route,
    body: BodyFraming,
    eligibility: Eligibility,
    cookies: CookieCarriage,
    interim: Option<InterimTicket>,
}

/// Whether cookies travel with a request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieCarriage {
    /// Neither `Cookie` nor `Set-Cookie` passes.
    Stripped,
    /// Both pass.
    Carried,
}

impl AdmittedRequest {
    /// Returns what it is called.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Returns the method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the path as the client spelled it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the query as the client spelled it, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Returns the fields that may travel on: cleaned, without the credential.
    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// Returns the credential.
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// Returns the partition of the credential.
    pub fn partition(&self) -> CredentialPartition {
        self.partition
    }

    /// Returns for whom Sentry counts it.
    pub fn budget_identity(&self) -> BudgetIdentity {
        self.budget_identity
    }

    /// Returns where the client reached us.
    pub fn base(&self) -> &PublicBase {
        &self.base
    }

    /// Returns the route.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Returns how the body is framed.
    pub fn body(&self) -> BodyFraming {
        self.body
    }

    /// Returns whether the cache may answer.
    pub fn eligibility(&self) -> Eligibility {
        self.eligibility
    }

    /// Returns whether cookies travel.
    pub fn cookies(&self) -> CookieCarriage {
        self.cookies
    }

    /// Returns the way to tell the client something before the answer.
    pub fn interim(&self) -> Option<&InterimTicket> {
        self.interim.as_ref()
    }

    /// Returns whether the method is safe ([RFC 9110 §9.2.1]).
    ///
    /// [RFC 9110 §9.2.1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
    pub fn is_safe(&self) -> bool {
        self.method.is_safe()
    }
}

impl Admission {
    /// Fixes the rules of entry. `instance` is what this process is called in `Via`.
    pub fn new(config: &Config, routes: RouteTable, keys: CredentialKeys, instance: String) -> Self {
        Self {
            routes,
            keys,
            bases: Bases::new(config),
            pass_through: config.passthrough,
            cookies: config.cookies,
            anonymous: if config.cache.anonymous {
                AnonymousRequests::Cached
            } else {
                AnonymousRequests::Forwarded
            },
            max_target_bytes: config.listen.max_target_bytes,
            sizes: Sizes::new(&config.listen),
            instance,
            aliases: Aliases::new(config),
            access: Access::new(config),
        }
    }

    /// Returns the most bytes of a request's body.
    pub fn max_body_bytes(&self) -> u64 {
        self.sizes.body_bytes()
    }

    /// Returns what people may see of a credential.
    pub fn fingerprint_of(&self, credential: &Credential) -> Option<Fingerprint> {
        self.keys.fingerprint(self.keys.partition(Some(credential)))
    }

    /// Returns whether a rule has this template.
    pub fn knows_route(&self, template: &str) -> bool {
        self.routes.rules().any(|rule| rule.label.as_str() == template)
    }

    /// Returns the rule under which a route falls; `None` where none says anything.
    pub fn rule_of(&self, route: &Route) -> Option<&Rule> {
        self.routes.rule_of(&route.label)
    }

    /// Returns what people may see of the credential that owns a partition.
    pub fn fingerprint(&self, partition: CredentialPartition) -> Option<Fingerprint> {
        self.keys.fingerprint(partition)
    }

    /// Admits a request that is called `id`, or refuses it. `peer` is who is connected.
    ///
    /// # Errors
    /// The refusal is already the answer.
    pub fn admit(
        &self,
        mut head: Parts,
        body: BodyFraming,
        peer: Peer,
        id: RequestId,
    ) -> Result<AdmittedRequest, Refusal> {
        let access = self.access.enter(&mut head.headers, &peer)?;
        framing::check(&head.headers)?;
        method::check(&head.method)?;
        let (path, query) = self.target(&head)?;
        self.sizes.check(&head.headers, body)?;
        let base = self.bases.of(&head, &peer)?;
        let mut fields = head.headers;
        headers::clean_request(&mut fields);
        if head.method == Method::OPTIONS {
            method::check_max_forwards(&mut fields)?;
        }
        self.check_loop(&mut fields, head.version)?;
        let credential = take_credential(&mut fields)?;
        let cookies = self.carriage(credential.as_ref(), &mut fields);
        let route = self.routes.classify(&path, query.as_deref());
        let partition = self.keys.partition(credential.as_ref());
        access.check_credential(&self.keys, partition)?;
        let mut admitted = AdmittedRequest {
            id,
            method: head.method,
            budget_identity: self.aliases.identity(&self.keys, credential.as_ref(), partition),
            partition,
            eligibility: Eligibility::Cacheable,
            path,
            query,
            fields,
            credential,
            base,
            route,
            body,
            cookies,
            interim: peer.interim,
        };
        admitted.eligibility = self.eligibility_of(&admitted);
        Ok(admitted)
    }

    /// Checks the request target and returns path and query as they were spelled.
    fn target(&self, head: &Parts) -> Result<(String, Option<String>), Refusal> {
        const NOT_SERVED: Refusal = Refusal::new(
            RefusalReason::UnknownPath,
            "This is sentrybox, a caching proxy for Sentry's API. It serves paths under /api/0/ only.",
        );
        let target = head.uri.path_and_query().ok_or(NOT_SERVED)?;
        if target.as_str().len() > self.max_target_bytes {
            return Err(Refusal::new(RefusalReason::TargetTooLong, "The request target is too long."));
        }
        let path = target.path();
        path::check(path)?;
        let is_served = match self.pass_through {
            PassThrough::None => path.starts_with(ORGANIZATIONS) || self.is_ruled(path),
            PassThrough::Api => path.starts_with(API),
            PassThrough::ApiAndOauth => path.starts_with(API) || path.starts_with(OAUTH),
        };
        if !is_served {
            return Err(NOT_SERVED);
        }
        Ok((path.to_owned(), target.query().map(str::to_owned)))
    }

    /// Returns whether a rule names the path.
    fn is_ruled(&self, path: &str) -> bool {
        !matches!(self.routes.classify(path, None).policy, RoutePolicy::Unmatched)
    }

    /// Refuses a request that has been here, and signs one that has not.
    fn check_loop(&self, fields: &mut HeaderMap, version: Version) -> Result<(), Refusal> {
        let passages = via::passages(fields, &self.instance);
        // A sidecar in front of a shared proxy passes us once by name; a loop comes back to the same instance, or
        // circles through replicas until the name has been seen twice.
        if passages.by_instance > 0 || passages.by_name > 1 {
            return Err(Refusal::new(
                RefusalReason::Loop,
                "The request came back to this proxy: its upstream leads here.",
            ));
        }
        via::append(fields, version, &self.instance);
        Ok(())
    }

    /// Decides whether cookies travel, and strips the request's where they do not.
    fn carriage(&self, credential: Option<&Credential>, fields: &mut HeaderMap) -> CookieCarriage {
        match (self.cookies, credential) {
            // One edge cookie would make a client's whole session uncacheable.
            (Cookies::Strip, Some(_)) => {
                fields.remove(header::COOKIE);
                CookieCarriage::Stripped
            }
            (Cookies::Strip, None) | (Cookies::Pass, _) => CookieCarriage::Carried,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::HeaderValue;

    use super::CookieCarriage::{Carried, Stripped};
    use super::*;
    use crate::config::cache::{ClassConfig, RuleConfig};
    use crate::config::load;
    use crate::credential::CredentialKind;
    use crate::testing::{ID, PEER, TOKEN, admission, fields, head};

    const PROJECTS: &str = "GET /api/0/organizations/acme/projects/";
    const COOKIE: (&str, &str) = ("cookie", "session=1");

    fn admit_with(
        config: &Config,
        (line, pairs): (&str, &[(&str, &str)]),
        body: BodyFraming,
    ) -> Result<AdmittedRequest, Refusal> {
        admission(config).admit(head(line, pairs), body, PEER, ID)
    }

    /// Says what becomes of a request: `cacheable`, `reuse-only`, why it is forwarded, or `refused` and why.
    fn verdict_with(config: &Config, asked: (&str, &[(&str, &str)]), body: BodyFraming) -> String {
        match admit_with(config, asked, body).map(|request| request.eligibility()) {
            Ok(Eligibility::Cacheable) => "cacheable".to_owned(),
            Ok(Eligibility::ReuseOnly) => "reuse-only".to_owned(),
            Ok(Eligibility::Forward(reason)) => reason.label().to_owned(),
            Err(refusal) => format!("refused {}", refusal.reason),
        }
    }

    fn check_with(config: &Config, line: &str, pairs: &[(&str, &str)], expected: &str) {
        let verdict = verdict_with(config, (line, pairs), BodyFraming::Absent);
        assert_eq!(verdict, expected, "{line} with {pairs:?}");
    }

    /// Holds what becomes of a request without a body under the default configuration.
    fn check(line: &str, pairs: &[(&str, &str)], expected: &str) {
        check_with(&load::defaults(), line, pairs, expected);
    }

    fn admitted(line: &str, pairs: &[(&str, &str)]) -> AdmittedRequest {
        admit_with(&load::defaults(), (line, pairs), BodyFraming::Absent).unwrap()
    }

    #[test]
    fn only_get_and_head_may_be_answered_from_the_cache() {
        let line = |method: &str| format!("{method} /api/0/organizations/acme/projects/");
        check(&line("GET"), &[TOKEN], "cacheable");
        check(&line("HEAD"), &[TOKEN], "reuse-only");
        for method in ["OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "QUERY"] {
            check(&line(method), &[TOKEN], "method");
        }
        for method in ["TRACE", "CONNECT"] {
            check(&line(method), &[TOKEN], "refused method-not-allowed");
        }
        check("CONNECT sentry.io:443", &[TOKEN], "refused method-not-allowed");
    }

    #[test]
    fn rfc9110_9_2_1_safe_methods_are_these() {
        for (method, is_safe) in [
            ("GET", true),
            ("HEAD", true),
            ("OPTIONS", true),
            ("POST", false),
            ("DELETE", false),
            ("QUERY", true),
            ("PROPFIND", false),
        ] {
            let line = format!("{method} /api/0/organizations/acme/");
            assert_eq!(admitted(&line, &[TOKEN]).is_safe(), is_safe, "{method}");
        }
    }

    #[test]
    fn a_route_says_whether_its_answers_may_be_stored() {
        check("GET /api/0/organizations/acme/chunk-upload/", &[TOKEN], "route-never");
        check("HEAD /api/0/organizations/acme/chunk-upload/", &[TOKEN], "route-never");
        check("POST /api/0/organizations/acme/chunk-upload/", &[TOKEN], "method");
        check("GET /api/0/organizations/acme/none-such/at/all/", &[TOKEN], "cacheable");
        check("GET /api/0/projects/acme/web/", &[TOKEN], "pass-through");
        check("GET /api/0/", &[TOKEN], "pass-through");
    }

    #[test]
    fn a_rule_makes_another_route_cacheable_or_keeps_one_from_the_cache() {
        let mut config = load::defaults();
        let rule = |route: &str, class: Option<&str>| RuleConfig {
            route: route.to_owned(),
            class: class.map(str::to_owned),
            never: class.is_none(),
            overrides: false,
        };
        config.cache.rules = vec![
            rule("/api/0/projects/{organization}/{project}/issues/", Some("volatile")),
            rule("/api/0/organizations/{organization}/projects/", None),
        ];
        check_with(&config, "GET /api/0/projects/acme/web/issues/?query=x", &[TOKEN], "cacheable");
        check_with(&config, "GET /api/0/projects/acme/web/", &[TOKEN], "pass-through");
        check_with(&config, PROJECTS, &[TOKEN], "route-never");
    }

    #[test]
    fn without_a_credential_nothing_is_cached_unless_the_operator_says_so() {
        let mut config = load::defaults();
        check_with(&config, PROJECTS, &[], "no-credential");
        check_with(&config, PROJECTS, &[("authorization", "  ")], "no-credential");
        config.cache.anonymous = true;
        check_with(&config, PROJECTS, &[], "cacheable");
        check_with(&config, &PROJECTS.replace("GET", "HEAD"), &[], "reuse-only");
        check_with(&config, PROJECTS, &[COOKIE], "cookie");
        check_with(&config, PROJECTS, &[("authorization", "Negotiate x")], "unknown-scheme");
    }

    #[test]
    fn every_known_scheme_is_cached_and_any_other_is_passed_on() {
        for value in
            ["Bearer sntryu_1", "bearer x", "BASIC eDo=", "DSN https://k@o.example/1", "Bearer sntrys_1"]
        {
            check(PROJECTS, &[("authorization", value)], "cacheable");
        }
        for value in ["Negotiate x", "Token x", "Bearerx", "x"] {
            check(PROJECTS, &[("authorization", value)], "unknown-scheme");
        }
    }

    #[test]
    fn two_authorization_fields_are_refused_even_when_they_agree() {
        check(PROJECTS, &[TOKEN, ("authorization", "Bearer other")], "refused bad-credential");
        check(PROJECTS, &[TOKEN, TOKEN], "refused bad-credential");
    }

    #[test]
    fn what_no_key_can_hold_is_forwarded() {
        check(PROJECTS, &[TOKEN, ("range", "bytes=0-9")], "reuse-only");
        for condition in ["if-match", "if-unmodified-since"] {
            check(PROJECTS, &[TOKEN, ("range", "bytes=0-9"), (condition, "\"1\"")], "uncacheable-field");
            check(PROJECTS, &[TOKEN, (condition, "\"1\"")], "cacheable");
        }
        check(PROJECTS, &[TOKEN, ("x-sentry-replay-request", "1")], "uncacheable-field");
        for (name, value) in
            [("if-range", "\"1\""), ("if-none-match", "\"1\""), ("cache-control", "no-store")]
        {
            check(PROJECTS, &[TOKEN, (name, value)], "cacheable");
        }
    }

    #[test]
    fn a_request_with_a_body_is_forwarded_however_it_is_framed() {
        let verdict = |body| verdict_with(&load::defaults(), (PROJECTS, &[TOKEN]), body);
        assert_eq!(verdict(BodyFraming::Absent), "cacheable");
        assert_eq!(verdict(BodyFraming::Known(1)), "request-body");
        assert_eq!(verdict(BodyFraming::Unknown), "request-body");
        let framed = admit_with(&load::defaults(), (PROJECTS, &[TOKEN]), BodyFraming::Known(7)).unwrap();
        assert_eq!(framed.body(), BodyFraming::Known(7));
    }

    #[test]
    fn the_first_barrier_is_the_reason_that_is_told() {
        let all = [COOKIE, ("range", "bytes=0-9"), ("x-sentry-replay-request", "1")];
        let mut config = load::defaults();
        let verdict = |config: &Config, line, pairs: &[(&str, &str)]| {
            verdict_with(config, (line, pairs), BodyFraming::Unknown)
        };
        assert_eq!(verdict(&config, "POST /api/0/projects/a/b/", &all), "method");
        assert_eq!(verdict(&config, "GET /api/0/projects/a/b/", &all), "pass-through");
        assert_eq!(verdict(&config, PROJECTS, &all), "no-credential");
        config.cache.anonymous = true;
        assert_eq!(verdict(&config, PROJECTS, &all), "cookie");
        assert_eq!(verdict(&config, PROJECTS, &all[1..]), "request-body");
        assert_eq!(verdict_with(&config, (PROJECTS, &all[1..]), BodyFraming::Absent), "uncacheable-field");
        assert_eq!(verdict_with(&config, (PROJECTS, &all[1..2]), BodyFraming::Absent), "reuse-only");
    }

    #[test]
    fn cookies_travel_only_without_a_credential_or_where_the_operator_lets_them() {
        let check = |cookies, pairs: &[(&str, &str)], carriage, is_sent: &str, verdict: &str| {
            let config = Config { cookies, ..load::defaults() };
            let request = admit_with(&config, (PROJECTS, pairs), BodyFraming::Absent).unwrap();
            assert_eq!(request.cookies(), carriage, "{cookies:?}, {pairs:?}");
            let sent = request.fields().get(header::COOKIE).map_or("", |cookie| cookie.to_str().unwrap());
            assert_eq!(sent, is_sent, "{cookies:?}, {pairs:?}");
            check_with(&config, PROJECTS, pairs, verdict);
        };
        check(Cookies::Strip, &[TOKEN], Stripped, "", "cacheable");
        check(Cookies::Strip, &[TOKEN, COOKIE], Stripped, "", "cacheable");
        check(Cookies::Strip, &[COOKIE], Carried, COOKIE.1, "no-credential");
        check(Cookies::Pass, &[TOKEN], Carried, "", "cacheable");
        check(Cookies::Pass, &[TOKEN, COOKIE], Carried, COOKIE.1, "cookie");
        check(Cookies::Pass, &[COOKIE], Carried, COOKIE.1, "no-credential");
    }

    #[test]
    fn which_paths_are_served_is_the_operators_choice() {
        let check = |pass_through, rows: &[(&str, &str)]| {
            let config = Config { passthrough: pass_through, ..load::defaults() };
            for (path, expected) in rows {
                check_with(&config, &format!("GET {path}"), &[TOKEN], expected);
            }
        };
        let unknown = "refused unknown-path";
        check(
            PassThrough::None,
            &[
                ("/api/0/organizations/", "cacheable"),
                ("/api/0/organizations/acme/none-such/", "cacheable"),
                ("/api/0/projects/", unknown),
                ("/api/0/organizations", unknown),
                ("/api/0/", unknown),
                ("/oauth/token/", unknown),
            ],
        );
        check(
            PassThrough::Api,
            &[
                ("/api/0/organizations/", "cacheable"),
                ("/api/0/projects/", "pass-through"),
                ("/api/0/organizations", "pass-through"),
                ("/api/0/", "pass-through"),
                ("/api/0", unknown),
                ("/api/1/store/", unknown),
                ("/oauth/token/", unknown),
                ("/", unknown),
            ],
        );
        check(
            PassThrough::ApiAndOauth,
            &[
                ("/api/0/organizations/", "cacheable"),
                ("/api/0/projects/", "pass-through"),
                ("/oauth/token/", "pass-through"),
                ("/oauth", unknown),
                ("/auth/login/", unknown),
            ],
        );
    }

    #[test]
    fn a_rule_lets_its_own_route_in_where_nothing_else_passes_through() {
        let mut config = Config { passthrough: PassThrough::None, ..load::defaults() };
        config.cache.classes.insert("own".to_owned(), ClassConfig { ..config.cache.classes["slow"] });
        config.cache.rules = vec![RuleConfig {
            route: "/api/0/projects/{organization}/{project}/issues/".to_owned(),
            class: Some("own".to_owned()),
            never: false,
            overrides: false,
        }];
        check_with(&config, "GET /api/0/projects/acme/web/issues/", &[TOKEN], "cacheable");
        check_with(&config, "GET /api/0/projects/acme/web/", &[TOKEN], "refused unknown-path");
    }

    #[test]
    fn an_unsafe_path_is_refused_before_it_is_looked_up() {
        check("GET /api/0/organizations/../projects/", &[TOKEN], "refused unsafe-path");
        check("GET /api/0/organizations/%2e%2e/", &[TOKEN], "refused unsafe-path");
        check("GET /api/0//organizations/", &[TOKEN], "refused unsafe-path");
        check("GET /nowhere/../api/0/", &[TOKEN], "refused unsafe-path");
        check("GET /api/0/organizations/acme/releases/a%2Fb/", &[TOKEN], "cacheable");
    }

    #[test]
    fn a_target_is_refused_only_beyond_its_limit() {
        let mut config = load::defaults();
        config.listen.max_target_bytes = 40;
        let target = |length: usize| {
            let path = "GET /api/0/organizations/?query=";
            format!("{path}{}", "x".repeat(length + "GET ".len() - path.len()))
        };
        check_with(&config, &target(40), &[TOKEN], "cacheable");
        check_with(&config, &target(41), &[TOKEN], "refused target-too-long");
    }

    #[test]
    fn a_request_needs_an_authority() {
        check(PROJECTS, &[TOKEN, ("host", "a.example"), ("host", "b.example")], "refused bad-authority");
        check(PROJECTS, &[TOKEN, ("host", "user@a.example")], "refused bad-authority");
        check(PROJECTS, &[TOKEN, ("host", "a.example")], "cacheable");
    }

    #[test]
    fn a_request_that_has_been_here_is_refused() {
        check(PROJECTS, &[TOKEN, ("via", "1.1 sentrybox (here)")], "refused loop");
        check(PROJECTS, &[TOKEN, ("via", "2 edge, 1.1 sentrybox (here), 1.1 cdn")], "refused loop");
        check(PROJECTS, &[TOKEN, ("via", "1.1 sentrybox (a)"), ("via", "1.1 SentryBox")], "refused loop");
        check(PROJECTS, &[TOKEN, ("via", "1.1 sentrybox (sidecar)")], "cacheable");
        check(PROJECTS, &[TOKEN, ("via", "1.1 edge (sentrybox), 1.1 sentrybox.example")], "cacheable");
    }

    #[test]
    fn an_admitted_request_is_signed_behind_whoever_passed_it_on() {
        let via = |pairs: &[(&str, &str)]| {
            let admitted = admitted(PROJECTS, pairs);
            let values = headers::members(admitted.fields(), &header::VIA).map(str::to_owned);
            values.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(via(&[TOKEN]), "1.1 sentrybox (here)");
        let passed = via(&[TOKEN, ("via", "2 edge, 1.1 sentrybox (sidecar)")]);
        assert_eq!(passed, "2 edge, 1.1 sentrybox (sidecar), 1.1 sentrybox (here)");
    }

    #[test]
    fn what_a_client_could_spoof_does_not_travel_on() {
        let said = [
            TOKEN,
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "1.2.3.4"),
            ("x-sentry-subnet-organization", "1"),
            ("connection", "x-hop, keep-alive"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "0"),
            ("expect", "100-continue"),
            ("x-team", "red"),
        ];
        let admitted = admitted(PROJECTS, &said);
        assert_eq!(*admitted.fields(), fields(&[("x-team", "red"), ("via", "1.1 sentrybox (here)")]));
        assert_eq!(admitted.base().as_str(), "http://proxy.example");
    }

    #[test]
    fn fields_of_a_trusted_proxy_make_the_base_and_do_not_travel_on_either() {
        let mut config = load::defaults();
        config.listen.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        let said = [TOKEN, ("x-forwarded-host", "public.example"), ("x-forwarded-proto", "https")];
        let admission = admission(&config);
        let admit = |peer: Ipv4Addr| {
            let admitted = admission
                .admit(head(PROJECTS, &said), BodyFraming::Absent, Peer::new((peer, 7).into()), ID)
                .unwrap();
            assert!(!admitted.fields().contains_key("x-forwarded-host"));
            admitted.base().as_str().to_owned()
        };
        assert_eq!(admit(Ipv4Addr::LOCALHOST), "https://public.example");
        assert_eq!(admit(Ipv4Addr::new(10, 0, 0, 1)), "http://proxy.example");
    }

    #[test]
    fn the_credential_is_taken_out_and_nothing_prints_it() {
        let admitted = admitted(PROJECTS, &[("authorization", "Bearer sntryu_canary")]);
        assert!(!admitted.fields().contains_key(header::AUTHORIZATION));
        assert_eq!(admitted.credential().unwrap().kind(), CredentialKind::UserToken);
        assert_eq!(
            *admitted.credential().unwrap().field_value(),
            HeaderValue::from_static("Bearer sntryu_canary")
        );
        assert!(!format!("{admitted:?} {:?}", admission(&load::defaults())).contains("canary"));
    }

    #[test]
    fn a_credential_decides_the_partition_whatever_else_is_asked() {
        let partition = |line: &str, pairs: &[(&str, &str)]| admitted(line, pairs).partition();
        let one = partition(PROJECTS, &[TOKEN]);
        assert_eq!(one, partition("POST /api/0/projects/acme/web/", &[TOKEN, ("accept", "text/html")]));
        assert_ne!(one, partition(PROJECTS, &[("authorization", "Bearer sntryu_two")]));
        assert_eq!(partition(PROJECTS, &[]), CredentialPartition::ANONYMOUS);
    }

    #[test]
    fn the_clients_spelling_of_the_target_is_kept_to_the_byte() {
        for (path, query) in [
            ("/api/0/organizations/acme/releases/web%2f1.0+2@x/", Some("&cursor=0%3a100:0&a=+b&a")),
            ("/api/0/organizations/acme/issues/", Some("")),
            ("/api/0/organizations/acme/issues/", None),
        ] {
            let line = format!("GET {path}{}", query.map(|query| format!("?{query}")).unwrap_or_default());
            let admitted = admitted(&line, &[TOKEN]);
            assert_eq!((admitted.path(), admitted.query()), (path, query));
        }
    }

    #[test]
    fn rfc9110_7_6_2_max_forwards_counts_down_and_ends_here_at_zero() {
        let admission = admission(&load::defaults());
        let admit = |left: &str| {
            let head = head("OPTIONS /api/0/organizations/", &[("max-forwards", left)]);
            admission.admit(head, BodyFraming::Absent, PEER, ID)
        };
        assert_eq!(admit("3").unwrap().fields()["max-forwards"], "2");
        assert_eq!(admit("many").unwrap().fields()["max-forwards"], "many");
        assert_eq!(admit("0").unwrap_err().reason, RefusalReason::MethodNotAllowed);
    }
}

//! Decides whether a request may enter, and turns it into an [`AdmittedRequest`] once and for all. Pure.
//!
//! Checked here: the path (guarded, never "fixed"), the method, the sizes, the authority, loops, the credential.
//! Taken out here: what is hop-by-hop, what a client could spoof, cookies, the credential. Said here: whether the
//! cache may answer at all ([`Eligibility`]).
//!
//! Invariants: only [`Admission::admit`] makes an [`AdmittedRequest`], so a key, a decision or an invalidation
//! exists only for a request that passed; the client's spelling of the target is kept to the byte.
//! Not here: keys (`cache::key`), lifetimes (`cache::freshness`), where it goes (`regions`).

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, Version};

use crate::admission::base::{Bases, PublicBase};
use crate::config::{Config, Cookies, PassThrough};
use crate::credential::{Credential, CredentialKeys, CredentialKind, CredentialPartition, Fingerprint};
use crate::handling::{ForwardReason, Refusal, RefusalReason};
use crate::headers;
use crate::routes::{Route, RoutePolicy, RouteTable};

pub mod base;
pub mod path;

/// The prefix that the proxy exists for.
const ORGANIZATIONS: &str = "/api/0/organizations/";
const API: &str = "/api/0/";
const OAUTH: &str = "/oauth/";

/// Asks Sentry for an answer across projects that it refuses otherwise (`sentry-api.md` §4.4).
const REPLAY_REQUEST: HeaderName = HeaderName::from_static("x-sentry-replay-request");

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
    instance: String,
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
    /// A stored response may be reused, but the answer is not stored: `HEAD`.
    ReuseOnly,
    /// The request is forwarded as it is.
    Forward(ForwardReason),
}

/// A request that passed admission.
#[derive(Debug)]
pub struct AdmittedRequest {
    method: Method,
    path: String,
    query: Option<String>,
    fields: HeaderMap,
    credential: Option<Credential>,
    partition: CredentialPartition,
    base: PublicBase,
    route: Route,
    body: BodyFraming,
    eligibility: Eligibility,
    cookies: CookieCarriage,
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
            instance,
        }
    }

    /// Returns what people may see of the credential that owns a partition.
    pub fn fingerprint(&self, partition: CredentialPartition) -> Option<Fingerprint> {
        self.keys.fingerprint(partition)
    }

    /// Admits a request, or refuses it. `peer` is who is connected.
    ///
    /// # Errors
    /// The refusal is already the answer.
    pub fn admit(&self, head: Parts, body: BodyFraming, peer: IpAddr) -> Result<AdmittedRequest, Refusal> {
        check_method(&head.method)?;
        let (path, query) = self.target(&head)?;
        let base = self.bases.of(&head, peer)?;
        let mut fields = head.headers;
        headers::clean_request(&mut fields);
        self.check_loop(&mut fields, head.version)?;
        let credential = take_credential(&mut fields)?;
        let cookies = self.carriage(credential.as_ref(), &mut fields);
        let route = self.routes.classify(&path, query.as_deref());
        let mut admitted = AdmittedRequest {
            method: head.method,
            partition: self.keys.partition(credential.as_ref()),
            eligibility: Eligibility::Cacheable,
            path,
            query,
            fields,
            credential,
            base,
            route,
            body,
            cookies,
        };
        admitted.eligibility = self.eligibility(&admitted);
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
        let passages = headers::passages(fields, &self.instance);
        // A sidecar in front of a shared proxy passes us once by name; a loop comes back to the same instance, or
        // circles through replicas until the name has been seen twice.
        if passages.by_instance > 0 || passages.by_name > 1 {
            return Err(Refusal::new(
                RefusalReason::Loop,
                "The request came back to this proxy: its upstream leads here.",
            ));
        }
        headers::append_via(fields, version, &self.instance);
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

    /// Says whether the cache may answer, in the order in which the reasons are worth telling.
    fn eligibility(&self, request: &AdmittedRequest) -> Eligibility {
        let is_head = request.method == Method::HEAD;
        if request.method != Method::GET && !is_head {
            return Eligibility::Forward(ForwardReason::Method);
        }
        let barrier = route_barrier(request).or_else(|| self.credential_barrier(request)).or_else(|| {
            let carries = |name: &HeaderName| request.fields.contains_key(name);
            if carries(&header::COOKIE) {
                Some(ForwardReason::Cookie)
            } else if request.body != BodyFraming::Absent {
                Some(ForwardReason::RequestBody)
            } else if carries(&header::RANGE) {
                Some(ForwardReason::Range)
            } else if carries(&REPLAY_REQUEST) {
                Some(ForwardReason::UncacheableField)
            } else {
                None
            }
        });
        match barrier {
            Some(reason) => Eligibility::Forward(reason),
            None if is_head => Eligibility::ReuseOnly,
            None => Eligibility::Cacheable,
        }
    }

    fn credential_barrier(&self, request: &AdmittedRequest) -> Option<ForwardReason> {
        match request.credential.as_ref().map(Credential::kind) {
            Some(CredentialKind::Unknown) => Some(ForwardReason::UnknownScheme),
            Some(
                CredentialKind::UserToken
                | CredentialKind::OauthToken
                | CredentialKind::IntegrationToken
                | CredentialKind::OrganizationToken
                | CredentialKind::LegacyToken
                | CredentialKind::ApiKey
                | CredentialKind::Dsn,
            ) => None,
            None => match self.anonymous {
                AnonymousRequests::Cached => None,
                AnonymousRequests::Forwarded => Some(ForwardReason::NoCredential),
            },
        }
    }
}

fn route_barrier(request: &AdmittedRequest) -> Option<ForwardReason> {
    match request.route.policy {
        RoutePolicy::Never => Some(ForwardReason::RouteNever),
        RoutePolicy::Class { .. } => None,
        RoutePolicy::Unmatched => {
            (!request.path.starts_with(ORGANIZATIONS)).then_some(ForwardReason::PassThrough)
        }
    }
}

fn check_method(method: &Method) -> Result<(), Refusal> {
    // CONNECT asks for a tunnel; TRACE would show the credential to whoever can make a browser send it.
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(Refusal::new(
            RefusalReason::MethodNotAllowed,
            "This proxy does not forward this method.",
        ));
    }
    Ok(())
}

/// Takes the credential out of the fields.
fn take_credential(fields: &mut HeaderMap) -> Result<Option<Credential>, Refusal> {
    if fields.get_all(header::AUTHORIZATION).iter().nth(1).is_some() {
        return Err(Refusal::new(
            RefusalReason::BadCredential,
            "The request carries more than one Authorization field.",
        ));
    }
    Ok(fields.remove(header::AUTHORIZATION).and_then(Credential::from_field))
}

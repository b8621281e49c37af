//! Decides whether the cache may answer an admitted request at all, or why not. Pure.
//!
//! Invariant: what no key can hold is never answered from the store. Not here: whether what is stored may be reused
//! (`cache::freshness`), and whether an answer may be stored (`cache::storing`).

use http::Method;
use http::header::{self, HeaderName};

use crate::admission::{
    Admission, AdmittedRequest, AnonymousRequests, BodyFraming, Eligibility, ORGANIZATIONS,
};
use crate::credential::{Credential, CredentialKind};
use crate::handling::ForwardReason;
use crate::routes::RoutePolicy;

/// Asks Sentry for an answer across projects that it refuses otherwise (`sentry-api.md` §4.4).
const REPLAY_REQUEST: HeaderName = HeaderName::from_static("x-sentry-replay-request");

impl Admission {
    /// Says whether the cache may answer, in the order in which the reasons are worth telling.
    pub fn eligibility_of(&self, request: &AdmittedRequest) -> Eligibility {
        let is_head = request.method == Method::HEAD;
        if request.method != Method::GET && !is_head {
            return Eligibility::Forward(ForwardReason::Method);
        }
        let wants_part = request.fields.contains_key(header::RANGE);
        let barrier = route_barrier(request).or_else(|| self.credential_barrier(request)).or_else(|| {
            let carries = |name: &HeaderName| request.fields.contains_key(name);
            if carries(&header::COOKIE) {
                Some(ForwardReason::Cookie)
            } else if request.body != BodyFraming::Absent {
                Some(ForwardReason::RequestBody)
            } else if carries(&REPLAY_REQUEST)
                || (wants_part && (carries(&header::IF_MATCH) || carries(&header::IF_UNMODIFIED_SINCE)))
            {
                // A cache leaves these conditions to upstream, so it cannot answer a part that depends on them.
                Some(ForwardReason::UncacheableField)
            } else {
                None
            }
        });
        match barrier {
            Some(reason) => Eligibility::Forward(reason),
            None if is_head || wants_part => Eligibility::ReuseOnly,
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

//! Explains what would become of a request, without sending it: the same steps as in earnest, and no further.
//!
//! Admits, directs, keys, looks up and decides as [`Proxy::serve`] does, by the same functions (`proxy::deciding`), and then
//! foresees ([`foreseeing`]) instead of doing it. What comes out is plain data ([`explanation`]), or one [`screen`] of it.
//!
//! Invariants: nothing is sent, stored, removed, counted, learned or logged; no credential is told back, wherever it stood
//! ([`redaction`]). The store's own order of uses is all that changes: moka takes every look for a use.
//! Not here: who may ask, and in which words (`admin`).

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::request::Parts;

use crate::admission::{BodyFraming, Eligibility};
use crate::cache::body::Coding;
use crate::cache::freshness::{self, Freshness};
use crate::cache::generations::Standing;
use crate::cache::key::{KeyParts, normalized_query};
use crate::cache::stored_response::{Found, StoredResponse};
use crate::cache::terms::{Terms, Trouble};
use crate::credential::{BudgetIdentity, Credential};
use crate::handling::ForwardReason;
use crate::peer::Peer;
use crate::proxy::Proxy;
use crate::proxy::credentials::Trust;
use crate::proxy::explaining::explanation::{
    Asker, BudgetFacts, CredentialStanding, Destination, Eligible, Explanation, KeyText, Kind, RuleInForce,
    Stored, StoredFacts, Subject,
};
use crate::proxy::explaining::foreseen::Foreseen;
use crate::proxy::explaining::redaction::Redaction;
use crate::proxy::explaining::seconds::Seconds;
use crate::regions::DirectedRequest;
use crate::request_id::RequestId;
use crate::routes::spelling::normalized_path;
use crate::routes::{Precedence, RoutePolicy, StaleIfError};

pub mod explanation;
pub mod foreseeing;
pub mod foreseen;
pub mod redaction;
pub mod screen;
pub mod seconds;
pub mod wording;

/// What is said of the cache's side of a request.
struct CacheSide {
    now: Foreseen,
    key: Option<KeyText>,
    stored: Option<Stored>,
    standing: CredentialStanding,
}

impl Proxy {
    /// Explains what would become of a request now. `body` is how a body of it would be framed; `peer` is who would send it.
    pub async fn explain(&self, head: Parts, body: BodyFraming, peer: Peer) -> Explanation {
        let redaction = Redaction::of(&head.headers);
        let method = head.method.to_string();
        let target = redaction.apply(&spelled(
            &normalized_path(head.uri.path()),
            &normalized_query(head.uri.query().unwrap_or_default()),
        ));
        // Nobody will be told this id: nothing is sent, and nothing logged.
        let request = match self.0.admission.admit(head, body, peer, RequestId::made(0)) {
            Ok(admitted) => Arc::new(self.regions().direct(Arc::new(admitted), self.clock().now())),
            Err(refusal) => return Explanation::at_the_door(method, target, &refusal),
        };
        let side = match request.eligibility() {
            Eligibility::Forward(reason) => self.beside_the_cache(&request, reason),
            Eligibility::Cacheable | Eligibility::ReuseOnly => {
                self.before_the_cache(&request, &redaction).await
            }
        };
        let subject = Subject {
            rule: self.rule_in_force(&request),
            credential: self.asker(&request, side.standing),
            upstream: Destination {
                name: request.upstream().name().to_string(),
                bearing: request.bearing().label(),
            },
            eligibility: match request.eligibility() {
                Eligibility::Cacheable => Eligible::Cacheable,
                Eligibility::ReuseOnly => Eligible::ReuseOnly,
                Eligibility::Forward(_) => Eligible::Forward,
            },
            key: side.key,
            stored: side.stored,
            budget: self.budget_facts(&request),
        };
        Explanation { method, target, now: side.now, subject: Some(subject) }
    }

    fn beside_the_cache(&self, request: &DirectedRequest, reason: ForwardReason) -> CacheSide {
        let now = self.foresee_forward(request, reason);
        CacheSide { now, key: None, stored: None, standing: self.standing_of(request, None) }
    }

    async fn before_the_cache(&self, request: &Arc<DirectedRequest>, redaction: &Redaction) -> CacheSide {
        let primary = self.primary_of(request);
        let (key, present) = self.store().peek(primary, request.fields()).await;
        let nominated = self.store().nominated_by(primary).await;
        let decided = self.decide(Arc::clone(request), primary, present.clone());
        let parts = KeyParts::of(request, request.upstream().authority());
        let text = |value: &HeaderValue| redaction.apply(&String::from_utf8_lossy(value.as_bytes()));
        let key_text = KeyText {
            partition: self
                .fingerprint_of(request)
                .map_or_else(|| "anonymous".to_owned(), |it| it.to_string()),
            upstream: parts.upstream.to_owned(),
            target: redaction.apply(&spelled(&parts.path, &parts.query)),
            accept: parts.accept.as_ref().map_or_else(|| "JSON".to_owned(), text),
            accept_language: redaction.apply(&String::from_utf8_lossy(&parts.language)),
            origin: parts.origin.as_ref().map(text).unwrap_or_default(),
            nominated: nominated.iter().map(ToString::to_string).collect(),
        };
        let standing = self.standing_of(request, Some(&present));
        let stored = self.stored(request, &present);
        let now = self.foresee(decided, (key, &present));
        CacheSide { now, key: Some(key_text), stored: Some(stored), standing }
    }

    fn rule_in_force(&self, request: &DirectedRequest) -> RuleInForce {
        let route = request.route();
        let rule = self.0.admission.rule_of(route);
        let is_never = route.policy == RoutePolicy::Never;
        let by_parameter = rule.filter(|rule| is_never && rule.policy != RoutePolicy::Never);
        let (class, overrides) = match &route.policy {
            RoutePolicy::Class { class, precedence } => (Some(class), *precedence == Precedence::Rule),
            RoutePolicy::Never | RoutePolicy::Unmatched => (None, false),
        };
        RuleInForce {
            template: rule.map(|rule| rule.label.to_string()),
            origin: rule.map(|rule| rule.origin.label()),
            class: class.map(|class| class.name.to_string()),
            never: is_never,
            never_with: by_parameter.and_then(|rule| rule.never_with),
            overrides,
            fresh_for: class.and_then(|class| class.fresh_for).map(Seconds),
            stale_while_revalidate: class.map(|class| Seconds(class.stale_while_revalidate)),
            stale_if_error: class.and_then(|class| match class.stale_if_error {
                StaleIfError::For(window) => Some(Seconds(window)),
                StaleIfError::WhileDisconnected => None,
            }),
        }
    }

    fn asker(&self, request: &DirectedRequest, standing: CredentialStanding) -> Asker {
        let limit = self.limit_of(request, request.method());
        Asker {
            kind: request.credential().map(|credential| Credential::kind(credential).label()),
            fingerprint: self.fingerprint_of(request).map(|fingerprint| fingerprint.to_string()),
            standing,
            counted_by: match limit.payer.identity {
                BudgetIdentity::Address => "address",
                BudgetIdentity::Credential(_) => "credential",
                BudgetIdentity::Alias(_) => "alias",
            },
        }
    }

    fn standing_of(&self, request: &DirectedRequest, present: Option<&Found>) -> CredentialStanding {
        let (credentials, partition) = (self.credentials(), request.partition());
        if request.credential().is_none() {
            return CredentialStanding::Absent;
        }
        if credentials.is_suspended(partition) {
            return CredentialStanding::Suspended;
        }
        if let Some(Found::Stored(stored, _)) = present
            && self.trust_in(request, stored) == Trust::Unverified
        {
            return CredentialStanding::Unverified;
        }
        match (credentials.is_stranger(partition), credentials.holds(partition)) {
            (true, _) => CredentialStanding::Rejected,
            (false, true) => CredentialStanding::Accepted,
            (false, false) => CredentialStanding::Unseen,
        }
    }

    fn stored(&self, request: &DirectedRequest, present: &Found) -> Stored {
        let (found, response) = match present {
            Found::Nothing => (Kind::Nothing, None),
            Found::OtherVariant => (Kind::OtherVariant, None),
            Found::Unusable => (Kind::Unusable, None),
            Found::Stored(stored, standing) => {
                (Kind::Response, Some(self.facts_of(request, stored, *standing)))
            }
        };
        Stored { found, response }
    }

    fn facts_of(
        &self,
        request: &DirectedRequest,
        stored: &StoredResponse,
        standing: Standing,
    ) -> StoredFacts {
        let now = self.clock().now();
        let terms = Terms::new(request, stored, self.policy(), standing);
        let freshness = freshness::freshness(request, stored, standing, self.policy(), now);
        let content_type = stored.fields().get(header::CONTENT_TYPE);
        StoredFacts {
            status: stored.status().as_u16(),
            content_type: content_type.and_then(|value| value.to_str().ok()).map(str::to_owned),
            bytes: stored.body().original().len(),
            coding: match stored.body().original_coding() {
                Coding::Identity => "identity",
                Coding::Gzip => "gzip",
            },
            weight: stored.weight(),
            age: Seconds(freshness::current_age(stored, now).0),
            lifetime: Seconds(terms.lifetime().0),
            ttl: freshness.ttl(),
            is_fresh: matches!(freshness, Freshness::Fresh { .. }),
            stale_while_revalidate_left: terms
                .may_be_reused_stale()
                .then(|| left(freshness, terms.stale_while_revalidate())),
            stale_if_error_left: terms
                .may_stand_in()
                .then(|| left(freshness, terms.stale_if_error(Trouble::Disconnected))),
            standing: match standing {
                Standing::Current => "current",
                Standing::Settling => "settling",
                Standing::Purged => "purged",
                Standing::Unusable => "unusable",
            },
            has_validator: stored.has_validator(),
            reuses: stored.reuses(),
        }
    }

    fn budget_facts(&self, request: &DirectedRequest) -> BudgetFacts {
        let limit = self.limit_of(request, request.method());
        let headroom = self.budget().headroom(&limit);
        BudgetFacts::new(self.budget().gates(&limit), headroom, self.budget().waiting())
    }
}

/// Returns how long something may still go out, of a window that begins where its lifetime ends.
fn left(freshness: Freshness, window: Duration) -> Seconds {
    Seconds(match freshness {
        Freshness::Fresh { remaining } => window.saturating_add(remaining),
        Freshness::Stale { by } => window.saturating_sub(by),
    })
}

/// Returns path and query as one.
fn spelled(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

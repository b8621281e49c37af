//! Remembers refusals for a moment, so that a dead token in a loop costs little: 401 and 403, each under its own key.
//!
//! Invariants: bounded; nobody but who was refused is answered from here, and nothing from before a write or a purge; what
//! upstream keeps from caches is not remembered. Not here: what else follows from a refusal (`proxy::credentials`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::StatusCode;
use http::header::HeaderName;

use crate::cache::generations::Standing;
use crate::cache::key::{CacheKey, KeyHashBuilder};
use crate::cache::stored_response::{Provenance, StoredResponse};
use crate::handling::Handling;
use crate::headers::{self, CacheOutcome, CacheStatus};
use crate::proxy::flight::Itinerary;
use crate::proxy::landing::Audience;
use crate::proxy::reply::{Reply, Source};
use crate::proxy::{Proxy, Target};

/// Most refusals remembered; beyond that all are forgotten, which only costs a request each.
const MOST: usize = 1_024;

/// Heaviest refusal that is remembered: Sentry's are a sentence, and a policy among their fields.
const HEAVIEST: u32 = 16 * 1_024;

/// What `Cache-Status` says of a refusal that is remembered.
pub const REMEMBERED: CacheStatus =
    CacheStatus { outcome: CacheOutcome::Hit, ttl: None, detail: Some("remembered-refusal") };

/// Refusals, under the primary keys of what was asked for.
#[derive(Debug, Default)]
pub struct Rejections(Mutex<HashMap<CacheKey, Rejection, KeyHashBuilder>>);

#[derive(Debug, Clone)]
struct Rejection {
    response: Arc<StoredResponse>,
    nominated: Arc<[HeaderName]>,
    variant: CacheKey,
    until: SystemTime,
}

impl Rejections {
    /// Forgets every refusal.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn add(&self, key: CacheKey, rejection: Rejection, now: SystemTime) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if MOST <= table.len() {
            table.retain(|_, rejection| now < rejection.until);
        }
        if MOST <= table.len() {
            table.clear();
        }
        table.insert(key, rejection);
    }

    fn find(&self, key: CacheKey, now: SystemTime) -> Option<Rejection> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rejection = table.get(&key)?.clone();
        if now < rejection.until {
            return Some(rejection);
        }
        table.remove(&key);
        None
    }
}

impl Proxy {
    /// Remembers an answer if it is a refusal that may be told again.
    pub fn remember_rejection(
        &self,
        itinerary: &Itinerary,
        response: &Arc<StoredResponse>,
        audience: &Audience,
    ) {
        // What says for how long it may be stored is not ours to tell again for longer: 401 and 403 are not heuristically
        // cacheable (RFC 9110 §15.1). Sentry says nothing, and only of a credential is it known to be dead.
        let is_rejection = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && itinerary.target.request.credential().is_some()
            && !headers::speaks_of_storing(response.fields());
        let Audience::Variant { nominated, key } = audience else { return };
        let memory = self.settings().rejection_memory;
        if !is_rejection || memory.is_zero() || HEAVIEST < response.weight() {
            return;
        }
        let now = self.clock().now();
        // What the refusal itself made unusable is what was stored before, not the refusal.
        let provenance = Provenance { stamp: self.generations().stamp(now), ..response.provenance().clone() };
        let response = Arc::new(response.freshened(response.fields(), provenance));
        let nominated = Arc::clone(nominated);
        let rejection = Rejection { response, nominated, variant: *key, until: now + memory };
        self.rejections().add(itinerary.target.primary.key(), rejection, now);
    }

    /// Replies with a refusal that is remembered, where there is one.
    pub async fn remembered_rejection(&self, target: &Target) -> Option<Reply> {
        let refused = self.rejection_of(target)?;
        let response = self.present(target, &refused, Source::Shared).await;
        Some(Reply { response, handling: Handling::Reuse, status: REMEMBERED })
    }

    /// Returns the refusal that is remembered of a target, where there is one.
    pub fn rejection_of(&self, target: &Target) -> Option<Arc<StoredResponse>> {
        let rejection = self.rejections().find(target.primary.key(), self.clock().now())?;
        let variant = self.store().variant_by(target.primary, &rejection.nominated, target.request.fields());
        let standing = rejection.response.standing_in(self.generations());
        (variant == rejection.variant && standing != Standing::Unusable).then_some(rejection.response)
    }
}

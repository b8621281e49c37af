//! From a stored response, or from a flight, to the reply of one request.
//!
//! A request that must be forwarded boards the flight of its key and waits for it within its own deadline. What
//! lands is presented to it, unless it was fetched for another variant: then it boards again. Where upstream failed
//! and `cache::freshness` allows it, the stale response goes out instead.
//!
//! Invariants: a passenger waits at most `cache.flight_timeout`; nobody waits for what cannot be shared.
//! Not here: what happens on board (`proxy::flight`).

use std::sync::Arc;

use http::{Response, StatusCode};
use tokio::time;

use crate::admission::AdmittedRequest;
use crate::cache::freshness::{self, Freshness};
use crate::cache::generations::Stamp;
use crate::cache::key::CacheKey;
use crate::cache::single_flight::{Boarding, FlightLost, Seat};
use crate::cache::stored_response::{Found, StoredResponse};
use crate::cache::terms::Trouble;
use crate::handling::{ForwardReason, Handling};
use crate::headers::{CacheOutcome, CacheStatus};
use crate::links::region_urls;
use crate::proxy::body::ReplyBody;
use crate::proxy::flight::{Demand, Itinerary};
use crate::proxy::forward;
use crate::proxy::landing::{Audience, Cargo, ForwardFailure, Landing, Storage};
use crate::proxy::outgoing;
use crate::proxy::reply::{self, Presentation, Reply, Source};
use crate::proxy::{Miss, Proxy, Target};
use crate::routes::spelling::normalized_path;
use crate::traces::fact::Fact;
use crate::traces::{Span, Step};
use crate::upstream::OutgoingBody;
use crate::upstream::error::UpstreamFault;

/// How often a passenger boards because what landed was for another variant.
const MAX_BOARDINGS: usize = 3;

/// What makes two requests passengers of one flight: the key, and the generation that a reader belongs to. One who
/// comes after a write to it never joins a flight from before; whether "there is nothing" still holds, its landing tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlightKey {
    key: CacheKey,
    generation: Stamp,
    /// Whether a response that was stored meanwhile will do; those who demand validation fly apart.
    accepts_stored: bool,
}

impl std::hash::Hash for FlightKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // The key alone spreads well; the rest only tells flights of one key apart.
        self.key.hash(state);
    }
}

impl Proxy {
    /// Replies with a stored response.
    pub async fn reuse(&self, target: &Target, found: Found, freshness: Freshness) -> Reply {
        self.reply_with_stored(target, &found, Reuse::hit(Handling::Reuse, freshness)).await
    }

    /// Replies with a response for longer than ever, because upstream should be asked as little as possible.
    pub async fn reuse_under_pressure(&self, target: &Target, found: Found, freshness: Freshness) -> Reply {
        self.reply_with_stored(target, &found, Reuse::hit(Handling::ReuseUnderPressure, freshness)).await
    }

    /// Replies with a stale response at once, and has it refreshed behind the client's back.
    pub async fn reuse_then_revalidate(&self, target: &Target, found: Found, freshness: Freshness) -> Reply {
        self.refresh(target, Demand::Refreshment).await;
        self.reply_with_stored(target, &found, Reuse::hit(Handling::ReuseThenRevalidate, freshness)).await
    }

    /// Replies with a fresh response, and has it refreshed before it goes stale.
    pub async fn refresh_ahead(&self, target: &Target, found: Found, freshness: Freshness) -> Reply {
        self.refresh(target, Demand::RefreshAhead).await;
        self.reply_with_stored(target, &found, Reuse::hit(Handling::RefreshAhead, freshness)).await
    }

    /// Boards flights until one brings what this request may have, within one deadline.
    pub async fn board(&self, miss: Miss) -> Reply {
        let is_demanded = self.is_validation_demanded(&miss.target.request);
        if !is_demanded && let Some(refusal) = self.remembered_rejection(&miss.target).await {
            return refusal;
        }
        match time::timeout(self.settings().flight_timeout, self.board_in_time(&miss)).await {
            Ok(Some(reply)) => reply,
            // What landed was for somebody else, again and again, or cannot be shared: this request goes alone.
            Ok(None) => self.go_alone(miss, outgoing::empty()).await,
            Err(_) => {
                let late = ForwardFailure::Upstream(UpstreamFault::Timeout);
                let stale = self.stale_reply(&miss, None, late.trouble()).await;
                stale.unwrap_or_else(|| forward::failed(late, miss.reason, None))
            }
        }
    }

    async fn board_in_time(&self, miss: &Miss) -> Option<Reply> {
        let (mut key, latest_making) = (None, self.latest_making());
        for _ in 0..MAX_BOARDINGS {
            if self.is_grounded(&miss.target) {
                return None;
            }
            let (landing, boarding) = self.fly_with(miss, key).await;
            // What is not stored leaves no index: whoever waited for the same variant boards with this one all the same.
            key = landing.nominated().map(|nominated| {
                self.store().variant_by(miss.target.primary, nominated, miss.target.request.fields())
            });
            if !landing.is_overtaken(latest_making, boarding)
                && let Some(reply) = self.disembark(miss, landing, boarding).await
            {
                return Some(reply);
            }
        }
        None
    }

    /// Forwards a request for itself alone; a stale response stands in for a failure here, too.
    pub async fn go_alone(&self, miss: Miss, body: OutgoingBody) -> Reply {
        let request = Arc::clone(&miss.target.request);
        let patience = self.patience_with(&request, &miss.found);
        let reply = self.forward_with(request, body, (miss.reason, patience)).await;
        if !is_failure(reply.response.status()) {
            return reply;
        }
        let answered = match reply.status.outcome {
            CacheOutcome::Forwarded { status, .. } => status,
            CacheOutcome::Hit | CacheOutcome::Own => None,
        };
        self.stale_reply(&miss, answered, reply.trouble()).await.unwrap_or(reply)
    }

    /// Joins the flight of a key, or takes off, and waits for its landing. Without one, the key is that of the store.
    async fn fly_with(&self, miss: &Miss, key: Option<CacheKey>) -> (Landing, Boarding) {
        let (seat, boarding) = self.take_seat(&miss.target, self.demand_of(miss), key).await;
        let mut span = Span::default();
        if boarding == Boarding::Collapsed {
            self.metrics().flights.joined();
            span = miss.target.request.trace().enter(Step::Flight);
            span.note(Fact::Collapsed);
        }
        let landing = seat.landed().await.unwrap_or_else(|FlightLost| {
            self.metrics().flights.lost();
            Landing::failed(ForwardFailure::Lost)
        });
        span.link(&landing.trace);
        (landing, boarding)
    }

    /// Takes a seat in the flight of a key, or takes off.
    pub async fn take_seat(
        &self,
        target: &Target,
        demand: Demand,
        key: Option<CacheKey>,
    ) -> (Seat<Landing>, Boarding) {
        let key = match key {
            Some(key) => key,
            None => self.store().key_of(target.primary, target.request.fields()).await,
        };
        let key = self.flight_key(key, &target.request, demand);
        let itinerary = Itinerary { target: target.clone(), demand };
        let (seat, boarding) = self.flights().join(key, || self.clone().fly(itinerary));
        if boarding == Boarding::TookOff {
            self.metrics().flights.took_off();
        }
        (seat, boarding)
    }

    /// Returns the key of the flight in which a request finds what it wants.
    pub fn flight_key(&self, key: CacheKey, request: &AdmittedRequest, demand: Demand) -> FlightKey {
        let generation = self.generation_of(request);
        FlightKey { key, generation, accepts_stored: demand != Demand::Validation }
    }

    /// Makes the reply from what landed; `None` when it was for somebody else.
    async fn disembark(&self, miss: &Miss, landing: Landing, boarding: Boarding) -> Option<Reply> {
        let request = &miss.target.request;
        let upstream = landing.upstream;
        let trouble = match &landing.cargo {
            Cargo::Failed(failure) => Some(failure.trouble()),
            Cargo::Shared { .. } | Cargo::Parcel(..) => {
                upstream.filter(|status| is_failure(*status)).map(|_| Trouble::Failing)
            }
        };
        if let Some(trouble) = trouble
            && let Some(stale) = self.stale_reply(miss, upstream, trouble).await
        {
            return Some(stale);
        }
        match &landing.cargo {
            // It was a refresh that had to wait, and this passenger is in more of a hurry.
            Cargo::Failed(ForwardFailure::Postponed(_)) => None,
            Cargo::Failed(failure) => Some(forward::failed(*failure, miss.reason, upstream)),
            Cargo::Parcel(parcel, audience) => {
                if !self.may_have(miss, audience, boarding) {
                    return None;
                }
                let shape = region_urls::shape_of(&normalized_path(request.path()));
                let (mut head, body) = parcel.take()?.into_parts();
                let body = reply::in_readable_coding(request, shape, &mut head.headers, body);
                head.headers.extend(landing.limits.as_ref().clone());
                let status = head.status;
                let reply = match self.localize(request, shape, head, body).await {
                    Ok(response) => forward::forwarded(response, miss.reason, status),
                    Err(failure) => forward::failed(failure, miss.reason, upstream),
                };
                Some(reply)
            }
            Cargo::Shared { response, audience, storage } => {
                if !self.may_have(miss, audience, boarding) {
                    return None;
                }
                if *storage == Storage::Found {
                    return Some(self.reply_with_found(&miss.target, response).await);
                }
                Some(self.reply_with_landed(miss, (response, *storage), &landing, boarding).await)
            }
        }
    }

    /// Returns whether a passenger may have what was brought.
    fn may_have(&self, miss: &Miss, audience: &Audience, boarding: Boarding) -> bool {
        match audience {
            Audience::Owner => boarding == Boarding::TookOff,
            Audience::Variant { nominated, key } => {
                let fields = miss.target.request.fields();
                self.store().variant_by(miss.target.primary, nominated, fields) == *key
            }
        }
    }

    /// Replies with a stale response because upstream failed, where that is allowed.
    pub async fn stale_reply(
        &self,
        miss: &Miss,
        upstream: Option<StatusCode>,
        trouble: Trouble,
    ) -> Option<Reply> {
        let freshness = self.stand_in(&miss.target.request, &miss.found, trouble)?;
        let status = reply::standing_in(miss.reason, upstream, freshness);
        let reuse = Reuse { freshness, handling: Handling::Forward(miss.reason), status };
        Some(self.reply_with_stored(&miss.target, &miss.found, reuse).await)
    }

    /// Replies with what somebody else stored between this request's look-up and its flight: a reuse after all.
    async fn reply_with_found(&self, target: &Target, response: &Arc<StoredResponse>) -> Reply {
        let standing = response.standing_in(self.generations());
        let now = self.clock().now();
        let freshness = freshness::freshness(&target.request, response, standing, self.policy(), now);
        let found = Found::Stored(Arc::clone(response), standing);
        self.reply_with_stored(target, &found, Reuse::hit(Handling::Reuse, freshness)).await
    }

    async fn reply_with_stored(&self, target: &Target, found: &Found, reuse: Reuse) -> Reply {
        let Found::Stored(stored, _) = found else {
            return forward::failed(ForwardFailure::Lost, ForwardReason::UriMiss, None);
        };
        let mut response = self.present(target, stored, Source::Reused(reuse.freshness)).await;
        stored.note_reuse();
        // What is left at this moment, never what was left when it was stored.
        let headroom = match reuse.handling {
            Handling::Forward(_) => self.headroom_of(&target.request),
            Handling::Reuse
            | Handling::ReuseThenRevalidate
            | Handling::ReuseUnderPressure
            | Handling::RefreshAhead
            | Handling::Refuse(_) => target.headroom,
        };
        if let Some(limits) = headroom.fields {
            limits.write(response.headers_mut());
        }
        Reply { response, handling: reuse.handling, status: reuse.status }
    }

    async fn reply_with_landed(
        &self,
        miss: &Miss,
        (response, storage): (&Arc<StoredResponse>, Storage),
        landing: &Landing,
        boarding: Boarding,
    ) -> Reply {
        let standing = response.standing_in(self.generations());
        let now = self.clock().now();
        let request = &miss.target.request;
        let freshness = freshness::freshness(request, response, standing, self.policy(), now);
        let stored = storage != Storage::NotStored;
        let source = if stored { Source::Fetched(freshness) } else { Source::Shared };
        let mut reply = self.present(&miss.target, response, source).await;
        reply.headers_mut().extend(landing.limits.as_ref().clone());
        match boarding {
            Boarding::TookOff => reply::add_withheld(
                reply.headers_mut(),
                &landing.withheld,
                request.base(),
                self.regions().known_hosts(),
            ),
            Boarding::Collapsed => {}
        }
        let collapsed = boarding == Boarding::Collapsed;
        let outcome =
            CacheOutcome::Forwarded { reason: miss.reason, status: landing.upstream, stored, collapsed };
        let status = CacheStatus { outcome, ttl: stored.then(|| freshness.ttl()), detail: None };
        Reply { response: reply, handling: Handling::Forward(miss.reason), status }
    }

    /// Presents a response, making the coding that this client needs if it is not at hand.
    pub async fn present(
        &self,
        target: &Target,
        stored: &Arc<StoredResponse>,
        source: Source,
    ) -> Response<ReplyBody> {
        let _span = target.request.trace().enter(Step::Reply);
        let how = Presentation {
            request: &target.request,
            known_hosts: self.regions().known_hosts(),
            downstream: self.settings().downstream,
            source,
            now: self.clock().now(),
        };
        if let Some(response) = reply::present(stored, &how) {
            return response;
        }
        // "The other coding is made once when first needed and re-inserted as a new value."
        let Ok(body) = stored.body().decoded(self.memory().limit()) else {
            return forward::failed(
                ForwardFailure::Upstream(UpstreamFault::Broken),
                ForwardReason::Stale,
                None,
            )
            .response;
        };
        let decoded = Arc::new(stored.with_body(body));
        if source != Source::Shared {
            let key = self.store().variant_of(target.primary, &decoded, target.request.fields());
            self.store().replace(key, stored, Arc::clone(&decoded)).await;
        }
        reply::present(&decoded, &how)
            .unwrap_or_else(|| forward::failed(ForwardFailure::Lost, ForwardReason::UriMiss, None).response)
    }
}

/// How a stored response is reused.
struct Reuse {
    freshness: Freshness,
    handling: Handling,
    status: CacheStatus,
}

impl Reuse {
    /// Reuses it without asking upstream.
    fn hit(handling: Handling, freshness: Freshness) -> Self {
        Self { freshness, handling, status: reply::reused(handling, freshness) }
    }
}

/// Upstream failures that a stale response may stand in for: RFC 5861 §4, and 429, which says the same of our budget.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

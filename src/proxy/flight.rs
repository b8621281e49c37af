//! What happens inside a flight: one forward for everybody who wants the same key.
//!
//! It looks in the store once more, reserves upstream's capacity, takes off, and keeps what may be kept. Whoever
//! waits gets a [`Landing`]: a response to share, a parcel for exactly one, or the failure.
//!
//! Invariants: the flight itself stores, before it lands, so a caller who left still fills the cache; what took off
//! before a write is never handed out after it (`cache::generations`); what must not be shared goes to one.
//! Not here: who waits, for how long, and what a failure means for each (`proxy::boarding`).

use std::sync::Arc;

use bytes::Bytes;
use http::header;
use http::{Method, Response, StatusCode, response};
use http_body_util::{BodyExt as _, Full};

use crate::admission::{AdmittedRequest, CookieCarriage};
use crate::budget::ask::Patience;
use crate::budget::permit::Permit;
use crate::cache::body::{StoredBody, decode};
use crate::cache::freshness::{self, Decision};
use crate::cache::generations::Standing;
use crate::cache::store::{Inserted, Insertion};
use crate::cache::stored_response::{Found, StoredResponse};
use crate::cache::storing::{self, NotStorable};
use crate::cache::terms::Trouble;
use crate::headers::{self, ContentCoding};
use crate::links::region_urls;
use crate::metrics::store::{NotStoredReason, RefreshOutcome};
use crate::proxy::asking::Answer;
use crate::proxy::body::{NotCollected, Obstacle, ReplyBody};
use crate::proxy::landing::{Audience, Cargo, ForwardFailure, Landing, Parcel, Storage};
use crate::proxy::outgoing;
use crate::proxy::provenance::TakeOff;
use crate::proxy::refreshing::Refresh;
use crate::proxy::sharing;
use crate::proxy::{Proxy, Target};
use crate::routes::spelling::normalized_path;
use crate::traces::fact::Fact;
use crate::traces::{Span, Step, Trace};
use crate::upstream::error::UpstreamFault;

/// Decoding this many bytes of gzip takes long enough to be done elsewhere.
const LONG_DECODING: usize = 64 * 1024;

/// What a flight is for: the request that made it take off, under its key.
#[derive(Debug, Clone)]
pub struct Itinerary {
    /// The request that made it take off, and its key.
    pub target: Target,
    /// What its passengers want.
    pub demand: Demand,
}

/// Whether a stored response is good enough for the passengers of a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// It is, if it is fresh.
    Freshness,
    /// It is, and nobody waits: a stale one has gone out already.
    Refreshment,
    /// It is, unless it is worth refreshing before it goes stale; nobody waits.
    RefreshAhead,
    /// It is not: upstream must be asked, because the client or the stored response says so.
    Validation,
}

impl Itinerary {
    /// Returns the same, flown within a span.
    fn within(self, span: &Span) -> Self {
        if !span.is_recorded() {
            return self;
        }
        let request = Arc::unwrap_or_clone(self.target.request).traced(span.trace());
        Self { target: Target { request: Arc::new(request), ..self.target }, ..self }
    }
}

impl Demand {
    /// Returns its one spelling.
    const fn label(self) -> &'static str {
        match self {
            Self::Freshness => "freshness",
            Self::Refreshment => "refreshment",
            Self::RefreshAhead => "refresh-ahead",
            Self::Validation => "validation",
        }
    }

    /// Returns whether what is stored now will do.
    const fn is_met_by(self, decision: Decision) -> bool {
        match (self, decision) {
            (Self::Freshness | Self::Refreshment | Self::RefreshAhead, Decision::Reuse(_))
            | (Self::Freshness | Self::Refreshment, Decision::RefreshAhead(_)) => true,
            (Self::RefreshAhead, Decision::RefreshAhead(_))
            | (Self::Validation, Decision::Reuse(_) | Decision::RefreshAhead(_))
            | (
                _,
                Decision::ReuseThenRevalidate(_)
                | Decision::ReuseUnderPressure(_)
                | Decision::Forward(_)
                | Decision::OnlyIfCached,
            ) => false,
        }
    }
}

/// What is known when a flight asks upstream.
#[derive(Debug, Clone)]
struct Approach {
    /// What is to be validated.
    stored: Option<Arc<StoredResponse>>,
    /// How long it may wait.
    patience: Patience,
}

impl Proxy {
    /// Flies: the body of the task that every passenger waits for.
    pub async fn fly(self, itinerary: Itinerary) -> Landing {
        let mut span = itinerary.target.request.trace().enter(Step::Flight);
        span.note(Fact::Demand(itinerary.demand.label()));
        let itinerary = itinerary.within(&span);
        let refresh = Refresh::begin(&self, &itinerary);
        let mut landing = self.fly_there(&itinerary).await;
        landing.trace = span.trace();
        refresh.end(if landing.is_fresh_again() { RefreshOutcome::Ok } else { RefreshOutcome::Failed });
        landing
    }

    async fn fly_there(&self, itinerary: &Itinerary) -> Landing {
        let request = &itinerary.target.request;
        let found = self.look_up(itinerary.target.primary, request).await;
        // Somebody may have stored it between this caller's look-up and its taking off.
        let decision = freshness::decide(request, &found, self.policy(), self.clock().now());
        if let Found::Stored(response, _) = &found
            && itinerary.demand.is_met_by(decision)
        {
            return self.landing_of_found(itinerary, Arc::clone(response));
        }
        let patience = match itinerary.demand {
            Demand::Refreshment | Demand::RefreshAhead => Patience::None,
            Demand::Freshness | Demand::Validation => self.patience_with(request, &found),
        };
        let stored = match found {
            Found::Stored(stored, _) if stored.has_validator() => Some(stored),
            Found::Stored(..) | Found::Nothing | Found::OtherVariant | Found::Unusable => None,
        };
        self.ask(itinerary, Approach { stored, patience }).await
    }

    /// Returns how long a request may wait to be sent, given what was found for it.
    pub fn patience_with(&self, request: &AdmittedRequest, found: &Found) -> Patience {
        let present = (self.policy(), self.clock().now());
        match freshness::reuse_on_error(request, found, Trouble::Failing, present) {
            Some(_) if !self.credentials().is_suspended(request.partition()) => Patience::Brief,
            Some(_) | None => Patience::Full,
        }
    }

    /// Asks upstream, conditionally if something with a validator is stored.
    async fn ask(&self, itinerary: &Itinerary, approach: Approach) -> Landing {
        let request = &itinerary.target.request;
        let stored = approach.stored.as_deref();
        let answer = self.exchange(self.inquiry(request, &Method::GET, approach.patience), || {
            let mut outgoing = outgoing::for_flight(request, request.target()?, stored);
            self.pass_on_interim(request, &mut outgoing);
            Some(outgoing)
        });
        match answer.await {
            Err(ForwardFailure::NotSent(refused)) if approach.patience == Patience::None => {
                Landing::failed(ForwardFailure::Postponed(refused))
            }
            Err(failure) => Landing::failed(failure),
            Ok(Answer { head, body, permit, take_off }) if head.status == StatusCode::NOT_MODIFIED => {
                drop((body, permit));
                self.conclude_validation(itinerary, approach, (head, take_off)).await
            }
            Ok(answer) => self.receive(itinerary, answer).await,
        }
    }

    /// Makes of a 304 what it says; its place upstream is free already.
    async fn conclude_validation(
        &self,
        itinerary: &Itinerary,
        approach: Approach,
        (head, take_off): (response::Parts, TakeOff),
    ) -> Landing {
        match &approach.stored {
            Some(stored) if stored.is_validated_by(&head.headers) => {
                self.freshen(itinerary, stored, head, take_off).await
            }
            // It speaks of something else: ask once more, without conditions.
            Some(_) => Box::pin(self.ask(itinerary, Approach { stored: None, ..approach })).await,
            // Nobody asked: a 304 is no answer to anybody here.
            None => Landing::failed(ForwardFailure::Upstream(UpstreamFault::Broken)),
        }
    }

    /// Takes an answer in: as a whole to be kept or shared, or as a parcel for one.
    async fn receive(&self, itinerary: &Itinerary, answer: Answer) -> Landing {
        let Answer { head, body, permit, take_off } = answer;
        let request = &itinerary.target.request;
        let _span = request.trace().enter(Step::Keep);
        if !self.is_shareable(request, head.status, &head.headers) {
            self.metrics().store.not_stored(NotStoredReason::NotStorable);
            self.note_absence(request, head.status);
            self.grounded().add(itinerary.target.primary.key(), self.clock().now());
            return Self::parcel(head, ReplyBody::streaming(body, permit), Audience::Owner);
        }
        let audience = self.audience_of(itinerary, &head.headers);
        match self.memory().collect(body, permit).await {
            Ok(collected) => self.keep(itinerary, head, collected.bytes, take_off).await,
            Err(NotCollected::Streaming(body, obstacle)) => {
                let reason = match obstacle {
                    Obstacle::TooLarge => {
                        self.grounded().add(itinerary.target.primary.key(), self.clock().now());
                        NotStoredReason::TooLarge
                    }
                    // That passes: the next one may find room.
                    Obstacle::NoMemory => NotStoredReason::NoBudget,
                };
                self.metrics().store.not_stored(reason);
                self.note_absence(request, head.status);
                Self::parcel(head, body, audience)
            }
            Err(NotCollected::Broken(error)) => {
                self.metrics().store.not_stored(NotStoredReason::Broken);
                self.note_failure(request, &error);
                Landing::failed(ForwardFailure::Upstream(error.fault()))
            }
        }
    }

    /// Keeps a complete answer if it may be kept; everybody who waited gets it either way.
    async fn keep(
        &self,
        itinerary: &Itinerary,
        mut head: response::Parts,
        bytes: Bytes,
        take_off: TakeOff,
    ) -> Landing {
        let request = &itinerary.target.request;
        let verdict = storing::check_storable(request, head.status, &head.headers, self.policy());
        let Some(body) = self.body_of(request, &mut head, &bytes).await else {
            // Whoever does not take it as it is gets it decoded on the way.
            self.metrics().store.not_stored(NotStoredReason::Broken);
            self.note_absence(request, head.status);
            self.grounded().add(itinerary.target.primary.key(), self.clock().now());
            let body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
            let audience = self.audience_of(itinerary, &head.headers);
            return Self::parcel(head, ReplyBody::streaming(body, Permit::spent()), audience);
        };
        let limits = Arc::new(headers::take_limit_fields(&mut head.headers));
        let provenance = self.provenance(request, head.status, take_off);
        let response = StoredResponse::new(head.status, &head.headers, body, provenance);
        let (response, withheld) = sharing::withhold(request, response);
        let cargo = self.cargo(itinerary, response, verdict).await;
        Landing { cargo, upstream: Some(head.status), limits, withheld, trace: Trace::default() }
    }

    /// Freshens what is stored by a 304, unless that says that it may be kept no longer.
    async fn freshen(
        &self,
        itinerary: &Itinerary,
        stored: &Arc<StoredResponse>,
        mut head: response::Parts,
        take_off: TakeOff,
    ) -> Landing {
        let limits = Arc::new(headers::take_limit_fields(&mut head.headers));
        headers::clean_response(&mut head.headers);
        let request = &itinerary.target.request;
        let provenance = self.provenance(request, stored.status(), take_off);
        let (response, mut withheld) =
            sharing::withhold(request, stored.freshened(&head.headers, provenance));
        let judged = sharing::with_cookies(response.fields(), &head.headers);
        let verdict = storing::check_storable(request, response.status(), &judged, self.policy());
        if verdict.is_err() {
            self.store().remove(itinerary.target.primary, request.fields()).await;
        }
        let is_shareable = self.is_shareable(request, response.status(), &judged);
        if request.cookies() == CookieCarriage::Carried && judged.contains_key(header::SET_COOKIE) {
            let cookies = head.headers.get_all(header::SET_COOKIE).iter();
            let cookies = cookies.map(|cookie| (header::SET_COOKIE, cookie.clone()));
            Arc::make_mut(&mut withheld).extend(cookies);
        }
        let mut cargo = self.cargo(itinerary, response, verdict).await;
        if let Cargo::Shared { audience, .. } = &mut cargo
            && !is_shareable
        {
            *audience = Audience::Owner;
            self.grounded().add(itinerary.target.primary.key(), self.clock().now());
        }
        Landing { cargo, upstream: Some(head.status), limits, withheld, trace: Trace::default() }
    }

    /// Stores a response if it may be stored, and hands it to the passengers.
    async fn cargo(
        &self,
        itinerary: &Itinerary,
        response: Arc<StoredResponse>,
        verdict: Result<(), NotStorable>,
    ) -> Cargo {
        let request = &itinerary.target.request;
        let audience = self.audience_of(itinerary, response.fields());
        let standing = response.standing_in(self.generations());
        let storage = if verdict.is_ok() {
            match self.insert(&itinerary.target, Arc::clone(&response)).await {
                Inserted::Yes => Storage::Stored,
                Inserted::No => Storage::NotStored,
            }
        } else {
            self.metrics().store.not_stored(NotStoredReason::NotStorable);
            self.note_absence(request, response.status());
            Storage::NotStored
        };
        // What took off before a write or a purge says nothing of the time after it.
        match standing {
            Standing::Current | Standing::Settling => {
                self.remember_rejection(itinerary, &response, &audience);
            }
            Standing::Purged | Standing::Unusable => {}
        }
        Cargo::Shared { response, audience, storage }
    }

    /// Stores a response for as long as it may be of use.
    pub async fn insert(&self, target: &Target, response: Arc<StoredResponse>) -> Inserted {
        let retention = freshness::retention(&target.request, &response, self.policy(), self.clock().now());
        let insertion = Insertion { primary: target.primary, response, retention };
        let inserted = self.store().insert(insertion, target.request.fields()).await;
        match inserted {
            Inserted::Yes => self.metrics().store.inserted(),
            Inserted::No => {}
        }
        inserted
    }

    /// Returns the body as it is kept; `None` when it is gzip that cannot be undone for whoever does not take it.
    async fn body_of(
        &self,
        request: &AdmittedRequest,
        head: &mut response::Parts,
        bytes: &Bytes,
    ) -> Option<StoredBody> {
        let is_gzip = headers::content_coding(&head.headers) == ContentCoding::Gzip;
        let plain = if is_gzip { self.decoded(bytes).await? } else { bytes.clone() };
        let is_json = head.status.is_success() && headers::is_json(&head.headers);
        let shape = region_urls::shape_of(&normalized_path(request.path())).filter(|_| is_json);
        let splices = shape.map(|shape| self.read_regions(&plain, shape)).unwrap_or_default();
        if !splices.is_empty() {
            head.headers.remove(header::CONTENT_ENCODING);
            return Some(StoredBody::spliced(plain, splices));
        }
        Some(match (is_gzip, headers::accepts_gzip(request.fields())) {
            (false, _) => StoredBody::identity(plain),
            (true, true) => StoredBody::gzip(bytes.clone()),
            // Whoever made it take off needs both at once.
            (true, false) => StoredBody::both(bytes.clone(), plain),
        })
    }

    /// Decodes gzip within the limit of a body; where that takes long, away from the threads that serve.
    async fn decoded(&self, gzip: &Bytes) -> Option<Bytes> {
        let (gzip, limit) = (gzip.clone(), self.memory().limit());
        if gzip.len() < LONG_DECODING {
            return decode(&gzip, limit).ok();
        }
        tokio::task::spawn_blocking(move || decode(&gzip, limit).ok()).await.ok().flatten()
    }

    /// Packs an answer for exactly one passenger.
    fn parcel(mut head: response::Parts, body: ReplyBody, audience: Audience) -> Landing {
        let limits = Arc::new(headers::take_limit_fields(&mut head.headers));
        let upstream = Some(head.status);
        let cargo = Cargo::Parcel(Parcel::new(Response::from_parts(head, body)), audience);
        Landing { limits, ..Landing::bringing(cargo, upstream) }
    }

    fn landing_of_found(&self, itinerary: &Itinerary, response: Arc<StoredResponse>) -> Landing {
        let audience = self.audience_of(itinerary, response.fields());
        let cargo = Cargo::Shared { response, audience, storage: Storage::Found };
        Landing::bringing(cargo, None)
    }
}

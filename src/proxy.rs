//! The corridor: one request, top to bottom.
//!
//! ```text
//! admit ─► key ─► look up ─► decide ─┬─ reuse ──────────────────► present ─► record
//!                                    └─ forward ─► flight ─► keep ─┘
//! ```
//!
//! Each step takes the last one's output and none reaches back. How it is decided is in [`deciding`], how a request waits for
//! a flight in [`boarding`], what happens inside in [`flight`], what it brings home in [`landing`]; what is forwarded as it is
//! in [`forward`], what is sent in [`outgoing`], when and how often in [`asking`], how an answer looks in [`reply`], what is
//! recorded in [`record`], where it goes in [`directions`], what is purged in [`purging`], and what would happen in
//! [`explaining`].
//!
//! Invariants: every request is answered by its deadline; a stale response goes out only where `cache::freshness`
//! allows it; every way a request can go is a `handling::Handling`. Not here: what may be stored or reused.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use tokio::time;

use crate::admission::{Admission, BodyFraming, Eligibility};
use crate::budget::Budget;
use crate::budget::observation::Headroom;
use crate::cache::freshness::Decision;
use crate::cache::generations::Generations;
use crate::cache::key::{KeyHashBuilder, KeyHasher, PrimaryKey};
use crate::cache::policy::FreshnessPolicy;
use crate::cache::single_flight::Flights;
use crate::cache::store::Store;
use crate::cache::stored_response::Found;
use crate::clock::Clock;
use crate::handling::{ForwardReason, Refusal, RefusalReason};
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::proxy::boarding::FlightKey;
use crate::proxy::body::{BodyMemory, ReplyBody};
use crate::proxy::credentials::Credentials;
use crate::proxy::crowding::{Crowding, OVERLOADED};
use crate::proxy::deciding::Decided;
use crate::proxy::errands::Errands;
use crate::proxy::grounded::Grounded;
use crate::proxy::landing::Landing;
use crate::proxy::ledger::Ledger;
use crate::proxy::lines::LineChoices;
use crate::proxy::record::Exchange;
use crate::proxy::refreshing::RefreshPauses;
use crate::proxy::rejections::Rejections;
use crate::proxy::reply::Reply;
use crate::proxy::settings::Settings;
use crate::regions::{DirectedRequest, Regions};
use crate::request_id::RequestIds;
use crate::traces::{Step, Traces};
use crate::upstream::{BoxError, OutgoingBody, Upstream};

pub mod asking;
pub mod boarding;
pub mod body;
pub mod credentials;
pub mod crowding;
pub mod deciding;
pub mod decoding;
pub mod directions;
pub mod errands;
pub mod explaining;
pub mod flight;
pub mod forward;
pub mod grounded;
pub mod head;
pub mod landing;
pub mod ledger;
pub mod lines;
pub mod outgoing;
pub mod overview;
pub mod provenance;
pub mod purging;
pub mod record;
pub mod refreshing;
pub mod rejections;
pub mod reply;
pub mod settings;
pub mod sharing;

/// The answer to `only-if-cached` where nothing may be reused.
pub const NOTHING_STORED: Refusal = Refusal::new(
    RefusalReason::OnlyIfCached,
    "Nothing stored may be reused, and the request forbids asking Sentry (only-if-cached).",
);

/// The proxy; cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxy(Arc<Rooms>);

/// What the corridor runs between.
#[derive(Debug)]
pub struct Rooms {
    /// Who may enter.
    pub admission: Admission,
    /// Where requests go.
    pub regions: Regions,
    /// What is stored.
    pub store: Store,
    /// What became unusable when.
    pub generations: Arc<Generations>,
    /// How keys are hashed.
    pub hasher: KeyHasher,
    /// How much upstream may be asked.
    pub budget: Budget,
    /// Who answers in the end.
    pub upstream: Arc<dyn Upstream>,
    /// What time it is.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is traced.
    pub traces: Traces,
    /// What the operator decided.
    pub settings: Settings,
    /// Which requests get a log line.
    pub lines: LineChoices,
    /// How requests are called.
    pub request_ids: RequestIds,
    /// How much memory bodies may take while they are read.
    pub memory: BodyMemory,
    /// Who waits for upstream.
    pub crowding: Crowding,
    /// What is in the air.
    pub flights: Flights<FlightKey, Landing, KeyHashBuilder>,
    /// Keys that are not worth collapsing.
    pub grounded: Grounded,
    /// What upstream said of each credential.
    pub credentials: Credentials,
    /// What upstream has just refused.
    pub rejections: Rejections,
    /// What could not be refreshed.
    pub refresh_pauses: RefreshPauses,
    /// Writes under way.
    pub errands: Errands,
    /// What each credential was spared.
    pub ledger: Ledger,
}

/// What an eligible request is about: itself, and the primary key of what it asks for.
#[derive(Debug, Clone)]
pub struct Target {
    /// The request, and where it goes.
    pub request: Arc<DirectedRequest>,
    /// Its primary key.
    pub primary: PrimaryKey,
    /// What was known of its caller's limit when it came.
    pub headroom: Headroom,
}

/// Something to be fetched: for whom, in place of what, and why.
#[derive(Debug)]
pub struct Miss {
    /// What is asked for.
    pub target: Target,
    /// What was found in the store.
    pub found: Found,
    /// Why that is not enough.
    pub reason: ForwardReason,
}

impl Proxy {
    /// Builds the corridor from its rooms.
    pub fn new(rooms: Rooms) -> Self {
        Self(Arc::new(rooms))
    }

    /// Returns a handle that does not keep the rooms alive.
    pub fn downgrade(&self) -> Weak<Rooms> {
        Arc::downgrade(&self.0)
    }

    /// Serves one request.
    pub async fn serve<B>(&self, request: Request<B>, peer: Peer) -> Response<ReplyBody>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let id = self.0.request_ids.take(&mut head.headers);
        let mut exchange = Exchange::begin(&head, id.clone(), &self.0);
        let trace = exchange.trace();
        let version = head.version;
        let admit = || self.0.admission.admit(head, framing(&body), peer, id);
        let reply = match trace.during(Step::Admit, admit) {
            Ok(admitted) => {
                let request = self.direct(Arc::new(admitted), trace);
                exchange.admitted(&request);
                let most = self.0.admission.max_body_bytes();
                let body = forward::outgoing_body(body, (version, most));
                self.answer_anywhere(request, body, &mut exchange).await
            }
            Err(refusal) => Reply::refusal(&refusal),
        };
        exchange.end(reply, &self.0)
    }

    /// Answers an admitted request: from the store if it may, from upstream if it must.
    pub async fn answer(&self, request: Arc<DirectedRequest>, body: OutgoingBody) -> Reply {
        if let Eligibility::Forward(reason) = request.eligibility() {
            let Some(_waiting) = self.crowding().enter() else { return Reply::refusal(&OVERLOADED) };
            return self.forward(request, body, reason).await;
        }
        let primary = self.primary_of(&request);
        let found = self.look_up(primary, &request).await;
        let trace = request.trace().clone();
        let Decided { target, found, decision } =
            trace.during(Step::Decide, || self.decide(request, primary, found));
        match decision {
            Decision::Reuse(freshness) => self.reuse(&target, found, freshness).await,
            Decision::ReuseUnderPressure(freshness) => {
                self.reuse_under_pressure(&target, found, freshness).await
            }
            Decision::ReuseThenRevalidate(freshness) => {
                self.reuse_then_revalidate(&target, found, freshness).await
            }
            Decision::RefreshAhead(freshness) => self.refresh_ahead(&target, found, freshness).await,
            Decision::Forward(reason) => self.fetch(Miss { target, found, reason }, body).await,
            Decision::OnlyIfCached => Reply::refusal(&NOTHING_STORED),
        }
    }

    /// Looks in the store for what a request asks for.
    pub async fn look_up(&self, primary: PrimaryKey, request: &DirectedRequest) -> Found {
        let _span = request.trace().enter(Step::LookUp);
        self.store().look_up(primary, request.fields()).await
    }

    /// Fetches an answer: together with everybody who wants the same, where that is allowed.
    async fn fetch(&self, miss: Miss, body: OutgoingBody) -> Reply {
        let Some(_waiting) = self.crowding().enter() else { return self.turn_away(&miss).await };
        if self.may_share(&miss.target.request) {
            self.board(miss).await
        } else {
            self.go_alone(miss, body).await
        }
    }

    /// Lands every flight and ends every write that is under way, within a deadline.
    pub async fn drain(&self, deadline: Duration) {
        let drained = time::timeout(deadline, async {
            self.0.errands.drain().await;
            self.0.flights.all_landed().await;
        });
        if drained.await.is_err() {
            tracing::warn!("work was still under way at the shutdown's deadline");
        }
    }

    /// Returns what is known of the limit that such a request counts against, were it to be forwarded.
    pub fn headroom_of(&self, request: &DirectedRequest) -> Headroom {
        self.budget().headroom(&self.limit_of(request, &Method::GET))
    }

    /// Returns the primary key of what a request asks for.
    pub fn primary_of(&self, request: &DirectedRequest) -> PrimaryKey {
        PrimaryKey::of(request, request.upstream().authority(), &self.0.hasher)
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Returns the upstreams.
    pub fn regions(&self) -> &Regions {
        &self.0.regions
    }

    /// Returns what became unusable when.
    pub fn generations(&self) -> &Generations {
        &self.0.generations
    }

    /// Returns how much upstream may be asked.
    pub fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Returns who answers in the end.
    pub fn upstream(&self) -> &dyn Upstream {
        self.0.upstream.as_ref()
    }

    /// Returns the clock.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Returns the metrics, for a task that outlives its request.
    pub fn shared_metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.0.metrics)
    }

    /// Returns what is traced.
    pub fn traces(&self) -> &Traces {
        &self.0.traces
    }

    /// Returns what is in the air.
    pub fn flights(&self) -> &Flights<FlightKey, Landing, KeyHashBuilder> {
        &self.0.flights
    }

    /// Returns the keys that are not worth collapsing.
    pub fn grounded(&self) -> &Grounded {
        &self.0.grounded
    }

    /// Returns what upstream said of each credential.
    pub fn credentials(&self) -> &Credentials {
        &self.0.credentials
    }

    /// Returns what could not be refreshed.
    pub fn refresh_pauses(&self) -> &RefreshPauses {
        &self.0.refresh_pauses
    }

    /// Returns what upstream has just refused.
    pub fn rejections(&self) -> &Rejections {
        &self.0.rejections
    }

    /// Returns how much memory bodies may take while they are read.
    pub fn memory(&self) -> &BodyMemory {
        &self.0.memory
    }

    /// Returns the writes under way.
    pub fn errands(&self) -> &Errands {
        &self.0.errands
    }

    /// Returns what the operator decided about freshness.
    pub fn policy(&self) -> &FreshnessPolicy {
        &self.0.settings.freshness
    }

    /// Returns what the operator decided.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }
}

/// Returns how a request's body is framed, as its connection tells.
fn framing<B: Body>(body: &B) -> BodyFraming {
    match body.size_hint().exact() {
        Some(0) => BodyFraming::Absent,
        Some(length) => BodyFraming::Known(length),
        None if body.is_end_stream() => BodyFraming::Absent,
        None => BodyFraming::Unknown,
    }
}

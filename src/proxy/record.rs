//! Records what became of a request: `Cache-Status`, the metrics, the log and the span, all from one [`Exchange`].
//!
//! Invariants: every answer gets a `Cache-Status` member of ours, after those of caches nearer to upstream
//! ([RFC 9211 §2]), and its request's id; hits are counted, and logged only when asked for; no query, field or credential
//! is logged, of a credential only its fingerprint.
//! Not here: what the metrics are called (`metrics`), which requests get a line (`proxy::lines`).
//!
//! [RFC 9211 §2]: https://www.rfc-editor.org/rfc/rfc9211#section-2

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::admission::AdmittedRequest;
use crate::clock::Stopwatch;
use crate::credential::{CredentialPartition, Fingerprint};
use crate::handling::Handling;
use crate::handling::bearing::Bearing;
use crate::headers::{CACHE_STATUS, CacheOutcome, CacheStatus};
use crate::metrics::bytes::BodySource;
use crate::proxy::Rooms;
use crate::proxy::body::ReplyBody;
use crate::proxy::ledger::{Answer, Cost, Quality};
use crate::proxy::reply::Reply;
use crate::regions::DirectedRequest;
use crate::request_id::{RequestId, X_REQUEST_ID};
use crate::routes::RouteLabel;
use crate::traces::fact::{Fact, known};
use crate::traces::{Span, Trace};

/// One request, from its head to its answer's head.
#[derive(Debug)]
pub struct Exchange {
    watch: Stopwatch,
    id: RequestId,
    method: Method,
    path: Option<String>,
    route: RouteLabel,
    class: Option<Arc<str>>,
    partition: CredentialPartition,
    upstream: Option<Arc<str>>,
    bearing: Option<Bearing>,
    span: Span,
}

impl Exchange {
    /// Begins with a request's arrival.
    pub fn begin(head: &Parts, id: RequestId, rooms: &Rooms) -> Self {
        Self {
            watch: Stopwatch::start(),
            id,
            method: head.method.clone(),
            path: rooms.lines.told_path(head),
            route: RouteLabel::Other,
            class: None,
            partition: CredentialPartition::ANONYMOUS,
            upstream: None,
            bearing: None,
            span: rooms.traces.begin(&head.method, &head.headers),
        }
    }

    /// Returns the place in a trace where the request is worked for.
    pub fn trace(&self) -> Trace {
        self.span.trace()
    }

    /// Notes what admission found out about the request.
    pub fn admitted(&mut self, request: &AdmittedRequest) {
        self.route = request.route().label.clone();
        self.class = request.route().class().cloned();
        self.partition = request.partition();
        if self.span.is_recorded() {
            self.span.note(Fact::Scheme(&request.base().scheme()));
        }
    }

    /// Notes where the request goes.
    pub fn directed(&mut self, request: &DirectedRequest) {
        self.upstream = Some(request.upstream().name());
        self.bearing = Some(request.bearing());
    }

    /// Ends with the answer: counts it, logs it, and says in it what was done.
    pub fn end(mut self, reply: Reply, rooms: &Rooms) -> Response<ReplyBody> {
        let Reply { mut response, handling, status } = reply;
        response.headers_mut().append(CACHE_STATUS, status.render());
        response.headers_mut().insert(X_REQUEST_ID, self.id.field_value());
        response.body_mut().count(&rooms.metrics.bytes, source_of(handling, &status));
        let elapsed = self.watch.read();
        rooms.metrics.requests.observe(handling, response.status(), elapsed);
        rooms.metrics.requests.observe_route(self.route.as_str(), handling);
        if let Some(answer) = entry(handling, &status) {
            rooms.enter_answer(self.partition, self.class.as_deref(), answer);
        }
        let is_logged = match handling {
            Handling::Forward(_) | Handling::Refuse(_) => true,
            Handling::Reuse
            | Handling::ReuseThenRevalidate
            | Handling::ReuseUnderPressure
            | Handling::RefreshAhead => rooms.lines.wants_hit(),
        };
        if is_logged {
            let line = Line { exchange: &self, handling, status, answered: response.status(), elapsed };
            line.log(rooms.admission.fingerprint(self.partition));
        }
        if self.span.is_recorded() {
            self.describe(handling, response.status(), rooms);
        }
        response
    }

    /// Says in the request's span what became of it.
    fn describe(&mut self, handling: Handling, status: StatusCode, rooms: &Rooms) {
        self.span.note(Fact::Method(&self.method));
        self.span.note(Fact::Route(&self.route));
        self.span.note(Fact::Status(status));
        self.span.note(Fact::Handling(handling));
        if let Some(fingerprint) = rooms.admission.fingerprint(self.partition) {
            self.span.note(Fact::Credential(fingerprint));
        }
    }
}

/// Returns where the body of an answer came from.
fn source_of(handling: Handling, status: &CacheStatus) -> BodySource {
    match (handling, status.outcome) {
        (Handling::Refuse(_), _) | (_, CacheOutcome::Own) => BodySource::Own,
        (_, CacheOutcome::Hit) => BodySource::Store,
        // What is stale and was not just stored stands in for a failure.
        (_, CacheOutcome::Forwarded { stored: false, .. }) if is_stale(status) => BodySource::Store,
        (_, CacheOutcome::Forwarded { .. }) => BodySource::Upstream,
    }
}

fn is_stale(status: &CacheStatus) -> bool {
    status.ttl.is_some_and(|ttl| ttl < 0)
}

/// Returns what an answer was to the books; `None` for a refusal.
fn entry(handling: Handling, status: &CacheStatus) -> Option<Answer> {
    let cost = match (handling, status.outcome) {
        (Handling::Refuse(_), _) => return None,
        (_, CacheOutcome::Hit | CacheOutcome::Forwarded { collapsed: true, .. }) => Cost::Saved,
        (_, CacheOutcome::Forwarded { .. } | CacheOutcome::Own) => Cost::Spent,
    };
    Some(Answer { cost, quality: if is_stale(status) { Quality::Stale } else { Quality::Fresh } })
}

/// What the log says of one request.
struct Line<'a> {
    exchange: &'a Exchange,
    handling: Handling,
    status: CacheStatus,
    answered: StatusCode,
    elapsed: Duration,
}

impl Line<'_> {
    fn log(&self, credential: Option<Fingerprint>) {
        let upstream_status = match self.status.outcome {
            CacheOutcome::Forwarded { status, .. } => status.map(|status| status.as_u16()),
            CacheOutcome::Hit | CacheOutcome::Own => None,
        };
        // An error of our own making is somebody's to look at; one of Sentry's is an answer like any other.
        let is_failure = matches!(self.handling, Handling::Refuse(_)) && self.answered.is_server_error();
        if is_failure {
            tracing::warn!(
                request_id = %self.exchange.id,
                method = known(&self.exchange.method),
                path = self.exchange.path,
                route = %self.exchange.route,
                credential = credential.map(tracing::field::display),
                handling = self.handling.label(),
                reason = self.handling.reason_label(),
                upstream = self.exchange.upstream.as_deref(),
                bearing = self.exchange.bearing.map(Bearing::label),
                upstream_status,
                status = self.answered.as_u16(),
                duration_us = micros(self.elapsed),
                "request failed"
            );
        } else {
            tracing::info!(
                request_id = %self.exchange.id,
                method = known(&self.exchange.method),
                path = self.exchange.path,
                route = %self.exchange.route,
                credential = credential.map(tracing::field::display),
                handling = self.handling.label(),
                reason = self.handling.reason_label(),
                detail = self.status.detail,
                upstream = self.exchange.upstream.as_deref(),
                bearing = self.exchange.bearing.map(Bearing::label),
                upstream_status,
                status = self.answered.as_u16(),
                duration_us = micros(self.elapsed),
                "request served"
            );
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

//! Asks upstream: when the budget lets it, and again where that is safe and of use.
//!
//! What goes out is made anew for each attempt, after the right to send it was given: so nothing is stamped with a moment at
//! which it only stood in a line. A refusal (429) of something that may be repeated is waited for like any other limit,
//! within the same `budget.max_wait`; a failure on the way is tried again `budget.retries` times, a little later. Where the
//! client could be given something stale instead, nothing is repeated.
//!
//! Invariants: what changes something, or brings a body, is sent once; every attempt is paid for.
//! Not here: what the answer means (`proxy::flight`, `proxy::forward`), whether it may be sent (`budget`).

use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Method, Request, StatusCode, response};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time;

use crate::admission::BodyFraming;
use crate::budget::account::Reach;
use crate::budget::ask::{Ask, Limit, Load, Patience, Payer};
use crate::budget::permit::{self, Permit, Reservation};
use crate::clock::Stopwatch;
use crate::credential::BudgetIdentity;
use crate::headers;
use crate::metrics::closed::ClosedLabel as _;
use crate::metrics::upstream::UpstreamOutcome;
use crate::proxy::Proxy;
use crate::proxy::body::counted;
use crate::proxy::directions::PlaceVerdict;
use crate::proxy::landing::ForwardFailure;
use crate::proxy::provenance::TakeOff;
use crate::regions::DirectedRequest;
use crate::traces::Step;
use crate::traces::fact::{Fact, known};
use crate::upstream::error::{UpstreamError, UpstreamFault};
use crate::upstream::{Attempts, IncomingBody, OutgoingBody};

/// Most attempts in all, however quickly upstream refuses.
const MOST_ATTEMPTS: u32 = 8;

/// Upstream's answer.
#[derive(Debug)]
pub struct Answer {
    /// Its head.
    pub head: response::Parts,
    /// Its body.
    pub body: IncomingBody,
    /// The permit under which it comes.
    pub permit: Permit,
    /// When its request was sent.
    pub take_off: TakeOff,
}

/// Something to be asked upstream, for whom, and by which limit.
#[derive(Debug)]
pub struct Inquiry<'a> {
    request: &'a DirectedRequest,
    ask: Ask,
}

/// What is left of a request's patience.
#[derive(Debug)]
struct Attempt {
    number: u32,
    failures: u32,
    wait_left: Duration,
}

/// Whether to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Yes, as soon as the budget lets it.
    Refused,
    /// Yes, a little later.
    Failed,
    /// No.
    No,
}

impl Proxy {
    /// Returns what is to be asked for a request, by this method.
    pub fn inquiry<'a>(
        &self,
        request: &'a DirectedRequest,
        method: &Method,
        patience: Patience,
    ) -> Inquiry<'a> {
        Inquiry { request, ask: self.ask_for(request, method, patience) }
    }

    /// Returns what the budget is asked for a request, by this method.
    pub fn ask_for(&self, request: &DirectedRequest, method: &Method, patience: Patience) -> Ask {
        let load = if request.body() == BodyFraming::Absent { Load::Bare } else { Load::WithBody };
        Ask { limit: self.limit_of(request, method), partition: request.partition(), load, patience }
    }

    /// Returns what a request counts against, when it is sent by this method.
    pub fn limit_of(&self, request: &DirectedRequest, method: &Method) -> Limit {
        // Sentry counts by its address whom it does not know.
        let is_stranger = self.credentials().is_stranger(request.partition());
        let identity = if is_stranger { BudgetIdentity::Address } else { request.budget_identity() };
        // Whatever a client calls a method that nobody knows, it is one more caller's only once.
        let method = Method::from_bytes(known(method).as_bytes()).unwrap_or_default();
        let payer = Payer { upstream: request.upstream().name(), identity, method };
        Limit { payer, route: request.route().label.clone() }
    }

    /// Asks upstream, as often as that is allowed and of use. `make` makes the request for each attempt; without one upstream
    /// cannot be reached.
    pub async fn exchange(
        &self,
        inquiry: Inquiry<'_>,
        mut make: impl FnMut() -> Option<Request<OutgoingBody>>,
    ) -> Result<Answer, ForwardFailure> {
        let mut attempt = self.first_attempt();
        let mut has_waited = self.needs_turn(inquiry.request);
        // Held until the answer has told what is to be thought of the credential.
        let mut turn = self.take_turn(inquiry.request, &mut attempt).await;
        let mut failure = None;
        loop {
            let reservation = match self.reserve(&inquiry, &mut attempt).await {
                Ok(reservation) => reservation,
                // What upstream itself did says more than that it was not asked again.
                Err(refused) => return Err(failure.unwrap_or(refused)),
            };
            // It may have been rejected while this one stood in the line.
            if turn.is_none() && !has_waited && self.needs_turn(inquiry.request) {
                reservation.give_back();
                turn = self.take_turn(inquiry.request, &mut attempt).await;
                has_waited = true;
                continue;
            }
            let result = self.send_once(inquiry.request, make(), reservation).await;
            match self.again(&inquiry.ask, &attempt, &result) {
                Again::No => return result,
                Again::Refused => tracing::warn!(
                    request_id = %inquiry.request.id(),
                    route = %inquiry.request.route().label,
                    credential = self.fingerprint_of(inquiry.request).map(tracing::field::display),
                    upstream_status = StatusCode::TOO_MANY_REQUESTS.as_u16(),
                    "upstream refused, and is asked again when it allows it"
                ),
                Again::Failed => {
                    attempt.failures += 1;
                    // What an edge said in HTML is no answer of Sentry's.
                    failure = result.err().or(Some(ForwardFailure::Upstream(UpstreamFault::Broken)));
                    let pause = permit::jitter();
                    attempt.wait_left = attempt.wait_left.saturating_sub(pause);
                    time::sleep(pause).await;
                }
            }
            attempt.number += 1;
            self.metrics().upstream.repeated();
        }
    }

    /// Waits for a request's turn, out of what is left of its patience.
    async fn take_turn(
        &self,
        request: &DirectedRequest,
        attempt: &mut Attempt,
    ) -> Option<OwnedSemaphorePermit> {
        let waiting = Stopwatch::start();
        let turn = self.turn_of(request, attempt.wait_left).await;
        attempt.wait_left = attempt.wait_left.saturating_sub(waiting.read());
        turn
    }

    fn first_attempt(&self) -> Attempt {
        Attempt { number: 1, failures: 0, wait_left: self.budget().max_wait() }
    }

    /// Waits for the right to send something once.
    pub async fn reserve_once(&self, inquiry: &Inquiry<'_>) -> Result<Reservation, ForwardFailure> {
        self.reserve(inquiry, &mut self.first_attempt()).await
    }

    async fn reserve(
        &self,
        inquiry: &Inquiry<'_>,
        attempt: &mut Attempt,
    ) -> Result<Reservation, ForwardFailure> {
        let waiting = Stopwatch::start();
        let mut span = inquiry.request.trace().enter(Step::Budget);
        let result = self.budget().reserve(inquiry.ask.clone(), attempt.wait_left).await;
        let waited = waiting.read();
        self.metrics().upstream.waited(waited);
        attempt.wait_left = attempt.wait_left.saturating_sub(waited);
        let held = match &result {
            Ok(reservation) => reservation.held().inspect(|hold| self.metrics().budget.held(*hold)),
            Err(refused) => {
                span.note(Fact::Failure(refused.hold.label()));
                self.metrics().budget.not_sent(refused.hold);
                if inquiry.ask.patience != Patience::None {
                    self.enter_refusal(inquiry.request);
                }
                Some(refused.hold)
            }
        };
        if let Some(hold) = held {
            span.note(Fact::Hold(hold));
            self.enter_hold(inquiry.request, hold, waited);
        }
        result.map_err(ForwardFailure::NotSent)
    }

    /// Sends a request for which there is a place, and notes what the answer says of its credential.
    pub async fn send_once(
        &self,
        request: &DirectedRequest,
        outgoing: Option<Request<OutgoingBody>>,
        reservation: Reservation,
    ) -> Result<Answer, ForwardFailure> {
        let Some(outgoing) = outgoing else {
            reservation.give_back();
            return Err(ForwardFailure::Upstream(UpstreamFault::Unreachable));
        };
        let take_off = self.take_off();
        let result = self.send((request, outgoing), reservation, take_off).await;
        // What a region says to a token that is not its own says nothing of the token.
        if self.note_place(request, &result) != PlaceVerdict::Wrong
            && let Ok(answer) = &result
        {
            self.note_verdict(request, answer.head.status, take_off.at);
        }
        result
    }

    /// Sends a request, and counts how it went.
    async fn send(
        &self,
        (request, mut outgoing): (&DirectedRequest, Request<OutgoingBody>),
        reservation: Reservation,
        take_off: TakeOff,
    ) -> Result<Answer, ForwardFailure> {
        let watch = Stopwatch::start();
        let mut span = request.trace().enter(Step::Upstream);
        span.note(Fact::Method(outgoing.method()));
        span.note(Fact::Scheme(&request.upstream().scheme));
        span.note(Fact::Server(&request.upstream().authority));
        span.sign(outgoing.headers_mut());
        let in_flight = self.metrics().upstream.begin();
        let bytes = &self.metrics().bytes;
        let answer = self.upstream().send(outgoing.map(|body| counted(body, &bytes.sent))).await;
        drop(in_flight);
        match answer {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                span.note(Fact::Status(head.status));
                let permit = reservation.settle(head.status, &head.headers);
                self.metrics().upstream.observe(UpstreamOutcome::of_status(head.status), watch.read());
                if head.extensions.get::<Attempts>().is_some_and(|attempts| attempts.0 > 1) {
                    self.metrics().upstream.retried();
                }
                Ok(Answer { head, body: counted(body, &bytes.received), permit, take_off })
            }
            Err(error) => {
                span.note(Fact::Failure(outcome_of(error.fault()).label()));
                match error.fault() {
                    UpstreamFault::Unreachable => reservation.fail(Reach::Unreachable),
                    UpstreamFault::Timeout | UpstreamFault::Broken => reservation.fail(Reach::Reached),
                    // The client's own doing.
                    UpstreamFault::RequestBody | UpstreamFault::OversizedRequest => drop(reservation),
                }
                self.metrics().upstream.observe(outcome_of(error.fault()), watch.read());
                self.note_failure(request, &error);
                Err(ForwardFailure::Upstream(error.fault()))
            }
        }
    }

    fn again(&self, ask: &Ask, attempt: &Attempt, result: &Result<Answer, ForwardFailure>) -> Again {
        let is_repeatable = ask.load == Load::Bare && ask.limit.payer.method.is_safe();
        if !is_repeatable || ask.patience != Patience::Full || !self.budget().is_enabled() {
            return Again::No;
        }
        let again = match result {
            Ok(answer) => again_after(answer.head.status, &answer.head.headers),
            Err(ForwardFailure::Upstream(UpstreamFault::Unreachable | UpstreamFault::Broken)) => {
                Again::Failed
            }
            Err(
                ForwardFailure::Upstream(_)
                | ForwardFailure::NotSent(_)
                | ForwardFailure::Postponed(_)
                | ForwardFailure::Lost,
            ) => Again::No,
        };
        match again {
            Again::Refused if attempt.number < MOST_ATTEMPTS => again,
            Again::Failed if attempt.failures < self.settings().retries => again,
            Again::Refused | Again::Failed | Again::No => Again::No,
        }
    }

    /// Logs a failure of upstream, once, with its causes; clients only get its kind.
    pub fn note_failure(&self, request: &DirectedRequest, error: &UpstreamError) {
        let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        let causes = (!causes.is_empty()).then(|| causes.join(": "));
        tracing::warn!(
            request_id = %request.id(),
            upstream = request.upstream().authority(),
            route = %request.route().label,
            credential = self.fingerprint_of(request).map(tracing::field::display),
            reason = outcome_of(error.fault()).label(),
            error = %error,
            causes,
            "upstream failed"
        );
    }
}

/// What an edge on the way says in HTML is not Sentry's own answer: that would be JSON, and is passed on. A failure that says
/// how long it lasts, or that speaks of storing it, is a considered answer, too.
fn again_after(status: StatusCode, fields: &HeaderMap) -> Again {
    let is_considered = fields.contains_key(header::RETRY_AFTER) || headers::speaks_of_storing(fields);
    match status.as_u16() {
        429 => Again::Refused,
        502..=504 if headers::is_html(fields) && !is_considered => Again::Failed,
        _ => Again::No,
    }
}

fn outcome_of(fault: UpstreamFault) -> UpstreamOutcome {
    match fault {
        UpstreamFault::Unreachable => UpstreamOutcome::Unreachable,
        UpstreamFault::Timeout => UpstreamOutcome::Timeout,
        UpstreamFault::Broken | UpstreamFault::RequestBody | UpstreamFault::OversizedRequest => {
            UpstreamOutcome::Broken
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;

    #[test]
    fn a_considered_failure_is_not_asked_for_again() {
        let again = |code, pairs: &[_]| again_after(StatusCode::from_u16(code).unwrap(), &fields(pairs));
        assert_eq!(again(429, &[("retry-after", "1")]), Again::Refused);
        let html = ("content-type", "text/html; charset=utf-8");
        assert_eq!(again(503, &[html]), Again::Failed);
        assert_eq!(again(503, &[]), Again::No);
        assert_eq!(again(503, &[("content-type", "application/json")]), Again::No);
        assert_eq!(again(503, &[html, ("retry-after", "60")]), Again::No);
        assert_eq!(again(503, &[html, ("last-modified", "Fri, 15 Jan 2027 08:00:00 GMT")]), Again::No);
        assert!([200, 404, 500, 501].iter().all(|code| again(*code, &[html]) == Again::No));
    }
}

//! Directs requests to where their organization lives, and learns that from what is forwarded anyway.
//!
//! Bodies of Sentry's say it (`links.regionUrl`), for everybody. An organization token says it for itself, and is believed
//! once upstream has accepted it there. Where an answer says that it was the wrong place, that is forgotten; what may be sent
//! twice is then sent to the control host, once, before its client hears of it.
//!
//! A region also answers an unknown *route* with a bare 404, to anybody. So what Sentry said of an organization is forgotten
//! only when the control host knows better, or upstream knows the credential: nobody unknown makes others' requests go astray.
//!
//! Invariants: nothing is learned but from a whole, successful JSON answer of a known shape; a URL that is not among the
//! configured ones changes nothing, and is counted. Not here: deciding (`regions`), what is remembered (`organizations`).

use std::sync::Arc;

use http::{Method, StatusCode};
use http_body::Body as _;

use crate::admission::{AdmittedRequest, BodyFraming};
use crate::config::Routing;
use crate::credential::Credential;
use crate::handling::bearing::Bearing;
use crate::handling::{Handling, RefusalReason};
use crate::links::region_urls::{self, RegionUrlShape, Sighting, Splice};
use crate::metrics::regions::{ClaimSource, RegionChange};
use crate::organizations::{Lesson, RegionId};
use crate::proxy::Proxy;
use crate::proxy::asking::Answer;
use crate::proxy::landing::ForwardFailure;
use crate::proxy::outgoing;
use crate::proxy::record::Exchange;
use crate::proxy::reply::Reply;
use crate::regions::DirectedRequest;
use crate::routes::place::Place;
use crate::routes::spelling::normalized_path;
use crate::traces::Trace;
use crate::upstream::OutgoingBody;
use crate::upstream::error::UpstreamFault;

/// What an answer says of the place that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceVerdict {
    /// Nothing against it.
    Plausible,
    /// What was asked for is not there: perhaps the organization is not, either.
    Questionable,
    /// The organization, or the token, is not known there.
    Wrong,
}

/// What upstream said, as far as it tells something of the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// A success.
    Accepted,
    /// 401: the token is not known.
    Unauthorized,
    /// 403.
    Refused,
    /// 404 with words: what a region says of an organization that it does not know, and of whatever else is not there.
    Missing,
    /// 404 without a word: what a silo says of what is not its own (`sentry-api.md` §6).
    Bare,
    /// It could not be reached.
    Unreachable,
    /// Nothing of the place.
    Other,
}

impl Word {
    fn of(request: &DirectedRequest, result: &Result<Answer, ForwardFailure>) -> Self {
        match result {
            Ok(answer) => Self::of_answer(request, answer.head.status, answer.body.size_hint().exact()),
            Err(ForwardFailure::Upstream(UpstreamFault::Unreachable)) => Self::Unreachable,
            Err(
                ForwardFailure::Upstream(
                    UpstreamFault::Timeout
                    | UpstreamFault::Broken
                    | UpstreamFault::RequestBody
                    | UpstreamFault::OversizedRequest,
                )
                | ForwardFailure::NotSent(_)
                | ForwardFailure::Postponed(_)
                | ForwardFailure::Lost,
            ) => Self::Other,
        }
    }

    fn of_reply(request: &DirectedRequest, reply: &Reply) -> Self {
        match reply.handling {
            Handling::Refuse(RefusalReason::UpstreamUnreachable) => Self::Unreachable,
            Handling::Refuse(_) => Self::Other,
            Handling::Reuse
            | Handling::ReuseThenRevalidate
            | Handling::ReuseUnderPressure
            | Handling::RefreshAhead
            | Handling::Forward(_) => {
                let response = &reply.response;
                Self::of_answer(request, response.status(), response.body().size_hint().exact())
            }
        }
    }

    /// Reads a status and the length of its body, as far as that is known.
    fn of_answer(request: &DirectedRequest, status: StatusCode, length: Option<u64>) -> Self {
        let is_bare = length == Some(0) && *request.method() != Method::HEAD;
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::NOT_FOUND if is_bare => Self::Bare,
            StatusCode::NOT_FOUND => Self::Missing,
            StatusCode::FORBIDDEN => Self::Refused,
            status if status.is_success() => Self::Accepted,
            _ => Self::Other,
        }
    }

    /// Returns what follows for a place that a request went to for this reason.
    fn verdict(self, bearing: Bearing) -> PlaceVerdict {
        let is_guess = match bearing {
            Bearing::Hinted | Bearing::Proven => true,
            Bearing::Learned => false,
            Bearing::Pinned | Bearing::Control | Bearing::Unknown | Bearing::Doubted | Bearing::Unnamed => {
                return PlaceVerdict::Plausible;
            }
        };
        let is_wrong = match self {
            Self::Accepted | Self::Other => false,
            Self::Bare => true,
            Self::Unauthorized | Self::Unreachable => is_guess,
            // Of one that has been right, a missing scope or a release that is not there says nothing.
            Self::Refused | Self::Missing => bearing == Bearing::Hinted,
        };
        match self {
            _ if is_wrong => PlaceVerdict::Wrong,
            Self::Missing if !is_guess => PlaceVerdict::Questionable,
            _ => PlaceVerdict::Plausible,
        }
    }
}

impl Proxy {
    /// Decides where a request goes, which is worked for at this place in a trace.
    pub fn direct(&self, request: Arc<AdmittedRequest>, trace: Trace) -> Arc<DirectedRequest> {
        if self.regions().routing() == Routing::ByOrganization
            && let Some(claim) = request.credential().and_then(Credential::claim)
            && !self.regions().is_known(&claim.region_url)
        {
            self.metrics().regions.ignored(ClaimSource::Token);
        }
        self.directed(self.regions().direct(request, self.clock().now()).traced(trace))
    }

    fn directed(&self, request: DirectedRequest) -> Arc<DirectedRequest> {
        self.metrics().regions.directed(request.bearing());
        Arc::new(request)
    }

    /// Answers a request, and once more from the control host if it went where its organization turned out not to live.
    pub async fn answer_anywhere(
        &self,
        request: Arc<DirectedRequest>,
        body: OutgoingBody,
        exchange: &mut Exchange,
    ) -> Reply {
        exchange.directed(&request);
        let reply = self.answer(Arc::clone(&request), body).await;
        let Some(elsewhere) = self.elsewhere(&request, &reply) else { return reply };
        // Only what has no body is sent again.
        let second = self.answer(Arc::clone(&elsewhere), outgoing::empty()).await;
        let is_questionable =
            Word::of_reply(&request, &reply).verdict(request.bearing()) == PlaceVerdict::Questionable;
        // Of what is merely not there, the control host's trouble says nothing.
        if is_questionable && Word::of_reply(&elsewhere, &second) != Word::Accepted {
            return reply;
        }
        exchange.directed(&elsewhere);
        second
    }

    /// Returns the request as it is sent to the control host, where its answer says that it went to the wrong place.
    fn elsewhere(&self, request: &DirectedRequest, reply: &Reply) -> Option<Arc<DirectedRequest>> {
        let is_doubtful = match Word::of_reply(request, reply).verdict(request.bearing()) {
            PlaceVerdict::Plausible => false,
            PlaceVerdict::Wrong => is_repeatable(request),
            PlaceVerdict::Questionable => is_repeatable(request) && self.may_question(request),
        };
        is_doubtful.then(|| self.regions().doubt(request)).flatten().map(|doubted| self.directed(doubted))
    }

    /// Learns from an answer whether its request went to the right place.
    pub fn note_place(
        &self,
        request: &DirectedRequest,
        result: &Result<Answer, ForwardFailure>,
    ) -> PlaceVerdict {
        let word = Word::of(request, result);
        let verdict = word.verdict(request.bearing());
        match (request.bearing(), verdict) {
            (Bearing::Hinted, PlaceVerdict::Plausible) if word == Word::Accepted => {
                self.regions().hints().prove(request.partition());
                self.metrics().regions.changed(RegionChange::Proven);
            }
            (Bearing::Hinted | Bearing::Proven, PlaceVerdict::Wrong) => {
                self.regions().hints().refute(request.partition(), self.clock().now());
                self.metrics().regions.changed(RegionChange::Refuted);
            }
            // Nobody will ask the control host for the same.
            (Bearing::Learned, PlaceVerdict::Wrong) if !is_repeatable(request) => {
                if self.credentials().holds(request.partition()) {
                    self.forget_home(request);
                }
            }
            (Bearing::Doubted, _) if word == Word::Accepted => self.forget_home(request),
            (
                Bearing::Pinned
                | Bearing::Control
                | Bearing::Learned
                | Bearing::Hinted
                | Bearing::Proven
                | Bearing::Unknown
                | Bearing::Doubted
                | Bearing::Unnamed,
                _,
            ) => {}
        }
        verdict
    }

    /// Returns whether the control host may be asked for the organization that a request names, although it is known where that
    /// lives: now and then.
    fn may_question(&self, request: &DirectedRequest) -> bool {
        let path = normalized_path(request.path());
        let name = Place::of(&path).organization();
        name.is_some_and(|name| self.regions().organizations().may_question(name, self.clock().now()))
    }

    /// Forgets where the organization lives that a request names.
    fn forget_home(&self, request: &DirectedRequest) {
        let path = normalized_path(request.path());
        let name = Place::of(&path).organization();
        if name.is_some_and(|name| self.regions().organizations().forget_region(name)) {
            self.metrics().regions.changed(RegionChange::Forgotten);
        }
    }

    /// Reads what a body of upstream's says of organizations and regions, and returns where it is to point back here. The body
    /// is that of a successful JSON answer, whole and without its coding.
    pub fn read_regions(&self, body: &[u8], shape: RegionUrlShape) -> Vec<Splice> {
        let is_wanted = self.settings().region_urls;
        let scan = region_urls::scan(body, shape, &|url| is_wanted && self.regions().reaches(url));
        for Sighting { id, slug, region_url } in &scan.organizations {
            let region = region_url.as_deref().and_then(|url| self.region_named(url));
            if self.regions().organizations().learn(id, slug, region) == Lesson::Learned {
                self.metrics().regions.changed(RegionChange::Learned);
            }
        }
        for url in &scan.regions {
            self.region_named(url);
        }
        scan.splices
    }

    /// Returns the region that a body names; what is not configured is counted, and nothing else.
    fn region_named(&self, url: &str) -> Option<RegionId> {
        if !self.regions().is_known(url) {
            self.metrics().regions.ignored(ClaimSource::Body);
        }
        self.regions().allowed(url)
    }
}

/// Returns whether a request may be sent twice.
fn is_repeatable(request: &DirectedRequest) -> bool {
    request.is_safe() && request.body() == BodyFraming::Absent
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [Word; 7] = [
        Word::Accepted,
        Word::Unauthorized,
        Word::Refused,
        Word::Missing,
        Word::Bare,
        Word::Unreachable,
        Word::Other,
    ];

    #[track_caller]
    fn check(bearing: Bearing, wrong: &[Word]) {
        for word in WORDS {
            let expected = match (wrong.contains(&word), bearing, word) {
                (true, _, _) => PlaceVerdict::Wrong,
                (false, Bearing::Learned, Word::Missing) => PlaceVerdict::Questionable,
                (false, _, _) => PlaceVerdict::Plausible,
            };
            assert_eq!(word.verdict(bearing), expected, "{bearing:?} {word:?}");
        }
    }

    #[test]
    fn what_speaks_against_a_place_depends_on_why_a_request_went_there() {
        let against = [Word::Unauthorized, Word::Refused, Word::Missing, Word::Bare, Word::Unreachable];
        check(Bearing::Hinted, &against);
        check(Bearing::Proven, &[Word::Unauthorized, Word::Bare, Word::Unreachable]);
        check(Bearing::Learned, &[Word::Bare]);
        for bearing in
            [Bearing::Pinned, Bearing::Control, Bearing::Unknown, Bearing::Doubted, Bearing::Unnamed]
        {
            check(bearing, &[]);
        }
    }

    #[test]
    fn an_answer_is_bare_only_if_it_is_known_to_have_no_body() {
        let regions = crate::regions::Regions::new(&crate::config::load::defaults().upstream).unwrap();
        let word = |method: &str, status, length| {
            let line = format!("{method} /api/0/organizations/acme/");
            let request = Arc::new(crate::testing::asked(&line, &[]));
            let request = regions.direct(request, crate::testing::start());
            Word::of_answer(&request, StatusCode::from_u16(status).unwrap(), length)
        };
        assert_eq!(word("GET", 404, Some(0)), Word::Bare);
        assert_eq!(word("PUT", 404, Some(0)), Word::Bare);
        assert_eq!(word("GET", 404, Some(2)), Word::Missing);
        assert_eq!(word("GET", 404, None), Word::Missing);
        assert_eq!(word("HEAD", 404, Some(0)), Word::Missing);
        assert_eq!(word("GET", 403, Some(0)), Word::Refused);
        assert_eq!(word("GET", 401, Some(0)), Word::Unauthorized);
        assert_eq!(word("GET", 204, Some(0)), Word::Accepted);
        for status in [302, 304, 400, 429, 500, 503] {
            assert_eq!(word("GET", status, Some(0)), Word::Other, "{status}");
        }
    }
}

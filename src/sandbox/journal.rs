//! What the sandbox was asked: counters, the latest requests as they came in, and how many ended how.
//!
//! Invariants: bounded; a credential or cookie is replaced before anything is kept; every request that is no longer
//! in flight counts under one outcome.
//! Not here: the answers themselves.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

/// Most requests that are kept whole.
const KEPT_REQUESTS: usize = 1_000;
/// Most targets that are counted one by one.
const COUNTED_TARGETS: usize = 10_000;
/// Most pairs of a method and an outcome that are counted one by one.
const COUNTED_OUTCOMES: usize = 1_000;

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// What was to be done.
    pub method: Method,
    /// Path and query as they were sent.
    pub target: String,
    /// The protocol.
    pub version: Version,
    /// The fields; those that are secret say `[redacted]`.
    pub fields: HeaderMap,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// An answer of this status went out.
    Answered(StatusCode),
    /// None did: the connection was closed on purpose, or its client left.
    Unanswered,
}

/// The book of requests; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    pages: Arc<Mutex<Pages>>,
}

#[derive(Debug, Default)]
struct Pages {
    total: u64,
    in_flight: u64,
    most_in_flight: u64,
    by_target: HashMap<String, u64>,
    by_outcome: HashMap<(Method, Outcome), u64>,
    latest: VecDeque<ReceivedRequest>,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub struct InFlight {
    journal: Journal,
    method: Method,
    outcome: Outcome,
}

impl Journal {
    /// Writes a request down; it is in flight as long as the result lives.
    pub fn enter(&self, head: &Parts) -> InFlight {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.total += 1;
        pages.in_flight += 1;
        pages.most_in_flight = pages.most_in_flight.max(pages.in_flight);
        if pages.by_target.len() < COUNTED_TARGETS || pages.by_target.contains_key(&target) {
            *pages.by_target.entry(target.clone()).or_default() += 1;
        }
        if pages.latest.len() >= KEPT_REQUESTS {
            pages.latest.pop_front();
        }
        let (method, version, fields) = (head.method.clone(), head.version, redacted(&head.headers));
        pages.latest.push_back(ReceivedRequest { method, target, version, fields });
        InFlight { journal: self.clone(), method: head.method.clone(), outcome: Outcome::Unanswered }
    }

    /// Returns how many requests came in, ever.
    pub fn total(&self) -> u64 {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    /// Returns how many requests for exactly this target (path and query) came in.
    pub fn count(&self, target: &str) -> u64 {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.by_target.get(target).copied().unwrap_or_default()
    }

    /// Returns how many requests ended how, by method; in no order.
    pub fn outcomes(&self) -> Vec<(Method, Outcome, u64)> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = pages.by_outcome.iter();
        counts.map(|((method, outcome), count)| (method.clone(), *outcome, *count)).collect()
    }

    /// Returns how many requests were answered with a status, whatever their method.
    pub fn answered(&self, status: StatusCode) -> u64 {
        let counts = self.outcomes().into_iter();
        counts.filter(|(_, outcome, _)| *outcome == Outcome::Answered(status)).map(|(.., count)| count).sum()
    }

    /// Returns how many requests were in flight at once, at most.
    pub fn most_in_flight(&self) -> u64 {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).most_in_flight
    }

    /// Returns how many requests are in flight.
    pub fn in_flight(&self) -> u64 {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).in_flight
    }

    /// Returns the latest requests, oldest first.
    pub fn latest(&self) -> Vec<ReceivedRequest> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).latest.iter().cloned().collect()
    }
}

impl InFlight {
    /// Notes the status of the answer, which is about to go out.
    pub const fn answer(&mut self, status: StatusCode) {
        self.outcome = Outcome::Answered(status);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut pages = self.journal.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.in_flight = pages.in_flight.saturating_sub(1);
        let ended = (self.method.clone(), self.outcome);
        if pages.by_outcome.len() < COUNTED_OUTCOMES || pages.by_outcome.contains_key(&ended) {
            *pages.by_outcome.entry(ended).or_default() += 1;
        }
    }
}

fn redacted(fields: &HeaderMap) -> HeaderMap {
    let mut fields = fields.clone();
    for name in [AUTHORIZATION, COOKIE] {
        if fields.contains_key(&name) {
            fields.insert(name, HeaderValue::from_static("[redacted]"));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str) -> Parts {
        let request = http::Request::builder().uri(target).header("authorization", "Bearer canary");
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn requests_are_counted_and_kept_without_their_credential() {
        let journal = Journal::default();
        let first = journal.enter(&head("/a?b"));
        drop(journal.enter(&head("/a?b")));
        assert_eq!((journal.total(), journal.count("/a?b"), journal.count("/a")), (2, 2, 0));
        assert_eq!((journal.in_flight(), journal.most_in_flight()), (1, 2));
        assert!(!format!("{first:?} {journal:?}").contains("canary"));
        assert_eq!(journal.latest()[0].fields["authorization"], "[redacted]");
    }

    #[test]
    fn every_request_ends_under_one_outcome_of_its_method() {
        let journal = Journal::default();
        journal.enter(&head("/a")).answer(StatusCode::OK);
        journal.enter(&head("/b")).answer(StatusCode::TOO_MANY_REQUESTS);
        drop(journal.enter(&head("/c")));
        let _in_flight = journal.enter(&head("/d"));
        let mut outcomes = journal.outcomes();
        outcomes.sort_by_key(|(_, outcome, _)| *outcome);
        let get = |outcome| (Method::GET, outcome, 1);
        let answered = |status| get(Outcome::Answered(status));
        let expected =
            [answered(StatusCode::OK), answered(StatusCode::TOO_MANY_REQUESTS), get(Outcome::Unanswered)];
        assert_eq!(outcomes, expected);
        assert_eq!(journal.answered(StatusCode::TOO_MANY_REQUESTS), 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let journal = Journal::default();
        for number in 0..COUNTED_TARGETS + 10 {
            journal.enter(&head(&format!("/{number}")));
        }
        assert_eq!(journal.latest().len(), KEPT_REQUESTS);
        assert_eq!(journal.pages.lock().unwrap().by_target.len(), COUNTED_TARGETS);
    }
}

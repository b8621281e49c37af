//! The right to send one request, and what is learned from how that went.
//!
//! Invariants: a place among the requests at a time is given back exactly once, however the request ends; what was counted
//! is settled exactly once. Not here: who gets the right (`budget::scheduler`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use http::StatusCode;
use http::header::{self, HeaderMap};
use tokio::sync::oneshot;
use tokio::time;

use crate::budget::Shared;
use crate::budget::account::{Charge, Loss};
use crate::budget::limit_fields::LimitFields;
use crate::budget::observation::{Observation, Outcome};
use crate::budget::scheduler::{Ask, Load};
use crate::handling::Hold;

/// How long something whose pace is a client's may hold a permit.
const CLIENT_PACE: Duration = Duration::from_secs(10);

/// By how much later than it could something is tried again at the most, so that not everybody does at once.
const MOST_JITTER: Duration = Duration::from_millis(250);

/// Longest `Retry-After` that is believed.
const LONGEST_REFUSAL: Duration = Duration::from_hours(24);

/// The right to send one request, until it is known how that went.
#[derive(Debug)]
pub struct Reservation {
    /// What is to be settled; absent once it is, and where nothing is limited.
    open: Option<(Arc<Shared>, Ask, Charge)>,
    held: Option<Hold>,
    permit: Permit,
}

impl Reservation {
    /// Makes the right to what was taken, after it was held by something or nothing.
    pub fn new(shared: Arc<Shared>, ask: Ask, (charge, held): (Charge, Option<Hold>)) -> Self {
        let upstream = Arc::clone(&ask.limit.payer.upstream);
        let place = PlaceTaken { shared: Arc::clone(&shared), upstream, load: ask.load };
        let place = match ask.load {
            Load::Bare => Held::Capacity(place),
            Load::WithBody => lapsing(place),
        };
        Self { open: Some((shared, ask, charge)), held, permit: Permit(place) }
    }

    /// Makes a right where nothing is limited.
    pub fn unlimited() -> Self {
        Self { open: None, held: None, permit: Permit::spent() }
    }

    /// Returns what held the request before it got this right.
    pub fn held(&self) -> Option<Hold> {
        self.held
    }

    /// Learns from the head of the answer, and returns the permit for its body.
    pub fn settle(mut self, status: StatusCode, fields: &HeaderMap) -> Permit {
        if let Some((shared, ask, charge)) = self.open.take() {
            let received = shared.now();
            let seen = Observation {
                fields: LimitFields::read(fields),
                outcome: outcome(status),
                date: date_of(fields),
                retry_after: retry_after(fields, received),
                received,
            };
            shared.settle((&ask, charge), &seen, jitter());
        }
        std::mem::replace(&mut self.permit, Permit::spent())
    }

    /// Notes that there was no answer, because upstream is out of reach or broke off.
    pub fn fail(mut self) {
        self.lose(Loss::Failed { jitter: jitter() });
    }

    fn lose(&mut self, loss: Loss) {
        if let Some((shared, ask, charge)) = self.open.take() {
            shared.lose((&ask, charge), loss);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.lose(Loss::GivenUp);
    }
}

/// The right to one request upstream; given back when dropped.
#[derive(Debug)]
pub struct Permit(Held);

#[derive(Debug)]
enum Held {
    /// Nothing is limited.
    Nothing,
    /// Until it is dropped.
    Capacity(PlaceTaken),
    /// By a task that ends when this is dropped, or after `CLIENT_PACE`.
    Lapsing { _dropped: oneshot::Sender<()> },
}

/// A place among the requests at a time.
#[derive(Debug)]
struct PlaceTaken {
    shared: Arc<Shared>,
    upstream: Arc<str>,
    load: Load,
}

impl Drop for PlaceTaken {
    fn drop(&mut self) {
        self.shared.give_back(&self.upstream, self.load);
    }
}

impl Permit {
    /// Returns a permit for what needs none any more.
    pub const fn spent() -> Self {
        Self(Held::Nothing)
    }

    /// Lets the permit lapse after ten seconds, for an answer whose pace is its reader's.
    #[must_use]
    pub fn lapsing(self) -> Self {
        match self.0 {
            Held::Capacity(place) => Self(lapsing(place)),
            held @ (Held::Nothing | Held::Lapsing { .. }) => Self(held),
        }
    }
}

/// Holds something until the returned is dropped, or time is up.
fn lapsing(held: impl Send + 'static) -> Held {
    let (sender, dropped) = oneshot::channel();
    // Bounded by itself: whoever holds the sender ends it, or time does.
    tokio::spawn(async move {
        let _ = time::timeout(CLIENT_PACE, dropped).await;
        drop(held);
    });
    Held::Lapsing { _dropped: sender }
}

/// Only what says that upstream as a whole is in trouble is a failure: a 500 is one endpoint's own.
fn outcome(status: StatusCode) -> Outcome {
    match status.as_u16() {
        429 => Outcome::Refused,
        502..=504 => Outcome::Failed,
        _ => Outcome::Answered,
    }
}

/// Reads `Date`. Not with the robustness of a cache: what is odd is no clock to go by.
fn date_of(fields: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(fields.get(header::DATE)?.to_str().ok()?).ok()
}

/// Reads `Retry-After`: seconds, or a date ([RFC 9110 §10.2.3]).
///
/// [RFC 9110 §10.2.3]: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
fn retry_after(fields: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = fields.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?,
    };
    (wait <= LONGEST_REFUSAL).then_some(wait)
}

/// Returns a random time to wait longer: some, up to a quarter of a second.
pub fn jitter() -> Duration {
    let mut bytes = [0; 1];
    // Without randomness it is the same for all: no worse than no jitter at all.
    let _ = rand::fill(&mut bytes);
    MOST_JITTER.mul_f64(f64::from(u16::from(bytes[0]) + 1) / 256.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{fields, start};

    #[test]
    fn jitter_is_positive_and_bounded() {
        for _ in 0..1_000 {
            let jitter = jitter();
            assert!(Duration::ZERO < jitter && jitter <= MOST_JITTER, "{jitter:?}");
        }
    }

    #[test]
    fn rfc9110_10_2_3_retry_after_is_seconds_or_a_date() {
        let read = |value: &str| retry_after(&fields(&[("retry-after", value)]), start());
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Fri, 15 Jan 2027 08:00:30 GMT"), Some(Duration::from_secs(30)));
        for odd in ["Fri, 15 Jan 2027 07:00:00 GMT", "-1", "soon", "", "99999999"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn only_what_comes_from_something_in_between_is_a_failure() {
        let outcome = |code| outcome(StatusCode::from_u16(code).unwrap());
        for (code, expected) in [(200, Outcome::Answered), (500, Outcome::Answered), (401, Outcome::Answered)]
        {
            assert_eq!(outcome(code), expected, "{code}");
        }
        assert_eq!(outcome(429), Outcome::Refused);
        assert!([502, 503, 504].iter().all(|code| outcome(*code) == Outcome::Failed));
    }
}

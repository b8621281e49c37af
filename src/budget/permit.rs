//! The right to send one request, and what is learned from how that went.
//!
//! Invariants: a place among the requests at a time is given back exactly once, however the request ends; what was counted
//! is settled exactly once. Not here: who gets the right (`budget::scheduler`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use http::StatusCode;
use http::header::{self, HeaderMap};
use tokio::sync::oneshot;
use tokio::time;

use crate::budget::Shared;
use crate::budget::account::{Loss, Reach};
use crate::budget::ask::{Ask, Load, Payer};
use crate::budget::limit_fields::LimitFields;
use crate::budget::observation::{Observation, Outcome};
use crate::budget::route_state::Charge;
use crate::handling::hold::Hold;

/// How long something whose pace is a client's may hold a permit.
const CLIENT_PACE: Duration = Duration::from_secs(10);

/// By how much later than it could something is tried again at the most, so that not everybody does at once.
const MOST_JITTER: Duration = Duration::from_millis(250);

/// Longest `Retry-After` that is believed.
const LONGEST_REFUSAL: Duration = Duration::from_hours(24);

/// The right to send one request, until it is known how that went.
#[derive(Debug)]
pub struct Reservation {
    /// What is to be settled; absent where nothing is limited.
    open: Option<Arc<Open>>,
    held: Option<Hold>,
    permit: Permit,
}

/// A request whose end is to be told.
#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
    ask: Ask,
    /// Where it was counted; absent once it is settled.
    charge: Mutex<Option<Charge>>,
}

impl Open {
    fn take(&self) -> Option<Charge> {
        self.charge.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Stops waiting for it, because it goes at its client's pace. What it brings in the end is settled all the same.
    fn lapse(&self) {
        let mut charge = self.charge.lock().unwrap_or_else(PoisonError::into_inner);
        *charge = charge.take().map(|charge| self.shared.lapse((&self.ask, charge)));
    }
}

impl Reservation {
    /// Makes the right to what was taken, after it was held by something or nothing.
    pub fn new(shared: Arc<Shared>, ask: Ask, (charge, held): (Charge, Option<Hold>)) -> Self {
        let place =
            PlaceTaken { shared: Arc::clone(&shared), payer: ask.limit.payer.clone(), load: ask.load };
        let load = ask.load;
        let open = Arc::new(Open { shared, ask, charge: Mutex::new(Some(charge)) });
        let place = match load {
            Load::Bare => Held::Capacity(place),
            Load::WithBody => {
                let lapsing_charge = Arc::downgrade(&open);
                lapsing(place, move || lapsing_charge.upgrade().iter().for_each(|open| open.lapse()))
            }
        };
        Self { open: Some(open), held, permit: Permit(place) }
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
        if let Some((open, charge)) = self.end() {
            let received = open.shared.now();
            let seen = Observation {
                fields: LimitFields::read(fields),
                outcome: outcome(status),
                date: date_of(fields),
                retry_after: retry_after(fields, received),
                received,
            };
            open.shared.settle((&open.ask, charge), &seen, jitter());
        }
        std::mem::replace(&mut self.permit, Permit::spent())
    }

    /// Gives the right back: nothing was sent.
    pub fn give_back(mut self) {
        self.lose(Loss::Unsent);
    }

    /// Notes that there was no answer, because upstream is out of reach or broke off.
    pub fn fail(mut self, reach: Reach) {
        self.lose(Loss::Failed { jitter: jitter(), reach });
    }

    fn lose(&mut self, loss: Loss) {
        if let Some((open, charge)) = self.end() {
            open.shared.lose((&open.ask, charge), loss);
        }
    }

    fn end(&mut self) -> Option<(Arc<Open>, Charge)> {
        let open = self.open.take()?;
        let charge = open.take()?;
        Some((open, charge))
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
    payer: Payer,
    load: Load,
}

impl Drop for PlaceTaken {
    fn drop(&mut self) {
        self.shared.give_back(&self.payer, self.load);
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
            Held::Capacity(place) => Self(lapsing(place, || {})),
            held @ (Held::Nothing | Held::Lapsing { .. }) => Self(held),
        }
    }
}

/// Holds something until the returned is dropped, or time is up; then something else is done, too.
fn lapsing(held: impl Send + 'static, at_last: impl FnOnce() + Send + 'static) -> Held {
    let (sender, dropped) = oneshot::channel();
    // Bounded by itself: whoever holds the sender ends it, or time does.
    tokio::spawn(async move {
        let is_late = time::timeout(CLIENT_PACE, dropped).await.is_err();
        drop(held);
        if is_late {
            at_last();
        }
    });
    Held::Lapsing { _dropped: sender }
}

/// Only what something in between says is a failure: a 500 is Sentry's own.
fn outcome(status: StatusCode) -> Outcome {
    match status.as_u16() {
        429 => Outcome::Refused,
        502..=504 => Outcome::Failed,
        400.. => Outcome::Denied,
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
        for (code, expected) in [
            (200, Outcome::Answered),
            (304, Outcome::Answered),
            (500, Outcome::Denied),
            (401, Outcome::Denied),
        ] {
            assert_eq!(outcome(code), expected, "{code}");
        }
        assert_eq!(outcome(429), Outcome::Refused);
        assert!([502, 503, 504].iter().all(|code| outcome(*code) == Outcome::Failed));
    }
}

//! What goes into a judgement about limits, and what comes out of it. Plain data.
//!
//! Not here: judging (`budget::meter`, `budget::account`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::budget::gate::GateState;
use crate::budget::limit_fields::LimitFields;
use crate::handling::hold::Hold;
use crate::pressure::Pressure;

/// Windows that end later than this are none.
pub const LONGEST_WINDOW: Duration = Duration::from_hours(24);

/// A moment, as far as limits are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By our clock.
    pub now: SystemTime,
    /// How late it is at upstream at the least; `None` before its first answer.
    pub at_upstream: Option<SystemTime>,
    /// Whether this upstream is known to have no limits at all.
    pub limits: Limits,
}

/// Whether an upstream has limits, as far as all its answers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// It may.
    Possible,
    /// It has said nothing of them to anybody.
    Absent,
}

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may, now.
    Spend,
    /// Not before so long, unless an answer comes that says otherwise.
    Wait(Duration, Hold),
    /// Not before one that is under way has been answered.
    AwaitAnswer(Hold),
}

/// How an answer bears on a limit.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// What it says of limits; `None` where it says nothing.
    pub fields: Option<LimitFields>,
    /// What kind of answer it is.
    pub outcome: Outcome,
    /// `Date`, if it has one.
    pub date: Option<SystemTime>,
    /// `Retry-After` as a duration, if it has one.
    pub retry_after: Option<Duration>,
    /// When it arrived.
    pub received: SystemTime,
}

/// What kind of answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 429.
    Refused,
    /// 502, 503, 504: something in between could not reach what answers.
    Failed,
    /// Any other error: before Sentry counts, or after it.
    Denied,
    /// Anything else: a success, or a redirection.
    Answered,
}

impl Observation {
    /// Returns how long the refusal lasts, where that is told: `Retry-After`, or the end of the window.
    pub fn told_wait(&self, at_upstream: Option<SystemTime>) -> Option<Duration> {
        self.retry_after.or_else(|| {
            let end = UNIX_EPOCH.checked_add(Duration::from_secs(self.fields?.reset?))?;
            end.duration_since(at_upstream?).ok().filter(|left| !left.is_zero() && *left <= LONGEST_WINDOW)
        })
    }
}

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// Now.
    Now,
    /// When one of the requests under way has ended.
    WhenOneEnds(Hold),
    /// Not before so long.
    Later(Duration, Hold),
}

/// What would become of a request that came in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forecast {
    /// It would be sent.
    Sent,
    /// It would stand in the line, held by this, for so long at the least.
    Waiting(Hold, Duration),
    /// It would not be let in.
    Refused(Outlook),
}

/// What is known of a limit at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headroom {
    /// What the limit fields of an answer would say; `None` where nothing is known.
    pub fields: Option<LimitFields>,
    /// How much is in use.
    pub pressure: Pressure,
}

/// How the gates stand through which a request has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gates {
    /// That of the upstream as a whole.
    pub upstream: GateState,
    /// That of the limit which its route counts against, where that is known.
    pub limit: GateState,
    /// That of its route.
    pub route: GateState,
}

//! What would happen to a request that is explained. Plain data.
//!
//! Invariant: handlings, reasons and holds are told by their labels. Not here: how it is foreseen (`explaining::foreseeing`).

use serde::Serialize;

use crate::budget::Prospect;
use crate::handling::Handling;
use crate::headers::CacheStatus;
use crate::proxy::explaining::seconds::Seconds;

/// What would happen to a request.
#[derive(Debug, Clone, Serialize)]
pub struct Foreseen {
    /// How it would be handled, by its label.
    pub handling: &'static str,
    /// Why, by its label.
    pub reason: &'static str,
    /// `Cache-Status`, as far as it is known before upstream has answered.
    pub cache_status: String,
    /// Why, in words.
    pub why: String,
    /// How upstream would be asked.
    pub forward: Option<ForwardPlan>,
    /// Whether what is stored would be refreshed.
    pub refresh: Option<Refreshing>,
}

impl Foreseen {
    /// Says how something would be handled.
    pub fn new(handling: Handling, status: CacheStatus, why: String) -> Self {
        Self {
            handling: handling.label(),
            reason: handling.reason_label(),
            cache_status: String::from_utf8_lossy(status.render().as_bytes()).into_owned(),
            why,
            forward: None,
            refresh: None,
        }
    }
}

/// How upstream would be asked for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ForwardPlan {
    /// In whose company.
    pub company: Company,
    /// Whether it would be asked to validate what is stored.
    pub conditional: bool,
    /// When.
    pub sending: Sending,
    /// Whether others of the same credential go first.
    pub turn: Turn,
    /// What would go out if upstream failed.
    pub on_failure: Substitute,
}

/// In whose company a request goes upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Company {
    /// By itself: nobody else may have the answer.
    Alone,
    /// A flight takes off for it, which others may join.
    TakesOff,
    /// It joins a flight in the air.
    Joins,
}

/// When upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "when", rename_all = "kebab-case")]
pub enum Sending {
    /// At once.
    Now,
    /// It is being asked already.
    UnderWay,
    /// After standing in the line.
    AfterWaiting {
        /// What for.
        hold: &'static str,
        /// For so long, as far as that is known.
        at_least_seconds: Seconds,
        /// Then it is not asked.
        at_most_seconds: Seconds,
    },
    /// Not at all.
    Never {
        /// What holds it.
        hold: &'static str,
        /// When to come again.
        retry_after_seconds: Seconds,
    },
}

impl From<Prospect> for Sending {
    fn from(prospect: Prospect) -> Self {
        match prospect {
            Prospect::Sent => Self::Now,
            Prospect::Waiting { hold, at_least, at_most } => Self::AfterWaiting {
                hold: hold.label(),
                at_least_seconds: Seconds(at_least),
                at_most_seconds: Seconds(at_most),
            },
            Prospect::Refused(refused) => {
                Self::Never { hold: refused.hold.label(), retry_after_seconds: Seconds(refused.retry_after) }
            }
        }
    }
}

/// Whether others of the same credential go first: one whose credential is suspended is alone upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// There are no turns.
    NotNeeded,
    /// It is its turn.
    Free,
    /// It is somebody else's, who is waited for.
    Taken,
}

/// What goes out if upstream fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Substitute {
    /// What is stored.
    Stored,
    /// What is stored, if upstream is out of reach: not where it answers that it cannot.
    StoredIfDisconnected,
    /// Nothing but the failure.
    Failure,
}

/// Whether what is stored would be refreshed behind the client's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Refreshing {
    /// It would, at once.
    Starts,
    /// Somebody has it refreshed already.
    UnderWay,
    /// It would not: the last refresh has failed, just now.
    Paused,
    /// It would not: nobody waits for it, and upstream may not be asked.
    Held {
        /// What holds it.
        hold: &'static str,
    },
}

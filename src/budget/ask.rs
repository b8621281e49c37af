//! What is asked of the budget: one request upstream, for whom, and how much it hurries. Plain data.
//!
//! Not here: the answer (`budget::scheduler`).

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::credential::{BudgetIdentity, CredentialPartition};
use crate::routes::RouteLabel;

/// How long a request waits at the most whose client could be given something stale.
pub const BRIEF: Duration = Duration::from_secs(1);

/// What is asked for: one request upstream.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What it counts against.
    pub limit: Limit,
    /// Whose turn it is.
    pub partition: CredentialPartition,
    /// What it brings.
    pub load: Load,
    /// How long it may wait.
    pub patience: Patience,
}

/// What a request counts against, as far as that is known beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Whose limit it is.
    pub payer: Payer,
    /// Which of its limits.
    pub route: RouteLabel,
}

/// Whose limit a request counts against, as Sentry counts (`sentry-api.md` §2): by upstream, identity and method.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Payer {
    /// The authority of the upstream.
    pub upstream: Arc<str>,
    /// The caller.
    pub identity: BudgetIdentity,
    /// The method.
    pub method: Method,
}

/// What a request will ask of its permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Nothing but an answer.
    Bare,
    /// A body has to be read from its client first.
    WithBody,
}

/// How long a request may wait before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: nobody needs the answer now.
    None,
    /// For a moment, and not for what is closed: its client could be given something stale.
    Brief,
    /// As long as the configuration lets it.
    Full,
}

impl Patience {
    /// Returns how long a request of this patience may wait for what others may for `within`.
    pub fn bound(self, within: Duration) -> Duration {
        match self {
            Self::Full => within,
            Self::Brief => within.min(BRIEF),
            Self::None => Duration::ZERO,
        }
    }
}

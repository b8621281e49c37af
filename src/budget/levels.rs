//! How short each limit is at one moment, for those who look on: metrics, dashboard. Plain data.
//!
//! Invariants: as many rows as there are routes, and of limits only as many as are asked for, the shortest first; reading
//! changes nothing. Not here: what follows from it (`budget::scheduler`), how it is shown (`metrics`, `admin`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::budget::limit_fields::LimitFields;
use crate::credential::BudgetIdentity;
use crate::handling::Hold;
use crate::pressure::Pressure;
use crate::routes::RouteLabel;

/// How long the line is, what is closed, and what is left by route.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Levels {
    /// Requests that wait.
    pub waiting: usize,
    /// Most requests that may wait.
    pub max_waiting: usize,
    /// Gates that are closed.
    pub closed: ClosedGates,
    /// What is left, and who waits, by route.
    pub routes: BTreeMap<RouteLabel, RouteLevel>,
}

/// Gates that let nothing pass now, by what they stand before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClosedGates {
    /// Limits that a 429 has closed.
    pub limits: usize,
    /// Routes that are refused or fail.
    pub routes: usize,
    /// Upstreams that fail as a whole.
    pub upstreams: usize,
}

/// One route, over all callers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RouteLevel {
    /// The least share of a window that is left to anybody, from 0 to 1; `None` where no limit is known.
    pub remaining: Option<f64>,
    /// Requests that wait.
    pub waiting: usize,
}

impl RouteLevel {
    /// Takes in what is left to one more caller.
    pub fn note_remaining(&mut self, share: f64) {
        self.remaining = Some(self.remaining.map_or(share, |least| least.min(share)));
    }
}

/// One limit of one caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// Whose limit it is.
    pub identity: BudgetIdentity,
    /// By which method.
    pub method: Method,
    /// The routes that count against it.
    pub routes: Vec<RouteLabel>,
    /// What is allowed, and left.
    pub limit: LimitFields,
    /// How much is in use.
    pub pressure: Pressure,
    /// For how long it is closed, and by what; `None` when it is open.
    pub closed: Option<(Duration, Hold)>,
    /// Requests that wait for any limit of this caller and method.
    pub waiting: usize,
}

impl LimitFields {
    /// Returns which share of the window is left, from 0 to 1; `None` where no window is known.
    pub fn share_left(&self) -> Option<f64> {
        let (limit, remaining) = (self.limit?, self.remaining?);
        Some(f64::from(remaining.min(limit)) / f64::from(limit.max(1)))
    }
}

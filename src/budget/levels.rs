//! One limit of one caller as it is at one moment, for those who look on. Plain data.
//!
//! Not here: what follows from it (`budget::scheduler`), how it is shown (`admin`).

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::budget::limit_fields::LimitFields;
use crate::credential::BudgetIdentity;
use crate::handling::hold::Hold;
use crate::routes::RouteLabel;

/// One limit of one caller.
#[derive(Debug, Clone, PartialEq)]
pub struct CallerLimit {
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

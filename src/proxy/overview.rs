//! What operators see at a glance: the shortest budgets, and what is stored by route.
//!
//! Invariants: bounded, however many callers there are; of a credential only its fingerprint.
//! Not here: how it is shown (`admin`), what is counted over time (`metrics`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::budget::levels::CallerLimit;
use crate::budget::limit_fields::LimitFields;
use crate::cache::store::holdings::Holding;
use crate::handling::hold::Hold;
use crate::proxy::Proxy;
use crate::routes::RouteLabel;

/// One limit of one caller, as people read it.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetView {
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// Whose limit it is: a fingerprint, an alias, or our address.
    pub caller: String,
    /// By which method.
    pub method: Method,
    /// The routes that count against it.
    pub routes: Vec<RouteLabel>,
    /// What is allowed, and left.
    pub limit: LimitFields,
    /// For how long it is closed, and by what; `None` when it is open.
    pub closed: Option<(Duration, Hold)>,
    /// Requests of this caller and method that wait.
    pub waiting: usize,
}

impl Proxy {
    /// Returns the limits of which the least is left, `most` of them.
    pub fn shortest_budgets(&self, most: usize) -> Vec<BudgetView> {
        let view = |known: CallerLimit| BudgetView {
            upstream: known.upstream,
            caller: self.0.admission.name_of(known.identity),
            method: known.method,
            routes: known.routes,
            limit: known.limit,
            closed: known.closed,
            waiting: known.waiting,
        };
        self.budget().shortest(most).into_iter().map(view).collect()
    }

    /// Returns how much of what is stored belongs to which route.
    pub async fn stored_by_route(&self) -> BTreeMap<RouteLabel, Holding> {
        self.store().by_route().await
    }
}

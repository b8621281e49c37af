//! What those who look on see of all limits and of the line. Pure.
//!
//! Invariants: looking changes nothing; each look is at as few callers as it is asked for, so that nobody who has to be let in
//! waits long for it. Not here: who may go (`budget::scheduler`), going through all callers (`budget::onlooking`).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::budget::account::onlooking::Shortage;
use crate::budget::ask::{Limit, Payer};
use crate::budget::levels::CallerLimit;
use crate::budget::observation::Gates;
use crate::budget::scheduler::Scheduler;
use crate::budget::upstream_state::UpstreamState;
use crate::metrics::budget_levels::{BudgetLevels, ClosedGates, RouteLevel};
use crate::routes::RouteLabel;

/// One row for each route of which something is known.
pub type RouteLevels = BTreeMap<RouteLabel, RouteLevel>;

/// How short a limit is, whose, and its number.
pub type CallerShortage = (Reverse<Shortage>, Payer, usize);

impl Scheduler {
    /// Returns whose limits are known, or were.
    pub fn payers(&self) -> Vec<Payer> {
        self.accounts.keys().cloned().collect()
    }

    /// Returns how long the line is, which upstreams are closed, and who waits, by route.
    pub fn line_levels(&self, now: SystemTime) -> (BudgetLevels, RouteLevels) {
        let mut routes = RouteLevels::new();
        self.line.count_by_route(|route, waiting| {
            routes.entry(route.clone()).or_insert_with(|| nothing_of(route)).waiting += waiting;
        });
        let upstreams = self.upstreams.values().filter(|upstream| upstream.is_shut(now)).count();
        let levels = BudgetLevels {
            waiting: self.line.len(),
            max_waiting: self.line.most(),
            closed: ClosedGates { upstreams, ..ClosedGates::default() },
            routes: Vec::new(),
        };
        (levels, routes)
    }

    /// Adds what is closed for some payers, and what is left to them, by route.
    pub fn add_levels(
        &self,
        payers: &[Payer],
        (levels, routes): (&mut BudgetLevels, &mut RouteLevels),
        now: SystemTime,
    ) {
        for (payer, account) in payers.iter().filter_map(|payer| Some((payer, self.accounts.get(payer)?))) {
            let closed = account.closed(now);
            levels.closed.limits += closed.limits;
            levels.closed.routes += closed.routes;
            account.remaining(&self.moment(&payer.upstream, now), |route, share| {
                if !routes.contains_key(route) {
                    routes.insert(route.clone(), nothing_of(route));
                }
                if let Some(level) = routes.get_mut(route) {
                    level.remaining = Some(level.remaining.map_or(share, |least| least.min(share)));
                }
            });
        }
    }

    /// Adds how short each limit of some payers is.
    pub fn add_shortages(&self, payers: &[Payer], shortages: &mut Vec<CallerShortage>, now: SystemTime) {
        for (payer, account) in payers.iter().filter_map(|payer| Some((payer, self.accounts.get(payer)?))) {
            let moment = self.moment(&payer.upstream, now);
            let known = account.shortages(&moment);
            shortages.extend(known.map(|(number, shortage)| (Reverse(shortage), payer.clone(), number)));
        }
    }

    /// Describes a limit.
    pub fn described(&self, payer: &Payer, number: usize, now: SystemTime) -> Option<CallerLimit> {
        let limit = self.accounts.get(payer)?.known_limit(number, &self.moment(&payer.upstream, now))?;
        Some(CallerLimit {
            upstream: Arc::clone(&payer.upstream),
            identity: payer.identity,
            method: payer.method.clone(),
            routes: limit.routes,
            limit: limit.fields,
            closed: limit.closed,
            waiting: self.line.waiting_of(payer),
        })
    }

    /// Says how the gates stand through which a request has to go.
    pub fn gates(&self, limit: &Limit, now: SystemTime) -> Gates {
        let upstream = self.upstreams.get(&limit.payer.upstream).map(UpstreamState::gate);
        let [of_limit, of_route] =
            self.accounts.get(&limit.payer).map(|account| account.gates(&limit.route)).unwrap_or_default();
        Gates {
            upstream: upstream.unwrap_or_default().state(now),
            limit: of_limit.state(now),
            route: of_route.state(now),
        }
    }
}

fn nothing_of(route: &RouteLabel) -> RouteLevel {
    RouteLevel { route: route.as_str().to_owned(), remaining: None, waiting: 0 }
}

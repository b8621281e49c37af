//! What those who look on see of all limits and of the line. Pure.
//!
//! Invariants: looking changes nothing; of limits only as many are described as are asked for, however many callers there are.
//! Not here: who may go (`budget::scheduler`).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::budget::account::Account;
use crate::budget::ask::{Limit, Payer};
use crate::budget::levels::CallerLimit;
use crate::budget::observation::Gates;
use crate::budget::scheduler::Scheduler;
use crate::budget::upstream_state::UpstreamState;
use crate::metrics::budget_levels::{BudgetLevels, ClosedGates, RouteLevel};
use crate::routes::RouteLabel;

impl Scheduler {
    /// Returns how long the line is, what is closed, and what is left by route.
    pub fn levels(&self, now: SystemTime) -> BudgetLevels {
        let mut routes = BTreeMap::<&RouteLabel, RouteLevel>::new();
        for (payer, account) in &self.accounts {
            account.remaining(&self.moment(&payer.upstream, now), |route, share| {
                let level = routes.entry(route).or_insert_with(|| nothing_of(route));
                level.remaining = Some(level.remaining.map_or(share, |least| least.min(share)));
            });
        }
        self.line.count_by_route(|route, waiting| {
            routes.entry(route).or_insert_with(|| nothing_of(route)).waiting += waiting;
        });
        BudgetLevels {
            waiting: self.line.len(),
            max_waiting: self.line.most(),
            closed: self.closed_gates(now),
            routes: routes.into_values().collect(),
        }
    }

    fn closed_gates(&self, now: SystemTime) -> ClosedGates {
        let upstreams = self.upstreams.values().filter(|upstream| upstream.is_shut(now)).count();
        let closed = self.accounts.values().map(|account| account.closed(now));
        closed.fold(ClosedGates { upstreams, ..ClosedGates::default() }, |sum, more| ClosedGates {
            limits: sum.limits + more.limits,
            routes: sum.routes + more.routes,
            ..sum
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

    /// Returns the limits of which the least is left, `most` of them.
    pub fn shortest(&self, most: usize, now: SystemTime) -> Vec<CallerLimit> {
        let mut shortest = Vec::new();
        for (payer, account) in &self.accounts {
            let moment = self.moment(&payer.upstream, now);
            let shortages = account.shortages(&moment);
            shortest.extend(shortages.map(|(number, shortage)| (Reverse(shortage), payer, account, number)));
        }
        if most < shortest.len() {
            shortest.select_nth_unstable_by_key(most, |(shortage, ..)| *shortage);
            shortest.truncate(most);
        }
        shortest.sort_unstable_by_key(|(shortage, ..)| *shortage);
        let described = |(_, payer, account, number): (_, &Payer, &Account, usize)| {
            let limit = account.known_limit(number, &self.moment(&payer.upstream, now))?;
            Some(CallerLimit {
                upstream: Arc::clone(&payer.upstream),
                identity: payer.identity,
                method: payer.method.clone(),
                routes: limit.routes,
                limit: limit.fields,
                closed: limit.closed,
                waiting: self.line.waiting_of(payer),
            })
        };
        shortest.into_iter().filter_map(described).collect()
    }
}

fn nothing_of(route: &RouteLabel) -> RouteLevel {
    RouteLevel { route: route.as_str().to_owned(), remaining: None, waiting: 0 }
}

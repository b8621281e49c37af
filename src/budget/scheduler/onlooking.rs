//! What those who look on see of all limits and of the line. Pure.
//!
//! Invariants: looking changes nothing; of limits only as many are described as are asked for, however many callers there are.
//! Not here: who may go (`budget::scheduler`).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::budget::account::Account;
use crate::budget::ask::Payer;
use crate::budget::levels::{Bucket, ClosedGates, Levels};
use crate::budget::scheduler::Scheduler;

impl Scheduler {
    /// Returns how long the line is, what is closed, and what is left by route.
    pub fn levels(&self, now: SystemTime) -> Levels {
        let mut levels = Levels {
            waiting: self.line.len(),
            max_waiting: self.line.most(),
            closed: self.closed_gates(now),
            routes: BTreeMap::new(),
        };
        for (payer, account) in &self.accounts {
            account.remaining(&self.moment(&payer.upstream, now), |route, share| {
                levels.routes.entry(route.clone()).or_default().note_remaining(share);
            });
        }
        self.line.count_by_route(|route, waiting| {
            levels.routes.entry(route.clone()).or_default().waiting += waiting;
        });
        levels
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

    /// Returns the limits of which the least is left, `most` of them.
    pub fn shortest(&self, most: usize, now: SystemTime) -> Vec<Bucket> {
        let mut shortest = Vec::new();
        for (payer, account) in &self.accounts {
            let moment = self.moment(&payer.upstream, now);
            let shortages = account.shortages(&moment);
            shortest.extend(shortages.map(|(number, shortage)| (shortage, payer, account, number)));
        }
        shortest.sort_unstable_by_key(|(shortage, ..)| Reverse(*shortage));
        let bucket = |(_, payer, account, number): (_, &Payer, &Account, usize)| {
            let limit = account.known_limit(number, &self.moment(&payer.upstream, now))?;
            Some(Bucket {
                upstream: Arc::clone(&payer.upstream),
                identity: payer.identity,
                method: payer.method.clone(),
                routes: limit.routes,
                limit: limit.fields,
                pressure: limit.pressure,
                closed: limit.closed,
                waiting: self.line.waiting_of(payer),
            })
        };
        shortest.into_iter().filter_map(bucket).take(most).collect()
    }
}

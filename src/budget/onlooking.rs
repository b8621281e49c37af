//! What those who look on see of the budget: metrics, dashboard.
//!
//! Invariants: callers are gone through a few at a time, so that nobody who has to be let in waits long for whoever only looks;
//! what is seen of one caller is of one moment. Not here: what is seen of each (`budget::account`, `budget::scheduler`).

use crate::budget::levels::CallerLimit;
use crate::budget::{Budget, Shared};
use crate::metrics::budget_levels::BudgetLevels;

/// How many callers are looked at at once.
const AT_ONCE: usize = 64;

impl Budget {
    /// Returns how long the line is, what is closed, and what is left by route.
    pub fn levels(&self) -> BudgetLevels {
        self.0.as_ref().map_or_else(BudgetLevels::default, |shared| shared.levels())
    }

    /// Returns the limits of which the least is left, `most` of them.
    pub fn shortest(&self, most: usize) -> Vec<CallerLimit> {
        self.0.as_ref().map_or_else(Vec::new, |shared| shared.shortest(most))
    }
}

impl Shared {
    fn levels(&self) -> BudgetLevels {
        let now = self.now();
        let (mut levels, mut routes) = self.scheduler().line_levels(now);
        let payers = self.scheduler().payers();
        for some in payers.chunks(AT_ONCE) {
            self.scheduler().add_levels(some, (&mut levels, &mut routes), now);
        }
        BudgetLevels { routes: routes.into_values().collect(), ..levels }
    }

    fn shortest(&self, most: usize) -> Vec<CallerLimit> {
        let now = self.now();
        let payers = self.scheduler().payers();
        let mut shortages = Vec::new();
        for some in payers.chunks(AT_ONCE) {
            self.scheduler().add_shortages(some, &mut shortages, now);
        }
        if most < shortages.len() {
            shortages.select_nth_unstable_by_key(most, |(shortage, ..)| *shortage);
            shortages.truncate(most);
        }
        shortages.sort_unstable_by_key(|(shortage, ..)| *shortage);
        let scheduler = self.scheduler();
        shortages.iter().filter_map(|(_, payer, number)| scheduler.described(payer, *number, now)).collect()
    }
}

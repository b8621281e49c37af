//! Counts what is kept, by route.
//!
//! Invariant: nothing that is served waits for it. Not here: totals, which the store itself knows (`cache::store`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cache::store::{Kept, Store};
use crate::routes::RouteLabel;

/// How much is kept of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holding {
    /// Responses.
    pub responses: u64,
    /// What they weigh, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Returns how much of what is kept belongs to which route. Walks through all of it, away from the threads that serve; one
    /// walk at a time.
    pub async fn by_route(&self) -> BTreeMap<RouteLabel, Holding> {
        let Ok(turn) = Arc::clone(&self.walking).acquire_owned().await else { return BTreeMap::new() };
        let kept = self.kept.clone();
        let walk = move || {
            // Held until it has walked, whoever still waits for it.
            let _turn = turn;
            let mut holdings = BTreeMap::<RouteLabel, Holding>::new();
            for (_, kept) in &kept {
                if let Kept::Response { response, .. } = &kept {
                    let holding = holdings.entry(response.provenance().route.clone()).or_default();
                    holding.responses += 1;
                    holding.bytes += u64::from(response.weight());
                }
            }
            holdings
        };
        tokio::task::spawn_blocking(walk).await.unwrap_or_default()
    }
}

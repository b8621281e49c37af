//! Decides whether upstream may be asked now: today one cap on concurrent requests, with a bounded wait.
//!
//! Every call to upstream holds a [`Permit`] from before it is sent until its answer's body has ended, writes and
//! pass-through included. Order is first come, first served.
//!
//! Invariants: never more than `budget.max_concurrent` requests upstream; nobody waits longer than
//! `budget.max_wait`; a caller who leaves gives its place back. Not here: what Sentry's limit fields say.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use crate::config::BudgetConfig;

/// How much upstream may be asked.
#[derive(Debug)]
pub struct Budget {
    capacity: Option<Arc<Semaphore>>,
    max_wait: Duration,
}

/// The right to one request upstream; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _capacity: Option<OwnedSemaphorePermit>,
}

/// Upstream's capacity stayed taken for as long as a request may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("upstream's capacity stayed taken for {waited:?}")]
pub struct Exhausted {
    /// How long the request waited.
    pub waited: Duration,
}

impl Budget {
    /// Takes the limits from the configuration.
    pub fn new(config: &BudgetConfig) -> Self {
        let capacity = config.enabled.then(|| Arc::new(Semaphore::new(config.max_concurrent)));
        Self { capacity, max_wait: config.max_wait }
    }

    /// Waits for the right to one request, for at most `budget.max_wait`.
    ///
    /// # Errors
    /// [`Exhausted`] when none came free in time.
    pub async fn reserve(&self) -> Result<Permit, Exhausted> {
        let Some(capacity) = &self.capacity else { return Ok(Permit { _capacity: None }) };
        let acquired = time::timeout(self.max_wait, Arc::clone(capacity).acquire_owned()).await;
        match acquired {
            Ok(Ok(permit)) => Ok(Permit { _capacity: Some(permit) }),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(Exhausted { waited: self.max_wait }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(max_concurrent: usize) -> Budget {
        Budget::new(&BudgetConfig { enabled: true, max_wait: Duration::from_secs(10), max_concurrent })
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_beyond_the_cap_waits_until_one_is_given_back() {
        let budget = Arc::new(budget(1));
        let first = budget.reserve().await.unwrap();
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.reserve().await.map(|_| ()) }
        });
        time::sleep(Duration::from_secs(5)).await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_bound() {
        let budget = budget(1);
        let _held = budget.reserve().await.unwrap();
        assert_eq!(budget.reserve().await.unwrap_err(), Exhausted { waited: Duration::from_secs(10) });
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_leaves_gives_its_place_back() {
        let budget = budget(1);
        let held = budget.reserve().await.unwrap();
        assert!(time::timeout(Duration::from_secs(1), budget.reserve()).await.is_err());
        drop(held);
        assert!(budget.reserve().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_disabled_budget_limits_nothing() {
        let config = BudgetConfig { enabled: false, max_wait: Duration::ZERO, max_concurrent: 1 };
        let budget = Budget::new(&config);
        let permits = [budget.reserve().await, budget.reserve().await];
        assert!(permits.iter().all(Result::is_ok));
    }
}

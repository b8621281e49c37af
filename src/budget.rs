//! Decides whether upstream may be asked now: today one cap on concurrent requests, with a bounded wait.
//!
//! Every call to upstream holds a [`Permit`] from before it is sent until its answer's body has ended, writes and
//! pass-through included. Order is first come, first served. A body that a client reads slowly gives its permit back
//! early ([`LapsingPermit`]): Sentry counts a request until it has answered, not until the client has read
//! (`sentry-api.md` §2), and one slow reader must not hold up everybody else.
//!
//! Invariants: never more than `budget.max_concurrent` requests are waiting for upstream's answer; nobody waits longer
//! than `budget.max_wait`; a caller who leaves gives its place back. Not here: what Sentry's limit fields say.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time;

use crate::config::BudgetConfig;

/// How long the body of an answer that streams to a client may hold its permit.
const STREAMING_HOLD: Duration = Duration::from_secs(10);

/// How much upstream may be asked.
#[derive(Debug)]
pub struct Budget {
    capacity: Option<Arc<Semaphore>>,
    max_wait: Duration,
}

/// The right to one request upstream; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    capacity: Option<OwnedSemaphorePermit>,
}

/// A permit that is given back when it is dropped or after ten seconds, whichever comes first.
#[derive(Debug)]
pub struct LapsingPermit {
    /// Dropping it ends the task that holds the permit.
    _held: Option<oneshot::Sender<()>>,
}

impl Permit {
    /// Lets the permit lapse, for a body whose pace is its reader's.
    pub fn lapsing(self) -> LapsingPermit {
        let Some(capacity) = self.capacity else { return LapsingPermit { _held: None } };
        let (held, dropped) = oneshot::channel();
        // Bounded by itself: whoever holds the sender ends it, or time does.
        tokio::spawn(async move {
            let _ = time::timeout(STREAMING_HOLD, dropped).await;
            drop(capacity);
        });
        LapsingPermit { _held: Some(held) }
    }
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
        let Some(capacity) = &self.capacity else { return Ok(Permit { capacity: None }) };
        let acquired = time::timeout(self.max_wait, Arc::clone(capacity).acquire_owned()).await;
        match acquired {
            Ok(Ok(permit)) => Ok(Permit { capacity: Some(permit) }),
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
    async fn a_slow_reader_gives_its_place_back_and_a_quick_one_at_once() {
        let budget = budget(1);
        let quick = budget.reserve().await.unwrap().lapsing();
        drop(quick);
        time::timeout(Duration::from_secs(1), budget.reserve()).await.unwrap().unwrap();
        let _slow = budget.reserve().await.unwrap().lapsing();
        time::sleep(Duration::from_secs(5)).await;
        assert!(time::timeout(Duration::from_secs(4), budget.reserve()).await.is_err());
        assert!(time::timeout(Duration::from_secs(2), budget.reserve()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_disabled_budget_limits_nothing() {
        let config = BudgetConfig { enabled: false, max_wait: Duration::ZERO, max_concurrent: 1 };
        let budget = Budget::new(&config);
        let permits = [budget.reserve().await, budget.reserve().await];
        assert!(permits.iter().all(Result::is_ok));
    }
}

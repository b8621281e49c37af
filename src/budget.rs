//! Decides whether upstream may be asked now: today one cap on concurrent requests, with a bounded wait.
//!
//! Every call to upstream holds a [`Permit`] from before it is sent until its answer's body has ended, writes and
//! pass-through included. Order is first come, first served. What goes at a client's pace must not hold up
//! everybody else: requests that bring a body share at most half of the capacity among them, and their permits, like
//! those of answers that stream to a client, lapse after ten seconds. Sentry itself counts a request until it has
//! answered, not until the client has read (`sentry-api.md` §2).
//!
//! Invariants: never more than `budget.max_concurrent` requests are waiting for upstream's answer, but for those with a
//! body that have waited longer than that; nobody waits here longer than `budget.max_wait`, and no more than
//! `budget.max_waiting` wait; a caller who leaves gives its place back.
//! Not here: what Sentry's limit fields say.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};
use tokio::time;

use crate::config::BudgetConfig;

/// How long something whose pace is a client's may hold a permit.
const CLIENT_PACE: Duration = Duration::from_secs(10);

/// How much upstream may be asked.
#[derive(Debug)]
pub struct Budget {
    limits: Option<Limits>,
    max_wait: Duration,
}

#[derive(Debug)]
struct Limits {
    /// Requests upstream.
    capacity: Arc<Semaphore>,
    /// Those of them that bring a client's body.
    with_body: Arc<Semaphore>,
    /// Requests that wait.
    waiting: Semaphore,
}

/// What a request will ask of its permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Nothing but an answer.
    Bare,
    /// A body has to be read from its client first.
    WithBody,
}

/// The right to one request upstream; given back when dropped.
#[derive(Debug)]
pub struct Permit(Held);

#[derive(Debug)]
enum Held {
    /// Nothing is limited.
    Nothing,
    /// Until it is dropped.
    Capacity { _capacity: OwnedSemaphorePermit },
    /// By a task that ends when this is dropped, or after `CLIENT_PACE`.
    Lapsing { _dropped: oneshot::Sender<()> },
}

/// Upstream's capacity stayed taken for as long as a request may wait, or too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("upstream's capacity is taken")]
pub struct Exhausted;

impl Budget {
    /// Takes the limits from the configuration.
    pub fn new(config: &BudgetConfig) -> Self {
        let limits = config.enabled.then(|| Limits {
            capacity: Arc::new(Semaphore::new(config.max_concurrent)),
            with_body: Arc::new(Semaphore::new(config.max_concurrent.div_ceil(2))),
            waiting: Semaphore::new(config.max_waiting),
        });
        Self { limits, max_wait: config.max_wait }
    }

    /// Waits for the right to one request, for at most `budget.max_wait`.
    ///
    /// # Errors
    /// [`Exhausted`] when none came free in time, or too many wait already.
    pub async fn reserve(&self, load: Load) -> Result<Permit, Exhausted> {
        let Some(limits) = &self.limits else { return Ok(Permit(Held::Nothing)) };
        // One wait, however many places it takes.
        time::timeout(self.max_wait, limits.reserve(load)).await.unwrap_or(Err(Exhausted))
    }
}

impl Limits {
    async fn reserve(&self, load: Load) -> Result<Permit, Exhausted> {
        match load {
            Load::Bare => Ok(Permit(Held::Capacity { _capacity: self.acquire(&self.capacity).await? })),
            Load::WithBody => {
                let share = self.acquire(&self.with_body).await?;
                Ok(Permit(lapsing((self.acquire(&self.capacity).await?, share))))
            }
        }
    }

    async fn acquire(&self, of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Exhausted> {
        match Arc::clone(of).try_acquire_owned() {
            Ok(permit) => return Ok(permit),
            Err(TryAcquireError::NoPermits) => {}
            // The semaphores are never closed.
            Err(TryAcquireError::Closed) => return Err(Exhausted),
        }
        let _place = self.waiting.try_acquire().map_err(|_| Exhausted)?;
        Arc::clone(of).acquire_owned().await.map_err(|_| Exhausted)
    }
}

impl Permit {
    /// Returns a permit for what needs none any more.
    pub const fn spent() -> Self {
        Self(Held::Nothing)
    }

    /// Lets the permit lapse after ten seconds, for an answer whose pace is its reader's.
    #[must_use]
    pub fn lapsing(self) -> Self {
        match self.0 {
            Held::Capacity { _capacity: capacity } => Self(lapsing(capacity)),
            held @ (Held::Nothing | Held::Lapsing { .. }) => Self(held),
        }
    }
}

/// Holds something until the returned is dropped, or time is up.
fn lapsing(held: impl Send + 'static) -> Held {
    let (sender, dropped) = oneshot::channel();
    // Bounded by itself: whoever holds the sender ends it, or time does.
    tokio::spawn(async move {
        let _ = time::timeout(CLIENT_PACE, dropped).await;
        drop(held);
    });
    Held::Lapsing { _dropped: sender }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_concurrent: usize) -> BudgetConfig {
        BudgetConfig { enabled: true, max_wait: Duration::from_secs(10), max_concurrent, max_waiting: 2 }
    }

    fn budget(max_concurrent: usize) -> Budget {
        Budget::new(&config(max_concurrent))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_beyond_the_cap_waits_until_one_is_given_back() {
        let budget = Arc::new(budget(1));
        let first = budget.reserve(Load::Bare).await.unwrap();
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.reserve(Load::Bare).await.map(|_| ()) }
        });
        time::sleep(Duration::from_secs(5)).await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_bound() {
        let budget = budget(1);
        let _held = budget.reserve(Load::Bare).await.unwrap();
        assert_eq!(budget.reserve(Load::Bare).await.unwrap_err(), Exhausted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_leaves_gives_its_place_back() {
        let budget = budget(1);
        let held = budget.reserve(Load::Bare).await.unwrap();
        assert!(time::timeout(Duration::from_secs(1), budget.reserve(Load::Bare)).await.is_err());
        drop(held);
        assert!(budget.reserve(Load::Bare).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gives_its_place_back_and_a_quick_one_at_once() {
        let budget = budget(1);
        let quick = budget.reserve(Load::Bare).await.unwrap().lapsing();
        drop(quick);
        time::timeout(Duration::from_secs(1), budget.reserve(Load::Bare)).await.unwrap().unwrap();
        let _slow = budget.reserve(Load::Bare).await.unwrap().lapsing();
        time::sleep(Duration::from_secs(5)).await;
        assert!(time::timeout(Duration::from_secs(4), budget.reserve(Load::Bare)).await.is_err());
        assert!(time::timeout(Duration::from_secs(2), budget.reserve(Load::Bare)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_disabled_budget_limits_nothing() {
        let budget = Budget::new(&BudgetConfig { enabled: false, ..config(1) });
        let permits = [budget.reserve(Load::Bare).await, budget.reserve(Load::Bare).await];
        assert!(permits.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_clients_send_slowly_leave_half_of_the_capacity_to_others() {
        let budget = budget(4);
        let _slow = [budget.reserve(Load::WithBody).await, budget.reserve(Load::WithBody).await];
        assert!(time::timeout(Duration::from_secs(5), budget.reserve(Load::WithBody)).await.is_err());
        assert!(time::timeout(Duration::from_secs(1), budget.reserve(Load::Bare)).await.unwrap().is_ok());
        // After ten seconds they have lapsed.
        assert!(time::timeout(Duration::from_secs(6), budget.reserve(Load::WithBody)).await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_when_too_many_wait_is_refused_at_once() {
        let budget = Arc::new(budget(1));
        let _held = budget.reserve(Load::Bare).await.unwrap();
        for _ in 0..2 {
            let budget = Arc::clone(&budget);
            tokio::spawn(async move { budget.reserve(Load::Bare).await.map(drop) });
        }
        time::sleep(Duration::from_millis(1)).await;
        let refused = time::timeout(Duration::from_millis(1), budget.reserve(Load::Bare)).await;
        assert_eq!(refused.unwrap().unwrap_err(), Exhausted);
    }
}

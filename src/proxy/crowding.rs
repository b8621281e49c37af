//! Bounds how many requests wait for upstream at a time, together with others or alone.
//!
//! The budget bounds what is sent and what queues to be sent; but any number of requests may share one flight, and over
//! HTTP/2 a few thousand connections carry a million of them. Beyond the bound a request that would wait gets something stale
//! where that is allowed, or a 503 at once: who is turned away early can try elsewhere. Hits do not wait, so that they
//! are served all the while.
//!
//! Invariant: a place is given back however its request ends. Not here: connections (`server::crowd`), the budget.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::cache::terms::Trouble;
use crate::handling::{Refusal, RefusalReason};
use crate::proxy::reply::Reply;
use crate::proxy::{Miss, Proxy};

/// When to come again: nobody knows; soon, because places come free with every answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The answer to whoever would be one too many.
pub const OVERLOADED: Refusal = Refusal {
    reason: RefusalReason::Overloaded,
    detail: Cow::Borrowed(
        "Too many requests wait for Sentry (listen.max_pending_requests). Try again in a moment.",
    ),
    retry_after: Some(RETRY_AFTER),
};

/// How many requests wait, and how many may.
#[derive(Debug)]
pub struct Crowding {
    most: usize,
    waiting: Arc<AtomicUsize>,
}

/// A place among those who wait, for as long as this lives.
#[derive(Debug)]
pub struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crowding {
    /// Lets `most` requests wait.
    pub fn new(most: usize) -> Self {
        Self { most, waiting: Arc::default() }
    }

    /// Gives a request a place; `None` when all are taken.
    pub fn enter(&self) -> Option<Waiting> {
        let place = Waiting(Arc::clone(&self.waiting));
        // Two that come at once may both be turned away; that is no harm where everything is full.
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        (before < self.most).then_some(place)
    }
}

impl Proxy {
    /// Returns who waits for upstream.
    pub fn crowding(&self) -> &Crowding {
        &self.0.crowding
    }

    /// Answers a request that would be one too many to wait.
    pub async fn turn_away(&self, miss: &Miss) -> Reply {
        self.stale_reply(miss, None, Trouble::Failing).await.unwrap_or_else(|| Reply::refusal(&OVERLOADED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_than_may_wait_and_a_place_is_given_back() {
        let crowding = Crowding::new(2);
        let (first, _second) = (crowding.enter(), crowding.enter());
        assert!(first.is_some() && crowding.enter().is_none());
        drop(first);
        assert!(crowding.enter().is_some());
    }
}

//! Runs work that goes on although whoever asked for it has left, and waits for it at the end.
//!
//! Invariant: every task has this owner, which reaps it or drains it. Not here: flights (`cache::single_flight`).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Work under way.
#[derive(Debug, Clone, Default)]
pub struct Errands(Arc<Mutex<JoinSet<()>>>);

impl Errands {
    /// Starts work at once; its result comes to whoever still waits. An error means that it panicked.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Reaps what has ended, so that the set is as large as what is under way.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            // Fails only when nobody waits any more.
            let _ = sender.send(work.await);
        });
        receiver
    }

    /// Waits until all work that was started has ended.
    pub async fn drain(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_when_whoever_asked_has_left() {
        let errands = Errands::default();
        let (done, mut is_done) = oneshot::channel();
        drop(errands.run(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            done.send(()).unwrap();
        }));
        errands.drain().await;
        assert!(is_done.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_reaches_whoever_waits_as_an_error() {
        let errands = Errands::default();
        assert!(errands.run(async { panic!("on purpose") }).await.is_err());
    }
}

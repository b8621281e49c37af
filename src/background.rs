//! Keeps what goes on besides serving: housekeeping, reloads, what the log left out, the dashboard's history, the certificate.
//!
//! Invariants: none of it ends before the process does; one that panics is a defect that is told and counted, and begins
//! anew a moment later. Not here: what each of them does.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::config::Config;
use crate::logging::control::LogControl;
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::reload::{ReloadSource, Reloader};

/// How often the store does the housekeeping that otherwise falls to whoever comes next.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(500);

/// How long what has panicked rests before it begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// What goes on until this is shut down.
#[derive(Debug)]
pub struct Background {
    works: JoinSet<()>,
    metrics: Arc<Metrics>,
}

impl Background {
    /// Begins what goes on in every process: housekeeping, reloads, telling what the log left out.
    pub fn begin(config: &Config, proxy: &Proxy, (log, reloads): (&LogControl, &ReloadSource)) -> Self {
        let (suppressed, lost) = (proxy.shared_metrics(), proxy.shared_metrics());
        log.losses_counted_by(move |lines| lost.lines_lost(lines));
        log.counted_by(move || suppressed.line_suppressed());
        let mut background = Self { works: JoinSet::new(), metrics: proxy.shared_metrics() };
        let housed = proxy.clone();
        background.keep("housekeeping", move || keep_house(housed.clone()));
        let (config, proxy, control, reloads) = (config.clone(), proxy.clone(), log.clone(), reloads.clone());
        // One that has panicked begins with the first configuration: what was applied since is compared and applied again.
        background.keep("reloads", move || {
            Reloader::new(config.clone(), control.clone(), proxy.clone()).reload_from(reloads.clone())
        });
        let log = log.clone();
        background.keep("log", move || log.clone().keep_telling());
        background
    }

    /// Keeps a work going that never ends by itself.
    pub fn keep<F>(&mut self, work: &'static str, begin: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let metrics = Arc::clone(&self.metrics);
        self.works.spawn(async move {
            loop {
                // What is in the set ends with it.
                let mut attempt = JoinSet::new();
                attempt.spawn(begin());
                match attempt.join_next().await {
                    Some(Err(error)) if error.is_panic() => {
                        metrics.panicked();
                        tracing::error!(work, "work in the background panicked, and begins anew");
                        sleep(PAUSE).await;
                    }
                    Some(Ok(()) | Err(_)) | None => return,
                }
            }
        });
    }

    /// Ends all of it.
    pub async fn shutdown(mut self) {
        self.works.shutdown().await;
    }
}

async fn keep_house(proxy: Proxy) {
    let mut interval = interval(HOUSEKEEPING_INTERVAL);
    loop {
        interval.tick().await;
        proxy.store().tidy().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::metrics::LabelValues;
    use crate::metrics::exposition::Exposition;

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_counted_and_begins_anew_and_all_ends_together() {
        let metrics = Arc::new(Metrics::new(UNIX_EPOCH, &LabelValues::default()));
        let mut background = Background { works: JoinSet::new(), metrics: Arc::clone(&metrics) };
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        background.keep("test", move || {
            let attempt = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(attempt >= 2, "as the test wants it");
                std::future::pending::<()>().await;
            }
        });
        sleep(Duration::from_mins(1)).await;
        assert_eq!(begun.load(Ordering::SeqCst), 3);
        assert!(metrics.encode(Exposition::Text).contains("sentrybox_panics_total 2\n"));
        background.shutdown().await;
    }
}

//! Lets a configuration that was read anew hold while the proxy runs, as far as it can without a restart.
//!
//! A [`ReloadSource`] says when, and reads; besides, the files are looked at now and then ([`polling`]). The [`Reloader`]
//! compares what was read with what runs. What takes effect at once is what `Reloader::apply` brings to its room and notes as
//! running; whatever differs then needs a restart.
//!
//! Invariants: a configuration with a problem changes nothing; reloads happen one after another; keys are told, values
//! are not. Not here: reading (handed in), what is valid (`config`, and the rooms), the signal (`cli::runtime`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::config::access::AccessConfig;
use crate::config::difference::changed_keys;
use crate::config::log::LogConfig;
use crate::config::{Config, Problem};
use crate::logging::control::LogControl;
use crate::proxy::Proxy;
use crate::reload::polling::{Reading, Sight, Watch};

pub mod polling;

/// Where a configuration is read anew, and when; clones are the same.
#[derive(Clone)]
pub struct ReloadSource {
    wanted: Arc<Notify>,
    load: Arc<Load>,
    /// How its files are looked at, and what they held at the start; nothing where they are not.
    look: Option<(Arc<Look>, Reading)>,
}

type Load = dyn Fn() -> Loaded + Send + Sync;
type Loaded = Result<Config, Vec<Problem>>;
type Look = dyn Fn() -> Reading + Send + Sync;

impl ReloadSource {
    /// Reads by `load`, which finds everything that is wrong, as `sentrybox check` does.
    pub fn new(load: impl Fn() -> Result<Config, Vec<Problem>> + Send + Sync + 'static) -> Self {
        Self { wanted: Arc::new(Notify::new()), load: Arc::new(load), look: None }
    }

    /// Notices by `look` when there is something new to read. What it shows now is what the process begins with.
    #[must_use]
    pub fn watching(self, look: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        let first = look();
        Self { look: Some((Arc::new(look), first)), ..self }
    }

    /// Reads nothing, ever.
    pub fn none() -> Self {
        Self::new(|| Err(Vec::new()))
    }

    /// Asks for a reload. Several before one has begun are one.
    pub fn request(&self) {
        self.wanted.notify_one();
    }

    /// Reads, and tells what was there just before. A panic is a rejection.
    async fn read(&self) -> (Option<Reading>, Loaded) {
        let (load, look) = (Arc::clone(&self.load), self.looking());
        let read = spawn_blocking(move || (look.map(|look| look()), load()));
        read.await.unwrap_or_else(|_panicked| (None, Err(Vec::new())))
    }

    /// Looks at the files.
    async fn look(&self) -> Option<Reading> {
        let look = self.looking()?;
        spawn_blocking(move || look()).await.ok()
    }

    fn looking(&self) -> Option<Arc<Look>> {
        self.look.as_ref().map(|(look, _)| Arc::clone(look))
    }
}

impl fmt::Debug for ReloadSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ReloadSource").finish_non_exhaustive()
    }
}

/// Brings what was read anew to the rooms.
#[derive(Debug)]
pub struct Reloader {
    /// What runs: as it was at the start, and what was applied since.
    running: Config,
    generation: u64,
    log: LogControl,
    proxy: Proxy,
}

impl Reloader {
    /// Begins with the configuration that runs.
    pub fn new(running: Config, log: LogControl, proxy: Proxy) -> Self {
        Self { running, generation: 1, log, proxy }
    }

    /// Reloads whenever that is wanted, or there is something new. Never ends.
    pub async fn reload_from(mut self, source: ReloadSource) {
        let mut watch = Watch::default();
        if let Some((_, first)) = &source.look {
            watch.note(first.clone());
        }
        loop {
            self.until_wanted(&source, &mut watch).await;
            let (reading, loaded) = source.read().await;
            if let Some(reading) = reading {
                watch.note(reading);
            }
            match loaded {
                Ok(config) => self.accept(&config),
                Err(problems) => self.reject(&problems),
            }
        }
    }

    /// Waits until somebody asks for a reload, or the files hold something new.
    async fn until_wanted(&self, source: &ReloadSource, watch: &mut Watch) {
        loop {
            let pause = watch.pause(self.running.reload.poll).filter(|_| source.look.is_some());
            tokio::select! {
                () = source.wanted.notified() => return,
                () = pause_for(pause) => {}
            }
            let Some(reading) = source.look().await else { continue };
            match watch.look(reading) {
                Sight::Same | Sight::Unsettled => {}
                Sight::Changed => return,
                Sight::Gone(file) => {
                    warn!(file, "configuration file cannot be read, and nothing has changed");
                }
            }
        }
    }

    fn accept(&mut self, config: &Config) {
        let changed = changed_keys(&self.running, config);
        self.apply(config);
        let waiting = changed_keys(&self.running, config);
        let applied: Vec<_> = changed.into_iter().filter(|key| !waiting.contains(key)).collect();
        self.generation += 1;
        self.proxy.metrics().reloads.accepted(self.proxy.clock().now());
        info!(generation = self.generation, applied = told(&applied), "configuration reloaded");
        if let Some(keys) = told(&waiting) {
            warn!(keys, "changed keys need a restart");
        }
    }

    /// Lets hold what takes effect at once. The log's level is set although the file's has not changed, because an operator
    /// may have set another one meanwhile.
    fn apply(&mut self, config: &Config) {
        self.log.apply(&config.log);
        self.proxy.lines().apply(&config.log);
        let access = self.access_of(config);
        self.proxy.access().apply(&access);
        self.running.access = access;
        self.running.reload = config.reload;
        self.running.log = LogConfig { format: self.running.log.format, ..config.log };
    }

    /// Returns what holds of `[access]` at once: fingerprints that another secret makes, and networks that other proxies name, wait
    /// for it.
    fn access_of(&self, config: &Config) -> AccessConfig {
        let (running, mut access) = (&self.running, config.access.clone());
        if running.secret.expose() != config.secret.expose() {
            access.credentials.clone_from(&running.access.credentials);
        }
        if running.listen.trusted_proxies != config.listen.trusted_proxies {
            access.networks.clone_from(&running.access.networks);
        }
        access
    }

    fn reject(&self, problems: &[Problem]) {
        self.proxy.metrics().reloads.rejected();
        for Problem { source, key, expected } in problems {
            error!(source, key, expected, "configuration problem");
        }
        error!(problems = problems.len(), "configuration rejected, and nothing has changed");
    }
}

/// Waits; without a duration, for ever.
async fn pause_for(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Returns keys as the log tells them; `None` when there are none.
fn told(keys: &[String]) -> Option<String> {
    (!keys.is_empty()).then(|| keys.join(" "))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::yield_now;

    use super::*;
    use crate::assembly;
    use crate::config::log::{LogFormat, LogLevel, LogRequests};
    use crate::config::{Roots, load};
    use crate::metrics::exposition::Exposition;
    use crate::upstream::environment::ProxyEnvironment;

    fn config() -> Config {
        let mut config = load::defaults();
        config.upstream.roots = Roots::Bundled;
        config
    }

    fn reloader() -> Reloader {
        let config = config();
        let proxy = assembly::proxy(&config, &ProxyEnvironment::default()).unwrap();
        Reloader::new(config.clone(), LogControl::new(&config.log), proxy)
    }

    fn measures(proxy: &Proxy, sample: &str) -> bool {
        proxy.metrics().encode(Exposition::Text).contains(&format!("sentrybox_config_{sample}\n"))
    }

    #[tokio::test]
    async fn what_takes_effect_at_once_runs_and_the_rest_goes_on_to_wait() {
        let mut reloader = reloader();
        let mut other = config();
        other.log = LogConfig {
            level: LogLevel::Debug,
            requests: LogRequests::All,
            format: LogFormat::Json,
            ..other.log
        };
        other.shutdown.grace = Duration::from_secs(7);
        reloader.accept(&other);
        assert_eq!(reloader.log.level(), LogLevel::Debug);
        assert!(reloader.proxy.lines().wants_hit());
        assert_eq!(changed_keys(&reloader.running, &other), ["log.format", "shutdown.grace"]);
        assert!(measures(&reloader.proxy, "generation 2"));
    }

    #[tokio::test]
    async fn a_rejection_is_counted_and_changes_nothing() {
        let reloader = reloader();
        reloader.reject(&[Problem { source: String::new(), key: String::new(), expected: String::new() }]);
        assert!(
            measures(&reloader.proxy, "generation 1")
                && measures(&reloader.proxy, "last_reload_successful 0")
        );
        assert_eq!(changed_keys(&reloader.running, &config()), [""; 0]);
    }

    #[tokio::test]
    async fn each_request_is_a_reload_and_a_panic_is_a_rejection() {
        let reloader = reloader();
        let proxy = reloader.proxy.clone();
        let loads = Arc::new(AtomicUsize::new(0));
        let answers = Mutex::new(vec![Some(Ok(config())), None, Some(Err(Vec::new()))]);
        let source = ReloadSource::new({
            let loads = Arc::clone(&loads);
            move || {
                loads.fetch_add(1, Ordering::SeqCst);
                let answer = answers.lock().unwrap().pop();
                answer.flatten().unwrap()
            }
        });
        let reloading = tokio::spawn(reloader.reload_from(source.clone()));
        for (sample, count) in [
            ("reloads_total{outcome=\"rejected\"} 1", 1),
            ("reloads_total{outcome=\"rejected\"} 2", 2),
            ("reloads_total{outcome=\"accepted\"} 1", 3),
        ] {
            source.request();
            while !measures(&proxy, sample) {
                yield_now().await;
            }
            assert_eq!(loads.load(Ordering::SeqCst), count);
        }
        reloading.abort();
    }

    /// What the files hold, as a test has it.
    #[derive(Clone, Default)]
    struct Files(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        content: u8,
        loads: Vec<u8>,
        looks: usize,
    }

    impl Files {
        fn hold(&self, content: u8) {
            self.0.lock().unwrap().content = content;
        }

        /// Returns a source that reads these: 0 is gone, even numbers are wrong.
        fn source(&self) -> ReloadSource {
            let (loaded, looked) = (self.clone(), self.clone());
            let load = move || {
                let mut state = loaded.0.lock().unwrap();
                let content = state.content;
                state.loads.push(content);
                if content % 2 == 0 { Err(Vec::new()) } else { Ok(config()) }
            };
            ReloadSource::new(load).watching(move || {
                let mut state = looked.0.lock().unwrap();
                state.looks += 1;
                if state.content == 0 {
                    Reading::Gone("file".to_owned())
                } else {
                    Reading::Whole([state.content; 32])
                }
            })
        }

        /// Returns what was loaded so far.
        fn loads(&self) -> Vec<u8> {
            self.0.lock().unwrap().loads.clone()
        }
    }

    /// Waits for longer than anything that is due may take.
    async fn a_while() {
        sleep(Duration::from_mins(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_files_hold_is_loaded_once_whenever_it_has_changed() {
        let files = Files::default();
        files.hold(1);
        let reloading = tokio::spawn(reloader().reload_from(files.source()));
        for (content, loads) in [
            (1, &[][..]),
            (3, &[3]),
            (4, &[3, 4]),
            (0, &[3, 4]),
            (4, &[3, 4]),
            (3, &[3, 4, 3]),
            (0, &[3, 4, 3]),
            (5, &[3, 4, 3, 5]),
        ] {
            files.hold(content);
            a_while().await;
            assert_eq!(files.loads(), loads, "{content}");
        }
        reloading.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_for_is_not_loaded_again_because_it_is_new() {
        let files = Files::default();
        files.hold(1);
        let source = files.source();
        let reloading = tokio::spawn(reloader().reload_from(source.clone()));
        files.hold(3);
        source.request();
        a_while().await;
        assert_eq!(files.loads(), [3]);
        files.hold(0);
        source.request();
        a_while().await;
        assert_eq!(files.loads(), [3, 0]);
        files.hold(3);
        a_while().await;
        assert_eq!(files.loads(), [3, 0, 3], "what was wrong because it was gone is right again");
        reloading.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn without_polling_nothing_is_looked_at() {
        let files = Files::default();
        files.hold(1);
        let mut reloader = reloader();
        reloader.running.reload.poll = Duration::ZERO;
        let reloading = tokio::spawn(reloader.reload_from(files.source()));
        files.hold(3);
        a_while().await;
        assert_eq!((files.loads().len(), files.0.lock().unwrap().looks), (0, 1));
        reloading.abort();
    }
}

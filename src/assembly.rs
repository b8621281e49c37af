//! Puts the corridor together from a configuration: every room gets its own section, keys are derived, ends meet.
//!
//! Invariant: nothing connects or listens yet, so that `check` and tests can assemble freely.
//! Not here: listeners and the life of the process ([`crate::run`]).

use std::sync::Arc;

use aws_lc_rs::rand;

use crate::admission::Admission;
use crate::budget::Budget;
use crate::cache::generations::Generations;
use crate::cache::key::KeyHasher;
use crate::cache::single_flight::Flights;
use crate::cache::store::Store;
use crate::clock::Clock;
use crate::config::listen::ListenConfig;
use crate::config::{Config, Problem};
use crate::credential::{CredentialKeys, derive_key};
use crate::exporter::{Exporter, NoCollector};
use crate::metrics::budget_levels::BudgetLevels;
use crate::metrics::store::StoreLevels;
use crate::metrics::{LabelValues, Metrics};
use crate::proxy::body::BodyMemory;
use crate::proxy::credentials::Credentials;
use crate::proxy::crowding::Crowding;
use crate::proxy::errands::Errands;
use crate::proxy::grounded::Grounded;
use crate::proxy::ledger::Ledger;
use crate::proxy::lines::LineChoices;
use crate::proxy::refreshing::RefreshPauses;
use crate::proxy::rejections::Rejections;
use crate::proxy::settings::Settings;
use crate::proxy::{Proxy, Rooms};
use crate::regions::Regions;
use crate::regions::allow_list::BadOrigin;
use crate::request_id::RequestIds;
use crate::routes;
use crate::server::tls::{Certificates, TlsError};
use crate::traces::Traces;
use crate::upstream::environment::ProxyEnvironment;
use crate::upstream::error::UpstreamSetupError;
use crate::upstream::{HttpUpstream, Upstream};

/// Why a configuration cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// A rule is wrong.
    #[error("could not read the rules: {}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("; "))]
    Rules(Vec<Problem>),
    /// An upstream URL is wrong.
    #[error(transparent)]
    Region(#[from] BadOrigin),
    /// The client for upstream cannot be set up.
    #[error("could not prepare to reach upstream")]
    Upstream(#[from] UpstreamSetupError),
    /// The certificate of the listener cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The collector of traces cannot be used.
    #[error(transparent)]
    Traces(#[from] NoCollector),
    /// There is no randomness to make a secret from.
    #[error("could not make a random secret")]
    Random,
}

impl AssemblyError {
    /// Returns what is wrong, by the key that it is wrong with.
    pub fn problems(&self) -> Vec<Problem> {
        let key = match self {
            Self::Rules(problems) => return problems.clone(),
            Self::Region(origin) => origin.key.as_str(),
            Self::Upstream(UpstreamSetupError::CaFile { .. } | UpstreamSetupError::EmptyCaFile { .. }) => {
                "upstream.ca_file"
            }
            Self::Upstream(UpstreamSetupError::Roots { .. }) => "upstream.roots",
            Self::Upstream(UpstreamSetupError::Proxy { variable }) => variable,
            Self::Tls(error) => error.key(),
            Self::Traces(NoCollector) => "traces.endpoint",
            Self::Random => "secret",
        };
        vec![Problem { source: String::new(), key: key.to_owned(), expected: with_causes(self) }]
    }
}

/// Puts the proxy together, with upstream reached over the network.
///
/// # Errors
/// See [`AssemblyError`].
pub fn proxy(config: &Config, environment: &ProxyEnvironment) -> Result<Proxy, AssemblyError> {
    let upstream = HttpUpstream::new(&config.upstream, environment)?;
    proxy_before(config, Arc::new(upstream))
}

/// Puts the proxy together before the given upstream.
///
/// # Errors
/// See [`AssemblyError`].
pub fn proxy_before(config: &Config, upstream: Arc<dyn Upstream>) -> Result<Proxy, AssemblyError> {
    let table = routes::compile(&config.cache).map_err(AssemblyError::Rules)?;
    let labels = LabelValues {
        routes: table.rules().map(|rule| rule.label.as_str().to_owned()).collect(),
        classes: config.cache.classes.keys().cloned().collect(),
    };
    let clock = Clock::start();
    let metrics = Arc::new(Metrics::new(clock.now(), &labels));
    let traces = Traces::new(&config.traces, clock.clone(), Arc::clone(&metrics));
    let secret = secret(config)?;
    let generations = Arc::new(Generations::new(derive_key(&secret, b"generations"), config.cache.settle));
    let hasher = KeyHasher::new(derive_key(&secret, b"cache keys"));
    let store = Store::new(&config.cache, Arc::clone(&generations), hasher.clone(), Arc::clone(&metrics));
    let proxy = Proxy::new(Rooms {
        admission: Admission::new(config, table, CredentialKeys::derive(&secret), instance()?),
        regions: Regions::new(&config.upstream)?,
        store,
        generations,
        hasher,
        budget: Budget::new(&config.budget, clock.clone()),
        upstream,
        clock,
        traces,
        metrics: Arc::clone(&metrics),
        settings: Settings::new(config),
        lines: LineChoices::new(&config.log),
        request_ids: RequestIds::starting_at(random()?),
        memory: BodyMemory::new(
            bytes(config.cache.max_in_flight_bytes),
            bytes(config.cache.max_response_bytes),
        ),
        crowding: Crowding::new(config.listen.max_pending_requests),
        flights: Flights::new(),
        grounded: Grounded::default(),
        credentials: Credentials::default(),
        rejections: Rejections::default(),
        refresh_pauses: RefreshPauses::default(),
        ledger: Ledger::default(),
        errands: Errands::default(),
    });
    measure(&proxy, &metrics);
    Ok(proxy)
}

/// Reads what the listeners speak TLS with; `None` where none does.
///
/// # Errors
/// See [`AssemblyError`].
pub fn certificates(listen: &ListenConfig) -> Result<Option<Arc<Certificates>>, AssemblyError> {
    let certificates = listen.speaks_tls().then(|| Certificates::load(&listen.tls)).transpose()?;
    Ok(certificates.map(Arc::new))
}

/// Prepares to send what is traced to the configured collector; `None` where nothing is.
///
/// # Errors
/// See [`AssemblyError`].
pub fn exporter(
    config: &Config,
    environment: &ProxyEnvironment,
    proxy: &Proxy,
) -> Result<Option<Exporter>, AssemblyError> {
    let Some(spans) = proxy.traces().ended() else { return Ok(None) };
    let network = Arc::new(HttpUpstream::new(&config.upstream, environment)?);
    Ok(Some(Exporter::new(&config.traces, spans, network, proxy.shared_metrics())?))
}

/// Returns the URL that requests are forwarded to.
pub fn upstream_url(config: &Config) -> &str {
    if config.upstream.url.is_empty() {
        config.upstream.regions.get(&config.upstream.region).map_or("", String::as_str)
    } else {
        &config.upstream.url
    }
}

/// Lets a scrape of the metrics read the levels of store and budget. Weak, because the store counts by the same metrics.
fn measure(proxy: &Proxy, metrics: &Metrics) {
    let levels = proxy.downgrade();
    metrics.store.measure_with(Box::new(move || {
        levels.upgrade().map_or_else(StoreLevels::default, |rooms| StoreLevels {
            bytes: rooms.store.weight(),
            max_bytes: rooms.store.max_weight(),
            responses: rooms.store.count(),
        })
    }));
    let levels = proxy.downgrade();
    metrics.budget.measure_with(Box::new(move || {
        levels.upgrade().map_or_else(BudgetLevels::default, |rooms| rooms.budget.levels())
    }));
    let levels = proxy.downgrade();
    metrics.regions.measure_with(Box::new(move || {
        let known = levels.upgrade().map_or(0, |rooms| rooms.regions.organizations().count());
        u64::try_from(known).unwrap_or(u64::MAX)
    }));
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns the deployment's secret, or a random one for this process.
fn secret(config: &Config) -> Result<Vec<u8>, AssemblyError> {
    if !config.secret.is_empty() {
        return Ok(config.secret.expose().as_bytes().to_vec());
    }
    let mut secret = vec![0; 32];
    rand::fill(&mut secret).map_err(|_| AssemblyError::Random)?;
    Ok(secret)
}

/// Returns a name for this process, to know itself by in `Via`.
fn instance() -> Result<String, AssemblyError> {
    Ok(format!("{:016x}", random()?))
}

fn random() -> Result<u64, AssemblyError> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).map_err(|_| AssemblyError::Random)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Request, StatusCode};
    use http_body_util::Empty;

    use super::*;
    use crate::cache::generations::PurgeDepth;
    use crate::cache::invalidation::selector::Selector;
    use crate::config::cache::RuleConfig;
    use crate::config::{Secret, load};
    use crate::metrics::exposition::Exposition;
    use crate::testing::PEER;
    use crate::upstream::{OutgoingBody, Sending};

    /// An upstream that nobody may ask.
    #[derive(Debug)]
    struct Unasked;

    impl Upstream for Unasked {
        fn send(&self, _: Request<OutgoingBody>) -> Sending<'_> {
            unreachable!("nothing may be forwarded here")
        }
    }

    fn assembled(config: &Config) -> Result<Proxy, AssemblyError> {
        proxy_before(config, Arc::new(Unasked))
    }

    #[tokio::test]
    async fn what_is_assembled_serves_at_once_and_holds_nothing() {
        let proxy = assembled(&load::defaults()).unwrap();
        let request =
            Request::builder().uri("http://proxy.example/nowhere").body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(proxy.serve(request, PEER).await.status(), StatusCode::NOT_FOUND);
        let purged = proxy.purge_selected(&Selector::Everything, PurgeDepth::Hard).await;
        assert_eq!(purged, Ok(0));
    }

    #[tokio::test]
    async fn the_metrics_do_not_keep_the_rooms_alive() {
        let proxy = assembled(&load::defaults()).unwrap();
        let (metrics, rooms) = (proxy.shared_metrics(), proxy.downgrade());
        assert!(metrics.encode(Exposition::negotiate("")).contains("sentrybox_"));
        drop(proxy);
        assert!(rooms.upgrade().is_none());
        assert!(metrics.encode(Exposition::negotiate("")).contains("sentrybox_"));
    }

    #[tokio::test]
    async fn every_rule_that_is_wrong_is_reported() {
        let mut config = load::defaults();
        let rule = |route: &str, class: &str| RuleConfig {
            route: route.to_owned(),
            class: Some(class.to_owned()),
            never: false,
            overrides: false,
        };
        config.cache.rules = vec![rule("nowhere", "slow"), rule("/api/0/a/", "nonesuch")];
        let error = assembled(&config).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, AssemblyError::Rules(problems) if problems.len() == 2), "{message}");
        assert!(message.contains("cache.rules[0].route") && message.contains("cache.rules[1].class"));
    }

    #[tokio::test]
    async fn a_region_that_is_none_is_reported() {
        let mut config = load::defaults();
        config.upstream.region = "mars".to_owned();
        assert!(matches!(assembled(&config), Err(AssemblyError::Region(_))));
    }

    #[test]
    fn the_upstream_is_the_regions_unless_a_url_overrides_it() {
        let mut config = load::defaults();
        assert_eq!(upstream_url(&config), "https://sentry.io");
        config.upstream.region = "de".to_owned();
        assert_eq!(upstream_url(&config), "https://de.sentry.io");
        config.upstream.url = "http://127.0.0.1:8080".to_owned();
        assert_eq!(upstream_url(&config), "http://127.0.0.1:8080");
        config.upstream.url.clear();
        config.upstream.region = "mars".to_owned();
        assert_eq!(upstream_url(&config), "");
    }

    #[test]
    fn the_configured_secret_is_used_and_without_one_each_process_makes_its_own() {
        let mut config = load::defaults();
        let (one, other) = (secret(&config).unwrap(), secret(&config).unwrap());
        assert_eq!((one.len(), other.len()), (32, 32));
        assert_ne!(one, other);
        config.secret = Secret::new("a secret of the whole deployment, for each".to_owned());
        assert_eq!(secret(&config).unwrap(), b"a secret of the whole deployment, for each");
        assert_eq!(secret(&config).unwrap(), secret(&config).unwrap());
    }

    #[test]
    fn every_process_knows_itself_by_another_name() {
        let name = instance().unwrap();
        assert_ne!(name, instance().unwrap());
        assert!(name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

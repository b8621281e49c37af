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
use crate::config::{Config, Problem};
use crate::credential::{CredentialKeys, derive_key};
use crate::metrics::Metrics;
use crate::metrics::store::StoreLevels;
use crate::proxy::accepted::Accepted;
use crate::proxy::body::BodyMemory;
use crate::proxy::errands::Errands;
use crate::proxy::grounded::Grounded;
use crate::proxy::{Proxy, Rooms, Settings};
use crate::regions::{BadOrigin, Regions};
use crate::routes;
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
    /// There is no randomness to make a secret from.
    #[error("could not make a random secret")]
    Random,
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
    let labels: Vec<String> = table.rules().map(|rule| rule.label.as_str().to_owned()).collect();
    let clock = Clock::start();
    let metrics = Arc::new(Metrics::new(clock.now(), &labels));
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
        budget: Budget::new(&config.budget),
        upstream,
        clock,
        metrics: Arc::clone(&metrics),
        settings: Settings::new(config),
        memory: BodyMemory::new(
            bytes(config.cache.max_in_flight_bytes),
            bytes(config.cache.max_response_bytes),
        ),
        flights: Flights::new(),
        grounded: Grounded::default(),
        accepted: Accepted::default(),
        errands: Errands::default(),
    });
    measure(&proxy, &metrics);
    Ok(proxy)
}

/// Returns the URL that requests are forwarded to.
pub fn upstream_url(config: &Config) -> &str {
    if config.upstream.url.is_empty() {
        config.upstream.regions.get(&config.upstream.region).map_or("", String::as_str)
    } else {
        &config.upstream.url
    }
}

/// Lets a scrape of the metrics read the store's levels. Weak, because the store counts by the same metrics.
fn measure(proxy: &Proxy, metrics: &Metrics) {
    let levels = proxy.downgrade();
    metrics.store.measure_with(Box::new(move || {
        let (bytes, responses) =
            levels.upgrade().map_or((0, 0), |rooms| (rooms.store.weight(), rooms.store.count()));
        StoreLevels { bytes, responses }
    }));
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
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).map_err(|_| AssemblyError::Random)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

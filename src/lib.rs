#![doc = include_str!("architecture.md")]

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;
use tracing::info;

use crate::admin::dashboard::Dashboard;
use crate::admin::explaining::{Explain, Question};
use crate::admin::purging::{Purge, PurgeOrder, PurgeRefusal, PurgeReport, PurgeSubject};
use crate::admin::readiness::Readiness;
use crate::admin::{Admin, Operations};
use crate::assembly::AssemblyError;
use crate::cache::invalidation::selector::Selector;
use crate::clock::Stopwatch;
use crate::config::Config;
use crate::config::control::control_url;
use crate::exporter::Exporter;
use crate::handling::RefusalReason;
use crate::headers::{CACHE_STATUS, CacheStatus};
use crate::logging::control::LogControl;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::proxy::Proxy;
use crate::proxy::explaining::explanation::Explanation;
use crate::reload::{ReloadSource, Reloader};
use crate::routes::tags::Tag;
use crate::server::{Drained, Failure, Server, ServerSettings};
use crate::upstream::environment::ProxyEnvironment;
use crate::webhooks::Webhooks;

// In reading order: each room uses only those above it.
pub mod clock;
pub mod config;
pub mod credential;
pub mod handling;
pub mod links;
pub mod organizations;
pub mod peer;
pub mod pressure;
pub mod request_id;

pub mod headers;
pub mod logging;
pub mod metrics;
pub mod routes;
pub mod traces;

pub mod admission;
pub mod cache;
pub mod regions;

pub mod budget;
pub mod upstream;

pub mod exporter;

pub mod proxy;
pub mod server;

pub mod admin;
pub mod webhooks;

pub mod assembly;
pub mod reload;
pub mod sandbox;

pub mod cli;

/// How often the store does the housekeeping that otherwise falls to whoever comes next.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(500);

/// Why the proxy could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be put together.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// An address cannot be listened on.
    #[error("could not listen on {address} ({key})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key of the configuration that names it.
        key: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// What operators can change of the process while it runs.
#[derive(Debug, Clone)]
pub struct Controls {
    /// Its log.
    pub log: LogControl,
    /// Its configuration.
    pub reloads: ReloadSource,
}

/// The proxy, put together and listening: whoever connects waits in the kernel's queue until it runs.
#[derive(Debug)]
pub struct Prepared {
    config: Config,
    proxy: Proxy,
    clients: TcpListener,
    operators: TcpListener,
    /// Where webhooks have a listener of their own.
    senders: Option<TcpListener>,
    /// Where anything is traced.
    exporter: Option<Exporter>,
}

impl Prepared {
    /// Puts the proxy together and listens on the configured addresses.
    ///
    /// # Errors
    /// When the configuration cannot be put together or an address cannot be listened on.
    pub async fn new(config: Config, egress: &ProxyEnvironment) -> Result<Self, RunError> {
        let proxy = assembly::proxy(&config, egress)?;
        let exporter = assembly::exporter(&config, egress, &proxy)?;
        let clients = listen(config.listen.address, "listen.address").await?;
        let operators = listen(config.admin.address, "admin.address").await?;
        let senders = match config.webhooks.address {
            Some(address) => Some(listen(address, "webhooks.address").await?),
            None => None,
        };
        Ok(Self { config, proxy, clients, operators, senders, exporter })
    }

    /// Returns where clients, and where operators, reach it: the real ports, where port 0 is configured.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.clients.local_addr()?, self.operators.local_addr()?))
    }

    /// Runs the proxy until `shutdown` is done and what was accepted has been answered.
    pub async fn run(self, controls: Controls, shutdown: impl Future<Output = ()>) {
        let Self { config, proxy, clients, operators, senders, exporter } = self;
        let metrics = proxy.shared_metrics();
        let readiness = Readiness::starting();
        // Whoever connects from now on is answered. Nobody who reads that it listens may hear that it does not.
        readiness.ready();
        announce(&config, &clients, &operators, senders.as_ref());
        let dashboard = Arc::new(Dashboard::new(proxy.clone(), readiness.clone()));
        let operations = operations(&proxy, Arc::clone(&dashboard), controls.log.clone());
        let admin =
            Admin::new(config.admin.token.clone(), readiness.clone(), Arc::clone(&metrics), operations);
        let webhooks = webhooks_of(&config, &proxy);
        let (shared, alone) = match senders {
            Some(listener) => (None, webhooks.map(|webhooks| (listener, webhooks))),
            None => (webhooks, None),
        };
        let (stop, stopped) = watch::channel(());
        let desk = Desk { admin: Arc::new(admin), webhooks: shared };
        let operators = serve_operators(operators, desk, Arc::clone(&metrics), end_of(stopped.clone()));
        let operators = tokio::spawn(operators);
        let senders = tokio::spawn(serve_senders(alone, metrics, end_of(stopped)));
        let mut background = work_in_background(&config, &proxy, &controls);
        background.spawn(dashboard.look_on());
        let exporting = exporter.map(Exporter::start);
        let draining = OnceLock::new();
        let until_shutdown = async {
            shutdown.await;
            info!("shutting down");
            readiness.draining();
            let _ = draining.set(Stopwatch::start());
        };
        let drained = serve_clients(&config, clients, &proxy, until_shutdown).await;
        // What is left of the same grace: the deadline counts from the signal.
        let spent = || draining.get().map(|watch| watch.read()).unwrap_or_default();
        proxy.drain(config.shutdown.grace.saturating_sub(spent())).await;
        if let Some(exporting) = exporting {
            exporting.finish(config.shutdown.grace.saturating_sub(spent())).await;
        }
        background.shutdown().await;
        // The admin listener outlives the clients', so that `/readyz` says what is going on.
        drop(stop);
        let _ = operators.await;
        let _ = senders.await;
        controls.log.tell_suppressed();
        info!(cut = drained.cut, "shut down");
    }
}

/// Runs the proxy until `shutdown` is done and what was accepted has been answered.
///
/// # Errors
/// When the configuration cannot be put together or an address cannot be listened on.
pub async fn run(
    config: Config,
    egress: &ProxyEnvironment,
    controls: Controls,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    Prepared::new(config, egress).await?.run(controls, shutdown).await;
    Ok(())
}

async fn listen(address: SocketAddr, key: &'static str) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, key, source })
}

/// Waits until nobody holds the other end any more: it was dropped on purpose, or with what held it.
async fn end_of(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

/// Says where it listens and where it forwards to.
fn announce(config: &Config, clients: &TcpListener, operators: &TcpListener, senders: Option<&TcpListener>) {
    let text = |listener: &TcpListener| {
        listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string())
    };
    info!(
        listen = text(clients),
        admin = text(operators),
        webhooks = (!config.webhooks.secret.is_empty()).then(|| text(senders.unwrap_or(operators))),
        region = config.upstream.url.is_empty().then_some(config.upstream.region.as_str()),
        upstream = assembly::upstream_url(config),
        control = control_url(&config.upstream),
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
}

async fn serve_clients(
    config: &Config,
    listener: TcpListener,
    proxy: &Proxy,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let settings = ServerSettings {
        render_failure: failure,
        ..ServerSettings::for_clients(&config.listen, config.shutdown)
    };
    let server = Server::new(settings, proxy.shared_metrics());
    let proxy = proxy.clone();
    let handler = move |request: Request<Incoming>, peer: Peer| {
        let proxy = proxy.clone();
        async move { proxy.serve(request, peer).await }
    };
    server.serve(listener, handler, shutdown).await
}

/// Returns what operators can do.
fn operations(proxy: &Proxy, dashboard: Arc<Dashboard>, log: LogControl) -> Operations {
    let book = proxy.clone();
    let (proxy, explained) = (proxy.clone(), proxy.clone());
    let onlooker = Arc::clone(&dashboard);
    let purge = Purge::new(move |order| purge(proxy.clone(), Arc::clone(&onlooker), order));
    let explain = Explain::new(move |question| explain(explained.clone(), question));
    Operations { purge, explain, ledger: Arc::new(move || book.ledger_report()), dashboard, log }
}

/// Purges what an operator orders.
async fn purge(
    proxy: Proxy,
    onlooker: Arc<Dashboard>,
    order: PurgeOrder,
) -> Result<PurgeReport, PurgeRefusal> {
    let PurgeOrder { subject, depth } = order;
    let purged = match subject {
        PurgeSubject::Selected(selector) => selector,
        PurgeSubject::Token(token) => {
            let fingerprint = proxy.fingerprint_of_text(token.expose());
            Selector::Credential(fingerprint.ok_or(PurgeRefusal::Token)?)
        }
    };
    let responses = proxy.purge_selected(&purged, depth).await?;
    info!(purged = %purged, mode = depth.label(), responses, "purged");
    onlooker.note_purge(format!("{purged}, {}: {responses} responses", depth.label()));
    Ok(PurgeReport { purged, depth, responses })
}

/// Explains a request that an operator describes, as if it came from this machine.
async fn explain(proxy: Proxy, question: Question) -> Explanation {
    let peer = Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    proxy.explain(question.head, question.body, peer).await
}

/// Returns who answers webhooks, where any are accepted.
fn webhooks_of(config: &Config, proxy: &Proxy) -> Option<Arc<Webhooks>> {
    let secret = &config.webhooks.secret;
    if secret.is_empty() {
        return None;
    }
    let (clock, metrics, proxy) = (proxy.clock().clone(), proxy.shared_metrics(), proxy.clone());
    let purge = webhooks::Purge::new(move |tags: &[Tag]| proxy.mark_stale(tags));
    Some(Arc::new(Webhooks::new(secret, clock, metrics, purge)))
}

/// Who answers on the listener for operators.
#[derive(Clone)]
struct Desk {
    admin: Arc<Admin>,
    /// Where webhooks have no listener of their own.
    webhooks: Option<Arc<Webhooks>>,
}

impl Desk {
    /// Answers one request. A webhook's signature is its only guard: Sentry has no token, and calls us by any name.
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match &self.webhooks {
            Some(webhooks) if request.uri().path() == webhooks::PATH => webhooks.answer(request).await,
            Some(_) | None => self.admin.answer(request).await,
        }
    }
}

async fn serve_operators(
    listener: TcpListener,
    desk: Desk,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) {
    let server = Server::new(ServerSettings::for_operators(), metrics);
    let handler = move |request: Request<Incoming>, _: Peer| {
        let desk = desk.clone();
        async move { desk.answer(request).await }
    };
    server.serve(listener, handler, shutdown).await;
}

/// Serves the listener for webhooks alone, if there is one.
async fn serve_senders(
    alone: Option<(TcpListener, Arc<Webhooks>)>,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) {
    let Some((listener, webhooks)) = alone else { return };
    let server = Server::new(ServerSettings::for_webhooks(), metrics);
    let handler = move |request: Request<Incoming>, _: Peer| {
        let webhooks = Arc::clone(&webhooks);
        async move { webhooks.answer_alone(request).await }
    };
    server.serve(listener, handler, shutdown).await;
}

/// Begins what goes on besides serving, until the process ends: housekeeping, reloads, telling what the log left out.
fn work_in_background(config: &Config, proxy: &Proxy, controls: &Controls) -> JoinSet<()> {
    let metrics = proxy.shared_metrics();
    controls.log.counted_by(move || metrics.line_suppressed());
    let reloader = Reloader::new(config.clone(), controls.log.clone(), proxy.clone());
    let mut background = JoinSet::new();
    background.spawn(keep_house(proxy.clone()));
    background.spawn(reloader.reload_from(controls.reloads.clone()));
    background.spawn(controls.log.clone().keep_telling());
    background
}

async fn keep_house(proxy: Proxy) {
    let mut interval = time::interval(HOUSEKEEPING_INTERVAL);
    loop {
        interval.tick().await;
        proxy.store().tidy().await;
    }
}

/// Renders the answer to a request whose own work did not end with one.
fn failure(failure: Failure) -> Response<Full<Bytes>> {
    let (reason, detail) = match failure {
        Failure::Panicked => (RefusalReason::InternalError, "The proxy failed at this request."),
        Failure::ShuttingDown => (RefusalReason::ShuttingDown, "The proxy is shutting down."),
    };
    let body = serde_json::json!({ "detail": detail }).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = reason.status();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_STATUS, CacheStatus::refused(reason).render());
    response
}

#[cfg(test)]
mod testing;

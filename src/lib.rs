#![doc = include_str!("architecture.md")]

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::watch;
use tracing::info;

use crate::admin::Admin;
use crate::admin::dashboard::Dashboard;
use crate::admin::readiness::Readiness;
use crate::assembly::AssemblyError;
use crate::background::Background;
use crate::clock::Stopwatch;
use crate::config::Config;
use crate::config::control::control_url;
use crate::config::listen::{ListenAddress, ListenConfig};
use crate::desk::{Desk, operations, serve_operators, serve_senders, webhooks_of};
use crate::exporter::Exporter;
use crate::handling::RefusalReason;
use crate::headers::{CACHE_STATUS, CacheStatus};
use crate::logging::control::LogControl;
use crate::peer::Peer;
use crate::proxy::Proxy;
use crate::reload::ReloadSource;
use crate::server::endpoint::Endpoint;
use crate::server::tls::Certificates;
use crate::server::{Drained, Failure, Server, ServerSettings};
use crate::upstream::environment::ProxyEnvironment;

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
pub mod desk;
pub mod reload;

pub mod background;
pub mod sandbox;

pub mod cli;

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
        address: ListenAddress,
        /// The key of the configuration that names it.
        key: String,
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
    /// Where clients reach it: one at least.
    clients: Vec<Endpoint>,
    operators: Endpoint,
    /// Where webhooks have a listener of their own.
    senders: Option<Endpoint>,
    /// What TLS is spoken with, where it is.
    certificates: Option<Arc<Certificates>>,
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
        let certificates = assembly::certificates(&config.listen)?;
        let mut clients = Vec::new();
        for (key, address) in config.listen.addresses() {
            clients.push(listen(key, address, (&config.listen, certificates.as_ref())).await?);
        }
        let alone = (&config.listen, None);
        let operators = ListenAddress::Plain(config.admin.address);
        let operators = listen("admin.address".to_owned(), &operators, alone).await?;
        let senders = match config.webhooks.address.map(ListenAddress::Plain) {
            Some(address) => Some(listen("webhooks.address".to_owned(), &address, alone).await?),
            None => None,
        };
        Ok(Self { config, proxy, clients, operators, senders, certificates, exporter })
    }

    /// Returns where clients, and where operators, reach it: the real ports, where port 0 is configured.
    ///
    /// # Errors
    /// When the system does not say, or the first address for clients has no port.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        let port = |endpoint: Option<&Endpoint>| {
            let address = endpoint.map(Endpoint::address).transpose()?;
            address.and_then(|address| address.socket_address()).ok_or(io::ErrorKind::AddrNotAvailable.into())
        };
        let addresses: io::Result<_> = port(self.clients.first());
        Ok((addresses?, port(Some(&self.operators))?))
    }

    /// Runs the proxy until `shutdown` is done and what was accepted has been answered.
    pub async fn run(self, controls: Controls, shutdown: impl Future<Output = ()>) {
        let Self { config, proxy, clients, operators, senders, certificates, exporter } = self;
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
            Some(endpoint) => (None, webhooks.map(|webhooks| (endpoint, webhooks))),
            None => (webhooks, None),
        };
        let (stop, stopped) = watch::channel(());
        let desk = Desk { admin: Arc::new(admin), webhooks: shared };
        let operators = serve_operators(operators, desk, Arc::clone(&metrics), end_of(stopped.clone()));
        let operators = tokio::spawn(operators);
        let senders = tokio::spawn(serve_senders(alone, metrics, end_of(stopped)));
        let mut background = Background::begin(&config, &proxy, (&controls.log, &controls.reloads));
        background.keep("dashboard", move || Arc::clone(&dashboard).look_on());
        if let Some(certificates) = certificates {
            let metrics = proxy.shared_metrics();
            background
                .keep("certificate", move || Arc::clone(&certificates).keep_fresh(Arc::clone(&metrics)));
        }
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

async fn listen(
    key: String,
    address: &ListenAddress,
    (config, certificates): (&ListenConfig, Option<&Arc<Certificates>>),
) -> Result<Endpoint, RunError> {
    let bound = Endpoint::bind(address, config.unix_mode, certificates).await;
    bound.map_err(|source| RunError::Listen { address: address.clone(), key, source })
}

/// Waits until nobody holds the other end any more: it was dropped on purpose, or with what held it.
async fn end_of(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

/// Says where it listens and where it forwards to.
fn announce(config: &Config, clients: &[Endpoint], operators: &Endpoint, senders: Option<&Endpoint>) {
    let text = |endpoint: &Endpoint| {
        endpoint.address().map_or_else(|_| String::new(), |address| address.to_string())
    };
    info!(
        listen = clients.iter().map(text).collect::<Vec<_>>().join(" "),
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
    endpoints: Vec<Endpoint>,
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
    server.serve(endpoints, handler, shutdown).await
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

//! The operators' desk: serves their listener, and that of webhooks, and does what they order.
//!
//! Invariant: what is ordered here is done by the rooms that own it; nothing is decided.
//! Not here: what operators may ask and in which words (`admin`), whom to believe (`webhooks`).

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tracing::info;

use crate::admin::dashboard::Dashboard;
use crate::admin::explaining::{Explain, Question};
use crate::admin::purging::{Purge, PurgeOrder, PurgeRefusal, PurgeReport, PurgeSubject};
use crate::admin::{Admin, Operations};
use crate::cache::invalidation::selector::Selector;
use crate::config::Config;
use crate::logging::control::LogControl;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::proxy::Proxy;
use crate::proxy::explaining::explanation::Explanation;
use crate::routes::tags::Tag;
use crate::server::endpoint::Endpoint;
use crate::server::{Server, ServerSettings};
use crate::webhooks::{self, Webhooks};

/// Returns what operators can do.
pub fn operations(proxy: &Proxy, dashboard: Arc<Dashboard>, log: LogControl) -> Operations {
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

/// Explains a request that an operator describes.
async fn explain(proxy: Proxy, question: Question) -> Explanation {
    let peer = Peer::new(SocketAddr::new(question.from, 0));
    proxy.explain(question.head, question.body, peer).await
}

/// Returns who answers webhooks, where any are accepted.
pub fn webhooks_of(config: &Config, proxy: &Proxy) -> Option<Arc<Webhooks>> {
    let secret = &config.webhooks.secret;
    if secret.is_empty() {
        return None;
    }
    let (clock, metrics, proxy) = (proxy.clock().clone(), proxy.shared_metrics(), proxy.clone());
    let purge = webhooks::Purge::new(move |tags: &[Tag]| proxy.mark_stale(tags));
    Some(Arc::new(Webhooks::new(secret, clock, metrics, purge)))
}

/// Who answers on the listener for operators.
#[derive(Debug, Clone)]
pub struct Desk {
    /// What operators ask for.
    pub admin: Arc<Admin>,
    /// Where webhooks have no listener of their own.
    pub webhooks: Option<Arc<Webhooks>>,
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

/// Serves the listener for operators.
pub async fn serve_operators(
    endpoint: Endpoint,
    desk: Desk,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) {
    let server = Server::new(ServerSettings::for_operators(), metrics);
    let handler = move |request: Request<Incoming>, _: Peer| {
        let desk = desk.clone();
        async move { desk.answer(request).await }
    };
    server.serve(vec![endpoint], handler, shutdown).await;
}

/// Serves the listener for webhooks alone, if there is one.
pub async fn serve_senders(
    alone: Option<(Endpoint, Arc<Webhooks>)>,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) {
    let Some((endpoint, webhooks)) = alone else { return };
    let server = Server::new(ServerSettings::for_webhooks(), metrics);
    let handler = move |request: Request<Incoming>, _: Peer| {
        let webhooks = Arc::clone(&webhooks);
        async move { webhooks.answer_alone(request).await }
    };
    server.serve(vec![endpoint], handler, shutdown).await;
}

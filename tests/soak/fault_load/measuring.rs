//! What the proxy says of itself: its figures, every few seconds, from its own metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::schedule::Stage;

/// How often figures are taken.
const EVERY: Duration = Duration::from_secs(2);

/// Longest that an operator waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// The figures of one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Which start of the process this is of.
    pub(crate) start: u64,
    pub(crate) resident: u64,
    pub(crate) allocated: u64,
    pub(crate) descriptors: u64,
    pub(crate) connections: u64,
    pub(crate) stored: u64,
    pub(crate) panics: u64,
}

/// Asks the operators' listener; `None` when there is no answer.
pub(crate) async fn operate(admin: SocketAddr, request: Request<Full<Bytes>>) -> Option<(u16, String)> {
    timeout(PATIENCE, operated(admin, request)).await.ok()?
}

async fn operated(admin: SocketAddr, request: Request<Full<Bytes>>) -> Option<(u16, String)> {
    let stream = TokioIo::new(TcpStream::connect(admin).await.ok()?);
    let (mut sender, connection) = http1::handshake(stream).await.ok()?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Returns the text of the metrics.
pub(crate) async fn metrics(admin: SocketAddr) -> Option<String> {
    let request = Request::get("/metrics").header("host", "soak").body(Full::default()).ok()?;
    operate(admin, request).await.map(|(_, text)| text)
}

/// Returns the sum of a metric's series.
pub(crate) fn value(text: &str, name: &str) -> u64 {
    let mut values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with([' ', '{']) {
            return None;
        }
        let whole = rest.rsplit_once(' ')?.1;
        whole.split('.').next()?.parse::<u64>().ok()
    });
    let first = values.next().unwrap_or_default();
    values.fold(first, |sum, value| sum + value)
}

impl Sample {
    /// Takes the figures of this moment; `None` while nobody tells them.
    pub(crate) async fn take(stage: &Stage) -> Option<Self> {
        let start = stage.proxy.starts();
        let text = metrics(stage.proxy.admin()).await?;
        Some(Self {
            at: stage.judge.now(),
            start,
            resident: value(&text, "process_resident_memory_bytes"),
            allocated: value(&text, "sentrybox_allocator_allocated_bytes"),
            descriptors: value(&text, "process_open_fds"),
            connections: value(&text, "sentrybox_connections_open"),
            stored: value(&text, "sentrybox_store_bytes"),
            panics: value(&text, "sentrybox_panics_total"),
        })
    }
}

/// Takes figures until the stage is over.
pub(crate) async fn watch(stage: Arc<Stage>) -> Vec<Sample> {
    let mut samples = Vec::new();
    while !stage.is_over() {
        if let Some(sample) = Sample::take(&stage).await {
            if 0 < sample.panics {
                stage.judge.error(&format!("{} panics", sample.panics));
            }
            samples.push(sample);
        }
        sleep(EVERY).await;
    }
    samples
}

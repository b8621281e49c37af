//! Sends spans that have ended to a collector: OTLP over HTTP in protobuf ([OTLP/HTTP]).
//!
//! One task takes what has ended from the queue, a batch at a time, and sends it the way upstream is asked: same roots, same
//! proxies, an [`Upstream`] of its own. What the collector cannot take now is sent again a little later, within
//! `traces.timeout`; then it is given up.
//!
//! Invariants: a collector that is slow, dead or wrong holds up nobody, and is complained of once a minute; sending is not
//! traced; the end waits for it for a few seconds at the most. Not here: what a span says (`traces`).
//!
//! [OTLP/HTTP]: https://opentelemetry.io/docs/specs/otlp/#otlphttp

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri, response};
use http_body_util::{BodyExt as _, Full, Limited};
use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time;

use crate::clock::Stopwatch;
use crate::config::traces::TracesConfig;
use crate::metrics::Metrics;
use crate::metrics::traces::SpanOutcome;
use crate::traces::EndedSpans;
use crate::upstream::Upstream;
use crate::upstream::error::UpstreamError;

/// Most spans that are sent together.
const LARGEST_BATCH: usize = 512;

/// How long a span waits for others to be sent with.
const GATHERING: Duration = Duration::from_secs(2);

/// How long the first pause is before a batch is sent again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long the end of the process waits for spans at the most.
const LONGEST_FAREWELL: Duration = Duration::from_secs(3);

/// How often a collector that does not take spans is complained of.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

/// Most bytes of a collector's answer.
const LARGEST_ANSWER: usize = 64 * 1024;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("sentrybox/", env!("CARGO_PKG_VERSION")));

/// `[traces]` does not say where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("could not read traces.endpoint or traces.headers")]
pub struct NoCollector;

/// Sends spans to a collector.
#[derive(Debug)]
pub struct Exporter {
    spans: EndedSpans,
    collector: Collector,
    metrics: Arc<Metrics>,
    complaints: Complaints,
}

/// Where spans are sent, and how.
#[derive(Debug)]
struct Collector {
    endpoint: Uri,
    fields: HeaderMap,
    resource: ResourceAttributesWithSchema,
    timeout: Duration,
    network: Arc<dyn Upstream>,
}

/// Why spans did not reach the collector.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("could not reach the collector")]
    Unreachable(#[from] UpstreamError),
    #[error("the collector answered {status}")]
    Refused { status: StatusCode, retry_after: Option<Duration> },
    #[error("the collector took too long")]
    Late,
}

impl Exporter {
    /// Prepares to send `spans` over `network`; connects to nothing yet.
    ///
    /// # Errors
    /// The configuration names no collector.
    pub fn new(
        config: &TracesConfig,
        spans: EndedSpans,
        network: Arc<dyn Upstream>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, NoCollector> {
        let endpoint = config.collector().ok_or(NoCollector)?;
        let mut fields = config.fields().ok_or(NoCollector)?;
        fields.insert(header::CONTENT_TYPE, PROTOBUF);
        fields.insert(header::USER_AGENT, USER_AGENT);
        let resource = Resource::builder_empty()
            .with_service_name(config.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let resource = ResourceAttributesWithSchema::from(&resource);
        let collector = Collector { endpoint, fields, resource, timeout: config.timeout, network };
        Ok(Self { spans, collector, metrics, complaints: Complaints::default() })
    }

    /// Starts sending, in a task of its own.
    pub fn start(self) -> Exporting {
        let (end, ended) = oneshot::channel();
        Exporting { end, task: tokio::spawn(self.run(ended)) }
    }

    /// Sends batches until no span can come any more, or the end is near; then what is left.
    async fn run(mut self, mut end: oneshot::Receiver<()>) {
        let mut batch = Vec::new();
        loop {
            let is_over = tokio::select! {
                biased;
                _ = &mut end => true,
                () = gather(&mut self.spans, &mut batch) => batch.is_empty(),
            };
            if is_over {
                break;
            }
            self.send(std::mem::take(&mut batch)).await;
        }
        if !batch.is_empty() {
            self.send(std::mem::take(&mut batch)).await;
        }
        self.spans.close();
        // Closed, it gives what there is and then nothing.
        while self.spans.recv_many(&mut batch, LARGEST_BATCH).await > 0 {
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    /// Sends a batch, and counts what became of it.
    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let rejected = match self.collector.deliver(batch).await {
            Ok(rejected) => rejected.min(count),
            Err(failure) => {
                self.complaints.add(&self.collector, &failure, count);
                count
            }
        };
        self.metrics.traces.count(SpanOutcome::Exported, count.saturating_sub(rejected));
        self.metrics.traces.count(SpanOutcome::Failed, rejected);
    }
}

/// Waits for a span, and for what ends within a while after it; for nothing once no span can come any more.
async fn gather(spans: &mut EndedSpans, batch: &mut Vec<SpanData>) {
    if spans.recv_many(batch, LARGEST_BATCH).await == 0 {
        return;
    }
    let further = async {
        while batch.len() < LARGEST_BATCH
            && spans.recv_many(batch, LARGEST_BATCH.saturating_sub(batch.len())).await > 0
        {}
    };
    // A batch that is not full when the time is up is as good as any.
    let _ = time::timeout(GATHERING, further).await;
}

impl Collector {
    /// Sends a batch, again and again if that may help. Returns how many of its spans the collector did not want.
    async fn deliver(&self, batch: Vec<SpanData>) -> Result<u64, Failure> {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let mut last = Failure::Late;
        let delivered = time::timeout(self.timeout, async {
            let mut pause = FIRST_PAUSE;
            loop {
                last = match self.post(body.clone()).await {
                    Ok(rejected) => return Some(rejected),
                    Err(failure) => failure,
                };
                time::sleep(last.pause_at_least(pause)?).await;
                pause *= 2;
            }
        });
        delivered.await.ok().flatten().ok_or(last)
    }

    async fn post(&self, body: Bytes) -> Result<u64, Failure> {
        let mut request = Request::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        *request.headers_mut() = self.fields.clone();
        let (head, body) = self.network.send(request).await?.into_parts();
        if !head.status.is_success() {
            return Err(Failure::Refused { status: head.status, retry_after: retry_after(&head) });
        }
        // What it took is taken, whatever comes after it says so.
        let answer = Limited::new(body, LARGEST_ANSWER).collect().await.ok();
        let answer = answer.and_then(|answer| ExportTraceServiceResponse::decode(answer.to_bytes()).ok());
        let rejected =
            answer.and_then(|answer| answer.partial_success).map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or_default())
    }
}

impl Failure {
    /// Returns how long to wait before the same is sent again; `None` where that is of no use.
    fn pause_at_least(&self, pause: Duration) -> Option<Duration> {
        match self {
            Self::Unreachable(_) => Some(pause),
            // "All other 4xx or 5xx response status codes MUST NOT be retried" (OTLP/HTTP, Failures).
            Self::Refused { status, retry_after } => {
                matches!(status.as_u16(), 429 | 502..=504).then(|| retry_after.unwrap_or_default().max(pause))
            }
            Self::Late => None,
        }
    }
}

/// Reads `Retry-After` where it is a number of seconds.
fn retry_after(head: &response::Parts) -> Option<Duration> {
    let seconds = head.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What there is to complain of, said once a while.
#[derive(Debug, Default)]
struct Complaints {
    said: Option<Stopwatch>,
    lost: u64,
}

impl Complaints {
    fn add(&mut self, collector: &Collector, failure: &Failure, lost: u64) {
        self.lost = self.lost.saturating_add(lost);
        if self.said.is_some_and(|said| said.read() < COMPLAINT_INTERVAL) {
            return;
        }
        // The first one says in other words, of another place, that it was not reached.
        let causes =
            std::iter::successors(std::error::Error::source(failure), |cause| cause.source()).skip(1);
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        tracing::warn!(
            // Its path and query may hold a key.
            collector = collector.endpoint.authority().map(tracing::field::display),
            spans = self.lost,
            error = %failure,
            causes = (!causes.is_empty()).then(|| causes.join(": ")),
            "spans are lost, because the collector does not take them"
        );
        (self.said, self.lost) = (Some(Stopwatch::start()), 0);
    }
}

/// Spans being sent.
#[derive(Debug)]
pub struct Exporting {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Sends what has ended by now, as far as that goes within `rest`, and within a few seconds in any case.
    pub async fn finish(self, rest: Duration) {
        let Self { end, mut task } = self;
        // Fails only when it has ended already.
        let _ = end.send(());
        if time::timeout(rest.min(LONGEST_FAREWELL), &mut task).await.is_err() {
            task.abort();
            tracing::warn!("spans were still being sent at the shutdown's deadline");
        }
    }
}

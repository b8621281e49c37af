//! Traces: which requests are traced, and what is told of them.
//!
//! [`Traces::begin`] opens the [`Span`] of a request, by what its client says of its own trace ([`context`]) or else by
//! `traces.sample_ratio`. A [`Trace`] is a place in a trace: each [`Step`] of the corridor opens a span of its own there. A
//! span says [`Fact`]s, ends when it is dropped, and then waits in a queue for whoever sends it. A flight outlives its request
//! where the client leaves, and then so does its span.
//!
//! Invariants: where nothing is traced, a step costs one branch and nothing is allocated; a span that finds the queue full is
//! dropped and counted, so that no request ever waits; times come from [`Clock`], so no step begins before its request.
//! Not here: sending (`exporter`), which steps there are in which order (`proxy`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::HeaderMap;
use http::{Method, StatusCode};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, SdkTracer, SdkTracerProvider, ShouldSample as _, Span as SdkSpan, SpanData,
    SpanLimits, SpanProcessor,
};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::config::traces::TracesConfig;
use crate::metrics::Metrics;
use crate::metrics::traces::SpanOutcome;
use crate::routes::RouteLabel;
use crate::traces::context::{Incoming, Sampling};
use crate::traces::fact::{Fact, known};

pub mod context;
pub mod fact;

/// Most spans that wait to be sent.
const MOST_WAITING: usize = 2_048;

/// How a request fails whose client left before the answer, or whose work panicked.
const ABANDONED: &str = "abandoned";

/// Spans that have ended, in the order in which they did.
pub type EndedSpans = mpsc::Receiver<SpanData>;

/// Which requests are traced.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Recorder>>);

/// What makes spans.
#[derive(Debug)]
struct Recorder {
    tracer: SdkTracer,
    /// Decides where nobody has, by the identifier of the trace, so that every proxy on the way decides alike.
    sampler: Sampler,
    clock: Clock,
    ended: Mutex<Option<EndedSpans>>,
}

/// A step of the corridor that has a span of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Being let in.
    Admit,
    /// Looking in the store.
    LookUp,
    /// Deciding whether what was found will do.
    Decide,
    /// Being fetched, for any number of requests; or waiting for that.
    Flight,
    /// Waiting for the right to ask upstream.
    Budget,
    /// Asking upstream once, up to the head of its answer.
    Upstream,
    /// Taking in the answer's body and keeping it.
    Keep,
    /// Making the answer from a stored response.
    Reply,
}

impl Step {
    /// Returns the name of its span.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::LookUp => "look up",
            Self::Decide => "decide",
            Self::Flight => "flight",
            Self::Budget => "budget",
            Self::Upstream => "upstream",
            Self::Keep => "keep",
            Self::Reply => "reply",
        }
    }

    fn kind(self) -> SpanKind {
        match self {
            Self::Upstream => SpanKind::Client,
            Self::Admit
            | Self::LookUp
            | Self::Decide
            | Self::Flight
            | Self::Budget
            | Self::Keep
            | Self::Reply => SpanKind::Internal,
        }
    }
}

/// A place in a trace, below which spans are opened; none where nothing is traced.
#[derive(Debug, Clone, Default)]
pub struct Trace(Option<Arc<Place>>);

#[derive(Debug)]
struct Place {
    /// The span that contains it.
    parent: Context,
    recorder: Arc<Recorder>,
}

/// A span that is open until it is dropped; none where nothing is traced.
#[derive(Debug, Default)]
pub struct Span(Option<Box<OpenSpan>>);

#[derive(Debug)]
struct OpenSpan {
    span: SdkSpan,
    name: &'static str,
    kind: SpanKind,
    recorder: Arc<Recorder>,
    is_answered: bool,
}

impl Traces {
    /// Takes what the operator decided.
    pub fn new(config: &TracesConfig, clock: Clock, metrics: Arc<Metrics>) -> Self {
        if !config.is_enabled() {
            return Self::default();
        }
        let (queue, ended) = mpsc::channel(MOST_WAITING);
        let sampler = Sampler::TraceIdRatioBased(config.sample_ratio);
        // The library would read from the environment what is not said here.
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Queue { queue, metrics })
            .with_sampler(Sampler::ParentBased(Box::new(sampler.clone())))
            .with_span_limits(SpanLimits::default())
            .with_resource(Resource::builder_empty().build())
            .build();
        let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
        Self(Some(Arc::new(Recorder { tracer, sampler, clock, ended: Mutex::new(Some(ended)) })))
    }

    /// Opens the span of a request that has come in.
    pub fn begin(&self, method: &Method, fields: &HeaderMap) -> Span {
        match &self.0 {
            Some(recorder) => recorder.begin(method, fields),
            None => Span::default(),
        }
    }

    /// Hands out the spans that end, once; `None` where nothing is traced.
    pub fn ended(&self) -> Option<EndedSpans> {
        let recorder = self.0.as_ref()?;
        recorder.ended.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Recorder {
    fn begin(self: &Arc<Self>, method: &Method, fields: &HeaderMap) -> Span {
        let parent = match Incoming::read(fields) {
            Some(incoming) if !self.records(incoming) => return Span::default(),
            Some(Incoming { trace, span, .. }) => {
                let context = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
                Context::new().with_remote_span_context(context)
            }
            None => Context::new(),
        };
        self.open((known(method), SpanKind::Server), &parent)
    }

    /// Returns whether what is asked in somebody's span is recorded, too.
    fn records(&self, incoming: Incoming) -> bool {
        match incoming.sampling {
            Sampling::Recorded => true,
            Sampling::NotRecorded => false,
            Sampling::Deferred => {
                let result =
                    self.sampler.should_sample(None, incoming.trace, "", &SpanKind::Server, &[], &[]);
                result.decision == SamplingDecision::RecordAndSample
            }
        }
    }

    fn open(self: &Arc<Self>, (name, kind): (&'static str, SpanKind), parent: &Context) -> Span {
        let builder = SpanBuilder::from_name(name).with_kind(kind.clone()).with_start_time(self.clock.now());
        let span = self.tracer.build_with_context(builder, parent);
        let recorder = Arc::clone(self);
        if !span.is_recording() {
            return Span::default();
        }
        Span(Some(Box::new(OpenSpan { span, name, kind, recorder, is_answered: false })))
    }
}

impl Trace {
    /// Opens the span of a step, until it is dropped.
    pub fn enter(&self, step: Step) -> Span {
        match &self.0 {
            Some(place) => place.recorder.open((step.label(), step.kind()), &place.parent),
            None => Span::default(),
        }
    }

    /// Takes a step that does not wait, in a span of its own.
    pub fn during<T>(&self, step: Step, work: impl FnOnce() -> T) -> T {
        let _span = self.enter(step);
        work()
    }
}

impl Span {
    /// Returns whether anybody will see it, so that what is costly to say need not be found out for nobody.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the place within it.
    pub fn trace(&self) -> Trace {
        Trace(self.0.as_ref().map(|open| {
            let parent = Context::new().with_remote_span_context(open.span.span_context().clone());
            Arc::new(Place { parent, recorder: Arc::clone(&open.recorder) })
        }))
    }

    /// Says something of its step.
    pub fn note(&mut self, fact: Fact<'_>) {
        if let Some(open) = &mut self.0 {
            open.note(fact);
        }
    }

    /// Points to the span at another place, perhaps of another trace: what was waited for happened there.
    pub fn link(&mut self, place: &Trace) {
        if let (Some(open), Trace(Some(place))) = (&mut self.0, place) {
            open.span.add_link(place.parent.span().span_context().clone(), Vec::new());
        }
    }

    /// Says in the fields of a request that it is made in this span.
    pub fn sign(&self, fields: &mut HeaderMap) {
        if let Some(open) = &self.0 {
            context::sign(fields, open.span.span_context());
        }
    }
}

impl OpenSpan {
    fn note(&mut self, fact: Fact<'_>) {
        for attribute in fact.attributes() {
            self.span.set_attribute(attribute);
        }
        match fact {
            Fact::Route(RouteLabel::Template(template)) => {
                self.span.update_name(format!("{} {template}", self.name));
            }
            Fact::Status(status) => {
                self.is_answered = true;
                if is_error(&self.kind, status) {
                    self.span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
                    self.span.set_status(Status::error(""));
                }
            }
            Fact::Failure(_) => self.span.set_status(Status::error("")),
            Fact::Route(RouteLabel::Other)
            | Fact::Method(_)
            | Fact::Scheme(_)
            | Fact::Server(_)
            | Fact::Handling(_)
            | Fact::Credential(_)
            | Fact::Demand(_)
            | Fact::Collapsed
            | Fact::Hold(_) => {}
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if self.kind == SpanKind::Server && !self.is_answered {
            self.note(Fact::Failure(ABANDONED));
        }
        self.span.end_with_timestamp(self.recorder.clock.now());
    }
}

/// Returns whether an answer is an error to whoever gives it, or to whoever gets it: a 4xx is the asker's own fault.
fn is_error(kind: &SpanKind, status: StatusCode) -> bool {
    match kind {
        SpanKind::Client => status.is_client_error() || status.is_server_error(),
        SpanKind::Server => status.is_server_error(),
        SpanKind::Internal | SpanKind::Producer | SpanKind::Consumer => false,
    }
}

/// Where spans wait to be sent.
#[derive(Debug)]
struct Queue {
    queue: mpsc::Sender<SpanData>,
    metrics: Arc<Metrics>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut SdkSpan, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.metrics.traces.count(SpanOutcome::Dropped, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::config::load::defaults;
    use crate::metrics::LabelValues;
    use crate::metrics::exposition::Exposition;
    use crate::testing::fields;

    fn traces(sample_ratio: f64) -> (Traces, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new(UNIX_EPOCH, &LabelValues::default()));
        let endpoint = "http://collector.example/".to_owned();
        let config = TracesConfig { endpoint, sample_ratio, ..defaults().traces };
        (Traces::new(&config, Clock::start(), Arc::clone(&metrics)), metrics)
    }

    #[test]
    fn where_nothing_is_traced_a_span_and_a_place_are_one_empty_word() {
        let off = Traces::new(&defaults().traces, Clock::start(), traces(1.0).1);
        let recorded = fields(&[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]);
        let span = off.begin(&Method::GET, &recorded);
        assert!(span.0.is_none() && span.trace().0.is_none() && span.trace().enter(Step::Reply).0.is_none());
        assert_eq!((size_of::<Span>(), size_of::<Trace>()), (size_of::<usize>(), size_of::<usize>()));
        assert!(off.ended().is_none());
    }

    #[test]
    fn whoever_leaves_the_decision_to_us_gets_one_that_the_trace_alone_decides() {
        let (traces, _) = traces(0.25);
        let is_recorded = |end: &str| {
            let deferred = format!("0af7651916cd43dd{end}-b7ad6b7169203331");
            traces.begin(&Method::GET, &fields(&[("sentry-trace", &deferred)])).is_recorded()
        };
        for (end, expected) in [
            ("0000000000000001", true),
            ("3fffffffffffffff", true),
            ("4000000000000000", false),
            ("ffffffffffffffff", false),
        ] {
            assert_eq!(is_recorded(end), expected, "{end}");
        }
    }

    #[test]
    fn a_span_that_finds_the_queue_full_is_dropped_and_counted() {
        let (traces, metrics) = traces(1.0);
        for _ in 0..MOST_WAITING + 3 {
            drop(traces.begin(&Method::GET, &HeaderMap::new()));
        }
        let line = "sentrybox_trace_spans_total{outcome=\"dropped\"} 3\n";
        assert!(metrics.encode(Exposition::OpenMetrics).contains(line));
        assert_eq!(traces.ended().unwrap().len(), MOST_WAITING);
        assert!(traces.ended().is_none(), "they go to one place");
    }

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let steps = [
            Step::Admit,
            Step::LookUp,
            Step::Decide,
            Step::Flight,
            Step::Budget,
            Step::Upstream,
            Step::Keep,
            Step::Reply,
        ];
        let mut labels = steps.map(Step::label).to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), steps.len());
    }
}

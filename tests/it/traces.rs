//! Traces: which requests are traced, which spans there are with which parents, what travels on to upstream, and how spans
//! reach the collector.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use sentrybox::config::load::defaults;
use sentrybox::config::traces::TracesConfig;
use sentrybox::config::{Config, Secret};
use sentrybox::exporter::{Exporter, Exporting};
use sentrybox::metrics::exposition::Exposition;
use tokio::time::{sleep, timeout};

use crate::support::corridor::{ALICE, House, PROJECTS, Verdict, is_hit};
use crate::support::http::Fields;
use crate::support::scripted::{Act, Received, ScriptedUpstream};
use crate::support::spans::{Spans, hexadecimal, is_failed, is_of_kind, keys, said};

const SECOND: Duration = Duration::from_secs(1);
const COLLECTOR: &str = "http://collector.example:4318/v1/traces?key=hidden";
const SERVER: &str = "GET /api/0/organizations/{organization}/projects/";
/// A path that no rule knows, outside what is cached.
const ELSEWHERE: &str = "/api/0/projects/acme/web/";

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const RECORDED: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
const NOT_RECORDED: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");

/// A house whose spans go to a collector in memory.
struct Watched {
    house: House,
    collector: ScriptedUpstream,
    exporting: Exporting,
}

fn traces() -> TracesConfig {
    TracesConfig { endpoint: COLLECTOR.to_owned(), ..defaults().traces }
}

impl Watched {
    /// Builds it as it comes.
    fn new() -> Self {
        Self::with(&traces(), |_| {})
    }

    fn with(traces: &TracesConfig, change: impl FnOnce(&mut Config)) -> Self {
        let house = House::with(|config| {
            config.traces = traces.clone();
            change(config);
        });
        let collector = ScriptedUpstream::new();
        collector.improvises(|_| Act::bytes(""));
        let (spans, metrics) = (house.proxy.traces().ended().unwrap(), house.proxy.shared_metrics());
        let exporter = Exporter::new(traces, spans, Arc::new(collector.clone()), metrics).unwrap();
        Self { exporting: exporter.start(), house, collector }
    }

    /// Ends sending, and returns what arrived.
    async fn spans(self) -> Spans {
        self.exporting.finish(Duration::from_mins(1)).await;
        arrived(&self.collector)
    }
}

/// Returns the spans that a collector was sent.
fn arrived(collector: &ScriptedUpstream) -> Spans {
    let log = collector.log();
    Spans::of(log.iter().map(|received| received.body.as_ref()))
}

/// Returns the count of spans of an outcome.
fn counted(house: &House, outcome: &str) -> u64 {
    let rendered = house.proxy.metrics().encode(Exposition::OpenMetrics);
    let name = format!("sentrybox_trace_spans_total{{outcome=\"{outcome}\"}} ");
    rendered.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

/// Returns the `traceparent` of what is asked in a span.
fn traceparent(span: &Span) -> String {
    format!("00-{}-{}-01", hexadecimal(&span.trace_id), hexadecimal(&span.span_id))
}

#[tokio::test(start_paused = true)]
async fn a_forward_is_told_as_a_tree_of_its_steps() {
    let watched = Watched::new();
    watched.house.get(PROJECTS).await;
    let spans = watched.spans().await;
    let tree = [
        SERVER,
        "  admit",
        "  look up",
        "  decide",
        "  flight",
        "    look up",
        "    budget",
        "    upstream",
        "    keep",
        "  reply",
    ];
    assert_eq!(spans.tree().lines().collect::<Vec<_>>(), tree);
    assert_eq!((spans.service.as_str(), spans.all.len()), ("sentrybox", tree.len()));
    assert!(spans.one(SERVER).parent_span_id.is_empty());
    assert!(is_of_kind(spans.one(SERVER), SpanKind::Server));
    assert!(is_of_kind(spans.one("upstream"), SpanKind::Client));
    assert!(is_of_kind(spans.one("flight"), SpanKind::Internal));
}

#[tokio::test(start_paused = true)]
async fn a_hit_asks_nobody() {
    let watched = Watched::new();
    watched.house.get(PROJECTS).await;
    sleep(SECOND * 10).await;
    watched.collector.forget();
    assert!(is_hit(&watched.house.get(PROJECTS).await));
    let spans = watched.spans().await;
    let tree = [SERVER, "  admit", "  look up", "  decide", "  reply"];
    assert_eq!(spans.tree().lines().collect::<Vec<_>>(), tree);
    let server = spans.one(SERVER);
    assert_eq!(
        (said(server, "sentrybox.handling"), said(server, "sentrybox.reason")),
        ("reuse".into(), "reuse".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_and_what_passes_through_wait_for_the_budget_and_are_sent() {
    let watched = Watched::new();
    watched.house.put("/api/0/organizations/acme/").await;
    watched.house.get(ELSEWHERE).await;
    let tree = watched.spans().await.tree();
    let expected = [
        "PUT /api/0/organizations/{organization}/",
        "  admit",
        "  budget",
        "  upstream",
        "GET",
        "  admit",
        "  budget",
        "  upstream",
    ];
    assert_eq!(tree.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_span_says_what_was_asked_and_what_was_done_and_nothing_else() {
    let watched = Watched::new();
    watched.house.get(&format!("{PROJECTS}?query=x")).await;
    let fingerprint = watched.house.proxy.fingerprint_of_text(ALICE).unwrap().to_string();
    let spans = watched.spans().await;
    let check = |span: &Span, expected: &[(&str, &str)]| {
        let expected_keys: Vec<_> = expected.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys(span), expected_keys);
        for (key, value) in expected {
            assert_eq!(said(span, key), *value, "{key}");
        }
        assert!(!is_failed(span));
    };
    let server = [
        ("url.scheme", "http"),
        ("http.request.method", "GET"),
        ("http.route", "/api/0/organizations/{organization}/projects/"),
        ("http.response.status_code", "200"),
        ("sentrybox.handling", "forward"),
        ("sentrybox.reason", "uri-miss"),
        ("sentrybox.credential", &fingerprint),
    ];
    check(spans.one(SERVER), &server);
    let upstream = [
        ("http.request.method", "GET"),
        ("url.scheme", "https"),
        ("server.address", "sentry.io"),
        ("http.response.status_code", "200"),
    ];
    check(spans.one("upstream"), &upstream);
    check(spans.one("flight"), &[("sentrybox.demand", "freshness")]);
    for step in ["admit", "decide", "budget", "keep", "reply"] {
        check(spans.one(step), &[]);
    }
}

#[tokio::test(start_paused = true)]
async fn times_are_those_of_the_steps() {
    let watched = Watched::new();
    watched.house.upstream.plays(PROJECTS, Act::json("[]").after(SECOND));
    watched.house.get(PROJECTS).await;
    let spans = watched.spans().await;
    for (name, expected) in
        [(SERVER, SECOND), ("flight", SECOND), ("upstream", SECOND), ("admit", Duration::ZERO)]
    {
        let span = spans.one(name);
        let took = Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano);
        // The clock knows microseconds.
        assert_eq!(took.as_millis(), expected.as_millis(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clients_span_is_the_parent_and_upstream_hears_of_ours() {
    for (target, method) in [(PROJECTS, Method::GET), (ELSEWHERE, Method::GET), (PROJECTS, Method::POST)] {
        let watched = Watched::new();
        let sentry = format!("{TRACE}-{PARENT}-1");
        let fields = [
            RECORDED,
            ("tracestate", "vendor=1"),
            ("sentry-trace", &sentry),
            ("baggage", "sentry-environment=production,mine=1"),
        ];
        watched.house.ask(method, target, &fields).await;
        let sent = watched.house.upstream.last();
        let spans = watched.spans().await;
        let root = spans.roots().next().unwrap();
        assert_eq!(
            (hexadecimal(&root.trace_id), hexadecimal(&root.parent_span_id)),
            (TRACE.into(), PARENT.into())
        );
        let upstream = spans.one("upstream");
        assert_eq!(sent.field("traceparent"), traceparent(upstream));
        assert_eq!(sent.field("sentry-trace"), format!("{TRACE}-{}-1", hexadecimal(&upstream.span_id)));
        assert_eq!(sent.field("tracestate"), "vendor=1");
        assert_eq!(sent.field("baggage"), "sentry-environment=production,mine=1");
    }
}

#[tokio::test(start_paused = true)]
async fn sentrys_own_field_names_the_parent_where_w3cs_is_missing() {
    let watched = Watched::new();
    watched.house.ask(Method::GET, PROJECTS, &[("sentry-trace", &format!("{TRACE}-{PARENT}"))]).await;
    let sent = watched.house.upstream.last();
    let spans = watched.spans().await;
    assert_eq!(hexadecimal(&spans.one(SERVER).parent_span_id), PARENT);
    let upstream = spans.one("upstream");
    assert_eq!(sent.field("traceparent"), traceparent(upstream));
    assert_eq!(sent.field("sentry-trace"), format!("{TRACE}-{}", hexadecimal(&upstream.span_id)));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_says_nothing_begins_a_trace_that_upstream_hears_of() {
    let watched = Watched::new();
    watched.house.get(PROJECTS).await;
    watched.house.get(ELSEWHERE).await;
    let sent = watched.house.upstream.log();
    let spans = watched.spans().await;
    let told: Vec<_> = spans.named("upstream").map(traceparent).collect();
    assert_eq!(sent.iter().map(|sent| sent.field("traceparent").to_owned()).collect::<Vec<_>>(), told);
    assert!(sent.iter().all(|sent| !sent.fields.contains_key("sentry-trace")));
    let traces: Vec<_> = spans.roots().map(|root| &root.trace_id).collect();
    assert!(traces.len() == 2 && traces[0] != traces[1]);
}

const OWN: Fields<'static> = &[
    RECORDED,
    ("tracestate", "vendor=1,other=2"),
    ("sentry-trace", "771a43a4192642f0b136d5159a501700-b7ad6b7169203331-1"),
    ("baggage", "sentry-environment=production,mine=1"),
];

/// Fails unless what upstream got carries a client's fields as they came.
#[track_caller]
fn assert_untouched(sent: &Received, came: Fields<'_>) {
    for name in ["traceparent", "tracestate", "sentry-trace", "baggage"] {
        let value = came.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value);
        assert_eq!(sent.field(name), value, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_tracing_a_clients_fields_reach_upstream_as_they_came() {
    let odd: Fields<'_> =
        &[("traceparent", "nonsense"), ("sentry-trace", "nonsense"), ("baggage", "nonsense")];
    for fields in [OWN, odd, &[]] {
        let house = House::new();
        for (target, method) in [(PROJECTS, Method::GET), (ELSEWHERE, Method::GET), (PROJECTS, Method::POST)]
        {
            house.ask(method, target, fields).await;
            assert_untouched(&house.upstream.last(), fields);
        }
        assert!(house.proxy.traces().ended().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_traced_is_not_told_and_travels_on_as_it_came() {
    let sentry = format!("{TRACE}-{PARENT}-0");
    let never = TracesConfig { sample_ratio: 0.0, ..traces() };
    let asked: [(TracesConfig, Fields<'_>); 4] = [
        (never.clone(), &[]),
        (never, &[("sentry-trace", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331")]),
        (traces(), &[NOT_RECORDED, ("baggage", "mine=1")]),
        (traces(), &[("sentry-trace", &sentry)]),
    ];
    for (config, fields) in asked {
        let watched = Watched::with(&config, |_| {});
        watched.house.ask(Method::GET, PROJECTS, fields).await;
        assert_untouched(&watched.house.upstream.last(), fields);
        let collector = watched.collector.clone();
        assert!(watched.spans().await.all.is_empty());
        assert_eq!(collector.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_records_its_span_is_traced_whatever_the_share() {
    let watched = Watched::with(&TracesConfig { sample_ratio: 0.0, ..traces() }, |_| {});
    watched.house.ask(Method::GET, PROJECTS, &[RECORDED]).await;
    watched.house.get(ELSEWHERE).await;
    assert_eq!(watched.spans().await.roots().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_context_begins_a_trace_of_our_own_and_does_not_travel_on() {
    let watched = Watched::new();
    let long = "a=".to_owned() + &"b".repeat(8 * 1024);
    let fields =
        [("traceparent", "00-x-y-z"), ("tracestate", "v=1"), ("sentry-trace", "x"), ("baggage", &long)];
    watched.house.ask(Method::GET, PROJECTS, &fields).await;
    let sent = watched.house.upstream.last();
    let spans = watched.spans().await;
    assert!(spans.one(SERVER).parent_span_id.is_empty());
    assert_untouched(&sent, &[("traceparent", &traceparent(spans.one("upstream")))]);
}

#[tokio::test(start_paused = true)]
async fn a_context_makes_no_two_requests_different() {
    let watched = Watched::new();
    watched.house.upstream.plays(PROJECTS, Act::json("[]").after(SECOND));
    let first = watched.house.crowd(1, PROJECTS, OWN);
    sleep(SECOND / 2).await;
    let second = watched.house.ask(Method::GET, PROJECTS, &[("baggage", "other=1")]).await;
    assert!(Verdict::of(&second).says("collapsed"));
    first.join_all().await;
    assert!(is_hit(&watched.house.ask(Method::GET, PROJECTS, &[NOT_RECORDED]).await));
    assert_eq!(watched.house.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_joins_a_flight_points_to_it_in_its_own_trace() {
    let watched = Watched::new();
    watched.house.upstream.plays(PROJECTS, Act::json("[]").after(SECOND));
    let first = watched.house.crowd(1, PROJECTS, &[RECORDED]);
    sleep(SECOND / 4).await;
    watched.house.get(PROJECTS).await;
    first.join_all().await;
    let spans = watched.spans().await;
    let is_joined = |span: &&Span| said(span, "sentrybox.collapsed") == "true";
    let joined = spans.named("flight").find(is_joined).unwrap();
    let flown = spans.named("flight").find(|span| !is_joined(span)).unwrap();
    assert_eq!(hexadecimal(&flown.trace_id), TRACE);
    assert_ne!(joined.trace_id, flown.trace_id);
    assert_eq!(joined.links.len(), 1);
    assert_eq!((&joined.links[0].trace_id, &joined.links[0].span_id), (&flown.trace_id, &flown.span_id));
    assert_eq!(spans.one("upstream").parent_span_id, flown.span_id);
    let waited = Duration::from_nanos(joined.end_time_unix_nano - joined.start_time_unix_nano);
    assert_eq!(waited.as_millis(), 750);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_belongs_to_the_request_that_had_it_done() {
    let watched = Watched::new();
    watched.house.get(PROJECTS).await;
    sleep(Duration::from_mins(3)).await;
    watched.collector.forget();
    watched.house.upstream.plays(PROJECTS, Act::json("[]").after(SECOND));
    assert!(is_hit(&watched.house.ask(Method::GET, PROJECTS, &[RECORDED]).await));
    sleep(SECOND * 2).await;
    let spans = watched.spans().await;
    let flight = spans.one("flight");
    assert_eq!(said(flight, "sentrybox.demand"), "refreshment");
    assert_eq!(flight.parent_span_id, spans.one(SERVER).span_id);
    assert_eq!(spans.one("upstream").parent_span_id, flight.span_id);
    assert!(spans.one(SERVER).end_time_unix_nano < flight.end_time_unix_nano);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_told_and_names_itself_to_upstream() {
    let watched = Watched::new();
    watched.house.upstream.plays_once(PROJECTS, Act::unreachable());
    assert_eq!(watched.house.get(PROJECTS).await.status, StatusCode::OK);
    let sent = watched.house.upstream.log();
    let spans = watched.spans().await;
    let attempts: Vec<_> = spans.named("upstream").collect();
    assert_eq!(attempts.len(), 2);
    for (attempt, sent) in attempts.iter().zip(&sent) {
        assert_eq!(sent.field("traceparent"), traceparent(attempt));
        assert_eq!(attempt.parent_span_id, spans.one("flight").span_id);
    }
    assert!(is_failed(attempts[0]) && !is_failed(attempts[1]));
    assert_eq!(said(attempts[0], "error.type"), "unreachable");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_one_to_whoever_has_to_do_with_it() {
    let failed = async |act: Act| {
        let watched = Watched::new();
        watched.house.upstream.plays(PROJECTS, act);
        watched.house.get(PROJECTS).await;
        let spans = watched.spans().await;
        let upstream = spans.named("upstream").last().unwrap();
        let of = |span: &Span| (is_failed(span), said(span, "error.type"));
        (of(spans.one(SERVER)), of(upstream))
    };
    let (yes, no) = (|why: &str| (true, why.to_owned()), (false, String::new()));
    assert_eq!(failed(Act::status(404, "{}")).await, (no.clone(), yes("404")));
    assert_eq!(failed(Act::status(500, "{}")).await, (yes("500"), yes("500")));
    assert_eq!(failed(Act::timeout()).await, (yes("504"), yes("timeout")));
    assert_eq!(failed(Act::reset()).await, (yes("502"), yes("broken")));
    assert_eq!(failed(Act::json("[]")).await, (no.clone(), no));
}

#[tokio::test(start_paused = true)]
async fn what_the_budget_refuses_says_why() {
    let watched = Watched::with(&traces(), |config| {
        config.budget.max_concurrent = 1;
        config.budget.max_wait = SECOND;
    });
    watched.house.upstream.plays(ELSEWHERE, Act::hang());
    let hanging = watched.house.crowd(1, ELSEWHERE, &[]);
    sleep(SECOND / 4).await;
    let bob: Fields<'_> = &[("authorization", "Bearer sntryu_bob")];
    assert_eq!(watched.house.ask(Method::GET, PROJECTS, bob).await.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(hanging);
    let spans = watched.spans().await;
    let refused = spans.named("budget").find(|span| is_failed(span)).unwrap();
    assert_eq!(
        (said(refused, "sentrybox.hold"), said(refused, "error.type")),
        ("capacity".into(), "capacity".into())
    );
    assert_eq!(said(spans.one(SERVER), "sentrybox.reason"), "upstream-busy");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_no_route_and_is_told_all_the_same() {
    let watched = Watched::new();
    watched.house.get("/nowhere").await;
    let spans = watched.spans().await;
    assert_eq!(spans.tree(), "GET\n  admit\n");
    let server = spans.one("GET");
    assert_eq!(
        (said(server, "sentrybox.handling"), said(server, "sentrybox.reason")),
        ("refuse".into(), "unknown-path".into())
    );
    assert_eq!((said(server, "http.response.status_code"), is_failed(server)), ("404".into(), false));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_has_abandoned_its_request_and_the_flight_goes_on() {
    let watched = Watched::new();
    watched.house.upstream.plays(PROJECTS, Act::json("[]").after(SECOND));
    let mut crowd = watched.house.crowd(1, PROJECTS, &[]);
    sleep(SECOND / 4).await;
    crowd.shutdown().await;
    sleep(SECOND).await;
    let spans = watched.spans().await;
    let server = spans.one("GET");
    assert_eq!((said(server, "error.type"), is_failed(server)), ("abandoned".into(), true));
    assert_eq!(spans.one("flight").parent_span_id, server.span_id);
    assert_eq!(said(spans.one("upstream"), "http.response.status_code"), "200");
}

#[tokio::test(start_paused = true)]
async fn no_token_reaches_the_collector() {
    const CANARY: &str = "sntryu_canary";
    let watched = Watched::new();
    watched
        .house
        .upstream
        .improvises(|_| Act::status(500, format!("{{\"detail\":\"{CANARY}\"}}")).with("x-echo", CANARY));
    let (bearer, cookie) = (format!("Bearer {CANARY}"), format!("session={CANARY}"));
    let fields = [
        ("authorization", bearer.as_str()),
        ("cookie", &cookie),
        ("user-agent", CANARY),
        ("referer", CANARY),
        ("host", "sntryu_canary.example"),
        RECORDED,
        ("tracestate", "vendor=sntryu_canary"),
        ("baggage", "key=sntryu_canary"),
        ("sentry-trace", CANARY),
    ];
    for target in [PROJECTS, ELSEWHERE, "/api/0/organizations/acme/issues/", "/nowhere/"] {
        let target = format!("{target}{CANARY}/?token={CANARY}");
        for method in [Method::GET, Method::PUT, Method::from_bytes(CANARY.as_bytes()).unwrap()] {
            watched.house.ask(method, &target, &fields).await;
        }
    }
    watched.house.ask(Method::GET, PROJECTS, &[("authorization", CANARY), ("authorization", CANARY)]).await;
    let collector = watched.collector.clone();
    assert!(watched.spans().await.roots().count() > 12);
    for received in collector.log() {
        let told =
            format!("{:?} {} {}", received.fields, received.uri, String::from_utf8_lossy(&received.body));
        for mark in [CANARY, "canary", "token"] {
            assert!(!told.contains(mark), "{mark} in {told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn spans_are_sent_in_batches_as_otlp_with_the_collectors_own_fields() {
    let config = TracesConfig {
        headers: Secret::new("x-key: hunter2".to_owned()),
        service_name: "box-of-acme".to_owned(),
        ..traces()
    };
    let watched = Watched::with(&config, |_| {});
    for _ in 0..3 {
        watched.house.get(PROJECTS).await;
    }
    assert_eq!(watched.collector.count(), 0);
    sleep(SECOND * 3).await;
    assert_eq!(watched.collector.count(), 1);
    let sent = watched.collector.last();
    assert_eq!((sent.method.clone(), sent.uri.to_string()), (Method::POST, COLLECTOR.to_owned()));
    assert_eq!((sent.field("content-type"), sent.field("x-key")), ("application/x-protobuf", "hunter2"));
    assert!(!sent.fields.contains_key("authorization") && !sent.fields.contains_key("traceparent"));
    let spans = arrived(&watched.collector);
    assert_eq!((spans.service.as_str(), spans.roots().count()), ("box-of-acme", 3));
    assert_eq!(counted(&watched.house, "exported"), u64::try_from(spans.all.len()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_the_collector_cannot_take_now_is_sent_again_and_what_it_refuses_is_not() {
    for (act, attempts, outcome) in [
        (Act::status(503, ""), 2, "exported"),
        (Act::status(429, "").with("retry-after", "3"), 2, "exported"),
        (Act::unreachable(), 2, "exported"),
        (Act::status(400, ""), 1, "failed"),
        (Act::status(500, ""), 1, "failed"),
    ] {
        let watched = Watched::new();
        watched.collector.plays_once("/v1/traces", act);
        watched.house.get("/nowhere").await;
        sleep(SECOND * 20).await;
        assert_eq!((watched.collector.count(), counted(&watched.house, outcome)), (attempts, 2), "{outcome}");
    }
}

#[tokio::test(start_paused = true)]
async fn spans_that_the_collector_does_not_want_have_failed() {
    let watched = Watched::new();
    let partial_success = Some(ExportTracePartialSuccess { rejected_spans: 1, error_message: String::new() });
    let answer = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    watched.collector.plays("/v1/traces", Act::bytes(answer));
    watched.house.get("/nowhere").await;
    sleep(SECOND * 3).await;
    assert_eq!((counted(&watched.house, "exported"), counted(&watched.house, "failed")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_dead_collector_changes_nothing_for_clients_and_holds_up_the_end_for_seconds_at_most() {
    for act in [Act::unreachable(), Act::hang()] {
        let watched = Watched::new();
        watched.collector.plays("/v1/traces", act);
        for _ in 0..1_500 {
            // In no time: nobody waits for the collector.
            timeout(Duration::from_millis(1), watched.house.get(PROJECTS)).await.unwrap();
        }
        sleep(SECOND * 30).await;
        assert!(counted(&watched.house, "dropped") > 1_000, "the queue has an end");
        assert!(counted(&watched.house, "failed") > 0);
        assert_eq!(counted(&watched.house, "exported"), 0);
        timeout(Duration::from_millis(3_100), watched.exporting.finish(Duration::from_mins(1)))
            .await
            .unwrap();
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_takes_nothing_is_complained_of_once_a_minute_and_its_key_is_not_told() {
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let config = TracesConfig { headers: Secret::new("x-key: hunter2".to_owned()), ..traces() };
    let watched = Watched::with(&config, |_| {});
    watched.collector.plays("/v1/traces", Act::unreachable());
    let complaints = || {
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(!log.contains("hidden") && !log.contains("hunter2"), "{log}");
        log.lines().filter(|line| line.contains("spans are lost")).map(str::to_owned).collect::<Vec<_>>()
    };
    for expected in [1, 1, 1, 2] {
        watched.house.get("/nowhere").await;
        sleep(SECOND * 20).await;
        assert_eq!(complaints().len(), expected);
    }
    let last = complaints().pop().unwrap();
    for part in [
        " WARN ",
        "collector=collector.example:4318",
        "spans=6",
        "could not reach the collector",
        "connection refused",
    ] {
        assert!(last.contains(part), "{part} in {last}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_spans_no_longer_than_it_may() {
    let watched = Watched::new();
    watched.collector.plays("/v1/traces", Act::hang());
    watched.house.get(PROJECTS).await;
    timeout(Duration::from_millis(110), watched.exporting.finish(Duration::from_millis(100))).await.unwrap();
}

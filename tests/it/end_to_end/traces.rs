//! Traces over real sockets: what a collector gets from the binary, and what a collector that is none changes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;

use crate::end_to_end::{MARKS, OWNER, Stage, until};
use crate::support::http::{Fields, get, put};
use crate::support::spans::{Spans, hexadecimal, is_of_kind, said};

const PROJECTS: &str = "/api/0/organizations/org-002/projects/";
const SERVER: &str = "GET /api/0/organizations/{organization}/projects/";
const KEY: &str = "x-key: hunter2";

/// A collector that takes everything, and keeps it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>);

impl Collector {
    /// Starts it, and returns it and its URL for traces.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url(listener.local_addr().unwrap());
        tokio::spawn(collector.clone().serve(listener));
        (collector, url)
    }

    async fn serve(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let collector = self.clone();
            let service = service_fn(move |request| collector.clone().take(request));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }

    async fn take(self, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        self.0.lock().unwrap().push((head, body));
        Ok(Response::new(Empty::new()))
    }

    fn requests(&self) -> Vec<(http::request::Parts, Bytes)> {
        self.0.lock().unwrap().clone()
    }

    fn spans(&self) -> Spans {
        let requests = self.requests();
        Spans::of(requests.iter().map(|(_, body)| body.as_ref()))
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/v1/traces")
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_arrive_with_the_right_parents_and_without_a_token() {
    let (collector, url) = Collector::start().await;
    let stage = Stage::set(&[("SENTRYBOX_TRACES__ENDPOINT", &url), ("SENTRYBOX_TRACES__HEADERS", KEY)]).await;
    let own: Fields<'_> = &[
        OWNER[0],
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=sntryu_demo_owner"),
        ("baggage", "key=sntryu_demo_owner"),
    ];
    let target = format!("{PROJECTS}?token=sntryu_demo_owner");
    assert_eq!(stage.get(&target, own).await.status, StatusCode::OK);
    let asked = stage.sandbox.journal().latest().pop().unwrap();
    // Sent while the process runs, not only at its end.
    until(async || collector.spans().named(SERVER).count() == 1).await;
    stage.get("/api/0/organizations/sntryu_demo_owner/", OWNER).await;
    put(stage.binary.address, "/api/0/organizations/org-002/", OWNER, "{}").await;
    stage.close().await;

    let spans = collector.spans();
    assert_eq!(spans.roots().count(), 3, "{}", spans.tree());
    let server = spans.one(SERVER);
    assert_eq!(hexadecimal(&server.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hexadecimal(&server.parent_span_id), "b7ad6b7169203331");
    let told = spans.tree();
    let tree: Vec<_> = told.lines().take(10).collect();
    let (flight, steps) =
        (["  flight", "    look up", "    budget", "    upstream", "    keep"], &tree[1..4]);
    assert_eq!(
        (tree[0], steps, &tree[4..9], tree[9]),
        (SERVER, &["  admit", "  look up", "  decide"][..], &flight[..], "  reply")
    );
    let upstream = spans.named("upstream").find(|span| span.trace_id == server.trace_id).unwrap();
    assert!(is_of_kind(server, SpanKind::Server) && is_of_kind(upstream, SpanKind::Client));
    assert_eq!(said(upstream, "server.address"), "127.0.0.1");
    let named = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", hexadecimal(&upstream.span_id));
    assert_eq!(asked.fields["traceparent"], named.as_str());
    assert_eq!(asked.fields["baggage"], "key=sntryu_demo_owner");

    for (head, body) in collector.requests() {
        assert_eq!(
            (&head.method, head.uri.path(), &head.headers["x-key"]),
            (&Method::POST, "/v1/traces", &"hunter2".parse().unwrap())
        );
        let told = format!("{head:?} {}", String::from_utf8_lossy(&body));
        for mark in MARKS {
            assert!(!told.contains(mark), "{mark} in {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_none_changes_nothing_for_clients_and_for_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for address in [silent.local_addr().unwrap(), closed] {
        // An end that waited for as long as it may would not come while the test waits.
        let stage = Stage::set(&[
            ("SENTRYBOX_TRACES__ENDPOINT", &url(address)),
            ("SENTRYBOX_TRACES__HEADERS", KEY),
            ("SENTRYBOX_TRACES__TIMEOUT", "1h"),
            ("SENTRYBOX_UPSTREAM__FIRST_BYTE_TIMEOUT", "1h"),
            ("SENTRYBOX_UPSTREAM__TOTAL_TIMEOUT", "1h"),
            ("SENTRYBOX_SHUTDOWN__GRACE", "1h"),
        ])
        .await;
        for _ in 0..100 {
            assert_eq!(get(stage.binary.address, PROJECTS, OWNER).await.status, StatusCode::OK);
        }
        stage.close().await;
    }
}

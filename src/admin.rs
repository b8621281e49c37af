//! The second listener's answers: health, readiness, metrics, ledger, dashboard, the log's level, purge, explanations.
//!
//! Who may ask what is decided in `admin::guard` before anything is done. What operators change, they change by
//! `POST` or `PUT`; everything else may be asked with `GET` or `HEAD`.
//!
//! Invariants: liveness and readiness need no token and depend on neither Sentry nor a shared tier; no answer
//! holds a credential or anything of the environment; every answer says `no-store`.
//! Not here: the listener (`server`), what a purge does and how a request is explained (handed in), which metrics there are
//! (`metrics`).

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request};
use http_body::Body;
use http_body_util::{BodyExt, Collected, Limited};
use tokio::time::timeout;

use crate::admin::answer::{JSON, Reply, TEXT, answer, error};
use crate::admin::dashboard::{Dashboard, Part};
use crate::admin::explaining::Explain;
use crate::admin::guard::Guard;
use crate::admin::purging::Purge;
use crate::admin::readiness::Readiness;
use crate::config::Secret;
use crate::logging::control::LogControl;
use crate::metrics::Metrics;
use crate::metrics::exposition::Exposition;

pub mod answer;
pub mod dashboard;
pub mod explaining;
pub mod guard;
pub mod log_level;
pub mod purging;
pub mod readiness;

/// Largest body of a request, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// How long a request's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What `GET /` says.
const INDEX: &str = "sentrybox admin\n\n\
    GET  /dashboard  what it is doing, as a page; browsers get it at / too\n\
    GET  /livez      200 while the process runs\n\
    GET  /readyz     200 while new requests are welcome, 503 otherwise\n\
    GET  /metrics    Prometheus metrics\n\
    GET  /ledger     what each credential was spared, by fingerprint, as JSON\n\
    GET  /log        the least severe level that is logged: {\"level\": \"info\"}\n\
    PUT  /log        sets it, until the next reload or start: {\"level\": \"debug\"}\n\
    POST /purge      marks what is stored stale, or drops it: {\"organization\": \"acme\", \"mode\": \"soft\"}\n\
    POST /explain    what would become of a request: {\"path\": \"/api/0/organizations/\", \"token\": \"…\"}\n\
    POST /webhooks/sentry  Sentry's webhooks, where they are configured and have no address of their own\n";

/// How the token may be given: browsers ask their users for it as the password of any name.
const CHALLENGES: [HeaderValue; 2] = [
    HeaderValue::from_static("Bearer realm=\"sentrybox admin\""),
    HeaderValue::from_static("Basic realm=\"sentrybox admin\", charset=\"UTF-8\""),
];

/// Answers operators; cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    guard: Arc<Guard>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    operations: Operations,
}

/// What operators can do with the proxy; handed in by whoever owns it.
#[derive(Clone)]
pub struct Operations {
    /// Purges.
    pub purge: Purge,
    /// Explains what would become of a request.
    pub explain: Explain,
    /// Tells what each credential was spared, as JSON.
    pub ledger: Arc<dyn Fn() -> String + Send + Sync>,
    /// Shows what it is doing.
    pub dashboard: Arc<Dashboard>,
    /// The log, to turn it up and down.
    pub log: LogControl,
}

impl fmt::Debug for Operations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Operations").finish_non_exhaustive()
    }
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Index,
    Live,
    Ready,
    Metrics,
    Ledger,
    Dashboard(Part),
    Log,
    Purge,
    Explain,
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/" => Some(Self::Index),
            "/livez" => Some(Self::Live),
            "/readyz" => Some(Self::Ready),
            "/metrics" => Some(Self::Metrics),
            "/ledger" => Some(Self::Ledger),
            "/dashboard" => Some(Self::Dashboard(Part::Page)),
            "/dashboard/panels" => Some(Self::Dashboard(Part::Panels)),
            "/dashboard/style.css" => Some(Self::Dashboard(Part::Style)),
            "/dashboard/script.js" => Some(Self::Dashboard(Part::Script)),
            "/dashboard/icon.svg" => Some(Self::Dashboard(Part::Icon)),
            "/log" => Some(Self::Log),
            "/purge" => Some(Self::Purge),
            "/explain" => Some(Self::Explain),
            _ => None,
        }
    }

    /// Returns whether anybody may ask, token or not.
    const fn is_public(self) -> bool {
        match self {
            Self::Live | Self::Ready => true,
            Self::Index
            | Self::Metrics
            | Self::Ledger
            | Self::Dashboard(_)
            | Self::Log
            | Self::Purge
            | Self::Explain => false,
        }
    }

    /// Returns the methods that the endpoint knows, as in `Allow`.
    const fn allowed(self) -> &'static str {
        match self {
            Self::Index | Self::Live | Self::Ready | Self::Metrics | Self::Ledger | Self::Dashboard(_) => {
                "GET, HEAD"
            }
            Self::Log => "GET, HEAD, PUT",
            Self::Purge | Self::Explain => "POST",
        }
    }

    /// Returns whether it tells who is served, and what: not to be read under any name that points here.
    const fn is_telling(self) -> bool {
        match self {
            Self::Ledger | Self::Dashboard(Part::Page | Part::Panels) => true,
            Self::Index
            | Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::Dashboard(Part::Style | Part::Script | Part::Icon)
            | Self::Log
            | Self::Purge
            | Self::Explain => false,
        }
    }

    fn allows(self, method: &Method) -> bool {
        self.allowed().split(", ").any(|allowed| method == allowed)
    }
}

impl Admin {
    /// Creates the answerer. An empty `token` means that none is needed.
    pub fn new(token: Secret, readiness: Readiness, metrics: Arc<Metrics>, operations: Operations) -> Self {
        Self { guard: Arc::new(Guard::new(token)), readiness, metrics, operations }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send,
    {
        let (head, body) = request.into_parts();
        let has_body = !body.is_end_stream();
        let (mut response, is_read) = match self.admit(&head) {
            Ok(endpoint) => match collect(body).await {
                Ok(body) => (self.perform(endpoint, &head, &body).await, true),
                Err(status) => (error(status, "The request's body is too large, or did not arrive"), false),
            },
            Err(refusal) => (*refusal, false),
        };
        if has_body && !is_read {
            // The connection ends with the body unread, and the client should know.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let fields = response.headers_mut();
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// Decides whether the request may be answered, and as what.
    fn admit(&self, head: &request::Parts) -> Result<Endpoint, Box<Reply>> {
        let endpoint = Endpoint::of(head.uri.path());
        if !endpoint.is_some_and(Endpoint::is_public) && !self.guard.knows(&head.headers) {
            let mut refusal = error(StatusCode::UNAUTHORIZED, "This endpoint needs the admin token");
            for challenge in CHALLENGES {
                refusal.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
            }
            return Err(Box::new(refusal));
        }
        let Some(endpoint) = endpoint else {
            return Err(Box::new(error(StatusCode::NOT_FOUND, "There is no such endpoint; see /")));
        };
        if matches!(endpoint, Endpoint::Purge | Endpoint::Explain) && head.uri.query().is_some() {
            let detail = "What is meant goes into the body, as JSON; the query is not read";
            return Err(Box::new(error(StatusCode::BAD_REQUEST, detail)));
        }
        if !endpoint.allows(&head.method) {
            let mut refusal =
                error(StatusCode::METHOD_NOT_ALLOWED, "The endpoint has other methods; see Allow");
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static(endpoint.allowed()));
            return Err(Box::new(refusal));
        }
        let is_telling = endpoint.is_telling() || (endpoint == Endpoint::Index && wants_page(head));
        let foreign = match (head.method.is_safe(), is_telling) {
            (false, _) => self.guard.refuse_foreign(head),
            (true, true) => self.guard.refuse_stranger(head),
            (true, false) => Ok(()),
        };
        foreign.map_err(|foreign| Box::new(error(StatusCode::FORBIDDEN, foreign.detail())))?;
        Ok(endpoint)
    }

    async fn perform(&self, endpoint: Endpoint, head: &request::Parts, body: &[u8]) -> Reply {
        match endpoint {
            Endpoint::Index if wants_page(head) => self.show(Part::Page, head).await,
            Endpoint::Index => answer(StatusCode::OK, TEXT, INDEX.to_owned()),
            Endpoint::Dashboard(part) => self.show(part, head).await,
            Endpoint::Live => answer(StatusCode::OK, TEXT, "ok\n".to_owned()),
            Endpoint::Ready => {
                let state = self.readiness.state();
                answer(state.status(), TEXT, format!("{}\n", state.label()))
            }
            Endpoint::Metrics => {
                let accept = head.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
                let exposition = Exposition::negotiate(accept.unwrap_or_default());
                answer(StatusCode::OK, exposition.content_type(), self.metrics.encode(exposition))
            }
            Endpoint::Ledger => answer(StatusCode::OK, JSON, (self.operations.ledger)()),
            Endpoint::Log if head.method == Method::PUT => self.set_log_level(body),
            Endpoint::Log => answer(StatusCode::OK, JSON, log_level::tell(&self.operations.log)),
            Endpoint::Purge => self.purge(body).await,
            Endpoint::Explain => self.explain(&head.headers, body).await,
        }
    }

    async fn show(&self, part: Part, head: &request::Parts) -> Reply {
        self.operations.dashboard.show(part, head.uri.query()).await
    }

    fn set_log_level(&self, body: &[u8]) -> Reply {
        match log_level::set(&self.operations.log, body) {
            Ok(level) => answer(StatusCode::OK, JSON, level),
            Err(refusal) => error(StatusCode::BAD_REQUEST, &refusal.to_string()),
        }
    }

    async fn purge(&self, body: &[u8]) -> Reply {
        match self.operations.purge.carry_out(body).await {
            Ok(report) => answer(StatusCode::OK, JSON, report.json()),
            Err(refusal) => error(StatusCode::BAD_REQUEST, &refusal.to_string()),
        }
    }

    async fn explain(&self, fields: &HeaderMap, body: &[u8]) -> Reply {
        match self.operations.explain.answer(body).await {
            Ok(explanation) if wants_text(fields) => answer(StatusCode::OK, TEXT, explanation.to_string()),
            Ok(explanation) => answer(StatusCode::OK, JSON, explanation.json()),
            Err(refusal) => error(StatusCode::BAD_REQUEST, &refusal.to_string()),
        }
    }
}

/// Returns whether the client wants to read the answer itself.
fn wants_text(fields: &HeaderMap) -> bool {
    let accept = fields.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|range| range.trim().starts_with("text/plain"))
}

/// Reads a request's body to its end, also where nobody wants it, so that the connection can be kept.
async fn collect<B>(body: B) -> Result<Bytes, StatusCode>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send,
{
    let read = async {
        let collected = Limited::new(body, MAX_BODY).collect().await;
        collected.map(Collected::to_bytes).map_err(|_too_large_or_broken| StatusCode::PAYLOAD_TOO_LARGE)
    };
    timeout(BODY_TIMEOUT, read).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}

/// Returns whether a person asks, with a browser.
fn wants_page(head: &request::Parts) -> bool {
    let accept = head.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::UNIX_EPOCH;

    use http_body_util::{Empty, Full};

    use super::*;
    use crate::admin::purging::{PurgeReport, PurgeSubject};
    use crate::config::load;
    use crate::handling::{Refusal, RefusalReason};
    use crate::metrics::LabelValues;
    use crate::proxy::explaining::explanation::Explanation;
    use crate::testing::unasked;

    struct Bench {
        admin: Admin,
        readiness: Readiness,
        purges: Arc<AtomicU64>,
    }

    fn bench(token: &str) -> Bench {
        let readiness = Readiness::starting();
        let purges = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&purges);
        let purge = Purge::new(move |order| {
            counted.fetch_add(1, Ordering::Relaxed);
            let PurgeSubject::Selected(selector) = order.subject else { panic!("no token is sent here") };
            async move { Ok(PurgeReport { purged: selector, depth: order.depth, responses: 42 }) }
        });
        let metrics = Arc::new(Metrics::new(UNIX_EPOCH, &LabelValues::default()));
        let explain = Explain::new(async |question| {
            let refusal = Refusal::new(RefusalReason::UnknownPath, "Nothing is served here.");
            Explanation::at_the_door(
                question.head.method.to_string(),
                question.head.uri.to_string(),
                &refusal,
            )
        });
        let dashboard = Arc::new(Dashboard::new(unasked(), readiness.clone()));
        let log = LogControl::new(&load::defaults().log);
        let ledger = Arc::new(|| "{}".to_owned());
        let operations = Operations { purge, explain, ledger, dashboard, log };
        let admin = Admin::new(Secret::new(token.to_owned()), readiness.clone(), metrics, operations);
        Bench { admin, readiness, purges }
    }

    fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<Empty<Bytes>> {
        let mut builder = Request::builder().method(method).uri(path).header("host", "127.0.0.1:9001");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(Empty::new()).unwrap()
    }

    async fn ask(bench: &Bench, request: Request<Empty<Bytes>>) -> (StatusCode, HeaderMap, String) {
        let (head, body) = bench.admin.answer(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(head.headers["cache-control"], "no-store");
        assert_eq!(head.headers["x-content-type-options"], "nosniff");
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn check(bench: &Bench, request: Request<Empty<Bytes>>, expected: u16) -> (HeaderMap, String) {
        let asked = format!("{request:?}");
        let (status, fields, body) = ask(bench, request).await;
        assert_eq!(status.as_u16(), expected, "{asked} {body}");
        if status.is_client_error() {
            assert_eq!(fields["content-type"], "application/json");
            let detail: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert!(detail["detail"].is_string());
        }
        (fields, body)
    }

    #[tokio::test]
    async fn readiness_follows_the_latch_and_liveness_does_not() {
        let bench = bench("");
        check(&bench, request("GET", "/livez", &[]), 200).await;
        check(&bench, request("GET", "/readyz", &[]), 503).await;
        bench.readiness.ready();
        check(&bench, request("HEAD", "/readyz", &[]), 200).await;
        bench.readiness.draining();
        check(&bench, request("GET", "/readyz", &[]), 503).await;
        check(&bench, request("GET", "/livez", &[]), 200).await;
    }

    #[tokio::test]
    async fn metrics_come_in_the_format_that_was_asked_for() {
        let bench = bench("");
        let (fields, body) = check(&bench, request("GET", "/metrics", &[]), 200).await;
        assert_eq!(fields["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        assert!(!body.contains("# EOF"));
        let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
        let (fields, body) = check(&bench, request("GET", "/metrics", &accept), 200).await;
        assert!(fields["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
        assert!(body.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn a_purge_happens_by_post_alone_and_reports_what_was_stored() {
        let bench = bench("");
        for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
            let (fields, _) = check(&bench, request(method, "/purge", &[]), 405).await;
            assert_eq!(fields["allow"], "POST");
        }
        assert_eq!(bench.purges.load(Ordering::Relaxed), 0);
        let (_, body) = check(&bench, request("POST", "/purge", &[]), 200).await;
        assert_eq!(body, r#"{"purged":"everything","mode":"soft","responses":42}"#);
        assert_eq!(bench.purges.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_purge_that_says_in_its_query_what_it_means_purges_nothing() {
        let bench = bench("");
        let (_, body) = check(&bench, request("POST", "/purge?organization=acme", &[]), 400).await;
        assert!(body.contains("goes into the body"), "{body}");
        assert_eq!(bench.purges.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_request_is_explained_by_post_alone_to_machines_or_to_people() {
        let bench = bench("");
        let (fields, _) = check(&bench, request("GET", "/explain", &[]), 405).await;
        assert_eq!(fields["allow"], "POST");
        check(&bench, request("POST", "/explain?path=/", &[]), 400).await;
        let (_, refusal) = check(&bench, request("POST", "/explain", &[]), 400).await;
        assert!(refusal.contains("expected a JSON object with path"), "{refusal}");
        let ask = async |accept: &'static str| {
            let question = Full::new(Bytes::from_static(br#"{"path":"/a/?b"}"#));
            let question = request("POST", "/explain", &[("accept", accept)]).map(|_| question);
            let (head, body) = bench.admin.answer(question).await.into_parts();
            assert_eq!(head.status, StatusCode::OK);
            let body = body.collect().await.unwrap().to_bytes();
            (head.headers["content-type"].clone(), String::from_utf8(body.to_vec()).unwrap())
        };
        let (content_type, text) = ask("text/plain").await;
        assert_eq!(content_type, TEXT);
        assert!(text.starts_with("GET /a/?b\n"), "{text}");
        let (content_type, text) = ask("*/*").await;
        assert_eq!(content_type, JSON);
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&told["target"], &told["now"]["reason"]), (&"/a/?b".into(), &"unknown-path".into()));
    }

    #[tokio::test]
    async fn a_browser_gets_the_page_at_the_root_and_curl_the_index() {
        let bench = bench("");
        let (fields, page) = check(&bench, request("GET", "/", &[("accept", "text/html,*/*")]), 200).await;
        assert!(fields.contains_key("content-security-policy") && page.starts_with("<!doctype html>"));
        let (fields, _) = check(&bench, request("GET", "/", &[("accept", "*/*")]), 200).await;
        assert_eq!(fields["content-type"], TEXT);
        for path in ["/dashboard", "/dashboard/panels", "/dashboard/style.css", "/dashboard/script.js"] {
            check(&bench, request("GET", path, &[]), 200).await;
        }
    }

    /// "Basic" with this password, of any name.
    fn basic(password: &str) -> String {
        use base64::Engine as _;
        format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("anybody:{password}")))
    }

    #[tokio::test]
    async fn a_browsers_password_is_the_token_under_any_name_and_changes_nothing_without_an_origin() {
        let bench = bench("a token nobody guesses");
        let good = basic("a token nobody guesses");
        check(&bench, request("GET", "/dashboard", &[("authorization", &good)]), 200).await;
        let bad = basic("another token, that is");
        let (fields, _) = check(&bench, request("GET", "/dashboard", &[("authorization", &bad)]), 401).await;
        let challenges: Vec<_> = fields.get_all("www-authenticate").iter().collect();
        assert_eq!(challenges, CHALLENGES.iter().collect::<Vec<_>>());
        check(&bench, request("POST", "/purge", &[("authorization", &good)]), 403).await;
        let own = [("authorization", good.as_str()), ("origin", "http://127.0.0.1:9001")];
        check(&bench, request("POST", "/purge", &own), 200).await;
        let foreign = [("authorization", good.as_str()), ("origin", "http://evil.example")];
        check(&bench, request("POST", "/purge", &foreign), 403).await;
        assert_eq!(bench.purges.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_tells_who_is_served_is_not_told_to_pages_elsewhere_nor_under_a_name_that_may_be_rebound() {
        let bench = bench("");
        for path in ["/dashboard", "/dashboard/panels", "/ledger"] {
            let rebound = Request::builder().uri(path).header("host", "evil.example:9001");
            check(&bench, rebound.body(Empty::new()).unwrap(), 403).await;
            check(&bench, request("GET", path, &[("sec-fetch-site", "cross-site")]), 403).await;
            check(&bench, request("GET", path, &[("sec-fetch-site", "same-origin")]), 200).await;
        }
        let followed = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        check(&bench, request("GET", "/dashboard", &followed), 200).await;
    }

    #[tokio::test]
    async fn a_page_elsewhere_cannot_have_anything_explained() {
        let bench = bench("");
        check(&bench, request("POST", "/explain", &[("origin", "https://evil.example")]), 403).await;
    }

    #[tokio::test]
    async fn a_refusal_that_leaves_a_body_unread_ends_the_connection() {
        let bench = bench("");
        let with_body = |path: &str| {
            let request = Request::post(path).header("host", "127.0.0.1:9001");
            request.body(Full::new(Bytes::from_static(b"{}"))).unwrap()
        };
        let answer = bench.admin.answer(with_body("/nowhere")).await;
        assert_eq!(
            (answer.status(), &answer.headers()["connection"]),
            (StatusCode::NOT_FOUND, &"close".parse().unwrap())
        );
        assert!(!bench.admin.answer(with_body("/purge")).await.headers().contains_key("connection"));
    }

    #[tokio::test]
    async fn unknown_paths_and_methods_are_refused_and_the_index_names_the_known_ones() {
        let bench = bench("");
        check(&bench, request("GET", "/purge/", &[]), 404).await;
        check(&bench, request("GET", "/env", &[]), 404).await;
        let (fields, _) = check(&bench, request("POST", "/metrics", &[]), 405).await;
        assert_eq!(fields["allow"], "GET, HEAD");
        let (_, index) = check(&bench, request("GET", "/", &[]), 200).await;
        assert!(
            ["/livez", "/readyz", "/metrics", "/ledger", "/purge", "/explain"]
                .iter()
                .all(|path| index.contains(path))
        );
    }

    #[tokio::test]
    async fn with_a_token_everything_but_health_needs_it() {
        let bench = bench("a token nobody guesses");
        let good = [("authorization", "bearer a token nobody guesses")];
        for (method, path) in
            [("GET", "/"), ("GET", "/metrics"), ("GET", "/ledger"), ("GET", "/log"), ("POST", "/purge")]
        {
            for bad in ["Bearer a token nobody guesse", "Bearer ", "Basic a token nobody guesses", "Bearer"] {
                check(&bench, request(method, path, &[("authorization", bad)]), 401).await;
            }
            let (fields, _) = check(&bench, request(method, path, &[]), 401).await;
            assert!(fields.contains_key("www-authenticate"));
            check(&bench, request(method, path, &good), 200).await;
        }
        check(&bench, request("POST", "/explain", &[]), 401).await;
        check(&bench, request("GET", "/unknown", &[]), 401).await;
        check(&bench, request("GET", "/unknown", &good), 404).await;
        check(&bench, request("GET", "/livez", &[]), 200).await;
        check(&bench, request("GET", "/readyz", &[]), 503).await;
    }

    #[tokio::test]
    async fn a_page_elsewhere_cannot_purge() {
        let bench = bench("");
        for fields in [
            [("origin", "https://evil.example")],
            [("origin", "null")],
            [("origin", "http://127.0.0.1:9000")],
            [("sec-fetch-site", "cross-site")],
            [("sec-fetch-site", "same-site")],
        ] {
            check(&bench, request("POST", "/purge", &fields), 403).await;
        }
        assert_eq!(bench.purges.load(Ordering::Relaxed), 0);
        let own = [("origin", "http://127.0.0.1:9001"), ("sec-fetch-site", "same-origin")];
        check(&bench, request("POST", "/purge", &own), 200).await;
    }

    #[tokio::test]
    async fn a_name_that_may_be_rebound_cannot_purge_without_a_token() {
        let purge = |host: &str| {
            let mut purge = request("POST", "/purge", &[("authorization", "Bearer secret-of-admin")]);
            purge.headers_mut().insert("host", HeaderValue::from_str(host).unwrap());
            purge
        };
        let open = bench("");
        for host in ["localhost", "localhost:9001", "[::1]:9001", "10.0.0.7:9001"] {
            check(&open, purge(host), 200).await;
        }
        for host in ["evil.example:9001", "localhost.evil.example", "", "user@127.0.0.1", "127.0.0.1.nip.io"]
        {
            check(&open, purge(host), 403).await;
        }
        check(&bench("secret-of-admin"), purge("sentrybox.internal:9001"), 200).await;
    }

    #[tokio::test]
    async fn a_large_body_is_refused() {
        let bench = bench("");
        let (head, ()) = request("POST", "/purge", &[]).map(|_| ()).into_parts();
        let body = Full::new(Bytes::from(vec![b'x'; MAX_BODY + 1]));
        let response = bench.admin.answer(Request::from_parts(head, body)).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(bench.purges.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nothing_prints_the_token() {
        assert!(!format!("{:?}", bench("canary").admin).contains("canary"));
    }
}

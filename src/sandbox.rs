//! A small Sentry look-alike on loopback, for `sentrybox demo` and the end-to-end tests.
//!
//! It answers as a real server does ([`world`] says what there is, [`people`] who may see it): fields and their
//! order, cursors, `Link`, errors, limits of 40 requests per second and 25 at once, a little latency. URLs in its
//! answers start with a configured prefix, `https://sentry.io` by default, never with the request's `Host`.
//! [`faults`] makes it fail on purpose, [`journal`] tells what it was asked, [`silos`] makes it a region, or what regions
//! share.
//!
//! Invariants: it listens on loopback only; it keeps, logs and prints no token; dropping it stops it.
//! Not here: anything of the proxy's.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::clock::Clock;
use crate::sandbox::answer::{Answer, AnswerBody, Ending, Surroundings};
use crate::sandbox::failure::broken;
use crate::sandbox::faults::{Fault, Faults};
use crate::sandbox::journal::{Journal, ReceivedRequest};
use crate::sandbox::limits::{Allowance, Limits, Payer, Permit, Quota, Verdict};
use crate::sandbox::router::{Call, allowed_origin};
use crate::sandbox::shapes::Site;
use crate::sandbox::silos::{Part, RegionUrls, Silo};
use crate::sandbox::world::World;

pub mod answer;
pub mod demo;
pub mod events;
pub mod failure;
pub mod faults;
pub mod inventory;
pub mod journal;
pub mod json;
pub mod limits;
pub mod occurrences;
pub mod pages;
pub mod people;
pub mod query;
pub mod reads;
pub mod route;
pub mod router;
pub mod shapes;
pub mod silos;
pub mod world;
pub mod writes;

/// Largest request body.
const MAX_BODY: usize = 1024 * 1024;
/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// How the sandbox is set up.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Port on 127.0.0.1; 0 lets the system choose.
    pub port: u16,
    /// What stands before `/api/0/` in `Link`, and `links.organizationUrl`: Sentry's `system.url-prefix`.
    pub url_prefix: BaseUrl,
    /// `links.regionUrl`, and the region of `/users/me/regions/`.
    pub region_url: BaseUrl,
    /// Which part of a deployment it is.
    pub silo: Silo,
    /// How much a caller may ask.
    pub allowance: Allowance,
    /// Shortest time that an answer takes.
    pub min_latency: Duration,
    /// Longest time that an answer takes; where it lies in between depends on the path alone.
    pub max_latency: Duration,
    /// A field, which no Sentry has, that says when an answer was made: milliseconds since the Unix epoch.
    pub stamp: Option<HeaderName>,
}

/// A base that URLs in answers start with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseUrl {
    /// This one.
    Given(String),
    /// The sandbox's own, `http://127.0.0.1:PORT`.
    OwnOrigin,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            port: 0,
            url_prefix: BaseUrl::Given("https://sentry.io".to_owned()),
            region_url: BaseUrl::Given("https://us.sentry.io".to_owned()),
            silo: Silo::Whole,
            allowance: Allowance { per_second: 40, at_once: 25 },
            min_latency: Duration::from_millis(20),
            max_latency: Duration::from_millis(60),
            stamp: None,
        }
    }
}

impl SandboxOptions {
    /// Returns options for tests: no limits, no latency.
    pub fn unhindered() -> Self {
        Self {
            allowance: Allowance { per_second: 0, at_once: 0 },
            min_latency: Duration::ZERO,
            max_latency: Duration::ZERO,
            ..Self::default()
        }
    }
}

/// A running sandbox.
#[derive(Debug)]
pub struct Sandbox {
    address: SocketAddr,
    premises: Arc<Premises>,
    listening: JoinHandle<()>,
}

/// What every connection shares.
#[derive(Debug)]
struct Premises {
    clock: Clock,
    part: Part,
    limits: Limits,
    faults: Faults,
    journal: Journal,
    latency: (Duration, Duration),
    stamp: Option<HeaderName>,
}

/// The connection is closed without an answer, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection was closed on purpose")]
pub struct ClosedOnPurpose;

impl Sandbox {
    /// Starts listening on loopback.
    pub async fn start(options: SandboxOptions) -> io::Result<Self> {
        Self::start_in(options, Arc::default()).await
    }

    /// Starts listening on loopback, as a part of a world that others are part of, too.
    pub async fn start_in(options: SandboxOptions, world: Arc<Mutex<World>>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let address = listener.local_addr()?;
        let premises = Arc::new(Premises::new(options, address, world));
        let listening = tokio::spawn(accept(listener, Arc::clone(&premises)));
        Ok(Self { address, premises, listening })
    }

    /// Returns where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its base URL, `http://127.0.0.1:PORT`.
    pub fn origin(&self) -> String {
        origin_of(self.address)
    }

    /// Tells it where the regions of its deployment are.
    pub fn tell_regions(&self, urls: RegionUrls) {
        self.premises.part.tell_regions(urls);
    }

    /// Returns the switch that makes it fail.
    pub fn faults(&self) -> &Faults {
        &self.premises.faults
    }

    /// Changes how much a caller may ask, while it runs.
    pub fn allow(&self, allowance: Allowance) {
        self.premises.limits.allow(allowance);
    }

    /// Returns how long an answer for this path takes.
    pub fn latency(&self, path: &str) -> Duration {
        self.premises.latency(path)
    }

    /// Returns the book of what it was asked.
    pub fn journal(&self) -> &Journal {
        &self.premises.journal
    }

    /// Returns how many requests came in, ever.
    pub fn requests_total(&self) -> u64 {
        self.journal().total()
    }

    /// Returns how many requests for exactly this target (path and query) came in.
    pub fn requests_to(&self, target: &str) -> u64 {
        self.journal().count(target)
    }

    /// Returns the latest request as it came in.
    pub fn latest_request(&self) -> Option<ReceivedRequest> {
        self.journal().latest().pop()
    }

    /// Stops listening, closes every connection, and returns when both is done.
    pub async fn shutdown(mut self) {
        self.listening.abort();
        // Ends with "cancelled", which is what was asked for.
        let _ = (&mut self.listening).await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn origin_of(address: SocketAddr) -> String {
    format!("http://{address}")
}

impl Premises {
    fn new(options: SandboxOptions, address: SocketAddr, world: Arc<Mutex<World>>) -> Self {
        let base = |url: BaseUrl| match url {
            BaseUrl::Given(url) => url,
            BaseUrl::OwnOrigin => origin_of(address),
        };
        let (url_prefix, region_url) = (base(options.url_prefix), base(options.region_url));
        Self {
            clock: Clock::start(),
            part: Part::new(options.silo, world, Site { url_prefix, region_url, regions: None }),
            limits: Limits::new(options.allowance),
            faults: Faults::default(),
            journal: Journal::default(),
            latency: (options.min_latency, options.max_latency),
            stamp: options.stamp,
        }
    }

    /// Returns how long an answer takes: the same for the same path.
    fn latency(&self, path: &str) -> Duration {
        let (shortest, longest) = self.latency;
        let spread = u64::try_from(longest.saturating_sub(shortest).as_micros()).unwrap_or(u64::MAX);
        shortest + Duration::from_micros(scatter(path) % spread.saturating_add(1))
    }
}

/// Returns a number that depends on a text alone (FNV-1a).
fn scatter(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

async fn accept(listener: TcpListener, premises: Arc<Premises>) {
    // Dropped with this task: connections end when the sandbox does.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn(serve(stream, peer.ip(), Arc::clone(&premises)));
                    }
                    // Out of file descriptors, most likely: some come back when connections end.
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, peer: IpAddr, premises: Arc<Premises>) {
    let service = service_fn(move |request| {
        let premises = Arc::clone(&premises);
        async move { respond(&premises, peer, request).await }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // A real server without an edge in front sends no Date.
    builder.http1().auto_date_header(false).title_case_headers(true);
    builder.http2().auto_date_header(false);
    // A client that goes away in the middle is no event in a sandbox.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(
    premises: &Premises,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, ClosedOnPurpose> {
    let (head, body) = request.into_parts();
    let mut in_flight = premises.journal.enter(&head);
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let fault = premises.faults.strike(&head.method, target);
    before(fault.as_ref()).await?;
    let call = Call::of(&head, visible(&head, body).await);
    let (quota, permit) = count(premises, peer, (&head, &call));
    let made = premises.clock.now();
    let answer = match (&fault, quota, &permit) {
        (_, Some(quota), None) => Answer::too_many_requests(quota),
        (Some(Fault::Answer(status)), _, _) => broken(*status, quota),
        _ => premises.part.answer(&call),
    };
    tokio::time::sleep(premises.latency(&call.path)).await;
    let origin = allowed_origin(&head.headers);
    let surroundings = Surroundings { origin, language: call.language, quota };
    let mut response = after(answer, fault, &surroundings).await;
    if let Some(name) = &premises.stamp {
        response.headers_mut().insert(name, milliseconds(made));
    }
    in_flight.answer(response.status());
    Ok(response)
}

/// Returns a moment in milliseconds since the Unix epoch.
fn milliseconds(moment: SystemTime) -> HeaderValue {
    let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    HeaderValue::from(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// Counts a request against its caller's limits: what the fields say, and the place where it got one.
fn count(
    premises: &Premises,
    peer: IpAddr,
    (head, call): (&Parts, &Call),
) -> (Option<Quota>, Option<Permit>) {
    let payer = match call.identity {
        Ok(identity) => Payer::User(identity.user.person().id),
        Err(_) => Payer::Address(first_forwarded(head).unwrap_or(peer)),
    };
    match premises.limits.enter(payer, &head.method, premises.clock.now()) {
        Verdict::Unlimited => (None, None),
        Verdict::Admitted(quota, permit) => (Some(quota), Some(permit)),
        Verdict::Refused(quota) => (Some(quota), None),
    }
}

/// Returns the first address of `X-Forwarded-For`, by which a real server counts.
fn first_forwarded(head: &Parts) -> Option<IpAddr> {
    let field = head.headers.get("x-forwarded-for")?.to_str().ok()?;
    field.split(',').next()?.trim().parse().ok()
}

/// Returns the body as far as Sentry sees it: without a stated length it is not read at all.
async fn visible(head: &Parts, body: Incoming) -> Bytes {
    let collected = Limited::new(body, MAX_BODY).collect().await;
    let bytes = collected.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if head.headers.contains_key(CONTENT_LENGTH) { bytes } else { Bytes::new() }
}

async fn before(fault: Option<&Fault>) -> Result<(), ClosedOnPurpose> {
    match fault {
        Some(Fault::Hang) => never().await,
        Some(Fault::Close) => return Err(ClosedOnPurpose),
        Some(Fault::Delay(delay)) => tokio::time::sleep(*delay).await,
        Some(
            Fault::Answer(_) | Fault::SlowAnswer(_) | Fault::Truncate | Fault::Stall | Fault::AddField(..),
        )
        | None => {}
    }
    Ok(())
}

async fn never() {
    std::future::pending::<Infallible>().await;
}

async fn after(answer: Answer, fault: Option<Fault>, surroundings: &Surroundings) -> Response<AnswerBody> {
    match fault {
        Some(Fault::Truncate) => answer.dress(surroundings, Ending::Broken),
        Some(Fault::Stall) => answer.dress(surroundings, Ending::Stalled),
        Some(Fault::SlowAnswer(delay)) => {
            tokio::time::sleep(delay).await;
            answer.dress(surroundings, Ending::Whole)
        }
        Some(Fault::AddField(name, value)) => {
            let mut response = answer.dress(surroundings, Ending::Whole);
            response.headers_mut().append(name, value);
            response
        }
        Some(Fault::Answer(_) | Fault::Delay(_) | Fault::Hang | Fault::Close) | None => {
            answer.dress(surroundings, Ending::Whole)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use http::{Method, StatusCode, Version};
    use http_body_util::Full;
    use hyper_util::client::legacy::Client;
    use hyper_util::client::legacy::connect::HttpConnector;

    use super::*;
    use crate::sandbox::faults::FaultRule;
    use crate::sandbox::people::{
        EXPIRED_TOKEN, NOBODY_TOKEN, OTHER_TOKEN, OWNER_READ_ONLY_TOKEN, OWNER_TOKEN, PROJECT_ONLY_TOKEN,
    };

    type TestClient = Client<HttpConnector, Full<Bytes>>;

    const DETAIL: &str = "/api/0/organizations/org-002/";

    struct Guest {
        sandbox: Sandbox,
        client: TestClient,
    }

    impl Guest {
        async fn at(options: SandboxOptions) -> Self {
            let client = Client::builder(TokioExecutor::new()).build_http();
            Self { sandbox: Sandbox::start(options).await.unwrap(), client }
        }

        fn request(&self, method: &Method, target: &str, token: &str) -> http::request::Builder {
            let request = Request::builder().method(method).uri(format!("{}{target}", self.sandbox.origin()));
            if token.is_empty() {
                request
            } else {
                request.header("authorization", format!("Bearer {token}"))
            }
        }

        async fn ask(
            &self,
            method: Method,
            target: &str,
            body: &'static str,
        ) -> Result<(u16, String), String> {
            let request =
                self.request(&method, target, OWNER_TOKEN).header("content-type", "application/json");
            let request = request.body(Full::from(body)).unwrap();
            let response = self.client.request(request).await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
            Ok((status, String::from_utf8(body.to_bytes().to_vec()).unwrap()))
        }
    }

    #[tokio::test]
    async fn it_speaks_both_versions_of_http() {
        let guest = Guest::at(SandboxOptions::unhindered()).await;
        assert_eq!(guest.ask(Method::GET, DETAIL, "").await.unwrap().0, 200);
        let client: TestClient = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let request = guest.request(&Method::GET, DETAIL, OWNER_TOKEN).body(Full::default()).unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
        let latest = guest.sandbox.latest_request().unwrap();
        assert_eq!((latest.version, latest.target.as_str()), (Version::HTTP_2, DETAIL));
        assert_eq!((guest.sandbox.requests_total(), guest.sandbox.requests_to(DETAIL)), (2, 2));
    }

    #[tokio::test]
    async fn the_fields_around_an_answer_are_complete_and_undated() {
        let guest = Guest::at(SandboxOptions {
            max_latency: Duration::ZERO,
            min_latency: Duration::ZERO,
            ..SandboxOptions::default()
        })
        .await;
        let request = guest.request(&Method::GET, DETAIL, OTHER_TOKEN).body(Full::default()).unwrap();
        let response = guest.client.request(request).await.unwrap();
        let fields = response.headers();
        assert_eq!(fields["x-sentry-rate-limit-remaining"], "39");
        assert_eq!(fields["x-sentry-rate-limit-concurrentremaining"], "24");
        assert_eq!(fields["vary"], "Accept-Language, Cookie");
        assert!(!fields.contains_key("date") && !fields.contains_key("cache-control"));
    }

    #[tokio::test]
    async fn more_than_the_window_allows_is_refused_for_all_tokens_of_a_user() {
        let allowance = Allowance { per_second: 1, at_once: 25 };
        let guest = Guest::at(SandboxOptions { allowance, ..SandboxOptions::unhindered() }).await;
        // Thirty requests in a row do not touch thirty windows.
        let mut refused = 0;
        for number in 0..30 {
            let token = if number % 2 == 0 { OWNER_TOKEN } else { OWNER_READ_ONLY_TOKEN };
            let request = guest.request(&Method::GET, "/api/0/organizations/none/", token);
            let response = guest.client.request(request.body(Full::default()).unwrap()).await.unwrap();
            refused += u32::from(response.status() == StatusCode::TOO_MANY_REQUESTS);
        }
        assert!(refused > 0, "{refused}");
        assert_eq!(guest.sandbox.journal().answered(StatusCode::TOO_MANY_REQUESTS), u64::from(refused));
    }

    #[tokio::test]
    async fn limits_change_while_it_runs() {
        let guest = Guest::at(SandboxOptions::unhindered()).await;
        assert_eq!(guest.ask(Method::GET, DETAIL, "").await.unwrap().0, 200);
        guest.sandbox.allow(Allowance { per_second: 1, at_once: 0 });
        assert_eq!(guest.ask(Method::GET, DETAIL, "").await.unwrap().0, 429);
        guest.sandbox.allow(Allowance { per_second: 0, at_once: 0 });
        assert_eq!(guest.ask(Method::GET, DETAIL, "").await.unwrap().0, 200);
    }

    #[tokio::test]
    async fn an_answer_says_when_it_was_made_where_that_is_wanted() {
        let stamp = HeaderName::from_static("x-made");
        let guest =
            Guest::at(SandboxOptions { stamp: Some(stamp.clone()), ..SandboxOptions::unhindered() }).await;
        let request = guest.request(&Method::GET, DETAIL, OWNER_TOKEN).body(Full::default()).unwrap();
        let response = guest.client.request(request).await.unwrap();
        let made: u64 = response.headers()[stamp].to_str().unwrap().parse().unwrap();
        assert!(made > 1_700_000_000_000, "{made}");
    }

    #[tokio::test]
    async fn a_body_of_unstated_length_is_not_seen() {
        let guest = Guest::at(SandboxOptions::unhindered()).await;
        let client: Client<HttpConnector, http_body_util::combinators::BoxBody<Bytes, hyper::Error>> =
            Client::builder(TokioExecutor::new()).build_http();
        let (mut sender, body) = http_body_util::channel::Channel::<Bytes, hyper::Error>::new(1);
        let request =
            guest.request(&Method::PUT, DETAIL, OWNER_TOKEN).header("content-type", "application/json");
        let request = request.body(body.boxed()).unwrap();
        let sending = async move {
            sender.send_data(Bytes::from_static(b"{\"name\":\"Chunked\"}")).await.unwrap();
        };
        let (response, ()) = tokio::join!(client.request(request), sending);
        assert_eq!(response.unwrap().status().as_u16(), 200);
        assert!(!guest.ask(Method::GET, DETAIL, "").await.unwrap().1.contains("Chunked"));
        let named = guest.ask(Method::PUT, DETAIL, "{\"name\":\"Stated\"}").await.unwrap();
        assert!(named.1.contains("Stated"));
    }

    #[tokio::test]
    async fn faults_strike_as_they_are_told() {
        let guest = Guest::at(SandboxOptions::unhindered()).await;
        let faults = guest.sandbox.faults().clone();
        let get = || guest.ask(Method::GET, DETAIL, "");
        faults.add(FaultRule::once(DETAIL, Fault::Answer(StatusCode::INTERNAL_SERVER_ERROR)));
        assert_eq!(get().await.unwrap(), (500, r#"{"detail":"Internal Error","errorId":null}"#.to_owned()));
        faults.add(FaultRule::once(DETAIL, Fault::Answer(StatusCode::TOO_MANY_REQUESTS)));
        assert_eq!(get().await.unwrap().0, 429);
        faults.add(FaultRule::once(DETAIL, Fault::Close));
        assert!(get().await.is_err());
        faults.add(FaultRule::once(DETAIL, Fault::Truncate));
        assert!(get().await.is_err());
        for fault in [Fault::Hang, Fault::Stall] {
            faults.add(FaultRule::once(DETAIL, fault));
            assert!(tokio::time::timeout(Duration::from_millis(50), get()).await.is_err());
        }
        assert_eq!(get().await.unwrap().0, 200);
    }

    #[tokio::test]
    async fn a_slow_answer_shows_the_world_before_the_write_that_overtook_it() {
        let guest = Guest::at(SandboxOptions::unhindered()).await;
        let slow = Fault::SlowAnswer(Duration::from_millis(200));
        guest.sandbox.faults().add(FaultRule::once(DETAIL, slow).on(Method::GET));
        let write = async {
            while guest.sandbox.requests_to(DETAIL) == 0 {
                tokio::task::yield_now().await;
            }
            guest.ask(Method::PUT, DETAIL, "{\"name\":\"Overtaken\"}").await.unwrap()
        };
        let (read, write) = tokio::join!(guest.ask(Method::GET, DETAIL, ""), write);
        assert_eq!((read.unwrap().1.contains("Overtaken"), write.1.contains("Overtaken")), (false, true));
    }

    #[tokio::test]
    async fn links_start_with_the_own_origin_when_told_so() {
        let options = SandboxOptions {
            url_prefix: BaseUrl::OwnOrigin,
            region_url: BaseUrl::OwnOrigin,
            ..SandboxOptions::unhindered()
        };
        let guest = Guest::at(options).await;
        let (_, body) = guest.ask(Method::GET, DETAIL, "").await.unwrap();
        assert!(body.contains(&format!("\"regionUrl\":\"{}\"", guest.sandbox.origin())));
    }

    #[tokio::test]
    async fn after_shutdown_nobody_listens() {
        let guest = Guest::at(SandboxOptions::unhindered()).await;
        guest.ask(Method::GET, DETAIL, "").await.unwrap();
        let address = guest.sandbox.address();
        guest.sandbox.shutdown().await;
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[test]
    fn latency_depends_on_the_path_alone() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let premises = Premises::new(SandboxOptions::default(), address, Arc::default());
        let (shortest, longest) = premises.latency;
        for path in ["/", "/a", DETAIL] {
            assert_eq!(premises.latency(path), premises.latency(path));
            assert!((shortest..=longest).contains(&premises.latency(path)), "{path}");
        }
        assert_ne!(premises.latency("/a"), premises.latency("/b"));
    }

    /// Answers that differ from the recordings on purpose: today's Sentry finds organizations by number too, and
    /// the recorded server's event store was off.
    const DIFFERENT_ON_PURPOSE: [&str; 2] = ["09-detail-by-id", "15-releases"];

    fn token(name: &str) -> &'static str {
        match name {
            "owner" => OWNER_TOKEN,
            "other" => OTHER_TOKEN,
            "nobody" => NOBODY_TOKEN,
            "owner-read-only" => OWNER_READ_ONLY_TOKEN,
            "project-scope-only" => PROJECT_ONLY_TOKEN,
            "expired" => EXPIRED_TOKEN,
            _ => "unknown",
        }
    }

    /// Returns status, field names in order, and the body of a recorded or received answer.
    fn outline(text: &str) -> (String, Vec<String>, String) {
        let (head, body) = text.split_once("\r\n\r\n").or_else(|| text.split_once("\n\n")).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
        let mut names: Vec<_> =
            lines.map(|line| line.split(':').next().unwrap().to_ascii_lowercase()).collect();
        // hyper writes the length of an empty body behind everything else.
        names.sort_by_key(|name| name == "content-length");
        (status, names, body.to_owned())
    }

    /// Returns the names of a body's members, at every depth, without those that name a value.
    fn names_in(body: &str) -> Vec<String> {
        fn walk(value: &serde_json::Value, path: &str, names: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(members) => {
                    for (name, value) in members {
                        let path = format!("{path}.{name}");
                        names.push(path.clone());
                        walk(value, &path, names);
                    }
                }
                serde_json::Value::Array(values) => values.iter().for_each(|value| walk(value, path, names)),
                _ => {}
            }
        }
        let mut names = Vec::new();
        if let Ok(value) = serde_json::from_str(body) {
            walk(&value, "", &mut names);
        }
        names.sort();
        names.dedup();
        names
    }

    async fn replay(guest: &Guest, recorded: &str) -> String {
        let (head, body) = recorded.split_once("\n\n").unwrap_or((recorded, ""));
        let mut lines = head.lines();
        let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
        let mut request = guest.request(&Method::from_bytes(method.as_bytes()).unwrap(), target, "");
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap();
            let value = value
                .strip_prefix("Bearer ")
                .map_or(value.to_owned(), |name| format!("Bearer {}", token(name)));
            request = request.header(name, value);
        }
        let request = request.body(Full::from(body.trim().to_owned())).unwrap();
        let response = guest.client.request(request).await.unwrap();
        let mut text = format!("HTTP/1.1 {}\n", response.status());
        for (name, value) in response.headers() {
            writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        format!("{text}\n{}", String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn recordings_of_a_real_server_are_answered_alike() {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/recordings"));
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        let region_url = BaseUrl::Given("https://sentry.io".to_owned());
        let allowance = Allowance { per_second: 1_000, at_once: 25 };
        let guest = Guest::at(SandboxOptions { region_url, allowance, ..SandboxOptions::unhindered() }).await;
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "request"));
        paths.sort();
        assert!(!paths.is_empty());
        for path in paths {
            let name = path.file_stem().unwrap().to_str().unwrap();
            if DIFFERENT_ON_PURPOSE.contains(&name) {
                continue;
            }
            let answer = replay(&guest, &std::fs::read_to_string(&path).unwrap()).await;
            let expected = outline(&std::fs::read_to_string(path.with_extension("response")).unwrap());
            let found = outline(&answer);
            assert_eq!((&found.0, &found.1), (&expected.0, &expected.1), "{name}");
            assert_eq!(names_in(&found.2), names_in(&expected.2), "{name}");
            let (found_size, expected_size) = (found.2.len(), expected.2.len());
            assert!(
                found_size.abs_diff(expected_size) * 5 <= expected_size,
                "{name}: {found_size}, {expected_size}"
            );
        }
    }
}

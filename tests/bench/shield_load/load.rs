//! Plays a trace against a system on a real clock: every request at its time, whatever else is outstanding.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sentrybox::clock::{Clock, Stopwatch};
use sentrybox::sandbox::Sandbox;
use sentrybox::sandbox::faults::{Fault, FaultRule, Faults};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time;

use crate::parameters::{Parameters, STAMP, Token, tokens};
use crate::systems::System;
use crate::targets::{ORGANIZATIONS, PREFIX};
use crate::trace::{Event, Trace};

/// Longest that a client waits for an answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Idle connections that a client keeps, and for how long.
const IDLE: usize = 6;
const IDLE_FOR: Duration = Duration::from_secs(10);

/// Every answer, in the order of the trace.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) answers: Vec<Answer>,
}

/// What became of a request.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Answer {
    /// Its place in the trace.
    pub(crate) event: usize,
    /// Status; 0 where there was no answer, or no whole one.
    pub(crate) status: u16,
    /// Milliseconds since the start when it was sent.
    pub(crate) sent_ms: u64,
    /// Milliseconds from then to the last byte of the answer.
    pub(crate) wait_ms: u64,
    /// When upstream made the answer, by its own word, and how long ago that was.
    pub(crate) made_ms: Option<u64>,
    pub(crate) age_ms: Option<u64>,
    /// What the system says of its cache.
    pub(crate) cache: Option<String>,
}

impl Played {
    /// Writes a JSON object per answer.
    pub(crate) fn write(&self, path: &Path) {
        let mut text = String::new();
        for answer in &self.answers {
            writeln!(text, "{}", serde_json::to_string(answer).unwrap()).unwrap();
        }
        std::fs::write(path, text).unwrap();
    }
}

/// What every request needs.
#[derive(Clone)]
struct Desk {
    clock: Clock,
    start: Stopwatch,
    origin: String,
    cache_field: Option<HeaderName>,
}

type Sender = Client<HttpConnector, Full<Bytes>>;

/// Plays the trace to its end, and makes upstream fail meanwhile.
pub(crate) async fn play(
    trace: &Trace,
    parameters: &Parameters,
    (sandbox, system): (&Sandbox, &impl System),
) -> Played {
    let watch = Stopwatch::start();
    let ((), played) = tokio::join!(
        fail(sandbox.faults(), parameters.failure_ms, watch),
        send_all(trace, (parameters, system), watch)
    );
    played
}

/// Makes upstream fail for a while: it closes the connections of requests to one organization, and answers the others
/// with 503.
async fn fail(faults: &Faults, (begin, end): (u64, u64), watch: Stopwatch) {
    wait_until(begin, watch).await;
    let [_, closing, _] = ORGANIZATIONS;
    faults.add(FaultRule::always(&format!("{PREFIX}{closing}/"), Fault::Close));
    faults.add(FaultRule::always("/", Fault::Answer(StatusCode::SERVICE_UNAVAILABLE)));
    wait_until(end, watch).await;
    faults.clear();
}

async fn send_all(
    trace: &Trace,
    (parameters, system): (&Parameters, &impl System),
    watch: Stopwatch,
) -> Played {
    let (origin, cache_field) = (system.origin().to_owned(), system.cache_field());
    let desk = Desk { clock: Clock::start(), start: watch, origin, cache_field };
    let tokens = tokens();
    let senders: Vec<Sender> = (0..parameters.clients()).map(|_| sender()).collect();
    let mut sent = JoinSet::new();
    for (number, event) in trace.events.iter().enumerate() {
        wait_until(event.at_ms, watch).await;
        let request = request(event, &desk.origin, tokens.get(event.token).unwrap());
        let sender = senders.get(event.client).unwrap().clone();
        let desk = desk.clone();
        sent.spawn(async move { desk.ask(&sender, request, number).await });
    }
    let mut answers = sent.join_all().await;
    answers.sort_by_key(|answer| answer.event);
    Played { answers }
}

/// Returns a client with connections of its own.
fn sender() -> Sender {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE)
        .pool_idle_timeout(IDLE_FOR)
        .build(connector)
}

async fn wait_until(at_ms: u64, watch: Stopwatch) {
    let left = Duration::from_millis(at_ms).saturating_sub(watch.read());
    if !left.is_zero() {
        time::sleep(left).await;
    }
}

fn request(event: &Event, origin: &str, token: &Token) -> Request<Full<Bytes>> {
    let request = Request::builder()
        .method(event.method)
        .uri(format!("{origin}{}", event.target))
        .header(AUTHORIZATION, format!("Bearer {}", token.text));
    let request =
        if event.body.is_empty() { request } else { request.header(CONTENT_TYPE, "application/json") };
    request.body(Full::from(event.body.clone())).unwrap()
}

impl Desk {
    async fn ask(&self, sender: &Sender, request: Request<Full<Bytes>>, event: usize) -> Answer {
        let sent_ms = milliseconds(self.start.read());
        let watch = Stopwatch::start();
        let answered = time::timeout(PATIENCE, whole(sender, request)).await.ok().flatten();
        let wait_ms = milliseconds(watch.read());
        let Some((status, fields)) = answered else {
            return Answer { event, status: 0, sent_ms, wait_ms, made_ms: None, age_ms: None, cache: None };
        };
        let made_ms = text(&fields, &STAMP).and_then(|stamp| stamp.parse().ok());
        let now = milliseconds(self.clock.now().duration_since(UNIX_EPOCH).unwrap());
        let age_ms = made_ms.map(|made| now.saturating_sub(made));
        let cache = self.cache_field.as_ref().and_then(|name| text(&fields, name)).map(str::to_owned);
        Answer { event, status: status.as_u16(), sent_ms, wait_ms, made_ms, age_ms, cache }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

/// Sends a request and reads the answer to its end.
async fn whole(sender: &Sender, request: Request<Full<Bytes>>) -> Option<(StatusCode, HeaderMap)> {
    let response = sender.request(request).await.ok()?;
    let (head, body) = response.into_parts();
    body.collect().await.ok()?;
    Some((head.status, head.headers))
}

fn text<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    fields.get(name)?.to_str().ok()
}

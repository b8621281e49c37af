//! Upstream in memory: a script for each path, and a log of what arrived.
//!
//! An [`Act`] is what upstream does with one request: answer, fail, hang or panic, now or after a while. A path first
//! plays its single acts in order, then for ever what [`ScriptedUpstream::plays`] was given last; where nothing is
//! scripted, the improvisation answers. No sockets and no clock but tokio's, so that paused time moves it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use sentrybox::upstream::error::{TimeoutPhase, UpstreamError};
use sentrybox::upstream::{Attempts, IncomingBody, OnInterim, OutgoingBody, Sending, Upstream};
use tokio::time::{Sleep, sleep};

use crate::support::http::Fields;

/// What upstream got.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    /// Returns the value of a field; empty when there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns path and query as they were sent.
    pub(crate) fn target(&self) -> &str {
        self.uri.path_and_query().unwrap().as_str()
    }
}

/// What upstream does with one request.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    delay: Duration,
    attempts: u8,
    interim: Vec<(StatusCode, HeaderMap)>,
    ending: Ending,
}

#[derive(Debug, Clone)]
enum Ending {
    Answer { status: StatusCode, fields: HeaderMap, chunks: Vec<Chunk>, length: Length },
    Failure(UpstreamError),
    Echo,
    Hang,
    Panic,
}

/// A part of an answer's body.
#[derive(Debug, Clone)]
pub(crate) enum Chunk {
    Data(Bytes),
    Pause(Duration),
    Break,
    Panic,
}

/// Whether an answer says how long its body is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Length {
    Announced,
    Unknown,
}

impl Act {
    /// Answers 200 with JSON.
    pub(crate) fn json(text: impl Into<String>) -> Self {
        Self::bytes(text.into()).with("content-type", "application/json")
    }

    /// Answers with a status and JSON.
    pub(crate) fn status(status: u16, text: impl Into<String>) -> Self {
        Self::json(text).with_status(status)
    }

    /// Answers the same with another status.
    pub(crate) fn with_status(mut self, status: u16) -> Self {
        if let Ending::Answer { status: placeholder, .. } = &mut self.ending {
            *placeholder = StatusCode::from_u16(status).unwrap();
        }
        self
    }

    /// Returns whether it is an answer with a status of success.
    pub(crate) fn is_success(&self) -> bool {
        matches!(&self.ending, Ending::Answer { status, .. } if status.is_success())
    }

    /// Answers 200 with bytes of no type.
    pub(crate) fn bytes(body: impl Into<Bytes>) -> Self {
        Self::chunks(vec![Chunk::Data(body.into())])
    }

    /// Answers 200 with a body in parts.
    pub(crate) fn chunks(chunks: Vec<Chunk>) -> Self {
        let fields = HeaderMap::new();
        let ending = Ending::Answer { status: StatusCode::OK, fields, chunks, length: Length::Announced };
        Self { delay: Duration::ZERO, attempts: 1, interim: Vec::new(), ending }
    }

    /// Cannot be reached.
    pub(crate) fn unreachable() -> Self {
        Self::failing(UpstreamError::unreachable("connection refused"))
    }

    /// Runs into a limit of the exchange.
    pub(crate) fn timeout() -> Self {
        Self::failing(UpstreamError::Timeout { phase: TimeoutPhase::FirstByte })
    }

    /// Resets the connection before it answers.
    pub(crate) fn reset() -> Self {
        Self::failing(UpstreamError::broken("connection reset"))
    }

    fn failing(error: UpstreamError) -> Self {
        Self { delay: Duration::ZERO, attempts: 1, interim: Vec::new(), ending: Ending::Failure(error) }
    }

    /// Answers with the request's own body, as it comes.
    pub(crate) fn echo() -> Self {
        Self { delay: Duration::ZERO, attempts: 1, interim: Vec::new(), ending: Ending::Echo }
    }

    /// Never answers.
    pub(crate) fn hang() -> Self {
        Self { delay: Duration::ZERO, attempts: 1, interim: Vec::new(), ending: Ending::Hang }
    }

    /// Panics.
    pub(crate) fn panic() -> Self {
        Self { delay: Duration::ZERO, attempts: 1, interim: Vec::new(), ending: Ending::Panic }
    }

    /// Waits before all that.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Says that it was put on a wire so many times.
    pub(crate) fn on_attempt(mut self, attempts: u8) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sends an interim response before all else.
    pub(crate) fn hinting(mut self, status: u16, fields: Fields<'_>) -> Self {
        let fields =
            fields.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
        self.interim.push((StatusCode::from_u16(status).unwrap(), fields.collect()));
        self
    }

    /// Sends a field; several of one name are several lines.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ending::Answer { fields, .. } = &mut self.ending {
            fields.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        self
    }

    /// Does not say how long its body is.
    pub(crate) fn of_unknown_length(mut self) -> Self {
        if let Ending::Answer { length, .. } = &mut self.ending {
            *length = Length::Unknown;
        }
        self
    }

    /// Breaks off after what there is of the body.
    pub(crate) fn breaking_off(mut self) -> Self {
        if let Ending::Answer { chunks, .. } = &mut self.ending {
            chunks.push(Chunk::Break);
        }
        self
    }
}

type Improvisation = Arc<dyn Fn(&Received) -> Act + Send + Sync>;

/// Upstream in memory; clones are the same upstream.
#[derive(Clone)]
pub(crate) struct ScriptedUpstream(Arc<Stage>);

struct Stage {
    once: Mutex<HashMap<String, VecDeque<Act>>>,
    always: Mutex<HashMap<String, Act>>,
    improvisation: Mutex<Improvisation>,
    log: Mutex<Vec<Received>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl fmt::Debug for ScriptedUpstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ScriptedUpstream").finish_non_exhaustive()
    }
}

impl ScriptedUpstream {
    /// Makes an upstream that answers everything with an empty JSON object.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Stage {
            once: Mutex::default(),
            always: Mutex::default(),
            improvisation: Mutex::new(Arc::new(|_| Act::json("{}"))),
            log: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        }))
    }

    /// Plays `act` for every request to `path` for which no single act waits.
    pub(crate) fn plays(&self, path: &str, act: Act) {
        self.0.always.lock().unwrap().insert(path.to_owned(), act);
    }

    /// Plays `act` for one request to `path`, after those that wait already.
    pub(crate) fn plays_once(&self, path: &str, act: Act) {
        self.0.once.lock().unwrap().entry(path.to_owned()).or_default().push_back(act);
    }

    /// Answers whatever nothing is scripted for.
    pub(crate) fn improvises(&self, improvisation: impl Fn(&Received) -> Act + Send + Sync + 'static) {
        *self.0.improvisation.lock().unwrap() = Arc::new(improvisation);
    }

    /// Returns what arrived, in order.
    pub(crate) fn log(&self) -> Vec<Received> {
        self.0.log.lock().unwrap().clone()
    }

    /// Forgets what arrived.
    pub(crate) fn forget(&self) {
        self.0.log.lock().unwrap().clear();
        self.0.most_in_flight.store(0, Ordering::SeqCst);
    }

    /// Returns what arrived last.
    pub(crate) fn last(&self) -> Received {
        self.log().pop().unwrap()
    }

    /// Returns how many requests arrived.
    pub(crate) fn count(&self) -> usize {
        self.0.log.lock().unwrap().len()
    }

    /// Returns how many exchanges are under way, bodies included.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::SeqCst)
    }

    /// Returns how many exchanges were under way at most.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.0.most_in_flight.load(Ordering::SeqCst)
    }

    fn next_act(&self, received: &Received) -> Act {
        let path = received.uri.path();
        if let Some(act) = self.0.once.lock().unwrap().get_mut(path).and_then(VecDeque::pop_front) {
            return act;
        }
        if let Some(act) = self.0.always.lock().unwrap().get(path) {
            return act.clone();
        }
        let improvisation = Arc::clone(&*self.0.improvisation.lock().unwrap());
        improvisation(received)
    }

    async fn perform(&self, request: Request<OutgoingBody>) -> Result<Response<IncomingBody>, UpstreamError> {
        let presence = Presence::begin(&self.0);
        let (mut head, body) = request.into_parts();
        let on_interim: Option<OnInterim> = head.extensions.remove();
        let mut received =
            Received { method: head.method, uri: head.uri, fields: head.headers, body: Bytes::new() };
        let act = self.next_act(&received);
        if matches!(act.ending, Ending::Echo) {
            self.0.log.lock().unwrap().push(received);
            return Ok(Response::new(body.map_err(UpstreamError::request_body).boxed_unsync()));
        }
        received.body = body.collect().await.map_err(UpstreamError::request_body)?.to_bytes();
        let method = received.method.clone();
        self.0.log.lock().unwrap().push(received);
        for (status, fields) in act.interim {
            if let Some(OnInterim(tell)) = &on_interim {
                tell(status, fields);
            }
        }
        sleep(act.delay).await;
        match act.ending {
            Ending::Answer { status, fields, chunks, length } => {
                let chunks = if method == Method::HEAD { Vec::new() } else { chunks };
                let body = ScriptedBody::new(chunks, length, presence);
                let mut response = Response::new(body.boxed_unsync());
                *response.status_mut() = status;
                *response.headers_mut() = fields;
                response.extensions_mut().insert(Attempts(act.attempts));
                Ok(response)
            }
            Ending::Failure(error) => Err(error),
            Ending::Hang => std::future::pending().await,
            Ending::Panic => panic!("on purpose"),
            Ending::Echo => unreachable!("an echo does not wait for the whole body"),
        }
    }
}

impl Upstream for ScriptedUpstream {
    fn send(&self, request: Request<OutgoingBody>) -> Sending<'_> {
        Box::pin(self.perform(request))
    }
}

/// One exchange under way.
struct Presence(Arc<Stage>);

impl Presence {
    fn begin(stage: &Arc<Stage>) -> Self {
        let now = stage.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        stage.most_in_flight.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(stage))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The body of a scripted answer.
struct ScriptedBody {
    chunks: VecDeque<Chunk>,
    length: Length,
    pause: Option<Pin<Box<Sleep>>>,
    _presence: Presence,
}

impl ScriptedBody {
    fn new(chunks: Vec<Chunk>, length: Length, presence: Presence) -> Self {
        Self { chunks: chunks.into(), length, pause: None, _presence: presence }
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        loop {
            if let Some(pause) = self.pause.as_mut() {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match self.chunks.pop_front() {
                None => return Poll::Ready(None),
                Some(Chunk::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Chunk::Panic) => panic!("on purpose"),
                Some(Chunk::Pause(duration)) => self.pause = Some(Box::pin(sleep(duration))),
                Some(Chunk::Break) => {
                    self.chunks.clear();
                    return Poll::Ready(Some(Err(UpstreamError::broken("reset in the body"))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let length = |chunk: &Chunk| match chunk {
            Chunk::Data(data) => data.len() as u64,
            Chunk::Pause(_) => 0,
            Chunk::Break | Chunk::Panic => 100, // announced, and never sent
        };
        match self.length {
            Length::Announced => SizeHint::with_exact(self.chunks.iter().map(length).sum()),
            Length::Unknown => SizeHint::default(),
        }
    }
}

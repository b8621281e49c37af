//! A small Sentry: users with tokens, two organizations whose resources have versions, limits, moods, and a clock.
//!
//! What was sent goes on at its end although the proxy has given it up, as it would over a network. Every answer takes its
//! time on the way there, in its making and on the way back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use sentrybox::clock::Clock;
use sentrybox::upstream::error::{TimeoutPhase, UpstreamError, UpstreamFault};
use sentrybox::upstream::{IncomingBody, OutgoingBody, Sending, Upstream};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::book::{Book, Exchange, Knowledge, path_of};
use super::limits::{Counted, Limiter};
use super::nature::{Nature, ORGANIZATIONS, RESOURCES, TOKENS, USERS};
use crate::support::dice::Dice;

/// Longest that something hangs.
pub(crate) const LONGEST: Duration = Duration::from_secs(12);

/// The resource whose writes leave the other one alone.
const RELEASES: usize = 1;

const PATHS: usize = ORGANIZATIONS.len() * RESOURCES.len();

/// The fields of an answer.
type Fields = Vec<(&'static str, String)>;

/// What Sentry is like for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    Calm,
    /// Something fails in it.
    Failing,
    /// Its gateway says so.
    Unavailable,
    /// It cannot be connected to.
    Unreachable,
    /// It takes a request and breaks off.
    Breaking,
    /// It takes a request and says nothing.
    Hanging,
    /// It refuses for reasons that are not told.
    Refusing,
}

impl Mood {
    pub(crate) const TROUBLES: [Self; 6] =
        [Self::Failing, Self::Unavailable, Self::Unreachable, Self::Breaking, Self::Hanging, Self::Refusing];
}

/// The world: Sentry and the book about it.
#[derive(Debug)]
pub(crate) struct World(Mutex<State>);

/// Everything in it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) book: Book,
    dice: Dice,
    clock: Option<Clock>,
    limiter: Limiter,
    mood: (Mood, Duration),
    versions: [u64; PATHS],
    revoked: [bool; TOKENS.len()],
    /// The users of whom a credential was counted by its address.
    was_revoked: [bool; TOKENS.len()],
    exchanges: usize,
    arrivals: Vec<usize>,
}

/// What will become of a request.
#[derive(Debug, Clone, Copy)]
struct Fate {
    mood: Mood,
    there: Duration,
    making: Duration,
    back: Duration,
}

/// How a request ended.
#[derive(Debug)]
struct Outcome {
    status: StatusCode,
    fields: Fields,
    body: String,
    /// What it tells of: its number, and when it was made.
    content: Option<(usize, Duration)>,
    /// The paths that it has written.
    written: Vec<(usize, u64)>,
    /// What the proxy gets in its place.
    error: Option<UpstreamError>,
}

impl World {
    /// Makes a world of such a nature.
    pub(crate) fn new(nature: Nature, dice: Dice) -> Self {
        Self(Mutex::new(State {
            book: Book::new(nature),
            dice,
            clock: None,
            limiter: Limiter::default(),
            mood: (Mood::Calm, Duration::ZERO),
            versions: [0; PATHS],
            revoked: [false; TOKENS.len()],
            was_revoked: [false; TOKENS.len()],
            exchanges: 0,
            arrivals: Vec::new(),
        }))
    }

    /// Returns everything in it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Goes by the clock of a new proxy, as far as it goes by any but its own.
    pub(crate) fn follow(&mut self, clock: Clock) {
        if self.clock.replace(clock).is_some() {
            self.limiter.forget_windows();
            self.book.restart(self.versions);
        }
    }

    /// Is like this for a while.
    pub(crate) fn set_mood(&mut self, mood: Mood, lasts: Duration) {
        self.book.note(&format!("mood {mood:?} for {lasts:?}"));
        self.mood = (mood, self.book.at() + lasts);
    }

    /// Takes a credential back, or gives it again.
    pub(crate) fn toggle(&mut self, who: usize) {
        self.revoked[who] = !self.revoked[who];
        self.was_revoked[USERS[who]] |= self.book.nature.counts_strangers_by_address;
        self.book.note(&format!("revoked {who}: {}", self.revoked[who]));
    }

    /// Returns the time by Sentry's clock, since the Unix epoch.
    fn now(&self) -> Duration {
        let ours = self.clock.as_ref().unwrap().now().duration_since(UNIX_EPOCH).unwrap();
        let ahead = self.book.nature.ahead.unwrap_or_default();
        let shift = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { ours.saturating_sub(shift) } else { ours + shift }
    }

    fn take_off(&mut self, epoch: usize, request: &Request<OutgoingBody>) -> (Exchange, Fate) {
        let field = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let token = field("authorization").unwrap();
        let mut exchange = Exchange {
            number: self.exchanges,
            epoch,
            who: TOKENS.iter().position(|known| *known == token).unwrap(),
            method: request.method().clone(),
            target: request.uri().path_and_query().unwrap().as_str().to_owned(),
            client: field("x-client").unwrap().parse().unwrap(),
            is_lone: field("referer").is_some(),
            is_demanding: field("x-demanding").is_some(),
            sent: self.book.moment(),
            knowledge: Knowledge::Partial,
        };
        self.exchanges += 1;
        if exchange.method != Method::GET {
            if self.arrivals.contains(&exchange.client) {
                self.book.blame(&format!("the write of client {} is sent twice", exchange.client));
            }
            self.arrivals.push(exchange.client);
        }
        self.book.take_off(&mut exchange);
        let (mood, until) = self.mood;
        let is_moody = exchange.sent.at < until && self.dice.percent(70);
        let latency = self.book.nature.latency;
        let fate = Fate {
            mood: if is_moody { mood } else { Mood::Calm },
            there: self.dice.up_to(latency / 4),
            making: self.dice.up_to(latency / 2),
            back: self.dice.up_to(latency / 4),
        };
        (exchange, fate)
    }

    /// Returns how a request is counted; `None` where nothing is limited.
    fn counted(&self, exchange: &Exchange) -> Option<Counted> {
        let nature = &self.book.nature;
        let [reads, writes] = nature.limits?;
        let is_read = exchange.method == Method::GET;
        let own = nature.own_limit.filter(|_| is_read && exchange.target.contains("/teams/"));
        let limit = own.unwrap_or(if is_read { reads } else { writes });
        let is_stranger = self.revoked[exchange.who] && nature.counts_strangers_by_address;
        let user = (!is_stranger).then_some(USERS[exchange.who]);
        let bucket = (user, exchange.method.clone(), own.is_some());
        Some(Counted { bucket, limit, number: exchange.number, epoch: exchange.epoch })
    }

    /// Counts a request that arrives; an error is its refusal.
    fn admit(&mut self, exchange: &Exchange, counted: &Counted) -> Result<Fields, Fields> {
        let at = self.now();
        let ruling = self.limiter.count(counted, at);
        let clock = at.as_millis() % 100_000;
        self.book.note(&format!("#{} arrives at {clock} ms by Sentry's clock", exchange.number));
        if ruling.is_admitted {
            return Ok(ruling.fields);
        }
        // Whom Sentry does not know is counted by address, which the proxy cannot know, and is told of the address's limits.
        let is_confused = self.was_revoked[USERS[exchange.who]];
        if !is_confused && exchange.epoch == self.book.epoch {
            self.book.refuse(exchange, &ruling);
        }
        Err(ruling.fields)
    }

    /// Does what is asked.
    fn act(&mut self, exchange: &Exchange, request: &Received) -> Outcome {
        if self.revoked[exchange.who] {
            return Outcome {
                body: r#"{"detail":"Invalid token"}"#.to_owned(),
                ..Outcome::new(401, Vec::new())
            };
        }
        if exchange.method == Method::GET {
            return self.read(exchange, request);
        }
        let paths = written_by(&exchange.target);
        let written = paths.into_iter().map(|path| {
            self.versions[path] += 1;
            (path, self.versions[path])
        });
        let written = written.collect();
        Outcome { written, ..Outcome::new(200, Vec::new()) }
    }

    fn read(&mut self, exchange: &Exchange, request: &Received) -> Outcome {
        let (path, made) = (path_of(&exchange.target), self.book.at());
        let version = self.versions[path];
        if let Some(number) = request.known.filter(|number| self.book.is_true(*number, exchange, version)) {
            let tag = ("etag", format!("\"{number}\""));
            return Outcome { content: Some((number, made)), ..Outcome::new(304, vec![tag]) };
        }
        let number = self.book.give(exchange, version);
        let body = format!("[{number},{},{path},{version}]", exchange.who);
        let tag = ("etag", format!("\"{number}\""));
        Outcome { body, content: Some((number, made)), ..Outcome::new(200, vec![tag]) }
    }

    /// Lets the proxy hear how a request ended.
    fn hear(&mut self, exchange: &Exchange, outcome: &Outcome) {
        self.book.end(exchange.number);
        // Any answer but a refusal, and none at all, may have changed something.
        let may_have_written = match &outcome.error {
            None => !outcome.status.is_client_error(),
            Some(error) => error.fault() != UpstreamFault::Unreachable,
        };
        if exchange.method != Method::GET && may_have_written {
            for path in written_by(&exchange.target) {
                let version = outcome.written.iter().find(|(written, _)| *written == path);
                self.book.write(exchange.epoch, path, version.map_or(0, |(_, version)| *version));
            }
        }
        if let (Some((number, made)), None) = (outcome.content, &outcome.error) {
            self.book.tell(number, exchange, made);
        }
        self.book.hear(exchange, outcome.error.is_none().then_some(outcome.status));
    }
}

impl Outcome {
    fn new(status: u16, fields: Fields) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap(),
            fields,
            body: "{}".to_owned(),
            content: None,
            written: Vec::new(),
            error: None,
        }
    }

    fn error(error: UpstreamError) -> Self {
        Self { error: Some(error), ..Self::new(200, Vec::new()) }
    }

    fn into_result(self) -> Result<Response<IncomingBody>, UpstreamError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let body = if self.status == StatusCode::NOT_MODIFIED { String::new() } else { self.body };
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.fields {
            response = response.header(name, value);
        }
        let response = response.header("content-type", "application/json");
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        Ok(response.body(body).unwrap())
    }
}

/// What else matters of a request.
#[derive(Debug)]
struct Received {
    /// The answer that it asks about, by number.
    known: Option<usize>,
}

/// The end of Sentry's that one proxy speaks to.
#[derive(Debug, Clone)]
pub(crate) struct Sentry {
    pub(crate) world: Arc<World>,
    pub(crate) epoch: usize,
}

impl Upstream for Sentry {
    fn send(&self, request: Request<OutgoingBody>) -> Sending<'_> {
        Box::pin(exchange(Arc::clone(&self.world), self.epoch, request))
    }
}

/// Takes a request out of those under way, although it was given up.
struct Presence(Arc<World>, usize);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.state().book.give_up(self.1);
    }
}

async fn exchange(
    world: Arc<World>,
    epoch: usize,
    request: Request<OutgoingBody>,
) -> Result<Response<IncomingBody>, UpstreamError> {
    let (exchange, fate) = world.state().take_off(epoch, &request);
    let _presence = Presence(Arc::clone(&world), exchange.number);
    let known = request.headers().get("if-none-match").map(|value| value.to_str().unwrap());
    let question = Received { known: known.and_then(|tag| tag.trim_matches('"').parse().ok()) };
    let (sender, receiver) = oneshot::channel();
    let (there, asked) = (Arc::clone(&world), exchange.clone());
    // It goes on when nobody waits any more.
    tokio::spawn(async move { drop(sender.send(work(&there, &asked, (&question, fate)).await)) });
    let outcome = receiver.await.unwrap();
    world.state().hear(&exchange, &outcome);
    outcome.into_result()
}

/// What happens at Sentry's side.
async fn work(world: &World, exchange: &Exchange, (received, fate): (&Received, Fate)) -> Outcome {
    pass(fate.there).await;
    match fate.mood {
        Mood::Unreachable => return Outcome::error(UpstreamError::unreachable("connection refused")),
        Mood::Hanging => {
            let long = LONGEST / 12 * u32::try_from(1 + exchange.number % 12).unwrap();
            sleep(long).await;
            return Outcome::error(UpstreamError::Timeout { phase: TimeoutPhase::FirstByte });
        }
        Mood::Unavailable => {
            pass(fate.back).await;
            return Outcome::new(502 + u16::try_from(exchange.number % 3).unwrap(), Vec::new());
        }
        Mood::Calm | Mood::Failing | Mood::Breaking | Mood::Refusing => {}
    }
    let counted = world.state().counted(exchange);
    let admitted = counted.as_ref().map(|counted| world.state().admit(exchange, counted)).transpose();
    let mut outcome = match admitted {
        Err(fields) => Outcome::new(429, fields),
        Ok(fields) => {
            pass(fate.making / 2).await;
            let mut outcome = match fate.mood {
                Mood::Refusing => Outcome::new(429, Vec::new()),
                Mood::Failing => Outcome::new(500, Vec::new()),
                Mood::Calm | Mood::Breaking => world.state().act(exchange, received),
                Mood::Unavailable | Mood::Unreachable | Mood::Hanging => unreachable!("ended before"),
            };
            outcome.fields.extend(fields.unwrap_or_default());
            pass(fate.making / 2).await;
            outcome
        }
    };
    let date = {
        let mut state = world.state();
        if let Some(counted) = &counted {
            state.limiter.release(counted);
        }
        let has_date = state.book.nature.ahead.is_some();
        has_date.then(|| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + state.now()))
    };
    outcome.fields.extend(date.map(|date| ("date", date)));
    pass(fate.back).await;
    if fate.mood == Mood::Breaking {
        outcome.error = Some(UpstreamError::broken("connection reset"));
    }
    outcome
}

/// Lets time pass, if any is to pass.
async fn pass(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// Returns the paths that a write changes.
fn written_by(target: &str) -> Vec<usize> {
    let organization = ORGANIZATIONS.iter().position(|name| target.contains(&format!("/{name}/"))).unwrap();
    let all = organization * RESOURCES.len()..(organization + 1) * RESOURCES.len();
    match path_of(target) {
        // The organization itself shows releases, too.
        path if path == all.start + RELEASES => vec![all.start, path],
        _ => all.collect(),
    }
}

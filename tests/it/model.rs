//! Whatever happens in whatever order, the rules hold: random interleavings of clients, operators and an upstream that is
//! late, fails, refuses and revokes, each checked against a small reference model.
//!
//! [`sentry`] is the upstream, [`book`] and [`rules`] the reference, [`nature`] what one world is like. Invariants: nothing crosses
//! partitions; what is shared is under way once; upstream is asked within its limits and the operator's; nothing is reused
//! past its time, after a write, a purge or a rejection; every client is answered by its deadline, and nothing leaks.
//!
//! An interleaving follows from its seed, but for what the proxy itself leaves to chance: its pauses before it tries
//! again, and the fraction of a millisecond at which its clock started. What happened is told in full when a rule is broken.
//! `MODEL_SEED=n` plays one; `MODEL_COUNT=n` so many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use sentrybox::assembly::proxy_before;
use sentrybox::cache::generations::PurgeDepth;
use sentrybox::cache::invalidation::selector::Selector;
use sentrybox::proxy::Proxy;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use self::book::{Asked, Scope, path_of, path_to};

use self::nature::{Nature, ORGANIZATIONS, RESOURCES, TOKENS};
use self::sentry::{LONGEST, Mood, Sentry, World};
use crate::support::corridor::{asking, peer};
use crate::support::dice::Dice;
use crate::support::http::Answer;

mod book;
mod limits;
mod nature;
mod rules;
mod sentry;

/// How many interleavings are played.
const INTERLEAVINGS: u64 = 10_000;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Get,
    Crowd,
    Lone,
    Reload,
    Write,
    /// A read, a write of the same and another read, one soon after the other.
    Race,
    Cancel,
    Age,
    Purge,
    /// Something is said to be no longer so.
    SoftPurge,
    Trouble,
    Revoke,
    Restart,
}

const STEPS: [Step; 25] = {
    use Step::{
        Age, Cancel, Crowd, Get, Lone, Purge, Race, Reload, Restart, Revoke, SoftPurge, Trouble, Write,
    };
    [
        Get, Get, Get, Get, Get, Crowd, Crowd, Crowd, Lone, Reload, Write, Write, Race, Race, Cancel, Cancel,
        Age, Age, Purge, SoftPurge, Trouble, Trouble, Revoke, Revoke, Restart,
    ]
};

/// One interleaving.
struct Play {
    world: Arc<World>,
    proxy: Proxy,
    former: Vec<Proxy>,
    clients: JoinSet<()>,
    handles: Vec<AbortHandle>,
    dice: Dice,
}

impl Play {
    async fn begin(seed: u64) -> Self {
        let nature = Nature::roll(&mut Dice::new(seed, 0));
        let world = Arc::new(World::new(nature, Dice::new(seed, 1)));
        let proxy = open(&world, 0).await;
        Self {
            world,
            proxy,
            former: Vec::new(),
            clients: JoinSet::new(),
            handles: Vec::new(),
            dice: Dice::new(seed, 2),
        }
    }

    async fn step(&mut self) {
        match self.dice.pick(&STEPS) {
            Step::Get => self.get(&[]),
            Step::Crowd => (0..self.dice.among(2, 4)).for_each(|_| self.get(&[])),
            Step::Lone => self.get(&[("cache-control", "no-store"), ("referer", "/alone")]),
            Step::Reload => self.get(&[("cache-control", "max-age=0"), ("x-demanding", "yes")]),
            Step::Write => self.write(),
            Step::Race => self.race().await,
            Step::Cancel => self.cancel(),
            Step::Age => sleep(self.dice.seconds(1, 40)).await,
            Step::Purge => self.purge().await,
            Step::SoftPurge => self.purge_softly().await,
            Step::Trouble => {
                let (mood, lasts) = (self.dice.pick(&Mood::TROUBLES), self.dice.seconds(1, 20));
                self.world.state().set_mood(mood, lasts);
            }
            Step::Revoke => {
                let who = self.roll_credential();
                self.world.state().toggle(who);
            }
            Step::Restart => self.restart().await,
        }
        if self.dice.percent(60) {
            sleep(self.dice.up_to(Duration::from_secs(3))).await;
        }
    }

    /// Mostly the first one, so that something happens to it.
    fn roll_credential(&mut self) -> usize {
        self.dice.pick(&[0, 0, 0, 1, 2])
    }

    fn roll_target(&mut self) -> String {
        let organization = self.dice.pick(&[ORGANIZATIONS[0], ORGANIZATIONS[0], ORGANIZATIONS[1]]);
        let path = path_to(organization, self.dice.pick(&RESOURCES));
        if self.dice.percent(20) { format!("{path}?query=x") } else { path }
    }

    fn get(&mut self, fields: &[(&str, &str)]) {
        let (who, target) = (self.roll_credential(), self.roll_target());
        let deadline = if fields.is_empty() { self.deadline() } else { self.longest() };
        self.send((Method::GET, target), (who, fields), deadline);
    }

    fn write(&mut self) {
        let (who, name) = (self.roll_credential(), self.dice.pick(&ORGANIZATIONS));
        let target = match self.dice.below(4) {
            0 => path_to(name, ""),
            1 => path_to(name, "teams/"),
            2 => path_to(name, "releases/"),
            _ => format!("/api/0/projects/{name}/web/"),
        };
        self.send((Method::PUT, target), (who, &[]), self.longest());
    }

    async fn race(&mut self) {
        let (who, target) = (self.roll_credential(), self.roll_target());
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let latency = self.world.state().book.nature.latency;
        for request in [(Method::GET, target.clone()), (Method::PUT, path), (Method::GET, target)] {
            self.send(request, (who, &[]), self.longest());
            sleep(self.dice.up_to(latency)).await;
        }
    }

    /// Returns by when a passenger is answered.
    fn deadline(&self) -> Duration {
        self.world.state().book.nature.config.cache.flight_timeout
    }

    /// Returns by when anybody is answered: also who goes alone, after its turn, its place in the line and upstream have come.
    fn longest(&self) -> Duration {
        let state = self.world.state();
        let config = &state.book.nature.config;
        let attempts = config.budget.retries + 1;
        config.cache.flight_timeout
            + config.budget.max_wait * 2
            + (LONGEST + Duration::from_secs(1)) * attempts
    }

    fn send(
        &mut self,
        (method, target): (Method, String),
        (who, fields): (usize, &[(&str, &str)]),
        within: Duration,
    ) {
        let path = path_of(&target).min(ORGANIZATIONS.len() * RESOURCES.len() - 1);
        let asked = self.world.state().book.ask(who, target.clone(), path);
        let number = asked.number.to_string();
        let mut all = vec![("authorization", TOKENS[who]), ("x-client", &number)];
        all.extend_from_slice(fields);
        let body = if method == Method::GET { "" } else { "{}" };
        let is_read = method == Method::GET;
        let request = asking(method, &target, &all, body);
        let (world, proxy) = (Arc::clone(&self.world), self.proxy.clone());
        self.handles.push(self.clients.spawn(async move {
            let answer = timeout(within + Duration::from_millis(2), serve(&proxy, request)).await;
            let mut state = world.state();
            match answer {
                Ok(answer) if is_read => state.book.check(&asked, &answer),
                Ok(answer) => told(&mut state.book, &asked, &answer),
                Err(_) => state.book.blame(&format!("client {} waits for too long", asked.number)),
            }
        }));
    }

    fn cancel(&mut self) {
        self.handles.retain(|handle| !handle.is_finished());
        if !self.handles.is_empty() {
            let index = usize::try_from(self.dice.below(self.handles.len() as u64)).unwrap();
            self.world.state().book.note("somebody leaves");
            self.handles.swap_remove(index).abort();
        }
    }

    async fn purge(&mut self) {
        let moment = self.world.state().book.moment();
        self.proxy.purge_selected(&Selector::Everything, PurgeDepth::Hard).await.unwrap();
        let mut state = self.world.state();
        state.book.note("purge");
        state.book.break_off(moment, Scope::Everything);
    }

    async fn purge_softly(&mut self) {
        let moment = self.world.state().book.moment();
        let organization = self.dice.below(ORGANIZATIONS.len() as u64);
        let organization = usize::try_from(organization).unwrap();
        let selector = Selector::Organization(ORGANIZATIONS[organization].to_owned());
        self.proxy.purge_selected(&selector, PurgeDepth::Soft).await.unwrap();
        let mut state = self.world.state();
        state.book.note("soft purge");
        state.book.break_off(moment, Scope::PurgedSoftly(organization));
    }

    /// Ends the proxy, with its work done or with all its clients cut off, and begins with another one.
    async fn restart(&mut self) {
        if self.dice.percent(50) {
            self.proxy.drain(Duration::from_secs(30)).await;
        } else {
            self.clients.abort_all();
        }
        let epoch = self.world.state().book.epoch + 1;
        let next = open(&self.world, epoch).await;
        self.former.push(std::mem::replace(&mut self.proxy, next));
    }

    /// Waits until everybody is answered and everything has landed, and looks for what is left.
    async fn end(mut self) -> (Vec<String>, Vec<String>) {
        while let Some(end) = self.clients.join_next().await {
            if let Err(error) = end
                && error.is_panic()
            {
                self.world.state().book.blame(&format!("{error}"));
            }
        }
        // What nobody waits for any more: a turn, a place in the line, an exchange, each as often as it is tried again.
        sleep(Duration::from_mins(2)).await;
        let mut state = self.world.state();
        for proxy in self.former.iter().chain([&self.proxy]) {
            let left = (proxy.flights().len(), proxy.budget().taken(), proxy.budget().waiting());
            if left != (0, 0, 0) {
                state.book.blame(&format!("left over: {left:?}"));
            }
        }
        if state.book.under_way() != 0 {
            state.book.blame("something is still under way");
        }
        if !state.book.offences.is_empty() {
            let nature = state.book.nature.describe();
            state.book.note(&nature);
        }
        (std::mem::take(&mut state.book.offences), std::mem::take(&mut state.book.trace))
    }
}

/// Opens a proxy, on a full second of its clock.
async fn open(world: &Arc<World>, epoch: usize) -> Proxy {
    let config = world.state().book.nature.config.clone();
    let proxy = proxy_before(&config, Arc::new(Sentry { world: Arc::clone(world), epoch })).unwrap();
    let second = Duration::from_secs(1);
    let now = proxy.clock().now().duration_since(std::time::UNIX_EPOCH).unwrap();
    sleep(second.saturating_sub(Duration::from_nanos(now.subsec_nanos().into()))).await;
    world.state().follow(proxy.clock().clone());
    proxy
}

async fn serve(proxy: &Proxy, request: Request<Full<Bytes>>) -> Answer {
    let (head, body) = proxy.serve(request, peer()).await.into_parts();
    Answer { status: head.status, fields: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

fn told(book: &mut book::Book, asked: &Asked, answer: &Answer) {
    book.note(&format!("client {} is told {}", asked.number, answer.status));
}

/// Plays one interleaving; returns what was wrong, and all that happened.
fn play(seed: u64) -> (Vec<String>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let mut play = Play::begin(seed).await;
        for _ in 0..play.dice.among(8, 10) {
            play.step().await;
        }
        play.end().await
    })
}

/// Plays an interleaving, and fails with all that happened if something was wrong.
fn judge(seed: u64) {
    let (offences, trace) = play(seed);
    assert!(offences.is_empty(), "MODEL_SEED={seed}: {offences:#?}\n{}", trace.join("\n"));
}

#[test]
fn whatever_happens_in_whatever_order_the_rules_hold() {
    let setting = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = setting("MODEL_SEED") {
        return judge(seed);
    }
    let count = setting("MODEL_COUNT").unwrap_or(INTERLEAVINGS);
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if count <= seed {
                        return;
                    }
                    judge(seed);
                }
            });
        }
    });
}

//! The clients: a steady mix, bursts of equal requests, and watchers of what must always be a hit.

use std::sync::Arc;
use std::time::Duration;

use http::header;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::ask::Ask;
use crate::fault::Fault;
use crate::judge::Judge;
use crate::outcome::Outcome;
use crate::random::Random;
use crate::told::MARKS;
use crate::wire::{Answer, Door, Doors, Line, Protocol, Trouble};

/// Clients with a mix.
const CLIENTS: u64 = 40;

/// How long each pauses between two requests, at most, in milliseconds: about 240 requests in a second in all.
const PAUSE: u64 = 300;

/// Clients that watch one hit each.
const WATCHERS: u64 = 5;

/// How often each of them looks.
const LOOK: Duration = Duration::from_millis(100);

/// How often many ask for the same at once, and how many.
const BURST: Duration = Duration::from_secs(1);
const BURST_SIZE: usize = 12;

/// Longest that clients go on trying to connect.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a client asks anew, on another connection, what was not served.
const ANEW: u32 = 5;

/// Seed of the load.
const SEED: u64 = 0x50ac_0001;

/// Doors and protocols, as clients have them.
const WAYS: [(Door, Protocol); 5] = [
    (Door::Tcp, Protocol::One),
    (Door::Tcp, Protocol::Two),
    (Door::Tls, Protocol::One),
    (Door::Tls, Protocol::Two),
    (Door::Unix, Protocol::One),
];

/// Who asks what, where, and who judges.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) doors: Arc<Doors>,
    pub(crate) judge: Arc<Judge>,
}

/// A client: one way to the proxy, and at most one connection.
pub(crate) struct Client {
    load: Load,
    way: (Door, Protocol),
    line: Option<Line>,
}

impl Load {
    /// Starts everybody; whoever drops what is returned stops them.
    pub(crate) fn start(&self) -> JoinSet<()> {
        let mut everybody = JoinSet::new();
        for number in 0..CLIENTS {
            everybody.spawn(mixed(self.client(number), number));
        }
        for number in 0..WATCHERS {
            everybody.spawn(watch(self.client(number), number));
        }
        everybody.spawn(burst(self.clone()));
        everybody
    }

    /// Returns a client that takes the way with this number.
    pub(crate) fn client(&self, number: u64) -> Client {
        let way = Random::seeded(number).one_of(&WAYS);
        let way = *WAYS.get(usize::try_from(number).unwrap() % WAYS.len()).unwrap_or(&way);
        Client { load: self.clone(), way, line: None }
    }

    /// Has clients ask for what the control host serves, once.
    pub(crate) async fn ask_control(&self, number: u64) {
        self.client(number).visit(&Ask::control(number % MARKS)).await;
    }
}

impl Client {
    /// Leaves its connection.
    fn hang_up(&mut self) {
        self.line = None;
    }

    /// Asks, until there is an answer or the reason why there is none, and has it judged.
    async fn visit(&mut self, ask: &Ask) -> Option<Answer> {
        let begin = self.load.judge.now();
        let result = self.asked(ask).await;
        let judge = Arc::clone(&self.load.judge);
        match result {
            Ok(answer) => {
                judge.settle(ask.label, &Outcome::of(ask, &answer, judge.now()), begin);
                Some(answer)
            }
            Err(trouble) => {
                self.hang_up();
                judge.settle(ask.label, &Outcome::of_trouble(ask, trouble), begin);
                None
            }
        }
    }

    async fn asked(&mut self, ask: &Ask) -> Result<Answer, Trouble> {
        let mut anew = 0;
        loop {
            let mut line = match self.line.take() {
                Some(line) => line,
                None => self.connected(ask).await?,
            };
            match line.ask(ask).await {
                Ok(answer) => {
                    self.line = Some(line);
                    return Ok(answer);
                }
                Err(Trouble::NotSent(_)) if anew < ANEW => {
                    anew += 1;
                    self.load
                        .judge
                        .note("asked anew on another connection: not served, as hyper or HTTP/2 says");
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Connects, and tries again while nobody listens; each time counts.
    async fn connected(&self, ask: &Ask) -> Result<Line, Trouble> {
        let judge = &self.load.judge;
        let start = judge.now();
        loop {
            let begin = judge.now();
            match Line::open(&self.load.doors, self.way.0, self.way.1).await {
                Err(trouble @ Trouble::NotConnected(_)) if begin < start + PATIENCE => {
                    judge.settle("connect", &Outcome::of_trouble(ask, trouble), begin);
                    sleep(Duration::from_millis(100)).await;
                }
                other => return other,
            }
        }
    }
}

/// Asks from the mix, for ever.
async fn mixed(mut client: Client, number: u64) {
    let mut random = Random::seeded(SEED ^ (number << 32));
    loop {
        sleep(Duration::from_millis(random.below(PAUSE))).await;
        if random.below(10) == 0 {
            client.hang_up();
        }
        let ask = Ask::choose(&mut random);
        let Some(answer) = client.visit(&ask).await else {
            // Whoever may asks again.
            if ask.is_safe() {
                client.visit(&ask).await;
            }
            continue;
        };
        if ask.label == "page" {
            turn_pages(&mut client, &ask, answer).await;
        } else if ask.label == "conditional"
            && let Some(etag) = answer.head.headers.get(header::ETAG)
        {
            let etag = etag.to_str().ok().map(ToOwned::to_owned);
            client.visit(&Ask { etag, ..ask }).await;
        }
    }
}

/// Follows the links to further pages, which must lead to the proxy.
async fn turn_pages(client: &mut Client, first: &Ask, answer: Answer) {
    let mut answer = answer;
    for _ in 0..3 {
        let Some(next) = next_of(&answer) else { return };
        let Some(target) = next.split_once(crate::authority::NAME).map(|(_, target)| target.to_owned())
        else {
            client.load.judge.error(&format!("a link leads past the proxy: {next}"));
            return;
        };
        let ask = Ask { target, ..first.clone() };
        let Some(page) = client.visit(&ask).await else { return };
        answer = page;
    }
}

/// Returns where the next page is.
fn next_of(answer: &Answer) -> Option<String> {
    let links = answer.head.headers.get(header::LINK)?.to_str().ok()?;
    let next = links.split(", <").find(|link| link.contains(r#"rel="next"; results="true""#))?;
    Some(next.trim_start_matches('<').split_once('>')?.0.to_owned())
}

/// Looks at one hit, for ever, and notes how long it takes.
async fn watch(mut client: Client, number: u64) {
    loop {
        sleep(LOOK).await;
        let begin = client.load.judge.now();
        // Connecting is not what is measured.
        let is_connected = client.line.is_some();
        let answer = client.visit(&Ask::watched(number)).await;
        let took = client.load.judge.now().saturating_sub(begin);
        if !answer.is_some_and(|answer| is_hit(&answer)) {
            client.load.judge.look(None, begin);
        } else if is_connected {
            client.load.judge.look(Some(took), begin);
        }
    }
}

fn is_hit(answer: &Answer) -> bool {
    let says = answer.head.headers.get("cache-status").and_then(|value| value.to_str().ok());
    says.is_some_and(|says| says.contains("; hit"))
}

/// Has many ask for something new at once, for ever.
async fn burst(load: Load) {
    for round in 0.. {
        sleep(BURST).await;
        let ask = Ask::unheard_of("burst", round % MARKS);
        let mut many = JoinSet::new();
        for number in 0..BURST_SIZE as u64 {
            let (mut client, ask) = (load.client(number), ask.clone());
            many.spawn(async move { client.visit(&ask).await.is_some() });
        }
        many.join_all().await;
    }
}

/// Leaves in the middle of something, at a moment that `random` says.
pub(crate) async fn leave(load: &Load, random: &mut Random) {
    let mut client = load.client(random.below(WAYS.len() as u64));
    let ask = if random.below(2) == 0 { Ask::unheard_of("abort", 0) } else { Ask::choose(random) };
    let Ok(mut line) = client.connected(&ask).await else { return };
    let moment = Duration::from_micros(random.below(20_000));
    let _ = tokio::time::timeout(moment, line.ask(&ask)).await;
    client.hang_up();
    load.judge.note(Fault::Aborts.label());
}

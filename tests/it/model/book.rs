//! The reference model: what has happened so far, and what follows from that for everything that happens now.
//!
//! It knows nothing of how the proxy works: only what was sent upstream and came back, what clients asked, and what made
//! unusable what. Not here: which rules follow (`rules`).

use std::time::Duration;

use http::{Method, StatusCode};
use sentrybox::clock::Stopwatch;

use super::nature::{Nature, ORGANIZATIONS, RESOURCES, USERS};

/// How many credentials and paths there are.
const CREDENTIALS: usize = super::nature::TOKENS.len();
const PATHS: usize = ORGANIZATIONS.len() * RESOURCES.len();

/// Offences that are known: whoever closes a gap takes its line out.
const KNOWN_GAPS: [&str; 0] = [];

/// A request upstream.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) number: usize,
    pub(crate) epoch: usize,
    pub(crate) who: usize,
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    /// The number of the client request that made it take off.
    pub(crate) client: usize,
    /// Whether it is for one client alone.
    pub(crate) is_lone: bool,
    /// Whether that client wants upstream to be asked.
    pub(crate) is_demanding: bool,
    pub(crate) sent: Moment,
    /// What was known of its limit when it was sent.
    pub(crate) knowledge: Knowledge,
}

/// What the answers so far have told of a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Knowledge {
    /// Not all of it.
    Partial,
    /// All of it, but that of the exception came first.
    Misleading,
    Full,
}

/// A moment, and its place in the order of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    pub(crate) at: Duration,
    pub(crate) order: u64,
}

/// A request of a client.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) number: usize,
    pub(crate) epoch: usize,
    pub(crate) who: usize,
    pub(crate) target: String,
    pub(crate) began: Moment,
    /// The version below which it must not see its path.
    pub(super) floor: u64,
}

/// An answer with content that upstream has made.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) epoch: usize,
    pub(super) who: usize,
    pub(super) target: String,
    pub(super) path: usize,
    pub(super) version: u64,
    /// Each time that the proxy was told so, by itself or by a 304.
    pub(super) tellings: Vec<Telling>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Telling {
    pub(super) sent: Moment,
    pub(super) made: Duration,
    pub(super) received: Moment,
}

/// Something after which what was fetched before must not be reused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Break {
    pub(super) epoch: usize,
    pub(super) moment: Moment,
    pub(super) scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scope {
    Everything,
    /// All of an organization was purged softly: it may only stand in for a failure.
    PurgedSoftly(usize),
    Written(usize),
    Credential(usize),
    Seen(usize, usize),
}

/// What a credential's answers have said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    pub(super) accepted: Option<Duration>,
    pub(super) suspended: Option<Moment>,
}

/// The book.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) nature: Nature,
    watch: Stopwatch,
    order: u64,
    /// Which proxy it is: a restart makes another one.
    pub(crate) epoch: usize,
    pub(super) clients: Vec<Moment>,
    pub(super) under_way: Vec<Exchange>,
    pub(super) given: Vec<Given>,
    pub(super) breaks: Vec<Break>,
    pub(super) standings: [Standing; CREDENTIALS],
    floors: [u64; PATHS],
    pub(super) rejected: Vec<(usize, usize, String, Duration)>,
    pub(super) sent_at: Vec<Duration>,
    /// The requests whose answers the proxy never got.
    pub(super) lost: Vec<usize>,
    /// The users and resources of which it got one, with the limits.
    pub(super) told: Vec<(usize, Method, usize)>,
    pub(crate) offences: Vec<String>,
    pub(crate) trace: Vec<String>,
}

impl Book {
    /// Opens it.
    pub(crate) fn new(nature: Nature) -> Self {
        Self {
            nature,
            watch: Stopwatch::start(),
            order: 0,
            epoch: 0,
            clients: Vec::new(),
            under_way: Vec::new(),
            given: Vec::new(),
            breaks: Vec::new(),
            standings: [Standing::default(); CREDENTIALS],
            floors: [0; PATHS],
            rejected: Vec::new(),
            sent_at: Vec::new(),
            lost: Vec::new(),
            told: Vec::new(),
            offences: Vec::new(),
            trace: Vec::new(),
        }
    }

    /// Returns the time since the beginning.
    pub(crate) fn at(&self) -> Duration {
        self.watch.read()
    }

    /// Returns the present moment, which comes after all before.
    pub(crate) fn moment(&mut self) -> Moment {
        self.order += 1;
        Moment { at: self.at(), order: self.order }
    }

    /// Notes what happens.
    pub(crate) fn note(&mut self, event: &str) {
        self.trace.push(format!("{:9.3} {event}", self.at().as_secs_f64()));
    }

    /// Notes that a rule was broken.
    pub(crate) fn blame(&mut self, offence: &str) {
        self.note(&format!("!!! {offence}"));
        if !KNOWN_GAPS.iter().any(|gap| offence.contains(gap)) {
            self.offences.push(offence.to_owned());
        }
    }

    /// Begins anew with another proxy, which knows nothing, while paths have these versions.
    pub(crate) fn restart(&mut self, versions: [u64; PATHS]) {
        self.epoch += 1;
        self.floors = versions;
        self.standings = [Standing::default(); CREDENTIALS];
        self.sent_at.clear();
        self.told.clear();
        self.note("restart");
    }

    /// Notes that a client asks.
    pub(crate) fn ask(&mut self, who: usize, target: String, path: usize) -> Asked {
        let began = self.moment();
        let number = self.clients.len();
        self.clients.push(began);
        self.note(&format!("client {number} of {who} asks for {target}"));
        Asked { number, epoch: self.epoch, who, target, began, floor: self.floors[path] }
    }

    /// Notes that the proxy sends a request, and whether it may.
    pub(crate) fn take_off(&mut self, exchange: &mut Exchange) {
        exchange.knowledge = self.knowledge(exchange);
        self.note(&format!(
            "#{} {} {} of {} sent for client {}",
            exchange.number, exchange.method, exchange.target, exchange.who, exchange.client
        ));
        if exchange.epoch == self.epoch {
            self.check_take_off(exchange);
        }
        self.under_way.push(exchange.clone());
    }

    /// Notes that a request has been answered, or failed.
    pub(crate) fn end(&mut self, number: usize) {
        self.under_way.retain(|exchange| exchange.number != number);
    }

    /// Notes that a request has been given up, if it has not ended.
    pub(crate) fn give_up(&mut self, number: usize) {
        if self.under_way.iter().any(|exchange| exchange.number == number) {
            self.note(&format!("#{number} is given up"));
            self.lost.push(number);
            self.end(number);
        }
    }

    /// Returns how many requests are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Notes that upstream makes an answer with content; returns its number.
    pub(crate) fn give(&mut self, exchange: &Exchange, version: u64) -> usize {
        let (epoch, who, target) = (exchange.epoch, exchange.who, exchange.target.clone());
        let path = path_of(&target);
        self.given.push(Given { epoch, who, target, path, version, tellings: Vec::new() });
        self.given.len() - 1
    }

    /// Returns whether an answer that upstream gave before is still true.
    pub(crate) fn is_true(&self, number: usize, exchange: &Exchange, version: u64) -> bool {
        self.given.get(number).is_some_and(|given| {
            (given.who, &given.target, given.version) == (exchange.who, &exchange.target, version)
        })
    }

    /// Notes that the proxy hears that such an answer, made at this time, is true.
    pub(crate) fn tell(&mut self, number: usize, exchange: &Exchange, made: Duration) {
        let received = self.moment();
        self.given[number].tellings.push(Telling { sent: exchange.sent, made, received });
    }

    /// Notes that the proxy hears what became of a request.
    pub(crate) fn hear(&mut self, exchange: &Exchange, status: Option<StatusCode>) {
        self.note(&format!("#{} ends: {status:?}", exchange.number));
        if status.is_none() {
            self.lost.push(exchange.number);
        }
        if exchange.epoch != self.epoch {
            return;
        }
        if status.is_some_and(|status| !(502..=504).contains(&status.as_u16())) {
            let resource = path_of(&exchange.target) % RESOURCES.len();
            self.told.push((USERS[exchange.who], exchange.method.clone(), resource));
        }
        let moment = self.moment();
        let standing = &mut self.standings[exchange.who];
        match status {
            Some(status) if status.is_success() || status == StatusCode::NOT_MODIFIED => {
                standing.accepted = standing.accepted.max(Some(exchange.sent.at));
                standing.suspended = standing.suspended.filter(|since| since.at > exchange.sent.at);
            }
            Some(StatusCode::UNAUTHORIZED) if exchange.method == Method::GET => {
                let (who, path) = (exchange.who, path_of(&exchange.target));
                let was_accepted = standing.accepted.is_some();
                let is_second = standing.suspended.is_some();
                if was_accepted && !is_second {
                    standing.suspended = Some(moment);
                }
                self.break_off(moment, Scope::Seen(who, path));
                if is_second {
                    self.break_off(moment, Scope::Credential(who));
                }
                self.rejected.push((exchange.epoch, who, exchange.target.clone(), moment.at));
            }
            _ => {}
        }
    }

    /// Notes that the proxy hears of a write that has, or may have, given a path a new version.
    pub(crate) fn write(&mut self, epoch: usize, path: usize, version: u64) {
        if epoch == self.epoch {
            let moment = self.moment();
            self.floors[path] = self.floors[path].max(version);
            self.break_off(moment, Scope::Written(path));
        }
    }

    /// Notes that from some moment on nothing that was fetched before may be reused.
    pub(crate) fn break_off(&mut self, moment: Moment, scope: Scope) {
        self.breaks.push(Break { epoch: self.epoch, moment, scope });
    }
}

impl Break {
    pub(super) fn touches(&self, who: usize, path: usize) -> bool {
        match self.scope {
            Scope::Everything => true,
            Scope::PurgedSoftly(organization) => path / RESOURCES.len() == organization,
            Scope::Written(written) => written == path,
            Scope::Credential(whose) => whose == who,
            Scope::Seen(whose, seen) => (whose, seen) == (who, path),
        }
    }

    pub(super) fn concerns(&self, exchange: &Exchange, path: usize) -> bool {
        self.epoch == exchange.epoch && self.touches(exchange.who, path)
    }
}

/// Returns the number of the path of a target, whatever its query.
pub(crate) fn path_of(target: &str) -> usize {
    let path = target.split('?').next().unwrap_or_default();
    let paths = || ORGANIZATIONS.iter().flat_map(|name| RESOURCES.map(|resource| path_to(name, resource)));
    paths().position(|known| known == path).unwrap_or(usize::MAX)
}

/// Returns the path of a resource of an organization.
pub(crate) fn path_to(organization: &str, resource: &str) -> String {
    format!("/api/0/organizations/{organization}/{resource}")
}

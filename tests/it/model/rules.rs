//! The rules, as questions to the book: may this be sent upstream now, and may a client be told that?
//!
//! Whatever contradicts them is noted as an offence.

use std::time::Duration;

use http::{Method, StatusCode};

use super::book::{Asked, Book, Break, Exchange, Given, Knowledge, Scope, Telling, path_of};
use super::limits::Ruling;
use super::nature::{Nature, RESOURCES, USERS};
use crate::support::corridor::Verdict;
use crate::support::http::Answer;

/// The resource whose reads may have a limit of their own.
const TEAMS: usize = 2;

/// A request waits for so long for its turn with a suspended credential, or as long as it may wait at all.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

/// Requests that bring a body give their place back after so long, whatever becomes of them.
const CLIENT_PACE: Duration = Duration::from_secs(10);

/// How long something is fresh.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Freshness {
    /// As long as its class says.
    Full,
    /// For a second at the most, because it was fetched soon after a write.
    Settling,
}

impl Book {
    /// Checks whether a request may be sent upstream at this moment.
    pub(super) fn check_take_off(&mut self, exchange: &Exchange) {
        self.check_company(exchange);
        self.check_turn(exchange);
        self.check_caps(exchange);
    }

    /// At most one read of what is shared is under way per credential and target; and one more where upstream must be
    /// asked whatever is stored.
    fn check_company(&mut self, exchange: &Exchange) {
        if exchange.method != Method::GET || exchange.is_lone {
            return;
        }
        let path = path_of(&exchange.target);
        let shares = |other: &&Exchange| {
            let is_same = (other.epoch, other.who) == (exchange.epoch, exchange.who)
                && other.target == exchange.target
                && other.method == Method::GET
                && !other.is_lone;
            // Those who came on different sides of a write or a purge fly apart.
            let since = self.clients[other.client].min(self.clients[exchange.client]);
            is_same && !self.breaks.iter().any(|it| it.moment > since && it.concerns(exchange, path))
        };
        let others: Vec<Exchange> = self.under_way.iter().filter(shares).cloned().collect();
        let may_demand = self.may_demand(exchange) || others.iter().any(|other| self.may_demand(other));
        if others.len() > usize::from(may_demand) {
            let other = others[0].number;
            self.blame(&format!("#{other} and #{} are under way for the same key", exchange.number));
        }
    }

    /// Returns whether upstream may have to be asked whatever is stored.
    fn may_demand(&self, exchange: &Exchange) -> bool {
        exchange.is_demanding
            || self.nature.fresh_for.is_zero()
            || self.nature.config.cache.max_unverified < Duration::from_mins(1)
            || self.rejected.iter().any(|(_, who, ..)| *who == exchange.who)
    }

    /// A suspended credential has one request upstream at a time. A write has no turn: it is forwarded at once. Nor does anybody
    /// wait for longer than so for one that is not answered.
    fn check_turn(&mut self, exchange: &Exchange) {
        let Some(since) = self.standings[exchange.who].suspended else { return };
        let budget = &self.nature.config.budget;
        // Two moments of the same clock may differ by less than a millisecond of rounding.
        let patience = if budget.enabled { TURN_PATIENCE.min(budget.max_wait) } else { Duration::ZERO };
        let patience = patience.saturating_sub(Duration::from_millis(5));
        let has_turn = |exchange: &Exchange| {
            let began = self.clients.get(exchange.client);
            let waited = began.map(|began| exchange.sent.at.saturating_sub(began.at));
            exchange.method == Method::GET && waited.is_none_or(|waited| waited < patience)
        };
        let is_other = |other: &&Exchange| {
            other.epoch == exchange.epoch
                && other.who == exchange.who
                && other.sent > since
                && has_turn(other)
                && has_turn(exchange)
        };
        if let Some(other) = self.under_way.iter().find(is_other).cloned() {
            self.blame(&format!("#{} and #{} try a suspended credential", other.number, exchange.number));
        }
    }

    /// The operator's own caps hold.
    fn check_caps(&mut self, exchange: &Exchange) {
        let now = exchange.sent.at;
        let counts = |other: &&Exchange| {
            other.epoch == exchange.epoch
                && (other.method == Method::GET || now.saturating_sub(other.sent.at) < CLIENT_PACE)
        };
        let present = self.under_way.iter().filter(counts).count();
        if self.nature.config.budget.max_concurrent <= present {
            self.blame(&format!("#{} is one too many at a time", exchange.number));
        }
        let second = Duration::from_secs(1);
        let recent = self.sent_at.iter().filter(|sent| now.saturating_sub(**sent) < second).count();
        let most = self.nature.config.budget.max_per_second;
        if most > 0 && most <= recent {
            self.blame(&format!("#{} is one too many in a second", exchange.number));
        }
        self.sent_at.push(now);
    }

    /// Notes that Sentry refuses a request by its limits, which the proxy should have known.
    pub(crate) fn refuse(&mut self, exchange: &Exchange, ruling: &Ruling) {
        self.note(&format!("{ruling:?}"));
        let others = ruling.company.iter().filter(|(_, epoch)| *epoch != exchange.epoch).count();
        let lost = ruling.company.iter().filter(|(number, _)| self.lost.contains(number)).count();
        let most = usize::try_from(ruling.most).unwrap();
        let offence = match ruling.company.len() {
            known if known < most + others => return self.note("refused because of a former proxy"),
            known => match exchange.knowledge {
                // Each route may have a limit of its own, and has one request under way to find out.
                Knowledge::Partial | Knowledge::Misleading => {
                    return self.note("refused while limits are learned");
                }
                Knowledge::Full if known < most + others + lost => "refused because of what was lost",
                Knowledge::Full => "refused",
            },
        };
        self.blame(&format!("#{} is {offence}", exchange.number));
    }

    /// Returns what is known of the limit of a request: it takes an answer, and one of every route where one of them has
    /// a limit of its own.
    pub(super) fn knowledge(&self, exchange: &Exchange) -> Knowledge {
        let told: Vec<_> = self.told_of(exchange).collect();
        let has_exception = self.nature.own_limit.is_some() && exchange.method == Method::GET;
        match told.first() {
            None => Knowledge::Partial,
            Some(_) if !has_exception => Knowledge::Full,
            Some(_) if !(0..RESOURCES.len()).all(|resource| told.contains(&resource)) => Knowledge::Partial,
            Some(first) if *first == TEAMS => Knowledge::Misleading,
            Some(_) => Knowledge::Full,
        }
    }

    /// Returns of which resources the limit was told, for this user and method.
    fn told_of(&self, exchange: &Exchange) -> impl Iterator<Item = usize> {
        let (user, method) = (USERS[exchange.who], exchange.method.clone());
        self.told.iter().filter(move |(whose, by, _)| (*whose, by) == (user, &method)).map(|(_, _, it)| *it)
    }

    /// Checks what a client is told.
    pub(crate) fn check(&mut self, asked: &Asked, answer: &Answer) {
        let verdict = Verdict::of(answer);
        let (status, text) = (answer.status, answer.text().to_owned());
        let detail = verdict.word("detail").to_owned();
        self.note(&format!("client {} gets {status} {text} ({detail})", asked.number));
        let offence = match status {
            StatusCode::OK => self.offence_of_content(asked, &verdict, &text),
            StatusCode::UNAUTHORIZED => self.offence_of_refusal(asked),
            _ => None,
        };
        if let Some(offence) = offence {
            self.blame(&format!("client {}: {offence}", asked.number));
        }
    }

    fn offence_of_content(&self, asked: &Asked, verdict: &Verdict, text: &str) -> Option<String> {
        let numbers: Vec<usize> =
            text.trim_matches(['[', ']']).split(',').map(|it| it.parse().unwrap()).collect();
        let [number, who, path, version] = numbers[..] else { return Some(format!("{text} is no answer")) };
        let given = &self.given[number];
        assert_eq!(
            (given.who, given.path, given.version),
            (who, path, version as u64),
            "the world is broken"
        );
        if who != asked.who || given.target != asked.target {
            return Some("somebody else's, or of something else".to_owned());
        }
        if given.version < asked.floor {
            return Some(format!("version {version}, but {} was written", asked.floor));
        }
        if !verdict.says("hit") && verdict.word("detail") != "stale-if-error" {
            let is_new = given.tellings.iter().any(|telling| asked.began < telling.received);
            return (!is_new).then(|| "told to be new, and is not".to_owned());
        }
        if given.epoch != asked.epoch {
            return Some("fetched by another proxy".to_owned());
        }
        if self.standings[asked.who].suspended.is_some() && asked.epoch == self.epoch {
            let how = if verdict.says("hit") { "is reused" } else { "stands in" };
            return Some(format!("{how} for a suspended credential"));
        }
        let tellings = given.tellings.iter();
        let offences: Vec<_> =
            tellings.map(|it| self.offence_of_reuse(given, *it, (asked, verdict))).collect();
        // One that allows it is enough.
        if offences.iter().any(Option::is_none) { None } else { offences.into_iter().flatten().next() }
    }

    fn offence_of_reuse(
        &self,
        given: &Given,
        telling: Telling,
        (asked, verdict): (&Asked, &Verdict),
    ) -> Option<String> {
        let concerns = |it: &&Break| it.epoch == given.epoch && it.touches(given.who, given.path);
        let stands_in = verdict.word("detail") == "stale-if-error";
        let broken = |it: &&Break| {
            // Whoever asked before a write was over may be told the state before it.
            let is_allowed = match it.scope {
                Scope::PurgedSoftly(_) => stands_in,
                Scope::Written(_) => stands_in && asked.began < it.moment,
                Scope::Everything | Scope::Credential(_) | Scope::Seen(..) => false,
            };
            concerns(it) && telling.sent < it.moment && !is_allowed
        };
        if let Some(broken) = self.breaks.iter().find(broken) {
            return Some(format!("reused after {:?}", broken.scope));
        }
        let is_settling = self.breaks.iter().filter(concerns).any(|it| {
            matches!(it.scope, Scope::Written(_))
                && it.moment <= telling.sent
                && telling.sent.at.saturating_sub(it.moment.at) < self.nature.config.cache.settle
        });
        let standing = if is_settling { Freshness::Settling } else { Freshness::Full };
        let bound = self.bound(standing, verdict);
        let age = self.at().saturating_sub(telling.made);
        if bound <= age {
            return Some(format!("{age:?} old, at most {bound:?}"));
        }
        let unverified = self.nature.config.cache.max_unverified;
        let accepted = self.standings[given.who].accepted.unwrap_or_default().max(telling.received.at);
        let is_verified = given.epoch != self.epoch || self.at().saturating_sub(accepted) < unverified;
        (verdict.says("hit") && !is_verified).then(|| "reused for an unverified credential".to_owned())
    }

    /// Returns the age below which such a reuse is allowed.
    fn bound(&self, freshness: Freshness, verdict: &Verdict) -> Duration {
        let Nature { fresh_for, revalidate, error, .. } = self.nature;
        let is_settling = freshness == Freshness::Settling;
        let lifetime = if is_settling { fresh_for.min(Duration::from_secs(1)) } else { fresh_for };
        let stretched = fresh_for * self.nature.config.budget.max_stretch.saturating_sub(1);
        let window = match verdict.word("detail") {
            "stale-if-error" => error,
            "stale-while-revalidate" if !is_settling => revalidate,
            "reuse-under-pressure" if !is_settling => revalidate.max(stretched),
            _ => Duration::ZERO,
        };
        lifetime + window
    }

    /// A refusal is upstream's own, and told again for a moment only.
    fn offence_of_refusal(&self, asked: &Asked) -> Option<String> {
        let memory = self.nature.config.cache.rejection_memory;
        let is_known = self.rejected.iter().any(|(epoch, who, target, at)| {
            (*epoch, *who, target) == (asked.epoch, asked.who, &asked.target)
                && asked.began.at <= *at + memory
        });
        (!is_known && asked.epoch == self.epoch).then(|| "refused by nobody".to_owned())
    }
}

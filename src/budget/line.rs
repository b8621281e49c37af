//! The line of those who must wait, and in which order they are called. Pure.
//!
//! Who waits for the same limit stands in one queue; whose queue comes first is decided by turns: a credential with a
//! hundred requests waiting takes turns with one that has a single one (start-time fair queueing over credentials).
//!
//! Invariants: the line is as long as it may be and no longer; nobody overtakes somebody who waits for the same limit and
//! stands before it. Not here: who may go (`budget::scheduler`), waiting itself (`budget`).

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use tokio::sync::oneshot;

use crate::budget::ask::{Ask, Limit, Payer};
use crate::budget::route_state::Charge;
use crate::credential::CredentialPartition;
use crate::routes::RouteLabel;

/// Where a request stands in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    turn: u64,
    number: u64,
}

/// The line.
#[derive(Debug)]
pub struct Line {
    /// For each payer, the queues of its limits.
    queues: HashMap<Payer, HashMap<RouteLabel, Queue>>,
    /// The first of every queue.
    heads: BTreeMap<Place, Limit>,
    credentials: HashMap<CredentialPartition, Standing>,
    /// The turn of whoever was called last.
    present_turn: u64,
    next_number: u64,
    length: usize,
    most: usize,
}

type Queue = BTreeMap<Place, Waiting>;

/// Somebody who waits.
#[derive(Debug)]
pub struct Waiting {
    /// What for.
    pub ask: Ask,
    /// How they are called.
    pub called: oneshot::Sender<Charge>,
}

/// How a credential stands.
#[derive(Debug, Clone, Copy)]
struct Standing {
    waiting: usize,
    last_turn: u64,
}

/// The line is as long as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded;

impl Line {
    /// Makes an empty line for so many at the most.
    pub fn new(most: usize) -> Self {
        Self {
            queues: HashMap::new(),
            heads: BTreeMap::new(),
            credentials: HashMap::new(),
            present_turn: 0,
            next_number: 0,
            length: 0,
            most,
        }
    }

    /// Returns where a credential's next request would stand.
    pub fn next_place(&self, partition: CredentialPartition) -> Place {
        let last = self.credentials.get(&partition).map_or(0, |standing| standing.last_turn);
        Place { turn: self.present_turn.max(last + 1), number: self.next_number }
    }

    /// Returns how many of a payer stand before a place, in the queues of these routes.
    pub fn ahead(&self, payer: &Payer, place: Place, is_counted: impl Fn(&RouteLabel) -> bool) -> usize {
        let queues = self.queues.get(payer).into_iter().flatten();
        queues.filter(|(route, _)| is_counted(route)).map(|(_, queue)| queue.range(..place).count()).sum()
    }

    /// Returns whether somebody of a payer waits for one of these routes.
    pub fn is_waited_for(&self, payer: &Payer, is_counted: impl Fn(&RouteLabel) -> bool) -> bool {
        self.queues.get(payer).is_some_and(|queues| queues.keys().any(is_counted))
    }

    /// Puts a request in the line. Where that is full, the credential with the most waiting gives up its last place, if it has
    /// more than the one that comes.
    ///
    /// # Errors
    /// [`Crowded`] when it is full all the same.
    pub fn join(&mut self, ask: Ask, called: oneshot::Sender<Charge>) -> Result<Place, Crowded> {
        if self.most <= self.length {
            self.make_room(ask.partition)?;
        }
        let place = self.next_place(ask.partition);
        let standing = self.credentials.entry(ask.partition).or_insert(Standing { waiting: 0, last_turn: 0 });
        standing.waiting += 1;
        standing.last_turn = place.turn;
        self.next_number += 1;
        self.length += 1;
        let Limit { payer, route } = ask.limit.clone();
        let queue = self.queues.entry(payer).or_default().entry(route).or_default();
        if let Some((former, _)) = queue.first_key_value() {
            if place < *former {
                self.heads.remove(former);
                self.heads.insert(place, ask.limit.clone());
            }
        } else {
            self.heads.insert(place, ask.limit.clone());
        }
        queue.insert(place, Waiting { ask, called });
        Ok(place)
    }

    /// Returns whether there is a place for a credential's next request, or would be made.
    pub fn has_room_for(&self, newcomer: CredentialPartition) -> bool {
        self.length < self.most || self.who_gives_way_to(newcomer).is_some()
    }

    /// Returns the credential that has the most waiting, if it is to give up its last place.
    fn who_gives_way_to(&self, newcomer: CredentialPartition) -> Option<CredentialPartition> {
        let waiting = |partition| self.credentials.get(partition).map_or(0, |standing| standing.waiting);
        let standings = self.credentials.iter();
        let (most, count) = standings
            .map(|(partition, standing)| (*partition, standing.waiting))
            .max_by_key(|(_, waiting)| *waiting)?;
        (waiting(&newcomer) + 1 < count).then_some(most)
    }

    /// Sends away the last one of the credential that has the most waiting.
    fn make_room(&mut self, newcomer: CredentialPartition) -> Result<(), Crowded> {
        let most = self.who_gives_way_to(newcomer).ok_or(Crowded)?;
        let queues = self.queues.values().flat_map(HashMap::values).flatten();
        let last = queues.filter(|(_, waiting)| waiting.ask.partition == most);
        let (place, waiting) = last.max_by_key(|(place, _)| **place).ok_or(Crowded)?;
        let (place, limit) = (*place, waiting.ask.limit.clone());
        self.take(&limit, place);
        Ok(())
    }

    /// Takes a request out of the line.
    pub fn take(&mut self, limit: &Limit, place: Place) -> Option<Waiting> {
        let queues = self.queues.get_mut(&limit.payer)?;
        let queue = queues.get_mut(&limit.route)?;
        let waiting = queue.remove(&place)?;
        if self.heads.remove(&place).is_some()
            && let Some((next, _)) = queue.first_key_value()
        {
            self.heads.insert(*next, limit.clone());
        }
        if queue.is_empty() {
            queues.remove(&limit.route);
        }
        if queues.is_empty() {
            self.queues.remove(&limit.payer);
        }
        self.forget(waiting.ask.partition);
        Some(waiting)
    }

    /// Takes a request out of the line because it is its turn.
    pub fn call(&mut self, limit: &Limit, place: Place) -> Option<Waiting> {
        self.present_turn = self.present_turn.max(place.turn);
        self.take(limit, place)
    }

    fn forget(&mut self, partition: CredentialPartition) {
        self.length = self.length.saturating_sub(1);
        if let Some(standing) = self.credentials.get_mut(&partition) {
            standing.waiting = standing.waiting.saturating_sub(1);
            if standing.waiting == 0 {
                self.credentials.remove(&partition);
            }
        }
    }

    /// Returns the first of all queues that stands behind a place.
    pub fn head_after(&self, place: Option<Place>) -> Option<(Place, Limit)> {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        self.heads.range((from, Bound::Unbounded)).next().map(|(place, limit)| (*place, limit.clone()))
    }

    /// Returns the first of every queue of a payer, in their order.
    pub fn heads_of(&self, payer: &Payer) -> BTreeMap<Place, RouteLabel> {
        let queues = self.queues.get(payer).into_iter().flatten();
        queues
            .filter_map(|(route, queue)| queue.first_key_value().map(|(place, _)| (*place, route.clone())))
            .collect()
    }

    /// Returns the first of a queue.
    pub fn head(&self, limit: &Limit) -> Option<Place> {
        self.queue(limit)?.first_key_value().map(|(place, _)| *place)
    }

    fn queue(&self, limit: &Limit) -> Option<&Queue> {
        self.queues.get(&limit.payer)?.get(&limit.route)
    }

    /// Returns what somebody waits for.
    pub fn ask(&self, limit: &Limit, place: Place) -> Option<&Ask> {
        self.queue(limit)?.get(&place).map(|waiting| &waiting.ask)
    }

    /// Returns the number that whoever comes next is given: those who wait have a lower one.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Sends everybody away who came before this number was given and asks for an upstream of that name.
    pub fn send_away(&mut self, upstream: &str, before: u64) {
        let of_upstream = self.queues.iter().filter(|(payer, _)| *payer.upstream == *upstream);
        let waiting = of_upstream.flat_map(|(_, queues)| queues.values()).flatten();
        let leaving: Vec<(Place, Limit)> = waiting
            .filter(|(place, _)| place.number < before)
            .map(|(place, waiting)| (*place, waiting.ask.limit.clone()))
            .collect();
        for (place, limit) in leaving {
            self.take(&limit, place);
        }
    }

    /// Calls `note` with each queue's route, and how many wait in it.
    pub fn count_by_route<'a>(&'a self, mut note: impl FnMut(&'a RouteLabel, usize)) {
        for (route, queue) in self.queues.values().flatten() {
            note(route, queue.len());
        }
    }

    /// Returns how many of a payer wait.
    pub fn waiting_of(&self, payer: &Payer) -> usize {
        self.queues.get(payer).into_iter().flatten().map(|(_, queue)| queue.len()).sum()
    }

    /// Returns how many may wait at the most.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Returns how many wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Method;

    use super::*;
    use crate::budget::ask::{Load, Patience};
    use crate::credential::BudgetIdentity;
    use crate::testing::{SUBJECT, asked};

    fn ask(token: &str, route: &str) -> Ask {
        let credential = format!("Bearer sntryu_{token}");
        let partition = asked(SUBJECT, &[("authorization", &credential)]).partition();
        let upstream: Arc<str> = "sentry.io".into();
        let payer = Payer { upstream, identity: BudgetIdentity::Credential(partition), method: Method::GET };
        let limit = Limit { payer, route: RouteLabel::Template(route.into()) };
        Ask { limit, partition, load: Load::Bare, patience: Patience::Full }
    }

    fn join(line: &mut Line, ask: &Ask) -> Result<oneshot::Receiver<Charge>, Crowded> {
        let (call, called) = oneshot::channel();
        line.join(ask.clone(), call).map(|_| called)
    }

    #[test]
    fn who_has_the_most_waiting_gives_way_when_the_line_is_full() {
        let mut line = Line::new(4);
        let mut noisy: Vec<_> = (0..4).map(|_| join(&mut line, &ask("noisy", "/a/")).unwrap()).collect();
        let has_room = |line: &Line, token| line.has_room_for(ask(token, "/a/").partition);
        assert!(has_room(&line, "quiet") && !has_room(&line, "noisy"));
        let _first = join(&mut line, &ask("quiet", "/a/")).unwrap();
        assert!(noisy.pop().unwrap().try_recv().is_err());
        let _second = join(&mut line, &ask("quiet", "/a/")).unwrap();
        assert!(!has_room(&line, "quiet") && !has_room(&line, "noisy") && has_room(&line, "other"));
        assert_eq!(join(&mut line, &ask("quiet", "/a/")).map(drop), Err(Crowded), "as many as the other");
        assert_eq!(join(&mut line, &ask("noisy", "/a/")).map(drop), Err(Crowded));
        assert_eq!(line.len(), 4);
    }

    #[test]
    fn the_heads_are_those_of_the_queues_whoever_comes_and_goes() {
        let mut line = Line::new(100);
        let asks = [ask("a", "/a/"), ask("a", "/b/"), ask("b", "/a/"), ask("a", "/a/"), ask("b", "/a/")];
        let _called: Vec<_> = asks.iter().map(|ask| join(&mut line, ask).unwrap()).collect();
        let mut order = Vec::new();
        let mut place = None;
        while let Some((next, _)) = line.head_after(place) {
            order.push(next);
            place = Some(next);
        }
        assert_eq!(order.len(), 3);
        assert!(order.is_sorted());
        for ask in &asks {
            let head = line.head(&ask.limit).unwrap();
            assert!(line.heads_of(&ask.limit.payer).contains_key(&head));
            line.call(&ask.limit, head).unwrap();
        }
        assert!(line.is_empty() && line.head_after(None).is_none());
    }
}

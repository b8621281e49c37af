//! The line of those who must wait, and in which order they are called. Pure.
//!
//! Who waits for the same limit stands in one queue; whose queue comes first is decided by turns: a credential with a
//! hundred requests waiting takes turns with one that has a single one (start-time fair queueing over credentials).
//!
//! Invariants: the line is as long as it may be and no longer; nobody overtakes somebody who waits for the same limit and
//! stands before it. Not here: who may go (`budget::scheduler`), waiting itself (`budget`).

use std::collections::{BTreeMap, HashMap};

use tokio::sync::oneshot;

use crate::budget::account::Charge;
use crate::budget::scheduler::{Ask, Limit};
use crate::credential::CredentialPartition;

/// Where a request stands in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    turn: u64,
    number: u64,
}

/// The line.
#[derive(Debug)]
pub struct Line {
    queues: HashMap<Limit, BTreeMap<Place, Waiting>>,
    credentials: HashMap<CredentialPartition, Standing>,
    /// The turn of whoever was called last.
    present_turn: u64,
    next_number: u64,
    length: usize,
    most: usize,
}

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

    /// Returns how many stand before a place in the queues of these limits.
    pub fn ahead(&self, place: Place, is_counted: impl Fn(&Limit) -> bool) -> usize {
        let queues = self.queues.iter().filter(|(limit, _)| is_counted(limit));
        queues.map(|(_, queue)| queue.range(..place).count()).sum()
    }

    /// Puts a request in the line.
    ///
    /// # Errors
    /// [`Crowded`] when it is full.
    pub fn join(&mut self, ask: Ask, called: oneshot::Sender<Charge>) -> Result<Place, Crowded> {
        if self.most <= self.length {
            return Err(Crowded);
        }
        let place = self.next_place(ask.partition);
        let standing = self.credentials.entry(ask.partition).or_insert(Standing { waiting: 0, last_turn: 0 });
        standing.waiting += 1;
        standing.last_turn = place.turn;
        self.next_number += 1;
        self.length += 1;
        self.queues.entry(ask.limit.clone()).or_default().insert(place, Waiting { ask, called });
        Ok(place)
    }

    /// Takes a request out of the line.
    pub fn take(&mut self, limit: &Limit, place: Place) -> Option<Waiting> {
        let queue = self.queues.get_mut(limit)?;
        let waiting = queue.remove(&place)?;
        if queue.is_empty() {
            self.queues.remove(limit);
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

    /// Returns the first of every queue, in the order in which they are called.
    pub fn heads(&self) -> BTreeMap<Place, Limit> {
        let head = |(limit, queue): (&Limit, &BTreeMap<Place, Waiting>)| {
            queue.first_key_value().map(|(place, _)| (*place, limit.clone()))
        };
        self.queues.iter().filter_map(head).collect()
    }

    /// Returns the first of a queue.
    pub fn head(&self, limit: &Limit) -> Option<Place> {
        self.queues.get(limit)?.first_key_value().map(|(place, _)| *place)
    }

    /// Returns what somebody waits for.
    pub fn ask(&self, limit: &Limit, place: Place) -> Option<&Ask> {
        self.queues.get(limit)?.get(&place).map(|waiting| &waiting.ask)
    }

    /// Returns the number that whoever comes next is given: those who wait have a lower one.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Sends everybody away who came before this number was given and asks for an upstream of that name.
    pub fn send_away(&mut self, upstream: &str, before: u64) {
        let mut gone = Vec::new();
        for (limit, queue) in &mut self.queues {
            if *limit.payer.upstream == *upstream {
                let leaving = queue.extract_if(.., |place, _| place.number < before);
                gone.extend(leaving.map(|(_, waiting)| waiting.ask.partition));
            }
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        for partition in gone {
            self.forget(partition);
        }
    }

    /// Returns how many wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns whether somebody waits for this limit.
    pub fn is_waited_for(&self, limit: &Limit) -> bool {
        self.queues.contains_key(limit)
    }
}

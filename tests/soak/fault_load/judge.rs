//! Counts what became of every request, and holds it against what the faults of its time excuse.
//!
//! Invariant: what nothing excuses is told at once, and makes the run fail.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sentrybox::clock::Stopwatch;

use crate::fault::{Fault, Promise};
use crate::outcome::Outcome;

/// Most errors that are told one by one.
const TOLD: usize = 40;

/// How far apart a fault's time and what it does to a connection may seem to be.
const BLUR: Duration = Duration::from_millis(300);

/// A fault, while it lasts or after.
#[derive(Debug, Clone, Copy)]
struct Spell {
    fault: Fault,
    from: Duration,
    to: Option<Duration>,
}

impl Spell {
    /// Returns whether it lasted at some moment between `begin` and `end`, or less than `after` before.
    fn meets(&self, (begin, end): (Duration, Duration), after: Duration) -> bool {
        self.from <= end + BLUR && self.to.is_none_or(|to| begin <= to + after)
    }

    /// Returns how long it had been over at a moment.
    fn over_for(&self, now: Duration) -> Duration {
        self.to.map_or(Duration::ZERO, |to| now.saturating_sub(to))
    }

    fn excuses(&self, promise: Promise, times: (Duration, Duration)) -> bool {
        let after = match promise {
            Promise::Own(_) | Promise::Passed(_) => self.fault.aftermath(),
            Promise::Cut | Promise::NotConnected | Promise::Dropped => BLUR,
        };
        self.meets(times, after) && self.fault.excuses().contains(&promise)
    }
}

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By fault (or none, or several) and outcome.
    pub(crate) outcomes: BTreeMap<String, BTreeMap<String, u64>>,
    /// By kind of request and outcome.
    pub(crate) kinds: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// How long watched hits took, in microseconds, by what was going on.
    pub(crate) hits: BTreeMap<&'static str, Vec<u64>>,
    /// How many watched requests were no hits, by what was going on.
    pub(crate) misses: BTreeMap<&'static str, u64>,
    /// What was counted besides.
    pub(crate) notes: BTreeMap<String, u64>,
    /// How long after a fault was over a request was begun whose answer still spoke of it, at the most.
    pub(crate) aftermath: Duration,
    /// Errors: how many.
    pub(crate) errors: u64,
}

/// Judges.
#[derive(Debug)]
pub(crate) struct Judge {
    watch: Stopwatch,
    spells: Mutex<Vec<Spell>>,
    tally: Mutex<Tally>,
}

impl Default for Judge {
    fn default() -> Self {
        Self { watch: Stopwatch::start(), spells: Mutex::default(), tally: Mutex::default() }
    }
}

impl Judge {
    /// Returns how long the run has lasted.
    pub(crate) fn now(&self) -> Duration {
        self.watch.read()
    }

    /// Notes that a fault begins.
    pub(crate) fn begin(&self, fault: Fault) {
        lock(&self.spells).push(Spell { fault, from: self.now(), to: None });
    }

    /// Notes that a fault is over.
    pub(crate) fn end(&self, fault: Fault) {
        let now = self.now();
        let mut spells = lock(&self.spells);
        let open = spells.iter_mut().find(|spell| spell.fault == fault && spell.to.is_none());
        open.expect("a fault that ends has begun").to = Some(now);
        // What is long over excuses nothing any more.
        spells.retain(|spell| spell.to.is_none_or(|to| now < to + Duration::from_mins(2)));
    }

    /// Counts a request that began at `begin` and whose outcome is known now.
    pub(crate) fn settle(&self, label: &'static str, outcome: &Outcome, begin: Duration) {
        let times = (begin, self.now());
        let spells = lock(&self.spells).clone();
        let during = during(&spells, times);
        // How long ago what excuses it was over; none: nothing does.
        let excuse = match outcome {
            Outcome::Whole(_) => Some(Duration::ZERO),
            Outcome::Excusable(promise, _) => {
                let excusing = spells.iter().filter(|spell| spell.excuses(*promise, times));
                excusing.map(|spell| spell.over_for(begin)).min()
            }
            Outcome::Wrong(_) => None,
        };
        let mut tally = lock(&self.tally);
        tally.aftermath = tally.aftermath.max(excuse.unwrap_or_default());
        let row = tally.outcomes.entry(during.clone()).or_default();
        *row.entry(outcome.label()).or_default() += 1;
        *tally.kinds.entry(label).or_default().entry(outcome.label()).or_default() += 1;
        drop(tally);
        if excuse.is_none() {
            self.error(&format!(
                "{label}: {outcome:?}, begun at {:.1} s, during {during}",
                begin.as_secs_f32()
            ));
        }
    }

    /// Tells an error, and counts it.
    pub(crate) fn error(&self, what: &str) {
        let now = self.now().as_secs_f32();
        let mut tally = lock(&self.tally);
        tally.errors += 1;
        if tally.errors <= TOLD as u64 {
            println!("[{now:7.1} s] ERROR {what}");
        }
    }

    /// Notes how long a watched hit took; `None` where it was none.
    pub(crate) fn look(&self, took: Option<Duration>, begin: Duration) {
        let spells = lock(&self.spells).clone();
        let times = (begin, self.now());
        let mut current = spells.iter().filter(|spell| spell.meets(times, Duration::ZERO));
        let during = match (current.next(), current.next()) {
            (None, _) => "nothing wrong",
            (Some(spell), None) if spell.fault.is_crowd() => spell.fault.label(),
            _ => "other faults",
        };
        let mut tally = lock(&self.tally);
        if let Some(took) = took {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            tally.hits.entry(during).or_default().push(took);
        } else {
            *tally.misses.entry(during).or_default() += 1;
        }
    }

    /// Counts something that is no error.
    pub(crate) fn note(&self, what: &str) {
        *lock(&self.tally).notes.entry(what.to_owned()).or_default() += 1;
    }

    /// Returns what was counted.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }
}

/// Returns what went on between two moments.
fn during(spells: &[Spell], times: (Duration, Duration)) -> String {
    let mut current = spells.iter().filter(|spell| spell.meets(times, Duration::ZERO));
    match (current.next(), current.next()) {
        (None, _) => "nothing".to_owned(),
        (Some(spell), None) => spell.fault.label().to_owned(),
        _ => "several".to_owned(),
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

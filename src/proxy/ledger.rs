//! Keeps book of what each credential was spared: for operators alone, by fingerprint.
//!
//! Invariants: bounded; whom upstream never accepted, and whoever comes when the book is full, is entered among the others; no
//! credential is in it.
//! Not here: the same by class of routes (`metrics::budget`), who may read it (`admin`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::admission::AdmittedRequest;
use crate::credential::{CredentialPartition, Fingerprint};
use crate::handling::Hold;
use crate::metrics::budget::ClassLedger;
use crate::proxy::{Proxy, Rooms};

/// Most credentials that have an entry of their own.
const MOST: usize = 1_000;

/// The class of whatever has none.
const NO_CLASS: &str = "";

/// What somebody was spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spared {
    /// Requests that were answered.
    pub answered: u64,
    /// Those of them that were answered without one upstream.
    pub saved: u64,
    /// Requests that Sentry would have refused, had they been sent at once.
    pub averted: u64,
    /// Requests that were refused for want of budget.
    pub refused: u64,
    /// Stale responses.
    pub stale: u64,
    /// Time spent waiting before being sent.
    pub waited: Duration,
}

/// The book.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    credentials: HashMap<CredentialPartition, Spared>,
    others: Spared,
}

/// How a request was answered, as far as the book is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it cost a request upstream.
    pub cost: Cost,
    /// Whether the answer was stale.
    pub age: Age,
}

/// What an answer cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Nothing: it was stored, or somebody else had asked.
    Saved,
    /// A request upstream, or an attempt at one.
    Spent,
}

/// Whether an answer was fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It was.
    Fresh,
    /// It was not.
    Stale,
}

impl Ledger {
    fn enter(&self, owner: Option<CredentialPartition>, write: impl FnOnce(&mut Spared)) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = pages.credentials.len() < MOST;
        if let Some(partition) = owner
            && (has_room || pages.credentials.contains_key(&partition))
        {
            write(pages.credentials.entry(partition).or_default());
        } else {
            write(&mut pages.others);
        }
    }

    /// Enters an answer to the owner of a partition, or to one of the others.
    pub fn answered(&self, owner: Option<CredentialPartition>, outcome: Outcome) {
        self.enter(owner, |spared| {
            spared.answered += 1;
            spared.saved += u64::from(outcome.cost == Cost::Saved);
            spared.stale += u64::from(outcome.age == Age::Stale);
        });
    }

    /// Enters a request that was refused for want of budget.
    pub fn refused(&self, owner: Option<CredentialPartition>) {
        self.enter(owner, |spared| spared.refused += 1);
    }

    /// Enters what held a request, and for how long.
    pub fn held(&self, owner: Option<CredentialPartition>, hold: Hold, waited: Duration) {
        self.enter(owner, |spared| {
            spared.averted += u64::from(hold.averts_refusal());
            spared.waited = spared.waited.saturating_add(waited);
        });
    }

    /// Returns every entry, and that of the others.
    pub fn read(&self) -> (Vec<(CredentialPartition, Spared)>, Spared) {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (pages.credentials.iter().map(|(partition, spared)| (*partition, *spared)).collect(), pages.others)
    }
}

impl Rooms {
    /// Enters an answer into the books: that of its credential, and that of its class.
    pub fn enter_answer(&self, partition: CredentialPartition, class: Option<&str>, outcome: Outcome) {
        self.ledger.answered(self.owner(partition), outcome);
        let ledger = self.class_ledger(class);
        if outcome.cost == Cost::Saved {
            ledger.saved();
        }
        if outcome.age == Age::Stale {
            ledger.stale();
        }
    }

    /// Returns who has an entry of their own: whom upstream has accepted, and those without a credential together.
    fn owner(&self, partition: CredentialPartition) -> Option<CredentialPartition> {
        let is_known = partition == CredentialPartition::ANONYMOUS || self.credentials.holds(partition);
        is_known.then_some(partition)
    }

    fn class_ledger(&self, class: Option<&str>) -> &ClassLedger {
        self.metrics.budget.of(class.unwrap_or(NO_CLASS))
    }
}

impl Proxy {
    /// Enters a request that was refused for want of budget into the book.
    pub fn enter_refusal(&self, request: &AdmittedRequest) {
        self.0.ledger.refused(self.0.owner(request.partition()));
    }

    /// Enters what held a request into the books.
    pub fn enter_hold(&self, request: &AdmittedRequest, hold: Hold, waited: Duration) {
        self.0.ledger.held(self.0.owner(request.partition()), hold, waited);
        let ledger = self.0.class_ledger(request.route().class().map(AsRef::as_ref));
        if hold.averts_refusal() {
            ledger.averted();
        }
        ledger.waited(waited);
    }

    /// Tells operators what each credential was spared, the most spared first.
    pub fn ledger_report(&self) -> String {
        let (mut credentials, others) = self.0.ledger.read();
        credentials.sort_by_key(|(_, spared)| std::cmp::Reverse(spared.saved));
        let told = |(partition, spared): &(CredentialPartition, Spared)| {
            entry(self.0.admission.fingerprint(*partition), spared)
        };
        let credentials: Vec<Value> = credentials.iter().map(told).collect();
        json!({ "credentials": credentials, "others": entry(None, &others) }).to_string()
    }
}

fn entry(fingerprint: Option<Fingerprint>, spared: &Spared) -> Value {
    json!({
        "fingerprint": fingerprint.map(|fingerprint| fingerprint.to_string()),
        "requests": spared.answered,
        "refused": spared.refused,
        "saved": spared.saved,
        "averted_refusals": spared.averted,
        "stale": spared.stale,
        "waited_seconds": spared.waited.as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::credential::{Credential, CredentialKeys};

    const SAVED: Outcome = Outcome { cost: Cost::Saved, age: Age::Fresh };

    fn partition(number: usize) -> CredentialPartition {
        let field = HeaderValue::from_str(&format!("Bearer {number}")).unwrap();
        CredentialKeys::derive(&[1; 32]).partition(Credential::from_field(field).as_ref())
    }

    #[test]
    fn every_credential_has_its_own_entry() {
        let ledger = Ledger::default();
        ledger.answered(Some(partition(1)), SAVED);
        ledger.answered(Some(partition(1)), Outcome { cost: Cost::Spent, age: Age::Stale });
        ledger.held(Some(partition(2)), Hold::Window, Duration::from_secs(2));
        ledger.held(Some(partition(2)), Hold::Capacity, Duration::from_secs(1));
        ledger.refused(Some(partition(2)));
        let (entries, others) = ledger.read();
        let of = |number| entries.iter().find(|(owner, _)| *owner == partition(number)).unwrap().1;
        assert_eq!(of(1), Spared { answered: 2, saved: 1, stale: 1, ..Spared::default() });
        assert_eq!(
            of(2),
            Spared { averted: 1, refused: 1, waited: Duration::from_secs(3), ..Spared::default() }
        );
        assert_eq!(others, Spared::default());
    }

    #[test]
    fn who_comes_when_the_book_is_full_is_entered_among_the_others() {
        let ledger = Ledger::default();
        (0..MOST + 5).for_each(|number| ledger.answered(Some(partition(number)), SAVED));
        ledger.answered(Some(partition(0)), SAVED);
        ledger.answered(None, SAVED);
        let (entries, others) = ledger.read();
        assert_eq!((entries.len(), others.saved), (MOST, 6));
        assert!(entries.iter().any(|(_, spared)| spared.saved == 2));
    }
}

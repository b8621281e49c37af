//! Keeps book of what each credential was spared: for operators alone, by fingerprint.
//!
//! Invariants: bounded; whom upstream never accepted, and whoever comes when the book is full, is entered among the others; no
//! credential is in it.
//! Not here: the same by class of routes (`metrics::budget`), who may read it (`admin`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::admission::AdmittedRequest;
use crate::credential::{CredentialPartition, Fingerprint};
use crate::handling::hold::Hold;
use crate::proxy::credentials::Credentials;
use crate::proxy::{Proxy, Rooms};

/// Most credentials that have an entry of their own.
const MOST: usize = 1_000;

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
pub struct Answer {
    /// Whether it cost a request upstream.
    pub cost: Cost,
    /// Whether it was stale.
    pub quality: Quality,
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
pub enum Quality {
    /// It was.
    Fresh,
    /// It was not.
    Stale,
}

/// Whose book something is entered in.
#[derive(Debug, Clone, Copy)]
struct Owner<'a> {
    partition: CredentialPartition,
    credentials: &'a Credentials,
}

impl Owner<'_> {
    /// Returns whether it is one that upstream has accepted, or those without a credential together.
    fn is_accepted(self) -> bool {
        self.partition == CredentialPartition::ANONYMOUS || self.credentials.holds(self.partition)
    }
}

impl Ledger {
    /// Writes into a credential's entry. Who has none yet gets one if there is room, and upstream has accepted it.
    fn enter(&self, owner: Owner<'_>, write: impl FnOnce(&mut Spared)) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Pages { credentials, others } = &mut *pages;
        let has_room = credentials.len() < MOST;
        match credentials.entry(owner.partition) {
            Entry::Occupied(entry) => write(entry.into_mut()),
            Entry::Vacant(entry) if has_room && owner.is_accepted() => write(entry.insert(Spared::default())),
            Entry::Vacant(_) => write(others),
        }
    }

    /// Enters an answer.
    fn answered(&self, owner: Owner<'_>, answer: Answer) {
        self.enter(owner, |spared| {
            spared.answered += 1;
            spared.saved += u64::from(answer.cost == Cost::Saved);
            spared.stale += u64::from(answer.quality == Quality::Stale);
        });
    }

    /// Enters a request that was refused for want of budget.
    fn refused(&self, owner: Owner<'_>) {
        self.enter(owner, |spared| spared.refused += 1);
    }

    /// Enters what held a request, and for how long.
    fn held(&self, owner: Owner<'_>, hold: Hold, waited: Duration) {
        self.enter(owner, |spared| {
            spared.averted += u64::from(hold.averts_refusal());
            spared.waited = spared.waited.saturating_add(waited);
        });
    }

    /// Returns every entry, and that of the others.
    fn read(&self) -> (Vec<(CredentialPartition, Spared)>, Spared) {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (pages.credentials.iter().map(|(partition, spared)| (*partition, *spared)).collect(), pages.others)
    }
}

impl Rooms {
    /// Enters an answer into the books: that of its credential, and that of its class.
    pub fn enter_answer(&self, partition: CredentialPartition, class: Option<&str>, answer: Answer) {
        self.ledger.answered(self.owner(partition), answer);
        let ledger = self.metrics.budget.of(class);
        if answer.cost == Cost::Saved {
            ledger.saved();
        }
        if answer.quality == Quality::Stale {
            ledger.stale();
        }
    }

    fn owner(&self, partition: CredentialPartition) -> Owner<'_> {
        Owner { partition, credentials: &self.credentials }
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
        let ledger = self.0.metrics.budget.of(request.route().class().map(AsRef::as_ref));
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
    use crate::testing::start;

    const SAVED: Answer = Answer { cost: Cost::Saved, quality: Quality::Fresh };

    fn partition(number: usize) -> CredentialPartition {
        let field = HeaderValue::from_str(&format!("Bearer {number}")).unwrap();
        CredentialKeys::derive(&[1; 32]).partition(Credential::from_field(field).as_ref())
    }

    /// Credentials of which these are accepted.
    fn accepted(numbers: std::ops::Range<usize>) -> Credentials {
        let credentials = Credentials::default();
        numbers.for_each(|number| credentials.accept(partition(number), start()));
        credentials
    }

    #[test]
    fn every_credential_that_upstream_accepts_has_its_own_entry() {
        let (ledger, credentials) = (Ledger::default(), accepted(1..3));
        let owner = |number| Owner { partition: partition(number), credentials: &credentials };
        ledger.answered(owner(1), SAVED);
        ledger.answered(owner(1), Answer { cost: Cost::Spent, quality: Quality::Stale });
        ledger.held(owner(2), Hold::Window, Duration::from_secs(2));
        ledger.held(owner(2), Hold::Capacity, Duration::from_secs(1));
        ledger.refused(owner(2));
        ledger.answered(owner(3), SAVED);
        let (entries, others) = ledger.read();
        let of = |number| entries.iter().find(|(owner, _)| *owner == partition(number)).unwrap().1;
        assert_eq!(of(1), Spared { answered: 2, saved: 1, stale: 1, ..Spared::default() });
        let waited = Duration::from_secs(3);
        assert_eq!(of(2), Spared { averted: 1, refused: 1, waited, ..Spared::default() });
        assert_eq!((entries.len(), others.answered), (2, 1));
    }

    #[test]
    fn who_comes_when_the_book_is_full_is_entered_among_the_others() {
        let (ledger, credentials) = (Ledger::default(), accepted(0..MOST + 5));
        let owner = |number| Owner { partition: partition(number), credentials: &credentials };
        (0..MOST + 5).for_each(|number| ledger.answered(owner(number), SAVED));
        ledger.answered(owner(0), SAVED);
        let (entries, others) = ledger.read();
        assert_eq!((entries.len(), others.saved), (MOST, 5));
        assert!(entries.iter().any(|(_, spared)| spared.saved == 2));
    }
}

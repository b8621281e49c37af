//! What came of taking organization tokens at their word: each for itself, because anybody can write into one.
//!
//! A token says in which region its organization lives. One that was not tried yet is tried with a read; accepted there, it
//! is *proven* and steers its own writes, too; refused there, it is *refuted* and not followed for a while. Nobody else's
//! requests are ever steered by it.
//!
//! Invariant: bounded; when it is full, all is forgotten, which costs each token another try.
//! Not here: what a token says (`credential::claim`), which regions there are (`regions::allow_list`).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::credential::CredentialPartition;

/// How long a token that was wrong is not followed.
const MEMORY: Duration = Duration::from_mins(10);

/// Most tokens remembered.
const MOST: usize = 4_096;

/// What is known of a token's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// Nothing.
    Untried,
    /// Upstream accepted the token where it says.
    Proven,
    /// It was refused there, or nobody could be reached.
    Refuted,
}

/// What came of each token's word.
#[derive(Debug, Default)]
pub struct Hints(Mutex<HashMap<CredentialPartition, Trial>>);

#[derive(Debug, Clone, Copy)]
enum Trial {
    Proven,
    Refuted { until: SystemTime },
}

impl Hints {
    /// Returns what is known of a token's word at `now`.
    pub fn worth(&self, token: CredentialPartition, now: SystemTime) -> Worth {
        match self.trials().get(&token) {
            Some(Trial::Proven) => Worth::Proven,
            Some(Trial::Refuted { until }) if now < *until => Worth::Refuted,
            Some(Trial::Refuted { .. }) | None => Worth::Untried,
        }
    }

    /// Notes that upstream accepted a token where it says.
    pub fn prove(&self, token: CredentialPartition) {
        self.note(token, Trial::Proven);
    }

    /// Notes at `now` that upstream refused a token where it says.
    pub fn refute(&self, token: CredentialPartition, now: SystemTime) {
        self.note(token, Trial::Refuted { until: now + MEMORY });
    }

    fn note(&self, token: CredentialPartition, trial: Trial) {
        let mut trials = self.trials();
        if MOST <= trials.len() && !trials.contains_key(&token) {
            trials.clear();
        }
        trials.insert(token, trial);
    }

    fn trials(&self) -> MutexGuard<'_, HashMap<CredentialPartition, Trial>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::credential::{Credential, CredentialKeys};
    use crate::testing::start;

    fn token(number: usize) -> CredentialPartition {
        let value = HeaderValue::from_str(&format!("Bearer sntrys_{number}")).unwrap();
        CredentialKeys::derive(&[7; 32]).partition(Credential::from_field(value).as_ref())
    }

    #[test]
    fn a_token_that_was_wrong_is_not_followed_for_a_while() {
        let hints = Hints::default();
        assert_eq!(hints.worth(token(1), start()), Worth::Untried);
        hints.refute(token(1), start());
        assert_eq!(hints.worth(token(1), start() + MEMORY - Duration::from_millis(1)), Worth::Refuted);
        assert_eq!(hints.worth(token(2), start()), Worth::Untried);
        assert_eq!(hints.worth(token(1), start() + MEMORY), Worth::Untried);
    }

    #[test]
    fn a_token_that_was_accepted_is_proven_until_it_is_refused() {
        let hints = Hints::default();
        hints.prove(token(1));
        assert_eq!(hints.worth(token(1), start() + 10 * MEMORY), Worth::Proven);
        hints.refute(token(1), start());
        assert_eq!(hints.worth(token(1), start()), Worth::Refuted);
        hints.prove(token(1));
        assert_eq!(hints.worth(token(1), start()), Worth::Proven);
    }

    #[test]
    fn the_table_stays_bounded_whoever_comes() {
        let hints = Hints::default();
        for number in 0..=2 * MOST {
            hints.refute(token(number), start());
            assert!(hints.trials().len() <= MOST);
            assert_eq!(hints.worth(token(number), start()), Worth::Refuted);
        }
    }
}

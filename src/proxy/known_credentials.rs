//! Remembers which credentials upstream has accepted, so that only those have anything to lose.
//!
//! A 401 makes a credential's partition unusable. For a credential that upstream never accepted there is nothing to
//! make unusable, and doing it all the same would let anybody with random tokens wear other stored responses away:
//! partitions share the slots of a fixed table (`cache::generations`).
//!
//! Invariant: bounded; when it is full, every credential counts as accepted. Not here: what a 401 leads to.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::credential::CredentialPartition;

/// Most partitions remembered.
const MOST: usize = 65_536;

/// The partitions of credentials that upstream has accepted once.
#[derive(Debug, Default)]
pub struct KnownCredentials(Mutex<HashSet<CredentialPartition>>);

impl KnownCredentials {
    /// Remembers that upstream accepted the credential of this partition.
    pub fn add(&self, partition: CredentialPartition) {
        let mut accepted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.len() < MOST {
            accepted.insert(partition);
        }
    }

    /// Returns whether upstream may have accepted the credential of this partition.
    pub fn holds(&self, partition: CredentialPartition) -> bool {
        let accepted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.len() >= MOST || accepted.contains(&partition)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::credential::{Credential, CredentialKeys};

    #[test]
    fn only_what_was_accepted_is_held() {
        let keys = CredentialKeys::derive(&[1; 32]);
        let partition = |token: &'static str| {
            keys.partition(Credential::from_field(HeaderValue::from_static(token)).as_ref())
        };
        let accepted = KnownCredentials::default();
        accepted.add(partition("Bearer a"));
        assert!(accepted.holds(partition("Bearer a")));
        assert!(!accepted.holds(partition("Bearer b")));
    }
}

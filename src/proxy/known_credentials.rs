//! Remembers which credentials upstream has accepted, so that only those have anything to lose.
//!
//! A 401 makes a credential's partition unusable. For a credential that upstream never accepted there is nothing to
//! make unusable, and doing it all the same would let anybody with random tokens wear other stored responses away:
//! partitions share the slots of a fixed table (`cache::generations`).
//!
//! Invariant: bounded; when it is full, every credential counts as accepted. Not here: what else follows from an answer.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use http::{Method, StatusCode};

use crate::admission::AdmittedRequest;
use crate::cache::generations::Cause;
use crate::cache::key::normalized_path;
use crate::credential::CredentialPartition;
use crate::proxy::Proxy;
use crate::routes::tags::Tag;

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

impl Proxy {
    /// Notes what an answer to a safe request says of the credential and of what is stored for it.
    ///
    /// A 401 says that upstream does not know the credential any more: its whole partition becomes unusable. A 403, 404
    /// or 410 says that for this credential the resource is not there: what is stored of it becomes unusable. A 403 to
    /// `HEAD` says nothing: Sentry refuses that method to every token.
    pub fn note_rejection(&self, request: &AdmittedRequest, status: StatusCode) {
        let partition = *request.partition().as_bytes();
        let lost = match status {
            StatusCode::FORBIDDEN if *request.method() == Method::HEAD => return,
            StatusCode::UNAUTHORIZED if request.credential().is_some() => Tag::Partition(partition),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => {
                Tag::Seen(partition, normalized_path(request.path()))
            }
            status if status.is_success() => return self.known_credentials().add(request.partition()),
            _ => return,
        };
        if request.credential().is_none() || self.known_credentials().holds(request.partition()) {
            self.generations().invalidate_tags(&[lost], Cause::Purge, self.clock().now());
        }
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

//! Remembers what upstream said of each credential, so that a revoked one has nothing for long.
//!
//! A 403 says that this credential may not have this resource: what is stored of it becomes unusable. A 401 says that
//! upstream does not know the credential, or does not want it here: that becomes unusable too, and the credential is
//! *suspended*: nothing of it is reused, and its reads go upstream one at a time (none waits for longer than a few seconds),
//! until upstream accepts it once. A second
//! 401 without that drops all that is stored for it. A credential that lives on hits alone is shown to upstream now and then.
//!
//! A credential that was never accepted has nothing to lose. Making its partition unusable all the same would let anybody
//! with random tokens wear other stored responses away: partitions share the slots of a fixed table (`cache::generations`).
//!
//! Invariants: bounded; when it is full, a credential without a record counts as accepted, and loses everything with its
//! first 401. Not here: answers that are remembered for a moment (`proxy::rejections`).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use crate::admission::access::Access;
use crate::admission::{AdmittedRequest, BodyFraming};
use crate::cache::directives::Asking;
use crate::cache::freshness::Decision;
use crate::cache::generations::Cause;
use crate::cache::stored_response::{Found, StoredResponse};
use crate::credential::{CredentialPartition, Fingerprint};
use crate::handling::ForwardReason;
use crate::proxy::Proxy;
use crate::routes::spelling::normalized_path;
use crate::routes::tags::Tag;

/// Most credentials remembered.
const MOST: usize = 65_536;

/// Most credentials remembered that were rejected and never accepted; beyond that all are forgotten.
const MOST_STRANGERS: usize = 4_096;

/// How long a request waits for its turn; then it goes all the same.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

/// What upstream said of each credential.
#[derive(Debug, Default)]
pub struct Credentials {
    records: Mutex<HashMap<CredentialPartition, Record>>,
    /// How many are suspended: mostly none, and then nobody has to look.
    suspended: AtomicUsize,
    strangers: Strangers,
}

/// Credentials that upstream has rejected and never accepted: it counts them by the address that they come from.
#[derive(Debug, Default)]
struct Strangers {
    known: Mutex<HashSet<CredentialPartition>>,
    count: AtomicUsize,
}

impl Strangers {
    fn known(&self) -> MutexGuard<'_, HashSet<CredentialPartition>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, partition: CredentialPartition) {
        let mut known = self.known();
        if MOST_STRANGERS <= known.len() {
            known.clear();
        }
        known.insert(partition);
        self.count.store(known.len(), Ordering::Relaxed);
    }

    fn remove(&self, partition: CredentialPartition) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut known = self.known();
            known.remove(&partition);
            self.count.store(known.len(), Ordering::Relaxed);
        }
    }

    fn holds(&self, partition: CredentialPartition) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.known().contains(&partition)
    }
}

#[derive(Debug)]
struct Record {
    /// When upstream accepted it last.
    accepted: SystemTime,
    suspension: Option<Suspension>,
}

#[derive(Debug)]
struct Suspension {
    since: SystemTime,
    /// Whose turn it is to ask upstream.
    turn: Arc<Semaphore>,
}

/// What follows from a 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing: upstream never accepted it.
    None,
    /// It is suspended.
    Suspended,
    /// All that is stored for it is lost.
    Dropped,
}

/// Whether what is stored for a credential may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It may.
    Good,
    /// Upstream has not seen it for too long.
    Unverified,
    /// Upstream has rejected it, and not accepted it since.
    Suspended,
}

impl Credentials {
    fn records(&self) -> MutexGuard<'_, HashMap<CredentialPartition, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that upstream accepted a credential with a request that took off at that moment.
    pub fn accept(&self, partition: CredentialPartition, took_off: SystemTime) {
        self.strangers.remove(partition);
        let mut records = self.records();
        let has_room = records.len() < MOST;
        match records.get_mut(&partition) {
            Some(record) => {
                record.accepted = record.accepted.max(took_off);
                // What was on its way already when the 401 came says nothing of the time after it.
                if record.suspension.take_if(|suspension| suspension.since <= took_off).is_some() {
                    self.suspended.fetch_sub(1, Ordering::Relaxed);
                }
            }
            None if has_room => {
                records.insert(partition, Record { accepted: took_off, suspension: None });
            }
            None => {}
        }
    }

    /// Notes that upstream rejected a credential with a request that took off at that moment.
    pub fn reject(
        &self,
        partition: CredentialPartition,
        (took_off, now): (SystemTime, SystemTime),
    ) -> Consequence {
        let mut records = self.records();
        let is_full = MOST <= records.len();
        match records.get_mut(&partition) {
            // What was on its way already says the same thing, not the same thing again.
            Some(Record { suspension: Some(suspension), .. }) if took_off < suspension.since => {
                Consequence::None
            }
            Some(Record { suspension: Some(_), .. }) => Consequence::Dropped,
            Some(record) => {
                record.suspension = Some(Suspension { since: now, turn: Arc::new(Semaphore::new(1)) });
                self.suspended.fetch_add(1, Ordering::Relaxed);
                Consequence::Suspended
            }
            None if is_full => Consequence::Dropped,
            None => {
                drop(records);
                self.strangers.add(partition);
                Consequence::None
            }
        }
    }

    /// Returns whether what was fetched with a credential at some moment may be reused at `now`. `bound` is how long it is
    /// believed without a word of upstream.
    pub fn trust(
        &self,
        partition: CredentialPartition,
        (fetched, now): (SystemTime, SystemTime),
        bound: Duration,
    ) -> Trust {
        let is_recent = |moment: SystemTime| now.duration_since(moment).unwrap_or_default() < bound;
        if self.suspended.load(Ordering::Relaxed) == 0 && is_recent(fetched) {
            return Trust::Good;
        }
        match self.records().get(&partition) {
            Some(Record { suspension: Some(_), .. }) => Trust::Suspended,
            Some(record) if is_recent(fetched) || is_recent(record.accepted) => Trust::Good,
            None if is_recent(fetched) => Trust::Good,
            Some(_) | None => Trust::Unverified,
        }
    }

    /// Returns whose turn it is to ask upstream with a suspended credential.
    fn turn(&self, partition: CredentialPartition) -> Option<Arc<Semaphore>> {
        if self.suspended.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.records().get(&partition)?.suspension.as_ref().map(|suspension| Arc::clone(&suspension.turn))
    }

    /// Returns whether nothing of a credential may be reused.
    pub fn is_suspended(&self, partition: CredentialPartition) -> bool {
        self.turn(partition).is_some()
    }

    /// Returns whether it is somebody else's turn to ask upstream with a suspended credential.
    pub fn is_turn_taken(&self, partition: CredentialPartition) -> bool {
        self.turn(partition).is_some_and(|turn| turn.available_permits() == 0)
    }

    /// Returns whether upstream has rejected a credential that it never accepted.
    pub fn is_stranger(&self, partition: CredentialPartition) -> bool {
        self.strangers.holds(partition)
    }

    /// Returns whether upstream may have accepted a credential.
    pub fn holds(&self, partition: CredentialPartition) -> bool {
        let records = self.records();
        MOST <= records.len() || records.contains_key(&partition)
    }
}

impl Proxy {
    /// Turns what was decided into a question to upstream where it would reuse what is stored for a credential that is not
    /// to be trusted; what was found is no use to a suspended one.
    pub fn with_trust(
        &self,
        request: &AdmittedRequest,
        found: Found,
        decision: Decision,
    ) -> (Found, Decision) {
        let Found::Stored(stored, _) = &found else { return (found, decision) };
        if request.credential().is_none() {
            return (found, decision);
        }
        let trust = self.trust_in(request, stored);
        let may_ask = self.policy().directives(request).asking == Asking::Allowed;
        match (trust, decision) {
            (Trust::Suspended, _) if !may_ask => (Found::Unusable, Decision::OnlyIfCached),
            (Trust::Unverified, _) if !may_ask => (found, Decision::OnlyIfCached),
            (Trust::Suspended, _) => (Found::Unusable, Decision::Forward(ForwardReason::CredentialSuspended)),
            (
                Trust::Unverified,
                Decision::Reuse(_)
                | Decision::ReuseThenRevalidate(_)
                | Decision::ReuseUnderPressure(_)
                | Decision::RefreshAhead(_),
            ) => (found, Decision::Forward(ForwardReason::CredentialUnverified)),
            (Trust::Good, _) | (Trust::Unverified, Decision::Forward(_) | Decision::OnlyIfCached) => {
                (found, decision)
            }
        }
    }

    /// Returns whether a stored response may be reused for the credential of a request.
    pub fn trust_in(&self, request: &AdmittedRequest, stored: &StoredResponse) -> Trust {
        let moments = (stored.provenance().response_time, self.clock().now());
        self.credentials().trust(request.partition(), moments, self.settings().max_unverified)
    }

    /// Returns whether a request has to wait for its turn.
    pub fn needs_turn(&self, request: &AdmittedRequest) -> bool {
        request.is_safe()
            && request.body() == BodyFraming::Absent
            && self.credentials().is_suspended(request.partition())
    }

    /// Waits until it is the turn of a request whose credential is suspended. What changes something, or goes at its client's
    /// pace, has no turn: nobody else is to wait for it.
    pub async fn turn_of(&self, request: &AdmittedRequest, within: Duration) -> Option<OwnedSemaphorePermit> {
        if !self.needs_turn(request) {
            return None;
        }
        let turn = self.credentials().turn(request.partition())?;
        let permit = time::timeout(TURN_PATIENCE.min(within), turn.acquire_owned()).await.ok()?.ok();
        // It may have been accepted meanwhile: then nobody has to wait any more.
        permit.filter(|_| self.credentials().is_suspended(request.partition()))
    }

    /// Notes what an answer to a request that took off at that moment says of its credential.
    pub fn note_verdict(&self, request: &AdmittedRequest, status: StatusCode, took_off: SystemTime) {
        if request.credential().is_none() {
            return;
        }
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            self.credentials().accept(request.partition(), took_off);
        } else if status == StatusCode::UNAUTHORIZED && request.is_safe() {
            self.note_401(request, took_off);
        }
    }

    /// Notes that upstream says that for this credential something is not there: what is stored of it becomes unusable. A
    /// 403 to `HEAD` says nothing: Sentry refuses that method to every token.
    pub fn note_absence(&self, request: &AdmittedRequest, status: StatusCode) {
        let is_absent = match status {
            StatusCode::FORBIDDEN => *request.method() != Method::HEAD,
            StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND | StatusCode::GONE => true,
            _ => false,
        };
        let may_have_some = request.credential().is_none() || self.credentials().holds(request.partition());
        if is_absent && may_have_some {
            self.forget(seen(request));
        }
    }

    fn note_401(&self, request: &AdmittedRequest, took_off: SystemTime) {
        let partition = request.partition();
        let consequence = self.credentials().reject(partition, (took_off, self.clock().now()));
        let credential = self.fingerprint_of(request).map(tracing::field::display);
        match consequence {
            // There may be something all the same, if it was accepted meanwhile.
            Consequence::None => self.note_absence(request, StatusCode::UNAUTHORIZED),
            Consequence::Suspended => {
                self.forget(seen(request));
                tracing::warn!(
                    request_id = %request.id(),
                    credential,
                    "credential rejected: suspended until Sentry accepts it again"
                );
            }
            Consequence::Dropped => {
                self.forget(Tag::Credential(self.fingerprint_of(request)));
                tracing::warn!(
                    request_id = %request.id(),
                    credential,
                    "credential rejected again: all that was stored for it is dropped"
                );
            }
        }
    }

    /// Returns who is served at all.
    pub fn access(&self) -> &Access {
        self.0.admission.access()
    }

    /// Returns what people may see of a request's credential.
    pub fn fingerprint_of(&self, request: &AdmittedRequest) -> Option<Fingerprint> {
        self.0.admission.fingerprint(request.partition())
    }

    fn forget(&self, lost: Tag) {
        self.generations().invalidate_tags(&[lost], Cause::Purge, self.clock().now());
    }
}

/// What a credential has seen of a path.
fn seen(request: &AdmittedRequest) -> Tag {
    Tag::Seen(*request.partition().as_bytes(), normalized_path(request.path()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SUBJECT, asked, start};

    const BOUND: Duration = Duration::from_mins(15);

    fn partition(token: &str) -> CredentialPartition {
        asked(SUBJECT, &[("authorization", token)]).partition()
    }

    fn after(seconds: u64) -> SystemTime {
        start() + Duration::from_secs(seconds)
    }

    /// Whether what was fetched so many seconds after the start may be reused so many after it.
    fn trust(credentials: &Credentials, fetched: u64, now: u64) -> Trust {
        credentials.trust(partition("Bearer a"), (after(fetched), after(now)), BOUND)
    }

    #[test]
    fn a_credential_that_was_never_accepted_has_nothing_to_lose() {
        let credentials = Credentials::default();
        assert_eq!(credentials.reject(partition("Bearer a"), (start(), start())), Consequence::None);
        assert!(!credentials.holds(partition("Bearer a")));
        assert!(
            credentials.is_stranger(partition("Bearer a")) && !credentials.is_stranger(partition("Bearer b"))
        );
        credentials.accept(partition("Bearer a"), start());
        assert!(!credentials.is_stranger(partition("Bearer a")));
    }

    #[test]
    fn rejections_of_one_moment_are_one_rejection() {
        let credentials = Credentials::default();
        let alice = partition("Bearer a");
        credentials.accept(alice, start());
        assert_eq!(credentials.reject(alice, (after(1), after(3))), Consequence::Suspended);
        assert_eq!(credentials.reject(alice, (after(2), after(4))), Consequence::None);
        assert_eq!(credentials.reject(alice, (after(5), after(6))), Consequence::Dropped);
    }

    #[test]
    fn a_401_suspends_until_the_credential_is_accepted_again_and_a_second_one_drops() {
        let credentials = Credentials::default();
        let alice = partition("Bearer a");
        credentials.accept(alice, start());
        assert_eq!(trust(&credentials, 0, 10), Trust::Good);
        assert_eq!(credentials.reject(alice, (after(10), after(10))), Consequence::Suspended);
        assert_eq!(trust(&credentials, 0, 11), Trust::Suspended);
        credentials.accept(alice, after(9));
        assert_eq!(trust(&credentials, 0, 11), Trust::Suspended, "on its way before the 401");
        credentials.accept(alice, after(12));
        assert_eq!(trust(&credentials, 0, 13), Trust::Good);
        assert_eq!(credentials.reject(alice, (after(14), after(14))), Consequence::Suspended);
        assert_eq!(credentials.reject(alice, (after(15), after(15))), Consequence::Dropped);
        assert_eq!(trust(&credentials, 0, 16), Trust::Suspended);
        assert_eq!(credentials.trust(partition("Bearer b"), (start(), after(16)), BOUND), Trust::Good);
    }

    #[test]
    fn a_credential_is_believed_for_as_long_as_the_bound_since_upstream_saw_it() {
        let credentials = Credentials::default();
        assert_eq!(trust(&credentials, 0, 899), Trust::Good);
        assert_eq!(trust(&credentials, 0, 900), Trust::Unverified);
        credentials.accept(partition("Bearer a"), after(500));
        assert_eq!(trust(&credentials, 0, 900), Trust::Good);
        assert_eq!(trust(&credentials, 0, 1_400), Trust::Unverified);
    }

    #[test]
    fn only_a_suspended_credential_has_to_wait_for_its_turn() {
        let credentials = Credentials::default();
        let (alice, bob) = (partition("Bearer a"), partition("Bearer b"));
        credentials.accept(alice, start());
        assert!(credentials.turn(alice).is_none());
        credentials.reject(alice, (start(), start()));
        assert!(credentials.turn(bob).is_none());
        let turn = credentials.turn(alice).unwrap();
        let _first = turn.try_acquire_owned().unwrap();
        assert!(credentials.turn(alice).unwrap().try_acquire_owned().is_err());
    }
}

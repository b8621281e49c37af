//! What is said of a request that is explained. Plain data; serialized as it stands, for whoever reads it by machine.
//!
//! Invariant: durations are told in seconds, under names that say so; whatever has a label, by that.
//! Not here: what would happen (`explaining::foreseen`), how it looks on a screen (`explaining::screen`), how it comes about
//! (`explaining`).

use std::time::Duration;

use serde::Serialize;

use crate::budget::gate::GateState;
use crate::budget::observation::{Gates, Headroom};
use crate::handling::{Handling, Refusal};
use crate::headers::CacheStatus;
use crate::proxy::explaining::foreseen::Foreseen;
use crate::proxy::explaining::seconds::Seconds;

/// What is said of one request.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The method.
    pub method: String,
    /// Path and query, in normal spelling, without a credential.
    pub target: String,
    /// What would happen now.
    pub now: Foreseen,
    /// What it depends on; `None` where the request would not get past the door.
    #[serde(flatten)]
    pub subject: Option<Subject>,
}

impl Explanation {
    /// Says that a request would not get past the door.
    pub fn at_the_door(method: String, target: String, refusal: &Refusal) -> Self {
        let handling = Handling::Refuse(refusal.reason);
        let now = Foreseen::new(
            handling,
            CacheStatus::refused(refusal.reason),
            refusal.detail.clone().into_owned(),
        );
        Self { method, target, now, subject: None }
    }

    /// Returns it as JSON.
    pub fn json(&self) -> String {
        // It has text, numbers and lists of them: nothing that JSON does not know.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What a request depends on.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    /// The rule that applies.
    pub rule: RuleInForce,
    /// Who asks.
    pub credential: Asker,
    /// Where it goes.
    pub upstream: Destination,
    /// Whether the cache may answer.
    pub eligibility: Eligible,
    /// The key; absent where the cache may not answer.
    pub key: Option<KeyText>,
    /// What is stored; absent where the cache may not answer.
    pub stored: Option<Stored>,
    /// What Sentry's limits leave.
    pub budget: BudgetFacts,
}

/// Whether the cache may answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Eligible {
    /// It may, and the answer may be stored.
    Cacheable,
    /// It may, and the answer is not stored.
    ReuseOnly,
    /// It may not: the request is forwarded as it is.
    Forward,
}

/// The rule that applies to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleInForce {
    /// Its template; absent where no rule says anything.
    pub template: Option<String>,
    /// Who made it.
    pub origin: Option<&'static str>,
    /// The class that it names.
    pub class: Option<String>,
    /// Whether answers are never stored.
    pub never: bool,
    /// The query parameter because of which they are not.
    pub never_with: Option<&'static str>,
    /// Whether it wins over upstream's own directives.
    #[serde(rename = "override")]
    pub overrides: bool,
    /// The freshness lifetime; absent where RFC 9111 alone decides.
    #[serde(rename = "fresh_for_seconds")]
    pub fresh_for: Option<Seconds>,
    /// How long it goes out stale while it is refreshed.
    #[serde(rename = "stale_while_revalidate_seconds")]
    pub stale_while_revalidate: Option<Seconds>,
    /// How long it stands in when upstream fails; absent where RFC 9111 alone decides.
    #[serde(rename = "stale_if_error_seconds")]
    pub stale_if_error: Option<Seconds>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asker {
    /// The kind of the credential.
    pub kind: Option<&'static str>,
    /// What may be seen of it.
    pub fingerprint: Option<String>,
    /// What upstream said of it.
    pub standing: CredentialStanding,
    /// What upstream counts its requests by.
    pub counted_by: &'static str,
}

/// What upstream said of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialStanding {
    /// There is none.
    Absent,
    /// Nothing yet.
    Unseen,
    /// It accepted it.
    Accepted,
    /// It accepted it, too long ago for what is stored to be reused unasked.
    Unverified,
    /// It never accepted it.
    Rejected,
    /// It accepted it, and rejected it since.
    Suspended,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// The upstream's authority.
    pub name: String,
    /// Why it goes there, by its label.
    pub bearing: &'static str,
}

/// The key of what a request asks for, readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyText {
    /// The fingerprint of the credential, or `anonymous`.
    pub partition: String,
    /// The upstream.
    pub upstream: String,
    /// Path and query in normal spelling.
    pub target: String,
    /// `Accept`, or `JSON`.
    pub accept: String,
    /// `Accept-Language`; empty for any.
    pub accept_language: String,
    /// `Origin`; empty for none.
    pub origin: String,
    /// The further fields that select among the variants, as far as is known by now.
    pub nominated: Vec<String>,
}

/// What is stored for a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stored {
    /// What kind of thing.
    pub found: Kind,
    /// The response, if it is one.
    #[serde(flatten)]
    pub response: Option<StoredFacts>,
}

/// What kind of thing is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing.
    Nothing,
    /// A response, for other values of the fields that `Vary` nominates.
    OtherVariant,
    /// A response that a write or a purge has made unusable.
    Unusable,
    /// A response.
    Response,
}

/// A stored response, as it is at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredFacts {
    /// Its status code.
    pub status: u16,
    /// Its type.
    pub content_type: Option<String>,
    /// The length of its body, in the coding in which it came.
    pub bytes: usize,
    /// That coding.
    pub coding: &'static str,
    /// How many bytes it takes in the store.
    pub weight: u32,
    /// Its age.
    #[serde(rename = "age_seconds")]
    pub age: Seconds,
    /// Its freshness lifetime.
    #[serde(rename = "lifetime_seconds")]
    pub lifetime: Seconds,
    /// What is left of that, in whole seconds; negative when stale.
    #[serde(rename = "ttl_seconds")]
    pub ttl: i64,
    /// Whether it is fresh.
    #[serde(rename = "fresh")]
    pub is_fresh: bool,
    /// How long from now it may go out while it is refreshed; absent where it may not go out stale.
    #[serde(rename = "stale_while_revalidate_left_seconds")]
    pub stale_while_revalidate_left: Option<Seconds>,
    /// How long from now it may stand in when upstream is out of reach; absent where it may not.
    #[serde(rename = "stale_if_error_left_seconds")]
    pub stale_if_error_left: Option<Seconds>,
    /// How it stands towards writes and purges.
    pub standing: &'static str,
    /// Whether upstream can be asked to validate it.
    #[serde(rename = "validator")]
    pub has_validator: bool,
    /// How often it was reused.
    pub reuses: u32,
}

/// What Sentry's limits leave to a request's caller, by its method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BudgetFacts {
    /// Whether anything is limited.
    pub enabled: bool,
    /// Requests per window; absent, as all that follows, where it is not known.
    pub limit: Option<u32>,
    /// Requests left in the window.
    pub remaining: Option<u32>,
    /// When the window ends, in seconds since the Unix epoch by Sentry's clock.
    pub reset: Option<u64>,
    /// Requests at a time.
    pub concurrent_limit: Option<u32>,
    /// Requests that may still come at this moment.
    pub concurrent_remaining: Option<u32>,
    /// How much is in use.
    pub pressure_percent: u8,
    /// How many requests of all callers wait.
    pub waiting: usize,
    /// The gates that are not open.
    pub gates: Vec<ClosedGate>,
}

impl BudgetFacts {
    /// Says what is known of a limit.
    pub fn new(gates: Option<Gates>, headroom: Headroom, waiting: usize) -> Self {
        let fields = headroom.fields.unwrap_or_default();
        let of = gates.map(|gates| {
            [("upstream", gates.upstream), ("limit", gates.limit), ("route", gates.route)]
                .into_iter()
                .filter_map(|(of, state)| ClosedGate::new(of, state))
        });
        Self {
            enabled: gates.is_some(),
            limit: fields.limit,
            remaining: fields.remaining,
            reset: fields.reset,
            concurrent_limit: fields.concurrent_limit,
            concurrent_remaining: fields.concurrent_remaining,
            pressure_percent: headroom.pressure.percent(),
            waiting,
            gates: of.into_iter().flatten().collect(),
        }
    }
}

/// A gate that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClosedGate {
    /// What it stands before.
    pub of: &'static str,
    /// How it stands.
    pub state: &'static str,
    /// What has closed it.
    pub hold: &'static str,
    /// How long it stays so at the most.
    #[serde(rename = "left_seconds")]
    pub left: Seconds,
}

impl ClosedGate {
    fn new(of: &'static str, state: GateState) -> Option<Self> {
        let (state, hold, left) = match state {
            GateState::Open => return None,
            GateState::Closed(left, hold) => ("closed", hold, left),
            GateState::Due(hold) => ("due", hold, Duration::ZERO),
            GateState::Probing(left, hold) => ("probing", hold, left),
        };
        Some(Self { of, state, hold: hold.label(), left: Seconds(left) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handling::hold::Hold;

    #[test]
    fn a_gate_is_told_unless_it_is_open() {
        assert_eq!(ClosedGate::new("route", GateState::Open), None);
        for (state, told) in [
            (GateState::Closed(Duration::from_secs(3), Hold::Gate), "closed"),
            (GateState::Due(Hold::Breaker), "due"),
            (GateState::Probing(Duration::from_secs(1), Hold::Gate), "probing"),
        ] {
            assert_eq!(ClosedGate::new("route", state).map(|gate| gate.state), Some(told));
        }
    }
}

//! What goes wrong on purpose: a switch that tests turn while the sandbox runs.
//!
//! Invariant: the first rule that matches a request applies, alone; a rule that is used up is removed.
//! Not here: doing it (`sandbox`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The answer has this status, and a body of Sentry's for it.
    Answer(StatusCode),
    /// The request waits before it is looked at: the answer shows the world as it is then.
    Delay(Duration),
    /// The answer waits before it leaves: it shows the world as it was when the request came.
    SlowAnswer(Duration),
    /// No answer ever comes.
    Hang,
    /// The connection is closed without an answer.
    Close,
    /// The body breaks off after its first half, with the connection.
    Truncate,
    /// The body stops after its first half, and the connection stays open.
    Stall,
    /// The answer has one more field.
    AddField(HeaderName, HeaderValue),
}

/// Which requests it goes wrong for, and how often.
#[derive(Debug, Clone)]
pub struct FaultRule {
    /// Only this method; absent means every one.
    pub method: Option<Method>,
    /// What the target (path and query) starts with.
    pub target_prefix: String,
    /// How many requests more.
    pub times: u64,
    /// What goes wrong.
    pub fault: Fault,
}

impl FaultRule {
    /// Returns a rule for every request whose target starts so.
    pub fn always(target_prefix: &str, fault: Fault) -> Self {
        Self { method: None, target_prefix: target_prefix.to_owned(), times: u64::MAX, fault }
    }

    /// Returns a rule for the next request whose target starts so.
    pub fn once(target_prefix: &str, fault: Fault) -> Self {
        Self { times: 1, ..Self::always(target_prefix, fault) }
    }

    /// Returns the rule for one method only.
    #[must_use]
    pub fn on(self, method: Method) -> Self {
        Self { method: Some(method), ..self }
    }
}

/// The rules in force; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<FaultRule>>>,
}

impl Faults {
    /// Adds a rule behind those in force.
    pub fn add(&self, rule: FaultRule) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    /// Removes all rules; what is already going wrong goes on.
    pub fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns what goes wrong with a request, and counts it.
    pub fn strike(&self, method: &Method, target: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = rules.iter_mut().find(|rule| {
            rule.times > 0
                && target.starts_with(&rule.target_prefix)
                && rule.method.as_ref().is_none_or(|only| only == method)
        })?;
        rule.times -= 1;
        let fault = rule.fault.clone();
        rules.retain(|rule| rule.times > 0);
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_strikes_its_targets_as_often_as_it_says() {
        let faults = Faults::default();
        faults.add(FaultRule::once("/a/", Fault::Hang).on(Method::GET));
        faults.add(FaultRule::always("/a/b", Fault::Close));
        assert_eq!(faults.strike(&Method::GET, "/x"), None);
        assert_eq!(faults.strike(&Method::PUT, "/a/"), None);
        assert_eq!(faults.strike(&Method::GET, "/a/b?c"), Some(Fault::Hang));
        assert_eq!(faults.strike(&Method::GET, "/a/b?c"), Some(Fault::Close));
        assert_eq!(faults.strike(&Method::PUT, "/a/b"), Some(Fault::Close));
        faults.clear();
        assert_eq!(faults.strike(&Method::GET, "/a/b"), None);
    }
}

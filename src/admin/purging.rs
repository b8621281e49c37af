//! Reads what an operator wants purged, and says what became of it: the JSON of `POST /purge`.
//!
//! An order names one thing, and how thoroughly: `{"organization": "acme", "mode": "soft"}`. No body at all means
//! everything, softly.
//!
//! Invariants: what cannot be understood is refused with what was expected; a token is never told back.
//! Not here: what is meant by a name (`cache::invalidation::selector`), purging (handed in).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cache::generations::PurgeDepth;
use crate::cache::invalidation::selector::{Selector, SelectorError};
use crate::config::Secret;
use crate::credential::Fingerprint;

/// What an order may say, as told to whoever gave another one.
const EXPECTED: &str = "expected a JSON object with exactly one of url, route, organization, credential, token, tag and \
    everything, and perhaps mode, \"soft\" or \"hard\"";

/// What is to be purged, and how thoroughly.
#[derive(Debug)]
pub struct PurgeOrder {
    /// What.
    pub subject: PurgeSubject,
    /// How thoroughly.
    pub depth: PurgeDepth,
}

/// What is to be purged.
#[derive(Debug)]
pub enum PurgeSubject {
    /// What a selector means.
    Selected(Selector),
    /// All of the credential that this token is.
    Token(Secret),
}

/// What a purge did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeReport {
    /// What was purged.
    pub purged: Selector,
    /// How thoroughly.
    pub depth: PurgeDepth,
    /// How many stored responses there were.
    pub responses: u64,
}

/// Why nothing was purged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PurgeRefusal {
    /// The body is no order.
    #[error("{EXPECTED}: {0}")]
    Malformed(String),
    /// The body names nothing, or more than one thing.
    #[error("{EXPECTED}; found {0} of them")]
    Subjects(usize),
    /// `everything` is false.
    #[error("`everything` can only be true")]
    NotEverything,
    /// The fingerprint is none.
    #[error("`credential` wants a fingerprint of 16 hexadecimal digits, as `sentrybox fingerprint` tells it")]
    Fingerprint,
    /// The token could be no credential.
    #[error("`token` wants a token, or the value of an Authorization field")]
    Token,
    /// What is meant cannot be told.
    #[error(transparent)]
    Selector(#[from] SelectorError),
}

/// Purges; handed in by whoever owns the store.
#[derive(Clone)]
pub struct Purge(Arc<dyn Fn(PurgeOrder) -> PurgeFuture + Send + Sync>);

type PurgeFuture = Pin<Box<dyn Future<Output = Result<PurgeReport, PurgeRefusal>> + Send>>;

impl Purge {
    /// Wraps the function that purges.
    pub fn new<F>(purge: impl Fn(PurgeOrder) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<PurgeReport, PurgeRefusal>> + Send + 'static,
    {
        Self(Arc::new(move |order| Box::pin(purge(order))))
    }

    /// Purges what the body of a request orders.
    ///
    /// # Errors
    /// What is ordered cannot be understood.
    pub async fn carry_out(&self, body: &[u8]) -> Result<PurgeReport, PurgeRefusal> {
        (self.0)(PurgeOrder::read(body)?).await
    }
}

impl fmt::Debug for Purge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Purge").finish_non_exhaustive()
    }
}

/// The body of a request, as it is spelled.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    url: Option<String>,
    route: Option<String>,
    organization: Option<String>,
    credential: Option<String>,
    token: Option<Secret>,
    tag: Option<String>,
    everything: Option<bool>,
    mode: Option<PurgeDepth>,
}

impl PurgeOrder {
    fn read(body: &[u8]) -> Result<Self, PurgeRefusal> {
        if body.trim_ascii().is_empty() {
            let subject = PurgeSubject::Selected(Selector::Everything);
            return Ok(Self { subject, depth: PurgeDepth::Soft });
        }
        let body: Body = serde_json::from_slice(body).map_err(|error| {
            // Where it is wrong, and never what stands there.
            PurgeRefusal::Malformed(format!("line {}, column {}", error.line(), error.column()))
        })?;
        let depth = body.mode.unwrap_or_default();
        Ok(Self { subject: body.subject()?, depth })
    }
}

impl Body {
    fn subject(self) -> Result<PurgeSubject, PurgeRefusal> {
        let everything = match self.everything {
            Some(true) => Some(Selector::Everything),
            Some(false) => return Err(PurgeRefusal::NotEverything),
            None => None,
        };
        let fingerprint = |text: String| Fingerprint::parse(&text).ok_or(PurgeRefusal::Fingerprint);
        let credential = self.credential.map(fingerprint).transpose()?;
        let named = [
            self.url.map(Selector::Url),
            self.route.map(Selector::Route),
            self.organization.map(Selector::Organization),
            credential.map(Selector::Credential),
            self.tag.map(Selector::Tag),
            everything,
        ];
        let selected = named.into_iter().flatten().map(PurgeSubject::Selected);
        let mut subjects: Vec<_> = selected.chain(self.token.map(PurgeSubject::Token)).collect();
        let count = subjects.len();
        subjects.pop().filter(|_| count == 1).ok_or(PurgeRefusal::Subjects(count))
    }
}

impl PurgeReport {
    /// Returns the report as JSON, in one line.
    pub fn json(&self) -> String {
        let (purged, mode) = (named(&self.purged), self.depth.label());
        format!(r#"{{"purged":{purged},"mode":"{mode}","responses":{}}}"#, self.responses)
    }
}

/// Returns what a selector names, as an order spells it.
fn named(selector: &Selector) -> Value {
    match selector {
        Selector::Url(url) => json!({ "url": url }),
        Selector::Route(route) => json!({ "route": route }),
        Selector::Organization(name) => json!({ "organization": name }),
        Selector::Credential(fingerprint) => json!({ "credential": fingerprint.to_string() }),
        Selector::Tag(tag) => json!({ "tag": tag }),
        Selector::Everything => json!("everything"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says what a body orders, or why it is none.
    fn read(body: &str) -> String {
        match PurgeOrder::read(body.as_bytes()) {
            Ok(PurgeOrder { subject: PurgeSubject::Selected(selector), depth }) => {
                format!("{} {}", depth.label(), named(&selector))
            }
            Ok(PurgeOrder { subject: PurgeSubject::Token(token), depth }) => {
                format!("{} token of {}", depth.label(), token.expose().len())
            }
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn an_order_names_one_thing_and_is_soft_unless_it_says_otherwise() {
        for (body, expected) in [
            ("", r#"soft "everything""#),
            (" \n", r#"soft "everything""#),
            (r#"{"everything":true,"mode":"hard"}"#, r#"hard "everything""#),
            (r#"{"organization":"acme"}"#, r#"soft {"organization":"acme"}"#),
            (r#"{"url":"/api/0/","mode":"soft"}"#, r#"soft {"url":"/api/0/"}"#),
            (r#"{"route":"/api/0/{a}/"}"#, r#"soft {"route":"/api/0/{a}/"}"#),
            (r#"{"tag":"issue:1","mode":"hard"}"#, r#"hard {"tag":"issue:1"}"#),
            (r#"{"credential":"0123456789ABCDEF"}"#, r#"soft {"credential":"0123456789abcdef"}"#),
            (r#"{"token":"sntryu_canary"}"#, "soft token of 13"),
        ] {
            assert_eq!(read(body), expected);
        }
    }

    #[test]
    fn what_is_no_order_is_refused_with_what_was_expected() {
        for (body, part) in [
            ("{}", "found 0 of them"),
            (r#"{"mode":"hard"}"#, "found 0 of them"),
            (r#"{"organization":"acme","tag":"issue:1"}"#, "found 2 of them"),
            (r#"{"organisation":"acme"}"#, "exactly one of url, route, organization"),
            (r#"{"organization":"acme","mode":"gentle"}"#, "perhaps mode"),
            ("[1]", "expected a JSON object"),
            ("organization=acme", "line 1, column 1"),
            (r#"{"everything":false}"#, "can only be true"),
            (r#"{"credential":"acme"}"#, "16 hexadecimal digits"),
        ] {
            assert!(read(body).contains(part), "{body}: {}", read(body));
        }
    }

    #[test]
    fn no_answer_repeats_a_token() {
        for body in [
            r#"{"token":"sntryu_canary","url":"/"}"#,
            r#"{"token":"sntryu_canary}"#,
            r#"{"sntryu_canary":1}"#,
        ] {
            assert!(!read(body).contains("canary"), "{}", read(body));
        }
        assert!(!format!("{:?}", PurgeOrder::read(br#"{"token":"sntryu_canary"}"#)).contains("canary"));
    }

    #[test]
    fn a_report_is_one_line_of_json() {
        let purged = Selector::Organization("acme".to_owned());
        let report = PurgeReport { purged, depth: PurgeDepth::Soft, responses: 2 };
        assert_eq!(report.json(), r#"{"purged":{"organization":"acme"},"mode":"soft","responses":2}"#);
    }
}

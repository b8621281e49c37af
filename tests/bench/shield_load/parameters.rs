//! The seed and the shape of the load, and of the Sentry behind it: fixed, so that figures can be compared.

use std::time::Duration;

use http::HeaderName;
use sentrybox::config::load;
use sentrybox::sandbox::limits::Allowance;
use sentrybox::sandbox::people::crowd_token;
use sentrybox::sandbox::{Sandbox, SandboxOptions};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::trace::{Event, Trace};

/// The field in which the sandbox says when an answer was made.
pub(crate) const STAMP: HeaderName = HeaderName::from_static("x-made-at");

/// How many tokens each of the eight users has: twenty in all.
const TOKENS_OF_USERS: [u8; 8] = [4, 3, 3, 3, 2, 2, 2, 1];

/// The load. Times are in milliseconds, ranges include both ends.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Parameters {
    pub(crate) seed: u64,
    pub(crate) duration_ms: u64,
    /// When upstream begins to fail, and when it is well again.
    pub(crate) failure_ms: (u64, u64),
    /// Clients that read one thing after the other, and the time between two reads.
    pub(crate) readers: usize,
    pub(crate) reader_gap_ms: (u64, u64),
    /// Clients that read many things at once, again and again.
    pub(crate) dashboards: usize,
    pub(crate) dashboard_period_ms: (u64, u64),
    pub(crate) dashboard_reads: usize,
    /// Different dashboards that they show.
    pub(crate) boards: usize,
    /// Clients that make a release, poll until it is deployed, and rest.
    pub(crate) deployers: usize,
    pub(crate) polls: u64,
    pub(crate) poll_every_ms: u64,
    pub(crate) deployer_rest_ms: (u64, u64),
    /// Clients that resolve or reopen an issue now and then; the last one also does while upstream fails.
    pub(crate) writers: usize,
    pub(crate) writer_gap_ms: (u64, u64),
    /// Every how many of a client's writes it changes all issues of a project at once, and how long before and while
    /// upstream fails nobody does: it makes everything of an organization unusable.
    pub(crate) bulk_every: u64,
    pub(crate) no_bulk_before_failure_ms: u64,
    /// How long upstream takes, by path.
    pub(crate) latency_ms: (u64, u64),
    /// What upstream allows each user in a second, and at once: what Sentry's own service does.
    pub(crate) limit_per_second: u32,
    pub(crate) limit_at_once: u32,
}

impl Parameters {
    /// 120 clients for 75 s.
    pub(crate) const fn full() -> Self {
        Self {
            seed: 0x5e17_2b0c,
            duration_ms: 75_000,
            failure_ms: (35_000, 45_000),
            readers: 70,
            reader_gap_ms: (200, 1_800),
            dashboards: 40,
            dashboard_period_ms: (8_000, 16_000),
            dashboard_reads: 30,
            boards: 6,
            deployers: 6,
            polls: 10,
            poll_every_ms: 1_000,
            deployer_rest_ms: (20_000, 40_000),
            writers: 4,
            writer_gap_ms: (6_000, 18_000),
            bulk_every: 3,
            no_bulk_before_failure_ms: 15_000,
            latency_ms: (50, 300),
            limit_per_second: 40,
            limit_at_once: 25,
        }
    }

    /// The same clients for 9 s, in more of a hurry.
    pub(crate) const fn short() -> Self {
        Self {
            duration_ms: 9_000,
            failure_ms: (4_500, 6_500),
            readers: 80,
            dashboards: 30,
            dashboard_period_ms: (2_500, 4_500),
            polls: 3,
            deployer_rest_ms: (3_000, 9_000),
            writer_gap_ms: (4_000, 9_000),
            ..Self::full()
        }
    }

    pub(crate) const fn clients(&self) -> usize {
        self.readers + self.dashboards + self.deployers + self.writers
    }

    /// Starts the Sentry of the load.
    pub(crate) async fn sandbox(&self) -> Sandbox {
        let (shortest, longest) = self.latency_ms;
        let options = SandboxOptions {
            allowance: Allowance { per_second: self.limit_per_second, at_once: self.limit_at_once },
            min_latency: Duration::from_millis(shortest),
            max_latency: Duration::from_millis(longest),
            stamp: Some(STAMP),
            ..SandboxOptions::default()
        };
        Sandbox::start(options).await.unwrap()
    }

    /// Returns what `minimum.py` must know besides the trace, and the parameters for whoever reads along.
    pub(crate) fn describe(&self, trace: &Trace, sandbox: &Sandbox) -> Value {
        let settle = load::defaults().cache.settle;
        let latencies = trace.events.iter().map(Event::path).map(|path| {
            let latency = u64::try_from(sandbox.latency(path).as_millis()).unwrap();
            (path.to_owned(), Value::from(latency))
        });
        let lifetimes = trace.lifetimes.iter().map(|(target, fresh)| (target.clone(), Value::from(*fresh)));
        json!({
            "parameters": self,
            "users_of_tokens": tokens().iter().map(|token| token.user).collect::<Vec<_>>(),
            "settle_ms": u64::try_from(settle.as_millis()).unwrap(),
            "settling_fresh_for_ms": 1_000,
            "failure_ms": self.failure_ms,
            "largest_latency_ms": self.latency_ms.1,
            "fresh_for_ms": lifetimes.collect::<Map<_, _>>(),
            "latency_ms": latencies.collect::<Map<_, _>>(),
        })
    }
}

/// A token: whose, and what it is.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) user: u8,
    pub(crate) text: String,
}

/// Returns all tokens, so that neighbours in the list are of different users.
pub(crate) fn tokens() -> Vec<Token> {
    let most = TOKENS_OF_USERS.iter().max().copied().unwrap_or_default();
    let rounds = (0..most).flat_map(|round| {
        let users = (1..).zip(TOKENS_OF_USERS).filter(move |(_, count)| round < *count);
        users.map(move |(user, _)| Token { user, text: crowd_token(user, round) })
    });
    rounds.collect()
}

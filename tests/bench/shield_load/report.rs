//! What came of it: the figures of each system, side by side, and whether what was promised holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use sentrybox::sandbox::Sandbox;
use serde_json::Value;

use crate::load::{Answer, Played};
use crate::systems::System;
use crate::trace::Trace;

/// Least share of 429 among direct answers, in percent: below, the trace is too gentle to prove anything.
const HARD_ENOUGH: u64 = 10;

/// How much more than the minimum may be asked of upstream, in percent.
const CLOSE_ENOUGH: u64 = 110;

/// Why sentrybox may answer with 5xx.
const CAUSES: [&str; 3] = ["write", "never_stored", "invalidated"];

/// What was measured of one system.
#[derive(Debug)]
pub(crate) struct Figures {
    name: &'static str,
    answers: Vec<Answer>,
    /// How long each stale answer had been stale, shortest first.
    staleness: Vec<Duration>,
    /// What each client waited, shortest first.
    waits: Vec<Duration>,
    upstream: u64,
    upstream_refused: u64,
    upstream_succeeded: u64,
    refreshes_ahead: u64,
    /// How many answers the trace does not provide for.
    strange: u64,
    /// How many answers show the state before a write that was answered before they were asked for.
    outdated: u64,
}

impl Figures {
    pub(crate) fn of(trace: &Trace, played: &Played, (sandbox, system): (&Sandbox, &impl System)) -> Self {
        let answers = played.answers.clone();
        let mut staleness: Vec<_> =
            answers.iter().filter_map(|answer| staleness(trace, answer)).map(Duration::from_millis).collect();
        staleness.sort_unstable();
        let mut waits: Vec<_> = answers.iter().map(|answer| Duration::from_millis(answer.wait_ms)).collect();
        waits.sort_unstable();
        let journal = sandbox.journal();
        let succeeded = [StatusCode::OK, StatusCode::CREATED].map(|status| journal.answered(status));
        Self {
            name: system.name(),
            answers,
            staleness,
            waits,
            upstream: journal.total(),
            upstream_refused: journal.answered(StatusCode::TOO_MANY_REQUESTS),
            upstream_succeeded: succeeded.iter().sum(),
            refreshes_ahead: system.refreshes_ahead(),
            strange: played.answers.iter().filter(|answer| is_strange(trace, answer)).count() as u64,
            outdated: 0,
        }
    }

    pub(crate) fn with_outdated(self, outdated: u64) -> Self {
        Self { outdated, ..self }
    }

    fn count(&self, is_meant: impl Fn(u16) -> bool) -> u64 {
        self.answers.iter().filter(|answer| is_meant(answer.status)).count() as u64
    }

    fn refused(&self) -> u64 {
        self.count(|status| status == 429)
    }

    fn failed(&self) -> u64 {
        self.count(|status| (500..600).contains(&status))
    }

    fn unanswered(&self) -> u64 {
        self.count(|status| status == 0)
    }

    /// Counts requests upstream that somebody's request has caused.
    fn asked(&self) -> u64 {
        self.upstream.saturating_sub(self.refreshes_ahead)
    }
}

/// Returns whether an answer is one that the trace does not provide for. A deploy script polls for a release that is not there
/// when its creation has failed.
fn is_strange(trace: &Trace, answer: &Answer) -> bool {
    let is_poll = trace.events.get(answer.event).is_some_and(|event| event.target.ends_with("/deploys/"));
    match answer.status {
        429 => false,
        404 => !is_poll,
        1..200 | 300..500 => true,
        _ => false,
    }
}

/// Returns for how many milliseconds an answer has been stale, if the system says that it is.
fn staleness(trace: &Trace, answer: &Answer) -> Option<u64> {
    let cache = answer.cache.as_deref()?;
    if !["STALE", "UPDATING", "stale-while-revalidate", "stale-if-error"]
        .iter()
        .any(|word| cache.contains(word))
    {
        return None;
    }
    let seconds =
        cache.split("ttl=-").nth(1).and_then(|rest| rest.split(';').next()?.trim().parse::<u64>().ok());
    let lifetime = trace.lifetimes.get(&trace.events.get(answer.event)?.target)?;
    let beyond = answer.age_ms.unwrap_or_default().saturating_sub(*lifetime);
    Some(seconds.map_or(beyond, |seconds| seconds * 1_000))
}

/// Everything that is to be told.
pub(crate) struct Report {
    figures: Vec<Figures>,
    minimum: u64,
    /// By cause: how many answers are 5xx because of it, and how many may be.
    failures: BTreeMap<&'static str, (u64, u64)>,
    unexplained: Vec<Answer>,
    /// How many of those are of keys that were last fetched soon after a write.
    settling: usize,
}

/// A promise, and whether it was kept.
struct Promise {
    text: String,
    holds: bool,
}

impl Report {
    pub(crate) fn new(figures: Vec<Figures>, minimum: &Value) -> Self {
        let number = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap();
        let dictated = |cause: &str| number(minimum.get("dictated").and_then(|all| all.get(cause)));
        let mut failures: BTreeMap<_, _> = CAUSES.map(|cause| (cause, (0, dictated(cause)))).into();
        let mut unexplained = Vec::new();
        let failed = |answer: &&Answer| (500..600).contains(&answer.status) || answer.status == 0;
        for answer in figures.last().unwrap().answers.iter().filter(failed) {
            let cause =
                minimum.get("causes").and_then(|causes| causes.get(answer.event.to_string())?.as_str());
            match cause.and_then(|cause| failures.get_mut(cause)) {
                Some((count, _)) => *count += 1,
                None => unexplained.push(answer.clone()),
            }
        }
        let settling = minimum.get("settling").and_then(Value::as_array).unwrap();
        let is_settling = |answer: &&Answer| settling.contains(&Value::from(answer.event));
        let settling = unexplained.iter().filter(is_settling).count();
        Self { figures, settling, minimum: number(minimum.get("minimum")), failures, unexplained }
    }

    pub(crate) fn holds(&self) -> bool {
        self.promises().iter().all(|promise| promise.holds)
    }

    pub(crate) fn text(&self) -> String {
        let mut text = self.table();
        let sentrybox = self.sentrybox();
        writeln!(text, "\nminimum: {} requests upstream", self.minimum).unwrap();
        for figures in &self.figures {
            let Figures { name, upstream, refreshes_ahead, upstream_succeeded, .. } = figures;
            writeln!(
                text,
                "{name}: {upstream} requests upstream, {refreshes_ahead} of them ahead, {upstream_succeeded} with \
                 success; without those ahead {} × the minimum, of the successful {} ×",
                ratio(figures.asked(), self.minimum),
                ratio(upstream_succeeded.saturating_sub(*refreshes_ahead), self.minimum),
            )
            .unwrap();
        }
        writeln!(text, "\n5xx of {}, of those that the trace dictates:", sentrybox.name).unwrap();
        for (cause, (count, dictated)) in &self.failures {
            writeln!(text, "  {cause}: {count} of {dictated}").unwrap();
        }
        let (unexplained, settling) = (self.unexplained.len(), self.settling);
        writeln!(
            text,
            "  unexplained: {unexplained}, {settling} of them of what was fetched soon after a write"
        )
        .unwrap();
        for Answer { event, status, wait_ms, cache, .. } in self.unexplained.iter().take(10) {
            let cache = cache.as_deref().unwrap_or_default();
            writeln!(text, "    event {event}: {status} after {wait_ms} ms; {cache}").unwrap();
        }
        writeln!(text).unwrap();
        for Promise { text: promise, holds } in self.promises() {
            writeln!(text, "{}: {promise}", if holds { "pass" } else { "FAIL" }).unwrap();
        }
        text
    }

    /// Returns a row per system, in Markdown.
    fn table(&self) -> String {
        let mut text = String::from(
            "| | requests | 429 | 5xx | no answer | upstream | upstream 429 | stale | stale by p50, max | \
             outdated | wait p50, p99, max |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for figures in &self.figures {
            let at = |sorted: &[Duration], percent| seconds(quantile(sorted, percent));
            let staleness = if figures.staleness.is_empty() {
                "–".to_owned()
            } else {
                format!("{}, {}", at(&figures.staleness, 50), at(&figures.staleness, 100))
            };
            let [p50, p99, most] = [50, 99, 100].map(|percent| at(&figures.waits, percent));
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {staleness} | {} | {p50}, {p99}, {most} |",
                figures.name,
                figures.answers.len(),
                figures.refused(),
                figures.failed(),
                figures.unanswered(),
                figures.upstream,
                figures.upstream_refused,
                figures.staleness.len(),
                figures.outdated,
            )
            .unwrap();
        }
        text
    }

    fn sentrybox(&self) -> &Figures {
        self.figures.last().unwrap()
    }

    fn promises(&self) -> Vec<Promise> {
        let (direct, sentrybox) = (self.figures.first().unwrap(), self.sentrybox());
        let share = direct.refused() * 1_000 / direct.answers.len() as u64;
        let is_dictated = self.failures.values().all(|(count, dictated)| count <= dictated);
        let strange: u64 = self.figures.iter().map(|figures| figures.strange).sum();
        let promise = |holds, text: String| Promise { text, holds };
        vec![
            promise(
                HARD_ENOUGH * 10 <= share,
                format!(
                    "direct, {}.{} % of the answers are 429, of {HARD_ENOUGH} % at least",
                    share / 10,
                    share % 10
                ),
            ),
            promise(strange == 0, format!("{strange} answers that the trace does not provide for")),
            promise(
                sentrybox.refused() == 0,
                format!("{} 429 reach a client of sentrybox", sentrybox.refused()),
            ),
            promise(
                is_dictated && self.unexplained.is_empty(),
                format!("{} failures that the trace does not dictate", self.unexplained.len()),
            ),
            promise(
                sentrybox.upstream_refused == 0,
                format!("sentrybox has {} 429 of upstream", sentrybox.upstream_refused),
            ),
            promise(
                sentrybox.outdated == 0,
                format!("{} answers of sentrybox show the state before a write", sentrybox.outdated),
            ),
            promise(
                sentrybox.asked() * 100 <= self.minimum * CLOSE_ENOUGH,
                format!(
                    "sentrybox asks upstream {} × the minimum, of {} at most",
                    ratio(sentrybox.asked(), self.minimum),
                    ratio(CLOSE_ENOUGH, 100)
                ),
            ),
        ]
    }
}

/// Returns the value below which so many percent lie.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or_default()
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn ratio(one: u64, other: u64) -> String {
    let thousandths = one * 1_000 / other.max(1);
    format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}

//! The trace: who sends what when. Made from the parameters alone, and written down for others to compute with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::parameters::{Parameters, tokens};
use crate::random::Random;
use crate::targets::{self, ORGANIZATIONS, ReadTarget};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    /// Milliseconds since the start.
    pub(crate) at_ms: u64,
    /// Who sends it, by number.
    pub(crate) client: usize,
    /// With which token, by its place among all.
    pub(crate) token: usize,
    pub(crate) method: &'static str,
    pub(crate) target: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) body: String,
}

/// All requests in the order of their times, and for how long each target's answers are fresh.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) events: Vec<Event>,
    pub(crate) lifetimes: BTreeMap<String, u64>,
}

/// What a write changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// One issue.
    Issue,
    /// All issues of a project.
    Project,
}

/// A trace in the making.
struct Draft<'a> {
    parameters: &'a Parameters,
    random: Random,
    /// The sixty targets, the most wanted one first.
    ranked: Vec<ReadTarget>,
    /// For each dashboard, what it shows.
    boards: Vec<Vec<ReadTarget>>,
    tokens: usize,
    trace: Trace,
}

impl Event {
    /// Returns the path of its target.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

impl Trace {
    pub(crate) fn generate(parameters: &Parameters) -> Self {
        let mut random = Random::seeded(parameters.seed);
        let mut ranked = targets::all();
        random.shuffle(&mut ranked);
        let boards = (0..parameters.boards).map(|_| board(&mut random, &ranked, parameters)).collect();
        let trace = Self { events: Vec::new(), lifetimes: BTreeMap::new() };
        let mut draft = Draft { parameters, random, ranked, boards, tokens: tokens().len(), trace };
        for client in 0..parameters.clients() {
            draft.client(client);
        }
        // Stable: what a client sends at one moment keeps its order.
        draft.trace.events.sort_by_key(|event| event.at_ms);
        draft.trace
    }

    /// Writes a JSON object per event.
    pub(crate) fn write(&self, path: &Path) {
        let mut text = String::new();
        for event in &self.events {
            writeln!(text, "{}", serde_json::to_string(event).unwrap()).unwrap();
        }
        std::fs::write(path, text).unwrap();
    }

    /// Says in a line what it is.
    pub(crate) fn summary(&self, parameters: &Parameters) -> String {
        let writes = self.events.iter().filter(|event| event.method != "GET").count();
        let (begin, end) = parameters.failure_ms;
        format!(
            "{} requests ({writes} writes) of {} clients with {} tokens to {} targets in {} ms; upstream takes {} to \
             {} ms, allows each user {} per second and {} at once, and fails from {begin} to {end} ms",
            self.events.len(),
            parameters.clients(),
            tokens().len(),
            self.lifetimes.len(),
            parameters.duration_ms,
            parameters.latency_ms.0,
            parameters.latency_ms.1,
            parameters.limit_per_second,
            parameters.limit_at_once,
        )
    }
}

/// Chooses what a dashboard shows.
fn board(random: &mut Random, ranked: &[ReadTarget], parameters: &Parameters) -> Vec<ReadTarget> {
    let mut shown = ranked.to_vec();
    random.shuffle(&mut shown);
    shown.truncate(parameters.dashboard_reads);
    shown
}

impl Draft<'_> {
    /// Adds all that one client sends.
    fn client(&mut self, client: usize) {
        let Parameters { readers, dashboards, deployers, .. } = *self.parameters;
        if client < readers {
            self.reader(client);
        } else if client < readers + dashboards {
            self.dashboard(client);
        } else if client < readers + dashboards + deployers {
            self.deployer(client);
        } else {
            self.writer(client);
        }
    }

    /// Reads one thing after the other: the second most wanted one half as often as the first, and so on.
    fn reader(&mut self, client: usize) {
        let weights: Vec<u64> = (1..=self.ranked.len() as u64).map(|rank| 1_000_000 / rank).collect();
        let all: u64 = weights.iter().sum();
        let mut at = self.random.below(self.parameters.reader_gap_ms.1);
        while at < self.parameters.duration_ms {
            let mut left = self.random.below(all);
            let chosen = weights.iter().position(|weight| match left.checked_sub(*weight) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            });
            let target = self.ranked.get(chosen.unwrap()).unwrap().clone();
            self.read(at, client, target);
            at += self.random.within(self.parameters.reader_gap_ms);
        }
    }

    /// Reads everything that it shows, at once and again and again.
    fn dashboard(&mut self, client: usize) {
        let period = self.random.within(self.parameters.dashboard_period_ms);
        let shown = self.boards.get(client % self.boards.len()).unwrap().clone();
        let mut at = self.random.below(period);
        while at < self.parameters.duration_ms {
            for target in &shown {
                self.read(at, client, target.clone());
            }
            at += period;
        }
    }

    /// Makes a release, and polls until it is deployed.
    fn deployer(&mut self, client: usize) {
        let Parameters { polls, poll_every_ms, deployer_rest_ms, duration_ms, .. } = *self.parameters;
        let mut at = self.random.below(deployer_rest_ms.1);
        while at < duration_ms {
            let organization = self.organization();
            let version = format!("deploy-{client}-{at}");
            let body = format!(r#"{{"version":"{version}","projects":["project-001"]}}"#);
            let target = format!("{}{organization}/releases/", targets::PREFIX);
            self.send(Event { at_ms: at, client, token: 0, method: "POST", target, body });
            for _ in 0..polls {
                at += poll_every_ms;
                self.read(at, client, targets::deploys(organization, &version));
            }
            at += self.random.within(deployer_rest_ms);
        }
    }

    /// Resolves an issue now and then, or reopens it; and now and then all those of a project.
    fn writer(&mut self, client: usize) {
        let Parameters { writer_gap_ms, duration_ms, failure_ms: (begin, end), .. } = *self.parameters;
        let calm = begin.saturating_sub(self.parameters.no_bulk_before_failure_ms)..end;
        let mut at = self.random.below(writer_gap_ms.1);
        for number in 1.. {
            if duration_ms <= at {
                break;
            }
            let is_bulk = number % self.parameters.bulk_every == 0 && !calm.contains(&at);
            self.write(at, client, if is_bulk { Written::Project } else { Written::Issue });
            at += self.random.within(writer_gap_ms);
        }
        if client + 1 == self.parameters.clients() {
            self.write(begin + (end - begin) / 3, client, Written::Issue);
        }
    }

    fn write(&mut self, at_ms: u64, client: usize, written: Written) {
        let organization = self.organization();
        let target = match written {
            Written::Issue => format!("{}{organization}/issues/PROJECT-001-1/", targets::PREFIX),
            Written::Project => format!("/api/0/projects/{organization}/project-001/issues/"),
        };
        let status = if self.random.below(2) == 0 { "resolved" } else { "unresolved" };
        let body = format!(r#"{{"status":"{status}"}}"#);
        self.send(Event { at_ms, client, token: 0, method: "PUT", target, body });
    }

    fn read(&mut self, at_ms: u64, client: usize, read: ReadTarget) {
        let ReadTarget { target, fresh_for_ms } = read;
        self.trace.lifetimes.insert(target.clone(), fresh_for_ms);
        self.send(Event { at_ms, client, token: 0, method: "GET", target, body: String::new() });
    }

    /// Adds an event with its client's token, unless it comes too late.
    fn send(&mut self, event: Event) {
        if event.at_ms < self.parameters.duration_ms {
            let token = event.client % self.tokens;
            self.trace.events.push(Event { token, ..event });
        }
    }

    fn organization(&mut self) -> &'static str {
        let number = self.random.below(ORGANIZATIONS.len() as u64);
        ORGANIZATIONS.get(usize::try_from(number).unwrap()).unwrap()
    }
}

//! What the run has shown, in tables, and whether it holds.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::PANICS;
use crate::judge::lock;
use crate::measuring::Sample;
use crate::schedule::Stage;

/// How much more may be used in the last third than in the first: a tenth, and this much besides.
const RESIDENT_SLACK: u64 = 16 << 20;
const DESCRIPTOR_SLACK: u64 = 40;

/// How large the plots are.
const WIDTH: usize = 72;
const HEIGHT: u64 = 8;

/// The report of a run.
#[derive(Debug)]
pub(crate) struct Report {
    text: String,
    holds: bool,
}

impl Report {
    pub(crate) fn new(stage: &Stage, samples: &[Sample]) -> Self {
        let mut report = Self { text: String::new(), holds: true };
        report.add_outcomes(stage);
        report.add_hits(stage);
        report.add_costs(stage);
        report.add_figures(samples);
        report.add_level(stage, samples);
        report.add_lines(stage);
        let own = PANICS.load(Ordering::Relaxed);
        report.bounded("panics of the clients and of upstream", (own, 0));
        let errors = stage.judge.tally().errors;
        report.bounded("errors", (errors, 0));
        report
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) const fn holds(&self) -> bool {
        self.holds
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// Adds a figure, which may not be more than `most`.
    fn bounded(&mut self, name: &str, (figure, most): (u64, u64)) {
        let holds = figure <= most;
        self.holds &= holds;
        self.line(&format!("{name}: {figure}, at most {most}: {}", if holds { "ok" } else { "FAILED" }));
    }

    /// Adds what clients saw, by what was wrong and by what they asked.
    fn add_outcomes(&mut self, stage: &Stage) {
        let tally = stage.judge.tally();
        let kinds: BTreeMap<String, _> =
            tally.kinds.iter().map(|(kind, row)| ((*kind).to_owned(), row.clone())).collect();
        for (name, table) in [("what was wrong", &tally.outcomes), ("what was asked", &kinds)] {
            self.line(&format!("\nWhat clients saw, by {name}:"));
            for (label, row) in table {
                let cells: Vec<_> =
                    row.iter().map(|(outcome, count)| format!("{outcome} × {count}")).collect();
                self.line(&format!("  {label:<16} {}", cells.join(", ")));
            }
        }
        self.line("\nCounted besides:");
        for (what, count) in &tally.notes {
            self.line(&format!("  {count:>8} {what}"));
        }
        self.line(&format!("  {:>8} requests that upstream was asked", stage.upstream.requests()));
        let seconds = tally.aftermath.as_secs_f32();
        self.line(&format!(
            "  {seconds:>8.1} s after a fault at the most, an answer to a new request spoke of it"
        ));
    }

    /// Adds how long watched hits took.
    fn add_hits(&mut self, stage: &Stage) {
        self.line("\nHits of five watchers, in ms:        hits     p50     p90     p99     max   no hits");
        let mut tally = stage.judge.tally();
        let misses = tally.misses.clone();
        for (during, took) in &mut tally.hits {
            let misses = misses.get(during).unwrap_or(&0);
            took.sort_unstable();
            let of = |percent: usize| {
                let index = (took.len() * percent / 100).min(took.len().saturating_sub(1));
                milliseconds(took.get(index).copied().unwrap_or_default())
            };
            let (p50, p90, p99, most) = (of(50), of(90), of(99), of(100));
            self.line(&format!(
                "  {during:<30} {:>8} {p50:>7} {p90:>7} {p99:>7} {most:>7} {misses:>9}",
                took.len()
            ));
        }
    }

    /// Adds what connections cost.
    fn add_costs(&mut self, stage: &Stage) {
        self.line("\nMemory per connection that idles, in bytes:   count  resident  allocated");
        for cost in lock(&stage.costs).iter() {
            self.line(&format!(
                "  {:<40} {:>8} {:>9} {:>10}",
                cost.fault.label(),
                cost.connections,
                cost.resident,
                cost.allocated
            ));
        }
    }

    /// Adds the figures: some of them in a table, and two as plots.
    fn add_figures(&mut self, samples: &[Sample]) {
        self.line("\n    time  start  resident  allocated   stored  descriptors  connections  panics");
        for sample in samples.iter().step_by((samples.len() / 40).max(1)) {
            self.line(&format!(
                "{:>6} s {:>6} {:>5} MiB  {:>5} MiB {:>4} MiB {:>12} {:>12} {:>7}",
                sample.at.as_secs(),
                sample.start,
                sample.resident >> 20,
                sample.allocated >> 20,
                sample.stored >> 20,
                sample.descriptors,
                sample.connections,
                sample.panics
            ));
        }
        let mebibytes: Vec<_> = samples.iter().map(|sample| sample.resident >> 20).collect();
        self.add_plot("resident memory, in MiB", &mebibytes);
        let descriptors: Vec<_> = samples.iter().map(|sample| sample.descriptors).collect();
        self.add_plot("open descriptors", &descriptors);
    }

    /// Adds a plot: each column is the highest of its values.
    fn add_plot(&mut self, name: &str, values: &[u64]) {
        let size = values.len().div_ceil(WIDTH).max(1);
        let columns: Vec<_> =
            values.chunks(size).map(|some| some.iter().max().copied().unwrap_or(0)).collect();
        let most = columns.iter().max().copied().unwrap_or(0).max(1);
        self.line(&format!("\n{name}, over the whole run:"));
        for row in (0..HEIGHT).rev() {
            let bound = most * row / HEIGHT;
            let mut line = format!("{:>6} |", most * (row + 1) / HEIGHT);
            for column in &columns {
                line.push(if bound < *column { '#' } else { ' ' });
            }
            self.line(&line);
        }
        self.line(&format!("       +{}", "-".repeat(columns.len())));
    }

    /// Compares the last third of the longest life, after the crowds have gone, with the first.
    fn add_level(&mut self, stage: &Stage, samples: &[Sample]) {
        let from = *lock(&stage.level_from);
        let longest =
            samples.iter().max_by_key(|sample| life_of(samples, sample.start)).map(|last| last.start);
        let level: Vec<_> = samples
            .iter()
            .filter(|sample| Some(sample.start) == longest && from <= sample.at)
            .copied()
            .collect();
        let third = level.len() / 3;
        let (Some(first), Some(last)) = (level.get(..third), level.get(level.len() - third..)) else {
            return;
        };
        self.line("");
        self.add_growth(stage, "resident memory", (RESIDENT_SLACK, |sample| sample.resident), (first, last));
        self.add_growth(stage, "descriptors", (DESCRIPTOR_SLACK, |sample| sample.descriptors), (first, last));
        let panics: u64 = samples.iter().map(|sample| sample.panics).max().unwrap_or(0);
        self.bounded("panics", (panics, 0));
    }

    /// Compares one figure.
    fn add_growth(
        &mut self,
        stage: &Stage,
        name: &str,
        (slack, figure): (u64, fn(&Sample) -> u64),
        (first, last): (&[Sample], &[Sample]),
    ) {
        let (before, after) = (median(first, figure), median(last, figure));
        self.line(&format!("{name}: {before} in the first third, {after} in the last"));
        // In a short run nothing has had the time to be level.
        if stage.plan.is_long() {
            self.bounded(&format!("{name} in the last third"), (after, before + before / 10 + slack));
        }
    }

    /// Adds what the proxy has logged.
    fn add_lines(&mut self, stage: &Stage) {
        self.line("\nLines of the log, none with a token:");
        for (kind, count) in stage.proxy.kinds_of_lines() {
            self.line(&format!("  {count:>8} {kind}"));
        }
        self.line("");
    }
}

/// Returns how long a start of the process was watched.
fn life_of(samples: &[Sample], start: u64) -> Duration {
    let mut of_start = samples.iter().filter(|sample| sample.start == start);
    let Some(first) = of_start.next() else { return Duration::ZERO };
    of_start.next_back().map_or(Duration::ZERO, |last| last.at.saturating_sub(first.at))
}

fn median(samples: &[Sample], figure: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<_> = samples.iter().map(figure).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:02}", microseconds / 1000, microseconds % 1000 / 10)
}

//! What must hold of a client that was played on both sides, and the table that says what did.
//!
//! Invariant: a difference is printed as it is, line by line, so that nobody has to run anything again to see it.
//! Not here: what is taken out before comparing (`play`).

use std::fmt::{self, Write as _};

use crate::catalogue::{Client, Home, Kind, Step};
use crate::play::{Outcome, Run};
use crate::stage::{Arrival, Side};

/// Most lines that are printed of a difference.
const SHOWN_LINES: usize = 60;

/// A step that was run on both sides.
pub(crate) struct Played<'a> {
    pub(crate) step: &'a Step,
    pub(crate) direct: Vec<Run>,
    pub(crate) proxied: Vec<Run>,
}

impl Played<'_> {
    /// Returns everything about the step that is not as it must be.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (number, (direct, proxied)) in self.direct.iter().zip(&self.proxied).enumerate() {
            let run = if number == 0 { "" } else { " the second time" };
            complaints.extend(
                difference(&direct.outcome, &proxied.outcome).map(|text| format!("differs{run}:\n{text}")),
            );
            complaints.extend(self.misses(Side::Direct, &direct.outcome));
            complaints.extend(self.misses(Side::Proxied, &proxied.outcome));
            let past = proxied.arrivals.iter().filter(|arrival| !arrival.came_through);
            complaints.extend(past.map(|arrival| format!("went past the proxy: {arrival}")));
        }
        let again = self.proxied.iter().skip(1).flat_map(|run| &run.arrivals);
        let needless = again.filter(|arrival| is_kept(arrival));
        complaints.extend(needless.map(|arrival| format!("asked upstream again: {arrival}")));
        complaints
    }

    /// Prints what was asked and said on the proxied side.
    pub(crate) fn print(&self) {
        println!("{}", self.step.line);
        for run in &self.proxied {
            run.arrivals.iter().for_each(|arrival| println!("      > {arrival}"));
            println!("{}", told(&run.outcome));
        }
    }

    /// Says what a command did not do that it is there for; without it, two failures would be called equal.
    fn misses(&self, side: Side, outcome: &Outcome) -> Option<String> {
        let is_done = match self.step.kind {
            Kind::Read | Kind::Write => outcome.is_success(),
            Kind::Shows(text) => outcome.is_success() && outcome.output.contains(text),
            Kind::Hides(text) => outcome.is_success() && !outcome.output.contains(text),
            Kind::Fails => !outcome.is_success(),
        };
        let kind = self.step.kind;
        (!is_done).then(|| format!("{side}: {} is not what {kind:?} wants:\n{}", outcome.end, told(outcome)))
    }
}

/// Returns whether an answer to this is kept: a GET of the routes that the proxy is for, and what proxy.toml has a rule
/// for. `autofix/` is polled, and so is never stored; `events/validate/` is not in Sentry's published API, and has no rule.
fn is_kept(arrival: &Arrival) -> bool {
    let path = arrival.target.split('?').next().unwrap_or_default();
    let is_ours = path.starts_with("/api/0/organizations/")
        && !["/autofix/", "/events/validate/"].iter().any(|end| path.ends_with(end));
    let segments: Vec<&str> = path.split('/').collect();
    let is_ruled = matches!(segments.as_slice(), ["", "api", "0", "projects", _, _, "issues", ""]);
    arrival.method == http::Method::GET && (is_ours || is_ruled)
}

fn told(outcome: &Outcome) -> String {
    let lines = outcome.output.lines().chain(outcome.errors.lines());
    lines.take(SHOWN_LINES).fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "      | {line}");
        text
    })
}

/// Returns what differs between two outcomes, if anything does.
fn difference(direct: &Outcome, proxied: &Outcome) -> Option<String> {
    let pairs = [
        ("end", &direct.end, &proxied.end),
        ("stdout", &direct.output, &proxied.output),
        ("stderr", &direct.errors, &proxied.errors),
    ];
    let texts: Vec<String> = pairs
        .into_iter()
        .filter(|(_, direct, proxied)| direct != proxied)
        .map(|(name, direct, proxied)| format!("    {name}\n{}", lines_apart(direct, proxied)))
        .collect();
    (!texts.is_empty()).then(|| texts.concat())
}

/// Returns the lines that only one of two texts has, those before and after them left out.
fn lines_apart(direct: &str, proxied: &str) -> String {
    let (direct, proxied): (Vec<_>, Vec<_>) = (direct.lines().collect(), proxied.lines().collect());
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| {
        pairs.take_while(|(one, other)| one == other).count()
    };
    let before = same(&mut direct.iter().zip(&proxied));
    let shorter = direct.len().min(proxied.len());
    let after = same(&mut direct.iter().rev().zip(proxied.iter().rev())).min(shorter - before);
    let mut text = String::new();
    for (mark, lines) in [('-', &direct), ('+', &proxied)] {
        for line in lines.iter().take(lines.len() - after).skip(before).take(SHOWN_LINES) {
            let _ = writeln!(text, "      {mark} {line}");
        }
    }
    text
}

/// Whether something is as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
}

impl Verdict {
    /// Says what comes of so many faults.
    pub(crate) const fn of(faults: usize) -> Self {
        if faults == 0 { Self::Passed } else { Self::Failed }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Passed => "ok",
            Self::Failed => "FAILED",
        })
    }
}

/// What came of several clients: how much passed, how much failed, and how many requests reached Sentry.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) direct: usize,
    pub(crate) proxied: usize,
}

impl Tally {
    pub(crate) const fn note(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed => self.failed += 1,
        }
    }

    /// Prints a line for each step of a client with what is wrong below it, and one for the client.
    pub(crate) fn judge(&mut self, client: &Client, played: &[Played<'_>]) {
        let direct = arrivals(played.iter().flat_map(|step| &step.direct));
        let proxied = arrivals(played.iter().flat_map(|step| &step.proxied));
        for step in played {
            let complaints = step.complaints();
            let verdict = Verdict::of(complaints.len());
            println!("{}", row(client, step, verdict));
            for complaint in &complaints {
                println!("    {complaint}");
            }
            self.note(verdict);
        }
        // A client with a cache of its own may spare itself all that the proxy would.
        let (most, wish) = match client.home {
            Home::Empty => (direct.saturating_sub(1), "asks less in all"),
            Home::Kept => (direct, "asks no more in all"),
        };
        let verdict = Verdict::of(usize::from(most < proxied));
        println!("{:<18} {direct:>14} {proxied:>14}  {verdict:<6}  {wish}\n", client.name);
        self.note(verdict);
        self.direct += direct;
        self.proxied += proxied;
    }
}

fn arrivals<'a>(runs: impl Iterator<Item = &'a Run>) -> usize {
    runs.map(|run| run.arrivals.len()).sum()
}

fn row(client: &Client, played: &Played<'_>, verdict: Verdict) -> String {
    let count = |runs: &[Run], number: usize| {
        runs.get(number).map_or("–".to_owned(), |run| run.arrivals.len().to_string())
    };
    format!(
        "{:<18} {:>6} {:>7} {:>6} {:>7}  {:<6}  {}",
        client.name,
        count(&played.direct, 0),
        count(&played.direct, 1),
        count(&played.proxied, 0),
        count(&played.proxied, 1),
        verdict,
        played.step.line,
    )
}

/// Prints the head of the table.
pub(crate) fn print_head() {
    println!("Requests that reached Sentry, directly and through the proxy; a read is run twice.\n");
    println!("{:<18} {:>14} {:>14}", "", "direct", "proxied");
    println!(
        "{:<18} {:>6} {:>7} {:>6} {:>7}  {:<6}  command",
        "client", "first", "again", "first", "again", "result"
    );
}

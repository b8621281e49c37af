//! Measures how well a user's limits are shielded: one trace of many clients against a Sentry that enforces its limits
//! and fails for a while in the middle, played straight, through nginx and through sentrybox.
//!
//! The trace is the same on every machine: [`parameters`] has its seed and shape, [`trace`] makes it, [`load`] plays it
//! on a real clock and in an open loop, so that nobody's slowness thins out the load. Upstream is the sandbox of this
//! package, a new one for each system; it counts what it was asked and how that ended. What a cache must ask at least,
//! and which failures it cannot hide, an independent script computes from the trace alone (`minimum.py`); another counts
//! answers that show what a write has changed (`outdated.py`); [`report`] holds what was measured against that.
//!
//! Fails unless the trace is hard enough (straight, 10 % of the answers are 429) and sentrybox keeps every promise of
//! [`report`]. Not here: how long anything takes; waits are reported and never judged.
//!
//!     tests/bench/shield            75 s for each of the three
//!     tests/bench/shield --short    9 s each, without nginx
#![expect(clippy::unwrap_used, reason = "a step that fails ends the run, and says where")]
#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

use crate::load::Played;
use crate::parameters::Parameters;
use crate::report::{Figures, Report};
use crate::systems::{Nginx, Sentrybox, Site, Straight, System};
use crate::trace::Trace;

mod load;
mod parameters;
mod random;
mod report;
mod systems;
mod targets;
mod trace;

/// What is to be done.
struct Plan {
    binary: PathBuf,
    folder: PathBuf,
    parameters: Parameters,
    with_nginx: bool,
}

impl Plan {
    /// Reads `BINARY FOLDER [--short]`.
    fn of_arguments() -> Self {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let (parameters, with_nginx) = match arguments.get(2..) {
            Some([]) => (Parameters::full(), true),
            Some([option]) if option == "--short" => (Parameters::short(), false),
            _ => panic!("wants a release build, a folder, and --short or nothing; see tests/bench/shield"),
        };
        let path = |index: usize| PathBuf::from(arguments.get(index).unwrap());
        Self { binary: path(0), folder: path(1), parameters, with_nginx }
    }
}

fn main() -> ExitCode {
    let plan = Plan::of_arguments();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let trace = Trace::generate(&plan.parameters);
    runtime.block_on(async { write_down(&plan, &trace).await });
    let minimum = minimum(&plan.folder);
    println!("trace: {}\n", trace.summary(&plan.parameters));

    let mut figures = vec![runtime.block_on(play(&plan, &trace, Straight::start))];
    if plan.with_nginx {
        figures.push(runtime.block_on(play(&plan, &trace, Nginx::start)));
    }
    let sentrybox = |site: &Site<'_>| Sentrybox::start(site, &plan.binary);
    figures.push(runtime.block_on(play(&plan, &trace, sentrybox)));

    let report = Report::new(figures, &minimum);
    println!("{}", report.text());
    if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays the trace against one system in front of a sandbox of its own, and keeps its answers in a file.
async fn play<S: System>(plan: &Plan, trace: &Trace, start: impl Fn(&Site<'_>) -> S) -> Figures {
    let sandbox = plan.parameters.sandbox().await;
    let upstream = sandbox.origin();
    let system = start(&Site { folder: &plan.folder, upstream: &upstream });
    let played: Played = load::play(trace, &plan.parameters, (&sandbox, &system)).await;
    played.write(&plan.folder.join(format!("{}.jsonl", system.name())));
    let outdated = script("outdated.py", &plan.folder, &[system.name()]);
    let figures = Figures::of(trace, &played, (&sandbox, &system)).with_outdated(outdated.as_u64().unwrap());
    drop(system);
    sandbox.shutdown().await;
    figures
}

/// Writes the trace, and what the script must know besides.
async fn write_down(plan: &Plan, trace: &Trace) {
    trace.write(&plan.folder.join("trace.jsonl"));
    let sandbox = plan.parameters.sandbox().await;
    let known = plan.parameters.describe(trace, &sandbox);
    std::fs::write(plan.folder.join("parameters.json"), format!("{known:#}\n")).unwrap();
    sandbox.shutdown().await;
}

/// Has the script compute what the trace demands.
fn minimum(folder: &Path) -> Value {
    let minimum = script("minimum.py", folder, &[]);
    std::fs::write(folder.join("minimum.json"), format!("{minimum:#}\n")).unwrap();
    minimum
}

/// Returns what a script beside this file says of the run in a folder.
fn script(name: &str, folder: &Path, arguments: &[&str]) -> Value {
    let scripts = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/shield_load"));
    let output = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(scripts.join(name))
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

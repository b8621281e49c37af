//! Plays the public HTTP cache test suite against the built binary, in both of its modes, and judges the results.
//!
//! `suite.mjs` plays an edition of the suite; this starts the proxy in front of the suite's origin, with `proxy.toml`,
//! and has it played twice: without a credential (one partition that is a *shared* cache) and with one (a *private* cache).
//! A check counts as passed only if those that it depends on passed, too; what only a browser can show is left out.
//!
//! Fails on any difference from `expected.toml`, which is about the locked edition. Of another edition, only on required
//! and optimal checks that do not pass and have no reason there. Not here: playing (`suite.mjs`), installing (`run`).
//!
//!     tests/conformance/run
#![expect(clippy::unwrap_used, reason = "a step that fails ends the run, and says where")]
#![expect(clippy::print_stdout, reason = "the tables are what it is run for")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::env;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::thread;

use serde::Deserialize;
use serde_json::json;

/// Where the suite lives: under the prefix that the proxy exists for.
const PREFIX: &str = "/api/0/organizations/cache-tests";

/// The credential of the second mode.
const CREDENTIAL: &str = "Bearer sntryu_conformance";

/// Where this program's own files lie.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance");

fn main() -> ExitCode {
    let plan = Plan::of_arguments();
    let expected = Expected::read();
    let mut suite = Suite::start(&plan.suite);
    let proxy = Proxy::start(&plan.binary, &suite.origin);
    let runs = Mode::ALL.map(|mode| Run::judge(mode, &suite.play(&proxy.address, mode)));

    for run in &runs {
        run.print_groups();
        if plan.failures {
            run.print_failures();
        }
    }
    print_totals(&runs, &suite.peers);
    let differences: Vec<_> = runs.iter().flat_map(|run| run.differences(&expected, plan.edition)).collect();
    for difference in &differences {
        println!("{difference}");
    }
    println!("{} unexplained differences from tests/conformance/expected.toml", differences.len());
    if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is to be done.
struct Plan {
    binary: String,
    suite: String,
    edition: Edition,
    failures: bool,
}

/// Which edition of the suite is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edition {
    /// The one that `expected.toml` is about.
    Locked,
    /// Another one.
    Other,
}

impl Plan {
    /// Reads `BINARY SUITE [--other-edition] [--failures]`.
    fn of_arguments() -> Self {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let [binary, suite, options @ ..] = arguments.as_slice() else {
            panic!("wants the path of a release build and the suite's folder; see tests/conformance/run")
        };
        let known = ["--other-edition", "--failures"];
        assert!(
            options.iter().all(|option| known.contains(&option.as_str())),
            "unknown option in {options:?}"
        );
        let has = |name: &str| options.iter().any(|option| option == name);
        let edition = if has("--other-edition") { Edition::Other } else { Edition::Locked };
        Self { binary: binary.clone(), suite: suite.clone(), edition, failures: has("--failures") }
    }
}

/// As whom the suite asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// Without a credential: a shared cache.
    Shared,
    /// With a credential: a private cache.
    Private,
}

impl Mode {
    const ALL: [Self; 2] = [Self::Shared, Self::Private];

    /// Returns the fields that each request gets which has none of the name.
    fn fields(self) -> serde_json::Value {
        match self {
            Self::Shared => json!({}),
            Self::Private => json!({ "Authorization": CREDENTIAL }),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Shared => "shared",
            Self::Private => "private",
        })
    }
}

/// What the suite says of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// The specifications demand it.
    Required,
    /// A cache can do better than it must.
    Optimal,
    /// What caches do where both ways are right.
    Check,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Required => "required",
            Self::Optimal => "optimal",
            Self::Check => "behaviour",
        })
    }
}

/// One check, as it was played.
#[derive(Debug, Clone, Deserialize)]
struct Check {
    id: String,
    group: String,
    kind: Kind,
    name: String,
    needs: Vec<String>,
    passed: bool,
    failure: String,
}

/// What the edition publishes of another cache.
#[derive(Debug, Deserialize)]
struct Peer {
    name: String,
    version: String,
    passed: BTreeSet<String>,
}

/// What is expected to be otherwise than the suite wants, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// Required and optimal checks that do not pass.
    exception: Vec<Exception>,
    /// Behaviours that we do not show; all others we do.
    not_shown: Vec<NotShown>,
}

/// Behaviours that are not shown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NotShown {
    checks: Vec<String>,
    modes: Vec<Mode>,
}

/// Required or optimal checks that do not pass.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    checks: Vec<String>,
    modes: Vec<Mode>,
    /// Why not passing is right for users of this proxy.
    reason: String,
}

impl Expected {
    fn read() -> Self {
        let path = format!("{FOLDER}/expected.toml");
        let expected: Self = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        for exception in &expected.exception {
            assert!(!exception.reason.trim().is_empty(), "{:?} without a reason", exception.checks);
        }
        expected
    }

    fn excuses(&self, mode: Mode, id: &str) -> bool {
        let covers = |exception: &Exception| {
            exception.modes.contains(&mode) && exception.checks.iter().any(|check| check == id)
        };
        self.exception.iter().any(covers)
    }

    fn shows(&self, mode: Mode, id: &str) -> bool {
        let covers = |not_shown: &NotShown| {
            not_shown.modes.contains(&mode) && not_shown.checks.iter().any(|check| check == id)
        };
        !self.not_shown.iter().any(covers)
    }
}

/// The suite, in a process of its own, and its origin.
struct Suite {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    origin: String,
    peers: Vec<Peer>,
}

impl Suite {
    fn start(folder: &str) -> Self {
        #[derive(Deserialize)]
        struct Opening {
            origin: String,
            peers: Vec<Peer>,
        }
        let mut command = Command::new("node");
        command.arg("--no-warnings").arg(format!("{FOLDER}/suite.mjs")).args([folder, PREFIX]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let Opening { origin, peers } = serde_json::from_str(&output.next().unwrap().unwrap()).unwrap();
        Self { child, input, output, origin, peers }
    }

    /// Plays the whole suite against a proxy.
    fn play(&mut self, proxy: &str, mode: Mode) -> Vec<Check> {
        let order = json!({ "base": format!("http://{proxy}{PREFIX}"), "fields": mode.fields() });
        writeln!(self.input, "{order}").unwrap();
        serde_json::from_str(&self.output.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The proxy under test, in a process of its own.
struct Proxy {
    child: Child,
    address: String,
}

impl Proxy {
    fn start(binary: &str, origin: &str) -> Self {
        let mut command = Command::new(binary);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SENTRYBOX_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(["--config", &format!("{FOLDER}/proxy.toml")])
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--upstream", &format!("http://{origin}")])
            .env("SENTRYBOX_LOG__FORMAT", "json")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let event: serde_json::Value = serde_json::from_str(&line).ok()?;
            Some(event.get("listen")?.as_str()?.to_owned())
        });
        // A full pipe would stop it.
        thread::spawn(move || lines.for_each(drop));
        Self { child, address: listening.unwrap() }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// One play of the suite, judged.
struct Run {
    mode: Mode,
    checks: Vec<Check>,
    passed: BTreeSet<String>,
}

impl Run {
    fn judge(mode: Mode, checks: &[Check]) -> Self {
        let passed = checks.iter().filter(|check| check.passed).map(|check| check.id.clone()).collect();
        Self { mode, checks: checks.to_vec(), passed: with_needs(checks, &passed) }
    }

    fn has_passed(&self, check: &Check) -> bool {
        self.passed.contains(&check.id)
    }

    /// Counts the checks of a kind: how many passed, of how many.
    fn count(&self, kind: Kind) -> (usize, usize) {
        let of_kind = || self.checks.iter().filter(|check| check.kind == kind);
        (of_kind().filter(|check| self.has_passed(check)).count(), of_kind().count())
    }

    /// Prints a line for each group of checks: how many passed, of how many.
    fn print_groups(&self) {
        let mut groups: BTreeMap<&str, BTreeMap<Kind, (usize, usize)>> = BTreeMap::new();
        for check in &self.checks {
            let count = groups.entry(&check.group).or_default().entry(check.kind).or_default();
            count.0 += usize::from(self.has_passed(check));
            count.1 += 1;
        }
        println!("\n{} cache\n\n| Group | required | optimal | behaviour |\n|---|--:|--:|--:|", self.mode);
        for (group, counts) in groups {
            let cell =
                |kind| counts.get(&kind).map_or("–".to_owned(), |(passed, of)| format!("{passed} / {of}"));
            let [required, optimal, behaviour] = [Kind::Required, Kind::Optimal, Kind::Check].map(cell);
            println!("| {group} | {required} | {optimal} | {behaviour} |");
        }
    }

    /// Prints what each check that did not pass says of itself.
    fn print_failures(&self) {
        println!();
        for check in self.checks.iter().filter(|check| !self.has_passed(check)) {
            let failure = if check.passed { "one that it depends on did not pass" } else { &check.failure };
            println!("{} {:<9} {}: {} ({failure})", self.mode, check.kind, check.id, check.name);
        }
    }

    /// Returns what is otherwise than written down.
    fn differences(&self, expected: &Expected, edition: Edition) -> Vec<String> {
        let differs = |check: &&Check| match (edition, check.kind) {
            (Edition::Locked, Kind::Required | Kind::Optimal) => {
                self.has_passed(check) == expected.excuses(self.mode, &check.id)
            }
            (Edition::Other, Kind::Required | Kind::Optimal) => {
                !self.has_passed(check) && !expected.excuses(self.mode, &check.id)
            }
            (Edition::Locked, Kind::Check) => self.has_passed(check) != expected.shows(self.mode, &check.id),
            (Edition::Other, Kind::Check) => false,
        };
        let told = |check: &Check| {
            let how = if self.has_passed(check) { "passes, and is not expected to" } else { "does not pass" };
            format!("{} {} {} {how}: {} {}", self.mode, check.kind, check.id, check.name, check.failure)
        };
        self.checks.iter().filter(differs).map(told).collect()
    }
}

/// Returns the checks that passed together with all that they depend on.
fn with_needs(checks: &[Check], passed: &BTreeSet<String>) -> BTreeSet<String> {
    fn holds(id: &str, needs: &HashMap<&str, &[String]>, passed: &BTreeSet<String>) -> bool {
        let needed = needs.get(id).copied().unwrap_or_default();
        passed.contains(id) && needed.iter().all(|need| holds(need, needs, passed))
    }
    let needs: HashMap<&str, &[String]> =
        checks.iter().map(|check| (check.id.as_str(), check.needs.as_slice())).collect();
    passed.iter().filter(|id| holds(id, &needs, passed)).cloned().collect()
}

/// Prints the whole: ours in both modes, then the published peers, counted by the same rule over the same checks.
fn print_totals(runs: &[Run], peers: &[Peer]) {
    println!("\n| Cache | required | optimal | behaviour |\n|---|--:|--:|--:|");
    for run in runs {
        let [required, optimal, behaviour] =
            [Kind::Required, Kind::Optimal, Kind::Check].map(|kind| run.count(kind));
        println!(
            "| **sentrybox**, {} | **{} / {}** | **{} / {}** | {} / {} |",
            run.mode, required.0, required.1, optimal.0, optimal.1, behaviour.0, behaviour.1
        );
    }
    let Some(run) = runs.first() else { return };
    let mut rows: Vec<_> = peers.iter().map(|peer| (peer, counts_of(peer, &run.checks))).collect();
    rows.sort_by(|(_, left), (_, right)| right.cmp(left));
    for (peer, [required, optimal, behaviour]) in rows {
        println!("| {} {} | {required} | {optimal} | {behaviour} |", peer.name, peer.version);
    }
    println!();
}

fn counts_of(peer: &Peer, checks: &[Check]) -> [usize; 3] {
    let passed = with_needs(checks, &peer.passed);
    [Kind::Required, Kind::Optimal, Kind::Check]
        .map(|kind| checks.iter().filter(|check| check.kind == kind && passed.contains(&check.id)).count())
}

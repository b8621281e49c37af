//! Breaks everything around the release build that can break, under load, and holds what its clients see against what the
//! configuration promises.
//!
//! The proxy runs in a process of its own, before an [`upstream`] of this process that misbehaves as it is told. [`load`] asks
//! over TCP, TLS and a Unix domain socket, over HTTP/1.1 and HTTP/2; [`schedule`] inflicts one [`fault`] after the other and
//! then several at a time, in an order that is the same in every run; [`judge`] counts what became of each request, and knows
//! from the table in [`fault`] which outcomes a fault excuses. Every body says for whose token and for which URL it was made,
//! and carries a sum, so that a wrong, mixed or shortened one is told from the right one ([`told`]). [`measuring`] watches the
//! proxy's own figures meanwhile, and [`proxy`] reads its log for what must not be in it.
//!
//! Fails when a request had an outcome that nothing excuses, when anything panicked, when a write arrived twice, when the log
//! holds a token, or (but for the short run) when memory or descriptors grew. Nothing else that takes time is judged.
//!
//!     tests/soak/faults            30 minutes
//!     tests/soak/faults --short    about a minute
#![expect(clippy::unwrap_used, reason = "a step that fails ends the run, and says where")]
#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::env;
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::authority::Authority;
use crate::judge::Judge;
use crate::proxy::Proxy;
use crate::report::Report;
use crate::schedule::Stage;
use crate::upstream::Upstream;

mod ask;
mod authority;
mod crowd;
mod fault;
mod judge;
mod load;
mod measuring;
mod operators;
mod outcome;
mod proxy;
mod random;
mod report;
mod schedule;
mod told;
mod upstream;
mod wire;

/// How many tasks and threads of this process panicked: each is an error of the run's own.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// What is to be done.
#[derive(Debug)]
struct Plan {
    binary: PathBuf,
    folder: PathBuf,
    /// How long all of it may take, but for building up and ending.
    whole: Duration,
    /// How long one fault lasts.
    spell: Duration,
    /// How long nothing is wrong after it.
    calm: Duration,
    /// Longest that memory may take to be given back before it is measured again.
    settle: Duration,
    /// How many idle connections there are over TLS, which cost this process much.
    idle_over_tls: usize,
}

impl Plan {
    /// Reads `BINARY FOLDER MINUTES|--short`.
    fn of_arguments() -> Self {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let [binary, folder, length] = arguments.as_slice() else {
            panic!("wants a release build, a folder, and --short or minutes; see tests/soak/faults");
        };
        let (binary, folder) = (PathBuf::from(binary), PathBuf::from(folder));
        if length == "--short" {
            let (spell, calm) = (Duration::from_millis(1400), Duration::from_millis(100));
            let (whole, settle) = (Duration::from_mins(1), Duration::from_secs(3));
            return Self { binary, folder, whole, spell, calm, settle, idle_over_tls: 300 };
        }
        let minutes = length.parse().expect("minutes are a whole number");
        // All faults, one after the other, take at most half of the time.
        let whole = Duration::from_mins(minutes);
        let spell = (whole / 70).clamp(Duration::from_secs(2), Duration::from_secs(20));
        let settle = Duration::from_secs(40);
        Self { binary, folder, whole, spell, calm: spell / 2, settle, idle_over_tls: 2_000 }
    }

    /// Returns whether growth is judged: in a short run nothing has had the time to be level.
    fn is_long(&self) -> bool {
        Duration::from_mins(10) <= self.whole
    }
}

fn main() -> ExitCode {
    let plan = Plan::of_arguments();
    note_panics();
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let holds = runtime.block_on(async {
        tokio::select! {
            holds = run(plan) => holds,
            () = asked_to_end() => false,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Waits for a signal that asks this process to end: then the proxy must, too.
async fn asked_to_end() {
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let mut interrupted = signal(SignalKind::interrupt()).unwrap();
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
}

/// Has panics counted: those of a task would else be lost.
fn note_panics() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        tell(panic);
    }));
}

async fn run(plan: Plan) -> bool {
    let judge = Arc::new(Judge::default());
    let authority = Authority::new();
    let upstream = Upstream::start(&authority, Arc::clone(&judge)).await;
    let proxy = Proxy::start(&plan, (authority, upstream.address()), Arc::clone(&judge)).await;
    let stage = Arc::new(Stage::new(plan, judge, upstream, proxy));
    let samples = schedule::play(&stage).await;
    let report = Report::new(&stage, &samples);
    println!("{}", report.text());
    report.holds()
}

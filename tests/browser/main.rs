//! Opens the dashboard in a real browser while the built binary is under load: what people see, and what they do there.
//!
//! A sandbox is upstream, and sentrybox a process in front of it ([`stage`]). While a bounded load ([`load`]) runs, headless
//! Chromium ([`browser`]) opens the page, and each chapter below holds one rule of it. After each chapter: nothing was
//! written to the console, and every request of the page went to the listener that it came from.
//!
//! Waits for what must come, up to a deadline, and never for a while. Not here: how a chart is drawn (unit tests beside it),
//! who is let in by other ways than a browser (`admin::guard`), how long anything takes.
//!
//!     tests/browser/run                   everything
//!     tests/browser/run --load SECONDS    under load for so long before the first look
#![expect(clippy::unwrap_used, reason = "a step that fails ends the run, and says where")]
#![expect(clippy::print_stdout, reason = "what held is what it is run for")]

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;

use crate::chapters::Scene;

mod browser;
mod chapters;
mod client;
mod figures;
mod load;
mod looks;
mod patience;
mod purging;
mod stage;
mod strangers;

/// What is to be done.
#[derive(Debug)]
struct Plan {
    binary: PathBuf,
    /// Where pictures and logs go.
    folder: PathBuf,
    /// How long the load runs before the first look.
    ahead: Duration,
}

impl Plan {
    /// Reads `BINARY FOLDER [--load SECONDS]`.
    fn of_arguments() -> Self {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let [binary, folder, options @ ..] = arguments.as_slice() else {
            panic!("wants a sentrybox and a folder for pictures and logs; see tests/browser/run")
        };
        let ahead = match options {
            [] => Duration::ZERO,
            [option, seconds] if option == "--load" => Duration::from_secs(seconds.parse().unwrap()),
            _ => panic!("unknown option in {options:?}"),
        };
        Self { binary: binary.into(), folder: folder.into(), ahead }
    }
}

fn main() -> ExitCode {
    let plan = Plan::of_arguments();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // A chapter that fails panics; what was started ends on the way out.
    let passed = runtime.block_on(async {
        let mut scene = Scene::set(&plan).await;
        let passed = scene.play(&plan).await;
        scene.strike().await;
        passed
    });
    println!("{passed} passed, 0 failed");
    ExitCode::SUCCESS
}

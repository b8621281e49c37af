//! What the fuzz targets try, one module each; `fuzz_targets/` only calls them, `run` builds and runs them.
//!
//! `short` tries them without a fuzzer, as a test of the main package.
//!
//! Every target checks what must hold for each input, not only that nothing panics: its first lines say what. Inputs are text
//! wherever people have to read them. Whatever waits, waits in paused time.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "all of it is tests: what cannot be unwrapped is a finding"
)]

use std::sync::LazyLock;

use sentrybox::config::Config;
use sentrybox::config::load::defaults;
use tokio::runtime::{Builder, Runtime};

pub mod admission;
pub mod budget;
pub mod conditions;
pub mod configuration;
pub mod connection;
pub mod corridor;
pub mod directives;
pub mod links;
pub mod redaction;
pub mod region_urls;
pub mod stored_response;
pub mod webhook;

mod meaning;
mod support;
mod text;

/// Tries the files that are named on the command line, and says of each that it holds.
#[cfg(not(test))]
pub fn replay(run: fn(&[u8])) {
    for file in std::env::args_os().skip(1) {
        run(&std::fs::read(&file).expect("the file can be read"));
        println!("{} holds", file.display());
    }
}

/// What is configured where a target does not say. To read it each time would take longer than most of what is tried.
static DEFAULTS: LazyLock<Config> = LazyLock::new(defaults);

/// Makes a runtime in which time passes only while nothing else happens.
fn paused_runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime can be made")
}

#[cfg(test)]
mod short;

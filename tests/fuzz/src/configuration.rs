//! Configuration: a file in TOML; after a line `---`, environment variables, `NAME=value` on each line.
//!
//! `$SECRET` stands for a secret where a line of the file begins with `secret` or `token`, and in variables that end in
//! `SECRET` or `TOKEN`. Holds: reading never panics; what was read can be put together, or says why not; no secret is in a
//! problem, an error or a debug output.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use http::Request;
use sentrybox::assembly::proxy_before;
use sentrybox::config::load::{Loaded, Sources, load};
use sentrybox::upstream::{OutgoingBody, Sending, Upstream};

/// What must never be seen.
const SECRET: &str = "hunter2hunter2hunter2hunter2hunter2";
const PLACEHOLDER: &str = "$SECRET";

/// Where the file is while it is tried.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    std::env::temp_dir().join(format!("sentrybox-fuzz-configuration-{}.toml", std::process::id()))
});

/// Tries one input.
pub fn run(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    // A secret may stand in a file, and some files never end. Texts over several lines hide what a line is about.
    let is_endless = input.contains("_file") && input.contains("dev");
    if is_endless || ["\"\"\"", "'''", "hunter2"].iter().any(|odd| input.contains(odd)) {
        return;
    }
    let (file, environment) = input.split_once("\n---\n").unwrap_or((input, ""));
    fs::write(&*FILE, filled(file)).expect("the folder for temporary files can be written to");
    let environment = environment.lines().filter_map(|line| line.split_once('=')).filter_map(variable);
    let sources = Sources { file: Some(FILE.clone()), environment: environment.collect(), flags: Vec::new() };
    match load(&sources) {
        Ok(loaded) => check(&loaded),
        Err(problems) => {
            assert!(!problems.is_empty(), "a configuration is refused, and nothing is said of why");
            for problem in problems {
                assert_silent(&format!("{problem} {problem:?}"));
            }
        }
    }
}

/// Puts secrets in where the file may hold some.
fn filled(file: &str) -> String {
    let put_in = |line: &str| {
        let is_secret = ["secret =", "token =", "secret=", "token="];
        let is_secret = is_secret.iter().any(|start| line.trim_start().starts_with(start));
        if is_secret { line.replace(PLACEHOLDER, SECRET) } else { line.to_owned() }
    };
    file.split('\n').map(put_in).collect::<Vec<_>>().join("\n")
}

fn variable((name, value): (&str, &str)) -> Option<(std::ffi::OsString, std::ffi::OsString)> {
    // Anything else has nothing to do with us, and a further file is the machine's.
    let is_ours = name.starts_with("SENTRYBOX_") && !name.contains("CONFIG") && !value.contains('\0');
    let is_secret = ["SECRET", "TOKEN"].iter().any(|end| name.ends_with(end));
    let value = if is_secret { value.replace(PLACEHOLDER, SECRET) } else { value.to_owned() };
    is_ours.then(|| (name.into(), value.into()))
}

fn check(loaded: &Loaded) {
    assert_silent(&format!("{:?}", loaded.config));
    match proxy_before(&loaded.config, Arc::new(Unasked)) {
        Ok(proxy) => drop(proxy),
        Err(error) => {
            assert_silent(&format!("{error} {error:?}"));
            let problems = loaded.locate(error.problems());
            assert!(!problems.is_empty(), "nothing is said of why");
            for problem in problems {
                assert_silent(&problem.to_string());
            }
        }
    }
}

fn assert_silent(text: &str) {
    assert!(!text.contains(&SECRET[..8]), "a secret is told: {text}");
}

/// An upstream that nobody asks.
#[derive(Debug)]
struct Unasked;

impl Upstream for Unasked {
    fn send(&self, _: Request<OutgoingBody>) -> Sending<'_> {
        unreachable!("nothing is asked here")
    }
}

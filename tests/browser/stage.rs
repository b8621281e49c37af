//! What stands behind the dashboard: a sandbox for upstream, and sentrybox in a process of its own.
//!
//! Invariants: both listen on loopback; what is started here ends here, by its own process id.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use sentrybox::sandbox::{BaseUrl, Sandbox, SandboxOptions};
use serde_json::Value;

use crate::client::{Answer, Client};
use crate::figures::Metrics;

/// Starts a sandbox with Sentry's limits and a little latency.
pub(crate) async fn sandbox() -> Sandbox {
    let options = SandboxOptions {
        url_prefix: BaseUrl::OwnOrigin,
        region_url: BaseUrl::OwnOrigin,
        ..SandboxOptions::default()
    };
    Sandbox::start(options).await.unwrap()
}

/// sentrybox in a process of its own.
#[derive(Debug)]
pub(crate) struct Proxy {
    process: Child,
    /// Where clients reach it.
    pub(crate) address: String,
    /// Where operators reach it.
    pub(crate) admin: String,
    /// The token that operators need; empty where they need none.
    pub(crate) token: &'static str,
    log: PathBuf,
}

impl Proxy {
    /// Starts it in front of an upstream.
    pub(crate) fn start((binary, log): (&Path, PathBuf), upstream: &str, token: &'static str) -> Self {
        let mut process = sentrybox(binary)
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", upstream])
            .env("SENTRYBOX_LOG__FORMAT", "json")
            .env("SENTRYBOX_ADMIN__TOKEN", token)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap());
        let mut copy = File::create(&log).unwrap();
        let (address, admin) = listening(&mut lines, &mut copy);
        // A full pipe would stop it.
        thread::spawn(move || io::copy(&mut lines, &mut copy));
        Self { process, address, admin, token, log }
    }

    /// Asks it for a target, as a client of Sentry's.
    pub(crate) async fn ask(&self, client: &Client, target: &str, token: &str) -> Answer {
        client.get(&format!("http://{}{target}", self.address), token).await
    }

    /// Reads its metrics, as a scraper does.
    pub(crate) async fn metrics(&self, client: &Client) -> Metrics {
        let answer = client.get(&format!("http://{}/metrics", self.admin), self.token).await;
        Metrics::read(&answer.text())
    }

    /// Returns the URL of the dashboard.
    pub(crate) fn dashboard(&self) -> String {
        format!("http://{}/", self.admin)
    }

    /// Returns what it has logged so far.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it at once.
    pub(crate) fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns a command that runs a sentrybox, cut off from the environment's own configuration.
fn sentrybox(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_uppercase();
        if text.starts_with("SENTRYBOX_") || text.ends_with("_PROXY") || text == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// Reads and copies the log up to the line that says where clients and operators come in.
fn listening(log: &mut impl BufRead, copy: &mut impl Write) -> (String, String) {
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "sentrybox ended before it listened");
        copy.write_all(line.as_bytes()).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        let address = |name: &str| event.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
        if let Some(pair) = address("listen").zip(address("admin")) {
            return pair;
        }
    }
}

//! Where a client plays: a sandbox of its own, and nothing or sentrybox in front of it.
//!
//! Invariants: both listen on loopback; what is started here ends here, by its own process id.
//! Not here: the client (`play`), what is compared (`report`).

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use http::Method;
use http::header::VIA;
use sentrybox::sandbox::{BaseUrl, Sandbox, SandboxOptions};
use tokio::runtime::Handle;

/// What lies between the client and the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Nothing.
    Direct,
    /// The release build of sentrybox.
    Proxied,
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Direct => "direct",
            Self::Proxied => "proxied",
        })
    }
}

/// A request that came in at the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) method: Method,
    pub(crate) target: String,
    /// Whether it came through sentrybox, which adds `Via`.
    pub(crate) came_through: bool,
}

impl fmt::Display for Arrival {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.method, self.target)
    }
}

/// A sandbox and, on one side, sentrybox in front of it.
pub(crate) struct Stage {
    sandbox: Sandbox,
    proxy: Option<Proxy>,
    runtime: Handle,
}

impl Stage {
    /// Starts a new world, the same as every other, for one client on one side.
    pub(crate) fn set(side: Side, runtime: &Handle, (binary, log): (&Path, &Path)) -> Self {
        // Its own address in Link and in region URLs: a client that is told to go elsewhere would leave the machine.
        let options = SandboxOptions {
            url_prefix: BaseUrl::OwnOrigin,
            region_url: BaseUrl::OwnOrigin,
            ..SandboxOptions::unhindered()
        };
        let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
        let proxy = match side {
            Side::Direct => None,
            Side::Proxied => Some(Proxy::start(binary, &sandbox.origin(), log)),
        };
        Self { sandbox, proxy, runtime: runtime.clone() }
    }

    /// Returns the host and port that the client is pointed at.
    pub(crate) fn authority(&self) -> String {
        let direct = || self.sandbox.address().to_string();
        self.proxy.as_ref().map_or_else(direct, |proxy| proxy.address.clone())
    }

    /// Returns every host and port that may stand in what a client says.
    pub(crate) fn authorities(&self) -> Vec<String> {
        vec![self.authority(), self.sandbox.address().to_string()]
    }

    /// Returns how many requests have come in at the sandbox.
    pub(crate) fn arrived(&self) -> u64 {
        self.sandbox.requests_total()
    }

    /// Returns the requests that came in after so many, oldest first.
    pub(crate) fn arrivals_since(&self, arrived: u64) -> Vec<Arrival> {
        let latest = self.sandbox.journal().latest();
        let count = usize::try_from(self.arrived() - arrived).unwrap();
        let first =
            latest.len().checked_sub(count).expect("the journal keeps more than one command asks for");
        latest
            .into_iter()
            .skip(first)
            .map(|request| Arrival {
                came_through: request.fields.contains_key(VIA),
                method: request.method,
                target: request.target,
            })
            .collect()
    }

    /// Ends both.
    pub(crate) fn strike(self) {
        drop(self.proxy);
        self.runtime.block_on(self.sandbox.shutdown());
    }
}

/// sentrybox in a process of its own.
struct Proxy {
    process: Child,
    address: String,
}

impl Proxy {
    fn start(binary: &Path, upstream: &str, log: &Path) -> Self {
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_uppercase();
            if text.starts_with("SENTRYBOX_") || text.ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .arg("--config")
            .arg(here().join("proxy.toml"))
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", upstream])
            .env("SENTRYBOX_LOG__FORMAT", "json")
            .env("SENTRYBOX_LOG__REQUESTS", "all")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap());
        let mut copy = File::create(log).unwrap();
        let address = listening(&mut lines, &mut copy);
        // A full pipe would stop it.
        thread::spawn(move || io::copy(&mut lines, &mut copy));
        Self { process, address }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads and copies the log up to the line that says where clients come in.
fn listening(log: &mut impl BufRead, copy: &mut impl Write) -> String {
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "sentrybox ended before it listened");
        copy.write_all(line.as_bytes()).unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(address) = event.get("listen").and_then(serde_json::Value::as_str) {
            return address.to_owned();
        }
    }
}

/// Returns the folder of this program's own files.
pub(crate) fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

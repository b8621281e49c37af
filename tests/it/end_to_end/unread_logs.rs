//! A log that cannot be written, or that nobody reads, stops nobody; what is lost is counted.

use std::io::{Read as _, pipe};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use http::{Method, StatusCode};
use sentrybox::sandbox::{Sandbox, SandboxOptions};

use crate::end_to_end::{LIST, OWNER, until};
use crate::support::binary::sentrybox;
use crate::support::http::{get, request, send};

/// A process whose log goes where a test wants it.
struct Unheard {
    child: Mutex<Child>,
    address: SocketAddr,
    admin: SocketAddr,
    _sandbox: Sandbox,
}

impl Unheard {
    async fn start(log: impl Into<Stdio>) -> Self {
        let sandbox = Sandbox::start(SandboxOptions::unhindered()).await.unwrap();
        let (address, admin) = (free_address(), free_address());
        let mut command = sentrybox();
        command
            .args(["--upstream", &sandbox.origin(), "--listen", &address.to_string()])
            .args(["--admin", &admin.to_string()])
            .envs([("SENTRYBOX_LOG__LEVEL", "debug"), ("SENTRYBOX_LOG__REQUESTS", "all")])
            .envs([("SENTRYBOX_LOG__PATHS", "full"), ("SENTRYBOX_LOG__MAX_PER_SECOND", "0")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let unheard = Self { child: Mutex::new(command.spawn().unwrap()), address, admin, _sandbox: sandbox };
        until(async || send(admin, request(Method::GET, "/readyz", &[], "")).await.is_ok()).await;
        unheard
    }

    /// Asks for something of which the log has much to say.
    async fn ask(&self) {
        let target = format!("{LIST}acme/{}/", "x".repeat(900));
        assert_eq!(get(self.address, LIST, OWNER).await.status, StatusCode::OK);
        assert_eq!(get(self.address, &target, OWNER).await.status, StatusCode::NOT_FOUND);
    }

    async fn lost(&self) -> u64 {
        let metrics = send(self.admin, request(Method::GET, "/metrics", &[], "")).await.unwrap();
        let lost =
            metrics.text().lines().find_map(|line| line.strip_prefix("sentrybox_log_lines_lost_total "));
        lost.unwrap().parse().unwrap()
    }

    /// Ends it as an operator would; it must end well.
    async fn end(self) {
        let id = self.child.lock().unwrap().id();
        let status = Command::new("kill").args(["-TERM", &id.to_string()]).status().unwrap();
        assert!(status.success());
        let ended = || self.child.lock().unwrap().try_wait().unwrap();
        until(async || ended().is_some()).await;
        assert!(ended().unwrap().success());
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Returns an address that nobody listens on at this moment.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_log_stops_nobody() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let unheard = Unheard::start(full).await;
    for _ in 0..10 {
        unheard.ask().await;
    }
    until(async || unheard.lost().await > 20).await;
    unheard.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_is_gone_stops_nobody() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let unheard = Unheard::start(writer).await;
    for _ in 0..10 {
        unheard.ask().await;
    }
    until(async || unheard.lost().await > 20).await;
    unheard.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nobody_and_goes_on_when_somebody_does() {
    let (mut reader, writer) = pipe().unwrap();
    let unheard = Unheard::start(writer).await;
    // What a pipe holds, and what waits behind it, is full long before that.
    for _ in 0..1_000 {
        unheard.ask().await;
    }
    assert!(unheard.lost().await > 0);
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    let is_written = async || {
        let before = unheard.lost().await;
        unheard.ask().await;
        unheard.lost().await == before
    };
    until(is_written).await;
    unheard.end().await;
    let text = reading.join().unwrap().unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "whole lines");
    assert!(text.contains("\"listening\"") && text.contains("\"shut down\""), "the first and the last");
}

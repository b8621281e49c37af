//! The built binary on real sockets, before the sandbox: what its users, its operators and their scripts see.
//!
//! Every test ends by [`Stage::close`], which looks through all that the binary said, to whomever but the clients,
//! for a token. Not here: what needs no process (the other modules, in memory and in no time).

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use http::Method;
use sentrybox::sandbox::{Sandbox, SandboxOptions};
use tokio::time::{sleep, timeout};

use crate::support::binary::{Binary, sentrybox};
use crate::support::http::{Answer, Fields, get, request, send};

mod commands;
mod demo;
mod failing;
mod listening;
mod logs;
mod operating;
mod reloading;
mod serving;
mod silos;
mod stopping;
mod traces;
mod unread_logs;
mod versions;
mod webhooks;
mod writing;

/// Where the list of organizations is.
const LIST: &str = "/api/0/organizations/";

/// The users of the sandbox, as request fields.
const OWNER: Fields<'static> = &[("authorization", "Bearer sntryu_demo_owner")];
const OTHER: Fields<'static> = &[("authorization", "Bearer sntryu_demo_other")];

/// What every token has in common that is sent anywhere in these tests.
const MARKS: [&str; 2] = ["sntryu_", "demo_o"];

/// Longest that something may take that must happen.
const PATIENCE: Duration = Duration::from_mins(1);

/// The binary in a process of its own, before a sandbox in this one.
struct Stage {
    sandbox: Sandbox,
    binary: Binary,
}

impl Stage {
    /// Starts both, with some environment for the binary; the sandbox has no limits and no latency.
    async fn set(environment: &[(&str, &str)]) -> Self {
        Self::before(SandboxOptions::unhindered(), environment).await
    }

    /// Starts both, the sandbox with these options.
    async fn before(options: SandboxOptions, environment: &[(&str, &str)]) -> Self {
        let sandbox = Sandbox::start(options).await.unwrap();
        let mut command = sentrybox();
        command.args(["--upstream", &sandbox.origin()]);
        // As talkative as it gets, for what must not be in there.
        command.env("SENTRYBOX_LOG__LEVEL", "debug").env("SENTRYBOX_LOG__REQUESTS", "all");
        command.env("SENTRYBOX_LOG__PATHS", "full");
        command.envs(environment.iter().copied());
        Self { binary: Binary::start(command), sandbox }
    }

    /// Starts both, the binary as a file says and as talkative as that.
    async fn configured(file: &Path) -> Self {
        let sandbox = Sandbox::start(SandboxOptions::unhindered()).await.unwrap();
        let mut command = sentrybox();
        command.args(["--upstream", &sandbox.origin()]).arg("--config").arg(file);
        Self { binary: Binary::start(command), sandbox }
    }

    /// Sends a GET to the proxy.
    async fn get(&self, target: &str, fields: Fields<'_>) -> Answer {
        get(self.binary.address, target, fields).await
    }

    /// Sends a request without a body to the operators' listener.
    async fn ask(&self, method: Method, target: &str) -> Answer {
        send(self.binary.admin, request(method, target, &[], "")).await.unwrap()
    }

    /// Returns `http://` and the proxy's own authority.
    fn base(&self) -> String {
        format!("http://{}", self.binary.address)
    }

    /// Ends the binary as an operator would; it must end well, and must not have told a token to anybody.
    async fn close(mut self) {
        let mut told = String::new();
        let targets = [
            "/",
            "/livez",
            "/readyz",
            "/metrics",
            "/ledger",
            "/log",
            "/purge",
            "/explain",
            "/nothing",
            "/dashboard",
            "/dashboard/panels",
        ];
        for target in targets {
            let answer = self.ask(Method::GET, target).await;
            writeln!(told, "{:?}\n{}", answer.fields, answer.text()).unwrap();
        }
        told += self.ask(Method::POST, "/purge").await.text();
        self.binary.terminate();
        self.end(&told);
    }

    /// Waits for the binary's end; neither its output nor what else it `told` may hold a token.
    fn end(&mut self, told: &str) {
        let status = tokio::task::block_in_place(|| self.binary.wait());
        let output = self.binary.output();
        assert_eq!(status.code(), Some(0), "{output}");
        assert!(
            output.contains("\"listening\"") && output.contains("\"shut down\""),
            "not all of it: {output}"
        );
        for mark in MARKS {
            assert!(!output.contains(mark), "{mark} in what it said: {output}");
            assert!(!told.contains(mark), "{mark} in what it told operators: {told}");
        }
    }
}

/// Waits until something holds that other processes bring about.
async fn until(holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
}

/// Returns the URL of the page after this one, if there is one.
fn next_page(answer: &Answer) -> Option<&str> {
    let links = answer.field("link").split(", <").find(|link| link.contains("rel=\"next\""))?;
    let (url, parameters) = links.split_once('>')?;
    parameters.contains("results=\"true\"").then(|| url.trim_start_matches('<'))
}

/// Returns how many elements the list in an answer has.
fn count(answer: &Answer) -> usize {
    serde_json::from_slice::<Vec<serde_json::Value>>(&answer.body).unwrap().len()
}

/// Fails unless an answer is an error of ours, in Sentry's shape.
fn assert_refused(answer: &Answer, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    assert_eq!(answer.field("content-type"), "application/json");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{answer:?}");
}

#[test]
fn the_next_page_is_read_from_link() {
    let page = |results: &str| {
        Answer {
        status: http::StatusCode::OK,
        fields: [(
            http::header::LINK,
            format!(r#"<http://a/?p>; rel="previous"; results="true", <http://a/?n>; rel="next"; results="{results}""#)
                .parse()
                .unwrap(),
        )]
        .into_iter()
        .collect(),
        body: bytes::Bytes::from_static(b"[1,2]"),
    }
    };
    assert_eq!(next_page(&page("true")), Some("http://a/?n"));
    assert_eq!((next_page(&page("false")), count(&page("false"))), (None, 2));
}

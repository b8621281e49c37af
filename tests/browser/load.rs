//! A load for the dashboard to show: several tokens and routes, hits and misses, what is not there, and a failing upstream.
//!
//! Invariant: it ends by itself after [`MOST`] requests of each client, and with whoever holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use sentrybox::sandbox::Sandbox;
use sentrybox::sandbox::faults::{Fault, FaultRule};
use sentrybox::sandbox::people::{NOBODY_TOKEN, OTHER_TOKEN, OWNER_READ_ONLY_TOKEN, OWNER_TOKEN};
use tokio::task::JoinSet;
use tokio::time;

use crate::client::Client;

/// Who asks, each with a connection of its own.
const TOKENS: [&str; 4] = [OWNER_TOKEN, OWNER_READ_ONLY_TOKEN, OTHER_TOKEN, NOBODY_TOKEN];

/// How each goes through the targets: every one, every third one, and so on; each comes by all of them.
const STRIDES: [usize; 4] = [1, 3, 7, 9];

/// Most requests of each client.
const MOST: u32 = 40_000;

/// How long a client thinks between two requests.
const THINKING: Duration = Duration::from_millis(15);

/// A route that the load asks for more often than for any other, and what the tables must call it.
pub(crate) const FAVOURITE: &str = "/api/0/organizations/{organization}/projects/";

/// What is asked for, some of it more often than the rest.
const TARGETS: [&str; 20] = [
    "/api/0/organizations/org-001/projects/",
    "/api/0/organizations/",
    "/api/0/organizations/org-001/projects/",
    "/api/0/organizations/org-002/projects/",
    "/api/0/organizations/org-001/issues/",
    "/api/0/organizations/org-001/",
    "/api/0/organizations/org-002/projects/",
    "/api/0/organizations/org-002/teams/",
    "/api/0/organizations/org-003/projects/",
    "/api/0/organizations/org-001/members/",
    "/api/0/organizations/org-001/projects/",
    "/api/0/organizations/org-003/releases/",
    "/api/0/organizations/org-002/",
    "/api/0/organizations/org-001/environments/",
    "/api/0/organizations/org-404/projects/",
    "/api/0/organizations/org-002/monitors/",
    "/api/0/organizations/org-002/issues/?query=is%3Aunresolved",
    "/api/0/organizations/org-001/repos/",
    "/api/0/organizations/org-001/projects/?per_page=5",
    "/not-of-the-api",
];

/// A load that runs.
#[derive(Debug)]
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    clients: JoinSet<u64>,
}

impl Load {
    /// Begins.
    pub(crate) fn begin(address: &str, sandbox: &Sandbox) -> Self {
        for (target, fault, times) in [
            ("/api/0/organizations/org-002/monitors/", Fault::Answer(StatusCode::SERVICE_UNAVAILABLE), 6),
            ("/api/0/organizations/org-001/repos/", Fault::Answer(StatusCode::TOO_MANY_REQUESTS), 2),
        ] {
            sandbox.faults().add(FaultRule { times, ..FaultRule::always(target, fault) });
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for (stride, token) in STRIDES.into_iter().zip(TOKENS) {
            clients.spawn(ask_for_all(format!("http://{address}"), (stride, token), Arc::clone(&is_over)));
        }
        Self { is_over, clients }
    }

    /// Stops, and returns how many requests were answered.
    pub(crate) async fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().sum()
    }
}

/// Asks for one target after the other, each client in its stride.
async fn ask_for_all(origin: String, (stride, token): (usize, &str), is_over: Arc<AtomicBool>) -> u64 {
    let client = Client::new();
    let mut answered = 0;
    let targets = TARGETS.into_iter().cycle().step_by(stride);
    for (target, _) in targets.zip(0..MOST) {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        client.get(&format!("{origin}{target}"), token).await;
        answered += 1;
        time::sleep(THINKING).await;
    }
    answered
}

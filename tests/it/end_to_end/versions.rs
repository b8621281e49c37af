//! Random reads and writes by several tokens at once: nobody is told a version older than the last write that was over
//! before the read began.
//!
//! What is written counts its versions, in a name or a URL, and is read by every path that shows it. Which request meets
//! which is left to chance; what holds does not depend on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use sentrybox::sandbox::SandboxOptions;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::end_to_end::Stage;
use crate::support::dice::Dice;
use crate::support::http::{Answer, send};

/// How many clients there are, and how much each of them does.
const CLIENTS: u64 = 6;
const STEPS: u64 = 150;

/// Whoever reads; the first one writes, too.
const TOKENS: [&str; 3] =
    ["Bearer sntryu_demo_owner", "Bearer sntryu_demo_other", "Bearer sntryu_demo_owner_read_only"];

/// Routes outside `/api/0/organizations/` that are cached here.
const RULES: &str = r#"[
    {route = "/api/0/projects/{organization}/{project}/", class = "slow"},
    {route = "/api/0/projects/{organization}/{project}/releases/", class = "slow"},
    {route = "/api/0/projects/{organization}/{project}/releases/{version}/", class = "slow"},
]"#;

/// Something whose versions are counted.
struct Thing {
    /// The member that tells it from others of its kind, and its value there.
    known_by: (&'static str, &'static str),
    /// The member that holds the version.
    counts_in: &'static str,
    written_at: &'static [&'static str],
    read_at: &'static [&'static str],
}

const THINGS: [Thing; 3] = [
    Thing {
        known_by: ("slug", "org-002"),
        counts_in: "name",
        written_at: &["organizations/org-002/", "organizations/3/"],
        read_at: &[
            "organizations/?query=slug:org-002",
            "organizations/?query=002",
            "organizations/org-002/",
            "organizations/3/",
        ],
    },
    Thing {
        known_by: ("slug", "project-001"),
        counts_in: "name",
        written_at: &["projects/org-002/project-001/", "projects/3/122/"],
        read_at: &[
            "organizations/org-002/projects/",
            "organizations/3/projects/",
            "projects/org-002/project-001/",
            "projects/org-002/122/",
        ],
    },
    Thing {
        known_by: ("version", "web@1.0.1"),
        counts_in: "url",
        written_at: &[
            "organizations/org-002/releases/web@1.0.1/",
            "organizations/3/releases/web%401.0.1/",
            "projects/org-002/project-001/releases/web@1.0.1/",
        ],
        read_at: &[
            "organizations/org-002/releases/",
            "organizations/org-002/releases/web%401.0.1/",
            "organizations/3/releases/web@1.0.1/",
            "projects/org-002/project-001/releases/",
            "projects/org-002/project-001/releases/web@1.0.1/",
        ],
    },
];

/// Which version was written last.
#[derive(Default)]
struct Count {
    over: AtomicU64,
    writer: Mutex<u64>,
}

/// Everything that the clients share.
struct Play {
    proxy: SocketAddr,
    admin: SocketAddr,
    counts: [Count; THINGS.len()],
}

impl Play {
    async fn step(&self, dice: &mut Dice) {
        let number = usize::try_from(dice.below(THINGS.len() as u64)).unwrap();
        match dice.below(20) {
            0..5 => self.write(number, dice).await,
            5 => self.purge(dice).await,
            _ => self.read(number, dice).await,
        }
    }

    async fn write(&self, number: usize, dice: &mut Dice) {
        let (thing, count) = (&THINGS[number], &self.counts[number]);
        let mut version = count.writer.lock().await;
        *version += 1;
        let body = format!(r#"{{"{}":"https://a.example/version-{version}"}}"#, thing.counts_in);
        let answer = self.send(Method::PUT, dice.pick(thing.written_at), TOKENS[0], body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        count.over.store(*version, Ordering::SeqCst);
    }

    async fn read(&self, number: usize, dice: &mut Dice) {
        let (thing, path, token) = (&THINGS[number], dice.pick(THINGS[number].read_at), dice.pick(&TOKENS));
        let least = self.counts[number].over.load(Ordering::SeqCst);
        let answer = self.send(Method::GET, path, token, String::new()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        let told = thing.version_in(&serde_json::from_slice(&answer.body).unwrap());
        let status = answer.field("cache-status");
        assert!(told.is_some_and(|told| least <= told), "{path}: {told:?} after {least}, {status}");
    }

    async fn purge(&self, dice: &mut Dice) {
        let order = dice.pick(&["", r#"{"organization":"org-002"}"#, r#"{"everything":true,"mode":"hard"}"#]);
        let mut request = Request::new(Full::new(Bytes::from(order)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = "/purge".parse().unwrap();
        assert_eq!(send(self.admin, request).await.unwrap().status, StatusCode::OK);
    }

    async fn send(&self, method: Method, path: &str, token: &str, body: String) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/0/{path}"))
            .header("authorization", token)
            .header("content-type", "application/json");
        send(self.proxy, request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
    }
}

impl Thing {
    /// Returns the version that an answer tells of: 0 before the first write, nothing where the thing is not in there.
    fn version_in(&self, answer: &Value) -> Option<u64> {
        let (key, own) = self.known_by;
        match answer {
            Value::Object(members) if members.get(key).is_some_and(|value| value == own) => {
                let text = members.get(self.counts_in)?.as_str().unwrap_or_default();
                Some(text.rsplit_once("/version-").map_or(0, |(_, version)| version.parse().unwrap()))
            }
            Value::Array(elements) => elements.iter().find_map(|element| self.version_in(element)),
            _ => None,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_a_version_older_than_the_last_write_that_was_over_before() {
    let options = SandboxOptions {
        min_latency: Duration::ZERO,
        max_latency: Duration::from_millis(8),
        ..SandboxOptions::unhindered()
    };
    let stage = Stage::before(options, &[("SENTRYBOX_CACHE__RULES", RULES)]).await;
    let (proxy, admin) = (stage.binary.address, stage.binary.admin);
    let play = Arc::new(Play { proxy, admin, counts: Default::default() });
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (play, mut dice) = (Arc::clone(&play), Dice::new(7, client));
        clients.spawn(async move {
            for _ in 0..STEPS {
                play.step(&mut dice).await;
            }
        });
    }
    clients.join_all().await;
    let metrics = stage.ask(Method::GET, "/metrics").await;
    let reused = metrics.text().lines().find(|line| line.contains(r#"{handling="reuse",reason="reuse""#));
    assert!(reused.is_some_and(|line| !line.ends_with(" 0")), "nothing was reused: {}", metrics.text());
    stage.close().await;
}

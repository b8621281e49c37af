//! Webhooks of Sentry's: who is believed, what is purged then, and on which listener.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::UNIX_EPOCH;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use sentrybox::clock::Clock;

use crate::end_to_end::{OWNER, PATIENCE, Stage, assert_refused};
use crate::support::binary::sentrybox;
use crate::support::http::{Answer, get, send};

const SECRET: &str = "a client secret of Sentry's";
const CONFIGURED: (&str, &str) = ("SENTRYBOX_WEBHOOKS__SECRET", SECRET);
const PATH: &str = "/webhooks/sentry";

/// What is to be purged, and what is not.
const PROJECTS: &str = "/api/0/organizations/org-002/projects/";
const OTHERS: &str = "/api/0/organizations/org-003/projects/";

/// A webhook about everything of an organization, in the shape in which Sentry sends it.
fn installation(organization: &str) -> String {
    serde_json::json!({
        "action": "created",
        "actor": { "id": 1, "name": "canary", "type": "user" },
        "data": { "installation": {
            "status": "installed",
            "organization": { "slug": organization, "id": 2 },
            "app": { "uuid": "2ebf071f-28df-4989-aca9-c37c763b278f", "slug": "webhooks-galore" },
            "uuid": "a8e5d37a-696c-4c54-adb5-b3f28d64c7de",
        } },
        "installation": { "uuid": "a8e5d37a-696c-4c54-adb5-b3f28d64c7de" },
    })
    .to_string()
}

fn signature(body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let mut digits = String::new();
    for byte in hmac::sign(&key, body.as_bytes()).as_ref() {
        write!(digits, "{byte:02x}").unwrap();
    }
    digits
}

/// Returns the time of this moment, as Sentry tells it.
fn seconds() -> u64 {
    Clock::start().now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Sends a webhook with a signature, right or wrong, under a name that Sentry may know us by.
async fn post(address: SocketAddr, body: &str, signature: &str) -> Answer {
    let request = Request::post(PATH)
        .header("host", "hooks.example")
        .header("content-type", "application/json")
        .header("sentry-hook-resource", "installation")
        .header("sentry-hook-timestamp", seconds())
        .header("sentry-hook-signature", signature)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap();
    send(address, request).await.unwrap()
}

/// Sends only the head of a webhook, which promises more than is ever read, and returns the answer's head.
fn promise_much(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: hooks.example\r\nContent-Length: 100000000\r\n\
         Sentry-Hook-Timestamp: {}\r\nSentry-Hook-Signature: {}\r\n\r\n",
        seconds(),
        signature("")
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Returns where webhooks come in, as the log line at the start tells.
fn announced(stage: &Stage) -> Option<SocketAddr> {
    let output = stage.binary.output();
    let line = output.lines().find(|line| line.contains("\"listening\"")).unwrap();
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    event.get("webhooks").map(|address| address.as_str().unwrap().parse().unwrap())
}

/// Returns how many webhooks have ended in some way.
async fn counted(stage: &Stage, outcome: &str) -> u64 {
    let series = format!("sentrybox_webhooks_total{{outcome=\"{outcome}\"}} ");
    let metrics = stage.ask(Method::GET, "/metrics").await;
    let count = metrics.text().lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse();
    count.unwrap()
}

/// Ends the stage; nothing that was said may hold the secret, a signature or anything else of the body.
async fn close(stage: Stage) {
    let output = stage.binary.output();
    for mark in [SECRET, &signature(&installation("org-002")), "canary", "webhooks-galore", "created"] {
        assert!(!output.contains(mark), "{mark} in what it said: {output}");
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_signed_webhook_is_about_is_asked_for_again_and_nothing_else() {
    let stage = Stage::set(&[CONFIGURED]).await;
    for target in [PROJECTS, OTHERS, PROJECTS, OTHERS] {
        assert_eq!(stage.get(target, OWNER).await.status, StatusCode::OK);
    }
    assert_eq!((stage.sandbox.requests_to(PROJECTS), stage.sandbox.requests_to(OTHERS)), (1, 1));
    let body = installation("org-002");
    let answer = post(stage.binary.admin, &body, &signature(&body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let purged = ["organization:org-002", "unplaced"];
    assert_eq!(told, serde_json::json!({ "purged": purged }));
    let verdict = stage.get(PROJECTS, OWNER).await.field("cache-status").to_owned();
    assert!(verdict.contains("fwd=stale") && verdict.contains("detail=purged"), "{verdict}");
    assert!(stage.get(OTHERS, OWNER).await.field("cache-status").contains("hit"));
    assert_eq!((stage.sandbox.requests_to(PROJECTS), stage.sandbox.requests_to(OTHERS)), (2, 1));
    assert_eq!(counted(&stage, "accepted").await, 1);
    let output = stage.binary.output();
    let line = output.lines().find(|line| line.contains("webhook accepted")).unwrap();
    assert!(line.contains("organization:org-002") && line.contains("\"INFO\""), "{line}");
    close(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_a_replayed_and_a_huge_one_are_refused_and_counted() {
    let stage = Stage::set(&[CONFIGURED]).await;
    let (body, admin) = (installation("org-002"), stage.binary.admin);
    assert_eq!(stage.get(PROJECTS, OWNER).await.status, StatusCode::OK);
    assert_refused(&post(admin, &body, &signature("something else")).await, 403);
    assert_refused(&post(admin, &body, "").await, 403);
    let answer = tokio::task::block_in_place(|| promise_much(admin));
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\"detail\""), "{answer}");
    assert!(stage.get(PROJECTS, OWNER).await.field("cache-status").contains("hit"), "nothing is purged");

    assert_eq!(post(admin, &body, &signature(&body)).await.status, StatusCode::OK);
    assert_refused(&post(admin, &body, &signature(&body)).await, 409);
    let answer = stage.ask(Method::GET, PATH).await;
    assert_refused(&answer, 405);
    assert_eq!(answer.field("allow"), "POST");
    for (outcome, count) in
        [("bad-signature", 2), ("too-large", 1), ("accepted", 1), ("replayed", 1), ("wrong-method", 1)]
    {
        assert_eq!(counted(&stage, outcome).await, count, "{outcome}");
    }
    let output = stage.binary.output();
    let line = output.lines().find(|line| line.contains("\"replayed\"")).unwrap();
    assert!(line.contains("webhook refused") && line.contains("\"WARN\""), "{line}");
    close(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_need_no_admin_token_and_open_nothing_else() {
    let stage = Stage::set(&[CONFIGURED, ("SENTRYBOX_ADMIN__TOKEN", "a-token-for-operators")]).await;
    assert_eq!(announced(&stage), Some(stage.binary.admin));
    let body = installation("org-002");
    assert_eq!(post(stage.binary.admin, &body, &signature(&body)).await.status, StatusCode::OK);
    assert_refused(&stage.ask(Method::POST, "/purge").await, 401);
    assert_refused(&stage.ask(Method::POST, "/webhooks/sentry/").await, 401);
    close(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_there_is_no_such_path() {
    let stage = Stage::set(&[]).await;
    assert_eq!(announced(&stage), None);
    let body = installation("org-002");
    let known = post(stage.binary.admin, &body, &signature(&body)).await;
    let unknown = stage.ask(Method::POST, "/nowhere").await;
    assert_refused(&known, 404);
    assert_eq!((known.status, known.text()), (unknown.status, unknown.text()));
    assert_eq!(counted(&stage, "accepted").await, 0);
    close(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_of_their_own_takes_them_and_nothing_else() {
    let own = ("SENTRYBOX_WEBHOOKS__ADDRESS", "127.0.0.1:0");
    let stage = Stage::set(&[CONFIGURED, own]).await;
    let address = announced(&stage).unwrap();
    assert!(address != stage.binary.admin && address != stage.binary.address);
    for path in ["/", "/metrics", "/livez", "/purge", PROJECTS] {
        assert_refused(&get(address, path, OWNER).await, 404);
    }
    let body = installation("org-002");
    assert_refused(&post(stage.binary.admin, &body, &signature(&body)).await, 404);
    assert_eq!(post(address, &body, &signature(&body)).await.status, StatusCode::OK);
    assert_eq!(counted(&stage, "accepted").await, 1);
    let metrics = stage.ask(Method::GET, "/metrics").await;
    assert!(metrics.text().contains("sentrybox_connections_total{listener=\"webhooks\"} 6\n"), "{metrics:?}");
    close(stage).await;
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = sentrybox();
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "serve"]);
    let output = command.env(CONFIGURED.0, SECRET).env("SENTRYBOX_WEBHOOKS__ADDRESS", &address).output();
    let output = output.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&address) && errors.contains("webhooks.address"), "{errors}");
}

#[test]
fn check_knows_the_section_and_tells_no_secret() {
    let output = sentrybox().arg("check").env(CONFIGURED.0, SECRET).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(
        printed.contains("[webhooks]\nsecret = \"[redacted]\"\n") && !printed.contains(SECRET),
        "{printed}"
    );
    let output = sentrybox().arg("check").env("SENTRYBOX_WEBHOOKS__SECRET", "short").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{errors}");
    assert!(errors.contains("webhooks.secret: expected a secret of at least 16 characters"), "{errors}");
}

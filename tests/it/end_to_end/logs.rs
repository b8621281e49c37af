//! The log of a running process: its level, its bounds, and how a request is found in it.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use sentrybox::sandbox::faults::{Fault, FaultRule};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::end_to_end::{LIST, OWNER, Stage, until};
use crate::support::http::{Answer, Fields, get, request, send};

/// As many as a busy client sends in a few seconds.
const REQUESTS: usize = 1_000;

/// How many of them at a time.
const AT_ONCE: usize = 20;

fn ordering_level(body: &'static str, fields: Fields<'_>) -> Request<Full<Bytes>> {
    request(Method::PUT, "/log", fields, body)
}

async fn level(stage: &Stage) -> String {
    stage.ask(Method::GET, "/log").await.text().to_owned()
}

async fn named(stage: &Stage, id: &str) -> Answer {
    stage.get(&format!("{LIST}?query={id}"), &[OWNER[0], ("x-request-id", id)]).await
}

/// Returns the lines of a log.
fn lines(output: &str) -> Vec<Value> {
    output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_is_read_and_set_by_operators_and_says_what_it_expects() {
    let stage = Stage::set(&[]).await;
    assert_eq!(level(&stage).await, r#"{"level":"debug"}"#);
    let set = async |request| send(stage.binary.admin, request).await.unwrap();
    let answer = set(ordering_level(r#"{"level":"warn"}"#, &[])).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, r#"{"level":"warn"}"#));
    named(&stage, "quiet").await;
    let refused = set(ordering_level(r#"{"level":"loud"}"#, &[])).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text().contains(r#"\"error\", \"warn\", \"info\" and \"debug\""#), "{refused:?}");
    let foreign = set(ordering_level(r#"{"level":"debug"}"#, &[("origin", "https://evil.example")])).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    assert_eq!(level(&stage).await, r#"{"level":"warn"}"#);
    set(ordering_level(r#"{"level":"info"}"#, &[])).await;
    named(&stage, "loud").await;
    until(async || stage.binary.output().contains("\"loud\"")).await;
    let output = stage.binary.output();
    assert!(!output.contains("\"quiet\""), "{output}");
    let changes = lines(&output).into_iter().filter(|line| line["message"] == "log level changed");
    let changes: Vec<_> = changes.map(|line| (line["from"].clone(), line["to"].clone())).collect();
    assert_eq!(changes, [("debug".into(), "warn".into()), ("warn".into(), "info".into())]);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_writes_few_lines_and_says_how_many_it_left_out() {
    let mut stage =
        Stage::set(&[("SENTRYBOX_LOG__MAX_PER_SECOND", "1"), ("SENTRYBOX_BUDGET__ENABLED", "false")]).await;
    stage.sandbox.faults().add(FaultRule::always("/", Fault::Close));
    let mut clients = JoinSet::new();
    for client in 0..AT_ONCE {
        let address = stage.binary.address;
        clients.spawn(async move {
            for number in 0..REQUESTS / AT_ONCE {
                let answer = get(address, &format!("{LIST}?query={client}-{number}"), OWNER).await;
                assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let metrics = stage.ask(Method::GET, "/metrics").await;
    stage.binary.terminate();
    stage.end("");
    let lines = lines(&stage.binary.output());
    let about = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
    let suppressed = |of: &str| {
        let told = lines.iter().filter(|line| line["message"] == "log lines suppressed" && line["of"] == of);
        usize::try_from(told.map(|line| line["suppressed"].as_u64().unwrap()).sum::<u64>()).unwrap()
    };
    for message in ["request failed", "upstream failed"] {
        assert_eq!(about(message) + suppressed(message), REQUESTS, "{message}");
        assert!(about(message) < REQUESTS / 2, "{message}: {}", about(message));
    }
    let counted = suppressed("request failed") + suppressed("upstream failed");
    let counted = format!("sentrybox_log_lines_suppressed_total {counted}\n");
    assert!(metrics.text().contains(&counted), "{counted} {}", metrics.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_by_its_id_and_a_token_is_none() {
    let stage = Stage::set(&[]).await;
    let answer = named(&stage, "Build_7.step-2").await;
    assert_eq!(answer.field("x-request-id"), "Build_7.step-2");
    let digits = "0123456789abcdef".repeat(4);
    for token in ["sntryu_canary", digits.as_str()] {
        let given = named(&stage, token).await.field("x-request-id").to_owned();
        assert_eq!(given.len(), 16, "{given}");
        until(async || stage.binary.output().contains(&given)).await;
        assert!(!stage.binary.output().contains(token));
    }
    let output = stage.binary.output();
    assert!(output.contains(r#""request_id":"Build_7.step-2""#), "{output}");
    stage.close().await;
}

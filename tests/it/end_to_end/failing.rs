//! Upstream is down, or silent.

use std::time::Duration;

use http::StatusCode;
use sentrybox::sandbox::faults::{Fault, FaultRule};

use crate::end_to_end::{LIST, OTHER, OWNER, Stage, assert_refused};

/// A list that is stale a millisecond after it was stored, as [`STALE`] makes it.
const ISSUES: &str = "/api/0/organizations/org-002/issues/";

/// Issues are stale at once, may stand in for a failure, and nothing waits for long.
const STALE: &[(&str, &str)] = &[
    ("SENTRYBOX_CACHE__CLASSES__VOLATILE__FRESH_FOR", "1ms"),
    ("SENTRYBOX_CACHE__CLASSES__VOLATILE__STALE_WHILE_REVALIDATE", "0s"),
    ("SENTRYBOX_CACHE__CLASSES__VOLATILE__STALE_IF_ERROR", "1h"),
    ("SENTRYBOX_UPSTREAM__FIRST_BYTE_TIMEOUT", "500ms"),
];

/// Fails unless what is stored still comes, marked as what it is, and the rest is refused with `status`.
async fn check_shelter(stage: &Stage, status: u16) {
    let fresh = stage.get(LIST, OWNER).await;
    assert_eq!(fresh.status, StatusCode::OK);
    assert!(fresh.field("cache-status").starts_with("sentrybox; hit; ttl="), "{fresh:?}");
    let answer = stage.get(ISSUES, OWNER).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(answer.field("cache-status").contains("fwd=stale"), "{answer:?}");
    assert!(answer.field("cache-status").ends_with("detail=stale-if-error"), "{answer:?}");
    assert!(!answer.field("age").is_empty(), "{answer:?}");
    for (target, fields) in [(LIST, OTHER), ("/api/0/projects/", OWNER)] {
        assert_refused(&stage.get(target, fields).await, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_upstream_costs_what_is_not_stored_and_nothing_else() {
    let stage = Stage::set(STALE).await;
    stage.get(LIST, OWNER).await;
    stage.get(ISSUES, OWNER).await;
    stage.sandbox.faults().add(FaultRule::always("/", Fault::Hang));
    check_shelter(&stage, 504).await;
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_off_costs_what_is_not_stored_and_nothing_else() {
    let stage = Stage::set(STALE).await;
    stage.get(LIST, OWNER).await;
    stage.get(ISSUES, OWNER).await;
    stage.sandbox.faults().add(FaultRule::always("/", Fault::Close));
    check_shelter(&stage, 502).await;
    stage.sandbox.faults().clear();
    assert_eq!(stage.get(LIST, OTHER).await.status, StatusCode::OK);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_upstream_costs_what_is_not_stored_and_nothing_else() {
    let mut stage = Stage::set(STALE).await;
    stage.get(LIST, OWNER).await;
    stage.get(ISSUES, OWNER).await;
    // One that nobody asks takes its place in the stage.
    let stand_in = sentrybox::sandbox::SandboxOptions::unhindered();
    let stand_in = sentrybox::sandbox::Sandbox::start(stand_in).await.unwrap();
    std::mem::replace(&mut stage.sandbox, stand_in).shutdown().await;
    check_shelter(&stage, 502).await;
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stalls_is_given_up() {
    let settings = [("SENTRYBOX_UPSTREAM__IDLE_TIMEOUT", "500ms"), ("SENTRYBOX_BUDGET__RETRIES", "0")];
    let stage = Stage::set(&settings).await;
    stage.sandbox.faults().add(FaultRule::once(LIST, Fault::Stall));
    assert_refused(&stage.get(LIST, OWNER).await, 504);
    stage.sandbox.faults().add(FaultRule::once(LIST, Fault::Truncate));
    assert_refused(&stage.get(LIST, OWNER).await, 502);
    let slow = Fault::SlowAnswer(Duration::from_millis(100));
    stage.sandbox.faults().add(FaultRule::once(LIST, slow));
    assert_eq!(stage.get(LIST, OWNER).await.status, StatusCode::OK);
    stage.close().await;
}

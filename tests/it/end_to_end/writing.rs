//! Writes through the proxy, and who sees them when.

use std::time::Duration;

use http::{Method, StatusCode};
use sentrybox::sandbox::faults::{Fault, FaultRule};

use crate::end_to_end::{LIST, OTHER, OWNER, Stage, until};
use crate::support::http::{get, put};

const DETAIL: &str = "/api/0/organizations/org-002/";

/// Renames an organization as its owner.
async fn rename(stage: &Stage) {
    let answer = put(stage.binary.address, DETAIL, OWNER, r#"{"name":"Renamed"}"#).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(answer.field("cache-status").contains("fwd=method"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_seen_by_the_next_read_with_another_token() {
    let stage = Stage::set(&[]).await;
    for target in [LIST, DETAIL] {
        assert!(!stage.get(target, OTHER).await.text().contains("Renamed"));
    }
    rename(&stage).await;
    for target in [LIST, DETAIL] {
        let answer = stage.get(target, OTHER).await;
        assert!(answer.text().contains("Renamed"), "{answer:?}");
        assert!(answer.field("cache-status").contains("fwd=stale"), "{answer:?}");
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_took_off_before_a_write_serves_nobody_who_comes_after_it() {
    let stage = Stage::set(&[]).await;
    let slow = Fault::SlowAnswer(Duration::from_secs(2));
    stage.sandbox.faults().add(FaultRule::once(LIST, slow).on(Method::GET));
    let address = stage.binary.address;
    let early = tokio::spawn(async move { get(address, LIST, OTHER).await });
    until(async || stage.sandbox.requests_to(LIST) == 1).await;
    rename(&stage).await;
    let during = stage.get(LIST, OTHER).await;
    assert!(during.text().contains("Renamed"), "{during:?}");
    assert!(!early.is_finished(), "the read is still under way");
    // It came before the write, so it may see the world before it; what it brings must not be kept.
    assert_eq!(early.await.unwrap().status, StatusCode::OK);
    let after = stage.get(LIST, OTHER).await;
    assert!(after.text().contains("Renamed"), "{after:?}");
    stage.close().await;
}

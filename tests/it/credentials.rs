//! What upstream says of a credential, and what becomes of what is stored for it.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::sleep;

use crate::support::corridor::{ALICE, BOB, House, PROJECTS, Verdict, is_hit};
use crate::support::scripted::Act;

const TEAMS: &str = "/api/0/organizations/acme/teams/";
const SECOND: Duration = Duration::from_secs(1);

/// A house in which Alice and Bob have their projects stored, and Alice's next request for teams is answered so.
async fn house_where_teams(act: Act) -> House {
    let house = House::without_limits(|_| {}).await;
    house.get(PROJECTS).await;
    house.get_as(BOB, PROJECTS).await;
    house.upstream.plays_once(TEAMS, act);
    house.get(TEAMS).await;
    house.upstream.forget();
    house
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_in_a_loop_costs_one_request_per_interval() {
    for status in [401, 403] {
        let house = House::new();
        house.upstream.plays(PROJECTS, Act::status(status, r#"{"detail":"Invalid token"}"#));
        for _ in 0..25 {
            let answer = house.get(PROJECTS).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (status, r#"{"detail":"Invalid token"}"#));
            sleep(SECOND / 5).await;
        }
        assert_eq!(house.upstream.count(), 1, "{status}");
        let remembered = house.get(PROJECTS).await;
        assert_eq!(house.upstream.count(), 2, "{status}: five seconds are over");
        assert_eq!(Verdict::of(&remembered).number("fwd-status"), Some(i64::from(status)));
        assert_eq!(Verdict::of(&house.get(PROJECTS).await).word("detail"), "remembered-refusal");
    }
}

#[tokio::test(start_paused = true)]
async fn a_remembered_refusal_is_for_that_credential_and_resource_alone_and_not_for_who_wants_it_validated() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::status(403, "{}"));
    house.get(PROJECTS).await;
    assert_eq!(house.get_as(BOB, PROJECTS).await.status, StatusCode::OK);
    assert_eq!(house.get(TEAMS).await.status, StatusCode::OK);
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::FORBIDDEN);
    let asked = house.ask(Method::GET, PROJECTS, &[("cache-control", "no-cache")]).await;
    assert_eq!(asked.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_write_or_a_purge_ends_the_memory_of_a_refusal() {
    let house = House::new();
    let refuse = || house.upstream.plays_once(PROJECTS, Act::status(403, "{}"));
    refuse();
    house.get(PROJECTS).await;
    house.put("/api/0/organizations/acme/").await;
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::OK);
    refuse();
    house.put("/api/0/organizations/acme/").await;
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::FORBIDDEN);
    house.purge_everything().await;
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_403_takes_only_what_it_is_about() {
    let house = house_where_teams(Act::status(403, "{}")).await;
    assert!(is_hit(&house.get(PROJECTS).await));
}

#[tokio::test(start_paused = true)]
async fn a_401_suspends_the_credential_until_upstream_accepts_it_once() {
    let house = house_where_teams(Act::status(401, "{}")).await;
    assert!(is_hit(&house.get_as(BOB, PROJECTS).await), "somebody else's");
    let trial = house.get(PROJECTS).await;
    assert_eq!(Verdict::of(&trial).word("detail"), "credential-suspended", "{trial:?}");
    assert_eq!(house.upstream.count(), 1);
    assert!(is_hit(&house.get(PROJECTS).await), "accepted again");
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_for_a_suspended_credential_does_not_stand_in_for_a_failure_either() {
    let house = house_where_teams(Act::status(401, "{}")).await;
    house.upstream.plays(PROJECTS, Act::unreachable());
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::BAD_GATEWAY);
    assert!(house.get_as(BOB, PROJECTS).await.status.is_success());
    let forbidden = house.ask(Method::GET, PROJECTS, &[("cache-control", "only-if-cached")]).await;
    assert_eq!(forbidden.status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_second_401_without_an_acceptance_between_drops_all_that_is_stored_for_the_credential() {
    let house = house_where_teams(Act::status(401, "{}")).await;
    house.upstream.plays_once(PROJECTS, Act::status(401, "{}"));
    let stored = "/api/0/organizations/acme/";
    house.get(PROJECTS).await;
    sleep(6 * SECOND).await;
    house.upstream.plays_once(stored, Act::json("{}").with("etag", "\"1\""));
    assert_eq!(house.get(stored).await.status, StatusCode::OK, "accepted again");
    let again = house.get(PROJECTS).await;
    assert_eq!(Verdict::of(&again).word("fwd"), "stale", "invalidated: {again:?}");
    assert!(is_hit(&house.get_as(BOB, PROJECTS).await), "somebody else's");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_credential_has_one_request_upstream_at_a_time_until_it_is_accepted() {
    let house = house_where_teams(Act::status(401, "{}")).await;
    let targets: Vec<String> = (0..6).map(|number| format!("{PROJECTS}?page={number}")).collect();
    house.upstream.improvises(|received| {
        let status = if received.target().ends_with("page=2") { 200 } else { 401 };
        Act::status(status, "[]").with("content-type", "application/json").after(SECOND)
    });
    let crowds: Vec<_> = targets.iter().map(|target| house.crowd(1, target, &[])).collect();
    sleep(SECOND / 2).await;
    assert_eq!(house.upstream.in_flight(), 1);
    let bob = house.crowd(1, TEAMS, &[("authorization", BOB)]);
    sleep(SECOND / 4).await;
    assert_eq!(house.upstream.in_flight(), 2, "somebody else's");
    for crowd in crowds.into_iter().chain([bob]) {
        crowd.join_all().await;
    }
    assert_eq!(house.upstream.count(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_lives_on_hits_alone_is_shown_to_upstream_now_and_then() {
    let house = House::with(|config| config.cache.max_unverified = Duration::from_mins(1));
    house.get(PROJECTS).await;
    sleep(59 * SECOND).await;
    assert!(is_hit(&house.get(PROJECTS).await));
    sleep(SECOND).await;
    let shown = house.get(PROJECTS).await;
    assert_eq!(Verdict::of(&shown).word("detail"), "credential-unverified", "{shown:?}");
    sleep(59 * SECOND).await;
    assert!(is_hit(&house.get(PROJECTS).await));
    house.get(TEAMS).await;
    sleep(2 * SECOND).await;
    assert!(is_hit(&house.get(PROJECTS).await), "upstream has just seen it elsewhere");
}

#[tokio::test(start_paused = true)]
async fn while_upstream_cannot_be_asked_the_window_for_errors_is_the_bound_of_a_credential() {
    let house = House::with(|config| config.cache.max_unverified = Duration::from_mins(1));
    house.get(PROJECTS).await;
    sleep(90 * SECOND).await;
    house.upstream.plays(PROJECTS, Act::unreachable());
    let answer = house.get(PROJECTS).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(Verdict::of(&answer).word("detail"), "stale-if-error");
    assert_eq!(house.get_as(ALICE, PROJECTS).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_took_off_before_a_write_is_not_told_after_it() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::status(403, "{}").after(2 * SECOND));
    let early = house.crowd(1, PROJECTS, &[]);
    sleep(SECOND).await;
    house.put("/api/0/organizations/acme/").await;
    early.join_all().await;
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn rejections_of_one_moment_leave_what_is_stored() {
    let house = house_where_teams(Act::json("[]")).await;
    house.upstream.improvises(|_| Act::status(401, "{}").after(SECOND));
    let targets = ["?a", "?b", "?c"].map(|query| format!("{TEAMS}{query}"));
    for crowd in targets.each_ref().map(|target| house.crowd(1, target, &[])) {
        crowd.join_all().await;
    }
    house.upstream.improvises(|_| Act::json("[]"));
    assert_eq!(house.get(&format!("{TEAMS}?d")).await.status, StatusCode::OK, "accepted again");
    assert!(is_hit(&house.get(PROJECTS).await));
}

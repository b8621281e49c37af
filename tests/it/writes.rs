//! A write is forwarded at once, sent once, and seen by everybody who asks after it.

use std::time::Duration;

use http::{Method, StatusCode};
use sentrybox::clock::Stopwatch;
use tokio::time::sleep;

use crate::support::corridor::{ALICE, BOB, House, PROJECTS, Verdict, detail, is_hit};
use crate::support::scripted::Act;

const SECOND: Duration = Duration::from_secs(1);

const RELEASE: &str = "/api/0/organizations/acme/releases/1.0/";
const MEMBERS: &str = "/api/0/organizations/acme/members/";
const RELATED: [&str; 4] = [
    RELEASE,
    "/api/0/organizations/acme/releases/1.0/files/",
    "/api/0/organizations/acme/releases/?per_page=5",
    "/api/0/organizations/acme/",
];
const UNRELATED: [&str; 3] =
    ["/api/0/organizations/acme/monitors/", MEMBERS, "/api/0/organizations/other/releases/1.0/"];

/// Lets both fetch everything, so that it is stored.
async fn warm(house: &House, targets: &[&str]) {
    for credential in [ALICE, BOB] {
        for target in targets {
            house.get_as(credential, target).await;
            assert!(is_hit(&house.get_as(credential, target).await), "{target}");
        }
    }
}

/// Lets both ask for everything. Returns what was still reused, and for whom.
async fn reused(house: &House, targets: &[&str]) -> Vec<String> {
    let mut reused = Vec::new();
    for credential in [ALICE, BOB] {
        for target in targets {
            if is_hit(&house.get_as(credential, target).await) {
                reused.push(format!("{credential} {target}"));
            }
        }
    }
    reused
}

/// Fails if anything is still reused by anybody.
async fn check_forwarded(house: &House, targets: &[&str]) {
    assert_eq!(reused(house, targets).await, Vec::<String>::new());
}

/// Fails unless everything is still reused by both.
async fn check_reused(house: &House, targets: &[&str]) {
    assert_eq!(reused(house, targets).await.len(), 2 * targets.len());
}

#[tokio::test(start_paused = true)]
async fn a_write_invalidates_what_it_changed_for_every_credential_and_nothing_else() {
    for method in [Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
        let house = House::new();
        warm(&house, &RELATED).await;
        warm(&house, &UNRELATED).await;
        let answer = house.ask(method, RELEASE, &[]).await;
        assert_eq!(Verdict::of(&answer).word("fwd"), "method");
        check_forwarded(&house, &RELATED).await;
        check_reused(&house, &UNRELATED).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_write_invalidated_is_said_to_be_so() {
    let house = House::new();
    warm(&house, &[RELEASE]).await;
    house.put(RELEASE).await;
    let verdict = Verdict::of(&house.get(RELEASE).await);
    assert_eq!((verdict.word("fwd"), verdict.word("detail")), ("stale", "invalidated"));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_upstream_refused_invalidates_nothing() {
    for status in [400, 401, 403, 404, 409, 429] {
        let house = House::new();
        warm(&house, &[RELEASE]).await;
        house.upstream.plays_once(RELEASE, Act::status(status, "{}"));
        let answer = house.ask(Method::PUT, RELEASE, &[("authorization", BOB)]).await;
        assert_eq!(answer.status.as_u16(), status);
        assert!(is_hit(&house.get(RELEASE).await), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_been_carried_out_invalidates() {
    let acts = [
        (Act::status(201, "{}"), 201),
        (Act::status(302, "{}"), 302),
        (Act::status(500, "{}"), 500),
        (Act::status(503, "{}"), 503),
        (Act::timeout(), 504),
        (Act::reset(), 502),
    ];
    for (act, status) in acts {
        let house = House::new();
        warm(&house, &RELATED).await;
        house.upstream.plays_once(RELEASE, act);
        assert_eq!(house.put(RELEASE).await.status.as_u16(), status);
        check_forwarded(&house, &RELATED).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_sent_once_whatever_becomes_of_it() {
    for act in [Act::unreachable(), Act::reset(), Act::timeout(), Act::status(503, "{}")] {
        let house = House::new();
        house.upstream.plays(RELEASE, act);
        let answer = house.put(RELEASE).await;
        assert!(answer.status.is_server_error());
        assert_eq!(house.upstream.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn equal_writes_are_never_collapsed() {
    let house = House::new();
    house.upstream.plays(RELEASE, Act::json("{}").after(SECOND));
    tokio::join!(house.put(RELEASE), house.put(RELEASE), house.put(RELEASE));
    assert_eq!(house.upstream.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_write_does_not_wait_for_a_read_of_the_same_path() {
    let house = House::new();
    house.upstream.plays_once(RELEASE, Act::json("{}").after(Duration::from_mins(1)));
    let _reader = house.crowd(1, RELEASE, &[]);
    sleep(SECOND).await;
    let watch = Stopwatch::start();
    assert_eq!(house.put(RELEASE).await.status, StatusCode::OK);
    assert_eq!(watch.read(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_slow_read_overtaken_by_a_write_serves_nobody_who_came_after_it() {
    let house = House::new();
    house.upstream.plays_once(RELEASE, Act::json("\"old\"").after(5 * SECOND));
    let slow = house.crowd(3, RELEASE, &[]);
    sleep(SECOND).await;
    house.upstream.plays_once(RELEASE, Act::json("{}"));
    house.put(RELEASE).await;
    house.upstream.plays(RELEASE, Act::json("\"new\"").after(SECOND));
    // While the slow read is still in the air, and the write's author and somebody else ask.
    assert_eq!(house.get(RELEASE).await.text(), "\"new\"");
    assert_eq!(house.get_as(BOB, RELEASE).await.text(), "\"new\"");
    // Those who had asked before the write get what was true then.
    for answer in slow.join_all().await {
        assert_eq!(answer.text(), "\"old\"");
    }
    // And after it has landed.
    for _ in 0..5 {
        assert_eq!(house.get(RELEASE).await.text(), "\"new\"");
        sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_after_a_write_elsewhere_joins_what_is_in_the_air() {
    for elsewhere in [RELEASE, "/api/0/organizations/other/"] {
        let house = House::new();
        house.upstream.plays(MEMBERS, Act::json("[]").after(5 * SECOND));
        let early = house.crowd(1, MEMBERS, &[]);
        sleep(SECOND).await;
        house.put(elsewhere).await;
        assert!(Verdict::of(&house.get(MEMBERS).await).says("collapsed"), "{elsewhere}");
        early.join_all().await;
        assert_eq!(house.upstream.count(), 2, "{elsewhere}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_there_before_a_write_is_looked_for_again_by_whoever_comes_after_it() {
    let house = House::new();
    house.upstream.plays_once(MEMBERS, Act::status(404, "{}").after(5 * SECOND));
    let early = house.crowd(1, MEMBERS, &[]);
    sleep(SECOND).await;
    house.put(RELEASE).await;
    assert_eq!(house.get(MEMBERS).await.status, StatusCode::OK);
    assert_eq!(early.join_all().await[0].status, StatusCode::NOT_FOUND);
    assert_eq!(house.upstream.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_overtaken_by_a_write_is_not_kept() {
    let house = House::new();
    house.upstream.plays_once(RELEASE, Act::json("\"old\""));
    house.get(RELEASE).await;
    sleep(Duration::from_mins(3)).await;
    house.upstream.plays_once(RELEASE, Act::json("\"old\"").after(5 * SECOND));
    assert_eq!(Verdict::of(&house.get(RELEASE).await).word("detail"), "stale-while-revalidate");
    sleep(SECOND).await;
    house.upstream.plays(RELEASE, Act::json("\"new\""));
    house.put(RELEASE).await;
    for _ in 0..10 {
        assert_eq!(house.get(RELEASE).await.text(), "\"new\"");
        sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_from_before_a_write_stands_in_for_a_failure_after_it() {
    let house = House::new();
    warm(&house, &[RELEASE]).await;
    house.put(RELEASE).await;
    house.upstream.plays(RELEASE, Act::unreachable());
    assert_eq!(house.get(RELEASE).await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test(start_paused = true)]
async fn rfc9111_4_4_what_a_write_invalidated_stands_in_for_no_subsequent_request() {
    let house = House::new();
    house.get(RELEASE).await;
    sleep(Duration::from_mins(15)).await;
    // This one comes before the write, and may be told the state before it; the one after must not join it.
    house.upstream.plays_once(RELEASE, Act::unreachable().after(5 * SECOND));
    let early = house.crowd(1, RELEASE, &[]);
    sleep(SECOND).await;
    house.put(RELEASE).await;
    house.upstream.plays(RELEASE, Act::unreachable());
    assert_eq!(house.get(RELEASE).await.status, StatusCode::BAD_GATEWAY);
    let early = early.join_all().await.remove(0);
    assert_eq!((early.status, Verdict::of(&early).word("detail")), (StatusCode::OK, "stale-if-error"));
}

#[tokio::test(start_paused = true)]
async fn after_a_write_answers_are_fresh_for_a_second_until_upstream_has_settled() {
    let house = House::new();
    warm(&house, &[RELEASE]).await;
    house.put(RELEASE).await;
    for _ in 0..5 {
        let fetched = house.get(RELEASE).await;
        assert!(Verdict::of(&fetched).number("ttl").unwrap() <= 1);
        assert!(is_hit(&house.get(RELEASE).await), "shared within the second");
        sleep(SECOND).await;
        let verdict = Verdict::of(&house.get(RELEASE).await);
        assert_eq!(verdict.word("fwd"), "stale", "no stale window either");
        sleep(SECOND).await;
    }
    // What took off more than ten seconds after the write is as fresh as ever.
    sleep(SECOND).await;
    assert!(!is_hit(&house.get(RELEASE).await));
    sleep(Duration::from_mins(1)).await;
    assert!(is_hit(&house.get(RELEASE).await));
}

#[tokio::test(start_paused = true)]
async fn a_write_runs_to_its_end_although_its_client_has_left() {
    let house = House::new();
    warm(&house, &[RELEASE]).await;
    house.upstream.plays_once(RELEASE, Act::json("{}").after(5 * SECOND));
    let writer = tokio::spawn({
        let house = house.clone();
        async move { house.put(RELEASE).await }
    });
    sleep(SECOND).await;
    writer.abort();
    assert!(writer.await.unwrap_err().is_cancelled());
    assert_eq!(house.upstream.in_flight(), 1);
    house.proxy.drain(Duration::from_secs(30)).await;
    assert_eq!(house.upstream.in_flight(), 0);
    assert!(!is_hit(&house.get(RELEASE).await));
}

#[tokio::test(start_paused = true)]
async fn a_write_to_a_project_or_team_passes_through_and_invalidates_its_organization() {
    for written in ["/api/0/projects/acme/web/", "/api/0/teams/acme/core/"] {
        let house = House::new();
        warm(&house, &[PROJECTS, RELEASE, "/api/0/organizations/"]).await;
        warm(&house, &["/api/0/organizations/other/projects/"]).await;
        assert_eq!(house.put(written).await.status, StatusCode::OK);
        check_forwarded(&house, &[PROJECTS, RELEASE, "/api/0/organizations/"]).await;
        check_reused(&house, &["/api/0/organizations/other/projects/"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_panics_is_answered_and_invalidates() {
    let house = House::new();
    warm(&house, &[RELEASE]).await;
    house.upstream.plays_once(RELEASE, Act::panic());
    let answer = house.put(RELEASE).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!detail(&answer).is_empty());
    assert!(!is_hit(&house.get(RELEASE).await));
    house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn after_a_purge_everything_is_fetched_anew() {
    let house = House::new();
    warm(&house, &RELATED).await;
    assert!(house.purge_everything().await > 0);
    check_forwarded(&house, &RELATED).await;
    check_reused(&house, &RELATED).await;
}

#[tokio::test(start_paused = true)]
async fn a_read_overtaken_by_a_purge_is_not_kept() {
    let house = House::new();
    house.upstream.plays_once(RELEASE, Act::json("\"old\"").after(5 * SECOND));
    let slow = house.crowd(1, RELEASE, &[]);
    sleep(SECOND).await;
    house.purge_everything().await;
    slow.join_all().await;
    assert!(!is_hit(&house.get(RELEASE).await));
}

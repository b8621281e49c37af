//! A purge is followed by a forward for every credential, and for nothing else.

use std::time::Duration;

use http::StatusCode;
use sentrybox::cache::generations::PurgeDepth;
use sentrybox::cache::invalidation::selector::{Selector, SelectorError};
use tokio::time::sleep;

use crate::support::corridor::{ALICE, BOB, House, PROJECTS, Verdict, is_hit};
use crate::support::scripted::Act;

const SECOND: Duration = Duration::from_secs(1);

/// What is stored: of two organizations, of several routes.
const STORED: [&str; 6] = [
    "/api/0/organizations/",
    PROJECTS,
    "/api/0/organizations/acme/projects/?per_page=5",
    "/api/0/organizations/acme/issues/4711/",
    "/api/0/organizations/acme/releases/web%401.0/",
    "/api/0/organizations/other/projects/",
];

/// Returns a house in which both have fetched everything.
async fn warm() -> House {
    let house = House::new();
    for credential in [ALICE, BOB] {
        for target in STORED {
            house.get_as(credential, target).await;
            assert!(is_hit(&house.get_as(credential, target).await), "{target}");
        }
    }
    house
}

/// Says which of what is stored is forwarded for somebody.
async fn forwarded(house: &House, credential: &str) -> Vec<&'static str> {
    let mut forwarded = Vec::new();
    for target in STORED {
        if !is_hit(&house.get_as(credential, target).await) {
            forwarded.push(target);
        }
    }
    forwarded
}

fn organization(name: &str) -> Selector {
    Selector::Organization(name.to_owned())
}

/// Purges, and checks what each is forwarded for afterwards.
async fn check(selector: Selector, expected: [&[&str]; 2]) {
    for depth in [PurgeDepth::Soft, PurgeDepth::Hard] {
        let house = warm().await;
        let count: usize = expected.iter().map(|targets| targets.len()).sum();
        let purged = house.proxy.purge_selected(&selector, depth).await.unwrap();
        assert_eq!(purged, count as u64, "{selector} {depth:?}");
        assert_eq!(forwarded(&house, ALICE).await, expected[0], "{selector} {depth:?}");
        assert_eq!(forwarded(&house, BOB).await, expected[1], "{selector} {depth:?}");
        assert!(forwarded(&house, ALICE).await.is_empty(), "it is stored anew");
        house.assert_nothing_leaks();
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_an_organization_reaches_it_for_every_credential_and_no_other() {
    // The list shows all of them.
    let acme = &STORED[..5];
    check(organization("acme"), [acme, acme]).await;
    check(organization("nobody"), [&STORED[..1]; 2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_a_url_reaches_all_its_variants() {
    let projects = &STORED[1..3];
    let url = "https://box.example/api/0/organizations/acme/projects/?cursor=0:100:0";
    check(Selector::Url(url.to_owned()), [projects, projects]).await;
    check(Selector::Url("/api/0/organizations/acme/releases/web@1.0/".to_owned()), [&STORED[4..5]; 2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_a_route_reaches_it_in_every_organization() {
    let route = "/api/0/organizations/{organization}/projects/";
    let projects = [STORED[1], STORED[2], STORED[5]];
    check(Selector::Route(route.to_owned()), [&projects, &projects]).await;
    let unknown = Selector::Route("/api/0/organizations/acme/projects/".to_owned());
    let refusal = warm().await.proxy.purge_selected(&unknown, PurgeDepth::Soft).await;
    assert_eq!(refusal, Err(SelectorError::Route));
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_a_tag_reaches_what_carries_it() {
    check(Selector::Tag("issue:4711".to_owned()), [&STORED[3..4]; 2]).await;
    check(Selector::Tag("release:acme/web@1.0".to_owned()), [&STORED[4..5]; 2]).await;
    check(Selector::Tag("release:other/web@1.0".to_owned()), [&[], &[]]).await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_a_credential_reaches_it_alone() {
    let fingerprint = House::with(secret).proxy.fingerprint_of_text(BOB).unwrap();
    for depth in [PurgeDepth::Soft, PurgeDepth::Hard] {
        let house = House::with(secret);
        for credential in [ALICE, BOB] {
            house.get_as(credential, PROJECTS).await;
        }
        let purged = house.proxy.purge_selected(&Selector::Credential(fingerprint), depth).await;
        assert_eq!(purged, Ok(1));
        assert!(is_hit(&house.get_as(ALICE, PROJECTS).await));
        assert!(!is_hit(&house.get_as(BOB, PROJECTS).await));
    }
}

fn secret(config: &mut sentrybox::config::Config) {
    config.secret = sentrybox::config::Secret::new("a secret of the whole deployment, for all".to_owned());
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_everything_reaches_everything() {
    check(Selector::Everything, [&STORED; 2]).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_purged_softly_says_so_and_stands_in_when_upstream_fails() {
    let house = warm().await;
    house.proxy.purge_selected(&organization("acme"), PurgeDepth::Soft).await.unwrap();
    house.upstream.plays(PROJECTS, Act::status(503, "{}"));
    let answer = house.get(PROJECTS).await;
    let verdict = Verdict::of(&answer);
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!((verdict.word("fwd"), verdict.word("detail")), ("stale", "stale-if-error"));
    house.upstream.plays(PROJECTS, Act::json("[]"));
    sleep(SECOND).await;
    let verdict = Verdict::of(&house.get(PROJECTS).await);
    assert_eq!((verdict.word("fwd"), verdict.word("detail")), ("stale", "purged"));
}

#[tokio::test(start_paused = true)]
async fn what_was_purged_for_good_stands_in_for_nothing() {
    let house = warm().await;
    house.proxy.purge_selected(&organization("acme"), PurgeDepth::Hard).await.unwrap();
    house.upstream.plays(PROJECTS, Act::status(503, "{}"));
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn what_was_purged_softly_is_validated_and_fresh_again() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::json("[1]").with("etag", "\"1\""));
    house.get(PROJECTS).await;
    house.proxy.purge_selected(&organization("acme"), PurgeDepth::Soft).await.unwrap();
    house.upstream.plays_once(PROJECTS, Act::status(304, "").with("etag", "\"1\""));
    assert_eq!(house.get(PROJECTS).await.body, "[1]");
    assert_eq!(house.upstream.last().field("if-none-match"), "\"1\"");
    assert!(is_hit(&house.get(PROJECTS).await));
}

#[tokio::test(start_paused = true)]
async fn a_read_overtaken_by_a_soft_purge_is_stored_stale_and_nobody_who_comes_later_joins_it() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::json("\"old\"").after(5 * SECOND));
    let slow = house.crowd(1, PROJECTS, &[]);
    sleep(SECOND).await;
    house.proxy.purge_selected(&organization("acme"), PurgeDepth::Soft).await.unwrap();
    house.upstream.plays_once(PROJECTS, Act::json("\"new\"").after(10 * SECOND));
    let late = house.crowd(1, PROJECTS, &[]);
    assert_eq!(slow.join_all().await[0].body, "\"old\"");
    assert!(!is_hit(&house.get(PROJECTS).await));
    assert_eq!(late.join_all().await[0].body, "\"new\"");
    assert!(is_hit(&house.get(PROJECTS).await));
}

#[tokio::test(start_paused = true)]
async fn a_purge_ends_the_memory_of_a_refusal() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::status(403, "{}"));
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::FORBIDDEN);
    house.proxy.purge_selected(&organization("acme"), PurgeDepth::Soft).await.unwrap();
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::OK);
}

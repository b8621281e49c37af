//! An organization has an id and a slug, and may get another slug: a write or a purge under one name reaches what is stored
//! under all of them.

use http::{Method, StatusCode};
use sentrybox::cache::generations::PurgeDepth;
use sentrybox::cache::invalidation::selector::Selector;

use crate::support::corridor::{ALICE, BOB, House, asking, is_hit};
use crate::support::scripted::{Act, Received};

const LIST: &str = "/api/0/organizations/";

/// What is asked for of `acme`, whose id is 7, under both names.
const ACMES: [&str; 4] = [
    "/api/0/organizations/acme/members/",
    "/api/0/organizations/7/members/",
    "/api/0/organizations/acme/issues/",
    "/api/0/organizations/7/issues/",
];

/// The same of another one.
const OTHERS: [&str; 2] = ["/api/0/organizations/bolt/members/", "/api/0/organizations/8/members/"];

/// Names both organizations in the list, and nothing anywhere else.
fn two_organizations(received: &Received) -> Act {
    match received.uri.path() {
        LIST => Act::json(r#"[{"id":"7","slug":"acme"},{"id":"8","slug":"bolt"}]"#),
        _ => Act::json("[]"),
    }
}

/// Returns a house in which both have fetched everything, and nobody the names.
async fn without_names() -> House {
    let house = House::new();
    house.upstream.improvises(two_organizations);
    warm(&house).await;
    house
}

/// Returns a house that has learned the names before.
async fn with_names() -> House {
    let house = House::new();
    house.upstream.improvises(two_organizations);
    house.get(LIST).await;
    warm(&house).await;
    house
}

/// Lets both fetch everything.
async fn warm(house: &House) {
    for credential in [ALICE, BOB] {
        for target in ACMES.iter().chain(&OTHERS) {
            house.get_as(credential, target).await;
            assert!(is_hit(&house.get_as(credential, target).await), "{target}");
        }
    }
}

/// Says which targets are still reused, by everybody.
async fn reused(house: &House, targets: &[&'static str]) -> Vec<&'static str> {
    let mut reused = Vec::new();
    for target in targets {
        let (alices, bobs) = (house.get(target).await, house.get_as(BOB, target).await);
        assert_eq!(is_hit(&alices), is_hit(&bobs), "{target}");
        if is_hit(&alices) {
            reused.push(*target);
        }
    }
    reused
}

#[tokio::test(start_paused = true)]
async fn a_write_under_one_name_reaches_what_is_stored_under_the_other_and_no_other_organization() {
    for written in [
        "/api/0/organizations/acme/members/1/",
        "/api/0/organizations/7/members/1/",
        "/api/0/projects/7/web/",
    ] {
        let house = with_names().await;
        house.put(written).await;
        assert!(reused(&house, &ACMES).await.is_empty(), "{written}");
        assert_eq!(reused(&house, &OTHERS).await, OTHERS, "{written}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_in_under_one_name_reaches_its_monitor_under_the_other() {
    let monitors = ["monitors/", "monitors/nightly/", "monitors-stats/"];
    for (written, read) in [("7", "acme"), ("acme", "7")] {
        let house = with_names().await;
        let targets = monitors.map(|below| format!("{LIST}{read}/{below}"));
        for target in &targets {
            house.get(target).await;
        }
        let check_in = format!("{LIST}{written}/monitors/nightly/checkins/");
        house.serve(asking(Method::POST, &check_in, &[], "{}")).await;
        for target in &targets {
            assert!(!is_hit(&house.get(target).await), "{target} after {check_in}");
        }
        assert_eq!(reused(&house, &OTHERS).await, OTHERS);
    }
}

#[tokio::test(start_paused = true)]
async fn what_lists_issues_under_the_other_name_is_reached_by_a_write_to_one() {
    for written in ["/api/0/organizations/acme/issues/4711/", "/api/0/organizations/7/issues/WEB-3/"] {
        let house = with_names().await;
        house.put(written).await;
        assert_eq!(reused(&house, &ACMES).await, [ACMES[0], ACMES[1]], "{written}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_names_are_not_known_a_write_reaches_rather_too_much() {
    let house = without_names().await;
    house.put("/api/0/organizations/acme/members/1/").await;
    assert!(reused(&house, &ACMES).await.is_empty());
    assert_eq!(reused(&house, &OTHERS).await, [OTHERS[0]]);
    let house = without_names().await;
    house.put("/api/0/organizations/7/members/1/").await;
    assert!(reused(&house, &ACMES).await.is_empty() && reused(&house, &OTHERS).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_purge_under_one_name_reaches_what_is_stored_under_the_other() {
    for name in ["acme", "7"] {
        let late = without_names().await;
        late.get(LIST).await;
        for house in [with_names().await, late] {
            let selector = Selector::Organization(name.to_owned());
            house.proxy.purge_selected(&selector, PurgeDepth::Soft).await.unwrap();
            assert!(reused(&house, &ACMES).await.is_empty(), "{name}");
            assert!(reused(&house, &OTHERS).await.contains(&OTHERS[0]), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_a_url_reaches_the_same_resource_under_the_other_name() {
    for (url, expected) in [(ACMES[0], [ACMES[2], ACMES[3]]), (ACMES[3], [ACMES[0], ACMES[1]])] {
        let house = with_names().await;
        house.proxy.purge_selected(&Selector::Url(url.to_owned()), PurgeDepth::Soft).await.unwrap();
        assert_eq!(reused(&house, &ACMES).await, expected, "{url}");
        assert_eq!(reused(&house, &OTHERS).await, OTHERS, "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_renamed_organization_is_dropped_under_both_slugs_and_so_is_what_was_not_there() {
    let house = House::new();
    let (old, new) = ("/api/0/organizations/acme/", "/api/0/organizations/apex/");
    house.upstream.plays_once(old, Act::json(r#"{"id":"7","slug":"acme"}"#));
    house.upstream.plays_once(new, Act::status(404, r#"{"detail":"none"}"#));
    for target in [old, new] {
        house.get(target).await;
        assert!(is_hit(&house.get(target).await), "{target}");
    }
    house.upstream.plays_once(old, Act::json(r#"{"id":"7","slug":"apex"}"#));
    let renamed = house.serve(asking(Method::PUT, old, &[], r#"{"slug":"apex"}"#)).await;
    assert_eq!(renamed.status, StatusCode::OK);
    house.upstream.plays(old, Act::status(404, r#"{"detail":"none"}"#));
    house.upstream.plays(new, Act::json(r#"{"id":"7","slug":"apex"}"#));
    assert_eq!(house.get(old).await.status, StatusCode::NOT_FOUND);
    assert_eq!(house.get(new).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn what_is_created_is_found_at_once_although_it_was_looked_for_in_vain() {
    for (missing, written) in [
        ("/api/0/organizations/apex/", "/api/0/organizations/"),
        ("/api/0/organizations/acme/releases/2.0/", "/api/0/organizations/acme/releases/"),
        ("/api/0/organizations/acme/releases/2.0/", "/api/0/projects/acme/web/releases/"),
        ("/api/0/organizations/acme/members/9/", "/api/0/organizations/acme/members/"),
    ] {
        let house = House::new();
        house.upstream.plays_once(missing, Act::status(404, r#"{"detail":"none"}"#));
        house.get(missing).await;
        assert_eq!(house.get(missing).await.status, StatusCode::NOT_FOUND);
        let created = house.serve(asking(Method::POST, written, &[], "{}")).await;
        assert_eq!(created.status, StatusCode::OK);
        assert_eq!(house.get(missing).await.status, StatusCode::OK, "{written}");
    }
}

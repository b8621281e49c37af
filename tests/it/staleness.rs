//! How old an answer may be: fresh, stale while it is refreshed, stale because upstream fails, and never longer.

use std::time::Duration;

use http::{Method, StatusCode};
use sentrybox::clock::Stopwatch;
use sentrybox::config::cache::RuleConfig;
use tokio::time::sleep;

use crate::support::corridor::{BOB, House, PROJECTS, Verdict, detail, is_hit};
use crate::support::http::Answer;
use crate::support::scripted::{Act, Received};

const SECOND: Duration = Duration::from_secs(1);
/// The class of [`PROJECTS`]: `slow`.
const FRESH_FOR: Duration = Duration::from_mins(2);
const STALE_WHILE_REVALIDATE: Duration = Duration::from_mins(10);
const STALE_IF_ERROR: Duration = Duration::from_hours(24);

/// Builds a house where `act` is stored for [`PROJECTS`].
async fn house_with_stored(act: Act) -> House {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, act);
    house.get(PROJECTS).await;
    house
}

/// Builds a house where `"old"` is stored, too stale to be reused without asking.
async fn house_with_stale() -> House {
    let house = house_with_stored(Act::json("\"old\"")).await;
    sleep(FRESH_FOR + STALE_WHILE_REVALIDATE + SECOND).await;
    house
}

fn is_stale_if_error(answer: &Answer) -> bool {
    let verdict = Verdict::of(answer);
    answer.status == StatusCode::OK
        && answer.text() == "\"old\""
        && verdict.word("detail") == "stale-if-error"
        && !verdict.word("fwd").is_empty()
        && verdict.number("ttl").is_some_and(|ttl| ttl < 0)
}

/// The ways in which upstream can fail without a body, and the status that a client with nothing stored gets.
fn early_failures() -> Vec<(Act, u16)> {
    vec![
        (Act::status(500, "{}"), 500),
        (Act::status(502, "{}"), 502),
        (Act::status(503, "{}"), 503),
        (Act::status(504, "{}"), 504),
        (Act::status(429, "{}"), 429),
        (Act::unreachable(), 502),
        (Act::timeout().after(Duration::from_secs(30)), 504),
        (Act::reset(), 502),
    ]
}

/// Those, and the ways that only a flight tells from an answer.
fn failures() -> Vec<(Act, u16)> {
    let late = [
        (Act::json("[").breaking_off(), 502),
        (Act::json("[").of_unknown_length().breaking_off(), 502),
        (Act::hang(), 504),
    ];
    early_failures().into_iter().chain(late).collect()
}

#[tokio::test(start_paused = true)]
async fn a_fresh_answer_is_reused_with_its_age() {
    let house = house_with_stored(Act::json("[1]").after(SECOND)).await;
    sleep(Duration::from_mins(1)).await;
    let answer = house.get(PROJECTS).await;
    // A second on the way counts as age (RFC 9111 §4.2.3).
    assert_eq!((answer.text(), answer.field("age")), ("[1]", "61"));
    assert_eq!(Verdict::of(&answer).number("ttl"), Some(59));
    assert_eq!(house.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_age_that_upstream_states_counts() {
    let house = house_with_stored(Act::json("[1]").with("age", "100")).await;
    sleep(10 * SECOND).await;
    assert_eq!(house.get(PROJECTS).await.field("age"), "110");
    sleep(10 * SECOND).await;
    assert_eq!(Verdict::of(&house.get(PROJECTS).await).word("detail"), "stale-while-revalidate");
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_goes_out_at_once_and_is_refreshed_once_for_everybody() {
    let house = house_with_stored(Act::json("\"old\"")).await;
    house.upstream.plays(PROJECTS, Act::json("\"new\"").after(5 * SECOND));
    sleep(FRESH_FOR).await;
    let watch = Stopwatch::start();
    for answer in house.crowd(100, PROJECTS, &[]).join_all().await {
        let verdict = Verdict::of(&answer);
        assert!(verdict.says("hit") && verdict.word("detail") == "stale-while-revalidate");
        assert_eq!(answer.text(), "\"old\"");
    }
    assert_eq!(watch.read(), Duration::ZERO);
    sleep(6 * SECOND).await;
    let answer = house.get(PROJECTS).await;
    assert!(is_hit(&answer) && answer.text() == "\"new\"");
    assert_eq!(house.upstream.count(), 2);
    house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn stale_while_revalidate_ends_where_its_window_ends() {
    let house = house_with_stored(Act::json("\"old\"")).await;
    house.upstream.plays(PROJECTS, Act::status(500, "{}").after(SECOND));
    sleep(FRESH_FOR).await;
    sleep(STALE_WHILE_REVALIDATE.saturating_sub(2 * SECOND)).await;
    assert_eq!(Verdict::of(&house.get(PROJECTS).await).word("detail"), "stale-while-revalidate");
    sleep(3 * SECOND).await;
    house.upstream.plays(PROJECTS, Act::json("\"new\""));
    let answer = house.get(PROJECTS).await;
    assert_eq!((Verdict::of(&answer).word("fwd"), answer.text()), ("stale", "\"new\""));
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_leaves_what_is_stored() {
    for (act, _) in failures() {
        let house = house_with_stored(Act::json("\"old\"")).await;
        sleep(FRESH_FOR).await;
        house.upstream.plays_once(PROJECTS, act);
        house.get(PROJECTS).await;
        sleep(Duration::from_mins(1)).await;
        assert_eq!(house.get(PROJECTS).await.text(), "\"old\"");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_stands_in_for_every_kind_of_failure() {
    for (act, status) in failures() {
        let house = house_with_stale().await;
        house.upstream.plays(PROJECTS, act.clone());
        let answer = house.get(PROJECTS).await;
        assert!(is_stale_if_error(&answer), "{act:?}: {answer:?}");
        // Who has nothing stored gets the failure itself.
        let other = house.get_as(BOB, PROJECTS).await;
        assert_eq!(other.status.as_u16(), status, "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_if_error_ends_where_its_window_ends() {
    for (act, status) in failures() {
        let house = house_with_stored(Act::json("\"old\"")).await;
        // What hangs does so for as long as a passenger waits.
        house.upstream.plays(PROJECTS, act.clone());
        sleep(FRESH_FOR).await;
        sleep(STALE_IF_ERROR.saturating_sub(Duration::from_secs(40))).await;
        assert!(is_stale_if_error(&house.get(PROJECTS).await), "{act:?}");
        sleep(Duration::from_secs(41)).await;
        assert_eq!(house.get(PROJECTS).await.status.as_u16(), status, "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_of_a_stale_answer_is_answered_like_a_get_when_upstream_fails() {
    for (act, _) in early_failures() {
        let house = house_with_stale().await;
        house.upstream.plays(PROJECTS, act.clone());
        let answer = house.ask(Method::HEAD, PROJECTS, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{act:?}");
        assert_eq!(Verdict::of(&answer).word("detail"), "stale-if-error", "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_stands_in_although_its_key_is_not_worth_collapsing() {
    let house = house_with_stale().await;
    house.upstream.plays_once(PROJECTS, Act::json("\"mine\"").with("cache-control", "no-store"));
    house.get(PROJECTS).await;
    house.upstream.plays(PROJECTS, Act::unreachable());
    assert!(is_stale_if_error(&house.get(PROJECTS).await));
}

#[tokio::test(start_paused = true)]
async fn upstream_can_forbid_stale_answers() {
    for directive in ["must-revalidate", "no-cache", "max-age=120, must-revalidate", "stale-if-error=0"] {
        let house = house_with_stored(Act::json("\"old\"").with("cache-control", directive)).await;
        house.upstream.plays(PROJECTS, Act::unreachable());
        sleep(FRESH_FOR + STALE_WHILE_REVALIDATE).await;
        assert_eq!(house.get(PROJECTS).await.status, StatusCode::BAD_GATEWAY, "{directive}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_upstream_wants_validated_is_never_reused_without() {
    let stored = Act::json("\"old\"").with("cache-control", "no-cache");
    let house = house_with_stored(stored.clone()).await;
    sleep(SECOND).await;
    house.upstream.plays(PROJECTS, stored);
    assert_eq!(Verdict::of(&house.get(PROJECTS).await).word("detail"), "always-validate");
    house.upstream.plays(PROJECTS, Act::unreachable());
    let answer = house.get(PROJECTS).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "not even when it cannot be");
}

#[tokio::test(start_paused = true)]
async fn nothing_stale_is_served_for_a_key_that_upstream_has_refused_since() {
    let dressed = |act: Act| {
        [act.clone(), act.clone().with("set-cookie", "a=1"), act.with("cache-control", "no-store")]
    };
    for status in [401, 403, 404, 410] {
        for refusal in dressed(Act::status(status, "{}")) {
            let house = house_with_stale().await;
            house.upstream.plays_once(PROJECTS, refusal.clone());
            assert_eq!(house.get(PROJECTS).await.status.as_u16(), status);
            sleep(Duration::from_secs(5)).await;
            house.upstream.plays(PROJECTS, Act::status(503, "{}"));
            let answer = house.get(PROJECTS).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{refusal:?}: {answer:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_refused_ends_the_reuse() {
    for status in [401, 403, 404] {
        let house = house_with_stored(Act::json("\"old\"")).await;
        sleep(FRESH_FOR).await;
        house.upstream.plays(PROJECTS, Act::status(status, "{}"));
        assert_eq!(house.get(PROJECTS).await.text(), "\"old\"");
        sleep(SECOND).await;
        assert_eq!(house.get(PROJECTS).await.status.as_u16(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_credential_loses_all_that_it_has_stored_and_nobody_else_does() {
    let house = House::new();
    let teams = "/api/0/organizations/acme/teams/";
    for credential in [crate::support::corridor::ALICE, BOB] {
        house.get_as(credential, teams).await;
    }
    house.upstream.plays_once(PROJECTS, Act::status(401, "{}"));
    house.get(PROJECTS).await;
    assert!(!is_hit(&house.get(teams).await));
    assert!(is_hit(&house.get_as(BOB, teams).await));
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_of_zero_validates_every_time() {
    let house = House::with(|config| {
        let class = config.cache.classes.get_mut("slow").unwrap();
        class.fresh_for = Some(Duration::ZERO);
    });
    house.upstream.improvises(validating);
    house.get(PROJECTS).await;
    for _ in 0..3 {
        let answer = house.get(PROJECTS).await;
        let verdict = Verdict::of(&answer);
        assert_eq!((verdict.word("detail"), verdict.number("fwd-status")), ("always-validate", Some(304)));
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "\"old\""));
    }
    assert_eq!(house.upstream.count(), 4);
}

/// Answers with a validator, and 304 to who names it.
fn validating(received: &Received) -> Act {
    if received.field("if-none-match") == "\"v1\"" {
        Act::status(304, "").with("etag", "\"v1\"").with("x-sentry-rate-limit-remaining", "39")
    } else {
        Act::json("\"old\"").with("etag", "\"v1\"")
    }
}

#[tokio::test(start_paused = true)]
async fn a_304_freshens_what_is_stored_and_is_not_passed_to_who_did_not_ask() {
    let house = House::new();
    house.upstream.improvises(validating);
    house.get(PROJECTS).await;
    sleep(FRESH_FOR + STALE_WHILE_REVALIDATE + SECOND).await;
    let answer = house.get(PROJECTS).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "\"old\""));
    assert_eq!(house.upstream.last().field("if-none-match"), "\"v1\"");
    assert_eq!(Verdict::of(&answer).number("fwd-status"), Some(304));
    assert_eq!(answer.field("x-sentry-rate-limit-remaining"), "39");
    sleep(Duration::from_secs(100)).await;
    let answer = house.get(PROJECTS).await;
    assert!(is_hit(&answer) && answer.text() == "\"old\"");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_names_the_validator_gets_a_304_of_its_own() {
    let house = House::new();
    house.upstream.improvises(validating);
    let fields = [("if-none-match", "\"v1\"")];
    let first = house.ask(Method::GET, PROJECTS, &fields).await;
    assert_eq!((first.status, first.text()), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(house.upstream.last().field("if-none-match"), "", "a flight asks for everybody");
    let again = house.ask(Method::GET, PROJECTS, &fields).await;
    assert!(again.status == StatusCode::NOT_MODIFIED && is_hit(&again));
}

#[tokio::test(start_paused = true)]
async fn a_304_that_nobody_asked_for_is_no_answer() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::status(304, ""));
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test(start_paused = true)]
async fn with_upstream_stopped_fresh_and_stale_answers_still_come_and_others_fail_in_time() {
    let teams = "/api/0/organizations/acme/teams/";
    let cases =
        [(Act::unreachable(), 502), (Act::timeout().after(Duration::from_secs(30)), 504), (Act::hang(), 504)];
    for (act, status) in cases {
        let house = house_with_stale().await;
        house.get(teams).await;
        let stopped = act.clone();
        house.upstream.improvises(move |_| stopped.clone());
        assert!(is_hit(&house.get(teams).await));
        assert!(is_stale_if_error(&house.get(PROJECTS).await));
        let watch = Stopwatch::start();
        let cold = house.get("/api/0/organizations/acme/members/").await;
        assert_eq!(cold.status.as_u16(), status, "{act:?}");
        assert!(!detail(&cold).is_empty());
        assert!(watch.read() <= Duration::from_secs(35), "{:?}", watch.read());
    }
}

#[tokio::test(start_paused = true)]
async fn upstreams_own_lifetime_wins_over_the_class_unless_the_rule_overrides() {
    for (overrides, expected) in [(false, false), (true, true)] {
        let house = House::with(|config| {
            config.cache.rules = vec![RuleConfig {
                route: "/api/0/organizations/{organization}/projects/".to_owned(),
                class: Some("slow".to_owned()),
                never: false,
                overrides,
            }];
        });
        house
            .upstream
            .plays(PROJECTS, Act::json("[]").with("cache-control", "max-age=10, stale-while-revalidate=0"));
        house.get(PROJECTS).await;
        sleep(Duration::from_secs(5)).await;
        assert!(is_hit(&house.get(PROJECTS).await));
        sleep(Duration::from_mins(1)).await;
        assert_eq!(is_hit(&house.get(PROJECTS).await), expected, "override = {overrides}");
    }
}

//! What upstream keeps from caches, from shared ones, or from reuse: fields, whole answers, and while it is out of reach.

use std::time::Duration;

use http::{Method, StatusCode};
use sentrybox::config::Config;
use sentrybox::config::cache::{ClassConfig, RuleConfig};
use tokio::time::sleep;

use crate::support::corridor::{House, PROJECTS, Verdict, is_hit};
use crate::support::http::Fields;
use crate::support::scripted::Act;

const NOBODY: Fields<'static> = &[("authorization", "")];

fn anonymous(config: &mut Config) {
    config.cache.anonymous = true;
}

/// Leaves everything to RFC 9111.
fn by_the_rfc(config: &mut Config) {
    let class = ClassConfig { fresh_for: None, stale_while_revalidate: Duration::ZERO, stale_if_error: None };
    config.cache.classes.insert("rfc".to_owned(), class);
    let route = "/api/0/organizations/{*rest}".to_owned();
    config.cache.rules =
        vec![RuleConfig { route, class: Some("rfc".to_owned()), never: false, overrides: false }];
}

#[tokio::test(start_paused = true)]
async fn rfc9111_5_2_2_4_fields_that_no_cache_lists_go_to_the_client_that_had_them_fetched_alone() {
    let house = House::new();
    let act = Act::json("[1]")
        .with("cache-control", r#"max-age=60, no-cache="x-a, x-b""#)
        .with("x-a", "1")
        .with("x-c", "3");
    house.upstream.plays(PROJECTS, act.after(Duration::from_secs(1)));
    let crowd = house.crowd(3, PROJECTS, &[]).join_all().await;
    assert_eq!(house.upstream.count(), 1);
    for answer in &crowd {
        let is_first = !Verdict::of(answer).says("collapsed");
        assert_eq!((answer.field("x-a"), answer.field("x-c")), (if is_first { "1" } else { "" }, "3"));
    }
    let reused = house.get(PROJECTS).await;
    assert!(is_hit(&reused));
    assert_eq!((reused.field("x-a"), reused.field("x-c")), ("", "3"));
}

#[tokio::test(start_paused = true)]
async fn rfc9111_5_2_2_4_a_validated_response_brings_the_listed_fields_again() {
    let house = House::new();
    let listing = |act: Act| act.with("cache-control", r#"max-age=60, no-cache="x-a""#).with("etag", "\"1\"");
    house.upstream.plays_once(PROJECTS, listing(Act::json("[1]")).with("x-a", "1"));
    house.upstream.plays(PROJECTS, listing(Act::status(304, "")).with("x-a", "2"));
    house.get(PROJECTS).await;
    let answer = house.ask(Method::GET, PROJECTS, &[("cache-control", "no-cache")]).await;
    assert_eq!((answer.text(), answer.field("x-a")), ("[1]", "2"));
    assert_eq!(house.get(PROJECTS).await.field("x-a"), "");
}

#[tokio::test(start_paused = true)]
async fn rfc9111_5_2_2_7_fields_that_private_lists_are_kept_from_the_shared_cache_alone() {
    let house = House::with(anonymous);
    let act = Act::json("[1]").with("cache-control", r#"max-age=60, private="x-a""#).with("x-a", "1");
    house.upstream.plays(PROJECTS, act);
    let fields = |answer: &crate::support::http::Answer| answer.field("x-a").to_owned();
    assert_eq!(fields(&house.ask(Method::GET, PROJECTS, NOBODY).await), "1");
    let reused = house.ask(Method::GET, PROJECTS, NOBODY).await;
    assert!(is_hit(&reused) && fields(&reused).is_empty());
    house.get(PROJECTS).await;
    let own = house.get(PROJECTS).await;
    assert!(is_hit(&own) && fields(&own) == "1");
}

#[tokio::test(start_paused = true)]
async fn rfc9111_5_2_2_7_an_answer_to_head_brings_no_listed_field_into_the_store() {
    let house = House::with(anonymous);
    let listing = |act: Act| act.with("cache-control", r#"max-age=60, private="x-a""#).with("etag", "\"1\"");
    house.upstream.plays(PROJECTS, listing(Act::json("[1]")).with("x-a", "1"));
    house.ask(Method::GET, PROJECTS, NOBODY).await;
    sleep(Duration::from_secs(61)).await;
    house.ask(Method::HEAD, PROJECTS, NOBODY).await;
    let reused = house.ask(Method::GET, PROJECTS, NOBODY).await;
    assert!(is_hit(&reused) && reused.field("x-a").is_empty(), "{reused:?}");
}

#[tokio::test(start_paused = true)]
async fn rfc9111_5_2_2_7_a_private_answer_is_not_shared_among_the_anonymous_who_wait_together() {
    let house = House::with(anonymous);
    let act = Act::json("[1]").with("cache-control", "private, max-age=60").after(Duration::from_secs(1));
    house.upstream.plays(PROJECTS, act);
    let crowd = house.crowd(3, PROJECTS, NOBODY).join_all().await;
    assert!(crowd.iter().all(|answer| answer.text() == "[1]" && !Verdict::of(answer).says("collapsed")));
    assert_eq!(house.upstream.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn rfc9111_5_2_2_3_what_must_be_understood_and_is_is_stored_although_it_says_no_store() {
    let house = House::new();
    let act = Act::json("[1]").with("cache-control", "max-age=60, no-store, must-understand");
    house.upstream.plays(PROJECTS, act);
    house.get(PROJECTS).await;
    assert!(is_hit(&house.get(PROJECTS).await));
}

#[tokio::test(start_paused = true)]
async fn rfc9213_2_2_a_targeted_field_decides_and_all_fields_pass() {
    let house = House::new();
    let act = Act::json("[1]").with("cache-control", "no-store").with("cdn-cache-control", "max-age=60");
    house.upstream.plays(PROJECTS, act);
    house.get(PROJECTS).await;
    let answer = house.get(PROJECTS).await;
    assert!(is_hit(&answer));
    assert_eq!(
        (answer.field("cache-control"), answer.field("cdn-cache-control")),
        ("no-store", "max-age=60")
    );
}

#[tokio::test(start_paused = true)]
async fn rfc9110_8_4_a_coding_that_nobody_asked_for_is_reused_as_it_came() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("coded").with("content-encoding", "br"));
    house.get(PROJECTS).await;
    let answer = house.get(PROJECTS).await;
    assert!(is_hit(&answer));
    assert_eq!((answer.text(), answer.field("content-encoding")), ("coded", "br"));
}

#[tokio::test(start_paused = true)]
async fn rfc9111_4_2_4_a_class_that_leaves_it_to_the_rfc_reuses_stale_answers_while_upstream_is_out_of_reach()
{
    for (act, status) in [
        (Act::unreachable(), 200),
        (Act::timeout(), 200),
        (Act::reset(), 200),
        (Act::json("[").breaking_off(), 200),
        (Act::status(503, "{}"), 503),
        (Act::status(429, "{}"), 429),
    ] {
        let house = House::with(by_the_rfc);
        house.upstream.plays_once(PROJECTS, Act::json("\"old\"").with("cache-control", "max-age=60"));
        house.get(PROJECTS).await;
        sleep(Duration::from_secs(61)).await;
        house.upstream.plays(PROJECTS, act.clone());
        assert_eq!(house.get(PROJECTS).await.status.as_u16(), status, "{act:?}");
        sleep(Duration::from_hours(1)).await;
        assert_ne!(
            house.get(PROJECTS).await.status,
            StatusCode::OK,
            "{act:?}, and no longer than for an hour"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rfc9111_5_2_1_5_who_forbids_storing_is_forwarded_for_itself_and_leaves_what_is_stored() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::json("\"old\""));
    house.upstream.plays(PROJECTS, Act::json("\"new\""));
    house.get(PROJECTS).await;
    let answer = house.ask(Method::GET, PROJECTS, &[("cache-control", "no-store")]).await;
    let verdict = Verdict::of(&answer);
    assert_eq!((answer.text(), verdict.word("fwd"), verdict.says("stored")), ("\"new\"", "request", false));
    assert_eq!(house.get(PROJECTS).await.text(), "\"old\"");
}

#[tokio::test(start_paused = true)]
async fn rfc9111_5_2_1_2_max_stale_is_given_what_is_stale_without_any_window_of_ours() {
    let house = House::with(by_the_rfc);
    house.upstream.plays(PROJECTS, Act::json("\"old\"").with("cache-control", "max-age=60"));
    house.get(PROJECTS).await;
    sleep(Duration::from_secs(90)).await;
    let answer = house.ask(Method::GET, PROJECTS, &[("cache-control", "max-stale=60")]).await;
    assert_eq!(Verdict::of(&answer).number("ttl"), Some(-30));
    assert_eq!(house.upstream.count(), 1);
}

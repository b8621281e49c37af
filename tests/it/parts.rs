//! Parts of answers, and answers without content: `Range` is served from what is complete, `HEAD` speaks for it.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::sleep;

use crate::support::corridor::{House, PROJECTS, Verdict, detail, is_hit};
use crate::support::http::Answer;
use crate::support::scripted::Act;

/// Longer than what is stored may be reused without asking, shorter than it may stand in for a failure.
const STALE: Duration = Duration::from_mins(13);

const DIGITS: &str = "[123456789]";

async fn part(house: &House, range: &str) -> Answer {
    house.ask(Method::GET, PROJECTS, &[("range", range)]).await
}

async fn house_with(act: Act) -> House {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, act);
    house.get(PROJECTS).await;
    house
}

fn tagged(body: &str, tag: &str) -> Act {
    Act::json(body).with("etag", tag)
}

#[tokio::test(start_paused = true)]
async fn rfc9110_14_2_a_range_is_served_from_a_complete_stored_response() {
    let house = house_with(tagged(DIGITS, "\"1\"")).await;
    let answer = part(&house, "bytes=1-3").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::PARTIAL_CONTENT, "123"));
    assert_eq!((answer.field("content-range"), answer.field("content-length")), ("bytes 1-3/11", "3"));
    assert!(is_hit(&answer));
    let answer = part(&house, "bytes=99-").await;
    assert_eq!(
        (answer.status, answer.field("content-range")),
        (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */11")
    );
    assert!(!detail(&answer).is_empty());
    assert_eq!(house.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_range_of_what_is_not_stored_is_forwarded_as_it_is_and_not_stored() {
    let house = House::new();
    let partial =
        Act::status(206, "12").with("content-range", "bytes 1-2/11").with("cache-control", "max-age=60");
    house.upstream.plays_once(PROJECTS, partial);
    house.upstream.plays(PROJECTS, Act::json(DIGITS));
    let asks = [("range", "bytes=1-2"), ("if-range", "\"mine\"")];
    let answer = house.ask(Method::GET, PROJECTS, &asks).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::PARTIAL_CONTENT, "12"));
    assert_eq!(Verdict::of(&answer).word("fwd"), "uri-miss");
    assert!(!Verdict::of(&answer).says("stored"));
    let received = house.upstream.last();
    assert_eq!((received.field("range"), received.field("if-range")), ("bytes=1-2", "\"mine\""));
    assert_eq!(house.get(PROJECTS).await.text(), DIGITS);
    assert_eq!(house.upstream.last().field("range"), "");
}

#[tokio::test(start_paused = true)]
async fn a_range_of_what_is_stale_is_upstreams_and_ours_only_when_upstream_fails() {
    let house = house_with(Act::json(DIGITS)).await;
    sleep(STALE).await;
    house.upstream.plays_once(PROJECTS, Act::status(206, "zz").with("content-range", "bytes 1-2/9"));
    let answer = part(&house, "bytes=1-2").await;
    assert_eq!((answer.text(), answer.field("content-range")), ("zz", "bytes 1-2/9"));
    house.upstream.plays(PROJECTS, Act::unreachable());
    let answer = part(&house, "bytes=1-2").await;
    assert_eq!((answer.text(), answer.field("content-range")), ("12", "bytes 1-2/11"));
    assert_eq!(Verdict::of(&answer).word("detail"), "stale-if-error");
}

#[tokio::test(start_paused = true)]
async fn a_range_that_goes_out_stale_has_the_whole_refreshed() {
    let house = house_with(Act::json(DIGITS)).await;
    sleep(Duration::from_mins(3)).await;
    house.upstream.plays(PROJECTS, Act::json("[987654321]"));
    assert_eq!(part(&house, "bytes=1-2").await.text(), "12");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(house.upstream.last().field("range"), "");
    assert_eq!(part(&house, "bytes=1-2").await.text(), "98");
}

/// Returns a house in which something is stored with a tag, too stale to be reused without asking.
async fn stale_house() -> House {
    let house = house_with(tagged("\"old\"", "\"1\"").with("x-a", "old")).await;
    sleep(STALE).await;
    house
}

#[tokio::test(start_paused = true)]
async fn rfc9111_4_3_5_an_answer_to_head_freshens_what_it_matches() {
    let house = stale_house().await;
    let head = tagged("\"old\"", "\"1\"").with("x-a", "new").with("content-length", "5");
    house.upstream.plays_once(PROJECTS, head);
    let answer = house.ask(Method::HEAD, PROJECTS, &[]).await;
    assert_eq!((answer.status, answer.field("x-a")), (StatusCode::OK, "new"));
    assert_eq!(house.upstream.last().method, Method::HEAD);
    let answer = house.get(PROJECTS).await;
    assert!(is_hit(&answer), "{answer:?}");
    assert_eq!((answer.text(), answer.field("x-a"), answer.field("age")), ("\"old\"", "new", "0"));
}

#[tokio::test(start_paused = true)]
async fn rfc9111_4_3_5_an_answer_to_head_removes_what_it_contradicts() {
    let forbidding = tagged("", "\"1\"").with("cache-control", "no-store");
    for head in [tagged("", "\"2\""), tagged("", "\"1\"").with("content-length", "6"), forbidding] {
        let house = stale_house().await;
        house.upstream.plays_once(PROJECTS, head);
        house.ask(Method::HEAD, PROJECTS, &[]).await;
        house.upstream.plays(PROJECTS, Act::unreachable());
        assert_eq!(house.get(PROJECTS).await.status, StatusCode::BAD_GATEWAY, "nothing is left to stand in");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_that_proves_nothing_changes_nothing() {
    let gzip = tagged("", "\"2\"").with("content-encoding", "gzip");
    let lasting = Act::json("").with("cache-control", "max-age=600");
    let html = Act::bytes("").with("content-type", "text/html").with("etag", "\"1\"");
    let varying = tagged("", "\"1\"").with("vary", "X-Team");
    // Sentry refuses every HEAD, whatever the token.
    let refusing = Act::status(403, "{}");
    let failing = Act::status(503, "{}");
    for head in [Act::json("\"old\""), lasting, Act::status(304, ""), failing, refusing, gzip, html, varying]
    {
        let house = stale_house().await;
        house.upstream.plays_once(PROJECTS, head);
        house.ask(Method::HEAD, PROJECTS, &[]).await;
        house.upstream.plays(PROJECTS, Act::unreachable());
        assert_eq!(Verdict::of(&house.get(PROJECTS).await).word("detail"), "stale-if-error");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_from_before_a_write_freshens_nothing() {
    let house = House::with(|config| config.cache.settle = Duration::ZERO);
    house.upstream.plays_once(PROJECTS, tagged("\"old\"", "\"1\""));
    house.get(PROJECTS).await;
    sleep(STALE).await;
    let late = tagged("", "\"1\"").with("x-a", "late").after(Duration::from_secs(5));
    house.upstream.plays_once(PROJECTS, late);
    let asking = house.clone();
    let head = tokio::spawn(async move { asking.ask(Method::HEAD, PROJECTS, &[]).await });
    sleep(Duration::from_secs(1)).await;
    house.put(PROJECTS).await;
    // It has the same tag, and is newer than the answer to `HEAD`.
    house.upstream.plays(PROJECTS, tagged("\"new\"", "\"1\"").with("x-a", "new"));
    house.get(PROJECTS).await;
    assert_eq!(head.await.unwrap().status, StatusCode::OK);
    assert_eq!(house.get(PROJECTS).await.field("x-a"), "new");
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_freshens_no_answer_of_another_status() {
    let house = House::new();
    house.upstream.plays_once(
        PROJECTS,
        Act::status(404, "{}").with("cache-control", "max-age=1").with("etag", "\"1\""),
    );
    house.get(PROJECTS).await;
    sleep(Duration::from_secs(2)).await;
    house.upstream.plays(PROJECTS, tagged("[1]", "\"1\"").with("cache-control", "max-age=600"));
    house.ask(Method::HEAD, PROJECTS, &[]).await;
    assert_eq!(house.get(PROJECTS).await.text(), "[1]");
}

#[tokio::test(start_paused = true)]
async fn a_part_that_upstream_cuts_keeps_its_bytes() {
    let house = House::new();
    let organization = "/api/0/organizations/acme/";
    let body = r#"{"links":{"regionUrl":"https://us.sentry.io"}}"#;
    let range = format!("bytes 0-{}/{}", body.len() - 1, body.len());
    house.upstream.plays(organization, Act::status(206, body).with("content-range", &range));
    let answer = house.ask(Method::GET, organization, &[("range", "bytes=0-")]).await;
    assert_eq!((answer.text(), answer.field("content-range")), (body, range.as_str()));
}

#[tokio::test(start_paused = true)]
async fn a_range_under_a_condition_that_only_upstream_can_judge_is_upstreams() {
    let house = house_with(tagged(DIGITS, "\"2\"")).await;
    house.upstream.plays(PROJECTS, Act::status(412, "{}"));
    let answer = house.ask(Method::GET, PROJECTS, &[("range", "bytes=1-3"), ("if-match", "\"1\"")]).await;
    assert_eq!(answer.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(house.upstream.last().field("if-match"), "\"1\"");
}

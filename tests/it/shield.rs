//! What stands between our clients and Sentry's limits: nothing is sent that Sentry would refuse, and a 429 is told only to whom
//! waiting would not help.

use std::time::Duration;

use http::{Method, StatusCode};
use sentrybox::clock::{Clock, Stopwatch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::corridor::{ALICE, BOB, House, PROJECTS, Verdict, detail, is_hit};
use crate::support::http::Answer;
use crate::support::limited::{Dates, LimitedSentry};
use crate::support::scripted::Act;

const SECOND: Duration = Duration::from_secs(1);
const LATENCY: Duration = Duration::from_millis(100);

/// A house before a Sentry that counts, at the start of one of its windows.
async fn house_before(sentry: &LimitedSentry) -> House {
    sentry.begin_a_window().await;
    let house = House::new();
    let sentry = sentry.clone();
    house.upstream.improvises(move |received| sentry.answer(received));
    house
}

/// Returns a target that nobody has asked for, on a route that many share.
fn page(number: usize) -> String {
    format!("{PROJECTS}?page={number}")
}

/// Lets somebody ask for many different things at once.
fn many(house: &House, who: &'static str, numbers: std::ops::Range<usize>) -> JoinSet<Answer> {
    let mut all = JoinSet::new();
    for number in numbers {
        let house = house.clone();
        all.spawn(async move { house.get_as(who, &page(number)).await });
    }
    all
}

fn are_all_ok(answers: &[Answer]) -> bool {
    answers.iter().all(|answer| answer.status == StatusCode::OK)
}

#[tokio::test(start_paused = true)]
async fn a_burst_at_a_limit_of_which_nothing_is_known_costs_no_429_from_the_first_request_on() {
    for (ahead, dates) in [
        (Duration::ZERO, Dates::Sent),
        (Duration::from_millis(400), Dates::Sent),
        (Duration::from_hours(1), Dates::Sent),
        (Duration::ZERO, Dates::NotSent),
    ] {
        let sentry = LimitedSentry::new(10, 5, LATENCY).with_clock(ahead, dates);
        let house = house_before(&sentry).await;
        let answers = many(&house, ALICE, 0..60).join_all().await;
        assert!(are_all_ok(&answers), "{ahead:?} {dates:?}");
        assert_eq!((sentry.refused(), house.upstream.count()), (0, 60), "{ahead:?} {dates:?}");
        house.assert_nothing_leaks();
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_changes_is_followed_within_one_window() {
    let sentry = LimitedSentry::new(40, 25, LATENCY);
    let house = house_before(&sentry).await;
    let clock = Clock::start();
    assert!(are_all_ok(&many(&house, ALICE, 0..100).join_all().await));
    assert_eq!(sentry.refused(), 0);
    sentry.allow(5);
    let changed = clock.now();
    let answers = many(&house, ALICE, 100..140).join_all().await;
    assert!(are_all_ok(&answers));
    assert_eq!(sentry.refused_since(changed + SECOND), 0);
    sentry.allow(40);
    assert_eq!(house.get(&page(140)).await.status, StatusCode::OK);
    let watch = Stopwatch::start();
    assert!(are_all_ok(&many(&house, ALICE, 141..241).join_all().await));
    assert!(watch.read() <= 5 * SECOND, "{:?}", watch.read());
    assert_eq!(sentry.refused_since(changed + SECOND), 0);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_exhausted_for_one_credential_costs_another_one_nothing() {
    let sentry = LimitedSentry::new(5, 5, LATENCY);
    let house = house_before(&sentry).await;
    house.get_as(BOB, &page(1_000)).await;
    let _noisy = many(&house, ALICE, 0..300);
    sleep(SECOND).await;
    for number in 0..20 {
        let watch = Stopwatch::start();
        assert_eq!(house.get_as(BOB, &page(number)).await.status, StatusCode::OK);
        assert_eq!(watch.read(), LATENCY);
        sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_in_vain_is_told_at_once_and_truly_when_to_come_again() {
    let sentry = LimitedSentry::new(1, 1, LATENCY);
    let house = house_before(&sentry).await;
    house.get(&page(0)).await;
    let _waiting = many(&house, ALICE, 1..12);
    sleep(Duration::from_millis(1)).await;
    let watch = Stopwatch::start();
    let refused = house.get(&page(99)).await;
    assert!(watch.read() < LATENCY, "at once: {:?}", watch.read());
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(detail(&refused).starts_with("You are attempting to use this endpoint too frequently."));
    assert_eq!(Verdict::of(&refused).word("detail"), "limit-reached");
    let told: u64 = refused.field("retry-after").parse().unwrap();
    assert!((10..=12).contains(&told), "{told}");
    sleep(Duration::from_secs(told)).await;
    assert_eq!(house.get(&page(99)).await.status, StatusCode::OK);
    assert_eq!(sentry.refused(), 0);
}

/// What Sentry says in a 429, in all its shapes, and what comes with it.
fn refusals() -> [Act; 5] {
    [
        Act::status(
            429,
            r#"{"detail":"You are attempting to use this endpoint too frequently. Limit is 40 requests in 1 seconds"}"#,
        ),
        Act::status(
            429,
            r#"{"detail":"You are attempting to go above the allowed concurrency for this endpoint. Concurrency limit is 25"}"#,
        ),
        Act::status(429, r#""You are attempting to use this endpoint too frequently.""#)
            .with("x-sentry-rate-limit-limit", "None")
            .with("x-sentry-rate-limit-reset", "None"),
        Act::status(
            429,
            r#"{"detail":"Rate limit exceeded. Please try your query with a smaller date range or fewer projects."}"#,
        ),
        Act::status(429, r#"{"error":"apigateway","detail":"Too many requests"}"#).with("retry-after", "2"),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_429_in_whatever_shape_is_waited_for_and_reaches_nobody() {
    for (number, refusal) in refusals().into_iter().enumerate() {
        let house = House::new();
        house.upstream.plays_once(PROJECTS, refusal);
        let answers = house.crowd(20, PROJECTS, &[]).join_all().await;
        assert!(are_all_ok(&answers), "shape {number}: {:?}", answers.first());
        assert_eq!(house.upstream.count(), 2, "shape {number}");
        house.assert_nothing_leaks();
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_hot_key_is_refused_its_readers_get_what_is_stale_and_only_probes_reach_upstream() {
    for (number, refusal) in refusals().into_iter().enumerate() {
        let house = House::without_limits(|_| {}).await;
        house.get(PROJECTS).await;
        sleep(Duration::from_mins(20)).await;
        house.upstream.forget();
        house.upstream.plays(PROJECTS, refusal);
        for _ in 0..300 {
            for answer in house.crowd(3, PROJECTS, &[]).join_all().await {
                assert_eq!(answer.status, StatusCode::OK);
                assert_eq!(Verdict::of(&answer).word("detail"), "stale-if-error", "{answer:?}");
                assert!(Verdict::of(&answer).number("ttl").unwrap() < 0);
            }
            sleep(SECOND / 10).await;
        }
        // One that was refused, and one probe at the end of each pause: 1, 2, 4, 8, 16 s, or as long as it was told.
        let most = if number == 4 { 15 } else { 5 };
        assert!(
            (most - 1..=most + 1).contains(&house.upstream.count()),
            "{number}: {}",
            house.upstream.count()
        );
        house.upstream.plays(PROJECTS, Act::json("\"new\""));
        sleep(20 * SECOND).await;
        assert_eq!(house.get(PROJECTS).await.text(), "\"new\"", "shape {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_closes_the_route_that_complained_for_that_method_alone() {
    let house = House::without_limits(|_| {}).await;
    house.upstream.plays(PROJECTS, Act::status(429, "{}").with("retry-after", "60"));
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::TOO_MANY_REQUESTS);
    let watch = Stopwatch::start();
    assert_eq!(house.get("/api/0/organizations/acme/teams/").await.status, StatusCode::OK);
    assert_eq!(house.get_as(BOB, "/api/0/organizations/acme/teams/").await.status, StatusCode::OK);
    assert_eq!(
        Verdict::of(&house.put(PROJECTS).await).number("fwd-status"),
        Some(429),
        "another method asks for itself"
    );
    assert_eq!(watch.read(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_cannot_be_sent_in_time_is_refused_unsent() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::status(429, "{}").with("retry-after", "60"));
    assert_eq!(house.put(PROJECTS).await.status, StatusCode::TOO_MANY_REQUESTS, "a write is sent once");
    assert_eq!(house.upstream.count(), 1);
    let refused = house.put(PROJECTS).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(Verdict::of(&refused).word("detail"), "limit-reached");
    let told: u64 = refused.field("retry-after").parse().unwrap();
    assert!((60..=61).contains(&told), "{told}");
    assert_eq!(house.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_who_leaves_the_line_costs_nothing() {
    let sentry = LimitedSentry::new(2, 2, LATENCY);
    let house = house_before(&sentry).await;
    house.get(&page(0)).await;
    let route = "/api/0/elsewhere/";
    let mut leaving = JoinSet::new();
    for _ in 0..8 {
        let house = house.clone();
        leaving.spawn(async move { house.get(route).await });
    }
    sleep(Duration::from_millis(20)).await;
    leaving.abort_all();
    while leaving.join_next().await.is_some() {}
    sleep(3 * SECOND).await;
    house.assert_nothing_leaks();
    assert!(are_all_ok(&many(&house, ALICE, 1..5).join_all().await));
    assert_eq!(sentry.refused(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hit_carries_what_is_left_at_this_moment_and_never_what_was_left_when_it_was_stored() {
    let sentry = LimitedSentry::new(40, 25, LATENCY);
    let house = house_before(&sentry).await;
    let left = |answer: &Answer| answer.field("x-sentry-rate-limit-remaining").parse::<u32>().unwrap();
    assert_eq!(left(&house.get(PROJECTS).await), 39);
    many(&house, ALICE, 0..7).join_all().await;
    let hit = house.get(PROJECTS).await;
    assert!(is_hit(&hit) && left(&hit) == 32, "{hit:?}");
    assert_eq!(hit.field("x-sentry-rate-limit-concurrentremaining"), "25");
    sleep(5 * SECOND).await;
    assert_eq!(left(&house.get(PROJECTS).await), 40);
}

#[tokio::test(start_paused = true)]
async fn what_is_popular_is_refreshed_before_it_goes_stale_by_a_live_request_alone() {
    let house = House::without_limits(|_| {}).await;
    for _ in 0..4 {
        house.get(PROJECTS).await;
    }
    sleep(Duration::from_secs(109)).await;
    let ahead = house.get(PROJECTS).await;
    assert_eq!(Verdict::of(&ahead).word("detail"), "refresh-ahead", "{ahead:?}");
    sleep(SECOND).await;
    assert_eq!(house.upstream.count(), 2);
    sleep(Duration::from_mins(1)).await;
    assert!(is_hit(&house.get(PROJECTS).await), "fresh for another two minutes");
    sleep(Duration::from_secs(58)).await;
    let asked = house.get(PROJECTS).await;
    assert_eq!(Verdict::of(&asked).word("detail"), "", "asked for too seldom: {asked:?}");
    assert_eq!(house.upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn while_a_budget_runs_low_nothing_is_refreshed_and_readers_are_told() {
    let sentry = LimitedSentry::new(10, 10, LATENCY);
    let house = house_before(&sentry).await;
    house.get(PROJECTS).await;
    sleep(Duration::from_secs(121)).await;
    many(&house, ALICE, 0..10).join_all().await;
    let count = house.upstream.count();
    let kept = house.get(PROJECTS).await;
    assert_eq!(Verdict::of(&kept).word("detail"), "reuse-under-pressure", "{kept:?}");
    assert_eq!(house.upstream.count(), count);
    sleep(10 * SECOND).await;
    assert_eq!(Verdict::of(&house.get(PROJECTS).await).word("detail"), "stale-while-revalidate");
    sleep(SECOND).await;
    assert_eq!(house.upstream.count(), count + 1);
}

#[tokio::test(start_paused = true)]
async fn who_needs_what_a_refresh_has_given_up_on_asks_for_it_himself() {
    let house = House::without_limits(|config| config.budget.max_concurrent = 1).await;
    house.get(PROJECTS).await;
    sleep(Duration::from_secs(121)).await;
    house.upstream.plays("/api/0/elsewhere/", Act::json("1").after(5 * SECOND));
    let _busy = house.crowd(1, "/api/0/elsewhere/", &[]);
    sleep(SECOND).await;
    assert_eq!(Verdict::of(&house.get(PROJECTS).await).word("detail"), "stale-while-revalidate");
    let fresh = house.ask(Method::GET, PROJECTS, &[("cache-control", "max-age=60")]).await;
    assert_eq!(fresh.status, StatusCode::OK);
    assert_eq!(Verdict::of(&fresh).number("fwd-status"), Some(200), "{fresh:?}");
}

#[tokio::test(start_paused = true)]
async fn a_safe_request_is_asked_again_after_a_failure_and_a_write_is_not() {
    let page = Act::bytes("<h1>Bad Gateway</h1>").with("content-type", "text/html").with_status(502);
    for failure in [Act::unreachable(), Act::reset(), page] {
        let house = House::new();
        house.upstream.plays_once(PROJECTS, failure.clone());
        assert_eq!(house.get(PROJECTS).await.status, StatusCode::OK, "{failure:?}");
        house.upstream.plays_once(PROJECTS, failure.clone());
        let written = house.put(PROJECTS).await;
        assert!(written.status.is_server_error(), "{failure:?}");
        assert_eq!(house.upstream.count(), 3, "{failure:?}");
    }
    for (considered, status) in [(Act::timeout(), 504), (Act::status(503, "{}"), 503)] {
        let house = House::new();
        house.upstream.plays(PROJECTS, considered);
        assert_eq!(house.get(PROJECTS).await.status.as_u16(), status);
        assert_eq!(house.upstream.count(), 1, "its time is over, or it was Sentry's own answer");
    }
}

#[tokio::test(start_paused = true)]
async fn while_upstream_is_left_alone_stale_answers_cost_nothing_and_others_wait_for_the_probe() {
    let house = House::without_limits(|_| {}).await;
    house.get(PROJECTS).await;
    sleep(Duration::from_mins(20)).await;
    house.upstream.improvises(|_| Act::unreachable());
    for number in 0..5 {
        assert_eq!(house.get(&page(number)).await.status, StatusCode::BAD_GATEWAY);
    }
    house.upstream.forget();
    for _ in 0..50 {
        assert_eq!(Verdict::of(&house.get(PROJECTS).await).word("detail"), "stale-if-error");
    }
    assert_eq!(house.upstream.count(), 0);
    house.upstream.improvises(|_| Act::json("1"));
    let watch = Stopwatch::start();
    assert_eq!(house.get(&page(9)).await.status, StatusCode::OK);
    assert!(watch.read() <= 6 * SECOND, "{:?}", watch.read());
}

#[tokio::test(start_paused = true)]
async fn a_disabled_budget_neither_queues_nor_retries_nor_presents() {
    let sentry = LimitedSentry::new(3, 3, LATENCY);
    sentry.begin_a_window().await;
    let house = House::with(|config| config.budget.enabled = false);
    let counting = sentry.clone();
    house.upstream.improvises(move |received| counting.answer(received));
    let answers = many(&house, ALICE, 0..10).join_all().await;
    let refused = answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).count();
    assert_eq!((refused, sentry.refused()), (7, 7));
    let mut hits = 0;
    for number in 0..10 {
        let answer = house.get(&page(number)).await;
        if is_hit(&answer) {
            hits += 1;
            assert!(!answer.fields.contains_key("x-sentry-rate-limit-remaining"), "{answer:?}");
        }
    }
    assert_eq!(hits, 3);
}

#[tokio::test(start_paused = true)]
async fn one_sick_route_costs_the_others_nothing() {
    let house = House::without_limits(|_| {}).await;
    let sick = "/api/0/organizations/acme/events/";
    house.upstream.plays(sick, Act::status(504, "{}").after(6 * SECOND));
    for number in 0..6 {
        let target = format!("{sick}?query={number}");
        let house = house.clone();
        tokio::spawn(async move { while house.get(&target).await.status != StatusCode::OK {} });
    }
    for number in 0..40 {
        let watch = Stopwatch::start();
        assert_eq!(house.get_as(BOB, &page(number)).await.status, StatusCode::OK);
        assert_eq!(watch.read(), Duration::ZERO, "{number}");
        sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn when_upstream_works_again_a_stale_hit_finds_out() {
    let house = House::without_limits(|_| {}).await;
    house.get(PROJECTS).await;
    sleep(Duration::from_secs(121)).await;
    house.upstream.plays(PROJECTS, Act::unreachable());
    for _ in 0..10 {
        house.get(PROJECTS).await;
        sleep(SECOND).await;
    }
    house.upstream.plays(PROJECTS, Act::json("\"new\""));
    let mut seconds = 0;
    while house.get(PROJECTS).await.text() != "\"new\"" {
        sleep(SECOND).await;
        seconds += 1;
    }
    assert!(seconds <= 40, "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_is_not_tried_again_at_once() {
    let house = House::without_limits(|_| {}).await;
    house.get(PROJECTS).await;
    sleep(Duration::from_secs(121)).await;
    house.upstream.forget();
    house.upstream.plays(PROJECTS, Act::status(500, "{}"));
    for _ in 0..300 {
        house.get(PROJECTS).await;
        sleep(SECOND / 10).await;
    }
    assert!(house.upstream.count() <= 6, "{}", house.upstream.count());
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_client_leaves_while_it_waits_is_not_sent() {
    let house = House::without_limits(|config| config.budget.max_concurrent = 1).await;
    house.upstream.plays("/api/0/elsewhere/", Act::json("1").after(5 * SECOND));
    let _busy = house.crowd(1, "/api/0/elsewhere/", &[]);
    sleep(SECOND).await;
    assert!(tokio::time::timeout(SECOND, house.put(PROJECTS)).await.is_err());
    sleep(10 * SECOND).await;
    assert!(house.upstream.log().iter().all(|received| received.method == Method::GET));
    house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn dead_tokens_do_not_use_up_what_sentry_allows_the_address() {
    let sentry = LimitedSentry::new(10, 10, LATENCY);
    sentry.begin_a_window().await;
    let house = House::new();
    let by_address = sentry.clone();
    house.upstream.improvises(move |received| {
        // Whom it does not know, Sentry counts by address.
        let mut counted = received.clone();
        counted.fields.insert("authorization", "nobody".parse().unwrap());
        let is_known = received.field("authorization").contains("sntrys_");
        let act = by_address.answer(&counted);
        if is_known || !act.is_success() { act } else { act.with_status(401) }
    });
    let organization = "Bearer sntrys_known";
    house.get_as(organization, &page(0)).await;
    for token in ["Bearer sntryu_1", "Bearer sntryu_2", "Bearer sntryu_3"] {
        house.get_as(token, &page(0)).await;
    }
    sleep(SECOND).await;
    let mut crowd = many(&house, "Bearer sntryu_1", 1..15);
    for (who, numbers) in [("Bearer sntryu_2", 1..15), ("Bearer sntryu_3", 1..15), (organization, 1..10)] {
        let house = house.clone();
        for number in numbers {
            let house = house.clone();
            crowd.spawn(async move { house.get_as(who, &page(number)).await });
        }
    }
    crowd.join_all().await;
    assert_eq!(sentry.refused(), 0);
}

//! Concurrent requests for one key share one forward: everybody is answered, nobody waits for what cannot be shared.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytesize::ByteSize;
use http::StatusCode;
use sentrybox::clock::Stopwatch;
use tokio::time::sleep;

use crate::support::corridor::{ALICE, BOB, House, PROJECTS, Verdict, asking, detail, is_hit};
use crate::support::http::Answer;
use crate::support::scripted::{Act, Chunk};

const CROWD: usize = 1_000;
const SECOND: Duration = Duration::from_secs(1);

/// Lets a crowd ask for one cold key. Returns its answers and how long it took.
async fn crowded(house: &House) -> (Vec<Answer>, Duration) {
    let watch = Stopwatch::start();
    let answers = house.crowd(CROWD, PROJECTS, &[]).join_all().await;
    (answers, watch.read())
}

fn all_are(answers: &[Answer], status: StatusCode, body: &str) -> bool {
    answers.iter().all(|answer| answer.status == status && answer.text() == body)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_for_one_cold_key_cost_one_forward() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[1]").after(SECOND));
    let (answers, took) = crowded(&house).await;
    assert!(all_are(&answers, StatusCode::OK, "[1]"));
    assert_eq!(house.upstream.count(), 1);
    let collapsed = answers.iter().filter(|answer| Verdict::of(answer).says("collapsed")).count();
    assert_eq!(collapsed, CROWD - 1);
    assert_eq!(took, SECOND);
    house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn a_first_client_who_leaves_takes_nobody_along() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[1]").after(SECOND));
    let mut first = house.crowd(1, PROJECTS, &[]);
    sleep(SECOND / 4).await;
    let others = house.crowd(CROWD - 1, PROJECTS, &[]);
    sleep(SECOND / 4).await;
    first.shutdown().await;
    assert!(all_are(&others.join_all().await, StatusCode::OK, "[1]"));
    assert_eq!(house.upstream.count(), 1);
    assert!(is_hit(&house.get(PROJECTS).await));
    house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn the_store_is_filled_although_everybody_has_left() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[1]").after(SECOND));
    let mut crowd = house.crowd(CROWD, PROJECTS, &[]);
    sleep(SECOND / 4).await;
    crowd.shutdown().await;
    sleep(SECOND).await;
    assert!(is_hit(&house.get(PROJECTS).await));
    house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_like_any_answer() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::status(500, r#"{"detail":"Internal Error"}"#).after(SECOND));
    let (answers, _) = crowded(&house).await;
    assert!(all_are(&answers, StatusCode::INTERNAL_SERVER_ERROR, r#"{"detail":"Internal Error"}"#));
    assert_eq!(house.upstream.count(), 1);
    house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_hanging_upstream_beyond_the_deadline() {
    let house = House::new();
    // The exchange's own limit ends the flight long after its passengers have been answered.
    house.upstream.plays_once(PROJECTS, Act::timeout().after(Duration::from_mins(5)));
    let (answers, took) = crowded(&house).await;
    assert_eq!(took, Duration::from_secs(35), "cache.flight_timeout");
    assert!(answers.iter().all(|answer| answer.status == StatusCode::GATEWAY_TIMEOUT));
    assert!(!detail(answers.first().unwrap()).is_empty());
    assert_eq!(house.upstream.count(), 1);
    sleep(Duration::from_mins(5)).await;
    house.assert_nothing_leaks();
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn late_passengers_of_a_hanging_flight_have_deadlines_of_their_own() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::hang());
    let early = house.crowd(1, PROJECTS, &[]);
    sleep(Duration::from_secs(30)).await;
    let (answers, took) = crowded(&house).await;
    assert_eq!(took, Duration::from_secs(35));
    assert!(answers.iter().all(|answer| answer.status == StatusCode::GATEWAY_TIMEOUT));
    assert_eq!(early.join_all().await.len(), 1);
    assert_eq!(house.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_flight_answers_everybody_and_leaks_nothing() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::panic().after(SECOND));
    let (answers, took) = crowded(&house).await;
    assert_eq!(took, SECOND);
    assert!(answers.iter().all(|answer| answer.status == StatusCode::INTERNAL_SERVER_ERROR));
    assert!(answers.iter().all(|answer| Verdict::of(answer).word("detail") == "internal-error"));
    assert!(!detail(answers.first().unwrap()).is_empty());
    house.assert_nothing_leaks();
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::OK);
}

/// Lets a crowd ask for something that cannot be shared; `dress` makes it so. Each gets its own, and all at once.
async fn check_unshareable(name: &str, dress: impl Fn(Act) -> Act + Send + Sync + 'static) {
    let house = House::without_limits(|config| {
        config.budget.max_concurrent = CROWD;
        config.cache.max_response_bytes = ByteSize::kib(1);
    })
    .await;
    let served = AtomicUsize::new(0);
    house.upstream.improvises(move |_| {
        let number = served.fetch_add(1, Ordering::Relaxed);
        dress(Act::json(format!("[{number:1024}]"))).after(SECOND)
    });
    let (answers, took) = crowded(&house).await;
    assert!(took <= 2 * SECOND, "{name}: {took:?}");
    let mut bodies: Vec<_> = answers.iter().map(|answer| answer.body.clone()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), CROWD, "{name}: somebody got somebody else's");
    assert_eq!(house.upstream.count(), CROWD, "{name}: one request each");
    assert_eq!(house.upstream.in_flight(), 0, "{name}");
    assert!(house.proxy.flights().is_empty(), "{name}");
}

#[tokio::test(start_paused = true)]
async fn answers_that_may_not_be_shared_do_not_serialize() {
    check_unshareable("no-store", |act| act.with("cache-control", "no-store")).await;
    check_unshareable("a cookie", |act| act.with("set-cookie", "edge=1")).await;
    check_unshareable("too large", |act| act).await;
    check_unshareable("too large, unannounced", Act::of_unknown_length).await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_forgets_what_could_not_be_shared() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::json("[1]").with("cache-control", "no-store"));
    house.get(PROJECTS).await;
    house.upstream.plays(PROJECTS, Act::json("[1]").after(SECOND));
    house.purge_everything().await;
    let (answers, _) = crowded(&house).await;
    assert!(all_are(&answers, StatusCode::OK, "[1]"));
    assert_eq!(house.upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_shared_keeps_to_the_budget() {
    let house = House::without_limits(|config| config.budget.max_concurrent = 125).await;
    house.upstream.plays(PROJECTS, Act::json("[1]").with("cache-control", "no-store").after(SECOND));
    let (answers, took) = crowded(&house).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert!(took <= 9 * SECOND, "{took:?}");
    assert_eq!(house.upstream.most_in_flight(), 125);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_streams_to_one_passenger_without_a_second_request() {
    let house = House::with(|config| config.cache.max_response_bytes = ByteSize::b(8));
    let chunks = ["0123", "4567", "89"].map(|text| Chunk::Data(text.into()));
    house.upstream.plays(PROJECTS, Act::chunks(chunks.into()).of_unknown_length().after(SECOND));
    let mut first = house.crowd(1, PROJECTS, &[]);
    sleep(SECOND / 4).await;
    let second = house.crowd(1, PROJECTS, &[]);
    sleep(SECOND / 4).await;
    first.shutdown().await;
    // The one who is still seated gets it, although it took off for another.
    let answers = second.join_all().await;
    assert!(all_are(&answers, StatusCode::OK, "0123456789"));
    assert_eq!(house.upstream.count(), 1);
    house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_could_not_be_shared_is_collapsed_again_after_a_minute() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::json("[1]").with("cache-control", "no-store"));
    house.upstream.plays(PROJECTS, Act::json("[2]").after(SECOND));
    house.get(PROJECTS).await;
    house.crowd(3, PROJECTS, &[]).join_all().await;
    assert_eq!(house.upstream.count(), 4);
    sleep(Duration::from_mins(1)).await;
    house.crowd(3, PROJECTS, &[]).join_all().await;
    assert_eq!(house.upstream.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn passengers_whose_nominated_fields_differ_get_their_own_variant() {
    let house = House::new();
    house.upstream.improvises(|received| {
        let flavour = format!("[\"{}\"]", received.field("x-flavour"));
        Act::json(flavour).with("vary", "X-Flavour").after(SECOND)
    });
    let flavours = ["plain", "sweet", "sour"];
    let crowds = flavours.map(|flavour| house.crowd(50, PROJECTS, &[("x-flavour", flavour)]));
    for (crowd, flavour) in crowds.into_iter().zip(flavours) {
        assert!(all_are(&crowd.join_all().await, StatusCode::OK, &format!("[\"{flavour}\"]")));
    }
    assert_eq!(house.upstream.count(), flavours.len());
    for flavour in flavours {
        let again = house.ask(http::Method::GET, PROJECTS, &[("x-flavour", flavour)]).await;
        assert!(is_hit(&again) && again.text().contains(flavour));
    }
}

#[tokio::test(start_paused = true)]
async fn variants_of_what_is_not_stored_are_never_mixed_up() {
    let house = House::new();
    house.upstream.improvises(|received| {
        let flavour = format!("[\"{}\"]", received.field("x-flavour"));
        Act::status(500, flavour).with("vary", "X-Flavour").after(SECOND)
    });
    let flavours = ["a", "b", "c", "d", "e", "f"];
    let crowds = flavours.map(|flavour| house.crowd(5, PROJECTS, &[("x-flavour", flavour)]));
    for (crowd, flavour) in crowds.into_iter().zip(flavours) {
        let answers = crowd.join_all().await;
        assert!(all_are(&answers, StatusCode::INTERNAL_SERVER_ERROR, &format!("[\"{flavour}\"]")));
    }
}

#[tokio::test(start_paused = true)]
async fn different_credentials_never_share_a_flight() {
    let house = House::new();
    house.upstream.improvises(|received| {
        Act::json(format!("[\"{}\"]", received.field("authorization").len())).after(SECOND)
    });
    let alices = house.crowd(10, PROJECTS, &[("authorization", ALICE)]);
    let bobs = house.crowd(10, PROJECTS, &[("authorization", BOB)]);
    let bob_in_small_letters = house.crowd(10, PROJECTS, &[("authorization", "bearer sntryu_bob")]);
    let theirs = |credential: &str| format!("[\"{}\"]", credential.len());
    assert!(all_are(&alices.join_all().await, StatusCode::OK, &theirs(ALICE)));
    assert!(all_are(&bobs.join_all().await, StatusCode::OK, &theirs(BOB)));
    assert!(all_are(&bob_in_small_letters.join_all().await, StatusCode::OK, &theirs(BOB)));
    assert_eq!(house.upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_queues_for_upstream_longer_than_the_budget_allows() {
    let house = House::with(|config| config.budget.max_concurrent = 1);
    house.upstream.plays(PROJECTS, Act::json("[]").after(Duration::from_mins(1)));
    let _first = house.crowd(1, PROJECTS, &[]);
    sleep(SECOND).await;
    let watch = Stopwatch::start();
    let answer = house.get("/api/0/organizations/acme/teams/").await;
    assert_eq!(watch.read(), Duration::from_secs(10), "budget.max_wait");
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(Verdict::of(&answer).word("detail"), "upstream-busy");
    assert!(!detail(&answer).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_who_leaves_a_stream_gives_its_place_back() {
    let house = House::with(|config| config.cache.max_response_bytes = ByteSize::b(4));
    let chunks = vec![Chunk::Data("01234567".into()), Chunk::Pause(Duration::from_hours(1))];
    house.upstream.plays(PROJECTS, Act::chunks(chunks));
    let response = house.begin(asking(http::Method::GET, PROJECTS, &[], "")).await;
    assert_eq!((response.status(), house.upstream.in_flight()), (StatusCode::OK, 1));
    drop(response);
    sleep(SECOND).await;
    house.assert_nothing_leaks();
}

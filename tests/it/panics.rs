//! A panic is a defect of ours, and costs the request in which it happens: nobody else, nothing that it held, and not its key.
//!
//! Not here: panics that an upstream's exchange alone can have (`collapsing`, `writes`), what a client then sees on its
//! connection (`src/server.rs`).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use http::{Method, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use sentrybox::metrics::exposition::Exposition;
use tokio::time::{sleep, timeout};

use crate::support::corridor::{House, PROJECTS, Verdict, asking, detail, is_hit, peer};
use crate::support::scripted::{Act, Chunk};

const SECOND: Duration = Duration::from_secs(1);

/// A path that is passed through.
const ELSEWHERE: &str = "/api/0/issues/1/";

/// Fills what bodies may take while they are read.
const LARGE: usize = 1_000;

/// One place upstream, and memory for one body: whatever leaks is missed at once.
fn narrow_house() -> House {
    House::with(|config| {
        config.budget.max_concurrent = 1;
        config.cache.max_response_bytes = ByteSize::b(1_024);
        config.cache.max_in_flight_bytes = ByteSize::b(1_024);
    })
}

/// Answers with a body in the middle of which something panics.
fn panicking_midway() -> Act {
    Act::chunks(vec![Chunk::Data(" ".repeat(LARGE).into()), Chunk::Panic])
        .with("content-type", "application/json")
        .of_unknown_length()
}

/// A request's body that panics when it is read.
struct Panicking;

impl Body for Panicking {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        panic!("on purpose")
    }
}

/// Fails unless everything is as if nothing had happened.
async fn assert_as_good_as_new(house: &House) {
    house.assert_nothing_leaks();
    house.upstream.plays(PROJECTS, Act::json(" ".repeat(LARGE)));
    // Of a lost request nobody knows whether Sentry counted it: the next one may wait for a second.
    let anew = house.ask(Method::GET, PROJECTS, &[("cache-control", "no-cache")]);
    let answer = timeout(2 * SECOND, anew).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(Verdict::of(&answer).says("stored"), "{answer:?}");
    assert!(is_hit(&house.get(PROJECTS).await));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_body_that_many_wait_for_answers_them_all() {
    let house = narrow_house();
    house.upstream.plays(PROJECTS, panicking_midway().after(SECOND));
    for answer in house.crowd(5, PROJECTS, &[]).join_all().await {
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(Verdict::of(&answer).word("detail"), "internal-error");
        assert!(!detail(&answer).is_empty());
    }
    assert_eq!(house.upstream.count(), 1);
    assert_as_good_as_new(&house).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_body_that_streams_breaks_that_answer_off() {
    let house = narrow_house();
    house.upstream.plays(ELSEWHERE, panicking_midway());
    let begun = house.begin(asking(Method::GET, ELSEWHERE, &[], "")).await;
    assert_eq!(begun.status(), StatusCode::OK);
    assert!(begun.into_body().collect().await.is_err(), "it must not look complete");
    assert_as_good_as_new(&house).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_requests_body_is_that_requests_alone() {
    for (method, target) in [
        (Method::PUT, PROJECTS),
        (Method::POST, ELSEWHERE),
        (Method::GET, ELSEWHERE),
        (Method::GET, PROJECTS),
    ] {
        let house = narrow_house();
        let request = asking(method, target, &[], "").map(|_| Panicking);
        let proxy = house.proxy.clone();
        // What is not answered here is by the server, which catches it.
        match tokio::spawn(async move { proxy.serve(request, peer()).await }).await {
            Ok(answer) => assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR),
            Err(error) => assert!(error.is_panic()),
        }
        assert_as_good_as_new(&house).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_in_line_behind_a_panic_gets_its_turn() {
    let house = narrow_house();
    house.upstream.plays(ELSEWHERE, Act::panic().after(SECOND));
    let panicking = house.crowd(1, ELSEWHERE, &[]);
    sleep(SECOND / 2).await;
    let waiting = timeout(2 * SECOND, house.get("/api/0/issues/2/")).await;
    assert_eq!(waiting.unwrap().status, StatusCode::OK);
    drop(panicking);
    assert_as_good_as_new(&house).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_refresh_is_nobodys_and_the_key_is_left_alone_for_a_while() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[1]"));
    house.get(PROJECTS).await;
    sleep(Duration::from_secs(130)).await;
    house.upstream.plays(PROJECTS, Act::json("[2]"));
    house.upstream.plays_once(PROJECTS, Act::panic());
    house.upstream.forget();
    for _ in 0..3 {
        let answer = house.get(PROJECTS).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "[1]"));
        sleep(SECOND / 10).await;
    }
    assert_eq!(house.upstream.count(), 1, "it is not asked for again at once");
    let failed = "sentrybox_background_refreshes_total{outcome=\"failed\"} 1\n";
    assert!(house.proxy.metrics().encode(Exposition::Text).contains(failed));
    sleep(SECOND).await;
    assert_eq!(house.get(PROJECTS).await.text(), "[1]");
    sleep(SECOND).await;
    assert_eq!(house.get(PROJECTS).await.text(), "[2]");
    house.assert_nothing_leaks();
}

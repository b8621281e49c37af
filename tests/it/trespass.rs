//! What one client does, or cannot do, costs the others nothing: each of these was once otherwise.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use sentrybox::clock::Stopwatch;
use tokio::time::sleep;

use crate::support::corridor::{ALICE, BOB, House, PROJECTS, Verdict, asking, detail, is_hit};
use crate::support::scripted::{Act, Chunk};

const SECOND: Duration = Duration::from_secs(1);

/// A path that is passed through.
const ELSEWHERE: &str = "/api/0/issues/1/";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_gives_upstream_back() {
    let house = House::with(|config| config.budget.max_concurrent = 1);
    let endless = (0..1_000).map(|_| Chunk::Data("x".repeat(1_000).into())).collect();
    house.upstream.plays(ELSEWHERE, Act::chunks(endless));
    let unread = house.begin(asking(Method::GET, ELSEWHERE, &[], "")).await;
    sleep(20 * SECOND).await;
    assert_eq!(house.get(PROJECTS).await.status, StatusCode::OK, "the permit has lapsed");
    sleep(20 * SECOND).await;
    assert_eq!(house.upstream.in_flight(), 0);
    let read = unread.into_body().collect().await;
    assert!(read.is_err(), "an answer that was given up must not look complete");
}

#[tokio::test(start_paused = true)]
async fn clients_that_send_their_bodies_slowly_leave_room_for_reads() {
    let house = House::with(|config| config.budget.max_concurrent = 4);
    house.upstream.plays(ELSEWHERE, Act::hang());
    for _ in 0..8 {
        let house = house.clone();
        tokio::spawn(async move { house.serve(asking(Method::PUT, ELSEWHERE, &[], "{}")).await });
    }
    sleep(SECOND).await;
    let read = tokio::time::timeout(SECOND, house.get(PROJECTS)).await;
    assert_eq!(read.unwrap().status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_never_reached_upstream_invalidates_nothing() {
    let house = House::new();
    house.get(PROJECTS).await;
    house.upstream.plays(ELSEWHERE, Act::unreachable());
    for credential in ["", BOB] {
        let fields = [("authorization", credential)];
        let answer = house.serve(asking(Method::POST, ELSEWHERE, &fields, "{}")).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    }
    assert!(is_hit(&house.get(PROJECTS).await));
}

#[tokio::test(start_paused = true)]
async fn tokens_that_upstream_never_accepted_wear_nothing_away() {
    let house = House::new();
    house.upstream.improvises(|received| {
        if received.field("authorization") == ALICE { Act::json("[]") } else { Act::status(401, "{}") }
    });
    let stored: Vec<String> =
        (0..200).map(|number| format!("/api/0/organizations/acme/releases/{number}/")).collect();
    for target in &stored {
        house.get(target).await;
    }
    // Without memory of who was accepted, these would make so many slots of the table unusable that it is certain to
    // have hit one of those above.
    for token in 0..3_000 {
        house.get_as(&format!("Bearer {token}"), PROJECTS).await;
    }
    for target in &stored {
        assert!(is_hit(&house.get(target).await), "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_took_off_earlier_never_replaces_a_later_one() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::json("[1]"));
    house.get(PROJECTS).await;
    // Stale: a slow refresh takes off behind the client's back.
    sleep(Duration::from_secs(130)).await;
    house.upstream.plays_once(PROJECTS, Act::json("[2]").after(10 * SECOND));
    assert_eq!(house.get(PROJECTS).await.text(), "[1]");
    sleep(SECOND).await;
    house.upstream.plays(PROJECTS, Act::json("[3]"));
    let reloaded = house.ask(Method::GET, PROJECTS, &[("cache-control", "no-cache")]).await;
    assert_eq!(reloaded.text(), "[3]");
    sleep(20 * SECOND).await;
    let later = house.get(PROJECTS).await;
    assert!(is_hit(&later));
    assert_eq!(later.text(), "[3]");
}

#[tokio::test(start_paused = true)]
async fn no_cache_never_boards_a_flight_that_took_off_before_it() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::json("[1]").after(5 * SECOND));
    let mut first = house.crowd(1, PROJECTS, &[]);
    sleep(SECOND).await;
    house.upstream.plays(PROJECTS, Act::json("[2]"));
    let demanding = house.ask(Method::GET, PROJECTS, &[("cache-control", "no-cache")]).await;
    assert_eq!(demanding.text(), "[2]");
    assert_eq!(first.join_next().await.unwrap().unwrap().text(), "[1]");
}

#[tokio::test(start_paused = true)]
async fn gzip_that_grows_beyond_the_limit_is_passed_on_and_never_stored() {
    let house = House::with(|config| config.cache.max_response_bytes = bytesize::ByteSize::kib(64));
    let large = format!("[{}0]", "0,".repeat(100_000));
    let coded = Act::bytes(gzip(large.as_bytes()))
        .with("content-type", "application/json")
        .with("content-encoding", "gzip");
    house.upstream.plays(PROJECTS, coded);
    let plain = house.get(PROJECTS).await;
    assert_eq!((plain.status, plain.text().len()), (StatusCode::OK, large.len()));
    assert!(!Verdict::of(&plain).says("stored"));
    // The next one goes alone, and asks for what it takes itself.
    assert!(!is_hit(&house.get(PROJECTS).await));
    assert_eq!(house.upstream.last().field("accept-encoding"), "");
}

#[tokio::test(start_paused = true)]
async fn a_304_that_speaks_of_something_else_is_asked_again() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::json("[1]").with("etag", "\"1\""));
    house.get(PROJECTS).await;
    sleep(Duration::from_hours(1)).await;
    house.upstream.plays_once(PROJECTS, Act::status(304, "").with("etag", "\"other\""));
    house.upstream.plays(PROJECTS, Act::json("[2]").with("etag", "\"2\""));
    assert_eq!(house.get(PROJECTS).await.text(), "[2]");
}

#[tokio::test(start_paused = true)]
async fn an_encoded_slash_never_hides_whose_path_it_is() {
    let house = House::new();
    for path in ["/api/0/organizations/acme%2Fmembers%2F5/", "/api/0/projects/acme/web%2Fkeys/"] {
        let answer = house.ask(Method::DELETE, path, &[]).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(!detail(&answer).is_empty());
    }
    assert_eq!(house.upstream.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_404_without_the_trailing_slash_costs_the_path_with_it_nothing() {
    let house = House::new();
    house.get(PROJECTS).await;
    house.upstream.plays(PROJECTS.trim_end_matches('/'), Act::status(404, "{}"));
    assert_eq!(house.get(PROJECTS.trim_end_matches('/')).await.status, StatusCode::NOT_FOUND);
    assert!(is_hit(&house.get(PROJECTS).await));
}

/// Asks at once as several clients who differ in a field that no key holds, and holds each to its own answer.
async fn each_gets_its_own(house: &House, credential: &str, name: &'static str, times: u32) {
    let ask = async |who: &str| {
        let fields = [("authorization", credential), (name, who), ("accept-encoding", "gzip")];
        house.ask(Method::GET, PROJECTS, &fields).await
    };
    for _ in 0..times {
        let (alice, bob) = tokio::join!(ask("alice"), ask("bob"));
        for (who, answer) in [("alice", alice), ("bob", bob)] {
            assert_eq!(answer.field("x-for"), who, "{answer:?}");
            assert!(["", who].contains(&answer.field("set-cookie").trim_start_matches("sid=")), "{answer:?}");
        }
    }
}

/// Builds a house where everything is stale at once, and an answer says for whom it was made.
fn telling_house(name: &'static str, dress: fn(Act, &str) -> Act) -> House {
    let house = House::with(|config| config.cache.anonymous = true);
    house.upstream.improvises(move |received| {
        let who = received.field(name).to_owned();
        let act = Act::json(format!("\"{who}\"")).with("x-for", &who).after(Duration::from_millis(50));
        dress(act, &who)
    });
    house
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_one_goes_to_the_one_that_it_was_fetched_for() {
    let private =
        |act: Act, who: &str| act.with("cache-control", "private").with("set-cookie", &format!("sid={who}"));
    each_gets_its_own(&telling_house("x-user", private), "", "x-user", 10).await;
    let varying = |act: Act, _: &str| act.with("cache-control", "no-store").with("vary", "X-Team");
    each_gets_its_own(&telling_house("x-team", varying), ALICE, "x-team", 10).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_goes_only_to_whom_its_variant_is_for() {
    let house = House::with(|config| config.cache.max_response_bytes = bytesize::ByteSize::b(100));
    house.upstream.improvises(|received| {
        let who = received.field("x-team").to_owned();
        let act = Act::json(" ".repeat(200)).with("x-for", &who).with("vary", "X-Team");
        act.after(Duration::from_millis(50))
    });
    each_gets_its_own(&house, ALICE, "x-team", 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_parcel_brings_listed_fields_only_to_the_one_that_it_was_fetched_for() {
    for is_large in [true, false] {
        let house = House::with(|config| {
            config.cache.anonymous = true;
            config.cache.max_response_bytes = bytesize::ByteSize::b(100);
        });
        house.upstream.improvises(move |received| {
            let act = if is_large { Act::json(" ".repeat(200)) } else { Act::json("no gzip") };
            let act = if is_large { act } else { act.with("content-encoding", "gzip") };
            let act = act.with("cache-control", r#"max-age=60, private="x-for""#);
            act.with("x-for", received.field("x-user")).after(Duration::from_millis(50))
        });
        for _ in 0..10 {
            house.purge_everything().await;
            each_gets_its_own(&house, "", "x-user", 1).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_that_sets_a_cookie_is_no_news_for_everybody() {
    let house = House::with(|config| config.cache.anonymous = true);
    let nobody = [("authorization", "")];
    let act = |body: &'static str| Act::json(body).with("etag", "\"1\"").with("cache-control", "max-age=60");
    house.upstream.plays_once(PROJECTS, act("[1]"));
    house.ask(Method::GET, PROJECTS, &nobody).await;
    sleep(61 * SECOND).await;
    house.upstream.plays_once(PROJECTS, act("").with("set-cookie", "sid=alice").with("x-for", "alice"));
    house.ask(Method::HEAD, PROJECTS, &[nobody[0], ("cache-control", "no-cache")]).await;
    house.upstream.plays(PROJECTS, act("[1]"));
    let answer = house.ask(Method::GET, PROJECTS, &nobody).await;
    assert_eq!(
        (Verdict::of(&answer).number("ttl"), answer.field("x-for")),
        (Some(-1), ""),
        "as stale as before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_of_which_nothing_may_be_stored_removes_only_what_it_contradicts() {
    let tagged = |etag| Act::json("[1]").with("etag", etag).with("content-length", "3");
    let forbidding: &[(&str, &str)] = &[("cache-control", "no-cache, no-store")];
    let asking: &[(&str, &str)] = &[("cache-control", "no-cache")];
    for (asks, act, remains) in [
        (forbidding, tagged("\"1\""), true),
        (asking, tagged("\"1\"").with("set-cookie", "edge=1"), true),
        (forbidding, tagged("\"2\""), false),
        (asking, tagged("\"1\"").with("cache-control", "no-store"), false),
    ] {
        let house = House::new();
        house.upstream.plays_once(PROJECTS, tagged("\"1\""));
        house.get(PROJECTS).await;
        house.upstream.plays(PROJECTS, act);
        house.ask(Method::HEAD, PROJECTS, asks).await;
        assert_eq!(is_hit(&house.get(PROJECTS).await), remains, "{asks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_401_that_is_passed_on_as_it_is_ends_the_credential_all_the_same() {
    let other = "/api/0/organizations/acme/teams/";
    for act in
        [Act::status(401, " ".repeat(200)), Act::status(401, "no gzip").with("content-encoding", "gzip")]
    {
        let house = House::with(|config| config.cache.max_response_bytes = bytesize::ByteSize::b(100));
        house.get(PROJECTS).await;
        house.upstream.plays(other, act);
        let answer = house.ask(Method::GET, other, &[("accept-encoding", "gzip")]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(!is_hit(&house.get(PROJECTS).await));
    }
}

#[tokio::test(start_paused = true)]
async fn variants_that_are_not_stored_do_not_queue_behind_each_other() {
    let house = House::without_limits(|_| {}).await;
    house.upstream.plays(PROJECTS, Act::status(403, "{}").with("vary", "X-Team").after(SECOND));
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..12 {
        let house = house.clone();
        crowd.spawn(async move {
            let team = (number % 6).to_string();
            house.ask(Method::GET, PROJECTS, &[("x-team", &team)]).await
        });
    }
    let watch = Stopwatch::start();
    let answers = crowd.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::FORBIDDEN));
    let took = watch.read();
    assert!(took <= 2 * SECOND, "{took:?}");
    assert_eq!(house.upstream.count(), 6, "one forward for each variant");
}

#[tokio::test(start_paused = true)]
async fn a_304_for_one_is_for_nobody_else() {
    for control in ["private", "no-store", "no-cache"] {
        let house = House::with(|config| config.cache.anonymous = true);
        house
            .upstream
            .plays_once(PROJECTS, Act::json("[1]").with("etag", "\"1\"").with("cache-control", "no-cache"));
        house.ask(Method::GET, PROJECTS, &[("authorization", "")]).await;
        house.upstream.improvises(move |received| {
            let who = received.field("x-user").to_owned();
            let act = if received.field("if-none-match").is_empty() {
                Act::json("[2]")
            } else {
                Act::status(304, "")
            };
            let act = act.with("etag", "\"1\"").with("cache-control", control).with("x-for", &who);
            act.with("set-cookie", &format!("sid={who}")).after(Duration::from_millis(50))
        });
        each_gets_its_own(&house, "", "x-user", 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_401_with_a_lifetime_is_no_acceptance_and_no_answer_to_keep() {
    let house = House::new();
    house.get(PROJECTS).await;
    let other = "/api/0/organizations/acme/teams/";
    house.upstream.plays(other, Act::status(401, "{}").with("cache-control", "max-age=5"));
    assert_eq!(house.get(other).await.status, StatusCode::UNAUTHORIZED);
    assert!(!is_hit(&house.get(PROJECTS).await));
}

#[tokio::test(start_paused = true)]
async fn a_304_that_speaks_of_something_else_holds_no_capacity_while_upstream_is_asked_again() {
    let house = House::with(|config| config.budget.max_concurrent = 1);
    house.upstream.plays_once(PROJECTS, Act::json("\"old\"").with("etag", "\"1\""));
    house.get(PROJECTS).await;
    house.upstream.plays_once(PROJECTS, Act::status(304, "").with("etag", "\"2\""));
    house.upstream.plays(PROJECTS, Act::json("\"new\""));
    let answer = house.ask(Method::GET, PROJECTS, &[("cache-control", "no-cache")]).await;
    assert_eq!(answer.text(), "\"new\"");
}

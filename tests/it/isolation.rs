//! Nobody ever gets what was fetched for somebody else: random histories, each answer checked for whose it is.
//!
//! Upstream writes into every answer for whom it made it and in which state of the world. A history is a row of rounds;
//! the requests of a round run at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytesize::ByteSize;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::Value;
use tokio::time::sleep;

use crate::support::corridor::{House, asking, peer};
use crate::support::http::Fields;
use crate::support::scripted::{Act, Received};

/// The credentials, in two spellings each.
const TOKENS: [[&str; 2]; 3] = [
    ["Bearer sntryu_0", "bearer sntryu_0"],
    ["Bearer sntryu_1", "BEARER sntryu_1"],
    ["Basic c25=", "basic c25="],
];
const HOSTS: [&str; 3] = ["box.example", "other.example:8080", "127.0.0.1:9000"];
const TARGETS: [&str; 6] = [
    "/api/0/organizations/",
    "/api/0/organizations/acme/",
    "/api/0/organizations/acme/projects/",
    "/api/0/organizations/acme/projects/?cursor=",
    "/api/0/organizations/acme/issues/?query=a+b",
    "/api/0/projects/acme/web/",
];
/// Everything of this organization, and the list, is invalidated by a write to it.
const WRITTEN: &str = "/api/0/organizations/acme/";
/// Fields that clients add, each in its own way a temptation to mix answers up.
const EXTRAS: [Fields<'static>; 7] = [
    &[],
    &[],
    &[("accept-encoding", "gzip")],
    &[("cache-control", "no-cache")],
    &[("cache-control", "max-stale=9999")],
    &[("cookie", "session=1")],
    &[("x-flavour", "sweet")],
];

/// What a client, an operator or the world does.
#[derive(Debug, Clone)]
enum Step {
    Ask { who: usize, spelling: usize, target: usize, host: usize, extra: usize, method: Method },
    Write { who: usize, host: usize },
    Purge,
    Wait(u64),
    Mood(u8),
}

/// Largest body that is stored, in bytes.
const LARGEST: usize = 1_024;

/// What upstream is like, by number.
const MOODS: u8 = 10;

/// Upstream's side of the world.
#[derive(Debug, Default)]
struct World {
    mood: AtomicU8,
    state: AtomicU64,
    /// The state that the last completed write has brought about.
    written: AtomicU64,
}

impl World {
    /// Answers with whom it is for and in which state, as the mood is.
    fn answer(&self, received: &Received) -> Act {
        let credential = received.field("authorization").to_ascii_lowercase();
        let who = TOKENS.iter().position(|[token, _]| token.to_ascii_lowercase() == credential);
        let who = who.map_or("nobody".to_owned(), |who| who.to_string());
        let mood = self.mood.load(Ordering::SeqCst);
        // A write that upstream refuses changes nothing.
        let state = if received.method == Method::PUT && ![1, 2].contains(&mood) {
            self.state.fetch_add(1, Ordering::SeqCst) + 1
        } else {
            self.state.load(Ordering::SeqCst)
        };
        let flavour = received.field("x-flavour");
        let body = format!(
            r#"[{{"who":"{who}","state":{state},"flavour":"{flavour}","links":{{"regionUrl":"https://us.sentry.io"}}}}]"#
        );
        let link = format!("<https://us.sentry.io{}>; rel=\"next\"; results=\"true\"", received.target());
        let dressed =
            |act: Act| act.with("x-who", &who).with("link", &link).after(Duration::from_millis(500));
        dressed(match mood {
            0 => Act::status(500, body),
            1 => Act::status(401, body),
            2 => Act::status(404, body),
            3 => Act::timeout(),
            4 => Act::json(body).breaking_off(),
            5 => Act::json(body).with("cache-control", "no-store"),
            6 => Act::json(body).with("set-cookie", "edge=1"),
            7 => Act::json(body).with("vary", "X-Flavour"),
            8 => Act::json(format!("{body}{}", " ".repeat(LARGEST))),
            _ => Act::json(body).with("etag", "\"the same for everybody\""),
        })
    }
}

fn step() -> impl Strategy<Value = Step> {
    let method = prop_oneof![6 => Just(Method::GET), 1 => Just(Method::HEAD)];
    let ask = (0..TOKENS.len(), 0..2_usize, 0..TARGETS.len(), 0..HOSTS.len(), 0..EXTRAS.len(), method)
        .prop_map(|(who, spelling, target, host, extra, method)| Step::Ask {
            who,
            spelling,
            target,
            host,
            extra,
            method,
        });
    prop_oneof![
        12 => ask,
        1 => (0..TOKENS.len(), 0..HOSTS.len()).prop_map(|(who, host)| Step::Write { who, host }),
        1 => Just(Step::Purge),
        1 => (0..800_u64).prop_map(Step::Wait),
        2 => (0..MOODS + 3).prop_map(Step::Mood),
    ]
}

/// Plays one step, and checks what comes of it.
async fn play(house: House, world: Arc<World>, step: Step) {
    match step {
        Step::Ask { who, spelling, target, host, extra, method } => {
            let (token, host) = (TOKENS.get(who).unwrap().get(spelling).unwrap(), HOSTS.get(host).unwrap());
            let mut fields = vec![("authorization", *token), ("host", *host)];
            fields.extend_from_slice(EXTRAS.get(extra).unwrap());
            let oldest = world.written.load(Ordering::SeqCst);
            let request = asking(method, TARGETS.get(target).unwrap(), &fields, "");
            let flavour = if EXTRAS.get(extra).unwrap().first() == Some(&("x-flavour", "sweet")) {
                "sweet"
            } else {
                ""
            };
            let expected = Expected { who, host, flavour, oldest, names_regions: target == 0 };
            check(&house, request, &expected).await;
        }
        Step::Write { who, host } => {
            let (token, host) = (TOKENS.get(who).unwrap().first().unwrap(), HOSTS.get(host).unwrap());
            let oldest = world.written.load(Ordering::SeqCst);
            let request = asking(Method::PUT, WRITTEN, &[("authorization", token), ("host", host)], "{}");
            check(&house, request, &Expected { who, host, flavour: "", oldest, names_regions: false }).await;
        }
        Step::Purge => drop(house.purge_everything().await),
        Step::Wait(seconds) => sleep(Duration::from_secs(seconds)).await,
        Step::Mood(mood) => world.mood.store(mood, Ordering::SeqCst),
    }
}

/// What must be true of an answer.
struct Expected<'a> {
    who: usize,
    host: &'a str,
    flavour: &'a str,
    /// The state of the world below which it must not show it.
    oldest: u64,
    /// Whether region URLs in it point back here.
    names_regions: bool,
}

/// Fails when an answer is somebody else's, from elsewhere, or from before a write.
async fn check(
    house: &House,
    request: http::Request<http_body_util::Full<bytes::Bytes>>,
    expected: &Expected<'_>,
) {
    let response = house.proxy.serve(request, peer()).await;
    let (head, body) = response.into_parts();
    if let Some(who) = head.headers.get("x-who") {
        assert_eq!(who.to_str().unwrap(), expected.who.to_string());
    }
    let base = format!("http://{}", expected.host);
    for link in head.headers.get_all("link") {
        let link = link.to_str().unwrap();
        assert!(link.starts_with(&format!("<{base}/")) && !link.contains("sentry.io"), "{link}");
    }
    // A body that breaks off has told nobody anything.
    let Ok(body) = body.collect().await else { return };
    let body = body.to_bytes();
    let Ok(Value::Array(rows)) = serde_json::from_slice(&body) else { return };
    let row = rows.first().unwrap();
    assert_eq!(row.get("who").unwrap(), &expected.who.to_string());
    assert!(
        row.get("state").unwrap().as_u64().unwrap() >= expected.oldest,
        "{row}: before {}",
        expected.oldest
    );
    if head.headers.get("vary").is_some_and(|vary| vary.to_str().unwrap().contains("X-Flavour")) {
        assert_eq!(row.get("flavour").unwrap(), expected.flavour);
    }
    let region = row.get("links").unwrap().get("regionUrl").unwrap().as_str().unwrap();
    assert!([&base, "https://us.sentry.io"].contains(&region), "{region} for {base}");
    // Only what is too large to be read keeps the region's own URL.
    if expected.names_regions && head.status == StatusCode::OK && body.len() <= LARGEST {
        assert_eq!(region, base);
    }
}

/// Plays rounds one after the other, the steps of each at once.
async fn live(rounds: Vec<Vec<Step>>) {
    let house = House::with(|config| config.cache.max_response_bytes = ByteSize::b(LARGEST as u64));
    let world = Arc::new(World { mood: AtomicU8::new(MOODS), ..World::default() });
    house.upstream.improvises({
        let world = Arc::clone(&world);
        move |received| world.answer(received)
    });
    for round in rounds {
        let mut steps = tokio::task::JoinSet::new();
        for step in round {
            steps.spawn(play(house.clone(), Arc::clone(&world), step));
        }
        steps.join_all().await;
        // Every write of this round has been answered: who asks from now on sees it.
        world.written.store(world.state.load(Ordering::SeqCst), Ordering::SeqCst);
    }
    sleep(Duration::from_secs(1)).await;
    house.assert_nothing_leaks();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_gets_what_was_fetched_for_somebody_else(
        rounds in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(live(rounds));
    }
}

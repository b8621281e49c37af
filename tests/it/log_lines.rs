//! What the log says of requests, and what each answer says of its place in the log.

use std::time::Duration;

use http::{Method, StatusCode};
use sentrybox::config::Config;
use sentrybox::config::load::defaults;
use sentrybox::config::log::{LogPaths, LogRequests, SampleRate};
use serde_json::Value;
use tokio::time::sleep;

use crate::support::corridor::{House, PROJECTS, is_hit};
use crate::support::http::{Answer, Fields};
use crate::support::kept_log::KeptLog;
use crate::support::scripted::Act;

const ID: &str = "x-request-id";

const SERVED: &str = "request served";

/// What no line may hold, in every place where a client can put it. It is shaped like a token.
const CANARY: &str = "sntryu_canary";

async fn named(house: &House, target: &str, id: &str) -> Answer {
    house.ask(Method::GET, target, &[(ID, id)]).await
}

fn is_made(id: &str) -> bool {
    id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the one line with a message.
fn only(log: &KeptLog, message: &str) -> Value {
    let mut lines = log.take(message);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.pop().unwrap()
}

fn all_requests(config: &mut Config) {
    config.log.requests = LogRequests::All;
}

#[tokio::test(start_paused = true)]
async fn every_answer_and_every_line_about_it_have_the_same_id() {
    let log = KeptLog::begin();
    let house = House::with(all_requests);
    let cases: [(Method, &str, Fields<'_>); 6] = [
        (Method::GET, PROJECTS, &[]),                       // forwarded
        (Method::GET, PROJECTS, &[]),                       // a hit
        (Method::GET, PROJECTS, &[("range", "bytes=0-0")]), // a part
        (Method::HEAD, PROJECTS, &[]),
        (Method::PUT, PROJECTS, &[]),
        (Method::GET, "/nowhere", &[]), // refused
    ];
    for (method, target, fields) in cases {
        let answer = house.ask(method.clone(), target, fields).await;
        let id = answer.field(ID).to_owned();
        assert!(is_made(&id), "{answer:?}");
        assert_eq!(only(&log, SERVED)["request_id"], *id);
        let named = [fields, &[(ID, "mine-7")]].concat();
        assert_eq!(house.ask(method, target, &named).await.field(ID), "mine-7");
        assert_eq!(only(&log, SERVED)["request_id"], "mine-7");
    }
}

#[tokio::test(start_paused = true)]
async fn no_upstreams_id_stands_for_ours() {
    let house = House::new();
    for target in [PROJECTS, "/api/0/elsewhere/"] {
        house.upstream.plays(target, Act::json("[]").with(ID, "upstreams").with(ID, "own"));
        for number in 0..3 {
            let id = format!("mine-{number}");
            let answer = named(&house, target, &id).await;
            let ids: Vec<_> = answer.fields.get_all(ID).iter().collect();
            assert_eq!(ids, [&id], "{answer:?}");
        }
    }
    assert!(is_hit(&house.get(PROJECTS).await));
}

#[tokio::test(start_paused = true)]
async fn an_id_tells_no_answers_apart() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[]").with("vary", ID).with("cache-control", "max-age=60"));
    named(&house, PROJECTS, "one").await;
    for id in ["one", "two"] {
        assert!(is_hit(&named(&house, PROJECTS, id).await), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forwarded_as_it_is_has_its_id_upstream_and_a_flight_has_none() {
    let house = House::new();
    for (method, target) in [(Method::GET, "/api/0/elsewhere/"), (Method::PUT, PROJECTS)] {
        let answer = house.ask(method.clone(), target, &[(ID, "mine")]).await;
        assert_eq!((answer.field(ID), &house.upstream.last().fields[ID]), ("mine", &"mine".parse().unwrap()));
        let answer = house.ask(method, target, &[(ID, CANARY)]).await;
        assert_eq!(answer.field(ID), house.upstream.last().fields[ID]);
    }
    named(&house, PROJECTS, "mine").await;
    assert!(!house.upstream.last().fields.contains_key(ID));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_logged_under_the_id_of_whoever_made_the_flight_take_off() {
    let log = KeptLog::begin();
    let house = House::without_limits(|config| config.budget.retries = 0).await;
    log.take("");
    house.upstream.plays(PROJECTS, Act::timeout().after(Duration::from_secs(1)));
    let first = house.crowd(1, PROJECTS, &[(ID, "first")]);
    sleep(Duration::from_millis(500)).await;
    let second = house.crowd(1, PROJECTS, &[(ID, "second")]);
    for answer in [first.join_all().await, second.join_all().await].concat() {
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    }
    let text = log.text();
    let failed = only(&log, "upstream failed");
    assert_eq!((&failed["request_id"], &failed["reason"]), (&"first".into(), &"timeout".into()));
    assert!(
        ["first", "second"]
            .iter()
            .all(|id| { text.lines().any(|line| line.contains("request failed") && line.contains(id)) })
    );
}

#[tokio::test(start_paused = true)]
async fn hits_have_a_line_when_all_requests_do_or_as_many_as_are_sampled() {
    let log = KeptLog::begin();
    let house = House::new();
    house.get(PROJECTS).await;
    assert_eq!(log.take(SERVED).len(), 1);
    let lines_of_hits = async || {
        for _ in 0..100 {
            assert!(is_hit(&house.get(PROJECTS).await));
        }
        log.take(SERVED).len()
    };
    let mut config = defaults().log;
    assert_eq!(lines_of_hits().await, 0);
    config.hit_sample_rate = SampleRate::try_from(0.25).unwrap();
    house.proxy.lines().apply(&config);
    assert!(lines_of_hits().await.abs_diff(25) <= 2);
    config.requests = LogRequests::All;
    house.proxy.lines().apply(&config);
    assert_eq!(lines_of_hits().await, 100);
    house.proxy.lines().apply(&defaults().log);
    assert_eq!(lines_of_hits().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_line_has_the_routes_template_and_the_path_only_where_that_is_asked_for() {
    let log = KeptLog::begin();
    let house = House::new();
    let target = "/api/0/organizations/acme/releases/web%401.0/?query=canary";
    house.get(target).await;
    let line = only(&log, SERVED);
    assert_eq!(line["route"], "/api/0/organizations/{organization}/releases/{version}/");
    assert!(line.get("path").is_none());
    let mut config = defaults().log;
    (config.paths, config.requests) = (LogPaths::Full, LogRequests::All);
    house.proxy.lines().apply(&config);
    house.get(target).await;
    assert_eq!(only(&log, SERVED)["path"], "/api/0/organizations/acme/releases/web%401.0/");
    house.get("/nowhere?query=canary").await;
    let line = only(&log, SERVED);
    assert_eq!((&line["route"], &line["path"]), (&"other".into(), &"/nowhere".into()));
    assert!(!log.text().contains("canary"));
}

#[tokio::test(start_paused = true)]
async fn nothing_that_looks_like_a_token_is_logged_wherever_it_stands() {
    let log = KeptLog::begin();
    let house = House::with(|config| {
        all_requests(config);
        config.log.paths = LogPaths::Full;
    });
    let bearer = format!("Bearer {CANARY}");
    let path = format!("/api/0/organizations/{CANARY}/projects/");
    let fields = [("authorization", bearer.as_str()), (ID, CANARY), ("cookie", CANARY), ("referer", CANARY)];
    for act in [
        Act::unreachable(),
        Act::status(401, "{}"),
        Act::status(429, "{}").with("retry-after", "1"),
        Act::json("[]"),
    ] {
        house.upstream.plays_once(&path, act);
        for method in [Method::GET, Method::PUT] {
            house.ask(method, &format!("{path}?token={CANARY}"), &fields).await;
        }
    }
    house.ask(Method::GET, &format!("/{CANARY}?{CANARY}"), &fields).await;
    let text = log.text();
    assert!(text.contains("upstream failed") && text.contains("credential rejected"), "{text}");
    assert!(text.contains("[redacted]") && !text.contains("canary"), "{text}");
}

//! What passes: what upstream receives of a request, and what streams through in both directions.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Channel};
use sentrybox::clock::Stopwatch;
use sentrybox::config::{Cookies, PassThrough};
use tokio::time::{sleep, timeout};

use crate::support::corridor::{ALICE, HOST, House, PROJECTS, Verdict, asking, detail, peer};
use crate::support::http::Fields;
use crate::support::scripted::{Act, Chunk, Received};

const PASSED: &str = "/api/0/projects/acme/web/";

/// Sends a GET. Returns what upstream received.
async fn received(house: &House, target: &str, fields: Fields<'_>) -> Received {
    house.ask(Method::GET, target, fields).await;
    house.upstream.last()
}

#[tokio::test(start_paused = true)]
async fn upstream_is_asked_under_its_own_name() {
    for target in [PROJECTS, PASSED] {
        let received = received(&House::new(), target, &[]).await;
        assert_eq!(received.uri.to_string(), format!("https://sentry.io{target}"));
        assert_eq!(received.field("host"), "");
        assert_eq!(received.field("authorization"), ALICE);
    }
}

#[tokio::test(start_paused = true)]
async fn upstream_does_not_learn_how_the_request_got_here_but_for_via() {
    let fields = [
        ("forwarded", "for=1.2.3.4;host=evil.example"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "1.2.3.4"),
        ("x-sentry-subnet-organization", "1"),
        ("connection", "keep-alive, x-private"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("te", "trailers"),
        ("x-private", "1"),
    ];
    for target in [PROJECTS, PASSED] {
        let received = received(&House::new(), target, &fields).await;
        for (name, _) in fields {
            assert_eq!(received.field(name), "", "{target} {name}");
        }
        assert!(received.field("via").contains("sentrybox"), "{received:?}");
        assert!(!format!("{:?}", received.fields).contains(HOST));
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_in_front_keeps_its_place_in_via() {
    let received = received(&House::new(), PROJECTS, &[("via", "1.1 edge")]).await;
    let lines: Vec<_> = received.fields.get_all("via").iter().map(|line| line.to_str().unwrap()).collect();
    assert!(lines.join(", ").starts_with("1.1 edge, 1.1 sentrybox"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cookie_travels_only_where_no_credential_does_or_the_operator_wants_it() {
    let cookie = ("cookie", "session=1");
    let nobody = ("authorization", "");
    for target in [PROJECTS, PASSED] {
        assert_eq!(received(&House::new(), target, &[cookie]).await.field("cookie"), "");
        assert_eq!(received(&House::new(), target, &[cookie, nobody]).await.field("cookie"), "session=1");
        let passing = House::with(|config| config.cookies = Cookies::Pass);
        assert_eq!(received(&passing, target, &[cookie]).await.field("cookie"), "session=1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cookie_is_set_only_where_cookies_travel() {
    for target in [PROJECTS, PASSED] {
        let set = |house: House, authorization: &'static str| async move {
            house.upstream.plays(target, Act::json("{}").with("set-cookie", "a=1"));
            let answer = house.ask(Method::GET, target, &[("authorization", authorization)]).await;
            answer.field("set-cookie").to_owned()
        };
        assert_eq!(set(House::new(), ALICE).await, "");
        assert_eq!(set(House::new(), "").await, "a=1");
        assert_eq!(set(House::with(|config| config.cookies = Cookies::Pass), ALICE).await, "a=1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_carries_nothing_that_concerns_one_client_alone() {
    let fields = [
        ("if-none-match", "\"mine\""),
        ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("if-match", "\"mine\""),
        ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("if-range", "\"mine\""),
        ("cache-control", "no-cache"),
        ("pragma", "no-cache"),
        ("referer", "https://a.example/"),
    ];
    let received = received(&House::new(), PROJECTS, &fields).await;
    for (name, _) in fields {
        assert_eq!(received.field(name), "", "{name}");
    }
    assert_eq!(received.field("accept-encoding"), "gzip, identity");
    assert_eq!(received.field("accept"), "application/json");
}

#[tokio::test(start_paused = true)]
async fn a_flight_negotiates_as_its_key_says() {
    let negotiated = |name: &'static str, value: &'static str| async move {
        received(&House::new(), PROJECTS, &[(name, value)]).await.field(name).to_owned()
    };
    assert_eq!(negotiated("accept", "text/csv").await, "text/csv");
    assert_eq!(negotiated("accept", "*/*").await, "application/json");
    assert_eq!(negotiated("accept-language", "de").await, "de");
    assert_eq!(negotiated("accept-language", "*").await, "");
    assert_eq!(negotiated("origin", "https://a.example").await, "https://a.example");
    assert_eq!(negotiated("user-agent", "sentry-cli/2").await, "sentry-cli/2");
}

#[tokio::test(start_paused = true)]
async fn what_passes_through_keeps_its_own_conditions_and_codings() {
    let fields = [("if-none-match", "\"mine\""), ("accept-encoding", "br"), ("accept", "text/csv")];
    let received = received(&House::new(), PASSED, &fields).await;
    for (name, value) in fields {
        assert_eq!(received.field(name), value);
    }
}

#[tokio::test(start_paused = true)]
async fn upstream_gets_the_clients_own_spelling() {
    let targets = [
        "/api/0/organizations/acme/releases/backend%2F1.0%2Bbuild/?&cursor=0:100:0",
        "/api/0/organizations/acme/issues/?query=is:unresolved+a%20b&cursor=&project=2&project=1",
        "/api/0/organizations/acme/releases/web%401.0/",
        "/api/0/organizations/acme/releases/web@1.0/?a=%c3%a9&b",
        "/api/0/projects/acme/web/releases/a%2Fb/files/?name=~/x.js&x=1,2;3",
        "/api/0/organizations/acme/projects",
    ];
    for target in targets {
        assert_eq!(received(&House::new(), target, &[]).await.target(), target);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_arrives_as_it_was_sent() {
    let house = House::new();
    let fields = [("content-type", "application/json"), ("if-match", "\"1\""), ("accept-encoding", "br")];
    house.serve(asking(Method::PUT, PROJECTS, &fields, r#"{"a": 1}"#)).await;
    let received = house.upstream.last();
    assert_eq!((received.method.as_str(), received.body.as_ref()), ("PUT", &br#"{"a": 1}"#[..]));
    for (name, value) in fields {
        assert_eq!(received.field(name), value);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_streams_through_as_it_comes() {
    let house = House::new();
    let chunks =
        vec![Chunk::Data("one".into()), Chunk::Pause(Duration::from_secs(10)), Chunk::Data("two".into())];
    house.upstream.plays(PASSED, Act::chunks(chunks).of_unknown_length().with("content-type", "text/csv"));
    let watch = Stopwatch::start();
    let mut response = house.begin(asking(Method::GET, PASSED, &[], "")).await;
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((first.as_ref(), watch.read()), (&b"one"[..], Duration::ZERO));
    let rest = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!((rest.as_ref(), watch.read()), (&b"two"[..], Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn a_request_streams_through_as_it_comes() {
    let house = House::new();
    house.upstream.plays(PASSED, Act::echo());
    let (mut sender, body) = Channel::<Bytes>::new(4);
    let request = Request::post(PASSED).header("host", HOST).body(body).unwrap();
    let response = house.proxy.serve(request, peer()).await;
    let mut echo = response.into_body();
    for part in ["one", "two"] {
        sender.send_data(part.into()).await.unwrap();
        let frame = timeout(Duration::from_secs(1), echo.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part);
    }
    drop(sender);
    assert!(echo.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_never_looks_complete() {
    let house = House::new();
    let act = Act::chunks(vec![Chunk::Data("[1,".into()), Chunk::Pause(Duration::from_secs(1))]);
    house.upstream.plays(PASSED, act.of_unknown_length().breaking_off());
    let response = house.begin(asking(Method::GET, PASSED, &[], "")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.into_body().collect().await.is_err());
    sleep(Duration::from_secs(1)).await;
    house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_back_is_refused() {
    let house = House::new();
    let once = house.ask(Method::GET, PROJECTS, &[("via", "1.1 sentrybox (another)")]).await;
    assert_eq!(once.status, StatusCode::OK, "a sidecar in front of a shared proxy");
    let own =
        house.upstream.last().fields.get_all("via").iter().next_back().unwrap().to_str().unwrap().to_owned();
    for via in ["1.1 sentrybox (a), 1.1 sentrybox (b)", &own] {
        for method in [Method::GET, Method::PUT] {
            let answer = house.ask(method, PROJECTS, &[("via", via)]).await;
            assert_eq!(answer.status, StatusCode::LOOP_DETECTED, "{via}");
            assert_eq!(Verdict::of(&answer).word("detail"), "loop");
            assert!(!detail(&answer).is_empty());
        }
    }
    assert_eq!(house.upstream.count(), 1);
}

/// Fails unless a target is refused with this status and upstream hears nothing of it.
async fn check_refused(house: &House, target: &str, status: StatusCode) {
    let before = house.upstream.count();
    let answer = house.get(target).await;
    assert_eq!((answer.status, house.upstream.count()), (status, before), "{target}");
    assert!(!detail(&answer).is_empty(), "{target}");
    Verdict::of(&answer);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_served_is_404_with_a_word_about_what_this_is() {
    let house = House::new();
    for target in
        ["/", "/robots.txt", "/api/", "/api/1/organizations/", "/api/0x/", "/oauth/token/", "/organizations/"]
    {
        check_refused(&house, target, StatusCode::NOT_FOUND).await;
    }
    assert!(detail(&house.get("/").await).contains("sentrybox"));
}

#[tokio::test(start_paused = true)]
async fn how_much_passes_through_is_the_operators_choice() {
    let none = House::with(|config| config.passthrough = PassThrough::None);
    check_refused(&none, "/api/0/users/me/", StatusCode::NOT_FOUND).await;
    assert_eq!(none.get(PROJECTS).await.status, StatusCode::OK);
    let oauth = House::with(|config| config.passthrough = PassThrough::ApiAndOauth);
    assert_eq!(oauth.get("/oauth/token/").await.status, StatusCode::OK);
    assert_eq!(oauth.get("/api/0/users/me/").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_can_be_read_in_two_ways_is_refused() {
    let house = House::new();
    let root = "/api/0/organizations";
    for path in
        ["/../x/", "/./x/", "/%2e%2e/x/", "/%2E./x/", "//x/", "/x/%00/", "/x/..%2fy/", "/x/%zz/", "/x/a\\b/"]
    {
        let target = format!("{root}{path}");
        if target.parse::<http::Uri>().is_ok() {
            check_refused(&house, &target, StatusCode::BAD_REQUEST).await;
        }
    }
    let long = format!("{root}/acme/issues/?query={}", "x".repeat(20_000));
    check_refused(&house, &long, StatusCode::URI_TOO_LONG).await;
}

#[tokio::test(start_paused = true)]
async fn two_credentials_or_a_broken_authority_are_refused() {
    let house = House::new();
    let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
    for fields in
        [&twice[..], &[("host", "user@box.example")], &[("host", "a"), ("host", "b")], &[("host", "a b")]]
    {
        let answer = house.ask(Method::GET, PROJECTS, fields).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{fields:?}");
    }
    assert_eq!(house.ask(Method::TRACE, PROJECTS, &[]).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(house.upstream.count(), 0);
}

//! What is stored, what never is, and which requests share what is stored.

use std::time::Duration;

use bytesize::ByteSize;
use http::{Method, StatusCode};
use sentrybox::config::{Config, Cookies};
use tokio::time::sleep;

use crate::support::corridor::{ALICE, House, PROJECTS, Verdict, asking, detail, is_hit};
use crate::support::http::Fields;
use crate::support::scripted::Act;

/// Asks twice in the same way. Returns how many of them reached upstream.
async fn asked_upstream(house: &House, target: &str, fields: Fields<'_>) -> usize {
    let before = house.upstream.count();
    for _ in 0..2 {
        house.ask(Method::GET, target, fields).await;
    }
    house.upstream.count() - before
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_answer_is_stored() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[1]"));
    let first = house.get(PROJECTS).await;
    let verdict = Verdict::of(&first);
    assert_eq!((verdict.word("fwd"), verdict.says("stored")), ("uri-miss", true));
    let second = house.get(PROJECTS).await;
    assert!(is_hit(&second) && second.text() == first.text());
}

#[tokio::test(start_paused = true)]
async fn some_answers_are_never_stored() {
    let acts = [
        ("no-store", Act::json("[]").with("cache-control", "no-store")),
        ("no-store beside a lifetime", Act::json("[]").with("cache-control", "max-age=60, no-store")),
        ("a cookie", Act::json("[]").with("set-cookie", "edge=1")),
        ("too large", Act::json(format!("[\"{}\"]", "x".repeat(1_024)))),
        ("too large, unannounced", Act::json(format!("[\"{}\"]", "x".repeat(1_024))).of_unknown_length()),
        ("partial", Act::status(206, "[").with("content-range", "bytes 0-0/2")),
        ("no type", Act::bytes("[]")),
        ("a table", Act::bytes("a,b").with("content-type", "text/csv")),
        ("a page", Act::bytes("<p>").with("content-type", "text/html")),
        ("any variant", Act::json("[]").with("vary", "*")),
        ("created", Act::status(201, "[]")),
        ("empty", Act::status(204, "")),
        ("elsewhere", Act::status(302, "").with("location", "/api/0/organizations/")),
        ("bad request", Act::status(400, "{}")),
        ("unauthorized", Act::status(401, "{}")),
        ("forbidden", Act::status(403, "{}")),
        ("too many", Act::status(429, "{}").with("cache-control", "max-age=60")),
        ("a failure", Act::status(500, "{}")),
    ];
    for (name, act) in acts {
        let house = House::with(|config| {
            config.cache.max_response_bytes = ByteSize::kib(1);
            config.budget.enabled = false;
            config.cache.rejection_memory = Duration::ZERO;
        });
        house.upstream.plays(PROJECTS, act);
        assert_eq!(asked_upstream(&house, PROJECTS, &[]).await, 2, "{name}");
        assert!(!Verdict::of(&house.get(PROJECTS).await).says("stored"), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_is_never_stored() {
    for act in [Act::json("[").breaking_off(), Act::json("[").of_unknown_length().breaking_off()] {
        let house = House::new();
        house.upstream.plays_once(PROJECTS, act);
        let answer = house.get(PROJECTS).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert_eq!(Verdict::of(&answer).word("detail"), "upstream-broken");
        assert!(!is_hit(&house.get(PROJECTS).await));
    }
}

/// Fails unless the answers to such requests are never stored, and says why.
async fn check_never(reason: &str, target: &str, fields: Fields<'_>, change: impl FnOnce(&mut Config)) {
    let house = House::with(change);
    assert_eq!(asked_upstream(&house, target, fields).await, 2, "{reason}");
    let answer = house.ask(Method::GET, target, fields).await;
    let verdict = Verdict::of(&answer);
    assert_eq!((verdict.word("fwd"), verdict.word("detail")), ("bypass", reason));
}

#[tokio::test(start_paused = true)]
async fn some_requests_are_never_answered_from_the_store() {
    let pass = |config: &mut Config| config.cookies = Cookies::Pass;
    check_never("no-credential", PROJECTS, &[("authorization", "")], |_| {}).await;
    check_never("unknown-scheme", PROJECTS, &[("authorization", "Digest x")], |_| {}).await;
    check_never("cookie", PROJECTS, &[("cookie", "a=1")], pass).await;
    check_never("uncacheable-field", PROJECTS, &[("x-sentry-replay-request", "1")], |_| {}).await;
    check_never("route-never", "/api/0/organizations/acme/api-keys/1/", &[], |_| {}).await;
    check_never("route-never", "/api/0/organizations/acme/integrations/1/repos/", &[], |_| {}).await;
    check_never("route-never", "/api/0/organizations/acme/releases/1/files/2/?download=1", &[], |_| {}).await;
    check_never("pass-through", "/api/0/projects/acme/web/", &[], |_| {}).await;
}

#[tokio::test(start_paused = true)]
async fn a_get_with_a_body_is_forwarded_with_it() {
    let house = House::new();
    house.get(PROJECTS).await;
    let answer = house.serve(asking(Method::GET, PROJECTS, &[], "{\"q\":1}")).await;
    assert_eq!(Verdict::of(&answer).word("detail"), "request-body");
    assert_eq!(house.upstream.last().body, "{\"q\":1}");
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_credential_share_one_partition_when_the_operator_wants_it() {
    let house = House::with(|config| config.cache.anonymous = true);
    let nobody = [("authorization", "")];
    assert_eq!(asked_upstream(&house, PROJECTS, &nobody).await, 1);
    assert!(!is_hit(&house.get(PROJECTS).await), "and nobody else does");
    let with_cookie = [("authorization", ""), ("cookie", "session=1")];
    let answer = house.ask(Method::GET, PROJECTS, &with_cookie).await;
    assert_eq!(Verdict::of(&answer).word("detail"), "cookie");
}

#[tokio::test(start_paused = true)]
async fn what_is_private_is_not_stored_for_all_of_the_anonymous() {
    let house = House::with(|config| config.cache.anonymous = true);
    house.upstream.plays(PROJECTS, Act::json("[]").with("cache-control", "private, max-age=60"));
    assert_eq!(asked_upstream(&house, PROJECTS, &[("authorization", "")]).await, 2);
    assert_eq!(asked_upstream(&house, PROJECTS, &[("authorization", ALICE)]).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_a_lifetime_of_its_own_is_stored_without_its_cookie() {
    let house = House::new();
    house
        .upstream
        .plays(PROJECTS, Act::json("[]").with("cache-control", "max-age=60").with("set-cookie", "a=1"));
    let first = house.get(PROJECTS).await;
    let second = house.get(PROJECTS).await;
    assert!(is_hit(&second));
    assert_eq!((first.field("set-cookie"), second.field("set-cookie")), ("", ""));
}

#[tokio::test(start_paused = true)]
async fn a_cookie_of_a_client_with_a_credential_does_not_keep_its_answers_from_being_stored() {
    let house = House::new();
    assert_eq!(asked_upstream(&house, PROJECTS, &[("cookie", "edge=1")]).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_any_type_with_a_lifetime_of_its_own_is_stored() {
    let house = House::new();
    let act = Act::bytes("a,b").with("content-type", "text/csv").with("cache-control", "max-age=60");
    house.upstream.plays(PROJECTS, act);
    assert_eq!(asked_upstream(&house, PROJECTS, &[]).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_remembered_for_seconds() {
    for status in [404, 410] {
        let house = House::new();
        house.upstream.plays(PROJECTS, Act::status(status, "{\"detail\":\"no\"}"));
        house.get(PROJECTS).await;
        let again = house.get(PROJECTS).await;
        assert!(is_hit(&again) && again.status.as_u16() == status);
        sleep(Duration::from_secs(3)).await;
        house.upstream.plays(PROJECTS, Act::json("[]"));
        assert_eq!(house.get(PROJECTS).await.status, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_never_asks_upstream() {
    let house = House::new();
    let fields = [("cache-control", "only-if-cached")];
    let answer = house.ask(Method::GET, PROJECTS, &fields).await;
    assert_eq!((answer.status, house.upstream.count()), (StatusCode::GATEWAY_TIMEOUT, 0));
    assert!(!detail(&answer).is_empty());
    assert_eq!(Verdict::of(&answer).word("detail"), "only-if-cached");
    house.get(PROJECTS).await;
    assert!(is_hit(&house.ask(Method::GET, PROJECTS, &fields).await));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_wants_validation_gets_it_and_everybody_profits() {
    for fields in [[("cache-control", "no-cache")], [("cache-control", "max-age=0")]] {
        let house = House::new();
        house.upstream.plays(PROJECTS, Act::json("\"new\""));
        house.upstream.plays_once(PROJECTS, Act::json("\"old\""));
        house.get(PROJECTS).await;
        sleep(Duration::from_secs(5)).await;
        let answer = house.ask(Method::GET, PROJECTS, &fields).await;
        assert_eq!((Verdict::of(&answer).word("fwd"), answer.text()), ("request", "\"new\""));
        let next = house.get(PROJECTS).await;
        assert!(is_hit(&next) && next.text() == "\"new\"");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_forbids_storing_leaves_nothing_behind() {
    let house = House::new();
    let answer = house.ask(Method::GET, PROJECTS, &[("cache-control", "no-store")]).await;
    assert!(!Verdict::of(&answer).says("stored"));
    assert!(!is_hit(&house.get(PROJECTS).await));
}

#[tokio::test(start_paused = true)]
async fn clients_directives_can_be_ignored() {
    use sentrybox::config::cache::ClientDirectives;
    let house = House::with(|config| config.cache.client_directives = ClientDirectives::Ignore);
    for directive in ["no-cache", "no-store", "max-age=0", "only-if-cached"] {
        house.ask(Method::GET, PROJECTS, &[("cache-control", directive)]).await;
    }
    assert_eq!(house.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn equal_spellings_share_what_is_stored() {
    let root = "/api/0/organizations/acme";
    let pairs = [
        ("/projects/", "/projects/?cursor="),
        ("/projects/?per_page=5", "/projects/?per_page=5&cursor="),
        ("/projects/?&cursor=0:100:0", "/projects/?cursor=0%3A100%3A0"),
        ("/issues/?query=is:unresolved+a&limit=5", "/issues/?limit=5&query=is%3Aunresolved%20a"),
        ("/issues/?project=2&project=1&query=", "/issues/?query=&project=2&project=1"),
        ("/releases/web@1.0/", "/releases/web%401.0/"),
        ("/releases/a%2fb/", "/releases/a%2Fb/"),
    ];
    for (one, other) in pairs {
        let house = House::new();
        house.get(&format!("{root}{one}")).await;
        assert!(is_hit(&house.get(&format!("{root}{other}")).await), "{one} {other}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_equal_does_not_share() {
    let root = "/api/0/organizations/acme";
    let pairs = [
        ("/projects/", "/projects/?cursor=0:100:0"),
        ("/issues/?project=1&project=2", "/issues/?project=2&project=1"),
        ("/issues/?query=a", "/issues/?query=A"),
        ("/issues/?query=", "/issues/"),
        ("/releases/a%2Fb/", "/releases/a/b/"),
        ("/releases/1.0/", "/releases/1.0%20/"),
        ("/issues/?query=a%26limit%3D5", "/issues/?query=a&limit=5"),
    ];
    for (one, other) in pairs {
        let house = House::new();
        house.get(&format!("{root}{one}")).await;
        assert!(!is_hit(&house.get(&format!("{root}{other}")).await), "{one} {other}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_clients_negotiate_is_part_of_the_key() {
    let fields: [(Fields<'_>, bool); 8] = [
        (&[("accept", "*/*")], true),
        (&[("accept", "application/json, text/plain;q=0.5")], true),
        (&[("accept-language", "*")], true),
        (&[("user-agent", "another")], true),
        (&[("accept-encoding", "gzip")], true),
        (&[("accept", "text/csv")], false),
        (&[("accept-language", "de")], false),
        (&[("origin", "https://a.example")], false),
    ];
    let house = House::new();
    house.get(PROJECTS).await;
    for (fields, expected) in fields {
        assert_eq!(is_hit(&house.ask(Method::GET, PROJECTS, fields).await), expected, "{fields:?}");
    }
}

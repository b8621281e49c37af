//! What an explanation foresees is what then happens: over every handling, every reason for a forward, and every refusal that
//! can be known before upstream is asked. And explaining changes nothing.
//!
//! Not here: how the states come about ([`scenes`]), how it is asked (`admin`, `cli`).

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use proptest::prelude::*;
use sentrybox::cache::generations::PurgeDepth;
use sentrybox::cache::invalidation::selector::Selector;
use sentrybox::clock::Stopwatch;
use sentrybox::config::cache::RuleConfig;
use sentrybox::handling::hold::Hold;
use sentrybox::handling::{ForwardReason, Handling, RefusalReason};
use sentrybox::metrics::exposition::Exposition;
use sentrybox::proxy::explaining::explanation::{CredentialStanding, Explanation, Kind, StoredFacts};
use sentrybox::proxy::explaining::foreseen::{Company, ForwardPlan, Refreshing, Sending, Substitute, Turn};
use tokio::time::sleep;

use crate::explaining::scenes::{
    Scene, crowded, explain, fresh, refused_for_long, scene_of, scene_of_forward, scene_of_refusal, stored,
};
use crate::support::corridor::{House, PROJECTS, asking};
use crate::support::http::{Answer, Fields};
use crate::support::limited::LimitedSentry;
use crate::support::scripted::{Act, Received};

mod scenes;

const SECOND: Duration = Duration::from_secs(1);
const TEAMS: &str = "/api/0/organizations/acme/teams/";
const ELSEWHERE: &str = "/api/0/elsewhere/";

/// The class of [`PROJECTS`]: its lifetime, and that and its window while it is refreshed.
const FRESH_FOR: Duration = Duration::from_mins(2);
const GOES_OUT_FOR: Duration = Duration::from_mins(12);

/// Returns our metrics as they stand, but for those of the process.
fn counted(house: &House) -> Vec<String> {
    let text = house.proxy.metrics().encode(Exposition::negotiate(""));
    let is_ours = |line: &&str| line.starts_with("sentrybox_") && !line.contains("allocator");
    text.lines().filter(is_ours).map(str::to_owned).collect()
}

/// Returns how many requests were handled so, for this reason, and how many in all.
fn handled(house: &House, handling: &str, reason: &str) -> (u64, u64) {
    let is_so = |line: &&String| {
        line.contains(&format!("handling=\"{handling}\"")) && line.contains(&format!("reason=\"{reason}\""))
    };
    let lines: Vec<_> =
        counted(house).into_iter().filter(|line| line.starts_with("sentrybox_requests_total{")).collect();
    let number = |line: &String| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    (lines.iter().filter(is_so).map(number).sum(), lines.iter().map(number).sum())
}

/// Fails unless the answer's `Cache-Status` says all that was foreseen; and nothing else, for an answer from the store.
fn assert_foreseen(explanation: &Explanation, answer: &Answer) {
    let foreseen: Vec<_> = explanation.now.cache_status.split("; ").collect();
    let said: Vec<_> = answer.field("cache-status").split("; ").collect();
    assert!(foreseen.iter().all(|part| said.contains(part)), "{explanation:#?} {answer:?}");
    let is_forward = said.iter().any(|part| part.starts_with("fwd="));
    assert!(is_forward || foreseen == said, "{explanation:#?} {answer:?}");
}

/// Fails if an explanation tells a token, or needs more than a screen.
fn assert_presentable(explanation: &Explanation) {
    let (json, screen) = (explanation.json(), explanation.to_string());
    for text in [&json, &screen, &format!("{explanation:?}")] {
        assert!(!text.contains("sntryu_"), "{text}");
    }
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
    assert!(screen.lines().count() <= 24, "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 100), "{screen}");
    assert!(!screen.chars().any(|letter| letter.is_control() && letter != '\n'), "{screen}");
}

/// Explains the request of a scene, sends it, and compares. Then the same without explaining: nothing else happens.
async fn check(expected: Handling) {
    let scene = scene_of(expected).await;
    let (before, sent) = (counted(&scene.house), scene.house.upstream.count());
    let explanation = scene.explain().await;
    assert_eq!(counted(&scene.house), before, "{expected:?}: explaining counts nothing");
    assert_eq!(scene.house.upstream.count(), sent, "{expected:?}: explaining sends nothing");
    assert_presentable(&explanation);
    let told = (explanation.now.handling, explanation.now.reason);
    assert_eq!(told, (expected.label(), expected.reason_label()), "{explanation:#?}");
    let before = handled(&scene.house, told.0, told.1);
    let answer = scene.house.serve(scene.request).await;
    let after = handled(&scene.house, told.0, told.1);
    assert_eq!(after, (before.0 + 1, before.1 + 1), "{expected:?} {answer:?}");
    assert_foreseen(&explanation, &answer);
    let unexplained = scene_of(expected).await;
    let same = unexplained.house.serve(unexplained.request).await;
    assert_eq!((same.status, &same.body), (answer.status, &answer.body), "{expected:?}");
    assert_eq!(same.field("cache-status"), answer.field("cache-status"), "{expected:?}");
}

#[tokio::test(start_paused = true)]
async fn every_reuse_is_foreseen() {
    for handling in
        [Handling::Reuse, Handling::ReuseThenRevalidate, Handling::ReuseUnderPressure, Handling::RefreshAhead]
    {
        check(handling).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_forward_is_foreseen_with_its_reason() {
    for reason in ForwardReason::ALL {
        check(Handling::Forward(reason)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_refusal_is_foreseen_that_can_be_known_beforehand() {
    let mut known = 0;
    for reason in RefusalReason::ALL {
        if scene_of_refusal(reason).await.is_some() {
            check(Handling::Refuse(reason)).await;
            known += 1;
        }
    }
    assert_eq!(known, 16);
}

/// Returns the plan of a forward.
fn plan(explanation: &Explanation) -> ForwardPlan {
    explanation.now.forward.unwrap_or_else(|| panic!("{explanation:#?}"))
}

/// Returns the facts of what is stored.
fn facts(explanation: &Explanation) -> &StoredFacts {
    explanation.subject.as_ref().and_then(|subject| subject.stored.as_ref()?.response.as_ref()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_is_told_and_how_long_it_goes_out() {
    let house = stored(Act::json("[1, 2]").with("etag", "\"1\""), Duration::from_secs(30)).await;
    house.get(PROJECTS).await;
    let explanation = Scene::projects(house, &[("accept-language", "de")]).explain().await;
    let subject = explanation.subject.as_ref().unwrap();
    assert_eq!(subject.stored.as_ref().unwrap().found, Kind::Nothing, "in another language");
    let house = stored(Act::json("[1, 2]").with("etag", "\"1\""), Duration::from_secs(30)).await;
    house.get(PROJECTS).await;
    let explanation = Scene::projects(house, &[]).explain().await;
    let told = facts(&explanation);
    assert_eq!((told.status, told.bytes, told.reuses, told.has_validator), (200, 6, 1, true));
    assert_eq!((told.age.0, told.lifetime.0, told.ttl), (30 * SECOND, FRESH_FOR, 90));
    assert_eq!((told.is_fresh, told.standing), (true, "current"));
    let left = GOES_OUT_FOR.saturating_sub(30 * SECOND);
    assert_eq!(told.stale_while_revalidate_left.map(|left| left.0), Some(left));
    let rule = &explanation.subject.as_ref().unwrap().rule;
    assert_eq!((rule.origin, rule.class.as_deref()), (Some("built-in"), Some("slow")));
}

#[tokio::test(start_paused = true)]
async fn the_rule_that_applies_is_told_and_whose_it_is() {
    let rule = |class: Option<&str>, overrides| RuleConfig {
        route: "/api/0/organizations/{organization}/projects/".to_owned(),
        class: class.map(str::to_owned),
        never: class.is_none(),
        overrides,
    };
    for (class, overrides) in [(Some("static"), true), (None, false)] {
        let house = House::with(|config| config.cache.rules = vec![rule(class, overrides)]);
        let told = Scene::projects(house, &[]).explain().await.subject.unwrap().rule;
        assert_eq!((told.origin, told.class.as_deref()), (Some("configured"), class));
        assert_eq!((told.never, told.overrides), (class.is_none(), overrides));
    }
    let unruled = asking(Method::GET, "/api/0/organizations/acme/nothing-we-know/", &[], "");
    let told = Scene::new(House::new(), unruled).explain().await.subject.unwrap().rule;
    assert_eq!((told.template, told.class, told.never), (None, None, false));
}

#[tokio::test(start_paused = true)]
async fn what_became_of_a_credential_is_told() {
    let standing = async |house: &House| {
        let explanation = explain(house, &asking(Method::GET, PROJECTS, &[], "")).await;
        explanation.subject.unwrap().credential.standing
    };
    let house = House::new();
    assert_eq!(standing(&house).await, CredentialStanding::Unseen);
    house.get(PROJECTS).await;
    assert_eq!(standing(&house).await, CredentialStanding::Accepted);
    let suspended = scene_of_forward(ForwardReason::CredentialSuspended).await.house;
    assert_eq!(standing(&suspended).await, CredentialStanding::Suspended);
    let unverified = scene_of_forward(ForwardReason::CredentialUnverified).await.house;
    assert_eq!(standing(&unverified).await, CredentialStanding::Unverified);
    let rejected = House::new();
    rejected.upstream.plays(TEAMS, Act::status(401, "{}"));
    rejected.get(TEAMS).await;
    assert_eq!(standing(&rejected).await, CredentialStanding::Rejected);
}

#[tokio::test(start_paused = true)]
async fn a_flight_under_way_is_joined() {
    let house = House::new();
    house.upstream.plays_once(PROJECTS, Act::json("[1]").after(5 * SECOND));
    let first = house.crowd(1, PROJECTS, &[]);
    sleep(SECOND).await;
    let scene = Scene::projects(house, &[]);
    let explanation = scene.explain().await;
    let told = plan(&explanation);
    assert_eq!((told.company, told.sending), (Company::Joins, Sending::UnderWay));
    let answer = scene.house.serve(scene.request).await;
    assert!(answer.field("cache-status").contains("; collapsed"), "{answer:?}");
    assert_foreseen(&explanation, &answer);
    first.join_all().await;
    assert_eq!(scene.house.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_will_not_share_goes_alone() {
    for (fields, method) in [
        (&[][..], Method::HEAD),
        (&[("range", "bytes=0-1")], Method::GET),
        (&[("cache-control", "no-store")], Method::GET),
    ] {
        let scene = Scene::new(House::new(), asking(method, PROJECTS, fields, ""));
        let explanation = scene.explain().await;
        assert_eq!(plan(&explanation).company, Company::Alone, "{explanation:#?}");
        assert_foreseen(&explanation, &scene.house.serve(scene.request).await);
    }
    let scene = Scene::projects(House::new(), &[]);
    assert_eq!(plan(&scene.explain().await).company, Company::TakesOff);
    scene.house.upstream.plays_once(PROJECTS, Act::json("[]").with("cache-control", "no-store"));
    scene.house.get(PROJECTS).await;
    assert_eq!(plan(&scene.explain().await).company, Company::Alone, "what came last could not be shared");
}

#[tokio::test(start_paused = true)]
async fn whether_upstream_can_validate_and_what_goes_out_if_it_fails_is_told() {
    let told = plan(&scene_of_forward(ForwardReason::Stale).await.explain().await);
    assert_eq!((told.conditional, told.on_failure), (true, Substitute::Stored));
    let told = plan(&scene_of_forward(ForwardReason::Purged).await.explain().await);
    assert_eq!((told.conditional, told.on_failure), (false, Substitute::Stored));
    let told = plan(&scene_of_forward(ForwardReason::Invalidated).await.explain().await);
    assert_eq!((told.conditional, told.on_failure), (false, Substitute::Failure));
    let told = plan(&scene_of_forward(ForwardReason::CredentialSuspended).await.explain().await);
    assert_eq!((told.turn, told.on_failure), (Turn::Free, Substitute::Failure));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_somebody_else_has_is_told() {
    let scene = scene_of_forward(ForwardReason::CredentialSuspended).await;
    scene.house.upstream.plays_once(TEAMS, Act::json("[]").after(2 * SECOND));
    let trial = scene.house.crowd(1, TEAMS, &[]);
    sleep(SECOND).await;
    assert_eq!(plan(&scene.explain().await).turn, Turn::Taken);
    trial.join_all().await;
    assert_eq!(scene.explain().await.now.handling, "reuse", "accepted again");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_remembered_is_told_again() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::status(403, "{}"));
    house.get(PROJECTS).await;
    let scene = Scene::projects(house, &[]);
    let explanation = scene.explain().await;
    assert_eq!(explanation.now.cache_status, "sentrybox; hit; detail=remembered-refusal");
    assert_foreseen(&explanation, &scene.house.serve(scene.request).await);
    let asked = Scene::projects(scene.house, &[("cache-control", "no-cache")]).explain().await;
    assert_eq!(asked.now.handling, "forward", "{asked:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_stands_in_where_upstream_may_not_be_asked() {
    let scene = Scene::projects(refused_for_long(&[PROJECTS]).await, &[]);
    let explanation = scene.explain().await;
    assert!(explanation.now.cache_status.ends_with("; detail=stale-if-error"), "{explanation:#?}");
    let Sending::Never { hold, .. } = plan(&explanation).sending else { panic!("{explanation:#?}") };
    assert_eq!(hold, Hold::Gate.label());
    let gates = &explanation.subject.as_ref().unwrap().budget.gates;
    assert_eq!(gates.iter().map(|gate| (gate.of, gate.state)).collect::<Vec<_>>(), [("route", "closed")]);
    let count = scene.house.upstream.count();
    let answer = scene.house.serve(scene.request).await;
    assert_eq!((answer.status, scene.house.upstream.count()), (StatusCode::OK, count));
    assert_foreseen(&explanation, &answer);
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_foreseen_with_what_holds_and_how_long_at_the_least_and_at_the_most() {
    let sentry = LimitedSentry::new(2, 2, SECOND / 10);
    sentry.begin_a_window().await;
    let house = House::new();
    house.upstream.improvises(move |received| sentry.answer(received));
    for number in 0..2 {
        house.get(&format!("{PROJECTS}?page={number}")).await;
    }
    let scene = Scene::projects(house, &[]);
    let explanation = scene.explain().await;
    let budget = &explanation.subject.as_ref().unwrap().budget;
    assert_eq!((budget.limit, budget.remaining, budget.pressure_percent), (Some(2), Some(0), 100));
    let Sending::AfterWaiting { hold, at_least_seconds, at_most_seconds } = plan(&explanation).sending else {
        panic!("{explanation:#?}")
    };
    assert_eq!((hold, at_most_seconds.0), (Hold::Window.label(), 10 * SECOND));
    let watch = Stopwatch::start();
    let answer = scene.house.serve(scene.request).await;
    assert_foreseen(&explanation, &answer);
    assert!(at_least_seconds.0 <= watch.read() && watch.read() <= 2 * SECOND, "{:?}", watch.read());
    assert!(SECOND / 2 < at_least_seconds.0, "{at_least_seconds}");
}

#[tokio::test(start_paused = true)]
async fn what_would_be_waited_for_in_vain_is_not_waited_for() {
    let scene = Scene::projects(crowded().await, &[]);
    let Sending::Never { hold, .. } = plan(&scene.explain().await).sending else { panic!("a full line") };
    assert_eq!(hold, Hold::Capacity.label());
    let house = House::without_limits(|config| {
        config.budget.max_concurrent = 1;
        config.budget.max_wait = Duration::ZERO;
    })
    .await;
    house.upstream.plays(ELSEWHERE, Act::json("1").after(SECOND));
    house.crowd(1, ELSEWHERE, &[]).detach_all();
    sleep(SECOND / 2).await;
    let scene = Scene::projects(house, &[]);
    let explanation = scene.explain().await;
    assert_eq!(explanation.now.reason, RefusalReason::UpstreamBusy.label());
    assert_foreseen(&explanation, &scene.house.serve(scene.request).await);
}

#[tokio::test(start_paused = true)]
async fn whether_a_refresh_starts_is_told() {
    let stale = async || stored(Act::json("[1]"), FRESH_FOR).await;
    let refresh = async |house: &House| {
        let explanation = explain(house, &asking(Method::GET, PROJECTS, &[], "")).await;
        explanation.now.refresh.unwrap_or_else(|| panic!("{explanation:#?}"))
    };
    let house = stale().await;
    assert_eq!(refresh(&house).await, Refreshing::Starts);
    house.upstream.plays_once(PROJECTS, Act::status(500, "{}").after(SECOND));
    house.get(PROJECTS).await;
    assert_eq!(refresh(&house).await, Refreshing::UnderWay);
    sleep(SECOND + SECOND / 2).await;
    assert_eq!(refresh(&house).await, Refreshing::Paused);
    let house = House::without_limits(|config| config.budget.max_concurrent = 1).await;
    house.get(PROJECTS).await;
    sleep(FRESH_FOR).await;
    house.upstream.plays(ELSEWHERE, Act::json("1").after(5 * SECOND));
    house.crowd(1, ELSEWHERE, &[]).detach_all();
    sleep(SECOND).await;
    assert_eq!(refresh(&house).await, Refreshing::Held { hold: Hold::Capacity.label() });
    let count = house.upstream.count();
    house.get(PROJECTS).await;
    assert_eq!(house.upstream.count(), count);
}

#[tokio::test(start_paused = true)]
async fn explaining_again_and_again_uses_nothing_up() {
    let scene = Scene::projects(fresh().await, &[]);
    for _ in 0..10 {
        assert_eq!(facts(&scene.explain().await).reuses, 0);
    }
    let invalidated = scene_of_forward(ForwardReason::Invalidated).await;
    for _ in 0..3 {
        let stored = invalidated.explain().await.subject.unwrap().stored.unwrap();
        assert_eq!(stored.found, Kind::Unusable, "it is still there");
    }
    let unknown = Scene::projects(House::new(), &[]);
    for _ in 0..100 {
        assert_eq!(plan(&unknown.explain().await).sending, Sending::Now);
    }
    unknown.house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn a_key_is_told_in_the_spelling_in_which_it_is_one() {
    let target = "/api/0/organizations/acme/projects/?b=%7e1&a=x%20y&cursor=";
    let fields = [("accept", "text/csv"), ("accept-language", "DE, en"), ("origin", "https://a.example")];
    let explanation = Scene::new(House::new(), asking(Method::GET, target, &fields, "")).explain().await;
    let key = explanation.subject.as_ref().unwrap().key.as_ref().unwrap();
    assert_eq!(key.target, "/api/0/organizations/acme/projects/?a=x%20y&b=~1");
    assert_eq!(key.target, explanation.target);
    assert_eq!((key.accept.as_str(), key.accept_language.as_str()), ("text/csv", "de,en"));
    assert_eq!((key.origin.as_str(), key.upstream.as_str()), ("https://a.example", "sentry.io"));
    assert_eq!(key.partition.len(), 16);
    let varied = scene_of_forward(ForwardReason::VaryMiss).await.explain().await;
    assert_eq!(varied.subject.unwrap().key.unwrap().nominated, ["x-flavour"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_pasted_somewhere_is_not_told_back() {
    let token = "Bearer se cret/to+ken==";
    let spellings =
        ["se%20cret%2Fto%2Bken%3D%3D", "%73e%20cret%2fto%2bken%3d%3d", "se+cret/to%2bken==", "sntryu_other"];
    for spelling in spellings {
        for target in [
            format!("{PROJECTS}?token={spelling}&b=2"),
            format!("/api/0/organizations/{spelling}/x/"),
            format!("/nowhere?{spelling}"),
        ] {
            for fields in [&[][..], &[("accept", "x/se cret/to+ken=="), ("origin", "se cret/to+ken==")]] {
                let fields: Vec<_> = fields.iter().copied().chain([("authorization", token)]).collect();
                let request = asking(Method::GET, &target, &fields, "");
                let explanation = Scene::new(House::new(), request).explain().await;
                assert_presentable(&explanation);
                let told = format!("{} {explanation}", explanation.json());
                assert!(!told.contains("cret") && told.contains("[redacted]"), "{told}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_asked_fits_on_a_screen() {
    let long = format!("{PROJECTS}?{}", "a=1&b=2&".repeat(1_000));
    let words = "word ".repeat(500);
    let fields = [("accept", words.as_str()), ("accept-language", &words), ("origin", "\u{e9}")];
    let scene = Scene::new(House::new(), asking(Method::GET, &long, &fields, ""));
    assert_presentable(&scene.explain().await);
}

/// What happens in a sequence, besides time.
#[derive(Debug, Clone, Copy)]
enum Event {
    Get(usize),
    Head,
    Put,
    Purge(PurgeDepth),
}

const ASKS: [Fields<'static>; 5] = [
    &[],
    &[("cache-control", "no-cache")],
    &[("cache-control", "max-stale=1000")],
    &[("cache-control", "only-if-cached")],
    &[("x-flavour", "sweet")],
];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..ASKS.len()).prop_map(Event::Get),
        1 => Just(Event::Head),
        1 => Just(Event::Put),
        1 => prop_oneof![Just(PurgeDepth::Soft), Just(PurgeDepth::Hard)].prop_map(Event::Purge),
    ]
}

/// What upstream answers, in turn.
fn acts() -> Vec<Act> {
    vec![
        Act::json("[1]"),
        Act::json("[2]").with("etag", "\"2\""),
        Act::json("[3]").with("vary", "X-Flavour"),
        Act::json("[4]").with("cache-control", "no-cache"),
        Act::json("[5]").with("cache-control", "no-store"),
        Act::status(401, "{}"),
        Act::status(403, "{}"),
        Act::status(404, "{}"),
        Act::status(429, "{}").with("retry-after", "20"),
        Act::status(503, "{}"),
        Act::unreachable(),
    ]
}

/// Asks, and fails unless it comes as it was foreseen. Upstream may have failed, which nobody can foresee.
async fn ask_as_foreseen(house: &House, request: Request<Full<Bytes>>) {
    let explanation = explain(house, &request).await;
    assert_presentable(&explanation);
    let answer = house.serve(request).await;
    let is_failure = answer.status.is_server_error()
        || answer.status == StatusCode::TOO_MANY_REQUESTS
        || answer.field("cache-status").contains("stale-if-error");
    let foreseen = explanation.now.cache_status.split("; ").find(|part| part.starts_with("fwd="));
    match foreseen {
        Some(foreseen) if explanation.now.handling == "forward" && is_failure => {
            assert!(answer.field("cache-status").contains(foreseen), "{explanation:#?} {answer:?}");
        }
        Some(_) | None => assert_foreseen(&explanation, &answer),
    }
}

async fn play(script: Vec<usize>, events: Vec<(u64, Event)>) {
    let house = House::with(|config| config.cache.max_unverified = Duration::from_mins(5));
    let script: Vec<_> = script.into_iter().map(|number| acts()[number].clone()).collect();
    let turn = std::sync::atomic::AtomicUsize::new(0);
    house.upstream.improvises(move |_: &Received| {
        script[turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % script.len()].clone()
    });
    for (pause, event) in events {
        sleep(Duration::from_secs(pause)).await;
        match event {
            Event::Get(asks) => {
                ask_as_foreseen(&house, asking(Method::GET, PROJECTS, ASKS[asks], "")).await;
            }
            Event::Head => ask_as_foreseen(&house, asking(Method::HEAD, PROJECTS, &[], "")).await,
            Event::Put => ask_as_foreseen(&house, asking(Method::PUT, PROJECTS, &[], "{}")).await,
            Event::Purge(depth) => {
                house.proxy.purge_selected(&Selector::Everything, depth).await.unwrap();
            }
        }
        // A refresh behind the client's back lands now.
        sleep(Duration::ZERO).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_next_answer_comes_as_it_was_foreseen(
        script in prop::collection::vec(0..acts().len(), 1..20),
        events in prop::collection::vec((prop_oneof![0_u64..20, 0_u64..2_000], event()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(script, events));
    }
}

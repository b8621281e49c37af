//! Who is served at all: what is refused at the door is refused whatever it asks for, whatever is stored, and at once.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{Method, StatusCode};
use proptest::prelude::*;
use sentrybox::config::access::AccessConfig;
use sentrybox::config::load::defaults;
use sentrybox::config::{Config, Secret};
use sentrybox::metrics::exposition::Exposition;
use tokio::time::sleep;

use crate::support::corridor::{ALICE, BOB, HOST, House, PROJECTS, Verdict, asking, detail, is_hit};
use crate::support::http::{Answer, Fields};
use crate::support::scripted::{Act, Received};

const SECRET: &str = "canary-canary-canary";

/// A path that is passed through.
const ELSEWHERE: &str = "/api/0/issues/1/";

/// Nobody in particular.
const NOBODY: (&str, &str) = ("authorization", "");

fn access(change: impl FnOnce(&mut AccessConfig)) -> AccessConfig {
    let mut access = defaults().access;
    change(&mut access);
    access
}

/// Returns the rules under which only these credentials are served.
fn only(house: &House, credentials: &[&str]) -> AccessConfig {
    let fingerprint = |credential: &&str| house.proxy.fingerprint_of_text(credential).unwrap().to_string();
    access(|access| access.credentials = credentials.iter().map(fingerprint).collect())
}

#[track_caller]
fn assert_refused(answer: &Answer, reason: &str) {
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{answer:?}");
    assert_eq!(Verdict::of(answer).word("detail"), reason, "{answer:?}");
    assert!(!Verdict::of(answer).says("hit"), "{answer:?}");
    assert!(!detail(answer).contains("canary"), "{answer:?}");
}

/// Requests of every kind.
fn kinds() -> Vec<(Method, &'static str)> {
    let methods = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    let paths = [PROJECTS, "/api/0/organizations/", ELSEWHERE, "/api/0/users/me/regions/"];
    methods.iter().flat_map(|method| paths.map(|path| (method.clone(), path))).collect()
}

#[tokio::test(start_paused = true)]
async fn whoever_is_refused_reaches_neither_the_store_nor_upstream() {
    let house = House::new();
    for target in [PROJECTS, "/api/0/organizations/"] {
        house.get(target).await;
        house.get_as(BOB, target).await;
    }
    let asked = house.upstream.count();
    let elsewhere = || vec!["192.0.2.0/24".parse().unwrap()];
    let secret = || Secret::new(SECRET.to_owned());
    let states = [
        (access(|access| access.networks = elsewhere()), "network-not-served"),
        (access(|access| access.shared_secret = secret()), "shared-secret"),
        (only(&house, &[ALICE]), "credential-not-served"),
    ];
    for (state, reason) in &states {
        house.proxy.access().apply(state);
        for (method, target) in kinds() {
            for fields in [&[("authorization", BOB)][..], &[NOBODY]] {
                let answer = house.serve(asking(method.clone(), target, fields, "")).await;
                if method == Method::HEAD {
                    assert_eq!(answer.status, StatusCode::FORBIDDEN);
                } else {
                    assert_refused(&answer, reason);
                }
            }
        }
        let sample = format!("reason=\"{reason}\",status_class=\"4xx\"}} {}", 2 * kinds().len());
        assert!(house.proxy.metrics().encode(Exposition::Text).contains(&sample), "{sample}");
    }
    assert_eq!(house.upstream.count(), asked, "nothing was sent");
    house.proxy.access().apply(&defaults().access);
    assert!(is_hit(&house.get_as(BOB, PROJECTS).await), "and nothing was lost");
    house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_is_removed_is_refused_at_once_although_its_answers_are_fresh() {
    let house = House::new();
    house.proxy.access().apply(&only(&house, &[ALICE, BOB]));
    house.get_as(BOB, PROJECTS).await;
    assert!(is_hit(&house.get_as(BOB, PROJECTS).await));
    house.proxy.access().apply(&only(&house, &[ALICE]));
    let refused = house.get_as(BOB, PROJECTS).await;
    assert_refused(&refused, "credential-not-served");
    let fingerprint = house.proxy.fingerprint_of_text(BOB).unwrap().to_string();
    let others = house.proxy.fingerprint_of_text(ALICE).unwrap().to_string();
    assert!(detail(&refused).contains(&fingerprint) && !detail(&refused).contains(&others), "{refused:?}");
    house.get(PROJECTS).await;
    assert!(is_hit(&house.get(PROJECTS).await), "the others are served");
    house.proxy.access().apply(&only(&house, &[ALICE, BOB]));
    assert!(is_hit(&house.get_as(BOB, PROJECTS).await), "what was stored for it is still its own");
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_under_the_rules_under_which_it_came() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[1]").after(Duration::from_secs(5)));
    let mut waiting = house.crowd(2, PROJECTS, &[]);
    sleep(Duration::from_secs(1)).await;
    house.proxy.access().apply(&only(&house, &[BOB]));
    assert_refused(&house.get(PROJECTS).await, "credential-not-served");
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.unwrap().text(), "[1]");
    }
}

/// Asks with the shared secret's field, and returns what upstream got.
async fn sent(change: impl FnOnce(&mut Config), fields: Fields<'_>, method: Method) -> Received {
    let house = House::with(change);
    house.serve(asking(method, PROJECTS, fields, "")).await;
    house.upstream.last()
}

#[tokio::test(start_paused = true)]
async fn the_shared_secret_never_goes_upstream_and_is_in_no_key() {
    let asking_for_it = |config: &mut Config| config.access.shared_secret = Secret::new(SECRET.to_owned());
    for method in [Method::GET, Method::PUT, Method::OPTIONS] {
        let right: Fields<'_> = &[("x-sentrybox-secret", SECRET), ("accept", "text/csv"), ("x-kept", "1")];
        for received in
            [sent(asking_for_it, right, method.clone()).await, sent(|_| {}, right, method.clone()).await]
        {
            assert!(!format!("{received:?}").contains("canary"), "{received:?}");
            assert!(!received.fields.contains_key("x-sentrybox-secret"), "{received:?}");
            assert_eq!(received.field("x-kept"), "1");
        }
    }
    // Right or wrong or none: where none is asked for, it makes no difference, not even where upstream says that it does.
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[1]").with("vary", "X-Sentrybox-Secret"));
    house.get(PROJECTS).await;
    for value in ["", "x", SECRET] {
        assert!(is_hit(&house.ask(Method::GET, PROJECTS, &[("x-sentrybox-secret", value)]).await), "{value}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_explanation_needs_and_tells_no_secret() {
    let house = House::with(|config| config.access.shared_secret = Secret::new(SECRET.to_owned()));
    let explain = async |fields: Fields<'_>| {
        let (head, _) = asking(Method::GET, PROJECTS, fields, "").into_parts();
        let peer = crate::support::corridor::peer();
        house.proxy.explain(head, sentrybox::admission::BodyFraming::Absent, peer).await
    };
    let refused = explain(&[("host", HOST)]).await;
    assert_eq!(refused.now.reason, "shared-secret");
    let served = explain(&[("x-sentrybox-secret", SECRET)]).await;
    assert_eq!(served.now.reason, "uri-miss");
    assert!(!format!("{refused:?}{refused} {served:?}{served}").contains("canary"));
}

/// The credentials of the histories, each in two spellings; the last is none.
const TOKENS: [[&str; 2]; 4] = [
    ["Bearer sntryu_0", "bearer  sntryu_0"],
    ["Bearer sntryu_1", "BEARER sntryu_1 "],
    ["Basic c25=", "basic c25="],
    ["", " "],
];

const TARGETS: [&str; 3] = [PROJECTS, "/api/0/organizations/", ELSEWHERE];

/// What a client or an operator does.
#[derive(Debug, Clone)]
enum Step {
    Ask { who: usize, spelling: usize, target: usize, method: Method },
    Serve(BTreeSet<usize>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let method = prop_oneof![6 => Just(Method::GET), 1 => Just(Method::HEAD), 1 => Just(Method::PUT)];
    prop_oneof![
        12 => (0..TOKENS.len(), 0..2_usize, 0..TARGETS.len(), method)
            .prop_map(|(who, spelling, target, method)| Step::Ask { who, spelling, target, method }),
        2 => prop::collection::btree_set(0..TOKENS.len() - 1, 1..3).prop_map(Step::Serve),
        1 => (0..400_u64).prop_map(Step::Wait),
    ]
}

/// Plays a history; only `served` are served at the beginning.
async fn live(mut served: BTreeSet<usize>, steps: Vec<Step>) {
    let house = House::with(|config| config.cache.anonymous = true);
    house.upstream.improvises(|received| {
        Act::json("[1]").with("x-who", received.field("authorization")).with("etag", "\"1\"")
    });
    let apply = |served: &BTreeSet<usize>| {
        let credentials: Vec<_> = served.iter().map(|who| TOKENS[*who][0]).collect();
        house.proxy.access().apply(&only(&house, &credentials));
    };
    apply(&served);
    for step in steps {
        match step {
            Step::Ask { who, spelling, target, method } => {
                let fields = [("authorization", TOKENS[who][spelling])];
                let asked = house.upstream.count();
                let answer = house.serve(asking(method, TARGETS[target], &fields, "")).await;
                assert_eq!(answer.status == StatusCode::FORBIDDEN, !served.contains(&who), "{answer:?}");
                if answer.status == StatusCode::FORBIDDEN {
                    assert_eq!(Verdict::of(&answer).word("detail"), "credential-not-served");
                    assert_eq!((answer.field("x-who"), house.upstream.count()), ("", asked), "{answer:?}");
                } else {
                    let whose = answer.field("x-who").to_ascii_lowercase();
                    assert_eq!(
                        whose.split_whitespace().last(),
                        TOKENS[who][0].to_ascii_lowercase().split_whitespace().last()
                    );
                }
            }
            Step::Serve(others) => {
                served = others;
                apply(&served);
            }
            Step::Wait(seconds) => sleep(Duration::from_secs(seconds)).await,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_credential_but_those_that_are_listed_is_ever_answered(
        served in prop::collection::btree_set(0..TOKENS.len() - 1, 1..3),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(live(served, steps));
    }
}

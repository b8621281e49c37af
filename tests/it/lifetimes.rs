//! No answer is ever reused past its lifetime plus the stale window that applies, nor for another variant: random
//! sequences of responses and times, each reuse checked against what upstream said of that very response.
//!
//! Upstream numbers its answers, and each says for how long it may be kept. Not here: whose answers (`isolation`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use proptest::prelude::*;
use sentrybox::clock::Stopwatch;
use sentrybox::config::Config;
use sentrybox::config::cache::{ClassConfig, RuleConfig};
use tokio::time::sleep;

use crate::support::corridor::{House, PROJECTS, Verdict};
use crate::support::http::Answer;
use crate::support::scripted::{Act, Received};

/// What one answer of upstream's is like.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// `max-age`; without one, the class decides.
    max_age: Option<u64>,
    revalidate: Option<u64>,
    error: Option<u64>,
    /// `Age` on arrival.
    age: u64,
    forbids_stale: bool,
    varies: bool,
    kind: Kind,
}

/// What kind of answer it is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    New,
    /// A 304 where upstream is asked conditionally.
    NotModified,
    Failure,
}

/// The class of the route, in seconds.
#[derive(Debug, Clone, Copy)]
struct Class {
    fresh_for: u64,
    revalidate: u64,
    error: u64,
}

/// What a client does, after a pause in seconds.
#[derive(Debug, Clone, Copy)]
struct Step {
    pause: u64,
    flavour: usize,
    asks: usize,
}

const FLAVOURS: [&str; 3] = ["sweet", "sour", ""];
const DIRECTIVES: [&str; 4] = ["", "max-stale=20", "no-cache", "min-fresh=5"];
const MAX_STALE: u64 = 20;
const MIN_FRESH: u64 = 5;

fn terms() -> impl Strategy<Value = Terms> {
    let seconds = || proptest::option::weighted(0.7, 0_u64..40);
    let kind = prop_oneof![3 => Just(Kind::New), 2 => Just(Kind::NotModified), 2 => Just(Kind::Failure)];
    (seconds(), seconds(), seconds(), 0_u64..20, (any::<bool>(), any::<bool>(), kind)).prop_map(
        |(max_age, revalidate, error, age, (forbids_stale, varies, kind))| Terms {
            max_age,
            revalidate,
            error,
            age,
            forbids_stale,
            varies,
            kind,
        },
    )
}

fn class() -> impl Strategy<Value = Class> {
    let seconds = || 1_u64..40;
    (seconds(), seconds(), seconds()).prop_map(|(fresh_for, revalidate, error)| Class {
        fresh_for,
        revalidate,
        error,
    })
}

fn step() -> impl Strategy<Value = Step> {
    (0_u64..30, 0..FLAVOURS.len(), 0..DIRECTIVES.len()).prop_map(|(pause, flavour, asks)| Step {
        pause,
        flavour,
        asks,
    })
}

/// An answer that upstream has given, and since when it holds: given, or freshened by a later one.
#[derive(Debug, Clone)]
struct Given {
    terms: Terms,
    flavour: String,
    since: Stopwatch,
}

/// Upstream's side: what it will answer, and what it has answered, by number.
#[derive(Debug, Default)]
struct Book {
    script: VecDeque<Terms>,
    given: Vec<Given>,
}

impl Book {
    fn answer(&mut self, received: &Received) -> Act {
        let Some(terms) = self.script.pop_front() else { return Act::unreachable() };
        if terms.kind == Kind::Failure {
            return Act::status(503, "{}");
        }
        let named = received.field("if-none-match").trim_matches('"').parse::<usize>().ok();
        let since = Stopwatch::start();
        if let Some(number) = named.filter(|_| terms.kind == Kind::NotModified) {
            let given = self.given.get_mut(number).unwrap();
            // It goes on for the variant that it was made for; a 304 tells its terms anew.
            *given = Given { terms: Terms { varies: given.terms.varies, ..terms }, since, ..given.clone() };
            let terms = given.terms;
            return dressed(Act::status(304, ""), terms).with("etag", &format!("\"{number}\""));
        }
        let number = self.given.len();
        self.given.push(Given { terms, flavour: received.field("x-flavour").to_owned(), since });
        dressed(Act::json(number.to_string()), terms).with("etag", &format!("\"{number}\""))
    }
}

fn dressed(act: Act, terms: Terms) -> Act {
    let said = [
        ("max-age", terms.max_age),
        ("stale-while-revalidate", terms.revalidate),
        ("stale-if-error", terms.error),
    ];
    let mut control: Vec<_> =
        said.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?))).collect();
    control.extend(terms.forbids_stale.then(|| "must-revalidate".to_owned()));
    let act = act.with("cache-control", &control.join(", ")).with("age", &terms.age.to_string());
    if terms.varies { act.with("vary", "X-Flavour") } else { act }
}

fn house_with(class: Class, book: &Arc<Mutex<Book>>) -> House {
    let house = House::with(|config: &mut Config| {
        let own = ClassConfig {
            fresh_for: Some(Duration::from_secs(class.fresh_for)),
            stale_while_revalidate: Duration::from_secs(class.revalidate),
            stale_if_error: Some(Duration::from_secs(class.error)),
        };
        config.cache.classes.insert("own".to_owned(), own);
        let rule = RuleConfig {
            route: PROJECTS.to_owned(),
            class: Some("own".to_owned()),
            never: false,
            overrides: false,
        };
        config.cache.rules = vec![rule];
    });
    let book = Arc::clone(book);
    house.upstream.improvises(move |received| book.lock().unwrap().answer(received));
    house
}

/// Returns how long the reuse that an answer speaks of may go on, as an age in seconds; `None` for what is no reuse.
fn bound(verdict: &Verdict, terms: Terms, class: Class, asks: &str) -> Option<u64> {
    let Terms { max_age, revalidate, error, forbids_stale, .. } = terms;
    let lifetime = max_age.unwrap_or(class.fresh_for);
    let window = |stated: Option<u64>, ours: u64| if forbids_stale { 0 } else { stated.unwrap_or(ours) };
    let revalidate = window(revalidate, class.revalidate);
    let tolerated = if asks.starts_with("max-stale") && !forbids_stale { MAX_STALE + 1 } else { 0 };
    let is_reuse = verdict.says("hit") || verdict.word("detail") == "stale-if-error";
    if asks.starts_with("min-fresh") {
        return is_reuse.then(|| lifetime.saturating_sub(MIN_FRESH - 1));
    }
    match verdict.word("detail") {
        "stale-while-revalidate" => Some(lifetime + revalidate),
        "reuse-under-pressure" => {
            // Only a lifetime of the operator's is stretched, to twice itself.
            let stretch = if forbids_stale || max_age.is_some() { 0 } else { class.fresh_for };
            Some(lifetime + revalidate.max(stretch))
        }
        "stale-if-error" => Some(lifetime + window(error, class.error)),
        _ if verdict.says("hit") => Some(lifetime + tolerated),
        _ => None,
    }
}

fn check(answer: &Answer, step: Step, class: Class, book: &Mutex<Book>) {
    let verdict = Verdict::of(answer);
    let Ok(number) = answer.text().parse::<usize>() else { return };
    let given = book.lock().unwrap().given.get(number).unwrap().clone();
    let flavour = FLAVOURS[step.flavour];
    if given.terms.varies {
        assert_eq!(given.flavour, flavour, "for another variant: {answer:?}");
    }
    let Some(bound) = bound(&verdict, given.terms, class, DIRECTIVES[step.asks]) else { return };
    assert_ne!(DIRECTIVES[step.asks], "no-cache", "reused unasked: {answer:?}");
    let age = given.since.read().as_secs() + given.terms.age;
    assert!(age < bound, "{age} s old, at most {bound}: {answer:?} {given:?}");
}

async fn play(class: Class, script: Vec<Terms>, steps: Vec<Step>) {
    let book = Arc::new(Mutex::new(Book { script: script.into(), given: Vec::new() }));
    let house = house_with(class, &book);
    for step in steps {
        sleep(Duration::from_secs(step.pause)).await;
        let mut fields =
            vec![("x-flavour", FLAVOURS[step.flavour]), ("cache-control", DIRECTIVES[step.asks])];
        fields.retain(|(_, value)| !value.is_empty());
        let answer = house.ask(Method::GET, PROJECTS, &fields).await;
        check(&answer, step, class, &book);
        // A refresh behind the client's back lands now, so that what it brought is told apart from what went out.
        sleep(Duration::ZERO).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_is_reused_past_its_lifetime_and_its_window_or_for_another_variant(
        class in class(),
        script in prop::collection::vec(terms(), 1..20),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(class, script, steps));
    }
}

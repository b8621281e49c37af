//! The whole corridor, before an upstream that answers as the input says: requests with what is answered to them, time that
//! passes, purges, clients that leave.
//!
//! Holds, whatever happens: nobody sees what was answered to another credential or another target; a 304 is for whoever was
//! given what it has; what must not be stored is given once, a cookie too; nothing purged or written since is seen; where no
//! rules of ours speak, nothing is reused beyond what upstream allowed; everybody is answered in time; nothing is left over; the
//! log holds no token, no body, no query; upstream is asked with the client's own spelling; what was explained happens.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary as _, Unstructured};
use bytesize::ByteSize;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use sentrybox::admission::BodyFraming;
use sentrybox::assembly::proxy_before;
use sentrybox::cache::generations::PurgeDepth;
use sentrybox::cache::invalidation::selector::Selector;
use sentrybox::config::cache::{ClientDirectives, Downstream};
use sentrybox::config::log::{LogPaths, LogRequests};
use sentrybox::config::{Config, Cookies, Secret};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::corridor::script::{
    ACCEPTS, Ask, Condition, DIRECTIVES, METHODS, PATHS, QUERIES, SECRETS, Script, Setting, Step, TOKENS,
};
use crate::corridor::world::{Asked, World};
use crate::meaning::Meaning;
use crate::support::corridor::{House, peer};
use crate::support::http::request;
use crate::support::kept_log::KeptLog;
use crate::support::scripted::ScriptedUpstream;

mod script;
mod world;

/// By when everybody is answered: after a flight, a place in the line, and every attempt at an upstream that takes its time.
const DEADLINE: Duration = Duration::from_secs(200);

/// After how long nothing is under way any more.
const SETTLED: Duration = Duration::from_mins(4);

/// Since when somebody asks whether something has changed.
const SINCE: &str = "Mon, 02 Nov 2026 00:01:00 GMT";

/// What goes no further, and is sent by everybody.
const UNWANTED: [(&str, &str); 3] =
    [("connection", "x-hop"), ("x-hop", "1"), ("x-forwarded-for", "192.0.2.1")];

/// Tries one input.
pub fn run(input: &[u8]) {
    let Ok(script) = Script::arbitrary(&mut Unstructured::new(input)) else { return };
    crate::paused_runtime().block_on(play(script));
}

async fn play(script: Script) {
    let log = KeptLog::begin();
    let house = build(script.setting);
    let world = Arc::new(World::new(script.setting));
    let (sentry, clock) = (Arc::clone(&world), house.proxy.clock().clone());
    house.upstream.improvises(move |received| sentry.answer(received, &clock));
    let mut clients = JoinSet::new();
    let mut handles = Vec::new();
    for step in script.steps {
        match step {
            Step::Ask(ask) => {
                let is_awaited = ask.waits;
                let serving = serve(house.clone(), Arc::clone(&world), ask);
                if is_awaited {
                    serving.await;
                } else {
                    handles.push(clients.spawn(serving));
                    // It begins before anything else happens.
                    tokio::task::yield_now().await;
                }
            }
            Step::Leave => drop(handles.pop().map(|handle: tokio::task::AbortHandle| handle.abort())),
            Step::Pass(time) => sleep(time).await,
            Step::Purge => {
                let before = world.state().count();
                house.purge_everything().await;
                world.state().purge(before);
            }
            Step::PurgeSoftly => {
                let acme = Selector::Organization("acme".to_owned());
                house
                    .proxy
                    .purge_selected(&acme, PurgeDepth::Soft)
                    .await
                    .expect("a soft purge is no trouble");
            }
            Step::Change { path } => world.state().change(path),
        }
    }
    while clients.join_next().await.is_some() {}
    sleep(SETTLED).await;
    house.assert_nothing_leaks();
    let told = log.text();
    for secret in SECRETS {
        assert!(!told.contains(secret), "the log tells {secret}: {told}");
    }
}

fn build(setting: Setting) -> House {
    let mut config = crate::DEFAULTS.clone();
    configure(&mut config, setting);
    let upstream = ScriptedUpstream::new();
    let proxy = proxy_before(&config, Arc::new(upstream.clone())).expect("the configuration makes sense");
    House { proxy, upstream }
}

fn configure(config: &mut Config, setting: Setting) {
    config.secret = Secret::new("0123456789abcdef0123456789abcdef".to_owned());
    config.cache.default_rules = setting.has(Setting::RULES);
    config.cache.anonymous = setting.has(Setting::CACHES_ANONYMOUS);
    config.budget.enabled = setting.has(Setting::HAS_BUDGET);
    config.budget.retries = setting.retries();
    if setting.has(Setting::IGNORES_DIRECTIVES) {
        config.cache.client_directives = ClientDirectives::Ignore;
    }
    if setting.has(Setting::TELLS_LIFETIMES) {
        config.cache.downstream = Downstream::Lifetime;
    }
    if setting.has(Setting::PASSES_COOKIES) {
        config.cookies = Cookies::Pass;
    }
    if setting.has(Setting::IS_SMALL) {
        config.cache.max_bytes = ByteSize::kib(64);
        config.cache.max_response_bytes = ByteSize::kib(4);
        config.cache.max_in_flight_bytes = ByteSize::kib(16);
        config.budget.max_concurrent = 2;
        config.budget.max_waiting = 2;
    }
    if setting.has(Setting::LOGS_PATHS) {
        config.log.paths = LogPaths::Full;
        config.log.requests = LogRequests::All;
    }
    if !setting.has(Setting::SETTLES) {
        config.cache.settle = Duration::ZERO;
    }
}

/// Serves one client, and looks at what it gets.
async fn serve(house: House, world: Arc<World>, ask: Ask) {
    let (request, asked) = ask_for(&world, ask);
    let explanation = explain(&house, &request, &asked).await;
    let answered = timeout(DEADLINE, async {
        let (head, mut body) = house.proxy.serve(request, peer()).await.into_parts();
        let (mut arrived, mut end) = (Vec::new(), End::Whole);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => arrived.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Err(_) => end = End::BrokenOff,
            }
        }
        (head, arrived, end)
    });
    let Ok((head, body, end)) = answered.await else { panic!("{asked:?} waits for too long") };
    // From a refusal of ours to HEAD, the server takes the body.
    let is_head = asked.method == Method::HEAD && head.status.is_success();
    let has_none = head.status == 304 || head.status == 204 || is_head;
    assert!(body.is_empty() || !has_none, "{} to {} has a body", head.status, asked.method);
    if let Some(foreseen) = explanation {
        let is_hit = |status: &str| status.contains("; hit");
        let told = format!("{:?}", head.headers.get("cache-status"));
        assert_eq!(is_hit(&foreseen), is_hit(&told), "{asked:?} is explained otherwise: {foreseen}, {told}");
    }
    let body = String::from_utf8_lossy(&body);
    if end == End::Whole && head.status == 200 && !has_none {
        assert!(body.ends_with(['}', ']']), "{asked:?} gets a part of an answer for the whole: {body}");
    }
    world.state().check(&asked, (head.status.as_u16(), &head.headers, &body));
}

/// Explains a request before it is served, and returns what `Cache-Status` would say; `None` where somebody else is under way,
/// who may change it.
async fn explain(house: &House, request: &Request<Full<bytes::Bytes>>, asked: &Asked) -> Option<String> {
    let is_alone = house.proxy.flights().is_empty() && house.upstream.in_flight() == 0;
    let head = request.clone().into_parts().0;
    let framing = if asked.method.is_safe() { BodyFraming::Absent } else { BodyFraming::Known(2) };
    let explanation = house.proxy.explain(head, framing, peer()).await;
    let text = explanation.json();
    for secret in SECRETS.iter().filter(|secret| !["mark-", "words-of-a-query"].contains(*secret)) {
        assert!(!text.contains(secret), "an explanation tells {secret}: {text}");
    }
    for (other, _) in TOKENS.iter().filter(|(other, _)| *other != asked.who) {
        assert!(!text.contains(&format!("mark-{other}-")), "{asked:?} is told what is for {other}: {text}");
    }
    is_alone.then_some(explanation.now.cache_status)
}

/// How a body ends.
#[derive(Debug, PartialEq)]
enum End {
    Whole,
    BrokenOff,
}

/// Puts a request together, and notes it.
fn ask_for(world: &World, ask: Ask) -> (Request<Full<bytes::Bytes>>, Asked) {
    let (who, token) = TOKENS[ask.who];
    let method: Method = METHODS[ask.method].parse().expect("a method");
    let target = format!("{}{}", PATHS[ask.path], QUERIES[ask.query]);
    let (path, query) =
        target.split_once('?').map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
    let meaning = Meaning::of(path, query);
    let mut state = world.state();
    let mut asked = state.ask(who, meaning.clone(), method.clone());
    let own = state.tag_of(&meaning, |to| to == who);
    let foreign = state.tag_of(&meaning, |to| to != who);
    let directives = DIRECTIVES[ask.directives];
    if directives.starts_with("max-stale") {
        asked.tolerance = Duration::from_secs(20);
    }
    asked.has = match ask.condition {
        Condition::None | Condition::Range | Condition::RangeIfOwn => None,
        Condition::Own => Some(own.clone()),
        Condition::Foreign => Some(foreign.clone()),
        Condition::Anything => Some("*".to_owned()),
        Condition::Since => Some(SINCE.to_owned()),
    };
    let mut fields = conditions(ask.condition, &own, &foreign);
    fields.extend(UNWANTED);
    fields.extend([("host", "box.example"), ACCEPTS[ask.accept]]);
    let others = [
        ("cookie", if ask.accept == 0 { "session=mine" } else { "" }),
        ("authorization", token),
        ("cache-control", directives),
    ];
    fields.extend(others.into_iter().filter(|(_, value)| !value.is_empty()));
    let sent = request(method.clone(), &target, &fields, if method.is_safe() { "" } else { "{}" });
    // As it goes on: a question mark without a query is one, too.
    state.targets.insert(sent.uri().path_and_query().expect("a path").as_str().to_owned());
    state.answers.push_back(ask.answer);
    (sent, asked)
}

/// Returns the fields that say what a client has already, or which part it wants.
fn conditions<'a>(condition: Condition, own: &'a str, foreign: &'a str) -> Vec<(&'static str, &'a str)> {
    match condition {
        Condition::None => Vec::new(),
        Condition::Own => vec![("if-none-match", own)],
        Condition::Foreign => vec![("if-none-match", foreign)],
        Condition::Anything => vec![("if-none-match", "*")],
        Condition::Since => vec![("if-modified-since", SINCE)],
        Condition::Range => vec![("range", "bytes=5-60")],
        Condition::RangeIfOwn => vec![("range", "bytes=0-60"), ("if-range", own)],
    }
}

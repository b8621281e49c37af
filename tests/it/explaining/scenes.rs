//! Scenes: for each handling, each reason for a forward and each refusal a house in which the next request meets it.
//!
//! Invariant: whoever adds a handling or a reason adds its scene, or nothing compiles. Not here: what is checked.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body::Body as _;
use http_body_util::Full;
use sentrybox::admission::BodyFraming;
use sentrybox::cache::generations::PurgeDepth;
use sentrybox::cache::invalidation::selector::Selector;
use sentrybox::config::cache::RuleConfig;
use sentrybox::config::{Config, Cookies, Secret};
use sentrybox::handling::{ForwardReason, Handling, RefusalReason};
use sentrybox::proxy::explaining::explanation::Explanation;
use tokio::time::sleep;

use crate::explaining::{ELSEWHERE, FRESH_FOR, GOES_OUT_FOR, SECOND, TEAMS};
use crate::support::corridor::{BOB, House, PROJECTS, asking, peer};
use crate::support::http::Fields;
use crate::support::limited::LimitedSentry;
use crate::support::scripted::Act;

/// A house in some state, and the request that comes next.
pub(crate) struct Scene {
    pub(crate) house: House,
    pub(crate) request: Request<Full<Bytes>>,
}

impl Scene {
    pub(crate) fn new(house: House, request: Request<Full<Bytes>>) -> Self {
        Self { house, request }
    }

    /// Alice asks for [`PROJECTS`] with these fields.
    pub(crate) fn projects(house: House, fields: Fields<'_>) -> Self {
        Self::new(house, asking(Method::GET, PROJECTS, fields, ""))
    }

    pub(crate) async fn explain(&self) -> Explanation {
        explain(&self.house, &self.request).await
    }
}

pub(crate) async fn explain(house: &House, request: &Request<Full<Bytes>>) -> Explanation {
    let (head, body) = request.clone().into_parts();
    let framing = match body.size_hint().exact() {
        Some(0) => BodyFraming::Absent,
        length => BodyFraming::Known(length.unwrap()),
    };
    house.proxy.explain(head, framing, peer()).await
}

/// Returns a house in which `act` was stored for [`PROJECTS`] so long ago.
pub(crate) async fn stored(act: Act, ago: Duration) -> House {
    stored_with(|_| {}, act, ago).await
}

async fn stored_with(change: impl FnOnce(&mut Config), act: Act, ago: Duration) -> House {
    let house = House::with(change);
    house.upstream.plays_once(PROJECTS, act);
    house.get(PROJECTS).await;
    sleep(ago).await;
    house
}

pub(crate) fn fresh() -> impl Future<Output = House> {
    stored(Act::json("[1]"), SECOND)
}

/// Sets the scene for a handling. A new one has no scene, and does not compile.
pub(crate) async fn scene_of(handling: Handling) -> Scene {
    match handling {
        Handling::Reuse => Scene::projects(fresh().await, &[]),
        Handling::ReuseThenRevalidate => Scene::projects(stored(Act::json("[1]"), FRESH_FOR).await, &[]),
        Handling::ReuseUnderPressure => under_pressure().await,
        Handling::RefreshAhead => soon_stale().await,
        Handling::Forward(reason) => scene_of_forward(reason).await,
        Handling::Refuse(reason) => scene_of_refusal(reason).await.unwrap(),
    }
}

/// The budget of a counting Sentry runs low, and what is stored is stale.
async fn under_pressure() -> Scene {
    let sentry = LimitedSentry::new(10, 10, SECOND / 10);
    sentry.begin_a_window().await;
    let house = House::new();
    house.upstream.improvises(move |received| sentry.answer(received));
    house.get(PROJECTS).await;
    sleep(FRESH_FOR + SECOND).await;
    let many: Vec<_> =
        (0..10).map(|number| house.crowd(1, &format!("{PROJECTS}?page={number}"), &[])).collect();
    for crowd in many {
        crowd.join_all().await;
    }
    Scene::projects(house, &[])
}

/// What is stored was asked for again and again, and is fresh for another ten seconds.
async fn soon_stale() -> Scene {
    let house = House::without_limits(|_| {}).await;
    for _ in 0..4 {
        house.get(PROJECTS).await;
    }
    sleep(FRESH_FOR.saturating_sub(10 * SECOND)).await;
    Scene::projects(house, &[])
}

/// Sets the scene for a forward. A new reason has no scene, and does not compile.
pub(crate) async fn scene_of_forward(reason: ForwardReason) -> Scene {
    match reason {
        ForwardReason::UriMiss => Scene::projects(House::new(), &[]),
        ForwardReason::VaryMiss => {
            let house = House::new();
            house.upstream.plays(PROJECTS, Act::json("[1]").with("vary", "X-Flavour"));
            house.ask(Method::GET, PROJECTS, &[("x-flavour", "sweet")]).await;
            Scene::projects(house, &[("x-flavour", "sour")])
        }
        ForwardReason::Stale => {
            let etag = Act::json("[1]").with("etag", "\"1\"");
            Scene::projects(stored(etag, GOES_OUT_FOR).await, &[])
        }
        ForwardReason::Invalidated => {
            let house = fresh().await;
            house.put(PROJECTS).await;
            Scene::projects(house, &[])
        }
        ForwardReason::Purged => {
            let house = fresh().await;
            let all = Selector::Everything;
            house.proxy.purge_selected(&all, PurgeDepth::Soft).await.unwrap();
            Scene::projects(house, &[])
        }
        ForwardReason::ClientDirective => Scene::projects(fresh().await, &[("cache-control", "no-cache")]),
        ForwardReason::AlwaysValidate => {
            let validated = Act::json("[1]").with("cache-control", "no-cache").with("etag", "\"1\"");
            Scene::projects(stored(validated, SECOND).await, &[])
        }
        ForwardReason::CredentialSuspended => {
            let house = fresh().await;
            house.upstream.plays_once(TEAMS, Act::status(401, "{}"));
            house.get(TEAMS).await;
            Scene::projects(house, &[])
        }
        ForwardReason::CredentialUnverified => {
            let unverified = |config: &mut Config| config.cache.max_unverified = Duration::from_mins(1);
            let house = stored_with(unverified, Act::json("[1]"), Duration::from_mins(1)).await;
            Scene::projects(house, &[])
        }
        ForwardReason::Method
        | ForwardReason::PassThrough
        | ForwardReason::RouteNever
        | ForwardReason::NoCredential
        | ForwardReason::UnknownScheme
        | ForwardReason::Cookie
        | ForwardReason::RequestBody
        | ForwardReason::UncacheableField => ineligible(reason),
    }
}

/// Sets the scene for a request that the cache may not answer.
fn ineligible(reason: ForwardReason) -> Scene {
    let with = |fields: Fields<'_>| Scene::projects(House::new(), fields);
    match reason {
        ForwardReason::Method => Scene::new(House::new(), asking(Method::PUT, PROJECTS, &[], "{}")),
        ForwardReason::PassThrough => Scene::new(House::new(), asking(Method::GET, ELSEWHERE, &[], "")),
        ForwardReason::RouteNever => {
            let never = |config: &mut Config| {
                let route = "/api/0/organizations/{organization}/projects/".to_owned();
                config.cache.rules = vec![RuleConfig { route, class: None, never: true, overrides: false }];
            };
            Scene::projects(House::with(never), &[])
        }
        ForwardReason::NoCredential => with(&[("authorization", "")]),
        ForwardReason::UnknownScheme => with(&[("authorization", "Digest sntryu_alice")]),
        ForwardReason::Cookie => {
            Scene::projects(House::with(|config| config.cookies = Cookies::Pass), &[("cookie", "a=1")])
        }
        ForwardReason::RequestBody => Scene::new(House::new(), asking(Method::GET, PROJECTS, &[], "{}")),
        ForwardReason::UncacheableField => with(&[("x-sentry-replay-request", "1")]),
        ForwardReason::UriMiss
        | ForwardReason::VaryMiss
        | ForwardReason::Stale
        | ForwardReason::Invalidated
        | ForwardReason::Purged
        | ForwardReason::ClientDirective
        | ForwardReason::AlwaysValidate
        | ForwardReason::CredentialSuspended
        | ForwardReason::CredentialUnverified => unreachable!("the cache may answer these"),
    }
}

/// Sets the scene for a refusal; `None` for one that nobody can know of beforehand.
pub(crate) async fn scene_of_refusal(reason: RefusalReason) -> Option<Scene> {
    let get = |target: &str, fields: Fields<'_>| {
        Some(Scene::new(House::new(), asking(Method::GET, target, fields, "")))
    };
    match reason {
        RefusalReason::UnknownPath => get("/robots.txt", &[]),
        RefusalReason::UnsafePath => get("/api/0/organizations/../x/", &[]),
        RefusalReason::BadAuthority => get(PROJECTS, &[("host", "user@box.example")]),
        RefusalReason::BadCredential => {
            get(PROJECTS, &[("authorization", "Bearer sntryu_1"), ("authorization", "Bearer sntryu_2")])
        }
        RefusalReason::NetworkNotServed => {
            let elsewhere = "192.0.2.0/24".parse().unwrap();
            Some(Scene::projects(House::with(|config| config.access.networks = vec![elsewhere]), &[]))
        }
        RefusalReason::SharedSecret => {
            let secret = Secret::new("canary-canary-canary".to_owned());
            Some(Scene::projects(House::with(|config| config.access.shared_secret = secret), &[]))
        }
        RefusalReason::CredentialNotServed => {
            let others = vec!["0123456789abcdef".to_owned()];
            let only_others = |config: &mut Config| {
                config.secret = Secret::new("canary, canary, canary, canary, canary".to_owned());
                config.access.credentials = others;
            };
            Some(Scene::projects(House::with(only_others), &[]))
        }
        RefusalReason::BadRequestBody => get(PROJECTS, &[("transfer-encoding", "gzip, chunked")]),
        RefusalReason::MethodNotAllowed => {
            Some(Scene::new(House::new(), asking(Method::TRACE, PROJECTS, &[], "")))
        }
        RefusalReason::TargetTooLong => get(&format!("{PROJECTS}?query={}", "x".repeat(20_000)), &[]),
        RefusalReason::HeadTooLarge => get(PROJECTS, &[("x-long", "x"); 97]),
        RefusalReason::Loop => get(PROJECTS, &[("via", "1.1 sentrybox (a), 1.1 sentrybox (b)")]),
        RefusalReason::OnlyIfCached => get(PROJECTS, &[("cache-control", "only-if-cached")]),
        RefusalReason::UpstreamBusy => Some(Scene::projects(crowded().await, &[])),
        RefusalReason::LimitReached => Some(Scene::projects(refused_for_long(&[]).await, &[])),
        RefusalReason::UpstreamSuspended => Some(Scene::projects(suspended().await, &[])),
        RefusalReason::Overloaded // How many others wait at that moment.
        | RefusalReason::UpstreamUnreachable
        | RefusalReason::UpstreamBroken
        | RefusalReason::UpstreamTimeout
        | RefusalReason::BodyTooLarge // A question has no gigabytes.
        | RefusalReason::ShuttingDown
        | RefusalReason::InternalError => None,
    }
}

/// Upstream's one place is taken, and so is the only one in the line.
pub(crate) async fn crowded() -> House {
    let house = House::without_limits(|config| {
        config.budget.max_concurrent = 1;
        config.budget.max_waiting = 1;
    })
    .await;
    house.upstream.plays(ELSEWHERE, Act::json("1").after(8 * SECOND));
    for number in 0..2 {
        let target = format!("{ELSEWHERE}?{number}");
        house.crowd(1, &target, &[("authorization", BOB)]).detach_all();
        sleep(SECOND).await;
    }
    house
}

/// The route is refused for a minute. `before` is asked for first.
pub(crate) async fn refused_for_long(before: &[&str]) -> House {
    let house = House::without_limits(|_| {}).await;
    for target in before {
        house.get(target).await;
    }
    sleep(GOES_OUT_FOR).await;
    house.upstream.plays_once(PROJECTS, Act::status(429, "{}").with("retry-after", "60"));
    house.get(&format!("{PROJECTS}?other")).await;
    house
}

/// Upstream has failed again and again, and nobody waits for it to come back.
async fn suspended() -> House {
    let house = House::without_limits(|config| {
        config.budget.max_wait = SECOND / 10;
        config.budget.retries = 0;
    })
    .await;
    house.upstream.improvises(|_| Act::unreachable());
    for number in 0..5 {
        house.get(&format!("{ELSEWHERE}?{number}")).await;
    }
    house
}

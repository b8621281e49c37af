//! The corridor without sockets: a proxy before a scripted upstream, and what its answers say of themselves.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use sentrybox::assembly::proxy_before;
use sentrybox::cache::generations::PurgeDepth;
use sentrybox::cache::invalidation::selector::Selector;
use sentrybox::config::Config;
use sentrybox::config::load::defaults;
use sentrybox::peer::Peer;
use sentrybox::proxy::Proxy;
use sentrybox::proxy::body::ReplyBody;
use tokio::task::JoinSet;

use crate::support::http::{Answer, Fields, request};
use crate::support::scripted::ScriptedUpstream;

/// A list of class `slow`: fresh for two minutes, then ten more while it is refreshed, a day when upstream fails.
pub(crate) const PROJECTS: &str = "/api/0/organizations/acme/projects/";

/// Who asks where a test does not say.
pub(crate) const ALICE: &str = "Bearer sntryu_alice";

/// Somebody else.
pub(crate) const BOB: &str = "Bearer sntryu_bob";

/// Where the proxy is reached where a test does not say.
pub(crate) const HOST: &str = "box.example";

/// Returns who is connected.
pub(crate) fn peer() -> Peer {
    Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 7)))
}

/// A proxy and its upstream.
#[derive(Debug, Clone)]
pub(crate) struct House {
    pub(crate) proxy: Proxy,
    pub(crate) upstream: ScriptedUpstream,
}

impl House {
    /// Builds it as it comes.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Builds it with another configuration.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = defaults();
        change(&mut config);
        let upstream = ScriptedUpstream::new();
        let proxy = proxy_before(&config, Arc::new(upstream.clone())).unwrap();
        Self { proxy, upstream }
    }

    /// Builds it before an upstream of which it is known that it has no limits.
    pub(crate) async fn without_limits(change: impl FnOnce(&mut Config)) -> Self {
        let house = Self::with(change);
        for _ in 0..3 {
            house.get("/api/0/elsewhere/").await;
        }
        house.upstream.forget();
        house
    }

    /// Purges everything for good. Returns how many stored responses there were.
    pub(crate) async fn purge_everything(&self) -> u64 {
        self.proxy.purge_selected(&Selector::Everything, PurgeDepth::Hard).await.unwrap()
    }

    /// Asks for a target as Alice.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.ask(Method::GET, target, &[]).await
    }

    /// Asks for a target as somebody.
    pub(crate) async fn get_as(&self, credential: &str, target: &str) -> Answer {
        self.ask(Method::GET, target, &[("authorization", credential)]).await
    }

    /// Writes as Alice.
    pub(crate) async fn put(&self, target: &str) -> Answer {
        self.serve(asking(Method::PUT, target, &[], "{}")).await
    }

    /// Asks with fields, as Alice unless they say otherwise; an empty `authorization` is none.
    pub(crate) async fn ask(&self, method: Method, target: &str, fields: Fields<'_>) -> Answer {
        self.serve(asking(method, target, fields, "")).await
    }

    /// Serves a request and reads the whole answer.
    pub(crate) async fn serve(&self, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = self.begin(request).await.into_parts();
        Answer { status: head.status, fields: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    /// Serves a request up to the head of its answer.
    pub(crate) async fn begin(&self, request: Request<Full<Bytes>>) -> Response<ReplyBody> {
        self.proxy.serve(request, peer()).await
    }

    /// Lets many ask the same at once.
    pub(crate) fn crowd(&self, count: usize, target: &str, fields: Fields<'_>) -> JoinSet<Answer> {
        let mut crowd = JoinSet::new();
        for _ in 0..count {
            let house = self.clone();
            let request = asking(Method::GET, target, fields, "");
            crowd.spawn(async move { house.serve(request).await });
        }
        crowd
    }

    /// Fails unless everything that was under way has ended and given back what it held.
    pub(crate) fn assert_nothing_leaks(&self) {
        assert!(self.proxy.flights().is_empty());
        assert_eq!(self.upstream.in_flight(), 0);
        assert_eq!((self.proxy.budget().taken(), self.proxy.budget().waiting()), (0, 0), "a permit leaked");
    }
}

/// Builds a request to [`HOST`] as Alice, unless `fields` say otherwise.
pub(crate) fn asking(
    method: Method,
    target: &str,
    fields: Fields<'_>,
    body: &'static str,
) -> Request<Full<Bytes>> {
    let mut all = fields.to_vec();
    for (name, value) in [("host", HOST), ("authorization", ALICE)] {
        if !fields.iter().any(|(given, _)| *given == name) {
            all.push((name, value));
        }
    }
    request(method, target, &all, body)
}

/// What `Cache-Status` says.
#[derive(Debug)]
pub(crate) struct Verdict(sfv::Parameters);

impl Verdict {
    /// Reads the last member, which must be ours.
    pub(crate) fn of(answer: &Answer) -> Self {
        let lines = answer.fields.get_all("cache-status").iter();
        let lines: Vec<_> = lines.map(|line| line.to_str().unwrap()).collect();
        let list: sfv::List = sfv::Parser::new(&lines.join(", ")).parse().unwrap();
        let Some(sfv::ListEntry::Item(item)) = list.into_iter().last() else {
            panic!("no Cache-Status in {answer:?}")
        };
        assert_eq!(item.bare_item.as_token().map(sfv::TokenRef::as_str), Some("sentrybox"));
        Self(item.params)
    }

    /// Returns whether a parameter without a value is there.
    pub(crate) fn says(&self, flag: &str) -> bool {
        self.0.get(flag).and_then(sfv::BareItem::as_boolean).unwrap_or_default()
    }

    /// Returns the word that a parameter has; empty when it is not there.
    pub(crate) fn word(&self, parameter: &str) -> &str {
        self.0.get(parameter).and_then(sfv::BareItem::as_token).map_or("", sfv::TokenRef::as_str)
    }

    /// Returns the number that a parameter has.
    pub(crate) fn number(&self, parameter: &str) -> Option<i64> {
        self.0.get(parameter).and_then(sfv::BareItem::as_integer).map(i64::from)
    }
}

/// Returns whether an answer came from the store without asking upstream.
pub(crate) fn is_hit(answer: &Answer) -> bool {
    Verdict::of(answer).says("hit")
}

/// Returns the sentence of an error in Sentry's shape.
pub(crate) fn detail(answer: &Answer) -> String {
    assert_eq!(answer.field("content-type"), "application/json");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    body.get("detail").and_then(serde_json::Value::as_str).expect("a detail").to_owned()
}

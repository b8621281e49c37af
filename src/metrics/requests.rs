//! Counts what clients asked and what became of it.
//!
//! Invariant: the label `route` is one of the templates given at start, or `other`.
//! Not here: which template a path has (`routes`), when a request ends (`proxy`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::handling::{ForwardReason, Handling, RefusalReason};
use crate::metrics::durations;

/// The route of whatever is not among the known templates.
const OTHER: &str = "other";

/// How many handlings there are, without their reasons.
const HANDLINGS: usize = 6;

/// How many ways of reuse there are: they have no reasons but themselves.
const REUSES: usize = 4;

/// How many handlings there are, with their reasons.
const REASONS: usize = REUSES + ForwardReason::ALL.len() + RefusalReason::ALL.len();

/// The classes of status codes ([RFC 9110 §15]).
///
/// [RFC 9110 §15]: https://www.rfc-editor.org/rfc/rfc9110#section-15
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

type Reasoned = Family<[(&'static str, &'static str); 3], Counter>;
type ByHandling = Family<[(&'static str, &'static str); 1], Histogram, fn() -> Histogram>;
type ByRoute = Family<[(&'static str, Cow<'static, str>); 2], Counter>;

/// What clients asked, and what became of it.
#[derive(Debug)]
pub struct RequestMetrics {
    reasoned: Reasoned,
    /// Handles of `reasoned`, each resolved when first needed: most combinations never happen.
    reasoned_handles: Vec<OnceLock<Counter>>,
    durations: ByHandling,
    duration_handles: [OnceLock<Histogram>; HANDLINGS],
    by_route: ByRoute,
    routes: HashMap<String, RouteHandles>,
    other: RouteHandles,
}

type RouteHandles = [OnceLock<Counter>; HANDLINGS];

impl RequestMetrics {
    /// Registers the metrics; `routes` are the only values of the label `route`, besides `other`.
    pub fn register(registry: &mut Registry, routes: &[String]) -> Self {
        let reasoned = Reasoned::default();
        registry.register("requests", "Requests answered, and why so", reasoned.clone());
        let durations = ByHandling::new_with_constructor(durations);
        let help = "Time from a request's head to its answer's head";
        registry.register_with_unit("request_duration", help, Unit::Seconds, durations.clone());
        let by_route = ByRoute::default();
        registry.register("requests_by_route", "Requests by route template", by_route.clone());
        Self {
            reasoned,
            reasoned_handles: (0..REASONS * CLASSES.len()).map(|_| OnceLock::new()).collect(),
            durations,
            duration_handles: Default::default(),
            by_route,
            routes: routes.iter().map(|route| (route.clone(), RouteHandles::default())).collect(),
            other: RouteHandles::default(),
        }
    }

    /// Records an answered request: how it was handled, what it was answered with, and how long that took.
    pub fn observe(&self, handling: Handling, status: StatusCode, elapsed: Duration) {
        self.count(handling, status);
        let resolve = || self.durations.get_or_create_owned(&[("handling", handling.label())]);
        if let Some(handle) = self.duration_handles.get(kind_index(handling)) {
            handle.get_or_init(resolve).observe(elapsed.as_secs_f64());
        }
    }

    /// Counts an answered request whose duration nobody knows.
    pub fn count(&self, handling: Handling, status: StatusCode) {
        let class = class_index(status);
        let label = CLASSES.get(class).copied().unwrap_or_default();
        let resolve = || {
            let reason = handling.reason_label();
            self.reasoned.get_or_create_owned(&[
                ("handling", handling.label()),
                ("reason", reason),
                ("status_class", label),
            ])
        };
        if let Some(handle) = self.reasoned_handles.get(reason_index(handling) * CLASSES.len() + class) {
            handle.get_or_init(resolve).inc();
        }
    }

    /// Counts a request under its route template; a template that was not given at start counts as `other`.
    pub fn observe_route(&self, route: &str, handling: Handling) {
        let (name, handles) = match self.routes.get_key_value(route) {
            Some((known, handles)) => (known.as_str(), handles),
            None => (OTHER, &self.other),
        };
        let resolve = || {
            let route = Cow::Owned(name.to_owned());
            self.by_route.get_or_create_owned(&[("route", route), ("handling", handling.label().into())])
        };
        if let Some(handle) = handles.get(kind_index(handling)) {
            handle.get_or_init(resolve).inc();
        }
    }
}

/// Returns the index of the handling alone, below [`HANDLINGS`].
const fn kind_index(handling: Handling) -> usize {
    match handling {
        Handling::Reuse => 0,
        Handling::ReuseThenRevalidate => 1,
        Handling::ReuseUnderPressure => 2,
        Handling::RefreshAhead => 3,
        Handling::Forward(_) => 4,
        Handling::Refuse(_) => 5,
    }
}

/// Returns the index of the handling with its reason, below [`REASONS`].
const fn reason_index(handling: Handling) -> usize {
    match handling {
        Handling::Reuse
        | Handling::ReuseThenRevalidate
        | Handling::ReuseUnderPressure
        | Handling::RefreshAhead => kind_index(handling),
        Handling::Forward(reason) => REUSES + reason as usize,
        Handling::Refuse(reason) => REUSES + ForwardReason::ALL.len() + reason as usize,
    }
}

/// Returns the index of the status code's class in [`CLASSES`]; codes beyond them count as server errors.
fn class_index(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    fn rendered(count: impl FnOnce(&RequestMetrics)) -> String {
        let mut registry = Registry::default();
        count(&RequestMetrics::register(&mut registry, &["/api/0/known/".to_owned()]));
        let mut rendered = String::new();
        text::encode(&mut rendered, &registry).unwrap();
        rendered
    }

    fn every_handling() -> Vec<Handling> {
        let mut all = vec![
            Handling::Reuse,
            Handling::ReuseThenRevalidate,
            Handling::ReuseUnderPressure,
            Handling::RefreshAhead,
        ];
        all.extend(ForwardReason::ALL.map(Handling::Forward));
        all.extend(RefusalReason::ALL.map(Handling::Refuse));
        all
    }

    #[test]
    fn every_handling_has_a_series_of_its_own() {
        let rendered = rendered(|metrics| {
            for handling in every_handling() {
                metrics.observe(handling, StatusCode::OK, Duration::from_millis(1));
            }
        });
        for handling in every_handling() {
            let (label, reason) = (handling.label(), handling.reason_label());
            let line = format!(
                "requests_total{{handling=\"{label}\",reason=\"{reason}\",status_class=\"2xx\"}} 1\n"
            );
            assert!(rendered.contains(&line), "{line}{rendered}");
        }
    }

    #[test]
    fn an_unknown_route_counts_as_other() {
        let rendered = rendered(|metrics| {
            metrics.observe_route("/api/0/known/", Handling::Reuse);
            metrics.observe_route("/api/0/organizations/secret-name/", Handling::Reuse);
            metrics.observe_route("/anything", Handling::Reuse);
        });
        assert!(rendered.contains("{route=\"/api/0/known/\",handling=\"reuse\"} 1\n"), "{rendered}");
        assert!(rendered.contains("{route=\"other\",handling=\"reuse\"} 2\n"), "{rendered}");
        assert!(!rendered.contains("secret-name"));
    }

    #[test]
    fn a_status_beyond_the_classes_is_counted_as_a_server_error() {
        assert_eq!(class_index(StatusCode::from_u16(999).unwrap()), 4);
        assert_eq!(class_index(StatusCode::CONTINUE), 0);
    }
}

//! Every metric in one place: name, unit, labels.
//!
//! Rooms count through typed methods (`metrics.requests.observe(..)`, `metrics.store.inserted()`), and know no metric's name;
//! the dashboard reads them by name, as a scraper does. A label's value is one of a closed set that is known at start, and its
//! handle is resolved once. Tests hold this table together with the registry, with what the dashboard reads and with `deploy/`:
//!
//! | Metric | Type | Labels | Counts |
//! |---|---|---|---|
//! | `sentrybox_requests_total` | counter | `handling`, `reason`, `status_class` | requests answered, and why so |
//! | `sentrybox_request_duration_seconds` | histogram | `handling` | from a request's head to its answer's head |
//! | `sentrybox_requests_by_route_total` | counter | `route`, `handling` | requests by route template |
//! | `sentrybox_response_bytes_total` | counter | `source` | bytes of answers' bodies to clients, by where they came from |
//! | `sentrybox_upstream_sent_bytes_total` | counter | | bytes of requests' bodies to upstream |
//! | `sentrybox_upstream_received_bytes_total` | counter | | bytes of answers' bodies from upstream, as they came |
//! | `sentrybox_upstream_requests_total` | counter | `outcome` | requests sent upstream, and how their answers began |
//! | `sentrybox_upstream_in_flight` | gauge | | requests upstream at this moment |
//! | `sentrybox_upstream_duration_seconds` | histogram | | from sending upstream to its answer's head |
//! | `sentrybox_upstream_wait_seconds` | histogram | | time queued for upstream capacity |
//! | `sentrybox_upstream_retries_total` | counter | | requests sent again after a pooled connection was dead |
//! | `sentrybox_upstream_repeats_total` | counter | | requests sent again after upstream refused or failed |
//! | `sentrybox_upstream_refreshes_ahead_total` | counter | `outcome` | refreshes of what was still fresh |
//! | `sentrybox_directed_requests_total` | counter | `bearing` | directions of requests, by why; one that is sent on to the control host has two |
//! | `sentrybox_regions_changes_total` | counter | `change` | changes of what is known of where organizations live |
//! | `sentrybox_regions_ignored_total` | counter | `source` | URLs of regions that are not configured, in bodies and tokens |
//! | `sentrybox_organizations_known` | gauge | | organizations whose names are known |
//! | `sentrybox_budget_waiting` | gauge | | requests that wait before they are sent |
//! | `sentrybox_budget_max_waiting` | gauge | | most requests that may wait (`budget.max_waiting`) |
//! | `sentrybox_budget_waiting_by_route` | gauge | `route` | requests that wait, for each route of which something is known |
//! | `sentrybox_budget_remaining_ratio` | gauge | `route` | least share of a limit's window that is left to anybody, from 0 to 1, for each route whose limit is known |
//! | `sentrybox_budget_gates_closed` | gauge | `kind` | limits (by a 429), routes and upstreams (by refusals or failures) that are not asked |
//! | `sentrybox_budget_held_total` | counter | `hold` | requests that had to wait before they were sent |
//! | `sentrybox_budget_not_sent_total` | counter | `hold` | requests that were not sent upstream |
//! | `sentrybox_budget_waited_seconds_total` | counter | `class` | time that requests waited for the budget |
//! | `sentrybox_saved_requests_total` | counter | `class` | requests answered without one upstream |
//! | `sentrybox_averted_refusals_total` | counter | `class` | requests that Sentry would have refused, had they been sent at once |
//! | `sentrybox_stale_responses_total` | counter | `class` | stale responses that went out |
//! | `sentrybox_store_bytes` | gauge | | weight of what is stored |
//! | `sentrybox_store_max_bytes` | gauge | | most weight that may be stored (`cache.max_bytes`) |
//! | `sentrybox_store_responses` | gauge | | responses stored |
//! | `sentrybox_store_insertions_total` | counter | | responses put into the store |
//! | `sentrybox_store_evictions_total` | counter | `cause` | responses that left the store |
//! | `sentrybox_not_stored_total` | counter | `reason` | answers that were not stored |
//! | `sentrybox_flights_total` | counter | | forwards that any number of requests may share |
//! | `sentrybox_passengers_total` | counter | | requests that joined a flight already in the air |
//! | `sentrybox_flights_lost_total` | counter | | flights that never landed |
//! | `sentrybox_invalidations_total` | counter | `cause` | invalidations |
//! | `sentrybox_purged_total` | counter | | stored responses that operators' purges made stale or unusable |
//! | `sentrybox_background_refreshes_total` | counter | `outcome` | refreshes behind a stale answer |
//! | `sentrybox_connections_open` | gauge | `listener` | connections open at this moment |
//! | `sentrybox_connections_total` | counter | `listener` | connections accepted |
//! | `sentrybox_connections_ended_total` | counter | `cause` | connections that ended, and how |
//! | `sentrybox_connections_turned_away_total` | counter | `cause` | connections that were answered with 503, because there was no place for them |
//! | `sentrybox_webhooks_total` | counter | `outcome` | webhooks, and what became of them |
//! | `sentrybox_config_generation` | gauge | | configurations that have held since the start, the one of the start included |
//! | `sentrybox_config_last_reload_successful` | gauge | | 1 if the last reload was accepted, 0 if it was rejected |
//! | `sentrybox_config_last_reload_success_timestamp_seconds` | gauge | | last reload that was accepted, or the start, since the Unix epoch |
//! | `sentrybox_config_reloads_total` | counter | `outcome` | configurations that were read anew, and what became of them |
//! | `sentrybox_certificate_reloads_total` | counter | `outcome` | certificates of the listener that were read anew, and what became of them |
//! | `sentrybox_log_lines_lost_total` | counter | | log lines that could not be written: the disk is full, or nobody reads them |
//! | `sentrybox_log_lines_suppressed_total` | counter | | log lines that were left out, because there were too many of their kind |
//! | `sentrybox_trace_spans_total` | counter | `outcome` | spans that ended, and what became of them |
//! | `sentrybox_accept_errors_total` | counter | | failed attempts to accept a connection |
//! | `sentrybox_panics_total` | counter | | requests whose work panicked: defects of ours |
//! | `sentrybox_build_info` | gauge | `version` | always 1 |
//! | `sentrybox_allocator_allocated_bytes` | gauge | | bytes that the process asked of its allocator |
//! | `sentrybox_allocator_resident_bytes` | gauge | | bytes that the allocator holds in memory |
//! | `process_cpu_seconds_total` | counter | | processor time, user and system |
//! | `process_resident_memory_bytes` | gauge | | resident memory |
//! | `process_open_fds` | gauge | | open file descriptors |
//! | `process_start_time_seconds` | gauge | | start of the process, since the Unix epoch |
//!
//! Invariant: no label's value comes from a request; an unknown route counts as `other`.
//! Not here: serving them (`admin`), the clock (durations are handed in).

use std::time::SystemTime;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::handling::{Handling, RefusalReason};
use crate::metrics::budget::BudgetMetrics;
use crate::metrics::bytes::ByteMetrics;
use crate::metrics::connections::ConnectionMetrics;
use crate::metrics::exposition::Exposition;
use crate::metrics::process::Process;
use crate::metrics::regions::RegionMetrics;
use crate::metrics::reloads::ReloadMetrics;
use crate::metrics::requests::RequestMetrics;
use crate::metrics::store::{FlightMetrics, StoreMetrics};
use crate::metrics::traces::TraceMetrics;
use crate::metrics::upstream::UpstreamMetrics;
use crate::metrics::webhooks::WebhookMetrics;

pub mod budget;
pub mod budget_levels;
pub mod bytes;
pub mod closed;
pub mod connections;
pub mod exposition;
pub mod levels;
pub mod process;
pub mod regions;
pub mod reloads;
pub mod requests;
pub mod store;
pub mod traces;
pub mod upstream;
pub mod webhooks;

/// Upper bounds of the duration buckets, in seconds: from a hit in memory to the slowest answer we wait for.
pub const BUCKETS: [f64; 19] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

/// The values of the labels that a configuration makes.
#[derive(Debug, Clone, Default)]
pub struct LabelValues {
    /// Route templates: the values of `route`, besides `other`.
    pub routes: Vec<String>,
    /// Classes: the values of `class`, besides `other`.
    pub classes: Vec<String>,
}

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    panics: Counter,
    suppressed_lines: Counter,
    lost_lines: Counter,
    /// What clients asked, and what became of it.
    pub requests: RequestMetrics,
    /// What upstream was asked.
    pub upstream: UpstreamMetrics,
    /// Where requests go.
    pub regions: RegionMetrics,
    /// What the budget spared it.
    pub budget: BudgetMetrics,
    /// What is stored.
    pub store: StoreMetrics,
    /// How much passes.
    pub bytes: ByteMetrics,
    /// What was collapsed.
    pub flights: FlightMetrics,
    /// Who is connected.
    pub connections: ConnectionMetrics,
    /// What Sentry said has changed.
    pub webhooks: WebhookMetrics,
    /// What became of the configuration.
    pub reloads: ReloadMetrics,
    /// What became of spans.
    pub traces: TraceMetrics,
}

impl Metrics {
    /// Registers every metric.
    pub fn new(started: SystemTime, labels: &LabelValues) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::started(started)));
        let ours = registry.sub_registry_with_prefix("sentrybox");
        let panics = counter(ours, "panics", "Requests whose work panicked");
        let lost_lines = counter(ours, "log_lines_lost", "Log lines that could not be written");
        let suppressed_lines = counter(ours, "log_lines_suppressed", "Log lines that were left out");
        let build: Family<[(&'static str, &'static str); 1], Gauge> = Family::default();
        build.get_or_create_owned(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        ours.register("build_info", "The running version", build);
        Self {
            panics,
            suppressed_lines,
            lost_lines,
            requests: RequestMetrics::register(ours, &labels.routes),
            upstream: UpstreamMetrics::register(ours),
            regions: RegionMetrics::register(ours),
            budget: BudgetMetrics::register(ours, &labels.classes),
            store: StoreMetrics::register(ours),
            bytes: ByteMetrics::register(ours),
            flights: FlightMetrics::register(ours),
            connections: ConnectionMetrics::register(ours),
            webhooks: WebhookMetrics::register(ours),
            reloads: ReloadMetrics::register(ours, started),
            traces: TraceMetrics::register(ours),
            registry,
        }
    }

    /// Counts a request whose work panicked.
    pub fn panicked(&self) {
        self.panics.inc();
        let reason = RefusalReason::InternalError;
        self.requests.count(Handling::Refuse(reason), reason.status());
    }

    /// Counts a request that was still in work when the shutdown's deadline passed.
    pub fn cut_by_shutdown(&self) {
        let reason = RefusalReason::ShuttingDown;
        self.requests.count(Handling::Refuse(reason), reason.status());
    }

    /// Counts a log line that was left out.
    pub fn line_suppressed(&self) {
        self.suppressed_lines.inc();
    }

    /// Counts log lines that could not be written.
    pub fn lines_lost(&self, lines: u64) {
        self.lost_lines.inc_by(lines);
    }

    /// Renders every metric.
    pub fn encode(&self, exposition: Exposition) -> String {
        let mut rendered = String::new();
        // Writing to a string cannot fail; a collector that fails leaves out its own lines.
        let _ = text::encode(&mut rendered, &self.registry);
        exposition.adapt(rendered)
    }
}

/// Registers a counter without labels.
fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// Creates a histogram of durations, in seconds.
fn durations() -> Histogram {
    Histogram::new(BUCKETS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, UNIX_EPOCH};

    use http::StatusCode;

    use super::*;
    use crate::metrics::budget_levels::{BudgetLevels, ClosedGates, RouteLevel};
    use crate::metrics::store::StoreLevels;

    /// One row: the metric's type and its labels.
    type Table = BTreeMap<String, (String, Vec<String>)>;

    fn documented() -> Table {
        let rows = include_str!("metrics.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        rows.map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
            let name = cells.next().unwrap();
            let kind = cells.next().unwrap();
            let labels = cells.next().unwrap();
            let labels = labels.split("`, `").filter(|label| !label.is_empty()).map(str::to_owned).collect();
            (name, (kind, labels))
        })
        .collect()
    }

    fn registered(rendered: &str) -> Table {
        let mut table = Table::new();
        for line in rendered.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let sample = rendered.lines().find(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', '_'].as_slice()))
            });
            let sample = sample.unwrap_or_else(|| panic!("{name} has no sample"));
            let labels = sample.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let labels = labels.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
            let labels = labels.filter(|label| *label != "le").map(str::to_owned).collect();
            table.insert(name.to_owned(), (kind.to_owned(), labels));
        }
        table
    }

    fn touched() -> Metrics {
        let metrics = Metrics::new(
            UNIX_EPOCH + Duration::from_hours(1),
            &LabelValues { routes: vec!["/api/0/known/".to_owned()], ..LabelValues::default() },
        );
        metrics.requests.observe(Handling::Reuse, StatusCode::OK, Duration::from_micros(70));
        metrics.requests.observe_route("/api/0/known/", Handling::Reuse);
        metrics.store.measure_with(Box::new(|| StoreLevels { bytes: 7, max_bytes: 8, responses: 3 }));
        metrics.budget.measure_with(Box::new(|| BudgetLevels {
            waiting: 5,
            max_waiting: 6,
            closed: ClosedGates { limits: 2, routes: 0, upstreams: 1 },
            routes: vec![RouteLevel { route: "/api/0/known/".to_owned(), remaining: Some(0.25), waiting: 4 }],
        }));
        metrics.regions.measure_with(Box::new(|| 9));
        metrics
    }

    #[test]
    fn the_documented_table_and_the_registry_agree() {
        assert_eq!(registered(&touched().encode(Exposition::Text)), documented());
    }

    #[test]
    fn no_two_metrics_share_a_family_name() {
        let rendered = touched().encode(Exposition::OpenMetrics);
        let mut names: Vec<&str> = rendered
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_panic_counts_as_a_refused_request_too() {
        let metrics = touched();
        metrics.panicked();
        let rendered = metrics.encode(Exposition::OpenMetrics);
        assert!(rendered.contains("sentrybox_panics_total 1\n"));
        let line = "sentrybox_requests_total{handling=\"refuse\",reason=\"internal-error\",status_class=\"5xx\"} 1\n";
        assert!(rendered.contains(line), "{rendered}");
    }

    #[test]
    fn levels_are_read_at_each_scrape() {
        let rendered = touched().encode(Exposition::OpenMetrics);
        assert!(rendered.contains("sentrybox_store_bytes 7\n"));
        assert!(rendered.contains("sentrybox_store_responses 3\n"));
        assert!(rendered.contains("sentrybox_budget_waiting 5\n"));
        assert!(rendered.contains("sentrybox_budget_gates_closed{kind=\"limit\"} 2\n"));
        assert!(rendered.contains("sentrybox_budget_gates_closed{kind=\"upstream\"} 1\n"));
        assert!(rendered.contains("sentrybox_budget_remaining_ratio{route=\"/api/0/known/\"} 0.25\n"));
        assert!(rendered.contains("sentrybox_budget_waiting_by_route{route=\"/api/0/known/\"} 4\n"));
        assert!(rendered.contains("sentrybox_organizations_known 9\n"));
    }

    #[test]
    fn the_version_is_told() {
        let line = format!("sentrybox_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
        assert!(touched().encode(Exposition::Text).contains(&line));
    }
}

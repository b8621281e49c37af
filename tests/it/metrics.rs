//! Every metric moves: for each row of the table at the head of `src/metrics.rs` there is a test that moves it.
//!
//! Most are moved here, in scenes of the corridor: [`MOVED_HERE`] names them, and each scene fails unless all of its own
//! moved. What a connection, a webhook or the process moves stands in [`MOVED_ELSEWHERE`].

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use http::Method;
use sentrybox::cache::generations::PurgeDepth;
use sentrybox::cache::invalidation::selector::Selector;
use sentrybox::config::Routing;
use sentrybox::metrics::exposition::Exposition;
use tokio::time::sleep;

use crate::support::corridor::{ALICE, House, PROJECTS, Verdict, asking, is_hit};
use crate::support::limited::LimitedSentry;
use crate::support::scripted::Act;

const SECOND: Duration = Duration::from_secs(1);
const LATENCY: Duration = Duration::from_millis(20);

/// What each scene moves.
const BY_A_MISS: &[&str] = &[
    "sentrybox_requests_total",
    "sentrybox_requests_by_route_total",
    "sentrybox_request_duration_seconds",
    "sentrybox_response_bytes_total",
    "sentrybox_upstream_received_bytes_total",
    "sentrybox_upstream_requests_total",
    "sentrybox_upstream_duration_seconds",
    "sentrybox_upstream_wait_seconds",
    "sentrybox_directed_requests_total",
    "sentrybox_budget_remaining_ratio",
    "sentrybox_store_bytes",
    "sentrybox_store_responses",
    "sentrybox_store_insertions_total",
    "sentrybox_flights_total",
];
const BY_A_HIT: &[&str] =
    &["sentrybox_saved_requests_total", "sentrybox_requests_total", "sentrybox_response_bytes_total"];
const BY_A_WRITE: &[&str] = &["sentrybox_upstream_sent_bytes_total", "sentrybox_invalidations_total"];
const BY_A_CROWD: &[&str] = &["sentrybox_passengers_total"];
const BY_A_LONG_ANSWER: &[&str] = &["sentrybox_upstream_in_flight"];
const BY_A_DEAD_CONNECTION: &[&str] = &["sentrybox_upstream_retries_total"];
const BY_A_PAGE_OF_AN_EDGE: &[&str] = &["sentrybox_upstream_repeats_total"];
const BY_STALENESS: &[&str] = &["sentrybox_background_refreshes_total", "sentrybox_stale_responses_total"];
const BY_POPULARITY: &[&str] = &["sentrybox_upstream_refreshes_ahead_total"];
const BY_A_REFUSAL: &[&str] = &["sentrybox_budget_gates_closed", "sentrybox_budget_not_sent_total"];
const BY_A_LINE: &[&str] = &["sentrybox_budget_waiting", "sentrybox_budget_waiting_by_route"];
const BY_THE_END_OF_A_LINE: &[&str] = &[
    "sentrybox_budget_held_total",
    "sentrybox_budget_waited_seconds_total",
    "sentrybox_averted_refusals_total",
];
const BY_A_COOKIE: &[&str] = &["sentrybox_not_stored_total"];
const BY_A_PANIC: &[&str] = &["sentrybox_flights_lost_total"];
const BY_A_PURGE: &[&str] = &["sentrybox_purged_total", "sentrybox_store_evictions_total"];
const BY_A_LIST: &[&str] =
    &["sentrybox_regions_changes_total", "sentrybox_regions_ignored_total", "sentrybox_organizations_known"];
const BY_CONFIGURATION: &[&str] = &["sentrybox_store_max_bytes", "sentrybox_budget_max_waiting"];

const MOVED_HERE: &[&[&str]] = &[
    BY_A_MISS,
    BY_A_HIT,
    BY_A_WRITE,
    BY_A_CROWD,
    BY_A_LONG_ANSWER,
    BY_A_DEAD_CONNECTION,
    BY_A_PAGE_OF_AN_EDGE,
    BY_STALENESS,
    BY_POPULARITY,
    BY_A_REFUSAL,
    BY_A_LINE,
    BY_THE_END_OF_A_LINE,
    BY_A_COOKIE,
    BY_A_PANIC,
    BY_A_PURGE,
    BY_A_LIST,
    BY_CONFIGURATION,
];

/// What is moved by tests of other files, and in which; these name it where they look at it.
const MOVED_ELSEWHERE: &[(&str, &str)] = &[
    ("sentrybox_connections_open", "src/server.rs"),
    ("sentrybox_connections_total", "src/server.rs"),
    ("sentrybox_connections_ended_total", "src/server.rs"),
    ("sentrybox_connections_turned_away_total", "src/server.rs"),
    ("sentrybox_certificate_reloads_total", "tests/it/end_to_end/listening.rs"),
    ("sentrybox_panics_total", "src/server.rs"),
    ("sentrybox_webhooks_total", "tests/it/end_to_end/webhooks.rs"),
    ("sentrybox_accept_errors_total", "tests/it/end_to_end/operating.rs"),
    ("sentrybox_allocator_allocated_bytes", "tests/it/end_to_end/operating.rs"),
    ("sentrybox_allocator_resident_bytes", "tests/it/end_to_end/operating.rs"),
    ("process_cpu_seconds_total", "tests/it/end_to_end/operating.rs"),
    ("process_open_fds", "tests/it/end_to_end/operating.rs"),
    ("process_resident_memory_bytes", "tests/it/end_to_end/operating.rs"),
    ("process_start_time_seconds", "tests/it/end_to_end/operating.rs"),
    ("sentrybox_config_generation", "tests/it/end_to_end/reloading.rs"),
    ("sentrybox_config_last_reload_successful", "tests/it/end_to_end/reloading.rs"),
    ("sentrybox_config_last_reload_success_timestamp_seconds", "tests/it/end_to_end/reloading.rs"),
    ("sentrybox_config_reloads_total", "tests/it/end_to_end/reloading.rs"),
    ("sentrybox_log_lines_lost_total", "tests/it/end_to_end/unread_logs.rs"),
    ("sentrybox_log_lines_suppressed_total", "tests/it/end_to_end/logs.rs"),
    ("sentrybox_trace_spans_total", "tests/it/traces.rs"),
    ("sentrybox_build_info", "src/metrics.rs"),
];

/// Returns the sum of all that a metric says, of a histogram the number of observations; what is not there yet is nothing.
fn level(house: &House, name: &str) -> f64 {
    let rendered = house.proxy.metrics().encode(Exposition::Text);
    let mut level = 0.0;
    for line in rendered.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let rest = rest.strip_prefix("_count").unwrap_or(rest);
        if rest.starts_with(['{', ' ']) {
            level += rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        }
    }
    level
}

/// What some metrics say at a moment.
struct Levels<'a> {
    house: &'a House,
    names: &'static [&'static str],
    before: Vec<f64>,
}

impl<'a> Levels<'a> {
    fn before(house: &'a House, names: &'static [&'static str]) -> Self {
        Self { house, names, before: names.iter().map(|name| level(house, name)).collect() }
    }

    /// Fails unless each of them says something else now.
    fn assert_moved(self) {
        for (name, before) in self.names.iter().zip(self.before) {
            let after = level(self.house, name);
            assert!((after - before).abs() > 0.0, "{name} stays at {after}");
        }
    }
}

fn house_before(sentry: &LimitedSentry) -> House {
    let house = House::new();
    let sentry = sentry.clone();
    house.upstream.improvises(move |received| sentry.answer(received));
    house
}

#[test]
fn every_metric_of_the_table_is_moved_by_a_test() {
    let table = fs::read_to_string("src/metrics.rs").unwrap();
    let documented: BTreeSet<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `")?.split('`').next())
        .map(ToOwned::to_owned)
        .collect();
    let here = MOVED_HERE.iter().copied().flatten().map(|name| (*name).to_owned());
    let elsewhere = MOVED_ELSEWHERE.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(here.chain(elsewhere).collect::<BTreeSet<_>>(), documented);
    for (name, path) in MOVED_ELSEWHERE {
        let text = fs::read_to_string(path).unwrap();
        let tests = if path.starts_with("src/") { text.split_once("#[cfg(test)]").unwrap().1 } else { &text };
        let ends = ["{", " ", "\""];
        assert!(
            ends.iter().any(|end| tests.contains(&format!("{name}{end}"))),
            "{path} does not look at {name}"
        );
    }
}

#[test]
fn every_metric_that_the_dashboard_reads_is_in_the_table() {
    let table = fs::read_to_string("src/metrics.rs").unwrap();
    let files = fs::read_dir("src/admin/dashboard").unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for name in code.split('"').filter(|literal| literal.starts_with("sentrybox_")) {
            assert!(table.contains(&format!("//! | `{name}` |")), "{path:?} reads {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_miss_and_then_a_hit_are_counted() {
    let house = house_before(&LimitedSentry::new(40, 25, LATENCY));
    let levels = Levels::before(&house, BY_A_MISS);
    house.get(PROJECTS).await;
    house.proxy.store().tidy().await;
    levels.assert_moved();
    let levels = Levels::before(&house, BY_A_HIT);
    assert!(is_hit(&house.get(PROJECTS).await));
    levels.assert_moved();
}

#[tokio::test(start_paused = true)]
async fn a_write_is_counted() {
    let house = House::new();
    let levels = Levels::before(&house, BY_A_WRITE);
    house.put(PROJECTS).await;
    levels.assert_moved();
}

#[tokio::test(start_paused = true)]
async fn a_crowd_and_what_is_under_way_are_counted() {
    let house = House::without_limits(|_| {}).await;
    house.upstream.plays(PROJECTS, Act::json("[]").after(SECOND));
    let (crowd, under_way) = (Levels::before(&house, BY_A_CROWD), Levels::before(&house, BY_A_LONG_ANSWER));
    let asking = house.crowd(2, PROJECTS, &[]);
    sleep(LATENCY).await;
    under_way.assert_moved();
    crowd.assert_moved();
    asking.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_is_counted() {
    let house = House::without_limits(|_| {}).await;
    let levels = Levels::before(&house, BY_A_DEAD_CONNECTION);
    house.upstream.plays_once(PROJECTS, Act::json("[]").on_attempt(2));
    house.get(PROJECTS).await;
    levels.assert_moved();
    let levels = Levels::before(&house, BY_A_PAGE_OF_AN_EDGE);
    let other = "/api/0/organizations/acme/teams/";
    house.upstream.plays_once(other, Act::bytes("<html>").with_status(503).with("content-type", "text/html"));
    house.get(other).await;
    levels.assert_moved();
}

#[tokio::test(start_paused = true)]
async fn a_refresh_behind_a_stale_answer_and_one_ahead_are_counted() {
    let house = House::without_limits(|_| {}).await;
    for _ in 0..4 {
        house.get(PROJECTS).await;
    }
    let levels = Levels::before(&house, BY_POPULARITY);
    sleep(Duration::from_secs(109)).await;
    assert_eq!(Verdict::of(&house.get(PROJECTS).await).word("detail"), "refresh-ahead");
    sleep(SECOND).await;
    levels.assert_moved();
    let levels = Levels::before(&house, BY_STALENESS);
    sleep(Duration::from_secs(130)).await;
    assert_eq!(Verdict::of(&house.get(PROJECTS).await).word("detail"), "stale-while-revalidate");
    sleep(SECOND).await;
    levels.assert_moved();
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_and_what_is_not_sent_are_counted() {
    let house = House::new();
    house.upstream.plays(
        PROJECTS,
        Act::status(429, "{}").with("retry-after", "60").with("x-sentry-rate-limit-remaining", "0"),
    );
    let levels = Levels::before(&house, BY_A_REFUSAL);
    assert_eq!(house.get(PROJECTS).await.status.as_u16(), 429);
    assert_eq!(house.get("/api/0/organizations/other/projects/").await.status.as_u16(), 429);
    levels.assert_moved();
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_counted_while_they_wait_and_after() {
    let house = house_before(&LimitedSentry::new(3, 3, LATENCY));
    for number in 0..3 {
        house.get(&format!("{PROJECTS}?query={number}")).await;
    }
    let (line, ended) = (Levels::before(&house, BY_A_LINE), Levels::before(&house, BY_THE_END_OF_A_LINE));
    let waiting = house.crowd(1, &format!("{PROJECTS}?query=waiting"), &[]);
    sleep(Duration::from_millis(1)).await;
    line.assert_moved();
    waiting.join_all().await;
    ended.assert_moved();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_stored_and_what_never_lands_are_counted() {
    let house = House::without_limits(|_| {}).await;
    let levels = Levels::before(&house, BY_A_COOKIE);
    house.upstream.plays_once(PROJECTS, Act::json("[]").with("cache-control", "no-store"));
    house.get(PROJECTS).await;
    levels.assert_moved();
    let levels = Levels::before(&house, BY_A_PANIC);
    let other = "/api/0/organizations/acme/teams/";
    house.upstream.plays_once(other, Act::panic());
    assert_eq!(house.get(other).await.status.as_u16(), 500);
    levels.assert_moved();
}

#[tokio::test(start_paused = true)]
async fn a_purge_and_what_leaves_the_store_are_counted() {
    let house = House::without_limits(|_| {}).await;
    house.get(PROJECTS).await;
    house.proxy.store().tidy().await;
    let levels = Levels::before(&house, BY_A_PURGE);
    let acme = Selector::Organization("acme".to_owned());
    assert_eq!(house.proxy.purge_selected(&acme, PurgeDepth::Hard).await, Ok(1));
    levels.assert_moved();
}

#[tokio::test(start_paused = true)]
async fn what_is_learned_of_regions_is_counted() {
    let house = House::with(|config| config.upstream.routing = Routing::ByOrganization);
    let list = "/api/0/organizations/";
    let organization = |slug: &str, region: &str| {
        format!(
            r#"{{"id":"7","slug":"{slug}","links":{{"organizationUrl":"https://a.sentry.io","regionUrl":"{region}"}}}}"#
        )
    };
    let (known, foreign) =
        (organization("acme", "https://us.sentry.io"), organization("bolt", "https://elsewhere.example"));
    house.upstream.plays(list, Act::json(format!("[{known},{foreign}]")));
    let levels = Levels::before(&house, BY_A_LIST);
    house.get(list).await;
    levels.assert_moved();
}

#[tokio::test(start_paused = true)]
async fn bounds_are_those_of_the_configuration() {
    let (house, smaller) = (
        House::new(),
        House::with(|config| {
            config.cache.max_bytes = "64MiB".parse().unwrap();
            config.budget.max_waiting = 7;
        }),
    );
    for name in BY_CONFIGURATION {
        assert!(level(&smaller, name) < level(&house, name), "{name}");
    }
}

/// Nothing that a request says becomes a label: however many paths and tokens there are, the series stay the same.
#[tokio::test(start_paused = true)]
async fn paths_and_tokens_make_no_series() {
    let house = House::without_limits(|_| {}).await;
    let ask = async |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let target = match number % 3 {
                0 => format!("/api/0/organizations/o{number}/projects/"),
                1 => format!("/api/0/organizations/acme/p{number}/q{number}/"),
                _ => format!("/api/0/n{number}/?a={number}"),
            };
            let credential = format!("{ALICE}{number}");
            let request = asking(Method::GET, &target, &[("authorization", &credential)], "");
            house.serve(request).await;
        }
        house.proxy.metrics().encode(Exposition::Text).lines().filter(|line| !line.starts_with('#')).count()
    };
    let few = ask(0..300).await;
    assert_eq!(ask(300..3_000).await, few);
}

//! What the values of a configuration must satisfy beyond their types, alone and together.
//!
//! Invariant: pure; every rule that is broken is found, not only the first.
//! Not here: types and unknown keys (`load`); the grammar of route templates (`routes::compile`).

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;
use http::uri::Authority;

use crate::config::cache::{CacheConfig, RuleConfig};
use crate::config::control::{control_url, is_sentrys_own};
use crate::config::describe::found_text;
use crate::config::{Config, Routing, UpstreamConfig};

pub mod listeners;

/// Shortest secret, in characters.
pub const MIN_SECRET: usize = 32;
/// Shortest token of the admin listener, in characters.
const MIN_TOKEN: usize = 16;
/// Shortest secret of webhooks, in characters. Sentry's own have 64.
const MIN_WEBHOOK_SECRET: usize = 16;
/// Longest duration: a year, which is as good as forever to a cache, and cannot overflow a clock.
const MAX_DURATION: Duration = Duration::from_hours(366 * 24);
/// Largest number of connections or requests: more than any process can hold.
const MAX_COUNT: usize = 1_000_000;

/// A rule that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The keys whose values break it together; the first is the one to change.
    pub keys: Vec<String>,
    /// What was expected.
    pub expected: String,
}

impl Finding {
    /// Returns a finding about the values of `keys`.
    pub fn of(keys: &[&str], expected: String) -> Self {
        Self { keys: keys.iter().map(|key| (*key).to_owned()).collect(), expected }
    }

    /// Returns whether this is about `key`, something in it, or a section that holds it.
    pub fn is_about(&self, key: &str) -> bool {
        let is_within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !key.is_empty() && self.keys.iter().any(|own| is_within(own, key) || is_within(key, own))
    }
}

/// Returns every rule that `config` breaks.
pub fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    secrets(config, &mut findings);
    aliases(config, &mut findings);
    findings.extend(config.access.findings(&config.secret));
    urls(config, &mut findings);
    listeners::find(config, &mut findings);
    durations(config, &mut findings);
    amounts(config, &mut findings);
    findings.extend(config.traces.findings());
    for (index, rule) in config.cache.rules.iter().enumerate() {
        findings.extend(rule_finding(index, rule, &config.cache));
    }
    findings
}

fn secrets(config: &Config, findings: &mut Vec<Finding>) {
    let secret = config.secret.expose();
    if !secret.is_empty() && secret.chars().count() < MIN_SECRET {
        let expected = format!("expected a secret of at least {MIN_SECRET} characters, or an empty one");
        findings.push(Finding::of(&["secret", "secret_file"], expected));
    }
    let token = config.admin.token.expose();
    let is_sendable = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !token.is_empty() && (token.len() < MIN_TOKEN || !is_sendable) {
        let expected =
            format!("expected a token of at least {MIN_TOKEN} visible ASCII characters without spaces");
        findings.push(Finding::of(&["admin.token", "admin.token_file"], expected));
    }
    webhook_secret(config, findings);
}

fn webhook_secret(config: &Config, findings: &mut Vec<Finding>) {
    let secret = config.webhooks.secret.expose();
    let is_short = !secret.is_empty() && secret.chars().count() < MIN_WEBHOOK_SECRET;
    let expected = if is_short {
        format!("expected a secret of at least {MIN_WEBHOOK_SECRET} characters, or an empty one")
    } else if secret.is_empty() && config.webhooks.address.is_some() {
        "expected a secret or secret_file, because webhooks.address is set".to_owned()
    } else {
        return;
    };
    let keys = ["webhooks.secret", "webhooks.secret_file", "webhooks.address"];
    findings.push(Finding::of(&keys, expected));
}

fn control_host(upstream: &UpstreamConfig, findings: &mut Vec<Finding>) {
    let chosen = match upstream.regions.get(&upstream.region) {
        _ if !upstream.url.is_empty() => &upstream.url,
        Some(url) => url,
        // That is a finding of its own.
        None => return,
    };
    if upstream.routing == Routing::ByOrganization && control_url(upstream).is_none() {
        let expected = "expected the URL of a control host, because upstream.routing = \"by-organization\" asks it for the \
                        list of organizations, and where one lives that is not known yet"
            .to_owned();
        findings.push(Finding::of(&["upstream.control", "upstream.routing"], expected));
    }
    let is_own = !upstream.control.is_empty() && !is_sentrys_own(&upstream.control);
    if is_own && is_sentrys_own(chosen) {
        let expected = format!(
            "expected the URL of your Sentry, because upstream.control is not one of Sentry's own hosts: what names no \
             organization would go to {chosen}"
        );
        findings.push(Finding::of(&["upstream.url", "upstream.region", "upstream.control"], expected));
    }
}

fn aliases(config: &Config, findings: &mut Vec<Finding>) {
    let aliases = &config.budget.aliases;
    if !aliases.is_empty() && config.secret.is_empty() {
        // Fingerprints change with each start then.
        let expected = format!(
            "expected a secret of at least {MIN_SECRET} characters, because budget.aliases names fingerprints"
        );
        findings.push(Finding::of(&["secret", "secret_file"], expected));
    }
    let mut seen = BTreeMap::new();
    for (name, fingerprints) in aliases {
        if name.starts_with("sntry") {
            // It may be a token: it is not repeated.
            let expected = "expected a name for the tokens of one user, not a token".to_owned();
            findings.push(Finding::of(&["budget.aliases"], expected));
            continue;
        }
        for (index, fingerprint) in fingerprints.iter().enumerate() {
            let key = format!("budget.aliases.{name}.{index}");
            let is_one = is_fingerprint(fingerprint);
            let former = is_one.then(|| seen.insert(fingerprint.to_ascii_lowercase(), name)).flatten();
            let expected = match (is_one, former) {
                (true, None) => continue,
                (true, Some(former)) => format!("expected every fingerprint once; it is in {former} already"),
                // What stands there may be a token, too.
                (false, _) => {
                    "expected a fingerprint of 16 hexadecimal digits, as `sentrybox fingerprint` tells it"
                        .to_owned()
                }
            };
            findings.push(Finding::of(&[&key], expected));
        }
    }
}

/// Returns whether a text has the shape of a fingerprint.
pub fn is_fingerprint(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn urls(config: &Config, findings: &mut Vec<Finding>) {
    let upstream = &config.upstream;
    let optional = [
        ("public_url", &config.public_url),
        ("upstream.url", &upstream.url),
        ("upstream.control", &upstream.control),
    ];
    for (key, url) in optional {
        if !url.is_empty() {
            findings.extend(url_finding(key, url));
        }
    }
    for (name, url) in &upstream.regions {
        findings.extend(url_finding(&format!("upstream.regions.{name}"), url));
    }
    if upstream.url.is_empty() && !upstream.regions.contains_key(&upstream.region) {
        let known: Vec<&str> = upstream.regions.keys().map(String::as_str).collect();
        let found = found_text(&upstream.region);
        let expected = format!("expected the name of a region, one of {}{found}", known.join(", "));
        findings.push(Finding::of(&["upstream.region", "upstream.regions"], expected));
    }
    control_host(upstream, findings);
    for (index, host) in upstream.link_hosts.iter().enumerate() {
        if !is_authority(host) {
            let expected = format!(
                "expected a host, perhaps with a port, such as \"sentry.example\"{}",
                found_text(host)
            );
            findings.push(Finding::of(&[&format!("upstream.link_hosts.{index}")], expected));
        }
    }
}

fn url_finding(key: &str, url: &str) -> Option<Finding> {
    let expected = format!(
        "expected an http or https URL without path, query or user, such as \"https://sentry.io\"{}",
        found_text(url)
    );
    (!is_base_url(url)).then(|| Finding::of(&[key], expected))
}

/// Returns whether `text` is a scheme that we speak and an authority, and nothing else but a slash.
fn is_base_url(text: &str) -> bool {
    // `http::Uri` drops a fragment without a word.
    let Ok(uri) = text.parse::<Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.authority().is_some_and(|authority| is_authority(authority.as_str()))
        && uri.path() == "/"
        && uri.query().is_none()
        && !text.contains(['#', '?'])
}

/// Returns whether `text` is a host with or without a port, and without a user.
fn is_authority(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let is_port_sound = authority.host().len() == text.len() || authority.port_u16().is_some();
    !text.contains('@') && !authority.host().is_empty() && is_port_sound
}

fn durations(config: &Config, findings: &mut Vec<Finding>) {
    let (listen, upstream, cache) = (&config.listen, &config.upstream, &config.cache);
    let positive = [
        ("listen.first_byte_timeout", listen.first_byte_timeout),
        ("listen.header_read_timeout", listen.header_read_timeout),
        ("listen.idle_timeout", listen.idle_timeout),
        ("upstream.connect_timeout", upstream.connect_timeout),
        ("upstream.first_byte_timeout", upstream.first_byte_timeout),
        ("upstream.idle_timeout", upstream.idle_timeout),
        ("upstream.total_timeout", upstream.total_timeout),
        ("upstream.pool_idle_timeout", upstream.pool_idle_timeout),
        ("cache.flight_timeout", cache.flight_timeout),
        ("traces.timeout", config.traces.timeout),
    ];
    for (key, _) in positive.into_iter().filter(|(_, duration)| duration.is_zero()) {
        findings.push(Finding::of(&[key], "expected a duration longer than zero".to_owned()));
    }
    let others = [
        ("listen.max_connection_age", listen.max_connection_age),
        ("cache.settle", cache.settle),
        ("cache.negative_fresh_for", cache.negative_fresh_for),
        ("cache.max_unverified", cache.max_unverified),
        ("cache.rejection_memory", cache.rejection_memory),
        ("budget.max_wait", config.budget.max_wait),
        ("reload.poll", config.reload.poll),
        ("shutdown.grace", config.shutdown.grace),
    ];
    let all = positive.into_iter().chain(others).map(|(key, duration)| (key.to_owned(), duration));
    for (key, _) in all.chain(lifetimes(cache)).filter(|(_, duration)| *duration > MAX_DURATION) {
        findings.push(Finding::of(&[&key], "expected a duration of at most a year".to_owned()));
    }
    if upstream.first_byte_timeout > upstream.total_timeout {
        let keys = ["upstream.first_byte_timeout", "upstream.total_timeout"];
        findings.push(Finding::of(
            &keys,
            "expected upstream.first_byte_timeout to be at most upstream.total_timeout".to_owned(),
        ));
    }
}

/// Returns every duration of every class with its key.
fn lifetimes(cache: &CacheConfig) -> impl Iterator<Item = (String, Duration)> {
    cache.classes.iter().flat_map(|(name, class)| {
        let fresh_for = class.fresh_for.map(|duration| ("fresh_for", duration));
        let windows = [
            ("stale_while_revalidate", class.stale_while_revalidate),
            ("stale_if_error", class.stale_if_error.unwrap_or_default()),
        ];
        let key = move |(field, duration)| (format!("cache.classes.{name}.{field}"), duration);
        fresh_for.into_iter().chain(windows).map(key)
    })
}

fn amounts(config: &Config, findings: &mut Vec<Finding>) {
    let counts = [
        ("listen.max_connections", config.listen.max_connections),
        ("listen.max_resets_per_second", config.listen.max_resets_per_second as usize),
        ("listen.max_target_bytes", config.listen.max_target_bytes),
        ("listen.max_pending_requests", config.listen.max_pending_requests),
        ("budget.max_concurrent", config.budget.max_concurrent),
        ("budget.max_waiting", config.budget.max_waiting),
    ];
    for (key, count) in counts.into_iter().filter(|(_, count)| !(1..=MAX_COUNT).contains(count)) {
        let expected = format!("expected a number from 1 to {MAX_COUNT}, found {count}");
        findings.push(Finding::of(&[key], expected));
    }
    if config.cache.max_response_bytes > config.cache.max_bytes {
        let keys = ["cache.max_response_bytes", "cache.max_bytes"];
        findings.push(Finding::of(
            &keys,
            "expected cache.max_response_bytes to be at most cache.max_bytes".to_owned(),
        ));
    }
}

fn rule_finding(index: usize, rule: &RuleConfig, cache: &CacheConfig) -> Option<Finding> {
    let key = |field: &str| format!("cache.rules.{index}.{field}");
    if !rule.route.starts_with("/api/0/") {
        let expected = format!("expected a template that begins with /api/0/{}", found_text(&rule.route));
        return Some(Finding::of(&[&key("route")], expected));
    }
    match (&rule.class, rule.never) {
        (Some(_), true) => {
            let expected = "expected either `class` or `never`, found both".to_owned();
            Some(Finding::of(&[&key("class"), &key("never")], expected))
        }
        (None, false) => {
            let expected = "expected `class = \"…\"` or `never = true`, found neither".to_owned();
            Some(Finding::of(&[&key("class"), &key("never")], expected))
        }
        (Some(class), false) if !cache.classes.contains_key(class) => {
            let known: Vec<&str> = cache.classes.keys().map(String::as_str).collect();
            let expected = format!("expected one of {}{}", known.join(", "), found_text(class));
            Some(Finding::of(&[&key("class")], expected))
        }
        (Some(_), false) | (None, true) => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{Secret, load};

    pub(crate) fn check(change: impl FnOnce(&mut Config), keys: &[&str]) {
        let mut config = load::defaults();
        change(&mut config);
        let found: Vec<_> = findings(&config).into_iter().map(|finding| finding.keys[0].clone()).collect();
        assert_eq!(found, keys);
    }

    fn rule(route: &str, class: Option<&str>) -> RuleConfig {
        RuleConfig {
            route: route.to_owned(),
            class: class.map(str::to_owned),
            never: false,
            overrides: false,
        }
    }

    #[test]
    fn the_defaults_break_no_rule() {
        check(|_| {}, &[]);
    }

    #[test]
    fn aliases_are_of_fingerprints_each_in_one_and_need_a_secret() {
        let alias = |config: &mut Config, members: &[&str]| {
            config.secret = crate::config::Secret::new("s".repeat(MIN_SECRET));
            let members = members.iter().map(|text| (*text).to_owned()).collect();
            config.budget.aliases.insert("alice".to_owned(), members);
        };
        check(|config| alias(config, &["0123456789abcdef", "fedcba9876543210"]), &[]);
        check(|config| alias(config, &["sntryu_canary"]), &["budget.aliases.alice.0"]);
        check(|config| alias(config, &["0123456789abcdef", "0123456789ABCDEF"]), &["budget.aliases.alice.1"]);
        let without_secret = |config: &mut Config| {
            config.budget.aliases.insert("alice".to_owned(), vec!["0123456789abcdef".to_owned()]);
        };
        check(without_secret, &["secret"]);
        let swapped = |config: &mut Config| {
            config.secret = crate::config::Secret::new("s".repeat(MIN_SECRET));
            config.budget.aliases.insert("sntryu_canary".to_owned(), vec!["alice".to_owned()]);
        };
        check(swapped, &["budget.aliases"]);
    }

    #[test]
    fn a_base_url_is_a_scheme_and_an_authority() {
        for url in ["https://sentry.io", "http://127.0.0.1:8000/", "https://[::1]:9000", "HTTPS://sentry.io"]
        {
            assert!(is_base_url(url), "{url}");
        }
        for url in [
            "sentry.io",
            "ftp://sentry.io",
            "https://sentry.io/api",
            "https://sentry.io?x",
            "https://sentry.io/#x",
            "https://me@sentry.io",
            "https://sentry.io:99999",
            "https://",
            "/api",
            "",
        ] {
            assert!(!is_base_url(url), "{url}");
        }
    }

    #[test]
    fn every_url_is_checked() {
        check(|config| config.public_url = "box.example".to_owned(), &["public_url"]);
        check(|config| config.upstream.url = "https://sentry.io/api/0/".to_owned(), &["upstream.url"]);
        check(|config| config.upstream.control = "sentry.io".to_owned(), &["upstream.control"]);
        let unset = |config: &mut Config| {
            config.upstream.regions.insert("moon".to_owned(), String::new());
        };
        check(unset, &["upstream.regions.moon"]);
        check(|config| config.upstream.link_hosts = vec!["https://x".to_owned()], &["upstream.link_hosts.0"]);
    }

    #[test]
    fn the_region_exists_unless_a_url_overrides_it() {
        check(|config| config.upstream.region = "moon".to_owned(), &["upstream.region"]);
        let overridden = |config: &mut Config| {
            config.upstream.region = "moon".to_owned();
            config.upstream.url = "https://sentry.example".to_owned();
        };
        check(overridden, &[]);
    }

    #[test]
    fn routing_by_organization_needs_a_control_host() {
        let routed = |region: &str, url: &str, control: &str| {
            let (region, url, control) = (region.to_owned(), url.to_owned(), control.to_owned());
            move |config: &mut Config| {
                config.upstream.routing = Routing::ByOrganization;
                config.upstream.region = region;
                config.upstream.url = url;
                config.upstream.control = control;
            }
        };
        check(routed("global", "", ""), &[]);
        check(routed("us", "", ""), &[]);
        check(routed("us", "http://127.0.0.1:8000", "http://127.0.0.1:8001"), &[]);
        check(routed("us", "http://127.0.0.1:8000", ""), &["upstream.control"]);
        check(routed("global", "https://sentry.example", ""), &["upstream.control"]);
        check(|config| config.upstream.url = "https://sentry.example".to_owned(), &[]);
    }

    #[test]
    fn a_control_host_of_ones_own_needs_an_upstream_of_ones_own() {
        let own = |region: &str, url: &str| {
            let (region, url) = (region.to_owned(), url.to_owned());
            move |config: &mut Config| {
                config.upstream.control = "https://control.example".to_owned();
                config.upstream.region = region;
                config.upstream.url = url;
            }
        };
        check(own("global", ""), &["upstream.url"]);
        check(own("us", ""), &["upstream.url"]);
        check(own("global", "https://sentry.example"), &[]);
        check(|config| config.upstream.control = "https://sentry.io".to_owned(), &[]);
    }

    #[test]
    fn a_short_secret_is_worse_than_none() {
        check(|config| config.secret = Secret::new("short".to_owned()), &["secret"]);
        check(|config| config.secret = Secret::new("x".repeat(MIN_SECRET)), &[]);
        check(|config| config.admin.token = Secret::new("short".to_owned()), &["admin.token"]);
        check(|config| config.admin.token = Secret::new("not a bearer token".to_owned()), &["admin.token"]);
    }

    #[test]
    fn durations_are_bounded() {
        check(|config| config.upstream.connect_timeout = Duration::ZERO, &["upstream.connect_timeout"]);
        check(|config| config.cache.settle = Duration::ZERO, &[]);
        check(|config| config.shutdown.grace = Duration::MAX, &["shutdown.grace"]);
        check(
            |config| config.upstream.first_byte_timeout = Duration::from_hours(1),
            &["upstream.first_byte_timeout"],
        );
        let forever = |config: &mut Config| {
            config.cache.classes.get_mut("slow").unwrap().fresh_for = Some(Duration::MAX);
        };
        check(forever, &["cache.classes.slow.fresh_for"]);
    }

    #[test]
    fn amounts_are_bounded() {
        check(|config| config.budget.max_concurrent = 0, &["budget.max_concurrent"]);
        check(|config| config.listen.max_connections = usize::MAX, &["listen.max_connections"]);
        check(
            |config| config.cache.max_response_bytes = bytesize::ByteSize::gib(1),
            &["cache.max_response_bytes"],
        );
    }

    #[test]
    fn a_rule_names_a_class_or_never() {
        let rules = |rules: Vec<RuleConfig>| move |config: &mut Config| config.cache.rules = rules;
        check(rules(vec![rule("/api/0/x/", Some("slow"))]), &[]);
        check(rules(vec![rule("/api/0/x/", Some("moon"))]), &["cache.rules.0.class"]);
        check(rules(vec![rule("/api/0/x/", None)]), &["cache.rules.0.class"]);
        check(rules(vec![rule("/x/", Some("slow"))]), &["cache.rules.0.route"]);
        let never = RuleConfig { never: true, ..rule("/api/0/x/", None) };
        let both = RuleConfig { never: true, ..rule("/api/0/x/", Some("slow")) };
        check(rules(vec![never, both]), &["cache.rules.1.class"]);
    }

    #[test]
    fn a_finding_is_about_its_keys_and_what_holds_them() {
        let finding = Finding::of(&["cache.rules.1.class"], String::new());
        assert!(finding.is_about("cache.rules.1") && finding.is_about("cache.rules.1.class"));
        assert!(!finding.is_about("cache.rules.10") && !finding.is_about(""));
    }
}

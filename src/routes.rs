//! Decides which rule a path falls under, and so how long its answers may be reused: Sentry's URL space.
//!
//! [`compile`] turns the configured rules and then the built-in ones ([`builtin`]) into one tree; a look-up walks
//! the path once, whatever the number of rules. The first rule whose template fits decides.
//!
//! Invariants: labels form a bounded set, the templates and `other`; spelling a path with other escapes never
//! leads to another rule, and an escaped slash never ends a segment. Pure: no I/O, no clock, no allocation in a
//! look-up.
//! Not here: whether a path is served at all (`admission`), whether a response may be stored (`cache::storing`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Problem;
use crate::config::cache::{CacheConfig, ClassConfig, RuleConfig};
use crate::routes::builtin::BuiltInRule;
use crate::routes::template::Template;
use crate::routes::tree::Node;

pub mod builtin;
pub mod place;
pub mod silo;
pub mod spelling;
pub mod tags;
pub mod template;
pub mod tree;

/// Every rule, ready for look-ups.
#[derive(Debug)]
pub struct RouteTable {
    rules: Vec<Rule>,
    root: Node,
}

/// One rule: which routes, and what holds for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The template, which is the label of every path that falls under the rule.
    pub label: RouteLabel,
    /// What holds.
    pub policy: RoutePolicy,
    /// Query parameter whose presence makes the answer one that is never stored.
    pub never_with: Option<&'static str>,
    /// Who made it.
    pub origin: RuleOrigin,
}

/// Who made a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleOrigin {
    /// The operator.
    Configured,
    /// We: it comes with the proxy.
    BuiltIn,
}

impl RuleOrigin {
    /// Returns the one spelling of the origin.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::BuiltIn => "built-in",
        }
    }
}

/// What the table says about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The route's name for metrics and logs.
    pub label: RouteLabel,
    /// How its answers are stored and reused.
    pub policy: RoutePolicy,
}

impl Route {
    /// Returns the name of the class; `None` where the route has none.
    pub fn class(&self) -> Option<&Arc<str>> {
        match &self.policy {
            RoutePolicy::Class { class, .. } => Some(&class.name),
            RoutePolicy::Never | RoutePolicy::Unmatched => None,
        }
    }
}

/// The name of a route: the template that matched, so that there are never more names than rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteLabel {
    /// The template of the rule that matched.
    Template(Arc<str>),
    /// No rule matched.
    Other,
}

impl RouteLabel {
    /// Returns the one spelling of the label.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Template(template) => template,
            Self::Other => "other",
        }
    }
}

impl fmt::Display for RouteLabel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How the answers of a route are stored and reused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoutePolicy {
    /// Neither stored nor collapsed.
    Never,
    /// Stored with the lifetimes of a class.
    Class {
        /// The lifetimes.
        class: ClassPolicy,
        /// Whose lifetime counts where upstream states one, too.
        precedence: Precedence,
    },
    /// No rule says anything: only an explicit lifetime of upstream's counts.
    Unmatched,
}

/// Whose lifetime counts where a rule and upstream both state one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// Upstream's.
    Upstream,
    /// The rule's, because it says `override`.
    Rule,
}

/// The lifetimes of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassPolicy {
    /// The class's name, as under `cache.classes`.
    pub name: Arc<str>,
    /// Freshness lifetime where upstream states none; absent means RFC 9111 alone, heuristics included.
    pub fresh_for: Option<Duration>,
    /// How long past its lifetime a response is reused while it is refreshed in the background.
    pub stale_while_revalidate: Duration,
    /// When a stale response is reused because upstream fails.
    pub stale_if_error: StaleIfError,
}

/// When a stale response is reused because upstream fails, and upstream itself says nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleIfError {
    /// For so long past its lifetime.
    For(Duration),
    /// RFC 9111 alone decides: while upstream is out of reach.
    WhileDisconnected,
}

impl ClassPolicy {
    fn new(name: &str, class: &ClassConfig) -> Self {
        Self {
            name: Arc::from(name),
            fresh_for: class.fresh_for,
            stale_while_revalidate: class.stale_while_revalidate,
            stale_if_error: match (class.stale_if_error, class.fresh_for) {
                (Some(window), _) => StaleIfError::For(window),
                (None, Some(_)) => StaleIfError::For(Duration::ZERO),
                (None, None) => StaleIfError::WhileDisconnected,
            },
        }
    }
}

/// Makes the table of the configured rules, followed by the built-in ones unless they are switched off.
///
/// # Errors
///
/// Every malformed template and unknown class at once; the problems' `source` is left to the caller.
pub fn compile(cache: &CacheConfig) -> Result<RouteTable, Vec<Problem>> {
    let mut compiler = Compiler::new(&cache.classes);
    for (position, rule) in cache.rules.iter().enumerate() {
        compiler.add_configured(position, rule);
    }
    if cache.default_rules {
        builtin::rules().for_each(|rule| compiler.add_built_in(&rule));
    }
    if compiler.problems.is_empty() { Ok(compiler.table) } else { Err(compiler.problems) }
}

impl RouteTable {
    /// Returns what the first rule that fits says about a path.
    ///
    /// `path` is spelled as the client sent it and was admitted: no dot segments, no empty ones but the last.
    /// Escapes are compared by what they stand for, except that `%2F` is a slash inside its segment.
    pub fn classify(&self, path: &str, query: Option<&str>) -> Route {
        let found = path.strip_prefix('/').and_then(|rest| self.root.find(Some(rest)));
        match found.and_then(|position| self.rules.get(position)) {
            Some(rule) => Route { label: rule.label.clone(), policy: rule.policy_for(query) },
            None => Route { label: RouteLabel::Other, policy: RoutePolicy::Unmatched },
        }
    }

    /// Returns the rule that gave a route its label: of several with one template, the first is the one that fits.
    pub fn rule_of(&self, label: &RouteLabel) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.label == *label)
    }

    /// Returns the rules in the order in which they are tried.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    fn add(&mut self, template: &Template, rule: Rule) {
        self.root.insert(template.segments(), self.rules.len());
        self.rules.push(rule);
    }
}

impl Rule {
    fn policy_for(&self, query: Option<&str>) -> RoutePolicy {
        let query = query.unwrap_or_default();
        match self.never_with {
            Some(parameter) if has_parameter(query, parameter) => RoutePolicy::Never,
            Some(_) | None => self.policy.clone(),
        }
    }
}

/// Returns whether a query names a parameter, with or without a value.
fn has_parameter(query: &str, name: &str) -> bool {
    query.split('&').any(|pair| {
        let spelled = pair.split('=').next().unwrap_or_default();
        name.bytes().eq(template::decoded(spelled))
    })
}

/// A table in the making, and what was wrong so far.
struct Compiler<'a> {
    classes: &'a BTreeMap<String, ClassConfig>,
    table: RouteTable,
    problems: Vec<Problem>,
}

impl<'a> Compiler<'a> {
    fn new(classes: &'a BTreeMap<String, ClassConfig>) -> Self {
        let table = RouteTable { rules: Vec::new(), root: Node::default() };
        Self { classes, table, problems: Vec::new() }
    }

    fn add_configured(&mut self, position: usize, rule: &RuleConfig) {
        let key = format!("cache.rules[{position}]");
        let template = Template::parse(&rule.route)
            .map_err(|error| self.expect(format!("{key}.route"), &error.to_string()))
            .ok();
        let policy = self.configured_policy(&key, rule);
        if let (Some(template), Some(policy)) = (template, policy) {
            let label = RouteLabel::Template(Arc::from(rule.route.as_str()));
            self.table
                .add(&template, Rule { label, policy, never_with: None, origin: RuleOrigin::Configured });
        }
    }

    fn configured_policy(&mut self, key: &str, rule: &RuleConfig) -> Option<RoutePolicy> {
        let precedence = if rule.overrides { Precedence::Rule } else { Precedence::Upstream };
        match (&rule.class, rule.never, precedence) {
            (None, true, Precedence::Upstream) => Some(RoutePolicy::Never),
            (None, true, Precedence::Rule) => {
                self.expect(
                    format!("{key}.override"),
                    "no override beside never = true, which has no lifetime",
                );
                None
            }
            (Some(_), true, _) => {
                self.expect(key.to_owned(), "either a class or never = true, not both");
                None
            }
            (None, false, _) => {
                self.expect(key.to_owned(), "a class, or never = true");
                None
            }
            (Some(name), false, precedence) => {
                let class = self.class(name);
                if class.is_none() {
                    self.expect(
                        format!("{key}.class"),
                        &format!("one of the classes {}", self.class_names()),
                    );
                }
                class.map(|class| RoutePolicy::Class { class, precedence })
            }
        }
    }

    fn add_built_in(&mut self, rule: &BuiltInRule) {
        let template = match Template::parse(&rule.route) {
            Ok(template) => template,
            Err(error) => return self.expect(rule.route.clone(), &error.to_string()),
        };
        let policy = match rule.class {
            None => RoutePolicy::Never,
            Some(name) => match self.class(name) {
                Some(class) => RoutePolicy::Class { class, precedence: Precedence::Upstream },
                None => return self.miss_class(name),
            },
        };
        let label = RouteLabel::Template(Arc::from(rule.route.as_str()));
        self.table
            .add(&template, Rule { label, policy, never_with: rule.never_with, origin: RuleOrigin::BuiltIn });
    }

    fn class(&self, name: &str) -> Option<ClassPolicy> {
        self.classes.get(name).map(|class| ClassPolicy::new(name, class))
    }

    fn class_names(&self) -> String {
        self.classes.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Reports a class that the built-in rules need, once.
    fn miss_class(&mut self, name: &str) {
        let key = format!("cache.classes.{name}");
        if !self.problems.iter().any(|problem| problem.key == key) {
            self.expect(key, "the class that built-in rules name, or cache.default_rules = false");
        }
    }

    fn expect(&mut self, key: String, expected: &str) {
        self.problems.push(Problem { source: String::new(), key, expected: expected.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;
    use crate::config::cache::{ClientDirectives, Downstream, Eviction, InvalidationScope};

    const CLASSES: [&str; 7] = ["aggregate", "alias", "immutable", "release", "slow", "static", "volatile"];

    fn cache(rules: Vec<RuleConfig>) -> CacheConfig {
        let class = ClassConfig {
            fresh_for: Some(Duration::from_mins(1)),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Some(Duration::ZERO),
        };
        CacheConfig {
            max_bytes: ByteSize::mib(1),
            max_response_bytes: ByteSize::mib(1),
            max_in_flight_bytes: ByteSize::mib(1),
            eviction: Eviction::Lru,
            anonymous: false,
            client_directives: ClientDirectives::Honour,
            downstream: Downstream::Revalidate,
            default_rules: true,
            invalidation: InvalidationScope::Sentry,
            settle: Duration::ZERO,
            negative_fresh_for: Duration::ZERO,
            max_unverified: Duration::ZERO,
            rejection_memory: Duration::ZERO,
            flight_timeout: Duration::ZERO,
            classes: CLASSES.iter().map(|name| ((*name).to_owned(), class)).collect(),
            rules,
        }
    }

    fn class_rule(route: &str, class: &str) -> RuleConfig {
        RuleConfig { route: route.to_owned(), class: Some(class.to_owned()), never: false, overrides: false }
    }

    fn never_rule(route: &str) -> RuleConfig {
        RuleConfig { route: route.to_owned(), class: None, never: true, overrides: false }
    }

    fn name_of(policy: &RoutePolicy) -> &str {
        match policy {
            RoutePolicy::Never => "never",
            RoutePolicy::Class { class, precedence: _ } => &class.name,
            RoutePolicy::Unmatched => "unmatched",
        }
    }

    #[test]
    fn the_rule_of_a_label_is_the_one_that_gave_it() {
        let route = "/api/0/organizations/{organization}/projects/";
        let path = "/api/0/organizations/acme/projects/";
        let origin = |rules, path| {
            let table = compile(&cache(rules)).unwrap();
            table.rule_of(&table.classify(path, None).label).map(|rule| rule.origin)
        };
        assert_eq!(origin(vec![], path), Some(RuleOrigin::BuiltIn));
        assert_eq!(origin(vec![never_rule(route)], path), Some(RuleOrigin::Configured));
        assert_eq!(origin(vec![never_rule(route)], "/api/0/organizations/acme/"), Some(RuleOrigin::BuiltIn));
        assert_eq!(origin(vec![], "/api/0/nowhere/"), None);
    }

    #[track_caller]
    fn check(rules: Vec<RuleConfig>, target: &str, expected: &str) {
        let table = compile(&cache(rules)).unwrap();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let route = table.classify(path, query);
        assert_eq!(name_of(&route.policy), expected, "{target} is labelled {}", route.label);
    }

    fn problems(rules: Vec<RuleConfig>) -> Vec<(String, String)> {
        let problems = compile(&cache(rules)).unwrap_err();
        assert!(problems.iter().all(|problem| problem.source.is_empty()));
        problems.into_iter().map(|problem| (problem.key, problem.expected)).collect()
    }

    /// Every route of `sentry-api.md` §4.5–4.7, as a client asks for it, below `/api/0/organizations/`.
    const LISTED: &[(&str, &[&str])] = &[
        (
            "static",
            &[
                "",
                "acme/",
                "4711/",
                "acme/environments/",
                "acme/config/integrations/",
                "acme/integrations/",
                "acme/integrations/12/",
                "acme/sentry-apps/",
                "acme/sentry-app-installations/",
                "acme/repos/",
                "acme/project-keys/",
                "acme/relay_usage/",
                "acme/forwarding/",
                "acme/notifications/actions/",
                "acme/notifications/actions/3/",
                "acme/replay-selectors/",
            ],
        ),
        (
            "slow",
            &[
                "acme/projects/",
                "acme/teams/",
                "acme/user-teams/",
                "acme/members/",
                "acme/members/me/",
                "acme/dashboards/",
                "acme/dashboards/5/",
                "acme/discover/saved/",
                "acme/discover/saved/6/",
                "acme/detectors/",
                "acme/detectors/7/",
                "acme/workflows/",
                "acme/workflows/8/",
                "acme/monitors/",
                "acme/monitors/nightly/",
                "acme/tags/",
                "acme/trace-items/attributes/",
                "acme/scim/v2/Users",
                "acme/scim/v2/Users/9",
                "acme/scim/v2/Groups",
                "acme/scim/v2/Groups/10",
            ],
        ),
        (
            "release",
            &[
                "acme/releases/",
                "acme/releases/web@1.0/",
                "acme/releases/feature%2Fx@1.0/",
                "acme/releases/web@1.0/commits/",
                "acme/releases/web@1.0/commitfiles/",
                "acme/releases/web@1.0/deploys/",
                "acme/releases/web@1.0/files/",
                "acme/releases/web@1.0/files/77/",
                "acme/repos/11/commits/",
                "acme/release-threshold-statuses/",
            ],
        ),
        (
            "aggregate",
            &[
                "acme/events/",
                "acme/events-timeseries/",
                "acme/stats_v2/",
                "acme/stats-summary/",
                "acme/sessions/",
                "acme/trace-items/stats/",
                "acme/replay-count/",
                "acme/profiling/flamegraph/",
                "acme/profiling/chunks/",
                "acme/events-stats/",
                "acme/events-meta/",
                "acme/events-facets/",
                "acme/issues-stats/",
                "acme/issues-count/",
                "acme/metrics/data/",
                "acme/monitors-stats/",
                "acme/uptime-stats/",
                // Immutable only once they are old, or once their processing has ended; a path tells neither.
                "acme/trace/0123456789abcdef0123456789abcdef/",
                "acme/trace-meta/0123456789abcdef0123456789abcdef/",
                "acme/preprodartifacts/12/size-analysis/",
                "acme/preprodartifacts/snapshots/55/",
            ],
        ),
        (
            "volatile",
            &[
                "acme/issues/",
                "acme/issues/WEB-3/",
                "acme/issues/10003/",
                "acme/issues/10003/events/",
                "acme/issues/10003/tags/browser/",
                "acme/issues/10003/tags/browser/values/",
                "acme/issues/10003/external-issues/",
                "acme/issues/10003/hashes/",
                "acme/issues/10003/integrations/12/",
                "acme/replays/",
                "acme/replays/0123456789abcdef0123456789abcdef/",
                "acme/monitors/nightly/checkins/",
                // Found for good, but with the whole issue inside.
                "acme/shortids/WEB-3/",
            ],
        ),
        (
            "immutable",
            &[
                "acme/eventids/0123456789abcdef0123456789abcdef/",
                "acme/issues/10003/events/0123456789abcdef0123456789abcdef/",
                "acme/events/web:0123456789abcdef0123456789abcdef/",
                "acme/events/web%3A0123456789abcdef0123456789abcdef/",
            ],
        ),
        (
            "alias",
            &[
                "acme/issues/10003/events/latest/",
                "acme/issues/10003/events/oldest/",
                "acme/issues/10003/events/recommended/",
                "acme/preprodartifacts/snapshots/latest-base/",
            ],
        ),
        (
            "never",
            &[
                // §4.5
                "acme/issues/10003/autofix/",
                "acme/issues/10003/autofix/setup/",
                "acme/seer/",
                "acme/seer/setup-check/",
                "acme/explorer-chat/",
                "acme/explorer-chat/12/",
                "acme/data-export/13/",
                // §4.6
                "acme/releases/web@1.0/files/77/?download=1",
                "acme/data-export/13/?download",
                "acme/stats-summary/?project=1&download",
                "acme/preprodartifacts/snapshots/55/archive/?download",
                "acme/preprodartifacts/snapshots/55/archive/",
                "acme/preprodartifacts/snapshots/55/images/login.png/",
                "acme/preprodartifacts/snapshots/55/images/login.png/download/",
                "acme/preprodartifacts/12/install-details/",
                "acme/objectstore/v1/objects/attachments/org=1/abc",
                "acme/monitors/nightly/checkins/14/attachment/",
                "acme/chunk-upload/",
                "acme/artifactbundle/assemble/",
                "acme/releases/web@1.0/assemble/",
                // §4.7
                "acme/integrations/12/repos/",
                "acme/integrations/12/channels/",
                "acme/integrations/12/channel-validate/",
                "acme/integrations/12/issues/",
                "acme/integrations/12/?action=create",
                "acme/issues/10003/integrations/12/?action=link",
                "acme/derive-code-mappings/",
                "acme/prevent/owner/sentry/repositories/",
                "acme/api-keys/",
                "acme/api-keys/15/",
                "acme/org-auth-tokens/",
                "acme/org-auth-tokens/16/",
                "acme/flags/signing-secrets/",
                "acme/flags/signing-secrets/17/",
            ],
        ),
        (
            "unmatched",
            &["acme/audit-logs/", "acme", "acme/projects", "acme/scim/v2/Users/", "acme//projects/"],
        ),
    ];

    #[test]
    fn every_route_of_the_reference_has_its_class() {
        let table = compile(&cache(vec![])).unwrap();
        for (expected, targets) in LISTED {
            for target in *targets {
                let (path, query) =
                    target.split_once('?').map_or((*target, None), |(path, query)| (path, Some(query)));
                let route = table.classify(&format!("/api/0/organizations/{path}"), query);
                assert_eq!(name_of(&route.policy), *expected, "{target} is labelled {}", route.label);
            }
        }
    }

    #[test]
    fn every_built_in_rule_decides_some_listed_path() {
        let table = compile(&cache(vec![])).unwrap();
        let mut idle: Vec<_> = table.rules().map(|rule| rule.label.as_str()).collect();
        for target in LISTED.iter().flat_map(|(_, targets)| targets.iter()) {
            let path = format!("/api/0/organizations/{}", target.split('?').next().unwrap());
            let label = table.classify(&path, None).label;
            idle.retain(|template| *template != label.as_str());
        }
        // An alias that only older servers know.
        assert_eq!(idle, ["/api/0/organizations/{organization}/issues/{issue}/events/helpful/"]);
    }

    #[test]
    fn a_path_outside_organizations_matches_no_built_in_rule() {
        for target in
            ["/", "*", "", "/api/0/", "/api/0/projects/acme/web/issues/", "/api/0/users/me/regions/"]
        {
            check(vec![], target, "unmatched");
        }
    }

    #[test]
    fn escapes_are_compared_by_what_they_stand_for() {
        check(vec![], "/api/0/organizations/acme/%70rojects/", "slow");
        check(vec![], "/%61pi/0/organizations/acme/stats%5fv2/", "aggregate");
        check(vec![], "/api/0/organizations/acme/projects/?%64ownload", "slow");
        check(vec![], "/api/0/organizations/acme/stats-summary/?%64ownload", "never");
        check(vec![], "/api/0/organizations/acme/stats-summary/?downloads&a=download", "aggregate");
    }

    #[test]
    fn an_escaped_slash_does_not_end_a_segment() {
        check(vec![], "/api/0/organizations/acme%2Fprojects/", "static");
        check(vec![], "/api/0/organizations/acme/releases%2Fcommits/", "unmatched");
        check(vec![], "/api/0/organizations/acme/releases/a%2fb/commits/", "release");
    }

    #[test]
    fn a_broken_escape_stands_for_itself() {
        check(vec![], "/api/0/organizations/100%/", "static");
        check(vec![], "/api/0/organizations/acme/project%7/", "unmatched");
        check(vec![], "/api/0/organizations/acme/%+7rojects/", "unmatched");
    }

    #[test]
    fn a_configured_rule_comes_before_the_built_in_ones() {
        let route = "/api/0/organizations/{anything}/projects/";
        check(vec![class_rule(route, "volatile")], "/api/0/organizations/acme/projects/", "volatile");
        check(vec![never_rule(route)], "/api/0/organizations/acme/projects/", "never");
        check(vec![never_rule(route)], "/api/0/organizations/acme/teams/", "slow");
    }

    #[test]
    fn the_first_configured_rule_that_fits_decides() {
        let wide = "/api/0/organizations/{*rest}";
        let narrow = "/api/0/organizations/acme/projects/";
        check(vec![never_rule(wide), class_rule(narrow, "slow")], narrow, "never");
        check(vec![class_rule(narrow, "slow"), never_rule(wide)], narrow, "slow");
        check(vec![class_rule(narrow, "slow"), never_rule(wide)], "/api/0/organizations/", "never");
        check(vec![class_rule(narrow, "slow"), never_rule(narrow)], narrow, "slow");
    }

    #[test]
    fn a_rule_may_name_other_routes() {
        let rule = class_rule("/api/0/projects/{organization}/{project}/issues/", "volatile");
        check(vec![rule], "/api/0/projects/acme/web/issues/", "volatile");
    }

    #[test]
    fn without_the_default_rules_only_configured_ones_count() {
        let mut cache = cache(vec![class_rule("/api/0/organizations/", "slow")]);
        cache.default_rules = false;
        cache.classes.retain(|name, _| name == "slow");
        let table = compile(&cache).unwrap();
        assert_eq!(table.rules().count(), 1);
        assert_eq!(name_of(&table.classify("/api/0/organizations/", None).policy), "slow");
        assert_eq!(table.classify("/api/0/organizations/acme/", None).label, RouteLabel::Other);
    }

    #[test]
    fn a_rule_that_overrides_takes_precedence_over_upstream() {
        let rule = RuleConfig { overrides: true, ..class_rule("/api/0/organizations/", "slow") };
        let table = compile(&cache(vec![rule])).unwrap();
        let precedences: Vec<_> = ["/api/0/organizations/", "/api/0/organizations/acme/"]
            .into_iter()
            .map(|path| match table.classify(path, None).policy {
                RoutePolicy::Class { class: _, precedence } => Some(precedence),
                RoutePolicy::Never | RoutePolicy::Unmatched => None,
            })
            .collect();
        assert_eq!(precedences, [Some(Precedence::Rule), Some(Precedence::Upstream)]);
    }

    #[test]
    fn a_label_is_the_template_and_other_where_nothing_matches() {
        let table = compile(&cache(vec![])).unwrap();
        let label = |path| table.classify(path, None).label.to_string();
        assert_eq!(
            label("/api/0/organizations/acme/projects/"),
            "/api/0/organizations/{organization}/projects/"
        );
        assert_eq!(label("/api/0/organizations/acme/unheard-of/"), "other");
    }

    #[test]
    fn a_class_carries_its_configured_lifetimes() {
        let mut cache = cache(vec![]);
        let class = ClassConfig {
            fresh_for: None,
            stale_while_revalidate: Duration::from_mins(10),
            stale_if_error: Some(Duration::from_hours(24)),
        };
        cache.classes.insert("slow".to_owned(), class);
        let route =
            compile(&cache).unwrap().classify("/api/0/organizations/acme/projects/", Some("per_page=2"));
        let expected =
            RoutePolicy::Class { class: ClassPolicy::new("slow", &class), precedence: Precedence::Upstream };
        assert_eq!(route.policy, expected);
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let neither = RuleConfig { never: false, ..never_rule("/a/") };
        let both = RuleConfig { never: true, ..class_rule("/b/", "slow") };
        let aimless = RuleConfig { overrides: true, ..never_rule("/c/") };
        let rules = vec![
            never_rule("/fine/"),
            never_rule("api/0/"),
            neither,
            both,
            aimless,
            class_rule("/d/{x/", "sloww"),
        ];
        let keys: Vec<_> = problems(rules).into_iter().map(|(key, _)| key).collect();
        let expected = [
            "cache.rules[1].route",
            "cache.rules[2]",
            "cache.rules[3]",
            "cache.rules[4].override",
            "cache.rules[5].route",
            "cache.rules[5].class",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn an_unknown_class_is_answered_with_the_known_ones() {
        let found = problems(vec![class_rule("/a/", "sloww")]);
        let expected = "one of the classes aggregate, alias, immutable, release, slow, static, volatile";
        assert_eq!(found, [("cache.rules[0].class".to_owned(), expected.to_owned())]);
    }

    #[test]
    fn a_class_that_the_built_in_rules_miss_is_reported_once() {
        let mut cache = cache(vec![]);
        cache.classes.remove("slow");
        let problems = compile(&cache).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, "cache.classes.slow");
    }
}

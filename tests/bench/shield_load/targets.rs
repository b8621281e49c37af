//! What is read: sixty targets, nineteen in each of three organizations and three of the list of organizations.

use sentrybox::config::load;
use sentrybox::routes::builtin;

/// Where all of them begin.
pub(crate) const PREFIX: &str = "/api/0/organizations/";

/// The organizations that the crowd are members of.
pub(crate) const ORGANIZATIONS: [&str; 3] = ["org-001", "org-002", "org-003"];

/// Templates of built-in rules below [`PREFIX`], and the targets that are read of them in each organization.
const IN_ORGANIZATION: &[(&str, &str)] = &[
    ("{organization}/", "{organization}/"),
    ("{organization}/projects/", "{organization}/projects/?per_page=20"),
    ("{organization}/teams/", "{organization}/teams/"),
    ("{organization}/members/", "{organization}/members/?per_page=20"),
    ("{organization}/environments/", "{organization}/environments/"),
    ("{organization}/repos/", "{organization}/repos/"),
    ("{organization}/monitors/", "{organization}/monitors/"),
    ("{organization}/dashboards/", "{organization}/dashboards/"),
    ("{organization}/tags/", "{organization}/tags/"),
    ("{organization}/releases/", "{organization}/releases/?per_page=5"),
    ("{organization}/releases/{version}/", "{organization}/releases/web@1.0.1/"),
    ("{organization}/releases/{version}/commits/", "{organization}/releases/web@1.0.1/commits/"),
    ("{organization}/issues-stats/", "{organization}/issues-stats/?statsPeriod=24h"),
    ("{organization}/issues-stats/", "{organization}/issues-stats/?statsPeriod=14d"),
    ("{organization}/issues/", "{organization}/issues/?limit=25&query=is:unresolved"),
    ("{organization}/issues/", "{organization}/issues/?limit=25&query=is:resolved"),
    ("{organization}/issues/{issue}/", "{organization}/issues/PROJECT-001-1/"),
    ("{organization}/issues/{issue}/events/", "{organization}/issues/PROJECT-001-1/events/"),
    ("{organization}/shortids/{short_id}/", "{organization}/shortids/PROJECT-001-1/"),
];

/// What is read of the list of organizations.
const LISTS: [&str; 3] = ["", "?owner=1", "?sortBy=projects"];

/// The route whose answers a deploy script polls.
const DEPLOYS: &str = "{organization}/releases/{version}/deploys/";

/// A target, and how long its answers are fresh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReadTarget {
    pub(crate) target: String,
    pub(crate) fresh_for_ms: u64,
}

/// Returns all sixty, in the order of the tables.
pub(crate) fn all() -> Vec<ReadTarget> {
    let read = |template: &str, target: String| ReadTarget { target, fresh_for_ms: lifetime(template) };
    let in_organizations = ORGANIZATIONS.iter().flat_map(|organization| {
        IN_ORGANIZATION.iter().map(|(template, target)| {
            read(template, format!("{PREFIX}{}", target.replace("{organization}", organization)))
        })
    });
    in_organizations.chain(LISTS.iter().map(|query| read("", format!("{PREFIX}{query}")))).collect()
}

/// Returns what a deploy script polls.
pub(crate) fn deploys(organization: &str, version: &str) -> ReadTarget {
    let target = DEPLOYS.replace("{organization}", organization).replace("{version}", version);
    ReadTarget { target: format!("{PREFIX}{target}"), fresh_for_ms: lifetime(DEPLOYS) }
}

/// Returns the lifetime of the class that a built-in rule names, by default.
fn lifetime(template: &str) -> u64 {
    let route = format!("{PREFIX}{template}");
    let class = builtin::rules().find(|rule| rule.route == route).and_then(|rule| rule.class);
    let classes = load::defaults().cache.classes;
    let fresh_for = classes.get(class.unwrap()).unwrap().fresh_for.unwrap();
    u64::try_from(fresh_for.as_millis()).unwrap()
}

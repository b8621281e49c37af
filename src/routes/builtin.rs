//! The built-in rules: a class, or *never*, for every public GET route below `/api/0/organizations/`.
//!
//! Grouped as Sentry's routes are used: what changes rarely, what changes with a click, what is computed over a
//! range of time, what a page polls. The numbers behind a class stand under `cache.classes`.
//!
//! Invariant: where two templates fit one path, the one to be tried first stands in an earlier group.
//! Not here: routes outside `/api/0/organizations/`; a configured rule may name those.

/// Where all of these routes begin.
const PREFIX: &str = "/api/0/organizations/";

/// A rule of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltInRule {
    /// The whole template.
    pub route: String,
    /// Name of the class; none: never stored.
    pub class: Option<&'static str>,
    /// Query parameter whose presence makes the answer one that is never stored.
    pub never_with: Option<&'static str>,
}

/// Routes with one policy.
#[derive(Debug)]
struct Group {
    class: Option<&'static str>,
    never_with: Option<&'static str>,
    /// Templates, relative to [`PREFIX`].
    routes: &'static [&'static str],
}

impl Group {
    const fn never(routes: &'static [&'static str]) -> Self {
        Self { class: None, never_with: None, routes }
    }

    const fn class(name: &'static str, routes: &'static [&'static str]) -> Self {
        Self { class: Some(name), never_with: None, routes }
    }

    const fn unless(self, parameter: &'static str) -> Self {
        Self { never_with: Some(parameter), ..self }
    }
}

/// Returns the built-in rules in the order in which they are tried.
pub fn rules() -> impl Iterator<Item = BuiltInRule> {
    GROUPS.iter().flat_map(|group| {
        group.routes.iter().map(|route| BuiltInRule {
            route: format!("{PREFIX}{route}"),
            class: group.class,
            never_with: group.never_with,
        })
    })
}

const GROUPS: &[Group] = &[
    // Live: polled until something has happened.
    Group::never(&[
        "{organization}/issues/{issue}/autofix/{*rest}",
        "{organization}/seer/{*rest}",
        "{organization}/explorer-{kind}/{*rest}",
        "{organization}/data-export/{export}/",
    ]),
    // Streaming and binary.
    Group::never(&[
        "{organization}/preprodartifacts/snapshots/{snapshot}/archive/",
        "{organization}/preprodartifacts/snapshots/{snapshot}/images/{*image}",
        "{organization}/preprodartifacts/{artifact}/install-details/",
        "{organization}/objectstore/{*path}",
        "{organization}/monitors/{monitor}/checkins/{checkin}/attachment/",
        "{organization}/chunk-upload/",
        "{organization}/artifactbundle/assemble/",
        "{organization}/releases/{version}/assemble/",
    ]),
    // Asked of GitHub, Slack, Jira and others at once.
    Group::never(&[
        "{organization}/integrations/{integration}/repos/",
        "{organization}/integrations/{integration}/channels/",
        "{organization}/integrations/{integration}/channel-validate/",
        "{organization}/integrations/{integration}/issues/",
        "{organization}/derive-code-mappings/",
        "{organization}/prevent/{*rest}",
    ]),
    // Secrets and nothing else.
    Group::never(&[
        "{organization}/api-keys/{*rest}",
        "{organization}/org-auth-tokens/{*rest}",
        "{organization}/flags/signing-secrets/{*rest}",
    ]),
    // Names that stand for another event or snapshot from one moment to the next.
    Group::class(
        "alias",
        &[
            "{organization}/issues/{issue}/events/latest/",
            "{organization}/issues/{issue}/events/oldest/",
            "{organization}/issues/{issue}/events/recommended/",
            "{organization}/issues/{issue}/events/helpful/",
            "{organization}/preprodartifacts/snapshots/latest-base/",
        ],
    ),
    // Immutable once found.
    Group::class(
        "immutable",
        &[
            "{organization}/eventids/{event}/",
            "{organization}/issues/{issue}/events/{event}/",
            "{organization}/events/{project}:{event}/",
        ],
    ),
    // Changes when somebody changes the organization.
    Group::class(
        "static",
        &[
            "",
            "{organization}/",
            "{organization}/environments/",
            "{organization}/config/integrations/",
            "{organization}/integrations/",
            "{organization}/sentry-apps/",
            "{organization}/sentry-app-installations/",
            "{organization}/repos/",
            "{organization}/project-keys/",
            "{organization}/relay_usage/",
            "{organization}/forwarding/",
            "{organization}/notifications/actions/",
            "{organization}/notifications/actions/{action}/",
            "{organization}/replay-selectors/",
        ],
    ),
    // The same; with `action` it asks a third party.
    Group::class("static", &["{organization}/integrations/{integration}/"]).unless("action"),
    // Changes as people work.
    Group::class(
        "slow",
        &[
            "{organization}/projects/",
            "{organization}/teams/",
            "{organization}/user-teams/",
            "{organization}/members/",
            "{organization}/members/{member}/",
            "{organization}/dashboards/",
            "{organization}/dashboards/{dashboard}/",
            "{organization}/discover/saved/",
            "{organization}/discover/saved/{query}/",
            "{organization}/detectors/",
            "{organization}/detectors/{detector}/",
            "{organization}/workflows/",
            "{organization}/workflows/{workflow}/",
            "{organization}/monitors/",
            "{organization}/monitors/{monitor}/",
            "{organization}/tags/",
            "{organization}/trace-items/attributes/",
            "{organization}/scim/v2/Users",
            "{organization}/scim/v2/Users/{member}",
            "{organization}/scim/v2/Groups",
            "{organization}/scim/v2/Groups/{team}",
        ],
    ),
    // Changes when somebody releases.
    Group::class(
        "release",
        &[
            "{organization}/releases/",
            "{organization}/releases/{version}/",
            "{organization}/releases/{version}/commits/",
            "{organization}/releases/{version}/commitfiles/",
            "{organization}/releases/{version}/deploys/",
            "{organization}/releases/{version}/files/",
            "{organization}/repos/{repository}/commits/",
            "{organization}/release-threshold-statuses/",
        ],
    ),
    // The same; with `download` it is the file itself.
    Group::class("release", &["{organization}/releases/{version}/files/{file}/"]).unless("download"),
    // Computed over a range of time.
    Group::class(
        "aggregate",
        &[
            "{organization}/events/",
            "{organization}/events-timeseries/",
            "{organization}/stats_v2/",
            "{organization}/sessions/",
            "{organization}/trace-items/stats/",
            "{organization}/replay-count/",
            "{organization}/profiling/flamegraph/",
            "{organization}/profiling/chunks/",
            // Unpublished, but heavily used.
            "{organization}/events-stats/",
            "{organization}/events-meta/",
            "{organization}/events-facets/",
            "{organization}/issues-stats/",
            "{organization}/issues-count/",
            "{organization}/metrics/data/",
            "{organization}/monitors-stats/",
            "{organization}/uptime-stats/",
            // Immutable only once no more spans arrive, or the build is processed, which no path tells.
            "{organization}/trace/{trace}/",
            "{organization}/trace-meta/{trace}/",
            "{organization}/preprodartifacts/{*rest}",
        ],
    ),
    // The same; with `download` it is a table for a spreadsheet.
    Group::class("aggregate", &["{organization}/stats-summary/"]).unless("download"),
    // Changes by itself.
    Group::class(
        "volatile",
        &[
            "{organization}/issues/",
            "{organization}/issues/{issue}/",
            "{organization}/issues/{issue}/events/",
            "{organization}/issues/{issue}/tags/{key}/",
            "{organization}/issues/{issue}/tags/{key}/values/",
            "{organization}/issues/{issue}/external-issues/",
            "{organization}/issues/{issue}/hashes/",
            "{organization}/replays/",
            "{organization}/replays/{replay}/",
            "{organization}/monitors/{monitor}/checkins/",
            // What a short id stands for never changes, but the answer has the whole issue inside.
            "{organization}/shortids/{short_id}/",
        ],
    ),
    // The same; with `action` it asks a third party.
    Group::class("volatile", &["{organization}/issues/{issue}/integrations/{integration}/"]).unless("action"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::template::Template;

    #[test]
    fn every_route_is_a_template() {
        for rule in rules() {
            assert!(Template::parse(&rule.route).is_ok(), "{}", rule.route);
        }
    }

    #[test]
    fn no_route_stands_twice() {
        let mut routes: Vec<_> = rules().map(|rule| rule.route).collect();
        let count = routes.len();
        routes.sort_unstable();
        routes.dedup();
        assert_eq!(routes.len(), count);
    }
}

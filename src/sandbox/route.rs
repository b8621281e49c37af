//! The sandbox's part of Sentry's URL space: which path is what, which methods it has, who may use them.
//!
//! Invariant: a path is matched as it was sent; only single segments are decoded, so `%2F` parts nothing.
//! Not here: answering (`sandbox::router`).

use http::Method;

use crate::sandbox::query::{Plus, decoded};

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A route of the API.
    Known(Route),
    /// Below `/api/0/`, but without the slash at its end.
    MissingSlash,
    /// Nothing.
    Unknown,
}

/// A route of the API, with what its path names. `organization`, `project`, `team` and `issue` are an
/// identifier or a slug (a short id).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/`: version, token and user.
    Root,
    /// `/auth/`: the user.
    Auth,
    /// `/users/me/regions/`.
    Regions,
    /// `/organizations/`.
    Organizations,
    /// `/projects/`: those of all organizations.
    AllProjects,
    /// A resource of an organization.
    Organization(String, InOrganization),
    /// A resource of a project.
    Project(String, String, InProject),
    /// `/teams/{organization}/{team}/`.
    Team(String, String),
    /// `/teams/{organization}/{team}/projects/`.
    TeamProjects(String, String),
    /// `/issues/{issue}/`.
    Issue(String),
    /// A resource of an issue, without its organization: `/issues/{issue}/…`.
    OfIssue(String, InIssue),
}

/// A resource of an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InOrganization {
    /// The organization itself.
    Detail,
    /// `projects/`.
    Projects,
    /// `teams/`.
    Teams,
    /// `members/`.
    Members,
    /// `environments/`.
    Environments,
    /// `releases/`.
    Releases,
    /// `releases/{version}/`.
    Release(String),
    /// `releases/{version}/deploys/`.
    Deploys(String),
    /// `issues/`.
    Issues,
    /// `issues/{issue}/`.
    Issue(String),
    /// A resource of an issue: `issues/{issue}/…`.
    OfIssue(String, InIssue),
    /// `shortids/{short id}/`.
    ShortId(String),
    /// `repos/`.
    Repositories,
    /// `monitors/`.
    Monitors,
    /// `events/`: a table.
    Events,
    /// `events/validate/`: whether such a table can be made.
    EventsValidation,
    /// `events/{project}:{event}/`.
    Event(String, String),
    /// `trace/{trace}/`.
    Trace(String),
    /// `replay-count/`.
    ReplayCount,
    /// A list that is empty in the sandbox: `dashboards/`, an issue's `hashes/`, a release's `commits/`, …
    Empty,
}

/// A resource of an issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InIssue {
    /// `events/`.
    Events,
    /// `events/{event}/`: an identifier, `latest`, `oldest` or `recommended`.
    Event(String),
    /// `tags/`.
    Tags,
    /// `tags/{key}/`.
    Tag(String),
    /// `autofix/`.
    Autofix,
    /// `external-issues/`, `hashes/`: empty in the sandbox.
    Empty,
}

/// A resource of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InProject {
    /// The project itself.
    Detail,
    /// `issues/`.
    Issues,
    /// `keys/`.
    Keys,
    /// `releases/`.
    Releases,
    /// `releases/{version}/`.
    Release(String),
    /// `events/`.
    Events,
    /// `events/{event}/`.
    Event(String),
    /// `stacktrace-link/`.
    StacktraceLink,
}

/// Which family of scopes a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// None, not even a token.
    Anyone,
    /// A token, whatever its scopes.
    Authenticated,
    /// `org:*`.
    Organization,
    /// `member:*`.
    Member,
    /// `team:*`.
    Team,
    /// `project:*`.
    Project,
    /// `event:*`.
    Event,
}

impl Target {
    /// Returns what a path is.
    pub fn of(path: &str) -> Self {
        let Some(below) = path.strip_prefix("/api/0/") else { return Self::Unknown };
        if below.is_empty() {
            return Self::Known(Route::Root);
        }
        let Some(below) = below.strip_suffix('/') else { return Self::MissingSlash };
        let segments: Vec<String> =
            below.split('/').map(|segment| decoded(segment, Plus::IsItself)).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        known(&segments).map_or(Self::Unknown, Self::Known)
    }
}

fn known(segments: &[&str]) -> Option<Route> {
    let owned = |text: &str| text.to_owned();
    match segments {
        ["auth"] => Some(Route::Auth),
        ["users", "me", "regions"] => Some(Route::Regions),
        ["organizations"] => Some(Route::Organizations),
        ["projects"] => Some(Route::AllProjects),
        ["organizations", organization, rest @ ..] => {
            in_organization(rest).map(|resource| Route::Organization(owned(organization), resource))
        }
        ["projects", organization, project, rest @ ..] => {
            in_project(rest).map(|resource| Route::Project(owned(organization), owned(project), resource))
        }
        ["teams", organization, team] => Some(Route::Team(owned(organization), owned(team))),
        ["teams", organization, team, "projects"] => {
            Some(Route::TeamProjects(owned(organization), owned(team)))
        }
        ["issues" | "groups", issue] => Some(Route::Issue(owned(issue))),
        ["issues" | "groups", issue, rest @ ..] => {
            in_issue(rest).map(|resource| Route::OfIssue(owned(issue), resource))
        }
        _ => None,
    }
}

fn in_organization(segments: &[&str]) -> Option<InOrganization> {
    match segments {
        [] => Some(InOrganization::Detail),
        ["projects"] => Some(InOrganization::Projects),
        ["teams"] => Some(InOrganization::Teams),
        ["members"] => Some(InOrganization::Members),
        ["environments"] => Some(InOrganization::Environments),
        ["releases"] => Some(InOrganization::Releases),
        ["releases", version] => Some(InOrganization::Release((*version).to_owned())),
        ["issues"] => Some(InOrganization::Issues),
        ["issues", issue] => Some(InOrganization::Issue((*issue).to_owned())),
        ["shortids", issue] => Some(InOrganization::ShortId((*issue).to_owned())),
        ["releases", version, "deploys"] => Some(InOrganization::Deploys((*version).to_owned())),
        ["issues", issue, rest @ ..] => {
            in_issue(rest).map(|resource| InOrganization::OfIssue((*issue).to_owned(), resource))
        }
        ["repos"] => Some(InOrganization::Repositories),
        ["monitors"] => Some(InOrganization::Monitors),
        ["events"] => Some(InOrganization::Events),
        ["events", "validate"] => Some(InOrganization::EventsValidation),
        ["events", event] => {
            let (project, event) = event.split_once(':')?;
            Some(InOrganization::Event(project.to_owned(), event.to_owned()))
        }
        ["trace", trace] => Some(InOrganization::Trace((*trace).to_owned())),
        ["replay-count"] => Some(InOrganization::ReplayCount),
        ["dashboards" | "tags" | "issues-stats" | "sentry-app-installations"]
        | ["releases", _, "commits"] => Some(InOrganization::Empty),
        _ => None,
    }
}

fn in_issue(segments: &[&str]) -> Option<InIssue> {
    match segments {
        ["events"] => Some(InIssue::Events),
        ["events", event] => Some(InIssue::Event((*event).to_owned())),
        ["tags"] => Some(InIssue::Tags),
        ["tags", key] => Some(InIssue::Tag((*key).to_owned())),
        ["autofix"] => Some(InIssue::Autofix),
        ["external-issues" | "hashes"] => Some(InIssue::Empty),
        _ => None,
    }
}

fn in_project(segments: &[&str]) -> Option<InProject> {
    match segments {
        [] => Some(InProject::Detail),
        ["issues"] => Some(InProject::Issues),
        ["keys"] => Some(InProject::Keys),
        ["releases"] => Some(InProject::Releases),
        ["releases", version] => Some(InProject::Release((*version).to_owned())),
        ["events"] => Some(InProject::Events),
        ["events", event] => Some(InProject::Event((*event).to_owned())),
        ["stacktrace-link"] => Some(InProject::StacktraceLink),
        _ => None,
    }
}

impl Route {
    /// Returns the value of `Allow`.
    pub const fn allow(&self) -> &'static str {
        match self {
            Self::Organizations | Self::TeamProjects(..) => "GET, POST, HEAD, OPTIONS",
            Self::Team(..) | Self::Issue(_) => "GET, PUT, DELETE, HEAD, OPTIONS",
            Self::Organization(_, resource) => resource.allow(),
            Self::Project(_, _, resource) => resource.allow(),
            Self::Root | Self::Auth | Self::Regions | Self::AllProjects | Self::OfIssue(..) => {
                "GET, HEAD, OPTIONS"
            }
        }
    }

    /// Returns whether the route has a method.
    pub fn has(&self, method: &Method) -> bool {
        self.allow().split(", ").any(|name| name == method.as_str())
    }

    /// Returns which family of scopes the route asks for.
    pub const fn permission(&self) -> Permission {
        match self {
            Self::Root => Permission::Anyone,
            Self::Auth | Self::Regions => Permission::Authenticated,
            Self::Organizations => Permission::Organization,
            Self::AllProjects | Self::TeamProjects(..) => Permission::Project,
            Self::Team(..) => Permission::Team,
            Self::Issue(_) | Self::OfIssue(..) => Permission::Event,
            Self::Organization(_, resource) => resource.permission(),
            Self::Project(_, _, resource) => resource.permission(),
        }
    }
}

impl InOrganization {
    const fn allow(&self) -> &'static str {
        match self {
            Self::Detail | Self::Release(_) | Self::Issues | Self::Issue(_) => {
                "GET, PUT, DELETE, HEAD, OPTIONS"
            }
            Self::Teams
            | Self::Members
            | Self::Releases
            | Self::Deploys(_)
            | Self::Repositories
            | Self::Monitors
            | Self::Empty => "GET, POST, HEAD, OPTIONS",
            Self::Projects
            | Self::Environments
            | Self::ShortId(_)
            | Self::OfIssue(..)
            | Self::Events
            | Self::EventsValidation
            | Self::Event(..)
            | Self::Trace(_)
            | Self::ReplayCount => "GET, HEAD, OPTIONS",
        }
    }

    const fn permission(&self) -> Permission {
        match self {
            Self::Detail
            | Self::Projects
            | Self::Environments
            | Self::Repositories
            | Self::Monitors
            | Self::Events
            | Self::EventsValidation
            | Self::Event(..)
            | Self::Trace(_)
            | Self::ReplayCount
            | Self::Empty => Permission::Organization,
            Self::Teams => Permission::Team,
            Self::Members => Permission::Member,
            Self::Releases | Self::Release(_) | Self::Deploys(_) => Permission::Project,
            Self::Issues | Self::Issue(_) | Self::OfIssue(..) | Self::ShortId(_) => Permission::Event,
        }
    }
}

impl InProject {
    const fn allow(&self) -> &'static str {
        match self {
            Self::Detail | Self::Issues | Self::Release(_) => "GET, PUT, DELETE, HEAD, OPTIONS",
            Self::Keys | Self::Releases => "GET, POST, HEAD, OPTIONS",
            Self::Events | Self::Event(_) | Self::StacktraceLink => "GET, HEAD, OPTIONS",
        }
    }

    const fn permission(&self) -> Permission {
        match self {
            Self::Detail | Self::Keys | Self::Releases | Self::Release(_) | Self::StacktraceLink => {
                Permission::Project
            }
            Self::Issues | Self::Events | Self::Event(_) => Permission::Event,
        }
    }
}

impl Permission {
    /// Returns the scopes one of which a method needs; none at all means that nobody may use the method.
    ///
    /// HEAD and PATCH are in none of Sentry's scope tables: it answers them 403, whatever the token.
    pub fn scopes(self, method: &Method) -> &'static [&'static str] {
        let [read, write, remove] = match self {
            Self::Anyone | Self::Authenticated => return &[],
            Self::Organization => ORGANIZATION,
            Self::Member => MEMBER,
            Self::Team => TEAM,
            Self::Project => PROJECT,
            Self::Event => EVENT,
        };
        match *method {
            Method::GET => read,
            Method::POST | Method::PUT => write,
            Method::DELETE => remove,
            _ => &[],
        }
    }
}

type ScopeTable = [&'static [&'static str]; 3];

const ORGANIZATION: ScopeTable =
    [&["org:read", "org:write", "org:admin"], &["org:write", "org:admin"], &["org:admin"]];
const MEMBER: ScopeTable =
    [&["member:read", "member:write", "member:admin"], &["member:write", "member:admin"], &["member:admin"]];
const TEAM: ScopeTable =
    [&["team:read", "team:write", "team:admin"], &["team:write", "team:admin"], &["team:admin"]];
const PROJECT: ScopeTable = [
    &["project:read", "project:write", "project:admin", "project:releases"],
    &["project:write", "project:admin"],
    &["project:admin"],
];
const EVENT: ScopeTable =
    [&["event:read", "event:write", "event:admin"], &["event:write", "event:admin"], &["event:admin"]];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_only_with_its_slash() {
        assert_eq!(Target::of("/api/0/organizations/"), Target::Known(Route::Organizations));
        assert_eq!(Target::of("/api/0/organizations"), Target::MissingSlash);
        assert_eq!(Target::of("/api/0/nothing-here"), Target::MissingSlash);
        assert_eq!(Target::of("/api/0/nothing-here/"), Target::Unknown);
        assert_eq!(Target::of("/"), Target::Unknown);
        assert_eq!(Target::of("/api/0/"), Target::Known(Route::Root));
    }

    #[test]
    fn an_encoded_slash_stays_inside_its_segment() {
        let release = InOrganization::Release("web/1.0@2".to_owned());
        let expected = Target::Known(Route::Organization("org-001".to_owned(), release));
        assert_eq!(Target::of("/api/0/organizations/org-001/releases/web%2F1.0%402/"), expected);
    }

    #[test]
    fn head_and_patch_are_in_no_scope_table() {
        for method in [Method::HEAD, Method::PATCH] {
            assert!(Permission::Organization.scopes(&method).is_empty());
        }
    }
}

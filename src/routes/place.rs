//! Says where a path lies in Sentry's URL space: whose it is, and what it shows.
//!
//! Most paths name their organization, some name a single issue and leave it to Sentry to find out whose that is, and a
//! few belong to nobody. What within an organization changes together is an [`Area`].
//!
//! Invariant: a path that says nothing about its organization is `Unknown`, never nobody's, unless it is listed here.
//! Pure. Not here: the tags that follow (`routes::tags`), rules and classes (`routes`).

/// The prefix under which Sentry's organizations live.
const ORGANIZATIONS: &str = "/api/0/organizations/";

/// Prefixes outside [`ORGANIZATIONS`] whose first segment names an organization as well.
const PROJECTS: &str = "/api/0/projects/";
const TEAMS: &str = "/api/0/teams/";

/// Prefixes under which a single issue is reached without a word about its organization.
const ISSUES: [&str; 2] = ["/api/0/issues/", "/api/0/groups/"];

/// Prefixes of what belongs to no organization: users, their tokens, logging in, Sentry's own health.
const APART: [&str; 4] = ["/api/0/users/", "/api/0/auth/", "/api/0/internal/health/", "/oauth/"];

/// First segments below an organization, or their beginnings, whose answers show issues: lists, counts, what is searched by
/// `is:unresolved`, and events with their issue.
const SHOWING_ISSUES: [&str; 9] =
    ["issue", "shortids", "eventids", "events", "group", "tags", "user-feedback", "user-reports", "users"];

/// First segments below an organization, or their beginnings, whose answers show releases: a project names its latest one,
/// a deploy makes an environment.
const SHOWING_RELEASES: [&str; 6] =
    ["release", "projects", "environments", "repos", "sessions", "artifactbundle"];

/// First segments below an organization, or their beginnings, whose answers show monitors.
const SHOWING_MONITORS: [&str; 1] = ["monitors"];

/// What within an organization changes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Area {
    /// Issues, and lists, counts and search results that show them. Which of them a write reaches no path tells: an issue has
    /// a number and a short id, may be spelled in several ways, and was perhaps merged with another one.
    Issues,
    /// Releases, and lists, counts and projects that show them. A release names its neighbours.
    Releases,
    /// Monitors, and their lists and counts. A monitor has a slug and an identifier.
    Monitors,
}

impl Area {
    /// Returns the one spelling of the area.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Issues => "issues",
            Self::Releases => "releases",
            Self::Monitors => "monitors",
        }
    }
}

/// Where a path lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// `/api/0/organizations/{organization}/…`
    Organization,
    /// `/api/0/projects/{organization}/…`
    Projects,
    /// `/api/0/teams/{organization}/…`
    Teams,
}

/// Whose a path is, and what within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place<'a> {
    /// An organization's.
    Organization {
        /// Where.
        home: Home,
        /// The organization's name as the path spells it.
        name: &'a str,
        /// The segments after that name.
        segments: Vec<&'a str>,
    },
    /// Some organization's, but which one the path does not say; a single issue, perhaps.
    Unknown {
        /// The issue's number or short id.
        issue: Option<&'a str>,
    },
    /// The list of organizations.
    List,
    /// No organization's: a user, logging in, Sentry's own health.
    Apart,
}

/// Where each home begins.
const HOMES: [(&str, Home); 3] =
    [(ORGANIZATIONS, Home::Organization), (PROJECTS, Home::Projects), (TEAMS, Home::Teams)];

/// Returns the same path under another name of its organization; `None` where it names none.
pub fn renamed(path: &str, other_name: &str) -> Option<String> {
    let (prefix, below) = HOMES.iter().find_map(|(prefix, _)| Some((prefix, path.strip_prefix(prefix)?)))?;
    let (name, rest) = below.split_once('/')?;
    (!name.is_empty()).then(|| format!("{prefix}{other_name}/{rest}"))
}

impl<'a> Place<'a> {
    /// Returns the place of a normalized path.
    pub fn of(path: &'a str) -> Self {
        let at_home = HOMES.into_iter().find_map(|(prefix, home)| Some((home, path.strip_prefix(prefix)?)));
        if let Some((home, below)) = at_home {
            let mut segments = below.split('/').filter(|segment| !segment.is_empty());
            if let Some(name) = segments.next() {
                return Self::Organization { home, name, segments: segments.collect() };
            }
        }
        if path == ORGANIZATIONS {
            return Self::List;
        }
        if APART.iter().any(|prefix| path.starts_with(prefix)) {
            return Self::Apart;
        }
        let issue = ISSUES.iter().find_map(|prefix| path.strip_prefix(prefix)?.split('/').next());
        Self::Unknown { issue: issue.filter(|issue| !issue.is_empty()) }
    }

    /// Returns the organization's name as the path spells it.
    pub fn organization(&self) -> Option<&'a str> {
        match self {
            Self::Organization { name, .. } => Some(name),
            Self::Unknown { .. } | Self::List | Self::Apart => None,
        }
    }

    /// Returns whether it lies within an organization, and is not the organization itself.
    pub fn is_within(&self) -> bool {
        matches!(self, Self::Organization { segments, .. } if !segments.is_empty())
    }

    /// Returns the areas that an answer belongs to.
    pub fn areas(&self) -> Vec<Area> {
        match self {
            Self::Organization { home: Home::Organization, segments, .. } => match segments.as_slice() {
                // With its projects, each of which names its latest release.
                [] => vec![Area::Releases],
                [first, ..] => area_of(first).into_iter().collect(),
            },
            Self::Organization { home: Home::Projects, segments, .. } => match segments.as_slice() {
                [_, first, ..] => vec![area_of(first).unwrap_or(Area::Releases)],
                [] | [_] => vec![Area::Releases],
            },
            Self::Organization { home: Home::Teams, .. } => vec![Area::Issues, Area::Releases],
            Self::Unknown { issue: Some(_) } => vec![Area::Issues],
            Self::Unknown { issue: None } | Self::List | Self::Apart => Vec::new(),
        }
    }
}

/// Returns the area of what begins with a segment below an organization or a project.
fn area_of(segment: &str) -> Option<Area> {
    let begins = |beginnings: &[&str]| beginnings.iter().any(|beginning| segment.starts_with(beginning));
    if begins(&SHOWING_ISSUES) {
        Some(Area::Issues)
    } else if begins(&SHOWING_RELEASES) {
        Some(Area::Releases)
    } else {
        begins(&SHOWING_MONITORS).then_some(Area::Monitors)
    }
}

/// Returns whether a name is a number: slugs and short ids are not all digits (`sentry-api.md` §4.3).
pub fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organization_is_named_by_its_own_paths_and_by_those_of_projects_and_teams() {
        let organization = |path| Place::of(path).organization();
        assert_eq!(organization("/api/0/organizations/acme/"), Some("acme"));
        assert_eq!(organization("/api/0/projects/acme/web/issues/"), Some("acme"));
        assert_eq!(organization("/api/0/teams/acme/core/"), Some("acme"));
        for path in ["/api/0/organizations/", "/api/0/issues/1/", "/api/0/projects/", "/api/0/users/acme/"] {
            assert_eq!(organization(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_that_names_no_organization_is_somebodys_unless_it_is_known_to_be_apart() {
        for path in ["/api/0/users/me/", "/api/0/auth/", "/api/0/internal/health/", "/oauth/token/"] {
            assert_eq!(Place::of(path), Place::Apart, "{path}");
        }
        assert_eq!(Place::of("/api/0/organizations/"), Place::List);
        assert_eq!(Place::of("/api/0/issues/WEB-3/events/"), Place::Unknown { issue: Some("WEB-3") });
        assert_eq!(Place::of("/api/0/groups/1/"), Place::Unknown { issue: Some("1") });
        for path in ["/api/0/issues/", "/api/0/projects/", "/api/0/", "/api/0/organizations"] {
            assert_eq!(Place::of(path), Place::Unknown { issue: None }, "{path}");
        }
    }

    #[test]
    fn a_path_is_told_under_another_name_of_its_organization_and_of_nothing_else() {
        for (path, other) in [
            ("/api/0/organizations/acme/teams/", Some("/api/0/organizations/7/teams/")),
            ("/api/0/organizations/acme/", Some("/api/0/organizations/7/")),
            ("/api/0/projects/projects/projects/", Some("/api/0/projects/7/projects/")),
            ("/api/0/teams/acme/acme/", Some("/api/0/teams/7/acme/")),
            ("/api/0/organizations/", None),
            ("/api/0/users/acme/", None),
        ] {
            assert_eq!(renamed(path, "7").as_deref(), other, "{path}");
        }
    }

    #[test]
    fn numbers_are_all_digits() {
        assert!(is_number("4711"));
        assert!(!is_number("") && !is_number("web-3") && !is_number("4711a"));
    }
}

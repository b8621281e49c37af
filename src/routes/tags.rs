//! What a path is about: the tags by which stored responses are found when something was written or purged.
//!
//! A stored response carries the tags of its path ([`carried_by`]); a write touches tags (`cache::invalidation`), and a
//! purge names some ([`Tag::parse`]). A tag says "this very resource", "everything below it", "everything of this
//! organization", project, team, issue or release, or "all lists that show issues".
//!
//! Invariants: a path's own resource is among its tags, and so is each resource that it lies below, up to its
//! organization; what belongs to an organization carries that organization's slug, or [`Tag::Unplaced`] where only its
//! number, or not even that, is known. Pure.
//! Not here: which names are one organization's (handed in), what a write touches (`cache::invalidation`).

use std::fmt;

use crate::credential::Fingerprint;
use crate::routes::place::{self, Area, Home, Place, is_number};

/// The prefix under which Sentry's organizations live.
const ORGANIZATIONS: &str = "/api/0/organizations/";

/// One thing that stored responses can be about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Tag {
    /// Every stored response.
    Everything,
    /// Every stored response of one organization, by one of its names.
    Organization(String),
    /// Every stored response that may be of any organization: its path names none, or only by a number whose slug is not
    /// known.
    Unplaced,
    /// Every stored response whose path names its organization by a number.
    Numbered,
    /// Every stored response of one project: the names of its organization and its own.
    Project(String, String),
    /// Every stored response of one team: the names of its organization and its own.
    Team(String, String),
    /// Every stored response about one issue, by its number or its short id in capitals.
    Issue(String),
    /// Every stored response about one release: the name of its organization, and its version.
    Release(String, String),
    /// Every stored response of one area of an organization, or of all organizations.
    Area(Option<String>, Area),
    /// Every stored response that says that there is nothing.
    Absent,
    /// Every stored response of one route, by its template.
    Route(String),
    /// The resource of this path.
    Resource(String),
    /// Every resource below this path.
    Below(String),
    /// Every stored response of one credential; none for requests without one.
    Credential(Option<Fingerprint>),
    /// The resource of this path as one credential's partition sees it.
    Seen([u8; 16], String),
}

impl Tag {
    /// Returns the tag of everything about an issue: short ids are the same in any case.
    pub fn issue(name: &str) -> Self {
        Self::Issue(name.to_ascii_uppercase())
    }

    /// Returns the tag of an area of an organization.
    pub fn area(organization: &str, area: Area) -> Self {
        Self::Area(Some(organization.to_owned()), area)
    }

    /// Returns the name of the organization whose the tag is, if it is one's.
    pub fn organization(&self) -> Option<&str> {
        match self {
            Self::Organization(name)
            | Self::Project(name, _)
            | Self::Team(name, _)
            | Self::Release(name, _)
            | Self::Area(Some(name), _) => Some(name),
            Self::Resource(path) | Self::Below(path) => Place::of(path).organization(),
            Self::Everything
            | Self::Unplaced
            | Self::Numbered
            | Self::Issue(_)
            | Self::Area(None, _)
            | Self::Absent
            | Self::Route(_)
            | Self::Credential(_)
            | Self::Seen(..) => None,
        }
    }

    /// Returns the same tag under another name of its organization.
    #[must_use]
    pub fn under(&self, other_name: &str) -> Self {
        let mut tag = self.clone();
        match &mut tag {
            Self::Organization(name)
            | Self::Project(name, _)
            | Self::Team(name, _)
            | Self::Release(name, _)
            | Self::Area(Some(name), _) => other_name.clone_into(name),
            Self::Resource(path) | Self::Below(path) => {
                if let Some(other) = place::renamed(path, other_name) {
                    *path = other;
                }
            }
            Self::Everything
            | Self::Unplaced
            | Self::Numbered
            | Self::Issue(_)
            | Self::Area(None, _)
            | Self::Absent
            | Self::Route(_)
            | Self::Credential(_)
            | Self::Seen(..) => {}
        }
        tag
    }

    /// Reads a tag as operators write it: `project:acme/web`, `team:acme/core`, `issue:4711`,
    /// `release:acme/web@1.0`. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let pair = || {
            let (organization, own) = name.split_once('/')?;
            (!organization.is_empty() && !own.is_empty()).then(|| (organization.to_owned(), own.to_owned()))
        };
        match kind {
            _ if name.is_empty() => None,
            "project" => pair().map(|(organization, own)| Self::Project(organization, own)),
            "team" => pair().map(|(organization, own)| Self::Team(organization, own)),
            "issue" => Some(Self::issue(name)),
            // A slash of a version's own is escaped in paths.
            "release" => {
                pair().map(|(organization, own)| Self::Release(organization, own.replace('/', "%2F")))
            }
            _ => None,
        }
    }
}

/// Writes what a tag names, as [`Tag::parse`] reads it where it does; of a credential only its fingerprint.
impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => formatter.write_str("everything"),
            Self::Organization(name) => write!(formatter, "organization:{name}"),
            Self::Unplaced => formatter.write_str("unplaced"),
            Self::Numbered => formatter.write_str("numbered"),
            Self::Project(organization, name) => write!(formatter, "project:{organization}/{name}"),
            Self::Team(organization, name) => write!(formatter, "team:{organization}/{name}"),
            Self::Issue(name) => write!(formatter, "issue:{name}"),
            Self::Release(organization, version) => write!(formatter, "release:{organization}/{version}"),
            Self::Area(Some(organization), area) => write!(formatter, "{}:{organization}", area.label()),
            Self::Area(None, area) => formatter.write_str(area.label()),
            Self::Absent => formatter.write_str("absent"),
            Self::Route(template) => write!(formatter, "route:{template}"),
            Self::Resource(path) => write!(formatter, "resource:{path}"),
            Self::Below(path) => write!(formatter, "below:{path}"),
            Self::Credential(Some(fingerprint)) => write!(formatter, "credential:{fingerprint}"),
            Self::Credential(None) => formatter.write_str("credential:none"),
            Self::Seen(_, path) => write!(formatter, "seen:{path}"),
        }
    }
}

/// Returns the tags that a stored response of `path` carries whoever asked, besides [`Tag::Everything`]. The path comes
/// normalized and without its query: variants by query are one resource. `further_names` are those that the path's
/// organization has besides the one in the path.
pub fn carried_by(path: &str, further_names: &[String]) -> Vec<Tag> {
    let path = with_slash(path);
    let mut tags = vec![Tag::Resource(path.clone())];
    tags.extend(ancestors(&path).map(|ancestor| Tag::Below(ancestor.to_owned())));
    let place = Place::of(&path);
    tags.extend(place.areas().into_iter().map(|area| Tag::Area(None, area)));
    match &place {
        Place::Organization { name, .. } => {
            tags.extend(under_name(name, &place));
            tags.extend(further_names.iter().flat_map(|name| under_name(name, &place)));
            if is_number(name) {
                tags.push(Tag::Numbered);
                tags.extend(further_names.is_empty().then_some(Tag::Unplaced));
            }
        }
        Place::Unknown { issue } => {
            tags.push(Tag::Unplaced);
            tags.extend(issue.map(Tag::issue));
        }
        Place::List | Place::Apart => {}
    }
    tags
}

/// Returns the tags of an organization's path that hold under one of the organization's names.
fn under_name(name: &str, place: &Place<'_>) -> Vec<Tag> {
    let Place::Organization { home, segments, .. } = place else { return Vec::new() };
    let mut tags = vec![Tag::Organization(name.to_owned())];
    tags.extend(place.areas().into_iter().map(|area| Tag::area(name, area)));
    let named = |tag: fn(String, String) -> Tag, own: &str| tag(name.to_owned(), own.to_owned());
    let within = match (home, segments.as_slice()) {
        (Home::Projects, [project, within @ ..])
        | (Home::Organization, ["projects", project, within @ ..]) => {
            tags.push(named(Tag::Project, project));
            within
        }
        (Home::Teams, [team, ..]) => {
            tags.push(named(Tag::Team, team));
            &[]
        }
        (Home::Organization, within) => within,
        (Home::Projects | Home::Teams, []) => &[],
    };
    match within {
        ["issues", issue, ..] => tags.push(Tag::issue(issue)),
        ["releases", version, ..] => tags.push(named(Tag::Release, version)),
        _ => {}
    }
    tags
}

/// Returns the path of the organization itself, `/api/0/organizations/{organization}/`, if `path` lies there.
fn organization_root(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(ORGANIZATIONS)?;
    let name = rest.split('/').next().filter(|name| !name.is_empty())?;
    path.get(..ORGANIZATIONS.len() + name.len() + 1)
}

/// Returns the path of the list of organizations.
pub fn organization_list() -> &'static str {
    ORGANIZATIONS
}

/// Returns the proper ancestors of a path, nearest first, down to `/api/0/organizations/{organization}/` where
/// it lies there, otherwise to the first segment after `/api/0/`.
pub fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let shortest = organization_root(path).map_or("/api/0/".len() + 1, str::len);
    let mut current = path;
    std::iter::from_fn(move || {
        let parent = current.strip_suffix('/').unwrap_or(current);
        current = parent.get(..=parent.rfind('/')?)?;
        (current.len() >= shortest).then_some(current)
    })
}

/// Returns the path with a slash at its end: with and without are the same resource where both exist (SCIM).
pub fn with_slash(path: &str) -> String {
    let mut path = path.to_owned();
    if !path.ends_with('/') {
        path.push('/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: &str = "/api/0/organizations/acme/";

    fn carries(path: &str, expected: &[&str]) {
        let carried: Vec<String> = carried_by(path, &[]).iter().map(ToString::to_string).collect();
        for tag in expected {
            assert!(carried.iter().any(|carried| carried == tag), "{path} lacks {tag}: {carried:?}");
        }
    }

    fn lacks(path: &str, unexpected: &[&str]) {
        let carried: Vec<String> = carried_by(path, &[]).iter().map(ToString::to_string).collect();
        for tag in unexpected {
            assert!(carried.iter().all(|carried| carried != tag), "{path} carries {tag}: {carried:?}");
        }
    }

    #[test]
    fn ancestors_end_at_the_organization() {
        let all = |path| ancestors(path).collect::<Vec<_>>();
        assert_eq!(
            all("/api/0/organizations/acme/issues/1/events/"),
            [
                "/api/0/organizations/acme/issues/1/",
                "/api/0/organizations/acme/issues/",
                "/api/0/organizations/acme/"
            ]
        );
        assert!(all("/api/0/organizations/acme/").is_empty());
        assert!(all("/api/0/organizations/").is_empty());
        assert_eq!(all("/api/0/projects/acme/web/"), ["/api/0/projects/acme/", "/api/0/projects/"]);
        assert!(all("/api/0/").is_empty());
    }

    #[test]
    fn a_path_carries_itself_its_organization_and_what_it_lies_below() {
        let path = "/api/0/organizations/acme/scim/v2/Users";
        carries(path, &["resource:/api/0/organizations/acme/scim/v2/Users/", "organization:acme"]);
        carries(path, &["below:/api/0/organizations/acme/scim/v2/", "below:/api/0/organizations/acme/"]);
        lacks(path, &["unplaced", "issues:acme", "releases:acme"]);
    }

    #[test]
    fn a_path_carries_the_project_team_issue_and_release_that_it_names() {
        carries("/api/0/projects/acme/web/issues/", &["project:acme/web", "issues:acme", "issues"]);
        carries("/api/0/projects/acme/web/", &["project:acme/web", "releases:acme"]);
        carries("/api/0/projects/acme/web/releases/1.0/", &["release:acme/1.0", "releases:acme"]);
        carries("/api/0/teams/acme/core/projects/", &["team:acme/core", "organization:acme"]);
        let issue = format!("{ACME}issues/web-3/events/");
        carries(&issue, &["issue:WEB-3", "issues:acme", "issues"]);
        carries(&format!("{ACME}issues/4711/"), &["issue:4711", "issues:acme"]);
        let release = format!("{ACME}releases/a%2Fb@1/files/");
        carries(&release, &["release:acme/a%2Fb@1", "releases:acme"]);
    }

    #[test]
    fn lists_and_counts_carry_the_area_of_what_they_show() {
        for below in [
            "issues/",
            "issues-count/",
            "issues-stats/",
            "shortids/WEB-3/",
            "events/",
            "tags/",
            "users/issues/",
        ] {
            carries(&format!("{ACME}{below}"), &["issues:acme", "issues"]);
        }
        for below in
            ["", "releases/", "release-threshold-statuses/", "projects/", "environments/", "repos/1/commits/"]
        {
            carries(&format!("{ACME}{below}"), &["releases:acme"]);
            lacks(&format!("{ACME}{below}"), &["issues:acme"]);
        }
        for below in ["monitors/", "monitors-stats/", "monitors/nightly/checkins/"] {
            carries(&format!("{ACME}{below}"), &["monitors:acme"]);
        }
        for below in ["members/", "dashboards/5/", "stats_v2/"] {
            lacks(&format!("{ACME}{below}"), &["issues:acme", "releases:acme"]);
        }
    }

    #[test]
    fn what_names_its_organization_by_an_unknown_number_or_not_at_all_is_unplaced() {
        carries("/api/0/organizations/4711/projects/", &["organization:4711", "unplaced", "numbered"]);
        carries("/api/0/issues/1/events/latest/", &["issue:1", "unplaced", "issues"]);
        carries("/api/0/groups/WEB-3/", &["issue:WEB-3", "unplaced"]);
        carries("/api/0/projects/", &["unplaced"]);
        for path in [ACME, "/api/0/organizations/", "/api/0/users/me/regions/", "/api/0/auth/"] {
            lacks(path, &["unplaced"]);
        }
    }

    #[test]
    fn with_its_further_names_a_path_carries_everything_under_each() {
        let carried = carried_by("/api/0/organizations/4711/releases/1.0/", &["acme".to_owned()]);
        for tag in ["organization:4711", "organization:acme", "release:acme/1.0", "releases:acme"] {
            assert!(carried.iter().any(|carried| carried.to_string() == tag), "{tag}");
        }
        assert!(carried.contains(&Tag::Numbered) && !carried.contains(&Tag::Unplaced));
    }

    #[test]
    fn a_tag_of_an_organization_is_told_under_its_other_name_and_any_other_tag_stays() {
        for (tag, other) in [
            ("project:acme/web", "project:4711/web"),
            ("team:acme/core", "team:4711/core"),
            ("release:acme/1.0", "release:4711/1.0"),
            ("issue:1", "issue:1"),
        ] {
            let tag = Tag::parse(tag).unwrap();
            assert_eq!(tag.under("4711").to_string(), other);
            assert_eq!(tag.organization().is_some(), tag.under("4711") != tag);
        }
        assert_eq!(Tag::area("acme", Area::Issues).under("4711"), Tag::area("4711", Area::Issues));
        let tag = |path: &str| Tag::Resource(path.to_owned());
        let projects = |name: &str| tag(&format!("/api/0/projects/{name}/web/"));
        assert_eq!(projects("acme").under("4711"), projects("4711"));
        assert_eq!(tag("/api/0/users/me/").under("4711"), tag("/api/0/users/me/"));
        assert_eq!(Tag::Area(None, Area::Issues).under("4711"), Tag::Area(None, Area::Issues));
    }

    #[test]
    fn tags_are_read_as_they_are_written() {
        for text in ["project:acme/web", "team:acme/core", "issue:WEB-3", "release:acme/web@1.0"] {
            assert_eq!(Tag::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Tag::parse("issue:web-3"), Some(Tag::Issue("WEB-3".to_owned())));
        assert_eq!(Tag::parse("release:acme/a/b"), Some(Tag::Release("acme".to_owned(), "a%2Fb".to_owned())));
        for text in [
            "",
            "acme",
            "organization:acme",
            "project:acme",
            "project:/web",
            "release:acme/",
            "seen:x",
            "everything",
        ] {
            assert_eq!(Tag::parse(text), None, "{text}");
        }
    }
}

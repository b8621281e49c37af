//! What a path is about: the tags by which stored responses are found when something was written.
//!
//! A stored response carries the tags of its path ([`carried_by`]); a write touches tags (`cache::invalidation`).
//! A tag says "this very resource", "everything below this resource" or "everything of this organization".
//!
//! Invariant: a path's own resource is among its tags, and so is each resource that it lies below, up to its
//! organization, so that a write to any of them can reach it. Not here: identifiers that only bodies tell.

/// The prefix under which Sentry's organizations live.
const ORGANIZATIONS: &str = "/api/0/organizations/";

/// Prefixes outside [`ORGANIZATIONS`] whose first segment names an organization as well.
const NAMED_BY_ORGANIZATION: [&str; 2] = ["/api/0/projects/", "/api/0/teams/"];

/// One thing that stored responses can be about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Tag {
    /// Every stored response.
    Everything,
    /// Every stored response of one organization, as it is spelled in paths.
    Organization(String),
    /// The resource of this path.
    Resource(String),
    /// Every resource below this path.
    Below(String),
    /// Every stored response of one credential's partition, by its bytes.
    Partition([u8; 16]),
    /// The resource of this path as one credential's partition sees it.
    Seen([u8; 16], String),
}

/// Returns the tags that a stored response of `path` carries whoever asked, besides [`Tag::Everything`]. The path comes
/// normalized and without its query: variants by query are one resource.
pub fn carried_by(path: &str) -> Vec<Tag> {
    let path = with_slash(path);
    let mut tags = vec![Tag::Resource(path.clone())];
    tags.extend(organization(&path).map(|name| Tag::Organization(name.to_owned())));
    tags.extend(ancestors(&path).map(|ancestor| Tag::Below(ancestor.to_owned())));
    tags
}

/// Returns the organization that a path names, if it names one.
pub fn organization(path: &str) -> Option<&str> {
    let rest = std::iter::once(ORGANIZATIONS)
        .chain(NAMED_BY_ORGANIZATION)
        .find_map(|prefix| path.strip_prefix(prefix))?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

/// Returns the path of the organization itself, `/api/0/organizations/{organization}/`, if `path` lies there.
pub fn organization_root(path: &str) -> Option<&str> {
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
        let tags = carried_by("/api/0/organizations/acme/scim/v2/Users");
        assert!(tags.contains(&Tag::Resource("/api/0/organizations/acme/scim/v2/Users/".to_owned())));
        assert!(tags.contains(&Tag::Organization("acme".to_owned())));
        assert!(tags.contains(&Tag::Below("/api/0/organizations/acme/scim/v2/".to_owned())));
        assert!(tags.contains(&Tag::Below("/api/0/organizations/acme/".to_owned())));
    }

    #[test]
    fn an_organization_is_named_by_its_own_paths_and_by_those_of_projects_and_teams() {
        assert_eq!(organization("/api/0/organizations/acme/"), Some("acme"));
        assert_eq!(organization("/api/0/projects/acme/web/issues/"), Some("acme"));
        assert_eq!(organization("/api/0/teams/acme/core/"), Some("acme"));
        assert_eq!(organization("/api/0/organizations/"), None);
        assert_eq!(organization("/api/0/issues/1/"), None);
    }
}

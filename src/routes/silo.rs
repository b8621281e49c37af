//! Which silo of Sentry serves a path, and which organization a path names (`sentry-api.md` §6). Pure.
//!
//! A deployment of Sentry with regions has one *control silo* (`sentry.io`: users, tokens, integrations) and a silo for each
//! region, where organizations live. A region answers a path of the control silo with a bare 404.
//!
//! Invariants: spelling a path with other escapes never leads to another silo, and an escaped slash never ends a segment;
//! what is not in the table belongs to the region. Not here: where the silos are (`regions`).

use std::sync::LazyLock;

use crate::routes::template::{Template, decoded};
use crate::routes::tree::Node;

/// A part of a deployment of Sentry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silo {
    /// The one that every region shares.
    Control,
    /// That of the region where the organization lives.
    Region,
}

/// What the control silo serves; `static/app/data/controlsiloUrlPatterns.ts` of Sentry says the same.
const CONTROL: &[&str] = &[
    "/api/0/organizations/{organization}/api-keys/{*rest}",
    "/api/0/organizations/{organization}/audit-logs/",
    "/api/0/organizations/{organization}/integrations/",
    "/api/0/organizations/{organization}/integrations/{integration}/",
    "/api/0/organizations/{organization}/integrations/{integration}/channels/",
    "/api/0/organizations/{organization}/integrations/{integration}/channel-validate/",
    "/api/0/organizations/{organization}/sentry-app-installations/",
    "/api/0/organizations/{organization}/sentry-apps/",
    "/api/0/organizations/{organization}/sentry-app-components/",
    "/api/0/organizations/{organization}/org-auth-tokens/{*rest}",
    "/api/0/organizations/{organization}/broadcasts/",
    "/api/0/organizations/{organization}/data-secrecy/",
    "/api/0/organizations/{organization}/region/",
    "/api/0/organizations/{organization}/partnership-agreements/",
    "/api/0/users/{*rest}",
    "/api/0/auth/{*rest}",
    "/api/0/internal/health/{*rest}",
    "/oauth/{*rest}",
];

/// [`CONTROL`], ready for look-ups.
static CONTROL_PATHS: LazyLock<Node> = LazyLock::new(|| {
    let mut root = Node::default();
    for (position, route) in CONTROL.iter().enumerate() {
        // A test reads every one of them.
        if let Ok(template) = Template::parse(route) {
            root.insert(template.segments(), position);
        }
    }
    root
});

/// Segments after `/api/0/` behind which the name of an organization stands.
const NAMING: [&str; 3] = ["organizations", "projects", "teams"];

/// Returns the silo that serves a path, which is spelled as the client sent it and was admitted.
pub fn silo_of(path: &str) -> Silo {
    match path.strip_prefix('/').and_then(|rest| CONTROL_PATHS.find(Some(rest))) {
        Some(_) => Silo::Control,
        None => Silo::Region,
    }
}

/// Returns the organization that a path names, by its id or slug and without escapes; `None` where it names none.
pub fn organization_in(path: &str) -> Option<String> {
    let mut segments = below_api(path)?;
    let naming = segments.next()?;
    if !NAMING.iter().any(|literal| spells(naming, literal)) {
        return None;
    }
    String::from_utf8(decoded(segments.next()?).collect()).ok().filter(|name| !name.is_empty())
}

/// Returns whether a path is that of the list of organizations.
pub fn is_organization_list(path: &str) -> bool {
    let Some(mut segments) = below_api(path) else { return false };
    let is_named = segments.next().is_some_and(|segment| spells(segment, "organizations"));
    is_named && segments.next() == Some("") && segments.next().is_none()
}

/// Returns the segments of a path after `/api/0/`.
fn below_api(path: &str) -> Option<impl Iterator<Item = &str>> {
    let mut segments = path.strip_prefix('/')?.split('/');
    let is_api = segments.next().is_some_and(|segment| spells(segment, "api"));
    (is_api && segments.next().is_some_and(|segment| spells(segment, "0"))).then_some(segments)
}

/// Returns whether a segment stands for a text.
fn spells(segment: &str, text: &str) -> bool {
    decoded(segment).eq(text.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(silo: Silo, paths: &[&str]) {
        for path in paths {
            assert_eq!(silo_of(path), silo, "{path}");
        }
    }

    #[test]
    fn every_row_of_the_table_is_a_template() {
        for route in CONTROL {
            assert!(Template::parse(route).is_ok(), "{route}");
        }
    }

    #[test]
    fn every_row_is_the_control_silos() {
        check(
            Silo::Control,
            &[
                "/api/0/organizations/acme/api-keys/",
                "/api/0/organizations/acme/api-keys/12/",
                "/api/0/organizations/acme/audit-logs/",
                "/api/0/organizations/4711/integrations/",
                "/api/0/organizations/acme/integrations/12/",
                "/api/0/organizations/acme/integrations/12/channels/",
                "/api/0/organizations/acme/integrations/12/channel-validate/",
                "/api/0/organizations/acme/sentry-app-installations/",
                "/api/0/organizations/acme/sentry-apps/",
                "/api/0/organizations/acme/sentry-app-components/",
                "/api/0/organizations/acme/org-auth-tokens/",
                "/api/0/organizations/acme/org-auth-tokens/7/",
                "/api/0/organizations/acme/broadcasts/",
                "/api/0/organizations/acme/data-secrecy/",
                "/api/0/organizations/acme/region/",
                "/api/0/organizations/acme/partnership-agreements/",
                "/api/0/users/",
                "/api/0/users/me/",
                "/api/0/users/me/regions/",
                "/api/0/auth/",
                "/api/0/auth/login/",
                "/api/0/internal/health/",
                "/oauth/token/",
                "/oauth/device/code",
            ],
        );
    }

    #[test]
    fn a_neighbour_of_a_row_is_the_regions() {
        check(
            Silo::Region,
            &[
                "/api/0/organizations/",
                "/api/0/organizations/acme/",
                "/api/0/organizations/acme/audit-logs",
                "/api/0/organizations/acme/audit-logs/1/",
                "/api/0/organizations/acme/integrations/12/repos/",
                "/api/0/organizations/acme/integrations/12/channels/1/",
                "/api/0/organizations/acme/config/integrations/",
                "/api/0/organizations/acme/sentry-apps/1/",
                "/api/0/organizations/acme/sentry-apps-stats/",
                "/api/0/organizations/acme/projects/integrations/",
                "/api/0/organizations/acme/issues/users/",
                "/api/0/organizations/integrations/",
                "/api/0/projects/acme/web/integrations/",
                "/api/0/issues/1/",
                "/api/0/internal/options/",
                "/api/0/user/",
                "/api/0/",
                "/api/1/users/",
                "/users/",
                "/",
                "",
            ],
        );
    }

    #[test]
    fn an_escaped_letter_leads_nowhere_else_and_an_escaped_slash_ends_nothing() {
        check(
            Silo::Control,
            &[
                "/api/0/%75sers/me/",
                "/%61pi/%30/users/me/",
                "/api/0/organizations/acme/audit%2Dlogs/",
                "/api/0/organizations/ac%2Fme/region/",
                "/api/0/organizations/acme/%69ntegrations/1%2F2/",
            ],
        );
        check(
            Silo::Region,
            &[
                "/api/0%2Fusers/me/",
                "/api/0/users%2Fme/",
                "/api/0/organizations/acme%2Fintegrations/",
                "/api/0/organizations/acme/integrations%2F12/",
                "/api/0/organizations/acme/integrations/12%2Fchannels/x/",
            ],
        );
    }

    #[test]
    fn an_organization_is_named_behind_three_segments() {
        for (path, name) in [
            ("/api/0/organizations/acme/", Some("acme")),
            ("/api/0/organizations/acme", Some("acme")),
            ("/api/0/organizations/4711/issues/", Some("4711")),
            ("/api/0/projects/acme/web/issues/", Some("acme")),
            ("/api/0/teams/acme/core/", Some("acme")),
            ("/api/0/%6frganizations/%61cme/", Some("acme")),
            ("/api/0/organizations/ac%2Fme/", Some("ac/me")),
            ("/api/0/organizations/%ff/", None),
            ("/api/0/organizations/", None),
            ("/api/0/organizations", None),
            ("/api/0/projects/", None),
            ("/api/0/issues/1/", None),
            ("/api/0/users/me/", None),
            ("/api/0/organizations%2Facme/", None),
            ("/oauth/token/", None),
            ("", None),
        ] {
            assert_eq!(organization_in(path).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn the_list_of_organizations_is_one_path() {
        assert!(is_organization_list("/api/0/organizations/"));
        assert!(is_organization_list("/api/0/%6Frganizations/"));
        for path in ["/api/0/organizations", "/api/0/organizations/acme/", "/api/0/projects/", "/api/0/", ""]
        {
            assert!(!is_organization_list(path), "{path}");
        }
    }
}

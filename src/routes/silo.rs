//! Says which silo of Sentry serves a path (`sentry-api.md` §6). Pure.
//!
//! A deployment of Sentry with regions has one *control silo* (`sentry.io`: users, tokens, integrations) and a silo for each
//! region, where organizations live. A region answers a path of the control silo with a bare 404.
//!
//! Invariants: spelling a path with other escapes never leads to another silo, and an escaped slash never ends a segment;
//! what is not in the table belongs to the region. Not here: where the silos are (`regions`).

use std::sync::LazyLock;

use crate::routes::template::Template;
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

/// Returns the silo that serves a path, which is spelled as the client sent it and was admitted.
pub fn silo_of(path: &str) -> Silo {
    match path.strip_prefix('/').and_then(|rest| CONTROL_PATHS.find(Some(rest))) {
        Some(_) => Silo::Control,
        None => Silo::Region,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::place::Place;

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
    fn what_is_the_control_silos_outside_an_organization_belongs_to_none() {
        for route in CONTROL.iter().filter(|route| !route.contains("{organization}")) {
            let path = route.replace("{*rest}", "");
            assert_eq!(Place::of(&path), Place::Apart, "{path}");
        }
    }
}

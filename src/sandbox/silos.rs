//! The sandbox as a part of a deployment with regions: the control silo, or a region that knows its own organizations alone.
//!
//! Organizations with an even id live in the region `us`, the others in `de`. The control silo lists all of them, serves what
//! regions do not, and answers for every organization, as Sentry's gateway does. Its regions are told when they listen, since
//! ports are known only then ([`Deployment`]).
//!
//! Invariant: one world for all silos of a deployment, so that what was written in one is read in the others.
//! Not here: what things look like (`sandbox::shapes`), asking one silo from another: the gateway looks for itself.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;

use crate::sandbox::answer::Answer;
use crate::sandbox::failure::Failure;
use crate::sandbox::route::{Route, Target};
use crate::sandbox::router::{self, Call};
use crate::sandbox::shapes::Site;
use crate::sandbox::world::World;
use crate::sandbox::{BaseUrl, Sandbox, SandboxOptions};

/// First segments below an organization that only the control silo serves.
const OF_CONTROL: [&str; 11] = [
    "api-keys",
    "audit-logs",
    "broadcasts",
    "data-secrecy",
    "integrations",
    "org-auth-tokens",
    "partnership-agreements",
    "region",
    "sentry-app-components",
    "sentry-app-installations",
    "sentry-apps",
];

/// Which part of a deployment a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silo {
    /// All of it, as a self-hosted server is.
    Whole,
    /// What regions share.
    Control,
    /// A region.
    Region(Home),
}

/// Where an organization lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In `us`: even ids.
    Us,
    /// In `de`: odd ids.
    De,
}

impl Home {
    /// Returns where the organization of an id lives.
    pub const fn of(id: u64) -> Self {
        if id.is_multiple_of(2) { Self::Us } else { Self::De }
    }

    /// Returns the name of the region.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::De => "de",
        }
    }
}

/// The URLs of both regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionUrls {
    /// That of `us`.
    pub us: String,
    /// That of `de`.
    pub de: String,
}

impl RegionUrls {
    /// Returns the URL of a region.
    pub fn of(&self, home: Home) -> &str {
        match home {
            Home::Us => &self.us,
            Home::De => &self.de,
        }
    }
}

/// What a sandbox answers from: its part of a deployment.
#[derive(Debug)]
pub struct Part {
    silo: Silo,
    world: Arc<Mutex<World>>,
    site: Mutex<Site>,
}

impl Part {
    /// Returns a part of a deployment whose things are in `world`.
    pub const fn new(silo: Silo, world: Arc<Mutex<World>>, site: Site) -> Self {
        Self { silo, world, site: Mutex::new(site) }
    }

    /// Tells it where the regions are.
    pub fn tell_regions(&self, urls: RegionUrls) {
        self.site.lock().unwrap_or_else(PoisonError::into_inner).regions = Some(urls);
    }

    /// Returns the answer to a request: 404 to what is another part's, to what is the control silo's without a word.
    pub fn answer(&self, call: &Call) -> Answer {
        let site = self.site.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Silo::Region(home) = self.silo else { return router::answer(call, &self.world, &site) };
        if is_of_control(&segments_of(&call.path)) {
            return Answer::html(StatusCode::NOT_FOUND, String::new());
        }
        if self.is_foreign(&call.path, home) {
            return Failure::NotFound.answer(call.language);
        }
        if !call.method.is_safe() {
            return router::answer(call, &self.world, &site);
        }
        let own = self.world().of_organizations(|id| Home::of(id) == home);
        router::answer(call, &Mutex::new(own), &site)
    }

    /// Returns whether a path is not that region's: the control silo's, or of an organization that lives elsewhere.
    fn is_foreign(&self, path: &str, home: Home) -> bool {
        let segments = segments_of(path);
        if is_of_control(&segments) {
            return true;
        }
        let world = self.world();
        let organization = match (segments.as_slice(), Target::of(path)) {
            (["organizations" | "projects" | "teams", name, ..], _) => world.organization(name),
            (_, Target::Known(Route::Issue(issue))) => world.organization_of_issue(&issue),
            (_, Target::Known(_) | Target::MissingSlash | Target::Unknown) => None,
        };
        organization.is_some_and(|organization| Home::of(organization.id) != home)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A deployment with two regions: three sandboxes.
#[derive(Debug)]
pub struct Deployment {
    /// The control silo.
    pub control: Sandbox,
    /// The region `us`.
    pub us: Sandbox,
    /// The region `de`.
    pub de: Sandbox,
}

impl Deployment {
    /// Starts all three on ports that the system chooses, and tells them of each other.
    pub async fn start(options: &SandboxOptions) -> io::Result<Self> {
        let world = Arc::new(Mutex::new(World::new()));
        let part = |silo| {
            let options = SandboxOptions { port: 0, silo, url_prefix: BaseUrl::OwnOrigin, ..options.clone() };
            Sandbox::start_in(options, Arc::clone(&world))
        };
        let control = part(Silo::Control).await?;
        let us = part(Silo::Region(Home::Us)).await?;
        let de = part(Silo::Region(Home::De)).await?;
        let urls = RegionUrls { us: us.origin(), de: de.origin() };
        for sandbox in [&control, &us, &de] {
            sandbox.tell_regions(urls.clone());
        }
        Ok(Self { control, us, de })
    }
}

/// Returns the segments of a path after `/api/0/`.
fn segments_of(path: &str) -> Vec<&str> {
    path.trim_start_matches("/api/0/").split('/').collect()
}

/// Returns whether only the control silo serves a path, by its segments after `/api/0/`. Told apart from the proxy's own
/// table, which it is there to test.
fn is_of_control(segments: &[&str]) -> bool {
    match segments {
        ["users" | "auth", ..] | ["internal", "health", ..] => true,
        ["organizations", _, "integrations", _, further, ..] => {
            ["", "channels", "channel-validate"].contains(further)
        }
        ["organizations", _, first, ..] => OF_CONTROL.contains(first),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(silo: Silo) -> Part {
        let url = "https://sentry.io".to_owned();
        let site = Site { url_prefix: url.clone(), region_url: url, regions: None };
        Part::new(silo, Arc::default(), site)
    }

    #[test]
    fn a_region_knows_its_own_organizations_alone() {
        let part = part(Silo::Whole);
        for (path, us, de) in [
            ("/api/0/organizations/org-001/", true, false),
            ("/api/0/organizations/2/", true, false),
            ("/api/0/organizations/org-002/projects/", false, true),
            ("/api/0/projects/org-002/project-001/", false, true),
            ("/api/0/teams/org-001/team-1/", true, false),
            ("/api/0/issues/10001/", true, false),
            ("/api/0/organizations/", true, true),
            ("/api/0/organizations/nobody/", true, true),
        ] {
            assert_eq!(part.is_foreign(path, Home::Us), !us, "{path}");
            assert_eq!(part.is_foreign(path, Home::De), !de, "{path}");
        }
    }

    #[test]
    fn a_region_serves_nothing_of_the_control_silo() {
        let part = part(Silo::Whole);
        for path in ["/api/0/users/me/regions/", "/api/0/auth/", "/api/0/organizations/org-001/integrations/"]
        {
            assert!(part.is_foreign(path, Home::Us), "{path}");
        }
    }

    #[test]
    fn every_organization_lives_in_one_region_and_the_regions_together_hold_them_all() {
        let world = World::new();
        let count = |home| {
            let part = world.of_organizations(|id| Home::of(id) == home);
            part.organizations_of(crate::sandbox::people::User::Owner).len()
        };
        assert_eq!((count(Home::Us), count(Home::De)), (75, 75));
    }
}

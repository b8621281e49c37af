//! What is in the sandbox: organizations and all that belongs to them, the same on every start.
//!
//! 150 organizations, created an hour apart; `org-001` is large (120 projects, 8 teams, 122 members, 2
//! repositories), `org-002` and `org-003` are small, the others hardly more than a name.
//!
//! Invariants: identifiers are never used twice; nothing here reads a clock, so what is created later gets a
//! date after everything else, in order.
//! Not here: who may change what (`sandbox::router`), JSON (`sandbox::shapes`).

use crate::sandbox::people::{Person, User};

/// How many organizations there are at first.
const ORGANIZATIONS: u64 = 150;
/// Milliseconds since the Unix epoch of 2023-01-01T00:00:00Z, where the sandbox's calendar starts.
const CALENDAR_START: i64 = 1_672_531_200_000;
const MINUTES_PER_DAY: u64 = 24 * 60;
/// The minute at which the first project was created: 2023-01-31.
const FIRST_PROJECT: u64 = 30 * MINUTES_PER_DAY;
/// The minute at which the first thing is created by a client: 2023-02-01.
const FIRST_CREATED: u64 = 31 * MINUTES_PER_DAY;

/// A date: minutes since 2023-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(u64);

impl Date {
    /// Returns the date as Sentry writes it; the calendar ends with February.
    pub fn text(self) -> String {
        let (day, minute) = (self.0 / MINUTES_PER_DAY, self.0 % MINUTES_PER_DAY);
        let (month, day) = if day < 31 { (1, day + 1) } else { (2, day - 30) };
        format!("2023-{month:02}-{day:02}T{:02}:{:02}:00Z", minute / 60, minute % 60)
    }

    /// Returns the date so many minutes later.
    #[must_use]
    pub const fn after(self, minutes: u64) -> Self {
        Self(self.0.saturating_add(minutes))
    }

    /// Returns milliseconds since the Unix epoch.
    pub fn milliseconds(self) -> i64 {
        let minutes = i64::try_from(self.0).unwrap_or(i64::MAX);
        CALENDAR_START.saturating_add(minutes.saturating_mul(60_000))
    }
}

/// Everything there is.
#[derive(Debug, Clone)]
pub struct World {
    organizations: Vec<Organization>,
    last_identifier: u64,
    last_date: Date,
}

/// An organization.
#[derive(Debug, Clone)]
pub struct Organization {
    /// Sentry's number.
    pub id: u64,
    /// Its name in URLs.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// When it was created.
    pub created: Date,
    /// Whether [`User::Other`] and the crowd are members; [`User::Owner`] always is.
    pub has_other: bool,
    /// Members without a token.
    pub further_members: u64,
    /// How many repositories of code it has.
    pub repositories: u64,
    /// Teams.
    pub teams: Vec<Team>,
    /// Projects.
    pub projects: Vec<Project>,
    /// Issues, newest first.
    pub issues: Vec<Issue>,
    /// Releases, newest first.
    pub releases: Vec<Release>,
}

/// A team.
#[derive(Debug, Clone)]
pub struct Team {
    /// Sentry's number.
    pub id: u64,
    /// Its name in URLs.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// When it was created.
    pub created: Date,
}

/// A project.
#[derive(Debug, Clone)]
pub struct Project {
    /// Sentry's number.
    pub id: u64,
    /// Its name in URLs.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// What its code runs on.
    pub platform: String,
    /// When it was created.
    pub created: Date,
    /// Number of its team.
    pub team: u64,
}

/// An issue.
#[derive(Debug, Clone)]
pub struct Issue {
    /// Sentry's number.
    pub id: u64,
    /// Its name for people, as in `PROJECT-001-3`.
    pub short_id: String,
    /// What went wrong.
    pub title: String,
    /// `unresolved`, `resolved` or `ignored`.
    pub status: String,
    /// Number of its project.
    pub project: u64,
    /// When it was first seen.
    pub first_seen: Date,
}

/// A release.
#[derive(Debug, Clone)]
pub struct Release {
    /// Sentry's number.
    pub id: u64,
    /// Its name.
    pub version: String,
    /// Where it can be seen.
    pub url: Option<String>,
    /// When it was created.
    pub created: Date,
    /// When it was released, if it was; not by the clock of whom said so.
    pub released: Option<Date>,
    /// Slugs of its projects.
    pub projects: Vec<String>,
    /// Where it was deployed, newest first.
    pub deploys: Vec<Deploy>,
}

/// A deploy of a release.
#[derive(Debug, Clone)]
pub struct Deploy {
    /// Sentry's number.
    pub id: u64,
    /// Where to.
    pub environment: String,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// Where it can be seen.
    pub url: Option<String>,
    /// When it was reported.
    pub finished: Date,
}

/// How much an organization holds at first.
#[derive(Debug, Clone, Copy)]
struct Size {
    teams: u64,
    projects: u64,
    issues_per_project: u64,
    further_members: u64,
    repositories: u64,
}

impl World {
    /// Returns the world as it is on every start.
    pub fn new() -> Self {
        let (mut next_team, mut next_project, mut next_issue) = (2, 2, 10_001);
        let mut organizations = Vec::new();
        for number in 1..=ORGANIZATIONS {
            let size = size_of(number);
            let mut organization = empty_organization(number, size);
            add_teams(&mut organization, size, &mut next_team);
            add_projects(&mut organization, size, &mut next_project);
            add_issues(&mut organization, size, &mut next_issue);
            add_releases(&mut organization, size);
            organizations.push(organization);
        }
        Self { organizations, last_identifier: 100_000, last_date: Date(FIRST_CREATED) }
    }

    /// Returns the organizations that a user is a member of, newest first.
    pub fn organizations_of(&self, user: User) -> Vec<&Organization> {
        let mut organizations: Vec<_> =
            self.organizations.iter().filter(|organization| organization.has(user)).collect();
        organizations.sort_by_key(|organization| std::cmp::Reverse((organization.created, organization.id)));
        organizations
    }

    /// Returns an organization by number or slug.
    pub fn organization(&self, id_or_slug: &str) -> Option<&Organization> {
        self.organizations
            .iter()
            .find(|organization| is_named(organization.id, &organization.slug, id_or_slug))
    }

    /// Returns an organization by number or slug, to change it.
    pub fn organization_mut(&mut self, id_or_slug: &str) -> Option<&mut Organization> {
        self.organizations
            .iter_mut()
            .find(|organization| is_named(organization.id, &organization.slug, id_or_slug))
    }

    /// Returns the world as far as the organizations of some ids belong to it.
    #[must_use]
    pub fn of_organizations(&self, belongs: impl Fn(u64) -> bool) -> Self {
        let own = self.organizations.iter().filter(|organization| belongs(organization.id));
        Self { organizations: own.cloned().collect(), ..*self }
    }

    /// Returns the organization that an issue belongs to.
    pub fn organization_of_issue(&self, issue: &str) -> Option<&Organization> {
        self.organizations.iter().find(|organization| organization.issue(issue).is_some())
    }

    /// Adds an organization of the owner's, without anything in it.
    pub fn create_organization(&mut self, slug: String, name: String) {
        let (id, created) = self.stamp();
        self.organizations.push(Organization {
            id,
            slug,
            name,
            created,
            has_other: false,
            further_members: 0,
            repositories: 0,
            teams: Vec::new(),
            projects: Vec::new(),
            issues: Vec::new(),
            releases: Vec::new(),
        });
    }

    /// Returns an identifier and a date for what is created now.
    pub fn stamp(&mut self) -> (u64, Date) {
        self.last_identifier += 1;
        self.last_date = Date(self.last_date.0.saturating_add(1));
        (self.last_identifier, self.last_date)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Organization {
    /// Returns whether a user is a member.
    pub const fn has(&self, user: User) -> bool {
        match user {
            User::Owner => true,
            User::Other | User::Crowd(_) => self.has_other,
            User::Nobody => false,
        }
    }

    /// Returns the members, and the role of each.
    pub fn members(&self) -> Vec<(Person, &'static str)> {
        let users = [User::Owner, User::Other].into_iter().filter(|user| self.has(*user));
        let users = users.map(|user| (user.person(), user.role()));
        users.chain((1..=self.further_members).map(|number| (Person::numbered(number), "member"))).collect()
    }

    /// Returns a project by number or slug.
    pub fn project(&self, id_or_slug: &str) -> Option<&Project> {
        self.projects.iter().find(|project| is_named(project.id, &project.slug, id_or_slug))
    }

    /// Returns a team by number or slug.
    pub fn team(&self, id_or_slug: &str) -> Option<&Team> {
        self.teams.iter().find(|team| is_named(team.id, &team.slug, id_or_slug))
    }

    /// Returns an issue by number or short id.
    pub fn issue(&self, id_or_short_id: &str) -> Option<&Issue> {
        self.issues.iter().find(|issue| is_named(issue.id, &issue.short_id, id_or_short_id))
    }

    /// Returns a release by its version.
    pub fn release(&self, version: &str) -> Option<&Release> {
        self.releases.iter().find(|release| release.version == version)
    }
}

/// Returns whether a thing is meant: digits are a number, everything else a slug (short ids in any case).
fn is_named(id: u64, slug: &str, id_or_slug: &str) -> bool {
    if id_or_slug.bytes().all(|byte| byte.is_ascii_digit()) {
        return id_or_slug.parse() == Ok(id);
    }
    slug.eq_ignore_ascii_case(id_or_slug)
}

const fn size_of(number: u64) -> Size {
    match number {
        1 => Size { teams: 8, projects: 120, issues_per_project: 1, further_members: 120, repositories: 2 },
        2 => Size { teams: 3, projects: 5, issues_per_project: 3, further_members: 10, repositories: 0 },
        3 => Size { teams: 2, projects: 3, issues_per_project: 2, further_members: 3, repositories: 0 },
        _ => Size { teams: 1, projects: 1, issues_per_project: 1, further_members: 0, repositories: 0 },
    }
}

fn empty_organization(number: u64, size: Size) -> Organization {
    Organization {
        id: number + 1,
        slug: format!("org-{number:03}"),
        name: format!("Organization {number:03}"),
        created: Date(number * 60),
        has_other: number <= 3,
        further_members: size.further_members,
        repositories: size.repositories,
        teams: Vec::new(),
        projects: Vec::new(),
        issues: Vec::new(),
        releases: Vec::new(),
    }
}

fn add_teams(organization: &mut Organization, size: Size, next: &mut u64) {
    for number in 1..=size.teams {
        let (slug, name) = (format!("team-{number}"), format!("Team {number}"));
        organization.teams.push(Team { id: *next, slug, name, created: organization.created });
        *next += 1;
    }
}

fn add_projects(organization: &mut Organization, size: Size, next: &mut u64) {
    let first_team = organization.teams.first().map_or(0, |team| team.id);
    for number in 1..=size.projects {
        let slug = format!("project-{number:03}");
        let platform = match number % 4 {
            1 => "node",
            2 => "rust",
            3 => "go",
            _ => "python",
        };
        organization.projects.push(Project {
            id: *next,
            name: slug.clone(),
            slug,
            platform: platform.to_owned(),
            created: Date(FIRST_PROJECT + number),
            team: first_team + number % size.teams,
        });
        *next += 1;
    }
}

fn add_issues(organization: &mut Organization, size: Size, next: &mut u64) {
    for project in &organization.projects {
        for number in 1..=size.issues_per_project {
            organization.issues.push(Issue {
                id: *next,
                short_id: format!("{}-{number}", project.slug.to_uppercase()),
                title: format!("ValueError: sample failure {number} in {}", project.slug),
                status: "unresolved".to_owned(),
                project: project.id,
                first_seen: Date(project.created.0 + number),
            });
            *next += 1;
        }
    }
    organization.issues.reverse();
}

fn add_releases(organization: &mut Organization, size: Size) {
    for number in (1..=size.teams).rev() {
        let projects = organization.projects.first().map(|project| project.slug.clone());
        organization.releases.push(Release {
            id: organization.id * 100 + number,
            version: format!("web@1.0.{number}"),
            url: None,
            created: Date(FIRST_PROJECT + number),
            released: None,
            projects: projects.into_iter().collect(),
            deploys: Vec::new(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_sentry_writes_them() {
        assert_eq!(Date(150 * 60).text(), "2023-01-07T06:00:00Z");
        assert_eq!(Date(150 * 60).milliseconds(), 1_673_071_200_000);
        assert_eq!(Date(FIRST_PROJECT + 120).text(), "2023-01-31T02:00:00Z");
        assert_eq!(Date(FIRST_CREATED).text(), "2023-02-01T00:00:00Z");
    }

    #[test]
    fn users_see_different_organizations_newest_first() {
        let world = World::new();
        let slugs = |user| -> Vec<_> {
            world.organizations_of(user).iter().map(|organization| organization.slug.clone()).collect()
        };
        assert_eq!(slugs(User::Owner).len(), 150);
        assert_eq!(slugs(User::Owner).first().unwrap(), "org-150");
        assert_eq!(slugs(User::Other), ["org-003", "org-002", "org-001"]);
        assert!(slugs(User::Nobody).is_empty());
        assert_eq!(slugs(User::Crowd(1)), slugs(User::Other));
    }

    #[test]
    fn things_are_found_by_number_and_by_name() {
        let world = World::new();
        assert_eq!(world.organization("3").unwrap().slug, "org-002");
        let organization = world.organization("org-002").unwrap();
        assert_eq!(organization.project("project-001").unwrap().id, 122);
        let issue = organization.issue("project-001-2").unwrap();
        assert_eq!(organization.issue(&issue.id.to_string()).unwrap().short_id, "PROJECT-001-2");
        assert!(world.organization("").is_none());
    }
}

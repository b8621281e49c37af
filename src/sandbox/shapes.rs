//! What things look like as JSON: the fields of Sentry's bodies, in Sentry's order.
//!
//! Invariant: an organization looks the same wherever it stands, and always names its region.
//! Not here: which things a body holds (`sandbox::reads`).

use crate::sandbox::json::Object;
use crate::sandbox::people::{Identity, MEMBER_SCOPES, OWNER_SCOPES, Person};
use crate::sandbox::silos::{Home, RegionUrls};
use crate::sandbox::world::{Organization, Project, Team};

const AVATAR: &str = r#"{"avatarType":"letter_avatar","avatarUuid":null}"#;
const FEATURES: &[&str] = &[
    "invite-members",
    "minute-resolution-sessions",
    "shared-issues",
    "open-membership",
    "integrations-event-hooks",
    "integrations-issue-sync",
    "sso-basic",
    "transaction-name-mark-scrubbed-as-sanitized",
    "dashboards-edit",
    "integrations-alert-rule",
    "dashboards-basic",
    "transaction-name-normalize",
    "integrations-incident-management",
    "integrations-ticket-rules",
    "session-replay-ui",
    "project-stats",
    "relay",
    "performance-view",
    "team-insights",
    "derive-code-mappings",
    "performance-issues-search",
    "invite-members-rate-limits",
    "symbol-sources",
    "discover-basic",
    "team-roles",
    "integrations-deployment",
    "event-attachments",
    "advanced-search",
    "integrations-issue-basic",
    "sso-saml2",
    "custom-symbol-sources",
    "data-forwarding",
    "discover-query",
    "change-alerts",
    "integrations-chat-unfurl",
    "crash-rate-alerts",
];
const PROJECT_FEATURES: &[&str] =
    &["alert-filters", "data-forwarding", "minidump", "race-free-group-creation", "rate-limits"];
const ADMIN_ACCESS: &[&str] = &[
    "project:releases",
    "project:read",
    "event:read",
    "org:read",
    "event:write",
    "alerts:write",
    "member:read",
    "team:admin",
    "org:integrations",
    "event:admin",
    "project:admin",
    "team:read",
    "alerts:read",
    "project:write",
    "team:write",
];
const PRIVACY: &str = concat!(
    r#""openMembership":true,"allowSharedIssues":true,"enhancedPrivacy":false,"dataScrubber":false,"#,
    r#""dataScrubberDefaults":false,"sensitiveFields":[],"safeFields":[],"storeCrashReports":0,"#,
    r#""attachmentsRole":"member","debugFilesRole":"admin","eventsMemberAdmin":true,"#,
    r#""alertsMemberWrite":true,"scrubIPAddresses":false,"scrapeJavaScript":true,"#,
    r#""allowJoinRequests":true,"relayPiiConfig":null,"codecovAccess":false,"#,
    r#""aiSuggestedSolution":true,"githubPRBot":true,"trustedRelays":[]"#,
);
const QUOTA: &str = r#"{"maxRate":null,"maxRateInterval":60,"accountLimit":0,"projectLimit":100}"#;
const NOTHING_HAPPENED_YET: &str = concat!(
    r#""firstEvent":null,"firstTransactionEvent":false,"hasSessions":false,"hasProfiles":false,"#,
    r#""hasReplays":false,"hasMonitors":false,"hasMinifiedStackTrace":false"#,
);
const MEMBER_FLAGS: &str = concat!(
    r#"{"idp:provisioned":false,"idp:role-restricted":false,"sso:linked":false,"#,
    r#""sso:invalid":false,"member-limit:restricted":false}"#,
);
const JOINED: &str = "2023-01-01T00:00:00.000000Z";
const USER_STATE: &str = r#""isActive":true,"hasPasswordAuth":false,"isManaged":false"#;
const USER_RIGHTS: &str = r#""isSuperuser":false,"isStaff":false,"experiments":{}"#;
const USER_OPTIONS: &str = concat!(
    r#""options":{"theme":"light","language":"en","stacktraceOrder":-1,"timezone":"UTC","#,
    r#""clock24Hours":false},"flags":{"newsletter_consent_prompt":false}"#,
);

/// Where the links in bodies point to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// What stands before `/api/0/` in `Link`, and in `links.organizationUrl`.
    pub url_prefix: String,
    /// `links.regionUrl`, and the one region of `/users/me/regions/`, where there are not two.
    pub region_url: String,
    /// Both regions of a deployment that has two.
    pub regions: Option<RegionUrls>,
}

impl Site {
    /// Returns the URL of the region where the organization of an id lives.
    pub fn region_url_of(&self, id: u64) -> &str {
        self.regions.as_ref().map_or(&self.region_url, |urls| urls.of(Home::of(id)))
    }

    /// Returns every region: its name and its URL.
    pub fn all_regions(&self) -> Vec<(&'static str, &str)> {
        match &self.regions {
            Some(urls) => [Home::Us, Home::De].map(|home| (home.name(), urls.of(home))).to_vec(),
            None => vec![(Home::Us.name(), &self.region_url)],
        }
    }
}

/// Returns an organization as it stands in lists.
pub fn organization_item(organization: &Organization, site: &Site) -> String {
    organization_members(organization, site).finish()
}

fn organization_members(organization: &Organization, site: &Site) -> Object {
    let links = Object::start()
        .text("organizationUrl", &site.url_prefix)
        .text("regionUrl", site.region_url_of(organization.id))
        .finish();
    Object::start()
        .identifier("id", organization.id)
        .text("slug", &organization.slug)
        .raw("status", r#"{"id":"active","name":"active"}"#)
        .text("name", &organization.name)
        .text("dateCreated", &organization.created.text())
        .members(r#""isEarlyAdopter":false,"require2FA":false,"requireEmailVerification":false"#)
        .raw("avatar", AVATAR)
        .texts("features", FEATURES)
        .raw("links", &links)
        .raw("hasAuthProvider", "false")
}

/// Returns an organization without its teams and projects.
pub fn organization_summary(organization: &Organization, identity: &Identity, site: &Site) -> Object {
    organization_members(organization, site)
        .raw("experiments", "{}")
        .raw("quota", QUOTA)
        .members(r#""isDefault":false,"defaultRole":"member""#)
        .list("availableRoles", ROLES.iter().map(Role::reference))
        .list("orgRoleList", ROLES.iter().map(Role::whole))
        .list("teamRoleList", TEAM_ROLES.iter().map(Role::whole))
        .members(PRIVACY)
        .texts("access", identity.scopes)
        .text("role", identity.user.role())
        .text("orgRole", identity.user.role())
        .members(r#""pendingAccessRequests":0,"onboardingTasks":[],"isDynamicallySampled":false"#)
}

/// Returns a whole organization.
pub fn organization_detail(organization: &Organization, identity: &Identity, site: &Site) -> String {
    let projects = organization.projects.iter().map(|project| project_item(project, organization));
    organization_summary(organization, identity, site)
        .list("teams", organization.teams.iter().map(|team| team_members(team).finish()))
        .list("projects", projects)
        .finish()
}

/// A role, and what it is for.
struct Role {
    id: &'static str,
    name: &'static str,
    description: &'static str,
    scopes: &'static [&'static str],
    flags: &'static str,
}

const ROLES: &[Role] = &[
    Role {
        id: "member",
        name: "Member",
        description: "Sees the organization's data and acts on its events, but changes none of its settings.",
        scopes: MEMBER_SCOPES,
        flags: r#""isRetired":false,"is_global":false,"isGlobal":false,"minimumTeamRole":"contributor""#,
    },
    Role {
        id: "admin",
        name: "Admin",
        description: "Administers the teams of which they are a member: creates and removes projects, and says \
                      who belongs to the team. Invites nobody to the organization.",
        scopes: ADMIN_ACCESS,
        flags: r#""isRetired":true,"is_global":false,"isGlobal":false,"minimumTeamRole":"admin""#,
    },
    Role {
        id: "manager",
        name: "Manager",
        description: "Administers every team, and says who belongs to the organization.",
        scopes: OWNER_SCOPES,
        flags: r#""isRetired":false,"is_global":true,"isGlobal":true,"minimumTeamRole":"admin""#,
    },
    Role {
        id: "owner",
        name: "Owner",
        description: "May do everything: settings, projects, members, billing, and removing the organization.",
        scopes: OWNER_SCOPES,
        flags: r#""isRetired":false,"is_global":true,"isGlobal":true,"minimumTeamRole":"admin""#,
    },
];
const TEAM_ROLES: &[Role] = &[
    Role {
        id: "contributor",
        name: "Contributor",
        description: "Sees the data of the team's projects and acts on their events.",
        scopes: MEMBER_SCOPES,
        flags: r#""isRetired":false,"isMinimumRoleFor":null"#,
    },
    Role {
        id: "admin",
        name: "Team Admin",
        description: "Administers the team: creates and removes its projects, and says who belongs to it.",
        scopes: ADMIN_ACCESS,
        flags: r#""isRetired":false,"isMinimumRoleFor":"admin""#,
    },
];

impl Role {
    fn reference(&self) -> String {
        Object::start().text("id", self.id).text("name", self.name).finish()
    }

    fn whole(&self) -> String {
        Object::start()
            .text("id", self.id)
            .text("name", self.name)
            .text("desc", self.description)
            .texts("scopes", self.scopes)
            .members(r#""allowed":false,"isAllowed":false"#)
            .members(self.flags)
            .finish()
    }
}

/// Returns a project as it stands in the list of its organization.
pub fn project_item(project: &Project, organization: &Organization) -> String {
    let team = team_reference(project, organization);
    Object::start()
        .raw("team", team.as_deref().unwrap_or("null"))
        .list("teams", team.clone())
        .identifier("id", project.id)
        .text("name", &project.name)
        .text("slug", &project.slug)
        .members(r#""isBookmarked":false,"isMember":true"#)
        .texts("access", ADMIN_ACCESS)
        .raw("hasAccess", "true")
        .text("dateCreated", &project.created.text())
        .members(r#""environments":[],"eventProcessing":{"symbolicationDegraded":false}"#)
        .texts("features", PROJECT_FEATURES)
        .members(NOTHING_HAPPENED_YET)
        .text("platform", &project.platform)
        .members(r#""platforms":[],"latestRelease":null,"hasUserReports":false,"latestDeploys":null"#)
        .finish()
}

fn team_reference(project: &Project, organization: &Organization) -> Option<String> {
    let team = organization.teams.iter().find(|team| team.id == project.team)?;
    let reference =
        Object::start().identifier("id", team.id).text("slug", &team.slug).text("name", &team.name);
    Some(reference.finish())
}

/// Returns a project as it stands in other things.
pub fn project_members(project: &Project) -> Object {
    Object::start()
        .identifier("id", project.id)
        .text("slug", &project.slug)
        .text("name", &project.name)
        .text("platform", &project.platform)
        .text("dateCreated", &project.created.text())
        .members(r#""isBookmarked":false,"isMember":true"#)
        .texts("features", PROJECT_FEATURES)
        .members(r#""firstEvent":null,"firstTransactionEvent":false"#)
        .texts("access", ADMIN_ACCESS)
        .members(r#""hasAccess":true,"hasMinifiedStackTrace":false,"hasMonitors":false"#)
        .members(r#""hasProfiles":false,"hasReplays":false,"hasSessions":false"#)
        .members(r#""isInternal":false,"isPublic":false"#)
        .raw("avatar", AVATAR)
        .text("color", &format!("#{:06x}", project.id.wrapping_mul(0x9e_3779) & 0xff_ffff))
        .text("status", "active")
}

/// Returns a project with the organization it belongs to.
pub fn project_detail(project: &Project, organization: &Organization, site: &Site) -> String {
    let team = team_reference(project, organization);
    project_members(project)
        .raw("organization", &organization_item(organization, site))
        .raw("team", team.as_deref().unwrap_or("null"))
        .list("teams", team.clone())
        .members(r#""latestRelease":null,"options":{},"digestsMinDelay":300,"digestsMaxDelay":1800"#)
        .members(r#""resolveAge":0,"subjectTemplate":"$shortID - $title","plugins":[]"#)
        .finish()
}

/// Returns a team as it stands in other things.
pub fn team_members(team: &Team) -> Object {
    Object::start()
        .identifier("id", team.id)
        .text("slug", &team.slug)
        .text("name", &team.name)
        .text("dateCreated", &team.created.text())
        .members(r#""isMember":true,"teamRole":"admin","flags":{"idp:provisioned":false}"#)
        .texts("access", ADMIN_ACCESS)
        .members(r#""hasAccess":true,"isPending":false,"memberCount":2"#)
        .raw("avatar", AVATAR)
        .raw("orgRole", "null")
}

/// Returns a team as it stands in the list of its organization.
pub fn team_item(team: &Team, organization: &Organization) -> String {
    let projects = organization.projects.iter().filter(|project| project.team == team.id);
    team_members(team)
        .raw("externalTeams", "[]")
        .list("projects", projects.map(|project| project_members(project).finish()))
        .finish()
}

/// Returns a team with the organization it belongs to.
pub fn team_detail(team: &Team, organization: &Organization, site: &Site) -> String {
    team_members(team).raw("organization", &organization_item(organization, site)).finish()
}

/// Returns a member of an organization.
pub fn member_item(person: &Person, role: &'static str, organization: &Organization) -> String {
    let mut role_name = role.to_owned();
    if let Some(first) = role_name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Object::start()
        .identifier("id", organization.id * 1000 + person.id)
        .text("email", &person.email)
        .text("name", &person.name)
        .raw("user", &person_members(person).raw("avatar", AVATAR).finish())
        .text("role", role)
        .text("roleName", &role_name)
        .text("orgRole", role)
        .members(r#""pending":false,"expired":false"#)
        .raw("flags", MEMBER_FLAGS)
        .text("dateCreated", &organization.created.text())
        .members(r#""inviteStatus":"approved","inviterName":null,"groupOrgRoles":[]"#)
        .finish()
}

/// Returns the user of a token, with the settings that only the user sees.
pub fn user_detail(person: &Person) -> String {
    person_members(person).members(USER_OPTIONS).raw("avatar", AVATAR).raw("identities", "[]").finish()
}

fn person_members(person: &Person) -> Object {
    let avatar = format!("https://secure.gravatar.com/avatar/{:032x}?s=32&d=mm", person.id);
    let address = Object::start()
        .identifier("id", person.id)
        .text("email", &person.email)
        .raw("is_verified", "false")
        .finish();
    Object::start()
        .identifier("id", person.id)
        .text("name", &person.name)
        .text("username", &person.email)
        .text("email", &person.email)
        .text("avatarUrl", &avatar)
        .members(USER_STATE)
        .text("dateJoined", JOINED)
        .members(r#""lastLogin":null,"has2fa":false"#)
        .text("lastActive", JOINED)
        .members(USER_RIGHTS)
        .list("emails", [address])
}

//! What issues, releases and keys look like as JSON.
//!
//! Invariant: an issue looks the same by number and by short id.
//! Not here: organizations, projects, teams and members (`sandbox::shapes`).

use crate::sandbox::inventory;
use crate::sandbox::json::{Object, quoted};
use crate::sandbox::occurrences;
use crate::sandbox::shapes::Site;
use crate::sandbox::world::{Issue, Organization, Project, Release};

/// Returns an issue as it stands in lists.
pub fn issue_item(issue: &Issue, organization: &Organization, site: &Site) -> String {
    issue_members(issue, organization, site).finish()
}

/// Returns a whole issue.
pub fn issue_detail(issue: &Issue, organization: &Organization, site: &Site) -> String {
    issue_members(issue, organization, site)
        .members(r#""activity":[],"seenBy":[],"pluginActions":[],"pluginIssues":[],"pluginContexts":[]"#)
        .members(r#""userReportCount":0,"tags":[],"participants":[],"firstRelease":null,"lastRelease":null"#)
        .finish()
}

/// Returns what a short id stands for.
pub fn short_id(issue: &Issue, organization: &Organization, site: &Site) -> String {
    let project = organization.projects.iter().find(|project| project.id == issue.project);
    Object::start()
        .text("organizationSlug", &organization.slug)
        .text("projectSlug", project.map_or("", |project| project.slug.as_str()))
        .identifier("groupId", issue.id)
        .raw("group", &issue_item(issue, organization, site))
        .text("shortId", &issue.short_id)
        .finish()
}

fn issue_members(issue: &Issue, organization: &Organization, site: &Site) -> Object {
    let project = organization.projects.iter().find(|project| project.id == issue.project);
    let platform = project.map_or("", |project| project.platform.as_str());
    let value = issue.title.strip_prefix("ValueError: ").unwrap_or(&issue.title);
    let metadata = Object::start().text("value", value).text("type", "ValueError").finish();
    Object::start()
        .identifier("id", issue.id)
        .raw("shareId", "null")
        .text("shortId", &issue.short_id)
        .text("title", &issue.title)
        .text("culprit", "sample.views in index")
        .text("permalink", &permalink(issue, organization, site))
        .members(r#""logger":null,"level":"error""#)
        .text("status", &issue.status)
        .members(r#""statusDetails":{},"substatus":null,"isPublic":false"#)
        .text("platform", platform)
        .raw("project", &project.map_or_else(|| "null".to_owned(), project_reference))
        .text("type", "error")
        .raw("metadata", &metadata)
        .members(r#""numComments":0,"assignedTo":null,"isBookmarked":false,"isSubscribed":false"#)
        .members(r#""subscriptionDetails":null,"hasSeen":false,"annotations":[]"#)
        .members(r#""issueType":"error","issueCategory":"error","isUnhandled":false"#)
        .identifier("count", occurrences::EVENTS_PER_ISSUE)
        .members(r#""userCount":1"#)
        .text("firstSeen", &issue.first_seen.text())
        .text("lastSeen", &occurrences::last_seen(issue).text())
        .raw("stats", r#"{"24h":[]}"#)
}

fn permalink(issue: &Issue, organization: &Organization, site: &Site) -> String {
    format!("{}/organizations/{}/issues/{}/", site.url_prefix, organization.slug, issue.id)
}

fn project_reference(project: &Project) -> String {
    Object::start()
        .identifier("id", project.id)
        .text("name", &project.name)
        .text("slug", &project.slug)
        .text("platform", &project.platform)
        .finish()
}

/// Returns a release.
pub fn release_item(release: &Release, organization: &Organization) -> String {
    let projects = organization.projects.iter().filter(|project| release.projects.contains(&project.slug));
    let url = release.url.as_deref().map_or_else(|| "null".to_owned(), quoted);
    let released = release.released.map_or_else(|| "null".to_owned(), |date| quoted(&date.text()));
    let last_deploy = release.deploys.first().map_or_else(|| "null".to_owned(), inventory::deploy);
    let short_version = release.version.rsplit('@').next().unwrap_or(&release.version);
    Object::start()
        .identifier("id", release.id)
        .text("version", &release.version)
        .text("status", "open")
        .text("shortVersion", short_version)
        .members(r#""versionInfo":null,"ref":null"#)
        .raw("url", &url)
        .raw("dateReleased", &released)
        .text("dateCreated", &release.created.text())
        .members(r#""data":{},"newGroups":0,"owner":null,"commitCount":0,"lastCommit":null"#)
        .raw("deployCount", &release.deploys.len().to_string())
        .raw("lastDeploy", &last_deploy)
        .raw("authors", "[]")
        .list("projects", projects.map(project_reference))
        .members(r#""firstEvent":null,"lastEvent":null"#)
        .finish()
}

/// Returns the one key of a project. Its DSN opens nothing.
pub fn key_item(project: &Project) -> String {
    let public = format!("{:032x}", project.id);
    let dsn =
        Object::start().text("public", &format!("https://{public}@o0.ingest.example.test/{}", project.id));
    Object::start()
        .text("id", &public)
        .text("name", "Default")
        .text("label", "Default")
        .text("public", &public)
        .identifier("projectId", project.id)
        .raw("isActive", "true")
        .raw("rateLimit", "null")
        .raw("dsn", &dsn.finish())
        .text("dateCreated", &project.created.text())
        .finish()
}

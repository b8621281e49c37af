//! Answers to writing: renaming, creating, resolving, removing.
//!
//! Invariant: a write is in the world before it is answered, so every later read shows it.
//! Not here: all that the sandbox's clients do not write; it is refused like a missing permission.

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use crate::sandbox::answer::Answer;
use crate::sandbox::events;
use crate::sandbox::failure::Failure;
use crate::sandbox::inventory;
use crate::sandbox::json::Object;
use crate::sandbox::people::Identity;
use crate::sandbox::query::Query;
use crate::sandbox::route::{InOrganization, InProject, Route};
use crate::sandbox::router::{Call, membership};
use crate::sandbox::shapes::{self, Site};
use crate::sandbox::world::{Deploy, Issue, Organization, Project, Release, Team, World};

/// What writing needs.
#[derive(Debug)]
pub struct Writing<'a> {
    /// The request.
    pub call: &'a Call,
    /// Where links point to.
    pub site: &'a Site,
    /// Who is writing.
    pub identity: Identity,
    /// What is changed.
    pub world: &'a mut World,
}

type Fields = Map<String, Value>;

/// Does what a writing request says and returns its answer.
pub fn write(writing: &mut Writing<'_>, route: &Route) -> Result<Answer, Failure> {
    match route {
        Route::Organizations => create_organization(writing),
        Route::Organization(organization, resource) => in_organization(writing, organization, resource),
        Route::Project(organization, project, resource) => {
            in_project(writing, (organization, project), resource)
        }
        Route::Team(organization, team) if writing.call.method == Method::DELETE => {
            remove_team(writing, organization, team)
        }
        Route::TeamProjects(organization, team) => create_project(writing, organization, team),
        Route::Issue(issue) => {
            let organization = writing.world.organization_of_issue(issue).ok_or(Failure::NotFound)?;
            let organization = organization.slug.clone();
            write_issue(writing, &organization, issue)
        }
        Route::Root
        | Route::Auth
        | Route::Regions
        | Route::AllProjects
        | Route::Team(..)
        | Route::OfIssue(..) => Err(Failure::Forbidden),
    }
}

fn in_organization(
    writing: &mut Writing<'_>,
    organization: &str,
    resource: &InOrganization,
) -> Result<Answer, Failure> {
    match (resource, writing.call.method.as_str()) {
        (InOrganization::Detail, "PUT") => change_organization(writing, organization),
        (InOrganization::Teams, "POST") => create_team(writing, organization),
        (InOrganization::Releases, "POST") => create_release(writing, organization),
        (InOrganization::Release(version), _) => write_release(writing, organization, version),
        (InOrganization::Deploys(version), "POST") => create_deploy(writing, organization, version),
        (InOrganization::Issues, "PUT") => change_issues(writing, organization, None),
        (InOrganization::Issue(issue), _) => write_issue(writing, organization, issue),
        _ => Err(Failure::Forbidden),
    }
}

fn in_project(
    writing: &mut Writing<'_>,
    (organization, project): (&str, &str),
    resource: &InProject,
) -> Result<Answer, Failure> {
    match (resource, writing.call.method.as_str()) {
        (InProject::Detail, "PUT") => change_project(writing, organization, project),
        (InProject::Detail, "DELETE") => remove_project(writing, organization, project),
        (InProject::Issues, "PUT") => change_issues(writing, organization, Some(project)),
        (InProject::Releases, "POST") => create_release(writing, organization),
        (InProject::Release(version), _) => write_release(writing, organization, version),
        _ => Err(Failure::Forbidden),
    }
}

impl Writing<'_> {
    /// Returns an organization of the caller's, to change it.
    fn organization(&mut self, organization: &str) -> Result<&mut Organization, Failure> {
        membership(self.world, self.identity, organization)?;
        self.world.organization_mut(organization).ok_or(Failure::NotFound)
    }

    /// Returns the fields of the body: JSON, or a form.
    fn fields(&self) -> Result<Fields, Failure> {
        let body = &self.call.body;
        if body.is_empty() {
            return Ok(Fields::new());
        }
        if !self.call.has_json_body() {
            return Ok(Query::parse(&String::from_utf8_lossy(body)).into_fields());
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) => Err(Failure::Invalid("Invalid data. Expected a dictionary.".to_owned())),
            Err(error) => Err(Failure::Invalid(format!(
                "JSON parse error - Expecting value: line {} column {} (char {})",
                error.line(),
                error.column() + 1,
                error.column()
            ))),
        }
    }
}

/// Returns a field that is a text.
fn text(fields: &Fields, name: &'static str) -> Result<Option<String>, Failure> {
    let invalid = |message: &str| Failure::InvalidField { name, message: message.to_owned() };
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Err(invalid("This field may not be blank.")),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid("Not a valid string.")),
    }
}

fn required(fields: &Fields, name: &'static str) -> Result<String, Failure> {
    text(fields, name)?
        .ok_or_else(|| Failure::InvalidField { name, message: "This field is required.".to_owned() })
}

/// Returns the field `slug`, which has a pattern.
fn slug(fields: &Fields) -> Result<Option<String>, Failure> {
    let slug = text(fields, "slug")?;
    let is_slug = |slug: &String| {
        slug.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !slug.bytes().all(|byte| byte.is_ascii_digit())
    };
    match slug {
        Some(slug) if !is_slug(&slug) => Err(Failure::InvalidField {
            name: "slug",
            message: "This value does not match the required pattern.".to_owned(),
        }),
        Some(_) | None => Ok(slug),
    }
}

/// Returns the slug that Sentry makes of a name.
fn slug_of(name: &str) -> String {
    name.to_lowercase().split_whitespace().collect::<Vec<_>>().join("-")
}

fn taken(slug: &str) -> Failure {
    Failure::InvalidField { name: "slug", message: format!("The slug \"{slug}\" is already in use.") }
}

fn create_organization(writing: &mut Writing<'_>) -> Result<Answer, Failure> {
    let fields = writing.fields()?;
    let name = required(&fields, "name")?;
    let slug = slug(&fields)?.unwrap_or_else(|| slug_of(&name));
    if writing.world.organization(&slug).is_some() {
        return Err(taken(&slug));
    }
    writing.world.create_organization(slug.clone(), name);
    let organization = writing.world.organization(&slug).ok_or(Failure::NotFound)?;
    let body = shapes::organization_detail(organization, &writing.identity, writing.site);
    Ok(Answer::json(StatusCode::CREATED, body))
}

fn change_organization(writing: &mut Writing<'_>, organization: &str) -> Result<Answer, Failure> {
    let id = writing.organization(organization)?.id;
    let fields = writing.fields()?;
    let (name, slug) = (text(&fields, "name")?, slug(&fields)?);
    if let Some(slug) = &slug
        && writing.world.organization(slug).is_some_and(|other| other.id != id)
    {
        return Err(taken(slug));
    }
    let (identity, site) = (writing.identity, writing.site);
    let organization = writing.organization(organization)?;
    organization.name = name.unwrap_or_else(|| organization.name.clone());
    organization.slug = slug.unwrap_or_else(|| organization.slug.clone());
    Ok(Answer::json(StatusCode::OK, shapes::organization_detail(organization, &identity, site)))
}

fn create_team(writing: &mut Writing<'_>, organization: &str) -> Result<Answer, Failure> {
    let fields = writing.fields()?;
    let (name, slug) = match (text(&fields, "name")?, slug(&fields)?) {
        (Some(name), Some(slug)) => (name, slug),
        (Some(name), None) => (name.clone(), slug_of(&name)),
        (None, Some(slug)) => (slug.clone(), slug),
        (None, None) => return Err(Failure::Invalid("Name or slug is required".to_owned())),
    };
    let (id, created) = writing.world.stamp();
    let organization = writing.organization(organization)?;
    if organization.team(&slug).is_some() {
        return Err(Failure::Conflict("A team with this slug already exists.".to_owned()));
    }
    let team = Team { id, slug, name, created };
    let body = shapes::team_members(&team).finish();
    organization.teams.push(team);
    Ok(Answer::json(StatusCode::CREATED, body))
}

fn remove_team(writing: &mut Writing<'_>, organization: &str, team: &str) -> Result<Answer, Failure> {
    let organization = writing.organization(organization)?;
    let id = organization.team(team).ok_or(Failure::NotFound)?.id;
    organization.teams.retain(|team| team.id != id);
    Ok(Answer::no_content())
}

fn create_project(writing: &mut Writing<'_>, organization: &str, team: &str) -> Result<Answer, Failure> {
    let fields = writing.fields()?;
    let name = required(&fields, "name")?;
    let slug = slug(&fields)?.unwrap_or_else(|| slug_of(&name));
    let platform = text(&fields, "platform")?.unwrap_or_else(|| "other".to_owned());
    let (id, created) = writing.world.stamp();
    let organization = writing.organization(organization)?;
    let team = organization.team(team).ok_or(Failure::NotFound)?.id;
    if organization.project(&slug).is_some() {
        return Err(Failure::Conflict("A project with this slug already exists.".to_owned()));
    }
    let project = Project { id, slug, name, platform, created, team };
    let body = shapes::project_members(&project).finish();
    organization.projects.push(project);
    Ok(Answer::json(StatusCode::CREATED, body))
}

fn change_project(writing: &mut Writing<'_>, organization: &str, project: &str) -> Result<Answer, Failure> {
    let fields = writing.fields()?;
    let (name, slug, platform) = (text(&fields, "name")?, slug(&fields)?, text(&fields, "platform")?);
    let site = writing.site;
    let organization = writing.organization(organization)?;
    let id = organization.project(project).ok_or(Failure::NotFound)?.id;
    if let Some(slug) = &slug
        && organization.project(slug).is_some_and(|other| other.id != id)
    {
        return Err(taken(slug));
    }
    let project = organization.projects.iter_mut().find(|project| project.id == id);
    let project = project.ok_or(Failure::NotFound)?;
    project.name = name.unwrap_or_else(|| project.name.clone());
    project.slug = slug.unwrap_or_else(|| project.slug.clone());
    project.platform = platform.unwrap_or_else(|| project.platform.clone());
    let project = project.clone();
    Ok(Answer::json(StatusCode::OK, shapes::project_detail(&project, organization, site)))
}

fn remove_project(writing: &mut Writing<'_>, organization: &str, project: &str) -> Result<Answer, Failure> {
    let organization = writing.organization(organization)?;
    let id = organization.project(project).ok_or(Failure::NotFound)?.id;
    organization.projects.retain(|project| project.id != id);
    organization.issues.retain(|issue| issue.project != id);
    Ok(Answer::no_content())
}

fn write_issue(writing: &mut Writing<'_>, organization: &str, issue: &str) -> Result<Answer, Failure> {
    let status = status(&writing.fields()?)?;
    let (site, is_removal) = (writing.site, writing.call.method == Method::DELETE);
    let organization = writing.organization(organization)?;
    let id = organization.issue(issue).ok_or(Failure::NotFound)?.id;
    if is_removal {
        organization.issues.retain(|issue| issue.id != id);
        return Ok(Answer::html(StatusCode::ACCEPTED, String::new()));
    }
    set_status(organization, status.as_deref(), |issue| issue.id == id);
    let issue = organization.issues.iter().find(|issue| issue.id == id).ok_or(Failure::NotFound)?;
    Ok(Answer::json(StatusCode::OK, events::issue_detail(issue, organization, site)))
}

/// Changes the issues named by `id` in the query, or all of the organization's or project's.
fn change_issues(
    writing: &mut Writing<'_>,
    organization: &str,
    project: Option<&str>,
) -> Result<Answer, Failure> {
    let status = status(&writing.fields()?)?;
    let asked: Vec<u64> = writing.call.query.all("id").filter_map(|id| id.parse().ok()).collect();
    let organization = writing.organization(organization)?;
    let project = match project {
        Some(project) => Some(organization.project(project).ok_or(Failure::NotFound)?.id),
        None => None,
    };
    set_status(organization, status.as_deref(), |issue| {
        project.is_none_or(|project| issue.project == project)
            && (asked.is_empty() || asked.contains(&issue.id))
    });
    let status = status.as_deref().unwrap_or("unresolved");
    let body = Object::start().text("status", status).members(r#""statusDetails":{},"inbox":null"#).finish();
    Ok(Answer::json(StatusCode::OK, body))
}

fn set_status(organization: &mut Organization, status: Option<&str>, is_meant: impl Fn(&Issue) -> bool) {
    let Some(status) = status else { return };
    for issue in organization.issues.iter_mut().filter(|issue| is_meant(issue)) {
        status.clone_into(&mut issue.status);
    }
}

fn status(fields: &Fields) -> Result<Option<String>, Failure> {
    let status = text(fields, "status")?;
    match status.as_deref() {
        None | Some("resolved" | "unresolved" | "ignored") => Ok(status),
        Some("resolvedInNextRelease") => Ok(Some("resolved".to_owned())),
        // The old name, which sentry-cli still says.
        Some("muted") => Ok(Some("ignored".to_owned())),
        Some(other) => Err(Failure::InvalidField {
            name: "status",
            message: format!("\"{other}\" is not a valid choice."),
        }),
    }
}

fn create_release(writing: &mut Writing<'_>, organization: &str) -> Result<Answer, Failure> {
    let fields = writing.fields()?;
    let (version, url) = (required(&fields, "version")?, text(&fields, "url")?);
    let named = fields.get("projects").and_then(Value::as_array).into_iter().flatten();
    let projects: Vec<String> = named.filter_map(Value::as_str).map(str::to_owned).collect();
    let (id, created) = writing.world.stamp();
    let organization = writing.organization(organization)?;
    if let Some(release) = organization.release(&version) {
        let body = events::release_item(release, organization);
        return Ok(Answer::json(StatusCode::ALREADY_REPORTED, body));
    }
    let release = Release { id, version, url, created, released: None, projects, deploys: Vec::new() };
    let body = events::release_item(&release, organization);
    organization.releases.insert(0, release);
    Ok(Answer::json(StatusCode::CREATED, body))
}

fn write_release(writing: &mut Writing<'_>, organization: &str, version: &str) -> Result<Answer, Failure> {
    let fields = writing.fields()?;
    let (url, released) = (text(&fields, "url")?, text(&fields, "dateReleased")?);
    let is_removal = writing.call.method == Method::DELETE;
    let (_, now) = writing.world.stamp();
    let organization = writing.organization(organization)?;
    organization.release(version).ok_or(Failure::NotFound)?;
    if is_removal {
        organization.releases.retain(|release| release.version != version);
        return Ok(Answer::no_content());
    }
    let release = organization.releases.iter_mut().find(|release| release.version == version);
    let release = release.ok_or(Failure::NotFound)?;
    release.url = url.or_else(|| release.url.clone());
    release.released = released.map(|_| now).or(release.released);
    let release = release.clone();
    Ok(Answer::json(StatusCode::OK, events::release_item(&release, organization)))
}

fn create_deploy(writing: &mut Writing<'_>, organization: &str, version: &str) -> Result<Answer, Failure> {
    let fields = writing.fields()?;
    let environment = required(&fields, "environment")?;
    let (name, url) = (text(&fields, "name")?, text(&fields, "url")?);
    let (id, finished) = writing.world.stamp();
    let organization = writing.organization(organization)?;
    let release = organization.releases.iter_mut().find(|release| release.version == version);
    let release = release.ok_or(Failure::NotFound)?;
    let deploy = Deploy { id, environment, name, url, finished };
    let body = inventory::deploy(&deploy);
    release.deploys.insert(0, deploy);
    Ok(Answer::json(StatusCode::CREATED, body))
}

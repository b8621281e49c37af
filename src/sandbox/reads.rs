//! Answers to reading: which things a body holds, and in which pages.
//!
//! Invariant: nothing is read but what the caller is a member of.
//! Not here: what things look like (`sandbox::shapes`, `sandbox::events`), how pages are cut (`sandbox::pages`).

use http::header::LINK;
use http::{HeaderName, StatusCode};

use crate::sandbox::answer::Answer;
use crate::sandbox::events;
use crate::sandbox::failure::Failure;
use crate::sandbox::inventory;
use crate::sandbox::json::{Object, list, quoted};
use crate::sandbox::occurrences::{self, Occurrence};
use crate::sandbox::pages::{Order, Page};
use crate::sandbox::people::Identity;
use crate::sandbox::route::{InIssue, InOrganization, InProject, Route};
use crate::sandbox::router::{Call, membership};
use crate::sandbox::shapes::{self, Site};
use crate::sandbox::world::{Issue, Organization, Project, World};

/// What reading needs.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// The request.
    pub call: &'a Call,
    /// Where links point to.
    pub site: &'a Site,
    /// Who is reading.
    pub identity: Identity,
    /// What there is to read.
    pub world: &'a World,
}

/// Returns the answer to a reading request.
pub fn read(reading: &Reading<'_>, route: &Route) -> Result<Answer, Failure> {
    match route {
        Route::Root => Ok(root(reading)),
        Route::Auth => Ok(body(shapes::user_detail(&reading.identity.user.person()))),
        Route::Regions => Ok(regions(reading)),
        Route::Organizations => organizations(reading),
        Route::AllProjects => all_projects(reading),
        Route::Organization(organization, resource) => {
            let organization = membership(reading.world, reading.identity, organization)?;
            in_organization(reading, organization, resource)
        }
        Route::Project(organization, project, resource) => {
            let organization = membership(reading.world, reading.identity, organization)?;
            let project = organization.project(project).ok_or(Failure::NotFound)?;
            in_project(reading, (organization, project), resource)
        }
        Route::Team(organization, team) => {
            let organization = membership(reading.world, reading.identity, organization)?;
            let team = organization.team(team).ok_or(Failure::NotFound)?;
            Ok(body(shapes::team_detail(team, organization, reading.site)))
        }
        Route::TeamProjects(organization, team) => {
            let organization = membership(reading.world, reading.identity, organization)?;
            let team = organization.team(team).ok_or(Failure::NotFound)?;
            let of_team: Vec<_> =
                organization.projects.iter().filter(|project| project.team == team.id).collect();
            reading.page(&of_team, &Order::Page(of_team.len()), |project| {
                shapes::project_item(project, organization)
            })
        }
        Route::Issue(issue) => {
            let organization = reading.world.organization_of_issue(issue).ok_or(Failure::NotFound)?;
            let organization = membership(reading.world, reading.identity, &organization.slug)?;
            issue_detail(reading, organization, issue)
        }
        Route::OfIssue(issue, resource) => {
            let organization = reading.world.organization_of_issue(issue).ok_or(Failure::NotFound)?;
            let organization = membership(reading.world, reading.identity, &organization.slug)?;
            in_issue(reading, (organization, issue), resource)
        }
    }
}

impl Reading<'_> {
    /// Returns the page of a list that the request asks for.
    fn page<T>(&self, items: &[T], order: &Order, shape: impl Fn(&T) -> String) -> Result<Answer, Failure> {
        let page = Page::of(order, &self.call.query)?;
        let shown = items.get(page.rows()).unwrap_or_default();
        let url = format!("{}{}", self.site.url_prefix, self.call.path);
        Ok(body(list(shown.iter().map(shape))).with(LINK, &page.link(&url, &self.call.query)))
    }

    /// Returns a page of things that are JSON already.
    fn texts(&self, items: &[String]) -> Result<Answer, Failure> {
        self.page(items, &Order::Page(items.len()), Clone::clone)
    }

    fn asks(&self, name: &str) -> Option<&str> {
        self.call.query.last(name).filter(|value| !value.is_empty())
    }
}

fn body(text: String) -> Answer {
    Answer::json(StatusCode::OK, text)
}

/// Returns what `/api/0/` says to nobody in particular.
pub fn anonymous_root() -> Answer {
    body(r#"{"version":"0","auth":null,"user":null}"#.to_owned())
}

fn root(reading: &Reading<'_>) -> Answer {
    let scopes = Object::start().texts("scopes", reading.identity.scopes).finish();
    let user = shapes::user_detail(&reading.identity.user.person());
    body(Object::start().text("version", "0").raw("auth", &scopes).raw("user", &user).finish())
}

fn regions(reading: &Reading<'_>) -> Answer {
    let region = |(name, url)| Object::start().text("name", name).text("url", url).finish();
    let regions = reading.site.all_regions().into_iter().map(region);
    body(Object::start().list("regions", regions).finish())
}

fn organizations(reading: &Reading<'_>) -> Result<Answer, Failure> {
    let mut found = reading.world.organizations_of(reading.identity.user);
    if matches!(reading.asks("owner"), Some("1" | "true")) {
        return Ok(owned(reading, found));
    }
    if let Some(query) = reading.asks("query") {
        found.retain(|organization| query.split_whitespace().all(|word| is_found(organization, word)));
    }
    let shape = |organization: &&Organization| shapes::organization_item(organization, reading.site);
    let size: fn(&Organization) -> usize = match reading.asks("sortBy") {
        Some("members") => |organization| organization.members().len(),
        Some("projects") => |organization| organization.projects.len(),
        _ => {
            let dates = found.iter().map(|organization| organization.created.milliseconds());
            return reading.page(&found, &Order::Date(dates.collect()), shape);
        }
    };
    found.sort_by_key(|organization| std::cmp::Reverse(size(organization)));
    reading.page(&found, &Order::Page(found.len()), shape)
}

/// Returns the organizations that the caller owns: another shape, by name, and never in pages.
fn owned(reading: &Reading<'_>, mut found: Vec<&Organization>) -> Answer {
    found.retain(|_| reading.identity.user.role() == "owner");
    found.sort_by(|one, other| one.name.cmp(&other.name));
    body(list(found.into_iter().map(|organization| {
        let item = shapes::organization_item(organization, reading.site);
        Object::start().raw("organization", &item).raw("singleOwner", "true").finish()
    })))
}

/// Returns whether an organization matches a word of a query; a word with an unknown name matches nothing.
fn is_found(organization: &Organization, word: &str) -> bool {
    let contains = |text: &str| {
        let text = text.to_lowercase();
        organization.name.to_lowercase().contains(&text) || organization.slug.contains(&text)
    };
    match word.split_once(':') {
        None => contains(word),
        Some(("query", text)) => contains(text),
        Some(("slug", slug)) => organization.slug == slug,
        Some(("id", id)) => organization.id.to_string() == id,
        Some(("status", status)) => status == "active",
        Some(_) => false,
    }
}

fn all_projects(reading: &Reading<'_>) -> Result<Answer, Failure> {
    let organizations = reading.world.organizations_of(reading.identity.user);
    let mut found: Vec<(&Project, &Organization)> = organizations
        .into_iter()
        .flat_map(|organization| organization.projects.iter().map(move |project| (project, organization)))
        .collect();
    found.sort_by_key(|(project, _)| std::cmp::Reverse((project.created, project.id)));
    let dates = found.iter().map(|(project, _)| project.created.milliseconds()).collect();
    reading.page(&found, &Order::Date(dates), |(project, organization)| {
        let organization = shapes::organization_item(organization, reading.site);
        shapes::project_members(project).raw("organization", &organization).finish()
    })
}

fn in_organization(
    reading: &Reading<'_>,
    organization: &Organization,
    resource: &InOrganization,
) -> Result<Answer, Failure> {
    match resource {
        InOrganization::Detail => Ok(organization_detail(reading, organization)),
        InOrganization::Projects => {
            let order = Order::Page(organization.projects.len());
            reading
                .page(&organization.projects, &order, |project| shapes::project_item(project, organization))
        }
        InOrganization::Teams => {
            let order = Order::Page(organization.teams.len());
            reading.page(&organization.teams, &order, |team| shapes::team_item(team, organization))
        }
        InOrganization::Members => {
            let members = organization.members();
            reading.page(&members, &Order::Page(members.len()), |(person, role)| {
                shapes::member_item(person, role, organization)
            })
        }
        InOrganization::Environments => Ok(body("[]".to_owned())),
        InOrganization::Releases => releases(reading, organization),
        InOrganization::Release(version) => release_detail(organization, version),
        InOrganization::Issues => issues(reading, organization, None),
        InOrganization::Issue(issue) => issue_detail(reading, organization, issue),
        InOrganization::OfIssue(issue, resource) => in_issue(reading, (organization, issue), resource),
        InOrganization::Deploys(version) => {
            let release = organization.release(version).ok_or(Failure::NotFound)?;
            reading.page(&release.deploys, &Order::Page(release.deploys.len()), inventory::deploy)
        }
        InOrganization::Repositories => reading.texts(&inventory::repositories(organization)),
        InOrganization::Monitors => reading.texts(&inventory::monitors(organization)),
        InOrganization::Events => events_table(reading, organization),
        InOrganization::EventsValidation => Ok(validation(reading)),
        InOrganization::Event(project, event) => {
            let project = organization.project(project).ok_or(Failure::NotFound)?;
            one_of(&occurrences::of_organization(organization, Some(project)), event)
        }
        InOrganization::Trace(trace) => {
            let events = occurrences::of_organization(organization, None).into_iter();
            Ok(body(list(events.filter(|event| event.trace() == *trace).map(|event| event.in_trace()))))
        }
        // What has no replays is not in it.
        InOrganization::ReplayCount => Ok(body("{}".to_owned())),
        InOrganization::ShortId(issue) => {
            let issue = organization.issue(issue).ok_or(Failure::NotFound)?;
            Ok(body(events::short_id(issue, organization, reading.site)))
        }
        InOrganization::Empty => reading.page::<()>(&[], &Order::Page(0), |()| String::new()),
    }
}

fn organization_detail(reading: &Reading<'_>, organization: &Organization) -> Answer {
    let (identity, site) = (&reading.identity, reading.site);
    body(match reading.asks("detailed") {
        Some("0") => shapes::organization_summary(organization, identity, site).finish(),
        Some(_) | None => shapes::organization_detail(organization, identity, site),
    })
}

fn in_project(
    reading: &Reading<'_>,
    (organization, project): (&Organization, &Project),
    resource: &InProject,
) -> Result<Answer, Failure> {
    match resource {
        InProject::Detail => Ok(body(shapes::project_detail(project, organization, reading.site))),
        InProject::Issues => issues(reading, organization, Some(project)),
        InProject::Keys => reading.page(&[project], &Order::Page(1), |project| events::key_item(project)),
        InProject::Releases => releases(reading, organization),
        InProject::Release(version) => release_detail(organization, version),
        InProject::Events => {
            let events = occurrences::of_organization(organization, Some(project));
            reading.page(&events, &Order::Row(events.len()), Occurrence::item)
        }
        InProject::Event(event) => one_of(&occurrences::of_organization(organization, Some(project)), event),
        // No integration knows the code.
        InProject::StacktraceLink => {
            Ok(body(r#"{"config":null,"sourceUrl":null,"integrations":[]}"#.to_owned()))
        }
    }
}

fn in_issue(
    reading: &Reading<'_>,
    (organization, issue): (&Organization, &str),
    resource: &InIssue,
) -> Result<Answer, Failure> {
    let issue = organization.issue(issue).ok_or(Failure::NotFound)?;
    let events = occurrences::of_issue(issue, organization);
    match resource {
        InIssue::Events => reading.page(&events, &Order::Row(events.len()), Occurrence::item),
        InIssue::Event(event) => one_of(&events, event),
        InIssue::Tags => Ok(body(occurrences::tags(&events))),
        InIssue::Tag(key) => occurrences::tag_values(&events, key).map(body).ok_or(Failure::NotFound),
        InIssue::Autofix => Ok(body(r#"{"autofix":null}"#.to_owned())),
        InIssue::Empty => Ok(body("[]".to_owned())),
    }
}

fn one_of(events: &[Occurrence<'_>], name: &str) -> Result<Answer, Failure> {
    occurrences::named(events, name).map(|event| body(event.detail())).ok_or(Failure::NotFound)
}

/// Returns a table of the organization's events: the columns that are asked for, the projects, the trace.
fn events_table(reading: &Reading<'_>, organization: &Organization) -> Result<Answer, Failure> {
    let query = &reading.call.query;
    let columns: Vec<&str> = query.all("field").collect();
    if columns.is_empty() {
        return Err(Failure::Invalid("No columns selected".to_owned()));
    }
    let trace = query.last("query").and_then(|query| query.strip_prefix("trace:"));
    let mut events = occurrences::of_organization(organization, None);
    events.retain(|event| trace.is_none_or(|trace| event.trace() == trace));
    let page = Page::of(&Order::Page(events.len()), query)?;
    let shown = events.get(page.rows()).unwrap_or_default();
    let url = format!("{}{}", reading.site.url_prefix, reading.call.path);
    Ok(body(occurrences::table(shown, &columns)).with(LINK, &page.link(&url, query)))
}

/// Says of a table that it can be made; the sandbox knows no other.
fn validation(reading: &Reading<'_>) -> Answer {
    let query = &reading.call.query;
    let valid = |name: &str| {
        let name = Object::start().text("name", name).members(r#""valid":true,"attrType":null,"error":null"#);
        name.finish()
    };
    let dataset = query.last("dataset").unwrap_or("errors");
    let dataset = format!(r#"{{"name":{},"valid":true,"error":null}}"#, quoted(dataset));
    body(
        Object::start()
            .members(r#""valid":true,"projects":[],"environment":[]"#)
            .list("dataset", [dataset])
            .list("field", query.all("field").map(valid))
            .raw("query", r#"{"valid":true,"error":null,"fields":[]}"#)
            .list("orderby", query.all("orderby").map(valid))
            .finish(),
    )
}

fn releases(reading: &Reading<'_>, organization: &Organization) -> Result<Answer, Failure> {
    let dates = organization.releases.iter().map(|release| release.created.milliseconds());
    let order = Order::Date(dates.collect());
    reading.page(&organization.releases, &order, |release| events::release_item(release, organization))
}

fn release_detail(organization: &Organization, version: &str) -> Result<Answer, Failure> {
    let release = organization.release(version).ok_or(Failure::NotFound)?;
    Ok(body(events::release_item(release, organization)))
}

fn issue_detail(reading: &Reading<'_>, organization: &Organization, issue: &str) -> Result<Answer, Failure> {
    let issue = organization.issue(issue).ok_or(Failure::NotFound)?;
    Ok(body(events::issue_detail(issue, organization, reading.site)))
}

/// Returns the issues of an organization or a project; without a query the unresolved ones.
fn issues(
    reading: &Reading<'_>,
    organization: &Organization,
    project: Option<&Project>,
) -> Result<Answer, Failure> {
    let query = reading.call.query.last("query").unwrap_or("is:unresolved");
    let asked: Vec<&str> = reading.call.query.all("project").filter(|project| *project != "-1").collect();
    let mut found: Vec<&Issue> = organization.issues.iter().collect();
    found.retain(|issue| project.is_none_or(|project| project.id == issue.project));
    found.retain(|issue| asked.is_empty() || asked.iter().any(|id| *id == issue.project.to_string()));
    found.retain(|issue| query.split_whitespace().all(|word| is_issue_found(issue, word)));
    let hits = found.len();
    let answer = reading
        .page(&found, &Order::Row(hits), |issue| events::issue_item(issue, organization, reading.site))?;
    let answer = answer.with(HeaderName::from_static("x-hits"), &hits.to_string());
    Ok(answer.with(HeaderName::from_static("x-max-hits"), "1000"))
}

fn is_issue_found(issue: &Issue, word: &str) -> bool {
    match word.split_once(':') {
        Some(("is", status)) => issue.status == status,
        Some(("issue", short_id)) => issue.short_id == short_id,
        Some(_) => true,
        None => issue.title.to_lowercase().contains(&word.to_lowercase()),
    }
}

//! What an organization has besides what people work with: repositories and monitors, and deploys of its releases.
//!
//! Invariant: repositories and monitors follow from their organization alone; deploys are what clients have told.
//! Not here: releases themselves (`sandbox::events`).

use crate::sandbox::json::{Object, quoted};
use crate::sandbox::world::{Deploy, Organization, Project};

/// Returns the repositories of an organization.
pub fn repositories(organization: &Organization) -> Vec<String> {
    (1..=organization.repositories).map(|number| repository(number, organization)).collect()
}

fn repository(number: u64, organization: &Organization) -> String {
    let name = format!("sample/repository-{number}");
    Object::start()
        .identifier("id", organization.id * 100 + number)
        .text("name", &name)
        .text("url", &format!("https://git.example.test/{name}"))
        .raw("provider", r#"{"id":"unknown","name":"Unknown Provider"}"#)
        .text("status", "active")
        .text("dateCreated", &organization.created.text())
        .members(r#""integrationId":null,"externalSlug":null,"externalId":null"#)
        .finish()
}

/// Returns the monitors of an organization: one for each project, of ten at most.
pub fn monitors(organization: &Organization) -> Vec<String> {
    organization.projects.iter().take(10).map(|project| monitor(project, organization)).collect()
}

fn monitor(project: &Project, organization: &Organization) -> String {
    let number = format!("{:032x}", project.id);
    let part = |range: std::ops::Range<usize>| number.get(range).unwrap_or_default();
    let id = [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-");
    let reference = Object::start()
        .identifier("id", project.id)
        .text("slug", &project.slug)
        .text("name", &project.name)
        .text("platform", &project.platform);
    Object::start()
        .text("id", &id)
        .text("name", &format!("Nightly of {}", project.name))
        .text("slug", &format!("nightly-{}", project.slug))
        .members(r#""type":"cron_job","status":"active","isMuted":false,"isUpserting":false"#)
        .members(r#""config":{"schedule_type":"crontab","schedule":"0 3 * * *","checkin_margin":null"#)
        .members(r#""max_runtime":null,"timezone":"UTC","failure_issue_threshold":null,"recovery_threshold":null}"#)
        .text("dateCreated", &organization.created.text())
        .raw("project", &reference.finish())
        .members(r#""owner":null,"environments":[]"#)
        .finish()
}

/// Returns a deploy of a release.
pub fn deploy(deploy: &Deploy) -> String {
    let optional = |text: Option<&String>| text.map_or_else(|| "null".to_owned(), |text| quoted(text));
    Object::start()
        .identifier("id", deploy.id)
        .text("environment", &deploy.environment)
        .raw("dateStarted", "null")
        .text("dateFinished", &deploy.finished.text())
        .raw("name", &optional(deploy.name.as_ref()))
        .raw("url", &optional(deploy.url.as_ref()))
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::world::World;

    #[test]
    fn repositories_and_monitors_are_json_and_differ_between_organizations() {
        let world = World::new();
        let of = |slug: &str| {
            let organization = world.organization(slug).unwrap();
            let all = repositories(organization).into_iter().chain(monitors(organization));
            all.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap()["id"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!((of("org-002").len(), of("org-001").len()), (5, 12));
        assert!(of("org-002").iter().all(|id| !of("org-003").contains(id)));
    }
}

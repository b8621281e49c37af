//! The events of issues: each time that something went wrong, and what they look like as JSON.
//!
//! Nothing of them is kept: they follow from their issue, three of them, a minute apart.
//!
//! Invariants: an event has the same identifier on every start, and no two have the same; the newest comes first.
//! Not here: the issues themselves (`sandbox::events`).

use crate::sandbox::json::{Object, list, quoted};
use crate::sandbox::world::{Date, Issue, Organization, Project};

/// How many events an issue has.
pub const EVENTS_PER_ISSUE: u64 = 3;
/// An odd number without any pattern; multiplying by it scatters identifiers, and keeps them apart.
const SCATTER: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
/// Whom it happened to, with what, and where in the program.
const USER: &str = r#"{"id":"1","email":"user@example.test","username":null,"ip_address":null,"name":null,"geo":null,"data":null}"#;
const SDK: &str = r#"{"name":"sentry.sample","version":"1.0.0"}"#;
const FRAMES: &str = concat!(
    r#"[{"filename":"sample/main.py","absPath":"/app/sample/main.py","module":"sample.main","package":null,"#,
    r#""platform":null,"instructionAddr":null,"symbolAddr":null,"function":"main","rawFunction":null,"#,
    r#""symbol":null,"context":[[7,"    index(request)"]],"lineNo":7,"colNo":null,"trust":null,"inApp":true,"#,
    r#""errors":null,"vars":null,"lock":null,"sourceLink":null},"#,
    r#"{"filename":"sample/views.py","absPath":"/app/sample/views.py","module":"sample.views","package":null,"#,
    r#""platform":null,"instructionAddr":null,"symbolAddr":null,"function":"index","rawFunction":null,"#,
    r#""symbol":null,"context":[[20,"def index(request):"],[21,"    raise ValueError(request)"]],"lineNo":21,"#,
    r#""colNo":null,"trust":null,"inApp":true,"errors":null,"vars":null,"lock":null,"sourceLink":null}]"#,
);
const GROUPING: &str = r#"{"id":"newstyle:2023-01-11","enhancements":"sample"}"#;

/// One time that something went wrong.
#[derive(Debug, Clone, Copy)]
pub struct Occurrence<'a> {
    issue: &'a Issue,
    project: &'a Project,
    /// From 1, the oldest, to [`EVENTS_PER_ISSUE`].
    number: u64,
}

/// Returns the events of an issue, newest first.
pub fn of_issue<'a>(issue: &'a Issue, organization: &'a Organization) -> Vec<Occurrence<'a>> {
    let project = organization.projects.iter().find(|project| project.id == issue.project);
    let numbers =
        project.into_iter().flat_map(|project| (1..=EVENTS_PER_ISSUE).map(move |number| (project, number)));
    let mut events: Vec<_> = numbers.map(|(project, number)| Occurrence { issue, project, number }).collect();
    events.reverse();
    events
}

/// Returns the events of an organization or of one of its projects, newest first.
pub fn of_organization<'a>(organization: &'a Organization, project: Option<&Project>) -> Vec<Occurrence<'a>> {
    let issues = organization.issues.iter();
    let issues = issues.filter(|issue| project.is_none_or(|project| project.id == issue.project));
    let mut events: Vec<_> = issues.flat_map(|issue| of_issue(issue, organization)).collect();
    events.sort_by_key(|event| std::cmp::Reverse((event.created(), event.issue.id)));
    events
}

/// Returns the event of an issue that is called so: by its identifier, or by a name that stands for one.
pub fn named<'a>(events: &[Occurrence<'a>], name: &str) -> Option<Occurrence<'a>> {
    match name {
        "latest" | "recommended" | "helpful" => events.first().copied(),
        "oldest" => events.last().copied(),
        identifier => events.iter().find(|event| event.id() == identifier).copied(),
    }
}

/// Returns when an issue was seen for the last time.
pub fn last_seen(issue: &Issue) -> Date {
    issue.first_seen.after(EVENTS_PER_ISSUE - 1)
}

impl Occurrence<'_> {
    /// Returns its identifier: 32 hexadecimal digits.
    pub fn id(&self) -> String {
        let place = u128::from(self.issue.id) * u128::from(EVENTS_PER_ISSUE + 1) + u128::from(self.number);
        format!("{:032x}", place.wrapping_mul(SCATTER))
    }

    /// Returns the trace that it is part of: 32 hexadecimal digits.
    pub fn trace(&self) -> String {
        format!("{:032x}", u128::from(self.issue.id).wrapping_mul(SCATTER))
    }

    fn created(&self) -> Date {
        self.issue.first_seen.after(self.number - 1)
    }

    fn value(&self) -> &str {
        self.issue.title.strip_prefix("ValueError: ").unwrap_or(&self.issue.title)
    }

    fn tags(&self) -> String {
        let tag = |key: &str, value: &str| Object::start().text("key", key).text("value", value).finish();
        list([
            tag("environment", "production"),
            tag("level", "error"),
            tag("release", "web@1.0.1"),
            tag("server_name", &format!("web-{}", self.number)),
        ])
    }

    /// Returns it as it stands in lists.
    pub fn item(&self) -> String {
        Object::start()
            .text("id", &self.id())
            .text("event.type", "error")
            .identifier("groupID", self.issue.id)
            .text("eventID", &self.id())
            .identifier("projectID", self.project.id)
            .text("message", "")
            .text("title", &self.issue.title)
            .text("location", "sample/views.py")
            .text("culprit", "sample.views in index")
            .raw("user", USER)
            .raw("tags", &self.tags())
            .text("platform", &self.project.platform)
            .text("dateCreated", &self.created().text())
            .raw("crashFile", "null")
            .raw("metadata", &self.metadata())
            .finish()
    }

    /// Returns the whole of it.
    pub fn detail(&self) -> String {
        let newer = (self.number < EVENTS_PER_ISSUE).then(|| Self { number: self.number + 1, ..*self });
        let older = (1 < self.number).then(|| Self { number: self.number - 1, ..*self });
        let neighbour =
            |event: Option<Self>| event.map_or_else(|| "null".to_owned(), |event| quoted(&event.id()));
        self.head()
            .list("entries", [self.exception()])
            .members(r#""dist":null,"message":"""#)
            .text("title", &self.issue.title)
            .text("location", "sample/views.py")
            .raw("user", USER)
            .raw("contexts", &self.contexts())
            .raw("sdk", SDK)
            .members(r#""context":{},"packages":{},"type":"error""#)
            .raw("metadata", &self.metadata())
            .raw("tags", &self.tags())
            .text("platform", &self.project.platform)
            .text("dateReceived", &self.created().text())
            .members(r#""errors":[],"occurrence":null,"_meta":{},"crashFile":null,"culprit":"sample.views in index""#)
            .text("dateCreated", &self.created().text())
            .texts("fingerprints", &["5f4dcc3b5aa765d61d8327deb882cf99"])
            .raw("groupingConfig", GROUPING)
            .members(r#""release":null,"userReport":null,"sdkUpdates":[],"resolvedWith":[]"#)
            .raw("nextEventID", &neighbour(newer))
            .raw("previousEventID", &neighbour(older))
            .finish()
    }

    fn head(&self) -> Object {
        Object::start()
            .text("id", &self.id())
            .identifier("groupID", self.issue.id)
            .text("eventID", &self.id())
            .identifier("projectID", self.project.id)
            .text("projectSlug", &self.project.slug)
            .raw("size", "1024")
    }

    fn metadata(&self) -> String {
        Object::start().text("value", self.value()).text("type", "ValueError").finish()
    }

    fn exception(&self) -> String {
        let stacktrace = Object::start()
            .raw("frames", FRAMES)
            .members(r#""framesOmitted":null,"registers":null,"hasSystemFrames":false"#);
        let value = Object::start()
            .text("type", "ValueError")
            .text("value", self.value())
            .members(r#""mechanism":{"type":"generic","handled":true},"threadId":null,"module":null"#)
            .raw("stacktrace", &stacktrace.finish())
            .members(r#""rawStacktrace":null"#);
        let data = Object::start()
            .list("values", [value.finish()])
            .members(r#""hasSystemFrames":false,"excOmitted":null"#);
        Object::start().raw("data", &data.finish()).text("type", "exception").finish()
    }

    fn contexts(&self) -> String {
        let span = self.trace().get(..16).unwrap_or_default().to_owned();
        let trace = Object::start()
            .text("trace_id", &self.trace())
            .text("span_id", &span)
            .members(r#""op":"http.server","status":"internal_error","type":"trace""#);
        Object::start().raw("trace", &trace.finish()).finish()
    }

    /// Returns it as a row of a table that shows these columns.
    pub fn row(&self, columns: &[&str]) -> String {
        let cells = columns.iter().fold(Object::start(), |row, column| self.cell(row, column));
        cells.finish()
    }

    /// Adds a cell; a column that is not known has nothing in it.
    fn cell(&self, row: Object, column: &str) -> Object {
        match column {
            "id" => row.text(column, &self.id()),
            "issue" => row.text(column, &self.issue.short_id),
            "issue.id" => row.raw(column, &self.issue.id.to_string()),
            "project" | "project.name" => row.text(column, &self.project.slug),
            "title" | "message" => row.text(column, &self.issue.title),
            "trace" => row.text(column, &self.trace()),
            "timestamp" | "last_seen()" => row.text(column, &self.created().text()),
            "count()" => row.raw(column, "1"),
            "level" => row.text(column, "error"),
            "culprit" | "transaction" => row.text(column, "sample.views in index"),
            _ => row.raw(column, "null"),
        }
    }

    /// Returns it as a trace shows it.
    pub fn in_trace(&self) -> String {
        Object::start()
            .text("event_id", &self.id())
            .raw("project_id", &self.project.id.to_string())
            .text("project_slug", &self.project.slug)
            .text("start_timestamp", &self.created().text())
            .text("transaction", "sample.views in index")
            .text("description", &self.issue.title)
            .text("message", &self.issue.title)
            .text("level", "error")
            .raw("issue_id", &self.issue.id.to_string())
            .text("issue", &self.issue.short_id)
            .text("event_type", "error")
            .finish()
    }
}

/// Returns a table of events, as it is asked for: its columns by name, with their types.
pub fn table(events: &[Occurrence<'_>], columns: &[&str]) -> String {
    let kind = |column: &str| match column {
        "issue.id" | "count()" => "integer",
        "timestamp" | "last_seen()" => "date",
        _ => "string",
    };
    let fields = columns.iter().fold(Object::start(), |fields, column| fields.text(column, kind(column)));
    let meta = Object::start()
        .raw("fields", &fields.finish())
        .members(r#""units":{},"isMetricsData":false,"isMetricsExtractedData":false"#)
        .members(r#""tips":{"query":null,"columns":null},"datasetReason":"unchanged","dataset":"errors""#);
    Object::start()
        .list("data", events.iter().map(|event| event.row(columns)))
        .raw("meta", &meta.finish())
        .finish()
}

/// Returns how often each value of a tag stands in events of an issue.
pub fn tag_values(events: &[Occurrence<'_>], key: &str) -> Option<String> {
    let name = match key {
        "environment" => "Environment",
        "level" => "Level",
        "release" => "Release",
        "server_name" => "Server Name",
        _ => return None,
    };
    let values: Vec<String> = match key {
        "server_name" => {
            events.iter().map(|event| value_of_tag(&format!("web-{}", event.number), 1, events)).collect()
        }
        "environment" => vec![value_of_tag("production", events.len(), events)],
        "level" => vec![value_of_tag("error", events.len(), events)],
        _ => vec![value_of_tag("web@1.0.1", events.len(), events)],
    };
    let head = Object::start().text("key", key).text("name", name);
    let counted =
        head.raw("uniqueValues", &values.len().to_string()).raw("totalValues", &events.len().to_string());
    Some(counted.list("topValues", values).finish())
}

fn value_of_tag(value: &str, count: usize, events: &[Occurrence<'_>]) -> String {
    let date =
        |event: Option<&Occurrence<'_>>| event.map_or_else(String::new, |event| event.created().text());
    Object::start()
        .text("key", value)
        .text("name", value)
        .text("value", value)
        .raw("count", &count.to_string())
        .text("lastSeen", &date(events.first()))
        .text("firstSeen", &date(events.last()))
        .finish()
}

/// Returns all that is said of tags of an issue, key by key.
pub fn tags(events: &[Occurrence<'_>]) -> String {
    list(["environment", "level", "release", "server_name"].iter().filter_map(|key| tag_values(events, key)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::sandbox::world::World;

    #[test]
    fn every_event_has_an_identifier_of_its_own_that_is_the_same_on_every_start() {
        let (world, again) = (World::new(), World::new());
        let identifiers = |world: &World| -> Vec<String> {
            let organization = world.organization("org-001").unwrap();
            of_organization(organization, None).iter().map(Occurrence::id).collect()
        };
        let found = identifiers(&world);
        assert_eq!(found, identifiers(&again));
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), 360);
        assert!(found.iter().all(|id| id.len() == 32));
    }

    #[test]
    fn names_stand_for_the_ends_of_the_list_and_events_know_their_neighbours() {
        let world = World::new();
        let organization = world.organization("org-002").unwrap();
        let events = of_issue(organization.issue("PROJECT-001-1").unwrap(), organization);
        let detail = |name: &str| -> serde_json::Value {
            serde_json::from_str(&named(&events, name).unwrap().detail()).unwrap()
        };
        let (latest, oldest) = (detail("latest"), detail("oldest"));
        assert_eq!(latest["nextEventID"], serde_json::Value::Null);
        assert_eq!(oldest["previousEventID"], serde_json::Value::Null);
        assert_eq!(detail(oldest["nextEventID"].as_str().unwrap())["nextEventID"], latest["id"]);
        assert_eq!(latest["dateCreated"], last_seen(events[0].issue).text());
        assert!(named(&events, "0").is_none());
    }

    #[test]
    fn a_table_has_the_columns_that_were_asked_for() {
        let world = World::new();
        let organization = world.organization("org-002").unwrap();
        let events = of_organization(organization, organization.project("project-002"));
        let text = table(&events, &["title", "issue.id", "nonsense"]);
        let table: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(table["data"].as_array().unwrap().len(), 9);
        assert_eq!(table["data"][0]["title"], "ValueError: sample failure 3 in project-002");
        assert_eq!(table["data"][0]["nonsense"], serde_json::Value::Null);
        assert_eq!(table["meta"]["fields"]["issue.id"], "integer");
    }

    #[test]
    fn values_of_a_tag_are_counted() {
        let world = World::new();
        let organization = world.organization("org-002").unwrap();
        let events = of_issue(organization.issue("PROJECT-001-1").unwrap(), organization);
        let tag: serde_json::Value =
            serde_json::from_str(&tag_values(&events, "server_name").unwrap()).unwrap();
        assert_eq!(
            (tag["uniqueValues"].as_u64(), tag["topValues"][2]["value"].as_str()),
            (Some(3), Some("web-1"))
        );
        assert!(tag_values(&events, "browser").is_none());
    }
}

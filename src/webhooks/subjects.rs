//! Says what a webhook is about, by its body alone, because only that is signed. Pure.
//!
//! | The body holds | as Sentry sends it for | What it touches |
//! |---|---|---|
//! | `data.issue` with an `id` | `issue`, `activity_alert` | its organization's issues, the issue itself by number and by short id |
//! | `data.event`, `data.error` with an `issue_id`, or with a URL below `/issues/{number}/` | `event_alert`, `error` | the same |
//! | `data.issue_id` | `comment` | the issue; the issues of every organization, because it names none |
//! | `data.group_id` | `seer` | the same |
//! | `data.installation` | `installation` | everything of its organization |
//! | `data.metric_alert` | `metric_alert` | the same |
//! | anything else | what Sentry invents next, such as `preprod_artifact` | the same |
//!
//! Where the organization cannot be told, the last three touch everything. It is told by a slug, or by the URLs that Sentry
//! itself puts into the body: their path (`/api/0/organizations/{organization}/…`, `/api/0/projects/{organization}/…`,
//! `/organizations/{organization}/…`), or else their host (`{organization}.sentry.io`). They are read at known places only,
//! because an event holds URLs of whoever sent it as well.
//!
//! What does not say whose it is (`Tag::Unplaced`) is touched with any organization.
//! Invariants: rather too much than too little; a tag holds a name in letters, digits, `-` and `_` and nothing else of the
//! body. Not here: what a tag reaches (`routes::tags`), purging (handed in).

use http::Uri;
use serde_json::Value;

use crate::routes::place::{Area, Place, is_number};
use crate::routes::tags::Tag;

/// Longest name that is taken for one, in bytes. Sentry's slugs have at most 50.
const MAX_NAME: usize = 100;

/// Where numbers of issues stand.
const ISSUES: [&str; 5] =
    ["/data/issue/id", "/data/event/issue_id", "/data/error/issue_id", "/data/issue_id", "/data/group_id"];

/// Where the short id of an issue stands.
const SHORT_ID: &str = "/data/issue/shortId";

/// What is about an organization as a whole, whatever else it holds.
const SWEEPING: [&str; 2] = ["/data/installation", "/data/metric_alert"];

/// Where slugs of organizations stand.
const ORGANIZATIONS: [&str; 2] = ["/data/installation/organization/slug", "/data/organizationSlug"];

/// Where URLs of Sentry's own making stand.
const URLS: [&str; 13] = [
    "/data/issue/url",
    "/data/issue/web_url",
    "/data/issue/permalink",
    "/data/issue/project_url",
    "/data/event/url",
    "/data/event/web_url",
    "/data/event/issue_url",
    "/data/error/url",
    "/data/error/web_url",
    "/data/error/issue_url",
    "/data/alert/url",
    "/data/alert/web_url",
    "/data/web_url",
];

/// The domain below which an organization has a host of its own.
const SENTRY_DOMAIN: &str = ".sentry.io";

/// Hosts below [`SENTRY_DOMAIN`] that are no organization's.
const NO_ORGANIZATIONS: [&str; 4] = ["de", "eu", "us", "www"];

/// Returns what a webhook touches: the table of the module's documentation. There is always something.
pub fn subjects_of(payload: &Value) -> Vec<Tag> {
    let urls: Vec<Uri> = texts(payload, &URLS).filter_map(|url| url.parse().ok()).collect();
    let issues = issues(payload, &urls);
    let organizations = organizations(payload, &urls);
    let mut subjects = Vec::new();
    if !issues.is_empty() {
        subjects.extend(issues.iter().map(|issue| Tag::issue(issue)));
        subjects.extend(issues_of(&organizations));
    }
    if subjects.is_empty() || SWEEPING.iter().any(|place| payload.pointer(place).is_some()) {
        subjects.extend(everything_of(&organizations));
    }
    if !organizations.is_empty() {
        // What does not say whose it is may be theirs.
        subjects.push(Tag::Unplaced);
    }
    distinct(subjects)
}

/// Returns the names of the issues that a webhook is about: numbers first; without any, the short id says too little.
fn issues(payload: &Value, urls: &[Uri]) -> Vec<String> {
    let mut issues: Vec<String> = names(payload, &ISSUES).collect();
    issues.extend(urls.iter().filter_map(|url| issue_in(url.path())).map(str::to_owned));
    if !issues.is_empty() {
        issues.extend(names(payload, &[SHORT_ID]));
    }
    issues
}

/// Returns the slugs of the organizations that a webhook names.
fn organizations(payload: &Value, urls: &[Uri]) -> Vec<String> {
    let told = urls.iter().filter_map(organization_of_url).map(str::to_owned);
    distinct(names(payload, &ORGANIZATIONS).chain(told).collect())
}

/// Returns the issues of each organization, or of all where none is told.
fn issues_of(organizations: &[String]) -> Vec<Tag> {
    if organizations.is_empty() {
        return vec![Tag::Area(None, Area::Issues)];
    }
    organizations.iter().map(|name| Tag::area(name, Area::Issues)).collect()
}

fn everything_of(organizations: &[String]) -> Vec<Tag> {
    // A number alone does not reach what was asked for by slug; a slug reaches what was asked for by number.
    if organizations.is_empty() {
        return vec![Tag::Everything];
    }
    organizations.iter().cloned().map(Tag::Organization).collect()
}

/// Returns the organization that a URL of Sentry's tells.
fn organization_of_url(url: &Uri) -> Option<&str> {
    let path = url.path();
    let by_path =
        Place::of(path).organization().or_else(|| path.strip_prefix("/organizations/")?.split('/').next());
    // The API is asked at a region's host, pages at an organization's.
    let by_host = || url.host().filter(|_| !path.starts_with("/api/")).and_then(organization_of_host);
    by_path.or_else(by_host).filter(|name| is_name(name))
}

/// Returns the organization that has a host of its own.
fn organization_of_host(host: &str) -> Option<&str> {
    let name = host.strip_suffix(SENTRY_DOMAIN)?;
    // Regions are numbered, as in `us2`.
    let kind = name.trim_end_matches(|digit: char| digit.is_ascii_digit());
    (!NO_ORGANIZATIONS.contains(&kind)).then_some(name)
}

/// Returns the number after `/issues/` in a path.
fn issue_in(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once("/issues/")?;
    let number = rest.split('/').next()?;
    (is_name(number) && is_number(number)).then_some(number)
}

/// Returns the names that stand at some places of the payload, as text or as a number.
fn names<'a>(payload: &'a Value, places: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    let name = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => number.as_u64().map(|number| number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    places.iter().filter_map(|place| payload.pointer(place)).filter_map(name).filter(|name| is_name(name))
}

/// Returns the texts that stand at some places of the payload.
fn texts<'a>(payload: &'a Value, places: &'a [&str]) -> impl Iterator<Item = &'a str> {
    places.iter().filter_map(|place| payload.pointer(place)).filter_map(Value::as_str)
}

fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_part)
}

/// Leaves out what is there already; there are a handful.
fn distinct<T: PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for one in all {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Checks what a webhook with this `data` touches, in words.
    fn check(data: &Value, expected: &[&str]) {
        let payload = json!({
            "action": "created",
            "actor": { "id": "sentry", "name": "Sentry", "type": "application" },
            "installation": { "uuid": "a8e5d37a-696c-4c54-adb5-b3f28d64c7de" },
            "data": data,
        });
        check_payload(&payload, expected);
    }

    fn check_payload(payload: &Value, expected: &[&str]) {
        let found: Vec<_> = subjects_of(payload).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{payload}");
    }

    /// An issue in the shape in which Sentry sends it.
    fn issue() -> Value {
        json!({
            "url": "https://sentry.io/api/0/organizations/acme/issues/1234567890/",
            "web_url": "https://acme.sentry.io/issues/1234567890/",
            "project_url": "https://acme.sentry.io/issues/?project=4509877862268928",
            "permalink": "https://acme.sentry.io/issues/1234567890/",
            "id": "1234567890",
            "shortId": "PYTHON-Y",
            "project": { "id": "4509877862268928", "name": "python", "slug": "python" },
            "metadata": { "title": "https://evil.sentry.io/organizations/evil/issues/666/" },
        })
    }

    #[test]
    fn an_issue_touches_itself_under_both_names_and_the_issues_of_its_organization() {
        let expected = ["issue:1234567890", "issue:PYTHON-Y", "issues:acme", "unplaced"];
        check(&json!({ "issue": issue() }), &expected);
        let activity = json!({
            "issue": issue(),
            "activity": { "type": "seer_pr_created", "details": {} },
            "alert": { "id": 10, "url": "https://sentry.io/organizations/acme/monitors/alerts/10/" },
        });
        check(&activity, &expected);
    }

    #[test]
    fn an_event_and_an_error_touch_their_issue_and_the_issues_of_its_organization() {
        let event = json!({
            "event_id": "bb78c1407cea4519aa397afc059c793d",
            "issue_id": "1170820242",
            "issue_url": "https://sentry.io/api/0/issues/1170820242/",
            "url": "https://sentry.io/api/0/projects/acme/front-end/events/bb78c1407cea4519aa397afc059c793d/",
            "web_url": "https://sentry.io/organizations/acme/issues/1170820242/events/bb78c1407cea4519aa397afc059c793d/",
            "request": { "url": "https://evil.sentry.io/organizations/evil/issues/666/" },
            "tags": [["url", "https://evil.sentry.io/issues/666/"]],
        });
        let expected = ["issue:1170820242", "issues:acme", "unplaced"];
        check(&json!({ "event": event, "triggered_rule": "Very important alert" }), &expected);
        check(&json!({ "error": event }), &expected);
        let mut without_number = event;
        without_number.as_object_mut().unwrap().remove("issue_id");
        check(&json!({ "error": without_number }), &expected);
    }

    #[test]
    fn a_comment_and_a_run_of_seer_touch_their_issue_and_the_issues_of_every_organization() {
        let comment = json!({
            "comment": "see https://evil.sentry.io/organizations/evil/issues/666/",
            "project_slug": "sentry",
            "comment_id": 1234,
            "issue_id": 100,
            "timestamp": "2022-03-02T21:51:44.118160Z",
        });
        check(&comment, &["issue:100", "issues"]);
        check(&json!({ "run_id": 12345, "group_id": 1_170_820_242_u64 }), &["issue:1170820242", "issues"]);
    }

    #[test]
    fn an_installation_touches_its_organization_by_slug() {
        let installation = |organization: Value| {
            json!({ "installation": {
                "status": "pending",
                "organization": organization,
                "app": { "uuid": "2ebf071f-28df-4989-aca9-c37c763b278f", "slug": "webhooks-galore" },
                "code": "f3c71b491e3949b6b033ae45312a4fcb",
            } })
        };
        check(&installation(json!({ "slug": "acme", "id": 1 })), &["organization:acme", "unplaced"]);
        check(&installation(json!({ "slug": "acme" })), &["organization:acme", "unplaced"]);
        check(&installation(json!({ "id": 1 })), &["everything"]);
        check(&installation(Value::Null), &["everything"]);
    }

    #[test]
    fn a_metric_alert_touches_its_organization() {
        let alert = json!({
            "description_title": "Resolved: Too many errors",
            "metric_alert": {
                "alert_rule": { "id": "7", "organization_id": "5", "projects": ["bar"] },
                "id": "4",
                "organization_id": "5",
            },
            "web_url": "https://sentry.io/organizations/acme/alerts/1/",
        });
        check(&alert, &["organization:acme", "unplaced"]);
        let mut without_url = alert.clone();
        without_url.as_object_mut().unwrap().remove("web_url");
        check(&without_url, &["everything"]);
        let mut with_issue = alert;
        with_issue.as_object_mut().unwrap().insert("issue_id".to_owned(), json!(9));
        check(&with_issue, &["issue:9", "issues:acme", "organization:acme", "unplaced"]);
    }

    #[test]
    fn whatever_else_is_signed_touches_its_organization_or_everything() {
        let build = json!({ "buildId": "72", "organizationSlug": "acme", "projectSlug": "web" });
        check(&build, &["organization:acme", "unplaced"]);
        check(&json!({ "web_url": "https://acme.sentry.io/insights/" }), &["organization:acme", "unplaced"]);
        check(&json!({ "something": { "new": true } }), &["everything"]);
        for payload in [json!({}), json!([]), json!("data"), json!(null), json!(7), json!({ "data": [] })] {
            check_payload(&payload, &["everything"]);
        }
    }

    #[test]
    fn an_issue_without_its_number_touches_everything_of_its_organization() {
        let mut nameless = issue();
        for place in ["id", "url", "web_url", "permalink"] {
            nameless.as_object_mut().unwrap().remove(place);
        }
        check(&json!({ "issue": nameless }), &["organization:acme", "unplaced"]);
    }

    #[test]
    fn several_organizations_are_all_touched() {
        let mut moved = issue();
        moved["permalink"] = json!("https://sentry.io/organizations/former/issues/1234567890/");
        check(
            &json!({ "issue": moved }),
            &["issue:1234567890", "issue:PYTHON-Y", "issues:acme", "issues:former", "unplaced"],
        );
    }

    #[test]
    fn an_organization_is_told_by_the_path_of_a_url_or_else_by_its_host() {
        for (url, expected) in [
            ("https://sentry.io/api/0/organizations/acme/issues/1/", Some("acme")),
            ("https://us.sentry.io/api/0/projects/acme/web/events/1/", Some("acme")),
            ("/api/0/organizations/acme/", Some("acme")),
            (
                "https://sentry.example:8443/organizations/acme/issues/1/?x=/organizations/other/",
                Some("acme"),
            ),
            ("https://other.sentry.io/organizations/acme/issues/1/", Some("acme")),
            ("https://acme.sentry.io/issues/1/", Some("acme")),
            ("https://us.sentry.io/issues/1/", None),
            ("https://us2.sentry.io/issues/1/", None),
            ("https://acme2.sentry.io/issues/1/", Some("acme2")),
            ("https://acme.sentry.io/api/0/issues/1/", None),
            ("https://www.sentry.io/issues/1/", None),
            ("https://sentry.io/issues/1/", None),
            ("https://a.b.sentry.io/issues/1/", None),
            ("https://acme.sentry.io.evil.example/issues/1/", None),
            ("https://sentry.example/issues/1/", None),
            ("https://sentry.io/organizations//issues/1/", None),
            ("https://sentry.io/organizations/a%2Fb/issues/1/", None),
            ("https://sentry.io/api/0/issues/1/", None),
        ] {
            assert_eq!(organization_of_url(&url.parse().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn nothing_but_a_name_gets_into_a_tag() {
        let long = "a".repeat(MAX_NAME + 1);
        for name in ["", " ", "a b", "a/b", "a\nb", "ä", "<script>", "..", long.as_str()] {
            check(&json!({ "issue_id": name }), &["everything"]);
            check(&json!({ "organizationSlug": name }), &["everything"]);
        }
        for name in [json!(-1), json!(1.5), json!(true), json!(null), json!([1]), json!({ "id": 1 })] {
            check(&json!({ "issue_id": name }), &["everything"]);
        }
    }
}

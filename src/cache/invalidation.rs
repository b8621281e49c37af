//! Says which stored responses a write makes unusable, for every credential ([RFC 9111 §4.4] and more), and which ones an
//! operator means by a purge ([`selector`]). Pure.
//!
//! | Write to | Makes unusable |
//! |---|---|
//! | `…/issues/`, of an organization or a project, and a project's `groups/` | all issues of the organization, and what shows them |
//! | `…/issues/{issue}/…` | that issue, under both of its names, and the lists, counts and events that show issues |
//! | `…/releases/`, `artifactbundle/…` | all releases of the organization, what shows them, and its issues: a release resolves some |
//! | `…/releases/{version}/…` | that release, what shows releases, and issues as above |
//! | `monitors/{monitor}/checkins/…` | that monitor, the list and the statistics of monitors |
//! | what only computes, uploads or notes a visit (`visit/`, `chunk-upload/`, `seer/…`, …) | that resource and what is below |
//! | anything else of an organization, its members, teams and projects included | everything of that organization, and the list of organizations |
//! | `/api/0/organizations/{organization}/` | the same, and every "there is nothing": it may have a new name |
//! | `/api/0/organizations/` | the list, and every "there is nothing" |
//! | `/api/0/issues/{issue}/…`, `/api/0/groups/{issue}/…` | that issue, and what shows issues in every organization |
//! | `/api/0/users/…`, `/api/0/auth/…`, `/oauth/…` | the resource, below it, its ancestors |
//! | any other path | everything: its owner cannot be told from it |
//!
//! Each row of an organization reaches what is stored under the organization's number and its slug alike; each but that of
//! what only computes also what does not say whose it is ([`Tag::Unplaced`]), and where only a number is known, everything. `Location` and `Content-Location` of the
//! answer are invalidated too where they lie on upstream's own authority.
//! Invariant: rather too much than too little. Not here: when (`proxy`: after upstream answered, before the client
//! is told), how (`cache::generations`), which names are one organization's (handed in).
//!
//! [RFC 9111 §4.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.4

use http::header::{self, HeaderMap, HeaderName};
use http::{StatusCode, Uri};

use crate::admission::AdmittedRequest;
use crate::config::cache::InvalidationScope;
use crate::routes::place::{Area, Home, Place, filed_under, is_number};
use crate::routes::spelling::normalized_path;
use crate::routes::tags::{self, Tag};

pub mod selector;

/// How a forwarded unsafe request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Upstream answered with this status code.
    Answered(StatusCode),
    /// No answer came; whether upstream acted is not known.
    Unknown,
}

/// A write that is over.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// The request.
    pub request: &'a AdmittedRequest,
    /// How it ended.
    pub outcome: WriteOutcome,
    /// The fields of upstream's answer.
    pub answer: &'a HeaderMap,
    /// Upstream's authority.
    pub upstream: &'a str,
    /// The names that its organization has besides the one in its path.
    pub further_names: &'a [String],
}

/// Returns the tags of what a write has made unusable; none when upstream refused it.
pub fn caused_by(write: &Write<'_>, scope: InvalidationScope) -> Vec<Tag> {
    if !may_have_changed(write.outcome, scope) {
        return Vec::new();
    }
    let path = normalized_path(write.request.path());
    let mut touched = match scope {
        InvalidationScope::Sentry => by_sentry(&path, write.further_names),
        InvalidationScope::Rfc => vec![Tag::Resource(tags::with_slash(&path))],
    };
    // "… the URI(s) in the Location and Content-Location response header fields (if present)", but not "if the
    // origin … differs from that of the target URI".
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        touched.extend(named_by(write.answer, &name, write.upstream).map(Tag::Resource));
    }
    touched
}

/// "A cache MUST invalidate the target URI … when it receives a non-error status code in response to an unsafe request
/// method", which is "one with a 2xx (Successful) or 3xx (Redirection) status code" (RFC 9111 §4.4). A 5xx may have
/// changed it as well; the RFC leaves it at that, we do not. No answer at all tells nothing.
fn may_have_changed(outcome: WriteOutcome, scope: InvalidationScope) -> bool {
    match (outcome, scope) {
        (WriteOutcome::Answered(status), InvalidationScope::Rfc) => {
            status.is_success() || status.is_redirection()
        }
        (WriteOutcome::Answered(status), InvalidationScope::Sentry) => !status.is_client_error(),
        (WriteOutcome::Unknown, _) => true,
    }
}

/// The table of the module's documentation.
fn by_sentry(path: &str, further_names: &[String]) -> Vec<Tag> {
    let path = tags::with_slash(path);
    let place = Place::of(&path);
    let mut touched = vec![Tag::Resource(path.clone()), Tag::Below(path.clone())];
    match &place {
        Place::Organization { home, name, segments } => {
            let subject = Subject::of(*home, segments, &path);
            let own = subject.touches(name);
            if is_number(name) && further_names.is_empty() && !own.is_empty() {
                touched.push(Tag::Everything);
            }
            touched.extend(own);
            let renamed: Vec<Tag> =
                further_names.iter().flat_map(|name| touched.iter().map(|tag| tag.under(name))).collect();
            touched.extend(renamed);
            touched.extend(subject.touches_besides());
        }
        Place::Unknown { issue: Some(issue) } => {
            let areas = [Area::Issues, other_filing(issue)];
            touched.extend(areas.map(|area| Tag::Area(None, area)));
            touched.push(Tag::issue(issue));
        }
        Place::Unknown { issue: None } => touched.push(Tag::Everything),
        Place::List => touched.push(Tag::Absent),
        Place::Apart => {
            touched.extend(tags::ancestors(&path).map(|ancestor| Tag::Resource(ancestor.to_owned())));
        }
    }
    touched
}

/// What a write within an organization is about: a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject<'a> {
    /// Issues in bulk.
    Issues,
    /// One issue, by one of its names.
    Issue(&'a str),
    /// Some release: the body says which.
    Releases,
    /// One release, by its version.
    Release(&'a str),
    /// A monitor's check-ins, by its name.
    CheckIns(&'a str),
    /// Nothing but the resource itself.
    Itself,
    /// The organization itself.
    Organization,
    /// Anything else of the organization.
    Anything,
}

impl<'a> Subject<'a> {
    fn of(home: Home, segments: &[&'a str], path: &str) -> Self {
        let subject = match (home, segments) {
            (Home::Organization, []) => Self::Organization,
            // A visit is noted; debug files and source maps are shown by nothing that is stored.
            (Home::Organization, [.., "visit"]) | (Home::Projects, [_, "files", ..]) => Self::Itself,
            (Home::Organization, within) => Self::within_organization(within),
            (Home::Projects, [_, "issues" | "groups", ..]) => Self::Issues,
            (Home::Projects, [_, "releases"]) => Self::Releases,
            (Home::Projects, [_, "releases", version, ..]) => Self::Release(version),
            (Home::Projects | Home::Teams, _) => Self::Anything,
        };
        // Upstream decodes `%2F` before it routes: the path may be about something else than its segments say.
        let is_plain = !path.contains("%2F");
        if is_plain || subject == Self::Organization { subject } else { Self::Anything }
    }

    fn within_organization(segments: &[&'a str]) -> Self {
        match segments {
            ["issues", _, "summarize"]
            | [
                "chunk-upload" | "search-agent" | "trace-explorer-ai" | "seer" | "seer-rpc" | "data-export",
                ..,
            ]
            | ["events", "anomalies"]
            | [_, "test-fire-actions"]
            | ["test-fire-actions"] => Self::Itself,
            ["issues"] => Self::Issues,
            ["issues", issue, ..] => Self::Issue(issue),
            ["releases"] | ["artifactbundle", ..] => Self::Releases,
            ["releases", version, ..] => Self::Release(version),
            ["monitors", monitor, "checkins", ..] => Self::CheckIns(monitor),
            _ => Self::Anything,
        }
    }

    /// Returns what it touches of the organization under the name that the path uses.
    fn touches(self, organization: &str) -> Vec<Tag> {
        let area = |area| Tag::area(organization, area);
        let issues = [Area::Issues, Area::NumberedIssues, Area::NamedIssues];
        match self {
            Self::Issues => issues.map(area).to_vec(),
            Self::Issue(issue) => {
                vec![Tag::issue(issue), area(Area::Issues), area(other_filing(issue))]
            }
            Self::Releases => {
                issues.into_iter().chain([Area::Releases, Area::SingleReleases]).map(area).collect()
            }
            Self::Release(version) => {
                let release = Tag::Release(organization.to_owned(), version.to_owned());
                let areas = issues.into_iter().chain([Area::Releases]).map(area);
                areas.chain([release]).collect()
            }
            Self::CheckIns(monitor) => {
                let root = format!("{}{organization}/", tags::organization_list());
                let monitors = ["monitors/".to_owned(), "monitors-stats/".to_owned()];
                let single = [format!("monitors/{monitor}/"), format!("monitors/{monitor}/checkins/")];
                let all = monitors.into_iter().chain(single);
                all.map(|below| Tag::Resource(format!("{root}{below}"))).collect()
            }
            Self::Itself => Vec::new(),
            Self::Organization | Self::Anything => vec![Tag::Organization(organization.to_owned())],
        }
    }

    /// Returns what it touches whatever the organization's name.
    fn touches_besides(self) -> Vec<Tag> {
        let list = || Tag::Resource(tags::organization_list().to_owned());
        match self {
            Self::Issues | Self::Issue(_) | Self::Release(_) | Self::CheckIns(_) => vec![Tag::Unplaced],
            // What is made there may have been looked for.
            Self::Releases => vec![Tag::Unplaced, Tag::Absent],
            Self::Itself => Vec::new(),
            Self::Anything => vec![list(), Tag::Unplaced],
            Self::Organization => vec![list(), Tag::Unplaced, Tag::Absent],
        }
    }
}

/// Returns the area of the issues that are filed under the other kind of name: which of them it is cannot be told.
fn other_filing(issue: &str) -> Area {
    if filed_under(issue) == Area::NumberedIssues { Area::NamedIssues } else { Area::NumberedIssues }
}

/// Returns the normalized path that a field of the answer names on upstream's own authority.
fn named_by(answer: &HeaderMap, name: &HeaderName, upstream: &str) -> Option<String> {
    let uri: Uri = answer.get(name)?.to_str().ok()?.parse().ok()?;
    let is_own = uri.authority().is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(upstream));
    is_own.then(|| tags::with_slash(&normalized_path(uri.path())))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn resource(path: &str) -> Tag {
        Tag::Resource(path.to_owned())
    }

    /// Says whether a write to `written` reaches what is stored for `read`, when the organization is known to have these
    /// further names under both.
    fn reaches_with(written: &str, read: &str, further_names: [&[&str]; 2]) -> bool {
        let [of_written, of_read] =
            further_names.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let carried: Vec<Tag> =
            tags::carried_by(read, &of_read).into_iter().chain([Tag::Everything]).collect();
        by_sentry(written, &of_written).iter().any(|touched| carried.contains(touched))
    }

    fn reaches(written: &str, read: &str) -> bool {
        reaches_with(written, read, [&[], &[]])
    }

    /// Checks a row of the table; what is written and read lies below `/api/0/`.
    #[track_caller]
    fn check(written: &[&str], reached: &[&str], spared: &[&str]) {
        let whole = |below: &str| format!("/api/0/{below}");
        for written in written {
            for read in reached {
                assert!(reaches(&whole(written), &whole(read)), "{written} does not reach {read}");
            }
            for read in spared {
                assert!(!reaches(&whole(written), &whole(read)), "{written} reaches {read}");
            }
        }
    }

    /// What shows the issues of `acme`.
    const SHOWING_ISSUES: [&str; 9] = [
        "organizations/acme/issues/",
        "organizations/acme/issues-count/",
        "organizations/acme/issues-stats/",
        "organizations/acme/shortids/WEB-3/",
        "organizations/acme/eventids/abc/",
        "organizations/acme/events/",
        "organizations/acme/tags/",
        "projects/acme/web/issues/",
        "projects/acme/web/events/",
    ];

    /// What has nothing to do with the issues of `acme`.
    const APART_FROM_ISSUES: [&str; 8] = [
        "organizations/",
        "organizations/acme/",
        "organizations/acme/members/",
        "organizations/acme/releases/",
        "organizations/acme/monitors/",
        "organizations/other/issues/",
        "organizations/other/issues/2/",
        "projects/other/web/issues/",
    ];

    #[test]
    fn issues_in_bulk_reach_all_issues_of_the_organization_and_what_shows_them() {
        let written =
            ["organizations/acme/issues/", "projects/acme/web/issues/", "projects/acme/web/groups/"];
        check(&written, &SHOWING_ISSUES, &APART_FROM_ISSUES);
        let singles = [
            "organizations/acme/issues/1/",
            "organizations/acme/issues/WEB-3/events/",
            "issues/1/",
            "groups/WEB-3/",
        ];
        check(&written, &singles, &[]);
    }

    #[test]
    fn one_issue_reaches_itself_under_both_names_and_what_shows_issues() {
        let by_number = ["organizations/acme/issues/10003/", "organizations/acme/issues/10003/comments/"];
        let by_short_id = ["organizations/acme/issues/WEB-3/", "organizations/acme/issues/web-3/tags/level/"];
        let all = [by_number, by_short_id].concat();
        check(&all, &SHOWING_ISSUES, &APART_FROM_ISSUES);
        check(&["organizations/acme/issues/10003/"], &by_number, &["organizations/acme/issues/10004/"]);
        check(&["organizations/acme/issues/WEB-3/"], &by_short_id, &["organizations/acme/issues/WEB-4/"]);
        // Which number a short id stands for cannot be told: all of the other kind.
        check(&by_number, &by_short_id, &[]);
        check(&by_short_id, &by_number, &[]);
        check(&all, &["issues/10003/events/latest/"], &[]);
    }

    #[test]
    fn an_issue_without_its_organization_reaches_what_shows_issues_everywhere() {
        let written = ["issues/10003/", "groups/10003/notes/"];
        check(
            &written,
            &SHOWING_ISSUES,
            &["organizations/acme/releases/", "organizations/acme/", "organizations/"],
        );
        let reached = [
            "organizations/other/issues/",
            "organizations/acme/issues/10003/",
            "organizations/acme/issues/WEB-3/",
        ];
        check(&written, &reached, &["organizations/acme/issues/10004/", "issues/10004/"]);
        check(&["issues/10003/"], &["issues/10003/hashes/"], &[]);
    }

    #[test]
    fn one_release_reaches_itself_what_shows_releases_and_issues() {
        let written = ["organizations/acme/releases/1.0/", "organizations/acme/releases/1.0/deploys/"];
        let through_a_project = "projects/acme/web/releases/1.0/";
        let reached = [
            "organizations/acme/releases/1.0/files/",
            "organizations/acme/releases/",
            "organizations/acme/projects/",
            "organizations/acme/environments/",
            "organizations/acme/repos/1/commits/",
            "organizations/acme/",
            "projects/acme/web/",
            "projects/acme/web/releases/",
            "projects/acme/web/releases/1.0/",
            "organizations/acme/issues/1/",
        ];
        let spared = [
            "organizations/",
            "organizations/acme/releases/2.0/",
            "organizations/acme/members/",
            "organizations/other/releases/1.0/",
        ];
        for written in written.iter().chain([&through_a_project]) {
            check(&[written], &reached, &spared);
            check(&[written], &SHOWING_ISSUES, &[]);
        }
    }

    #[test]
    fn a_release_whose_version_stands_in_the_body_reaches_all_releases_and_what_was_not_there() {
        let written = [
            "organizations/acme/releases/",
            "projects/acme/web/releases/",
            "organizations/acme/artifactbundle/assemble/",
        ];
        let reached = [
            "organizations/acme/releases/1.0/",
            "projects/acme/web/releases/1.0/",
            "organizations/acme/releases/",
            "organizations/acme/projects/",
            "organizations/acme/issues/",
        ];
        check(&written, &reached, &["organizations/acme/members/", "organizations/other/releases/1.0/"]);
        for written in written {
            assert!(by_sentry(&format!("/api/0/{written}"), &[]).contains(&Tag::Absent), "{written}");
        }
    }

    #[test]
    fn a_check_in_reaches_its_monitor_and_the_lists_of_monitors() {
        check(
            &[
                "organizations/acme/monitors/nightly/checkins/",
                "organizations/acme/monitors/nightly/checkins/1/",
            ],
            &[
                "organizations/acme/monitors/nightly/checkins/",
                "organizations/acme/monitors/nightly/",
                "organizations/acme/monitors/",
                "organizations/acme/monitors-stats/",
            ],
            &["organizations/acme/", "organizations/acme/issues/", "organizations/acme/monitors/hourly/"],
        );
    }

    #[test]
    fn what_only_computes_or_notes_a_visit_reaches_nothing_but_itself() {
        for below in [
            "chunk-upload/",
            "dashboards/5/visit/",
            "events/anomalies/",
            "search-agent/translate/",
            "seer/explorer-chat/",
            "issues/1/summarize/",
            "test-fire-actions/",
        ] {
            let written = format!("organizations/acme/{below}");
            let spared = [
                "organizations/acme/",
                "organizations/acme/issues/",
                "organizations/acme/dashboards/5/",
                "organizations/acme/events/",
            ];
            check(&[written.as_str()], &[written.as_str()], &spared);
        }
        check(
            &["projects/acme/web/files/dsyms/"],
            &["projects/acme/web/files/dsyms/"],
            &["organizations/acme/projects/"],
        );
    }

    #[test]
    fn anything_else_of_an_organization_reaches_all_of_it_and_the_list() {
        let written = [
            "organizations/acme/members/7/",
            "organizations/acme/teams/",
            "organizations/acme/projects/",
            "organizations/acme/scim/v2/Users",
            "organizations/acme/dashboards/5/",
            "organizations/acme/what-comes-next/",
            "projects/acme/web/",
            "projects/acme/web/keys/",
            "teams/acme/core/projects/",
        ];
        let reached = [
            "organizations/",
            "organizations/acme/",
            "organizations/acme/issues/1/",
            "organizations/acme/members/",
            "projects/acme/web/issues/",
            "teams/acme/core/",
        ];
        check(
            &written,
            &reached,
            &["organizations/acme2/", "organizations/other/issues/", "projects/other/web/"],
        );
    }

    #[test]
    fn an_organization_reaches_all_of_it_the_list_and_what_was_not_there() {
        check(
            &["organizations/acme/", "organizations/acme"],
            &["organizations/", "organizations/acme/issues/1/", "teams/acme/core/"],
            &["organizations/acme2/", "users/me/regions/"],
        );
        for path in ["/api/0/organizations/acme/", "/api/0/organizations/"] {
            assert!(by_sentry(path, &[]).contains(&Tag::Absent), "{path}");
        }
        check(&["organizations/"], &["organizations/"], &["organizations/acme/"]);
    }

    #[test]
    fn what_is_stored_under_the_other_name_of_an_organization_is_reached_where_it_is_known() {
        let (by_slug, by_number) =
            ("/api/0/organizations/acme/members/", "/api/0/organizations/4711/members/");
        let other = "/api/0/organizations/4712/members/";
        let known: &[&str] = &["acme"];
        assert!(reaches_with(by_slug, by_number, [&["4711"], known]));
        assert!(reaches_with(by_number, by_slug, [known, &[]]));
        assert!(!reaches_with(by_number, other, [known, &["other"]]));
        // Learned after it was stored.
        assert!(reaches_with(by_slug, by_number, [&["4711"], &[]]));
        assert!(reaches_with(by_number, by_slug, [known, &["4711"]]));
    }

    #[test]
    fn where_only_a_number_is_known_a_write_reaches_rather_too_much() {
        check(&["organizations/4711/members/"], &["organizations/acme/issues/", "users/me/regions/"], &[]);
        check(&["organizations/acme/members/"], &["organizations/4711/issues/"], &[]);
        check(&["organizations/4711/chunk-upload/"], &[], &["organizations/acme/issues/"]);
    }

    #[test]
    fn an_escaped_slash_makes_it_anything_of_its_organization() {
        check(
            &["organizations/acme/releases/a%2Fb@1/", "organizations/acme/chunk-upload%2F..%2Fmembers/"],
            &["organizations/acme/members/", "organizations/acme/releases/a%2Fb@1/files/", "organizations/"],
            &["organizations/other/members/"],
        );
    }

    #[test]
    fn what_is_nobodys_reaches_only_itself_and_what_is_somebodys_everything() {
        check(
            &["users/me/"],
            &["users/me/regions/", "users/"],
            &["organizations/acme/issues/", "organizations/"],
        );
        check(
            &["sentry-apps/my-app/", "projects/"],
            &["organizations/acme/issues/", "users/me/regions/"],
            &[],
        );
    }

    #[test]
    fn rfc9111_4_4_an_error_changes_nothing_except_that_ours_distrusts_a_5xx() {
        use InvalidationScope::{Rfc, Sentry};
        let request = crate::testing::asked("PUT /api/0/organizations/acme/", &[crate::testing::TOKEN]);
        let check = |outcome: WriteOutcome, scope, expected: bool| {
            let answer = HeaderMap::new();
            let write = Write {
                request: &request,
                outcome,
                answer: &answer,
                upstream: "sentry.io",
                further_names: &[],
            };
            let touched = caused_by(&write, scope);
            assert_eq!(!touched.is_empty(), expected, "{outcome:?}, {scope:?}");
        };
        let answered = |status| WriteOutcome::Answered(StatusCode::from_u16(status).unwrap());
        for status in [200, 202, 204, 301, 399] {
            check(answered(status), Rfc, true);
            check(answered(status), Sentry, true);
        }
        for status in [400, 404, 499] {
            check(answered(status), Rfc, false);
            check(answered(status), Sentry, false);
        }
        for status in [500, 503, 599] {
            check(answered(status), Rfc, false);
            check(answered(status), Sentry, true);
        }
        check(WriteOutcome::Unknown, Rfc, true);
        check(WriteOutcome::Unknown, Sentry, true);
    }

    #[test]
    fn rfc9111_4_4_location_counts_only_on_upstreams_own_authority() {
        let named = |value: &'static str| {
            let mut answer = HeaderMap::new();
            answer.insert(header::LOCATION, HeaderValue::from_static(value));
            named_by(&answer, &header::LOCATION, "sentry.io").map(|path| resource(&path))
        };
        assert_eq!(named("https://sentry.io/api/0/a"), Some(resource("/api/0/a/")));
        assert_eq!(named("/api/0/a/"), Some(resource("/api/0/a/")));
        assert_eq!(named("https://evil.example/api/0/a/"), None);
    }
}

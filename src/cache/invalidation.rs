//! Says which stored responses a write makes unusable, for every credential ([RFC 9111 §4.4] and more), and which ones an
//! operator means by a purge ([`selector`]). Pure.
//!
//! | Write to | Makes unusable |
//! |---|---|
//! | `…/issues/…`, of an organization or a project, and a project's `groups/` | all issues of the organization, and what shows them |
//! | `…/releases/…`, `artifactbundle/…`, a project's `files/…` | all releases of the organization, what shows them, its issues (a release resolves some), and every "there is nothing" |
//! | `monitors/{monitor}/checkins/…` | all monitors of the organization |
//! | `dashboards/{dashboard}/visit/` and the like | that, and the lists above it, which are sorted by visits |
//! | what only computes or uploads (`chunk-upload/`, `seer/…`, `files/dsyms/`, …) | that resource and what is below |
//! | anything else of an organization, its members, teams and projects included | everything of that organization, and the list of organizations |
//! | `/api/0/organizations/{organization}/` | the same, and every "there is nothing": it may have a new name |
//! | `/api/0/organizations/` | the list, and every "there is nothing" |
//! | `/api/0/issues/{issue}/…`, `/api/0/groups/{issue}/…` | all issues, and what shows them, in every organization |
//! | `/api/0/auth/…`, `/api/0/internal/health/…`, `/oauth/…` | the resource, below it, its ancestors |
//! | any other path, that of a user included, whose name stands everywhere | everything |
//!
//! Each row of an organization reaches what is stored under the organization's number and its slug alike, as far as both are
//! known; but for the rows of visits and of what only computes, also what does not say whose it is ([`Tag::Unplaced`]), and
//! where only a slug is known what is stored under any number, where only a number is known everything. `Location` and
//! `Content-Location` of the answer are invalidated too where they lie on upstream's own authority.
//! Invariant: rather too much than too little. Not here: when (`proxy`: after upstream answered, before the client
//! is told), how (`cache::generations`), which names are one organization's (handed in).
//!
//! [RFC 9111 §4.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.4

use http::header::{self, HeaderMap, HeaderName};
use http::{StatusCode, Uri};

use crate::admission::AdmittedRequest;
use crate::config::cache::InvalidationScope;
use crate::routes::place::{Area, Home, Place, is_number};
use crate::routes::spelling::normalized_path;
use crate::routes::tags::{self, Tag};

pub mod selector;

/// Where users are.
const USERS: &str = "/api/0/users/";

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
        // Sentry's gateway says 408 of what a region may still be doing (`sentry-api.md` §6).
        (WriteOutcome::Answered(status), InvalidationScope::Sentry) => {
            !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT
        }
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
            touched.extend(subject.touches(name, &path));
            let renamed: Vec<Tag> =
                further_names.iter().flat_map(|name| touched.iter().map(|tag| tag.under(name))).collect();
            touched.extend(renamed);
            if further_names.is_empty() && subject.reaches_further() {
                touched.push(if is_number(name) { Tag::Everything } else { Tag::Numbered });
            }
            touched.extend(subject.touches_besides());
        }
        Place::Unknown { issue: Some(_) } => touched.push(Tag::Area(None, Area::Issues)),
        Place::Unknown { issue: None } => touched.push(Tag::Everything),
        Place::List => touched.push(Tag::Absent),
        Place::Apart if path.starts_with(USERS) => touched.push(Tag::Everything),
        Place::Apart => {
            touched.extend(tags::ancestors(&path).map(|ancestor| Tag::Resource(ancestor.to_owned())));
        }
    }
    touched
}

/// What a write within an organization is about: a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Issues.
    Issues,
    /// Releases.
    Releases,
    /// A monitor's check-ins.
    CheckIns,
    /// That somebody has looked at something.
    Visit,
    /// Nothing but the resource itself.
    Itself,
    /// The organization itself.
    Organization,
    /// Anything else of the organization.
    Anything,
}

impl Subject {
    fn of(home: Home, segments: &[&str], path: &str) -> Self {
        let subject = match (home, segments) {
            (Home::Organization, []) => Self::Organization,
            (Home::Organization, within) => Self::within_organization(within),
            (Home::Projects, [_, "issues" | "groups", ..]) => Self::Issues,
            // Debug files: nothing that is stored shows them.
            (Home::Projects, [_, "files", "dsyms" | "difs", ..]) => Self::Itself,
            (Home::Projects, [_, "releases" | "files", ..]) => Self::Releases,
            (Home::Projects | Home::Teams, _) => Self::Anything,
        };
        // Upstream decodes `%2F` before it routes: the path may be about something else than its segments say.
        let is_plain = !path.contains("%2F");
        if is_plain || subject == Self::Organization { subject } else { Self::Anything }
    }

    fn within_organization(segments: &[&str]) -> Self {
        match segments {
            ["issues", _, "summarize"]
            | [
                "chunk-upload" | "search-agent" | "trace-explorer-ai" | "seer" | "seer-rpc" | "data-export",
                ..,
            ]
            | ["events", "anomalies"]
            | ["test-fire-actions"] => Self::Itself,
            ["dashboards" | "group-search-views", _, "visit"]
            | ["discover" | "explore", "saved", _, "visit"] => Self::Visit,
            ["issues", ..] => Self::Issues,
            ["releases" | "artifactbundle", ..] => Self::Releases,
            ["monitors", _, "checkins", ..] => Self::CheckIns,
            _ => Self::Anything,
        }
    }

    /// Returns what it touches of the organization under the name that the path uses.
    fn touches(self, organization: &str, path: &str) -> Vec<Tag> {
        let area = |area| Tag::area(organization, area);
        match self {
            Self::Issues => vec![area(Area::Issues)],
            Self::Releases => vec![area(Area::Issues), area(Area::Releases)],
            Self::CheckIns => vec![area(Area::Monitors)],
            // But not the organization itself.
            Self::Visit => {
                let above = tags::ancestors(path).filter(|ancestor| Place::of(ancestor).is_within());
                above.map(|ancestor| Tag::Resource(ancestor.to_owned())).collect()
            }
            Self::Itself => Vec::new(),
            Self::Organization | Self::Anything => vec![Tag::Organization(organization.to_owned())],
        }
    }

    /// Returns whether it reaches what is stored under other names, too, where those are not known.
    const fn reaches_further(self) -> bool {
        match self {
            Self::Issues | Self::Releases | Self::CheckIns | Self::Organization | Self::Anything => true,
            Self::Visit | Self::Itself => false,
        }
    }

    /// Returns what it touches whatever the organization's name.
    fn touches_besides(self) -> Vec<Tag> {
        let list = || Tag::Resource(tags::organization_list().to_owned());
        match self {
            Self::Issues | Self::CheckIns => vec![Tag::Unplaced],
            // What is made there may have been looked for.
            Self::Releases => vec![Tag::Unplaced, Tag::Absent],
            Self::Visit | Self::Itself => Vec::new(),
            Self::Anything => vec![list(), Tag::Unplaced],
            Self::Organization => vec![list(), Tag::Unplaced, Tag::Absent],
        }
    }
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
    fn a_write_to_issues_reaches_all_issues_of_the_organization_and_what_shows_them() {
        let written = [
            "organizations/acme/issues/",
            "organizations/acme/issues/10003/",
            "organizations/acme/issues/WEB-3/comments/",
            "projects/acme/web/issues/",
            "projects/acme/web/groups/",
        ];
        check(&written, &SHOWING_ISSUES, &APART_FROM_ISSUES);
        // It may be merged with any of them, and goes by many names.
        let singles = [
            "organizations/acme/issues/1/",
            "organizations/acme/issues/0010003/",
            "organizations/acme/issues/WEB-3/events/",
            "organizations/acme/issues/1/events/0123456789abcdef0123456789abcdef/",
            "organizations/acme/issues/web_3/tags/level/",
            "issues/1/",
            "groups/WEB-3/events/latest/",
        ];
        check(&written, &singles, &[]);
    }

    #[test]
    fn an_issue_without_its_organization_reaches_what_shows_issues_everywhere() {
        let written = ["issues/10003/", "groups/10003/notes/"];
        let spared = ["organizations/acme/releases/", "organizations/acme/", "organizations/"];
        check(&written, &SHOWING_ISSUES, &spared);
        check(
            &written,
            &["organizations/other/issues/", "organizations/acme/issues/WEB-3/", "issues/1/"],
            &[],
        );
    }

    #[test]
    fn a_write_to_releases_reaches_all_of_them_what_shows_them_issues_and_what_was_not_there() {
        let written = [
            "organizations/acme/releases/",
            "organizations/acme/releases/1.0/",
            "organizations/acme/releases/1.0/deploys/",
            "organizations/acme/releases/visit/",
            "organizations/acme/artifactbundle/assemble/",
            "projects/acme/web/releases/1.0/",
            "projects/acme/web/files/source-maps/",
        ];
        let reached = [
            "organizations/acme/releases/1.0/files/",
            "organizations/acme/releases/1.1/",
            "organizations/acme/releases/",
            "organizations/acme/projects/",
            "organizations/acme/environments/",
            "organizations/acme/repos/1/commits/",
            "organizations/acme/",
            "projects/acme/web/",
            "projects/acme/web/releases/",
            "organizations/acme/issues/1/",
        ];
        let spared = ["organizations/", "organizations/acme/members/", "organizations/other/releases/1.0/"];
        check(&written, &reached, &spared);
        check(&written, &SHOWING_ISSUES, &[]);
        for written in written {
            assert!(by_sentry(&format!("/api/0/{written}"), &[]).contains(&Tag::Absent), "{written}");
        }
    }

    #[test]
    fn a_check_in_reaches_the_monitors() {
        check(
            &[
                "organizations/acme/monitors/nightly/checkins/",
                "organizations/acme/monitors/nightly/checkins/1/",
            ],
            &[
                "organizations/acme/monitors/nightly/checkins/",
                "organizations/acme/monitors/nightly/",
                "organizations/acme/monitors/0123abcd/",
                "organizations/acme/monitors/",
                "organizations/acme/monitors-stats/",
                "projects/acme/web/monitors/",
            ],
            &["organizations/acme/", "organizations/acme/issues/", "organizations/other/monitors/"],
        );
    }

    #[test]
    fn a_visit_reaches_the_lists_above_it() {
        check(
            &["organizations/acme/dashboards/5/visit/"],
            &["organizations/acme/dashboards/5/", "organizations/acme/dashboards/"],
            &["organizations/acme/dashboards/6/", "organizations/acme/", "organizations/acme/issues/"],
        );
        check(
            &["organizations/acme/discover/saved/7/visit/"],
            &["organizations/acme/discover/saved/"],
            &["organizations/acme/"],
        );
        // A name is no verb.
        check(&["organizations/acme/monitors/visit/"], &["organizations/acme/members/"], &[]);
        check(&["organizations/acme/monitors/test-fire-actions/"], &["organizations/acme/monitors/"], &[]);
    }

    #[test]
    fn what_only_computes_or_uploads_reaches_nothing_but_itself() {
        for below in [
            "chunk-upload/",
            "events/anomalies/",
            "search-agent/translate/",
            "seer/explorer-chat/",
            "issues/1/summarize/",
            "test-fire-actions/",
        ] {
            let written = format!("organizations/acme/{below}");
            let spared = ["organizations/acme/", "organizations/acme/issues/", "organizations/acme/events/"];
            check(&[written.as_str()], &[written.as_str()], &spared);
        }
        let debug_files = "projects/acme/web/files/dsyms/";
        check(&[debug_files], &[debug_files], &["organizations/acme/projects/"]);
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
    fn where_one_name_is_known_a_write_reaches_rather_too_much() {
        check(&["organizations/4711/members/"], &["organizations/acme/issues/", "users/me/regions/"], &[]);
        check(&["organizations/4711/monitors/nightly/checkins/"], &["organizations/acme/issues/"], &[]);
        check(&["organizations/acme/members/"], &["organizations/4711/issues/"], &[]);
        check(&["organizations/4711/chunk-upload/"], &[], &["organizations/acme/issues/"]);
        // Its slug may be another one by now.
        let known: &[&str] = &["acme"];
        let (by_number, by_new_slug) =
            ("/api/0/organizations/4711/members/", "/api/0/organizations/apex/members/");
        assert!(reaches_with(by_new_slug, by_number, [&[], known]));
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
        check(&["auth/"], &["auth/login/"], &["organizations/acme/issues/", "organizations/", "users/me/"]);
        for written in ["sentry-apps/my-app/", "projects/", "users/me/", "users/1/avatar/"] {
            check(
                &[written],
                &["organizations/acme/issues/", "organizations/acme/members/", "users/me/regions/"],
                &[],
            );
        }
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
        check(answered(408), Rfc, false);
        check(answered(408), Sentry, true);
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

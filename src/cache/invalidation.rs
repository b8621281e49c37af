//! Says which stored responses a write makes unusable, for every credential ([RFC 9111 §4.4] and more). Pure.
//!
//! | Write to | Makes unusable |
//! |---|---|
//! | `/api/0/organizations/{organization}/…` | the resource, everything below it, each ancestor up to the organization |
//! | `/api/0/organizations/{organization}/` | also the list of organizations |
//! | `/api/0/projects/{organization}/…`, `/api/0/teams/{organization}/…` | everything of that organization |
//! | any other path under `/api/0/` that Sentry's data lives under | everything: its owner cannot be told from the path |
//! | `/api/0/users/…`, `/api/0/auth/…`, `/oauth/…` | the resource, below it, its ancestors |
//!
//! `Location` and `Content-Location` of the answer are invalidated too where they lie on upstream's own authority.
//! Invariant: rather too much than too little. Not here: when (`proxy`: after upstream answered, before the client
//! is told), how (`cache::generations`).
//!
//! [RFC 9111 §4.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.4

use http::header::{self, HeaderMap, HeaderName};
use http::{StatusCode, Uri};

use crate::admission::AdmittedRequest;
use crate::cache::key::normalized_path;
use crate::config::cache::InvalidationScope;
use crate::routes::tags::{self, Tag};

/// Prefixes under which a write changes nothing that is stored but itself.
const SELF_CONTAINED: [&str; 3] = ["/api/0/users/", "/api/0/auth/", "/oauth/"];

/// How a forwarded unsafe request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Upstream answered with this status code.
    Answered(StatusCode),
    /// No answer came; whether upstream acted is not known.
    Unknown,
}

/// Returns the tags of what a write has made unusable; none when upstream refused it.
///
/// `answer` holds the fields of upstream's answer, `upstream` is its authority.
pub fn caused_by(
    request: &AdmittedRequest,
    outcome: WriteOutcome,
    scope: InvalidationScope,
    answer: &HeaderMap,
    upstream: &str,
) -> Vec<Tag> {
    if !may_have_changed(outcome, scope) {
        return Vec::new();
    }
    let path = normalized_path(request.path());
    let mut touched = match scope {
        InvalidationScope::Sentry => by_sentry(&path),
        InvalidationScope::Rfc => vec![Tag::Resource(tags::with_slash(&path))],
    };
    // "… the URI(s) in the Location and Content-Location response header fields (if present)", but not "if the
    // origin … differs from that of the target URI".
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        touched.extend(named_by(answer, &name, upstream).map(Tag::Resource));
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
fn by_sentry(path: &str) -> Vec<Tag> {
    let path = tags::with_slash(path);
    if tags::organization_root(&path).is_none() {
        if let Some(name) = tags::organization(&path) {
            return vec![Tag::Organization(name.to_owned()), list()];
        }
        let is_self_contained =
            path == tags::organization_list() || SELF_CONTAINED.iter().any(|prefix| path.starts_with(prefix));
        if !is_self_contained {
            return vec![Tag::Everything];
        }
    }
    let mut touched = vec![Tag::Resource(path.clone()), Tag::Below(path.clone())];
    touched.extend(tags::ancestors(&path).map(|ancestor| Tag::Resource(ancestor.to_owned())));
    if tags::organization_root(&path) == Some(path.as_str()) {
        touched.push(list());
    }
    // Upstream decodes `%2F` before it routes: the path may be about something else than its segments say.
    if path.contains("%2F") {
        touched.extend(tags::organization(&path).map(|name| Tag::Organization(name.to_owned())));
    }
    touched
}

fn list() -> Tag {
    Tag::Resource(tags::organization_list().to_owned())
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

    /// Says whether a write to `written` reaches what is stored for `read`.
    fn reaches(written: &str, read: &str) -> bool {
        let carried: Vec<Tag> = tags::carried_by(read).into_iter().chain([Tag::Everything]).collect();
        by_sentry(written).iter().any(|touched| carried.contains(touched))
    }

    #[test]
    fn a_write_reaches_its_resource_what_is_below_and_its_ancestors_up_to_the_organization() {
        let written = "/api/0/organizations/acme/releases/1.0/";
        for read in [
            "/api/0/organizations/acme/releases/1.0/",
            "/api/0/organizations/acme/releases/1.0/files/",
            "/api/0/organizations/acme/releases/",
            "/api/0/organizations/acme/",
        ] {
            assert!(reaches(written, read), "{read}");
        }
        for read in [
            "/api/0/organizations/acme/releases/2.0/",
            "/api/0/organizations/acme/projects/",
            "/api/0/organizations/other/releases/1.0/",
            "/api/0/organizations/",
        ] {
            assert!(!reaches(written, read), "{read}");
        }
    }

    #[test]
    fn a_write_to_an_organization_reaches_all_of_it_and_the_list() {
        let written = "/api/0/organizations/acme/";
        assert!(reaches(written, "/api/0/organizations/"));
        assert!(reaches(written, "/api/0/organizations/acme/issues/1/"));
        assert!(!reaches(written, "/api/0/organizations/acme2/"));
    }

    #[test]
    fn a_write_to_a_project_or_team_reaches_all_of_its_organization() {
        for written in ["/api/0/projects/acme/web/issues/", "/api/0/teams/acme/core/"] {
            assert!(reaches(written, "/api/0/organizations/acme/issues/"), "{written}");
            assert!(reaches(written, "/api/0/projects/acme/web/issues/"), "{written}");
            assert!(reaches(written, "/api/0/organizations/"), "{written}");
            assert!(!reaches(written, "/api/0/organizations/other/issues/"), "{written}");
        }
    }

    #[test]
    fn a_write_whose_owner_cannot_be_told_reaches_everything() {
        assert!(reaches("/api/0/issues/1/", "/api/0/organizations/acme/issues/"));
        assert!(!reaches("/api/0/users/me/", "/api/0/organizations/acme/issues/"));
    }

    #[test]
    fn rfc9111_4_4_an_error_changes_nothing_except_that_ours_distrusts_a_5xx() {
        use InvalidationScope::{Rfc, Sentry};
        let request = crate::testing::asked("PUT /api/0/organizations/acme/", &[crate::testing::TOKEN]);
        let check = |outcome: WriteOutcome, scope, expected: bool| {
            let touched = caused_by(&request, outcome, scope, &HeaderMap::new(), "sentry.io");
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

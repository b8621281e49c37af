//! From a request to its answer: what the path is, whether the caller may, then reading or writing.
//!
//! Invariant: the checks come in a real server's order: origin, `Accept`, token, scope, then the thing itself.
//! Not here: limits and faults, which come first (`sandbox`); the fields around a body (`sandbox::answer`).

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_TYPE, ORIGIN, REFERER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use crate::sandbox::answer::Answer;
use crate::sandbox::failure::{Denial, Failure, Language};
use crate::sandbox::json::Object;
use crate::sandbox::people::{Identity, authenticate};
use crate::sandbox::query::Query;
use crate::sandbox::reads::{self, Reading};
use crate::sandbox::route::{Permission, Route, Target};
use crate::sandbox::shapes::Site;
use crate::sandbox::world::{Organization, World};
use crate::sandbox::writes::{self, Writing};

/// A request, as far as its answer depends on it.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is to be done.
    pub method: Method,
    /// The path as it was sent.
    pub path: String,
    /// The parameters.
    pub query: Query,
    /// The body; empty where its length was not stated.
    pub body: Bytes,
    /// Whose token came with it.
    pub identity: Result<Identity, Denial>,
    /// In which language texts are.
    pub language: Language,
    accepts_json: bool,
    origin: Option<String>,
    has_json_body: bool,
}

impl Call {
    /// Reads a request.
    pub fn of(head: &http::request::Parts, body: Bytes) -> Self {
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            body,
            identity: authenticate(head.headers.get(AUTHORIZATION)),
            language: language(&query, text(ACCEPT_LANGUAGE)),
            accepts_json: text(ACCEPT).is_none_or(accepts_json),
            origin: text(ORIGIN).filter(|origin| *origin != "null").map(str::to_owned),
            has_json_body: text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json")),
            query,
        }
    }

    /// Returns whether the body is called JSON.
    pub const fn has_json_body(&self) -> bool {
        self.has_json_body
    }
}

fn language(query: &Query, accepted: Option<&str>) -> Language {
    let asked = query.last("lang").or(accepted).unwrap_or_default();
    if asked.starts_with("de") { Language::German } else { Language::English }
}

fn accepts_json(field: &str) -> bool {
    field
        .split(',')
        .filter_map(|range| range.split(';').next())
        .any(|range| matches!(range.trim(), "*/*" | "application/*" | "application/json"))
}

/// Returns the value of `Access-Control-Allow-Origin`: the page's origin, or that of `Referer`, or `*`.
pub fn allowed_origin(fields: &HeaderMap) -> HeaderValue {
    let anyone = HeaderValue::from_static("*");
    if let Some(origin) = fields.get(ORIGIN).filter(|origin| *origin != "null") {
        return origin.clone();
    }
    let referer = fields.get(REFERER).and_then(|referer| referer.to_str().ok()?.parse::<Uri>().ok());
    let origin = referer.and_then(|uri| Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?)));
    origin.and_then(|origin| HeaderValue::from_str(&origin).ok()).unwrap_or(anyone)
}

/// Returns the answer to a request.
pub fn answer(call: &Call, world: &Mutex<World>, site: &Site) -> Answer {
    let route = match Target::of(&call.path) {
        Target::Known(route) => route,
        Target::MissingSlash => return missing_slash(call),
        Target::Unknown => return Answer::html(StatusCode::NOT_FOUND, String::new()),
    };
    let answer = if call.method == Method::OPTIONS {
        Answer::options()
    } else {
        visit(call, &route, (world, site)).unwrap_or_else(|failure| failure.answer(call.language))
    };
    answer.allowing(route.allow())
}

fn visit(call: &Call, route: &Route, (world, site): (&Mutex<World>, &Site)) -> Result<Answer, Failure> {
    let identity = admit(call, route)?;
    if !route.has(&call.method) {
        return Err(Failure::MethodNotAllowed(call.method.to_string()));
    }
    let Some(identity) = identity else { return Ok(reads::anonymous_root()) };
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    match call.method {
        Method::GET | Method::HEAD => reads::read(&Reading { call, site, identity, world: &world }, route),
        _ => writes::write(&mut Writing { call, site, identity, world: &mut world }, route),
    }
}

/// Returns who is calling, or nobody where nobody in particular is needed.
fn admit(call: &Call, route: &Route) -> Result<Option<Identity>, Failure> {
    if let (Some(origin), Ok(_)) = (&call.origin, call.identity) {
        return Err(Failure::InvalidOrigin(origin.clone()));
    }
    if !call.accepts_json {
        return Err(Failure::NotAcceptable);
    }
    let permission = route.permission();
    let identity = match (call.identity, permission) {
        (Err(Denial::Missing), Permission::Anyone) => return Ok(None),
        (Err(denial), _) => return Err(Failure::Unauthenticated(denial)),
        (Ok(identity), _) => identity,
    };
    let needs_no_scope = matches!(permission, Permission::Anyone | Permission::Authenticated);
    if needs_no_scope || identity.has_any(permission.scopes(&call.method)) {
        return Ok(Some(identity));
    }
    Err(Failure::Forbidden)
}

/// Returns an organization that the caller is a member of.
pub fn membership<'a>(
    world: &'a World,
    identity: Identity,
    organization: &str,
) -> Result<&'a Organization, Failure> {
    let organization = world.organization(organization).ok_or(Failure::NotFound)?;
    if organization.has(identity.user) { Ok(organization) } else { Err(Failure::Forbidden) }
}

fn missing_slash(call: &Call) -> Answer {
    let path = format!("{}/", call.path);
    let question = "Route not found, did you forget a trailing slash?";
    if call.has_json_body {
        let info = format!("{question} try: {path}");
        // Python's own writer, not the framework's: a space behind the colon.
        let body = Object::start().text("info", &info).finish().replacen("\":", "\": ", 1);
        return Answer::json(StatusCode::NOT_FOUND, body);
    }
    let caret = format!("{:>width$}", '^', width = "try: ".len() + path.len());
    Answer::plain(StatusCode::NOT_FOUND, format!("{question}\n\ntry: {path}\n{caret}\n"))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::BodyExt;

    use super::*;
    use crate::sandbox::answer::{Ending, Surroundings};
    use crate::sandbox::people::{
        EXPIRED_TOKEN, NOBODY_TOKEN, OTHER_TOKEN, OWNER_READ_ONLY_TOKEN, OWNER_TOKEN, PROJECT_ONLY_TOKEN,
    };

    struct Bench {
        world: Mutex<World>,
        site: Site,
    }

    /// A request in words: method, token, path, body.
    type Words<'a> = (&'a str, &'a str, &'a str, &'a str);

    impl Bench {
        fn new() -> Self {
            let url = "https://sentry.io".to_owned();
            let site = Site { url_prefix: url.clone(), region_url: url, regions: None };
            Self { world: Mutex::new(World::new()), site }
        }

        async fn ask(&self, words: Words<'_>, field: Option<(&str, &str)>) -> (u16, HeaderMap, String) {
            let (method, token, path, body) = words;
            let mut request = Request::builder().method(method).uri(path);
            if !token.is_empty() {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if !body.is_empty() {
                request = request.header("content-type", "application/json");
            }
            if let Some((name, value)) = field {
                request = request.header(name, value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            let call = Call::of(&head, Bytes::copy_from_slice(body.as_bytes()));
            let (origin, language) = (allowed_origin(&head.headers), call.language);
            let surroundings = Surroundings { origin, language, quota: None };
            let response = answer(&call, &self.world, &self.site).dress(&surroundings, Ending::Whole);
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).unwrap())
        }

        async fn json(&self, token: &str, path: &str) -> serde_json::Value {
            let (status, _, body) = self.ask(("GET", token, path, ""), None).await;
            assert_eq!(status, 200, "{path}: {body}");
            serde_json::from_str(&body).unwrap()
        }
    }

    async fn check(words: Words<'_>, status: u16, body: &str) {
        let (found, _, text) = Bench::new().ask(words, None).await;
        assert_eq!((found, text.as_str()), (status, body), "{} {}", words.0, words.2);
    }

    const LIST: &str = "/api/0/organizations/";
    const DETAIL: &str = "/api/0/organizations/org-002/";
    const FORBIDDEN: &str = r#"{"detail":"You do not have permission to perform this action."}"#;

    #[tokio::test]
    async fn refusals_have_the_words_of_a_real_server() {
        let missing = r#"{"detail":"Authentication credentials were not provided."}"#;
        check(("GET", "", LIST, ""), 401, missing).await;
        check(("GET", "0000", LIST, ""), 401, r#"{"detail":"Invalid token"}"#).await;
        check(("GET", EXPIRED_TOKEN, LIST, ""), 401, r#"{"detail":"Token expired"}"#).await;
        check(("GET", PROJECT_ONLY_TOKEN, LIST, ""), 403, FORBIDDEN).await;
        check(("GET", NOBODY_TOKEN, DETAIL, ""), 403, FORBIDDEN).await;
        check(("HEAD", OWNER_TOKEN, DETAIL, ""), 403, FORBIDDEN).await;
        check(("PATCH", OWNER_TOKEN, DETAIL, ""), 403, FORBIDDEN).await;
        check(("PUT", OWNER_READ_ONLY_TOKEN, DETAIL, r#"{"name":"x"}"#), 403, FORBIDDEN).await;
        let unknown = r#"{"detail":"The requested resource does not exist"}"#;
        check(("GET", OWNER_TOKEN, "/api/0/organizations/no-such-org/", ""), 404, unknown).await;
        let cursor = r#"{"detail":"Invalid cursor parameter."}"#;
        check(("GET", OWNER_TOKEN, "/api/0/organizations/?cursor=abc", ""), 400, cursor).await;
        check(("GET", OWNER_TOKEN, "/api/0/nothing-here/", ""), 404, "").await;
    }

    #[tokio::test]
    async fn a_missing_slash_is_pointed_at() {
        let body = "Route not found, did you forget a trailing slash?\n\ntry: /api/0/organizations/\n\
                    \u{20}                        ^\n";
        check(("GET", OWNER_TOKEN, "/api/0/organizations", ""), 404, body).await;
        let body = r#"{"info": "Route not found, did you forget a trailing slash? try: /api/0/organizations/org-002/"}"#;
        check(("PUT", OWNER_TOKEN, "/api/0/organizations/org-002", r#"{"name":"x"}"#), 404, body).await;
    }

    #[tokio::test]
    async fn bad_writes_are_refused_in_sentrys_words() {
        let pattern = r#"{"slug":["This value does not match the required pattern."]}"#;
        check(("PUT", OWNER_TOKEN, DETAIL, r#"{"slug":"!!"}"#), 400, pattern).await;
        let taken = r#"{"slug":["The slug \"org-003\" is already in use."]}"#;
        check(("PUT", OWNER_TOKEN, DETAIL, r#"{"slug":"org-003"}"#), 400, taken).await;
        let parse = r#"{"detail":"JSON parse error - Expecting value: line 1 column 9 (char 8)"}"#;
        check(("PUT", OWNER_TOKEN, DETAIL, r#"{"name":"#), 400, parse).await;
    }

    #[tokio::test]
    async fn fields_of_the_request_that_change_the_answer() {
        let bench = Bench::new();
        let detail = |token| ("GET", token, DETAIL, "");
        let accept = Some(("accept", "text/html"));
        assert_eq!(bench.ask(detail(OWNER_TOKEN), accept).await.0, 406);
        let origin = Some(("origin", "https://app.example"));
        let (status, fields, body) = bench.ask(detail(OWNER_TOKEN), origin).await;
        assert_eq!((status, body.as_str()), (400, "\"Invalid origin: https://app.example\""));
        assert_eq!(fields.get("access-control-allow-origin").unwrap(), "https://app.example");
        let (status, fields, body) = bench.ask(detail(NOBODY_TOKEN), Some(("accept-language", "de"))).await;
        assert_eq!((status, fields.get("content-language").unwrap().as_bytes()), (403, &b"de"[..]));
        assert_eq!(body, r#"{"detail":"Sie sind nicht berechtigt diese Aktion durchzuführen."}"#);
        let preflight = ("OPTIONS", "", LIST, "");
        let (status, fields, _) = bench.ask(preflight, origin).await;
        assert_eq!((status, fields.get("access-control-max-age").unwrap().as_bytes()), (200, &b"3600"[..]));
    }

    #[tokio::test]
    async fn lists_and_details_have_realistic_sizes() {
        let bench = Bench::new();
        for (path, low, high) in [
            (LIST, 110_000, 125_000),
            (DETAIL, 10_000, 12_500),
            ("/api/0/organizations/org-002/?detailed=0", 4_500, 6_000),
            ("/api/0/organizations/org-001/projects/", 75_000, 95_000),
            ("/api/0/organizations/org-001/members/", 85_000, 100_000),
        ] {
            let (_, _, body) = bench.ask(("GET", OWNER_TOKEN, path, ""), None).await;
            assert!((low..high).contains(&body.len()), "{path}: {}", body.len());
        }
    }

    #[tokio::test]
    async fn two_users_see_different_things() {
        let bench = Bench::new();
        let count = |value: serde_json::Value| value.as_array().unwrap().len();
        assert_eq!(count(bench.json(OWNER_TOKEN, LIST).await), 100);
        assert_eq!(count(bench.json(OTHER_TOKEN, LIST).await), 3);
        assert_eq!(count(bench.json(NOBODY_TOKEN, LIST).await), 0);
        let second = "/api/0/organizations/?&cursor=1672711200000:0:0";
        assert_eq!(count(bench.json(OWNER_TOKEN, second).await), 50);
        assert_eq!(count(bench.json(OTHER_TOKEN, "/api/0/organizations/?owner=1").await), 0);
        let owned = bench.json(OWNER_TOKEN, "/api/0/organizations/?owner=1").await;
        assert_eq!(
            (owned[0]["organization"]["slug"].as_str(), owned[0]["singleOwner"].as_bool()),
            (Some("org-001"), Some(true))
        );
        let found = bench
            .json(OWNER_TOKEN, "/api/0/organizations/?query=Organization&sortBy=projects&per_page=2")
            .await;
        assert_eq!(found[0]["slug"], "org-001");
        assert_eq!(count(bench.json(OWNER_TOKEN, "/api/0/organizations/?query=slug:org-007").await), 1);
        let role = bench.json(OTHER_TOKEN, DETAIL).await["role"].clone();
        assert_eq!(
            (role, bench.json(OWNER_TOKEN, DETAIL).await["role"].clone()),
            ("member".into(), "owner".into())
        );
    }

    #[tokio::test]
    async fn every_read_answers_json() {
        let bench = Bench::new();
        for path in [
            "/api/0/",
            "/api/0/auth/",
            "/api/0/users/me/regions/",
            "/api/0/projects/",
            "/api/0/issues/10121/",
            "/api/0/organizations/3/",
            "/api/0/organizations/org-002/teams/",
            "/api/0/teams/org-002/team-1/",
            "/api/0/teams/org-002/team-1/projects/",
            "/api/0/organizations/org-002/environments/",
            "/api/0/organizations/org-002/releases/",
            "/api/0/organizations/org-002/releases/web%401.0.1/",
            "/api/0/organizations/org-002/repos/",
            "/api/0/organizations/org-002/issues-stats/?statsPeriod=24h",
            "/api/0/organizations/org-002/issues/PROJECT-001-2/events/",
            "/api/0/organizations/org-002/releases/web@1.0.1/deploys/",
            "/api/0/organizations/org-002/releases/not-there-yet/commits/",
            "/api/0/organizations/org-002/monitors/",
            "/api/0/organizations/org-002/events/?field=title&field=count()",
            "/api/0/organizations/org-002/events/validate/?field=title",
            "/api/0/organizations/org-002/replay-count/",
            "/api/0/organizations/org-002/trace/00000000000000000000000000000000/",
            "/api/0/organizations/org-002/issues/PROJECT-001-2/events/latest/",
            "/api/0/organizations/org-002/issues/PROJECT-001-2/tags/",
            "/api/0/organizations/org-002/issues/PROJECT-001-2/tags/level/",
            "/api/0/organizations/org-002/issues/PROJECT-001-2/autofix/",
            "/api/0/organizations/org-002/issues/PROJECT-001-2/external-issues/",
            "/api/0/issues/10122/events/latest/",
            "/api/0/organizations/org-002/issues/",
            "/api/0/organizations/org-002/issues/PROJECT-001-2/",
            "/api/0/organizations/org-002/shortids/PROJECT-001-2/",
            "/api/0/projects/org-002/project-001/",
            "/api/0/projects/org-002/project-001/issues/",
            "/api/0/projects/org-002/project-001/keys/",
            "/api/0/projects/org-002/project-001/releases/",
            "/api/0/projects/org-002/project-001/events/",
            "/api/0/projects/org-002/project-001/stacktrace-link/?file=sample%2Fviews.py",
            "/api/0/projects/org-002/project-001/releases/web@1.0.1/",
        ] {
            bench.json(OWNER_TOKEN, path).await;
        }
    }

    #[tokio::test]
    async fn a_write_shows_in_the_next_read_by_another_user() {
        let bench = Bench::new();
        let (status, _, _) = bench.ask(("PUT", OWNER_TOKEN, DETAIL, r#"{"name":"Renamed"}"#), None).await;
        assert_eq!(status, 200);
        assert_eq!(bench.json(OTHER_TOKEN, DETAIL).await["name"], "Renamed");
        assert_eq!(bench.json(OTHER_TOKEN, LIST).await[1]["name"], "Renamed");
        let moved = ("PUT", OWNER_TOKEN, DETAIL, r#"{"slug":"moved"}"#);
        assert_eq!(bench.ask(moved, None).await.0, 200);
        assert_eq!(bench.ask(("GET", OWNER_TOKEN, DETAIL, ""), None).await.0, 404);
        assert_eq!(bench.json(OWNER_TOKEN, "/api/0/organizations/moved/").await["id"], "3");
    }

    #[tokio::test]
    async fn issues_change_by_number_by_short_id_and_in_bulk() {
        let bench = Bench::new();
        let issues = "/api/0/organizations/org-002/issues/";
        let all = bench.json(OWNER_TOKEN, issues).await;
        let (first, second) = (all[0]["id"].as_str().unwrap(), all[1]["shortId"].as_str().unwrap());
        let resolve = r#"{"status":"resolved"}"#;
        let by_number = format!("{issues}{first}/");
        assert_eq!(bench.ask(("PUT", OWNER_TOKEN, &by_number, resolve), None).await.0, 200);
        let by_short_id = format!("{issues}{second}/");
        assert_eq!(bench.ask(("PUT", OTHER_TOKEN, &by_short_id, resolve), None).await.0, 200);
        assert_eq!(bench.json(OWNER_TOKEN, &by_short_id).await["status"], "resolved");
        let bulk = "/api/0/projects/org-002/project-001/issues/?id=10121&id=10122";
        let (status, _, body) = bench.ask(("PUT", OWNER_TOKEN, bulk, resolve), None).await;
        assert_eq!((status, body.contains("resolved")), (200, true));
        let left = bench.json(OWNER_TOKEN, issues).await.as_array().unwrap().len();
        assert_eq!(left, all.as_array().unwrap().len() - 4);
        let (_, fields, _) = bench.ask(("GET", OWNER_TOKEN, issues, ""), None).await;
        assert_eq!(fields.get("x-hits").unwrap(), &left.to_string());
    }

    #[tokio::test]
    async fn an_event_is_the_same_wherever_it_stands() {
        let bench = Bench::new();
        let issue = "/api/0/organizations/org-002/issues/PROJECT-001-2";
        let latest = bench.json(OWNER_TOKEN, &format!("{issue}/events/latest/")).await;
        let (id, trace) = (latest["id"].as_str().unwrap(), &latest["contexts"]["trace"]["trace_id"]);
        for path in [
            format!("{issue}/events/{id}/"),
            format!("/api/0/organizations/org-002/events/project-001:{id}/"),
            format!("/api/0/projects/org-002/project-001/events/{id}/"),
            "/api/0/issues/10122/events/latest/".to_owned(),
        ] {
            assert_eq!(bench.json(OWNER_TOKEN, &path).await, latest, "{path}");
        }
        let elsewhere = format!("/api/0/projects/org-002/project-002/events/{id}/");
        assert_eq!(bench.ask(("GET", OWNER_TOKEN, &elsewhere, ""), None).await.0, 404);
        let trace = format!("/api/0/organizations/org-002/trace/{}/", trace.as_str().unwrap());
        assert_eq!(bench.json(OWNER_TOKEN, &trace).await[0]["event_id"], id);
    }

    #[tokio::test]
    async fn a_release_shows_its_deploys_and_that_it_was_released() {
        let bench = Bench::new();
        let release = "/api/0/organizations/org-002/releases/web@1.0.1/";
        let deploys = format!("{release}deploys/");
        assert_eq!(bench.json(OWNER_TOKEN, &deploys).await, serde_json::json!([]));
        let deploy = ("POST", OWNER_TOKEN, deploys.as_str(), r#"{"environment":"production"}"#);
        assert_eq!(bench.ask(deploy, None).await.0, 201);
        let finalize = r#"{"dateReleased":"2026-01-01T00:00:00Z"}"#;
        assert_eq!(bench.ask(("PUT", OWNER_TOKEN, release, finalize), None).await.0, 200);
        assert_eq!(bench.json(OWNER_TOKEN, &deploys).await[0]["environment"], "production");
        let found = bench.json(OWNER_TOKEN, release).await;
        assert_eq!(
            (found["deployCount"].as_u64(), found["lastDeploy"]["name"].clone()),
            (Some(1), serde_json::Value::Null)
        );
        assert_eq!(found["dateReleased"], "2023-02-01T00:02:00Z");
        let nowhere = "/api/0/organizations/org-002/releases/none/deploys/";
        assert_eq!(bench.ask(("POST", OWNER_TOKEN, nowhere, r#"{"environment":"x"}"#), None).await.0, 404);
    }

    #[tokio::test]
    async fn projects_teams_and_releases_come_and_go() {
        let bench = Bench::new();
        for (method, path, body, status) in [
            ("POST", "/api/0/organizations/org-003/teams/", r#"{"slug":"dump-team","name":"Dump"}"#, 201),
            ("POST", "/api/0/organizations/org-003/teams/", r#"{"slug":"dump-team"}"#, 409),
            ("POST", "/api/0/teams/org-003/dump-team/projects/", r#"{"name":"New Project"}"#, 201),
            ("GET", "/api/0/projects/org-003/new-project/", "", 200),
            ("PUT", "/api/0/projects/org-003/new-project/", r#"{"slug":"newer"}"#, 200),
            ("GET", "/api/0/projects/org-003/new-project/", "", 404),
            ("DELETE", "/api/0/projects/org-003/newer/", "", 204),
            ("GET", "/api/0/projects/org-003/newer/", "", 404),
            ("DELETE", "/api/0/teams/org-003/dump-team/", "", 204),
            ("GET", "/api/0/teams/org-003/dump-team/", "", 404),
            (
                "POST",
                "/api/0/organizations/org-003/releases/",
                r#"{"version":"a/b@2","projects":["project-001"]}"#,
                201,
            ),
            (
                "POST",
                "/api/0/organizations/org-003/releases/",
                r#"{"version":"a/b@2","projects":["project-001"]}"#,
                208,
            ),
            ("PUT", "/api/0/organizations/org-003/releases/a%2Fb@2/", r#"{"url":"https://x.example"}"#, 200),
            ("DELETE", "/api/0/organizations/org-003/releases/a%2Fb@2/", "", 204),
            ("POST", LIST, r#"{"name":"Brand New"}"#, 201),
            ("GET", "/api/0/organizations/brand-new/", "", 200),
        ] {
            let (found, _, text) = bench.ask((method, OWNER_TOKEN, path, body), None).await;
            assert_eq!(found, status, "{method} {path}: {text}");
        }
    }
}

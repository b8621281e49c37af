//! `Cache-Control` and its relatives: the answer's fields, an empty line, the request's fields.
//!
//! Holds: case and the number of lines mean nothing; what is added can only forbid more; lifetimes and windows are bounded; once
//! stale is stale for ever; nothing is reused that must be validated, and nothing past its lifetime and windows.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, StatusCode};
use sentrybox::admission::{Admission, AdmittedRequest, BodyFraming};
use sentrybox::cache::body::StoredBody;
use sentrybox::cache::directives::{DirectiveSource, RequestDirectives, ResponseDirectives, ResponseFlags};
use sentrybox::cache::freshness::{Decision, Freshness, current_age, decide, freshness, retention};
use sentrybox::cache::generations::{Generations, Standing};
use sentrybox::cache::policy::FreshnessPolicy;
use sentrybox::cache::stored_response::{Found, Provenance, StoredResponse};
use sentrybox::cache::storing::check_storable;
use sentrybox::credential::CredentialKeys;
use sentrybox::peer::Peer;
use sentrybox::request_id::RequestId;
use sentrybox::routes::{self, RouteLabel};

use crate::text;

/// The greatest number of seconds that a directive may say.
const GREATEST: Duration = Duration::from_secs(1 << 31);

/// A path of class `slow`, and one that no rule names.
const PATHS: [&str; 2] = ["/api/0/organizations/acme/projects/", "/api/0/organizations/acme/subject/"];

static ADMISSION: LazyLock<Admission> = LazyLock::new(|| {
    let config = &*crate::DEFAULTS;
    let table = routes::compile(&config.cache).unwrap();
    Admission::new(config, table, CredentialKeys::derive(&[7; 32]), "here".to_owned())
});

static GENERATIONS: LazyLock<Generations> = LazyLock::new(|| Generations::new([0; 16], Duration::ZERO));

static POLICY: LazyLock<FreshnessPolicy> = LazyLock::new(|| FreshnessPolicy::new(&crate::DEFAULTS));

/// Tries one input.
pub fn run(input: &[u8]) {
    let (answer, request) = text::first_part(input);
    let (answer, request) = (text::fields(answer), text::fields(request));
    check_answer(&answer);
    check_request(&request);
    for path in PATHS {
        if let Some(request) = admitted(path, &request) {
            check_freshness(&request, &answer);
        }
    }
}

fn check_answer(fields: &HeaderMap) {
    let read = ResponseDirectives::read(fields);
    let durations = [read.max_age, read.s_maxage, read.stale_while_revalidate, read.stale_if_error];
    assert!(durations.iter().flatten().all(|duration| *duration <= GREATEST), "{read:?}");
    if read.source == DirectiveSource::Targeted {
        let mut others = fields.clone();
        others.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        assert_eq!(ResponseDirectives::read(&others), read, "a targeted field counts alone");
        return;
    }
    assert_eq!(ResponseDirectives::read(&shouted(fields)), read, "the case means something");
    if let Some(joined) = joined(fields) {
        assert_eq!(ResponseDirectives::read(&joined), read, "lines mean something");
    }
    let mut stricter = fields.clone();
    stricter.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache, max-age=0"));
    let stricter = ResponseDirectives::read(&stricter);
    assert!(stricter.has(ResponseFlags::NO_STORE) && stricter.has(ResponseFlags::NO_CACHE));
    assert_eq!(stricter.max_age, Some(Duration::ZERO), "of two lifetimes neither counts");
}

fn check_request(fields: &HeaderMap) {
    let read = RequestDirectives::read(fields);
    let durations = [read.max_age, read.min_fresh, read.max_stale];
    assert!(durations.iter().flatten().all(|duration| *duration <= GREATEST), "{read:?}");
    if !fields.contains_key("sec-fetch-mode") {
        assert_eq!(RequestDirectives::read(&shouted(fields)), read, "the case means something");
        if let Some(joined) = joined(fields) {
            assert_eq!(RequestDirectives::read(&joined), read, "lines mean something");
        }
    }
}

/// Writes `Cache-Control` in capitals.
fn shouted(fields: &HeaderMap) -> HeaderMap {
    let mut shouted = fields.clone();
    shouted.remove(header::CACHE_CONTROL);
    for value in fields.get_all(header::CACHE_CONTROL) {
        let value = HeaderValue::from_bytes(&value.as_bytes().to_ascii_uppercase()).unwrap();
        shouted.append(header::CACHE_CONTROL, value);
    }
    shouted
}

/// Writes all lines of `Cache-Control` as one; `None` where a quote of one line might end in the next.
fn joined(fields: &HeaderMap) -> Option<HeaderMap> {
    let lines: Vec<_> = fields.get_all(header::CACHE_CONTROL).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() || lines.iter().any(|line| line.contains(&b'"')) {
        return None;
    }
    let mut joined = fields.clone();
    joined.insert(header::CACHE_CONTROL, HeaderValue::from_bytes(&lines.join(b", ".as_slice())).unwrap());
    Some(joined)
}

fn admitted(path: &str, fields: &HeaderMap) -> Option<AdmittedRequest> {
    let mut head = Request::builder().uri(path).body(()).unwrap().into_parts().0;
    head.headers = fields.clone();
    head.headers.insert(header::HOST, HeaderValue::from_static("box.example"));
    head.headers.entry(header::AUTHORIZATION).or_insert(HeaderValue::from_static("Bearer sntryu_one"));
    let peer = Peer::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7));
    ADMISSION.admit(head, BodyFraming::Absent, peer, RequestId::made(7)).ok()
}

fn arrival() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(500_000)
}

fn stored(fields: &HeaderMap) -> StoredResponse {
    let provenance = Provenance {
        request_time: arrival(),
        response_time: arrival(),
        slots: GENERATIONS.slots(&[]),
        stamp: GENERATIONS.stamp(arrival()),
        route: RouteLabel::Other,
    };
    StoredResponse::new(StatusCode::OK, fields, StoredBody::identity(Bytes::from_static(b"[]")), provenance)
}

/// Looks at what would be stored, again and again while it ages.
fn check_freshness(request: &AdmittedRequest, fields: &HeaderMap) {
    let response = Arc::new(stored(fields));
    let _ = retention(request, &response, &POLICY, arrival());
    let is_storable = check_storable(request, StatusCode::OK, fields, &POLICY).is_ok();
    let directives = response.directives();
    let must_understand = directives.has(ResponseFlags::MUST_UNDERSTAND);
    assert!(!(is_storable && directives.has(ResponseFlags::NO_STORE) && !must_understand));
    let (mut was_stale, mut was_age) = (false, Duration::ZERO);
    for seconds in [0, 1, 59, 121, 3_600, 86_400, 1 << 31, 1 << 33] {
        let now = arrival() + Duration::from_secs(seconds);
        let age = current_age(&response, now).0;
        assert!(was_age <= age, "it becomes younger");
        was_age = age;
        let found = Found::Stored(Arc::clone(&response), Standing::Current);
        let state = freshness(request, &response, Standing::Current, &POLICY, now);
        let is_stale = matches!(state, Freshness::Stale { .. });
        assert!(is_stale || !was_stale, "it becomes fresh by ageing");
        was_stale = is_stale;
        let decision = decide(request, &found, &POLICY, now);
        let is_reused = !matches!(decision, Decision::Forward(_) | Decision::OnlyIfCached);
        assert!(!(is_reused && directives.has(ResponseFlags::NO_CACHE)), "reused without validation");
        let is_forbidden = directives.has(ResponseFlags::MUST_REVALIDATE);
        assert!(!(is_reused && is_stale && is_forbidden), "reused stale");
        if let Decision::Reuse(Freshness::Fresh { .. }) = decision {
            assert!(!is_stale);
        }
    }
}

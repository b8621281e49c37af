//! What is kept of an answer: its fields, an empty line, the fields of a later 304, an empty line, the body.
//!
//! Holds: nothing that was true for one client only is kept; a 304 brings fields and never content; what a response asks with
//! validates it; equal content has equal tags; places where the public base goes fit the body; gzip is bounded.
//! The codec of the shared tier joins here, once there is one: what was written is read the same, and anything else is a miss.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName};
use sentrybox::cache::body::{AcceptsGzip, Coding, StoredBody};
use sentrybox::cache::generations::Generations;
use sentrybox::cache::stored_response::{Provenance, StoredResponse, nominated};
use sentrybox::links::region_urls::{RegionUrlShape, scan};
use sentrybox::routes::RouteLabel;
use serde_json::value::RawValue;

use crate::text;

const BASE: &str = "http://box.example:9000";

/// Largest body that is decoded.
const LIMIT: usize = 64 * 1024;

/// Fields that were true for one answer only.
const DROPPED: [&str; 9] = [
    "alt-svc",
    "connection",
    "content-length",
    "keep-alive",
    "set-cookie",
    "transfer-encoding",
    "upgrade",
    "x-sentry-rate-limit-remaining",
    "x-served-by",
];

static GENERATIONS: LazyLock<Generations> = LazyLock::new(|| Generations::new([0; 16], Duration::ZERO));

/// Tries one input.
pub fn run(input: &[u8]) {
    let (fields, rest) = text::first_part(input);
    let (update, body) = text::first_part(rest);
    let (fields, update) = (text::fields(fields), text::fields(update));
    for body in [plain(body), spliced(body), StoredBody::gzip(Bytes::copy_from_slice(body))] {
        check_body(&body);
        let response = StoredResponse::new(StatusCode::OK, &fields, body, provenance(0));
        check(&response, &fields);
        check_freshened(&response, &update);
    }
}

fn plain(body: &[u8]) -> StoredBody {
    StoredBody::identity(Bytes::copy_from_slice(body))
}

fn spliced(body: &[u8]) -> StoredBody {
    let found = scan(body, RegionUrlShape::Organization, &|url| url.contains("sentry.io"));
    StoredBody::spliced(Bytes::copy_from_slice(body), found.splices)
}

fn provenance(later: u64) -> Provenance {
    let at: SystemTime = UNIX_EPOCH + Duration::from_hours(500_000) + Duration::from_secs(later);
    Provenance {
        request_time: at,
        response_time: at,
        slots: GENERATIONS.slots(&[]),
        stamp: GENERATIONS.stamp(at),
        route: RouteLabel::Other,
    }
}

fn check_body(body: &StoredBody) {
    let decoded = body.decoded(LIMIT);
    if let Ok(decoded) = &decoded {
        let identity = decoded.bytes(Coding::Identity, BASE).expect("what is decoded is at hand");
        if body.original_coding() == Coding::Gzip {
            assert!(identity.len() <= LIMIT, "grows beyond its limit");
            assert_eq!(decoded.coding_for(AcceptsGzip::Yes), Coding::Gzip);
        }
        assert_eq!(decoded.original(), body.original());
        assert!(body.heap_bytes() <= decoded.heap_bytes());
    }
    if body.has_splices() {
        let sent = body.bytes(Coding::Identity, BASE).expect("it is at hand");
        assert_ne!(sent, body.original(), "a place where nothing changes");
        assert!(serde_json::from_slice::<&RawValue>(&sent).is_ok(), "JSON stays JSON");
    }
}

fn check(response: &StoredResponse, sent: &HeaderMap) {
    for name in DROPPED {
        assert!(!response.fields().contains_key(name), "{name} is kept");
    }
    assert!(response.fields().contains_key(header::DATE), "it has a date");
    let names = nominated(sent);
    assert!(names.is_sorted_by(|left, right| left.as_str() < right.as_str()), "{names:?}");
    let bytes: usize = response.fields().values().map(http::HeaderValue::len).sum();
    let weight = usize::try_from(response.weight()).unwrap();
    assert!(bytes + response.body().heap_bytes() < weight, "it weighs less than it takes");
    let mut question = HeaderMap::new();
    response.add_preconditions(&mut question);
    assert_eq!(question.is_empty(), !response.has_validator());
    let mut answer = HeaderMap::new();
    for (from, to) in
        [(header::IF_NONE_MATCH, header::ETAG), (header::IF_MODIFIED_SINCE, header::LAST_MODIFIED)]
    {
        if let Some(value) = question.get(from) {
            answer.insert(to, value.clone());
        }
    }
    assert!(response.is_validated_by(&answer), "its own validators do not validate it");
    assert!(response.is_same_representation_as(response.fields()));
    assert!(response.matches_head(&without_length(response.fields())));
    let again = response.with_body(response.body().clone());
    assert_eq!(response.own_tag("a"), again.own_tag("a"));
    assert_ne!(response.own_tag("a"), response.own_tag("b"));
    let bare = response.without(&[header::CONTENT_TYPE]);
    assert!(!bare.fields().contains_key(header::CONTENT_TYPE));
}

fn without_length(fields: &HeaderMap) -> HeaderMap {
    let mut fields = fields.clone();
    fields.remove(header::CONTENT_LENGTH);
    fields
}

fn check_freshened(response: &StoredResponse, update: &HeaderMap) {
    let fresh = response.freshened(update, provenance(60));
    assert_eq!(fresh.body().original(), response.body().original(), "a 304 brings no content");
    assert_eq!(fresh.status(), response.status());
    assert_eq!(fresh.own_tag("a"), response.own_tag("a"));
    for name in DROPPED {
        assert!(!fresh.fields().contains_key(name), "{name} is kept");
    }
    let content = |fields: &HeaderMap| fields.get(header::CONTENT_ENCODING).cloned();
    let nominates_content = text_of(update, &header::CONNECTION).contains("content-encoding");
    if !nominates_content {
        assert_eq!(content(fresh.fields()), content(response.fields()), "its coding is that of its body");
    }
    let twice = fresh.freshened(update, provenance(60));
    assert_eq!(twice.fields(), fresh.fields(), "freshening twice is freshening once");
}

fn text_of(fields: &HeaderMap, name: &HeaderName) -> String {
    let values = fields.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    values.collect::<Vec<_>>().join(",").to_ascii_lowercase()
}

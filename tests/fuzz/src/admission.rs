//! The path guard, the spelling of targets and cache keys: a request line (`GET /api/0/…`), the target of a second request, the
//! fields of both; `x-other-authorization` is the second one's credential.
//!
//! Holds: what is admitted is sent as it was spelled, has a path that can be read in one way only, and loses credential and
//! hop-by-hop fields; another spelling of the same is admitted as the same; two targets share a key when, and only when, an
//! independent reading says that they are the same; two credentials never do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use sentrybox::admission::{Admission, AdmittedRequest, BodyFraming};
use sentrybox::cache::invalidation::{Write, WriteOutcome, caused_by};
use sentrybox::cache::key::{KeyHasher, PrimaryKey};
use sentrybox::config::cache::InvalidationScope;
use sentrybox::credential::CredentialKeys;
use sentrybox::headers;
use sentrybox::peer::Peer;
use sentrybox::regions::Regions;
use sentrybox::request_id::RequestId;
use sentrybox::routes;

use crate::meaning::{Meaning, segments};
use crate::text;

const PEER: Peer = Peer::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7));
const OTHER_CREDENTIAL: HeaderName = HeaderName::from_static("x-other-authorization");

/// Targets that are longer become too long once they are escaped.
const LONGEST: usize = 4_000;

/// Fields that go no further.
const DROPPED: [&str; 10] = [
    "authorization",
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
];

struct Rooms {
    admission: Admission,
    regions: Regions,
    hasher: KeyHasher,
}

static ROOMS: LazyLock<Rooms> = LazyLock::new(|| {
    let config = &*crate::DEFAULTS;
    let table = routes::compile(&config.cache).unwrap();
    let keys = CredentialKeys::derive(&[7; 32]);
    Rooms {
        admission: Admission::new(config, table, keys, "here".to_owned()),
        regions: Regions::new(&config.upstream).unwrap(),
        hasher: KeyHasher::new([9; 16]),
    }
});

/// Tries one input.
pub fn run(input: &[u8]) {
    let (line, rest) = text::first_line(input);
    let (other, rest) = text::first_line(rest);
    let mut fields = text::fields(rest);
    let other_credential = fields.remove(OTHER_CREDENTIAL);
    let place = line.iter().position(|byte| *byte == b' ').unwrap_or(0);
    let Ok(method) = Method::from_bytes(&line[..place]) else { return };
    let target = line[place..].trim_ascii();
    let Some(one) = admit(&method, target, &fields) else { return };
    check(&one, target);
    check_respelled(&one, &method, &fields);
    if let Some(two) = admit(&method, other, &fields) {
        let is_same = meaning(&one) == meaning(&two);
        assert_eq!(key(&one) == key(&two), is_same, "{:?} and {:?}", one.path(), two.path());
    }
    let mut others = fields.clone();
    match &other_credential {
        Some(credential) => drop(others.insert(header::AUTHORIZATION, credential.clone())),
        None => drop(others.remove(header::AUTHORIZATION)),
    }
    if let Some(two) = admit(&method, target, &others) {
        let is_same = canonical(fields.get(header::AUTHORIZATION)) == canonical(other_credential.as_ref());
        assert_eq!(key(&one) == key(&two), is_same, "a key belongs to one credential");
    }
}

fn admit(method: &Method, target: &[u8], fields: &HeaderMap) -> Option<AdmittedRequest> {
    let target = Uri::try_from(target).ok().filter(|_| target.len() <= LONGEST)?;
    let mut head = Request::builder().method(method.clone()).uri(target).body(()).ok()?.into_parts().0;
    head.headers = fields.clone();
    if !head.headers.contains_key(header::HOST) {
        head.headers.insert(header::HOST, HeaderValue::from_static("box.example"));
    }
    ROOMS.admission.admit(head, BodyFraming::Absent, PEER, RequestId::made(7)).ok()
}

fn key(request: &AdmittedRequest) -> PrimaryKey {
    PrimaryKey::of(request, "sentry.io", &ROOMS.hasher)
}

fn meaning(request: &AdmittedRequest) -> Meaning {
    Meaning::of(request.path(), request.query())
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(500_000)
}

/// What holds for whatever is admitted.
fn check(request: &AdmittedRequest, target: &[u8]) {
    let asked = Uri::try_from(target).unwrap();
    assert_eq!(Some(request.path()), asked.path_and_query().map(PathAndQuery::path));
    assert_eq!(request.query(), asked.query(), "the client's own spelling");
    for segment in &segments(request.path())[1..] {
        let parts = segment.split(|byte| *byte == b'/');
        let is_odd = |byte: &u8| byte.is_ascii_control() || *byte == b'\\';
        assert!(!parts.into_iter().any(|part| part == b"." || part == b".."), "dots in {:?}", request.path());
        assert!(!segment.iter().any(is_odd), "a control character in {:?}", request.path());
    }
    assert!(!request.path().contains("//"));
    let base = request.base().as_str();
    assert!(base.starts_with("http://") && !base.contains(['@', '"', '\\', ' ', '<', '>']), "{base}");
    for name in DROPPED {
        assert!(!request.fields().contains_key(name), "{name} goes on");
    }
    let mut again = request.fields().clone();
    headers::clean_request(&mut again);
    assert_eq!(&again, request.fields(), "cleaning twice is cleaning once");
}

/// Asks for the same once more, with every other letter and digit escaped.
fn check_respelled(request: &AdmittedRequest, method: &Method, fields: &HeaderMap) {
    // The prefix decides what is served at all, and is taken by the letter.
    let prefixes = ["/api/0/organizations/", "/api/0/"];
    let Some(prefix) = prefixes.into_iter().find(|prefix| request.path().starts_with(prefix)) else { return };
    let rest = &request.path()[prefix.len()..];
    let query = request.query().map(|query| format!("?{}", respelled(query))).unwrap_or_default();
    let target = format!("{prefix}{}{query}", respelled(rest));
    let mut fields = fields.clone();
    if let Some(credential) = request.credential() {
        fields.insert(header::AUTHORIZATION, credential.field_value().clone());
    }
    let Some(again) = admit(method, target.as_bytes(), &fields) else {
        panic!("{target} is refused and {:?} is not", request.path())
    };
    assert_eq!(key(request), key(&again), "{target} and {:?}", request.path());
    assert_eq!(request.route().label, again.route().label, "{target} has another route");
    assert_eq!(request.eligibility(), again.eligibility(), "{target} is treated otherwise");
    assert_eq!(touched_by(request), touched_by(&again), "{target} touches something else");
    let directed = ROOMS.regions.direct(Arc::new(again), now());
    let sent = directed.target().expect("what is admitted can be sent");
    assert_eq!(sent.path_and_query().map(PathAndQuery::as_str), Some(target.as_str()));
}

/// Returns the tags that a write touches, in words.
fn touched_by(request: &AdmittedRequest) -> Vec<String> {
    let answer = HeaderMap::new();
    let outcome = WriteOutcome::Unknown;
    let write = Write { request, outcome, answer: &answer, upstream: "sentry.io", further_names: &[] };
    caused_by(&write, InvalidationScope::Sentry).iter().map(|tag| format!("{tag:?}")).collect()
}

/// Escapes every other letter and digit, with digits in small and in capital letters.
fn respelled(text: &str) -> String {
    let mut spelled = String::with_capacity(text.len() * 3);
    let mut until = 0;
    for (place, letter) in text.char_indices() {
        if letter == '%' {
            until = place + 3;
        }
        match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' if until <= place && place % 4 == 0 => {
                spelled.push_str(&escaped(letter).to_ascii_lowercase());
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' if until <= place && place % 4 == 2 => {
                spelled.push_str(&escaped(letter));
            }
            letter => spelled.push(letter),
        }
    }
    spelled
}

fn escaped(letter: char) -> String {
    format!("%{:02X}", u32::from(letter))
}

/// Returns the scheme in small letters and the rest, which is all that tells credentials apart.
fn canonical(value: Option<&HeaderValue>) -> Option<(Vec<u8>, Vec<u8>)> {
    let value = value?.as_bytes().trim_ascii();
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    (!value.is_empty()).then(|| (scheme.to_ascii_lowercase(), rest.trim_ascii().to_vec()))
}

//! Makes the answer to a client: from a stored response, from upstream's answer as it came, or of our own.
//!
//! Here fields get their last form: `Link` and `Location` on the client's own base, `Age`, the validator, what the
//! client is told about reuse. A client's own conditions are answered from the validator that it would get.
//!
//! Invariants: a 304 goes only to a client that asked conditionally; `Link` is rewritten from the pristine stored
//! copy, for this client; limit fields come from this very exchange or not at all.
//! Not here: deciding (`cache::freshness`), putting `Cache-Status` into the answer (`proxy::record`).

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use crate::admission::base::PublicBase;
use crate::admission::{AdmittedRequest, CookieCarriage};
use crate::cache::body::{AcceptsGzip, Coding};
use crate::cache::conditions::{self, Selected, Selection};
use crate::cache::freshness::{Freshness, current_age};
use crate::cache::stored_response::StoredResponse;
use crate::cache::terms::Trouble;
use crate::config::cache::Downstream;
use crate::handling::{ForwardReason, Handling, Refusal, RefusalReason};
use crate::headers::{self, CacheOutcome, CacheStatus, ContentCoding};
use crate::links;
use crate::links::KnownHosts;
use crate::links::region_urls::RegionUrlShape;
use crate::proxy::body::ReplyBody;
use crate::proxy::landing;

/// What `Cache-Status` says of a stale response that is being refreshed.
const STALE_WHILE_REVALIDATE: &str = "stale-while-revalidate";

/// What `Cache-Status` says of a stale response that stands in for a failure.
const STALE_IF_ERROR: &str = "stale-if-error";

/// What a client hears that asks for bytes beyond the end.
const BEYOND_THE_END: &str = "The range lies beyond the end of the answer.";

/// An answer, and what is to be recorded of it.
#[derive(Debug)]
pub struct Reply {
    /// The answer.
    pub response: Response<ReplyBody>,
    /// What was done.
    pub handling: Handling,
    /// What `Cache-Status` says.
    pub status: CacheStatus,
}

/// How a stored response is presented.
#[derive(Debug, Clone, Copy)]
pub struct Presentation<'a> {
    /// The request that it answers.
    pub request: &'a AdmittedRequest,
    /// Which hosts' links are rewritten.
    pub known_hosts: &'a KnownHosts,
    /// What clients are told about reuse.
    pub downstream: Downstream,
    /// Whether it was reused, or has just been fetched.
    pub source: Source,
    /// The present moment.
    pub now: SystemTime,
}

/// Where the response that is presented came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From the store.
    Reused(Freshness),
    /// From upstream just now, and stored.
    Fetched(Freshness),
    /// From upstream just now, shared but not stored.
    Shared,
}

impl Reply {
    /// Makes the answer to a refused request, in the shape of Sentry's errors.
    pub fn refusal(refusal: &Refusal) -> Self {
        let mut response = Response::new(detail(&refusal.detail));
        *response.status_mut() = refusal.reason.status();
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if refusal.reason.status() == StatusCode::METHOD_NOT_ALLOWED {
            fields.insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE"),
            );
        }
        if refusal.reason == RefusalReason::BadRequestBody {
            // Where its body ends is anybody's guess: nothing else is read on its connection.
            fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(wait) = refusal.retry_after {
            // Rounded up, so that whoever obeys does not come too early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        let status = CacheStatus::refused(refusal.reason);
        Self { response, handling: Handling::Refuse(refusal.reason), status }
    }

    /// Returns what it says of upstream, where it is a failure.
    pub fn trouble(&self) -> Trouble {
        match self.handling {
            Handling::Refuse(reason) => landing::trouble_of(reason),
            Handling::Reuse
            | Handling::ReuseThenRevalidate
            | Handling::ReuseUnderPressure
            | Handling::RefreshAhead
            | Handling::Forward(_) => Trouble::Failing,
        }
    }
}

/// Renders `{"detail": "…"}`.
fn detail(text: &str) -> ReplyBody {
    let body = serde_json::json!({ "detail": text });
    ReplyBody::whole(Bytes::from(body.to_string()))
}

/// Presents a stored response to one client; `None` when its body is not at hand in the coding that it takes.
pub fn present(stored: &StoredResponse, how: &Presentation<'_>) -> Option<Response<ReplyBody>> {
    let body = stored.body();
    let accepts = accepts_gzip(how.request);
    let coding = body.coding_for(accepts);
    let bytes = body.bytes(coding, how.request.base().as_str())?;
    let mut fields = stored.fields().clone();
    match how.source {
        Source::Reused(_) => {
            fields.insert(header::AGE, headers::render_seconds(current_age(stored, how.now).0));
        }
        // What has just come is as old as upstream's own cache says, if it has one.
        Source::Fetched(_) | Source::Shared => {}
    }
    describe_coding(&mut fields, stored, coding);
    match validator(stored, coding, how.request.base(), how.source) {
        Some(tag) => drop(fields.insert(header::ETAG, tag)),
        // Upstream's speaks of bytes that this client does not get.
        None => drop(fields.remove(header::ETAG)),
    }
    tell_lifetime(&mut fields, how);
    rewrite_links(&mut fields, how.request.base(), how.known_hosts);
    Some(conditional(stored.status(), fields, bytes, how.request))
}

/// Answers the client's own conditions and its range, and `HEAD` without a body.
fn conditional(
    status: StatusCode,
    mut fields: HeaderMap,
    bytes: Bytes,
    request: &AdmittedRequest,
) -> Response<ReplyBody> {
    let length = bytes.len();
    match conditions::select(request.method(), request.fields(), Selected { status, fields: &fields, length })
    {
        Selection::NotModified => {
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
                fields.remove(name);
            }
            assemble(StatusCode::NOT_MODIFIED, fields, ReplyBody::empty())
        }
        Selection::Whole => complete(status, fields, bytes, request),
        Selection::Part(range) => {
            let told = format!("bytes {}-{}/{length}", range.start(), range.end());
            set_content_range(&mut fields, &told);
            complete(StatusCode::PARTIAL_CONTENT, fields, bytes.slice(range), request)
        }
        Selection::Unsatisfiable => {
            // "A server … SHOULD generate a Content-Range header field specifying the current length" (RFC 9110 §15.5.17).
            let mut fields = HeaderMap::new();
            set_content_range(&mut fields, &format!("bytes */{length}"));
            fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            assemble(StatusCode::RANGE_NOT_SATISFIABLE, fields, detail(BEYOND_THE_END))
        }
    }
}

fn set_content_range(fields: &mut HeaderMap, told: &str) {
    if let Ok(value) = HeaderValue::from_str(told) {
        fields.insert(header::CONTENT_RANGE, value);
    }
}

fn complete(
    status: StatusCode,
    mut fields: HeaderMap,
    bytes: Bytes,
    request: &AdmittedRequest,
) -> Response<ReplyBody> {
    // "A server MUST NOT send a Content-Length header field in any response with a status code of … 204 (No
    // Content)" (RFC 9110 §8.6).
    if status != StatusCode::NO_CONTENT {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    }
    let body = if *request.method() == Method::HEAD { ReplyBody::empty() } else { ReplyBody::whole(bytes) };
    assemble(status, fields, body)
}

fn assemble(status: StatusCode, fields: HeaderMap, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}

/// Says which coding the client gets, and that another client may get another.
fn describe_coding(fields: &mut HeaderMap, stored: &StoredResponse, coding: Coding) {
    if stored.body().original_coding() == Coding::Gzip {
        match coding {
            Coding::Gzip => fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
            Coding::Identity => fields.remove(header::CONTENT_ENCODING),
        };
        if !headers::members(fields, &header::VARY).any(|name| name.eq_ignore_ascii_case("accept-encoding")) {
            fields.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
    }
}

/// Returns the validator of what this client gets: upstream's where the bytes are upstream's, else our own.
fn validator(
    stored: &StoredResponse,
    coding: Coding,
    base: &PublicBase,
    source: Source,
) -> Option<HeaderValue> {
    let body = stored.body();
    let is_verbatim = coding == body.original_coding() && !body.has_splices();
    let upstreams = stored.fields().get(header::ETAG).filter(|_| is_verbatim);
    if upstreams.is_some() {
        return upstreams.cloned();
    }
    // What was not stored has no validator that we could recognize again.
    if source == Source::Shared || !stored.status().is_success() {
        return None;
    }
    let mut variation = String::new();
    if coding == Coding::Gzip {
        variation.push_str("-gzip");
    }
    if body.has_splices() || stored.fields().contains_key(header::LINK) {
        variation.push('-');
        variation.push_str(&base_mark(base));
    }
    Some(stored.own_tag(&variation))
}

/// Returns a short mark that tells bases apart (FNV-1a; nothing depends on it being hard to forge).
fn base_mark(base: &PublicBase) -> String {
    let mark = base.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |mark, byte| {
        (mark ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{mark:016x}")
}

/// Tells the client about reuse where upstream did not.
fn tell_lifetime(fields: &mut HeaderMap, how: &Presentation<'_>) {
    let freshness = match how.source {
        Source::Reused(freshness) | Source::Fetched(freshness) => freshness,
        Source::Shared => return,
    };
    if fields.contains_key(header::CACHE_CONTROL) || fields.contains_key(header::EXPIRES) {
        return;
    }
    let value = match (how.downstream, freshness) {
        (Downstream::Revalidate, _) => HeaderValue::from_static("private, no-cache"),
        (Downstream::Lifetime, Freshness::Fresh { remaining }) => {
            HeaderValue::from_str(&format!("private, max-age={}", remaining.as_secs()))
                .unwrap_or(HeaderValue::from_static("private, no-cache"))
        }
        (Downstream::Lifetime, Freshness::Stale { .. }) => HeaderValue::from_static("private, max-age=0"),
    };
    fields.insert(header::CACHE_CONTROL, value);
}

/// Takes gzip off an answer to a flight whose client does not take gzip, or where region URLs (`shape`) must be found.
pub fn in_readable_coding(
    request: &AdmittedRequest,
    shape: Option<RegionUrlShape>,
    fields: &mut HeaderMap,
    body: ReplyBody,
) -> ReplyBody {
    let is_gzip = headers::content_coding(fields) == ContentCoding::Gzip;
    if !is_gzip || (shape.is_none() && accepts_gzip(request) == AcceptsGzip::Yes) {
        return body;
    }
    // What described the coded bytes does not describe these; their length is known at their end.
    for name in [header::CONTENT_ENCODING, header::CONTENT_LENGTH, header::ETAG] {
        fields.remove(name);
    }
    body.decoded()
}

/// Prepares the fields of upstream's answer for a client that gets it as it came.
pub fn clean_forwarded(fields: &mut HeaderMap, request: &AdmittedRequest, known_hosts: &KnownHosts) {
    headers::clean_response(fields);
    match request.cookies() {
        CookieCarriage::Stripped => drop(fields.remove(header::SET_COOKIE)),
        CookieCarriage::Carried => {}
    }
    rewrite_links(fields, request.base(), known_hosts);
}

/// Adds the fields that only the client gets who had the response fetched.
pub fn add_withheld(
    fields: &mut HeaderMap,
    withheld: &HeaderMap,
    base: &PublicBase,
    known_hosts: &KnownHosts,
) {
    let mut withheld = withheld.clone();
    rewrite_links(&mut withheld, base, known_hosts);
    fields.extend(withheld);
}

/// Rewrites every `Link`, `Location` and `Content-Location` that points at Sentry so that it points here.
fn rewrite_links(fields: &mut HeaderMap, base: &PublicBase, known_hosts: &KnownHosts) {
    rewrite(fields, &header::LINK, |value| links::rewrite_link(value, base.as_str(), known_hosts));
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        rewrite(fields, &name, |value| links::rewrite_location(value, base.as_str(), known_hosts));
    }
}

fn rewrite(
    fields: &mut HeaderMap,
    name: &HeaderName,
    rewritten: impl Fn(&HeaderValue) -> Option<HeaderValue>,
) {
    if let header::Entry::Occupied(mut entry) = fields.entry(name) {
        for value in entry.iter_mut() {
            if let Some(new) = rewritten(value) {
                *value = new;
            }
        }
    }
}

fn accepts_gzip(request: &AdmittedRequest) -> AcceptsGzip {
    if headers::accepts_gzip(request.fields()) { AcceptsGzip::Yes } else { AcceptsGzip::No }
}

/// Returns the status of an answer from the store, by which it goes out without asking upstream.
pub fn reused(handling: Handling, freshness: Freshness) -> CacheStatus {
    let detail = match handling {
        Handling::Reuse | Handling::Forward(_) | Handling::Refuse(_) => None,
        Handling::ReuseThenRevalidate => Some(STALE_WHILE_REVALIDATE),
        Handling::ReuseUnderPressure | Handling::RefreshAhead => Some(handling.label()),
    };
    CacheStatus { outcome: CacheOutcome::Hit, ttl: Some(freshness.ttl()), detail }
}

/// Returns the status of a stale answer from the store that stands in for what was to be asked for this reason.
pub fn standing_in(reason: ForwardReason, upstream: Option<StatusCode>, freshness: Freshness) -> CacheStatus {
    CacheStatus {
        ttl: Some(freshness.ttl()),
        detail: Some(STALE_IF_ERROR),
        ..CacheStatus::forwarded(reason, upstream)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::cache::body::StoredBody;
    use crate::config::load;
    use crate::links::region_urls::{RegionUrlShape, scan};
    use crate::regions::Regions;
    use crate::testing::{TOKEN, asked, fields, provenance, start};

    const FRESH: Freshness = Freshness::Fresh { remaining: Duration::from_secs(90) };
    const STALE: Freshness = Freshness::Stale { by: Duration::from_secs(5) };
    const REUSED: Source = Source::Reused(FRESH);
    const LATER: Duration = Duration::from_secs(30);
    const ORGANIZATION: &[u8] = br#"{"links":{"regionUrl":"https://us.sentry.io"}}"#;
    const NEXT: &str = "<https://sentry.io/api/0/organizations/?&cursor=1:0:0>; rel=\"next\"";

    fn gzip(bytes: &[u8]) -> StoredBody {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        StoredBody::gzip(Bytes::from(encoder.finish().unwrap()))
    }

    /// A body with its identity and its gzip bytes at hand.
    fn both(bytes: &[u8]) -> StoredBody {
        gzip(bytes).decoded(10_000).unwrap()
    }

    fn plain(bytes: &[u8]) -> StoredBody {
        StoredBody::identity(Bytes::copy_from_slice(bytes))
    }

    /// A body with a region URL in which the base goes.
    fn spliced() -> StoredBody {
        let splices = scan(ORGANIZATION, RegionUrlShape::Organization, &|_| true).splices;
        assert_eq!(splices.len(), 1);
        StoredBody::spliced(Bytes::from_static(ORGANIZATION), splices)
    }

    fn stored(status: u16, says: &[(&str, &str)], body: StoredBody) -> StoredResponse {
        let status = StatusCode::from_u16(status).unwrap();
        StoredResponse::new(status, &fields(says), body, provenance(start()))
    }

    /// Presents a stored response, half a minute after it came.
    fn told(
        stored: &StoredResponse,
        (method, asks): (&str, &[(&str, &str)]),
        (source, downstream): (Source, Downstream),
    ) -> Option<Response<ReplyBody>> {
        let config = load::defaults();
        let line = format!("{method} /api/0/organizations/acme/");
        let request = asked(&line, &[&[TOKEN], asks].concat());
        let regions = Regions::new(&config.upstream).unwrap();
        let known_hosts = regions.known_hosts();
        present(
            stored,
            &Presentation { request: &request, known_hosts, downstream, source, now: start() + LATER },
        )
    }

    fn shown(stored: &StoredResponse, asks: &[(&str, &str)], source: Source) -> Response<ReplyBody> {
        told(stored, ("GET", asks), (source, Downstream::Revalidate)).unwrap()
    }

    fn text(response: &Response<ReplyBody>) -> Vec<u8> {
        match response.body() {
            ReplyBody::Whole(bytes) => bytes.as_deref().unwrap_or_default().to_vec(),
            ReplyBody::Streaming(_) | ReplyBody::Relayed(_) => panic!("a stored body is at hand"),
        }
    }

    fn tag(response: &Response<ReplyBody>) -> Option<&str> {
        response.headers().get(header::ETAG).map(|tag| tag.to_str().unwrap())
    }

    #[test]
    fn rfc9111_5_1_a_reused_response_tells_its_age_and_a_fetched_one_what_upstream_told() {
        let check = |says: &[(&str, &str)], source, expected: Option<&str>| {
            let response = shown(&stored(200, says, plain(b"[]")), &[], source);
            let age = response.headers().get(header::AGE).map(|age| age.to_str().unwrap());
            assert_eq!(age, expected, "{says:?}, {source:?}");
        };
        check(&[], REUSED, Some("30"));
        check(&[("age", "12")], REUSED, Some("42"));
        check(&[], Source::Fetched(FRESH), None);
        check(&[("age", "12")], Source::Fetched(FRESH), Some("12"));
        check(&[("age", "12")], Source::Shared, Some("12"));
    }

    #[test]
    fn a_304_goes_only_to_a_client_that_asked_conditionally() {
        let modified = "Fri, 15 Jan 2027 07:00:00 GMT";
        let stored = |status| stored(status, &[("etag", "\"1\""), ("last-modified", modified)], plain(b"[]"));
        let check = |status, asks: &[(&str, &str)], expected: u16| {
            let response = shown(&stored(status), asks, REUSED);
            assert_eq!(response.status().as_u16(), expected, "{status} for {asks:?}");
            assert_eq!(text(&response).is_empty(), expected == 304);
        };
        check(200, &[], 200);
        check(200, &[("if-none-match", "\"1\"")], 304);
        check(200, &[("if-none-match", "W/\"1\"")], 304);
        check(200, &[("if-none-match", "\"0\", \"1\"")], 304);
        check(200, &[("if-none-match", "*")], 304);
        check(200, &[("if-none-match", "\"2\"")], 200);
        check(200, &[("if-modified-since", modified)], 304);
        check(200, &[("if-modified-since", "Fri, 15 Jan 2027 06:59:59 GMT")], 200);
        check(200, &[("if-none-match", "\"2\""), ("if-modified-since", modified)], 200);
        check(200, &[("if-match", "\"2\"")], 200);
        check(404, &[("if-none-match", "\"1\"")], 404);
        check(404, &[("if-modified-since", modified)], 404);
    }

    #[test]
    fn rfc9110_14_a_range_is_cut_from_the_complete_response_in_the_clients_own_coding() {
        let says = [("content-type", "application/json"), ("content-encoding", "gzip"), ("x-hits", "7")];
        let stored = stored(200, &says, both(b"0123456789"));
        let part = shown(&stored, &[("range", "bytes=2-4")], REUSED);
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(text(&part), b"234");
        for (name, value) in
            [("content-range", "bytes 2-4/10"), ("content-length", "3"), ("x-hits", "7"), ("age", "30")]
        {
            assert_eq!(part.headers()[name], value, "{name}");
        }
        assert_eq!(tag(&part), tag(&shown(&stored, &[], REUSED)));
        let gzip = ("accept-encoding", "gzip");
        let whole = text(&shown(&stored, &[gzip], REUSED));
        let part = shown(&stored, &[gzip, ("range", "bytes=2-4")], REUSED);
        assert_eq!(
            (text(&part), &part.headers()["content-encoding"]),
            (whole[2..=4].to_vec(), &"gzip".parse().unwrap())
        );
        assert_eq!(part.headers()["content-range"], format!("bytes 2-4/{}", whole.len()).as_str());
    }

    #[test]
    fn rfc9110_15_5_17_a_range_beyond_the_end_is_refused_with_the_length() {
        let beyond =
            shown(&stored(200, &[("x-hits", "7")], plain(b"0123456789")), &[("range", "bytes=10-")], REUSED);
        assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(beyond.headers()["content-range"], "bytes */10");
        assert_eq!(text(&beyond), format!("{{\"detail\":\"{BEYOND_THE_END}\"}}").as_bytes());
    }

    #[test]
    fn rfc9110_13_1_5_a_range_of_another_response_gets_the_whole() {
        let stored = stored(200, &[], plain(b"0123456789"));
        let own = tag(&shown(&stored, &[], REUSED)).unwrap().to_owned();
        let status =
            |condition| shown(&stored, &[("range", "bytes=0-1"), ("if-range", condition)], REUSED).status();
        assert_eq!(status(&own), StatusCode::PARTIAL_CONTENT);
        assert_eq!(status("\"other\""), StatusCode::OK);
    }

    #[test]
    fn rfc9110_15_4_5_a_304_has_the_fields_that_describe_reuse_and_none_of_the_content() {
        let says = [
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
            ("vary", "X-Team"),
            ("link", NEXT),
            ("x-hits", "7"),
        ];
        let stored = stored(200, &says, both(b"[]"));
        let accepts = ("accept-encoding", "gzip");
        let own = tag(&shown(&stored, &[accepts], REUSED)).unwrap().to_owned();
        let response = shown(&stored, &[accepts, ("if-none-match", &own)], REUSED);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        for absent in ["content-type", "content-encoding", "content-length"] {
            assert!(!response.headers().contains_key(absent), "{absent}");
        }
        for present in ["etag", "vary", "date", "cache-control", "age", "link", "x-hits"] {
            assert!(response.headers().contains_key(present), "{present}");
        }
    }

    #[test]
    fn upstreams_validator_goes_out_only_with_upstreams_own_bytes() {
        let with_tag = |body| stored(200, &[("etag", "\"up\""), ("content-encoding", "gzip")], body);
        let gzip_asked = [("accept-encoding", "gzip")];
        for source in [REUSED, Source::Fetched(FRESH), Source::Shared] {
            assert_eq!(tag(&shown(&with_tag(both(b"[]")), &gzip_asked, source)), Some("\"up\""));
            assert_eq!(
                tag(&shown(&stored(200, &[("etag", "W/\"up\"")], plain(b"[]")), &[], source)),
                Some("W/\"up\"")
            );
            assert_ne!(tag(&shown(&with_tag(both(b"[]")), &[], source)), Some("\"up\""), "{source:?}");
            assert_ne!(
                tag(&shown(&stored(200, &[("etag", "\"up\"")], spliced()), &[], source)),
                Some("\"up\"")
            );
        }
    }

    #[test]
    fn what_was_not_stored_or_is_no_success_has_no_validator_of_ours() {
        assert!(tag(&shown(&stored(200, &[], plain(b"[]")), &[], REUSED)).is_some());
        assert_eq!(tag(&shown(&stored(200, &[], plain(b"[]")), &[], Source::Shared)), None);
        assert_eq!(tag(&shown(&stored(404, &[], plain(b"{}")), &[], REUSED)), None);
    }

    #[test]
    fn our_validator_is_strong_and_another_for_each_content_coding_and_base() {
        let one = |body, asks: &[(&str, &str)], says: &[(&str, &str)]| {
            tag(&shown(&stored(200, says, body), asks, REUSED)).unwrap().to_owned()
        };
        let (gzip, other_base) = ([("accept-encoding", "gzip")], [("host", "other.example")]);
        let identity = one(both(b"[]"), &[], &[]);
        assert!(identity.starts_with('"'), "{identity}");
        assert_eq!(identity, one(both(b"[]"), &[], &[("x-hits", "7")]));
        assert_ne!(identity, one(both(b"[1]"), &[], &[]));
        assert_ne!(identity, one(both(b"[]"), &gzip, &[]));
        assert_eq!(identity, one(both(b"[]"), &other_base, &[]));
        for (body, says) in [(plain as fn(&[u8]) -> StoredBody, &[("link", NEXT)][..]), (|_| spliced(), &[])]
        {
            assert_eq!(one(body(b"[]"), &[], says), one(body(b"[]"), &[], says));
            assert_ne!(one(body(b"[]"), &[], says), one(body(b"[]"), &other_base, says));
        }
    }

    #[test]
    fn a_validator_of_one_base_brings_no_304_on_another() {
        let stored = stored(200, &[("link", NEXT)], plain(b"[]"));
        let own = tag(&shown(&stored, &[], REUSED)).unwrap().to_owned();
        let status = |asks: &[(&str, &str)]| shown(&stored, asks, REUSED).status().as_u16();
        assert_eq!(status(&[("if-none-match", &own)]), 304);
        assert_eq!(status(&[("if-none-match", &own), ("host", "other.example")]), 200);
    }

    #[test]
    fn clients_are_told_about_reuse_what_the_operator_chose_and_upstream_did_not_say() {
        let check = |says: &[(&str, &str)], downstream, source, expected: Option<&str>| {
            let stored = stored(200, says, plain(b"[]"));
            let response = told(&stored, ("GET", &[]), (source, downstream)).unwrap();
            let control = response.headers().get(header::CACHE_CONTROL).map(|value| value.to_str().unwrap());
            assert_eq!(control, expected, "{says:?}, {downstream:?}, {source:?}");
        };
        let (fetched, stale) = (Source::Fetched(FRESH), Source::Reused(STALE));
        for source in [REUSED, fetched, stale] {
            check(&[], Downstream::Revalidate, source, Some("private, no-cache"));
        }
        check(&[], Downstream::Lifetime, REUSED, Some("private, max-age=90"));
        check(&[], Downstream::Lifetime, fetched, Some("private, max-age=90"));
        check(&[], Downstream::Lifetime, stale, Some("private, max-age=0"));
        for downstream in [Downstream::Revalidate, Downstream::Lifetime] {
            check(&[("cache-control", "max-age=7")], downstream, REUSED, Some("max-age=7"));
            check(&[("expires", "0")], downstream, REUSED, None);
            check(&[], downstream, Source::Shared, None);
        }
    }

    #[test]
    fn a_client_gets_the_content_coding_that_it_takes_and_others_are_told_that_they_may_get_another() {
        let says = [("content-encoding", "gzip"), ("content-type", "application/json")];
        let check = |asks: &[(&str, &str)], coding: Option<&str>| {
            let response = shown(&stored(200, &says, both(b"[1,2]")), asks, REUSED);
            let told = response.headers().get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap());
            assert_eq!(told, coding, "{asks:?}");
            assert_eq!(response.headers()[header::VARY], "Accept-Encoding");
            assert_eq!(text(&response) == b"[1,2]", coding.is_none());
            assert_eq!(
                response.headers()[header::CONTENT_LENGTH],
                text(&response).len().to_string().as_str()
            );
        };
        check(&[("accept-encoding", "gzip, br")], Some("gzip"));
        check(&[("accept-encoding", "br")], None);
        check(&[("accept-encoding", "gzip;q=0")], None);
        check(&[], None);
    }

    #[test]
    fn vary_names_the_content_coding_once_and_only_where_there_are_two() {
        let vary = |says: &[(&str, &str)], body| {
            let response = shown(&stored(200, says, body), &[], REUSED);
            let values: Vec<_> =
                headers::members(response.headers(), &header::VARY).map(str::to_owned).collect();
            values.join(", ")
        };
        assert_eq!(vary(&[("vary", "accept-encoding, X-A")], both(b"[]")), "accept-encoding, X-A");
        assert_eq!(vary(&[("vary", "X-A")], both(b"[]")), "X-A, Accept-Encoding");
        assert_eq!(vary(&[("vary", "X-A")], plain(b"[]")), "X-A");
        assert_eq!(vary(&[], plain(b"[]")), "");
    }

    #[test]
    fn a_coding_that_is_not_at_hand_is_for_the_caller_to_make() {
        let says = [("content-encoding", "gzip")];
        let present = |body, asks: &[(&str, &str)]| {
            told(&stored(200, &says, body), ("GET", asks), (REUSED, Downstream::Revalidate)).is_some()
        };
        assert!(!present(gzip(b"[]"), &[]));
        assert!(present(gzip(b"[]"), &[("accept-encoding", "gzip")]));
        assert!(present(both(b"[]"), &[]));
    }

    #[test]
    fn links_and_region_urls_are_put_on_each_clients_own_base_from_a_pristine_copy() {
        let says = [("link", NEXT), ("content-location", "https://us.sentry.io/api/0/organizations/acme/")];
        let stored = stored(200, &says, spliced());
        for base in ["a.example", "b.example:8080", "a.example"] {
            let response = shown(&stored, &[("host", base)], REUSED);
            let link = format!("<http://{base}/api/0/organizations/?&cursor=1:0:0>; rel=\"next\"");
            assert_eq!(response.headers()[header::LINK], link);
            let location = format!("http://{base}/api/0/organizations/acme/");
            assert_eq!(response.headers()[header::CONTENT_LOCATION], location);
            let body = format!(r#"{{"links":{{"regionUrl":"http://{base}"}}}}"#);
            assert_eq!(text(&response), body.as_bytes());
        }
        assert_eq!(stored.fields()[header::LINK], NEXT);
    }

    #[test]
    fn rfc9110_9_3_2_head_tells_the_length_and_brings_no_body() {
        let stored = stored(200, &[], plain(b"[1,2,3]"));
        let response = told(&stored, ("HEAD", &[]), (REUSED, Downstream::Revalidate)).unwrap();
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "7");
        assert!(text(&response).is_empty());
    }

    #[test]
    fn rfc9110_8_6_a_204_tells_no_length() {
        let response = shown(&stored(204, &[], plain(b"")), &[], REUSED);
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
    }

    #[test]
    fn a_refusal_has_the_shape_of_sentrys_errors() {
        let refusal = Refusal::new(RefusalReason::UnknownPath, "There is \"nothing\" here.");
        let reply = Reply::refusal(&refusal);
        assert_eq!(reply.response.status(), StatusCode::NOT_FOUND);
        assert_eq!(*reply.response.headers(), fields(&[("content-type", "application/json")]));
        assert_eq!(text(&reply.response), br#"{"detail":"There is \"nothing\" here."}"#);
        assert_eq!(reply.handling, Handling::Refuse(RefusalReason::UnknownPath));
        assert_eq!(reply.status.render(), "sentrybox; detail=unknown-path");
    }

    #[test]
    fn every_refusal_answers_with_its_own_status_and_a_text() {
        for reason in RefusalReason::ALL {
            let reply = Reply::refusal(&Refusal::new(reason, "A sentence."));
            assert_eq!(reply.response.status(), reason.status());
            assert_eq!(text(&reply.response), br#"{"detail":"A sentence."}"#);
            let allow = reply.response.headers().contains_key(header::ALLOW);
            assert_eq!(allow, reason == RefusalReason::MethodNotAllowed, "{reason}");
        }
    }

    #[test]
    fn a_forwarded_answer_loses_what_is_not_for_this_client_and_leads_back_here() {
        let config = load::defaults();
        let regions = Regions::new(&config.upstream).unwrap();
        let says = [
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("alt-svc", "h3=\":443\""),
            ("set-cookie", "a=1"),
            ("link", NEXT),
            ("location", "https://sentry.io/api/0/organizations/acme/"),
            ("etag", "\"up\""),
            ("x-sentry-rate-limit-remaining", "3"),
        ];
        let cleaned = |asks: &[(&str, &str)]| {
            let request = asked("GET /api/0/organizations/", asks);
            let mut cleaned = fields(&says);
            clean_forwarded(&mut cleaned, &request, regions.known_hosts());
            cleaned
        };
        let expected = [
            ("link", "<http://proxy.example/api/0/organizations/?&cursor=1:0:0>; rel=\"next\""),
            ("location", "http://proxy.example/api/0/organizations/acme/"),
            ("etag", "\"up\""),
            ("x-sentry-rate-limit-remaining", "3"),
        ];
        assert_eq!(cleaned(&[TOKEN]), fields(&expected));
        assert_eq!(cleaned(&[])[header::SET_COOKIE], "a=1");
    }

    #[test]
    fn foreign_hosts_are_left_alone() {
        let foreign = "<https://evil.example/api/0/x/>; rel=\"next\"";
        let response = shown(&stored(200, &[("link", foreign)], plain(b"[]")), &[], REUSED);
        assert_eq!(response.headers()[header::LINK], foreign);
    }

    #[test]
    fn a_hit_says_so_with_its_ttl() {
        assert_eq!(reused(Handling::Reuse, FRESH).render(), "sentrybox; hit; ttl=90");
        let stale = reused(Handling::ReuseThenRevalidate, STALE);
        assert_eq!(stale.render(), "sentrybox; hit; ttl=-5; detail=stale-while-revalidate");
    }
}

//! Makes the answer to a client: from a stored response, from upstream's answer as it came, or of our own.
//!
//! Here fields get their last form: `Link` and `Location` on the client's own base, `Age`, the validator, what the
//! client is told about reuse. A client's own conditions are answered from the validator that it would get.
//!
//! Invariants: a 304 goes only to a client that asked conditionally; `Link` is rewritten from the pristine stored
//! copy, for this client; limit fields come from this very exchange or not at all.
//! Not here: deciding (`cache::freshness`), `Cache-Status` (`proxy::record`).

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use crate::admission::base::PublicBase;
use crate::admission::{AdmittedRequest, CookieCarriage};
use crate::cache::body::{AcceptsGzip, Coding};
use crate::cache::freshness::{Freshness, current_age};
use crate::cache::stored_response::{StoredResponse, is_not_modified};
use crate::config::Downstream;
use crate::handling::{Handling, Refusal};
use crate::headers::{self, CacheOutcome, CacheStatus};
use crate::links;
use crate::links::KnownHosts;
use crate::proxy::body::ReplyBody;

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
        let mut response = Response::new(detail(refusal.detail));
        *response.status_mut() = refusal.reason.status();
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = refusal.retry_after {
            fields.insert(header::RETRY_AFTER, headers::render_seconds(wait + Duration::from_millis(999)));
        }
        if refusal.reason.status() == StatusCode::METHOD_NOT_ALLOWED {
            fields.insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE"),
            );
        }
        let status = CacheStatus::refused(refusal.reason);
        Self { response, handling: Handling::Refuse(refusal.reason), status }
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

/// Answers the client's own conditions, and `HEAD` without a body.
fn conditional(
    status: StatusCode,
    mut fields: HeaderMap,
    bytes: Bytes,
    request: &AdmittedRequest,
) -> Response<ReplyBody> {
    // "A server MUST ignore all received preconditions if its response to the same request without those conditions
    // … would have been a status code other than a 2xx (Successful) or 412" (RFC 9110 §13.2.1).
    if status.is_success() && is_not_modified(request.fields(), fields.get(header::ETAG), &fields) {
        for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
            fields.remove(name);
        }
        return assemble(StatusCode::NOT_MODIFIED, fields, ReplyBody::empty());
    }
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

/// Prepares the fields of upstream's answer for a client that gets it as it came.
pub fn clean_forwarded(fields: &mut HeaderMap, request: &AdmittedRequest, known_hosts: &KnownHosts) {
    headers::clean_response(fields);
    match request.cookies() {
        CookieCarriage::Stripped => drop(fields.remove(header::SET_COOKIE)),
        CookieCarriage::Carried => {}
    }
    rewrite_links(fields, request.base(), known_hosts);
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

/// Returns the status of an answer from the store.
pub fn hit(freshness: Freshness, detail: Option<&'static str>) -> CacheStatus {
    CacheStatus { outcome: CacheOutcome::Hit, ttl: Some(freshness.ttl()), detail }
}

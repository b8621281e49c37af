//! What the cache keeps: a response, as upstream sent it, and what is needed to judge and to reuse it.
//!
//! Fields are cleaned of what was true only at the moment they were sent; `Link` and region URLs stay as upstream
//! wrote them (rewriting happens at send time, from this pristine copy). Here are the validators and what is done
//! with them: conditional requests to upstream, freshening by a 304 or by an answer to `HEAD`.
//!
//! Invariants: a stored response is complete and never changes: freshening and re-coding make a new one; it holds
//! no credential and no cookie; its memory is its own, not a slice of a connection's buffer.
//! Not here: whether it may be stored (`cache::storing`) or reused (`cache::freshness`), where it is kept
//! (`cache::store`), clients' own conditions and ranges (`cache::conditions`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::cache::body::StoredBody;
use crate::cache::conditions::opaque_tag;
use crate::cache::directives::ResponseDirectives;
use crate::cache::generations::{Generations, Stamp, Standing, TagSlots};
use crate::headers::{self, dates};
use crate::routes::RouteLabel;

/// What the store and its indexes need for each response besides what is counted: measured, see the README.
const FIXED_WEIGHT: usize = 720;

/// What a field costs in a `HeaderMap`: its bucket and its share of the index.
const FIELD_WEIGHT: usize = 112;

/// Fields that are true only for the answer they came with (`sentry-api.md`, implication 15).
const PER_ANSWER: [HeaderName; 4] = [
    header::SET_COOKIE,
    HeaderName::from_static("x-served-by"),
    HeaderName::from_static("x-sentry-proxy-url"),
    header::AGE,
];

/// Request fields that are part of every key, or never reach upstream: nominating them adds nothing.
const ALWAYS_KEYED: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT_ENCODING,
    header::ORIGIN,
    header::COOKIE,
    header::AUTHORIZATION,
];

/// What a look-up found.
#[derive(Debug, Clone)]
pub enum Found {
    /// Nothing under the primary key.
    Nothing,
    /// Something, but for other values of the nominated fields.
    OtherVariant,
    /// Something that a write or a purge has made unusable.
    Unusable,
    /// A stored response.
    Stored(Arc<StoredResponse>, Standing),
}

/// Where and when a response came from.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// When the request was sent ([RFC 9111 §4.2.3]).
    ///
    /// [RFC 9111 §4.2.3]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
    pub request_time: SystemTime,
    /// When the response's head arrived.
    pub response_time: SystemTime,
    /// The slots of its tags.
    pub slots: TagSlots,
    /// When its forward took off.
    pub stamp: Stamp,
    /// The route of its request.
    pub route: RouteLabel,
}

/// A complete response that may be reused within one partition.
#[derive(Debug)]
pub struct StoredResponse {
    status: StatusCode,
    fields: HeaderMap,
    body: StoredBody,
    provenance: Provenance,
    directives: ResponseDirectives,
    nominated: Box<[HeaderName]>,
    date: SystemTime,
    content_tag: [u8; 16],
    /// How often it was reused.
    reuses: AtomicU32,
}

impl StoredResponse {
    /// Notes that it was reused.
    pub fn note_reuse(&self) {
        self.reuses.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how often it was reused.
    pub fn reuses(&self) -> u32 {
        self.reuses.load(Ordering::Relaxed)
    }

    /// Stores a complete response. `fields` come as upstream sent them.
    pub fn new(status: StatusCode, fields: &HeaderMap, body: StoredBody, provenance: Provenance) -> Self {
        let mut fields = fields.clone();
        headers::clean_response(&mut fields);
        headers::take_limit_fields(&mut fields);
        let age = age_value(&fields);
        for name in &PER_ANSWER {
            fields.remove(name);
        }
        if !age.is_zero() {
            // Kept for the age's calculation; replaced when the response is reused.
            fields.insert(header::AGE, headers::render_seconds(age));
        }
        fields.remove(header::CONTENT_LENGTH);
        // The field that is added has whole seconds; what is calculated with has not lost the rest.
        let date = dates::field(&fields, &header::DATE).unwrap_or(provenance.response_time);
        add_date(&mut fields, provenance.response_time);
        Self {
            status,
            directives: ResponseDirectives::read(&fields),
            nominated: nominated(&fields),
            date,
            content_tag: content_tag(body.original()),
            reuses: AtomicU32::new(0),
            fields: compact(&fields),
            body,
            provenance,
        }
    }

    /// Returns the status code.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the fields: upstream's, cleaned; `Age`, if present, is the one upstream sent.
    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// Returns the body.
    pub fn body(&self) -> &StoredBody {
        &self.body
    }

    /// Returns where and when the response came from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns how it stands towards what has happened to its tags since it took off.
    pub fn standing_in(&self, generations: &Generations) -> Standing {
        generations.standing(&self.provenance.slots, self.provenance.stamp)
    }

    /// Returns what upstream said about storing and reusing it.
    pub fn directives(&self) -> &ResponseDirectives {
        &self.directives
    }

    /// Returns the request fields that select the response, beyond those that are part of every key.
    pub fn nominated(&self) -> &[HeaderName] {
        &self.nominated
    }

    /// Returns `Date`, or when the response arrived.
    pub fn date(&self) -> SystemTime {
        self.date
    }

    /// Returns the `Age` that upstream sent.
    pub fn age_value(&self) -> Duration {
        age_value(&self.fields)
    }

    /// Returns whether it says how old it is, or how long it is fresh: what a cache on the way would say, or obey.
    pub fn tells_its_age(&self) -> bool {
        let lifetime = self.directives.max_age.or(self.directives.s_maxage);
        let names = [header::AGE, header::EXPIRES, header::LAST_MODIFIED];
        lifetime.is_some() || names.iter().any(|name| self.fields.contains_key(name))
    }

    /// Returns how many bytes the response takes in the store.
    pub fn weight(&self) -> u32 {
        let values: usize = self.fields.values().map(HeaderValue::len).sum();
        let bytes = FIXED_WEIGHT
            + size_of::<Self>()
            + self.fields.len() * FIELD_WEIGHT
            + values
            + self.nominated.len() * size_of::<HeaderName>()
            + self.provenance.slots.heap_bytes()
            + self.body.heap_bytes();
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// Returns whether upstream gave a validator to ask with.
    pub fn has_validator(&self) -> bool {
        self.fields.contains_key(header::ETAG) || self.fields.contains_key(header::LAST_MODIFIED)
    }

    /// Makes a request conditional on this response ([RFC 9111 §4.3.1]).
    ///
    /// [RFC 9111 §4.3.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.1
    pub fn add_preconditions(&self, fields: &mut HeaderMap) {
        if let Some(tag) = self.fields.get(header::ETAG) {
            fields.insert(header::IF_NONE_MATCH, tag.clone());
        }
        if let Some(moment) = self.fields.get(header::LAST_MODIFIED) {
            fields.insert(header::IF_MODIFIED_SINCE, moment.clone());
        }
    }

    /// Returns whether a 304 with these fields speaks of this response ([RFC 9111 §4.3.4]).
    ///
    /// [RFC 9111 §4.3.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.4
    pub fn is_validated_by(&self, fields: &HeaderMap) -> bool {
        let stored = |name: &HeaderName| self.fields.get(name).map(HeaderValue::as_bytes);
        if let Some(tag) = fields.get(header::ETAG).map(HeaderValue::as_bytes) {
            // "If the new response contains one or more strong validators, then each of those strong validators
            // identifies a selected representation for update"; a weak one must match weakly.
            let is_weak = tag.starts_with(b"W/");
            return stored(&header::ETAG)
                .is_some_and(|own| if is_weak { opaque_tag(own) == opaque_tag(tag) } else { own == tag });
        }
        match fields.get(header::LAST_MODIFIED).map(HeaderValue::as_bytes) {
            Some(modified) => stored(&header::LAST_MODIFIED) == Some(modified),
            // Without a validator it can only speak of the one response that was asked about.
            None => true,
        }
    }

    /// Freshens the response by a 304 that validated it ([RFC 9111 §3.2]).
    ///
    /// [RFC 9111 §3.2]: https://www.rfc-editor.org/rfc/rfc9111#section-3.2
    #[must_use]
    pub fn freshened(&self, update: &HeaderMap, provenance: Provenance) -> Self {
        // "… the cache MUST add each header field in the provided response to the stored response, replacing field
        // values that are already present, with the following exceptions: … the Content-Length header field", and
        // those that "ensure integrity of the stored response": its coding may be undone here, and it is whole.
        let mut fields = self.fields.clone();
        fields.remove(header::AGE);
        // The stored `Date` belongs to the stored answer; a 304 without one is dated by its arrival.
        fields.remove(header::DATE);
        for name in update.keys().filter(|name| !describes_content(name)) {
            fields.remove(name);
            for value in update.get_all(name) {
                fields.append(name, value.clone());
            }
        }
        Self::new(self.status, &fields, self.body.clone(), provenance)
    }

    /// Returns whether an answer with these fields is of the same representation, as far as negotiation goes: of the same
    /// type, in the same coding and language, selected by the same request fields.
    pub fn is_same_representation_as(&self, fields: &HeaderMap) -> bool {
        let is_same = |name: &HeaderName| {
            self.fields.get(name).map(HeaderValue::as_bytes) == fields.get(name).map(HeaderValue::as_bytes)
        };
        is_same(&header::CONTENT_TYPE)
            && is_same(&header::CONTENT_LANGUAGE)
            && headers::content_coding(&self.fields) == headers::content_coding(fields)
            && *self.nominated == *nominated(fields)
    }

    /// Returns whether an answer to `HEAD` with these fields speaks of this response ([RFC 9111 §4.3.5]): every validator and
    /// length that the answer names is this response's.
    ///
    /// [RFC 9111 §4.3.5]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.5
    pub fn matches_head(&self, fields: &HeaderMap) -> bool {
        let is_same =
            |name: &HeaderName| fields.get(name).is_none_or(|value| self.fields.get(name) == Some(value));
        let length = fields.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
        let has_length = length.is_none_or(|told| told == self.body.original().len().to_string().as_bytes());
        is_same(&header::ETAG) && is_same(&header::LAST_MODIFIED) && has_length
    }

    /// Returns the same response without some of its fields.
    #[must_use]
    pub fn without(&self, names: &[HeaderName]) -> Self {
        let mut fields = self.fields.clone();
        for name in names {
            fields.remove(name);
        }
        Self { fields: compact(&fields), ..self.with_body(self.body.clone()) }
    }

    /// Returns the same response with its body in one more coding.
    #[must_use]
    pub fn with_body(&self, body: StoredBody) -> Self {
        Self {
            status: self.status,
            fields: self.fields.clone(),
            body,
            provenance: self.provenance.clone(),
            directives: self.directives,
            nominated: self.nominated.clone(),
            date: self.date,
            content_tag: self.content_tag,
            reuses: AtomicU32::new(self.reuses()),
        }
    }

    /// Returns our own strong validator for the response in a form that depends on `variation` (its coding, and
    /// the base that was put into it).
    pub fn own_tag(&self, variation: &str) -> HeaderValue {
        let mut text = String::with_capacity(48);
        text.push('"');
        for byte in self.content_tag {
            text.extend(
                [byte >> 4, byte & 15].iter().filter_map(|digit| char::from_digit(u32::from(*digit), 16)),
            );
        }
        text.push_str(variation);
        text.push('"');
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }
}

fn describes_content(name: &HeaderName) -> bool {
    matches!(*name, header::CONTENT_ENCODING | header::CONTENT_LENGTH | header::CONTENT_RANGE)
}

/// Reads `Age`; an invalid one is ignored (RFC 9111 §5.1).
fn age_value(fields: &HeaderMap) -> Duration {
    let first = headers::members(fields, &header::AGE).next().unwrap_or_default();
    if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
        return Duration::ZERO;
    }
    Duration::from_secs(first.parse::<u64>().unwrap_or(u64::MAX).min(1 << 31))
}

/// "A recipient with a clock that receives a response message without a Date header field MUST record the time it
/// was received and append a corresponding Date header field … if it is cached" (RFC 9110 §6.6.1).
fn add_date(fields: &mut HeaderMap, response_time: SystemTime) {
    if dates::field(fields, &header::DATE).is_none()
        && let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(response_time))
    {
        fields.insert(header::DATE, value);
    }
}

/// Returns the fields that `Vary` nominates, in one order; `*` stays and is refused before storing.
pub fn nominated(fields: &HeaderMap) -> Box<[HeaderName]> {
    let mut names: Vec<HeaderName> = headers::members(fields, &header::VARY)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .filter(|name| !ALWAYS_KEYED.contains(name))
        .collect();
    names.sort_by(|left, right| left.as_str().cmp(right.as_str()));
    names.dedup();
    names.into_boxed_slice()
}

/// Copies all values into one block of memory of their own and lets the fields share it.
fn compact(fields: &HeaderMap) -> HeaderMap {
    let block: Vec<u8> = fields.values().flat_map(|value| value.as_bytes().iter().copied()).collect();
    let mut block = Bytes::from(block.into_boxed_slice());
    let mut compacted = HeaderMap::with_capacity(fields.keys_len());
    for (name, value) in fields {
        let bytes = block.split_to(value.len());
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes) {
            compacted.append(name.clone(), value);
        }
    }
    compacted
}

fn content_tag(content: &[u8]) -> [u8; 16] {
    let mut tag = [0; 16];
    for (to, from) in tag.iter_mut().zip(digest::digest(&digest::SHA256, content).as_ref()) {
        *to = *from;
    }
    tag
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::cache::generations::Generations;
    use crate::testing::fields;

    fn provenance(seconds: u64) -> Provenance {
        let generations = Generations::new([0; 16], Duration::ZERO);
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        Provenance {
            request_time: now,
            response_time: now,
            slots: generations.slots(&[]),
            stamp: generations.stamp(now),
            route: RouteLabel::Other,
        }
    }

    fn stored(pairs: &[(&str, &str)]) -> StoredResponse {
        let body = StoredBody::identity(Bytes::from_static(b"[]"));
        StoredResponse::new(StatusCode::OK, &fields(pairs), body, provenance(1_000))
    }

    #[test]
    fn what_was_true_only_for_one_answer_is_not_stored() {
        let stored = stored(&[
            ("set-cookie", "sc=1"),
            ("x-sentry-rate-limit-remaining", "3"),
            ("x-served-by", "host"),
            ("alt-svc", "h3=\":443\""),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-hits", "7"),
        ]);
        let mut names: Vec<_> = stored.fields().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["date", "x-hits"]);
    }

    #[test]
    fn rfc9110_6_6_1_a_response_without_date_is_dated_by_its_arrival() {
        assert_eq!(stored(&[]).fields()["date"], "Thu, 01 Jan 1970 00:16:40 GMT");
        let dated = stored(&[("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        assert_eq!(dated.fields()["date"], "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn rfc9111_3_2_a_304_replaces_fields_but_not_those_of_the_content() {
        let stored = stored(&[
            ("etag", "\"1\""),
            ("content-type", "application/json"),
            ("x-a", "old"),
            ("x-b", "kept"),
            ("age", "50"),
        ]);
        let update = fields(&[
            ("etag", "\"1\""),
            ("content-type", "text/html"),
            ("content-length", "0"),
            ("content-encoding", "br"),
            ("x-a", "new"),
            ("x-a", "newer"),
        ]);
        assert!(stored.is_validated_by(&update));
        let freshened = stored.freshened(&update, provenance(2_000));
        assert_eq!(freshened.fields()["content-type"], "text/html");
        assert!(!freshened.fields().contains_key("content-encoding"));
        assert_eq!(freshened.fields()["x-b"], "kept");
        assert_eq!(freshened.fields().get_all("x-a").iter().count(), 2);
        assert_eq!(freshened.age_value(), Duration::ZERO);
        assert_eq!(freshened.date(), UNIX_EPOCH + Duration::from_secs(2_000));
        assert!(!stored.is_validated_by(&fields(&[("etag", "\"2\"")])));
    }

    #[test]
    fn our_tag_depends_on_content_and_variation() {
        let one = stored(&[]);
        let body = StoredBody::identity(Bytes::from_static(b"[1]"));
        let other = StoredResponse::new(StatusCode::OK, &HeaderMap::new(), body, provenance(1));
        assert_eq!(one.own_tag(""), stored(&[("x-a", "1")]).own_tag(""));
        assert_ne!(one.own_tag(""), other.own_tag(""));
        assert_ne!(one.own_tag(""), one.own_tag("-gzip"));
    }

    #[test]
    fn fields_that_are_always_keyed_are_not_nominated_again() {
        let stored = stored(&[("vary", "Accept-Language, Cookie"), ("vary", "X-B, x-a, X-B")]);
        assert_eq!(stored.nominated(), ["x-a", "x-b"]);
    }

    #[test]
    fn rfc9111_5_1_an_invalid_age_is_ignored() {
        let age = |value: &str| stored(&[("age", value)]).age_value();
        assert_eq!(age("60"), Duration::from_mins(1));
        assert_eq!(age("60, 70"), Duration::from_mins(1));
        assert_eq!(age("-60"), Duration::ZERO);
        assert_eq!(age("x"), Duration::ZERO);
        assert_eq!(age("99999999999999999999999"), Duration::from_secs(1 << 31));
    }
}

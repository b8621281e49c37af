//! Forwards a request as it is: pass-through, writes, and whatever the cache may not answer.
//!
//! Answers stream. Only a body that speaks of organizations or regions is read first: its URLs may point back here, and what
//! it says is learned.
//!
//! Invariants: a write runs to its end although its client has left, is sent at most once, and makes unusable what
//! it changed after upstream answered and before the client is told; no request body is read before there is
//! capacity to send it. Not here: collapsing (`proxy::flight`).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, StatusCode, Version, response};
use http_body_util::{BodyExt as _, Limited};

use crate::budget::ask::Patience;
use crate::budget::permit::Reservation;
use crate::cache::body::decode;
use crate::cache::generations::Cause;
use crate::cache::invalidation::{self, Write, WriteOutcome};
use crate::handling::{ForwardReason, Handling};
use crate::headers::{self, CacheStatus, ContentCoding};
use crate::links::region_urls::{self, RegionUrlShape};
use crate::metrics::store::InvalidationCause;
use crate::proxy::Proxy;
use crate::proxy::asking::Answer;
use crate::proxy::body::{NotCollected, ReplyBody};
use crate::proxy::landing::ForwardFailure;
use crate::proxy::outgoing::{self, Codings};
use crate::proxy::reply::{self, Reply};
use crate::regions::DirectedRequest;
use crate::routes::spelling::normalized_path;
use crate::upstream::body::Ended;
use crate::upstream::error::UpstreamFault;
use crate::upstream::{OnInterim, OutgoingBody};

impl Proxy {
    /// Forwards a request as it is.
    pub async fn forward(
        &self,
        request: Arc<DirectedRequest>,
        body: OutgoingBody,
        reason: ForwardReason,
    ) -> Reply {
        self.forward_with(request, body, (reason, Patience::Full)).await
    }

    /// Forwards a request as it is, waiting for no longer than so.
    pub async fn forward_with(
        &self,
        request: Arc<DirectedRequest>,
        body: OutgoingBody,
        (reason, patience): (ForwardReason, Patience),
    ) -> Reply {
        let inquiry = self.inquiry(&request, request.method(), patience);
        if !request.is_safe() {
            // A client who leaves while its write still waits has written nothing.
            return match self.reserve_once(&inquiry).await {
                Ok(reservation) => self.write(request, body, (reason, reservation)).await,
                Err(failure) => failed(failure, reason, None),
            };
        }
        let mut body = Some(body);
        let answer = self.exchange(inquiry, || {
            // Only what has no body is sent again.
            self.outgoing_as_it_is(&request, body.take().unwrap_or_else(outgoing::empty))
        });
        let answer = answer.await;
        if let Ok(answer) = &answer {
            self.note_absence(&request, answer.head.status);
            self.learn_from_head(&request, &answer.head, answer.take_off).await;
        }
        self.pass_on(&request, answer, reason).await
    }

    /// Sends a write for which there is a place; it runs to its end although its client leaves now.
    async fn write(
        &self,
        request: Arc<DirectedRequest>,
        body: OutgoingBody,
        (reason, reservation): (ForwardReason, Reservation),
    ) -> Reply {
        let (proxy, written) = (self.clone(), Arc::clone(&request));
        let write = self.errands().run(async move {
            let answer =
                proxy.send_once(&written, proxy.outgoing_as_it_is(&written, body), reservation).await;
            proxy.invalidate(&written, &answer);
            proxy.pass_on(&written, answer, reason).await
        });
        // It is gone only if it panicked.
        write.await.unwrap_or_else(|_| {
            self.metrics().panicked();
            self.invalidate(&request, &Err(ForwardFailure::Lost));
            Reply::refusal(&ForwardFailure::Lost.refusal())
        })
    }

    fn outgoing_as_it_is(
        &self,
        request: &Arc<DirectedRequest>,
        body: OutgoingBody,
    ) -> Option<Request<OutgoingBody>> {
        let target = request.target()?;
        let is_read = shape_to_find(request).is_some();
        let codings = if is_read { Codings::IdentityOnly } else { Codings::AsAsked };
        let mut outgoing = outgoing::as_it_is(request, target, codings, body);
        self.pass_on_interim(request, &mut outgoing);
        Some(outgoing)
    }

    async fn pass_on(
        &self,
        request: &DirectedRequest,
        answer: Result<Answer, ForwardFailure>,
        reason: ForwardReason,
    ) -> Reply {
        match answer {
            Ok(Answer { head, body, permit, .. }) => {
                let status = head.status;
                let body = ReplyBody::streaming(body, permit);
                match self.localize(request, shape_to_find(request), head, body).await {
                    Ok(response) => forwarded(response, reason, status),
                    Err(failure) => failed(failure, reason, Some(status)),
                }
            }
            Err(failure) => failed(failure, reason, None),
        }
    }

    /// Has upstream's interim responses told to the client of a request, made ours as its final one will be: "a proxy MUST
    /// forward 1xx responses unless the proxy itself requested the generation of the 1xx response" (RFC 9110 §15.2).
    pub fn pass_on_interim(&self, request: &Arc<DirectedRequest>, outgoing: &mut Request<OutgoingBody>) {
        let Some(ticket) = request.interim().cloned() else { return };
        let (proxy, request) = (self.clone(), Arc::clone(request));
        outgoing.extensions_mut().insert(OnInterim(Arc::new(move |status, mut fields| {
            // "A server MUST NOT send a Content-Length header field in any response with a status code of 1xx" (RFC 9110
            // §8.6); limits are told with the final response.
            fields.remove(header::CONTENT_LENGTH);
            headers::take_limit_fields(&mut fields);
            reply::clean_forwarded(&mut fields, &request, proxy.regions().known_hosts());
            ticket.send(status, &fields);
        })));
    }

    /// Makes unusable what a write has changed.
    fn invalidate(&self, request: &DirectedRequest, answer: &Result<Answer, ForwardFailure>) {
        let none = HeaderMap::new();
        let (outcome, fields) = match answer {
            Ok(Answer { head, .. }) => (WriteOutcome::Answered(head.status), &head.headers),
            // It never reached upstream, or not whole: nothing can have changed.
            Err(
                ForwardFailure::NotSent(_)
                | ForwardFailure::Postponed(_)
                | ForwardFailure::Upstream(
                    UpstreamFault::Unreachable | UpstreamFault::RequestBody | UpstreamFault::OversizedRequest,
                ),
            ) => return,
            Err(
                ForwardFailure::Upstream(UpstreamFault::Timeout | UpstreamFault::Broken)
                | ForwardFailure::Lost,
            ) => (WriteOutcome::Unknown, &none),
        };
        let write = Write {
            request,
            outcome,
            answer: fields,
            upstream: request.upstream().authority(),
            further_names: &self.further_names(&normalized_path(request.path())),
        };
        let touched = invalidation::caused_by(&write, self.settings().invalidation);
        if !touched.is_empty() {
            self.generations().invalidate_tags(&touched, Cause::Write, self.clock().now());
            self.metrics().store.invalidated(InvalidationCause::Write);
        }
    }

    /// Makes upstream's answer one of ours: clean fields, links that lead back here, region URLs too.
    ///
    /// # Errors
    /// When a body that must be read broke off.
    pub async fn localize(
        &self,
        request: &DirectedRequest,
        shape: Option<RegionUrlShape>,
        mut head: response::Parts,
        body: ReplyBody,
    ) -> Result<http::Response<ReplyBody>, ForwardFailure> {
        reply::clean_forwarded(&mut head.headers, request, self.regions().known_hosts());
        // A part stays as it is: its range counts upstream's bytes.
        let is_whole = head.status.is_success() && head.status != StatusCode::PARTIAL_CONTENT;
        let names_regions = is_whole && headers::is_json(&head.headers);
        let body = match (shape.filter(|_| names_regions), body) {
            (Some(shape), ReplyBody::Streaming(stream)) => {
                self.with_region_urls(request, shape, &mut head, ReplyBody::Streaming(stream)).await?
            }
            (_, body) => body,
        };
        head.extensions.clear();
        Ok(http::Response::from_parts(head, body.relayed()))
    }

    async fn with_region_urls(
        &self,
        request: &DirectedRequest,
        shape: RegionUrlShape,
        head: &mut response::Parts,
        body: ReplyBody,
    ) -> Result<ReplyBody, ForwardFailure> {
        let collected = match self.memory().collect_reply(body).await {
            Ok(collected) => collected,
            Err(NotCollected::Streaming(body, _)) => return Ok(body),
            Err(NotCollected::Broken(error)) => {
                self.note_failure(request, &error);
                return Err(ForwardFailure::Upstream(error.fault()));
            }
        };
        let plain = plain(&head.headers, &collected.bytes, self.memory().limit());
        let splices = self.read_regions(&plain, shape);
        let bytes = if splices.is_empty() {
            collected.bytes
        } else {
            // Upstream's validator and coding do not speak of what this client gets.
            head.headers.remove(header::ETAG);
            head.headers.remove(header::CONTENT_ENCODING);
            region_urls::apply(&plain, &splices, request.base().as_str()).into()
        };
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        Ok(ReplyBody::whole(bytes))
    }
}

/// Returns the shape in which an answer's body names regions and organizations, if it does. One to `HEAD` has no body.
fn shape_to_find(request: &DirectedRequest) -> Option<RegionUrlShape> {
    let is_head = *request.method() == http::Method::HEAD;
    region_urls::shape_of(&normalized_path(request.path())).filter(|_| !is_head)
}

/// Returns the body without its coding; empty, so that nothing is found in it, where that cannot be undone.
fn plain(fields: &HeaderMap, bytes: &Bytes, limit: usize) -> Bytes {
    match headers::content_coding(fields) {
        ContentCoding::Identity => bytes.clone(),
        ContentCoding::Gzip => decode(bytes, limit).unwrap_or_default(),
        ContentCoding::Other => Bytes::new(),
    }
}

/// Makes the reply of an answer that was passed on.
pub fn forwarded(response: http::Response<ReplyBody>, reason: ForwardReason, status: StatusCode) -> Reply {
    let status = CacheStatus::forwarded(reason, Some(status));
    Reply { response, handling: Handling::Forward(reason), status }
}

/// Makes the reply of a forward that failed.
pub fn failed(failure: ForwardFailure, reason: ForwardReason, status: Option<StatusCode>) -> Reply {
    let refusal = failure.refusal();
    let detail = Some(refusal.reason.label());
    Reply {
        status: CacheStatus { detail, ..CacheStatus::forwarded(reason, status) },
        ..Reply::refusal(&refusal)
    }
}

/// Returns a client's body, which comes by this version, in the form in which it goes upstream; it fails when it has become
/// larger than `most`.
pub fn outgoing_body<B>(body: B, (version, most): (Version, u64)) -> OutgoingBody
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<crate::upstream::BoxError>,
{
    if body.is_end_stream() {
        return body.map_err(Into::into).boxed_unsync();
    }
    let body = Limited::new(body, usize::try_from(most).unwrap_or(usize::MAX)).boxed_unsync();
    if version == Version::HTTP_2 { Ended::new(body).boxed_unsync() } else { body }
}

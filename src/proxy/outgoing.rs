//! Builds what is sent upstream: the client's own request, or what a flight asks for many clients. Pure.
//!
//! Invariants: a flight's request follows from the key of what it fetches and from our validators; of the client
//! that made it take off it carries no condition, no directive, no range and no `Referer` (upstream echoes its
//! origin, `sentry-api.md` §1). Every other request goes on as the client sent it, cleaned.
//! Not here: the target (`regions`), `Host` and the length (`upstream`).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty};

use crate::admission::AdmittedRequest;
use crate::cache::key::Negotiation;
use crate::cache::stored_response::StoredResponse;
use crate::upstream::OutgoingBody;

/// What a client says about its own copy or about how it wants to be answered: nothing for all passengers.
const OWN_TO_ONE_CLIENT: [HeaderName; 12] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
    header::CACHE_CONTROL,
    header::PRAGMA,
    header::REFERER,
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::ORIGIN,
];

/// Returns an empty body.
pub fn empty() -> OutgoingBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Builds the request of a flight, conditional on what is stored if that has a validator.
pub fn for_flight(
    request: &AdmittedRequest,
    target: Uri,
    stored: Option<&StoredResponse>,
) -> Request<OutgoingBody> {
    let mut fields = request.fields().clone();
    for name in &OWN_TO_ONE_CLIENT {
        fields.remove(name);
    }
    let Negotiation { accept, language, origin } = Negotiation::of(request);
    let accept = accept.unwrap_or(HeaderValue::from_static("application/json"));
    fields.insert(header::ACCEPT, accept);
    set(&mut fields, header::ACCEPT_LANGUAGE, language);
    set(&mut fields, header::ORIGIN, origin);
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, identity"));
    if let Some(stored) = stored {
        stored.add_preconditions(&mut fields);
    }
    assemble(Method::GET, target, fields, request, empty())
}

/// What a forward may do with the content coding of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codings {
    /// The client's own choice is passed on.
    AsAsked,
    /// The answer must come as it is, because it will be read.
    IdentityOnly,
}

/// Builds a request that goes on as the client sent it.
pub fn as_it_is(
    request: &AdmittedRequest,
    target: Uri,
    codings: Codings,
    body: OutgoingBody,
) -> Request<OutgoingBody> {
    let mut fields = request.fields().clone();
    match codings {
        Codings::AsAsked => {}
        Codings::IdentityOnly => set(&mut fields, header::ACCEPT_ENCODING, None),
    }
    assemble(request.method().clone(), target, fields, request, body)
}

fn assemble(
    method: Method,
    target: Uri,
    mut fields: HeaderMap,
    request: &AdmittedRequest,
    body: OutgoingBody,
) -> Request<OutgoingBody> {
    set(&mut fields, header::AUTHORIZATION, request.credential().map(|it| it.field_value().clone()));
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = method;
    *outgoing.uri_mut() = target;
    *outgoing.headers_mut() = fields;
    outgoing
}

/// Sets a field, or removes it.
fn set(fields: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(fields.insert(name, value)),
        None => drop(fields.remove(name)),
    }
}

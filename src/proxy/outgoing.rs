//! Builds what is sent upstream: the client's own request, or what a flight asks for many clients. Pure.
//!
//! Invariants: what a flight asks for follows from the key and from our validators; of the client that made it take off
//! it carries no condition, no directive, no range and no `Referer` (upstream echoes its origin, `sentry-api.md` §1).
//! Its other fields go along, since upstream may nominate any of them by `Vary`. Every other request goes on as the client sent it, cleaned.
//! Not here: the target (`regions`), `Host` and the length (`upstream`).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty};

use crate::admission::AdmittedRequest;
use crate::cache::key::Negotiation;
use crate::cache::stored_response::StoredResponse;
use crate::request_id::X_REQUEST_ID;
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
    // What a flight asks is asked for many, by no one's name.
    set(&mut fields, X_REQUEST_ID, Some(request.id().field_value()));
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

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;
    use crate::testing::{TOKEN, asked, fields, stored};

    const LINE: &str = "GET /api/0/organizations/acme/projects/?cursor=0%3A100%3A0";

    fn target() -> Uri {
        Uri::from_static("https://sentry.io/api/0/organizations/acme/projects/?cursor=0%3A100%3A0")
    }

    /// Returns what a flight sends for a client with these fields, without `Via`.
    fn flown(pairs: &[(&str, &str)], stored: Option<&StoredResponse>) -> HeaderMap {
        let request = asked(LINE, pairs);
        let mut sent = for_flight(&request, target(), stored);
        assert_eq!(sent.headers_mut().remove(header::VIA).unwrap(), "1.1 sentrybox (here)");
        std::mem::take(sent.headers_mut())
    }

    const JSON_AS_GZIP: [(&str, &str); 2] =
        [("accept", "application/json"), ("accept-encoding", "gzip, identity")];

    #[test]
    fn a_flight_says_nothing_that_concerns_only_the_client_that_made_it_take_off() {
        let sent = flown(
            &[
                TOKEN,
                ("if-none-match", "\"mine\""),
                ("if-modified-since", "Fri, 15 Jan 2027 08:00:00 GMT"),
                ("if-match", "*"),
                ("if-unmodified-since", "Fri, 15 Jan 2027 08:00:00 GMT"),
                ("if-range", "\"mine\""),
                ("cache-control", "max-age=0"),
                ("pragma", "no-cache"),
                ("referer", "https://a.example/page"),
                ("accept", "*/*"),
                ("accept-language", "*"),
                ("accept-encoding", "br, zstd"),
                ("cookie", "a=1"),
                ("host", "proxy.example"),
                ("x-forwarded-for", "10.0.0.1"),
            ],
            None,
        );
        assert_eq!(sent, fields(&[&[TOKEN], &JSON_AS_GZIP[..]].concat()));
    }

    #[test]
    fn a_flight_negotiates_what_its_key_holds() {
        let negotiated =
            [("accept", "text/html"), ("accept-language", "de"), ("origin", "https://a.example")];
        let sent = flown(&[&[TOKEN], &negotiated[..]].concat(), None);
        for (name, value) in negotiated {
            assert_eq!(sent[name], value);
        }
    }

    #[test]
    fn a_flight_carries_what_else_the_client_says_so_that_vary_can_nominate_it() {
        let sent = flown(&[TOKEN, ("x-team", "red"), ("user-agent", "curl")], None);
        assert_eq!(
            (&sent["x-team"], &sent["user-agent"]),
            (&"red".parse().unwrap(), &"curl".parse().unwrap())
        );
    }

    #[test]
    fn rfc9111_4_3_1_a_flight_is_conditional_on_our_validators_and_not_on_the_clients() {
        let modified = "Fri, 15 Jan 2027 07:00:00 GMT";
        let client = [TOKEN, ("if-none-match", "\"mine\"")];
        let both = flown(&client, Some(&stored(200, &[("etag", "W/\"1\""), ("last-modified", modified)])));
        assert_eq!(both[header::IF_NONE_MATCH], "W/\"1\"");
        assert_eq!(both[header::IF_MODIFIED_SINCE], modified);
        let none = flown(&client, Some(&stored(200, &[])));
        assert!(!none.contains_key(header::IF_NONE_MATCH) && !none.contains_key(header::IF_MODIFIED_SINCE));
    }

    #[test]
    fn a_flight_asks_with_get_for_the_clients_own_spelling_and_credential() {
        let request = asked(LINE, &[("authorization", "bearer  sntryu_one")]);
        let sent = for_flight(&request, target(), None);
        assert_eq!((sent.method(), sent.uri()), (&Method::GET, &target()));
        assert_eq!(sent.headers()[header::AUTHORIZATION], "bearer  sntryu_one");
        assert!(sent.headers()[header::AUTHORIZATION].is_sensitive());
        assert!(sent.body().is_end_stream());
    }

    #[test]
    fn a_request_without_credential_is_sent_without_one() {
        let request = asked(LINE, &[]);
        assert!(!for_flight(&request, target(), None).headers().contains_key(header::AUTHORIZATION));
    }

    #[test]
    fn any_other_request_goes_on_as_the_client_sent_it() {
        let own = [
            TOKEN,
            ("if-match", "\"mine\""),
            ("range", "bytes=0-9"),
            ("cache-control", "no-cache"),
            ("accept-encoding", "br"),
            ("referer", "https://a.example/page"),
            ("content-type", "application/json"),
        ];
        let request = asked("PUT /api/0/organizations/acme/", &own);
        let mut sent = as_it_is(&request, target(), Codings::AsAsked, empty());
        assert_eq!(sent.method(), Method::PUT);
        sent.headers_mut().remove(header::VIA);
        assert_eq!(sent.headers_mut().remove(X_REQUEST_ID).unwrap(), request.id().field_value());
        assert_eq!(*sent.headers(), fields(&own));
        let read = as_it_is(&request, target(), Codings::IdentityOnly, empty());
        assert!(!read.headers().contains_key(header::ACCEPT_ENCODING));
    }
}

//! Builds what the unit tests of several rooms need: fields, admitted requests, stored responses.
//!
//! Invariant: everything here goes through the same doors as in earnest; an [`AdmittedRequest`] was admitted.
//! Not here: what only one room's tests need, and anything that runs (`tests/it`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, StatusCode};

use crate::admission::{Admission, AdmittedRequest, BodyFraming};
use crate::assembly::proxy_before;
use crate::cache::body::StoredBody;
use crate::cache::generations::Generations;
use crate::cache::stored_response::{Provenance, StoredResponse};
use crate::config::{Config, load};
use crate::credential::CredentialKeys;
use crate::peer::Peer;
use crate::proxy::Proxy;
use crate::request_id::RequestId;
use crate::routes::{self, RouteLabel};
use crate::upstream::{OutgoingBody, Sending, Upstream};

/// Who is connected.
pub(crate) const PEER: Peer = Peer::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7));

/// What requests are called.
pub(crate) const ID: RequestId = RequestId::made(7);

/// A credential that the cache knows.
pub(crate) const TOKEN: (&str, &str) = ("authorization", "Bearer sntryu_one");

/// A request line for what no built-in rule names.
pub(crate) const SUBJECT: &str = "GET /api/0/organizations/acme/subject/";

/// Returns the moment at which tests begin: a whole second.
pub(crate) fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(500_000)
}

/// An upstream that nobody may ask.
#[derive(Debug)]
struct Unasked;

impl Upstream for Unasked {
    fn send(&self, _: Request<OutgoingBody>) -> Sending<'_> {
        unreachable!("nothing may be forwarded here")
    }
}

/// Returns a proxy as it comes, before an upstream that nobody may ask.
pub(crate) fn unasked() -> Proxy {
    proxy_before(&load::defaults(), Arc::new(Unasked)).unwrap()
}

/// Returns fields, in this order.
pub(crate) fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        fields.append(name, HeaderValue::from_str(value).unwrap());
    }
    fields
}

/// Returns the head of an HTTP/1.1 request; `line` is its method and its target.
pub(crate) fn head(line: &str, pairs: &[(&str, &str)]) -> Parts {
    let (method, target) = line.split_once(' ').unwrap();
    let mut head = Request::builder().method(method).uri(target).body(()).unwrap().into_parts().0;
    head.headers = fields(pairs);
    if !head.headers.contains_key(header::HOST) {
        head.headers.insert(header::HOST, HeaderValue::from_static("proxy.example"));
    }
    head
}

/// Returns the rules of entry; the process is called `here`.
pub(crate) fn admission(config: &Config) -> Admission {
    let routes = routes::compile(&config.cache).unwrap();
    Admission::new(config, routes, CredentialKeys::derive(&[7; 32]), "here".to_owned())
}

/// Returns an admitted request without a body.
pub(crate) fn admitted(config: &Config, line: &str, pairs: &[(&str, &str)]) -> AdmittedRequest {
    admission(config).admit(head(line, pairs), BodyFraming::Absent, PEER, ID).unwrap()
}

/// Returns a request without a body that the default configuration admits.
pub(crate) fn asked(line: &str, pairs: &[(&str, &str)]) -> AdmittedRequest {
    static DEFAULTS: LazyLock<Admission> = LazyLock::new(|| admission(&load::defaults()));
    DEFAULTS.admit(head(line, pairs), BodyFraming::Absent, PEER, ID).unwrap()
}

/// Returns the provenance of a response without tags that arrived in no time.
pub(crate) fn provenance(at: SystemTime) -> Provenance {
    let generations = Generations::new([0; 16], Duration::ZERO);
    Provenance {
        request_time: at,
        response_time: at,
        slots: generations.slots(&[]),
        stamp: generations.stamp(at),
        route: RouteLabel::Other,
    }
}

/// Returns a stored response that arrived at [`start`], with `[]` as its body.
pub(crate) fn stored(status: u16, pairs: &[(&str, &str)]) -> StoredResponse {
    let body = StoredBody::identity(Bytes::from_static(b"[]"));
    StoredResponse::new(StatusCode::from_u16(status).unwrap(), &fields(pairs), body, provenance(start()))
}

//! What a span may say of its step: a closed set, in OpenTelemetry's words where it has them ([HTTP spans]).
//!
//! Invariant: no fact can hold a path, a query, the value of a field or a credential: each is one of our own closed sets, of
//! the configuration, or a number. Not here: who says what (`proxy`).
//!
//! [HTTP spans]: https://opentelemetry.io/docs/specs/semconv/http/http-spans/

use http::uri::{Authority, Scheme};
use http::{Method, StatusCode};
use opentelemetry::{KeyValue, Value};

use crate::credential::Fingerprint;
use crate::handling::Handling;
use crate::handling::hold::Hold;
use crate::routes::RouteLabel;

/// Something that a span says.
#[derive(Debug, Clone, Copy)]
pub enum Fact<'a> {
    /// The request's method.
    Method(&'a Method),
    /// The template of the request's route.
    Route(&'a RouteLabel),
    /// The scheme in which it came, or goes upstream.
    Scheme(&'a Scheme),
    /// The upstream that is asked.
    Server(&'a Authority),
    /// The status of the answer.
    Status(StatusCode),
    /// What was done, and why.
    Handling(Handling),
    /// Whose request it is.
    Credential(Fingerprint),
    /// What a flight is to bring: the label of its demand.
    Demand(&'static str),
    /// Somebody else's flight was joined.
    Collapsed,
    /// Why it had to wait.
    Hold(Hold),
    /// It failed: the label of the way.
    Failure(&'static str),
}

impl Fact<'_> {
    /// Returns the attributes of a span that say it.
    pub fn attributes(self) -> Vec<KeyValue> {
        let one = |key: &'static str, value: Value| vec![KeyValue::new(key, value)];
        match self {
            Self::Method(method) => one("http.request.method", known(method).into()),
            Self::Route(RouteLabel::Template(template)) => one("http.route", template.to_string().into()),
            Self::Route(RouteLabel::Other) => Vec::new(),
            Self::Scheme(scheme) => one("url.scheme", scheme.as_str().to_owned().into()),
            Self::Server(authority) => {
                let mut attributes = one("server.address", authority.host().to_owned().into());
                attributes
                    .extend(authority.port_u16().map(|port| KeyValue::new("server.port", i64::from(port))));
                attributes
            }
            Self::Status(status) => one("http.response.status_code", i64::from(status.as_u16()).into()),
            Self::Handling(handling) => vec![
                KeyValue::new("sentrybox.handling", handling.label()),
                KeyValue::new("sentrybox.reason", handling.reason_label()),
            ],
            Self::Credential(fingerprint) => one("sentrybox.credential", fingerprint.to_string().into()),
            Self::Demand(demand) => one("sentrybox.demand", demand.into()),
            Self::Collapsed => one("sentrybox.collapsed", true.into()),
            Self::Hold(hold) => one("sentrybox.hold", hold.label().into()),
            Self::Failure(way) => one("error.type", way.into()),
        }
    }
}

/// Returns a method by its name, as it is told to operators: one that nobody knows may be any word of the client's.
pub fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 10] =
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_nobody_knows_is_not_repeated() {
        for (method, expected) in
            [("GET", "GET"), ("DELETE", "DELETE"), ("get", "_OTHER"), ("sntryu_canary", "_OTHER")]
        {
            let attributes = Fact::Method(&Method::from_bytes(method.as_bytes()).unwrap()).attributes();
            assert_eq!(attributes, [KeyValue::new("http.request.method", expected)]);
        }
    }

    #[test]
    fn a_path_without_a_route_has_none_to_name() {
        let route = RouteLabel::Template("/api/0/organizations/{organization}/".into());
        let attributes = Fact::Route(&route).attributes();
        assert_eq!(attributes, [KeyValue::new("http.route", "/api/0/organizations/{organization}/")]);
        assert_eq!(Fact::Route(&RouteLabel::Other).attributes(), []);
    }
}

//! Decides through which proxy a connection goes, from the conventional environment variables.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in lower case first as in curl. https upstreams go
//! through a CONNECT tunnel; for http ones the proxy gets the absolute form, because many proxies tunnel to port 443
//! only. Nothing is exempt but what `NO_PROXY` names, loopback included.
//!
//! Invariants: a proxy's password is never printed; a proxy that cannot be used is an error, never ignored.
//! Not here: reading the environment (the caller hands it in), connecting (`connector`).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use crate::upstream::error::UpstreamSetupError;

/// The variables of the environment that name proxies.
#[derive(Clone, Default)]
pub struct ProxyEnvironment {
    https: String,
    http: String,
    all: String,
    none: String,
}

impl ProxyEnvironment {
    /// Reads the variables through `lookup`, which is `|name| std::env::var(name).ok()` outside tests.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&str; 2]| {
            names.into_iter().filter_map(lookup).find(|value| !value.trim().is_empty()).unwrap_or_default()
        };
        Self {
            https: first(["https_proxy", "HTTPS_PROXY"]),
            http: first(["http_proxy", "HTTP_PROXY"]),
            all: first(["all_proxy", "ALL_PROXY"]),
            none: first(["no_proxy", "NO_PROXY"]),
        }
    }
}

impl fmt::Debug for ProxyEnvironment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &str| if value.is_empty() { "" } else { "[redacted]" };
        formatter
            .debug_struct("ProxyEnvironment")
            .field("https", &shown(&self.https))
            .field("http", &shown(&self.http))
            .field("all", &shown(&self.all))
            .field("none", &self.none)
            .finish()
    }
}

/// How to get to a destination.
#[derive(Debug, Clone)]
pub enum Route {
    /// Straight.
    Direct,
    /// Through a proxy that gets whole requests in absolute form ([RFC 9112 §3.2.2]).
    ///
    /// [RFC 9112 §3.2.2]: https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2
    Forward(Intercept),
    /// Through a tunnel that a proxy opens on CONNECT ([RFC 9110 §9.3.6]).
    ///
    /// [RFC 9110 §9.3.6]: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6
    Tunnel(Intercept),
}

/// The proxies to use, checked.
#[derive(Debug, Clone)]
pub struct Proxies(Arc<Matcher>);

impl Proxies {
    /// Checks what the environment names.
    ///
    /// # Errors
    ///
    /// When a proxy's URL is none, or of a kind that is not spoken here (SOCKS).
    pub fn new(environment: &ProxyEnvironment) -> Result<Self, UpstreamSetupError> {
        check("HTTPS_PROXY", &environment.https)?;
        check("HTTP_PROXY", &environment.http)?;
        check("ALL_PROXY", &environment.all)?;
        let matcher = Matcher::builder()
            .https(environment.https.clone())
            .http(environment.http.clone())
            .all(environment.all.clone())
            .no(environment.none.clone())
            .build();
        Ok(Self(Arc::new(matcher)))
    }

    /// Returns how to get to a destination.
    pub fn route(&self, destination: &Uri) -> Route {
        if is_loopback(destination) {
            return Route::Direct;
        }
        match self.0.intercept(destination) {
            None => Route::Direct,
            Some(proxy) if destination.scheme() == Some(&Scheme::HTTP) => Route::Forward(proxy),
            Some(proxy) => Route::Tunnel(proxy),
        }
    }
}

/// Returns whether a destination is this very machine, which no proxy elsewhere can reach.
fn is_loopback(destination: &Uri) -> bool {
    let host = destination.host().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn check(variable: &'static str, value: &str) -> Result<(), UpstreamSetupError> {
    let anywhere = Uri::from_static("http://upstream.invalid/");
    let named = Matcher::builder().http(value.to_owned()).build().intercept(&anywhere);
    let is_usable = named.is_some_and(|proxy| matches!(proxy.uri().scheme_str(), Some("http" | "https")));
    if value.is_empty() || is_usable { Ok(()) } else { Err(UpstreamSetupError::Proxy { variable }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> ProxyEnvironment {
        ProxyEnvironment::read(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn check_route(variables: &[(&str, &str)], destination: &str, expected: &str) {
        let proxies = Proxies::new(&environment(variables)).unwrap();
        let route = match proxies.route(&destination.parse().unwrap()) {
            Route::Direct => "direct".to_owned(),
            Route::Forward(proxy) => format!("forward {}", proxy.uri()),
            Route::Tunnel(proxy) => format!("tunnel {}", proxy.uri()),
        };
        assert_eq!(route, expected, "{variables:?} {destination}");
    }

    #[test]
    fn what_is_on_this_machine_is_reached_straight() {
        let all = [("ALL_PROXY", "http://proxy.test:3128")];
        for destination in
            ["http://127.0.0.1:9/", "http://localhost/", "https://[::1]:9/", "http://127.9.9.9/"]
        {
            check_route(&all, destination, "direct");
        }
        check_route(&all, "http://10.0.0.1/", "forward http://proxy.test:3128/");
    }

    #[test]
    fn the_conventional_variables_are_honoured() {
        let both = [("HTTPS_PROXY", "http://proxy.test:3128"), ("HTTP_PROXY", "proxy.test:80")];
        check_route(&both, "https://sentry.io/", "tunnel http://proxy.test:3128/");
        check_route(&both, "http://sentry.test/", "forward http://proxy.test:80/");
        check_route(&[("ALL_PROXY", "https://all.test")], "https://sentry.io/", "tunnel https://all.test/");
        check_route(&[("HTTP_PROXY", "http://proxy.test")], "https://sentry.io/", "direct");
        check_route(
            &[("https_proxy", "http://a.test"), ("HTTPS_PROXY", "http://b.test")],
            "https://sentry.io/",
            "tunnel http://a.test/",
        );
        check_route(
            &[("https_proxy", ""), ("HTTPS_PROXY", "http://b.test")],
            "https://sentry.io/",
            "tunnel http://b.test/",
        );
        check_route(&[], "https://sentry.io/", "direct");
    }

    #[test]
    fn what_no_proxy_names_is_reached_straight() {
        let check = |none: &str, destination: &str, expected: &str| {
            check_route(&[("ALL_PROXY", "http://p.test"), ("NO_PROXY", none)], destination, expected);
        };
        check("sentry.io", "https://us.sentry.io/", "direct");
        check(".sentry.io, other.test", "https://us.sentry.io/", "direct");
        check("10.0.0.0/8", "http://10.0.0.1:9000/", "direct");
        check("*", "https://sentry.io/", "direct");
        check("entry.io", "https://sentry.io/", "tunnel http://p.test/");
        check("", "http://10.0.0.1:9000/", "forward http://p.test/");
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_that_does_not_show_it() {
        for value in ["socks5://user:hush@proxy.test", "not a proxy", "http://"] {
            let error = Proxies::new(&environment(&[("ALL_PROXY", value)])).unwrap_err();
            assert!(error.to_string().contains("ALL_PROXY"), "{value}");
            assert!(!format!("{error} {error:?}").contains("hush"));
        }
    }

    #[test]
    fn a_proxy_password_is_never_printed() {
        let environment = environment(&[("HTTPS_PROXY", "http://user:hush@proxy.test")]);
        let proxies = Proxies::new(&environment).unwrap();
        let route = proxies.route(&Uri::from_static("https://sentry.io/"));
        assert!(!format!("{environment:?} {proxies:?} {route:?}").contains("hush"));
    }
}

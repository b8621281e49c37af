//! Decides who may ask the admin listener for what.
//!
//! Three doors. The token, where one is set: whoever has it is an operator, as `Bearer`, or as the password that a browser
//! asks its user for. For what changes something: no request that a browser sends on behalf of another site (`Origin`,
//! `Sec-Fetch-Site`). For that, and for what tells who is served, where no token is set: no name that was made to point here
//! (DNS rebinding).
//!
//! Invariants: the token is compared in constant time, and never printed.
//! Not here: which endpoints are public (`admin`).

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, header, request};

use crate::config::Secret;

/// Why a request is not taken for an operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// A page of another site sent it.
    Site,
    /// It came under a name that anybody could have made to point here.
    Name,
}

impl Foreign {
    /// Returns what the client is told.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Site => "Requests on behalf of another site are refused",
            Self::Name => {
                "Without an admin token, this is answered only under localhost or an IP address as Host"
            }
        }
    }
}

/// Knows the token.
#[derive(Debug)]
pub struct Guard {
    token: Secret,
}

impl Guard {
    /// Creates the guard. An empty token means that none is needed.
    pub fn new(token: Secret) -> Self {
        Self { token }
    }

    /// Returns whether the request carries the token, or none is needed.
    pub fn knows(&self, fields: &HeaderMap) -> bool {
        if self.token.is_empty() {
            return true;
        }
        let mut values = fields.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let own = self.token.expose().as_bytes();
        match (after_scheme(value, b"Bearer "), after_scheme(value, b"Basic ")) {
            (Some(token), _) => verify_slices_are_equal(token, own).is_ok(),
            (None, Some(basic)) => {
                password(basic).is_some_and(|password| verify_slices_are_equal(&password, own).is_ok())
            }
            (None, None) => false,
        }
    }

    /// Refuses a request that a browser may have sent without its user's wish.
    pub fn refuse_foreign(&self, head: &request::Parts) -> Result<(), Foreign> {
        let own = own_authority(head);
        if let Some(site) = head.headers.get("sec-fetch-site")
            && site != "same-origin"
            && site != "none"
        {
            return Err(Foreign::Site);
        }
        for origin in head.headers.get_all(header::ORIGIN) {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            if !origin.is_some_and(|(_, authority)| own.as_ref().is_some_and(|own| own == authority)) {
                return Err(Foreign::Site);
            }
        }
        // What a browser has been given as a password it sends along whoever asks it to: then the page must say whose it is.
        let is_basic = |value| after_scheme(value, b"Basic ").is_some();
        if head.headers.get(header::AUTHORIZATION).is_some_and(is_basic)
            && !head.headers.contains_key(header::ORIGIN)
        {
            return Err(Foreign::Site);
        }
        self.refuse_strange_name(head)
    }

    /// Refuses to be read by a page of another site, which may be led here by a link at the most, or under a strange name.
    pub fn refuse_stranger(&self, head: &request::Parts) -> Result<(), Foreign> {
        let says = |name: &str, known: &str| head.headers.get(name).is_some_and(|value| value == known);
        let site = "sec-fetch-site";
        let is_own = !head.headers.contains_key(site) || says(site, "same-origin") || says(site, "none");
        let is_led_here = says("sec-fetch-mode", "navigate") && says("sec-fetch-dest", "document");
        if !is_own && !is_led_here {
            return Err(Foreign::Site);
        }
        self.refuse_strange_name(head)
    }

    /// Refuses a request under a name that anybody could have made to point here, where no token protects from that.
    fn refuse_strange_name(&self, head: &request::Parts) -> Result<(), Foreign> {
        if self.token.is_empty() && !own_authority(head).is_some_and(|own| is_fixed(&own)) {
            return Err(Foreign::Name);
        }
        Ok(())
    }
}

/// Returns what follows the name of an authentication scheme, which is compared without case ([RFC 9110 §11.1]).
///
/// [RFC 9110 §11.1]: https://www.rfc-editor.org/rfc/rfc9110#section-11.1
fn after_scheme<'a>(value: &'a HeaderValue, scheme: &[u8]) -> Option<&'a [u8]> {
    let (name, rest) = value.as_bytes().split_at_checked(scheme.len())?;
    name.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii())
}

/// Returns the password of Basic credentials ([RFC 7617 §2]); the name before it may be any.
///
/// [RFC 7617 §2]: https://www.rfc-editor.org/rfc/rfc7617#section-2
fn password(basic: &[u8]) -> Option<Vec<u8>> {
    let mut pair = BASE64_STANDARD.decode(basic).ok()?;
    let name = pair.iter().position(|byte| *byte == b':')?;
    pair.drain(..=name);
    Some(pair)
}

/// Returns the authority that the request came in on, if it names exactly one.
fn own_authority(head: &request::Parts) -> Option<Authority> {
    if let Some(authority) = head.uri.authority() {
        return Some(authority.clone());
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    Authority::try_from(host.as_bytes()).ok()
}

/// Returns whether nobody can make the name point elsewhere: an address, or `localhost` ([RFC 6761 §6.3]).
///
/// [RFC 6761 §6.3]: https://www.rfc-editor.org/rfc/rfc6761#section-6.3
fn is_fixed(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let has_user = authority.as_str().contains('@');
    !has_user && (host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok())
}

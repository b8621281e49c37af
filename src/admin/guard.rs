//! Decides who may ask the admin listener for what.
//!
//! Two doors. The token, where one is set: whoever has it is an operator. And for what changes something: no
//! request that a browser sends on behalf of another site, whether it comes as such (`Origin`, `Sec-Fetch-Site`) or
//! under a name that was made to point here (DNS rebinding).
//!
//! Invariants: the token is compared in constant time, and never printed.
//! Not here: which endpoints are public (`admin`).

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::uri::Authority;
use http::{HeaderMap, header, request};

use crate::config::Secret;

/// Why a request that would change something is not from an operator.
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
                "Without an admin token, changes are accepted only under localhost or an IP address as Host"
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
        let Some((scheme, token)) = value.as_bytes().split_at_checked(b"Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ")
            && verify_slices_are_equal(token.trim_ascii(), self.token.expose().as_bytes()).is_ok()
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
        if self.token.is_empty() && !own.is_some_and(|own| is_fixed(&own)) {
            return Err(Foreign::Name);
        }
        Ok(())
    }
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

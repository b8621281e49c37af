//! Where the client reached us: what goes into `Link`, `Location` and region URLs.
//!
//! The configured base wins; else it is the authority that this very request came in on. What a proxy in front says
//! (`Forwarded`, `X-Forwarded-*`) counts only from the networks of `listen.trusted_proxies`.
//!
//! Invariant: a base is made of harmless characters, has no userinfo, and is never stored, so that nobody can
//! poison anybody. Not here: rewriting (`links`).

use std::sync::Arc;

use http::Version;
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::uri::{Authority, Scheme};

use crate::admission::client::{Client, Networks};
use crate::config::Config;
use crate::handling::{Refusal, RefusalReason};
use crate::headers;
use crate::peer::{Channel, Peer};

/// Where clients reach this proxy: `scheme://authority`. Goes into `Link`, `Location` and region URLs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PublicBase(Arc<str>);

impl PublicBase {
    /// Returns the base as text, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns its scheme.
    pub fn scheme(&self) -> Scheme {
        let is_secure = self.0.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("https:"));
        if is_secure { Scheme::HTTPS } else { Scheme::HTTP }
    }

    fn of(scheme: &str, authority: &str) -> Self {
        Self(Arc::from(format!("{scheme}://{authority}")))
    }
}

/// How bases are found, fixed by the configuration.
#[derive(Debug)]
pub struct Bases {
    configured: Option<PublicBase>,
    trusted_proxies: Networks,
}

impl Bases {
    /// Takes `public_url` and `listen.trusted_proxies` from the configuration.
    pub fn new(config: &Config) -> Self {
        let public_url = config.public_url.trim_end_matches('/');
        Self {
            configured: (!public_url.is_empty()).then(|| PublicBase(Arc::from(public_url))),
            trusted_proxies: Networks::new(&config.listen.trusted_proxies),
        }
    }

    /// Returns the base of a request that comes from `peer`.
    ///
    /// # Errors
    /// When the request names no authority, more than one, or a broken one.
    pub fn of(&self, head: &Parts, peer: &Peer) -> Result<PublicBase, Refusal> {
        let named = authority(head)?;
        if let Some(base) = &self.configured {
            return Ok(base.clone());
        }
        let forwarded = if self.trusted_proxies.contain(Client::connected(peer)) {
            Forwarded::read(&head.headers)
        } else {
            Forwarded::default()
        };
        let scheme = forwarded.scheme.unwrap_or(match peer.channel {
            Channel::Plain => "http",
            Channel::Tls => "https",
        });
        match forwarded.host.as_deref() {
            Some(host) => Ok(PublicBase::of(scheme, checked_authority(host)?.as_str())),
            None => Ok(PublicBase::of(scheme, named.ok_or(NO_AUTHORITY)?.as_str())),
        }
    }
}

const NO_AUTHORITY: Refusal = Refusal::new(
    RefusalReason::BadAuthority,
    "The request needs exactly one Host field that names an authority.",
);

const FOREIGN_SCHEME: Refusal = Refusal::new(
    RefusalReason::BadAuthority,
    "The request target is a URL of a scheme that is neither http nor https.",
);

/// Returns the authority that the request names, if it names one ([RFC 9112 §3.2]).
///
/// [RFC 9112 §3.2]: https://www.rfc-editor.org/rfc/rfc9112#section-3.2
fn authority(head: &Parts) -> Result<Option<Authority>, Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    // "A server MUST respond with a 400 … to any HTTP/1.1 request message that lacks a Host header field and to any
    // request message that contains more than one Host header field line or a Host header field with an invalid
    // field value" (RFC 9112 §3.2).
    if hosts.next().is_some() || (host.is_none() && head.version == Version::HTTP_11) {
        return Err(NO_AUTHORITY);
    }
    let host =
        host.map(|host| host.to_str().map_err(|_| NO_AUTHORITY).and_then(checked_authority)).transpose()?;
    if head.uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Err(FOREIGN_SCHEME);
    }
    let Some(from_target) = head.uri.authority() else { return Ok(host) };
    let from_target = checked_authority(from_target.as_str())?;
    // In HTTP/2 the two must agree (RFC 9113 §8.3.1); in HTTP/1.1 the target wins over Host (RFC 9112 §3.2.2).
    match host {
        Some(host) if head.version == Version::HTTP_2 && host != from_target => Err(NO_AUTHORITY),
        Some(_) | None => Ok(Some(from_target)),
    }
}

/// Parses an authority without userinfo, made of characters that need no care wherever it is put.
fn checked_authority(text: &str) -> Result<Authority, Refusal> {
    let is_harmless =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    if !text.bytes().all(is_harmless) {
        return Err(NO_AUTHORITY);
    }
    let authority: Authority = text.parse().map_err(|_| NO_AUTHORITY)?;
    if authority.host().is_empty() { Err(NO_AUTHORITY) } else { Ok(authority) }
}

/// What a trusted proxy in front of us says about the client's side ([RFC 7239]).
///
/// [RFC 7239]: https://www.rfc-editor.org/rfc/rfc7239
#[derive(Debug, Default)]
struct Forwarded {
    scheme: Option<&'static str>,
    host: Option<String>,
}

impl Forwarded {
    /// Reads `Forwarded`, else `X-Forwarded-Proto` and `X-Forwarded-Host`; of a list the last member counts,
    /// which the trusted peer itself has added.
    fn read(fields: &HeaderMap) -> Self {
        if let Some(last) = headers::members(fields, &header::FORWARDED).last() {
            let parameter = |wanted: &str| {
                last.split(';').filter_map(|pair| pair.split_once('=')).find_map(|(name, value)| {
                    name.trim()
                        .eq_ignore_ascii_case(wanted)
                        .then(|| value.trim().trim_matches('"').to_owned())
                })
            };
            return Self { scheme: parameter("proto").as_deref().and_then(scheme), host: parameter("host") };
        }
        let last = |name: &'static str| headers::members(fields, &HeaderName::from_static(name)).last();
        Self {
            scheme: last("x-forwarded-proto").and_then(scheme),
            host: last("x-forwarded-host").map(str::to_owned),
        }
    }
}

fn scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| known.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use http::Request;

    use super::*;
    use crate::config::load;

    const PEER: Peer = Peer::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)), 7));

    fn bases(public_url: &str, trusted: &[&str]) -> Bases {
        let mut config = load::defaults();
        config.public_url = public_url.to_owned();
        config.listen.trusted_proxies = trusted.iter().map(|network| network.parse().unwrap()).collect();
        Bases::new(&config)
    }

    fn head(version: Version, target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(target);
        let by_name: BTreeMap<_, _> = fields.iter().enumerate().collect();
        for (name, value) in by_name.values() {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn base(bases: &Bases, fields: &[(&str, &str)]) -> Option<String> {
        let base = bases.of(&head(Version::HTTP_11, "/api/0/", fields), &PEER);
        base.ok().map(|base| base.as_str().to_owned())
    }

    #[test]
    fn the_base_is_the_authority_that_the_request_came_in_on() {
        let bases = bases("", &[]);
        let check = |fields: &[(&str, &str)], expected: Option<&str>| {
            assert_eq!(base(&bases, fields).as_deref(), expected, "{fields:?}");
        };
        check(&[("host", "other.example:8080")], Some("http://other.example:8080"));
        check(&[("host", "[::1]:9000")], Some("http://[::1]:9000"));
        check(&[], None);
        check(&[("host", "")], None);
        check(&[("host", "a.example"), ("host", "b.example")], None);
        check(&[("host", "user@a.example")], None);
        check(&[("host", "a.example/path")], None);
        check(&[("host", "a.example, b.example")], None);
        check(&[("host", "a\"><b")], None);
    }

    #[test]
    fn over_tls_the_base_is_https_and_a_trusted_neighbour_may_say_otherwise() {
        let of = |bases: &Bases, peer: &Peer, fields: &[(&str, &str)]| {
            let fields = [&[("host", "a.example")], fields].concat();
            let head = head(Version::HTTP_11, "/api/0/", &fields);
            bases.of(&head, peer).unwrap().as_str().to_owned()
        };
        let (strange, local) = (bases("", &[]), bases("", &["unix"]));
        let forwarded = &[("x-forwarded-proto", "https"), ("x-forwarded-host", "b.example")];
        assert_eq!(of(&strange, &PEER.over_tls(), &[]), "https://a.example");
        assert_eq!(of(&strange, &Peer::local(), forwarded), "http://a.example");
        assert_eq!(of(&local, &Peer::local(), forwarded), "https://b.example");
        assert_eq!(of(&local, &PEER, forwarded), "http://a.example");
    }

    #[test]
    fn rfc9112_3_2_2_the_target_wins_over_host_and_rfc9113_8_3_1_the_two_agree() {
        let bases = bases("", &[]);
        let of = |version, host| {
            let head = head(version, "http://target.example/api/0/", &[("host", host)]);
            bases.of(&head, &PEER).ok().map(|base| base.as_str().to_owned())
        };
        assert_eq!(of(Version::HTTP_11, "host.example").as_deref(), Some("http://target.example"));
        assert_eq!(of(Version::HTTP_2, "target.example").as_deref(), Some("http://target.example"));
        assert_eq!(of(Version::HTTP_2, "host.example"), None);
    }

    #[test]
    fn a_target_of_another_scheme_is_refused() {
        for (scheme, expected) in [("https", true), ("HTTP", true), ("ftp", false), ("ws", false)] {
            let head =
                head(Version::HTTP_11, &format!("{scheme}://a.example/api/0/"), &[("host", "a.example")]);
            assert_eq!(bases("", &[]).of(&head, &PEER).is_ok(), expected, "{scheme}");
        }
    }

    #[test]
    fn a_configured_base_wins_but_a_broken_host_is_still_refused() {
        let bases = bases("https://proxy.example/", &["10.0.0.0/8"]);
        let fields = [("host", "a.example"), ("x-forwarded-host", "b.example")];
        assert_eq!(base(&bases, &fields).as_deref(), Some("https://proxy.example"));
        assert_eq!(base(&bases, &[("host", "a b")]), None);
    }

    #[test]
    fn forwarded_fields_count_only_from_trusted_networks() {
        let fields = [("host", "a.example"), ("forwarded", "for=1.2.3.4;proto=https;host=\"b.example\"")];
        assert_eq!(base(&bases("", &[]), &fields).as_deref(), Some("http://a.example"));
        assert_eq!(base(&bases("", &["192.168.0.0/16"]), &fields).as_deref(), Some("http://a.example"));
        assert_eq!(base(&bases("", &["10.0.0.0/8"]), &fields).as_deref(), Some("https://b.example"));
    }

    #[test]
    fn a_trusted_proxy_is_known_by_its_address_although_the_listener_shows_it_as_ipv6() {
        let head = head(Version::HTTP_11, "/", &[("host", "a.example"), ("x-forwarded-host", "b.example")]);
        let base = bases("", &["10.0.0.0/8"]).of(&head, &Peer::new("[::ffff:10.1.2.3]:7".parse().unwrap()));
        assert_eq!(base.unwrap().as_str(), "http://b.example");
    }

    #[test]
    fn of_a_list_of_forwarded_members_the_trusted_peers_own_counts() {
        let trusting = bases("", &["10.0.0.0/8"]);
        let check = |fields: &[(&str, &str)], expected: Option<&str>| {
            assert_eq!(base(&trusting, fields).as_deref(), expected, "{fields:?}");
        };
        let host = ("host", "a.example");
        check(&[host, ("x-forwarded-host", "evil.example, b.example")], Some("http://b.example"));
        check(&[host, ("x-forwarded-proto", "http, HTTPS")], Some("https://a.example"));
        check(&[host, ("x-forwarded-proto", "gopher")], Some("http://a.example"));
        check(&[host, ("x-forwarded-host", "b.example/<>")], None);
    }
}

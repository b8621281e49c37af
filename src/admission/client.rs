//! Finds out which address a request comes from: its peer's, or the one that trusted proxies name. Pure.
//!
//! Each proxy on the way adds at the right end whom it heard from. From there back, the first that is not itself a trusted
//! proxy is the client; what stands further left is the client's own word, and worth nothing.
//!
//! Invariants: what a client writes never hides what a proxy added after it, readable or not; an IPv4 address is the same one
//! written as IPv6. Not here: who is served (`admission::access`), scheme and host (`admission::base`).

use std::net::IpAddr;

use http::HeaderValue;
use http::header::{self, HeaderMap, HeaderName};

use crate::config::listen::Neighbour;
use crate::peer::Peer;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Networks of either kind, and Unix domain sockets.
#[derive(Debug, Clone, Default)]
pub struct Networks(Vec<Neighbour>);

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// An address, never one of IPv4 that is written as IPv6.
    At(IpAddr),
    /// Somebody on a Unix domain socket.
    Local,
    /// Somebody whose address cannot be read.
    Unreadable,
}

impl Networks {
    /// Takes networks from the configuration.
    pub fn new(networks: &[Neighbour]) -> Self {
        Self(networks.to_vec())
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether one of them includes a client.
    pub fn contain(&self, client: Client) -> bool {
        let address = match client {
            Client::At(address) => Some(address),
            Client::Local => None,
            Client::Unreadable => return false,
        };
        self.0.iter().any(|neighbour| neighbour.includes(address))
    }
}

impl Client {
    /// Returns who is connected.
    pub fn connected(peer: &Peer) -> Self {
        peer.ip().map_or(Self::Local, |address| Self::At(address.to_canonical()))
    }
}

/// Returns where a request comes from, by each of the fields that speak of it. `peer` is who is connected.
pub fn clients_of(fields: &HeaderMap, peer: Client, trusted: &Networks) -> Vec<Client> {
    let named: Vec<_> = [(&header::FORWARDED, Parse::Forwarded), (&X_FORWARDED_FOR, Parse::Plain)]
        .into_iter()
        .filter(|(name, _)| fields.contains_key(*name))
        .map(|(name, parse)| client(fields, name, parse, (peer, trusted)))
        .collect();
    if named.is_empty() { vec![peer] } else { named }
}

/// How a member of a list names its address.
#[derive(Debug, Clone, Copy)]
enum Parse {
    /// As the parameter `for` ([RFC 7239 §5.2]).
    ///
    /// [RFC 7239 §5.2]: https://www.rfc-editor.org/rfc/rfc7239#section-5.2
    Forwarded,
    /// By itself.
    Plain,
}

/// Goes back along one field, as far as those who speak are trusted.
fn client(
    fields: &HeaderMap,
    name: &HeaderName,
    parse: Parse,
    (peer, trusted): (Client, &Networks),
) -> Client {
    let mut client = peer;
    // In bytes: what is no text must not take a whole line with it, to which a proxy has added.
    let members =
        fields.get_all(name).iter().rev().flat_map(|line: &HeaderValue| {
            line.as_bytes().rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii)
        });
    for member in members.filter(|member| !member.is_empty()) {
        if !trusted.contain(client) {
            break;
        }
        let member = std::str::from_utf8(member).ok();
        let address = member.and_then(|member| match parse {
            Parse::Forwarded => node(parameter(member)?),
            Parse::Plain => node(member),
        });
        client = address.map_or(Client::Unreadable, Client::At);
    }
    client
}

/// Returns the parameter `for` of a member of `Forwarded`.
fn parameter(member: &str) -> Option<&str> {
    let pairs = member.split(';').filter_map(|pair| pair.split_once('='));
    let mut values =
        pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).map(|(_, value)| value.trim());
    values.next().filter(|_| values.next().is_none())
}

/// Reads an address, with or without quotes, brackets and a port.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let host = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        // Without brackets, only an address of IPv4 can have a port.
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;

    fn networks(texts: &[&str]) -> Networks {
        Networks::new(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    fn at(text: &str) -> Client {
        Client::At(text.parse::<IpAddr>().unwrap().to_canonical())
    }

    #[test]
    fn an_ipv4_address_is_the_same_one_written_as_ipv6() {
        let check = |network: &str, inside: &str, is_inside: bool| {
            assert_eq!(networks(&[network]).contain(at(inside)), is_inside, "{inside} in {network}");
        };
        check("10.0.0.0/8", "10.1.2.3", true);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("::ffff:10.0.0.0/104", "10.1.2.3", true);
        check("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", true);
        check("::ffff:10.0.0.0/104", "11.1.2.3", false);
        check("10.1.2.3/32", "::ffff:a01:203", true);
        check("10.0.0.0/8", "::10.1.2.3", false);
        check("::/0", "10.1.2.3", false);
        check("0.0.0.0/0", "::1", false);
        check("fd00::/8", "fd12::1", true);
    }

    /// Asks through a proxy at 10.0.0.1; 10.0.0.0/24 are trusted.
    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: &[Option<&str>]) {
        let found = clients_of(&fields(pairs), at("::ffff:10.0.0.1"), &networks(&["10.0.0.0/24"]));
        let expected: Vec<_> = expected.iter().map(|text| text.map_or(Client::Unreadable, at)).collect();
        assert_eq!(found, expected, "{pairs:?}");
    }

    fn check_for(value: &str, expected: Option<&str>) {
        check(&[("x-forwarded-for", value)], &[expected]);
    }

    #[test]
    fn the_client_is_the_last_one_that_is_no_trusted_proxy() {
        check(&[], &[Some("10.0.0.1")]);
        check_for("192.0.2.7", Some("192.0.2.7"));
        check_for("203.0.113.9, 192.0.2.7", Some("192.0.2.7"));
        check_for("203.0.113.9, 192.0.2.7, 10.0.0.9", Some("192.0.2.7"));
        check_for("203.0.113.9, 10.0.0.7, 10.0.0.9", Some("203.0.113.9"));
        check_for("10.0.0.7, ::ffff:10.0.0.9", Some("10.0.0.7"));
        check_for("", Some("10.0.0.1"));
        check(&[("x-forwarded-for", "192.0.2.7"), ("x-forwarded-for", "10.0.0.9")], &[Some("192.0.2.7")]);
        check(&[("x-forwarded-for", "10.0.0.9"), ("x-forwarded-for", "192.0.2.7")], &[Some("192.0.2.7")]);
    }

    #[test]
    fn rfc7239_an_address_is_read_however_it_is_written() {
        for (value, expected) in [
            ("192.0.2.7:4711", Some("192.0.2.7")),
            ("\"192.0.2.7:4711\"", Some("192.0.2.7")),
            ("2001:db8::7", Some("2001:db8::7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            ("[2001:db8::7]:4711", Some("2001:db8::7")),
            ("unknown", None),
            ("_hidden", None),
            ("192.0.2", None),
            ("[2001:db8::7", None),
        ] {
            check_for(value, expected);
        }
        let forwarded = |value: &str, expected| check(&[("forwarded", value)], &[expected]);
        forwarded("for=203.0.113.9, For=\"[2001:db8::7]:4711\";proto=https", Some("2001:db8::7"));
        forwarded("proto=https; for=192.0.2.7", Some("192.0.2.7"));
        forwarded("for=192.0.2.7:_obfuscated", Some("192.0.2.7"));
        for odd in ["for=unknown", "for=_hidden", "proto=https", "for=192.0.2.7;for=10.0.0.9", "192.0.2.7"] {
            forwarded(odd, None);
        }
    }

    #[test]
    fn what_a_client_writes_hides_nothing_that_a_proxy_added() {
        check_for("unknown, 192.0.2.7", Some("192.0.2.7"));
        check(&[("forwarded", "for=\"x, for=192.0.2.7")], &[Some("192.0.2.7")]);
        let mut fields = HeaderMap::new();
        fields.append(X_FORWARDED_FOR, HeaderValue::from_bytes(b"\xff, 192.0.2.7").unwrap());
        let trusted = networks(&["10.0.0.0/24"]);
        assert_eq!(clients_of(&fields, at("10.0.0.1"), &trusted), [at("192.0.2.7")]);
        fields.insert(X_FORWARDED_FOR, HeaderValue::from_bytes(b"192.0.2.7, \xff").unwrap());
        assert_eq!(clients_of(&fields, at("10.0.0.1"), &trusted), [Client::Unreadable]);
    }

    #[test]
    fn somebody_on_a_unix_socket_is_a_proxy_where_the_operator_says_so() {
        let named = fields(&[("x-forwarded-for", "192.0.2.7")]);
        let found = |trusted: &[&str]| clients_of(&named, Client::Local, &networks(trusted));
        assert_eq!(found(&["10.0.0.0/24"]), [Client::Local]);
        assert_eq!(found(&["unix"]), [at("192.0.2.7")]);
        assert!(
            networks(&["unix"]).contain(Client::Local) && !networks(&["0.0.0.0/0"]).contain(Client::Local)
        );
    }

    #[test]
    fn where_two_fields_speak_neither_silences_the_other() {
        check(
            &[("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "192.0.2.7")],
            &[Some("203.0.113.9"), Some("192.0.2.7")],
        );
    }

    #[test]
    fn of_a_peer_that_is_not_trusted_nothing_else_is_believed() {
        let named = fields(&[("x-forwarded-for", "10.0.0.9"), ("forwarded", "for=10.0.0.9")]);
        let found = clients_of(&named, at("192.0.2.7"), &networks(&["10.0.0.0/24"]));
        assert!(found.iter().all(|client| *client == at("192.0.2.7")), "{found:?}");
    }
}

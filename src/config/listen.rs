//! `[listen]`: where clients reach the proxy, who is believed, and how much of everything a connection may take.
//!
//! Invariant: an address that was read can be listened on as far as its spelling shows.
//! Not here: clashes and ranges (`config::validate`), listening (`server`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::{IpNet, Ipv4Net};
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::size;

/// Longest path of a Unix domain socket, in bytes: what Linux takes, less a little for the name under which it is made.
const LONGEST_PATH: usize = 80;

/// Length of what comes before an IPv4 address that is written as IPv6, in bits.
const MAPPED_PREFIX: u8 = 96;

/// Where clients reach the proxy, and within which limits.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// Where it listens.
    pub address: ListenAddress,
    /// Where it listens besides.
    pub also: Vec<ListenAddress>,
    /// Who may connect to Unix domain sockets.
    pub unix_mode: UnixMode,
    /// Whose `Forwarded` and `X-Forwarded-*` fields count.
    pub trusted_proxies: Vec<Neighbour>,
    /// How long a new connection may stay silent, TLS included.
    #[serde(with = "humantime_serde")]
    pub first_byte_timeout: Duration,
    /// How long the head of a request may take once it has begun.
    #[serde(with = "humantime_serde")]
    pub header_read_timeout: Duration,
    /// How long a connection may idle between requests.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Longest request target, in bytes.
    pub max_target_bytes: usize,
    /// Most fields of a request.
    pub max_header_count: usize,
    /// Largest head of a request.
    #[serde(serialize_with = "size::serialize")]
    pub max_header_bytes: ByteSize,
    /// Largest body of a request.
    #[serde(serialize_with = "size::serialize")]
    pub max_body_bytes: ByteSize,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Most connections of one address at a time; 0 means any number.
    pub max_connections_per_peer: usize,
    /// Most requests that wait for upstream at a time.
    pub max_pending_requests: usize,
    /// How old a connection may become; zero means any age.
    #[serde(with = "humantime_serde")]
    pub max_connection_age: Duration,
    /// Most requests at a time on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Most requests that an HTTP/2 peer may take back in a second.
    pub max_resets_per_second: u32,
    /// The certificate of addresses that speak TLS.
    pub tls: TlsConfig,
}

impl ListenConfig {
    /// Returns every address, and the key that names it.
    pub fn addresses(&self) -> impl Iterator<Item = (String, &ListenAddress)> {
        let further = self.also.iter().enumerate().map(|(index, it)| (format!("listen.also.{index}"), it));
        std::iter::once(("listen.address".to_owned(), &self.address)).chain(further)
    }

    /// Returns whether any address speaks TLS.
    pub fn speaks_tls(&self) -> bool {
        self.addresses().any(|(_, address)| matches!(address, ListenAddress::Tls(_)))
    }
}

/// The certificate of addresses that speak TLS. The files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file of the certificate and those between it and its root.
    pub certificate_file: PathBuf,
    /// PEM file of its private key.
    pub key_file: PathBuf,
    /// PEM file of the roots of clients' certificates; empty means that none are asked for.
    pub client_ca_file: PathBuf,
}

/// Where to listen, and what is spoken there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// HTTP without TLS: `127.0.0.1:9000`.
    Plain(SocketAddr),
    /// HTTP over TLS: `tls:0.0.0.0:9443`.
    Tls(SocketAddr),
    /// HTTP without TLS on a Unix domain socket: `unix:/run/sentrybox/http.sock`.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Returns address and port, where it has one.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(address) | Self::Tls(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str =
            "an address such as \"127.0.0.1:9000\", \"tls:0.0.0.0:9443\" or \"unix:/run/sentrybox.sock\"";
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.len() {
                0 => Err(EXPECTED),
                1..=LONGEST_PATH if !path.ends_with('/') && !path.contains('\0') => {
                    Ok(Self::Unix(path.into()))
                }
                1..=LONGEST_PATH => Err("the path of a socket after \"unix:\""),
                _ => Err("a path of at most 80 bytes after \"unix:\""),
            };
        }
        let (address, kind): (_, fn(SocketAddr) -> Self) = match text.strip_prefix("tls:") {
            Some(address) => (address, Self::Tls),
            None => (text, Self::Plain),
        };
        address.parse().map(kind).map_err(|_| EXPECTED)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(address) => write!(formatter, "{address}"),
            Self::Tls(address) => write!(formatter, "tls:{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whoever may be connected: a network, or everybody who reaches our Unix domain sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    /// Whoever has an address of this network.
    Network(IpNet),
    /// Whoever came over a Unix domain socket.
    Unix,
}

impl Neighbour {
    /// Returns whether somebody with this address is meant; `None` is somebody on a Unix domain socket.
    pub fn includes(&self, address: Option<IpAddr>) -> bool {
        match (self, address) {
            // An IPv4 address that came over an IPv6 socket is an IPv4 address.
            (Self::Network(network), Some(address)) => network.contains(&address.to_canonical()),
            (Self::Unix, None) => true,
            (Self::Network(_), None) | (Self::Unix, Some(_)) => false,
        }
    }
}

impl FromStr for Neighbour {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        text.parse()
            .map(|network| Self::Network(canonical(network)))
            .map_err(|_| "a network such as \"10.0.0.0/8\", or \"unix\"")
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => write!(formatter, "{network}"),
            Self::Unix => formatter.write_str("unix"),
        }
    }
}

impl<'de> Deserialize<'de> for Neighbour {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl Serialize for Neighbour {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Returns a network of IPv4 that is written as IPv6 as what it is.
fn canonical(network: IpNet) -> IpNet {
    let prefix = network.prefix_len().checked_sub(MAPPED_PREFIX);
    match (network.addr().to_canonical(), prefix) {
        (IpAddr::V4(address), Some(prefix)) => Ipv4Net::new(address, prefix).map_or(network, IpNet::V4),
        (IpAddr::V4(_) | IpAddr::V6(_), _) => network,
    }
}

/// Permissions of a Unix domain socket, as `chmod` takes them. Whoever may write to it may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixMode(u32);

impl UnixMode {
    /// Returns the bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for UnixMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o777 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Self(bits)),
            Ok(_) | Err(_) => Err("permissions in octal, such as \"0660\""),
        }
    }
}

impl<'de> Deserialize<'de> for UnixMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl Serialize for UnixMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

/// Reads what is written as a text; what was expected instead is the error.
fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err = &'static str>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|expected| D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_what_is_spoken_there() {
        let check = |text: &str| text.parse::<ListenAddress>().unwrap();
        let address: SocketAddr = "[::1]:9443".parse().unwrap();
        assert_eq!(check("[::1]:9443"), ListenAddress::Plain(address));
        assert_eq!(check("tls:[::1]:9443"), ListenAddress::Tls(address));
        assert_eq!(check("unix:/run/s.sock"), ListenAddress::Unix("/run/s.sock".into()));
        for text in ["127.0.0.1:9000", "tls:[::1]:9443", "unix:run/s.sock"] {
            assert_eq!(check(text).to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_listened_on_is_no_address() {
        let long = format!("unix:/{}", "a".repeat(LONGEST_PATH));
        for text in
            ["", "localhost:9000", "tls:", "unix:", "unix:/run/", "unix:a\0b", "http:1.2.3.4:5", &long]
        {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_mode_is_octal_and_at_most_everything() {
        assert_eq!("0660".parse::<UnixMode>().map(UnixMode::bits), Ok(0o660));
        assert_eq!("777".parse::<UnixMode>().map(UnixMode::bits), Ok(0o777));
        for text in ["", "0888", "1777", "rw", "+660", "-1"] {
            assert!(text.parse::<UnixMode>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_ipv4_address_over_ipv6_is_in_its_ipv4_network() {
        let network: Neighbour = "10.0.0.0/8".parse().unwrap();
        assert!(network.includes(Some("::ffff:10.1.2.3".parse().unwrap())));
        assert!(network.includes(Some("10.1.2.3".parse().unwrap())));
        assert!(!network.includes(Some("11.1.2.3".parse().unwrap())) && !network.includes(None));
        assert!(
            Neighbour::Unix.includes(None) && !Neighbour::Unix.includes(Some("10.1.2.3".parse().unwrap()))
        );
    }
}

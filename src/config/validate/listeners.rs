//! What the addresses and limits of the listeners must satisfy, alone and together.
//!
//! Invariant: pure; every rule that is broken is found. Not here: an address's own spelling (`config::listen`).

use std::path::PathBuf;

use bytesize::ByteSize;

use crate::config::Config;
use crate::config::listen::{ListenAddress, ListenConfig};
use crate::config::validate::Finding;

/// Bounds of `listen.max_header_bytes`: what a browser with its cookies may need, and what hyper's buffer surely holds.
const MIN_HEADER_BYTES: ByteSize = ByteSize::kib(8);
const MAX_HEADER_BYTES: ByteSize = ByteSize::kib(256);
/// Largest `listen.max_header_count`.
const MAX_HEADER_COUNT: usize = 1000;
/// Largest `listen.max_concurrent_streams`.
const MAX_STREAMS: u32 = 10_000;
/// Largest number of connections of one peer.
const MAX_PER_PEER: usize = 1_000_000;

/// Finds what is wrong with the listeners.
pub fn find(config: &Config, findings: &mut Vec<Finding>) {
    clashes(config, findings);
    tls(&config.listen, findings);
    limits(&config.listen, findings);
    let admin = config.admin.address;
    if !admin.ip().to_canonical().is_loopback() && config.admin.token.is_empty() {
        let expected =
            format!("expected a token or token_file, because admin.address {admin} is not loopback");
        findings.push(Finding::of(&["admin.token", "admin.token_file", "admin.address"], expected));
    }
}

/// Finds addresses that cannot be listened on at the same time. Of two, the later one is to be changed.
fn clashes(config: &Config, findings: &mut Vec<Finding>) {
    let clients = config.listen.addresses().map(|(key, address)| (key, address.clone()));
    let others =
        [("admin.address", Some(config.admin.address)), ("webhooks.address", config.webhooks.address)];
    let others = others
        .into_iter()
        .filter_map(|(key, address)| Some((key.to_owned(), ListenAddress::Plain(address?))));
    let all: Vec<_> = clients.chain(others).collect();
    for (index, (key, address)) in all.iter().enumerate() {
        for (earlier, other) in all.iter().take(index) {
            if is_clash(address, other) {
                let expected =
                    format!("expected addresses that differ, found {key} {address} and {earlier} {other}");
                findings.push(Finding::of(&[key, earlier], expected));
            }
        }
    }
}

/// Returns whether both cannot be listened on at the same time. Port 0 is any free port.
fn is_clash(left: &ListenAddress, right: &ListenAddress) -> bool {
    let (left, right) = match (left.socket_address(), right.socket_address()) {
        (Some(left), Some(right)) => (left, right),
        (None, None) => return left == right,
        (Some(_), None) | (None, Some(_)) => return false,
    };
    let is_everywhere = left.ip().is_unspecified() || right.ip().is_unspecified();
    left.port() == right.port() && left.port() != 0 && (left.ip() == right.ip() || is_everywhere)
}

/// Finds a certificate that is missing, or that nobody would see.
fn tls(listen: &ListenConfig, findings: &mut Vec<Finding>) {
    let files = [
        ("listen.tls.certificate_file", &listen.tls.certificate_file),
        ("listen.tls.key_file", &listen.tls.key_file),
    ];
    let is_given = |path: &PathBuf| !path.as_os_str().is_empty();
    if listen.speaks_tls() {
        for (key, _) in files.into_iter().filter(|(_, path)| !is_given(path)) {
            let expected =
                "expected the path of a PEM file, because an address begins with \"tls:\"".to_owned();
            findings.push(Finding::of(&[key, "listen.address", "listen.also"], expected));
        }
        return;
    }
    let all = files.into_iter().chain([("listen.tls.client_ca_file", &listen.tls.client_ca_file)]);
    for (key, _) in all.filter(|(_, path)| is_given(path)) {
        let expected =
            "expected an address that begins with \"tls:\", because a file for TLS is given".to_owned();
        findings.push(Finding::of(&["listen.address", "listen.also", key], expected));
    }
}

fn limits(listen: &ListenConfig, findings: &mut Vec<Finding>) {
    let mut expect = |is_kept: bool, keys: &[&str], expected: String| {
        if !is_kept {
            findings.push(Finding::of(keys, expected));
        }
    };
    expect(
        listen.header_read_timeout <= listen.idle_timeout,
        &["listen.header_read_timeout", "listen.idle_timeout"],
        "expected listen.header_read_timeout to be at most listen.idle_timeout".to_owned(),
    );
    expect(
        (1..=MAX_HEADER_COUNT).contains(&listen.max_header_count),
        &["listen.max_header_count"],
        format!("expected a number from 1 to {MAX_HEADER_COUNT}, found {}", listen.max_header_count),
    );
    expect(
        (MIN_HEADER_BYTES..=MAX_HEADER_BYTES).contains(&listen.max_header_bytes),
        &["listen.max_header_bytes"],
        format!("expected a size from \"8KiB\" to \"256KiB\", found \"{}\"", listen.max_header_bytes),
    );
    expect(
        (1..=MAX_STREAMS).contains(&listen.max_concurrent_streams),
        &["listen.max_concurrent_streams"],
        format!("expected a number from 1 to {MAX_STREAMS}, found {}", listen.max_concurrent_streams),
    );
    expect(
        listen.max_connections_per_peer <= MAX_PER_PEER,
        &["listen.max_connections_per_peer"],
        format!("expected a number from 0 to {MAX_PER_PEER}, found {}", listen.max_connections_per_peer),
    );
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::config::Secret;
    use crate::config::listen::TlsConfig;
    use crate::config::validate::tests::check;

    const MIN_WEBHOOK_SECRET: usize = 16;
    const MIN_TOKEN: usize = 16;

    #[test]
    fn an_admin_listener_that_others_can_reach_needs_a_token() {
        let open = |config: &mut Config| config.admin.address = SocketAddr::from(([0, 0, 0, 0], 9001));
        check(open, &["admin.token"]);
        let guarded = |config: &mut Config| {
            open(config);
            config.admin.token = Secret::new("a".repeat(MIN_TOKEN));
        };
        check(guarded, &[]);
    }

    #[test]
    fn the_listeners_have_addresses_of_their_own() {
        check(
            |config| config.admin.address = config.listen.address.socket_address().unwrap(),
            &["admin.address"],
        );
        let everywhere = |config: &mut Config| {
            config.listen.address =
                ListenAddress::Plain(SocketAddr::from(([0, 0, 0, 0], config.admin.address.port())));
        };
        check(everywhere, &["admin.address"]);
        let any_port = |config: &mut Config| {
            config.listen.address = ListenAddress::Plain(SocketAddr::from(([127, 0, 0, 1], 0)));
            config.admin.address.set_port(0);
        };
        check(any_port, &[]);
    }

    #[test]
    fn webhooks_need_a_secret_of_some_length_and_an_address_that_nobody_has() {
        let configured = |secret: String, address: Option<SocketAddr>| {
            move |config: &mut Config| {
                config.webhooks.secret = Secret::new(secret);
                config.webhooks.address = address;
            }
        };
        let own = |port: u16| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        check(configured("x".repeat(MIN_WEBHOOK_SECRET), own(9002)), &[]);
        check(configured("x".repeat(MIN_WEBHOOK_SECRET), None), &[]);
        check(configured("short".to_owned(), None), &["webhooks.secret"]);
        check(configured(String::new(), own(9002)), &["webhooks.secret"]);
        for port in [9000, 9001] {
            check(configured("x".repeat(MIN_WEBHOOK_SECRET), own(port)), &["webhooks.address"]);
        }
    }

    #[test]
    fn every_pair_of_addresses_is_compared() {
        let also = |texts: &[&str]| {
            let addresses: Vec<ListenAddress> = texts.iter().map(|text| text.parse().unwrap()).collect();
            move |config: &mut Config| config.listen.also = addresses
        };
        check(also(&["127.0.0.1:9003", "unix:/run/s.sock", "127.0.0.2:9000"]), &[]);
        check(also(&["127.0.0.1:9000"]), &["listen.also.0"]);
        check(also(&["unix:/run/s.sock", "unix:/run/s.sock"]), &["listen.also.1"]);
        check(also(&["0.0.0.0:9001"]), &["admin.address"]);
    }

    #[test]
    fn a_certificate_is_given_where_it_is_shown_and_only_there() {
        let tls = |address: &str, [certificate, key, roots]: [&str; 3]| {
            let address: ListenAddress = address.parse().unwrap();
            let [certificate_file, key_file, client_ca_file] = [certificate, key, roots].map(Into::into);
            move |config: &mut Config| {
                config.listen.address = address;
                config.listen.tls = TlsConfig { certificate_file, key_file, client_ca_file };
            }
        };
        check(tls("tls:127.0.0.1:9000", ["a", "b", ""]), &[]);
        check(
            tls("tls:127.0.0.1:9000", ["", "", "c"]),
            &["listen.tls.certificate_file", "listen.tls.key_file"],
        );
        check(tls("127.0.0.1:9000", ["a", "", ""]), &["listen.address"]);
    }

    #[test]
    fn limits_have_limits() {
        check(|config| config.listen.max_header_bytes = ByteSize::kib(7), &["listen.max_header_bytes"]);
        check(|config| config.listen.max_header_bytes = ByteSize::kib(257), &["listen.max_header_bytes"]);
        check(|config| config.listen.max_header_count = 0, &["listen.max_header_count"]);
        check(|config| config.listen.max_concurrent_streams = 0, &["listen.max_concurrent_streams"]);
        check(
            |config| config.listen.max_connections_per_peer = usize::MAX,
            &["listen.max_connections_per_peer"],
        );
        check(|config| config.listen.max_resets_per_second = 0, &["listen.max_resets_per_second"]);
        check(
            |config| config.listen.header_read_timeout = Duration::from_mins(2),
            &["listen.header_read_timeout"],
        );
        check(|config| config.listen.max_connection_age = Duration::MAX, &["listen.max_connection_age"]);
    }
}

//! Decides who is served at all: by the network that a client is in, by the secret that a deployment's clients share, by the
//! credential. Pure.
//!
//! Each of these doors stands open unless the operator has shut it; the rules may be changed while the proxy runs.
//!
//! Invariants: a request is judged by one state of the rules from start to end, and before anything is looked up or sent; the
//! shared secret's field never gets past here, whether it is right, wrong or not asked for, and is compared in constant time;
//! no refusal tells a secret, or who is served. Not here: whether a credential is any good, which only upstream knows.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, Digest, SHA256};
use http::header::{self, HeaderMap, HeaderName};

use crate::admission::Admission;
use crate::admission::client::{Client, Networks, clients_of};
use crate::config::access::AccessConfig;
use crate::config::{Config, Secret};
use crate::credential::{Credential, CredentialKeys, CredentialPartition, Fingerprint};
use crate::handling::{Refusal, RefusalReason};
use crate::peer::Peer;

/// The field of the shared secret, where none is named.
const SHARED_SECRET: HeaderName = HeaderName::from_static("x-sentrybox-secret");

/// Who is served at all, as it is at the moment.
#[derive(Debug)]
pub struct Access {
    rules: RwLock<Arc<AccessRules>>,
    trusted_proxies: Networks,
}

impl Access {
    /// Takes the rules from the configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            rules: RwLock::new(Arc::new(AccessRules::new(&config.access))),
            trusted_proxies: Networks::new(&config.listen.trusted_proxies),
        }
    }

    /// Goes on as configured anew: from the next request on.
    pub fn apply(&self, config: &AccessConfig) {
        let rules = Arc::new(AccessRules::new(config));
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Lets a request in by where it comes from and by the shared secret, which it takes out of the fields. Returns the rules
    /// by which its credential is to be judged.
    ///
    /// # Errors
    /// It comes from a network that is not served, or does not know the secret.
    pub fn enter(&self, fields: &mut HeaderMap, peer: &Peer) -> Result<Arc<AccessRules>, Refusal> {
        let rules = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        let shared = rules.take_shared_secret(fields);
        if !rules.networks.is_empty() {
            for client in clients_of(fields, Client::connected(peer), &self.trusted_proxies) {
                rules.check_network(client)?;
            }
        }
        rules.check_shared_secret(shared)?;
        Ok(rules)
    }
}

impl Admission {
    /// Returns who is served at all.
    pub fn access(&self) -> &Access {
        &self.access
    }
}

/// One state of the rules.
#[derive(Debug)]
pub struct AccessRules {
    networks: Networks,
    credentials: HashSet<Fingerprint>,
    shared_secret: Option<SharedSecret>,
    field: HeaderName,
}

/// What a request's field of the shared secret holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Nothing,
    Wrong,
    Right,
}

impl AccessRules {
    fn new(config: &AccessConfig) -> Self {
        Self {
            networks: Networks::new(&config.networks),
            // What is no fingerprint, and no name, was refused with the configuration.
            credentials: config.credentials.iter().filter_map(|text| Fingerprint::parse(text)).collect(),
            shared_secret: SharedSecret::new(&config.shared_secret),
            field: HeaderName::from_bytes(config.shared_secret_header.as_bytes()).unwrap_or(SHARED_SECRET),
        }
    }

    /// Takes the shared secret's field out. Two are none: whoever put one in front of the other may be somebody else.
    fn take_shared_secret(&self, fields: &mut HeaderMap) -> Shown {
        let mut values = fields.get_all(&self.field).iter();
        let shown = match (values.next(), values.next(), &self.shared_secret) {
            (None, _, _) => Shown::Nothing,
            (Some(value), None, Some(own)) if own.is(value.as_bytes()) => Shown::Right,
            (Some(_), _, _) => Shown::Wrong,
        };
        fields.remove(&self.field);
        // Whoever has renamed the field may have clients that do not know it yet.
        fields.remove(SHARED_SECRET);
        shown
    }

    fn check_network(&self, client: Client) -> Result<(), Refusal> {
        let detail = match client {
            client if self.networks.contain(client) => return Ok(()),
            Client::Local => {
                "This proxy does not serve requests over its Unix domain socket. Ask its operator to add \
                              \"unix\" to access.networks."
                    .to_owned()
            }
            Client::At(address) => format!(
                "This proxy does not serve requests from {address}. Ask its operator to add the network to \
                 access.networks."
            ),
            Client::Unreadable => {
                "This proxy serves certain networks only (access.networks), and the proxy in front of \
                                   it does not tell a readable address of this client."
                    .to_owned()
            }
        };
        Err(refusal(RefusalReason::NetworkNotServed, detail))
    }

    fn check_shared_secret(&self, shown: Shown) -> Result<(), Refusal> {
        let found = match (&self.shared_secret, shown) {
            (None, _) | (Some(_), Shown::Right) => return Ok(()),
            (Some(_), Shown::Nothing) => "has none",
            (Some(_), Shown::Wrong) => "has another one",
        };
        let detail = format!(
            "This proxy serves only whoever sends the shared secret of its deployment in the field {}, and this request \
             {found}. Ask its operator for it.",
            self.field
        );
        Err(refusal(RefusalReason::SharedSecret, detail))
    }

    /// Lets a request in by its credential, whose partition this is.
    ///
    /// # Errors
    /// The credential is not served.
    pub fn check_credential(
        &self,
        keys: &CredentialKeys,
        partition: CredentialPartition,
    ) -> Result<(), Refusal> {
        if self.credentials.is_empty() {
            return Ok(());
        }
        let detail = match keys.fingerprint(partition) {
            Some(fingerprint) if self.credentials.contains(&fingerprint) => return Ok(()),
            Some(fingerprint) => format!(
                "This proxy does not serve this token; its fingerprint is {fingerprint}. Ask its operator to add it to \
                 access.credentials."
            ),
            None => "This proxy serves certain tokens only (access.credentials), and this request has none. Send one as \
                     `Authorization: Bearer …`."
                .to_owned(),
        };
        Err(refusal(RefusalReason::CredentialNotServed, detail))
    }
}

/// Takes the credential out of the fields.
pub fn take_credential(fields: &mut HeaderMap) -> Result<Option<Credential>, Refusal> {
    if fields.get_all(header::AUTHORIZATION).iter().nth(1).is_some() {
        return Err(Refusal::new(
            RefusalReason::BadCredential,
            "The request carries more than one Authorization field.",
        ));
    }
    Ok(fields.remove(header::AUTHORIZATION).and_then(Credential::from_field))
}

fn refusal(reason: RefusalReason, detail: String) -> Refusal {
    Refusal { reason, detail: detail.into(), retry_after: None }
}

/// A secret that can be recognized, and not read. As a digest, its length does not show in how long comparing takes.
struct SharedSecret(Digest);

impl SharedSecret {
    fn new(secret: &Secret) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(digest::digest(&SHA256, secret.expose().as_bytes())))
    }

    fn is(&self, value: &[u8]) -> bool {
        let shown = digest::digest(&SHA256, value);
        verify_slices_are_equal(shown.as_ref(), self.0.as_ref()).is_ok()
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::admission::BodyFraming;
    use crate::config::load;
    use crate::testing::{ID, TOKEN, admission, fields, head};

    const CANARY: &str = "canary-canary-canary";
    const PROJECTS: &str = "/api/0/organizations/acme/projects/";

    /// Says what becomes of a request from an address: `served`, or `label: detail`.
    fn verdict(config: &Config, from: &str, (line, pairs): (&str, &[(&str, &str)])) -> String {
        let peer = Peer::new(SocketAddr::new(from.parse().unwrap(), 7));
        match admission(config).admit(head(line, pairs), BodyFraming::Absent, peer, ID) {
            Ok(request) => {
                assert!(!format!("{request:?}").contains("canary"), "{request:?}");
                "served".to_owned()
            }
            Err(refusal) => {
                assert_eq!(refusal.reason.status(), http::StatusCode::FORBIDDEN, "{refusal:?}");
                assert!(!format!("{refusal:?}").contains("canary"), "{refusal:?}");
                format!("{}: {}", refusal.reason, refusal.detail)
            }
        }
    }

    fn config(change: impl FnOnce(&mut AccessConfig)) -> Config {
        let mut config = load::defaults();
        config.listen.trusted_proxies = vec!["10.0.0.1/32".parse().unwrap()];
        change(&mut config.access);
        config
    }

    /// Returns requests of every kind: each must be judged.
    fn kinds() -> Vec<String> {
        let reads = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PROPFIND"];
        let paths = [PROJECTS, "/api/0/issues/1/", "/api/0/organizations/acme/chunk-upload/"];
        reads.iter().flat_map(|read| paths.iter().map(move |path| format!("{read} {path}"))).collect()
    }

    #[test]
    fn by_default_everybody_is_served() {
        let config = config(|_| {});
        for line in kinds() {
            for pairs in [&[TOKEN][..], &[], &[("x-sentrybox-secret", CANARY)]] {
                assert_eq!(verdict(&config, "192.0.2.7", (&line, pairs)), "served", "{line}");
            }
        }
    }

    #[test]
    fn of_networks_that_are_listed_only_clients_within_are_served() {
        let config = config(|access| {
            access.networks = ["192.0.2.0/24", "fd00::/8"].map(|it| it.parse().unwrap()).to_vec();
        });
        for line in kinds() {
            let of = |from: &str, pairs: &[(&str, &str)]| verdict(&config, from, (&line, pairs));
            let refused = "network-not-served: This proxy does not serve requests from 203.0.113.9. Ask its operator to \
                           add the network to access.networks.";
            assert_eq!(of("192.0.2.7", &[TOKEN]), "served");
            assert_eq!(of("::ffff:192.0.2.7", &[]), "served");
            assert_eq!(of("fd00::1", &[TOKEN]), "served");
            assert_eq!(of("203.0.113.9", &[TOKEN]), refused);
            assert_eq!(of("203.0.113.9", &[("x-forwarded-for", "192.0.2.7")]), refused);
            assert_eq!(of("10.0.0.1", &[("x-forwarded-for", "192.0.2.7")]), "served");
            assert_eq!(of("10.0.0.1", &[("x-forwarded-for", "192.0.2.7, 203.0.113.9")]), refused);
            let both = [("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "203.0.113.9")];
            assert_eq!(
                of("10.0.0.1", &both),
                refused,
                "the client has forged the field that the proxy does not set"
            );
            assert!(of("10.0.0.1", &[TOKEN]).contains("10.0.0.1"), "the proxy itself");
            assert!(of("10.0.0.1", &[("x-forwarded-for", "unknown")]).contains("readable address"));
        }
    }

    #[test]
    fn a_shared_secret_is_asked_of_everybody_once_and_told_to_nobody() {
        let config = config(|access| access.shared_secret = Secret::new(CANARY.to_owned()));
        let name = "x-sentrybox-secret";
        for line in kinds() {
            let of = |pairs: &[(&str, &str)]| verdict(&config, "192.0.2.7", (&line, pairs));
            assert_eq!(of(&[(name, CANARY)]), "served");
            let refused = "shared-secret: This proxy serves only whoever sends the shared secret of its deployment in \
                           the field x-sentrybox-secret, and this request has";
            assert!(of(&[TOKEN]).starts_with(&format!("{refused} none")));
            for wrong in ["", "canary-canary-canarY", "canary-canary-canary-1", "canary"] {
                assert!(
                    of(&[TOKEN, (name, wrong)]).starts_with(&format!("{refused} another one")),
                    "{wrong}"
                );
            }
            for two in [[CANARY, CANARY], [CANARY, "x"], ["x", CANARY]] {
                assert!(of(&two.map(|value| (name, value))).starts_with(refused), "{two:?}");
            }
        }
    }

    #[test]
    fn the_field_of_the_shared_secret_never_goes_on() {
        let renamed =
            |access: &mut AccessConfig| "X-Gateway-Key".clone_into(&mut access.shared_secret_header);
        let asked = |access: &mut AccessConfig| access.shared_secret = Secret::new(CANARY.to_owned());
        let configs = [config(|_| {}), config(renamed), config(asked)];
        for config in &configs {
            let pairs = [("x-sentrybox-secret", CANARY), ("x-gateway-key", "kept-or-taken"), TOKEN];
            let peer = Peer::new(SocketAddr::from(([192, 0, 2, 7], 7)));
            let head = head(&format!("GET {PROJECTS}"), &pairs);
            let request = admission(config).admit(head, BodyFraming::Absent, peer, ID).unwrap();
            assert!(!request.fields().contains_key("x-sentrybox-secret"));
            let is_own = config.access.shared_secret_header == "X-Gateway-Key";
            assert_eq!(request.fields().contains_key("x-gateway-key"), !is_own);
        }
    }

    #[test]
    fn of_credentials_that_are_listed_only_these_are_served_in_any_spelling() {
        let keys = CredentialKeys::derive(&[7; 32]);
        let fingerprint = |value: &'static str| {
            let credential = Credential::from_text(value.as_bytes());
            keys.fingerprint(keys.partition(credential.as_ref())).unwrap().to_string()
        };
        let config = config(|access| access.credentials = vec![fingerprint(TOKEN.1).to_uppercase()]);
        for line in kinds() {
            let of = |pairs: &[(&str, &str)]| verdict(&config, "192.0.2.7", (&line, pairs));
            assert_eq!(of(&[TOKEN]), "served");
            assert_eq!(of(&[("authorization", "bearer   sntryu_one ")]), "served");
            let refused = format!(
                "credential-not-served: This proxy does not serve this token; its fingerprint is {}. Ask its operator to \
                 add it to access.credentials.",
                fingerprint("sntryu_canary")
            );
            assert_eq!(of(&[("authorization", "Bearer sntryu_canary")]), refused);
            for none in [&[][..], &[("authorization", " ")]] {
                assert!(of(none).contains("this request has none"), "{none:?}");
            }
        }
    }

    #[test]
    fn what_is_configured_anew_holds_from_the_next_request_on() {
        let access = Access::new(&config(|_| {}));
        let peer = Peer::new(SocketAddr::from(([192, 0, 2, 7], 7)));
        let before = access.enter(&mut HeaderMap::new(), &peer).unwrap();
        let mut other = load::defaults().access;
        other.shared_secret = Secret::new(CANARY.to_owned());
        other.credentials = vec!["0123456789abcdef".to_owned()];
        access.apply(&other);
        assert!(access.enter(&mut HeaderMap::new(), &peer).is_err());
        let mut knowing = fields(&[("x-sentrybox-secret", CANARY)]);
        let after = access.enter(&mut knowing, &peer).unwrap();
        let (keys, nobody) = (CredentialKeys::derive(&[7; 32]), CredentialPartition::ANONYMOUS);
        assert_eq!(
            before.check_credential(&keys, nobody),
            Ok(()),
            "who had entered is judged by what held then"
        );
        assert!(after.check_credential(&keys, nobody).is_err());
        access.apply(&load::defaults().access);
        assert!(access.enter(&mut HeaderMap::new(), &peer).is_ok());
    }
}

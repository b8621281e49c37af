//! The configuration as plain data: every option, its type, and nothing that acts.
//!
//! [`load`] reads it (embedded defaults, file, environment, command line) and reports every problem at once.
//! What each option means, its unit, default and environment name stand in `config/default.toml`, which is
//! embedded; a test holds that file and these types together, so the fields here carry one sentence each.
//!
//! Invariants: a [`Config`] that came out of [`load::load`] has passed validation; no secret in it can be printed.
//! Not here: anything of ours. Rooms take their own section.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::config::access::AccessConfig;
use crate::config::budget::BudgetConfig;
use crate::config::cache::CacheConfig;
use crate::config::listen::ListenConfig;
use crate::config::log::LogConfig;
use crate::config::traces::TracesConfig;
use crate::config::webhooks::WebhooksConfig;

pub mod access;
pub mod budget;
pub mod cache;
pub mod control;
pub mod describe;
pub mod difference;
pub mod files;
pub mod layer;
pub mod listen;
pub mod load;
pub mod log;
pub mod shape;
pub mod size;
pub mod traces;
pub mod validate;
pub mod webhooks;

/// The whole configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients reach this proxy: `scheme://authority`; empty means the authority a request came in on.
    pub public_url: String,
    /// Key for partitions and fingerprints; empty means a random one per process.
    pub secret: Secret,
    /// File that holds the secret instead.
    pub secret_file: PathBuf,
    /// Which paths outside `/api/0/organizations/` are passed through, uncached.
    pub passthrough: PassThrough,
    /// What happens to cookies when a credential is present.
    pub cookies: Cookies,
    /// Where clients reach it, and within which limits.
    pub listen: ListenConfig,
    /// Who is served at all.
    pub access: AccessConfig,
    /// The listener for operators.
    pub admin: AdminConfig,
    /// Whether Sentry may say what has changed, and where.
    pub webhooks: WebhooksConfig,
    /// Where requests are forwarded to, and how long that may take.
    pub upstream: UpstreamConfig,
    /// What is stored, and for how long.
    pub cache: CacheConfig,
    /// What is rewritten in answers besides `Link` and `Location`.
    pub rewrite: RewriteConfig,
    /// How much upstream may be asked.
    pub budget: BudgetConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Whether requests are traced, and where their spans go.
    pub traces: TracesConfig,
    /// When the configuration is read anew.
    pub reload: ReloadConfig,
    /// How the process ends.
    pub shutdown: ShutdownConfig,
}

/// A text that is never printed or serialized.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// Returns the text itself, for deriving keys and comparing.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns whether no secret is set.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_empty() { "[empty]" } else { "[redacted]" })
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { "[redacted]" })
    }
}

/// Which paths outside `/api/0/organizations/` are passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum PassThrough {
    /// None: everything else is 404.
    #[serde(rename = "none")]
    None,
    /// Everything under `/api/0/`.
    #[serde(rename = "api")]
    Api,
    /// Everything under `/api/0/` and `/oauth/`.
    #[serde(rename = "api+oauth")]
    ApiAndOauth,
}

/// What happens to `Cookie` and `Set-Cookie` when a credential is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cookies {
    /// Neither is carried; the request stays cacheable.
    Strip,
    /// Both are carried; requests with a cookie are not cached.
    Pass,
}

/// The listener for operators.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Address and port.
    pub address: SocketAddr,
    /// Token that operators send as `Authorization: Bearer`; required when the address is not loopback.
    pub token: Secret,
    /// File that holds the token instead.
    pub token_file: PathBuf,
}

/// Where requests are forwarded to, and how long that may take.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Name of the region under `regions`.
    pub region: String,
    /// URL that overrides the region; empty means none.
    pub url: String,
    /// URL of the control host; empty means that of Sentry's own region, or none.
    pub control: String,
    /// Whether every request goes to one upstream, or to where its organization lives.
    pub routing: Routing,
    /// Known regions: name to URL.
    pub regions: BTreeMap<String, String>,
    /// Further hosts that Sentry may name in `Link`, such as a self-hosted server's `system.url-prefix`.
    pub link_hosts: Vec<String>,
    /// Which root certificates are trusted.
    pub roots: Roots,
    /// PEM file of further root certificates; empty means none.
    pub ca_file: PathBuf,
    /// How long connecting may take, TLS included.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long upstream may take from the request's last byte to the answer's head.
    #[serde(with = "humantime_serde")]
    pub first_byte_timeout: Duration,
    /// How long upstream's body may pause.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long a whole exchange may take, both bodies included.
    #[serde(with = "humantime_serde")]
    pub total_timeout: Duration,
    /// How long an unused connection is kept.
    #[serde(with = "humantime_serde")]
    pub pool_idle_timeout: Duration,
}

/// Whether every request goes to one upstream, or to where its organization lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Routing {
    /// To the configured one, and to the control host what only that serves.
    Pinned,
    /// To the region where the organization lives that it names.
    ByOrganization,
}

/// Which root certificates are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Roots {
    /// The operating system's.
    System,
    /// Mozilla's, as built into the binary.
    Bundled,
}

/// What is rewritten in answers besides `Link` and `Location`.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RewriteConfig {
    /// Whether region URLs in bodies point back here.
    pub region_urls: bool,
}

/// When the configuration is read anew.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadConfig {
    /// How often its files are looked at; zero means never.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
}

/// How the process ends.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownConfig {
    /// How long requests that were accepted may take after the signal; then they are answered with 503.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value came from: a file's path, an environment variable, a flag; empty when not known.
    pub source: String,
    /// Key in dotted form, as in `cache.classes.slow.fresh_for`; empty when it is about the whole source.
    pub key: String,
    /// What was expected there, and never the value of a secret.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in [&self.source, &self.key] {
            if !place.is_empty() {
                write!(formatter, "{place}: ")?;
            }
        }
        formatter.write_str(&self.expected)
    }
}

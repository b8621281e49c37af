//! `[webhooks]`: whether Sentry may say what has changed, and where. Plain data.
//!
//! Not here: lengths and clashes (`config::validate`), what a webhook does (`webhooks`).

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::Secret;

/// Whether Sentry may say what has changed, and where.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebhooksConfig {
    /// Client secret of the integration in Sentry, which signs its webhooks; empty means that none are accepted.
    pub secret: Secret,
    /// File that holds the secret instead.
    pub secret_file: PathBuf,
    /// Address and port of a listener of their own; none means that the admin listener takes them.
    #[serde(deserialize_with = "read_address", serialize_with = "write_address")]
    pub address: Option<SocketAddr>,
}

/// Reads an address; an empty text is none.
fn read_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    (!text.is_empty()).then(|| text.parse().map_err(D::Error::custom)).transpose()
}

#[expect(clippy::ref_option, reason = "serde hands in a reference to the field")]
fn write_address<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&address.map_or_else(String::new, |address| address.to_string()))
}

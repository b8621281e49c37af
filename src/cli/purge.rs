//! `sentrybox purge`: orders a purge at the running proxy, and prints what became of it.
//!
//! Invariants: a token is read from standard input and never printed; it leaves this process only towards this machine, and
//! elsewhere only as its fingerprint. Not here: what is meant by each name (`cache::invalidation::selector`).

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use thiserror::Error;

use crate::cli::fingerprint::{self, FingerprintError};
use crate::cli::operator::{self, OperatorError, Order};
use crate::config::{AdminConfig, Config};

/// How long the admin listener may take: it walks through everything that is stored.
const DEADLINE: Duration = Duration::from_mins(1);

/// What is to be purged: exactly one thing, and how thoroughly.
#[derive(Debug, Clone, Args)]
pub struct PurgeArguments {
    #[command(flatten)]
    subject: Subject,
    /// Drop it, instead of marking it stale; what is stale still stands in when Sentry fails
    #[arg(long)]
    hard: bool,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// Everything of an organization, by slug or number
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    /// One resource, with all its variants: a URL or a path; its query says nothing
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Everything of a route, by the template of its rule
    #[arg(long, value_name = "TEMPLATE")]
    route: Option<String>,
    /// Everything of a credential, by its fingerprint
    #[arg(long, value_name = "FINGERPRINT")]
    credential: Option<String>,
    /// Everything of the credential whose token is on standard input
    #[arg(long)]
    token_stdin: bool,
    /// Everything with a tag: project:ORGANIZATION/PROJECT, team:ORGANIZATION/TEAM, issue:ID, release:ORGANIZATION/VERSION
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Everything
    #[arg(long)]
    everything: bool,
}

/// Why nothing is known to be purged.
#[derive(Debug, Error)]
pub enum PurgeError {
    /// Standard input could not be read.
    #[error("could not read standard input")]
    Input(#[source] io::Error),
    /// Standard input holds no text.
    #[error("expected a token, or the value of an Authorization field, on standard input")]
    NoToken,
    /// The token's fingerprint cannot be told, and the token itself stays on this machine.
    #[error("could not tell the fingerprint of the token, and the admin listener is not on this machine")]
    Fingerprint(#[from] FingerprintError),
    /// There is no report.
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

impl PurgeError {
    /// Returns whether the caller can set it right.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NoToken => true,
            Self::Fingerprint(error) => error.is_usage(),
            Self::Operator(error) => error.is_usage(),
            Self::Input(_) => false,
        }
    }
}

/// Builds the order that the arguments ask for.
///
/// # Errors
/// There is no token on standard input, or it may not be sent.
pub fn order(arguments: &PurgeArguments, config: &Config, input: &mut dyn Read) -> Result<Bytes, PurgeError> {
    let subject = &arguments.subject;
    let named = [
        ("organization", &subject.organization),
        ("url", &subject.url),
        ("route", &subject.route),
        ("credential", &subject.credential),
        ("tag", &subject.tag),
    ];
    let named = named.into_iter().find_map(|(key, value)| Some((key, json!(value.as_ref()?))));
    let (key, value) = match named {
        Some(named) => named,
        None if subject.token_stdin => of_token(config, input)?,
        None => ("everything", json!(true)),
    };
    let mode = if arguments.hard { "hard" } else { "soft" };
    Ok(json!({ key: value, "mode": mode }).to_string().into())
}

/// Names a credential by its token where the proxy is on this machine, and by its fingerprint elsewhere.
fn of_token(config: &Config, input: &mut dyn Read) -> Result<(&'static str, Value), PurgeError> {
    if config.admin.address.ip().to_canonical().is_loopback() {
        let bytes = fingerprint::read(input).map_err(PurgeError::Input)?;
        let token = String::from_utf8(bytes).map_err(|_| PurgeError::NoToken)?;
        let token = token.trim();
        return if token.is_empty() { Err(PurgeError::NoToken) } else { Ok(("token", json!(token))) };
    }
    Ok(("credential", json!(fingerprint::of_token(&config.secret, input)?.to_string())))
}

/// Sends the order, and returns the report.
///
/// # Errors
/// Anything but a report.
pub async fn send(admin: &AdminConfig, body: Bytes) -> Result<String, PurgeError> {
    let order = Order { path: "/purge", accept: "application/json", body };
    Ok(operator::order(admin, order, DEADLINE).await?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{Secret, load};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: PurgeArguments,
    }

    fn parsed(arguments: &[&str]) -> Result<PurgeArguments, clap::Error> {
        let line = Line::try_parse_from(["purge"].iter().chain(arguments));
        line.map(|line| line.arguments)
    }

    fn ordered(arguments: &[&str], config: &Config, mut input: &[u8]) -> Result<String, PurgeError> {
        let order = order(&parsed(arguments).unwrap(), config, &mut input)?;
        Ok(String::from_utf8(order.to_vec()).unwrap())
    }

    #[test]
    fn each_argument_is_a_key_of_the_order() {
        let config = load::defaults();
        for (arguments, expected) in [
            (&["--organization", "acme"][..], r#"{"mode":"soft","organization":"acme"}"#),
            (&["--url", "/api/0/"], r#"{"mode":"soft","url":"/api/0/"}"#),
            (&["--route", "/api/0/{a}/", "--hard"], r#"{"mode":"hard","route":"/api/0/{a}/"}"#),
            (&["--credential", "0123456789abcdef"], r#"{"credential":"0123456789abcdef","mode":"soft"}"#),
            (&["--tag", "issue:1"], r#"{"mode":"soft","tag":"issue:1"}"#),
            (&["--hard", "--everything"], r#"{"everything":true,"mode":"hard"}"#),
            (&["--token-stdin"], r#"{"mode":"soft","token":"sntryu_canary"}"#),
        ] {
            let order = ordered(arguments, &config, b"sntryu_canary\n").unwrap();
            // Values: the order of the keys is nobody's business.
            let [order, expected] = [order.as_str(), expected].map(serde_json::from_str::<serde_json::Value>);
            assert_eq!(order.unwrap(), expected.unwrap());
        }
    }

    #[test]
    fn exactly_one_thing_is_purged() {
        for arguments in
            [&[][..], &["--hard"], &["--organization", "a", "--everything"], &["--tag", "a", "--url", "b"]]
        {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn a_token_stays_on_this_machine() {
        let mut config = load::defaults();
        config.admin.address = "10.0.0.1:9001".parse().unwrap();
        let error = ordered(&["--token-stdin"], &config, b"sntryu_canary").unwrap_err();
        assert!(matches!(error, PurgeError::Fingerprint(FingerprintError::NoSecret)) && error.is_usage());
        config.secret = Secret::new("a secret of the whole deployment, for each".to_owned());
        let order = ordered(&["--token-stdin"], &config, b"sntryu_canary").unwrap();
        assert!(order.contains(r#""credential":""#) && !order.contains("canary"), "{order}");
        config.admin.address = "127.0.0.1:9001".parse().unwrap();
        for input in [&b""[..], b" \n", b"\xff"] {
            let error = ordered(&["--token-stdin"], &config, input).unwrap_err();
            assert!(matches!(error, PurgeError::NoToken), "{error}");
        }
    }
}

//! `sentrybox explain`: asks the running proxy what would become of a request, and prints that.
//!
//! Invariant: the token is read from standard input, never from the command line; it, and the shared secret, leave this process
//! only towards this machine, and are never printed. Not here: what there is to say (`proxy::explaining`), how it looks
//! (`proxy::explaining::screen`).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::cli::fingerprint;
use crate::cli::operator::{self, OperatorError, Order};
use crate::config::{AdminConfig, Config};

/// How long the admin listener may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Which request is explained, and how.
#[derive(Debug, Clone, Args)]
pub struct ExplainArguments {
    /// Path with its query, or URL, of the request
    #[arg(value_name = "PATH")]
    path: String,
    /// Read the request's token, or a whole Authorization value, from standard input
    #[arg(long)]
    token_stdin: bool,
    /// Method of the request [default: GET]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Field of the request, as in 'Accept: text/csv'; may be given several times
    #[arg(long = "field", value_name = "NAME: VALUE")]
    fields: Vec<String>,
    /// Address of the client that would send it [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
}

/// Why nothing is explained.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// Standard input could not be read.
    #[error("could not read standard input")]
    Input(#[source] io::Error),
    /// Standard input holds no text.
    #[error("expected a token, or the value of an Authorization field, on standard input")]
    NoToken,
    /// The token would leave this machine.
    #[error(
        "would not send the token to {0}, which is not on this machine; run this where the proxy runs, or leave \
         --token-stdin out"
    )]
    Elsewhere(SocketAddr),
    /// A field is none. Its text may hold anything, and is left out.
    #[error("--field wants a name, a colon and a value, as in 'Accept: text/csv'")]
    Field,
    /// The credential would stand on the command line.
    #[error(
        "--field is not for Authorization, because anybody on this machine can read command lines; use --token-stdin"
    )]
    Authorization,
    /// There is no explanation.
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

impl ExplainError {
    /// Returns whether the caller can set it right.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NoToken | Self::Elsewhere(_) | Self::Field | Self::Authorization => true,
            Self::Operator(error) => error.is_usage(),
            Self::Input(_) => false,
        }
    }
}

/// Builds the question that the arguments ask.
///
/// # Errors
/// There is no token on standard input, or it may not be sent; a field is none.
pub fn question(
    arguments: &ExplainArguments,
    config: &Config,
    input: &mut dyn Read,
) -> Result<Order, ExplainError> {
    let mut question = Map::from_iter([("path".to_owned(), json!(arguments.path))]);
    if arguments.token_stdin {
        question.insert("token".to_owned(), json!(token(&config.admin, input)?));
    }
    if let Some(method) = &arguments.method {
        question.insert("method".to_owned(), json!(method));
    }
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    for field in &arguments.fields {
        let (name, value) = field.split_once(':').ok_or(ExplainError::Field)?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        // "combining … multiple field lines with the same field name", as RFC 9110 §5.3 allows.
        fields
            .entry(name)
            .and_modify(|combined| *combined = format!("{combined}, {value}"))
            .or_insert_with(|| value.to_owned());
    }
    if fields.contains_key("authorization") {
        return Err(ExplainError::Authorization);
    }
    if let Some(from) = arguments.from {
        question.insert("from".to_owned(), json!(from));
    }
    // Whoever runs this with the proxy's own configuration knows the shared secret already.
    let shared = &config.access.shared_secret;
    if !shared.is_empty() && operator::is_here(config.admin.address) {
        let field = config.access.shared_secret_header.to_ascii_lowercase();
        fields.entry(field).or_insert_with(|| shared.expose().to_owned());
    }
    // The host has a place of its own.
    if let Some(host) = fields.remove("host") {
        question.insert("host".to_owned(), json!(host));
    }
    question.insert("fields".to_owned(), json!(fields));
    let accept = if arguments.json { "application/json" } else { "text/plain" };
    Ok(Order { path: "/explain", accept, body: Value::Object(question).to_string().into() })
}

fn token(admin: &AdminConfig, input: &mut dyn Read) -> Result<String, ExplainError> {
    if !operator::is_here(admin.address) {
        return Err(ExplainError::Elsewhere(admin.address));
    }
    let bytes = fingerprint::read(input).map_err(ExplainError::Input)?;
    let token = String::from_utf8(bytes).map_err(|_| ExplainError::NoToken)?;
    let token = token.trim();
    if token.is_empty() { Err(ExplainError::NoToken) } else { Ok(token.to_owned()) }
}

/// Asks the question, and returns the explanation as it is to be printed.
///
/// # Errors
/// Anything but an explanation.
pub async fn ask(admin: &AdminConfig, question: Order) -> Result<String, ExplainError> {
    let answer = operator::order(admin, question, DEADLINE).await?;
    Ok(answer.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{Secret, load};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ExplainArguments,
    }

    fn asked(arguments: &[&str], config: &Config, mut input: &[u8]) -> Result<Order, ExplainError> {
        let line = Line::try_parse_from(["explain"].iter().chain(arguments)).unwrap();
        question(&line.arguments, config, &mut input)
    }

    #[track_caller]
    fn check(arguments: &[&str], accept: &str, expected: &str) {
        let order = asked(arguments, &load::defaults(), b"sntryu_canary\n").unwrap();
        assert_eq!((order.path, order.accept), ("/explain", accept));
        // Values: the order of the keys is nobody's business.
        let body: serde_json::Value = serde_json::from_slice(&order.body).unwrap();
        assert_eq!(body, serde_json::from_str::<serde_json::Value>(expected).unwrap());
    }

    #[test]
    fn each_argument_is_a_key_of_the_question() {
        check(&["/api/0/?a=1"], "text/plain", r#"{"fields":{},"path":"/api/0/?a=1"}"#);
        check(&["--json", "/a"], "application/json", r#"{"fields":{},"path":"/a"}"#);
        let expected = r#"{"fields":{},"method":"HEAD","path":"/a","token":"sntryu_canary"}"#;
        check(&["/a", "--token-stdin", "--method", "HEAD"], "text/plain", expected);
        check(&["/a", "--from", "::1"], "text/plain", r#"{"fields":{},"from":"::1","path":"/a"}"#);
        let fields = [
            "/a",
            "--field",
            "Accept: text/csv",
            "--field",
            "X-A:1",
            "--field",
            "x-a: 2",
            "--field",
            "Host: b",
        ];
        check(
            &fields,
            "text/plain",
            r#"{"fields":{"accept":"text/csv","x-a":"1, 2"},"host":"b","path":"/a"}"#,
        );
    }

    #[test]
    fn a_token_stays_on_this_machine() {
        let mut config = load::defaults();
        config.admin.address = "10.0.0.1:9001".parse().unwrap();
        let error = asked(&["/a", "--token-stdin"], &config, b"sntryu_canary").unwrap_err();
        assert!(matches!(error, ExplainError::Elsewhere(_)) && error.is_usage());
        assert!(error.to_string().contains("10.0.0.1:9001") && !error.to_string().contains("canary"));
        assert!(asked(&["/a"], &config, b"").is_ok());
    }

    #[test]
    fn the_shared_secret_of_the_configuration_goes_along_and_stays_on_this_machine() {
        let mut config = load::defaults();
        config.access.shared_secret = Secret::new("canary-canary-canary".to_owned());
        let told = |config: &Config, arguments: &[&str]| {
            let order = asked(arguments, config, b"").unwrap();
            serde_json::from_slice::<Value>(&order.body).unwrap()["fields"].clone()
        };
        assert_eq!(told(&config, &["/a"]), json!({"x-sentrybox-secret": "canary-canary-canary"}));
        let own = ["/a", "--field", "X-Sentrybox-Secret: another"];
        assert_eq!(told(&config, &own), json!({"x-sentrybox-secret": "another"}));
        config.admin.address = "10.0.0.1:9001".parse().unwrap();
        assert_eq!(told(&config, &["/a"]), json!({}));
    }

    #[test]
    fn what_is_no_token_or_no_field_is_not_asked_about() {
        let config = load::defaults();
        for input in [&b""[..], b" \n", b"\xff"] {
            let error = asked(&["/a", "--token-stdin"], &config, input).unwrap_err();
            assert!(matches!(error, ExplainError::NoToken) && error.is_usage());
        }
        for field in ["sntryu_canary", "Authorization: Bearer sntryu_canary"] {
            let error = asked(&["/a", "--field", field], &config, b"").unwrap_err();
            assert!(error.is_usage() && !error.to_string().contains("canary"), "{error}");
        }
    }
}

//! Names what can go wrong between here and upstream.
//!
//! Invariants: an error can be cloned, because every passenger of a flight gets it; no message holds a credential,
//! a field or a query. Not here: what the client is told (`proxy`), which cause weighs how much (`upstream`).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http_body_util::LengthLimitError;
use thiserror::Error;

use crate::upstream::BoxError;

/// A cause that several owners may look at.
pub type SharedError = Arc<dyn std::error::Error + Send + Sync>;

/// Why an exchange brought no answer, or a broken one.
#[derive(Debug, Clone, Error)]
pub enum UpstreamError {
    /// No connection could be made: name, network, proxy or TLS.
    #[error("could not connect to upstream")]
    Unreachable {
        /// What failed on the way.
        #[source]
        source: SharedError,
    },
    /// Upstream took too long.
    #[error("upstream took longer than {phase}")]
    Timeout {
        /// Which of the limits ran out.
        phase: TimeoutPhase,
    },
    /// The connection broke, or what came over it is no HTTP.
    #[error("upstream's answer was broken")]
    Broken {
        /// What was wrong.
        #[source]
        source: SharedError,
    },
    /// The request's own body broke off or stood still; upstream is not to blame.
    #[error("could not read the request's body")]
    RequestBody {
        /// What its source said.
        #[source]
        source: SharedError,
    },
}

impl UpstreamError {
    /// Returns whose fault it is and of which kind: a closed set for refusals and metrics.
    pub fn fault(&self) -> UpstreamFault {
        match self {
            Self::Unreachable { .. } => UpstreamFault::Unreachable,
            Self::Timeout { .. } => UpstreamFault::Timeout,
            Self::Broken { .. } => UpstreamFault::Broken,
            Self::RequestBody { source } if source.is::<LengthLimitError>() => {
                UpstreamFault::OversizedRequest
            }
            Self::RequestBody { .. } => UpstreamFault::RequestBody,
        }
    }

    /// Wraps a failure to connect.
    pub fn unreachable(source: impl Into<BoxError>) -> Self {
        Self::Unreachable { source: source.into().into() }
    }

    /// Wraps a failure after connecting.
    pub fn broken(source: impl Into<BoxError>) -> Self {
        Self::Broken { source: source.into().into() }
    }

    /// Wraps a failure of the request's own body.
    pub fn request_body(source: impl Into<BoxError>) -> Self {
        Self::RequestBody { source: source.into().into() }
    }
}

/// The kinds of [`UpstreamError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamFault {
    /// Upstream could not be reached.
    Unreachable,
    /// Upstream did not answer, or not to the end, in time.
    Timeout,
    /// Upstream's answer was broken.
    Broken,
    /// The request's body was.
    RequestBody,
    /// The request's own body is larger than it may be.
    OversizedRequest,
}

/// The limits of an exchange, in the order in which they apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeoutPhase {
    /// `upstream.connect_timeout`: name, proxy, TCP and TLS.
    Connect,
    /// `upstream.idle_timeout` between two chunks of the request's body that upstream takes.
    IdleRequestBody,
    /// `upstream.first_byte_timeout`: from the request's end to the answer's head.
    FirstByte,
    /// `upstream.idle_timeout` between two chunks of the answer's body.
    IdleBody,
    /// `upstream.total_timeout`: everything.
    WholeExchange,
}

impl fmt::Display for TimeoutPhase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Connect => "upstream.connect_timeout for connecting",
            Self::IdleRequestBody => "upstream.idle_timeout for taking the next part of the request's body",
            Self::FirstByte => "upstream.first_byte_timeout for the first byte of the answer",
            Self::IdleBody => "upstream.idle_timeout for the next part of the answer's body",
            Self::WholeExchange => "upstream.total_timeout for the whole exchange",
        })
    }
}

/// Why upstream cannot even be tried.
#[derive(Debug, Error)]
pub enum UpstreamSetupError {
    /// The file of further roots is unreadable or no PEM.
    #[error("could not read root certificates from upstream.ca_file {path}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The file of further roots holds none.
    #[error("found no certificate in upstream.ca_file {path}")]
    EmptyCaFile {
        /// The file.
        path: PathBuf,
    },
    /// The roots cannot be used: most often an image without any.
    #[error(
        "could not load root certificates: install the system's (ca-certificates), or set upstream.roots = \"bundled\", \
         or name a file in upstream.ca_file"
    )]
    Roots {
        /// What the TLS library said.
        #[source]
        source: rustls::Error,
    },
    /// A proxy of the environment that cannot be used; its value may hold a password and is not shown.
    #[error("could not use the proxy in {variable}: expected http://host:port or https://host:port")]
    Proxy {
        /// The environment variable.
        variable: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shared_with_its_cause() {
        let error = UpstreamError::broken(std::io::Error::other("reset"));
        let copy = error.clone();
        assert_eq!(copy.fault(), UpstreamFault::Broken);
        assert_eq!(std::error::Error::source(&copy).unwrap().to_string(), "reset");
    }
}

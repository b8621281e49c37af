//! `sentrybox fingerprint`: what logs and metrics show of a token.
//!
//! Invariant: the token is read from standard input, never from the command line, and never printed.
//! Not here: how it is computed (`credential`).

use std::io::{self, Read};

use thiserror::Error;

use crate::config::Secret;
use crate::credential::{Credential, CredentialKeys, Fingerprint};

/// Longest input that is read: more than any field may have.
const MAX_INPUT: u64 = 64 * 1024;

/// Why there is no fingerprint.
#[derive(Debug, Error)]
pub enum FingerprintError {
    /// No secret is configured.
    #[error(
        "no secret is configured: without one, each process makes its own, and fingerprints are worth nothing outside \
         of it; set SENTRYBOX_SECRET or SENTRYBOX_SECRET_FILE to what the proxy has"
    )]
    NoSecret,
    /// Standard input holds nothing that could be sent as a credential.
    #[error("expected a token, or the value of an Authorization field, in one line on standard input")]
    NoToken,
    /// Standard input could not be read.
    #[error("could not read standard input")]
    Input(#[source] io::Error),
}

impl FingerprintError {
    /// Returns whether the caller can set it right.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NoSecret | Self::NoToken => true,
            Self::Input(_) => false,
        }
    }
}

/// Reads standard input, as far as a token may go.
///
/// # Errors
/// It could not be read.
pub fn read(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_INPUT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a token and returns its fingerprint under `secret`.
///
/// # Errors
/// There is no secret, or no token.
pub fn of_token(secret: &Secret, input: &mut dyn Read) -> Result<Fingerprint, FingerprintError> {
    if secret.is_empty() {
        return Err(FingerprintError::NoSecret);
    }
    let bytes = read(input).map_err(FingerprintError::Input)?;
    let credential = Credential::from_text(&bytes).ok_or(FingerprintError::NoToken)?;
    let keys = CredentialKeys::derive(secret.expose().as_bytes());
    keys.fingerprint(keys.partition(Some(&credential))).ok_or(FingerprintError::NoToken)
}

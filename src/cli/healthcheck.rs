//! `sentrybox healthcheck`: one `GET /livez` to the admin listener, for containers without a shell.
//!
//! Invariant: ends within `DEADLINE`. Not here: what makes a process healthy (`admin`).

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use thiserror::Error;

use crate::cli::operator::{self, OperatorError};

/// How long the admin listener may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// Why the process is not known to live.
#[derive(Debug, Error)]
pub enum HealthcheckError {
    /// There is no answer.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// The answer is a bad one.
    #[error("the admin listener answered {0}")]
    Status(StatusCode),
}

/// Asks the admin listener that is configured at `address`.
///
/// # Errors
/// Anything but an answer of 200 within the deadline.
pub async fn ask(address: SocketAddr) -> Result<(), HealthcheckError> {
    let mut request = Request::new(Full::<Bytes>::default());
    *request.uri_mut() = Uri::from_static("/livez");
    let (status, _) = operator::ask(address, request, DEADLINE).await?;
    judge(status)
}

/// A 200 is health, and nothing else is.
fn judge(status: StatusCode) -> Result<(), HealthcheckError> {
    if status == StatusCode::OK { Ok(()) } else { Err(HealthcheckError::Status(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_200_is_health_and_nothing_else_is() {
        assert!(judge(StatusCode::OK).is_ok());
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE] {
            assert!(matches!(judge(status), Err(HealthcheckError::Status(told)) if told == status));
        }
    }
}

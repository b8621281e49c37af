//! Whether new requests are welcome.
//!
//! Invariant: the state only advances; after *draining* nothing is ready again.
//! Not here: Sentry, the shared tier: their trouble is no reason to send requests elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http::StatusCode;

/// Where the process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadinessState {
    /// Not everything is set up yet.
    Starting,
    /// New requests are welcome.
    Ready,
    /// The process is ending.
    Draining,
}

impl ReadinessState {
    /// Returns the one spelling of the state.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }

    /// Returns the status code that tells it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Ready => StatusCode::OK,
            Self::Starting | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A latch that one side sets and the other reads; cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<AtomicU8>);

impl Readiness {
    /// Creates a latch that says *starting*.
    pub fn starting() -> Self {
        Self(Arc::new(AtomicU8::new(ReadinessState::Starting as u8)))
    }

    /// Says that new requests are welcome, unless the process is already ending.
    pub fn ready(&self) {
        self.0.fetch_max(ReadinessState::Ready as u8, Ordering::Relaxed);
    }

    /// Says that the process is ending.
    pub fn draining(&self) {
        self.0.fetch_max(ReadinessState::Draining as u8, Ordering::Relaxed);
    }

    /// Returns where the process stands.
    pub fn state(&self) -> ReadinessState {
        match self.0.load(Ordering::Relaxed) {
            0 => ReadinessState::Starting,
            1 => ReadinessState::Ready,
            _ => ReadinessState::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_ready_again_after_draining() {
        let readiness = Readiness::starting();
        assert_eq!(readiness.state(), ReadinessState::Starting);
        readiness.ready();
        assert_eq!(readiness.state(), ReadinessState::Ready);
        readiness.draining();
        readiness.ready();
        assert_eq!(readiness.state(), ReadinessState::Draining);
    }
}

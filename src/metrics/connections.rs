//! Counts who is connected, and how connections end.
//!
//! Invariant: [`OpenConnection`] gives its place back however the connection ends.
//! Not here: deciding when a connection ends (`server`).

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::metrics::closed::{ClosedLabel, PerValue};
use crate::metrics::counter;

/// Which listener accepted a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The one for clients.
    Clients,
    /// The one for operators.
    Admin,
    /// The one for webhooks, where they have one of their own.
    Webhooks,
}

impl ClosedLabel for Listener {
    const NAME: &'static str = "listener";
    const ALL: &'static [Self] = &[Self::Clients, Self::Admin, Self::Webhooks];

    fn label(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Admin => "admin",
            Self::Webhooks => "webhooks",
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// As either side wished.
    Closed,
    /// Its first bytes did not come in time.
    FirstByteTimeout,
    /// The head of a request did not come in time.
    HeaderTimeout,
    /// No request came for as long as it may idle, or no answer to a PING.
    IdleTimeout,
    /// TLS did not come about.
    TlsFailed,
    /// It broke, or what came over it was not HTTP.
    Broken,
    /// Its peer flooded it with HTTP/2 frames.
    Flooded,
    /// Its peer did not let an answer go out.
    Stalled,
    /// It idled, and somebody else needed its place.
    MadeRoom,
    /// The shutdown did not wait for it.
    Dropped,
}

impl ClosedLabel for ConnectionEnd {
    const NAME: &'static str = "cause";
    const ALL: &'static [Self] = &[
        Self::Closed,
        Self::FirstByteTimeout,
        Self::HeaderTimeout,
        Self::IdleTimeout,
        Self::TlsFailed,
        Self::Broken,
        Self::Flooded,
        Self::Stalled,
        Self::MadeRoom,
        Self::Dropped,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::FirstByteTimeout => "first-byte-timeout",
            Self::HeaderTimeout => "header-timeout",
            Self::IdleTimeout => "idle-timeout",
            Self::TlsFailed => "tls-failed",
            Self::Broken => "broken",
            Self::Flooded => "flooded",
            Self::Stalled => "stalled",
            Self::MadeRoom => "made-room",
            Self::Dropped => "dropped",
        }
    }
}

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// All places are taken, and nobody idles.
    Full,
    /// Its peer has as many as one may have.
    Peer,
}

impl ClosedLabel for TurnedAway {
    const NAME: &'static str = "cause";
    const ALL: &'static [Self] = &[Self::Full, Self::Peer];

    fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Peer => "peer",
        }
    }
}

/// Who is connected.
#[derive(Debug)]
pub struct ConnectionMetrics {
    open: Arc<PerValue<Listener, Gauge>>,
    accepted: PerValue<Listener, Counter>,
    ended: Arc<PerValue<ConnectionEnd, Counter>>,
    turned_away: PerValue<TurnedAway, Counter>,
    accept_errors: Counter,
}

impl ConnectionMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "Connections that ended, and how";
        let ended = Arc::new(PerValue::register(registry, "connections_ended", help));
        Self {
            open: Arc::new(PerValue::register(
                registry,
                "connections_open",
                "Connections open at this moment",
            )),
            accepted: PerValue::register(registry, "connections", "Connections accepted"),
            ended,
            turned_away: PerValue::register(
                registry,
                "connections_turned_away",
                "Connections that were answered with 503 because there was no place for them",
            ),
            accept_errors: counter(registry, "accept_errors", "Failed attempts to accept a connection"),
        }
    }

    /// Counts a connection as open until the returned guard is dropped.
    pub fn opened(&self, listener: Listener) -> OpenConnection {
        self.accepted.increment(listener);
        self.open.shift(listener, 1);
        OpenConnection {
            open: Arc::clone(&self.open),
            ended: Arc::clone(&self.ended),
            listener,
            end: ConnectionEnd::Dropped,
        }
    }

    /// Counts a connection that was turned away.
    pub fn turned_away(&self, cause: TurnedAway) {
        self.turned_away.increment(cause);
    }

    /// Counts a failed attempt to accept a connection.
    pub fn accept_failed(&self) {
        self.accept_errors.inc();
    }
}

/// A connection that is open for as long as this lives; one that nobody ends counts as dropped.
#[derive(Debug)]
pub struct OpenConnection {
    open: Arc<PerValue<Listener, Gauge>>,
    ended: Arc<PerValue<ConnectionEnd, Counter>>,
    listener: Listener,
    end: ConnectionEnd,
}

impl OpenConnection {
    /// Ends the connection in a known way.
    pub fn end(mut self, end: ConnectionEnd) {
        self.end = end;
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.open.shift(self.listener, -1);
        self.ended.increment(self.end);
    }
}

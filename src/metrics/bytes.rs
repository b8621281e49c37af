//! Counts the bytes of bodies: to clients by where they came from, to upstream and from it.
//!
//! Invariant: what is still on its way is counted as it goes, so that a body that breaks off counts as far as it came.
//! Not here: fields, and what TLS and framing add.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

use crate::metrics::closed::{ClosedLabel, PerValue};

/// Where the body of an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodySource {
    /// From the store.
    Store,
    /// From upstream, for this request or for another one like it.
    Upstream,
    /// From the proxy itself.
    Own,
}

impl ClosedLabel for BodySource {
    const NAME: &'static str = "source";
    const ALL: &'static [Self] = &[Self::Store, Self::Upstream, Self::Own];

    fn label(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Upstream => "upstream",
            Self::Own => "own",
        }
    }
}

/// Counts one kind of bytes; clones are the same counter.
#[derive(Debug, Clone)]
pub struct ByteCounter(Counter);

impl ByteCounter {
    /// Counts so many bytes.
    pub fn add(&self, bytes: usize) {
        self.0.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

/// How much passes.
#[derive(Debug)]
pub struct ByteMetrics {
    to_clients: PerValue<BodySource, Counter>,
    /// To upstream.
    pub sent: ByteCounter,
    /// From upstream.
    pub received: ByteCounter,
}

impl ByteMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "Bytes of bodies to clients";
        let to_clients = PerValue::register_with_unit(registry, ("response", help), Unit::Bytes);
        let sent = Counter::default();
        registry.register_with_unit("upstream_sent", "Bodies to upstream", Unit::Bytes, sent.clone());
        let received = Counter::default();
        let help = "Bodies from upstream";
        registry.register_with_unit("upstream_received", help, Unit::Bytes, received.clone());
        Self { to_clients, sent: ByteCounter(sent), received: ByteCounter(received) }
    }

    /// Counts bytes of a body to a client.
    pub fn answered(&self, source: BodySource, bytes: usize) {
        self.to_clients.increment_by(source, u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Returns what counts the bytes of a body that is still on its way to a client.
    pub fn answering(&self, source: BodySource) -> Option<ByteCounter> {
        self.to_clients.of(source).cloned().map(ByteCounter)
    }
}

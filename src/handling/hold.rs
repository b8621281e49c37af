//! Why a request waits before it is sent upstream.
//!
//! Invariant: as for every reason, its label is the only spelling of it. Not here: who waits (`budget`).

/// Why a request waits before it is sent upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hold {
    /// Nothing is known of Sentry's limit yet: the first answer will tell.
    Learning,
    /// Sentry's window is used up.
    Window,
    /// As many requests are under way as Sentry allows at a time.
    Concurrency,
    /// A 429 has closed the limit, or the route.
    Gate,
    /// Upstream, or this route of it, has failed again and again.
    Breaker,
    /// Our own cap on requests at a time is reached.
    Capacity,
    /// Our own cap on requests per second is reached.
    Rate,
}

impl Hold {
    /// Every hold, for tables and metrics.
    pub const ALL: [Self; 7] = [
        Self::Learning,
        Self::Window,
        Self::Concurrency,
        Self::Gate,
        Self::Breaker,
        Self::Capacity,
        Self::Rate,
    ];

    /// Returns whether Sentry would refuse what is sent all the same.
    pub const fn averts_refusal(self) -> bool {
        match self {
            Self::Window | Self::Concurrency | Self::Gate => true,
            Self::Learning | Self::Breaker | Self::Capacity | Self::Rate => false,
        }
    }

    /// Returns the one spelling of the hold.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Window => "window",
            Self::Concurrency => "concurrency",
            Self::Gate => "gate",
            Self::Breaker => "breaker",
            Self::Capacity => "capacity",
            Self::Rate => "rate",
        }
    }
}

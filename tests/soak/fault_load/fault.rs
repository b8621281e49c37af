//! The faults, and what each excuses: the table that every outcome is held against.
//!
//! Whole and right answers, fresh or stale, need no excuse. What a fault excuses it excuses while it lasts and, where an
//! answer speaks of upstream, a little longer: gates open again step by step.

use std::time::Duration;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGTERM, and another start.
    Restart,
    /// SIGKILL, and another start.
    Kill,
    /// Connections idle that have said nothing: 5,000.
    IdleSilent,
    /// Connections idle that have had an answer: 5,000.
    IdleServed,
    /// Connections idle over TLS that have had an answer.
    IdleTls,
    /// Clients send a byte now and then: 500.
    Dribbling,
    /// Upstream resets connections in the head of an answer.
    ResetHead,
    /// Upstream resets connections in the body of an answer.
    ResetBody,
    /// Upstream says nothing for longer than any deadline, or stops in the middle.
    Hang,
    /// Upstream answers 500, 502, 503 and 504.
    ServerErrors,
    /// Upstream answers 429 with a Retry-After.
    Limited,
    /// Nobody listens where upstream was.
    Unreachable,
    /// The control host has a name that does not exist.
    NoSuchName,
    /// Upstream takes its time for the TLS handshake.
    SlowTls,
    /// Upstream sends bodies in small pieces, some of them for too long.
    SlowBytes,
    /// Upstream's bodies end before their end.
    Truncated,
    /// Upstream sends more than it says: another answer, for somebody else.
    OverLong,
    /// Upstream sends interim answers without end, or many.
    Interim,
    /// The configuration is rewritten, and SIGHUP.
    Reload,
    /// The configuration makes no sense for a while.
    BadConfig,
    /// The folder of the configuration is swapped, as Kubernetes does.
    Swap,
    /// The certificate is renewed.
    Renewal,
    /// Operators purge.
    Purge,
    /// Sentry's webhooks purge.
    Webhooks,
    /// Clients leave in the middle.
    Aborts,
}

/// An outcome that is excused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// An error of the proxy's own.
    Own(u16),
    /// An error of upstream's, passed on.
    Passed(u16),
    /// A body that visibly breaks off.
    Cut,
    /// Nobody accepts a new connection.
    NotConnected,
    /// The connection ends without an answer.
    Dropped,
}

use Promise::{Cut, Dropped, NotConnected, Own, Passed};

impl Fault {
    /// Every fault, in the order in which they come alone: first what costs the process its life.
    pub(crate) const ALL: [Self; 25] = [
        Self::Restart,
        Self::Kill,
        Self::IdleSilent,
        Self::IdleServed,
        Self::IdleTls,
        Self::Dribbling,
        Self::ResetHead,
        Self::ResetBody,
        Self::Hang,
        Self::ServerErrors,
        Self::Limited,
        Self::Unreachable,
        Self::NoSuchName,
        Self::SlowTls,
        Self::SlowBytes,
        Self::Truncated,
        Self::OverLong,
        Self::Interim,
        Self::Reload,
        Self::BadConfig,
        Self::Swap,
        Self::Renewal,
        Self::Purge,
        Self::Webhooks,
        Self::Aborts,
    ];

    /// Returns what it is called.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Kill => "kill",
            Self::IdleSilent => "idle, silent",
            Self::IdleServed => "idle, served",
            Self::IdleTls => "idle, TLS",
            Self::Dribbling => "dribbling",
            Self::ResetHead => "reset in head",
            Self::ResetBody => "reset in body",
            Self::Hang => "hang",
            Self::ServerErrors => "5xx",
            Self::Limited => "429",
            Self::Unreachable => "unreachable",
            Self::NoSuchName => "no such name",
            Self::SlowTls => "slow TLS",
            Self::SlowBytes => "slow bytes",
            Self::Truncated => "truncated",
            Self::OverLong => "over-long",
            Self::Interim => "1xx flood",
            Self::Reload => "reload",
            Self::BadConfig => "bad config",
            Self::Swap => "swapped config",
            Self::Renewal => "renewal",
            Self::Purge => "purge",
            Self::Webhooks => "webhooks",
            Self::Aborts => "aborts",
        }
    }

    /// Returns what it excuses.
    pub(crate) const fn excuses(self) -> &'static [Promise] {
        match self {
            // Nothing at all, but that nobody listens between the end and the start.
            Self::Restart => &[NotConnected],
            Self::Kill => &[NotConnected, Dropped, Cut],
            // 502: broken, or not to be had. 503: left alone after failing again and again.
            Self::ResetHead | Self::Unreachable | Self::NoSuchName => &[Own(502), Own(503)],
            // What is passed on as it comes is on its way already when it turns out to be broken.
            Self::ResetBody | Self::Truncated | Self::OverLong | Self::Interim => &[Own(502), Own(503), Cut],
            Self::Hang | Self::SlowBytes => &[Own(504), Own(503), Cut],
            // An edge's page in HTML is no answer of Sentry's: a 502 of our own when the second try may not be sent.
            Self::ServerErrors => &[Passed(500), Passed(502), Passed(503), Passed(504), Own(502), Own(503)],
            Self::Limited => &[Passed(429), Own(429), Own(503)],
            // Too slow a handshake is a host that cannot be reached in time.
            Self::SlowTls => &[Own(502), Own(503), Own(504)],
            Self::IdleSilent
            | Self::IdleServed
            | Self::IdleTls
            | Self::Dribbling
            | Self::Reload
            | Self::BadConfig
            | Self::Swap
            | Self::Renewal
            | Self::Purge
            | Self::Webhooks
            | Self::Aborts => &[],
        }
    }

    /// Returns how long after it answers may still speak of it.
    pub(crate) const fn aftermath(self) -> Duration {
        match self {
            // A limit's gate stays closed for up to 30 s when nobody says for how long.
            Self::Limited => Duration::from_secs(35),
            _ => Duration::from_secs(12),
        }
    }

    /// Returns how many of a hundred answers of upstream it befalls; 0 where it is none of upstream's.
    pub(crate) const fn share(self) -> u64 {
        match self {
            Self::ResetHead | Self::ResetBody | Self::ServerErrors | Self::Truncated | Self::OverLong => 40,
            Self::Hang | Self::SlowBytes | Self::Interim => 30,
            Self::Limited => 20,
            Self::SlowTls => 60,
            _ => 0,
        }
    }

    /// Returns whether it may come together with others, and again and again.
    pub(crate) const fn mixes(self) -> bool {
        !matches!(
            self,
            Self::Restart
                | Self::Kill
                | Self::IdleSilent
                | Self::IdleServed
                | Self::IdleTls
                | Self::Dribbling
        )
    }

    /// Returns whether it is a crowd of connections, which are no leak of memory or descriptors.
    pub(crate) const fn is_crowd(self) -> bool {
        matches!(self, Self::IdleSilent | Self::IdleServed | Self::IdleTls | Self::Dribbling)
    }
}

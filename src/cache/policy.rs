//! Which kind of cache a partition is, what follows from that alone, and what the operator decided.
//!
//! Each credential's partition is a *private* cache in the sense of RFC 9111; the anonymous one is a *shared* cache
//! and obeys the stricter rules. Invariant: [`CacheKind::of`] is the one place that says so.
//! Not here: lifetimes of routes (`routes`), judging (`cache::freshness`, `cache::storing`).

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName};

use crate::admission::AdmittedRequest;
use crate::cache::directives::{Qualified, RequestDirectives, listed_fields};
use crate::config::Config;
use crate::config::cache::ClientDirectives;
use crate::credential::CredentialPartition;
use crate::pressure::Pressure;

/// Which rules of RFC 9111 a partition obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// One credential's partition.
    Private,
    /// The partition of requests without a credential.
    Shared,
}

impl CacheKind {
    /// Returns the kind of a partition.
    pub fn of(partition: CredentialPartition) -> Self {
        if partition == CredentialPartition::ANONYMOUS { Self::Shared } else { Self::Private }
    }

    /// Returns the fields of a response that go to the client who fetched it, and are not stored: what
    /// `no-cache="…"` lists, and in a shared cache what `private="…"` lists.
    pub fn withheld(self, fields: &HeaderMap) -> Vec<HeaderName> {
        let mut names = listed_fields(fields, Qualified::NoCache);
        if self == Self::Shared {
            names.extend(listed_fields(fields, Qualified::Private));
        }
        names.retain(|name| fields.contains_key(name));
        names
    }
}

/// What the operator decided, as far as it bears on freshness.
#[derive(Debug, Clone, Copy)]
pub struct FreshnessPolicy {
    client_directives: ClientDirectives,
    negative_fresh_for: Duration,
    max_stretch: u32,
    refresh_ahead: RefreshAhead,
    pressure: Pressure,
}

/// Whether responses are refreshed before they go stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshAhead {
    /// Those that are asked for again and again, while there is budget to spare.
    WhileSpare,
    /// None.
    Never,
}

impl FreshnessPolicy {
    /// Takes the operator's decisions from the configuration.
    pub fn new(config: &Config) -> Self {
        let ahead = config.budget.enabled && config.budget.refresh_ahead;
        Self {
            client_directives: config.cache.client_directives,
            negative_fresh_for: config.cache.negative_fresh_for,
            max_stretch: config.budget.max_stretch,
            refresh_ahead: if ahead { RefreshAhead::WhileSpare } else { RefreshAhead::Never },
            pressure: Pressure::NONE,
        }
    }

    /// Returns the same policy while so much of the budget is in use.
    #[must_use]
    pub fn under(self, pressure: Pressure) -> Self {
        Self { pressure, ..self }
    }

    /// Returns whether the budget runs so low that something is to be done about it.
    pub fn is_budget_low(&self) -> bool {
        self.max_stretch > 1 && self.pressure.is_scarce()
    }

    /// Returns whether there is budget to spare for what will be wanted soon.
    pub fn may_refresh_ahead(&self) -> bool {
        self.refresh_ahead == RefreshAhead::WhileSpare && self.pressure.is_spare()
    }

    /// Returns how long a response with this lifetime may be reused while so much of the budget is in use.
    pub fn stretched(&self, lifetime: Duration) -> Duration {
        self.pressure.stretched(lifetime, self.max_stretch)
    }

    /// Returns how long a 404 or 410 on a route with a class is fresh.
    pub fn negative_fresh_for(&self) -> Duration {
        self.negative_fresh_for
    }

    /// Returns the directives of a request, as far as they count.
    pub fn directives(&self, request: &AdmittedRequest) -> RequestDirectives {
        match self.client_directives {
            ClientDirectives::Honour => RequestDirectives::read(request.fields()),
            ClientDirectives::Ignore => RequestDirectives::default(),
        }
    }
}

/// Returns whether a status code is heuristically cacheable: "200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, and 501" (RFC 9110 §15.1); 206 is never stored.
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::directives::Validation;
    use crate::config::load;
    use crate::testing::{SUBJECT, TOKEN, asked};

    #[test]
    fn a_credentials_partition_is_a_private_cache_and_the_anonymous_one_is_shared() {
        assert_eq!(CacheKind::of(asked(SUBJECT, &[TOKEN]).partition()), CacheKind::Private);
        assert_eq!(CacheKind::of(asked(SUBJECT, &[]).partition()), CacheKind::Shared);
    }

    #[test]
    fn rfc9111_5_2_2_7_what_private_lists_is_withheld_in_the_shared_cache_alone() {
        let says = [("cache-control", r#"no-cache="x-a, x-b", private="x-c""#), ("x-a", "1"), ("x-c", "3")];
        let fields = crate::testing::fields(&says);
        assert_eq!(CacheKind::Private.withheld(&fields), ["x-a"]);
        assert_eq!(CacheKind::Shared.withheld(&fields), ["x-a", "x-c"]);
    }

    #[test]
    fn client_directives_count_unless_the_operator_ignores_them() {
        let mut config = load::defaults();
        let request = asked(SUBJECT, &[TOKEN, ("cache-control", "no-cache")]);
        let read = |config: &Config| FreshnessPolicy::new(config).directives(&request).validation;
        assert_eq!(read(&config), Validation::Demanded);
        config.cache.client_directives = ClientDirectives::Ignore;
        assert_eq!(read(&config), Validation::WhenNeeded);
    }

    #[test]
    fn rfc9110_15_1_the_heuristically_cacheable_status_codes_are_these() {
        let listed: Vec<_> = (100..1_000)
            .filter(|code| is_heuristically_cacheable(StatusCode::from_u16(*code).unwrap()))
            .collect();
        assert_eq!(listed, [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501]);
    }
}

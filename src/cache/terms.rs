//! The terms on which a stored response is held: its freshness lifetime, its stale windows, what forbids reuse
//! ([RFC 9111 §4.2.1], §4.2.2, §4.2.4, [RFC 5861]).
//!
//! Upstream's own directives come first, then the class of the route, unless its rule says `override`; then, where a
//! class leaves it to the RFC, heuristics. Pure: no I/O, no clock, no present moment.
//!
//! Invariants: whatever cannot be computed is no lifetime; a prohibition wins over every window, unless the rule says
//! `override`.
//! Not here: age, the client's wishes, and what follows (`cache::freshness`).
//!
//! [RFC 9111 §4.2.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1
//! [RFC 5861]: https://www.rfc-editor.org/rfc/rfc5861

use std::time::Duration;

use http::StatusCode;
use http::header;

use crate::admission::AdmittedRequest;
use crate::cache::directives::{DirectiveSource, ResponseFlags};
use crate::cache::generations::Standing;
use crate::cache::policy::{CacheKind, FreshnessPolicy, is_heuristically_cacheable};
use crate::cache::stored_response::StoredResponse;
use crate::headers::dates;
use crate::routes::{ClassPolicy, Precedence, RoutePolicy, StaleIfError};

/// The longest lifetime of a response that was fetched soon after a write to its subject.
pub const SETTLING_LIFETIME: Duration = Duration::from_secs(1);

/// "A typical setting of this fraction might be 10%" (RFC 9111 §4.2.2).
const HEURISTIC_DIVISOR: u32 = 10;

/// The longest heuristic lifetime: beyond a day, users should not depend on a guess.
const HEURISTIC_LIMIT: Duration = Duration::from_hours(24);

/// How stale a response may be reused while upstream is out of reach, where a class leaves that to RFC 9111: it sets no
/// bound, and we set this one.
const DISCONNECTED_WINDOW: Duration = Duration::from_hours(1);

/// How long upstream's answer is fresh, from when it was generated ([RFC 9111 §4.2.1]).
///
/// [RFC 9111 §4.2.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FreshnessLifetime(pub Duration);

/// How upstream failed a request for which something stale is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It was out of reach, or broke off: what RFC 9111 §4.2.4 calls "disconnected".
    Disconnected,
    /// It answered that it cannot, or was not asked.
    Failing,
}

/// What holds for one stored response.
#[derive(Debug)]
pub struct Terms<'a> {
    stored: &'a StoredResponse,
    class: Option<&'a ClassPolicy>,
    precedence: Precedence,
    kind: CacheKind,
    standing: Standing,
    negative_fresh_for: Duration,
}

impl<'a> Terms<'a> {
    /// Looks up what holds for a response that is stored for such requests.
    pub fn new(
        request: &'a AdmittedRequest,
        stored: &'a StoredResponse,
        policy: &FreshnessPolicy,
        standing: Standing,
    ) -> Self {
        let (class, precedence) = match &request.route().policy {
            RoutePolicy::Class { class, precedence } => (Some(class), *precedence),
            RoutePolicy::Never | RoutePolicy::Unmatched => (None, Precedence::Upstream),
        };
        let kind = CacheKind::of(request.partition());
        Self { stored, class, precedence, kind, standing, negative_fresh_for: policy.negative_fresh_for() }
    }

    /// Returns the response.
    pub fn stored(&self) -> &'a StoredResponse {
        self.stored
    }

    /// Returns whether the class wins over upstream's own directives: its rule says so, and it has a lifetime for this
    /// status.
    fn overrides(&self) -> bool {
        self.precedence == Precedence::Rule && self.class_lifetime().is_some()
    }

    /// Returns whether it is validated before every reuse.
    pub fn must_validate(&self) -> bool {
        let class = self.class_lifetime();
        if self.overrides() {
            return class == Some(Duration::ZERO);
        }
        self.stored.directives().has(ResponseFlags::NO_CACHE)
            || (self.stated_lifetime().is_none() && class == Some(Duration::ZERO))
    }

    /// Returns whether it "will not be updated during the freshness lifetime" (RFC 8246 §2).
    pub fn is_immutable(&self) -> bool {
        !self.overrides() && self.stored.directives().has(ResponseFlags::IMMUTABLE)
    }

    /// Returns the freshness lifetime (RFC 9111 §4.2.1), with our classes in the place of what Sentry does not say.
    pub fn lifetime(&self) -> FreshnessLifetime {
        let class = self.class_lifetime();
        let stated = self.stated_lifetime().filter(|_| !self.overrides());
        let lifetime = stated.or(class).or_else(|| self.heuristic_lifetime()).unwrap_or_default();
        FreshnessLifetime(match self.standing {
            Standing::Current => lifetime,
            Standing::Settling => lifetime.min(SETTLING_LIFETIME),
            Standing::Purged | Standing::Unusable => Duration::ZERO,
        })
    }

    /// Returns the lifetime that the operator's class gives it, which may be stretched; `None` where upstream's word or the
    /// RFC decides, or where it is not to be trusted for long.
    pub fn stretchable_lifetime(&self) -> Option<Duration> {
        let is_ours = self.overrides() || self.stated_lifetime().is_none();
        let is_plain = self.standing == Standing::Current && self.stored.status() == StatusCode::OK;
        self.class_lifetime().filter(|lifetime| is_ours && is_plain && !lifetime.is_zero())
    }

    /// "If the cache is shared and the s-maxage response directive is present, use its value, or if the max-age
    /// response directive is present, use its value, or if the Expires response header field is present, use its
    /// value minus the value of the Date response header field" (RFC 9111 §4.2.1).
    fn stated_lifetime(&self) -> Option<Duration> {
        let directives = self.stored.directives();
        if self.kind == CacheKind::Shared && directives.s_maxage.is_some() {
            return directives.s_maxage;
        }
        if directives.max_age.is_some() || directives.source == DirectiveSource::Targeted {
            return directives.max_age;
        }
        let mut expires = self.stored.fields().get_all(header::EXPIRES).iter();
        let first = expires.next()?;
        // "A cache recipient MUST interpret invalid date formats, especially the value "0", as representing a time in the
        // past" (§5.3); several that differ: "the response should be considered stale" (§4.2.1).
        if expires.any(|other| other != first) {
            return Some(Duration::ZERO);
        }
        let moment = dates::field(self.stored.fields(), &header::EXPIRES);
        Some(moment.and_then(|moment| moment.duration_since(self.stored.date()).ok()).unwrap_or_default())
    }

    /// A class speaks of what our policy stores: a success, and for seconds what is not there. Anything else is
    /// stored only because upstream said for how long.
    fn class_lifetime(&self) -> Option<Duration> {
        let fresh_for = self.class?.fresh_for?;
        match self.stored.status() {
            StatusCode::OK => Some(fresh_for),
            StatusCode::NOT_FOUND | StatusCode::GONE => Some(self.negative_fresh_for.min(fresh_for)),
            _ => None,
        }
    }

    /// Heuristics apply where a rule names a class without `fresh_for` (RFC 9111 §4.2.2).
    fn heuristic_lifetime(&self) -> Option<Duration> {
        if self.class?.fresh_for.is_some() {
            return None;
        }
        let directives = self.stored.directives();
        // "… status codes are defined as heuristically cacheable … and on responses without explicit freshness that have
        // been marked as explicitly cacheable".
        if !is_heuristically_cacheable(self.stored.status()) && !directives.has(ResponseFlags::PUBLIC) {
            return None;
        }
        let modified = dates::field(self.stored.fields(), &header::LAST_MODIFIED)?;
        let unchanged_for = self.stored.date().duration_since(modified).ok()?;
        Some((unchanged_for / HEURISTIC_DIVISOR).min(HEURISTIC_LIMIT))
    }

    /// Returns whether it was purged softly since it took off.
    pub fn is_purged(&self) -> bool {
        self.standing == Standing::Purged
    }

    /// Returns whether it may be reused stale while upstream could be asked.
    pub fn may_be_reused_stale(&self) -> bool {
        self.standing == Standing::Current && self.is_stale_reuse_permitted()
    }

    /// Returns whether it may be reused stale because upstream failed. One that was fetched soon after a write may: Sentry
    /// itself has answered so since.
    pub fn may_stand_in(&self) -> bool {
        self.standing != Standing::Unusable && self.is_stale_reuse_permitted()
    }

    /// "a cache MUST NOT generate a stale response if it is prohibited by an explicit in-protocol directive"
    /// (RFC 9111 §4.2.4).
    fn is_stale_reuse_permitted(&self) -> bool {
        if self.overrides() {
            return true;
        }
        let directives = self.stored.directives();
        let is_forbidden = directives.has(ResponseFlags::MUST_REVALIDATE)
            || directives.has(ResponseFlags::NO_CACHE)
            || (self.kind == CacheKind::Shared
                && (directives.has(ResponseFlags::PROXY_REVALIDATE) || directives.s_maxage.is_some()));
        !is_forbidden
    }

    /// Returns how long past its lifetime it may be reused while it is refreshed.
    pub fn stale_while_revalidate(&self) -> Duration {
        let ours = self.class.map_or(Duration::ZERO, |class| class.stale_while_revalidate);
        self.window(self.stored.directives().stale_while_revalidate, ours)
    }

    /// Returns how long past its lifetime it may be reused because upstream fails in this way.
    pub fn stale_if_error(&self, trouble: Trouble) -> Duration {
        let ours = match (self.class.map(|class| class.stale_if_error), trouble) {
            (Some(StaleIfError::For(window)), _) => window,
            (Some(StaleIfError::WhileDisconnected), Trouble::Disconnected) => DISCONNECTED_WINDOW,
            (Some(StaleIfError::WhileDisconnected), Trouble::Failing) | (None, _) => Duration::ZERO,
        };
        self.window(self.stored.directives().stale_if_error, ours)
    }

    /// Upstream's own window wins over ours, and an error gets none of ours.
    fn window(&self, stated: Option<Duration>, ours: Duration) -> Duration {
        let status = self.stored.status();
        let is_error = status.is_client_error() || status.is_server_error();
        let ours = if is_error { Duration::ZERO } else { ours };
        if self.overrides() { ours } else { stated.unwrap_or(ours) }
    }
}

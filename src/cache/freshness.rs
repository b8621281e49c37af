//! Decides for how long a stored response is fresh, and whether it may be reused: [RFC 9111] §4 and §5 in their order.
//!
//! Pure: no I/O, no clock; callers pass `now`. Where upstream states no lifetime, the route's
//! class does: Sentry sends no caching fields, so the policy is ours (`sentry-api.md` §4.5).
//!
//! Invariants: a response is never reused past its lifetime plus the stale window that applies; whatever cannot be
//! computed is stale; arithmetic saturates. This is the only place that weighs directives, rules and age.
//! Not here: what may be stored (`cache::storing`), keys and variants (`cache::key`), what writes do (`cache::generations`), asking (`proxy`).
//!
//! [RFC 9111]: https://www.rfc-editor.org/rfc/rfc9111

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header;

use crate::admission::AdmittedRequest;
use crate::cache::directives::{Asking, RequestDirectives, ResponseFlags, Validation};
use crate::cache::generations::Standing;
use crate::cache::policy::{CacheKind, FreshnessPolicy, is_heuristically_cacheable};
use crate::cache::stored_response::{Found, StoredResponse, date_field};
use crate::handling::ForwardReason;
use crate::routes::{ClassPolicy, Precedence, RoutePolicy};

/// The longest lifetime of a response that was fetched soon after a write to its subject.
const SETTLING_LIFETIME: Duration = Duration::from_secs(1);

/// "A typical setting of this fraction might be 10 %" (RFC 9111 §4.2.2).
const HEURISTIC_DIVISOR: u32 = 10;

/// The longest heuristic lifetime: beyond a day, users should not depend on a guess.
const HEURISTIC_LIMIT: Duration = Duration::from_hours(24);

/// How much longer than it may be reused a response with a validator is kept, to be freshened by a 304.
const VALIDATION_RETENTION: Duration = Duration::from_hours(1);

/// How long upstream's answer is fresh, from when it was generated ([RFC 9111 §4.2.1]).
///
/// [RFC 9111 §4.2.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FreshnessLifetime(pub Duration);

/// How long ago upstream generated or validated its answer ([RFC 9111 §4.2.3]).
///
/// [RFC 9111 §4.2.3]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CurrentAge(pub Duration);

/// Whether a stored response is fresh at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Its age is below its lifetime.
    Fresh {
        /// What is left of the lifetime.
        remaining: Duration,
    },
    /// It is not.
    Stale {
        /// How far its age is past the lifetime.
        by: Duration,
    },
}

impl Freshness {
    /// Compares age and lifetime: "response_is_fresh = (freshness_lifetime > current_age)" (RFC 9111 §4.2).
    pub fn of(lifetime: FreshnessLifetime, age: CurrentAge) -> Self {
        if age.0 < lifetime.0 {
            Self::Fresh { remaining: lifetime.0.saturating_sub(age.0) }
        } else {
            Self::Stale { by: age.0.saturating_sub(lifetime.0) }
        }
    }

    /// Returns what is left of the lifetime in whole seconds, negative when stale (`ttl` of RFC 9211).
    pub fn ttl(self) -> i64 {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        match self {
            Self::Fresh { remaining } => seconds(remaining),
            Self::Stale { by } => -seconds(by),
        }
    }
}

/// What to do with a request, given what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Reuse the stored response.
    Reuse(Freshness),
    /// Reuse it although it is stale, and refresh it in the background.
    ReuseThenRevalidate(Freshness),
    /// Ask upstream.
    Forward(ForwardReason),
    /// The client forbids asking, and nothing may be reused.
    OnlyIfCached,
}

/// Decides what to do with a request, given what was found for it ([RFC 9111 §4]).
///
/// [RFC 9111 §4]: https://www.rfc-editor.org/rfc/rfc9111#section-4
pub fn decide(
    request: &AdmittedRequest,
    found: &Found,
    policy: &FreshnessPolicy,
    now: SystemTime,
) -> Decision {
    let directives = policy.directives(request);
    let decision = match found {
        Found::Nothing => Decision::Forward(ForwardReason::UriMiss),
        Found::OtherVariant => Decision::Forward(ForwardReason::VaryMiss),
        Found::Unusable => Decision::Forward(ForwardReason::Invalidated),
        Found::Stored(stored, standing) => {
            Judgement::new(request, stored, policy, *standing).decide(directives, now)
        }
    };
    // "… a cache SHOULD either respond using a stored response consistent with the other constraints of the request
    // or respond with a 504 (Gateway Timeout) status code" (RFC 9111 §5.2.1.7).
    match (directives.asking, decision) {
        (Asking::Forbidden, Decision::Forward(_)) => Decision::OnlyIfCached,
        (Asking::Forbidden, Decision::ReuseThenRevalidate(freshness)) => Decision::Reuse(freshness),
        (Asking::Allowed | Asking::Forbidden, decision) => decision,
    }
}

/// Returns the freshness of a stored response at `now`.
pub fn freshness(
    request: &AdmittedRequest,
    stored: &StoredResponse,
    standing: Standing,
    policy: &FreshnessPolicy,
    now: SystemTime,
) -> Freshness {
    Judgement::new(request, stored, policy, standing).freshness(now)
}

/// Returns the freshness with which a stored response may answer because upstream failed; `None` where it may not
/// ([RFC 5861 §4], [RFC 9111 §4.2.4]).
///
/// [RFC 5861 §4]: https://www.rfc-editor.org/rfc/rfc5861#section-4
/// [RFC 9111 §4.2.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.4
pub fn reuse_on_error(
    request: &AdmittedRequest,
    found: &Found,
    policy: &FreshnessPolicy,
    now: SystemTime,
) -> Option<Freshness> {
    let Found::Stored(stored, standing) = found else { return None };
    let directives = policy.directives(request);
    let judgement = Judgement::new(request, stored, policy, *standing);
    let freshness = judgement.freshness(now);
    // The client's own limits hold when upstream is down, too.
    let is_welcome = directives.validation == Validation::WhenNeeded
        && is_young_enough(directives, current_age(stored, now))
        && is_fresh_enough(directives, freshness);
    let may_reuse = is_welcome
        && match freshness {
            // "no-cache … MUST NOT be used to satisfy any other request without forwarding it for validation and
            // receiving a successful response" (RFC 9111 §5.2.2.4).
            Freshness::Fresh { .. } => !judgement.must_validate(),
            Freshness::Stale { by } => judgement.may_serve_stale() && by < judgement.stale_if_error(),
        };
    may_reuse.then_some(freshness)
}

/// Returns how long a stored response is worth keeping: what is left of its lifetime, and its stale windows.
pub fn retention(
    request: &AdmittedRequest,
    stored: &StoredResponse,
    policy: &FreshnessPolicy,
    now: SystemTime,
) -> Duration {
    let judgement = Judgement::new(request, stored, policy, Standing::Current);
    let remaining = judgement.lifetime().0.saturating_sub(current_age(stored, now).0);
    let stale = judgement.stale_while_revalidate().max(judgement.stale_if_error());
    let validation = if stored.has_validator() { VALIDATION_RETENTION } else { Duration::ZERO };
    remaining.saturating_add(stale.max(validation)).max(SETTLING_LIFETIME)
}

/// Returns the current age of a stored response at `now` ([RFC 9111 §4.2.3]): its age on arrival, corrected for
/// transit, plus the time held here. Saturates; never negative.
///
/// [RFC 9111 §4.2.3]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
pub fn current_age(stored: &StoredResponse, now: SystemTime) -> CurrentAge {
    let since = |later: SystemTime, earlier| later.duration_since(earlier).unwrap_or_default();
    let provenance = stored.provenance();
    // apparent_age = max(0, response_time - date_value);
    let apparent_age = since(provenance.response_time, stored.date());
    // response_delay = response_time - request_time; corrected_age_value = age_value + response_delay;
    let response_delay = since(provenance.response_time, provenance.request_time);
    let corrected_age_value = stored.age_value().saturating_add(response_delay);
    // corrected_initial_age = max(apparent_age, corrected_age_value);
    let corrected_initial_age = apparent_age.max(corrected_age_value);
    // resident_time = now - response_time; current_age = corrected_initial_age + resident_time;
    let resident_time = since(now, provenance.response_time);
    CurrentAge(corrected_initial_age.saturating_add(resident_time))
}

/// "max-age … the client prefers a response whose age is less than or equal to the specified number of seconds"
/// (RFC 9111 §5.2.1.1).
fn is_young_enough(directives: RequestDirectives, age: CurrentAge) -> bool {
    directives.max_age.is_none_or(|limit| age.0 <= limit)
}

/// Returns whether the client takes a response of this freshness (RFC 9111 §5.2.1.1–3).
fn is_fresh_enough(directives: RequestDirectives, freshness: Freshness) -> bool {
    match freshness {
        // "min-fresh … a response whose freshness lifetime is no less than its current age plus the specified time".
        Freshness::Fresh { remaining } => directives.min_fresh.is_none_or(|wanted| wanted <= remaining),
        Freshness::Stale { by } => {
            // "max-stale … has exceeded its freshness lifetime by no more than" it; with `max-age`, "unless the
            // max-stale request directive is also present, the client does not wish to receive a stale response".
            let is_tolerated = directives.max_stale.map_or(directives.max_age.is_none(), |limit| by <= limit);
            is_tolerated && directives.min_fresh.is_none()
        }
    }
}

/// A stored response, seen by the rules that apply to it.
struct Judgement<'a> {
    stored: &'a StoredResponse,
    class: Option<&'a ClassPolicy>,
    /// Whether the class wins over upstream's own directives.
    overrides: bool,
    kind: CacheKind,
    standing: Standing,
    negative_fresh_for: Duration,
}

impl<'a> Judgement<'a> {
    fn new(
        request: &'a AdmittedRequest,
        stored: &'a StoredResponse,
        policy: &FreshnessPolicy,
        standing: Standing,
    ) -> Self {
        let (class, overrides) = match &request.route().policy {
            RoutePolicy::Class { class, precedence } => (Some(class), *precedence == Precedence::Rule),
            RoutePolicy::Never | RoutePolicy::Unmatched => (None, false),
        };
        let kind = CacheKind::of(request.partition());
        Self { stored, class, overrides, kind, standing, negative_fresh_for: policy.negative_fresh_for() }
    }

    /// RFC 9111 §4: what the response allows, then what the request demands (§5.2.1).
    fn decide(&self, directives: RequestDirectives, now: SystemTime) -> Decision {
        // "the stored response does not contain the no-cache directive, unless it is successfully validated".
        if self.must_validate() {
            return Decision::Forward(ForwardReason::AlwaysValidate);
        }
        // "no-cache … the client prefers a stored response not be used … without successful validation" (§5.2.1.4).
        if directives.validation == Validation::Demanded {
            return Decision::Forward(ForwardReason::ClientDirective);
        }
        if !is_young_enough(directives, current_age(self.stored, now)) {
            return Decision::Forward(ForwardReason::ClientDirective);
        }
        let freshness = self.freshness(now);
        match (freshness, is_fresh_enough(directives, freshness)) {
            (Freshness::Fresh { .. }, true) => Decision::Reuse(freshness),
            (Freshness::Fresh { .. }, false) => Decision::Forward(ForwardReason::ClientDirective),
            (Freshness::Stale { by }, true) => self.decide_stale(by, directives),
            (Freshness::Stale { .. }, false) => Decision::Forward(ForwardReason::Stale),
        }
    }

    /// "A cache MUST NOT generate a stale response unless it is disconnected or doing so is explicitly permitted by
    /// the client or origin server" (RFC 9111 §4.2.4); our windows are the operator's permission.
    fn decide_stale(&self, by: Duration, directives: RequestDirectives) -> Decision {
        let freshness = Freshness::Stale { by };
        if !self.may_serve_stale() {
            Decision::Forward(ForwardReason::Stale)
        } else if by < self.stale_while_revalidate() {
            Decision::ReuseThenRevalidate(freshness)
        } else if directives.max_stale.is_some() {
            Decision::Reuse(freshness)
        } else {
            Decision::Forward(ForwardReason::Stale)
        }
    }

    fn must_validate(&self) -> bool {
        match self.class_lifetime() {
            Some(lifetime) if self.overrides => lifetime.is_zero(),
            class => {
                self.stored.directives().has(ResponseFlags::NO_CACHE)
                    || (self.stated_lifetime().is_none() && class == Some(Duration::ZERO))
            }
        }
    }

    fn freshness(&self, now: SystemTime) -> Freshness {
        Freshness::of(self.lifetime(), current_age(self.stored, now))
    }

    /// RFC 9111 §4.2.1, with our classes in the place of what Sentry does not say.
    fn lifetime(&self) -> FreshnessLifetime {
        let class = self.class_lifetime();
        let stated =
            if self.overrides { class.or_else(|| self.stated_lifetime()) } else { self.stated_lifetime() };
        let lifetime = stated.or(class).or_else(|| self.heuristic_lifetime()).unwrap_or_default();
        FreshnessLifetime(match self.standing {
            Standing::Current => lifetime,
            Standing::Settling => lifetime.min(SETTLING_LIFETIME),
            Standing::Unusable => Duration::ZERO,
        })
    }

    /// "If the cache is shared and the s-maxage response directive is present, use its value, or if the max-age
    /// response directive is present, use its value, or if the Expires response header field is present, use its
    /// value minus the value of the Date response header field" (RFC 9111 §4.2.1).
    fn stated_lifetime(&self) -> Option<Duration> {
        let directives = self.stored.directives();
        if self.kind == CacheKind::Shared && directives.s_maxage.is_some() {
            return directives.s_maxage;
        }
        if directives.max_age.is_some() {
            return directives.max_age;
        }
        let mut expires = self.stored.fields().get_all(header::EXPIRES).iter();
        let first = expires.next()?;
        // "… invalid dates, especially including the value "0", as representing a time in the past" (§5.3); several
        // that differ: "the response should be considered stale" (§4.2.1).
        if expires.any(|other| other != first) {
            return Some(Duration::ZERO);
        }
        let moment = date_field(self.stored.fields(), &header::EXPIRES);
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
        self.class?;
        let directives = self.stored.directives();
        // "heuristics can only be used on responses without explicit freshness whose status codes are defined as
        // heuristically cacheable … or that have been marked as explicitly cacheable".
        if !is_heuristically_cacheable(self.stored.status()) && !directives.has(ResponseFlags::PUBLIC) {
            return None;
        }
        let modified = date_field(self.stored.fields(), &header::LAST_MODIFIED)?;
        let unchanged_for = self.stored.date().duration_since(modified).ok()?;
        Some((unchanged_for / HEURISTIC_DIVISOR).min(HEURISTIC_LIMIT))
    }

    /// "A cache MUST NOT generate a stale response if it is prohibited by an explicit in-protocol directive"
    /// (RFC 9111 §4.2.4).
    fn may_serve_stale(&self) -> bool {
        if self.standing != Standing::Current {
            return false;
        }
        if self.overrides {
            return true;
        }
        let directives = self.stored.directives();
        let is_forbidden = directives.has(ResponseFlags::MUST_REVALIDATE)
            || directives.has(ResponseFlags::NO_CACHE)
            || (self.kind == CacheKind::Shared
                && (directives.has(ResponseFlags::PROXY_REVALIDATE) || directives.s_maxage.is_some()));
        !is_forbidden
    }

    fn stale_while_revalidate(&self) -> Duration {
        let ours = self.class.map_or(Duration::ZERO, |class| class.stale_while_revalidate);
        self.window(self.stored.directives().stale_while_revalidate, ours)
    }

    fn stale_if_error(&self) -> Duration {
        let ours = self.class.map_or(Duration::ZERO, |class| class.stale_if_error);
        self.window(self.stored.directives().stale_if_error, ours)
    }

    /// Upstream's own window wins over ours, and an error gets none of ours.
    fn window(&self, stated: Option<Duration>, ours: Duration) -> Duration {
        let status = self.stored.status();
        let is_error = status.is_client_error() || status.is_server_error();
        let ours = if is_error { Duration::ZERO } else { ours };
        if self.overrides { ours } else { stated.unwrap_or(ours) }
    }
}

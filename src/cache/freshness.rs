//! Decides whether a stored response is fresh, and whether it may be reused: [RFC 9111] §4 and §5 in their order.
//!
//! Pure: no I/O, no clock; callers pass `now`. Weighs what holds for a response (`cache::terms`) against its age and the
//! client's directives, and is the only place that does.
//!
//! Invariants: a response is never reused past its lifetime plus the stale window that applies; arithmetic saturates.
//! Not here: lifetimes and windows (`cache::terms`), what may be stored (`cache::storing`), keys and variants
//! (`cache::key`), what writes do (`cache::generations`), asking (`proxy`).
//!
//! [RFC 9111]: https://www.rfc-editor.org/rfc/rfc9111

use std::time::{Duration, SystemTime};

use crate::admission::AdmittedRequest;
use crate::cache::directives::{Asking, RequestDirectives, Storing, Validation};
use crate::cache::generations::Standing;
use crate::cache::policy::FreshnessPolicy;
use crate::cache::stored_response::{Found, StoredResponse};
use crate::cache::terms::{FreshnessLifetime, SETTLING_LIFETIME, Terms, Trouble};
use crate::handling::ForwardReason;

/// How much longer than its windows a response is kept that may still be of use: freshened, or reused stale because the
/// client says so.
const STALE_RETENTION: Duration = Duration::from_hours(1);

/// How often something was asked for while it was stored that will probably be asked for again.
const REUSES_WORTH_A_REFRESH: u32 = 3;

/// Which last part of its lifetime it is refreshed in: a tenth.
const LAST_PART: u32 = 10;

/// Shorter lifetimes have no last part that upstream could answer within.
const SHORTEST_REFRESHED: Duration = Duration::from_secs(5);

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
    /// Reuse it although it is stale, without asking upstream, which should be asked as little as possible.
    ReuseUnderPressure(Freshness),
    /// Reuse it, and refresh it in the background before it goes stale.
    RefreshAhead(Freshness),
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
            let terms = Terms::new(request, stored, policy, *standing);
            decide_on(&terms, directives, policy, now)
        }
    };
    // "Caches that honor this request directive SHOULD, upon receiving it, respond with either a stored response
    // consistent with the other constraints of the request or a 504 (Gateway Timeout) status code" (RFC 9111 §5.2.1.7).
    match (directives.asking, decision) {
        (Asking::Forbidden, Decision::Forward(_)) => Decision::OnlyIfCached,
        (Asking::Forbidden, Decision::ReuseThenRevalidate(freshness) | Decision::RefreshAhead(freshness)) => {
            Decision::Reuse(freshness)
        }
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
    freshness_on(&Terms::new(request, stored, policy, standing), now)
}

/// Returns the freshness with which a stored response may answer because upstream failed; `None` where it may not
/// ([RFC 5861 §4], [RFC 9111 §4.2.4]).
///
/// [RFC 5861 §4]: https://www.rfc-editor.org/rfc/rfc5861#section-4
/// [RFC 9111 §4.2.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.4
pub fn reuse_on_error(
    request: &AdmittedRequest,
    found: &Found,
    trouble: Trouble,
    (policy, now): (&FreshnessPolicy, SystemTime),
) -> Option<Freshness> {
    let Found::Stored(stored, standing) = found else { return None };
    let directives = policy.directives(request);
    let terms = Terms::new(request, stored, policy, *standing);
    let freshness = freshness_on(&terms, now);
    // The client's own limits hold when upstream is down, too.
    let is_welcome = directives.validation == Validation::WhenNeeded
        && is_young_enough(&terms, directives, freshness, now)
        && is_fresh_enough(directives, freshness);
    let may_reuse = is_welcome
        && match freshness {
            // "no-cache … MUST NOT be used to satisfy any other request without forwarding it for validation and
            // receiving a successful response" (RFC 9111 §5.2.2.4).
            Freshness::Fresh { .. } => !terms.must_validate(),
            Freshness::Stale { by } => terms.may_stand_in() && by < terms.stale_if_error(trouble),
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
    let terms = Terms::new(request, stored, policy, Standing::Current);
    let remaining = terms.lifetime().0.saturating_sub(current_age(stored, now).0);
    let stale = terms.stale_while_revalidate().max(terms.stale_if_error(Trouble::Disconnected));
    let is_of_use = stored.has_validator() || terms.may_be_reused_stale();
    let further = if is_of_use { STALE_RETENTION } else { Duration::ZERO };
    remaining.saturating_add(stale.max(further)).max(SETTLING_LIFETIME)
}

/// Returns the current age of a stored response at `now` ([RFC 9111 §4.2.3]): its age on arrival, corrected for
/// transit, plus the time held here. Saturates; never negative.
///
/// [RFC 9111 §4.2.3]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
pub fn current_age(stored: &StoredResponse, now: SystemTime) -> CurrentAge {
    let since = |later: SystemTime, earlier| later.duration_since(earlier).unwrap_or_default();
    let provenance = stored.provenance();
    // apparent_age = max(0, response_time - date_value), "if the local clock is reasonably well synchronized to the origin
    // server's clock". What tells neither its age nor its lifetime comes from no cache: then an old date says that the clocks
    // differ, and must not make stale what has just been made.
    let apparent_age =
        if stored.tells_its_age() { since(provenance.response_time, stored.date()) } else { Duration::ZERO };
    // response_delay = response_time - request_time; corrected_age_value = age_value + response_delay;
    let response_delay = since(provenance.response_time, provenance.request_time);
    let corrected_age_value = stored.age_value().saturating_add(response_delay);
    // corrected_initial_age = max(apparent_age, corrected_age_value);
    let corrected_initial_age = apparent_age.max(corrected_age_value);
    // resident_time = now - response_time; current_age = corrected_initial_age + resident_time;
    let resident_time = since(now, provenance.response_time);
    CurrentAge(corrected_initial_age.saturating_add(resident_time))
}

/// RFC 9111 §4: what the response allows, then what the request demands (§5.2.1).
fn decide_on(
    terms: &Terms<'_>,
    directives: RequestDirectives,
    policy: &FreshnessPolicy,
    now: SystemTime,
) -> Decision {
    // "the stored response does not contain the no-cache directive, unless it is successfully validated".
    if terms.must_validate() {
        return Decision::Forward(ForwardReason::AlwaysValidate);
    }
    // "no-cache … the client prefers a stored response not be used … without successful validation" (§5.2.1.4).
    // "no-store" (§5.2.1.5) speaks of storing alone, but whoever sends it wants nothing to do with a cache.
    if directives.validation == Validation::Demanded || directives.storing == Storing::Forbidden {
        return Decision::Forward(ForwardReason::ClientDirective);
    }
    let freshness = freshness_on(terms, now);
    if !is_young_enough(terms, directives, freshness, now) {
        return Decision::Forward(ForwardReason::ClientDirective);
    }
    match (freshness, is_fresh_enough(directives, freshness)) {
        (Freshness::Fresh { remaining }, true) if is_worth_refreshing(terms, remaining, policy) => {
            Decision::RefreshAhead(freshness)
        }
        (Freshness::Fresh { .. }, true) => Decision::Reuse(freshness),
        (Freshness::Fresh { .. }, false) => Decision::Forward(ForwardReason::ClientDirective),
        (Freshness::Stale { by }, true) => decide_stale(terms, by, directives, policy),
        (Freshness::Stale { .. }, false) => Decision::Forward(ForwardReason::Stale),
    }
}

/// "A cache MUST NOT generate a stale response unless it is disconnected or doing so is explicitly permitted by
/// the client or origin server" (RFC 9111 §4.2.4); our windows are the operator's permission.
fn decide_stale(
    terms: &Terms<'_>,
    by: Duration,
    directives: RequestDirectives,
    policy: &FreshnessPolicy,
) -> Decision {
    let freshness = Freshness::Stale { by };
    if terms.is_purged() {
        // Whoever purges wants nobody to see it once more, while upstream can be asked.
        Decision::Forward(ForwardReason::Purged)
    } else if !terms.may_be_reused_stale() {
        Decision::Forward(ForwardReason::Stale)
    } else if policy.is_budget_low() && by < terms.stale_while_revalidate().max(stretch(terms, policy)) {
        Decision::ReuseUnderPressure(freshness)
    } else if by < terms.stale_while_revalidate() {
        Decision::ReuseThenRevalidate(freshness)
    } else if directives.max_stale.is_some() {
        Decision::Reuse(freshness)
    } else {
        Decision::Forward(ForwardReason::Stale)
    }
}

/// Returns how much longer than its lifetime a response may be reused while the budget runs low.
fn stretch(terms: &Terms<'_>, policy: &FreshnessPolicy) -> Duration {
    let lifetime = terms.stretchable_lifetime().unwrap_or_default();
    policy.stretched(lifetime).saturating_sub(lifetime)
}

/// Returns whether a fresh response will be stale soon, and has been asked for so often that it will be missed.
fn is_worth_refreshing(terms: &Terms<'_>, remaining: Duration, policy: &FreshnessPolicy) -> bool {
    let lifetime = terms.lifetime().0;
    policy.may_refresh_ahead()
        && REUSES_WORTH_A_REFRESH <= terms.stored().reuses()
        && SHORTEST_REFRESHED <= lifetime
        && remaining < lifetime / LAST_PART
        && !terms.is_immutable()
}

fn freshness_on(terms: &Terms<'_>, now: SystemTime) -> Freshness {
    Freshness::of(terms.lifetime(), current_age(terms.stored(), now))
}

/// "max-age … the client prefers a response whose age is less than or equal to the specified number of seconds"
/// (RFC 9111 §5.2.1.1), which a reload sends with 0. "Proxies SHOULD skip conditionally revalidating fresh responses
/// containing the immutable extension unless there is a signal from the client that a validation is necessary (e.g., a
/// no-cache Cache-Control request directive)" (RFC 8246 §2.1).
fn is_young_enough(
    terms: &Terms<'_>,
    directives: RequestDirectives,
    freshness: Freshness,
    now: SystemTime,
) -> bool {
    match freshness {
        Freshness::Fresh { .. } if terms.is_immutable() => true,
        Freshness::Fresh { .. } | Freshness::Stale { .. } => {
            directives.max_age.is_none_or(|limit| current_age(terms.stored(), now).0 <= limit)
        }
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;
    use crate::config::cache::{ClassConfig, ClientDirectives, RuleConfig};
    use crate::config::{Config, load};
    use crate::pressure::Pressure;
    use crate::testing::{SUBJECT, TOKEN, admitted, fields, provenance, start, stored};

    /// `Date` at [`start`], and moments around it.
    const DATE: (&str, &str) = ("date", "Fri, 15 Jan 2027 08:00:00 GMT");
    const HOUR_AGO: &str = "Fri, 15 Jan 2027 07:00:00 GMT";
    const MINUTE_AGO: &str = "Fri, 15 Jan 2027 07:59:00 GMT";
    const IN_A_MINUTE: &str = "Fri, 15 Jan 2027 08:01:00 GMT";

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A stored response, what is asked for it, and the rules under which.
    struct Scene {
        config: Config,
        credential: Vec<(&'static str, &'static str)>,
        asks: String,
        status: u16,
        says: Vec<(&'static str, &'static str)>,
        standing: Standing,
    }

    /// A private partition, no rule, a plain request; upstream answered 200 and said this in `Cache-Control`.
    fn says(directives: &'static str) -> Scene {
        says_fields(&[("cache-control", directives)])
    }

    fn says_fields(pairs: &[(&'static str, &'static str)]) -> Scene {
        let mut config = load::defaults();
        config.cache.default_rules = false;
        Scene {
            config,
            credential: vec![TOKEN],
            asks: String::new(),
            status: 200,
            says: pairs.to_vec(),
            standing: Standing::Current,
        }
    }

    /// Upstream said nothing at all.
    fn silent() -> Scene {
        says_fields(&[])
    }

    impl Scene {
        fn in_the_shared_cache(mut self) -> Self {
            self.config.cache.anonymous = true;
            self.credential.clear();
            self
        }

        fn asked(self, directives: &str) -> Self {
            Self { asks: directives.to_owned(), ..self }
        }

        fn with_status(self, status: u16) -> Self {
            Self { status, ..self }
        }

        fn standing(self, standing: Standing) -> Self {
            Self { standing, ..self }
        }

        /// Adds a rule: fresh for, stale while revalidating, stale if there is an error.
        fn under(mut self, fresh_for: Option<u64>, revalidate: u64, error: u64) -> Self {
            let class = ClassConfig {
                fresh_for: fresh_for.map(seconds),
                stale_while_revalidate: seconds(revalidate),
                stale_if_error: Some(seconds(error)),
            };
            self.config.cache.classes.insert("subject".to_owned(), class);
            self.config.cache.rules = vec![RuleConfig {
                route: "/api/0/organizations/{organization}/subject/".to_owned(),
                class: Some("subject".to_owned()),
                never: false,
                overrides: false,
            }];
            self
        }

        /// The same, with a rule that says `override`.
        fn overridden(self, fresh_for: Option<u64>, revalidate: u64, error: u64) -> Self {
            let mut scene = self.under(fresh_for, revalidate, error);
            scene.config.cache.rules[0].overrides = true;
            scene
        }

        fn request(&self) -> AdmittedRequest {
            let asks = (!self.asks.is_empty()).then_some(("cache-control", self.asks.as_str()));
            let pairs: Vec<_> = self.credential.iter().copied().chain(asks).collect();
            admitted(&self.config, SUBJECT, &pairs)
        }

        fn policy(&self) -> FreshnessPolicy {
            FreshnessPolicy::new(&self.config)
        }

        fn found(&self) -> Found {
            Found::Stored(Arc::new(stored(self.status, &self.says)), self.standing)
        }

        fn decide(&self, now: SystemTime) -> Decision {
            decide(&self.request(), &self.found(), &self.policy(), now)
        }

        fn on_error(&self, trouble: Trouble, now: SystemTime) -> Option<Freshness> {
            reuse_on_error(&self.request(), &self.found(), trouble, (&self.policy(), now))
        }
    }

    /// Says a decision in a word or two: `reuse 5`, `refresh -5`, `forward stale`, `only-if-cached`.
    fn told(decision: Decision) -> String {
        match decision {
            Decision::Reuse(freshness) => format!("reuse {}", freshness.ttl()),
            Decision::ReuseThenRevalidate(freshness) => format!("refresh {}", freshness.ttl()),
            Decision::ReuseUnderPressure(freshness) => format!("keep {}", freshness.ttl()),
            Decision::RefreshAhead(freshness) => format!("refresh ahead {}", freshness.ttl()),
            Decision::Forward(reason) => format!("forward {reason}"),
            Decision::OnlyIfCached => "only-if-cached".to_owned(),
        }
    }

    /// Holds what is decided at these ages.
    fn check(scene: &Scene, rows: &[(u64, &str)]) {
        for (age, expected) in rows {
            let decision = scene.decide(start() + seconds(*age));
            let (asks, says) = (&scene.asks, &scene.says);
            assert_eq!(told(decision), *expected, "asks {asks:?}, says {says:?}, at age {age}");
        }
    }

    /// Holds with which `ttl` a response stands in for a failed upstream at these ages.
    fn check_on_error(scene: &Scene, rows: &[(u64, Option<i64>)]) {
        for trouble in [Trouble::Disconnected, Trouble::Failing] {
            check_in_trouble(scene, trouble, rows);
        }
    }

    fn check_in_trouble(scene: &Scene, trouble: Trouble, rows: &[(u64, Option<i64>)]) {
        for (age, expected) in rows {
            let freshness = scene.on_error(trouble, start() + seconds(*age)).map(Freshness::ttl);
            let (asks, says) = (&scene.asks, &scene.says);
            assert_eq!(freshness, *expected, "asks {asks:?}, says {says:?}, at age {age}, {trouble:?}");
        }
    }

    #[test]
    fn rfc9111_4_what_cannot_be_reused_is_forwarded_for_its_own_reason() {
        let scene = silent();
        let decided =
            |found: &Found| told(decide(&scene.request(), found, &scene.policy(), start() + seconds(1)));
        assert_eq!(decided(&Found::Nothing), "forward uri-miss");
        assert_eq!(decided(&Found::OtherVariant), "forward vary-miss");
        assert_eq!(decided(&Found::Unusable), "forward invalidated");
        assert_eq!(decided(&scene.found()), "forward stale");
    }

    #[test]
    fn rfc9111_4_2_a_response_is_fresh_while_its_age_is_below_its_lifetime() {
        check(&says("max-age=60"), &[(0, "reuse 60"), (59, "reuse 1"), (60, "forward stale")]);
        check(&says("max-age=0"), &[(0, "forward stale")]);
        check(&says("max-age=99999999999"), &[(60, "reuse 2147483588")]);
    }

    #[test]
    fn rfc9111_4_2_1_s_maxage_wins_only_in_the_shared_cache() {
        let longer = || says("s-maxage=60, max-age=10");
        check(&longer().in_the_shared_cache(), &[(30, "reuse 30"), (60, "forward stale")]);
        check(&longer(), &[(9, "reuse 1"), (30, "forward stale")]);
        check(&says("max-age=60, s-maxage=10").in_the_shared_cache(), &[(30, "forward stale")]);
        check(&says("max-age=60, s-maxage=10"), &[(30, "reuse 30")]);
        check(&says("s-maxage=60"), &[(0, "forward stale")]);
    }

    #[test]
    fn rfc9111_4_2_1_max_age_wins_over_expires_and_expires_counts_from_date() {
        let expires = |value| says_fields(&[DATE, ("expires", value)]);
        check(&expires(IN_A_MINUTE), &[(59, "reuse 1"), (60, "forward stale")]);
        check(&expires(MINUTE_AGO), &[(0, "forward stale")]);
        let both = [DATE, ("expires", IN_A_MINUTE), ("cache-control", "max-age=5")];
        check(&says_fields(&both), &[(4, "reuse 1"), (5, "forward stale")]);
        check(&says_fields(&[("expires", IN_A_MINUTE)]), &[(59, "reuse 1")]);
    }

    #[test]
    fn rfc9111_4_2_1_the_lifetime_of_expires_starts_at_date_even_when_the_answer_came_late() {
        let late = says_fields(&[("date", MINUTE_AGO), ("expires", IN_A_MINUTE)]);
        check(&late, &[(0, "reuse 60"), (60, "forward stale")]);
    }

    #[test]
    fn rfc9111_4_2_1_what_cannot_be_computed_is_stale() {
        check(&says("max-age=60, max-age=70"), &[(0, "forward stale")]);
        check(&says("max-age=soon"), &[(0, "forward stale")]);
        let twice = |other| says_fields(&[DATE, ("expires", IN_A_MINUTE), ("expires", other)]);
        check(&twice(IN_A_MINUTE), &[(30, "reuse 30")]);
        check(&twice(MINUTE_AGO), &[(0, "forward stale")]);
    }

    #[test]
    fn rfc9111_4_2_1_a_class_speaks_only_where_upstream_is_silent() {
        check(&silent().under(Some(60), 0, 0), &[(59, "reuse 1"), (60, "forward stale")]);
        check(&says("max-age=5").under(Some(60), 0, 0), &[(4, "reuse 1"), (5, "forward stale")]);
        check(&says("max-age=0").under(Some(60), 0, 0), &[(0, "forward stale")]);
        check(&says_fields(&[("expires", "0")]).under(Some(60), 0, 0), &[(0, "forward stale")]);
        check(&says("s-maxage=0").under(Some(60), 0, 0), &[(30, "reuse 30")]);
        check(&silent(), &[(0, "forward stale")]);
    }

    #[test]
    fn rfc9111_4_2_1_a_rule_that_says_override_wins_over_upstream() {
        check(&says("max-age=5").overridden(Some(60), 0, 0), &[(59, "reuse 1"), (60, "forward stale")]);
        check(&says("max-age=500").overridden(Some(60), 0, 0), &[(60, "forward stale")]);
        check(
            &says("no-cache, must-revalidate").overridden(Some(60), 30, 0),
            &[(59, "reuse 1"), (61, "refresh -1"), (90, "forward stale")],
        );
        check(
            &says("max-age=60, stale-while-revalidate=60").overridden(Some(5), 0, 0),
            &[(5, "forward stale")],
        );
        check(&says("max-age=60").overridden(Some(0), 60, 0), &[(0, "forward always-validate")]);
    }

    #[test]
    fn rfc9111_4_2_4_a_rule_that_says_override_overrides_no_prohibition_where_its_class_has_no_lifetime() {
        let scene = says("max-age=5, must-revalidate").with_status(503).overridden(Some(60), 60, 60);
        check(&scene.asked("max-stale=60"), &[(4, "reuse 1"), (5, "forward stale")]);
    }

    #[test]
    fn rfc9111_4_2_1_a_rule_without_a_lifetime_has_nothing_to_override_with() {
        check(&says("max-age=60").overridden(None, 0, 0), &[(59, "reuse 1"), (60, "forward stale")]);
        check(&says("max-age=60, no-cache").overridden(None, 0, 0), &[(0, "forward always-validate")]);
    }

    #[test]
    fn rfc9111_4_2_1_a_class_is_no_lifetime_for_a_status_that_only_upstream_lets_us_store() {
        check(
            &says("max-age=5").with_status(503).overridden(Some(60), 60, 60),
            &[(4, "reuse 1"), (5, "forward stale")],
        );
        check(&says("max-age=5").with_status(500).under(Some(60), 60, 60), &[(5, "forward stale")]);
        check(
            &says("no-cache, max-age=5").with_status(503).overridden(Some(60), 0, 0),
            &[(0, "forward always-validate")],
        );
    }

    #[test]
    fn rfc9111_4_2_2_heuristics_apply_only_under_a_class_without_a_lifetime() {
        let modified = || says_fields(&[DATE, ("last-modified", HOUR_AGO)]);
        check(&modified().under(None, 0, 0), &[(359, "reuse 1"), (360, "forward stale")]);
        check(&modified(), &[(0, "forward stale")]);
        check(&modified().under(Some(10), 0, 0), &[(10, "forward stale")]);
        check(&silent().under(None, 0, 0), &[(0, "forward stale")]);
        let explicit = says_fields(&[DATE, ("last-modified", HOUR_AGO), ("cache-control", "max-age=5")]);
        check(&explicit.under(None, 0, 0), &[(5, "forward stale")]);
    }

    #[test]
    fn rfc9111_4_2_2_heuristics_need_a_status_that_allows_them_and_end_after_a_day() {
        let modified =
            |status| says_fields(&[DATE, ("last-modified", HOUR_AGO)]).with_status(status).under(None, 0, 0);
        for status in [203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            check(&modified(status), &[(359, "reuse 1")]);
        }
        for status in [201, 302, 307, 403, 500, 503] {
            check(&modified(status), &[(0, "forward stale")]);
        }
        let public = [DATE, ("last-modified", HOUR_AGO), ("cache-control", "public")];
        check(&says_fields(&public).with_status(302).under(None, 0, 0), &[(359, "reuse 1")]);
        let old = says_fields(&[DATE, ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        check(&old.under(None, 0, 0), &[(86_399, "reuse 1"), (86_400, "forward stale")]);
    }

    #[test]
    fn rfc9111_4_2_2_a_modification_in_the_future_is_no_ground_for_a_guess() {
        let future = says_fields(&[DATE, ("last-modified", IN_A_MINUTE)]);
        check(&future.under(None, 0, 0), &[(0, "forward stale")]);
    }

    #[test]
    fn rfc9111_4_2_3_the_current_age_is_the_greater_of_two_estimates_and_the_time_held_here() {
        // `Date`, `Age`, seconds from the request to its answer, seconds since: the age.
        let check = |date: &'static str, age: &'static str, (delay, since): (u64, u64), expected: u64| {
            let mut came_from = provenance(start());
            came_from.request_time = start() - seconds(delay);
            let body = crate::cache::body::StoredBody::identity(bytes::Bytes::new());
            let fields = fields(&[("date", date), ("age", age), ("cache-control", "max-age=60")]);
            let stored = StoredResponse::new(StatusCode::OK, &fields, body, came_from);
            let current = current_age(&stored, start() + seconds(since));
            assert_eq!(current, CurrentAge(seconds(expected)), "date {date}, age {age}, {delay} + {since}");
        };
        check(DATE.1, "0", (0, 0), 0);
        check(DATE.1, "0", (0, 7), 7);
        check(MINUTE_AGO, "0", (0, 7), 67);
        check(MINUTE_AGO, "100", (0, 7), 107);
        check(MINUTE_AGO, "58", (5, 7), 70);
        check(MINUTE_AGO, "50", (5, 7), 67);
        check(IN_A_MINUTE, "0", (0, 7), 7);
        check(DATE.1, "junk", (3, 7), 10);
        check(DATE.1, "99999999999", (0, 1), 2_147_483_649);
    }

    #[test]
    fn a_date_that_is_long_past_makes_nothing_old_that_tells_neither_age_nor_lifetime() {
        let age = |pairs: &[(&str, &str)]| current_age(&stored(200, pairs), start() + seconds(7));
        let old = ("date", HOUR_AGO);
        assert_eq!(age(&[old]), CurrentAge(seconds(7)));
        for telling in [("age", "5"), ("cdn-cache-control", "max-age=60"), ("expires", IN_A_MINUTE)] {
            assert_eq!(age(&[old, telling]), CurrentAge(seconds(3_607)), "{telling:?}");
        }
    }

    #[test]
    fn rfc9111_4_2_3_a_clock_that_steps_back_makes_nothing_younger_than_it_came() {
        let stored = stored(200, &[DATE, ("age", "30")]);
        assert_eq!(current_age(&stored, start() - seconds(500)), CurrentAge(seconds(30)));
    }

    #[test]
    fn rfc9111_4_2_4_a_stale_response_is_reused_only_within_a_window_that_somebody_granted() {
        check(
            &silent().under(Some(60), 30, 0),
            &[(59, "reuse 1"), (60, "refresh 0"), (89, "refresh -29"), (90, "forward stale")],
        );
        check(&says("max-age=60"), &[(60, "forward stale")]);
        check_on_error(&says("max-age=60"), &[(59, Some(1)), (60, None)]);
    }

    #[test]
    fn rfc9111_4_2_4_prohibitions_win_over_every_window() {
        for forbidden in [
            "max-age=60, must-revalidate, stale-while-revalidate=60, stale-if-error=60",
            "max-age=60, must-revalidate",
        ] {
            let scene = || says(forbidden).under(Some(60), 60, 60);
            check(&scene(), &[(59, "reuse 1"), (60, "forward stale")]);
            check(&scene().asked("max-stale"), &[(60, "forward stale")]);
            check_on_error(&scene(), &[(60, None)]);
        }
    }

    #[test]
    fn rfc9111_5_2_2_8_proxy_revalidate_and_s_maxage_forbid_stale_reuse_in_the_shared_cache_alone() {
        for directives in ["max-age=60, proxy-revalidate", "max-age=60, s-maxage=60"] {
            let scene = || says(directives).under(None, 60, 60);
            check(&scene().in_the_shared_cache(), &[(59, "reuse 1"), (60, "forward stale")]);
            check_on_error(&scene().in_the_shared_cache(), &[(60, None)]);
            check(&scene(), &[(60, "refresh 0")]);
            check_on_error(&scene(), &[(119, Some(-59)), (120, None)]);
        }
    }

    #[test]
    fn rfc9111_5_2_2_4_no_cache_is_validated_before_every_reuse() {
        for directives in ["no-cache, max-age=60", "max-age=60, no-cache=\"\"", "no-cache"] {
            let scene = || says(directives).under(Some(60), 60, 60);
            check(&scene(), &[(0, "forward always-validate"), (61, "forward always-validate")]);
            check(&scene().asked("max-stale"), &[(61, "forward always-validate")]);
            check_on_error(&scene(), &[(0, None), (30, None), (61, None)]);
        }
    }

    #[test]
    fn rfc9111_5_2_1_1_max_age_is_the_greatest_age_that_the_client_takes() {
        check(&says("max-age=60").asked("max-age=10"), &[(10, "reuse 50"), (11, "forward client-directive")]);
        check(&says("max-age=60").asked("max-age=0"), &[(1, "forward client-directive")]);
        check(&says("max-age=60").asked("max-age=100"), &[(59, "reuse 1"), (60, "forward stale")]);
    }

    #[test]
    fn rfc8246_2_1_an_immutable_response_is_not_validated_for_its_age_while_it_is_fresh() {
        for asks in ["max-age=0", "max-age=10"] {
            check(
                &says("max-age=60, immutable").asked(asks),
                &[(30, "reuse 30"), (59, "reuse 1"), (60, "forward client-directive")],
            );
            check(&says("immutable").under(Some(60), 0, 0).asked(asks), &[(30, "reuse 30")]);
        }
        check_on_error(&says("max-age=60, immutable").asked("max-age=0"), &[(59, Some(1)), (60, None)]);
        for asks in ["no-cache", "max-age=0, min-fresh=40", "no-store"] {
            check(&says("max-age=60, immutable").asked(asks), &[(30, "forward client-directive")]);
        }
        let written = says("max-age=60, immutable").asked("max-age=0").standing(Standing::Settling);
        check(&written, &[(1, "forward client-directive")]);
        let overridden = says("immutable").overridden(Some(60), 0, 0).asked("max-age=10");
        check(&overridden, &[(30, "forward client-directive")]);
        // A stale one is as old as it is.
        let stale = says("max-age=60, immutable").under(None, 60, 60).asked("max-age=10, max-stale");
        check(&stale, &[(61, "forward client-directive")]);
        check_on_error(&stale, &[(61, None)]);
    }

    #[test]
    fn rfc9111_5_2_1_1_a_client_with_max_age_takes_nothing_stale_without_max_stale() {
        let scene = |asks| says("max-age=60").under(None, 60, 60).asked(asks);
        check(&scene("max-age=100"), &[(59, "reuse 1"), (60, "forward stale")]);
        check(&scene("max-age=100, max-stale"), &[(60, "refresh 0"), (101, "forward client-directive")]);
        check_on_error(&scene("max-age=100"), &[(59, Some(1)), (60, None)]);
        check_on_error(&scene("max-age=100, max-stale"), &[(60, Some(0)), (101, None)]);
    }

    #[test]
    fn rfc9111_5_2_1_2_max_stale_lets_a_response_be_stale_by_no_more_than_it_says() {
        check(
            &says("max-age=60").asked("max-stale=10"),
            &[(59, "reuse 1"), (70, "reuse -10"), (71, "forward stale")],
        );
        check(&says("max-age=60").asked("max-stale"), &[(9_999, "reuse -9939")]);
        check(&says("max-age=60").asked("max-stale=junk"), &[(61, "forward stale")]);
    }

    #[test]
    fn rfc9111_5_2_1_2_max_stale_bounds_our_windows_too() {
        let scene = || says("max-age=60").under(None, 60, 60).asked("max-stale=10");
        check(&scene(), &[(70, "refresh -10"), (71, "forward stale")]);
        check_on_error(&scene(), &[(70, Some(-10)), (71, None)]);
    }

    #[test]
    fn rfc9111_5_2_1_3_min_fresh_wants_what_stays_fresh_and_nothing_stale() {
        let scene = || says("max-age=60").under(None, 60, 60).asked("min-fresh=20");
        check(&scene(), &[(40, "reuse 20"), (41, "forward client-directive"), (60, "forward stale")]);
        check_on_error(&scene(), &[(40, Some(20)), (41, None), (60, None)]);
        check(&says("max-age=60").asked("min-fresh=junk"), &[(0, "forward client-directive")]);
        check(&says("max-age=60").asked("min-fresh=0, max-stale"), &[(59, "reuse 1"), (60, "forward stale")]);
    }

    #[test]
    fn rfc9111_5_2_1_4_no_cache_demands_validation_even_when_upstream_is_down() {
        let scene = || says("max-age=60").under(None, 60, 60).asked("no-cache");
        check(&scene(), &[(0, "forward client-directive"), (61, "forward client-directive")]);
        check_on_error(&scene(), &[(0, None), (61, None)]);
    }

    #[test]
    fn rfc9111_5_2_1_7_only_if_cached_never_asks_upstream_not_even_behind_the_clients_back() {
        let scene = |asks| says("max-age=60").under(None, 60, 0).asked(asks);
        check(&scene("only-if-cached"), &[(59, "reuse 1"), (61, "reuse -1"), (120, "only-if-cached")]);
        check(&scene("only-if-cached, max-stale"), &[(120, "reuse -60")]);
        check(&scene("only-if-cached, no-cache"), &[(0, "only-if-cached")]);
        check(&scene("only-if-cached, max-age=5"), &[(6, "only-if-cached")]);
        let alone = scene("only-if-cached");
        let decision = decide(&alone.request(), &Found::Nothing, &alone.policy(), start());
        assert_eq!(decision, Decision::OnlyIfCached);
    }

    #[test]
    fn client_directives_count_for_nothing_where_the_operator_says_so() {
        let mut scene = says("max-age=60").asked("no-cache, max-age=0, min-fresh=99, only-if-cached");
        scene.config.cache.client_directives = ClientDirectives::Ignore;
        check(&scene, &[(59, "reuse 1"), (60, "forward stale")]);
    }

    #[test]
    fn rfc5861_3_upstreams_own_stale_while_revalidate_wins_over_the_class() {
        check(
            &says("max-age=60, stale-while-revalidate=5").under(None, 60, 0),
            &[(64, "refresh -4"), (65, "forward stale")],
        );
        check(&says("max-age=60, stale-while-revalidate=0").under(None, 60, 0), &[(60, "forward stale")]);
        check(&says("max-age=60, stale-while-revalidate=5"), &[(64, "refresh -4"), (65, "forward stale")]);
    }

    #[test]
    fn rfc5861_4_stale_if_error_ends_with_its_window() {
        check_on_error(&silent().under(Some(60), 0, 30), &[(60, Some(0)), (89, Some(-29)), (90, None)]);
        check_on_error(&says("max-age=60, stale-if-error=5"), &[(64, Some(-4)), (65, None)]);
        check_on_error(&says("max-age=60, stale-if-error=0").under(None, 0, 30), &[(60, None)]);
        check_on_error(&says("no-cache").overridden(Some(60), 0, 30), &[(59, Some(1)), (89, Some(-29))]);
        let scene = silent().under(Some(60), 0, 30);
        for found in [Found::Nothing, Found::OtherVariant, Found::Unusable] {
            let reused =
                reuse_on_error(&scene.request(), &found, Trouble::Disconnected, (&scene.policy(), start()));
            assert_eq!(reused, None);
        }
    }

    #[test]
    fn rfc9111_4_2_4_a_class_that_leaves_it_to_the_rfc_reuses_stale_responses_only_while_disconnected() {
        let leaving = |says: &'static str| {
            let mut scene = self::says(says).under(None, 0, 0);
            scene.config.cache.classes.get_mut("subject").unwrap().stale_if_error = None;
            scene
        };
        let scene = leaving("max-age=60");
        check(&scene, &[(60, "forward stale")]);
        check_in_trouble(
            &scene,
            Trouble::Disconnected,
            &[(59, Some(1)), (60, Some(0)), (3_659, Some(-3_599)), (3_660, None)],
        );
        check_in_trouble(&scene, Trouble::Failing, &[(59, Some(1)), (60, None)]);
        for forbidding in
            ["max-age=60, must-revalidate", "max-age=60, no-cache", "max-age=60, stale-if-error=0"]
        {
            check_in_trouble(&leaving(forbidding), Trouble::Disconnected, &[(60, None)]);
        }
        for forbidding in ["max-age=60, proxy-revalidate", "s-maxage=60"] {
            check_in_trouble(
                &leaving(forbidding).in_the_shared_cache(),
                Trouble::Disconnected,
                &[(59, Some(1)), (60, None)],
            );
        }
        let mut stated = leaving("max-age=60");
        stated.config.cache.classes.get_mut("subject").unwrap().stale_if_error = Some(Duration::ZERO);
        check_in_trouble(&stated, Trouble::Disconnected, &[(60, None)]);
        let mut lasting = leaving("max-age=60");
        lasting.config.cache.classes.get_mut("subject").unwrap().fresh_for = Some(seconds(60));
        check_in_trouble(&lasting, Trouble::Disconnected, &[(60, None)]);
    }

    #[test]
    fn rfc9111_5_2_1_5_who_forbids_storing_is_forwarded() {
        check(&says("max-age=60").asked("no-store"), &[(0, "forward client-directive")]);
        check(&says("max-age=60").asked("no-store, only-if-cached"), &[(0, "only-if-cached")]);
    }

    #[test]
    fn rfc9213_2_2_a_targeted_field_decides_alone() {
        let scene = |directives| {
            says_fields(&[
                ("cache-control", "max-age=10, must-revalidate"),
                ("cdn-cache-control", directives),
                DATE,
                ("expires", IN_A_MINUTE),
            ])
        };
        check(&scene("max-age=60"), &[(59, "reuse 1"), (60, "forward stale")]);
        check(&scene("max-age=60").asked("max-stale"), &[(60, "reuse 0")]);
        check(&scene("max-age=60, no-cache"), &[(0, "forward always-validate")]);
        check(&scene("public"), &[(0, "forward stale")]);
        check(&scene("max-age=60, &&&"), &[(9, "reuse 1"), (10, "forward stale")]);
    }

    #[test]
    fn without_a_rule_there_are_no_windows_of_ours_and_no_guess() {
        check(&says("max-age=60"), &[(60, "forward stale")]);
        check_on_error(&silent(), &[(0, None)]);
        check(&says_fields(&[DATE, ("last-modified", HOUR_AGO)]), &[(0, "forward stale")]);
    }

    #[test]
    fn a_class_that_is_fresh_for_nothing_is_validated_before_each_reuse_and_may_stand_in_for_a_failure() {
        let scene = || silent().under(Some(0), 60, 60);
        check(&scene(), &[(0, "forward always-validate"), (30, "forward always-validate")]);
        check(&scene().asked("max-stale"), &[(30, "forward always-validate")]);
        check_on_error(&scene(), &[(59, Some(-59)), (60, None)]);
        check(&says("max-age=60").under(Some(0), 0, 0), &[(59, "reuse 1")]);
    }

    #[test]
    fn a_negative_answer_is_fresh_for_seconds_and_never_stale() {
        for status in [404, 410] {
            let scene = |fresh_for| {
                let mut scene = silent().with_status(status).under(Some(fresh_for), 60, 60);
                scene.config.cache.negative_fresh_for = seconds(10);
                scene
            };
            check(&scene(60), &[(9, "reuse 1"), (10, "forward stale")]);
            check(&scene(5), &[(4, "reuse 1"), (5, "forward stale")]);
            check_on_error(&scene(60), &[(9, Some(1)), (10, None)]);
            check(&scene(60).overridden(Some(60), 60, 60), &[(10, "forward stale")]);
        }
        let stated = says("max-age=60, stale-if-error=5").with_status(404).under(Some(60), 60, 60);
        check(&stated, &[(59, "reuse 1"), (60, "forward stale")]);
        check_on_error(&stated, &[(64, Some(-4)), (65, None)]);
    }

    #[test]
    fn soon_after_a_write_a_response_is_fresh_for_a_second_and_has_no_window_but_for_errors() {
        for scene in [
            || silent().under(Some(60), 60, 60),
            || says("max-age=60, stale-while-revalidate=60, stale-if-error=60"),
            || says("max-age=60").overridden(Some(60), 60, 60),
        ] {
            let scene = scene().standing(Standing::Settling);
            check(&scene, &[(0, "reuse 1"), (1, "forward stale")]);
            check_on_error(&scene, &[(0, Some(1)), (1, Some(0)), (60, Some(-59)), (61, None)]);
            check(&scene.asked("max-stale"), &[(1, "forward stale")]);
        }
    }

    #[test]
    fn what_was_purged_softly_is_asked_for_anew_whatever_windows_it_has_and_stands_in_for_errors() {
        for scene in [
            || silent().under(Some(60), 60, 60),
            || says("max-age=60, stale-while-revalidate=60, stale-if-error=60"),
            || says("max-age=60, immutable, stale-if-error=60"),
            || says("max-age=60").overridden(Some(60), 60, 60),
        ] {
            let scene = scene().standing(Standing::Purged);
            check(&scene, &[(0, "forward purged"), (59, "forward purged")]);
            check_on_error(&scene, &[(0, Some(0)), (59, Some(-59)), (60, None)]);
            check(&scene.asked("max-stale"), &[(1, "forward purged")]);
        }
        let forbidden = says("max-age=60, must-revalidate").standing(Standing::Purged);
        check_on_error(&forbidden, &[(0, None)]);
    }

    #[test]
    fn what_became_unusable_is_never_fresh_and_never_stale_enough() {
        let scene = says("max-age=60").under(None, 60, 60).standing(Standing::Unusable);
        check(&scene, &[(0, "forward stale")]);
        check_on_error(&scene, &[(0, None)]);
    }

    #[test]
    fn a_response_is_kept_for_as_long_as_it_may_be_reused_or_validated() {
        let check = |scene: &Scene, age: u64, expected: u64| {
            let stored = stored(scene.status, &scene.says);
            let kept = retention(&scene.request(), &stored, &scene.policy(), start() + seconds(age));
            assert_eq!(kept, seconds(expected), "says {:?}, at age {age}", scene.says);
        };
        check(&silent().under(Some(60), 7_300, 10), 0, 7_360);
        check(&silent().under(Some(60), 10, 7_300), 20, 7_340);
        check(&says("max-age=60"), 0, 3_660);
        check(&says("max-age=0"), 0, 3_600);
        check(&says("max-age=60, must-revalidate"), 20, 40);
        check(&says("max-age=0, must-revalidate"), 0, 1);
        check(&says("no-cache"), 9, 1);
        check(&says_fields(&[("etag", "\"1\""), ("cache-control", "no-cache")]), 0, 3_600);
        check(&says_fields(&[("etag", "\"1\"")]).under(Some(60), 0, 7_200), 0, 7_260);
        check(&says_fields(&[("cache-control", "max-age=60, must-revalidate"), ("age", "50")]), 0, 10);
    }

    #[test]
    fn the_ttl_is_whole_seconds_and_negative_when_stale() {
        let lifetime = FreshnessLifetime(seconds(10));
        let ttl = |age| Freshness::of(lifetime, CurrentAge(age)).ttl();
        assert_eq!(ttl(Duration::from_millis(8_500)), 1);
        assert_eq!(ttl(seconds(10)), 0);
        assert_eq!(ttl(Duration::from_millis(11_500)), -1);
        assert_eq!(ttl(Duration::MAX), -i64::MAX);
    }

    /// What upstream said and what the class says, as numbers to compute with.
    #[derive(Debug, Clone)]
    struct Numbers {
        max_age: Option<u64>,
        windows: (Option<u64>, Option<u64>),
        class: Option<(u64, u64, u64)>,
        age_field: u64,
        max_stale: Option<u64>,
    }

    impl Numbers {
        fn any() -> impl Strategy<Value = Self> {
            let window = || proptest::option::of(0_u64..100);
            let class = proptest::option::of((0_u64..100, 0_u64..100, 0_u64..100));
            (window(), (window(), window()), class, 0_u64..100, window()).prop_map(
                |(max_age, windows, class, age_field, max_stale)| Self {
                    max_age,
                    windows,
                    class,
                    age_field,
                    max_stale,
                },
            )
        }

        fn scene(&self) -> Scene {
            let scene = match self.class {
                Some((fresh_for, revalidate, error)) => silent().under(Some(fresh_for), revalidate, error),
                None => silent(),
            };
            let asks = self.max_stale.map(|limit| format!("max-stale={limit}")).unwrap_or_default();
            scene.asked(&asks)
        }

        fn found(&self) -> Found {
            let directives = [
                ("max-age", self.max_age),
                ("stale-while-revalidate", self.windows.0),
                ("stale-if-error", self.windows.1),
            ];
            let present = directives.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
            let control = present.collect::<Vec<_>>().join(", ");
            let age = self.age_field.to_string();
            let stored = stored(200, &[("cache-control", control.as_str()), ("age", age.as_str())]);
            Found::Stored(Arc::new(stored), Standing::Current)
        }

        fn lifetime(&self) -> u64 {
            self.max_age.or(self.class.map(|class| class.0)).unwrap_or_default()
        }

        fn revalidate_window(&self) -> u64 {
            self.windows.0.or(self.class.map(|class| class.1)).unwrap_or_default()
        }

        fn error_window(&self) -> u64 {
            self.windows.1.or(self.class.map(|class| class.2)).unwrap_or_default()
        }
    }

    /// Says what is decided while so much percent of the budget is in use, for something that was reused so often.
    fn under_pressure(scene: &Scene, percent: u32, reuses: u32, age: u64) -> String {
        let response = Arc::new(stored(scene.status, &scene.says));
        (0..reuses).for_each(|_| response.note_reuse());
        let policy = scene.policy().under(Pressure::of(percent, 100));
        let found = Found::Stored(response, scene.standing);
        told(decide(&scene.request(), &found, &policy, start() + seconds(age)))
    }

    #[test]
    fn what_is_asked_for_again_and_again_is_refreshed_in_the_last_tenth_while_there_is_budget_to_spare() {
        let scene = silent().under(Some(100), 0, 0);
        for (percent, reuses, age, expected) in [
            (0, 3, 91, "refresh ahead 9"),
            (49, 3, 91, "refresh ahead 9"),
            (50, 3, 91, "reuse 9"),
            (0, 2, 91, "reuse 9"),
            (0, 3, 90, "reuse 10"),
            (0, 3, 100, "forward stale"),
        ] {
            assert_eq!(under_pressure(&scene, percent, reuses, age), expected, "{percent} {reuses} {age}");
        }
        assert_eq!(under_pressure(&silent().under(Some(4), 0, 0), 0, 3, 3), "reuse 1", "too short");
        assert_eq!(under_pressure(&says("max-age=100, immutable"), 0, 3, 95), "reuse 5");
        let asked = silent().under(Some(100), 0, 0).asked("only-if-cached");
        assert_eq!(under_pressure(&asked, 0, 3, 95), "reuse 5");
        let mut off = silent().under(Some(100), 0, 0);
        off.config.budget.refresh_ahead = false;
        assert_eq!(under_pressure(&off, 0, 3, 95), "reuse 5");
    }

    #[test]
    fn while_the_budget_runs_low_nothing_is_refreshed_and_lifetimes_of_ours_are_stretched() {
        let scene = silent().under(Some(100), 20, 0);
        for (percent, age, expected) in [
            (79, 110, "refresh -10"),
            (80, 110, "keep -10"),
            (80, 125, "forward stale"),
            (90, 149, "keep -49"),
            (90, 150, "forward stale"),
            (100, 199, "keep -99"),
            (100, 200, "forward stale"),
        ] {
            assert_eq!(under_pressure(&scene, percent, 9, age), expected, "{percent} {age}");
        }
        let mut off = silent().under(Some(100), 20, 0);
        off.config.budget.max_stretch = 1;
        assert_eq!(under_pressure(&off, 100, 0, 110), "refresh -10");
        assert_eq!(under_pressure(&off, 100, 0, 130), "forward stale");
    }

    #[test]
    fn pressure_stretches_nothing_that_is_not_ours_to_stretch() {
        let ours = || silent().under(Some(100), 0, 0);
        let forbidding = [
            ours().standing(Standing::Settling),
            ours().asked("max-age=500"),
            ours().with_status(404),
            Scene { says: vec![("cache-control", "max-age=100")], ..ours() },
            Scene { says: vec![("cache-control", "must-revalidate")], ..ours() },
            silent().under(Some(0), 0, 0),
        ];
        for scene in forbidding {
            let decided = under_pressure(&scene, 100, 0, 110);
            assert!(decided.starts_with("forward"), "{decided}: {:?} {:?}", scene.says, scene.asks);
        }
        let overridden =
            Scene { says: vec![("cache-control", "max-age=10")], ..silent().overridden(Some(100), 0, 0) };
        assert_eq!(under_pressure(&overridden, 100, 0, 110), "keep -10");
    }

    proptest! {
        #[test]
        fn freshness_is_monotone_in_time(numbers in Numbers::any(), mut moments in prop::collection::vec(0_u64..400, 2..20)) {
            let (scene, found) = (numbers.scene(), numbers.found());
            let (request, policy) = (scene.request(), scene.policy());
            let Found::Stored(stored, standing) = found else { unreachable!() };
            moments.sort_unstable();
            let mut last: Option<Freshness> = None;
            for moment in moments {
                let present = freshness(&request, &stored, standing, &policy, start() + seconds(moment));
                if let Some(last) = last {
                    prop_assert!(present.ttl() <= last.ttl());
                    let was_stale = matches!(last, Freshness::Stale { .. });
                    let is_stale = matches!(present, Freshness::Stale { .. });
                    prop_assert!(is_stale || !was_stale);
                }
                last = Some(present);
            }
        }

        #[test]
        fn a_response_is_never_reused_past_its_lifetime_and_the_window_that_applies(
            numbers in Numbers::any(),
            moment in 0_u64..400,
        ) {
            let (scene, found) = (numbers.scene(), numbers.found());
            let (request, policy, now) = (scene.request(), scene.policy(), start() + seconds(moment));
            let age = numbers.age_field + moment;
            let past = age.saturating_sub(numbers.lifetime());
            match decide(&request, &found, &policy, now) {
                Decision::Reuse(Freshness::Fresh { .. }) => prop_assert!(age < numbers.lifetime()),
                Decision::Reuse(Freshness::Stale { .. }) => prop_assert!(past <= numbers.max_stale.unwrap_or(0)),
                Decision::ReuseThenRevalidate(_) => prop_assert!(past < numbers.revalidate_window()),
                Decision::RefreshAhead(_) => prop_assert!(age < numbers.lifetime()),
                Decision::ReuseUnderPressure(_) => prop_assert!(false, "nothing is asked of upstream"),
                Decision::Forward(_) => prop_assert!(age >= numbers.lifetime()),
                Decision::OnlyIfCached => prop_assert!(false, "nobody forbade to ask"),
            }
            for trouble in [Trouble::Disconnected, Trouble::Failing] {
                let reused = reuse_on_error(&request, &found, trouble, (&policy, now));
                if let Some(Freshness::Stale { .. }) = reused {
                    prop_assert!(past < numbers.error_window());
                }
            }
        }
    }
}

//! What one world is like: Sentry's limits and clock, and how the proxy before it is configured. All of it is rolled.

use std::sync::LazyLock;
use std::time::Duration;

use http::HeaderValue;
use sentrybox::config::cache::{ClassConfig, RuleConfig};
use sentrybox::config::load::defaults;
use sentrybox::config::{Config, Secret};
use sentrybox::credential::{Credential, CredentialKeys};

use crate::support::dice::Dice;

/// The credentials; the first two are of one user.
pub(crate) const TOKENS: [&str; 3] =
    ["Bearer sntryu_alice_one", "Bearer sntryu_alice_two", "Bearer sntryu_bob"];

/// Whose the credentials are.
pub(crate) const USERS: [usize; 3] = [0, 0, 1];

/// What can be read, without the organization.
pub(crate) const RESOURCES: [&str; 3] = ["", "releases/", "teams/"];

/// The organizations.
pub(crate) const ORGANIZATIONS: [&str; 2] = ["acme", "zoo"];

const SECRET: &str = "thirty-two characters, the same everywhere";

/// The default configuration, which takes its time to read.
static DEFAULTS: LazyLock<Config> = LazyLock::new(defaults);

/// A limit of Sentry's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitNature {
    /// Requests per window.
    pub(crate) window: u32,
    /// How long a window is, in seconds.
    pub(crate) seconds: u64,
    /// Requests at a time.
    pub(crate) concurrent: Option<u32>,
}

/// What a world is like.
#[derive(Debug, Clone)]
pub(crate) struct Nature {
    /// The limits of each user, of reads and of writes; `None` where Sentry has none (self-hosted).
    pub(crate) limits: Option<[LimitNature; 2]>,
    /// The limit that reads of teams have for themselves.
    pub(crate) own_limit: Option<LimitNature>,
    /// Whether requests with a revoked credential count for the address that they come from, as with sentry.io.
    pub(crate) counts_strangers_by_address: bool,
    /// By how many seconds Sentry's clock is ahead of ours, or behind; `None` where it sends no `Date`, and is in step.
    pub(crate) ahead: Option<i64>,
    /// How long an answer takes at the most.
    pub(crate) latency: Duration,
    /// How long the class of all reads says.
    pub(crate) fresh_for: Duration,
    pub(crate) revalidate: Duration,
    pub(crate) error: Duration,
    /// How the proxy is configured.
    pub(crate) config: Config,
}

impl Nature {
    /// Rolls a world.
    pub(crate) fn roll(dice: &mut Dice) -> Self {
        let seconds = Duration::from_secs;
        let has_limits = dice.percent(80);
        // Nothing is known of Sentry that allows less than one request a second.
        let limit = |dice: &mut Dice| {
            let seconds = dice.pick(&[1, 1, 1, 3]);
            LimitNature {
                window: u32::try_from(dice.among(seconds, 6)).unwrap(),
                seconds,
                concurrent: dice.pick(&[None, Some(3), Some(5)]),
            }
        };
        let mut nature = Self {
            limits: has_limits.then(|| [limit(dice), limit(dice)]),
            own_limit: (has_limits && dice.percent(25)).then(|| limit(dice)),
            counts_strangers_by_address: true,
            ahead: dice.pick(&[None, Some(0), Some(3), Some(-4), Some(-1)]),
            latency: Duration::from_millis(dice.pick(&[0, 50, 500, 2_000])),
            fresh_for: seconds(dice.pick(&[0, 1, 4, 10, 30])),
            revalidate: seconds(dice.pick(&[0, 0, 5, 20])),
            error: seconds(dice.pick(&[0, 10, 60])),
            config: DEFAULTS.clone(),
        };
        nature.configure(dice);
        nature
    }

    /// Says what it is like, for whoever has to understand what happened.
    pub(crate) fn describe(&self) -> String {
        let Self { limits, own_limit, ahead, latency, fresh_for, revalidate, error, config, .. } = self;
        let (budget, cache) = (&config.budget, &config.cache);
        format!(
            "limits {limits:?}, of teams {own_limit:?}, ahead {ahead:?}, latency {latency:?}, fresh for {fresh_for:?}, \
             stale {revalidate:?} {error:?}, {budget:?}, timeout {:?}, settle {:?}, unverified {:?}, rejection {:?}",
            cache.flight_timeout, cache.settle, cache.max_unverified, cache.rejection_memory
        )
    }

    fn configure(&mut self, dice: &mut Dice) {
        let config = &mut self.config;
        config.secret = Secret::new(SECRET.to_owned());
        config
            .budget
            .aliases
            .insert("alice".to_owned(), TOKENS[..2].iter().map(|it| fingerprint(it)).collect());
        // In no step with the second after which another request goes.
        config.budget.max_wait = dice.seconds(0, 5) + Duration::from_millis(300);
        config.budget.max_concurrent = dice.pick(&[2, 4, 128]);
        config.budget.max_per_second = dice.pick(&[0, 0, 0, 1, 4]);
        config.budget.retries = u32::try_from(dice.among(0, 2)).unwrap();
        config.budget.max_stretch = u32::try_from(dice.among(1, 3)).unwrap();
        config.budget.refresh_ahead = dice.percent(70);
        config.cache.flight_timeout = dice.seconds(3, 20);
        config.cache.settle = dice.seconds(0, 10);
        config.cache.rejection_memory = dice.seconds(0, 5);
        config.cache.max_unverified = Duration::from_secs(dice.pick(&[5, 30, 900]));
        config.cache.default_rules = false;
        let class = ClassConfig {
            fresh_for: Some(self.fresh_for),
            stale_while_revalidate: self.revalidate,
            stale_if_error: Some(self.error),
        };
        config.cache.classes.insert("own".to_owned(), class);
        let rule = |resource| RuleConfig {
            route: format!("/api/0/organizations/{{organization}}/{resource}"),
            class: Some("own".to_owned()),
            never: false,
            overrides: false,
        };
        config.cache.rules = RESOURCES.into_iter().map(rule).collect();
    }
}

/// Returns the fingerprint of a credential, as an operator would list it.
fn fingerprint(token: &str) -> String {
    let credential = Credential::from_field(HeaderValue::from_str(token).unwrap());
    let keys = CredentialKeys::derive(SECRET.as_bytes());
    keys.fingerprint(keys.partition(credential.as_ref())).unwrap().to_string()
}

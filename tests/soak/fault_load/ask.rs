//! What clients ask: one request, and the mix of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;

use crate::random::Random;
use crate::told::MARKS;

/// Longest that an answer may take that is shared or stored: `cache.flight_timeout`, and slack.
const SHARED: Duration = Duration::from_secs(4 + 3);

/// Longest for what is sent for itself alone: `budget.max_wait`, two attempts, `upstream.total_timeout`, and slack.
const ALONE: Duration = Duration::from_secs(1 + 2 * 3 + 10 + 3);

/// How old content may be at the most, upstream failing all the while: twice `fresh_for`, `stale_if_error`, how long upstream
/// leaves it as it is, and slack.
const SLOW: Duration = Duration::from_secs(2 * 10 + 60 + 5 + 5);
const VOLATILE: Duration = Duration::from_secs(2 * 3 + 30 + 5 + 5);
const FOR_HOURS: Duration = Duration::from_hours(3);

/// What is asked for again and again, and fresh for an hour.
pub(crate) const WATCHED: &str = "/api/0/organizations/soak/soak-watched/";

/// What is larger than what is stored.
pub(crate) const LARGE: &str = "/api/0/organizations/soak/soak-large/";

/// What the control host serves, and it alone.
pub(crate) const CONTROL: &str = "/api/0/users/me/";

/// Numbers what must be unlike everything else.
static UNIQUE: AtomicU64 = AtomicU64::new(1);

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) label: &'static str,
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) mark: u64,
    pub(crate) etag: Option<String>,
    pub(crate) body: String,
    /// How long it may take.
    pub(crate) patience: Duration,
    /// How old the answer's content may be.
    pub(crate) keeps: Duration,
}

impl Ask {
    /// Asks for something that may be stored.
    pub(crate) fn read(label: &'static str, target: String, mark: u64) -> Self {
        let (method, body) = (Method::GET, String::new());
        Self { label, method, target, mark, etag: None, body, patience: SHARED, keeps: SLOW }
    }

    /// Asks for what is watched.
    pub(crate) fn watched(number: u64) -> Self {
        let ask = Self::read("watched", format!("{WATCHED}?watcher={number}"), number % MARKS);
        Self { keeps: FOR_HOURS, ..ask }
    }

    /// Asks for what nobody has asked for.
    pub(crate) fn unheard_of(label: &'static str, mark: u64) -> Self {
        let target = format!("/api/0/organizations/soak/issues/?query=unique-{}", unique());
        Self::read(label, target, mark)
    }

    /// Writes something with a number of its own.
    pub(crate) fn write(mark: u64, issue: u64) -> Self {
        let target = format!("/api/0/organizations/soak/issues/{issue}/");
        let body = format!(r#"{{"write":{}}}"#, unique());
        let ask = Self::read("write", target, mark);
        Self { method: Method::PUT, body, ..ask.alone() }
    }

    /// Asks for the control host's.
    pub(crate) fn control(mark: u64) -> Self {
        Self::read("control", CONTROL.to_owned(), mark).alone()
    }

    /// Chooses from the mix.
    pub(crate) fn choose(random: &mut Random) -> Self {
        let mark = random.below(MARKS);
        let number = random.below(12);
        let organization = "/api/0/organizations/soak";
        match random.below(100) {
            0..40 => Self::read("hit", format!("{organization}/projects/?page={number}"), mark),
            40..60 => {
                let ask = Self::read("volatile", format!("{organization}/issues/?query={number}"), mark);
                Self { keeps: VOLATILE, ..ask }
            }
            60..72 => Self::unheard_of("miss", mark),
            72..77 => Self::read("page", format!("{organization}/teams/?cursor=0:0:0"), mark),
            77..83 => Self::read("conditional", format!("{organization}/members/?page={number}"), mark),
            83..87 => {
                let ask = Self::read("head", format!("{organization}/projects/?page={number}"), mark);
                Self { method: Method::HEAD, ..ask }
            }
            87..92 => Self::write(mark, number),
            92..97 => {
                Self::read("through", format!("/api/0/projects/soak/web/keys/?page={number}"), mark).alone()
            }
            _ => Self::read("large", format!("{LARGE}?page={number}"), mark).alone(),
        }
    }

    /// Returns the same, as something that nobody shares.
    fn alone(self) -> Self {
        Self { patience: ALONE, keeps: ALONE, ..self }
    }

    /// Returns whether the answer is passed on as it comes.
    pub(crate) fn is_streamed(&self) -> bool {
        self.patience == ALONE
    }

    /// Returns whether it may be asked twice.
    pub(crate) fn is_safe(&self) -> bool {
        self.method.is_safe()
    }
}

/// Returns a number that nothing else has.
pub(crate) fn unique() -> u64 {
    UNIQUE.fetch_add(1, Ordering::Relaxed)
}

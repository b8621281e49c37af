//! What happens: requests, each with what upstream would answer, time that passes, purges, clients that leave.
//!
//! A choice takes one byte of the input, so that a change of one byte is a change of one thing.

use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};

/// Most things that happen.
const MOST_STEPS: usize = 40;

/// Everything that happens, and in which house.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) setting: Setting,
    pub(crate) steps: Vec<Step>,
}

/// How the proxy is configured: a bit for each of the constants, and then how often a request is sent again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting(u16);

impl Setting {
    pub(crate) const RULES: u16 = 1;
    pub(crate) const IGNORES_DIRECTIVES: u16 = 1 << 1;
    pub(crate) const TELLS_LIFETIMES: u16 = 1 << 2;
    pub(crate) const CACHES_ANONYMOUS: u16 = 1 << 3;
    pub(crate) const HAS_BUDGET: u16 = 1 << 4;
    pub(crate) const PASSES_COOKIES: u16 = 1 << 5;
    pub(crate) const IS_SMALL: u16 = 1 << 6;
    pub(crate) const LOGS_PATHS: u16 = 1 << 7;
    pub(crate) const SETTLES: u16 = 1 << 8;

    /// Returns whether one of the constants is set.
    pub(crate) const fn has(self, bit: u16) -> bool {
        self.0 & bit == bit
    }

    /// Returns how often a request is sent again.
    pub(crate) fn retries(self) -> u32 {
        u32::from(self.0 >> 9 & 3).min(2)
    }
}

/// One thing that happens.
#[derive(Debug)]
pub(crate) enum Step {
    Ask(Ask),
    /// A client does not wait any longer.
    Leave,
    Pass(Duration),
    Purge,
    PurgeSoftly,
    /// Something is another at Sentry's.
    Change {
        path: usize,
    },
}

/// A request, and what upstream answers if it is asked.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) who: usize,
    pub(crate) path: usize,
    pub(crate) query: usize,
    pub(crate) method: usize,
    pub(crate) condition: Condition,
    pub(crate) directives: usize,
    pub(crate) accept: usize,
    /// Whether what happens next waits for the answer.
    pub(crate) waits: bool,
    pub(crate) answer: Answer,
}

/// What a client has already, as it says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Condition {
    None,
    /// What it was given last.
    Own,
    /// What somebody else was given.
    Foreign,
    Anything,
    Since,
    Range,
    RangeIfOwn,
}

/// What upstream answers.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) caching: usize,
    pub(crate) validators: usize,
    pub(crate) vary: usize,
    pub(crate) cookie: bool,
    pub(crate) link: bool,
    pub(crate) limits: usize,
    pub(crate) retry_after: usize,
    pub(crate) age: u64,
    pub(crate) expires: Option<i64>,
    pub(crate) kind: usize,
    pub(crate) date: usize,
    pub(crate) delay: Duration,
    pub(crate) trouble: Trouble,
}

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Trouble {
    None,
    BreaksOff,
    Unreachable,
    Reset,
    Timeout,
    UnknownLength,
    Large,
    Slow,
}

const STATUSES: [u16; 16] = [200, 200, 200, 200, 200, 201, 204, 301, 400, 401, 403, 404, 410, 429, 500, 503];

const TROUBLES: [Trouble; 12] = {
    use Trouble::{BreaksOff, Large, None, Reset, Slow, Timeout, UnknownLength, Unreachable};
    [None, None, None, None, None, BreaksOff, Unreachable, Reset, Timeout, UnknownLength, Large, Slow]
};

const DELAYS: [u64; 6] = [0, 0, 20, 500, 3_000, 25_000];

const TIMES: [u64; 10] = [50, 500, 1_000, 2_500, 9_000, 31_000, 125_000, 700_000, 4_000_000, 90_000_000];

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let setting = Setting::arbitrary(input)?;
        let mut steps = Vec::new();
        while !input.is_empty() && steps.len() < MOST_STEPS {
            steps.push(Step::arbitrary(input)?);
        }
        Ok(Self { setting, steps })
    }
}

impl<'a> Arbitrary<'a> for Setting {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let (one, two): (u8, u8) = input.arbitrary()?;
        Ok(Self(u16::from_le_bytes([one, two])))
    }
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match input.int_in_range(0..=15u8)? {
            0..=9 => Self::Ask(Ask::arbitrary(input)?),
            10 | 11 => Self::Pass(Duration::from_millis(*input.choose(&TIMES)?)),
            12 => Self::Leave,
            13 => Self::Purge,
            14 => Self::PurgeSoftly,
            _ => Self::Change { path: below(input, PATHS.len())? },
        })
    }
}

impl<'a> Arbitrary<'a> for Ask {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        use Condition::{Anything, Foreign, None, Own, Range, RangeIfOwn, Since};
        Ok(Self {
            who: below(input, TOKENS.len())?,
            path: below(input, PATHS.len())?,
            query: below(input, QUERIES.len())?,
            method: below(input, METHODS.len())?,
            condition: *input
                .choose(&[None, None, None, None, Own, Foreign, Anything, Since, Range, RangeIfOwn])?,
            directives: below(input, DIRECTIVES.len())?,
            accept: below(input, ACCEPTS.len())?,
            waits: input.int_in_range(0..=3u8)? > 0,
            answer: Answer::arbitrary(input)?,
        })
    }
}

impl<'a> Arbitrary<'a> for Answer {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let (extras, more): (u8, u8) = (input.arbitrary()?, input.arbitrary()?);
        Ok(Self {
            status: *input.choose(&STATUSES)?,
            caching: below(input, CACHING.len())?,
            validators: below(input, 4)?,
            vary: below(input, VARIES.len())?,
            cookie: extras & 7 == 1,
            link: extras & 8 == 8,
            limits: usize::from(extras >> 4 & 3),
            retry_after: usize::from(extras >> 6 & 3),
            age: [0, 0, 0, 40][usize::from(more & 3)],
            expires: [None, None, Some(60), Some(-1)][usize::from(more >> 2 & 3)],
            kind: usize::from(more >> 4 & 3),
            date: usize::from(more >> 6 & 3),
            delay: Duration::from_millis(*input.choose(&DELAYS)?),
            trouble: *input.choose(&TROUBLES)?,
        })
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            status: 200,
            caching: 1,
            validators: 1,
            vary: 0,
            cookie: false,
            link: false,
            limits: 0,
            retry_after: 0,
            age: 0,
            expires: None,
            kind: 0,
            date: 0,
            delay: Duration::ZERO,
            trouble: Trouble::None,
        }
    }
}

fn below(input: &mut Unstructured<'_>, count: usize) -> Result<usize> {
    input.int_in_range(0..=count - 1)
}

/// Whose credential it is, and how it is spelled; nobody's is the first one.
pub(crate) const TOKENS: [(usize, &str); 7] = [
    (1, "Bearer sntryu_secret_of_one"),
    (1, "bearer   sntryu_secret_of_one"),
    (2, "Bearer sntryu_secret_of_two"),
    (3, "Bearer sntrys_secret_of_three"),
    (4, "Basic c2VjcmV0X29mX2ZvdXI6"),
    (5, "Bearer sntryu_secret_of_one_"),
    (0, ""),
];

/// What no log may hold.
pub(crate) const SECRETS: [&str; 5] = ["secret_of", "c2VjcmV0X29m", "mark-", "words-of-a-query", "session="];

pub(crate) const PATHS: [&str; 10] = [
    "/api/0/organizations/acme/projects/",
    "/api/0/organizations/acme/",
    "/api/0/organizations/",
    "/api/0/organizations/acme/issues/17/",
    "/api/0/organizations/acme/subject/",
    "/api/0/organizations/acme/%73ubject/",
    "/api/0/organizations/acme/releases/1.0%2F2/",
    "/api/0/organizations/globex/projects/",
    "/api/0/projects/acme/web/",
    "/api/0/users/me/regions/",
];

pub(crate) const QUERIES: [&str; 7] = [
    "",
    "?",
    "?cursor=",
    "?query=words-of-a-query",
    "?query=words%2Dof-a-query&cursor=",
    "?a=1&b=2",
    "?b=2&a=1",
];

pub(crate) const METHODS: [&str; 10] =
    ["GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "PUT", "DELETE", "POST"];

pub(crate) const DIRECTIVES: [&str; 11] = [
    "",
    "",
    "",
    "",
    "no-cache",
    "no-store",
    "max-age=0",
    "max-age=5",
    "only-if-cached",
    "max-stale=20",
    "min-fresh=30",
];

/// With the first one, a cookie is sent, too.
pub(crate) const ACCEPTS: [(&str, &str); 7] = [
    ("accept", "application/json"),
    ("accept", "application/json"),
    ("accept", "*/*"),
    ("accept-language", "de"),
    ("accept-encoding", "gzip"),
    ("x-custom", "a"),
    ("x-custom", "b"),
];

pub(crate) const VARIES: [&str; 8] =
    ["", "", "", "Accept-Language, Cookie", "X-Custom", "*", "Origin, X-Custom", "Authorization"];

/// How an answer may be cached: the field, its lifetime, and how long it may be reused stale; all in seconds.
pub(crate) const CACHING: [(&str, u64, u64); 14] = [
    ("", 0, 0),
    ("max-age=60", 60, 0),
    ("max-age=5", 5, 0),
    ("max-age=0", 0, 0),
    ("no-store", 0, 0),
    ("no-cache", 0, 0),
    ("private, max-age=60", 60, 0),
    ("max-age=10, stale-while-revalidate=20", 10, 20),
    ("max-age=10, stale-if-error=100", 10, 100),
    ("max-age=60, must-revalidate, stale-if-error=100", 60, 0),
    ("s-maxage=30, max-age=5", 30, 0),
    ("no-store, max-age=60", 0, 0),
    ("public, max-age=60", 60, 0),
    ("max-age=60, no-cache=\"etag\"", 60, 0),
];

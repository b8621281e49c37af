//! Sentry, and the book about it: what was answered to whom, until when that may be reused, and what must never be again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use http::Method;
use http::header::{self, HeaderMap};
use sentrybox::clock::{Clock, Stopwatch};

use crate::corridor::script::{Answer, CACHING, PATHS, Setting, TOKENS, Trouble, VARIES};
use crate::meaning::Meaning;
use crate::support::scripted::{Act, Chunk, Received};

/// How much older than it may be something is allowed to be: dates have whole seconds.
const ROUNDING: Duration = Duration::from_secs(2);

/// Fields that speak of one connection, or that only a client could have written.
const UNWANTED: [&str; 7] =
    ["connection", "keep-alive", "te", "transfer-encoding", "x-forwarded-for", "forwarded", "x-hop"];

/// The world.
pub(crate) struct World(Mutex<State>);

/// Everything in it.
pub(crate) struct State {
    setting: Setting,
    began: Stopwatch,
    /// What upstream answers next.
    pub(crate) answers: VecDeque<Answer>,
    /// The targets that clients have asked for, as they spelled them.
    pub(crate) targets: HashSet<String>,
    versions: HashMap<Vec<Vec<u8>>, u64>,
    issues: Vec<Issue>,
    /// The tags that were shown, to whom and of what; the last one shown stands last.
    shown: Vec<(usize, Meaning, String)>,
    /// What came before is not to be seen any more: by path, and altogether.
    written: HashMap<Vec<Vec<u8>>, usize>,
    purged: usize,
}

/// An answer that was given.
#[derive(Debug)]
struct Issue {
    who: usize,
    meaning: Meaning,
    lifetime: Duration,
    until: Duration,
    is_private: bool,
    is_write: bool,
    deliveries: usize,
    cookies: usize,
}

/// What a client has asked for, and when.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) who: usize,
    pub(crate) meaning: Meaning,
    pub(crate) method: Method,
    pub(crate) at: Duration,
    /// How stale it takes an answer.
    pub(crate) tolerance: Duration,
    /// What it says that it has.
    pub(crate) has: Option<String>,
    written: usize,
    purged: usize,
}

impl World {
    /// Makes one in which nothing has happened.
    pub(crate) fn new(setting: Setting) -> Self {
        Self(Mutex::new(State {
            setting,
            began: Stopwatch::start(),
            answers: VecDeque::new(),
            targets: HashSet::new(),
            versions: HashMap::new(),
            issues: Vec::new(),
            shown: Vec::new(),
            written: HashMap::new(),
            purged: 0,
        }))
    }

    /// Returns everything in it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Answers what the proxy asks.
    pub(crate) fn answer(&self, received: &Received, clock: &Clock) -> Act {
        self.state().answer(received, clock)
    }
}

impl State {
    /// Returns how many answers were given; the next one gets this number.
    pub(crate) fn count(&self) -> usize {
        self.issues.len()
    }

    /// Notes that somebody asks.
    pub(crate) fn ask(&self, who: usize, meaning: Meaning, method: Method) -> Asked {
        let written = self.written.get(&meaning.path).copied().unwrap_or(0);
        let at = self.began.read();
        let (tolerance, has, purged) = (Duration::ZERO, None, self.purged);
        Asked { who, meaning, method, at, tolerance, has, written, purged }
    }

    /// Notes that everything before this number is purged.
    pub(crate) fn purge(&mut self, before: usize) {
        self.purged = before;
    }

    /// Makes something another at Sentry's.
    pub(crate) fn change(&mut self, path: usize) {
        *self.versions.entry(Meaning::of(PATHS[path], None).path).or_default() += 1;
    }

    /// Returns the last tag that was shown of something: to somebody, or to anybody else.
    pub(crate) fn tag_of(&self, meaning: &Meaning, is_wanted: impl Fn(usize) -> bool) -> String {
        let is_it = |(to, of, _): &&(usize, Meaning, String)| is_wanted(*to) && of == meaning;
        let found = self.shown.iter().rev().find(is_it);
        found.map_or_else(|| "\"nothing\"".to_owned(), |(_, _, tag)| tag.clone())
    }

    fn answer(&mut self, received: &Received, clock: &Clock) -> Act {
        let who = self.check_received(received);
        let meaning = Meaning::of(received.uri.path(), received.uri.query());
        let answer = self.answers.pop_front().unwrap_or_default();
        match answer.trouble {
            Trouble::Unreachable => return Act::unreachable().after(answer.delay),
            Trouble::Reset => return Act::reset().after(answer.delay),
            Trouble::Timeout => return Act::timeout().after(answer.delay),
            _ => {}
        }
        let version = self.versions.get(&meaning.path).copied().unwrap_or(0);
        let validators = validators(&answer, who, version, &meaning);
        let is_known = received.method.is_safe() && answer.status == 200 && is_known(received, &validators);
        if is_known || received.method == Method::HEAD {
            self.freshen(&answer, (who, &meaning));
        }
        let number = self.note(&answer, (who, meaning), received);
        let act =
            if is_known { Act::bytes("").with_status(304) } else { content(&answer, who, number, received) };
        let act = validators.iter().fold(act, |act, (name, value)| act.with(name, value));
        dressed(act, &answer, (who, number), clock).after(answer.delay)
    }

    /// Looks at what the proxy sends, and returns for whom.
    fn check_received(&self, received: &Received) -> usize {
        let target = received.target();
        assert!(self.targets.contains(target), "{target} is no client's spelling");
        for name in UNWANTED {
            assert!(!received.fields.contains_key(name), "{name} goes on");
        }
        let tokens: Vec<_> = received.fields.get_all(header::AUTHORIZATION).iter().collect();
        assert!(tokens.len() < 2, "two credentials");
        let is_it = |(_, token): &&(usize, &str)| {
            tokens.first().map_or("", |given| given.to_str().unwrap()) == *token
        };
        let (who, _) = TOKENS.iter().find(is_it).expect("a credential is sent as it was spelled");
        let may_carry_cookies = self.setting.has(Setting::PASSES_COOKIES) || *who == 0;
        assert!(may_carry_cookies || !received.fields.contains_key(header::COOKIE), "a cookie goes on");
        *who
    }

    /// Returns for how long an answer may be reused at the most, and when it arrives.
    fn lifetime(&self, answer: &Answer) -> (Duration, Duration) {
        let (directives, fresh, stale) = CACHING[answer.caching];
        let stated = directives.contains("age=");
        let fresh = if stated { fresh } else { answer.expires.unwrap_or(0).max(0).unsigned_abs() };
        let lifetime = Duration::from_secs(fresh.saturating_sub(answer.age) + stale);
        // A refusal is remembered for a moment.
        let is_refusal = matches!(answer.status, 401 | 403);
        let least = if is_refusal { crate::DEFAULTS.cache.rejection_memory } else { Duration::ZERO };
        (lifetime.max(least), self.began.read() + answer.delay)
    }

    /// Notes that what is stored may be reused for longer: with the new answer's lifetime, or with its own.
    fn freshen(&mut self, answer: &Answer, (who, meaning): (usize, &Meaning)) {
        let (lifetime, arrives) = self.lifetime(answer);
        let is_it = |issue: &&mut Issue| issue.who == who && issue.meaning == *meaning;
        for issue in self.issues.iter_mut().filter(is_it) {
            issue.lifetime = issue.lifetime.max(lifetime);
            issue.until = issue.until.max(arrives + issue.lifetime);
        }
    }

    /// Writes down what is answered, and returns its number.
    fn note(&mut self, answer: &Answer, (who, meaning): (usize, Meaning), received: &Received) -> usize {
        let (lifetime, arrives) = self.lifetime(answer);
        self.issues.push(Issue {
            who,
            meaning,
            lifetime,
            until: arrives + lifetime,
            is_private: CACHING[answer.caching].0.contains("no-store"),
            is_write: !received.method.is_safe(),
            deliveries: 0,
            cookies: 0,
        });
        self.issues.len() - 1
    }

    /// Looks at what a client gets: the head of the answer, and what arrived of its body.
    pub(crate) fn check(&mut self, asked: &Asked, (status, fields, body): (u16, &HeaderMap, &str)) {
        let text = format!("{fields:?} {body}");
        for (other, _) in TOKENS.iter().filter(|(other, _)| *other != asked.who) {
            assert!(!text.contains(&format!("mark-{other}-")), "{asked:?} sees what is for {other}: {text}");
        }
        let is_hit =
            fields.get_all("cache-status").iter().any(|value| value.to_str().unwrap().contains("; hit"));
        self.check_conditional(asked, status, fields);
        self.check_cookies(asked, fields);
        let Some(number) = serial_in(body) else { return };
        let setting = self.setting;
        let issue = &mut self.issues[number];
        assert_eq!((issue.who, &issue.meaning), (asked.who, &asked.meaning), "an answer to something else");
        assert_eq!(issue.is_write, !asked.method.is_safe(), "an answer to something else");
        assert!(asked.purged <= number, "{asked:?} sees what was purged: {issue:?}");
        assert!(asked.written <= number, "{asked:?} sees what was written since: {issue:?}");
        issue.deliveries += 1;
        assert!(!(issue.is_private && issue.deliveries > 1), "no-store, and given twice: {issue:?}");
        let may_be_seen = asked.at <= issue.until + asked.tolerance + ROUNDING;
        assert!(
            setting.has(Setting::RULES) || !is_hit || may_be_seen,
            "{asked:?} gets what is too old: {issue:?}"
        );
        if issue.is_write && status < 400 {
            self.written.insert(asked.meaning.path.clone(), number);
        }
    }

    fn check_conditional(&mut self, asked: &Asked, status: u16, fields: &HeaderMap) {
        if status == 304 {
            let has = asked.has.as_deref().expect("304 to somebody who has nothing");
            let is_it = |(to, of, tag): &(usize, Meaning, String)| {
                *to == asked.who
                    && *of == asked.meaning
                    && tag.trim_start_matches("W/") == has.trim_start_matches("W/")
            };
            let is_vague = has == "*" || has.ends_with("GMT");
            assert!(is_vague || self.shown.iter().any(is_it), "{asked:?} never got what it says it has");
        }
        if let Some(tag) = fields.get(header::ETAG) {
            self.shown.push((asked.who, asked.meaning.clone(), tag.to_str().unwrap().to_owned()));
        }
    }

    fn check_cookies(&mut self, asked: &Asked, fields: &HeaderMap) {
        for cookie in fields.get_all(header::SET_COOKIE) {
            assert!(self.setting.has(Setting::PASSES_COOKIES) || asked.who == 0, "a cookie comes through");
            let text = cookie.to_str().unwrap();
            let number: usize = text.rsplit('-').next().unwrap().parse().unwrap();
            self.issues[number].cookies += 1;
            assert!(self.issues[number].cookies < 2, "a cookie is given twice: {text}");
        }
    }
}

/// Makes an answer's status and body.
fn content(answer: &Answer, who: usize, number: usize, received: &Received) -> Act {
    let filler = if answer.trouble == Trouble::Large { "filler ".repeat(4_000) } else { String::new() };
    let one = format!(
        r#"{{"mark":"mark-{who}-","serial":{number},"id":"1","slug":"acme","name":"{filler}","links":{{"regionUrl":"https://us.sentry.io"}}}}"#
    );
    let body = match received.uri.path() {
        "/api/0/organizations/" => format!("[{one}]"),
        "/api/0/users/me/regions/" => {
            format!(r#"{{"regions":[{{"name":"us","url":"https://us.sentry.io"}}],"of":{one}}}"#)
        }
        _ => one,
    };
    let body = if answer.status == 204 { String::new() } else { body };
    let act = match answer.trouble {
        Trouble::Slow => {
            let (first, last) = body.split_at(body.len() / 2);
            let pause = Chunk::Pause(Duration::from_secs(3));
            Act::chunks(vec![
                Chunk::Data(first.to_owned().into()),
                pause,
                Chunk::Data(last.to_owned().into()),
            ])
        }
        Trouble::BreaksOff => Act::bytes(body).breaking_off(),
        Trouble::UnknownLength => Act::bytes(body).of_unknown_length(),
        _ => Act::bytes(body),
    };
    act.with_status(answer.status)
}

/// Returns the number of the answer that a body is, or is a part of.
fn serial_in(body: &str) -> Option<usize> {
    let (_, rest) = body.split_once("\"serial\":")?;
    rest.split_once(',')?.0.parse().ok()
}

/// Returns what tells this version of the answer from others.
fn validators(answer: &Answer, who: usize, version: u64, meaning: &Meaning) -> Vec<(&'static str, String)> {
    let words = meaning.query.iter().flat_map(|(name, value)| [name, value]);
    let name: Vec<_> = meaning.path.iter().chain(words).map(|word| word.escape_ascii().to_string()).collect();
    // A quote or a backslash stands in none of the targets.
    let name = name.join("/");
    let tag = format!("\"mark-{who}-{version}-{name}\"");
    match answer.validators {
        1 => vec![("etag", tag)],
        2 => vec![("etag", format!("W/{tag}"))],
        3 => vec![("last-modified", format!("Mon, 02 Nov 2026 00:{:02}:{:02} GMT", who, version % 60))],
        _ => Vec::new(),
    }
}

/// Returns whether a request says that it has this very version.
fn is_known(received: &Received, validators: &[(&'static str, String)]) -> bool {
    validators.iter().any(|(name, value)| match *name {
        "etag" => received.field("if-none-match").contains(value.trim_start_matches("W/")),
        _ => {
            !received.fields.contains_key(header::IF_NONE_MATCH)
                && received.field("if-modified-since") == value
        }
    })
}

/// Gives an answer its fields.
fn dressed(act: Act, answer: &Answer, (who, number): (usize, usize), clock: &Clock) -> Act {
    let now = clock.now();
    let seconds = |wait: u64| Duration::from_secs(wait);
    let mut fields: Vec<(&'static str, String)> = Vec::new();
    let (directives, _, _) = CACHING[answer.caching];
    fields.push(("cache-control", directives.to_owned()));
    fields.push(("vary", VARIES[answer.vary].to_owned()));
    fields.push((
        "content-type",
        ["application/json", "application/json", "text/html", ""][answer.kind].to_owned(),
    ));
    match answer.date {
        0 | 1 => fields.push(("date", httpdate::fmt_http_date(now))),
        2 => fields.push(("date", httpdate::fmt_http_date(now - seconds(30)))),
        _ => {}
    }
    if let Some(expires) = answer.expires {
        let moment = if expires < 0 { now - seconds(1) } else { now + seconds(expires.unsigned_abs()) };
        fields.push(("expires", httpdate::fmt_http_date(moment)));
    }
    if answer.age > 0 {
        fields.push(("age", answer.age.to_string()));
    }
    if answer.cookie {
        fields.push(("set-cookie", format!("session=mark-{who}-{number}")));
    }
    if answer.link {
        let link = format!(
            "<https://us.sentry.io/api/0/organizations/acme/projects/?&cursor=mark-{who}-:1:0>; rel=\"next\""
        );
        fields.push(("link", link));
    }
    fields.push(("retry-after", ["", "", "2", "99999999999999999999"][answer.retry_after].to_owned()));
    fields.extend(limit_fields(answer.limits, clock));
    fields.iter().filter(|(_, value)| !value.is_empty()).fold(act, |act, (name, value)| act.with(name, value))
}

/// What is said of limits: nothing, a lot left, nothing left, or nonsense.
fn limit_fields(kind: usize, clock: &Clock) -> Vec<(&'static str, String)> {
    let now = clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (limit, remaining, reset) = match kind {
        1 => ("40", "39", (now + 1).to_string()),
        2 => ("5", "0", (now + 2).to_string()),
        3 => ("-1", "99999999999", "253402300799".to_owned()),
        _ => return Vec::new(),
    };
    vec![
        ("x-sentry-rate-limit-limit", limit.to_owned()),
        ("x-sentry-rate-limit-remaining", remaining.to_owned()),
        ("x-sentry-rate-limit-reset", reset),
        ("x-sentry-rate-limit-concurrentlimit", "3".to_owned()),
        ("x-sentry-rate-limit-concurrentremaining", "2".to_owned()),
    ]
}

//! What Sentry says of its limits, and what a meter makes of it: the input is a sequence of requests that are sent, answered,
//! refused and lost, with fields that say anything at all.
//!
//! Holds: whatever is said, nobody waits for ever, and what is told of a limit is within it; where Sentry says the truth, a
//! request that may be sent is not refused; fields that were read and written are read the same again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arbitrary::{Arbitrary, Result, Unstructured};
use http::header::{HeaderMap, HeaderName};
use sentrybox::budget::gate::Errand;
use sentrybox::budget::limit_fields::LimitFields;
use sentrybox::budget::meter::Meter;
use sentrybox::budget::observation::{Limits, Moment, Observation, Outcome, Verdict};

use crate::text;

/// What the fields say.
const NAMES: [HeaderName; 5] = [
    HeaderName::from_static("x-sentry-rate-limit-limit"),
    HeaderName::from_static("x-sentry-rate-limit-remaining"),
    HeaderName::from_static("x-sentry-rate-limit-reset"),
    HeaderName::from_static("x-sentry-rate-limit-concurrentlimit"),
    HeaderName::from_static("x-sentry-rate-limit-concurrentremaining"),
];

/// Longest that a meter may hold anybody: the longest window, or the longest wait that this target tells of, and a moment.
const LONGEST: Duration = Duration::from_mins(24 * 60 + 1);

/// One thing that happens.
#[derive(Debug)]
enum Event {
    Send,
    Answer(Outcome, Box<HeaderMap>, Option<Duration>),
    Lose,
    Wait(Duration),
}

/// Values that bounds may be missing for.
const EDGES: [&str; 12] = [
    "0",
    "1",
    "2",
    "40",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "253402300799",
    "253402300800",
    "1800000001",
    "None",
    "-1",
];

impl<'a> Arbitrary<'a> for Event {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match input.int_in_range(0..=7u8)? {
            0..=2 => Self::Send,
            3..=4 => {
                let outcome = *input.choose(&[
                    Outcome::Answered,
                    Outcome::Refused,
                    Outcome::Failed,
                    Outcome::Denied,
                ])?;
                let told = input.int_in_range(0..=4u8)?;
                let retry_after = (told == 0).then_some(Duration::from_secs(7));
                Self::Answer(outcome, Box::new(fields(input)?), retry_after)
            }
            5 => Self::Lose,
            6 => Self::Wait(Duration::from_millis(u64::from(input.arbitrary::<u8>()?) * 20)),
            _ => Self::Wait(Duration::from_secs(u64::from(input.arbitrary::<u16>()?))),
        })
    }
}

fn fields(input: &mut Unstructured<'_>) -> Result<HeaderMap> {
    let mut fields = HeaderMap::new();
    for name in &NAMES {
        let value = match input.int_in_range(0..=3u8)? {
            0 => continue,
            1 => text::value((*input.choose(&EDGES)?).as_bytes()),
            2 => u64::from(input.arbitrary::<u8>()?).into(),
            _ => (START + u64::from(input.arbitrary::<u16>()?)).into(),
        };
        fields.append(name, value);
    }
    Ok(fields)
}

/// When it begins, in seconds since the Unix epoch.
const START: u64 = 1_800_000_000;

/// Tries one input.
pub fn run(input: &[u8]) {
    let mut input = Unstructured::new(input);
    match input.arbitrary() {
        Ok(true) => truthful(&mut input),
        Ok(false) | Err(_) => hostile(&mut input),
    }
}

/// Lets a meter hear anything.
fn hostile(input: &mut Unstructured<'_>) {
    let mut meter = Meter::default();
    let mut under_way: Vec<Errand> = Vec::new();
    let mut now = UNIX_EPOCH + Duration::from_secs(START);
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        let Ok(event) = Event::arbitrary(input) else { break };
        match event {
            Event::Send => under_way.push(meter.take_off(now)),
            Event::Answer(outcome, fields, retry_after) => {
                if let Some(errand) = under_way.pop() {
                    let fields = LimitFields::read(&fields);
                    let seen = Observation { fields, outcome, date: None, retry_after, received: now };
                    meter.settle(&seen, errand, (Some(now), Duration::ZERO));
                    check_rewritten(fields);
                }
            }
            Event::Lose => {
                if let Some(errand) = under_way.pop() {
                    meter.lose(errand, now);
                }
            }
            Event::Wait(time) => now += time,
        }
        check(&meter, now, under_way.len());
    }
}

fn check_rewritten(fields: Option<LimitFields>) {
    let mut written = HeaderMap::new();
    if let Some(fields) = fields {
        fields.write(&mut written);
    }
    let expected = fields.filter(|fields| *fields != LimitFields::default());
    assert_eq!(LimitFields::read(&written), expected);
}

fn check(meter: &Meter, now: SystemTime, under_way: usize) {
    let moment = Moment { now, at_upstream: Some(now), limits: Limits::Possible };
    match meter.verdict(&moment) {
        Verdict::Spend => {}
        Verdict::Wait(wait, hold) => {
            assert!(!wait.is_zero() && wait <= LONGEST, "{wait:?} for {hold:?}");
        }
        Verdict::AwaitAnswer(hold) => assert!(under_way > 0, "no answer will come for {hold:?}"),
    }
    if let Some(present) = meter.present(&moment) {
        assert!(present.remaining <= present.limit, "{present:?}");
        assert!(present.concurrent_remaining <= present.concurrent_limit, "{present:?}");
        assert!(present.reset.is_none_or(|reset| START <= reset), "{present:?}");
    }
    let _ = (meter.pressure(&moment), meter.wait_behind(3), meter.is_idle(&moment));
}

/// A Sentry that counts as it says: so many in a second, so many at a time.
struct Truthful {
    per_second: u32,
    at_once: u32,
    /// The end of the last window that something was counted in, and how much.
    counted: (u64, u32),
    /// What is under way, and the end of the window in which it was counted.
    under_way: Vec<(Errand, u64)>,
    /// Whether it has said anything.
    is_known: bool,
}

/// Lets a meter live with a Sentry that says the truth.
fn truthful(input: &mut Unstructured<'_>) {
    let (Ok(per_second), Ok(at_once)) = (input.int_in_range(1..=8u32), input.int_in_range(1..=5u32)) else {
        return;
    };
    let (counted, under_way) = ((0, 0), Vec::new());
    let mut sentry = Truthful { per_second, at_once, counted, under_way, is_known: false };
    let mut meter = Meter::default();
    let mut now = Duration::from_secs(START);
    for _ in 0..200 {
        if input.is_empty() {
            return;
        }
        match input.int_in_range(0..=2u8).unwrap_or_default() {
            0 => sentry.ask(&mut meter, now),
            1 => sentry.answer(&mut meter, now),
            _ => now += Duration::from_millis(u64::from(input.arbitrary::<u8>().unwrap_or_default()) * 10),
        }
    }
}

impl Truthful {
    /// Counts a request, if it may be sent.
    fn ask(&mut self, meter: &mut Meter, now: Duration) {
        let moment = UNIX_EPOCH + now;
        let at = Moment { now: moment, at_upstream: Some(moment), limits: Limits::Possible };
        if meter.verdict(&at) != Verdict::Spend {
            return;
        }
        let window = now.as_secs() + 1;
        let before = if self.counted.0 == window { self.counted.1 } else { 0 };
        self.counted = (window, before + 1);
        let is_refused = self.per_second < self.counted.1 || self.at_once <= count(&self.under_way);
        assert!(!(is_refused && self.is_known), "refused: {:?}, {:?}", self.counted, self.under_way);
        self.under_way.push((meter.take_off(moment), window));
    }

    /// Answers the last request.
    fn answer(&mut self, meter: &mut Meter, now: Duration) {
        let Some((errand, window)) = self.under_way.pop() else { return };
        let used = if self.counted.0 == window { self.counted.1 } else { self.per_second };
        let fields = LimitFields {
            limit: Some(self.per_second),
            remaining: Some(self.per_second.saturating_sub(used)),
            reset: Some(window),
            concurrent_limit: Some(self.at_once),
            concurrent_remaining: Some(self.at_once.saturating_sub(count(&self.under_way))),
        };
        let (received, date) = (UNIX_EPOCH + now, Some(UNIX_EPOCH + Duration::from_secs(window - 1)));
        let outcome = Outcome::Answered;
        let seen = Observation { fields: Some(fields), outcome, date, retry_after: None, received };
        meter.settle(&seen, errand, (Some(received), Duration::ZERO));
        self.is_known = true;
    }
}

fn count<T>(of: &[T]) -> u32 {
    u32::try_from(of.len()).unwrap()
}

//! Measures one limit of Sentry's: how many requests a window and how many at a time, and how much of it is used. Pure.
//!
//! Sentry counts in fixed windows that end at `Reset` by its own clock. Which window an answered request was counted in,
//! its own `Reset` tells; one that is still unanswered may count in any, so it counts in all. What others use of the same
//! limit shows in `Remaining`. How a limit becomes known is `budget::learning`'s; what a 429 closes, `budget::gate`'s.
//!
//! Invariant: as far as upstream tells the truth and nobody else shares the limit, no request is sent that it would
//! refuse. Not here: whose limit it is (`budget::account`), who waits (`budget::scheduler`). `now` and jitter are arguments.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::budget::gate::{Errand, Gate, Passage};
use crate::budget::learning::Learning;
use crate::budget::limit_fields::{LimitFields, Stated};
use crate::budget::observation::{LONGEST_WINDOW, Limits, Moment, Observation, Outcome, Verdict};
use crate::handling::hold::Hold;
use crate::pressure::Pressure;

/// Most losses that are kept in mind; with more, the oldest are taken not to have been counted.
const MOST_LOST: usize = 256;

/// How long what others use at a time is believed.
const OUTSIDE_MEMORY: Duration = Duration::from_secs(1);

/// One limit.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    knowledge: Knowledge,
    window: Option<Window>,
    /// The window before, as far as it was seen.
    former: Option<Window>,
    /// Length of a window in seconds: the longest that was seen to be left of one.
    length: u64,
    /// Requests that are under way.
    in_flight: u32,
    /// When those ended that were not answered: they may have been counted, then or a little later.
    lost: VecDeque<SystemTime>,
    peak: Peak,
    outside: Option<Outside>,
    gate: Gate,
}

/// What is known of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    Unknown(Learning),
    Limited(Stated),
    Unlimited,
}

impl Default for Knowledge {
    fn default() -> Self {
        Self::Unknown(Learning::default())
    }
}

/// The last window that an answer was counted in.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// Its end, in seconds since the Unix epoch by upstream's clock.
    end: u64,
    /// Requests of ours that were counted in it.
    answered: u32,
    /// The most that upstream has said to be used of it.
    reported: u32,
}

/// The most requests that were under way at a time, in the present second or so and the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Peak {
    recent: u32,
    former: u32,
    since: Option<SystemTime>,
}

/// What others use at a time.
#[derive(Debug, Clone, Copy)]
struct Outside {
    requests: u32,
    until: SystemTime,
}

impl Meter {
    /// Says whether a request may be sent.
    pub fn verdict(&self, moment: &Moment) -> Verdict {
        if let Some((wait, hold)) = self.closed(moment.now) {
            return Verdict::Wait(wait, hold);
        }
        match self.knowledge {
            Knowledge::Unlimited => Verdict::Spend,
            Knowledge::Unknown(_) if moment.limits == Limits::Absent => Verdict::Spend,
            Knowledge::Unknown(learning) => match learning.hold(self.in_flight, moment.now) {
                Some(wait) => Verdict::Wait(wait, Hold::Learning),
                None => Verdict::Spend,
            },
            Knowledge::Limited(limits) => match self.concurrent_verdict(limits.concurrent, moment.now) {
                Verdict::Spend => self.window_verdict(limits.window, moment),
                waiting @ (Verdict::Wait(..) | Verdict::AwaitAnswer(_)) => waiting,
            },
        }
    }

    fn concurrent_verdict(&self, limit: Option<u32>, now: SystemTime) -> Verdict {
        let Some(limit) = limit else { return Verdict::Spend };
        let outside = self.outside.filter(|outside| now < outside.until);
        if self.in_flight.saturating_add(outside.map_or(0, |outside| outside.requests)) < limit {
            return Verdict::Spend;
        }
        match outside {
            Some(outside) => Verdict::Wait(between(now, outside.until), Hold::Concurrency),
            None => Verdict::AwaitAnswer(Hold::Concurrency),
        }
    }

    fn window_verdict(&self, limit: Option<u32>, moment: &Moment) -> Verdict {
        let Some(limit) = limit else { return Verdict::Spend };
        // In whichever window those under way are counted, this one may be counted with all of them.
        if limit <= self.in_flight {
            return Verdict::AwaitAnswer(Hold::Window);
        }
        let (lost, forgotten_in) = self.recently_lost(moment.now);
        let uncertain = self.in_flight.saturating_add(lost);
        let left = match self.present_window(moment.at_upstream) {
            Some((window, left)) if limit <= window.used().saturating_add(uncertain) => left,
            Some(_) | None if limit <= uncertain => forgotten_in,
            Some(_) | None => return Verdict::Spend,
        };
        Verdict::Wait(left, Hold::Window)
    }

    /// Returns how many requests were lost within the length of a window and a second, and how long until that is one less.
    fn recently_lost(&self, now: SystemTime) -> (u32, Duration) {
        let memory = Duration::from_secs(self.length.max(1) + 1);
        let left = |lost: &SystemTime| memory.checked_sub(between(*lost, now)).filter(|left| !left.is_zero());
        let mut recent = self.lost.iter().filter_map(left).peekable();
        let first = recent.peek().copied().unwrap_or_default();
        (u32::try_from(recent.count()).unwrap_or(u32::MAX), first)
    }

    /// Returns the last known window and how long until it is certainly over, unless it is.
    fn present_window(&self, at_upstream: Option<SystemTime>) -> Option<(Window, Duration)> {
        let window = self.window?;
        let left = (UNIX_EPOCH + Duration::from_secs(window.end)).duration_since(at_upstream?).ok()?;
        (!left.is_zero()).then_some((window, left))
    }

    /// Counts a request that is sent now, and says what for.
    pub fn take_off(&mut self, now: SystemTime) -> Errand {
        self.count_in(now);
        if let Knowledge::Unknown(learning) = &mut self.knowledge {
            learning.take_off(now);
        }
        self.gate.take_off(now)
    }

    /// Counts a request that was sent before it was known to count here.
    pub fn count_in(&mut self, now: SystemTime) {
        self.in_flight = self.in_flight.saturating_add(1);
        self.peak.note(self.in_flight, now);
    }

    /// Takes back a request that was counted here and belongs to another limit, or to none.
    pub fn forget(&mut self, errand: Errand, now: SystemTime) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.gate.abandon(errand, now);
    }

    /// Notes that a request has been answered. `jitter` is by how much a gate opens later than it could.
    pub fn settle(
        &mut self,
        seen: &Observation,
        errand: Errand,
        (at_upstream, jitter): (Option<SystemTime>, Duration),
    ) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.learn(seen);
        self.count(seen);
        self.note_others(seen);
        match seen.outcome {
            // A refusal of something else is its route's own.
            Outcome::Refused if seen.fields.is_some_and(|fields| fields.is_exhausted()) => {
                self.gate.refuse(errand, (seen.received, seen.told_wait(at_upstream)), jitter);
            }
            Outcome::Refused | Outcome::Failed => self.gate.abandon(errand, seen.received),
            Outcome::Answered | Outcome::Denied => self.gate.succeed(errand),
        }
    }

    /// Notes that a request ended without an answer: it may have been counted.
    pub fn lose(&mut self, errand: Errand, now: SystemTime) {
        self.forget(errand, now);
        if let Knowledge::Unknown(learning) = &mut self.knowledge {
            learning.lose(now);
        }
        if MOST_LOST <= self.lost.len() {
            self.lost.pop_front();
        }
        self.lost.push_back(now);
    }

    fn learn(&mut self, seen: &Observation) {
        match (seen.fields.map(|fields| fields.stated()), &mut self.knowledge) {
            (None, Knowledge::Unknown(learning)) if seen.outcome == Outcome::Answered => {
                learning.note_silence();
                if learning.is_over() {
                    self.knowledge = Knowledge::Unlimited;
                }
            }
            // What says nothing of limits, or nothing that can be read, takes nothing back.
            (None | Some(None), _) => {}
            (Some(Some(stated)), Knowledge::Limited(limits)) => {
                limits.window = stated.window.or(limits.window);
                limits.concurrent = stated.concurrent.or(limits.concurrent);
            }
            (Some(Some(stated)), Knowledge::Unknown(_) | Knowledge::Unlimited) => {
                self.knowledge = Knowledge::Limited(stated);
            }
        }
    }

    /// Counts an answer in the window that it says it was counted in.
    fn count(&mut self, seen: &Observation) {
        let Some(LimitFields { limit: Some(limit), reset: Some(reset), remaining, .. }) = seen.fields else {
            return;
        };
        let made =
            seen.date.unwrap_or(seen.received).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = reset.saturating_sub(made);
        if left == 0 || LONGEST_WINDOW.as_secs() < left {
            return;
        }
        self.length = self.length.max(left);
        let used = remaining.map_or(0, |remaining| limit.saturating_sub(remaining));
        match &mut self.window {
            Some(window) if window.end == reset => {
                window.answered = window.answered.saturating_add(1);
                window.reported = window.reported.max(used);
            }
            // It was counted before; that the present one has room for it is not known.
            Some(window) if reset < window.end => window.answered = window.answered.saturating_add(1),
            Some(_) | None => {
                self.former = self.window;
                self.window = Some(Window { end: reset, answered: 1, reported: used });
            }
        }
    }

    /// Notes how much of what is used at a time is not ours.
    fn note_others(&mut self, seen: &Observation) {
        let Some(LimitFields {
            concurrent_limit: Some(limit), concurrent_remaining: Some(remaining), ..
        }) = seen.fields
        else {
            return;
        };
        let used = limit.saturating_sub(remaining);
        // Whatever of it may have been ours when it was told, is taken for ours.
        let requests = used.saturating_sub(self.peak.most().max(self.in_flight + 1));
        self.outside = (requests > 0).then(|| Outside { requests, until: seen.received + OUTSIDE_MEMORY });
    }

    /// Returns what the five fields would say at this moment; `None` where nothing is known.
    pub fn present(&self, moment: &Moment) -> Option<LimitFields> {
        let Knowledge::Limited(Stated { window: limit, concurrent }) = self.knowledge else { return None };
        // Without a window that was counted in, nobody knows what is left.
        self.window?;
        let window = self.present_window(moment.at_upstream).map(|(window, _)| window);
        let used = window.map_or(0, |window| window.used()).saturating_add(self.in_flight);
        let next = || {
            let seconds = moment.at_upstream?.duration_since(UNIX_EPOCH).ok()?.as_secs();
            Some((seconds / self.length.max(1) + 1) * self.length.max(1))
        };
        Some(LimitFields {
            limit,
            remaining: limit.map(|limit| limit.saturating_sub(used)),
            reset: limit.and(window.map(|window| window.end).or_else(next)),
            concurrent_limit: concurrent,
            concurrent_remaining: concurrent.map(|limit| limit.saturating_sub(self.in_flight)),
        })
    }

    /// Returns how much is in use, of the present window or of the one that has just ended.
    pub fn pressure(&self, moment: &Moment) -> Pressure {
        if !self.gate.is_free(moment.now) {
            return Pressure::FULL;
        }
        let Knowledge::Limited(Stated { window: Some(limit), .. }) = self.knowledge else {
            return Pressure::NONE;
        };
        let Some(seconds) = moment.at_upstream.and_then(|at| at.duration_since(UNIX_EPOCH).ok()) else {
            return Pressure::NONE;
        };
        let is_recent = |window: &Window| seconds.as_secs() < window.end + self.length;
        let known = [self.window, self.former].into_iter().flatten();
        let most = known.filter(is_recent).map(|window| window.used()).max().unwrap_or(0);
        Pressure::of(most.max(self.in_flight), limit)
    }

    /// Returns how long a further request will wait at the least when so many wait before it.
    pub fn wait_behind(&self, waiting: usize) -> Duration {
        match self.knowledge {
            Knowledge::Limited(Stated { window: Some(limit), .. }) => {
                let windows = u64::try_from(waiting).unwrap_or(u64::MAX) / u64::from(limit.max(1));
                Duration::from_secs(windows.saturating_mul(self.length))
            }
            Knowledge::Limited(_) | Knowledge::Unknown(_) | Knowledge::Unlimited => Duration::ZERO,
        }
    }

    /// Returns its gate.
    pub fn gate(&self) -> Gate {
        self.gate
    }

    /// Returns the limits, where they are known.
    pub fn limits(&self) -> Option<Stated> {
        match self.knowledge {
            Knowledge::Limited(limits) => Some(limits),
            Knowledge::Unknown(_) | Knowledge::Unlimited => None,
        }
    }

    /// Sets the limits to what they are after all.
    pub fn restate(&mut self, limits: Stated) {
        self.knowledge = Knowledge::Limited(limits);
    }

    /// Returns whether nothing would be lost if it were forgotten: nothing is under way, closed or used up.
    pub fn is_idle(&self, moment: &Moment) -> bool {
        let is_used_up = match self.window_verdict(self.limits().and_then(|limits| limits.window), moment) {
            Verdict::Spend => false,
            Verdict::Wait(..) | Verdict::AwaitAnswer(_) => true,
        };
        self.in_flight == 0 && self.gate.is_free(moment.now) && !is_used_up
    }

    /// Returns whether a request may pass at `now`, as far as refusals are concerned.
    pub fn is_free(&self, now: SystemTime) -> bool {
        self.gate.is_free(now)
    }

    /// Returns for how long it is closed at `now`, and by what.
    pub fn closed(&self, now: SystemTime) -> Option<(Duration, Hold)> {
        match self.gate.passage(now) {
            Passage::Free => None,
            Passage::Closed(wait, hold) | Passage::Probing(wait, hold) => Some((wait, hold)),
        }
    }
}

impl Window {
    fn used(&self) -> u32 {
        self.answered.max(self.reported)
    }
}

impl Peak {
    fn note(&mut self, in_flight: u32, now: SystemTime) {
        if self.since.is_none_or(|since| OUTSIDE_MEMORY <= between(since, now)) {
            *self = Self { recent: 0, former: self.recent, since: Some(now) };
        }
        self.recent = self.recent.max(in_flight);
    }

    fn most(&self) -> u32 {
        self.recent.max(self.former)
    }
}

fn between(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_JITTER: Duration = Duration::ZERO;

    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000) + Duration::from_millis(milliseconds)
    }

    /// Limits of this many per window of a second and at a time, of which so many are left; the window ends at 1,001.
    fn fields(limit: u32, remaining: u32, end: u64) -> LimitFields {
        LimitFields {
            limit: Some(limit),
            remaining: Some(remaining),
            reset: Some(1_000 + end),
            concurrent_limit: Some(25),
            concurrent_remaining: Some(24),
        }
    }

    fn seen(fields: LimitFields, received: u64) -> Observation {
        let date = Some(at(received - received % 1_000));
        let fields = Some(fields);
        Observation { fields, outcome: Outcome::Answered, date, retry_after: None, received: at(received) }
    }

    fn refused(fields: LimitFields, received: u64) -> Observation {
        Observation { outcome: Outcome::Refused, ..seen(fields, received) }
    }

    /// A meter that has learned its limit from one answer, at the start of the window that ends at 1,001.
    fn meter(limit: u32) -> Meter {
        let mut meter = Meter::default();
        meter.take_off(at(0));
        meter.settle(&seen(fields(limit, limit - 1, 1), 10), Errand::Plain, (None, NO_JITTER));
        meter
    }

    /// Sends so many requests.
    fn take_off(meter: &mut Meter, count: usize, now: SystemTime) {
        for _ in 0..count {
            meter.take_off(now);
        }
    }

    /// Upstream's clock is ours.
    fn moment(milliseconds: u64) -> Moment {
        let now = at(milliseconds);
        Moment { now, at_upstream: Some(now), limits: Limits::Possible }
    }

    fn verdict(meter: &Meter, now: u64) -> Verdict {
        meter.verdict(&moment(now))
    }

    fn window_for(milliseconds: u64) -> Verdict {
        Verdict::Wait(Duration::from_millis(milliseconds), Hold::Window)
    }

    #[test]
    fn an_unknown_limit_lets_one_request_go_and_holds_the_others() {
        let mut meter = Meter::default();
        assert_eq!(verdict(&meter, 0), Verdict::Spend);
        meter.take_off(at(0));
        let held = Verdict::Wait(Duration::from_millis(999), Hold::Learning);
        assert_eq!(verdict(&meter, 1), held);
        let elsewhere = Moment { limits: Limits::Absent, ..moment(1) };
        assert_eq!(meter.verdict(&elsewhere), Verdict::Spend);
        meter.settle(&seen(fields(40, 39, 1), 10), Errand::Plain, (None, NO_JITTER));
        assert_eq!(verdict(&meter, 10), Verdict::Spend);
    }

    #[test]
    fn three_answers_without_a_word_mean_no_limit_and_failures_mean_nothing() {
        let mut meter = Meter::default();
        let mut settle = |outcome| {
            meter.take_off(at(0));
            meter.settle(
                &Observation { fields: None, outcome, ..seen(fields(1, 1, 1), 0) },
                Errand::Plain,
                (None, NO_JITTER),
            );
            take_off(&mut meter, 100, at(0));
            let is_held = verdict(&meter, 0) != Verdict::Spend;
            (0..100).for_each(|_| meter.forget(Errand::Plain, at(0)));
            is_held
        };
        let outcomes =
            [Outcome::Answered, Outcome::Failed, Outcome::Answered, Outcome::Failed, Outcome::Answered];
        assert_eq!(outcomes.map(&mut settle), [true, true, true, true, false]);
    }

    #[test]
    fn values_that_are_none_are_a_word_and_no_limit() {
        let mut meter = Meter::default();
        for _ in 0..5 {
            meter.take_off(at(0));
            meter.settle(&seen(LimitFields::default(), 0), Errand::Plain, (None, NO_JITTER));
        }
        assert_eq!(meter.limits(), None);
        meter.take_off(at(0));
        assert!(matches!(verdict(&meter, 1), Verdict::Wait(_, Hold::Learning)));
    }

    #[test]
    fn a_window_is_spent_to_its_limit_and_no_further_until_it_is_certainly_over() {
        let mut meter = meter(3);
        for now in [20, 30] {
            assert_eq!(verdict(&meter, now), Verdict::Spend);
            meter.take_off(at(now));
        }
        assert_eq!(verdict(&meter, 40), window_for(960));
        meter.settle(&seen(fields(3, 1, 1), 50), Errand::Plain, (None, NO_JITTER));
        meter.settle(&seen(fields(3, 0, 1), 60), Errand::Plain, (None, NO_JITTER));
        assert_eq!(verdict(&meter, 999), window_for(1));
        assert_eq!(verdict(&meter, 1_000), Verdict::Spend);
        // Upstream's clock may be half a second behind ours.
        assert_eq!(meter.verdict(&Moment { at_upstream: Some(at(500)), ..moment(1_000) }), window_for(500));
    }

    #[test]
    fn what_is_unanswered_counts_in_every_window() {
        let mut meter = meter(3);
        meter.take_off(at(900));
        meter.take_off(at(910));
        assert_eq!(verdict(&meter, 1_100), Verdict::Spend);
        meter.take_off(at(1_100));
        assert_eq!(verdict(&meter, 1_110), Verdict::AwaitAnswer(Hold::Window));
        // One was still counted in the old window.
        meter.settle(&seen(fields(3, 1, 1), 1_120), Errand::Plain, (None, NO_JITTER));
        assert_eq!(verdict(&meter, 1_130), Verdict::Spend);
        meter.settle(&seen(fields(3, 2, 2), 1_140), Errand::Plain, (None, NO_JITTER));
        meter.settle(&seen(fields(3, 1, 2), 1_150), Errand::Plain, (None, NO_JITTER));
        meter.take_off(at(1_160));
        assert_eq!(verdict(&meter, 1_170), window_for(830));
    }

    #[test]
    fn what_others_have_used_of_a_window_counts() {
        let mut meter = Meter::default();
        meter.take_off(at(0));
        meter.settle(&seen(fields(10, 0, 1), 10), Errand::Plain, (None, NO_JITTER));
        assert_eq!(verdict(&meter, 20), window_for(980));
    }

    #[test]
    fn no_more_are_under_way_than_may_be_at_a_time() {
        let mut meter = meter(1_000);
        take_off(&mut meter, 25, at(20));
        assert_eq!(verdict(&meter, 30), Verdict::AwaitAnswer(Hold::Concurrency));
        meter.settle(&seen(fields(1_000, 900, 1), 40), Errand::Plain, (None, NO_JITTER));
        assert_eq!(verdict(&meter, 50), Verdict::Spend);
    }

    #[test]
    fn what_others_have_under_way_counts_for_a_second() {
        let mut meter = meter(1_000);
        meter.take_off(at(20));
        let crowded = LimitFields { concurrent_remaining: Some(0), ..fields(1_000, 900, 1) };
        meter.settle(&seen(crowded, 30), Errand::Plain, (None, NO_JITTER));
        assert_eq!(verdict(&meter, 30), Verdict::Spend, "24 of the others, and one of ours");
        meter.take_off(at(30));
        assert_eq!(verdict(&meter, 40), Verdict::Wait(Duration::from_millis(990), Hold::Concurrency));
        meter.lose(Errand::Plain, at(50));
        assert_eq!(verdict(&meter, 1_040), Verdict::Spend);
    }

    #[test]
    fn a_change_of_the_limit_is_followed_at_once() {
        let mut meter = meter(40);
        take_off(&mut meter, 10, at(20));
        meter.settle(&seen(fields(5, 0, 1), 100), Errand::Plain, (None, NO_JITTER));
        assert_eq!(verdict(&meter, 100), Verdict::AwaitAnswer(Hold::Window));
        (0..9).for_each(|_| meter.settle(&seen(fields(5, 0, 1), 110), Errand::Plain, (None, NO_JITTER)));
        assert_eq!(verdict(&meter, 110), window_for(890));
        take_off(&mut meter, 5, at(1_000));
        assert_eq!(verdict(&meter, 1_000), Verdict::AwaitAnswer(Hold::Window));
    }

    #[test]
    fn a_429_closes_the_gate_until_the_window_ends_and_one_probe_reopens_it() {
        let mut meter = meter(40);
        meter.take_off(at(20));
        meter.settle(
            &refused(fields(40, 0, 1), 100),
            Errand::Plain,
            (Some(at(100)), Duration::from_millis(50)),
        );
        assert!(!meter.is_free(at(100)));
        assert_eq!(verdict(&meter, 100), Verdict::Wait(Duration::from_millis(950), Hold::Gate));
        assert_eq!(verdict(&meter, 1_050), Verdict::Spend);
        let probe = meter.take_off(at(1_050));
        assert_eq!(verdict(&meter, 1_060), Verdict::Wait(Duration::from_millis(1_990), Hold::Gate));
        meter.settle(&seen(fields(40, 39, 2), 1_070), probe, (None, NO_JITTER));
        assert!(meter.is_free(at(1_070)));
        assert_eq!(verdict(&meter, 1_080), Verdict::Spend);
    }

    #[test]
    fn retry_after_is_believed_where_somebody_sends_one() {
        let mut meter = meter(40);
        meter.take_off(at(20));
        let told =
            Observation { retry_after: Some(Duration::from_secs(7)), ..refused(fields(40, 0, 1), 100) };
        meter.settle(&told, Errand::Plain, (Some(at(100)), NO_JITTER));
        assert_eq!(verdict(&meter, 100), Verdict::Wait(Duration::from_secs(7), Hold::Gate));
    }

    #[test]
    fn when_a_probe_is_lost_another_one_goes() {
        let mut meter = meter(40);
        meter.take_off(at(20));
        meter.settle(&refused(fields(40, 0, 1), 100), Errand::Plain, (Some(at(100)), NO_JITTER));
        let probe = meter.take_off(at(1_000));
        meter.lose(probe, at(1_500));
        assert_eq!(verdict(&meter, 1_500), Verdict::Spend);
        let probe = meter.take_off(at(1_500));
        assert!(matches!(verdict(&meter, 1_500), Verdict::Wait(_, Hold::Gate)));
        meter.forget(probe, at(1_500));
        assert_eq!(verdict(&meter, 1_500), Verdict::Spend, "it belonged to another limit");
    }

    #[test]
    fn a_reset_in_the_past_or_far_away_and_none_values_leave_the_window_alone() {
        for odd in [
            fields(40, 0, 0),
            LimitFields { reset: Some(10_000_000), ..fields(40, 0, 1) },
            LimitFields { reset: None, ..fields(40, 0, 1) },
            LimitFields { limit: None, ..fields(40, 0, 1) },
        ] {
            let mut meter = meter(40);
            meter.take_off(at(20));
            meter.settle(&seen(odd, 30), Errand::Plain, (None, NO_JITTER));
            assert_eq!(verdict(&meter, 40), Verdict::Spend, "{odd:?}");
        }
    }

    #[test]
    fn hits_are_told_what_is_left_at_this_moment() {
        let mut meter = meter(40);
        take_off(&mut meter, 4, at(20));
        let present = meter.present(&moment(30)).unwrap();
        assert_eq!(
            (present.remaining, present.reset, present.concurrent_remaining),
            (Some(35), Some(1_001), Some(21))
        );
        let later = meter.present(&moment(5_500)).unwrap();
        assert_eq!((later.remaining, later.reset), (Some(36), Some(1_006)));
        assert!(Meter::default().present(&moment(30)).is_none());
    }

    #[test]
    fn the_pressure_is_that_of_the_present_window_or_the_one_before() {
        let mut meter = meter(10);
        assert_eq!(meter.pressure(&moment(20)), Pressure::of(1, 10));
        for remaining in [8, 7, 1] {
            meter.take_off(at(20));
            meter.settle(&seen(fields(10, remaining, 1), 30), Errand::Plain, (None, NO_JITTER));
        }
        assert_eq!(meter.pressure(&moment(40)), Pressure::of(9, 10));
        assert_eq!(meter.pressure(&moment(1_500)), Pressure::of(9, 10));
        meter.take_off(at(1_500));
        meter.settle(&seen(fields(10, 9, 2), 1_510), Errand::Plain, (None, NO_JITTER));
        assert_eq!(meter.pressure(&moment(1_520)), Pressure::of(9, 10));
        assert_eq!(meter.pressure(&moment(2_020)), Pressure::of(1, 10));
        assert_eq!(meter.pressure(&moment(9_000)), Pressure::NONE);
    }

    #[test]
    fn who_stands_behind_others_waits_for_their_windows_too() {
        let meter = meter(10);
        assert_eq!(meter.wait_behind(9), Duration::ZERO);
        assert_eq!(meter.wait_behind(35), Duration::from_secs(3));
        assert_eq!(Meter::default().wait_behind(1_000), Duration::ZERO);
    }
}

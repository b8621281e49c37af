//! Decides whether upstream may be asked now, and lets those wait who may not: the shield before Sentry's limits.
//!
//! Every call to upstream, writes and pass-through included, goes through here: [`Budget::reserve`] before it is sent,
//! [`Reservation::settle`] when its answer's head is there, and its `Permit` lives until the body has ended.
//!
//! | File | Of what |
//! |---|---|
//! | [`ask`], [`permit`] | what a request asks for, and the right that it gets |
//! | [`limit_fields`], [`observation`] | what an answer says |
//! | [`account`], [`meter`], [`route_state`], [`learning`] | Sentry's limits: whose, how much is used, what is not known yet |
//! | [`upstream_state`], [`upstream_clock`] | an upstream as a whole, and how late it is there |
//! | [`gate`] | what refuses or fails is left alone until one request has gone to see |
//! | [`scheduler`], [`mod@line`] | who goes, who waits in which order, who is refused |
//! | [`levels`], [`onlooking`] | what those see who look on |
//!
//! What goes at a client's pace must not hold up everybody else: requests that bring a body share at most half of the
//! capacity among them, and their permits, like those of answers that stream to a client, lapse after ten seconds. Sentry
//! itself counts a request until it has answered, not until the client has read (`sentry-api.md` §2).
//!
//! Invariants: never more than `budget.max_concurrent` requests are waiting for an upstream's answer, but for those with a
//! body that have waited longer than that; nobody waits here longer than `budget.max_wait`, nor at all when it is known to
//! be in vain; no more than `budget.max_waiting` wait; a caller who leaves gives its place back.
//! Not here: what a request that may not be sent is answered with (`proxy`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time;

use crate::budget::account::Loss;
use crate::budget::ask::{Ask, Limit, Load, Payer};
use crate::budget::line::Place;
use crate::budget::observation::{Forecast, Gates, Headroom, Observation, Outlook};
use crate::budget::permit::Reservation;
use crate::budget::route_state::Charge;
use crate::budget::scheduler::{Affected, Entry, Scheduler};
use crate::clock::Clock;
use crate::config::budget::BudgetConfig;
use crate::handling::hold::Hold;

pub mod account;
pub mod ask;
pub mod gate;
pub mod learning;
pub mod levels;
pub mod limit_fields;
pub mod line;
pub mod meter;
pub mod observation;
pub mod onlooking;
pub mod permit;
pub mod route_state;
pub mod scheduler;
pub mod upstream_clock;
pub mod upstream_state;

/// How long the line is not looked at again for time alone.
const SHORTEST_ALARM: Duration = Duration::from_millis(2);

/// What a client is told to wait for that waits for something whose end nobody knows.
const UNKNOWN_WAIT: Duration = Duration::from_secs(1);

/// How much upstream may be asked; cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Option<Arc<Shared>>);

/// What everybody who asks shares.
#[derive(Debug)]
pub struct Shared {
    scheduler: Mutex<Scheduler>,
    /// When a task will call the next in line.
    alarm: Mutex<Option<SystemTime>>,
    clock: Clock,
    max_wait: Duration,
}

/// Why a request may not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("upstream may not be asked now: {}", hold.label())]
pub struct Refused {
    /// What held it.
    pub hold: Hold,
    /// When to come again: as far as that is known, or in a second.
    pub retry_after: Duration,
}

/// What would become of a request that asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// It would be sent at once.
    Sent,
    /// It would wait.
    Waiting {
        /// What for.
        hold: Hold,
        /// For so long, as far as that is known.
        at_least: Duration,
        /// Then it would be refused.
        at_most: Duration,
    },
    /// It would not be sent.
    Refused(Refused),
}

impl Budget {
    /// Takes the limits from the configuration.
    pub fn new(config: &BudgetConfig, clock: Clock) -> Self {
        Self(config.enabled.then(|| {
            Arc::new(Shared {
                scheduler: Mutex::new(Scheduler::new(config)),
                alarm: Mutex::new(None),
                clock,
                max_wait: config.max_wait,
            })
        }))
    }

    /// Returns whether anything is limited.
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the longest time that a request may wait in all: nothing where nothing is limited.
    pub fn max_wait(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |shared| shared.max_wait)
    }

    /// Waits for the right to one request, for `within` at the most.
    ///
    /// # Errors
    /// [`Refused`] when it did not come, or is known not to come, in time.
    pub async fn reserve(&self, ask: Ask, within: Duration) -> Result<Reservation, Refused> {
        let Some(shared) = &self.0 else { return Ok(Reservation::unlimited()) };
        let within = ask.patience.bound(within);
        let entry = shared.scheduler().enter(&ask, within, shared.now());
        let (charge, held) = match entry {
            Entry::Taken(charge) => (charge, None),
            Entry::Refused(outlook) => return Err(shared.refusal(&ask, outlook)),
            Entry::InLine(place, called, hold) => {
                (shared.wait(&ask, (place, called), within).await?, Some(hold))
            }
        };
        Ok(Reservation::new(Arc::clone(shared), ask, (charge, held)))
    }

    /// Says what would become of a request that asked now; nothing changes by that.
    pub fn prospect(&self, ask: &Ask) -> Prospect {
        let Some(shared) = &self.0 else { return Prospect::Sent };
        let within = ask.patience.bound(shared.max_wait);
        let now = shared.now();
        let (forecast, outlook) = {
            let scheduler = shared.scheduler();
            (scheduler.forecast(ask, within, now), scheduler.outlook(ask, now))
        };
        match forecast {
            Forecast::Sent => Prospect::Sent,
            Forecast::Waiting(..) if within.is_zero() => Prospect::Refused(shared.refusal(ask, outlook)),
            Forecast::Waiting(hold, at_least) => Prospect::Waiting { hold, at_least, at_most: within },
            Forecast::Refused(outlook) => Prospect::Refused(shared.refusal(ask, outlook)),
        }
    }

    /// Says how the gates stand before a limit; `None` where nothing is limited.
    pub fn gates(&self, limit: &Limit) -> Option<Gates> {
        let shared = self.0.as_ref()?;
        Some(shared.scheduler().gates(limit, shared.now()))
    }

    /// Returns what is known of a limit at this moment.
    pub fn headroom(&self, limit: &Limit) -> Headroom {
        let Some(shared) = &self.0 else { return Headroom::default() };
        shared.scheduler().headroom(limit, shared.now())
    }

    /// Returns how many requests hold a permit.
    pub fn taken(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| shared.scheduler().taken())
    }

    /// Returns how many requests wait.
    pub fn waiting(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| shared.scheduler().waiting())
    }
}

/// A place in the line, which is left when this is dropped.
struct Queued<'a> {
    shared: &'a Arc<Shared>,
    ask: &'a Ask,
    place: Place,
    called: oneshot::Receiver<Charge>,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let payer = &self.ask.limit.payer;
        if self.shared.scheduler().leave(&self.ask.limit, self.place) {
            self.shared.call(Affected::Payer(payer));
        } else if let Ok(charge) = self.called.try_recv() {
            // Called, but its client has just left.
            self.shared.lose((self.ask, charge), Loss::Unsent);
            self.shared.give_back(payer, self.ask.load);
        }
    }
}

impl Shared {
    /// Returns the present moment.
    pub fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits in the line until called.
    async fn wait(
        self: &Arc<Self>,
        ask: &Ask,
        (place, called): (Place, oneshot::Receiver<Charge>),
        within: Duration,
    ) -> Result<Charge, Refused> {
        let mut queued = Queued { shared: self, ask, place, called };
        self.call(Affected::Payer(&ask.limit.payer));
        if let Ok(Ok(charge)) = time::timeout(within, &mut queued.called).await {
            return Ok(charge);
        }
        drop(queued);
        let outlook = self.scheduler().outlook(ask, self.now());
        Err(self.refusal(ask, outlook))
    }

    /// Calls those who may go now of whom something has affected, and has the next one called when time has come.
    fn call(self: &Arc<Self>, affected: Affected<'_>) {
        let now = self.now();
        let soonest = self.scheduler().call(affected, now);
        self.set_alarm(soonest, now);
    }

    /// Has the line looked at again when that time has passed, unless it will be before.
    fn set_alarm(self: &Arc<Self>, soonest: Option<Duration>, now: SystemTime) {
        let Some(wait) = soonest else { return };
        let at = now + wait.clamp(SHORTEST_ALARM, self.max_wait.max(SHORTEST_ALARM));
        {
            let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
            if alarm.is_some_and(|set| now < set && set <= at) {
                return;
            }
            *alarm = Some(at);
        }
        let shared = Arc::clone(self);
        // Ends by itself: a request waits for at most `budget.max_wait`, and without one the alarm is not set again.
        tokio::spawn(async move {
            time::sleep(at.duration_since(now).unwrap_or_default()).await;
            {
                let mut alarm = shared.alarm.lock().unwrap_or_else(PoisonError::into_inner);
                *alarm = alarm.filter(|set| *set != at);
            }
            shared.call(Affected::Everybody);
        });
    }

    /// Says why a request is not sent, and when to come again.
    fn refusal(&self, ask: &Ask, outlook: Outlook) -> Refused {
        match outlook {
            Outlook::Later(wait, hold) => {
                let known = self.scheduler().known_wait(ask, outlook);
                Refused { hold, retry_after: known.max(wait) }
            }
            Outlook::WhenOneEnds(hold) => Refused { hold, retry_after: UNKNOWN_WAIT },
            Outlook::Now => Refused { hold: Hold::Window, retry_after: UNKNOWN_WAIT },
        }
    }

    /// Learns from an answer.
    pub fn settle(self: &Arc<Self>, charged: (&Ask, Charge), seen: &Observation, jitter: Duration) {
        let affected = self.scheduler().settle(charged, seen, jitter);
        self.call(affected);
    }

    /// Notes that a request ended without an answer.
    pub fn lose(self: &Arc<Self>, charged: (&Ask, Charge), loss: Loss) {
        let affected = self.scheduler().lose(charged, loss, self.now());
        self.call(affected);
    }

    /// Stops waiting for a request that goes at its client's pace; returns what is left to be settled.
    pub fn lapse(self: &Arc<Self>, charged: (&Ask, Charge)) -> Charge {
        let left = self.scheduler().lapse(charged, self.now());
        self.call(Affected::Everybody);
        left
    }

    /// Gives back a place among the requests at a time.
    pub fn give_back(self: &Arc<Self>, payer: &Payer, load: Load) {
        let affected = self.scheduler().give_back(&payer.upstream, load);
        self.call(affected);
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::pressure::Pressure;
    use http::StatusCode;
    use http::header::HeaderMap;

    use crate::budget::account::Reach;
    use crate::budget::ask::Patience;
    use crate::budget::permit::Permit;
    use crate::config::load;
    use crate::credential::{BudgetIdentity, CredentialPartition};
    use crate::metrics::budget_levels::ClosedGates;
    use crate::routes::RouteLabel;
    use crate::testing::{SUBJECT, asked, fields};

    const SECOND: Duration = Duration::from_secs(1);

    /// `budget.max_wait`.
    const LONG: Duration = Duration::from_secs(10);

    fn config(max_concurrent: usize) -> BudgetConfig {
        BudgetConfig { max_concurrent, max_waiting: 2, ..load::defaults().budget }
    }

    fn budget(max_concurrent: usize) -> Budget {
        Budget::new(&config(max_concurrent), Clock::start())
    }

    fn partition(token: &str) -> CredentialPartition {
        asked(SUBJECT, &[("authorization", &format!("Bearer sntryu_{token}"))]).partition()
    }

    /// What a token asks for, on a route of its own name.
    fn ask_of(token: &str, route: &str) -> Ask {
        let partition = partition(token);
        Ask {
            limit: Limit {
                payer: Payer {
                    upstream: "sentry.io".into(),
                    identity: BudgetIdentity::Credential(partition),
                    method: Method::GET,
                },
                route: RouteLabel::Template(route.into()),
            },
            partition,
            load: Load::Bare,
            patience: Patience::Full,
        }
    }

    /// Somebody else each time, so that only the caps count.
    fn anybody() -> Ask {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        ask_of(&NEXT.fetch_add(1, Ordering::Relaxed).to_string(), "/a/")
    }

    fn with_body() -> Ask {
        Ask { load: Load::WithBody, ..anybody() }
    }

    fn answered(reservation: Reservation) -> Permit {
        reservation.settle(StatusCode::OK, &HeaderMap::new())
    }

    /// Answers as Sentry does: so many of so many left, in the window of this second of its clock.
    fn counted(reservation: Reservation, clock: &Clock, (limit, remaining): (u32, u32)) -> Permit {
        let now = clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(now));
        let fields = fields(&[
            ("date", &date),
            ("x-sentry-rate-limit-limit", &limit.to_string()),
            ("x-sentry-rate-limit-remaining", &remaining.to_string()),
            ("x-sentry-rate-limit-reset", &(now + 1).to_string()),
        ]);
        reservation.settle(StatusCode::OK, &fields)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_beyond_the_cap_waits_until_one_is_given_back() {
        let budget = budget(1);
        let first = budget.reserve(anybody(), LONG).await.unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(anybody(), LONG).await.map(drop) }
        });
        time::sleep(5 * SECOND).await;
        assert!(!waiting.is_finished());
        drop(answered(first));
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    /// Says what was foreseen, and what then came of it.
    async fn foreseen(budget: &Budget, ask: Ask) -> (Prospect, Result<(), Refused>) {
        let prospect = budget.prospect(&ask);
        assert_eq!(budget.prospect(&ask), prospect, "asking changes nothing");
        (prospect, budget.reserve(ask, LONG).await.map(drop))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_foreseen_is_what_then_happens() {
        let budget = budget(1);
        assert_eq!(foreseen(&budget, anybody()).await, (Prospect::Sent, Ok(())));
        let _held = budget.reserve(anybody(), LONG).await.unwrap();
        let hold = Hold::Capacity;
        let waiting = Prospect::Waiting { hold, at_least: Duration::ZERO, at_most: LONG };
        let refused = Refused { hold, retry_after: SECOND };
        assert_eq!(foreseen(&budget, anybody()).await, (waiting, Err(refused)));
        let hurried = Ask { patience: Patience::None, ..anybody() };
        assert_eq!(foreseen(&budget, hurried).await, (Prospect::Refused(refused), Err(refused)));
        for _ in 0..2 {
            let budget = budget.clone();
            tokio::spawn(async move { budget.reserve(anybody(), LONG).await.map(drop) });
        }
        time::sleep(Duration::from_millis(1)).await;
        assert_eq!(foreseen(&budget, anybody()).await, (Prospect::Refused(refused), Err(refused)));
        let unlimited = Budget::new(&BudgetConfig { enabled: false, ..config(1) }, Clock::start());
        assert_eq!(foreseen(&unlimited, anybody()).await, (Prospect::Sent, Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_bound() {
        let budget = budget(1);
        let _held = budget.reserve(anybody(), LONG).await.unwrap();
        let refused = budget.reserve(anybody(), LONG).await.map(drop).unwrap_err();
        assert_eq!(refused.hold, Hold::Capacity);
        assert_eq!(budget.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_leaves_gives_its_place_back() {
        let budget = budget(1);
        let held = budget.reserve(anybody(), LONG).await.unwrap();
        assert!(time::timeout(SECOND, budget.reserve(anybody(), LONG)).await.is_err());
        assert_eq!(budget.waiting(), 0);
        drop(held);
        assert!(budget.reserve(anybody(), LONG).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gives_its_place_back_and_a_quick_one_at_once() {
        let budget = budget(1);
        drop(answered(budget.reserve(anybody(), LONG).await.unwrap()).lapsing());
        time::timeout(SECOND, budget.reserve(anybody(), LONG)).await.unwrap().unwrap();
        let _slow = answered(budget.reserve(anybody(), LONG).await.unwrap()).lapsing();
        time::sleep(5 * SECOND).await;
        assert!(time::timeout(4 * SECOND, budget.reserve(anybody(), LONG)).await.is_err());
        assert!(time::timeout(2 * SECOND, budget.reserve(anybody(), LONG)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_disabled_budget_limits_nothing() {
        let budget = Budget::new(&BudgetConfig { enabled: false, ..config(1) }, Clock::start());
        let one = ask_of("one", "/a/");
        let held = [budget.reserve(one.clone(), LONG).await, budget.reserve(one, LONG).await];
        assert!(held.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_clients_send_slowly_leave_half_of_the_capacity_to_others() {
        let budget = budget(4);
        let _slow = [budget.reserve(with_body(), LONG).await, budget.reserve(with_body(), LONG).await];
        assert!(time::timeout(5 * SECOND, budget.reserve(with_body(), LONG)).await.is_err());
        assert!(time::timeout(SECOND, budget.reserve(anybody(), LONG)).await.unwrap().is_ok());
        // After ten seconds they have lapsed.
        assert!(time::timeout(6 * SECOND, budget.reserve(with_body(), LONG)).await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_when_too_many_wait_is_refused_at_once() {
        let budget = budget(1);
        let _held = budget.reserve(anybody(), LONG).await.unwrap();
        for _ in 0..2 {
            let budget = budget.clone();
            tokio::spawn(async move { budget.reserve(anybody(), LONG).await.map(drop) });
        }
        time::sleep(Duration::from_millis(1)).await;
        let refused = time::timeout(Duration::from_millis(1), budget.reserve(anybody(), LONG)).await;
        assert_eq!(refused.unwrap().map(drop).unwrap_err().hold, Hold::Capacity);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_over_every_second() {
        let budget = Budget::new(&BudgetConfig { max_per_second: 2, ..config(100) }, Clock::start());
        let watch = crate::clock::Stopwatch::start();
        for _ in 0..5 {
            drop(answered(budget.reserve(anybody(), LONG).await.unwrap()));
        }
        assert!(2 * SECOND <= watch.read() && watch.read() < 3 * SECOND, "{:?}", watch.read());
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_is_spent_is_waited_for_and_nothing_is_sent_before_it_ends() {
        let clock = Clock::start();
        let budget = Budget::new(&config(100), clock.clone());
        let ask = ask_of("one", "/a/");
        for left in [1, 0] {
            drop(counted(budget.reserve(ask.clone(), LONG).await.unwrap(), &clock, (2, left)));
        }
        let second = |clock: &Clock| clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let spent = second(&clock);
        let next = budget.reserve(ask.clone(), LONG).await.unwrap();
        assert!(spent < second(&clock));
        drop(counted(next, &clock, (2, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_callers_spent_limit_is_not_anothers() {
        let clock = Clock::start();
        let budget = Budget::new(&config(100), clock.clone());
        drop(counted(budget.reserve(ask_of("one", "/a/"), LONG).await.unwrap(), &clock, (1, 0)));
        let other =
            time::timeout(Duration::from_millis(1), budget.reserve(ask_of("other", "/a/"), LONG)).await;
        assert!(other.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_in_vain_is_told_at_once_when_to_come_again() {
        let budget = budget(100);
        let ask = ask_of("one", "/a/");
        let reservation = budget.reserve(ask.clone(), LONG).await.unwrap();
        let fields = fields(&[("retry-after", "60")]);
        drop(reservation.settle(StatusCode::TOO_MANY_REQUESTS, &fields));
        let refused = time::timeout(Duration::from_millis(1), budget.reserve(ask, LONG)).await.unwrap();
        let Err(Refused { hold: Hold::Gate, retry_after }) = refused else { panic!("not refused") };
        assert!(60 * SECOND <= retry_after && retry_after <= 61 * SECOND, "{retry_after:?}");
    }

    /// A budget whose upstream has failed again and again.
    async fn broken() -> Budget {
        let budget = budget(100);
        for _ in 0..5 {
            budget.reserve(anybody(), LONG).await.unwrap().fail(Reach::Unreachable);
        }
        budget
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_run_of_failures_one_request_goes_to_see_and_the_others_wait_for_it() {
        let budget = broken().await;
        let line_up = || {
            tokio::spawn({
                let budget = budget.clone();
                async move { budget.reserve(anybody(), LONG).await }
            })
        };
        let waiting = [line_up(), line_up()];
        time::sleep(2 * SECOND).await;
        let closed = ClosedGates { limits: 0, routes: 0, upstreams: 1 };
        assert_eq!((budget.taken(), budget.waiting(), budget.levels().closed), (1, 1, closed));
        let [first, second] = waiting;
        let (probe, other) = if first.is_finished() { (first, second) } else { (second, first) };
        drop(answered(probe.await.unwrap().unwrap()));
        assert!(other.await.unwrap().is_ok());
        assert_eq!(budget.levels().closed, ClosedGates::default());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_for_a_probe_that_failed_is_sent_away_and_who_came_later_waits_for_the_next() {
        let budget = broken().await;
        let line_up = || {
            tokio::spawn({
                let budget = budget.clone();
                async move { budget.reserve(anybody(), LONG).await }
            })
        };
        let probe = line_up();
        time::sleep(Duration::from_millis(10)).await;
        let before = line_up();
        time::sleep(2 * SECOND).await;
        let probe = probe.await.unwrap().unwrap();
        let after = line_up();
        time::sleep(Duration::from_millis(10)).await;
        probe.fail(Reach::Unreachable);
        let refused = before.await.unwrap().map(drop).unwrap_err();
        assert_eq!(refused.hold, Hold::Breaker);
        assert!(SECOND <= refused.retry_after, "{refused:?}");
        assert!(after.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_could_be_given_something_stale_does_not_wait_for_what_is_closed() {
        let budget = broken().await;
        for patience in [Patience::Brief, Patience::None] {
            let refused =
                time::timeout(Duration::from_millis(1), budget.reserve(Ask { patience, ..anybody() }, LONG));
            assert_eq!(refused.await.unwrap().map(drop).unwrap_err().hold, Hold::Breaker);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_take_turns() {
        let budget = Budget::new(&BudgetConfig { max_waiting: 100, ..config(1) }, Clock::start());
        let held = budget.reserve(anybody(), LONG).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let line_up = |name: &'static str, token: &'static str| {
            let (budget, order) = (budget.clone(), Arc::clone(&order));
            let ask = ask_of(token, name);
            tokio::spawn(async move {
                let reservation = budget.reserve(ask, LONG).await.unwrap();
                order.lock().unwrap().push(name);
                drop(answered(reservation));
            })
        };
        let mut tasks = Vec::new();
        for name in ["noisy 1", "noisy 2", "noisy 3"] {
            tasks.push(line_up(name, "noisy"));
            time::sleep(Duration::from_millis(1)).await;
        }
        tasks.push(line_up("quiet", "quiet"));
        time::sleep(Duration::from_millis(1)).await;
        let refresh = Ask { patience: Patience::None, ..anybody() };
        assert!(budget.reserve(refresh, LONG).await.is_err(), "nobody waits for a refresh");
        drop(answered(held));
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["noisy 1", "quiet", "noisy 2", "noisy 3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_leaves_when_called_gives_everything_back() {
        let budget = budget(1);
        let held = budget.reserve(anybody(), LONG).await.unwrap();
        let mut leaving = Box::pin(budget.reserve(anybody(), LONG));
        assert!(futures_poll(&mut leaving).await);
        drop(answered(held));
        assert_eq!((budget.taken(), budget.waiting()), (1, 0), "called, and not yet awake");
        drop(leaving);
        assert_eq!((budget.taken(), budget.waiting()), (0, 0));
    }

    /// Polls once; whether it is still pending.
    async fn futures_poll(future: &mut (impl Future + Unpin)) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn hits_are_told_what_is_left_now() {
        let clock = Clock::start();
        let budget = Budget::new(&config(100), clock.clone());
        let ask = ask_of("one", "/a/");
        assert_eq!(budget.headroom(&ask.limit), Headroom::default());
        drop(counted(budget.reserve(ask.clone(), LONG).await.unwrap(), &clock, (40, 39)));
        let _under_way = budget.reserve(ask.clone(), LONG).await.unwrap();
        let Headroom { fields, pressure } = budget.headroom(&ask.limit);
        assert_eq!((fields.unwrap().remaining, pressure), (Some(38), Pressure::of(1, 40)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_while_everything_is_locked_costs_nobody_else_anything() {
        let budget = budget(1);
        let held = budget.reserve(anybody(), LONG).await.unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(anybody(), LONG).await.map(drop) }
        });
        time::sleep(Duration::from_millis(1)).await;
        let shared = budget.0.as_ref().unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _locked = (shared.scheduler.lock(), shared.alarm.lock());
            panic!("on purpose");
        }));
        assert!(panicked.is_err() && shared.scheduler.is_poisoned() && shared.alarm.is_poisoned());
        drop(answered(held));
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert!(budget.reserve(anybody(), LONG).await.is_ok());
        assert_eq!((budget.taken(), budget.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_forward_opens_gates_and_strands_nobody() {
        let budget = budget(1);
        let clock = budget.0.as_ref().unwrap().clock.clone();
        let ask = || ask_of("one", "/a/");
        let held = budget.reserve(ask(), LONG).await.unwrap();
        let waiting = tokio::spawn({
            let (budget, ask) = (budget.clone(), ask());
            async move { budget.reserve(ask, LONG).await.map(drop) }
        });
        time::sleep(Duration::from_millis(1)).await;
        clock.jump(Duration::from_hours(3));
        drop(held.settle(StatusCode::TOO_MANY_REQUESTS, &fields(&[("retry-after", "60")])));
        let refused = waiting.await.unwrap().unwrap_err();
        assert_eq!((refused.hold, budget.waiting()), (Hold::Gate, 0));
        clock.jump(Duration::from_hours(3));
        assert!(budget.reserve(ask(), LONG).await.is_ok());
    }
}

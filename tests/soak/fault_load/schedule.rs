//! Inflicts the faults: one after the other, then several at a time, in an order that is the same in every run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Plan;
use crate::crowd::{Crowd, Kind};
use crate::fault::Fault;
use crate::judge::{Judge, lock};
use crate::load::{Load, leave};
use crate::measuring::{self, Sample};
use crate::proxy::Proxy;
use crate::random::Random;
use crate::upstream::Upstream;
use crate::wire::Door;

/// How long there is load before anything goes wrong.
const WARM_UP: Duration = Duration::from_secs(4);

/// Seed of the order in which faults come together.
const SEED: u64 = 0x50ac_0002;

/// How many faults come together.
const TOGETHER: usize = 4;

/// How many connections idle, and dribble.
const IDLE: usize = 5_000;
const DRIBBLING: usize = 500;

/// How long after it has gathered a crowd is measured.
const SETTLE: Duration = Duration::from_secs(2);

/// How many connections there are at the most when there is no crowd.
const QUIET: u64 = 200;

/// How much memory is given back between two looks at the least while some is.
const FALL: u64 = 256 << 10;

/// How many clients leave in the middle, at a time.
const LEAVING: u64 = 8;

/// What a connection that idles costs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) fault: Fault,
    pub(crate) connections: u64,
    pub(crate) resident: i64,
    pub(crate) allocated: i64,
}

/// Everything that plays together.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) plan: Plan,
    pub(crate) judge: Arc<Judge>,
    pub(crate) upstream: Upstream,
    pub(crate) proxy: Proxy,
    pub(crate) costs: Mutex<Vec<Cost>>,
    /// When the crowds have gone: from then on memory has to be level.
    pub(crate) level_from: Mutex<Duration>,
    pub(crate) load: Load,
    is_over: AtomicBool,
}

impl Stage {
    pub(crate) fn new(plan: Plan, judge: Arc<Judge>, upstream: Upstream, proxy: Proxy) -> Self {
        let load = Load { doors: proxy.doors(), judge: Arc::clone(&judge) };
        let (costs, level_from) = (Mutex::default(), Mutex::default());
        Self { plan, judge, upstream, proxy, costs, level_from, load, is_over: AtomicBool::new(false) }
    }

    /// Returns whether the load is over.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn say(&self, what: &str) {
        println!("[{:7.1} s] {what}", self.judge.now().as_secs_f32());
    }
}

/// Plays everything, and returns the figures that were taken meanwhile.
pub(crate) async fn play(stage: &Arc<Stage>) -> Vec<Sample> {
    let mut clients = stage.load.start();
    let samples = tokio::spawn(measuring::watch(Arc::clone(stage)));
    stage.say("warming up");
    sleep(WARM_UP).await;
    for fault in Fault::ALL {
        stage.say(fault.label());
        inflict(Arc::clone(stage), fault, stage.plan.spell).await;
        if fault == Fault::Dribbling {
            *lock(&stage.level_from) = stage.judge.now() + stage.plan.spell;
        }
        sleep(stage.plan.calm).await;
    }
    together(stage).await;
    // Everything is unwell, and it must go.
    for last in [Fault::Restart, Fault::Kill] {
        inflict_all(stage, &[last, Fault::Hang, Fault::Reload, Fault::Aborts]).await;
    }
    stage.say("calm again");
    sleep(stage.plan.spell.max(Duration::from_secs(2))).await;
    stage.expect_reloaded().await;
    stage.is_over.store(true, Ordering::Relaxed);
    let samples = samples.await.unwrap();
    if clients.try_join_next().is_some() {
        stage.judge.error("a client has given up");
    }
    drop(clients);
    if !stage.proxy.is_running() {
        stage.judge.error(&format!("the proxy has ended by itself: {}", stage.proxy.last_lines()));
    }
    samples
}

/// Inflicts several faults at a time, until the time is over.
async fn together(stage: &Arc<Stage>) {
    let mut random = Random::seeded(SEED);
    let mixing: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| fault.mixes()).collect();
    let mut rounds = 0;
    while rounds == 0 || stage.judge.now() + stage.plan.spell * 3 < stage.plan.whole {
        let mut chosen: Vec<Fault> = (0..TOGETHER).map(|_| random.one_of(&mixing)).collect();
        chosen.sort_unstable();
        chosen.dedup();
        inflict_all(stage, &chosen).await;
        rounds += 1;
        // Once in a while nothing is wrong for long enough that nothing is excused any more.
        if rounds % 4 == 0 && stage.plan.is_long() {
            stage.say("calm");
            sleep(stage.plan.spell).await;
        } else {
            sleep(stage.plan.calm).await;
        }
    }
}

async fn inflict_all(stage: &Arc<Stage>, faults: &[Fault]) {
    let labels: Vec<_> = faults.iter().map(|fault| fault.label()).collect();
    stage.say(&labels.join(" + "));
    let mut all = JoinSet::new();
    for fault in faults {
        all.spawn(inflict(Arc::clone(stage), *fault, stage.plan.spell));
    }
    all.join_all().await;
}

/// Inflicts a fault for as long as it is told, or for as long as it takes.
async fn inflict(stage: Arc<Stage>, fault: Fault, lasting: Duration) {
    stage.judge.begin(fault);
    match fault {
        Fault::Restart => stage.restart(Signal::TERM).await,
        Fault::Kill => stage.restart(Signal::KILL).await,
        Fault::IdleSilent => stage.idle(fault, (Door::Tcp, IDLE, Kind::Silent), lasting).await,
        Fault::IdleServed => stage.idle(fault, (Door::Tcp, IDLE, Kind::Served), lasting).await,
        Fault::IdleTls => {
            let crowd = (Door::Tls, stage.plan.idle_over_tls, Kind::Served);
            stage.idle(fault, crowd, lasting).await;
        }
        Fault::Dribbling => {
            let count = (DRIBBLING, Kind::Silent);
            let mut crowd = Crowd::gather(&stage.proxy.doors(), Door::Tcp, count).await;
            crowd.dribble(lasting, &stage.judge).await;
        }
        Fault::ResetHead
        | Fault::ResetBody
        | Fault::Hang
        | Fault::ServerErrors
        | Fault::Limited
        | Fault::Unreachable
        | Fault::SlowTls
        | Fault::SlowBytes
        | Fault::Truncated
        | Fault::OverLong
        | Fault::Interim => {
            stage.upstream.begin(fault);
            sleep(lasting).await;
            stage.upstream.end(fault);
        }
        Fault::Aborts => stage.aborts(lasting).await,
        Fault::NoSuchName
        | Fault::Reload
        | Fault::BadConfig
        | Fault::Swap
        | Fault::Renewal
        | Fault::Purge
        | Fault::Webhooks => stage.beat(fault, lasting).await,
    }
    stage.judge.end(fault);
}

impl Stage {
    /// Ends the process, and starts it again.
    async fn restart(&self, signal: Signal) {
        // Others may have just spoiled the configuration.
        self.proxy.rewrite();
        self.proxy.signal(signal);
        let begin = self.judge.now();
        let status = self.proxy.ended().await;
        let took = self.judge.now().saturating_sub(begin);
        if signal == Signal::TERM && !status.success() {
            self.judge.error(&format!("it ended with {status} after SIGTERM: {}", self.proxy.last_lines()));
        }
        self.proxy.rewrite();
        self.proxy.launch().await;
        let again = self.judge.now().saturating_sub(begin);
        self.say(&format!("  ended after {took:.1?}, listens again after {again:.1?}"));
    }

    /// Has connections idle, and measures what they cost.
    async fn idle(&self, fault: Fault, (door, count, kind): (Door, usize, Kind), lasting: Duration) {
        let before = self.quiet().await;
        let mut crowd = Crowd::gather(&self.proxy.doors(), door, (count, kind)).await;
        if crowd.len() != count {
            self.judge.error(&format!("{}: only {} of {count} connections", fault.label(), crowd.len()));
        }
        sleep(SETTLE).await;
        let after = Sample::take(self).await;
        sleep(lasting).await;
        crowd.check(&self.judge).await;
        if let (Some(before), Some(after)) = (before, after) {
            let connections = count as u64;
            if after.connections < connections {
                self.judge.error(&format!("{}: only {} are open", fault.label(), after.connections));
            }
            let each = |before: u64, after: u64| {
                (after.cast_signed() - before.cast_signed()) / connections.cast_signed()
            };
            let resident = each(before.resident, after.resident);
            let allocated = each(before.allocated, after.allocated);
            lock(&self.costs).push(Cost { fault, connections, resident, allocated });
        }
    }

    /// Returns the figures once a crowd from before has gone, and its memory with it.
    async fn quiet(&self) -> Option<Sample> {
        let (begin, mut before) = (self.judge.now(), None::<Sample>);
        loop {
            let sample = Sample::take(self).await?;
            let falls = before.is_none_or(|before| sample.resident + FALL < before.resident);
            let is_quiet = sample.connections < QUIET && !falls;
            if is_quiet || begin + self.plan.settle < self.judge.now() {
                return Some(sample);
            }
            before = Some(sample);
            sleep(SETTLE).await;
        }
    }

    /// Has clients leave in the middle.
    async fn aborts(&self, lasting: Duration) {
        let end = self.judge.now() + lasting;
        let mut leaving = JoinSet::new();
        for number in 0..LEAVING {
            let (load, judge) = (self.load.clone(), Arc::clone(&self.judge));
            leaving.spawn(async move {
                let mut random = Random::seeded(SEED ^ number);
                while judge.now() < end {
                    leave(&load, &mut random).await;
                    sleep(Duration::from_millis(random.below(100))).await;
                }
            });
        }
        leaving.join_all().await;
    }
}

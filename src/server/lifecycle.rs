//! How far a server has come, and what is in work in it.
//!
//! Invariants: the phase only advances; a [`Ticket`] leaves the count however its request ends.
//! Not here: what the phases do to a connection (`server::connection`) or a request (`server::request`).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::clock::Stopwatch;
use crate::metrics::Metrics;
use crate::metrics::connections::ConnectionEnd;
use crate::server::ServerSettings;
use crate::server::crowd::Crowd;
use crate::server::stalls::Stalls;

/// How far a server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It accepts and serves.
    Serving,
    /// It accepts nobody; what is in work is finished.
    Draining,
    /// Nothing more is waited for.
    Over,
}

/// What all connections of a server share.
#[derive(Debug)]
pub struct Lifecycle {
    settings: ServerSettings,
    crowd: Arc<Crowd>,
    metrics: Arc<Metrics>,
    phase: watch::Sender<Phase>,
    in_work: AtomicUsize,
    refused: AtomicUsize,
}

impl Lifecycle {
    /// Starts the life of a server, serving.
    pub fn new(settings: ServerSettings, metrics: Arc<Metrics>) -> Self {
        let (phase, _) = watch::channel(Phase::Serving);
        let crowd = Arc::new(Crowd::new(settings.crowd.clone()));
        Self { settings, crowd, metrics, phase, in_work: AtomicUsize::new(0), refused: AtomicUsize::new(0) }
    }

    /// Returns how the server behaves.
    pub fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// Returns who is connected.
    pub fn crowd(&self) -> &Arc<Crowd> {
        &self.crowd
    }

    /// Returns where the server counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns how far the server has come.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Advances to `phase`, unless the server has come further.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let advances = *current < phase;
            *current = phase.max(*current);
            advances
        });
    }

    /// Waits until the server has come as far as `phase`.
    pub async fn reached(&self, phase: Phase) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.phase.subscribe().wait_for(|current| phase <= *current).await;
    }

    /// Counts a request that was answered with 503 at the deadline.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.metrics.cut_by_shutdown();
    }

    /// Returns how many requests were refused at the deadline, or are still in work now.
    pub fn cut(&self) -> usize {
        self.refused.load(Ordering::Relaxed) + self.in_work.load(Ordering::Relaxed)
    }
}

/// Whether something waits to be taken by the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// It does.
    Pending,
    /// Everything was taken.
    Done,
}

/// What all requests of one connection share.
#[derive(Debug)]
pub struct Work {
    life: Arc<Lifecycle>,
    opened: Stopwatch,
    in_work: AtomicUsize,
    started: AtomicUsize,
    stalls: Arc<Stalls>,
    /// Whether something waits to be taken by the peer.
    is_writing: AtomicBool,
    /// Why we end it, where we do: an error of hyper's does not show its cause.
    end: OnceLock<ConnectionEnd>,
    /// Whether the next answer is the last.
    is_retiring: AtomicBool,
    is_asked_to_go: AtomicBool,
    /// Wakes the connection that is asked to go.
    asked: Notify,
}

impl Work {
    /// Starts the work of a connection, with none.
    pub fn new(life: Arc<Lifecycle>) -> Self {
        Self {
            life,
            opened: Stopwatch::start(),
            in_work: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            stalls: Arc::default(),
            is_writing: AtomicBool::new(false),
            end: OnceLock::new(),
            is_retiring: AtomicBool::new(false),
            is_asked_to_go: AtomicBool::new(false),
            asked: Notify::new(),
        }
    }

    /// Returns the life of the server.
    pub fn life(&self) -> &Lifecycle {
        &self.life
    }

    /// Returns for how long the connection has been open.
    pub fn age(&self) -> Duration {
        self.opened.read()
    }

    /// Returns how many requests this connection has ever carried.
    pub fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }

    /// Returns whether no request of this connection is in work.
    pub fn is_idle(&self) -> bool {
        self.in_work.load(Ordering::Relaxed) == 0
    }

    /// Returns how its answers go out.
    pub fn stalls(&self) -> &Arc<Stalls> {
        &self.stalls
    }

    /// Notes whether something waits to be taken by the peer.
    pub fn note_writing(&self, writing: Writing) {
        let is_writing = writing == Writing::Pending;
        if self.is_writing.load(Ordering::Relaxed) != is_writing {
            self.is_writing.store(is_writing, Ordering::Relaxed);
        }
    }

    /// Returns whether nobody waits for anything of this connection: no request is in work, and no answer on its way.
    pub fn may_go(&self) -> bool {
        self.is_idle() && !self.is_writing.load(Ordering::Relaxed)
    }

    /// Notes why we end the connection; the first reason stays.
    pub fn end_by(&self, end: ConnectionEnd) {
        let _ = self.end.set(end);
    }

    /// Returns why we end the connection, where we do.
    pub fn end(&self) -> Option<ConnectionEnd> {
        self.end.get().copied()
    }

    /// Makes the next answer the last.
    pub fn retire(&self) {
        self.is_retiring.store(true, Ordering::Relaxed);
    }

    /// Returns whether the next answer is the last.
    pub fn is_retiring(&self) -> bool {
        self.is_retiring.load(Ordering::Relaxed)
    }

    /// Asks the connection to go, because its place is needed.
    pub fn ask_to_go(&self) {
        self.is_asked_to_go.store(true, Ordering::Relaxed);
        self.asked.notify_one();
    }

    /// Lets the connection be, although it was asked to go.
    pub fn stay(&self) {
        self.is_asked_to_go.store(false, Ordering::Relaxed);
    }

    /// Returns whether the connection was asked to go.
    pub fn is_asked_to_go(&self) -> bool {
        self.is_asked_to_go.load(Ordering::Relaxed)
    }

    /// Waits until the connection is asked to go.
    pub async fn asked_to_go(&self) {
        self.asked.notified().await;
    }
}

/// A request in work, for as long as this lives.
#[derive(Debug)]
pub struct Ticket(Arc<Work>);

impl Ticket {
    /// Starts a request.
    pub fn take(work: Arc<Work>) -> Self {
        work.started.fetch_add(1, Ordering::Relaxed);
        work.in_work.fetch_add(1, Ordering::Relaxed);
        work.life.in_work.fetch_add(1, Ordering::Relaxed);
        Self(work)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.in_work.fetch_sub(1, Ordering::Relaxed);
        self.0.life.in_work.fetch_sub(1, Ordering::Relaxed);
    }
}

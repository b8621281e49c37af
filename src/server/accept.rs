//! Takes connections from the kernel's queue, and finds a place for each.
//!
//! Where there is none, somebody who idles is asked to go, and the newcomer waits a moment for that. Whoever cannot be
//! helped is told so with a 503 that costs nothing: it is written before anything is read, as far as it leaves at once (over
//! TLS, the connection is closed).
//! While one after the other is turned away, nobody waits any more.
//!
//! Invariants: a failure to accept never ends the server, and never makes it spin; a connection that was accepted is
//! served or turned away. At the shutdown alone there is always room: what already waits in the queue counts as accepted.
//! Not here: who may have a place (`server::crowd`), what is said on a connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::metrics::closed::ClosedLabel as _;
use crate::metrics::connections::TurnedAway;
use crate::server::crowd::Place;
use crate::server::endpoint::{Arrival, Endpoint};
use crate::server::lifecycle::{Lifecycle, Work};

/// First pause after a failure that more attempts will not cure, such as having no file descriptor left.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a newcomer waits for a place.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most connections taken from the queue at the shutdown: more than the kernel keeps in it.
const BACKLOG: usize = 65_536;

/// What somebody hears for whom there is no place.
const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\
    content-length: 71\r\n\
    \r\n\
    {\"detail\":\"The proxy has too many connections; try again in a second.\"}";

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// What came in.
    pub arrival: Arrival,
    /// The work on it.
    pub work: Arc<Work>,
    /// Its place; none for those of the backlog.
    pub place: Option<Place>,
}

/// Takes connections from one place that is listened on.
#[derive(Debug)]
pub struct Acceptor {
    endpoint: Endpoint,
    life: Arc<Lifecycle>,
    /// How long the next pause is, and the present one.
    pause: Duration,
    pausing: Option<Pin<Box<Sleep>>>,
    /// Who waits for a place, and for how long at the most.
    waiting: Option<(Arrival, Pin<Box<Sleep>>)>,
    /// Whether the last one was turned away because everything is full.
    is_shedding: bool,
}

impl Acceptor {
    /// Starts accepting.
    pub fn new(endpoint: Endpoint, life: &Arc<Lifecycle>) -> Self {
        Self {
            endpoint,
            life: Arc::clone(life),
            pause: FIRST_PAUSE,
            pausing: None,
            waiting: None,
            is_shedding: false,
        }
    }

    /// Waits for the next connection that has a place. Cancel-safe: no connection is lost.
    pub async fn next(&mut self) -> Accepted {
        loop {
            let Some((arrival, _)) = &self.waiting else {
                let arrival = self.arrival().await;
                self.waiting = Some((arrival, Box::pin(sleep(PATIENCE))));
                continue;
            };
            let work = Arc::new(Work::new(Arc::clone(&self.life)));
            match self.life.crowd().enter(&work, arrival.peer.ip()) {
                Ok(place) => {
                    self.is_shedding = false;
                    if let Some((arrival, _)) = self.waiting.take() {
                        return Accepted { arrival, work, place: Some(place) };
                    }
                }
                Err(TurnedAway::Full) if self.has_patience() && self.may_wait() => {
                    self.wait_for_place().await;
                }
                Err(cause) => self.turn_away(cause),
            }
        }
    }

    /// Waits until there may be a place for who waits, or their patience ends.
    async fn wait_for_place(&mut self) {
        let Some((_, patience)) = &mut self.waiting else { return };
        tokio::select! {
            biased;
            () = self.life.crowd().somebody_left() => {}
            // One more attempt, and then no more.
            () = patience.as_mut() => self.is_shedding = true,
        }
    }

    /// Returns whether who waits has not waited for long enough.
    fn has_patience(&self) -> bool {
        self.waiting.as_ref().is_some_and(|(_, patience)| !patience.is_elapsed())
    }

    /// Returns whether waiting may help: somebody was asked to go, or others have not been turned away just now.
    fn may_wait(&self) -> bool {
        self.life.crowd().make_room() || !self.is_shedding
    }

    fn turn_away(&mut self, cause: TurnedAway) {
        let Some((arrival, _)) = self.waiting.take() else { return };
        self.life.metrics().connections.turned_away(cause);
        tracing::warn!(reason = cause.label(), "a connection was turned away");
        if arrival.tls.is_none() {
            arrival.socket.write_now(TURNED_AWAY);
        }
    }

    /// Waits for the next connection, and pauses after failures.
    async fn arrival(&mut self) -> Arrival {
        loop {
            if let Some(pausing) = &mut self.pausing {
                pausing.as_mut().await;
                self.pausing = None;
            }
            match self.endpoint.accept().await {
                Ok(arrival) => {
                    self.pause = FIRST_PAUSE;
                    return arrival;
                }
                Err(error) => self.note_failure(&error),
            }
        }
    }

    fn note_failure(&mut self, error: &io::Error) {
        self.life.metrics().connections.accept_failed();
        if is_about_one_connection(error) {
            return;
        }
        // Out of descriptors: one that idles has one to give.
        self.life.crowd().make_room();
        tracing::warn!(%error, pause = ?self.pause, "could not accept a connection");
        self.pausing = Some(Box::pin(sleep(self.pause)));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Stops listening, and returns the connections that were waiting, here or in the kernel's queue.
    pub fn into_backlog(self) -> Vec<Accepted> {
        let Self { endpoint, life, waiting, .. } = self;
        let accepted =
            |arrival| Accepted { arrival, work: Arc::new(Work::new(Arc::clone(&life))), place: None };
        let mut backlog: Vec<_> = waiting.into_iter().map(|(arrival, _)| accepted(arrival)).collect();
        let Ok(queue) = endpoint.into_queue() else { return backlog };
        while backlog.len() < BACKLOG {
            match queue.take() {
                Ok(arrival) => backlog.push(accepted(arrival)),
                Err(error) if is_about_one_connection(&error) => {}
                Err(_) => break,
            }
        }
        backlog
    }
}

/// Waits for the next connection of any acceptor, each of them first in turn. Cancel-safe.
pub async fn next_of(acceptors: &mut [Acceptor]) -> Accepted {
    if acceptors.len() > 1 {
        acceptors.rotate_left(1);
    }
    let mut waiting: Vec<_> = acceptors.iter_mut().map(|acceptor| Box::pin(acceptor.next())).collect();
    poll_fn(|context| {
        let ready = waiting.iter_mut().find_map(|next| match next.as_mut().poll(context) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Returns whether only the connection at the head of the queue is lost, so that the next can be accepted at once.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_does_not_pause_the_others_and_a_lack_of_descriptors_does() {
        assert!(is_about_one_connection(&io::ErrorKind::ConnectionAborted.into()));
        // EMFILE on Linux.
        assert!(!is_about_one_connection(&io::Error::from_raw_os_error(24)));
    }

    #[test]
    fn who_is_turned_away_hears_a_whole_answer() {
        let text = std::str::from_utf8(TURNED_AWAY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}

//! Takes connections from the kernel's queue.
//!
//! Invariants: a failure to accept never ends the server, and never makes it spin; a connection is accepted only
//! when there is room for it. At the shutdown alone there is always room: what already waits in the queue counts
//! as accepted.
//! Not here: what is said on a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::peer::Peer;
use crate::server::lifecycle::Lifecycle;

/// First pause after a failure that more attempts will not cure, such as having no file descriptor left.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Most connections taken from the queue at the shutdown: more than the kernel keeps in it.
const BACKLOG: usize = 65_536;

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// Who is connected.
    pub peer: Peer,
    /// Its place among `max_connections`; none for those of the backlog.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Takes connections from one listener.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    room: Arc<Semaphore>,
    pause: Duration,
    life: Arc<Lifecycle>,
}

impl Acceptor {
    /// Starts accepting.
    pub fn new(listener: TcpListener, life: &Arc<Lifecycle>) -> Self {
        let most = life.settings().max_connections.min(Semaphore::MAX_PERMITS);
        Self { listener, room: Arc::new(Semaphore::new(most)), pause: FIRST_PAUSE, life: Arc::clone(life) }
    }

    /// Waits for room and for the next connection. Cancel-safe: no connection is lost.
    pub async fn next(&mut self) -> Accepted {
        loop {
            let permit = Arc::clone(&self.room).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    self.pause = FIRST_PAUSE;
                    return accepted(stream, address, permit);
                }
                Err(error) => {
                    self.life.metrics().connections.accept_failed();
                    if !is_about_one_connection(&error) {
                        tracing::warn!(%error, pause = ?self.pause, "could not accept a connection");
                        let pause = self.pause;
                        self.pause = (pause * 2).min(LONGEST_PAUSE);
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    /// Stops listening, and returns the connections that were waiting in the kernel's queue.
    pub fn into_backlog(self) -> Vec<Accepted> {
        let Ok(listener) = self.listener.into_std() else { return Vec::new() };
        let mut backlog = Vec::new();
        while backlog.len() < BACKLOG {
            match listener.accept().and_then(|(stream, address)| Ok((into_tokio(stream)?, address))) {
                Ok((stream, address)) => backlog.push(accepted(stream, address, None)),
                Err(error) if is_about_one_connection(&error) => {}
                Err(_) => break,
            }
        }
        backlog
    }
}

fn accepted(stream: TcpStream, address: SocketAddr, permit: Option<OwnedSemaphorePermit>) -> Accepted {
    // Answers leave when they are written. Failing to say so costs latency, not the connection.
    let _ = stream.set_nodelay(true);
    Accepted { stream, peer: Peer::new(address), permit }
}

fn into_tokio(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
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
}

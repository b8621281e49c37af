//! What is known about a connection: did it ever serve, is it dead, did it begin to answer, does it talk without end.
//!
//! Invariant: facts follow from what its reads and writes returned, not from a guess at an error's text.
//! Not here: what follows from them (`upstream`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use thiserror::Error;

use crate::upstream::connector::Protocol;

/// Upstream sent more than any head holds, and no answer.
#[derive(Debug, Clone, Copy, Error)]
#[error("too much came before an answer")]
pub struct TooMuchAwaited;

/// What is known about a connection; shared by its stream and the exchanges on it.
#[derive(Debug, Clone)]
pub struct ConnectionFacts(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    protocol: Protocol,
    /// An answer came over it before.
    has_served: AtomicBool,
    /// A read or a write failed, or reading met the end.
    is_dead: AtomicBool,
    /// Bytes came in after the last ones that went out.
    is_answering: AtomicBool,
    /// How many bytes may still come before the head of the answer that is awaited; any number where none is.
    patience: AtomicUsize,
}

/// Most bytes before the head of an answer is there, interim answers included: four times the largest head. hyper reads those
/// without end, and does nothing else meanwhile.
const MOST_AWAITED: usize = 1024 * 1024;

impl ConnectionFacts {
    /// Begins with a connection that was just opened.
    pub fn new(protocol: Protocol) -> Self {
        let [has_served, is_dead, is_answering] = [(); 3].map(|()| AtomicBool::new(false));
        let patience = AtomicUsize::new(usize::MAX);
        Self(Arc::new(Facts { protocol, has_served, is_dead, is_answering, patience }))
    }

    /// Returns what is spoken on the connection.
    pub fn protocol(&self) -> Protocol {
        self.0.protocol
    }

    /// Notes that an answer is awaited.
    pub fn await_answer(&self) {
        match self.0.protocol {
            Protocol::Http1 | Protocol::Http1ToProxy => {
                self.0.patience.store(MOST_AWAITED, Ordering::Relaxed);
            }
            // Others may have answers on the same connection.
            Protocol::Http2 => {}
        }
    }

    /// Notes that the head of an answer arrived.
    pub fn note_answer(&self) {
        self.0.has_served.store(true, Ordering::Relaxed);
        self.0.patience.store(usize::MAX, Ordering::Relaxed);
    }

    /// Lets bytes come in.
    ///
    /// # Errors
    /// They are too many.
    pub fn spend(&self, count: usize) -> io::Result<usize> {
        let left = self.0.patience.load(Ordering::Relaxed);
        if left == usize::MAX {
            return Ok(count);
        }
        let left = left.checked_sub(count).ok_or_else(|| io::Error::other(TooMuchAwaited))?;
        self.0.patience.store(left, Ordering::Relaxed);
        Ok(count)
    }

    /// Returns whether the connection had served, then died, and brought no byte of an answer to the last request.
    ///
    /// On HTTP/2 bytes belong to no request in particular: there it is enough that the answer's head did not come,
    /// which the caller knows.
    pub fn has_died_unanswered(&self) -> bool {
        let is_silent = match self.0.protocol {
            Protocol::Http1 | Protocol::Http1ToProxy => !self.0.is_answering.load(Ordering::Relaxed),
            Protocol::Http2 => true,
        };
        self.0.has_served.load(Ordering::Relaxed) && self.0.is_dead.load(Ordering::Relaxed) && is_silent
    }

    /// Notes what a read brought.
    pub fn note_read(&self, read: &io::Result<usize>) {
        match read {
            Ok(0) | Err(_) => self.0.is_dead.store(true, Ordering::Relaxed),
            Ok(_) => self.0.is_answering.store(true, Ordering::Relaxed),
        }
    }

    /// Notes what became of a write.
    pub fn note_write(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Pending => {}
            Poll::Ready(Ok(_)) => self.0.is_answering.store(false, Ordering::Relaxed),
            Poll::Ready(Err(_)) => {
                self.0.is_answering.store(false, Ordering::Relaxed);
                self.0.is_dead.store(true, Ordering::Relaxed);
            }
        }
    }
}

//! Who is connected, and how they are told something before the answer: interim responses ([RFC 9110 §15.2]).
//!
//! A connection has one [`InterimOutlet`]; each of its requests gets an [`InterimTicket`], through which whoever works
//! for the request sends, from any task. The connection writes what was sent between two of its own messages.
//!
//! Invariants: what is sent for one request never goes out in another one's place, nor after its own final response;
//! how many interim responses a request may have, and how large they may be, is bounded.
//! Not here: HTTP/2, whose frames are none that can be put in between; writing (`server::interim`); which fields may
//! travel (`proxy`).
//!
//! [RFC 9110 §15.2]: https://www.rfc-editor.org/rfc/rfc9110#section-15.2

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::StatusCode;
use http::header::HeaderMap;

/// Most interim responses to one request.
const MOST: usize = 8;

/// Most bytes of one interim response.
const LARGEST: usize = 16 * 1024;

/// Who sent a request, and over what.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The other side's address, as the kernel knows it; none on a Unix domain socket.
    pub address: Option<SocketAddr>,
    /// What the connection is.
    pub channel: Channel,
    /// The way to tell them something before the answer, if there is one.
    pub interim: Option<InterimTicket>,
}

/// What a connection is, as far as it matters to a client: what it calls us by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// `http`.
    Plain,
    /// `https`.
    Tls,
}

impl Peer {
    /// Returns a peer with an address, without TLS, who hears nothing before the answer.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address: Some(address), channel: Channel::Plain, interim: None }
    }

    /// Returns a peer on a Unix domain socket, who hears nothing before the answer.
    pub const fn local() -> Self {
        Self { address: None, channel: Channel::Plain, interim: None }
    }

    /// Returns the same peer, over TLS.
    #[must_use]
    pub fn over_tls(self) -> Self {
        Self { channel: Channel::Tls, ..self }
    }

    /// Returns the address without its port.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }
}

/// What waits to be written to one connection ahead of its next final response.
#[derive(Debug, Clone, Default)]
pub struct InterimOutlet(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Whether anything is in the queue: read where a lock would cost too much.
    is_waiting: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<(u64, Bytes)>,
    /// The request that began last, and how far it is.
    request: u64,
    stage: Stage,
    sent: usize,
    /// How many of those sent the connection has been woken for.
    announced: usize,
    waker: Option<Waker>,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// It is being worked for.
    Open,
    /// Its final response is ready.
    #[default]
    Closed,
}

/// Where in the connection's stream a message would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where nothing else is to be written now.
    Idle,
    /// Ahead of the first bytes of the final response to the request of this number.
    AheadOfFinal(u64),
}

impl InterimOutlet {
    /// Begins a request: from now on, only its ticket sends.
    pub fn open(&self) -> InterimTicket {
        let mut queue = self.0.queue();
        queue.request += 1;
        queue.stage = Stage::Open;
        queue.sent = 0;
        queue.announced = 0;
        InterimTicket { number: queue.request, outlet: self.clone() }
    }

    /// Returns the number of the request that began last.
    pub fn request(&self) -> u64 {
        self.0.queue().request
    }

    /// Takes the next message that belongs to this place, and drops those that have none any more.
    pub fn next(&self, place: Place) -> Option<Bytes> {
        if !self.0.is_waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self.0.queue();
        let wanted = match place {
            Place::Idle if queue.stage == Stage::Closed => None,
            Place::Idle => Some(queue.request),
            Place::AheadOfFinal(number) => Some(number),
        };
        // Those of a later request keep their place.
        while let Some((number, message)) =
            queue.messages.pop_front_if(|(number, _)| wanted.is_none_or(|wanted| *number <= wanted))
        {
            if Some(number) == wanted {
                return Some(message);
            }
        }
        self.0.is_waiting.store(!queue.messages.is_empty(), Ordering::Release);
        None
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("is_waiting", &self.is_waiting).finish_non_exhaustive()
    }
}

/// The right to send interim responses to one request.
#[derive(Debug, Clone)]
pub struct InterimTicket {
    number: u64,
    outlet: InterimOutlet,
}

impl InterimTicket {
    /// Sends an interim response, unless the final one is ready. A 100 and a 101 are not for passing on: the first is
    /// between two neighbours, the second ends HTTP.
    pub fn send(&self, status: StatusCode, fields: &HeaderMap) {
        let is_passed_on = status.is_informational()
            && status != StatusCode::CONTINUE
            && status != StatusCode::SWITCHING_PROTOCOLS;
        let Some(message) = is_passed_on.then(|| rendered(status, fields)).flatten() else { return };
        let shared = &self.outlet.0;
        let mut queue = shared.queue();
        if queue.sent < MOST && queue.request == self.number && queue.stage == Stage::Open {
            queue.sent += 1;
            queue.messages.push_back((self.number, message));
            shared.is_waiting.store(true, Ordering::Release);
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
        }
    }

    /// Has `waker` woken when something is sent.
    pub fn register(&self, waker: &Waker) {
        let mut queue = self.outlet.0.queue();
        // Once for each message: one that cannot go out yet is written when the stream takes more.
        if queue.announced < queue.sent {
            queue.announced = queue.sent;
            waker.wake_by_ref();
        }
        queue.waker = Some(waker.clone());
    }

    /// Says that the final response is ready: nothing more is sent ahead of it.
    pub fn close(&self) {
        let mut queue = self.outlet.0.queue();
        if queue.request == self.number {
            queue.stage = Stage::Closed;
        }
    }
}

/// Renders an interim response as it goes on an HTTP/1.1 wire.
fn rendered(status: StatusCode, fields: &HeaderMap) -> Option<Bytes> {
    let mut message = BytesMut::new();
    let reason = status.canonical_reason().unwrap_or_default();
    message.put_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            message.put_slice(part);
        }
    }
    message.put_slice(b"\r\n");
    (message.len() <= LARGEST).then(|| message.freeze())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::testing::fields;

    fn hint() -> HeaderMap {
        fields(&[("link", "</a>; rel=preload"), ("link", "</b>"), ("x-a", "1")])
    }

    #[test]
    fn an_interim_response_is_rendered_with_all_its_fields() {
        let outlet = InterimOutlet::default();
        outlet.open().send(StatusCode::EARLY_HINTS, &hint());
        let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nlink: </b>\r\nx-a: 1\r\n\r\n";
        assert_eq!(outlet.next(Place::Idle).unwrap(), expected);
        assert_eq!(outlet.next(Place::Idle), None);
    }

    #[test]
    fn only_the_request_that_is_being_worked_for_is_told_anything() {
        let outlet = InterimOutlet::default();
        let first = outlet.open();
        first.close();
        first.send(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(outlet.next(Place::AheadOfFinal(1)), None, "its final response was ready");
        let second = outlet.open();
        first.send(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(outlet.next(Place::Idle), None, "it was somebody else's");
        second.send(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(outlet.next(Place::Idle).unwrap(), "HTTP/1.1 102 Processing\r\n\r\n");
    }

    #[test]
    fn what_was_sent_in_time_goes_ahead_of_the_final_response_and_never_after_it() {
        let outlet = InterimOutlet::default();
        let sent = || {
            let ticket = outlet.open();
            ticket.send(StatusCode::PROCESSING, &HeaderMap::new());
            ticket.close();
        };
        sent();
        assert!(outlet.next(Place::AheadOfFinal(1)).is_some());
        sent();
        assert_eq!(outlet.next(Place::Idle), None);
        assert_eq!(outlet.next(Place::AheadOfFinal(2)), None, "it was too late, and is gone");
        outlet.open().send(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(outlet.next(Place::AheadOfFinal(2)), None, "it is the next request's");
        assert!(outlet.next(Place::Idle).is_some());
    }

    #[test]
    fn what_concerns_one_connection_and_what_is_final_is_not_passed_on() {
        let outlet = InterimOutlet::default();
        let ticket = outlet.open();
        for status in [100, 101, 200, 404] {
            ticket.send(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        }
        assert_eq!(outlet.next(Place::Idle), None);
    }

    #[test]
    fn interim_responses_are_bounded_in_number_and_size() {
        let outlet = InterimOutlet::default();
        let ticket = outlet.open();
        ticket.send(StatusCode::EARLY_HINTS, &fields(&[("x-a", &"a".repeat(LARGEST))]));
        (0..2 * MOST).for_each(|_| ticket.send(StatusCode::PROCESSING, &HeaderMap::new()));
        assert_eq!(std::iter::from_fn(|| outlet.next(Place::Idle)).count(), MOST);
        ticket.send(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(outlet.next(Place::Idle), None);
        outlet.open().send(StatusCode::PROCESSING, &HeaderMap::new());
        assert!(outlet.next(Place::Idle).is_some());
    }

    #[test]
    fn whoever_waits_is_woken_even_by_what_was_sent_before() {
        #[derive(Default)]
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (count, outlet) = (Arc::new(Count::default()), InterimOutlet::default());
        let (ticket, waker) = (outlet.open(), Waker::from(Arc::clone(&count)));
        ticket.register(&waker);
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        ticket.send(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        for _ in 0..3 {
            ticket.register(&waker);
            assert_eq!(count.0.load(Ordering::SeqCst), 2, "once for what was sent, though it still waits");
        }
    }
}

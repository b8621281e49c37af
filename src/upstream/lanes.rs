//! Spreads exchanges over several HTTP/2 connections where one does not take them all at a time.
//!
//! The client keeps one HTTP/2 connection for each host, and whatever is beyond its peer's `SETTINGS_MAX_CONCURRENT_STREAMS`
//! would wait there, unseen, while our own budget has let it go ([RFC 9113 §5.1.2]). So there are several clients, lanes: the
//! first one that is not full takes the next exchange, and the others stay unused until they are needed.
//!
//! Invariants: an exchange counts until its answer's body is let go; a lane is never asked for more than the newest connection
//! said to be allowed, to whichever host, while another one has room. Not here: how much upstream may be asked at all (`budget`).
//!
//! [RFC 9113 §5.1.2]: https://www.rfc-editor.org/rfc/rfc9113#section-5.1.2

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many lanes there are: enough for `budget.max_concurrent` where a connection takes no more than eight.
const LANES: usize = 16;

/// What a connection takes at a time before it has said so: "It is recommended that this value be no smaller than 100"
/// (RFC 9113 §6.5.2).
const USUAL_STREAMS: usize = 100;

/// Length of a frame's head, and of one setting, in bytes.
const FRAME_HEAD: usize = 9;
const SETTING: usize = 6;

/// Most settings of a first frame that are read.
const MAX_SETTINGS: usize = 64;

/// How many exchanges one connection takes at a time, as the newest one began by saying; clones are the same.
#[derive(Debug, Clone)]
pub struct StreamLimit(Arc<AtomicUsize>);

impl Default for StreamLimit {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(USUAL_STREAMS)))
    }
}

impl StreamLimit {
    /// Notes what upstream said.
    fn learn(&self, streams: u32) {
        // A connection that takes nothing now will take something later.
        self.0.store(usize::try_from(streams).unwrap_or(usize::MAX).max(1), Ordering::Relaxed);
    }

    fn current(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Reads what an HTTP/2 connection says first: how many exchanges it takes at a time.
#[derive(Debug)]
pub struct FirstSettings {
    limit: StreamLimit,
    read: Vec<u8>,
    is_done: bool,
}

impl FirstSettings {
    /// Begins with the connection.
    pub const fn new(limit: StreamLimit) -> Self {
        Self { limit, read: Vec::new(), is_done: false }
    }

    /// Reads on.
    pub fn read(&mut self, bytes: &[u8]) {
        if self.is_done {
            return;
        }
        let room = (FRAME_HEAD + MAX_SETTINGS * SETTING).saturating_sub(self.read.len());
        self.read.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let [high, middle, low, kind, ..] = *self.read.as_slice() else { return };
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let payload = self.read.get(FRAME_HEAD..FRAME_HEAD + length);
        // "The server connection preface consists of a potentially empty SETTINGS frame that MUST be the first frame"
        // (RFC 9113 §3.4).
        if kind == 4
            && let Some(payload) = payload
        {
            self.learn(payload);
        }
        if kind != 4 || payload.is_some() || length > MAX_SETTINGS * SETTING {
            self.is_done = true;
            self.read = Vec::new();
        }
    }

    fn learn(&self, settings: &[u8]) {
        const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
        for setting in settings.as_chunks::<SETTING>().0 {
            let [a, b, value @ ..] = *setting;
            if [a, b] == MAX_CONCURRENT_STREAMS {
                self.limit.learn(u32::from_be_bytes(value));
            }
        }
    }
}

/// Several clients of one kind.
#[derive(Debug)]
pub struct Lanes<C> {
    lanes: Vec<Lane<C>>,
    limit: StreamLimit,
}

#[derive(Debug)]
struct Lane<C> {
    client: C,
    under_way: Arc<AtomicUsize>,
}

/// A place in a lane, for as long as this lives.
#[derive(Debug)]
pub struct Berth(Arc<AtomicUsize>);

impl Drop for Berth {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C> Lanes<C> {
    /// Makes the lanes.
    pub fn new(limit: StreamLimit, client: impl Fn() -> C) -> Self {
        let lane = |_| Lane { client: client(), under_way: Arc::default() };
        Self { lanes: (0..LANES).map(lane).collect(), limit }
    }

    /// Returns the client that takes the next exchange, and the exchange's place there.
    #[expect(clippy::missing_panics_doc, reason = "there is always a lane")]
    pub fn board(&self) -> (&C, Berth) {
        let limit = self.limit.current();
        let under_way = |lane: &&Lane<C>| lane.under_way.load(Ordering::Relaxed);
        let free = self.lanes.iter().find(|lane| under_way(lane) < limit);
        let lane = free.or_else(|| self.lanes.iter().min_by_key(under_way)).expect("there are lanes");
        lane.under_way.fetch_add(1, Ordering::Relaxed);
        (&lane.client, Berth(Arc::clone(&lane.under_way)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_after(bytes: &[u8], size: usize) -> usize {
        let limit = StreamLimit::default();
        let mut settings = FirstSettings::new(limit.clone());
        for piece in bytes.chunks(size) {
            settings.read(piece);
        }
        limit.current()
    }

    #[test]
    fn the_first_frame_tells_how_many_streams_there_may_be() {
        let settings = [0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 7];
        for size in 1..settings.len() {
            assert_eq!(limit_after(&settings, size), 7, "{size}");
        }
        let none = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0];
        assert_eq!(limit_after(&[&none[..], &settings].concat(), 5), USUAL_STREAMS);
        assert_eq!(limit_after(b"HTTP/1.1 200 OK\r\n\r\n", 5), USUAL_STREAMS);
        let zero = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
        assert_eq!(limit_after(&zero, 5), 1);
        assert_eq!(limit_after(&[255, 255, 255, 4].repeat(10_000), 100), USUAL_STREAMS);
    }

    #[test]
    fn the_first_lane_with_room_takes_the_next_exchange() {
        let limit = StreamLimit::default();
        limit.learn(2);
        let next = AtomicUsize::new(0);
        let lanes = Lanes::new(limit, || next.fetch_add(1, Ordering::Relaxed));
        let board = || {
            let (lane, berth) = lanes.board();
            (*lane, berth)
        };
        let (first, second, third) = (board(), board(), board());
        assert_eq!((first.0, second.0, third.0), (0, 0, 1));
        drop(first);
        let again = board();
        assert_eq!(again.0, 0);
        let many: Vec<_> = (0..LANES * 2).map(|_| board()).collect();
        let most = (0..LANES).map(|lane| many.iter().filter(|(it, _)| *it == lane).count()).max();
        assert_eq!(most, Some(3), "beyond all limits they are spread");
    }
}

//! Watches what an HTTP/2 peer sends for floods of frames that cost us more than they cost it ([RFC 9113 §10.5]).
//!
//! Requests taken back have a limit of their own (CVE-2023-44487). Everything else that carries nothing, such as `PING`,
//! `SETTINGS`, `PRIORITY`, empty `DATA` and `CONTINUATION`, or windows opened byte by byte, may come at a steady rate, and
//! more often by what we have sent: who reads an answer of a gigabyte says so many times (CVE-2019-9511 to 9518,
//! CVE-2024-27316).
//!
//! Invariants: pure, `now` is handed in; bytes may come in any pieces; nothing is kept but numbers.
//! Not here: what a frame means, and every other bound of HTTP/2 (`server::connection`).
//!
//! [RFC 9113 §10.5]: https://www.rfc-editor.org/rfc/rfc9113#section-10.5

use std::time::Duration;

use thiserror::Error;

/// Length of a frame's head, in bytes ([RFC 9113 §4.1]).
///
/// [RFC 9113 §4.1]: https://www.rfc-editor.org/rfc/rfc9113#section-4.1
const HEAD: usize = 9;

/// Frames without content that may come in a second, and at once.
const MAX_EMPTY_FRAMES: u32 = 1000;

/// For how many bytes that we send one more such frame may come.
const BYTES_PER_FRAME: u64 = 1024;

/// A peer floods its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Flood {
    /// It takes back too many requests.
    #[error("too many requests were taken back in a second")]
    Resets,
    /// It sends too many frames without content.
    #[error("too many frames without content came in a second")]
    EmptyFrames,
}

/// Counts the frames of one peer.
#[derive(Debug)]
pub struct FrameMeter {
    head: [u8; HEAD],
    /// How much of the head has come.
    filled: usize,
    /// How much of the frame is still to come behind its head.
    rest: usize,
    resets: Allowance,
    empty: Allowance,
}

/// What is left of a rate, and how much may be saved.
#[derive(Debug)]
struct Allowance {
    rate: u32,
    most: u32,
    left: f64,
    since: Duration,
}

impl FrameMeter {
    /// Begins after the preface, at time zero.
    /// As many requests as may be under way may be taken back at once.
    pub fn new(max_resets_per_second: u32, max_concurrent_streams: u32) -> Self {
        Self {
            head: [0; HEAD],
            filled: 0,
            rest: 0,
            resets: Allowance::full(max_resets_per_second, max_resets_per_second.max(max_concurrent_streams)),
            empty: Allowance::full(MAX_EMPTY_FRAMES, MAX_EMPTY_FRAMES),
        }
    }

    /// Notes bytes that were sent to the peer.
    pub fn sent(&mut self, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "an allowance is no account")]
        let frames = count as f64 / BYTES_PER_FRAME as f64;
        self.empty.left += frames;
    }

    /// Counts the frames in bytes that came `now` after the beginning.
    ///
    /// # Errors
    /// When there are too many.
    pub fn receive(&mut self, mut bytes: &[u8], now: Duration) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            let (_, behind) = bytes.split_at(skipped);
            let count = (HEAD - self.filled).min(behind.len());
            let (head, behind) = behind.split_at(count);
            if let Some(place) = self.head.get_mut(self.filled..self.filled + count) {
                place.copy_from_slice(head);
            }
            self.filled += count;
            bytes = behind;
            if self.filled == HEAD {
                self.filled = 0;
                self.count(now)?;
            }
        }
        Ok(())
    }

    /// Counts the frame whose head is complete.
    fn count(&mut self, now: Duration) -> Result<(), Flood> {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const RST_STREAM: u8 = 3;
        const END_STREAM: u8 = 1;
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.rest = length;
        match kind {
            HEADERS => Ok(()),
            DATA if length > 0 || flags & END_STREAM != 0 => Ok(()),
            RST_STREAM => self.resets.take(now).ok_or(Flood::Resets),
            _ => self.empty.take(now).ok_or(Flood::EmptyFrames),
        }
    }
}

impl Allowance {
    fn full(rate: u32, most: u32) -> Self {
        Self { rate, most, left: f64::from(most), since: Duration::ZERO }
    }

    fn take(&mut self, now: Duration) -> Option<()> {
        let gained = now.saturating_sub(self.since).as_secs_f64() * f64::from(self.rate);
        // What was gained by sending may go beyond what is saved.
        self.left = self.left.max((self.left + gained).min(f64::from(self.most)));
        self.since = now;
        if self.left < 1.0 {
            return None;
        }
        self.left -= 1.0;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const RESET: [u8; 13] = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
    const DATA: [u8; 12] = [0, 0, 3, 0, 0, 0, 0, 0, 1, 1, 2, 3];
    const EMPTY: [u8; 9] = [0, 0, 0, 0, 0, 0, 0, 0, 1];
    const LAST: [u8; 9] = [0, 0, 0, 0, 1, 0, 0, 0, 1];
    const HEADERS: [u8; 10] = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x82];

    /// Returns how many of a frame a meter takes at once, up to 5,000.
    fn taken(meter: &mut FrameMeter, frame: &[u8], now: Duration) -> usize {
        (0..5000).take_while(|_| meter.receive(frame, now).is_ok()).count()
    }

    #[test]
    fn what_carries_something_is_not_counted() {
        for frame in [&DATA[..], &LAST, &HEADERS] {
            assert_eq!(taken(&mut FrameMeter::new(5, 5), frame, Duration::ZERO), 5000);
        }
    }

    #[test]
    fn what_carries_nothing_comes_at_a_rate() {
        for (frame, most) in [(&PING[..], 1000), (&EMPTY, 1000), (&RESET, 5)] {
            let mut meter = FrameMeter::new(5, 5);
            // However long it was quiet, no more than a second's worth is saved.
            for (milliseconds, count) in [(0, most), (60_000, most), (60_200, most / 5)] {
                let now = Duration::from_millis(milliseconds);
                for number in 0..count {
                    assert_eq!(meter.receive(frame, now), Ok(()), "{milliseconds} {number}");
                }
            }
            assert!(meter.receive(frame, Duration::from_millis(60_200)).is_err(), "{most}");
        }
    }

    #[test]
    fn each_kind_of_flood_has_its_name() {
        let flood = |frame: &[u8]| FrameMeter::new(1, 1).receive(&frame.repeat(2000), Duration::ZERO);
        assert_eq!((flood(&RESET), flood(&PING)), (Err(Flood::Resets), Err(Flood::EmptyFrames)));
    }

    #[test]
    fn whoever_reads_much_may_say_so_often() {
        let mut meter = FrameMeter::new(1, 1);
        meter.sent(1024 * 1024);
        assert_eq!(taken(&mut meter, &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1], Duration::ZERO), 2024);
    }

    #[test]
    fn bytes_come_in_any_pieces() {
        let stream = [&PING[..], &HEADERS, &DATA, &RESET, &EMPTY, &RESET].concat();
        for size in 1..stream.len() {
            let mut meter = FrameMeter::new(2, 2);
            for piece in stream.chunks(size) {
                assert_eq!(meter.receive(piece, Duration::ZERO), Ok(()), "{size}");
            }
            assert_eq!(meter.receive(&RESET, Duration::ZERO), Err(Flood::Resets), "{size}");
        }
    }
}

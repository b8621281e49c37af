//! Writes lines on a thread of its own, so that whoever logs never waits for whoever reads the log.
//!
//! Lines wait in a bounded buffer. One that finds it full is lost, and so is one that cannot be written, because the disk is
//! full or nobody holds the other end; they are counted.
//!
//! Invariants: logging neither blocks nor fails; what is written are whole lines, in order.
//! Not here: what is logged, which lines pass (`logging`), telling how many were lost (`logging::control`).

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// Most bytes that wait to be written.
const MOST: usize = 1024 * 1024;

/// Most bytes that are written at once, where lines are shorter: what a pipe takes whole, whoever else writes to it.
const AT_ONCE: usize = 4096;

/// How long to wait for room where the other end is set not to block.
const PAUSE: Duration = Duration::from_millis(10);

/// Takes lines to be written; clones are the same.
#[derive(Clone)]
pub struct LineWriter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when there is something to write.
    filled: Condvar,
    /// Told when there is nothing left to write.
    emptied: Condvar,
    count: OnceLock<Count>,
}

type Count = Box<dyn Fn(u64) + Send + Sync>;

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Whether something has been taken out that is not written yet.
    is_writing: bool,
    /// How many lines were lost of which nobody was told yet.
    lost: u64,
    /// Whether the last attempt to write has failed.
    is_failing: bool,
}

impl LineWriter {
    /// Starts the thread that writes to `sink`, for as long as the process lives.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writing = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || writing.write_to(sink))?;
        Ok(Self(shared))
    }

    /// Has lines that are lost counted by `count`; the first call wins. Those that were lost before are counted at once.
    pub fn losses_counted_by(&self, count: impl Fn(u64) + Send + Sync + 'static) {
        let lost = self.0.state().lost;
        if self.0.count.set(Box::new(count)).is_ok() {
            self.0.count(lost);
        }
    }

    /// Returns how many lines were lost since this was asked last; none while they would be lost still.
    pub fn take_lost(&self) -> u64 {
        let mut state = self.0.state();
        if state.is_failing { 0 } else { std::mem::take(&mut state.lost) }
    }

    /// Waits until everything has been written, or for so long.
    pub fn flush_within(&self, longest: Duration) {
        let state = self.0.state();
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        drop(self.0.emptied.wait_timeout_while(state, longest, is_busy));
    }
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        if MOST < state.waiting.len().saturating_add(line.len()) {
            let lost = lines(line);
            state.lost += lost;
            drop(state);
            self.0.count(lost);
        } else {
            state.waiting.extend_from_slice(line);
            self.0.filled.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for LineWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LineWriter").finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, lost: u64) {
        if let Some(count) = self.count.get().filter(|_| lost > 0) {
            count(lost);
        }
    }

    /// Writes whatever comes. Never ends.
    fn write_to(&self, mut sink: impl Write) {
        loop {
            for lines in portions(&self.next()) {
                let written = write_whole(&mut sink, lines);
                self.note(lines, &written);
            }
        }
    }

    /// Waits for something to write.
    fn next(&self) -> Vec<u8> {
        let mut state = self.state();
        state.is_writing = false;
        if state.waiting.is_empty() {
            self.emptied.notify_all();
        }
        let is_idle = |state: &mut State| state.waiting.is_empty();
        let mut state = self.filled.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        std::mem::take(&mut state.waiting)
    }

    fn note(&self, portion: &[u8], written: &io::Result<()>) {
        let lost = if written.is_ok() { 0 } else { lines(portion) };
        let mut state = self.state();
        state.is_failing = written.is_err();
        state.lost += lost;
        drop(state);
        self.count(lost);
    }
}

/// Returns how many lines these are.
fn lines(bytes: &[u8]) -> u64 {
    let ends = bytes.split(|byte| *byte == b'\n').skip(1).count();
    u64::try_from(ends).unwrap_or(u64::MAX)
}

/// Splits lines into portions that are written at once.
fn portions(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut portions, mut begin, mut end) = (Vec::new(), 0, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if begin < end && AT_ONCE < end - begin + line.len() {
            portions.extend(bytes.get(begin..end));
            begin = end;
        }
        end += line.len();
    }
    portions.extend(bytes.get(begin..end).filter(|rest| !rest.is_empty()));
    portions
}

fn write_whole(sink: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match sink.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    /// A sink whose every write is decided by a test.
    struct Sink {
        attempts: std::sync::mpsc::Sender<Vec<u8>>,
        verdicts: Receiver<io::Result<usize>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.attempts.send(bytes.to_vec()).unwrap();
            // Once the test is over, nothing is written any more.
            self.verdicts.recv().unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Bench {
        writer: LineWriter,
        attempts: Receiver<Vec<u8>>,
        verdicts: SyncSender<io::Result<usize>>,
    }

    impl Bench {
        fn new() -> Self {
            let ((attempting, attempts), (verdicts, judging)) = (channel(), sync_channel(0));
            let writer = LineWriter::start(Sink { attempts: attempting, verdicts: judging }).unwrap();
            Self { writer, attempts, verdicts }
        }

        fn log(&self, line: &str) {
            self.writer.clone().write_all(format!("{line}\n").as_bytes()).unwrap();
        }

        /// Returns what is tried to be written, which is then decided so.
        fn attempt(&self, verdict: io::Result<usize>) -> String {
            let attempt = self.attempts.recv_timeout(PATIENCE).unwrap();
            self.verdicts.send(verdict).unwrap();
            String::from_utf8(attempt).unwrap()
        }
    }

    #[test]
    fn lines_are_written_whole_and_in_order_however_little_is_taken_at_once() {
        let bench = Bench::new();
        bench.log("one");
        assert_eq!(bench.attempt(Ok(1)), "one\n");
        assert_eq!(bench.attempt(Err(ErrorKind::Interrupted.into())), "ne\n");
        assert_eq!(bench.attempt(Err(ErrorKind::WouldBlock.into())), "ne\n");
        bench.log("two");
        bench.log("three");
        assert_eq!(bench.attempt(Ok(3)), "ne\n");
        assert_eq!(bench.attempt(Ok(10)), "two\nthree\n");
        bench.writer.flush_within(PATIENCE);
        assert_eq!(bench.writer.take_lost(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_lost_and_told_once_something_can() {
        let bench = Bench::new();
        let counted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&counted);
        bench.writer.losses_counted_by(move |lost| {
            count.fetch_add(lost, Ordering::SeqCst);
        });
        for line in ["one", "two"] {
            bench.log(line);
            bench.attempt(Err(ErrorKind::StorageFull.into()));
        }
        bench.writer.flush_within(PATIENCE);
        assert_eq!(
            (bench.writer.take_lost(), counted.load(Ordering::SeqCst)),
            (0, 2),
            "telling would be lost, too"
        );
        bench.log("three");
        bench.attempt(Ok(6));
        bench.writer.flush_within(PATIENCE);
        assert_eq!((bench.writer.take_lost(), bench.writer.take_lost()), (2, 0));
    }

    #[test]
    fn while_nobody_reads_as_much_waits_as_there_is_room_and_nobody_who_logs_does() {
        let bench = Bench::new();
        bench.log("stuck");
        let _stuck = bench.attempts.recv_timeout(PATIENCE).unwrap();
        let line = "x".repeat(1023);
        (0..2 * MOST / 1024).for_each(|_| bench.log(&line));
        bench.writer.flush_within(Duration::ZERO);
        assert_eq!(bench.writer.take_lost(), u64::try_from(MOST / 1024).unwrap());
        bench.verdicts.send(Ok(6)).unwrap();
        for _ in 0..MOST / AT_ONCE {
            assert_eq!(bench.attempt(Ok(AT_ONCE)).len(), AT_ONCE);
        }
        bench.writer.flush_within(PATIENCE);
    }

    #[test]
    fn portions_are_of_whole_lines_and_no_longer_than_what_a_pipe_takes() {
        let line = |length: usize| format!("{}\n", "x".repeat(length - 1));
        let of = |lengths: &[usize]| {
            let all: String = lengths.iter().map(|length| line(*length)).collect();
            portions(all.as_bytes()).iter().map(|portion| portion.len()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), [0; 0]);
        assert_eq!(of(&[10, 20]), [30]);
        assert_eq!(of(&[4000, 96, 1]), [4096, 1]);
        assert_eq!(of(&[5000, 10, 5000]), [5000, 10, 5000]);
        assert_eq!(portions(b"a\nb"), [b"a\nb"]);
    }
}

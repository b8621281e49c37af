//! Lets the HTTP/2 writes of one poll leave in one write.
//!
//! An HTTP/2 connection writes frame by frame. [`Coalesced`] keeps what is written; [`Coalescing`] polls the
//! connection and then sends what was kept, and flushes it. A flush in between does nothing: the end of the poll
//! is never far.
//!
//! Invariants: bytes leave in the order they were written, none is lost, none is sent twice; nothing written in a
//! poll waits for a later one, unless the stream itself does; a failed write fails every later use of the stream;
//! no more than 64 KiB are kept, and an idle connection's buffer shrinks.
//! Not here: HTTP/1.1, whose answers leave in one write anyway.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::server::connection::Conversation;

/// Most bytes kept; a write that finds them all taken waits for the stream.
const MOST: usize = 64 * 1024;

/// Capacity below which shrinking gains nothing.
const LEAST: usize = 1024;

/// A stream that keeps what is written to it until [`Coalescing`] sends it.
///
/// Both are used from one task, so the lock is never waited for.
#[derive(Debug)]
pub struct Coalesced<S>(Arc<Mutex<Outgoing<S>>>);

impl<S> Coalesced<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        let outgoing = Outgoing { stream, kept: Vec::new(), sent: 0, unflushed: false, failed: None };
        Self(Arc::new(Mutex::new(outgoing)))
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Clone for Coalesced<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The stream, and what is still to be written to it.
#[derive(Debug)]
struct Outgoing<S> {
    stream: S,
    kept: Vec<u8>,
    /// How much at the start of `kept` has been written.
    sent: usize,
    /// Whether something was written since the last flush.
    unflushed: bool,
    /// How writing failed, for every later use.
    failed: Option<io::ErrorKind>,
}

impl<S: AsyncWrite + Unpin> Outgoing<S> {
    fn check(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        self.failed = Some(error.kind());
        self.kept = Vec::new();
        self.sent = 0;
        error
    }

    /// Keeps as much of `slices` as there is room for, and returns how much.
    fn keep(&mut self, slices: &[IoSlice<'_>]) -> usize {
        if self.sent > 0 {
            self.kept.drain(..self.sent);
            self.sent = 0;
        }
        let before = self.kept.len();
        for slice in slices {
            let room = MOST.saturating_sub(self.kept.len());
            let (fits, _) = slice.split_at(slice.len().min(room));
            self.kept.extend_from_slice(fits);
        }
        self.kept.len() - before
    }

    fn poll_keep(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.check()?;
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let mut kept = self.keep(slices);
        if kept == 0 {
            // Full. Whether or not all of it can leave, there is room once some of it has.
            let drained = self.poll_drain(context)?;
            kept = self.keep(slices);
            if kept == 0 {
                ready!(drained);
            }
        }
        Poll::Ready(Ok(kept))
    }

    /// Writes what is kept.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        while let Some(rest) = self.kept.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, rest));
            match written {
                Ok(0) => return Poll::Ready(Err(self.fail(io::ErrorKind::WriteZero.into()))),
                Ok(count) => self.sent += count,
                Err(error) => return Poll::Ready(Err(self.fail(error))),
            }
            self.unflushed = true;
        }
        self.empty();
        Poll::Ready(Ok(()))
    }

    /// Forgets what was sent. A buffer that was mostly empty is halved, so that a burst is not paid for for ever.
    fn empty(&mut self) {
        let used = self.kept.len();
        self.kept.clear();
        self.sent = 0;
        if used > 0 && used < self.kept.capacity() / 4 {
            self.kept.shrink_to((self.kept.capacity() / 2).max(LEAST));
        }
    }

    /// Writes what is kept, and flushes.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        if self.unflushed {
            if let Err(error) = ready!(Pin::new(&mut self.stream).poll_flush(context)) {
                return Poll::Ready(Err(self.fail(error)));
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut outgoing = self.outgoing();
        outgoing.check()?;
        Pin::new(&mut outgoing.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.outgoing().poll_keep(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.outgoing().poll_keep(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.outgoing().check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outgoing = self.outgoing();
        ready!(outgoing.poll_send(context))?;
        Pin::new(&mut outgoing.stream).poll_shutdown(context)
    }
}

/// A connection over a [`Coalesced`] stream: each poll is followed by sending what was written in it.
#[derive(Debug)]
pub struct Coalescing<C, S> {
    connection: Pin<Box<C>>,
    stream: Coalesced<S>,
    ended: Option<Result<(), hyper::Error>>,
}

impl<C, S> Coalescing<C, S> {
    /// Takes a connection and another handle on the stream that it writes to.
    pub fn new(connection: C, stream: Coalesced<S>) -> Self {
        Self { connection: Box::pin(connection), stream, ended: None }
    }
}

impl<C, S> Future for Coalescing<C, S>
where
    C: Future<Output = Result<(), hyper::Error>>,
    S: AsyncWrite + Unpin,
{
    type Output = Result<(), hyper::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.ended.is_none()
            && let Poll::Ready(ended) = self.connection.as_mut().poll(context)
        {
            self.ended = Some(ended);
        }
        let mut outgoing = self.stream.outgoing();
        let had_failed = outgoing.failed.is_some();
        let sent = outgoing.poll_send(context);
        drop(outgoing);
        match (self.ended.is_some(), sent) {
            (true, Poll::Ready(_)) => {}
            (true, Poll::Pending) | (false, Poll::Pending | Poll::Ready(Ok(()))) => return Poll::Pending,
            (false, Poll::Ready(Err(_))) => {
                // The connection waits for other things than this failure: it must be told, once.
                if !had_failed {
                    context.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
        self.ended.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<C, S> Conversation for Coalescing<C, S>
where
    C: Conversation,
    S: AsyncWrite + Unpin,
{
    fn finish(mut self: Pin<&mut Self>) {
        self.connection.as_mut().finish();
    }

    fn retire(self: Pin<&mut Self>) {
        // `GOAWAY` lets those requests through that are on their way.
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// Takes writes up to a size, and remembers them.
    #[derive(Debug, Default)]
    struct Recorder {
        writes: Vec<Vec<u8>>,
        flushes: usize,
        broken: bool,
    }

    impl AsyncWrite for Recorder {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.writes.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write<S: AsyncWrite + Unpin>(stream: &mut Coalesced<S>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(stream).poll_write(&mut Context::from_waker(Waker::noop()), bytes)
    }

    fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_writes_of_one_poll_leave_in_one_write_and_are_flushed() {
        let stream = Coalesced::new(Recorder::default());
        let mut inner = stream.clone();
        let connection = poll_fn(move |context| {
            for frame in [b"one ".as_slice(), b"two ", b"three"] {
                assert!(write(&mut inner, frame).is_ready());
                assert!(Pin::new(&mut inner).poll_flush(context).is_ready());
            }
            Poll::Pending
        });
        assert!(poll_once(&mut Coalescing::new(connection, stream.clone())).is_pending());
        let outgoing = stream.outgoing();
        assert_eq!(outgoing.stream.writes, [b"one two three"]);
        assert_eq!(outgoing.stream.flushes, 1);
    }

    #[test]
    fn a_poll_that_wrote_nothing_does_not_touch_the_stream() {
        let stream = Coalesced::new(Recorder::default());
        let mut connection = Coalescing::new(std::future::pending(), stream.clone());
        assert!(poll_once(&mut connection).is_pending());
        assert_eq!(stream.outgoing().stream.flushes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn through_a_narrow_stream_the_same_bytes_come_out_in_order() {
        let expected: Vec<u8> = (0..300_000_u32).map(|index| (index % 251) as u8).collect();
        let (near, mut far) = duplex(37);
        let stream = Coalesced::new(near);
        let (mut inner, mut rest) = (stream.clone(), expected.clone());
        let mut size = 1;
        let connection = poll_fn(move |context| {
            while !rest.is_empty() {
                size = size * 7 % 20_011;
                let chunk = &rest[..size.min(rest.len())];
                let (head, tail) = chunk.split_at(chunk.len() / 3);
                let slices = [IoSlice::new(head), IoSlice::new(tail)];
                match ready!(Pin::new(&mut inner).poll_write_vectored(context, &slices)) {
                    Ok(count) => drop(rest.drain(..count)),
                    Err(error) => panic!("{error}"),
                }
            }
            Poll::Ready(Ok(()))
        });
        let sender = tokio::spawn(Coalescing::new(connection, stream));
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        sender.await.unwrap().unwrap();
        assert!(received == expected);
    }

    #[test]
    fn a_failed_write_is_kept_and_the_connection_is_told() {
        let stream = Coalesced::new(Recorder { broken: true, ..Recorder::default() });
        let mut inner = stream.clone();
        let mut polls = 0;
        let connection = poll_fn(move |_context| {
            polls += 1;
            let failed = matches!(write(&mut inner, b"frame"), Poll::Ready(Err(_)));
            assert_eq!(failed, polls > 1);
            if failed { Poll::Ready(Ok(())) } else { Poll::Pending }
        });
        let mut connection = Coalescing::new(connection, stream);
        assert!(poll_once(&mut connection).is_pending());
        assert!(matches!(poll_once(&mut connection), Poll::Ready(Ok(()))));
    }

    #[test]
    fn the_buffer_is_bounded_and_shrinks_after_a_burst() {
        let mut stream = Coalesced::new(Recorder::default());
        let mut offered = 0;
        while offered < 4 * MOST {
            let Poll::Ready(Ok(count)) = write(&mut stream, &[0; 10_000]) else { panic!("full") };
            offered += count;
            assert!(stream.outgoing().kept.len() <= MOST);
        }
        for _ in 0..20 {
            let mut context = Context::from_waker(Waker::noop());
            assert!(stream.outgoing().poll_send(&mut context).is_ready());
            assert!(write(&mut stream, b"ping").is_ready());
        }
        assert!(stream.outgoing().kept.capacity() <= 2 * LEAST);
    }

    #[tokio::test(start_paused = true)]
    async fn shutting_down_sends_what_is_kept() {
        let (near, mut far) = duplex(64);
        let mut stream = Coalesced::new(near);
        assert!(write(&mut stream, b"farewell").is_ready());
        poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await.unwrap();
        let mut received = String::new();
        far.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "farewell");
    }
}

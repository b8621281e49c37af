//! A stream with the bytes already read put back in front of it, and limits on how long a write may stall, how long a
//! head may dawdle, and how many frames may come.
//!
//! Invariants: what was read first is read first again; a peer that takes nothing for [`WRITE_STALL`] loses its
//! connection, however much there is to send; a head over HTTP/1.1 that is not complete in time ends its connection.
//! Not here: choosing the protocol (`server::connection`).

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::clock::Stopwatch;
use crate::metrics::connections::ConnectionEnd;
use crate::server::frames::FrameMeter;
use crate::server::lifecycle::{Work, Writing};

/// How long a peer may take not a single byte that is to be sent to it.
pub const WRITE_STALL: Duration = Duration::from_mins(1);

/// A stream that starts with bytes that were read before.
#[derive(Debug)]
pub struct Transport<S> {
    stream: S,
    replay: Bytes,
    guard: Guard,
    stall: Option<Pin<Box<Sleep>>>,
}

/// What is watched in the bytes that come.
#[derive(Debug)]
pub enum Guard {
    /// Nothing.
    None,
    /// HTTP/1.1: that heads do not dawdle.
    Head(HeadGuard),
    /// HTTP/2: that there is no flood of frames.
    Frames(FrameGuard),
}

/// Watches that the head of a request does not dawdle. One that begins behind a request in work is bounded by the time for
/// idling alone.
#[derive(Debug)]
pub struct HeadGuard {
    work: Arc<Work>,
    limit: Duration,
    /// Runs while a head is incomplete, with the number of requests before it.
    running: Option<(Pin<Box<Sleep>>, usize)>,
}

impl HeadGuard {
    /// Allows each head of the connection so long.
    pub const fn new(work: Arc<Work>, limit: Duration) -> Self {
        Self { work, limit, running: None }
    }

    /// Passes on what became of a read, unless the head that it is for has taken too long.
    fn watch(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<()>>,
        read: &[u8],
    ) -> Poll<io::Result<()>> {
        let started = self.work.started();
        if self.running.as_ref().is_some_and(|(_, before)| *before != started) {
            self.running = None;
        }
        if !read.is_empty() && self.running.is_none() && self.work.is_idle() {
            self.running = Some((Box::pin(sleep(self.limit)), started));
        }
        match &mut self.running {
            Some((deadline, _)) if poll.is_pending() => {
                let too_late = deadline.as_mut().poll(context);
                too_late.map(|()| {
                    self.work.end_by(ConnectionEnd::HeaderTimeout);
                    Err(io::ErrorKind::TimedOut.into())
                })
            }
            Some(_) | None => poll,
        }
    }
}

/// Watches that there is no flood of frames.
#[derive(Debug)]
pub struct FrameGuard {
    meter: FrameMeter,
    work: Arc<Work>,
    since: Stopwatch,
    /// How much of the preface is still to be skipped.
    preface: usize,
}

impl FrameGuard {
    /// Watches a connection whose first bytes are a preface of this length.
    pub fn new(meter: FrameMeter, work: Arc<Work>, preface: usize) -> Self {
        Self { meter, work, since: Stopwatch::start(), preface }
    }

    fn watch(&mut self, poll: Poll<io::Result<()>>, read: &[u8]) -> Poll<io::Result<()>> {
        let skipped = self.preface.min(read.len());
        self.preface -= skipped;
        let frames = read.get(skipped..).unwrap_or_default();
        match self.meter.receive(frames, self.since.read()) {
            Ok(()) => poll,
            Err(flood) => {
                tracing::debug!(%flood, "a connection was flooded");
                self.work.end_by(ConnectionEnd::Flooded);
                Poll::Ready(Err(io::Error::other(flood)))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    /// Puts `replay` in front of what will be read from `stream`.
    pub fn new(stream: S, replay: Bytes, guard: Guard) -> Self {
        Self { stream, replay, guard, stall: None }
    }

    /// Notes what became of a write, and passes it on.
    fn note_sent(&mut self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Guard::Frames(guard), Poll::Ready(Ok(count))) = (&mut self.guard, &poll) {
            guard.meter.sent(*count);
        }
        poll
    }

    /// Passes on what became of a write, unless it has been stalled for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let work = self.guard.work().cloned();
        if poll.is_ready() {
            self.stall = None;
            work.inspect(|work| work.note_writing(Writing::Done));
            return poll;
        }
        work.as_ref().inspect(|work| work.note_writing(Writing::Pending));
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(WRITE_STALL)));
        stall.as_mut().poll(context).map(|()| {
            work.inspect(|work| work.end_by(ConnectionEnd::Stalled));
            Err(io::ErrorKind::TimedOut.into())
        })
    }
}

impl Guard {
    /// Returns the work of the connection.
    fn work(&self) -> Option<&Arc<Work>> {
        match self {
            Self::None => None,
            Self::Head(guard) => Some(&guard.work),
            Self::Frames(guard) => Some(&guard.work),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let poll = if this.replay.is_empty() {
            Pin::new(&mut this.stream).poll_read(context, buffer)
        } else {
            let count = this.replay.len().min(buffer.remaining());
            buffer.put_slice(&this.replay.split_to(count));
            Poll::Ready(Ok(()))
        };
        let read = buffer.filled().get(before..).unwrap_or_default();
        match &mut this.guard {
            Guard::None => poll,
            Guard::Head(guard) => guard.watch(context, poll, read),
            Guard::Frames(guard) => guard.watch(poll, read),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        let poll = self.note_sent(poll);
        self.watch(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        let poll = self.note_sent(poll);
        self.watch(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, poll)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_read_before_is_read_first() {
        let (near, mut far) = duplex(64);
        far.write_all(b" world").await.unwrap();
        drop(far);
        let mut transport = Transport::new(near, Bytes::from_static(b"hello"), Guard::None);
        let mut start = [0; 3];
        transport.read_exact(&mut start).await.unwrap();
        let mut rest = String::new();
        transport.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&start, rest.as_str()), (b"hel", "lo world"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_loses_its_connection() {
        let (near, _far) = duplex(4);
        let mut transport = Transport::new(near, Bytes::new(), Guard::None);
        let error = transport.write_all(b"too much").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_little_now_and_then_keeps_it() {
        let (near, mut far) = duplex(1);
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            while far.read(&mut byte).await.unwrap() > 0 {
                sleep(WRITE_STALL / 2).await;
            }
        });
        let mut transport = Transport::new(near, Bytes::new(), Guard::None);
        transport.write_all(b"slowly but surely").await.unwrap();
        drop(transport);
        reader.await.unwrap();
    }
}

//! A stream with the bytes already read put back in front of it, and a limit on how long a write may stall.
//!
//! Invariants: what was read first is read first again; a peer that takes nothing for [`WRITE_STALL`] loses its
//! connection, however much there is to send.
//! Not here: choosing the protocol (`server::connection`).

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a peer may take not a single byte that is to be sent to it.
pub const WRITE_STALL: Duration = Duration::from_mins(1);

/// A stream that starts with bytes that were read before.
#[derive(Debug)]
pub struct Transport<S> {
    stream: S,
    replay: Bytes,
    stall: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    /// Puts `replay` in front of what will be read from `stream`.
    pub fn new(stream: S, replay: Bytes) -> Self {
        Self { stream, replay, stall: None }
    }

    /// Passes on what became of a write, unless it has been stalled for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stall = None;
            return poll;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(WRITE_STALL)));
        stall.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.replay.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.replay.len().min(buffer.remaining());
        buffer.put_slice(&self.replay.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
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
        let mut transport = Transport::new(near, Bytes::from_static(b"hello"));
        let mut start = [0; 3];
        transport.read_exact(&mut start).await.unwrap();
        let mut rest = String::new();
        transport.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&start, rest.as_str()), (b"hel", "lo world"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_loses_its_connection() {
        let (near, _far) = duplex(4);
        let mut transport = Transport::new(near, Bytes::new());
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
        let mut transport = Transport::new(near, Bytes::new());
        transport.write_all(b"slowly but surely").await.unwrap();
        drop(transport);
        reader.await.unwrap();
    }
}

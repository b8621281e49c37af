//! Puts interim responses on an HTTP/1.1 connection between hyper's own messages: hyper has no way to send them.
//!
//! hyper writes everything of a final response, flushes, and then waits for the next request's handler. While it waits,
//! nothing of it is half out, and an interim response may go out; [`Interposing`] knows that moment by the flush.
//!
//! Invariants: an interim response is written whole before anything of hyper's, and only when all that hyper wrote before
//! has been flushed. Not here: whose it is, and how many there are (`peer`).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::peer::{InterimOutlet, Place};
use crate::server::unreadable::explained;

/// A stream on which interim responses go out between the messages that are written to it.
#[derive(Debug)]
pub struct Interposing<S> {
    stream: S,
    outlet: InterimOutlet,
    /// What is left of an interim response that is half out.
    rest: Bytes,
    written: Written,
}

/// How far what was written is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// On its way to the peer, all of it.
    Flushed,
    /// Nothing yet of the final response to the request of this number, which is offered.
    Offered(u64),
    /// There may be more of the same message.
    InPart,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Interposing<S> {
    /// Wraps the stream of a connection with this outlet.
    pub fn new(stream: S, outlet: InterimOutlet) -> Self {
        Self { stream, outlet, rest: Bytes::new(), written: Written::Flushed }
    }

    /// Writes the interim responses that wait, if this is the moment for them.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.rest.has_remaining() {
                let count = ready!(Pin::new(&mut self.stream).poll_write(context, &self.rest))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.rest.advance(count);
            }
            let place = match self.written {
                Written::Flushed => Place::Idle,
                Written::Offered(number) => Place::AheadOfFinal(number),
                Written::InPart => return Poll::Ready(Ok(())),
            };
            match self.outlet.next(place) {
                Some(message) => self.rest = message,
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Interposing<S> {
    /// Writes what goes ahead of the bytes that are offered: for the request that they answer, and no later one.
    fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written == Written::Flushed {
            self.written = Written::Offered(self.outlet.request());
        }
        ready!(self.poll_interim(context))?;
        self.written = Written::InPart;
        Poll::Ready(Ok(()))
    }

    /// Puts an answer that says why in the place of one of hyper's own; it leaves with the next flush.
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        let Some(answer) = explained(bytes) else { return false };
        self.rest = answer;
        true
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Interposing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Interposing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let begins = self.written != Written::InPart;
        ready!(self.poll_ahead(context))?;
        if begins && self.replaces(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let begins = self.written != Written::InPart;
        ready!(self.poll_ahead(context))?;
        if let [bytes] = slices
            && begins
            && self.replaces(bytes)
        {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.written = Written::Flushed;
        ready!(self.poll_interim(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http::header::HeaderMap;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const PROCESSING: &str = "HTTP/1.1 102 Processing\r\n\r\n";

    async fn read(far: &mut (impl AsyncRead + Unpin), length: usize) -> String {
        let mut bytes = vec![0; length];
        far.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn it_goes_out_before_the_next_message_and_with_a_flush() {
        let (near, mut far) = duplex(1_000);
        let outlet = InterimOutlet::default();
        let mut stream = Interposing::new(near, outlet.clone());
        let ticket = outlet.open();
        ticket.send(StatusCode::PROCESSING, &HeaderMap::new());
        stream.flush().await.unwrap();
        assert_eq!(read(&mut far, PROCESSING.len()).await, PROCESSING);
        ticket.send(StatusCode::PROCESSING, &HeaderMap::new());
        stream.write_all(b"final").await.unwrap();
        assert_eq!(read(&mut far, PROCESSING.len() + 5).await, format!("{PROCESSING}final"));
    }

    #[tokio::test]
    async fn it_never_stands_within_a_message() {
        let (near, mut far) = duplex(1_000);
        let outlet = InterimOutlet::default();
        let mut stream = Interposing::new(near, outlet.clone());
        stream.write_all(b"fi").await.unwrap();
        let ticket = outlet.open();
        ticket.send(StatusCode::PROCESSING, &HeaderMap::new());
        stream.write_all(b"nal").await.unwrap();
        ticket.send(StatusCode::PROCESSING, &HeaderMap::new());
        stream.flush().await.unwrap();
        assert_eq!(read(&mut far, 5 + PROCESSING.len()).await, format!("final{PROCESSING}"));
    }

    #[tokio::test]
    async fn that_of_the_next_request_waits_until_the_final_response_before_it_is_out() {
        let (near, mut far) = duplex(3);
        let outlet = InterimOutlet::default();
        let mut stream = Interposing::new(near, outlet.clone());
        let first = outlet.open();
        first.send(StatusCode::PROCESSING, &HeaderMap::new());
        // Half out, when the final response is offered for the first time.
        assert!(offer(&mut stream, b"final").is_pending());
        first.close();
        outlet.open().send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        let writing = tokio::spawn(async move {
            stream.write_all(b"final").await.unwrap();
            stream.flush().await.unwrap();
        });
        let expected = format!("{PROCESSING}finalHTTP/1.1 103 Early Hints\r\n\r\n");
        assert_eq!(read(&mut far, expected.len()).await, expected);
        writing.await.unwrap();
    }

    /// Offers bytes once.
    fn offer(stream: &mut Interposing<tokio::io::DuplexStream>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        Pin::new(stream).poll_write(&mut context, bytes)
    }

    #[tokio::test]
    async fn it_goes_out_whole_however_slowly_it_is_read() {
        let (near, mut far) = duplex(3);
        let outlet = InterimOutlet::default();
        let mut stream = Interposing::new(near, outlet.clone());
        outlet.open().send(StatusCode::PROCESSING, &HeaderMap::new());
        let writing = tokio::spawn(async move { stream.write_all(b"final").await.unwrap() });
        assert_eq!(read(&mut far, PROCESSING.len() + 5).await, format!("{PROCESSING}final"));
        writing.await.unwrap();
    }
}

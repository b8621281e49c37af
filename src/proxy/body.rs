//! The bodies that pass through the proxy, and reading one to its end within bounds.
//!
//! Invariants: a body that breaks off is an error to whoever reads it, so that it never looks complete; nothing is
//! read into memory beyond its limit, nor beyond what all bodies together may take ([`BodyMemory`]).
//! Not here: what is done with a body (`proxy::flight`, `proxy::forward`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time;

use crate::budget::permit::Permit;
use crate::metrics::bytes::{BodySource, ByteCounter, ByteMetrics};
use crate::proxy::decoding::Decoding;
use crate::upstream::error::UpstreamError;
use crate::upstream::{BoxError, IncomingBody};

/// Most of a body at hand that is given away at once. What is given away counts as on its way no longer, although it may lie in
/// the connection's memory for as long as the peer does not take it.
const SLICE: usize = 64 * 1024;

/// How long a client may take nothing of an answer that streams to it; then the exchange with upstream is given up,
/// so that whoever reads nothing holds nothing.
const READER_STALL: Duration = Duration::from_secs(30);

/// How many frames may wait for the client.
const FRAMES_AHEAD: usize = 4;

/// The body of an answer to a client.
#[derive(Debug)]
pub enum ReplyBody {
    /// At hand; empty when `None`.
    Whole(Option<Bytes>),
    /// Still coming from upstream.
    Streaming(Box<UpstreamStream>),
    /// Still coming, carried by a task of its own.
    Relayed(Box<Relay>),
}

/// A body on its way from upstream that nobody reads yet: what was already read of it, then the rest.
#[derive(Debug)]
pub struct UpstreamStream {
    read: Option<Bytes>,
    rest: IncomingBody,
    permit: Permit,
}

/// The client's end of a body that a task carries from upstream. The task reads at its own pace, so that upstream's
/// deadlines hold although the client does not read: a body is otherwise only polled when there is room to send it.
#[derive(Debug)]
pub struct Relay {
    frames: mpsc::Receiver<Option<Result<Frame<Bytes>, BoxError>>>,
    size: SizeHint,
    ended: Ended,
    counter: Option<ByteCounter>,
}

/// Whether a relayed body has been read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Yes,
    NotYet,
}

/// The client took nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the client took nothing of the answer for {READER_STALL:?}")]
struct ReaderStalled;

impl ReplyBody {
    /// Returns a body with nothing in it.
    pub const fn empty() -> Self {
        Self::Whole(None)
    }

    /// Returns a body that is at hand.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// Returns a body that comes from upstream.
    pub fn streaming(rest: IncomingBody, permit: Permit) -> Self {
        Self::Streaming(Box::new(UpstreamStream { read: None, rest, permit }))
    }

    /// Takes gzip off a body that comes from upstream, as it comes. What is at hand stays as it is.
    #[must_use]
    pub fn decoded(self) -> Self {
        match self {
            Self::Streaming(stream) => {
                let UpstreamStream { read, rest, permit } = *stream;
                Self::streaming(Decoding::new(read, rest).boxed_unsync(), permit)
            }
            body @ (Self::Whole(_) | Self::Relayed(_)) => body,
        }
    }

    /// Counts its bytes: at once where it is at hand, and as they pass where it is still on its way.
    pub fn count(&mut self, metrics: &ByteMetrics, source: BodySource) {
        match self {
            Self::Whole(bytes) => metrics.answered(source, bytes.as_ref().map_or(0, Bytes::len)),
            Self::Streaming(stream) => {
                if let Some(counter) = metrics.answering(source) {
                    counter.add(stream.read.as_ref().map_or(0, Bytes::len));
                    stream.rest = counted(std::mem::take(&mut stream.rest), &counter);
                }
            }
            Self::Relayed(relay) => relay.counter = metrics.answering(source),
        }
    }

    /// Hands a body that still comes from upstream to a task of its own. The last step before the client gets it.
    #[must_use]
    pub fn relayed(self) -> Self {
        match self {
            Self::Streaming(stream) if !stream.rest.is_end_stream() => {
                Self::Relayed(Box::new(stream.relay()))
            }
            Self::Streaming(stream) => Self::Whole(stream.read),
            body @ (Self::Whole(_) | Self::Relayed(_)) => body,
        }
    }
}

impl UpstreamStream {
    /// Returns how long the whole body is, as far as that is known.
    fn size(&self) -> SizeHint {
        let read = length(self.read.as_ref());
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }

    fn relay(self) -> Relay {
        let size = self.size();
        let Self { read, rest, permit } = self;
        let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
        // Ends by itself: with the body, with its deadlines, or when the client leaves or stalls.
        tokio::spawn(carry(read, rest, permit.lapsing(), sender));
        Relay { frames, size, ended: Ended::NotYet, counter: None }
    }
}

impl Relay {
    /// Counts a frame that is on its way to the client.
    fn note(&self, frame: &Frame<Bytes>) {
        if let (Some(counter), Some(data)) = (&self.counter, frame.data_ref()) {
            counter.add(data.len());
        }
    }
}

/// Counts the bytes of a body of an exchange with upstream as they pass.
pub fn counted<E: 'static>(body: UnsyncBoxBody<Bytes, E>, counter: &ByteCounter) -> UnsyncBoxBody<Bytes, E> {
    if body.is_end_stream() {
        return body;
    }
    let counter = counter.clone();
    let note = move |frame: &Frame<Bytes>| counter.add(frame.data_ref().map_or(0, Bytes::len));
    body.inspect_frame(note).boxed_unsync()
}

/// Carries a body to the client's end, frame by frame, and says when it was whole.
async fn carry(
    read: Option<Bytes>,
    mut rest: IncomingBody,
    permit: Permit,
    client: mpsc::Sender<Option<Result<Frame<Bytes>, BoxError>>>,
) {
    let mut next = match read {
        Some(read) => Some(Ok(Frame::data(read))),
        None => rest.frame().await,
    };
    while let Some(frame) = next {
        let is_last = frame.is_err();
        let sent = time::timeout(READER_STALL, client.send(Some(frame.map_err(BoxError::from)))).await;
        // The body has failed, the client has left, or it takes nothing: without an end, the answer is not whole.
        if is_last || !matches!(sent, Ok(Ok(()))) {
            return;
        }
        next = rest.frame().await;
    }
    drop((rest, permit));
    // Fails only when the client has left. Holds nothing but the few frames that it has not read yet.
    let _ = client.send(None).await;
}

/// Takes the next slice of a body that is at hand.
fn slice_of(whole: &mut Option<Bytes>) -> Option<Bytes> {
    match whole {
        Some(bytes) if SLICE < bytes.len() => Some(bytes.split_to(SLICE)),
        Some(_) | None => whole.take(),
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(whole) => Poll::Ready(slice_of(whole).map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streaming(stream) => {
                if let Some(read) = stream.read.take() {
                    return Poll::Ready(Some(Ok(Frame::data(read))));
                }
                let frame = ready!(Pin::new(&mut stream.rest).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
            }
            Self::Relayed(relay) => {
                if relay.ended == Ended::Yes {
                    return Poll::Ready(None);
                }
                let frame =
                    ready!(relay.frames.poll_recv(context)).unwrap_or(Some(Err(ReaderStalled.into())));
                match &frame {
                    Some(Ok(frame)) => relay.note(frame),
                    Some(Err(_)) | None => relay.ended = Ended::Yes,
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streaming(stream) => stream.read.is_none() && stream.rest.is_end_stream(),
            Self::Relayed(relay) => relay.ended == Ended::Yes,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(length(bytes.as_ref())),
            Self::Streaming(stream) => stream.size(),
            Self::Relayed(relay) => relay.size,
        }
    }
}

fn length(bytes: Option<&Bytes>) -> u64 {
    bytes.map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

/// How much memory all bodies that are being read may take together.
#[derive(Debug, Clone)]
pub struct BodyMemory {
    free: Arc<Semaphore>,
    /// Largest body that is read, in bytes.
    limit: usize,
}

/// A body that was read to its end, and the memory that it takes.
#[derive(Debug)]
pub struct Collected {
    /// The bytes, in an allocation of their own.
    pub bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read to its end.
#[derive(Debug)]
pub enum NotCollected {
    /// It is too large, or there is no memory now: here it is, to be passed on as it comes.
    Streaming(ReplyBody, Obstacle),
    /// It broke off.
    Broken(UpstreamError),
}

/// A body that was not read to its end, without its permit.
enum Unread {
    Rest { read: Option<Bytes>, rest: IncomingBody, obstacle: Obstacle },
    Broken(UpstreamError),
}

/// Why a body is passed on as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// It is larger than `cache.max_response_bytes`.
    TooLarge,
    /// `cache.max_in_flight_bytes` are taken.
    NoMemory,
}

impl BodyMemory {
    /// Sets the bounds: `total` for all bodies, `limit` for each, in bytes.
    pub fn new(total: usize, limit: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS))), limit }
    }

    /// Returns the largest body that is read, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Reads a body to its end, or hands it back with what was read of it.
    ///
    /// # Errors
    /// See [`NotCollected`].
    pub async fn collect(&self, body: IncomingBody, permit: Permit) -> Result<Collected, NotCollected> {
        self.collect_reply(ReplyBody::streaming(body, permit)).await
    }

    /// Reads the body of an answer to its end, or hands it back with what was read of it.
    ///
    /// # Errors
    /// See [`NotCollected`].
    pub async fn collect_reply(&self, body: ReplyBody) -> Result<Collected, NotCollected> {
        let stream = match body {
            ReplyBody::Whole(bytes) => {
                return Ok(Collected { bytes: bytes.unwrap_or_default(), _memory: None });
            }
            ReplyBody::Streaming(stream) => *stream,
            // It is on its way to its client already.
            ReplyBody::Relayed(relay) => {
                return Err(NotCollected::Streaming(ReplyBody::Relayed(relay), Obstacle::NoMemory));
            }
        };
        let UpstreamStream { read, rest, permit } = stream;
        self.read(read, rest).await.map_err(|failure| match failure {
            Unread::Rest { read, rest, obstacle } => {
                let stream = UpstreamStream { read, rest, permit };
                NotCollected::Streaming(ReplyBody::Streaming(Box::new(stream)), obstacle)
            }
            Unread::Broken(error) => NotCollected::Broken(error),
        })
    }

    async fn read(&self, first: Option<Bytes>, mut rest: IncomingBody) -> Result<Collected, Unread> {
        let announced = usize::try_from(rest.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > self.limit {
            return Err(Unread::Rest { read: first, rest, obstacle: Obstacle::TooLarge });
        }
        let mut memory = None;
        let mut read = BytesMut::from(first.as_deref().unwrap_or_default());
        let mut taken = read.len().saturating_add(announced);
        if !self.take(&mut memory, taken) {
            return Err(Unread::Rest { read: first, rest, obstacle: Obstacle::NoMemory });
        }
        read.reserve(announced);
        while let Some(frame) = rest.frame().await {
            let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else { continue };
            read.extend_from_slice(&data);
            let more = read.len().saturating_sub(taken);
            taken = taken.max(read.len());
            let obstacle = if read.len() > self.limit {
                Obstacle::TooLarge
            } else if self.take(&mut memory, more) {
                continue;
            } else {
                Obstacle::NoMemory
            };
            return Err(Unread::Rest { read: Some(read.freeze()), rest, obstacle });
        }
        Ok(Collected { bytes: exact(&read), _memory: memory })
    }

    /// Takes memory, without waiting for it.
    fn take(&self, memory: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> bool {
        let Ok(bytes) = u32::try_from(bytes) else { return false };
        let Ok(more) = Arc::clone(&self.free).try_acquire_many_owned(bytes) else { return false };
        match memory {
            Some(memory) => memory.merge(more),
            None => *memory = Some(more),
        }
        true
    }
}

/// Copies bytes into an allocation of exactly their size: what is kept must not pin a larger buffer.
fn exact(bytes: &[u8]) -> Bytes {
    Bytes::from(Box::<[u8]>::from(bytes))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn permit() -> Permit {
        Permit::spent()
    }

    fn known(bytes: &'static [u8]) -> IncomingBody {
        Full::new(Bytes::from_static(bytes)).map_err(|never| match never {}).boxed_unsync()
    }

    /// A body that does not say how long it is.
    fn unknown(chunks: Vec<Result<&'static str, UpstreamError>>) -> IncomingBody {
        let frames = chunks.into_iter().map(|chunk| chunk.map(|text| Frame::data(Bytes::from(text))));
        Frames(frames.collect()).boxed_unsync()
    }

    struct Frames(std::collections::VecDeque<Result<Frame<Bytes>, UpstreamError>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = UpstreamError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    #[tokio::test]
    async fn a_body_at_hand_is_given_away_in_slices_and_ends_with_the_last() {
        let bytes = Bytes::from(vec![7; 2 * SLICE + 1]);
        let mut body = ReplyBody::Whole(Some(bytes.clone()));
        assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
        let mut sizes = Vec::new();
        while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
            sizes.push(frame.unwrap().into_data().unwrap().len());
            assert_eq!(body.is_end_stream(), sizes.len() == 3);
        }
        assert_eq!(sizes, [SLICE, SLICE, 1]);
    }

    #[tokio::test]
    async fn a_body_within_its_limit_is_read_whole() {
        let memory = BodyMemory::new(10, 8);
        let collected = memory.collect(known(b"12345678"), permit()).await.unwrap();
        assert_eq!(collected.bytes, "12345678");
        assert_eq!(memory.free.available_permits(), 2);
        drop(collected);
        assert_eq!(memory.free.available_permits(), 10);
    }

    #[tokio::test]
    async fn a_body_beyond_its_limit_comes_out_as_it_went_in() {
        let memory = BodyMemory::new(100, 8);
        let body = unknown(vec![Ok("12345"), Ok("67890"), Ok("x")]);
        let Err(NotCollected::Streaming(body, Obstacle::TooLarge)) = memory.collect(body, permit()).await
        else {
            panic!("collected")
        };
        assert_eq!(body.collect().await.unwrap().to_bytes(), "1234567890x");
        assert_eq!(memory.free.available_permits(), 100);
    }

    #[tokio::test]
    async fn a_body_for_which_there_is_no_memory_is_passed_on() {
        let memory = BodyMemory::new(7, 8);
        let outcome = memory.collect(known(b"12345678"), permit()).await;
        assert!(matches!(outcome, Err(NotCollected::Streaming(_, Obstacle::NoMemory))));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error() {
        let memory = BodyMemory::new(100, 80);
        let broken = UpstreamError::broken(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        let outcome = memory.collect(unknown(vec![Ok("1234"), Err(broken)]), permit()).await;
        assert!(matches!(outcome, Err(NotCollected::Broken(_))));
        assert_eq!(memory.free.available_permits(), 100);
    }
}

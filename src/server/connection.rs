//! One connection: which protocol it speaks, how long it may be silent, how it ends.
//!
//! Invariants: a connection that shows no protocol within `first_byte_timeout`, or no request for `idle_timeout`, or not all
//! of its head within `header_read_timeout`, is closed; one that has carried a request is not closed before its answers are
//! out, until the grace is over.
//! Not here: accepting (`server::accept`), what a request means.

use std::future::{Future, pending};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{sleep, timeout};

use crate::metrics::connections::ConnectionEnd;
use crate::peer::{InterimOutlet, Peer};
use crate::server::coalesce::{Coalesced, Coalescing};
use crate::server::frames::FrameMeter;
use crate::server::interim::Interposing;
use crate::server::lifecycle::{Lifecycle, Phase, Work};
use crate::server::request::answer;
use crate::server::transport::{FrameGuard, Guard, HeadGuard, Transport, WRITE_STALL};
use crate::server::{Handler, ServerSettings};

/// How an HTTP/2 connection starts ([RFC 9113 §3.4]).
///
/// [RFC 9113 §3.4]: https://www.rfc-editor.org/rfc/rfc9113#section-3.4
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long an idle connection stays open when the server starts to drain: a request may be on its way on it.
const LINGER: Duration = Duration::from_millis(200);

/// How long a connection that has not carried a request yet stays open when the server starts to drain.
const QUIET: Duration = Duration::from_secs(1);

/// Most of a request's body that may be sent ahead of being read, per request and per connection, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Most of an answer's body that is buffered for a slow reader, per request, in bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// Most streams that a peer may have reset before we have looked at them, and most that we may have reset because
/// of a peer's errors, before the connection is closed (CVE-2023-44487, RUSTSEC-2024-0003).
const MAX_PENDING_RESETS: usize = 20;
const MAX_ERROR_RESETS: usize = 256;

/// Fields that hyper takes beyond the configured number, so that most refusals are ours and say why.
const SPARE_FIELDS: usize = 4;

/// Fields for which hyper needs no memory of its own.
const FIELDS_AT_NO_COST: usize = 100;

/// How often a silent HTTP/2 peer is asked whether it still lives, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Speaks with a peer until either side ends the connection. `entering` brings the stream, with TLS where it is spoken.
pub async fn converse<S, H, E>(work: Arc<Work>, entering: E, peer: Peer, handler: H) -> ConnectionEnd
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
    E: Future<Output = io::Result<S>>,
{
    let settings = work.life().settings();
    let opening = tokio::select! {
        biased;
        opening = timeout(settings.first_byte_timeout, open(entering)) => opening,
        () = drained_for(work.life(), QUIET) => return ConnectionEnd::Dropped,
        () = work.asked_to_go() => return ConnectionEnd::MadeRoom,
    };
    let outlet = InterimOutlet::default();
    let service = service_fn({
        let (work, outlet) = (Arc::clone(&work), outlet.clone());
        move |request: Request<Incoming>| {
            // "A server MUST NOT send a 1xx response to an HTTP/1.0 client" (RFC 9110 §15.2).
            let interim = (request.version() == Version::HTTP_11).then(|| outlet.open());
            answer(Arc::clone(&work), handler.clone(), request, Peer { interim, ..peer.clone() })
        }
    });
    match opening {
        Err(_elapsed) => ConnectionEnd::FirstByteTimeout,
        Ok(Err(end)) => end,
        Ok(Ok((_, Opening::Silence))) => ConnectionEnd::Closed,
        Ok(Ok((stream, Opening::Http1(replay)))) => {
            let guard = Guard::Head(HeadGuard::new(Arc::clone(&work), settings.header_read_timeout));
            let io = TokioIo::new(Interposing::new(Transport::new(stream, replay, guard), outlet));
            let connection = http1_builder(settings).serve_connection(io, service);
            conduct(connection, &work, pending()).await
        }
        Ok(Ok((stream, Opening::Http2(replay)))) => {
            let guard = FrameGuard::new(
                FrameMeter::new(settings.max_resets_per_second, settings.max_concurrent_streams),
                Arc::clone(&work),
                PREFACE.len(),
            );
            let stream = Coalesced::new(Transport::new(stream, replay, Guard::Frames(guard)));
            let io = TokioIo::new(stream.clone());
            let connection = http2_builder(settings).serve_connection(io, service);
            let connection = Coalescing::new(connection, stream);
            tokio::select! {
                biased;
                end = conduct(connection, &work, idled(&work)) => end,
                () = stalled(&work) => ConnectionEnd::Stalled,
            }
        }
    }
}

/// Brings a stream and reads what it begins with.
async fn open<S: AsyncRead + Unpin>(
    entering: impl Future<Output = io::Result<S>>,
) -> Result<(S, Opening), ConnectionEnd> {
    let mut stream = entering.await.map_err(|error| {
        tracing::debug!(%error, "TLS did not come about");
        ConnectionEnd::TlsFailed
    })?;
    let opening = read_opening(&mut stream).await.map_err(|_broken| ConnectionEnd::Broken)?;
    Ok((stream, opening))
}

/// What a connection's first bytes show; they are in it.
#[derive(Debug, PartialEq, Eq)]
enum Opening {
    Silence,
    Http1(Bytes),
    Http2(Bytes),
}

/// Reads until the protocol is known: at most a preface's length.
async fn read_opening<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Opening> {
    let mut read = BytesMut::with_capacity(PREFACE.len());
    let mut most = stream.take(u64::try_from(PREFACE.len()).unwrap_or(u64::MAX));
    loop {
        let count = most.read_buf(&mut read).await?;
        if read.is_empty() {
            return Ok(Opening::Silence);
        }
        if read == PREFACE {
            return Ok(Opening::Http2(read.freeze()));
        }
        // The end of the stream within a preface is for the HTTP/1.1 parser to refuse.
        if count == 0 || !PREFACE.starts_with(&read) {
            return Ok(Opening::Http1(read.freeze()));
        }
    }
}

fn http1_builder(settings: &ServerSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // A client that has shut down its sending side after the request still waits for the answer. Aggregating
    // flushes stays off: it withholds a finished answer behind a half-sent request.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.idle_timeout)
        .keep_alive(true)
        .half_close(true)
        .max_header_size(settings.max_header_bytes);
    let fields = settings.max_header_count.saturating_add(SPARE_FIELDS);
    if fields > FIELDS_AT_NO_COST {
        builder.max_headers(fields);
    }
    builder
}

fn http2_builder(settings: &ServerSettings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_header_list_size(u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A connection in either protocol: a future that ends with it, and that can be told to come to an end.
pub trait Conversation: Future<Output = Result<(), hyper::Error>> {
    /// Asks for no further requests; those in work are finished.
    fn finish(self: Pin<&mut Self>);

    /// Comes to an end without losing a request that is on its way.
    fn retire(self: Pin<&mut Self>);
}

impl<C: GracefulConnection<Error = hyper::Error>> Conversation for C {
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }

    fn retire(self: Pin<&mut Self>) {
        // Over HTTP/1.1 the next answer says `Connection: close`. Ending it here could cross with a request.
    }
}

/// What is still to be done when the server drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// Wait a moment, then finish.
    Linger,
    /// Finished: wait for a first request a little longer.
    Quiet,
    /// Nothing: the requests in work decide.
    Said,
}

/// What a conversation has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    /// The server drains.
    Drained,
    /// No request has come for too long.
    Idle,
    /// It is too old.
    Aged,
    /// Its peer does not let an answer go out.
    Stalled,
    /// It was told to finish, has nothing in work, and goes on.
    Overdue,
    /// Its place is needed.
    AskedToGo,
}

/// Carries a conversation to its end. When `idle` resolves, it is too old, an answer stalls, or the server drains, it is told to
/// finish, and left when it does not; when its place is needed, an idle one is left at once.
async fn conduct<C: Conversation>(
    connection: C,
    work: &Work,
    idle: impl Future<Output = ()>,
) -> ConnectionEnd {
    let mut connection = pin!(connection);
    let mut farewell = Farewell::Linger;
    let mut regular = ConnectionEnd::Closed;
    let (mut idle, mut aged, mut stalled) = (pin!(idle), pin!(aged(work)), pin!(stalled(work)));
    let mut drained = pin!(drained_for(work.life(), LINGER));
    let mut overdue: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(pending());
    loop {
        let notice = tokio::select! {
            biased;
            ended = &mut connection => return work.end().unwrap_or_else(|| end_of(ended, regular)),
            () = &mut drained, if farewell != Farewell::Said => Notice::Drained,
            () = &mut idle, if regular == ConnectionEnd::Closed => Notice::Idle,
            () = &mut aged, if !work.is_retiring() => Notice::Aged,
            () = &mut stalled => Notice::Stalled,
            () = &mut overdue => Notice::Overdue,
            () = work.asked_to_go() => Notice::AskedToGo,
        };
        match notice {
            Notice::Drained if farewell == Farewell::Linger => {
                connection.as_mut().finish();
                drained.set(drained_for(work.life(), QUIET.saturating_sub(LINGER)));
                farewell = Farewell::Quiet;
            }
            Notice::Drained if work.started() == 0 => return ConnectionEnd::Dropped,
            Notice::Drained => farewell = Farewell::Said,
            Notice::Idle | Notice::Aged | Notice::Stalled if regular == ConnectionEnd::Stalled => {
                return regular;
            }
            Notice::Idle | Notice::Stalled => {
                regular =
                    if notice == Notice::Idle { ConnectionEnd::IdleTimeout } else { ConnectionEnd::Stalled };
                connection.as_mut().finish();
                overdue = Box::pin(sleep(WRITE_STALL));
                stalled.set(self::stalled(work));
            }
            Notice::Aged => {
                work.retire();
                connection.as_mut().retire();
                overdue = Box::pin(sleep(WRITE_STALL));
            }
            Notice::Overdue if work.is_idle() && work.started() > 0 && regular != ConnectionEnd::Closed => {
                return regular;
            }
            Notice::Overdue => overdue = Box::pin(sleep(WRITE_STALL)),
            Notice::AskedToGo if work.may_go() => return ConnectionEnd::MadeRoom,
            // A request came in between.
            Notice::AskedToGo => work.stay(),
        }
    }
}

/// Waits until the peer has not let one of its answers go on for [`WRITE_STALL`] at least.
async fn stalled(work: &Work) {
    loop {
        sleep(WRITE_STALL).await;
        if work.stalls().advance() {
            return;
        }
    }
}

/// Waits until a connection is too old, give or take a tenth, so that those that began together do not end together.
async fn aged(work: &Work) {
    let most = work.life().settings().max_age;
    if most.is_zero() {
        return pending().await;
    }
    // Each hash state differs from the last one.
    let random = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default();
    sleep(most.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX))).await;
}

/// Returns how a connection ended; `regular` is how if nothing went wrong.
fn end_of(ended: Result<(), hyper::Error>, regular: ConnectionEnd) -> ConnectionEnd {
    match ended {
        Ok(()) => regular,
        // hyper's own clock runs for as long as a connection may idle.
        Err(error) if error.is_timeout() => ConnectionEnd::IdleTimeout,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "connection broken");
            ConnectionEnd::Broken
        }
    }
}

/// Waits until the server has been draining for `duration` since it began, or since now if that is later.
async fn drained_for(life: &Lifecycle, duration: Duration) {
    life.reached(Phase::Draining).await;
    sleep(duration).await;
}

/// Waits until no request has been in work, and none begun, for at least `idle_timeout`: what the HTTP/1.1
/// builder does by itself.
async fn idled(work: &Work) {
    loop {
        let started = work.started();
        let was_idle = work.is_idle();
        sleep(work.life().settings().idle_timeout).await;
        if was_idle && work.is_idle() && work.started() == started {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opening(bytes: &[u8]) -> Opening {
        let mut stream = bytes;
        read_opening(&mut stream).await.unwrap()
    }

    #[tokio::test]
    async fn the_first_bytes_choose_the_protocol() {
        let http2 = [PREFACE, b"and frames"].concat();
        assert_eq!(opening(&http2).await, Opening::Http2(Bytes::from_static(PREFACE)));
        for start in
            ["GET / HTTP/1.1\r\n", "POST /", "PUT /", "PRI / HTTP/1.1\r\n\r\n", "P", "PRI * HTTP/2.0\r\n"]
        {
            let Opening::Http1(replay) = opening(start.as_bytes()).await else { panic!("{start}") };
            assert!(start.as_bytes().starts_with(&replay));
        }
        assert_eq!(opening(b"").await, Opening::Silence);
    }
}

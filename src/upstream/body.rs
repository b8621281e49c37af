//! Watches the two bodies of an exchange: that neither stands still, breaks off unseen or outlives the exchange.
//!
//! [`Upload`] tells how far the request's body has come, because the clock for the answer starts when all of it was
//! handed over. [`Download`] bounds the pauses in the answer's body. [`measure`] reads a body of unknown length ahead.
//!
//! Invariants: a body that timed out or broke ends in an error, so that nobody takes what came for the whole; trailers go
//! neither way.
//! Not here: what is done about it (`upstream`, `proxy`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Version;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, timeout};

use crate::upstream::error::{TimeoutPhase, UpstreamError};
use crate::upstream::lanes::Berth;
use crate::upstream::{BoxError, OutgoingBody};

/// Up to this much of a request body of unknown length is read before it is sent.
const MAX_READ_AHEAD: usize = 1024 * 1024;

/// The request's body stood still for `upstream.idle_timeout`.
#[derive(Debug, Clone, Copy, Error)]
#[error("the request's body stood still")]
pub struct RequestBodyStalled;

/// How far a request's body has come.
#[derive(Debug, Clone)]
pub enum UploadStage {
    /// The connection has what there was, and has not asked for more.
    Taken,
    /// The connection waits for the client.
    Awaited,
    /// All of it was handed over.
    Complete,
    /// It ended in an error.
    Failed(UpstreamError),
}

impl UploadStage {
    /// Returns what to report when an exchange took too long in all. Where the client owes the rest of its request, that is its
    /// own doing, and upstream, which has not got it whole, has done nothing.
    pub fn expired(&self) -> UpstreamError {
        match self {
            Self::Awaited => UpstreamError::request_body(RequestBodyStalled),
            Self::Taken | Self::Complete | Self::Failed(_) => {
                UpstreamError::Timeout { phase: TimeoutPhase::WholeExchange }
            }
        }
    }

    /// Returns what to report when an exchange stood still in this stage.
    pub fn stalled(self) -> UpstreamError {
        match self {
            Self::Taken => UpstreamError::Timeout { phase: TimeoutPhase::IdleRequestBody },
            Self::Awaited => UpstreamError::request_body(RequestBodyStalled),
            Self::Complete => UpstreamError::Timeout { phase: TimeoutPhase::FirstByte },
            Self::Failed(error) => error,
        }
    }
}

/// The body of a request, telling how far it has come.
#[derive(Debug)]
pub struct Upload {
    body: OutgoingBody,
    stage: watch::Sender<UploadStage>,
    /// Bounds what is still sent after an early answer; none where there is no body.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    /// Watches `body` for at most `total`.
    pub fn new(body: OutgoingBody, stage: watch::Sender<UploadStage>, total: Duration) -> Self {
        let deadline = if body.is_end_stream() {
            stage.send_replace(UploadStage::Complete);
            None
        } else {
            Some(Box::pin(sleep(total)))
        };
        Self { body, stage, deadline }
    }

    fn fail(&self, error: UpstreamError) -> BoxError {
        self.stage.send_replace(UploadStage::Failed(error.clone()));
        Box::new(error)
    }

    /// Notes that the connection waits for the client, once per wait.
    fn note_waiting(&self) {
        self.stage.send_if_modified(|stage| {
            let is_news = matches!(stage, UploadStage::Taken);
            if is_news {
                *stage = UploadStage::Awaited;
            }
            is_news
        });
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if has_passed(self.deadline.as_mut(), context) {
            let expired = self.stage.borrow().expired();
            return Poll::Ready(Some(Err(self.fail(expired))));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending => {
                self.note_waiting();
                Poll::Pending
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(self.fail(UpstreamError::request_body(error)))))
            }
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                let is_last = self.body.is_end_stream();
                self.stage.send_replace(if is_last { UploadStage::Complete } else { UploadStage::Taken });
                Poll::Ready(Some(Ok(frame)))
            }
            // Trailers end a body. Nobody has looked through their fields, so they go no further.
            Poll::Ready(Some(Ok(_)) | None) => {
                self.stage.send_replace(UploadStage::Complete);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    /// A connection that lets go of a body wants no more of it: it has `Content-Length` bytes, or is giving up.
    fn drop(&mut self) {
        self.stage.send_if_modified(|stage| {
            let is_open = matches!(stage, UploadStage::Taken | UploadStage::Awaited);
            if is_open {
                *stage = UploadStage::Complete;
            }
            is_open
        });
    }
}

/// A stream of HTTP/2 that was reset without an error, and without having ended. hyper takes it for one that has ended.
#[derive(Debug, Clone, Copy, Error)]
#[error("the stream was reset before its end")]
pub struct ResetBeforeEnd;

/// The body of a request over HTTP/2, which ends only where its stream does.
///
/// Where its length is told, the last of it is held back until then: "a request … is also malformed if the value of a
/// content-length header field does not equal the sum of the DATA frame payload lengths", and must not be forwarded (RFC 9113
/// §8.1.1).
#[derive(Debug)]
pub struct Ended {
    body: OutgoingBody,
    last: Option<Bytes>,
}

impl Ended {
    /// Watches how `body` ends.
    pub fn new(body: OutgoingBody) -> Self {
        Self { body, last: None }
    }

    /// Returns whether all that was announced is there, and the stream has not ended.
    fn is_open_though_complete(&self) -> bool {
        self.body.size_hint().exact() == Some(0) && !self.body.is_end_stream()
    }
}

impl Body for Ended {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None if !self.body.is_end_stream() => {
                    return Poll::Ready(Some(Err(Box::new(ResetBeforeEnd))));
                }
                None => return Poll::Ready(self.last.take().map(|last| Ok(Frame::data(last)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    // One that is empty adds nothing, and may come any number of times.
                    Ok(data) if data.is_empty() => {}
                    Ok(data) if self.is_open_though_complete() => self.last = Some(data),
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    // Trailers go no further.
                    Err(_trailers) => {}
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.last {
            Some(last) => SizeHint::with_exact(last.len() as u64),
            None => self.body.size_hint(),
        }
    }
}

/// The body of an answer, bounded in its pauses and its end.
#[derive(Debug)]
pub struct Download {
    /// Dropped with the first error: that closes the connection, or resets the stream.
    body: Option<Incoming>,
    version: Version,
    idle: Duration,
    pause: Option<Pin<Box<Sleep>>>,
    deadline: Pin<Box<Sleep>>,
    /// The exchange's place, which is free again when the body is gone.
    berth: Option<Berth>,
}

impl Download {
    /// Watches `body`, which comes by this version, until the exchange's `deadline`; no pause may be longer than `idle`.
    pub fn new((version, body): (Version, Incoming), idle: Duration, deadline: Pin<Box<Sleep>>) -> Self {
        Self { body: Some(body), version, idle, pause: None, deadline, berth: None }
    }

    /// Keeps the exchange's place until the end.
    #[must_use]
    pub fn aboard(self, berth: Berth) -> Self {
        Self { berth: Some(berth), ..self }
    }

    fn fail(&mut self, error: UpstreamError) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        self.body = None;
        self.berth = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let this = &mut *self;
        let Some(body) = this.body.as_mut() else { return Poll::Ready(None) };
        if has_passed(Some(&mut this.deadline), context) {
            return this.fail(UpstreamError::Timeout { phase: TimeoutPhase::WholeExchange });
        }
        let polled = Pin::new(body).poll_frame(context);
        if polled.is_pending() {
            let idle = this.idle;
            let pause = this.pause.get_or_insert_with(|| Box::pin(sleep(idle)));
            if has_passed(Some(pause), context) {
                return this.fail(UpstreamError::Timeout { phase: TimeoutPhase::IdleBody });
            }
            return Poll::Pending;
        }
        this.pause = None;
        match polled {
            Poll::Ready(Some(Err(error))) => this.fail(UpstreamError::broken(error)),
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                this.body = None;
                Poll::Ready(None)
            }
            Poll::Ready(None) if this.version == Version::HTTP_2 && !this.is_end_stream() => {
                this.fail(UpstreamError::broken(ResetBeforeEnd))
            }
            other => other.map_err(UpstreamError::broken),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

fn has_passed(deadline: Option<&mut Pin<Box<Sleep>>>, context: &mut Context<'_>) -> bool {
    deadline.is_some_and(|deadline| deadline.as_mut().poll(context).is_ready())
}

/// Reads up to 1 MiB of a body ahead: a shorter one then has a known length, a longer one streams on from there.
///
/// Sentry behind uwsgi answers 200 to a chunked PUT and changes nothing.
///
/// # Errors
///
/// When the body breaks off, or stands still for `idle`.
pub async fn measure(mut body: OutgoingBody, idle: Duration) -> Result<OutgoingBody, UpstreamError> {
    // In one piece: the pieces that come may be of a byte each.
    let mut held = BytesMut::new();
    while held.len() <= MAX_READ_AHEAD {
        let frame = timeout(idle, body.frame())
            .await
            .map_err(|_elapsed| UpstreamError::request_body(RequestBodyStalled))?
            .transpose()
            .map_err(UpstreamError::request_body)?;
        let Some(frame) = frame else { return Ok(whole(held.freeze())) };
        // Trailers have no place beside `Content-Length` and are let go.
        if let Ok(data) = frame.into_data() {
            held.extend_from_slice(&data);
        }
    }
    Ok(Resumed { held: Some(held.freeze()), rest: body }.boxed_unsync())
}

fn whole(bytes: Bytes) -> OutgoingBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body whose beginning was read ahead.
struct Resumed {
    held: Option<Bytes>,
    rest: OutgoingBody,
}

impl Body for Resumed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.held.take() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.rest.is_end_stream()
    }
}

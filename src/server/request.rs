//! One request: its handler's answer, or ours if that fails.
//!
//! Invariants: there is always an answer: a panic becomes a 500 for this request alone, and the end of the grace
//! a 503. A request counts as in work until its answer's body is out of our hands.
//! Not here: what the request means.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::peer::{InterimTicket, Peer};
use crate::server::lifecycle::{Phase, Ticket, Work};
use crate::server::stalls::Progress;
use crate::server::{Failure, Handler};

/// Answers one request.
pub async fn answer<H: Handler>(
    work: Arc<Work>,
    handler: H,
    request: Request<Incoming>,
    peer: Peer,
) -> Result<Response<Reply<H::Body>>, Infallible> {
    let ticket = Ticket::take(Arc::clone(&work));
    let is_head = request.method() == Method::HEAD;
    let version = request.version();
    let interim = peer.interim.clone();
    let life = work.life();
    let attempt = if life.phase() == Phase::Over {
        Err(Failure::ShuttingDown)
    } else {
        // The handler comes first: an answer that is ready is given, whatever the hour.
        tokio::select! {
            biased;
            attempt = caught(async move { handler.answer(request, peer).await }) => attempt,
            () = life.reached(Phase::Over) => Err(Failure::ShuttingDown),
            never = woken_by(interim.as_ref()) => match never {},
        }
    };
    if let Some(interim) = interim {
        interim.close();
    }
    let mut response = match attempt {
        Ok(response) => {
            // Over HTTP/1.1 it is the connection's writes that are watched.
            let progress = (version == Version::HTTP_2).then(|| Progress::begin(Arc::clone(work.stalls())));
            response.map(|body| Reply { content: Content::Answer(body), ticket: Some(ticket), progress })
        }
        Err(failure) => {
            note(&work, failure);
            let response = (life.settings().render_failure)(failure);
            response.map(|body| Reply { content: Content::Failure(body), ticket: None, progress: None })
        }
    };
    if is_head {
        response = without_body(response);
    }
    // hyper says so itself for requests that start after the connection was told; this one may have come before.
    if version <= Version::HTTP_11 && (work.is_retiring() || Phase::Draining <= life.phase()) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Has the connection woken for each interim response; it writes what waits whenever it is.
async fn woken_by(interim: Option<&InterimTicket>) -> Infallible {
    poll_fn(|context| {
        if let Some(interim) = interim {
            interim.register(context.waker());
        }
        Poll::Pending
    })
    .await
}

/// Awaits `future`; a panic in it becomes a failure.
async fn caught<F: Future>(future: F) -> Result<F::Output, Failure> {
    let mut future = pin!(future);
    // A future that panicked is not polled again, so nobody sees what it left half done but what it shared, and
    // that is behind locks that know of poisoning.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(_payload) => Poll::Ready(Err(Failure::Panicked)),
    })
    .await
}

fn note(work: &Work, failure: Failure) {
    match failure {
        Failure::Panicked => {
            work.life().metrics().panicked();
            tracing::error!("a request's work panicked");
        }
        Failure::ShuttingDown => work.life().refuse(),
    }
}

/// Takes the body off an answer to `HEAD`; its length stays told where it is known.
fn without_body<B: Body<Data = Bytes> + Unpin>(mut response: Response<Reply<B>>) -> Response<Reply<B>> {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    if let Some(length) = length
        && !response.headers().contains_key(header::TRANSFER_ENCODING)
    {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    response.map(|reply| Reply { content: Content::Nothing, ticket: reply.ticket, progress: reply.progress })
}

/// The body of an answer, and with it the request's place in the count.
#[derive(Debug)]
pub struct Reply<B> {
    content: Content<B>,
    /// None for an answer of ours, which needs no more work.
    ticket: Option<Ticket>,
    /// How it goes out, where its peer could hold it.
    progress: Option<Progress>,
}

#[derive(Debug)]
enum Content<B> {
    Answer(B),
    Failure(Full<Bytes>),
    Nothing,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Reply<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let poll = match &mut this.content {
            Content::Answer(body) => Pin::new(body).poll_frame(context),
            Content::Failure(body) => {
                let poll = Pin::new(body).poll_frame(context);
                poll.map(|frame| frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Content::Nothing => Poll::Ready(None),
        };
        if let Some(progress) = &mut this.progress {
            if poll.is_pending() { progress.wait() } else { progress.go_on() }
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Answer(body) => body.is_end_stream(),
            Content::Failure(body) => body.is_end_stream(),
            Content::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Answer(body) => body.size_hint(),
            Content::Failure(body) => body.size_hint(),
            Content::Nothing => SizeHint::with_exact(0),
        }
    }
}

//! Takes gzip off a body as it comes, for a client that does not take gzip.
//!
//! What is stored is decoded whole (`cache::body`); this is for answers that pass to one client alone.
//!
//! Invariants: little is decoded at a time, however much it grows; a body that is cut or broken ends in an error.
//! Not here: who needs it (`proxy::reply`).

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http_body::{Body, Frame};

use crate::upstream::IncomingBody;
use crate::upstream::error::UpstreamError;

/// Most bytes that are decoded at a time; they grow a thousandfold at worst.
const STEP: usize = 1024;

/// A body that loses its gzip coding as it comes.
#[derive(Debug)]
pub struct Decoding {
    /// What has come and is still coded.
    waiting: Bytes,
    /// What has not come yet; none after its end.
    rest: Option<IncomingBody>,
    decoder: MultiGzDecoder<Vec<u8>>,
    has_begun: bool,
}

impl Decoding {
    /// Decodes what was read of a body already, then the rest of it.
    pub fn new(read: Option<Bytes>, rest: IncomingBody) -> Self {
        let decoder = MultiGzDecoder::new(Vec::new());
        Self { waiting: read.unwrap_or_default(), rest: Some(rest), decoder, has_begun: false }
    }

    /// Decodes a little of what waits.
    fn step(&mut self) -> io::Result<Bytes> {
        let step = self.waiting.split_to(STEP.min(self.waiting.len()));
        self.has_begun = true;
        self.decoder.write_all(&step)?;
        self.decoder.flush()?;
        Ok(self.take_decoded())
    }

    /// Checks that the body was whole.
    fn finish(&mut self) -> io::Result<Bytes> {
        if self.has_begun {
            self.decoder.try_finish()?;
        }
        Ok(self.take_decoded())
    }

    fn take_decoded(&mut self) -> Bytes {
        std::mem::take(self.decoder.get_mut()).into()
    }

    fn fail(&mut self, error: UpstreamError) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        self.waiting.clear();
        self.rest = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for Decoding {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        loop {
            let decoded = if self.waiting.is_empty() {
                let Some(rest) = self.rest.as_mut() else { return Poll::Ready(None) };
                match ready!(Pin::new(rest).poll_frame(context)) {
                    Some(Ok(frame)) => {
                        self.waiting = frame.into_data().unwrap_or_default();
                        continue;
                    }
                    Some(Err(error)) => return self.fail(error),
                    None => {
                        self.rest = None;
                        self.finish()
                    }
                }
            } else {
                self.step()
            };
            match decoded {
                Ok(decoded) if decoded.is_empty() => {}
                Ok(decoded) => return Poll::Ready(Some(Ok(Frame::data(decoded)))),
                Err(error) => return self.fail(UpstreamError::broken(error)),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_empty() && self.rest.is_none()
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoding(read: &[u8], rest: &[u8]) -> Decoding {
        let rest = Full::new(Bytes::copy_from_slice(rest)).map_err(|never| match never {}).boxed_unsync();
        Decoding::new(Some(Bytes::copy_from_slice(read)), rest)
    }

    async fn collected(body: Decoding) -> Option<Bytes> {
        body.collect().await.ok().map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn a_body_comes_out_as_it_was_before_it_was_coded() {
        let text = "0123456789".repeat(10_000);
        let coded = gzip(text.as_bytes());
        for cut in [0, 1, 5, coded.len() / 2, coded.len()] {
            let (read, rest) = coded.split_at(cut);
            assert_eq!(collected(decoding(read, rest)).await.unwrap(), text, "{cut}");
        }
    }

    #[tokio::test]
    async fn members_one_after_the_other_are_one_body() {
        assert_eq!(collected(decoding(&gzip(b"[1,"), &gzip(b"2]"))).await.unwrap(), "[1,2]");
    }

    #[tokio::test]
    async fn an_empty_body_stays_empty() {
        assert_eq!(collected(decoding(b"", b"")).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_cut_or_broken_body_is_an_error() {
        let coded = gzip(b"some text that is long enough to be cut");
        for cut in [3, 15, coded.len() - 4] {
            assert_eq!(collected(decoding(&coded[..cut], b"")).await, None, "{cut}");
        }
        assert_eq!(collected(decoding(b"no gzip at all", b"")).await, None);
    }
}

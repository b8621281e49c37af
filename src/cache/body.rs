//! The body of a stored response: its bytes in one or two content codings, and where the public base goes.
//!
//! Upstream is asked for `gzip` or `identity`. What came is kept; the other coding is made once, when a client
//! first needs it. A body with splice points is kept as identity alone, since the base is put in at send time.
//!
//! Invariants: decoding is bounded, whatever the body claims; the bytes are an allocation of their own.
//! Not here: finding splice points (`links::region_urls`), fields (`cache::stored_response`).

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use crate::links::region_urls::{self, Splice};

/// A content coding that the cache can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Identity,
    /// `gzip`.
    Gzip,
}

/// A complete body.
#[derive(Debug, Clone)]
pub struct StoredBody {
    original: Coding,
    identity: Option<Bytes>,
    gzip: Option<Bytes>,
    splices: Box<[Splice]>,
}

/// A gzip body that cannot be decoded within its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("could not decode a gzip body within {limit} bytes")]
pub struct Undecodable {
    limit: usize,
}

impl StoredBody {
    /// Keeps a body that came as it is.
    pub fn identity(bytes: Bytes) -> Self {
        Self { original: Coding::Identity, identity: Some(bytes), gzip: None, splices: Box::default() }
    }

    /// Keeps a body that came as gzip.
    pub fn gzip(bytes: Bytes) -> Self {
        Self { original: Coding::Gzip, identity: None, gzip: Some(bytes), splices: Box::default() }
    }

    /// Keeps a body that came as gzip, with its bytes as they are beside it.
    pub fn both(gzip: Bytes, identity: Bytes) -> Self {
        Self { original: Coding::Gzip, identity: Some(identity), gzip: Some(gzip), splices: Box::default() }
    }

    /// Keeps a body that has places where the public base goes, as identity.
    pub fn spliced(bytes: Bytes, splices: Vec<Splice>) -> Self {
        Self {
            original: Coding::Identity,
            identity: Some(bytes),
            gzip: None,
            splices: splices.into_boxed_slice(),
        }
    }

    /// Returns the bytes that came from upstream.
    pub fn original(&self) -> &[u8] {
        let bytes = match self.original {
            Coding::Identity => &self.identity,
            Coding::Gzip => &self.gzip,
        };
        bytes.as_deref().unwrap_or_default()
    }

    /// Returns the coding in which the body came.
    pub fn original_coding(&self) -> Coding {
        self.original
    }

    /// Returns whether the body differs by public base.
    pub fn has_splices(&self) -> bool {
        !self.splices.is_empty()
    }

    /// Returns the coding in which a client gets the body.
    pub fn coding_for(&self, accepts_gzip: AcceptsGzip) -> Coding {
        match (accepts_gzip, &self.gzip) {
            (AcceptsGzip::Yes, Some(_)) => Coding::Gzip,
            (AcceptsGzip::Yes, None) | (AcceptsGzip::No, _) => Coding::Identity,
        }
    }

    /// Returns the bytes in a coding, if they are at hand, with the public base put in.
    pub fn bytes(&self, coding: Coding, base: &str) -> Option<Bytes> {
        match coding {
            Coding::Gzip => self.gzip.clone(),
            Coding::Identity if self.has_splices() => {
                let bytes = self.identity.as_ref()?;
                Some(Bytes::from(region_urls::apply(bytes, &self.splices, base)))
            }
            Coding::Identity => self.identity.clone(),
        }
    }

    /// Returns the same body with its identity bytes at hand too.
    ///
    /// # Errors
    /// When the gzip bytes are broken or grow beyond `limit` bytes.
    pub fn decoded(&self, limit: usize) -> Result<Self, Undecodable> {
        let Some(gzip) = self.gzip.as_ref().filter(|_| self.identity.is_none()) else {
            return Ok(self.clone());
        };
        Ok(Self { identity: Some(decode(gzip, limit)?), ..self.clone() })
    }

    /// Returns the bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.identity.as_ref().map_or(0, Bytes::len)
            + self.gzip.as_ref().map_or(0, Bytes::len)
            + self.splices.len() * size_of::<Splice>()
    }
}

/// Whether a client takes gzip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptsGzip {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// Decodes gzip.
///
/// # Errors
/// When the bytes are broken or grow beyond `limit` bytes.
pub fn decode(gzip: &[u8], limit: usize) -> Result<Bytes, Undecodable> {
    let undecodable = Undecodable { limit };
    let mut decoded = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(gzip).take(bound).read_to_end(&mut decoded).map_err(|_| undecodable)?;
    if decoded.len() > limit { Err(undecodable) } else { Ok(Bytes::from(decoded.into_boxed_slice())) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        Bytes::from(encoder.finish().unwrap())
    }

    #[test]
    fn a_gzip_body_is_decoded_for_who_needs_it_and_kept_for_who_does_not() {
        let body = StoredBody::gzip(gzip(b"[1,2,3]"));
        assert_eq!(body.coding_for(AcceptsGzip::Yes), Coding::Gzip);
        assert_eq!(body.bytes(Coding::Identity, ""), None);
        let both = body.decoded(100).unwrap();
        assert_eq!(both.bytes(Coding::Identity, "").unwrap(), "[1,2,3]");
        assert_eq!(both.bytes(Coding::Gzip, ""), body.bytes(Coding::Gzip, ""));
        assert!(both.heap_bytes() > body.heap_bytes());
    }

    #[test]
    fn a_bomb_is_not_decoded_beyond_its_limit() {
        let bomb = gzip(&vec![0; 1_000_000]);
        assert_eq!(decode(&bomb, 999_999), Err(Undecodable { limit: 999_999 }));
        assert_eq!(decode(&bomb, 1_000_000).unwrap().len(), 1_000_000);
    }

    #[test]
    fn a_broken_or_cut_gzip_body_is_an_error() {
        let whole = gzip(b"some text that is long enough to be cut");
        assert!(decode(&whole[..whole.len() - 5], 1_000).is_err());
        assert!(decode(b"no gzip at all", 1_000).is_err());
    }
}

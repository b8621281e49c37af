//! The cache: the vocabulary of RFC 9111, and which file owns each word.
//!
//! | Word | Means | Owner |
//! |---|---|---|
//! | stored response | what the cache keeps | [`stored_response`], its bytes in [`body`] |
//! | cache key, primary key, variant | under what it is kept (RFC 9111 §2, §4.1) | [`key`] |
//! | directive | what `Cache-Control` says (§5.2) | [`directives`] |
//! | private cache, shared cache | which rules a partition obeys | [`policy`] |
//! | storable | may be kept (§3) | [`storing`] |
//! | freshness lifetime, stale window | how long it may be reused (§4.2.1, §4.2.4) | [`terms`] |
//! | fresh, stale, current age | may be reused now (§4.2) | [`freshness`] |
//! | validator, revalidate, freshen | ask again, conditionally (§4.3) | [`stored_response`] |
//! | precondition, range | what a client asks of a response at hand (§4.3.2) | [`conditions`] |
//! | invalidate | make unusable, because of a write (§4.4) | [`invalidation`] |
//! | purge | make stale, or unusable for good: by an operator, or by a webhook | [`generations`], [`invalidation::selector`] |
//! | generation, stamp, tag | how an invalidation reaches what is stored | [`generations`] |
//! | look up, evict | find; make room | [`store`] |
//! | collapse, flight, passenger | one forward for many requests (§4) | [`single_flight`] |
//!
//! The rooms above [`store`] are pure: no I/O, no clock. None of them knows how upstream is asked.

pub mod body;
pub mod conditions;
pub mod directives;
pub mod freshness;
pub mod generations;
pub mod invalidation;
pub mod key;
pub mod policy;
pub mod single_flight;
pub mod store;
pub mod stored_response;
pub mod storing;
pub mod terms;

//! What the tests share: the built binary as a child, a small HTTP client.

pub(crate) mod binary;
pub(crate) mod http;

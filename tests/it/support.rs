//! What the tests share: the built binary as a child, a small HTTP client, the corridor before a scripted upstream,
//! bytes without a protocol.

pub(crate) mod binary;
pub(crate) mod corridor;
pub(crate) mod dice;
pub(crate) mod frames;
pub(crate) mod http;
pub(crate) mod kept_log;
pub(crate) mod limited;
pub(crate) mod raw;
pub(crate) mod scripted;
pub(crate) mod spans;

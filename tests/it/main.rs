//! Integration tests: one binary, a module per capability.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy knows `#[test]` functions as tests, but not the helpers beside them"
)]

mod collapsing;
mod end_to_end;
mod isolation;
mod passing;
mod presentation;
mod recordings;
mod staleness;
mod storing;
mod support;
mod tidy;
mod trespass;
mod writes;

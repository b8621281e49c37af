//! Integration tests: one binary, a module per capability.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows `#[test]` functions as tests, but not the helpers beside them"
)]

mod end_to_end;
mod support;
mod tidy;

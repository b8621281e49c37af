//! Integration tests: one binary, a module per capability.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy knows `#[test]` functions as tests, but not the helpers beside them"
)]

mod access;
mod collapsing;
mod conditionals;
mod credentials;
mod end_to_end;
mod explaining;
mod hostile;
mod http2_attacks;
mod interim;
mod isolation;
mod lifetimes;
mod log_lines;
mod metrics;
mod model;
mod names;
mod overload;
mod panics;
mod parts;
mod passing;
mod presentation;
mod purging;
mod recordings;
mod regions;
mod shared_cache;
mod shield;
mod sidecars;
mod smuggling;
mod staleness;
mod storing;
mod support;
mod tidy;
mod traces;
mod trespass;
mod writes;

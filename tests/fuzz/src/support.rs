//! What the integration tests have already: the corridor without sockets, an upstream in memory, a log that is kept.
#![expect(dead_code, reason = "the integration tests need more of it")]

#[path = "../../it/support/corridor.rs"]
pub(crate) mod corridor;
#[cfg(test)]
#[path = "../../it/support/dice.rs"]
pub(crate) mod dice;
#[path = "../../it/support/http.rs"]
pub(crate) mod http;
#[path = "../../it/support/kept_log.rs"]
pub(crate) mod kept_log;
#[path = "../../it/support/scripted.rs"]
pub(crate) mod scripted;

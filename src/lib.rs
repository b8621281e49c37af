//! sentrybox: a caching reverse proxy for Sentry's REST API.

pub mod clock;
pub mod config;
pub mod credential;
pub mod handling;

//! How hyper's client is set up: what it keeps, and the bounds that are its own.
//!
//! Invariant: every pool has the same bounds of memory, and the same pings. Not here: connecting (`upstream::connector`), which pool an exchange takes
//! (`upstream`, `upstream::lanes`).

use std::time::Duration;

use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::upstream::body::Upload;
use crate::upstream::connector::Connector;

/// Most bytes of an answer's head, and of what HTTP/1.1 reads ahead of it.
const MAX_HEAD_BYTES: u32 = 256 * 1024;
/// Most fields in the head of an HTTP/1.1 answer.
pub const MAX_FIELDS: usize = 128;
/// Most unused connections kept.
const MAX_IDLE_CONNECTIONS: usize = 64;
/// HTTP/2 windows: one stream whose reader stalls may hold so much, and the connection so many of them, that the
/// others go on.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024 * 1024;
/// How often a silent HTTP/2 connection is asked whether it still lives, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to upstream, and requests on them.
pub type HttpClient = Client<Connector, Upload>;

/// Whether unused connections are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Some are.
    Idle,
    /// Every request dials.
    Nothing,
}

/// Makes a client whose connections may idle for so long.
pub fn client(connector: Connector, idle: Duration, keep: Keep) -> HttpClient {
    // Requests that hyper retries by itself (`retry_canceled_requests`, on by default) were never taken off its
    // queue: not a byte of them was written and their bodies were never polled, so this holds for any method.
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(idle)
        .pool_max_idle_per_host(match keep {
            Keep::Idle => MAX_IDLE_CONNECTIONS,
            Keep::Nothing => 0,
        })
        .http1_max_buf_size(MAX_HEAD_BYTES as usize)
        .http1_max_headers(MAX_FIELDS)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEAD_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(connector)
}

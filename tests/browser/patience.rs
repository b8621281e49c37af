//! Waiting for what must come.

use std::cell::Cell;
use std::fmt::Display;
use std::time::Duration;

use tokio::time;

/// Longest that anything is waited for: far longer than it takes, so that a busy machine changes nothing.
const LIMIT: Duration = Duration::from_secs(30);

/// How long until somebody looks again.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until what is awaited is there, and returns it.
///
/// # Panics
/// When it is not there for too long: says what was missing the last time.
pub(crate) async fn eventually<T, E: Display>(look: impl AsyncFn() -> Result<T, E>) -> T {
    let missing = Cell::new(None);
    let looking = async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(what) => missing.set(Some(what)),
            }
            time::sleep(PAUSE).await;
        }
    };
    let found = time::timeout(LIMIT, looking).await;
    found.unwrap_or_else(|_elapsed| {
        let missing = missing.take().map_or_else(String::new, |what| what.to_string());
        panic!("waited in vain for {missing}")
    })
}

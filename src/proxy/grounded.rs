//! Remembers keys whose answers could not be shared, so that the next callers do not queue up behind each other.
//!
//! Invariants: bounded; a key is forgotten after a minute. Not here: why an answer cannot be shared.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::cache::key::{CacheKey, KeyHashBuilder};

/// How long a key is remembered.
const MEMORY: Duration = Duration::from_mins(1);

/// Most keys remembered; beyond that the oldest knowledge goes, which only costs a flight.
const MOST: usize = 8_192;

/// Keys that are not worth collapsing, until when.
#[derive(Debug, Default)]
pub struct Grounded(Mutex<HashMap<CacheKey, SystemTime, KeyHashBuilder>>);

impl Grounded {
    /// Remembers a key.
    pub fn add(&self, key: CacheKey, now: SystemTime) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= MOST {
            table.retain(|_, until| now < *until);
        }
        if table.len() >= MOST {
            table.clear();
        }
        table.insert(key, now + MEMORY);
    }

    /// Returns whether a key is remembered.
    pub fn holds(&self, key: CacheKey, now: SystemTime) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = table.get(&key) else { return false };
        let is_held = now < *until;
        if !is_held {
            table.remove(&key);
        }
        is_held
    }
}

//! Remembers keys whose answers could not be shared, so that the next callers do not queue up behind each other: what
//! other caches call "hit-for-miss".
//!
//! Invariants: bounded; a key is forgotten after a minute. Not here: why an answer cannot be shared.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::cache::key::{CacheKey, KeyHashBuilder};
use crate::proxy::{Proxy, Target};

/// How long a key is remembered.
const MEMORY: Duration = Duration::from_mins(1);

/// Most keys remembered; beyond that all are forgotten, which only costs a flight each.
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

    /// Forgets every key.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
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

impl Proxy {
    /// Returns whether the last answers to this target could not be shared.
    pub fn is_grounded(&self, target: &Target) -> bool {
        self.grounded().holds(target.primary.key(), self.clock().now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::{KeyHasher, PrimaryKey};
    use crate::testing::{TOKEN, asked, fields, start};

    /// Returns as many keys, all different.
    fn keys(count: usize) -> Vec<CacheKey> {
        let hasher = KeyHasher::new([3; 16]);
        let request = asked("GET /api/0/organizations/", &[TOKEN]);
        let primary = PrimaryKey::of(&request, "sentry.io", &hasher);
        let nominated = [http::HeaderName::from_static("x-a")];
        (0..count)
            .map(|number| primary.variant(&nominated, &fields(&[("x-a", &number.to_string())]), &hasher))
            .collect()
    }

    #[test]
    fn a_key_is_remembered_for_a_minute_and_then_forgotten() {
        let (grounded, keys) = (Grounded::default(), keys(2));
        grounded.add(keys[0], start());
        assert!(grounded.holds(keys[0], start() + MEMORY - Duration::from_millis(1)));
        assert!(!grounded.holds(keys[1], start()));
        assert!(!grounded.holds(keys[0], start() + MEMORY));
        assert!(grounded.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_key_that_is_seen_again_is_remembered_anew() {
        let (grounded, keys) = (Grounded::default(), keys(1));
        grounded.add(keys[0], start());
        grounded.add(keys[0], start() + MEMORY / 2);
        assert!(grounded.holds(keys[0], start() + MEMORY));
    }

    #[test]
    fn the_table_stays_bounded_whatever_is_remembered() {
        let (grounded, keys) = (Grounded::default(), keys(2 * MOST + 1));
        for key in &keys {
            grounded.add(*key, start());
            assert!(grounded.0.lock().unwrap().len() <= MOST);
            assert!(grounded.holds(*key, start()));
        }
    }

    #[test]
    fn what_is_over_goes_first() {
        let (grounded, keys) = (Grounded::default(), keys(MOST + 1));
        let (first, rest) = keys.split_first().unwrap();
        grounded.add(*first, start() + MEMORY);
        rest.iter().skip(1).for_each(|key| grounded.add(*key, start()));
        grounded.add(rest[0], start() + MEMORY);
        assert!(grounded.holds(*first, start() + MEMORY));
        assert_eq!(grounded.0.lock().unwrap().len(), 2);
    }
}

//! Collapses concurrent forwards into one: everyone is a passenger.
//!
//! A flight is a task of its own; whoever wants its result, the first caller too, holds a [`Seat`]. There is no
//! leader and nothing is handed over: a caller who leaves cancels nothing, and one who stays cannot be stranded.
//!
//! Invariants: at most one flight per key; a flight leaves the table before it lands, so nobody boards what has
//! landed; a panic lands as [`FlightLost`]. Generic, and imports nothing of ours.
//! Not here: what is fetched, what may be shared, deadlines (each caller has its own).

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

/// The flights in the air, by key.
pub struct Flights<K, V, S> {
    air: Arc<Air<K, V, S>>,
}

/// What is in the air.
struct Air<K, V, S> {
    table: Mutex<HashMap<K, watch::Receiver<Option<V>>, S>>,
    departed: Notify,
}

/// A place on a flight. Dropping it cancels nothing.
#[derive(Debug)]
pub struct Seat<V> {
    landing: watch::Receiver<Option<V>>,
}

/// How a caller came by its seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boarding {
    /// The flight took off for this caller.
    TookOff,
    /// It was in the air already.
    Collapsed,
}

/// A flight that ended without a result: its task panicked or was shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the flight was lost")]
pub struct FlightLost;

impl<K, V, S> Flights<K, V, S>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Default + Send + 'static,
{
    /// Makes an empty table.
    pub fn new() -> Self {
        Self { air: Arc::new(Air { table: Mutex::new(HashMap::default()), departed: Notify::new() }) }
    }

    /// Boards the flight of this key, or lets one take off: `flight` is spawned as a task.
    pub fn join<F>(&self, key: K, flight: impl FnOnce() -> F) -> (Seat<V>, Boarding)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut table = lock(&self.air.table);
        if let Some(landing) = table.get(&key) {
            return (Seat { landing: landing.clone() }, Boarding::Collapsed);
        }
        let (sender, landing) = watch::channel(None);
        table.insert(key.clone(), landing.clone());
        // Made before the task runs, so that the key leaves the table however the task ends.
        let departure = Departure { air: Arc::clone(&self.air), key: Some(key) };
        // Not under the lock: at the end of the runtime a task is dropped at once, and takes its key out.
        drop(table);
        let flight = flight();
        tokio::spawn(async move {
            let departure = departure;
            let value = flight.await;
            drop(departure);
            // Fails only when every passenger has left.
            let _ = sender.send(Some(value));
        });
        (Seat { landing }, Boarding::TookOff)
    }

    /// Returns whether the flight of this key is in the air.
    pub fn is_aloft(&self, key: &K) -> bool {
        lock(&self.air.table).contains_key(key)
    }

    /// Returns how many flights are in the air.
    pub fn len(&self) -> usize {
        lock(&self.air.table).len()
    }

    /// Returns whether no flight is in the air.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until no flight is in the air.
    pub async fn all_landed(&self) {
        loop {
            let departed = self.air.departed.notified();
            if self.is_empty() {
                return;
            }
            departed.await;
        }
    }
}

impl<K, V, S> Default for Flights<K, V, S>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Default + Send + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V, S> fmt::Debug for Flights<K, V, S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Flights").finish_non_exhaustive()
    }
}

impl<V: Clone> Seat<V> {
    /// Waits until the flight has landed. Cancelling the wait is leaving the seat.
    ///
    /// # Errors
    /// [`FlightLost`] when it never will.
    pub async fn landed(mut self) -> Result<V, FlightLost> {
        let landed = self.landing.wait_for(Option::is_some).await.map_err(|_| FlightLost)?;
        landed.clone().ok_or(FlightLost)
    }
}

/// Takes a key out of the table when it is dropped: at the end of the flight, in a panic, at shutdown.
struct Departure<K: Hash + Eq, V, S: BuildHasher> {
    air: Arc<Air<K, V, S>>,
    key: Option<K>,
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Departure<K, V, S> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            lock(&self.air.table).remove(&key);
            self.air.departed.notify_waiters();
        }
    }
}

/// Locks the table. No code of ours can panic while holding it; a poisoned table is as good as any.
fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    fn flights() -> Flights<u8, usize, RandomState> {
        Flights::new()
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_callers_share_one_flight() {
        let flights = flights();
        let started = Arc::new(AtomicUsize::new(0));
        let seats: Vec<_> = (0..1_000)
            .map(|_| {
                let started = Arc::clone(&started);
                flights.join(1, || async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    started.fetch_add(1, Ordering::Relaxed) + 7
                })
            })
            .collect();
        assert_eq!(seats.iter().filter(|(_, boarding)| *boarding == Boarding::TookOff).count(), 1);
        for (seat, _) in seats {
            assert_eq!(seat.landed().await, Ok(7));
        }
        assert!(flights.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_caller_who_leaves_cancels_nothing() {
        let flights = flights();
        let (first, _) = flights.join(1, || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            3
        });
        let (second, boarding) = flights.join(1, || async { unreachable!("one is in the air") });
        drop(first);
        assert_eq!(boarding, Boarding::Collapsed);
        assert!(flights.is_aloft(&1) && !flights.is_aloft(&2));
        assert_eq!(second.landed().await, Ok(3));
        assert!(!flights.is_aloft(&1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_lands_as_a_lost_flight_and_leaves_the_table_empty() {
        let flights = flights();
        let (one, _) = flights.join(1, || async { panic!("on purpose") });
        let (two, _) = flights.join(1, || async { unreachable!("one is in the air") });
        assert_eq!(one.landed().await, Err(FlightLost));
        assert_eq!(two.landed().await, Err(FlightLost));
        assert!(flights.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_leaves_the_table_before_it_lands() {
        let flights = flights();
        let (go, wait) = oneshot::channel();
        let (seat, _) = flights.join(1, || async move { wait.await.unwrap_or(0) });
        go.send(1).unwrap();
        assert_eq!(seat.landed().await, Ok(1));
        let (again, boarding) = flights.join(1, || async { 2 });
        assert_eq!(boarding, Boarding::TookOff);
        assert_eq!(again.landed().await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_fly_apart() {
        let flights = flights();
        let (one, _) = flights.join(1, || async { 1 });
        let (two, boarding) = flights.join(2, || async { 2 });
        assert_eq!(boarding, Boarding::TookOff);
        assert_eq!((one.landed().await, two.landed().await), (Ok(1), Ok(2)));
    }

    #[tokio::test]
    async fn a_panic_while_the_table_is_locked_costs_nobody_else_anything() {
        #[derive(Clone, PartialEq, Eq)]
        struct Key(u8);
        impl Hash for Key {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                assert_ne!(self.0, 13, "on purpose");
                self.0.hash(state);
            }
        }
        let flights: Flights<Key, u8, RandomState> = Flights::new();
        let (before, _) = flights.join(Key(1), || async { 1 });
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            flights.join(Key(13), || async { 13 });
        }));
        assert!(panicked.is_err());
        assert_eq!(before.landed().await, Ok(1));
        let (after, boarding) = flights.join(Key(2), || async { 2 });
        assert_eq!((after.landed().await, boarding), (Ok(2), Boarding::TookOff));
        flights.all_landed().await;
    }
}

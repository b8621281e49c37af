//! Keeps stored responses in memory, within one budget of bytes, and finds them again.
//!
//! moka holds the bytes and makes room; it never decides freshness: its own expiry is retention only. Under a
//! primary key lies either the response itself or, once upstream has nominated request fields by `Vary`, an index
//! that says which fields select among the variants.
//!
//! Invariants: what is unusable is never handed out, and is removed where it is found; the weight of everything
//! that is kept stays within `cache.max_bytes`, indexes included.
//! Not here: whether something may be stored (`cache::storing`) or reused (`cache::freshness`).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{HeaderMap, HeaderName};
use moka::future::Cache;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;

use crate::cache::generations::{Cause, Generations, Standing};
use crate::cache::key::{CacheKey, KeyHashBuilder, KeyHasher, PrimaryKey};
use crate::cache::stored_response::{Found, StoredResponse};
use crate::config::{CacheConfig, Eviction};
use crate::metrics::Metrics;
use crate::metrics::store::EvictionCause;
use crate::routes::tags::Tag;

/// What an index costs: its place in the store, and its names.
const INDEX_WEIGHT: usize = 800;

/// The stored responses of one process.
#[derive(Debug)]
pub struct Store {
    kept: Cache<CacheKey, Kept, KeyHashBuilder>,
    generations: Arc<Generations>,
    hasher: KeyHasher,
}

/// What lies under a key.
#[derive(Debug, Clone)]
enum Kept {
    Response { response: Arc<StoredResponse>, retention: Duration },
    Index { nominated: Arc<[HeaderName]>, retention: Duration },
}

/// A stored response and where it goes.
#[derive(Debug)]
pub struct Insertion {
    /// The primary key of its request.
    pub primary: PrimaryKey,
    /// The response.
    pub response: Arc<StoredResponse>,
    /// How long it is worth keeping.
    pub retention: Duration,
}

impl Store {
    /// Makes an empty store.
    pub fn new(
        config: &CacheConfig,
        generations: Arc<Generations>,
        hasher: KeyHasher,
        metrics: Arc<Metrics>,
    ) -> Self {
        let policy = match config.eviction {
            Eviction::Lru => EvictionPolicy::lru(),
            Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
        };
        let kept = Cache::builder()
            .max_capacity(config.max_bytes.as_u64())
            .eviction_policy(policy)
            .weigher(|_, kept: &Kept| kept.weight())
            .expire_after(Retention)
            .eviction_listener(move |_, _, cause| record_removal(&metrics, cause))
            .build_with_hasher(KeyHashBuilder::default());
        Self { kept, generations, hasher }
    }

    /// Finds what is stored for a request with this primary key and these fields.
    pub async fn look_up(&self, primary: PrimaryKey, fields: &HeaderMap) -> Found {
        match self.kept.get(&primary.key()).await {
            None => Found::Nothing,
            Some(Kept::Response { response, .. }) => self.judged(primary.key(), response).await,
            Some(Kept::Index { nominated, .. }) => {
                let variant = primary.variant(&nominated, fields, &self.hasher);
                match self.kept.get(&variant).await {
                    Some(Kept::Response { response, .. }) => self.judged(variant, response).await,
                    Some(Kept::Index { .. }) | None => Found::OtherVariant,
                }
            }
        }
    }

    /// Returns the key under which a request's answer would be kept, as far as `Vary` is known by now.
    pub async fn key_of(&self, primary: PrimaryKey, fields: &HeaderMap) -> CacheKey {
        match self.kept.get(&primary.key()).await {
            Some(Kept::Index { nominated, .. }) => primary.variant(&nominated, fields, &self.hasher),
            Some(Kept::Response { .. }) | None => primary.key(),
        }
    }

    /// Returns the key of the variant of `response` that a request with these fields selects.
    pub fn variant_of(&self, primary: PrimaryKey, response: &StoredResponse, fields: &HeaderMap) -> CacheKey {
        primary.variant(response.nominated(), fields, &self.hasher)
    }

    /// Keeps a response, unless it has become unusable since it took off. `fields` are those of its request.
    pub async fn insert(&self, insertion: Insertion, fields: &HeaderMap) {
        let Insertion { primary, response, retention } = insertion;
        let provenance = response.provenance();
        if self.generations.standing(&provenance.slots, provenance.stamp) == Standing::Unusable {
            return;
        }
        let key = self.variant_of(primary, &response, fields);
        if key != primary.key() {
            let index = Kept::Index { nominated: response.nominated().into(), retention };
            self.kept.insert(primary.key(), index).await;
        }
        self.kept.insert(key, Kept::Response { response, retention }).await;
    }

    /// Replaces a stored response by the same one with its body in one more coding; a newer one stays.
    pub async fn replace(&self, key: CacheKey, response: Arc<StoredResponse>) {
        let stamp = response.provenance().stamp;
        if let Some(Kept::Response { response: kept, retention }) = self.kept.get(&key).await
            && kept.provenance().stamp == stamp
        {
            self.kept.insert(key, Kept::Response { response, retention }).await;
        }
    }

    /// Removes what is stored for a request with this primary key and these fields.
    pub async fn remove(&self, primary: PrimaryKey, fields: &HeaderMap) {
        let key = self.key_of(primary, fields).await;
        self.kept.invalidate(&key).await;
    }

    /// Makes everything unusable at once and gives its memory back. Returns how many responses there were.
    pub async fn purge_everything(&self, now: SystemTime) -> u64 {
        let count = self.kept.iter().filter(|(_, kept)| kept.is_response()).map(|_| 1).sum();
        self.generations.invalidate_tags(&[Tag::Everything], Cause::Purge, now);
        self.kept.invalidate_all();
        // moka gives memory back in batches.
        let mut before = u64::MAX;
        while self.kept.entry_count() < before {
            before = self.kept.entry_count();
            self.tidy().await;
        }
        count
    }

    /// Does the housekeeping that otherwise falls to whoever comes next.
    pub async fn tidy(&self) {
        self.kept.run_pending_tasks().await;
    }

    /// Returns how many responses and indexes are kept, as of the last housekeeping.
    pub fn count(&self) -> u64 {
        self.kept.entry_count()
    }

    /// Returns the weight of what is kept, in bytes, as of the last housekeeping.
    pub fn weight(&self) -> u64 {
        self.kept.weighted_size()
    }

    /// Compares a response with the generations; "a look-up that finds an unusable response removes it".
    async fn judged(&self, key: CacheKey, response: Arc<StoredResponse>) -> Found {
        let provenance = response.provenance();
        match self.generations.standing(&provenance.slots, provenance.stamp) {
            Standing::Unusable => {
                self.kept.invalidate(&key).await;
                Found::Unusable
            }
            standing @ (Standing::Current | Standing::Settling) => Found::Stored(response, standing),
        }
    }
}

impl Kept {
    fn is_response(&self) -> bool {
        match self {
            Self::Response { .. } => true,
            Self::Index { .. } => false,
        }
    }

    fn weight(&self) -> u32 {
        match self {
            Self::Response { response, .. } => response.weight(),
            Self::Index { nominated, .. } => {
                u32::try_from(INDEX_WEIGHT + size_of_val(&**nominated)).unwrap_or(u32::MAX)
            }
        }
    }

    fn retention(&self) -> Duration {
        match self {
            Self::Response { retention, .. } | Self::Index { retention, .. } => *retention,
        }
    }
}

/// moka's expiry: how long something is worth keeping, from when it was kept or replaced.
struct Retention;

impl moka::Expiry<CacheKey, Kept> for Retention {
    fn expire_after_create(&self, _: &CacheKey, kept: &Kept, _: Instant) -> Option<Duration> {
        Some(kept.retention())
    }

    // moka's default keeps the replaced value's time.
    fn expire_after_update(
        &self,
        _: &CacheKey,
        kept: &Kept,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.retention())
    }
}

fn record_removal(metrics: &Metrics, cause: RemovalCause) {
    metrics.store.evicted(match cause {
        RemovalCause::Size => EvictionCause::Size,
        RemovalCause::Expired => EvictionCause::Retention,
        RemovalCause::Replaced => EvictionCause::Replaced,
        RemovalCause::Explicit => EvictionCause::Removed,
    });
}

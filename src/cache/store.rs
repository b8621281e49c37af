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
use moka::Entry;
use moka::future::Cache;
use moka::notification::RemovalCause;
use moka::ops::compute::{CompResult, Op};
use moka::policy::EvictionPolicy;
use tokio::sync::{Semaphore, mpsc};

use crate::cache::generations::{Generations, PurgeDepth, Stamp, Standing};
use crate::cache::key::{CacheKey, KeyHashBuilder, KeyHasher, PrimaryKey};
use crate::cache::stored_response::{Found, StoredResponse};
use crate::config::cache::{CacheConfig, Eviction};
use crate::metrics::Metrics;
use crate::metrics::store::EvictionCause;
use crate::routes::tags::Tag;

pub mod holdings;

/// How many responses are swept at once after a purge.
const SWEPT_AT_ONCE: usize = 512;

/// How many batches the walk is ahead of the removal.
const SWEPT_AHEAD: usize = 4;

/// What an index costs: its place in the store, and its names.
const INDEX_WEIGHT: usize = 800;

/// The stored responses of one process.
#[derive(Debug)]
pub struct Store {
    kept: Cache<CacheKey, Kept, KeyHashBuilder>,
    generations: Arc<Generations>,
    hasher: KeyHasher,
    /// Whose turn it is to walk through the store.
    walking: Arc<Semaphore>,
}

/// What lies under a key.
#[derive(Debug, Clone)]
enum Kept {
    Response { response: Arc<StoredResponse>, retention: Duration },
    Index { nominated: Arc<[HeaderName]>, retention: Duration, stamp: Stamp },
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

/// Whether a response was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is in the store.
    Yes,
    /// It became unusable on its way, or a later one is there.
    No,
}

/// A walk through the store after what was purged.
struct Sweep {
    purged: Vec<[u16; 2]>,
    wanted: Standing,
}

impl Sweep {
    /// Sends the keys of what was purged, in batches; ends early when nobody wants them any more.
    fn walk(
        &self,
        kept: &Cache<CacheKey, Kept, KeyHashBuilder>,
        generations: &Generations,
        batches: &mpsc::Sender<Vec<CacheKey>>,
    ) {
        let mut keys = kept.iter().filter(|(_, kept)| match kept {
            Kept::Response { response, .. } => {
                Generations::carries(&response.provenance().slots, &self.purged)
                    && response.standing_in(generations) == self.wanted
            }
            Kept::Index { .. } => false,
        });
        loop {
            let batch: Vec<CacheKey> = keys.by_ref().take(SWEPT_AT_ONCE).map(|(key, _)| *key).collect();
            if batch.is_empty() || batches.blocking_send(batch).is_err() {
                return;
            }
        }
    }
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
        Self { kept, generations, hasher, walking: Arc::new(Semaphore::new(1)) }
    }

    /// Finds what is stored for a request with this primary key and these fields.
    pub async fn look_up(&self, primary: PrimaryKey, fields: &HeaderMap) -> Found {
        let (key, found) = self.peek(primary, fields).await;
        if matches!(found, Found::Unusable) {
            // "A look-up that finds an unusable response removes it".
            self.kept.invalidate(&key).await;
        }
        found
    }

    /// Finds the same, and under which key, and leaves it where it is, usable or not. moka cannot but take it for a use.
    pub async fn peek(&self, primary: PrimaryKey, fields: &HeaderMap) -> (CacheKey, Found) {
        let key = primary.key();
        match self.kept.get(&key).await {
            None => (key, Found::Nothing),
            Some(Kept::Response { response, .. }) => (key, self.judged(response)),
            Some(Kept::Index { nominated, .. }) => {
                let variant = primary.variant(&nominated, fields, &self.hasher);
                let found = match self.kept.get(&variant).await {
                    Some(Kept::Response { response, .. }) => self.judged(response),
                    Some(Kept::Index { .. }) | None => Found::OtherVariant,
                };
                (variant, found)
            }
        }
    }

    /// Returns the key under which a request's answer would be kept, as far as `Vary` is known by now.
    pub async fn key_of(&self, primary: PrimaryKey, fields: &HeaderMap) -> CacheKey {
        primary.variant(&self.nominated_by(primary).await, fields, &self.hasher)
    }

    /// Returns the fields by which variants of a primary key are told apart, as far as `Vary` is known by now.
    pub async fn nominated_by(&self, primary: PrimaryKey) -> Arc<[HeaderName]> {
        match self.kept.get(&primary.key()).await {
            Some(Kept::Index { nominated, .. }) => nominated,
            Some(Kept::Response { .. }) | None => Arc::default(),
        }
    }

    /// Returns the key of the variant of `response` that a request with these fields selects.
    pub fn variant_of(&self, primary: PrimaryKey, response: &StoredResponse, fields: &HeaderMap) -> CacheKey {
        self.variant_by(primary, response.nominated(), fields)
    }

    /// Returns the key of the variant that a request with these fields selects by the nominated ones.
    pub fn variant_by(&self, primary: PrimaryKey, nominated: &[HeaderName], fields: &HeaderMap) -> CacheKey {
        primary.variant(nominated, fields, &self.hasher)
    }

    /// Keeps a response, unless it has become unusable since it took off, or a later one is there already. `fields` are
    /// those of its request.
    pub async fn insert(&self, insertion: Insertion, fields: &HeaderMap) -> Inserted {
        let Insertion { primary, response, retention } = insertion;
        if response.standing_in(&self.generations) == Standing::Unusable {
            return Inserted::No;
        }
        let (key, stamp) = (self.variant_of(primary, &response, fields), response.provenance().stamp);
        if key != primary.key() {
            let index = Kept::Index { nominated: response.nominated().into(), retention, stamp };
            if self.keep_unless_outrun(primary.key(), index, stamp).await == Inserted::No {
                return Inserted::No;
            }
        }
        self.keep_unless_outrun(key, Kept::Response { response, retention }, stamp).await
    }

    /// Keeps something that took off at `stamp`. Flights of one key land in any order: one that took off earlier never
    /// replaces a later one, and one variant never another.
    async fn keep_unless_outrun(&self, key: CacheKey, kept: Kept, stamp: Stamp) -> Inserted {
        let newest = self.kept.entry(key).and_compute_with(|present| {
            let present = present.map(Entry::into_value);
            let operation = match present.filter(|present| stamp < present.stamp()) {
                None => Op::Put(kept),
                Some(later) if later.nominates_like(&kept) => Op::Put(later.kept_for(kept.retention())),
                Some(_) => Op::Nop,
            };
            std::future::ready(operation)
        });
        match newest.await {
            CompResult::Inserted(_) | CompResult::ReplacedWith(_) => Inserted::Yes,
            CompResult::Unchanged(_) | CompResult::StillNone(_) | CompResult::Removed(_) => Inserted::No,
        }
    }

    /// Replaces a stored response by the same one with its body in one more coding; another one stays.
    pub async fn replace(&self, key: CacheKey, old: &Arc<StoredResponse>, new: Arc<StoredResponse>) {
        let replacing = self.kept.entry(key).and_compute_with(|present| {
            std::future::ready(match present.map(Entry::into_value) {
                Some(Kept::Response { response, retention }) if Arc::ptr_eq(&response, old) => {
                    Op::Put(Kept::Response { response: new, retention })
                }
                Some(_) | None => Op::Nop,
            })
        });
        // Either way, whoever asks next finds what is right.
        let _ = replacing.await;
    }

    /// Removes what is stored for a request with this primary key and these fields.
    pub async fn remove(&self, primary: PrimaryKey, fields: &HeaderMap) {
        let key = self.key_of(primary, fields).await;
        self.kept.invalidate(&key).await;
    }

    /// Purges everything that carries any of these tags and took off before now: at once, and then counts it and, where
    /// it is purged for good, gives its memory back. Returns how many responses there were.
    pub async fn purge(&self, tags: &[Tag], depth: PurgeDepth, now: SystemTime) -> u64 {
        self.generations.invalidate_tags(tags, depth.cause(), now);
        // One walk at a time; it is never closed.
        let _turn = self.walking.acquire().await;
        let (batches, mut swept) = mpsc::channel(SWEPT_AHEAD);
        let sweep = Sweep { purged: self.generations.pairs_of(tags), wanted: depth.standing() };
        let (kept, generations) = (self.kept.clone(), Arc::clone(&self.generations));
        // Walking the store takes a while where it holds a million responses: away from the threads that serve.
        let walk = tokio::task::spawn_blocking(move || sweep.walk(&kept, &generations, &batches));
        let mut count = 0;
        while let Some(batch) = swept.recv().await {
            count += u64::try_from(batch.len()).unwrap_or(u64::MAX);
            if depth == PurgeDepth::Hard {
                self.reclaim(batch).await;
            }
        }
        // It is gone only if it panicked or the runtime ends; what was purged is purged all the same.
        drop(walk.await);
        if depth == PurgeDepth::Hard && tags.contains(&Tag::Everything) {
            // The indexes, too, which carry no tags.
            self.kept.invalidate_all();
            self.tidy_up().await;
        }
        count
    }

    /// Does all the housekeeping there is: moka gives memory back in batches.
    async fn tidy_up(&self) {
        let mut before = u64::MAX;
        while self.kept.entry_count() < before {
            before = self.kept.entry_count();
            self.tidy().await;
        }
    }

    /// Removes what is unusable of a batch: something else may have been stored meanwhile.
    async fn reclaim(&self, batch: Vec<CacheKey>) {
        for key in batch {
            let removal = self.kept.entry(key).and_compute_with(|present| {
                let is_unusable = present.is_some_and(|present| match present.into_value() {
                    Kept::Response { response, .. } => {
                        response.standing_in(&self.generations) == Standing::Unusable
                    }
                    Kept::Index { .. } => false,
                });
                std::future::ready(if is_unusable { Op::Remove } else { Op::Nop })
            });
            drop(removal.await);
        }
        self.tidy().await;
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

    /// Returns how much weight may be kept, in bytes.
    pub fn max_weight(&self) -> u64 {
        self.kept.policy().max_capacity().unwrap_or_default()
    }

    /// Compares a response with the generations.
    fn judged(&self, response: Arc<StoredResponse>) -> Found {
        match response.standing_in(&self.generations) {
            Standing::Unusable => Found::Unusable,
            standing @ (Standing::Current | Standing::Settling | Standing::Purged) => {
                Found::Stored(response, standing)
            }
        }
    }
}

impl Kept {
    /// Returns when it took off; an index, when the latest variant did.
    fn stamp(&self) -> Stamp {
        match self {
            Self::Response { response, .. } => response.provenance().stamp,
            Self::Index { stamp, .. } => *stamp,
        }
    }

    /// Keeps it for at least as long.
    fn kept_for(mut self, least: Duration) -> Self {
        let (Self::Response { retention, .. } | Self::Index { retention, .. }) = &mut self;
        *retention = least.max(*retention);
        self
    }

    /// Returns whether both are the index of the same variants.
    fn nominates_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Index { nominated, .. }, Self::Index { nominated: others, .. }) => nominated == others,
            (Self::Index { .. } | Self::Response { .. }, _) => false,
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use bytesize::ByteSize;
    use http::StatusCode;

    use super::*;
    use crate::cache::body::StoredBody;
    use crate::cache::generations::Cause;
    use crate::cache::stored_response::Provenance;
    use crate::config::load;
    use crate::metrics::LabelValues;
    use crate::routes::RouteLabel;
    use crate::testing::{TOKEN, asked, fields, start};

    const RETENTION: Duration = Duration::from_hours(1);

    /// A store, its generations, and its budget.
    struct Scene {
        store: Store,
        generations: Arc<Generations>,
    }

    fn scene_within(max_bytes: u64, eviction: Eviction) -> Scene {
        let mut config = load::defaults().cache;
        config.max_bytes = ByteSize::b(max_bytes);
        config.eviction = eviction;
        let generations = Arc::new(Generations::new([1; 16], Duration::from_secs(10)));
        let metrics = Arc::new(Metrics::new(start(), &LabelValues::default()));
        let store = Store::new(&config, Arc::clone(&generations), KeyHasher::new([2; 16]), metrics);
        Scene { store, generations }
    }

    fn scene() -> Scene {
        scene_within(1 << 20, Eviction::Lru)
    }

    /// Returns the primary key of one target.
    fn primary(name: &str) -> PrimaryKey {
        let line = format!("GET /api/0/organizations/acme/{name}/");
        PrimaryKey::of(&asked(&line, &[TOKEN]), "sentry.io", &KeyHasher::new([2; 16]))
    }

    fn tag(name: &str) -> Tag {
        Tag::Resource(name.to_owned())
    }

    impl Scene {
        /// Returns a response that takes off now, with its name as its tag.
        fn response(&self, name: &str, pairs: &[(&str, &str)], body: &[u8]) -> Arc<StoredResponse> {
            let provenance = Provenance {
                request_time: start(),
                response_time: start(),
                slots: self.generations.slots(&[tag(name)]),
                stamp: self.generations.stamp(start()),
                route: RouteLabel::Template(name.into()),
            };
            let body = StoredBody::identity(Bytes::copy_from_slice(body));
            Arc::new(StoredResponse::new(StatusCode::OK, &fields(pairs), body, provenance))
        }

        async fn insert(&self, name: &str, response: Arc<StoredResponse>, asks: &HeaderMap) {
            let insertion = Insertion { primary: primary(name), response, retention: RETENTION };
            self.store.insert(insertion, asks).await;
        }

        /// Stores what varies by `X-Team`, as fetched for this team.
        async fn insert_for(&self, team: &str) {
            let response = self.response("a", &[("vary", "X-Team")], team.as_bytes());
            self.insert("a", response, &fields(&[("x-team", team)])).await;
        }

        async fn purge(&self, tag: &Tag, depth: PurgeDepth) -> u64 {
            self.store.purge(std::slice::from_ref(tag), depth, start()).await
        }

        /// Says what is found: the body, or why there is none.
        async fn finds(&self, name: &str, asks: &[(&str, &str)]) -> String {
            match self.store.look_up(primary(name), &fields(asks)).await {
                Found::Nothing => "nothing".to_owned(),
                Found::OtherVariant => "other variant".to_owned(),
                Found::Unusable => "unusable".to_owned(),
                Found::Stored(response, standing) => {
                    let body = String::from_utf8(response.body().original().to_vec()).unwrap();
                    if standing == Standing::Purged { format!("purged {body}") } else { body }
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_counted_by_route() {
        let scene = scene();
        for (name, body) in [("a", &b"1"[..]), ("b", b"12")] {
            scene.insert(name, scene.response(name, &[], body), &HeaderMap::new()).await;
        }
        scene.insert("c", scene.response("a", &[], b"123"), &HeaderMap::new()).await;
        scene.store.tidy().await;
        let holdings = scene.store.by_route().await;
        let of = |name: &str| holdings[&RouteLabel::Template(name.into())];
        assert_eq!((holdings.len(), of("a").responses, of("b").responses), (2, 2, 1));
        assert_eq!(of("a").bytes + of("b").bytes, scene.store.weight());
    }

    #[tokio::test]
    async fn what_was_kept_is_found_under_its_key_and_no_other() {
        let scene = scene();
        scene.insert("a", scene.response("a", &[], b"1"), &HeaderMap::new()).await;
        assert_eq!(scene.finds("a", &[]).await, "1");
        assert_eq!(scene.finds("b", &[]).await, "nothing");
    }

    #[tokio::test]
    async fn rfc9111_4_1_variants_are_told_apart_by_the_nominated_fields() {
        let scene = scene();
        scene.insert_for("red").await;
        scene.insert_for("blue").await;
        assert_eq!(scene.finds("a", &[("x-team", "red")]).await, "red");
        assert_eq!(scene.finds("a", &[("x-team", "blue"), ("x-other", "1")]).await, "blue");
        assert_eq!(scene.finds("a", &[("x-team", "green")]).await, "other variant");
        assert_eq!(scene.finds("a", &[]).await, "other variant");
    }

    #[tokio::test]
    async fn who_only_peeks_finds_the_same_and_leaves_what_is_unusable() {
        let scene = scene();
        scene.insert_for("red").await;
        let asks = fields(&[("x-team", "red")]);
        scene.generations.invalidate_tags(&[tag("a")], Cause::Write, start());
        for _ in 0..2 {
            let (key, found) = scene.store.peek(primary("a"), &asks).await;
            assert!(matches!(found, Found::Unusable), "{found:?}");
            assert_eq!(key, scene.store.key_of(primary("a"), &asks).await);
        }
        assert_eq!(*scene.store.nominated_by(primary("a")).await, [HeaderName::from_static("x-team")]);
        assert!(matches!(scene.store.look_up(primary("a"), &asks).await, Found::Unusable));
        assert!(matches!(scene.store.peek(primary("a"), &asks).await.1, Found::OtherVariant));
    }

    #[tokio::test]
    async fn rfc9111_4_1_the_last_vary_seen_decides() {
        let scene = scene();
        scene.insert("a", scene.response("a", &[], b"plain"), &HeaderMap::new()).await;
        scene.insert_for("red").await;
        assert_eq!(scene.finds("a", &[]).await, "other variant");
        scene.insert("a", scene.response("a", &[], b"plain"), &HeaderMap::new()).await;
        assert_eq!(scene.finds("a", &[("x-team", "red")]).await, "plain");
    }

    #[tokio::test]
    async fn a_variant_that_took_off_earlier_does_not_hide_a_later_response_without_variants() {
        let scene = scene();
        let red = scene.response("a", &[("vary", "X-Team")], b"red");
        scene.insert("a", scene.response("a", &[], b"plain"), &HeaderMap::new()).await;
        scene.insert("a", red, &fields(&[("x-team", "red")])).await;
        assert_eq!(scene.finds("a", &[("x-team", "red")]).await, "plain");
    }

    #[tokio::test]
    async fn what_took_off_earlier_does_not_hide_later_variants() {
        for (vary, lang) in [("", ""), ("X-Lang", "de")] {
            let scene = scene();
            let old = scene.response("a", &[("vary", vary)], b"old");
            scene.insert_for("red").await;
            let asks = fields(&[("x-team", "red"), ("x-lang", lang)]);
            scene.insert("a", old, &asks).await;
            assert_eq!(scene.finds("a", &[("x-team", "red"), ("x-lang", lang)]).await, "red");
        }
    }

    #[tokio::test]
    async fn variants_of_one_kind_land_in_any_order() {
        let scene = scene();
        let red = scene.response("a", &[("vary", "X-Team")], b"red");
        let green = scene.response("a", &[("vary", "X-Team")], b"green");
        let blue = scene.response("a", &[("vary", "X-Team")], b"blue");
        let insertion = Insertion { primary: primary("a"), response: blue, retention: RETENTION / 2 };
        scene.store.insert(insertion, &fields(&[("x-team", "blue")])).await;
        scene.insert("a", red, &fields(&[("x-team", "red")])).await;
        for team in ["red", "blue"] {
            assert_eq!(scene.finds("a", &[("x-team", team)]).await, team);
        }
        // The index stays for as long as any of them, and is as late as the latest.
        let index = scene.store.kept.get(&primary("a").key()).await.unwrap();
        assert_eq!(index.retention(), RETENTION);
        let plain = scene.response("a", &[], b"plain");
        scene.insert_for("blue").await;
        scene.insert("a", green, &fields(&[("x-team", "green")])).await;
        scene.insert("a", plain, &HeaderMap::new()).await;
        assert_eq!(scene.finds("a", &[("x-team", "green")]).await, "green");
    }

    #[tokio::test]
    async fn a_key_is_that_of_the_variant_as_far_as_vary_is_known() {
        let scene = scene();
        let asks = fields(&[("x-team", "red")]);
        assert_eq!(scene.store.key_of(primary("a"), &asks).await, primary("a").key());
        scene.insert_for("red").await;
        let response = scene.response("a", &[("vary", "X-Team")], b"");
        let variant = scene.store.variant_of(primary("a"), &response, &asks);
        assert_eq!(scene.store.key_of(primary("a"), &asks).await, variant);
        assert_ne!(variant, primary("a").key());
    }

    #[tokio::test]
    async fn a_look_up_that_finds_what_is_unusable_removes_it() {
        let scene = scene();
        scene.insert("a", scene.response("a", &[], b"1"), &HeaderMap::new()).await;
        scene.insert("b", scene.response("b", &[], b"2"), &HeaderMap::new()).await;
        scene.generations.invalidate_tags(&[tag("a")], Cause::Write, start());
        assert_eq!(scene.finds("a", &[]).await, "unusable");
        assert_eq!(scene.finds("a", &[]).await, "nothing");
        assert_eq!(scene.finds("b", &[]).await, "2");
        scene.store.tidy().await;
        assert_eq!(scene.store.count(), 1);
    }

    #[tokio::test]
    async fn an_unusable_variant_is_removed_alone() {
        let scene = scene();
        scene.insert_for("red").await;
        scene.generations.invalidate_tags(&[tag("a")], Cause::Write, start());
        scene.insert_for("blue").await;
        assert_eq!(scene.finds("a", &[("x-team", "red")]).await, "unusable");
        assert_eq!(scene.finds("a", &[("x-team", "red")]).await, "other variant");
        assert_eq!(scene.finds("a", &[("x-team", "blue")]).await, "blue");
    }

    #[tokio::test]
    async fn what_took_off_before_a_write_is_not_kept_after_it() {
        let scene = scene();
        let response = scene.response("a", &[], b"old");
        scene.generations.invalidate_tags(&[tag("a")], Cause::Write, start());
        scene.insert("a", response, &HeaderMap::new()).await;
        assert_eq!(scene.finds("a", &[]).await, "nothing");
    }

    #[tokio::test]
    async fn what_is_removed_is_the_variant_that_the_request_selects() {
        let scene = scene();
        scene.insert_for("red").await;
        scene.insert_for("blue").await;
        scene.store.remove(primary("a"), &fields(&[("x-team", "red")])).await;
        assert_eq!(scene.finds("a", &[("x-team", "red")]).await, "other variant");
        assert_eq!(scene.finds("a", &[("x-team", "blue")]).await, "blue");
    }

    #[tokio::test]
    async fn a_replacement_keeps_the_retention_and_is_weighed_anew() {
        let scene = scene();
        let response = scene.response("a", &[], b"1");
        scene.insert("a", Arc::clone(&response), &HeaderMap::new()).await;
        scene.store.tidy().await;
        let before = scene.store.weight();
        let larger = response.with_body(StoredBody::identity(Bytes::from(vec![b'2'; 5_000])));
        scene.store.replace(primary("a").key(), &response, Arc::new(larger)).await;
        scene.store.tidy().await;
        assert_eq!(scene.store.weight(), before + 4_999);
        let kept = scene.store.kept.get(&primary("a").key()).await.unwrap();
        assert_eq!(kept.retention(), RETENTION);
    }

    #[tokio::test]
    async fn a_replacement_puts_back_neither_what_is_gone_nor_what_is_older() {
        let scene = scene();
        let old = scene.response("a", &[], b"old");
        scene.store.replace(primary("a").key(), &old, Arc::clone(&old)).await;
        assert_eq!(scene.finds("a", &[]).await, "nothing");
        scene.insert("a", scene.response("a", &[], b"new"), &HeaderMap::new()).await;
        scene.store.replace(primary("a").key(), &old, Arc::clone(&old)).await;
        assert_eq!(scene.finds("a", &[]).await, "new");
    }

    #[tokio::test]
    async fn a_purge_counts_the_responses_and_empties_the_store() {
        let scene = scene_within(64 << 20, Eviction::Lru);
        for number in 0..5_000 {
            let name = number.to_string();
            scene.insert(&name, scene.response(&name, &[], b"[]"), &HeaderMap::new()).await;
        }
        scene.insert_for("red").await;
        scene.insert_for("blue").await;
        assert_eq!(scene.purge(&Tag::Everything, PurgeDepth::Hard).await, 5_002);
        assert_eq!((scene.store.count(), scene.store.weight()), (0, 0));
        assert_eq!(scene.finds("a", &[("x-team", "red")]).await, "nothing");
        scene.insert_for("red").await;
        assert_eq!(scene.finds("a", &[("x-team", "red")]).await, "red");
        assert_eq!(scene.purge(&Tag::Everything, PurgeDepth::Hard).await, 1);
    }

    #[tokio::test]
    async fn a_purge_for_good_reclaims_what_it_means_and_nothing_else() {
        let scene = scene_within(64 << 20, Eviction::Lru);
        // More than are swept at once.
        for number in 0..3_000 {
            let response = scene.response("a", &[("vary", "X-Team")], number.to_string().as_bytes());
            scene.insert("a", response, &fields(&[("x-team", &number.to_string())])).await;
        }
        scene.insert("b", scene.response("b", &[], b"other"), &HeaderMap::new()).await;
        assert_eq!(scene.purge(&tag("a"), PurgeDepth::Hard).await, 3_000);
        // What is left is the other one, and the index.
        assert_eq!(scene.store.count(), 2);
        assert_eq!(scene.finds("a", &[("x-team", "7")]).await, "other variant");
        assert_eq!(scene.finds("b", &[]).await, "other");
        assert_eq!(scene.purge(&tag("a"), PurgeDepth::Hard).await, 0);
    }

    #[tokio::test]
    async fn a_soft_purge_counts_what_it_means_and_leaves_it_stale() {
        let scene = scene();
        scene.insert("a", scene.response("a", &[], b"1"), &HeaderMap::new()).await;
        scene.insert("b", scene.response("b", &[], b"2"), &HeaderMap::new()).await;
        let on_its_way = scene.response("c", &[], b"3");
        assert_eq!(scene.purge(&tag("a"), PurgeDepth::Soft).await, 1);
        assert_eq!(scene.finds("a", &[]).await, "purged 1");
        assert_eq!(scene.finds("b", &[]).await, "2");
        assert_eq!(scene.purge(&Tag::Everything, PurgeDepth::Soft).await, 2);
        scene.insert("c", on_its_way, &HeaderMap::new()).await;
        assert_eq!(scene.finds("c", &[]).await, "purged 3");
        scene.insert("a", scene.response("a", &[], b"4"), &HeaderMap::new()).await;
        assert_eq!(scene.finds("a", &[]).await, "4");
    }

    #[tokio::test]
    async fn what_took_off_before_a_purge_is_not_kept_after_it() {
        let scene = scene();
        let response = scene.response("a", &[], b"old");
        scene.purge(&Tag::Everything, PurgeDepth::Hard).await;
        scene.insert("a", response, &HeaderMap::new()).await;
        assert_eq!(scene.finds("a", &[]).await, "nothing");
    }

    #[tokio::test]
    async fn the_budget_of_bytes_holds_under_many_responses_and_variants() {
        const BUDGET: u64 = 256 << 10;
        for eviction in [Eviction::Lru, Eviction::TinyLfu] {
            let scene = scene_within(BUDGET, eviction);
            for number in 0..2_000 {
                let name = number.to_string();
                let response = scene.response(&name, &[("vary", "x-a")], &vec![b'1'; number]);
                scene.insert(&name, response, &fields(&[("x-a", &name)])).await;
            }
            scene.store.tidy().await;
            let (weight, count) = (scene.store.weight(), scene.store.count());
            assert!(weight <= BUDGET, "{eviction:?}: {weight} bytes in {count}");
            assert!(weight > BUDGET / 2, "{eviction:?}: {weight} bytes in {count}");
        }
    }

    #[tokio::test]
    async fn a_full_store_makes_room_for_newcomers_at_the_cost_of_the_least_recently_used() {
        let scene = scene_within(100 << 10, Eviction::Lru);
        for number in 0..200 {
            let name = number.to_string();
            scene.insert(&name, scene.response(&name, &[], &[b'1'; 1_000]), &HeaderMap::new()).await;
            scene.store.tidy().await;
            assert_ne!(scene.finds("0", &[]).await, "nothing", "after {number}");
        }
        assert_ne!(scene.finds("199", &[]).await, "nothing");
        assert_eq!(scene.finds("1", &[]).await, "nothing");
    }

    #[tokio::test]
    async fn what_is_larger_than_the_whole_budget_is_not_kept() {
        let scene = scene_within(10_000, Eviction::Lru);
        scene.insert("a", scene.response("a", &[], &vec![b'1'; 20_000]), &HeaderMap::new()).await;
        scene.store.tidy().await;
        assert_eq!(scene.finds("a", &[]).await, "nothing");
        assert_eq!(scene.store.weight(), 0);
    }
}

//! Remembers what became unusable, and what became stale, when: by tag, in a fixed amount of memory.
//!
//! A table of 65,536 slots, each with two moments: *unusable before* (writes, hard purges) and *stale before* (soft purges).
//! A tag falls into two slots by a keyed hash, and what happened to it is the earlier of what happened to the two (a count-min
//! sketch, with moments for counts). A tag is invalidated by mistake only when both its slots were hit,
//! by one other tag or by two: after writes to 1,000 tags, 1 in 1,000 of the others, where one slot each would lose 1 in
//! 66.
//! A stored response carries its slots and the [`Stamp`] of the moment its forward took off; a look-up compares.
//! Nothing is walked, and nothing is ever evicted from the table, so no write is ever forgotten.
//!
//! Invariants: stamps never repeat and never go back; a response whose forward took off before a write to one of
//! its tags is unusable for ever, and one that took off before a soft purge of one is never fresh again.
//! Not here: which tags a write touches (`cache::invalidation`).

use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use siphasher::sip::SipHasher13;

use crate::routes::tags::Tag;

const SLOTS: usize = 1 << 16;

/// A moment that never repeats: microseconds since the epoch, moved on where two would be equal; the lowest bit
/// tells a write from anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    const WRITE: u64 = 1;

    fn is_write(self) -> bool {
        self.0 & Self::WRITE == Self::WRITE
    }

    fn moment(self) -> Duration {
        Duration::from_micros(self.0 >> 1)
    }
}

/// What happened to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It was written, and is unusable: what is fetched soon after may still show the old state.
    Write,
    /// It was purged for good, or upstream rejected the credential: it is unusable.
    Purge,
    /// It was purged softly: it is stale.
    SoftPurge,
}

/// How thoroughly something is purged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PurgeDepth {
    /// It is stale: asked for anew before it is reused, but for standing in when upstream fails.
    #[default]
    Soft,
    /// It is gone.
    Hard,
}

impl PurgeDepth {
    /// Returns the one spelling of the depth.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Hard => "hard",
        }
    }

    /// Returns what it does to what is purged.
    pub const fn cause(self) -> Cause {
        match self {
            Self::Soft => Cause::SoftPurge,
            Self::Hard => Cause::Purge,
        }
    }

    /// Returns how what was purged stands.
    pub const fn standing(self) -> Standing {
        match self {
            Self::Soft => Standing::Purged,
            Self::Hard => Standing::Unusable,
        }
    }
}

/// When something became unusable, and when stale. Beside each other, because a look-up wants both.
#[derive(Debug, Default)]
struct Slot {
    unusable_before: AtomicU64,
    stale_before: AtomicU64,
    /// The same as the first, but for writes.
    dropped_before: AtomicU64,
}

impl Slot {
    fn read(&self) -> Happened {
        Happened {
            unusable_before: Stamp(self.unusable_before.load(Ordering::Acquire)),
            stale_before: Stamp(self.stale_before.load(Ordering::Acquire)),
            dropped_before: Stamp(self.dropped_before.load(Ordering::Acquire)),
        }
    }
}

/// The latest moments at which something happened to a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Happened {
    unusable_before: Stamp,
    stale_before: Stamp,
    dropped_before: Stamp,
}

impl Happened {
    const NEVER: Self = Self { unusable_before: Stamp(0), stale_before: Stamp(0), dropped_before: Stamp(0) };

    fn earlier(self, other: Self) -> Self {
        Self {
            unusable_before: self.unusable_before.min(other.unusable_before),
            stale_before: self.stale_before.min(other.stale_before),
            dropped_before: self.dropped_before.min(other.dropped_before),
        }
    }
}

/// The two slots of each of a set of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSlots(Box<[[u16; 2]]>);

impl TagSlots {
    /// Returns the bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.len() * size_of::<[u16; 2]>()
    }
}

/// How a stored response stands towards what has happened to its tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing happened since it took off.
    Current,
    /// It took off so soon after a write that it may show the state before.
    Settling,
    /// It was purged softly after it took off: it is stale, and may only stand in for a failure.
    Purged,
    /// Something happened after it took off that makes it unusable.
    Unusable,
}

/// What became unusable, or stale, when.
#[derive(Debug)]
pub struct Generations {
    table: Box<[Slot]>,
    last: AtomicU64,
    key: [u8; 16],
    settle: Duration,
}

impl Generations {
    /// Makes an empty table; `settle` is how long after a write responses are [`Standing::Settling`].
    pub fn new(key: [u8; 16], settle: Duration) -> Self {
        let table = std::iter::repeat_with(Slot::default).take(SLOTS).collect();
        Self { table, last: AtomicU64::new(0), key, settle }
    }

    /// Returns the slots of these tags, and those of everything.
    pub fn slots(&self, tags: &[Tag]) -> TagSlots {
        let mut slots: Vec<[u16; 2]> =
            tags.iter().chain([&Tag::Everything]).map(|tag| self.slots_of(tag)).collect();
        slots.sort_unstable();
        slots.dedup();
        TagSlots(slots.into_boxed_slice())
    }

    /// Returns the stamp of this moment, for a forward that takes off.
    pub fn stamp(&self, now: SystemTime) -> Stamp {
        let present = micros(now) << 1;
        let next = |last: u64| present.max((last | Stamp::WRITE) + 1);
        let last = self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last)));
        Stamp(next(last.unwrap_or_else(|last| last)))
    }

    /// Makes everything that carries any of these tags and took off before now unusable, or stale.
    pub fn invalidate_tags(&self, tags: &[Tag], cause: Cause, now: SystemTime) {
        let stamp = self.stamp(now).0;
        for slot in tags.iter().flat_map(|tag| self.slots_of(tag)) {
            let Some(slot) = self.table.get(usize::from(slot)) else { continue };
            match cause {
                Cause::Write => slot.unusable_before.fetch_max(stamp | Stamp::WRITE, Ordering::AcqRel),
                Cause::Purge => {
                    slot.dropped_before.fetch_max(stamp, Ordering::AcqRel);
                    slot.unusable_before.fetch_max(stamp, Ordering::AcqRel)
                }
                Cause::SoftPurge => slot.stale_before.fetch_max(stamp, Ordering::AcqRel),
            };
        }
    }

    /// Returns whether what has the slots of one set of tags carries any tag of another set; by mistake only where two tags
    /// have both slots in common.
    pub fn carries(carried: &TagSlots, any_of: &[[u16; 2]]) -> bool {
        any_of.iter().any(|pair| carried.0.binary_search(pair).is_ok())
    }

    /// Returns the slots of each of these tags, and of no other.
    pub fn pairs_of(&self, tags: &[Tag]) -> Vec<[u16; 2]> {
        tags.iter().map(|tag| self.slots_of(tag)).collect()
    }

    /// Returns the latest moment at which anything happened to any of these tags: the generation that a reader who
    /// comes now belongs to.
    pub fn generation(&self, slots: &TagSlots) -> Stamp {
        let latest = self.happened(slots).map(|happened| happened.unusable_before.max(happened.stale_before));
        latest.max().unwrap_or(Stamp(0))
    }

    /// Returns how a response with these slots, whose forward took off at `stamp`, stands.
    pub fn standing(&self, slots: &TagSlots, stamp: Stamp) -> Standing {
        let mut standing = Standing::Current;
        for Happened { unusable_before, stale_before, .. } in self.happened(slots) {
            if stamp < unusable_before {
                return Standing::Unusable;
            }
            if stamp < stale_before {
                standing = Standing::Purged;
            } else if standing == Standing::Current && self.is_settling(stamp, unusable_before) {
                standing = Standing::Settling;
            }
        }
        standing
    }

    /// Returns whether anything but a write has made a response with these slots unusable since its forward took off.
    pub fn is_dropped(&self, slots: &TagSlots, stamp: Stamp) -> bool {
        self.happened(slots).any(|it| stamp < it.dropped_before)
    }

    fn is_settling(&self, stamp: Stamp, happened: Stamp) -> bool {
        happened.is_write() && stamp.moment().saturating_sub(happened.moment()) < self.settle
    }

    fn slots_of(&self, tag: &Tag) -> [u16; 2] {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        write_tag(&mut hasher, tag);
        let hash = hasher.finish();
        #[expect(clippy::cast_possible_truncation, reason = "twice 16 of the bits are wanted")]
        let slots = [hash as u16, (hash >> 16) as u16];
        slots
    }

    /// Returns for each tag what happened to it when, or when something happened to both of its slots.
    fn happened(&self, slots: &TagSlots) -> impl Iterator<Item = Happened> {
        let read = |slot: u16| self.table.get(usize::from(slot)).map_or(Happened::NEVER, Slot::read);
        slots.0.iter().map(move |[one, other]| read(*one).earlier(read(*other)))
    }
}

/// Writes a tag for hashing: its kind, and each of its parts with its length, so that no two tags run together.
fn write_tag(hasher: &mut SipHasher13, tag: &Tag) {
    let (kind, parts): (u8, [&[u8]; 2]) = match tag {
        Tag::Everything => (0, [&[], &[]]),
        Tag::Organization(name) => (1, [name.as_bytes(), &[]]),
        Tag::Resource(path) => (2, [path.as_bytes(), &[]]),
        Tag::Below(path) => (3, [path.as_bytes(), &[]]),
        Tag::Seen(partition, path) => (4, [partition, path.as_bytes()]),
        Tag::Unplaced => (5, [&[], &[]]),
        Tag::Project(organization, name) => (6, [organization.as_bytes(), name.as_bytes()]),
        Tag::Team(organization, name) => (7, [organization.as_bytes(), name.as_bytes()]),
        Tag::Issue(name) => (8, [name.as_bytes(), &[]]),
        Tag::Release(organization, version) => (9, [organization.as_bytes(), version.as_bytes()]),
        Tag::Area(Some(organization), area) => (10, [organization.as_bytes(), area.label().as_bytes()]),
        Tag::Area(None, area) => (11, [area.label().as_bytes(), &[]]),
        Tag::Absent => (12, [&[], &[]]),
        Tag::Route(template) => (13, [template.as_bytes(), &[]]),
        Tag::Credential(Some(fingerprint)) => {
            hasher.write(&fingerprint.to_bits().to_ne_bytes());
            (14, [&[], &[]])
        }
        Tag::Credential(None) => (15, [&[], &[]]),
        Tag::Numbered => (16, [&[], &[]]),
    };
    hasher.write_u8(kind);
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
}

fn micros(moment: SystemTime) -> u64 {
    let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Fingerprint;
    use crate::routes::place::Area;

    const SETTLE: Duration = Duration::from_secs(10);

    fn generations() -> Generations {
        Generations::new([5; 16], SETTLE)
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn resource(path: &str) -> Tag {
        Tag::Resource(path.to_owned())
    }

    #[test]
    fn stamps_of_one_moment_differ_and_a_clock_that_steps_back_changes_nothing() {
        let generations = generations();
        let stamps: Vec<_> = [at(5), at(5), at(1), at(5), at(6)].map(|now| generations.stamp(now)).into();
        assert!(stamps.is_sorted_by(|left, right| left < right));
    }

    #[test]
    fn what_took_off_before_a_write_is_unusable_and_what_took_off_after_is_not() {
        let generations = generations();
        let slots = generations.slots(&[resource("/a/")]);
        let before = generations.stamp(at(0));
        assert_eq!(generations.standing(&slots, before), Standing::Current);
        generations.invalidate_tags(&[resource("/a/")], Cause::Write, at(0));
        assert_eq!(generations.standing(&slots, before), Standing::Unusable);
        let after = generations.stamp(at(0));
        assert_eq!(generations.standing(&slots, after), Standing::Settling);
        let later = generations.stamp(at(11));
        assert_eq!(generations.standing(&slots, later), Standing::Current);
    }

    #[test]
    fn what_a_write_made_unusable_is_not_dropped_and_what_anything_else_did_is() {
        let generations = generations();
        let slots = generations.slots(&[resource("/a/"), Tag::Organization("acme".to_owned())]);
        let stamp = generations.stamp(at(0));
        generations.invalidate_tags(&[resource("/a/")], Cause::SoftPurge, at(1));
        generations.invalidate_tags(&[resource("/a/")], Cause::Write, at(1));
        assert!(!generations.is_dropped(&slots, stamp));
        generations.invalidate_tags(&[Tag::Organization("acme".to_owned())], Cause::Purge, at(2));
        generations.invalidate_tags(&[Tag::Organization("acme".to_owned())], Cause::Write, at(3));
        assert!(generations.is_dropped(&slots, stamp));
        assert!(!generations.is_dropped(&slots, generations.stamp(at(3))));
    }

    #[test]
    fn a_purge_needs_no_settling() {
        let generations = generations();
        let slots = generations.slots(&[resource("/a/")]);
        let before = generations.stamp(at(0));
        generations.invalidate_tags(&[Tag::Everything], Cause::Purge, at(0));
        assert_eq!(generations.standing(&slots, before), Standing::Unusable);
        assert_eq!(generations.standing(&slots, generations.stamp(at(0))), Standing::Current);
    }

    #[test]
    fn what_took_off_before_a_soft_purge_is_stale_and_a_write_makes_it_unusable_all_the_same() {
        let generations = generations();
        let slots = generations.slots(&[resource("/a/"), Tag::Organization("acme".to_owned())]);
        let before = generations.stamp(at(0));
        generations.invalidate_tags(&[resource("/a/")], Cause::SoftPurge, at(0));
        assert_eq!(generations.standing(&slots, before), Standing::Purged);
        assert_eq!(generations.standing(&slots, generations.stamp(at(0))), Standing::Current);
        generations.invalidate_tags(&[Tag::Organization("acme".to_owned())], Cause::Write, at(1));
        assert_eq!(generations.standing(&slots, before), Standing::Unusable);
        let settling = generations.stamp(at(2));
        assert_eq!(generations.standing(&slots, settling), Standing::Settling);
        generations.invalidate_tags(&[resource("/a/")], Cause::SoftPurge, at(3));
        assert_eq!(generations.standing(&slots, settling), Standing::Purged);
    }

    #[test]
    fn a_reader_who_comes_after_a_soft_purge_belongs_to_another_generation() {
        let generations = generations();
        let slots = generations.slots(&[resource("/a/")]);
        let before = generations.generation(&slots);
        generations.invalidate_tags(&[resource("/a/")], Cause::SoftPurge, at(1));
        assert_ne!(generations.generation(&slots), before);
    }

    #[test]
    fn slots_tell_which_tags_are_carried() {
        let generations = generations();
        let slots = generations.slots(&[resource("/a/"), Tag::Organization("acme".to_owned())]);
        let carries = |tag| Generations::carries(&slots, &generations.pairs_of(&[Tag::Absent, tag]));
        assert!(carries(resource("/a/")) && carries(Tag::Organization("acme".to_owned())));
        assert!(carries(Tag::Everything));
        assert!(!carries(resource("/b/")) && !carries(Tag::Unplaced));
    }

    #[test]
    fn no_two_tags_share_their_slots_by_the_way_they_are_spelled() {
        let generations = generations();
        let text = |text: &str| text.to_owned();
        let tags = [
            Tag::Organization(text("a")),
            Tag::Resource(text("a")),
            Tag::Below(text("a")),
            Tag::Issue(text("a")),
            Tag::Route(text("a")),
            Tag::Project(text("a"), text("bc")),
            Tag::Project(text("ab"), text("c")),
            Tag::Team(text("a"), text("bc")),
            Tag::Release(text("a"), text("bc")),
            Tag::Area(Some(text("a")), Area::Issues),
            Tag::Area(None, Area::Issues),
            Tag::Area(None, Area::Releases),
            Tag::Absent,
            Tag::Unplaced,
            Tag::Numbered,
            Tag::Everything,
            Tag::Credential(None),
            Tag::Credential(Fingerprint::parse("0123456789abcdef")),
            Tag::Credential(Fingerprint::parse("0123456789abcdee")),
            Tag::Seen([0; 16], text("a")),
        ];
        let mut pairs = generations.pairs_of(&tags);
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), tags.len());
    }

    #[test]
    fn a_write_elsewhere_leaves_a_response_current() {
        let generations = generations();
        let slots = generations.slots(&[resource("/a/"), Tag::Organization("acme".to_owned())]);
        let stamp = generations.stamp(at(0));
        generations.invalidate_tags(&[resource("/b/"), Tag::Below("/a/".to_owned())], Cause::Write, at(1));
        assert_eq!(generations.standing(&slots, stamp), Standing::Current);
    }

    #[test]
    fn many_writes_elsewhere_leave_nearly_everything_current() {
        let generations = generations();
        let tag = |kind, number| resource(&format!("/{kind}/{number}/"));
        let kept: Vec<_> = (0..2_000).map(|number| generations.slots(&[tag("kept", number)])).collect();
        let stamp = generations.stamp(at(0));
        for number in 0..1_000 {
            generations.invalidate_tags(&[tag("written", number)], Cause::Write, at(1));
        }
        let lost =
            kept.iter().filter(|slots| generations.standing(slots, stamp) == Standing::Unusable).count();
        assert!(lost < 10, "{lost} of 2,000");
    }

    #[test]
    fn a_reader_who_comes_after_a_write_belongs_to_another_generation() {
        let generations = generations();
        let slots = generations.slots(&[resource("/a/")]);
        let before = generations.generation(&slots);
        generations.invalidate_tags(&[resource("/a/")], Cause::Write, at(1));
        assert_ne!(generations.generation(&slots), before);
    }
}

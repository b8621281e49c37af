//! Remembers what became unusable when, by tag, in a fixed amount of memory.
//!
//! A table of 65,536 slots; a tag falls into one by a keyed hash. Two tags in one slot only invalidate too much.
//! A stored response carries its slots and the [`Stamp`] of the moment its forward took off; a look-up compares.
//! Nothing is walked, and nothing is ever evicted from the table, so no write is ever forgotten.
//!
//! Invariants: stamps never repeat and never go back; a response whose forward took off before a write to one of
//! its tags is unusable for ever. Not here: which tags a write touches (`cache::invalidation`).

use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Why something became unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It was written: what is fetched soon after may still show the old state.
    Write,
    /// An operator purged it, or upstream rejected the credential.
    Purge,
}

/// The slots of a set of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSlots(Box<[u16]>);

impl TagSlots {
    /// Returns the bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.len() * size_of::<u16>()
    }
}

/// How a stored response stands towards what has happened to its tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing happened since it took off.
    Current,
    /// It took off so soon after a write that it may show the state before.
    Settling,
    /// Something happened after it took off.
    Unusable,
}

/// What became unusable when.
#[derive(Debug)]
pub struct Generations {
    unusable_before: Box<[AtomicU64]>,
    last: AtomicU64,
    key: [u8; 16],
    settle: Duration,
}

impl Generations {
    /// Makes an empty table; `settle` is how long after a write responses are [`Standing::Settling`].
    pub fn new(key: [u8; 16], settle: Duration) -> Self {
        let unusable_before = std::iter::repeat_with(AtomicU64::default).take(SLOTS).collect();
        Self { unusable_before, last: AtomicU64::new(0), key, settle }
    }

    /// Returns the slots of these tags, and that of everything.
    pub fn slots(&self, tags: &[Tag]) -> TagSlots {
        let mut slots: Vec<u16> = tags.iter().chain([&Tag::Everything]).map(|tag| self.slot(tag)).collect();
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

    /// Makes everything that carries any of these tags and took off before now unusable.
    pub fn invalidate_tags(&self, tags: &[Tag], cause: Cause, now: SystemTime) {
        let stamp = self.stamp(now).0 | if cause == Cause::Write { Stamp::WRITE } else { 0 };
        let slots = TagSlots(tags.iter().map(|tag| self.slot(tag)).collect());
        for slot in self.atomics(&slots) {
            slot.fetch_max(stamp, Ordering::AcqRel);
        }
    }

    /// Returns the latest moment at which any of these tags became unusable: the generation that a reader who
    /// comes now belongs to.
    pub fn generation(&self, slots: &TagSlots) -> Stamp {
        Stamp(self.atomics(slots).map(|slot| slot.load(Ordering::Acquire)).max().unwrap_or(0))
    }

    /// Returns how a response with these slots, whose forward took off at `stamp`, stands.
    pub fn standing(&self, slots: &TagSlots, stamp: Stamp) -> Standing {
        let mut standing = Standing::Current;
        for slot in self.atomics(slots) {
            let happened = Stamp(slot.load(Ordering::Acquire));
            if stamp < happened {
                return Standing::Unusable;
            }
            if happened.is_write() && stamp.moment().saturating_sub(happened.moment()) < self.settle {
                standing = Standing::Settling;
            }
        }
        standing
    }

    fn slot(&self, tag: &Tag) -> u16 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        let (kind, partition, name): (u8, &[u8], &str) = match tag {
            Tag::Everything => (0, &[], ""),
            Tag::Organization(name) => (1, &[], name),
            Tag::Resource(path) => (2, &[], path),
            Tag::Below(path) => (3, &[], path),
            Tag::Partition(partition) => (4, partition, ""),
            Tag::Seen(partition, path) => (5, partition, path),
        };
        hasher.write_u8(kind);
        hasher.write(partition);
        hasher.write(name.as_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are wanted")]
        let slot = hasher.finish() as u16;
        slot
    }

    fn atomics(&self, slots: &TagSlots) -> impl Iterator<Item = &AtomicU64> {
        slots.0.iter().filter_map(|slot| self.unusable_before.get(usize::from(*slot)))
    }
}

fn micros(moment: SystemTime) -> u64 {
    let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_purge_needs_no_settling() {
        let generations = generations();
        let slots = generations.slots(&[resource("/a/")]);
        let before = generations.stamp(at(0));
        generations.invalidate_tags(&[Tag::Everything], Cause::Purge, at(0));
        assert_eq!(generations.standing(&slots, before), Standing::Unusable);
        assert_eq!(generations.standing(&slots, generations.stamp(at(0))), Standing::Current);
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
    fn a_reader_who_comes_after_a_write_belongs_to_another_generation() {
        let generations = generations();
        let slots = generations.slots(&[resource("/a/")]);
        let before = generations.generation(&slots);
        generations.invalidate_tags(&[resource("/a/")], Cause::Write, at(1));
        assert_ne!(generations.generation(&slots), before);
    }
}

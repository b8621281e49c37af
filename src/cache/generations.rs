//! Remembers what became unusable when, by tag, in a fixed amount of memory.
//!
//! A table of 65,536 slots; a tag falls into two of them by a keyed hash, and what happened to it is the earlier of the
//! two (a count-min sketch, with moments for counts). A tag is invalidated by mistake only when both its slots were hit,
//! by one other tag or by two: after writes to 1,000 tags, 1 in 1,000 of the others, where one slot each would lose 1 in
//! 66.
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

    /// Makes everything that carries any of these tags and took off before now unusable.
    pub fn invalidate_tags(&self, tags: &[Tag], cause: Cause, now: SystemTime) {
        let stamp = self.stamp(now).0 | if cause == Cause::Write { Stamp::WRITE } else { 0 };
        for slot in tags.iter().flat_map(|tag| self.slots_of(tag)) {
            if let Some(slot) = self.unusable_before.get(usize::from(slot)) {
                slot.fetch_max(stamp, Ordering::AcqRel);
            }
        }
    }

    /// Returns the latest moment at which any of these tags became unusable: the generation that a reader who
    /// comes now belongs to.
    pub fn generation(&self, slots: &TagSlots) -> Stamp {
        self.happened(slots).max().unwrap_or(Stamp(0))
    }

    /// Returns how a response with these slots, whose forward took off at `stamp`, stands.
    pub fn standing(&self, slots: &TagSlots, stamp: Stamp) -> Standing {
        let mut standing = Standing::Current;
        for happened in self.happened(slots) {
            if stamp < happened {
                return Standing::Unusable;
            }
            if happened.is_write() && stamp.moment().saturating_sub(happened.moment()) < self.settle {
                standing = Standing::Settling;
            }
        }
        standing
    }

    fn slots_of(&self, tag: &Tag) -> [u16; 2] {
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
        let hash = hasher.finish();
        #[expect(clippy::cast_possible_truncation, reason = "twice 16 of the bits are wanted")]
        let slots = [hash as u16, (hash >> 16) as u16];
        slots
    }

    /// Returns for each tag when it became unusable, or when both of its slots were hit by others.
    fn happened(&self, slots: &TagSlots) -> impl Iterator<Item = Stamp> {
        let moment = |slot: u16| {
            self.unusable_before.get(usize::from(slot)).map_or(0, |slot| slot.load(Ordering::Acquire))
        };
        slots.0.iter().map(move |[one, other]| Stamp(moment(*one).min(moment(*other))))
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

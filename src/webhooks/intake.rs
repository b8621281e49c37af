//! Decides whether a rightly signed webhook is let in: not one that has been here before, and not too many. Pure.
//!
//! Only the body is signed, so a webhook is known by its body's digest alone; that of each one that was let in is
//! remembered for [`MEMORY`]. Everything is checked first, and then charged once.
//!
//! Invariants: a body is let in once in [`MEMORY`]; one that is refused leaves no trace, so that it can be sent again; at
//! most [`MOST_DIGESTS`] are remembered, and none is forgotten early: when there is no room, nobody is let in.
//! Not here: signatures (`webhooks::signature`), the lock around it and the clock (`webhooks`).

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};

use crate::webhooks::bucket::Bucket;
use crate::webhooks::refusal::Refusal;

/// How long a body is remembered.
pub const MEMORY: Duration = Duration::from_mins(10);

/// Most digests that are remembered: 16 in a second for all of [`MEMORY`]. They take about a megabyte.
pub const MOST_DIGESTS: usize = 10_000;

/// SHA-256 of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyDigest([u8; 32]);

impl BodyDigest {
    /// Returns the digest of a body.
    pub fn of(body: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest(&SHA256, body).as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

/// Who was let in.
#[derive(Debug)]
pub struct Intake {
    bucket: Bucket,
    seen: HashSet<BodyDigest>,
    /// Everything that is in `seen`, and until when; the oldest first.
    until: VecDeque<(SystemTime, BodyDigest)>,
}

impl Intake {
    /// Makes one that has seen nobody.
    pub fn empty() -> Self {
        Self { bucket: Bucket::full(), seen: HashSet::new(), until: VecDeque::new() }
    }

    /// Lets a webhook in at `now` and remembers it.
    ///
    /// # Errors
    /// Why it is not let in; then it is not remembered either.
    pub fn admit(&mut self, digest: BodyDigest, now: SystemTime) -> Result<(), Refusal> {
        self.forget(now);
        if self.seen.contains(&digest) {
            return Err(Refusal::Replayed);
        }
        if let Some((until, _)) = self.until.front()
            && self.until.len() >= MOST_DIGESTS
        {
            return Err(Refusal::MemoryFull { retry_after: until.duration_since(now).unwrap_or_default() });
        }
        self.bucket.take(now).map_err(|retry_after| Refusal::RateLimited { retry_after })?;
        self.seen.insert(digest);
        self.until.push_back((now + MEMORY, digest));
        Ok(())
    }

    /// Forgets what was remembered long enough.
    fn forget(&mut self, now: SystemTime) {
        while let Some((_, digest)) = self.until.pop_front_if(|(until, _)| *until <= now) {
            self.seen.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::webhooks::bucket::{BURST, INTERVAL};

    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_hours(1) + Duration::from_millis(milliseconds)
    }

    fn body(number: usize) -> BodyDigest {
        BodyDigest::of(number.to_string().as_bytes())
    }

    #[test]
    fn a_body_is_let_in_once_in_ten_minutes() {
        let mut intake = Intake::empty();
        assert_eq!(intake.admit(body(1), at(0)), Ok(()));
        assert_eq!(intake.admit(body(2), at(0)), Ok(()));
        for later in [0, 1, 300_000, 599_999] {
            assert_eq!(intake.admit(body(1), at(later)), Err(Refusal::Replayed), "{later}");
        }
        assert_eq!(intake.admit(body(1), at(600_000)), Ok(()));
        assert_eq!(intake.admit(body(1), at(600_001)), Err(Refusal::Replayed));
    }

    #[test]
    fn a_replay_takes_nothing_from_the_rate() {
        let mut intake = Intake::empty();
        assert_eq!(intake.admit(body(0), at(0)), Ok(()));
        for _ in 0..1_000 {
            assert_eq!(intake.admit(body(0), at(0)), Err(Refusal::Replayed));
        }
        for number in 1..100 {
            assert_eq!(intake.admit(body(number), at(0)), Ok(()), "{number}");
        }
    }

    #[test]
    fn what_comes_too_fast_is_not_remembered_so_that_it_can_be_sent_again() {
        let mut intake = Intake::empty();
        let burst = usize::try_from(BURST).unwrap();
        for number in 0..burst {
            assert_eq!(intake.admit(body(number), at(0)), Ok(()));
        }
        let refused = Err(Refusal::RateLimited { retry_after: INTERVAL });
        assert_eq!(intake.admit(body(burst), at(0)), refused);
        assert_eq!(intake.admit(body(burst), at(50)), Ok(()));
    }

    #[test]
    fn when_the_memory_is_full_nothing_is_forgotten_and_nobody_is_let_in() {
        let mut intake = Intake::empty();
        // As fast as the rate allows: full before the first one is forgotten.
        let moment = |number: usize| at(50 * u64::try_from(number).unwrap());
        for number in 0..MOST_DIGESTS {
            assert_eq!(intake.admit(body(number), moment(number)), Ok(()), "{number}");
        }
        let now = moment(MOST_DIGESTS);
        let retry_after = (at(0) + MEMORY).duration_since(now).unwrap();
        let newcomer = body(MOST_DIGESTS);
        for _ in 0..3 {
            assert_eq!(intake.admit(newcomer, now), Err(Refusal::MemoryFull { retry_after }));
        }
        for number in [0, MOST_DIGESTS / 2, MOST_DIGESTS - 1] {
            assert_eq!(intake.admit(body(number), now), Err(Refusal::Replayed), "{number}");
        }
        assert_eq!(intake.until.len(), MOST_DIGESTS);
        assert_eq!(intake.admit(newcomer, now + retry_after), Ok(()));
        assert_eq!((intake.until.len(), intake.seen.len()), (MOST_DIGESTS, MOST_DIGESTS));
    }

    #[test]
    fn what_was_remembered_long_enough_takes_no_memory() {
        let mut intake = Intake::empty();
        for number in 0..100 {
            intake.admit(body(number), at(0)).unwrap();
        }
        intake.admit(body(100), at(600_000)).unwrap();
        assert_eq!((intake.until.len(), intake.seen.len()), (1, 1));
    }
}

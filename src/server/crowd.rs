//! Decides who may be connected, and who has to go for somebody else.
//!
//! When all places are taken, whoever idles gives up theirs: first who has been served before, then who has been
//! connected for a while without a word worth the name. Nobody who waits for an answer is ever asked to go.
//!
//! Invariants: no more than `max_connections` have a place, nor more than `max_connections_per_peer` of one peer; a
//! [`Place`] is given back however its connection ends; nothing here is touched for a request, only for a connection.
//! Not here: accepting (`server::accept`), ending a connection (`server::connection`).

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::config::listen::Neighbour;
use crate::metrics::connections::TurnedAway;
use crate::server::lifecycle::Work;

/// How long somebody may be connected without a request before the place counts as idle.
const NEWCOMER: Duration = Duration::from_secs(1);

/// Most connections that are looked at to find one that idles.
const MOST_LOOKED_AT: usize = 2048;

/// How many may be connected.
#[derive(Debug, Clone, Default)]
pub struct CrowdLimits {
    /// Most at a time.
    pub most: usize,
    /// Most of one peer at a time; 0 means any number.
    pub most_per_peer: usize,
    /// Those of whom any number may be connected.
    pub exempt: Vec<Neighbour>,
}

/// Who is connected.
#[derive(Debug)]
pub struct Crowd {
    limits: CrowdLimits,
    members: Mutex<Members>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Members {
    /// By number, the earliest first.
    works: BTreeMap<u64, Weak<Work>>,
    by_peer: HashMap<IpAddr, usize>,
    next: u64,
    /// The last one that was asked to go: the search goes on behind it.
    asked: u64,
}

impl Crowd {
    /// Starts with nobody.
    pub fn new(limits: CrowdLimits) -> Self {
        Self { limits, members: Mutex::default(), left: Notify::new() }
    }

    /// Gives a connection a place. `address` is its peer's; `None` is somebody on a Unix domain socket.
    ///
    /// # Errors
    /// Why there is none.
    pub fn enter(self: &Arc<Self>, work: &Arc<Work>, address: Option<IpAddr>) -> Result<Place, TurnedAway> {
        let mut members = self.members();
        let peer = address.filter(|_| self.is_counted(address)).map(household);
        let own = peer.and_then(|peer| members.by_peer.get(&peer)).copied().unwrap_or_default();
        // First, because nobody makes room for whoever has enough.
        if peer.is_some() && self.limits.most_per_peer <= own {
            return Err(TurnedAway::Peer);
        }
        if self.limits.most <= members.works.len() {
            return Err(TurnedAway::Full);
        }
        if let Some(peer) = peer {
            members.by_peer.insert(peer, own + 1);
        }
        let number = members.next;
        members.next += 1;
        members.works.insert(number, Arc::downgrade(work));
        Ok(Place { crowd: Arc::clone(self), number, peer })
    }

    /// Asks one who idles to go; returns whether there is one.
    pub fn make_room(&self) -> bool {
        let mut members = self.members();
        let behind = members.works.range((Bound::Excluded(members.asked), Bound::Unbounded));
        let before = members.works.range(..=members.asked);
        let candidates = behind.chain(before).take(MOST_LOOKED_AT);
        let (mut newcomer, mut idle, mut last) = (None, None, members.asked);
        for (number, work) in candidates {
            last = *number;
            let Some(work) = work.upgrade().filter(|work| work.may_go() && !work.is_asked_to_go()) else {
                continue;
            };
            if work.started() > 0 {
                idle = Some((*number, work));
                break;
            }
            if newcomer.is_none() && NEWCOMER <= work.age() {
                newcomer = Some((*number, work));
            }
        }
        let found = idle.or(newcomer);
        // Where nobody is found, the next search looks at others.
        members.asked = found.as_ref().map_or(last, |(number, _)| *number);
        let Some((_, work)) = found else { return false };
        work.ask_to_go();
        true
    }

    /// Waits until somebody has left.
    pub async fn somebody_left(&self) {
        self.left.notified().await;
    }

    /// Returns whether the connections of this peer are counted.
    fn is_counted(&self, address: Option<IpAddr>) -> bool {
        let is_exempt = |neighbour: &Neighbour| neighbour.includes(address);
        self.limits.most_per_peer > 0 && !self.limits.exempt.iter().any(is_exempt)
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        // Nothing in here can be half done: every change is one step.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what stands for everybody whom one household can be: an IPv4 address, or an IPv6 network of 64 bits.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// A place, for as long as this lives.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    peer: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut members = self.crowd.members();
        members.works.remove(&self.number);
        if let Some(peer) = self.peer
            && let Some(count) = members.by_peer.get_mut(&peer)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                members.by_peer.remove(&peer);
            }
        }
        drop(members);
        self.crowd.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::server::lifecycle::{Ticket, Writing};
    use crate::server::tests::life;

    fn crowd(most: usize, most_per_peer: usize, exempt: &[&str]) -> Arc<Crowd> {
        let exempt = exempt.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Crowd::new(CrowdLimits { most, most_per_peer, exempt }))
    }

    fn work() -> Arc<Work> {
        Arc::new(Work::new(life()))
    }

    #[tokio::test]
    async fn there_are_no_more_than_allowed_and_a_place_is_given_back() {
        let crowd = crowd(2, 0, &[]);
        let one = crowd.enter(&work(), None).unwrap();
        let _other = crowd.enter(&work(), None).unwrap();
        assert_eq!(crowd.enter(&work(), None).unwrap_err(), TurnedAway::Full);
        drop(one);
        crowd.somebody_left().await;
        crowd.enter(&work(), None).unwrap();
    }

    #[tokio::test]
    async fn one_household_has_no_more_than_its_share() {
        let crowd = crowd(100, 1, &["10.0.0.0/8", "unix"]);
        let check = |text: &str, expected: Option<TurnedAway>| {
            let entered = crowd.enter(&work(), Some(text.parse().unwrap()));
            assert_eq!(entered.as_ref().err().copied(), expected, "{text}");
            entered.ok()
        };
        let own = check("192.0.2.1", None);
        let _mapped = check("::ffff:192.0.2.1", Some(TurnedAway::Peer));
        let _next_door = check("192.0.2.2", None);
        let _six = check("2001:db8::1", None);
        let _same_network = check("2001:db8::2", Some(TurnedAway::Peer));
        let _other_network = check("2001:db8:0:1::1", None);
        let _proxies = [check("10.1.1.1", None), check("10.1.1.1", None)];
        let _sockets = [crowd.enter(&work(), None).unwrap(), crowd.enter(&work(), None).unwrap()];
        drop(own);
        let _again = check("192.0.2.1", None);
    }

    #[tokio::test]
    async fn a_search_that_finds_nobody_goes_on_behind_those_it_has_looked_at() {
        let crowd = crowd(usize::MAX, 0, &[]);
        let works: Vec<_> = (0..=MOST_LOOKED_AT + 1).map(|_| work()).collect();
        let _places: Vec<_> = works.iter().map(|work| crowd.enter(work, None).unwrap()).collect();
        let tickets: Vec<_> = works.iter().map(|work| Ticket::take(Arc::clone(work))).collect();
        let mut tickets = tickets.into_iter().rev();
        drop(tickets.next());
        assert!(!crowd.make_room(), "it looks at the first ones");
        assert!(crowd.make_room() && works.last().unwrap().is_asked_to_go());
    }

    #[tokio::test]
    async fn who_is_still_being_written_to_stays() {
        let crowd = crowd(1, 0, &[]);
        let work = work();
        let _place = crowd.enter(&work, None).unwrap();
        drop(Ticket::take(Arc::clone(&work)));
        work.note_writing(Writing::Pending);
        assert!(!crowd.make_room());
        work.note_writing(Writing::Done);
        assert!(crowd.make_room());
    }

    #[tokio::test(start_paused = true)]
    async fn who_idles_goes_and_who_is_served_stays() {
        let crowd = crowd(10, 0, &[]);
        let (busy, idle, silent) = (work(), work(), work());
        let _places = [&busy, &silent, &idle].map(|work| crowd.enter(work, None).unwrap());
        let _ticket = Ticket::take(Arc::clone(&busy));
        assert!(!crowd.make_room(), "nobody has had the time to say anything");
        drop(Ticket::take(Arc::clone(&idle)));
        assert!(crowd.make_room() && idle.is_asked_to_go() && !silent.is_asked_to_go());
        assert!(!crowd.make_room());
        sleep(NEWCOMER).await;
        assert!(crowd.make_room() && silent.is_asked_to_go());
        assert!(!crowd.make_room() && !busy.is_asked_to_go());
    }
}

//! What was learned of organizations: the names of one, its id and its slugs, and the region where it lives.
//!
//! Sentry knows an organization by its id and by its slug, and says both in its bodies, together with the region. A slug
//! can change, and later belong to another organization: the newest word counts.
//!
//! Invariants: bounded, in organizations and in slugs of each; a slug belongs to one id at most; a region is a place in a
//! list that was fixed before ([`RegionId`]), never something that was read. Not here: who may teach (`proxy::directions`),
//! which regions there are (`regions`), whose request goes there.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

/// Most organizations remembered; beyond that, the half that was heard of longest ago is forgotten.
const MOST: usize = 16_384;

/// Most slugs of one organization: the present one and those that it had before.
const MOST_SLUGS: usize = 4;

/// How long it is not asked again if an organization still lives where it was.
const QUESTION_PAUSE: Duration = Duration::from_mins(1);

/// Longest slug, in bytes: Sentry's are 50 characters at most.
const LONGEST_SLUG: usize = 128;

/// A region: its place in the list of those that requests may be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RegionId(pub usize);

/// What became of something that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// It was not known where the organization lives, or it has moved.
    Learned,
    /// That was known already, or nothing was said of it.
    Known,
}

/// What was learned of organizations.
#[derive(Debug, Default)]
pub struct Organizations(RwLock<Table>);

#[derive(Debug, Default)]
struct Table {
    records: HashMap<u64, Record>,
    ids: HashMap<Arc<str>, u64>,
    /// Counts what was heard, so that it has an order.
    heard: u64,
}

#[derive(Debug, Default)]
struct Record {
    /// The present slug last.
    slugs: Vec<Arc<str>>,
    region: Option<RegionId>,
    heard: u64,
    /// When it was last asked whether it still lives there.
    questioned: Option<SystemTime>,
}

impl Organizations {
    /// Learns that an organization of this id has this slug, and where it lives if that was said. What is no id or no slug
    /// teaches nothing.
    pub fn learn(&self, id: &str, slug: &str, region: Option<RegionId>) -> Lesson {
        match id_of(id).filter(|_| is_slug(slug)) {
            Some(id) => self.write().learn(id, slug, region),
            None => Lesson::Known,
        }
    }

    /// Returns where an organization lives, by its id or slug, if that is known.
    pub fn region_of(&self, name: &str) -> Option<RegionId> {
        self.read().record(name)?.1.region
    }

    /// Forgets where an organization lives, by its id or slug; its names stay. Returns whether it was known.
    pub fn forget_region(&self, name: &str) -> bool {
        let mut table = self.write();
        let Some((id, _)) = table.record(name) else { return false };
        table.records.get_mut(&id).and_then(|record| record.region.take()).is_some()
    }

    /// Returns whether it may be asked at `now` if an organization still lives where it was; if so, notes that.
    pub fn may_question(&self, name: &str, now: SystemTime) -> bool {
        let mut table = self.write();
        let Some((id, _)) = table.record(name) else { return false };
        let Some(record) = table.records.get_mut(&id) else { return false };
        let since = record.questioned.and_then(|last| now.duration_since(last).ok());
        let is_time = since.is_none_or(|since| QUESTION_PAUSE <= since);
        if is_time {
            record.questioned = Some(now);
        }
        is_time
    }

    /// Returns the other names of the same organization: its id and every slug that it is known to have or have had.
    pub fn names_of(&self, name: &str) -> Vec<String> {
        let table = self.read();
        let Some((id, record)) = table.record(name) else { return Vec::new() };
        let slugs = record.slugs.iter().map(|slug| slug.as_ref().to_owned());
        std::iter::once(id.to_string()).chain(slugs).filter(|other| other != name).collect()
    }

    /// Returns how many organizations are known.
    pub fn count(&self) -> usize {
        self.read().records.len()
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn record(&self, name: &str) -> Option<(u64, &Record)> {
        let id = id_of(name).or_else(|| self.ids.get(name).copied())?;
        Some((id, self.records.get(&id)?))
    }

    fn learn(&mut self, id: u64, slug: &str, region: Option<RegionId>) -> Lesson {
        if MOST <= self.records.len() && !self.records.contains_key(&id) {
            self.forget_half();
        }
        self.name(id, slug);
        self.heard += 1;
        let record = self.records.entry(id).or_default();
        record.heard = self.heard;
        match region {
            Some(_) if record.region != region => {
                record.region = region;
                Lesson::Learned
            }
            Some(_) | None => Lesson::Known,
        }
    }

    /// Gives an organization a slug, as its present one; whoever had it before has it no more.
    fn name(&mut self, id: u64, slug: &str) {
        let record = self.records.entry(id).or_default();
        if record.slugs.last().is_some_and(|present| present.as_ref() == slug) {
            return;
        }
        let slug: Arc<str> = Arc::from(slug);
        record.slugs.retain(|known| *known != slug);
        record.slugs.push(Arc::clone(&slug));
        let oldest = (record.slugs.len() > MOST_SLUGS).then(|| record.slugs.remove(0));
        if let Some(oldest) = oldest {
            self.ids.remove(&oldest);
        }
        if let Some(former) = self.ids.insert(Arc::clone(&slug), id).filter(|former| *former != id)
            && let Some(record) = self.records.get_mut(&former)
        {
            record.slugs.retain(|known| *known != slug);
        }
    }

    fn forget_half(&mut self) {
        let mut heard: Vec<u64> = self.records.values().map(|record| record.heard).collect();
        heard.sort_unstable();
        let Some(middle) = heard.get(heard.len() / 2).copied() else { return };
        self.records.retain(|_, record| middle <= record.heard);
        let records = &self.records;
        self.ids.retain(|_, id| records.contains_key(id));
    }
}

/// Reads an id: all-decimal names are ids, and no slug is (`sentry-api.md` §4.3).
fn id_of(name: &str) -> Option<u64> {
    // Without the sign that a number may have otherwise.
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok()).flatten()
}

fn is_slug(text: &str) -> bool {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    !is_number && text.len() <= LONGEST_SLUG && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Option<RegionId> = Some(RegionId(1));
    const DE: Option<RegionId> = Some(RegionId(2));

    fn names(organizations: &Organizations, name: &str) -> Vec<String> {
        let mut names = organizations.names_of(name);
        names.sort();
        names
    }

    #[test]
    fn an_organization_is_found_by_its_id_and_by_its_slug() {
        let organizations = Organizations::default();
        assert_eq!(organizations.learn("7", "acme", US), Lesson::Learned);
        assert_eq!((organizations.region_of("7"), organizations.region_of("acme")), (US, US));
        assert_eq!(
            (names(&organizations, "7"), names(&organizations, "acme")),
            (vec!["acme".to_owned()], vec!["7".to_owned()])
        );
        assert_eq!((organizations.region_of("8"), organizations.region_of("acm")), (None, None));
        assert_eq!(names(&organizations, "other"), Vec::<String>::new());
    }

    #[test]
    fn it_is_asked_once_in_a_minute_whether_a_known_organization_still_lives_there() {
        let organizations = Organizations::default();
        organizations.learn("7", "acme", US);
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + seconds);
        let may = |name: &str, seconds| organizations.may_question(name, at(seconds));
        assert!(may("acme", 0) && !may("7", 59) && may("7", 60) && !may("acme", 61));
        assert!(!may("other", 0));
    }

    #[test]
    fn names_are_learned_without_a_region_and_a_region_stays_when_none_is_said() {
        let organizations = Organizations::default();
        assert_eq!(organizations.learn("7", "acme", None), Lesson::Known);
        assert_eq!((organizations.region_of("acme"), names(&organizations, "7").len()), (None, 1));
        assert_eq!(organizations.learn("7", "acme", DE), Lesson::Learned);
        assert_eq!(organizations.learn("7", "acme", None), Lesson::Known);
        assert_eq!(organizations.learn("7", "acme", DE), Lesson::Known);
        assert_eq!(organizations.region_of("7"), DE);
    }

    #[test]
    fn an_organization_that_has_moved_is_learned_anew() {
        let organizations = Organizations::default();
        organizations.learn("7", "acme", US);
        assert_eq!(organizations.learn("7", "acme", DE), Lesson::Learned);
        assert_eq!(organizations.region_of("acme"), DE);
        assert!(organizations.forget_region("acme"));
        assert!(!organizations.forget_region("acme") && !organizations.forget_region("nobody"));
        assert_eq!((organizations.region_of("7"), names(&organizations, "7").len()), (None, 1));
    }

    #[test]
    fn a_renamed_organization_keeps_the_names_that_it_had() {
        let organizations = Organizations::default();
        for slug in ["one", "two", "one", "three"] {
            organizations.learn("7", slug, US);
        }
        assert_eq!(names(&organizations, "7"), ["one", "three", "two"]);
        assert_eq!(names(&organizations, "two"), ["7", "one", "three"]);
        assert_eq!(organizations.region_of("two"), US);
    }

    #[test]
    fn a_slug_that_belongs_to_another_one_now_keeps_no_old_id() {
        let organizations = Organizations::default();
        organizations.learn("7", "acme", US);
        organizations.learn("7", "acme-old", US);
        organizations.learn("8", "acme", DE);
        assert_eq!(organizations.region_of("acme"), DE);
        assert_eq!(names(&organizations, "acme"), ["8"]);
        assert_eq!(names(&organizations, "7"), ["acme-old"]);
        // And back again.
        organizations.learn("7", "acme", US);
        assert_eq!(
            (names(&organizations, "acme"), names(&organizations, "8")),
            (vec!["7".to_owned(), "acme-old".to_owned()], vec![])
        );
    }

    #[test]
    fn what_is_no_id_or_no_slug_teaches_nothing() {
        let organizations = Organizations::default();
        let long = "x".repeat(LONGEST_SLUG + 1);
        for (id, slug) in [
            ("", "acme"),
            ("+7", "acme"),
            ("-7", "acme"),
            ("7x", "acme"),
            ("99999999999999999999999", "acme"),
            ("7", ""),
            ("7", "8"),
            ("7", "a/b"),
            ("7", &long),
        ] {
            organizations.learn(id, slug, US);
            assert_eq!((organizations.count(), organizations.region_of(slug)), (0, None), "{id} {slug}");
        }
    }

    #[test]
    fn the_slugs_of_one_organization_are_bounded() {
        let organizations = Organizations::default();
        for number in 0..100 {
            organizations.learn("7", &format!("slug-{number}"), US);
        }
        assert_eq!(names(&organizations, "7"), ["slug-96", "slug-97", "slug-98", "slug-99"]);
        assert_eq!(organizations.region_of("slug-95"), None);
        assert_eq!(organizations.read().ids.len(), MOST_SLUGS);
    }

    #[test]
    fn the_table_is_bounded_and_what_was_heard_of_last_stays() {
        let organizations = Organizations::default();
        for number in 0..=MOST {
            organizations.learn(&number.to_string(), &format!("slug-{number}"), US);
            // Heard of again and again.
            organizations.learn("0", "slug-0", US);
        }
        let count = organizations.count();
        assert!((MOST / 2..=MOST / 2 + 2).contains(&count), "{count}");
        assert_eq!(organizations.read().ids.len(), count);
        assert_eq!((organizations.region_of("slug-0"), organizations.region_of("slug-1")), (US, None));
        assert_eq!(organizations.region_of(&MOST.to_string()), US);
    }
}

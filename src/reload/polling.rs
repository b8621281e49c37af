//! Notices that the files of a configuration have changed: by what they hold, not by their times and names, so that an edit, a
//! rename over them and a link that leads elsewhere are all the same. Pure.
//!
//! A change counts once two looks in a row have seen it: whoever writes a file may be in the middle of it, and half a
//! configuration can be a valid one that lets everybody in.
//!
//! Invariants: what has been read once, for better or worse, is not read again until it changes; a file that is gone changes
//! nothing, and is told once. Not here: looking (handed in), what follows from a change (`reload`).

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};

use crate::config::files::ConfigurationFile;

/// How long after something new the next look is taken, where the next one would be later.
const SETTLING: Duration = Duration::from_secs(1);

/// What the files held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// All of them could be read; a digest of their names and bytes.
    Whole([u8; 32]),
    /// The one of this name could not.
    Gone(String),
}

impl Reading {
    /// Reads files by `read`.
    pub fn of<E>(files: &[ConfigurationFile], read: impl Fn(&Path) -> Result<Vec<u8>, E>) -> Self {
        let mut context = Context::new(&SHA256);
        for file in files {
            let Ok(bytes) = read(&file.path) else { return Self::Gone(file.name.clone()) };
            for part in [file.name.as_bytes(), &bytes] {
                context.update(&part.len().to_le_bytes());
                context.update(part);
            }
        }
        let mut whole = [0; 32];
        whole.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self::Whole(whole)
    }
}

/// What a look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Nothing new.
    Same,
    /// Something new, which may go on changing.
    Unsettled,
    /// Something new that has stayed the same for two looks: it is to be read.
    Changed,
    /// The file of this name can no longer be read.
    Gone(String),
}

/// Remembers what the files held.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// What was read last; nothing where that was not all there.
    known: Option<[u8; 32]>,
    /// What the last look has shown, where that is something else.
    pending: Option<[u8; 32]>,
    /// The file that was told to be gone.
    gone: Option<String>,
}

impl Watch {
    /// Notes what was there when the configuration was read.
    pub fn note(&mut self, reading: Reading) {
        *self = match reading {
            Reading::Whole(known) => Self { known: Some(known), pending: None, gone: None },
            // Whoever asked for it has been told.
            Reading::Gone(file) => Self { known: None, pending: None, gone: Some(file) },
        };
    }

    /// Takes a look.
    pub fn look(&mut self, reading: Reading) -> Sight {
        let seen = match reading {
            Reading::Gone(file) if self.gone.as_ref() == Some(&file) => return Sight::Same,
            Reading::Gone(file) => {
                self.gone = Some(file.clone());
                return Sight::Gone(file);
            }
            Reading::Whole(seen) => seen,
        };
        self.gone = None;
        let before = self.pending.take();
        if self.known == Some(seen) {
            Sight::Same
        } else if before == Some(seen) {
            Sight::Changed
        } else {
            self.pending = Some(seen);
            Sight::Unsettled
        }
    }

    /// Returns when to look again, where `poll` is how often; `None`: never.
    pub fn pause(&self, poll: Duration) -> Option<Duration> {
        let pause = if self.pending.is_some() { poll.min(SETTLING) } else { poll };
        (!pause.is_zero()).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(5);

    fn whole(content: u8) -> Reading {
        Reading::Whole([content; 32])
    }

    fn gone(file: &str) -> Reading {
        Reading::Gone(file.to_owned())
    }

    /// Takes looks one after the other; 0 is a file that is gone, 1 is what was read at the start. `!` means that it was to
    /// be read anew, and was.
    #[track_caller]
    fn check(looks: &[u8], expected: &str) {
        let mut watch = Watch::default();
        watch.note(whole(1));
        let sights = looks.iter().map(|look| {
            let reading = if *look == 0 { gone("a") } else { whole(*look) };
            match watch.look(reading.clone()) {
                Sight::Same => '=',
                Sight::Unsettled => '~',
                Sight::Gone(_) => '0',
                Sight::Changed => {
                    watch.note(reading);
                    '!'
                }
            }
        });
        assert_eq!(sights.collect::<String>(), expected, "{looks:?}");
    }

    #[test]
    fn a_change_counts_once_two_looks_have_seen_it() {
        check(&[1, 1, 1], "===");
        check(&[2, 2, 2, 2], "~!==");
        check(&[2, 3, 3, 3], "~~!=");
        check(&[2, 1, 2, 2, 1, 1], "~=~!~!");
    }

    #[test]
    fn what_is_gone_for_a_moment_changes_nothing_and_is_told_once() {
        check(&[0, 0, 0, 1, 1], "0====");
        check(&[0, 0, 2, 2, 0, 2], "0=~!0=");
        check(&[2, 0, 2, 2], "~0!=");
        check(&[0, 1, 0, 1], "0=0=");
    }

    #[test]
    fn another_file_that_is_gone_is_told_too() {
        let mut watch = Watch::default();
        watch.note(whole(1));
        assert_eq!(watch.look(gone("a")), Sight::Gone("a".into()));
        assert_eq!(watch.look(gone("b")), Sight::Gone("b".into()));
        assert_eq!(watch.look(gone("b")), Sight::Same);
    }

    #[test]
    fn what_was_asked_to_be_read_while_it_was_gone_is_read_when_it_is_back() {
        let mut watch = Watch::default();
        watch.note(whole(1));
        watch.note(gone("a"));
        assert_eq!(watch.look(gone("a")), Sight::Same);
        assert_eq!(watch.look(whole(1)), Sight::Unsettled);
        assert_eq!(watch.look(whole(1)), Sight::Changed);
    }

    #[test]
    fn what_is_new_is_looked_at_again_soon_and_nothing_at_all_where_that_is_off() {
        let mut watch = Watch::default();
        watch.note(whole(1));
        assert_eq!(watch.pause(POLL), Some(POLL));
        watch.look(whole(2));
        assert_eq!(watch.pause(POLL), Some(SETTLING));
        assert_eq!(watch.pause(SETTLING / 2), Some(SETTLING / 2));
        assert_eq!(watch.pause(Duration::ZERO), None);
    }

    #[test]
    fn a_reading_tells_every_file_and_every_byte_apart() {
        let read = |names: &[&str], contents: &[&str]| {
            let file =
                |name: &&str| ConfigurationFile { name: (*name).to_owned(), path: format!("/{name}").into() };
            Reading::of(&names.iter().map(file).collect::<Vec<_>>(), |path| {
                let index = names.iter().position(|name| path == Path::new(&format!("/{name}"))).unwrap();
                contents.get(index).map(|text| text.as_bytes().to_vec()).ok_or(())
            })
        };
        let one = read(&["a", "b"], &["x", "y"]);
        assert_eq!(one, read(&["a", "b"], &["x", "y"]));
        for other in [
            read(&["a", "b"], &["xy", ""]),
            read(&["a", "b"], &["", "xy"]),
            read(&["a", "c"], &["x", "y"]),
            read(&["a"], &["x"]),
            read(&[], &[]),
        ] {
            assert!(one != other && matches!(other, Reading::Whole(_)), "{other:?}");
        }
        assert_eq!(read(&["a", "b"], &["x"]), gone("b"));
    }
}
